"""The client: what leaves, what comes, and what becomes of the connection."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import traceback
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.conversation.messages import Message, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.engine import run_turn
from chatmagic.errors import EndpointError, InterruptedTurnError, RequestError, UnreachableError
from chatmagic.events import Delta, Event, Finished, Reasoning, Remark, Request, Sending, Used
from chatmagic.provider.client import OpenAIClient
from chatmagic.testing import SpyRenderer
from tests.server import CUT, HANG_UP, KEY, Answer, ChatServer, Wire, asking, chunk, said, sse, text_answer

STOP = sse(chunk(finish="stop"), "[DONE]")


def local(server: ChatServer, **how: Any) -> OpenAIClient:
    """A client that knows *server* as the endpoint ``here``."""
    return OpenAIClient({"here": {"url": server.url}}, environ={}, **how)


def ask(client: OpenAIClient, *said: str, model: str = "here:m", **how: Any) -> list[Event]:
    return list(client.stream(asking(*said, model=model, **how)))


def taken(events: Iterator[Event]) -> tuple[list[Event], BaseException | None]:
    """What came, and what ended it."""
    came: list[Event] = []
    try:
        came.extend(events)
    except Exception as exc:
        return came, exc
    return came, None


# Text


ODD = '\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r\n\t\x00\x7f😀👩‍🚀🇩🇪é\ufeff\ufffd\U0010ffff"\\{}[]:'
TEXT = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]), max_size=40)
CUTS = st.lists(st.integers(0, 4000), max_size=30)


def pieces(whole: bytes, cuts: list[int], unit: int = 1) -> list[bytes]:
    """Cut *whole* at *cuts*, which count units of so many bytes."""
    at = sorted({0, len(whole), *(unit * (cut % (len(whole) // unit + 1)) for cut in cuts)})
    return [whole[start:end] for start, end in pairwise(at)]


def deltas(text: str, cuts: list[int]) -> list[str]:
    """Cut *text* as JavaScript does, between any two UTF-16 code units."""
    units = pieces(text.encode("utf-16-le", "surrogatepass"), cuts, unit=2)
    return [each.decode("utf-16-le", "surrogatepass") for each in units]


@settings(max_examples=200, deadline=None)
@given(
    text=TEXT,
    in_deltas=CUTS,
    in_bytes=CUTS,
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    escaped=st.booleans(),
    indent=st.sampled_from([None, 0]),
    field=st.sampled_from(["content", "refusal"]),
    last=st.sampled_from([STOP, b"data: [DONE]\n\n", b"data: [DONE]", sse(chunk(finish="stop")).rstrip(), b""]),
)
def test_text_survives(
    text: str,
    in_deltas: list[int],
    in_bytes: list[int],
    end: str,
    escaped: bool,
    indent: int | None,
    field: str,
    last: bytes,
) -> None:
    """Any text arrives as it was sent, however it is cut into deltas, lines and bytes, and however those end."""
    body = b""
    for piece in deltas(text, in_deltas):
        spelled = json.dumps(chunk(**{field: piece}), ensure_ascii=escaped, indent=indent)
        body += "".join(f"data: {line}\n" for line in spelled.split("\n")).encode("utf-8", "surrogatepass") + b"\n"
    body = (body + last).replace(b"\n", end.encode())

    events = Wire(pieces(body, in_bytes)).ask() if body else []

    assert said(events) == text
    assert Delta("") not in events


def test_a_line_ends_with_its_piece() -> None:
    """A line end at the end of a piece counts, though no later piece has another one."""
    assert said(Wire([sse(chunk("text")).rstrip() + b"\r", b"data: [DONE]"]).ask()) == "text"


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("a😀\ud83d\ude00\ud800\udfff"), max_size=12), cuts=CUTS)
def test_no_half_of_a_character_is_passed_on(text: str, cuts: list[int]) -> None:
    """A half that never finds its other half becomes U+FFFD; no event holds one."""
    each = deltas(text, cuts)
    wire = Wire(sse(*(chunk(piece) for piece in each), *(chunk(reasoning_content=piece) for piece in each)) + STOP)

    events = wire.ask()

    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert said(events) == whole
    assert not re.search("[\ud800-\udfff]", "".join(e.text for e in events if isinstance(e, (Delta, Reasoning))))


def test_half_a_character_waits_for_its_other_half() -> None:
    """An empty delta between two halves of a character does not part them."""
    assert said(Wire(sse(chunk("\ud83d"), chunk(""), chunk("\ude00")) + STOP).ask()) == "😀"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param(b"caf\xc3 cr\xa8me", "caf\ufffd cr\ufffdme", id="bytes that are no UTF-8"),
        pytest.param(b"a\tb\x0bc", "a\tb\x0bc", id="control characters without escape"),
    ],
)
def test_sloppy_bytes_cost_no_reply(raw: bytes, text: str) -> None:
    """A byte that a server got wrong harms itself, not the words around it."""
    body = sse(chunk("HERE")).replace(b"HERE", raw) + sse(chunk(" and more")) + STOP

    assert said(Wire(body).ask()) == text + " and more"


def test_a_byte_order_mark_hides_no_event() -> None:
    """A stream may begin with a byte order mark."""
    assert said(Wire(b"\xef\xbb\xbf" + sse(chunk("first "), chunk("second")) + STOP).ask()) == "first second"


def test_parts_are_joined() -> None:
    """Content may be a list of parts; what is no text is left out."""
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, None, {"type": "text", "text": "b"}]

    assert said(Wire(sse({"choices": [{"delta": {"content": parts}}]}) + STOP).ask()) == "ab"


def test_reasoning_is_no_reply() -> None:
    """What the model thinks comes as reasoning, under both names that servers have for it."""
    events = Wire(sse(chunk(reasoning_content="hm"), chunk(reasoning="so"), chunk("yes")) + STOP).ask()

    assert [e for e in events if isinstance(e, Reasoning)] == [Reasoning("hm"), Reasoning("so")]
    assert said(events) == "yes"


def test_only_the_first_choice_is_the_reply() -> None:
    """A second choice does not run into the first one."""
    other = {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "length"}]}

    events = Wire(sse(chunk("one"), other) + STOP).ask()

    assert events[1:] == [Delta("one"), Finished("stop")]


# Usage


COUNTS = {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}
FULL = {
    **COUNTS,
    "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": None},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
PLAIN_USAGE = Usage(20, 7)


@pytest.mark.parametrize(
    ("tail", "usage"),
    [
        pytest.param([chunk(finish="stop"), {"choices": [], "usage": COUNTS}], PLAIN_USAGE, id="OpenAI, llama.cpp"),
        pytest.param([chunk(finish="stop"), {**chunk(""), "usage": COUNTS}], PLAIN_USAGE, id="LiteLLM"),
        pytest.param([{**chunk(finish="stop"), "usage": COUNTS}], PLAIN_USAGE, id="transformers serve"),
        pytest.param([chunk(finish="stop")], None, id="llama-cpp-python"),
        pytest.param([{**chunk(finish="stop"), "usage": None}], None, id="null"),
        pytest.param([chunk(finish="stop"), {"choices": None, "usage": COUNTS}], PLAIN_USAGE, id="choices null"),
        pytest.param([chunk(finish="stop"), {"usage": COUNTS}], PLAIN_USAGE, id="no choices"),
        pytest.param([chunk(finish="stop"), {"choices": [], "usage": FULL}], Usage(20, 7, 16, 3), id="with details"),
        pytest.param(
            [chunk(finish="stop"), {"choices": [], "usage": {**COUNTS, **dict.fromkeys(FULL.keys() - COUNTS.keys())}}],
            PLAIN_USAGE,
            id="details null",
        ),
        pytest.param(
            [{"choices": [], "usage": {**FULL, "prompt_tokens_details": {"cached_tokens": None}}}],
            Usage(20, 7, None, 3),
            id="a detail null",
        ),
        pytest.param(
            [{"choices": [], "usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 0}}}],
            Usage(20, 7, 0),
            id="nothing cached is no unknown",
        ),
        pytest.param(
            [{"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}], None, id="zeros are unknown"
        ),
        pytest.param([{"choices": [], "usage": {"prompt_tokens": "20", "completion_tokens": True}}], None, id="junk"),
        pytest.param([{"choices": [], "usage": {"prompt_tokens": 20}}], Usage(20), id="only the input"),
        pytest.param([{"choices": [], "usage": [COUNTS]}], None, id="a list"),
    ],
)
def test_usage_is_read_wherever_it_stands(tail: list[dict[str, Any]], usage: Usage | None) -> None:
    """Every server's way of reporting usage is understood, and an unknown count is never 0."""
    events = Wire(sse(chunk("hi"), *tail, "[DONE]")).ask()

    assert [event.usage for event in events if isinstance(event, Used)] == ([usage] if usage else [])
    assert said(events) == "hi"


