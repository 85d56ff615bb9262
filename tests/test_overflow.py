"""The ways in which servers say that a conversation is too long, and those that only sound so."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatmagic.errors import ContextOverflowError, RequestError
from chatmagic.provider.overflow import is_overflow, numbers
from tests.server import Wire, chunk, sse

Numbers = tuple[int | None, int | None]


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def flat(message: str, **fields: Any) -> dict[str, Any]:
    """How vLLM and SGLang answered before they put everything into an ``error``."""
    return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400, **fields}


def refused(status: int, body: Any) -> RequestError:
    """The error that an answer with *status* becomes; a text is sent as it is."""
    content = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(RequestError) as caught:
        Wire(httpx2.Response(status, content=content)).ask()
    return caught.value


def broken(fields: Any) -> RequestError:
    """The error that ``error`` in the middle of a stream becomes."""
    with pytest.raises(RequestError) as caught:
        Wire(sse(chunk("so"), {"error": fields})).ask()
    return caught.value


OPENAI = {"type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
MAXIMUM = "This model's maximum context length is {} tokens. "
REDUCE = " Please reduce the length of the messages or completion."

SAID: list[Any] = [
    pytest.param(
        400,
        error(MAXIMUM.format(8192) + "However, your messages resulted in 9000 tokens." + REDUCE, **OPENAI),
        (8192, 9000),
        id="OpenAI, Azure",
    ),
    pytest.param(
        400,
        error(
            MAXIMUM.format(8192) + "However, you requested 9000 tokens (8500 in the messages, 500 in the completion).",
            **OPENAI,
        ),
        (8192, 8500),
        id="OpenAI, with the reply",
    ),
    pytest.param(
        400,
        error(
            MAXIMUM.format(4096) + "However, you requested 5000 tokens (1000 in the messages, 4000 in the completion).",
            **OPENAI,
        ),
        (4096, None),
        id="OpenAI, because of the reply",
    ),
    pytest.param(
        400,
        error(
            "This model's maximum context length is 4097 tokens, however you requested 4569 tokens "
            "(4300 in your prompt; 269 for the completion). Please reduce your prompt; or completion length."
        ),
        (4097, 4300),
        id="OpenAI, in 2022",
    ),
    pytest.param(
        400,
        error(
            MAXIMUM.format(128000) + "However, your messages resulted in 202868 tokens (202767 in the messages, "
            "101 in the functions). Please reduce the length of the messages or functions.",
            **OPENAI,
        ),
        (128000, 202767),
        id="OpenAI, functions",
    ),
    pytest.param(
        400,
        error("Your input exceeds the context window of this model. Please adjust your input and try again.", **OPENAI),
        (None, None),
        id="OpenAI, no numbers",
    ),
    pytest.param(
        400,
        error("Your input exceeds the context window of this model. Please adjust your input and try again."),
        (None, None),
        id="OpenAI, no code",
    ),
    pytest.param(
        400,
        error(
            "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in 300,112 tokens."
            " Please reduce the length of the messages.",
            **OPENAI,
        ),
        (272000, 300112),
        id="OpenAI, limit of the input",
    ),
    pytest.param(
        400,
        flat(
            MAXIMUM.format(16384) + "However, you requested 122946 tokens (112946 in the messages, "
            "10000 in the completion)." + REDUCE
        ),
        (16384, 112946),
        id="vLLM, older",
    ),
    pytest.param(
        400,
        flat(
            MAXIMUM.format(200) + "However, your request has 203 input tokens. "
            "Please reduce the length of the input messages. None"
        ),
        (200, 203),
        id="vLLM 0.10",
    ),
    pytest.param(
        400,
        error(
            "'max_tokens' or 'max_completion_tokens' is too large: 8000. This model's maximum context length is "
            "4096 tokens and your request has 2778 input tokens (8000 > 4096 - 2778). None",
            type="BadRequestError",
        ),
        (4096, None),
        id="vLLM, because of the reply",
    ),
    pytest.param(
        400,
        error(
            "You passed 8193 input tokens and requested 0 output tokens. However, the model's context length is only "
            "8192 tokens, resulting in a maximum input length of 8192 tokens. "
            "Please reduce the length of the input prompt. (parameter=input_tokens, value=8193)"
        ),
        (8192, None),
        id="vLLM 0.15, which counts no further",
    ),
    pytest.param(
        400,
        error(
            "You passed 900000 input characters and requested 100 output tokens. However, the model's context length "
            "is only 8192 tokens, resulting in a maximum input length of 8092 tokens (at most 500000 characters)."
        ),
        (8192, None),
        id="vLLM 0.15, characters",
    ),
    pytest.param(
        400,
        error(
            MAXIMUM.format(262144) + "However, you requested 0 output tokens and your prompt contains at least 262145 "
            "input tokens, for a total of at least 262145 tokens. Please reduce the length of the input prompt or the "
            "number of requested output tokens. (parameter=input_tokens, value=262145)"
        ),
        (262144, None),
        id="vLLM 0.20, at least",
    ),
    pytest.param(
        500,
        {
            "detail": "[address=0.0.0.0:43769, pid=1065] The decoder prompt (length 66501) is longer than the maximum "
            "model length of 65536. Make sure that `max_model_len` is no smaller than the number of text tokens."
        },
        (65536, 66501),
        id="vLLM's engine, Xinference",
    ),
    pytest.param(
        400,
        flat("Prompt length of 5016 is longer than the maximum model length of 4096."),
        (4096, 5016),
        id="vLLM's engine, 0.8",
    ),
    pytest.param(
        400,
        flat("The input (61709 tokens) is longer than the model's context length (40960 tokens)."),
        (40960, 61709),
        id="SGLang",
    ),
    pytest.param(
        400,
        flat(
            "Requested token count exceeds the model's maximum context length of 64000 tokens. You requested a total "
            "of 131897 tokens: 67897 tokens from the input messages and 64000 tokens for the completion."
        ),
        (64000, 67897),
        id="SGLang, with the reply",
    ),
    pytest.param(
        400,
        error("Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens)."),
        (59862, 160062),
        id="SGLang, small cache",
    ),
    pytest.param(
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
            "Given: 5000 `inputs` tokens and 20 `max_new_tokens`",
            "error_type": "validation",
        },
        (4096, 5000),
        id="TGI",
    ),
    pytest.param(
        422,
        {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1872"},
        (1024, 1872),
        id="TGI, limit of the input",
    ),
    pytest.param(
        400,
        error(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. "
            "Given: 80125 `inputs` tokens and 4096 `max_new_tokens`",
            type="invalid_request_error",
            param="max_tokens",
        ),
        (4097, 80125),
        id="Together",
    ),
    pytest.param(
        400,
        error(
            "request (14429 tokens) exceeds the available context size (8192 tokens), try increasing it",
            code=400,
            type="exceed_context_size_error",
            n_prompt_tokens=14429,
            n_ctx=8192,
        ),
        (8192, 14429),
        id="llama.cpp, Ollama 0.32",
    ),
    pytest.param(
        500,
        error(
            "the request exceeds the available context size. try increasing the context size or enable context shift",
            code=500,
            type="exceed_context_size_error",
            n_prompt_tokens=1407,
            n_ctx=256,
        ),
        (256, 1407),
        id="llama.cpp, 2025",
    ),
    pytest.param(
        400,
        {"error": "request (20001 tokens) exceeds the available context size (8192 tokens), try increasing it"},
        (8192, 20001),
        id="llama.cpp, the sentence alone",
    ),
    pytest.param(500, error("Context size has been exceeded."), (None, None), id="llama.cpp, while it replies"),
    pytest.param(
        400,
        error(
            "This model's maximum context length is 2048 tokens. However, you requested 2285 tokens "
            "(2285 in the messages, 0 in the completion)."
        ),
        (2048, 2285),
        id="llama-cpp-python's server",
    ),
    pytest.param(
        500, error("Requested tokens (2285) exceed context window of 2048"), (2048, 2285), id="llama-cpp-python"
    ),
    pytest.param(
        400,
        error(
            "litellm.ContextWindowExceededError: litellm.BadRequestError: AnthropicException - "
            'b\'{"type":"error","error":{"type":"invalid_request_error",'
            '"message":"prompt is too long: 213462 tokens > 200000 maximum"}}\''
        ),
        (200000, 213462),
        id="LiteLLM",
    ),
    pytest.param(
        400,
        error(
            'litellm.BadRequestError: OpenrouterException - {"error":{"message":"This endpoint\'s maximum context '
            "length is 16384 tokens. However, you requested about 94307 tokens (94307 of text input). Please "
            'reduce the length of either one, or use the \\"middle-out\\" transform.","code":400}}'
        ),
        (16384, 94307),
        id="LiteLLM, another's error as JSON",
    ),
    pytest.param(
        400,
        error(
            "litellm.BadRequestError: OpenAIException - {'error': {'message': \"This model's maximum context length is "
            '8192 tokens. However, your messages resulted in 9001 tokens."}}'
        ),
        (8192, 9001),
        id="LiteLLM, another's error as Python",
    ),
    pytest.param(
        400,
        error(
            '{"error":{"code":400,"message":"the request is too much","type":"exceed_context_size_error",'
            '"n_prompt_tokens":14429,"n_ctx":8192}}'
        ),
        (8192, 14429),
        id="llama.cpp's error in another's",
    ),
    pytest.param(
        400,
        {"error": {"message": "prompt too long; exceeded max context length by 100918 tokens"}},
        (None, None),
        id="Ollama's cloud",
    ),
    pytest.param(400, error("input length exceeds the context length"), (None, None), id="Ollama"),
    pytest.param(
        400,
        {
            "error": "Trying to keep the first 10136 tokens when context the overflows. However, the model is loaded "
            "with context length of only 7866 tokens, which is not enough. Try to load the model with a larger context "
            "length, or provide a shorter input."
        },
        (7866, 10136),
        id="LM Studio",
    ),
    pytest.param(
        400,
        {
            "error": "The number of tokens to keep from the initial prompt is greater than the context length "
            "(n_keep: 10247 >= n_ctx: 4096). Try to load the model with a larger context length."
        },
        (4096, 10247),
        id="LM Studio 0.4",
    ),
    pytest.param(
        400,
        {
            "error": "Reached context length of 4096 tokens with model (arch: qwen3vlmoe) that does not currently "
            "support mid-generation context overflow."
        },
        (4096, None),
        id="LM Studio, while it replies",
    ),
    pytest.param(
        400,
        error(
            "This endpoint's maximum context length is 131072 tokens. However, you requested about 141607 tokens "
            "(134000 of text input, 7607 in the output). Please reduce the length of either one, or use the "
            '"middle-out" transform to compress your prompt automatically.',
            code=400,
        ),
        (131072, 134000),
        id="OpenRouter",
    ),
    pytest.param(
        400,
        error(
            "Provider returned error",
            code=400,
            metadata={
                "raw": '{"error":{"message":"Input length 131393 exceeds the maximum allowed input length of 131040 '
                'tokens."}}',
                "provider_name": "Poolside",
            },
        ),
        (131040, 131393),
        id="OpenRouter, its provider",
    ),
    pytest.param(400, error("prompt is too long: 205106 tokens > 200000 maximum"), (200000, 205106), id="Anthropic"),
    pytest.param(
        400,
        error(
            "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease input length or "
            "`max_tokens` and try again"
        ),
        (200000, None),
        id="Anthropic, because of the reply",
    ),
    pytest.param(
        400,
        error("input length and `max_tokens` exceed context limit: 210000 + 8192 > 200000, decrease input length"),
        (200000, 210000),
        id="Anthropic, with the reply",
    ),
    pytest.param(
        400,
        error("litellm.ContextWindowExceededError: litellm.BadRequestError: XException - no more"),
        (None, None),
        id="LiteLLM, only its own word",
    ),
    pytest.param(400, error("Input is too long for requested model."), (None, None), id="Bedrock"),
    pytest.param(
        400,
        [error("The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).", code=400)],
        (1048576, 1200293),
        id="Gemini",
    ),
    pytest.param(
        400,
        {
            "object": "error",
            "message": "Prompt contains 65673 tokens and 0 draft tokens, too large for model with 32768 maximum "
            "context length",
            "type": "invalid_request_prompt",
            "code": "3051",
        },
        (32768, 65673),
        id="Mistral",
    ),
    pytest.param(400, error(REDUCE.strip(), **OPENAI), (None, None), id="Groq"),
    pytest.param(400, error(REDUCE.strip()), (None, None), id="Groq, no code"),
    pytest.param(
        400,
        error(REDUCE.strip() + " Current length is 42328 while limit is 40000", **OPENAI),
        (40000, 42328),
        id="Cerebras",
    ),
    pytest.param(
        400,
        error("The prompt is too long: 40177, model maximum context length: 32767", code="invalid_request_error"),
        (32767, 40177),
        id="Fireworks",
    ),
    pytest.param(
        400,
        error(
            MAXIMUM.format(131072) + "However, you requested 131749 tokens (131749 in the messages, "
            "0 in the completion)." + REDUCE,
            code="invalid_request_error",
        ),
        (131072, 131749),
        id="DeepSeek",
    ),
    pytest.param(
        400,
        {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 6354."},
        (4081, 6354),
        id="Cohere",
    ),
    pytest.param(
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 136973 tokens.",
        },
        (131072, 136973),
        id="xAI",
    ),
    pytest.param(
        400,
        '"This model\'s maximum prompt length is 131072 but the request contains 136973 tokens."',
        (131072, 136973),
        id="xAI, a text",
    ),
    pytest.param(400, error("Prompt length 71599 is greater than max_seq_len 65536"), (65536, 71599), id="TabbyAPI"),
    pytest.param(
        500, error("Request length 71599 + 2048 is greater than max_seq_len 65536"), (65536, 71599), id="ExLlamaV2"
    ),
    pytest.param(
        400,
        error("Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)"),
        (262144, 269030),
        id="Moonshot",
    ),
    pytest.param(400, error("model max length exceeded, max length:8192"), (8192, None), id="Moonshot, 2024"),
    pytest.param(
        400,
        error("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 98304]"),
        (98304, None),
        id="DashScope",
    ),
    pytest.param(400, error("Prompt exceeds max length", code="1261"), (None, None), id="Z.ai"),
    pytest.param(
        400, error("prompt token count of 93854 exceeds the limit of 90000"), (90000, 93854), id="GitHub Copilot"
    ),
    pytest.param(
        400,
        error("Input length (265330) exceeds model's maximum context length (262144)."),
        (262144, 265330),
        id="numbers in brackets",
    ),
    pytest.param(
        400,
        error("Prompt has 2000 tokens, but the configured context size is 1,000 tokens"),
        (1000, 2000),
        id="DwarfStar",
    ),
    pytest.param(
        413,
        error("maximum context length is 131,072 tokens, your request has 1.200.293 tokens"),
        (131072, 1200293),
        id="thousands",
    ),
    pytest.param(400, error("maximum context length is 128k tokens"), (None, None), id="a rounded number"),
]


@pytest.mark.parametrize(("status", "body", "expected"), SAID)
def test_an_overflow_is_known_with_its_numbers(status: int, body: Any, expected: Numbers) -> None:
    """Every server's way of saying that the conversation is too long is understood, and what numbers it tells."""
    exc = refused(status, body)

    assert isinstance(exc, ContextOverflowError)
    assert (exc.window, exc.size) == expected
    assert not exc.retryable
    assert exc.status == status


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(body, expected, id=each.id)
        for each in SAID
        for _, body, expected in [each.values]
        if isinstance(body, dict) and "error" in body
    ],
)
def test_an_overflow_may_come_in_a_stream(body: Any, expected: Numbers) -> None:
    """The same words in the middle of a stream are understood as well."""
    exc = broken(body["error"])

    assert isinstance(exc, ContextOverflowError)
    assert (exc.window, exc.size) == expected
    assert not exc.retryable


