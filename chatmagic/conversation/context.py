"""History -> what is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chatmagic.conversation.messages import Message, Turn

__all__ = ["ContextPolicy", "everything"]

ContextPolicy = Callable[[Sequence[Turn], str | None, str], list[Message]]
"""Line (oldest turn first), system prompt, new prompt -> the messages of the request."""


def everything(turns: Sequence[Turn], system: str | None, prompt: str) -> list[Message]:
    """Send the whole line: one system message first, every turn as it was said, the new prompt last."""
    messages = [Message("system", system)] if system else []
    for turn in turns:
        messages += turn.messages
    messages.append(Message("user", prompt))
    return messages
