"""What 200 turns leave in memory when their history is cut: which facts are lost, what that costs, how long it takes.

Run with ``python -m tests.bench.memory``; where langchain and langchain-classic can be imported, they run beside ours.
(What is in PYTHONPATH is moved to the end of the path: it may hold them, and must not replace anything else.)

Every prompt states one fact. Nothing is sent: the same simulated model answers everybody, with prepared replies, and
writes the summaries that it is asked for. It is an honest one: each fact that stands word for word in such a request,
the summary so far among it, stands in the summary. It counts and bills as in `tests.bench.context`, and what any
earlier request has left in the cache is read, whether that was a chat or asked for a summary. A summary that begins as
the last one did gets nothing for it: a real model words it anew.

- "seen": the share of the facts stated so far that stand in what is sent, or stood in a request for a summary. The
  others have been dropped and no model ever had to decide whether they matter.
- "alive": the share that stands in what is sent.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from types import SimpleNamespace
from typing import Any

from chatmagic.conversation.context import Planner
from chatmagic.conversation.estimate import estimate
from chatmagic.conversation.memory import instruction
from chatmagic.conversation.messages import Message, Role, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.tokens import Gauge
from chatmagic.engine import run_turn
from chatmagic.events import Delta, Event, Finished, Request, Sending, Used
from chatmagic.testing import FakeClient, SpyRenderer
from tests.bench.context import (
    CACHED,
    KEPT_FROM,
    OUTPUT,
    STEP,
    SYSTEM,
    TURNS,
    WRITTEN,
    Talk,
    conversation,
    full,
    length,
    tokens,
    trimmed,
)

BUDGETS = (8_000, 16_000, 32_000)
SHORTEST, LONGEST = 300, 650  # tokens of a turn
Messages = tuple[Message, ...]
ROLES: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant"}
ORDERS = (
    instruction(0).partition("\n")[0],
    "<role>\nContext Extraction Assistant\n</role>",
    "Progressively summarize the lines of conversation provided",
)
"""How one knows that a summary is asked for: of chatmagic, the middleware, the classic memory."""

_FACT = re.compile(r"item (\d+) is [A-Z]{2}-\d{4}")


def talk_of_facts(turns: int, seed: int) -> Talk:
    """Return a conversation in which each prompt states a fact, somewhere among its lines."""
    chance = random.Random(seed)
    pairs = conversation(5 * turns, seed, pasted=0)
    fit = [pair for pair in pairs if SHORTEST <= sum(map(tokens, pair)) + 12 <= LONGEST]

    def with_fact(number: int, prompt: str) -> str:
        letters = "".join(chance.choices("ABCDEFGHKLMNPQRSTUVWXYZ", k=2))
        lines = prompt.split("\n")
        lines.insert(
            chance.randint(0, len(lines)), f"The code of item {number} is {letters}-{chance.randint(1000, 9999)}."
        )
        return "\n".join(lines)

    talk = [(with_fact(number, prompt), reply) for number, (prompt, reply) in enumerate(islice(fit, turns), 1)]
    assert len(talk) == turns
    return talk


@lru_cache(None)
def facts(text: str) -> frozenset[str]:
    """Return the facts that stand in *text*."""
    return frozenset(match[0] for match in _FACT.finditer(text))


def facts_of(messages: Iterable[Message]) -> set[str]:
    """Return the facts that stand in *messages*."""
    return {fact for message in messages for fact in facts(message.content)}


class Model:
    """Answers the prompts of *talk* in order, writes summaries, and keeps the requests.

    *seconds* is the CPU that it took itself.
    """

    def __init__(self, talk: Talk) -> None:
        self.requests: list[Messages] = []
        self.chats: list[bool] = []
        self.written = 0
        self.seconds = 0.0
        self._replies = iter([reply for _, reply in talk])

    def answer(self, request: Iterable[Message]) -> tuple[str, Usage]:
        """Return what it says, and the count."""
        start = time.process_time()
        messages = tuple(request)
        chats = not any(order in messages[-1].content for order in ORDERS)
        text = next(self._replies) if chats else self._summary(messages)
        usage = Usage(3 + length(messages), tokens(text))
        self.requests.append(messages)
        self.chats.append(chats)
        self.written += usage.output_tokens or 0
        self.seconds += time.process_time() - start
        return text, usage

    @staticmethod
    def _summary(messages: Sequence[Message]) -> str:
        found = sorted(facts_of(messages), key=lambda fact: int(fact.split()[1]))
        return "\n".join(["What is known of the codes:", *found])


Way = Callable[[Model, Talk, int], float]
"""Goes through a conversation with the model, within a budget, and returns the CPU seconds that it took altogether."""


def measured(asked: Iterable[object]) -> float:
    """Return the CPU seconds that it takes to go through *asked*."""
    start = time.process_time()
    for _ in asked:
        pass
    return time.process_time() - start


class Client(FakeClient):
    """The way of chatmagic to the model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def stream(self, request: Request) -> Iterator[Event]:
        """Yield what the model says."""
        text, usage = self.model.answer(request.messages)
        yield from (Sending("fake", instant=True), Delta(text), Used(usage), Finished("stop"))


