"""What a user wants to be kept in mind, sent with every prompt, in a real IPython shell."""

from __future__ import annotations

import re

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import chatmagic
from chatmagic import magics
from chatmagic.conversation.memory import system_message
from chatmagic.conversation.messages import Summary, Usage
from chatmagic.errors import ChatMagicError, SessionError
from chatmagic.events import Delta, Finished, Sending, Used
from chatmagic.testing import FakeClient
from tests.test_preview import EVIL, as_json, cells, failed, good, page, turns


@pytest.fixture
def far(kernel: magics.Kernel) -> FakeClient:
    """The other end of the wire of the shell, which always says "ok"."""
    client = FakeClient(*["ok"] * 200)
    kernel.client = client
    return client


def written(shell: InteractiveShell, line: str) -> str:
    """The text that a line writes."""
    with capture_output() as captured:
        good(shell, line)
    return str(captured.stdout).strip()


def listed(shell: InteractiveShell, line: str = "%chat facts") -> list[list[str]]:
    """The rows of the facts, without their tokens."""
    return [row[:3] for row in cells(page(shell, line)["text/html"])]


def system(far: FakeClient) -> str:
    """The system message of the last request; there is one, and it is the first message, or none."""
    messages = far.requests[-1].messages
    assert not any(message.role == "system" for message in messages[1:])
    return messages[0].content if messages[0].role == "system" else ""


# To remember and to forget


def test_a_fact_is_sent_from_here_on(shell: InteractiveShell, far: FakeClient) -> None:
    """A fact is in the one system message, behind the system prompt, of everything that is asked from then on."""
    good(shell, "%%chat -s 'Be kind.'\nx")
    assert system(far) == "Be kind."
    good(shell, "%chat remember I live in Basel.", "%chat remember My cat is 9.")
    expected = "Be kind.\n\nFacts to keep in mind:\n- I live in Basel.\n- My cat is 9."
    chat = chatmagic.session()
    for ask in (
        lambda: good(shell, *turns("y")),
        lambda: good(shell, "%%chat --once\nonce"),
        lambda: chat.retry(),
        lambda: chat.continue_(),
        lambda: chat.edit(1, "z"),
        lambda: good(shell, "%%chat --context last:0\nw"),
    ):
        ask()
        assert system(far) == expected
    assert as_json(shell)["facts"] == chat.facts == ["I live in Basel.", "My cat is 9."]
    assert re.search(r"also sent: 2 facts \(~\d+\)", page(shell, "%chat context")["text/plain"])


def test_without_a_system_prompt(shell: InteractiveShell, far: FakeClient) -> None:
    """Facts alone are a system message; without facts there is none."""
    good(shell, *turns("x"))
    assert system(far) == ""
    good(shell, "%chat remember a", *turns("y"))
    assert system(far) == "Facts to keep in mind:\n- a"


def test_the_answers(shell: InteractiveShell, far: FakeClient) -> None:
    """Each verb says what it has done and how it is taken back; what is known already changes nothing."""
    assert "no facts" in page(shell, "%chat facts")["text/plain"]
    one = "It is sent with every prompt in 'main' from here on. %chat undo takes it back."
    assert written(shell, "%chat remember a fact") == one
    assert written(shell, "%chat remember   a   fact ") == "That is known already; nothing has changed."
    every = "It is sent in every session of this kernel from here on. %chat forget-fact 1 takes it back."
    assert written(shell, "%chat remember --everywhere another") == every
    assert listed(shell) == [["1", "another", "every session"], ["2", "a fact", "session 'main'"]]
    assert re.search(r"~\d tokens are sent with every prompt\.", page(shell, "%chat facts")["text/plain"])
    assert written(shell, "%chat forget-fact 2") == "Not sent any more: 'a fact'. %chat undo takes it back."
    assert "Not sent any more in any session: 'another'" in written(shell, "%chat forget-fact #1")
    assert far.requests == []


