"""The same first chat where there is no JupyterLab: IPython and jupyter console in a terminal, and Notebook 7."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from playwright.sync_api import Page, expect

from chatmagic.display.render import shows_updates
from tests.browser import Lab, chat_notebook, jupyterlab, needs_chromium

TYPING, RUNNING = "\x1b[?2004h", "\x1b[?2004l"  # a prompt wants pastes to be marked as long as it can be typed into


class Terminal:
    """A Python program with IPython's prompt in a pseudo-terminal, with chatmagic loaded."""

    def __init__(self, module: str, home: Path) -> None:
        # A terminal that is silent when it is asked where its cursor is would be waited for.
        env = _without_keys() | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "IPYTHONDIR": str(home / "ipython")}
        env |= {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
        self._child: pexpect.spawn[str] = pexpect.spawn(
            sys.executable, ["-m", module], env=env, encoding="utf-8", timeout=30, dimensions=(40, 120)
        )
        self.wait_for(TYPING)
        self.run("%load_ext chatmagic")

    def type(self, cell: str) -> None:
        """Type a cell and send it; two empty lines send one of several lines."""
        self._child.send(cell.replace("\n", "\r") + "\r" * (3 if "\n" in cell else 1))
        self.wait_for(RUNNING)

    def wait_for(self, text: str) -> str:
        """Return what is written before *text*."""
        self._child.expect_exact(text)
        return str(self._child.before).replace("\r\n", "\n")

    @property
    def unread(self) -> str:
        """What had come already behind the text that was waited for."""
        return str(self._child.buffer)

    def run(self, cell: str) -> str:
        """Return all that a cell writes until there is a prompt again."""
        self.type(cell)
        return self.wait_for(TYPING)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._child.sendintr()

    def close(self) -> None:
        """End the program, and so its kernel."""
        self._child.sendeof()
        self._child.close(force=True)


def _without_keys() -> dict[str, str]:
    private = ("OPENAI_", "CHATMAGIC_", "JUPYTER", "JPY_", "IPYTHON", "PYTHONUNBUFFERED")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(private) and not name.endswith("_API_KEY")
    }


@pytest.fixture(scope="module", params=["IPython", "jupyter_console"])
def terminal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    running = Terminal(request.param, tmp_path_factory.mktemp("home"))
    yield running
    running.close()


def test_first_chat_in_a_terminal(terminal: Terminal) -> None:
    """A streamed reply is written once, as text, with what is to be said about it below, and nothing else."""
    output = terminal.run("%%chat first -m demo --set pace=30\nMy name is Ada")

    assert output.splitlines() == [
        "Nice to meet you, **Ada**. Ask me for your name later: it is in the history of this conversation.",
        "",
        "new session 'first'",
        "first · demo · 4 tokens in, 19 out",
        "",
    ]


def test_reply_grows_in_a_terminal(terminal: Terminal) -> None:
    """The first words can be read before the last ones have come."""
    terminal.type("%%chat grows -m demo --set pace=10\n20 words")
    before = terminal.wait_for("word3 ")

    assert before == "word1 word2 "
    assert "word10" not in terminal.unread  # which is in the same line
    assert "word20\n" in terminal.wait_for(TYPING)


def test_context_is_kept_in_a_terminal(terminal: Terminal) -> None:
    """The second question carries the first one and its answer."""
    terminal.run("%%chat context -m demo\nMy name is Ada")

    assert "Your name is **Ada**: you told me in your message 1" in terminal.run("%%chat\nWhat is my name?")


def test_table_in_a_terminal(terminal: Terminal) -> None:
    """A table stands in straight columns of text."""
    terminal.run("%%chat table -m demo\nhi")
    head, *rows = terminal.run("%chat sessions").splitlines()
    row = next(row for row in rows if row.startswith("table *"))

    assert row.split() == ["table", "*", "1", "demo", "1", "unknown", "51", "free"]
    assert row.index("demo") == head.index("model")
    assert len(row) == len(head)


def test_no_panel_in_a_terminal(terminal: Terminal) -> None:
    """Where no panel can be shown, %chat alone shows the table of sessions, with their ages."""
    shown, table = terminal.run("%chat").splitlines(), terminal.run("%chat sessions").splitlines()

    assert shown[0].split() == [*table[0].split(), "asked"]
    assert [line.startswith(known) for line, known in zip(shown[1:], table[1:], strict=True)] == [True] * len(table[1:])


