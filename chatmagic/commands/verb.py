"""A verb of ``%chat``: what its line may hold, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.display.page import Page
from chatmagic.line import Form

__all__ = ["Answer", "Desk", "Verb", "count_of"]

Answer = str | Page


@dataclass(frozen=True, slots=True)
class Desk:
    """What a verb works on: the kernel's sessions, the settings that lie below theirs, and what only an edge can do.

    *models* lists those of an endpoint; *panel* shows the panel and returns True where there can be one.
    """

    sessions: Sessions
    defaults: Settings
    models: Callable[[str], list[str]]
    panel: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Verb:
    """*run* gets the desk and the values that *form* read, and returns what is shown."""

    form: Form
    run: Callable[[Desk, dict[str, Any]], Answer]


def count_of(number: int, thing: str) -> str:
    """Return ``1 turn``, ``2 turns``."""
    return f"{number} {thing}" + ("" if number == 1 else "s")
