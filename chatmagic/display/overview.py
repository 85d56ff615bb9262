"""What the panel shows, as plain data."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from chatmagic.conversation.context import spans
from chatmagic.conversation.messages import Turn
from chatmagic.conversation.policy import OURS, is_budget, read_policy, summarizes
from chatmagic.conversation.session import Session, State
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.spending import Spent, dollars
from chatmagic.display.context import Preview
from chatmagic.display.page import ending, tokens
from chatmagic.display.usage import Sum, Sums, total, turns, written
from chatmagic.errors import ChatMagicError
from chatmagic.plain import one_line, plain

__all__ = ["MAPS", "Overview", "Previewer", "changes"]

MAPS = ("asked", "bars", "parts", "sessions", "turns")
"""What is sent entry by entry, because it is long."""

_BARS = 40  # turns that have a bar
_TURNS = 5  # turns that are named, of these

Data = dict[str, Any]


class Previewer(Protocol):
    """Who knows what the next request holds."""

    @property
    def defaults(self) -> Settings:
        """The settings that lie below those of every session."""

    def preview(self, session: Session) -> Preview:
        """Return what the next request of *session* holds."""


class Overview:
    """Describes *sessions* as JSON can hold it.

    What does not change is not worked out again, so that a turn costs the same however much was said before.
    """

    def __init__(self, sessions: Sessions, edge: Previewer) -> None:
        self._sessions, self._edge = sessions, edge
        self._sums = Sums()
        self._rows: WeakKeyDictionary[Session, tuple[State, str, list[Any]]] = WeakKeyDictionary()

    def __call__(self) -> Data:
        """Return what is to be seen of all sessions, and all of the current one."""
        sessions, name = self._sessions, self._sessions.current
        known = {session.name: session for session in sessions}
        default = self._edge.defaults.model or ""
        session = known.get(name) or sessions.find(name)
        line = session.turns
        shown = line[-_BARS:]
        return {
            "current": name,
            "sessions": {each: self._row(other, default) for each, other in known.items()},
            "chat": self._chat(session, name in known, len(line) - len(shown)),
            "system": plain(session.settings.system or ""),
            "context": self._context(session) if line else None,
            "line": [turn.number for turn in shown],
            "bars": {str(turn.number): _bar(turn) for turn in shown},
            "turns": {str(turn.number): _named(session, turn) for turn in shown[-_TURNS:]},
            "totals": self._totals(session),
        }

    def _row(self, session: Session, default: str) -> list[Any]:
        """Return turns, model, when it was asked last (seconds since the epoch), and cost."""
        state, model, row = self._rows.get(session, (None, "", []))
        if state is not session.state or model != default:
            used = self._sums.upto(session.last)
            asked = (session.settings.model or default, round(session.last.started) if session.last else 0)
            row = [used.turns, one_line(asked[0], 60), asked[1], _spent(used) if used.turns else ""]
            self._rows[session] = session.state, default, row
        return row

    def _chat(self, session: Session, known: bool, before: int) -> Data:
        settings = session.settings
        return {
            "known": known,
            "before": before,
            "model": one_line(settings.model or self._edge.defaults.model or "unknown", 80),
            "own": settings.model or "",
            "default": self._edge.defaults.model or "",
            "clear": bool(session.last or session.state.line),
            "undo": self._sessions.undoable,
            "redo": self._sessions.redoable,
        }

    def _context(self, session: Session) -> Data:
        """Say how full the context is, and what happens when it is full."""
        policy = session.settings.over(self._edge.defaults).context or "budget"
        try:
            if read_policy(policy)[0] not in OURS:
                return {"about": f"{policy} chooses what is sent"}  # somebody's function is not called to look at it
            preview = self._edge.preview(session)
        except ChatMagicError as exc:
            return {"about": one_line(str(exc))}
        context, limits = preview.context, preview.limits
        most = limits.most if is_budget(policy) else limits.window
        window = (
            f"{context.tokens / limits.window:.1%} of the model's window of {limits.window:,}" if limits.window else ""
        )
        gone = len(context.left_out)
        about = [
            f"~{context.tokens:,} tokens" + (f" of {most:,}" if most else ""),
            (window or "window unknown") if most != limits.window else "",
            preview.price,
            f"{turns(gone)} not sent ({spans(context.left_out, context.turns)}): {context.why}" if gone else "",
        ]
        return {
            "tokens": context.tokens,
            "most": most,
            "about": " · ".join(filter(None, about)),
            "next": _next_cut(preview, policy),
        }

    def _totals(self, session: Session) -> list[list[str]]:
        used = self._sums.upto(session.last)
        line = [f"these {turns(used.turns)}" if used.turns != 1 else "this turn", *total(used)]
        rows = [line] if used.turns else []
        rows += [[f"all of {session.name}", *_paid(session.spent)]] if session.spent.requests > used.turns else []
        kernel = self._sessions.spent
        return [*rows, ["this kernel", *_paid(kernel)]] if kernel.requests > session.spent.requests else rows


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Data:
    """Return what makes *before* *after*: what to ``set``, and what to ``merge`` into maps, where None removes."""
    anew: Data = {}
    merged: Data = {}
    for key, value in after.items():
        was = before.get(key)
        if key in before and was == value:
            continue
        if key in MAPS and was is not None:
            gone = dict.fromkeys(was.keys() - value.keys())
            merged[key] = {name: each for name, each in value.items() if was.get(name) != each} | gone
        else:
            anew[key] = value
    return {name: each for name, each in (("set", anew), ("merge", merged)) if each}


def _bar(turn: Turn) -> list[Any]:
    """Return tokens from the cache, fresh ones, those of the reply and of the thoughts in it, and all in words.

    What a server did not say is estimated; then the words have a ``~``.
    """
    used, sent = turn.usage, turn.sent
    read = used.input_tokens if used.input_tokens is not None else sent.tokens if sent else 0
    cached = min(used.cached_tokens or 0, read)
    out = written(turn) or 0
    thought = min(used.reasoning_tokens or 0, out)
    summary = turn.new_summary
    words = [
        f"#{turn.number}",
        one_line(turn.model, 40),
        tokens(turn),
        dollars(used.cost) if used.cost else "free" if used.cost == 0 else "cost unknown",
        ending(turn),
        "the turns before were summarized" if summary else "",
    ]
    return [cached, read - cached, out - thought, thought, " · ".join(filter(None, words))]


def _named(session: Session, turn: Turn) -> list[Any]:
    return [one_line(turn.prompt, 90), one_line(turn.reply, 120), turn.number in session.state.pinned]


def _next_cut(preview: Preview, policy: str) -> str:
    """Say what happens to what was said so far when it does not fit any more."""
    context, limits = preview.context, preview.limits
    if not is_budget(policy):
        if read_policy(policy)[0] == "last":
            return f"{policy}: older turns are not sent"
        return "all: nothing is ever left out" + (", and the window is the end" if limits.window else "")
    does = "summarized, then not sent" if summarizes(policy) else "not sent any more"
    half = f"when it passes {limits.most:,} the older half is {does}"
    pinned = len(context.sent.pinned) if context.sent else 0
    turns = context.turns[pinned:]  # the pinned ones come first
    known = context.sent is not None and all(turn.size is not None for turn in turns)
    if context.tokens * 2 < limits.most or len(turns) < 2 or context.sent is None or not known:
        return half
    last = turns[bisect_left(turns, limits.most / 2, hi=len(turns) - 2, key=_reach(turns, context.sent.start))]
    but = ", but what is pinned" if pinned else ""
    return f"{half}: about #{turns[0].number} to #{last.number}{but}"


def _reach(turns: Sequence[Turn], start: int) -> Callable[[Turn], int]:
    """Return a function that says about how many tokens reach from the first of *turns* to the end of one of them.

    Each knows how long its own request was; what an earlier one held and a cut has taken away is not counted.
    """
    before = turns[0].parent.size or 0 if turns[0].parent else 0

    def reach(turn: Turn) -> int:
        earlier = turn.sent is None or turn.sent.start < start
        return (turn.size or 0) - (before if earlier else 0)

    return reach


def _paid(spent: Spent) -> list[str]:
    about = "~" * spent.guessed
    cached = "unknown" if spent.cached_share is None else f"{spent.cached_share:.0%}"
    unknown = spent.unpriced == spent.requests
    cost = "unknown" if unknown else f"{'≥ ' * (spent.unpriced > 0)}{spent.amount if spent.cost else 'free'}"
    return [f"{about}{spent.input_tokens:,}", cached, f"{about}{spent.output_tokens:,}", cost]


def _spent(used: Sum) -> str:
    cost = used.usage.cost
    if cost is None:
        return f"≥ {dollars(used.least.cost)}" if used.least.cost else ""
    return dollars(cost) if cost else ""
