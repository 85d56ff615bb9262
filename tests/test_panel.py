"""The panel without a browser: it is driven, and read, as its front end would."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm, CommManager
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.session import json_packer

from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.display.overview import MAPS, changes
from chatmagic.display.panel import Panel
from chatmagic.display.told import Told
from chatmagic.errors import RequestError
from chatmagic.events import (
    Busy,
    Delta,
    Event,
    Finished,
    Queued,
    Reasoning,
    Remark,
    Request,
    Sending,
    Used,
    Waiting,
)
from chatmagic.kernel import Kernel
from chatmagic.testing import FakeClient, SpyRenderer
from tests.browser import write_notebook
from tests.kernel import RealKernel

USED = Usage(100, 10, 25)
SENT: list[dict[str, Any]] = []


class SpyComm(BaseComm):
    """A connection to no front end that keeps what was sent."""

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        assert not metadata or msg_type == "comm_open"
        assert not buffers
        SENT.append({"type": msg_type, "data": data or {}})


@pytest.fixture(autouse=True)
def no_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is sent to front ends, and send it to none."""
    monkeypatch.setattr(comm, "create_comm", SpyComm)
    manager = CommManager()
    monkeypatch.setattr(comm, "get_comm_manager", lambda: manager)
    SENT.clear()


class FrontEnd:
    """What panel.js knows: it begins with the whole state, and takes what is set and merged from then on."""

    def __init__(self, panel: Panel, by: str = "page") -> None:
        self.panel, self.by = panel, by
        self.state: dict[str, Any] = whole(panel)
        self.heard: list[dict[str, Any]] = []
        self._at = len(SENT)
        self._clicks = 0

    def hear(self) -> dict[str, Any]:
        """Take what was sent since, and return the state then."""
        while self._at < len(SENT):
            data = SENT[self._at]["data"]
            self._at += 1
            if data.get("method") == "custom":
                self._take(json.loads(json.dumps(data["content"])))
        return self.state

    def _take(self, message: dict[str, Any]) -> None:
        self.heard.append(message)
        self.state.update(message.get("set", {}))
        for name, entries in message.get("merge", {}).items():
            for key, value in entries.items():
                if value is None:
                    self.state[name].pop(key, None)
                else:
                    self.state[name][key] = value

    def send(self, do: str, **act: Any) -> dict[str, Any]:
        """Click, and return the answer to the click."""
        self._clicks += 1
        number = f"{self.by}-{self._clicks}"
        self.panel.widget._handle_custom_msg({"do": do, **act, "id": number}, [])
        self.hear()
        return next(message for message in self.heard if message.get("done") == number)

    def click(self, do: str, **act: Any) -> str:
        """Click in the current session, and return the note when all is quiet."""
        self.send(do, **({} if do == "new" else {"of": self.settled()["current"]}), **act)
        return str(self.settled()["note"])

    def look(self, value: bool = True) -> None:
        self.send("shown", by=self.by, value=value)

    def settled(self) -> dict[str, Any]:
        """Return the state when nothing is asked or sent any more."""
        quiet(self.panel)
        return self.hear()

    def until(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until it *holds* of the state."""
        end = time.monotonic() + 20
        while not holds(self.hear()):
            assert time.monotonic() < end, self.state
            time.sleep(0.005)
        return self.state

    @property
    def html(self) -> str:
        return "".join(self.state["parts"].values())


def whole(panel: Panel) -> dict[str, Any]:
    """All of the state, as a front end that asks for it gets it."""
    state: dict[str, Any] = json.loads(json.dumps(panel.widget.get_state("state")["state"]))
    return state


def quiet(panel: Panel) -> None:
    """Wait until nobody is asked from the panel, and all is sent."""
    for thread in threading.enumerate():
        if thread.name.endswith("(_answer)"):
            thread.join(20)
    while (timer := panel._timer) is not None:
        timer.join(20)


class Silent(FakeClient):
    """Gives *events*, and says nothing more until it is let."""

    def __init__(self, *events: Event) -> None:
        super().__init__()
        self._before = events
        self.let = threading.Event()

    def stream(self, request: Request) -> Iterator[Event]:
        self.requests.append(request)
        yield from self._before
        assert self.let.wait(30)
        yield Finished("stop")


def made(client: FakeClient | None = None) -> tuple[Panel, FrontEnd, Kernel]:
    kernel = Kernel(client or FakeClient())
    panel = kernel.panel = Panel(kernel.sessions, kernel)
    front = FrontEnd(panel)
    front.look()
    return panel, front, kernel


@pytest.fixture
def edge(client: FakeClient) -> Kernel:
    return Kernel(client)


@pytest.fixture
def sessions(edge: Kernel) -> Sessions:
    return edge.sessions


@pytest.fixture
def panel(edge: Kernel) -> Iterator[Panel]:
    panel = edge.panel = Panel(edge.sessions, edge)
    yield panel
    quiet(panel)


@pytest.fixture
def front(panel: Panel) -> FrontEnd:
    """A front end that shows the panel."""
    front = FrontEnd(panel)
    front.look()
    return front


def say(session: Session, prompt: str, usage: Usage = USED, reply: str = "", **more: Any) -> Turn:
    return session.add(Turn(prompt, reply or prompt.upper(), parent=session.last, usage=usage, **more))


def known(sessions: Sessions, name: str, turns: int = 0) -> Session:
    """Make a session with so many turns the current one."""
    session = sessions.find(name)
    for number in range(turns):
        say(session, f"p{number}", model="some-model")
    sessions.keep(session)
    sessions.use(name)
    return session


def names(sessions: Sessions) -> list[str]:
    return [session.name for session in sessions]


# What is shown.


def test_empty_kernel(front: FrontEnd) -> None:
    """Where nothing was asked yet, nothing can be undone or cleared, and no figure is made up."""
    state = front.settled()

    assert state["current"] == "main"
    assert state["chat"] == {
        "known": False,
        "before": 0,
        "model": "gpt-6-luna",
        "own": "",
        "default": "gpt-6-luna",
        "clear": False,
        "undo": None,
        "redo": None,
    }
    assert not any(state[key] for key in ("sessions", "line", "bars", "turns", "totals", "context", "asked", "page"))


def test_follows_turns(front: FrontEnd, sessions: Sessions) -> None:
    """A turn shows at once: in the list of sessions, as a bar, as a line, and in the sums."""
    session = known(sessions, "tutor", 1)
    say(session, "more", Usage(300, 20, 75, 5, cost=0.5), model="big", started=1000.4)
    state = front.settled()

    assert state["sessions"] == {"tutor": [2, "gpt-6-luna", 1000, "≥ $0.50"]}
    assert state["line"] == [1, 2]
    assert state["bars"]["2"] == [
        75,
        225,
        15,
        5,
        "#2 · big · 300 tokens in (25% cached), 20 out (5 reasoning) · $0.50",
    ]
    assert state["turns"]["2"] == ["more", "MORE", False]
    assert state["totals"] == [["these 2 turns", "400", "25%", "30", "≥ $0.5000"]]


def test_long_line(front: FrontEnd, sessions: Sessions) -> None:
    """Of a long line the newest turns have bars, the last of them are named, and the others are counted."""
    known(sessions, "tutor", 100)
    state = front.settled()

    assert state["line"] == list(range(61, 101))
    assert sorted(map(int, state["bars"])) == state["line"]
    assert sorted(map(int, state["turns"])) == list(range(96, 101))
    assert state["chat"]["before"] == 60


def test_estimates_are_marked(front: FrontEnd, client: FakeClient) -> None:
    """Where a server does not say what a request used, the figures are estimated, and have a ~."""
    client.answers = [[Sending("fake"), Delta("one two three"), Finished("stop")]]
    front.click("ask", text="hi")
    [bar] = front.state["bars"].values()
    assert "tokens in, ~" in bar[4]
    assert "#1 · gpt-6-luna · ~" in bar[4]
    assert bar[1] > 0 < bar[2]
    assert front.state["totals"][0][1:] == ["unknown", "unknown", "unknown", "unknown"]

    front.click("undo", what="turn #1")
    [paid] = front.state["totals"]
    assert paid[0] == "all of main"
    assert paid[1].startswith("~")
    assert paid[3].startswith("~")


def test_spent_beyond_the_line(front: FrontEnd, edge: Kernel, client: FakeClient) -> None:
    """What turns that were set aside have cost, and other sessions, has lines of its own."""
    client.cost = lambda _: 0.25
    edge.ask(edge.sessions.find("other"), "hi", display=False)
    edge.sessions.use("other")
    front.settled()
    front.click("new", name="tutor")
    front.click("ask", text="one")
    assert [row[0] for row in front.state["totals"]] == ["this turn", "this kernel"]
    front.click("retry")

    assert [row[0] for row in front.state["totals"]] == ["this turn", "all of tutor", "this kernel"]
    assert [row[-1] for row in front.state["totals"]] == ["$0.2500", "$0.50", "$0.75"]


WORDS = "word " * 90


@pytest.mark.parametrize(
    ("policy", "turns", "about", "next_cut"),
    [
        ("budget:1000", 1, " of 1,000", "when it passes 1,000 the older half is not sent any more"),
        ("budget:1000", 4, " of 1,000", "when it passes 1,000 the older half is not sent any more: about #1 to #3"),
        (
            "summary:1000",
            4,
            " of 1,000",
            "when it passes 1,000 the older half is summarized, then not sent: about #1 to #3",
        ),
        ("all", 4, " tokens", "all: nothing is ever left out"),
        ("last:2", 4, "2 turns not sent (#1 to #2)", "last:2: older turns are not sent"),
    ],
)
def test_next_cut(front: FrontEnd, edge: Kernel, policy: str, turns: int, about: str, next_cut: str) -> None:
    """The panel says how full the context is, and which turns go when it passes what it may have."""
    session = known(edge.sessions, "tutor")
    session.set(Settings({"context": policy}))
    for _ in range(turns):
        edge.ask(session, WORDS, display=False)
    context = front.settled()["context"]

    assert about in context["about"]
    assert context["next"] == next_cut


def test_what_was_said_to_go_goes(front: FrontEnd, edge: Kernel) -> None:
    """The cut that comes is about the one that was announced."""
    session = known(edge.sessions, "tutor")
    session.set(Settings({"context": "budget:1000"}))
    said = ""
    while session.last is None or not (session.last.sent and session.last.sent.start > 1):
        following = (front.settled()["context"] or {"next": ""})["next"]
        said = following if "#" in following else said
        assert len(session.turns) < 12
        edge.ask(session, WORDS, view=SpyRenderer())
    announced = int(said.rpartition("#")[2])

    assert abs(session.last.sent.start - 1 - announced) <= 1


def test_a_new_budget_shows_with_the_next_change(shell: InteractiveShell, kernel: Kernel, client: FakeClient) -> None:
    """A budget that was configured anew is what the panel shows, at the latest when something is clicked."""
    kernel.client = client
    panel = kernel.panel = Panel(kernel.sessions, kernel)
    front = FrontEnd(panel)
    front.look()
    known(kernel.sessions, "tutor", 2)
    assert front.settled()["context"]["most"] == 200_000
    shell.run_cell("%config ChatMagic.budget = 1000")  # type: ignore[no-untyped-call]  # IPython's
    front.click("use")

    assert front.state["context"]["most"] == 1000


def test_next_cut_of_turns_of_unknown_size(front: FrontEnd, edge: Kernel) -> None:
    """Where nobody knows how long the turns are, no more than about a half of them is said to go."""
    session = known(edge.sessions, "tutor")
    session.set(Settings({"context": "budget:1000"}))
    for _ in range(8):
        say(session, "word " * 50, reply="word " * 50)
    said = front.settled()["context"]["next"]

    assert said.endswith(("is not sent any more", "#3", "#4", "#5", "#6"))


def test_window(front: FrontEnd, sessions: Sessions, client: FakeClient) -> None:
    """Where the window of the model is known, it is said how much of it is full."""
    client.window = 2000
    session = known(sessions, "tutor", 3)
    session.set(Settings({"context": "all"}))
    context = front.settled()["context"]

    assert context["most"] == 2000
    assert "of the model's window" not in context["about"]
    session.set(Settings({"context": "budget:1000"}))
    assert "% of the model's window of 2,000" in front.settled()["context"]["about"]


def test_a_function_of_the_user_is_not_called(front: FrontEnd, edge: Kernel) -> None:
    """A context policy that is somebody's function is named, and not called to look at it."""
    called: list[object] = []

    def mine(messages: Sequence[Message]) -> Sequence[Message]:
        called.append(messages)
        return messages

    edge.policies["mine"] = mine
    known(edge.sessions, "tutor", 2).set(Settings({"context": "mine"}))

    assert front.settled()["context"] == {"about": "mine chooses what is sent"}
    assert called == []


def test_system_prompt_and_model(front: FrontEnd, sessions: Sessions) -> None:
    """The system prompt of the session is there in full, and its own model beside the default one."""
    known(sessions, "tutor").set(Settings({"model": "big", "system": "Be brief.\nAlways."}))
    state = front.settled()

    assert state["system"] == "Be brief.\nAlways."
    assert [state["chat"][key] for key in ("model", "own", "default")] == ["big", "big", "gpt-6-luna"]
    assert state["sessions"]["tutor"][1] == "big"


# What is done.


def test_use(front: FrontEnd, sessions: Sessions) -> None:
    """Choosing a session makes it the current one at once."""
    known(sessions, "one", 1)
    known(sessions, "two", 2)
    front.send("use", of="one")

    assert sessions.current == "one"
    assert front.settled()["current"] == "one"
    assert front.state["line"] == [1]
    assert front.state["note"] == "The current session is 'one': the next %%chat goes there."


def test_new(front: FrontEnd, sessions: Sessions) -> None:
    """New starts a session and makes it the current one; Delete takes it back."""
    known(sessions, "one", 1)
    assert front.click("new", name=" tutor ") == "The current session is 'tutor', new and empty. Delete takes it back."
    assert front.state["current"] == sessions.current == "tutor"
    front.click("delete")

    assert names(sessions) == ["one"]
    assert front.state["current"] == "one"


def test_fork(front: FrontEnd, sessions: Sessions) -> None:
    """A fork has the same turns and is the current one; Undo takes it back."""
    known(sessions, "one", 2)
    assert front.click("fork", name="two") == (
        "The current session is 'two'; it shares 2 turns with 'one'. Undo takes it back."
    )
    assert front.state["current"] == "two"
    assert front.state["line"] == [1, 2]
    front.click("undo", what=front.state["chat"]["undo"])

    assert names(sessions) == ["one"]
    assert front.state["current"] == "one"


def test_rename(front: FrontEnd, sessions: Sessions) -> None:
    """Rename changes the name and nothing else; Undo takes it back."""
    session = known(sessions, "one", 2)
    assert front.click("rename", name="two ") == "'one' is 'two' now. Undo takes it back."
    assert front.state["current"] == "two"
    assert front.state["line"] == [1, 2]
    assert front.click("undo", what="rename 'one' to 'two'") == "Undone: rename 'one' to 'two'. Redo repeats it."

    assert session.name == front.state["current"] == "one"


def test_clear_undo_redo(front: FrontEnd, sessions: Sessions) -> None:
    """Clear sets the turns aside and says so, Undo brings them back, Redo repeats it; each is on when it can act."""
    session = known(sessions, "tutor", 2)
    assert front.click("clear") == "'tutor' is empty now: 2 turns set aside. Undo brings it back."
    assert not session.turns
    assert front.state["line"] == []
    assert [front.state["chat"][key] for key in ("clear", "undo", "redo")] == [False, "clear", None]

    assert front.click("undo", what="clear") == "Undone: clear. Redo repeats it."
    assert front.state["line"] == [1, 2]
    assert [front.state["chat"][key] for key in ("clear", "undo", "redo")] == [True, "turn #2", "clear"]

    assert front.click("redo", what="clear") == "Redone: clear. Undo takes it back."
    assert not session.turns


def test_clear_says_what_else_goes(front: FrontEnd, sessions: Sessions) -> None:
    """What the cells of the line had set goes with it, and that is said."""
    say(known(sessions, "tutor"), "p", settings=Settings({"model": "big"}))

    assert ", and what its cells had set." in front.click("clear")


def test_delete_the_current_one(front: FrontEnd, sessions: Sessions) -> None:
    """When the current session is deleted, the one asked last before it is the current one; Undo brings it back."""
    for name, when in (("old", 10.0), ("newest", 20.0), ("tutor", 5.0), ("never", 0.0)):
        session = known(sessions, name)
        if when:
            say(session, "p", started=when)
    sessions.use("tutor")
    front.settled()
    assert front.click("delete") == (
        "'tutor' is deleted (1 turn); the current session is 'newest'. Undo brings it back."
    )
    assert "tutor" not in front.state["sessions"]
    assert front.state["current"] == "newest"
    front.click("undo", what="delete 'tutor'")

    assert len(sessions["tutor"].turns) == 1
    assert "tutor" in front.state["sessions"]


def test_delete_the_only_one(front: FrontEnd, sessions: Sessions) -> None:
    """The only session is not deleted, and the line says what can be done instead."""
    known(sessions, "tutor", 1)

    assert front.click("delete") == "'tutor' is the only session: Clear empties it, New starts another one"
    assert names(sessions) == ["tutor"]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"model": "big"}, "'tutor': model is 'big' from the next turn on. Undo takes it back."),
        (
            {"system": "Be\nbrief", "model": "m"},
            "'tutor': model is 'm', system is 'Be brief' from the next turn on. Undo takes it back.",
        ),
        ({"system": "x"}, "'tutor': system is 'x' from the next turn on. Undo takes it back."),
        ({"model": ""}, "'tutor': model is unset from the next turn on. Undo takes it back."),
        ({"model": "before"}, "'tutor' has it so already; nothing has changed."),
    ],
    ids=["model", "both", "system", "unset", "as it is"],
)
def test_set(front: FrontEnd, sessions: Sessions, values: dict[str, str], note: str) -> None:
    """Model and system prompt hold from the next turn on; Undo takes that back."""
    session = known(sessions, "tutor", 1)
    session.set(Settings({"model": "before"}))
    front.settled()
    assert front.click("set", **values) == note
    assert (session.settings.model or "") == front.state["chat"]["own"] == values.get("model", "before")
    assert (session.settings.system or "") == front.state["system"] == values.get("system", "")
    if "Undo" in note:
        front.click("undo", what=front.state["chat"]["undo"])
    assert session.settings.model == front.state["chat"]["own"] == "before"
    assert front.state["system"] == ""


