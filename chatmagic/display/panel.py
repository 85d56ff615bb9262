"""The panel: a session switcher and what the current session has used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from IPython.display import publish_display_data
from ipywidgets import HTML, Button, Dropdown, HBox, Layout, Text, VBox

from chatmagic.conversation.messages import Turn, Usage
from chatmagic.conversation.session import Session, Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.errors import ChatMagicError, SessionError
from chatmagic.plain import one_line

__all__ = ["Panel"]

_TEXT = "chatmagic panel (run this cell to see it)"

# Sent once, so that what is sent at every turn is short.
_STYLE = """<style>
.chatmagic-panel { max-width: 46em; padding: 4px 2px; container-type: inline-size; }
.chatmagic-panel .widget-inline-hbox .widget-label { width: auto; margin-right: 8px; }
.chatmagic-panel .widget-html, .chatmagic-panel .widget-html-content { width: 100%; height: auto; line-height: 1.5; }
.chatmagic-panel .widget-html-content { color: var(--jp-ui-font-color1, inherit); overflow-wrap: anywhere; }
.chatmagic-panel table { border-collapse: collapse; margin: 2px 0; font-variant-numeric: tabular-nums; }
.chatmagic-panel :is(th, td) { padding: 1px 0 1px 24px; text-align: right; font-weight: normal; white-space: nowrap; }
.chatmagic-panel :is(th, td):first-child { padding-left: 0; text-align: left; }
.chatmagic-panel :is(th, small) { color: var(--jp-ui-font-color2, #757575); font-size: inherit; }
.chatmagic-panel b { color: var(--jp-brand-color1, #1976d2); font-weight: normal; }
@container (max-width: 26em) { .chatmagic-panel :is(th, td) { padding-left: 12px; } }
</style>"""


@dataclass(frozen=True, slots=True)
class _Sum:
    """What the turns from the root to *turn* used. *least* leaves out the counts that are unknown."""

    turn: Turn
    turns: int
    usage: Usage
    least: Usage


class _Sums:
    """Remembers a sum for every turn, so that a new turn costs the same however long the history is."""

    def __init__(self) -> None:
        self._known: dict[int, _Sum] = {}  # by id; a _Sum keeps its turn alive, so that no other one gets the id

    def upto(self, head: Turn | None) -> _Sum | None:
        unknown = []
        while head is not None and id(head) not in self._known:
            unknown.append(head)
            head = head.parent
        known = None if head is None else self._known[id(head)]
        for turn in reversed(unknown):
            used = turn.usage
            least = Usage(used.input_tokens or 0, used.output_tokens or 0)
            if known is None:
                known = _Sum(turn, 1, used, least)
            else:
                known = _Sum(turn, known.turns + 1, known.usage + used, known.least + least)
            self._known[id(turn)] = known
        return known

    def turns(self, session: Session) -> int:
        total = self.upto(session.last)
        return total.turns if total else 0


class Panel:
    """Widgets that follow *sessions* and act on them; *defaults* gives the settings that lie below those of all.

    Calls may come from any thread. A panel that was closed opens again when it is shown.
    """

    def __init__(self, sessions: Sessions, defaults: Callable[[], Settings]) -> None:
        self._sessions = sessions
        self._defaults = defaults
        self._sums = _Sums()
        self._lock = threading.RLock()
        self._acting = False  # what changes meanwhile is our own doing
        self._note = ""
        self._noted: object = None  # where the sessions stood when the note was true
        self._entered = 0.0
        self._build()

    def _build(self) -> None:
        fits = Layout(width="auto")
        self._choice = Dropdown(
            description="Session", tooltip="The current session", layout=Layout(width="auto", flex="1 1 250px")
        )
        self._name = Text(
            placeholder="new session",
            tooltip="Name of a new session",
            continuous_update=False,
            layout=Layout(width="auto", flex="1 1 130px", min_width="110px"),
        )
        self._new = Button(description="New", tooltip="Start a session with this name", layout=fits)
        self._clear = Button(description="Clear", tooltip="Set the turns of the current session aside", layout=fits)
        self._undo = Button(description="Undo", tooltip="Take back the last act", layout=fits)
        self._redo = Button(description="Redo", tooltip="Repeat what was undone last", layout=fits)
        self._status = HTML()
        rows = [
            HBox([self._choice], layout=Layout(flex="1 1 250px")),
            HBox([self._name, self._new], layout=Layout(flex="1 1 200px")),
            HBox([self._clear, self._undo, self._redo]),
        ]
        head = HBox(rows, layout=Layout(flex_flow="row wrap"))
        style = HTML(_STYLE, layout=Layout(display="none"))
        self._box = VBox([style, head, self._status])
        self._box.add_class("chatmagic-panel")
        self._paint()
        self._choice.observe(self._chosen, "value")
        self._name.observe(self._named, "value")
        self._name.on_msg(self._submitted)
        self._new.on_click(lambda _: self._act(self._start))
        self._clear.on_click(lambda _: self._act(self._empty))
        self._undo.on_click(lambda _: self._act(self._take_back))
        self._redo.on_click(lambda _: self._act(self._repeat))
        self._sessions.watchers.append(self._follow)

    def show(self) -> None:
        """Display the panel; shown twice, it is the same panel in two places."""
        with self._lock:
            if self._box.comm is None:
                self._build()
            self._follow()
            view = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
            publish_display_data({"text/plain": _TEXT, "application/vnd.jupyter.widget-view+json": view})  # type: ignore[no-untyped-call]  # IPython's

    def close(self) -> None:
        """Take the panel off every page, and follow no longer."""
        with self._lock:
            if self._follow in self._sessions.watchers:
                self._sessions.watchers.remove(self._follow)
            _close(self._box)

    def _follow(self, note: str | None = None) -> None:
        with self._lock:
            if not self._acting:
                self._acting = True
                try:
                    self._paint(note)
                finally:
                    self._acting = False

    def _paint(self, note: str | None = None) -> None:
        """Bring the widgets up to date; only what has changed is sent."""
        sessions, name = self._sessions, self._sessions.current
        known = {session.name: session for session in sessions}
        current = known.get(name)
        total = self._sums.upto(current.last) if current else None
        stand = (list(known), name, current and current.state)
        if note is not None or stand != self._noted:
            self._note, self._noted = note or "", stand
        options = [(f"{each} · {_turns(self._sums.turns(session))}", each) for each, session in known.items()]
        if current is None:
            options.append((f"{name} · not started", name))
        with self._choice.hold_sync():
            self._choice.options = tuple(options)
            self._choice.value = name
        back, forth = _ways(sessions, current)
        self._clear.disabled = not (current and (current.last or current.state.line))
        self._undo.disabled = not back
        self._redo.disabled = not forth
        model = (current.settings if current else Settings()).over(self._defaults()).model
        asked = [session.name for session, count in list(sessions.busy.items()) if count > 0]
        self._status.value = _status(model, asked, total, _hint(known, name), self._note)

    def _chosen(self, change: Any) -> None:
        self._act(lambda: self._switch(change["new"]))

    def _submitted(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if content.get("event") == "submit":
            self._entered = time.monotonic()

    def _named(self, _: Any) -> None:
        # The browser reports Enter first and the text next; the text comes alone when somebody leaves the field.
        if time.monotonic() - self._entered < 1.0:
            self._act(self._start)

    def _act(self, act: Callable[[], str]) -> None:
        """Do what was clicked, and say in one line what came of it."""
        with self._lock:
            if self._acting:
                return
            self._acting = True
            try:
                note = act()
            except ChatMagicError as exc:
                note = str(exc)
            finally:
                self._acting = False
            self._follow(note)

    def _switch(self, name: str) -> str:
        return f"The current session is {self._sessions.use(name).name!r}."

    def _start(self) -> str:
        if not self._name.value.strip():
            return "Type a name for the new session first."
        session = self._sessions.new(self._name.value.strip())
        self._name.value = ""
        return f"The current session is {session.name!r}, new and empty."

    def _empty(self) -> str:
        session = self._idle()
        asked = ", and what its cells had set" if session.state.line else ""
        return (
            f"{session.name!r} is empty now: {_turns(session.clear())} set aside{asked}. Undo brings everything back."
        )

    def _take_back(self) -> str:
        self._idle()
        return f"Undone: {', '.join(self._sessions.undo())}. Redo repeats it."

    def _repeat(self) -> str:
        self._idle()
        return f"Redone: {', '.join(self._sessions.redo())}. Undo takes it back."

    def _idle(self) -> Session:
        session = self._sessions.find(self._sessions.current)
        if self._sessions.busy[session] > 0:
            raise SessionError(f"{session.name!r} is being asked just now. Wait for the reply, or stop it")
        return session


def _turns(count: int) -> str:
    return f"{count:,} turn{'' if count == 1 else 's'}"


def _ways(sessions: Sessions, session: Session | None) -> tuple[bool, bool]:
    """Say whether there is something to undo, and to redo."""
    mine = [move.session is session or move.new is None for move in sessions._moves]
    again = [
        move.session is session or move.new is None or move.current == sessions.current for move in sessions._moved_back
    ]
    return any(mine) or bool(session and session.done), any(again) or bool(session and session.undone)


def _hint(known: Container[str], name: str) -> str:
    """Say how to go on where there is nothing to count yet."""
    if not known:
        return "<small>No conversation yet: <code>%%chat NAME</code> on the first line of a cell starts one.</small>"
    how = "continues it" if name in known else "starts it"
    return f"<small>No turn yet: <code>%%chat</code> on the first line of a cell {how}.</small>"


def _status(model: str | None, asked: Sequence[str], total: _Sum | None, hint: str, note: str) -> str:
    """Return the lower half of the panel as HTML; what comes from outside is escaped."""
    busy = f" &nbsp;<b>● {_safe(', '.join(asked))} is being asked</b>" if asked else ""
    lines = [f"<div><small>Model</small> {_safe(model or 'unknown')}{busy}</div>"]
    if total:
        last = total.turn.usage
        head = "".join(f"<th scope=col>{each}</th>" for each in ("tokens", "in", "cached", "out"))
        rows = _row("last turn", last, last) + _row(f"all {_turns(total.turns)}", total.usage, total.least)
        lines.append(f"<table><tr>{head}</tr>{rows}</table>")
    else:
        lines.append(f"<div>{hint}</div>")
    return "".join([*lines, f"<div role=status>{_safe(note)}</div>" if note else ""])


def _row(name: str, usage: Usage, least: Usage) -> str:
    cached = "unknown"
    if usage.input_tokens and usage.cached_tokens is not None:
        cached = f"{usage.cached_tokens / usage.input_tokens:.0%}"
    cells = _count(usage.input_tokens, least.input_tokens), cached, _count(usage.output_tokens, least.output_tokens)
    return f"<tr><th scope=row>{name}</th>{''.join(f'<td>{each}</td>' for each in cells)}</tr>"


def _count(count: int | None, least: int | None) -> str:
    if count is not None:
        return f"{count:,}"
    return f"≥ {least:,}" if least else "unknown"


def _safe(text: str) -> str:
    return escape(one_line(text))


def _close(widget: Any) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    for each in (getattr(widget, "style", None), widget.layout, widget):
        if each is not None:
            each.close()
