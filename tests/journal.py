"""A kernel as the journal sees it: sessions, and what writes them down."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.events import Delta
from chatmagic.journal.library import Library
from chatmagic.journal.reading import Stored
from chatmagic.journal.writing import Journal
from chatmagic.testing import SpyRenderer

__all__ = ["World", "all_of", "say"]


def say(session: Session, prompt: str, reply: str = "", options: Settings = NOTHING) -> Turn:
    """Add a turn as the engine does."""
    settings = options.over(session.state.line)
    return session.add(Turn(prompt, reply or prompt.upper(), parent=session.last, settings=settings))


def all_of(session: Session) -> dict[str, Any]:
    """Return everything that a session is, also what `==` of turns does not look at."""

    def turn_of(turn: Turn | None) -> object:
        return turn and (turn, turn.parent and turn.parent.number, turn.sent, turn.size)

    def acts_of(acts: list[Any]) -> object:
        return [(act.what, act.before, turn_of(act.before.head), act.after, turn_of(act.after.head)) for act in acts]

    return {
        "name": session.name,
        "key": session.tree.key,
        "tree": [turn_of(turn) for turn in session.tree.turns],
        "line": [turn.number for turn in session.turns],
        "state": (session.state, turn_of(session.state.head), dict(session.state.since)),
        "done": acts_of(session.done),
        "undone": acts_of(session.undone),
        "spent": session.spent.record(),
    }


class World:
    """The sessions of one kernel, written to *place*; ``library`` reads what is there."""

    def __init__(self, place: object, notebook: str = "/home/ada/book.ipynb", *, patience: float = 10.0) -> None:
        self.sessions = Sessions()
        self.journal = Journal(str(place), self.sessions, notebook, patience=patience)
        self.library = Library(self.journal)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.close()

    def say(self, name: str, *prompts: str) -> Session:
        """Say something in the session *name*."""
        session = self.sessions.find(name)
        for prompt in prompts:
            say(session, prompt)
        return session

    def begin(self, name: str, prompt: str, *pieces: str) -> Any:
        """Begin a reply that is not over."""
        session = self.sessions.find(name)
        taken = self.journal.taking(SpyRenderer(), session, prompt, None)
        taken.start(name, "m")
        for piece in pieces:
            taken.show(Delta(piece))
        return taken

    def stored(self, name: str) -> Stored:
        """Return the one session of that name that is stored, by any kernel."""
        [found] = [each for each in self.library.all() if each.name == name]
        return found

    def back(self, name: str, new: str | None = None) -> Session:
        """Bring a session of another kernel back among those of this one."""
        session, _ = self.library.bring_back(self.stored(name), new or name)
        return self.sessions.adopt(session, "resume")

    def as_stored(self, name: str) -> dict[str, Any]:
        """Return everything that is stored of a session."""
        with World(self.journal.text) as other:
            return all_of(other.library.bring_back(other.stored(name), name)[0])

    def flush(self) -> None:
        self.journal.flush()


def through_json(record: object) -> Any:
    """Return what a file would hold of *record*."""
    return json.loads(json.dumps(record))