def test_set_starts_the_session(front: FrontEnd, sessions: Sessions) -> None:
    """Settings can be made before the first prompt."""
    front.click("set", model="big")

    assert sessions["main"].settings.model == "big"
    assert front.state["chat"]["known"]


@pytest.mark.parametrize("values", [{"contxt": "all"}, {"stream": "x"}, {"context": "last:x"}, {"tools": "x"}])
def test_bad_setting(front: FrontEnd, sessions: Sessions, values: dict[str, str]) -> None:
    """What cannot be set is answered with a line, and nothing is."""
    session = known(sessions, "tutor", 1)
    before = session.state

    assert next(iter(values)) in front.click("set", **values)
    assert session.state is before


def test_pin(front: FrontEnd, sessions: Sessions) -> None:
    """A turn is pinned and unpinned, which shows; Undo takes each back."""
    session = known(sessions, "tutor", 2)
    assert front.click("pin", n=1, value=True) == "Turn #1 is sent even when not everything can be. Undo takes it back."
    assert session.state.pinned == {1}
    assert front.state["turns"]["1"][2] is True
    assert front.click("pin", n=1, value=False) == "Turn #1 is not pinned any more. Undo takes it back."
    assert front.state["turns"]["1"][2] is False
    front.click("undo", what="unpin 1")
    assert session.state.pinned == {1}
    front.click("undo", what="pin 1")

    assert session.state.pinned == frozenset()


