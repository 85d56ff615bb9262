"""Writes down what happens in sessions, in a thread of its own, so that no chat waits for a disk."""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.record import state_record
from chatmagic.conversation.session import Act, Session, State, Tree
from chatmagic.conversation.sessions import Sessions
from chatmagic.errors import RecordError
from chatmagic.events import Delta, Event, Reasoning, Renderer, Sending
from chatmagic.journal.page import Asked, DeletedError, Known, KnownTree, Page
from chatmagic.plain import plain

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Journal", "Taken"]

_GATHER = 0.05  # seconds in which changes gather before they are written
_FLUSH = 0.4  # seconds between two looks at replies that grow
_LAST = 2.0  # seconds that the end of the process waits for it


class Taken:
    """Does what *renderer* does, and takes down what comes for *asked*; *begin* and *wake* tell when it moves."""

    def __init__(
        self, renderer: Renderer, asked: Asked, begin: Callable[[Asked], None], wake: Callable[[], None]
    ) -> None:
        self._renderer, self._asked, self._begin, self._wake = renderer, asked, begin, wake

    def start(self, session: str, model: str) -> None:
        """The request is about to be sent."""
        self._asked.head["model"] = model
        self._begin(self._asked)
        self._renderer.start(session, model)

    def show(self, event: Event) -> None:
        """Something came."""
        match event:
            case Delta(text):
                self._asked.came.append(("reply", text))
            case Reasoning(text):
                self._asked.came.append(("reasoning", text))
            case Sending(endpoint):
                self._asked.head["endpoint"] = endpoint
        self._renderer.show(event)

    def finish(self, session: str, turn: Turn, notices: Sequence[str]) -> None:
        """The turn is over, and stored."""
        self._end()
        self._renderer.finish(session, turn, notices)

    def fail(self, notices: Sequence[str]) -> None:
        """There is no turn."""
        self._end()
        self._renderer.fail(notices)

    def _end(self) -> None:
        self._asked.over = True
        self._wake()


