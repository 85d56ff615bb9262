"""The outputs of a growing reply: how many, how much is sent, and what can be read in them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.display.canvas import Canvas
from chatmagic.display.page import Page
from chatmagic.markdown import to_html

PARAGRAPH = "A sentence of *some* words, and `code` in it. Another one with **more** of them follows here.\n\n"
REPLY = "# Title\n\n" + (PARAGRAPH * 3 + "- a list\n- of two\n\n" + "```python\nx = [1, 2, 3]  # code\n```\n\n") * 80
PAUSE = 0.1  # seconds, the least between two paints of the view


class Cell:
    """The outputs of a cell, as the front end keeps them."""

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, str]] = {}
        self.messages = 0
        self.bytes = 0

    def __call__(self, data: dict[str, str], _: Any, *, transient: dict[str, str], update: bool) -> None:
        assert update == (transient["display_id"] in self.outputs)
        self.outputs[transient["display_id"]] = data
        self.messages += 1
        self.bytes += 800 + sum(len(text.encode()) for text in data.values())

    @property
    def text(self) -> str:
        """What a person reads in all outputs."""
        return text_of("".join(data.get("text/html", "") for data in self.outputs.values()))


def text_of(html: str) -> str:
    return "".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


def stream(text: str, per_second: int, cell: Cell) -> Canvas:
    """Paint *text* as it comes with so many characters a second, as often as the canvas and the view allow."""
    canvas = Canvas(cell)
    painted, seconds = 0, 0.0
    while painted < len(text):
        come = min(len(text), int(seconds * per_second) + 1)
        canvas.grow(text[painted:come], [])
        painted = come
        seconds += max(PAUSE, canvas.debt(seconds))
    return canvas


@pytest.mark.parametrize("tokens_a_second", [200, 400])
def test_what_is_sent_is_in_proportion(tokens_a_second: int) -> None:
    """8,000 tokens take at most 15 times their text in messages, and four times as many take four times as much."""
    sent = []
    for length in (8_000, 32_000):
        cell = Cell()
        text = REPLY[:length]
        stream(text, tokens_a_second * 4, cell).finish(Page(to_html(text), text, {}))
        sent.append(cell.bytes)

    assert sent[1] <= 15 * 32_000
    assert sent[1] <= 4.4 * sent[0]


def test_a_slow_reply_is_painted_often() -> None:
    """At ten tokens a second the open part is painted twice a second and more."""
    cell = Cell()
    stream(REPLY[:8_000], 40, cell)
    assert cell.messages > 2 * 200


@pytest.mark.parametrize(("length", "most"), [(1_000, 1), (8_000, 6), (32_000, 15), (120_000, 22)])
def test_outputs_are_few(length: int, most: int) -> None:
    """JupyterLab hides what comes after 50 outputs; a usual reply has a single one all the time."""
    cell = Cell()
    canvas = Canvas(cell)
    text = REPLY * (length // len(REPLY) + 1)
    for start in range(0, length, 400):
        canvas.grow(text[start : min(start + 400, length)], [])

    assert len(cell.outputs) <= most


WHOLE = text_of(to_html(REPLY))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(20, 700), min_size=1, max_size=10))
def test_all_that_came_can_be_read(sizes: list[int]) -> None:
    """At every moment the outputs show, one below the other, the reply so far, but for a few characters that wait."""
    cell = Cell()
    canvas = Canvas(cell)
    come = 0
    while come < 6_000:
        for size in sizes:
            canvas.grow(REPLY[come : come + size], [])
            come += size
            assert WHOLE.startswith(cell.text)
            assert len(text_of(to_html(REPLY[:come]))) - len(cell.text) < 60


def test_one_output_in_the_end() -> None:
    """The first output shows everything and the others nothing, with no output cleared."""
    cell = Cell()
    canvas = stream(REPLY[:10_000], 1000, cell)
    assert len(cell.outputs) > 1
    canvas.finish(Page("<p>all</p>", "all", {}))

    assert [data for data in cell.outputs.values() if data] == [{"text/html": "<p>all</p>", "text/plain": "all"}]
    assert next(iter(cell.outputs)) == canvas.display_id


def test_nothing_is_left_of_a_failure() -> None:
    """All outputs are empty after that."""
    cell = Cell()
    stream(REPLY[:10_000], 1000, cell).clear()
    assert not any(cell.outputs.values())


def test_an_instant_reply_is_one_message() -> None:
    """What was never painted before is shown once."""
    cell = Cell()
    Canvas(cell).finish(Page("<p>all</p>", "all", {}))
    assert cell.messages == 1


def test_links_that_were_defined_before() -> None:
    """A link whose address came in an earlier part is one in a later part, too."""
    cell = Cell()
    canvas = Canvas(cell)
    canvas.grow("[a]: https://example.org\n\n" + PARAGRAPH * 40, [])
    canvas.grow("See [a].\n\nMore", [])

    assert len(cell.outputs) > 1
    assert 'href="https://example.org"' in list(cell.outputs.values())[-1]["text/html"]
