"""Sessions: their names, the tree of turns, the acts that move them, and the kernel's list of them."""

from __future__ import annotations

import sys
import threading
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.session import Session, State, Tree, session_name
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import NOTHING, Settings, checked
from chatmagic.errors import ChatMagicWarning, SessionError

UNKNOWN = Usage()


def say(session: Session, prompt: str, options: Settings = NOTHING, usage: Usage = UNKNOWN) -> Turn:
    """Add a turn as the engine does."""
    settings = options.over(session.state.line)
    return session.add(Turn(prompt, prompt.upper(), parent=session.last, settings=settings, usage=usage))


def prompts(session: Session) -> list[str]:
    return [turn.prompt for turn in session.turns]


@pytest.mark.parametrize(
    "name",
    ["a", "main", "Tutor-2", "a.b_c-d", "über", "数学", "हिन्दी", "x" * 64, "clear"],
    ids=["one letter", "usual", "capital and digit", "marks", "accent", "no alphabet", "signs", "64", "a verb"],
)
def test_names(name: str) -> None:
    """A letter, then letters, digits and _ . - in any script name a session, as they are."""
    assert session_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " a", "a b", "1a", "_a", "-m", ".a", "a/b", "a\n", "a\x00", "a'", "a:b", "🙂", "a🙂", "a\u202eb", "a\u200bb"],
    ids=[
        *["empty", "blank first", "blank", "digit first", "line first", "dash first", "dot first", "slash", "newline"],
        *["null", "apostrophe", "colon", "picture", "picture behind", "reordering", "without width"],
    ],
)
def test_no_names(name: str) -> None:
    """Anything else is an error that says what a name is made of."""
    with pytest.raises(SessionError, match="cannot name a session: a letter first, then letters, digits"):
        session_name(name)


def test_long_names() -> None:
    """A name of more than 64 characters is an error that shows its beginning and how long it is."""
    with pytest.raises(SessionError, match=r"'a{20}…' cannot name a session: 65 characters, at most 64 are allowed"):
        session_name("a" * 65)


def test_name_in_normal_form() -> None:
    """A name is the same however its accents are written, and is measured in that form."""
    assert session_name("e\u0301" * 64) == "é" * 64


@given(st.text(st.sampled_from("aZé9_.- '/\u0301\u0915\u093f") | st.characters(), max_size=70))
def test_any_name(text: str) -> None:
    """Whatever is accepted as a name satisfies the grammar, and is accepted again."""
    try:
        name = session_name(text)
    except SessionError:
        return

    assert unicodedata.is_normalized("NFC", name)
    assert 1 <= len(name) <= 64
    assert name[0].isalpha()
    assert all(unicodedata.category(letter)[0] in "LMN" or letter in "_.-" for letter in name)
    assert session_name(name) == name


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", fullmatch=True))
def test_every_plain_name(text: str) -> None:
    """Every plain name that the grammar allows is accepted as it is."""
    assert session_name(text) == text


def test_tree_numbers() -> None:
    """Turns are numbered from 1 in the order of their creation, and found by number."""
    tree = Tree()
    grown = [tree.grow(Turn("a", "A")), tree.grow(Turn("b", "B"))]

    assert [turn.number for turn in grown] == [1, 2]
    assert [tree[1], tree[2]] == grown


def test_tree_keeps_the_rest_of_a_turn() -> None:
    """A stored turn is the turn that was given, with its parent, and has a number besides."""
    parent = Turn("a", "A")
    turn = Turn("b", "B", parent=parent, model="m", settings=Settings({"a": 1}), usage=Usage(1, 2), started=5.0)
    stored = Tree().grow(turn)

    assert stored == replace(turn, number=1)
    assert stored.parent is parent


@pytest.mark.parametrize(
    ("size", "number", "known"),
    [(2, 3, "#1 to #2"), (2, 0, "#1 to #2"), (2, -1, "#1 to #2"), (0, 1, "none yet")],
    ids=["beyond", "zero", "below zero", "no turns"],
)
def test_no_such_turn(size: int, number: int, known: str) -> None:
    """A number that no turn has is an error that says which have one."""
    tree = Tree()
    for _ in range(size):
        tree.grow(Turn("a", "A"))

    with pytest.raises(SessionError) as caught:
        tree[number]

    assert str(caught.value) == f"no turn #{number} (known: {known})"


