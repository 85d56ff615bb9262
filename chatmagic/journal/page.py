"""What is written in one transaction, and what is known of what was written before."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.record import act_record, turn_record
from chatmagic.conversation.session import Act, Session, State
from chatmagic.plain import plain

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Asked", "DeletedError", "Known", "KnownTree", "Page"]


@dataclass(slots=True)
class Known:
    """What is written of a session."""

    id: str
    tree: str
    follows: str | None = None
    since: float | None = None
    stand: object = None
    log: Sequence[Act] = ()
    is_new: bool = True


@dataclass(slots=True)
class KnownTree:
    """What is written of a tree: so many turns."""

    id: str
    count: int = 0
    base: str | None = None
    is_new: bool = True


@dataclass(eq=False, slots=True)
class Asked:
    """A reply that is not over: what was asked, and what has come since it was written last."""

    session: Session
    head: dict[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    came: list[tuple[str, str]] = field(default_factory=list)
    written: int = 0
    over: bool = False


class DeletedError(Exception):
    """Sessions that were written before are not there any more."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(ids)
        self.ids = ids


class Page:
    """What is written in one transaction, and what is done when it is."""

    def __init__(self, hidden: Sequence[str] = ()) -> None:
        self._hidden = hidden  # keys, which reach no file
        self.steps: list[Callable[[sa.Connection], object]] = []
        self.after: list[Callable[[], object]] = []
        self.sessions: set[str] = set()
        self._trees: set[str] = set()
        self._there: set[str] = set()  # sessions that were written before

    def write(self, engine: sa.Engine) -> None:
        """Do all of it, or nothing.

        Raises:
            DeletedError: sessions that were written before are not there any more.
        """
        if self.steps:
            with engine.begin() as connection:
                self._check(connection)
                for step in self.steps:
                    step(connection)
        for each in self.after:
            each()

    def _check(self, connection: sa.Connection) -> None:
        import sqlalchemy as sa

        from chatmagic.journal.tables import sessions

        if self._there:
            there = connection.execute(sa.select(sessions.c.id).where(sessions.c.id.in_(self._there))).scalars()
            if missing := self._there.difference(there):
                raise DeletedError(sorted(missing))

    def _json(self, value: object) -> str:
        return self._safe(json.dumps(value))

    def _safe(self, text: str) -> str:
        for key in self._hidden:
            text = text.replace(key, "[key]")
        return text

    def kernel(self, row: dict[str, Any]) -> None:
        """Write down whose sessions they are, if that is not known."""
        import sqlalchemy as sa

        from chatmagic.journal.tables import kernels

        def step(connection: sa.Connection) -> None:
            if connection.execute(sa.select(kernels.c.id).where(kernels.c.id == row["id"])).first() is None:
                connection.execute(kernels.insert(), row)

        self.steps.insert(0, step)

    def tree(self, known: KnownTree, key: str, turns: Sequence[Turn]) -> None:
        """Write the *turns* that are new."""
        from chatmagic.journal import tables

        if known.id in self._trees or not (known.is_new or turns):
            return
        self._trees.add(known.id)
        if known.is_new:
            row = {"id": known.id, "key": key, "base": known.base, "shared": known.count}
            self.steps.append(lambda connection: connection.execute(tables.trees.insert(), row))
        if turns:
            rows = [
                {
                    "tree": known.id,
                    "number": turn.number,
                    "started": turn.started,
                    "prompt": self._safe(plain(turn.prompt)),
                    "reply": self._safe(plain(turn.reply)),
                    "body": self._json(turn_record(turn)),
                }
                for turn in turns
            ]
            self.steps.append(lambda connection: connection.execute(tables.turns.insert(), rows))

        def done() -> None:
            known.is_new = False
            known.count += len(turns)

        self.after.append(done)

    def session(self, row: dict[str, Any], body: object, is_new: bool) -> None:
        """Write where a session stands."""
        from chatmagic.journal.tables import sessions

        row = {**row, "body": self._json(body)}

        statement = sessions.insert() if is_new else sessions.update().where(sessions.c.id == row["id"])
        self.sessions.add(row["id"])
        if not is_new:
            self._there.add(row["id"])
        self.steps.append(lambda connection: connection.execute(statement.values(row)))

    def acts(self, session: str, same: int, before: int, log: Sequence[Act]) -> None:
        """Write the acts of a session behind the first *same* ones; there were so many *before*."""
        from chatmagic.journal.tables import acts

        if same < before:
            gone = acts.delete().where(acts.c.session == session, acts.c.place >= same)
            self.steps.append(lambda connection: connection.execute(gone))
        begins = log[same - 1].after if same else State()
        rows = []
        for place, act in enumerate(log[same:], same):
            rows.append({"session": session, "place": place, "body": self._json(act_record(act, begins))})
            begins = act.after
        if rows:
            self.steps.append(lambda connection: connection.execute(acts.insert(), rows))

    def gone(self, session: str, after: Callable[[], object]) -> None:
        """A session was deleted; it can be brought back all the same."""
        from chatmagic.journal.tables import sessions

        statement = sessions.update().where(sessions.c.id == session).values(gone=True)
        self.steps.append(lambda connection: connection.execute(statement))
        self.after.append(after)

    def piece(self, asked: Asked, known: Known) -> None:
        """Write what has come of a reply."""
        from chatmagic.journal.tables import pieces

        if not known.is_new:
            self._there.add(known.id)
        count = len(asked.came)
        came = asked.came[:count]
        places = [self._json(asked.head)] if not asked.written else []
        places.append(self._json(_joined(came)))
        rows = [
            {"ask": asked.id, "place": asked.written + number, "session": known.id, "body": body}
            for number, body in enumerate(places)
        ]
        self.steps.append(lambda connection: connection.execute(pieces.insert(), rows))

        def done() -> None:
            asked.written += len(rows)
            del asked.came[:count]

        self.after.append(done)

    def unpiece(self, asked: Asked) -> None:
        """Its turn is written, or there is none."""
        from chatmagic.journal.tables import pieces

        if asked.written:
            gone = pieces.delete().where(pieces.c.ask == asked.id)
            self.steps.append(lambda connection: connection.execute(gone))


def _joined(came: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    joined: list[tuple[str, str]] = []
    for kind, text in came:
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + text)
        else:
            joined.append((kind, text))
    return joined
