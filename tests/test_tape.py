"""Record and replay: what is kept, how it is found again, and what is said when it is not."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from chatmagic import magics
from chatmagic.conversation.messages import Message, Turn
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.engine import run_turn
from chatmagic.errors import ChatMagicError, LineError, SettingError, TapeError
from chatmagic.events import Delta, Event, Finished, Reasoning, Remark, Request, Sending, Used
from chatmagic.listening import Retry
from chatmagic.provider import secrets
from chatmagic.provider.client import OpenAIClient
from chatmagic.provider.tape import Mode, Tape
from chatmagic.provider.taping import Deck, TapeTransport
from chatmagic.testing import SpyRenderer
from tests.server import CUT, HANG_UP, KEY, Answer, ChatServer, Wire, asking, chunk, said, sse, text_answer
from tests.test_client import CUTS, FULL, STOP, TEXT, WHOLE, deltas, pieces, taken
from tests.test_preview import failed, good

NOWHERE = "http://127.0.0.1:9/v1"  # nobody listens there


def chat(path: Path, mode: Mode, server: ChatServer | None = None, **how: Any) -> OpenAIClient:
    """A client with a tape, that knows *server* as the endpoint ``here``."""
    client = OpenAIClient({"here": {"url": server.url if server else NOWHERE}}, environ={})
    client.deck = Deck({})
    client.deck.put_in(path, mode, **how)
    return client


def tape_of(client: OpenAIClient) -> Tape:
    assert client.deck is not None
    assert client.deck.tape is not None
    return client.deck.tape


def ask(client: OpenAIClient, *said: str, system: str = "", **how: Any) -> list[Event]:
    """Ask ``here``; *said* are prompts and replies in turn."""
    request = asking(*said, model="here:m", **how)
    before = [Message("system", system)] if system else []
    return list(client.stream(replace(request, messages=[*before, *request.messages])))


def missed(client: OpenAIClient, *said: str, **how: Any) -> str:
    """Ask what the tape cannot answer, and return what is said about it."""
    with pytest.raises(TapeError) as caught:
        ask(client, *said, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def turn_of(client: OpenAIClient, prompt: str = "hi", session: Session | None = None, **how: Any) -> Turn:
    """One turn of a conversation."""
    defaults = Settings({"model": "here:m"})
    retry = Retry(1)
    return run_turn(
        session or Session("main"), prompt, client=client, renderer=SpyRenderer(), defaults=defaults, retry=retry, **how
    )


def transcript(turn: Turn) -> tuple[object, ...]:
    """What a turn says, whoever answered and however long it took."""
    return turn.prompt, turn.reply, turn.reasoning, turn.usage, turn.finish, turn.status, turn.endpoint


def told(events: Sequence[Event]) -> tuple[object, ...]:
    """What events say, in whatever pieces they came."""
    assert not any(isinstance(event, Remark) for event in events)
    thoughts = "".join(event.text for event in events if isinstance(event, Reasoning))
    used = [each for event in events if isinstance(event, Used) for each in asdict(event.usage).items()]
    ends = [event.reason for event in events if isinstance(event, Finished)]
    counts = {name: count for name, count in used if count is not None and name != "cost"}  # some report in parts
    return said(events), thoughts, ends[-1:], counts


def heads(path: Path) -> list[str]:
    """The first lines of the exchanges on a tape."""
    return re.findall(r"^--- .*", path.read_text(encoding="utf-8"), re.MULTILINE)


def chats(path: Path) -> int:
    """How many exchanges on a tape are no lists of models."""
    return len([head for head in heads(path) if " GET/models" not in head])


def count(path: Path, line: str) -> int:
    return path.read_text(encoding="utf-8").split("\n").count(line)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.tape"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tapes")


# The same, recorded and replayed


USED = {"choices": [], "usage": FULL}
STREAMS: dict[str, bytes] = {
    "plain": sse(chunk("hi "), chunk("there")) + STOP,
    "usage at the end": sse(chunk("hi"), chunk(finish="stop"), USED, "[DONE]"),
    "usage first": sse(USED, chunk("hi")) + STOP,
    "usage with the reason": sse(chunk("hi"), {**chunk(finish="stop"), "usage": FULL}, "[DONE]"),
    "usage in every chunk": sse(
        *({**chunk(word), "usage": {"prompt_tokens": 20, "completion_tokens": n}} for n, word in enumerate("abcd"))
    )
    + STOP,
    "usage in the choice": sse(
        chunk("hi"), {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": FULL}]}, "[DONE]"
    ),
    "usage of groq": sse(chunk("hi"), {**chunk(finish="stop"), "x_groq": {"usage": FULL}}, "[DONE]"),
    "usage in parts": sse(
        {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": None}},
        chunk("hi", finish="stop"),
        {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": 7}},
        "[DONE]",
    ),
    "timings of llama.cpp": sse(
        chunk("hi"),
        {**chunk(finish="stop"), "timings": {"prompt_n": 3, "cache_n": 4, "predicted_n": 5}},
        "[DONE]",
    ),
    "a price": sse(chunk("hi"), chunk(finish="stop"), {"choices": [], "usage": {**FULL, "cost": 0.25}}, "[DONE]"),
    "choices null": sse(chunk("hi"), chunk(finish="stop"), {"choices": None, "usage": FULL}, "[DONE]"),
    "CRLF": (sse(chunk("hi\r\nthere")) + STOP).replace(b"\n", b"\r\n"),
    "CR": (sse(chunk("hi")) + STOP).replace(b"\n", b"\r"),
    "byte order mark": b"\xef\xbb\xbf" + sse(chunk("hi")) + STOP,
    "pings": b": ping\n\nid: 1\nevent: x\n" + sse(chunk("hi")) + b": ping\n\nretry: 9\n\n" + STOP,
    "an event of two lines": b"data: {\ndata: " + json.dumps(chunk("a")).encode()[1:] + b"\n\n" + STOP,
    "no blanks": sse(chunk("a"), chunk("b")).replace(b"data: ", b"data:").replace(b"\n\n", b"\n") + STOP,
    "no [DONE]": sse(chunk("hi", finish="stop")),
    "no end of line": sse(chunk("hi", finish="stop")).rstrip(),
    "after [DONE]": sse(chunk("hi")) + STOP + sse(chunk("more")),
    "odd separators": sse(chunk("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh\x00i\x7f\ufeff")) + STOP,
    "separators as they are": json.dumps(chunk("a\u2028b\x85c"), ensure_ascii=False).join(("data: ", "\n\n")).encode()
    + STOP,
    "half characters": sse(chunk("\ud83d"), chunk("\ude00"), chunk("\ud83d")) + STOP,
    "no UTF-8": sse(chunk("HERE")).replace(b"HERE", b"caf\xe9") + STOP,
    "trailing blanks": sse(chunk("  a  \n"), chunk("\n \t\n```\nb \n```\n\n")) + STOP,
    "looks like a tape": sse(chunk("| a\n= 0.1 0.2\n\n--- 11111111 chat/completions\n> user\n| x\n<<<<<<< HEAD"))
    + STOP,
    "reasoning": sse(chunk(reasoning_content="hm "), chunk(reasoning_content="so"), chunk("yes")) + STOP,
    "reasoning, another name": sse(chunk(reasoning="hm "), chunk(reasoning="so"), chunk("yes")) + STOP,
    "reasoning under both names": sse(chunk(reasoning="hm", reasoning_content="hm"), chunk("yes")) + STOP,
    "reasoning that is the reply": sse(chunk(reasoning="yes"), chunk("yes")) + STOP,
    "reasoning between": sse(chunk("a"), chunk(reasoning="hm"), chunk("b")) + STOP,
    "refusal": sse(chunk(refusal="No"), chunk(refusal=".")) + STOP,
    "parts": sse(
        {"choices": [{"delta": {"content": [{"type": "text", "text": "a"}, {"type": "x"}]}}]}, chunk(finish="stop")
    ),
    "length": sse(chunk("hi", finish="length"), "[DONE]"),
    "filter": sse(chunk("hi"), chunk(finish="content_filter"), "[DONE]"),
    "an empty reason": sse(chunk("a", finish=""), chunk(finish="stop"), chunk(finish="")),
    "no index": sse({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}),
    "junk": sse({}, {"choices": [None]}, {"choices": [{"delta": "x"}]}, {"choices": "x"}, chunk("a")) + STOP,
    "null here and there": sse(
        {**chunk("a"), "usage": None}, {"choices": [{"index": 0, "delta": None, "finish_reason": None}]}
    )
    + STOP,
    "an error that is none": sse({**chunk("a"), "error": None}) + STOP,
    "whole": json.dumps(WHOLE).encode(),
    "whole, indented": json.dumps(WHOLE, indent=1, ensure_ascii=False).encode(),
    "whole, with a mark": b"\xef\xbb\xbf" + json.dumps(WHOLE).encode(),
    "whole, in an event": sse(WHOLE),
}


@pytest.mark.parametrize("stream", [True, False], ids=["as a stream", "as a whole"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_replay_is_the_recording(path: Path, server: ChatServer, name: str, stream: bool) -> None:
    """Whatever a server sends, the turn that a tape replays is the one that was recorded."""
    server.answers = [Answer([STREAMS[name]])]

    recorded = turn_of(chat(path, "record", server), stream=stream)
    replayed = turn_of(chat(path, "replay"), stream=stream)

    assert transcript(replayed) == transcript(recorded)
    assert recorded.reply


@pytest.mark.parametrize("name", STREAMS)
def test_the_way_of_an_answer_is_no_part_of_it(path: Path, server: ChatServer, name: str) -> None:
    """What was recorded as a stream answers a request for the whole, and the other way round."""
    server.answers = [Answer([STREAMS[name]])] * 2
    recorder = chat(path, "record", server)
    streamed, whole = ask(recorder, "a", stream=True), ask(recorder, "b", stream=False)
    player = chat(path, "replay")

    assert told(ask(player, "a", stream=False)) == told(streamed)
    assert told(ask(player, "b", stream=True)) == told(whole)


@settings(max_examples=100, deadline=None)
@given(
    text=TEXT.filter(str.strip),
    thought=TEXT,
    in_deltas=CUTS,
    in_bytes=CUTS,
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    packed=st.booleans(),
    field=st.sampled_from(["content", "refusal"]),
    last=st.sampled_from([STOP, STOP.rstrip(), sse(chunk(finish="length")), sse(chunk(finish="stop"), USED, "[DONE]")]),
)
def test_chunks_are_no_part_of_an_answer(
    folder: Path,
    text: str,
    thought: str,
    in_deltas: list[int],
    in_bytes: list[int],
    end: str,
    packed: bool,
    field: str,
    last: bytes,
) -> None:
    """Any text is replayed as it was recorded, however it was cut and compressed on its way."""
    path = folder / f"{uuid.uuid4().hex}.tape"
    body = sse(*(chunk(reasoning_content=piece) for piece in deltas(thought, in_deltas)))
    body += sse(*(chunk(**{field: piece}) for piece in deltas(text, in_deltas))) + last
    body = body.replace(b"\n", end.encode())
    headers = {"content-type": "text/event-stream", **({"content-encoding": "gzip"} if packed else {})}
    wire = Wire(
        httpx2.Response(200, headers=headers, stream=Body(pieces(gzip.compress(body) if packed else body, in_bytes)))
    )
    wire.client.deck = Deck({})
    wire.client.deck.put_in(path, "record")
    recorded = told(wire.ask())
    wire.client.deck.put_in(path, "replay")

    assert told(wire.ask()) == recorded
    assert recorded[:2] == (text, thought)
    assert len(wire.requests) == 1
    path.unlink()


class Body(httpx2.SyncByteStream):
    """A body in pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Any:
        yield from self._pieces


