"""Real cells in a real kernel, against a scripted server on loopback and against llama.cpp's own."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel import RealKernel
from tests.llamacpp import llama_server
from tests.server import CUT, Answer, ChatServer, chunk, sse, text_answer


@pytest.fixture
def notebook(server: ChatServer) -> Iterator[RealKernel]:
    """A kernel with chatmagic loaded, whose default endpoint is the scripted server."""
    with RealKernel({"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-loopback-secret"}) as kernel:
        assert kernel.run("%load_ext chatmagic").status == "ok"
        yield kernel


def state(kernel: RealKernel, session: str = "main") -> list[list[Any]]:
    """Prompt, reply and status of every turn of a session."""
    kernel.run("import json, chatmagic")
    code = f"json.dumps([[t.prompt, t.reply, t.status] for t in chatmagic.session({session!r}).turns])"
    return list(json.loads(kernel.evaluate(code)))


def test_demo_is_one_display_and_nothing_else() -> None:
    """An instant reply is a single display_data with HTML, text and metadata; no update, no stream, no warning."""
    with RealKernel() as kernel:
        assert [m["msg_type"] for m in kernel.run("%load_ext chatmagic").messages] == [
            "status",
            "execute_input",
            "status",
        ]
        ran = kernel.run("%%chat tutor -m demo\nMy name is Ada", cell_id="cell-7")

    assert [m["msg_type"] for m in ran.messages] == ["status", "execute_input", "display_data", "status"]
    assert sorted(ran.displays[0]["data"]) == ["text/html", "text/markdown", "text/plain"]
    record = ran.displays[0]["metadata"]["chatmagic"]
    assert (record["session"], record["cells"], record["prompt"]) == ("tutor", ["cell-7"], "My name is Ada")


def test_reply_streams_into_one_output(notebook: RealKernel, server: ChatServer) -> None:
    """A reply that takes its time grows in one output of the cell, and is whole in the end."""
    server.answers.append(text_answer([f"word{n} " for n in range(20)], pause=0.05))
    ran = notebook.run("%%chat\nhi")

    kinds = [m["msg_type"] for m in ran.messages]
    assert kinds.count("display_data") == 1
    assert 3 <= kinds.count("update_display_data") <= 15
    assert len(ran.displays) == 1
    assert ran.text.startswith("word0 word1 ")
    assert (
        ran.text.endswith("word19\n\nnew session 'main'\nmain · gpt-6-luna · 10 tokens in, 5 out")
        or "word19" in ran.text
    )


def test_stop_keeps_what_came(notebook: RealKernel, server: ChatServer) -> None:
    """The stop button ends the cell with an error at once, keeps the words that came, and the next turn works."""
    server.answers.append(text_answer([f"word{n} " for n in range(200)], pause=0.1))
    stopped: list[float] = []

    def stop(message: dict[str, Any]) -> None:
        if "word3" in str(message["content"].get("data")) and not stopped:
            stopped.append(time.time())
            notebook.interrupt()

    ran = notebook.run("%%chat\nhi", on_message=stop)
    after = notebook.run("%%chat\nand?")

    assert ran.status == "error"
    assert ran.error.startswith("InterruptedTurnError: stopped; what had come (")
    assert ran.messages[-1]["arrived"] - stopped[0] < 5
    assert after.status == "ok"
    assert server.broken.wait(5)
    assert [turn[2] for turn in state(notebook)] == ["interrupted", "complete"]
    assert server.bodies[1]["messages"][1] == {"role": "assistant", "content": state(notebook)[0][1]}


def test_stop_before_the_first_word(notebook: RealKernel, server: ChatServer) -> None:
    """Stopping a cell whose server is silent leaves the conversation as it was, and no clock on the screen."""
    server.answers.append(Answer([30.0]))
    threading.Timer(1.0, notebook.interrupt).start()
    ran = notebook.run("%%chat\nhi", timeout=20)

    assert ran.error == "InterruptedTurnError: stopped before the first word; nothing was stored"
    assert [display["data"] for display in ran.displays] == [{}]
    assert state(notebook) == []


def test_cut_connection_keeps_what_came(notebook: RealKernel, server: ChatServer) -> None:
    """A connection that breaks in the middle of a reply fails the cell and keeps the reply so far."""
    server.answers.append(Answer([sse(chunk("half a reply")), CUT]))
    ran = notebook.run("%%chat\nhi")

    assert ran.status == "error"
    assert ran.error.startswith("CutReplyError: ")
    assert state(notebook) == [["hi", "half a reply", "cut"]]


def test_failed_cell_is_one_line(notebook: RealKernel, server: ChatServer) -> None:
    """What the server refuses is an error of one line with what it said, without the key, and the cell fails."""
    said = {"error": {"message": "Incorrect API key provided: sk-loopback-secret.", "code": "invalid_api_key"}}
    server.answers.append(Answer([json.dumps(said).encode()], 401, {"Content-Type": "application/json"}))
    ran = notebook.run("%%chat\nhi")

    assert ran.status == "error"
    assert ran.error.startswith(
        "RequestError: openai refuses the key in OPENAI_API_KEY (401): Incorrect API key provided"
    )
    assert "\n" not in ran.error
    assert "secret" not in json.dumps(ran.of("error"))


def test_retry_is_visible(notebook: RealKernel, server: ChatServer) -> None:
    """A busy server is asked again after the wait it wants; the countdown and then the reason are on the screen."""
    busy = Answer(
        [b'{"error": {"message": "slow down"}}'], 429, {"Content-Type": "application/json", "Retry-After": "1"}
    )
    server.answers += [busy, text_answer("fine")]
    ran = notebook.run("%%chat\nhi")

    shown = [str(content["data"]) for content in ran.of("display_data", "update_display_data")]
    assert ran.status == "ok"
    assert any("again in 1 s" in text for text in shown)
    assert "sent again (try 2 of 4) because: openai says (429): slow down" in ran.text
    assert len(server.bodies) == 2


def test_twenty_turns_share_a_connection(notebook: RealKernel, server: ChatServer) -> None:
    """Consecutive turns use one TCP connection, and what is asked beside them at most another one."""
    for _ in range(20):
        assert notebook.run("%%chat\nping").status == "ok"

    assert len(server.bodies[-1]["messages"]) == 39
    assert server.connections <= 2  # while the first turn ends, its models may be listed on another one


def test_an_error_stops_run_all(notebook: RealKernel) -> None:
    """A failed chat cell is a failed cell for the kernel."""
    assert notebook.run("%%chat --no-such-option\nhi").status == "error"


def test_output_goes_to_its_own_cell(notebook: RealKernel, server: ChatServer) -> None:
    """What the painter's thread publishes belongs to the cell that asked."""
    server.answers.append(text_answer(["a ", "b ", "c "], pause=0.2))
    ran = notebook.run("%%chat\nhi")
    other = notebook.run("1 + 1")

    assert len(ran.displays) == 1
    assert other.displays == []


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """llama.cpp's own server with a tiny model."""
    with llama_server(context=2048) as url:
        yield url


