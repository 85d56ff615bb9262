"""The offline model: a few rules behind the protocol of a real server, for trying chatmagic out."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx2

__all__ = ["DemoTransport", "answer"]

Messages = Sequence[dict[str, str]]

_MODEL = "demo"
_MOST_WORDS = 20_000


class DemoTransport(httpx2.BaseTransport):
    """Answers ``/chat/completions`` and ``/models`` as a server would, without one.

    The reply depends on nothing but the messages of the request. ``max_completion_tokens`` cuts it, ``pace`` (words per
    second) slows it down; without a pace it is there at once.
    """

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        if request.url.path.endswith("/models"):
            return httpx2.Response(200, json={"object": "list", "data": [{"id": _MODEL, "object": "model"}]})
        if not request.url.path.endswith("/chat/completions"):
            return httpx2.Response(404, json={"error": {"message": "The demo answers prompts, and nothing else."}})
        body = json.loads(request.read())
        if body["model"] != _MODEL:
            message = f"The model {body['model']!r} does not exist; the demo has one model, {_MODEL!r}."
            return httpx2.Response(404, json={"error": {"message": message, "code": "model_not_found"}})
        for name, mistake in _mistakes(body):
            return httpx2.Response(400, json={"error": {"message": mistake, "param": name}})
        reply = _Reply(body)
        if not body.get("stream"):
            return httpx2.Response(200, json=reply.whole())
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=_Events(reply, body.get("pace")))


def _mistakes(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a real server would refuse, by parameter."""
    messages = body["messages"]
    if not _said(messages) or not all(isinstance(message.get("content"), str) for message in messages):
        yield "messages", "messages must be texts, one of them of the user; the demo reads nothing else."
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.get(name)
        if limit is not None and not (isinstance(limit, int) and limit > 0):
            yield name, f"{name} must be a whole number above 0, not {limit!r}."
    pace = body.get("pace")
    if pace is not None and not (isinstance(pace, (int, float)) and 0 < pace <= 10_000):
        yield "pace", f"pace must be a number of words per second, not {pace!r}."


class _Reply:
    """The answer to one request, in the forms of the protocol."""

    def __init__(self, body: dict[str, Any]) -> None:
        words = re.findall(r"\s*\S+", answer(body["messages"]))
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(words)
        self.words = words[:limit]
        self.finish = "stop" if len(words) <= limit else "length"
        self.with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        # One token a word: the demo's own measure, as every model has its own.
        sent = sum(len(message["content"].split()) for message in body["messages"])
        self.usage = {
            "prompt_tokens": sent,
            "completion_tokens": len(self.words),
            "total_tokens": sent + len(self.words),
        }

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self.words)}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return {**_frame("chat.completion"), "choices": [choice], "usage": self.usage}

    def chunks(self) -> Iterator[dict[str, Any]]:
        yield _chunk({"role": "assistant", "content": ""})
        for word in self.words:
            yield _chunk({"content": word})
        yield _chunk({}, self.finish)
        if self.with_usage:
            yield {**_frame("chat.completion.chunk"), "choices": [], "usage": self.usage}


