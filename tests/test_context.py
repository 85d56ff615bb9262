"""What is sent of a history: the policies, their budget, and what never changes under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chatmagic.conversation.context import Context, History, Limits, Planner, spans
from chatmagic.conversation.learning import learn, overflowed
from chatmagic.conversation.messages import Message, Sent, Turn, Usage
from chatmagic.conversation.tokens import Gauge
from chatmagic.errors import ContextOverflowError, SettingError

READER = ("here", "m")


def words(text: str) -> int:
    """Count as the server of these tests does."""
    return len(text.split())


def said(count: int) -> str:
    return "word " * count


class Talk:
    """A conversation whose server counts words, and 3 tokens for a request and 4 for each message."""

    def __init__(self, policy: str = "budget", **limits: Any) -> None:
        self.planner = Planner(Gauge(words))
        self.policy = policy
        self.limits = Limits(READER, **limits)
        self.turns: list[Turn] = []
        self.pinned: frozenset[int] = frozenset()
        self.system: str | None = None
        self.contexts: list[Context] = []
        self.reports = True

    def plan(self, prompt: str = "word") -> Context:
        return self.planner.plan(self.policy, History(self.turns, self.system, prompt, self.pinned), self.limits)

    def ask(self, prompt: int = 10, reply: int = 10) -> Context:
        """Say so many words, and get so many back."""
        context = self.plan(said(prompt))
        usage = Usage(counted(context.messages), reply) if self.reports else Usage()
        report = learn(self.planner.gauge, context, self.limits, said(reply), usage)
        number = len(self.turns) + 1
        turn = Turn(said(prompt), said(reply), number=number, endpoint="here", model="m", usage=usage)
        self.turns.append(replace(turn, sent=context.sent, size=report.size))
        self.contexts.append(context)
        return context

    @property
    def sent(self) -> list[int | None]:
        """The numbers of the turns that the last request held."""
        return [turn.number for turn in self.contexts[-1].turns]


def counted(messages: Sequence[Message]) -> int:
    return 3 + sum(4 + words(message.content) for message in messages)


def test_all() -> None:
    """By ``all`` everything is sent, however much it is."""
    talk = Talk("all", budget=10)
    for _ in range(20):
        talk.ask()

    assert talk.sent == [*range(1, 20)]


@pytest.mark.parametrize(("count", "sent"), [(0, []), (1, [4]), (3, [2, 3, 4]), (9, [1, 2, 3, 4])])
def test_last(count: int, sent: list[int]) -> None:
    """By ``last:K`` only the newest turns are sent."""
    talk = Talk(f"last:{count}")
    for _ in range(5):
        talk.ask()

    assert talk.sent == sent
    assert [turn.number for turn in talk.plan().left_out] == [*range(1, max(6 - count, 1))]


def test_pinned_turns_are_sent_by_every_policy() -> None:
    """A pinned turn goes along in its place, whatever else is left out."""
    talk = Talk("last:1")
    talk.pinned = frozenset({2})
    for _ in range(5):
        talk.ask()

    assert talk.sent == [2, 4]


def test_budget_sends_all_that_fits() -> None:
    """Below the budget nothing is left out."""
    talk = Talk(budget=1000)
    for _ in range(30):
        talk.ask()

    assert talk.sent == [*range(1, 30)]
    assert not any(context.cut for context in talk.contexts)


def test_budget_cuts_once_to_half() -> None:
    """What would pass the budget cuts the history to half at a turn; then it grows again for as many turns."""
    talk = Talk(budget=1000)
    for _ in range(100):
        talk.ask()

    cuts = [number for number, context in enumerate(talk.contexts, 1) if context.cut]
    sizes = [counted(context.messages) for context in talk.contexts]
    assert len(cuts) == 4
    assert max(sizes) <= 1000
    assert all(450 < sizes[number - 1] < 540 for number in cuts)
    assert talk.contexts[cuts[0] - 1].cut[0].number == 1
    assert [turn.number for turn in talk.contexts[cuts[0] - 1].left_out] == [
        *range(1, len(talk.contexts[cuts[0] - 1].cut) + 1)
    ]


def test_a_cut_keeps_the_system_prompt_and_pinned_turns() -> None:
    """A cut leaves out neither the system prompt nor what is pinned."""
    talk = Talk(budget=300)
    talk.system, talk.pinned = "Be kind.", frozenset({1, 3})
    for _ in range(30):
        context = talk.ask()

    assert context.messages[0] == Message("system", "Be kind.")
    assert talk.sent[:2] == [1, 3]
    assert len(talk.sent) < 15


def test_a_cut_keeps_the_newest_turn_if_it_fits() -> None:
    """A long last turn stays where there is room for it, though it is more than half: the prompt is about it."""
    talk = Talk(budget=1000)
    for _ in range(10):
        talk.ask()
    talk.ask(700)
    talk.ask()

    assert talk.sent == [11]


def test_a_cut_is_not_repeated_by_the_next_request() -> None:
    """What was cut stays out in the turns that follow, so that they begin alike."""
    talk = Talk(budget=300)
    while not (talk.contexts and talk.contexts[-1].cut):
        talk.ask()
    first = talk.sent[0]
    talk.ask()

    assert talk.sent[0] == first
    assert not talk.contexts[-1].cut


def test_everything_comes_back_with_all() -> None:
    """After a cut, ``all`` sends everything again, and so does the budget then, if it is large enough."""
    talk = Talk(budget=300)
    for _ in range(30):
        talk.ask()
    assert talk.sent[0] != 1

    talk.policy = "all"
    talk.ask()
    assert talk.sent == [*range(1, 31)]

    talk.policy = "budget:100000"
    talk.ask()
    assert talk.sent == [*range(1, 32)]


def test_the_window_counts_too() -> None:
    """The history is cut where the reply would not fit into the window any more, though the budget is larger."""
    talk = Talk(window=400, room=100)
    for _ in range(60):
        talk.ask()

    assert max(counted(context.messages) for context in talk.contexts) <= 300


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"window": 100}, r"the prompt alone would be ~107 tokens, and 'm' takes 100\. Shorten it"),
        ({"budget": 100}, r"the prompt alone would be ~107 tokens, more than the budget of 100\. --context budget:110"),
    ],
    ids=["window", "budget"],
)
def test_a_prompt_that_is_too_long(limits: dict[str, int], message: str) -> None:
    """A prompt that cannot fit is an error that says how long it is and what can be done."""
    talk = Talk("budget", **limits)
    talk.ask(10)

    with pytest.raises(ContextOverflowError, match=message):
        talk.plan(said(100))
    assert talk.plan(said(80))


def test_a_first_guess_is_not_believed_too_much() -> None:
    """Before a server has ever counted, a prompt that may just fit is sent."""
    assert Talk(window=100).plan(said(100))
    with pytest.raises(ContextOverflowError):
        Talk(window=100).plan(said(200))


def test_all_that_does_not_fit() -> None:
    """What somebody wants to send whole, and no window takes, is an error that names the policy that cuts."""
    talk = Talk("all", window=200)
    for _ in range(7):
        talk.ask()

    with pytest.raises(ContextOverflowError, match="--context summary or budget cuts"):
        talk.ask()


def test_the_size_is_known_before_sending() -> None:
    """As soon as the server has counted once, the size of the next request is known but for the new prompt."""
    talk = Talk("all")
    for _ in range(5):
        talk.ask()
    context = talk.plan(said(10))

    assert context.base == talk.turns[-1].size
    assert context.tokens == pytest.approx(counted(context.messages), abs=2)


def test_the_size_after_a_cut() -> None:
    """After a cut the size is told from what was reported for the whole, not only guessed."""
    talk = Talk(budget=2000)
    talk.planner = Planner(Gauge(lambda text: words(text) * 2))
    for _ in range(200):
        context = talk.ask()
        if context.cut:
            break

    assert context.base is None
    assert context.tokens == pytest.approx(counted(context.messages), rel=0.03)


def test_a_server_that_never_counts() -> None:
    """Without any report the estimate of each turn is carried on, and the budget holds."""
    talk = Talk(budget=500)
    talk.reports = False
    for _ in range(40):
        talk.ask()

    assert max(counted(context.messages) for context in talk.contexts) <= 500


def test_another_reader_counts_anew() -> None:
    """What one model has counted says nothing about another."""
    talk = Talk("all")
    for _ in range(3):
        talk.ask()
    other = replace(talk.limits, reader=("there", "m"))

    assert talk.planner.plan("all", History(talk.turns, None, "word"), other).base is None


def test_a_changed_system_prompt_counts_anew() -> None:
    """What was counted with another system prompt is no base."""
    talk = Talk("all")
    for _ in range(3):
        talk.ask()
    talk.system = "Be kind."

    context = talk.plan("word")
    assert context.base is None
    assert context.tokens == pytest.approx(counted(context.messages), abs=3)


def test_a_dropped_beginning_is_noticed() -> None:
    """A server that counts far less than was sent has dropped the beginning: that is its window, and no calibration."""
    talk = Talk("all")
    talk.ask(1000, 100)
    before = talk.plan("word").tokens
    context = talk.plan(said(3000))
    report = learn(talk.planner.gauge, context, talk.limits, "reply", Usage(2048, 1))

    assert report.read == 2048
    assert talk.planner.gauge.windows[READER] == 2048
    assert talk.plan("word").tokens == before
    assert report.size == context.tokens + 1


def test_a_count_that_does_not_grow_is_noticed_sooner() -> None:
    """A request that only grew, and is counted no longer than the last one, has lost its beginning."""
    talk = Talk("all")
    for _ in range(4):
        talk.ask(500, 100)
    before = talk.turns[-1].usage.input_tokens
    context = talk.plan(said(300))

    assert before
    assert learn(talk.planner.gauge, context, talk.limits, "reply", Usage(before, 1)).read == before


@pytest.mark.parametrize(
    ("turn", "reported"),
    [
        (Turn(said(190), said(300), usage=Usage(197, 12_000), size=12_197), 700),
        (Turn(said(190), said(300), usage=Usage(6_400, 300), size=6_700), 710),
        (Turn(said(190), f"[THINK]{said(9000)}[/THINK] yes", usage=Usage(197, 9_001), size=9_198), 406),
        (Turn(said(190), said(300), usage=Usage(197, 300), size=497), 30),
    ],
    ids=["hidden thoughts", "pages of the web", "thoughts aloud", "cached tokens not counted"],
)
def test_what_is_no_drop(turn: Turn, reported: int) -> None:
    """What a server counts beside what it is sent, and what it never counts, is taken for no window."""
    talk = Talk("all")
    context = talk.plan(turn.prompt)
    talk.turns.append(replace(turn, number=1, endpoint="here", model="m", sent=context.sent))
    report = learn(talk.planner.gauge, talk.plan(said(200)), talk.limits, "yes", Usage(reported, 1))

    assert report.read is None
    assert talk.planner.gauge.windows == {}


def test_a_known_window_is_not_doubted() -> None:
    """A server whose window is known, and large enough, has not dropped anything."""
    talk = Talk("all", window=100_000)
    talk.ask(1000, 100)
    context = talk.plan(said(3000))

    assert learn(talk.planner.gauge, context, talk.limits, "reply", Usage(2048, 1)).read is None


def test_hidden_thoughts_are_not_sent_again() -> None:
    """A reply for which far more was reported than it has words counts as long as it looks."""
    talk = Talk("all")
    context = talk.plan(said(100))
    report = learn(talk.planner.gauge, context, talk.limits, said(50), Usage(107, 5000))

    assert report.size == pytest.approx(157, abs=5)


def test_an_absurd_report_is_not_believed() -> None:
    """What cannot be is neither learnt nor carried on."""
    talk = Talk("all")
    talk.ask(100)
    before = talk.plan(said(10)).tokens
    context = talk.plan(said(10))
    report = learn(talk.planner.gauge, context, talk.limits, "yes", Usage(10**11, 1))

    assert report.size == pytest.approx(before + 1, abs=1)
    assert talk.plan(said(10)).tokens == before


def test_a_larger_request_that_was_read_corrects_the_window() -> None:
    """A server that has read more than its window was thought to be has a larger one."""
    talk = Talk("all")
    talk.planner.gauge.windows[READER] = 100
    talk.ask(200)

    assert talk.planner.gauge.windows[READER] == 207


def test_thoughts_that_a_template_removes_are_no_drop() -> None:
    """Templates take what was thought aloud out of earlier replies: that is no window."""
    talk = Talk("all")
    context = talk.plan(said(10))
    reply = f"<think>{said(900)}</think> yes"
    report = learn(talk.planner.gauge, context, talk.limits, reply, Usage(17, 901))
    turn = Turn(said(10), reply, number=1, endpoint="here", model="m", sent=context.sent, size=report.size)
    talk.turns.append(turn)
    following = talk.plan("word")

    assert learn(talk.planner.gauge, following, talk.limits, "yes", Usage(27, 1)).read is None
    assert talk.planner.gauge.windows == {}


def test_thoughts_that_a_template_removes_are_no_calibration() -> None:
    """What a server counts without the thoughts of earlier replies says nothing about the length of texts."""
    talk = Talk("all")
    talk.ask(100)
    before = talk.planner.gauge.request(READER, [Message("user", said(100))])
    thinks = History([Turn("a", f"<think>{said(300)}</think> yes", number=1)], None, said(100))
    context = talk.planner.plan("all", thinks, replace(talk.limits, reader=READER))
    learn(talk.planner.gauge, context, talk.limits, "yes", Usage(115, 1))

    assert talk.planner.gauge.request(READER, [Message("user", said(100))]) == pytest.approx(before, abs=3)


def test_an_overflow_makes_the_request_shorter() -> None:
    """What the server says about its window holds for what is sent again, and is not remembered before that worked."""
    talk = Talk()
    for _ in range(8):
        talk.ask()
    context = talk.plan()
    limits = overflowed(talk.planner.gauge, context, talk.limits, ContextOverflowError("no", window=220, size=250))
    assert limits
    shorter = talk.planner.plan("budget", History(talk.turns, None, "word"), limits)

    assert talk.planner.gauge.windows == {}
    assert shorter.cut
    assert counted(shorter.messages) < 220


def test_an_overflow_that_says_nothing_is_cut_all_the_same() -> None:
    """Where the server does not say how much it takes, the history is cut to less than half."""
    talk = Talk()
    for _ in range(20):
        talk.ask()
    context = talk.plan()
    limits = overflowed(talk.planner.gauge, context, talk.limits, ContextOverflowError("no"))
    assert limits
    shorter = talk.planner.plan("budget", History(talk.turns, None, "word"), limits)

    assert counted(shorter.messages) < counted(context.messages) / 2


def test_an_overflow_by_the_reply_cuts_nothing() -> None:
    """A request that is far shorter than the window is refused for the length of its reply: no cut mends that."""
    talk = Talk(room=8000)
    for _ in range(20):
        talk.ask()

    assert overflowed(talk.planner.gauge, talk.plan(), talk.limits, ContextOverflowError("no", window=8192)) is None


def test_a_window_is_never_smaller_than_what_was_read() -> None:
    """A server that names less than it has read by itself is not believed."""
    talk = Talk()
    for _ in range(8):
        talk.ask()
    limits = overflowed(talk.planner.gauge, talk.plan(), talk.limits, ContextOverflowError("no", window=1))

    assert limits
    assert limits.window == talk.planner.gauge.most_read[READER]


def test_a_large_limit_of_the_reply_keeps_half_for_the_history() -> None:
    """A limit for replies that is as large as the window is no reason to forget everything."""
    assert Limits(READER, window=4096, room=4096).most == 2048


def test_spans() -> None:
    """Turns are named by spans that hold nothing else."""
    turns = [Turn("", "", number=number) for number in range(1, 10)]

    assert spans(turns[1:5], turns[5:]) == "#2 to #5"
    assert spans([turns[1], *turns[3:6], turns[8]], [turns[0], turns[2], turns[7]]) == "#2, #4 to #6, #9"
    assert spans([], turns) == ""


# Policies of somebody's own


def own(function: object, *turns: Turn) -> Context:
    planner = Planner(Gauge(words), {"mine": function}.get)
    return planner.plan("mine", History(turns, "Be kind.", "c"), Limits(READER))


def test_own_policy() -> None:
    """A function gets all messages and says which are sent, as messages or as what a request holds."""
    got: list[Message] = []

    def mine(messages: list[Message]) -> list[object]:
        got.extend(messages)
        return [{"role": "system", "content": "short"}, messages[-1]]

    context = own(mine, Turn("a", "A", number=1))

    assert got == [Message("system", "Be kind."), Message("user", "a"), Message("assistant", "A"), Message("user", "c")]
    assert context.messages == [Message("system", "short"), Message("user", "c")]
    assert context.sent is None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (None, "there is no function 'mine' for the context. Otherwise it is all, last:4"),
        (lambda _: 1 / 0, r"mine, which chooses the context, failed: ZeroDivisionError: division by zero \(line \d+\)"),
        (lambda _: [], r"mine, .* returned \[\]: it must return messages, of which the last is the new prompt"),
        (lambda messages: messages[:1], "it must return messages, of which the last is the new prompt"),
        (lambda _: ["hi"], r"returns messages \(role and content\), not 'hi'"),
        (lambda _: [{"role": "tool", "content": "x"}], "returns messages"),
        (lambda _: None, "returned None: it must return messages"),
        (lambda _: "hi", "returned 'hi': it must return messages"),
    ],
    ids=["no function", "raises", "nothing", "no prompt", "texts", "another role", "none", "a text"],
)
def test_own_policy_that_cannot_be(function: object, message: str) -> None:
    """What cannot be sent is an error that names the function."""
    with pytest.raises(SettingError, match=message):
        own(function)


# Any history


LENGTHS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=40)


@given(LENGTHS, st.integers(30, 700), st.frozensets(st.integers(1, 40), max_size=3), st.none() | st.just("Be kind."))
def test_any_history_within_any_budget(
    lengths: list[tuple[int, int]], budget: int, pinned: frozenset[int], system: str | None
) -> None:
    """Every request is within the budget and begins properly, and its beginning changes only where it is cut."""
    talk = Talk(budget=budget)
    talk.system, talk.pinned = system, pinned
    before: list[Message] = []
    for prompt, reply in lengths:
        try:
            context = talk.ask(prompt, reply)
        except ContextOverflowError:
            # What must be sent, and the new prompt, are too long by themselves.
            must = [turn for turn in talk.turns if turn.number in pinned]
            assert counted(History([], system, said(prompt), pinned).messages(must)) > budget * 0.95
            continue
        messages = list(context.messages)
        assert context.tokens <= budget
        assert counted(messages) <= budget + 5
        assert [message.role for message in messages] == proper(messages, system)
        assert messages[-1] == Message("user", said(prompt))
        # A pinned turn that a cut has left behind its place comes before the others, and stays there.
        if before and not context.cut:
            assert messages[: len(before)] == before
        before = [*messages, Message("assistant", said(reply))]
        assert pinned & {turn.number for turn in talk.turns[:-1]} <= {turn.number for turn in context.turns}


def proper(messages: Sequence[Message], system: str | None) -> list[str]:
    """One system message first, then prompts and replies in turn, the new prompt last."""
    begin = ["system"] if system else []
    return begin + ["user", "assistant"] * ((len(messages) - len(begin)) // 2) + ["user"]


@given(LENGTHS, st.integers(0, 10))
def test_any_history_by_last(lengths: list[tuple[int, int]], count: int) -> None:
    """No more than the newest turns are sent, in their order."""
    talk = Talk(f"last:{count}")
    for prompt, reply in lengths:
        talk.ask(prompt, reply)
        numbers = talk.sent

        assert (
            numbers
            == [turn.number for turn in talk.turns[:-1]][len(talk.turns) - 1 - min(count, len(talk.turns) - 1) :]
        )


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=8, max_size=20), st.floats(0.3, 3.0))
def test_any_scale_is_learnt(lengths: list[tuple[int, int]], scale: float) -> None:
    """Whatever the tokens of a server are beside ours, the size of later requests is told to within a few per cent."""
    assume(sum(prompt for prompt, _ in lengths[:4]) > 100)
    talk = Talk("all")
    talk.planner = Planner(Gauge(lambda text: round(words(text) * scale)))
    for prompt, reply in lengths:
        talk.ask(prompt, reply)
    context = talk.contexts[-1]

    assert context.tokens == pytest.approx(counted(context.messages), rel=0.05, abs=6)


def test_sent_begins_like() -> None:
    """Requests begin alike if system prompt, start and pinned turns are the same, whatever the policy is called."""
    sent = Sent("budget", "s", 3, (1,), 100)

    assert sent.begins_like(Sent("budget:9", "s", 3, (1,), 200))
    assert not sent.begins_like(Sent("budget", "t", 3, (1,)))
    assert not sent.begins_like(Sent("budget", "s", 4, (1,)))
    assert not sent.begins_like(Sent("budget", "s", 3, ()))
