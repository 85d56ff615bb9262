"""The openai client -> a stream of events."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socket import SHUT_RDWR
from typing import Any

import httpx2
import openai

from chatmagic.conversation.messages import Usage
from chatmagic.engine import Delta, Event, Finished, Reasoning, Remark, Request, Sending, Used
from chatmagic.errors import RequestError
from chatmagic.provider.demo import DemoTransport
from chatmagic.provider.endpoints import Endpoint, Target, key_of, target
from chatmagic.provider.failures import server_error, translate

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
        self._connections: dict[tuple[str, str, str | None], _Connection] = {}
        self._without_usage: set[str] = set()

    def stream(self, request: Request) -> Iterator[Event]:
        """Send *request* and yield what comes back.

        Raises:
            EndpointError: there is no such endpoint, or no key for it; nothing was sent.
            RequestError: the server refused, failed, or answered with something else than a reply.
        """
        where = target(request.model, self.endpoints, self._environ)
        key = key_of(where.endpoint, self._environ)
        yield Sending(where.endpoint.name, self._is_instant(where.endpoint.name, request))
        try:
            yield from self._ask(self._connection(where.endpoint, key), where, request)
        except _FOREIGN as exc:
            raise translate(exc, where, key) from None

    def _is_instant(self, endpoint: str, request: Request) -> bool:
        # Known before sending, so that nothing is painted that waits for the reply.
        return self._transports.get(endpoint) is DemoTransport and "pace" not in request.parameters

    def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        while self._connections:
            self._connections.popitem()[1].client.close()

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
        self._without_usage.add(url)
        yield Remark("this server refuses stream_options; sent again without it, so what it used stays unknown")
        yield from _exchange(connection, where, request, with_usage=False, timeout=self.timeout)

    def _connection(self, endpoint: Endpoint, key: str | None) -> _Connection:
        identity = (endpoint.name, endpoint.url, key)
        if identity not in self._connections:
            self._connections[identity] = self._new_connection(endpoint, key)
        return self._connections[identity]

    def _new_connection(self, endpoint: Endpoint, key: str | None) -> _Connection:
        transport = self._transports.get(endpoint.name)
        client = openai.OpenAI(
            api_key=key or "none",
            base_url=endpoint.url,
            max_retries=0,
            http_client=openai.DefaultHttpx2Client(transport=transport()) if transport else None,
        )
        omitted = [] if key else ["Authorization"]
        if endpoint.name != "openai":
            # The client takes these from the environment; they are OpenAI's, and no other server's business.
            client.organization = client.project = None
            custom = self._environ.get("OPENAI_CUSTOM_HEADERS", "")
            omitted += [line.partition(":")[0].strip() for line in custom.split("\n") if ":" in line]
            omitted = [name for name in omitted if not (key and name.lower() == "authorization")]
        return _Connection(client, {name: openai.Omit() for name in omitted})


@dataclass(frozen=True, slots=True)
class _Connection:
    """A client that is connected to one endpoint, and the headers that this one must not get."""

    client: openai.OpenAI
    headers: dict[str, openai.Omit]


_FOREIGN = (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, UnicodeError, OSError)


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
        halves = _Halves()
        for data in _objects(response.http_response):
            yield from _events(data, halves)
        yield from halves.rest()


class _Halves:
    """Joins characters that a server cut in two: JSON may spell one as two escapes, and put them into two deltas."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str) -> str:
        if text.isascii() and not self._half:
            return text
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text[: len(text) - len(self._half)]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def rest(self) -> Iterator[Delta]:
        if self._half:
            yield Delta("\ufffd")


def _events(data: dict[str, Any], halves: _Halves) -> Iterator[Event]:
    """Yield the events of one chunk of a stream, or of one whole answer."""
    if data.get("error"):
        raise server_error(data["error"])
    if usage := _usage(data.get("usage")):
        yield Used(usage)
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or choice.get("index"):
        return
    said = choice.get("delta") or choice.get("message")
    if isinstance(said, dict):
        if thought := _text(said.get("reasoning_content") or said.get("reasoning")):
            yield Reasoning(thought)
        refusal = _text(said.get("refusal"))
        if text := halves.join(_text(said.get("content")) + refusal):
            yield Delta(text)
        if refusal:
            yield Finished("refusal")
            return
    if isinstance(reason := choice.get("finish_reason"), str):
        yield Finished(reason)


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


def _objects(response: httpx2.Response) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a body: of every server-sent event, or the one that the whole body is.

    Raises:
        RequestError: the body holds neither, whatever its content type and status say.
    """
    body: list[bytes] = []  # what might be one JSON document, until the first event shows that it is not
    pending = b""
    chunks = response.iter_bytes()
    streaming = False
    for line in _lines(chunks):
        if not line.startswith(b"data:"):
            if pending and not line:
                raise _no_reply(response, pending)
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
            pending = b""
            yield data
    if pending or not streaming:
        rest = pending or b"\n".join(body)
        if (data := _json_object(rest)) is None or not ({"choices", "error"} & data.keys()):
            raise _no_reply(response, rest)
        yield data


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _no_reply(response: httpx2.Response, text: bytes) -> RequestError:
    kind = response.headers.get("content-type", "no content type")
    found = repr(text[:80].decode("utf-8", "replace")) if text.strip() else "nothing"
    return RequestError(
        f"{response.url.copy_with(query=None)} answered with something that is no chat reply ({kind}): {found}. "
        "Is the base URL right? It usually ends in /v1"
    )


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
