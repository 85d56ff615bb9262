"""What the panel costs in a real kernel: the time to show it, the comm messages and bytes of a turn, and the processor.

Beside it what the overview alone costs, without a kernel. Run with ``python -m tests.bench.panel``; milliseconds are
medians where something is done several times, all other numbers are the same every time but for a reply that streams.
"""

from __future__ import annotations

import json
import queue
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chatmagic.conversation.messages import Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import checked
from tests.kernel import RealKernel

if TYPE_CHECKING:
    from chatmagic.display.panel import Panel  # to import it is a part of what is measured

TURNS = 9
TIMES = 30
QUIET = 0.3  # seconds; the panel waits for 0.1 s at most
REPLY = "Write 1,000 words"
PACE = 200  # words a second
TURN = "%%chat s0 -m demo\nhow many messages?"

COMM = ("comm_open", "comm_msg", "comm_close")
DISPLAY = ("display_data", "update_display_data")

IMPORTS = """
import time
clock = time.perf_counter()
import anywidget
between = time.perf_counter()
import chatmagic.display.panel
print((between - clock) * 1000, (time.perf_counter() - between) * 1000)
"""


@dataclass(frozen=True)
class Case:
    """So many *sessions*, of which the first has so many *turns* of so many *words*."""

    name: str
    sessions: int
    turns: int = 3
    words: int = 4


CASES = (
    Case("1 session", 1),
    Case("50 sessions", 50),
    Case("500 sessions", 500),
    Case("5,000 turns", 2, 5_000),
    Case("more than half full", 2, 5_000, 24),  # what the next cut takes is looked for among all turns
)


# What runs in the kernel, which imports this file.


