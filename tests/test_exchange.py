"""Sessions go to files and come back, and what is in files of others becomes sessions."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from chatmagic import files, magics
from chatmagic.conversation.messages import Cell, Sent, Turn, Usage
from chatmagic.conversation.record import session_record
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.errors import ChatMagicError, RecordError
from chatmagic.exchange.conversation import Conversation, free_name, slug
from chatmagic.exchange.reading import conversations
from chatmagic.exchange.writing import ENDINGS, save, text_of
from chatmagic.testing import FakeClient
from tests.test_preview import EVIL, cells, failed, good, page, turns


@pytest.fixture
def far(kernel: magics.Kernel) -> FakeClient:
    """The other end of the wire of the shell, which repeats every prompt."""
    client = FakeClient()
    kernel.client = client
    return client


def footer(session: str, turn: Turn) -> str:
    """What stands below a turn."""
    return f"{session} · {turn.model}"


def read(text: str | bytes, path: Path) -> list[Conversation]:
    """The conversations in a file with *text*."""
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return list(conversations(path))


def only(text: str | bytes, path: Path) -> Session:
    """The session in a file with *text*."""
    (found,) = read(text, path)
    assert found.session is not None, found.problem
    return found.session


def said(session: Session) -> list[tuple[str, str]]:
    """Prompts and replies of the line."""
    return [(turn.prompt, turn.reply) for turn in session.turns]


def whole(session: Session) -> dict[str, Any]:
    """All that a session is, but for when its acts were done: they come back as done just now."""
    record = session_record(session)
    return {**record, "acts": [{**act, "stamp": 0} for act in record["acts"]]}


# Round trips

TEXT = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(categories=["Lu", "Zs", "Cc", "Cs", "So"]), max_size=20),
    st.lists(
        st.sampled_from(
            [
                "# x",
                "## #1",
                "\n",
                "\n\n",
                "\r\n",
                "<!-- chatmagic reply 3 -->\n",
                "<!-- chatmagic prompt 3 -->",
                '<!-- chatmagic session 1 {"name": "x"} -->',
                "```",
                "**Reply**",
                "-->",
                "{{ x }}",
                "%%chat",
                "<script>alert(1)</script>",
                "é",
                "😀",
                "\ud800",
                " ",
                "\x85",
                "\u2028",
                "--raw",
            ]
        ),
        max_size=6,
    ).map("".join),
)
VALUES = st.one_of(st.integers(-9, 9), st.booleans(), st.text(min_size=1, max_size=9), st.just({"a": [1, None, "é"]}))
SETTINGS = st.dictionaries(st.sampled_from(["temperature", "top_p", "stop", "seed"]), VALUES, max_size=2).map(
    Settings
) | TEXT.filter(bool).map(lambda text: Settings({"system": text}))
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), TEXT, TEXT, SETTINGS),
        st.tuples(st.just("set"), SETTINGS),
        st.tuples(st.just("pin"), st.integers(1, 9)),
        st.tuples(st.just("go"), st.integers(0, 9)),
        st.tuples(st.just("remember"), TEXT),
        st.tuples(st.just("undo")),
        st.tuples(st.just("redo")),
        st.tuples(st.just("clear")),
    ),
    max_size=12,
)


def done(acts: Sequence[tuple[Any, ...]]) -> Session:
    """A session in which *acts* were done, as far as they can be."""
    session = Session("tutor")
    for number, (what, *how) in enumerate(acts):
        try:
            if what == "ask":
                _ask(session, number, *how)
            elif what == "undo":
                session.undo()
            elif what == "redo":
                session.redo()
            else:
                getattr(session, what)(*how)
        except ChatMagicError:
            continue
    session.spent.add(Usage(3, 4, 1, cost=0.5))
    return session


def _ask(session: Session, number: int, prompt: str, reply: str, asked: Settings) -> None:
    session.add(
        Turn(
            prompt,
            reply,
            reply[:3],
            session.last,
            model="m",
            settings=asked.over(session.state.line),
            usage=Usage(1, 2, cost=0.25),
            cells=(Cell(f"c{number % 3}", str(number)),),
            started=1.5,
            sent=Sent("budget", "x", pinned=(1,), facts=("f",)),
            size=7,
        )
    )


def no_pairs(session: Session) -> bool:
    """True if no two halves of a character stand side by side: JSON cannot tell them from the character."""
    return not re.search("[\ud800-\udbff][\udc00-\udfff]", "".join(_texts(whole(session))))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value, "\n"]
    each = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return [text for one in each for text in _texts(one)]


def shown(text: str) -> str:
    """A text with U+FFFD for each half of a character."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


