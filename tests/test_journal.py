"""The journal in one process: what is written, what comes back, what goes wrong, and what is deleted."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from IPython.core.interactiveshell import InteractiveShell

from chatmagic import magics
from chatmagic.conversation.messages import Summary, Turn, Usage
from chatmagic.conversation.settings import Settings
from chatmagic.errors import ChatMagicError, LineError, RecordError, SessionError
from chatmagic.events import Delta, Finished, Reasoning, Sending
from chatmagic.journal import without_password
from chatmagic.journal.tables import place_of
from chatmagic.testing import FakeClient
from tests.journal import World, all_of, say

DATA = Path(__file__).parent / "data"
FINISHED = Turn("one", "some words", started=time.time() + 86_400)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal.sqlite"


def raw(place: Path) -> bytes:
    """Return all that is in the folder of the journal."""
    return b"".join(each.read_bytes() for each in sorted(place.parent.glob(f"{place.name}*")))


def rows(place: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(place)) as connection:
        return connection.execute(query).fetchall()


def until(happens: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something happens."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


# What is written comes back


names = st.sampled_from(["a", "b", "über", "数学"])
small = st.integers(0, 6)


class Acts(RuleBasedStateMachine):
    """Any acts in several sessions: what is on the disk then is what is in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.world = World(self.folder / "journal.sqlite")
        self.sessions = self.world.sessions

    def teardown(self) -> None:
        self.is_on_disk()
        self.world.journal.close()
        shutil.rmtree(self.folder)

    @rule(name=names, prompt=st.text(max_size=5), at=st.none() | small)
    def ask(self, name: str, prompt: str, at: int | None) -> None:
        session = self.sessions.find(name)
        with suppress(SessionError):
            if at is not None:
                session.go(at)
        say(session, prompt)
        session.spent.add(Usage(1, 2))

    @rule(name=names, key=st.sampled_from(["temperature", "stop"]), value=st.integers(0, 2) | st.just(""))
    def set(self, name: str, key: str, value: object) -> None:
        layer = Settings({}, frozenset([key])) if value == "" else Settings({key: value})
        self.sessions.find(name).set(layer)

    @rule(name=names, number=small, what=st.sampled_from(["pin", "unpin", "go"]))
    def move(self, name: str, number: int, what: str) -> None:
        with suppress(SessionError):
            getattr(self.sessions.find(name), what)(number)

    @rule(name=names, fact=st.sampled_from(["x", "y"]), what=st.sampled_from(["remember", "forget_fact"]))
    def fact(self, name: str, fact: str, what: str) -> None:
        getattr(self.sessions.find(name), what)(fact)

    @rule(name=names, text=st.text(max_size=3))
    def compact(self, name: str, text: str) -> None:
        self.sessions.find(name).compact(Summary(text, 1))

    @rule(name=names, new=names, at=st.none() | small)
    def fork(self, name: str, new: str, at: int | None) -> None:
        with suppress(SessionError):
            self.sessions.fork(new, at, origin=name)

    @rule(name=names, new=names)
    def rename(self, name: str, new: str) -> None:
        with suppress(SessionError):
            self.sessions.rename(name, new)

    @rule(name=names)
    def delete(self, name: str) -> None:
        with suppress(SessionError):
            self.sessions.delete(name)

    @rule(name=names)
    def use(self, name: str) -> None:
        with suppress(SessionError):
            self.sessions.use(name)

    @rule(count=st.integers(1, 3), what=st.sampled_from(["undo", "redo"]), name=st.none() | names)
    def undo(self, count: int, what: str, name: str | None) -> None:
        with suppress(SessionError):
            getattr(self.sessions, what)(count, name)

    @rule()
    def is_on_disk(self) -> None:
        living = {each.name: each for each in self.sessions if each.turns or each.done or each.undone}
        with World(self.world.journal.text) as other:
            self.world.flush()
            stored = {each.name: each for each in other.library.listed() if not each.gone}
            assert stored.keys() == living.keys()
            for name, each in stored.items():
                again, cut = other.library.bring_back(each, name)
                assert (all_of(again), cut) == (all_of(living[name]), 0)


Acts.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_any_acts = Acts.TestCase


def test_moves_that_end_where_they_began(place: Path) -> None:
    """Acts that bring a session to where it stood are in its undo history all the same."""
    with World(place) as world:
        session = world.say("a", "one", "two")
        world.flush()
        session.go(1)
        session.go(2)
        world.flush()

        assert world.as_stored("a") == all_of(session)


def test_deleted_and_back(place: Path) -> None:
    """A session whose deletion was undone is not kept as deleted."""
    with World(place) as world:
        world.say("a", "one")
        world.flush()
        world.sessions.new("b")
        world.sessions.delete("a")
        world.flush()
        assert world.stored("a").gone
        world.sessions.undo()
        world.flush()

        assert not world.stored("a").gone


def test_all_turns_undone(place: Path) -> None:
    """A session can be brought back, and its turns redone, when all of them were undone."""
    with World(place) as world:
        world.say("a", "one").undo()
    with World(place) as world:
        session = world.library.bring_back(world.library.listed()[0], "a")[0]
        session.redo()

        assert [turn.prompt for turn in session.turns] == ["one"]


