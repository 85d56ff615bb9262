"""Cells that run again, and the verbs that make or move turns, in a real shell and from Python."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import chatmagic
from chatmagic import magics
from chatmagic.conversation.messages import Turn
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.engine import GO_ON
from chatmagic.errors import (
    ChatMagicError,
    ChatMagicWarning,
    InterruptedTurnError,
    LineError,
    RequestError,
    SessionError,
)
from chatmagic.events import Delta, Finished, Queued, Sending
from chatmagic.testing import FakeClient

Run = Callable[..., str]


@pytest.fixture
def far(kernel: magics.Kernel, client: FakeClient) -> FakeClient:
    """The other end of the wire of the shell."""
    kernel.client = client
    return client


@pytest.fixture
def run(shell: InteractiveShell, far: FakeClient, capsys: pytest.CaptureFixture[str]) -> Run:  # noqa: ARG001 - it is asked
    """Run *code* in a cell as a notebook does, and return what it wrote, or the text of the error it must raise."""
    executions = itertools.count()

    def run(code: str, cell: str | None = None, fails: type[ChatMagicError] | None = None) -> str:
        runner: Any = shell
        header = {"msg_id": f"execution-{next(executions)}"}
        metadata = {} if cell is None else {"cellId": cell}
        runner.parent_header = {"header": header, "metadata": metadata, "content": {"code": code}}
        capsys.readouterr()
        result = runner.run_cell(code, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if fails is None:
            result.raise_error()
            return capsys.readouterr().out
        assert type(error) is fails
        return str(error)

    return run


def said(name: str) -> list[str]:
    return [turn.prompt for turn in chatmagic.session(name).turns]


def sent(client: FakeClient, number: int = -1) -> list[str]:
    return [message.content for message in client.requests[number].messages]


def three(run: Run) -> None:
    """Ask three times in the session ``t``."""
    for cell in "abc":
        run(f"%%chat t\n{cell}", cell)


def test_edit_and_run_again(run: Run, far: FakeClient) -> None:
    """The edited prompt takes the place of the old one, and the history before it is sent."""
    three(run)
    run("%%chat t\nbetter", "c")

    assert sent(far) == ["a", "a", "b", "b", "better"]
    assert said("t") == ["a", "b", "better"]


def test_an_earlier_cell_says_what_it_sets_aside(run: Run) -> None:
    """One line says how many later turns were set aside and how to get them back, which works."""
    three(run)
    assert "2 later turns set aside; %chat undo, or later %chat use " in run("%%chat t\nA", "a")
    assert said("t") == ["A"]
    run("%chat undo")
    assert said("t") == ["a", "b", "c"]
    assert "1 later turn set aside; %chat undo, or later %chat use " in run("%%chat t\nB", "b")
    assert "set aside" not in run("%%chat t\nB", "b")


def test_nothing_moves_before_the_reply(run: Run, far: FakeClient, kernel: magics.Kernel) -> None:
    """A failed or stopped re-run leaves the line, the current session and the acts as they were."""
    three(run)
    run("%%chat other\nx", "o")
    session = kernel.sessions["t"]
    before = session.state, len(session.done), kernel.sessions.current

    for trouble, error in ((RequestError("no"), RequestError), (KeyboardInterrupt(), InterruptedTurnError)):
        far.answers.append([Sending("e", instant=True), trouble])
        run("%%chat t -m other\nA", "a", fails=error)
        assert (session.state, len(session.done), kernel.sessions.current) == before


def test_a_failed_re_run_names_the_turn_that_stays(
    run: Run, far: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output of the cell is gone; a line says that its turn is not."""
    three(run)
    far.answers.append(RequestError("no"))
    capsys.readouterr()
    run("%%chat t\nB", "b", fails=RequestError)

    assert "turn #2 of this cell stays in the conversation: %chat show t 2" in capsys.readouterr().out


def test_an_interrupted_re_run_with_text_replaces(run: Run, far: FakeClient) -> None:
    """Text that had come is kept in the place of the old turn, and undo brings that back."""
    three(run)
    far.answers.append([Sending("e", instant=True), Delta("half"), KeyboardInterrupt()])
    run("%%chat t\nB", "b", fails=InterruptedTurnError)
    assert [(turn.prompt, turn.status) for turn in chatmagic.session("t").turns] == [
        ("a", "complete"),
        ("B", "interrupted"),
    ]
    run("%chat undo")
    assert said("t") == ["a", "b", "c"]


