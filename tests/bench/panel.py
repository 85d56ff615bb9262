"""What the panel costs in a real kernel: the time to show it, and the comm messages and bytes of a turn.

Run with ``python -m tests.bench.panel``.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field

from tests.kernel import Ran, RealKernel

SESSIONS = (1, 50, 500)
TURNS = 15
LONG = 5000

FILL = """
from chatmagic import magics
from chatmagic.conversation.messages import Turn, Usage
sessions = magics.kernel.sessions
def fill(name, turns):
    session = sessions.find(name)
    watchers, sessions.watchers[:] = list(sessions.watchers), []
    for n in range(turns):
        session.add(Turn("prompt", "reply", parent=session.last, model="demo", usage=Usage(1000, 100, 900)))
    sessions.keep(session)
    sessions.use(name)
    sessions.watchers[:] = watchers
    return session
"""

# As Kernel.ask tells the watchers of a turn, without the turn itself.
UPDATE = """
import time
def update(session, count=50):
    took = []
    for n in range(count):
        turn = Turn("prompt", "reply", parent=session.last, model="demo", usage=Usage(1000, 100, 900))
        clock = time.perf_counter()
        with sessions.asking(session):
            session.add(turn)
            sessions.keep(session)
            sessions.use(session.name)
        took.append((time.perf_counter() - clock) * 1000)
    return round(sorted(took)[len(took) // 2], 2)
"""


@dataclass
class Sent:
    """Comm messages of some cells, and the bytes of their contents."""

    messages: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)

    def count(self, ran: Ran) -> None:
        """Add a cell."""
        contents = ran.of("comm_open", "comm_msg", "comm_close")
        self.messages.append(len(contents))
        self.size.append(sum(len(json.dumps(content)) for content in contents))

    def __str__(self) -> str:
        return f"{statistics.median(self.messages):3.0f} messages, {statistics.median(self.size) / 1000:6.1f} kB"


def cell(kernel: RealKernel, code: str) -> tuple[Ran, float]:
    """Run a cell that must not fail, and return it with its milliseconds as the front end sees them."""
    clock = time.perf_counter()
    ran = kernel.run(code)
    if ran.status != "ok":
        raise RuntimeError(ran.error)
    return ran, (time.perf_counter() - clock) * 1000


def turns(kernel: RealKernel) -> tuple[Sent, float]:
    """Ask the demo some times; return what was sent on comms, and the median milliseconds of a cell."""
    sent, took = Sent(), []
    for _ in range(TURNS):
        ran, milliseconds = cell(kernel, "%%chat s0 -m demo\nhow many messages?")
        sent.count(ran)
        took.append(milliseconds)
    return sent, statistics.median(took)


def measure(sessions: int, first: int) -> None:
    """Print the rows for a kernel with so many *sessions*, of which the first has *first* turns."""
    with RealKernel() as kernel:
        cell(kernel, "%load_ext chatmagic")
        cell(kernel, FILL + UPDATE)
        cell(kernel, f"for n in range({sessions}): fill(f's{{n}}', 3)\nfill('s0', {first})")
        cell(kernel, "%%chat s0 -m demo\nwarm")
        name = f"{sessions} sessions, {first + 3:,} turns"
        before, alone = turns(kernel)
        opened, cold = Sent(), cell(kernel, "import ipywidgets")[1]
        ran, first_time = cell(kernel, "%chat panel")
        opened.count(ran)
        again = statistics.median(cell(kernel, "%chat panel")[1] for _ in range(5))
        after, beside = turns(kernel)
        update = kernel.evaluate("update(sessions['s0'])")
        print(f"{name}\n  show: {first_time:.0f} ms (import ipywidgets {cold:.0f} ms), {opened}; again: {again:.1f} ms")
        print(f"  a turn without a panel: {before}, cell {alone:.1f} ms")
        print(f"  a turn with a panel:    {after}, cell {beside:.1f} ms; of it the panel {update} ms")


def main() -> None:
    """Print a table."""
    for sessions in SESSIONS:
        measure(sessions, 0)
    measure(1, LONG)


if __name__ == "__main__":
    main()
