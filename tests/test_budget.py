"""A turn within its limits: what is cut, learnt, said and paid, with doubles and with real servers."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from chatmagic.conversation.context import Planner
from chatmagic.conversation.estimate import estimate
from chatmagic.conversation.messages import Cell, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.spending import Purse, Spent
from chatmagic.conversation.tokens import Gauge
from chatmagic.engine import Retry
from chatmagic.errors import ContextOverflowError, InterruptedTurnError, RequestError, SpendingError
from chatmagic.events import Delta, Event, Finished, Reasoning, Remark, Sending, Used
from chatmagic.provider.client import OpenAIClient
from chatmagic.testing import FakeClient
from tests.llamacpp import llama_server
from tests.room import Room, used
from tests.server import Wire, chunk, sse


def too_long(window: int | None = None, size: int | None = None) -> ContextOverflowError:
    return ContextOverflowError("too long", status=400, window=window, size=size)


LONG = "many words that say very little " * 20


# The cut


def test_a_cut_is_said_before_sending() -> None:
    """The line about a cut is shown before the request goes out, and stays with the reply."""
    room = Room(FakeClient(), budget=1200)
    while not room.view.notices:
        room.view.events.clear()
        room.ask(LONG)

    kinds = [type(event) for event in room.view.events]
    assert kinds.index(Remark) < kinds.index(Sending)
    assert "turns (#1 to #" in room.view.notices[0]
    assert "are not sent from here on: with all of them the request would have ~" in room.view.notices[0]
    ways = "--context summary sends a summary instead; --context all sends everything again"
    assert f"more than the budget of 1,200; {ways}" in room.view.notices[0]


def test_a_cut_is_undone_with_its_turn() -> None:
    """Undo takes the turn back, and with it the cut; nothing has left the tree."""
    room = Room(FakeClient(), budget=1200)
    while not room.view.notices:
        room.ask(LONG)
    count = len(room.session.turns)
    cut = len(room.client.requests[-1].messages)
    room.session.undo()
    room.ask("short", defaults=Settings({"model": "m", "context": "all"}))

    assert cut < 2 * count - 1
    assert len(room.client.requests[-1].messages) == 2 * count - 1
    assert len(room.session.tree.turns) == count + 1


def test_a_cut_belongs_to_its_turn() -> None:
    """Whoever goes back before a cut goes on with everything."""
    room = Room(FakeClient(), budget=1200)
    while not room.view.notices:
        room.ask(LONG)
    room.session.go(2)
    room.ask("short")

    assert len(room.client.requests[-1].messages) == 5


def test_continue_keeps_what_it_continues() -> None:
    """The reply that is to be continued is sent, whatever is cut."""
    room = Room(FakeClient(*["word " * 100] * 20), budget=400)
    for _ in range(4):
        room.ask("x")
    last = room.session.last
    room.ask("x", instead=last, start=room.session.again(last) if last else None, go_on=True)

    assert last
    assert last.reply in [message.content for message in room.client.requests[-1].messages]


def test_a_once_is_cut_too_and_changes_nothing() -> None:
    """A turn that is not stored leaves the conversation uncut."""
    room = Room(FakeClient())
    for _ in range(8):
        room.ask(LONG)
    room.ask(LONG, once=True, budget=1200)
    assert len(room.client.requests[-1].messages) < 17
    room.ask("short")

    assert len(room.client.requests[-1].messages) == 17


# What is sent


def test_requests_are_append_only_byte_for_byte() -> None:
    """What goes over the wire begins with the bytes of the last request's messages, and carries the same cache key."""
    wire = Wire(sse(chunk("réply", finish="stop")))
    room = Room(wire.client)
    for prompt in ("a", "bé", "{{ c }}\n"):
        room.ask(prompt, options=Settings({"system": "Be kind.", "temperature": 0}))

    bodies = [request.content for request in wire.requests]
    messages = [json.dumps(body["messages"]) for body in wire.bodies]
    assert messages[1].startswith(messages[0][:-1])
    assert messages[2].startswith(messages[1][:-1])
    begins = [body[: body.index(b"]")] for body in bodies]
    assert begins[1].startswith(begins[0])
    assert len({body["prompt_cache_key"] for body in wire.bodies}) == 1
    assert [message["role"] for message in wire.bodies[2]["messages"]].count("system") == 1


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://api.openai.com/v1", True),
        ("https://mine.openai.azure.com/openai/v1/", True),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://llm.example.org/v1", False),
        ("http://localhost:8000/v1", False),
    ],
    ids=["openai", "azure", "lookalike", "another", "local"],
)
def test_the_cache_key_goes_only_where_it_is_taken(url: str, sent: bool) -> None:
    """A server that may refuse what it does not know gets no key."""
    wire = Wire(sse(chunk("a", finish="stop")), endpoint="mine", endpoints={"mine": {"url": url}}, environ={})
    Room(wire.client).ask(options=Settings({"model": "mine:m"}))

    assert ("prompt_cache_key" in wire.bodies[0]) is sent


