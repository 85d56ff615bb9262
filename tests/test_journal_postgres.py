"""The journal in SQLite and in a real PostgreSQL: the same acts, the same outcome."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from chatmagic.conversation.messages import Summary
from chatmagic.conversation.settings import Settings
from chatmagic.errors import RecordError
from tests.journal import World, all_of, say

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def _as_user(*command: object) -> subprocess.CompletedProcess[bytes]:
    """Run *command*, not as root: PostgreSQL refuses that."""
    user = "postgres" if os.geteuid() == 0 else None
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL, cwd="/", user=user)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL of our own, on a socket in a temporary folder; the URL of its databases."""
    if not PROGRAMS:
        assert not os.environ.get("CI"), "CI must have a PostgreSQL"
        pytest.skip("there is no PostgreSQL (apt-get install postgresql)")
    programs, folder = PROGRAMS[-1].parent, Path(tempfile.mkdtemp(prefix="pg"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    _as_user(programs / "initdb", "-D", data, "-U", "ada", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    _as_user(programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    yield f"postgresql+psycopg://ada@/{{}}?host={folder}"
    _as_user(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the journal is: a file, or a fresh database."""
    if request.param == "sqlite":
        return str(tmp_path / "journal.sqlite")
    url: str = request.getfixturevalue("server")
    name = f"d{abs(hash(tmp_path))}"
    engine = sa.create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return url.format(name)


def acted(world: World) -> None:
    """Do some of everything."""
    session = world.sessions.find("a")
    session.set(Settings({"system": "Be kind", "stop": ["\ud800"]}))
    say(session, "one\x00two \ud800", "reply 数学")
    say(session, "second", options=Settings({"temperature": 0.5}))
    session.pin(1)
    session.remember("fact")
    session.compact(Summary("short", 1))
    session.undo(2)
    session.redo()
    world.sessions.fork("b", 1, origin="a")
    say(world.sessions["b"], "aside")


def test_write_and_resume(place: str) -> None:
    """Sessions, forks and undo histories come back as they were, also a second time."""
    with World(place) as world:
        acted(world)
        world.flush()
        for name in "ab":
            assert world.as_stored(name) == all_of(world.sessions[name])
    for number in range(2):
        with World(place) as world:
            session = world.back("a")
            say(session, f"more {number}")
            world.flush()
            assert world.as_stored("a") == all_of(session)


def test_partial_reply(place: str) -> None:
    """What has come of a reply is a turn with the status cut."""
    with World(place) as world:
        world.say("a", "one")
        world.begin("a", "two", "some", " words\x00\ud800")
        world.flush()
        with World(place) as other:
            session, cut = other.library.bring_back(other.stored("a"), "a")

    assert (cut, session.turns[-1].reply, session.turns[-1].status) == (1, "some words\x00\ud800", "cut")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("second", 1),
        ("SECO", 1),
        ("econ", 1),
        ("数学", 1),
        ("学", 1),
        ("second aside", 0),
        ("one two", 1),
        ("onetwo reply", 1),
        ("%", 0),
        ("'", 0),
        ("& | !", 0),
        (":*", 0),
        ("second:*", 0),
        ("\\", 0),
        ("NOT", 0),
    ],
)
def test_search(place: str, text: str, found: int) -> None:
    """A search finds words, their beginnings and parts of them, and takes no sign for an operator."""
    with World(place) as world:
        acted(world)
    with World(place) as world:
        assert len(world.library.search(text)) == found


def test_a_long_text(place: str) -> None:
    """A text that is longer than an index takes is written, and comes back."""
    with World(place) as world:
        session = world.say("a", " ".join(f"{number:x}" for number in range(400_000)), "x" * 3_000_000)
        world.flush()

        assert world.as_stored("a") == all_of(session)


def test_forget(place: str) -> None:
    """What is forgotten is gone, what a fork shares stays, and a session that lives is not written again."""
    with World(place) as world:
        acted(world)
        world.begin("a", "asked", "came")
        world.flush()
        turns = world.library.forget([world.stored("a")])
        world.say("a", "again")
        world.flush()

        assert turns == 1
        assert [each.name for each in world.library.all()] == ["b"]
        assert world.library.search("second") == []
        assert len(world.library.search("aside")) == 1
        assert world.as_stored("b")["state"] == all_of(world.sessions["b"])["state"]
        world.library.forget(world.library.all())
        assert world.library.all() == []
        world.say("new", "one")
        assert [each.name for each in world.library.all()] == ["new"]


def test_two_writers(place: str) -> None:
    """Two kernels that begin with an empty database and write at once lose nothing."""
    with World(place) as one, World(place) as two:
        start = threading.Barrier(2)

        def work(world: World, name: str) -> None:
            start.wait()
            for number in range(100):
                world.say(name, f"{name} {number}")
                if number % 7 == 0:
                    world.flush()

        threads = [threading.Thread(target=work, args=each) for each in ((one, "a"), (two, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one.flush()
        two.flush()

        assert one.as_stored("a") == all_of(one.sessions["a"])
        assert one.as_stored("b") == all_of(two.sessions["b"])


def test_newer_version(place: str) -> None:
    """A journal of a newer version is refused."""
    with World(place) as world:
        world.say("a", "one")
    engine = sa.create_engine(place if "://" in place else f"sqlite:///{place}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE chatmagic_meta SET value = '99' WHERE name = 'version'")
    engine.dispose()
    with World(place) as world:
        world.say("b", "one")
        with pytest.raises(RecordError, match="newer chatmagic"):
            world.flush()


def test_server_that_is_away(tmp_path: Path) -> None:
    """Where no server answers chat goes on, and that is said without the URL."""
    with World(f"postgresql+psycopg://ada@/db?host={tmp_path}", patience=0.1) as world:
        world.say("a", "one")
        with pytest.raises(RecordError, match=r"the journal cannot be written .*; chat goes on in memory"):
            world.flush()
