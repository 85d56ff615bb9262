"""Sessions as JSON: whatever one is, it comes back, and whatever is damaged says so."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.conversation.messages import Cell, Sent, Summary, Turn, Usage
from chatmagic.conversation.record import act_record, read_act, read_session, read_turn, session_record, turn_record
from chatmagic.conversation.session import Session, State
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import RecordError, SessionError
from tests.journal import all_of, through_json

texts = st.text(max_size=12)
counts = st.none() | st.integers(0, 10**9)
costs = st.none() | st.floats(0, 100)
keys = st.sampled_from(["model", "system", "temperature", "stop", "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts | st.floats(-2, 2), lambda each: st.lists(each, max_size=2)
)
layers = st.builds(Settings, st.dictionaries(keys, json_values, max_size=3), st.frozensets(keys, max_size=1))
usages = st.builds(Usage, counts, counts, counts, counts, counts, costs)
summaries = st.builds(
    Summary, texts, st.integers(1, 9), st.lists(texts, max_size=2).map(tuple), texts, usages, st.integers(0, 3)
)
numbers = st.lists(st.integers(1, 9), max_size=3).map(tuple)
names = st.lists(texts, max_size=2).map(tuple)
sents = st.builds(
    Sent,
    texts,
    st.none() | texts,
    st.integers(0, 9),
    numbers,
    st.integers(0, 99),
    names,
    st.none() | summaries,
    numbers,
    names,
)
turns = st.builds(
    Turn,
    texts,
    texts,
    reasoning=texts,
    model=texts,
    endpoint=texts,
    settings=layers,
    usage=usages,
    status=st.sampled_from(["complete", "interrupted", "cut"]),
    finish=st.none() | texts,
    cells=st.lists(st.builds(Cell, st.none() | texts, st.none() | texts), max_size=2).map(tuple),
    started=st.floats(0, 2e9),
    seconds=st.floats(0, 99),
    sent=st.none() | sents,
    size=counts,
)
places = st.integers(0, 12)
steps = st.one_of(
    st.tuples(st.just("add"), turns, places),
    st.tuples(st.just("go"), places),
    st.tuples(st.just("clear")),
    st.tuples(st.just("set"), layers),
    st.tuples(st.just("pin"), places),
    st.tuples(st.just("unpin"), places),
    st.tuples(st.just("remember"), texts),
    st.tuples(st.just("forget_fact"), texts),
    st.tuples(st.just("compact"), summaries),
    st.tuples(st.just("undo"), st.integers(1, 3)),
    st.tuples(st.just("redo"), st.integers(1, 3)),
)


def played(script: list[tuple[Any, ...]]) -> Session:
    """Return a session in which all of *script* was done that can be."""
    session = Session("über-1")
    for what, *values in script:
        with suppress(SessionError):
            if what == "add":
                turn, place = values
                known = session.tree.turns
                session.add(read_turn(turn_record(turn), known[place % len(known)] if known and place else None))
            else:
                getattr(session, what)(*values)
    session.spent.add(Usage(7, 8, 3, cost=0.25), guessed=True)
    return session


@given(st.lists(steps, max_size=14))
def test_any_session(script: list[tuple[Any, ...]]) -> None:
    """A session of any tree, settings, pins, facts, cuts and acts comes back from JSON as it was."""
    session = played(script)

    assert all_of(read_session(through_json(session_record(session)))) == all_of(session)


@given(st.lists(steps, max_size=12), st.lists(steps, max_size=6))
def test_goes_on(script: list[tuple[Any, ...]], more: list[tuple[Any, ...]]) -> None:
    """What is undone, redone and done in a session that came back moves it as it would have moved the first one."""
    session = played(script)
    again = read_session(through_json(session_record(session)))
    for each in (session, again):
        for what, *values in [("undo", 1), *more, ("redo", 1)]:
            with suppress(SessionError):
                if what == "add":
                    each.add(values[0])
                else:
                    getattr(each, what)(*values)

    assert all_of(again) == all_of(session)


@given(st.lists(steps, max_size=12))
def test_each_act(script: list[tuple[Any, ...]]) -> None:
    """An act comes back from what it has changed and the end of the act before it."""
    session = played(script)
    before = State()
    for act in [*session.done, *session.undone]:
        again = read_act(through_json(act_record(act, before)), session.tree.turns, before)
        assert (again, again.after.head) == (act, act.after.head)
        before = act.after


def test_an_act_is_small() -> None:
    """An act says only what it has changed, so that the log of a long conversation does not grow with its square."""
    session = Session("a")
    session.remember("a long fact " * 100)
    session.add(Turn("p", "r"))

    assert act_record(session.done[1], session.done[0].after)["after"] == {"head": 1}


def test_a_gap_between_acts() -> None:
    """An act that did not begin where the one before it ended says where it began."""
    session = Session("a", Settings({"model": "m"}))
    session.add(Turn("p", "r"))

    assert act_record(session.done[0], State())["before"]["own"] == {"values": {"model": "m"}, "unset": []}
    assert read_session(through_json(session_record(session))).done[0].before.own == session.state.own


def test_called_otherwise() -> None:
    """A session comes back under another name if it is given one."""
    assert read_session(session_record(played([])), "other").name == "other"


def test_what_is_read_is_young() -> None:
    """Acts that came back are older than what is done from then on, and keep their order."""
    session = played([("remember", "a"), ("remember", "b"), ("remember", "c"), ("undo", 1)])
    again = read_session(session_record(session))
    stamps = [act.stamp for act in again.done + again.undone]
    again.remember("d")

    assert stamps == sorted(stamps)
    assert again.done[-1].stamp > stamps[-1] > session.undone[-1].stamp


def valid() -> dict[str, Any]:
    """Return the record of a session that has some of everything."""
    session = Session("a", Settings({"model": "m"}))
    summary = Summary("short", 1, ("fact",), "m", Usage(1, 2), 1)
    session.add(Turn("p", "r", cells=(Cell("c", "e"),), sent=Sent("all", "sys", 1, (1,), summary=summary), size=3))
    session.add(Turn("p2", "r2", parent=session.last, settings=Settings({"x": 1}, frozenset({"y"}))))
    session.pin(1)
    session.remember("fact")
    session.compact(summary)
    session.undo()
    record: dict[str, Any] = through_json(session_record(session))
    return record


DAMAGES: dict[str, tuple[list[Any], object]] = {
    "no session": ([], None),
    "a list": ([], []),
    "a text": ([], "session"),
    "no name": (["session"], None),
    "a name that cannot be one": (["session"], 7),
    "a name with a blank": (["session"], "a b"),
    "an empty name": (["session"], ""),
    "spent without end": (["spent"], {"requests": float("inf")}),
    "spent is no number": (["spent"], {"requests": float("nan")}),
    "spent beyond numbers": (["spent"], {"cost": 10**400}),
    "turns are none": (["turns"], None),
    "turns are a text": (["turns"], "12"),
    "a turn is a number": (["turns", 0], 1),
    "a prompt is none": (["turns", 0, "prompt"], None),
    "a prompt is a list": (["turns", 0, "prompt"], ["p"]),
    "a reply is a number": (["turns", 0, "reply"], 1),
    "a status that is none": (["turns", 0, "status"], "done"),
    "a parent that comes later": (["turns", 0, "parent"], 2),
    "its own parent": (["turns", 1, "parent"], 2),
    "a parent before the first": (["turns", 1, "parent"], 0),
    "a negative parent": (["turns", 1, "parent"], -1),
    "a parent that is a text": (["turns", 1, "parent"], "1"),
    "a parent that is true": (["turns", 1, "parent"], True),
    "a start that is a text": (["turns", 0, "started"], "now"),
    "a start beyond numbers": (["turns", 0, "started"], 10**400),
    "seconds beyond numbers": (["turns", 0, "seconds"], 10**400),
    "a cost beyond numbers": (["turns", 0, "usage", "cost"], 10**400),
    "a cost that is a text": (["turns", 0, "usage", "cost"], "1"),
    "usage is a list": (["turns", 0, "usage"], [1]),
    "tokens are a text": (["turns", 0, "usage", "input_tokens"], "1"),
    "cells are none": (["turns", 0, "cells"], "c"),
    "a cell of three": (["turns", 0, "cells", 0], ["a", "b", "c"]),
    "a cell of numbers": (["turns", 0, "cells", 0], [1, 2]),
    "settings are a list": (["turns", 1, "settings"], []),
    "values are a list": (["turns", 1, "settings", "values"], []),
    "unset is a text": (["turns", 1, "settings", "unset"], "y"),
    "unset has a number": (["turns", 1, "settings", "unset"], [1]),
    "sent is a text": (["turns", 0, "sent"], "all"),
    "pinned in sent is a text": (["turns", 0, "sent", "pinned"], "1"),
    "a summary without its end": (["turns", 0, "sent", "summary", "through"], None),
    "a summary that is a list": (["turns", 0, "sent", "summary"], []),
    "no state": (["state"], None),
    "a head that is not there": (["state", "head"], 3),
    "a head before the first": (["state", "head"], 0),
    "a head that is a text": (["state", "head"], "1"),
    "since is a list": (["state", "since"], []),
    "since has a text": (["state", "since"], {"x": "1"}),
    "pinned is none": (["state", "pinned"], None),
    "pinned has a list": (["state", "pinned"], [[1]]),
    "facts are a text": (["state", "facts"], "fact"),
    "a fact that is a number": (["state", "facts"], [1]),
    "own is a text": (["state", "own"], "x"),
    "a cut without a summary": (["state", "cut"], {"turns": 1}),
    "a cut without turns": (["state", "cut"], {"summary": {"text": "", "through": 1}}),
    "acts are a mapping": (["acts"], {}),
    "an act is none": (["acts", 0], None),
    "an act without a word": (["acts", 0, "what"], None),
    "an act without an end": (["acts", 0, "after"], None),
    "an act to nowhere": (["acts", 0, "after", "head"], 99),
    "an act from nowhere": (["acts", 0, "before", "head"], 99),
    "a stamp that is a text": (["acts", 0, "stamp"], "1"),
    "too many in force": (["done"], 99),
    "fewer than none in force": (["done"], -1),
    "in force is a text": (["done"], "1"),
    "spent is a list": (["spent"], [1]),
}


@pytest.mark.parametrize(("path", "value"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage(path: list[Any], value: object) -> None:
    """What is damaged is a RecordError."""
    record: Any = valid()
    if not path:
        record = value
    else:
        place = record
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    with pytest.raises(RecordError):
        read_session(record)


def _paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found += _paths(each, (*path, key))
    return found


PATHS = [path for path in _paths(valid()) if path]
hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0, 1, 2, float("nan"), float("inf"), "", "a", "\ud800"])
    | texts,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(texts, each, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(PATHS), st.none() | hostile, st.booleans()), min_size=1, max_size=3))
def test_any_damage(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    """Whatever stands at any place of a record, it is a session that can be undone and kept, or a RecordError."""
    record = valid()
    for path, value, is_gone in changes:
        place: Any = record
        with suppress(KeyError, IndexError, TypeError):
            for key in path[:-1]:
                place = place[key]
            if is_gone:
                del place[path[-1]]
            else:
                place[path[-1]] = value
    try:
        again = read_session(record)
    except RecordError:
        return

    if again.done:
        again.undo(len(again.done))
    assert len(read_session(session_record(again)).tree.turns) == len(again.tree.turns)


@given(hostile)
def test_anything(record: object) -> None:
    """Whatever is read as a session is one, or is a RecordError."""
    try:
        read_session(record)
    except RecordError:
        return
    raise AssertionError("nothing of this is a session")


def test_a_record_of_old() -> None:
    """What a record does not say is unknown, so that one of fewer fields can be read."""
    turn = read_turn({"prompt": "p", "reply": "r"}, None)

    assert (turn.settings, turn.usage, turn.cells, turn.sent, turn.status) == (NOTHING, Usage(), (), None, "complete")