TPM = (
    "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 40000. "
    "The input or output tokens must be reduced in order to run successfully."
)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(429, error(TPM, type="tokens", code="rate_limit_exceeded"), id="OpenAI, tokens per minute"),
        pytest.param(
            429,
            error("Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 1, Requested 40000."),
            id="OpenAI, rate limit",
        ),
        pytest.param(
            413,
            error(
                "Request too large for model `llama-3.3-70b-versatile` in organization `org_x` service tier "
                "`on_demand` on tokens per minute (TPM): Limit 12000, Requested 14137, please reduce your message "
                "size and try again.",
                type="tokens",
                code="rate_limit_exceeded",
            ),
            id="Groq, tokens per minute",
        ),
        pytest.param(
            503, error("Rate limit: your context length exceeds the quota"), id="a rate limit, another status"
        ),
        pytest.param(
            400,
            error(
                "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, "
                "whereas you provided 100000.",
                param="max_tokens",
            ),
            id="OpenAI, reply",
        ),
        pytest.param(
            400,
            error(
                "`max_tokens` must be less than or equal to `16384`, the maximum value for `max_tokens` is less than "
                "the `context_window` for this model"
            ),
            id="Groq, reply",
        ),
        pytest.param(
            400,
            error("max_tokens: 300000 > 8192, which is the maximum allowed number of output tokens for claude-3"),
            id="Anthropic, reply",
        ),
        pytest.param(400, error("max_tokens (9000) exceeds the context window"), id="reply alone"),
        pytest.param(
            400,
            error("The maximum tokens you requested exceeds the model limit of 2048."),
            id="Bedrock, reply",
        ),
        pytest.param(400, error("Range of max_tokens should be [1, 8192]"), id="DashScope, reply"),
        pytest.param(
            400,
            error("integer above maximum value, expected a value <= 12288, but got 32000", param="max_tokens"),
            id="Doubao, reply",
        ),
        pytest.param(
            400,
            error(
                "Invalid 'messages[0].content': string too long. Expected a string with maximum length 10485760, "
                "but got a string with length 20000000 instead.",
                code="string_above_max_length",
            ),
            id="OpenAI, characters",
        ),
        pytest.param(413, "<h1>413 Request Entity Too Large</h1><hr>nginx", id="a proxy"),
        pytest.param(
            400,
            error("Invalid value: 'why is my prompt too long, and exceeds the context window?'. Supported: 'text'"),
            id="the user's words",
        ),
        pytest.param(
            422,
            {
                "detail": [
                    {
                        "loc": ["body", "messages", 0],
                        "msg": "Input should be a valid list",
                        "input": "the maximum context length is 5 tokens",
                    }
                ]
            },
            id="the user's words, FastAPI",
        ),
        pytest.param(
            400,
            error('1 validation error [type=x, input_value="maximum context length is 5 tokens", input_type=str]'),
            id="the user's words, pydantic",
        ),
        pytest.param(400, error("Your input image exceeds the limit of 20 MB"), id="an image"),
        pytest.param(400, error("Unsupported parameter: 'context_length'"), id="a parameter"),
        pytest.param(401, error("no", code="context_length_exceeded"), id="a wrong key"),
        pytest.param(404, error("no model with a larger context length"), id="no such model"),
    ],
)
def test_what_only_sounds_so_is_no_overflow(status: int, body: Any) -> None:
    """A limit of the rate or of the reply, or words of the user's that come back, are not taken for an overflow."""
    assert not isinstance(refused(status, body), ContextOverflowError)


