"""What a server says that a request used, in any of the forms that servers have for it -> `Usage`."""

from __future__ import annotations

from typing import Any

from chatmagic.conversation.messages import Usage

__all__ = ["timed", "usage", "usage_in"]

_TICKS = 10**10  # of xAI, in one USD: https://docs.x.ai/developers/cost-tracking

# The names of one count, the likeliest first; "_" stands for either group of details.
_CACHED = (
    "_.cached_tokens",
    "prompt_cache_hit_tokens",  # DeepSeek, whose misses are no writes: https://api-docs.deepseek.com/guides/kv_cache
    "cached_tokens",  # Moonshot
    "cache_read_input_tokens",  # Anthropic
    "num_cached_tokens",  # Mistral
)
_WRITTEN = (
    "_.cache_write_tokens",
    "cache_creation_input_tokens",  # Anthropic
    "_.cache_creation_tokens",  # LiteLLM
    "_.cache_creation_input_tokens",  # DashScope
)
_REASONING = ("_.reasoning_tokens", "reasoning_tokens")  # the second is SGLang's


def usage_in(chunk: dict[str, Any]) -> Usage | None:
    """Return the usage that *chunk* reports, wherever in it; None if it reports none, or zeros."""
    choices, groq = chunk.get("choices"), chunk.get("x_groq")
    choice = choices[0] if isinstance(choices, list) and choices else None
    places = [chunk, choice, groq]  # the second is Moonshot's
    return next((found for each in places if isinstance(each, dict) and (found := usage(each.get("usage")))), None)


def timed(chunk: dict[str, Any]) -> Usage | None:
    """Return what the timings of llama.cpp tell in *chunk*; it sends them also where it reports no usage."""
    timings = chunk.get("timings")
    if not isinstance(timings, dict):
        return None
    read, cached, came = (_count(timings.get(name)) for name in ("prompt_n", "cache_n", "predicted_n"))
    # Older versions do not say how much of the prompt they had already read.
    sent = None if read is None or cached is None else _count(read + cached)
    return Usage(sent, came, None if sent is None else cached) if sent or came else None


def usage(reported: object) -> Usage | None:
    """Return the counts that a server *reported*, whatever it calls them, or None if there are none.

    A count that cannot be one is unknown: a negative one, a fraction, a part that is larger than its whole.
    """
    if not isinstance(reported, dict):
        return None
    inward = _with_details(reported, "prompt_tokens_details", "input_tokens_details")
    outward = _with_details(reported, "completion_tokens_details", "output_tokens_details")
    cached, written = _first(inward, *_CACHED), _first(inward, *_WRITTEN)
    sent, came = _sent(reported), _first(reported, "completion_tokens", "output_tokens")
    reasoning = _first(outward, *_REASONING)
    if sent is not None and came is not None:
        came, reasoning = _whole(reported, sent, came, reasoning, is_cached=bool(cached or written))
    if not (sent or came):
        return None
    cached, reasoning = _part(cached, sent), _part(reasoning, came)
    return Usage(sent, came, cached, reasoning, _part(written, (sent or 0) - (cached or 0)), _cost(reported))


def _sent(reported: dict[str, Any]) -> int | None:
    """Return the length of the whole prompt, with what the provider's cache had to do with it."""
    prompt, named = _count(reported.get("prompt_tokens")), _count(reported.get("input_tokens"))
    if prompt or named is None:
        hit, miss = (_count(reported.get(f"prompt_cache_{part}_tokens")) for part in ("hit", "miss"))  # DeepSeek's
        return prompt if prompt is not None or hit is None or miss is None else _count(hit + miss)
    # Anthropic counts both beside its input_tokens; those who translate it may have added them, and give a total.
    total, came = _count(reported.get("total_tokens")), _count(reported.get("output_tokens"))
    if total is not None and total == named + (came or 0):
        return named
    read, written = (_count(reported.get(f"cache_{part}_input_tokens")) for part in ("read", "creation"))
    return _count(named + (read or 0) + (written or 0))


def _whole(
    reported: dict[str, Any], sent: int, came: int, reasoning: int | None, *, is_cached: bool
) -> tuple[int, int | None]:
    """Return the whole output and its reasoning.

    xAI counts the reasoning beside the output, Gemini only in the total.
    """
    total = _count(reported.get("total_tokens")) or 0
    missing = total - sent - came
    if missing > 0 and (reasoning == missing or (reasoning is None and not is_cached)):
        return total - sent, missing
    return came, reasoning


def _cost(reported: dict[str, Any]) -> float | None:
    """Return what the server says that it takes, in USD."""
    cost = reported.get("cost", reported.get("estimated_cost"))  # the second is DeepInfra's
    if isinstance(cost, dict):
        return _money(cost.get("total_cost"))  # Perplexity
    ticks = _count(reported.get("cost_in_usd_ticks"))
    if cost is None and ticks is not None:
        return _money(ticks / _TICKS)
    price = _money(cost)
    if reported.get("is_byok") is True and price is not None:
        # OpenRouter's own share; the rest is paid to the provider, with the user's key there.
        details = reported.get("cost_details")
        rest = _money(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
        return None if rest is None else price + rest
    return price


def _with_details(reported: dict[str, Any], *groups: str) -> dict[str, Any]:
    details = next((group for name in groups if isinstance(group := reported.get(name), dict)), {})
    return {**reported, **{f"_.{name}": value for name, value in details.items()}}


def _first(reported: dict[str, Any], *names: str) -> int | None:
    """Return the first count that is there, and one that is not zero before those that are."""
    counts = [count for name in names if (count := _count(reported.get(name))) is not None]
    return next(filter(None, counts), 0) if counts else None


def _part(count: int | None, whole: int | None) -> int | None:
    return count if count is not None and count <= (whole or 0) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else None


def _money(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 10**6 else None  # type: ignore[operator,arg-type]
