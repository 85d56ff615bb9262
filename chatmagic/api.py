"""The handle that ``chatmagic.session()`` returns: a conversation, from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings, checked
from chatmagic.errors import LineError

__all__ = ["Ask", "Chat"]

Ask = Callable[..., Turn]
"""``(session, prompt, *, options, once, display) -> Turn``"""


class Chat:
    """A conversation of this kernel by its name. It begins to exist when something is asked in it."""

    def __init__(self, name: str, sessions: Sessions, ask: Ask) -> None:
        self._name = sessions.find(name).name
        self._sessions = sessions
        self._ask = ask

    @property
    def _session(self) -> Session:
        return self._sessions.find(self._name)

    @property
    def name(self) -> str:
        """The session's name."""
        return self._name

    @property
    def turns(self) -> list[Turn]:
        """The turns of the conversation, oldest first."""
        return self._session.turns

    @property
    def messages(self) -> list[Message]:
        """The history: the system prompt, then prompts and replies in turn."""
        return self._session.messages

    @property
    def last(self) -> Turn | None:
        """The newest turn."""
        return self._session.last

    @property
    def usage(self) -> Usage:
        """What the turns of the conversation used together, as the server counted; None is unknown."""
        return self._session.usage

    def ask(
        self,
        text: str,
        *,
        model: str | None = None,
        system: str | None = None,
        once: bool = False,
        display: bool = False,
        **parameters: Any,
    ) -> Turn:
        """Ask *text* and return the turn; its ``reply`` is the text of the answer.

        *model*, *system* and any other request *parameters* hold from here on, as the options of ``%%chat`` do. With
        *once* the turn is not stored; with *display* it is shown while it streams.

        Raises:
            ChatMagicError: there is no reply; the conversation is as it was.
        """
        if not isinstance(text, str):
            raise LineError(f"a prompt is text, not {type(text).__name__}")
        said = {"model": model, "system": system}
        options: Settings = checked({**{key: value for key, value in said.items() if value is not None}, **parameters})
        return self._ask(self._session, text, options=options, once=once, display=display)

    def __repr__(self) -> str:
        count = len(self.turns)
        return f"<chat session {self._name!r}: {count} turn{'' if count == 1 else 's'}>"
