"""Sessions as a notebook of chat cells, and what such cells have left in a saved notebook back to sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.record import read_turn, turn_record
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import RecordError
from chatmagic.exchange.branches import count_of, stood
from chatmagic.exchange.conversation import Conversation, list_of, mapping_of
from chatmagic.exchange.markdown import valid_name
from chatmagic.exchange.own import check_settings
from chatmagic.line import written as on_a_line
from chatmagic.plain import plain
from chatmagic.version import __version__

__all__ = ["conversations", "written"]

_LOAD = "%load_ext chatmagic"


def written(sessions: Sequence[Session]) -> str:
    """Return a notebook (nbformat 4.5) whose cells ask what was asked on the lines of *sessions*, with the replies."""
    cells = [_cell("chat-load", _LOAD, 1)]
    for number, session in enumerate(sessions):
        cells += _cells(session, f"{session.tree.key[:8]}-{number}")
    for count, cell in enumerate(cells, 1):
        cell["execution_count"] = count
    notebook = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell(key: str, source: str, count: int = 0, outputs: Sequence[Any] = (), about: Any = None) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": count,
        "id": key,
        "metadata": {"chatmagic": about} if about else {},
        "outputs": list(outputs),
        "source": source.splitlines(keepends=True) if source.isascii() and "\r" not in source else source,
    }


def _cells(session: Session, key: str) -> Iterator[dict[str, Any]]:
    key = "".join(sign if sign.isascii() and (sign.isalnum() or sign == "-") else "-" for sign in key)
    before = NOTHING
    for number, turn in enumerate(session.turns):
        wanted = turn.settings.beyond(before)
        if number == 0:  # what the session has set itself can stand on its first cell only
            wanted = Settings(wanted.over(session.state.own).values)
        options, lost = on_a_line(wanted)
        if lost:
            yield _cell(f"{key}-{number + 1}-set", _set(session.name, wanted, lost))
        if number == 0 and session.state.facts:
            yield _cell(f"{key}-facts", _facts(session.name, session.state.facts))
        about = {"own": _record(session.state.own), "facts": list(session.state.facts)} if number == 0 else None
        source = _source(session.name, options, turn.prompt)
        yield _cell(f"{key}-{number + 1}", source, 0, [_output(session.name, turn)], about)
        before = turn.settings


def _source(name: str, options: str, prompt: str) -> str:
    raw = "--raw" if "{{" in prompt else ""
    # The newline at the end of a cell is none of the prompt.
    return " ".join(filter(None, ["%%chat", name, options, raw])) + f"\n{prompt}" + "\n" * prompt.endswith("\n")


def _set(name: str, wanted: Settings, keys: Sequence[str]) -> str:
    """Return a cell that sets what no line can hold."""
    values = ", ".join(f"{key!r}: {wanted.values.get(key)!r}" for key in keys)
    return f"import chatmagic\n\nchatmagic.session({name!r}).set(**{{{values}}})"


def _facts(name: str, facts: Sequence[str]) -> str:
    """Return a cell that remembers *facts*."""
    listed = "".join(f"    {fact!r},\n" for fact in facts)
    return f"import chatmagic\n\nfor fact in [\n{listed}]:\n    chatmagic.session({name!r}).remember(fact)"


def _record(settings: Settings) -> dict[str, Any]:
    return {"values": dict(settings.values), "unset": sorted(settings.unset)}


def _output(name: str, turn: Turn) -> dict[str, Any]:
    record = {"version": __version__, "session": name, **turn_record(turn), "in_conversation": True}
    record.pop("cells")
    data = {"text/plain": plain(turn.reply), "text/markdown": _defused(turn.reply)}
    return {"output_type": "display_data", "data": data, "metadata": {"chatmagic": record}}


def _defused(reply: str) -> str:
    from chatmagic.defused import to_markdown

    return to_markdown(reply)


def conversations(notebook: Mapping[str, Any]) -> Iterator[Conversation]:
    """Yield the sessions that the chat cells of *notebook* belong to, as far as their outputs are saved in it.

    Raises:
        RecordError: there are none, or one cannot be read.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    about: dict[str, dict[str, Any]] = {}
    for cell in list_of(notebook.get("cells")):
        records = list(_records(cell))
        for record in records:
            found.setdefault(str(record.get("session")), []).append(record)
        if records and (more := _ours(cell)):
            about.setdefault(str(records[0].get("session")), more)
    if not found:
        raise RecordError("no output of a chat cell is saved in the notebook")
    for name, records in found.items():
        yield _conversation(name, records, about.get(name, {}))


def _records(cell: object) -> Iterator[dict[str, Any]]:
    outputs = list_of(cell.get("outputs")) if isinstance(cell, dict) else []
    for record in map(_ours, outputs):
        if isinstance(record.get("prompt"), str) and isinstance(record.get("reply"), str):
            yield record


def _ours(thing: object) -> dict[str, Any]:
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    record = metadata.get("chatmagic") if isinstance(metadata, dict) else None
    return record if isinstance(record, dict) else {}


def _conversation(name: str, records: Sequence[dict[str, Any]], about: Mapping[str, Any]) -> Conversation:
    """Return the session of *records*, whose parents are those that are saved, or what stands before them."""
    numbered = {number: record for record in records if isinstance(number := record.get("turn"), int)}
    stored = [numbered[number] for number in sorted(numbered)]
    turns: list[Turn] = []
    by_number: dict[object, Turn] = {}
    for record in stored:
        parent = by_number.get(record.get("parent")) or (turns[-1] if turns and record.get("parent") else None)
        turn = replace(_turn({**record, "cells": []}, parent), number=len(turns) + 1)
        turns.append(turn)
        by_number[record["turn"]] = turn
    standing = [by_number[record["turn"]] for record in stored if record.get("in_conversation") is not False]
    head = max(standing or turns, key=lambda turn: turn.number or 0, default=None)
    own = _own(about)
    if (
        head is not None
        and head.sent is not None
        and head.sent.system
        and "system" not in (*own.keys, *head.settings.keys)
    ):
        own = Settings({**own.values, "system": head.sent.system})  # that the session itself had set
    check_settings([own, *(turn.settings for turn in turns)])
    facts = tuple(fact for fact in list_of(about.get("facts")) if isinstance(fact, str))
    session = stood(turns, head, own, facts=facts)
    missing = max(numbered, default=0) - len(numbered)
    note = f"{count_of(missing, 'turn')} of it not in the notebook (asked elsewhere, or their outputs are gone)"
    notes = (note,) if missing else ()
    return Conversation(valid_name(name), session, head.started if head else 0.0, notes=notes)


def _turn(record: object, parent: Turn | None) -> Turn:
    try:
        return read_turn(record, parent)
    except (OverflowError, TypeError, ValueError) as exc:
        raise RecordError(f"a turn cannot be read: {exc}") from None


def _own(about: Mapping[str, Any]) -> Settings:
    own = mapping_of(about.get("own") or {}, "settings")
    values = mapping_of(own.get("values") or {}, "settings")
    return Settings(values)
