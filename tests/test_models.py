"""Context windows and prices of models."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.messages import Usage
from chatmagic.errors import SettingError
from chatmagic.provider.endpoints import Endpoint, Target, target
from chatmagic.provider.models import Listed, Prices, checked, cost, listed, window

OPENROUTER = {"prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003"}
PRICES = {"input": 1.0, "cached": 0.1, "cache_write": 1.25, "output": 5.0}
NO_WINDOWS: list[object] = [0, -1, True, 10**9 + 1, 10**400, 0.5, math.nan, math.inf, "4096", None, [], {}, [4096]]
SPENT = Usage(1_000_000, 100_000, cached_tokens=600_000, cache_write_tokens=200_000)


def at(model: str, url: str | None = None) -> Target:
    """Where *model* leads; *url* is that of an endpoint of the user's named "own"."""
    own = {"own": {"url": url}} if url else {}
    return target(f"own:{model}" if url else model, own, {})


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        pytest.param({"id": "x", "object": "model", "owned_by": "openai"}, None, id="openai"),
        pytest.param({"context_length": 131072, "pricing": {"hourly": 0, "input": 0.2}}, 131072, id="together"),
        pytest.param({"context_length": 9000, "top_provider": {"context_length": 8000}}, 8000, id="openrouter"),
        pytest.param({"context_length": 9000, "top_provider": {"context_length": None}}, 9000, id="openrouter-unsaid"),
        pytest.param({"root": "x", "parent": None, "max_model_len": 8096}, 8096, id="vllm"),
        pytest.param({"max_model_len": 8192, "context_length": 4096}, 8192, id="set-before-possible"),
        pytest.param({"meta": {"n_vocab": 32000, "n_ctx": 4096, "n_ctx_train": 131072}}, 4096, id="llamacpp"),
        pytest.param({"meta": {"n_ctx": 65536, "n_ctx_train": 32768}}, 65536, id="llamacpp-stretched"),
        pytest.param({"meta": {"n_ctx": None, "n_ctx_train": 32768}}, 32768, id="llamacpp-old"),
        pytest.param({"active": True, "context_window": 131072, "max_completion_tokens": 32768}, 131072, id="groq"),
        pytest.param({"context_window": 200000, "max_tokens": 8192}, 200000, id="vercel"),
        pytest.param({"state": "loaded", "max_context_length": 32768, "loaded_context_length": 4096}, 4096, id="lms"),
        pytest.param({"state": "not-loaded", "max_context_length": 32768}, 32768, id="lms-not-loaded"),
        pytest.param({"max_context_length": 262144, "capabilities": {"vision": True}}, 262144, id="mistral"),
        pytest.param({"type": "model", "max_input_tokens": 200000, "max_tokens": 64000}, 200000, id="anthropic"),
        pytest.param({"max_input_tokens": 272000, "max_output_tokens": 128000}, 272000, id="litellm"),
        pytest.param({"max_tokens": 4096}, None, id="longest-reply"),
        pytest.param({"inputTokenLimit": 1048576, "outputTokenLimit": 65536}, 1048576, id="gemini"),
        pytest.param({"context_size": 64000, "input_token_price_per_m": 2000}, 64000, id="novita"),
        pytest.param({"metadata": {"context_length": 32768}}, 32768, id="deepinfra"),
        pytest.param({"capabilities": {"limits": {"max_context_window_tokens": 128000}}}, 128000, id="copilot"),
        pytest.param(
            {
                "providers": [
                    {"status": "live", "context_length": 131072},
                    {"status": "live", "context_length": 32768},
                    {"status": "staging", "context_length": 1024},
                    {"status": "live"},
                ]
            },
            32768,
            id="huggingface",
        ),
        pytest.param({"context_length": 131072.0}, 131072, id="whole-float"),
        pytest.param({"context_length": 1}, 1, id="smallest"),
        pytest.param({"context_length": 10**9}, 10**9, id="largest"),
        *(pytest.param({"context_length": bad}, None, id=f"bad-{bad!r:.12}") for bad in NO_WINDOWS),
        pytest.param({"meta": 3, "top_provider": [], "metadata": "x", "providers": {"a": 1}}, None, id="wrong-types"),
        pytest.param({"providers": [None, 3, [], {"status": []}]}, None, id="wrong-providers"),
        pytest.param({"context_length": -1, "context_window": 4096}, 4096, id="second-place"),
    ],
)
def test_a_server_says_its_window(entry: dict[str, Any], size: int | None) -> None:
    """The window is read from where the servers put it; what cannot be one is not said."""
    assert listed(entry).window == size


