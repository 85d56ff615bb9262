"""A list in a JSON file of any size, element by element."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from chatmagic.errors import RecordError

__all__ = ["LARGEST", "elements", "loaded"]

LARGEST = 256 * 1024 * 1024  # bytes of one conversation, or of a file that must be read as a whole
DEEPEST = 200  # levels; a message has a dozen
_CHUNK = 1024 * 1024

_FOUR_BYTES = re.compile(rb"[\xf0-\xf7][\x80-\xbf]{3}")

# All up to the next bracket; a string that is not over yet ends it, too. At most 1,000 strings at a time, as each takes
# memory; no possessive groups, as Python before 3.11.5 gets them wrong (https://github.com/python/cpython/issues/106052).
_FLAT = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*"[^"\[\]{}]*+){0,1000}', re.DOTALL)
_INSIDE = re.compile(rb"[^\"\\]*+(?:\\.[^\"\\]*+)*", re.DOTALL)


def loaded(text: bytes | str) -> Any:
    """Return what the JSON *text* says.

    Raises:
        RecordError: it is no JSON, not in UTF-8, or nests too deep.
    """
    try:
        if isinstance(text, bytes):
            text = _slim(text).decode("utf-8")
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except UnicodeDecodeError:
        raise RecordError("it is not in UTF-8. Save it as UTF-8 first") from None
    except RecursionError:
        raise RecordError("it nests too deep") from None
    except json.JSONDecodeError as exc:
        raise RecordError(f"it is no whole JSON: {exc.msg} in line {exc.lineno:,}, column {exc.colno:,}") from None
    except ValueError:
        raise RecordError("it holds a number that JSON cannot have") from None


def _slim(text: bytes) -> bytes:
    """Return JSON that says the same as *text*, and takes half of the memory when it is decoded.

    A single character of four bytes would make Python keep each of the others in four bytes, too.
    """
    return text if len(text) < _CHUNK else _FOUR_BYTES.sub(_escaped, text)


def _escaped(character: re.Match[bytes]) -> bytes:
    return json.dumps(character[0].decode("utf-8"))[1:-1].encode()


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value


def elements(read: Callable[[int], bytes]) -> Iterator[Any]:
    """Yield each list or object in the list that *read* gives bytes of; other elements are nothing.

    For one that cannot be read the error is yielded: those behind it may be sound.

    Raises:
        RecordError: the list breaks off, an element nests too deep or is too long.
    """
    scan = _Scan()
    while chunk := read(_CHUNK):
        yield from scan.feed(chunk)
    if scan.depth or scan.in_string:
        raise RecordError("the file breaks off")


class _Scan:
    """Where in a list the bytes stand that were read last."""

    def __init__(self) -> None:
        self.depth = 0
        self.in_string = False
        self._rest = b""  # a backslash at the end of a chunk
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Any]:
        """Yield what ends within *chunk*."""
        data, self._rest = self._rest + chunk, b""
        at = start = 0
        while at < len(data):
            at = self._past_text(data, at)
            if at >= len(data):
                break
            if data[at] == 0x5C:
                data, self._rest = data[:at], data[at:]
                break
            sign, at = data[at], at + 1
            if sign == 0x22:
                self.in_string = True
            elif sign in b"[{":
                self.depth += 1
                if self.depth == 2:
                    start = at - 1
                elif self.depth > DEEPEST:
                    raise RecordError(f"it nests more than {DEEPEST} levels deep")
            else:
                self.depth -= 1
                if self.depth == 1:
                    yield self._whole(data[start:at])
                    start = at
                elif self.depth < 0:
                    raise RecordError("something stands behind the end of its list")
        if self.depth > 1:
            self._keep(data[start:])

    def _past_text(self, data: bytes, at: int) -> int:
        """Return where the next bracket is, the beginning of a string that does not end, or a backslash at the end."""
        if self.in_string:
            at = _end(_INSIDE, data, at)
            if at >= len(data) or data[at] == 0x5C:
                return at
            self.in_string, at = False, at + 1
        return _end(_FLAT, data, at)

    def _whole(self, last: bytes) -> Any:
        self._keep(last)
        text = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        texts = [text]
        del text  # it can be long, and is needed no more when it is decoded
        try:
            return loaded(texts.pop())
        except RecordError as exc:
            return exc

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > LARGEST:
            raise RecordError(f"a conversation of it is longer than {LARGEST >> 20} MB")
        self._pieces.append(piece)


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    return match.end() if match else at
