"""A session: a name that points into a tree of turns, and a log of the acts that moved it."""

from __future__ import annotations

import itertools
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add

from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import SessionError

__all__ = ["Act", "Session", "State", "Tree", "acts_to", "next_stamp", "session_name"]

next_stamp = itertools.count().__next__
"""The order of acts, over all sessions."""


def session_name(text: str) -> str:
    """Return *text* in normal form (NFC) if it can name a session.

    Raises:
        SessionError: it does not begin with a letter, holds something other than letters, digits and ``_ . -``, or is
            longer than 64 characters.
    """
    name = unicodedata.normalize("NFC", text)
    if not name[:1].isalpha() or not all(_may_stand_in_name(character) for character in name):
        raise SessionError(f"{text!r} cannot name a session: a letter first, then letters, digits, '_', '.' and '-'")
    if len(name) > 64:
        raise SessionError(f"{text[:20] + '…'!r} cannot name a session: {len(name)} characters, at most 64 are allowed")
    return name


def _may_stand_in_name(character: str) -> bool:
    # Marks (category M) are parts of letters in many scripts.
    return character.isalnum() or character in "_.-" or unicodedata.category(character)[0] == "M"


class Tree:
    """Every turn that was ever stored, by number: turn #N is ``turns[N - 1]``."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._growing = threading.Lock()  # forks share a tree

    def grow(self, turn: Turn) -> Turn:
        """Store *turn* under the next number."""
        with self._growing:
            numbered = replace(turn, number=len(self.turns) + 1)
            self.turns.append(numbered)
        return numbered

    def __getitem__(self, number: int) -> Turn:
        if not 1 <= number <= len(self.turns):
            known = f"#1 to #{len(self.turns)}" if self.turns else "none yet"
            raise SessionError(f"no turn #{number} (known: {known})")
        return self.turns[number - 1]


@dataclass(frozen=True, slots=True)
class State:
    """Where a session stands: its newest turn, its own settings, and what the cells of the line have asked for."""

    head: Turn | None = None
    own: Settings = NOTHING
    line: Settings = NOTHING


@dataclass(frozen=True, slots=True)
class Act:
    """Something that moved a session, in a word or two, and where it stood before and after."""

    what: str
    before: State
    after: State
    stamp: int = field(default_factory=next_stamp, compare=False)


class Session:
    """A named conversation of this kernel. ``on_change`` is called after every act, undo and redo."""

    def __init__(self, name: str, own: Settings = NOTHING) -> None:
        self.name = session_name(name)
        self.on_change: Callable[[], None] = lambda: None
        self.lock = threading.RLock()
        """Held while a prompt is answered: a session answers one at a time."""
        self.tree = Tree()
        self.state = State(own=Settings(own.values))
        self._log: list[Act] = []
        self._done = 0  # acts of the log that are in force; those behind it were undone

    @property
    def turns(self) -> list[Turn]:
        """The line: the turns from the root to the head, oldest first."""
        line = []
        turn = self.state.head
        while turn is not None:
            line.append(turn)
            turn = turn.parent
        line.reverse()
        return line

    @property
    def last(self) -> Turn | None:
        """The newest turn of the line."""
        return self.state.head

    @property
    def settings(self) -> Settings:
        """What is in force for the next turn: the line's settings over the session's own."""
        return self.state.line.over(self.state.own)

    @property
    def messages(self) -> list[Message]:
        """The history: the system prompt and all messages of the line."""
        system = self.settings.system
        said = [message for turn in self.turns for message in turn.messages]
        return [Message("system", system), *said] if system else said

    @property
    def usage(self) -> Usage:
        """What the turns of the line used together; a count that is unknown for one turn is unknown for all."""
        return reduce(add, (turn.usage for turn in self.turns), Usage(0, 0, 0, 0))

    def add(self, turn: Turn) -> Turn:
        """Store *turn* behind its parent and stand on it."""
        stored = self.tree.grow(turn)
        self._act(f"turn #{stored.number}", replace(self.state, head=stored, line=stored.settings))
        return stored

    def clear(self) -> int:
        """Stand before the first turn, with the session's own settings; return how many turns were set aside."""
        count = len(self.turns)
        if not count and not self.state.line:
            raise SessionError(f"session {self.name!r} is already empty")
        self._act("clear", replace(self.state, head=None, line=NOTHING))
        return count

    def set(self, changes: Settings) -> bool:
        """Change the session's own settings, also where cells of the line had asked for something; False: no change."""
        own = Settings(changes.over(self.state.own).values)
        after = replace(self.state, own=own, line=self.state.line.without(changes.keys))
        if after == self.state:
            return False
        self._act("set " + " ".join(sorted(changes.keys)), after)
        return True

    @property
    def done(self) -> list[Act]:
        """The acts that can be undone, oldest first."""
        return self._log[: self._done]

    @property
    def undone(self) -> list[Act]:
        """The acts that can be redone, oldest first."""
        return self._log[self._done :]

    def undo(self, count: int = 1) -> list[Act]:
        """Reverse the last *count* acts, newest first."""
        if not 1 <= count <= self._done:
            raise SessionError(f"cannot undo {count} in session {self.name!r}: {acts_to('undo', self._done)}")
        acts = self._log[self._done - count : self._done][::-1]
        self._done -= count
        self.state = acts[-1].before
        self.on_change()
        return acts

    def redo(self, count: int = 1) -> list[Act]:
        """Repeat the last *count* acts that were undone, oldest first."""
        left = len(self._log) - self._done
        if not 1 <= count <= left:
            raise SessionError(f"cannot redo {count} in session {self.name!r}: {acts_to('redo', left)}")
        acts = self._log[self._done : self._done + count]
        self._done += count
        self.state = acts[-1].after
        self.on_change()
        return acts

    def _act(self, what: str, after: State) -> None:
        del self._log[self._done :]
        self._log.append(Act(what, self.state, after))
        self._done += 1
        self.state = after
        self.on_change()


def acts_to(verb: str, count: int) -> str:
    """Say how many acts there are to undo or redo."""
    acts = {0: "there is nothing", 1: "there is 1 act"}.get(count, f"there are {count} acts")
    return f"{acts} to {verb}"
