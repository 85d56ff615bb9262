"""What acts cost in a session of 10,000 turns, and what turns cost in memory.

Run with ``python -m tests.bench.session``.
"""

from __future__ import annotations

import itertools
import statistics
import time
import tracemalloc
from collections.abc import Callable

from chatmagic.conversation.messages import Cell, Turn, Usage
from chatmagic.conversation.sessions import Sessions
from chatmagic.display.tree import history

TURNS = (100, 1_000, 10_000)
TIMES = 200


def turn_of(number: int, parent: Turn | None, execution: str = "first") -> Turn:
    """Return a turn of cell *number* with texts of usual lengths (100 and 600 characters)."""
    prompt, reply = f"{number:08} question. " * 5 + "?" * 5, f"{number:08} a sentence of a reply. " * 18 + "." * 6
    cells = (Cell(f"cell-{number}", execution),)
    return Turn(prompt, reply, parent=parent, model="m", endpoint="openai", usage=Usage(10, 20, 5, 0), cells=cells)


def filled(count: int) -> Sessions:
    """Return sessions of which ``a`` has *count* turns."""
    sessions = Sessions()
    session = sessions.new("a")
    for number in range(count):
        session.add(turn_of(number, session.last))
    return sessions


def median(step: Callable[[int], object], between: Callable[[int], object] = lambda _: None) -> float:
    """Return the median milliseconds of *step*; what is done *between* does not count."""
    spent = []
    for number in range(TIMES):
        before = time.perf_counter()
        step(number)
        spent.append(time.perf_counter() - before)
        between(number)
    return statistics.median(spent) * 1000


def acts(count: int) -> None:
    """Print the milliseconds of each act."""
    sessions = filled(count)
    session = sessions["a"]
    runs = itertools.count()

    def rerun(place: int) -> Callable[[int], object]:
        def run(_: int) -> None:
            cell = Cell(f"cell-{place}", f"run-{next(runs)}")
            start = session.begin(cell)
            session.add(turn_of(place, start.head, cell.execution or ""))

        return run

    numbers = {
        "undo": median(lambda _: sessions.undo(), lambda _: sessions.redo()),
        "redo": 0.0,
        "re-run of the last cell": median(rerun(count - 1)),
        "re-run of the middle cell": median(rerun(count // 2), lambda _: sessions.undo()),
        "re-run of the first cell": median(rerun(0), lambda _: sessions.undo()),
        "undo of that": 0.0,
        "fork": median(lambda number: sessions.fork(f"f{number}"), lambda _: sessions.use("a")),
        "fork --at the middle": median(
            lambda number: sessions.fork(f"g{number}", count // 2), lambda _: sessions.use("a")
        ),
    }
    sessions.undo()
    numbers["redo"] = median(lambda _: sessions.redo(), lambda _: sessions.undo())
    rerun(0)(0)
    numbers["undo of that"] = median(lambda _: sessions.undo(), lambda _: sessions.redo())
    sessions.undo()
    numbers["use --at the middle"] = median(lambda _: session.go(count // 2), lambda _: sessions.undo())
    numbers["clear"] = median(lambda _: session.clear(), lambda _: sessions.undo())
    for name, milliseconds in numbers.items():
        print(f"{count:6,} turns  {name:26} {milliseconds:8.3f} ms")
    before = time.perf_counter()
    history(session, sessions)
    print(f"{count:6,} turns  {'history (the whole tree)':26} {(time.perf_counter() - before) * 1000:8.1f} ms")


def memory() -> None:
    """Print what 1,000 turns take beside their texts."""
    tracemalloc.start()
    texts = [turn_of(number, None) for number in range(10_000)]
    of_texts = sum(len(turn.prompt) + len(turn.reply) for turn in texts) // 10_000
    del texts
    before = tracemalloc.get_traced_memory()[0]
    sessions = filled(10_000)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"memory of 1,000 turns: {used / 10_000:.0f} kB, of which text {of_texts:.0f} kB ({len(sessions)} session)")


def main() -> None:
    """Print everything."""
    for count in TURNS:
        acts(count)
    memory()


if __name__ == "__main__":
    main()
