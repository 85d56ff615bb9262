"""What can go wrong at the other end, in the user's words and without keys."""

from __future__ import annotations

import html
import inspect
import json
import socket
import struct
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.engine import Retry, run_turn
from chatmagic.errors import ChatMagicError, ContextOverflowError, EndpointError, RequestError, UnreachableError
from chatmagic.events import Delta
from chatmagic.provider.client import OpenAIClient
from chatmagic.testing import SpyRenderer
from tests.server import KEY, Answer, ChatServer, Wire, asking, chunk, sse, text_answer

REQUEST = httpx2.Request("POST", "https://api.openai.com/v1/chat/completions")


def refused(wire: Wire, **how: Any) -> RequestError:
    """The error that *wire* ends in."""
    with pytest.raises(RequestError) as caught:
        wire.ask(**how)
    return caught.value


def answer(status: int, body: Any = None, **headers: str) -> httpx2.Response:
    """An HTTP answer; a body that is no text is sent as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, (str, bytes)):
        return httpx2.Response(status, headers=named, content=body)
    return httpx2.Response(status, headers=named, json=body)


def error(message: str = "no", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


# Every exception


def exceptions_of(module: Any) -> list[type[Exception]]:
    """Every exception that *module* exports."""
    exported = (kind for _, kind in inspect.getmembers(module, inspect.isclass))
    return [kind for kind in exported if issubclass(kind, Exception) and not issubclass(kind, Warning)]


MET = [
    kind for kind in (*exceptions_of(openai), *exceptions_of(httpx2)) if kind is not openai.InvalidWebhookSignatureError
]
"""All but the one of webhooks, a ValueError that no chat meets."""


def made(kind: type[Exception]) -> Exception:
    """An exception of *kind* with a cause that holds the key; one of those that carry a response has it."""
    exc = kind.__new__(kind, f"it says {KEY}")
    if issubclass(kind, openai.APIError):
        response = httpx2.Response(418, request=REQUEST, json=error(KEY))
        known: dict[str, Any] = {"message": KEY, "request": REQUEST, "response": response, "body": {"message": KEY}}
        exc = kind(**{name: known[name] for name in inspect.signature(kind).parameters})
    exc.__cause__ = ValueError(f"Illegal header value b'Bearer {KEY}'")
    return exc


@pytest.mark.parametrize("when", ["before the headers", "in the body"])
@pytest.mark.parametrize(
    "kind",
    [*MET, OSError, ConnectionResetError, TimeoutError],
    ids=lambda kind: f"{kind.__module__.split('.')[0]}.{kind.__name__}",
)
def test_every_foreign_exception_becomes_ours(kind: type[Exception], when: str) -> None:
    """Whatever the openai client or httpx2 raises, a user meets an error of ours, on one line and without the key."""
    wire = Wire(made(kind) if when == "before the headers" else [made(kind)])

    with pytest.raises(ChatMagicError) as caught:
        wire.ask()

    assert_harmless(caught.value)


HARMFUL = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, ends of lines and paragraphs


def assert_harmless(exc: BaseException, key: str = KEY) -> None:
    """Nothing that prints *exc*, or walks from it to others, meets the key or a second line."""
    assert key not in str(exc)
    assert not HARMFUL & set(map(unicodedata.category, str(exc)))
    assert key not in "".join(traceback.format_exception(exc))
    assert exc.__cause__ is None
    assert exc.__context__ is None
    assert key not in repr(vars(exc))


def test_the_enumeration_finds_something() -> None:
    """The test above would not pass by finding no exceptions."""
    assert openai.RateLimitError in exceptions_of(openai)
    assert httpx2.RemoteProtocolError in exceptions_of(httpx2)
    assert len(exceptions_of(openai)) > 15
    assert len(exceptions_of(httpx2)) > 20


def test_a_bug_of_ours_is_not_hidden() -> None:
    """An exception that belongs to no library goes through with its traceback."""
    with pytest.raises(ZeroDivisionError):
        Wire(ZeroDivisionError()).ask()


# May it work later?


@pytest.mark.parametrize(
    ("status", "body", "retryable"),
    [
        pytest.param(400, error(), False, id="400"),
        pytest.param(401, error(), False, id="401"),
        pytest.param(402, error(), False, id="402"),
        pytest.param(403, error(), False, id="403"),
        pytest.param(404, error(), False, id="404"),
        pytest.param(408, error(), True, id="408"),
        pytest.param(409, error(), True, id="409"),
        pytest.param(413, error(), False, id="413"),
        pytest.param(422, error(), False, id="422"),
        pytest.param(429, error(), True, id="429"),
        pytest.param(429, error(code="rate_limit_exceeded"), True, id="429 rate limit"),
        pytest.param(429, error(code="insufficient_quota"), False, id="429 no quota, by code"),
        pytest.param(429, error(type="insufficient_quota"), False, id="429 no quota, by type"),
        pytest.param(429, error("Insufficient credits"), False, id="429 no credit, by text"),
        pytest.param(500, error(), True, id="500"),
        pytest.param(501, error(), False, id="501"),
        pytest.param(502, "<h1>Bad Gateway</h1>", True, id="502"),
        pytest.param(503, "", True, id="503"),
        pytest.param(529, error("Overloaded"), True, id="529"),
        pytest.param(304, "", False, id="304"),
    ],
)
def test_a_status_says_whether_to_try_again(status: int, body: Any, retryable: bool) -> None:
    """Only what may pass by itself is worth another try."""
    exc = refused(Wire(answer(status, body)))

    assert (exc.status, exc.retryable) == (status, retryable)
    assert str(status) in str(exc)


@pytest.mark.parametrize(
    ("fields", "status", "retryable"),
    [
        pytest.param({"type": "server_error"}, None, True, id="server_error"),
        pytest.param({"type": "overloaded_error"}, None, True, id="overloaded"),
        pytest.param({"code": "rate_limit_exceeded"}, None, True, id="rate limit"),
        pytest.param({"code": 503}, 503, True, id="a status as the code"),
        pytest.param({"code": "429"}, 429, True, id="a status as text"),
        pytest.param({"code": 429, "type": "insufficient_quota"}, 429, False, id="no quota"),
        pytest.param({"code": 400}, 400, False, id="a bad request"),
        pytest.param({"code": 1302}, None, False, id="a code that is no status"),
        pytest.param({"code": True}, None, False, id="junk"),
        pytest.param({}, None, False, id="nothing but words"),
    ],
)
def test_an_error_in_a_stream_says_whether_to_try_again(
    fields: dict[str, Any], status: int | None, retryable: bool
) -> None:
    """An error object in a stream is judged by its code and type."""
    exc = refused(Wire(sse({"error": {"message": "it broke", **fields}})))

    assert (exc.status, exc.retryable) == (status, retryable)
    assert "it broke" in str(exc)


@contextmanager
def listener(meet: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server below HTTP: *meet* gets its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                meet(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread.join(2)


def reset(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def gibberish(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")


def hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


@pytest.mark.parametrize("meet", [reset, gibberish, hang_up], ids=lambda meet: meet.__name__)
def test_a_connection_that_breaks_may_work_later(meet: Callable[[socket.socket], None]) -> None:
    """A server that resets, hangs up or speaks no HTTP is an error that is worth another try."""
    with listener(meet) as url, pytest.raises(RequestError, match="broke") as caught:
        list(OpenAIClient({"here": {"url": url}}, environ={}).stream(asking(model="here:m")))

    assert caught.value.retryable
    assert_harmless(caught.value)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        pytest.param("http://127.0.0.1:9/v1", "Is it running", id="nothing listens"),
        pytest.param("http://nowhere.invalid/v1", "Is the machine online", id="no such host"),
        pytest.param("https://127.0.0.1:9/v1", "Is it running", id="nothing listens, TLS"),
    ],
)
def test_no_server_is_not_asked_again(url: str, advice: str) -> None:
    """Where no server is, a second try seconds later would only hold the cell; the error says what to look at."""
    with pytest.raises(UnreachableError, match=advice) as caught:
        list(OpenAIClient({"here": {"url": url}}, environ={}).stream(asking(model="here:m")))

    assert not caught.value.retryable
    assert url in str(caught.value)
    assert_harmless(caught.value)


def test_ollama_that_is_not_running_says_how_to_start_it() -> None:
    """The commonest failure of all names its remedy."""
    refusal = httpx2.ConnectError("[Errno 111] Connection refused")

    assert "ollama serve" in str(refused(Wire(refusal, endpoint="ollama"), model="ollama:llama3.2"))


def test_tls_on_a_plain_port_is_an_error_of_ours(server: ChatServer) -> None:
    """A https:// where http:// was right fails in one line."""
    client = OpenAIClient({"here": {"url": server.url.replace("http:", "https:")}}, environ={})

    with pytest.raises(UnreachableError) as caught:
        list(client.stream(asking(model="here:m")))

    assert_harmless(caught.value)