def test_new_session() -> None:
    """A new session has a name and nothing else."""
    session = Session("main")

    assert (session.name, session.turns, session.last, session.messages) == ("main", [], None, [])
    assert session.settings == NOTHING
    assert session.usage == Usage(0, 0, 0, 0, 0, 0.0)


def test_session_name_is_checked() -> None:
    """A session cannot have a name that is none."""
    with pytest.raises(SessionError, match="'a b' cannot name a session"):
        Session("a b")


def test_turns() -> None:
    """The turns are those from the root to the head, oldest first."""
    session = Session("main")
    turns = [say(session, prompt) for prompt in "abc"]

    assert session.turns == turns
    assert session.last is turns[-1]


def test_long_sessions() -> None:
    """A conversation may be longer than Python can recurse."""
    session = Session("main")
    for number in range(5_000):
        say(session, str(number))

    assert prompts(session) == [str(number) for number in range(5_000)]


def test_messages() -> None:
    """The history is the system prompt in force, then every prompt and reply of the line in turn."""
    session = Session("main", Settings({"system": "Be kind."}))
    say(session, "a")
    say(session, "b", Settings({"system": "Be brief."}))

    assert session.messages == [
        Message("system", "Be brief."),
        *[Message("user", "a"), Message("assistant", "A")],
        *[Message("user", "b"), Message("assistant", "B")],
    ]


def test_messages_without_system_prompt() -> None:
    """Without a system prompt the history holds what was said only."""
    session = Session("main")
    say(session, "a")

    assert [message.role for message in session.messages] == ["user", "assistant"]


def test_usage() -> None:
    """The usage is that of the turns of the line, without those that were set aside."""
    session = Session("main")
    say(session, "a", usage=Usage(100, 100, 100, 100))
    session.clear()
    say(session, "b", usage=Usage(1, 2, 3, 4))
    say(session, "c", usage=Usage(10, 20, 30, 40))

    assert session.usage == Usage(11, 22, 33, 44)


def test_unknown_usage() -> None:
    """A count that is unknown for one turn is unknown for the session, and the others are known still."""
    session = Session("main")
    say(session, "a", usage=Usage(1, None, 3, 4))
    say(session, "b", usage=Usage(1, 2, 3, 4))

    assert session.usage == Usage(2, None, 6, 8)


def test_cells_settings_win() -> None:
    """What a cell asked for holds from then on, over the session's own settings."""
    session = Session("main", Settings({"model": "own", "temperature": 1}))
    say(session, "a", Settings({"model": "cell"}))
    say(session, "b")

    assert session.settings == Settings({"model": "cell", "temperature": 1})


def test_set_wins_over_earlier_cells() -> None:
    """What is set holds from then on, though a cell before asked for something else."""
    session = Session("main")
    say(session, "a", Settings({"model": "cell", "temperature": 1}))
    session.set(Settings({"model": "own"}))

    assert session.settings == Settings({"model": "own", "temperature": 1})


def test_later_cells_win_over_set() -> None:
    """What a cell asks for holds from then on, though something else was set before."""
    session = Session("main")
    session.set(Settings({"model": "own"}))
    say(session, "a", Settings({"model": "cell"}))

    assert session.settings.model == "cell"


def test_set_keeps_the_rest() -> None:
    """To set one thing leaves the session's other settings as they are."""
    session = Session("main", Settings({"model": "m", "temperature": 1}))
    session.set(Settings({"temperature": 0}))

    assert session.state.own == Settings({"model": "m", "temperature": 0})


@pytest.mark.parametrize("asked_by_cell", [True, False], ids=["set by a cell", "set by the session"])
def test_unset(asked_by_cell: bool) -> None:
    """To unset a key takes it back, whether a cell or the session had set it, and what lies below is seen again."""
    session = Session("main")
    temperature = Settings({"temperature": 1})
    say(session, "a", temperature) if asked_by_cell else session.set(temperature)
    session.set(checked({"temperature": ""}))

    assert session.settings == NOTHING