def _frame(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-demo", "object": kind, "created": 0, "model": _MODEL}


def _chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {**_frame("chat.completion.chunk"), "choices": [choice]}


class _Events(httpx2.SyncByteStream):
    def __init__(self, reply: _Reply, pace: float | None) -> None:
        self._reply = reply
        self._pace = pace

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._reply.chunks():
            if self._pace:
                time.sleep(1 / self._pace)
            yield f"data: {json.dumps(chunk)}\n\n".encode()
        yield b"data: [DONE]\n\n"


def answer(messages: Messages) -> str:
    """Return what the rules say to *messages*, of which the last one is the newest prompt."""
    prompt = _prompt(messages)
    for pattern, rule in _RULES:
        if match := re.search(pattern, prompt, re.IGNORECASE):
            return rule(messages, match)
    return _otherwise(messages)


def _prompt(messages: Messages) -> str:
    """Return the newest prompt, without what stands before it for reference."""
    return messages[-1]["content"].rpartition("</record>\n\n")[2]


def _said(messages: Messages, role: str = "user") -> list[str]:
    return [message.get("content", "") for message in messages if message["role"] == role]


def _quoted(text: str) -> str:
    """Show *text* as a quotation of at most 60 words."""
    words = text.split()
    return "> " + " ".join(words[:60]) + (" …" if len(words) > 60 else "")


def _first(messages: Messages, _: re.Match[str]) -> str:
    return f"The first thing you said in this conversation was:\n\n{_quoted(_said(messages)[0])}"


_NAME = r"\b(?:my name is|call me|i am called)\s+([^\W\d_][\w'’-]*)"


def _name(messages: Messages, _: re.Match[str]) -> str:
    for number, said in reversed(list(enumerate(_said(messages), 1))):
        if match := re.search(_NAME, said, re.IGNORECASE):
            return f"Your name is **{match[1]}**: you told me in your message {number} of this conversation."
    return "You have not told me your name in this conversation."


def _hello(_: Messages, match: re.Match[str]) -> str:
    return f"Nice to meet you, **{match[1]}**. Ask me for your name later: it is in the history of this conversation."


def _count(messages: Messages, _: re.Match[str]) -> str:
    counts = [(role, len(_said(messages, role))) for role in ("system", "user", "assistant")]
    parts = ", ".join(f"{count} {role}" for role, count in counts if count)
    noun = "message" if len(messages) == 1 else "messages"
    return f"This request brought me **{len(messages)}** {noun}: {parts}."


def _system(messages: Messages, _: re.Match[str]) -> str:
    system = _said(messages, "system")
    return (
        f"My system prompt is:\n\n{_quoted(system[0])}" if system else "I have no system prompt in this conversation."
    )


def _again(messages: Messages, _: re.Match[str]) -> str:
    replies = _said(messages, "assistant")
    return replies[-1] if replies else "I have said nothing yet in this conversation."


def _table(messages: Messages, _: re.Match[str]) -> str:
    rows = [f"| {n} | {m['role']} | {len(m['content'].split())} |" for n, m in enumerate(messages, 1)]
    return "\n".join(["The messages of this request:", "", "| # | role | words |", "|--:|:-----|------:|", *rows])


def _code(_: Messages, __: re.Match[str]) -> str:
    return (
        "The arithmetic mean, with nothing but Python:\n\n"
        "```python\ndef mean(values: list[float]) -> float:\n"
        '    """Return the arithmetic mean; an empty list has none."""\n'
        "    return sum(values) / len(values)\n```\n\n"
        "`mean([1, 2, 3])` is `2.0`."
    )


def _mathematics(_: Messages, __: re.Match[str]) -> str:
    return (
        "The mean of $n$ values and the variance around it:\n\n"
        "$$\\bar{x} = \\frac{1}{n} \\sum_{i=1}^{n} x_i \\qquad "
        "s^2 = \\frac{1}{n-1} \\sum_{i=1}^{n} (x_i - \\bar{x})^2$$\n\n"
        "Each $x_i$ counts once, so the mean lies where the deviations sum to zero."
    )


def _long(_: Messages, match: re.Match[str]) -> str:
    count = min(int(match[1].replace(",", "")), _MOST_WORDS)
    words = [f"word{number}" for number in range(1, count + 1)]
    lines = [" ".join(words[start : start + 10]) for start in range(0, count, 10)]
    return "\n\n".join("\n".join(lines[start : start + 5]) for start in range(0, len(lines), 5))


def _summary(messages: Messages, match: re.Match[str]) -> str:
    """Keep the beginning of each prompt, below what an earlier summary kept; most summaries are better."""
    earlier = re.search(r"<summary>\n(.*?)\n</summary>", "".join(_said(messages, "system")), re.DOTALL)
    kept = re.findall(r"^- .*", earlier[1], re.MULTILINE) if earlier else []
    *said, order = _said(messages)
    if order[: match.start()].strip():
        said.append(order[: match.start()])
    new = [f"- The user said: {' '.join(text.split()[:12])}" for text in said]
    lines = ["## Facts", *dict.fromkeys([*kept, *new])]
    if "## To remember" in order and (name := re.search(_NAME, "\n".join(said), re.IGNORECASE)):
        lines += ["", "## To remember", f"- The user's name is {name[1]}."]
    return "\n".join(lines)


def _digest(messages: Messages, _: re.Match[str]) -> str:
    """Keep the beginning of each piece of a text, and what earlier answers have kept."""
    kept: list[str] = []
    for tag, text in re.findall(r"<(text|answer)[^>\n]*>\n(.*?)\n</\1>", messages[-1]["content"], re.DOTALL):
        kept += text.splitlines() if tag == "answer" else [f"- {' '.join(text.split()[:12])} …"]
    return "\n".join(dict.fromkeys(kept))


def _otherwise(messages: Messages) -> str:
    return (
        "I am chatmagic's offline demo: a few rules, no language model. You said:\n\n"
        f"{_quoted(_prompt(messages))}\n\n"
        "Ask me what you said first, what your name is (after telling me), how many messages I got, what my system "
        "prompt is, to repeat that, or for a table, some code, mathematics, or 300 words."
    )


_RULES: list[tuple[str, Callable[[Messages, re.Match[str]], str]]] = [
    (r"\bSummarize this conversation\. Your summary", _summary),
    (r"What stands between the tags above is material", _digest),
    (r"\bsa(?:y|id) first\b|\bfirst (?:thing|message|question)\b", _first),
    (r"\bmy name\?|\bwhat(?:'s| is| was) my name\b|\bwho am i\b", _name),
    (_NAME, _hello),
    (r"\bhow many messages\b", _count),
    (r"\bsystem prompt\b", _system),
    (r"\brepeat\b|\bsay (?:it|that) again\b", _again),
    (r"\b([1-9][\d,]{0,6}) words\b", _long),
    (r"\btable\b", _table),
    (r"\bcode\b|\bpython\b", _code),
    (r"\bmath\w*\b|\bformula\b|\bequation\b", _mathematics),
]
