"""Context windows and prices of models: from genai-prices, what a server lists, and the user, of whom the last wins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from chatmagic.conversation.messages import Usage
from chatmagic.errors import SettingError
from chatmagic.plain import one_line
from chatmagic.provider.endpoints import Target

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation

__all__ = ["Listed", "Prices", "checked", "cost", "listed", "own_window", "telling", "window"]

_FIELDS = ("window", "input", "cached", "cache_write", "output")
_FREE = ("ollama", "llamacpp", "lmstudio", "vllm")
_LARGEST_WINDOW = 10**9
_HIGHEST_PRICE = 10**6


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens; ``cached`` is for input read from the provider's cache, ``cache_write`` for written."""

    input: float
    output: float
    cached: float
    cache_write: float

    def of(self, usage: Usage) -> float | None:
        """Return what *usage* costs in USD, or None if its counts are unknown or contradict each other."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
        fresh = usage.input_tokens - cached - written
        parts = (
            (fresh, self.input),
            (cached, self.cached),
            (written, self.cache_write),
            (usage.output_tokens, self.output),
        )
        if any(count < 0 for count, _ in parts):
            return None
        try:
            return _amount(sum(count * price for count, price in parts) / 1e6)
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class Listed:
    """What a server's list of models says about one of them; None where it says nothing."""

    window: int | None = None
    prices: Prices | None = None


# What a server is set to is the window; what a model could do is asked only where that is not said. Of several the
# smallest is safe. "max_tokens" is left out: it is the longest reply at Anthropic and Vercel, the window at DeepInfra
# (https://platform.claude.com/docs/en/api/models).
_WINDOWS = (
    (
        "meta.n_ctx",  # llama.cpp (https://github.com/ggml-org/llama.cpp/blob/master/tools/server), llama-swap
        "loaded_context_length",  # LM Studio
        "max_model_len",  # vLLM
    ),
    (
        "context_length",  # OpenRouter, Together, Nebius, Chutes
        "top_provider.context_length",  # OpenRouter: of the provider that it takes first
        "context_window",  # Groq, Vercel
        "max_context_length",  # Mistral, LM Studio
        "context_size",  # Novita
        "metadata.context_length",  # DeepInfra
        "capabilities.limits.max_context_window_tokens",  # GitHub Copilot
        "max_input_tokens",  # Anthropic, LiteLLM where its configuration says so
        "inputTokenLimit",  # Gemini
    ),
    ("meta.n_ctx_train",),
)


def listed(entry: Mapping[str, Any]) -> Listed:
    """Read the extra fields of one entry of /models; whatever cannot be true counts as not said."""
    for places in _WINDOWS:
        if said := [size for place in places if (size := _window(_at(entry, place)))]:
            return Listed(min(said), _listed_prices(_at(entry, "pricing")))
    return Listed(_window_of_providers(_at(entry, "providers")), _listed_prices(_at(entry, "pricing")))