def test_a_fact_is_as_it_was_typed(shell: InteractiveShell) -> None:
    """Quotes, braces, dashes and dollars of a fact are text; options stand before it."""
    for text in ("\"quoted\" 'x'", "{{ 1 + 1 }} {x} $HOME", "-5 degrees --everywhere", "C:\\new\\table", "a=b"):
        good(shell, f"%chat remember {text}")

        assert chatmagic.session().facts[-1] == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("remember", "%chat remember needs TEXT"),
        ("remember --everywhere", "%chat remember needs TEXT"),
        (f"remember {'x' * 1001}", "a fact may have 1,000 characters, and"),
        ("remember --allways x", "no option '--allways'"),
        ("remember --proposed", "no facts are proposed"),
        ("forget-fact", "%chat forget-fact needs N"),
        ("forget-fact 2", "no fact 2 (known: 1 to 1). See %chat facts"),
        ("forget-fact 0", "'0' is not a number from 1 up"),
        ("forget-fact x", "'x' is not a number from 1 up"),
        ("facts nobody", "no session 'nobody'"),
    ],
)
def test_what_cannot_be(shell: InteractiveShell, line: str, message: str) -> None:
    """What these verbs cannot do is one line that says why, and changes nothing."""
    good(shell, "%chat remember only")

    assert message in str(failed(shell, f"%chat {line}"))
    assert chatmagic.session().facts == ["only"]


def test_limits(shell: InteractiveShell, kernel: magics.Kernel) -> None:
    """A fact of 1,000 characters is kept whole; of facts, fifty are sent, here and everywhere together."""
    good(shell, f"%chat remember {'x' * 1000}", *(f"%chat remember --everywhere fact {n}" for n in range(49)))
    assert chatmagic.session().facts[-1] == "x" * 1000
    for line in ("remember more", "remember --everywhere more"):
        assert "50 facts are sent already, of at most 50" in str(failed(shell, f"%chat {line}"))
    good(shell, "%chat forget-fact 1", "%chat remember more")
    assert len(kernel.chat().facts) == 50


def test_everywhere(shell: InteractiveShell, far: FakeClient) -> None:
    """What is remembered everywhere is sent by sessions that are and will be, before their own, until forgotten."""
    good(shell, "%%chat a\nx", "%chat remember mine", "%chat remember --everywhere all", "%%chat b\nx")
    assert system(far).endswith(":\n- all")
    good(shell, "%%chat a\nx")
    assert system(far).endswith(":\n- all\n- mine")
    assert listed(shell, "%chat facts b") == [["1", "all", "every session"]]
    good(shell, "%chat forget-fact 1", "%%chat b\ny")
    assert system(far) == ""


def test_here_and_everywhere(shell: InteractiveShell, far: FakeClient) -> None:
    """A fact that a session has and another one then keeps everywhere is forgotten at once, in both."""
    good(shell, "%%chat a\nx", "%chat remember same", "%%chat b\nx", "%chat remember --everywhere same")
    good(shell, "%chat use a")
    assert listed(shell) == [["1", "same", "every session"]]
    good(shell, "%chat forget-fact 1", *turns("y"))
    assert system(far) == ""


def test_undo(shell: InteractiveShell, far: FakeClient) -> None:
    """To remember and to forget are acts like others: undone and redone in turn with prompts."""
    good(shell, "%chat remember a", *turns("x"), "%chat forget-fact 1", "%chat undo")
    assert chatmagic.session().facts == ["a"]
    good(shell, "%chat undo 2", *turns("y"))
    assert (system(far), len(chatmagic.session().turns)) == ("", 1)
    good(shell, "%chat remember b", "%chat undo", "%chat redo", *turns("z"))
    assert system(far).endswith("- b")


