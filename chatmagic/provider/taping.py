"""The transport under the openai client that records and replays, and the tape that runs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2

from chatmagic import files
from chatmagic.errors import ChatMagicError, RequestError, SettingError
from chatmagic.provider.answers import CHAT, Answer, Question, answer_in, path_of, question
from chatmagic.provider.playing import played
from chatmagic.provider.tape import Exchange, Mode, Tape, mode_of
from chatmagic.provider.wire import json_object

__all__ = ["Deck", "TapeTransport", "through"]

_IS_KEY = re.compile(r"(?:^|[-_])(?:key|token|secret|password)$", re.IGNORECASE)
_DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)

Price = Callable[[Mapping[str, Any], Mapping[str, Any]], float | None]
"""What was asked but for the messages, what the server says that it used -> USD; None is unknown."""


Keep = Callable[[bytes, tuple[float, float], bool], None]


class TapeTransport(httpx2.BaseTransport):
    """Answers from *tape*, or lets *inner* answer and keeps that, as the tape's mode says.

    *about* are settings that a request itself does not name; *price* says what an answer has cost when it was recorded.

        OpenAI(http_client=openai.DefaultHttpx2Client(transport=TapeTransport(tape, httpx2.HTTPTransport())))
    """

    def __init__(
        self,
        tape: Tape,
        inner: httpx2.BaseTransport | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        price: Price = lambda *_: None,
    ) -> None:
        self._tape = tape
        self._inner = inner
        self._about = dict(about or {})
        self._price = price

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request.

        Raises:
            TapeError: the tape should answer, and cannot.
        """
        body = json_object(request.read()) if request.method == "POST" else dict(self._about)
        path = path_of(request.method, request.url.path)
        if self._inner is None or self._tape.plays(path, body or {}):
            return self._played(question(path, body or {}, self._tape.hiding()), body or {})
        began = time.perf_counter()
        response = self._inner.handle_request(request)
        if body is None:
            return response  # something that no tape can keep
        hide = self._tape.hiding(_keys_of(request))
        response.request = request  # errors name its URL
        taken = _Taken(response, began, partial(self._keep, question(path, body, hide), hide, response))
        return httpx2.Response(
            response.status_code, headers=response.headers, stream=taken, extensions=response.extensions
        )

    def close(self) -> None:
        """Close the connections."""
        if self._inner is not None:
            self._inner.close()

    def _played(self, asked: Question, body: Mapping[str, Any]) -> httpx2.Response:
        exchange = self._tape.play(asked)
        stream = bool(body.get("stream"))
        options = body.get("stream_options")
        with_usage = bool(options.get("include_usage")) if isinstance(options, Mapping) else False
        how: dict[str, Any] = {"stream": stream, "with_usage": with_usage}
        if self._tape.pace:
            how["pieces"] = _words
        chunks = list(played(asked, exchange.answer, **how))
        headers = {"content-type": "text/event-stream" if stream else "application/json"}
        if self._tape.pace:
            return httpx2.Response(200, headers=headers, stream=_Paced(chunks, exchange))
        return httpx2.Response(200, headers=headers, content=b"".join(chunks))

    def _keep(
        self,
        asked: Question,
        hide: Callable[[str], str],
        response: httpx2.Response,
        body: bytes,
        took: tuple[float, float],
        ended: bool,
    ) -> None:
        # The body may be compressed; a response that is given one reads it as the headers say.
        with suppress(httpx2.DecodingError, RequestError, RecursionError):
            whole = httpx2.Response(
                response.status_code, headers=response.headers, content=body, request=response.request
            )
            if not ended and asked.path == CHAT and not _DONE.search(whole.content):
                return  # what it used may come behind the last word
            if answer := answer_in(asked.path, whole, hide):
                self._tape.keep(asked, self._priced(asked, answer), took)

    def _priced(self, asked: Question, answer: Answer) -> Answer:
        """Add what it has cost: prices change, and a tape answers the same for ever."""
        used = answer.rest.get("usage")
        if not isinstance(used, Mapping) or "cost" in used:
            return answer
        cost = self._price(asked.settings, used)
        return answer if not cost else Answer(answer.items, {**answer.rest, "usage": {**used, "cost": cost}})