NOTEBOOK = {
    "one": "%%chat\none",
    "two": "%%chat x -m big\ntwo",
    "three": "%%chat --set seed=1\nthree",
    "use": "%chat use main",
    "four": "%%chat -s system\nfour",
    "loop": "import chatmagic\nfor p in 'pq': chatmagic.session('x').ask(p)",
    "five": "%%chat x\nfive",
    "retry": "%chat retry -m small",
    "six": "%%chat\nsix",
}


def test_run_all_twice_is_once(run: Run, far: FakeClient, kernel: magics.Kernel) -> None:
    """Cells with and without names, models, a loop, a switch and a retry: the second time is as the first."""
    passes = []
    for _ in range(3):
        before = len(far.requests)
        for cell, code in NOTEBOOK.items():
            run(code, cell)
        requests = [(r.model, r.messages, r.parameters) for r in far.requests[before:]]
        passes.append((requests, {s.name: (s.messages, s.settings) for s in kernel.sessions}, kernel.sessions.current))

    assert passes[0] == passes[1] == passes[2]


def test_a_copied_cell_appends(run: Run) -> None:
    """Another id is another cell, whatever it says."""
    three(run)
    run("%%chat t\nb", "copy")
    assert said("t") == ["a", "b", "c", "b"]


def test_append(run: Run) -> None:
    """--append and the setting add a turn at the end, though the cell has asked before."""
    three(run)
    run("%%chat t --append\na", "a")
    run("%config ChatMagic.rerun = 'append'")
    run("%%chat t\nb", "b")
    assert said("t") == ["a", "b", "c", "a", "b"]


def test_a_cell_in_two_sessions_keeps_both(run: Run) -> None:
    """A cell that is sent to another session leaves its turn in the first one."""
    three(run)
    run("%%chat u\nb", "b")
    assert (said("t"), said("u")) == (["a", "b", "c"], ["b"])


def test_at(run: Run, far: FakeClient) -> None:
    """--at goes on behind any turn, also one that was set aside; 0 is the beginning."""
    three(run)
    assert "2 later turns set aside; %chat undo, or later %chat use " in run("%%chat t --at 1\nd", "d")
    assert sent(far) == ["a", "a", "d"]
    assert "1 turn set aside; %chat undo, or later %chat use " in run("%%chat t --at #3\ne", "e")
    assert sent(far) == ["a", "a", "b", "b", "c", "c", "e"]
    run("%%chat t --at 0 --once\nf", "f")
    assert sent(far) == ["f"]
    assert said("t") == ["a", "b", "c", "e"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("%%chat t --at 9\nx", "no turn #9 (known: #1 to #3)"),
        ("%%chat new --at 1\nx", "no turn #1 (known: none yet)"),
        ("%chat use t --at 9", "no turn #9 (known: #1 to #3)"),
        ("%chat use nobody --at 1", "no session 'nobody' (known: 't')"),
        ("%chat fork t", "there is a session 't' already"),
        ("%chat fork f --at 9", "no turn #9 (known: #1 to #3)"),
        ("%chat fork 1", "'1' cannot name a session"),
        ("%chat undo 9", "cannot undo 9 in session 't': there are 3 acts to undo"),
        ("%chat redo", "cannot redo 1 in session 't': there is nothing to redo"),
        ("%chat edit 9", "no turn #9"),
        ("%chat show 9", "no turn #9"),
        ("%chat pin 9", "no turn #9"),
        ("%chat unpin 9", "no turn #9"),
        ("%chat delete t", "'t' is the current session"),
        ("%chat rename t t", "the session is called 't' already"),
    ],
)
def test_bad_acts(run: Run, far: FakeClient, kernel: magics.Kernel, code: str, message: str) -> None:
    """Each is one clear line; nothing is sent and nothing has changed."""
    three(run)
    before = [(session.name, session.state) for session in kernel.sessions]

    assert message in run(code, "z", fails=SessionError)
    assert len(far.requests) == 3
    assert [(session.name, session.state) for session in kernel.sessions] == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("%%chat t --at x\nx", "'x' is not a number from 0 up"),
        ("%%chat t --at 1 --append\nx", "--at and --append exclude each other"),
        ("%chat edit 0", "'0' is not a number from 1 up"),
        ("%chat pin", "%chat pin needs N"),
    ],
)
def test_bad_lines(run: Run, code: str, message: str) -> None:
    """A line that makes no sense is an error of its own kind."""
    three(run)
    assert message in run(code, fails=LineError)