def test_a_cache_key_of_ones_own() -> None:
    """A key that somebody has set is the one that is sent."""
    wire = Wire(sse(chunk("a", finish="stop")))
    Room(wire.client).ask(options=Settings({"prompt_cache_key": "mine"}))

    assert wire.bodies[0]["prompt_cache_key"] == "mine"


def test_sessions_have_keys_of_their_own_and_forks_share_theirs() -> None:
    """The key is random, and the same where the beginning is the same."""
    one, other = Session("main"), Session("main")

    assert one.tree.key != other.tree.key
    assert one.forked("b", None).tree.key == one.tree.key


def test_our_settings_are_no_parameters() -> None:
    """Context policy and spending limit stay here."""
    client = FakeClient()
    Room(client).ask(options=Settings({"context": "last:2", "max_cost": 3, "seed": 1}))

    assert client.requests[0].parameters == {"seed": 1}


def test_a_changed_system_prompt_is_said_where_it_costs() -> None:
    """Above the size from which on providers cache, a changed system prompt is worth a line; below it is not."""
    room = Room(FakeClient(used("a", 200), used("b", 1300), used("c", 2100)))
    room.ask(LONG)
    room.ask(LONG * 4, options=Settings({"system": "Be brief."}))
    assert room.view.notices == []

    room.ask(options=Settings({"system": "Be kind."}))
    assert room.view.notices == ["the system prompt has changed, so nothing of the ~1,305 tokens so far is cached"]


# Overflow


def test_an_overflow_is_cut_and_sent_again_once() -> None:
    """A request that the server finds too long goes out once more with less history; the window is learnt."""
    room = Room(FakeClient(*["word " * 50] * 10, too_long(window=600, size=1000), used("fine", 300)))
    for _ in range(10):
        room.ask()
    turn = room.ask()

    first, second = (len(request.messages) for request in room.client.requests[-2:])
    gone = (first - second) // 2
    assert turn.reply == "fine"
    assert gone > 4
    said = (
        f"the server found the request too long (it takes 600 tokens); sent again without {gone} turns (#1 to #{gone})"
    )
    assert room.view.notices == [said]
    assert room.planner.gauge.windows == {("fake", "m"): 600}


def test_a_learnt_window_holds_from_the_start() -> None:
    """The next conversation with that model is cut before it is refused."""
    room = Room(FakeClient(*["word " * 50] * 10, too_long(window=600, size=1000)))
    for _ in range(11):
        room.ask()
    room.session = Session("another")
    for _ in range(20):
        room.ask(LONG[:300])

    assert room.planner.gauge.windows == {("fake", "m"): 600}
    assert (
        max(sum(estimate(message.content) for message in request.messages) for request in room.client.requests[12:])
        < 600
    )


def test_two_overflows_are_an_error() -> None:
    """What is too long even when it was cut is not tried a third time; nothing is stored."""
    room = Room(FakeClient(*["word " * 50] * 10, too_long(window=600), too_long(window=600)))
    for _ in range(10):
        room.ask()
    with pytest.raises(ContextOverflowError, match="too long"):
        room.ask()

    assert len(room.client.requests) == 12
    assert len(room.session.turns) == 10


def test_nothing_to_cut_is_an_error_at_once() -> None:
    """A single prompt that the server finds too long is not sent again."""
    room = Room(FakeClient(too_long(window=5)))
    with pytest.raises(ContextOverflowError):
        room.ask()

    assert len(room.client.requests) == 1


def test_a_window_that_cannot_be_is_not_kept() -> None:
    """A server that names a nonsense window is not believed: the next, shorter prompt is sent."""
    room = Room(FakeClient("a", "b", too_long(window=1), "fine"))
    room.ask()
    room.ask()
    with pytest.raises(ContextOverflowError):
        room.ask(LONG * 20)

    assert room.ask(LONG).reply == "fine"
    assert room.planner.gauge.windows == {}


