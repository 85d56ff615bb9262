"""Cells that run again in a real JupyterLab: what is sent then, and what the outputs of the other cells say."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Lab, Notebook, chat_notebook, jupyterlab, needs_chromium
from tests.server import CUT, HANG_UP, Answer, ChatServer, text_answer

pytestmark = needs_chromium

Start = Callable[..., Notebook]

ADA = "%%chat tutor -m demo\nMy name is Ada"
EVE = "%%chat tutor -m demo\nMy name is Eve"
WHO = "%%chat\nWhat is my name?"
THREE = ["%%chat tutor\none", "%%chat\ntwo", "%%chat\nthree"]


@pytest.fixture(scope="module")
def opened(browser: Browser, lab: Lab, root: Path) -> Iterator[Notebook]:
    """One notebook for all tests: opening one takes longer than most of them."""
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    yield chat_notebook(page, lab, root)
    page.close()


@pytest.fixture
def start(opened: Notebook) -> Start:
    """A new kernel for a notebook of these cells; cell 0 loads chatmagic and has run, and so have the others if *ran*.

    What names no model goes to the *server*.
    """

    def start(*cells: str, server: ChatServer | None = None, ran: bool = False) -> Notebook:
        url = f"\nimport os; os.environ['OPENAI_BASE_URL'] = {server.url!r}" if server else ""
        opened.restart(f"%load_ext chatmagic{url}", *cells)
        for index in range(1 + len(cells) * ran):
            opened.run(index)
        return opened

    return start


def sent(server: ChatServer) -> list[list[str]]:
    """What each request held, without the replies: they are all the same."""
    return [[message["content"] for message in body["messages"][::2]] for body in server.bodies]


def expect_marks(chat: Notebook, marked: Collection[int]) -> None:
    """Expect the mark on the outputs of these cells, and of no others."""
    for index in range(len(chat.sources)):
        mark = chat.output(index).get_by_text("not in the conversation · #")
        expect(mark).to_have_count(1 if index in marked else 0)


def test_rerun_replaces(start: Start, server: ChatServer) -> None:
    """A cell that is changed and runs again has asked once: later requests hold its new prompt in place of the old."""
    chat = start("%%chat tutor\none", "%%chat\ntwo", server=server)
    chat.run(1)
    chat.set_source(1, "%%chat tutor\nother")
    chat.run(1)
    chat.run(2)

    assert sent(server) == [["one"], ["other"], ["other", "two"]]
    assert chat.output(1).count() == 1
    expect(chat.output(1)).not_to_contain_text("set aside")
    expect_marks(chat, [])


def test_rerun_of_an_earlier_cell(start: Start) -> None:
    """What came after it is set aside: the cell says so, and the other outputs bear a mark until they run again."""
    chat = start(ADA, WHO, "%%chat\nhow many messages?", ran=True)
    chat.set_source(1, EVE)
    chat.run(1)

    expect(chat.output(1)).to_contain_text("2 later turns set aside; %chat undo, or later %chat use ")
    expect_marks(chat, {2, 3})
    expect(chat.output(2)).to_contain_text("Your name is Ada")
    chat.run(2)
    expect_marks(chat, {3})
    expect(chat.output(2)).to_contain_text("Your name is Eve: you told me in your message 1 ")
    chat.run(3)
    expect_marks(chat, [])
    expect(chat.output(3)).to_contain_text("This request brought me 5 messages")


def test_undo_and_redo_of_a_rerun(start: Start) -> None:
    """Undo takes the marks away and puts one on the new reply, redo brings them back, and what is sent agrees."""
    chat = start(ADA, WHO, "%chat undo", "%chat redo", WHO)
    for index in (1, 2):
        chat.run(index)
    chat.set_source(1, EVE)
    chat.run(1)
    chat.run(3)

    expect_marks(chat, {1})
    expect(chat.output(1)).not_to_contain_text("set aside")
    chat.run(4)
    expect_marks(chat, {2})
    expect(chat.output(1)).to_contain_text("1 later turn set aside; %chat undo, or later %chat use ")
    chat.run(3)
    chat.run(5)
    expect(chat.output(5)).to_contain_text("Your name is Ada")
    expect_marks(chat, {1})


def test_panel_moves_the_marks(start: Start) -> None:
    """Undo and Redo of the panel change the marks of the outputs, though no cell runs."""
    chat = start(ADA, WHO, "%chat panel", ran=True)
    chat.run(1)
    expect_marks(chat, {2})

    chat.output(3).get_by_role("button", name="Undo", exact=True).click()
    expect_marks(chat, {1})
    chat.output(3).get_by_role("button", name="Redo", exact=True).click()
    expect_marks(chat, {2})


def test_run_all_twice(start: Start, server: ChatServer) -> None:
    """Run All asks the same twice and leaves no mark; so does one cell, though a later one changed the settings."""
    cells = ["%%chat tutor -m one\none", "%%chat\ntwo", "%%chat -m two -s Brief\nthree", "%%chat other\nfour"]
    chat = start(*cells, server=server)
    chat.run_all()
    chat.run_all()

    assert len(server.bodies) == 8
    assert server.bodies[4:] == server.bodies[:4]
    expect_marks(chat, [])
    chat.run(2)
    assert server.bodies[-1] == server.bodies[1]


def test_copy_appends(start: Start, server: ChatServer) -> None:
    """A pasted copy of a cell is another cell: it goes on at the end, and the first one keeps its turn."""
    chat = start(*THREE[:2], server=server, ran=True)
    chat.command("notebook:copy-cell", 1)
    chat.command("notebook:paste-cell-below")
    chat.wait_idle()
    chat.run(2)

    assert chat.sources[2] == chat.sources[1]
    assert sent(server)[-1] == ["one", "two", "one"]
    chat.run(1)
    assert sent(server)[-1] == ["one"]


def test_cut_and_pasted_cell_keeps_its_turn(start: Start, server: ChatServer) -> None:
    """A cell that was cut and pasted elsewhere is the same cell: it takes the place of what it said before."""
    chat = start(*THREE[:2], server=server, ran=True)
    chat.command("notebook:cut-cell", 1)
    chat.wait_idle()
    chat.command("notebook:paste-cell-below", 1)
    chat.wait_idle()
    assert chat.sources[1:] == ["%%chat\ntwo", "%%chat tutor\none"]
    chat.set_source(2, "%%chat tutor\nother")
    chat.run(2)

    assert sent(server)[-1] == ["other"]
    expect(chat.output(2)).to_contain_text("1 later turn set aside")
    expect_marks(chat, {1})


def test_split_cell(start: Start, server: ChatServer) -> None:
    """After a split the lower half is the old cell and replaces its turn; the upper half is new and goes to the end."""
    chat = start("%%chat tutor\none", "%%chat\ntwo\n%%chat\nhalf", server=server, ran=True)
    chat.split(2, line=2)
    assert chat.sources[2:] == ["%%chat\ntwo", "%%chat\nhalf"]
    chat.run(2)
    chat.run(3)

    assert sent(server)[1:] == [["one", "two\n%%chat\nhalf"], ["one", "two\n%%chat\nhalf", "two"], ["one", "half"]]
    expect_marks(chat, {2})


def test_deleted_cell_keeps_its_turn(start: Start, server: ChatServer) -> None:
    """A turn stays in the conversation when its cell is deleted."""
    chat = start(*THREE, server=server, ran=True)
    chat.command("notebook:delete-cell", 2)
    chat.wait_idle()
    chat.run(2)

    assert chat.sources[2] == "%%chat\nthree"
    assert sent(server)[-1] == ["one", "two", "three"]


def test_failing_rerun_changes_nothing(start: Start, server: ChatServer) -> None:
    """A re-run that gets no reply is a red cell that says what stays; nothing moves, no later output is marked."""
    chat = start(*THREE, "%config ChatMagic.tries = 1", "%%chat\nfour", server=server, ran=True)
    chat.set_source(1, "%%chat tutor\nother")
    for answer, error in [
        (Answer(status=401), "openai refuses the key"),
        (Answer(status=500), "openai says (500)"),
        (Answer([CUT]), "the connection to http://127.0.0.1"),
        (Answer([HANG_UP]), "answered with something that is no chat reply"),
    ]:
        server.answers.append(answer)
        chat.run(1)
        expect(chat.output(1).last).to_contain_text(error)
        expect(chat.output(1).last.locator(".ansi-red-fg")).to_have_text("RequestError")
        expect(chat.output(1).first).to_contain_text(
            "turn #1 of this cell stays in the conversation: %chat show tutor 1"
        )
        assert chat.output(1).count() == 2
    expect_marks(chat, [])
    chat.run(5)
    assert sent(server)[-1] == ["one", "two", "three", "four"]


def test_retry_continue_and_history(start: Start, server: ChatServer) -> None:
    """Each reply is a branch, the last one is in the conversation, and the cell that asked replaces whichever it is."""
    texts = {"one": "stop", "first": "stop", "sec": "length", "ond": "stop"}
    server.answers += [text_answer(text, finish=finish) for text, finish in texts.items()]
    verbs = ["%chat retry", "%chat continue", "%chat history"]
    chat = start("%%chat tutor\none", "%%chat\ntwo", *verbs, server=server, ran=True)

    expect_marks(chat, {2, 3})
    expect(chat.output(3)).to_contain_text("ended by length")
    expect(chat.output(4).locator("p")).to_have_text("second")
    expect(chat.output(4)).to_contain_text("in place of #3; %chat undo, or later %chat use ")
    rows = chat.output(5).locator("tbody tr")
    expect(rows.locator("td:nth-child(1)")).to_have_text(
        [re.compile(each) for each in ("●.*1", "○.*2", "○.*3", "●.*4")]
    )
    expect(rows.locator("td:nth-child(3)")).to_have_text(["one", "first", "sec", "second"])
    expect(chat.output(5)).to_contain_text("%chat use tutor --at N")
    chat.run(2)
    expect_marks(chat, {3, 4})
    assert sent(server)[-1] == ["one", "two"]


def test_edit(start: Start, server: ChatServer) -> None:
    """An old prompt comes into a new next cell with all that it needs; running that sets aside what came after."""
    chat = start(*THREE, "%chat edit 2", "%%chat\nfour", server=server)
    for index in (1, 2, 3, 4):
        chat.run(index)
    assert chat.sources[4:] == ["%chat edit 2", "%%chat tutor --at 1\ntwo", "%%chat\nfour"]
    expect_marks(chat, [])
    chat.set_source(5, "%%chat tutor --at 1\nother")
    chat.run(5)

    expect_marks(chat, {2, 3})
    expect(chat.output(5)).to_contain_text("in place of #2, 1 later turn set aside; %chat undo, or later %chat use ")
    chat.run(6)
    assert sent(server)[-2:] == [["one", "other"], ["one", "other", "four"]]


def test_second_prompt_waits(start: Start, server: ChatServer) -> None:
    """While a thread asks in the session, a cell says that it waits; then it gets its reply, which knows the other."""
    thread = (
        "import chatmagic, threading\n"
        "threading.Thread(target=chatmagic.session('tutor').ask, args=('from a thread',)).start()"
    )
    asked, release = threading.Event(), threading.Event()

    def late(_: dict[str, Any]) -> Answer:
        asked.set()
        release.wait(30)
        return text_answer("late")

    chat = start("%%chat tutor\none", thread, "%%chat tutor\ntwo", server=server)
    chat.run(1)
    server.answers.append(late)
    chat.run(2)
    assert asked.wait(30)
    chat.run(3, wait=False)
    expect(chat.output(3)).to_contain_text("waiting for its reply to another prompt")
    assert len(server.bodies) == 2
    release.set()
    chat.wait_idle()

    expect(chat.output(3)).to_contain_text("pong")
    assert chat.output(3).count() == 1
    assert sent(server)[-1] == ["one", "from a thread", "two"]


def test_saved_with_its_mark(start: Start, root: Path) -> None:
    """The file holds the mark, as HTML, as text and in the metadata."""
    chat = start(ADA, WHO, ran=True)
    chat.run(1)
    expect_marks(chat, {2})
    chat.save()
    notebook: Any = nbformat.read(root / chat.path, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's, untyped
    outputs = [cell.outputs for cell in notebook.cells[1:]]

    assert [len(each) for each in outputs] == [1, 1]
    assert [each[0].metadata.chatmagic.in_conversation for each in outputs] == [True, False]
    assert outputs[1][0].data["text/plain"].startswith("not in the conversation · #2: %chat use tutor --at 2")
    assert ">not in the conversation · #2: " in outputs[1][0].data["text/html"]


def test_rerun_after_a_reload_of_the_page(start: Start, server: ChatServer) -> None:
    """A reloaded page has the same cells: one that runs again replaces its turn, and says what it sets aside."""
    chat = start(*THREE[:2], server=server, ran=True)
    chat.save()
    chat.page.reload()
    chat.wait_ready()
    chat.set_source(1, "%%chat tutor\nother")
    chat.run(1)

    expect(chat.output(1)).to_contain_text("1 later turn set aside")
    chat.run(2)
    assert sent(server)[-1] == ["other", "two"]


def test_rerun_in_notebook_7(page: Page, root: Path) -> None:
    """Marks come and go in Notebook 7, too, and its cells replace their turns."""
    with jupyterlab(root, app="notebook") as notebook7:
        chat = chat_notebook(page, notebook7, root, ADA, WHO, "%chat undo", WHO)
        for index in range(3):
            chat.run(index)
        chat.set_source(1, EVE)
        chat.run(1)
        expect_marks(chat, {2})
        expect(chat.output(1)).to_contain_text("1 later turn set aside; %chat undo, or later %chat use ")
        chat.run(3)
        expect_marks(chat, {1})
        chat.run(4)

        expect(chat.output(4)).to_contain_text("Your name is Ada")