def test_own_settings_unset_nothing() -> None:
    """A session that is started with KEY= has what lies below its settings, as after %chat set KEY=."""
    session = Session("main", checked({"model": "", "temperature": 0}))

    assert session.settings == Settings({"temperature": 0})


def test_cell_unsets() -> None:
    """What a cell unsets stays unset for the cells after it, though the session has it."""
    session = Session("main", Settings({"system": "Be kind."}))
    say(session, "a", checked({"system": ""}))
    say(session, "b")

    assert session.settings.system is None


def test_turn_keeps_its_settings() -> None:
    """A turn keeps what the cells up to it had asked for, whatever is set later."""
    session = Session("main")
    turn = say(session, "a", Settings({"model": "cell"}))
    session.set(Settings({"model": "own"}))

    assert turn.settings == session.turns[0].settings == Settings({"model": "cell"})


def test_clear() -> None:
    """Clear sets all turns aside, with what their cells had set; the session's own settings and the tree stay."""
    session = Session("main", Settings({"temperature": 0}))
    say(session, "a", Settings({"model": "cell"}))
    say(session, "b")

    assert session.clear() == 2
    assert session.turns == []
    assert session.settings == Settings({"temperature": 0})
    assert [turn.prompt for turn in session.tree.turns] == ["a", "b"]


def test_clear_of_nothing() -> None:
    """To clear an empty session is an error, and no act."""
    session = Session("main", Settings({"model": "own"}))

    with pytest.raises(SessionError, match="session 'main' is already empty"):
        session.clear()
    with pytest.raises(SessionError, match="there is nothing to undo"):
        session.undo()


def test_turn_after_clear() -> None:
    """After clear a conversation starts anew, under numbers that were never used."""
    session = Session("main")
    say(session, "a")
    session.clear()
    turn = say(session, "b")

    assert (turn.number, turn.parent) == (2, None)
    assert prompts(session) == ["b"]


def test_undo_names_the_acts() -> None:
    """Undo tells which acts it reversed, newest first, and redo which it repeated, oldest first."""
    session = Session("main")
    say(session, "a")
    session.set(checked({"temperature": 0, "model": "m"}))
    session.clear()

    assert [act.what for act in session.undo(3)] == ["clear", "set model temperature", "turn #1"]
    assert [act.what for act in session.redo(2)] == ["turn #1", "set model temperature"]


def test_undo_one_by_one() -> None:
    """Undo reverses one act if no number is said, and redo repeats one."""
    session = Session("main")
    for prompt in "abc":
        say(session, prompt)
    session.undo()
    session.undo()

    assert prompts(session) == ["a"]

    session.redo()

    assert prompts(session) == ["a", "b"]


def test_undo_is_not_to_the_parent() -> None:
    """Undo stands where the session stood before the act, not on the parent of its turn."""
    session = Session("main")
    first = say(session, "a")
    say(session, "b")
    session.add(Turn("c", "C", parent=first))
    session.undo()

    assert prompts(session) == ["a", "b"]


def test_act_after_undo() -> None:
    """An act after undo takes the place of what was undone; the undone turns stay in the tree."""
    session = Session("main")
    say(session, "a")
    say(session, "b")
    session.undo()
    say(session, "c")

    assert prompts(session) == ["a", "c"]
    assert session.tree[2].prompt == "b"
    with pytest.raises(SessionError, match="cannot redo 1 in session 'main': there is nothing to redo"):
        session.redo()


@pytest.mark.parametrize(
    ("acts", "count", "told"),
    [
        (0, 1, "cannot undo 1 in session 'main': there is nothing to undo"),
        (1, 2, "cannot undo 2 in session 'main': there is 1 act to undo"),
        (3, 4, "cannot undo 4 in session 'main': there are 3 acts to undo"),
        (3, 0, "cannot undo 0 in session 'main': there are 3 acts to undo"),
        (3, -1, "cannot undo -1 in session 'main': there are 3 acts to undo"),
    ],
    ids=["nothing", "more than one", "more than all", "none", "less than none"],
)
def test_undo_too_much(acts: int, count: int, told: str) -> None:
    """To undo what cannot be undone is an error that says how many acts can, and moves nothing."""
    session = Session("main")
    for number in range(acts):
        say(session, str(number))
    before = session.state

    with pytest.raises(SessionError) as caught:
        session.undo(count)

    assert str(caught.value) == told
    assert session.state == before


