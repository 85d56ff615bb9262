"""The magics in a real IPython shell, with a double in place of the server."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from typing import Any

import pytest
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

import chatmagic
from chatmagic import magics
from chatmagic.conversation.messages import Cell
from chatmagic.errors import ChatMagicError, ChatMagicWarning, RequestError
from chatmagic.events import Delta, Finished, Sending
from chatmagic.testing import FakeClient


@pytest.fixture
def far(kernel: magics.Kernel, client: FakeClient) -> FakeClient:
    """The other end of the wire of the shell."""
    kernel.client = client
    return client


def run(shell: InteractiveShell, code: str) -> ExecutionResult:
    runner: Any = shell
    result: ExecutionResult = runner.run_cell(code, store_history=True)
    return result


def good(shell: InteractiveShell, code: str) -> None:
    """Run a cell that must not fail."""
    result: Any = run(shell, code)
    result.raise_error()


def failed(shell: InteractiveShell, code: str) -> ChatMagicError:
    """Run a cell that must fail with an error of ours, and return it."""
    error = run(shell, code).error_in_exec
    assert isinstance(error, ChatMagicError)
    return error


def contents(client: FakeClient, number: int = -1) -> list[str]:
    return [message.content for message in client.requests[number].messages]


PROBE = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell(config=config)
before = set(sys.modules)
shell.run_line_magic("load_ext", "chatmagic")
new = set(sys.modules) - before
assert "chatmagic.magics" in new
print(sorted(name for name in new if not name.startswith("chatmagic")))
"""


def test_loading_is_silent_and_imports_next_to_nothing() -> None:
    """%load_ext prints nothing and imports only small parts of the standard library beside ourselves."""
    ran = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    modules = eval(ran.stdout)
    assert not {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"IPython"}


def test_names_of_the_package() -> None:
    """Every public name can be had, and dir() shows just these."""
    assert sorted(chatmagic.__all__) == chatmagic.__all__ == dir(chatmagic)
    assert all(hasattr(chatmagic, name) for name in chatmagic.__all__)


def test_unload_takes_everything_back(shell: InteractiveShell) -> None:
    """After %unload_ext the shell is as it was before."""

    def state() -> list[Any]:
        manager = shell.magics_manager
        return [
            sorted(manager.magics["line"]),
            sorted(manager.magics["cell"]),
            sorted(manager.registry),
            len(shell.configurables),
        ]

    good(shell, "%unload_ext chatmagic")
    before = state()
    good(shell, "%load_ext chatmagic")
    assert state() != before
    good(shell, "%unload_ext chatmagic")

    assert state() == before


@pytest.mark.usefixtures("far")
def test_sessions_survive_a_reload(shell: InteractiveShell) -> None:
    """%reload_ext keeps every conversation."""
    good(shell, "%%chat a\nhello")
    good(shell, "%reload_ext chatmagic")

    assert [turn.prompt for turn in chatmagic.session("a").turns] == ["hello"]


def test_another_owner_of_chat_is_named_and_gets_it_back(shell: InteractiveShell) -> None:
    """When another extension has a %%chat, one warning names it, and unloading gives it back."""
    good(shell, "%unload_ext chatmagic")

    def other(*_: Any) -> str:
        return "the other one"

    other.__module__ = "chapyter.magic"
    register: Any = shell.register_magic_function
    register(other, "cell", "chat")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        good(shell, "%load_ext chatmagic")
    assert [str(warning.message)[:41] for warning in caught] == ["%%chat belonged to chapyter.magic; it is "]
    assert caught[0].category is ChatMagicWarning
    good(shell, "%unload_ext chatmagic")

    assert run(shell, "%%chat x\ny").result == "the other one"


def test_cells_make_a_conversation(shell: InteractiveShell, far: FakeClient) -> None:
    """A cell without a name goes on with the session that was named last, with all its history."""
    good(shell, "%%chat tutor\none")
    good(shell, "%%chat\ntwo")

    assert contents(far) == ["one", "one", "two"]


