"""The tree of a session as a table: branches, the present line, one row a turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.session import Session
from chatmagic.display.page import Page, ending, table
from chatmagic.plain import one_line

__all__ = ["history"]

_DEEPEST = 8  # branches within branches that are drawn


def history(session: Session, sessions: Iterable[Session]) -> Page:
    """Show every turn of the tree; *sessions* are those that may stand somewhere in it."""
    heads = defaultdict(list)
    for each in sessions:
        if each.tree is session.tree and each.last is not None:
            heads[each.last.number].append(each.name)
    ordered = list(_in_order(session))
    rows = [
        [
            f"{branch}{'●' if turn in session else '○'} #{turn.number}",
            one_line(turn.prompt, 50),
            one_line(turn.reply, 50),
            turn.model,
            _count(turn.usage.input_tokens),
            _count(turn.usage.output_tokens),
            ", ".join(_remarks(session, turn, heads[turn.number])),
        ]
        for turn, branch in ordered
    ]
    dim = {n for n, (turn, _) in enumerate(ordered) if turn not in session}
    note = f"○ is not in the conversation: %chat use {session.name} --at N goes there" if dim else ""
    header = ["turn", "prompt", "reply", "model", "tokens in", "out", "note"]
    return table(header, rows, numbers={4, 5}, whole={0, 4, 5}, dim=dim, note=note)


def _count(tokens: int | None) -> str:
    return "unknown" if tokens is None else f"{tokens:,}"


def _remarks(session: Session, turn: Turn, names: list[str]) -> Iterator[str]:
    yield from filter(None, [ending(turn)])
    if turn.number in session.state.pinned:
        yield "pinned"
    yield from (f"{name!r} stands here" for name in names if len(names) > 1 or name != session.name)


def _in_order(session: Session) -> Iterator[tuple[Turn, str]]:
    """Yield each turn and how its branch is drawn: side branches first, then the present line (or the newest one)."""
    children: defaultdict[int | None, list[Turn]] = defaultdict(list)
    for turn in session.tree.turns:
        children[turn.parent.number if turn.parent else None].append(turn)
    waiting = [(turn, depth, depth > 0) for turn, depth in _branches(session, children[None], 0)]
    while waiting:
        turn, depth, begins = waiting.pop()
        yield turn, _drawn(depth, begins)
        waiting += [(each, below, below > depth) for each, below in _branches(session, children[turn.number], depth)]


def _drawn(depth: int, begins: bool) -> str:
    if not depth:
        return ""
    return ("│ " * (depth - 1) if depth <= _DEEPEST else f"│ … {depth} … ") + ("├ " if begins else "│ ")


def _branches(session: Session, turns: list[Turn], depth: int) -> list[tuple[Turn, int]]:
    """Return what grows from one place, the last one to be shown first."""
    if not turns:
        return []
    main = next((turn for turn in turns if turn in session), turns[-1])
    others = [(turn, depth + 1) for turn in reversed(turns) if turn is not main]
    return [(main, depth), *others]
