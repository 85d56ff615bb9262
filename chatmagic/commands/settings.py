"""The verb that reads and changes what a session asks for."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb
from chatmagic.display.page import table
from chatmagic.line import Form, assignments

__all__ = ["VERBS"]


def _set(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions.find(desk.sessions.current)
    if not values["key=value"]:
        own = session.settings.values
        in_force = sorted({**desk.defaults.values, **own}.items())
        rows = [[key, _shown(value), "" if key in own else "by default"] for key, value in in_force]
        return table(["setting", "value", ""], rows)
    changes = assignments(values["key=value"])
    with desk.sessions.idle(session.name) if session.name in desk.sessions else nullcontext():
        if not session.set(changes):
            return f"{session.name!r} has it so already; nothing has changed."
    told = [
        f"{key}={_shown(changes.values[key])}" if key in changes.values else f"{key} unset"
        for key in sorted(changes.keys)
    ]
    return f"{session.name!r}: {', '.join(told).rstrip('.')}. %chat undo takes it back."


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


VERBS = {
    "set": Verb(
        Form(
            "%chat set",
            "Change settings of the current session: model, system, context, recall, learn, summary_model, max_cost "
            "(USD), any request parameter. KEY= unsets; alone: list.",
            ("[KEY=VALUE …]",),
        ),
        _set,
    ),
}
