"""Outputs of turns that leave the conversation, and come back."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from chatmagic.conversation.messages import Cell, Turn
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.display.marks import Marks
from chatmagic.display.page import ASIDE


class Page:
    """The page, as the front end keeps it: what each display shows, and how often it was repainted."""

    def __init__(self) -> None:
        self.text: dict[str, str] = {}
        self.metadata: dict[str, Any] = {}
        self.paints = 0

    def __call__(
        self, data: dict[str, str], metadata: dict[str, Any], *, transient: dict[str, str], update: bool
    ) -> None:
        assert update
        self.paints += 1
        self.text[transient["display_id"]] = data["text/plain"]
        self.metadata[transient["display_id"]] = metadata["chatmagic"]

    @property
    def marked(self) -> list[str]:
        """The displays that say that they are not in the conversation."""
        return sorted(name for name, text in self.text.items() if ASIDE in text)


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def session() -> Session:
    return Session("s")


@pytest.fixture
def sessions(session: Session) -> Sessions:
    sessions = Sessions()
    sessions.keep(session)
    sessions.use("s")
    return sessions


@pytest.fixture
def marks(sessions: Sessions, page: Page) -> Marks:
    return Marks(sessions, page)


def run(session: Session, marks: Marks, cell: str | None, execution: str) -> Turn:
    """Run a cell as the kernel does; its display is called after the cell and the execution."""
    where = Cell(cell, execution)
    marks.forget(where)
    turn = session.add(Turn(f"{cell}{execution}", "reply", parent=session.begin(where).head, cells=(where,)))
    marks.shown(f"{cell}{execution}", session.name, turn, ["noticed"])
    return turn


def test_what_is_set_aside_says_so(session: Session, marks: Marks, page: Page) -> None:
    """Later outputs are marked when an earlier cell runs again, and the mark goes away when they are back."""
    for cell in "abc":
        run(session, marks, cell, "1")
    assert page.paints == 0

    run(session, marks, "a", "2")
    assert page.marked == ["b1", "c1"]
    assert "noticed" not in page.text["b1"]
    assert page.metadata["b1"]["in_conversation"] is False

    session.undo()
    assert page.marked == ["a2"]
    assert page.text["b1"] == "reply\n\nnoticed\ns · tokens unknown"
    assert page.metadata["b1"]["in_conversation"] is True
    session.redo()
    assert page.marked == ["b1", "c1"]


def test_an_output_that_is_gone_is_left_alone(session: Session, marks: Marks, page: Page) -> None:
    """The display of a turn is forgotten when its cell runs again, also when that fails."""
    run(session, marks, "a", "1")
    run(session, marks, "a", "2")
    session.undo()
    assert page.marked == ["a2"]

    session.redo()
    marks.forget(Cell("a", "3"))
    session.clear()
    assert page.paints == 2


def test_several_outputs_of_one_execution(session: Session, marks: Marks, page: Page) -> None:
    """A cell that shows several turns keeps them all until it runs again."""
    for _ in range(2):
        turn = run(session, marks, "a", "1")
        marks.shown(f"a{turn.number}", "s", turn, [])
    session.clear()

    assert page.marked == ["a1", "a2"]


def test_only_what_changes_is_painted(session: Session, marks: Marks, page: Page, sessions: Sessions) -> None:
    """Acts that set nothing aside, and changes of other sessions, paint nothing."""
    for cell in "abc":
        run(session, marks, cell, "1")
    session.pin(1)
    sessions.new("other")
    session.go(2)
    session.go(2)

    assert page.paints == 1


def test_cells_without_id_are_never_marked(session: Session, marks: Marks, page: Page) -> None:
    """Without ids (nbclient, nbval) nothing is repainted, so that a saved notebook is what it was when it ran."""
    run(session, marks, None, "1")
    session.clear()

    assert page.paints == 0


def test_a_turn_that_is_not_stored_is_never_marked(session: Session, marks: Marks, page: Page) -> None:
    """What --once has shown was never in the conversation."""
    marks.shown("x", "s", Turn("p", "r", cells=(Cell("a", "1"),)), [])
    run(session, marks, "b", "1")
    session.clear()

    assert page.marked == ["b1"]


def test_a_deleted_session(session: Session, marks: Marks, page: Page, sessions: Sessions) -> None:
    """The outputs of a deleted session are marked until it is back."""
    run(session, marks, "a", "1")
    sessions.new("other")
    sessions.delete("s")
    assert page.marked == ["a1"]
    sessions.undo()
    assert page.marked == []


def test_a_fork_does_not_keep_outputs_of_the_other(
    session: Session, marks: Marks, page: Page, sessions: Sessions
) -> None:
    """An output belongs to the session that it names; that a fork still has its turn is another conversation."""
    run(session, marks, "a", "1")
    fork = sessions.fork("f")
    session.clear()
    assert page.marked == ["a1"]
    session.undo()
    run(fork, marks, "b", "1")
    fork.clear()
    assert page.marked == ["b1"]
    sessions.use("s")
    sessions.delete("f")
    assert page.marked == ["b1"]


def test_closed_marks_follow_no_more(session: Session, marks: Marks, page: Page) -> None:
    """After %unload_ext nothing is repainted, and after %load_ext all is as it should be."""
    run(session, marks, "a", "1")
    marks.close()
    marks.close()
    session.clear()

    assert page.paints == 0
    marks.open()
    assert page.marked == ["a1"]


def test_two_threads(sessions: Sessions, marks: Marks, page: Page) -> None:
    """Sessions that two threads change at the same time end with the right marks."""
    both = [sessions.new("one"), sessions.new("two")]

    def work(session: Session) -> None:
        for number in range(50):
            run(session, marks, f"{session.name}{number}", "1")
        for number in range(49, 25, -1):
            session.go(session.turns[number - 1].number or 0)

    threads = [threading.Thread(target=work, args=(session,)) for session in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert page.marked == sorted(f"{name}{number}1" for name in ("one", "two") for number in range(26, 50))
