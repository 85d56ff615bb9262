"""What a streaming reply costs a real JupyterLab in Chromium: messages, bytes, and the time of the page's main thread.

Beside ours: the whole reply painted again ten times a second, and for every delta. Run with
``python -m tests.bench.painting [TOKENS …]`` (by default 2,000 and 8,000 tokens of four characters).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, WebSocket, sync_playwright

from tests.bench.far import far_server
from tests.browser import CHROMIUM_ARGS, Lab, Notebook, find_chromium, jupyterlab, open_notebook, write_notebook
from tests.server import Answer, text_answer

SPEEDS = (200, 400)  # tokens a second
DELTAS = 40  # a second

PROSE = "A sentence of *some* words, and `code` in it. Another one with **more** of them, and $x^2$, follows here.\n\n"
CODE = "```python\ndef mean(values):\n    return sum(values) / len(values)  # the middle\n```\n\n"
TABLE = "| name | value |\n|---|---:|\n| one | 1 |\n| two | 2 |\n\n"
SECTION = "## A section\n\n" + PROSE * 4 + "- a list\n- of **two**\n\n" + CODE + PROSE * 3 + TABLE

NAIVE = """
import time
from IPython.display import display
from chatmagic.markdown import to_html

class Whole:
    def __init__(self, text):
        self.text = text
    def _repr_mimebundle_(self, **_):
        return {"text/html": to_html(self.text), "text/plain": self.text}

def paint(text, per_second, deltas, least):
    shown, handle, last = "", display(Whole(""), display_id=True), 0.0
    size = per_second * 4 // deltas
    begin = time.monotonic()
    for number, start in enumerate(range(0, len(text), size)):
        time.sleep(max(0.0, begin + number / deltas - time.monotonic()))
        shown = text[:start + size]
        if time.monotonic() - last >= least:
            last = time.monotonic()
            handle.update(Whole(shown))
    handle.update(Whole(shown))
"""

WATCH = """() => {
    window.longTasks = [];
    new PerformanceObserver(list => list.getEntries().forEach(entry => window.longTasks.push(entry.duration)))
        .observe({type: 'longtask'});
}"""


def reply(tokens: int) -> str:
    """Return a reply of so many tokens of four characters."""
    return (SECTION * (tokens * 4 // len(SECTION) + 1))[: tokens * 4]


def answer(body: dict[str, Any]) -> Answer:
    """Stream a reply as fast as the request asks for."""
    size = body["speed"] * 4 // DELTAS
    text = reply(body["tokens"])
    return text_answer([text[start : start + size] for start in range(0, len(text), size)], pause=1 / DELTAS)


@dataclass
class Traffic:
    """What comes through the web sockets of a page."""

    frames: int = 0
    size: int = 0

    def listen(self, socket: WebSocket) -> None:
        """Count what *socket* receives."""
        socket.on("framereceived", self._count)

    def _count(self, payload: bytes | str) -> None:
        self.frames += 1
        self.size += len(payload)


def busy(client: CDPSession) -> float:
    """Return the seconds that the main thread of the page has worked."""
    metrics = {metric["name"]: metric["value"] for metric in client.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def measure(page: Page, chat: Notebook, traffic: Traffic, index: int) -> list[str]:
    """Run a cell, and return what it cost."""
    page.evaluate(WATCH)
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable")
    frames, received, before = traffic.frames, traffic.size, busy(client)
    chat.run(index, timeout=900)
    page.wait_for_timeout(1000)
    tasks = page.evaluate("window.longTasks")
    return [
        f"{traffic.frames - frames:6,}",
        f"{(traffic.size - received) / 1000:9,.0f} kB",
        f"{busy(client) - before:7.1f} s",
        f"{len(tasks):4}",
        f"{max(tasks, default=0):6.0f} ms",
        f"{chat.output(index).count():3}",
    ]


def cells(tokens: int, speed: int) -> Iterator[tuple[str, str]]:
    """Yield the ways to paint, each with its cell."""
    yield "chatmagic", f"%%chat b --once --set tokens={tokens} --set speed={speed}\nhi"
    for name, least in (("whole, 10 Hz", 0.1), ("whole, per delta", 0.0)):
        yield name, f"paint({reply(tokens)!r}, {speed}, {DELTAS}, {least})"


def main() -> None:
    """Print a table."""
    sizes = [int(argument) for argument in sys.argv[1:]] or [2_000, 8_000]
    print("tokens  tok/s  how                messages   received  main thread  long tasks  longest  outputs")
    with tempfile.TemporaryDirectory() as folder, far_server(answer) as far, sync_playwright() as playwright:
        root = Path(folder)
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(CHROMIUM_ARGS))
        with jupyterlab(root, {"OPENAI_API_KEY": "sk-bench", "OPENAI_BASE_URL": far.url}) as lab:
            for tokens in sizes:
                for speed in SPEEDS:
                    for name, cell in cells(tokens, speed):
                        print(
                            f"{tokens:6,}  {speed:5}  {name:17}", *one(browser.new_page(), lab, root, cell), flush=True
                        )
        browser.close()


def one(page: Page, lab: Lab, root: Path, cell: str) -> list[str]:
    """Measure one cell in a notebook of its own."""
    traffic = Traffic()
    page.on("websocket", traffic.listen)
    name = f"painting{len(list(root.iterdir()))}.ipynb"
    write_notebook(root / name, ["%load_ext chatmagic\n%config ChatMagic.model='m'", NAIVE, cell])
    chat = open_notebook(page, lab, name)
    chat.run(0)
    chat.run(1)
    found = measure(page, chat, traffic, 2)
    page.close()
    return found


if __name__ == "__main__":
    main()
