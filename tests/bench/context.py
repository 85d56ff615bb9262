"""What 200 turns cost by how their history is cut, and the milliseconds that deciding and measuring it takes a turn.

Run with ``python -m tests.bench.context``; where langchain-core is installed, its ``trim_messages`` runs beside ours.

Nothing is sent: a simulated server counts with a tokenizer of its own, which ours does not know, and bills by either of
two rules (https://developers.openai.com/api/docs/guides/prompt-caching; both keep what they have until the next turn):

- "older", before gpt-5.6: the longest prefix in common with the request before is read from the cache, from 1,024
  tokens on and in steps of 128. To write it costs nothing.
- "newer", from gpt-5.6 on: a request of 1,024 tokens and more is written up to the end of its newest message, for 1.25
  of the price. It is read by the next one that begins with all of it, and not in parts.

What is read from the cache costs a tenth, what the model writes 5 times as much as fresh input.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json.decoder
import random
import re
import statistics
import tarfile
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from pydoc_data.topics import topics
from typing import Any

from chatmagic.conversation.context import Context, History, Limits, Planner
from chatmagic.conversation.estimate import estimate
from chatmagic.conversation.learning import Report, learn
from chatmagic.conversation.messages import Message, Role, Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.tokens import Gauge, Reader

TURNS = 200
BUDGETS = (8_000, 16_000, 32_000, 64_000, 128_000)
LENGTHS = (10, 100, 1_000, 5_000)  # messages
TIMES = 60
FEW = 3  # where everything is counted anew
OUTPUT = 5.0
CACHED, WRITTEN = 0.1, 1.25
KEPT_FROM, STEP = 1_024, 128
READER: Reader = ("openai", "m")
SYSTEM = "You help a scientist with Python. Answer briefly, show code where it says more than words, and name sources."
ALL = 999_999_999

Talk = list[tuple[str, str]]
"""Prompts and replies."""

_TOKEN = re.compile(r" ?[^\W\d_]{1,9}|\d{1,3}|\s*\n|\s+|[^\w\s]{1,4}|_")


@lru_cache(None)
def tokens(text: str) -> int:
    """Return how many tokens the simulated server finds in *text*."""
    return len(_TOKEN.findall(text))


def length(messages: Iterable[Message]) -> int:
    """Return how many tokens the server finds in *messages*."""
    return sum(4 + tokens(message.content) for message in messages)


def conversation(turns: int, seed: int, pasted: float = 0.08) -> Talk:
    """Return a conversation of usual lengths; into that part of its prompts 1,000 to 3,000 tokens are *pasted*."""
    prose = [line for topic in topics.values() for line in topic.splitlines()]
    code = [
        line
        for module in (argparse, inspect, json.decoder, random, statistics, tarfile, textwrap)
        for line in inspect.getsource(module).splitlines()
    ]
    chance = random.Random(seed)

    def some(lines: list[str], size: float) -> str:
        start = chance.randrange(len(lines) - 600)
        taken: list[str] = []
        count = 0
        while count < size:
            taken.append(lines[start + len(taken)])
            count += tokens(taken[-1] + "\n")
        return "\n".join(taken)

    def turn() -> tuple[str, str]:
        prompt = some(prose, chance.triangular(60, 400, 100))
        if chance.random() < pasted:
            prompt += "\n\n" + some(code, chance.uniform(1_000, 3_000))
        size = chance.triangular(150, 600, 300)
        if chance.random() < 0.5:
            return prompt, some(prose, size)
        return prompt, f"{some(prose, size / 2)}\n\n```python\n{some(code, size / 2)}\n```\n"

    return [turn() for _ in range(turns)]


class Chat:
    """A session whose turns are planned and learnt from as `run_turn` does it."""

    def __init__(self, policy: str) -> None:
        self.session = Session("bench")
        self.planner = Planner(Gauge(estimate))
        self.policy = policy

    def plan(self, prompt: str, reader: Reader = READER, policy: str = "") -> Context:
        """Decide what is sent with *prompt*."""
        session = self.session
        history = History(session.upto(session.last), SYSTEM, prompt, session.state.pinned)
        return self.planner.plan(policy or self.policy, history, Limits(reader, budget=ALL))

    def learn(self, context: Context, reply: str, usage: Usage, reader: Reader = READER) -> Report:
        """Take in what the server has counted."""
        return learn(self.planner.gauge, context, Limits(reader), reply, usage, reads_all=True)

    def ask(self, prompt: str, reply: str) -> Context:
        """Go through a turn and store it."""
        context = self.plan(prompt)
        usage = Usage(3 + length(context.messages), tokens(reply))
        size = self.learn(context, reply, usage).size
        endpoint, model = READER
        parent, sent = self.session.last, context.sent
        turn = Turn(prompt, reply, parent=parent, model=model, endpoint=endpoint, usage=usage, sent=sent, size=size)
        self.session.add(turn)
        return context


Requests = list[Sequence[Message]]


def full(talk: Talk) -> Requests:
    """Return the requests that hold everything."""
    messages, requests = [Message("system", SYSTEM)], []
    for prompt, reply in talk:
        messages.append(Message("user", prompt))
        requests.append(tuple(messages))
        messages.append(Message("assistant", reply))
    return list(requests)


def ours(talk: Talk, budget: int) -> Requests:
    """Return the requests that the planner decides on."""
    chat, requests = Chat(f"budget:{budget}"), []
    for prompt, reply in talk:
        context = chat.ask(prompt, reply)
        requests.append(context.messages)
        begins_alike = len(requests) == 1 or same(requests[-2], requests[-1]) == len(requests[-2])
        assert begins_alike is not bool(context.cut), "the beginning changes where the history is cut, and only there"
    return requests


def sliding(talk: Talk, budget: int) -> Requests:
    """Return the requests out of which the oldest turns fall until they fit, counted as the server does."""
    requests = []
    for request in full(talk):
        window = list(request)
        while 3 + length(window) > budget:
            del window[1:3]
        requests.append(tuple(window))
    return list(requests)


def trimmed(talk: Talk, budget: int, core: Any) -> Requests:
    """Return the requests that LangChain's ``trim_messages`` makes, with the counter that its docs recommend."""
    roles: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant"}
    messages, requests = [core.SystemMessage(SYSTEM)], []
    for prompt, reply in talk:
        messages.append(core.HumanMessage(prompt))
        chosen = _trim(core, messages, budget, "approximate")
        requests.append([Message(roles[each.type], each.content) for each in chosen])
        messages.append(core.AIMessage(reply))
    return list(requests)


