"""The verbs that bring back, find and delete what was written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from chatmagic.commands.exchange import from_notebook
from chatmagic.commands.verb import Answer, Desk, Verb, ago, count_of
from chatmagic.conversation.messages import Turn
from chatmagic.conversation.session import Session, session_name
from chatmagic.display.page import table
from chatmagic.errors import LineError, RecordError
from chatmagic.line import Form, Option
from chatmagic.plain import one_line

if TYPE_CHECKING:
    from chatmagic.journal.library import Library
    from chatmagic.journal.reading import Stored

__all__ = ["VERBS"]

_MOST = 40  # rows that are shown


def _resume(desk: Desk, values: dict[str, Any]) -> Answer:
    ways = [values["name"], values["all"] or None, values["from"]]
    if len(ways) - ways.count(None) > 1 or (values["as"] and values["name"] is None):
        raise LineError("%chat resume takes one of NAME [--as NAME], --all and --from FILE")
    if values["from"] is not None:
        return from_notebook(desk, values["from"])
    library = _library(desk)
    stored = _of_this_notebook_first(desk, library.listed())
    wanted = values["name"]
    if values["all"]:
        own = [each for each in stored if each.notebook == desk.edge.notebook and not each.gone]
        here = [each for each in own if each.kernel == own[0].kernel]
        for each in here:
            _check_free(desk, each, each.name)
        return "\n".join(_back(desk, library, each, each.name) for each in reversed(here)) or _nothing(
            desk, " of this notebook"
        )
    if wanted is None:
        return _listed(desk, stored) if stored else _nothing(desk)
    if wanted in desk.sessions and all(each.name != wanted for each in stored):
        return f"{wanted!r} is here already; nothing has changed."
    found = _picked(wanted, stored)
    return _back(desk, library, found, values["as"] or found.name)


def _library(desk: Desk) -> Library:
    from chatmagic.journal.library import Library

    journal = desk.edge.journaled
    if journal is None:
        raise RecordError("there is no journal: %config ChatMagic.journal = 'PATH' begins one")
    return Library(journal)


def _of_this_notebook_first(desk: Desk, stored: Sequence[Stored]) -> list[Stored]:
    return sorted(stored, key=lambda each: each.notebook != desk.edge.notebook)


def _nothing(desk: Desk, which: str = "") -> str:
    return f"No session of an earlier kernel{which} is in the journal ({_place(desk)})."


def _place(desk: Desk) -> str:
    journal = desk.edge.journaled
    return f"{journal.place}; ChatMagic.journal = '' switches it off" if journal else "there is none"


def _listed(desk: Desk, stored: Sequence[Stored]) -> Answer:
    rows = [
        [
            str(number),
            each.name,
            PurePath(each.notebook).name,
            str(each.turns),
            ago(each.updated),
            one_line(each.last, 50),
            " · ".join(_remarks(each)),
        ]
        for number, each in enumerate(stored[:_MOST], 1)
    ]
    more = f"{len(stored) - _MOST:,} more: %chat search TEXT finds what was said\n" if len(stored) > _MOST else ""
    note = f"{more}%chat resume NAME (or its number) brings one back. They are in {_place(desk)}"
    header = ["", "session", "notebook", "turns", "asked", "last prompt", ""]
    return table(
        header, rows, numbers={0, 3}, whole={0, 1, 3, 4}, dim={n for n, s in enumerate(stored) if s.gone}, note=note
    )


def _remarks(stored: Stored) -> Iterator[str]:
    if stored.gone:
        yield "deleted"
    if stored.cut:
        yield "a reply was cut"
    if stored.runs:
        yield "its kernel still runs"


def _picked(wanted: str, stored: Sequence[Stored]) -> Stored:
    if wanted.isdecimal():
        if not 1 <= int(wanted[:9]) <= len(stored):
            raise RecordError(f"there is no number {wanted} in the list of %chat resume ({len(stored):,} are there)")
        return stored[int(wanted) - 1]
    name = session_name(wanted)
    named = [each for each in stored if each.name == name]
    if not named:
        known = ", ".join(dict.fromkeys(repr(each.name) for each in stored[:8])) or "none"
        raise RecordError(
            f"no session {name!r} of an earlier kernel is in the journal (there: {known}). See %chat resume"
        )
    return min(named, key=lambda each: each.gone)


def _back(desk: Desk, library: Library, stored: Stored, name: str) -> str:
    _check_free(desk, stored, name)
    session, cut = library.bring_back(stored, name)
    desk.sessions.adopt(session, "resume")
    where = f" in {PurePath(stored.notebook).name}" if stored.notebook else ""
    lost = ""
    if cut:
        lost = f" Turn #{session.last.number if session.last else 0} is what had come of a reply when it ended."
    gone = "Variables of that kernel are gone."
    if stored.runs:
        gone = "That kernel still runs and goes on with its own; this is a copy."
    return (
        f"{session.name!r} is back: {count_of(len(session.turns), 'turn')}, asked {ago(stored.updated)}{where}.{lost} "
        f"{gone} %chat undo takes it back."
    )


def _check_free(desk: Desk, stored: Stored, name: str) -> None:
    if name in desk.sessions:
        raise RecordError(
            f"there is a session {name!r} in this kernel. %chat resume {stored.name} --as OTHER brings it back as OTHER"
        )


def _search(desk: Desk, values: dict[str, Any]) -> Answer:
    text = values["text"].strip()
    if not text:
        raise LineError("%chat search needs TEXT: the words that a turn must have")
    rows, trouble = list(_here(desk, text)), ""
    try:
        rows += _there(desk, text) if desk.edge.journaled else ()
    except RecordError as exc:  # what is in memory can be found all the same
        trouble = f"only this kernel was searched: {exc}"
    if not rows:
        where = "this kernel or the journal" if desk.edge.journaled else "this kernel (there is no journal)"
        return (
            f"No turn in {where} has {one_line(text, 60)!r}."
            if not trouble
            else f"No turn of this kernel has it; {trouble}"
        )
    unique = list({tuple(row[:3]): row for row in reversed(rows)}.values())[::-1]
    more = f"{len(unique) - _MOST:,} more: add a word\n" if len(unique) > _MOST else ""
    header = ["session", "notebook", "turn", "what was said", "there by"]
    return table(header, unique[:_MOST], whole={0, 2, 4}, note="\n".join(filter(None, [more.rstrip("\n"), trouble])))


def _here(desk: Desk, text: str) -> Iterator[list[str]]:
    """Find turns in the sessions of this kernel."""
    words, seen = text.casefold().split(), set()
    for session in desk.sessions:
        for turn in reversed(session.tree.turns):
            if id(turn) in seen:
                continue  # forks share turns
            seen.add(id(turn))
            said = f"{turn.prompt}\n{turn.reply}".casefold()
            if all(word in said for word in words):
                yield [
                    session.name,
                    "",
                    f"#{turn.number}",
                    _around(turn.prompt, turn.reply, words),
                    _way(session, turn),
                ]


def _way(session: Session, turn: Turn) -> str:
    verb = "%chat show" if turn in session else "%chat use"
    return f"{verb} {session.name} {'--at ' * (turn not in session)}{turn.number}"


def _there(desk: Desk, text: str) -> Iterator[list[str]]:
    """Find turns that are written down."""
    words = text.casefold().split()
    library = _library(desk)
    for found, living in library.search(text):
        if living is None:
            stored = found.session
            book = PurePath(stored.notebook).name
            said = _around(found.prompt, found.reply, words)
            way = "%chat undo" if stored.kernel == library.kernel else f"%chat resume {stored.name}"
            yield [stored.name, book, f"#{found.number}", said, way]


def _around(prompt: str, reply: str, words: Sequence[str]) -> str:
    """Return what stands around the first of *words*."""
    for text in (prompt, reply):
        place = text.casefold().find(words[0])
        if place >= 0:
            begin = max(0, place - 30)
            return "… " * (begin > 0) + one_line(text[begin : place + 200], 70)
    return one_line(prompt, 70)


def _forget(desk: Desk, values: dict[str, Any]) -> Answer:
    library = _library(desk)
    wanted, before = values["name"], values["before"]
    if (wanted is not None) + bool(values["all"]) + (before is not None) != 1:
        raise LineError("%chat forget takes one of NAME, --all and --before DATE")
    stored = library.all()
    if wanted is not None and wanted.isdecimal():
        gone = [_picked(wanted, _of_this_notebook_first(desk, library.listed()))]
    elif wanted is not None:
        name = session_name(wanted)
        gone = [each for each in stored if each.name == name]
    elif before is not None:
        end = _day(before)
        gone = [each for each in stored if each.updated < end]
    else:
        gone = stored
    if not gone:
        return "Nothing of that is in the journal."
    what = (
        f"{count_of(len(gone), 'session')} ({_names(gone)}) with {count_of(sum(each.turns for each in gone), 'turn')}"
    )
    line = " ".join(filter(None, [wanted, "--all" * bool(values["all"]), f"--before {before}" if before else ""]))
    if not values["yes"]:
        return f"This would delete {what} from the disk, for good. %chat forget {line} --yes does it."
    turns = library.forget(gone)
    here = "What this kernel has in memory stays there, and is not written again."
    return f"Deleted from the disk: {what}; {count_of(turns, 'stored turn')} gone. {here}"


def _names(stored: Sequence[Stored]) -> str:
    books = [PurePath(each.notebook).name for each in stored]
    names = [f"{each.name} in {book}" if book else each.name for each, book in zip(stored, books, strict=True)]
    names = list(dict.fromkeys(names))
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "")


def _day(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise LineError(f"{text!r} is no date: write it as 2026-11-23") from None


VERBS = {
    "resume": Verb(
        Form(
            "%chat resume",
            "Bring back a session of an earlier kernel, by its name or number; alone: list them.",
            ("[NAME]",),
            (
                Option(("--as",), "call it NAME here", "NAME"),
                Option(("--all",), "bring back all that the last kernel of this notebook had"),
                Option(("--from",), "bring back what the outputs of a saved notebook show, without a journal", "FILE"),
            ),
        ),
        _resume,
    ),
    "search": Verb(
        Form(
            "%chat search",
            "Find turns that have all words of TEXT, in all sessions, living and stored.",
            ("TEXT",),
            raw=True,
        ),
        _search,
    ),
    "forget": Verb(
        Form(
            "%chat forget",
            "Delete sessions from the disk, for good; says first what that would be.",
            ("[NAME]",),
            (
                Option(("--all",), "everything that is in the journal"),
                Option(("--before",), "what was asked last before DATE (2026-11-23)", "DATE"),
                Option(("--yes",), "do it"),
            ),
        ),
        _forget,
    ),
}
