"""Doubles for the two ends of a turn, for our tests and for those of users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from chatmagic.conversation.messages import Turn, Usage
from chatmagic.events import Delta, Event, Facts, Finished, Place, Request, Sending, Used

__all__ = ["FakeClient", "Prepared", "SpyRenderer"]

Prepared = str | BaseException | Sequence[Event | BaseException]
"""The text of a reply, an exception to raise, or a list of events (and exceptions) to go through."""


class FakeClient:
    """A client that gives prepared ``answers``, one a request, and keeps the ``requests``.

    Without answers left it repeats the newest prompt. It counts words as tokens; *window* is how many its model
    takes, *cost* what they cost (USD), and *where* it seems to be.
    """

    def __init__(
        self,
        *answers: Prepared,
        window: int | None = None,
        cost: Callable[[Usage], float | None] = lambda _: None,
        where: Place = "within",
    ) -> None:
        self.requests: list[Request] = []
        self.window = window
        self.own = False
        self.cost = cost
        self.where = where
        self.listed: dict[str, list[str]] = {}
        self.answers: list[Prepared] = list(answers)

    def facts(self, model: str, parameters: Mapping[str, Any]) -> Facts:  # noqa: ARG002 - the Protocol's shape
        """Return what the fake was made with."""
        return Facts(("fake", model), self.window, self.own, cost=self.cost, where=self.where)

    def stream(self, request: Request) -> Iterator[Event]:
        """Yield the next answer."""
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else request.messages[-1].content
        for event in self._events(request, answer):
            if isinstance(event, BaseException):
                raise event
            yield event

    def embed(self, model: str, texts: Sequence[str]) -> tuple[Sequence[Sequence[float]], int | None]:  # noqa: ARG002
        """Return for each text which of a hundred kinds of words it has."""
        kinds = [{sum(map(ord, word)) % 100 for word in text.lower().split()} for text in texts]
        vectors = [[float(number in each) for number in range(100)] for each in kinds]
        return vectors, sum(len(text.split()) for text in texts)

    def models(self, name: str) -> list[str]:
        """Return one model for any endpoint."""
        return [f"{name}-model"]

    def look_up(self, model: str) -> None:
        """Do nothing: all is known."""

    def close(self) -> None:
        """Do nothing: there is no connection."""

    @staticmethod
    def _events(request: Request, answer: Prepared) -> Sequence[Event | BaseException]:
        if isinstance(answer, BaseException):
            return [answer]
        if not isinstance(answer, str):
            return answer
        sent = sum(len(message.content.split()) for message in request.messages)
        usage = Usage(input_tokens=sent, output_tokens=len(answer.split()))
        return [Sending("fake", instant=True), Delta(answer), Used(usage), Finished("stop")]


class SpyRenderer:
    """A renderer that keeps what it was shown: ``events``, the ``turns`` and their ``notices``, and ``failures``."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self.events: list[Event] = []
        self.turns: list[Turn] = []
        self.notices: list[str] = []
        self.failures: list[list[str]] = []

    @property
    def text(self) -> str:
        """The text that was shown while it streamed."""
        return "".join(event.text for event in self.events if isinstance(event, Delta))

    def start(self, session: str, model: str) -> None:
        """Keep the session's name and the model."""
        self.started.append((session, model))

    def show(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def finish(self, session: str, turn: Turn, notices: Sequence[str]) -> None:  # noqa: ARG002 - the Protocol's shape
        """Keep the turn and its notices."""
        self.turns.append(turn)
        self.notices += notices

    def fail(self, notices: Sequence[str]) -> None:
        """Keep that there was no turn."""
        self.failures.append(list(notices))
