"""Sessions as Markdown that is read by people, and back to the same prompts and replies.

Each text stands behind a comment that says how many characters it has, so that it may hold anything. Where that is not
true any more, because somebody has edited it, it goes on to the next such comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.record import read_state, read_turn, state_record, turn_record
from chatmagic.conversation.session import Session, session_name
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import RecordError, SessionError
from chatmagic.exchange.branches import stood
from chatmagic.exchange.conversation import Conversation, mapping_of
from chatmagic.exchange.own import FORMAT, check_format, check_settings
from chatmagic.exchange.stream import loaded
from chatmagic.plain import one_line

__all__ = ["conversations", "valid_name", "written"]

_MARK = re.compile(
    r"^<!-- chatmagic (session|system|prompt|reasoning|reply|end) (\d{1,12})(?: (\{.*\}))? -->\r?\n?", re.M
)
_NEXT = re.compile(r"\r?\n\r?\n(?=(?:#{1,2} |\*\*).*\r?\n\r?\n<!-- chatmagic |<!-- chatmagic )|\r?\n?\Z")
_BEHIND = re.compile(r"\n\n(?=#{1,2} |\*\*|<!-- chatmagic )|\n*\Z")
_APART = ("prompt", "reply", "reasoning", "settings", "parent", "turn", "cells", "sent", "size")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A text, what it is, and what else is known about it."""

    what: str
    number: int
    text: str
    about: Mapping[str, Any]


def written(sessions: Sequence[Session]) -> str:
    """Return *sessions*, one below the other."""
    return "\n\n".join([*map(_session, sessions), _mark("end", len(sessions))]) + "\n"


def _session(session: Session) -> str:
    state = state_record(session.state)
    about = {name: state[name] for name in ("own", "line", "facts")}
    system = session.settings.system
    parts = [f"# {session.name}"]
    if system is not None:
        holder = "line" if "system" in session.state.line.values else "own"
        about["system"] = holder
        about[holder] = {**about[holder], "values": _without_system(about[holder]["values"])}
    parts.append(_mark("session", FORMAT, {"name": session.name, **about}))
    if system is not None:
        parts += ["**System prompt**", _marked("system", system)]
    before = NOTHING
    for turn in session.turns:
        parts += _turn(turn, before)
        before = turn.settings
    return "\n\n".join(parts)


def _without_system(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "system"}


def _turn(turn: Turn, before: Settings) -> Iterator[str]:
    record = {key: value for key, value in turn_record(turn).items() if key not in _APART}
    delta = turn.settings.beyond(before)
    record["settings"] = {"values": dict(delta.values), "unset": sorted(delta.unset)}
    yield f"## #{turn.number}"
    yield _marked("prompt", turn.prompt)
    if turn.reasoning:
        yield "**Reasoning**"
        yield _marked("reasoning", turn.reasoning)
    yield f"**{re.sub(r'[^A-Za-z0-9_.:/ -]', '', one_line(turn.model, 80)).strip() or 'Reply'}**"
    yield _marked("reply", turn.reply, record)


def _marked(what: str, text: str, about: Mapping[str, Any] | None = None) -> str:
    return f"{_mark(what, len(text), about)}\n{text}"


def _mark(what: str, number: int, about: Mapping[str, Any] | None = None) -> str:
    # What could end a comment is spelled as JSON allows.
    more = " " + json.dumps(about).replace("<", "\\u003c").replace(">", "\\u003e") if about else ""
    return f"<!-- chatmagic {what} {number}{more} -->"


def conversations(text: str) -> Iterator[Conversation]:
    """Yield the sessions in *text*.

    Raises:
        RecordError: it holds none, or one that cannot be read.
    """
    pieces: list[_Piece] = []
    is_whole = False
    for piece in _pieces(text):
        if piece.what == "end":
            is_whole = True
            continue
        if piece.what == "session" and pieces:
            yield _conversation(pieces)
            pieces = []
        pieces.append(piece)
    if not pieces:
        raise RecordError("it holds no conversation: only Markdown that %chat export has written can be read")
    last = _conversation(pieces)
    if not is_whole:
        raise RecordError("its end is missing (<!-- chatmagic end … -->): it was cut off")
    yield last


def _pieces(text: str) -> Iterator[_Piece]:
    at = 0
    while match := _MARK.search(text, at):
        what, number = match[1], int(match[2])
        about = mapping_of(loaded(match[3]), "description") if match[3] else {}
        at = match.end()
        if what in ("session", "end"):
            yield _Piece(what, number, "", about)
            continue
        end = at + number
        if end > len(text) or not _BEHIND.match(text, end):
            end = next(iter(found.start() for found in _NEXT.finditer(text, at)), len(text))
        yield _Piece(what, number, text[at:end], about)
        at = end


def _conversation(pieces: Sequence[_Piece]) -> Conversation:
    first = pieces[0]
    if first.what != "session":
        raise RecordError("a comment of chatmagic is missing at its beginning (<!-- chatmagic session …)")
    check_format(first.number)
    state = read_state({name: first.about.get(name, {}) for name in ("own", "line")}, [])
    facts = read_state({"facts": first.about.get("facts", [])}, []).facts
    turns: list[Turn] = []
    system = prompt = None
    reasoning = ""
    for piece in pieces[1:]:
        match piece.what:
            case "system":
                system = piece.text
            case "prompt":
                prompt, reasoning = piece.text, ""
            case "reasoning":
                reasoning = piece.text
            case _ if prompt is not None:
                turns.append(_read_turn(piece, prompt, reasoning, turns))
                prompt = None
    own, line = state.own, state.line
    if system is not None and first.about.get("system") == "line":
        line = Settings({**line.values, "system": system}, line.unset - {"system"})
    elif system is not None:
        own = Settings({**own.values, "system": system}, own.unset - {"system"})
    check_settings([own, line, *(turn.settings for turn in turns)])
    session = stood(turns, turns[-1] if turns else None, own, line=line, facts=facts)
    return Conversation(valid_name(first.about.get("name")), session, turns[-1].started if turns else 0.0)


def _read_turn(piece: _Piece, prompt: str, reasoning: str, turns: Sequence[Turn]) -> Turn:
    texts = {"prompt": prompt, "reply": piece.text, "reasoning": reasoning, "turn": len(turns) + 1}
    try:
        turn = read_turn({**piece.about, **texts}, turns[-1] if turns else None)
    except (OverflowError, TypeError, ValueError) as exc:
        raise RecordError(f"turn {len(turns) + 1} cannot be read: {exc}") from None
    return replace(turn, settings=turn.settings.over(turns[-1].settings)) if turns else turn


def valid_name(name: object) -> str:
    """Return *name* if a session can be called so, else a name that says nothing."""
    try:
        return session_name(name) if isinstance(name, str) else "chat"
    except SessionError:
        return "chat"
