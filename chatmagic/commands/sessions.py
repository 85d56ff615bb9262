"""The verbs that choose, start and empty sessions."""

from __future__ import annotations

from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb, ago, count_of
from chatmagic.conversation.session import Session, parting
from chatmagic.display.page import table
from chatmagic.display.usage import Sums, total
from chatmagic.line import SETTINGS, Form, Option, settings, turn_number

__all__ = ["VERBS"]


def _sessions(desk: Desk, _: dict[str, Any], *, ages: bool = False) -> Answer:
    if not len(desk.sessions):
        return "There is no session yet. Start one: %%chat NAME on the first line of a cell, the prompt below it."
    rows = [
        _row(desk, session) + [ago(session.last.started) if session.last else ""] * ages for session in desk.sessions
    ]
    header = ["session", "turns", "model", "tokens in", "cached", "tokens out", "cost", *["asked"] * ages]
    note = "* is the current session, which %%chat without a name continues"
    return table(header, rows, numbers={1, 3, 4, 5, 6}, note=note)


def _panel(desk: Desk, values: dict[str, Any]) -> Answer:
    return "" if desk.edge.show_panel() else _sessions(desk, values, ages=True)


def _row(desk: Desk, session: Session) -> list[str]:
    marks = [" *"] * (session.name == desk.sessions.current) + [" (temporary)"] * session.temporary
    name = "".join([session.name, *marks])
    model = session.settings.over(desk.defaults).model or "?"
    used = Sums().upto(session.last)
    return [name, str(used.turns), model, *(total(used) if used.turns else [""] * 4)]


def _use(desk: Desk, values: dict[str, Any]) -> Answer:
    before = desk.sessions.current
    moved = "" if values["at"] is None else _go(desk, values["name"], turn_number(values["at"], least=0))
    session = desk.sessions.use(values["name"])
    return (
        f"The current session is {session.name!r} ({count_of(len(session.turns), 'turn')}).{_to(desk, before)}{moved}"
    )


def _to(desk: Desk, before: str) -> str:
    """Say how to get back to the session that was the current one."""
    return f" %chat use {before} goes back." if before in desk.sessions and before != desk.sessions.current else ""


def _go(desk: Desk, name: str, number: int) -> str:
    with desk.sessions.idle(name) as session:
        left, _ = parting(session.last, session.turn(number))
        if not session.go(number):
            return ""
    aside = f"; {count_of(len(left), 'turn')} set aside" if left else ""
    return f" It stands at {f'turn #{number}' if number else 'the beginning'} now{aside}. %chat undo takes that back."


def _new(desk: Desk, values: dict[str, Any]) -> Answer:
    before = desk.sessions.current
    session = desk.sessions.new(values["name"], settings(values), temporary=bool(values["temporary"]))
    kept = " Nothing of it is written to the disk." if session.temporary else ""
    return f"The current session is {session.name!r}, new and empty.{kept}{_to(desk, before)}"


def _fork(desk: Desk, values: dict[str, Any]) -> Answer:
    origin = desk.sessions.current
    session = desk.sessions.fork(values["name"], None if values["at"] is None else turn_number(values["at"], least=0))
    count = count_of(len(session.turns), "turn")
    return f"The current session is {session.name!r}; it shares {count} with {origin!r}. %chat undo takes it back."


def _rename(desk: Desk, values: dict[str, Any]) -> Answer:
    desk.sessions.rename(values["old"], values["new"])
    return f"{values['old']!r} is {values['new']!r} now. {_back(desk, values['new'])} takes it back."


def _delete(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions.delete(values["name"])
    return f"{session.name!r} is deleted ({count_of(len(session.turns), 'turn')}). %chat undo brings it back."


def _back(desk: Desk, name: str) -> str:
    """Say how an act on the session *name* is taken back."""
    return "%chat undo" if name == desk.sessions.current else f"%chat use {name}, then %chat undo,"


def _clear(desk: Desk, values: dict[str, Any]) -> Answer:
    with desk.sessions.idle(values["name"] or desk.sessions.current) as session:
        also = ", and what its cells had set" if session.state.line else ""
        gone = f"{count_of(session.clear(), 'turn')} set aside{also}"
    return f"{session.name!r} is empty now; {gone}. {_back(desk, session.name)} brings everything back."


AT = Option(("--at",), "stand on turn N (0: before the first one)", "N")

VERBS = {
    "panel": Verb(
        Form(
            "%chat panel",
            "Show the panel: choose, start and change sessions, see what they use, and chat. %chat alone does it, too.",
        ),
        _panel,
    ),
    "sessions": Verb(Form("%chat sessions", "List the sessions of this kernel."), _sessions),
    "use": Verb(
        Form(
            "%chat use",
            "Make a session the current one; with --at let it go on behind turn N (see %chat history).",
            ("NAME",),
            (AT,),
        ),
        _use,
    ),
    "new": Verb(
        Form(
            "%chat new",
            "Start an empty session with its own settings, and make it the current one.",
            ("NAME",),
            (*SETTINGS, Option(("--temporary",), "write nothing of it to the disk")),
        ),
        _new,
    ),
    "rename": Verb(Form("%chat rename", "Give a session another name.", ("OLD", "NEW")), _rename),
    "fork": Verb(
        Form(
            "%chat fork",
            "Give the turns of the current session a second name, go on there, and leave the first one as it is.",
            ("NAME",),
            (AT,),
        ),
        _fork,
    ),
    "delete": Verb(Form("%chat delete", "Delete a session; %chat undo brings it back.", ("NAME",)), _delete),
    "clear": Verb(
        Form(
            "%chat clear",
            "Empty a session (by default the current one). Its turns are set aside, and %chat undo brings them back.",
            ("[NAME]",),
        ),
        _clear,
    ),
}