def test_a_recording_streams(path: Path, server: ChatServer) -> None:
    """While it is recorded, a reply comes piece by piece, as without a tape."""
    server.answers = [text_answer(["a", "b", "c"], pause=0.05)]

    events = ask(chat(path, "record", server))

    assert events[:4] == [Sending("here"), Delta("a"), Delta("b"), Delta("c")]


def test_a_conversation_is_replayed(path: Path, server: ChatServer) -> None:
    """All turns of a conversation are replayed, though no server is there, no key, and no connection is opened."""
    server.otherwise = lambda body: text_answer(f"I got {body['messages'][-1]['content']}.")
    recorder, recorded = chat(path, "record", server), Session("main")
    for number in range(5):
        turn_of(recorder, f"No. {number}", recorded)
    connections = server.connections
    player, replayed = chat(path, "replay", server), Session("main")
    for number in range(5):
        turn_of(player, f"No. {number}", replayed)

    assert [transcript(turn) for turn in replayed.turns] == [transcript(turn) for turn in recorded.turns]
    assert server.connections == connections
    assert tape_of(player).unused == []


# What is the same question


ONCE: dict[str, Any] = {"temperature": 0.0, "max_tokens": 50, "logit_bias": {"1": 2, "3": 4.0}}


@pytest.mark.parametrize(
    "again",
    [
        pytest.param({"temperature": 0.0, "max_tokens": 50, "logit_bias": {"1": 2, "3": 4.0}}, id="the same"),
        pytest.param({"logit_bias": {"3": 4, "1": 2}, "max_tokens": 50, "temperature": 0.0}, id="other order"),
        pytest.param({"temperature": 0, "max_tokens": 50.0, "logit_bias": {"1": 2.0, "3": 4}}, id="0 and 0.0"),
        pytest.param({**ONCE, "temperature": -0.0}, id="-0.0"),
        pytest.param({**ONCE, "stream_options": {"include_usage": False}}, id="stream_options"),
        pytest.param({**ONCE, "prompt_cache_key": "x"}, id="prompt_cache_key"),
    ],
)
def test_the_same_question_is_found(path: Path, server: ChatServer, again: dict[str, Any]) -> None:
    """The order of keys, how a number is spelled and how the answer travels make no other question."""
    ask(chat(path, "record", server), **ONCE)

    assert said(ask(chat(path, "replay"), **again)) == "pong"


@pytest.mark.parametrize(
    ("base", "call"),
    [
        ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/api/v3/openai"),
        ("https://one.example/v1/", "http://[::1]:8000/v1"),
        ("https://h/openai/deployments/gpt-4", "https://other/openai/v1"),
    ],
)
def test_a_host_is_no_part_of_a_question(path: Path, base: str, call: str) -> None:
    """What one server said is replayed for another base URL."""
    far = Far(WHOLE)
    reply(far.api(path, "record", base_url=base))

    assert reply(Far().api(path, "replay", base_url=call)) == "whole\u2028"


def test_what_is_asked_again_has_each_answer_in_its_turn(path: Path, server: ChatServer) -> None:
    """The same question asked several times gets the answers in the order of the recording, and then from the first."""
    server.answers = [text_answer(word) for word in ("one", "two", "three")]
    recorder = chat(path, "record", server)
    for _ in range(3):
        ask(recorder)
    player = chat(path, "replay")

    assert [said(ask(player)) for _ in range(7)] == ["one", "two", "three", "one", "two", "three", "one"]
    assert [tape_of(player).used(each.label) for each in tape_of(player).exchanges] == [3, 2, 2]


@settings(max_examples=40, deadline=None)
@given(first=TEXT, second=TEXT)
def test_only_what_was_asked_is_found(folder: Path, first: str, second: str) -> None:
    """A prompt is answered by what was recorded for just this prompt, whatever it holds."""
    path = folder / f"{uuid.uuid4().hex}.tape"
    wire = Wire(STREAMS["plain"])
    wire.client.deck = Deck({})
    wire.client.deck.put_in(path, "record")
    wire.ask(first)
    wire.client.deck.put_in(path, "replay")

    assert said(wire.ask(first)) == "hi there"
    if first != second:
        with pytest.raises(TapeError):
            wire.ask(second)
    path.unlink()


# Misses


TALK = ["What is a mean?", "A sum by a count.", "And the median?", "The value in the middle.", "Which is robust?"]


@pytest.fixture
def player(path: Path, server: ChatServer) -> OpenAIClient:
    """A client that replays three turns."""
    recorder = chat(path, "record", server)
    for end in (1, 3, 5):
        server.answers = [text_answer((*TALK, "The median.")[end])]
        ask(recorder, *TALK[:end], system="Be brief.", temperature=0.5)
    server.bodies.clear()
    return chat(path, "replay", server)


@pytest.mark.parametrize(
    ("talk", "how", "why"),
    [
        pytest.param(
            [*TALK[:4], "Which is stable?"], {}, "the prompt of turn 3 has 'Which is robust?' there, 'Which is stable?'"
        ),
        pytest.param(
            [*TALK[:2], "And the mode?", *TALK[3:]], {}, "turn 2 has 'And the median?' there, 'And the mode?' here."
        ),
        pytest.param([TALK[0], "A quotient.", *TALK[2:]], {}, "the reply of turn 1 has 'A sum by a count.' there"),
        pytest.param(TALK, {"temperature": 0.7}, "temperature is 0.5 there, 0.7 here."),
        pytest.param(TALK, {"temperature": None}, "temperature is 0.5 there, null here."),
        pytest.param(TALK, {"seed": 1}, "seed is not set there, 1 here."),
        pytest.param(TALK, {"system": "Be long."}, "the system message has 'Be brief.' there, 'Be long.' here."),
        pytest.param(TALK, {"system": ""}, "the system message 'Be brief.' is there only."),
        pytest.param([*TALK, "It.", "Why?"], {}, "'It.' here; the prompt of turn 4 'Why?' is here only."),
        pytest.param([*TALK[:4], "And", "so"], {}, "'And' here; the reply of turn 3 'so' is here only."),
        pytest.param([*TALK, "The median.", "And", "so", "on"], {}, "'And' is here only; 2 more messages here."),
        pytest.param([TALK[0], TALK[1]], {}, "the reply of turn 1 'A sum by a count.' is here only."),
        pytest.param([*TALK[:4], f"{TALK[4]}  "], {}, "has '…·is·robust?' there, '…·is·robust?··' here."),
        pytest.param(TALK[4:], {}, "the prompt of turn 1 has 'What is a mean?' there, 'Which is robust?' here"),
        pytest.param(
            [*TALK[:4], f"{TALK[4]} {'word ' * 5000}"], {"seed": 5, "top_p": 1}, "seed is not set there, 5 here; top_p"
        ),
    ],
)  # fmt: skip
def test_a_miss_says_what_is_different(
    player: OpenAIClient, server: ChatServer, talk: list[str], how: dict[str, Any], why: str
) -> None:
    """A question that is not on the tape names the nearest exchange and the difference, and nothing is sent."""
    message = missed(player, *talk, **{"system": "Be brief.", "temperature": 0.5, **how})

    assert "'chat.tape' has no answer to this, and nothing was sent. Nearest is " in message
    assert why in message
    assert server.bodies == []
    assert len(message) < 800


def test_a_miss_names_the_nearest(player: OpenAIClient, path: Path) -> None:
    """Of all exchanges the one with the fewest differences is named, by the label that it has in the file."""
    third = heads(path)[2].split()[1]

    assert f"Nearest is {third}:" in missed(player, *TALK[:4], "Which one?", system="Be brief.", temperature=0.5)


def test_a_new_prompt_is_named(player: OpenAIClient, path: Path) -> None:
    """Who goes on behind what is on the tape hears of the new prompt, and of nothing that is on it."""
    replies = re.findall(r"< assistant\n\| (.*)", path.read_text("utf-8"))
    message = missed(player, *TALK, replies[-1], "And now?", system="Be brief.", temperature=0.5)

    assert message.endswith(
        ": the prompt of turn 4 'And now?' is here only. "
        "To record it: %chat replay FILE --auto, or CHATMAGIC_TAPE_MODE=auto"
    )


def test_a_miss_of_another_kind_says_so(player: OpenAIClient, server: ChatServer) -> None:
    """Where nothing of its kind is on the tape, a request is not compared with something else."""
    with pytest.raises(TapeError, match=r"It has no exchange of this kind \(embeddings\)"):
        player.embed("here:m", ["a"])

    assert server.bodies == []


def test_true_is_not_1(path: Path, server: ChatServer) -> None:
    """A miss has a reason that can be read, even where Python takes two values for equal."""
    ask(chat(path, "record", server), seed=True)

    assert "seed is true there, 1 here" in missed(chat(path, "replay"), seed=1)


def test_a_miss_is_deterministic(player: OpenAIClient) -> None:
    """The same miss says the same, word for word: notebooks compare it."""
    assert missed(player, "x") == missed(player, "x")


def test_a_miss_leaves_the_session_as_it_was(player: OpenAIClient) -> None:
    """A turn that the tape does not have is no turn."""
    session = Session("main")

    with pytest.raises(TapeError):
        turn_of(player, "What?", session)

    assert session.turns == []


