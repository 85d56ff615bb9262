"""What a session has used: sums over its turns, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass

from chatmagic.conversation.messages import Turn, Usage
from chatmagic.conversation.spending import dollars

__all__ = ["Sum", "Sums", "price", "share", "total", "turns", "written"]

_NOTHING = Usage(0, 0, 0, 0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Sum:
    """What the turns from the root to the *last* one used together; *least* takes unknown counts for nothing."""

    last: Turn | None = None
    turns: int = 0
    usage: Usage = _NOTHING
    least: Usage = _NOTHING

    def plus(self, turn: Turn) -> Sum:
        """Return the sum with one *turn* more."""
        used = turn.usage
        known = Usage(used.input_tokens or 0, used.output_tokens or 0, cost=used.cost or 0.0)
        return Sum(turn, self.turns + 1, self.usage + used, self.least + known)


class Sums:
    """Remembers the sum at every turn, so that one turn more costs the same however long the history is."""

    def __init__(self) -> None:
        self._at: dict[int, Sum] = {}  # by the id of its last turn, which it keeps alive

    def upto(self, turn: Turn | None) -> Sum:
        """Return the sum over the line that ends with *turn*."""
        new = []
        while turn is not None and id(turn) not in self._at:
            new.append(turn)
            turn = turn.parent
        total = Sum() if turn is None else self._at[id(turn)]
        for each in reversed(new):
            total = self._at[id(each)] = total.plus(each)
        return total


def turns(count: int) -> str:
    """Return ``1 turn``, ``2 turns``."""
    return f"{count:,} turn{'' if count == 1 else 's'}"


def written(turn: Turn) -> int | None:
    """Return how many tokens the reply has: as reported, else about; None is unknown."""
    if turn.usage.output_tokens is not None or turn.size is None or turn.sent is None:
        return turn.usage.output_tokens
    return max(turn.size - (turn.usage.input_tokens or turn.sent.tokens), 0)


def total(used: Sum) -> list[str]:
    """Write a sum: tokens in, how much of them was cached, tokens out, cost; ``≥`` where a part is unknown."""
    known, least = used.usage, used.least
    cost = f"≥ {price(least.cost)}" if known.cost is None and least.cost else price(known.cost)
    return [
        _count(known.input_tokens, least.input_tokens),
        share(known.cached_tokens, known.input_tokens),
        _count(known.output_tokens, least.output_tokens),
        cost,
    ]


def share(part: int | None, whole: int | None) -> str:
    """Write which part of the *whole* it is."""
    return "unknown" if part is None or not whole else f"{part / whole:.0%}"


def price(cost: float | None) -> str:
    """Write a cost (USD) so that several fit one below the other."""
    if cost is None:
        return "unknown"
    # They need the same number of digits.
    return f"${cost:.4f}" if 1e-4 <= cost < 1 else dollars(cost) if cost else "free"


def _count(count: int | None, least: int | None) -> str:
    if count is not None:
        return f"{count:,}"
    return f"≥ {least:,}" if least else "unknown"
