"""The offline model: its rules, and that it behaves as a server does."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.conversation.messages import Message, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.engine import run_turn
from chatmagic.errors import RequestError
from chatmagic.events import Delta, Event, Finished, Request, Sending, Used
from chatmagic.provider.client import OpenAIClient
from chatmagic.provider.demo import DemoTransport, answer
from chatmagic.testing import SpyRenderer
from tests.server import asking, said


def ask(*said: str, **how: Any) -> list[Event]:
    """Ask the demo through the real client; *said* alternates between user and assistant."""
    return list(OpenAIClient(environ={}).stream(asking(*said, **{"model": "demo", **how})))


def reply(*said: str, system: str | None = None) -> str:
    """What the rules say."""
    turns = [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(said)]
    return answer([{"role": "system", "content": system}, *turns] if system else turns)


# Rules


@pytest.mark.parametrize(
    ("prompt", "start"),
    [
        ("What did I say first?", "The first thing you said in this conversation was:"),
        ("what have I said first", "The first thing you said in this conversation was:"),
        ("Repeat my first question", "The first thing you said in this conversation was:"),
        ("What is my name?", "You have not told me your name"),
        ("what's my name", "You have not told me your name"),
        ("Who am I?", "You have not told me your name"),
        ("My name is Ada.", "Nice to meet you, **Ada**."),
        ("call me Zoë", "Nice to meet you, **Zoë**."),
        ("How many messages did you get?", "This request brought me **1** message: 1 user."),
        ("What is your system prompt?", "I have no system prompt in this conversation."),
        ("Please repeat that", "I have said nothing yet in this conversation."),
        ("Say it again", "I have said nothing yet in this conversation."),
        ("Give me 3 words", "word1 word2 word3"),
        ("Show me a table", "The messages of this request:\n\n| # | role | words |\n|--:|:-----|------:|"),
        ("Write some code", "The arithmetic mean, with nothing but Python:\n\n```python\n"),
        ("PYTHON please", "The arithmetic mean, with nothing but Python:\n\n```python\n"),
        ("Show me a formula", "The mean of $n$ values"),
        ("Mathematics!", "The mean of $n$ values"),
        ("Hello there", "I am chatmagic's offline demo: a few rules, no language model. You said:\n\n> Hello there"),
        ("", "I am chatmagic's offline demo"),
    ],
)
def test_a_prompt_meets_its_rule(prompt: str, start: str) -> None:
    """Each rule answers the prompts that are meant for it."""
    assert reply(prompt).startswith(start)


def test_the_first_thing_said_is_quoted() -> None:
    """The demo reads the history: it knows the first prompt, as a quotation of at most 60 words."""
    first = " ".join(["long"] * 70)

    assert reply(first, "ok", "What did I say first?").endswith("> " + " ".join(["long"] * 60) + " …")


def test_the_name_comes_from_the_history() -> None:
    """The newest name that was told wins, and the answer says in which message."""
    history = ["my name is Ada", "hi", "no, call me Grace", "hi", "What is my name?"]

    assert reply(*history) == "Your name is **Grace**: you told me in your message 2 of this conversation."


def test_a_name_that_was_not_sent_is_not_known() -> None:
    """Another conversation knows nothing of this one."""
    demo = OpenAIClient(environ={})

    def said_in(session: Session, prompt: str) -> str:
        return run_turn(
            session, prompt, client=demo, renderer=SpyRenderer(), defaults=Settings({"model": "demo"})
        ).reply

    one, two = Session("one"), Session("two")
    said_in(one, "My name is Ada.")
    said_in(two, "Hello")

    assert "**Ada**" in said_in(one, "What is my name?")
    assert "not told me" in said_in(two, "What is my name?")


def test_messages_are_counted_by_role() -> None:
    """The demo says what the request held."""
    assert reply("a", "b", "How many messages?", system="s") == (
        "This request brought me **4** messages: 1 system, 2 user, 1 assistant."
    )


def test_the_system_prompt_is_quoted() -> None:
    """The demo shows the system prompt that came with the request."""
    assert reply("What is your system prompt?", system="Be brief.") == "My system prompt is:\n\n> Be brief."


def test_the_last_reply_is_repeated() -> None:
    """Repeat gives the newest reply of the history, word for word."""
    assert reply("a", "one\n\n| x |", "b", "two\n\n| y |", "repeat that") == "two\n\n| y |"


def test_the_table_has_a_row_for_each_message() -> None:
    """The table lists the messages of the request with their length."""
    rows = reply("one two", "three", "a table", system="s").split("\n")[4:]

    assert rows == ["| 1 | system | 1 |", "| 2 | user | 2 |", "| 3 | assistant | 1 |", "| 4 | user | 2 |"]


def test_the_code_runs() -> None:
    """The Python that the demo shows does what it says."""
    code = reply("code").split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {}

    exec(code, namespace)

    assert namespace["mean"]([1, 2, 3]) == 2.0


@pytest.mark.parametrize("prompt", ["Hello", "", "repeat", "code and a table", "my name is"])
def test_every_reply_names_a_way_on_or_is_one(prompt: str) -> None:
    """No reply is empty: there is no turn without text."""
    assert reply(prompt).strip()


# Length


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 49, 50, 51, 300, 8000, 20_000])
def test_n_words_are_n_words(count: int) -> None:
    """Asked for N words, the demo gives exactly N, all different, and so many tokens."""
    events = ask(f"Please give me {count:,} words")

    words = said(events).split()
    assert words == [f"word{number}" for number in range(1, count + 1)]
    assert next(event.usage.output_tokens for event in events if isinstance(event, Used)) == count


def test_a_flood_is_bounded() -> None:
    """No number of words makes more than 20,000."""
    assert len(reply("9999999 words").split()) == 20_000


@pytest.mark.parametrize("prompt", ["0 words", "00 words", "12345678 words", "many words"])
def test_a_number_that_is_none_is_no_rule(prompt: str) -> None:
    """What cannot be a number of words gets the usual answer, not an empty one."""
    assert reply(prompt).startswith("I am chatmagic's offline demo")


@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
@pytest.mark.parametrize(
    ("limit", "finish"), [(1, "length"), (7, "length"), (299, "length"), (300, "stop"), (301, "stop")]
)
def test_a_limit_cuts_the_reply(name: str, limit: int, finish: str) -> None:
    """A reply that is longer than its limit ends there, with the reason length."""
    events = ask("300 words", **{name: limit})

    count = min(limit, 300)
    assert len(said(events).split()) == count
    assert events[-2:] == [Finished(finish), Used(Usage(2, count))]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_completion_tokens", 0),
        ("max_completion_tokens", -1),
        ("max_completion_tokens", "many"),
        ("max_tokens", 1.5),
        ("pace", 0),
        ("pace", -1),
        ("pace", "fast"),
        ("pace", 1e9),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(name: str, value: Any, stream: bool) -> None:
    """The demo refuses as a server does: 400, with the name and value of the parameter."""
    with pytest.raises(RequestError, match=name) as caught:
        ask("hi", stream=stream, **{name: value})

    assert caught.value.status == 400
    assert repr(value) in str(caught.value)


# As a server


@pytest.mark.parametrize("prompt", ["What did I say first?", "table", "300 words", "maths", "x"])
def test_the_same_request_has_the_same_answer(prompt: str) -> None:
    """Nothing but the messages decides: two requests, of two clients, end in the same events."""
    assert ask("hello", "hi", prompt) == ask("hello", "hi", prompt)


@settings(max_examples=100, deadline=None)
@given(prompt=st.text(max_size=60), stream=st.booleans())
def test_any_prompt_has_an_answer(prompt: str, stream: bool) -> None:
    """Whatever is asked, the stream and the whole answer are what the rules say, and end with stop."""
    events = ask(prompt, stream=stream)

    assert said(events) == reply(prompt).rstrip()
    assert Finished("stop") in events


def test_a_stream_has_the_form_of_a_stream() -> None:
    """The demo's reply comes word by word, with the reason for its end, then usage."""
    assert ask("3 words") == [
        Sending("demo", instant=True),
        Delta("word1"),
        Delta(" word2"),
        Delta(" word3"),
        Finished("stop"),
        Used(Usage(2, 3)),
    ]


