"""Exchanges <-> the text of a tape, which people read, compare and edit.

    --- 1f0c5a7e chat/completions after 90d3b8aa
    model: "gpt-6-luna"

    > user
    | And the median?

    < assistant
    | The value in the middle.

    = 0.4 0.9
    finish_reason: "stop"
    usage: {"prompt_tokens": 31, "completion_tokens": 6}

An exchange has a label, what was asked and, after others, which one it goes on from: with all of its messages, or
with as many as stand behind a colon. Then come the settings, the messages that are new (``>``), what was answered
(``<``), and how long it took (seconds to the first byte, and on to the last). A system message takes the place of the
one before. Values are JSON; longer ones stand below their name, two blanks further in; a line of text has a bar or,
where that would not show what it is, quotation marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatmagic.errors import TapeError
from chatmagic.provider.answers import Answer

__all__ = ["Entry", "damaged", "parted", "read", "with_one_more", "written"]

_VERSION = 1
_HEAD = "chatmagic tape"
_WIDTH = 100  # characters of JSON that are read at a glance
_DEEPEST = 50

_LABEL = r"[0-9a-f]{8}(?:-\d+)?"
_EXCHANGE = re.compile(
    rf"--- (?P<label>{_LABEL}) (?P<path>\S+)"
    rf"(?: after (?P<after>{_LABEL})(?::(?P<count>\d{{1,6}}))?(?P<bare> without system)?)?"
)
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ENTRY = re.compile(r'([A-Za-z_][\w.-]*|"(?:[^"\\]|\\.)*"):(?: (.*))?', re.ASCII)

# What would be seen as something else than it is, or not at all.
_UNSEEN = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff]"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An exchange as it stands on a tape.

    *system* and *items* are the messages that are new after those of the exchange *after*, of which *count* (None: all)
    go before them; without a *system* of its own it has that one's, unless it is *bare*. *took* is how many seconds
    passed until the first byte, and from there to the last.
    """

    label: str
    path: str
    settings: Mapping[str, Any]
    items: Sequence[Any]
    answer: Answer
    took: tuple[float, float] = (0.0, 0.0)
    system: Sequence[Any] = ()
    after: str = ""
    count: int | None = None
    bare: bool = False
    line: int = 0
    """Where it stands."""


def written(entries: Sequence[Entry]) -> str:
    """Return the text of a tape."""
    return "\n".join([f"{_HEAD} {_VERSION}", *("\n".join(["", *_exchange(entry)]) for entry in entries)]) + "\n"


def with_one_more(text: str, entry: Entry) -> str:
    """Return the *text* of a tape with another exchange behind the others, which stay as somebody may have put them."""
    return "\n".join([text.rstrip(), "", *_exchange(entry)]) + "\n"


def _exchange(entry: Entry) -> Iterator[str]:
    count = "" if entry.count is None else f":{entry.count}"
    bare = " without system" if entry.bare else ""
    after = f" after {entry.after}{count}{bare}" if entry.after else ""
    yield f"--- {entry.label} {entry.path}{after}"
    yield from _mapping(entry.settings, "")
    for item in (*entry.system, *entry.items):
        yield ""
        yield from _item(">", item)
    for item in entry.answer.items:
        yield ""
        yield from _item("<", item)
    yield ""
    yield "= " + " ".join(f"{seconds:.1f}" for seconds in entry.took)
    yield from _mapping(entry.answer.rest, "")


def _item(sign: str, item: Any) -> Iterator[str]:
    """Write a message; the text of one is what everybody looks for, so it has no name."""
    if not isinstance(item, Mapping):
        yield f"{sign} :"
        yield from _below(item, "  ")
        return
    role, rest = item.get("role"), dict(item)
    if isinstance(role, str) and _NAME.fullmatch(role):
        yield f"{sign} {rest.pop('role')}"
    else:
        yield f"{sign} -"
    content = rest.pop("content") if isinstance(rest.get("content"), str) else None
    yield from _mapping(rest, "")
    if content is not None:
        yield from _text(content, "")


def _mapping(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, each in value.items():
        name = key if _NAME.fullmatch(key) else _json(key)
        if (short := _short(each)) is not None:
            yield f"{indent}{name}: {short}"
        else:
            yield f"{indent}{name}:"
            yield from _below(each, f"{indent}  ")


def _below(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, str):
        yield from _text(value, indent)
    elif len(indent) >= 2 * _DEEPEST:
        yield f"{indent}= {_json(value)}"
    elif isinstance(value, Mapping) and value:
        yield from _mapping(value, indent)
    elif isinstance(value, list) and value:
        for each in value:
            if (short := _short(each)) is not None:
                yield f"{indent}- {short}"
            else:
                yield f"{indent}-"
                yield from _below(each, f"{indent}  ")
    else:
        yield f"{indent}= {_json(value)}"


def _short(value: Any) -> str | None:
    """Return JSON that fits into a line; None: it has to stand below."""
    if isinstance(value, str) and ("\n" in value or len(value) > _WIDTH):
        return None
    text = _json(value)
    numbers = isinstance(value, list) and all(isinstance(each, (int, float)) for each in value)
    return text if len(text) <= _WIDTH or numbers or not isinstance(value, (str, list, Mapping)) else None


def _text(text: str, indent: str) -> Iterator[str]:
    for line in text.split("\n"):
        if _UNSEEN.search(line) or line != line.rstrip():
            yield indent + _json(line)
        else:
            yield f"{indent}| {line}".rstrip()


def _json(value: Any) -> str:
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(value, ensure_ascii=False))