def test_sessions_know_nothing_of_each_other(shell: InteractiveShell, far: FakeClient) -> None:
    """Each session sends only what was said in it."""
    good(shell, "%%chat a\none")
    good(shell, "%%chat b\ntwo")
    good(shell, "%%chat a\nthree")

    assert contents(far, 1) == ["two"]
    assert contents(far, 2) == ["one", "one", "three"]


@pytest.mark.parametrize(
    "body",
    [
        ">>> x = 1\n>>> y",
        "    all\n    indented",
        "In [1]: prompt\nOut[1]: 2",
        "... dots",
        "ends with blanks   \n\n ",
        "# NBVAL_IGNORE_OUTPUT\n%matplotlib\n!ls\n?help",
        "$HOME {x} ${{ y }} {{z}} \\begin{x}",
        "\ttab\u2028line\x0bbreak \U0001f600",
    ],
    ids=["doctest", "indented", "ipython prompt", "dots", "blanks", "magics", "braces", "odd characters"],
)
def test_prompt_is_sent_as_typed(shell: InteractiveShell, far: FakeClient, body: str) -> None:
    """Nothing in a prompt is cleaned, expanded or stripped."""
    good(shell, f"%%chat\n{body}")

    assert contents(far) == [body]


def test_only_the_final_newline_goes(shell: InteractiveShell, far: FakeClient) -> None:
    """One newline at the end belongs to the cell, not to the prompt."""
    good(shell, "\n%%chat\ntext\n\n")

    assert contents(far) == ["text\n"]


def test_a_magic_run_by_code_gets_its_text(shell: InteractiveShell, far: FakeClient) -> None:
    """run_cell_magic inside a cell sends the text that it was given, not the cell around it."""
    good(shell, "get_ipython().run_cell_magic('chat', 'a', 'from code')")

    assert contents(far) == ["from code"]


def test_values_are_filled_in(shell: InteractiveShell, far: FakeClient) -> None:
    """{{ expression }} is replaced by its value in the user's namespace."""
    good(shell, "numbers = [1, 2]")
    good(shell, "%%chat\nsum {{ sum(n for n in numbers) }} of {{ numbers | json }}")

    assert contents(far) == ["sum 3 of [\n  1,\n  2\n]"]


def test_raw_fills_in_nothing(shell: InteractiveShell, far: FakeClient) -> None:
    """--raw sends the braces."""
    good(shell, "%%chat --raw\n{{ 1 + 1 }}")

    assert contents(far) == ["{{ 1 + 1 }}"]


def test_the_line_is_not_expanded(shell: InteractiveShell, far: FakeClient) -> None:
    """IPython's own {x} and $x are text on the line of the magic."""
    good(shell, "x = 5")
    good(shell, '%%chat -s "{x} $x" --set response_format={"type":"json_object"}\nhi')

    assert contents(far)[0] == "{x} $x"
    assert far.requests[0].parameters == {"response_format": {"type": "json_object"}}


def test_no_stream_is_passed_on(shell: InteractiveShell, far: FakeClient) -> None:
    """--no-stream asks for one piece, for this cell only."""
    good(shell, "%%chat --no-stream\nhi")
    good(shell, "%%chat\nhi")

    assert [request.stream for request in far.requests] == [False, True]


@pytest.mark.usefixtures("far")
def test_once_leaves_no_trace(shell: InteractiveShell, kernel: magics.Kernel) -> None:
    """A turn with --once starts no session and switches to none."""
    good(shell, "%%chat a\nhi")
    good(shell, "%%chat b --once\nhi")

    assert [session.name for session in kernel.sessions] == ["a"]
    assert kernel.sessions.current == "a"


def test_failure_leaves_no_trace(shell: InteractiveShell, kernel: magics.Kernel, far: FakeClient) -> None:
    """A session whose first request fails is not there, and the current one stays the current one."""
    good(shell, "%%chat a\nhi")
    far.answers.append(RequestError("no"))
    failed(shell, "%%chat b\nhi")

    assert [session.name for session in kernel.sessions] == ["a"]
    assert kernel.sessions.current == "a"


