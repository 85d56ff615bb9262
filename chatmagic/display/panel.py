"""The panel: a session switcher and what the current session has used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container
from typing import Any

from IPython.display import publish_display_data
from ipywidgets import HTML, Button, Dropdown, HBox, Layout, Text, VBox

from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.display.usage import Sums, status, turns
from chatmagic.errors import ChatMagicError

__all__ = ["Panel"]

_TEXT = "chatmagic panel (run this cell to see it)"

# Sent once, so that what is sent at every turn is short.
_STYLE = """<style>
.chatmagic-panel { max-width: 46em; padding: 4px 2px; container-type: inline-size; }
.chatmagic-panel .widget-inline-hbox .widget-label { width: auto; margin-right: 8px; }
.chatmagic-panel .widget-text .widget-label { position: absolute; width: 1px; clip-path: inset(50%); }
.chatmagic-panel .widget-html, .chatmagic-panel .widget-html-content { width: auto; height: auto; line-height: 1.5; }
.chatmagic-panel .widget-html-content { color: var(--jp-ui-font-color1, inherit); overflow-wrap: anywhere; }
.chatmagic-panel table { border-collapse: collapse; margin: 2px 0; font-variant-numeric: tabular-nums; }
.chatmagic-panel :is(th, td) { padding: 1px 0 1px 24px; text-align: right; font-weight: normal; white-space: nowrap; }
.chatmagic-panel :is(th, td):first-child { padding-left: 0; text-align: left; }
.chatmagic-panel :is(th, small) { color: var(--jp-ui-font-color2, #757575); font-size: inherit; }
.chatmagic-panel b { color: var(--jp-brand-color1, #1976d2); font-weight: normal; }
@container (max-width: 26em) { .chatmagic-panel :is(th, td) { padding-left: 12px; } }
</style>"""


class Panel:
    """Widgets that follow *sessions* and act on them; *defaults* gives the settings that lie below those of all.

    Calls may come from any thread. A panel that was closed opens again when it is shown. ``widget`` is all of it.
    """

    def __init__(self, sessions: Sessions, defaults: Callable[[], Settings]) -> None:
        self._sessions = sessions
        self._defaults = defaults
        self._sums = Sums()
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
            description="Name of a new session",  # for screen readers
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
        self.widget = VBox([style, head, self._status])
        self.widget.add_class("chatmagic-panel")
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
            if self.widget.comm is None:
                self._build()
            self._follow()
            view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
            publish_display_data({"text/plain": _TEXT, "application/vnd.jupyter.widget-view+json": view})  # type: ignore[no-untyped-call]  # IPython's

    def close(self) -> None:
        """Take the panel off every page, and follow no longer."""
        with self._lock:
            if self._follow in self._sessions.watchers:
                self._sessions.watchers.remove(self._follow)
            _close(self.widget)

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
        total = self._sums.upto(current.last if current else None)
        stand = (list(known), name, current and current.state)
        if note is not None or stand != self._noted:
            self._note, self._noted = note or "", stand
        options = [(f"{each} · {turns(self._sums.upto(session.last).turns)}", each) for each, session in known.items()]
        if current is None:
            options.append((f"{name} · not started", name))
        with self._choice.hold_sync():
            self._choice.options = tuple(options)
            self._choice.value = name
        asked = [session.name for session, count in list(sessions.busy.items()) if count > 0]
        # A click waits until the running cell ends, and would then meet another session than the one it was aimed at.
        self._clear.disabled = bool(asked) or not (current and (current.last or current.state.line))
        self._undo.disabled = bool(asked) or not sessions.can_undo
        self._redo.disabled = bool(asked) or not sessions.can_redo
        model = (current.settings if current else Settings()).over(self._defaults()).model
        self._status.value = status(model, asked, total, _hint(known, name), self._note)

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
        with self._sessions.idle(self._sessions.current) as session:
            asked = ", and what its cells had set" if session.state.line else ""
            return f"{session.name!r} is empty now: {turns(session.clear())} set aside{asked}. Undo brings it back."

    def _take_back(self) -> str:
        return f"Undone: {', '.join(self._sessions.undo())}. Redo repeats it."

    def _repeat(self) -> str:
        return f"Redone: {', '.join(self._sessions.redo())}. Undo takes it back."


def _hint(known: Container[str], name: str) -> str:
    """Say how to go on where there is nothing to count yet."""
    if not known:
        return "No conversation yet: %%chat NAME on the first line of a cell starts one."
    how = "continues it" if name in known else "starts it"
    return f"No turn yet: %%chat on the first line of a cell {how}."


def _close(widget: Any) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    for each in (getattr(widget, "style", None), widget.layout, widget):
        if each is not None:
            each.close()