def test_retry(run: Run, far: FakeClient) -> None:
    """The prompt is asked once more, by the other model if one is named; both replies can be reached."""
    three(run)
    far.answers.append("better")
    assert "in place of #3; %chat undo, or later %chat use " in run("%chat retry -m big", "r")

    assert (sent(far), far.requests[-1].model) == (["a", "a", "b", "b", "c"], "big")
    assert [turn.reply for turn in chatmagic.session("t").turns] == ["a", "b", "better"]
    run("%chat use t --at 3")
    assert [turn.reply for turn in chatmagic.session("t").turns] == ["a", "b", "c"]


def test_a_retried_turn_belongs_to_its_cell(run: Run) -> None:
    """Running the asking cell again replaces the retried turn; a retry always takes the newest prompt."""
    three(run)
    run("%chat retry", "r")
    run("%%chat t\nC", "c")
    assert said("t") == ["a", "b", "C"]
    run("%%chat t\nd", "d")
    run("%chat retry", "r")
    assert said("t") == ["a", "b", "C", "d"]


def test_an_edited_turn_belongs_to_its_cell(run: Run, shell: InteractiveShell, far: FakeClient) -> None:
    """What %chat edit has put into a cell takes the place of the turn, and either cell replaces it again."""
    puts: list[str] = []
    next_input: Any = shell
    next_input.set_next_input = puts.append
    three(run)
    run("%chat edit 2")
    far.answers.append(RequestError("no"))
    run(puts[0], "e", fails=RequestError)
    assert "in place of #2, 1 later turn set aside; %chat undo, or later %chat use " in run(puts[0] + "!", "e")
    assert said("t") == ["a", "b!"]
    run("%%chat t\nB", "b")
    assert said("t") == ["a", "B"]
    run("%%chat t --at 1\nother", "o")
    run("%%chat t\nB", "b")
    assert said("t") == ["a", "other", "B"]


def test_a_cell_that_was_inserted_above(run: Run) -> None:
    """--at 0 starts over, and the cells below go on behind it when all are run."""
    three(run)
    for _ in range(2):
        run("%%chat t --at 0\nnew", "n")
        three(run)
        assert said("t") == ["new", "a", "b", "c"]


def test_at_follows_the_notebook(run: Run) -> None:
    """When all cells run again, --at goes on behind what has taken the place of the turn that it named."""
    three(run)
    for first in ("a", "A"):
        run(f"%%chat t\n{first}", "a")
        run("%%chat t\nb", "b")
        run("%%chat t --at 1\nx", "x")
        assert said("t") == [first, "x"]


def test_a_cell_that_changes_its_session_says_what_it_leaves(run: Run) -> None:
    """A turn that no cell shows any more is named once."""
    three(run)
    assert "turn #2 of this cell stays in 't'" in run("%%chat u\nb", "b")
    assert "stays" not in run("%%chat u\nb", "b")


def test_once_asks_at_the_end(run: Run, far: FakeClient) -> None:
    """What is kept nowhere takes no place: the whole history is sent, also from a cell that has asked before."""
    three(run)
    run("%%chat t --once\nquestion", "a")
    assert sent(far) == ["a", "a", "b", "b", "c", "c", "question"]
    assert said("t") == ["a", "b", "c"]


def test_a_thread_belongs_to_no_cell(run: Run, kernel: magics.Kernel) -> None:
    """What a thread asks while some cell runs is not replaced when that cell runs again."""
    run("%%chat t\na", "a")
    ask = "threading.Thread(target=chatmagic.session('t').ask, args=('bg',))"
    code = f"import threading, chatmagic\nt = {ask}; t.start(); t.join()"
    for _ in range(2):
        run(code, "thread")

    assert said("t") == ["a", "bg", "bg"]
    assert kernel.sessions["t"].turns[-1].cells[0].id is None


