"""The kernel's sessions: their names, which is the current one, and the log of the moves of names."""

from __future__ import annotations

import difflib
import threading
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary, ref

from chatmagic.conversation.messages import Cell, Turn
from chatmagic.conversation.session import Session, acts_to, next_stamp, session_name
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.conversation.spending import Spent
from chatmagic.errors import ChatMagicWarning, SessionError

__all__ = ["Move", "Sessions"]

FIRST = "main"


@dataclass(frozen=True, slots=True)
class Move:
    """A name that came to a session (*old* is None), left it (*new* is None), or changed."""

    what: str
    session: Session
    old: str | None
    new: str | None
    current: str
    """The name of the current session before."""
    origin: Session | None
    """That session."""
    switch: bool
    """Whether a new name becomes the current session."""
    stamp: int
    """When it was done, undone or redone last."""


class Sessions:
    """The kernel's sessions by name, which of them is the current one, and which are being asked just now.

    Whoever wants to follow them adds a callable to ``watchers``; it is called after every change.
    """

    def __init__(self) -> None:
        self.current = FIRST
        self.busy: Counter[Session] = Counter()
        self.watchers: list[Callable[[], None]] = []
        self.spent = Spent()
        """What all requests of the kernel have cost."""
        self.facts: list[str] = []
        """What every session is told."""
        self._by_name: dict[str, Session] = {}
        self._drafts: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._lock = threading.RLock()
        self._moves: list[Move] = []
        self._moved_back: list[Move] = []
        self._homes: dict[str, tuple[Session, int]] = {}  # where cells asked last, and when
        self._held = 0  # so many blocks of acts are not over; the watchers are told when they are
        self._switched = -1  # when somebody chose the current session for the cells that run next

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and unicodedata.normalize("NFC", name) in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def __getitem__(self, name: str) -> Session:
        name = session_name(name)
        if (session := self._by_name.get(name)) is None:
            raise self._unknown(name)
        return session

    def _unknown(self, name: str) -> SessionError:
        if any(move.old == name and move.new is None for move in self._moves):
            return SessionError(f"session {name!r} was deleted. %chat undo may bring it back")
        return SessionError(f"no session {name!r} (known: {self._some_known()}). Start it with %%chat {name}")

    def find(self, name: str) -> Session:
        """Return the session *name*, or a new one that nobody knows until it is kept."""
        name = session_name(name)
        with self._lock:
            # Whoever asks for the same name meanwhile gets the same one, or one of the two would be lost.
            session = self._by_name.get(name) or self._drafts.get(name)
            if session is None:
                session = self._drafts[name] = Session(name)
                session.on_change = partial(self._keep_draft, ref(session))
        return session

    def _keep_draft(self, draft: ref[Session]) -> None:
        """A session is known as soon as something is done in it."""
        if (session := draft()) is not None:
            self.keep(session)

    def keep(self, session: Session) -> None:
        """Make *session* known by its name."""
        with self._lock:
            if self._by_name.get(session.name) is session:
                return
            self._rename(session, None, session.name)
        self._changed()

    def use(self, name: str) -> Session:
        """Make the session *name* the current one."""
        session = self[name]
        self._switch(session.name)
        self._changed()
        return session

    def home(self, cell: Cell) -> str:
        """Return in which session *cell* asks when it names none: where it did before, unless somebody switched since.

        A switch that later cells have followed is a part of the notebook, and moves no earlier ones.
        """
        session, asked = self._homes.get(cell.id or "", (None, -1))
        if session is not None and asked > self._switched and self._by_name.get(session.name) is session:
            return session.name
        return self.current

    def asked_by(self, cell: Cell, session: Session) -> None:
        """Make *session*, in which *cell* has just asked, the current one."""
        with self._lock:
            before, _ = self._homes.get(cell.id or "", (session, -1))
            if before is session:
                self._switched = -1
            if cell.id is not None:
                self._homes[cell.id] = session, next_stamp()
            self.current = session.name
        self._changed()

    def left_in(self, cell: Cell, session: Session) -> tuple[Session, Turn] | None:
        """Return what *cell* has left in another session than *session*, where it asked last."""
        before, _ = self._homes.get(cell.id or "", (session, -1))
        if before is session or self._by_name.get(before.name) is not before:
            return None
        turn = before.made_by(cell)
        return (before, turn) if turn else None

    @contextmanager
    def asking(self, session: Session) -> Iterator[None]:
        """Say that *session* is being asked, as long as the block runs."""
        try:
            self.busy[session] += 1
            self._changed()
            yield
        finally:
            # One step on one key: other threads ask in other sessions meanwhile.
            if self.busy[session] > 1:
                self.busy[session] -= 1
            else:
                self.busy.pop(session, None)
            self._changed()

    @contextmanager
    def idle(self, name: str) -> Iterator[Session]:
        """Give the session *name* for an act, and let nobody ask meanwhile: a reply would undo what is done under it.

        Raises:
            SessionError: there is no such session, or it is being asked.
        """
        session = self[name]
        if self.busy[session] or not session.lock.acquire(blocking=False):
            raise SessionError(f"{session.name!r} is being asked just now. Wait for the reply, or stop it")
        try:
            yield session
        finally:
            session.lock.release()

    def new(self, name: str, own: Settings = NOTHING, *, temporary: bool = False) -> Session:
        """Start an empty session with its own settings, and make it the current one."""
        name = self._free(name)
        session = Session(name, own)
        session.temporary = temporary
        self._rename(session, None, name)
        return self.use(name)

    def fork(self, name: str, at: int | None = None, *, origin: str | None = None, switch: bool = True) -> Session:
        """Give the turns of *origin* (by default the current session) a second *name*, which goes on by itself.

        It stands on turn *at* (0: before the first one; None: where the origin stands), and is the current one then
        unless *switch* is false.

        Raises:
            SessionError: there is no such session or turn, or the name is taken; nothing has changed.
        """
        source, name = self[self.current if origin is None else origin], self._free(name)
        session = source.forked(name, source.last if at is None else source.turn(at))
        self._move(f"fork {name!r}", session, None, name, switch)
        return session

    def adopt(self, session: Session, what: str, *, switch: bool = True) -> Session:
        """Take in a *session* that was made elsewhere; *what* names the act, which undo takes back.

        Raises:
            SessionError: its name is taken; nothing has changed.
        """
        self._move(f"{what} {self._free(session.name)!r}", session, None, session.name, switch)
        return session

    def rename(self, old: str, new: str) -> Session:
        """Call the session *old* *new* from now on."""
        with self.idle(old) as session:
            if session_name(new) == session.name:
                raise SessionError(f"the session is called {session.name!r} already")
            new = self._free(new)
            self._move(f"rename {session.name!r} to {new!r}", session, session.name, new)
        return session

    def delete(self, name: str) -> Session:
        """Forget the session *name*, until the act is undone."""
        with self.idle(name) as session:
            self._move(f"delete {session.name!r}", session, session.name, None)
        return session

    def undo(self, count: int = 1, name: str | None = None) -> list[str]:
        """Reverse the last *count* acts of the session *name* (by default the current one), newest first.

        To these belongs what was deleted in the kernel.

        Raises:
            SessionError: there are not so many, or a name that would come back is taken; nothing has changed.
        """
        return self._repeat(count, "undo", name, self._undo_one)

    def redo(self, count: int = 1, name: str | None = None) -> list[str]:
        """Repeat the last *count* acts that were undone, oldest first.

        Raises:
            SessionError: there are not so many, or a name is taken by now; nothing has changed.
        """
        return self._repeat(count, "redo", name, self._redo_one)

    def _repeat(
        self, count: int, verb: str, name: str | None, step: Callable[[Session | None], str | None]
    ) -> list[str]:
        name = self.current if name is None else name
        if count < 1:
            raise SessionError(f"cannot {verb} {count} acts: a number from 1 up")
        if name not in self and name != self.current:
            raise self._unknown(name)
        done: list[str] = []
        with self._at_once(), self.idle(name) if name in self else nullcontext() as session:
            back = self._standing(session)
            try:
                while len(done) < count:
                    if (what := step(session)) is None:
                        raise SessionError(f"cannot {verb} {count} in session {name!r}: {acts_to(verb, len(done))}")
                    done.append(what)
            except SessionError:
                back()
                raise
        return done

    def _standing(self, session: Session | None) -> Callable[[], None]:
        """Return what brings all names, and *session*, back to where they stand now."""
        kept = {
            name: copy(getattr(self, name)) for name in ("current", "_switched", "_by_name", "_moves", "_moved_back")
        }
        acts_back = session.standing() if session else lambda: None

        def back() -> None:
            vars(self).update(kept)
            for name, each in self._by_name.items():
                each.name = name
            acts_back()

        return back

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Do the block while no other thread moves names; tell the watchers afterwards, when nothing is locked."""
        try:
            with self._lock:
                self._held += 1
                try:
                    yield
                finally:
                    self._held -= 1
        finally:
            self._changed()

    @property
    def deleted(self) -> list[Session]:
        """The sessions that undo may bring back."""
        return [move.session for move in self._moves if move.new is None]

    @property
    def undoable(self) -> str | None:
        """The act of the current session that undo reverses next; None: there is nothing to undo."""
        step = self._to_undo()
        return step.done[-1].what if isinstance(step, Session) else step.what if step else None

    @property
    def redoable(self) -> str | None:
        """The act that redo repeats next; None: there is nothing to redo."""
        step = self._to_redo()
        return step.undone[0].what if isinstance(step, Session) else step.what if step else None

    def _to_undo(self, session: Session | None = None) -> Move | Session | None:
        """Return the move that comes next in undoing, or the session (by default the current one) whose act does."""
        session = session or self._by_name.get(self.current)
        acts = session.done if session else []
        moves = [move for move in self._moves if move.session is session or move.new is None]
        last = max(moves, key=_stamp, default=None)
        if last and (not acts or last.stamp > acts[-1].stamp):
            return last
        return session if acts else None

    def _to_redo(self, session: Session | None = None) -> Move | Session | None:
        """Return the move that comes next in redoing, or the session (by default the current one) whose act does."""
        session = session or self._by_name.get(self.current)
        acts = session.undone if session else []
        # What was done after a move was undone ends that it can be redone; of a deletion, in any session.
        acted = session.acted if session else -1
        acted_anywhere = max((each.acted for each in self._by_name.values()), default=-1)
        moves = [
            move
            for move in self._moved_back
            if _concerns(move, session) and move.stamp > (acted if move.new else acted_anywhere)
        ]
        last = max(moves, key=_stamp, default=None)
        if last and (not acts or last.stamp > acts[0].stamp):
            return last
        return session if acts else None

    def _undo_one(self, session: Session | None) -> str | None:
        step = self._to_undo(session)
        if isinstance(step, Session):
            return step.undo()[0].what
        return self._revert(step) if step else None

    def _redo_one(self, session: Session | None) -> str | None:
        step = self._to_redo(session)
        if isinstance(step, Session):
            return step.redo()[0].what
        if step is None:
            return None
        self._apply(replace(step, stamp=next_stamp()))
        self._moved_back.remove(step)
        return step.what

    def _move(self, what: str, session: Session, old: str | None, new: str | None, switch: bool = False) -> None:
        with self._at_once():
            origin = self._by_name.get(self.current)
            self._apply(Move(what, session, old, new, self.current, origin, switch, next_stamp()))
            self._moved_back.clear()
            if old is not None:  # one that comes from elsewhere brings along what it can redo
                session.forget_undone()

    def _apply(self, move: Move) -> None:
        if move.new is None and move.old == self.current:
            raise SessionError(f"{move.old!r} is the current session. Switch first: %chat use NAME, or %chat new NAME")
        self._rename(move.session, move.old, move.new)
        if move.new is not None and move.old == self.current:
            self.current = move.new
        elif move.new is not None and move.switch:
            self._switch(move.new)
        self._moves.append(move)
        self._changed()

    def _revert(self, move: Move) -> str:
        self._rename(move.session, move.new, move.old)
        if move.new == self.current:
            origin = move.origin.name if move.origin else move.current
            self.current = move.old or origin
        self._moves.remove(move)
        self._moved_back.append(replace(move, stamp=next_stamp()))
        self._changed()
        return move.what

    def _switch(self, name: str) -> None:
        self.current, self._switched = name, next_stamp()

    def _rename(self, session: Session, old: str | None, new: str | None) -> None:
        """Take the name *old* from *session* and give it *new*; its place in the list stays."""
        if new is not None and new in self._by_name:
            raise SessionError(f"the name {new!r} is taken by now. Rename that session first: %chat rename {new} NAME")
        draft = self._drafts.get(new or "")
        if draft is not None and draft is not session and self.busy[draft]:
            raise SessionError(f"a session {new!r} is just being started. Wait for its first reply")
        if new is not None:
            self._drafts.pop(new, None)  # a draft is one no more when its name is taken
            session.name = new
            session.on_change = self._changed
        pairs = [(new if name == old else name, each) for name, each in self._by_name.items()]
        added = [(new, session)] if old is None else []
        self._by_name = {name: each for name, each in [*pairs, *added] if name is not None}

    def _free(self, name: str) -> str:
        name = session_name(name)
        if name in self._by_name:
            raise SessionError(f"there is a session {name!r} already. Switch to it with %chat use {name}")
        return name

    def _changed(self) -> None:
        if self._held:
            return
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


def _stamp(move: Move) -> int:
    return move.stamp


def _concerns(move: Move, session: Session | None) -> bool:
    """Return True for moves that are redone from *session*: its own, its forks, and what was deleted in the kernel."""
    return move.session is session or move.new is None or (move.old is None and move.origin is session)


def _digitless(name: str) -> str:
    return "".join(character for character in name if not character.isdigit())