FAST = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FAST
@given(ACTS)
def test_json_is_without_loss(tmp_path: Path, acts: Sequence[tuple[Any, ...]]) -> None:
    """Tree, acts, undone ones too, pins, facts, settings and what was spent come back, whatever they hold."""
    session = done(acts)
    assume(no_pairs(session))

    back = only(text_of([session], ".json", footer), tmp_path / "x.json")

    assert whole(back) == whole(session)
    assert back.settings == session.settings
    assert back.turns == session.turns


@FAST
@given(ACTS)
def test_markdown_comes_back(tmp_path: Path, acts: Sequence[tuple[Any, ...]]) -> None:
    """Prompts, replies, reasoning, settings and facts come back from .md, whatever they hold."""
    session = done(acts)
    assume(no_pairs(session))

    back = only(text_of([session], ".md", footer), tmp_path / "x.md")

    assert said(back) == [(shown(turn.prompt), shown(turn.reply)) for turn in session.turns]
    assert [turn.reasoning for turn in back.turns] == [shown(turn.reasoning) for turn in session.turns]
    assert shown(back.settings.system or "") == shown(session.settings.system or "")
    assert back.settings.parameters == session.settings.parameters
    assert back.state.facts == session.state.facts
    assert [(turn.usage, turn.model, turn.started) for turn in back.turns] == [
        (turn.usage, turn.model, turn.started) for turn in session.turns
    ]


@FAST
@given(ACTS)
def test_a_notebook_comes_back(tmp_path: Path, acts: Sequence[tuple[Any, ...]]) -> None:
    """The notebook is valid, and prompts, replies and what the session itself has set come back from it."""
    session = done(acts)
    assume(session.turns)
    text = text_of([session], ".ipynb", footer)

    nbformat.validate(nbformat.reads(text, as_version=4))  # type: ignore[no-untyped-call]
    back = only(text, tmp_path / "x.ipynb")

    assert said(back) == [(shown(turn.prompt), shown(turn.reply)) for turn in session.turns]
    assert {shown(key): value for key, value in back.state.own.parameters.items()} == session.state.own.parameters


@FAST
@given(st.lists(ACTS, min_size=2, max_size=3), st.sampled_from([".json", ".md"]))
def test_several_sessions_come_back(tmp_path: Path, many: list[Sequence[tuple[Any, ...]]], ending: str) -> None:
    """All sessions in one file come back, in their order."""
    sessions = [done(acts) for acts in many]
    for number, session in enumerate(sessions):
        session.name = f"s{number}"
    assume(all(map(no_pairs, sessions)))

    found = read(text_of(sessions, ending, footer, several=True), tmp_path / "x")

    assert [each.title for each in found] == [session.name for session in sessions]
    assert [[shown(text) for pair in said(each.session) for text in pair] for each in found if each.session] == [
        [shown(text) for pair in said(session) for text in pair] for session in sessions
    ]


def test_forks_share_their_tree_again(tmp_path: Path) -> None:
    """Sessions that share a tree share it again after import, and others do not."""
    first = done([("ask", "a", "b", Settings()), ("ask", "c", "d", Settings())])
    fork, other = first.forked("draft", first.turns[0]), done([("ask", "e", "f", Settings())])
    other.name = "other"

    back = [each.session for each in read(text_of([first, fork, other], ".json", footer, several=True), tmp_path / "x")]

    one, two, three = filter(None, back)
    assert one.tree is two.tree is not three.tree
    assert two.turns[0] is one.turns[0]
    assert [whole(session) for session in (one, two, three)] == [whole(session) for session in (first, fork, other)]