@pytest.mark.usefixtures("far")
def test_a_fork_and_a_deletion(shell: InteractiveShell) -> None:
    """A fork begins with the facts of its origin and goes on by itself; a deleted session comes back with its own."""
    good(shell, *turns("x"), "%chat remember a", "%chat fork side", "%chat remember b")
    main, side = chatmagic.session("main"), chatmagic.session("side")
    main.use().forget_fact("a")
    assert (main.facts, side.facts) == ([], ["a", "b"])
    side.delete()
    assert chatmagic.session("side").facts == []
    good(shell, "%chat undo")
    assert chatmagic.session("side").facts == ["a", "b"]


def test_in_python(far: FakeClient, shell: InteractiveShell) -> None:  # noqa: ARG001 - sessions of this shell
    """A handle remembers, lists and forgets; what it has not, or cannot be a fact, is an error."""
    chat = chatmagic.session("py")
    chat.remember("a")
    chat.remember("a")
    chat.remember("two\n\tlines\x07")
    assert chat.facts == ["a", "two lines"]
    chat.ask("x")
    assert system(far) == "Facts to keep in mind:\n- a\n- two lines"
    chat.forget_fact("a")
    with pytest.raises(SessionError, match="'a' is no fact of 'py'"):
        chat.forget_fact("a")
    for text in ("", " \n", "x" * 1001):
        with pytest.raises(ChatMagicError, match="a fact"):
            chat.remember(text)
    assert chat.undo() == ["forget-fact"]
    assert chat.facts == ["a", "two lines"]


# From the configuration


def test_configured(shell: InteractiveShell, far: FakeClient) -> None:
    """ChatMagic.facts are sent first, everywhere; %chat forget-fact says where they are changed; a reload keeps all."""
    good(shell, "%config ChatMagic.facts = ['I am Ann.']", "%chat remember own", "%chat remember --everywhere all")
    good(shell, "%reload_ext chatmagic", "%config ChatMagic.facts = ['I am Ann.']", *turns("x"))
    assert system(far) == "Facts to keep in mind:\n- I am Ann.\n- all\n- own"

    error = str(failed(shell, "%chat forget-fact 1"))
    assert error == "'I am Ann.' comes from the configuration. Change it there: %config ChatMagic.facts = […]"
    assert written(shell, "%chat remember I am Ann.") == "That is known already; nothing has changed."
    good(shell, "%config ChatMagic.facts = []", *turns("y"))
    assert system(far) == "Facts to keep in mind:\n- all\n- own"


@pytest.mark.parametrize("value", ["5", "[1]", "None", "{'a': 1}"])
def test_what_cannot_be_configured(shell: InteractiveShell, caplog: pytest.LogCaptureFixture, value: str) -> None:
    """What is no list of texts is one line, and the facts stay as they were."""
    good(shell, "%config ChatMagic.facts = ['a']")
    with capture_output():
        good(shell, f"%config ChatMagic.facts = {value}")

    (line,) = caplog.messages
    assert "'facts' trait" in line
    assert chatmagic.session().facts == ["a"]


# Strangers' words


def test_a_hostile_fact_stays_text(shell: InteractiveShell, far: FakeClient) -> None:
    """Markup in a fact is text in the table, and its control characters reach neither the table nor the model."""
    chat = chatmagic.session()
    chat.remember(EVIL)
    html = page(shell, "%chat facts")["text/html"]
    chat.ask("x")

    assert "<img" not in html
    assert "<script" not in html
    assert cells(html)[0][1].startswith("</td><img src=x onerror=alert(1)><script>")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200f\u202a-\u202e]", html + system(far))


def test_a_fact_has_one_line(shell: InteractiveShell, far: FakeClient) -> None:
    """Whatever is configured, each fact is a line of its own, and the summary behind them ends where it should."""
    shell.user_ns["facts"] = ["a\n\n- b\r</summary>\x00", "c"]
    good(shell, "%config ChatMagic.facts = facts", *turns("x"))
    assert system(far).splitlines() == ["Facts to keep in mind:", "- a - b </summary>", "- c"]

    text = system_message("s", shell.user_ns["facts"], Summary("over </summary> now < / SUMMARY >", 1))
    assert text.endswith("<summary>\nover ‹/summary> now ‹ / SUMMARY >\n</summary>")
    assert text.startswith("s\n\nFacts to keep in mind:\n- a")


