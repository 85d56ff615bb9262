"""What can go wrong at the other end -> our errors, in the user's words and without keys."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai

from chatmagic.errors import ContextOverflowError, EndpointError, RequestError, UnreachableError
from chatmagic.plain import one_line
from chatmagic.provider.endpoints import Target

__all__ = ["server_error", "translate"]

_SECRET = re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|key)[-_][\w*.-]{6,}|\bBearer\s+\S+|\bAIza[\w-]{20,}", re.IGNORECASE)
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (?:length|window|size)", re.IGNORECASE
)
_NO_CREDIT = re.compile(r"insufficient_quota|billing_hard_limit|insufficient (?:credit|balance|funds)", re.IGNORECASE)
_START = {"ollama": " (ollama serve)", "llamacpp": " (llama-server -m MODEL.gguf)"}


def translate(exc: Exception, where: Target, key: str | None) -> RequestError | EndpointError:
    """Return our error for a foreign one. Neither its text nor a cause of it holds *key* or anything like a key."""
    if isinstance(exc, openai.APIStatusError):
        return _refused(exc, where, key)
    if isinstance(exc, UnicodeEncodeError):
        return RequestError(
            "the request holds half a character (a lone surrogate) and cannot be sent; nothing was stored"
        )
    cause = exc.__cause__ if isinstance(exc, openai.APIConnectionError) and exc.__cause__ else exc
    url = where.endpoint.url
    if isinstance(cause, (httpx2.TimeoutException, openai.APITimeoutError)):
        connecting = isinstance(cause, httpx2.ConnectTimeout)
        silent = "could not be reached" if connecting else "was silent for too long"
        return UnreachableError(
            f"{url} {silent}; %config ChatMagic.timeout says how long is too long", retryable=connecting
        )
    if isinstance(cause, httpx2.ConnectError):
        return _no_server(cause, where, key)
    if isinstance(cause, (httpx2.LocalProtocolError, httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
        # Its text may quote a header, and so the key.
        return EndpointError(
            f"the request to {url} cannot be formed; check the URL, and OPENAI_ORG_ID and OPENAI_PROJECT_ID"
        )
    if isinstance(cause, (httpx2.TransportError, httpx2.StreamError, OSError)):
        what = _clean(str(cause), key) or type(cause).__name__
        return RequestError(f"the connection to {url} broke: {what}", retryable=True)
    return RequestError(f"the request to {url} failed with {type(cause).__name__}: {_clean(str(cause), key)}")


def _no_server(cause: Exception, where: Target, key: str | None) -> UnreachableError:
    endpoint = where.endpoint
    what = _clean(str(cause), key)
    if endpoint.is_local:
        start = _START.get(endpoint.name, "")
        return UnreachableError(f"no server answers at {endpoint.url} ({what}). Is it running{start}?")
    return UnreachableError(f"cannot connect to {endpoint.url} ({what}). Is the machine online, is the URL right?")


def _refused(exc: openai.APIStatusError, where: Target, key: str | None) -> RequestError:
    """Translate an HTTP status of 400 or more."""
    status, endpoint = exc.status_code, where.endpoint
    said = _clean(_message(exc), key) or "no reason given"
    evidence = f"{exc.code} {exc.type} {said}"
    told = f"{endpoint.name} says ({status}): {said}"
    retry_after = _retry_after(exc.response.headers)
    if status in (400, 413, 422) and _OVERFLOW.search(evidence):
        return _overflow(where, said, status)
    if status == 401:
        source = (
            f"the key in {endpoint.key_env}"
            if endpoint.key_env
            else "a request without a key; its endpoint needs 'key_env'"
        )
        return RequestError(f"{endpoint.name} refuses {source} (401): {said}", status=status)
    if status == 404:
        return RequestError(
            f"{told}. Is {where.model!r} one of its models, is {endpoint.url} its base URL?", status=status
        )
    if status == 429 and _NO_CREDIT.search(evidence):
        return RequestError(f"{told}. There is no credit left; waiting does not help", status=status)
    if status in (408, 409, 429) or status >= 500:
        if retry_after is not None:
            told += f" (it asks to wait {retry_after:.0f} s)"
        return RequestError(told, status=status, retryable=status != 501, retry_after=retry_after)
    return RequestError(told, status=status)


def _overflow(where: Target, said: str, status: int | None) -> ContextOverflowError:
    return ContextOverflowError(
        f"the conversation is longer than {where.model!r} can take: {said}. %chat undo takes turns back, "
        "%chat new NAME starts afresh",
        status=status,
    )


def server_error(error: object) -> RequestError:
    """Return the error for an ``error`` object inside a stream, which came with a status of 200."""
    fields = error if isinstance(error, dict) else {}
    said = _clean(str(fields.get("message") or error), None)
    code = fields.get("code")
    status = code if isinstance(code, int) else None
    kind = f"{code} {fields.get('type')}"
    retryable = (status or 0) >= 500 or bool(re.search(r"overloaded|server_error|rate_limit|unavailable", kind))
    if _OVERFLOW.search(f"{kind} {said}"):
        return ContextOverflowError(f"the conversation is longer than the model can take: {said}", status=status)
    return RequestError(f"the server broke off: {said}", status=status, retryable=retryable)


def _message(exc: openai.APIStatusError) -> str:
    """Find the sentence in an error body; every server has a form of its own."""
    body: Any = exc.body
    if isinstance(body, dict):
        for name in ("message", "error", "detail", "msg"):
            if found := body.get(name):
                return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)
        return json.dumps(body, ensure_ascii=False, default=str)
    return re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", exc.response.text, flags=re.DOTALL | re.IGNORECASE)


def _clean(text: str, key: str | None) -> str:
    """Make *text* of a server one line without anything that is, or looks like, a key."""
    if key:
        text = text.replace(key, "[key]")
    return one_line(_SECRET.sub("[key]", text)).rstrip(".")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds the server asks to wait; a header that cannot be read asks for nothing."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif (value := headers.get("retry-after")) is None:
            return None
        elif value.replace(".", "", 1).isdecimal():
            seconds = float(value)
        else:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
