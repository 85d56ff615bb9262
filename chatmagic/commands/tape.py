"""The verbs that record exchanges with servers, and let a tape answer in their place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatmagic import files
from chatmagic.commands.verb import Answer, Desk, Verb, count_of
from chatmagic.display.page import table
from chatmagic.errors import LineError, TapeError
from chatmagic.line import Form, Option
from chatmagic.plain import one_line

if TYPE_CHECKING:
    from chatmagic.provider.tape import Exchange, Mode, Tape

__all__ = ["VERBS"]

_MOST = 200  # rows that are shown


def _record(desk: Desk, values: dict[str, Any]) -> Answer:
    tape = _put_in(desk, values["file"], "record")
    return f"From here on {tape.name!r} keeps every exchange ({_there(tape)}). %chat live ends it."


def _replay(desk: Desk, values: dict[str, Any]) -> Answer:
    mode: Mode = "auto" if values["auto"] else "replay"
    tape = _put_in(desk, values["file"], mode, pace=values["pace"])
    otherwise = "what it does not have is asked for, and kept" if values["auto"] else "nothing is sent"
    return f"From here on {tape.name!r} answers ({_there(tape)}); {otherwise}. %chat live ends it."


def _live(desk: Desk, _: dict[str, Any]) -> Answer:
    tape = desk.edge.deck.take_out()
    return f"{tape.name!r} runs no more: from here on servers answer." if tape else "No tape runs: servers answer."


def _tape(desk: Desk, values: dict[str, Any]) -> Answer:
    tape = desk.edge.deck.tape
    if tape is None:
        raise TapeError("no tape runs: %chat record FILE begins one, %chat replay FILE lets one answer")
    unused = tape.unused
    if values["yes"] and not values["prune"]:
        raise LineError("--yes goes with --prune: %chat tape --prune --yes")
    if values["prune"] and values["yes"]:
        return f"Deleted from {tape.name!r}: {count_of(tape.prune(), 'exchange')}."
    if values["prune"]:
        if not unused:
            return f"Every exchange on {tape.name!r} was used; there is nothing to delete."
        return _table(tape, unused, f"%chat tape --prune --yes deletes {_them(unused)} from {tape.name!r}.")
    note = f"{tape.name!r} ({tape.mode}): {_there(tape)}, {len(unused)} not used in this kernel"
    return _table(tape, tape.exchanges, f"{note}." + " %chat tape --prune can delete them." * bool(unused))


def _table(tape: Tape, exchanges: list[Exchange], note: str) -> Answer:
    shown = exchanges[:_MOST]
    rows = [
        [
            each.label,
            str(each.question.settings.get("model", each.question.path)),
            str(len(each.question.items)),
            _last(each),
            one_line(_text(each.answer.items[-1:]), 40),
            str(tape.used(each.label)),
        ]
        for each in shown
    ]
    more = f"{len(exchanges) - _MOST:,} more\n" if len(exchanges) > _MOST else ""
    header = ["exchange", "model", "messages", "newest", "answer", "used"]
    dim = {number for number, each in enumerate(shown) if not tape.used(each.label)}
    return table(header, rows, numbers={2, 5}, whole={0, 2, 5}, dim=dim, note=more + note)


def _last(exchange: Exchange) -> str:
    return one_line(_text(exchange.question.items[-1:]) or str(exchange.question.settings.get("input", "")), 40)


def _text(items: Any) -> str:
    """Return the text of a message, as far as it has one."""
    return "".join(str(item.get("content") or "") for item in items if isinstance(item, dict))


def _there(tape: Tape) -> str:
    count = len(tape.exchanges)
    if not count:
        return "nothing is on it yet"
    return f"{count_of(count, 'exchange')} {'is' if count == 1 else 'are'} on it"


def _them(exchanges: list[Exchange]) -> str:
    return "it" if len(exchanges) == 1 else f"these {len(exchanges)}"


def _put_in(desk: Desk, file: str, mode: Mode, *, pace: bool = False) -> Tape:
    try:
        return desk.edge.deck.put_in(files.named(file), mode, pace=pace)
    except TapeError as exc:
        # As it was typed: what a cell says about it must not depend on the machine.
        message, here = str(exc), str(Path.cwd())
    raise TapeError(message.replace(f"{here}{os.sep}", "").replace(repr(here), "'.'"))


VERBS = {
    "record": Verb(
        Form(
            "%chat record",
            "Keep every exchange with a server in a file, as long as this kernel runs.",
            ("FILE",),
            more=(
                "Replies stream as always. What the file has of the same prompts is replaced, all else in it stays. "
                "Failures and replies that were cut or stopped are not kept, keys never are."
            ),
        ),
        _record,
    ),
    "replay": Verb(
        Form(
            "%chat replay",
            "Let a file of %chat record answer: no server is asked, no key is needed.",
            ("FILE",),
            (
                Option(("--auto",), "ask a server for what is not in the file, and keep that"),
                Option(("--pace",), "as slowly as it was recorded, and not at once"),
            ),
        ),
        _replay,
    ),
    "live": Verb(Form("%chat live", "Let servers answer again, and record nothing."), _live),
    "tape": Verb(
        Form(
            "%chat tape",
            "List the exchanges on the tape that runs, and those that nobody has used.",
            (),
            (
                Option(("--prune",), "say which were not used, to delete them from the file"),
                Option(("--yes",), "delete them"),
            ),
        ),
        _tape,
    ),
}
