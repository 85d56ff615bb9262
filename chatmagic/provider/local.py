"""Which servers answer on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx2

from chatmagic.provider.endpoints import Endpoint

__all__ = ["answering"]

_PATIENCE = 0.3  # seconds: on one's own machine an answer is there at once, or not at all


def answering(endpoints: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the names of the *endpoints* on this machine that list models just now."""
    local = [Endpoint(name, fields["url"]) for name, fields in endpoints.items()]
    local = [endpoint for endpoint in local if endpoint.is_local]
    if not local:
        return []
    with ThreadPoolExecutor(len(local)) as pool:
        answers = pool.map(_lists_models, local)
        return [endpoint.name for endpoint, answer in zip(local, answers, strict=True) if answer]


def _lists_models(endpoint: Endpoint) -> bool:
    try:
        # trust_env: no proxy has anything to do with a server on this machine.
        answer = httpx2.get(f"{endpoint.url.rstrip('/')}/models", timeout=_PATIENCE, trust_env=False).json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return False
    return isinstance(answer, dict) and isinstance(answer.get("data"), list)
