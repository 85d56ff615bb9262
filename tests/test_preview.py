"""What a user is told about the next request, and what may be set about it, in a real IPython shell."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

import html5lib
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import chatmagic
from chatmagic import magics
from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.spending import dollars
from chatmagic.errors import ChatMagicError, ContextOverflowError, SettingError, SpendingError
from chatmagic.testing import FakeClient

LONG = "many words that say very little " * 20

Said = list[tuple[str, str]]


@pytest.fixture
def far(kernel: magics.Kernel, client: FakeClient) -> FakeClient:
    """The other end of the wire of the shell."""
    kernel.client = client
    return client


def good(shell: InteractiveShell, *cells: str) -> None:
    """Run cells that must not fail."""
    runner: Any = shell
    for cell in cells:
        runner.run_cell(cell, store_history=True).raise_error()


def failed(shell: InteractiveShell, cell: str) -> ChatMagicError:
    """Run a cell that must fail with an error of ours, and return it."""
    runner: Any = shell
    error = runner.run_cell(cell, store_history=True).error_in_exec
    assert isinstance(error, ChatMagicError)
    assert "\n" not in str(error)
    return error


def page(shell: InteractiveShell, line: str) -> dict[str, str]:
    """What a line shows, by MIME type."""
    with capture_output() as captured:
        good(shell, line)
    (output,) = captured.outputs
    data: dict[str, str] = output.data
    return data


def as_json(shell: InteractiveShell, line: str = "%chat context --json") -> dict[str, Any]:
    """The JSON that a line writes."""
    with capture_output() as captured:
        good(shell, line)
    value: dict[str, Any] = json.loads(captured.stdout)
    return value


def cells(html: str) -> list[list[str]]:
    """The rows of the table, as a reader sees them."""
    tree: Any = html5lib.parseFragment(html, namespaceHTMLElements=False)
    return [["".join(cell.itertext()) for cell in row] for row in tree.find(".//tbody")]


def said(messages: Sequence[Message]) -> Said:
    return [(message.role, message.content) for message in messages]


def turns(*prompts: str) -> list[str]:
    return [f"%%chat\n{prompt}" for prompt in prompts]


OWN = """
def mine(messages):
    return [{"role": "system", "content": f"{len(messages)} messages"}, *messages[-3:]]