def test_the_users_word_about_a_window_wins() -> None:
    """A window that was learnt yields to what the user says."""
    client = FakeClient(*["word " * 50] * 10, too_long(window=600, size=1000), window=600)
    room = Room(client)
    for _ in range(11):
        room.ask()
    client.window, client.own = 100_000, True
    room.ask("go on", defaults=Settings({"model": "m", "context": "all"}))

    assert len(client.requests[-1].messages) == 2 * 11 + 1


def test_an_overflow_of_all_is_an_error() -> None:
    """Who wants everything sent gets no cut that he has not asked for."""
    room = Room(FakeClient("a", "b", too_long(window=600)), defaults=Settings({"model": "m", "context": "all"}))
    room.ask()
    room.ask()
    with pytest.raises(ContextOverflowError):
        room.ask()

    assert len(room.client.requests) == 3


def test_an_overflow_over_the_wire() -> None:
    """The words of a real error lead to the same: cut, learnt, sent again."""
    body = {
        "error": {
            "message": "This model's maximum context length is 4097 tokens. However, your messages resulted in 5000 "
            "tokens.",
            "type": "invalid_request_error",
            "code": "context_length_exceeded",
        }
    }
    wire = Wire(
        *[sse(chunk("word " * 50, finish="stop"))] * 5,
        httpx2.Response(400, json=body),
        sse(chunk("fine", finish="stop")),
    )
    room = Room(wire.client)
    for _ in range(5):
        room.ask(LONG)
    turn = room.ask(LONG)

    assert turn.reply == "fine"
    assert len(wire.bodies[6]["messages"]) < len(wire.bodies[5]["messages"])
    assert room.planner.gauge.windows == {("openai", "m"): 4097}
    assert "it takes 4,097 tokens" in room.view.notices[0]


def test_a_silent_drop_is_said() -> None:
    """A server that counts far less than it was sent has dropped the beginning; the next request fits its window."""
    client = FakeClient(used("word " * 100, 600, 100), used("word " * 100, 1300, 100), used("a", 2048), where="here")
    room = Room(client)
    for count in (590, 590, 2500):
        room.ask("word " * count)
    sent = room.session.turns[2].sent
    assert sent
    assert room.view.notices == [
        f"fake has read 2,048 tokens where ~{sent.tokens:,} were sent: it seems to drop the beginning; 2,048 is taken "
        "as the window of 'm' from now on; if it is not, set ChatMagic.models"
    ]

    room.ask("go on")
    assert "sent from here on" in room.view.notices[1]
    assert sum(len(message.content.split()) for message in client.requests[-1].messages) < 2048


def test_a_prompt_that_is_too_long_is_not_sent() -> None:
    """What cannot fit is an error before anything is sent, and nothing is stored."""
    room = Room(FakeClient(window=400))
    room.ask()
    with pytest.raises(ContextOverflowError, match="nothing was sent"):
        room.ask(LONG * 5)

    assert len(room.client.requests) == 1
    assert len(room.session.turns) == 1


def test_pins_stay_with_the_cell() -> None:
    """A pinned turn whose cell runs again, or that is asked once more, is replaced by a pinned one."""
    room = Room(FakeClient())
    for _ in range(2):
        for name in ("c1", "c2", "c3"):
            room.ask("a", cell=Cell(name, str(len(room.session.tree.turns))))
            if name == "c2":
                room.session.pin(2)
    assert [turn.number for turn in room.session.turns] == [4, 5, 6]
    assert room.session.state.pinned >= {5}

    room.session.go(5)
    last = room.session.turns[-1]
    turn = room.ask("a", instead=last, start=room.session.again(last))
    assert turn.number in room.session.state.pinned


def test_a_copy_of_a_pinned_turn_is_not_pinned() -> None:
    """A cell that appends another turn leaves the pin where it is."""
    room = Room(FakeClient())
    room.ask("a", cell=Cell("c1", "1"))
    room.session.pin(1)
    room.ask("a", cell=Cell("c1", "2"), start=room.session.state)

    assert room.session.state.pinned == {1}


def test_a_move_says_how_much_goes_along() -> None:
    """What a function has chosen is counted in messages, when it goes to another endpoint."""
    here = FakeClient()
    room = Room(here)
    room.planner = Planner(Gauge(estimate), {"mine": lambda messages: [*messages]}.get)
    room.ask()
    room.ask()
    events: list[Event | BaseException] = [Sending("there"), Delta("a"), Finished("stop")]
    room.ask(client=FakeClient(events), defaults=Settings({"model": "m", "context": "mine"}))

    assert room.view.notices == ["'main' moves from fake to there, with 4 messages of history"]


