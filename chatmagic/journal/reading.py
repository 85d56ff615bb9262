"""What the journal holds: lists it, searches it, brings sessions back, and deletes them for good."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.record import read_session, read_turn
from chatmagic.conversation.session import Session
from chatmagic.errors import RecordError
from chatmagic.journal.tables import WORDS, acts, kernels, pieces, sessions, trees, turns
from chatmagic.plain import one_line

__all__ = ["Found", "Stored", "bring_back", "forget", "listed", "search"]

_SHORT = 200  # characters of a text that are looked at to show some of it


@dataclass(frozen=True, slots=True)
class Stored:
    """A session on disk; *last* is its newest prompt, *updated* when that was asked.

    It *runs* if the process that wrote it still does, on this host. *cut* counts the replies that were not over.
    """

    id: str
    name: str
    notebook: str
    turns: int
    updated: float
    gone: bool
    kernel: str
    tree: str
    last: str
    cut: int
    runs: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A turn that has what was searched for: its *number* in the stored session."""

    session: Stored
    number: int
    prompt: str
    reply: str


def listed(connection: sa.Connection, *, last: bool = True) -> list[Stored]:
    """Return the sessions in which something was done and that were not brought back since, the newest first.

    Their *last* prompts take a query each.
    """
    newer = sessions.alias("newer")
    acted = sa.exists().where(acts.c.session == sessions.c.id)
    begun = sa.select(sa.func.count(sa.distinct(pieces.c.ask))).where(pieces.c.session == sessions.c.id)
    query = (
        sa.select(
            sessions,
            kernels.c.notebook,
            kernels.c.host,
            kernels.c.pid,
            begun.scalar_subquery().label("cut"),
            acted.label("acted"),
        )
        .join(kernels, kernels.c.id == sessions.c.kernel)
        .where(~sa.exists().where(newer.c.follows == sessions.c.id, ~newer.c.gone, newer.c.since >= sessions.c.updated))
        .order_by(sessions.c.updated.desc())
    )
    rows = [row for row in connection.execute(query).mappings() if row["turns"] or row["cut"] or row["acted"]]
    return [_stored(row, *(_last(connection, row) if last else ("", 0.0))) for row in rows]


def _stored(row: Any, last: str, asked: float) -> Stored:
    here = row["host"] == platform.node() and _is_alive(row["pid"])
    names = ("id", "name", "notebook", "turns", "gone", "kernel", "tree", "cut")
    return Stored(**{name: row[name] for name in names}, last=last, runs=here, updated=asked or row["updated"])


def _is_alive(pid: int) -> bool:
    if os.name == "nt":
        return False  # where the signal 0 is no question, but Ctrl+C
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _last(connection: sa.Connection, row: Any) -> tuple[str, float]:
    """Return the newest prompt, and when it was asked."""
    head = _body(row["body"]).get("state", {}).get("head")
    if not isinstance(head, int):
        return "", 0.0
    tree = row["tree"]
    while tree is not None:
        prompt = sa.select(sa.func.substr(turns.c.prompt, 1, _SHORT), turns.c.started)
        found = connection.execute(prompt.where(turns.c.tree == tree, turns.c.number == head)).one_or_none()
        if found is not None:
            return str(found[0]), float(found[1])
        tree = connection.execute(sa.select(trees.c.base).where(trees.c.id == tree)).scalar_one_or_none()
    return "", 0.0


def bring_back(connection: sa.Connection, stored: Stored, name: str | None = None) -> tuple[Session, int]:
    """Return a new session (called *name*, by default as it was) that is what *stored* was; how many replies were cut.

    Raises:
        RecordError: what is stored is damaged.
    """
    row = connection.execute(sa.select(sessions).where(sessions.c.id == stored.id)).mappings().one()
    log = sa.select(acts.c.body).where(acts.c.session == stored.id).order_by(acts.c.place)
    record = {
        **_body(row["body"]),
        "session": stored.name,
        "key": _key(connection, stored.tree),
        "turns": _turns(connection, stored.tree),
        "acts": [_body(body) for body in connection.execute(log).scalars()],
    }
    session = read_session(record, name)
    cut = _cut(connection, stored.id)
    lost = 0
    for each in cut:
        turn = read_turn({**each, "status": "cut", "finish": None}, _parent(each, session))
        if not any(_became(turn, other) for other in session.tree.turns[-len(cut) - 1 :]):
            session.add(turn)
            lost += 1
    return session, lost


def _parent(record: dict[str, Any], session: Session) -> Turn | None:
    number = record.get("parent")
    if number is None:
        return None
    if not isinstance(number, int) or not 1 <= number <= len(session.tree.turns):
        raise RecordError(f"a reply cannot come behind turn #{one_line(repr(number), 60)}")
    return session.tree[number]


