"""The journal as a person uses it: opened, listed, searched, and emptied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chatmagic.conversation.session import Session
from chatmagic.errors import RecordError
from chatmagic.journal.writing import Journal

if TYPE_CHECKING:
    import sqlalchemy as sa

    from chatmagic.journal.reading import Found, Stored

__all__ = ["Library"]

_PATIENCE = 3.0  # seconds that somebody waits for a database which others have locked


class Library:
    """What is stored in the place of *journal*, with what this kernel has just done."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def kernel(self) -> str:
        """The name of this kernel in it."""
        return self._journal.kernel

    def listed(self) -> list[Stored]:
        """Return the sessions of earlier kernels, the newest first."""
        from chatmagic.journal.reading import listed

        with self._reading() as connection:
            return [each for each in listed(connection) if each.kernel != self._journal.kernel]

    def bring_back(self, stored: Stored, name: str) -> tuple[Session, int]:
        """Return *stored* as a new session called *name*, and how many replies the end of its kernel has cut.

        Raises:
            RecordError: it is damaged.
        """
        from chatmagic.journal.reading import bring_back

        with self._reading() as connection:
            session, cut = bring_back(connection, stored, name)
        self._journal.brought(session, stored.id, stored.tree, len(session.tree.turns) - cut)
        return session, cut

    def search(self, text: str) -> list[tuple[Found, Session | None]]:
        """Return turns that have all words of *text*, each with the session of this kernel that it is in."""
        from chatmagic.journal.reading import listed, search

        with self._reading() as connection:
            found = search(connection, text, listed(connection, last=False))
        return [(each, self._journal.is_living(each.session.id)) for each in found]

    def all(self) -> list[Stored]:
        """Return all stored sessions, those of this kernel among them."""
        from chatmagic.journal.reading import listed

        with self._reading() as connection:
            return listed(connection)

    def forget(self, gone: Sequence[Stored]) -> int:
        """Delete sessions from the disk; return how many turns are gone."""
        from chatmagic.journal.reading import forget

        with self._working(writes=True) as engine:
            turns = forget(engine, [each.id for each in gone])
        self._journal.forget([each.id for each in gone])
        return turns

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        self._journal.flush()
        with self._working(writes=False) as engine, engine.connect() as connection:
            yield connection

    @contextmanager
    def _working(self, *, writes: bool) -> Iterator[sa.Engine]:
        from sqlalchemy.exc import SQLAlchemyError

        from chatmagic.journal.tables import connect, place_of, trouble

        engine = connect(place_of(self._journal.text), writes=writes, seconds=min(self._journal.patience, _PATIENCE))
        try:
            yield engine
        except SQLAlchemyError as exc:
            said = trouble(exc)
        else:
            return
        finally:
            engine.dispose()
        raise RecordError(f"the journal at {self._journal.place!r} cannot be read: {said}")