"""

SITUATIONS: dict[str, list[str]] = {
    "nothing": [],
    "one turn": turns("a"),
    "many turns": turns("a", "b", LONG, "d"),
    "odd texts": turns('"quoted" \\ {x}\n\n\ttwo lines\n', "naïve 数学 🙂", "<b>"),
    "system": ["%chat set system='Be kind.'", *turns("a", "b")],
    "system that changed": ["%%chat -s one\na", "%%chat -s two\nb"],
    "all": ["%chat set context=all", *turns("a", "b", "c")],
    "last": ["%chat set context=last:2", *turns("a", "b", "c", "d")],
    "last of none": ["%chat set context=last:0", *turns("a", "b")],
    "last with a pin": ["%chat set context=last:1", *turns("a", "b", "c", "d"), "%chat pin 2", "%chat pin 1"],
    "cut": ["%config ChatMagic.budget = 1200", *turns(*[LONG] * 8)],
    "cut with pins": ["%chat set context=budget:1200 system=x", *turns("a", "b"), "%chat pin 2", *turns(*[LONG] * 8)],
    "cut, then taken back": ["%config ChatMagic.budget = 1200", *turns(*[LONG] * 5), "%chat undo 2", "%chat pin 2"],
    "cut, then all": ["%config ChatMagic.budget = 1200", *turns(*[LONG] * 8), "%chat set context=all"],
    "a function": [OWN, "%chat set context=mine system='Be kind.'", *turns("a", "b", "c")],
    "a function, then budget": [OWN, "%%chat --context mine\na", "%%chat --context budget\nb"],
    "set aside": [*turns("a", "b", "c"), "%chat use main --at 1", *turns("d")],
    "another model": [*turns("a", "b"), "%chat set model=big"],
    "cleared": ["%chat set system=x", *turns("a", "b"), "%chat clear"],
}  # fmt: skip


@pytest.fixture(params=SITUATIONS)
def situation(request: pytest.FixtureRequest, shell: InteractiveShell, far: FakeClient) -> FakeClient:
    """A conversation in which something is about to be asked."""
    good(shell, *SITUATIONS[request.param])
    return far


def test_the_preview_is_what_is_sent(shell: InteractiveShell, kernel: magics.Kernel, situation: FakeClient) -> None:
    """The messages of --json are, role by role and word by word, what the next request has before its prompt."""
    before = len(situation.requests)
    preview = as_json(shell)
    assert len(situation.requests) == before

    good(shell, "%%chat\nthe next one")
    messages = said(situation.requests[-1].messages)
    assert [(each["role"], each["content"]) for each in preview["messages"]] == messages[:-1]
    assert messages[-1] == ("user", "the next one")
    assert preview["session"] == kernel.sessions.current
    assert (preview["endpoint"], preview["model"]) == ("fake", situation.requests[-1].model)


@pytest.mark.usefixtures("situation")
def test_its_tokens_are_those_that_are_sent(shell: InteractiveShell, kernel: magics.Kernel) -> None:
    """The tokens of the preview and those of the prompt are what the turn was expected to have."""
    preview = as_json(shell)
    reader, gauge = ("fake", preview["model"]), kernel.planner.gauge
    prompt = gauge.prompt(reader, "the next one") - gauge.prompt(reader, "")
    good(shell, "%%chat\nthe next one")

    turn = chatmagic.session().last
    assert turn is not None
    if turn.sent is None:
        assert preview["policy"] == "mine"
        return
    assert preview["policy"] == turn.sent.policy
    assert turn.sent.tokens == pytest.approx(preview["tokens"] + prompt, abs=1)


@pytest.mark.usefixtures("situation")
def test_left_out_are_all_the_others(shell: InteractiveShell) -> None:
    """Each turn of the line is either among the messages, prompt and reply in turn, or left out."""
    preview = as_json(shell)
    line = {turn.number: turn for turn in chatmagic.session().turns}
    left = [each["turn"] for each in preview["left_out"]]
    if preview["policy"] == "mine":
        contents = [each["content"] for each in preview["messages"]]
        assert left == [number for number, turn in line.items() if turn.prompt not in contents] == [1, 2]
        return

    spoken = [each for each in preview["messages"] if each["role"] != "system"]
    sent = [each["turn"] for each in spoken[::2]]
    assert sent == [each["turn"] for each in spoken[1::2]]
    assert sorted(sent + left) == list(line)
    assert (sent, left) == (sorted(sent), sorted(left))
    assert [each["content"] for each in spoken] == [
        text for number in sent for text in (line[number].prompt, line[number].reply)
    ]
    assert bool(left) == bool(preview["why"])


def test_context_in_python_is_what_is_sent(shell: InteractiveShell, situation: FakeClient) -> None:
    """`context(text)` of a handle has the messages, the size and the turns of the next request, the prompt too."""
    chat = chatmagic.session()
    context = chat.context("the next one\n" + LONG)
    good(shell, "%%chat\nthe next one\n" + LONG)

    assert said(context.messages) == said(situation.requests[-1].messages)
    assert chat.last is not None
    assert context.sent == chat.last.sent
    if context.sent is not None:
        assert context.tokens == context.sent.tokens
        assert [*context.left_out, *context.turns] != [] or not chat.turns[:-1]


def test_a_look_changes_nothing(shell: InteractiveShell, kernel: magics.Kernel, situation: FakeClient) -> None:
    """However often one looks, nothing is sent, started, learnt or kept."""
    chat, before, known = chatmagic.session(), len(situation.requests), list(kernel.sessions)
    stands = chat._held.state
    first = as_json(shell)
    page(shell, "%chat context")
    chat.context("text")
    chat.context()

    assert as_json(shell) == first
    assert (len(situation.requests), chat._held.state) == (before, stands)
    assert list(kernel.sessions) == known


# What is shown


def test_a_row_for_each_message(shell: InteractiveShell, far: FakeClient) -> None:
    """A message has its turn, role, beginning and size; what is not sent is one line with its reason."""
    far.window = 4000
    good(shell, "%chat set system='Be kind.' context=last:1", *turns("one", "two words", "three", LONG), "%chat pin 2")
    data = page(shell, "%chat context")
    table = cells(data["text/html"])

    assert [row[:3] for row in table[:5]] == [
        ["", "system", "Be kind."],
        ["#1", "not sent", "one"],
        ["#2 (pinned)", "user", "two words"],
        ["#2 (pinned)", "assistant", "two words"],
        ["#3", "not sent", "three"],
    ]
    assert [row[:2] for row in table[5:]] == [["#4", "user"], ["#4", "assistant"]]
    assert table[5][2] == LONG[:59].rstrip() + "…"
    assert all(re.fullmatch(r"~[\d,]+", row[3]) for row in table)
    tokens = as_json(shell)["tokens"]
    why, note = data["text/plain"].splitlines()[-2:]
    assert re.fullmatch("2 turns not sent: .*last:1", why)
    assert note.startswith(f"~{tokens:,} tokens before the next prompt, for gpt-6-luna at fake")
    assert all(each in note for each in (f"{tokens / 4000:.0%} of", "window", "4,000", "last:1"))
    assert 0.05 < tokens / 4000 < 0.2


@pytest.mark.parametrize("pinned", [[], [1], [2], [1, 2], [1, 2, 3]], ids=str)
def test_what_is_left_out_stands_in_its_place(shell: InteractiveShell, far: FakeClient, pinned: list[int]) -> None:
    """A turn that is not sent is one dim row in its place, with its size; a line says how many these are, and why."""
    good(shell, "%chat set context=last:0", *turns("a", "b", "c"), *(f"%chat pin {number}" for number in pinned))
    gone = {each["turn"]: each["tokens"] for each in as_json(shell)["left_out"]}
    data = page(shell, "%chat context")
    tree: Any = html5lib.parseFragment(data["text/html"], namespaceHTMLElements=False)
    dim = ["opacity" in row.attrib.get("style", "") for row in tree.find(".//tbody")]
    expected = []
    for number, text in enumerate("abc", 1):
        sent = [[f"#{number} (pinned)", role, text] for role in ("user", "assistant")]
        expected += sent if number in pinned else [[f"#{number}", "not sent", text]]

    table = cells(data["text/html"])
    assert list(gone) == [number for number in (1, 2, 3) if number not in pinned]
    assert [row[:3] for row in table] == expected
    assert dim == [row[1] == "not sent" for row in table]
    assert [row[3] for row in table if row[1] == "not sent"] == [f"~{tokens}" for tokens in gone.values()]
    said = {0: None, 1: "1 turn not sent: ", 2: "2 turns not sent: ", 3: "3 turns not sent: "}[len(gone)]
    why = re.search(r"^(\d turns? not sent: ).*last:0$", data["text/plain"], re.MULTILINE)
    assert (why and why[1]) == said
    assert len(far.requests) == 3


@pytest.mark.parametrize(("count", "rows"), [(30, 60), (31, 61), (100, 61)])
def test_a_long_history_is_shortened(shell: InteractiveShell, far: FakeClient, count: int, rows: int) -> None:
    """The table has the first and the last 30 messages, and says how many are between them; the JSON has all."""
    chat = chatmagic.session()
    for number in range(1, count + 1):
        chat.ask(f"prompt {number}")
    table = cells(page(shell, "%chat context")["text/html"])

    assert len(table) == rows
    assert table[0][2] == "prompt 1"
    assert table[-1][2] == f"prompt {count}"
    more = 2 * count - 60
    assert [row[2] for row in table if not row[0]] == ([f"… {more} more rows: --json has them all"] if more else [])
    assert [row[0] for row in table[:30]] == [f"#{number // 2 + 1}" for number in range(30)]
    assert [row[0] for row in table[-30:]] == [f"#{count - 14 + number // 2}" for number in range(30)]
    assert len(as_json(shell)["messages"]) == 2 * count
    assert len(far.requests[-1].messages) == 2 * count - 1


def test_a_session_that_was_not_started(shell: InteractiveShell, kernel: magics.Kernel, far: FakeClient) -> None:
    """One may look at what the first conversation begins with; that does not start it. A slip of a name is an error."""
    preview = as_json(shell)

    assert (preview["session"], preview["messages"], preview["left_out"], preview["why"]) == ("main", [], [], None)
    assert preview["reported_tokens"] is None
    before = f"~{preview['tokens']} tokens before the next prompt"
    assert page(shell, "%chat context")["text/plain"].splitlines()[1].startswith(before)
    assert "no session 'fresh'" in str(failed(shell, "%chat context fresh"))
    assert list(kernel.sessions) == []
    assert far.requests == []


def test_another_session_than_the_current_one(shell: InteractiveShell, far: FakeClient) -> None:
    """A name says whose next request is meant."""
    good(shell, "%%chat a\none", "%%chat b\ntwo")

    assert [each["content"] for each in as_json(shell, "%chat context a --json")["messages"]] == ["one", "one"]
    assert [each["content"] for each in as_json(shell)["messages"]] == ["two", "two"]
    assert len(far.requests) == 2


def test_what_the_server_has_counted(shell: InteractiveShell, far: FakeClient) -> None:
    """What was reported for the line so far is told apart from what is estimated."""
    good(shell, *turns("one", "two words"))
    turn = chatmagic.session().last

    assert turn is not None
    assert as_json(shell)["reported_tokens"] == turn.size == 1 + 1 + 2 + 2
    good(shell, "%chat set system=changed")
    assert as_json(shell)["reported_tokens"] is None
    assert far.requests


@pytest.mark.parametrize(
    ("cell", "window", "note"),
    [
        ("pass", None, "passes 200,000"),
        ("pass", 100_000, "passes 91,808"),
        ("%config ChatMagic.budget = 5000", None, "passes 5,000"),
        ("%chat set context=budget:900", None, "passes 900"),
        ("%chat set context=budget:900", 500, "passes 375"),
        ("%chat set max_tokens=100 context=budget:900", 500, "passes 400"),
        ("%chat set context=all", 500, " all"),
        ("%config ChatMagic.context = 'last:3'", None, " last:3"),
        ("def mine(messages): return messages\n%chat set context=mine", None, " mine"),
        ("def budgeted(messages): return messages\n%chat set context=budgeted", None, " budgeted"),
    ],
    ids=[
        *["default", "window", "configured", "set", "set and window", "set and room", "all", "last", "function"],
        "function with a name like ours",
    ],
)
def test_the_limit_is_shown(shell: InteractiveShell, far: FakeClient, cell: str, window: int | None, note: str) -> None:
    """The note says by which policy the request is made, and when a budget cuts it; and how full a known window is."""
    far.window = window
    good(shell, cell)
    line = page(shell, "%chat context")["text/plain"].splitlines()[-1]

    assert line.endswith(note)
    tokens = as_json(shell)["tokens"]
    assert f"{tokens / window:.0%} of its window of {window:,}" in line if window else "window" not in line


def discounted(usage: Usage) -> float | None:
    """A dollar for 100 tokens, a tenth of it for what is cached."""
    return (usage.input_tokens or 0) / 100 - (usage.cached_tokens or 0) * 0.9 / 100 + (usage.output_tokens or 0)


def test_the_cost_is_shown(shell: InteractiveShell, far: FakeClient) -> None:
    """The note says what the request costs without prompt and reply, and with all from the cache that may be there."""
    far.cost = discounted
    good(shell, *turns(*["word " * 50] * 2))
    preview = as_json(shell)
    whole, kept = preview["tokens"] / 100, preview["tokens"] / 100 - preview["reported_tokens"] * 0.9 / 100
    assert preview["cost"] == pytest.approx(whole)
    note = page(shell, "%chat context")["text/plain"].splitlines()[-1]
    assert f"~{dollars(whole)}, ~{dollars(kept)} from" in note

    good(shell, "%chat set system=another")
    assert page(shell, "%chat context")["text/plain"].splitlines()[-1].count("$") == 1


@pytest.mark.parametrize("cost", [None, 0.0], ids=["unknown", "free"])
def test_no_cost_where_there_is_none(shell: InteractiveShell, far: FakeClient, cost: float | None) -> None:
    """An unknown price is null and a free model costs 0; the note says nothing of either."""
    far.cost = lambda _: cost
    good(shell, *turns("a"))

    assert as_json(shell)["cost"] == cost
    assert "$" not in page(shell, "%chat context")["text/plain"]


def test_the_limits_in_json(shell: InteractiveShell, far: FakeClient) -> None:
    """A program can read policy, budget and window."""
    far.window = 5000
    good(shell, "%chat set context=budget:900 model=big")
    preview = as_json(shell)

    assert {key: preview[key] for key in ("policy", "budget", "window", "endpoint", "model")} == {
        "policy": "budget:900",
        "budget": 900,
        "window": 5000,
        "endpoint": "fake",
        "model": "big",
    }


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("nobody", "'nobody'.* all, last:4 .turns., budget"),
        ("number", "'number'.* all, last:4 .turns., budget"),
        ("boom", "boom.* failed.* ValueError: two lines"),
        ("empty", "empty.* must return messages"),
        ("texts", "returns messages .role and content., not 'hi'"),
    ],
)
@pytest.mark.parametrize(
    "cell", ["%chat context", "%chat context --json", "%%chat\nnext"], ids=["table", "json", "ask"]
)
def test_a_policy_that_fails(
    shell: InteractiveShell, kernel: magics.Kernel, far: FakeClient, policy: str, message: str, cell: str
) -> None:
    """A policy that fails is one line of error; nothing is sent, shown or changed."""
    good(
        shell,
        "number = 5\ndef boom(messages): raise ValueError('two\\nlines')\ndef empty(messages): return []",
        "def texts(messages): return ['hi']",
        *turns("a"),
        f"%chat set context={policy}",
    )
    state = kernel.sessions["main"].state
    with capture_output() as captured:
        error = failed(shell, cell)

    assert isinstance(error, SettingError)
    assert re.search(message, str(error))
    assert (captured.outputs, len(far.requests), kernel.sessions["main"].state) == ([], 1, state)


def test_what_cannot_be_sent_is_an_error_before(shell: InteractiveShell, far: FakeClient) -> None:
    """A preview of what is too long says so, as the request would."""
    far.window = 300
    good(shell, *turns("a"))

    assert chatmagic.session().context("short").tokens < 300
    with pytest.raises(ContextOverflowError, match="nothing was sent"):
        chatmagic.session().context(LONG * 4)
    assert len(far.requests) == 1


# Strangers' words

EVIL = "</td><img src=x onerror=alert(1)><script>x</script> \\(\\href{x}{y}\\) \x1b[31m\x9b2J\u202e\u200f\x07"


def test_hostile_prompts_stay_text(shell: InteractiveShell, far: FakeClient) -> None:
    """Prompts, replies, models and reasons with markup are text in the table, without control characters."""
    far.window = 10**6
    chat = chatmagic.session()
    chat.set(system=EVIL, model=EVIL, context="last:1")
    chat.ask(EVIL)
    chat.ask(EVIL + EVIL)
    data = page(shell, "%chat context")
    tree: Any = html5lib.parseFragment(data["text/html"], namespaceHTMLElements=False)
    tags = {element.tag for element in tree.iter() if isinstance(element.tag, str)}

    assert tags - {"DOCUMENT_FRAGMENT"} == {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert {name for element in tree.iter() for name in element.attrib} == {"class", "style"}
    assert [row[2][:38] for row in cells(data["text/html"])[1:]] == [EVIL[:38]] * 3
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200f\u202a-\u202e]", data["text/html"] + data["text/plain"])
    (block,) = tree
    assert all("mathjax_ignore" in part.attrib["class"] for part in block)


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mred\x1b[0m",
        "\u05e9\u05dc\u05d5\u05dd\u200f!",
        "\x9b2J",
        "tab\there\r\nand\x00",
        '"\\"',
        "a\u2028b",
        "\x7f",
    ],
    ids=["escape", "right to left", "C1", "blanks", "quotes", "line separator", "delete"],
)
def test_json_keeps_every_character(shell: InteractiveShell, far: FakeClient, text: str) -> None:
    """What is odd in a text is in the JSON, escaped where a terminal would obey it."""
    chatmagic.session().ask(text)
    with capture_output() as captured:
        good(shell, "%chat context --json")

    assert json.loads(captured.stdout)["messages"][0]["content"] == far.requests[0].messages[0].content == text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200f\u202a-\u202e]", captured.stdout)


def test_json_of_half_a_character(shell: InteractiveShell, far: FakeClient) -> None:
    """Half a character, which no terminal takes, is still JSON."""
    far.answers.append("half \ud83d")
    chatmagic.session().ask("x")

    assert as_json(shell)["messages"][1]["content"] in ("half \ud83d", "half \ufffd")


# %chat usage


def price(usage: Usage) -> float | None:
    """A hundredth of a dollar for each token."""
    return ((usage.input_tokens or 0) + (usage.output_tokens or 0)) / 100


def test_usage(shell: InteractiveShell, far: FakeClient) -> None:
    """%chat usage has a picture and a table of the current session's turns, and what was paid beside them."""
    far.cost = price
    good(shell, "%%chat a\none", "%%chat b\none two", "%%chat\nthree", "%%chat --once\nfour", "%chat undo")
    data = page(shell, "%chat usage")

    assert [row[:6] for row in cells(data["text/html"])] == [
        ["#1", "gpt-6-luna", "2", "unknown", "2", "$0.0400"],
        ["all 1 turn", "", "2", "unknown", "2", "$0.0400"],
    ]
    assert data["text/html"].startswith('<div role="img"')
    paid = chatmagic.session("b")._held.spent
    assert (paid.requests, round(paid.cost, 9)) == (3, 0.04 + 0.06 + 0.08)
    assert re.search(r"(?s)'b'.*\$0\.18.*this kernel.*\$0\.20", data["text/plain"])
    assert [row[5] for row in cells(page(shell, "%chat usage a")["text/html"])] == ["$0.0200"] * 2


def test_usage_of_nothing(shell: InteractiveShell, far: FakeClient) -> None:
    """A session without turns has no table, and one that nobody knows is an error."""
    good(shell, "%chat new tutor")
    data = page(shell, "%chat usage")

    assert data["text/plain"].startswith("'tutor' is empty.")
    assert "<table" not in data["text/html"]
    assert "no session 'tutr' (known: 'tutor')" in str(failed(shell, "%chat usage tutr"))
    assert far.requests == []


def test_usage_of_what_was_set_aside(shell: InteractiveShell, far: FakeClient) -> None:
    """A conversation that was cleared has no turns, and has cost what it has cost."""
    far.cost = price
    good(shell, *turns("one", "two"), "%chat clear")
    data = page(shell, "%chat usage")

    assert not data["text/html"].startswith('<div role="img"')
    assert re.search(r"(?s)'main'.*2 requests.*\$0\.06", data["text/plain"])


def test_bill_in_python(shell: InteractiveShell, far: FakeClient) -> None:
    """`bill` of a handle is the page that %chat usage shows."""
    good(shell, *turns("a", "b"))
    bill = chatmagic.session().bill()

    assert {"text/html": bill.html, "text/plain": bill.text} == page(shell, "%chat usage")
    assert len(far.requests) == 2


