"""Lists of messages, as the API takes them and fine-tuning files hold them -> a session."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chatmagic.conversation.session import Session
from chatmagic.errors import RecordError
from chatmagic.exchange.branches import Node, count_of, grown
from chatmagic.exchange.conversation import Conversation, list_of, mapping_of, text_of
from chatmagic.plain import one_line

__all__ = ["api_messages", "conversation"]

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "none",
    "function": "none",
}


def api_messages(session: Session) -> list[dict[str, str]]:
    """Return the messages of *session* as the API takes them."""
    return [{"role": message.role, "content": message.content} for message in session.messages]


def conversation(messages: Sequence[object], title: str) -> Conversation:
    """Return the conversation that *messages* are.

    Raises:
        RecordError: they are none.
    """
    nodes = [_node(number, mapping_of(message, "message")) for number, message in enumerate(messages)]
    session, unanswered = grown(nodes)
    tools = sum(node.role == "none" for node in nodes)
    notes = [f"{count_of(unanswered, 'prompt')} without a reply left out"] * bool(unanswered)
    notes += [f"{count_of(tools, 'message')} of tools left out"] * bool(tools)
    return Conversation(title, session, notes=tuple(notes))


def _node(number: int, message: Mapping[str, Any]) -> Node:
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RecordError(f"message {number + 1} has the role {one_line(repr(role)[:200], 40)}")
    parent = str(number - 1) if number else None
    text = _text(message.get("content"), number)
    if role == "assistant":
        text = "\n\n".join(filter(None, [text or text_of(message.get("refusal")), *_calls(message)]))
    return Node(str(number), parent, _ROLES[role], text, text_of(message.get("reasoning_content")))


def _text(content: object, number: int) -> str:
    if isinstance(content, list):
        return "\n\n".join(filter(None, map(_part, content)))
    if content is None or isinstance(content, str):
        return content or ""
    raise RecordError(f"message {number + 1} has the content {one_line(repr(content)[:200], 40)}")


def _part(part: object) -> str:
    found = part if isinstance(part, dict) else {"text": part}
    kind = one_line(text_of(found.get("type")), 40).partition("_")[0]
    return text_of(found.get("text")) or text_of(found.get("refusal")) or (f"[{kind}]" if kind else "")


def _calls(message: Mapping[str, Any]) -> Iterable[str]:
    """Yield what the model asked tools to do, as it is no text."""
    calls = [*list_of(message.get("tool_calls")), *([message["function_call"]] if message.get("function_call") else [])]
    for call in calls:
        yield f"```json\n{json.dumps(call)}\n```"
