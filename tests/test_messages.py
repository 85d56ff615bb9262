"""What was said, what it used, and what of it is sent."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.context import History
from chatmagic.conversation.messages import Cell, Message, Turn, Usage
from chatmagic.conversation.settings import Settings

TEXTS = st.text(max_size=10)
COUNTS = st.none() | st.integers(0, 10**9)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS)


def test_everything() -> None:
    """The request holds the system prompt, every prompt and reply in turn, and the new prompt."""
    turns = [Turn("a", "A"), Turn("b", "B", status="cut")]

    assert History(turns, "Be kind.", "c").messages(turns) == [
        Message("system", "Be kind."),
        Message("user", "a"),
        Message("assistant", "A"),
        Message("user", "b"),
        Message("assistant", "B"),
        Message("user", "c"),
    ]


@pytest.mark.parametrize("system", [None, ""], ids=["none", "empty"])
def test_no_system_prompt(system: str | None) -> None:
    """Without a system prompt no system message is sent."""
    assert History([], system, "a").messages([]) == [Message("user", "a")]


@given(st.lists(st.builds(Turn, TEXTS, TEXTS)), st.none() | TEXTS, TEXTS, TEXTS, TEXTS)
def test_append_only(turns: list[Turn], system: str | None, prompt: str, reply: str, following: str) -> None:
    """What is sent next begins with what was sent before, message for message, whatever was said."""
    later = [*turns, Turn(prompt, reply)]
    before = History(turns, system, prompt).messages(turns)
    after = History(later, system, following).messages(later)

    assert after == [*before, Message("assistant", reply), Message("user", following)]


def test_turn_messages() -> None:
    """A turn is sent as its prompt and its reply, whatever is in them."""
    assert Turn(" a\n", "\n").messages == (Message("user", " a\n"), Message("assistant", "\n"))


def test_plain_turn() -> None:
    """A turn of which nothing more is said is complete, the first of its line, not stored, and of an unknown cell."""
    turn = Turn("a", "A")

    assert (turn.status, turn.finish, turn.parent, turn.number) == ("complete", "stop", None, None)
    assert turn.cells == ()
    assert (turn.settings, turn.started, turn.seconds) == (Settings(), 0.0, 0.0)


def test_turn_is_frozen() -> None:
    """A turn cannot be changed."""
    turn = Turn("a", "A")

    with pytest.raises(FrozenInstanceError):
        turn.reply = "B"  # type: ignore[misc]  # what the test is about


def test_turn_equality() -> None:
    """Turns are equal by content; how long their past is makes no difference."""
    assert Turn("a", "A", parent=Turn("b", "B")) == Turn("a", "A")
    assert Turn("a", "A", number=1) != Turn("a", "A", number=2)
    assert Turn("a", "A", cells=(Cell("x"),)) != Turn("a", "A", cells=(Cell("y"),))
    assert Turn("a", "A", settings=Settings({"model": "m"})) != Turn("a", "A")


def test_turn_as_text() -> None:
    """Printed, a turn is its reply."""
    assert str(Turn("a", "**A**\n")) == "**A**\n"


@pytest.mark.parametrize(
    ("turn", "shown"),
    [
        (Turn("a", "A", number=3), "<turn #3: 'a' → 'A'>"),
        (Turn("a", "A"), "<turn: 'a' → 'A'>"),
        (Turn("a\nb", "\x1b[31mA\x1b[0m"), "<turn: 'a b' → '[31mA[0m'>"),
    ],
    ids=["stored", "not stored", "lines and escapes"],
)
def test_turn_shows_itself(turn: Turn, shown: str) -> None:
    """In a list a turn is one plain line with its number, if it has one, its prompt and its reply."""
    assert repr(turn) == shown


def test_turn_shows_no_past() -> None:
    """A turn that stands at the end of a long and wordy conversation still shows itself in one short line."""
    turn = Turn("a", "A")
    for _ in range(2_000):
        turn = Turn("prompt " * 100, "reply " * 100, parent=turn, settings=Settings({"system": "s" * 1_000}))

    assert len(repr(turn)) < 130


def test_usage_sum() -> None:
    """Counts add up each for itself."""
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)


def test_unknown_stays_unknown() -> None:
    """Unknown and something is unknown, not something; zero is known."""
    assert Usage(1, None, 0, None) + Usage(2, 5, 0, None) == Usage(3, None, 0, None)
    assert Usage(2, 5, 0, None) + Usage(1, None, 0, None) == Usage(3, None, 0, None)


def test_usage_is_unknown_at_first() -> None:
    """Usage that nobody reported is unknown, not zero."""
    assert Usage() == Usage(None, None, None, None) == Turn("a", "A").usage


@given(USAGES, USAGES, USAGES)
def test_usage_sum_has_no_order(a: Usage, b: Usage, c: Usage) -> None:
    """In which order usage is summed makes no difference, and zeros add nothing."""
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage(0, 0, 0, 0) == a
