"""What goes on in a session, in a few words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chatmagic.conversation.messages import Turn
from chatmagic.events import Busy, Delta, Event, Reasoning, Renderer, Sending, Waiting

__all__ = ["Told"]


class Told:
    """Does what *renderer* does, and calls *tell* with a few words whenever something else goes on."""

    def __init__(self, renderer: Renderer, tell: Callable[[str], None]) -> None:
        self._renderer, self._tell = renderer, tell
        self._last = ""

    def start(self, session: str, model: str) -> None:
        """The request is about to be sent."""
        self._renderer.start(session, model)

    def show(self, event: Event) -> None:
        """Something came."""
        self._renderer.show(event)
        match event:
            case Busy(what):
                self._say(what)
            case Sending():
                self._say("is being asked")
            case Reasoning():
                self._say("is thinking")
            case Waiting(reason, seconds):
                self._say(f"waits: {reason}; again in {seconds} s")
            case Delta():
                self._say("is answering")

    def finish(self, session: str, turn: Turn, notices: Sequence[str]) -> None:
        """The turn is over."""
        self._say("")
        self._renderer.finish(session, turn, notices)

    def fail(self, notices: Sequence[str]) -> None:
        """There is no turn."""
        self._say("")
        self._renderer.fail(notices)

    def _say(self, what: str) -> None:
        if what != self._last:
            self._last = what
            self._tell(what)