@pytest.mark.parametrize(
    ("undone", "count", "told"),
    [
        (0, 1, "cannot redo 1 in session 'main': there is nothing to redo"),
        (1, 2, "cannot redo 2 in session 'main': there is 1 act to redo"),
        (2, 0, "cannot redo 0 in session 'main': there are 2 acts to redo"),
    ],
    ids=["nothing", "more than one", "none"],
)
def test_redo_too_much(undone: int, count: int, told: str) -> None:
    """To redo what was not undone is an error that says how many acts were, and moves nothing."""
    session = Session("main")
    for prompt in "abc":
        say(session, prompt)
    if undone:
        session.undo(undone)
    before = session.state

    with pytest.raises(SessionError) as caught:
        session.redo(count)

    assert str(caught.value) == told
    assert session.state == before


@dataclass(frozen=True)
class Say:
    prompt: str
    options: dict[str, object]


@dataclass(frozen=True)
class Set:
    changes: dict[str, object]


@dataclass(frozen=True)
class Clear:
    pass


@dataclass(frozen=True)
class Undo:
    count: int


@dataclass(frozen=True)
class Redo:
    count: int


Step = Say | Set | Clear | Undo | Redo

CHANGES: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    st.sampled_from(["model", "system", "temperature"]), st.sampled_from(["", "a", "b"])
)
COUNTS = st.integers(0, 4)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.builds(Say, st.text(max_size=3), CHANGES)
    | st.builds(Set, CHANGES)
    | st.builds(Clear)
    | st.builds(Undo, COUNTS)
    | st.builds(Redo, COUNTS),
    max_size=30,
)


def take(session: Session, step: Step) -> None:
    match step:
        case Say(prompt, options):
            say(session, prompt, checked(options))
        case Set(changes):
            session.set(checked(changes))
        case Clear():
            session.clear()
        case Undo(count):
            session.undo(count)
        case Redo(count):
            session.redo(count)


def take_all(session: Session, steps: Sequence[Step]) -> None:
    """Take the steps that can be taken."""
    for step in steps:
        with suppress(SessionError):
            take(session, step)


@dataclass(frozen=True)
class Moment:
    """What a person expects to see: prompts, what cells asked for, what was set ("" is: taken back)."""

    line: tuple[str, ...] = ()
    asked: dict[str, object] = field(default_factory=dict)
    own: dict[str, object] = field(default_factory=dict)

    @property
    def in_force(self) -> dict[str, object]:
        return {key: value for key, value in {**self.own, **self.asked}.items() if value != ""}


class Model:
    """A session as a plain list of moments."""

    def __init__(self) -> None:
        self.moments = [Moment()]
        self.now = 0

    @property
    def moment(self) -> Moment:
        return self.moments[self.now]

    def take(self, step: Step) -> bool:
        """Take the step, or say that it cannot be taken."""
        match step:
            case Undo(count):
                return self.move(count, -count)
            case Redo(count):
                return self.move(count, count)
            case Clear() if not self.moment.line and not self.moment.asked:
                return False
            case Set() if self.same(self.after(step)):
                return True
        self.moments[self.now + 1 :] = [self.after(step)]
        self.now += 1
        return True

    def same(self, moment: Moment) -> bool:
        """Nothing is set by a moment that differs in nothing."""
        own = [{key: value for key, value in each.own.items() if value != ""} for each in (moment, self.moment)]
        return own[0] == own[1] and moment.asked == self.moment.asked

    def after(self, step: Step) -> Moment:
        now = self.moment
        match step:
            case Say(prompt, options):
                return Moment((*now.line, prompt), {**now.asked, **options}, now.own)
            case Set(changes):
                asked = {key: value for key, value in now.asked.items() if key not in changes}
                return Moment(now.line, asked, {**now.own, **changes})
            case _:
                return Moment((), {}, now.own)

    def move(self, count: int, by: int) -> bool:
        if count < 1 or not 0 <= self.now + by < len(self.moments):
            return False
        self.now += by
        return True


