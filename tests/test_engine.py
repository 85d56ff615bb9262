"""One turn, with doubles at both ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chatmagic.conversation.messages import Cell, Message, Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.engine import Retry, run_turn
from chatmagic.errors import (
    ChatMagicWarning,
    CutReplyError,
    EndpointError,
    InterruptedTurnError,
    RequestError,
    SettingError,
)
from chatmagic.events import Delta, Finished, Reasoning, Remark, Sending, Used, Waiting
from chatmagic.testing import FakeClient, SpyRenderer

Ask = Callable[..., Turn]

BUSY = RequestError("busy", retryable=True)


def test_history_is_sent(ask: Ask, client: FakeClient) -> None:
    """The second question carries the first question and its answer."""
    ask("a")
    ask("b")

    assert [(m.role, m.content) for m in client.requests[1].messages] == [
        ("user", "a"),
        ("assistant", "a"),
        ("user", "b"),
    ]


def test_system_prompt_comes_first(ask: Ask, client: FakeClient) -> None:
    """There is one system message, it is the first one, and it holds for the turns after it."""
    ask("a", options=Settings({"system": "be brief"}))
    ask("b")

    assert client.requests[1].messages[0] == Message("system", "be brief")
    assert [m.role for m in client.requests[1].messages].count("system") == 1


def test_options_stick_to_the_line(ask: Ask, client: FakeClient) -> None:
    """What one turn asks for holds for the next one, too."""
    ask("a", options=Settings({"model": "big", "temperature": 0}))
    ask("b")

    assert client.requests[1].model == "big"
    assert client.requests[1].parameters == {"temperature": 0}


def test_unset_key_is_gone(ask: Ask, client: FakeClient) -> None:
    """A key that a turn unsets is not sent, although the session itself has it."""
    session = Session("s", Settings({"temperature": 0}))
    ask("a", session, options=Settings(unset=frozenset({"temperature"})))

    assert client.requests[0].parameters == {}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({}, "default"),
        ({"own"}, "own"),
        ({"own", "line"}, "line"),
        ({"own", "line", "cell"}, "cell"),
        ({"own", "cell"}, "cell"),
    ],
    ids=["default", "session", "line", "cell", "cell over session"],
)
def test_order_of_models(client: FakeClient, view: SpyRenderer, layers: set[str], expected: str) -> None:
    """The model comes from the cell, the line, the session, the defaults, in this order."""
    session = Session("s", Settings({"model": "own"}) if "own" in layers else NOTHING)
    how: dict[str, Any] = {"client": client, "renderer": view, "defaults": Settings({"model": "default"})}
    if "line" in layers:
        run_turn(session, "before", options=Settings({"model": "line"}), **how)
    run_turn(session, "a", options=Settings({"model": "cell"}) if "cell" in layers else NOTHING, **how)

    assert client.requests[-1].model == expected


def test_no_model_at_all(client: FakeClient, view: SpyRenderer) -> None:
    """Without any model nothing is sent."""
    with pytest.raises(SettingError, match="no model"):
        run_turn(Session("s"), "a", client=client, renderer=view)

    assert client.requests == []


def test_the_turn_holds_all_that_belongs_to_it(ask: Ask) -> None:
    """A turn knows its parent, cell, model, endpoint, settings, usage and ending."""
    first = ask("a")
    second = ask("b c", options=Settings({"seed": 1}), cell=Cell("cell", "execution"))

    assert second.parent is first
    assert second.cells == (Cell("cell", "execution"),)
    assert (second.number, second.model, second.endpoint, second.status, second.finish) == (
        2,
        "fake",
        "fake",
        "complete",
        "stop",
    )
    assert second.settings == Settings({"seed": 1})
    assert second.usage == Usage(input_tokens=4, output_tokens=2)


def test_failed_request_changes_nothing(view: SpyRenderer) -> None:
    """An error before the first word leaves history, settings and undo log as they were."""
    session = Session("s")
    client = FakeClient("fine", RequestError("no"))
    how: dict[str, Any] = {"client": client, "renderer": view, "defaults": Settings({"model": "m"})}
    run_turn(session, "a", **how)
    before = session.state

    with pytest.raises(RequestError, match="no"):
        run_turn(session, "b", options=Settings({"model": "other"}), **how)

    assert session.state is before
    assert view.failures == [[]]
    session.undo()
    assert session.turns == []


def test_once_is_sent_and_shown_but_not_stored(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """With once the history goes out, and the turn sticks nothing."""
    ask("a")
    turn = ask("b", once=True, options=Settings({"model": "other"}))
    ask("c")

    assert turn.number is None
    assert view.turns[1] is turn
    assert [m.content for m in client.requests[1].messages] == ["a", "a", "b"]
    assert [m.content for m in client.requests[2].messages] == ["a", "a", "c"]
    assert client.requests[2].model == "fake"


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt(), RequestError("the connection broke", retryable=True)], ids=["stop", "cut"]
)
def test_text_that_had_come_is_kept(ask: Ask, client: FakeClient, view: SpyRenderer, kind: BaseException) -> None:
    """A reply that the user stops or the network cuts is stored as far as it came, marked, and sent as it stands."""
    client.answers.append([Sending("fake"), Delta("half a "), Delta("reply"), kind])
    expected = InterruptedTurnError if isinstance(kind, KeyboardInterrupt) else CutReplyError
    with pytest.raises(expected, match=r"12 characters.*turn #1 of 'main'"):
        ask("a")
    ask("go on")

    assert view.turns[0].status == ("interrupted" if expected is InterruptedTurnError else "cut")
    assert [m.content for m in client.requests[-1].messages] == ["a", "half a reply", "go on"]


def test_trouble_after_the_end_is_no_cut(ask: Ask, client: FakeClient) -> None:
    """A connection that breaks when the reply has ended already does no harm to it."""
    client.answers.append([Sending("fake"), Delta("whole"), Finished("stop"), RequestError("the connection broke")])

    assert ask("a").status == "complete"


@pytest.mark.parametrize(
    "trouble", [ZeroDivisionError("bug"), EndpointError("no header")], ids=["a bug", "another error"]
)
def test_text_is_kept_whatever_happens(ask: Ask, client: FakeClient, view: SpyRenderer, trouble: Exception) -> None:
    """Not even a bug costs the text that had come: it is stored as cut, and the error comes through."""
    client.answers.append([Sending("fake"), Delta("paid text"), trouble])
    with pytest.raises(CutReplyError if isinstance(trouble, EndpointError) else type(trouble)):
        ask("a")
    ask("b")

    assert view.turns[0].status == "cut"
    assert [m.content for m in client.requests[1].messages] == ["a", "paid text", "b"]


def test_nothing_of_a_failed_try_is_in_the_next_one(ask: Ask, client: FakeClient) -> None:
    """What came of a try that failed before its first word (thoughts, usage, an ending) is not the next one's."""
    failed: list[Any] = [Sending("fake"), Reasoning("OLD"), Delta("\n"), Used(Usage(9, 9)), Finished("length"), BUSY]
    client.answers += [failed, [Sending("fake"), Reasoning("NEW"), Delta("text")]]
    with pytest.raises(CutReplyError):
        ask("a", retry=retries([]))
    session = Session("other")
    client.answers += [failed, [Sending("fake"), Reasoning("NEW"), Delta("text"), Finished("stop")]]
    turn = ask("a", session, retry=retries([]))

    assert (turn.reasoning, turn.reply, turn.usage, turn.finish) == ("NEW", "text", Usage(), "stop")


