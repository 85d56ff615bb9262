"""What is found in a file: conversations, each with its title, and how a title becomes the name of a session."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass

from chatmagic.conversation.session import Session, session_name
from chatmagic.errors import RecordError, SessionError
from chatmagic.plain import one_line

__all__ = ["Conversation", "free_name", "list_of", "mapping_of", "seconds", "slug", "text_of"]

LATEST = 1e11  # seconds since the epoch: what is later is no date


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of a file, as a *session* whose name is still to be chosen.

    Without a session it cannot be read, and *problem* says why. *notes* say what was left out.
    """

    title: str
    session: Session | None = None
    started: float = 0.0
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def turns(self) -> int:
        """How many turns its line has."""
        return len(self.session.turns) if self.session else 0


def slug(title: str) -> str:
    """Return the name of a session that is like *title*, or *title* itself where it can be one."""
    with suppress(SessionError):
        return session_name(title[:500])
    words = "".join(
        sign if sign.isalnum() or sign in "_." or unicodedata.category(sign)[0] == "M" else " "
        for sign in unicodedata.normalize("NFC", title[:500])
    ).split()
    name = "-".join(words).strip("-_.")
    name = (name if name[:1].isalpha() else f"chat-{name}")[:56].rstrip("-_.")
    try:
        return session_name(name)
    except SessionError:
        return "chat"


def free_name(title: str, taken: Container[str]) -> str:
    """Return *title* as the name of a session, with a number behind it if it is *taken*."""
    name = session = slug(title)
    number = 2
    while session in taken:
        session, number = f"{name[:56]}-{number}", number + 1
    return session


def mapping_of(value: object, what: str) -> dict[str, object]:
    """Return *value* if it is an object of JSON.

    Raises:
        RecordError: it is none.
    """
    if not isinstance(value, dict):
        raise RecordError(f"{one_line(repr(value)[:200], 40)} is no {what}")
    return value


def list_of(value: object) -> list[object]:
    """Return *value* if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Return *value* if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def seconds(value: object) -> float:
    """Return *value* if it can be seconds since the epoch, else 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < LATEST:
        return 0.0
    return float(value) if math.isfinite(value) else 0.0