def test_open_and_close(front: FrontEnd, sessions: Sessions) -> None:
    """A turn that is opened is shown in full, below its prompt, until it is closed."""
    session = known(sessions, "tutor", 1)
    say(session, "what?\nreally?", reply="**bold** words", model="big")
    front.click("open", n=2)
    assert front.state["page"] == {"prompt": "what?\nreally?", "turn": 2, "streams": False}
    assert "<strong>bold</strong> words" in front.html
    assert "tutor · big · 100 tokens in" in front.html
    front.click("open", n=1)
    assert front.state["page"]["turn"] == 1
    assert "bold" not in front.html
    front.click("close")

    assert front.state["page"] is None
    assert front.state["parts"] == {}


def test_each_session_has_its_page(front: FrontEnd, sessions: Sessions) -> None:
    """What is opened in one session is not shown in another one, and is there when one comes back."""
    known(sessions, "one", 1)
    known(sessions, "two", 1)
    front.settled()
    front.click("open", n=1)
    front.click("use")
    front.send("use", of="one")
    assert front.settled()["page"] is None
    front.send("use", of="two")

    assert front.settled()["page"]["turn"] == 1


def test_an_opened_turn_that_left_says_so(front: FrontEnd, sessions: Sessions) -> None:
    """The page of a turn that is not in the conversation any more says so, until it is back."""
    known(sessions, "tutor", 2)
    front.settled()
    front.click("open", n=2)
    assert "not in the conversation" not in front.html
    front.click("undo", what="turn #2")
    assert "not in the conversation" in front.html
    front.click("redo", what="turn #2")

    assert "not in the conversation" not in front.html


