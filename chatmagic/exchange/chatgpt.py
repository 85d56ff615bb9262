"""A conversation of a ChatGPT data export, whose branches are kept.

The format is not documented. ``mapping`` holds the messages by id, each with its ``parent``; ``current_node`` is the
one that was shown last. Newer exports are cut into files conversations-000.json, conversations-001.json and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from chatmagic.conversation.messages import Status
from chatmagic.exchange.branches import Node, count_of, grown
from chatmagic.exchange.conversation import Conversation, list_of, mapping_of, seconds, text_of

__all__ = ["FILES", "conversation"]

FILES = re.compile(r"(?:.*/)?conversations(?:-\d{1,6})?\.json", re.DOTALL)
"""What files with conversations are called in the zip file of an export."""

_NOT_SAID = ("user_editable_context", "model_editable_context", "reasoning_recap")
_POINTERS = {"image_asset_pointer": "image", "audio_asset_pointer": "audio", "video_container_asset_pointer": "video"}


def conversation(item: Mapping[str, Any]) -> Conversation:
    """Return the conversation that *item* describes.

    Raises:
        RecordError: it describes none.
    """
    mapping = mapping_of(item.get("mapping"), "mapping of messages")
    session, unanswered = grown(_nodes(mapping), text_of(item.get("current_node")) or None)
    started = seconds(item.get("create_time"))
    title = text_of(item.get("title")) or "chat"
    left = (f"{count_of(unanswered, 'prompt')} without a reply left out",) if unanswered else ()
    return Conversation(title, session, started or (session.last.started if session.last else 0.0), notes=left)


def _nodes(mapping: Mapping[str, Any]) -> Iterable[Node]:
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield _node(key, text_of(value.get("parent")) or None, value.get("message"))


def _node(key: str, parent: str | None, message: object) -> Node:
    said: dict[str, Any] = message if isinstance(message, dict) else {}
    metadata, author, content = (_dict(said.get(name)) for name in ("metadata", "author", "content"))
    role = text_of(author.get("role"))
    kind = text_of(content.get("content_type"))
    if metadata.get("is_visually_hidden_from_conversation") or kind in _NOT_SAID or role not in _ROLES:
        return Node(key, parent, "none")
    if role == "tool":  # what it says was said to the model; pictures that it made were shown
        return Node(key, parent, "assistant" if (shown := _others(content)) else "none", shown)
    status, finish = _ending(said, metadata)
    return Node(
        key,
        parent,
        role,
        "" if kind == "thoughts" else _text(kind, content),
        _thoughts(content) if kind == "thoughts" else "",
        text_of(metadata.get("model_slug")),
        seconds(said.get("create_time")),
        status=status,
        finish=finish,
    )


_ROLES = ("user", "assistant", "tool")


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _ending(message: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[Status, str]:
    kind = _dict(metadata.get("finish_details")).get("type")
    if kind == "interrupted" or message.get("status") == "in_progress":
        return "interrupted", "stop"
    return "complete", "length" if kind == "max_tokens" else "stop"


def _text(kind: str, content: Mapping[str, Any]) -> str:
    if kind in ("code", "execution_output") and (code := text_of(content.get("text"))):
        language = text_of(content.get("language"))
        return _fenced(code, language if re.fullmatch(r"[\w+-]{1,20}", language) and language != "unknown" else "")
    parts = content.get("parts")
    if not isinstance(parts, list):
        return text_of(content.get("text")) or text_of(content.get("result"))
    return "\n\n".join(filter(None, map(_part, parts)))


def _fenced(code: str, language: str) -> str:
    marks = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{marks}{language}\n{code}\n{marks}"


def _part(part: object) -> str:
    if not isinstance(part, dict):
        return text_of(part)
    if text := text_of(part.get("text")):
        return text
    kind = text_of(part.get("content_type"))
    return f"[{_POINTERS.get(kind) or re.sub(r'[^a-z]+', ' ', kind[:40]).strip() or 'attachment'}]"


def _others(content: Mapping[str, Any]) -> str:
    return "\n\n".join(_part(part) for part in list_of(content.get("parts")) if isinstance(part, dict))


def _thoughts(content: Mapping[str, Any]) -> str:
    thoughts = [_dict(each) for each in list_of(content.get("thoughts"))]
    texts = [text_of(each.get(name)) for each in thoughts for name in ("summary", "content")]
    return "\n\n".join(filter(None, texts))
