"""The openai client -> a stream of events."""

from __future__ import annotations

import codecs
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socket import SHUT_RDWR
from typing import Any

import httpx2
import openai

from chatmagic.conversation.messages import Usage
from chatmagic.engine import Delta, Event, Finished, Reasoning, Remark, Request, Sending, Used
from chatmagic.errors import EndpointError, RequestError
from chatmagic.plain import one_line
from chatmagic.provider.demo import DemoTransport
from chatmagic.provider.endpoints import BUILT_IN, Endpoint, Target, endpoint, key_of, target
from chatmagic.provider.failures import no_reply, server_error, translate
from chatmagic.provider.local import answering

__all__ = ["OpenAIClient"]

Transports = Mapping[str, Callable[[], httpx2.BaseTransport]]


class OpenAIClient:
    """Asks whichever endpoint a model's name leads to, by Chat Completions.

    *endpoints* are the user's own (see `provider.endpoints.checked`), *timeout* is how many seconds a server may be
    silent. *transports* replace the network for endpoints by name. Connections are kept from turn to turn.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Mapping[str, str]] | None = None,
        *,
        timeout: float = 600.0,
        transports: Transports | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.endpoints = endpoints or {}
        self.timeout = timeout
        self._transports = {"demo": DemoTransport, **(transports or {})}
        self._environ = environ
        self._connections: dict[tuple[str | None, ...], _Connection] = {}
        self._connecting = threading.Lock()
        self._without_usage: set[str] = set()
        self.listed: dict[str, list[str]] = {}
        """The models of an endpoint, as it listed them last."""

    def stream(self, request: Request) -> Iterator[Event]:
        """Send *request* and yield what comes back.

        Raises:
            EndpointError: there is no such endpoint, or no key for it; nothing was sent.
            RequestError: the server refused, failed, or answered with something else than a reply.
        """
        where = target(request.model, self.endpoints, self._environ)
        key = self._key_of(where.endpoint)
        yield Sending(where.endpoint.label, self._is_instant(where.endpoint.name, request))
        try:
            yield from self._ask(self._connection(where.endpoint, key), where, request)
        except _FOREIGN as exc:
            failure = translate(exc, where, key)
        else:
            return
        # Raised out here it has no __context__, which "from None" only hides and which can hold the key.
        raise failure

    def models(self, name: str) -> list[str]:
        """Return what the endpoint *name* lists as its models, in its order; ``listed`` keeps it.

        Raises:
            EndpointError: there is no such endpoint, or no key for it.
            RequestError: the server refused or failed, or listed nothing.
        """
        where = Target(endpoint(name, self.endpoints, self._environ), "")
        key = self._key_of(where.endpoint)
        connection = self._connection(where.endpoint, key)
        try:
            raw = connection.client.models.with_raw_response.list(extra_headers=connection.headers, timeout=30.0)
            found = _json_object(raw.http_response.content)
        except _FOREIGN as exc:
            failure = translate(exc, where, key)
        else:
            entries = (found or {}).get("data")
            if not isinstance(entries, list):
                raise RequestError(f"{where.endpoint.url} lists no models")
            named = [entry.get("id") for entry in entries if isinstance(entry, dict)]
            self.listed[name] = [each for each in named if isinstance(each, str)]
            return self.listed[name]
        raise failure

    def _key_of(self, endpoint: Endpoint) -> str | None:
        return key_of(endpoint, self._environ, lambda: answering({**BUILT_IN, **self.endpoints}))

    def _is_instant(self, endpoint: str, request: Request) -> bool:
        # Known before sending, so that nothing is painted that waits for the reply.
        return self._transports.get(endpoint) is DemoTransport and "pace" not in request.parameters

    def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        with self._connecting:
            connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.client.close()

    def __del__(self) -> None:
        # A client of openai does so if it has made its connections itself; nobody is there to hear of a failure.
        with suppress(Exception):
            self.close()

    def _ask(self, connection: _Connection, where: Target, request: Request) -> Iterator[Event]:
        url = where.endpoint.url
        usage = request.stream and url not in self._without_usage
        try:
            yield from _exchange(connection, where, request, with_usage=usage, timeout=self.timeout)
        except openai.APIStatusError as exc:
            if not (usage and exc.status_code in (400, 422) and _names_stream_options(exc)):
                raise
        else:
            return
        # https://github.com/openai/openai-openapi calls it optional; some servers do not know it.
        yield Remark("this server refuses stream_options; sent again without it, so what it used stays unknown")
        for event in _exchange(connection, where, request, with_usage=False, timeout=self.timeout):
            self._without_usage.add(url)  # not sooner: an error about something else may quote the whole request
            yield event

    def _connection(self, endpoint: Endpoint, key: str | None) -> _Connection:
        identity = (endpoint.name, endpoint.url, key, *map(self._environ.get, _OF_OPENAI))
        with self._connecting:
            if identity not in self._connections:
                self._connections[identity] = self._new_connection(endpoint, key)
            return self._connections[identity]

    def _new_connection(self, endpoint: Endpoint, key: str | None) -> _Connection:
        transport = self._transports.get(endpoint.name)
        client = openai.OpenAI(
            api_key=key or "none",
            base_url=endpoint.url,
            max_retries=0,
            http_client=_http_client(endpoint, transport() if transport else None),
        )
        headers: dict[str, str | openai.Omit] = {}
        if endpoint.name != "openai":
            # The client takes these from the environment; they are OpenAI's, and no other server's business.
            client.organization = client.project = None
            custom = self._environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
            headers = {line.partition(":")[0].strip(): openai.Omit() for line in custom if ":" in line}
            headers = {name: omit for name, omit in headers.items() if name.lower() != "authorization"}
            headers["Authorization"] = f"Bearer {key}" if key else openai.Omit()
        elif not key:
            headers["Authorization"] = openai.Omit()
        return _Connection(client, key, headers)


_OF_OPENAI = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS")


def _http_client(endpoint: Endpoint, transport: httpx2.BaseTransport | None) -> httpx2.Client:
    if transport is None and endpoint.is_local:
        # With a transport of its own a client asks no proxy: what is meant for this machine stays on it.
        transport = httpx2.HTTPTransport()
    try:
        return openai.DefaultHttpx2Client(transport=transport)
    except (ImportError, OSError, ValueError) as exc:
        trouble = one_line(str(exc))
    raise EndpointError(f"the proxy or the certificates that the environment names cannot be used: {trouble}")


@dataclass(frozen=True, slots=True)
class _Connection:
    """A client that is connected to one endpoint with a key, and the headers that only this one gets, or must not."""

    client: openai.OpenAI
    key: str | None = field(repr=False)
    headers: dict[str, str | openai.Omit] = field(repr=False)


_FOREIGN = (
    openai.OpenAIError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.StreamError,
    httpx2.CookieConflict,
    UnicodeError,
    OSError,
)


def _names_stream_options(exc: openai.APIStatusError) -> bool:
    return "stream_options" in exc.response.text or "include_usage" in exc.response.text


def _exchange(
    connection: _Connection, where: Target, request: Request, *, with_usage: bool, timeout: float
) -> Iterator[Event]:
    """Send one request and yield its answer; the body is read to its end, so that the connection can be used again."""
    body: dict[str, Any] = {
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        **request.parameters,
        "stream": request.stream,
    }
    if with_usage:
        body["stream_options"] = {"include_usage": True}
    # The client transforms typed messages, which costs more with every turn; extra_body it takes as it is.
    call = connection.client.chat.completions.with_streaming_response.create(
        model=where.model,
        messages=[],
        extra_body=body,
        extra_headers=connection.headers,
        timeout=httpx2.Timeout(timeout, connect=min(timeout, 20.0)),
    )
    with call as response:
        answer = _Answer()
        for data in _objects(response.http_response, connection.key):
            if data.get("error"):
                raise server_error(data["error"], connection.key)
            yield from answer.events(data)
        yield from answer.rest()


class _Answer:
    """Turns the chunks of a stream, or one whole answer, into events."""

    def __init__(self) -> None:
        self._reply = _Halves()
        self._thoughts = _Halves()
        self._refused = False

    def events(self, data: dict[str, Any]) -> Iterator[Event]:
        """Yield what one chunk says."""
        if usage := _usage(data.get("usage")):
            yield Used(usage)
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or choice.get("index"):
            return
        said = choice.get("delta") or choice.get("message")
        if isinstance(said, dict):
            if thought := self._thoughts.join(_text(said.get("reasoning_content") or said.get("reasoning"))):
                yield Reasoning(thought)
            refusal = _text(said.get("refusal"))
            self._refused = self._refused or bool(refusal)
            if text := self._reply.join(_text(said.get("content")) + refusal):
                yield Delta(text)
        if (reason := choice.get("finish_reason")) and isinstance(reason, str):
            # The protocol ends a refusal with "stop", in a later chunk.
            yield Finished("refusal" if self._refused and reason == "stop" else reason)

    def rest(self) -> Iterator[Event]:
        """Yield what is left when no chunk follows."""
        if rest := self._reply.rest():
            yield Delta(rest)


class _Halves:
    """Joins characters that a server cut in two: JSON may spell one as two escapes, and put them into two deltas."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str) -> str:
        if text.isascii() and not (self._half and text):
            return text
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        text = text[: len(text) - len(self._half)]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def rest(self) -> str:
        return "\ufffd" if self._half else ""


