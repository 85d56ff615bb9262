"""What the journal does for a notebook: keys stay out of it, and sessions come back by themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from chatmagic import magics
from chatmagic.conversation.record import turn_record
from chatmagic.errors import ChatMagicWarning, LineError, RecordError
from chatmagic.testing import FakeClient
from tests.journal import World

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def run(
    shell: InteractiveShell,
    kernel: magics.Kernel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], str]:
    """Run a cell in a shell whose journal is journal.sqlite; return what it wrote."""
    kernel.client = FakeClient()
    traits: Any = kernel.magics
    traits.journal = str(tmp_path / "journal.sqlite")
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/book.ipynb")

    def run(code: str) -> str:
        capsys.readouterr()
        runner: Any = shell
        runner.run_cell(code).raise_error()
        return capsys.readouterr().out

    return run


def written(kernel: magics.Kernel, tmp_path: Path) -> bytes:
    """Return what is on the disk when all is written."""
    kernel.unjournal()
    return (tmp_path / "journal.sqlite").read_bytes()


def test_keys_reach_no_file(
    run: Callable[[str], str], kernel: magics.Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of an endpoint that was typed into a prompt or a setting is not in the journal; the rest of the text is."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    run(f'%%chat tutor -s \'mine is {KEY}\' --set extra_headers={{"x":"other-secret"}}\nis {KEY} a good password?')
    found = written(kernel, tmp_path)

    assert b"a good password?" in found
    assert KEY.encode() not in found
    assert b"other-secret" not in found


def test_a_notebook_gets_its_sessions_back(
    run: Callable[[str], str], kernel: magics.Kernel, shell: Any, tmp_path: Path
) -> None:
    """With autoresume, loading brings back what the last kernel of this notebook had, and nothing of another one."""
    place = tmp_path / "journal.sqlite"
    with World(place, "/home/ada/other.ipynb") as other:
        other.say("foreign", "a question")
    with World(place) as old:
        old.say("tutor", "older")
    with World(place) as last:
        last.say("tutor", "first", "second")
        last.say("review", "third")
    shell.extension_manager.unload_extension("chatmagic")
    shell.config.ChatMagic.autoresume = True
    shell.config.ChatMagic.journal = str(place)
    shell.extension_manager.load_extension("chatmagic")

    assert {each.name: len(each.turns) for each in kernel.sessions} == {"tutor": 2, "review": 1}
    assert run("%chat undo") == "Undone: resume 'review'. 'tutor' has 2 turns now. %chat redo repeats it.\n"


def test_no_autoresume_for_a_tape(
    kernel: magics.Kernel, shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook that is recorded or tested begins without what an earlier kernel had."""
    with World(tmp_path / "journal.sqlite", "") as old:
        old.say("main", "first")
    shell.extension_manager.unload_extension("chatmagic")
    shell.config.ChatMagic.autoresume = True
    shell.config.ChatMagic.journal = str(tmp_path / "journal.sqlite")
    monkeypatch.setenv("CHATMAGIC_TAPE", "a.tape")
    shell.extension_manager.load_extension("chatmagic")
    assert len(kernel.sessions) == 0

    monkeypatch.delenv("CHATMAGIC_TAPE")
    shell.extension_manager.reload_extension("chatmagic")
    assert [each.name for each in kernel.sessions] == ["main"]


def test_autoresume_that_fails_is_a_warning(shell: Any, tmp_path: Path) -> None:
    """A journal that cannot be read does not keep chatmagic from being loaded."""
    place = tmp_path / "journal.sqlite"
    place.write_text("no database at all " * 100)
    shell.extension_manager.unload_extension("chatmagic")
    shell.config.ChatMagic.autoresume = True
    shell.config.ChatMagic.journal = str(place)
    with pytest.warns(ChatMagicWarning, match="no session was brought back"):
        shell.extension_manager.load_extension("chatmagic")


def test_redo_comes_back_as_well(run: Callable[[str], str], kernel: magics.Kernel, tmp_path: Path) -> None:
    """What had been undone when a kernel ended can be redone in the next one."""
    with World(tmp_path / "journal.sqlite") as old:
        old.say("tutor", "first", "second").undo()
    run("%chat resume tutor")

    assert len(kernel.sessions["tutor"].turns) == 1
    assert "Redone: turn #2" in run("%chat redo")


def test_what_was_deleted_here_is_found(run: Callable[[str], str]) -> None:
    """A turn of a session that this kernel has deleted is found, with the way that brings it back."""
    run("%%chat tutor\na needle")
    run("%chat new other")
    run("%chat delete tutor")

    assert "%chat undo" in run("%chat search needle")


