"""The outputs of a growing reply: finished parts that are left alone, and a small open one that is painted again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from chatmagic.display.page import LOOK, Look, Page, live

if TYPE_CHECKING:
    from chatmagic.growing import Growing

__all__ = ["Canvas"]

# JupyterLab shows 50 outputs of a cell and hides the rest, so parts must grow with the text: 10 of them hold 32 kB.
_LEAST_PART = 2_000  # characters
_PARTS = 4  # the newest part gets full at this share of the text
_MOVES = 6  # and in about so many steps

_MESSAGE = 800  # bytes of a message beside what it shows
_FREE, _PER_CHARACTER, _PER_SECOND = 10_000, 3, 3_500  # bytes that may be sent

_ids = itertools.count(1)


class Canvas:
    """Paints a text that grows into as many outputs as it needs, through *publish*, and in the end into one.

    What is finished moves from the open output, which comes last, to the part before it, and stays there. In the end
    the first output shows everything and the others nothing: ``clear_output`` would make the page jump.
    """

    def __init__(self, publish: Callable[..., None], look: Look = LOOK) -> None:
        self._publish = publish
        self._look = look
        self._name = f"chatmagic-{next(_ids)}-{time.time_ns():x}"
        self._outputs = 0  # that there are
        self._open = 0  # the number of the open one
        self._growing: Growing | None = None
        self._known: dict[str, Any] = {}  # definitions of links
        self._part = ""  # the newest part
        self._part_html = ""
        self._fresh = ""  # finished, and in the open output still
        self._length = 0
        self._sent = 0

    @property
    def display_id(self) -> str:
        """The output that shows everything in the end."""
        return self._id(0)

    def grow(self, text: str, lines: Sequence[str], reasoning: str = "") -> None:
        """Show the next piece of the text, with *lines* below it; before the first one, what led to it."""
        # Imported when first used: Markdown costs more than the rest of the package together.
        from chatmagic.growing import Growing, mended

        self._growing = self._growing or Growing()
        self._length += len(text)
        self._fresh += self._growing.take(text)
        if len(self._fresh) >= (max(_LEAST_PART, self._length // _PARTS) // _MOVES if self._part else _LEAST_PART):
            self._move()
        part = self._fresh + mended(self._growing.open)
        self._show(self._open, self._page(part, self._html(part) if self._length else "", lines, reasoning))

    def debt(self, seconds: float) -> float:
        """Return for how many seconds nothing should be sent, *seconds* after the first output.

        What is sent stays in proportion to the text, and a slow reply may be painted several times a second.
        """
        return (self._sent - _FREE - _PER_CHARACTER * self._length - _PER_SECOND * seconds) / _PER_SECOND

    def finish(self, page: Page) -> None:
        """Show *page* in place of all that was painted."""
        self._show(0, page)
        self._blank(1)

    def clear(self) -> None:
        """Show nothing any more."""
        self._blank(0)

    def _move(self) -> None:
        """Move what is finished to the newest part, or to a new one, in the output that was the open one so far."""
        if not self._part or len(self._part) >= max(_LEAST_PART, self._length // _PARTS):
            self._part = self._part_html = ""
            self._open += 1
        self._part += self._fresh
        self._part_html += self._html(self._fresh)
        self._show(self._open - 1, self._page(self._part, self._part_html))
        self._fresh = ""

    def _html(self, text: str) -> str:
        from chatmagic.markdown import to_html

        return to_html(text, images=self._look.images, env=self._known) if "text/html" in self._look.mime else ""

    def _page(self, text: str, html: str, lines: Sequence[str] = (), reasoning: str = "") -> Page:
        return live(html, lines, reasoning, text="" if "text/html" in self._look.mime else text or reasoning)

    def _show(self, number: int, page: Page) -> None:
        data, metadata = page._repr_mimebundle_()
        self._send(number, data, metadata)

    def _blank(self, first: int) -> None:
        for number in range(first, self._outputs):
            self._send(number, {}, {})

    def _send(self, number: int, data: dict[str, str], metadata: dict[str, Any]) -> None:
        update = number < self._outputs
        self._publish(data, metadata, transient={"display_id": self._id(number)}, update=update)
        self._outputs = max(self._outputs, number + 1)
        self._sent += _MESSAGE + sum(map(len, data.values()))

    def _id(self, number: int) -> str:
        return f"{self._name}-{number}" if number else self._name
