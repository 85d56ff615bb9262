"""Notebooks with chat cells under ``pytest --nbval``: recorded with a server, played from a tape without one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest

from chatmagic.provider.tapetext import read
from tests.kernel import Ran, RealKernel
from tests.llamacpp import llama_server
from tests.recorded import NOTEBOOK, TAPE, home, record, repository
from tests.server import Answer, ChatServer, chunk, sse, text_answer

EXAMPLES = repository / "examples.ipynb"
KEY = "sk-loopback-0123456789-secret"

# Python's own sockets; what a kernel and its front end say to each other goes through the library of ZeroMQ.
WATCHED = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["CONTACTS"], "a") as file:
            file.write(f"{event} {arguments[1:]}\\n")

sys.addaudithook(watch)
"""

# Calls and returns take so long that Python is ten times as slow, also beside another such kernel.
SLOW = """
import sys

def wait(*_):
    for _ in range(250):
        pass

sys.setprofile(wait)
"""


def nbval(folder: Path, *notebooks: str, **environ: str) -> str:
    """Run notebooks as CI does, and return what pytest says."""
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "--color=no", "-q", "-rf"]
    env = {**os.environ, "CONTACTS": str(folder / "contacts"), **environ}
    for last in (False, False, True):
        try:
            done = subprocess.run(
                [*command, *notebooks], cwd=folder, env=env, capture_output=True, text=True, timeout=90
            )
        except subprocess.TimeoutExpired:  # a kernel that is profiled sometimes never answers
            if last:
                raise
        else:
            break
    return done.stdout + done.stderr


def passed(said: str) -> int:
    """How many cells have passed, if all have."""
    found = re.search(r"^(\d+) passed in [\d.]+s$", said, re.MULTILINE)
    assert found, said
    return int(found[1])


def cells(notebook: Path) -> list[Any]:
    """The code cells of a notebook."""
    content: Any = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's
    return [cell for cell in content.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[tuple[str, str], Future[str]]]:
    """The example notebooks, each twice in a row, and each in a slow kernel beside another slow one."""

    def run(name: str, how: str, folder: Path) -> str:
        shutil.copy(NOTEBOOK if name == "recorded" else EXAMPLES, folder / "first.ipynb")
        shutil.copy(folder / "first.ipynb", folder / "second.ipynb")
        shutil.copy(TAPE, folder)
        environ = home(folder / "ipython", startup=WATCHED + SLOW * (how == "slow"))
        if name == "recorded":
            environ["CHATMAGIC_TAPE"] = TAPE.name
        again = ["second.ipynb"] * (how == "twice")
        said = nbval(folder, "first.ipynb", *again, **environ)
        assert not (folder / "contacts").exists(), (folder / "contacts").read_text()
        return said

    with ThreadPoolExecutor(2) as pool:
        both = [(name, how) for how in ("slow", "twice") for name in ("recorded", "examples")]
        yield {each: pool.submit(run, *each, tmp_path_factory.mktemp("-".join(each))) for each in both}


@pytest.mark.parametrize("name", ["recorded", "examples"])
def test_notebooks_pass_twice_in_a_row(runs: Mapping[tuple[str, str], Future[str]], name: str) -> None:
    """Strict nbval takes the notebook twice, with no server, no key, and nothing that tries to reach any."""
    count = len(cells(NOTEBOOK if name == "recorded" else EXAMPLES))

    assert passed(runs[name, "twice"].result()) == 2 * count


@pytest.mark.parametrize("name", ["recorded", "examples"])
def test_notebooks_pass_on_a_slow_machine(runs: Mapping[tuple[str, str], Future[str]], name: str) -> None:
    """Strict nbval takes the notebook where everything takes ten times as long."""
    count = len(cells(NOTEBOOK if name == "recorded" else EXAMPLES))

    assert passed(runs[name, "slow"].result()) == count


def test_the_recorded_notebook_holds_nothing_of_its_machine() -> None:
    """Notebook and tape name no port and no folder, and every exchange on the tape is one of the notebook."""
    kept = NOTEBOOK.read_text(encoding="utf-8") + TAPE.read_text(encoding="utf-8")

    assert not re.search(r"127\.0\.0\.1|localhost|:\d{4,5}\b|/tmp|/home", kept)
    assert len(read(TAPE.read_text(encoding="utf-8"), TAPE.name)) == 11


PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}


def written(path: Path, *codes: str) -> Path:
    """A notebook of cells that have not run."""
    made: Any = nbformat.v4
    content = made.new_notebook(cells=[made.new_code_cell(code) for code in codes], metadata={"kernelspec": PYTHON})
    nbformat.write(content, path)  # type: ignore[no-untyped-call]  # nbformat's
    return path


def refused(status: int, message: str, **headers: str) -> Answer:
    """An error of the server."""
    said = json.dumps({"error": {"message": message}}).encode()
    return Answer([said], status, {"Content-Type": "application/json", **headers})


LONG = [f"This is sentence number {number} of a reply that comes slowly.\n\n" for number in range(120)]

ODD = [
    "%load_ext chatmagic\n%config ChatMagic.model = 'gpt-6-luna'",
    "%%chat talk\nTell me a lot.",
    "%%chat talk\nAnd the mean?",
    "%%chat talk --no-stream\nAnd the median?",
    "%%chat talk\nWhy?",
    "%chat retry",
    "%%chat talk --at 1\nTell me less.",
    "text = 'The mean is the sum divided by the number. ' * 40",
    "%chat summarize text",
    "%%chat talk --context last:1 --recall 1 --set recall_model=embedder\nWhat was it about the mean?",
    "import chatmagic; print(chatmagic.session('talk').ask('Again?', context='budget:400').reply)",
    "%chat history",
    "%chat sessions",
]


def vectors(body: dict[str, Any]) -> Answer:
    """Embeddings of what is asked."""
    data = [{"index": number, "embedding": [1.0, float(number)]} for number, _ in enumerate(body["input"])]
    said = {"data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}}
    return Answer([json.dumps(said).encode()], 200, {"Content-Type": "application/json"})


def whole(text: str) -> Answer:
    """A reply that is not streamed."""
    said = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    return Answer([json.dumps(said).encode()], 200, {"Content-Type": "application/json"})


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that was recorded while its server was slow, busy, and did not know everything."""
    folder = tmp_path_factory.mktemp("odd")
    notebook = written(folder / "odd.ipynb", *ODD)
    thought = [sse(chunk(reasoning_content="I have to think."), chunk("For no reason.", "stop"))]
    with ChatServer() as server:
        server.answers += [
            text_answer(LONG, usage=(100, 900), pause=0.02),
            refused(429, "slow down", **{"Retry-After": "1"}),
            text_answer(["The ", "mean."]),
            whole("The median."),
            refused(400, "unknown field: stream_options"),
            Answer([*thought, 0.5, sse("[DONE]")]),
            text_answer("For a reason.", usage=None),
            text_answer("Less.", usage=None),
            text_answer("It is about the mean.", usage=None, pause=0.5),
            vectors,
            text_answer("That it is a sum.", usage=None),
            vectors,
            text_answer("Again.", usage=None),
        ]
        environ = home(folder / "recording", startup=WATCHED)
        contacts = {"CONTACTS": str(folder / "contacts-of-the-recording")}
        record(notebook, {**environ, **contacts, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY})
        assert server.answers == []
    assert "socket.connect" in (folder / "contacts-of-the-recording").read_text()
    return notebook


def test_what_a_recording_shows_is_what_the_tape_shows(odd: Path, tmp_path: Path) -> None:
    """A notebook that was recorded live, from a server at another address, passes strict nbval without a server.

    Its replies grew slowly over several outputs, came after a thought, in one piece, at the second try, or without a
    count of tokens; texts were summarized, and turns recalled by embeddings.
    """
    outputs = [output for cell in cells(odd) for output in cell.outputs]
    assert any(output.get("data") == {} for output in outputs)  # a part of the long reply
    kept = odd.read_text(encoding="utf-8") + odd.with_suffix(".tape").read_text(encoding="utf-8")
    assert KEY not in kept
    told = "".join(str(output.get("data", output)) for output in outputs)
    assert "ChatMagicWarning" in told
    assert not [each for each in ("127.0.0.1", str(repository), sys.prefix, str(odd.parent)) if each in told]

    said = nbval(odd.parent, odd.name, **home(tmp_path, startup=WATCHED + SLOW), CHATMAGIC_TAPE="odd.tape")

    assert passed(said) == len(ODD)
    assert not (odd.parent / "contacts").exists()


def test_a_changed_word_fails_its_cell(odd: Path, server: ChatServer, tmp_path: Path) -> None:
    """What is not on the tape is a failed cell that says what differs, and the server that there is gets nothing."""
    changed = odd.with_name("changed.ipynb")
    changed.write_text(odd.read_text(encoding="utf-8").replace("And the mean?", "And the mode?"), encoding="utf-8")
    environ = {"CHATMAGIC_TAPE": "odd.tape", "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY}
    said = nbval(odd.parent, changed.name, **home(tmp_path), **environ)

    failed = re.findall(r"^FAILED .*::Cell (\d+)\b", said, re.MULTILINE)
    assert failed[0] == "2", said
    assert "TapeError" in said
    assert "the prompt of turn 2 has 'And the mean?' there, 'And the mode?' here" in said
    assert server.bodies == []
    assert server.connections == 0


def test_auto_records_what_is_new(server: ChatServer, tmp_path: Path) -> None:
    """With the mode auto only the cell that is new is asked of a server; after that the tape has all of them."""
    notebook = written(tmp_path / "grows.ipynb", "%load_ext chatmagic", "%%chat\nOne?", "%%chat\nTwo?")
    environ = {**home(tmp_path / "ipython"), "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY}
    record(notebook, environ)
    before = notebook.with_suffix(".tape").read_text(encoding="utf-8")
    server.bodies.clear()
    content: Any = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]  # nbformat's
    content.cells.append(nbformat.v4.new_code_cell("%%chat\nThree?"))  # type: ignore[no-untyped-call]  # nbformat's
    nbformat.write(content, notebook)  # type: ignore[no-untyped-call]  # nbformat's
    record(notebook, environ, mode="auto")

    assert [body["messages"][-1]["content"] for body in server.bodies] == ["Three?"]
    after = notebook.with_suffix(".tape").read_text(encoding="utf-8")
    assert after.startswith(before)
    assert after.count("| Three?") == 1


def shown(ran: Ran) -> dict[str, Any]:
    """All that a person sees of a cell."""
    return {
        "displays": [display["data"] for display in ran.displays if display["data"]],
        "text": ran.stdout,
        "error": ran.error,
    }


def turns_of(kernel: RealKernel, *sessions: str) -> Any:
    """All turns of sessions, also those set aside, but for when and where they came."""
    kernel.run("import json\nfrom chatmagic import magics\nfrom chatmagic.conversation.record import turn_record")
    told = []
    for name in sessions:
        code = f"json.dumps([turn_record(t) for t in magics.kernel.sessions[{name!r}].tree.turns])"
        turns = json.loads(kernel.evaluate(code))
        told.append(
            [
                {key: value for key, value in turn.items() if key not in ("cells", "started", "seconds")}
                for turn in turns
            ]
        )
    return told


TALK = [
    "%load_ext chatmagic\n%config ChatMagic.model = 'llamacpp'",
    "%%chat tutor -s 'Be brief.' --set temperature=0\nWhat is a mean?",
    "%%chat tutor\nAnd a sample? <b>No</b> HTML, ‘quotes’, 平均, \u2028 and \\frac{1}{2}.",
    "%chat retry",
    "%%chat tutor --set max_tokens=4 --no-stream\nGo on.",
    "%chat set max_tokens=",
    "%chat continue",
    "%%chat long --context summary:1400\n{{ 'Every value is large or small. ' * 30 }}",
    "%%chat long\n{{ 'Only one case is good. ' * 30 }}",
    "%%chat long\n{{ 'How many are there in all? ' * 30 }}",
    "%%chat long\n{{ 'What is the error of it? ' * 30 }}",
    "%chat compact tutor",
    "%%chat tutor\nWhat did we say?",
    "import chatmagic; print([turn.reply for turn in map(chatmagic.session('tutor').ask, ['One?', 'Two?'])])",
    "%chat history tutor",
    "%chat context long",
    "%chat sessions",
]


def test_llamacpp_replayed_is_what_was_recorded(tmp_path: Path) -> None:
    """What the real server answered comes back without it: outputs, turns, counts of tokens, summaries; key for key."""
    tape = {"CHATMAGIC_TAPE": str(tmp_path / "talk.tape")}
    with llama_server(context=2048, words=12) as url:
        config = f"c.ChatMagic.endpoints = {{'llamacpp': {{'url': {url!r}, 'model': 'default'}}}}"
        with RealKernel({**home(tmp_path / "one", config), **tape, "CHATMAGIC_TAPE_MODE": "record"}) as kernel:
            recorded = [shown(kernel.run(code)) for code in TALK]
            turns = turns_of(kernel, "tutor", "long")
    kept = Path(tape["CHATMAGIC_TAPE"]).read_bytes()

    with RealKernel({**home(tmp_path / "two"), **tape}) as kernel:
        ran = [kernel.run(code) for code in TALK]
        again = turns_of(kernel, "tutor", "long")
        listed = kernel.run("%chat tape").text

    assert [each["error"] for each in recorded] == [""] * len(TALK)
    assert [shown(each) for each in ran] == recorded
    assert again == turns
    assert Path(tape["CHATMAGIC_TAPE"]).read_bytes() == kept
    assert ", 0 not used" in listed
    assert any("summar" in str(each["displays"]) for each in recorded[7:11])
    # nbval compares the first frame with the last one that is saved.
    kinds = {message["msg_type"] for each in ran for message in each.messages}
    assert kinds == {"status", "execute_input", "display_data", "stream"}
    assert [len(each.of("display_data")) for each in ran[1:4]] == [1, 1, 1]


def test_a_reply_from_a_tape_is_one_display(tmp_path: Path) -> None:
    """A %%chat cell that a tape answers sends one display_data with what was recorded, and nothing else.

    Also on a slow machine, and where no journal can be kept.
    """
    shutil.copy(TAPE, tmp_path)
    environ = {**home(tmp_path / "ipython", startup=SLOW), "CHATMAGIC_TAPE": str(tmp_path / TAPE.name)}
    (tmp_path / "ipython" / "profile_default" / "chatmagic.sqlite").write_text("no database")
    with RealKernel(environ) as kernel:
        for cell in cells(NOTEBOOK)[:5]:
            ran = kernel.run(cell.source, cell_id=cell.id)
            if cell.source.startswith("%%chat"):
                kinds = [message["msg_type"] for message in ran.messages]
                assert kinds == ["status", "execute_input", "display_data", "status"]
                assert ran.displays[0]["data"] == cell.outputs[0].data


def test_no_cell_changes_the_output_of_another_one(tmp_path: Path) -> None:
    """While a tape runs, the outputs of turns that are set aside stay what they are, whatever the front end is."""
    with RealKernel({**home(tmp_path), "CHATMAGIC_TAPE": str(tmp_path / "t"), "CHATMAGIC_TAPE_MODE": "auto"}) as kernel:
        kernel.run("%load_ext chatmagic\n%config ChatMagic.model = 'demo'")
        kernel.run("%%chat\nHello.", cell_id="one")
        kernel.run("%%chat\nWhat did I say first?", cell_id="two")
        ran = kernel.run("%%chat --at 1\nHow many messages?", cell_id="three")
        back = kernel.run("%chat undo", cell_id="four")

    assert ran.status == back.status == "ok"
    assert not [*ran.of("update_display_data"), *back.of("update_display_data")]


def test_the_panel_compares_by_its_text(tmp_path: Path) -> None:
    """Two kernels show panels of different models, whose text is the same."""
    shown = []
    for name in ("one", "two"):
        with RealKernel(home(tmp_path / name)) as kernel:
            kernel.run("%load_ext chatmagic")
            shown.append(kernel.run("%chat").displays[0]["data"])

    widget = "application/vnd.jupyter.widget-view+json"
    assert shown[0].pop(widget)["model_id"] != shown[1].pop(widget)["model_id"]
    assert shown[0] == shown[1] == {"text/plain": "chatmagic panel (run this cell to see it)"}


FAILING = [
    "%%chat\nWhat is a mode?",
    "%%chat tutor -s 'You are a patient statistics tutor.' --set temperature=1\nWhat is a mean?",
    "%chat models llamacpp",
    "%chat models ollama",
    "%chat replay missing.tape",
    "%chat replay damaged.tape",
    "%chat replay .",
    "%chat record nowhere/new.tape",
    "%chat live",
    "%chat tape",
]


def test_errors_are_the_same_everywhere(tmp_path: Path) -> None:
    """What fails with a tape says the same in every folder: no path, no port, no time."""
    said = []
    with RealKernel(home(tmp_path / "ipython")) as kernel:
        kernel.run("%load_ext chatmagic\n%config ChatMagic.model = 'llamacpp'\nimport os")
        for folder in (tmp_path / "one", tmp_path / "somewhere" / "else"):
            folder.mkdir(parents=True)
            shutil.copy(TAPE, folder)
            (folder / "damaged.tape").write_text("chatmagic tape 1\n\nwhat?\n")
            kernel.run(f"os.chdir({str(folder)!r})")
            kernel.run(f"%chat replay {TAPE.name}")
            said.append([shown(kernel.run(code)) for code in FAILING])

    errors = [each["error"] for each in said[0]]
    assert said[0] == said[1]
    assert [error.partition(":")[0] for error in errors] == [
        *["TapeError"] * 2,
        "",
        *["TapeError"] * 5,
        "",
        "TapeError",
    ]
    assert str(tmp_path) not in str(said)
    assert not re.search(r":\d{4}", str(errors))


def test_each_notebook_plays_the_tape_of_its_name(tmp_path: Path) -> None:
    """Several notebooks in one run have a tape each, with no variable at all; tests of another kind get none."""
    environ = home(tmp_path / "ipython")
    with ChatServer() as server:
        for name in "ab":
            server.otherwise = lambda _, name=name: text_answer(f"I am {name}.")  # type: ignore[misc]
            notebook = written(tmp_path / f"{name}.ipynb", "%load_ext chatmagic", "%%chat\nWho are you?")
            record(notebook, {**environ, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY})
    written(tmp_path / "c.ipynb", "import os", "assert 'CHATMAGIC_TAPE' not in os.environ")
    other = tmp_path / "test_other.py"
    other.write_text("import os\ndef test_none(): assert 'CHATMAGIC_TAPE' not in os.environ\n", encoding="utf-8")

    assert passed(nbval(tmp_path, "a.ipynb", "b.ipynb", "c.ipynb", "test_other.py", **environ)) == 2 + 2 + 2 + 1
