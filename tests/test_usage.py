"""Sums over turns, and how they are written."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.messages import NOTHING_USED, Sent, Turn, Usage
from chatmagic.conversation.spending import Spent
from chatmagic.display.usage import Sums, price, share, total, turns, written

COUNT = st.none() | st.integers(0, 10**6)
USAGE = st.builds(Usage, COUNT, COUNT, COUNT, COUNT, COUNT, st.none() | st.integers(0, 8).map(float))


def line(*usages: Usage) -> Turn | None:
    """The last turn of a line that used this."""
    last: Turn | None = None
    for usage in usages:
        last = Turn("p", "r", parent=last, usage=usage)
    return last


@pytest.mark.parametrize(
    ("usages", "cells"),
    [
        ([], ["0", "unknown", "0", "free"]),
        ([Usage()], ["unknown", "unknown", "unknown", "unknown"]),
        ([Usage(1200, 0)], ["1,200", "unknown", "0", "unknown"]),
        ([Usage(1200, 30, 0, cost=0.5), Usage()], ["≥ 1,200", "unknown", "≥ 30", "≥ $0.5000"]),
        ([Usage(), Usage(10, 2, 10)], ["≥ 10", "unknown", "≥ 2", "unknown"]),
        ([Usage(10, 2, 0, cost=0.0), Usage(30, 2, 20, cost=0.0)], ["40", "50%", "4", "free"]),
        ([Usage(10, 2, 0, cost=1.0), Usage(30, 2, 20, cost=0.25)], ["40", "50%", "4", "$1.25"]),
        ([Usage(0, 0, 0)], ["0", "unknown", "0", "unknown"]),
    ],
    ids=["nothing", "nothing known", "zero is zero", "last unknown", "first unknown", "free", "all known", "no input"],
)
def test_total(usages: list[Usage], cells: list[str]) -> None:
    """What a server did not say is unknown, never 0; a sum with unknown parts says what it is at least."""
    assert total(Sums().upto(line(*usages))) == cells


@given(usages=st.lists(USAGE, max_size=12), first=st.integers(0, 12))
def test_sums(usages: list[Usage], first: int) -> None:
    """A sum is that of all turns up to there, whichever was asked for first."""
    last = line(*usages)
    every = [last]
    while every[-1] is not None:
        every.append(every[-1].parent)
    sums = Sums()
    sums.upto(every[min(first, len(every) - 1)])

    assert sums.upto(last).usage == reduce(Usage.__add__, usages, NOTHING_USED)
    assert sums.upto(last).turns == len(usages)


def test_long_history_is_cheap() -> None:
    """One turn more is one sum more."""
    added: list[Turn] = []

    class Counting(Usage):
        __slots__ = ()

        def __add__(self, other: Usage) -> Usage:
            raise AssertionError("a sum was made again")

    sums, turn = Sums(), None
    for _ in range(5000):
        turn = Turn("p", "r", parent=turn, usage=Usage(100, 10, 25))
        added.append(turn)
    assert sums.upto(turn).usage.input_tokens == 500_000
    for known_before in added:
        object.__setattr__(known_before, "usage", Counting())
    assert sums.upto(Turn("p", "r", parent=turn, usage=Usage(100, 10, 25))).turns == 5001
    assert sums.upto(added[17]).turns == 18


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(None, 10, "unknown"), (5, None, "unknown"), (0, 0, "unknown"), (0, 10, "0%"), (2, 3, "67%"), (10, 10, "100%")],
)
def test_share(part: int | None, whole: int | None, text: str) -> None:
    """A share of something unknown, or of nothing, is unknown."""
    assert share(part, whole) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (None, "unknown"),
        (0.0, "free"),
        (0.000012, "$0.000012"),
        (0.0042, "$0.0042"),
        (0.5, "$0.5000"),
        (12.3, "$12.30"),
    ],
)
def test_price(cost: float | None, text: str) -> None:
    """A price is unknown, free, or an amount that says something; those below a dollar have the same length."""
    assert price(cost) == text


@pytest.mark.parametrize(
    ("turn", "count"),
    [
        (Turn("p", "r", usage=Usage(10, 7)), 7),
        (Turn("p", "r", usage=Usage(10, 0), sent=Sent(tokens=3), size=9), 0),
        (Turn("p", "r", sent=Sent(tokens=3), size=9), 6),
        (Turn("p", "r", usage=Usage(8), sent=Sent(tokens=3), size=9), 1),
        (Turn("p", "r", usage=Usage(80), sent=Sent(tokens=3), size=9), 0),
        (Turn("p", "r", sent=Sent(tokens=3)), None),
        (Turn("p", "r", size=9), None),
    ],
    ids=[
        "reported",
        "zero is reported",
        "about",
        "beyond what was read",
        "never less than none",
        "no size",
        "own list",
    ],
)
def test_written(turn: Turn, count: int | None) -> None:
    """The length of a reply is what the server says, else about what the turn has beyond what was sent."""
    assert written(turn) == count


@pytest.mark.parametrize(("count", "text"), [(0, "0 turns"), (1, "1 turn"), (1234, "1,234 turns")])
def test_turns(count: int, text: str) -> None:
    """One turn is one turn, and not 1 turns."""
    assert turns(count) == text


@pytest.mark.parametrize(
    ("usages", "part"),
    [
        ([], None),
        ([Usage(10, 1)], None),
        ([Usage(None, 1, 5)], None),
        ([Usage(10, 1, 5), Usage(90, 1)], 0.5),
        ([Usage(10, 1, 5), Usage(30, 1, 5)], 0.25),
        ([Usage(10, 1, 0)], 0.0),
        ([Usage(None, 1, 15), Usage(10, 1, 5)], 0.5),
    ],
    ids=["no request", "nothing known", "no input known", "only those that say so", "all", "nothing cached", "half"],
)
def test_cached_share(usages: list[Usage], part: float | None) -> None:
    """What was cached is a share of the requests that say how much they read, and from where; else it is unknown."""
    spent = Spent()
    for usage in usages:
        spent.add(usage)

    assert spent.cached_share == part