def test_interrupt_in_a_terminal(terminal: Terminal) -> None:
    """Ctrl-C ends a reply in the middle; what had come stays on the screen and in the session."""
    terminal.type("%%chat stop -m demo --set pace=20\n300 words")
    terminal.wait_for("word9 ")
    terminal.interrupt()
    output = terminal.wait_for(TYPING)

    assert re.search(r"stop · demo · ~\d+ tokens in, ~\d\d out · interrupted\n", output)
    assert "InterruptedTurnError" in output.splitlines()[-2]
    assert "word299" not in output
    assert "word9 " in terminal.run("%chat show stop")


def test_error_in_a_terminal(terminal: Terminal) -> None:
    """An error is one line, without a traceback."""
    lines = terminal.run("%%chat --frob\nhi").split("\n")

    assert lines[0].startswith("\x1b[31mLineError\x1b[39m: %%chat has no option '--frob'. ")
    assert lines[1:] == ["", ""]


def test_reply_cannot_control_the_terminal(terminal: Terminal) -> None:
    """What a model writes reaches the terminal without its control sequences."""
    terminal.run(r"evil = '\x1b]0;title\x07\x1b[31mred\x9b2J'")
    output = terminal.run("%%chat evil -m demo --set pace=50\n{{ evil }}")

    assert "> ]0;title[31mred2J\n" in output
    assert not set("\x1b\x07\x9b") & set(output)


@pytest.mark.parametrize(
    ("message_id", "metadata", "asks", "expected"),
    [
        pytest.param("5e55-10n_42_7", {}, True, False, id="jupyter console"),
        pytest.param("5e55-10n_42_7", {}, False, True, id="nbclient"),
        pytest.param("5e55-10n_42_7", {"cellId": "a"}, True, True, id="cells run by the server"),
        pytest.param("0b5e-4f1a", {"cellId": "a"}, True, True, id="JupyterLab"),
        pytest.param("0b5e-4f1a", {}, True, True, id="nbclassic"),
    ],
)
def test_consoles_are_told_from_notebooks(
    shell: Any, message_id: str, metadata: dict[str, str], asks: bool, expected: bool
) -> None:
    """The request of a console is known by its number, by naming no cell and by being able to ask for input."""
    header = {"msg_id": message_id, "session": "5e55-10n"}
    shell.parent_header = {"header": header, "metadata": metadata, "content": {"allow_stdin": asks}}

    assert shows_updates() is expected


@pytest.fixture(scope="module")
def notebook7(root: Path) -> Iterator[Lab]:
    with jupyterlab(root, app="notebook") as running:
        yield running


@needs_chromium
def test_first_chat_in_notebook_7(page: Page, notebook7: Lab, root: Path) -> None:
    """Cells make a conversation that is rendered: Markdown as Markdown, mathematics typeset, the footer below."""
    chat = chat_notebook(
        page,
        notebook7,
        root,
        "%%chat tutor -m demo\nMy name is Ada",
        "%%chat\nWhat is my name?",
        "%%chat\nthe mathematics",
        "%chat sessions",
        "%%chat --frob\nhi",
    )
    chat.run_all()

    expect(chat.output(2).locator("strong")).to_have_text("Ada")
    expect(chat.output(3).locator("mjx-container").first).to_be_visible()
    expect(chat.output(2).get_by_text("tutor · demo · 27 tokens in, 14 out")).to_be_visible()
    expect(chat.output(4).locator("td").first).to_have_text("tutor *")


@needs_chromium
def test_reply_grows_in_notebook_7(page: Page, notebook7: Lab, root: Path) -> None:
    """The first words can be read before the last ones have come; at the end there is one whole output."""
    chat = chat_notebook(page, notebook7, root, "%%chat -m demo --set pace=20\n50 words")
    chat.run(0)
    chat.run(1, wait=False)

    expect(chat.output(1)).to_contain_text("word3")
    assert "word50" not in chat.output_text(1)
    chat.wait_idle()
    expect(chat.output(1)).to_contain_text("word50")
    assert chat.output(1).count() == 1


@needs_chromium
def test_error_in_notebook_7(page: Page, notebook7: Lab, root: Path) -> None:
    """An error is a single line without a traceback."""
    chat = chat_notebook(page, notebook7, root, "%%chat --frob\nhi")
    chat.run_all()

    assert chat.output_text(1).strip().startswith("LineError: %%chat has no option '--frob'. ")
    assert chat.output(1).count() == 1