def telling(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of one entry of /models tells something: its name, and what `listed` reads."""
    found = {key: entry[key] for key in ("id", "object", "owned_by", "pricing", "providers") if key in entry}
    for place in (place for places in _WINDOWS for place in places):
        if (value := _at(entry, place)) is not None:
            *outer, name = place.split(".")
            inner = found
            for each in outer:
                inner = inner.setdefault(each, {})
            inner[name] = value
    return found


def _at(entry: object, place: str) -> object:
    for name in place.split("."):
        if not isinstance(entry, Mapping):
            return None
        entry = entry.get(name)
    return entry


def _window(size: object) -> int | None:
    if isinstance(size, bool) or not isinstance(size, int | float) or not 1 <= size <= _LARGEST_WINDOW:
        return None
    return int(size) if int(size) == size else None


def _window_of_providers(providers: object) -> int | None:
    # router.huggingface.co lists who serves a model and takes the fastest, which may be any of them.
    live = [each for each in providers if _at(each, "status") == "live"] if isinstance(providers, list) else []
    return min((size for each in live if (size := _window(_at(each, "context_length")))), default=None)


def _listed_prices(pricing: object) -> Prices | None:
    """Read OpenRouter's form, https://openrouter.ai/docs/api/api-reference/models/get-models: USD per token, as text.

    Numbers are not taken: the same names hold USD per million tokens elsewhere (Chutes).
    """
    if any(_at(pricing, name) not in (None, "", "0", 0, []) for name in ("overrides", "request", "discount")):
        return None  # not by the token alone, or not at any length and hour
    fresh, output = _price_of_token(_at(pricing, "prompt")), _price_of_token(_at(pricing, "completion"))
    if fresh is None or output is None:
        return None
    cached, written = (_price_of_token(_at(pricing, f"input_cache_{what}")) for what in ("read", "write"))
    return Prices(fresh, output, fresh if cached is None else cached, fresh if written is None else written)


def _price_of_token(text: object) -> float | None:
    """Turn *text* (USD per token) into USD per million; "-1" is unknown, and a cent for a token no price."""
    try:
        price = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return price * 1e6 if 0 <= price < 0.01 else None


def checked(own: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the user's *own* facts if they can be used: window in tokens, prices in USD per million tokens.

    They are ``{"ENDPOINT:MODEL": {"window": …, "input": …, "cached": …, "cache_write": …, "output": …}}``; the key may
    also be an endpoint alone, for all its models, or a model of OpenAI.

    Raises:
        SettingError: a name, a field or a number that cannot be, or a price that lacks its other half.
    """
    for name, fields in own.items():
        _check(name, fields)
    return {name: dict(fields) for name, fields in own.items()}


def _check(name: object, fields: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise SettingError(f"{_short(name)} cannot name a model in ChatMagic.models: 'ENDPOINT:MODEL' or 'ENDPOINT'")
    whose = f"ChatMagic.models[{_short(name)}]"
    if not isinstance(fields, Mapping):
        raise SettingError(f"{whose} cannot be {_short(fields)}: {{'window': 32768, 'input': 0.5, 'output': 1.5}}")
    for field, value in fields.items():
        if field not in _FIELDS:
            raise SettingError(f"{whose} has no field {_short(field)}: use {', '.join(_FIELDS)}")
        if field == "window" and _window(value) is None:
            raise SettingError(f"{whose}: 'window' cannot be {_short(value)}: a number of tokens, say 32768")
        if field != "window" and not _is_price(value):
            raise SettingError(f"{whose}: {field!r} cannot be {_short(value)}: USD per million tokens, say 0.5")
    priced = [field for field in fields if field != "window"]
    lacking = [half for half in ("input", "output") if half not in fields]
    if priced and lacking:
        raise SettingError(f"{whose} has {priced[0]!r} but no {lacking[0]!r}: give both 'input' and 'output'")


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _HIGHEST_PRICE


def _short(value: object) -> str:
    return one_line(repr(value), 60)


def window(where: Target, own: Mapping[str, Mapping[str, float]], said: Listed | None) -> int | None:
    """Return how many tokens the model at *where* takes, or None if nobody says so. *own* is `checked`."""
    if (size := own_window(where, own)) is not None:
        return size
    if said and said.window:
        return said.window
    known = _known(where, Usage(0, 0))
    return _window(known.model.context_window) if known else None


def own_window(where: Target, own: Mapping[str, Mapping[str, float]]) -> int | None:
    """Return what the user says about it. *own* is `checked`."""
    return next((int(fields["window"]) for fields in _own(where, own) if "window" in fields), None)


def cost(
    where: Target,
    usage: Usage,
    own: Mapping[str, Mapping[str, float]],
    said: Listed | None,
    *,
    when: datetime | None = None,
    service_tier: str | None = None,
) -> float | None:
    """Return USD for one request, or None where no price is known or the counts are unknown. *own* is `checked`.

    *when* it was sent (None: now) and the *service_tier* that was asked for matter to the price list only.
    """
    if (reported := _amount(usage.cost)) is not None:
        return reported
    if prices := _own_prices(where, own):
        return prices.of(usage)
    if _is_free(where):
        return 0.0
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    if said and said.prices:
        return said.prices.of(usage)
    known = _known(where, usage, when, service_tier)
    # Some models are billed by the second, the character or the search; no count of tokens says what they cost.
    by_token = known and (known.model_price.input_mtok is not None or not str(known.model_price))
    return _amount(known.total_price) if known and by_token else None


def _own(where: Target, own: Mapping[str, Mapping[str, float]]) -> Iterator[Mapping[str, float]]:
    """Yield what the user says about the model at *where*, the closest first."""
    name, model = where.endpoint.name, where.model
    keys = (f"{name}:{model}", name, model) if name == "openai" else (f"{name}:{model}", name)
    return (own[key] for key in keys if key in own)


def _own_prices(where: Target, own: Mapping[str, Mapping[str, float]]) -> Prices | None:
    for fields in _own(where, own):
        if "input" in fields:
            fresh = fields["input"]
            return Prices(fresh, fields["output"], fields.get("cached", fresh), fields.get("cache_write", fresh))
    return None


def _is_free(where: Target) -> bool:
    # What else listens on this machine may be a proxy to somebody who is paid; so is what Ollama calls its cloud.
    name, local = where.endpoint.name, where.endpoint.is_local
    in_cloud = name == "ollama" and where.model.lower().endswith(("-cloud", ":cloud"))
    return name == "demo" or (name in _FREE and local and not in_cloud)


def _known(
    where: Target, usage: Usage, when: datetime | None = None, service_tier: str | None = None
) -> PriceCalculation | None:
    """Ask genai-prices, which knows whose prices they are by the URL; a model's name alone says nothing about that."""
    if where.endpoint.is_local or where.endpoint.name == "demo":
        return None
    import genai_prices

    try:
        return genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cached_tokens,
                cache_write_tokens=usage.cache_write_tokens,
            ),
            where.model,
            provider_api_url=where.endpoint.url,
            genai_request_timestamp=when,
            price_context={"service_tier": service_tier} if service_tier else None,
        )
    except (LookupError, ValueError, ArithmeticError):
        return None


def _amount(value: float | Decimal | None) -> float | None:
    try:
        amount = math.nan if value is None else float(value)
    except OverflowError:
        return None
    return amount if 0 <= amount < math.inf else None