# What is kept


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer([b'{"error": {"message": "no"}}'], status=400), id="400"),
        pytest.param(Answer([sse(chunk("hi")) + STOP], status=404), id="404 with a reply"),
        pytest.param(Answer([b'{"error": {"message": "no"}}'], status=429), id="429"),
        pytest.param(Answer([b'{"error": {"message": "no"}}'], status=500), id="500"),
        pytest.param(Answer([b"<html>Sign in</html>"]), id="HTML"),
        pytest.param(Answer([]), id="nothing"),
        pytest.param(Answer([b"[1, 2]"]), id="a list"),
        pytest.param(Answer([b'{"status": "ok"}']), id="some JSON"),
        pytest.param(Answer([b"[" * 100_000]), id="nested too deep"),
        pytest.param(Answer([b'{"choices": []}']), id="no choices"),
        pytest.param(Answer([b'{"error": {"message": "no"}}']), id="an error as a whole"),
        pytest.param(Answer([sse(chunk("half"), {"error": {"message": "boom"}})]), id="an error in the stream"),
        pytest.param(Answer([sse(chunk("hi", finish="stop"), {"error": {"message": "x"}})]), id="an error at the end"),
        pytest.param(Answer([sse(chunk("half")), b"data: junk\n\n"]), id="a junk event"),
        pytest.param(Answer([sse(chunk("half")), CUT]), id="a cut"),
        pytest.param(Answer([sse(chunk("all", finish="stop")), CUT]), id="a cut before the usage"),
        pytest.param(Answer([sse(chunk("half")) + b'data: {"choi', CUT]), id="a cut in an event"),
        pytest.param(Answer([json.dumps(WHOLE).encode()[:-1]]), id="half of the whole"),
        pytest.param(Answer([sse(chunk("half"), "[DONE]")]), id="no reason"),
        pytest.param(Answer([sse(chunk("half"))]), id="no end"),
        pytest.param(Answer([STOP]), id="no text"),
        pytest.param(Answer([sse(chunk(""), chunk(content="")) + STOP]), id="empty text"),
        pytest.param(Answer([sse(chunk(reasoning="hm")) + STOP]), id="reasoning only"),
        pytest.param(Answer([sse({**chunk("a"), "choices": []}, USED, "[DONE]")]), id="usage only"),
        pytest.param(
            Answer([gzip.compress(sse(chunk("h")) + STOP)[:20]], headers={"content-encoding": "gzip"}), id="half gzip"
        ),
        pytest.param(Answer([b"no gzip"], headers={"content-encoding": "gzip"}), id="no gzip"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["record", "auto"])
def test_what_is_no_whole_reply_is_not_kept(path: Path, server: ChatServer, answer: Answer, mode: Mode) -> None:
    """Failures, cuts, and replies without an end or a text are not on the tape; what comes next is."""
    server.answers = [answer, answer]
    client = chat(path, mode, server)
    untaped = OpenAIClient(client.endpoints, environ={})

    came = taken(client.stream(asking(model="here:m")))

    assert repr(came) == repr(taken(untaped.stream(asking(model="here:m"))))
    assert not path.exists()
    assert tape_of(client).exchanges == []
    ask(client)
    assert len(Tape(path, "replay").exchanges) == 1


@pytest.mark.parametrize("after", [1, 2, 4, 5])
@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_what_is_stopped_is_not_kept(path: Path, server: ChatServer, after: int, how: str) -> None:
    """A reply that the user stopped is not on the tape, also if it had its last word and the usage had not come."""
    server.answers = [
        Answer(
            [sse(chunk("a")), 0.02, sse(chunk("b")), 0.02, sse(chunk("c")), 0.02, sse(chunk(finish="stop")), 3.0, STOP]
        )
    ]
    client = chat(path, "record", server)
    stream: Any = client.stream(asking(model="here:m"))
    for _ in range(after):
        next(stream)

    if how == "close":
        stream.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)

    assert tape_of(client).exchanges == []
    assert not path.exists()


@pytest.mark.parametrize("depth", [100, *range(200, 900, 40)])
def test_a_reply_that_nests_deep_is_a_reply(path: Path, server: ChatServer, depth: int) -> None:
    """Whatever else a server says around its reply, the reply is shown, and the tape can be read."""
    body = json.dumps({**WHOLE, "deep": "DEEP"}).replace('"DEEP"', "[" * depth + "]" * depth).encode()
    server.answers = [Answer([body])]

    assert said(ask(chat(path, "record", server))) == "whole\u2028"

    if path.exists():
        assert said(ask(chat(path, "replay"))) == "whole\u2028"


def test_a_server_that_does_not_hang_up_is_recorded(path: Path, server: ChatServer) -> None:
    """What has come as a whole is kept, though the connection stays open."""
    server.answers = [Answer([sse(chunk("done")), STOP, 5.0, HANG_UP])]

    ask(chat(path, "record", server))

    assert said(ask(chat(path, "replay"))) == "done"


def test_a_file_is_whole_after_every_reply(path: Path, server: ChatServer) -> None:
    """After each reply the file can be read, has all exchanges, and nothing else lies beside it."""
    client = chat(path, "record", server)
    for number in range(5):
        ask(client, str(number))

        assert len(Tape(path, "replay").exchanges) == number + 1
        assert os.listdir(path.parent) == [path.name]


def test_each_turn_stores_its_new_messages_only(path: Path, server: ChatServer) -> None:
    """A conversation of thirty turns has each prompt and each reply once on its tape, and the system prompt once."""
    server.otherwise = lambda body: text_answer(f"Reply to {body['messages'][-1]['content']}")
    client, session = chat(path, "record", server), Session("main")
    options = Settings({"system": "Be brief."})
    for number in range(30):
        turn_of(client, f"prompt {number}", session, options=options)

    assert [count(path, line) for line in ("> system", "> user", "> assistant", "< assistant")] == [1, 30, 0, 30]
    assert [count(path, f"| prompt {number}") for number in range(30)] == [1] * 30
    assert all(re.search(r" after [0-9a-f]{8}$", head) for head in heads(path)[1:])


def test_a_new_system_prompt_takes_the_place_of_the_old_one(path: Path, server: ChatServer) -> None:
    """After a change of the system prompt a turn stores that and what is new; without one it says so."""
    recorder = chat(path, "record", server)
    systems = ["Be brief.", "Be long.", "", "Be brief."]
    for turn, system in enumerate(systems):
        ask(recorder, *["hi", "pong"] * turn, "end", system=system)
        recorder, before = chat(path, "record", server), recorder
        before.close()
    player = chat(path, "replay")

    assert [said(ask(player, *["hi", "pong"] * n, "end", system=each)) for n, each in enumerate(systems)] == [
        "pong"
    ] * 4
    assert tape_of(player).unused == []
    assert [len(each.question.items) for each in tape_of(player).exchanges] == [2, 4, 5, 8]


def test_a_turn_without_the_system_prompt_of_the_one_before_says_so(path: Path, server: ChatServer) -> None:
    """A turn that goes on from one with a system prompt, but sends none, is not replayed for one that sends it."""
    recorder = chat(path, "record", server)
    ask(recorder, "a", system="Be brief.")
    ask(recorder, "a", "pong", "b")

    assert heads(path)[1].endswith(" without system")
    player = chat(path, "replay")
    assert said(ask(player, "a", "pong", "b")) == "pong"
    assert "the system message 'Be brief.' is here only." in missed(player, "a", "pong", "b", system="Be brief.")


def test_forks_and_cut_histories_chain(path: Path, server: ChatServer) -> None:
    """Whatever a turn shares with an earlier one from the start is not stored again."""
    talks = [
        ["a"],
        ["a", "pong", "b"],
        ["a", "pong", "b", "pong", "c"],
        ["a", "pong", "other"],  # a fork
        ["a", "pong", "b", "edited", "c"],  # a reply that was edited
        ["a", "else"],  # from the middle of the first
        ["b", "pong", "c"],  # what was cut off in front is stored again
        ["a", "pong", "b", "pong", "c"],  # --retry
    ]
    recorder = chat(path, "record", server)
    for talk in talks:
        ask(recorder, *talk)
    player = chat(path, "replay")

    assert [said(ask(player, *talk)) for talk in talks] == ["pong"] * len(talks)
    assert tape_of(player).unused == []
    labels = [head.split()[1] for head in heads(path)]
    assert [head.partition(" after ")[2] for head in heads(path)] == [
        "", labels[0], labels[1], labels[0], f"{labels[1]}:3", f"{labels[0]}:1", "", f"{labels[2]}:5"
    ]  # fmt: skip
    assert labels[7] == f"{labels[2]}-2"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "s", "t"]), st.lists(st.sampled_from("ab"), min_size=1, max_size=5)), max_size=8
    )
)
def test_any_requests_are_recorded_as_they_were(folder: Path, talks: list[tuple[str, list[str]]]) -> None:
    """In whatever order conversations branch, each exchange on the tape asks just what was asked."""
    path = folder / f"{uuid.uuid4().hex}.tape"
    wire = Wire(sse(chunk("a")) + STOP)
    wire.client.deck = Deck({})
    wire.client.deck.put_in(path, "record")
    asked = []
    for system, talk in talks:
        messages = [*([Message("system", system)] if system else []), *asking(*talk).messages]
        list(wire.client.stream(Request("m", messages)))
        asked.append([{"role": each.role, "content": each.content} for each in messages])

    assert [each.question.items for each in Tape(path, "auto").exchanges] == asked
    path.unlink(missing_ok=True)


def test_continue_and_retry_are_replayed(path: Path, server: ChatServer) -> None:
    """A turn that goes on, and one that is asked once more, are replayed as they were recorded."""

    def talk(client: OpenAIClient) -> list[tuple[object, ...]]:
        session = Session("main")
        first = turn_of(client, "one", session)
        long = turn_of(client, "one", session, instead=first, go_on=True, start=session.state)
        again = turn_of(client, "two", session)
        return [transcript(each) for each in (first, long, again, turn_of(client, "two", session))]

    words = iter("abcdefgh")
    server.otherwise = lambda _: text_answer(next(words), finish="length")
    recorded = talk(chat(path, "record", server))
    server.bodies.clear()

    assert talk(chat(path, "replay", server)) == recorded
    assert server.bodies == []


def counted(word: str, body: dict[str, Any]) -> Answer:
    return text_answer(f"{word} {len(body['messages'])}")


