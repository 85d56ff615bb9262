"""What the next request of a session holds, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from chatmagic.conversation.context import Context, History, Limits
from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.spending import dollars
from chatmagic.conversation.tokens import Gauge
from chatmagic.display.page import Page, table
from chatmagic.plain import one_line

__all__ = ["Preview"]

_ROWS = 60  # messages that are shown: those in the middle of a long history are counted


@dataclass(frozen=True, slots=True)
class Preview:
    """The next request of *session* as it stands: what *policy* made of its *history* within *limits*."""

    session: str
    policy: str
    history: History
    limits: Limits
    context: Context
    gauge: Gauge
    cost: Callable[[Usage], float | None]

    def page(self) -> Page:
        """Return a row a message, what is left out among them."""
        rows = [*self._left_out(), *map(self._row, self._messages())]
        dim = set(range(len(list(self._left_out()))))
        if len(rows) > _ROWS:
            cut = len(rows) - _ROWS
            middle = ["", "", f"… {cut:,} more messages: --json has them all", ""]
            rows[_ROWS // 2 : _ROWS // 2 + cut] = [middle]
        return table(["turn", "role", "text", "tokens"], rows, numbers={3}, whole={0, 3}, dim=dim, note=self._note())

    def json(self) -> str:
        """Return it as JSON: ``messages`` are exactly what is sent, the new prompt excepted."""
        endpoint, model = self.limits.reader
        value = {
            "session": self.session,
            "endpoint": endpoint,
            "model": model,
            "policy": self.policy,
            "tokens": self.context.tokens,
            "reported_tokens": self.context.base,
            "budget": self.limits.budget,
            "window": self.limits.window,
            "cost": self._cost(0),
            "messages": [
                {"role": message.role, "content": message.content, "turn": turn and turn.number, "tokens": tokens}
                for message, turn, tokens in self._messages()
            ],
            "left_out": [
                {"turn": turn.number, "tokens": round(tokens)}
                for turn, tokens in zip(self.context.left_out, self._gone(), strict=True)
            ],
            "why": self.context.why if self.context.left_out else None,
        }
        return json.dumps(value, ensure_ascii=False, indent=2)

    def _messages(self) -> Iterator[tuple[Message, Turn | None, int]]:
        """Yield what stands before the new prompt, whose turn it is of, and about how many tokens it has."""
        whose: list[Turn | None] = [None] * len(self.context.messages)
        if self.context.sent is not None:
            first = 1 if self.history.system else 0
            for number, each in enumerate(self.context.turns):
                whose[first + 2 * number] = whose[first + 2 * number + 1] = each
        for message, turn in zip(self.context.messages[:-1], whose, strict=False):
            yield message, turn, round(self.gauge.message(self.limits.reader, message))

    def _row(self, entry: tuple[Message, Turn | None, int]) -> list[str]:
        message, turn, tokens = entry
        pinned = turn is not None and turn.number in self.history.pinned
        number = f"#{turn.number}{' (pinned)' if pinned else ''}" if turn else ""
        return [number, message.role, one_line(message.content, 60), f"~{tokens:,}"]

    def _left_out(self) -> Iterator[list[str]]:
        gone = self.context.left_out
        if gone:
            numbers = f"#{gone[0].number}" + (f" to #{gone[-1].number}" if len(gone) > 1 else "")
            tokens = sum(self._gone())
            count = f"{len(gone):,} turn{'' if len(gone) == 1 else 's'}"
            yield [numbers, "", f"not sent: {count} ({self.context.why})", f"~{round(tokens):,}"]

    def _gone(self) -> list[float]:
        return self.gauge.turns(self.limits.reader, self.context.left_out)

    def _cost(self, cached: int) -> float | None:
        """Return what it costs (USD) without the new prompt and its reply, if so much is read from the cache."""
        return self.cost(Usage(self.context.tokens, 0, cached))

    def _note(self) -> str:
        endpoint, model = self.limits.reader
        window = self.limits.window
        full = f"{self.context.tokens / window:.0%} of its window of {window:,}" if window else ""
        cut = f"cut to half when it passes {self.limits.most:,}" if self.policy.startswith("budget") else self.policy
        said = f"~{self.context.tokens:,} tokens before the next prompt, for {model} at {endpoint}"
        return " · ".join(filter(None, [said, full, self._price(), cut]))

    def _price(self) -> str:
        fresh, kept = self._cost(0), self._cost(self.context.base or 0)
        if not fresh or kept is None:
            return ""
        return f"~{dollars(fresh)}" + (f", ~{dollars(kept)} from the provider's cache" if kept < fresh else "")
