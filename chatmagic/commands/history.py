"""The verbs that look at what was said, and take it back."""

from __future__ import annotations

from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb, count_of
from chatmagic.conversation.session import Act, Session
from chatmagic.display.page import conversation
from chatmagic.errors import LineError
from chatmagic.line import Form

__all__ = ["VERBS"]


def _show(desk: Desk, values: dict[str, Any]) -> Answer:
    name, number = values["name"], values["n"]
    if number is None and name is not None and name.lstrip("#").isdecimal():
        name, number = None, name
    session = desk.sessions[name or desk.sessions.current]
    if number is not None:
        return conversation(session.name, None, [session.tree[_number(number)]])
    if not session.turns:
        return f"{session.name!r} is empty."
    return conversation(session.name, session.settings.system, session.turns)


def _undo(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions[desk.sessions.current]
    acts = session.undo(_number(values["n"] or "1"))
    return f"Undone: {_listed(acts)}. {_where(session)} %chat redo repeats it."


def _redo(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions[desk.sessions.current]
    acts = session.redo(_number(values["n"] or "1"))
    return f"Redone: {_listed(acts)}. {_where(session)} %chat undo takes it back."


def _listed(acts: list[Act]) -> str:
    return ", ".join(act.what for act in acts)


def _where(session: Session) -> str:
    return f"{session.name!r} has {count_of(len(session.turns), 'turn')} now."


def _number(text: str) -> int:
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise LineError(f"{text!r} is not a number")
    return int(digits)


VERBS = {
    "show": Verb(
        Form(
            "%chat show",
            "Show what was said in a session (by default the current one), or its turn number N.",
            ("[NAME]", "[N]"),
        ),
        _show,
    ),
    "undo": Verb(
        Form("%chat undo", "Reverse the last act of the current session, or its last N acts.", ("[N]",)), _undo
    ),
    "redo": Verb(Form("%chat redo", "Repeat what was undone last, or the last N acts.", ("[N]",)), _redo),
}