# Endings


@pytest.mark.parametrize(
    ("body", "events"),
    [
        pytest.param(sse(chunk("a")) + STOP, [Delta("a"), Finished("stop")], id="stop"),
        pytest.param(sse(chunk("a"), chunk(finish="length")), [Delta("a"), Finished("length")], id="length, no [DONE]"),
        pytest.param(sse(chunk("a", finish="content_filter")), [Delta("a"), Finished("content_filter")], id="filter"),
        pytest.param(sse(chunk("a")), [Delta("a")], id="no reason"),
        pytest.param(
            sse(chunk("a", finish=""), chunk(finish="stop")), [Delta("a"), Finished("stop")], id="empty reason"
        ),
        pytest.param(sse("[DONE]"), [], id="nothing but [DONE]"),
        pytest.param(sse(chunk(role="assistant"), chunk("")), [], id="no text"),
        pytest.param(
            sse(chunk(refusal="No"), chunk(refusal=".")) + STOP,
            [Delta("No"), Delta("."), Finished("refusal")],
            id="refusal",
        ),
        pytest.param(
            sse(chunk(refusal="No"), chunk(finish="length")), [Delta("No"), Finished("length")], id="long refusal"
        ),
        pytest.param(sse(chunk("a")) + STOP + sse(chunk("b")), [Delta("a"), Finished("stop")], id="after [DONE]"),
        pytest.param(
            b": hello\n\nid: 1\nevent: x\n" + sse(chunk("a")) + b": ping\n\nretry: 9\n\n" + STOP,
            [Delta("a"), Finished("stop")],
            id="comments, fields and pings",
        ),
        pytest.param(b"data:" + STOP[6:], [Finished("stop")], id="no blank after the colon"),
        pytest.param(
            b"\ndata: {\ndata: " + json.dumps(chunk("a")).encode()[1:] + b"\n\n" + STOP,
            [Delta("a"), Finished("stop")],
            id="an event of two lines",
        ),
        pytest.param(
            sse(chunk("a"), chunk("b")).replace(b"\n\n", b"\n") + STOP,
            [Delta("a"), Delta("b"), Finished("stop")],
            id="no blank line between events",
        ),
        pytest.param(STOP.removesuffix(b"\n\n"), [Finished("stop")], id="no blank line at the end"),
        pytest.param(sse(chunk("a")) + b'data: {"choices": [{"del', [Delta("a")], id="half an event at the end"),
        pytest.param(sse({}, {"choices": [None]}, {"choices": [{"delta": "x"}]}, chunk("a")), [Delta("a")], id="junk"),
    ],
)
def test_a_stream_ends(body: bytes, events: list[Event]) -> None:
    """Every way in which a stream can end says what came, and only a reason that was given is one."""
    assert Wire(body).ask()[1:] == events


