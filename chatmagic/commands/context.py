"""The verbs that say what is sent, and what it costs."""

from __future__ import annotations

from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb
from chatmagic.display.bill import bill
from chatmagic.line import Form, Option

__all__ = ["VERBS"]


def _context(desk: Desk, values: dict[str, Any]) -> Answer:
    name = values["name"]
    preview = desk.edge.preview(desk.session(name) if name else desk.sessions.find(desk.sessions.current))
    return preview.json() if values["json"] else preview.page()


def _usage(desk: Desk, values: dict[str, Any]) -> Answer:
    name = values["name"]
    session = desk.session(name) if name else desk.sessions.find(desk.sessions.current)
    return bill(session, desk.sessions.spent)


VERBS = {
    "context": Verb(
        Form(
            "%chat context",
            "Show what the next request of a session (by default the current one) holds, and what is left out and why.",
            ("[NAME]",),
            (Option(("--json",), "as JSON, with the whole texts"),),
        ),
        _context,
    ),
    "usage": Verb(
        Form(
            "%chat usage",
            "Show what the turns of a session (by default the current one) used and cost, and what broke the cache.",
            ("[NAME]",),
        ),
        _usage,
    ),
}
