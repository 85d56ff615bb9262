"""What a turn asks: chosen of a history, measured, made shorter where a server finds it too long, and paid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from chatmagic.conversation.caching import KEPT_FROM
from chatmagic.conversation.context import Context, History, Limits, Planner, spans
from chatmagic.conversation.learning import learn, overflowed
from chatmagic.conversation.memory import Beside, recalled
from chatmagic.conversation.messages import Message, Sent, Summary, Turn, Usage
from chatmagic.conversation.policy import is_budget, summarizes
from chatmagic.conversation.session import Session, State
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.spending import Purse, hold, settle
from chatmagic.conversation.tokens import Gauge
from chatmagic.errors import ContextOverflowError, SettingError
from chatmagic.events import Client, Facts
from chatmagic.listening import Came

__all__ = ["Ask", "Find", "limits_of", "paid", "prepared"]

Find = Callable[[str, Sequence[Turn]], Sequence[Turn]]
"""A prompt, turns -> those of them that it may be about, the best one first."""


def limits_of(facts: Facts, asked: Settings, budget: int, gauge: Gauge) -> Limits:
    """Return how long a request may be: as everybody says, and as the model has shown."""
    windows = [each for each in (facts.window, gauge.windows.get(facts.reader)) if each is not None]
    window = facts.window if facts.own else min(windows, default=None)
    room = asked.parameters.get("max_completion_tokens") or asked.parameters.get("max_tokens")
    room = room if isinstance(room, int) and room > 0 else None
    return Limits(facts.reader, window, budget, room, facts.own).under(asked.context or "budget")


def prepared(
    session: Session,
    begin: State,
    prompt: str,
    *,
    client: Client,
    planner: Planner,
    budget: int,
    asked: Settings,
    facts: Sequence[str] = (),
    beside: Sequence[Beside] = (),
    rest_of: Turn | None = None,
) -> Ask:
    """Return what is asked when *prompt* goes out from where *begin* stands, or for the rest of a turn.

    Raises:
        ContextOverflowError: it is longer than it may be.
        SettingError: there is no model, or what is asked for cannot be.
    """
    if asked.model is None:
        raise SettingError("no model: name one with %%chat -m MODEL or %config ChatMagic.model = 'MODEL'")
    history = History(
        session.upto(rest_of or begin.head),
        asked.system,
        prompt,
        begin.pinned | ({rest_of.number or 0} if rest_of else set()),
        tuple(dict.fromkeys([*facts, *begin.facts])),
        tuple(beside),
        begin.cut,
    )
    ask = Ask(planner, client.facts(asked.model, asked.parameters), history, asked, budget)
    if rest_of is None and not asked.recall_model:
        ask.recall(session.tree.words)
    return ask


class Ask:
    """What is asked: chosen of a history, measured, made shorter where a server finds it too long, and paid."""

    def __init__(self, planner: Planner, facts: Facts, history: History, asked: Settings, budget: int) -> None:
        self._planner, self.facts, self.history, self.asked = planner, facts, history, asked
        self.policy = asked.context or "budget"
        self.limits = limits_of(facts, asked, budget, planner.gauge)
        self.context: Context = planner.plan(self.policy, history, self.limits)
        self._takes = ""  # how long a request may be, in the server's words
        self._unsummarized = ""  # why there is no summary of what is cut
        self._unlimited = False  # by a limit of cost, because there is no price
        self._held = 0.0  # USD, of what others may not spend meanwhile
        self._window: int | None = None  # what the server says, until a reply shows that it is true

    def purse(self, session: Session) -> Purse:
        """Return where *session* counts what it spends."""
        raised = f"max_cost=AMOUNT in {session.name!r} (%chat set, --set)"
        return Purse(session.spent, f"session {session.name!r}", self.asked.max_cost, raised)

    def most_cost(self) -> float | None:
        """Return what it may cost (USD): all fresh, with a reply as long as it may be, or as the longest one lately."""
        lately = [turn.usage.output_tokens or 0 for turn in self.history.turns[-10:]]
        return self.facts.cost(Usage(self.context.tokens, self.limits.room or max([500, *lately]), 0))

    def hold(self, purses: Sequence[Purse]) -> None:
        """Keep what it may cost until it is paid, or refuse it because that is more than is allowed.

        Raises:
            SpendingError: it could.
        """
        cost = self.most_cost()
        self._held = hold(purses, cost, sure=self.limits.room is not None)
        self._unlimited = cost is None and any(purse.most is not None for purse in purses)

    def recall(self, find: Find) -> None:
        """Let those turns that are not sent come back with the prompt which *find* says that it may be about."""
        gauge, reader = self._planner.gauge, self.limits.reader
        if not self.asked.recall or not self.context.left_out or not self.history.prompt.strip():
            return
        found: list[Turn] = []
        room = self.limits.most / 4
        for turn in find(self.history.prompt, self.context.left_out):
            length = gauge.turns(reader, [turn])[0]
            if len(found) == self.asked.recall:
                break
            if length <= room:
                found.append(turn)
                room -= length
        if not found:
            return
        found.sort(key=lambda turn: turn.number or 0)
        history = replace(self.history, beside=(*self.history.beside, recalled(found)))
        try:
            self.context = self._planner.plan(self.policy, history, self.limits)
        except ContextOverflowError:
            return  # it would not fit
        self.history = history

    @property
    def to_summarize(self) -> Sequence[Turn]:
        """The turns that nobody has summarized and that are not sent from here on, if that is what the policy wants."""
        cut = self.context.cut
        return self.unread(cut[-1].number or 0) if cut and summarizes(self.policy) else []

    @property
    def unsummarized(self) -> Sequence[Turn]:
        """The turns that nobody has summarized though earlier ones of the same policy have cut them."""
        out = self.context.left_out
        return self.unread(out[-1].number or 0) if out and summarizes(self.policy) else []

    def unread(self, through: int) -> Sequence[Turn]:
        """Return the turns up to number *through* that no summary holds, oldest first."""
        before = self.summary.through if self.summary else 0
        return [turn for turn in self.history.turns if before < (turn.number or 0) <= through]

    def before(self, turns: Sequence[Turn]) -> list[Message]:
        """Return what was sent so far, up to the last of *turns*: as it was sent, so that it is in a cache.

        Nothing, if not all of them were among it.
        """
        sent = {turn.number or 0: turn for turn in (*self.context.cut, *self.context.turns)}
        if not all(turn.number in sent for turn in turns):
            return []
        last = turns[-1].number or 0
        return self.history.messages([sent[each] for each in sorted(sent) if each <= last], self.summary)[:-1]

    @property
    def summary(self) -> Summary | None:
        """The summary that is sent."""
        return self.context.sent.summary if self.context.sent else None

    def summarized(self, summary: Summary) -> bool:
        """Send *summary* in place of what is cut; False: there is no room for it."""
        context = self._planner.summarized(self.context, summary, self.history, self.limits)
        if context is None:
            return False
        self.context = context
        return True

    def not_summarized(self, why: str) -> None:
        """Send nothing in place of what is cut, and say *why*."""
        self._unsummarized = why

    def shorter(self, exc: ContextOverflowError) -> bool:
        """Cut the history that the server found too long; False: it cannot be."""
        gauge, reader = self._planner.gauge, self.facts.reader
        limits = overflowed(gauge, self.context, self.limits, exc)
        if limits is None or not is_budget(self.policy):
            return False
        try:
            context = self._planner.plan(self.policy, self.history, limits)
        except ContextOverflowError:
            return False
        if not context.cut:
            return False
        self._window = max(exc.window or self.context.tokens - 1, gauge.most_read.get(reader, 0))
        self.context, self.limits = context, limits
        self._takes = f" (it takes {exc.window:,} tokens)" if exc.window else ""
        self._unsummarized = ""
        return True

    def about_being_shorter(self) -> str:
        """Return what must be said before a request that was too long is sent again."""
        way = "with a summary of" if self._is_summarized else "without"
        why = f"; {self._why_not}" if self._unsummarized else ""
        return f"the server found the request too long{self._takes}; sent again {way} {self._gone()[0]}{why}"

    @property
    def _is_summarized(self) -> bool:
        return summarizes(self.policy) and not self._unsummarized

    @property
    def _why_not(self) -> str:
        return f"there is no summary, because {self._unsummarized}; %chat compact tries again"

    def remarks(self) -> list[str]:
        """Return what must be said before the request is sent."""
        said = [self._about_the_cut()] if self.context.cut else []
        last = self.history.turns[-1] if self.history.turns else None
        if last and last.sent and (last.size or 0) >= KEPT_FROM and (changed := _changed(last.sent, self.history)):
            said.append(f"{changed} changed, so nothing of the ~{last.size:,} tokens so far is cached")
        if self._unlimited:
            model = self.facts.reader[1]
            said.append(f"max_cost cannot hold here: {model!r} has no known price; give it in ChatMagic.models")
        return said

    def _about_the_cut(self) -> str:
        way = "summarized" if self._is_summarized else "not sent"
        ways = []
        if self._unsummarized:
            ways.append(self._why_not)
        elif not summarizes(self.policy):
            ways.append("--context summary sends a summary instead")
        if self.limits.most == self.limits.budget:
            ways.append("--context all sends everything again")
        return f"{' '.join(self._gone())} {way} from here on: {'; '.join([self.context.why, *ways])}"

    def _gone(self) -> tuple[str, str]:
        cut = self.context.cut
        which = spans(cut, self.context.turns)
        return (f"turn {which}", "is") if len(cut) == 1 else (f"{len(cut)} turns ({which})", "are")

    def learn(self, came: Came) -> tuple[int, list[str]]:
        """Learn from what the server has counted.

        Returns how long (tokens) the line is with this turn, and what is to be said about it.
        """
        reader = self.facts.reader
        gauge = self._planner.gauge
        if self._window is not None:
            gauge.windows[reader] = self._window
        report = learn(
            gauge,
            self.context,
            self.limits,
            came.text,
            came.usage,
            thought=bool(came.reasoning),
            reads_all=self.facts.where == "within",
        )
        size, said = report.size, []
        if report.read is not None:
            taken = f"{gauge.windows[reader]:,} is taken as the window of {reader[1]!r} from now on; if it is not, set"
            doubted = f"the window of {reader[1]!r} seems to be smaller than you say in"
            said.append(
                f"{reader[0]} has read {report.read:,} tokens where ~{self.context.tokens:,} were sent: it seems to "
                f"drop the beginning; {doubted if self.limits.own else taken} ChatMagic.models"
            )
        if self.history.beside:  # it goes with this prompt only
            size -= round(gauge.text(reader, "".join(map(str, self.history.beside))))
        if came.joined:  # the prompt that asked for the rest is not sent again
            size -= round(gauge.prompt(reader, self.history.prompt))
        return size, said

    def pay(self, came: Came, purses: Sequence[Purse]) -> Usage:
        """Count what the request has cost, as far as anybody knows; return what it used, with the cost."""
        return paid(came, self.context.tokens, self.facts, self._planner.gauge, purses, self._held)


def paid(came: Came, tokens: int, facts: Facts, gauge: Gauge, purses: Sequence[Purse], held: float) -> Usage:
    """Count in *purses* what a request of about so many *tokens* has cost; return what it used, with the cost."""
    used = came.usage
    guessed = not used.input_tokens or used.output_tokens is None
    if guessed:
        written = round(gauge.text(facts.reader, came.text + came.reasoning))
        out = written if used.output_tokens is None else used.output_tokens
        used = replace(used, input_tokens=used.input_tokens or tokens, output_tokens=out)
    used = replace(used, cost=facts.cost(used))
    settle(purses, held, used if came.billed or not guessed else None, guessed=guessed)
    # A guess is no report, but what is free is free however much it was.
    return replace(came.usage, cost=used.cost) if not guessed or used.cost == 0 else came.usage


def _changed(before: Sent, history: History) -> str:
    """Say what of the system message is not what it was *before*."""
    if before.system != history.system:
        return "the system prompt has"
    return "the facts have" if before.facts != history.facts else ""
