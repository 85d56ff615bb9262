"""The line of a session: where a cell that runs again goes back to, and what is set aside."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.messages import Cell, Turn
from chatmagic.conversation.session import Session, parting
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import SessionError


def run(session: Session, cell: str, execution: str, options: Settings = NOTHING) -> Turn:
    """Add a turn as the engine does for a cell."""
    state, where = session.begin(Cell(cell, execution)), Cell(cell, execution)
    return session.add(
        Turn(f"{cell}{execution}", "r", parent=state.head, settings=options.over(state.line), cells=(where,))
    )


def said(session: Session) -> list[str]:
    return [turn.prompt for turn in session.turns]


@pytest.fixture
def three() -> Session:
    """A session with a turn of each of three cells."""
    session = Session("s")
    for cell in "abc":
        run(session, cell, "1")
    return session


@pytest.mark.parametrize(
    ("cell", "execution", "line"),
    [
        ("c", "2", ["a1", "b1", "c2"]),
        ("b", "2", ["a1", "b2"]),
        ("a", "2", ["a2"]),
        ("d", "2", ["a1", "b1", "c1", "d2"]),
        ("b", "1", ["a1", "b1", "c1", "b1"]),
    ],
    ids=["last", "middle", "first", "new", "the same execution"],
)
def test_a_cell_goes_back_to_where_it_was(three: Session, cell: str, execution: str, line: list[str]) -> None:
    """Another execution of a cell replaces its turn and what came after; a new cell, or the same execution, appends."""
    run(three, cell, execution)

    assert said(three) == line
    assert len(three.tree.turns) == 4


def test_several_turns_of_one_execution_are_replaced_as_a_whole(three: Session) -> None:
    """A cell that asked in a loop begins where its first turn began, and then goes on behind its own new turns."""
    for _ in range(3):
        run(three, "d", "1")
    for _ in range(2):
        run(three, "d", "2")

    assert said(three) == ["a1", "b1", "c1", "d2", "d2"]


def test_a_cell_without_id_appends() -> None:
    """Where the front end names no cells, nothing is replaced."""
    session = Session("s")
    for execution in "123":
        session.add(Turn(execution, "r", parent=session.begin(Cell(None, execution)).head, cells=(Cell(None, "1"),)))

    assert said(session) == ["1", "2", "3"]


def test_what_is_not_on_the_line_is_not_replaced(three: Session) -> None:
    """A cell whose turn was set aside appends, and is found again when the turn is back."""
    run(three, "a", "2")
    run(three, "c", "2")
    assert said(three) == ["a2", "c2"]

    three.undo(2)
    run(three, "b", "3")
    assert said(three) == ["a1", "b3"]


def test_settings_of_a_re_run_are_those_before_it() -> None:
    """A cell that runs again starts from the settings before it, whatever later cells have asked for."""
    session = Session("s")
    run(session, "a", "1", Settings({"model": "one"}))
    run(session, "b", "1", Settings({"model": "two", "seed": 1}))
    again = run(session, "b", "2", Settings({"seed": 2}))

    assert again.settings == Settings({"model": "one", "seed": 2})
    assert session.settings.model == "one"


def test_set_wins_over_what_turns_before_it_asked_for() -> None:
    """Going back to a turn does not bring back what %chat set has changed since, but what came after it does."""
    session = Session("s")
    run(session, "a", "1", Settings({"model": "one", "seed": 1}))
    session.set(Settings({"model": "set"}))
    run(session, "b", "1")
    run(session, "c", "1", Settings({"model": "late"}))

    assert run(session, "b", "2").settings.over(session.state.own) == Settings({"model": "set", "seed": 1})
    session.go(3)
    assert session.settings.model == "late"
    session.go(1)
    assert session.settings == Settings({"model": "set", "seed": 1})


def test_go_is_an_act(three: Session) -> None:
    """Standing on another turn sets aside what comes after, can be undone, and 0 is the beginning."""
    assert three.go(1)
    assert said(three) == ["a1"]
    assert three.go(0)
    assert said(three) == []
    assert [act.what for act in three.undo(2)] == ["use --at 0", "use --at 1"]
    assert said(three) == ["a1", "b1", "c1"]


def test_going_nowhere_is_no_act(three: Session) -> None:
    """Where a session stands already, nothing changes."""
    acts = len(three.done)

    assert not three.go(3)
    assert len(three.done) == acts


@pytest.mark.parametrize("number", [4, -1, 10**9])
def test_no_such_turn(three: Session, number: int) -> None:
    """An unknown number is an error that names the known ones, and changes nothing."""
    for act in (three.go, three.pin, three.unpin):
        with pytest.raises(SessionError, match=rf"no turn #{number} \(known: #1 to #3\)"):
            act(number)
    assert said(three) == ["a1", "b1", "c1"]


def test_pins(three: Session) -> None:
    """Pins are acts, which can be undone; only a turn of the line can be pinned."""
    assert three.pin(2)
    assert not three.pin(2)
    assert three.state.pinned == {2}
    assert three.unpin(2)
    assert not three.unpin(2)
    three.undo()
    assert three.state.pinned == {2}

    three.go(1)
    with pytest.raises(SessionError, match=r"turn #3 is not in the conversation 's' now. .*%chat use s --at 3"):
        three.pin(3)


def test_fork_at_a_turn(three: Session) -> None:
    """A fork may begin earlier; the session that it comes from stays as it is, and so does the current one if asked."""
    sessions = Sessions()
    sessions.keep(three)
    fork = sessions.fork("f", 2, origin="s", switch=False)

    assert (said(fork), said(three), sessions.current) == (["a1", "b1"], ["a1", "b1", "c1"], "main")
    assert run(fork, "b", "2").number == 4
    assert said(three) == ["a1", "b1", "c1"]


def test_fork_at_an_unknown_turn_changes_nothing(three: Session) -> None:
    """A fork onto a turn that does not exist makes no session."""
    sessions = Sessions()
    sessions.keep(three)
    with pytest.raises(SessionError, match="no turn #9"):
        sessions.fork("f", 9, origin="s")

    assert [session.name for session in sessions] == ["s"]


@given(st.data())
def test_lines_part_where_they_part(data: Any) -> None:
    """For any tree: what both lines share, and what only one has, is the whole of each."""
    turns: list[Turn | None] = [None]
    for number in range(1, data.draw(st.integers(1, 12)) + 1):
        turns.append(Turn("p", "r", parent=data.draw(st.sampled_from(turns)), number=number))
    old, new = data.draw(st.sampled_from(turns)), data.draw(st.sampled_from(turns))
    left, came = parting(old, new)
    lines = [parting(None, each)[1] for each in (old, new)]
    shared = [turn for turn in lines[0] if any(turn is other for other in lines[1])]

    assert [turn.number for turn in shared + left] == [turn.number for turn in lines[0]]
    assert [turn.number for turn in shared + came] == [turn.number for turn in lines[1]]


def test_the_home_of_a_cell() -> None:
    """A cell that names no session asks where it asked before, until somebody switches; then in the current one."""
    sessions = Sessions()
    a, b, cell = sessions.new("a"), sessions.new("b"), Cell("x", "1")
    assert sessions.home(cell) == "b"

    sessions.asked_by(cell, a)
    sessions.asked_by(Cell("y", "2"), b)
    assert (sessions.current, sessions.home(cell)) == ("b", "a")
    sessions.use("b")
    assert sessions.home(cell) == "b"


def test_a_switch_that_was_followed_moves_no_earlier_cell() -> None:
    """When all cells run a second time, those above a %chat use stay where they were."""
    sessions = Sessions()
    a, b = sessions.new("a"), sessions.new("b")
    for _ in range(3):
        sessions.asked_by(Cell("above", "1"), a)
        sessions.use("b")
        sessions.asked_by(Cell("below", "1"), b)

        assert (sessions.home(Cell("above")), sessions.home(Cell("below"))) == ("a", "b")


def test_a_switch_moves_all_cells_that_run_again() -> None:
    """After a switch, several cells that run again move one after the other."""
    sessions = Sessions()
    a, b = sessions.new("a"), sessions.new("b")
    sessions.asked_by(Cell("x"), a)
    sessions.asked_by(Cell("y"), a)
    sessions.use("b")
    for name in "xy":
        assert sessions.home(Cell(name)) == "b"
        sessions.asked_by(Cell(name), b)


def test_a_home_that_is_gone() -> None:
    """A cell whose session was deleted asks in the current one, and goes home when the session is back."""
    sessions = Sessions()
    a, b = sessions.new("a"), sessions.new("b")
    sessions.asked_by(Cell("x"), a)
    sessions.asked_by(Cell("y"), b)
    sessions.delete("a")
    assert sessions.home(Cell("x")) == "b"
    sessions.undo()
    assert sessions.home(Cell("x")) == "a"
    sessions.rename("a", "c")
    assert sessions.home(Cell("x")) == "c"


def test_watchers_see_many_undos_as_one(three: Session) -> None:
    """Whoever follows sees where several undos lead and nothing between, and nothing at all when they fail."""
    sessions = Sessions()
    sessions.keep(three)
    sessions.use("s")
    seen: list[list[str]] = []
    sessions.watchers.append(lambda: seen.append(said(three)))
    sessions.undo(2)
    with pytest.raises(SessionError, match="cannot undo 9 in session 's': there is 1 act to undo"):
        sessions.undo(9)

    assert seen == [["a1"], ["a1"]]


def test_undo_of_a_named_session() -> None:
    """Acts of one session can be undone and redone while another one is current, also its names."""
    sessions = Sessions()
    a, _ = sessions.new("a"), sessions.new("b")
    run(a, "x", "1")
    sessions.rename("a", "c")

    assert sessions.undo(2, "c") == ["rename 'a' to 'c'", "turn #1"]
    assert (a.name, said(a), sessions.current) == ("a", [], "b")
    assert sessions.redo(2, "a") == ["turn #1", "rename 'a' to 'c'"]
    assert (a.name, said(a), sessions.current) == ("c", ["x1"], "b")


def test_undo_never_leaves_the_session() -> None:
    """Two undos of a fork that has one act are an error that changes nothing, and touch no act of the origin."""
    sessions = Sessions()
    a = sessions.new("a")
    run(a, "x", "1")
    sessions.undo()
    fork = sessions.fork("p")
    with pytest.raises(SessionError, match="cannot undo 2 in session 'p': there is 1 act to undo"):
        sessions.undo(2)

    assert (sessions.current, [each.name for each in sessions], said(a), said(fork)) == ("p", ["a", "p"], [], [])
    sessions.undo()
    assert (sessions.current, [each.name for each in sessions]) == ("a", ["a"])


def test_redo_repeats_what_was_undone_last() -> None:
    """A rename ends what could be redone before, and is itself redone after its undo."""
    sessions = Sessions()
    a = sessions.new("a")
    run(a, "x", "1")
    sessions.undo()
    sessions.rename("a", "r")
    sessions.undo()

    assert sessions.redo() == ["rename 'a' to 'r'"]
    with pytest.raises(SessionError, match="nothing to redo"):
        sessions.redo()


@pytest.mark.parametrize("count", [0, -1])
def test_no_acts_at_all(count: int) -> None:
    """To undo nothing is an error, not an act."""
    sessions = Sessions()
    sessions.new("a")
    for act in (sessions.undo, sessions.redo):
        with pytest.raises(SessionError, match=f"do {count} acts: a number from 1 up"):
            act(count)


def test_a_deleted_session_says_how_it_comes_back() -> None:
    """The name of a deleted session is no unknown name."""
    sessions = Sessions()
    sessions.new("a")
    sessions.new("b")
    sessions.delete("a")
    with pytest.raises(SessionError, match=r"session 'a' was deleted. %chat undo may bring it back"):
        sessions.use("a")


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads that change places all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hurried")
def test_threads_that_start_sessions_lose_none() -> None:
    """Every session in which something was said is known, whoever started another one at the same time."""
    sessions = Sessions()

    def start(number: int) -> None:
        session = sessions.find(f"s{number}")
        session.add(Turn("p", "r"))
        if number % 5 == 0:
            sessions.rename(session.name, f"t{number}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(start, range(500)))

    assert sorted(session.name for session in sessions) == sorted(f"{'ts'[n % 5 > 0]}{n}" for n in range(500))


@pytest.mark.usefixtures("hurried")
def test_threads_that_set_lose_nothing(three: Session) -> None:
    """Settings and pins that several threads change at once are all there in the end."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: three.set(Settings({f"k{n}": n})), range(200)))
        list(pool.map(three.pin, [1, 2, 3]))

    assert len(three.settings.values) == 200
    assert three.state.pinned == {1, 2, 3}


def test_nobody_asks_under_an_act() -> None:
    """While an act is done in a session, a prompt waits, so that its reply cannot undo the act."""
    sessions = Sessions()
    sessions.new("a")
    with sessions.idle("a") as session:
        thread = threading.Thread(target=session.lock.acquire, kwargs={"timeout": 5})
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
    thread.join()


def test_what_a_number_stands_for(three: Session) -> None:
    """A cell that asks behind a turn again asks behind what has taken its place; a new cell takes it exactly."""
    old = three.tree[1]
    three.add(Turn("x", "r", parent=old, cells=(Cell("x", "1"),)))
    new = run(three, "a", "2")

    assert three.meant(1, Cell("x", "2")) is new
    assert three.meant(1, Cell("y", "1")) is old
    assert three.meant(0, Cell("x", "2")) is None