@pytest.mark.parametrize(
    ("exc", "retryable", "told"),
    [
        pytest.param(httpx2.ConnectTimeout("slow"), True, "could not be reached", id="connecting"),
        pytest.param(httpx2.ReadTimeout("slow"), False, "ChatMagic.timeout", id="reading"),
        pytest.param(httpx2.WriteTimeout("slow"), False, "ChatMagic.timeout", id="writing"),
    ],
)
def test_a_timeout_says_what_was_slow(exc: Exception, retryable: bool, told: str) -> None:
    """Not reached may be tried again; what was silent for minutes has cost its tokens and is not."""
    caught = refused(Wire(exc))

    assert isinstance(caught, UnreachableError)
    assert caught.retryable is retryable
    assert told in str(caught)


# Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"retry_after": "7"}, 7.0, id="seconds"),
        pytest.param({"retry_after": "1.5"}, 1.5, id="a fraction"),
        pytest.param({"retry_after": "0"}, 0.0, id="at once"),
        pytest.param({"retry_after_ms": "2500"}, 2.5, id="milliseconds"),
        pytest.param({"retry_after_ms": "2500", "retry_after": "9"}, 2.5, id="milliseconds first"),
        pytest.param({"retry_after_ms": "-5"}, 0.0, id="negative milliseconds"),
        pytest.param({"retry_after_ms": "soon"}, None, id="junk milliseconds"),
        pytest.param({"retry_after_ms": "nan"}, None, id="no number of milliseconds"),
        pytest.param({"retry_after_ms": "inf"}, None, id="for ever"),
        pytest.param({"retry_after": "-5"}, None, id="negative"),
        pytest.param({"retry_after": "nan"}, None, id="nan"),
        pytest.param({"retry_after": "inf"}, None, id="inf"),
        pytest.param({"retry_after": "1e9"}, None, id="no decimal number"),
        pytest.param({"retry_after": "9" * 400}, None, id="too many digits"),
        pytest.param({"retry_after": "soon"}, None, id="junk"),
        pytest.param({"retry_after": ""}, None, id="empty"),
        pytest.param({"retry_after": "Wed, 99 Foo 2026 99:99:99 GMT"}, None, id="no date"),
        pytest.param({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0, id="a date that is past"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """The server's wish is understood in all its forms; what cannot be read is no wish."""
    exc = refused(Wire(answer(429, error(), **headers)))

    assert exc.retry_after == seconds
    assert exc.retryable


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda date: format_datetime(date, usegmt=True), id="GMT"),
        pytest.param(lambda date: format_datetime(date.replace(tzinfo=None)), id="no zone"),
        pytest.param(lambda date: date.strftime("%a %b %d %H:%M:%S %Y"), id="as C writes it"),
    ],
)
def test_retry_after_may_be_a_date(written: Callable[[datetime], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A date is a moment in UTC, in whatever zone this machine is."""
    date = written(datetime.now(UTC) + timedelta(hours=1))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        exc = refused(Wire(answer(503, error(), retry_after=date)))
    finally:
        monkeypatch.undo()
        time.tzset()

    assert exc.retry_after == pytest.approx(3600, abs=60)


def test_a_wish_of_the_server_is_shown() -> None:
    """How long a server asks to wait stands in the message."""
    assert "asks to wait 7 s" in str(refused(Wire(answer(429, error("slow down"), retry_after="7"))))


# Overflow


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(400, error(code="context_length_exceeded"), id="OpenAI"),
        pytest.param(400, error(type="exceed_context_size_error", code=400, n_ctx=4096), id="llama.cpp"),
        pytest.param(500, error("Context size has been exceeded.", type="server_error"), id="llama.cpp, later"),
        pytest.param(
            400,
            error("litellm.ContextWindowExceededError: AnthropicException - prompt is too long", code="400"),
            id="LiteLLM",
        ),
        pytest.param(
            400,
            error("litellm.BadRequestError: OpenAIException - This model's maximum context length is 8192 tokens"),
            id="LiteLLM, older",
        ),
        pytest.param(
            400, {"object": "error", "message": "This model's maximum context length is 2048 tokens."}, id="vLLM"
        ),
        pytest.param(413, error("The input is too long for the requested model"), id="Bedrock"),
        pytest.param(422, {"error": "prompt is too long: 210000 tokens > 200000 maximum"}, id="a plain text"),
        pytest.param(
            400,
            [error("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).")],
            id="Gemini",
        ),
        pytest.param(400, {"error": "input length exceeds the context length"}, id="Ollama"),
        pytest.param(200, sse(error("too long", code="context_length_exceeded")), id="in a stream"),
        pytest.param(200, sse(error("too long", type="exceed_context_size_error")), id="in a stream, llama.cpp"),
    ],
)
def test_an_overflow_is_known_as_one(status: int, body: Any) -> None:
    """Every server's way of saying that the conversation is too long becomes one error, which no retry mends."""
    exc = refused(Wire(answer(status, body)))

    assert isinstance(exc, ContextOverflowError)
    assert not exc.retryable


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(400, error("max_tokens is too large: 100000"), id="a limit of the reply"),
        pytest.param(429, error("Request too large on tokens per min. Lower your context size"), id="a rate limit"),
        pytest.param(401, error("context_length_exceeded"), id="a wrong key"),
        pytest.param(400, error("Unsupported parameter: 'contextual'"), id="another word"),
    ],
)
def test_other_errors_are_no_overflow(status: int, body: Any) -> None:
    """What says something about size, or in another status, is not taken for an overflow."""
    assert not isinstance(refused(Wire(answer(status, body))), ContextOverflowError)