def test_json_has_the_messages(tmp_path: Path) -> None:
    """What .json holds under messages is what the API takes, and other tools read."""
    session = done([("set", Settings({"system": "Be kind."})), ("ask", "a", "b", Settings())])
    found = json.loads(text_of([session], ".json", footer))
    expected = [("system", "Be kind."), ("user", "a"), ("assistant", "b")]

    assert [(each["role"], each["content"]) for each in found["messages"]] == expected
    back = only(json.dumps({"messages": found["messages"]}), tmp_path / "x")
    assert back.settings.system == "Be kind."
    assert said(back) == [("a", "b")]


@pytest.mark.parametrize("ends", ["\r\n", "\n\n"])
def test_edited_markdown_can_be_read(tmp_path: Path, ends: str) -> None:
    """Who edits a text in the file, or saves it with other ends of lines, need not count its characters."""
    session = done([("ask", "one", "two", Settings()), ("ask", "three", "four", Settings())])
    text = text_of([session], ".md", footer).replace("two", "two and\n\nmore").replace("three", "3")
    text = text.replace("\n", "\r\n") if ends == "\r\n" else text + "\n"

    back = only(text, tmp_path / "x.md")

    assert [(a, b.replace("\r", "").strip()) for a, b in said(back)] == [("one", "two and\n\nmore"), ("3", "four")]


# The page


def test_the_page_is_safe_and_needs_nothing(tmp_path: Path) -> None:
    """The page runs nothing, loads nothing and says so to the browser; all text of strangers is text."""
    session = done(
        [("set", Settings({"system": EVIL})), ("ask", EVIL, f"{EVIL}\n\n```python\nx = 1\n```\n$x^2$", Settings())]
    )
    html = text_of([session], ".html", lambda name, _: f"{name} {EVIL}")
    tags = {tag.lower() for tag in re.findall(r"<([a-z!/][a-z0-9-]*)", html, re.IGNORECASE)}

    assert not tags & {"script", "img", "iframe", "link", "object", "embed", "form", "svg", "base", "video", "audio"}
    assert not re.search(r"<[^>]*\s(?:on\w+|src|srcset|action)\s*=", html)
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    assert "@import" not in html
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html
    assert ".highlight .k " in html
    assert "x^2" in html
    assert tmp_path.exists()


