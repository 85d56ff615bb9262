"""The panel without a browser: its widgets are driven and read as a front end would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm, CommManager
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from chatmagic.conversation.messages import Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.display.panel import Panel
from chatmagic.display.usage import Sums, status
from tests.browser import write_notebook
from tests.kernel import RealKernel

DEFAULTS = Settings({"model": "some-model"})
USED = Usage(100, 10, 25)


class SpyComm(BaseComm):
    """A connection to no front end that keeps what was sent."""

    sent: list[dict[str, Any]]

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        assert not metadata or msg_type == "comm_open"
        assert not buffers
        self.sent.append({"type": msg_type, "data": data or {}})


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was sent to front ends."""
    messages: list[dict[str, Any]] = []
    spy = type("Spy", (SpyComm,), {"sent": messages})
    monkeypatch.setattr(comm, "create_comm", spy)
    manager = CommManager()
    monkeypatch.setattr(comm, "get_comm_manager", lambda: manager)
    return messages


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def panel(sessions: Sessions) -> Iterator[Panel]:
    panel = Panel(sessions, lambda: DEFAULTS)
    yield panel
    panel.close()


def say(session: Session, prompt: str, usage: Usage = USED, **more: Any) -> Turn:
    return session.add(Turn(prompt, prompt.upper(), parent=session.last, usage=usage, **more))


def known(sessions: Sessions, name: str, turns: int = 0) -> Session:
    """Make a session with so many turns the current one."""
    session = sessions.find(name)
    for number in range(turns):
        say(session, f"p{number}")
    sessions.keep(session)
    sessions.use(name)
    return session


def every(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from every(child)


def named(panel: Panel, name: str) -> Any:
    """The widget with this description, or the text field."""
    return next(w for w in every(panel.widget) if name in (getattr(w, "description", None), type(w).__name__))


def click(panel: Panel, name: str) -> None:
    assert not named(panel, name).disabled
    named(panel, name).click()


def enabled(panel: Panel) -> set[str]:
    return {name for name in ("Clear", "Undo", "Redo") if not named(panel, name).disabled}


def html(panel: Panel) -> str:
    return str(panel.widget.children[-1].value)


def text(panel: Panel) -> str:
    """What a person reads below the buttons."""
    return " ".join(re.sub("<[^>]*>", " ", html(panel)).replace("&#x27;", "'").replace("&nbsp;", " ").split())


def start(panel: Panel, name: str) -> None:
    """Type a name and click New."""
    named(panel, "Text").value = name
    click(panel, "New")


def test_empty_kernel(panel: Panel) -> None:
    """Where nothing was asked yet the panel says how to begin, and offers nothing that cannot be done."""
    assert "%%chat NAME" in text(panel)
    assert enabled(panel) == set()
    assert named(panel, "Session").label == "main · not started"


def test_follows_turns(panel: Panel, sessions: Sessions) -> None:
    """A turn shows at once: in the switcher, as the last turn, and in the sums."""
    session = known(sessions, "tutor", 1)
    say(session, "more", Usage(300, 20, 75))

    assert named(panel, "Session").label == "tutor · 2 turns"
    assert text(panel).startswith("Model some-model")
    assert "last turn 300 25% 20" in text(panel)
    assert "all 2 turns 400 25% 30" in text(panel)


@pytest.mark.parametrize(
    ("usages", "last", "rest"),
    [
        ([Usage()], "last turn unknown unknown unknown", "all 1 turn unknown unknown unknown"),
        ([Usage(1200, 0)], "last turn 1,200 unknown 0", "all 1 turn 1,200 unknown 0"),
        ([Usage(1200, 30, 0), Usage()], "last turn unknown unknown unknown", "all 2 turns ≥ 1,200 unknown ≥ 30"),
        ([Usage(), Usage(10, 2, 10)], "last turn 10 100% 2", "all 2 turns ≥ 10 unknown ≥ 2"),
        ([Usage(10, 2, 0), Usage(30, 2, 20)], "last turn 30 67% 2", "all 2 turns 40 50% 4"),
    ],
    ids=["nothing known", "no cached count, zero is zero", "last unknown", "first unknown", "all known"],
)
def test_unknown_counts(panel: Panel, sessions: Sessions, usages: list[Usage], last: str, rest: str) -> None:
    """What the server did not say is unknown, never 0; a sum with unknown parts says what it is at least."""
    session = known(sessions, "tutor")
    for usage in usages:
        say(session, "p", usage)

    assert f"{last} {rest}" in text(panel)


def test_switch(panel: Panel, sessions: Sessions) -> None:
    """Choosing a session makes it the current one at once."""
    known(sessions, "one", 1)
    known(sessions, "two", 2)
    named(panel, "Session").value = "one"

    assert sessions.current == "one"
    assert "all 1 turn" in text(panel)
    assert "The current session is 'one'." in text(panel)


def test_new(panel: Panel, sessions: Sessions) -> None:
    """New starts a session, makes it current and empties the field."""
    start(panel, " tutor ")

    assert sessions.current == "tutor"
    assert named(panel, "Session").label == "tutor · 0 turns"
    assert named(panel, "Text").value == ""
    assert "'tutor', new and empty" in text(panel)


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "Type a name"), ("a b", "'a b' cannot name a session"), ("1", "'1' cannot name"), ("tutor", "there is a")],
)
def test_bad_name(panel: Panel, sessions: Sessions, name: str, says: str) -> None:
    """A name that cannot be one is answered with a line; nothing changes, and the name stays to be mended."""
    known(sessions, "tutor")
    start(panel, name)

    assert says in text(panel)
    assert [session.name for session in sessions] == ["tutor"]
    assert named(panel, "Text").value == name


