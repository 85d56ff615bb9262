"""The text of a tape: what is written is read again, and what is damaged says where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.errors import TapeError
from chatmagic.provider.answers import Answer
from chatmagic.provider.playing import played
from chatmagic.provider.tape import Tape
from chatmagic.provider.tapetext import Entry, parted, read, written

ODD = "\u2028\u2029\x85\xa0\u3000\xad\u200b\u202e\x00\x0b\x0c\x1b\x1c\x7f\ufeff\ufffe\U000e0001\ud800\udfff\r\n\t 😀é"
SYNTAX = [
    *("| a", "|", "> user", "< assistant", "> :", "> -", "= 0.1 0.2", '"a"', '"a": 1', "--- 12345678 chat/completions"),
    *("chatmagic tape 1", "- 1", "-", "a: 1", "a:", "  | a", "= {}", "<<<<<<< HEAD", "=======", "\r", " ", "", '"\\'),
]


def joined(text: str) -> str:
    """Text as JSON gives it: no two halves of a character beside each other."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


LINES = st.lists(st.sampled_from(SYNTAX), max_size=6).map("\n".join)
TEXT = st.one_of(
    LINES, st.text(st.sampled_from(ODD + '"\\|<>=-:ax') | st.characters(exclude_categories=[]), max_size=30)
).map(joined)
LONG = st.builds(lambda text, times: joined(text * times), TEXT, st.integers(1, 12))
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LONG
)  # a server that sends NaN has sent no JSON
JSON = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4), max_leaves=12
)
MAPPINGS = st.dictionaries(TEXT, JSON, max_size=4)
ITEMS = st.lists(
    JSON
    | MAPPINGS
    | st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "no role", "-", ":"])}, optional={"content": JSON}
    ),
    max_size=4,
).filter(lambda items: parted(items)[0] == [])
SYSTEM = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer"])}, optional={"content": JSON, "name": TEXT}),
    max_size=2,
)
SECONDS = st.integers(0, 9_999_999).map(lambda tenths: tenths / 10)
ENTRIES = st.lists(
    st.builds(
        lambda after, **parts: Entry(**parts, **after),
        label=st.from_regex(r"[0-9a-f]{8}(-[0-9]+)?", fullmatch=True),
        path=st.sampled_from(["chat/completions", "responses", "GET/models", "/"]),
        settings=MAPPINGS,
        items=ITEMS,
        answer=st.builds(Answer, ITEMS, MAPPINGS),
        took=st.tuples(SECONDS, SECONDS),
        system=SYSTEM,
        after=st.just({})
        | st.fixed_dictionaries(
            {"after": st.just("0123abcd-2"), "count": st.none() | st.integers(0, 99), "bare": st.booleans()}
        ),
    ),
    max_size=3,
)


def unplaced(entries: Sequence[Entry]) -> list[Entry]:
    return [replace(entry, line=0, system=list(entry.system)) for entry in entries]


@settings(max_examples=150, deadline=None)
@given(ENTRIES)
def test_what_is_written_is_read(entries: list[Entry]) -> None:
    """Any JSON, with any text in it, comes back from a tape as it was, and the file is UTF-8."""
    text = written(entries).encode().decode()

    assert unplaced(read(text, "t")) == entries


@settings(max_examples=50, deadline=None)
@given(ENTRIES)
def test_line_ends_of_windows_change_nothing(entries: list[Entry]) -> None:
    """Git may have turned the line ends; what is on the tape is the same."""
    assert unplaced(read(written(entries).replace("\n", "\r\n"), "t")) == entries


@settings(max_examples=50, deadline=None)
@given(ENTRIES)
def test_nothing_is_hidden_in_a_tape(entries: list[Entry]) -> None:
    """No line ends in blanks, and none holds a character that reorders it, ends it or cannot be seen."""
    for line in written(entries).split("\n"):
        assert line == line.rstrip()
        assert not set(line) & set("\x00\x0b\x0c\r\x1b\x1c\x7f\x85\xad\u200b\u2028\u2029\u202e\ufeff\ufffe\ud800\udfff")


