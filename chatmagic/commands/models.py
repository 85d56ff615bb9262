"""The verb that asks a server for its models."""

from __future__ import annotations

from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb
from chatmagic.display.page import table
from chatmagic.line import Form

__all__ = ["VERBS"]


def _models(desk: Desk, values: dict[str, Any]) -> Answer:
    name = values["endpoint"] or "openai"
    models = desk.edge.models(name)
    before = "" if name == "openai" else f"{name}:"
    if not models:
        return f"{name} has no models."
    return table(["model"], [[before + model] for model in models], note=f"-m {before}MODEL asks one of them")


VERBS = {
    "models": Verb(
        Form("%chat models", "List the models of a server (by default openai's), as it lists them.", ("[ENDPOINT]",)),
        _models,
    ),
}