# Files


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that is there stays as it is, unless --force says otherwise; then it keeps its mode."""
    path = tmp_path / "x.md"
    path.write_text("mine")
    path.chmod(0o640)
    session = done([("ask", "a", "b", Settings())])

    with pytest.raises(RecordError, match=r"there is a file .* already\. .*--force"):
        save([session], path, footer)
    assert path.read_text() == "mine"
    save([session], path, footer, force=True)
    assert "chatmagic" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["x.md"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    """Over a symbolic link, the file that it leads to is written."""
    path, link = tmp_path / "x.md", tmp_path / "link.md"
    path.write_text("old")
    link.symlink_to(path)

    files.write(link, "new", force=True)

    assert link.is_symlink()
    assert path.read_text() == "new"


@pytest.mark.parametrize("there", [False, True])
def test_a_failed_export_leaves_nothing(tmp_path: Path, there: bool) -> None:
    """When the disk has no room for all of it, there is no file, or still the old one, and nothing else."""
    path = tmp_path / "x.md"
    if there:
        path.write_text("mine")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(RecordError, match="cannot be written: File too large"):
            files.write(path, "x" * 100_000, force=there)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    assert os.listdir(tmp_path) == ["x.md"] * there
    assert not there or path.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.txt", "'x.txt' must end with one of .md, .json, .ipynb, .html"),
        ("x", "must end with"),
        ("nowhere/x.md", "cannot be written: No such file"),
        ("folder.md", "is no file"),
        ("\0.md", "cannot be written"),
        (f"{'x' * 300}.md", "cannot be written: File name too long"),
    ],
)
def test_where_nothing_can_be_written(tmp_path: Path, name: str, message: str) -> None:
    """A path that cannot be is one line."""
    (tmp_path / "folder.md").mkdir()

    with pytest.raises(RecordError, match=message):
        save([Session("x")], tmp_path / name, footer, force=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_keys_reach_no_file(tmp_path: Path, ending: str) -> None:
    """A key that was said, or set, is not in the file; the sessions still have it."""
    key = "sk-very-secret-123"
    session = done(
        [("set", Settings({"extra_headers": {"a": "hidden"}, "user": key})), ("ask", f"my key: {key}", key, Settings())]
    )
    path = tmp_path / f"x{ending}"

    save([session], path, footer, secrets=[key])

    assert key not in path.read_text()
    assert "my key: [key]" in path.read_text()
    assert '"hidden' not in path.read_text()
    assert session.turns[0].reply == key


# Names


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Plan a trip to Zürich!", "Plan-a-trip-to-Zürich"),
        ("  ", "chat"),
        ("3 ways", "chat-3-ways"),
        ("../../etc/passwd", "etc-passwd"),
        ("__proto__", "proto"),
        ("x_.", "x_."),
        ("a\x00b\x1b[31m\u202ec", "a-b-31m-c"),
        ("\ud800", "chat"),
        ("x" * 10_000_000, "x" * 56),
        ("日本語の質問", "日本語の質問"),
        ("<script>alert(1)</script>", "script-alert-1-script"),
    ],
)
def test_titles_become_names(title: str, name: str) -> None:
    """A title becomes a name that a session can have and a person can type."""
    found = slug(title)

    assert found == name
    assert Session(found).name == found


def test_taken_names_get_a_number() -> None:
    """What is called like something that is there gets a number."""
    assert free_name("a b", {"a-b", "a-b-2"}) == "a-b-3"


# What others write


def test_lists_of_messages(tmp_path: Path) -> None:
    """Roles of the API become prompts, replies and the system prompt; what has no place is said to be left out."""
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "what is"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "see", "arguments": "{}"}}]},
        {"role": "tool", "content": "a cat"},
        {"role": "assistant", "content": "A cat."},
        {"role": "system", "content": "Be long."},
        {"role": "user", "content": "sure?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "really?"},
    ]
    (found,) = read(json.dumps(messages), tmp_path / "talk.json")
    session = found.session

    assert session is not None
    assert found.title == "talk"
    assert session.turns[0].prompt == "what is\n\n[image]"
    assert session.turns[0].reply.startswith("```json")
    assert session.turns[0].reply.endswith("\n\nA cat.")
    assert (session.turns[1].prompt, session.turns[1].reply) == ("sure?", "Yes.")
    assert session.state.own.system == "Be brief."
    assert session.settings.system == "Be long."
    assert found.notes == ("1 prompt without a reply left out", "1 message of tools left out")


def line(number: int) -> str:
    """A line of a fine-tuning file."""
    said = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]
    return json.dumps({"messages": said})


@pytest.mark.parametrize(
    "text",
    [
        f"{line(1)}\n{line(2)}\n",
        f"\ufeff{line(1)}\r\n\r\n{line(2)}",
        f"[{line(1)}, {line(2)}]",
        f"[\n{line(1)},\n{line(2)}\n]",
        "\n".join(json.dumps(json.loads(line(n))["messages"]) for n in (1, 2)),
    ],
    ids=["lines", "bom and blank lines", "list", "lines of a list", "lines of lists"],
)
def test_several_lists_of_messages(tmp_path: Path, text: str) -> None:
    """A fine-tuning file, and a list, hold one session a line or element."""
    found = read(text, tmp_path / "tune.jsonl")

    assert [said(each.session) for each in found if each.session] == [[("q1", "a1")], [("q2", "a2")]]


def test_a_bad_line_spoils_no_other(tmp_path: Path) -> None:
    """A line that cannot be read is listed with its problem, beside the others."""
    found = read(f"{line(1)}\n{{broken}}\n{line(2)}\n" + '{"messages": [{"role": "king"}]}', tmp_path / "x.jsonl")

    assert [bool(each.session) for each in found] == [True, False, True, False]
    assert "no whole JSON" in found[1].problem
    assert found[3].problem == "message 1 has the role 'king'"


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "there is nothing in it"),
    "blank": (b" \n ", "there is nothing in it"),
    "a number": (b"12", "only Markdown that %chat export has written"),
    "latin-1": ('{"messages": [{"role": "user", "content": "é"}]}'.encode("latin-1"), "not in UTF-8"),
    "latin-1 text": ("# é".encode("latin-1"), "not in UTF-8"),
    "utf-16": ("[]".encode("utf-16"), "not in UTF-8"),
    "zeros": (b"\0" * 100, "not in UTF-8"),
    "no conversation": (b"{}", "holds no conversation that is known. Known are"),
    "empty list": (b"[]", "no conversation in its list"),
    "list of numbers": (b"[1, 2, 3]", "no conversation in its list"),
    "breaks off": (b'[{"mapping": {', "breaks off"),
    "breaks off in a text": (b'["abc', "breaks off"),
    "breaks off in an object": (b'{"messages": [', "no whole JSON"),
    "behind the end": (b"[]]", "behind the end"),
    "too deep": (b"[" * 200_000 + b"]" * 200_000, "nests more than 200 levels deep"),
    "too deep object": (b'{"a":' * 200_000, "nests too deep"),
    "NaN": (b'{"chatmagic": 1, "session": "x", "turns": [{"prompt": "", "reply": "", "seconds": NaN}]}', "number"),
    "infinite": (
        b'{"chatmagic": 1, "session": "x", "turns": [{"prompt": "", "reply": "", "started": 1e999}]}',
        "number",
    ),
    "long number": (b'{"chatmagic": 1' + b"0" * 5000 + b"}", "number"),
    "later format": (b'{"chatmagic": 2}', "a newer chatmagic has written it .format 2, this one reads 1"),
    "no format": (b'{"chatmagic": "x"}', "has the format 'x'"),
    "no turns": (b'{"chatmagic": 1, "session": "x"}', "'turns' cannot be None"),
    "parent behind": (
        b'{"chatmagic": 1, "session": "x", "turns": [{"prompt": "", "reply": "", "parent": 1}]}',
        "turn #1 cannot come behind turn #1",
    ),
    "name": (b'{"chatmagic": 1, "session": "../x", "turns": [], "state": {}}', "cannot name a session"),
    "setting": (
        b'{"chatmagic": 1, "session": "x", "turns": [], "state": {"own": {"values": {"messages": []}}}}',
        "a setting that cannot be: 'messages' cannot be set",
    ),
    "trees": (b'{"chatmagic": 1, "sessions": [{"tree": 3}], "trees": []}', "there is no tree 3"),
    "huge start": (
        b'{"chatmagic": 1, "session": "x", "turns": [{"prompt": "", "reply": "", "started": 1' + b"0" * 400 + b"}]}",
        ".started. cannot be 1000",
    ),
    "notebook without chats": (
        b'{"nbformat": 4, "cells": [{"outputs": [3, {"metadata": 1}]}, 7]}',
        "no output of a chat",
    ),
    "messages": (b'{"messages": [1]}', "1 is no message"),
    "content": (b'{"messages": [{"role": "user", "content": 1}]}', "message 1 has the content 1"),
    "mapping": (b'{"mapping": []}', "is no mapping of messages"),
    "markdown": (b"# Hello\n\nworld", "only Markdown that"),
    "markdown of a later format": (b"# x\n\n<!-- chatmagic session 2 -->\n", "a newer chatmagic"),
    "markdown without its head": (b"<!-- chatmagic prompt 1 -->\nx", "missing at its beginning"),
    "markdown with broken json": (b"<!-- chatmagic session 1 {x} -->\n", "no whole JSON"),
    "zip": (b"PK\x03\x04" + b"x" * 100, "the zip file cannot be read"),
    "sqlite": (b"SQLite format 3\0" + b"x" * 100, "the database cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A broken or hostile file is one line that names it and says what is wrong."""
    data, message = HOSTILE[name]

    with pytest.raises(RecordError, match=message) as caught:
        read(data, tmp_path / "file.x")
    assert "file.x" in str(caught.value)
    assert len(str(caught.value)) <= 1000