class Journal:
    """Follows *sessions* and writes them to the place that *text* names; *notebook* is where they belong.

    None of the *secrets* get there. Nothing here fails or blocks: what is wrong is kept in ``trouble`` until somebody
    has said it, and is tried again.
    """

    def __init__(
        self,
        text: str,
        sessions: Sessions,
        notebook: str = "",
        *,
        patience: float = 10.0,
        secrets: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.text = text
        self._secrets = secrets
        self.patience = patience
        """Seconds that others may lock the database; half of it after a failure, it is tried again."""
        self.kernel = token_hex(16)
        self.trouble = ""
        """What has to be said; whoever says it empties it."""
        self._sessions = sessions
        self._notebook = notebook
        self._engine: sa.Engine | None = None
        self._broken = False
        self._reason = ""  # why
        self._refused = False  # the place cannot be used at all
        self._started = time.time()
        self._known: WeakKeyDictionary[Session, Known] = WeakKeyDictionary()
        self._trees: WeakKeyDictionary[Tree, KnownTree] = WeakKeyDictionary()
        self._living: dict[str, Session] = {}  # the sessions that are written down and not gone, by their ids
        self._asks: list[Asked] = []
        self._pid = os.getpid()
        self._wake = threading.Event()
        self._over = threading.Event()
        self._writing = threading.RLock()
        self._thread: threading.Thread | None = None
        self.open()

    def open(self) -> None:
        """Follow the sessions, again if it was closed."""
        if self._wake_up not in self._sessions.watchers:
            self._over.clear()
            self._sessions.watchers.append(self._wake_up)

    def close(self) -> None:
        """Follow no longer; write what there is, if that does not take long."""
        if self._wake_up in self._sessions.watchers:
            self._sessions.watchers.remove(self._wake_up)
        self._over.set()
        self._wake_up()
        if self._thread is not None:
            self._thread.join(_LAST)

    def taking(self, renderer: Renderer, session: Session, prompt: str, begin: State | None) -> Renderer:
        """Return a renderer that does what *renderer* does; what comes for *prompt* is written down meanwhile."""
        state = begin or session.state
        asked = Asked(session, {"prompt": prompt, "parent": state.head.number if state.head else None})
        asked.head |= {"started": time.time(), "settings": state_record(state)["line"]}
        return Taken(renderer, asked, self._begin, self._wake_up)

    def _begin(self, asked: Asked) -> None:
        if not self._refused and self._pid == os.getpid():
            self._asks.append(asked)
            self._wake_up()

    def brought(self, session: Session, follows: str, base: str, count: int) -> None:
        """Take it in that *session* comes from the stored one *follows*, with *count* turns of the tree *base*."""
        with self._writing:
            if session.tree not in self._trees:
                self._trees[session.tree] = KnownTree(token_hex(16), count, base)
            self._known[session] = Known(token_hex(16), self._trees[session.tree].id, follows, time.time())

    @property
    def place(self) -> str:
        """Where it is, without what should not be seen."""
        return self.text if "://" not in self.text else re.sub("//.*@", "//…@", self.text)

    def is_living(self, stored: str) -> Session | None:
        """Return the session of this kernel that is written down as *stored*."""
        return self._living.get(stored)

    def forget(self, stored: Iterable[str]) -> None:
        """Take it in that sessions were deleted from the disk: those of them that live here are not written again."""
        gone = set(stored)
        with self._writing:
            for session, known in list(self._known.items()):
                if known.id in gone:
                    self._living.pop(known.id, None)
                    session.temporary = True
                    # Forks go on to be written, and the turns of this one from now on are none of theirs.
                    session.tree = Tree.of(list(session.tree.turns), session.tree.key)

    def flush(self) -> None:
        """Write what there is now.

        Raises:
            RecordError: that is not possible.
        """
        if self._pid != os.getpid():
            return
        try:
            self._write()
        except Exception as exc:
            self._fail(exc)
            self.trouble = ""
            raise RecordError(f"{self._reason} (journal: {self.place})") from None

    def _wake_up(self) -> None:
        if self._pid != os.getpid() or self._refused:
            return  # a copy of the process is another kernel, and none of ours
        if self._thread is None or not self._thread.is_alive():
            if self._over.is_set() and self._thread is None:
                return
            self._thread = threading.Thread(target=self._run, name="chatmagic journal", daemon=True)
            self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while not self._refused:
            self._wake.wait(self.patience / 2 if self._broken else _FLUSH if self._asks else None)
            over = self._over.is_set()
            self._wake.clear()
            if not over:
                self._over.wait(_GATHER)
            try:
                self._write()
            except Exception as exc:
                self._fail(exc)
                if not over:
                    self._over.wait(self.patience / 2)
            if over:
                return

    def give_up(self, why: str) -> None:
        """Say that the place cannot be used as it is; it is tried all the same, and may be mended."""
        self.trouble = self._reason = why
        self._broken = True

    def _fail(self, exc: Exception) -> None:
        from chatmagic.journal.tables import trouble

        if isinstance(exc, RecordError):
            self._refused = True
            said = str(exc)
        else:
            said = f"the journal cannot be written ({trouble(exc)}); chat goes on in memory"
        self._reason = said
        if not self._broken:
            self.trouble = said
        self._broken = True
        self._engine = None  # it may be another database next time

    def _write(self) -> None:
        """Bring the database up to date, in one transaction."""
        with self._writing:
            engine = self._opened()
            while True:
                page = Page(sorted(self._secrets(), key=len, reverse=True))
                self._gather(page)
                try:
                    page.write(engine)
                except DeletedError as exc:
                    self._deleted(exc.ids)
                else:
                    break
            self._broken = False

    def _opened(self) -> sa.Engine:
        from chatmagic.journal.tables import connect, place_of, prepare

        if self._engine is None:
            engine = connect(place_of(self.text), seconds=self.patience)
            if prepare(engine):  # whatever was written is not in this one
                self._known.clear()
                self._trees.clear()
                self._living.clear()
            self._engine = engine
        return self._engine

    def _deleted(self, ids: Sequence[str]) -> None:
        """Another kernel has deleted sessions of this one from the disk: so they stay away from it."""
        names = ", ".join(repr(self._living[each].name) for each in ids if each in self._living)
        self.forget(ids)
        self.trouble = f"{names or 'a session'} was deleted from the journal elsewhere, and is not written any more"

    def _gather(self, page: Page) -> None:
        # Pieces go when their turn is written, so their end is looked at first; and so is all that points to turns.
        asks = [(asked, asked.over) for asked in list(self._asks)]
        living = [session for session in self._sessions if not session.temporary]
        drafts = [asked.session for asked, is_over in asks if not is_over and not asked.session.temporary]
        stands = {session: _Stand.of(session) for session in [*living, *drafts]}
        for session in living:
            self._session(page, session, stands[session])
        for session in self._sessions.deleted:  # before they were ever written
            if session not in self._known and not session.temporary:
                known = self._session(page, session, _Stand.of(session))
                page.gone(known.id, partial(self._gone, known))
        for known in [self._known[session] for stored, session in self._living.items() if session not in stands]:
            page.gone(known.id, partial(self._gone, known))
        for asked, is_over in asks:
            self._asked(page, asked, stands.get(asked.session), is_over)
        if page.steps:
            row = {"id": self.kernel, "notebook": plain(self._notebook), "host": platform.node(), "pid": os.getpid()}
            page.kernel({**row, "started": self._started})

    def _gone(self, known: Known) -> None:
        self._living.pop(known.id, None)
        known.stand = None

    def _session(self, page: Page, session: Session, stands: _Stand) -> Known:
        known, tree = self._known.get(session), self._tree(page, session.tree)
        if known is None:
            known = self._known[session] = Known(token_hex(16), tree.id)
        if stands.mark == known.stand or known.id in page.sessions:
            return known
        log = stands.log
        same = min(len(log), len(known.log))
        while same and log[same - 1] is not known.log[same - 1]:
            same -= 1
        page.acts(known.id, same, len(known.log), log)
        body = {"state": state_record(stands.state), "done": stands.done, "spent": session.spent.record()}
        page.session(
            {
                "id": known.id,
                "kernel": self.kernel,
                "tree": known.tree,
                "name": session.name,
                "turns": len(session.upto(stands.state.head)),
                "updated": time.time(),
                "gone": False,
                "follows": known.follows,
                "since": known.since,
            },
            body,
            known.is_new,
        )

        def done() -> None:
            known.stand, known.log, known.is_new = stands.mark, log, False
            self._living[known.id] = session

        page.after.append(done)
        return known

    def _tree(self, page: Page, tree: Tree) -> KnownTree:
        known = self._trees.get(tree)
        if known is None:
            known = self._trees[tree] = KnownTree(token_hex(16))
        turns = tree.turns[known.count :]
        page.tree(known, tree.key, turns)
        return known

    def _asked(self, page: Page, asked: Asked, stands: _Stand | None, is_over: bool) -> None:
        if is_over:
            page.unpiece(asked)
            page.after.append(lambda: self._asks.remove(asked))
        elif asked.came and stands is not None:
            # Nobody knows a new session before its first reply is over.
            page.piece(asked, self._session(page, asked.session, stands))


@dataclass(frozen=True, slots=True)
class _Stand:
    """Where a session stands, with its acts, at one moment; *mark* is another one as soon as it has moved."""

    state: State
    log: Sequence[Act]
    done: int
    mark: object

    @classmethod
    def of(cls, session: Session) -> _Stand:
        state, log, done = session.snapshot()
        mark = session.name, state, len(log), log[-1].stamp if log else -1, done, session.spent.requests
        return cls(state, log, done, mark)
