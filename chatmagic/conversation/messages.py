"""What was said: messages, turns, and what they used."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.plain import one_line

__all__ = ["NOTHING_USED", "Cell", "Cut", "Message", "Role", "Sent", "Status", "Summary", "Turn", "Usage"]

Role = Literal["system", "user", "assistant"]
Status = Literal["complete", "interrupted", "cut"]


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the list that a model reads."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the server reported them; None is unknown.

    ``cached_tokens`` (read from the provider's cache) and ``cache_write_tokens`` (written to it, where that costs
    more) are included in ``input_tokens``, ``reasoning_tokens`` in ``output_tokens``. ``cost`` is in USD: what the
    server says, else what the price list makes of the counts.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost: float | None = None

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
            _sum(self.cached_tokens, other.cached_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
            _sum(self.cache_write_tokens, other.cache_write_tokens),
            _sum(self.cost, other.cost),
        )


NOTHING_USED = Usage(0, 0, 0, 0, 0, 0.0)

_N = TypeVar("_N", int, float)


def _number(turn: Turn) -> int:
    return turn.number or 0


def _sum(a: _N | None, b: _N | None) -> _N | None:
    return None if a is None or b is None else a + b


@dataclass(frozen=True, slots=True)
class Summary:
    """What is sent in place of the turns up to number *through*; who wrote it has read all of them.

    *facts* are what the *model* proposed to keep beyond it. *usage* is what its *requests* used together; a person who
    has written it needed none.
    """

    text: str
    through: int
    facts: tuple[str, ...] = ()
    model: str = ""
    usage: Usage = NOTHING_USED
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut that was made by hand, when the tree had so many *turns*: a *summary*, and what comes after it, is sent."""

    turns: int
    summary: Summary

    def holds(self, line: Sequence[Turn]) -> bool:
        """True if the turns that it summarizes are on *line*, and nothing was asked there since it was made."""
        through = self.summary.through
        place = bisect_left(line, through, key=_number)
        there = place < len(line) and line[place].number == through
        return there and _number(line[-1]) <= self.turns


@dataclass(frozen=True, slots=True)
class Sent:
    """What a request held before its prompt, chosen by the context *policy*: the system message and turns.

    The one is made of the *system* prompt, the *facts* and the *summary*. The turns are the *pinned* ones (by number)
    and, behind them, those of the line from number *start* on. With the prompt went the turns that were *recalled*, and
    what was said in the sessions that were *read*. *tokens* is how long the request was expected to be.
    """

    policy: str = ""
    system: str | None = None
    start: int = 0
    pinned: tuple[int, ...] = ()
    tokens: int = 0
    facts: tuple[str, ...] = ()
    summary: Summary | None = None
    recalled: tuple[int, ...] = ()
    read: tuple[str, ...] = ()

    def begins_like(self, other: Sent) -> bool:
        """True if what the two hold before the prompt is the same, as far as the line was the same."""
        return self._beginning == other._beginning

    @property
    def _beginning(self) -> tuple[object, ...]:
        return self.system, self.facts, self.summary and self.summary.text, self.start, self.pinned


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a turn was made: the id of the notebook cell and of its execution, as far as the front end says."""

    id: str | None = None
    execution: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Turn:
    """One prompt and its reply, with all that belongs to them. Never changed once it is made.

    ``reasoning`` is what the model thought aloud before; it is shown, and never sent back. ``number`` counts creation
    in the tree (None: not stored). ``settings`` is what the cells up to here have asked for; ``model`` and ``endpoint``
    name who answered. ``status`` is ``complete``, ``interrupted`` (by the user) or
    ``cut`` (by the other end); ``finish`` is the reason that the server gave for the end. ``cells`` are those that it
    belongs to: the one that made it, then those whose turns it took the place of. ``started`` is in seconds
    since the epoch, ``seconds`` how long it took. ``sent`` is what went out before the prompt (None: a list of
    somebody's own making), ``size`` how many tokens that, the prompt and the reply have together (None: unknown).
    ``messages`` are the prompt and the reply, as they are sent again with later turns.
    """

    prompt: str
    reply: str
    reasoning: str = ""
    parent: Turn | None = field(default=None, compare=False)
    number: int | None = None
    model: str = ""
    endpoint: str = ""
    settings: Settings = field(default=NOTHING, hash=False)
    usage: Usage = Usage()
    status: Status = "complete"
    finish: str | None = "stop"
    cells: tuple[Cell, ...] = ()
    started: float = 0.0
    seconds: float = 0.0
    sent: Sent | None = field(default=None, compare=False)
    size: int | None = field(default=None, compare=False)
    messages: tuple[Message, Message] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # Made once: every request goes through all of them.
        object.__setattr__(self, "messages", (Message("user", self.prompt), Message("assistant", self.reply)))

    @property
    def new_summary(self) -> Summary | None:
        """The summary that was sent with it for the first time."""
        summary = self.sent.summary if self.sent else None
        before = self.parent.sent.summary if self.parent and self.parent.sent else None
        return None if summary and before and summary.text == before.text else summary

    def __str__(self) -> str:
        return self.reply

    def __repr__(self) -> str:
        number = f" #{self.number}" if self.number else ""
        return f"<turn{number}: {one_line(self.prompt, 40)!r} → {one_line(self.reply, 60)!r}>"
