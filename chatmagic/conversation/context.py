"""History -> what is sent, within a budget."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatmagic.conversation.messages import Message, Sent, Turn, Usage
from chatmagic.conversation.policy import read_policy
from chatmagic.conversation.tokens import Gauge, Reader
from chatmagic.errors import ChatMagicError, ContextOverflowError, SettingError
from chatmagic.plain import one_line

__all__ = ["BUDGET", "Context", "ContextPolicy", "History", "Limits", "Planner", "Report"]

BUDGET = 200_000
"""Tokens that a request may have if nobody says otherwise: below the price step at 272,000."""

ContextPolicy = Callable[[list[Message]], Sequence[Message | Mapping[str, Any]]]
"""A policy of somebody's own: all messages (system prompt first, new prompt last) -> those to send."""


@dataclass(frozen=True, slots=True)
class History:
    """What could be sent: the line (oldest turn first), the numbers of pinned turns, system prompt, new prompt."""

    turns: Sequence[Turn]
    system: str | None = None
    prompt: str = ""
    pinned: frozenset[int] = frozenset()

    def messages(self, turns: Sequence[Turn]) -> list[Message]:
        """Return what is sent with these *turns*: one system message first, the new prompt last."""
        messages = [Message("system", self.system)] if self.system else []
        for turn in turns:
            messages += turn.messages
        messages.append(Message("user", self.prompt))
        return messages


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request to *reader* may be, in tokens: its context *window* and the *budget*; None is unknown.

    *room* is what the reply may take of the window.
    """

    reader: Reader
    window: int | None = None
    budget: int = BUDGET
    room: int | None = None

    def under(self, policy: str) -> Limits:
        """Return the limits that hold under *policy*, which may name a budget of its own."""
        name, count = read_policy(policy)
        return replace(self, budget=count) if name == "budget" and count else self

    @property
    def most(self) -> int:
        """How long a request may grow until its history is cut."""
        if self.window is None:
            return self.budget
        room = min(8_192, self.window // 4) if self.room is None else min(self.room, self.window - 1)
        return min(self.budget, self.window - room)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Report:
    """How long (tokens) the line is after a turn, and what a server has read that did not read all (else None)."""

    size: int
    read: int | None = None


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
        if name == "budget":
            return self._within(policy, history, limits.under(policy))
        if name in ("all", "last"):
            start = 0 if count is None else _start(history.turns, len(history.turns) - count)
            context = self._from(start, policy, history, limits.reader)
        else:
            messages = _checked(name, self._named(name), history.messages(history.turns))
            context = Context(messages, round(self.gauge.request(limits.reader, messages)))
        if self._overflows(context.tokens, limits):
            takes = f"{limits.reader[1]!r} takes {limits.window:,}"
            raise ContextOverflowError(
                f"the request would have ~{context.tokens:,} tokens, and {takes}. --context budget cuts its history",
                window=limits.window,
                size=context.tokens,
            )
        return context

    def learn(
        self,
        context: Context,
        reader: Reader,
        reply: str,
        usage: Usage,
        *,
        thought: bool = False,
        reads_all: bool = False,
    ) -> Report:
        """Take in what the server reported for *context* and its *reply*, before which the model may have *thought*.

        A *reader* of whom it is sure that he *reads_all* has just another way of counting, if he counts far less.
        """
        gauge, reported = self.gauge, usage.input_tokens
        dropped = False
        if reported:
            far = gauge.dropped(context.tokens, reported)
            dropped = far and not reads_all and not _thinks_aloud(context.messages)
            if dropped or reported > gauge.windows.get(reader, reported):
                gauge.windows[reader] = reported
        said = gauge.reply(reader, reply, usage, thought=thought)
        if reported and not dropped:
            self._calibrate(context, reader, reported)
        if usage.output_tokens and said == usage.output_tokens - (usage.reasoning_tokens or 0) and not thought:
            gauge.learn_reply(reader, reply, said)
        sent = reported if reported and not dropped else context.tokens
        return Report(round(sent + said), reported if dropped else None)

    def _calibrate(self, context: Context, reader: Reader, reported: int) -> None:
        if context.base is None:
            if not _thinks_aloud(context.messages):
                self.gauge.learn(reader, [message.content for message in context.messages], reported, whole=True)
        elif reported > context.base and not _thinks_aloud(context.messages[-2:]):
            self.gauge.learn(reader, [context.messages[-1].content], reported - context.base, whole=False)

    def overflowed(self, context: Context, limits: Limits, exc: ContextOverflowError) -> Limits:
        """Take in that *context* was too long, and return what holds from now on."""
        if exc.size is not None and not self.gauge.dropped(context.tokens, exc.size):
            self._calibrate(replace(context, base=None), limits.reader, exc.size)
        window = exc.window or context.tokens - 1
        self.gauge.windows[limits.reader] = window
        # Whatever it was thought to be, this time it has to become shorter.
        return replace(limits, window=min(window, context.tokens - 1))

    def _from(self, start: int, policy: str, history: History, reader: Reader) -> Context:
        """Send the turns from number *start* on, and the pinned ones before them."""
        place = bisect_left(history.turns, start, key=_number)
        turns, left_out = history.turns[place:], history.turns[:place]
        pinned = [turn for turn in left_out if turn.number in history.pinned] if history.pinned else []
        if pinned:
            turns, left_out = [*pinned, *turns], [turn for turn in left_out if turn.number not in history.pinned]
        sent = Sent(policy, history.system, start, tuple(map(_number, pinned)))
        messages = history.messages(turns)
        base = _base(turns, sent, reader)
        more = self.gauge.prompt(reader, history.prompt) if base else self.gauge.request(reader, messages)
        tokens = round((base or 0) + more)
        why = f"--context {policy}" if policy.startswith("last") else "cut"
        return Context(messages, tokens, base, turns, left_out, why=why, sent=replace(sent, tokens=tokens))

    def _within(self, policy: str, history: History, limits: Limits) -> Context:
        """Send what was sent before and the new prompt; where that is too long, cut the history once to half."""
        last = history.turns[-1].sent if history.turns else None
        start = last.start if last and last.policy.startswith("budget") else 0
        whole = self._from(start, policy, history, limits.reader)
        if whole.tokens <= limits.most:
            return whole
        pinned = [turn for turn in whole.turns if turn.number in history.pinned]
        stays = self.gauge.request(limits.reader, history.messages(pinned))
        if self._overflows(stays, limits) or stays > limits.budget:
            raise self._too_long(history, pinned, round(stays), limits)
        free = [turn for turn in whole.turns if turn.number not in history.pinned]
        lengths = self.gauge.turns(limits.reader, free)
        # What was reported for all of them together is surer than what each is thought to be.
        scale = max(whole.tokens - stays, 0.0) / (sum(lengths) or 1.0)
        kept, room = 0.0, limits.most - stays
        # The newest turn stays if it can: the new prompt is most likely about it.
        while free and kept + lengths[-1] * scale <= (room / 2 if kept else room):
            kept += lengths.pop() * scale
            free.pop()
        start = _number(free[-1]) + 1 if free else start
        context = self._from(start, policy, history, limits.reader)
        tokens = round(stays + kept)
        sent = context.sent and replace(context.sent, tokens=tokens)
        return replace(context, tokens=tokens, base=None, cut=free, why=_because(whole.tokens, limits), sent=sent)

    def _overflows(self, tokens: float, limits: Limits) -> bool:
        """True if a request of so many *tokens* will not do; where all is a guess, only if it is far from it."""
        slack = 1.0 if self.gauge.knows(limits.reader) else 1.25
        return limits.window is not None and tokens > limits.window * slack

    def _too_long(self, history: History, pinned: Sequence[Turn], tokens: int, limits: Limits) -> ContextOverflowError:
        along = [each for each, there in (("the system prompt", history.system), ("pinned turns", pinned)) if there]
        what = f"with {' and '.join(along)}" if along else "alone"
        has = f"the prompt {what} would be ~{tokens:,} tokens"
        if limits.window is not None and tokens > limits.window:
            way_out = "Shorten it, unpin turns, or ask a model with a larger window (-m)"
            said = f"{has}, and {limits.reader[1]!r} takes {limits.window:,}. {way_out}"
        else:
            said = f"{has}, more than the budget of {limits.budget:,}. --context budget:{_rounded_up(tokens)} allows it"
        return ContextOverflowError(f"{said}; nothing was sent", window=limits.window, size=tokens)


def _number(turn: Turn) -> int:
    return turn.number or 0


def _thinks_aloud(messages: Sequence[Message]) -> bool:
    # Many chat templates take such a part out of earlier replies.
    return any("</think>" in message.content for message in messages if message.role == "assistant")


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


def _because(tokens: int, limits: Limits) -> str:
    most = f"the budget of {limits.budget:,}"
    if limits.most < limits.budget:
        most = f"fits, with a reply, into the {limits.window:,} of {limits.reader[1]!r}"
    return f"with all of them the request would have ~{tokens:,} tokens, more than {most}"


def _rounded_up(tokens: int) -> int:
    step: int = 10 ** max(len(str(tokens)) - 2, 0)
    return (tokens // step + 1) * step


def _checked(name: str, function: object, messages: list[Message]) -> list[Message]:
    """Return what somebody's *function* chooses of *messages*, if it can be sent."""
    if not callable(function):
        raise SettingError(
            f"no context policy {name!r}: all, last:4 (turns), budget, budget:50000 (tokens), or the name of a "
            "function that takes the messages and returns those to send"
        )
    try:
        chosen = [_message(each) for each in function(messages)]
    except ChatMagicError:
        raise
    except Exception as exc:
        raise SettingError(f"the context policy {name!r} failed with {type(exc).__name__}: {exc}") from exc
    if not chosen or chosen[-1].role != "user":
        raise SettingError(f"the context policy {name!r} must return messages of which the last is the user's")
    return chosen


def _message(each: object) -> Message:
    if isinstance(each, Message):
        return each
    if isinstance(each, Mapping):
        role, content = each.get("role"), each.get("content")
        if role in ("system", "user", "assistant") and isinstance(content, str):
            return Message(role, content)
    raise SettingError(f"a context policy returns messages (role and content), not {one_line(repr(each), 60)}")