def test_enter_starts_and_leaving_does_not(panel: Panel, sessions: Sessions) -> None:
    """Enter in the field is as good as New; a text that is only left there does nothing."""
    named(panel, "Text").value = "left"
    assert not len(sessions)
    named(panel, "Text")._handle_custom_msg({"event": "submit"}, [])
    named(panel, "Text").value = "entered"

    assert [session.name for session in sessions] == ["entered"]


def test_clear_undo_redo(panel: Panel, sessions: Sessions) -> None:
    """Clear sets the turns aside and says so; Undo brings them back; Redo repeats it. Each is on when it can act."""
    session = known(sessions, "tutor", 2)
    assert enabled(panel) == {"Clear", "Undo"}

    click(panel, "Clear")
    assert not session.turns
    assert "'tutor' is empty now: 2 turns set aside. Undo" in text(panel)
    assert enabled(panel) == {"Undo"}

    click(panel, "Undo")
    assert len(session.turns) == 2
    assert "Undone: clear. Redo repeats it." in text(panel)
    assert enabled(panel) == {"Clear", "Undo", "Redo"}

    click(panel, "Redo")
    assert not session.turns


def test_note_goes_when_it_is_old(panel: Panel, sessions: Sessions) -> None:
    """What the panel said about an act goes away with the next change."""
    session = known(sessions, "tutor", 1)
    click(panel, "Clear")
    with sessions.asking(session):
        assert "set aside" in text(panel)
    say(session, "new")

    assert "set aside" not in text(panel)


def test_busy(panel: Panel, sessions: Sessions) -> None:
    """A session that is being asked has a sign, and is not cleared under the reply."""
    session = known(sessions, "tutor", 1)
    with sessions.asking(session):
        assert "● tutor is being asked" in text(panel)
        assert enabled(panel) == set()
        named(panel, "Clear").click()  # from a page that has not heard of it yet
        assert "Wait for the reply" in text(panel)
    assert len(session.turns) == 1
    assert "Clear" in enabled(panel)
    assert "●" not in text(panel)


def test_deleted_meanwhile(panel: Panel, sessions: Sessions) -> None:
    """A choice that comes too late is an error in the panel, which shows the session that is current still."""
    known(sessions, "one", 1)
    known(sessions, "two", 1)
    follow = sessions.watchers.pop()
    sessions.delete("one")
    sessions.watchers.append(follow)
    named(panel, "Session").value = "one"

    assert "session 'one' was deleted" in text(panel)
    assert named(panel, "Session").options == (("two · 1 turn", "two"),)
    assert sessions.current == "two"


@given(model=st.text(min_size=1), note=st.text(), name=st.text(min_size=1))
def test_hostile_text(model: str, note: str, name: str) -> None:
    """Whatever a model is called and an error says, the tags are ours."""
    made = status(model, [name], Sums().upto(Turn("p", "r")), "hint", note)

    plain = status("m", ["n"], Sums().upto(Turn("p", "r")), "hint", "note" if note else "")
    assert re.findall("<[^>]*>", made) == re.findall("<[^>]*>", plain)
    assert '"' not in made