def _became(cut: Turn, turn: Turn) -> bool:
    """Return whether *turn* is what has become of *cut*: it was written, and then there was no time to say so."""
    same = (turn.prompt, turn.parent and turn.parent.number) == (cut.prompt, cut.parent and cut.parent.number)
    return same and turn.started >= cut.started and turn.reply.startswith(cut.reply)


def _key(connection: sa.Connection, tree: str) -> str:
    return str(connection.execute(sa.select(trees.c.key).where(trees.c.id == tree)).scalar_one_or_none() or "")


def _turns(connection: sa.Connection, tree: str) -> list[dict[str, Any]]:
    """Return the records of all turns of *tree*: its own behind those that it has from its base."""
    return [_body(body) for _, body in _rows(connection, tree)]


def _rows(connection: sa.Connection, tree: str) -> list[tuple[int, str]]:
    """Return the ids and bodies of all turns of *tree*, in the order of their numbers."""
    parts: list[Sequence[Any]] = []
    for each, upto in _lineage(connection, tree):
        own = sa.select(turns.c.id, turns.c.body).where(turns.c.tree == each).order_by(turns.c.number)
        parts.append(connection.execute(own if upto is None else own.where(turns.c.number <= upto)).all())
    return [(row.id, row.body) for part in reversed(parts) for row in part]


def _lineage(connection: sa.Connection, tree: str) -> Iterator[tuple[str, int | None]]:
    """Go through *tree* and those that it is based on, each with the number (None: any) up to which it counts."""
    upto: int | None = None
    while True:
        yield tree, upto
        row = connection.execute(sa.select(trees.c.base, trees.c.shared).where(trees.c.id == tree)).one_or_none()
        if row is None or row.base is None:
            return
        tree, upto = row.base, row.shared if upto is None else min(upto, row.shared)


def _cut(connection: sa.Connection, session: str) -> list[dict[str, Any]]:
    """Return what replies were about to be when their kernel died, oldest first."""
    query = (
        sa.select(pieces.c.ask, pieces.c.body).where(pieces.c.session == session).order_by(pieces.c.ask, pieces.c.place)
    )
    asks: dict[str, list[str]] = {}
    for ask, body in connection.execute(query):
        asks.setdefault(ask, []).append(body)
    found = []
    for head, *rest in asks.values():
        came: dict[str, str] = {"reply": "", "reasoning": ""}
        try:
            for kind, text in itertools.chain.from_iterable(map(json.loads, rest)):
                came[kind] += text
        except (ValueError, TypeError, KeyError, RecursionError):
            raise RecordError("a reply in the journal cannot be read: it is damaged") from None
        if came["reply"].strip():
            found.append({**_body(head), **came})
    return sorted(found, key=lambda each: str(each.get("started")))


def search(connection: sa.Connection, text: str, known: Sequence[Stored], most: int = 50) -> list[Found]:
    """Return turns that have all words of *text*, the best ones first; *known* are the sessions that may have them."""
    hits = _hits(connection, text, most) or _hits_of_parts(connection, text, most)
    bases = {row.id: row.base for row in connection.execute(sa.select(trees.c.id, trees.c.base))}
    of_tree: dict[str, Stored] = {}
    for session in known:
        tree: str | None = session.tree
        while tree is not None:
            of_tree.setdefault(tree, session)
            tree = bases.get(tree)
    return [Found(of_tree[hit.tree], hit.number, hit.prompt, hit.reply) for hit in hits if hit.tree in of_tree]


def _hits(connection: sa.Connection, text: str, most: int) -> Sequence[Any]:
    words = text.split()
    if not all(re.fullmatch(r"\w+", word) for word in words):
        return []  # the index knows no signs
    if connection.dialect.name == "sqlite":
        query = (
            "SELECT t.tree, t.number, t.prompt, t.reply FROM chatmagic_words JOIN chatmagic_turns t "
            "ON t.id = chatmagic_words.rowid WHERE chatmagic_words MATCH :words ORDER BY rank LIMIT :most"
        )
        wanted = " ".join(f'"{word}"' for word in words) + "*"
    elif connection.dialect.name == "postgresql":
        query = (
            f"SELECT tree, number, prompt, reply FROM chatmagic_turns WHERE {WORDS} @@ to_tsquery('simple', :words) "  # noqa: S608 - a constant
            "ORDER BY started DESC LIMIT :most"
        )
        wanted = " & ".join(words) + ":*"
    else:
        return []
    return connection.execute(sa.text(query), {"words": wanted, "most": most}).all()


def _hits_of_parts(connection: sa.Connection, text: str, most: int) -> Sequence[Any]:
    """Find *text* anywhere, also within words: slower, and for scripts that have no blanks."""
    columns = turns.c.tree, turns.c.number, turns.c.prompt, turns.c.reply
    wanted = [
        turns.c.prompt.icontains(word, autoescape=True) | turns.c.reply.icontains(word, autoescape=True)
        for word in text.split()
    ]
    return connection.execute(sa.select(*columns).where(*wanted).order_by(turns.c.id.desc()).limit(most)).all()


