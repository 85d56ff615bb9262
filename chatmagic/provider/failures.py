"""What can go wrong at the other end -> our errors, in the user's words and without keys."""

from __future__ import annotations

import html
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx2
import openai

from chatmagic.errors import ContextOverflowError, EndpointError, RequestError, TapeError, UnreachableError
from chatmagic.plain import one_line, plain
from chatmagic.provider.endpoints import Target
from chatmagic.provider.overflow import is_overflow, numbers
from chatmagic.provider.secrets import HIDDEN, spellings

__all__ = ["clean", "no_reply", "server_error", "translate"]

_SECRET = re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|key)[-_][\w*.-]{6,}|\bBearer\s+\S+|\bAIza[\w-]{20,}", re.IGNORECASE)
_NO_CREDIT = re.compile(r"insufficient_quota|billing_hard_limit|insufficient (?:credit|balance|funds)", re.IGNORECASE)
_START = {"ollama": " (ollama serve)", "llamacpp": " (llama-server -m MODEL.gguf)"}


def translate(exc: Exception, where: Target, key: str | None) -> RequestError | EndpointError | TapeError:
    """Return our error for a foreign one. Neither its text nor a cause of it holds *key* or anything like a key."""
    if isinstance(exc, openai.APIStatusError):
        return _refused(exc, where, key)
    if isinstance(exc, UnicodeEncodeError) and re.search("[\ud800-\udfff]", exc.object[exc.start : exc.end]):
        return RequestError(
            "the request holds half a character (a lone surrogate) and cannot be sent; nothing was stored"
        )
    cause = exc.__cause__ if isinstance(exc, openai.APIConnectionError) and exc.__cause__ else exc
    if isinstance(cause, TapeError):
        return cause
    url = where.endpoint.url
    if isinstance(cause, (httpx2.TimeoutException, openai.APITimeoutError)):
        connecting = isinstance(cause, httpx2.ConnectTimeout)
        silent = "was silent for too long; %config ChatMagic.timeout says how long is too long"
        return UnreachableError(f"{url} {'could not be reached' if connecting else silent}", retryable=connecting)
    if isinstance(cause, httpx2.ConnectError):
        return _no_server(cause, where, key)
    if isinstance(
        cause, (UnicodeEncodeError, httpx2.LocalProtocolError, httpx2.InvalidURL, httpx2.UnsupportedProtocol)
    ):
        # Its text may quote a header, and so the key.
        return EndpointError(
            f"the request to {url} cannot be formed; check the URL, and OPENAI_ORG_ID and OPENAI_PROJECT_ID"
        )
    if isinstance(cause, (httpx2.TransportError, httpx2.StreamError, OSError)):
        what = clean(str(cause), key) or type(cause).__name__
        # A server may close a kept connection in the moment in which it is used again: waiting would not help.
        at_once = 0.0 if isinstance(cause, httpx2.RemoteProtocolError) else None
        return RequestError(f"the connection to {url} broke: {what}", retryable=True, retry_after=at_once)
    return RequestError(f"the request to {url} failed with {type(cause).__name__}: {clean(str(cause), key)}")


def _no_server(cause: Exception, where: Target, key: str | None) -> UnreachableError:
    endpoint = where.endpoint
    what = clean(str(cause), key)
    if endpoint.is_local:
        start = _START.get(endpoint.name, "")
        return UnreachableError(f"no server answers at {endpoint.url} ({what}). Is it running{start}?")
    return UnreachableError(f"cannot connect to {endpoint.url} ({what}). Is the machine online, is the URL right?")


def _refused(exc: openai.APIStatusError, where: Target, key: str | None) -> RequestError:
    """Translate an HTTP status of 400 or more."""
    status, endpoint = exc.status_code, where.endpoint
    raw = _message(exc, key)
    said = clean(raw, key) or "no reason given"
    kind = f"{exc.code} {exc.type}"
    told = f"{endpoint.name} says ({status}): {said}"
    if (status in (400, 413, 422) or status >= 500) and is_overflow(kind, raw):
        return _overflow(repr(where.model), said, status, numbers(exc.body, raw))
    if status == 401:
        source = (
            f"the key in {endpoint.key_env}"
            if endpoint.key_env
            else "a request without a key; its endpoint needs 'key_env'"
        )
        return RequestError(f"{endpoint.name} refuses {source} (401): {said}", status=status)
    if 300 <= status < 400:
        host = clean(exc.response.headers.get("location", "nowhere"), key)
        return RequestError(
            f"{endpoint.url} sends on to {host} ({status}); the conversation is not sent there", status=status
        )
    if status == 404:
        return RequestError(
            f"{told}. Is {where.model!r} one of its models, is {endpoint.url} its base URL?", status=status
        )
    if status == 429 and _NO_CREDIT.search(f"{kind} {raw}"):
        return RequestError(f"{told}. There is no credit left; waiting does not help", status=status)
    if not _is_passing(status):
        return RequestError(told, status=status)
    retry_after = _retry_after(exc.response.headers)
    if retry_after is not None:
        told += f" (it asks to wait {retry_after:.0f} s)"
    return RequestError(told, status=status, retryable=True, retry_after=retry_after)