def test_usage_counts_words() -> None:
    """One word is one token, of all messages and of the reply."""
    request = Request("demo", [Message("system", "be brief"), Message("user", "give me 5 words")])

    events = list(OpenAIClient(environ={}).stream(request))

    assert events[-1] == Used(Usage(6, 5))


def test_another_model_is_not_found() -> None:
    """The demo has one model."""
    with pytest.raises(RequestError, match="'gpt-6-luna' does not exist") as caught:
        ask("hi", model="demo:gpt-6-luna")

    assert (caught.value.status, caught.value.retryable) == (404, False)


def test_a_pace_slows_the_reply_down() -> None:
    """With a pace the words come one after the other; without one they are there at once."""
    started = time.perf_counter()
    ask("20 words", pace=200)
    paced = time.perf_counter() - started

    started = time.perf_counter()
    ask("20 words")
    instant = time.perf_counter() - started

    assert paced >= 20 / 200
    assert instant < paced


def test_a_paced_reply_can_be_stopped() -> None:
    """The first words are there long before the last one, and nobody has to wait for that one."""
    started = time.perf_counter()
    stream = OpenAIClient(environ={}).stream(asking("20000 words", model="demo", pace=100))

    assert [type(next(stream)) for _ in range(3)] == [Sending, Delta, Delta]
    stream.close()  # type: ignore[attr-defined]  # it is a generator, of which the Protocol says nothing

    assert time.perf_counter() - started < 2