def test_an_overflow_says_what_to_do() -> None:
    """The message names the model, the server's words and two ways out."""
    message = str(refused(Wire(answer(400, error("8193 > 8192", code="context_length_exceeded"))), model="gpt-6-luna"))

    assert all(word in message for word in ("gpt-6-luna", "8193 > 8192", "--context budget", "max_tokens", "%chat new"))


def test_a_key_that_is_a_common_word_hides_no_overflow() -> None:
    """A one-letter key, which servers on one's own machine get, neither spoils a message nor what is made of it."""
    environ = {"OPENAI_API_KEY": "x"}

    exc = refused(Wire(answer(400, error("maximum context length: 5, key x")), environ=environ))

    assert isinstance(exc, ContextOverflowError)
    assert "maximum context length: 5, key [key]" in str(exc)


# What the server says


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(error("Plain."), "Plain", id="OpenAI"),
        pytest.param({"error": "model 'x' not found"}, "model 'x' not found", id="Ollama"),
        pytest.param({"message": "Flat"}, "Flat", id="flat"),
        pytest.param({"object": "error", "message": "Older", "code": 400}, "Older", id="vLLM"),
        pytest.param({"detail": "Not Found"}, "Not Found", id="FastAPI"),
        pytest.param(
            {"detail": [{"loc": ["body", "top_k"], "msg": "too small", "type": "x"}, {"loc": ["body"], "msg": "bad"}]},
            "body.top_k: too small; body: bad",
            id="FastAPI, a list",
        ),
        pytest.param([error("In a list")], "In a list", id="Gemini"),
        pytest.param({"error": {"message": error("Deep")}}, "Deep", id="a server behind a server"),
        pytest.param({"errors": [{"message": "First"}, {"message": "Second"}]}, "First; Second", id="errors"),
        pytest.param({"msg": "Short"}, "Short", id="msg"),
        pytest.param({"error": {"code": 5}}, '{"error":{"code":5}}', id="no sentence"),
        pytest.param({"error": None, "status": 9}, '{"error":null,"status":9}', id="null"),
        pytest.param("Just text.", "Just text", id="text"),
        pytest.param("", "no reason given", id="nothing"),
        pytest.param(" \n", "no reason given", id="blanks"),
        pytest.param(
            "<html><title>502</title><style>p{}</style><body><h1>Bad &amp; slow</h1>\n<script>x()</script></html>",
            "502 Bad & slow",
            id="HTML",
        ),
        pytest.param('"a JSON text"', "a JSON text", id="JSON text"),
        pytest.param("5", "5", id="JSON number"),
        pytest.param(b"\xff\xfe\x00bytes", "\ufffd\ufffdbytes", id="bytes"),
        pytest.param(error("use <think> tags"), "use <think> tags", id="angle brackets in JSON"),
        pytest.param(error("line one\nline\ttwo\x00\x1b[31m\u202e"), "line one line two[31m", id="control characters"),
        pytest.param(error("half \ud83d"), "half \ufffd", id="half a character"),
        pytest.param(error("é 你好"), "é 你好", id="not ASCII"),
    ],
)
def test_the_servers_sentence_is_found(body: Any, said: str) -> None:
    """Whatever the form of an error body, the message holds its sentence, on one line."""
    content = body if isinstance(body, (str, bytes)) else json.dumps(body, separators=(",", ":"))

    exc = refused(Wire(answer(400, content)))

    assert f"openai says (400): {said}" in str(exc)
    assert_harmless(exc)