@pytest.mark.parametrize("depth", [3, 49, 50, 51, 120])
@pytest.mark.parametrize(
    "around", [pytest.param(lambda x: {"a": x}, id="mapping"), pytest.param(lambda x: [x], id="list")]
)
def test_what_nests_deep_is_read(depth: int, around: Any) -> None:
    """A value that nests deeper than people can read is still kept."""
    value: Any = "long " * 30 + "\nend"
    for _ in range(depth):
        value = around(value)
    entry = Entry("12345678", "responses", {"deep": value}, [value, {"role": "user", "more": value}], Answer([value]))

    assert unplaced(read(written([entry]), "t")) == unplaced([entry])


def test_a_tape_reads_well() -> None:
    """Messages stand there as they are, line by line, and settings as short JSON."""
    system = [{"role": "system", "content": "Be brief."}]
    items = [{"role": "user", "content": "What is\n\n  a *mean*?\n"}]
    answer = Answer([{"role": "assistant", "content": "A sum by a count."}], {"finish_reason": "stop"})
    tools = [{"type": "function", "function": {"name": "look", "description": "Look it up. " * 9}}]
    entry = Entry("1f0c5a7e", "chat/completions", {"model": "m", "tools": tools}, items, answer, (0.44, 1), system)

    assert written([entry]) == (
        "chatmagic tape 1\n\n--- 1f0c5a7e chat/completions\n"
        'model: "m"\ntools:\n  -\n    type: "function"\n    function:\n      name: "look"\n      description:\n'
        f'        "{"Look it up. " * 9}"\n'
        "\n> system\n| Be brief.\n\n> user\n| What is\n|\n|   a *mean*?\n|\n\n< assistant\n| A sum by a count.\n\n"
        '= 0.4 1.0\nfinish_reason: "stop"\n'
    )


GOOD = """chatmagic tape 1

--- 11111111 chat/completions
model: "m"
tools:
  -
    name: "f"

> user
| one

< assistant
| yes

= 0.0 0.1
finish_reason: "stop"

--- 22222222 chat/completions after 11111111
model: "m"

> user
| two

< assistant
| no

= 0.0 0.1
finish_reason: "stop"
"""


def tape(folder: Path, data: bytes) -> Tape:
    path = folder / "a.tape"
    path.write_bytes(data)
    return Tape(path, "replay")


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("--- 1", "<<<<<<< HEAD\n--- 1", 3, "a conflict of git"),
        ("| two", "| two\n=======\n| three", 23, "a conflict of git"),
        ("< assistant\n| no", "< assistant\n| no\n>>>>>>> branch", 26, "a conflict of git"),
        ("after 11111111", "after 33333333", 18, "it goes on from 33333333, which does not stand above"),
        ("after 11111111", "after 22222222", 18, "it goes on from 22222222, which does not stand above"),
        ("after 11111111", "after 11111111:9", 18, "has no 9 messages"),
        ("22222222 ", "11111111 ", 18, "two exchanges 11111111"),
        ("22222222 ", "2222222g ", 18, "begins with '--- LABEL PATH'"),
        ("\n= 0.0 0.1\n", "\n", 15, "or '= SECONDS SECONDS' is needed"),
        ("= 0.0 0.1\n", "= 0.0 now\n", 15, "or '= SECONDS SECONDS' is needed"),
        ('model: "m"', "model: m", 4, "'m' is no JSON"),
        ('model: "m"', 'model: "m', 4, "is no JSON"),
        ('    name: "f"', '   name: "f"', 7, "a value should stand here, 4 blanks in"),
        ('    name: "f"\n', "", 8, "a value should stand here, 4 blanks in"),
        ("| one", "|one", 10, "a blank belongs behind the bar"),
        ("| one", "one", 10, "a line of text behind '| '"),
        ("< assistant\n| yes", "< :\n  | yes", 3, "its answer cannot be sent"),
        ("chat/completions after", "responses after", 18, "its answer cannot be sent"),
        ("> user", "> the user", 9, "'the user' is no role"),
        ('    name: "f"', '    name: "f"\n\x00\x00', 8, "found"),
        ('"m"', "[" * 100_000, 4, "is no JSON"),
        ('"m"', "[" * 100_000 + "]" * 100_000, 4, "is no JSON"),
        ("model:", "".join(f"{'  ' * depth}a:\n" for depth in range(1000)) + "model:", 55, "50 levels"),
        ("| one", "| caf\udce9", 10, "not UTF-8"),
    ],
)
def test_a_damaged_tape_says_where(tmp_path: Path, old: str, new: str, line: int, why: str) -> None:
    """A tape that cannot be read says in which line, and what is wrong there."""
    assert old in GOOD

    with pytest.raises(TapeError) as caught:
        tape(tmp_path, GOOD.replace(old, new, 1).encode("utf-8", "surrogateescape"))

    assert f"'a.tape' is damaged in line {line}: " in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"cells": []}', "'a.tape' is no tape: its first line should be 'chatmagic tape 1'"),
        (b"chatmagic tape\n", "is no tape"),
        (b"chatmagic tape 2\nwhat is this\n", "from a newer chatmagic (its version is 2)"),
        (GOOD.encode("utf-16"), "damaged in line 1: this is not UTF-8"),
        (b"\x00" * 100, "is no tape"),
    ],
)
def test_what_is_no_tape_says_so(tmp_path: Path, data: bytes, why: str) -> None:
    """A file that is something else is not taken for an empty or damaged tape."""
    with pytest.raises(TapeError) as caught:
        tape(tmp_path, data)

    assert why in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_an_empty_file_is_an_empty_tape(tmp_path: Path, data: bytes) -> None:
    """Who makes the file first has a tape on which there is nothing yet."""
    assert tape(tmp_path, data).exchanges == []


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    """Editors on Windows put one before a text."""
    assert len(tape(tmp_path, b"\xef\xbb\xbf" + GOOD.encode()).exchanges) == 2