@pytest.mark.parametrize(
    ("pricing", "prices"),
    [
        pytest.param(OPENROUTER, (3, 15, 0.3, 3), id="openrouter"),
        pytest.param({**OPENROUTER, "input_cache_write": "0.00000375"}, (3, 15, 0.3, 3.75), id="cache-write"),
        pytest.param({**OPENROUTER, "input_cache_read": "-1"}, (3, 15, 3, 3), id="cache-unknown"),
        pytest.param(
            {**OPENROUTER, "request": "0", "discount": 0, "overrides": []}, (3, 15, 0.3, 3), id="nothing-else"
        ),
        pytest.param({"prompt": "0", "completion": "0"}, (0, 0, 0, 0), id="free"),
        pytest.param({"prompt": "-1", "completion": "-1"}, None, id="router"),
        pytest.param({"prompt": "0.000003"}, None, id="half"),
        pytest.param({"prompt": 0.2, "completion": 0.8}, None, id="chutes-per-million"),
        pytest.param({"prompt": 0.003, "completion": 0.008}, None, id="number"),
        pytest.param({"input": 0.2, "output": 0.8, "hourly": 0, "base": 0, "finetune": 0}, None, id="together"),
        pytest.param({"prompt": "0.0043", "completion": "1"}, None, id="no-token-costs-so-much"),
        pytest.param({"prompt": "nan", "completion": "inf"}, None, id="not-finite"),
        pytest.param({"prompt": "free", "completion": ""}, None, id="words"),
        pytest.param({"prompt": True, "completion": ["0"]}, None, id="wrong-types"),
        pytest.param({**OPENROUTER, "request": "0.005"}, None, id="each-request"),
        pytest.param({**OPENROUTER, "discount": 0.5}, None, id="discount"),
        pytest.param({**OPENROUTER, "overrides": [{"min_prompt_tokens": 200000}]}, None, id="dearer-when-long"),
        pytest.param([], None, id="list"),
        pytest.param(None, None, id="none"),
    ],
)
def test_a_server_says_its_prices(pricing: object, prices: tuple[float, ...] | None) -> None:
    """OpenRouter's prices per token become prices per million; other units, and conditions, are not guessed."""
    found = listed({"id": "x", "pricing": pricing}).prices

    assert (found and (found.input, found.output, found.cached, found.cache_write)) == (
        prices and pytest.approx(prices)
    )


_WORDS = """
context_length top_provider meta n_ctx n_ctx_train max_model_len providers status pricing prompt completion request
input_cache_read overrides capabilities limits max_context_window_tokens metadata
"""
_NAMES = st.sampled_from(_WORDS.split())
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("live")
_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4))


@given(st.dictionaries(_NAMES, _JSON, max_size=6))
def test_whatever_a_server_says_is_read(entry: dict[str, Any]) -> None:
    """No entry of a list raises; a window is a number of tokens and prices are numbers."""
    found = listed(entry)

    assert found.window is None or (type(found.window) is int and 1 <= found.window <= 10**9)
    if found.prices:
        prices = (found.prices.input, found.prices.output, found.prices.cached, found.prices.cache_write)
        assert all(0 <= price <= 10_000 for price in prices)


