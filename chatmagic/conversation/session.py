"""Sessions: names that point into a tree of turns, and a log of the acts that moved them."""

from __future__ import annotations

import difflib
import itertools
import threading
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from weakref import WeakValueDictionary

from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import ChatMagicWarning, SessionError

__all__ = ["Act", "Session", "Sessions", "State", "Tree", "session_name"]

FIRST = "main"

_stamps = itertools.count()  # the order of acts, over all sessions


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
    stamp: int = field(default_factory=lambda: next(_stamps), compare=False)


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

    def set(self, changes: Settings) -> None:
        """Change the session's own settings. They also replace what cells of the line had asked for."""
        own = Settings(changes.over(self.state.own).values)
        what = "set " + " ".join(sorted(changes.keys))
        self._act(what, replace(self.state, own=own, line=self.state.line.without(changes.keys)))

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
            raise SessionError(f"cannot undo {count} in session {self.name!r}: {_acts(self._done)} to undo")
        acts = self._log[self._done - count : self._done][::-1]
        self._done -= count
        self.state = acts[-1].before
        self.on_change()
        return acts

    def redo(self, count: int = 1) -> list[Act]:
        """Repeat the last *count* acts that were undone, oldest first."""
        left = len(self._log) - self._done
        if not 1 <= count <= left:
            raise SessionError(f"cannot redo {count} in session {self.name!r}: {_acts(left)} to redo")
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


def _acts(count: int) -> str:
    return {0: "there is nothing", 1: "there is 1 act"}.get(count, f"there are {count} acts")


@dataclass(frozen=True, slots=True)
class Move:
    """A name that came to a session (*old* is None), left it (*new* is None), or changed."""

    what: str
    session: Session
    old: str | None
    new: str | None
    current: str
    """The current session before."""
    stamp: int


