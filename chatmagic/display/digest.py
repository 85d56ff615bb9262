"""A summary on the screen: how far it is, and the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

from IPython.display import publish_display_data

from chatmagic.conversation.messages import Usage
from chatmagic.conversation.spending import dollars
from chatmagic.digest import Job, Plan, Progress, Result
from chatmagic.digesting import run
from chatmagic.display.canvas import Canvas
from chatmagic.display.page import LOOK, Look, Page, live, model_page
from chatmagic.display.render import show
from chatmagic.plain import one_line

__all__ = ["Digest", "NotebookProgress", "TerminalProgress", "watched"]

_SHORTEST = 0.25  # seconds between two paints
_LINES = 20  # in a terminal
_FRAME = "width:20em;max-width:100%;height:0.5em;margin:0.4em 0;border-radius:0.25em;overflow:hidden"
_EMPTY = "background:var(--jp-layout-color3,#bdbdbd)"
_FULL = "height:100%;background:var(--jp-brand-color1,#2196f3)"


@dataclass(frozen=True, slots=True, repr=False)
class Digest(Result):
    """The answer over a text of any length: its ``text``, the ``model``, how many ``pieces`` were read.

    ``usage`` is what those ``requests`` used together of whose answers it is made; None is unknown. ``notices`` say
    what was decided on the way.
    """

    look: Look = LOOK

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<digest of {_read(self)}: {one_line(self.text, 60)!r}>"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        return self.page._repr_mimebundle_()

    @property
    def page(self) -> Page:
        """The answer as it is shown, with a quiet line about it."""
        return model_page(self.text, [*self.notices, _footer(self)], self.look)


def _read(digest: Digest) -> str:
    pieces = f"{digest.pieces:,} piece{'s' * (digest.pieces != 1)}"
    return f"{pieces}, {digest.requests:,} request{'s' * (digest.requests != 1)}"


def _footer(digest: Digest) -> str:
    cost = dollars(digest.usage.cost) if digest.usage.cost else ""
    return " · ".join(filter(None, [digest.model, _read(digest), _used(digest.usage), cost]))


def _used(usage: Usage) -> str:
    if usage.input_tokens is None or usage.output_tokens is None:
        return "tokens unknown"
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"


class View(Protocol):
    """What a person sees of a summary while it is made, and of its end."""

    def start(self, plan: Plan) -> None:
        """Nothing was sent yet."""

    def show(self, progress: Progress) -> None:
        """Something came, or a second is over."""

    def finish(self, digest: Digest) -> None:
        """There is an answer."""

    def fail(self) -> None:
        """There is none."""


def watched(job: Job, view: View | None, look: Look = LOOK) -> Digest:
    """Run *job*, let *view* show it, and return what comes of it."""
    if view is None:
        return _digest(run(job), look)
    view.start(job.plan)
    try:
        result = run(job, view.show)
    except BaseException:
        view.fail()
        raise
    digest = _digest(result, look)
    view.finish(digest)
    return digest


def _digest(result: Result, look: Look) -> Digest:
    return Digest(**{each.name: getattr(result, each.name) for each in fields(result)}, look=look)


class NotebookProgress:
    """Paints into one output of the cell: what it will take, a bar, and in the end the answer; an instant one once."""

    def __init__(self, publish: Callable[..., None] = publish_display_data, look: Look = LOOK) -> None:
        self._canvas = Canvas(publish, look)
        self._look = look
        self._plan = ""
        self._instant = False
        self._painted = 0.0

    def start(self, plan: Plan) -> None:
        """Say what is going to be asked."""
        self._plan, self._instant = str(plan), plan.instant
        self._paint(0.0, [])

    def show(self, progress: Progress) -> None:
        """Move the bar, but not too often."""
        if time.monotonic() - self._painted >= _SHORTEST:
            self._paint(progress.share, [_line(progress, f"{progress.seconds:.0f} s")])

    def finish(self, digest: Digest) -> None:
        """Show the answer as the one output that stays."""
        self._canvas.finish(digest.page)

    def fail(self) -> None:
        """Leave nothing: the error says what is kept."""
        self._canvas.clear()

    def _paint(self, share: float, lines: list[str]) -> None:
        # nbval compares the first frame only, so an instant answer is painted once, at the end.
        if self._instant:
            return
        self._painted = time.monotonic()
        bar = f'<div style="{_FRAME};{_EMPTY}"><div style="{_FULL};width:{min(share, 1.0):.0%}"></div></div>'
        page = live(bar, [self._plan, *lines])
        self._canvas.finish(page if "text/html" in self._look.mime else Page("", page.text))


class TerminalProgress:
    """Writes a line when something is done, but never more than some 20, and then the answer."""

    def __init__(self, write: Callable[[str], None] = show) -> None:
        self._write = write
        self._done = 0
        self._what = ""
        self._instant = False

    def start(self, plan: Plan) -> None:
        """Say what is going to be asked."""
        self._instant = plan.instant
        self._say(str(plan))

    def show(self, progress: Progress) -> None:
        """Write how far it is, if that is news."""
        # A countdown is told once, and not every second.
        what = progress.what.partition("; again in")[0]
        if (what and what != self._what) or progress.done - self._done >= max(progress.pieces / _LINES, 1):
            self._say(_line(progress))
            self._done, self._what = progress.done, what

    def finish(self, digest: Digest) -> None:
        """Write the answer."""
        self._write(digest.page.text)

    def fail(self) -> None:
        """Write nothing: the error says what is kept."""

    def _say(self, line: str) -> None:
        if not self._instant:
            self._write(one_line(line))


def _line(progress: Progress, *more: str) -> str:
    pieces = f"{progress.done:,} of {progress.pieces:,} piece{'s' * (progress.pieces != 1)}"
    return " · ".join(filter(None, [pieces, progress.what, *more]))