@pytest.fixture
def plain() -> openai.OpenAI:
    """The openai client as anyone uses it, with the demo behind it."""
    http = openai.DefaultHttpx2Client(transport=DemoTransport())
    return openai.OpenAI(api_key="none", base_url="http://demo.invalid/v1", http_client=http, max_retries=0)


def test_the_typed_client_streams_from_it(plain: openai.OpenAI) -> None:
    """Code that was written for a real server works with the demo."""
    stream = plain.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "3 words"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "word1 word2 word3"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None] * 4 + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (2, 3)


def test_usage_comes_only_if_asked_for(plain: openai.OpenAI) -> None:
    """Without stream_options no chunk has usage, as with a real server."""
    chunks = list(
        plain.chat.completions.create(model="demo", messages=[{"role": "user", "content": "3 words"}], stream=True)
    )

    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_the_typed_client_gets_a_whole_answer(plain: openai.OpenAI) -> None:
    """Without a stream the answer comes in one piece, with usage."""
    whole = plain.chat.completions.create(model="demo", messages=[{"role": "user", "content": "3 words"}])

    assert whole.choices[0].message.content == "word1 word2 word3"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 5


def test_the_typed_client_lists_its_model(plain: openai.OpenAI) -> None:
    """The demo answers for its models."""
    assert [model.id for model in plain.models.list()] == ["demo"]


def test_the_typed_client_meets_its_errors(plain: openai.OpenAI) -> None:
    """An unknown model is the error that the openai client has for it."""
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        plain.chat.completions.create(model="gpt-6-luna", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="none"),
        pytest.param([{"role": "user", "content": [{"type": "text", "text": "hi"}]}], id="parts"),
        pytest.param([{"role": "assistant", "content": None}], id="null"),
        pytest.param([{"role": "user"}], id="no content"),
        pytest.param([{"role": "system", "content": "what did I say first?"}], id="only a system prompt"),
    ],
)
def test_what_the_demo_cannot_read_is_a_bad_request(messages: list[dict[str, Any]]) -> None:
    """Messages that are no texts are refused, not answered with a traceback."""
    url, body = "http://demo.invalid/v1/chat/completions", {"model": "demo", "messages": messages}

    response = DemoTransport().handle_request(httpx2.Request("POST", url, json=body))

    assert response.status_code == 400
    assert "messages" in response.json()["error"]["message"]
