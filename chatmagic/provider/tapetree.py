"""All exchanges of a tape as one tree of messages, so that what goes on from another one is found by walking."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chatmagic.errors import TapeError
from chatmagic.provider.answers import RESPONSES, Answer, Question, can_be_played
from chatmagic.provider.tapetext import Entry, damaged, parted

__all__ = ["Index", "history", "identity"]


class _Place:
    """How far a conversation has come: one message further than the place *before* it."""

    __slots__ = ("before", "depth", "entries", "further", "item", "through")

    def __init__(self, before: _Place | None = None, item: Any = None) -> None:
        self.before = before
        self.item = item
        self.depth: int = before.depth + 1 if before else 0
        self.further: dict[str, _Place] = {}
        self.entries: list[Entry] = []
        """The exchanges whose questions end here."""
        self.through: Entry | None = None
        """The first exchange that has come by."""

    def items(self) -> list[Any]:
        """Return all messages up to here."""
        place, found = self, []
        while place.before is not None:
            found.append(place.item)
            place = place.before
        return found[::-1]


class Index:
    """Where the exchanges of the tape *name* stand in the tree.

    Raises:
        TapeError: one of them goes on from what is not there, or cannot be played.
    """

    def __init__(self, entries: Sequence[Entry], name: str) -> None:
        self._name = name
        self._root = _Place()
        self._ends: dict[str, _Place] = {}
        self._asked: dict[str, _Place] = {}
        self._systems: dict[str, Sequence[Any]] = {}
        for entry in entries:
            self.take(entry)

    def take(self, entry: Entry) -> None:
        """Take in an exchange that stands behind all others.

        Raises:
            TapeError: it is damaged.
        """
        if entry.label in self._ends:
            raise self._damaged(entry, f"there are two exchanges {entry.label}")
        if not can_be_played(entry.path, entry.answer):
            raise self._damaged(entry, "its answer cannot be sent: something is missing in it")
        system, place = entry.system, self._root
        if entry.after:
            if entry.after not in self._ends:
                raise self._damaged(entry, f"it goes on from {entry.after}, which does not stand above it (any more)")
            place = self._ends[entry.after]
            if (entry.count or 0) > place.depth:
                raise self._damaged(entry, f"exchange {entry.after} has no {entry.count} messages")
            for _ in range(place.depth - (place.depth if entry.count is None else entry.count)):
                place = place.before or place
            if not system and not entry.bare:
                system = self._systems[entry.after]
        place = self._walk(place, entry.items, entry)
        place.entries.append(entry)
        self._asked[entry.label], self._systems[entry.label] = place, system
        self._ends[entry.label] = self._walk(place, history(entry), entry)

    def _damaged(self, entry: Entry, what: str) -> TapeError:
        return damaged(self._name, entry.line, what)

    def _walk(self, place: _Place, items: Iterable[Any], entry: Entry) -> _Place:
        for item in items:
            place = place.further.setdefault(_key(item), _Place(place, item))
            place.through = place.through or entry
        return place

    def asked(self, entry: Entry) -> Question:
        """Return all that *entry* asks."""
        system = self._systems[entry.label]
        return Question(entry.path, entry.settings, [*system, *self._asked[entry.label].items()])

    def found(self, question: Question) -> list[Entry]:
        """Return the exchanges that ask just that, in their order."""
        system, items = parted(question.items)
        place: _Place | None = self._root
        for item in items:
            place = place.further.get(_key(item)) if place else None
        about = _about(question.path, question.settings, system)
        return [
            each
            for each in (place.entries if place else ())
            if _about(each.path, each.settings, self._systems[each.label]) == about
        ]

    def entry(self, label: str, question: Question, answer: Answer, took: tuple[float, float]) -> Entry:
        """Return how an exchange is written behind all others: with the messages only that are new."""
        system, items = parted(question.items)
        place = self._root
        for item in items:
            if (further := place.further.get(_key(item))) is None:
                break
            place = further
        entry = Entry(label, question.path, question.settings, items[place.depth :], answer, took, system)
        if place.through is None:
            return entry
        before = place.through.label
        same = _key(self._systems[before]) == _key(system)
        count = None if place is self._ends[before] else place.depth
        return replace(entry, after=before, count=count, system=() if same else system, bare=not same and not system)


def history(entry: Entry) -> Iterator[Any]:
    """Yield what a later request sends along of an answer: no thoughts, where these are apart."""
    for item in entry.answer.items:
        if entry.path == RESPONSES:
            yield item
        else:
            yield {key: each for key, each in item.items() if key in ("role", "content", "tool_calls")}


def identity(asked: Question) -> str:
    """Return what two questions have in common only if they are the same."""
    system, items = parted(asked.items)
    return _key([_about(asked.path, asked.settings, system), items])


def _about(path: str, settings: Mapping[str, Any], system: Sequence[Any]) -> str:
    return _key([path, settings, list(system)])


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