def test_written_by_itself(place: Path) -> None:
    """Whatever is done reaches the disk without anybody asking for it."""
    with World(place) as world:
        world.say("a", "one")

        until(lambda: place.exists() and raw(place).count(b"one"))


def test_strange_texts(place: Path) -> None:
    """Lone surrogates, NUL and control characters come back as they were."""
    text = "a\x00b\ud800c\x1b[31m\u202e"
    with World(place) as world:
        session = world.say("a", text)
        world.flush()

        assert world.as_stored("a") == all_of(session)


# Replies that are not over


def test_partial_reply(place: Path) -> None:
    """What has come of a reply is a turn with the status cut, behind the turn it was asked behind."""
    with World(place) as world:
        world.say("a", "one")
        taken = world.begin("a", "two", "some ", "words")
        taken.show(Reasoning("hmm"))
        world.flush()
        taken.show(Delta(" more"))
        world.flush()
        with World(place) as other:
            session, cut = other.library.bring_back(other.stored("a"), "a")

    assert cut == 1
    turn = session.turns[-1]
    assert (turn.prompt, turn.reply, turn.reasoning, turn.status) == ("two", "some words more", "hmm", "cut")
    assert (turn.number, turn.parent and turn.parent.number, turn.model) == (2, 1, "m")


def test_first_reply(place: Path) -> None:
    """What has come of the first reply of a session is there, and the session is not taken for a deleted one."""
    with World(place) as world:
        taken = world.begin("new", "one", "some")
        for text in (" more", " words"):
            world.flush()
            taken.show(Delta(text))
        world.flush()
        with World(place) as other:
            stored = other.stored("new")
            session, _ = other.library.bring_back(stored, "new")

    assert (stored.gone, stored.cut, stored.turns) == (False, 1, 0)
    assert [turn.reply for turn in session.turns] == ["some more words"]


def test_reply_that_is_over(place: Path) -> None:
    """When a reply is over it is there once, as a whole."""
    with World(place) as world:
        taken = world.begin("a", "one", "some")
        world.flush()
        turn = say(world.sessions.find("a"), "one", "some words")
        taken.finish("a", turn, [])
        world.flush()

        assert [each[0].reply for each in world.as_stored("a")["tree"]] == ["some words"]
        assert rows(place, "SELECT * FROM chatmagic_pieces") == []


def test_reply_that_was_just_over(place: Path) -> None:
    """A kernel that dies when a turn is written, and its pieces are not yet gone, leaves the turn once."""
    with World(place) as world:
        world.begin("a", "one", "some")
        world.flush()
        session = world.sessions.find("a")
        session.add(FINISHED)
        world.flush()

        assert world.stored("a").cut == 1
        assert [each[0].reply for each in world.as_stored("a")["tree"]] == ["some words"]


def test_reply_that_failed(place: Path) -> None:
    """Of a reply that failed nothing stays on the disk, nor in memory."""
    with World(place) as world:
        taken = world.begin("a", "one", "secret")
        world.flush()
        taken.fail([])
        world.begin("b", "nothing comes").fail([])
        world.flush()

        assert b"secret" not in raw(place)
        assert world.journal._asks == []
        assert world.library.all() == []


def test_two_replies_at_once(place: Path) -> None:
    """Replies that grow side by side in two sessions are both there."""
    with World(place) as world:
        world.say("a", "one")
        world.sessions.fork("b", origin="a")
        world.begin("a", "two", "in a")
        world.begin("b", "two", "in b")
        world.flush()

        assert [world.as_stored(name)["tree"][-1][0].reply for name in "ab"] == ["in a", "in b"]


# Sessions that were brought back


def test_base_chain(place: Path) -> None:
    """A session that was brought back again and again is whole, and no turn is on the disk twice."""
    for number in range(4):
        with World(place) as world:
            session = world.back("a") if number else world.sessions.find("a")
            say(session, f"prompt {number}")
            session.pin(1)
            session.undo()
            session.redo()
            world.flush()
            assert world.as_stored("a") == all_of(session)

    assert [turn.prompt for turn in session.turns] == ["prompt 0", "prompt 1", "prompt 2", "prompt 3"]
    assert rows(place, "SELECT prompt FROM chatmagic_turns ORDER BY id") == [(f"prompt {n}",) for n in range(4)]


def test_brought_back_twice(place: Path) -> None:
    """Two sessions that come from one go on by themselves."""
    with World(place) as world:
        world.say("a", "one")
    with World(place) as world:
        stored = world.stored("a")
        for name in ("b", "c"):
            say(world.sessions.adopt(world.library.bring_back(stored, name)[0], "resume"), f"in {name}")
        world.flush()
        found = {name: [each[0].prompt for each in world.as_stored(name)["tree"]] for name in "bc"}

    assert found == {"b": ["one", "in b"], "c": ["one", "in c"]}


def test_cut_and_brought_back(place: Path) -> None:
    """A reply that was cut is a turn of the session that was brought back, and of the one after that."""
    with World(place) as world:
        world.say("a", "one")
        world.begin("a", "two", "some")
        world.flush()
    for _ in range(2):
        with World(place) as world:
            session = world.back("a")
            world.flush()

    assert [turn.reply for turn in session.turns] == ["ONE", "some"]
    assert [turn.status for turn in session.turns] == ["complete", "cut"]


