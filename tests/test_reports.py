"""What servers say that a request used, in which forms and in which places."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.conversation.messages import Usage
from chatmagic.events import Event, Used
from chatmagic.provider.reports import timed, usage, usage_in
from tests.server import Wire, chunk, said, sse


def tokens(sent: object = 100, came: object = 40, **more: Any) -> dict[str, Any]:
    """A report in OpenAI's words."""
    return {"prompt_tokens": sent, "completion_tokens": came, **more}


def cached(count: object, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens_details": {"cached_tokens": count, **more}}


def reasoning(count: object) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": count}}


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        pytest.param(
            tokens(
                total_tokens=140,
                prompt_tokens_details={"cached_tokens": 64, "audio_tokens": 0, "cache_write_tokens": 20},
                completion_tokens_details={"reasoning_tokens": 30, "accepted_prediction_tokens": 0},
            ),
            Usage(100, 40, 64, 30, 20),
            id="OpenAI",
        ),
        pytest.param(
            tokens(total_tokens=140, prompt_tokens_details=None, completion_tokens_details=None),
            Usage(100, 40),
            id="vLLM",
        ),
        pytest.param(tokens(total_tokens=140, **cached(None), **reasoning(None)), Usage(100, 40), id="LiteLLM, nulls"),
        pytest.param(tokens(total_tokens=140, **cached(96)), Usage(100, 40, 96), id="llama.cpp"),
        pytest.param(tokens(reasoning_tokens=30, total_tokens=140), Usage(100, 40, None, 30), id="SGLang"),
        pytest.param(
            {
                "input_tokens": 100,
                "output_tokens": 40,
                "total_tokens": 140,
                "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 20},
                "output_tokens_details": {"reasoning_tokens": 30},
            },
            Usage(100, 40, 64, 30, 20),
            id="OpenAI, Responses",
        ),
        pytest.param(
            tokens(prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36, total_tokens=140, **reasoning(30)),
            Usage(100, 40, 64, 30),
            id="DeepSeek",
        ),
        pytest.param(
            {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36, "completion_tokens": 40},
            Usage(100, 40, 64),
            id="DeepSeek, the halves alone",
        ),
        pytest.param(tokens(total_tokens=140, cached_tokens=64), Usage(100, 40, 64), id="Moonshot"),
        pytest.param(tokens(total_tokens=140, num_cached_tokens=64), Usage(100, 40, 64), id="Mistral"),
        pytest.param(
            {"input_tokens": 10, "output_tokens": 40, "cache_read_input_tokens": 70, "cache_creation_input_tokens": 20},
            Usage(100, 40, 70, None, 20),
            id="Anthropic",
        ),
        pytest.param(
            {
                "input_tokens": 100,
                "output_tokens": 40,
                "total_tokens": 140,
                "cache_read_input_tokens": 70,
                "cache_creation_input_tokens": None,
            },
            Usage(100, 40, 70),
            id="Anthropic's names, translated",
        ),
        pytest.param(
            tokens(
                total_tokens=140,
                cache_creation_input_tokens=20,
                cache_read_input_tokens=70,
                **cached(70, cache_creation_tokens=20),
            ),
            Usage(100, 40, 70, None, 20),
            id="LiteLLM, from Anthropic",
        ),
        pytest.param(
            tokens(0, total_tokens=40, cache_read_input_tokens=70), Usage(0, 40), id="nothing is added to prompt_tokens"
        ),
        pytest.param(
            tokens(total_tokens=140, **cached(64, cache_creation_input_tokens=20)),
            Usage(100, 40, 64, None, 20),
            id="DashScope",
        ),
        pytest.param(
            tokens(
                total_tokens=140,
                cost=0.00014,
                is_byok=False,
                cost_details={"upstream_inference_cost": 0.00014, "upstream_inference_prompt_cost": 0.0001},
                **cached(64, cache_write_tokens=20),
                **reasoning(30),
            ),
            Usage(100, 40, 64, 30, 20, 0.00014),
            id="OpenRouter",
        ),
        pytest.param(tokens(cost=0, is_byok=False, cost_details=None), Usage(100, 40, cost=0.0), id="OpenRouter, free"),
        pytest.param(
            tokens(cost=0.25, is_byok=True, cost_details={"upstream_inference_cost": 19}),
            Usage(100, 40, cost=19.25),
            id="OpenRouter, a key of one's own",
        ),
        pytest.param(
            tokens(cost=0.25, is_byok=True, cost_details={"upstream_inference_cost": None}),
            Usage(100, 40),
            id="OpenRouter, a key of one's own, the rest unknown",
        ),
        pytest.param(
            tokens(
                32,
                9,
                total_tokens=135,
                cost_in_usd_ticks=37756000,
                prompt_tokens_details={"text_tokens": 32, "cached_tokens": 6},
                **reasoning(94),
            ),
            Usage(32, 103, 6, 94, None, 0.0037756),
            id="xAI, reasoning beside the output",
        ),
        pytest.param(
            tokens(125, 48, total_tokens=173, **cached(98), **reasoning(0)),
            Usage(125, 48, 98, 0),
            id="xAI, no reasoning",
        ),
        pytest.param(tokens(20, 424, total_tokens=1016), Usage(20, 996, None, 572), id="Gemini"),
        pytest.param(tokens(21, 0, total_tokens=81, **reasoning(60)), Usage(21, 60, None, 60), id="Gemini, translated"),
        pytest.param(
            tokens(30, 40, total_tokens=140, cached_tokens=70), Usage(30, 40), id="a gap that the cache may explain"
        ),
        pytest.param(
            tokens(
                search_context_size="low",
                total_tokens=140,
                cost={
                    "input_tokens_cost": 0.0,
                    "output_tokens_cost": 0.0,
                    "request_cost": 0.005,
                    "total_cost": 0.00515,
                },
            ),
            Usage(100, 40, cost=0.00515),
            id="Perplexity",
        ),
        pytest.param(
            tokens(108, 3256, total_tokens=3364, citation_tokens=7299, reasoning_tokens=73248),
            Usage(108, 3256),
            id="Perplexity, reasoning outside of everything",
        ),
        pytest.param(tokens(total_tokens=140, estimated_cost=2.68e-05), Usage(100, 40, cost=2.68e-05), id="DeepInfra"),
        pytest.param(
            tokens(total_tokens=140, queue_time=0.075, prompt_time=0.006, total_time=0.028), Usage(100, 40), id="Groq"
        ),
        pytest.param(tokens(total_tokens=140, prompt_audio_seconds=None), Usage(100, 40), id="Mistral, audio"),
    ],
)
def test_usage_is_read_in_every_form(reported: dict[str, Any], expected: Usage) -> None:
    """The cache is a part of the input, reasoning of the output, the cost in USD, whatever a server calls them."""
    assert usage(reported) == expected


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        pytest.param(tokens(-1, 40), Usage(None, 40), id="negative"),
        pytest.param(tokens(True, 40), Usage(None, 40), id="bool"),
        pytest.param(tokens(100.0, 40), Usage(None, 40), id="float"),
        pytest.param(tokens(10**12, 40), Usage(None, 40), id="absurd"),
        pytest.param(tokens("100", 40), Usage(None, 40), id="text"),
        pytest.param(tokens(**cached(101)), Usage(100, 40), id="more cached than sent"),
        pytest.param(tokens(**cached(100)), Usage(100, 40, 100), id="all cached"),
        pytest.param(tokens(**cached(60, cache_write_tokens=41)), Usage(100, 40, 60), id="two parts above the whole"),
        pytest.param(tokens(**reasoning(41)), Usage(100, 40), id="more reasoning than output"),
        pytest.param(
            tokens(total_tokens=150, **reasoning(9)), Usage(100, 40, None, 9), id="a gap that is no reasoning"
        ),
        pytest.param(tokens(total_tokens=10**13), Usage(100, 40), id="an absurd total"),
        pytest.param(tokens(cost=-1), Usage(100, 40), id="negative cost"),
        pytest.param(tokens(cost=math.nan), Usage(100, 40), id="nan"),
        pytest.param(tokens(cost=math.inf), Usage(100, 40), id="inf"),
        pytest.param(tokens(cost=10**400), Usage(100, 40), id="an absurd cost"),
        pytest.param(tokens(cost=True), Usage(100, 40), id="a bool as cost"),
        pytest.param(tokens(cost="0.1"), Usage(100, 40), id="a text as cost"),
        pytest.param(
            {"input_tokens": 10**12 - 1, "cache_read_input_tokens": 10**12 - 1, "output_tokens": 1},
            Usage(None, 1),
            id="an absurd sum",
        ),
        pytest.param(tokens(0, 0, cost=1.0), None, id="zeros"),
        pytest.param({"total_tokens": 140}, None, id="only a total"),
        pytest.param({}, None, id="empty"),
        pytest.param([tokens()], None, id="a list"),
        pytest.param(None, None, id="null"),
    ],
)
def test_what_cannot_be_a_count_is_unknown(reported: object, expected: Usage | None) -> None:
    """A count that cannot be true costs nobody the ones that can."""
    assert usage(reported) == expected


