"""The openai client -> a stream of events."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai

from chatmagic.conversation.messages import Usage
from chatmagic.errors import ChatMagicError, EndpointError, InterruptedTurnError, RequestError
from chatmagic.events import Event, Facts, Place, Remark, Request, Sending
from chatmagic.plain import one_line
from chatmagic.provider.demo import DemoTransport
from chatmagic.provider.endpoints import BUILT_IN, Endpoint, Secret, Target, endpoint, key_of, target
from chatmagic.provider.failures import translate
from chatmagic.provider.local import answering
from chatmagic.provider.models import Listed, cost, listed, own_window, window
from chatmagic.provider.reports import usage_in
from chatmagic.provider.wire import events, json_object, vectors_in

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
        self.own: Mapping[str, Mapping[str, float]] = {}
        """What the user says about models (see `provider.models.checked`)."""
        self._said: dict[str, dict[str, Listed]] = {}  # by base URL and model
        self._asked: set[str] = set()

    def stream(self, request: Request) -> Iterator[Event]:
        """Send *request* and yield what comes back.

        Raises:
            EndpointError: there is no such endpoint, or no key for it; nothing was sent.
            RequestError: the server refused, failed, or answered with something else than a reply.
        """
        where = target(request.model, self.endpoints, self._environ)
        key = self._key_of(where.endpoint)
        yield Sending(where.endpoint.label, self._is_instant(where.endpoint, request))
        try:
            yield from self._ask(self._connection(where.endpoint, key), where, request)
        except _FOREIGN as exc:
            failure = translate(exc, where, key)
        else:
            return
        # Raised out here it has no __context__, which "from None" only hides and which can hold the key.
        raise failure

    def facts(self, model: str, parameters: Mapping[str, Any]) -> Facts:
        """Return what is known of ``[ENDPOINT:]MODEL``: from the user, its server's list of models, a price list.

        Raises:
            EndpointError: there is no such endpoint.
        """
        where = target(model, self.endpoints, self._environ)
        tier, said = parameters.get("service_tier"), self._said_of(where)

        def price(usage: Usage) -> float | None:
            return cost(where, usage, self.own, said, service_tier=tier if isinstance(tier, str) else None)

        size = window(where, self.own, said)
        endpoint = where.endpoint
        home: Place = "within" if self._is_demo(endpoint) else "here" if endpoint.is_local else "elsewhere"
        return Facts((endpoint.label, model), size, own_window(where, self.own) is not None, price, home)

    def look_up(self, model: str) -> None:
        """Fetch in the background, once, what the server of a model says about it, if nobody else knows its window."""
        where = target(model, self.endpoints, self._environ)
        endpoint = where.endpoint
        known = endpoint.url in (*self._asked, BUILT_IN["openai"]["url"])
        if not known and window(where, self.own, self._said_of(where)) is None:
            self._asked.add(endpoint.url)
            threading.Thread(target=self._list_quietly, args=(endpoint.name,), daemon=True).start()

    def _is_demo(self, endpoint: Endpoint) -> bool:
        return self._transports.get(endpoint.name) is DemoTransport

    def _said_of(self, where: Target) -> Listed | None:
        said = self._said.get(where.endpoint.url, {})
        # A server with one model takes any name for it.
        return said.get(where.model) or (next(iter(said.values())) if len(said) == 1 else None)

    def _list_quietly(self, name: str) -> None:
        # Nobody has asked for it, so nobody wants to hear that it failed.
        with suppress(Exception):
            self.models(name)

    def models(self, name: str) -> list[str]:
        """Return what the endpoint *name* lists as its models, in its order; ``listed`` keeps it.

        Raises:
            EndpointError: there is no such endpoint, or no key for it.
            RequestError: the server refused or failed, or listed nothing.
        """
        where = Target(endpoint(name, self.endpoints, self._environ), "")
        key = self._key_of(where.endpoint)
        failure: ChatMagicError
        try:
            connection = self._connection(where.endpoint, key)
            raw = connection.client.models.with_raw_response.list(extra_headers=connection.headers, timeout=30.0)
            found = json_object(raw.http_response.content)
        except KeyboardInterrupt:
            failure = InterruptedTurnError("stopped; no models were listed")
        except _FOREIGN as exc:
            failure = translate(exc, where, key)
        else:
            entries = (found or {}).get("data")
            if not isinstance(entries, list):
                raise RequestError(f"{where.endpoint.url} lists no models")
            known = {entry["id"]: entry for entry in entries if isinstance(entry, dict) and _names(entry.get("id"))}
            self.listed[name] = list(known)
            self._said[where.endpoint.url] = {model: listed(entry) for model, entry in known.items()}
            return self.listed[name]
        raise failure

    def embed(self, model: str, texts: Sequence[str]) -> tuple[Sequence[Sequence[float]], int | None]:
        """Return a vector for each of *texts*, and how many tokens they had together; None is unknown.

        Raises:
            EndpointError: there is no such endpoint, or no key for it.
            RequestError: the server refused or failed, or answered with something else than vectors.
        """
        where = target(model, self.endpoints, self._environ)
        key = self._key_of(where.endpoint)
        failure: ChatMagicError
        try:
            connection = self._connection(where.endpoint, key)
            raw = connection.client.embeddings.with_raw_response.create(
                model=where.model,
                input=list(texts),
                encoding_format="float",
                extra_headers=connection.headers,
                timeout=self.timeout,
            )
            found = json_object(raw.http_response.content) or {}
        except _FOREIGN as exc:
            failure = translate(exc, where, key)
        else:
            vectors, used = vectors_in(found, len(texts)), usage_in(found)
            if vectors is None:
                raise RequestError(f"{where.endpoint.label} answered with no vectors")
            return vectors, used.input_tokens if used else None
        raise failure

    def _key_of(self, endpoint: Endpoint) -> str | None:
        return key_of(endpoint, self._environ, lambda: answering({**BUILT_IN, **self.endpoints}))

    def _is_instant(self, endpoint: Endpoint, request: Request) -> bool:
        # Known before sending, so that nothing is painted that waits for the reply.
        return self._is_demo(endpoint) and "pace" not in request.parameters

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
            headers["Authorization"] = Secret(f"Bearer {key}") if key else openai.Omit()
        elif not key:
            headers["Authorization"] = openai.Omit()
        return _Connection(client, key, headers)


_OF_OPENAI = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS")


# People read and type between two cells; a connection that the server has closed meanwhile is noticed and replaced.
_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=300.0)


def _http_client(endpoint: Endpoint, transport: httpx2.BaseTransport | None) -> httpx2.Client:
    if transport is None and endpoint.is_local:
        # With a transport of its own a client asks no proxy: what is meant for this machine stays on it.
        transport = httpx2.HTTPTransport(limits=_LIMITS)
    try:
        # Whoever is redirected would send the whole conversation to a host that nobody has named.
        return openai.DefaultHttpx2Client(transport=transport, limits=_LIMITS, follow_redirects=False)
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


# Others may refuse what they do not know.
_TAKES_CACHE_KEY = re.compile(
    r"^https://((\w+\.)?api\.openai\.com|[\w-]+\.openai\.azure\.com|[\w-]+\.services\.ai\.azure\.com)/"
)


def _names(value: object) -> bool:
    return isinstance(value, str)


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
    if request.cache_key and _TAKES_CACHE_KEY.search(where.endpoint.url):
        body.setdefault("prompt_cache_key", request.cache_key)
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
        yield from events(response.http_response, connection.key)