@given(STEPS)
def test_session_is_a_list_of_moments(steps: list[Step]) -> None:
    """Whatever is done, a session shows the prompts and settings that a plain list of moments shows."""
    session, model = Session("main"), Model()
    for step in steps:
        if model.take(step):
            take(session, step)
        else:
            before = session.state
            with pytest.raises(SessionError):
                take(session, step)
            assert session.state == before

        assert tuple(prompts(session)) == model.moment.line
        assert session.settings.values == model.moment.in_force


@given(STEPS)
def test_undo_and_redo_all(steps: list[Step]) -> None:
    """To undo all acts leads back to the beginning, and to redo them to the end, through the same states."""
    session = Session("main")
    take_all(session, steps)
    states = [session.state]
    with suppress(SessionError):
        while session.undo():
            states.append(session.state)

    assert states[-1] == State()

    for state in states[-2::-1]:
        session.redo()
        assert session.state == state
        assert session.last is state.head


@given(STEPS, st.integers(1, 10))
def test_undo_and_redo_some(steps: list[Step], count: int) -> None:
    """To undo any number of acts and to redo as many leads back to the same state."""
    session = Session("main")
    take_all(session, [*steps, *[Say("more", {})] * count])
    end = session.state
    undone = session.undo(count)

    assert session.state == undone[-1].before
    assert session.redo(count) == undone[::-1]
    assert session.state == end
    assert session.last is end.head


@given(STEPS)
def test_tree_loses_nothing(steps: list[Step]) -> None:
    """Whatever is done, every turn stays in the tree as it was, under its own number."""
    session = Session("main")
    for step in steps:
        before = list(session.tree.turns)
        take_all(session, [step])
        kept = session.tree.turns[: len(before)]

        assert all(now is then for now, then in zip(kept, before, strict=True))
        assert len(session.tree.turns) == len(before) + isinstance(step, Say)
        assert [turn.number for turn in session.tree.turns] == list(range(1, len(session.tree.turns) + 1))


@given(STEPS)
def test_line_is_the_chain_of_parents(steps: list[Step]) -> None:
    """Whatever is done, the parent of each turn of the line is the one before it, and all are stored."""
    session = Session("main")
    take_all(session, steps)
    parents = [None, *session.turns]

    assert all(turn.parent is parent for turn, parent in zip(session.turns, parents, strict=False))
    assert session.last is parents[-1]
    assert all(turn.number and session.tree[turn.number] is turn for turn in session.turns)


def test_first_session() -> None:
    """A kernel starts without a session; the current one will be main."""
    sessions = Sessions()

    assert (len(sessions), list(sessions), sessions.current) == (0, [], "main")


def test_find_keeps_nothing() -> None:
    """A session that is looked for and not known yet is a new one, which nobody knows until it is kept."""
    sessions = Sessions()
    session = sessions.find("tutor")

    assert (session.name, len(sessions), "tutor" in sessions) == ("tutor", 0, False)

    sessions.keep(session)

    assert sessions.find("tutor") is session
    assert sessions["tutor"] is session
    assert list(sessions) == [session]
    assert "tutor" in sessions
    assert sessions.current == "main"


def test_keep_replaces_none() -> None:
    """A session that is known keeps its name; another one of that name cannot be kept, and that is said."""
    sessions = Sessions()
    first, second = Session("tutor"), Session("tutor")
    sessions.keep(first)
    with pytest.raises(SessionError, match="taken"):
        sessions.keep(second)

    assert sessions["tutor"] is first


def test_new_is_current() -> None:
    """A session that is started is empty, has the given settings, is known, and is the current one."""
    sessions = Sessions()
    session = sessions.new("tutor", Settings({"model": "m"}))

    assert (session.turns, session.settings) == ([], Settings({"model": "m"}))
    assert sessions["tutor"] is session
    assert sessions.current == "tutor"


def test_new_twice() -> None:
    """To start a session under a known name is an error that says how to switch to it, and changes nothing."""
    sessions = Sessions()
    first = sessions.new("tutor")
    sessions.new("review")

    with pytest.raises(SessionError, match=r"there is a session 'tutor' already\. Switch to it with %chat use tutor"):
        sessions.new("tutor")

    assert sessions["tutor"] is first
    assert sessions.current == "review"


