"""The verb that sums up texts of any length."""

from __future__ import annotations

from keyword import iskeyword
from pathlib import Path
from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb
from chatmagic.display.page import lines_page
from chatmagic.errors import LineError
from chatmagic.line import SETTINGS, Form, Option, turn_number
from chatmagic.plain import one_line

__all__ = ["VERBS"]


def _summarize(desk: Desk, values: dict[str, Any]) -> Answer:
    out = values["out"]
    if out is not None and (not out.isidentifier() or iskeyword(out)):
        raise LineError(f"-o takes the name of a variable, not {out!r}")
    how: dict[str, Any] = {
        "model": values["model"],
        "prompt": values["for"] or "",
        "refine": values["refine"],
        "at_once": 4 if values["at-once"] is None else turn_number(values["at-once"]),
    }
    texts = _value(values["expr"], desk.edge.names)
    if values["dry-run"]:
        return lines_page([f"{desk.edge.to_summarize(texts, **how).plan}; nothing was sent"])
    digest = desk.edge.summarize(texts, display=True, **how)
    if out is not None:
        desk.edge.names[out] = digest
    return ""


def _value(expression: str, names: dict[str, Any]) -> object:
    """Return the value of what was typed, in which ``Path`` need not be imported.

    Raises:
        LineError: it is no Python, or it fails.
    """
    shown = one_line(expression, 100)
    try:
        code = compile(expression, "<summarize>", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply for the compiler
        raise LineError(
            f"{shown!r} is no Python expression: the name of a variable, a text in quotes, Path('FILE'). Options stand "
            "before it"
        ) from None
    try:
        return eval(code, {"Path": Path, **names})  # noqa: S307 - the user's own code
    except Exception as exc:
        raise LineError(f"{shown} failed with {type(exc).__name__}: {exc}") from None


VERBS = {
    "summarize": Verb(
        Form(
            "%chat summarize",
            "Sum up a text, a list of texts or a file of any length: piece by piece, several at once, in no session.",
            ("EXPR",),
            (
                SETTINGS[0],
                Option(("--for",), "what the answer is for, or what to look for", "TEXT"),
                Option(("--refine",), "read piece after piece, each of which improves the answer so far"),
                Option(("--at-once",), "how many requests go out at once, from 1 to 32 (4)", "N"),
                Option(("-o", "--out"), "put the answer into the variable NAME, too", "NAME"),
                Option(("--dry-run",), "show how many pieces and requests it takes, and the cost; send nothing"),
            ),
            more=(
                "EXPR is Python, and stands behind the options: a text, several in a list, or Path('FILE'). "
                "Without -m the model of the current session answers. What is done when it is stopped or fails is "
                "kept: the same line asks only for the rest."
            ),
            raw=True,
        ),
        _summarize,
    ),
}