# What it costs


def price(usage: Usage) -> float | None:
    """A dollar for 100 tokens in, two for 100 out, a tenth for what is cached."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    return (usage.input_tokens - 0.9 * (usage.cached_tokens or 0)) / 100 + usage.output_tokens / 50


def test_a_turn_has_its_cost() -> None:
    """The cost of what was reported is part of the turn's usage, and is added up in the session and the kernel."""
    room = Room(FakeClient(used("a", 100, 50, cached_tokens=50), used("b", 200, 50), cost=price))
    first, second = room.ask(), room.ask()

    assert (first.usage.cost, second.usage.cost) == (1.55, 3.0)
    assert room.session.usage.cost == pytest.approx(4.55)
    assert room.session.spent.amount == room.spent.amount == "$4.55"
    assert str(room.spent) == "2 requests, 300 tokens in, 100 out, $4.55"


def test_a_cost_that_nobody_knows_stays_unknown() -> None:
    """Without a price there is no cost, and the sum says how many requests it lacks."""
    room = Room(FakeClient(used("a", 100, 50)))

    assert room.ask().usage.cost is None
    assert (room.spent.cost, room.spent.unpriced) == (0.0, 1)


def test_a_reply_without_report_is_guessed() -> None:
    """Where a server does not say what it used, the cost is a guess, and carries a mark; the usage stays unknown."""
    room = Room(FakeClient([Sending("fake"), Delta("word " * 40), Finished("stop")], cost=price))
    turn = room.ask()

    assert turn.usage == Usage()
    assert room.spent.guessed
    assert room.spent.amount.startswith("~$")
    assert "~" in str(room.spent)
    assert room.spent.cost == pytest.approx(1.0, rel=0.3)


def test_a_once_is_paid() -> None:
    """A turn that is not stored has been billed all the same."""
    room = Room(FakeClient(used("a", 100, 50), cost=price))
    room.ask(once=True)

    assert (room.session.usage.cost, room.spent.cost) == (0.0, 2.0)


def test_what_is_set_aside_is_paid() -> None:
    """Undo takes a turn back, not its bill."""
    room = Room(FakeClient(used("a", 100, 50), cost=price))
    room.ask()
    room.session.undo()

    assert (room.session.usage.cost, room.session.spent.cost) == (0.0, 2.0)


def test_a_stop_before_the_first_word_is_paid() -> None:
    """Who stops a model that thinks has paid for the prompt and for the thoughts so far."""
    room = Room(FakeClient([Sending("fake"), Reasoning("word " * 100), KeyboardInterrupt()], cost=price))
    with pytest.raises(InterruptedTurnError):
        room.ask()

    assert room.spent.guessed
    assert room.spent.cost == pytest.approx(2.0, rel=0.3)


def test_a_refused_request_costs_nothing() -> None:
    """A server that answers with an error bills nothing."""
    room = Room(FakeClient([Sending("fake"), RequestError("no", status=400)], cost=price))
    with pytest.raises(RequestError):
        room.ask()

    assert (room.spent.cost, room.spent.requests) == (0.0, 0)


def test_an_empty_reply_costs_what_was_reported() -> None:
    """A reply without text is no turn, and is billed."""
    room = Room(FakeClient([Sending("fake"), Used(Usage(100, 0)), Finished("stop")], cost=price))
    with pytest.raises(RequestError, match="no text"):
        room.ask()

    assert room.spent.cost == 1.0


@pytest.mark.parametrize("whose", ["session", "kernel"])
def test_the_turn_that_would_pass_the_limit_fails(whose: str) -> None:
    """What may pass the limit is not sent, and the line says how to go on; then it goes on."""
    room = Room(FakeClient(*[used("a", 100, 50)] * 9, cost=price))
    limits: dict[str, dict[str, Any]] = {
        "session": {"options": Settings({"max_cost": 13, "max_completion_tokens": 50})},
        "kernel": {
            "purse": Purse(room.spent, "this kernel", 13.0, "%config ChatMagic.max_cost = AMOUNT"),
            "options": Settings({"max_completion_tokens": 50}),
        },
    }
    limited = limits[whose]
    for _ in range(5):
        room.ask(**limited)
    with pytest.raises(SpendingError, match=r"has spent \$10.00 of \$13.00, and this turn may cost up to ~\$\d+"):
        room.ask("word " * 200, **limited)
    assert len(room.client.requests) == 5

    room.ask("word " * 200, options=Settings({"max_cost": 100}))
    assert len(room.client.requests) == 6


