"""What the journal costs: time per turn, bringing a long session back, searching, and space.

Run with ``python -m tests.bench.journal``.
"""

from __future__ import annotations

import json
import random
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from chatmagic.conversation.record import turn_record
from chatmagic.conversation.session import Session
from chatmagic.events import Delta
from chatmagic.testing import SpyRenderer
from tests.bench.session import turn_of
from tests.journal import World

TIMES = 200
PIECES = 150


def turns(count: int) -> None:
    """Print the milliseconds of CPU that a turn costs behind *count* others: of the chat, and of the writer."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "journal.sqlite"
        world = World(place)
        journal = world.journal
        session = Session("a")
        world.sessions.keep(session)
        for number in range(count):
            session.add(turn_of(number, session.last))
        journal.flush()
        before = place.stat().st_size
        journal._wake_up = lambda: None  # type: ignore[method-assign]  # written below, where its time is taken
        world.sessions.watchers.clear()
        chat, writes, wall = [], [], []
        for number in range(TIMES):
            begin = time.thread_time()
            taken = journal.taking(SpyRenderer(), session, "prompt", None)
            taken.start("a", "m")
            for _ in range(PIECES):
                taken.show(Delta("word "))
            spent = time.thread_time() - begin
            turn = session.add(turn_of(count + number, session.last))
            begin = time.thread_time()
            taken.finish("a", turn, [])
            chat.append(spent + time.thread_time() - begin)
            begin, clock = time.thread_time(), time.perf_counter()
            journal.flush()
            writes.append(time.thread_time() - begin)
            wall.append(time.perf_counter() - clock)
        size = (place.stat().st_size - before) / TIMES / 1000 if count >= 1000 else float("nan")
        numbers = [statistics.median(each) * 1000 for each in (chat, writes, wall)]
        print(
            f"{count:7,} turns   chat {numbers[0]:6.3f} ms   writer {numbers[1]:6.3f} ms   "
            f"until it is on the disk {numbers[2]:6.3f} ms   {size:5.2f} kB a turn"
        )
        journal.close()


def resume(count: int) -> None:
    """Print how long it takes to bring a session back."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "journal.sqlite"
        with World(place) as world:
            session = world.sessions.find("a")
            for number in range(count):
                session.add(turn_of(number, session.last))
            world.flush()
        spent = []
        for _ in range(3):
            with World(place) as world:
                begin = time.perf_counter()
                world.back("a")
                spent.append(time.perf_counter() - begin)
                world.journal._over.set()
        print(f"{count:7,} turns   resume {min(spent):6.3f} s, at worst {max(spent):6.3f} s")


def search(count: int, each: int) -> None:
    """Print how long searches over *count* turns take, in sessions of *each* turns."""
    chance = random.Random(7)
    words = [f"{chance.choice('bcdfgk')}{chance.choice('aeiou')}{number:x}" for number in range(20_000)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "journal.sqlite"
        with World(place) as world:
            world.say("a", "one")
        connection = sqlite3.connect(place)
        [kernel] = connection.execute("SELECT kernel FROM chatmagic_sessions").fetchone()
        for number in range(count // each):
            tree = f"tree{number}"
            connection.execute("INSERT INTO chatmagic_trees VALUES (?, 'k', NULL, 0)", (tree,))
            body = json.dumps({"state": {"head": each}, "done": 0, "spent": {}})
            row = (f"s{number}", kernel, tree, "a", each, float(number), False, None, body)
            connection.execute(f"INSERT INTO chatmagic_sessions VALUES ({','.join('?' * 9)})", row)
            rows = []
            for place_of in range(1, each + 1):
                turn = turn_of(place_of, None)
                prompt, reply = " ".join(chance.choices(words, k=15)), " ".join(chance.choices(words, k=90))
                rows.append((tree, place_of, 0.0, prompt, reply, json.dumps(turn_record(turn))))
            columns = "tree, number, started, prompt, reply, body"
            connection.executemany(f"INSERT INTO chatmagic_turns ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
        connection.close()
        queries = {
            "a word": [chance.choice(words) for _ in range(20)],
            "two words": [" ".join(chance.choices(words, k=2)) for _ in range(20)],
            "a beginning": [chance.choice(words)[:3] for _ in range(20)],
            "a part": [chance.choice(words)[1:] for _ in range(10)],
            "nothing": [f"zzz{number}" for number in range(10)],
        }
        with World(place) as world:
            for kind, texts in queries.items():
                spent = []
                for text in texts:
                    begin = time.perf_counter()
                    world.library.search(text)
                    spent.append(time.perf_counter() - begin)
                spent.sort()
                print(
                    f"{count:7,} turns in {count // each:5,} sessions   search {kind:12} median "
                    f"{statistics.median(spent):6.3f} s   p95 {spent[int(len(spent) * 0.95)]:6.3f} s"
                )


def main() -> None:
    """Print everything."""
    for count in (10, 1_000, 10_000):
        turns(count)
    resume(10_000)
    search(100_000, 1_000)
    search(100_000, 50)


if __name__ == "__main__":
    main()
