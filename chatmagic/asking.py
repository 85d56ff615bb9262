"""What a turn asks: chosen of a history, measured, made shorter where a server finds it too long, and paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatmagic.conversation.caching import KEPT_FROM
from chatmagic.conversation.context import Context, History, Limits, Planner
from chatmagic.conversation.messages import Turn, Usage
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.spending import Purse
from chatmagic.conversation.tokens import Gauge
from chatmagic.errors import ContextOverflowError
from chatmagic.events import Facts

__all__ = ["Ask", "Came", "limits_of"]


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


def limits_of(facts: Facts, asked: Settings, budget: int, gauge: Gauge) -> Limits:
    """Return how long a request may be: as everybody says, and as the model has shown."""
    windows = [each for each in (facts.window, gauge.windows.get(facts.reader)) if each is not None]
    room = asked.parameters.get("max_completion_tokens") or asked.parameters.get("max_tokens")
    return Limits(
        facts.reader, min(windows, default=None), budget, room if isinstance(room, int) and room > 0 else None
    )


class Ask:
    """What is asked: chosen of a history, measured, made shorter where a server finds it too long, and paid."""

    def __init__(self, planner: Planner, facts: Facts, history: History, asked: Settings, budget: int) -> None:
        self._planner, self._facts, self.history = planner, facts, history
        self.policy = asked.context or "budget"
        self._limits = limits_of(facts, asked, budget, planner.gauge)
        self.context: Context = planner.plan(self.policy, history, self._limits)

    def most_cost(self) -> float | None:
        """Return what it may cost (USD): all of it fresh, with a reply as long as the longest one lately."""
        lately = [turn.usage.output_tokens or 0 for turn in self.history.turns[-10:]]
        return self._facts.cost(Usage(self.context.tokens, self._limits.room or max([500, *lately]), 0))

    def shorter(self, exc: ContextOverflowError) -> str:
        """Cut the history that the server found too long; return what is to be said, or nothing if it cannot be."""
        if not self.policy.startswith("budget"):
            return ""
        self._limits = self._planner.overflowed(self.context, self._limits, exc)
        try:
            context = self._planner.plan(self.policy, self.history, self._limits)
        except ContextOverflowError:
            return ""
        if not context.cut:
            return ""
        self.context = context
        takes = f" (it takes {exc.window:,} tokens)" if exc.window else ""
        return f"the server found the request too long{takes}; sent again without {_these(context.cut)[0]}"

    def remarks(self) -> list[str]:
        """Return what must be said before the request is sent."""
        said = []
        if self.context.cut:
            back = "--context all sends everything again"
            said.append(f"{' '.join(_these(self.context.cut))} not sent from here on: {self.context.why}; {back}")
        last = self.history.turns[-1] if self.history.turns else None
        if last and last.sent and last.sent.system != self.history.system and (last.size or 0) >= KEPT_FROM:
            said.append(f"the system prompt has changed, so nothing of the ~{last.size:,} tokens so far is cached")
        return said

    def learn(self, came: Came) -> tuple[int, list[str]]:
        """Learn from what the server has counted.

        Returns how long (tokens) the line is with this turn, and what is to be said about it.
        """
        reader = self._facts.reader
        report = self._planner.learn(
            self.context,
            reader,
            came.text,
            came.usage,
            thought=bool(came.reasoning),
            reads_all=self._facts.where == "within",
        )
        size, said = report.size, []
        if report.read is not None:
            said.append(
                f"{reader[0]} has read {report.read:,} tokens where ~{self.context.tokens:,} were sent: it seems to "
                f"drop the beginning. {report.read:,} is taken as the window of {reader[1]!r} from now on"
            )
        if came.joined:  # the prompt that asked for the rest is not sent again
            size -= round(self._planner.gauge.prompt(reader, self.history.prompt))
        return size, said

    def pay(self, came: Came, purses: Sequence[Purse]) -> Usage:
        """Count what the request has cost, as far as anybody knows; return what it used, with the cost."""
        used, guessed = came.usage, not came.usage.input_tokens
        if guessed and not came.billed:
            return used
        if guessed:
            written = self._planner.gauge.reply(self._facts.reader, came.text + came.reasoning, used, thought=True)
            used = Usage(self.context.tokens, round(written))
        used = replace(used, cost=self._facts.cost(used))
        for purse in purses:
            purse.spent.add(used, guessed=guessed)
        return came.usage if guessed else used


def _these(turns: Sequence[Turn]) -> tuple[str, str]:
    first, last = turns[0].number, turns[-1].number
    return (f"turn #{first}", "is") if len(turns) == 1 else (f"{len(turns)} turns (#{first} to #{last})", "are")