@pytest.mark.parametrize("kind", ["nowhere", "folder", "pipe", "device", "loop"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """What is no plain file is not waited for, and not read without end."""
    path = tmp_path / "x"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)

    with pytest.raises(RecordError, match=r"cannot be read|is no file"):
        list(conversations(path))


# The verbs


def test_export_and_import(shell: InteractiveShell, far: FakeClient, tmp_path: Path) -> None:
    """A session goes to a file and comes back under another name, as the current one; undo takes that back."""
    good(shell, "%%chat tutor -s 'Be kind.'\nfirst", *turns("second"))
    path = tmp_path / "my chat.json"

    assert f"Written to {str(path)!r}: 'tutor', 2 turns." in text(shell, f'%chat export "{path}"')
    answer = text(shell, f'%chat import "{path}"')

    assert "The current session is 'tutor-2', imported: 2 turns. %chat undo takes it back. %chat use tutor" in answer
    sessions = magics.kernel.sessions
    assert said(sessions["tutor-2"]) == said(sessions["tutor"])
    good(shell, *turns("third"))
    assert [message.content for message in far.requests[-1].messages] == [
        "Be kind.",
        "first",
        "first",
        "second",
        "second",
        "third",
    ]
    good(shell, "%chat undo 2")
    assert "tutor-2" not in sessions
    assert sessions.current == "tutor"


def text(shell: InteractiveShell, line: str) -> str:
    """What a line answers, as text."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        good(shell, line)
    return str(captured.stdout).strip()


def test_what_was_undone_can_be_redone_after_import(shell: InteractiveShell, far: FakeClient, tmp_path: Path) -> None:
    """The acts of a session come along: after import its own redo and undo work as they would have."""
    good(
        shell,
        *turns("a", "b"),
        "%chat undo",
        f"%chat export {tmp_path}/x.json",
        f"%chat import {tmp_path}/x.json --as y",
    )

    good(shell, "%chat redo")
    assert [turn.prompt for turn in magics.kernel.sessions["y"].turns] == ["a", "b"]
    assert far.requests


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_sessions(shell: InteractiveShell, far: FakeClient, tmp_path: Path, ending: str) -> None:
    """--all writes every session into one file, and import lists what is in it and takes in what is picked."""
    good(shell, "%%chat one\na", "%%chat two\nb", "%chat fork three")
    path = tmp_path / f"all{ending}"

    assert "3 sessions, 3 turns" in text(shell, f"%chat export {path} --all")
    if ending == ".html":
        assert path.read_text().count("<h1>") == 3
        return
    shown = page(shell, f"%chat import {path}")
    assert [row[1:3] for row in cells(shown["text/html"])] == [["one", "1"], ["two", "1"], ["three", "1"]]
    assert "--pick" in shown["text/plain"]
    assert len(magics.kernel.sessions) == 3
    answer = text(shell, f"%chat import {path} --pick 2-3")
    assert "2 sessions are imported: 'two-2', 'three-2'" in answer
    assert magics.kernel.sessions.current == "three"
    assert far.requests
    if ending == ".json":
        assert magics.kernel.sessions["two-2"].tree is magics.kernel.sessions["three-2"].tree


def test_picks(shell: InteractiveShell, tmp_path: Path) -> None:
    """One picked session becomes the current one, several do not; --as names a single one."""
    path = tmp_path / "tune.jsonl"
    path.write_text("\n".join(map(line, range(1, 6))))

    good(shell, f"%chat import {path} --pick 2 --as mine")
    assert magics.kernel.sessions.current == "mine"
    good(shell, f"%chat import {path} --pick 1 --pick 4-5")
    assert [session.name for session in magics.kernel.sessions] == ["mine", "tune", "tune-2", "tune-3"]
    assert magics.kernel.sessions.current == "mine"
    good(shell, f"%chat import {path} --pick all")
    assert len(magics.kernel.sessions) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--pick 9", "there is no conversation 9 in 'tune.jsonl': it has 3 conversations"),
        ("--pick x", "--pick takes a number, a range"),
        ("--pick 3-1", "--pick takes a number, a range"),
        ("--pick 0", "--pick takes a number, a range"),
        ("--pick all --as x", "--as names one session, and 2 are picked"),
        ("--pick 1 --as main", "there is a session 'main' already"),
        ("--pick 1 --as 'a b'", "cannot name a session"),
        ("--pick 2", "conversation 2 of 'tune.jsonl' cannot be read"),
        ("--pick 1-3", "conversation 2 of 'tune.jsonl' cannot be read"),
    ],
)
def test_what_cannot_be_imported(
    shell: InteractiveShell, far: FakeClient, tmp_path: Path, options: str, message: str
) -> None:
    """What cannot be taken in is one line, and changes nothing."""
    path = tmp_path / "tune.jsonl"
    path.write_text(f"{line(1)}\n{{\n{line(3)}")
    good(shell, *turns("x"))

    assert message in str(failed(shell, f"%chat import {path} {options}"))
    assert [session.name for session in magics.kernel.sessions] == ["main"]
    assert far.requests


def test_what_is_sound_of_a_broken_file(shell: InteractiveShell, tmp_path: Path) -> None:
    """Of a file that breaks off, what comes before is listed, and can be taken in by its numbers."""
    path = tmp_path / "broken.json"
    path.write_text(f"[{line(1)}, {line(2)}, {{")

    assert (
        "what comes behind conversation 2 cannot be read: 'broken.json': the file breaks off"
        in page(shell, f"%chat import {path}")["text/plain"]
    )
    assert "--pick 1-2 takes them in" in str(failed(shell, f"%chat import {path} --pick all"))
    assert len(magics.kernel.sessions) == 0
    good(shell, f"%chat import {path} --pick 1-2")
    assert len(magics.kernel.sessions) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("export x.json --session nobody", "no session 'nobody'"),
        ("export x.json --all --session main", "exclude each other"),
        ("export x.json", "no session 'main'"),
        ("export x.json --all", "there is no session to export yet"),
        ("export", "%chat export needs FILE"),
        ("import nowhere.json", "'nowhere.json' cannot be read: No such file"),
        ("import ~nobody-at-all/x.json", "cannot be read"),
    ],
)
def test_what_the_verbs_refuse(shell: InteractiveShell, line: str, message: str) -> None:
    """What cannot be is one line that says why."""
    assert message in str(failed(shell, f"%chat {line}"))


def test_keys_of_the_environment(
    shell: InteractiveShell, far: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of the endpoints do not get into a file, even where somebody has typed them into a prompt."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    good(shell, *turns("why is sk-from-the-environment refused?"), f"%chat export {tmp_path}/x.md")

    assert "why is [key] refused?" in (tmp_path / "x.md").read_text()
    assert far.requests


def test_the_notebook_runs(shell: InteractiveShell, far: FakeClient, tmp_path: Path) -> None:
    """Running the cells of an exported notebook asks the same again, with the same settings and system prompt."""
    prompts = ["plain", "{{ 1 + 1 }} stays", "ends\n", "  - indented\n    more", "%%chat x"]
    session = Session("talk", Settings({"system": "Be\nkind.", "temperature": 0}))
    for number, prompt in enumerate(prompts):
        asked = Settings({"seed": 1} if number else {})
        session.add(Turn(prompt, "ok", parent=session.last, settings=asked))
    path = tmp_path / "x.ipynb"
    save([session], path, footer)

    for cell in json.loads(path.read_text())["cells"]:
        good(shell, "".join(cell["source"]))

    ran = magics.kernel.sessions["talk"]
    assert [turn.prompt for turn in ran.turns] == prompts
    assert ran.settings.system == "Be\nkind."
    assert [request.parameters for request in far.requests] == [{"temperature": 0}] + [
        {"temperature": 0, "seed": 1}
    ] * 4


def test_a_notebook_that_was_saved(shell: InteractiveShell, far: FakeClient, tmp_path: Path) -> None:
    """What chat cells have left in a saved notebook comes back, branches too."""
    good(shell, "%%chat t\na", "%%chat t\nb", "%%chat t --at 1\nc")
    session = magics.kernel.sessions["t"]
    from chatmagic.display.page import turn_page

    outputs = [
        {
            "output_type": "display_data",
            "data": {},
            "metadata": turn_page("t", turn, aside=turn not in session).metadata,
        }
        for turn in session.tree.turns
    ]
    back = only(
        json.dumps({"nbformat": 4, "cells": [{"outputs": [output]} for output in outputs]}), tmp_path / "x.ipynb"
    )

    assert said(back) == [("a", "a"), ("c", "c")]
    assert [(turn.prompt, turn.parent and turn.parent.prompt) for turn in back.tree.turns] == [
        ("a", None),
        ("b", "a"),
        ("c", "a"),
    ]
    assert far.requests


def test_commands_import_nothing_heavy() -> None:
    """Loading the verbs loads nothing that reads or writes files."""
    code = """
import sys, chatmagic.commands
print([name for name in sys.modules if name.startswith(("chatmagic.exchange", "zipfile", "sqlite3"))])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# Any damage

KEYS = st.sampled_from(
    re.findall(
        r"\w+",
        """
        chatmagic session sessions trees tree turns state own line values unset acts done before after head spent
        messages role content mapping message author parts current_node parent metadata cells outputs nbformat facts cut
        summary text through pinned since usage cost sent what name key title create_time finish_details thoughts
        """,
    )
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 3),
    st.sampled_from([10**400, -(10**400), 1e308, "", "x", "\ud800", "user", "assistant", "system", "none"]),
)
ANYTHING = st.recursive(LEAVES, lambda each: st.lists(each, max_size=3) | st.dictionaries(KEYS, each, max_size=4))


