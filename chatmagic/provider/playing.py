"""An answer as a server would send it: streamed or whole, at once or at a pace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from chatmagic.provider.answers import CHAT, RESPONSES, Answer, Question

__all__ = ["played"]

Pieces = Callable[[str], Sequence[str]]


def _at_once(text: str) -> Sequence[str]:
    return [text] if text else []


def played(
    question: Question,
    answer: Answer,
    *,
    stream: bool,
    with_usage: bool,
    pieces: Pieces = _at_once,
) -> Iterator[bytes]:
    """Yield the body that brings *answer*, as a server would send it; *pieces* cuts texts into what comes at once."""
    if question.path == CHAT:
        if stream:
            yield from _chat_stream(question, answer, with_usage, pieces)
        else:
            yield _json(_chat_whole(question, answer))
    elif question.path == RESPONSES:
        response = _response(question, answer)
        if stream:
            for number, event in enumerate(_response_events(response, pieces)):
                yield f"event: {event['type']}\n".encode() + _event({**event, "sequence_number": number})
        else:
            yield _json(response)
    else:
        yield _json(answer.rest)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _event(value: object) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _choices(answer: Answer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the choices of a chat reply, and what else it says."""
    rest = dict(answer.rest)
    if "choices" in rest:
        return rest.pop("choices"), rest
    about: dict[str, Any] = {key: rest.pop(key) for key in ("finish_reason", "logprobs") if key in rest}
    return [{"message": dict(answer.items[0]) if answer.items else {}, **about}], rest


def _chat_frame(question: Question, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-tape", "object": kind, "created": 0, "model": question.settings.get("model", "")}


def _chat_whole(question: Question, answer: Answer) -> dict[str, Any]:
    choices, rest = _choices(answer)
    whole = [
        {
            "index": number,
            "logprobs": None,
            **choice,
            "message": {"role": "assistant", "content": None, **choice["message"]},
        }
        for number, choice in enumerate(choices)
    ]
    return {**_chat_frame(question, "chat.completion"), "choices": whole, **rest}


def _chat_stream(question: Question, answer: Answer, with_usage: bool, pieces: Pieces) -> Iterator[bytes]:
    choices, rest = _choices(answer)
    frame = _chat_frame(question, "chat.completion.chunk")
    apart = {"usage": rest.pop("usage")} if with_usage and "usage" in rest else {}

    def chunk(number: int, delta: Mapping[str, Any], **about: Any) -> bytes:
        choice = {"index": number, "delta": delta, "finish_reason": None, **about}
        return _event({**frame, "choices": [choice], **(rest if about else {})})

    for number, choice in enumerate(choices):
        about = {key: value for key, value in choice.items() if key != "message"}
        message = dict(choice["message"])
        yield chunk(number, {"role": message.pop("role", "assistant"), "content": ""})
        texts: dict[str, list[str]] = {}  # of which one may come under two names
        for key, value in sorted(message.items(), key=lambda entry: not entry[0].startswith("reasoning")):
            if isinstance(value, str):
                texts.setdefault(value, []).append(key)
        for text, keys in texts.items():
            for piece in pieces(text):
                yield chunk(number, dict.fromkeys(keys, piece))
        for key, value in message.items():
            if not isinstance(value, str):
                yield chunk(number, {key: _numbered(value) if key == "tool_calls" else value})
        yield chunk(number, {}, **about)
    if apart:
        yield _event({**frame, "choices": [], **apart})
    yield b"data: [DONE]\n\n"


def _numbered(calls: Any) -> Any:
    if not isinstance(calls, list):
        return calls
    return [{"index": number, **call} if isinstance(call, dict) else call for number, call in enumerate(calls)]


def _response(question: Question, answer: Answer) -> dict[str, Any]:
    always: dict[str, Any] = {
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
    }
    return {
        "id": "resp_tape",
        "object": "response",
        "created_at": 0,
        "error": None,
        "incomplete_details": None,
        **always,
        **question.settings,
        "output": list(answer.items),
        **answer.rest,
    }


def _response_events(response: Mapping[str, Any], pieces: Pieces) -> Iterator[dict[str, Any]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for number, item in enumerate(response["output"]):
        where = {"output_index": number, "item_id": item.get("id")} if isinstance(item, dict) else {}
        yield {"type": "response.output_item.added", "output_index": number, "item": _begun(item)}
        yield from _item_events(item, where, pieces)
        yield {"type": "response.output_item.done", "output_index": number, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _begun(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    empty: dict[str, Any] = {"content": [], "summary": [], "arguments": "", "status": "in_progress"}
    return {key: empty.get(key, value) for key, value in item.items()}


def _item_events(item: Any, where: dict[str, Any], pieces: Pieces) -> Iterator[dict[str, Any]]:
    """Yield the events between the begin and the end of an item."""
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "message":
        for number, part in enumerate(_parts(item.get("content"))):
            at = {**where, "content_index": number}
            name, key = ("refusal", "refusal") if part.get("type") == "refusal" else ("output_text", "text")
            yield {"type": "response.content_part.added", **at, "part": {**part, key: ""}}
            for piece in pieces(part.get(key) or ""):
                yield {"type": f"response.{name}.delta", **at, "delta": piece, "logprobs": []}
            yield {"type": f"response.{name}.done", **at, key: part.get(key) or "", "logprobs": []}
            yield {"type": "response.content_part.done", **at, "part": part}
    elif kind == "reasoning":
        for number, part in enumerate(_parts(item.get("summary"))):
            at = {**where, "summary_index": number}
            yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}
            for piece in pieces(part.get("text") or ""):
                yield {"type": "response.reasoning_summary_text.delta", **at, "delta": piece}
            yield {"type": "response.reasoning_summary_text.done", **at, "text": part.get("text") or ""}
            yield {"type": "response.reasoning_summary_part.done", **at, "part": part}
    elif kind == "function_call":
        arguments = item.get("arguments") or ""
        for piece in pieces(arguments):
            yield {"type": "response.function_call_arguments.delta", **where, "delta": piece}
        yield {
            "type": "response.function_call_arguments.done",
            **where,
            "arguments": arguments,
            "name": item.get("name"),
        }


def _parts(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
