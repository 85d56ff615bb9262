"""Notebooks that are recorded: run once with a server, outputs and tape kept.

    python -m tests.recorded

records ``tests/data/recorded.ipynb`` again, from llama.cpp's own server.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.llamacpp import llama_server

__all__ = ["NOTEBOOK", "TAPE", "home", "record", "repository"]

NOTEBOOK = Path(__file__).parent / "data" / "recorded.ipynb"
TAPE = NOTEBOOK.with_suffix(".tape")

repository = Path(__file__).parents[1]


def home(folder: Path, config: str = "", startup: str = "") -> dict[str, str]:
    """Make *folder* a home of IPython, with a *config* and a *startup* script; return the variables for it."""
    profile = folder / "profile_default"
    (profile / "startup").mkdir(parents=True, exist_ok=True)
    (profile / "ipython_config.py").write_text(f"c.HistoryManager.enabled = False\n{config}\n", encoding="utf-8")
    (profile / "startup" / "00-test.py").write_text(startup, encoding="utf-8")
    return {"IPYTHONDIR": str(folder), "PYTHONPATH": str(repository)}


def record(notebook: Path, environ: Mapping[str, str], mode: str = "record") -> None:
    """Run *notebook* in its folder with a tape of its name, and keep what its cells show."""
    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's
    client = NotebookClient(
        content,
        timeout=120,
        resources={"metadata": {"path": str(notebook.parent)}},
        record_timing=False,
        store_widget_state=False,
    )
    tape = {"CHATMAGIC_TAPE": notebook.with_suffix(".tape").name, "CHATMAGIC_TAPE_MODE": mode}
    client.execute(env={**os.environ, **environ, **tape})
    nbformat.write(content, notebook)  # type: ignore[no-untyped-call]  # nbformat's


def main() -> None:
    """Record the notebook in ``tests/data`` again."""
    TAPE.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder, llama_server(context=2048, words=12) as url:
        endpoints = {"llamacpp": {"url": url, "model": "default"}}
        record(NOTEBOOK, home(Path(folder), f"c.ChatMagic.endpoints = {endpoints!r}"))


if __name__ == "__main__":
    main()
