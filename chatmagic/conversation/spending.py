"""What requests have cost, and how much they may."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatmagic.conversation.messages import Usage
from chatmagic.errors import SpendingError

__all__ = ["Purse", "Spent", "dollars", "hold", "settle"]


class Spent:
    """What all requests of a session, or of the kernel, have used together: tokens, and their cost in USD.

    Turns that were set aside or never stored count, too. *guessed* is True when a server did not say what a request
    used, *unpriced* counts the requests that have no known price.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_tokens = 0
        self._seen = 0  # tokens of those requests that say how many were cached
        self.cost = 0.0
        self._held = 0.0
        self.unpriced = 0
        self.guessed = False
        self._lock = threading.Lock()

    def add(self, used: Usage, *, guessed: bool = False) -> None:
        """Count one request."""
        with self._lock:
            self.requests += 1
            self.input_tokens += used.input_tokens or 0
            self.output_tokens += used.output_tokens or 0
            if used.cached_tokens is not None and used.input_tokens is not None:
                self.cached_tokens += used.cached_tokens
                self._seen += used.input_tokens
            self.cost += used.cost or 0.0
            self.unpriced += used.cost is None
            self.guessed = self.guessed or guessed

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_held")}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Spent:
        """Return what `record` described; what is no number counts for nothing."""
        spent = cls()
        for name, value in vars(spent).items():
            known = record.get(name)
            if name not in ("_lock", "_held") and type(known) in (int, float, bool):
                setattr(spent, name, type(value)(known))
        return spent

    def hold(self, cost: float, most: float | None) -> bool:
        """Keep so much for a request that is under way; False: it could cost more than is left."""
        with self._lock:
            if most is not None and cost and self.cost + self._held + cost > most:
                return False
            self._held += cost
            return True

    def release(self, cost: float) -> None:
        """The request is over."""
        with self._lock:
            self._held -= cost

    @property
    def cached_share(self) -> float | None:
        """Which part of the input was read from a cache, where servers say so; None is unknown."""
        return self.cached_tokens / self._seen if self._seen else None

    @property
    def amount(self) -> str:
        """The cost, written."""
        return f"{'~' * (self.guessed and self.cost > 0)}{dollars(self.cost)}"

    @property
    def unknown(self) -> str:
        """What the cost lacks, written."""
        requests = f"{self.unpriced:,} request{'' if self.unpriced == 1 else 's'}"
        return f" (and {requests} of unknown price)" if self.unpriced else ""

    def __str__(self) -> str:
        about = "~" * self.guessed
        requests = f"{self.requests:,} request{'' if self.requests == 1 else 's'}"
        tokens = f"{about}{self.input_tokens:,} tokens in, {about}{self.output_tokens:,} out"
        return f"{requests}, {tokens}, {self.amount}{self.unknown}"


@dataclass(frozen=True, slots=True)
class Purse:
    """Where a request is counted: what *whose* requests have *spent*, the most (USD) they may, what raises that."""

    spent: Spent
    whose: str = ""
    most: float | None = None
    raised_by: str = ""

    def hold(self, cost: float | None, *, sure: bool) -> None:
        """Keep what a request may *cost* (USD; None: unknown), or refuse it if that would pass the limit.

        It is *sure* that it costs no more where the length of its reply is limited.

        Raises:
            SpendingError: it would.
        """
        if not self.spent.hold(cost or 0.0, self.most):
            much = f"~{dollars(cost or 0.0)}"
            much = f"may cost up to {much}" if sure else f"may cost {much}, or more for a long reply"
            spent = f"has spent {self.spent.amount}{self.spent.unknown} of {dollars(self.most or 0.0)}"
            raise SpendingError(
                f"{self.whose} {spent}, and this turn {much}; nothing was sent. {self.raised_by} raises the limit"
            )


def hold(purses: Sequence[Purse], cost: float | None, *, sure: bool) -> float:
    """Keep what a request may *cost* in all *purses*, or in none; return what is kept.

    Raises:
        SpendingError: it is more than one of them allows.
    """
    held: list[Purse] = []
    try:
        for purse in purses:
            purse.hold(cost, sure=sure)
            held.append(purse)
    except SpendingError:
        for purse in held:
            purse.spent.release(cost or 0.0)
        raise
    return cost or 0.0


def settle(purses: Sequence[Purse], held: float, used: Usage | None, *, guessed: bool = False) -> None:
    """Give back what was *held* for a request, and count what it *used*; None: it is not billed."""
    for purse in purses:
        purse.spent.release(held)
        if used is not None:
            purse.spent.add(used, guessed=guessed)


def dollars(amount: float) -> str:
    """Write an amount of USD with as many digits as say something: $12.30, $0.50, $0.0042, $0.000012."""
    if amount >= 1:
        return f"${amount:,.2f}"
    if amount >= 1e-4 or amount == 0:
        return f"${amount:.4f}".removesuffix("00")
    from decimal import Decimal  # it writes no exponents; this module is imported with the extension

    return f"${Decimal(f'{amount:.2g}'):f}"