def test_own_facts_are_copied() -> None:
    """What can be used comes back as it was, in dicts of its own."""
    own: dict[str, dict[str, float]] = {
        "lab:x": {"window": 32768, **PRICES},
        "lab": {"window": 4096.0},
        "gpt-6-luna": {"input": 0, "output": 0},
    }
    found = checked(own)
    own["lab:x"]["window"] = 1

    assert found == {"lab:x": {"window": 32768, **PRICES}, "lab": {"window": 4096}, "gpt-6-luna": own["gpt-6-luna"]}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        pytest.param({3: {}}, r"3 cannot name a model in ChatMagic.models: 'ENDPOINT:MODEL'", id="name"),
        pytest.param({" ": {}}, r"' ' cannot name a model", id="no-name"),
        pytest.param({"lab": 3}, r"ChatMagic.models\['lab'\] cannot be 3: \{'window': 32768", id="no-dict"),
        pytest.param({"lab": {"windw": 3}}, r"\['lab'\] has no field 'windw': use window, input, cached", id="slip"),
        pytest.param({"lab": {3: 3}}, r"\['lab'\] has no field 3: use window", id="field-no-text"),
        *(
            pytest.param(
                {"lab": {"window": bad}}, r"'window' cannot be .*: a number of tokens", id=f"window-{bad!r:.9}"
            )
            for bad in (0, -5, 1.5, True, "32768", None, math.nan, math.inf, 10**400)
        ),
        *(
            pytest.param(
                {"lab": {"input": 1, "output": bad}}, r"'output' cannot be .*: USD per million", id=f"{bad!r:.9}"
            )
            for bad in (-1, True, "1.5", None, math.nan, math.inf, 10**400)
        ),
        pytest.param({"lab": {"input": 1}}, r"has 'input' but no 'output': give both", id="no-output"),
        pytest.param({"lab": {"window": 9, "cached": 1}}, r"has 'cached' but no 'input': give both", id="only-cached"),
    ],
)
def test_own_facts_that_cannot_be_are_refused(own: dict[str, Any], message: str) -> None:
    """The error is one line that names the value and what would have worked."""
    with pytest.raises(SettingError, match=message) as caught:
        checked(own)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("where", "own", "said", "size"),
    [
        pytest.param(at("lab-x", "https://lab.example/v1"), {}, None, None, id="unknown"),
        pytest.param(at("lab-x", "https://lab.example/v1"), {}, Listed(5), 5, id="listed"),
        pytest.param(at("lab-x", "https://lab.example/v1"), {"own": {"window": 7}}, Listed(5), 7, id="endpoint"),
        pytest.param(
            at("x", "https://a.example"), {"own": {"window": 7}, "own:x": {"window": 9}}, None, 9, id="closest"
        ),
        pytest.param(at("x", "https://a.example"), {"own": {"window": 7}, "own:x": PRICES}, None, 7, id="by-field"),
        pytest.param(at("x", "https://a.example"), {"x": {"window": 7}}, None, None, id="name-of-another"),
        pytest.param(at("made-up"), {"made-up": {"window": 7}}, None, 7, id="openai-name"),
        pytest.param(
            at("made-up"), {"openai:made-up": {"window": 8}, "made-up": {"window": 7}}, None, 8, id="full-name"
        ),
        pytest.param(at("made-up"), {"made-up": PRICES}, Listed(5), 5, id="only-prices"),
        pytest.param(at("ollama:gpt-oss"), {}, None, None, id="local"),
        pytest.param(at("gpt-4o", "http://127.0.0.1:4000/v1"), {}, None, None, id="proxy"),
    ],
)
def test_a_window(where: Target, own: dict[str, dict[str, float]], said: Listed | None, size: int | None) -> None:
    """The user wins over the server, the closest name over the endpoint's, each field for itself."""
    assert window(where, checked(own), said) == size


def test_the_price_list_knows_windows() -> None:
    """What neither the user nor the server says comes from the list; a model that it does not know has no window."""
    size = window(at("gpt-6-luna"), {}, None)

    assert size is not None
    assert size > 272_000  # it has a step in price there
    assert window(at("gpt-6-luna"), {}, Listed(5)) == 5
    assert window(at("nonesuch"), {}, None) is None


