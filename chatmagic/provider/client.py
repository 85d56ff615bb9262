"""The openai client -> a stream of events."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import openai

from chatmagic.conversation.messages import Usage
from chatmagic.errors import ChatMagicError, InterruptedTurnError, RequestError
from chatmagic.events import Event, Facts, Place, Remark, Request, Sending, Used
from chatmagic.provider.connecting import OF_OPENAI, Connection, Transports, connected
from chatmagic.provider.demo import DemoTransport
from chatmagic.provider.endpoints import BUILT_IN, Endpoint, Target, endpoint, key_of, target
from chatmagic.provider.failures import translate
from chatmagic.provider.local import answering
from chatmagic.provider.models import Listed, cost, listed, own_window, window
from chatmagic.provider.reports import usage_in
from chatmagic.provider.wire import events, json_object, vectors_in

if TYPE_CHECKING:
    from chatmagic.provider.tape import Tape
    from chatmagic.provider.taping import Deck

__all__ = ["OpenAIClient"]


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
        self._connections: dict[tuple[object, ...], Connection] = {}
        self._connecting = threading.Lock()
        self._without_usage: set[str] = set()
        self.listed: dict[str, list[str]] = {}
        """The models of an endpoint, as it listed them last."""
        self.own: Mapping[str, Mapping[str, float]] = {}
        """What the user says about models (see `provider.models.checked`)."""
        self.deck: Deck | None = None
        """Where a tape may run."""
        self._said: dict[str, dict[str, Listed]] = {}  # by base URL and model
        self._asked: set[tuple[str, Tape | None]] = set()

    def stream(self, request: Request) -> Iterator[Event]:
        """Send *request* and yield what comes back.

        Raises:
            EndpointError: there is no such endpoint, or no key for it; nothing was sent.
            RequestError: the server refused, failed, or answered with something else than a reply.
            TapeError: a tape should have answered, and cannot; nothing was sent.
        """
        where = target(request.model, self.endpoints, self._environ)
        body = _body(where, request)
        way = self._way(where.endpoint, "chat/completions", body)
        answer = self._ask(way, where, body)
        # Known before sending, so that nothing is painted that waits for the reply.
        yield Sending(where.endpoint.label, way.instant or (self._is_demo(where.endpoint) and "pace" not in body))
        try:
            yield from map(_as_recorded, answer) if way.plays else answer
        except _FOREIGN as exc:
            failure = translate(exc, where, way.connection.key)
        else:
            if way.tape is not None and way.tape.trouble:
                yield Remark(f"this exchange is not on the tape: {way.tape.trouble}")
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
            if usage.cost is not None and math.isnan(usage.cost):
                usage = Usage()
            return cost(where, usage, self.own, said, service_tier=tier if isinstance(tier, str) else None)

        size = window(where, self.own, said)
        endpoint = where.endpoint
        home: Place = "within" if self._is_demo(endpoint) else "here" if endpoint.is_local else "elsewhere"
        own = own_window(where, self.own) is not None
        return Facts((endpoint.label, model), size, own, price, home, instant=self._plays_at_once)

    def look_up(self, model: str) -> None:
        """Fetch in the background, once, what the server of a model says about it, if nobody else knows its window."""
        where = target(model, self.endpoints, self._environ)
        endpoint = where.endpoint
        tape = self._tape
        # OpenAI lists no windows; but what a tape has may come from where OPENAI_BASE_URL led when it was recorded.
        tells = endpoint.url != BUILT_IN["openai"]["url"] or (tape is not None and tape.mode == "replay")
        if (
            not tells
            or (endpoint.url, tape) in self._asked
            or (tape is None and window(where, self.own, self._said_of(where)) is not None)
        ):
            return
        self._asked.add((endpoint.url, tape))
        if tape is None:
            threading.Thread(target=self._list_quietly, args=(endpoint.name,), daemon=True).start()
        else:  # what is known at the next turn must not depend on who is quicker
            self._list_quietly(endpoint.name)

    @property
    def _tape(self) -> Tape | None:
        return self.deck.tape if self.deck else None

    @property
    def _plays_at_once(self) -> bool:
        """True if only a tape answers, and does not take its time."""
        with suppress(ChatMagicError):  # who asks hears of it
            tape = self._tape
            return tape is not None and tape.mode == "replay" and not tape.pace
        return False

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
        connection = self._way(where.endpoint, "GET/models", {"endpoint": name}).connection
        failure: ChatMagicError
        try:
            raw = connection.client.models.with_raw_response.list(extra_headers=connection.headers, timeout=30.0)
            found = json_object(raw.http_response.content)
        except KeyboardInterrupt:
            failure = InterruptedTurnError("stopped; no models were listed")
        except _FOREIGN as exc:
            failure = translate(exc, where, connection.key)
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
        body: dict[str, Any] = {"model": where.model, "input": list(texts), "encoding_format": "float"}
        connection = self._way(where.endpoint, "embeddings", body).connection
        failure: ChatMagicError
        try:
            raw = connection.client.embeddings.with_raw_response.create(
                **body,
                extra_headers=connection.headers,
                timeout=self.timeout,
            )
            found = json_object(raw.http_response.content) or {}
        except _FOREIGN as exc:
            failure = translate(exc, where, connection.key)
        else:
            vectors, used = vectors_in(found, len(texts)), usage_in(found)
            if vectors is None:
                raise RequestError(f"{where.endpoint.label} answered with no vectors")
            return vectors, used.input_tokens if used else None
        raise failure

    def _key_of(self, endpoint: Endpoint) -> str | None:
        return key_of(endpoint, self._environ, lambda: answering({**BUILT_IN, **self.endpoints}))

    def _way(self, endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> _Way:
        """Return how a request with *body* goes to *endpoint*, or to a tape that has its answer and needs no key."""
        tape = self._tape
        plays = tape is not None and tape.plays(path, body)
        connection = self._connection(endpoint, None if plays else self._key_of(endpoint), tape)
        return _Way(connection, tape, plays)

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

    def _ask(self, way: _Way, where: Target, body: Mapping[str, Any]) -> Iterator[Event]:
        connection, url = way.connection, where.endpoint.url
        usage = body["stream"] and url not in self._without_usage
        try:
            yield from _exchange(connection, body, with_usage=usage, timeout=self.timeout)
        except openai.APIStatusError as exc:
            if not (usage and exc.status_code in (400, 422) and _names_stream_options(exc)):
                raise
        else:
            return
        # https://github.com/openai/openai-openapi calls it optional; some servers do not know it.
        if way.tape is None:  # no recording may show what is not there when the tape plays
            yield Remark("this server refuses stream_options; sent again without it, so what it used stays unknown")
        for event in _exchange(connection, body, with_usage=False, timeout=self.timeout):
            self._without_usage.add(url)  # not sooner: an error about something else may quote the whole request
            yield event

    def _connection(self, endpoint: Endpoint, key: str | None, tape: Tape | None) -> Connection:
        identity = (endpoint.name, endpoint.url, key, tape, *map(self._environ.get, OF_OPENAI))
        with self._connecting:
            if identity not in self._connections:
                transport = self._transports.get(endpoint.name)
                price = partial(self._price_of, endpoint)
                self._connections[identity] = connected(endpoint, key, self._environ, transport, tape, price)
            return self._connections[identity]

    def _price_of(self, endpoint: Endpoint, asked: Mapping[str, Any], used: Mapping[str, Any]) -> float | None:
        reported = usage_in({"usage": used})
        return self.facts(f"{endpoint.name}:{asked.get('model')}", asked).cost(reported) if reported else None


@dataclass(frozen=True, slots=True)
class _Way:
    """How a request goes out, and the *tape* that runs; it *plays* if the answer is on it."""

    connection: Connection
    tape: Tape | None = None
    plays: bool = False

    @property
    def instant(self) -> bool:
        """True for an answer that is there at once."""
        return self.plays and self.tape is not None and not self.tape.pace


def _as_recorded(event: Event) -> Event:
    """Return *event* with a price that is unknown for ever if it was so when it was recorded."""
    if (
        isinstance(event, Used)
        and event.usage.cost is None
        and None not in (event.usage.input_tokens, event.usage.output_tokens)
    ):
        return Used(replace(event.usage, cost=math.nan))
    return event


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


def _body(where: Target, request: Request) -> dict[str, Any]:
    """Return what is sent, but for the question what it used."""
    body: dict[str, Any] = {
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "model": where.model,
        **request.parameters,
        "stream": request.stream,
    }
    if request.cache_key and _TAKES_CACHE_KEY.search(where.endpoint.url):
        body.setdefault("prompt_cache_key", request.cache_key)
    return body


def _exchange(connection: Connection, body: Mapping[str, Any], *, with_usage: bool, timeout: float) -> Iterator[Event]:
    """Send one request and yield its answer; the body is read to its end, so that the connection can be used again."""
    asked_for = {"stream_options": {"include_usage": True}} if with_usage else {}
    # The client transforms typed messages, which costs more with every turn; extra_body it takes as it is.
    call = connection.client.chat.completions.with_streaming_response.create(
        model=body["model"],
        messages=[],
        extra_body={**body, **asked_for},
        extra_headers=connection.headers,
        timeout=httpx2.Timeout(timeout, connect=min(timeout, 20.0)),
    )
    with call as response:
        yield from events(response.http_response, connection.key)