def test_use() -> None:
    """To use a session makes it the current one."""
    sessions = Sessions()
    tutor = sessions.new("tutor")
    sessions.new("review")

    assert sessions.use("tutor") is tutor
    assert sessions.current == "tutor"


def test_use_unknown() -> None:
    """To use a session that nobody knows is an error that names those that are known, and changes nothing."""
    sessions = Sessions()
    sessions.new("tutor")
    sessions.new("review")

    with pytest.raises(SessionError) as caught:
        sessions.use("tutr")

    assert str(caught.value) == "no session 'tutr' (known: 'tutor', 'review'). Start it with %%chat tutr"
    assert sessions.current == "review"
    assert "tutr" not in sessions


@pytest.mark.parametrize(
    ("count", "known"),
    [(0, "none yet"), (1, "'s0'"), (8, "'s6', 's7'"), (9, "'s6', 's7', …")],
    ids=["none", "one", "eight", "more"],
)
def test_known_names(count: int, known: str) -> None:
    """An error names the first eight known sessions, and tells when there are more."""
    sessions = Sessions()
    for number in range(count):
        sessions.new(f"s{number}")

    with pytest.raises(SessionError) as caught:
        sessions["other"]

    assert f"{known})" in str(caught.value)


def test_names_of_known_sessions_are_normalised() -> None:
    """A session is found however the accents of its name are written."""
    sessions = Sessions()
    session = sessions.new("cafe\u0301")

    assert sessions.current == "caf\u00e9"
    assert sessions["caf\u00e9"] is sessions["cafe\u0301"] is sessions.find("cafe\u0301") is session
    assert "cafe\u0301" in sessions
    assert sessions.use("cafe\u0301") is session
    assert sessions.current == "caf\u00e9"
    with pytest.raises(SessionError, match="there is a session"):
        sessions.new("cafe\u0301")


def test_case_matters() -> None:
    """Names that differ in case are two sessions."""
    sessions = Sessions()

    assert sessions.new("Tutor") is not sessions.new("tutor")
    assert len(sessions) == 2


def test_sessions_may_grow_while_listed() -> None:
    """Who goes through the sessions may start one."""
    sessions = Sessions()
    sessions.new("a")
    for session in sessions:
        sessions.new(f"{session.name}-copy")

    assert [session.name for session in sessions] == ["a", "a-copy"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("tutr", "tutor"), ("Tutor", "tutor"), ("review", None), ("run2", None), ("run-1", "run1"), ("tutor", None)],
    ids=["slip", "case", "far", "another number", "number and more", "itself"],
)
def test_near(name: str, near: str | None) -> None:
    """A name may be the slip of a known one, unless they differ in a number only."""
    sessions = Sessions()
    sessions.new("tutor")
    sessions.new("run1")

    assert sessions.near(name) == near


# --- names: fork, rename, delete


def standing(sessions: Sessions) -> tuple[str, dict[str, list[str]]]:
    """The current name, and the prompts of every session by name."""
    return sessions.current, {session.name: [turn.prompt for turn in session.turns] for session in sessions}


@pytest.fixture
def two() -> Sessions:
    """The sessions ``a`` (current, one turn) and ``b`` (empty)."""
    sessions = Sessions()
    sessions.new("b")
    sessions.new("a").add(Turn("hi", "ho"))
    return sessions


def test_fork_shares_the_past_and_goes_on_by_itself(two: Sessions) -> None:
    """A fork begins with the turns of the session, and what is added to one is not in the other."""
    fork = two.fork("c")
    fork.add(Turn("more", "text", parent=fork.last))

    assert standing(two) == ("c", {"b": [], "a": ["hi"], "c": ["hi", "more"]})
    assert fork.last is not None
    assert fork.last.number == 2


def test_rename_keeps_all_but_the_name(two: Sessions) -> None:
    """A renamed session keeps its turns and its place, and stays the current one."""
    two.rename("a", "z")

    assert standing(two) == ("z", {"b": [], "z": ["hi"]})


