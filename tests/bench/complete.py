"""How long a person waits at Tab, in a real kernel: from the request to its answer, beside plain Python.

Run with ``python -m tests.bench.complete``.
"""

from __future__ import annotations

import statistics
import time

from tests.kernel import RealKernel

RUNS = 50

PLACES = {
    "a session name": "%%chat tutor-0",
    "all session names": "%%chat ",
    "an option": "%%chat tutor-0 --",
    "a model": "%%chat tutor-0 -m gpt",
    "a verb below other code": "import os\n%chat se",
    "a word in the prompt": "%%chat tutor-0\nExplain impo",
    "an expression in the prompt": "%%chat tutor-0\nDon't explain {{ os.pa",
    "plain Python, a name": "impo",
    "plain Python, an attribute": "os.pa",
}

SESSIONS = """
from chatmagic.conversation.settings import Settings
from chatmagic.magics import kernel
for number in range(len(kernel.sessions), {count}):
    kernel.sessions.new(f"tutor-{{number:03}}", Settings({{"model": f"ollama:llama-{{number % 7}}"}}))
"""


def waits(kernel: RealKernel, code: str) -> list[float]:
    """Return the milliseconds between request and answer."""
    found = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        kernel.complete(code)
        found.append((time.perf_counter() - begin) * 1000)
    return found[1:]


def first(kernel: RealKernel) -> None:
    """Print the first Tab of all, which imports what it needs."""
    begin = time.perf_counter()
    kernel.complete("%%chat ")
    print(f"the first Tab of all: {(time.perf_counter() - begin) * 1000:.1f} ms")


def table(kernel: RealKernel, title: str) -> None:
    """Print median, 95th percentile and count of matches for every place."""
    print(title)
    for name, code in PLACES.items():
        spent = sorted(waits(kernel, code))
        found = len(kernel.complete(code))
        worst = spent[int(len(spent) * 0.95)]
        print(f"  {name:28} {statistics.median(spent):6.1f} ms (p95 {worst:5.1f}), {found:3} matches")


def main() -> None:
    """Print the tables."""
    with RealKernel() as kernel:
        kernel.run("import os")
        kernel.complete("impo")
        table(kernel, "without chatmagic")
        kernel.run("%load_ext chatmagic")
        first(kernel)
        for count in (1, 500):
            assert kernel.run(SESSIONS.format(count=count)).status == "ok"
            table(kernel, f"{count} sessions")


if __name__ == "__main__":
    main()
