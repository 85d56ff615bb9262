"""README, help, package data and the import contract say what is true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

import chatmagic
from chatmagic import magics
from chatmagic.commands import VERBS
from chatmagic.provider.endpoints import BUILT_IN
from chatmagic.testing import FakeClient

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def rows(head: str) -> list[tuple[str, str]]:
    """The rows of the README's table whose first line begins with *head*."""
    table = README[README.index(f"| {head}") :].split("\n\n", 1)[0].splitlines()[2:]
    return [(left.strip(), right.strip()) for left, right in (row.strip("|").split("|", 1) for row in table)]


def command(name: str) -> str:
    """One of the two commands of the README."""
    match = re.search(rf"<!-- {name} -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert match
    return match[1]


def test_options_of_the_cell() -> None:
    """The README's table of options is what --help says."""
    options = [(option.usage, option.help) for option in magics.CELL._all_options]

    assert [(left.replace("`", ""), right) for left, right in rows("`%%chat")] == options


def test_verbs() -> None:
    """The README's table of verbs is what --help says."""
    assert rows("`%chat …`") == [(f"`{verb.form.usage}`", verb.form.summary) for verb in VERBS.values()]


def test_endpoints() -> None:
    """The README names the endpoints that are built in."""
    assert [left.strip("`") for left, _ in rows("endpoint")] == list(BUILT_IN)


def test_commands_install_what_is_there() -> None:
    """Both commands install this checkout with an extra that exists, and run what is here."""
    extras = PROJECT["project"]["optional-dependencies"]
    for name, extra in {"try": "lab", "test": "test"}.items():
        assert f"install -e '.[{extra}]'" in command(name)
        assert extra in extras
    assert (ROOT / shlex.split(command("try"))[-1]).is_file()


def test_python_of_the_readme_runs(
    shell: InteractiveShell, kernel: magics.Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python block of the README runs as it stands."""
    monkeypatch.setattr("getpass.getpass", lambda: "sk-typed")
    kernel.client = FakeClient()
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        run: Any = shell.run_cell
        run(block).raise_error()


def test_version_is_one() -> None:
    """The package, pyproject.toml and the changelog name the same version."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert PROJECT["project"]["version"] == chatmagic.__version__
    assert f"\n## {chatmagic.__version__}" in changelog


def test_package_is_typed() -> None:
    """The package says that it has types."""
    assert files("chatmagic").joinpath("py.typed").is_file()


def test_notebook_is_whole() -> None:
    """examples.ipynb is valid, has prose, and every code cell has been run."""
    notebook: Any = nbformat.read(ROOT / "examples.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert len(notebook.cells) > len(code) > 10
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_imports_point_inward() -> None:
    """The import contract of pyproject.toml holds."""
    ran = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("check", ["ruff format --check .", "ruff check .", "mypy"], ids=["format", "lint", "types"])
def test_checks(check: str) -> None:
    """The code is formatted, linted and typed."""
    ran = subprocess.run([sys.executable, "-m", *check.split()], cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr
