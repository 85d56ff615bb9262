"""Data exports of ChatGPT, and logs of llm, become sessions with all their branches."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from chatmagic import magics
from chatmagic.conversation.session import Session
from chatmagic.errors import RecordError
from chatmagic.exchange import chatgpt, stream
from chatmagic.exchange.branches import Node, grown
from chatmagic.exchange.reading import conversations
from tests.test_exchange import only, said
from tests.test_preview import EVIL, cells, good, page


def node(key: str, parent: str | None, role: str = "", text: Any = "", **more: Any) -> dict[str, Any]:
    """A node of a mapping; without a role it has no message."""
    content = text if isinstance(text, dict) else {"content_type": "text", "parts": [text]}
    message = {"id": key, "author": {"role": role}, "content": content, "create_time": 1700000000.5, **more}
    return {"id": key, "message": message if role else None, "parent": parent, "children": []}


def talk(*nodes: dict[str, Any], head: str | None = None, title: str | None = "Talk") -> dict[str, Any]:
    """A conversation of an export."""
    mapping = {each["id"]: each for each in nodes}
    for each in nodes:
        if each["parent"] in mapping:
            mapping[each["parent"]]["children"].append(each["id"])
    return {"title": title, "create_time": 1700000000.0, "mapping": mapping, "current_node": head or nodes[-1]["id"]}


def session_of(conversation: dict[str, Any]) -> Session:
    """The session that a conversation of an export becomes."""
    found = chatgpt.conversation(conversation)
    assert found.session is not None
    return found.session


BRANCHES = talk(
    node("root", None),
    node("sys", "root", "system", "", metadata={"is_visually_hidden_from_conversation": True}),
    node("u1", "sys", "user", "one"),
    node("a1", "u1", "assistant", "first try", metadata={"model_slug": "gpt-4o"}),
    node("a2", "u1", "assistant", "second try", metadata={"model_slug": "gpt-5"}),
    node("u2", "a2", "user", "two"),
    node("a3", "u2", "assistant", "three"),
    node("u3", "a2", "user", "two, edited"),
    node("a4", "u3", "assistant", "four"),
    head="a3",
)


def test_branches_are_kept() -> None:
    """Every path is in the tree, and the line is the one that was shown last."""
    session = session_of(BRANCHES)

    assert said(session) == [("one", "second try"), ("two", "three")]
    assert [(turn.prompt, turn.reply, turn.parent and turn.parent.reply) for turn in session.tree.turns] == [
        ("one", "first try", None),
        ("one", "second try", None),
        ("two", "three", "second try"),
        ("two, edited", "four", "second try"),
    ]
    assert [turn.model for turn in session.tree.turns[:2]] == ["gpt-4o", "gpt-5"]
    assert session.turns[0].started == 1700000000.5
    assert [turn.number for turn in session.tree.turns] == [1, 2, 3, 4]


def test_what_led_to_an_answer_is_joined() -> None:
    """Thoughts become reasoning; code, pictures and several messages become one reply; what was hidden is left out."""
    session = session_of(
        talk(
            node("p", None, "user", {"content_type": "user_editable_context", "user_profile": "secret"}),
            node("u", "p", "user", {"content_type": "multimodal_text", "parts": [PICTURE, "what is it?"]}),
            node(
                "t", "u", "assistant", {"content_type": "thoughts", "thoughts": [{"summary": "Look", "content": "Hm."}]}
            ),
            node("r", "t", "assistant", {"content_type": "reasoning_recap", "content": "Thought for 3 s"}),
            node("c", "r", "assistant", {"content_type": "code", "language": "python", "text": "x = '```'"}),
            node("o", "c", "tool", {"content_type": "execution_output", "text": "None"}),
            node("i", "o", "tool", {"content_type": "multimodal_text", "parts": ["said to the model", PICTURE]}),
            node("h", "i", "assistant", "hidden", metadata={"is_visually_hidden_from_conversation": True}),
            node("a", "h", "assistant", "A cat.", metadata={"finish_details": {"type": "max_tokens"}}),
        )
    )
    (turn,) = session.turns

    assert turn.prompt == "[image]\n\nwhat is it?"
    assert turn.reasoning == "Look\n\nHm."
    assert turn.reply == "````python\nx = '```'\n````\n\n[image]\n\nA cat."
    assert turn.finish == "length"


PICTURE = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}


TWO_ROOTS = talk(
    node("a", None, "user", "a"),
    node("b", "a", "assistant", "b"),
    node("c", None, "user", "c"),
    node("d", "c", "assistant", "d"),
)


@pytest.mark.parametrize(
    ("conversation", "line", "count"),
    [
        (talk(node("a", "b", "user", "x"), node("b", "a", "assistant", "y")), [], 0),
        (talk(node("a", "a", "user", "x"), node("b", "a", "assistant", "y")), [("x", "y")], 1),
        (talk(node("a", "gone", "user", "x"), node("b", "a", "assistant", "y")), [("x", "y")], 1),
        (TWO_ROOTS, [("c", "d")], 2),
        (talk(node("a", None, "user", "x"), node("b", "a", "assistant", "y"), head="gone"), [("x", "y")], 1),
        (talk(node("a", None, "user", "x"), node("b", "a", "assistant", "")), [], 0),
        (talk(node("a", None, "user", "x")), [], 0),
        (talk(node("a", None, "assistant", "hello")), [("", "hello")], 1),
        (
            talk(node("a", None, "user", "x"), node("b", "a", "user", "y"), node("c", "b", "assistant", "z")),
            [("x\n\ny", "z")],
            1,
        ),
        ({"title": 3, "mapping": {"a": 1, "b": {"message": 7, "parent": {}}}, "current_node": []}, [], 0),
        ({"mapping": {"a": {"message": {"author": 1, "content": [], "metadata": "x"}}}, "create_time": "x"}, [], 0),
        (
            talk(
                node("a", None, "user", {"parts": [1, None, {"content_type": 7}, EVIL]}),
                node("b", "a", "assistant", "y"),
            ),
            [(f"[attachment]\n\n{EVIL}", "y")],
            1,
        ),
    ],
    ids=[
        "circle",
        "own parent",
        "missing parent",
        "two roots",
        "missing head",
        "empty reply",
        "no reply",
        "no prompt",
        "two prompts",
        "no nodes",
        "no messages",
        "odd parts",
    ],
)
def test_odd_trees(conversation: dict[str, Any], line: list[tuple[str, str]], count: int) -> None:
    """Circles, missing parents, two roots and what is no message at all are gone around."""
    session = session_of(conversation)

    assert said(session) == line
    assert len(session.tree.turns) == count


def test_a_long_chain() -> None:
    """A conversation of 100,000 messages needs no recursion, and an answer of as many pieces is one reply."""
    roles = ["user", "assistant"] * 50_000
    mapping = {str(n): node(str(n), str(n - 1), role, "x") for n, role in enumerate(roles)}
    assert len(session_of({"mapping": mapping}).turns) == 50_000

    mapping = {str(n): node(str(n), str(n - 1), "assistant" if n else "user", "x") for n in range(100_000)}
    assert len(session_of({"mapping": mapping}).turns) == 1


def test_branches_that_would_fill_the_memory() -> None:
    """Branches that share a very long answer are refused before they are written out for each."""
    chain = {str(n): node(str(n), str(n - 1), "assistant", "x") for n in range(20_000)}
    leaves = {f"u{n}": node(f"u{n}", str(n), "user", "y") for n in range(20_000)}

    with pytest.raises(RecordError, match="share too many messages"):
        session_of({"mapping": chain | leaves})


ROLES = st.sampled_from(["user", "assistant", "system", "none"])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 12), ROLES, st.sampled_from(["", "x", "y"])), max_size=14), st.integers(0, 14)
)
def test_any_nodes_make_a_tree(nodes: list[tuple[int, str, str]], head: int) -> None:
    """Whatever stands behind what: parents come first, and no reply is empty."""
    session, _ = grown((Node(str(n), str(p), role, text) for n, (p, role, text) in enumerate(nodes)), str(head))

    for number, turn in enumerate(session.tree.turns, 1):
        assert turn.number == number
        assert turn.reply
        assert turn.parent is None or session.tree[turn.parent.number or 0] is turn.parent
        assert turn.parent is None or (turn.parent.number or 0) < number


# Files


def export(count: int) -> str:
    """An export of so many conversations."""
    return json.dumps([BRANCHES | {"title": f"Talk {n}"} for n in range(count)])


@pytest.mark.parametrize("names", [["conversations.json"], ["x/conversations-000.json", "x/conversations-001.json"]])
def test_an_export_is_listed_and_picked(shell: InteractiveShell, tmp_path: Path, names: list[str]) -> None:
    """The zip file of an export, old or new, is read as it is; nothing is unpacked."""
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../evil.json", "[]")
        archive.writestr("user.json", "{}")
        for name in names:
            archive.writestr(name, export(2))

    rows = cells(page(shell, f"%chat import {path}")["text/html"])
    assert rows[0] == ["1", "Talk 0", "2", "2023-11-14"]
    assert len(rows) == 2 * len(names)
    good(shell, f"%chat import {path} --pick 2")
    session = magics.kernel.sessions["Talk-1"]
    assert (len(session.turns), len(session.tree.turns)) == (2, 4)
    assert [each.name for each in tmp_path.rglob("*.json")] == []


def test_titles_of_an_export_are_text(shell: InteractiveShell, tmp_path: Path) -> None:
    """Titles are shown as text, whatever they hold, and make names that are valid."""
    path = tmp_path / "conversations.json"
    titles: list[str | None] = [EVIL, "\x1b[31m\u202e", "__proto__", None, "x" * 100_000]
    path.write_text(json.dumps([BRANCHES | {"title": title} for title in titles]))

    shown = page(shell, f"%chat import {path}")
    assert "<script" not in shown["text/html"]
    assert "\x1b" not in shown["text/plain"]
    good(shell, f"%chat import {path} --pick all")
    assert len(magics.kernel.sessions) == 5


def test_a_single_conversation(tmp_path: Path) -> None:
    """One conversation of an export, saved by itself, can be read."""
    assert said(only(json.dumps(BRANCHES), tmp_path / "x.json")) == said(session_of(BRANCHES))


@pytest.mark.parametrize("kind", ["other", "damaged", "locked"])
def test_zip_files_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    """A zip file with something else in it, or with damage, is one line."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.txt" if kind == "other" else "conversations.json", export(30))
    data = bytearray(path.read_bytes())
    if kind == "damaged":
        data[len(data) // 2] ^= 0xFF
    if kind == "locked":
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)

    message = {"other": "no conversations.json", "damaged": "zip file|breaks off|end", "locked": "encrypted"}[kind]
    with pytest.raises(RecordError, match=message):
        list(conversations(path))


@settings(deadline=None)
@given(
    st.lists(
        st.recursive(st.text(max_size=5) | st.none(), lambda each: st.lists(each) | st.dictionaries(st.text(), each))
    ),
    st.integers(1, 7),
    st.booleans(),
)
def test_elements_of_a_list(found: list[Any], size: int, plain: bool) -> None:
    """However the file is cut into pieces, the lists and objects in the list come out as they are."""
    data = json.dumps(found, ensure_ascii=not plain, indent=size % 3 or None).encode("utf-8", "surrogatepass")
    pieces = iter([data[at : at + size] for at in range(0, len(data), size)] + [b""])

    assert list(stream.elements(lambda _: next(pieces))) == [each for each in found if isinstance(each, (list, dict))]


def test_an_endless_conversation() -> None:
    """What a small zip file can be blown up to is not kept without end."""
    chunk = b"x" * (1 << 20)
    pieces = iter([b'[{"a": "'])

    with pytest.raises(RecordError, match="longer than 256 MB"):
        list(stream.elements(lambda _: next(pieces, chunk)))


def test_a_long_element_is_read_as_it_is() -> None:
    """Memory is spared in long conversations, and nothing in them changes by that."""
    text = "é – 日本 😀 \\ud83d \\\\ 𝒳" * 50_000
    data = json.dumps(text, ensure_ascii=False).encode()

    assert len(data) > 1 << 20
    assert stream.loaded(data) == text
    with pytest.raises(RecordError, match="not in UTF-8"):
        stream.loaded(data + b"\xf7\xbf\xbf\xbf")


MEMORY = r"""
import re, sys
from pathlib import Path
from chatmagic.exchange.reading import conversations
from chatmagic.exchange import chatgpt, llmlogs
# What getrusage says begins with the peak of the process that has started this one.
peak = lambda: int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) * 1024
before = peak()
count = sum(each.turns for each in conversations(Path(sys.argv[1])))
print(count, peak() - before)
"""


def large(path: Path, size: int, largest: int) -> None:
    """Write an export of *size* bytes, in which one conversation has *largest* bytes and others about 40 kB."""
    chance = random.Random(1)
    words = ["".join(chance.choices("aeioulnrst ", k=9)) for _ in range(999)]
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        file.write(json.dumps(_conversation(chance, words, largest)))
        while file.tell() < size:
            file.write("," + json.dumps(_conversation(chance, words, 40_000)))
        file.write("]")


def _conversation(chance: random.Random, words: list[str], size: int) -> dict[str, Any]:
    def nodes() -> Iterator[dict[str, Any]]:
        yield node("0", None)
        for n in range(1, max(3, size // 1400)):
            role = "user" if n % 2 else "assistant"
            about = {
                "status": "finished_successfully",
                "weight": 1.0,
                "recipient": "all",
                "metadata": {"model_slug": "gpt-5"},
            }
            yield node(str(n), str(n - 1), role, " ".join(chance.choices(words, k=100)), **about)

    return talk(*nodes(), title=" ".join(chance.choices(words, k=3)))


def peak(path: Path) -> tuple[int, int]:
    """How many turns are in a file, and how many bytes of memory it takes to list them."""
    ran = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    turns, memory = ran.stdout.split()
    return int(turns), int(memory)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory was used")
def test_a_large_export_is_streamed(tmp_path: Path) -> None:
    """To list an export of 30 MB takes three times the memory of its largest conversation, and a little, no more."""
    path = tmp_path / "conversations.json"
    large(path, 30_000_000, 2_000_000)

    turns, memory = peak(path)

    assert turns > 5_000
    assert memory < 3 * 2_000_000 + 10_000_000


# llm


def logs(path: Path, *statements: str) -> Path:
    """A database in which *statements* were executed."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(";\n".join(statements))
    return path


OLD = """
CREATE TABLE conversations (id TEXT PRIMARY KEY, name TEXT, model TEXT);
CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, prompt_json TEXT, options_json TEXT,
  response TEXT, response_json TEXT, conversation_id TEXT, duration_ms INTEGER, datetime_utc TEXT,
  input_tokens INTEGER, output_tokens INTEGER);
INSERT INTO conversations VALUES ('c1', 'Cats', 'gpt'), ('c2', 'Dogs', 'gpt');
INSERT INTO responses (id, model, prompt, system, response, conversation_id, duration_ms, datetime_utc, input_tokens)
VALUES ('r2', 'gpt', 'and why?', NULL, 'because', 'c1', 100, '2024-05-01T10:00:01.5', 7),
       ('r1', 'gpt', 'cats?', 'Be kind.', 'yes', 'c1', 1500, '2024-05-01T10:00:00', 5),
       ('r3', 'gpt', 'dogs?', NULL, 'no', 'c2', 100, '2024-05-02T10:00:00', NULL),
       ('r4', 'gpt', 'alone?', NULL, 'indeed', NULL, NULL, 'x', NULL)
"""

NEW = """
CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT, provider_metadata TEXT);
CREATE TABLE parts (id INTEGER PRIMARY KEY, message_hash TEXT, position INTEGER, type TEXT, tool_name TEXT, text TEXT,
  payload TEXT);
CREATE TABLE fragments (id INTEGER PRIMARY KEY, hash TEXT, content TEXT);
CREATE TABLE threads (id TEXT PRIMARY KEY, name TEXT, tip_message_hash TEXT, forked_from TEXT, datetime_utc TEXT);
CREATE TABLE turns (id TEXT PRIMARY KEY, thread_id TEXT, parent_message_hash TEXT, tip_message_hash TEXT, model TEXT,
  input_tokens INTEGER, output_tokens INTEGER, duration_ms INTEGER, datetime_utc TEXT);
INSERT INTO fragments VALUES (1, 'h', 'a long text');
INSERT INTO messages VALUES ('s', NULL, 'system', NULL), ('u1', 's', 'user', NULL), ('a1', 'u1', 'assistant', NULL),
  ('u2', 'a1', 'user', NULL),
  ('a2', 'u2', 'assistant', NULL), ('u3', 'a1', 'user', NULL), ('a3', 'u3', 'assistant', NULL);
INSERT INTO parts (message_hash, position, type, text, payload) VALUES ('s', 0, 'text', 'Be kind.', NULL),
  ('u1', 0, 'text', NULL, '{"text_ref": [{"fragment": 1}, {"literal": " ?"}]}'), ('u1', 1, 'attachment', NULL, '{}'),
  ('a1', 0, 'reasoning', 'Hm.', NULL), ('a1', 1, 'text', 'yes', NULL),
  ('u2', 0, 'text', 'two', NULL), ('a2', 0, 'tool_call', NULL, '{"name": "f", "arguments": {}}'),
  ('u3', 0, 'text', 'three', NULL), ('a3', 0, 'text', 'no', '{broken');
