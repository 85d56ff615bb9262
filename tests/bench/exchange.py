"""What it takes to list, and to take in, a ChatGPT export of 200 MB: seconds, and memory beside its conversations.

Run with ``python -m tests.bench.exchange``. Each row runs in a process of its own; its memory is the peak over what the
process had before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.test_chatgpt import large

SIZE = 200_000_000  # bytes of the file
LARGEST = 20_000_000  # bytes of its largest conversation

PROBE = r"""
import json, re, sys, time
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config
config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell(config=config)
shell.run_line_magic("load_ext", "chatmagic")
from chatmagic.exchange import chatgpt, llmlogs, reading
# What getrusage says begins with the peak of the process that has started this one.
peak = lambda: int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) * 1024
before, start = peak(), time.perf_counter()
with capture_output():
    shell.run_line_magic("chat", sys.argv[1])
seconds = time.perf_counter() - start
import chatmagic
turns = sum(len(chat.turns) for chat in chatmagic.sessions)
print(json.dumps([seconds, peak() - before, len(chatmagic.sessions), turns]))
"""


def row(what: str, line: str) -> None:
    """Print what *line* takes."""
    ran = subprocess.run([sys.executable, "-c", PROBE, line], capture_output=True, text=True, check=True)
    seconds, memory, sessions, turns = json.loads(ran.stdout)
    print(f"{what:34}{seconds:9.1f}{memory / 1e6:11,.0f}{sessions:10,}{turns:10,}")


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "conversations.json")
        large(path, SIZE, LARGEST)
        packed = Path(folder, "export.zip")
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, path.name)
        print(f"{path.stat().st_size / 1e6:,.0f} MB, the largest conversation {LARGEST / 1e6:,.0f} MB")
        print(f"allowed: {(3 * LARGEST + 100_000_000) / 1e6:,.0f} MB")
        print(f"{'':34}{'seconds':>9}{'memory MB':>11}{'sessions':>10}{'turns':>10}")
        row("list", f"import {path}")
        row("list, from the zip file", f"import {packed}")
        row("take in number 100", f"import {path} --pick 100")
        row("take in the largest", f"import {path} --pick 1")
        row("take in all", f"import {path} --pick all")


if __name__ == "__main__":
    main()
