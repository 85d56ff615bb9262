"""Why a tape has no answer: which exchange is nearest to what was asked, and what is different there."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from chatmagic.plain import one_line
from chatmagic.provider.answers import Question
from chatmagic.provider.tapetext import parted

__all__ = ["difference"]

_NOTHING = object()
_MOST = 3  # differences that are said
_COMPARED = 2000  # characters


Known = tuple[str, Callable[[], Question], Sequence[Any]]
"""An exchange: its label, what was asked, and what the next request sends along of its answer."""


def difference(asked: Question, known: Sequence[Known]) -> str:
    """Say which of the *known* exchanges is nearest to what was *asked*, and what is different in it."""
    if not known:
        return f"It has no exchange of this kind ({asked.path})."
    beside = ((label, _as_far(asked, other(), answer)) for label, other, answer in known)
    near = min(beside, key=lambda each: _distance(asked, each[1]))
    said = list(_differences(asked, near[1]))
    more = f"; and {len(said) - _MOST} more" if len(said) > _MOST else ""
    return f"Nearest is {near[0]}: {'; '.join(said[:_MOST])}{more}."


def _as_far(asked: Question, other: Question, answer: Sequence[Any]) -> Question:
    """Return *other* with its answer behind it where *asked* goes on."""
    goes_on = len(asked.items) > len(other.items) + len(answer)
    return replace(other, items=[*other.items, *answer]) if goes_on else other


def _distance(asked: Question, other: Question) -> tuple[int, float]:
    """Return in how many places the two differ, and how much the first messages do that differ."""
    pairs = [(a, b) for a, b in _pairs(asked, other) if a != b]
    settings = sum(asked.settings.get(key) != other.settings.get(key) for key in {*asked.settings, *other.settings})
    here, there = (_text(each)[:_COMPARED] for each in (pairs or [("", "")])[0])
    alike = difflib.SequenceMatcher(None, here, there).quick_ratio()
    # Another number of turns is further away than another word, or system message.
    turns = abs(len(parted(asked.items)[1]) - len(parted(other.items)[1]))
    return len(pairs) + turns + settings, -alike


def _pairs(asked: Question, other: Question) -> Iterator[tuple[Any, Any]]:
    """Yield the messages of two questions that stand in the same place, from where the conversations begin."""
    for ours, theirs in zip(parted(asked.items), parted(other.items), strict=True):
        yield from zip_longest(ours, theirs, fillvalue=_NOTHING)


def _same(here: Any, there: Any) -> bool:
    if here is _NOTHING or there is _NOTHING:
        return here is there
    return json.dumps(here, sort_keys=True) == json.dumps(there, sort_keys=True)  # in Python true is 1


def _differences(asked: Question, other: Question) -> Iterator[str]:
    for key in sorted({*asked.settings, *other.settings}):
        here, there = asked.settings.get(key, _NOTHING), other.settings.get(key, _NOTHING)
        if not _same(here, there):
            yield f"{key} is {_value(there)} there, {_value(here)} here"
    turn = 0
    for number, (here, there) in enumerate(_pairs(asked, other)):
        role = _role(there if here is _NOTHING else here)
        turn += role == "user"
        if _same(here, there):
            continue
        where = _where(role, turn, number)
        if here is _NOTHING or there is _NOTHING:
            place, first = ("there", there) if here is _NOTHING else ("here", here)
            more = abs(len(parted(asked.items)[1]) - len(parted(other.items)[1])) - 1
            yield f"{where} {one_line(_text(first), 60)!r} is {place} only"
            if role in ("system", "developer"):
                continue
            if more:
                yield f"{more} more message{'s' * (more > 1)} {place}"
            return
        yield f"{where} has {' there, '.join(_changed(_text(there), _text(here)))} here"


def _role(item: Any) -> str:
    return str(item.get("role") or item.get("type") or "") if isinstance(item, dict) else ""


def _where(role: str, turn: int, number: int) -> str:
    match role:
        case "system" | "developer":
            return "the system message"
        case "user":
            return f"the prompt of turn {turn}"
        case "assistant":
            return f"the reply of turn {turn}"
    return f"message {number + 1}{f' ({one_line(role, 20)})' if role else ''}"


def _text(item: Any) -> str:
    if item is _NOTHING:
        return ""
    if isinstance(item, dict) and isinstance(item.get("content"), str) and not item.keys() - {"role", "content"}:
        return str(item["content"])
    return json.dumps(item, ensure_ascii=False, sort_keys=True)


def _value(value: Any) -> str:
    return "not set" if value is _NOTHING else one_line(json.dumps(value, ensure_ascii=False), 60)


def _changed(there: str, here: str) -> tuple[str, str]:
    """Return the words of two texts around the first that are not the same."""
    ours, theirs = re.findall(r"\S+|\s+", here), re.findall(r"\S+|\s+", there)
    first = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    begin = max(0, first - 4)

    def around(words: list[str], show: Callable[[str], str] = one_line) -> str:
        return repr("…" * (begin > 0) + show("".join(words[begin : first + 7]))[:60])

    if around(theirs) == around(ours):  # but for blanks
        return around(theirs, _with_blanks), around(ours, _with_blanks)
    return around(theirs), around(ours)


def _with_blanks(text: str) -> str:
    return text.replace(" ", "·")