@settings(max_examples=100, deadline=None)
@given(
    status=st.sampled_from([200, 400, 401, 404, 422, 429, 500]),
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda below: (
            st.lists(below)
            | st.dictionaries(st.sampled_from(["error", "message", "detail", "code", "type", "loc", "choices"]), below)
        ),
        max_leaves=10,
    ),
    stream=st.booleans(),
)
def test_any_body_is_an_error_of_ours_or_a_reply(status: int, body: Any, stream: bool) -> None:
    """No JSON that a server can answer with breaks anything."""
    content = json.dumps(body).encode()

    try:
        Wire(answer(status, b"data: " + content + b"\n\n" if stream else content)).ask()
    except ChatMagicError as exc:
        assert_harmless(exc)
    else:
        assert status == 200


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('{"error":' * 900 + "1" + "}" * 900, id="nested deep"),
        pytest.param("[" * 100_000, id="nested too deep"),
        pytest.param("<style" * 50_000, id="open tags"),
        pytest.param("<" * 300_000, id="angle brackets"),
        pytest.param(json.dumps(error("x" * 1_000_000)), id="long"),
        pytest.param("sk-" * 100_000, id="like keys"),
        pytest.param("token count " * 50_000, id="like an overflow"),
    ],
)
def test_a_monstrous_body_is_a_short_error(body: str) -> None:
    """A hostile error page costs neither a crash nor the kernel's time, and fills no screen."""
    started = time.process_time()

    exc = refused(Wire(answer(500, body)))

    assert len(str(exc)) <= 1000
    assert time.process_time() - started < 1