def chatmagic(policy: str) -> Way:
    """Return how chatmagic goes through it, under ``--context`` *policy*."""

    def way(model: Model, talk: Talk, budget: int) -> float:
        session, client, planner = Session("bench"), Client(model), Planner(Gauge(estimate))
        asked = Settings({"model": "m", "system": SYSTEM, "context": f"{policy}:{budget}"})
        return measured(
            run_turn(session, prompt, client=client, renderer=SpyRenderer(), defaults=asked, planner=planner)
            for prompt, _ in talk
        )

    return way


def everything(model: Model, talk: Talk, budget: int) -> float:  # noqa: ARG001 - the shape of a way
    """Send everything again each time."""
    return measured(map(model.answer, full(talk)))


def theirs(messages: Iterable[Any]) -> Iterator[Message]:
    """Yield LangChain's *messages* as ours."""
    return (Message(ROLES[each.type], each.content) for each in messages)


def chat_model(chain: Any, model: Model) -> Any:
    """Return *model* as one of LangChain: it reports what it counts, and knows the length of messages at no cost."""

    class ChatFake(chain.core.BaseChatModel):  # type: ignore[misc]  # it is no class for mypy, which has no LangChain
        @property
        def _llm_type(self) -> str:
            return "fake"

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:  # noqa: ARG002
            text, used = model.answer(theirs(messages))
            read, wrote = used.input_tokens or 0, used.output_tokens or 0
            reported = {"input_tokens": read, "output_tokens": wrote, "total_tokens": read + wrote}
            said = chain.messages.AIMessage(text, usage_metadata=reported, response_metadata={"model_provider": "fake"})
            return chain.outputs.ChatResult(generations=[chain.outputs.ChatGeneration(message=said)])

        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:  # noqa: ARG002
            return length(messages)

    return ChatFake()


def middleware(chain: Any, **other: Any) -> Way:
    """Return how an agent with ``SummarizationMiddleware`` goes through it: a trigger, perhaps *other* options."""

    def way(model: Model, talk: Talk, budget: int) -> float:
        llm = chat_model(chain, model)
        agent = chain.agents.create_agent(
            llm,
            system_prompt=SYSTEM,
            middleware=[chain.middleware.SummarizationMiddleware(llm, trigger=("tokens", budget), **other)],
            checkpointer=chain.checkpoint.InMemorySaver(),
        )
        thread = {"configurable": {"thread_id": "bench"}}
        return measured(agent.invoke({"messages": [chain.messages.HumanMessage(prompt)]}, thread) for prompt, _ in talk)

    return way


def classic(chain: Any) -> Way:
    """Return how a loop with ``ConversationSummaryBufferMemory`` goes through it."""

    def way(model: Model, talk: Talk, budget: int) -> float:
        llm, system = chat_model(chain, model), chain.messages.SystemMessage(SYSTEM)
        memory = chain.memory.ConversationSummaryBufferMemory(llm=llm, max_token_limit=budget, return_messages=True)

        def ask(prompt: str) -> Any:
            history = memory.load_memory_variables({})["history"]
            reply = llm.invoke([system, *history, chain.messages.HumanMessage(prompt)])
            memory.save_context({"input": prompt}, {"output": reply.content})
            return reply

        return measured(ask(prompt) for prompt, _ in talk)

    return way


def trimming(chain: Any) -> Way:
    """Return how a loop with ``trim_messages`` goes through it."""

    def way(model: Model, talk: Talk, budget: int) -> float:
        start = time.process_time()
        requests = trimmed(talk, budget, chain.messages)
        spent = time.process_time() - start
        return spent + measured(map(model.answer, requests))

    return way


def bill(requests: Iterable[Messages]) -> tuple[float, float]:
    """Return what *requests* cost by the older and the newer rule (fresh input tokens), all caches kept to the end."""
    older = newer = 0.0
    begun: set[Messages] = set()
    written: set[Messages] = set()
    for request in requests:
        beginnings = [request[:end] for end in range(len(request) + 1)]
        whole, kept, read = length(request), _longest(beginnings, begun), _longest(beginnings, written)
        older += 3 + whole - (1 - CACHED) * (kept - kept % STEP if kept >= KEPT_FROM else 0)
        newer += 3 + CACHED * read + (WRITTEN if whole >= KEPT_FROM else 1.0) * (whole - read)
        begun.update(beginnings)
        if whole >= KEPT_FROM:
            written.add(request)
    return older, newer