def test_cell(front: FrontEnd, sessions: Sessions) -> None:
    """A prompt goes into a cell that asks it in the same place; only who clicked gets the cell, and nothing changes."""
    session = known(sessions, "tutor", 1)
    say(session, "more {{x}}", settings=Settings({"model": "big"}))
    before = session.state
    answer = front.send("cell", of="tutor", n=2)

    assert answer["cell"] == "%%chat tutor --at 1 -m big --raw\nmore {{x}}"
    assert front.settled()["note"] == "Nothing changes until the cell with the prompt of turn #2 runs."
    assert session.state is before
    assert session.edited is session.last


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "'' cannot name"), ("a b", "'a b' cannot name"), ("1", "'1' cannot name"), ("x" * 65, "at most 64")],
)
@pytest.mark.parametrize("do", ["new", "fork", "rename"])
def test_bad_name(front: FrontEnd, sessions: Sessions, do: str, name: str, says: str) -> None:
    """A name that cannot be one is answered with a line; nothing changes."""
    known(sessions, "tutor", 1)

    assert says in front.click(do, name=name)
    assert names(sessions) == ["tutor"]
    assert sessions.current == "tutor"


@pytest.mark.parametrize("do", ["new", "fork", "rename"])
def test_taken_name(front: FrontEnd, sessions: Sessions, do: str) -> None:
    """A name that another session has is refused."""
    known(sessions, "other", 1)
    known(sessions, "tutor", 1)
    front.settled()

    assert "there is a session 'other' already" in front.click(do, name="other")
    assert names(sessions) == ["other", "tutor"]