def test_recording_again_replaces(path: Path, server: ChatServer) -> None:
    """A second recording changes the answers only: labels, order and all else in the file stay."""
    for word in ("one", "two"):
        server.otherwise = partial(counted, word)
        client, session = chat(path, "record", server), Session("main")
        for prompt in "abc":
            turn_of(client, prompt, session)
        if word == "one":
            before = path.read_text()

    timeless = re.compile(r"^= .*", re.MULTILINE)
    assert timeless.sub("", path.read_text()) == timeless.sub("", before.replace("| one", "| two"))
    player, session = chat(path, "replay"), Session("main")
    assert [turn_of(player, prompt, session).reply for prompt in "abc"] == ["two 1", "two 3", "two 5"]
    assert tape_of(player).unused == []


@settings(max_examples=40, deadline=None)
@given(
    first=st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), max_size=5),
    second=st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), max_size=5),
    prune=st.booleans(),
)
def test_the_newest_recording_is_replayed(
    folder: Path, first: list[list[str]], second: list[list[str]], prune: bool
) -> None:
    """Whatever was recorded before, the conversations of the newest recording are replayed as they were."""
    path, numbers = folder / f"{uuid.uuid4().hex}.tape", iter(range(1000))
    wire = Wire(b"")
    wire.client.deck = Deck({})

    def talk(prompts: list[str], *, record: bool) -> list[str]:
        said_so_far: list[str] = []
        for prompt in prompts:
            wire.answers = [sse(chunk(f"reply {next(numbers)}")) + STOP] if record else []
            said_so_far += [prompt, said(wire.ask(*said_so_far, prompt))]
        return said_so_far

    wire.client.deck.put_in(path, "record")
    for prompts in first:
        talk(prompts, record=True)
    tape = wire.client.deck.put_in(path, "record")
    recorded = [talk(prompts, record=True) for prompts in second]
    if prune:
        tape.prune()
    if second:
        wire.client.deck.put_in(path, "replay")

    assert [talk(prompts, record=False) for prompts in second] == recorded
    path.unlink(missing_ok=True)


def test_recording_one_turn_again_keeps_those_behind_it(path: Path, server: ChatServer) -> None:
    """When one answer is recorded anew, the turns that went on from it go on from the new one."""
    server.otherwise = lambda _: text_answer("old")
    client, session = chat(path, "record", server), Session("main")
    for prompt in "abc":
        turn_of(client, prompt, session)
    server.otherwise = lambda _: text_answer("new")

    turn_of(chat(path, "record", server), "a")

    player, session = chat(path, "replay"), Session("main")
    assert [turn_of(player, prompt, session).reply for prompt in "abc"] == ["new", "old", "old"]


def test_recording_adds_to_what_is_there(path: Path, server: ChatServer) -> None:
    """What a second recording does not ask stays on the tape."""
    ask(chat(path, "record", server), "a")
    ask(chat(path, "record", server), "b")

    assert said(ask(chat(path, "replay"), "a")) == "pong"


def test_auto_asks_only_for_what_is_not_there(path: Path, server: ChatServer) -> None:
    """In auto mode what the tape has is replayed, and what it has not is asked for and kept, and then replayed."""
    ask(chat(path, "record", server), "a")
    server.bodies.clear()
    client = chat(path, "auto", server)

    assert [said(ask(client, word)) for word in "abab"] == ["pong"] * 4
    assert [body["messages"][0]["content"] for body in server.bodies] == ["b"]
    assert [tape_of(client).used(each.label) for each in tape_of(client).exchanges] == [2, 2]


def test_prune_keeps_the_rest_as_it_is(path: Path, server: ChatServer) -> None:
    """Pruning deletes what was not used; the rest asks and answers what it did, also where it went on from that."""
    talks = [["a"], ["a", "pong", "b"], ["a", "pong", "b", "pong", "c"], ["x"], ["a", "pong", "other"]]
    recorder = chat(path, "record", server)
    for talk in talks:
        ask(recorder, *talk, system="Be brief." if len(talk) > 1 else "")
    used = chat(path, "replay")
    for talk in talks[2::2]:
        ask(used, *talk, system="Be brief.")
    before = {each.label: each for each in tape_of(used).exchanges}

    assert tape_of(used).prune() == 3

    after = Tape(path, "replay").exchanges
    assert len(after) == 2
    assert all(each == before[each.label] for each in after)
    assert tape_of(used).unused == []
    assert tape_of(used).prune() == 0


# Files that change, and disks


def test_an_edit_by_hand_counts(path: Path, server: ChatServer) -> None:
    """What somebody changes in the file is replayed from then on, and the turns behind it go on from that."""
    recorder = chat(path, "record", server)
    ask(recorder, "a")
    ask(recorder, "a", "pong", "b")
    player = chat(path, "replay")
    assert said(ask(player, "a")) == "pong"

    path.write_text(path.read_text().replace("| pong", "| ping", 1))

    assert said(ask(player, "a")) == "ping"
    assert said(ask(player, "a", "ping", "b")) == "pong"


def test_a_tape_that_is_damaged_meanwhile_says_so_until_it_is_whole(path: Path, server: ChatServer) -> None:
    """A file that somebody broke is an error at each request, never an old answer, until it can be read again."""
    ask(chat(path, "record", server))
    player, text = chat(path, "replay"), path.read_text()
    path.write_text(text.replace("> user", "<<<<<<< HEAD\n> user"))
    assert "damaged in line" in missed(player)
    assert "damaged in line" in missed(player)

    path.write_text(text)

    assert said(ask(player)) == "pong"


def test_a_damaged_tape_is_not_written_over(path: Path, server: ChatServer) -> None:
    """While somebody's edit cannot be read, a recording leaves the file alone and says so; the reply is shown."""
    client = chat(path, "record", server)
    ask(client, "a")
    path.write_text("<<<<<<< HEAD\n" + path.read_text())
    text = path.read_text()

    events = ask(client, "b")

    assert said(events) == "pong"
    assert "not on the tape: 'chat.tape' is no tape" in str(events[-1])
    assert path.read_text() == text


def test_a_tape_that_is_deleted_while_it_plays_says_so(path: Path, server: ChatServer) -> None:
    """A file that is gone answers nothing."""
    ask(chat(path, "record", server))
    player = chat(path, "replay")
    path.unlink()

    assert "there is no tape" in missed(player)


def test_a_tape_that_is_deleted_while_it_records_begins_again(path: Path, server: ChatServer) -> None:
    """Who deletes the file of a recording gets a new one that can be read on its own."""
    client = chat(path, "record", server)
    ask(client, "a")
    path.unlink()

    ask(client, "a", "pong", "b")

    assert [len(each.question.items) for each in Tape(path, "replay").exchanges] == [3]


@pytest.mark.parametrize("mode", ["record", "auto"])
@pytest.mark.parametrize(
    ("place", "why"),
    [("no/such/a.tape", "there is no folder"), ("file/a.tape", "cannot be written"), (".", "is no file")],
)
def test_a_tape_that_cannot_be_written_is_refused_at_once(tmp_path: Path, place: str, why: str, mode: Mode) -> None:
    """Before anything is paid for it is known that it cannot be kept."""
    (tmp_path / "file").touch()

    with pytest.raises(TapeError, match=why):
        Tape(tmp_path / place, mode)


def test_trouble_with_the_disk_costs_no_reply(tmp_path: Path, server: ChatServer) -> None:
    """When the disk fails in the middle of a recording the turn is kept, with a notice, and the next ones too."""
    place = tmp_path / "folder"
    place.mkdir()
    client, session, view = chat(place / "a.tape", "record", server), Session("main"), SpyRenderer()
    turn_of(client, "a", session)
    shutil.rmtree(place)
    place.touch()

    run_turn(session, "b", client=client, renderer=view, defaults=Settings({"model": "here:m"}))

    assert [turn.reply for turn in session.turns] == ["pong", "pong"]
    assert any("this exchange is not on the tape: " in str(call) for call in vars(view).values())
    place.unlink()
    place.mkdir()
    turn_of(client, "c", session)
    assert said(ask(chat(place / "a.tape", "replay"), "a", "pong", "b", "pong", "c")) == "pong"


