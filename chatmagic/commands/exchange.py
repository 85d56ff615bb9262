"""The verbs that write sessions to files, and take in conversations from files."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatmagic import files
from chatmagic.commands.verb import Answer, Desk, Verb, count_of
from chatmagic.conversation.session import session_name
from chatmagic.display.page import footer, table
from chatmagic.errors import LineError, RecordError, SessionError
from chatmagic.line import Form, Option
from chatmagic.plain import one_line

if TYPE_CHECKING:
    from chatmagic.conversation.session import Session
    from chatmagic.exchange.conversation import Conversation

__all__ = ["VERBS", "from_notebook"]

MOST_ROWS = 1000
_PICK = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)

Wanted = Callable[[int], bool]


def _export(desk: Desk, values: dict[str, Any]) -> Answer:
    from chatmagic.exchange.writing import save

    if values["all"] and values["session"] is not None:
        raise LineError("--all and --session exclude each other")
    sessions = list(desk.sessions) if values["all"] else [desk.session(values["session"])]
    if not sessions:
        raise SessionError("there is no session to export yet. Start one with %%chat NAME")
    path = files.named(values["file"])
    save(sessions, path, footer, several=values["all"], force=values["force"], secrets=desk.edge.secrets)
    what = f"{len(sessions)} sessions" if values["all"] else repr(sessions[0].name)
    turns = sum(len(session.turns) for session in sessions)
    return f"Written to {str(path)!r}: {what}, {count_of(turns, 'turn')}{_left_out(path, sessions)}"


def _left_out(path: Path, sessions: list[Session]) -> str:
    """Say what a file of this kind does not hold."""
    aside = sum(len(session.tree.turns) for session in sessions) - sum(len(session.turns) for session in sessions)
    return "." if path.suffix.lower() == ".json" or not aside else ". Turns set aside are in .json files only."


@dataclass
class _Look:
    """What a file holds, as far as it was read, of which only the *wanted* conversations are kept."""

    path: Path
    wanted: Wanted
    last: int  # what comes behind it is not wanted
    rows: list[list[str]] = field(default_factory=list)
    kept: dict[int, Conversation] = field(default_factory=dict)
    count: int = 0
    turns: int = 0
    problem: RecordError | None = None

    def read(self) -> _Look:
        """Go through the file, up to the last one that is wanted or to where it is broken."""
        try:
            for conversation in self._conversations():
                self._take(conversation)
                if self.count >= self.last:
                    break
        except RecordError as exc:
            if not self.count:
                raise
            self.problem = exc
        return self

    def _conversations(self) -> Iterator[Conversation]:
        from chatmagic.exchange.reading import conversations

        return conversations(self.path)

    def _take(self, conversation: Conversation) -> None:
        self.count += 1
        if self.wanted(self.count):
            self.kept[self.count] = conversation
        if len(self.rows) < MOST_ROWS:
            self.rows.append(_row(self.count, conversation))


def _row(number: int, found: Conversation) -> list[str]:
    turns = f"{found.turns:,}" if found.session else "?"
    return [str(number), one_line(found.title, 60), turns, _date(found.started), one_line(found.problem, 60)]


def _date(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.localtime(seconds)) if seconds else ""
    except (OverflowError, ValueError, OSError):
        return ""


def _import(desk: Desk, values: dict[str, Any]) -> Answer:
    path, name = files.named(values["file"]), values["as"]
    if name is not None and name in desk.sessions:
        raise SessionError(f"there is a session {name!r} already. Take another name")
    if values["pick"]:
        wanted, last = _picked(values["pick"])
        look = _Look(path, wanted, last).read()
        _check_all_there(look, values["pick"])
    else:
        # The only one is taken in at once; to know that it is the only one, the next one must be looked for.
        look = _Look(path, lambda number: number == 1, 1 << 60).read()
        if look.count > 1 or look.problem:
            return _list(look, values["file"])
    return _take_in(desk, look, name, every="all" in values["pick"])


def _picked(picks: list[str]) -> tuple[Wanted, int]:
    """Return which conversations *picks* mean, and the number of the last one."""
    if "all" in picks:
        return lambda _: True, 1 << 60
    ranges = []
    for pick in (each for text in picks for each in text.split(",")):
        match = _PICK.fullmatch(pick)
        if match is None or not 1 <= int(match[1]) <= int(match[2] or match[1]):
            raise LineError(f"--pick takes a number, a range (3-7) or all, not {one_line(pick, 40)!r}")
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return lambda number: any(low <= number <= high for low, high in ranges), max(high for _, high in ranges)


def _check_all_there(look: _Look, picks: list[str]) -> None:
    if look.problem is not None:
        raise RecordError(
            f"{look.problem}. {count_of(look.count, 'conversation')} before that can be read: "
            f"--pick 1-{look.count} takes them in. Nothing has changed"
        )
    if look.last > look.count and "all" not in picks:
        there = f"it has {count_of(look.count, 'conversation')}"
        raise LineError(f"there is no conversation {look.last:,} in {look.path.name!r}: {there}. Nothing has changed")


def _list(look: _Look, typed: str) -> Answer:
    file = repr(typed) if " " in typed else typed
    notes = [f"%chat import {file} --pick N takes one in as a session, --pick 3-7 or --pick all several"]
    if look.count > len(look.rows):
        notes.insert(0, f"{look.count - len(look.rows):,} more are not shown (to {look.count:,})")
    if look.problem is not None:
        notes.insert(0, f"what comes behind conversation {look.count:,} cannot be read: {look.problem}")
    problems = any(row[-1] for row in look.rows)
    header = ["", "title", "turns", "date", *["problem"] * problems]
    rows = [row if problems else row[:-1] for row in look.rows]
    return table(header, rows, numbers={0, 2}, whole={3}, note="\n".join(notes))


def _take_in(desk: Desk, look: _Look, name: str | None, *, every: bool) -> Answer:
    sound = {number: each for number, each in look.kept.items() if each.session is not None}
    bad = {number: each for number, each in look.kept.items() if each.session is None}
    if bad and not (every and sound):
        number, each = next(iter(bad.items()))
        raise RecordError(f"conversation {number:,} of {look.path.name!r} cannot be read: {each.problem}")
    if name is not None and len(sound) != 1:
        raise LineError(f"--as names one session, and {len(sound)} are picked")
    sessions = _named(desk, list(sound.values()), name)
    notes = [
        f"{session.name!r}: {note}."
        for session, each in zip(sessions, sound.values(), strict=True)
        for note in each.notes
    ]
    before = desk.sessions.current
    for session in sessions:
        desk.sessions.adopt(session, "import", switch=len(sessions) == 1)
    notes += [f"Conversation {number:,} cannot be read: {each.problem}." for number, each in bad.items()]
    return " ".join([_said(desk, sessions, before), *notes[:5], *["…"] * (len(notes) > 5)])


def _named(desk: Desk, found: list[Conversation], name: str | None) -> list[Session]:
    """Return the sessions that were *found*, called *name*, or by their titles."""
    from chatmagic.exchange.conversation import free_name

    taken = {session.name for session in desk.sessions}
    sessions = [each.session for each in found if each.session is not None]
    for session, each in zip(sessions, found, strict=True):
        session.name = free_name(each.title, taken) if name is None else session_name(name)
        taken.add(session.name)
    return sessions


def _said(desk: Desk, sessions: list[Session], before: str) -> str:
    if len(sessions) == 1:
        count = count_of(len(sessions[0].turns), "turn")
        aside = len(sessions[0].tree.turns) - len(sessions[0].turns)
        more = f", and {aside:,} beside its line" if aside else ""
        back = f" %chat use {before} goes back." if before in desk.sessions and before != sessions[0].name else ""
        name = sessions[0].name
        return f"The current session is {name!r}, imported: {count}{more}. %chat undo takes it back.{back}"
    names = [session.name for session in sessions]
    shown = ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "")
    return (
        f"{len(names)} sessions are imported: {shown}. %chat use NAME goes to one, and %chat undo there takes it back."
    )


def from_notebook(desk: Desk, file: str) -> Answer:
    """Bring back the sessions that a saved notebook has in its outputs.

    Raises:
        RecordError: there are none, or the file cannot be read; nothing has changed.
    """
    look = _Look(files.named(file), lambda _: True, 1 << 60).read()
    if look.problem is not None:
        raise look.problem
    sessions = _named(desk, list(look.kept.values()), None)
    for session in sessions:
        desk.sessions.adopt(session, "resume")
    back = ", ".join(f"{session.name!r} ({count_of(len(session.turns), 'turn')})" for session in sessions)
    notes = [
        f" {session.name!r}: {note}."
        for session, each in zip(sessions, look.kept.values(), strict=True)
        for note in each.notes
    ]
    return (
        f"Back from what {look.path.name!r} shows: {back}.{''.join(notes)} The current session is "
        f"{sessions[-1].name!r}. Variables of the kernel that ran it are gone. %chat undo takes it back."
    )


VERBS = {
    "export": Verb(
        Form(
            "%chat export",
            "Write a session (by default the current one) to a file, which ends with .md, .json, .ipynb or .html.",
            ("FILE",),
            (
                Option(("--session",), "the session to write", "NAME"),
                Option(("--all",), "write all sessions of this kernel into the one file"),
                Option(("--force",), "write over a file that is there"),
            ),
            "A .json file holds everything, also what was set aside and what can be undone; an .ipynb is a notebook of "
            "chat cells, an .html page needs nothing else.",
        ),
        _export,
    ),
    "import": Verb(
        Form(
            "%chat import",
            "Take in conversations from a file: of %chat export, with messages of the API, of ChatGPT, of llm.",
            ("FILE",),
            (
                Option(
                    ("--pick",), "of several, take in number N; 3-7 and all work, too; repeatable", "N", repeated=True
                ),
                Option(("--as",), "what the session will be called", "NAME"),
            ),
            "Known are .json, .md and .ipynb files of %chat export; JSON and JSONL with messages; the "
            "conversations.json of a ChatGPT data export, or its zip file; the logs.db of llm. Several conversations "
            "are listed first.",
        ),
        _import,
    ),
}