INSERT INTO threads VALUES ('c2', 'Dogs, too', 'a2', NULL, '2026-11-23 02:06:56.083404+00:00');
INSERT INTO turns VALUES ('t1', 'c2', 'u1', 'a1', 'm', 3, 4, 2000, '2026-11-23T02:06:56+00:00'),
  ('t2', 'c2', 'u2', 'a2', 'm', NULL, NULL, 0, 'x'), ('t3', 'c2', 'u3', 'a3', 'm', NULL, NULL, 0, 'x')
"""


def test_logs_of_llm(tmp_path: Path) -> None:
    """Conversations come with titles, order, system prompt, model, tokens and times; a lone response is one, too."""
    found = {each.title: each for each in conversations(logs(tmp_path / "logs.db", OLD))}
    cats = found["Cats"].session

    assert cats is not None
    assert said(cats) == [("cats?", "yes"), ("and why?", "because")]
    assert cats.settings.system == "Be kind."
    assert [turn.usage.input_tokens for turn in cats.turns] == [5, 7]
    assert cats.turns[0].seconds == 1.5
    assert cats.turns[0].model == "gpt"
    assert found["Cats"].started == 1714557600.0
    assert set(found) == {"Cats", "Dogs", "alone?"}
    assert found["alone?"].started == 0.0


def test_logs_of_llm_032(tmp_path: Path) -> None:
    """The newer tables are read with their branches, and what is in both kinds of tables only once."""
    found = {each.title: each for each in conversations(logs(tmp_path / "logs.db", OLD, NEW))}
    dogs = found["Dogs, too"].session

    assert set(found) == {"Cats", "alone?", "Dogs, too"}
    assert dogs is not None
    assert dogs.settings.system == "Be kind."
    assert [turn.prompt for turn in dogs.turns] == ["a long text ?\n\n[attachment]", "two"]
    assert (dogs.turns[0].reply, dogs.turns[0].reasoning, dogs.turns[0].usage.output_tokens) == ("yes", "Hm.", 4)
    assert '"name": "f"' in dogs.turns[1].reply
    assert [turn.prompt for turn in dogs.tree.turns if turn not in dogs] == ["three"]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ("CREATE TABLE x (y)", "neither the table 'responses' nor 'threads'"),
        ("CREATE TABLE responses (x)", "has no id, prompt and response"),
        ("CREATE VIEW responses AS SELECT 1 AS id, 2 AS prompt, 3 AS response", "neither the table"),
    ],
)
def test_databases_that_are_no_logs(tmp_path: Path, statements: str, message: str) -> None:
    """Any other database is one line, and a view is no table."""
    with pytest.raises(RecordError, match=message):
        list(conversations(logs(tmp_path / "x.db", statements)))


def test_a_hostile_database(tmp_path: Path) -> None:
    """A circle of messages ends, numbers and bytes in place of texts are nothing, and nothing is written."""
    path = logs(
        tmp_path / "x.db",
        NEW,
        "UPDATE messages SET parent_hash = 'a3' WHERE hash = 's'",
        "INSERT INTO threads VALUES ('odd', x'ff00', 7, NULL, 3.5), ('none', NULL, 'gone', NULL, NULL)",
    )
    before = path.read_bytes()

    assert [each.turns for each in conversations(path)] == [0, 0, 0]
    assert path.read_bytes() == before
