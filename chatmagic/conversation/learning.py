"""What the answer to a request teaches about its reader: how it counts, and how much it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatmagic.conversation.context import Context, Limits
from chatmagic.conversation.messages import Message, Usage
from chatmagic.conversation.tokens import Gauge, Reader
from chatmagic.errors import ContextOverflowError

__all__ = ["Report", "learn", "overflowed"]

_DROPPED = 0.7  # a server that counts less than this part of a request has not read all of it
_STUCK = 0.9  # the same where the count has not grown, although the request has
_SMALLEST = 1_000  # tokens; nobody has a smaller window


@dataclass(frozen=True, slots=True)
class Report:
    """How long (tokens) the line is after a turn, and how much was *read* by a server that did not read all."""

    size: int
    read: int | None = None


def learn(
    gauge: Gauge,
    context: Context,
    limits: Limits,
    reply: str,
    usage: Usage,
    *,
    thought: bool = False,
    reads_all: bool = False,
) -> Report:
    """Take in what the server reported for *context* and its *reply*, before which the model may have *thought*.

    A reader of whom it is sure that it *reads_all* has just another way of counting, if it counts far less.
    """
    reader, reported = limits.reader, usage.input_tokens
    said = _said(gauge, reader, reply, usage, thought=thought)
    if not reported or not _believable(reported, context.tokens):
        return Report(round(context.tokens + said))
    gauge.most_read[reader] = max(reported, gauge.most_read.get(reader, 0))
    if not reads_all and _drops(gauge, context, limits, reported):
        gauge.windows[reader] = gauge.most_read[reader]
        return Report(round(context.tokens + said), reported)
    if reported > gauge.windows.get(reader, reported):
        gauge.windows[reader] = reported
    _calibrate(gauge, context, reader, reported)
    return Report(round(reported + said))


def _believable(reported: float, expected: float) -> bool:
    # Some count what they have read on the web, or all that they have read in a day.
    return reported <= 4 * expected + 1_000


def _said(gauge: Gauge, reader: Reader, reply: str, usage: Usage, *, thought: bool) -> float:
    """Return how many tokens of the next request the *reply* is, and learn from what was reported for it."""
    counted = gauge.text(reader, reply)
    if not usage.output_tokens or (thought and usage.reasoning_tokens is None):
        return counted
    said = usage.output_tokens - (usage.reasoning_tokens or 0)
    if said > 3 * counted + 100:
        return counted  # the model has thought, and the server does not say how much
    gauge.learn(reader, [reply], said)
    return said


def _drops(gauge: Gauge, context: Context, limits: Limits, reported: int) -> bool:
    """True if a server that *reported* so many tokens cannot have read all of the request."""
    before = context.turns[-1].usage.input_tokens if context.base is not None else None
    grew = before is None or reported > before
    if reported < _SMALLEST or (grew and reported >= _DROPPED * context.tokens) or _thinks_aloud(context.messages):
        return False
    # By its texts alone: what is billed may hold thoughts, or pages of the web, that are not sent again.
    whole = gauge.request(limits.reader, context.messages)
    known = limits.window is not None and not limits.own and whole <= limits.window
    return not known and reported < (_DROPPED if grew else _STUCK) * whole


def _calibrate(gauge: Gauge, context: Context, reader: Reader, reported: int) -> None:
    messages = context.messages
    if context.base is None:
        if not _thinks_aloud(messages):
            gauge.learn_request(reader, messages, reported)
    elif reported > context.base and not _thinks_aloud(messages[-2:]):
        gauge.learn_prompt(reader, messages[-1].content, reported - context.base)


def _thinks_aloud(messages: Sequence[Message]) -> bool:
    # Many chat templates take such a part out of earlier replies.
    marks = ("</think>", "[/THINK]")
    return any(mark in message.content for message in messages if message.role == "assistant" for mark in marks)


def overflowed(gauge: Gauge, context: Context, limits: Limits, exc: ContextOverflowError) -> Limits | None:
    """Return the limits under which *context*, which was too long, is short enough; None: its length is not the reason.

    Nothing is remembered before a request has shown that they are right.
    """
    size = exc.size or context.tokens
    if exc.window and size < _DROPPED * exc.window:
        return None
    if exc.size and _believable(exc.size, context.tokens):
        _calibrate(gauge, replace(context, base=None), limits.reader, exc.size)
    window = max(exc.window or context.tokens - 1, gauge.most_read.get(limits.reader, 0))
    shorter = replace(limits, window=window)
    # Whatever it is, this time the request has to become shorter.
    return shorter if shorter.most < context.tokens else replace(limits, window=context.tokens - 1)
