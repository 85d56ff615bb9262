"""Turns and sessions as JSON, and back: what a journal, an export and a saved notebook hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any, get_args

from chatmagic.conversation.messages import Cell, Cut, Sent, Status, Summary, Turn, Usage
from chatmagic.conversation.session import Act, Session, State, Tree, next_stamp, session_name
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.conversation.spending import Spent
from chatmagic.errors import RecordError, SessionError
from chatmagic.plain import one_line

__all__ = [
    "act_record",
    "read_act",
    "read_session",
    "read_state",
    "read_tree",
    "read_turn",
    "read_turns",
    "session_record",
    "state_record",
    "turn_record",
]

Record = dict[str, Any]
_NOT_KEPT = ("api_key", "authorization", "extra_headers", "extra_query", "headers")
"""Settings that may hold a key, and so are written nowhere."""


def turn_record(turn: Turn) -> Record:
    """Return all that *turn* is, its parent as a number."""
    return {
        "turn": turn.number,
        "parent": turn.parent.number if turn.parent else None,
        "prompt": turn.prompt,
        "reply": turn.reply,
        "reasoning": turn.reasoning,
        "model": turn.model,
        "endpoint": turn.endpoint,
        "settings": _settings_record(turn.settings),
        "usage": asdict(turn.usage),
        "sent": asdict(turn.sent) if turn.sent else None,
        "size": turn.size,
        "status": turn.status,
        "finish": turn.finish,
        "cells": [[cell.id, cell.execution] for cell in turn.cells],
        "started": turn.started,
        "seconds": turn.seconds,
    }


def read_turn(record: object, parent: Turn | None) -> Turn:
    """Return the turn that `turn_record` described, behind *parent*.

    Raises:
        RecordError: it is none.
    """
    found = _mapping(record, "a turn")
    status = _get(found, "status", str, "complete")
    if status not in get_args(Status):
        raise RecordError(f"a turn cannot have the status {status!r}")
    return Turn(
        prompt=_get(found, "prompt", str),
        reply=_get(found, "reply", str),
        reasoning=_get(found, "reasoning", str, ""),
        parent=parent,
        number=_get(found, "turn", int, None),
        model=_get(found, "model", str, ""),
        endpoint=_get(found, "endpoint", str, ""),
        settings=_read_settings(found.get("settings")),
        usage=_read_usage(found.get("usage")),
        status=status,
        finish=_get(found, "finish", str, None),
        cells=tuple(_read_cell(cell) for cell in _get(found, "cells", list, [])),
        started=_float(found, "started") or 0.0,
        seconds=_float(found, "seconds") or 0.0,
        sent=_read_sent(found.get("sent")),
        size=_get(found, "size", int, None),
    )


def read_turns(records: Iterable[object]) -> list[Turn]:
    """Return the turns of a tree, numbered from 1 in this order; each parent comes before its children.

    Raises:
        RecordError: they are no tree.
    """
    turns: list[Turn] = []
    for number, record in enumerate(records, 1):
        parent = _get(_mapping(record, "a turn"), "parent", int, None)
        if parent is not None and not 1 <= parent < number:
            raise RecordError(f"turn #{number} cannot come behind turn #{parent}")
        turns.append(replace(read_turn(record, turns[parent - 1] if parent else None), number=number))
    return turns


def state_record(state: State, before: State | None = None) -> Record:
    """Return where a session stands; with *before* only what is not as it was there."""
    whole: Record = {
        "head": state.head.number if state.head else None,
        "own": _settings_record(state.own),
        "line": _settings_record(state.line),
        "since": dict(state.since),
        "pinned": sorted(state.pinned),
        "facts": list(state.facts),
        "cut": asdict(state.cut) if state.cut else None,
    }
    if before is None:
        return whole
    changed = {each.name for each in fields(State) if getattr(state, each.name) != getattr(before, each.name)}
    return {name: value for name, value in whole.items() if name in changed}


def read_state(record: object, turns: Sequence[Turn], before: State | None = None) -> State:
    """Return the state that `state_record` described, of a tree with these *turns*.

    Raises:
        RecordError: it is none, or stands on a turn that is not there.
    """
    found = _mapping(record, "a state")
    changes: Record = {}
    if "head" in found:
        number = _get(found, "head", int, None)
        if number is not None and not 1 <= number <= len(turns):
            raise RecordError(f"there is no turn #{number} to stand on (there are {len(turns):,})")
        changes["head"] = turns[number - 1] if number else None
    for layer in ("own", "line"):
        if layer in found:
            changes[layer] = _read_settings(found[layer])
    if "since" in found:
        changes["since"] = {key: _int(count) for key, count in _mapping(found["since"], "since").items()}
    if "pinned" in found:
        changes["pinned"] = frozenset(map(_int, _get(found, "pinned", list)))
    if "facts" in found:
        changes["facts"] = tuple(map(_text, _get(found, "facts", list)))
    if "cut" in found:
        changes["cut"] = _read_cut(found["cut"])
    return replace(before or State(), **changes)


def act_record(act: Act, before: State | None) -> Record:
    """Return what *act* did; *before* is where the act before it ended."""
    begins = {} if act.before == before else {"before": state_record(act.before)}
    return {"what": act.what, "stamp": act.stamp, **begins, "after": state_record(act.after, act.before)}


def read_act(record: object, turns: Sequence[Turn], before: State) -> Act:
    """Return the act that `act_record` described.

    Raises:
        RecordError: it is none.
    """
    found = _mapping(record, "an act")
    begins = read_state(found["before"], turns) if "before" in found else before
    after = read_state(found.get("after"), turns, begins)
    return Act(_get(found, "what", str), begins, after, _get(found, "stamp", int, 0))


def session_record(session: Session) -> Record:
    """Return all that *session* is, with its turns and its acts."""
    log, before = [*session.done, *session.undone], State()
    acts = []
    for act in log:
        acts.append(act_record(act, before))
        before = act.after
    return {
        "session": session.name,
        "key": session.tree.key,
        "state": state_record(session.state),
        "spent": session.spent.record(),
        "turns": [turn_record(turn) for turn in session.tree.turns],
        "acts": acts,
        "done": len(session.done),
    }


def read_tree(record: object) -> Tree:
    """Return the tree that a record with ``turns`` and their ``key`` describes.

    Raises:
        RecordError: it is none.
    """
    found = _mapping(record, "a tree")
    return Tree.of(read_turns(_get(found, "turns", list)), _get(found, "key", str, ""))


def read_session(record: object, name: str | None = None, tree: Tree | None = None) -> Session:
    """Return a new session (called *name*, by default as it was) that is what `session_record` described.

    It stands in *tree*, if that was read already, as that of another session.

    Raises:
        RecordError: it is none.
    """
    found = _mapping(record, "a session")
    tree = tree or read_tree(found)
    turns = tree.turns
    state = read_state(found.get("state"), turns)
    acts, before = [], State()
    for each in _get(found, "acts", list, []):
        acts.append(read_act(each, turns, before))
        before = acts[-1].after
    done = _get(found, "done", int, len(acts))
    if not 0 <= done <= len(acts):
        raise RecordError(f"{done:,} of {len(acts):,} acts cannot be in force")
    session = Session(_name(found) if name is None else name)
    # What is done from now on comes after all of them.
    session.restore(tree, state, [replace(act, stamp=next_stamp()) for act in acts], done)
    try:
        session.spent = Spent.of(_mapping(found.get("spent") or {}, "what was spent"))
    except (OverflowError, ValueError):
        raise RecordError(f"{_shown(found['spent'])} is not what was spent") from None
    return session


def _name(found: Mapping[str, Any]) -> str:
    try:
        return session_name(_get(found, "session", str))
    except SessionError as exc:
        raise RecordError(str(exc)) from None


def _settings_record(settings: Settings) -> Record:
    values = {key: value for key, value in settings.values.items() if key.lower() not in _NOT_KEPT}
    return {"values": values, "unset": sorted(settings.unset)}


def _read_settings(record: object) -> Settings:
    if record is None:
        return NOTHING
    found = _mapping(record, "settings")
    values = {_text(key): value for key, value in _mapping(found.get("values", {}), "settings").items()}
    return Settings(values, frozenset(map(_text, _get(found, "unset", list, []))))


def _read_usage(record: object) -> Usage:
    if record is None:
        return Usage()
    found = _mapping(record, "usage")
    counts = {each.name: _get(found, each.name, int, None) for each in fields(Usage) if each.name != "cost"}
    return Usage(**counts, cost=_float(found, "cost"))


def _read_cell(record: object) -> Cell:
    if isinstance(record, Mapping):
        record = [record.get("id"), record.get("execution")]
    if isinstance(record, str) or record is None:
        record = [record, None]
    if not (
        isinstance(record, list) and len(record) == 2 and all(each is None or isinstance(each, str) for each in record)
    ):
        raise RecordError(f"{_shown(record)} is no cell")
    return Cell(*record)


def _read_sent(record: object) -> Sent | None:
    if record is None:
        return None
    found = _mapping(record, "what was sent")
    return Sent(
        policy=_get(found, "policy", str, ""),
        system=_get(found, "system", str, None),
        start=_get(found, "start", int, 0),
        pinned=tuple(map(_int, _get(found, "pinned", (list, tuple), ()))),
        tokens=_get(found, "tokens", int, 0),
        facts=tuple(map(_text, _get(found, "facts", (list, tuple), ()))),
        summary=_read_summary(found.get("summary")),
        recalled=tuple(map(_int, _get(found, "recalled", (list, tuple), ()))),
        read=tuple(map(_text, _get(found, "read", (list, tuple), ()))),
    )


def _read_summary(record: object) -> Summary | None:
    if record is None:
        return None
    found = _mapping(record, "a summary")
    return Summary(
        text=_get(found, "text", str),
        through=_get(found, "through", int),
        facts=tuple(map(_text, _get(found, "facts", (list, tuple), ()))),
        model=_get(found, "model", str, ""),
        usage=_read_usage(found.get("usage")),
        requests=_get(found, "requests", int, 0),
    )


def _read_cut(record: object) -> Cut | None:
    if record is None:
        return None
    found = _mapping(record, "a cut")
    summary = _read_summary(found.get("summary"))
    if summary is None:
        raise RecordError("a cut has no summary")
    return Cut(_get(found, "turns", int), summary)


_NO_DEFAULT: Any = object()


def _get(found: Mapping[str, Any], key: str, kind: type | tuple[type, ...], default: Any = _NO_DEFAULT) -> Any:
    """Return what *found* has under *key*, if it is of that *kind*; None stands for the *default*."""
    value = found.get(key)
    if value is None and default is not _NO_DEFAULT:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RecordError(f"{key!r} cannot be {_shown(value)}")
    return value


def _float(found: Mapping[str, Any], key: str) -> float | None:
    value = _get(found, key, (int, float), None)
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise RecordError(f"{key!r} cannot be {_shown(value)}") from None


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecordError(f"{_shown(value)} is not {what}")
    return value


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecordError(f"{_shown(value)} is no whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{_shown(value)} is no text")
    return value


def _shown(value: object) -> str:
    return one_line(repr(value), 60)