def forget(engine: sa.Engine, ids: Iterable[str]) -> int:
    """Delete sessions with all that only they have; return how many turns are gone."""
    gone = list(ids)
    with engine.begin() as connection:
        before = connection.execute(sa.select(sa.func.count()).select_from(turns)).scalar_one()
        # Those that they were brought back from are the same conversations.
        while (
            older := connection.execute(
                sa.select(sessions.c.follows).where(
                    sessions.c.id.in_(gone), sessions.c.follows.is_not(None), sessions.c.follows.not_in(gone)
                )
            )
            .scalars()
            .all()
        ):
            gone += older
        theirs = connection.execute(sa.select(sessions.c.tree).where(sessions.c.id.in_(gone))).scalars().all()
        touched = {each for tree in set(theirs) for each, _ in _lineage(connection, tree)}
        connection.execute(acts.delete().where(acts.c.session.in_(gone)))
        connection.execute(pieces.delete().where(pieces.c.session.in_(gone)))
        connection.execute(sessions.delete().where(sessions.c.id.in_(gone)))
        base = trees.alias("base")
        unused = trees.c.id.not_in(sa.select(sessions.c.tree)) & ~sa.exists().where(base.c.base == trees.c.id)
        while connection.execute(trees.delete().where(unused)).rowcount:
            pass
        connection.execute(turns.delete().where(turns.c.tree.not_in(sa.select(trees.c.id))))
        connection.execute(kernels.delete().where(kernels.c.id.not_in(sa.select(sessions.c.kernel))))
        after = connection.execute(sa.select(sa.func.count()).select_from(turns)).scalar_one()
        emptied = _empty(connection, touched)
        if connection.dialect.name == "sqlite":
            # The index keeps words of what is gone until it is made anew.
            connection.exec_driver_sql("INSERT INTO chatmagic_words(chatmagic_words) VALUES ('rebuild')")
    _sweep(engine)
    return int(before - after) + emptied


def _empty(connection: sa.Connection, touched: set[str]) -> int:
    """Take the texts out of turns of the *touched* trees that no session has any more; return how many these are.

    Their places stay: turns are known by their numbers.
    """
    left = sa.select(turns.c.id, turns.c.number, turns.c.body).where(turns.c.tree.in_(touched))
    rows = connection.execute(left).all()
    if not rows:
        return 0
    kept = set(_kept(connection, touched))
    empty = [
        {
            "row": row.id,
            "body": json.dumps(
                {"turn": row.number, "parent": _body(row.body).get("parent"), "prompt": "", "reply": "", "finish": None}
            ),
        }
        for row in rows
        if row.id not in kept
    ]
    change = turns.update().where(turns.c.id == sa.bindparam("row"))
    if empty:
        connection.execute(change.values(prompt="", reply="", body=sa.bindparam("body")), empty)
    return len(empty)


def _kept(connection: sa.Connection, touched: set[str]) -> Iterator[int]:
    """Go through the ids of all turns that sessions with a tree of *touched* stand on, or have stood on."""
    for session in connection.execute(sa.select(sessions.c.id, sessions.c.tree, sessions.c.body)).all():
        if touched.isdisjoint(each for each, _ in _lineage(connection, session.tree)):
            continue
        rows = _rows(connection, session.tree)
        parents = [_body(body).get("parent") for _, body in rows]
        wanted = list(_stood_on(connection, session))
        seen: set[int] = set()
        while wanted:
            number = wanted.pop()
            if isinstance(number, int) and 1 <= number <= len(rows) and number not in seen:
                seen.add(number)
                yield rows[number - 1][0]
                wanted.append(parents[number - 1])


def _stood_on(connection: sa.Connection, session: Any) -> Iterator[Any]:
    states = [_body(session.body).get("state")]
    for body in connection.execute(sa.select(acts.c.body).where(acts.c.session == session.id)).scalars():
        states += [_body(body).get("before"), _body(body).get("after")]
    for state in states:
        yield from [state.get("head"), *state.get("pinned", ())] if isinstance(state, dict) else ()
    for body in connection.execute(
        sa.select(pieces.c.body).where(pieces.c.session == session.id, pieces.c.place == 0)
    ).scalars():
        yield _body(body).get("parent")


def _sweep(engine: sa.Engine) -> None:
    """Give back what is free, so that nothing of what was there can be read."""
    if engine.dialect.name == "sqlite":
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("VACUUM")
        except sqlite3.Error as exc:
            raise sa.exc.OperationalError("VACUUM", None, exc) from exc
        finally:
            raw.close()
    elif engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for table in (turns, acts, sessions, pieces):
                connection.exec_driver_sql(f"VACUUM {table.name}")


def _body(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RecordError("a part of the journal cannot be read: it is damaged")
    return found