WHOLE = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole\u2028"}, "finish_reason": "stop"}],
    "usage": FULL,
}


@pytest.mark.parametrize("stream", [True, False], ids=["asked for a stream", "asked for the whole"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(json.dumps(WHOLE).encode(), id="one line"),
        pytest.param(json.dumps(WHOLE, ensure_ascii=False, indent=2).encode(), id="indented"),
        pytest.param(b"\xef\xbb\xbf" + json.dumps(WHOLE).encode(), id="byte order mark"),
        pytest.param(sse(WHOLE), id="an event"),
    ],
)
def test_a_whole_answer_is_a_reply(body: bytes, stream: bool) -> None:
    """An answer in one piece is understood, whether it was asked for or not."""
    events = Wire(body).ask(stream=stream)

    assert events[1:] == [Used(Usage(20, 7, 16, 3)), Delta("whole\u2028"), Finished("stop")]


@pytest.mark.parametrize(
    ("content_type", "body", "shown"),
    [
        pytest.param("text/html", b"<!doctype html><html>Sign in</html>", "Sign in", id="HTML"),
        pytest.param("text/event-stream", b"", "nothing", id="empty"),
        pytest.param("application/json", b'{"status": "ok"}', "status", id="JSON"),
        pytest.param("application/json", b"[1, 2]", "[1, 2]", id="a JSON list"),
        pytest.param("application/octet-stream", b"\x00\xff\x1b[2J", "[2J", id="junk"),
        pytest.param("text/event-stream", b"data: <html>\n\n", "<html>", id="a junk event"),
        pytest.param("text/event-stream", b"data: oops", "oops", id="a junk event at the end"),
        pytest.param("application/json", b"[" * 100_000, "[[[", id="nested too deep"),
    ],
)
def test_what_is_no_reply_is_an_error(content_type: str, body: bytes, shown: str) -> None:
    """A 200 with something else than a reply fails, and shows its beginning."""
    wire = Wire(httpx2.Response(200, headers={"content-type": content_type}, content=body))

    with pytest.raises(RequestError, match=re.escape(shown)) as caught:
        wire.ask()

    assert content_type in str(caught.value)
    assert not caught.value.retryable
    assert str(caught.value).isprintable()


