"""What a turn asks: chosen of a history, measured, made shorter where a server finds it too long, and paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatmagic.conversation.caching import KEPT_FROM
from chatmagic.conversation.context import Context, History, Limits, Planner, spans
from chatmagic.conversation.learning import learn, overflowed
from chatmagic.conversation.messages import Usage
from chatmagic.conversation.policy import is_budget
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.spending import Purse
from chatmagic.conversation.tokens import Gauge
from chatmagic.errors import ContextOverflowError, SpendingError
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
    window = facts.window if facts.own else min(windows, default=None)
    room = asked.parameters.get("max_completion_tokens") or asked.parameters.get("max_tokens")
    room = room if isinstance(room, int) and room > 0 else None
    return Limits(facts.reader, window, budget, room, facts.own).under(asked.context or "budget")


class Ask:
    """What is asked: chosen of a history, measured, made shorter where a server finds it too long, and paid."""

    def __init__(self, planner: Planner, facts: Facts, history: History, asked: Settings, budget: int) -> None:
        self._planner, self._facts, self.history = planner, facts, history
        self.policy = asked.context or "budget"
        self._limits = limits_of(facts, asked, budget, planner.gauge)
        self.context: Context = planner.plan(self.policy, history, self._limits)
        self._unlimited = False  # by a limit of cost, because there is no price
        self._held = 0.0  # USD, of what others may not spend meanwhile
        self._window: int | None = None  # what the server says, until a reply shows that it is true

    def most_cost(self) -> float | None:
        """Return what it may cost (USD): all fresh, with a reply as long as it may be, or as the longest one lately."""
        lately = [turn.usage.output_tokens or 0 for turn in self.history.turns[-10:]]
        return self._facts.cost(Usage(self.context.tokens, self._limits.room or max([500, *lately]), 0))

    def hold(self, purses: Sequence[Purse]) -> None:
        """Keep what it may cost until it is paid, or refuse it because that is more than is allowed.

        Raises:
            SpendingError: it could.
        """
        cost = self.most_cost()
        held: list[Purse] = []
        try:
            for purse in purses:
                purse.hold(cost, sure=self._limits.room is not None)
                held.append(purse)
        except SpendingError:
            for purse in held:
                purse.spent.release(cost or 0.0)
            raise
        self._held = cost or 0.0
        self._unlimited = cost is None and any(purse.most is not None for purse in purses)

    def shorter(self, exc: ContextOverflowError) -> str:
        """Cut the history that the server found too long; return what is to be said, or nothing if it cannot be."""
        gauge, reader = self._planner.gauge, self._facts.reader
        limits = overflowed(gauge, self.context, self._limits, exc)
        if limits is None or not is_budget(self.policy):
            return ""
        try:
            context = self._planner.plan(self.policy, self.history, limits)
        except ContextOverflowError:
            return ""
        if not context.cut:
            return ""
        self._window = max(exc.window or self.context.tokens - 1, gauge.most_read.get(reader, 0))
        self.context, self._limits = context, limits
        takes = f" (it takes {exc.window:,} tokens)" if exc.window else ""
        return f"the server found the request too long{takes}; sent again without {self._gone()[0]}"

    def remarks(self) -> list[str]:
        """Return what must be said before the request is sent."""
        said = []
        if self.context.cut:
            back = "; --context all sends everything again" if self._limits.most == self._limits.budget else ""
            said.append(f"{' '.join(self._gone())} not sent from here on: {self.context.why}{back}")
        last = self.history.turns[-1] if self.history.turns else None
        if last and last.sent and last.sent.system != self.history.system and (last.size or 0) >= KEPT_FROM:
            said.append(f"the system prompt has changed, so nothing of the ~{last.size:,} tokens so far is cached")
        if self._unlimited:
            model = self._facts.reader[1]
            said.append(f"max_cost cannot hold here: {model!r} has no known price; give it in ChatMagic.models")
        return said

    def _gone(self) -> tuple[str, str]:
        cut = self.context.cut
        which = spans(cut, self.context.turns)
        return (f"turn {which}", "is") if len(cut) == 1 else (f"{len(cut)} turns ({which})", "are")

    def learn(self, came: Came) -> tuple[int, list[str]]:
        """Learn from what the server has counted.

        Returns how long (tokens) the line is with this turn, and what is to be said about it.
        """
        reader = self._facts.reader
        gauge = self._planner.gauge
        if self._window is not None:
            gauge.windows[reader] = self._window
        report = learn(
            gauge,
            self.context,
            self._limits,
            came.text,
            came.usage,
            thought=bool(came.reasoning),
            reads_all=self._facts.where == "within",
        )
        size, said = report.size, []
        if report.read is not None:
            taken = f"{gauge.windows[reader]:,} is taken as the window of {reader[1]!r} from now on; if it is not, set"
            doubted = f"the window of {reader[1]!r} seems to be smaller than you say in"
            said.append(
                f"{reader[0]} has read {report.read:,} tokens where ~{self.context.tokens:,} were sent: it seems to "
                f"drop the beginning; {doubted if self._limits.own else taken} ChatMagic.models"
            )
        if came.joined:  # the prompt that asked for the rest is not sent again
            size -= round(gauge.prompt(reader, self.history.prompt))
        return size, said

    def pay(self, came: Came, purses: Sequence[Purse]) -> Usage:
        """Count what the request has cost, as far as anybody knows; return what it used, with the cost."""
        used = came.usage
        guessed = not used.input_tokens or used.output_tokens is None
        if guessed:
            written = round(self._planner.gauge.text(self._facts.reader, came.text + came.reasoning))
            out = written if used.output_tokens is None else used.output_tokens
            used = replace(used, input_tokens=used.input_tokens or self.context.tokens, output_tokens=out)
        used = replace(used, cost=self._facts.cost(used))
        for purse in purses:
            purse.spent.release(self._held)
            if came.billed or not guessed:
                purse.spent.add(used, guessed=guessed)
        # A guess is no report, but what is free is free however much it was.
        return replace(came.usage, cost=used.cost) if not guessed or used.cost == 0 else came.usage