def test_stopped_first_turn_starts_the_session(shell: InteractiveShell, far: FakeClient) -> None:
    """A reply that was stopped is kept in its session, also when that is new."""
    far.answers.append([Sending("fake"), Delta("half"), KeyboardInterrupt()])
    failed(shell, "%%chat b\nhi")

    assert [turn.reply for turn in chatmagic.session("b").turns] == ["half"]


def test_new_session_and_near_miss_are_said(
    shell: InteractiveShell, far: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """The footer says that a session is new, and which one may have been meant."""
    good(shell, "%%chat tutor\nhi")
    good(shell, "%%chat tutro\nhi")

    assert "new session 'tutro' (there is also 'tutor')" in capsys.readouterr().out
    assert len(far.requests) == 2


@pytest.mark.usefixtures("far")
def test_a_verb_as_a_name_is_allowed_with_a_note(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """A session may be called like a verb."""
    good(shell, "%%chat undo\nhi")

    assert "'undo' is also a verb" in capsys.readouterr().out


@pytest.mark.usefixtures("far")
def test_footer_names_session_model_and_tokens(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """The last line of the output is the footer."""
    good(shell, "%%chat tutor -m big\nhow are you")

    assert capsys.readouterr().out.splitlines()[-1] == "tutor · big · 3 tokens in, 3 out"


@pytest.mark.usefixtures("far")
def test_cell_and_execution_are_on_the_turn(shell: InteractiveShell) -> None:
    """A turn knows the execution that made it."""
    good(shell, "%%chat\n{{ get_ipython().execution_count }}")

    turn = chatmagic.session().last
    assert turn is not None
    assert turn.cells == (Cell(None, turn.prompt),)


@pytest.mark.parametrize(
    ("code", "error", "fragments"),
    [
        ("%%chat a b\nhi", "LineError", ["next line", "'b'"]),
        ("%%chat --modle x\nhi", "LineError", ["'--modle'", "--model"]),
        ("%%chat -m\nhi", "LineError", ["-m", "MODEL"]),
        ("%%chat --set x\nhi", "LineError", ["'x'", "KEY=VALUE"]),
        ("%%chat --set messages=[]\nhi", "SettingError", ["'messages'"]),
        ("%%chat --set tools=1\nhi", "SettingError", ["'tools'"]),
        ('%%chat -s "never closed\nhi', "LineError", ["never closed"]),
        ("%%chat 1st\nhi", "SessionError", ["'1st'", "letter"]),
        ("%%chat a/b\nhi", "SessionError", ["'a/b'"]),
        ("%%chat " + "x" * 65 + "\nhi", "SessionError", ["65", "64"]),
        ("%%chat\n   \n", "LineError", ["empty"]),
        ("%%chat\n{{ missing }}", "TemplateError", ["missing", "NameError", "--raw", "\\{{"]),
        ("%%chat\n{{ 1 + }}", "TemplateError", ["SyntaxError"]),
        ("%%chat\n{{ 1 | nofilter }}", "TemplateError", ["'nofilter'", "json"]),
        ("%chat frob", "LineError", ["'frob'", "sessions"]),
        ("%chat ues x", "LineError", ["%chat use"]),
        ("%chat use nobody", "SessionError", ["'nobody'", "%%chat nobody"]),
        ("%chat use", "LineError", ["NAME"]),
        ("%chat use a b", "LineError", ["'b'"]),
        ("%chat clear", "SessionError", ["'main'"]),
        ("%chat undo", "SessionError", ["'main'"]),
        ("%chat show 7", "SessionError", ["'main'"]),
        ("%chat write me a poem", "LineError", ["%%chat", "prompt"]),
        ("%chat set temperature 0", "LineError", ["'temperature'"]),
        ("%chat new a --set model=", "", []),
        ("%chat undo 0", "LineError", ["'0'", "1"]),
        ("%chat -h", "LineError", ["'-h'", "--help"]),
        ('%%chat --set f={"a": 1}\nhi', "LineError", ["as a whole"]),
        ("%%chat --stream\nhi", "LineError", ["no option '--stream'", "--no-stream"]),
    ],
)
def test_bad_input(shell: InteractiveShell, far: FakeClient, code: str, error: str, fragments: list[str]) -> None:
    """Bad input is one line that names the value and the way out; nothing is sent."""
    if not error:
        good(shell, code)
    else:
        found = failed(shell, code)
        assert type(found).__name__ == error
        assert all(fragment in str(found) for fragment in fragments), str(found)
        assert "\n" not in str(found)
    assert far.requests == []


def test_error_is_shown_as_one_line(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """No frame of ours is shown with an error."""
    run(shell, "%%chat a b\nhi")

    assert capsys.readouterr().out.strip().count("\n") == 0


@pytest.mark.parametrize("code", ["%chat --help", "%%chat --help\nhi", "%chat use --help", "%chat set --help"])
def test_help_sends_nothing(
    shell: InteractiveShell, far: FakeClient, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    """--help prints the form and does nothing else."""
    good(shell, code)

    assert capsys.readouterr().out.startswith(("%%chat [SESSION]", "%chat use NAME", "%chat set [KEY=VALUE …]"))
    assert far.requests == []


def test_model_by_config_and_environment(
    shell: InteractiveShell, far: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """%config goes before CHATMAGIC_MODEL, and that before the built-in model; each is read anew for every turn."""
    good(shell, "%%chat\nhi")
    monkeypatch.setenv("CHATMAGIC_MODEL", "from-env")
    good(shell, "%%chat\nhi")
    good(shell, "%config ChatMagic.model = 'from-config'")
    good(shell, "%%chat\nhi")

    assert [request.model for request in far.requests] == ["gpt-6-luna", "from-env", "from-config"]


def test_literal_key_is_refused_without_repeating_it(shell: InteractiveShell, caplog: pytest.LogCaptureFixture) -> None:
    """A key in the configuration is refused with the line to write instead, and stays out of every output."""
    run(shell, "%config ChatMagic.endpoints = {'x': {'url': 'https://h/v1', 'key': 'sk-very-secret'}}")

    assert shell.magics_manager.registry["ChatMagic"].endpoints == {}
    assert "X_API_KEY" in caplog.text
    assert "very-secret" not in caplog.text


def test_config_that_cannot_be_used_does_not_prevent_loading(shell: InteractiveShell) -> None:
    """With a broken configuration the extension loads, warns and works without it."""
    good(shell, "%unload_ext chatmagic")
    shell.config.ChatMagic.tries = 0
    with pytest.warns(ChatMagicWarning, match="configuration"):
        chatmagic.load_ipython_extension(shell)

    assert shell.magics_manager.registry["ChatMagic"].tries == 4


@pytest.mark.usefixtures("far")
def test_verbs_say_what_happened(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb answers in one line what happened and how to take it back."""
    good(shell, "%%chat a -s brief\nhi")
    good(shell, "%%chat b\nhi")
    capsys.readouterr()
    for verb in ["use a", "clear", "undo", "redo", "undo", "set temperature=0.5 model=big", "undo", "new c -m small"]:
        good(shell, f"%chat {verb}")

    assert capsys.readouterr().out.splitlines() == [
        "The current session is 'a' (1 turn). %chat use b goes back.",
        "'a' is empty now; 1 turn set aside, and what its cells had set. %chat undo brings everything back.",
        "Undone: clear. 'a' has 1 turn now. %chat redo repeats it.",
        "Redone: clear. 'a' has 0 turns now. %chat undo takes it back.",
        "Undone: clear. 'a' has 1 turn now. %chat redo repeats it.",
        "'a': model=big, temperature=0.5. %chat undo takes it back.",
        "Undone: set model temperature. 'a' has 1 turn now. %chat redo repeats it.",
        "The current session is 'c', new and empty. %chat use a goes back.",
    ]


@pytest.mark.usefixtures("far")
def test_verbs_for_names_say_what_happened(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """fork, rename and delete answer in one line, and undo takes each of them back."""
    good(shell, "%%chat a\nhi")
    good(shell, "%%chat b\nhi")
    capsys.readouterr()
    for verb in ["fork c", "undo", "rename b z", "undo", "rename a y", "delete y", "undo", "redo"]:
        good(shell, f"%chat {verb}")

    assert capsys.readouterr().out.splitlines() == [
        "The current session is 'c'; it shares 1 turn with 'b'. %chat undo takes it back.",
        "Undone: fork 'c'. 'b' has 1 turn now. %chat redo repeats it.",
        "'b' is 'z' now. %chat undo takes it back.",
        "Undone: rename 'b' to 'z'. 'b' has 1 turn now. %chat redo repeats it.",
        "'a' is 'y' now. %chat use y, then %chat undo, takes it back.",
        "'y' is deleted (1 turn). %chat undo brings it back.",
        "Undone: delete 'y'. 'b' has 1 turn now. %chat redo repeats it.",
        "Redone: delete 'y'. 'b' has 1 turn now. %chat undo takes it back.",
    ]


@pytest.mark.usefixtures("far")
def test_history_lists_the_turns(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """%chat history has a line for every turn, with its number, prompt, reply, model and tokens."""
    good(shell, "%%chat a -m big\none\ntwo")
    good(shell, "%%chat a\nthree")
    capsys.readouterr()
    good(shell, "%chat history")

    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["turn", "prompt", "reply", "model", "tokens", "in", "out", "note"],
        ["●", "#1", "one", "two", "one", "two", "big", "2", "2"],
        ["●", "#2", "three", "three", "big", "5", "1"],
    ]


@pytest.mark.usefixtures("far")
def test_models_of_an_endpoint(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """%chat models lists what the server has, in the form that -m takes."""
    good(shell, "%chat models ollama")
    good(shell, "%chat models")

    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["model", "ollama:ollama-model", "-m ollama:MODEL asks one of them"]
    assert lines[3:] == ["model", "openai-model", "-m MODEL asks one of them"]


@pytest.mark.usefixtures("far")
def test_chat_alone_is_a_table_in_a_terminal(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no widget can be shown, %chat and %chat panel are the table of sessions, with when each was asked last."""
    good(shell, "%%chat a\nhi")
    capsys.readouterr()
    for verb in ("", "panel", "sessions"):
        good(shell, f"%chat {verb}")

    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == lines[3:6]
    assert [line.split() for line in lines[:2]] == [
        [*lines[6].split(), "asked"],
        [*lines[7].split(), "just", "now"],
    ]
    assert lines[2] == lines[8]


def test_two_threads_ask_one_session_in_turn(kernel: magics.Kernel, far: FakeClient) -> None:
    """A session answers one prompt at a time, so that no turn is lost."""
    assert kernel
    threads = [threading.Thread(target=chatmagic.session("new").ask, args=(f"prompt {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(chatmagic.session("new").turns) == 8
    assert sorted(len(request.messages) for request in far.requests) == list(range(1, 17, 2))


def test_set_holds_from_now_on(shell: InteractiveShell, far: FakeClient) -> None:
    """%chat set changes the session, also where a cell of the line had said something else."""
    good(shell, "%%chat a -m first\nhi")
    good(shell, "%chat set model=second")
    good(shell, "%%chat\nhi")
    good(shell, "%chat undo 2")
    good(shell, "%%chat\nhi")

    assert [request.model for request in far.requests] == ["first", "second", "first"]


def test_set_starts_the_session(shell: InteractiveShell, far: FakeClient) -> None:
    """Settings can be made before the first prompt."""
    good(shell, "%chat set model=chosen")
    good(shell, "%%chat\nhi")

    assert far.requests[0].model == "chosen"


@pytest.mark.usefixtures("far")
def test_sessions_table(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """%chat sessions lists every session with its turns, model, tokens and cost, and marks the current one."""
    good(shell, "%%chat a -m big\none two")
    good(shell, "%%chat b\none")
    capsys.readouterr()
    good(shell, "%chat sessions")

    assert [line.split() for line in capsys.readouterr().out.splitlines()[:3]] == [
        ["session", "turns", "model", "tokens", "in", "cached", "tokens", "out", "cost"],
        ["a", "1", "big", "2", "unknown", "2", "unknown"],
        ["b", "*", "1", "gpt-6-luna", "1", "unknown", "1", "unknown"],
    ]


@pytest.mark.usefixtures("far")
def test_show(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """%chat show prints prompts and replies, %chat show N one turn."""
    good(shell, "%%chat a\nfirst")
    good(shell, "%%chat a\nsecond")
    capsys.readouterr()
    good(shell, "%chat show a")
    whole = capsys.readouterr().out
    good(shell, "%chat show 2")
    one = capsys.readouterr().out

    assert "#1 first" in whole
    assert "#2 second" in whole
    assert "first" not in one
    assert "#2 second" in one


def test_python_handle(shell: InteractiveShell, far: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    """session().ask() is a turn like that of a cell, and shows nothing."""
    good(shell, "%%chat a\none")
    capsys.readouterr()
    turn = chatmagic.session("a").ask("two", system="brief", temperature=0)

    assert capsys.readouterr().out == ""
    assert turn.reply == "two"
    assert contents(far) == ["brief", "one", "one", "two"]
    assert far.requests[-1].parameters == {"temperature": 0}
    assert [message.role for message in chatmagic.session("a").messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert chatmagic.session("a").usage.input_tokens == 5
    assert repr(chatmagic.session("a")) == "<chat session 'a': 2 turns>"


def test_asking_from_python_does_not_switch(kernel: magics.Kernel, far: FakeClient) -> None:
    """A session that is asked from Python is known from then on, but the current one stays."""
    chatmagic.session("helper").ask("hi")

    assert "helper" in kernel.sessions
    assert kernel.sessions.current == "main"
    assert len(far.requests) == 1


def test_handle_can_display(shell: InteractiveShell, far: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    """With display=True the reply is shown as a cell shows it."""
    assert shell
    far.answers.append([Sending("fake"), Delta("a \x1b[31mred"), Delta(" word"), Finished("stop")])
    chatmagic.session("a").ask("hi", display=True)

    assert capsys.readouterr().out == "a [31mred word\n\na · gpt-6-luna · ~8 tokens in, ~5 out\n"


def test_handle_keeps_to_the_grammar(kernel: magics.Kernel) -> None:
    """A name that cannot be one is refused at once."""
    assert kernel
    with pytest.raises(ChatMagicError, match="cannot name a session"):
        chatmagic.session("no way")


@pytest.mark.parametrize("code", ["%%chat?", "%chat?", "?%chat"])
def test_question_mark_is_help(shell: InteractiveShell, capsys: pytest.CaptureFixture[str], code: str) -> None:
    """%%chat? and %chat? show what --help shows."""
    good(shell, "%chat --help")
    help_text = capsys.readouterr().out.strip()
    good(shell, code)

    assert help_text in capsys.readouterr().out


def test_help_fits_an_output_cell(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """No line of the help is so long that a notebook breaks it."""
    good(shell, "%chat --help")

    assert max(map(len, capsys.readouterr().out.splitlines())) <= 92


def test_nothing_changed_is_no_act(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """Setting what is so already, or unsetting what is not set, is no act that undo would be spent on."""
    good(shell, "%chat set model=x")
    good(shell, "%chat set temperature= model=x")

    assert "nothing has changed" in capsys.readouterr().out
    good(shell, "%chat undo")
    assert "Undone: set model." in capsys.readouterr().out


def test_python_refuses_what_a_cell_refuses(kernel: magics.Kernel, far: FakeClient) -> None:
    """An empty prompt, or one that is no text, is an error in Python, too."""
    assert kernel
    for prompt in ("", " \n", 3):
        with pytest.raises(ChatMagicError, match="prompt is"):
            chatmagic.session("a").ask(prompt)  # type: ignore[arg-type]  # that is the point
    assert far.requests == []