def test_a_junk_event_is_an_error_after_what_came() -> None:
    """An event that cannot be read ends the stream where it stands; nothing is skipped in silence."""
    wire = Wire(sse(chunk("a"), "junk", chunk("b")) + STOP)

    came, exc = taken(wire.client.stream(asking()))

    assert came[1:] == [Delta("a")]
    assert isinstance(exc, RequestError)
    assert "junk" in str(exc)


@pytest.mark.parametrize("before", [[], [chunk("half a")]], ids=["before the text", "after text"])
def test_an_error_in_the_stream_is_raised(before: list[dict[str, Any]]) -> None:
    """An error object in a stream ends it with the server's words, after the text that had come."""
    wire = Wire(sse(*before, {"error": {"message": "boom", "type": "server_error"}}) + STOP)

    came, exc = taken(wire.client.stream(asking()))

    assert isinstance(exc, RequestError)
    assert "boom" in str(exc)
    assert exc.retryable
    assert came[1:] == [Delta("half a") for _ in before]


def test_a_cut_connection_is_raised(server: ChatServer) -> None:
    """A connection that breaks off gives its text, then an error, and the next request works."""
    server.answers = [Answer([sse(chunk("half")), CUT])]
    client = local(server)

    came, exc = taken(client.stream(asking(model="here:m")))

    assert isinstance(exc, RequestError)
    assert exc.retryable
    assert said(came) == "half"
    assert said(ask(client)) == "pong"


@pytest.mark.parametrize("before", [[], [sse(chunk("half"))]], ids=["from the start", "after text"])
def test_a_stall_is_raised(server: ChatServer, before: list[bytes]) -> None:
    """A server that falls silent is given up after the timeout."""
    server.answers = [Answer([*before, 1.0])]
    started = time.perf_counter()

    came, exc = taken(local(server, timeout=0.15).stream(asking(model="here:m")))

    assert isinstance(exc, UnreachableError)
    assert "silent" in str(exc)
    assert len(came) == 1 + len(before)
    assert time.perf_counter() - started < 0.9


# Connections


def test_turns_share_a_connection(server: ChatServer) -> None:
    """Twenty turns need one connection."""
    client = local(server)

    for number in range(20):
        ask(client, str(number))

    assert server.connections == 1
    assert [body["messages"][0]["content"] for body in server.bodies] == [str(number) for number in range(20)]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer([STOP, sse(chunk("late"), chunk("later"))]), id="data after [DONE]"),
        pytest.param(Answer([b'{"error": {"message": "no"}}'], status=400), id="an error"),
        pytest.param(Answer([b"junk"]), id="junk"),
        pytest.param(Answer([sse(chunk("a", finish="stop"))]), id="no [DONE]"),
        pytest.param(Answer([json.dumps(WHOLE).encode()]), id="a whole answer"),
    ],
)
def test_an_answer_frees_its_connection(server: ChatServer, answer: Answer) -> None:
    """An answer that has come to its end leaves its connection to the next request, whatever it was."""
    server.answers = [answer]
    client = local(server)

    taken(client.stream(asking(model="here:m")))
    ask(client)

    assert server.connections == 1


