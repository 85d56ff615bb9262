"""A client whose replies another thread can stop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from chatmagic.events import Client, Event, Facts, Request

__all__ = ["Stoppable", "pause_until"]

_TICK = 0.1  # seconds between two looks at whether somebody has stopped it


class Stoppable:
    """Asks *client*; once *stop* is set a reply ends as if the user had interrupted it, even if its server is silent.

    Nothing frees a thread that reads from a silent server, so another one reads; nobody waits for that one any more.
    """

    def __init__(self, client: Client, stop: threading.Event) -> None:
        self._client, self._stop = client, stop

    def facts(self, model: str, parameters: Mapping[str, Any]) -> Facts:
        """Return what is known of a model."""
        return self._client.facts(model, parameters)

    def embed(self, model: str, texts: Sequence[str]) -> tuple[Sequence[Sequence[float]], int | None]:
        """Return a vector for each of *texts*; this cannot be stopped."""
        return self._client.embed(model, texts)

    def stream(self, request: Request) -> Iterator[Event]:
        """Yield what the server says.

        Raises:
            KeyboardInterrupt: it was stopped.
        """
        if self._stop.is_set():
            raise KeyboardInterrupt
        came: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        left = threading.Event()

        def read() -> None:
            events: Iterator[Event] = iter(())
            try:
                events = self._client.stream(request)
                for event in events:
                    came.put(event)
                    if left.is_set():
                        break
                came.put(None)
            except BaseException as exc:
                came.put(exc)
            finally:
                # An abandoned stream would keep the server writing.
                getattr(events, "close", lambda: None)()

        threading.Thread(target=read, daemon=True).start()
        try:
            while True:
                is_over = self._stop.is_set()
                try:
                    event = came.get(block=not is_over, timeout=_TICK)  # what has come is not lost by a stop
                except queue.Empty:
                    if is_over:
                        raise KeyboardInterrupt from None
                    continue
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            left.set()


def pause_until(stop: threading.Event) -> Callable[[float], None]:
    """Return what waits for some seconds, and ends like an interrupt if *stop* is set meanwhile."""

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise KeyboardInterrupt

    return pause
