"""The scripted server in a process of its own, so that its CPU is not counted with ours."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from tests.server import Answer, ChatServer, text_answer

__all__ = ["Far", "far_server"]


def words(body: dict[str, Any]) -> Answer:
    """Answer with as many one-word deltas as the request's ``max_completion_tokens``, ``pause`` seconds apart."""
    return text_answer(
        [f"word{n} " for n in range(body.get("max_completion_tokens", 20))], pause=body.get("pause", 0.0)
    )


class Far:
    """The server's ``url``, and how many TCP connections it has had."""

    def __init__(self, url: str, pipe: Connection[Any, Any]) -> None:
        self.url = url
        self._pipe = pipe

    @property
    def connections(self) -> int:
        self._pipe.send("connections")
        return int(self._pipe.recv())


def _serve(pipe: Connection[Any, Any], answer: Callable[[dict[str, Any]], Answer]) -> None:
    with ChatServer() as server:
        server.otherwise = answer
        pipe.send(server.url)
        while pipe.recv() == "connections":
            pipe.send(server.connections)


@contextmanager
def far_server(answer: Callable[[dict[str, Any]], Answer] = words) -> Iterator[Far]:
    """Run the scripted server elsewhere."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(theirs, answer), daemon=True)
    process.start()
    try:
        yield Far(ours.recv(), ours)
    finally:
        ours.send("stop")
        process.join(5)