def _is_passing(status: int) -> bool:
    return status in (408, 409, 429) or (500 <= status < 600 and status != 501)


def _overflow(model: str, said: str, status: int | None, of: tuple[int | None, int | None]) -> ContextOverflowError:
    return ContextOverflowError(
        f"the conversation is longer than {model} can take: {said}. --context budget leaves its beginning out, a "
        "smaller max_tokens leaves it more room, %chat new NAME starts afresh",
        status=status,
        window=of[0],
        size=of[1],
    )


def server_error(error: object, key: str | None) -> RequestError:
    """Return the error for an ``error`` object inside a stream, which came with a status of 200."""
    fields = error if isinstance(error, dict) else {}
    code = str(fields.get("code"))
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else None
    raw = _sentence(error) or str(error)
    said = clean(raw, key)
    kind = f"{code} {fields.get('type')}"
    if is_overflow(kind, raw):
        return _overflow("the model", said, status, numbers(error, raw))
    passing = bool(re.search(r"overloaded|server_error|rate_limit|unavailable", kind)) or _is_passing(status or 0)
    retryable = passing and not _NO_CREDIT.search(f"{kind} {raw}")
    return RequestError(f"the server broke off: {said}", status=status, retryable=retryable)


def no_reply(response: httpx2.Response, body: bytes, key: str | None) -> RequestError:
    """Return the error for a *body* that came with a status of 200 and is no reply."""
    # Cut only what is clean: half a key is not found.
    kind = one_line(clean(response.headers.get("content-type", "no content type"), key), limit=60)
    text = one_line(clean(body.decode("utf-8", "replace"), key), limit=80)
    url = clean(str(response.url.copy_with(query=None)), key)
    return RequestError(
        f"{url} answered with something that is no chat reply ({kind}): "
        f"{repr(text) if text else 'nothing (is the request longer than its window?)'}. Is the base URL right? It "
        "usually ends in /v1"
    )


def _message(exc: openai.APIStatusError, key: str | None) -> str:
    page = exc.response.text.strip()
    said = _sentence(exc.body)
    if said and said != page:
        return said
    page = clean(page, key, limit=10_000)
    page = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL | re.IGNORECASE)
    return html.unescape(page)


def _sentence(body: object, depth: int = 5) -> str:
    """Find the sentence in the JSON of an error; every server has a form of its own."""
    if isinstance(body, str):
        return body.strip()
    if depth and isinstance(body, list):
        return "; ".join(filter(None, (_sentence(each, depth - 1) for each in body[:3])))
    if depth and isinstance(body, dict):
        for name in ("message", "error", "detail", "msg", "errors"):
            if said := _sentence(body.get(name), depth - 1):
                if isinstance(at := body.get("loc"), list):  # FastAPI says in a list of its own which field it means
                    return f"{'.'.join(map(str, at))}: {said}"
                # OpenRouter says no more than "Provider returned error" itself.
                metadata = body.get("metadata")
                raw = metadata.get("raw") if isinstance(metadata, dict) else None
                return f"{said}: {raw.strip()}" if isinstance(raw, str) and raw.strip() else said
    return ""


def clean(text: str, key: str | None, limit: int = 300) -> str:
    """Make *text* of a server one line without anything that is, or looks like, a key."""
    text = plain(text)
    if key:
        text = re.sub(spellings(key), HIDDEN, text)
    text = _SECRET.sub(HIDDEN, text)
    # JupyterLab makes a link of "file.py:1" in an error, and a click opens the file.
    return one_line(re.sub(r"(\.[A-Za-z]\w*):(?=\d)", r"\1 :", text), limit).rstrip(".")


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
            date = parsedate_to_datetime(value)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
