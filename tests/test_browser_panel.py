"""The panel in a real JupyterLab and Notebook 7: clicked, typed into, dropped on and read."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, expect

from tests.browser import Lab, Notebook, chat_notebook, jupyterlab, needs_chromium
from tests.server import Answer, ChatServer, chunk, sse, text_answer
from tests.test_journal import until

pytestmark = needs_chromium

Start = Callable[..., tuple[Notebook, Locator]]

# All cells of these notebooks stand below cell 0, which loads chatmagic, and cell 1, which holds the panel.
PANEL = 1
FIRST = 2

ADA = "%%chat tutor -m demo\nMy name is Ada"
HISTORY = """\
import chatmagic
tutor = chatmagic.session('tutor')
for count in (5, 9, 3, 7, 12, 4, 8):
    _ = tutor.ask(f'{count} words', model='demo')
tutor.use()"""
# A cell that runs until the test lets it end; the kernel's working directory is that of the notebook.
HELD = "import os, time\nopen('runs', 'w').close()\nwhile os.path.exists('runs'): time.sleep(0.02)"
EVIL = '<img src=x onerror="window.evil=1">$x^2$ \\(y^2\\) ' + "W" * 300
HOSTILE = """\
import chatmagic
tutor = chatmagic.session('tutor')
_ = tutor.ask(EVIL, model=EVIL, system=EVIL)
tutor.use()""".replace("EVIL", repr(EVIL))
RESTART = """path => {
    const panel = Array.from(jupyterapp.shell.widgets("main")).find(widget => widget.context?.path === path);
    return panel.sessionContext.session.kernel.restart();
}"""


class Watched:
    """One notebook for most tests, as opening one takes longer than most of them; it keeps what goes wrong in it."""

    def __init__(self, page: Page, lab: Lab, root: Path) -> None:
        self.page, self.root = page, root
        self.errors: list[str] = []
        page.on("console", self._print)
        page.on("pageerror", self._raise)
        self.chat = chat_notebook(page, lab, root)

    def _print(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location})")

    def _raise(self, error: Error) -> None:
        self.errors.append(f"{error.message} {error.stack}")

    @property
    def ours(self) -> list[str]:
        """What went wrong in the code of the panel, which has a ``blob:`` address on the page."""
        return [error for error in self.errors if "blob:" in error]


@pytest.fixture(scope="module")
def watched(browser: Browser, lab: Lab, root: Path) -> Iterator[Watched]:
    """The notebook of this file."""
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    yield Watched(page, lab, root)
    page.close()


@pytest.fixture
def page(watched: Watched) -> Page:
    """The page of the notebook."""
    return watched.page


@pytest.fixture
def start(watched: Watched) -> Iterator[Start]:
    """A new kernel with a panel in cell 1, and as many more cells; of these the first *ran* have run.

    What names no model goes to the *server*.
    """

    def start(*cells: str, ran: int = 0, server: ChatServer | None = None) -> tuple[Notebook, Locator]:
        url = f"\nimport os; os.environ['OPENAI_BASE_URL'] = {server.url!r}" if server else ""
        watched.chat.restart(f"%load_ext chatmagic{url}", "%chat panel", *cells)
        for index in range(FIRST + ran):
            watched.chat.run(index)
        panel = watched.chat.output(PANEL).locator(".chatmagic-panel")
        expect(current(panel)).to_be_visible()
        return watched.chat, panel

    watched.errors.clear()
    yield start
    (watched.root / "runs").unlink(missing_ok=True)
    assert watched.ours == []


def button(at: Locator, name: str) -> Locator:
    return at.get_by_role("button", name=name, exact=True)


def status(panel: Locator) -> Locator:
    """The line that says what was done."""
    return panel.get_by_role("status")


def current(panel: Locator) -> Locator:
    """The button that names the current session, and opens the list of all."""
    return panel.locator("button[aria-haspopup=listbox]")


def expect_current(panel: Locator, name: str, turns: int | None) -> None:
    """Expect that the session *name* is the current one, with so many *turns* (None: it has not been started)."""
    count = "not started" if turns is None else f"{turns} turn{'s' * (turns != 1)}"
    expect(current(panel)).to_have_accessible_name(re.compile(rf"^{name} .*· {count}\b"))


def last_turns(panel: Locator) -> Locator:
    return panel.get_by_role("list", name="The last turns").get_by_role("listitem")


def bars(panel: Locator) -> Locator:
    return panel.get_by_role("toolbar", name="Tokens of each turn").get_by_role("button")


def box(panel: Locator) -> Locator:
    """The field for a prompt."""
    return panel.get_by_role("textbox", name=re.compile("^Ask in "))


def page_of(panel: Locator) -> Locator:
    """The turn that is shown as a whole, or streams."""
    return panel.locator(".cm-page")


def name_it(panel: Locator, act: str, label: str, name: str) -> None:
    """Click *act*, fill in the *name* and press Enter."""
    button(panel, act).click()
    panel.get_by_role("textbox", name=label).fill(name)
    panel.page.keyboard.press("Enter")


def set_model(panel: Locator, model: str) -> None:
    button(panel, "Settings").click()
    panel.get_by_role("combobox", name="Model").fill(model)
    panel.page.keyboard.press("Enter")
    expect(status(panel)).to_contain_text(f"model is '{model}' from the next turn on")


def drop(panel: Locator, name: str, content: bytes | int) -> None:
    """Drop a file of this *content* on the panel, or of so many null bytes."""
    panel.evaluate(
        """(panel, [name, content]) => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([new Uint8Array(content)], name));
            for (const each of ["dragover", "drop"])
                panel.dispatchEvent(new DragEvent(each, { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [name, content if isinstance(content, int) else list(content)],
    )


class Pieces(list[Any]):
    """Parts of an answer, the last of them held back until it is *released*."""

    def __init__(self, *parts: bytes) -> None:
        super().__init__(parts)
        self.released = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        yield from self[:-1]
        self.released.wait(30)
        yield self[-1]


def in_pieces(*words: str) -> tuple[Answer, threading.Event]:
    """A reply of which the last word comes once the event is set."""
    *first, last = words
    end = sse(chunk(last, finish="stop"), "[DONE]")
    pieces = Pieces(*[sse(chunk(word)) for word in first], end)
    return Answer(pieces), pieces.released


def test_empty(start: Start) -> None:
    """Without any session the panel says how to begin, and what cannot be done yet is disabled."""
    _, panel = start()

    expect_current(panel, "main", None)
    expect(panel).to_contain_text("No turn yet: ask below, or with %%chat main on the first line of a cell")
    for name in ("Fork", "Rename", "Clear", "Delete", "Undo", "Redo"):
        expect(button(panel, name)).to_be_disabled()
    for name in ("New", "Settings", "Ask", "Put into a cell", "Add a file"):
        expect(button(panel, name)).to_be_enabled()
    current(panel).click()
    expect(panel).to_contain_text("There is no session yet.")
    button(panel, "Ask").click()
    expect(status(panel)).to_have_text("Type a prompt first.")


def test_new(start: Start, page: Page) -> None:
    """A session is started with the mouse or the keyboard, and the next cell goes there; a bad name is refused."""
    chat, panel = start("%%chat -m demo\nhi", "%%chat -m demo\nhi")
    button(panel, "New").click()
    field = panel.get_by_role("textbox", name="Name of the new session")
    expect(field).to_be_focused()
    page.keyboard.press("Escape")
    expect(field).to_have_count(0)
    expect(button(panel, "New")).to_be_focused()

    page.keyboard.press("Enter")
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    expect_current(panel, "typed", 0)
    expect(status(panel)).to_contain_text("The current session is 'typed', new and empty.")
    chat.run(FIRST)
    expect_current(panel, "typed", 1)

    button(panel, "New").click()
    field.fill("clicked")
    button(panel.locator(".cm-form"), "New").click()
    expect_current(panel, "clicked", 0)
    chat.run(FIRST + 1)
    expect_current(panel, "clicked", 1)

    name_it(panel, "New", "Name of the new session", "no good")
    expect(status(panel)).to_contain_text("'no good' cannot name a session")
    expect_current(panel, "clicked", 1)


def test_follows_cells(start: Start) -> None:
    """A turn of a cell is seen at once: a bar, the sums, how full the context is, and what was said."""
    chat, panel = start(ADA, "%%chat\nwhat is my name?")
    chat.run(FIRST)
    expect_current(panel, "tutor", 1)
    expect(panel.get_by_role("row", name="this turn").get_by_role("cell")).to_have_text(["4", "unknown", "19", "free"])
    chat.run(FIRST + 1)

    expect_current(panel, "tutor", 2)
    expect(panel.get_by_role("row", name="these 2 turns").get_by_role("cell").first).to_have_text("31")
    expect(bars(panel)).to_have_count(2)
    meter = panel.get_by_role("meter", name="How full the context is")
    expect(meter).to_have_attribute("aria-valuemax", "200000")
    expect(meter).to_have_attribute("aria-valuetext", re.compile(r"^~\d+ tokens of 200,000"))
    expect(last_turns(panel)).to_have_count(2)
    expect(last_turns(panel).first).to_contain_text("#1 My name is Ada Nice to meet you, **Ada**.")


def test_acts(start: Start) -> None:
    """Each act says what it did, and what it did holds: the buttons, the list and the turns say the same."""
    chat, panel = start(ADA, "%chat new other", "%chat use tutor", ran=1)
    line = status(panel)
    button(panel, "Delete").click()
    expect(line).to_contain_text("'tutor' is the only session: Clear empties it, New starts another one")
    chat.run(FIRST + 1)
    chat.run(FIRST + 2)

    button(panel, "Clear").click()
    expect(line).to_contain_text("'tutor' is empty now: 1 turn set aside")
    expect_current(panel, "tutor", 0)
    button(panel, "Undo").click()
    expect(line).to_contain_text("Undone: ")
    expect_current(panel, "tutor", 1)
    button(panel, "Redo").click()
    expect(line).to_contain_text("Redone: ")
    expect_current(panel, "tutor", 0)
    button(panel, "Undo").click()
    expect_current(panel, "tutor", 1)

    name_it(panel, "Fork", "Name of the fork", "twin")
    expect(line).to_contain_text("The current session is 'twin'; it shares 1 turn with 'tutor'.")
    expect_current(panel, "twin", 1)
    name_it(panel, "Rename", "New name", "sister")
    expect(line).to_contain_text("'twin' is 'sister' now.")
    expect_current(panel, "sister", 1)
    button(panel, "Delete").click()
    expect(line).to_contain_text("'sister' is deleted (1 turn); the current session is 'tutor'.")
    expect_current(panel, "tutor", 1)
    button(panel, "Undo").click()
    current(panel).click()
    expect(panel.get_by_role("option")).to_have_count(3)
    panel.get_by_role("option", name="tutor").click()

    button(panel, "Retry").click()
    expect(line).to_contain_text("'tutor' has answered: turn #2.")
    expect(last_turns(panel)).to_have_count(1)
    expect(last_turns(panel)).to_contain_text("#2 My name is Ada")
    pin = button(panel, "Pin")
    expect(pin).to_have_attribute("aria-pressed", "false")
    pin.click()
    expect(line).to_contain_text("Turn #2 is sent even when not everything can be.")
    button(panel, "Unpin").click()
    expect(line).to_contain_text("Turn #2 is not pinned any more.")
    expect(pin).to_be_visible()
    assert len(chat.sources) == 5


def test_settings(start: Start, page: Page) -> None:
    """Model and system prompt of the session are seen, and changed for the next turn."""
    chat, panel = start(ADA, "%%chat\nwhat is your system prompt?", ran=1)
    button(panel, "Settings").click()
    model, system = panel.get_by_role("combobox", name="Model"), panel.get_by_role("textbox", name="System prompt")
    expect(model).to_be_focused()
    expect(model).to_have_value("demo")
    system.fill("You are kind.\nAnd short.")
    page.keyboard.press("Escape")
    expect(system).to_have_count(0)
    expect(button(panel, "Settings")).to_have_attribute("aria-expanded", "false")

    button(panel, "Settings").click()
    expect(system).to_have_value("")
    system.fill("You are kind.\nAnd short.")
    button(panel, "Set for tutor").click()
    expect(status(panel)).to_contain_text(
        "system is 'You are kind. And short.' from the next turn on. Undo takes it back."
    )
    expect(panel).to_contain_text("System prompt You are kind.")
    chat.run(FIRST + 1)
    expect(chat.output(FIRST + 1)).to_contain_text("You are kind. And short.")

    set_model(panel, "demo:other")
    expect(current(panel)).to_contain_text("demo:other")
    button(panel, "Undo").click()
    expect(current(panel)).not_to_contain_text("demo:other")


def test_switch(start: Start, page: Page) -> None:
    """The next cell goes to the session that was chosen, with the mouse or with the keyboard alone."""
    chat, panel = start("%chat new one", "%chat new two", "%chat new three", *["%%chat -m demo\nhi"] * 2, ran=3)
    current(panel).click()
    expect(panel.get_by_role("searchbox")).to_have_count(0)
    expect(panel.get_by_role("option", selected=True)).to_have_text(re.compile("^three"))
    panel.get_by_role("option", name="one").click()
    expect(panel.get_by_role("option")).to_have_count(0)
    expect(status(panel)).to_contain_text("The current session is 'one': the next %%chat goes there.")
    chat.run(5)
    expect_current(panel, "one", 1)

    expect(current(panel)).to_have_attribute("aria-expanded", "false")
    current(panel).focus()
    page.keyboard.press("Enter")
    expect(panel.get_by_role("listbox", name="Sessions")).to_be_focused()
    marked = panel.locator(".cm-marked")
    expect(marked).to_have_text(re.compile("^one"))  # the one that was asked last comes first
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(panel.get_by_role("listbox")).to_have_attribute("aria-activedescendant", re.compile("-1$"))
    expect(marked).to_have_text(re.compile("^two"))
    page.keyboard.press("Escape")
    expect(panel.get_by_role("listbox")).to_have_count(0)
    expect(current(panel)).to_be_focused()
    expect_current(panel, "one", 1)
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect_current(panel, "two", 0)
    chat.run(6)
    expect_current(panel, "two", 1)


def test_many_sessions(start: Start, page: Page) -> None:
    """Of 500 sessions 100 are listed, and a search finds each of them with the keyboard alone."""
    many = "from chatmagic import magics\nfor n in range(500): _ = magics.kernel.sessions.new(f's{n}')"
    chat, panel = start(many, "%%chat -m demo\nhi", ran=1)
    expect_current(panel, "s499", 0)
    current(panel).focus()
    page.keyboard.press("Enter")
    search = panel.get_by_role("combobox", name="Search sessions")
    expect(search).to_be_focused()
    expect(panel.get_by_role("option")).to_have_count(100)
    expect(panel).to_contain_text("… 400 more: search for them")

    page.keyboard.type("s43")
    expect(panel.get_by_role("option")).to_have_count(11)
    expect(search).to_be_focused()
    expect(search).to_have_value("s43")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(search).to_have_attribute("aria-activedescendant", re.compile("-2$"))
    page.keyboard.press("Enter")
    expect_current(panel, "s431", 0)
    chat.run(FIRST + 1)
    expect_current(panel, "s431", 1)

    current(panel).click()
    search.fill("nowhere")
    expect(panel).to_contain_text("none is called so")
    search.fill("demo 31")  # the model is searched, too
    expect(panel.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(search).to_have_count(0)


def test_bars(start: Start, page: Page) -> None:
    """What a bar means is read where it is pointed at or reached with the arrows, and it opens its turn."""
    _, panel = start(HISTORY, ran=1)
    readout = panel.locator(".cm-readout")
    expect(bars(panel)).to_have_count(7)
    expect(last_turns(panel)).to_have_count(5)
    expect(readout).to_have_text(re.compile(r"^#7 · demo · "))
    bars(panel).first.hover()
    expect(readout).to_have_text(re.compile(r"^#1 · demo · 2 tokens in, 5 out · free"))

    bars(panel).last.focus()
    expect(readout).to_have_text(re.compile("^#7 "))
    page.keyboard.press("ArrowLeft")
    expect(readout).to_have_text(re.compile("^#6 "))
    page.keyboard.press("Home")
    expect(readout).to_have_text(re.compile("^#1 "))
    page.keyboard.press("ArrowRight")
    expect(bars(panel).nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page_of(panel)).to_contain_text("#2")
    expect(page_of(panel)).to_contain_text("word8 word9")
    bars(panel).nth(2).click()
    expect(page_of(panel)).to_contain_text("word1 word2 word3")
    expect(page_of(panel)).not_to_contain_text("word9")
    button(page_of(panel), "Close").click()
    expect(page_of(panel)).to_be_empty()


def test_a_turn_is_shown(start: Start) -> None:
    """A click shows the whole turn, with its mathematics typeset and its code coloured."""
    _, panel = start("%%chat tutor -m demo\nthe mathematics", "%%chat\nsome code", ran=2)
    expect(last_turns(panel)).to_have_count(2)
    first, second = last_turns(panel).all()
    show = first.get_by_role("button", expanded=False)
    expect(show).to_have_accessible_name(re.compile("^#1 the mathematics The mean"))
    show.click()
    expect(page_of(panel).locator("mjx-container").first).to_be_visible()
    expect(page_of(panel)).to_contain_text("tutor · demo")
    second.get_by_role("button", expanded=False).click()
    code = page_of(panel).locator("pre")
    expect(code).to_contain_text("def mean(values")
    assert len(set(code.locator("span").evaluate_all("all => all.map(each => getComputedStyle(each).color)"))) > 2


def test_a_turn_is_hidden(start: Start) -> None:
    """The click that showed a turn hides it when it comes again."""
    _, panel = start(ADA, ran=1)
    last_turns(panel).get_by_role("button", expanded=False).click()
    expect(page_of(panel)).to_contain_text("Nice to meet you")
    last_turns(panel).get_by_role("button", expanded=True).click()
    expect(page_of(panel)).to_be_empty(timeout=500)


def test_enter_is_a_line_break(start: Start, page: Page) -> None:
    """Enter breaks the line in the prompt."""
    _, panel = start()
    box(panel).click()
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    page.keyboard.type("two")
    expect(box(panel)).to_have_value("one\ntwo", timeout=500)


def test_a_prompt_is_not_lost(start: Start, server: ChatServer) -> None:
    """A prompt that got no answer can be read and asked again."""
    server.otherwise = lambda _: Answer([b'{"error": {"message": "No."}}'], 400, {"Content-Type": "application/json"})
    _, panel = start(server=server)
    box(panel).fill("It took me an hour to write this.")
    button(panel, "Ask").click()
    expect(status(panel)).to_contain_text("openai says (400): No")
    expect(box(panel)).to_have_value("It took me an hour to write this.", timeout=500)


def test_ask(start: Start, page: Page, server: ChatServer) -> None:
    """A prompt in the panel is answered there word by word, while cells run; then it is a turn as any other."""
    answer, release = in_pieces("The **first** words", ", and $x^2$ at the end")
    server.answers.append(answer)
    chat, panel = start("print(6 * 7)", "%%chat\nhi", server=server)
    box(panel).fill("Is the kernel\nfree?")
    page.keyboard.press("Shift+Enter")
    expect(box(panel)).to_have_value("")
    expect(page_of(panel).locator("strong")).to_have_text("first")
    expect(panel).to_contain_text("main is answering")
    expect(button(panel, "Ask")).to_be_disabled()
    expect(chat.cell(PANEL).locator(".jp-InputPrompt")).to_have_text("[2]:")  # the cell of the panel did not run
    chat.run(FIRST)
    expect(status(panel)).not_to_contain_text("running")
    expect(chat.output(FIRST)).to_have_text("42")
    assert not release.is_set()
    release.set()

    expect(status(panel)).to_contain_text("'main' has answered: turn #1.")
    expect(page_of(panel).locator("mjx-container")).to_be_visible()
    expect(page_of(panel)).to_contain_text("Is the kernel free?")
    expect(panel).not_to_contain_text("is answering")
    expect_current(panel, "main", 1)
    chat.run(FIRST + 1)
    assert [message["content"] for message in server.bodies[1]["messages"]] == [
        "Is the kernel\nfree?",
        "The **first** words, and $x^2$ at the end",
        "hi",
    ]


def test_stop(start: Start) -> None:
    """Stop ends a reply that comes slowly, and keeps what has come."""
    chat, panel = start("%chat set pace=10")
    set_model(panel, "demo")
    chat.run(FIRST)
    box(panel).fill("900 words")
    button(panel, "Ask").click()
    expect(page_of(panel)).to_contain_text("word3")
    button(panel, "Stop").click()

    expect(status(panel)).to_contain_text("what had come")
    expect(page_of(panel)).to_contain_text("word3")
    expect(button(panel, "Stop")).to_have_count(0)
    expect_current(panel, "main", 1)


def test_stop_before_a_word(start: Start, server: ChatServer) -> None:
    """Stop frees a session whose server says nothing, and there is no turn."""
    answer, release = in_pieces("late")
    server.answers.append(answer)
    _, panel = start(server=server)
    box(panel).fill("hi")
    button(panel, "Ask").click()
    button(panel, "Stop").click()

    expect(button(panel, "Ask")).to_be_enabled()
    expect_current(panel, "main", None)
    expect(page_of(panel)).to_be_empty()
    release.set()


def test_put_into_a_cell(start: Start) -> None:
    """A prompt, and that of a turn, become cells below the active one that ask them in the session."""
    chat, panel = start("%%chat other -m demo\nx", ADA, "%%chat\nwhat is my name?", "1 + 1", ran=3)
    chat.cell(FIRST).locator(".jp-InputPrompt").click()  # makes it the active one
    box(panel).fill("My prompt,\nin two lines")
    button(panel, "Put into a cell").click()
    expect(status(panel)).to_contain_text("It is in a new cell below the active one.")
    expect(box(panel)).to_have_value("")
    last_turns(panel).last.get_by_role("button", name="To a cell").click()
    expect(status(panel)).to_contain_text("Nothing changes until the cell with the prompt of turn #2 runs.")

    assert chat.sources.count("%%chat tutor\nMy prompt,\nin two lines") == 1
    again = chat.sources.index("%%chat tutor --at 1\nwhat is my name?")
    chat.run(again)
    expect(chat.output(again)).to_contain_text("Your name is Ada")
    expect_current(panel, "tutor", 2)


def test_drop(start: Start) -> None:
    """A dropped text stands fenced in the prompt, and its braces stay braces in a cell; what is no text is refused."""
    chat, panel = start("%%chat tutor -m demo\nhi", ran=1)
    box(panel).click()
    box(panel).fill("Read this:")
    drop(panel, "two `names.csv", b"a,b\n1,{{ 2 }}\n```x```")
    dropped = "Read this:\n\nFile two names.csv:\n\n````\na,b\n1,{{ 2 }}\n```x```\n````\n"
    expect(box(panel)).to_have_value(dropped)
    expect(status(panel)).to_contain_text("two names.csv is in the prompt (21 characters).")
    expect(box(panel)).to_be_focused()
    refused: list[tuple[str, bytes | int, str]] = [
        ("picture.png", b"\xff\xfe\x00\x01", "picture.png is no text (UTF-8)"),
        ("nulls.txt", b"a\x00b", "nulls.txt is no text (UTF-8)"),
        ("long.txt", 1_000_001, "long.txt is too long: 1,000,001 bytes"),
    ]
    for name, content, line in refused:
        drop(panel, name, content)
        expect(status(panel)).to_contain_text(line)
        expect(box(panel)).to_have_value(dropped)

    button(panel, "Put into a cell").click()
    expect(box(panel)).to_have_value("")
    assert chat.sources[FIRST] == f"%%chat tutor --raw\n{dropped}"
    box(panel).fill("{{ 1 + 1 }}")
    button(panel, "Put into a cell").click()
    expect(box(panel)).to_have_value("")
    assert chat.sources[FIRST + 1] == "%%chat tutor\n{{ 1 + 1 }}"


def test_clicks_wait_for_a_running_cell(start: Start, root: Path) -> None:
    """While a cell runs the panel says that clicks wait; one is done at the end, if it still does what it said."""
    chat, panel = start(ADA, HELD, f"{HELD}\nimport chatmagic\nchatmagic.session('tutor').clear()", ran=1)
    chat.run(3, wait=False)
    expect(status(panel)).to_have_text("A cell is running: what you click waits until it ends.")
    button(panel, "Clear").click()
    expect(status(panel)).to_have_text("Clear waits until the running cell ends.")
    expect_current(panel, "tutor", 1)
    (root / "runs").unlink()
    expect(status(panel)).to_have_text(re.compile("^'tutor' is empty now: 1 turn set aside"))
    expect_current(panel, "tutor", 0)
    button(panel, "Undo").click()
    expect_current(panel, "tutor", 1)

    chat.run(4, wait=False)
    until((root / "runs").exists)
    expect(status(panel)).to_contain_text("A cell is running")
    button(panel, "Undo").click()
    # JupyterLab may have a subshell for it by now; then it is done at once.
    said = re.compile("(Undo waits until the running cell ends|Undone: turn #1)")
    expect(status(panel)).to_contain_text(said)
    waits = "waits" in status(panel).inner_text()
    (root / "runs").unlink()
    if waits:
        expect(status(panel)).to_contain_text("nothing was undone: something else has been done since you clicked")
    expect_current(panel, "tutor", 0)


def test_retries_are_seen(start: Start, server: ChatServer) -> None:
    """While the server wants us to wait, the panel says why and how long; then the reply comes."""
    slow = {"Content-Type": "application/json", "Retry-After": "1"}
    server.answers.append(Answer([b'{"error": {"message": "Slow down."}}'], 429, slow))
    _, panel = start(server=server)
    box(panel).fill("hi")
    button(panel, "Ask").click()

    expect(panel).to_contain_text(re.compile(r"main waits: .*; again in [1-3] s"))
    expect(status(panel)).to_contain_text("'main' has answered: turn #1.")
    expect(page_of(panel)).to_contain_text("pong")
    assert len(server.bodies) == 2


def test_follows_a_thread(start: Start, server: ChatServer) -> None:
    """What a thread asks in another session is seen there, and while it lasts."""
    answer, release = in_pieces("some", " words")
    server.answers.append(answer)
    thread = (
        "import chatmagic, threading\n"
        "threading.Thread(target=chatmagic.session('thread').ask, args=('from a thread',)).start()"
    )
    _, panel = start(ADA, thread, server=server, ran=2)
    expect(panel).to_contain_text("● thread is answering")
    expect(button(panel, "Ask")).to_be_enabled()
    expect(button(panel, "Stop")).to_have_count(0)
    current(panel).click()
    release.set()
    expect(panel).not_to_contain_text("is answering")
    expect(panel.get_by_role("option", name="thread")).to_contain_text("1 turn")
    expect_current(panel, "tutor", 1)


def test_reload(start: Start, page: Page, server: ChatServer) -> None:
    """After a reload of the page, even amid a reply, it is the same panel, and goes on."""
    answer, release = in_pieces("The first words", " and the last")
    server.answers.append(answer)
    chat, panel = start("%%chat tutor\nhi", server=server)
    box(panel).fill("go on")
    button(panel, "Ask").click()
    expect(page_of(panel)).to_contain_text("The first words")
    chat.save()
    page.reload()
    chat.wait_ready()
    expect(page_of(panel)).to_contain_text("The first words")
    expect(panel).to_contain_text("main is answering")
    expect(button(panel, "Stop")).to_be_enabled()
    release.set()

    expect(page_of(panel)).to_contain_text("The first words and the last")
    expect_current(panel, "main", 1)
    chat.run(FIRST)
    expect_current(panel, "tutor", 1)
    button(panel, "Clear").click()
    expect_current(panel, "tutor", 0)


def test_two_views(start: Start, page: Page) -> None:
    """A second cell and a new view show the same panel; what is done in one is seen in all."""
    chat, panel = start(ADA, "%chat", ran=2)
    second = chat.output(3).locator(".chatmagic-panel")
    expect_current(second, "tutor", 1)
    chat.command("notebook:create-output-view", PANEL)
    third = page.locator(".jp-LinkedOutputView .chatmagic-panel")
    expect_current(third, "tutor", 1)
    button(third, "Clear").click()
    for each in (panel, second, third):
        expect_current(each, "tutor", 0)
        expect(status(each)).to_contain_text("set aside")

    button(second, "Undo").click()
    expect_current(third, "tutor", 1)
    box(third).fill("from the view")
    expect(box(panel)).to_have_value("")
    button(third, "Put into a cell").click()
    expect(box(third)).to_have_value("")
    assert "%%chat tutor\nfrom the view" in chat.sources
    page.evaluate("() => { for (const each of jupyterapp.shell.widgets('main')) if (!each.context) each.close(); }")
    expect(third).to_have_count(0)
    button(panel, "Redo").click()
    expect_current(panel, "tutor", 0)


def test_loading_again(start: Start) -> None:
    """A reload of chatmagic goes unnoticed; unloaded, the panel says so and does nothing until it is loaded again."""
    chat, panel = start(ADA, "%reload_ext chatmagic", "%unload_ext chatmagic", "%load_ext chatmagic", ran=2)
    expect(status(panel)).not_to_contain_text("unloaded")
    button(panel, "Clear").click()
    expect_current(panel, "tutor", 0)
    chat.run(4)
    expect(status(panel)).to_have_text("chatmagic was unloaded: %load_ext chatmagic brings the panel back to life.")
    for name in ("New", "Fork", "Rename", "Delete", "Undo", "Settings", "Ask"):
        expect(button(panel, name)).to_be_disabled()
    chat.run(5)
    expect(status(panel)).not_to_contain_text("unloaded")
    button(panel, "Undo").click()
    expect_current(panel, "tutor", 1)


def test_the_kernel_ends(start: Start, page: Page, root: Path, server: ChatServer) -> None:
    """A panel whose kernel has ended says so; reopened, the notebook shows what was said, safely, and can run again."""
    server.otherwise = lambda _: text_answer(EVIL)
    chat, panel = start(HISTORY, HOSTILE, server=server, ran=2)
    expect(bars(panel)).to_have_count(8)
    chat.save()
    page.evaluate(RESTART, chat.path)
    chat.wait_ready()
    expect(status(panel)).to_contain_text("The kernel of this panel has ended")
    expect(button(panel, "Clear")).to_be_disabled()
    chat.save()
    page.reload()
    chat.wait_ready()

    output = chat.output(PANEL)
    expect(output).to_contain_text("As it was when the notebook was saved. Run this cell to see it as it is.")
    expect(output).to_contain_text("#7 8 words word1 word2")
    expect(output).to_contain_text("#8 <img src=x")
    expect(output.get_by_role("row", name="these 8 turns")).to_be_visible()
    expect(output.locator("button, textarea, input, img, mjx-container")).to_have_count(0)
    assert page.evaluate("window.evil") is None
    nbformat.validate(json.loads((root / chat.path).read_text()))
    for cell in (0, PANEL):
        chat.run(cell)
    expect_current(panel, "main", None)
    chat.save()
    assert "8 words word1" not in (root / chat.path).read_text()


RAISED = ".cm-marked, .cm-open, .cm-session, :hover"


def weak(panel: Locator, beside: str = RAISED) -> list[str]:
    """All text whose contrast (as WCAG measures it) is below 4.5, except what is disabled or within *beside*."""
    read, found = panel.evaluate(
        """(panel, beside) => {
            const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            const paint = (...colors) => {
                for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(each => each / 255)
                    .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const isText = node => node.nodeType === Node.TEXT_NODE && node.data.trim();
            const read = [...panel.querySelectorAll("*")].filter(each =>
                [...each.childNodes].some(isText) && each.checkVisibility()
                && !each.closest(":disabled, .cm-parts, datalist"));
            const found = read.filter(each => !each.closest(beside || "x-none")).map(each => {
                const behind = ["white"];
                for (let at = each; at; at = at.parentElement)
                    behind.splice(1, 0, getComputedStyle(at).backgroundColor);
                const [ground, text] = [paint(...behind), paint(...behind, getComputedStyle(each).color)];
                return [(Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05), each.textContent];
            });
            return [read.length, found.filter(([contrast]) => contrast < 4.5).map(String)];
        }""",
        beside,
    )
    assert read > 20
    return list(found)


def outside(panel: Locator) -> list[str]:
    """What reaches over the right edge of the panel, or is a button whose text does not fit."""
    return list(
        panel.evaluate(
            """panel => {
                const edge = panel.getBoundingClientRect().right + 1;
                return [...panel.querySelectorAll("*")]
                    .filter(each => each.checkVisibility() && !each.closest("pre, .cm-parts"))
                    .filter(each => each.getBoundingClientRect().right > edge
                        || each.matches("button:not(.cm-text)") && each.scrollWidth > each.clientWidth + 1)
                    .map(each => each.outerHTML.slice(0, 200));
            }"""
        )
    )


def test_nothing_is_cut_off(start: Start, page: Page) -> None:
    """In a narrow and a wide window all that can be opened is inside the panel, and can be read."""
    name = "a-rather-long-name-of-a-session-to-choose-" + "x" * 20
    _, panel = start(HISTORY, f"%%chat {name} -m demo -s 'You are {'W' * 200}'\nsome code {'Q' * 200}", ran=2)
    expect_current(panel, name, 1)
    last_turns(panel).get_by_role("button", expanded=False).click()
    button(panel, "Settings").click()
    button(panel, "Rename").click()
    current(panel).click()
    expect(panel.get_by_role("option")).to_have_count(2)
    expect(page_of(panel)).to_contain_text("def mean")
    try:
        for width in (640, 1000, 2000):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_function("width => document.querySelector('#main').clientWidth === width", arg=width)
            assert outside(panel) == []
            assert panel.evaluate("panel => panel.scrollWidth === panel.clientWidth")
            assert panel.evaluate("panel => panel.parentElement.scrollWidth <= panel.parentElement.clientWidth")
        assert weak(panel) == []
    finally:
        page.set_viewport_size({"width": 1100, "height": 1000})


def test_hostile(start: Start, page: Page, server: ChatServer) -> None:
    """What comes from outside runs nothing, loads nothing, covers nothing, and is mathematics in replies alone."""
    server.otherwise = lambda _: text_answer(EVIL)
    _, panel = start(HOSTILE, server=server, ran=1)
    expect_current(panel, "tutor", 1)
    current(panel).click()
    expect(panel.get_by_role("option")).to_contain_text("<img src=x")
    button(panel, "Settings").click()
    expect(panel.get_by_role("textbox", name="System prompt")).to_have_value(EVIL)
    button(panel, "Cancel").click()
    expect(panel.locator(".cm-system")).to_contain_text(EVIL)
    expect(bars(panel)).to_have_accessible_name(re.compile("#1 · <img src=x"))
    last_turns(panel).get_by_role("button", expanded=False).click()
    reply = page_of(panel).locator(".cm-parts")
    expect(reply.locator("mjx-container").first).to_be_visible()
    expect(reply).to_contain_text("onerror")
    drop(panel, EVIL[:80], b"x")
    expect(status(panel)).to_contain_text("<img src=x")
    expect(panel.locator("img")).to_have_count(0)
    expect(panel.locator("mjx-container")).to_have_count(reply.locator("mjx-container").count())
    assert outside(panel) == []
    assert page.evaluate("window.evil") is None


def test_notebook_7(browser: Browser, tmp_path: Path) -> None:
    """In Notebook 7, with a dark theme, the panel can be read, asks, switches and makes cells."""
    with jupyterlab(tmp_path, {"OPENAI_API_KEY": "sk-browser"}, theme="dark", app="notebook") as notebook:
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        chat = chat_notebook(page, notebook, tmp_path, "%chat panel", "%%chat one -m demo\nhi", "%chat new two")
        for index in range(4):
            chat.run(index)
        panel = chat.output(PANEL).locator(".chatmagic-panel")
        expect_current(panel, "two", 0)
        set_model(panel, "demo")
        box(panel).fill("some code")
        page.keyboard.press("Shift+Enter")
        expect(page_of(panel)).to_contain_text("def mean")
        expect_current(panel, "two", 1)
        assert weak(panel) == []
        current(panel).click()
        assert weak(panel) == []
        panel.get_by_role("option", name="one").click()
        expect_current(panel, "one", 1)
        box(panel).click()
        box(panel).fill("next")
        button(panel, "Put into a cell").click()
        expect(box(panel)).to_have_value("")
        assert chat.sources[FIRST] == "%%chat one\nnext"
        page.close()


def test_keys_are_no_shortcuts(start: Start, page: Page) -> None:
    """A key that is pressed on a button of the panel does not change the notebook."""
    chat, panel = start("1 + 1")
    before = chat.sources
    for key in ("a", "b", "m", "x"):
        button(panel, "New").focus()
        page.keyboard.press(key)
        chat.wait_idle()
        assert chat.sources == before
    expect(button(panel, "New")).to_be_focused()


def test_settings_stay_with_their_session(start: Start) -> None:
    """What is typed into the settings of a session is set for it, whichever is the current one meanwhile."""
    chat, panel = start("%%chat tutor -m demo -s kind\nhi", "%chat new other", "%chat use tutor", ran=1)
    button(panel, "Settings").click()
    panel.get_by_role("textbox", name="System prompt").fill("")
    chat.run(FIRST + 1)
    expect_current(panel, "other", 0)
    button(panel, "Set for tutor").click()
    chat.run(FIRST + 2)
    expect_current(panel, "tutor", 1)
    expect(panel.locator(".cm-system")).to_have_count(0, timeout=500)


def test_the_search_can_be_edited(start: Start, page: Page) -> None:
    """Letters typed at the beginning of a search stay together."""
    _, panel = start("for n in range(9): get_ipython().run_line_magic('chat', f'new s{n}')", ran=1)
    expect_current(panel, "s8", 0)
    current(panel).click()
    search = panel.get_by_role("combobox", name="Search sessions")
    search.fill("3")
    search.press("Home")
    page.keyboard.type("ab")
    expect(search).to_have_value("ab3", timeout=500)


def test_the_focus_stays_in_the_panel(start: Start, page: Page) -> None:
    """Who clears with the keyboard goes on in the panel."""
    _, panel = start(ADA, ran=1)
    expect(button(panel, "Clear")).to_be_enabled()
    button(panel, "Clear").focus()
    expect(button(panel, "Clear")).to_be_focused()
    page.keyboard.press("Enter")
    expect_current(panel, "tutor", 0)
    expect(panel.locator(":focus")).to_have_count(1)


def test_raised_text_can_be_read(start: Start) -> None:
    """What is marked, opened or pointed at can be read as well as the rest."""
    _, panel = start(ADA, ran=1)
    last_turns(panel).get_by_role("button", expanded=False).click()
    expect(page_of(panel)).to_contain_text("Nice")
    current(panel).click()
    expect(panel.get_by_role("option")).to_be_visible()
    assert weak(panel, "") == []
