"""Names for base URLs and keys, and what a model name means."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from chatmagic.errors import EndpointError

__all__ = ["BUILT_IN", "Endpoint", "Secret", "Target", "checked", "endpoint", "key_of", "keys", "target"]

_FIELDS = ("url", "key_env", "model")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server. Its key is in the variable *key_env* (None: it needs no key), *model* is what it takes by default."""

    name: str
    url: str
    key_env: str | None = None
    model: str | None = None

    @property
    def label(self) -> str:
        """Its name or, where a variable has moved ``openai`` elsewhere, the host: who really gets what is sent."""
        moved = self.name == "openai" and self.url != BUILT_IN["openai"]["url"]
        return f"{self.name} at {urlsplit(self.url).netloc}" if moved else self.name

    @property
    def is_local(self) -> bool:
        """True for an address of this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


BUILT_IN: dict[str, dict[str, str]] = {
    "openai": {"url": "https://api.openai.com/v1", "key_env": "OPENAI_API_KEY"},
    "ollama": {"url": "http://localhost:11434/v1"},
    "llamacpp": {"url": "http://localhost:8080/v1", "model": "default"},
    "lmstudio": {"url": "http://localhost:1234/v1"},
    "vllm": {"url": "http://localhost:8000/v1"},
    "openrouter": {"url": "https://openrouter.ai/api/v1", "key_env": "OPENROUTER_API_KEY"},
    "demo": {"url": "http://demo.invalid/v1", "model": "demo"},
}
"""The endpoints that are known without being set; ``openai`` also follows OPENAI_BASE_URL."""


class Secret(str):
    """A key. Whatever shows the values of variables, as a verbose traceback does, does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[key]'"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes, and the model's name there."""

    endpoint: Endpoint
    model: str


def checked(endpoints: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the user's own *endpoints* (``{name: {"url": …, "key_env": …, "model": …}}``) if they can be used.

    Raises:
        EndpointError: a name, field or URL that cannot be, or a key where the name of its variable belongs.
    """
    for name, fields in endpoints.items():
        _check(name, fields)
    return {name: dict(fields) for name, fields in endpoints.items()}


def _check(name: object, fields: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][\w.-]*", name):
        raise EndpointError(f"{name!r} cannot name an endpoint: a letter first, then letters, digits, '_', '.' and '-'")
    if name == "demo":
        raise EndpointError("the endpoint 'demo' is chatmagic's own; give yours another name")
    if not isinstance(fields, Mapping) or not isinstance(fields.get("url"), str):
        raise EndpointError(f"endpoint {name!r} needs {{'url': 'https://…/v1', 'key_env': 'NAME_OF_A_VARIABLE'}}")
    # What stands in a wrong field may be the key itself, so no value is repeated here.
    for field, value in fields.items():
        if field not in _FIELDS:
            way_out = f"put the key into a variable, say {name.upper()}_API_KEY, and its name into 'key_env'"
            raise EndpointError(f"endpoint {name!r} has a field that is not one of {', '.join(_FIELDS)}; {way_out}")
        if not isinstance(value, str) or not value:
            raise EndpointError(f"endpoint {name!r}: {field!r} must be text")
    if not _names_a_variable(fields.get("key_env", "OK")):
        raise EndpointError(
            f"endpoint {name!r}: 'key_env' takes the name of an environment variable, not the key itself"
        )
    _check_url(fields["url"], f"endpoint {name!r}")


def _names_a_variable(text: str) -> bool:
    # Some keys (hf_…, gsk_…, AIza…) could be names of variables; but no name is long, small and numbered.
    key = re.search(r"(?=.*[a-z])(?=.*\d).{20}", text)
    return bool(re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII)) and not key