def test_a_rate_limit_in_a_stream_is_no_overflow() -> None:
    """Tokens per minute are no context window there either, and may be waited for."""
    exc = broken({"message": TPM, "code": "rate_limit_exceeded"})

    assert not isinstance(exc, ContextOverflowError)
    assert exc.retryable


def test_an_empty_stream_is_no_overflow() -> None:
    """llama-cpp-python ends so when a prompt is too long; nobody can know that from here."""
    assert Wire(sse(chunk(role="assistant"), "[DONE]")).ask()


def test_an_overflow_says_what_to_do() -> None:
    """The three ways out stand in the message, also when the error came in a stream."""
    for exc in (refused(400, error("no", **OPENAI)), broken({"message": "no", **OPENAI})):
        assert all(word in str(exc) for word in ("--context budget", "max_tokens", "%chat new"))


def test_what_the_provider_of_openrouter_said_is_shown() -> None:
    """OpenRouter's own sentence says nothing."""
    exc = refused(400, error("Provider returned error", metadata={"raw": "the model is cold"}))

    assert "Provider returned error: the model is cold" in str(exc)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"n_ctx": 8, "n_prompt_tokens": 9}, (8, 9), id="good"),
        pytest.param({"n_ctx": 8, "n_prompt_tokens": 8}, (8, None), id="it would fit"),
        pytest.param({"n_ctx": True, "n_prompt_tokens": 9}, (None, 9), id="bool"),
        pytest.param({"n_ctx": 0, "n_prompt_tokens": -9}, (None, None), id="not positive"),
        pytest.param({"n_ctx": 10**9, "n_prompt_tokens": 10**400}, (None, None), id="absurd"),
        pytest.param({"n_ctx": "8", "n_prompt_tokens": 9.5}, (None, None), id="no integers"),
        pytest.param({"n_ctx": None, "n_prompt_tokens": [9]}, (None, None), id="junk"),
    ],
)
def test_a_number_that_cannot_be_one_is_none(fields: dict[str, Any], expected: Numbers) -> None:
    """What a server says about tokens is believed only where it can be true."""
    exc = refused(400, error("too long", type="exceed_context_size_error", **fields))

    assert isinstance(exc, ContextOverflowError)
    assert (exc.window, exc.size) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["error", "n_ctx", "n_prompt_tokens", "message"]), inner, max_size=4)
    ),
    max_leaves=12,
)
PIECES = [
    *("maximum context length", "is", "of", "context window", "exceeds", "prompt", "too long", "tokens", "n_ctx:"),
    *("requested", "message:", "[1,", "limit", "input", "(", ")", "'", '"', "`", ">", "<"),
    *("5", "99999999999999", "8192", "8,192", "٣٤", "1k"),
]
WORDS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=30).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(kind=WORDS, said=WORDS, body=JSON)
@example(kind="", said="maximum context length is ٣٤ tokens", body={"n_ctx": float("nan")})
def test_any_error_gives_sane_numbers(kind: str, said: str, body: Any) -> None:
    """Whatever a server says, nothing is raised, and a number is one that can be."""
    is_overflow(kind, said)
    window, size = numbers(body, said)

    assert all(each is None or 1 <= each < 10**9 for each in (window, size))
    assert size is None or window is None or size > window


@pytest.mark.parametrize(
    "said",
    [
        "'a " * 200_000,
        "prompt " * 100_000,
        "maximum context " * 50_000,
        "1," * 300_000,
        "max a b c " * 60_000,
        " " * 600_000,
        "exceed " * 100_000,
        "9" * 600_000,
    ],
    ids=lambda said: said[:10],
)
def test_a_long_error_is_read_in_no_time(said: str) -> None:
    """An error of many characters does not keep the cell."""
    started = time.process_time()
    is_overflow("", said)
    numbers({}, said)

    assert time.process_time() - started < 1
