"""The ways in which servers say that a conversation is too long for their model -> the two numbers in them."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["is_overflow", "numbers"]

_MOST = 8000  # characters of an error that are looked at: a page may be long

_CODES = re.compile(r"context_length_exceeded|exceed_context_size_error|model_context_window_exceeded")

# What speaks of tokens, but of another limit: so many a minute, or of the reply alone.
_OTHER = re.compile(
    r"rate.?limit|tokens? per (?:min|minute|hour|day)\b|\bTP[MD]\b|quota|throttl"
    r"|(?<!and )(?<!and [`'\"])\bmax_(?:completion_|output_|new_)?tokens\b[`'\"]?(?: \([0-9]+\))?"
    r" (?:exceed|must be less)",
    re.IGNORECASE,
)

_WORDINGS = re.compile(
    r"""
    ContextWindowExceeded
    | exceed(?:s|ed|ing)?\b .{0,60} context[ _]?(?:length|window|size|limit)
    | context[ _](?:length|window|size|limit)\b .{0,40} exceed
    | max(?:imum)?(?:[ ]\w+){0,3}?[ ](?:context|prompt|model|input)(?:[ ]\w+)?[ ](?:length|window|size)\b
    | (?:prompt|input|request)\b .{0,80} (?:longer|greater)[ ]than .{0,40} (?:length|window|context|max_seq_len)
    | (?:prompt|input|context)(?:[ ]length)?(?:[ ](?:is|are|was))?[ ]too[ ]long
    | (?:prompt|input)[ ](?:tokens?|length)\b .{0,30} \bexceed | prompt[ ]exceeds[ ]max
    | too[ ]many[ ]tokens: .{0,80} cannot[ ]exceed
    | reduce[ ]the[ ]length[ ]of[ ]the[ ](?:input|messages|prompt)
    | `inputs`[ ](?:tokens[ ]\+|must[ ]have[ ]less)
    | exceeded[ ]model[ ]token[ ]limit | model[ ]max[ ]length[ ]exceeded
    | range[ ]of[ ]input[ ]length[ ]should
    | configured[ ]context[ ]size
    | context[ ](?:the[ ])?overflows?\b
    """,
    re.IGNORECASE | re.VERBOSE,
)

# Digits, with separators of thousands or without; "128k" and "4.5" are no number of tokens.
_N = r"(?P<n>[0-9]{1,3}(?:[,._'\u00a0\u202f][0-9]{3})+|[0-9]{1,12})(?![0-9kKmM]|[.,][0-9])"


def _table(*patterns: str) -> list[re.Pattern[str]]:
    return [re.compile(pattern.replace("N", _N), re.IGNORECASE) for pattern in patterns]


_WINDOW = _table(
    r"""\bn_ctx\\?["']?\s*[:=]\s*N""",  # llama.cpp, quoted by others; LM Studio
    r"(?:context|max(?:imum)?(?: \w+){1,3}?) (?:length|window|size)(?: limit)?(?: is| of)?(?: only)?\s*[:(=]?\s*N",
    r"\bmax length:\s*N",  # Moonshot
    r"\bN maximum\b",  # Mistral, Anthropic
    r"number of tokens allowed \(?N",  # Gemini
    r"must be <= N",  # TGI, Together
    r"must have less than N tokens",  # TGI
    r"\bmax_seq_len N",  # TabbyAPI
    r"(?:token limit:|limit (?:is|of)|cannot exceed) N",  # Moonshot; Cerebras, Copilot; Cohere
    r"context limit: .{0,40}> N",  # Anthropic
    r"input length should be \[[0-9]+, N\]",  # DashScope
)

_SIZE = _table(
    r"""\bn_prompt_tokens\\?["']?\s*[:=]\s*N""",
    r"\bn_keep:\s*N",  # LM Studio
    r"\(N (?:in the messages|in your prompt|of text input)",  # OpenAI, vLLM, DeepSeek; OpenRouter
    r"\bN tokens from the input messages",  # SGLang
    r"resulted in N tokens",
    # A count of "at least" so many is none: vLLM stops where the prompt is too long, so "you passed" is one less too.
    r"(?:has|contains) N (?:input )?tokens",  # vLLM; Mistral, xAI
    r"too long: N\b",  # Anthropic, Fireworks
    r"context limit: N \+",  # Anthropic
    r"token count (?:of |is )?\(?N",  # Gemini, Copilot
    r"(?:input|prompt|request) \(N tokens",  # SGLang, llama.cpp
    r"(?<!imum )(?<!allowed )\b(?:prompt|input|request) \(?length(?: of)? \(?N",  # vLLM, SGLang, TabbyAPI
    r"keep the first N tokens",  # LM Studio
    r"Given: N",  # TGI
    r"length is N while",  # Cerebras
    r"received N\b",  # Cohere
    r"requested(?: about| tokens)?:? \(?N(?: tokens|\))",  # OpenAI; llama-cpp-python, Moonshot
)


def is_overflow(kind: str, said: str) -> bool:
    """True if an error's *kind* (its code and type), or what it *said*, is that the conversation is too long."""
    if _CODES.search(kind):
        return True
    said = _own_words(said)
    return not _OTHER.search(f"{kind} {said}") and bool(_CODES.search(said) or _WORDINGS.search(said))


def numbers(body: object, said: str) -> tuple[int | None, int | None]:
    """Return the context window and the size of the request (tokens), as far as an error tells them.

    Its JSON *body* is believed before its sentence, and a request that would fit is not believed.
    """
    said = _own_words(said)
    window = _field(body, "n_ctx") or _found(_WINDOW, said)
    size = _field(body, "n_prompt_tokens") or _found(_SIZE, said)
    return window, size if size and size > (window or 0) else None


# What stands between quotation marks was quoted from the request, but for a message within a message.
_QUOTED = re.compile(r"""(?<![\w\\])(["'`])(?=[^"'`]{0,400}\s)(?:(?!\1).){0,400}\1(?!\w)""")
_MESSAGE = re.compile(r"""(?:message|msg|detail|error|raw)\\?["']?\s*[:=]\s*$""", re.IGNORECASE)


def _own_words(said: str) -> str:
    def kept(match: re.Match[str]) -> str:
        is_all = match[0] == said.strip()
        return match[0] if is_all or _MESSAGE.search(said[: match.start()][-20:]) else " "

    said = re.sub("[ \t\r\n]+", " ", said[:_MOST])
    return _QUOTED.sub(kept, said)


def _field(body: object, name: str, depth: int = 4) -> int | None:
    if depth and isinstance(body, list):
        return next(filter(None, (_field(each, name, depth - 1) for each in body[:3])), None)
    if not depth or not isinstance(body, dict):
        return None
    value: Any = body.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return _sane(value)
    return _field(body.get("error"), name, depth - 1)


def _found(table: list[re.Pattern[str]], said: str) -> int | None:
    match = next(filter(None, (pattern.search(said) for pattern in table)), None)
    return _sane(int(re.sub(r"[^0-9]", "", match["n"]))) if match else None


def _sane(count: int) -> int | None:
    return count if 1 <= count < 10**9 else None
