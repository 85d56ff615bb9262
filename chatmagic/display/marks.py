"""Outputs of turns that are not in the conversation any more say so."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from IPython.display import publish_display_data

from chatmagic.conversation.messages import Cell, Turn
from chatmagic.conversation.session import Session, parting
from chatmagic.conversation.sessions import Sessions
from chatmagic.display.page import Look, turn_page

__all__ = ["Marks"]


@dataclass(slots=True)
class _Output:
    """An output on the page, and what it shows."""

    display_id: str
    session: Session
    turn: Turn
    notices: Sequence[str]
    marked: bool = False


class Marks:
    """Follows *sessions*, marks the outputs of turns that leave a line, and takes the mark away when they are back.

    Only outputs of cells that have an id are marked: without one, nothing tells when a cell has run again and its
    output is another one. Calls may come from any thread.
    """

    def __init__(
        self,
        sessions: Sessions,
        publish: Callable[..., None] = publish_display_data,
        look: Callable[[], Look] = Look,
    ) -> None:
        self._sessions = sessions
        self._look = look
        self._publish = publish
        self._lock = threading.RLock()
        self._heads: dict[Session, Turn | None] = {}  # of the sessions that have outputs
        self._outputs: dict[int, _Output] = {}  # by the id of the turn, which they keep alive
        self._of_cell: defaultdict[str, list[int]] = defaultdict(list)
        self.open()

    def open(self) -> None:
        """Follow from now on."""
        if self._follow not in self._sessions.watchers:
            self._sessions.watchers.append(self._follow)
        self._follow()

    def close(self) -> None:
        """Follow no longer."""
        if self._follow in self._sessions.watchers:
            self._sessions.watchers.remove(self._follow)

    def shown(self, display_id: str, name: str, turn: Turn, notices: Sequence[str]) -> None:
        """Keep in mind where *turn* of the session *name* is shown."""
        cell = turn.cells[0].id if turn.cells else None
        if turn.number is None or cell is None or name not in self._sessions:
            return
        with self._lock:
            session = self._sessions[name]
            self._outputs[id(turn)] = _Output(display_id, session, turn, notices)
            self._of_cell[cell].append(id(turn))
            self._heads.setdefault(session, session.last)

    def forget(self, cell: Cell) -> None:
        """Forget the outputs of *cell*: it runs again, and what earlier executions have shown is gone."""
        with self._lock:
            for key in dict.fromkeys(self._of_cell.pop(cell.id or "", ())):
                if cell in self._outputs[key].turn.cells:
                    self._of_cell[cell.id or ""].append(key)
                else:
                    del self._outputs[key]

    def _follow(self) -> None:
        with self._lock:
            known = set(self._sessions)
            for session, before in self._heads.items():
                head = session.last if session in known else None
                if head is not before:
                    self._heads[session] = head
                    left, came = parting(before, head)
                    self._mark(session, left, True)
                    self._mark(session, came, False)

    def _mark(self, session: Session, turns: Iterable[Turn], marked: bool) -> None:
        for turn in turns:
            output = self._outputs.get(id(turn))
            if output is not None and output.session is session and output.marked != marked:
                output.marked = marked
                page = turn_page(session.name, turn, () if marked else output.notices, aside=marked, look=self._look())
                data, metadata = page._repr_mimebundle_()
                self._publish(data, metadata, transient={"display_id": output.display_id}, update=True)
