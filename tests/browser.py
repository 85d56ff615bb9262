"""A real JupyterLab or Notebook 7 in a real browser: start it, open a notebook, act on cells, read what is shown."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from playwright.sync_api import Locator, Page

__all__ = [
    "CHROMIUM_ARGS",
    "App",
    "Lab",
    "Notebook",
    "Theme",
    "chat_notebook",
    "find_chromium",
    "jupyterlab",
    "needs_chromium",
    "open_notebook",
    "write_notebook",
]

Theme = Literal["light", "dark"]
App = Literal["jupyterlab", "notebook"]

CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Arguments for Playwright's ``launch``: Chromium works as root in a container and talks to nobody but the page."""

TIMEOUT = 60.0
"""Seconds to wait for anything. Generous, because it is only spent by a test that fails."""

# Promises started from here are counted, so that "idle" is also true between a command and the kernel's first status.
_PRELUDE = """(arg) => {
    const app = window.jupyterapp;
    const panel = app && Array.from(app.shell.widgets("main")).find(widget => widget.context?.path === arg.path);
    const kernel = panel?.sessionContext.session?.kernel;
    const tasks = window.testTasks ??= {running: 0, error: null};
    const start = promise => {
        tasks.running += 1;
        promise.catch(error => { tasks.error = error; }).finally(() => { tasks.running -= 1; });
    };
    const cell = () => {
        const found = panel.content.widgets.at(arg.index);
        if (!found) throw new Error(`no cell ${arg.index} in ${arg.path}`);
        return found;
    };
    if (tasks.error) throw tasks.error;
"""

_READY = """
    if (!panel?.context.isReady || !panel.sessionContext.isReady || kernel?.status !== "idle") return false;
    if (panel.content.widgets.length !== panel.context.model.cells.length) return false;
    return app.restored.then(() => !document.getElementById("jupyterlab-splash"));
"""

_STARTED = 'return tasks.running === 0 || kernel?.status === "busy";'

# Outputs are painted in animation frames: the second one comes after whatever the last message asked for.
_IDLE = """
    if (tasks.running > 0 || kernel?.status !== "idle") return false;
    if (panel.content.widgets.some(cell => cell.model.executionState === "running")) return false;
    return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))));
"""


@dataclass(frozen=True, slots=True)
class Lab:
    """A running JupyterLab or Notebook 7. *url* has no slash at its end."""

    url: str
    token: str
    app: App = "jupyterlab"


@dataclass(frozen=True, slots=True)
class Notebook:
    """One notebook in a page. Cells are counted from 0, or from -1 at the end; timeouts are in seconds."""

    page: Page
    path: str

    def wait_ready(self, timeout: float = TIMEOUT) -> None:
        """Wait until the notebook is shown and its kernel is idle, for example after ``page.reload()``."""
        self._wait_for(_READY, timeout)

    def wait_idle(self, timeout: float = TIMEOUT) -> None:
        """Wait until nothing runs or is queued. What paints later still (mathematics, widgets) needs an ``expect``."""
        self._wait_for(_IDLE, timeout)

    def command(self, name: str, index: int | None = None) -> None:
        """Start the JupyterLab command *name* on this notebook, or a cell of it; `wait_idle` waits for its end too."""
        if index is not None:
            self._select(index)
        self._evaluate("app.shell.activateById(panel.id); start(app.commands.execute(arg.name));", name=name)

    def restart(self, *cells: str, timeout: float = TIMEOUT) -> None:
        """Restart the kernel, with these code cells in place of all others: as good as a new notebook, and faster."""
        self._evaluate(
            """const model = panel.context.model.sharedModel;
            const code = arg.cells.map(source => ({cell_type: "code", metadata: {}, source}));
            model.transact(() => { model.deleteCellRange(0, model.cells.length); model.insertCells(0, code); });
            start(kernel.restart());""",
            cells=cells,
        )
        self.wait_idle(timeout)
        self.wait_ready(timeout)

    def run(self, index: int, *, wait: bool = True, timeout: float = TIMEOUT) -> None:
        """Run one cell to its end or, without *wait*, until the kernel is busy."""
        self._select(index)
        self._run("notebook:run-cell", wait, timeout)

    def run_all(self, *, wait: bool = True, timeout: float = TIMEOUT) -> None:
        """Run all cells to their end or, without *wait*, until the kernel is busy. An error stops at its cell."""
        self._run("notebook:run-all-cells", wait, timeout)

    def interrupt(self, timeout: float = TIMEOUT) -> None:
        """Interrupt the kernel and wait until it is idle.

        Expect an output of the cell first: a kernel is busy before it is in the cell, and an interrupt then is lost.
        """
        self.command("notebook:interrupt-kernel")
        self.wait_idle(timeout)

    def save(self, timeout: float = TIMEOUT) -> None:
        """Save the notebook to its file, also while a cell runs."""
        self._evaluate("tasks.saved = false; start(panel.context.save().then(() => { tasks.saved = true; }));")
        self._wait_for("return tasks.saved;", timeout)

    def set_source(self, index: int, text: str) -> None:
        """Replace the text of a cell."""
        self._evaluate("cell().model.sharedModel.setSource(arg.text);", index=index, text=text)

    def split(self, index: int, line: int) -> None:
        """Split a cell above its line *line* (from 0)."""
        self._select(index)
        self._evaluate("cell().editor.setCursorPosition({line: arg.line, column: 0});", index=index, line=line)
        self.command("notebook:split-cell-at-cursor")
        self.wait_idle()

    @property
    def sources(self) -> list[str]:
        """The texts of all cells."""
        return list(self._evaluate("return panel.context.model.sharedModel.cells.map(cell => cell.getSource());"))

    def cell(self, index: int) -> Locator:
        """The whole cell: editor, prompt and outputs."""
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """The outputs of a cell, one element each and without their prompts."""
        return self.cell(index).locator(".jp-Cell-outputArea > .jp-OutputArea-child > .jp-OutputArea-output")

    def output_text(self, index: int) -> str:
        """What a person reads in the outputs of a cell, joined by newlines."""
        return "\n".join(text.strip("\n") for text in self.output(index).all_inner_texts())

    def screenshot(self, path: Path) -> None:
        """Write the page as it is seen now to a PNG file."""
        self.page.screenshot(path=path)

    def _select(self, index: int) -> None:
        self._evaluate(
            """const position = panel.content.widgets.indexOf(cell());
            panel.content.deselectAll();
            panel.content.activeCellIndex = position;""",
            index=index,
        )

    def _run(self, command: str, wait: bool, timeout: float) -> None:
        self.command(command)
        self._wait_for(_IDLE if wait else _STARTED, timeout)

    def _evaluate(self, body: str, **values: object) -> Any:
        return self.page.evaluate(f"{_PRELUDE}{body}}}", {"path": self.path, **values})

    def _wait_for(self, body: str, timeout: float) -> None:
        self.page.wait_for_function(f"{_PRELUDE}{body}}}", arg={"path": self.path}, timeout=timeout * 1000)