NAMES = [
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens"),
    *("prompt_tokens_details", "completion_tokens_details", "reasoning_tokens", "cache_write_tokens", "cost"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens"),
    *("cost_details", "is_byok", "upstream_inference_cost", "cost_in_usd_ticks", "total_cost", "usage", "choices"),
    *("x_groq", "timings", "prompt_n", "cache_n", "predicted_n"),
]
COUNTS = st.integers(0, 300) | st.sampled_from([-1, 10**11, 10**12 - 1, 10**12, 10**400, 1.5, math.nan, math.inf])
JSON = st.recursive(
    COUNTS | st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=8),
    max_leaves=30,
)


@settings(max_examples=500, deadline=None)
@given(reported=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=14))
def test_any_report_is_sane_or_none(reported: dict[str, Any]) -> None:
    """Whatever a server reports, nothing is raised, no count is absurd, and no part is larger than its whole."""
    for found in (usage(reported), usage_in(reported), timed(reported)):
        if found is not None:
            assert_sane(found)


def assert_sane(found: Usage) -> None:
    counts = (found.input_tokens, found.output_tokens, found.cached_tokens, found.reasoning_tokens)
    for count in (*counts, found.cache_write_tokens):
        assert count is None or (type(count) is int and 0 <= count < 10**12)
    assert found.input_tokens or found.output_tokens
    assert (found.cached_tokens or 0) + (found.cache_write_tokens or 0) <= (found.input_tokens or 0)
    assert (found.reasoning_tokens or 0) <= (found.output_tokens or 0)
    assert found.cost is None or (type(found.cost) is float and 0 <= found.cost < 2 * 10**6)