@pytest.mark.parametrize(
    ("own", "usage", "usd"),
    [
        # 200,000 x 1 + 600,000 x 0.1 + 200,000 x 1.25 + 100,000 x 5, per million
        pytest.param(PRICES, SPENT, 1.01, id="all"),
        pytest.param({"input": 1, "output": 5}, SPENT, 1.5, id="cache-costs-the-same"),
        pytest.param({"input": 1, "output": 5, "cached": 0}, SPENT, 0.9, id="cached-free"),
        pytest.param(PRICES, Usage(1000, 100), 0.0015, id="nothing-cached"),
        pytest.param(PRICES, Usage(0, 0), 0, id="nothing"),
        pytest.param({"input": 0, "output": 0}, SPENT, 0, id="free"),
        pytest.param(PRICES, Usage(None, 100), None, id="input-unknown"),
        pytest.param(PRICES, Usage(1000, None), None, id="output-unknown"),
        pytest.param(PRICES, Usage(100, 100, cached_tokens=101), None, id="contradiction"),
        pytest.param(PRICES, Usage(-1, 100), None, id="negative"),
        pytest.param(PRICES, Usage(10**400, 1), None, id="huge"),
        pytest.param(PRICES, Usage(1000, 100, cost=0.25), 0.25, id="reported"),
        pytest.param(PRICES, Usage(None, None, cost=0), 0, id="reported-alone"),
        pytest.param(PRICES, Usage(1000, 100, cost=math.nan), 0.0015, id="reported-nan"),
        pytest.param(PRICES, Usage(1000, 100, cost=-1), 0.0015, id="reported-negative"),
        pytest.param(PRICES, Usage(1000, 100, cost=10**400), 0.0015, id="reported-huge"),
    ],
)
def test_own_prices(own: dict[str, float], usage: Usage, usd: float | None) -> None:
    """Prices are USD per million tokens; what the server itself reports wins, unless it cannot be."""
    found = cost(at("gpt-6-luna"), usage, checked({"gpt-6-luna": own}), None)

    assert found == (usd if usd is None else pytest.approx(usd))


LISTED = Listed(None, Prices(2, 2, 2, 2))


@pytest.mark.parametrize(
    ("where", "own", "said", "usd"),
    [
        pytest.param(at("ollama:qwen3"), {}, None, 0, id="ollama"),
        pytest.param(at("llamacpp"), {}, None, 0, id="llamacpp"),
        pytest.param(at("lmstudio:x"), {}, None, 0, id="lmstudio"),
        pytest.param(at("vllm:x"), {}, None, 0, id="vllm"),
        pytest.param(at("demo"), {}, None, 0, id="demo"),
        pytest.param(at("ollama:gpt-oss:120b-cloud"), {}, None, None, id="ollama-cloud"),
        pytest.param(at("ollama:glm-4.6:cloud"), {}, None, None, id="ollama-cloud-tag"),
        pytest.param(at("ollama:cloudy"), {}, None, 0, id="ollama-cloudy"),
        pytest.param(at("lmstudio:x-cloud"), {}, None, 0, id="a-name-elsewhere"),
        pytest.param(at("ollama:qwen3"), {"ollama": {"input": 1, "output": 1}}, None, 2, id="own-before-free"),
        pytest.param(at("ollama:qwen3"), {"ollama": {"window": 9}}, None, 0, id="own-window-only"),
        pytest.param(
            Target(Endpoint("ollama", "http://10.0.0.7:11434/v1"), "x"), {}, None, None, id="ollama-elsewhere"
        ),
        pytest.param(at("gpt-4o", "http://127.0.0.1:4000/v1"), {}, None, None, id="proxy"),
        pytest.param(at("gpt-4o", "http://localhost:4000/x.openai.azure.com"), {}, None, None, id="proxy-to-azure"),
        pytest.param(target("gpt-4o", {}, {"OPENAI_BASE_URL": "http://[::1]:4000"}), {}, None, None, id="base-url"),
        pytest.param(
            target("gpt-4o", {}, {"OPENAI_BASE_URL": "http://localhost:4000"}),
            {"gpt-4o": {"input": 1, "output": 1}},
            None,
            2,
            id="base-url-own",
        ),
        pytest.param(at("gpt-4o", "https://lab.example/v1"), {}, None, None, id="name-without-provider"),
        pytest.param(at("x", "https://lab.example/v1"), {}, LISTED, 4, id="listed"),
        pytest.param(
            at("x", "https://a.example"), {"own:x": {"input": 1, "output": 1}}, LISTED, 2, id="own-before-listed"
        ),
        pytest.param(at("gpt-6-luna"), {}, LISTED, 4, id="listed-before-list"),
        pytest.param(at("nonesuch"), {}, None, None, id="unknown-model"),
        pytest.param(
            at("my-deployment", "https://x.openai.azure.com/openai/v1"), {}, None, None, id="azure-deployment"
        ),
        pytest.param(at("whisper-1"), {}, None, None, id="billed-by-the-hour"),
    ],
)
def test_who_has_a_price(
    where: Target, own: dict[str, dict[str, float]], said: Listed | None, usd: float | None
) -> None:
    """Named local servers are free; what only may be a proxy, and what nobody has priced, has no price."""
    assert cost(where, Usage(1_000_000, 1_000_000), checked(own), said) == usd