def find_chromium() -> str | None:
    """The installed Chromium or Chrome, for Playwright's *executable_path*; None when there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(
    find_chromium() is None and not os.environ.get("CI"),
    reason="there is no Chromium; install it to run the browser tests",
)
"""Skips where there is no Chromium, but never in CI."""


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """Write a notebook (nbformat 4.5) of code cells without outputs. The ids are ``cell-0``, ``cell-1`` …."""
    empty: dict[str, object] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    code = [empty | {"id": f"cell-{index}", "source": source} for index, source in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    _write_json(path, {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


def open_notebook(page: Page, lab: Lab, name: str, timeout: float = TIMEOUT) -> Notebook:
    """Open the file *name*, relative to the root of *lab*, in a fresh workspace and wait until its kernel is idle."""
    folder = "lab/tree" if lab.app == "jupyterlab" else "notebooks"
    page.goto(f"{lab.url}/{folder}/{quote(name)}?reset&token={lab.token}", timeout=timeout * 1000)
    notebook = Notebook(page, name)
    notebook.wait_ready(timeout)
    return notebook


def chat_notebook(page: Page, lab: Lab, root: Path, *cells: str) -> Notebook:
    """Open a new notebook in *root* whose first cell loads chatmagic."""
    name = f"chat{len(list(root.iterdir()))}.ipynb"  # a notebook of the same name would get the same kernel
    write_notebook(root / name, ["%load_ext chatmagic", *cells])
    return open_notebook(page, lab, name)


@contextmanager
def jupyterlab(
    root: Path, env: Mapping[str, str] | None = None, *, theme: Theme = "light", app: App = "jupyterlab"
) -> Iterator[Lab]:
    """Serve *root* on loopback with this interpreter as its kernel, apart from the user's settings, and stop it after.

    *env* is added to the environment of the server, and so of the kernels. *app* may be Notebook 7 instead.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, token = Path(folder), secrets.token_hex(16)
        _configure(home, theme)
        process = _start(app, home, root, _environment(home) | {"JUPYTER_TOKEN": token} | dict(env or {}))
        try:
            yield Lab(_wait_for_server(process, home), token, app)
        finally:
            _stop(process)


def _configure(home: Path, theme: Theme) -> None:
    overrides = {
        "@jupyterlab/apputils-extension:themes": {"theme": f"JupyterLab {theme.title()}", "adaptive-theme": False},
        "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    }
    # These ask the network for news, updates and a list of extensions.
    online = ("@jupyterlab/apputils-extension:announcements", "@jupyterlab/extensionmanager-extension")
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "Python 3", "language": "python", "kernel_protocol_version": "5.5"}

    _write_json(home / "config/labconfig/default_setting_overrides.json", overrides)
    _write_json(home / "config/labconfig/page_config.json", {"disabledExtensions": dict.fromkeys(online, True)})
    _write_json(home / "path/kernels/python3/kernel.json", kernel)


def _environment(home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_"))}
    return inherited | {
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),  # also the home of JupyterLab's settings and workspaces
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_PATH": str(home / "path"),  # searched first, so that its kernel is the one called python3
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }


def _start(app: App, home: Path, root: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", app, "--no-browser", "--allow-root", "--expose-app-in-browser"]
    options = {"ip": "127.0.0.1", "port": 0, "root_dir": root.resolve()}
    command += [f"--ServerApp.{name}={value}" for name, value in options.items()]
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=home, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _wait_for_server(process: subprocess.Popen[bytes], home: Path) -> str:
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if url := _answering(home / f"runtime/jpserver-{process.pid}.json"):
            return url
        time.sleep(0.05)
    log = (home / "log").read_text(errors="replace")
    raise RuntimeError(f"Jupyter did not start (exit status {process.poll()}):\n{log[-4000:]}")


def _answering(info: Path) -> str | None:
    """The address in the server's own *info* file, once something answers there."""
    try:
        url = str(json.loads(info.read_text())["url"]).rstrip("/")
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
        connection.request("GET", "/api")
        answered = connection.getresponse().status == http.HTTPStatus.OK
        connection.close()
    except (OSError, ValueError):
        return None
    return url if answered else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    # On SIGTERM the server shuts down its kernels, which live in sessions of their own.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(15)


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