@pytest.mark.parametrize(
    ("do", "act"),
    [
        ("cell", {"n": 1}),
        ("clear", {}),
        ("delete", {}),
        ("fork", {"name": "x"}),
        ("open", {"n": 1}),
        ("pin", {"n": 1, "value": True}),
        ("rename", {"name": "x"}),
        ("retry", {}),
        ("use", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_deleted_meanwhile(front: FrontEnd, sessions: Sessions, do: str, act: dict[str, Any]) -> None:
    """An act on a session that was deleted meanwhile says so, and changes nothing."""
    known(sessions, "gone", 1)
    known(sessions, "tutor", 1)
    sessions.delete("gone")
    front.send(do, of="gone", **act)

    assert "session 'gone' was deleted" in front.settled()["note"]
    assert names(sessions) == ["tutor"]
    assert sessions.current == "tutor"


@pytest.mark.parametrize(
    ("do", "act"), [("open", {}), ("cell", {}), ("pin", {"value": True})], ids=["open", "cell", "pin"]
)
def test_no_such_turn(front: FrontEnd, sessions: Sessions, do: str, act: dict[str, Any]) -> None:
    """A turn that is not there is answered with a line."""
    known(sessions, "tutor", 1)

    assert "no turn #7" in front.click(do, n=7, **act)
    assert front.state["page"] is None


@pytest.mark.parametrize("do", ["undo", "redo"])
def test_stale_undo(front: FrontEnd, sessions: Sessions, do: str) -> None:
    """Undo and Redo that were clicked before something else was done do nothing, and say so."""
    session = known(sessions, "tutor", 2)
    session.undo()
    session.set(Settings({"model": "big"}))
    before = session.state

    says = "nothing was undone" if do == "undo" else "nothing was redone"
    assert front.click(do, what="turn #2") == f"{says}: something else has been done since you clicked"
    sessions.new("other")
    front.send(do, of="tutor", what="set model" if do == "undo" else None)
    assert says in front.settled()["note"]
    assert session.state is before


@pytest.mark.parametrize(
    ("do", "act"),
    [
        ("ask", {"text": "hi"}),
        ("clear", {}),
        ("delete", {}),
        ("pin", {"n": 1, "value": True}),
        ("redo", {"what": None}),
        ("rename", {"name": "x"}),
        ("retry", {}),
        ("set", {"model": "big"}),
        ("undo", {"what": "turn #1"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_not_under_a_reply(
    front: FrontEnd, sessions: Sessions, client: FakeClient, do: str, act: dict[str, Any]
) -> None:
    """A session that is being asked is not changed under the reply, and not asked once more."""
    known(sessions, "other", 1)
    session = known(sessions, "tutor", 1)
    front.settled()
    before = session.state
    if do == "redo":
        session.undo()
        before, act = session.state, {"what": "turn #1"}
    with sessions.asking(session):
        assert "is being asked just now" in front.click(do, **act)
    assert session.state is before
    assert names(sessions) == ["other", "tutor"]
    assert client.requests == []


def test_note_goes_when_it_is_old(front: FrontEnd, sessions: Sessions) -> None:
    """What the panel said about an act goes away with the next change, and not before."""
    session = known(sessions, "tutor", 1)
    assert "set aside" in front.click("clear")
    with sessions.asking(session):
        assert "set aside" in front.settled()["note"]
    say(session, "new")

    assert front.settled()["note"] == ""


# What is asked.


def test_ask(front: FrontEnd, edge: Kernel, client: FakeClient) -> None:
    """A prompt is asked in the session, and the panel shows the turn; Undo takes it back."""
    assert front.click("ask", text="one two") == "'main' has answered: turn #1."
    [turn] = edge.sessions["main"].turns
    assert (turn.prompt, turn.reply) == ("one two", "one two")
    assert [message.content for message in client.requests[0].messages] == ["one two"]
    assert front.state["page"] == {"prompt": "one two", "turn": 1, "streams": False}
    assert "main · gpt-6-luna · 2 tokens in, 2 out" in front.html
    assert front.state["asked"] == {}
    front.click("undo", what="turn #1")

    assert edge.sessions["main"].turns == []


def test_streams() -> None:
    """A reply is shown while it comes, and its session is marked; in the end there is nothing but the turn."""
    client = Silent(Sending("fake"), Delta("first **words**"))
    _, front, kernel = made(client)
    front.send("ask", of="main", text="hi")
    state = front.until(lambda _: "first" in front.html)
    assert "<strong>words</strong>" in front.html
    assert state["page"] == {"prompt": "hi", "turn": None, "streams": True}
    assert state["asked"] == {"main": "is answering"}
    client.let.set()
    front.settled()

    assert front.state["page"] == {"prompt": "hi", "turn": 1, "streams": False}
    assert front.html.count("first") == 1
    assert front.state["asked"] == {}
    assert kernel.sessions["main"].turns[0].status == "complete"


def test_asked_elsewhere_meanwhile() -> None:
    """While one session streams, another one can be looked at, and asked, and its reply is not mixed up with it."""
    client = Silent(Sending("fake"), Delta("slow"))
    panel, front, kernel = made(client)
    known(kernel.sessions, "other", 1)
    front.send("ask", of="main", text="hi")
    front.until(lambda state: "main" in state["asked"])
    assert front.hear()["page"] is None
    front.send("open", of="other", n=1)
    front.until(lambda state: state["page"])
    assert front.state["page"]["turn"] == 1
    client.let.set()
    quiet(panel)

    assert front.settled()["page"]["turn"] == 1
    assert "slow" not in front.html
    assert kernel.sessions["main"].turns[0].reply == "slow"


def test_failing(front: FrontEnd, client: FakeClient, sessions: Sessions) -> None:
    """A request that fails is a line, and leaves the session as it was."""
    client.answers = [RequestError("no such model")]
    session = known(sessions, "tutor", 1)
    before = session.state

    assert front.click("ask", text="hi") == "no such model"
    assert front.state["page"] is None
    assert session.state is before
    assert front.state["asked"] == {}


def test_failing_does_not_start_a_session(front: FrontEnd, client: FakeClient, sessions: Sessions) -> None:
    """A session whose first request fails is not there."""
    client.answers = [RequestError("no such model")]

    assert front.click("ask", text="hi") == "no such model"
    assert names(sessions) == []


def test_empty_prompt(front: FrontEnd, client: FakeClient) -> None:
    """A prompt of blanks is not asked."""
    assert "the prompt is empty" in front.click("ask", text=" \n")
    assert client.requests == []


def test_retry(front: FrontEnd, client: FakeClient, sessions: Sessions) -> None:
    """Retry asks the newest prompt once more, and the new turn takes its place; Undo takes that back."""
    client.answers = ["bad", "good"]
    front.click("ask", text="hi")
    assert front.click("retry") == "'main' has answered: turn #2."
    assert front.state["line"] == [2]
    assert "in place of #1; Undo brings it back" in front.html
    front.click("undo", what="turn #2")

    assert sessions["main"].turns[0].reply == "bad"


def test_nothing_to_retry(front: FrontEnd, sessions: Sessions) -> None:
    """Retry where nothing was asked says so."""
    known(sessions, "tutor")

    assert "has no turn to retry" in front.click("retry")
    assert front.state["page"] is None


def test_stop_at_a_silent_server() -> None:
    """Stop ends a reply though its server says nothing more, and keeps what has come; Undo drops it."""
    client = Silent(Sending("fake"), Delta("so far"))
    _, front, kernel = made(client)
    front.send("ask", of="main", text="hi")
    front.until(lambda _: "so far" in front.html)
    front.send("stop", of="main")
    front.settled()

    assert not client.let.is_set()
    [turn] = kernel.sessions["main"].turns
    assert (turn.reply, turn.status) == ("so far", "interrupted")
    assert front.state["note"] == "stopped; what had come (6 characters) is kept as turn #1 of 'main' (Undo drops it)"
    assert front.state["asked"] == {}
    assert not front.state["page"]["streams"]
    assert "interrupted" in front.html
    client.let.set()


def test_the_page_of_a_stopped_turn_is_its_turn() -> None:
    """What is shown of a reply that was stopped is a turn like any other, and says when it left the conversation."""
    client = Silent(Sending("fake"), Delta("so far"))
    _, front, _ = made(client)
    front.send("ask", of="main", text="hi")
    front.until(lambda _: "so far" in front.html)
    front.send("stop", of="main")
    state = front.settled()
    client.let.set()

    assert state["page"]["turn"] == 1
    front.click("undo", what="turn #1")
    assert "not in the conversation" in front.html


def test_stop_before_the_first_word() -> None:
    """A reply that is stopped before it has a word leaves nothing."""
    client = Silent(Sending("fake"))
    _, front, kernel = made(client)
    front.send("ask", of="main", text="hi")
    front.until(lambda state: state["asked"] == {"main": "is being asked"})
    front.send("stop", of="main")
    note = front.settled()["note"]
    client.let.set()

    assert note == "stopped before the first word; nothing was stored"
    assert front.state["page"] is None
    assert names(kernel.sessions) == []


def test_stop_a_countdown() -> None:
    """A wait for the next try is told, with its reason, and can be stopped."""
    client = FakeClient(RequestError("busy", retryable=True, retry_after=50), "never asked for")
    _, front, _ = made(client)
    front.send("ask", of="main", text="hi")
    front.until(lambda state: "again in" in state["asked"].get("main", ""))
    assert front.state["asked"]["main"].startswith("waits: busy (try 2 of 4); again in ")
    front.send("stop", of="main")

    assert front.settled()["asked"] == {}
    assert len(client.requests) == 1


def test_stop_what_is_not_asked_from_here(front: FrontEnd, sessions: Sessions) -> None:
    """Stop is for what the panel asks."""
    with sessions.asking(known(sessions, "tutor", 1)):
        assert "'tutor' is not asked from here" in front.click("stop")


def test_a_bug_is_told(front: FrontEnd, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails and should not is told as that, and the session can be asked again."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    client.answers = [ValueError("oops")]
    assert front.click("ask", text="hi") == "that failed, and it is a bug of chatmagic (ValueError: oops)"
    assert front.state["page"] is None

    assert front.click("ask", text="again") == "'main' has answered: turn #1."


def test_two_quick_clicks_ask_once(client: FakeClient) -> None:
    """A second click that comes before the first one has got anywhere is refused."""
    kernel, held = Kernel(client), threading.Event()

    class Slow(Kernel):
        def ask(self, session: Session, prompt: str, **how: Any) -> Turn:
            held.wait(10)
            return kernel.ask(session, prompt, **how)

    panel = Panel(kernel.sessions, Slow(client))
    front = FrontEnd(panel)
    front.look()
    front.send("ask", of="main", text="hi")
    front.send("ask", of="main", text="hi")
    held.set()
    quiet(panel)

    assert len(client.requests) == 1


def test_follows_a_chat_from_python(front: FrontEnd, edge: Kernel) -> None:
    """What Python asks in another session shows in the list, and does not move the current one."""
    known(edge.sessions, "tutor", 1)
    edge.chat("py").ask("hi")
    state = front.settled()

    assert state["sessions"]["py"][0] == 1
    assert state["current"] == "tutor"
    assert state["page"] is None


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([Queued("x")], []),
        ([Busy("summarizing")], ["summarizing"]),
        ([Sending("fake"), Reasoning("a"), Reasoning("b")], ["is being asked", "is thinking"]),
        ([Delta("a"), Delta("b"), Used(USED), Finished("stop")], ["is answering"]),
        ([Waiting("busy", 2), Waiting("busy", 1)], ["waits: busy; again in 2 s", "waits: busy; again in 1 s"]),
        ([Remark("note")], []),
    ],
)
def test_told(view: SpyRenderer, events: list[Event], said: list[str]) -> None:
    """Everything goes to the renderer; what goes on is told in a few words, each time once, and that it is over."""
    heard: list[str] = []
    renderer = Told(view, heard.append)
    renderer.start("main", "m")
    for event in events:
        renderer.show(event)
    renderer.finish("main", Turn("p", "r"), ["notice"])
    renderer.fail(["failed"])

    assert heard == [*said, *[""] * bool(said)]
    assert view.events == events
    assert (view.started, view.notices, view.failures) == ([("main", "m")], ["notice"], [["failed"]])


def test_what_was_told_is_over_with_the_reply(front: FrontEnd, sessions: Sessions) -> None:
    """A session that is asked again is not said to answer before it does."""
    front.click("ask", text="hi")
    with sessions.asking(sessions["main"]):
        assert front.settled()["asked"] == {"main": ""}


def test_who_waits_does_not_hide_who_is_answered(front: FrontEnd, panel: Panel, sessions: Sessions) -> None:
    """A session that is answering is said to, also when somebody else has begun to wait for it meanwhile."""
    session = known(sessions, "tutor")
    answered, waits = panel.told(session, SpyRenderer()), panel.told(session, SpyRenderer())
    with sessions.asking(session):
        answered.show(Delta("a"))
        waits.show(Queued("tutor"))
        answered.show(Delta("b"))
        assert front.settled()["asked"] == {"tutor": "is answering"}


@pytest.mark.parametrize("value", [True, False])
def test_pinned_meanwhile(front: FrontEnd, sessions: Sessions, value: bool) -> None:
    """A click that changes nothing, because a cell has pinned the turn meanwhile, promises no Undo."""
    session = known(sessions, "tutor", 1)
    if value:
        session.pin(1)

    assert "Undo" not in front.click("pin", n=1, value=value)


@pytest.mark.parametrize(
    ("do", "act"),
    [("clear", {}), ("set", {"model": "big"}), ("rename", {"name": "x"}), ("pin", {"n": 1, "value": True})],
)
def test_switched_meanwhile(front: FrontEnd, sessions: Sessions, do: str, act: dict[str, Any]) -> None:
    """For a click that waited for a cell the panel says where Undo takes just that back."""
    session = known(sessions, "tutor", 1)
    known(sessions, "other", 1)
    before, name = session.state, session.name
    front.send(do, of="tutor", **act)
    assert f"Undo in {session.name!r}" in front.settled()["note"]
    front.send("use", of=session.name)
    front.settled()
    front.click("undo", what=front.state["chat"]["undo"])

    assert (session.state, session.name) == (before, name)


@pytest.mark.parametrize("where", ["system", "prompt"])
def test_half_characters(front: FrontEnd, sessions: Sessions, where: str) -> None:
    """Half of a character in a prompt does not keep the panel from being sent."""
    session = known(sessions, "tutor")
    if where == "system":
        session.set(Settings({"system": "half \ud83d"}))
    else:
        say(session, "half \ud83d")
        front.panel._hear(None, {"do": "open", "of": "tutor", "n": 1, "id": 1}, None)
    quiet(front.panel)

    assert json_packer(front.panel.widget.get_state("state")["state"])


# What is sent.


def acts_on(front: FrontEnd) -> dict[str, Callable[[int], object]]:
    """What may happen, each with a number that says what to."""
    sessions = front.panel._sessions

    def named(number: int) -> str:
        return f"s{number % 4}"

    def wait(_: int) -> None:
        front.settled()

    def turn(number: int) -> None:
        say(sessions.find(sessions.current), f"p{number}")

    def clicked(do: str, **act: Callable[[int], object]) -> Callable[[int], object]:
        return lambda number: front.send(do, **{key: make(number) for key, make in act.items()})

    def current(_: int) -> str:
        return sessions.current

    def nth(number: int) -> int:
        return number % 5 + 1

    return {
        "wait": wait,
        "turn": turn,
        "use": clicked("use", of=named),
        "new": clicked("new", name=named),
        "fork": clicked("fork", of=current, name=named),
        "rename": clicked("rename", of=current, name=named),
        "clear": clicked("clear", of=current),
        "delete": clicked("delete", of=named),
        "undo": clicked("undo", of=current, what=lambda _: sessions.undoable),
        "redo": clicked("redo", of=current, what=lambda _: sessions.redoable),
        "set": clicked("set", of=current, model=named),
        "pin": clicked("pin", of=current, n=nth, value=lambda number: number % 2 == 0),
        "open": clicked("open", of=current, n=nth),
        "close": clicked("close", of=current),
        "ask": clicked("ask", of=current, text=named),
    }


ACTS = [
    *("ask", "clear", "close", "delete", "fork", "new", "open", "pin", "redo", "rename", "set"),
    *("turn", "undo", "use", "wait"),
]


@settings(deadline=None, max_examples=40)
@given(acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 19)), max_size=25))
def test_what_is_sent_makes_the_whole(acts: list[tuple[str, int]]) -> None:
    """Whatever is done, in any order: with what was sent, a front end knows what one that asks for all of it gets."""
    panel, front, _ = made()
    does = acts_on(front)
    assert sorted(does) == sorted(ACTS)
    for act, number in acts:
        does[act](number)

    assert front.settled() == whole(panel)


STATES = st.fixed_dictionaries(
    {
        "note": st.sampled_from(["", "a"]),
        "line": st.lists(st.integers(0, 3), max_size=2),
        **{name: st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)) for name in MAPS},
    }
)


@given(before=STATES, after=STATES)
def test_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Changes make one state the other, and hold nothing that is the same in both."""
    patch = changes(before, after)
    state = {name: dict(value) if isinstance(value, dict) else value for name, value in before.items()}
    state.update(patch.get("set", {}))
    for name, entries in patch.get("merge", {}).items():
        assert all(before[name].get(key) != value for key, value in entries.items())
        state[name].update(entries)
        state[name] = {key: value for key, value in state[name].items() if value is not None}

    assert state == after
    assert (patch == {}) == (before == after)
    assert changes({}, after) == {"set": after}


def test_what_is_gone_is_sent_to_a_page_that_comes_back(front: FrontEnd, sessions: Sessions) -> None:
    """A page that comes back hears that there is no context and no opened turn any more."""
    known(sessions, "tutor", 1)
    front.click("open", n=1)
    assert front.state["page"]
    assert front.state["context"]
    front.look(False)
    sessions.new("empty")
    front.look()

    assert front.settled() == whole(front.panel)


def test_nothing_is_sent_where_nobody_looks(panel: Panel, sessions: Sessions) -> None:
    """While no view is on any page nothing is sent; when one is again, everything comes."""
    one, two = FrontEnd(panel, "one"), FrontEnd(panel, "two")
    known(sessions, "tutor", 1)
    assert one.settled()["sessions"] == {}
    for front in (one, two):
        front.look()
    for front in (one, two):
        assert "tutor" in front.settled()["sessions"]
    one.look(False)
    say(sessions["tutor"], "more")
    assert two.settled()["line"] == [1, 2]
    two.look(False)
    quiet(panel)
    SENT.clear()
    one._at = two._at = 0
    say(sessions["tutor"], "most")
    known(sessions, "other", 2)
    quiet(panel)
    assert SENT == []
    one.look()

    assert one.settled() == two.settled() == whole(panel)
    assert one.state["current"] == "other"


def test_who_asks_for_everything_takes_nothing_from_the_others(panel: Panel, sessions: Sessions) -> None:
    """What is about to be sent is sent, also if another front end asks for the whole state just before."""
    one = FrontEnd(panel, "one")
    one.look()
    one.settled()
    known(sessions, "tutor", 1)
    say(sessions["tutor"], "more")  # this one waits to be sent
    FrontEnd(panel, "two")

    assert one.settled()["line"] == [1, 2]


@pytest.mark.usefixtures("shell")
def test_a_page_that_is_slow_to_begin(sessions: Sessions, edge: Kernel) -> None:
    """What was sent while the page still loaded the panel is sent again when its view is there."""
    panel = Panel(sessions, edge)
    page = FrontEnd(panel)
    panel.show()
    known(sessions, "tutor", 1)  # the next cell of Run All
    quiet(panel)
    page._at = len(SENT)  # nobody has listened so far
    page.look()

    assert "tutor" in page.settled()["sessions"]


@pytest.mark.parametrize(("turns", "others"), [(3, 0), (2000, 0), (3, 500)], ids=["short", "long", "many sessions"])
def test_little_is_sent(front: FrontEnd, sessions: Sessions, turns: int, others: int) -> None:
    """A turn sends a few short messages, however long the history is and however many sessions there are."""
    for number in range(others):
        sessions.find(f"s{number}").set(Settings({"model": "big"}))
    session = known(sessions, "tutor", turns)
    session.set(Settings({"context": "last:3"}))
    front.settled()
    SENT.clear()
    front._at = 0
    with sessions.asking(session):
        say(session, "p", model="some-model")
        sessions.keep(session)
        sessions.use(session.name)
    front.settled()

    assert 1 <= len(SENT) <= 5
    assert len(json.dumps(SENT)) < 2500
    assert front.state == whole(front.panel)


@pytest.mark.usefixtures("front")
def test_no_change_sends_nothing(panel: Panel, sessions: Sessions) -> None:
    """What changes nothing is not sent."""
    known(sessions, "tutor", 2)
    quiet(panel)
    SENT.clear()
    sessions.use("tutor")
    quiet(panel)

    assert SENT == []


def test_many_pieces_are_few_messages(client: FakeClient, front: FrontEnd) -> None:
    """However many pieces a reply comes in, no more than ten messages a second are sent."""
    client.answers = [[Sending("fake"), *map(Delta, ["word "] * 20_000), Finished("stop")]]
    front.settled()
    SENT.clear()
    front._at = 0
    started = time.monotonic()
    front.click("ask", text="hi")

    assert len(SENT) <= 5 + (time.monotonic() - started) / 0.1
    assert front.html.count("word") == 20_000


def test_threads(front: FrontEnd, sessions: Sessions) -> None:
    """Turns from several threads, while somebody clicks, leave the panel right."""

    def work(name: str) -> None:
        session = sessions.find(name)
        sessions.keep(session)
        for number in range(30):
            with sessions.asking(session):
                say(session, str(number))

    threads = [threading.Thread(target=work, args=(f"s{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for name in names(sessions):
            front.send("use", of=name)
    for thread in threads:
        thread.join()
    sessions.use("s2")

    assert front.settled() == whole(front.panel)
    assert {name: row[0] for name, row in front.state["sessions"].items()} == {f"s{n}": 30 for n in range(4)}
    assert front.state["current"] == "s2"
    assert front.state["totals"] == [["these 30 turns", "3,000", "25%", "300", "unknown"]]
    assert front.state["asked"] == {}


# What strangers say.


class Tags(HTMLParser):
    """The names of all tags, and of all their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.targets: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.targets += [value or "" for name, value in attrs if name in ("href", "src")]


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>[x](javascript:alert(1)) **b**"


@pytest.mark.parametrize("how", ["streams", "is asked", "is opened"])
def test_hostile_reply(how: str) -> None:
    """The HTML of a reply has no script and no handler, while it comes and when it is there."""
    client: FakeClient = Silent(Sending("fake"), Delta(HOSTILE)) if how == "streams" else FakeClient(HOSTILE)
    _, front, kernel = made(client)
    if how == "is opened":
        say(known(kernel.sessions, "main"), HOSTILE, reply=HOSTILE, model=HOSTILE)
        front.click("open", n=1)
    else:
        front.send("ask", of="main", text=HOSTILE)
        front.until(lambda _: "<strong>b</strong>" in front.html)
    found = Tags(front.html)
    if isinstance(client, Silent):
        client.let.set()

    assert "strong" in found.tags
    assert not found.tags & {"script", "img"}
    assert not [name for name in found.attributes if name.startswith("on")]
    assert not [target for target in found.targets if "script" in target]


@given(text=st.text(min_size=1))
def test_hostile_text(text: str) -> None:
    """Whatever a model and a prompt are called, a page has the same tags, and the list one plain line each."""
    kernel = Kernel(FakeClient())
    panel = Panel(kernel.sessions, kernel)
    pages: list[dict[str, Any]] = []
    for each in ("plain", f"<img src=x onerror=alert(1)>\n\u202e{text}"):
        session = known(kernel.sessions, f"s{len(pages)}")
        session.set(Settings({"model": each}))
        say(session, each, reply="same", model=each)
        panel._hear(None, {"do": "open", "of": session.name, "n": 1}, None)
        pages.append(whole(panel))
    tame, wild = pages

    assert Tags(wild["parts"]["0"]).tags == Tags(tame["parts"]["0"]).tags
    assert Tags(wild["parts"]["0"]).attributes == Tags(tame["parts"]["0"]).attributes
    lines = [wild["sessions"]["s1"][1], wild["chat"]["model"], wild["bars"]["1"][4], *wild["turns"]["1"][:2]]
    assert all(len(line.splitlines()) == 1 and "\u202e" not in line for line in lines)
    assert lines[0].startswith("<img src=x onerror=alert(1)>")


# Where it is shown.


def test_shown_twice_is_one_model(panel: Panel, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Showing the panel again sends nothing but a view of the same widget, with a short text beside it."""
    shown: list[Any] = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, **_: shown.append(data))
    panel.show()
    quiet(panel)
    SENT.clear()
    panel.show()
    quiet(panel)

    assert SENT == []
    assert shown[0] == shown[1]
    assert shown[0]["text/plain"] == "chatmagic panel (run this cell to see it)"
    assert shown[0]["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.widget.model_id
    assert whole(panel)["id"] == panel.widget.model_id


def test_rest_and_follow(front: FrontEnd, panel: Panel, sessions: Sessions) -> None:
    """A panel at rest says so, follows nothing and does nothing; then it goes on where the sessions are."""
    known(sessions, "tutor", 1)
    panel.rest()
    assert front.settled()["loaded"] is False
    assert sessions.watchers == []
    assert front.send("clear", of="tutor") == {"done": "page-2"}
    assert len(sessions["tutor"].turns) == 1
    say(sessions["tutor"], "more")
    assert front.settled()["line"] == [1]
    panel.follow()
    panel.follow()

    assert front.settled()["loaded"] is True
    assert front.state["line"] == [1, 2]
    assert len(sessions.watchers) == 1


def test_panel_in_a_kernel() -> None:
    """%chat and %chat panel show the same panel, which hears of a cell that asks; unload says that it is one."""
    with RealKernel() as kernel:
        kernel.run("%load_ext chatmagic")
        [first] = kernel.run("%chat panel").displays
        [again] = kernel.run("%chat").displays
        assert first["data"] == again["data"]
        asked = kernel.run("%%chat tutor -m demo\nhi\n")
        assert asked.status == "ok"
        state = 'chatmagic.magics.kernel.panel.widget.get_state("state")["state"]'
        kernel.run("import chatmagic.magics, json")
        assert json.loads(kernel.evaluate(f'json.dumps({state}["sessions"])'))["tutor"][0] == 1
        kernel.run("%unload_ext chatmagic")
        assert kernel.evaluate(f'{state}["loaded"]') == "False"
        kernel.run("%load_ext chatmagic")
        assert kernel.evaluate(f'{state}["loaded"]') == "True"


def test_strict_nbval(tmp_path: Path) -> None:
    """A notebook with a panel, saved by nbclient, passes strict nbval."""
    cells = ["%load_ext chatmagic", "%chat panel", "%%chat tutor -m demo\nhi", "%chat", "%chat use tutor"]
    write_notebook(tmp_path / "panel.ipynb", cells)
    execute = [sys.executable, "-m", "jupyter", "execute", "--inplace", "panel.ipynb"]
    subprocess.run(execute, capture_output=True, check=True, cwd=tmp_path)
    saved = (tmp_path / "panel.ipynb").read_text()
    assert "chatmagic panel" in saved
    assert "widget-view" in saved

    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "panel.ipynb"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert f"{len(cells)} passed" in ran.stdout, ran.stdout