def test_delete_forgets_a_session(two: Sessions) -> None:
    """A deleted session is not known any more."""
    two.delete("b")

    assert standing(two) == ("a", {"a": ["hi"]})


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda s: s.fork("c"), "fork 'c'"),
        (lambda s: s.rename("a", "z"), "rename 'a' to 'z'"),
        (lambda s: s.delete("b"), "delete 'b'"),
    ],
    ids=["fork", "rename", "delete"],
)
def test_moves_of_names_can_be_undone_and_redone(two: Sessions, act: Callable[[Sessions], object], what: str) -> None:
    """Undo takes the last move of a name back, redo repeats it."""
    before = standing(two)
    act(two)
    after = standing(two)

    assert two.undo() == [what]
    assert standing(two)[0] == before[0]
    assert dict(standing(two)[1]) == dict(before[1])
    assert two.redo() == [what]
    assert standing(two) == after


def test_undo_goes_through_turns_and_names_in_order(two: Sessions) -> None:
    """Acts of the session and moves of its name are undone newest first."""
    two.rename("a", "z")
    two["z"].add(Turn("more", "text", parent=two["z"].last))
    two.delete("b")

    assert two.undo(4) == ["delete 'b'", "turn #2", "rename 'a' to 'z'", "turn #1"]
    assert two.redo(4) == ["turn #1", "rename 'a' to 'z'", "turn #2", "delete 'b'"]


def test_undo_leaves_names_of_other_sessions_alone(two: Sessions) -> None:
    """What was renamed elsewhere is no act of the current session."""
    two.rename("b", "y")

    assert two.undo() == ["turn #1"]


def test_a_new_act_ends_what_can_be_redone(two: Sessions) -> None:
    """After something new nothing that was undone before comes back."""
    two.rename("a", "z")
    two.undo()
    two["a"].add(Turn("more", "text", parent=two["a"].last))

    with pytest.raises(SessionError, match="nothing to redo"):
        two.redo()


def test_too_many_undos_change_nothing(two: Sessions) -> None:
    """Undo of more acts than there are is an error that takes nothing back."""
    two.rename("a", "z")
    before = standing(two)

    with pytest.raises(SessionError, match="there are 2 acts to undo"):
        two.undo(3)
    assert standing(two) == before


def test_a_name_that_is_taken_does_not_come_back(two: Sessions) -> None:
    """Undo of a deletion is refused while another session has the name, and nothing changes."""
    two.delete("b")
    two.rename("a", "b")
    two.new("c")
    before = standing(two)

    with pytest.raises(SessionError, match="'b' is taken"):
        two.undo()
    assert standing(two) == before


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: s.fork("b"), "already"),
        (lambda s: s.rename("a", "b"), "already"),
        (lambda s: s.rename("a", "a"), "already"),
        (lambda s: s.rename("x", "y"), "no session 'x'"),
        (lambda s: s.rename("a", "1"), "cannot name"),
        (lambda s: s.delete("a"), "current session"),
        (lambda s: s.delete("x"), "no session 'x'"),
    ],
    ids=["fork onto one", "rename onto one", "onto itself", "unknown", "no name", "current", "delete unknown"],
)
def test_bad_moves_change_nothing(two: Sessions, act: Callable[[Sessions], object], message: str) -> None:
    """A move that cannot be is an error, and everything stays as it was."""
    before = standing(two)

    with pytest.raises(SessionError, match=message):
        act(two)
    assert standing(two) == before


def test_watchers_hear_of_every_change(two: Sessions) -> None:
    """Whoever watches is called after every act, move and question, whoever made it."""
    heard: list[tuple[str, dict[str, list[str]]]] = []
    two.watchers.append(lambda: heard.append(standing(two)))
    steps: list[Callable[[], object]] = [
        lambda: two["a"].add(Turn("more", "text", parent=two["a"].last)),
        lambda: two["a"].clear(),
        lambda: two.undo(),
        lambda: two.use("b"),
        lambda: two.rename("b", "y"),
        lambda: two.undo(),
        lambda: two.new("c"),
    ]
    for step in steps:
        step()
        assert heard
        assert heard.pop() == standing(two)
        heard.clear()