def _longest(beginnings: Sequence[Messages], kept: set[Messages]) -> int:
    """Return how many tokens the longest of *beginnings* has that was *kept*."""
    return next((length(each) for each in reversed(beginnings) if each in kept), 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: shares of facts (at the end, and the least of all turns), lengths (tokens), costs (fresh tokens)."""

    seen: tuple[float, float]
    alive: tuple[float, float]
    summaries: int
    longest: tuple[int, int]
    over: tuple[int, int]
    older: float
    newer: float
    written: int
    milliseconds: float

    @classmethod
    def of(cls, way: Way, talk: Talk, budget: int) -> Outcome:
        """Go through *talk* and say how it went."""
        way(Model(talk[:20]), talk[:20], 2_000)  # what is imported at first use is no part of a turn
        gc.collect()  # nor is what others have left
        model = Model(talk)
        seconds = way(model, talk, budget) - model.seconds
        assert sum(model.chats) == len(talk), "each prompt is answered, and what asks for a summary is known as that"
        seen, alive = _shares(model, talk)
        sizes = [(3 + length(request), chats) for request, chats in zip(model.requests, model.chats, strict=True)]
        chats, others = ([size for size, is_chat in sizes if is_chat is kind] for kind in (True, False))
        older, newer = bill(model.requests)
        return cls(
            (seen[-1], min(seen)),
            (alive[-1], min(alive)),
            len(others),
            (max(chats), max(others, default=0)),
            (sum(size > budget for size in chats), sum(size > budget for size in others)),
            older,
            newer,
            model.written,
            seconds * 1000 / len(talk),
        )


def _shares(model: Model, talk: Talk) -> tuple[list[float], list[float]]:
    """Return for each turn the share of the facts stated so far that were seen, and that are alive."""
    stated: set[str] = set()
    shown: set[str] = set()
    prompts = (prompt for prompt, _ in talk)
    seen, alive = [], []
    for request, chats in zip(model.requests, model.chats, strict=True):
        here = facts_of(request)
        if not chats:
            shown |= here
            continue
        stated |= facts(next(prompts))
        seen.append(len(stated & (here | shown)) / len(stated))
        alive.append(len(stated & here) / len(stated))
    return seen, alive


def langchain() -> Any:
    """Return the modules of LangChain, each under a name of ours, or None where it cannot be imported."""
    for path in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if path in sys.path:
            sys.path.remove(path)
            sys.path.append(path)
    names = {
        "core": "langchain_core.language_models",
        "messages": "langchain_core.messages",
        "outputs": "langchain_core.outputs",
        "agents": "langchain.agents",
        "middleware": "langchain.agents.middleware",
        "checkpoint": "langgraph.checkpoint.memory",
        "memory": "langchain_classic.memory",
    }
    try:
        chain = SimpleNamespace(**{name: importlib.import_module(module) for name, module in names.items()})
    except ImportError as exc:
        print(f"LangChain's rows are left out: {exc}")
        return None
    packages = ("langchain", "langchain_core", "langchain_classic")
    print(", ".join(f"{each} {importlib.import_module(each).__version__}" for each in packages))
    warnings.filterwarnings("ignore", message=".*deprecated")  # of the classic memory
    return chain


COLUMNS = {
    "seen": 12,
    "alive": 12,
    "calls": 10,
    "longest": 16,
    "over": 9,
    "input, older": 14,
    "newer": 7,
    "total, older": 14,
    "newer ": 7,
    "ms": 6,
}
"""What is printed of an outcome, and how wide."""


def row(name: str, cells: Iterable[str]) -> None:
    """Print *name* and *cells*."""
    print(f"{name:27}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True)))


def cells_of(it: Outcome) -> list[str]:
    """Return what is printed of *it*."""
    output = OUTPUT * it.written
    return [
        *(f"{100 * end:.1f} {100 * least:.1f}" for end, least in (it.seen, it.alive)),
        f"{TURNS} + {it.summaries}",
        f"{it.longest[0]:,} + {it.longest[1]:,}",
        f"{it.over[0]} + {it.over[1]}",
        *(f"{cost / 1000:,.0f}" for cost in (it.older, it.newer, it.older + output, it.newer + output)),
        f"{it.milliseconds:.2f}",
    ]


def main() -> None:
    """Print everything."""
    chain = langchain()
    ways: dict[str, Way] = {"chatmagic summary": chatmagic("summary"), "chatmagic budget": chatmagic("budget")}
    if chain:
        ways["SummarizationMiddleware"] = middleware(chain)
        ways["  it, nothing trimmed"] = middleware(chain, trim_tokens_to_summarize=None)
        ways["SummaryBufferMemory"] = classic(chain)
        ways["trim_messages"] = trimming(chain)
    talk = talk_of_facts(TURNS, seed=7)
    sizes = [sum(map(tokens, pair)) for pair in talk]
    print(f"{TURNS} turns of {min(sizes)} to {max(sizes)} tokens, {sum(sizes):,} together; each states a fact")
    print("seen, alive: % at the end, and the least of all turns; calls, longest, over: of chats + of summaries")
    print("cost in thousands of fresh input tokens by the two rules; total: with output; ms: of CPU, a turn")
    row("", map(str.rstrip, COLUMNS))
    row("everything, no limit", cells_of(Outcome.of(everything, talk, 2 * sum(sizes))))
    for budget in BUDGETS:
        for name, way in ways.items():
            row(f"{budget // 1000:>2}k {name}", cells_of(Outcome.of(way, talk, budget)))


if __name__ == "__main__":
    main()