# What may be configured and set

OWN_MODELS = {"here": {"window": 1000}}


@pytest.mark.parametrize(
    ("name", "good_value", "bad_value", "message"),
    [
        ("models", OWN_MODELS, {"here": {"window": -1}}, "'window' cannot be -1"),
        ("models", OWN_MODELS, {"here": {"input": 1.0}}, "'output'"),
        ("models", OWN_MODELS, {"here": {"price": 1.0}}, "'price'"),
        ("models", OWN_MODELS, {"here": 5}, "5"),
        ("models", OWN_MODELS, [1], "models"),
        ("budget", 5000, 0, "0"),
        ("budget", 5000, "much", "'much'"),
        ("budget", 5000, 1.5, "1.5"),
        ("context", "last:2", "last:x", "context cannot be 'last:x'"),
        ("context", "last:2", "last", "last:4"),
        ("context", "last:2", "budget:0", "'budget:0'"),
        ("context", "last:2", "", "context cannot be ''"),
        ("context", "last:2", 4, "4"),
        ("max_cost", 2.5, -0.01, "-0.01"),
        ("max_cost", 2.5, "much", "'much'"),
        ("max_cost", 2.5, float("nan"), "nan"),
        ("vocabulary", "disk", "web", "['fetch', 'disk', 'off']"),
        ("vocabulary", "disk", None, "None"),
    ],
)
def test_a_bad_setting_changes_nothing(
    shell: InteractiveShell,
    caplog: pytest.LogCaptureFixture,
    name: str,
    good_value: object,
    bad_value: object,
    message: str,
) -> None:
    """A value that cannot be is one line that names it; the old one stays, also when something else is set later."""
    shell.user_ns.update(good_value=good_value, bad_value=bad_value)
    good(shell, f"%config ChatMagic.{name} = good_value")
    assert caplog.messages == []
    with capture_output():
        good(shell, f"%config ChatMagic.{name} = bad_value")

    (line,) = caplog.messages
    assert message in line
    assert "\n" not in line
    with capture_output():
        good(shell, "%config ChatMagic.tries = 3")
    assert len(caplog.messages) == 1
    configured: Any = magics.kernel.magics
    assert (getattr(configured, name), configured.tries) == (good_value, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("models", {"mine:qwen3": {"window": 32768, "input": 0.5, "cached": 0.05, "output": 1.5}}),
        ("models", {}),
        ("budget", 1),
        ("context", "budget:50000"),
        ("context", "all"),
        ("context", "last:0"),
        ("context", "mine"),
        ("max_cost", 0.0),
        ("max_cost", None),
        ("vocabulary", "off"),
    ],
)
def test_a_good_setting_is_taken(
    shell: InteractiveShell, caplog: pytest.LogCaptureFixture, name: str, value: object
) -> None:
    """What README shows is accepted as it stands."""
    shell.user_ns["value"] = value
    good(shell, f"%config ChatMagic.{name} = value")

    assert caplog.messages == []
    assert getattr(magics.kernel.magics, name) == value


def test_max_cost_of_the_kernel(shell: InteractiveShell, far: FakeClient) -> None:
    """With max_cost the request that could pass it is not sent in any session, and None lifts the limit."""
    far.cost = price
    good(shell, "%config ChatMagic.max_cost = 6", "%chat set max_tokens=500", *turns("one"))
    error = failed(shell, "%%chat other --set max_tokens=600\ntwo")

    assert isinstance(error, SpendingError)
    assert re.match(r"this kernel has spent \$0\.02 of \$6\.00, and this turn may cost up to ~?\$6\.\d", str(error))
    assert str(error).endswith("nothing was sent. %config ChatMagic.max_cost = AMOUNT raises the limit")
    assert len(far.requests) == 1
    assert "other" not in chatmagic.sessions

    good(shell, "%config ChatMagic.max_cost = None", "%%chat other --set max_tokens=600\ntwo")
    assert len(far.requests) == 2


def test_max_cost_of_a_session(shell: InteractiveShell, far: FakeClient) -> None:
    """%chat set max_cost limits the session it is set in, until it is unset, and never goes out as a parameter."""
    far.cost = price
    good(shell, *turns("one"), "%chat set max_cost=0.5")
    error = failed(shell, "%%chat\ntwo")
    assert re.match(r"session 'main' has spent \$0\.02 of \$0\.50, and this turn may cost .*\$5\.\d\d", str(error))
    assert "nothing was sent" in str(error)
    assert "max_cost=AMOUNT" in str(error)

    good(shell, "%%chat other\nthree", "%chat use main", "%chat set max_cost=", *turns("four"))
    assert [request.parameters for request in far.requests] == [{}, {}, {}]
    assert [request.messages[-1].content for request in far.requests] == ["one", "three", "four"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("max_cost=much", "max_cost must be an amount of USD from 0 up, not 'much'"),
        ("max_cost=-1", "not -1"),
        ("max_cost=NaN", "not 'NaN'"),
        ("max_cost=Infinity", "not 'Infinity'"),
        ("max_cost=true", "not True"),
        ("max_cost=[1]", "not [1]"),
        ("context=last:x", "context cannot be 'last:x'"),
        ("context=last", "last:4"),
        ("context=all:3", "context cannot be 'all:3'"),
        ("context=budget:0", "context cannot be 'budget:0'"),
        ("context=4", "context cannot be '4'"),
        ("'context=last: 4'", "context cannot be 'last: 4'"),
    ],
)
def test_set_refuses(shell: InteractiveShell, far: FakeClient, word: str, message: str) -> None:
    """What these settings cannot be is one line that names it; what was set with it is not set either."""
    good(shell, "%chat set max_cost=2 context=last:4")
    for line in (f"%chat set seed=1 {word}", f"%%chat --set {word}\nhi"):
        assert message in str(failed(shell, line))

    assert chatmagic.session().settings == {"max_cost": 2, "context": "last:4"}
    assert far.requests == []