@pytest.mark.parametrize(
    "tail",
    [pytest.param([5.0], id="silent"), pytest.param([0.02, b": ping\n\n"] * 200, id="talking")],
)
def test_a_server_that_does_not_hang_up_is_left(server: ChatServer, tail: list[bytes | float | str]) -> None:
    """A connection that stays open after the last event holds the cell for about a second, not for the timeout."""
    server.answers = [Answer([sse(chunk("done")), STOP, *tail])]
    client = local(server)
    started = time.perf_counter()

    events = ask(client)

    assert events[1:] == [Delta("done"), Finished("stop")]
    assert time.perf_counter() - started < 2
    assert said(ask(client)) == "pong"


def test_a_stop_ends_the_request(server: ChatServer) -> None:
    """Closing the iterator closes the connection, so that the server stops generating, and the client stays usable."""
    server.answers = [text_answer(["word "] * 500, pause=0.01)]
    client = local(server)
    stream = client.stream(asking(model="here:m"))
    assert [next(stream), next(stream)] == [Sending("here"), Delta("word ")]

    stream.close()  # type: ignore[attr-defined]  # it is a generator, of which the Protocol says nothing

    assert server.broken.wait(2)
    assert said(ask(client)) == "pong"


def test_an_interrupt_ends_the_request(server: ChatServer) -> None:
    """A KeyboardInterrupt goes through as it is, and closes the connection."""
    server.answers = [text_answer(["word "] * 500, pause=0.01)]
    stream = local(server).stream(asking(model="here:m"))
    next(stream), next(stream)

    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)  # type: ignore[attr-defined]

    assert server.broken.wait(2)


def test_a_stale_connection_is_no_error(server: ChatServer) -> None:
    """A connection that the server has closed between two turns is replaced without a word."""
    server.answers = [Answer([sse(chunk("first")), STOP, HANG_UP])]
    client = local(server)
    ask(client)
    time.sleep(0.1)

    assert said(ask(client)) == "pong"
    assert server.connections == 2


def test_close_lets_the_next_request_connect_anew(server: ChatServer) -> None:
    """A closed client is as good as new."""
    client = local(server)
    ask(client)

    client.close()

    assert said(ask(client)) == "pong"
    assert server.connections == 2


def test_threads_share_a_client(server: ChatServer) -> None:
    """Requests at the same time do not mix."""

    def echo(body: dict[str, Any]) -> Answer:
        return text_answer([body["messages"][0]["content"]] * 20, pause=0.002)

    server.answers = [echo] * 8
    client = local(server)
    replies: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=number: replies.update({n: said(ask(client, str(n)))})) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert replies == {number: str(number) * 20 for number in range(8)}