class StopsAt(SpyRenderer):
    """A renderer in which somebody presses Stop, at one of its steps."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self._step = step

    def press(self, step: str) -> None:
        if step == self._step:
            signal.raise_signal(signal.SIGINT)

    def finish(self, session: str, turn: Turn, notices: Sequence[str]) -> None:
        self.press("finish")
        super().finish(session, turn, notices)


@pytest.mark.parametrize("step", ["finish", "hook"])
def test_a_stop_on_the_last_steps_loses_nothing(client: FakeClient, step: str) -> None:
    """A stop that comes when the reply has come is obeyed when the turn is stored, shown and told of."""
    session, view, told = Session("s"), StopsAt(step), list[Turn]()

    def hook(_: Session, turn: Turn) -> None:
        view.press("hook")
        told.append(turn)

    with pytest.raises(KeyboardInterrupt):
        run_turn(session, "a", client=client, renderer=view, defaults=Settings({"model": "m"}), on_turn=[hook])

    assert session.turns == view.turns == told
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_end_without_a_reason_is_a_cut(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """A stream that just ends is not taken for a whole reply."""
    client.answers.append([Sending("fake"), Delta("half")])
    with pytest.raises(CutReplyError, match="without a finish reason"):
        ask("a")

    assert view.turns[0].status == "cut"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "ended without any text"),
        ([Finished("stop")], "it just stopped"),
        ([Delta(" \n"), Finished("stop")], "it just stopped"),
        ([Reasoning("hm" * 50), Finished("length")], "after 100 characters of reasoning: the reply reached the limit"),
        ([Finished("content_filter")], "content filter"),
        ([Finished("tool_calls")], "asked for tools"),
        ([Finished("weird\x1b[31m")], "weird"),
    ],
    ids=["nothing", "stop", "blank", "reasoning only", "filter", "tools", "unknown"],
)
def test_no_text_is_no_turn(ask: Ask, client: FakeClient, view: SpyRenderer, events: list[Any], message: str) -> None:
    """A prompt that got no text is an error which says why, and nothing is stored."""
    client.answers.append([Sending("fake"), *events])
    with pytest.raises(RequestError, match=message):
        ask("a")
    ask("b")

    assert [m.content for m in client.requests[-1].messages] == ["b"]
    assert view.turns[0].prompt == "b"


def test_stop_before_the_first_word(ask: Ask, client: FakeClient) -> None:
    """A stop before any text stores nothing and says so."""
    client.answers.append([Sending("fake"), Reasoning("hm"), KeyboardInterrupt()])
    with pytest.raises(InterruptedTurnError, match="nothing was stored"):
        ask("a")
    ask("b")

    assert [m.content for m in client.requests[-1].messages] == ["b"]


@pytest.mark.parametrize("reason", ["length", "content_filter", "refusal", "odd"])
def test_other_endings_are_said(ask: Ask, client: FakeClient, view: SpyRenderer, reason: str) -> None:
    """An ending other than stop leaves the cell well, with a notice."""
    client.answers.append([Sending("fake"), Delta("text"), Finished(reason)])
    turn = ask("a")

    assert turn.status == "complete"
    assert turn.finish == reason
    assert len(view.notices) == 1


def retries(waits: list[float]) -> Retry:
    return Retry(tries=4, longest=60.0, sleep=waits.append)


def test_retry_until_it_works(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """A request that may work later is sent again, with growing waits that can be seen, and the reply says so."""
    waits: list[float] = []
    client.answers += [BUSY, BUSY, "fine"]
    turn = ask("a", retry=retries(waits))

    assert turn.reply == "fine"
    assert len(client.requests) == 3
    assert 0.75 + 1.5 <= sum(waits) <= 1.25 + 2.5
    countdown = [event for event in view.events if isinstance(event, Waiting)]
    assert {event.reason for event in countdown} == {"busy (try 2 of 4)", "busy (try 3 of 4)"}
    assert [notice[:10] for notice in view.notices] == ["sent again", "sent again"]


def test_retry_gives_up(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """Four tries are all there are, and that is said."""
    client.answers += [BUSY] * 9
    with pytest.raises(RequestError, match="busy"):
        ask("a", retry=retries([]))

    assert len(client.requests) == 4
    assert view.failures[0][-1] == "gave up after 4 tries"


@pytest.mark.parametrize(
    "failure",
    [
        RequestError("wrong", retryable=False),
        RequestError("much later", retryable=True, retry_after=61.0),
    ],
    ids=["cannot be mended", "asks for too long"],
)
def test_no_retry(ask: Ask, client: FakeClient, failure: RequestError) -> None:
    """What waiting cannot mend, or only very long waiting, is not tried again."""
    client.answers.append(failure)
    with pytest.raises(RequestError):
        ask("a", retry=retries([]))

    assert len(client.requests) == 1


def test_server_decides_how_long_to_wait(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """Retry-After is obeyed to the second, and counted down."""
    waits: list[float] = []
    client.answers += [RequestError("busy", retryable=True, retry_after=2.5), "fine"]
    ask("a", retry=retries(waits))

    assert waits == [1.0, 1.0, 0.5]
    assert [event.seconds for event in view.events if isinstance(event, Waiting)] == [3, 2, 1]


def test_no_wait_where_waiting_is_of_no_use(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """A request that a closed connection has swallowed is sent again at once, and that is said."""
    client.answers += [RequestError("the connection broke", retryable=True, retry_after=0.0), "fine"]
    ask("a", retry=Retry(sleep=lambda _: pytest.fail("it waited")))

    assert view.notices == ["sent again (try 2 of 4) because: the connection broke"]


def test_no_retry_after_the_first_word(ask: Ask, client: FakeClient) -> None:
    """What has begun to stream is never sent again."""
    client.answers.append([Sending("fake"), Delta("text"), BUSY])
    with pytest.raises(CutReplyError):
        ask("a", retry=retries([]))

    assert len(client.requests) == 1


def test_stop_while_waiting_for_a_retry(ask: Ask, client: FakeClient) -> None:
    """The wait between two tries can be stopped."""

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    client.answers.append(BUSY)
    with pytest.raises(InterruptedTurnError):
        ask("a", retry=Retry(sleep=stop))

    assert len(client.requests) == 1


def answered_by(endpoint: str) -> list[Any]:
    return [Sending(endpoint), Delta("text"), Finished("stop")]


def test_move_to_another_endpoint_is_said_before_sending(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """When the history goes to another endpoint, a line says so before anything is sent, once."""
    client.answers += [answered_by("here"), answered_by("here"), answered_by("there"), answered_by("there")]
    for prompt in "abcd":
        ask(prompt)

    remarks = [(n, event.text) for n, event in enumerate(view.events) if isinstance(event, Remark)]
    assert [text for _, text in remarks] == ["'main' moves from here to there, with 2 turns of history"]
    assert view.events[remarks[0][0] - 1] == Sending("there")
    assert view.events[remarks[0][0] + 1] == Delta("text")
    assert view.notices == [remarks[0][1]]


def test_reasoning_is_kept_and_never_sent_back(ask: Ask, client: FakeClient) -> None:
    """What a model thought is on the turn, and in no later request."""
    client.answers.append([Sending("fake"), Reasoning("first "), Reasoning("thought"), Delta("x"), Finished("stop")])
    turn = ask("a")
    ask("b")

    assert turn.reasoning == "first thought"
    assert [m.content for m in client.requests[1].messages] == ["a", "x", "b"]


def test_hook_gets_the_stored_turn(ask: Ask) -> None:
    """A hook sees the turn when it is in the session."""
    seen: list[tuple[int, Turn]] = []
    turn = ask("a", on_turn=[lambda session, turn: seen.append((len(session.turns), turn))])

    assert seen == [(1, turn)]


def test_failing_hook_loses_nothing(ask: Ask, view: SpyRenderer) -> None:
    """A hook that raises warns; the turn is stored and shown, and the other hooks run."""
    seen: list[Turn] = []

    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    with pytest.warns(ChatMagicWarning, match="ZeroDivisionError: oops"):
        turn = ask("a", on_turn=[fail, lambda _, turn: seen.append(turn)])

    assert view.turns == seen == [turn]


def test_usage_and_remarks_are_passed_on(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """What the server counted is on the turn, and what was decided on the way is shown after the given notices."""
    client.answers.append([Sending("fake"), Remark("decided"), Delta("x"), Used(Usage(7, 3, 5)), Finished("stop")])
    turn = ask("a", notices=["given"])

    assert turn.usage == Usage(7, 3, 5)
    assert view.notices == ["given", "decided"]


def test_a_bug_is_not_hidden(ask: Ask, client: FakeClient, view: SpyRenderer) -> None:
    """An exception that is not ours comes through as it is, and the screen is told."""
    client.answers.append(ZeroDivisionError("bug"))
    with pytest.raises(ZeroDivisionError):
        ask("a")

    assert len(view.failures) == 1
