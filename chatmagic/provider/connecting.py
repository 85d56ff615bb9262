"""A client of openai for each endpoint and key; where a tape runs, it stands between the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx2
import openai

from chatmagic.errors import EndpointError
from chatmagic.plain import one_line
from chatmagic.provider.endpoints import Endpoint, Secret

if TYPE_CHECKING:
    from chatmagic.provider.tape import Tape
    from chatmagic.provider.taping import Price

__all__ = ["OF_OPENAI", "Connection", "Transports", "connected"]

Transport = Callable[[], httpx2.BaseTransport]
Transports = Mapping[str, Transport]

OF_OPENAI = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS")
"""Variables that the client of openai takes into every request."""


# People read and type between two cells; a connection that the server has closed meanwhile is noticed and replaced.
_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=300.0)


@dataclass(frozen=True, slots=True)
class Connection:
    """A client that is connected to one endpoint with a key, and the headers that only this one gets, or must not."""

    client: openai.OpenAI
    key: str | None = field(repr=False)
    headers: dict[str, str | openai.Omit] = field(repr=False)


def connected(
    endpoint: Endpoint,
    key: str | None,
    environ: Mapping[str, str],
    transport: Transport | None,
    tape: Tape | None,
    price: Price,
) -> Connection:
    """Return a client for *endpoint*. *transport* replaces the network; *price* says what *tape* notes as the cost.

    Raises:
        EndpointError: the environment asks for a proxy or certificates that cannot be used.
    """
    http = _plain(endpoint, transport) if tape is None else _taped(endpoint, transport, tape, price)
    client = openai.OpenAI(api_key=key or "none", base_url=endpoint.url, max_retries=0, http_client=http)
    headers: dict[str, str | openai.Omit] = {}
    if endpoint.name != "openai":
        # The client takes these from the environment; they are OpenAI's, and no other server's business.
        client.organization = client.project = None
        custom = environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
        headers = {line.partition(":")[0].strip(): openai.Omit() for line in custom if ":" in line}
        headers = {name: omit for name, omit in headers.items() if name.lower() != "authorization"}
        headers["Authorization"] = Secret(f"Bearer {key}") if key else openai.Omit()
    elif not key:
        headers["Authorization"] = openai.Omit()
    return Connection(client, key, headers)


def _taped(endpoint: Endpoint, transport: Transport | None, tape: Tape, price: Price) -> httpx2.Client:
    from chatmagic.provider.taping import TapeTransport, through

    inner = None if tape.mode == "replay" else through(_plain(endpoint, transport))
    taped = TapeTransport(tape, inner, about={"endpoint": endpoint.name}, price=price)
    return openai.DefaultHttpx2Client(transport=taped, follow_redirects=False)


def _plain(endpoint: Endpoint, make: Transport | None) -> httpx2.Client:
    transport = make() if make else None
    if transport is None and endpoint.is_local:
        # With a transport of its own a client asks no proxy: what is meant for this machine stays on it.
        transport = httpx2.HTTPTransport(limits=_LIMITS)
    try:
        # Whoever is redirected would send the whole conversation to a host that nobody has named.
        return openai.DefaultHttpx2Client(transport=transport, limits=_LIMITS, follow_redirects=False)
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as exc:
        trouble = one_line(str(exc))
    raise EndpointError(f"the proxy or the certificates that the environment names cannot be used: {trouble}")