def tab(shell: InteractiveShell, code: str) -> list[str]:
    """What may stand at the cursor."""
    completer: Any = shell.Completer
    with provisionalcompleter():
        return [each.text for each in completer.completions(code, len(code))]


@pytest.mark.parametrize(
    ("code", "offers"),
    [
        ("%chat set max_cos", ["max_cost="]),
        ("%chat set max_cost=1 max_cos", []),
        ("%chat set con", ["context="]),
        ("%chat set context=", ["budget", "budget:", "summary", "summary:", "last:", "all"]),
        ("%chat set seed=1 context=l", ["last:"]),
        ("%%chat --context a", ["all"]),
        ("%chat cont", ["continue", "context"]),
        ("%chat us", ["use", "usage"]),
        ("%chat context ", ["alpha", "beta"]),
        ("%chat usage b", ["beta"]),
        ("%chat context --", ["--json", "--help"]),
    ],
)
def test_tab(shell: InteractiveShell, kernel: magics.Kernel, code: str, offers: list[str]) -> None:
    """Settings, policies, verbs and sessions are offered where they may stand."""
    kernel.sessions.new("alpha")
    kernel.sessions.new("beta")

    assert sorted(text.split("=")[-1] if "context=" in code else text for text in tab(shell, code)) == sorted(offers)