def test_undone_resume(place: Path) -> None:
    """A session is listed again when bringing it back was undone."""
    with World(place) as world:
        world.say("a", "one")
    with World(place) as world:
        world.back("a")
        world.flush()
        assert world.library.listed() == []
        world.sessions.undo(name="a")

        assert [each.name for each in world.library.listed()] == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE chatmagic_sessions SET body = '[]'",
        "UPDATE chatmagic_sessions SET body = '{'",
        "UPDATE chatmagic_turns SET body = '{}'",
        "DELETE FROM chatmagic_turns",
        "UPDATE chatmagic_acts SET body = '7'",
        "UPDATE chatmagic_pieces SET body = '{}' WHERE place = 0",
        "UPDATE chatmagic_pieces SET body = '7' WHERE place = 1",
        'UPDATE chatmagic_pieces SET body = \'[["x", "y"]]\' WHERE place = 1',
        'UPDATE chatmagic_pieces SET body = \'{"prompt": "p", "parent": 9}\' WHERE place = 0',
    ],
    ids=["state", "no JSON", "turn", "no turns", "act", "what was asked", "pieces", "kind of piece", "parent of piece"],
)
def test_damaged_session(place: Path, damage: str) -> None:
    """A session that is damaged on the disk cannot be brought back, and that is said."""
    with World(place) as world:
        world.say("a", "one")
        world.begin("a", "two", "some")
        world.flush()
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute(damage)

    with World(place) as world, pytest.raises(RecordError):
        world.back("a")


# Many at once


def test_two_kernels(place: Path) -> None:
    """Two kernels that write to one file at once both write everything."""
    with World(place) as one, World(place) as two:

        def work(world: World, name: str) -> None:
            for number in range(60):
                world.say(name, f"{name} {number}")
                if number % 10 == 0:
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


def test_written_while_it_moves(place: Path) -> None:
    """Whatever is written down while a session moves can be brought back."""
    with World(place) as world, World(place) as reader:
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                world.say("a", "one")
                world.sessions.find("a").undo()
                world.sessions.find("a").redo()
                time.sleep(0.001)

        thread = threading.Thread(target=work)
        world.say("a", "one")
        thread.start()
        try:
            for _ in range(60):
                world.flush()
                stored = reader.stored("a")
                assert reader.library.bring_back(stored, "a")[1] == 0
        finally:
            over.set()
            thread.join()


# What goes wrong