def luna(usage: Usage, **more: Any) -> float:
    """What the list says that *usage* of gpt-6-luna costs."""
    found = cost(at("gpt-6-luna"), usage, {}, None, **more)
    assert found is not None
    return found


def test_the_price_list_knows_prices() -> None:
    """Reading from the cache is cheaper than fresh input, writing to it is dearer, and longer replies cost more."""
    fresh = luna(Usage(10_000, 100))

    assert 0 < luna(Usage(10_000, 100, cached_tokens=9_000)) < fresh
    assert luna(Usage(10_000, 100, cache_write_tokens=9_000)) > fresh  # a quarter more, as all of GPT-6
    assert luna(Usage(10_000, 200)) > fresh
    assert luna(Usage(10_000, 100, cost=7.0)) == 7.0


def test_a_long_request_costs_more_as_a_whole() -> None:
    """One token beyond the step at 272,000 makes all the others dearer, too."""
    below, above = luna(Usage(272_000, 1_000)), luna(Usage(272_001, 1_000))

    # The step has been in OpenAI's list since the model came; it is 2 x input and 1.5 x output.
    assert above / below > 1.5


def test_service_tiers_have_prices() -> None:
    """The tier that the server named goes to the list; one that the list does not know costs the usual."""
    usage = Usage(10_000, 1_000)

    assert luna(usage, service_tier="flex") < luna(usage) < luna(usage, service_tier="priority")
    assert luna(usage, service_tier="default") == luna(usage, service_tier="made-up") == luna(usage)


def test_the_date_matters() -> None:
    """A request costs what it cost when it was sent."""
    usage = Usage(1_000_000, 1_000_000)

    # The past stays as it is: o3 became cheaper on 10 June 2025.
    before = cost(at("o3"), usage, {}, None, when=datetime(2025, 6, 1, tzinfo=UTC))
    after = cost(at("o3"), usage, {}, None, when=datetime(2025, 7, 1, tzinfo=UTC))

    assert before is not None
    assert after is not None
    assert before > after


@pytest.mark.parametrize(
    ("model", "url"),
    [
        pytest.param("openrouter:openai/gpt-4o", None, id="openrouter"),
        pytest.param("gpt-4o", "https://x.openai.azure.com/openai/v1", id="azure"),
        pytest.param("mistral-large-latest", "https://api.mistral.ai/v1", id="mistral"),
    ],
)
def test_the_url_says_whose_prices(model: str, url: str | None) -> None:
    """An endpoint is priced by its address, whatever it is called."""
    found = cost(at(model, url), Usage(1000, 1000), {}, None)

    assert found is not None
    assert found > 0


_COUNTS = st.none() | st.integers(-10, 10**7) | st.integers()
_USAGES = st.builds(Usage, _COUNTS, _COUNTS, _COUNTS, _COUNTS, _COUNTS, st.none() | st.floats())
_PLACES = st.sampled_from([at("gpt-6-luna"), at("ollama:x"), at("x", "https://lab.example"), at("openrouter:x/y")])


@given(_PLACES, _USAGES, st.sampled_from([{}, {"own": PRICES}]), st.sampled_from([None, LISTED]))
def test_a_cost_is_a_sum_of_money(
    where: Target, usage: Usage, own: dict[str, dict[str, float]], said: Listed | None
) -> None:
    """No usage raises, and what comes out can be added up."""
    found = cost(where, usage, own, said)

    assert found is None or (math.isfinite(found) and found >= 0)


def test_the_price_list_is_imported_when_it_is_needed() -> None:
    """Neither the import nor what needs no list loads it."""
    code = (
        "import sys, chatmagic.provider.models as models\n"
        "from chatmagic.conversation.messages import Usage\n"
        "from chatmagic.provider.endpoints import target\n"
        "assert models.cost(target('ollama:x', {}, {}), Usage(1, 1), {}, None) == 0\n"
        "sys.exit('genai_prices' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