def test_threads_make_one_client() -> None:
    """Two first requests at the same time make one pool of connections."""
    made: list[int] = []

    def transport() -> httpx2.BaseTransport:
        made.append(1)
        time.sleep(0.05)
        return httpx2.MockTransport(lambda _: httpx2.Response(200, content=STOP))

    client = OpenAIClient(transports={"openai": transport}, environ={"OPENAI_API_KEY": KEY})
    threads = [threading.Thread(target=lambda: ask(client, model="m")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 1


# Requests


def test_nothing_is_sent_unasked() -> None:
    """The body holds model, messages and how to stream, and nothing else."""
    wire = Wire(STOP)

    wire.ask("one", "two", "three", model="gpt-6-luna")

    messages = [("user", "one"), ("assistant", "two"), ("user", "three")]
    assert wire.bodies == [
        {
            "model": "gpt-6-luna",
            "messages": [{"role": role, "content": text} for role, text in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]
    assert str(wire.requests[0].url) == "https://api.openai.com/v1/chat/completions"


def test_parameters_are_sent_as_they_are() -> None:
    """Every parameter arrives, of whatever shape, also one that the openai client does not know."""
    parameters = {"temperature": 0, "top_k": 40, "response_format": {"type": "json_object"}, "stop": ["a"], "x": None}
    wire = Wire(STOP)

    wire.ask(**parameters)

    sent = wire.bodies[0]
    assert {key: sent[key] for key in sent.keys() - {"model", "messages", "stream", "stream_options"}} == parameters


def test_a_whole_answer_is_asked_for_without_stream_options() -> None:
    """Without a stream there are no options of one, which servers refuse."""
    wire = Wire(json.dumps(WHOLE).encode())

    wire.ask(stream=False)

    assert wire.bodies == [{"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}]


@given(text=TEXT)
@settings(max_examples=50, deadline=None)
def test_a_prompt_leaves_as_it_is(text: str) -> None:
    """Any prompt and system prompt reach the server unchanged."""
    wire = Wire(STOP)

    list(wire.client.stream(Request("m", [Message("system", text), Message("user", text)])))

    assert wire.bodies[0]["messages"] == [{"role": "system", "content": text}, {"role": "user", "content": text}]


def test_half_a_character_is_refused_before_sending() -> None:
    """A prompt that cannot be written as UTF-8 fails in the user's words."""
    wire = Wire(STOP)

    with pytest.raises(RequestError, match="half a character"):
        wire.ask("\ud83d")

    assert wire.requests == []


def test_the_key_is_sent() -> None:
    """The key of the environment stands in the header."""
    wire = Wire(STOP)

    wire.ask()

    assert wire.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_no_key_no_header(server: ChatServer) -> None:
    """An endpoint without a key gets no Authorization, although OpenAI's key is there."""
    client = OpenAIClient({"here": {"url": server.url}}, environ={"OPENAI_API_KEY": KEY})

    ask(client)

    assert "authorization" not in server.headers[0]
    assert KEY not in str(server.headers[0])


def test_openai_without_a_key_on_loopback_gets_no_header(server: ChatServer) -> None:
    """With OPENAI_BASE_URL on this machine no key is needed, and none is made up."""
    ask(OpenAIClient(environ={"OPENAI_BASE_URL": server.url}), model="m")

    assert "authorization" not in server.headers[0]


OPENAIS_OWN = {
    "OPENAI_ORG_ID": "org-ours",
    "OPENAI_PROJECT_ID": "proj-ours",
    "OPENAI_ADMIN_KEY": "sk-admin-ours",
    "OPENAI_WEBHOOK_SECRET": "whsec-ours",
    "OPENAI_CUSTOM_HEADERS": "X-Ours: gateway-ours\nAuthorization: Bearer token-ours",
    "OPENAI_API_KEY": "sk-ours",
}


@pytest.fixture
def openais_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what the openai client reads from the environment by itself."""
    for name, value in OPENAIS_OWN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("openais_own")
def test_openais_own_headers_go_to_openai() -> None:
    """Organisation, project and custom headers of the environment are sent to OpenAI; other secrets are not."""
    wire = Wire(STOP, environ=os.environ)

    wire.ask()

    headers = wire.requests[0].headers
    assert (headers["openai-organization"], headers["openai-project"], headers["x-ours"]) == (
        "org-ours",
        "proj-ours",
        "gateway-ours",
    )
    assert not {"sk-admin-ours", "whsec-ours"} & set(headers.values())


@pytest.mark.usefixtures("openais_own")
@pytest.mark.parametrize("key", [None, "mine-0123456789"], ids=["without a key", "with a key"])
def test_openais_own_headers_go_nowhere_else(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """No other server gets anything that the environment holds for OpenAI; it gets its own key."""
    monkeypatch.setenv("MINE", key or "")
    fields = {"url": server.url, **({"key_env": "MINE"} if key else {})}

    ask(OpenAIClient({"here": fields}))

    assert "ours" not in str(server.headers[0])
    assert server.headers[0].get("authorization") == (f"Bearer {key}" if key else None)


def test_the_environment_is_read_at_every_turn(server: ChatServer) -> None:
    """A key and a base URL that change between two turns are used in the second one."""
    with ChatServer() as other:
        environ = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "first-key"}
        client = OpenAIClient(environ=environ)
        ask(client, model="m")
        environ["OPENAI_API_KEY"] = "second-key"
        ask(client, model="m")
        environ["OPENAI_BASE_URL"] = other.url
        ask(client, model="m")

        assert [headers["authorization"] for headers in server.headers] == ["Bearer first-key", "Bearer second-key"]
        assert len(other.bodies) == 1


def test_the_organisation_is_read_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An organisation that is set after the first turn is sent with the second one."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    wire = Wire(STOP, environ=os.environ)
    wire.ask()
    monkeypatch.setenv("OPENAI_ORG_ID", "org-late")

    wire.ask()

    assert [request.headers.get("openai-organization") for request in wire.requests] == [None, "org-late"]


def test_endpoints_can_change_between_turns(server: ChatServer) -> None:
    """New endpoints, and new addresses of old ones, are used from the next turn on."""
    client = OpenAIClient({"here": {"url": "http://127.0.0.1:9/v1"}}, environ={})
    with pytest.raises(UnreachableError):
        ask(client)

    client.endpoints = {"here": {"url": server.url}}

    assert said(ask(client)) == "pong"


def test_no_proxy_sees_what_is_meant_for_this_machine(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is not asked for a server on loopback."""
    with ChatServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))

        ask(local(server))

        assert (len(server.bodies), len(proxy.bodies)) == (1, 0)


def test_a_proxy_is_used_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is asked for servers elsewhere."""
    with ChatServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))

        events = list(OpenAIClient({"far": {"url": "http://far.invalid/v1"}}).stream(asking(model="far:m")))

        assert said(events) == "pong"
        assert len(proxy.bodies) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("https_proxy", "socks5://127.0.0.1:1", id="SOCKS without its package"),
        pytest.param("https_proxy", "gopher://user:secret@127.0.0.1:1", id="no such scheme"),
        pytest.param("https_proxy", "http://user:secret@127.0.0.1:x", id="no such port"),
        pytest.param("SSL_CERT_FILE", "/nowhere/secret.pem", id="no such certificates"),
    ],
)
def test_an_unusable_environment_is_said(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A proxy or certificates that cannot be used are an error in the user's words, without the proxy's password."""
    monkeypatch.setenv(name, value)

    with pytest.raises(EndpointError) as caught:
        ask(OpenAIClient(environ={"OPENAI_API_KEY": KEY}), model="m")

    assert "user:secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_redirect_is_not_followed(server: ChatServer) -> None:
    """A server that sends the request on to another host does not get the conversation sent there."""
    with ChatServer() as other:
        server.answers = [Answer(status=307, headers={"Location": f"{other.url}/chat/completions"})]

        with pytest.raises(
            RequestError, match=f"sends on to {other.url}/chat/completions .307.; the conversation is not"
        ):
            ask(OpenAIClient({"here": {"url": server.url, "key_env": "MINE"}}, environ={"MINE": KEY}))

        assert other.bodies == []


def test_models_that_are_stopped_show_no_key() -> None:
    """Stopping a request for models is an error in one line, in whose frames no variable shows the key."""

    def stop(_: httpx2.Request) -> httpx2.Response:
        raise KeyboardInterrupt

    client = OpenAIClient(transports={"openai": lambda: httpx2.MockTransport(stop)}, environ={"OPENAI_API_KEY": KEY})
    with pytest.raises(InterruptedTurnError) as caught:
        client.models("openai")

    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "stopped" in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 10**400}},
            Usage(1, 2),
        ),
        ({"prompt_tokens": 10**400, "completion_tokens": 2}, Usage(None, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 6}}, Usage(5, 2)),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(5, 2),
        ),
    ],
    ids=["cached beyond belief", "input beyond belief", "more cached than sent", "more thought than said"],
)
def test_usage_that_cannot_be_is_unknown(usage: dict[str, Any], expected: Usage) -> None:
    """A count that no request can have is unknown, and does no harm to what shows it."""
    events = Wire(sse(chunk("text"), chunk(finish="stop"), {"choices": [], "usage": usage})).ask()

    assert Used(expected) in events


