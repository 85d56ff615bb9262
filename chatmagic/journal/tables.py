"""The tables of the journal, in SQLite or any database that SQLAlchemy knows."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from chatmagic.errors import RecordError
from chatmagic.plain import one_line

__all__ = [
    "VERSION",
    "acts",
    "connect",
    "kernels",
    "pieces",
    "place_of",
    "prepare",
    "sessions",
    "trees",
    "trouble",
    "turns",
]

VERSION = 1

_metadata = sa.MetaData()


def _table(name: str, *columns: Any) -> sa.Table:
    return sa.Table(f"chatmagic_{name}", _metadata, *columns)


meta = _table("meta", sa.Column("name", sa.String(40), primary_key=True), sa.Column("value", sa.Text, nullable=False))

kernels = _table(
    "kernels",
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("notebook", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
)

# The first `shared` turns of a tree that was brought back are those of its base.
trees = _table(
    "trees",
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("base", sa.String(32)),
    sa.Column("shared", sa.Integer, nullable=False),
)

# Prompt and reply as they can be searched; the body has all of the turn.
turns = _table(
    "turns",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("tree", sa.String(32), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("reply", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("tree", "number"),
)

# `follows` is the session that it was brought back from, `since` when.
sessions = _table(
    "sessions",
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("kernel", sa.String(32), nullable=False),
    sa.Column("tree", sa.String(32), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("turns", sa.Integer, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
    sa.Column("gone", sa.Boolean, nullable=False),
    sa.Column("follows", sa.String(32)),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("since", sa.Float),
)

acts = _table(
    "acts",
    sa.Column("session", sa.String(32), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),
)

# What has come of a reply that is not over: first what was asked, then text as it came.
pieces = _table(
    "pieces",
    sa.Column("ask", sa.String(32), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("session", sa.String(32), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

_FTS = """
CREATE VIRTUAL TABLE chatmagic_words USING fts5(prompt, reply, content='chatmagic_turns', content_rowid='id');
CREATE TRIGGER chatmagic_words_new AFTER INSERT ON chatmagic_turns BEGIN
    INSERT INTO chatmagic_words(rowid, prompt, reply) VALUES (new.id, new.prompt, new.reply);
END;
CREATE TRIGGER chatmagic_words_gone AFTER DELETE ON chatmagic_turns BEGIN
    INSERT INTO chatmagic_words(chatmagic_words, rowid, prompt, reply)
    VALUES ('delete', old.id, old.prompt, old.reply);
END
"""

# An index entry of PostgreSQL has an end.
WORDS = "to_tsvector('simple', left(prompt || ' ' || reply, 200000))"
_GIN = f"CREATE INDEX chatmagic_words ON chatmagic_turns USING gin ({WORDS})"


def place_of(text: str) -> URL:
    """Return where the journal is that *text* names: a file, or the URL of a database.

    Raises:
        RecordError: it is no such URL, or one with a password in it.
    """
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = make_url(text)
        url.get_dialect()
    except (ArgumentError, SQLAlchemyError, ImportError, ValueError) as exc:
        said = one_line(str(exc), 100)
        raise RecordError(
            f"the journal cannot be at {re.sub('//.*@', '//…@', text)!r}: {said}. Give a path, or a URL like "
            "postgresql+psycopg://user@host/database (pip install chatmagic[postgres])"
        ) from None
    return url


def connect(url: URL, *, writes: bool = True, seconds: float = 10.0) -> sa.Engine:
    """Return what opens connections to *url*, which others may lock for so many *seconds*."""
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    path = Path(url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite would make it readable for all.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    # Where it was taken away meanwhile, SQLite must not make a new one by itself.
    where = f"{path.absolute().as_uri()}?mode=rw"
    engine = sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(where, timeout=seconds, uri=True), poolclass=sa.NullPool
    )

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # else Python's sqlite3 begins transactions where it thinks best
        # No write-ahead log: its shared memory does not reach over a network file system.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    @sa.event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def prepare(engine: sa.Engine) -> bool:
    """Make the tables, or bring older ones up to date; True: they are new.

    Raises:
        RecordError: a newer version has written them; they are left as they are.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7236411)"))  # two kernels may begin at once
        if not sa.inspect(connection).has_table(meta.name):
            _create(connection)
            return True
        version = connection.execute(sa.select(meta.c.value).where(meta.c.name == "version")).scalar_one_or_none()
        known = int(version) if version and version.isdecimal() else 0
        if known > VERSION:
            raise RecordError(
                f"the journal was written by a newer chatmagic (format {known}; this one knows {VERSION}), and is left "
                "as it is. Upgrade chatmagic, or name another place with %config ChatMagic.journal = 'PATH'"
            )
        return False


def _create(connection: sa.Connection) -> None:
    _metadata.create_all(connection)
    if connection.dialect.name == "sqlite":
        for statement in _FTS.strip().split(";\nCREATE"):
            connection.exec_driver_sql(statement if statement.startswith("CREATE") else f"CREATE{statement}")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_GIN)
    connection.execute(meta.insert().values(name="version", value=str(VERSION)))


def trouble(exc: Exception) -> str:
    """Say in a line what is wrong with the database; nothing of a URL or of what was written is in it."""
    original = getattr(exc, "orig", None) or exc
    # SQLAlchemy's own errors quote what was to be written.
    what = type(exc).__name__ if isinstance(original, SQLAlchemyError) else str(original)
    return one_line(f"{type(original).__name__}: {what}", 160)
