"""What a click does to sessions, and the line that says so."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import checked
from chatmagic.display.usage import turns
from chatmagic.errors import SessionError
from chatmagic.line import edited
from chatmagic.plain import one_line

__all__ = ["Clicks"]


class Clicks:
    """Acts on *sessions*. A click says *of* which one it is: it may have waited until another one is the current one.

    Each returns what is to be said, and raises `ChatMagicError` where nothing has changed.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def use(self, of: str) -> str:
        """Make a session the current one."""
        return f"The current session is {self._sessions.use(of).name!r}: the next %%chat goes there."

    def new(self, name: str) -> str:
        """Start an empty session."""
        session = self._sessions.new(name.strip())
        return f"The current session is {session.name!r}, new and empty. Delete takes it back."

    def fork(self, of: str, name: str) -> str:
        """Give the turns of a session a second name."""
        session = self._sessions.fork(name.strip(), origin=of)
        shared = f"it shares {turns(len(session.turns))} with {of!r}"
        return f"The current session is {session.name!r}; {shared}. Undo takes it back."

    def rename(self, of: str, name: str) -> str:
        """Give a session another name."""
        session = self._sessions.rename(of, name.strip())
        return f"{of!r} is {session.name!r} now. {self._back(session)} takes it back."

    def clear(self, of: str) -> str:
        """Set the turns of a session aside."""
        with self._sessions.idle(of) as session:
            asked = ", and what its cells had set" if session.state.line else ""
            gone = f"{turns(session.clear())} set aside{asked}"
        return f"{session.name!r} is empty now: {gone}. {self._back(session)} brings it back."

    def delete(self, of: str) -> str:
        """Delete a session; another one is the current one then."""
        session = self._sessions[of]
        if of == self._sessions.current:
            others = [each for each in self._sessions if each is not session]
            if not others:
                raise SessionError(f"{of!r} is the only session: Clear empties it, New starts another one")
            with self._sessions.idle(of):
                self._sessions.use(max(others, key=_last_asked).name)
        self._sessions.delete(of)
        gone = f"{of!r} is deleted ({turns(len(session.turns))})"
        return f"{gone}; the current session is {self._sessions.current!r}. Undo brings it back."

    def undo(self, of: str, what: str) -> str:
        """Reverse the act *what* of the current session."""
        self._expect(of, what, self._sessions.undoable, "undone")
        return f"Undone: {', '.join(self._sessions.undo(1, of))}. Redo repeats it."

    def redo(self, of: str, what: str) -> str:
        """Repeat the act *what*."""
        self._expect(of, what, self._sessions.redoable, "redone")
        return f"Redone: {', '.join(self._sessions.redo(1, of))}. Undo takes it back."

    def _expect(self, of: str, what: str, is_now: str | None, done: str) -> None:
        """Refuse an act that was clicked while a cell ran, and would do something else now than it said."""
        if of != self._sessions.current or what != is_now:
            raise SessionError(f"nothing was {done}: something else has been done since you clicked")

    def set(self, of: str, **values: str) -> str:
        """Change settings of a session; an empty text unsets one."""
        session = self._sessions.find(of)
        changed = checked(values)
        with self._sessions.idle(of) if of in self._sessions else nullcontext():
            if not session.set(changed):
                return f"{of!r} has it so already; nothing has changed."
        told = [
            f"{key} is {one_line(values[key], 60)!r}" if values[key] else f"{key} is unset" for key in sorted(values)
        ]
        return f"{of!r}: {', '.join(told)} from the next turn on. {self._back(session)} takes it back."

    def pin(self, of: str, n: int, value: bool) -> str:
        """Pin turn #*n*, or take that back."""
        with self._sessions.idle(of) as session:
            n = session.standing_for(n).number or n
            if not (session.pin if value else session.unpin)(n):
                return f"Turn #{n} is {'' if value else 'not '}pinned already; nothing has changed."
        now = "is sent even when not everything can be" if value else "is not pinned any more"
        return f"Turn #{n} {now}. {self._back(session)} takes it back."

    def _back(self, session: Session) -> str:
        """Say how an act in *session* is taken back."""
        return "Undo" if session.name == self._sessions.current else f"Undo in {session.name!r}"

    def cell(self, of: str, n: int) -> dict[str, Any]:
        """Give the front end a cell that asks the prompt of turn #*n* in its place."""
        session = self._sessions[of]
        turn = session.tree[n]
        cell, missing = edited(session.name, turn, session.asked_in(turn))
        session.edited = turn
        return {"cell": cell, "note": f"Nothing changes until the cell with the prompt of turn #{n} runs.{missing}"}


def _last_asked(session: Session) -> float:
    return session.last.started if session.last else 0.0