def test_finish_reason_is_a_short_plain_word() -> None:
    """What a server gives as the reason of an end is one short line without a key in it."""
    events = Wire(sse(chunk("text"), chunk(finish=f"because\n\x1b[31m {KEY} " + "x" * 100))).ask()

    reason = next(event.reason for event in events if isinstance(event, Finished))
    assert reason.startswith("because [31m [key] xxx")
    assert len(reason) <= 40


# stream_options


def refusal(text: str, status: int = 400) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": text}})


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("word", ["stream_options", "include_usage"])
def test_stream_options_that_are_refused_are_left_out(status: int, word: str) -> None:
    """A server that does not know stream_options is asked again without them, and this is said."""
    wire = Wire(refusal(f"Unknown parameter: {word}", status), sse(chunk("fine")) + STOP)

    events = wire.ask()

    assert ["stream_options" in body for body in wire.bodies] == [True, False]
    assert [type(event) for event in events] == [Sending, Remark, Delta, Finished]
    assert "stream_options" in next(event.text for event in events if isinstance(event, Remark))


def test_refused_stream_options_are_remembered_by_server(server: ChatServer) -> None:
    """The next turn leaves stream_options out at once and says nothing; another server still gets them."""
    server.answers = [Answer([b'{"detail": "stream_options?"}'], status=422)]
    with ChatServer() as other:
        client = OpenAIClient({"here": {"url": server.url}, "there": {"url": other.url}}, environ={})
        ask(client)

        events = ask(client)
        ask(client, model="there:m")

        assert ["stream_options" in body for body in server.bodies] == [True, False, False]
        assert not [event for event in events if isinstance(event, Remark)]
        assert "stream_options" in other.bodies[0]