def looked_at(path: Path) -> None:
    """Read all of a file as import does, and look at what came out of it."""
    try:
        for found in conversations(path):
            if found.session is not None:
                text_of([found.session], ".json", footer)
                found.session.messages  # noqa: B018 - it is made when it is asked for
    except RecordError:
        pass


@FAST
@given(ANYTHING, st.sampled_from([{}, {"chatmagic": 1}, {"nbformat": 4}]), st.booleans())
def test_any_json_is_read_or_refused(tmp_path: Path, found: Any, about: dict[str, Any], listed: bool) -> None:
    """Whatever JSON says, it is a conversation, or one line that says why not."""
    document = {**found, **about} if isinstance(found, dict) else found
    path = tmp_path / "x"
    path.write_text(json.dumps([document] if listed else document))

    looked_at(path)


@FAST
@given(ACTS, st.sampled_from([".json", ".md", ".ipynb"]), st.data())
def test_any_damage_is_read_or_refused(tmp_path: Path, acts: Sequence[tuple[Any, ...]], ending: str, data: Any) -> None:
    """Wherever a value of a file of ours is another one, or bytes are missing, it is read, or refused in one line."""
    written = text_of([done(acts)], ending, footer)
    path = tmp_path / "x"
    if ending == ".md" or data.draw(st.booleans()):
        raw = written.encode()
        start = data.draw(st.integers(0, len(raw)))
        path.write_bytes(raw[:start] + data.draw(st.binary(max_size=3)) + raw[start + data.draw(st.integers(0, 9)) :])
    else:
        path.write_text(json.dumps(_damaged(json.loads(written), data)))

    looked_at(path)


