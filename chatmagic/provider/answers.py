"""What is asked and what is answered, whichever way it travels: streamed or whole, in whatever pieces."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import httpx2

from chatmagic.errors import RequestError
from chatmagic.provider.models import telling
from chatmagic.provider.wire import json_object, objects

__all__ = ["CHAT", "MODELS", "RESPONSES", "Answer", "Question", "answer_in", "can_be_played", "path_of", "question"]

CHAT, RESPONSES, MODELS = "chat/completions", "responses", "GET/models"

_ITEMS = {CHAT: "messages", RESPONSES: "input"}
_ON_THE_WAY = ("stream", "stream_options", "prompt_cache_key")
"""What a request says about how the answer shall travel, not about what it shall be."""

_OF_THE_MOMENT = ("id", "object", "created", "model", "system_fingerprint", "service_tier", "obfuscation", "choices")
_NOT_ADDED_UP = ("role", "type", "id", "name", "format", "finish_reason")

_PATH = re.compile(r"(?:^|/)((?:chat/)?completions|responses|embeddings|models|moderations)/?$")
_DATA_URL = re.compile(r"data:([\w.+/-]*)[\w=;.+-]*;base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{1000,}={0,2}")


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks at *path*: *items* are its messages, *settings* all else that the answer depends on."""

    path: str
    settings: Mapping[str, Any]
    items: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: *items* are what the next request sends along as history, *rest* is all else worth keeping."""

    items: Sequence[Any] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)


def path_of(method: str, path: str) -> str:
    """Return what a request to the *path* of a URL wants, whatever the base URL."""
    known = _PATH.search(path)
    wanted = known[1] if known else quote(path.strip("/")) or "/"
    return wanted if method == "POST" else f"{method}/{wanted}"


def question(path: str, body: Mapping[str, Any], hide: Callable[[str], str]) -> Question:
    """Return what the *body* of a request asks: pictures and sounds by their hash, and what *hide* makes of texts."""
    settings = {key: value for key, value in body.items() if key not in _ON_THE_WAY}
    items: Any = settings.pop(_ITEMS[path], ()) if path in _ITEMS else ()
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]

    def change(text: str) -> str:
        return hide(_hashed(text))

    return Question(hide(path), _kept(settings, change), _kept(list(items), change))


def _hashed(text: str) -> str:
    """Return the hash of a picture or a sound in place of it."""
    url = _DATA_URL.match(text)
    if url:
        return f"data:{url[1]};sha256,{sha256(text[url.end() :].encode()).hexdigest()}"
    return f"sha256,{sha256(text.encode()).hexdigest()}" if _BASE64.fullmatch(text) else text


def _kept(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON as a tape keeps it: whole numbers without a fraction, halves of characters joined."""
    if isinstance(value, str):
        return change(value if value.isascii() else _joined(value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {change(str(key)): _kept(each, change) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_kept(each, change) for each in value]
    return value


def _joined(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def answer_in(path: str, response: httpx2.Response, hide: Callable[[str], str]) -> Answer | None:
    """Return what a response says; None: it failed, broke off, or says nothing that can be kept."""
    if response.status_code != 200:
        return None
    whole = json_object(response.content)
    try:
        said = [whole] if whole is not None else list(objects(response, None))
    except RequestError:
        return None
    if path == CHAT:
        answer = _of_chat(said)
    elif path == RESPONSES:
        answer = _of_responses(said)
    elif whole is None or whole.get("error"):
        answer = None
    elif path == MODELS:
        answer = _of_models(whole)
    else:
        answer = Answer(rest=whole)
    if answer is None:
        return None
    kept = Answer(_kept(answer.items, hide), _kept(answer.rest, hide))
    if kept == Answer(_kept(answer.items, str), _kept(answer.rest, str)):
        return kept
    # What was hidden stands there once more, token by token.
    return Answer(_without(kept.items, "logprobs"), _without(kept.rest, "logprobs"))


def can_be_played(path: str, answer: Answer) -> bool:
    """Return whether an answer has what one to a request at *path* must have."""
    if path == CHAT:
        choices = answer.rest.get("choices", [{"message": item} for item in answer.items])
        return isinstance(choices, list) and all(
            isinstance(choice, Mapping) and isinstance(choice.get("message"), Mapping) for choice in choices
        )
    return path != RESPONSES or isinstance(answer.rest.get("status"), str)


def _without(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _without(each, name) for key, each in value.items() if key != name}
    return [_without(each, name) for each in value] if isinstance(value, list) else value


def _of_chat(said: Sequence[Mapping[str, Any]]) -> Answer | None:
    choices: dict[int, dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for data in said:
        if data.get("error"):
            return None
        _lay_over(rest, {key: value for key, value in data.items() if key not in _OF_THE_MOMENT})
        found = data.get("choices")
        for choice in found if isinstance(found, list) else ():
            if isinstance(choice, dict):
                about = {key: value for key, value in choice.items() if key not in ("index", "delta", "message")}
                message = choice.get("delta") or choice.get("message")
                number = choice.get("index")
                kept = choices.setdefault(number if isinstance(number, int) else 0, {"message": {}})
                _add(kept, {**about, "message": message if isinstance(message, dict) else {}})
    whole = [choices[number] for number in sorted(choices)]
    if not whole or not all(choice.get("finish_reason") and _says_something(choice["message"]) for choice in whole):
        return None
    if rest.get("usage"):
        rest.pop("timings", None)  # another count of the same tokens, never twice the same
    if len(whole) > 1:
        return Answer(rest={**rest, "choices": whole})
    message = {"role": "assistant", **{key: value for key, value in whole[0].pop("message").items() if value != ""}}
    return Answer([message], {**whole[0], **rest})


def _of_models(whole: Mapping[str, Any]) -> Answer | None:
    entries = whole.get("data")
    if not isinstance(entries, list):
        return None
    return Answer(rest={"object": "list", "data": [telling(entry) for entry in entries if isinstance(entry, dict)]})


def _says_something(message: Mapping[str, Any]) -> bool:
    return any(value for key, value in message.items() if key != "role" and not key.startswith("reasoning"))


def _add(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Add a *piece* of what is streamed to what has come: texts and lists go on, all else is replaced."""
    for key, value in piece.items():
        so_far = whole.get(key)
        if value is None or (value == "" and so_far):
            continue
        if isinstance(value, str) and isinstance(so_far, str) and key not in _NOT_ADDED_UP:
            whole[key] = so_far + value
        elif isinstance(value, Mapping):
            whole[key] = so_far if isinstance(so_far, dict) else {}
            _add(whole[key], value)
        elif isinstance(value, list):
            whole[key] = so_far if isinstance(so_far, list) else []
            _add_elements(whole[key], value)
        else:
            whole[key] = value


def _add_elements(whole: list[Any], piece: list[Any]) -> None:
    for element in piece:
        index = element.get("index") if isinstance(element, dict) else None
        if not isinstance(index, int) or not 0 <= index < 1000:
            whole.append(element)
            continue
        whole.extend({} for _ in range(index + 1 - len(whole)))
        _add(whole[index], {key: value for key, value in element.items() if key != "index"})


def _lay_over(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    """Let what *piece* says hold, as far as it says something."""
    for key, value in piece.items():
        if isinstance(value, Mapping) and isinstance(whole.get(key), dict):
            _lay_over(whole[key], value)
        elif value is not None:
            whole[key] = (
                {name: each for name, each in value.items() if each is not None}
                if isinstance(value, Mapping)
                else value
            )


def _of_responses(said: Sequence[Mapping[str, Any]]) -> Answer | None:
    ends = [data.get("response") for data in said if data.get("type") in ("response.completed", "response.incomplete")]
    found = ends[-1] if ends else said[-1] if said else None
    if not isinstance(found, dict) or found.get("status") not in ("completed", "incomplete") or found.get("error"):
        return None
    done = [data.get("item") for data in said if data.get("type") == "response.output_item.done"]
    output = found.get("output") or done  # some servers say it in pieces only
    if not isinstance(output, list):
        return None
    rest = {key: found[key] for key in ("id", "status", "incomplete_details", "usage") if found.get(key)}
    return Answer(output, rest)