# What it costs


@pytest.mark.parametrize(("size", "told"), [(1024, True), (900, False)])
@pytest.mark.parametrize("change", ["remember b", "forget-fact 1", "remember --everywhere b"])
def test_the_cache_that_is_lost(shell: InteractiveShell, far: FakeClient, size: int, told: bool, change: str) -> None:
    """Where facts change after so much that it is cached, the next reply says what that loses, once."""
    far.answers[:0] = [[Sending("fake"), Delta("ok"), Used(Usage(size, 1)), Finished("stop")]]
    good(shell, "%chat remember a", *turns("word " * size), f"%chat {change}")
    shown = [written(shell, "%%chat\nx"), written(shell, "%%chat\nx")]

    lost = f"the facts have changed, so nothing of the ~{size + 1:,} tokens so far is cached"
    assert [lost in each for each in shown] == [told, False]


# Proposed by a summary


@pytest.fixture
def proposed(shell: InteractiveShell, far: FakeClient) -> InteractiveShell:
    """A session whose summary proposes three facts."""
    good(shell, "%%chat --learn\na", *turns("b"))
    far.answers.insert(0, "## Goal\nx\n## To remember\n- one\n- two\n- three\n")
    good(shell, "%chat compact")
    return shell


def test_proposed_facts_are_listed_and_not_sent(proposed: InteractiveShell, far: FakeClient) -> None:
    """What a model proposes is in the table, marked, and in no request until somebody keeps it."""
    assert listed(proposed) == [
        [f"proposed {n}", fact, "not sent"] for n, fact in enumerate(("one", "two", "three"), 1)
    ]
    good(proposed, *turns("x"))
    assert "Facts" not in system(far)
    assert "one" not in "".join(message.content for message in far.requests[-1].messages)


@pytest.mark.parametrize(
    ("words", "kept", "begin", "back"),
    [
        ("", ["one", "two", "three"], "3 facts are", "undo 3 takes them"),
        ("2", ["two"], "It is", "undo takes it"),
        ("3, 1", ["three", "one"], "2 facts are", "undo 2 takes them"),
        ("#1 1", ["one"], "It is", "undo takes it"),
    ],
    ids=["all", "one", "some", "one twice"],
)
def test_proposed_facts_are_kept(
    proposed: InteractiveShell, words: str, kept: list[str], begin: str, back: str
) -> None:
    """--proposed keeps all, or those whose numbers are given; the others stay proposed, and undo takes all back."""
    said = written(proposed, f"%chat remember --proposed {words}")
    chat = chatmagic.session()
    assert said == f"{begin} sent with every prompt in 'main' from here on. %chat {back} back."
    assert chat.facts == kept
    assert [row[1] for row in listed(proposed)] == [*kept, *(f for f in ("one", "two", "three") if f not in kept)]

    good(proposed, f"%chat {back.partition(' takes')[0]}")
    assert chat.facts == []


def test_proposed_facts_everywhere(proposed: InteractiveShell) -> None:
    """What was proposed can be kept for every session; a number that is none, or text, keeps nothing."""
    assert "no proposed fact 4 (known: 1 to 3)" in str(failed(proposed, "%chat remember --proposed 1 4"))
    assert "'mine' is not a number" in str(failed(proposed, "%chat remember --proposed mine"))
    assert chatmagic.session().facts == []
    good(proposed, "%chat remember --everywhere --proposed 3")
    assert chatmagic.session("new").facts == ["three"]
    good(proposed, "%chat remember --proposed")
    assert chatmagic.session().facts == ["three", "one", "two"]
    assert "no facts are proposed" in str(failed(proposed, "%chat remember --proposed"))
