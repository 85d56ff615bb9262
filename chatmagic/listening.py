"""One request: sent until it works, and what comes back of it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from chatmagic.conversation.messages import Status, Turn, Usage
from chatmagic.errors import RequestError
from chatmagic.events import Client, Delta, Event, Finished, Reasoning, Remark, Request, Sending, Used, Waiting

__all__ = ["ENDINGS", "PATIENT", "Came", "Reply", "Retry", "persistently"]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is sent at the most, and the longest wait (seconds) that a server may ask for.

    It is *told* below the reply that there was more than one try.
    """

    tries: int = 4
    longest: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    told: bool = True


PATIENT = Retry()

ENDINGS = {
    "stop": "it just stopped",
    "length": "the reply reached the limit of its length (max_completion_tokens, or the model's context window)",
    "content_filter": "the provider's content filter stopped the reply",
    "refusal": "the model refused to answer",
    "tool_calls": "it asked for tools, and none were offered",
}
"""What it means when a reply ends for a reason."""


@dataclass(frozen=True, slots=True)
class Came:
    """What came back: *text*, *reasoning* before it, what the server says it used, and whether it is *billed* at all.

    *joined* to what an earlier request has brought, it goes on with that.
    """

    text: str
    reasoning: str
    usage: Usage
    billed: bool
    joined: bool = False


class Reply:
    """What has come so far."""

    def __init__(self, notices: list[str] | None = None, begun: str = "") -> None:
        self.notices = notices or []
        self.begun = begun
        """What an earlier request brought; all else is of this one."""
        self.endpoint = ""
        self.usage = Usage()
        self.status: Status = "complete"
        self.finish: str | None = None
        self.trouble = ""
        self.bug: Exception | None = None
        self.refused = False
        """True if a server has said that it does not answer, or there was none."""
        self._parts: list[str] = []
        self._thoughts: list[str] = []
        self._started, self._clock = time.time(), time.perf_counter()

    @property
    def text(self) -> str:
        """What an answer to this request says, as far as it came."""
        return "".join(self._parts)

    @property
    def reasoning(self) -> str:
        """What the model thought before."""
        return "".join(self._thoughts)

    def take(self, event: Event) -> None:
        """Add what came."""
        match event:
            case Delta(text):
                self._parts.append(text)
            case Reasoning(text):
                self._thoughts.append(text)
            case Used(usage):
                # Some report in parts.
                parts = {name: value for name, value in asdict(usage).items() if value is not None}
                self.usage = replace(self.usage, **parts)
            case Finished(reason):
                self.finish = reason
            case Sending(endpoint):
                self.endpoint = endpoint
                # Nothing of a try that failed belongs to the next one.
                self.usage, self.finish, self.refused = Usage(), None, False
                self._parts.clear()
                self._thoughts.clear()
            case Remark(text):
                self.notices.append(text)

    @property
    def came(self) -> Came:
        """What came, as far as it is measured and paid."""
        return Came(self.text, self.reasoning, self.usage, bool(self.endpoint) and not self.refused, bool(self.begun))

    def end(self, status: Status, trouble: str) -> None:
        """Say how it ended, if not well."""
        self.status = status
        self.trouble = trouble

    def turn(self, prompt: str, **belongs: Any) -> Turn:
        """Return the turn that this reply makes with its prompt and what *belongs* to it."""
        return Turn(
            prompt=prompt,
            reply=self.begun + self.text,
            reasoning=self.reasoning,
            endpoint=self.endpoint,
            usage=self.usage,
            status=self.status,
            finish=self.finish,
            started=self._started,
            seconds=time.perf_counter() - self._clock,
            **belongs,
        )

    def nothing(self) -> RequestError:
        """Return the error for a reply that has no text."""
        thought = f" after {len(self.reasoning):,} characters of reasoning" if self.reasoning else ""
        if self.finish is None:
            return RequestError(f"the stream of {self.endpoint} ended{thought} without any text; nothing was stored")
        advice = ENDINGS.get(self.finish, f"it ended with {self.finish!r}")
        return RequestError(f"the model gave no text{thought}: {advice}; nothing was stored")


def persistently(request: Request, reply: Reply, client: Client, retry: Retry) -> Iterator[Event]:
    """Yield the events of the first try that works; a try that has brought text is the last one."""
    attempt = 1
    while True:
        try:
            yield from client.stream(request)
        except RequestError as exc:
            reply.refused = not reply.text.strip()
            wait = 2.0 ** (attempt - 1) * random.uniform(0.75, 1.25) if exc.retry_after is None else exc.retry_after  # noqa: S311 - no secret
            if reply.text.strip() or not exc.retryable or attempt >= retry.tries or wait > retry.longest:
                if attempt > 1:
                    reply.notices.append(f"gave up after {attempt} tries")
                raise
            attempt += 1
            yield from _countdown(f"{exc} (try {attempt} of {retry.tries})", wait, retry.sleep)
            if retry.told:
                yield Remark(f"sent again (try {attempt} of {retry.tries}) because: {exc}")
        else:
            return


def _countdown(reason: str, seconds: float, sleep: Callable[[float], None]) -> Iterator[Waiting]:
    while seconds > 0:
        yield Waiting(reason, math.ceil(seconds))
        sleep(min(seconds, 1.0))
        seconds -= 1.0