def saved(path: Path, *turns: dict[str, Any]) -> None:
    """Write a notebook that shows *turns*, a cell each."""
    outputs = [{"output_type": "display_data", "data": {}, "metadata": {"chatmagic": each}} for each in turns]
    cells = [
        {"cell_type": "code", "id": f"c{n}", "source": "", "metadata": {}, "execution_count": 1, "outputs": [output]}
        for n, output in enumerate(outputs)
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def test_back_from_a_notebook(run: Callable[[str], str], kernel: magics.Kernel, tmp_path: Path) -> None:
    """Without a journal the sessions come back from what a saved notebook shows, branches and all."""
    with World(tmp_path / "other.sqlite") as world:
        session = world.say("tutor", "first", "second")
        session.go(1)
        world.say("tutor", "third")
        records = [
            {"session": "tutor", **turn_record(turn), "in_conversation": turn in session} for turn in session.tree.turns
        ]
    saved(tmp_path / "old.ipynb", *records)
    run("%config ChatMagic.journal = ''")
    said = run(f"%chat resume --from {tmp_path / 'old.ipynb'}")

    assert "'tutor' (2 turns)" in said
    assert [turn.prompt for turn in kernel.sessions["tutor"].turns] == ["first", "third"]
    assert len(kernel.sessions["tutor"].tree.turns) == 3
    run("%chat undo")
    assert "tutor" not in kernel.sessions


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        ("--from nowhere.ipynb", RecordError, "'nowhere.ipynb' cannot be read"),
        ("--from x --all", LineError, "takes one of NAME"),
        ("tutor --from x", LineError, "takes one of NAME"),
    ],
)
def test_bad_lines(run: Callable[[str], str], line: str, error: type[Exception], says: str) -> None:
    """What cannot be brought back is an error that says why."""
    with pytest.raises(error, match=says):
        run(f"%chat resume {line}")


def test_a_copy_of_what_goes_on_elsewhere(run: Callable[[str], str], tmp_path: Path) -> None:
    """What is brought back from a kernel that still runs is a copy; what that one says later can be, too."""
    with World(tmp_path / "journal.sqlite", "/home/ada/b.ipynb") as other:
        other.say("bee", "from b")
        other.flush()
        assert "this is a copy" in run("%chat resume bee")
        other.say("bee", "later in b")
        other.flush()

    assert "later in b" in run("%chat resume")
    assert "'again' is back: 2 turns" in run("%chat resume bee --as again")


def test_what_is_here_already(run: Callable[[str], str], tmp_path: Path) -> None:
    """A cell that brings a session back may run twice."""
    with World(tmp_path / "journal.sqlite") as old:
        old.say("tutor", "first")
    run("%chat resume tutor")

    assert run("%chat resume tutor") == "'tutor' is here already; nothing has changed.\n"


def test_search_without_the_journal(run: Callable[[str], str], tmp_path: Path) -> None:
    """Where the journal cannot be read, what is in memory is found, with a line that says so."""
    (tmp_path / "journal.sqlite").write_text("no database at all " * 100)
    run("%%chat tutor\na needle")
    said = run("%chat search needle")

    assert "%chat show tutor 1" in said
    assert "only this kernel was searched" in said


def test_a_note_says_what_a_notebook_lacks(run: Callable[[str], str], tmp_path: Path) -> None:
    """Turns that a saved notebook does not show are counted."""
    with World(tmp_path / "other.sqlite") as world:
        session = world.say("tutor", "first", "second", "third")
        records = [{"session": "tutor", **turn_record(turn)} for turn in session.tree.turns]
    saved(tmp_path / "old.ipynb", records[0], records[2])

    assert "1 turn of it not in the notebook" in run(f"%chat resume --from {tmp_path / 'old.ipynb'}")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("", "it is a folder"),
        ("other.txt", "the file holds something else"),
        ("other.txt/x", "cannot be made in"),
    ],
    ids=["folder", "another file", "file as a folder"],
)
def test_what_is_plainly_wrong_is_said_at_once(
    run: Callable[[str], str], kernel: magics.Kernel, tmp_path: Path, place: str, says: str
) -> None:
    """Where no journal can be, the first chat cell says so, once."""
    (tmp_path / "other.txt").write_text("no database")
    traits: Any = kernel.magics
    traits.journal = str(tmp_path / place)

    assert re.search(f"{says}.*chat goes on in memory", run("%%chat tutor\nhi"))
    assert "chat goes on in memory" not in run("%%chat tutor\nhi")


def test_loaded_again_it_is_the_same_kernel(run: Callable[[str], str], kernel: magics.Kernel, tmp_path: Path) -> None:
    """%reload_ext goes on with what was written: no session is there twice, and what comes after it is written, too."""
    run("%%chat tutor\nfirst")
    shell: Any = kernel.magics.shell if kernel.magics else None
    shell.config.ChatMagic.journal = str(tmp_path / "journal.sqlite")
    run("%reload_ext chatmagic")
    run("%%chat tutor\nsecond")

    assert "No session of an earlier kernel" in run("%chat resume")
    kernel.unjournal()
    with World(tmp_path / "journal.sqlite") as other:
        assert [each.turns for each in other.library.all()] == [2]


def test_what_a_tape_says_begins_no_journal(run: Callable[[str], str], kernel: magics.Kernel, tmp_path: Path) -> None:
    """A notebook that is tested leaves nothing in the journal; what is asked live behind it brings the rest along."""
    kernel.client = None
    run(f"%chat record '{tmp_path}/a.tape'")
    run("%%chat tutor -m demo\nfirst of all")
    kernel.unjournal()
    (tmp_path / "journal.sqlite").unlink()
    run(f"%chat replay '{tmp_path}/a.tape'")
    run("%%chat again -m demo\nfirst of all")
    assert not (tmp_path / "journal.sqlite").exists()

    run("%chat live")
    run("%%chat again\nsecond and live")
    found = written(kernel, tmp_path)

    assert b"second and live" in found
    assert b"first of all" in found