def test_twenty_turns_with_llamacpp(llama: str) -> None:
    """With a real server the history grows turn by turn, by its own count, and the old part comes from its cache."""
    with RealKernel() as kernel:
        kernel.run("%load_ext chatmagic")
        kernel.run(f"%config ChatMagic.endpoints = {{'local': {{'url': {llama!r}}}}}")
        options = "-m local:tiny --set max_tokens=20 --set temperature=0"
        for number in range(20):
            ran = kernel.run(f"%%chat real {options}\nQuestion number {number}, if you please.")
            assert ran.status == "ok", ran.error
        kernel.run("import json, chatmagic; usages = [t.usage for t in chatmagic.session('real').turns]")
        usage = json.loads(
            kernel.evaluate("json.dumps([[u.input_tokens, u.output_tokens, u.cached_tokens] for u in usages])")
        )
        roles = kernel.evaluate("[m.role for m in chatmagic.session('real').messages]")

    inputs, outputs, cached = zip(*usage, strict=True)
    assert roles == str(["user", "assistant"] * 20)
    assert list(inputs) == sorted(set(inputs))
    assert set(outputs) == {20}
    # Each request repeats the one before and its reply; the server knows that part already.
    assert all(known >= 0.8 * before for known, before in zip(cached[1:], inputs, strict=False))
    assert "cached), 20 out" in ran.text


def test_overflow_of_llamacpp(llama: str) -> None:
    """A conversation that a real server cannot take is an error that says so; the conversation stays usable."""
    with RealKernel() as kernel:
        kernel.run("%load_ext chatmagic")
        kernel.run(f"%config ChatMagic.endpoints = {{'local': {{'url': {llama!r}}}}}")
        first = kernel.run("%%chat real -m local:tiny --set max_tokens=5\nhello")
        long = kernel.run("%%chat real\n{{ 'many words ' * 2000 }}")
        after = kernel.run("%%chat real\nhello again")
        turns = state(kernel, "real")

    assert (first.status, after.status) == ("ok", "ok")
    # Its window is known from its list of models, unless the second cell comes before that.
    assert long.error.startswith("ContextOverflowError: ")
    assert re.search("2,?048", long.error)
    assert [turn[0] for turn in turns] == ["hello", "hello again"]
