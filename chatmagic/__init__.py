"""Named chat conversations in notebook cells: ``%load_ext chatmagic``, then ``%%chat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chatmagic.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from chatmagic.api import Chat, Chats
    from chatmagic.conversation.messages import Message, Turn, Usage
    from chatmagic.display.digest import Digest
    from chatmagic.errors import ChatMagicError, ChatMagicWarning

__all__ = [
    "Chat",
    "ChatMagicError",
    "ChatMagicWarning",
    "Chats",
    "Digest",
    "Message",
    "Turn",
    "Usage",
    "__version__",
    "load_ipython_extension",
    "session",
    "sessions",
    "summarize",
    "unload_ipython_extension",
]

_HOME = {
    "Chat": "chatmagic.api",
    "ChatMagicError": "chatmagic.errors",
    "ChatMagicWarning": "chatmagic.errors",
    "Chats": "chatmagic.api",
    "Digest": "chatmagic.display.digest",
    "Message": "chatmagic.conversation.messages",
    "Turn": "chatmagic.conversation.messages",
    "Usage": "chatmagic.conversation.messages",
}


def __getattr__(name: str) -> Any:
    # Looked up when first used: importing chatmagic costs next to nothing.
    if name == "sessions":
        return _sessions()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


def session(name: str | None = None) -> Chat:
    """Return the conversation *name* of this kernel (by default the current one); asking in it starts it."""
    from chatmagic.magics import kernel

    return kernel.chat(name)


def summarize(
    text: object,
    *,
    model: str | None = None,
    prompt: str = "",
    refine: bool = False,
    at_once: int = 4,
    display: bool = False,
) -> Digest:
    """Return one answer over *text*: a text, the file of a ``pathlib.Path``, or several of these, of any length.

    *prompt* says what it is for, or what to look for. The text is read in pieces that fit the *model* (by default that
    of the current conversation), *at_once* of them side by side, and their answers are merged; with *refine* each piece
    improves the answer so far. No conversation gets any of it. With *display* it is shown while it is made.

    Raises:
        LineError: there is no text.
        SpendingError: it could cost more than is allowed.
        InterruptedTurnError: the user stopped it. What is done is kept: the same call asks only for the rest.
        ChatMagicError: a piece has no answer. What is done is kept.
    """
    from chatmagic.magics import kernel

    return kernel.summarize(text, model=model, prompt=prompt, refine=refine, at_once=at_once, display=display)


def _sessions() -> Chats:
    from chatmagic.magics import kernel

    return kernel.chats()


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext chatmagic``: register ``%%chat`` and ``%chat``."""
    from chatmagic.magics import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext chatmagic``: take everything back. The sessions stay with the kernel."""
    from chatmagic.magics import unload

    unload(shell)