@pytest.mark.parametrize(
    ("answer", "stream"),
    [
        pytest.param(refusal("temperature is too high"), True, id="another parameter"),
        pytest.param(refusal("stream_options are bad", 403), True, id="another status"),
        pytest.param(refusal("stream_options are bad"), False, id="none were sent"),
    ],
)
def test_other_errors_are_not_sent_again(answer: httpx2.Response, stream: bool) -> None:
    """Only a 400 or 422 about stream_options that were sent is sent again."""
    wire = Wire(answer)

    with pytest.raises(RequestError):
        wire.ask(stream=stream)

    assert len(wire.requests) == 1


def test_an_error_that_quotes_the_request_is_not_remembered() -> None:
    """A server that quotes the whole request in an error about something else still gets stream_options later."""
    wire = Wire(*[refusal("bad input {'stream_options': …, 'temperature': 'hot'}")] * 2, sse(chunk("fine")) + STOP)
    with pytest.raises(RequestError, match="hot"):
        wire.ask()

    wire.ask()

    assert ["stream_options" in body for body in wire.bodies] == [True, False, True]


# With the engine


def test_an_instant_reply_is_announced() -> None:
    """The demo says before sending that its reply is there at once, unless it is paced."""
    client = OpenAIClient(environ={})

    assert next(iter(client.stream(asking(model="demo")))) == Sending("demo", instant=True)
    assert next(iter(client.stream(asking(model="demo", pace=5)))) == Sending("demo", instant=False)


def test_nothing_is_sent_before_it_is_asked_for() -> None:
    """A stream that nobody reads opens no connection."""
    wire = Wire(STOP)

    next(iter(wire.client.stream(asking())))

    assert wire.requests == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"data: [DONE]\n\n", "without any text", id="llama-cpp-python's overflow"),
        pytest.param(sse(chunk(reasoning="hm"), chunk(finish="length")), "reached the limit", id="only thoughts"),
        pytest.param(sse(chunk(" \n")) + STOP, "just stopped", id="blanks"),
    ],
)
def test_a_reply_without_text_is_no_turn(body: bytes, message: str) -> None:
    """An answer without text is an error, and stores nothing."""
    session = Session("main")

    with pytest.raises(RequestError, match=message):
        run_turn(
            session, "hi", client=Wire(body).client, renderer=SpyRenderer(), defaults=Settings({"model": "gpt-6-luna"})
        )

    assert session.turns == []


def test_a_refusal_is_a_turn_with_a_notice() -> None:
    """A refusal, which the protocol ends with "stop", is kept and said to be one."""
    view = SpyRenderer()
    wire = Wire(sse(chunk(refusal="I cannot help with that.")) + STOP)

    turn = run_turn(Session("main"), "hi", client=wire.client, renderer=view, defaults=Settings({"model": "m"}))

    assert (turn.reply, turn.finish) == ("I cannot help with that.", "refusal")
    assert view.notices == ["the model refused to answer"]