def test_a_handle_follows_its_session(run: Run) -> None:
    """A handle keeps its conversation through renames and their undo; of a deleted one it starts anew."""
    three(run)
    chat = chatmagic.session("t")
    run("%chat rename t coach")
    chat.ask("d")
    assert (chat.name, said("coach")) == ("coach", ["a", "b", "c", "d"])
    chat.rename("z")
    assert chat.undo() == ["rename 'coach' to 'z'"]
    assert chat.name == "coach"
    run("%chat new other")
    chat.delete()
    assert chat.turns == []
    with pytest.raises(SessionError, match=r"session 'coach' was deleted. %chat undo may bring it back"):
        chat.undo()
    run("%chat undo")
    assert len(chat.turns) == 4


def test_retry_keeps_what_the_cell_had_asked_for(run: Run, far: FakeClient) -> None:
    """The options of the cell that asked hold for the retry."""
    run("%%chat t -m big -s brief\na", "a")
    run("%chat retry", "r")

    assert (far.requests[-1].model, sent(far)) == ("big", ["brief", "a"])


def test_continue(run: Run, far: FakeClient) -> None:
    """The model sees its unfinished reply and is asked to go on; one turn keeps the whole."""
    three(run)
    far.answers += [[Sending("e", instant=True), Delta("half "), Finished("length")], "done"]
    run("%%chat t\nlong", "l")
    assert "half done" in run("%chat continue", "x")

    assert sent(far)[-3:] == ["long", "half ", GO_ON]
    last = chatmagic.session("t").last
    assert last is not None
    assert (last.prompt, last.reply, last.finish) == ("long", "half done", "stop")
    assert said("t") == ["a", "b", "c", "long"]
    run("%%chat t\nnext", "n")
    assert sent(far)[-3:] == ["long", "half done", "next"]


def test_a_continuation_that_fails_changes_nothing(run: Run, far: FakeClient, kernel: magics.Kernel) -> None:
    """Without a word more the reply stays as it was."""
    three(run)
    before = kernel.sessions["t"].state
    far.answers += [RequestError("no"), [Sending("e", instant=True), Finished("stop")]]
    for _ in range(2):
        run("%chat continue", "x", fails=RequestError)

    assert kernel.sessions["t"].state == before


@pytest.mark.parametrize("verb", ["retry", "continue"])
def test_nothing_to_repeat(run: Run, verb: str) -> None:
    """An empty session has no turn to ask again, and a session that does not exist neither."""
    assert "no session 'main'" in run(f"%chat {verb}", fails=SessionError)
    run("%chat new e")
    assert f"session 'e' has no turn to {verb}" in run(f"%chat {verb}", fails=SessionError)


@pytest.mark.parametrize(
    ("options", "prompt", "line"),
    [
        ("", "plain", "%%chat t --at 0"),
        ("-m big -s 'two words' --set seed=1", "p", '%%chat t --at 0 -m big --set seed=1 -s "two words"'),
        ("--raw", "{{ x }}\n  indented", "%%chat t --at 0 --raw"),
        ("", "%%chat\n>>> x", "%%chat t --at 0"),
    ],
)
def test_edit(run: Run, shell: InteractiveShell, far: FakeClient, options: str, prompt: str, line: str) -> None:
    """The next cell holds line and prompt, and running it asks the same again."""
    puts: list[str] = []
    next_input: Any = shell
    next_input.set_next_input = puts.append
    run(f"%%chat t {options}\n{prompt}", "a")
    run("%%chat\nlater", "b")
    assert "Nothing has changed" in run("%chat edit 1", "e")

    assert puts == [f"{line}\n{prompt}"]
    run(puts[0], "new")
    assert (far.requests[-1].messages, far.requests[-1].parameters) == (
        far.requests[0].messages,
        far.requests[0].parameters,
    )
    assert len(said("t")) == 1


