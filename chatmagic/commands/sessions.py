"""The verbs that choose, start and empty sessions."""

from __future__ import annotations

from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb, count_of
from chatmagic.conversation.session import Session
from chatmagic.display.page import table
from chatmagic.line import SETTINGS, Form, settings

__all__ = ["VERBS"]


def _sessions(desk: Desk, _: dict[str, Any]) -> Answer:
    if not len(desk.sessions):
        return "There is no session yet. Start one: %%chat NAME on the first line of a cell, the prompt below it."
    rows = [_row(desk, session) for session in desk.sessions]
    header = ["session", "turns", "model", "tokens in", "tokens out"]
    return table(header, rows, note="* is the current session, which %%chat without a name continues")


def _row(desk: Desk, session: Session) -> list[str]:
    usage = session.usage
    name = session.name + (" *" if session.name == desk.sessions.current else "")
    model = session.settings.over(desk.defaults).model or "?"
    counts = ["unknown" if count is None else f"{count:,}" for count in (usage.input_tokens, usage.output_tokens)]
    return [name, str(len(session.turns)), model, *counts]


def _use(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions.use(values["name"])
    return f"The current session is {session.name!r} ({count_of(len(session.turns), 'turn')})."


def _new(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions.new(values["name"], settings(values))
    return f"The current session is {session.name!r}, new and empty."


def _clear(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions[values["name"] or desk.sessions.current]
    asked = session.state.line
    count = session.clear()
    also = ", and what its cells had set" if asked else ""
    back = "%chat undo" if session.name == desk.sessions.current else f"%chat use {session.name}, then %chat undo,"
    return f"{session.name!r} is empty now; {count_of(count, 'turn')} set aside{also}. {back} brings everything back."


VERBS = {
    "sessions": Verb(Form("%chat sessions", "List the sessions of this kernel."), _sessions),
    "use": Verb(Form("%chat use", "Make a session the current one.", ("NAME",)), _use),
    "new": Verb(
        Form(
            "%chat new",
            "Start an empty session with its own settings, and make it the current one.",
            ("NAME",),
            SETTINGS,
        ),
        _new,
    ),
    "clear": Verb(
        Form(
            "%chat clear",
            "Empty a session (by default the current one). Its turns are set aside, and %chat undo brings them back.",
            ("[NAME]",),
        ),
        _clear,
    ),
}
