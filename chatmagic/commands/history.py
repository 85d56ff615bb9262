"""The verbs that look at what was said, and take it back."""

from __future__ import annotations

from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb, count_of
from chatmagic.conversation.messages import Turn
from chatmagic.display.page import conversation, ending, table, tokens
from chatmagic.errors import LineError
from chatmagic.line import Form
from chatmagic.plain import one_line

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


def _history(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions[values["name"] or desk.sessions.current]
    if not session.turns:
        return f"{session.name!r} is empty."
    rows = [
        [f"#{turn.number}", one_line(turn.prompt, 50), one_line(turn.reply, 50), turn.model, _ending(turn)]
        for turn in session.turns
    ]
    return table(["turn", "prompt", "reply", "model", "tokens"], rows, numbers=())


def _ending(turn: Turn) -> str:
    return ", ".join([tokens(turn.usage), *([ending(turn)] if ending(turn) else [])])


def _undo(desk: Desk, values: dict[str, Any]) -> Answer:
    acts = desk.sessions.undo(_number(values["n"] or "1"))
    return f"Undone: {', '.join(acts)}. {_where(desk)} %chat redo repeats it."


def _redo(desk: Desk, values: dict[str, Any]) -> Answer:
    acts = desk.sessions.redo(_number(values["n"] or "1"))
    return f"Redone: {', '.join(acts)}. {_where(desk)} %chat undo takes it back."


def _where(desk: Desk) -> str:
    session = desk.sessions.find(desk.sessions.current)
    return f"{session.name!r} has {count_of(len(session.turns), 'turn')} now."


def _number(text: str) -> int:
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdecimal() and 0 < int(digits[:10]) < 10**9):
        raise LineError(f"{text!r} is not a number from 1 up")
    return int(digits)


VERBS = {
    "history": Verb(
        Form("%chat history", "List the turns of a session (by default the current one), a line each.", ("[NAME]",)),
        _history,
    ),
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
