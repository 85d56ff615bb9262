"""The journal and processes that are killed, and processes that write at once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from tests.journal import World
from tests.journal_writer import WORDS, main
from tests.kernel import RealKernel

KILLS = 200
AT_ONCE = 8

FORKS = multiprocessing.get_context("forkserver")
# Each process imports the main module anew, which is pytest.
FORKS.set_forkserver_preload(["tests.journal_writer", "pytest", "sqlalchemy.dialects.sqlite", "chatmagic.engine"])


def writer(place: Path, name: str, turns: int, pause: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.journal_writer", str(place), name, str(turns), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def killed(folder: Path, number: int) -> tuple[int, list[str]]:
    """Kill a process at a random moment; return how many words had been shown a second before, and what is wrong."""
    place, chance = folder / f"{number}.sqlite", random.Random(number)
    screen = folder / f"{number}.txt"
    screen.touch()
    pause = chance.choice([0.001, 0.004, 0.02])
    # It has imported everything: with many of them at once that alone may take a second.
    process = FORKS.Process(target=main, args=(str(place), "a", 10_000, pause, str(screen)))
    process.start()
    end = time.monotonic() + 60
    while not screen.stat().st_size:
        assert time.monotonic() < end, "it shows nothing"
        time.sleep(0.02)
    time.sleep(chance.uniform(0.0, 2.0))
    assert process.is_alive()
    dies = time.time()
    process.kill()
    process.join()
    shown = [line.split() for line in screen.read_text().splitlines()]
    wanted = {text for moment, text in shown if float(moment) < dies - 1.0}
    if not wanted:
        return 0, []
    with closing(sqlite3.connect(place)) as connection:
        [(integrity,)] = connection.execute("PRAGMA integrity_check").fetchall()
    with World(place) as world:
        session, cut = world.library.bring_back(world.stored("a"), "a")
    there = {word for turn in session.turns for word in turn.reply.split()}
    problems = [integrity] * (integrity != "ok") + sorted(wanted - there)
    whole = [turn for turn in session.turns if turn.status == "complete"]
    problems += [f"turn #{turn.number} is not whole" for turn in whole if len(turn.reply.split()) != WORDS]
    problems += [
        f"{turn.prompt} is there twice" for turn in session.turns if turn.prompt != f"a-{(turn.number or 0) - 1}"
    ]
    pins = set(range(5, len(whole) - 20, 5))  # a turn before a kill may be younger than a second
    problems += [f"#{pin} was pinned" for pin in pins - session.state.pinned]
    if cut > 1 or any(turn.status == "cut" for turn in session.turns[:-1]):
        problems.append(f"{cut} replies were cut")
    return len(wanted), problems


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """After kill -9 at any moment all that was on the screen a second before is there, in a sound database."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda number: killed(tmp_path, number), range(KILLS)))

    assert {number: problems for number, (_, problems) in enumerate(found) if problems} == {}
    assert sum(shown > 0 for shown, _ in found) > KILLS // 3


def test_two_processes(tmp_path: Path) -> None:
    """Two processes that write a thousand turns each to one file at once lose none."""
    place = tmp_path / "journal.sqlite"
    running = [writer(place, name, 1000, 0.0) for name in ("a", "b")]
    for process in running:
        assert process.wait(timeout=120) == 0, process.stderr and process.stderr.read().decode()

    with World(place) as world:
        for name in ("a", "b"):
            session, cut = world.library.bring_back(world.stored(name), name)
            assert [turn.prompt for turn in session.turns] == [f"{name}-{number}" for number in range(1000)]
            assert (cut, len(session.state.pinned), len(session.done)) == (0, 200, 1200)


def test_real_kernel_killed(tmp_path: Path) -> None:
    """What a kernel that is killed had shown comes back in the next one, beside the shell's own history."""
    env = {"IPYTHONDIR": str(tmp_path), "JPY_SESSION_NAME": "/home/ada/book.ipynb"}
    place = tmp_path / "profile_default" / "chatmagic.sqlite"
    with RealKernel(env) as kernel:
        kernel.run("%load_ext chatmagic")
        pid = int(kernel.evaluate("__import__('os').getpid()"))
        kernel.run("%%chat tutor -m demo\nMy name is Ada")
        kernel.run("%chat pin 1")
        kernel.run("%chat remember I like cats")
        kernel._client.execute("%%chat tutor --set pace=30\n2000 words")
        end = time.monotonic() + 60
        while not _pieces(place):
            assert time.monotonic() < end
            time.sleep(0.05)
        time.sleep(1.2)
        os.kill(pid, signal.SIGKILL)

    assert place.stat().st_mode & 0o777 == 0o600
    with RealKernel(env) as kernel:
        kernel.run("%load_ext chatmagic")
        listed, back = kernel.run("%chat resume"), kernel.run("%chat resume tutor")
        assert "a reply was cut" in listed.stdout + listed.text
        said = back.stdout + back.text
        assert "'tutor' is back: 2 turns" in said
        assert "Turn #2 is what had come of a reply when it ended." in said
        reply = kernel.evaluate("__import__('chatmagic').session('tutor').turns[-1].reply[:11]")
        assert reply == "word1 word2"
        assert "Ada" in kernel.run("%%chat tutor\nWhat is my name?").text


def _pieces(place: Path) -> bool:
    if not place.exists():
        return False
    with closing(sqlite3.connect(place)) as connection:
        try:
            return len(connection.execute("SELECT * FROM chatmagic_pieces").fetchall()) > 2
        except sqlite3.OperationalError:
            return False