def test_edit_says_what_no_line_can_hold(run: Run, shell: InteractiveShell) -> None:
    """A system prompt of several lines came from Python and cannot stand on a line."""
    puts: list[str] = []
    next_input: Any = shell
    next_input.set_next_input = puts.append
    run("import chatmagic; _ = chatmagic.session('t').ask('x', system='two\\nlines', seed=1)")
    run("%chat use t")

    assert "Not on its line, because no line can hold it: system." in run("%chat edit 1")
    assert puts == ["%%chat t --at 0 --set seed=1\nx"]


def test_history_shows_the_tree(run: Run) -> None:
    """Each turn has a row; what was set aside is drawn beside the line, before it goes on."""
    three(run)
    run("%%chat t\nB", "b")
    run("%chat retry", "r")
    run("%chat pin 1")
    run("%chat fork f")
    rows = run("%chat history t").splitlines()

    assert [row.split("  ")[0] for row in rows[1:-1]] == ["● #1", "├ ○ #2", "│ ○ #3", "├ ○ #4", "● #5"]
    assert rows[1].endswith("pinned")
    assert rows[5].endswith("'t' stands here, 'f' stands here")
    assert rows[-1] == "○ is not in the conversation: %chat use t --at N goes there"


def test_history_of_a_cleared_session(run: Run) -> None:
    """What was cleared is still in the tree."""
    three(run)
    run("%chat clear")
    rows = run("%chat history").splitlines()
    assert [row.split("  ")[0] for row in rows[1:-1]] == ["○ #1", "○ #2", "○ #3"]


def test_show_says_what_is_not_in_the_conversation(run: Run) -> None:
    """A turn that was set aside can be looked at, with its mark."""
    three(run)
    run("%chat use t --at 1")
    assert run("%chat show 3").startswith("not in the conversation")
    assert not run("%chat show 1").startswith("not in the conversation")


def test_the_handle_has_the_verbs(run: Run, far: FakeClient) -> None:
    """What %chat does, the handle does with its own conversation, whichever is the current one."""
    run("%%chat current\nx")
    chat = chatmagic.session("t")
    for text in "abc":
        chat.ask(text)
    far.answers.append("again")
    assert (chat.retry(model="big").reply, far.requests[-1].model) == ("again", "big")
    far.answers.append(" and on")
    assert chat.continue_().reply == "again and on"
    assert chat.edit(2, "B").prompt == "B"
    assert said("t") == ["a", "B"]
    assert chat.undo(3) == ["turn #6", "turn #5", "turn #4"]
    assert chat.redo() == ["turn #4"]
    assert chat.settings["model"] == "big"
    chat.pin(1)
    chat.unpin(1)
    chat.set(seed=3)
    assert chat.settings == {"model": "big", "seed": 3}
    fork = chat.fork("f", at=1)
    assert (said("f"), said("t")) == (["a"], ["a", "b", "c"])
    fork.rename("g")
    assert fork.name == "g"
    assert "● #1" in str(fork.history())
    assert str(chat.show(3)).startswith("not in the conversation")
    assert str(chat.show()).startswith("#1 a")
    assert chat.clear() == 3
    fork.delete()
    assert [each.name for each in chatmagic.sessions] == ["current", "t"]
    assert run("import chatmagic; print(chatmagic.session().name)") == "current\n"
    assert chat.use(at=2).name == run("print(chatmagic.session().name)").strip() == "t"
    assert said("t") == ["a", "b"]


def test_what_python_sets_aside_is_a_warning(run: Run) -> None:
    """A cell with .ask() that runs again shows nothing, but what it sets aside is not hidden."""
    ask = "import chatmagic\nchatmagic.session('t').ask('{}')"
    for cell in "ab":
        run(ask.format(cell), cell)
    with pytest.warns(ChatMagicWarning, match=r"1 later turn set aside; chatmagic.session\('t'\).undo\(\) brings it"):
        run(ask.format("a"), "a")
    assert said("t") == ["a"]


def test_sessions_iterate(run: Run) -> None:
    """chatmagic.sessions lists the handles, finds them by name, and says what they are."""
    assert (len(chatmagic.sessions), list(chatmagic.sessions)) == (0, [])
    run("%%chat t\na")

    assert [chat.name for chat in chatmagic.sessions] == ["t"]
    assert "t" in chatmagic.sessions
    assert chatmagic.sessions["t"].last is chatmagic.session("t").last
    assert repr(chatmagic.sessions) == "[<chat session 't': 1 turn>]"
    with pytest.raises(SessionError, match="no session 'u'"):
        chatmagic.sessions["u"]