class Sessions:
    """The kernel's sessions by name, which of them is the current one, and which are being asked just now.

    Whoever wants to follow them adds a callable to ``watchers``; it is called after every change.
    """

    def __init__(self) -> None:
        self.current = FIRST
        self.busy: Counter[Session] = Counter()
        self.watchers: list[Callable[[], None]] = []
        self._by_name: dict[str, Session] = {}
        self._drafts: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._moves: list[Move] = []
        self._moved_back: list[Move] = []

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
        # Whoever asks for the same name meanwhile gets the same one, or one of the two would be lost.
        return self._by_name.get(name) or self._drafts.setdefault(name, Session(name))

    def keep(self, session: Session) -> None:
        """Make *session* known by its name."""
        if session.name not in self._by_name:
            self._by_name[session.name] = session
            session.on_change = self._changed
            self._changed()

    def use(self, name: str) -> Session:
        """Make the session *name* the current one."""
        session = self[name]
        self.current = session.name
        self._changed()
        return session

    @contextmanager
    def asking(self, session: Session) -> Iterator[None]:
        """Say that *session* is being asked, as long as the block runs."""
        self.busy[session] += 1
        self._changed()
        try:
            yield
        finally:
            self.busy[session] -= 1
            self._changed()

    def new(self, name: str, own: Settings = NOTHING) -> Session:
        """Start an empty session with its own settings, and make it the current one."""
        name = self._free(name)
        session = Session(name, own)
        self._rename(session, None, name)
        return self.use(name)

    def fork(self, name: str) -> Session:
        """Give the current session's turns a second *name*, which goes on by itself, and make that the current one."""
        origin, name = self[self.current], self._free(name)
        session = Session(name)
        session.tree, session.state = origin.tree, origin.state
        self._move(f"fork {name!r}", session, None, name)
        return session

    def rename(self, old: str, new: str) -> Session:
        """Call the session *old* *new* from now on."""
        session, new = self[old], self._free(new)
        self._move(f"rename {session.name!r} to {new!r}", session, session.name, new)
        return session

    def delete(self, name: str) -> Session:
        """Forget the session *name*, until the act is undone."""
        session = self[name]
        self._move(f"delete {session.name!r}", session, session.name, None)
        return session

    def undo(self, count: int = 1) -> list[str]:
        """Reverse the last *count* acts of the current session, and of the kernel what was deleted; newest first.

        Raises:
            SessionError: there are not so many, or a name that would come back is taken; nothing has changed.
        """
        return self._repeat(count, "undo", self._undo_one, self._redo_one)

    def redo(self, count: int = 1) -> list[str]:
        """Repeat the last *count* acts that were undone, oldest first.

        Raises:
            SessionError: there are not so many, or a name is taken by now; nothing has changed.
        """
        return self._repeat(count, "redo", self._redo_one, self._undo_one)

    def _repeat(
        self, count: int, verb: str, step: Callable[[], str | None], back: Callable[[], str | None]
    ) -> list[str]:
        done: list[str] = []
        try:
            while len(done) < count:
                if (what := step()) is None:
                    raise SessionError(
                        f"cannot {verb} {count} in session {self.current!r}: {_acts(len(done))} to {verb}"
                    )
                done.append(what)
        except SessionError:
            for _ in done:
                back()
            raise
        return done

    @property
    def can_undo(self) -> bool:
        """True if there is an act to undo."""
        return self._to_undo() is not None

    @property
    def can_redo(self) -> bool:
        """True if there is an act to redo."""
        return self._to_redo() is not None

    def _to_undo(self) -> Move | Session | None:
        """Return the move that comes next in undoing, or the session whose newest act does."""
        session = self._by_name.get(self.current)
        acts = session.done if session else []
        moves = [move for move in self._moves if move.session is session or move.new is None]
        if moves and (not acts or moves[-1].stamp > acts[-1].stamp):
            return moves[-1]
        return session if acts else None

    def _to_redo(self) -> Move | Session | None:
        """Return the move that comes next in redoing, or the session whose act does."""
        session = self._by_name.get(self.current)
        acts = session.undone if session else []
        newest = session.done[-1].stamp if session and session.done else -1
        back = self._moved_back
        moves = [move for move in back if move.session is session or move.new is None or move.current == self.current]
        # What was done after a move ends that it can be redone.
        if moves and moves[-1].stamp > newest and (not acts or moves[-1].stamp < acts[0].stamp):
            return moves[-1]
        return session if acts else None

    def _undo_one(self) -> str | None:
        step = self._to_undo()
        if isinstance(step, Session):
            return step.undo()[0].what
        return self._revert(step) if step else None

    def _redo_one(self) -> str | None:
        step = self._to_redo()
        if isinstance(step, Session):
            return step.redo()[0].what
        if step is None:
            return None
        self._apply(step)
        self._moved_back.remove(step)
        return step.what

    def _move(self, what: str, session: Session, old: str | None, new: str | None) -> None:
        self._apply(Move(what, session, old, new, self.current, next(_stamps)))
        self._moved_back.clear()

    def _apply(self, move: Move) -> None:
        if move.new is None and move.old == self.current:
            raise SessionError(f"{move.old!r} is the current session. Switch first: %chat use NAME")
        self._rename(move.session, move.old, move.new)
        if move.new is not None and move.old in (None, self.current):
            self.current = move.new
        self._moves.append(move)
        self._changed()

    def _revert(self, move: Move) -> str:
        self._rename(move.session, move.new, move.old)
        if move.new == self.current:
            self.current = move.old or move.current
        self._moves.remove(move)
        self._moved_back.append(move)
        self._changed()
        return move.what

    def _rename(self, session: Session, old: str | None, new: str | None) -> None:
        """Take the name *old* from *session* and give it *new*; its place in the list stays."""
        if new is not None and new in self._by_name:
            raise SessionError(f"the name {new!r} is taken by now. Rename that session first: %chat rename {new} NAME")
        if new is not None:
            session.name = new
            session.on_change = self._changed
        if old is None and new is not None:
            self._by_name[new] = session
        pairs = [(new if name == old else name, each) for name, each in self._by_name.items()]
        self._by_name = {name: each for name, each in pairs if name is not None}

    def _free(self, name: str) -> str:
        name = session_name(name)
        if name in self._by_name:
            raise SessionError(f"there is a session {name!r} already. Switch to it with %chat use {name}")
        return name

    def _changed(self) -> None:
        for watcher in list(self.watchers):
            try:
                watcher()
            except Exception as exc:  # whoever only looks must not break what he looks at
                warnings.warn(f"a watcher failed with {type(exc).__name__}: {exc}", ChatMagicWarning, stacklevel=2)

    def near(self, name: str) -> str | None:
        """Return the known name that *name* may be a slip of; names that differ in a number only are no slips."""
        others = [known for known in self._by_name if _digitless(known) != _digitless(name)]
        return next(iter(difflib.get_close_matches(name, others, n=1, cutoff=0.75)), None)

    def _some_known(self) -> str:
        names = list(map(repr, self._by_name))
        return ", ".join(names[:8] + ["…"] * (len(names) > 8)) or "none yet"


def _digitless(name: str) -> str:
    return "".join(character for character in name if not character.isdigit())
