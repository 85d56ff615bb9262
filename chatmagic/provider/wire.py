"""What a server sends, byte by byte -> events."""

from __future__ import annotations

import codecs
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR
from typing import Any

import httpx2

from chatmagic.events import Delta, Event, Finished, Reasoning, Used
from chatmagic.plain import one_line
from chatmagic.provider.failures import clean, no_reply, server_error
from chatmagic.provider.reports import timed, usage_in

__all__ = ["events", "json_object", "objects", "vectors_in"]

_LARGEST = 1e30  # a number of a vector; NaN is none


def events(response: httpx2.Response, key: str | None) -> Iterator[Event]:
    """Yield what a reply says, and read its body to the end, so that the connection can be used again.

    Raises:
        RequestError: the body is no reply, or says that something went wrong. *key* is not in its text.
    """
    answer = _Answer(key)
    for data in objects(response, key):
        if data.get("error"):
            raise server_error(data["error"], key)
        yield from answer.events(data)
    yield from answer.rest()


class _Answer:
    """Turns the chunks of a stream, or one whole answer, into events."""

    def __init__(self, key: str | None) -> None:
        self._key = key
        self._reply = _Halves()
        self._thoughts = _Halves()
        self._refused = False
        self._counted = False

    def events(self, data: dict[str, Any]) -> Iterator[Event]:
        """Yield what one chunk says."""
        usage = usage_in(data)
        self._counted = self._counted or usage is not None
        if usage := usage or (None if self._counted else timed(data)):
            yield Used(usage)
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or choice.get("index"):
            return
        said = choice.get("delta") or choice.get("message")
        if isinstance(said, dict):
            if thought := self._thoughts.join(_text(said.get("reasoning_content") or said.get("reasoning"))):
                yield Reasoning(thought)
            refusal = _text(said.get("refusal"))
            self._refused = self._refused or bool(refusal)
            if text := self._reply.join(_text(said.get("content")) + refusal):
                yield Delta(text)
        if (reason := choice.get("finish_reason")) and isinstance(reason, str):
            # The protocol ends a refusal with "stop", in a later chunk.
            refused = self._refused and reason == "stop"
            yield Finished("refusal" if refused else one_line(clean(reason, self._key), limit=40))

    def rest(self) -> Iterator[Event]:
        """Yield what is left when no chunk follows."""
        if rest := self._reply.rest():
            yield Delta(rest)


class _Halves:
    """Joins characters that a server cut in two: JSON may spell one as two escapes, and put them into two deltas."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str) -> str:
        if text.isascii() and not (self._half and text):
            return text
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        text = text[: len(text) - len(self._half)]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def rest(self) -> str:
        return "\ufffd" if self._half else ""


def _text(content: object) -> str:
    """Return the text of a message's content, which is text or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return ""


def objects(response: httpx2.Response, key: str | None) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a body: of every server-sent event, or the one that the whole body is.

    Raises:
        RequestError: the body holds neither, whatever its content type and status say.
    """
    body: list[bytes] = []  # what might be one JSON document, until the first event shows that it is not
    pending = b""
    chunks = response.iter_bytes()
    streaming = found = False
    for line in _lines(chunks):
        if not streaming:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.startswith(b"data:"):
            if pending and not line:
                raise no_reply(response, pending, key)
            if not streaming:
                body.append(line)
            continue
        streaming = True
        payload = line[5:].strip()
        if payload == b"[DONE]":
            _read_to_end(response, chunks)
            return
        pending = pending + b"\n" + payload if pending else payload
        if (data := json_object(pending)) is not None:
            pending, found = b"", True
            yield data
    if found:
        return  # an event that the end has cut is none, says the standard
    if pending or not streaming:
        rest = pending or b"\n".join(body)
        if (data := json_object(rest)) is None or not ({"choices", "error"} & data.keys()):
            raise no_reply(response, rest, key)
        yield data


# A server that forgets to escape a tab, or cuts a character into two events, has still said something.
_DECODER = json.JSONDecoder(strict=False)


def json_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object that *text* is, or None."""
    try:
        data = _DECODER.decode(_decoded(text))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Split at ``\n``, ``\r`` and ``\r\n`` only: U+2028 and its like may stand in the middle of an event."""
    rest: list[bytes] = []
    for chunk in chunks:
        rest.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk and not rest[0].endswith(b"\r"):
            continue
        lines = b"".join(rest).splitlines(keepends=True)
        # A "\r" at the end may be the first half of "\r\n".
        rest = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        for line in lines:
            yield line.rstrip(b"\r\n")
    if rest:
        yield b"".join(rest).rstrip(b"\r\n")


def _read_to_end(response: httpx2.Response, chunks: Iterator[bytes]) -> None:
    """Read what follows the last event, so that the connection can be used again; a second is all it gets."""
    with _deadline(response, seconds=1.0), suppress(httpx2.HTTPError):  # at worst the connection is lost, not the reply
        for _ in chunks:
            pass


@contextmanager
def _deadline(response: httpx2.Response, seconds: float) -> Iterator[None]:
    # Closing the response does not wake a reader on a silent connection; shutting its socket down does.
    network = response.extensions.get("network_stream")
    socket = network.get_extra_info("socket") if network else None
    if socket is None:
        yield
        return
    timer = threading.Timer(seconds, _shut_down, [socket])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(socket: Any) -> None:
    with suppress(OSError):  # it may be gone already
        socket.shutdown(SHUT_RDWR)


def vectors_in(answer: object, count: int) -> list[list[float]] | None:
    """Return the *count* vectors that a server answered with, in the order of the texts; None: these are none."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list) or len(entries) != count or not all(isinstance(each, dict) for each in entries):
        return None
    places = [each.get("index") for each in entries]
    if sorted(place for place in places if isinstance(place, int)) == list(range(count)):
        entries = sorted(entries, key=lambda each: int(each["index"]))
    vectors = [each.get("embedding") for each in entries]
    lengths = {len(each) if isinstance(each, list) else 0 for each in vectors}
    if len(lengths) != 1 or 0 in lengths:
        return None
    if not all(isinstance(value, (int, float)) and abs(value) < _LARGEST for vector in vectors for value in vector):
        return None
    return vectors