def _check_url(url: str, whose: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or not url.isprintable() or " " in url:
        raise EndpointError(f"{whose}: its URL must begin with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise EndpointError(
            f"{whose}: its URL must hold no user, password, query or fragment; a key goes into 'key_env'"
        )


def target(model: str, endpoints: Mapping[str, Mapping[str, str]], environ: Mapping[str, str]) -> Target:
    """Find where ``[ENDPOINT:]MODEL`` leads. A prefix is an endpoint only if its name is known.

    Raises:
        EndpointError: the prefix is a slip of a known name, or no model is left.
    """
    known = {**BUILT_IN, **endpoints}
    prefix, colon, rest = model.partition(":")
    if prefix in known:
        endpoint = _endpoint(prefix, known[prefix], environ)
        name = rest or endpoint.model
        if not name:
            raise EndpointError(f"{prefix!r} is an endpoint and needs a model: -m {prefix}:MODEL")
        return Target(endpoint, name)
    if not model.strip():
        raise EndpointError("the model has no name: -m MODEL or -m ENDPOINT:MODEL")
    endpoint = _endpoint("openai", known["openai"], environ)
    if colon:
        _refuse_slip(prefix, rest, known, endpoint)
    return Target(endpoint, model)


def _refuse_slip(prefix: str, rest: str, known: Mapping[str, object], endpoint: Endpoint) -> None:
    # What was meant for a model on this machine must not go out because of a letter.
    if prefix.lower() in ("http", "https"):
        raise EndpointError(
            "a URL cannot stand in -m: set %config ChatMagic.endpoints = {'NAME': {'url': …}}, -m NAME:MODEL"
        )
    if near := difflib.get_close_matches(prefix.lower(), known, n=1, cutoff=0.75):
        model = f"openai:{prefix}:{rest}"
        raise EndpointError(f"no endpoint {prefix!r}. Did you mean {near[0]}:{rest}? A model of that name is {model}")
    if endpoint.url == BUILT_IN["openai"]["url"] and prefix != "ft":
        # OpenAI itself has no such names but "ft:…", so this was meant for a server that is not set (any more).
        raise EndpointError(f"no endpoint {prefix!r} (known: {', '.join(known)}). Set it in ChatMagic.endpoints")


def endpoint(name: str, endpoints: Mapping[str, Mapping[str, str]], environ: Mapping[str, str]) -> Endpoint:
    """Find an endpoint by its name.

    Raises:
        EndpointError: there is none.
    """
    known = {**BUILT_IN, **endpoints}
    if name not in known:
        raise EndpointError(f"no endpoint {name!r} (known: {', '.join(known)}). Your own go into ChatMagic.endpoints")
    return _endpoint(name, known[name], environ)


def _endpoint(name: str, fields: Mapping[str, str], environ: Mapping[str, str]) -> Endpoint:
    url = fields["url"]
    if name == "openai" and fields is BUILT_IN["openai"] and (base := environ.get("OPENAI_BASE_URL", "").strip()):
        _check_url(base, "OPENAI_BASE_URL")
        url = base
    return Endpoint(name, url, fields.get("key_env"), fields.get("model"))


def keys(endpoints: Mapping[str, Mapping[str, str]], environ: Mapping[str, str]) -> list[str]:
    """Return the keys of all *endpoints*, and of those built in, that are long enough to be secrets."""
    names = [fields.get("key_env", "") for fields in (*BUILT_IN.values(), *endpoints.values())]
    found = (Secret(environ.get(name, "").strip()) for name in dict.fromkeys(names) if name)
    return [key for key in found if len(key) >= 8]


def key_of(
    endpoint: Endpoint, environ: Mapping[str, str], running: Callable[[], Sequence[str]] = tuple
) -> Secret | None:
    """Return the key for *endpoint*, or None where it needs none. *running* names servers that need none.

    Raises:
        EndpointError: it needs one and there is none, or what is there cannot be one.
    """
    if endpoint.key_env is None:
        return None
    key = Secret(environ.get(endpoint.key_env, "").strip())
    if not key and endpoint.is_local:
        return None
    if not key:
        found = running()
        here = f"{', '.join(found)} answers here, -m {found[0]}:MODEL" if found else "-m ollama:MODEL"
        raise EndpointError(
            f"no key for endpoint {endpoint.name!r}: the environment variable {endpoint.key_env} is not set. Set it "
            f"(import os, getpass; os.environ[{endpoint.key_env!r}] = getpass.getpass()), use a server on this machine "
            f"({here}), or try the offline demo (-m demo)"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EndpointError(
            f"the variable {endpoint.key_env} holds a character that no key has (a blank or a line break?)"
        )
    return key