def fill(sessions: Sessions, case: Case) -> None:
    """Make the sessions s0, s1, … of *case*."""
    for number in range(case.sessions):
        session = Session(f"s{number}", checked({"model": "demo"}))
        for n in range(3 if number else case.turns):
            text = f"{n} " + "word " * (case.words // 2 - 1)
            turn = Turn(text, text, parent=session.last, model="demo", endpoint="demo", usage=Usage(1000, 100, 900))
            session.add(turn)
        sessions.keep(session)
    sessions.use("s0")


def here() -> tuple[Sessions, Panel, Session]:
    """Return what this kernel has."""
    from chatmagic.magics import kernel

    assert kernel.panel is not None
    return kernel.sessions, kernel.panel, kernel.sessions["s0"]


def click(do: str, **what: Any) -> None:
    """Do as the front end does."""
    here()[1].widget._handle_custom_msg({"do": do, "id": "x", **what}, [])


@contextmanager
def held(panel: Panel) -> Iterator[None]:
    """Let *panel* send when it is told to, and not when time has passed."""
    time.sleep(QUIET)
    vars(panel)["_soon"] = lambda: None
    try:
        yield
    finally:
        del vars(panel)["_soon"]
        panel._soon()


def processor(do: Callable[[], object], times: int = TIMES) -> float:
    """Return the milliseconds that this thread computes to *do* it."""
    took = []
    for _ in range(times):
        clock = time.thread_time()
        do()
        took.append((time.thread_time() - clock) * 1000)
    return statistics.median(took)


def of_turn() -> str:
    """Return the milliseconds of a turn that are the panel's, which sends when the turn begins and when it is over."""
    sessions, panel, session = here()
    watchers = list(sessions.watchers)

    def turn(send: Callable[[], None]) -> None:
        with sessions.asking(session):
            send()
            session.add(replace(session.turns[-1], parent=session.last, number=None))
            sessions.use("s0")
        send()

    with held(panel):
        with_it = processor(lambda: turn(panel._send))
        sessions.watchers.remove(panel._follow)
        without = processor(lambda: turn(lambda: None))
        sessions.watchers[:] = watchers
    return f"{with_it - without:.2f} ms"


def of_switch() -> str:
    """Return the milliseconds of switching to another session and back."""
    sessions, panel, _ = here()

    def switch() -> None:
        for name in ("s1", "s0"):
            click("use", of=name)
            panel._send()

    if len(sessions) == 1:
        return "–"
    with held(panel):
        return f"{processor(switch):.2f} ms"


def scripts() -> str:
    """Return how many bytes of the first show are the same in any notebook."""
    widget = here()[1].widget
    return str(sum(len(str(each).encode()) for each in (widget._esm, widget._css)))


def filled() -> str:
    """Say how full the context is."""
    from chatmagic.magics import kernel

    context = kernel.preview(here()[2]).context
    return f"{context.tokens / kernel._budget:.0%}"


def streamed() -> str:
    """Have the panel ask for a long reply; return the milliseconds that this process computes meanwhile."""
    sessions, _, session = here()
    before = session.last
    session.set(checked({"pace": PACE}))
    clock = time.process_time()
    click("ask", of="s0", text=REPLY)
    while session.last is before or sessions.busy[session]:
        time.sleep(0.05)
    time.sleep(QUIET)
    return f"{(time.process_time() - clock) * 1000:.0f} ms"


# What runs outside.


class Watched(RealKernel):
    """A kernel of which everything is seen that it publishes, whatever cell or thread it comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def __enter__(self) -> Watched:
        super().__enter__()
        return self

    def cell(self, code: str) -> tuple[str, float]:
        """Run a cell that must not fail; return what it prints, and its milliseconds as the front end sees them."""
        clock = time.perf_counter()
        ran = self.run(code)
        if ran.status != "ok":
            raise RuntimeError(ran.error)
        return ran.stdout.strip(), (time.perf_counter() - clock) * 1000

    def call(self, function: Callable[[], str]) -> str:
        """Return what a function of this file returns there."""
        return self.cell(f"print(bench.{function.__name__}())")[0]

    def sent(self, code: str, kinds: tuple[str, ...] = COMM) -> tuple[int, int]:
        """Run a cell, and return how many messages of these *kinds* come of it until it is quiet, and their bytes."""
        self.seen.clear()
        self.cell(code)
        try:
            while True:
                self._next(time.monotonic() + QUIET)
        except (TimeoutError, queue.Empty):
            pass
        contents = [message["content"] for message in self.seen if message["msg_type"] in kinds]
        return len(contents), sum(len(json.dumps(content, ensure_ascii=False).encode()) for content in contents)

    def _next(self, end: float) -> dict[str, Any]:
        message = super()._next(end)
        self.seen.append(message)
        return message


def median_of(kernel: Watched, *codes: str) -> str:
    """Run each cell some times; return messages and bytes of one."""
    counts = [kernel.sent(codes[number % len(codes)]) for number in range(TURNS)]
    return written(statistics.median(each[0] for each in counts), statistics.median(each[1] for each in counts))


def lasts(kernel: Watched, code: str) -> float:
    """Return the milliseconds of a cell that is run again and again."""
    return statistics.median(kernel.cell(code)[1] for _ in range(TURNS))


def written(messages: float, size: float) -> str:
    """Write a number of messages and bytes."""
    return f"{messages:.0f}, {size / 1000:.1f} kB" if messages else "none"


def replied(kernel: Watched) -> str:
    """Have a cell ask for a long reply, which takes imports when it streams for the first time."""
    kernel.cell(f"kernel.sessions['s0'].set(bench.checked({{'pace': {PACE}}}))")
    kernel.cell("%%chat s0\nWrite 100 words")
    before = float(kernel.evaluate("bench.time.process_time()"))
    counts = written(*kernel.sent(f"%%chat s0\n{REPLY}", DISPLAY))
    took = float(kernel.evaluate("bench.time.process_time()")) - before
    kernel.cell("kernel.sessions['s0'].set(bench.checked({'pace': ''}))")
    return f"{counts}, {took * 1000:.0f} ms"


def shows(kernel: Watched) -> Iterator[tuple[str, str]]:
    """Show the panel for the first time, and again."""
    theirs, ours = map(float, kernel.cell(IMPORTS)[0].split())
    clock = time.perf_counter()
    messages, size = kernel.sent("%chat panel")
    first = (time.perf_counter() - clock - QUIET) * 1000
    code = int(kernel.call(scripts))
    yield "first show", f"{theirs + ours + first:.0f} ms"
    yield "  importing anywidget, ours", f"{theirs:.0f} ms, {ours:.0f} ms"
    yield "  messages", written(messages, size)
    yield "  of them script and style", f"{code / 1000:.1f} kB"
    yield "shown again", f"{lasts(kernel, '%chat panel'):.1f} ms"
    yield "  messages again", written(*kernel.sent("%chat panel"))


def rows(case: Case) -> Iterator[tuple[str, str]]:
    """Yield what is measured in a kernel of its own, and the result."""
    with Watched() as kernel:
        kernel.cell("%load_ext chatmagic\nimport tests.bench.panel as bench\nfrom chatmagic.magics import kernel")
        kernel.cell(f"bench.fill(kernel.sessions, bench.{case!r})")
        kernel.cell(TURN)
        reply, bare, alone = replied(kernel), median_of(kernel, TURN), lasts(kernel, TURN)
        yield from shows(kernel)
        yield "the context is full to", kernel.call(filled)
        yield "%%chat without the panel", f"{bare}, {alone:.1f} ms"
        yield "%%chat with it", f"{median_of(kernel, TURN)}, {lasts(kernel, TURN):.1f} ms"
        yield "  processor for the panel", kernel.call(of_turn)
        uses = [f"bench.click('use', of='s{number}')" for number in (1, 0)]
        yield "switching", median_of(kernel, *uses) if case.sessions > 1 else "–"
        yield "  processor, there and back", kernel.call(of_switch)
        kernel.sent(f"bench.click('shown', by='a', value=True)\n{uses[1]}")
        yield "the last view goes", written(*kernel.sent("bench.click('shown', by='a', value=False)"))
        yield "  %%chat then", median_of(kernel, TURN)
        yield "  a view comes", written(*kernel.sent("bench.click('shown', by='a', value=True)"))
        yield "a long reply, in a cell", reply
        asked = written(*kernel.sent("took = bench.streamed()"))
        yield "  asked in the panel", f"{asked}, {kernel.evaluate('took')}"


def overview() -> Iterator[str]:
    """Yield what the overview alone costs with 500 sessions, of which one has 5,000 turns."""
    from chatmagic.display.overview import Overview
    from chatmagic.kernel import Kernel

    kernel = Kernel()
    for words in (4, 24):
        kernel.sessions = Sessions()
        fill(kernel.sessions, Case("", 500, 5_000, words))
        session = kernel.sessions["s0"]
        kernel.ask(session, "how many messages?", display=False)
        first = processor(lambda: Overview(kernel.sessions, kernel)(), 5)
        tracemalloc.start()
        each = Overview(kernel.sessions, kernel)
        state = each()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        def again(each: Overview = each, session: Session = session) -> None:
            session.add(replace(session.turns[-1], parent=session.last, number=None))
            each()

        size = len(json.dumps(state, ensure_ascii=False).encode())
        yield f"context: {state['context']['about']}"
        yield f"  first {first:.1f} ms, after each turn {processor(again):.2f} ms, unchanged {processor(each):.2f} ms"
        yield f"  {size / 1000:.1f} kB of JSON, {kept / 1e6:.1f} MB in memory"


def main() -> None:
    """Print a table."""
    columns = [dict(rows(case)) for case in CASES]
    print(f"{'':28}" + "".join(f"{case.name:>20}" for case in CASES))
    for name in columns[0]:
        print(f"{name:28}" + "".join(f"{column[name]:>20}" for column in columns))
    print("\nthe overview alone, 500 sessions of which one has 5,000 turns")
    for line in overview():
        print(f"  {line}")


if __name__ == "__main__":
    main()