def test_hostile_model(panel: Panel, sessions: Sessions) -> None:
    """A model's name is text, and so it stays when a session is set to it."""
    known(sessions, "tutor", 1).set(Settings({"model": "<img src=x onerror=alert(1)>\n\u202eevil"}))

    assert "&lt;img src=x onerror=alert(1)&gt; evil" in html(panel)


@pytest.mark.usefixtures("panel")
def test_little_is_sent(sessions: Sessions, sent: list[dict[str, Any]]) -> None:
    """A turn sends a few short messages, as many for the thousandth as for the third; no change sends nothing."""
    session = known(sessions, "tutor", 2)

    def turn() -> tuple[int, int]:
        sent.clear()
        with sessions.asking(session):
            say(session, "p")
            sessions.keep(session)
            sessions.use(session.name)
        return len(sent), len(json.dumps(sent))

    early = turn()
    for _ in range(1000):
        say(session, "p")
    late = turn()
    assert early[0] == late[0] <= 8
    assert late[1] <= early[1] + 40 <= 2500

    sent.clear()
    sessions.use(session.name)
    assert sent == []


def test_long_history_is_cheap() -> None:
    """One turn more is one sum more."""
    added: list[Turn] = []

    class Counting(Usage):
        __slots__ = ()

        def __add__(self, other: Usage) -> Usage:
            raise AssertionError("a sum was made again")

    sums, turn = Sums(), None
    for _ in range(5000):
        turn = Turn("p", "r", parent=turn, usage=USED)
        added.append(turn)
    assert sums.upto(turn).usage.input_tokens == 500_000
    for known_before in added:
        object.__setattr__(known_before, "usage", Counting())
    assert sums.upto(Turn("p", "r", parent=turn, usage=USED)).turns == 5001
    assert sums.upto(added[17]).turns == 18


def test_threads(panel: Panel, sessions: Sessions) -> None:
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
        for name in [session.name for session in sessions]:
            named(panel, "Session").value = name
    for thread in threads:
        thread.join()
    sessions.use("s2")

    assert {label for label, _ in named(panel, "Session").options} == {f"s{n} · 30 turns" for n in range(4)}
    assert named(panel, "Session").value == "s2"
    assert "all 30 turns 3,000 25% 300" in text(panel)
    assert "asked" not in text(panel)


def test_shown_twice_is_one_model(
    panel: Panel, sent: list[dict[str, Any]], shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Showing the panel again sends nothing but a view of the same widget, with a short text beside it."""
    shown: list[Any] = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, **_: shown.append(data))
    sent.clear()
    panel.show()
    panel.show()

    assert sent == []
    assert shown[0] == shown[1]
    assert shown[0]["text/plain"] == "chatmagic panel (run this cell to see it)"
    assert shown[0]["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.widget.model_id


@pytest.mark.usefixtures("shell")
def test_close(sessions: Sessions, sent: list[dict[str, Any]]) -> None:
    """A closed panel leaves nothing behind and follows no more; shown again it is a new one."""
    panel = Panel(sessions, lambda: DEFAULTS)
    panel.close()
    opened = [message for message in sent if message["type"] == "comm_open"]
    closed = [message for message in sent if message["type"] == "comm_close"]
    assert len(opened) == len(closed) > 10
    assert sessions.watchers == []

    panel.show()
    known(sessions, "tutor", 1)
    assert named(panel, "Session").label == "tutor · 1 turn"
    panel.close()


def test_panel_in_a_kernel() -> None:
    """%chat and %chat panel show the same panel, and a chat cell sends it a few messages; unload takes it away."""
    with RealKernel() as kernel:
        kernel.run("%load_ext chatmagic")
        [first] = kernel.run("%chat panel").displays
        [again] = kernel.run("%chat").displays
        assert first["data"] == again["data"]
        asked = kernel.run("%%chat tutor -m demo\nhi")
        assert asked.status == "ok"
        assert "tutor · 1 turn" in json.dumps(asked.of("comm_msg"), ensure_ascii=False)
        assert kernel.run("%unload_ext chatmagic").of("comm_close")


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
