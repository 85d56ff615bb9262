"""The verb that reads and changes what a session asks for."""

from __future__ import annotations

import json
from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb
from chatmagic.display.page import table
from chatmagic.line import Form, assignments

__all__ = ["VERBS"]


def _set(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions.find(desk.sessions.current)
    if not values["key=value"]:
        in_force = session.settings.over(desk.defaults).values
        return table(["setting", "value"], [[key, _shown(value)] for key, value in sorted(in_force.items())])
    changes = assignments(values["key=value"])
    session.set(changes)
    desk.sessions.keep(session)
    told = [
        f"{key}={_shown(changes.values[key])}" if key in changes.values else f"{key} unset"
        for key in sorted(changes.keys)
    ]
    return f"{session.name!r}: {', '.join(told)}. %chat undo takes it back."


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


VERBS = {
    "set": Verb(
        Form(
            "%chat set",
            "Change settings of the current session: model, system, any request parameter. KEY= unsets; alone: list.",
            ("[KEY=VALUE …]",),
        ),
        _set,
    ),
}