def _trim(core: Any, messages: Sequence[Any], most: int, counter: Any) -> list[Any]:
    chosen: list[Any] = core.trim_messages(
        messages, max_tokens=most, token_counter=counter, strategy="last", start_on="human", include_system=True
    )
    return chosen


def same(old: Sequence[Message], new: Sequence[Message]) -> int:
    """Return how many messages the two have in common, from the first one on."""
    pairs = zip(old, new, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)))


def older_rule(requests: Requests) -> float:
    """Return what *requests* cost, in fresh input tokens, before gpt-5.6."""
    cost, before = 0.0, requests[0][:0]
    for request in requests:
        kept = length(request[: same(before, request)])
        read = kept - kept % STEP if kept >= KEPT_FROM else 0
        cost += 3 + length(request) - read + CACHED * read
        before = request
    return cost


def newer_rule(requests: Requests) -> float:
    """Return what *requests* cost, in fresh input tokens, from gpt-5.6 on."""
    cost, before, ends = 0.0, requests[0][:0], {0}
    for request in requests:
        common = same(before, request)
        ends = {end for end in ends if end <= common}
        read, whole = length(request[: max(ends)]), length(request)
        cost += 3 + CACHED * read + (WRITTEN if whole >= KEPT_FROM else 1.0) * (whole - read)
        if whole >= KEPT_FROM:
            ends.add(len(request))
        before = request
    return cost


