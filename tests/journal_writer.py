"""A process that chats and writes it down, to be killed: ``python -m tests.journal_writer PLACE NAME TURNS PAUSE``.

It can write to a file, for each piece of a reply, when it was shown and which it was.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import chatmagic.journal.tables  # noqa: F401
from chatmagic.conversation.messages import Turn
from chatmagic.events import Delta, Event, Finished, Request, Sending
from chatmagic.kernel import Kernel
from chatmagic.testing import FakeClient, SpyRenderer

WORDS = 120


class Streaming(FakeClient):
    """A client whose replies come word by word."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause = pause

    def stream(self, request: Request) -> Iterator[Event]:
        yield Sending("fake")
        for number in range(WORDS if self.pause else 1):
            if self.pause:
                time.sleep(self.pause)
            yield Delta(f"{request.messages[-1].content}.{number} ")
        yield Finished("stop")


class Screen(SpyRenderer):
    """Writes what is shown to a file, with its time."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def show(self, event: Event) -> None:
        if isinstance(event, Delta):
            # One write, so that a kill leaves whole lines.
            os.write(self.file, f"{time.time():.4f} {event.text.strip()}\n".encode())

    def finish(self, session: str, turn: Turn, notices: Any) -> None:  # noqa: ARG002 - the Protocol's shape
        for notice in notices:
            os.write(2, f"{notice}\n".encode())


def main(place: str, name: str, turns: int, pause: float, screen: str = os.devnull) -> None:
    kernel: Any = Kernel(Streaming(pause))
    traits = {"journal": place, "model": "fake", "context": "last:2", "recall": 0, "summary_model": "", "facts": []}
    traits |= {"budget": 100_000, "max_cost": None, "tries": 1, "longest_wait": 1.0, "vocabulary": "off"}
    traits |= {
        "rerun": "replace",
        "endpoints": {},
        "shell": SimpleNamespace(user_ns={}, execution_count=1, parent_header={}),
    }
    kernel.magics = SimpleNamespace(**traits)
    session, view = kernel.sessions.find(name), Screen(screen)
    for number in range(turns):
        kernel.ask(session, f"{name}-{number}", view=view)
        if number % 5 == 4:
            session.pin(number + 1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