def _damaged(value: Any, data: Any) -> Any:
    """Put something else in one place of *value*."""
    if not value or not isinstance(value, (dict, list)) or data.draw(st.integers(0, 4)) == 0:
        return data.draw(ANYTHING)
    place = data.draw(st.sampled_from(list(value) if isinstance(value, dict) else list(range(len(value)))))
    value[place] = _damaged(value[place], data)
    return value


def test_from_python(
    kernel: magics.Kernel, client: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation gives itself as Markdown and writes itself to a file; no key of an endpoint gets there."""
    kernel.client = client
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    chat = kernel.chat("tutor")
    chat.ask("is sk-very-secret-0123456789 good?")
    chat.export(tmp_path / "tutor.md")

    assert (tmp_path / "tutor.md").read_text() == chat.to_markdown()
    assert "is [key] good?" in chat.to_markdown()
    with pytest.raises(RecordError, match="there is a file"):
        chat.export(tmp_path / "tutor.md")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_markdown_that_was_cut_off(tmp_path: Path, share: float) -> None:
    """A Markdown file of which the end is missing is refused, not read as a shorter conversation."""
    session = Session("tutor")
    for number in range(5):
        session.add(Turn(f"prompt {number} " * 20, f"reply {number} " * 40, parent=session.last))
    text = text_of([session], ".md", lambda *_: "")
    path = tmp_path / "half.md"
    path.write_text(text[: int(len(text) * share)])

    with pytest.raises(RecordError, match="its end is missing"):
        list(conversations(path))


def test_facts_are_remembered_by_a_notebook() -> None:
    """A notebook that is exported remembers the facts of its session before it asks."""
    session = Session("tutor")
    session.add(Turn("p", "r"))
    session.remember("I'm Ada")
    cells = json.loads(text_of([session], ".ipynb", lambda *_: ""))["cells"]

    assert "chatmagic.session('tutor').remember(fact)" in "".join(cells[1]["source"])
    assert "".join(cells[2]["source"]).startswith("%%chat tutor")