def _keys_of(request: httpx2.Request) -> list[str]:
    """Return what *request* shows that it may ask."""
    headers = [request.headers.get(name, "") for name in ("authorization", "api-key", "x-api-key")]
    shown = [each.removeprefix("Bearer ").removeprefix("Basic ") for each in headers]
    return [
        *shown,
        request.url.password,
        *(value for name, value in request.url.params.items() if _IS_KEY.search(name)),
    ]


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [*(f"{word} " for word in words[:-1]), words[-1]]


class _Taken(httpx2.SyncByteStream):
    """Passes a body on as it comes, then gives it to *keep*, with the times, and whether it has ended."""

    def __init__(self, response: httpx2.Response, began: float, keep: Keep) -> None:
        self._response = response
        self._keep: Keep | None = keep
        self._chunks: list[bytes] = []
        self._times = [began]

    def __iter__(self) -> Iterator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, httpx2.SyncByteStream)  # noqa: S101 - the transport of a synchronous client
        for chunk in stream:
            self._times.append(time.perf_counter())
            self._chunks.append(chunk)
            yield chunk
        self._end(ended=True)

    def close(self) -> None:
        self._response.close()
        self._end(ended=False)  # who has all of an answer need not wait for the end of its body

    def _end(self, ended: bool) -> None:
        keep, self._keep = self._keep, None
        if keep is not None and self._chunks:
            began, first, last = self._times[0], self._times[1], self._times[-1]
            keep(b"".join(self._chunks), (first - began, last - first), ended)


class _Paced(httpx2.SyncByteStream):
    """Brings a body as slowly as it came when it was recorded."""

    def __init__(self, chunks: list[bytes], exchange: Exchange) -> None:
        self._chunks = chunks
        self._first, self._rest = exchange.took

    def __iter__(self) -> Iterator[bytes]:
        time.sleep(self._first)
        yield from self._chunks[:1]
        for _, chunk in pairwise(self._chunks):
            time.sleep(self._rest / (len(self._chunks) - 1))
            yield chunk


class _Through(httpx2.BaseTransport):
    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self._client.send(request, stream=True)

    def close(self) -> None:
        self._client.close()


def through(client: httpx2.Client) -> httpx2.BaseTransport:
    """Return a transport that sends as *client* does, by its proxies and with its certificates."""
    return _Through(client)


class Deck:
    """Which tape runs: the one that was put in by hand, else the one that the environment names.

    ``CHATMAGIC_TAPE`` is its file (from the folder where the kernel runs), ``CHATMAGIC_TAPE_MODE`` one of record,
    replay (if it is not set) and auto.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, keys: Callable[[], Collection[str]] = tuple) -> None:
        self._environ = environ
        self._keys = keys
        self._chosen: Tape | None = None
        self._by_hand = False
        self._named: tuple[str, str] = ("", "")
        self._of_environment: Tape | None = None

    @property
    def tape(self) -> Tape | None:
        """The tape that runs; None: there is none.

        Raises:
            SettingError: the environment names a mode that there is not, or a mode and no tape.
            TapeError: the tape that it names cannot be used.
        """
        if self._by_hand:
            return self._chosen
        file, mode = (self._environ.get(name, "").strip() for name in ("CHATMAGIC_TAPE", "CHATMAGIC_TAPE_MODE"))
        if mode and not file:
            raise SettingError(f"CHATMAGIC_TAPE_MODE is {mode!r}, but CHATMAGIC_TAPE names no file")
        if (file, mode) != self._named:
            self._of_environment = self._opened(files.named(file), mode_of(self._environ)) if file else None
            self._named = (file, mode)
        return self._of_environment

    def put_in(self, path: Path, mode: Mode, *, pace: bool = False) -> Tape:
        """Let the tape at *path* run from now on.

        Raises:
            TapeError: it cannot be used; the one before goes on running.
        """
        self._chosen = self._opened(path, mode, pace=pace)
        self._by_hand = True
        return self._chosen

    def take_out(self) -> Tape | None:
        """Let no tape run from now on; return the one that did."""
        before = None
        with suppress(ChatMagicError):  # one that cannot be used runs no more, either
            before = self.tape
        self._chosen, self._by_hand = None, True
        return before

    def _opened(self, path: Path, mode: Mode, *, pace: bool = False) -> Tape:
        return Tape(path.absolute(), mode, pace=pace, keys=self._keys)
