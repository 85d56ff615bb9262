"""A reply that another thread stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.messages import Message, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.engine import run_turn
from chatmagic.errors import InterruptedTurnError, RequestError
from chatmagic.events import Delta, Event, Finished, Reasoning, Remark, Request, Sending, Used, Waiting
from chatmagic.listening import Retry
from chatmagic.stopping import Stoppable, pause_until
from chatmagic.testing import FakeClient, SpyRenderer

REQUEST = Request("some-model", [Message("user", "hi")])
TEXT = st.text(max_size=5)
EVENTS = st.lists(
    st.one_of(
        TEXT.map(Delta),
        TEXT.map(Reasoning),
        TEXT.map(Remark),
        TEXT.map(Sending),
        TEXT.map(Finished),
        st.builds(Used, st.builds(Usage, st.none() | st.integers(0, 9))),
        st.builds(Waiting, TEXT, st.integers(0, 9)),
    )
)


class Silent(FakeClient):
    """Gives *events*, and says nothing more until it is let; ``closed`` tells that its stream was closed."""

    def __init__(self, *events: Event, then: Sequence[Event] = ()) -> None:
        super().__init__()
        self._before, self._then, self.count = events, then, len(events)
        self.is_silent, self.let, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.given = 0

    def stream(self, request: Request) -> Iterator[Event]:
        self.requests.append(request)
        try:
            yield from self._before
            self.is_silent.set()
            assert self.let.wait(30)
            for event in self._then:
                self.given += 1
                yield event
        finally:
            self.closed.set()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def stopped_after(client: Silent, stop: threading.Event) -> list[Event]:
    """Listen until the client is silent, stop it then, and return what came; the stop must end it."""
    heard: list[tuple[list[Event], BaseException | None]] = []
    thread = in_thread(lambda: heard.append(listened(client, stop)))
    assert client.is_silent.wait(10)
    stop.set()
    thread.join(10)
    [(came, ended)] = heard
    assert isinstance(ended, KeyboardInterrupt)
    return came


def listened(client: FakeClient, stop: threading.Event) -> tuple[list[Event], BaseException | None]:
    """Return what came, and what was raised after it."""
    came: list[Event] = []
    try:
        for event in Stoppable(client, stop).stream(REQUEST):
            came.append(event)
    except BaseException as exc:
        return came, exc
    return came, None


@given(events=EVENTS, fails=st.sampled_from([None, RequestError("busy"), ValueError("bug"), KeyboardInterrupt()]))
def test_passes_everything_on(events: list[Event], fails: BaseException | None) -> None:
    """Whatever a client yields comes through unchanged and in order, and so does what it raises after that."""
    client = FakeClient([*events, *([fails] if fails else [])])
    came, raised = listened(client, threading.Event())

    assert came == events
    assert raised is fails
    assert client.requests == [REQUEST]


def test_asks_of_the_client_what_else_there_is() -> None:
    """Facts and embeddings are the client's own."""
    client = FakeClient(window=123)
    stoppable = Stoppable(client, threading.Event())

    assert stoppable.facts("m", {}).window == 123
    assert stoppable.embed("m", ["a b"]) == client.embed("m", ["a b"])


def test_stops_at_a_silent_server() -> None:
    """A stop ends a reply whose server says nothing, and nobody waits for the server."""
    client = Silent(Sending("fake"))
    stopped_after(client, threading.Event())

    assert not client.closed.is_set()
    client.let.set()


def test_the_stream_is_closed_at_its_next_event() -> None:
    """A stream that was left is closed as soon as its server says something, and read no further."""
    client = Silent(Sending("fake"), then=[Delta("late"), Delta("later"), Delta("latest")])
    stopped_after(client, threading.Event())
    client.let.set()

    assert client.closed.wait(10)
    assert client.given == 1


def test_who_stops_listening_leaves_the_stream() -> None:
    """When nobody wants the rest, the stream is closed, too."""
    client = Silent(Sending("fake"), then=[Delta("late"), Delta("later")])
    events = Stoppable(client, threading.Event()).stream(REQUEST)
    next(events)
    events.close()  # type: ignore[attr-defined]  # it is a generator
    client.let.set()

    assert client.closed.wait(10)
    assert client.given <= 1


