"""A growing reply on the screen: in a notebook, in a terminal, or nowhere."""

from __future__ import annotations

import contextvars
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence

from IPython.core.getipython import get_ipython
from IPython.display import display, publish_display_data

from chatmagic.conversation.messages import Turn
from chatmagic.display.canvas import Canvas
from chatmagic.display.page import LOOK, Look, Page, footer, lines_page, turn_page
from chatmagic.errors import ChatMagicWarning
from chatmagic.events import Busy, Delta, Event, Queued, Reasoning, Remark, Sending, Waiting
from chatmagic.plain import one_line, plain

__all__ = ["NotebookView", "SilentView", "TerminalView", "show", "shows_updates"]

_SHORTEST = 0.1  # seconds between two paints
_PATIENCE = 0.3  # seconds until the cell says that it waits
_BUSY = 10  # the pause after a paint is this many times as long as the processor needed for it

_warned: dict[str | tuple[str, type[Warning], int], int] = {}  # where Python notes what was shown already


class NotebookView:
    """Paints into the output of the cell: an instant reply once, any other one while it grows.

    Painting runs in a thread of its own, so that reading the stream never waits for it and a silent server still
    leaves a clock on the screen. *look* is how; *shown* is told in which display a turn is shown, with its session
    and notices.
    """

    def __init__(
        self,
        publish: Callable[..., None] = publish_display_data,
        shown: Callable[[str, str, Turn, Sequence[str]], None] = lambda *_: None,
        look: Look = LOOK,
    ) -> None:
        self._canvas = Canvas(publish, look)
        self._shown = shown
        self._look = look
        self._text: deque[str] = deque()  # what is not painted yet
        self._reasoning: list[str] = []
        self._remarks: list[str] = []
        self._line = ""
        self._waits = ""
        self._changed = threading.Event()
        self._over = threading.Event()
        self._painter: threading.Thread | None = None

    def start(self, session: str, model: str) -> None:
        """Remember whose reply it is."""
        self._line = f"{session} · {model}"

    def show(self, event: Event) -> None:
        """Take the event, and let the painter know."""
        match event:
            case Delta(text):
                self._text.append(text)
                self._waits = ""
                self._changed.set()
            case Sending(_, instant):
                self._waits = "waiting"
                if not instant:
                    self._begin()
            case Queued(session):
                self._line, self._waits = session, "waiting for its reply to another prompt"
                self._begin()
            case Busy(what, instant):
                self._waits = what
                if not instant:
                    self._begin()
            case Reasoning(text):
                self._waits = "thinking"
                self._reasoning.append(text)
                self._changed.set()
            case Remark(text):
                self._remarks.append(text)
                self._changed.set()
            case Waiting(reason, seconds):
                self._waits = f"{reason}; again in {seconds} s"
                self._changed.set()

    def finish(self, session: str, turn: Turn, notices: Sequence[str]) -> None:
        """Paint the whole turn as the one output that stays."""
        self._end()
        self._canvas.finish(turn_page(session, turn, notices, look=self._look))
        self._shown(self._canvas.display_id, session, turn, notices)

    def fail(self, notices: Sequence[str]) -> None:
        """Leave nothing but the *notices*."""
        self._end()
        if notices:
            self._canvas.finish(lines_page(notices))
        else:
            self._canvas.clear()

    def _begin(self) -> None:
        if self._painter is not None:
            return
        # In a copy of the cell's context its output goes to this cell, whatever runs meanwhile.
        context = contextvars.copy_context()
        self._painter = threading.Thread(target=context.run, args=(self._paint_on,), daemon=True)
        self._painter.start()

    def _end(self) -> None:
        if self._painter is not None:
            self._over.set()
            self._changed.set()
            self._painter.join()

    def _paint_on(self) -> None:
        """Paint whenever something came, but not too often, and once a second for the clock."""
        import chatmagic.growing  # noqa: F401 - its import, too, should be over when the first words come

        started = time.monotonic()
        pause = _PATIENCE
        while True:
            self._changed.wait(pause)
            if self._over.is_set():
                return
            self._changed.clear()
            seconds, cpu = time.monotonic() - started, time.thread_time()
            text = "".join(self._text.popleft() for _ in range(len(self._text)))
            reasoning = "".join(self._reasoning)
            self._canvas.grow(text, [*self._remarks, self._progress(seconds)], reasoning)
            if text or reasoning:  # the first words do not wait for the clock
                cost = time.thread_time() - cpu
                self._over.wait(max(_SHORTEST, cost * _BUSY, self._canvas.debt(seconds)))
            pause = 1.0

    def _progress(self, seconds: float) -> str:
        return " · ".join(filter(None, [self._line, self._waits, f"{seconds:.0f} s"]))