def test_busy_while_asking(two: Sessions) -> None:
    """A session is busy as long as it is asked, and nothing is remembered of it afterwards."""
    session = two["a"]
    with two.asking(session):
        assert two.busy[session] == 1

    assert not two.busy


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.idle("a").__enter__(),
        lambda s: s.undo(),
        lambda s: s.redo(),
        lambda s: s.rename("a", "z"),
        lambda s: (s.use("b"), s.delete("a")),
    ],
    ids=["idle", "undo", "redo", "rename", "delete"],
)
def test_nothing_is_done_under_a_reply(two: Sessions, act: Callable[[Sessions], object]) -> None:
    """While a session is asked, what the reply would undo is refused."""
    with two.asking(two["a"]):
        before = standing(two)[1]
        with pytest.raises(SessionError, match="'a' is being asked just now"):
            act(two)
        assert standing(two)[1] == before


@pytest.mark.parametrize(
    "act",
    [lambda s: s.new("x"), lambda s: s.fork("x"), lambda s: s.rename("a", "x")],
    ids=["new", "fork", "rename"],
)
def test_nobody_takes_the_name_of_a_session_that_begins(two: Sessions, act: Callable[[Sessions], object]) -> None:
    """While the first reply of a session is awaited, its name is not to be had."""
    draft = two.find("x")
    with two.asking(draft), pytest.raises(SessionError, match="'x' is just being started"):
        act(two)
    two.keep(draft)

    assert two["x"] is draft


@pytest.mark.parametrize(
    "act", [lambda s: (s.use("b"), s.delete("x")), lambda s: s.rename("x", "z")], ids=["deleted", "renamed"]
)
def test_a_name_that_is_free_again_is_new(two: Sessions, act: Callable[[Sessions], object]) -> None:
    """Who asks under the name of a session that was deleted or renamed gets a new one, without its past."""
    draft = two.find("x")
    draft.add(Turn("secret", "text"))
    two.keep(draft)
    act(two)

    assert two.find("x") is not draft
    assert two.find("x").turns == []


def test_forks_number_their_turns_together() -> None:
    """Turns that two threads add to sessions of one tree at the same time get different numbers."""
    sessions = Sessions()
    origin = sessions.new("a")
    fork = sessions.fork("b")
    threads = [
        threading.Thread(target=lambda each=each: [each.add(Turn("p", "r", parent=each.last)) for _ in range(500)])
        for each in (origin, fork, origin, fork)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert [turn.number for turn in origin.tree.turns] == list(range(1, 2001))


def test_two_who_start_the_same_session_get_the_same(two: Sessions) -> None:
    """A name that nobody keeps yet leads everybody to one session, so that no turn is lost."""
    first = two.find("later")
    assert two.find("later") is first
    two.keep(first)
    assert two["later"] is first


def test_a_failing_watcher_breaks_nothing(two: Sessions) -> None:
    """Whoever watches and fails is warned about; the act is done, and the others hear of it."""
    heard: list[str] = []
    two.watchers += [lambda: 1 / 0, lambda: heard.append("changed")]  # type: ignore[list-item]

    with pytest.warns(ChatMagicWarning, match="ZeroDivisionError"):
        two["a"].clear()
    assert two["a"].turns == []
    assert heard == ["changed"]


def test_what_can_be_undone_and_redone_is_known(two: Sessions) -> None:
    """undoable and redoable say beforehand whether undo and redo will do something."""
    assert [two.undoable, two.redoable] == ["turn #1", None]
    two.undo()
    assert [two.undoable, two.redoable] == [None, "turn #1"]
    two.rename("a", "z")
    two.undo()
    assert two.redoable == "rename 'a' to 'z'"
    two["a"].add(Turn("more", "text"))
    assert [two.undoable, two.redoable] == ["turn #2", None]


def test_many_sessions_are_asked_at_the_same_time() -> None:
    """Threads that begin and end asking in different sessions do not get in each other's way."""
    sessions, failures = Sessions(), list[Exception]()
    known = [sessions.new(f"s{number}") for number in range(8)]

    def ask(session: Session) -> None:
        try:
            for _ in range(400):
                with sessions.asking(session):
                    pass
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=ask, args=(session,)) for session in known]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert failures == []
    assert not sessions.busy