def test_a_tape_behind_a_link_stays_there(tmp_path: Path, server: ChatServer) -> None:
    """A link to a tape is followed, not replaced."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.tape"
    link.symlink_to(tmp_path / "real" / "a.tape")

    ask(chat(link, "record", server))

    assert link.is_symlink()
    assert said(ask(chat(tmp_path / "real" / "a.tape", "replay"))) == "pong"


# Several at once


def record_many(path: str, url: str, name: str) -> None:
    """Record 25 exchanges, in a process of its own."""
    client = OpenAIClient({"here": {"url": url}}, environ={})
    client.deck = Deck({})
    client.deck.put_in(Path(path), "record")
    for number in range(25):
        assert not [event for event in ask(client, f"{name} {number}", "pong", "end") if isinstance(event, Remark)]


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.test_tape"])


def all_there(path: Path) -> bool:
    asked = {each.question.items[0]["content"] for each in Tape(path, "replay").exchanges}
    return asked == {f"{name} {number}" for name in "abcd" for number in range(25)}


def test_several_kernels_record_on_one_tape(path: Path, server: ChatServer) -> None:
    """Four processes that record at once lose nothing of each other."""
    processes = [FORKS.Process(target=record_many, args=(str(path), server.url, name)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0] * 4
    assert len(heads(path)) == 100
    assert all_there(path)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("tapes", [1, 4], ids=["one tape", "a tape each"])
def test_several_threads_record_on_one_tape(path: Path, server: ChatServer, tapes: int) -> None:
    """Four threads that record at once lose nothing of each other, with one client or with four."""
    clients = [chat(path, "record", server) for _ in range(tapes)]

    def record(number: int) -> None:
        for each in range(25):
            ask(clients[number % tapes], f"{'abcd'[number]} {each}", "pong", "end")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, range(4)))

    assert len(heads(path)) == 100
    assert all_there(path)


def test_several_threads_replay_one_tape(path: Path, server: ChatServer) -> None:
    """Each of several answers to one question is given as often as the others, whoever asks."""
    server.answers = [text_answer(word) for word in "abcd"]
    recorder = chat(path, "record", server)
    for _ in range(4):
        ask(recorder)
    player = chat(path, "replay")

    with ThreadPoolExecutor(4) as pool:
        words = list(pool.map(lambda _: said(ask(player)), range(40)))

    assert sorted(words) == sorted("abcd" * 10)


# The real client of openai


class Far:
    """Servers with prepared answers: JSON, or the bytes of a stream; ``sent`` is what they got."""

    def __init__(self, *answers: dict[str, Any] | bytes | httpx2.Response) -> None:
        self.answers = list(answers)
        self.sent: list[httpx2.Request] = []

    def respond(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx2.Response):
            return answer
        if isinstance(answer, bytes):
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=answer)
        return httpx2.Response(200, json=answer)

    def api(self, path: Path, mode: Mode, *, keys: Callable[[], Sequence[str]] = tuple, **how: Any) -> openai.OpenAI:
        """The client of openai, with a tape between it and these servers."""
        transport = TapeTransport(Tape(path, mode, keys=keys), httpx2.MockTransport(self.respond))
        http = openai.DefaultHttpx2Client(transport=transport)
        return openai.OpenAI(**{"api_key": KEY, "base_url": NOWHERE, "max_retries": 0, **how}, http_client=http)


def reply(client: openai.OpenAI, prompt: str = "hi", **how: Any) -> Any:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}], **how)
    return answer.choices[0].message.content


def without_ids(value: Any) -> Any:
    """JSON without what each server makes up for itself, and without what is null."""
    if isinstance(value, Mapping):
        volatile = (
            "id",
            "created",
            "created_at",
            "model",
            "system_fingerprint",
            "object",
            "obfuscation",
            "service_tier",
        )
        return {
            key: without_ids(each) for key, each in value.items() if key not in volatile and each not in (None, [], "")
        }
    return [without_ids(each) for each in value] if isinstance(value, list) else value


CALLS: list[dict[str, Any]] = [
    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "é\\n"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "go", "arguments": "{}"}},
]


def message(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, **fields}


def completion(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    every = [{"index": number, "finish_reason": "stop", **each} for number, each in enumerate(choices)]
    frame = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m-1"}
    return {**frame, "choices": every, "usage": {**FULL}, **fields}


LOGPROBS = {"content": [{"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}], "refusal": None}
COMPLETIONS = {
    "tool calls": completion({"message": message(tool_calls=CALLS), "finish_reason": "tool_calls"}),
    "text and tool calls": completion({"message": message(content="I look.", tool_calls=CALLS)}),
    "structured": completion({"message": message(content='{\n  "name": "x",\n  "n": [1, 2]\n}')}),
    "two choices": completion({"message": message(content="a")}, {"message": message(content="b")}),
    "refusal": completion({"message": message(refusal="No.")}),
    "logprobs": completion({"message": message(content="hi"), "logprobs": LOGPROBS}),
    "annotations": completion({"message": message(content="hi", annotations=[{"type": "url_citation", "url_citation": {
        "start_index": 0, "end_index": 2, "url": "https://h/", "title": "t"}}])}),
    "audio": completion({"message": message(audio={"id": "a", "data": "UklG", "expires_at": 1, "transcript": "hi"})}),
    "fields of others": completion({"message": message(content="hi", reasoning_content="hm"), "stop_reason": None},
                                   citations=["https://h/"], provider="X"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions_are_replayed(path: Path, name: str) -> None:
    """What the client of openai makes of an answer is the same when the tape gives it."""
    how: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    recorded = Far(COMPLETIONS[name]).api(path, "record").chat.completions.create(**how)

    replayed = Far().api(path, "replay").chat.completions.create(**how)

    assert without_ids(replayed.model_dump()) == without_ids(recorded.model_dump())


@pytest.mark.parametrize("name", COMPLETIONS.keys() - {"audio", "annotations"})
def test_completions_are_streamed_from_the_tape(path: Path, name: str) -> None:
    """What was recorded as a whole makes the same completion when it is streamed."""
    how: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    recorded = Far(COMPLETIONS[name]).api(path, "record").chat.completions.create(**how)

    with Far().api(path, "replay").chat.completions.stream(**how, stream_options={"include_usage": True}) as stream:
        replayed = stream.get_final_completion()

    left_out = {"fields of others": {"citations", "provider"}}.get(name, set())
    expected = {key: value for key, value in without_ids(recorded.model_dump()).items() if key not in left_out}
    assert {
        key: each for key, each in without_ids(plain_calls(replayed.model_dump())).items() if key not in left_out
    } == expected


def plain_calls(value: Any) -> Any:
    """A completion without what the client adds to what was streamed."""
    if isinstance(value, Mapping):
        return {
            key: plain_calls(each) for key, each in value.items() if key not in ("parsed", "parsed_arguments", "index")
        } | ({"index": value["index"]} if "finish_reason" in value else {})
    return [plain_calls(each) for each in value] if isinstance(value, list) else value


def call_chunks(empty: bool) -> bytes:
    """Tool calls in pieces, interleaved; some servers repeat the id and the name, but *empty*."""
    more: dict[str, Any] = {"id": "", "type": "", "function": {"name": ""}} if empty else {"function": {}}

    def piece(number: int, arguments: str) -> dict[str, Any]:
        return {"index": number, **more, "function": {**more["function"], "arguments": arguments}}

    begun = [{"index": n, **call, "function": {**call["function"], "arguments": ""}} for n, call in enumerate(CALLS)]
    deltas: list[list[dict[str, Any]]] = [
        [begun[0]],
        [piece(0, '{"at": ')],
        [begun[1]],
        [piece(1, "{"), piece(0, '"é\\n"')],
    ]
    chunks = [chunk(tool_calls=delta) for delta in [*deltas, [piece(0, "}")], [piece(1, "}")]]]
    return sse(chunk(role="assistant"), *chunks, chunk(finish="tool_calls"), "[DONE]")


@pytest.mark.parametrize("empty", [False, True], ids=["OpenAI", "others"])
def test_tool_calls_in_pieces_are_joined(path: Path, empty: bool) -> None:
    """Arguments that came in pieces are on the tape as one text, and come as a whole or as a stream."""
    how: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": []}
    list(Far(call_chunks(empty)).api(path, "record").chat.completions.create(**how, stream=True))
    player = Far().api(path, "replay")

    whole = player.chat.completions.create(**how).choices[0].message.tool_calls
    assert [each.model_dump() for each in whole] == CALLS
    pieces = list(player.chat.completions.create(**how, stream=True))
    streamed = [call for each in pieces for call in each.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.id, call.function.arguments) for call in streamed] == [
        (number, call["id"], call["function"]["arguments"]) for number, call in enumerate(CALLS)
    ]


def test_a_conversation_with_tools_chains(path: Path) -> None:
    """The answer of a tool goes on from the call, whose text is not stored again."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    user = {"role": "user", "content": "hi"}
    call = {"role": "assistant", "tool_calls": CALLS}
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "42"} for each in CALLS]
    talks: list[Any] = [[user], [user, call, *results]]
    far = Far(COMPLETIONS["tool calls"], completion({"message": message(content="It is 42.")}))
    recorder = far.api(path, "record")
    for talk in talks:
        recorder.chat.completions.create(model="m", messages=talk, tools=tools)  # type: ignore[arg-type]

    assert [count(path, line) for line in ("> user", "> assistant", "> tool")] == [1, 0, 2]
    player = Far().api(path, "replay")
    last = player.chat.completions.create(model="m", messages=talks[1], tools=tools)  # type: ignore[arg-type]
    assert last.choices[0].message.content == "It is 42."


def test_a_response_format_is_a_part_of_the_question(path: Path) -> None:
    """Another schema is another question, and the miss says so."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "title": "A"}}}
    other = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "title": "B"}}}
    reply(Far(COMPLETIONS["structured"]).api(path, "record"), response_format=schema)
    player = Far().api(path, "replay")

    assert json.loads(reply(player, response_format=schema)) == {"name": "x", "n": [1, 2]}
    with pytest.raises(TapeError) as caught:
        reply(player, response_format=other)
    assert "response_format is " in str(caught.value)


def response(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A response of the Responses API."""
    usage = {
        "input_tokens": 5, "output_tokens": 7, "total_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 3},
    }  # fmt: skip
    always = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}
    frame = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m-1", "status": "completed"}
    return {**frame, **always, "output": list(output), "usage": usage, **fields}


def text_item(text: str, **fields: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part], **fields}


REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Let me\nsee."}]}
FUNCTION = {
    "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": '{"at": 1}',
    "status": "completed",
}  # fmt: skip
RESPONSES = {
    "text": response(text_item("hi \u2028there\n")),
    "reasoning and text": response(REASONING, text_item("hi")),
    "reasoning and a call": response(REASONING, FUNCTION),
    "two calls": response(FUNCTION, {**FUNCTION, "id": "fc_2", "call_id": "call_2"}),
    "refusal": response(text_item("", content=[{"type": "refusal", "refusal": "No."}])),
    "incomplete": response(
        text_item("half", status="incomplete"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}
    ),
    "encrypted": response({**REASONING, "encrypted_content": "gAAAAAB" + "x-_9" * 800}, text_item("hi")),
    "a search": response({"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {
        "type": "search", "query": "q"}}, text_item("hi")),
}  # fmt: skip


