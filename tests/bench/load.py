"""What ``%load_ext chatmagic`` costs, beside an extension that does nothing: CPU and modules.

Run with ``python -m tests.bench.load``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

RUNS = 15

PROBE = """
import json, sys, time
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
config = Config()
config.HistoryManager.enabled = False
shell = InteractiveShell(config=config)
before = set(sys.modules)
cpu = time.process_time()
shell.run_line_magic("load_ext", sys.argv[1])
cpu = time.process_time() - cpu
print(json.dumps([cpu * 1000, sorted(set(sys.modules) - before)]))
"""

EMPTY = """
from IPython.core.magic import Magics, line_magic, magics_class

@magics_class
class Empty(Magics):
    @line_magic
    def nothing(self, line):
        pass

def load_ipython_extension(shell):
    shell.register_magics(Empty)
"""


@dataclass
class Loaded:
    """One load in a fresh process: CPU in milliseconds, and the modules that it brought."""

    cpu: float
    modules: list[str]


def load(extension: str, folder: str) -> Loaded:
    """Load *extension* in a fresh process, in which byte code is cached as usual."""
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", PROBE, extension]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return Loaded(*json.loads(ran.stdout))


def main() -> None:
    """Print a table."""
    medians = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "empty_extension.py").write_text(EMPTY)
        for extension in ("empty_extension", "chatmagic"):
            runs = [load(extension, folder) for _ in range(RUNS + 1)][1:]
            cpu = [run.cpu for run in runs]
            medians.append(statistics.median(cpu))
            spread = f"{min(cpu):.1f}–{max(cpu):.1f}"
            print(f"{extension:16} {medians[-1]:5.1f} ms CPU ({spread}), {len(runs[0].modules)} modules")
    heavy = {"openai", "httpx2", "ipywidgets", "tiktoken", "markdown_it"} & set(runs[0].modules)
    print(f"over the empty extension: {medians[1] - medians[0]:.1f} ms; heavy modules: {sorted(heavy) or 'none'}")


if __name__ == "__main__":
    main()
