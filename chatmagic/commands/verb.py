"""A verb of ``%chat``: what its line may hold, and what it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.display.context import Preview
from chatmagic.display.page import Look, Page
from chatmagic.line import Form

if TYPE_CHECKING:
    from chatmagic.digest import Job
    from chatmagic.display.digest import Digest
    from chatmagic.journal.writing import Journal
    from chatmagic.provider.taping import Deck

__all__ = ["Answer", "Desk", "Doer", "Verb", "ago", "count_of"]

Answer = str | Page


class Doer(Protocol):
    """What only an edge can do."""

    @property
    def look(self) -> Look:
        """How replies are shown."""

    def models(self, endpoint: str) -> list[str]:
        """Return the models of *endpoint*."""

    def preview(self, session: Session) -> Preview:
        """Return what the next request of *session* holds."""

    def show_panel(self) -> bool:
        """Show the panel; return False where there can be none."""

    @property
    def journaled(self) -> Journal | None:
        """Where every turn is written down."""

    @property
    def notebook(self) -> str:
        """The file whose cells run here."""

    @property
    def facts(self) -> list[str]:
        """What every session is told."""

    def tokens(self, session: Session, text: str) -> float:
        """Return about how many tokens *text* has for the model of *session*."""

    def compact(self, session: Session) -> Sequence[Turn]:
        """Have all turns but the newest summarized; return those new in the summary."""

    def retry(self, session: Session, **how: Any) -> Turn:
        """Ask once more."""

    def go_on(self, session: Session, **how: Any) -> Turn:
        """Let the model go on with a reply."""

    @property
    def secrets(self) -> list[str]:
        """What must reach no file: the keys of all endpoints."""

    @property
    def deck(self) -> Deck:
        """Where a tape may run."""

    @property
    def names(self) -> dict[str, Any]:
        """What the notebook has defined."""

    def to_summarize(self, text: object, *, model: str | None, prompt: str, refine: bool, at_once: int) -> Job:
        """Return what summarizing *text* takes."""

    def summarize(self, text: object, *, display: bool, **how: Any) -> Digest:
        """Sum up *text*."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a verb works on: the kernel's sessions, the settings that lie below theirs, and what only an edge can do.

    *next_cell* puts a text into a new cell below the running one.
    """

    sessions: Sessions
    defaults: Settings
    edge: Doer
    next_cell: Callable[[str], None]

    def session(self, name: str | None) -> Session:
        """Return the session *name*, by default the current one."""
        return self.sessions[name or self.sessions.current]


@dataclass(frozen=True, slots=True)
class Verb:
    """*run* gets the desk and the values that *form* read, and returns what is shown."""

    form: Form
    run: Callable[[Desk, dict[str, Any]], Answer]


def count_of(number: int, thing: str) -> str:
    """Return ``1 turn``, ``2 turns``."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def ago(when: float) -> str:
    """Say how long ago *when* (seconds since the epoch) was."""
    minutes = int(time.time() - when) // 60
    for size, unit in ((24 * 60, "d"), (60, "h"), (1, "min")):
        if minutes >= size:
            return f"{minutes // size} {unit} ago"
    return "just now"
