"""History -> what is sent, within a budget."""

from __future__ import annotations

import difflib
import traceback
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatmagic.conversation.memory import Beside, system_message
from chatmagic.conversation.messages import Cut, Message, Sent, Summary, Turn
from chatmagic.conversation.policy import KNOWN, is_budget, read_policy, summarizes
from chatmagic.conversation.tokens import Gauge, Reader
from chatmagic.errors import ChatMagicError, ContextOverflowError, SettingError
from chatmagic.plain import one_line

__all__ = ["BUDGET", "Context", "ContextPolicy", "History", "Limits", "Planner", "room_for_summary", "spans"]

BUDGET = 200_000
"""Tokens that a request may have if nobody says otherwise: below the price step at 272,000."""

ContextPolicy = Callable[[list[Message]], Sequence[Message | Mapping[str, Any]]]
"""A policy of somebody's own: all messages (system prompt first, new prompt last) -> those to send."""


@dataclass(frozen=True, slots=True)
class History:
    """What could be sent: the line (oldest turn first), the numbers of pinned turns, system prompt, new prompt.

    The *facts* go with the system prompt, what stands *beside* the prompt goes before it. A *cut* is the last one that
    was made by hand.
    """

    turns: Sequence[Turn]
    system: str | None = None
    prompt: str = ""
    pinned: frozenset[int] = frozenset()
    facts: tuple[str, ...] = ()
    beside: tuple[Beside, ...] = ()
    cut: Cut | None = None

    def messages(self, turns: Sequence[Turn], summary: Summary | None = None) -> list[Message]:
        """Return what is sent with these *turns*: one system message first, the new prompt last."""
        system = system_message(self.system, self.facts, summary)
        messages = [Message("system", system)] if system else []
        for turn in turns:
            messages += turn.messages
        messages.append(Message("user", self.newest))
        return messages

    @property
    def newest(self) -> str:
        """The text of the newest message: the prompt, behind what stands beside it."""
        return "".join(map(str, self.beside)) + self.prompt

    def beginnings(self, policy: str) -> Iterator[tuple[int, Summary | None]]:
        """Yield where what is sent may begin, and the summary of what is before: the first that fits is taken."""
        last = self.turns[-1].sent if self.turns else None
        if self.cut is not None and self.cut.holds(self.turns):
            yield self.cut.summary.through + 1, self.cut.summary
        elif last and last.policy == policy:
            yield last.start, last.summary
        else:
            # Whoever has just named another budget may get back what the one before has left out.
            yield 0, None
            if last and last.summary:
                yield last.summary.through + 1, last.summary


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request to *reader* may be, in tokens: its context *window* and the *budget*; None is unknown.

    *room* is what the reply may take of the window, which may be known by the user's *own* word.
    """

    reader: Reader
    window: int | None = None
    budget: int = BUDGET
    room: int | None = None
    own: bool = False

    def under(self, policy: str) -> Limits:
        """Return the limits that hold under *policy*, which may name a budget of its own."""
        count = read_policy(policy)[1]
        return replace(self, budget=count) if is_budget(policy) and count else self

    @property
    def most(self) -> int:
        """How long a request may grow until its history is cut."""
        if self.window is None:
            return self.budget
        # Many give a limit that is just large; half of the window is for what was said before.
        room = min(8_192, self.window // 4) if self.room is None else min(self.room, self.window // 2)
        return min(self.budget, self.window - room)


@dataclass(frozen=True, slots=True, repr=False)
class Context:
    """What a request holds: its *messages*, the *turns* among them, and why others are *left_out*.

    *tokens* is how long it will be, of which *base* were reported by the server for what was said before (None: all is
    an estimate). *cut* are the turns that the last request still had. *sent* is None where a policy of somebody's own
    chose the messages.
    """

    messages: Sequence[Message]
    tokens: int
    base: int | None = None
    turns: Sequence[Turn] = ()
    left_out: Sequence[Turn] = ()
    cut: Sequence[Turn] = ()
    why: str = ""
    sent: Sent | None = None

    def __repr__(self) -> str:
        out = f", {spans(self.left_out, self.turns)} left out" if self.left_out else ""
        return f"<context: {len(self.messages):,} messages, ~{self.tokens:,} tokens{out}>"


class Planner:
    """Decides what the next request holds. *named* finds the functions that people have written as policies."""

    def __init__(self, gauge: Gauge, named: Callable[[str], object] = lambda _: None) -> None:
        self.gauge = gauge
        self._named = named

    def plan(self, policy: str, history: History, limits: Limits) -> Context:
        """Choose by *policy* what is sent of *history*.

        Raises:
            ContextOverflowError: what has to be sent is longer than it may be.
            SettingError: there is no such policy, or what it returns cannot be sent.
        """
        name, count = read_policy(policy)
        if is_budget(policy):
            return self._within(policy, history, limits.under(policy))
        if name in ("all", "last"):
            start = 0 if count is None else _start(history.turns, len(history.turns) - count)
            context = self._from(start, policy, history, limits.reader)
        else:
            context = self._chosen(name, history, limits.reader)
        if self._overflows(context.tokens, limits):
            takes = f"{limits.reader[1]!r} takes {limits.window:,}"
            way_out = "--context summary or budget cuts its history" if context.turns else "Shorten the prompt"
            raise ContextOverflowError(
                f"the request would have ~{context.tokens:,} tokens, and {takes}. {way_out}; nothing was sent",
                window=limits.window,
                size=context.tokens,
            )
        return context

    def _chosen(self, name: str, history: History, reader: Reader) -> Context:
        """Send what somebody's function chooses."""
        messages = _checked(name, self._named(name), history.messages(history.turns))
        chosen = set(map(id, messages))
        turns: list[Turn] = []
        left_out: list[Turn] = []
        for turn in history.turns:
            (turns if chosen & set(map(id, turn.messages)) else left_out).append(turn)
        tokens = round(self.gauge.request(reader, messages))
        return Context(messages, tokens, turns=turns, left_out=left_out, why=f"left out by {name}")

    def _from(
        self, start: int, policy: str, history: History, reader: Reader, summary: Summary | None = None
    ) -> Context:
        """Send the turns from number *start* on, and the pinned ones and the *summary* before them."""
        place = bisect_left(history.turns, start, key=_number)
        turns, left_out = history.turns[place:], history.turns[:place]
        pinned = [turn for turn in left_out if turn.number in history.pinned] if history.pinned else []
        if pinned:
            turns, left_out = [*pinned, *turns], [turn for turn in left_out if turn.number not in history.pinned]
        sent = Sent(
            policy,
            history.system,
            start,
            tuple(map(_number, pinned)),
            facts=history.facts,
            summary=summary,
            recalled=tuple(_number(turn) for each in history.beside for turn in each.turns),
            read=tuple(each.session for each in history.beside if each.session),
        )
        messages = history.messages(turns, summary)
        base = _base(turns, sent, reader)
        more = self.gauge.prompt(reader, history.newest) if base else self.gauge.request(reader, messages)
        tokens = round((base or 0) + more)
        why = f"left out by {policy}" if policy.startswith("last") else "left out by an earlier cut"
        if summary and left_out and _number(left_out[-1]) <= summary.through:
            why = "summarized"
        return Context(messages, tokens, base, turns, left_out, why=why, sent=replace(sent, tokens=tokens))

    def _within(self, policy: str, history: History, limits: Limits) -> Context:
        """Send what was sent before and the new prompt; where that is too long, cut the history once to half."""
        for start, summary in history.beginnings(policy):
            whole = self._from(start, policy, history, limits.reader, summary)
            if whole.tokens <= limits.most:
                return whole
        pinned = [turn for turn in whole.turns if turn.number in history.pinned]
        stays = self.gauge.request(limits.reader, history.messages(pinned, summary))
        if self._overflows(stays, limits) or stays > limits.budget:
            raise self._too_long(policy, history, pinned, summary, round(stays), limits)
        free = [turn for turn in whole.turns if turn.number not in history.pinned]
        lengths = self.gauge.turns(limits.reader, free)
        # What was reported for all of them together is surer than what each is thought to be.
        scale = max(whole.tokens - stays, 0.0) / (sum(lengths) or 1.0)
        kept, room = 0.0, limits.most - stays
        newest = room - room_for_summary(limits) if summarizes(policy) else room
        # The newest turn stays if it can: the new prompt is most likely about it.
        while free and kept + lengths[-1] * scale <= (room / 2 if kept else newest):
            kept += lengths.pop() * scale
            free.pop()
        start = _number(free[-1]) + 1 if free else start
        context = self._from(start, policy, history, limits.reader, summary)
        tokens = round(stays + kept)
        sent = context.sent and replace(context.sent, tokens=tokens)
        why = _because(len(free), whole.tokens, limits)
        return replace(context, tokens=tokens, base=None, cut=free, why=why, sent=sent)

    def _overflows(self, tokens: float, limits: Limits) -> bool:
        """True if a request of so many *tokens* will not do; where all is a guess, only if it is far from it."""
        slack = 1.0 if self.gauge.knows(limits.reader) else 1.25
        return limits.window is not None and tokens > limits.window * slack

    def summarized(self, context: Context, summary: Summary, history: History, limits: Limits) -> Context | None:
        """Return what is sent when a *summary* stands for what *context* leaves out; None: there is no room for it."""
        assert context.sent is not None  # noqa: S101 - only our own policies cut
        before = context.sent.summary
        after = self._from(context.sent.start, context.sent.policy, history, limits.reader, summary)
        less = self.gauge.text(limits.reader, before.text) if before else 0.0
        tokens = round(context.tokens + self.gauge.text(limits.reader, summary.text) - less)
        # A long prompt may have left less than there should be for the reply.
        if tokens > limits.most and (tokens > limits.budget or self._overflows(tokens, limits)):
            return None
        return replace(
            after,
            tokens=tokens,
            base=None,
            cut=context.cut,
            why=context.why,
            sent=after.sent and replace(after.sent, tokens=tokens),
        )

    def _too_long(
        self,
        policy: str,
        history: History,
        pinned: Sequence[Turn],
        summary: Summary | None,
        tokens: int,
        limits: Limits,
    ) -> ContextOverflowError:
        there = {
            "the system prompt": history.system,
            "the facts": history.facts,
            "the summary": summary,
            "pinned turns": pinned,
            "what is recalled or read": history.beside,
        }
        along = [each for each, is_there in there.items() if is_there]
        what = f"with {' and '.join(along)}" if along else "alone"
        has = f"the prompt {what} would be ~{tokens:,} tokens"
        if limits.window is not None and tokens > limits.window:
            way_out = "Shorten it, unpin turns, or ask a model with a larger window (-m)"
            said = f"{has}, and {limits.reader[1]!r} takes {limits.window:,}. {way_out}"
        else:
            name = policy.partition(":")[0]
            said = f"{has}, more than the budget of {limits.budget:,}. --context {name}:{_rounded_up(tokens)} allows it"
        return ContextOverflowError(f"{said}; nothing was sent", window=limits.window, size=tokens)