# Functions from Python


def last_only(messages: list[Message]) -> list[Message]:
    return messages[-1:]


def test_a_function_from_python(shell: InteractiveShell, far: FakeClient) -> None:
    """A function that no notebook has defined chooses what is sent, by `set` and by `ask`."""
    good(shell, *turns("a", "b"))
    chat = chatmagic.session()
    chat.set(context=last_only)
    assert said(chat.context("c").messages) == [("user", "c")]
    assert page(shell, "%chat context")["text/plain"].rpartition(" · ")[2].startswith("last_only")
    good(shell, *turns("c"))
    assert said(far.requests[-1].messages) == [("user", "c")]

    def first_only(messages: list[Message]) -> list[Message]:
        return messages[:1]

    chat.ask("d", context=first_only)
    assert said(far.requests[-1].messages) == [("user", "a")]


def test_a_variable_is_no_policy(shell: InteractiveShell, far: FakeClient) -> None:
    """A variable that happens to have the name of a function does not take its place."""
    good(shell, "last_only = 5", *turns("a"))
    chatmagic.session().ask("b", context=last_only)

    assert said(far.requests[-1].messages) == [("user", "b")]


@pytest.mark.parametrize("name", ["all", "budget", "last", "<lambda>", "", "last_only"])
def test_a_function_is_found_whatever_its_name(far: FakeClient, shell: InteractiveShell, name: str) -> None:
    """A function that is called like a policy of ours, like another function or not at all chooses what is sent."""
    good(shell, *turns("a"))
    chat = chatmagic.session()
    chat.set(context=last_only)

    def function(messages: list[Message]) -> list[Message]:
        return [Message("user", f"mine of {len(messages)}")]

    function.__name__ = name
    chat.set(context=function)
    good(shell, *turns("b"))
    assert said(far.requests[-1].messages) == [("user", "mine of 3")]

    chat.ask("c", context=last_only)
    chat.ask("d", context=function)
    assert [said(request.messages) for request in far.requests[-2:]] == [[("user", "c")], [("user", "mine of 7")]]


