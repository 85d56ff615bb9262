"""How long a person waits, in a real kernel: from the first delta to the first words on the screen, from stop to idle.

Run with ``python -m tests.bench.latency``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tests.kernel import RealKernel
from tests.server import Answer, ChatServer, chunk, sse

RUNS = 15


def slow_reply(sent: list[float], silence: float) -> Iterator[bytes | float | str]:
    """Say nothing for *silence* seconds, then a word, note when, then one word every tenth of a second."""
    yield silence
    sent.append(time.time())
    yield sse(chunk("first "))
    for _ in range(10):
        yield 0.1
        yield sse(chunk("word "))
    yield sse(chunk(finish="stop"), "[DONE]")


def stream(parts: Iterable[bytes | float | str]) -> Answer:
    """Answer with parts that are made while they are sent."""
    return Answer(parts)  # type: ignore[arg-type]  # any iterable serves


def first_words(kernel: RealKernel, server: ChatServer, silence: float) -> list[float]:
    """Return the milliseconds between sending the first delta and the arrival of its words at the front end."""
    waits = []
    for _ in range(RUNS):
        sent: list[float] = []
        server.answers.append(stream(slow_reply(sent, silence)))
        ran = kernel.run("%%chat --once\nhi")
        arrived = next(m["arrived"] for m in ran.messages if "first" in str(m["content"].get("data")))
        waits.append((arrived - sent[0]) * 1000)
    return waits


def stops(kernel: RealKernel, server: ChatServer, silence: float, after: float) -> list[float]:
    """Return the milliseconds between the stop button, pressed *after* so many seconds, and an idle kernel."""
    waits = []
    for _ in range(RUNS):
        server.answers.append(stream(slow_reply([], silence)))
        pressed: list[float] = []

        def press(message: dict[str, Any], pressed: list[float] = pressed) -> None:
            if message["msg_type"] == "execute_input":
                time.sleep(after)
                pressed.append(time.time())
                kernel.interrupt()

        ran = kernel.run("%%chat --once\nhi", on_message=press)
        assert "stopped" in ran.error, ran
        waits.append((ran.messages[-1]["arrived"] - pressed[0]) * 1000)
    return waits


def row(name: str, waits: list[float]) -> None:
    """Print median and range."""
    print(f"{name:48} {statistics.median(waits):6.1f} ms ({min(waits):.1f}–{max(waits):.1f})")


def main() -> None:
    """Print a table."""
    with ChatServer() as server, RealKernel({"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-bench"}) as kernel:
        kernel.run("%load_ext chatmagic")
        kernel.run("%%chat warm\nup")
        row("first delta to words, server quick (20 ms)", first_words(kernel, server, 0.02))
        row("first delta to words, after 1 s of silence", first_words(kernel, server, 1.0))
        row("stop to idle, in mid-stream", stops(kernel, server, 0.02, 0.5))
        row("stop to idle, before the first word", stops(kernel, server, 20.0, 0.5))


if __name__ == "__main__":
    main()
