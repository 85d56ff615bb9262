"""Every way chatmagic can fail, as one tree.

ChatMagicError
├── LineError               the line of a magic, or the cell below it, cannot be read
├── TemplateError           an ``{{ expression }}`` in the prompt failed
├── SessionError            no such session or turn, a name that cannot be one, nothing to undo
├── SettingError            a setting that cannot be what it was set to
├── EndpointError           no such endpoint, no key for it, or a URL that cannot be one
├── RequestError            the server did not answer with a reply
│   ├── UnreachableError        there was no server to ask
│   └── ContextOverflowError    the conversation is longer than the model's context window
├── SpendingError           the turn could cost more than is allowed
├── RecordError             what is stored, or in a file, is not what it should be
├── TapeError               the tape has no answer, or cannot be read or written
├── InterruptedTurnError    the user stopped the turn
└── CutReplyError           the stream ended before the reply did
"""

from __future__ import annotations

from chatmagic.plain import one_line

__all__ = [
    "ChatMagicError",
    "ChatMagicWarning",
    "ContextOverflowError",
    "CutReplyError",
    "EndpointError",
    "InterruptedTurnError",
    "LineError",
    "RecordError",
    "RequestError",
    "SessionError",
    "SettingError",
    "SpendingError",
    "TapeError",
    "TemplateError",
    "UnreachableError",
]


class ChatMagicWarning(UserWarning):
    """Something was decided for the user."""


class ChatMagicError(Exception):
    """Base of all errors. The message is one line: the value, what would have worked, the next step."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, limit=1000))

    def _render_traceback_(self) -> list[str]:
        # IPython asks the exception itself: the user needs the line, not our frames.
        return [f"\x1b[31m{type(self).__name__}\x1b[39m: {self}"]


class LineError(ChatMagicError):
    """The line of a magic, or the cell below it, cannot be read."""


class TemplateError(ChatMagicError):
    """An ``{{ expression }}`` in the prompt failed."""


class SessionError(ChatMagicError):
    """No such session or turn, a name that cannot be one, or nothing to undo."""


class SettingError(ChatMagicError):
    """A setting that cannot be what it was set to."""


class EndpointError(ChatMagicError):
    """No such endpoint, no key for it, or a URL that cannot be one."""


class RequestError(ChatMagicError):
    """The server did not answer with a reply.

    ``status`` is the HTTP status if there was one; ``retryable`` says whether the same request may work later, and
    ``retry_after`` (seconds) when, if the server said so.
    """

    def __init__(
        self, message: str, *, status: int | None = None, retryable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after


class UnreachableError(RequestError):
    """There was no server to ask."""


class ContextOverflowError(RequestError):
    """The conversation is longer than the model's context window.

    ``window`` and ``size`` (tokens) are how long it may be and how long the request was, as far as the server says so.
    """

    def __init__(
        self, message: str, *, status: int | None = None, window: int | None = None, size: int | None = None
    ) -> None:
        super().__init__(message, status=status)
        self.window = window
        self.size = size


class SpendingError(ChatMagicError):
    """The turn could cost more than is allowed; nothing was sent."""


class RecordError(ChatMagicError):
    """What is stored, or in a file, is not what it should be."""


class TapeError(ChatMagicError):
    """The tape has no answer to a request, which was not sent, or cannot be read or written."""


class InterruptedTurnError(ChatMagicError):
    """The user stopped the turn; text that had arrived is kept."""


class CutReplyError(ChatMagicError):
    """The stream ended before the reply did; text that had arrived is kept."""
