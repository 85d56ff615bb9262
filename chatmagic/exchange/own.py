"""Sessions as one JSON document of ours, without loss, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chatmagic.conversation.record import read_session, read_tree, session_record
from chatmagic.conversation.session import Session, State, Tree
from chatmagic.conversation.settings import Settings, checked
from chatmagic.errors import ChatMagicError, RecordError, SessionError
from chatmagic.exchange.conversation import Conversation, mapping_of
from chatmagic.exchange.messages import api_messages
from chatmagic.plain import one_line

__all__ = ["FORMAT", "check_format", "check_settings", "conversations", "document", "without", "written"]

FORMAT = 1
"""The number of the format; a file with a greater one was written by a later chatmagic."""

_NOT_SAVED = ("api_key", "authorization", "extra_headers", "extra_query", "headers")


def document(sessions: Sequence[Session], *, several: bool) -> dict[str, Any]:
    """Return *sessions* as JSON: one, or *several* with the trees that they stand in, each once."""
    if not several:
        return {"chatmagic": FORMAT, **_record(sessions[0])}
    trees = list(dict.fromkeys(session.tree for session in sessions))
    records = [_record(session) for session in sessions]
    grown = {}
    for session, record in zip(sessions, records, strict=True):
        grown[session.tree] = {"key": record.pop("key"), "turns": record.pop("turns")}
        record["tree"] = trees.index(session.tree)
    return {"chatmagic": FORMAT, "sessions": records, "trees": [grown[tree] for tree in trees]}


def _record(session: Session) -> dict[str, Any]:
    record = session_record(session)
    return {"session": record.pop("session"), "messages": api_messages(session), **record}


def written(found: Mapping[str, Any]) -> str:
    """Return the text of a `document`, with a line for each turn. Any text comes back from it, lone surrogates, too."""
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_lines(value)}" for key, value in found.items()) + "\n}\n"


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"


def without(sessions: Sequence[Session], secrets: Iterable[str]) -> list[Session]:
    """Return *sessions* in which no text holds one of *secrets*, and no setting is made to hold one."""
    found = document(sessions, several=True)
    cleaned = _cleaned(found, sorted(filter(None, secrets), key=len, reverse=True))
    return list(sessions) if cleaned == found else [session for _, session in _sessions(cleaned)]


def _cleaned(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "[key]")
        return value
    if isinstance(value, list):
        return [_cleaned(each, secrets) for each in value]
    if isinstance(value, dict):
        saved = ((key, each) for key, each in value.items() if key.lower() not in _NOT_SAVED)
        return {_cleaned(key, secrets): _cleaned(each, secrets) for key, each in saved}
    return value


def conversations(found: Mapping[str, Any]) -> Iterator[Conversation]:
    """Yield the sessions of a `document`; those that share a tree share it again.

    Raises:
        RecordError: it is none, or of a later format.
    """
    check_format(found.get("chatmagic"))
    try:
        for name, session in _sessions(found):
            check_settings(_layers(session))
            yield Conversation(name, session, session.last.started if session.last else 0.0)
    except (SessionError, OverflowError, RecursionError, TypeError, ValueError) as exc:
        raise RecordError(f"it is no session of chatmagic: {exc}") from None


def check_format(number: object) -> None:
    """Refuse what a later chatmagic has written.

    Raises:
        RecordError: *number* is greater than ours, or no number.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise RecordError(f"it has the format {one_line(repr(number)[:200], 20)}, and chatmagic has written none such")
    if number > FORMAT:
        raise RecordError(f"a newer chatmagic has written it (format {number}, this one reads {FORMAT}). Upgrade first")


def _sessions(found: Mapping[str, Any]) -> Iterator[tuple[str, Session]]:
    records = found.get("sessions")
    if records is None:
        session = read_session(found)
        yield session.name, session
        return
    if not isinstance(records, list) or not isinstance(found.get("trees"), list):
        raise RecordError("its sessions and trees are no lists")
    trees: dict[int, Tree] = {}
    for record in records:
        place = mapping_of(record, "session").get("tree")
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(found["trees"]):
            raise RecordError(f"there is no tree {one_line(repr(place)[:200], 20)}")
        if place not in trees:
            trees[place] = read_tree(found["trees"][place])
        session = read_session(record, None, trees[place])
        yield session.name, session


def _layers(session: Session) -> Iterator[Settings]:
    states: list[State] = [session.state]
    for act in (*session.done, *session.undone):
        states += [act.before, act.after]
    for state in states:
        yield from (state.own, state.line)
    yield from (turn.settings for turn in session.tree.turns)


def check_settings(layers: Iterable[Settings]) -> None:
    """Refuse settings that could not have been set here: they would fail, or do harm, at the next prompt.

    Raises:
        RecordError: there is such a one.
    """
    for layer in {id(each.values): each for each in layers}.values():
        try:
            checked(layer.values)
        except ChatMagicError as exc:
            raise RecordError(f"it has a setting that cannot be: {exc}") from None