@dataclass(frozen=True, slots=True)
class Bill:
    """What requests cost by both rules (thousands of fresh input tokens), and how they went."""

    older: float
    newer: float
    cuts: int
    usual: float
    longest: int
    over: int

    @classmethod
    def of(cls, requests: Requests, budget: int) -> Bill:
        """Return the bill of *requests*."""
        sizes = [3 + length(request) for request in requests]
        cuts = sum(same(old, new) < len(old) for old, new in pairwise(requests))
        over = sum(size > budget for size in sizes)
        older, newer = older_rule(requests) / 1000, newer_rule(requests) / 1000
        return cls(older, newer, cuts, statistics.mean(sizes), max(sizes), over)


def costs(core: Any) -> None:
    """Print what the conversation costs under each budget."""
    talk = conversation(TURNS, seed=7)
    everything = Bill.of(full(talk), ALL)
    replies = sum(tokens(reply) for _, reply in talk) / 1000
    counted = sum(map(estimate, (text for pair in talk for text in pair)))
    said = sum(map(tokens, (text for pair in talk for text in pair)))
    print(f"{TURNS} turns, {said:,} tokens as the server counts, {counted:,} as we estimate ({said / counted:.2f})")
    print("cost in thousands of fresh input tokens; in brackets its ratio to resending everything; total: with output")
    heads = ("input, older rule", "input, newer rule", "total, older", "total, newer")
    print(f"{'':24}{'cuts':>5}{'mean':>8}{'longest':>9}{'over':>5}" + "".join(f"{head:>19}" for head in heads))

    def row(name: str, bill: Bill) -> None:
        parts = [(bill.older, everything.older), (bill.newer, everything.newer)]
        parts += [(cost + OUTPUT * replies, whole + OUTPUT * replies) for cost, whole in parts]
        cells = "".join(f"{cost:12,.0f} ({cost / whole:4.2f})" for cost, whole in parts)
        print(f"{name:24}{bill.cuts:5}{bill.usual:8,.0f}{bill.longest:9,}{bill.over:5}{cells}")

    row("everything, no limit", everything)
    for budget in BUDGETS:
        row(f"{budget // 1000:>3}k chatmagic", Bill.of(ours(talk, budget), budget))
        row("     sliding window", Bill.of(sliding(talk, budget), budget))
        if core:
            row("     trim_messages", Bill.of(trimmed(talk, budget, core), budget))


Step = Callable[[str, str], object]
Fresh = Callable[[int], Talk]
"""Returns so many prompts and replies that nobody has counted yet, except the server."""


def fresh_texts() -> Fresh:
    """Return what gives ever new texts of usual lengths."""
    pairs = iter(conversation(2_000, seed=9, pasted=0))

    def fresh(count: int) -> Talk:
        taken = list(islice(pairs, count))
        for prompt, reply in taken:
            tokens(prompt), tokens(reply)
        return taken

    return fresh


def median(step: Step, talk: Talk, before: Callable[[], object] = lambda: None) -> float:
    """Return the median milliseconds of CPU of *step* with each prompt and reply of *talk*."""
    spent = []
    for prompt, reply in talk:
        before()
        start = time.process_time()
        step(prompt, reply)
        spent.append(time.process_time() - start)
    return statistics.median(spent) * 1000


Times = list[tuple[str, float]]
"""What is done, and its milliseconds."""


