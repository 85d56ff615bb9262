"""One session with all that a kernel keeps for it, and answers that report what they used."""

from __future__ import annotations

from typing import Any

from chatmagic.conversation.context import Planner
from chatmagic.conversation.estimate import estimate
from chatmagic.conversation.messages import Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.spending import Purse, Spent
from chatmagic.conversation.tokens import Gauge
from chatmagic.engine import run_turn
from chatmagic.events import Delta, Event, Finished, Sending, Used
from chatmagic.testing import SpyRenderer


class Room:
    """One session with all that a kernel keeps for it."""

    def __init__(self, client: Any, **how: Any) -> None:
        self.client, self.view, self.session = client, SpyRenderer(), Session("main")
        self.planner = Planner(Gauge(estimate))
        self.how = how
        self.spent = Spent()

    def ask(self, prompt: str = "a word or two", **how: Any) -> Turn:
        return run_turn(
            self.session,
            prompt,
            **{
                "client": self.client,
                "renderer": self.view,
                "defaults": Settings({"model": "m"}),
                "planner": self.planner,
                "purse": Purse(self.spent, "this kernel", None, "more"),
                **self.how,
                **how,
            },
        )


def used(said: str, sent: int, came: int = 5, **more: Any) -> list[Event | BaseException]:
    """A reply with a report."""
    return [Sending("fake"), Delta(said), Used(Usage(sent, came, **more)), Finished("stop")]
