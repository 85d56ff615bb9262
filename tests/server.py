"""Servers that answer as a test tells them, byte by byte, and keep what they were sent, on loopback or in memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx2

from chatmagic.conversation.messages import Message
from chatmagic.events import Delta, Event, Request
from chatmagic.provider.client import OpenAIClient

__all__ = ["CUT", "HANG_UP", "KEY", "Answer", "ChatServer", "Wire", "asking", "chunk", "said", "sse", "text_answer"]

KEY = "sk-test-0123456789"
"""The key that a `Wire` has in its environment."""


@dataclass
class Answer:
    """One response: *parts* go out as chunks; a number among them is a pause in seconds.

    ``CUT`` drops the connection there, ``HANG_UP`` does so after the answer, without a word about it in the headers.
    """

    parts: Sequence[bytes | float | str] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})


CUT = "cut"
HANG_UP = "hang up"


def chunk(content: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One object of a stream."""
    said = {**delta, **({"content": content} if content is not None else {})}
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def sse(*objects: dict[str, Any] | str) -> bytes:
    """Objects as server-sent events."""
    return b"".join(
        b"data: " + (each if isinstance(each, str) else json.dumps(each)).encode() + b"\n\n" for each in objects
    )


def text_answer(
    text: str | Iterable[str], usage: tuple[int, int] | None = (10, 5), finish: str = "stop", pause: float = 0.0
) -> Answer:
    """A whole reply, word by word or as it is cut, with usage as OpenAI reports it."""
    words = [text] if isinstance(text, str) else list(text)
    parts: list[bytes | float | str] = []
    for word in words:
        parts += [sse(chunk(word)), *([pause] if pause else [])]
    parts.append(sse(chunk(finish=finish)))
    if usage:
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        parts.append(sse({"choices": [], "usage": counts}))
    return Answer([*parts, sse("[DONE]")])


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # the sixth of six threads that connect at once would wait for a second


class ChatServer:
    """Gives the prepared answers in turn, then what ``otherwise`` says (``pong``); ``url`` is its base URL."""

    def __init__(self) -> None:
        self.answers: list[Answer | Callable[[dict[str, Any]], Answer]] = []
        self.otherwise: Callable[[dict[str, Any]], Answer] = lambda _: text_answer("pong")
        self.models: list[dict[str, Any]] = []
        """What it lists, entry by entry."""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.broken = threading.Event()
        """Set when a client has gone away while it was being answered."""
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler below has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # with it, small packets wait for each other

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_GET(self) -> None:
                body = json.dumps({"object": "list", "data": server.models}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                answer = server.answers.pop(0) if server.answers else server.otherwise(body)
                self._send(answer(body) if callable(answer) else answer)

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for part in answer.parts:
                        if isinstance(part, float):
                            time.sleep(part)
                        elif part == CUT:
                            self.close_connection = True
                            return
                        elif part == HANG_UP:
                            self.close_connection = True
                        elif isinstance(part, bytes) and part:
                            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                            self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    server.broken.set()
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
                pass

        return Handler


def asking(*said: str, model: str = "m", stream: bool = True, **parameters: Any) -> Request:
    """A request whose messages alternate between user and assistant."""
    messages = [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(said or ("hi",))]
    return Request(model, messages, parameters, stream)


def said(events: Iterable[Event]) -> str:
    """The text that *events* bring."""
    return "".join(event.text for event in events if isinstance(event, Delta))


class Wire:
    """The network behind one `client`, which gives the prepared answers in turn and keeps the ``requests``.

    An answer is the bytes of an event stream (as a list: the pieces in which they come, of which an exception breaks
    the stream), a whole response, or an exception instead of one. The last answer is repeated.
    """

    def __init__(
        self,
        *answers: bytes | Sequence[bytes | Exception] | httpx2.Response | Exception,
        endpoint: str = "openai",
        environ: Mapping[str, str] | None = None,
        endpoints: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.requests: list[httpx2.Request] = []
        self.answers = list(answers)
        self.client = OpenAIClient(
            endpoints,
            transports={endpoint: lambda: httpx2.MockTransport(self._respond)},
            environ={"OPENAI_API_KEY": KEY} if environ is None else environ,
        )

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The JSON of the requests."""
        return [json.loads(request.content) for request in self.requests]

    def ask(self, *said: str, **how: Any) -> list[Event]:
        """Ask once, and return all that came."""
        return list(self.client.stream(asking(*said, **how)))

    def _respond(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx2.Response):
            return answer
        pieces = [answer] if isinstance(answer, bytes) else answer
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=_Pieces(pieces))


class _Pieces(httpx2.SyncByteStream):
    def __init__(self, pieces: Sequence[bytes | Exception]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece
