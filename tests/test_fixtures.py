"""The fixtures that chatmagic brings to pytest, used as their users do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import ChatServer, text_answer

README = Path(__file__).parent.parent / "README.md"

EXPLAIN = """
import chatmagic

def explain(word):
    return chatmagic.session("glossary").ask(f"Explain {word}.").reply
"""
TAPED = f"""{EXPLAIN}
def test_one(chat_tape):
    assert explain("mean") == "A sum."

def test_several(chat_tape):
    assert [explain(word) for word in WORDS] == ["One."] * len(WORDS)
"""


def run(folder: Path, source: str, **env: str) -> tuple[dict[str, int], str]:
    """Run a file of tests as a user does; return how many passed, failed and so on, and what was printed."""
    (folder / "test_glossary.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "--color=no", "--rootdir=."]
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "IPYTHONDIR": str(folder), **env}
    ran = subprocess.run([*command, "."], cwd=folder, env=own, capture_output=True, text=True, check=False)
    last = ran.stdout.strip().splitlines()[-1]
    return {
        kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|errors?|warnings?)", last)
    }, ran.stdout


def test_the_readme_is_true(tmp_path: Path) -> None:
    """What the README shows can be run; without a tape the way to make one is said."""
    block = next(
        each for each in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL) if "chat_tape" in each
    )
    with ChatServer() as server:
        server.otherwise = lambda _: text_answer("The sum, divided.")
        known = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-0123456789"}

        without, said = run(tmp_path, f"import chatmagic\n{block}", **known)
        assert (without, server.bodies) == ({"passed": 1, "error": 1}, [])
        assert "CHATMAGIC_TAPE_MODE=record" in said

        assert run(tmp_path, f"import chatmagic\n{block}", **known, CHATMAGIC_TAPE_MODE="record")[0] == {"passed": 2}
        asked = len(server.bodies)
    assert run(tmp_path, f"import chatmagic\n{block}")[0] == {"passed": 2}
    assert asked == 1
    assert "The sum, divided." in (tmp_path / "tapes/test_glossary/test_what_is_answered.tape").read_text("utf-8")


def test_a_tape_belongs_to_its_test(tmp_path: Path) -> None:
    """Each test has its own tape; what it uses no more is said, and gone when it is recorded again."""
    with ChatServer() as server:
        server.otherwise = lambda body: text_answer("A sum." if "mean" in str(body["messages"]) else "One.")
        record = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-0123456789", "CHATMAGIC_TAPE_MODE": "record"}
        assert run(tmp_path, f"WORDS = ['mode', 'range']\n{TAPED}", **record)[0] == {"passed": 2}
        fewer = f"WORDS = ['mode']\n{TAPED}"

        counts, said = run(tmp_path, fewer)
        assert counts["passed"] == 2
        assert "test_several uses" in said

        tape = tmp_path / "tapes/test_glossary/test_several.tape"
        assert "range" in tape.read_text("utf-8")
        assert run(tmp_path, fewer, **record)[0] == {"passed": 2}
        assert "range" not in tape.read_text("utf-8")


def test_each_test_has_a_tape_of_its_own(tmp_path: Path) -> None:
    """Classes, and parameters that no file can be called, keep tests apart."""
    source = f"""{EXPLAIN}
import pytest
class TestA:
    def test_x(self, chat_tape): assert explain("mean") == "mean"
class TestB:
    def test_x(self, chat_tape): assert explain("mode") == "mode"
@pytest.mark.parametrize("word", ["a b", "a-b", "a/b", "ä"])
def test_y(chat_tape, word): assert explain(word) == word
"""
    with ChatServer() as server:
        server.otherwise = lambda body: text_answer(body["messages"][-1]["content"][8:-1])
        known = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-0123456789"}
        assert run(tmp_path, source, **known, CHATMAGIC_TAPE_MODE="record")[0] == {"passed": 6}
    assert run(tmp_path, source)[0] == {"passed": 6}
    names = {path.name for path in (tmp_path / "tapes/test_glossary").iterdir()}
    assert {"TestA.test_x.tape", "TestB.test_x.tape", "test_y-a-b.tape"} < names
    assert len(names) == 6


def test_prepared_answers_when_tapes_are_recorded(tmp_path: Path) -> None:
    """CHATMAGIC_TAPE_MODE is for those tests that have a tape."""
    source = f"{EXPLAIN}\ndef test_a(chat_client): assert explain('x') == 'Explain x.'"

    assert run(tmp_path, source, CHATMAGIC_TAPE_MODE="record")[0] == {"passed": 1}


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("def test_a(chat_client): assert explain('x') == 'Explain x.'", ""),
        ("def test_a(chat_client): chat_client.answers = [ValueError('no')]; explain('x')", "ValueError: no"),
        ("def test_a(chat_client): explain('x')\ndef test_b(chat_client): assert not list(chatmagic.sessions)", ""),
    ],
    ids=["repeats", "fails", "fresh"],
)
def test_prepared_answers(tmp_path: Path, test: str, said: str) -> None:
    """Models say what was prepared, else they repeat the prompt; every test begins without sessions."""
    counts, output = run(tmp_path, EXPLAIN + test)

    assert counts.get("failed", 0) == bool(said)
    assert said in output


def test_an_unknown_mode(tmp_path: Path) -> None:
    """A mode that there is not is said, with those that there are."""
    counts, said = run(tmp_path, f"{EXPLAIN}\ndef test_a(chat_tape): ...", CHATMAGIC_TAPE_MODE="rec")

    assert counts == {"error": 1}
    assert "CHATMAGIC_TAPE_MODE is 'rec'; it can be record, replay, auto" in said