def read(text: str, name: str) -> list[Entry]:
    """Return what stands on the tape *name*.

    Raises:
        TapeError: it is damaged; the line is said.
    """
    return _Reader(text, name).entries()


def damaged(name: str, line: int, what: str) -> TapeError:
    """Return the error for a *line* of the tape *name* in which *what* is wrong, with the ways out."""
    return TapeError(f"the tape {name!r} is damaged in line {line}: {what}. Mend it, or delete it and record again")


class _Reader:
    """Goes down a text, line by line."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.split("\n")
        self._name = name
        self._at = 0

    def entries(self) -> list[Entry]:
        """Return all exchanges."""
        found = re.fullmatch(rf"{_HEAD} (\d{{1,9}})", self._lines[0].rstrip("\r"))
        if not found:
            raise TapeError(f"{self._name!r} is no tape: its first line should be '{_HEAD} {_VERSION}'")
        if int(found[1]) > _VERSION:
            raise TapeError(f"the tape {self._name!r} is from a newer chatmagic (its version is {found[1]})")
        self._lines = [line.removesuffix("\r") for line in self._lines]
        self._at = 1
        entries = []
        while self._peek() is not None:
            entries.append(self._entry())
        return entries

    def _peek(self) -> str | None:
        """Return the next line that holds something; None: there is none."""
        while self._at < len(self._lines) and not self._lines[self._at].strip():
            self._at += 1
        return self._lines[self._at] if self._at < len(self._lines) else None

    def _damaged(self, what: str) -> TapeError:
        line = self._lines[self._at] if self._at < len(self._lines) else ""
        if re.match(r"(<{7}|={7}|>{7})( |$)", line):
            what = "a conflict of git. Take one side as a whole (git checkout --ours or --theirs)"
        return damaged(self._name, self._at + 1, what)

    def _entry(self) -> Entry:
        line = self._peek() or ""
        head = _EXCHANGE.fullmatch(line)
        if not head:
            raise self._damaged(f"an exchange begins with '--- LABEL PATH', found {line[:40]!r}")
        number = self._at + 1
        self._at += 1
        settings = self._mapping(0)
        asked, answered = list(self._items(">")), list(self._items("<"))
        line = self._peek() or ""
        end = re.fullmatch(r"= (\d{1,6}\.\d) (\d{1,6}\.\d)", line)
        if not end:
            raise self._damaged(f"a line of text behind '| ', or '= SECONDS SECONDS' is needed, found {line[:40]!r}")
        self._at += 1
        system, items = parted(asked)
        return Entry(
            head["label"],
            head["path"],
            settings,
            items,
            Answer(answered, self._mapping(0)),
            (float(end[1]), float(end[2])),
            system,
            head["after"] or "",
            None if head["count"] is None else int(head["count"]),
            bool(head["bare"]),
            number,
        )

    def _items(self, sign: str) -> Iterator[Any]:
        while (line := self._peek()) is not None and line.startswith(f"{sign} "):
            role = line[2:]
            if role not in (":", "-") and not _NAME.fullmatch(role):
                raise self._damaged(f"{role[:40]!r} is no role")
            self._at += 1
            if role == ":":
                yield self._below(2)
                continue
            item = {} if role == "-" else {"role": role}
            item |= self._mapping(0)
            if (text := self._text(0)) is not None:
                item["content"] = text
            yield item

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (rest := self._of(indent)) is not None and (entry := _ENTRY.fullmatch(rest)):
            name = entry[1] if entry[1][0] != '"' else self._json(entry[1])
            self._at += 1
            found[name] = self._below(indent + 2) if entry[2] is None else self._json(entry[2], back=1)
        return found

    def _of(self, indent: int) -> str | None:
        """Return the next line, if it stands exactly so far in, from there on."""
        line = self._peek()
        if line is None or len(line) - len(line.lstrip(" ")) != indent:
            return None
        return line[indent:]

    def _below(self, indent: int) -> Any:
        """Return the value that stands *indent* blanks in."""
        if indent > 2 * _DEEPEST:
            raise self._damaged(f"it nests more than {_DEEPEST} levels deep")
        if (text := self._text(indent)) is not None:
            return text
        rest = self._of(indent) or ""
        if rest.startswith("= "):
            self._at += 1
            return self._json(rest[2:], back=1)
        if rest == "-" or rest.startswith("- "):
            return self._list(indent)
        if found := self._mapping(indent):
            return found
        raise self._damaged(f"a value should stand here, {indent} blanks in")

    def _list(self, indent: int) -> list[Any]:
        found = []
        while (rest := self._of(indent)) is not None and (rest == "-" or rest.startswith("- ")):
            self._at += 1
            found.append(self._below(indent + 2) if rest == "-" else self._json(rest[2:], back=1))
        return found

    def _text(self, indent: int) -> str | None:
        lines = []
        while (rest := self._of(indent)) is not None and (rest[:1] == "|" or _QUOTED.fullmatch(rest)):
            if rest[0] == '"':
                lines.append(self._json(rest))
            elif rest == "|" or rest.startswith("| "):
                lines.append(rest[2:])
            else:
                raise self._damaged("a blank belongs behind the bar")
            self._at += 1
        return "\n".join(lines) if lines else None

    def _json(self, text: str, back: int = 0) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            self._at -= back
            raise self._damaged(f"{text[:40]!r} is no JSON") from None


def parted(items: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the system messages that stand before all others, and those."""
    split = next((number for number, item in enumerate(items) if not _is_system(item)), len(items))
    return list(items[:split]), list(items[split:])


def _is_system(item: Any) -> bool:
    return isinstance(item, Mapping) and item.get("role") in ("system", "developer")