def test_a_limit_without_a_price_is_said() -> None:
    """Where there is no price a limit cannot hold, and that is said each time, before anything is sent."""
    room = Room(FakeClient())
    room.ask(options=Settings({"max_cost": 1}))

    assert room.view.notices == ["max_cost cannot hold here: 'm' has no known price; give it in ChatMagic.models"]
    assert isinstance(room.view.events[0], Remark)


def test_what_is_under_way_counts_for_the_limit() -> None:
    """Two that ask at the same time do not pass the limit together."""
    spent = Spent()
    first, second = (Purse(spent, "this kernel", 1.0, "more") for _ in range(2))
    first.hold(0.9, sure=True)

    with pytest.raises(SpendingError):
        second.hold(0.9, sure=True)
    spent.release(0.9)
    second.hold(0.9, sure=True)


def test_what_a_refusal_has_held_is_free_again() -> None:
    """A turn that one limit has refused takes nothing from the other, and neither does one that failed."""
    room = Room(FakeClient(RequestError("no", status=400), used("a", 100, 50), cost=price))
    kernel: dict[str, Any] = {"purse": Purse(room.spent, "this kernel", 13.0, "more")}
    for _ in range(3):
        with pytest.raises(SpendingError):
            room.ask(**kernel, options=Settings({"max_cost": 0.1}))
    with pytest.raises(RequestError):
        room.ask(**kernel)

    assert room.ask(**kernel)


def test_a_stop_between_two_tries_is_not_paid() -> None:
    """Who stops while we wait to ask a busy server again has got nothing."""

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    room = Room(FakeClient([Sending("fake"), RequestError("busy", retryable=True)], cost=price))
    with pytest.raises(InterruptedTurnError):
        room.ask(retry=Retry(sleep=stop))

    assert room.spent.requests == 0


def test_a_report_in_parts_is_one() -> None:
    """What a server reports in two pieces is put together."""
    events: list[Event | BaseException] = [
        Sending("fake"),
        Used(Usage(100, None, 40)),
        Delta("a"),
        Used(Usage(None, 50)),
        Finished("stop"),
    ]

    assert Room(FakeClient(events)).ask().usage == Usage(100, 50, 40)


def test_half_a_report_is_half_guessed() -> None:
    """Where only the prompt was counted, the reply is guessed, and the cost carries its mark."""
    events: list[Event | BaseException] = [
        Sending("fake"),
        Delta("word " * 40),
        Used(Usage(100, None)),
        Finished("stop"),
    ]
    room = Room(FakeClient(events, cost=price))
    turn = room.ask()

    assert turn.usage == Usage(100, None)
    assert room.spent.guessed
    assert room.spent.cost == pytest.approx(1.8, rel=0.1)


def test_what_is_free_is_free_without_a_report() -> None:
    """A server of one's own that reports nothing costs nothing all the same."""
    room = Room(FakeClient([Sending("fake"), Delta("a"), Finished("stop")], cost=lambda _: 0.0))

    assert room.ask().usage == Usage(cost=0.0)


def test_free_requests_pass_every_limit() -> None:
    """What costs nothing is not held up by a limit of nothing."""
    room = Room(FakeClient(cost=lambda _: 0.0))

    assert room.ask(options=Settings({"max_cost": 0}))


# A real server


def test_llamacpp_overflows_and_is_learnt() -> None:
    """llama.cpp: the size before sending converges, though its tokens are others, and an overflow is survived."""
    with llama_server(context=2048) as url:
        client = OpenAIClient({"local": {"url": url}}, environ={})
        room = Room(client, defaults=Settings({"model": "local:tiny", "max_tokens": 20}))
        for number in range(12):
            room.ask(f"Is there a small sample of good data for case {number}, and what would it say of any mean?")
        errors = [
            abs(turn.sent.tokens - turn.usage.input_tokens) / turn.usage.input_tokens
            for turn in room.session.turns
            if turn.sent and turn.usage.input_tokens
        ]
        first = room.session.turns
        for _ in range(40):
            room.ask("Is there a small sample of good data? " * 5)

    refused = [notice for notice in room.view.notices if notice.startswith("the server found the request too long")]
    assert max(errors[5:]) < 0.01
    assert len(refused) == 1
    assert "it takes 2,048 tokens" in refused[0]
    assert len(room.session.turns) == len(first) + 40
    assert all((turn.usage.input_tokens or 0) <= 2048 - 20 for turn in room.session.turns)
    assert sum("not sent from here on" in notice for notice in room.view.notices) > 1
