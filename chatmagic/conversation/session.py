"""Sessions: names that point into a tree of turns, and a log of the acts that moved them."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import SessionError

__all__ = ["Act", "Session", "Sessions", "State", "Tree", "session_name"]

FIRST = "main"


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

    def grow(self, turn: Turn) -> Turn:
        """Store *turn* under the next number."""
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


class Session:
    """A named conversation of this kernel."""

    def __init__(self, name: str, own: Settings = NOTHING) -> None:
        self.name = session_name(name)
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

    def set(self, changes: Settings) -> None:
        """Change the session's own settings. They also replace what cells of the line had asked for."""
        own = Settings(changes.over(self.state.own).values)
        what = "set " + " ".join(sorted(changes.keys))
        self._act(what, replace(self.state, own=own, line=self.state.line.without(changes.keys)))

    def undo(self, count: int = 1) -> list[Act]:
        """Reverse the last *count* acts, newest first."""
        if not 1 <= count <= self._done:
            raise SessionError(f"cannot undo {count} in session {self.name!r}: {_acts(self._done)} to undo")
        acts = self._log[self._done - count : self._done][::-1]
        self._done -= count
        self.state = acts[-1].before
        return acts

    def redo(self, count: int = 1) -> list[Act]:
        """Repeat the last *count* acts that were undone, oldest first."""
        left = len(self._log) - self._done
        if not 1 <= count <= left:
            raise SessionError(f"cannot redo {count} in session {self.name!r}: {_acts(left)} to redo")
        acts = self._log[self._done : self._done + count]
        self._done += count
        self.state = acts[-1].after
        return acts

    def _act(self, what: str, after: State) -> None:
        del self._log[self._done :]
        self._log.append(Act(what, self.state, after))
        self._done += 1
        self.state = after


def _acts(count: int) -> str:
    return {0: "there is nothing", 1: "there is 1 act"}.get(count, f"there are {count} acts")


class Sessions:
    """The kernel's sessions by name, and which of them is the current one."""

    def __init__(self) -> None:
        self.current = FIRST
        self._by_name: dict[str, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and unicodedata.normalize("NFC", name) in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def __getitem__(self, name: str) -> Session:
        name = session_name(name)
        if name not in self._by_name:
            raise SessionError(f"no session {name!r} (known: {self._some_known()}). Start it with %%chat {name}")
        return self._by_name[name]

    def find(self, name: str) -> Session:
        """Return the session *name*, or a new one that nobody knows until it is kept."""
        name = session_name(name)
        return self._by_name.get(name) or Session(name)

    def keep(self, session: Session) -> None:
        """Make *session* known by its name."""
        self._by_name.setdefault(session.name, session)

    def use(self, name: str) -> Session:
        """Make the session *name* the current one."""
        session = self[name]
        self.current = session.name
        return session

    def new(self, name: str, own: Settings = NOTHING) -> Session:
        """Start an empty session with its own settings, and make it the current one."""
        name = session_name(name)
        if name in self._by_name:
            raise SessionError(f"there is a session {name!r} already. Switch to it with %chat use {name}")
        session = Session(name, own)
        self.keep(session)
        self.current = name
        return session

    def near(self, name: str) -> str | None:
        """Return the known name that *name* may be a slip of; names that differ in a number only are no slips."""
        others = [known for known in self._by_name if _digitless(known) != _digitless(name)]
        return next(iter(difflib.get_close_matches(name, others, n=1, cutoff=0.75)), None)

    def _some_known(self) -> str:
        names = list(map(repr, self._by_name))
        return ", ".join(names[:8] + ["…"] * (len(names) > 8)) or "none yet"


def _digitless(name: str) -> str:
    return "".join(character for character in name if not character.isdigit())
