"""What a session has used: sums over its turns, and the small table of the panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from chatmagic.conversation.messages import Turn, Usage
from chatmagic.plain import one_line

__all__ = ["Sum", "Sums", "status", "turns"]

_NOTHING = Usage(0, 0, 0, 0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Sum:
    """What the turns from the root to the *last* one used together; *least* takes unknown counts for nothing."""

    last: Turn | None = None
    turns: int = 0
    usage: Usage = _NOTHING
    least: Usage = _NOTHING

    def plus(self, turn: Turn) -> Sum:
        """Return the sum with one *turn* more."""
        used = turn.usage
        known = Usage(used.input_tokens or 0, used.output_tokens or 0, cost=used.cost or 0.0)
        return Sum(turn, self.turns + 1, self.usage + used, self.least + known)


class Sums:
    """Remembers the sum at every turn, so that one turn more costs the same however long the history is."""

    def __init__(self) -> None:
        self._at: dict[int, Sum] = {}  # by the id of its last turn, which it keeps alive

    def upto(self, turn: Turn | None) -> Sum:
        """Return the sum over the line that ends with *turn*."""
        new = []
        while turn is not None and id(turn) not in self._at:
            new.append(turn)
            turn = turn.parent
        total = Sum() if turn is None else self._at[id(turn)]
        for each in reversed(new):
            total = self._at[id(each)] = total.plus(each)
        return total


def turns(count: int) -> str:
    """Return ``1 turn``, ``2 turns``."""
    return f"{count:,} turn{'' if count == 1 else 's'}"


def status(model: str | None, asked: Sequence[str], total: Sum, hint: str, note: str) -> str:
    """Return the lower half of the panel as HTML, in which all text is escaped; the *hint* is for an empty session."""
    busy = f" &nbsp;<b>● {_safe(', '.join(asked))} is being asked</b>" if asked else ""
    lines = [f"<div><small>Model</small> {_safe(model or 'unknown')}{busy}</div>"]
    if total.last:
        head = "".join(f"<th scope=col>{each}</th>" for each in ("tokens", "in", "cached", "out"))
        last, rest = Sum().plus(total.last), f"all {turns(total.turns)}"
        lines.append(f"<table><tr>{head}</tr>{_row('last turn', last)}{_row(rest, total)}</table>")
    else:
        lines.append(f"<div><small>{_safe(hint)}</small></div>")
    return "".join([*lines, f"<div role=status>{_safe(note)}</div>" if note else ""])


def _row(name: str, total: Sum) -> str:
    used, least = total.usage, total.least
    share = "unknown"
    if used.input_tokens and used.cached_tokens is not None:
        share = f"{used.cached_tokens / used.input_tokens:.0%}"
    cells = _count(used.input_tokens, least.input_tokens), share, _count(used.output_tokens, least.output_tokens)
    return f"<tr><th scope=row>{name}</th>{''.join(f'<td>{each}</td>' for each in cells)}</tr>"


def _count(count: int | None, least: int | None) -> str:
    if count is not None:
        return f"{count:,}"
    return f"≥ {least:,}" if least else "unknown"


def _safe(text: str) -> str:
    return escape(one_line(text))