def test_stopped_before_it_began() -> None:
    """What is stopped already yields nothing."""
    stop = threading.Event()
    stop.set()
    events = Stoppable(FakeClient("never seen"), stop).stream(REQUEST)

    with pytest.raises(KeyboardInterrupt):
        next(events)


def test_a_client_that_fails_at_once() -> None:
    """A client whose stream cannot even begin fails as it does without a stop."""

    class Broken(FakeClient):
        def stream(self, request: Request) -> Iterator[Event]:
            raise RequestError(f"no {request.model}")

    stop, heard = threading.Event(), list[BaseException | None]()
    hook, threading.excepthook = threading.excepthook, lambda _: None
    try:
        thread = in_thread(lambda: heard.append(listened(Broken(), stop)[1]))
        thread.join(1)
        stop.set()  # or it would wait for ever
        thread.join(10)
    finally:
        threading.excepthook = hook
    assert [type(each) for each in heard] == [RequestError]


def test_what_was_read_is_kept() -> None:
    """A stop takes nothing away that had come before it."""
    client, stop = Silent(Sending("fake"), Delta("so "), Delta("far")), threading.Event()
    events = Stoppable(client, stop).stream(REQUEST)
    came = [next(events)]
    assert client.is_silent.wait(10)
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        came.extend(iter(lambda: next(events), None))
    client.let.set()

    assert came == [Sending("fake"), Delta("so "), Delta("far")]


def test_pause() -> None:
    """A pause lasts until it is over, or until somebody stops it: then it is an interrupt, at once."""
    stop = threading.Event()
    pause_until(stop)(0)
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        pause_until(stop)(1e6)


@pytest.fixture
def session() -> Session:
    return Session("tutor")


def turn_stopped_at(client: Silent, session: Session, view: SpyRenderer) -> list[BaseException]:
    """Ask, stop when the client is silent, and return what that raised."""
    stop, raised = threading.Event(), list[BaseException]()
    retry = Retry(sleep=pause_until(stop))

    def ask() -> None:
        try:
            run_turn(
                session,
                "hi",
                client=Stoppable(client, stop),
                renderer=view,
                retry=retry,
                defaults=Settings({"model": "m"}),
            )
        except BaseException as exc:
            raised.append(exc)

    thread = in_thread(ask)
    assert client.is_silent.wait(10)
    while len(view.events) < client.count:
        time.sleep(0.005)
    stop.set()
    thread.join(10)
    client.let.set()
    return raised


def test_text_that_came_is_kept(session: Session, view: SpyRenderer) -> None:
    """What had come of a reply when it was stopped is a turn that says so."""
    client = Silent(Sending("fake"), Delta("so "), Delta("far"))
    [raised] = turn_stopped_at(client, session, view)

    assert isinstance(raised, InterruptedTurnError)
    assert [(turn.reply, turn.status) for turn in session.turns] == [("so far", "interrupted")]
    assert view.turns == session.turns
    assert len(client.requests) == 1


@pytest.mark.parametrize(
    "before", [(), (Sending("fake"),), (Sending("fake"), Reasoning("hm")), (Sending("fake"), Delta(" \n"))]
)
def test_nothing_is_kept_before_the_first_word(session: Session, view: SpyRenderer, before: tuple[Event, ...]) -> None:
    """A reply that was stopped before it had a word leaves the session as it was, and is not asked for again."""
    client = Silent(*before)
    [raised] = turn_stopped_at(client, session, view)

    assert isinstance(raised, InterruptedTurnError)
    assert "nothing was stored" in str(raised)
    assert session.turns == []
    assert session.done == []
    assert len(client.requests) == 1
    assert len(view.failures) == 1


def test_a_countdown_is_stopped(session: Session, view: SpyRenderer) -> None:
    """A stop ends the wait for the next try, and there is none."""
    client = FakeClient(RequestError("busy", retryable=True, retry_after=50), "never asked for")
    stop = threading.Event()
    pause, waited = pause_until(stop), list[float]()

    def stopped(seconds: float) -> None:
        waited.append(seconds)
        stop.set()
        pause(seconds)

    with pytest.raises(InterruptedTurnError):
        run_turn(
            session,
            "hi",
            client=Stoppable(client, stop),
            renderer=view,
            retry=Retry(sleep=stopped),
            defaults=Settings({"model": "m"}),
        )
    assert len(waited) == len(client.requests) == 1
    assert session.turns == []