# Places


def used(events: list[Event]) -> list[Usage]:
    return [event.usage for event in events if isinstance(event, Used)]


STOP = chunk(finish="stop")
DONE = "[DONE]"
GOOD = Usage(100, 40)
TIMINGS = {"timings": {"cache_n": 90, "prompt_n": 10, "prompt_ms": 3.5, "predicted_n": 40, "predicted_ms": 80.1}}


def in_choice(reported: object) -> dict[str, Any]:
    """The last chunk, with usage in its choice."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": reported}]}


@pytest.mark.parametrize(
    ("tail", "last"),
    [
        pytest.param([STOP, {"choices": [], "usage": tokens()}, DONE], GOOD, id="OpenAI, after the choices"),
        pytest.param([{**STOP, "usage": tokens()}, DONE], GOOD, id="Mistral, with the end"),
        pytest.param([STOP, {**chunk(""), "usage": tokens()}, DONE], GOOD, id="LiteLLM, with an empty delta"),
        pytest.param([{**chunk("!"), "usage": tokens()}, STOP, DONE], GOOD, id="xAI, before the end"),
        pytest.param([in_choice(tokens(cached_tokens=64)), DONE], Usage(100, 40, 64), id="Moonshot, in the choice"),
        pytest.param([{**STOP, "x_groq": {"id": "req", "usage": tokens()}}, DONE], GOOD, id="Groq, in x_groq"),
        pytest.param(
            [{**STOP, "x_groq": {"id": "r", "usage": tokens()}}, {"choices": [], "usage": tokens()}, DONE],
            GOOD,
            id="Groq, twice",
        ),
        pytest.param([{**STOP, **TIMINGS}, DONE], Usage(100, 40, 90), id="llama.cpp, timings alone"),
        pytest.param(
            [{**STOP, "timings": {"prompt_n": 10, "predicted_n": 40}}, DONE],
            Usage(None, 40),
            id="llama.cpp, timings without the cache",
        ),
        pytest.param(
            [STOP, {"choices": [], "usage": tokens(**cached(80)), **TIMINGS}, DONE],
            Usage(100, 40, 80),
            id="llama.cpp, both",
        ),
        pytest.param(
            [{**STOP, **TIMINGS}, {"choices": [], "usage": tokens(200)}, DONE], Usage(200, 40), id="timings, then usage"
        ),
        pytest.param(
            [{"choices": [], "usage": tokens(200)}, {**STOP, **TIMINGS}, DONE], Usage(200, 40), id="usage, then timings"
        ),
        pytest.param(
            [*({**chunk("."), "usage": tokens(100, count)} for count in (0, 1, 20)), {**STOP, "usage": tokens()}, DONE],
            GOOD,
            id="Perplexity, vLLM: in every chunk",
        ),
        pytest.param(
            [{**STOP, "usage": tokens()}, {"choices": [], "usage": None}, {"choices": [], "usage": tokens(0, 0)}, DONE],
            GOOD,
            id="null and zeros afterwards",
        ),
        pytest.param(
            [{**STOP, "usage": tokens(0, 0), "x_groq": {"usage": tokens()}}, DONE], GOOD, id="zeros beside it"
        ),
        pytest.param([{**STOP, "usage": tokens()}], GOOD, id="no [DONE]"),
        pytest.param([STOP, DONE], None, id="llama-cpp-python, never"),
        pytest.param([in_choice([1]), {"x_groq": [], "timings": "fast", "usage": 5}, DONE], None, id="junk everywhere"),
    ],
)
def test_usage_is_found_in_every_place(tail: list[dict[str, Any] | str], last: Usage | None) -> None:
    """The last count that is one is what a request used, wherever in a stream it stands."""
    events = Wire(sse(chunk("hi"), *tail)).ask()

    assert used(events)[-1:] == ([last] if last else [])
    assert said(events).startswith("hi")


def test_usage_of_a_whole_answer_is_found() -> None:
    """An answer that is no stream reports in the same way."""
    answer = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": tokens(**cached(64))}

    events = Wire(httpx2.Response(200, content=json.dumps(answer))).ask(stream=False)

    assert used(events) == [Usage(100, 40, 64)]