def test_401_names_the_variable() -> None:
    """A wrong key is named by where it comes from."""
    assert "OPENAI_API_KEY" in str(refused(Wire(answer(401, error("Incorrect API key provided")))))


def test_401_without_a_key_says_what_is_missing(server: ChatServer) -> None:
    """An endpoint that wants a key and has none says how to give it one."""
    server.answers = [Answer([b"{}"], status=401)]

    with pytest.raises(RequestError, match="key_env"):
        list(OpenAIClient({"here": {"url": server.url}}, environ={}).stream(asking(model="here:m")))


def test_404_asks_about_model_and_url() -> None:
    """Not found can be the model or the address, so both are named."""
    message = str(refused(Wire(answer(404, error("no such model"))), model="gpt-6-lune"))

    assert "'gpt-6-lune'" in message
    assert "https://api.openai.com/v1" in message


# Keys


ODD_KEYS = [
    pytest.param(KEY, id="usual"),
    pytest.param("sk-proj-a_b-c.d", id="OpenAI's"),
    pytest.param("abc", id="short"),
    pytest.param('a"b\\c/d+e=f&g<h>', id="odd characters"),
    pytest.param("'quoted'key\"", id="quotes"),
    pytest.param(".*+?[](){}^$|", id="a pattern"),
    pytest.param("\\d\\1\\g<0>", id="backslashes"),
    pytest.param("%41%42%43 %44".replace(" ", ""), id="percent signs"),
]