def room_for_summary(limits: Limits) -> int:
    """Return how many tokens a summary may have."""
    return min(4_000, limits.most // 4)


def _number(turn: Turn) -> int:
    return turn.number or 0


def _start(turns: Sequence[Turn], place: int) -> int:
    """Return the number from which on the turns behind *place* are."""
    if place <= 0:
        return 0
    return _number(turns[place]) if place < len(turns) else _number(turns[-1]) + 1


def _base(turns: Sequence[Turn], sent: Sent, reader: Reader) -> int | None:
    """Return how long everything up to the newest turn is, if that was sent to *reader* as it will be now."""
    last = turns[-1] if turns else None
    if last is None or last.sent is None or (last.endpoint, last.model) != reader:
        return None
    return last.size if last.sent.begins_like(sent) and _number(last) >= sent.start else None


def _because(count: int, tokens: int, limits: Limits) -> str:
    most = f"the budget of {limits.budget:,}"
    if limits.most < limits.budget:
        most = f"fits, with a reply, into the window of {limits.reader[1]!r} ({limits.window:,})"
    them = "it" if count == 1 else "all of them"
    return f"with {them} the request would have ~{tokens:,} tokens, more than {most}"


def spans(turns: Sequence[Turn], kept: Sequence[Turn]) -> str:
    """Name *turns* by their numbers: ``#2 to #5, #7``; no turn that is *kept* lies within a span."""
    between = sorted(map(_number, kept))
    found: list[list[Turn]] = []
    for turn in turns:
        place = bisect_left(between, _number(turn))
        if found and place == bisect_left(between, _number(found[-1][-1])):
            found[-1].append(turn)
        else:
            found.append([turn])
    return ", ".join(f"#{each[0].number}" + f" to #{each[-1].number}" * (len(each) > 1) for each in found)


def _rounded_up(tokens: int) -> int:
    step: int = 10 ** max(len(str(tokens)) - 2, 0)
    return (tokens // step + 1) * step


def _checked(name: str, function: object, messages: list[Message]) -> list[Message]:
    """Return what somebody's *function* chooses of *messages*, if it can be sent."""
    if not callable(function):
        near = difflib.get_close_matches(name.lower(), ("budget", "summary", "all", "last:4"), n=1)
        slip = f"Did you mean {near[0]}? " if near else ""
        raise SettingError(f"there is no function {name!r} for the context. {slip}Otherwise {KNOWN}")
    try:
        returned = function(messages)
        chosen = None if returned is None or isinstance(returned, str) else list(returned)
    except ChatMagicError:
        raise
    except Exception as exc:
        line = traceback.extract_tb(exc.__traceback__)[-1].lineno
        raise SettingError(
            f"{name}, which chooses the context, failed: {type(exc).__name__}: {exc} (line {line})"
        ) from exc
    found = [_message(each) for each in chosen or ()]
    if not found or found[-1].role != "user":
        raise SettingError(
            f"{name}, which chooses the context, returned {one_line(repr(returned), 60)}: it must return messages, "
            "of which the last is the new prompt"
        )
    return found


def _message(each: object) -> Message:
    if isinstance(each, Message):
        return each
    if isinstance(each, Mapping):
        role, content = each.get("role"), each.get("content")
        if role in ("system", "user", "assistant") and isinstance(content, str):
            return Message(role, content)
    raise SettingError(f"a context policy returns messages (role and content), not {one_line(repr(each), 60)}")
