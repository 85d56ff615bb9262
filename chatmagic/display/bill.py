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
from chatmagic.display.usage import Sums, turns
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
    total = Sums().upto(session.last)
    used, least = total.usage, total.least
    share = _share(used.cached_tokens, used.input_tokens)
    rows.append(
        [
            f"all {turns(total.turns)}",
            "",
            _sum(used.input_tokens, least.input_tokens),
            share,
            _sum(used.output_tokens, least.output_tokens),
            f"≥ {_cost(least.cost)}" if used.cost is None and least.cost else _cost(used.cost),
            "",
            "",
        ]
    )
    header = ["turn", "model", "in", "cached", "out", "cost", "time", "note"]
    page = table(header, rows, numbers={2, 3, 4, 5}, whole={0, 1, 2, 3, 4, 5, 6}, note=_spent(session, kernel))
    return Page(_picture(shown) + page.html, page.text)


def _row(turn: Turn) -> list[str]:
    used, sent = turn.usage, turn.sent
    went = used.input_tokens
    broken = broken_by(turn)
    cut = "" if broken else _cut(turn)
    summary = f"with a summary, beside it {_cost(new.usage.cost)}" if (new := turn.new_summary) and new.requests else ""
    notes = [ending(turn), summary, f"mostly not from the cache: {broken}" if broken else "", cut]
    clock = time.strftime("%H:%M", time.localtime(turn.started))
    return [
        f"#{turn.number}",
        one_line(turn.model, 20),
        f"{went:,}" if went is not None else f"~{sent.tokens:,}" if sent else "unknown",
        _share(used.cached_tokens, went),
        _written(turn),
        _cost(used.cost),
        f"{clock}, {turn.seconds:.1f} s",
        " · ".join(filter(None, notes)),
    ]


def _written(turn: Turn) -> str:
    if turn.usage.output_tokens is not None:
        return f"{turn.usage.output_tokens:,}"
    if turn.size is None or turn.sent is None:
        return "unknown"
    return f"~{max(turn.size - (turn.usage.input_tokens or turn.sent.tokens), 0):,}"


def _cut(turn: Turn) -> str:
    before = turn.parent and turn.parent.sent
    cut = turn.sent and turn.sent.start > (before.start if before else 0) and is_budget(turn.sent.policy)
    return f"history cut, begins with #{turn.sent.start}" if cut and turn.sent else ""


def _share(part: int | None, whole: int | None) -> str:
    return "unknown" if part is None or not whole else f"{part / whole:.0%}"


def _cost(cost: float | None) -> str:
    if cost is None:
        return "unknown"
    # One below the other they need the same number of digits.
    return f"${cost:.4f}" if 1e-4 <= cost < 1 else dollars(cost) if cost else "free"


def _sum(count: int | None, least: int | None) -> str:
    return f"{count:,}" if count is not None else f"≥ {least:,}" if least else "unknown"


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


def _piece(name: str, share: float) -> str:
    return f'<div style="height:{share * _HEIGHT:.1f}px;background:{_COLOURS[name]}"></div>' if share else ""


def _hover(turn: Turn, parts: dict[str, int]) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in parts.items())
    cost = f", {dollars(turn.usage.cost)}" if turn.usage.cost else ""
    return escape(f"#{turn.number}: {counts}{cost}")