@pytest.mark.usefixtures("far", "shell")
def test_the_handle_names_its_own_way_back(kernel: magics.Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """What is shown for a handle is taken back with the handle: its conversation need not be the current one."""
    chat = chatmagic.session("t")
    chat.ask("a")
    capsys.readouterr()
    chat.ask("b", at=0, display=True)

    assert "1 later turn set aside; chatmagic.session('t').undo() brings it back" in capsys.readouterr().out
    assert kernel.sessions.current == "main"


class Slow(FakeClient):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = threading.Event(), threading.Event()

    def stream(self, request: Any) -> Any:
        """Wait, then yield the answer."""
        self.asked.set()
        assert self.go.wait(10)
        yield from super().stream(request)


@pytest.mark.usefixtures("shell")
def test_a_session_answers_one_at_a_time(kernel: magics.Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second prompt waits, says so, and is then asked with the first one in its history."""
    kernel.client = slow = Slow()
    events: list[Any] = []
    first = threading.Thread(target=chatmagic.session("t").ask, args=("first",))
    first.start()
    assert slow.asked.wait(10)

    class View:
        """Lets the first reply come when the second prompt waits."""

        def show(self, event: Any) -> None:
            """Keep the event."""
            events.append(event)
            slow.go.set()

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    monkeypatch.setattr(kernel, "renderer", lambda _: View())
    chatmagic.session("t").ask("second", display=True)
    first.join()

    assert events[0] == Queued("t")
    assert sent(slow) == ["first", "first", "second"]


@pytest.mark.usefixtures("shell")
def test_two_sessions_answer_at_the_same_time(kernel: magics.Kernel) -> None:
    """Another session does not wait."""
    kernel.client = slow = Slow()
    threads = [threading.Thread(target=chatmagic.session(name).ask, args=(name,)) for name in "tu"]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(kernel.sessions.busy) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    both = len(kernel.sessions.busy)
    slow.go.set()
    for thread in threads:
        thread.join()

    assert (both, said("t"), said("u")) == (2, ["t"], ["u"])


def test_a_fork_that_goes_back_is_alone(run: Run, kernel: magics.Kernel) -> None:
    """A cell of the shared past that runs again in a fork leaves the other conversation as it is."""
    three(run)
    run("%chat fork f", "f")
    run("%%chat\nB", "b")

    assert (said("t"), said("f"), kernel.sessions.current) == (["a", "b", "c"], ["a", "B"], "f")


def test_turns_of_other_kinds_have_no_cell_of_their_own() -> None:
    """A turn is found by the cells that it belongs to; one that belongs to none is never replaced."""
    session = Session("s", Settings({"model": "m"}))
    session.add(Turn("p", "r"))
    assert session.begin(magics.kernel.cell).head is session.last


def test_an_unset_model_is_the_default_one(run: Run, far: FakeClient) -> None:
    """--set model= takes the model of the conversation back, and leaves the default."""
    run("%%chat t -m big\na")
    run("%%chat t --set model=\nb")
    assert [request.model for request in far.requests] == ["big", "gpt-6-luna"]


@pytest.mark.parametrize(
    ("cells", "last"),
    [
        (["%%chat a\none", "%chat fork c", "%chat rename a z", "%chat undo"], "'z' has 1 turn now"),
        (["%%chat a\none", "%chat undo", "%chat fork c", "%chat undo", "%chat redo"], "Redone: fork 'c'"),
        (["%%chat x\n1", "%%chat a\n1", "%chat undo", "%chat delete x", "%chat redo", "%chat undo"], "turn #1"),
        (["%%chat a\n1", "%chat fork c", "%%chat a\n2", "%chat use c", "%chat undo", "%chat redo"], "fork 'c'"),
        (["%%chat a\n1", "%chat fork c", "%chat undo", "%%chat a\n2", "%chat undo", "%chat redo"], "turn #2"),
    ],
)
def test_undo_and_redo_take_what_was_last(run: Run, cells: list[str], last: str) -> None:
    """Acts and moves of names are undone and redone in the order in which they were last done or undone."""
    assert last in [run(cell) for cell in cells][-1]