def test_locked(place: Path) -> None:
    """While another program locks the file chat goes on; it is said once, and nothing is lost."""
    with World(place, patience=0.2) as world:
        session = world.say("a", "one")
        world.flush()
        with closing(sqlite3.connect(place, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            world.say("a", "two")
            until(lambda: world.journal.trouble)
            assert world.journal.trouble == (
                "the journal cannot be written (OperationalError: database is locked); chat goes on in memory"
            )
            world.journal.trouble = ""
            world.say("a", "three")
            with pytest.raises(RecordError):
                world.flush()
            time.sleep(0.5)
            assert world.journal.trouble == ""
            other.execute("ROLLBACK")
        until(lambda: rows(place, "SELECT count(*) FROM chatmagic_turns") == [(3,)])

        assert world.as_stored("a") == all_of(session)


def test_trouble_again(place: Path) -> None:
    """Trouble that comes back after it was over is said again."""
    with World(place, patience=0.1) as world:
        world.say("a", "one")
        world.flush()
        for _ in range(2):
            with closing(sqlite3.connect(place, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                world.say("a", "two")
                until(lambda: world.journal.trouble)
                world.journal.trouble = ""
                other.execute("ROLLBACK")
            world.flush()


def test_no_database(place: Path) -> None:
    """A file that is no database stays as it is, and chat goes on."""
    place.write_bytes(b"my thesis " * 1000)
    with World(place, patience=0.1) as world:
        world.say("a", "one")
        until(lambda: world.journal.trouble)

        assert "file is not a database" in world.journal.trouble
        assert place.read_bytes() == b"my thesis " * 1000


def test_damaged_database(place: Path) -> None:
    """A database whose pages are damaged is trouble, and nothing else."""
    with World(place) as world:
        world.say("a", *map(str, range(200)))
    size = place.stat().st_size
    with place.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with World(place, patience=0.1) as world:
        world.say("a", "one")

        until(lambda: world.journal.trouble)
        with pytest.raises(RecordError):
            world.library.listed()


def test_no_folder(tmp_path: Path) -> None:
    """Where a file is in the place of the folder chat goes on; when it is gone all is written."""
    (tmp_path / "folder").write_text("")
    place = tmp_path / "folder" / "journal.sqlite"
    with World(place, patience=0.1) as world:
        session = world.say("a", "one")
        until(lambda: world.journal.trouble)
        assert "chat goes on in memory" in world.journal.trouble
        (tmp_path / "folder").unlink()
        until(lambda: place.exists() and not world.journal._broken)

        assert world.as_stored("a") == all_of(session)


def test_file_taken_away(place: Path) -> None:
    """When the file is deleted under it, the journal is begun anew with all that there is, for the user alone."""
    before = os.umask(0)
    try:
        with World(place, patience=0.1) as world:
            session = world.say("a", "one")
            world.flush()
            place.unlink()
            session = world.say("a", "two")
            until(lambda: place.exists() and place.stat().st_size and not world.journal._broken)
            world.flush()

            assert world.as_stored("a") == all_of(session)
            assert place.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk(disk: Path) -> None:
    """On a full disk chat goes on; when there is space again all is written."""
    place = disk / "journal.sqlite"
    with World(place, patience=0.1) as world:
        world.say("a", "one")
        world.flush()
        with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        session = world.say("a", "long " * 10_000)
        until(lambda: world.journal.trouble)
        assert "chat goes on in memory" in world.journal.trouble
        (disk / "ballast").unlink()
        until(lambda: not world.journal._broken)

        assert world.as_stored("a") == all_of(session)


def test_read_only_disk(disk: Path) -> None:
    """On a disk that cannot be written chat goes on."""
    place = disk / "journal.sqlite"
    with World(place) as world:
        world.say("a", "one")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with World(place, patience=0.1) as world:
        world.say("b", "one")
        until(lambda: world.journal.trouble)

        assert "chat goes on in memory" in world.journal.trouble


def test_newer_version(place: Path) -> None:
    """A journal of a newer version is left byte for byte as it is, and that is said."""
    with World(place) as world:
        world.say("a", "one")
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("UPDATE chatmagic_meta SET value = '2' WHERE name = 'version'")
    before = raw(place)
    with World(place) as world:
        world.say("b", "two")
        until(lambda: world.journal.trouble)
        said = world.journal.trouble
        with pytest.raises(RecordError, match="newer chatmagic"):
            world.library.listed()
    assert raw(place) == before
    assert said.startswith("the journal was written by a newer chatmagic (format 2; this one knows 1)")


def test_refused_at_the_end(place: Path) -> None:
    """A process whose journal cannot be used ends silently."""
    place.write_bytes(b"")
    code = (
        "import atexit, time\nfrom tests.journal import World\nworld = World('nodb+driver://x')\n"
        "atexit.register(world.journal.close)\nworld.say('a', 'one')\n"
        "while not world.journal.trouble: time.sleep(0.01)\ntime.sleep(0.1)\nworld.say('a', 'two')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert (ran.stdout, ran.stderr) == ("", "")


@pytest.mark.parametrize("version", [1])
def test_every_version(place: Path, version: int) -> None:
    """A journal of every version that was ever released can be read, searched and gone on with."""
    with closing(sqlite3.connect(place)) as connection:
        connection.executescript((DATA / f"journal-{version}.sql").read_text("utf-8"))
    with World(place) as world:
        session = world.back("tutor")
        assert [turn.reply for turn in session.turns] == ["Hello Ada", "Your name is Ada", "You are"]
        assert [turn.status for turn in session.turns] == ["complete", "complete", "cut"]
        assert session.settings.system == "Be kind"
        assert session.state.facts == ("a fact",)
        assert session.state.pinned == {1}
        assert [act.what for act in session.done][:2] == ["set system", "turn #1"]
        assert [found.number for found, _ in world.library.search("hello")] == [1]
        say(session, "on")
        world.flush()

        assert world.as_stored("tutor") == all_of(session)


# Whom it belongs to


def test_mode(place: Path) -> None:
    """Nobody but the user may read the file, whatever the process gives new files."""
    before = os.umask(0)
    try:
        with World(place) as world:
            world.say("a", "one")
    finally:
        os.umask(before)

    assert place.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://ada:secret@host/chat",
        "postgresql://:secret@host/chat",
        "postgresql://ada:se/cret@host/chat",
        "postgresql://ada:se:cret@host",
        "mysql+pymysql://ada:secret@host:3306/chat?x=1",
        "postgresql+psycopg://host/chat?password=secret",
        "postgresql+psycopg://host/chat?user=ada&password=secret",
    ],
)
def test_passwords(url: str) -> None:
    """A URL with a password is refused, and not repeated."""
    with pytest.raises(RecordError, match="PGPASSWORD") as caught:
        without_password(url)

    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "/home/a:b@c/journal.sqlite", "postgresql+psycopg://ada@host:5432/chat", "postgresql:///chat?host=/run/x"],
)
def test_no_passwords(text: str) -> None:
    """A place without a password is taken as it is."""
    assert without_password(text) == text


@pytest.mark.parametrize("text", ["nodb://ada@host/x", "postgresql+nodriver://ada@host/x", "://", "a b://x"])
def test_no_such_database(text: str) -> None:
    """A URL of a database that nobody knows is an error that says what a place looks like."""
    with pytest.raises(RecordError, match=r"Give a path, or a URL like postgresql\+psycopg://user@host/database"):
        place_of(text)


def test_fork_of_the_process(place: Path) -> None:
    """A copy of the process writes nothing, and does not wait for what the other one does."""
    with World(place) as world:
        world.say("a", "one")
        world.flush()
        with world.journal._writing:
            child = os.fork()
            if child == 0:
                world.say("a", "of the child")
                world.flush()
                world.begin("a", "two", "of the child")
                world.journal.close()
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        world.say("a", "two")
        world.flush()

        assert rows(place, "SELECT prompt FROM chatmagic_turns") == [("one",), ("two",)]


# What is not written, and what is deleted


def test_temporary(place: Path) -> None:
    """Of a temporary session, and of a fork of it, nothing reaches the disk."""
    with World(place) as world:
        world.say("other", "one")
        session = world.sessions.new("hidden", Settings({"system": "hush"}), temporary=True)
        say(session, "hush")
        world.sessions.fork("hidden-too", origin="hidden")
        say(world.sessions["hidden-too"], "hush")
        world.begin("hidden", "hush", "hush")
        world.flush()

        assert b"hush" not in raw(place)
        assert b"hidden" not in raw(place)
        assert [each.name for each in world.library.all()] == ["other"]


SECRET = "supercalifragilistic"


def is_gone(place: Path) -> bool:
    """Return whether neither the secret nor a part that an index could keep is in the files."""
    found = raw(place)
    return not any(SECRET[begin : begin + 8].encode() in found for begin in range(0, len(SECRET) - 8, 3))


def secretive(world: World, name: str) -> None:
    """Leave the secret in every place where one can be."""
    session = world.sessions.find(name)
    session.set(Settings({"system": f"{SECRET} system"}))
    say(session, f"my {SECRET} prompt", f"a {SECRET} reply", Settings({"stop": SECRET}))
    session.remember(f"{SECRET} fact")
    session.compact(Summary(f"{SECRET} summary", 1))
    session.undo()
    for number in range(50):  # more than a page of the index
        say(session, f"{SECRET}{number} and {SECRET}")
    world.begin(name, f"{SECRET} asked", f"{SECRET} came")


def test_forget(place: Path) -> None:
    """What is forgotten is in no byte of the file any more, and what is not is all there."""
    with World(place) as world:
        kept = world.say("kept", *(f"harmless {number}" for number in range(50)))
        secretive(world, "gone")
        world.flush()
    with World(place) as world:
        assert not is_gone(place)
        turns = world.library.forget([world.stored("gone")])

        assert turns == 51
        assert is_gone(place)
        assert world.as_stored("kept") == all_of(kept)
        assert len(world.library.search("harmless")) == 50
        assert world.library.search(SECRET) == []


def test_forget_what_was_brought_back(place: Path) -> None:
    """With a session all those are forgotten that it was brought back from."""
    with World(place) as world:
        secretive(world, "a")
    for _ in range(2):
        with World(place) as world:
            world.back("a")
    with World(place) as world:
        world.library.forget([world.stored("a")])

        assert is_gone(place)
        assert world.library.all() == []


def test_forget_one_of_two(place: Path) -> None:
    """Of a session whose beginning a fork shares, that beginning stays, and all else is gone."""
    with World(place) as world:
        world.say("a", "shared")
        world.sessions.fork("b", origin="a", switch=False)
        secretive(world, "a")
        session = world.say("b", "own", "more")
        session.undo()
        world.flush()
        turns = world.library.forget([world.stored("a")])

        assert turns == 51
        assert is_gone(place)
        stored = world.as_stored("b")
        assert stored["done"] == all_of(session)["done"]
        assert stored["undone"] == all_of(session)["undone"]
        assert stored["state"] == all_of(session)["state"]


def test_forget_behind_a_resumed_one(place: Path) -> None:
    """Of a session that two were brought back from, the one that stays keeps what it stands on."""
    with World(place) as world:
        world.say("a", "one", "two")
    with World(place) as world:
        stored = world.stored("a")
        for name in ("b", "c"):
            world.sessions.adopt(world.library.bring_back(stored, name)[0], "resume")
        secretive(world, "b")
        session = world.say("c", "three")
        world.flush()
        world.library.forget([world.stored("b")])

        assert is_gone(place)
        assert world.as_stored("c") == all_of(session)


def test_forgotten_and_alive(place: Path) -> None:
    """A session that was forgotten is not written again, nor what its reply still brings; its fork is."""
    with World(place) as world:
        world.say("a", SECRET)
        world.sessions.fork("b", 0, origin="a", switch=False)
        taken = world.begin("a", "one", SECRET)
        world.flush()
        world.library.forget([world.stored("a")])
        taken.show(Delta(SECRET))
        world.flush()
        taken.finish("a", say(world.sessions["a"], SECRET), [])
        world.sessions["a"].undo()
        session = world.say("b", "harmless")
        world.flush()

        assert is_gone(place)
        assert [each.name for each in world.library.all()] == ["b"]
        assert world.as_stored("b")["line"] == [session.turns[0].number]


def test_forgotten_elsewhere(place: Path) -> None:
    """A session that another kernel has forgotten is not written again, and that is said; new ones are."""
    with World(place) as world, World(place) as other:
        secretive(world, "a")
        world.flush()
        other.library.forget(other.library.all())
        assert is_gone(place)
        world.say("a", SECRET)
        world.flush()
        assert is_gone(place)
        assert world.journal.trouble == "'a' was deleted from the journal elsewhere, and is not written any more"
        world.say("new", "one")
        world.flush()

        assert [each.name for each in other.library.listed()] == ["new"]


def test_forgotten_while_deleted(place: Path) -> None:
    """A session that was forgotten while it was deleted is not written again when it comes back."""
    with World(place) as world:
        secretive(world, "a")
        world.sessions.new("b")
        world.sessions.delete("a")
        world.flush()
        world.library.forget(world.library.all())
        world.sessions.undo()
        world.flush()

        assert is_gone(place)


def test_after_all_was_forgotten(place: Path) -> None:
    """What is begun after all was forgotten is listed by the next kernel."""
    with World(place) as world:
        world.say("a", "one")
        world.flush()
        world.library.forget(world.library.all())
        world.say("b", "two")
        world.flush()
    with World(place) as world:
        assert [each.name for each in world.library.listed()] == ["b"]


# Search

SAID = {
    "cats": ("Tell me about cats", "A cat has whiskers and nine_lives"),
    "german": ("Was heißt Straße?", "It is a street, or a road; naïve"),
    "chinese": ("数学は楽しい", "機械学習について"),
    "signs": ("100% of a_b is 50%", 'he said "NEAR the sea" - or not'),
    "code": ("C++ vector<int>", "path\\to\\file AND foo*bar"),
}

SEARCHES: dict[str, tuple[str, list[str]]] = {
    "a word": ("whiskers", ["cats"]),
    "other letters": ("WHISKERS", ["cats"]),
    "the beginning of a word": ("whisk", ["cats"]),
    "the middle of a word": ("iskers", ["cats"]),
    "words far apart": ("whiskers tell", ["cats"]),
    "parts of words far apart": ("iskers ell", ["cats"]),
    "a word that is missing": ("whiskers road", []),
    "an accent": ("naïve", ["german"]),
    "ß": ("straße", ["german"]),
    "Chinese, the beginning": ("数学", ["chinese"]),
    "Chinese, the middle": ("楽しい", ["chinese"]),
    "Chinese, both sides": ("楽しい 学習", ["chinese"]),
    "an underscore": ("nine_lives", ["cats"]),
    "a percent sign": ("%", ["signs"]),
    "an underscore alone": ("_", ["cats", "signs"]),
    "a percent sign in a word": ("50%", ["signs"]),
    "a backslash": ("\\", ["code"]),
    "a quote": ('"', ["signs"]),
    "a quoted word": ('"NEAR', ["signs"]),
    "an operator alone": ("NEAR", ["signs"]),
    "an operator between": ("foo AND bar", ["code"]),
    "no operator": ("cats OR street", []),
    "NOT": ("sea NOT", ["signs"]),
    "a star": ("*", ["code"]),
    "a star in a word": ("foo*bar", ["code"]),
    "a dash": ("-", ["signs"]),
    "a column": ("prompt:cats", []),
    "brackets": ("(", []),
    "plus": ("c++", ["code"]),
    "a caret": ("^cats", []),
    "a quote in SQL": ("';--", []),
}


@pytest.fixture
def said(place: Path) -> Iterator[World]:
    """A kernel after one in which something was said."""
    with World(place) as world:
        for name, (prompt, reply) in SAID.items():
            say(world.sessions.find(name), prompt, reply)
    with World(place) as world:
        yield world


@pytest.mark.parametrize(("text", "names"), SEARCHES.values(), ids=SEARCHES.keys())
def test_search(said: World, text: str, names: list[str]) -> None:
    """A search finds the turns that have all words, also as parts of words, and takes no sign for an operator."""
    assert sorted(found.session.name for found, _ in said.library.search(text)) == sorted(names)


def test_search_in_old_trees(place: Path) -> None:
    """A turn of a session that was brought back is found once, in the newest of them."""
    with World(place) as world:
        world.say("a", "needle")
    with World(place) as world:
        say(world.sessions.adopt(world.library.bring_back(world.stored("a"), "b")[0], "resume"), "other")
    with World(place) as world:
        assert [(found.session.name, found.number) for found, _ in world.library.search("needle")] == [("b", 1)]


def test_search_knows_the_living(place: Path) -> None:
    """A turn of a session of this kernel comes with it."""
    with World(place) as world:
        session = world.say("a", "needle")

        assert [living for _, living in world.library.search("needle")] == [session]


# The verbs


@pytest.fixture
def far(kernel: magics.Kernel, client: FakeClient) -> FakeClient:
    """The other end of the wire of the shell."""
    kernel.client = client
    return client


@pytest.fixture
def run(
    shell: InteractiveShell,
    kernel: magics.Kernel,
    far: FakeClient,  # noqa: ARG001 - it is asked
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """Run a cell in a shell with a journal; return what it wrote, or the text of the error that it must raise."""
    traits(kernel).journal = str(place)
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/book.ipynb")

    def run(code: str, fails: type[ChatMagicError] | None = None) -> str:
        capsys.readouterr()
        runner: Any = shell
        result = runner.run_cell(code)
        error = result.error_before_exec or result.error_in_exec
        if fails is None:
            result.raise_error()
            return capsys.readouterr().out
        assert type(error) is fails
        return str(error)

    return run


def traits(kernel: magics.Kernel) -> Any:
    """Return what %config sets."""
    return kernel.magics


@pytest.fixture
def earlier(place: Path) -> None:
    """An earlier kernel had two sessions, and one that it deleted."""
    with World(place) as world:
        world.say("tutor", "first question", "second question")
        world.say("review", "third question")
        world.say("dropped", "fourth question")
        world.flush()
        world.sessions.delete("dropped")


@pytest.mark.usefixtures("earlier")
def test_resume(run: Callable[..., str], kernel: magics.Kernel) -> None:
    """%chat resume lists what there is, brings one back by its name, and %chat undo takes that back."""
    listed = run("%chat resume")
    assert [line.split()[1] for line in listed.splitlines()[1:4]] == ["dropped", "review", "tutor"]
    assert "deleted" in listed
    assert "second question" in listed
    assert "'tutor' is back: 2 turns, asked just now in book.ipynb." in run("%chat resume tutor")
    assert kernel.sessions.current == "tutor"
    run("%%chat\nagain")
    assert [turn.prompt for turn in kernel.sessions["tutor"].turns] == ["first question", "second question", "again"]
    run("%chat undo 2")
    assert "tutor" not in kernel.sessions


@pytest.mark.usefixtures("earlier")
def test_resume_by_number(run: Callable[..., str], kernel: magics.Kernel) -> None:
    """%chat resume takes the number of its list, and --as another name."""
    run("%chat resume 3 --as teacher")

    assert [turn.prompt for turn in kernel.sessions["teacher"].turns] == ["first question", "second question"]


@pytest.mark.usefixtures("earlier")
def test_resume_all(run: Callable[..., str], kernel: magics.Kernel) -> None:
    """%chat resume --all brings back what the last kernel of the notebook had, but not what it deleted."""
    run("%chat resume --all")

    assert sorted(session.name for session in kernel.sessions) == ["review", "tutor"]


@pytest.mark.usefixtures("earlier")
def test_resume_all_or_none(run: Callable[..., str], kernel: magics.Kernel) -> None:
    """%chat resume --all brings back nothing where one of the names is taken."""
    run("%%chat tutor\nhello")
    run("%chat resume --all", fails=RecordError)

    assert [session.name for session in kernel.sessions] == ["tutor"]


BAD = {
    "no such session": ("%chat resume nobody", RecordError, "no session 'nobody' of an earlier kernel"),
    "no such number": ("%chat resume 9", RecordError, "there is no number 9 in the list of %chat resume"),
    "no name": ("%chat resume a/b", SessionError, "cannot name a session"),
    "a name that is taken": ("%chat resume tutor", RecordError, "%chat resume tutor --as OTHER"),
    "another name that is taken": ("%chat resume review --as tutor", RecordError, "there is a session 'tutor'"),
    "another name that is none": ("%chat resume review --as a/b", SessionError, "cannot name a session"),
    "a name and --all": ("%chat resume review --all", LineError, "one of NAME"),
    "--as without a name": ("%chat resume --as x", LineError, "one of NAME"),
    "--as with --all": ("%chat resume --all --as x", LineError, "one of NAME"),
    "search for nothing": ("%chat search", LineError, "TEXT"),
    "forget nothing": ("%chat forget", LineError, "one of NAME, --all and --before DATE"),
    "forget a name and all": ("%chat forget tutor --all", LineError, "one of NAME, --all and --before DATE"),
    "forget all before": ("%chat forget --all --before 2026-01-01", LineError, "one of NAME"),
    "forget a name before": ("%chat forget a --before 2026-01-01", LineError, "one of NAME"),
    "no date": ("%chat forget --before yesterday", LineError, "'yesterday' is no date: write it as 2026-11-23"),
    "a day that is none": ("%chat forget --before 2026-02-30", LineError, "is no date"),
    "a year that is too early": ("%chat forget --before 0001-01-01", LineError, "is no date"),
    "forget no name": ("%chat forget a/b --yes", SessionError, "cannot name a session"),
}


@pytest.mark.usefixtures("earlier")
@pytest.mark.parametrize(("line", "error", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input(run: Callable[..., str], place: Path, line: str, error: type[ChatMagicError], said: str) -> None:
    """Bad input is an error of one sentence, and nothing is changed by it."""
    run("%%chat tutor\nhello")

    assert said in run(line, fails=error)
    with World(place) as world:
        assert {each.name for each in world.library.all()} == {"tutor", "review", "dropped"}


@pytest.mark.parametrize("line", ["%chat resume", "%chat resume a", "%chat forget a"])
def test_no_journal(run: Callable[..., str], kernel: magics.Kernel, line: str) -> None:
    """Where there is no journal, verbs that need one say how to begin one."""
    traits(kernel).journal = ""

    assert run(line, fails=RecordError) == "there is no journal: %config ChatMagic.journal = 'PATH' begins one"


def test_nothing_stored(run: Callable[..., str]) -> None:
    """Where nothing is stored that is said, with the place."""
    assert "No session of an earlier kernel is in the journal" in run("%chat resume")
    assert "Nothing of that is in the journal." in run("%chat forget --all --yes")


@pytest.mark.usefixtures("earlier")
def test_search_verb(run: Callable[..., str]) -> None:
    """%chat search finds turns of this kernel and of earlier ones, each once, and says how to get there."""
    run("%%chat here\nanother question")
    found = run("%chat search question").splitlines()[1:]

    assert sum("%chat show here 1" in line for line in found) == 1
    assert sum("%chat resume tutor" in line for line in found) == 2
    assert len([line for line in found if line.strip()]) == 5
    assert "No turn in this kernel or the journal has 'nowhere'." in run("%chat search nowhere")


def test_search_without_journal(run: Callable[..., str], kernel: magics.Kernel) -> None:
    """%chat search finds turns of this kernel where there is no journal, also those that were set aside."""
    traits(kernel).journal = ""
    run("%%chat here\nanother question")
    run("%chat undo")

    assert "%chat use here --at 1" in run("%chat search QUESTION ANOTHER")
    assert "No turn in this kernel (there is no journal) has 'x y'." in run("%chat search x y")


@pytest.mark.usefixtures("earlier")
def test_forget_verb(run: Callable[..., str], place: Path) -> None:
    """%chat forget says what it would delete and deletes nothing; with --yes it does."""
    said = run("%chat forget tutor")
    assert "This would delete 1 session (tutor in book.ipynb) with 2 turns from the disk, for good." in said
    assert "%chat forget tutor --yes does it." in said
    assert b"second question" in raw(place)
    assert "Deleted from the disk: 1 session (tutor in book.ipynb) with 2 turns; 2 stored turns gone." in run(
        "%chat forget tutor --yes"
    )
    assert b"second question" not in raw(place)
    assert b"third question" in raw(place)


@pytest.mark.usefixtures("earlier")
def test_forget_before(run: Callable[..., str], place: Path) -> None:
    """%chat forget --before deletes what was asked last before that day, and nothing else."""
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("UPDATE chatmagic_sessions SET updated = 1700000000 WHERE name = 'tutor'")

    assert "Nothing of that" in run("%chat forget --before 2023-11-01 --yes")
    assert "1 session (tutor in book.ipynb)" in run("%chat forget --before 2023-11-20 --yes")
    assert b"second question" not in raw(place)
    assert b"third question" in raw(place)


def test_once_is_not_written(run: Callable[..., str], kernel: magics.Kernel, place: Path) -> None:
    """A prompt that is asked with --once, and its reply, never reach the disk; nor does a temporary session."""
    run("%%chat tutor\nharmless")
    run(f"%%chat tutor --once\n{SECRET}")
    run("%chat new hidden --temporary")
    run(f"%%chat\n{SECRET}")
    kernel.unjournal()

    assert b"harmless" in raw(place)
    assert is_gone(place)
    assert b"hidden" not in raw(place)


def test_a_stream_that_breaks(run: Callable[..., str], far: FakeClient, kernel: magics.Kernel, place: Path) -> None:
    """A reply that the server cut is stored once, as the turn that it is."""
    far.answers = [[Sending("fake"), Delta("some words"), RuntimeError("broken"), Finished("stop")]]
    with pytest.raises(RuntimeError):
        run("%%chat tutor\nhello")
    kernel.unjournal()

    assert rows(place, "SELECT reply FROM chatmagic_turns") == [("some words",)]
    assert rows(place, "SELECT * FROM chatmagic_pieces") == []


def test_a_refused_prompt_leaves_nothing(run: Callable[..., str], far: FakeClient, kernel: magics.Kernel) -> None:
    """A prompt that is too long to be sent is not waited for."""
    far.window = 10
    with pytest.raises(ChatMagicError):
        run("%%chat tutor\n" + "word " * 5000)

    assert kernel.journal
    assert kernel.journal._asks == []


def test_trouble_is_said_once(run: Callable[..., str], kernel: magics.Kernel, tmp_path: Path) -> None:
    """What is wrong with the journal is a notice of the next turn, once, and every reply is there."""
    (tmp_path / "file").write_text("")
    traits(kernel).journal = f"sqlite:///{tmp_path}/file/journal.sqlite"  # no look at it shows that it cannot be
    first = run("%%chat tutor\none")
    assert kernel.journal
    until(lambda: kernel.journal and kernel.journal.trouble)
    second, third = run("%%chat tutor\ntwo"), run("%%chat tutor\nthree")

    assert "chat goes on in memory" not in first + third
    assert second.count("chat goes on in memory") == 1
    assert [turn.reply for turn in kernel.sessions["tutor"].turns] == ["one", "two", "three"]


def test_another_place(run: Callable[..., str], kernel: magics.Kernel, tmp_path: Path) -> None:
    """When the place is changed, all there is goes to the new one; an empty place ends the journal."""
    run("%%chat tutor\none")
    traits(kernel).journal = str(tmp_path / "other.sqlite")
    run("%%chat tutor\ntwo")
    traits(kernel).journal = ""
    run("%%chat tutor\nthree")
    assert kernel.journal is None

    assert rows(tmp_path / "journal.sqlite", "SELECT prompt FROM chatmagic_turns") == [("one",)]
    assert rows(tmp_path / "other.sqlite", "SELECT prompt FROM chatmagic_turns") == [("one",), ("two",)]


def test_no_password_in_the_configuration(run: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
    """%config refuses a URL with a password, and does not show it."""
    said = run("%config ChatMagic.journal = 'postgresql://ada:secret@host/db'")

    assert "PGPASSWORD" in caplog.text
    assert "secret" not in said + caplog.text + run("%config ChatMagic")