def events_of(whole: dict[str, Any], said: bool = True) -> bytes:
    """A response as OpenAI streams it; some servers leave what was *said* out of the last event."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    objects: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for number, item in enumerate(whole["output"]):
        at = {"output_index": number, "item_id": item["id"]}
        empty = {**item, **{key: [] for key in ("content", "summary") if key in item}}
        objects.append({"type": "response.output_item.added", "output_index": number, "item": empty})
        for place, part in enumerate(item.get("content", [])):
            if part["type"] == "output_text":
                here = {**at, "content_index": place}
                objects.append({"type": "response.content_part.added", **here, "part": {**part, "text": ""}})
                for letter in part["text"]:
                    objects.append({"type": "response.output_text.delta", **here, "delta": letter, "logprobs": []})
        objects.append({"type": "response.output_item.done", "output_index": number, "item": item})
    last = whole if said else {**whole, "output": []}
    objects.append({"type": f"response.{whole['status']}", "response": last})
    return b"".join(
        f"event: {each['type']}\n".encode() + sse({**each, "sequence_number": number})
        for number, each in enumerate(objects)
    )


ASKED: dict[str, Any] = {"model": "m", "input": "hi", "instructions": "Be brief.", "reasoning": {"effort": "low"}}


@pytest.mark.parametrize("streamed", [False, True], ids=["recorded whole", "recorded as a stream"])
@pytest.mark.parametrize("name", RESPONSES)
def test_responses_are_replayed(path: Path, name: str, streamed: bool) -> None:
    """An answer of the Responses API comes back with all items, as a whole and as a stream, whichever was recorded."""
    whole = RESPONSES[name]
    recorder = Far(events_of(whole) if streamed else whole).api(path, "record")
    if streamed:
        list(recorder.responses.create(**ASKED, stream=True))
    else:
        recorder.responses.create(**ASKED)
    player = Far().api(path, "replay")

    replayed = player.responses.create(**ASKED)
    with player.responses.stream(**ASKED) as stream:
        events = list(stream)
        final = stream.get_final_response() if whole["status"] == "completed" else None

    kept = ("id", "status", "output", "usage", "incomplete_details")
    assert {key: replayed.to_dict().get(key) for key in kept} == {key: whole.get(key) for key in kept}
    assert final is None or final.output_text == replayed.output_text
    texts = [part["text"] for item in whole["output"] for part in item.get("content", []) if "text" in part]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "".join(texts)
    assert events[-1].type == f"response.{whole['status']}"


def test_responses_in_pieces_only_are_replayed(path: Path) -> None:
    """Where the last event says nothing of what was said, the items before it do."""
    whole = RESPONSES["reasoning and text"]
    list(Far(events_of(whole, said=False)).api(path, "record").responses.create(**ASKED, stream=True))

    assert Far().api(path, "replay").responses.create(**ASKED).output_text == "hi"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(response(status="failed", error={"code": "server_error", "message": "no"}), id="failed"),
        pytest.param(response(status="cancelled"), id="cancelled"),
        pytest.param(response(status="queued"), id="queued"),
        pytest.param(events_of(response(text_item("h"), status="failed")), id="failed in the stream"),
        pytest.param(events_of(RESPONSES["text"]).rpartition(b"event:")[0], id="cut"),
        pytest.param(sse({"type": "error", "message": "no", "code": None, "param": None}), id="an error event"),
    ],
)
def test_failed_responses_are_not_kept(path: Path, answer: Any) -> None:
    """A response that is not there as a whole is not on the tape."""
    client = Far(answer).api(path, "record")
    how: dict[str, Any] = {"stream": True} if isinstance(answer, bytes) else {}
    with suppress(openai.OpenAIError):
        list(client.responses.create(**ASKED, **how))

    assert not path.exists()


def test_a_conversation_of_responses_chains(path: Path) -> None:
    """What a response has put out is not stored again when the next request sends it along."""
    first = [{"role": "user", "content": "hi"}]
    second = [*first, *RESPONSES["reasoning and a call"]["output"],
              {"type": "function_call_output", "call_id": "call_1", "output": "42"}]  # fmt: skip
    far = Far(RESPONSES["reasoning and a call"], RESPONSES["text"])
    recorder = far.api(path, "record")
    for talk in (first, second):
        recorder.responses.create(model="m", input=talk, tools=[])  # type: ignore[arg-type]

    assert path.read_text().count("Let me") == 1
    assert path.read_text().count("call_1") == 2
    replayed = Far().api(path, "replay").responses.create(model="m", input=second, tools=[])
    assert replayed.output_text == "hi \u2028there\n"


def test_recording_responses_again_keeps_those_behind_them(path: Path) -> None:
    """When an answer has more or fewer items than before, what branched off behind it, or within it, stays readable."""
    first = [{"role": "user", "content": "hi"}]
    old, new = RESPONSES["reasoning and a call"], RESPONSES["text"]
    done = {"type": "function_call_output", "call_id": "call_1", "output": "42"}
    talks: list[Any] = [
        first,
        [*first, *old["output"], done],
        [*first, *old["output"][:1], {"role": "user", "content": "no"}],  # within
        [*first, *old["output"], done, *new["output"], {"role": "user", "content": "more"}],
        [*first, *old["output"], done, {"role": "user", "content": "a fork"}],
    ]
    recorder = Far(old, *[new] * 4).api(path, "record")
    for talk in talks:
        recorder.responses.create(model="m", input=talk)
    before = [each.question.items for each in Tape(path, "replay").exchanges]
    assert before == talks

    Far(new).api(path, "record").responses.create(model="m", input=talks[0])

    after = [each.question.items for each in Tape(path, "replay").exchanges]
    swapped = [[*first, *new["output"], *talk[3:]] if old["output"][1] in talk else talk for talk in talks]
    assert after == swapped


def test_embeddings_are_replayed(path: Path) -> None:
    """Vectors come back number by number, as floats and in base64."""
    vectors = [{"object": "embedding", "index": n, "embedding": [0.125, -1.0, 1e-9, n]} for n in range(2)]
    floats = {"object": "list", "model": "e", "usage": {"prompt_tokens": 2, "total_tokens": 2}, "data": vectors}
    packed = {**floats, "data": [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAEA="}]}
    recorder = Far(floats, packed).api(path, "record")
    recorded = [
        recorder.embeddings.create(model="e", input=["a", "b"], encoding_format="float").data,
        recorder.embeddings.create(model="e", input="c").data,
    ]
    player = Far().api(path, "replay")

    assert [
        player.embeddings.create(model="e", input=["a", "b"], encoding_format="float").data,
        player.embeddings.create(model="e", input="c").data,
    ] == recorded
    assert recorded[1][0].embedding == [1.0, 2.0]


def test_a_window_holds_where_another_address_is_asked(path: Path, server: ChatServer) -> None:
    """What a server said of its models when it was recorded holds in replay, wherever OPENAI_BASE_URL leads by then."""
    server.models = [{"id": "m", "created": 5, "meta": {"n_ctx": 4096, "n_vocab": 7}, "permission": [{"id": "p"}]}]
    windows = []
    for environ in ({"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-0123456789"}, {}):
        client = OpenAIClient(environ=environ)
        client.deck = Deck({})
        client.deck.put_in(path, "record" if environ else "replay")
        list(client.stream(asking("hi")))
        client.look_up("m")
        windows.append(client.facts("m", {}).window)

    assert windows == [4096, 4096]
    assert not re.search("created|n_vocab|permission", path.read_text("utf-8"))


def test_lists_of_models_are_replayed(path: Path) -> None:
    """What a server lists is on the tape, without the time at which it says that the models were made."""
    listed = [{"id": f"m{n}", "object": "model", "created": time.time_ns(), "owned_by": "x"} for n in range(3)]
    Far({"object": "list", "data": listed}).api(path, "record").models.list()

    assert [model.id for model in Far().api(path, "replay").models.list()] == ["m0", "m1", "m2"]
    assert "created" not in path.read_text()


def test_any_other_path_is_replayed(path: Path) -> None:
    """Requests that no protocol of ours knows are kept as they are, whatever their path holds."""
    recorder = Far({"x": [1, {"y": "z"}]}, {"n": 2}).api(path, "record")
    recorder.post("/some thing/é --- after", body={"a": 1}, cast_to=object)
    recorder.get("/", cast_to=object)
    player = Far().api(path, "replay")

    assert player.post("/some thing/é --- after", body={"a": 1}, cast_to=object) == {"x": [1, {"y": "z"}]}
    assert player.get("/", cast_to=object) == {"n": 2}


def test_images_are_kept_by_their_hash(path: Path) -> None:
    """A picture makes no tape large; the same one is found again, and another one is not."""

    def look(client: openai.OpenAI, picture: str) -> str | None:
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]
        messages: Any = [{"role": "user", "content": parts}]
        return client.chat.completions.create(model="m", messages=messages).choices[0].message.content

    one, two = (f"data:image/png;base64,{letter * 200_000}==" for letter in "AB")
    look(Far(WHOLE).api(path, "record"), one)
    player = Far().api(path, "replay")

    assert path.stat().st_size < 1000
    assert "data:image/png;sha256," in path.read_text()
    assert look(player, one) == "whole\u2028"
    with pytest.raises(TapeError) as caught:
        look(player, two)
    assert "the prompt of turn 1 has" in str(caught.value)


def test_sounds_and_files_are_kept_by_their_hash(path: Path) -> None:
    """Base64 of any length that nobody reads is not on the tape."""
    parts: Any = [
        {"type": "input_audio", "input_audio": {"data": "UklG" * 5000, "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{'JVBE' * 5000}", "filename": "a.pdf"}},
    ]
    messages: Any = [{"role": "user", "content": parts}]
    Far(WHOLE).api(path, "record").chat.completions.create(model="m", messages=messages)

    assert path.stat().st_size < 1000
    assert Far().api(path, "replay").chat.completions.create(model="m", messages=messages).choices


# Secrets


SECRETS = [
    "sk-proj-4f9aB7cD2eF6gH1iJ0kL",
    "gsk_4f9aB7cD2eF6gH1iJ0kL",
    "ghp_4f9aB7cD2eF6gH1iJ0kLmN3oP5qR7sT9",
    "AIzaSyA4f9aB7cD2eF6gH1iJ0kLmN3oP5qR7sT9",
    "AKIA4F9AB7CD2EF6GH1I",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w",
    'own "key" with/odd+chars & <more> \\é',
]
CALLED = ["api_key: {}", "'api-key': '{}'", 'API key = "{}"', "password={}", '{{"token": "{}"}}']


def own(text: str) -> list[str]:
    """The spellings in which a key could stand in a file."""
    quoted = json.dumps(text)[1:-1]
    return [text, quoted, json.dumps(text, ensure_ascii=False)[1:-1], httpx2.QueryParams({"a": text}).__str__()[2:]]


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_on_a_tape(path: Path, secret: str) -> None:
    """A key that is in prompts, replies, tool arguments, names of fields or settings is not in the file."""
    spelled = f"{secret} {json.dumps(secret)} {json.dumps({'k': json.dumps(secret)})} https://h/?key={secret!r}"
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": json.dumps({"key": secret, secret: 1})},
    }
    whole = completion({"message": message(content=f"It is {spelled}.", tool_calls=[call], reasoning_content=secret)})
    streamed = (
        sse(*(chunk(letter) for letter in f"So: {secret}."), *(chunk(reasoning=letter) for letter in secret)) + STOP
    )
    recorder = Far({**whole, "note": {secret: secret}}, streamed).api(path, "record", keys=lambda: [SECRETS[-1]])
    reply(recorder, f"Use {spelled}", user=secret, metadata={secret: secret}, extra_query={"api_key": secret})
    list(recorder.chat.completions.create(model="m", messages=[{"role": "system", "content": secret}], stream=True))

    assert len(heads(path)) == 2
    for form in own(secret):
        assert form not in path.read_text()
    assert "[key]" in path.read_text()


@pytest.mark.parametrize(
    ("key", "how", "request_has"),
    [
        pytest.param("correct-horse/+&b", {"api_key": "correct-horse/+&b"}, {}, id="key"),
        pytest.param("battery-staple", {"base_url": "https://user:battery-staple@host.example/v1"}, {}, id="password"),
        pytest.param(
            "dXNlcjpiYXR0ZXJ5LXN0YXBsZQ==", {"base_url": "https://user:battery-staple@host.example/v1"}, {}, id="basic"
        ),
        pytest.param("words as a key", {"default_headers": {"api-key": "words as a key"}}, {}, id="api-key"),
        pytest.param("words as a key", {"default_headers": {"X-Api-Key": "words as a key"}}, {}, id="x-api-key"),
        pytest.param("in the query", {}, {"extra_query": {"subscription-key": "in the query"}}, id="query"),
        pytest.param("in the query", {}, {"extra_query": {"sig": "x", "token": "in the query"}}, id="token"),
    ],
)
def test_the_key_of_a_request_is_not_on_a_tape(
    path: Path, key: str, how: dict[str, Any], request_has: dict[str, Any]
) -> None:
    """What a request shows to be let in is not in the file, though it looks like no key and a server repeats it."""
    quoted = str(httpx2.QueryParams({"a": key}))[2:]
    far = Far(completion({"message": message(content=f"You sent {key}, or {json.dumps(key)}; {quoted}.")}))

    reply(far.api(path, "record", **how), f"I send {key}", **request_has)

    assert key not in path.read_text()
    assert "| I send [key]" in path.read_text()
    assert '| You sent [key], or "[key]"; ' in path.read_text()


def test_logprobs_do_not_spell_a_secret(path: Path) -> None:
    """Where a key was hidden, the tokens that it came in are not on the tape either."""
    tokens = ["It is ", "sk-proj", "-4f9aB7cD", "2eF6gH1i", "J0kL"]
    logprobs = {
        "content": [{"token": each, "logprob": -1.0, "bytes": [*each.encode()], "top_logprobs": []} for each in tokens]
    }
    far = Far(completion({"message": message(content="".join(tokens)), "logprobs": logprobs}))

    reply(far.api(path, "record"), logprobs=True)

    assert "4f9aB7cD" not in path.read_text()
    assert reply(Far().api(path, "replay"), logprobs=True) == "It is [key]"


def test_a_miss_shows_no_secret(path: Path) -> None:
    """An error about what is not on the tape does not say a key that was in the question."""
    far = Far(WHOLE)
    reply(far.api(path, "record", keys=lambda: ["words as a key"]), "Log in with words as a key")
    client = Far().api(path, "replay", keys=lambda: ["words as a key"])

    for prompt in ("Go in with words as a key", f"Log out with {SECRETS[0]}"):
        with pytest.raises(TapeError) as caught:
            reply(client, prompt)
        assert "words as a key" not in str(caught.value)
        assert SECRETS[0] not in str(caught.value)


def test_a_question_with_a_secret_is_found(path: Path) -> None:
    """A conversation in which a key was said is replayed, with the key hidden, where the key is not known any more."""
    prompt, answer = f"Is {SECRETS[0]} a key?", f"Yes, {SECRETS[0]} is one."
    far = Far(completion({"message": message(content=answer)}), WHOLE)
    recorder = far.api(path, "record")
    again: Any = [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "?"},
    ]
    reply(recorder, prompt)
    recorder.chat.completions.create(model="m", messages=again)
    player = Far().api(path, "replay")

    hidden = reply(player, prompt)
    assert hidden == "Yes, [key] is one."
    again[1]["content"] = hidden
    assert player.chat.completions.create(model="m", messages=again).choices
    assert " after " in heads(path)[1]


@pytest.mark.parametrize("before", ["", "jwt-", "x=", "'", "(", "\n", "é", "."])
@pytest.mark.parametrize("secret", SECRETS[5:])
def test_a_secret_is_seen_wherever_it_stands(secret: str, before: str) -> None:
    """A key is hidden, whatever stands around it."""
    assert secrets.without(f"a {before}{secret}' b", SECRETS[6:]) == f"a {before}[key]' b"


@pytest.mark.parametrize(
    "hostile",
    [
        "eyJ-",
        "-----BEGIN PRIVATE KEY-----",
        "://a:",
        "a://b:",
        "Bearer ",
        " sk-abcdefghijklmnop",
        "?key=",
        "AIza-",
        "a",
    ],
)
def test_a_secret_is_found_behind_hostile_text(hostile: str) -> None:
    """A reply that is made to hold up the search for keys does not; without a bound this would take minutes."""
    text = f"{hostile * (200_000 // len(hostile))}\n{SECRETS[0]}"

    assert secrets.without(text, ["words as a key"]).endswith("\n[key]")


@pytest.mark.parametrize("text", CALLED)
def test_what_is_called_a_key_is_hidden(text: str) -> None:
    """A key without a form of its own is known by the name before it."""
    secret = "0123456789abcdef0123456789abcdef"

    assert secrets.without(text.format(secret), ()) == text.format("[key]")


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn is sklearn, and scikit-learn-1.2.3 too",
        "key_performance_indicator_of_2024 and a key-value-store-number-1",
        "task-1234567890123456 and risk-4567890123456789 and desk_12345678901234567",
        "import os\napi_key = os.environ['OPENAI_API_KEY']  # sk-...\n",
        "curl -H 'Authorization: Bearer $TOKEN' https://example.com:8080/path?key_id=3&tokens=5",
        "https://user@host/ and http://[::1]:80/ and a://b:c and 10:30@noon",
        "Bearer of bad news, the pk-index, hf_hub_download",
        "sha256 4f9ab7cd2ef6a1b0c3d5e7f94f9ab7cd2ef6a1b0c3d5e7f94f9ab7cd2ef6a1b0",
        "123e4567-e89b-12d3-a456-426614174000",
        "{'password': 'x', \"token\": 5}",
    ],
)
def test_what_is_no_secret_stays(path: Path, text: str) -> None:
    """Words and code that only remind of keys are replayed as they were."""
    far = Far(completion({"message": message(content=text)}))
    reply(far.api(path, "record", keys=lambda: ["x", "a", ""]), text)

    assert "[key]" not in path.read_text()
    assert reply(Far().api(path, "replay"), text) == text


def test_keys_of_the_kernel_are_hidden(
    shell: InteractiveShell, server: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys of endpoints, and variables that are called so, are on no tape of a kernel."""
    values = {
        "MY_LLM": "words-for-an-endpoint",
        "DB_PASSWORD": "hunter2-hunter2-hunter2",
        "FOO_TOKEN": "1a2b3c4d5e6f7a8b",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    server.otherwise = lambda body: text_answer(f"{body['messages'][-1]['content']} {' '.join(values.values())}")
    good(
        shell,
        setup(server, key="MY_LLM"),
        f"%chat record {tmp_path}/a.tape",
        f"%%chat\nsay {' '.join(values.values())}",
    )

    text = (tmp_path / "a.tape").read_text()
    assert "| say [key] [key] [key]" in text
    assert not [value for value in values.values() if value in text]
    assert server.headers[0]["authorization"] == "Bearer words-for-an-endpoint"


# Pace


@pytest.mark.parametrize("stream", [True, False])
def test_a_pace_is_that_of_the_recording(path: Path, server: ChatServer, stream: bool) -> None:
    """With the pace of the recording the first word and the last come as late as they did."""
    server.answers = [Answer([0.3, *(part for word in "abcd" for part in (sse(chunk(f"{word} ")), 0.1)), STOP])]
    ask(chat(path, "record", server), stream=True)
    player = chat(path, "replay", pace=True)
    began = time.perf_counter()
    times = [(time.perf_counter() - began, event) for event in player.stream(asking(model="here:m", stream=stream))]

    first = next(each for each, event in times if isinstance(event, Delta))
    assert first >= 0.25
    assert times[-1][0] >= (0.6 if stream else 0.25)
    assert said([event for _, event in times]) == "a b c d "
    assert (len([event for _, event in times if isinstance(event, Delta)]) > 3) == stream
    assert isinstance(times[0][1], Sending)
    assert not times[0][1].instant


def test_without_a_pace_a_replay_is_there_at_once(path: Path, server: ChatServer) -> None:
    """A replay says that it is instant, and comes in one piece, so that it is painted once."""
    server.answers = [text_answer(["a ", "b ", "c"])]
    ask(chat(path, "record", server))

    events = ask(chat(path, "replay"))

    assert events[:2] == [Sending("here", instant=True), Delta("a b c")]


# The verbs


def setup(server: ChatServer, key: str = "") -> str:
    fields = {"url": server.url, **({"key_env": key} if key else {})}
    return f"%config ChatMagic.endpoints = {{'here': {fields}}}\n%config ChatMagic.model = 'here:m'"


@pytest.fixture
def here(
    shell: InteractiveShell, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InteractiveShell:
    """A shell that asks *server*, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    good(shell, setup(server))
    return shell


def output(capsys: pytest.CaptureFixture[str], shell: InteractiveShell, cell: str) -> str:
    capsys.readouterr()
    good(shell, cell)
    return capsys.readouterr().out


def test_record_replay_live(here: InteractiveShell, server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A tape is recorded, answers in place of the server, and ends, and each verb says what holds from then on."""
    assert "'a.tape' keeps every exchange (nothing is on it yet). %chat live ends it." in output(
        capsys, here, "%chat record a.tape"
    )
    good(here, "%%chat\nhi")
    assert "'a.tape' answers (2 exchanges are on it); nothing is sent. %chat live" in output(
        capsys, here, "%chat replay a.tape"
    )
    bodies = len(server.bodies)
    assert "pong" in output(capsys, here, "%%chat other\nhi")
    assert isinstance(failed(here, "%%chat other\nWho?"), TapeError)
    assert len(server.bodies) == bodies
    assert "'a.tape' runs no more: from here on servers answer." in output(capsys, here, "%chat live")
    good(here, "%%chat other\nWho?")
    assert len(server.bodies) == bodies + 1
    assert "No tape runs: servers answer." in output(capsys, here, "%chat live")


def test_replay_needs_no_key_and_no_server(here: InteractiveShell, server: ChatServer) -> None:
    """A notebook that was recorded with a key is replayed without, and opens no connection."""
    os.environ["MY_LLM"] = "words-for-an-endpoint"
    good(here, setup(server, key="MY_LLM"), "%chat record a.tape", "%%chat\nhi", "%%chat\nand?")
    del os.environ["MY_LLM"]
    before = server.connections

    good(here, "%chat replay a.tape", "%%chat new\nhi", "%%chat\nand?")

    assert server.connections == before


def test_auto(here: InteractiveShell, server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    """With --auto what is not on the tape is asked for and kept."""
    text = output(capsys, here, "%chat replay a.tape --auto")
    good(here, "%%chat\nhi", "%%chat new\nhi")

    assert "what it does not have is asked for, and kept" in text
    assert len(server.bodies) == 1


def test_pace(here: InteractiveShell, kernel: magics.Kernel) -> None:
    """With --pace the tape takes its time."""
    good(here, "%chat record a.tape", "%%chat\nhi", "%chat replay a.tape --pace")

    assert kernel.deck.tape is not None
    assert kernel.deck.tape.pace


def test_tape_lists_what_is_on_it(here: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """%chat tape shows each exchange, and how often it was used."""
    good(
        here,
        "%chat record a.tape",
        "%%chat\nWhat is this?",
        "%%chat\nAnd that?",
        "%chat replay a.tape",
        "%%chat new\nWhat is this?",
    )

    text = output(capsys, here, "%chat tape")

    assert re.search(r"[0-9a-f]{8}.*\bm\b.*1.*What is this\?.*pong.*1", text)
    assert re.search(r"[0-9a-f]{8}.*\bm\b.*3.*And that\?.*pong.*0", text)
    assert "'a.tape' (replay): 3 exchanges are on it, 1 not used in this kernel. %chat tape --prune" in text


def test_tape_without_exchanges(here: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """A tape that is empty has an empty list, and nothing to prune."""
    good(here, "%chat record a.tape")

    assert "nothing is on it yet" in output(capsys, here, "%chat tape")
    assert "there is nothing to delete" in output(capsys, here, "%chat tape --prune")


def test_prune_asks_first(here: InteractiveShell, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--prune shows what would go, and only with --yes it goes."""
    good(here, "%chat record a.tape", "%%chat\nold", "%%chat new\nnew", "%chat replay a.tape", "%%chat new2\nnew")
    before = (tmp_path / "a.tape").read_text()

    text = output(capsys, here, "%chat tape --prune")
    assert "old" in text
    assert "%chat tape --prune --yes deletes it from 'a.tape'." in text
    assert (tmp_path / "a.tape").read_text() == before
    assert "Deleted from 'a.tape': 1 exchange." in output(capsys, here, "%chat tape --prune --yes")
    assert count(tmp_path / "a.tape", "| old") == 0
    assert "Every exchange on 'a.tape' was used" in output(capsys, here, "%chat tape --prune")


@pytest.mark.parametrize(
    ("line", "kind", "why"),
    [
        ("%chat record", LineError, "FILE"),
        ("%chat replay", LineError, "FILE"),
        ("%chat record a b", LineError, "b"),
        ("%chat replay none.tape", TapeError, "%chat record FILE makes one"),
        ("%chat replay folder", TapeError, "cannot be read"),
        ("%chat replay folder --auto", TapeError, "no file"),
        ("%chat record folder", TapeError, "no file"),
        ("%chat record no/such.tape", TapeError, "there is no folder"),
        ("%chat record ~nobody-here/a.tape", TapeError, "~nobody-here"),
        ("%chat replay ~nobody-here/a.tape", TapeError, "~nobody-here"),
        ("%chat record a\0b", TapeError, "null"),
        ("%chat replay a\0b", TapeError, "there is no tape"),
        (f"%chat record {'x' * 300}", TapeError, "too long"),
        (f"%chat replay {'x' * 300}", TapeError, "there is no tape"),
        ("%chat record notes.md", TapeError, "'notes.md' is no tape"),
        ("%chat replay notes.md", TapeError, "'notes.md' is no tape"),
        ("%chat tape", TapeError, "no tape runs: %chat record FILE"),
        ("%chat tape --prune", TapeError, "no tape runs"),
        ("%chat tape --yes", TapeError, "no tape runs"),
        ("%chat live now", LineError, "now"),
    ],
)
def test_bad_input_is_an_error_of_ours(
    here: InteractiveShell, kernel: magics.Kernel, tmp_path: Path, line: str, kind: type[ChatMagicError], why: str
) -> None:
    """What cannot be a tape is refused in a line, and no tape runs then."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.md").write_text("# Notes\n")
    error = failed(here, line)

    assert isinstance(error, kind)
    assert why in str(error)
    assert kernel.deck.tape is None
    assert (tmp_path / "notes.md").read_text() == "# Notes\n"


def test_yes_goes_with_prune(here: InteractiveShell) -> None:
    """--yes alone deletes nothing."""
    good(here, "%chat record a.tape")

    assert "--yes goes with --prune" in str(failed(here, "%chat tape --yes"))


def test_a_tape_that_cannot_run_leaves_the_one_that_does(here: InteractiveShell, kernel: magics.Kernel) -> None:
    """A slip in the name ends no recording."""
    good(here, "%chat record a.tape")
    failed(here, "%chat replay none.tape")

    assert kernel.deck.tape is not None
    assert kernel.deck.tape.name == "a.tape"


def test_a_pipe_is_no_tape(here: InteractiveShell, tmp_path: Path) -> None:
    """A file that never ends is not waited for."""
    os.mkfifo(tmp_path / "pipe")

    assert "no file" in str(failed(here, "%chat replay pipe"))
    assert "no file" in str(failed(here, "%chat record pipe"))


# From outside


def test_the_environment_chooses_a_tape(
    here: InteractiveShell, server: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """CHATMAGIC_TAPE and CHATMAGIC_TAPE_MODE record and replay from outside; replay is the default."""
    monkeypatch.setenv("CHATMAGIC_TAPE", "a.tape")
    monkeypatch.setenv("CHATMAGIC_TAPE_MODE", "record")
    good(here, "%%chat\nhi")
    monkeypatch.delenv("CHATMAGIC_TAPE_MODE")
    good(here, "%%chat new\nhi")
    assert isinstance(failed(here, "%%chat new\nWho?"), TapeError)
    assert len(server.bodies) == 1
    monkeypatch.setenv("CHATMAGIC_TAPE_MODE", "auto")
    good(here, "%%chat new\nWho?")

    assert len(server.bodies) == 2
    assert chats(tmp_path / "a.tape") == 2


@pytest.mark.parametrize("run", ["%%chat\nhi", "%chat tape", "import chatmagic; chatmagic.session('x').ask('hi')"])
@pytest.mark.parametrize(
    ("file", "mode", "kind", "why"),
    [
        ("a.tape", "foo", SettingError, "CHATMAGIC_TAPE_MODE is 'foo'; it can be record, replay, auto"),
        ("", "replay", SettingError, "CHATMAGIC_TAPE_MODE is 'replay', but CHATMAGIC_TAPE names no file"),
        ("none.tape", "", TapeError, "there is no tape"),
        ("none.tape", "replay", TapeError, "there is no tape"),
        ("no/such.tape", "record", TapeError, "there is no folder"),
        ("~nobody-here/a.tape", "record", TapeError, "~nobody-here"),
    ],
)
def test_a_bad_environment_is_said_at_each_request(
    here: InteractiveShell,
    server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    run: str,
    file: str,
    mode: str,
    kind: type[ChatMagicError],
    why: str,
) -> None:
    """A tape that the environment names and that cannot run is an error; no server is asked instead."""
    monkeypatch.setenv("CHATMAGIC_TAPE", file)
    monkeypatch.setenv("CHATMAGIC_TAPE_MODE", mode)

    for _ in range(2):
        error = failed(here, run)
        assert isinstance(error, kind)
        assert why in str(error)
    assert server.bodies == []


def test_verbs_win_over_the_environment(
    here: InteractiveShell, server: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the notebook says holds, whatever the environment says; after %chat live no tape runs."""
    monkeypatch.setenv("CHATMAGIC_TAPE", "of-environment.tape")
    monkeypatch.setenv("CHATMAGIC_TAPE_MODE", "record")
    good(here, "%chat record of-notebook.tape", "%%chat\nhi", "%chat live", "%%chat\nhi")

    assert os.listdir(tmp_path).count("of-environment.tape") == 0
    assert chats(tmp_path / "of-notebook.tape") == 1
    assert len(server.bodies) == 2


def test_live_ends_a_bad_environment(
    here: InteractiveShell, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has named a tape that is not there can go on without."""
    monkeypatch.setenv("CHATMAGIC_TAPE", "none.tape")
    failed(here, "%%chat\nhi")
    runner: Any = here
    runner.run_cell("%chat live")

    good(here, "%%chat\nhi")

    assert len(server.bodies) == 1


def test_a_tape_outlives_a_change_of_the_folder(
    here: InteractiveShell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A name without a folder means the folder where the kernel was when the tape began."""
    good(here, "%chat record a.tape")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    good(here, "%%chat\nhi")

    assert (tmp_path / "a.tape").exists()


def test_what_is_looked_up_is_on_the_tape(here: InteractiveShell, server: ChatServer, kernel: magics.Kernel) -> None:
    """What a server says about its models is recorded with the first turn, and replayed without it."""
    server.models = [{"id": "m", "max_model_len": 5000}]
    good(here, "%chat record a.tape", "%%chat\nhi", "%chat models here")
    connections = server.connections
    kernel.client = None

    good(here, "%chat replay a.tape", "%%chat new\nhi")

    assert kernel.connected().facts("here:m", {}).window == 5000
    good(here, "%chat models here")
    assert server.connections == connections


def test_two_runs_of_a_notebook_are_the_same(
    here: InteractiveShell, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notebook shows the same in each replay, also where something is not on the tape."""
    server.models = [{"id": "m", "max_model_len": 5000}]
    words = iter(range(100))
    server.otherwise = lambda _: text_answer(f"answer {next(words)}", usage=None)
    cells = ["%%chat a\nhi", "%%chat a\nand?", "%chat retry", "%%chat b --system Brief.\nhi"]
    good(here, "%chat record a.tape", *cells)
    shown = []
    for number in range(2):
        good(here, f"%chat new spare{number}", "%chat delete a", "%chat delete b", "%chat replay a.tape")
        shown.append([output(capsys, here, cell) for cell in cells])

    assert shown[0] == shown[1]
    assert "answer 2" in shown[0][2]


def test_threads_of_a_notebook_use_the_same_tape(here: InteractiveShell, server: ChatServer, tmp_path: Path) -> None:
    """Sessions that are asked from several threads at once are all recorded."""
    good(here, "%chat record a.tape", "import chatmagic, threading")
    good(
        here,
        "ask = lambda name: chatmagic.session(name).ask('hi ' + name)\n"
        "threads = [threading.Thread(target=ask, args=(f's{n}',)) for n in range(6)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()",
    )

    assert chats(tmp_path / "a.tape") == 6
    assert len(server.bodies) == 6