def times_of_ours(chat: Chat, fresh: Fresh) -> Times:
    """Return the milliseconds of a turn of *chat*: as usual, and at the worst."""
    history = 3 + length([Message("system", SYSTEM), *chat.session.messages])
    others = iter(range(ALL))

    def usage(prompt: str, reply: str) -> Usage:
        return Usage(history + 4 + tokens(prompt), tokens(reply))

    def usual(prompt: str, reply: str) -> None:
        context = chat.plan(prompt)
        assert context.base is not None
        chat.learn(context, reply, usage(prompt, reply))

    def other_model(prompt: str, reply: str) -> None:
        reader = ("openai", f"other{next(others)}")
        context = chat.plan(prompt, reader)
        assert context.base is None
        chat.learn(context, reply, usage(prompt, reply), reader)

    def cut(prompt: str, reply: str) -> None:
        context = chat.plan(prompt, policy=f"budget:{history - 1}")
        assert context.cut
        chat.learn(context, reply, Usage(context.tokens, tokens(reply)))

    def forget() -> None:
        chat.planner.gauge.use(estimate)

    times = [(f"--context {chat.policy}", median(usual, fresh(TIMES)))]
    if chat.policy == "all":
        times += [
            ("  of which `estimate` of its two texts", median(lambda *texts: [*map(estimate, texts)], fresh(TIMES)))
        ]
        times += [("first turn of another model", median(other_model, fresh(TIMES)))]
        times += [("  and no text counted before", median(other_model, fresh(FEW), forget))]
    else:
        times += [("a turn that cuts", median(cut, fresh(TIMES)))]
        times += [("  and no text counted before", median(cut, fresh(FEW), forget))]
    return times


def times_of_theirs(talk: Talk, fresh: Fresh, core: Any) -> Times:
    """Return the milliseconds that a list and LangChain take."""
    plain = [{"role": "system", "content": SYSTEM}]
    for prompt, reply in talk:
        plain += [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]

    def append(prompt: str, reply: str) -> None:
        plain.append({"role": "user", "content": prompt})
        plain.append({"role": "assistant", "content": reply})

    times = [("list.append, nothing measured", median(append, fresh(TIMES)))]
    if not core:
        return times
    size = sum(len(text) for pair in talk for text in pair) // 4
    messages = [core.SystemMessage(SYSTEM)]
    for prompt, reply in talk:
        messages += [core.HumanMessage(prompt), core.AIMessage(reply)]

    def trim(most: int, counter: Any) -> float:
        return median(
            lambda prompt, _: _trim(core, [*messages, core.HumanMessage(prompt)], most, counter), fresh(TIMES // 4)
        )

    times += [("trim_messages, approximate, all fits", trim(ALL, "approximate"))]
    times += [("trim_messages, approximate, to half", trim(size // 2, "approximate"))]
    times += [("trim_messages, len, all fits", trim(ALL, len))]
    times += [("trim_messages, len, to half", trim(len(talk), len))]
    return times


def speed(core: Any) -> None:
    """Print the milliseconds at several lengths of the history."""
    talk, fresh = conversation(LENGTHS[-1] // 2, seed=8), fresh_texts()
    chats = [Chat("all"), Chat(f"budget:{ALL}")]
    rows: dict[tuple[int, str], list[float]] = {}
    done = 0
    for count in LENGTHS:
        for prompt, reply in talk[done : count // 2]:
            for chat in chats:
                chat.ask(prompt, reply)
        done = count // 2
        times = [each for chat in chats for each in times_of_ours(chat, fresh)]
        for place, (name, milliseconds) in enumerate([*times, *times_of_theirs(talk[:done], fresh, core)]):
            rows.setdefault((place, name), []).append(milliseconds)
    print(f"{'milliseconds of CPU a turn; messages of history:':50}" + "".join(f"{count:10,}" for count in LENGTHS))
    for (_, name), times_of_lengths in rows.items():
        print(f"{name:50}" + "".join(f"{each:10.3f}" for each in times_of_lengths))


def langchain() -> Any:
    """Return LangChain's messages, or None where they are not installed."""
    try:
        core = importlib.import_module("langchain_core")
        print(f"langchain-core {core.__version__}")
        return importlib.import_module("langchain_core.messages")
    except ImportError:
        print("langchain-core is not installed: its rows are left out")
        return None


def main() -> None:
    """Print everything."""
    core = langchain()
    costs(core)
    speed(core)


if __name__ == "__main__":
    main()