@pytest.mark.parametrize("depth", [*range(300, 1000, 100), *range(960, 1000, 3)])
def test_json_that_nests_deep_is_read_or_said(tmp_path: Path, depth: int) -> None:
    """However deep JSON on a tape nests, it is read or it is a TapeError."""
    data = GOOD.replace('"m"', "[" * depth + "]" * depth, 1).encode()
    try:
        there = tape(tmp_path, data).exchanges
    except TapeError:
        return

    assert len(there) == 2


def wild(folder: Path) -> bytes:
    """A tape with all that a tape can hold."""
    entries = [
        Entry(
            "11111111",
            "chat/completions",
            {"model": "m", "tools": [{"name": "f", "text": "é " * 90}], "a b": {"x": [], "y": [1, [2, {"z": None}]]}},
            [{"role": "user", "content": "one\n\n\u2028two \n| é"}, {"type": "x"}, "plain", [1]],
            Answer([{"role": "assistant", "content": "yes", "tool_calls": [{"id": "c"}]}], {"usage": {"n": 1}}),
            (0.2, 12.5),
            [{"role": "system", "content": "Be brief."}],
        ),
        Entry("22222222", "chat/completions", {}, [{"role": "user", "content": ""}], Answer(), after="11111111"),
        Entry(
            "22222222-2", "responses", {}, [], Answer(["x"], {"status": "done"}), after="22222222", count=2, bare=True
        ),
    ]
    (folder / "wild.tape").write_text(written(entries), encoding="utf-8")
    return (folder / "wild.tape").read_bytes()


def read_or_said(folder: Path, data: bytes) -> list[Entry] | None:
    """What a tape holds; None: it says that it is damaged."""
    try:
        there = tape(folder, data).exchanges
    except TapeError:
        return None
    entries = read(data.removeprefix(b"\xef\xbb\xbf").decode(), "t")
    assert len(entries) == len(there)
    for each in there:
        for stream in (True, False):
            assert b"".join(played(each.question, each.answer, stream=stream, with_usage=True))
    return entries


def test_a_tape_that_is_cut_off_is_a_beginning_or_damaged(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Wherever a tape breaks off, what is read of it is a beginning of it, or it says that it is damaged."""
    folder = tmp_path_factory.mktemp("cut")
    whole = wild(folder)
    known = read(whole.decode(), "t")
    for end in range(1, len(whole)):
        entries = read_or_said(folder, whole[:end])
        if entries is not None:
            assert [(each.label, each.items) for each in entries] == [
                (each.label, each.items) for each in known[: len(entries)]
            ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edited")


@settings(max_examples=200, deadline=None)
@given(
    at=st.integers(0, 2000),
    length=st.integers(0, 40),
    new=st.binary(max_size=8) | st.sampled_from([each.encode() for each in SYNTAX]) | st.sampled_from([b"\n", b"  "]),
)
def test_an_edit_is_read_or_said(folder: Path, at: int, length: int, new: bytes) -> None:
    """Whatever is changed in a tape, it is read, or it is a TapeError."""
    whole = wild(folder)
    at %= len(whole)

    read_or_said(folder, whole[:at] + new + whole[at + length :])
