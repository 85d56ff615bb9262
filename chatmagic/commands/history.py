"""The verbs that look at what was said, and take it back."""

from __future__ import annotations

from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb, count_of
from chatmagic.conversation.settings import checked
from chatmagic.display.page import conversation
from chatmagic.display.tree import history
from chatmagic.line import SETTINGS, Form, edited, turn_number

__all__ = ["VERBS"]


def _show(desk: Desk, values: dict[str, Any]) -> Answer:
    name, number = values["name"], values["n"]
    if number is None and name is not None and name.lstrip("#").isdecimal():
        name, number = None, name
    session = desk.session(name)
    if number is not None:
        turn = session.tree[turn_number(number)]
        return conversation(session.name, None, [turn], aside=turn not in session, look=desk.edge.look)
    if not session.turns:
        return f"{session.name!r} is empty."
    return conversation(session.name, session.settings.system, session.turns, look=desk.edge.look)


def _history(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.session(values["name"])
    return history(session, desk.sessions) if session.tree.turns else f"{session.name!r} is empty."


def _retry(desk: Desk, values: dict[str, Any]) -> Answer:
    model = {} if values["model"] is None else {"model": values["model"]}
    desk.edge.retry(desk.session(None), typed=True, options=checked(model))
    return ""


def _continue(desk: Desk, _: dict[str, Any]) -> Answer:
    desk.edge.go_on(desk.session(None), typed=True)
    return ""


def _edit(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.session(None)
    turn = session.tree[turn_number(values["n"])]
    cell, missing = edited(session.name, turn, session.asked_in(turn))
    session.edited = turn
    desk.next_cell(cell)
    return f"The prompt of turn #{turn.number} is in the next cell. Nothing has changed until it runs.{missing}"


def _pin(desk: Desk, values: dict[str, Any]) -> Answer:
    number = turn_number(values["n"])
    with desk.sessions.idle(desk.sessions.current) as session:
        now = session.standing_for(number).number
        which = f"Turn #{now}" if now == number else f"Turn #{now}, in the place of #{number},"
        if not session.pin(number):
            return f"{which} of {session.name!r} is pinned already; nothing has changed."
    return f"{which} of {session.name!r} stays in what is sent if not everything can be. %chat undo takes it back."


def _unpin(desk: Desk, values: dict[str, Any]) -> Answer:
    number = turn_number(values["n"])
    with desk.sessions.idle(desk.sessions.current) as session:
        if not session.unpin(number):
            return f"Turn #{number} of {session.name!r} is not pinned; nothing has changed."
    return f"Turn #{number} of {session.name!r} is not pinned any more. %chat undo takes it back."


def _undo(desk: Desk, values: dict[str, Any]) -> Answer:
    acts = desk.sessions.undo(turn_number(values["n"] or "1"))
    back = "redo repeats it" if len(acts) == 1 else f"redo {len(acts)} repeats them"
    return f"Undone: {', '.join(acts)}. {_where(desk)} %chat {back}."


def _redo(desk: Desk, values: dict[str, Any]) -> Answer:
    acts = desk.sessions.redo(turn_number(values["n"] or "1"))
    back = "undo takes it back" if len(acts) == 1 else f"undo {len(acts)} takes them back"
    return f"Redone: {', '.join(acts)}. {_where(desk)} %chat {back}."


def _where(desk: Desk) -> str:
    session = desk.sessions.find(desk.sessions.current)
    return f"{session.name!r} has {count_of(len(session.turns), 'turn')} now."


VERBS = {
    "history": Verb(
        Form(
            "%chat history",
            "List all turns of a session (by default the current one), also those set aside.",
            ("[NAME]",),
        ),
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
    "retry": Verb(
        Form(
            "%chat retry", "Ask the newest prompt once more; the other reply stays in %chat history.", (), SETTINGS[:1]
        ),
        _retry,
    ),
    "continue": Verb(
        Form("%chat continue", "Let the model go on with its newest reply, and join the two."),
        _continue,
    ),
    "edit": Verb(
        Form("%chat edit", "Put the prompt of turn N into the next cell, to ask it differently.", ("N",)), _edit
    ),
    "pin": Verb(Form("%chat pin", "Send turn N of the current session even when not everything can be.", ("N",)), _pin),
    "unpin": Verb(Form("%chat unpin", "Take back that turn N is pinned.", ("N",)), _unpin),
}