@pytest.mark.parametrize("key", ODD_KEYS)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda key: answer(401, error(f"Incorrect API key provided: {key}.")), id="an error"),
        pytest.param(lambda key: answer(400, {"error": {"got": f"Bearer {key}"}}), id="JSON without a sentence"),
        pytest.param(lambda key: answer(400, f"got {key!r}"), id="Python's spelling"),
        pytest.param(lambda key: answer(500, f"<p>{key}</p>"), id="a page"),
        pytest.param(lambda key: answer(400, error(html.escape(key))), id="HTML in JSON"),
        pytest.param(lambda key: answer(400, error(f"?key={quote(key, safe='')}")), id="a URL"),
        pytest.param(lambda key: sse(error(f"key {key} is bad")), id="an error in a stream"),
        pytest.param(lambda key: sse({"error": f"key {key} is bad"}), id="a text in a stream"),
        pytest.param(lambda key: sse(error(key, code="context_length_exceeded")), id="an overflow in a stream"),
        pytest.param(lambda key: answer(400, error(key, code="context_length_exceeded")), id="an overflow"),
        pytest.param(lambda key: answer(200, f"you sent Authorization: {key}"), id="no reply"),
        pytest.param(lambda key: answer(200, "x" * 70 + f" {key}"), id="a key where the excerpt ends"),
        pytest.param(lambda key: answer(200, {"authorization": key}), id="JSON that is no reply"),
        pytest.param(lambda key: httpx2.ReadError(f"could not send {key}"), id="a broken connection"),
        pytest.param(lambda key: httpx2.ConnectError(f"could not send {key}"), id="no connection"),
        pytest.param(lambda key: httpx2.LocalProtocolError(f"Illegal header value b'Bearer {key}'"), id="no header"),
        pytest.param(lambda key: httpx2.DecodingError(f"got {key}"), id="anything else"),
        pytest.param(lambda key: [httpx2.ReadError(f"lost {key}")], id="a broken stream"),
    ],
)
def test_no_error_holds_the_key(key: str, make: Callable[[str], Any]) -> None:
    """A server or library that quotes the key gets it nowhere near the user's screen, log or saved notebook."""
    with pytest.raises(ChatMagicError) as caught:
        Wire(make(key), environ={"OPENAI_API_KEY": key}).ask()

    assert_harmless(caught.value, key)
    spellings = [json.dumps(key)[1:-1], repr(key)[1:-1], html.escape(key), quote(key, safe="")]
    assert not [spelling for spelling in spellings if spelling in str(caught.value)]


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40))
def test_no_key_survives(key: str) -> None:
    """Whatever a key looks like, no message holds it."""
    key = f"%{key}%"  # which is no part of a traceback by chance
    for body in (error(f"bad key: {key}"), {"status": {"key": key}}):
        exc = refused(Wire(answer(400, body), environ={"OPENAI_API_KEY": key}))

        assert_harmless(exc, key)


@pytest.mark.parametrize(
    "secret",
    ["sk-proj-AbC_123-xyz", "sk-ant-api03-abc.def", "gsk_abcdefghij", "hf_abcdefghijk", "AIzaSyA1234567890abcdefghij"],
)
def test_what_looks_like_a_key_is_hidden(secret: str) -> None:
    """A server that quotes somebody else's key is not repeated either."""
    message = str(refused(Wire(answer(403, error(f"the key {secret} is not allowed here")))))

    assert secret not in message
    assert "the key [key] is not allowed here" in message


def test_a_header_that_cannot_be_sent_is_not_shown(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An organisation with a line break fails before anything is sent, and without the headers."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-\nX-Key: secret")

    with pytest.raises(EndpointError, match="OPENAI_ORG_ID") as caught:
        list(OpenAIClient(environ={"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY}).stream(asking()))

    assert server.bodies == []
    assert "secret" not in str(caught.value)
    assert_harmless(caught.value)


# With the engine


def turn(wire: Wire, view: SpyRenderer, slept: list[float] | None = None) -> Any:
    waits = [] if slept is None else slept
    return run_turn(
        Session("main"),
        "hi",
        client=wire.client,
        renderer=view,
        defaults=Settings({"model": "m"}),
        retry=Retry(sleep=waits.append),
    )


def test_a_passing_failure_is_tried_again_by_us_alone() -> None:
    """A 503 is sent again once, after the wait that the server asked for: the client does not retry on its own."""
    wire = Wire(answer(503, error("busy"), retry_after="3"), sse(chunk("fine", finish="stop")))
    slept: list[float] = []
    view = SpyRenderer()

    assert turn(wire, view, slept).reply == "fine"
    assert len(wire.requests) == 2
    assert sum(slept) == 3.0
    assert "busy" in view.notices[0]


def test_a_lasting_failure_is_not_tried_again() -> None:
    """No quota, no retry."""
    wire = Wire(answer(429, error(code="insufficient_quota")))

    with pytest.raises(RequestError, match="no credit"):
        turn(wire, SpyRenderer())

    assert len(wire.requests) == 1


def test_a_failure_leaves_the_client_usable(server: ChatServer) -> None:
    """After any error the next turn works."""
    server.answers = [Answer([b"oops"], status=500), Answer([b"junk"]), Answer([], status=401), text_answer("fine")]
    client = OpenAIClient({"here": {"url": server.url}}, environ={})
    for _ in range(3):
        with pytest.raises(RequestError):
            list(client.stream(asking(model="here:m")))

    assert Delta("fine") in list(client.stream(asking(model="here:m")))


def test_a_file_in_a_message_is_no_link() -> None:
    """JupyterLab makes a link of a file with a line number in an error: what a server says must not open files."""
    exc = refused(Wire(answer(400, error("see ./victim.py:1 and a.b:22"))))

    assert "./victim.py :1 and a.b :22" in str(exc)
