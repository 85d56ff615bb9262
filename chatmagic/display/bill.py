"""What the turns of a session used and cost, and what broke the cache: a table with a small picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

from chatmagic.conversation.caching import broken_by
from chatmagic.conversation.context import spans
from chatmagic.conversation.messages import Turn
from chatmagic.conversation.policy import is_budget
from chatmagic.conversation.session import Session
from chatmagic.conversation.spending import Spent, dollars
from chatmagic.display.page import Page, ending, lines_page, table
from chatmagic.display.usage import Sums, price, share, total, turns, written
from chatmagic.plain import one_line

__all__ = ["bill"]

_ROWS = 40  # turns that are listed; of a longer conversation the newest
_HEIGHT = 72  # pixels of the picture
_COLOURS = {
    "cached": "var(--jp-layout-color3,#bdbdbd)",
    "fresh": "var(--jp-brand-color1,#1976d2)",
    "out": "var(--jp-warn-color1,#ef6c00)",
}


def bill(session: Session, kernel: Spent) -> Page:
    """Show what each turn of the line used; below it sums, of the line and of all that was ever asked."""
    line = session.turns
    if not line:
        return lines_page([f"{session.name!r} is empty.", *_spent(session, kernel).split("\n")])
    shown = line[-_ROWS:]
    rows = [_row(turn) for turn in shown]
    if len(shown) < len(line):
        earlier = line[: -len(shown)]
        which = spans(earlier, shown)
        rows.insert(0, [which, *[""] * 6, f"{turns(len(earlier))} before"])
    used = Sums().upto(session.last)
    rows.append([f"all {turns(used.turns)}", "", *total(used), "", ""])
    header = ["turn", "model", "in", "cached", "out", "cost", "time", "note"]
    page = table(header, rows, numbers={2, 3, 4, 5}, whole={0, 1, 2, 3, 4, 5, 6}, note=_spent(session, kernel))
    return Page(_picture(shown) + page.html, page.text)


def _row(turn: Turn) -> list[str]:
    used, sent = turn.usage, turn.sent
    went = used.input_tokens
    broken = broken_by(turn)
    cut = "" if broken else _cut(turn)
    summary = f"with a summary, beside it {price(new.usage.cost)}" if (new := turn.new_summary) and new.requests else ""
    notes = [ending(turn), summary, f"mostly not from the cache: {broken}" if broken else "", cut]
    clock = time.strftime("%H:%M", time.localtime(turn.started))
    return [
        f"#{turn.number}",
        one_line(turn.model, 20),
        f"{went:,}" if went is not None else f"~{sent.tokens:,}" if sent else "unknown",
        share(used.cached_tokens, went),
        _written(turn),
        price(used.cost),
        f"{clock}, {turn.seconds:.1f} s",
        " · ".join(filter(None, notes)),
    ]


def _written(turn: Turn) -> str:
    out = written(turn)
    return "unknown" if out is None else f"{'~' * (turn.usage.output_tokens is None)}{out:,}"


def _cut(turn: Turn) -> str:
    before = turn.parent and turn.parent.sent
    cut = turn.sent and turn.sent.start > (before.start if before else 0) and is_budget(turn.sent.policy)
    return f"history cut, begins with #{turn.sent.start}" if cut and turn.sent else ""


def _spent(session: Session, kernel: Spent) -> str:
    return f"{session.name!r}, with what was set aside or not stored: {session.spent}\nthis kernel: {kernel}"


def _picture(shown: Sequence[Turn]) -> str:
    """Draw a bar for each turn: what was read from the cache, what was fresh, what came back."""
    bars = [(turn, _parts(turn)) for turn in shown]
    most = max((sum(parts.values()) for _, parts in bars), default=0)
    if not most:
        return ""
    columns = "".join(
        f'<div title="{_hover(turn, parts)}" style="flex:0 1 14px;display:flex;flex-direction:column-reverse">'
        + "".join(_piece(name, count / most) for name, count in parts.items())
        + "</div>"
        for turn, parts in bars
    )
    legend = " ".join(
        f'<span style="margin-right:1em"><span style="color:{colour}">■</span> {name}</span>'
        for name, colour in _COLOURS.items()
    )
    legend = f"tokens of #{shown[0].number} to #{shown[-1].number}: {legend}"
    frame = f"display:flex;gap:2px;align-items:flex-end;height:{_HEIGHT}px;margin:4px 0"
    return f'<div role="img" aria-label="tokens of each turn" style="{frame}">{columns}</div><small>{legend}</small>'


def _parts(turn: Turn) -> dict[str, int]:
    used = turn.usage
    cached = used.cached_tokens or 0
    return {"cached": cached, "fresh": max((used.input_tokens or 0) - cached, 0), "out": used.output_tokens or 0}


def _piece(name: str, part: float) -> str:
    return f'<div style="height:{part * _HEIGHT:.1f}px;background:{_COLOURS[name]}"></div>' if part else ""


def _hover(turn: Turn, parts: dict[str, int]) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in parts.items())
    cost = f", {dollars(turn.usage.cost)}" if turn.usage.cost else ""
    return escape(f"#{turn.number}: {counts}{cost}")