class TerminalView:
    """Writes the reply as it comes, as text in which no control sequence is left."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or _write
        self._said: set[str] = set()
        self._ended = True

    def start(self, session: str, model: str) -> None:
        """Write nothing: the footer says whose reply it is."""

    def show(self, event: Event) -> None:
        """Write the next words, or why nothing comes."""
        match event:
            case Delta(text):
                self._text(plain(text))
            case Waiting(reason, seconds):
                self._say(reason, f"; again in {seconds} s")
            case Queued(session):
                self._say(f"{session} is waiting for its reply to another prompt", " …")
            case Busy(what, instant) if not instant:
                self._say(what, " …")
            case Remark(text):
                self._say(text)
            case Reasoning():
                self._say("thinking", " …")

    def finish(self, session: str, turn: Turn, notices: Sequence[str]) -> None:
        """Write the notices and the footer below the reply."""
        lines = [*(notice for notice in notices if notice not in self._said), footer(session, turn)]
        self._text("\n" * (1 if self._ended else 2) + "\n".join(map(one_line, lines)) + "\n")

    def fail(self, notices: Sequence[str]) -> None:
        """Write the notices."""
        for notice in notices:
            self._say(notice)

    def _say(self, line: str, end: str = "") -> None:
        """Write a line that is not part of the reply, once."""
        if line not in self._said:
            self._said.add(line)
            self._text(f"{one_line(line)}{end}\n")

    def _text(self, text: str) -> None:
        if text:
            self._ended = text.endswith("\n")
            self._write(text)


def _write(text: str) -> None:
    print(text, end="", flush=True)  # noqa: T201 - the terminal is where this view writes


def shows_updates() -> bool:
    """Return False where the running cell comes from a console that shows how a display began and no update of it.

    That is what ``jupyter console`` and qtconsole do. A request does not name its front end, but theirs names no cell,
    can ask for input (nbclient and nbval cannot) and was numbered by jupyter_client (browsers number otherwise):
    https://jupyter-client.readthedocs.io/en/stable/messaging.html#execute
    """
    request = getattr(get_ipython(), "parent_header", None) or {}
    header, content = request.get("header", {}), request.get("content", {})
    numbered = str(header.get("msg_id")).startswith(f"{header.get('session')}_")
    return not (numbered and content.get("allow_stdin") and not request.get("metadata"))


class SilentView:
    """Shows nothing; who asked gets the turn."""

    def start(self, session: str, model: str) -> None:
        """Show nothing."""

    def show(self, event: Event) -> None:
        """Show nothing."""

    def finish(self, session: str, turn: Turn, notices: Sequence[str]) -> None:  # noqa: ARG002 - the Protocol's shape
        """Show nothing; what was decided on the way is a warning."""
        for notice in notices:
            # The path of our code or of a cell would be another one on every machine, and nbval compares it.
            warnings.warn_explicit(notice, ChatMagicWarning, "<chatmagic>", 1, module="chatmagic", registry=_warned)

    def fail(self, notices: Sequence[str]) -> None:
        """Show nothing."""


def show(answer: str | Page) -> None:
    """Show what a verb answers: a page where it can be shown, a text as it is."""
    if isinstance(answer, str):
        _write(plain(answer) + "\n" * bool(answer))
    else:
        display(answer)  # type: ignore[no-untyped-call]  # IPython's, untyped
