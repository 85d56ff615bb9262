"""The logs of the command line tool ``llm``: a SQLite database, with or without the tables of its version 0.32.

Older versions write ``conversations`` and ``responses``, newer ones ``threads``, ``turns``, ``messages`` and ``parts``;
who has used both has both. https://llm.datasette.io/en/stable/logging.html
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from chatmagic.conversation.messages import Usage
from chatmagic.errors import RecordError
from chatmagic.exchange.branches import Node, count_of, grown
from chatmagic.exchange.conversation import Conversation, list_of, text_of

__all__ = ["conversations"]

Row = dict[str, Any]
STEPS = 500_000_000  # of SQLite, for one query; a hostile database could let one run for years

_OLD = ("id", "model", "prompt", "system", "response", "conversation_id", "duration_ms", "datetime_utc")
_OLD_MORE = ("input_tokens", "output_tokens", "reasoning")


def conversations(path: Path) -> Iterator[Conversation]:
    """Yield the conversations of the database at *path*, which is only read.

    Raises:
        RecordError: it is no such database, or is damaged.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            yield from _Logs(database).conversations()
    except sqlite3.Error as exc:
        raise RecordError(f"the database cannot be read: {exc}") from None


class _Logs:
    """An open database."""

    def __init__(self, database: sqlite3.Connection) -> None:
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        database.execute("PRAGMA trusted_schema = OFF")
        self._database = database
        # Only real tables: a view could be anything.
        self._tables = {row["name"] for row in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def _rows(self, query: str, *values: object) -> Iterator[Row]:
        left = STEPS // 1_000_000

        def over() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        self._database.set_progress_handler(over, 1_000_000)
        cursor = self._database.execute(query, values)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))

    def conversations(self) -> Iterator[Conversation]:
        new = {"threads", "turns", "messages", "parts"} <= self._tables
        old = "responses" in self._tables
        if not new and not old:
            raise RecordError("the database has neither the table 'responses' nor 'threads': it holds no logs of llm")
        if old:
            yield from self._old("threads" in self._tables and new)
        if new:
            for thread in self._rows("SELECT id, name, tip_message_hash, datetime_utc FROM threads ORDER BY id"):
                yield self._thread(thread)

    def _old(self, both: bool) -> Iterator[Conversation]:
        known = {row["name"] for row in self._rows("PRAGMA table_info(responses)")}
        if not {"id", "prompt", "response"} <= known:
            raise RecordError("the table 'responses' has no id, prompt and response: it holds no logs of llm")
        columns = ", ".join(name if name in known else f"NULL AS {name}" for name in (*_OLD, *_OLD_MORE))
        where = "WHERE coalesce(conversation_id, '') NOT IN (SELECT id FROM threads)" if both else ""
        rows = self._rows(
            f"SELECT *, coalesce(conversation_id, id) AS whole FROM (SELECT {columns} FROM responses) {where} "  # noqa: S608 - names of ours
            "ORDER BY whole, datetime_utc, id"
        )
        for whole, group in groupby(rows, key=itemgetter("whole")):
            yield self._conversation(whole, list(group))

    def _conversation(self, key: object, rows: list[Row]) -> Conversation:
        title = ""
        if "conversations" in self._tables:
            title = next((text_of(row["name"]) for row in self._rows(_NAME, key)), "")
        session, unanswered = grown(_exchanged(rows))
        return _found(title or text_of(rows[0]["prompt"])[:60], session, unanswered, rows[0]["datetime_utc"])

    def _thread(self, thread: Row) -> Conversation:
        turns = {row["tip_message_hash"]: row for row in self._rows(_TURNS, thread["id"])}
        tip = thread["tip_message_hash"]
        nodes: dict[str, Node] = {}
        for end in (*turns, tip):
            while isinstance(end, str) and end not in nodes:
                message = next(self._rows("SELECT parent_hash, role FROM messages WHERE hash = ?", end), None)
                if message is None:
                    break
                nodes[end] = self._node(end, message, turns.get(end, {}))
                end = message["parent_hash"]
        session, unanswered = grown(nodes.values(), tip)
        return _found(text_of(thread["name"]), session, unanswered, thread["datetime_utc"])

    def _node(self, key: str, message: Row, turn: Row) -> Node:
        said: dict[str, list[str]] = {"text": [], "reasoning": []}
        for part in self._rows("SELECT type, text, payload FROM parts WHERE message_hash = ? ORDER BY position", key):
            kind = text_of(part["type"])
            said["reasoning" if kind == "reasoning" else "text"].append(self._part(kind, part))
        text, reasoning = ("\n\n".join(filter(None, texts)) for texts in said.values())
        role = text_of(message["role"])
        return Node(key, message["parent_hash"], role, text, reasoning, **_about(turn))

    def _part(self, kind: str, part: Row) -> str:
        payload = _json(part["payload"])
        match kind:
            case "text" | "reasoning":
                return text_of(part["text"]) or "".join(map(self._piece, list_of(payload.get("text_ref"))))
            case "tool_call":
                call = {"name": payload.get("name"), "arguments": payload.get("arguments")}
                return f"```json\n{json.dumps(call)}\n```"
            case "attachment":
                return "[attachment]"
        return ""

    def _piece(self, piece: object) -> str:
        found = piece if isinstance(piece, dict) else {}
        if "literal" in found or "fragments" not in self._tables:
            return text_of(found.get("literal"))
        if not isinstance(number := found.get("fragment"), int):
            return ""
        return next((text_of(row["content"]) for row in self._rows(_FRAGMENT, number)), "")


_NAME = "SELECT name FROM conversations WHERE id = ?"
_FRAGMENT = "SELECT content FROM fragments WHERE id = ?"
_TURNS = """
SELECT tip_message_hash, model, input_tokens, output_tokens, duration_ms, datetime_utc FROM turns WHERE thread_id = ?
ORDER BY id
"""


def _found(title: str, session: Any, unanswered: int, date: object) -> Conversation:
    left = (f"{count_of(unanswered, 'prompt')} without a reply left out",) if unanswered else ()
    return Conversation(title or "chat", session, _seconds(date), notes=left)


def _exchanged(rows: list[Row]) -> Iterator[Node]:
    """Yield what each row says: maybe a system prompt, the prompt, the reply."""
    system, last = "", None
    for number, row in enumerate(rows):
        said = [
            ("user", text_of(row["prompt"]), ""),
            ("assistant", text_of(row["response"]), text_of(row["reasoning"])),
        ]
        if (new := text_of(row["system"])) and new != system:
            system = new
            said.insert(0, ("system", system, ""))
        for role, text, reasoning in said:
            key = f"{number} {role}"
            yield Node(key, last, role, text, reasoning, **(_about(row) if role == "assistant" else {}))
            last = key


def _about(row: Row) -> dict[str, Any]:
    counts = [row.get(name) for name in ("input_tokens", "output_tokens")]
    used = Usage(*(count if isinstance(count, int) and count >= 0 else None for count in counts))
    milliseconds = row.get("duration_ms")
    seconds = milliseconds / 1000 if isinstance(milliseconds, int) and 0 <= milliseconds < 1e12 else 0.0
    return {
        "model": text_of(row.get("model")),
        "usage": used,
        "started": _seconds(row.get("datetime_utc")),
        "seconds": seconds,
    }


def _seconds(date: object) -> float:
    try:
        when = datetime.fromisoformat(text_of(date))
        # They are in UTC, and most do not say so.
        return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0.0


def _json(text: object) -> Mapping[str, Any]:
    try:
        found = json.loads(text_of(text) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