def _text(content: object) -> str:
    """Return the text of a message's content, which is text or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return ""


def _usage(reported: object) -> Usage | None:
    if not isinstance(reported, dict):
        return None
    usage = Usage(
        _count(reported.get("prompt_tokens")),
        _count(reported.get("completion_tokens")),
        _detail(reported, "prompt_tokens_details", "cached_tokens"),
        _detail(reported, "completion_tokens_details", "reasoning_tokens"),
    )
    return usage if usage.input_tokens or usage.output_tokens else None


def _detail(reported: dict[str, Any], group: str, name: str) -> int | None:
    details = reported.get(group)
    return _count(details.get(name)) if isinstance(details, dict) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _objects(response: httpx2.Response, key: str | None) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a body: of every server-sent event, or the one that the whole body is.

    Raises:
        RequestError: the body holds neither, whatever its content type and status say.
    """
    body: list[bytes] = []  # what might be one JSON document, until the first event shows that it is not
    pending = b""
    chunks = response.iter_bytes()
    streaming = found = False
    for line in _lines(chunks):
        if not streaming:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.startswith(b"data:"):
            if pending and not line:
                raise no_reply(response, pending, key)
            if not streaming:
                body.append(line)
            continue
        streaming = True
        payload = line[5:].strip()
        if payload == b"[DONE]":
            _read_to_end(response, chunks)
            return
        pending = pending + b"\n" + payload if pending else payload
        if (data := _json_object(pending)) is not None:
            pending, found = b"", True
            yield data
    if found:
        return  # an event that the end has cut is none, says the standard
    if pending or not streaming:
        rest = pending or b"\n".join(body)
        if (data := _json_object(rest)) is None or not ({"choices", "error"} & data.keys()):
            raise no_reply(response, rest, key)
        yield data


