"""A chat server on loopback that answers as a test tells it, byte by byte, and remembers what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

__all__ = ["Answer", "ChatServer", "chunk", "sse", "text_answer"]


@dataclass
class Answer:
    """One response: *parts* go out as chunks; a number among them is a pause in seconds, ``CUT`` drops the connection."""

    parts: Sequence[bytes | float | str] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})


CUT = "cut"


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


class ChatServer:
    """Gives the prepared answers in turn, then ``pong`` for ever; ``url`` is its base URL."""

    def __init__(self) -> None:
        self.answers: list[Answer | Callable[[dict[str, Any]], Answer]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.broken = threading.Event()
        """Set when a client has gone away while it was being answered."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
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

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                answer = server.answers.pop(0) if server.answers else text_answer("pong")
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
                        elif isinstance(part, bytes) and part:
                            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                            self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    server.broken.set()
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