@pytest.mark.parametrize(
    "function", [lambda messages: messages[-1:], functools.partial(last_only)], ids=["lambda", "partial"]
)
def test_a_function_without_a_name(shell: InteractiveShell, far: FakeClient, function: Any) -> None:
    """A lambda or a partial can choose, too; and it is the same policy when it is set again."""
    good(shell, *turns("a"))
    chat = chatmagic.session()
    chat.set(context=function)
    name = chat.settings["context"]
    chat.set(context=function)
    good(shell, *turns("b"))

    assert chat.settings["context"] == name
    assert said(far.requests[-1].messages) == [("user", "b")]


def test_a_function_of_the_notebook_as_it_is_now(shell: InteractiveShell, far: FakeClient) -> None:
    """A function that is defined anew is used as it is then."""
    good(shell, "def mine(messages): return messages[-1:]", "%chat set context=mine", *turns("a", "b"))
    good(shell, "def mine(messages): return messages", *turns("c"))

    assert [len(request.messages) for request in far.requests] == [1, 1, 5]


def test_the_new_prompt_is_the_last_of_a_preview() -> None:
    """The context of a handle has the new prompt even where there is no shell."""
    chat: Any = magics.Kernel(FakeClient()).chat("main")

    assert said(chat.context("text").messages) == [("user", "text")]
    assert isinstance(chat.ask("text"), Turn)
