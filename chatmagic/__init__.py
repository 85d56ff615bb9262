"""Named chat conversations in notebook cells: ``%load_ext chatmagic``, then ``%%chat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chatmagic.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from chatmagic.api import Chat, Chats
    from chatmagic.conversation.messages import Message, Turn, Usage
    from chatmagic.errors import ChatMagicError, ChatMagicWarning

__all__ = [
    "Chat",
    "ChatMagicError",
    "ChatMagicWarning",
    "Chats",
    "Message",
    "Turn",
    "Usage",
    "__version__",
    "load_ipython_extension",
    "session",
    "sessions",
    "unload_ipython_extension",
]

_HOME = {
    "Chat": "chatmagic.api",
    "ChatMagicError": "chatmagic.errors",
    "ChatMagicWarning": "chatmagic.errors",
    "Chats": "chatmagic.api",
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