# A server that forgets to escape a tab, or cuts a character into two events, has still said something.
_DECODER = json.JSONDecoder(strict=False)


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        data = _DECODER.decode(_decoded(text))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Split at ``\n``, ``\r`` and ``\r\n`` only: U+2028 and its like may stand in the middle of an event."""
    rest: list[bytes] = []
    for chunk in chunks:
        rest.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk and not rest[0].endswith(b"\r"):
            continue
        lines = b"".join(rest).splitlines(keepends=True)
        # A "\r" at the end may be the first half of "\r\n".
        rest = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        for line in lines:
            yield line.rstrip(b"\r\n")
    if rest:
        yield b"".join(rest).rstrip(b"\r\n")


def _read_to_end(response: httpx2.Response, chunks: Iterator[bytes]) -> None:
    """Read what follows the last event, so that the connection can be used again; a second is all it gets."""
    with _deadline(response, seconds=1.0), suppress(httpx2.HTTPError):  # at worst the connection is lost, not the reply
        for _ in chunks:
            pass


@contextmanager
def _deadline(response: httpx2.Response, seconds: float) -> Iterator[None]:
    # Closing the response does not wake a reader on a silent connection; shutting its socket down does.
    network = response.extensions.get("network_stream")
    socket = network.get_extra_info("socket") if network else None
    if socket is None:
        yield
        return
    timer = threading.Timer(seconds, _shut_down, [socket])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(socket: Any) -> None:
    with suppress(OSError):  # it may be gone already
        socket.shutdown(SHUT_RDWR)
