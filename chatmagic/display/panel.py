"""The panel: a widget that shows the sessions, acts on them, and asks in them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from anywidget import AnyWidget
from IPython.display import publish_display_data
from traitlets import Dict

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.display.clicks import Clicks
from chatmagic.display.overview import Overview, Previewer, changes
from chatmagic.display.page import Look, turn_page
from chatmagic.display.render import NotebookView
from chatmagic.display.told import Told
from chatmagic.errors import ChatMagicError, SessionError
from chatmagic.events import Renderer
from chatmagic.plain import one_line, plain

__all__ = ["Panel"]

_TEXT = "chatmagic panel (run this cell to see it)"
_PAUSE = 0.1  # seconds between two messages
_HERE = Path(__file__).parent


class Edge(Previewer, Protocol):
    """Who runs turns."""

    @property
    def look(self) -> Look:
        """How replies are shown."""

    def ask(self, session: Session, prompt: str, **how: Any) -> Turn:
        """Ask *prompt*; *how* may hold the ``view`` that shows it, what may ``stop`` it, what takes it ``back``."""

    def retry(self, session: Session, **how: Any) -> Turn:
        """Ask the newest prompt once more."""


@dataclass(eq=False)
class _Shown:
    """What is shown of one turn, in *parts* of HTML: it was opened, or it streams and somebody may *stop* it."""

    prompt: str
    turn: Turn | None = None
    aside: bool = False
    parts: dict[str, str] = field(default_factory=dict)
    stop: threading.Event | None = None


class _Widget(AnyWidget):
    """What the front end knows; *describe* is called whenever one asks for all of it."""

    _esm = (_HERE / "panel.js").read_text(encoding="utf-8")
    _css = (_HERE / "panel.css").read_text(encoding="utf-8")
    state = Dict().tag(sync=True, to_json=lambda _, widget: widget.describe())

    def __init__(self, describe: Callable[[], dict[str, Any]], name: str) -> None:
        self.describe = describe
        super().__init__(model_id=name)


class Panel:
    """A widget that follows *sessions* and acts on them, and has *edge* ask in them.

    Calls may come from any thread. Only what has changed is sent, and nothing while no view is on any page.
    """

    def __init__(self, sessions: Sessions, edge: Edge) -> None:
        self._sessions, self._edge = sessions, edge
        self._overview = Overview(sessions, edge)
        self._lock = threading.RLock()  # of what is below
        self._timer: threading.Timer | None = None
        self._sent: dict[str, Any] = {}
        self._when = 0.0
        self._changes = 0
        self._seen: tuple[int, dict[str, Any]] = (-1, {})  # the overview, and after how many changes
        self._note = ""
        self._noted: object = None  # where the sessions stood when the note was true
        self._viewers: set[str] = set()
        self._is_shown = False
        self._is_loaded = True
        self._shown: WeakKeyDictionary[Session, _Shown] = WeakKeyDictionary()
        self._doing: WeakKeyDictionary[Session, str] = WeakKeyDictionary()
        clicks = Clicks(sessions)
        self._acts: dict[str, Callable[..., str | dict[str, Any] | None]] = {
            "cell": clicks.cell,
            "clear": clicks.clear,
            "close": self._close,
            "delete": clicks.delete,
            "fork": clicks.fork,
            "new": clicks.new,
            "open": self._open,
            "pin": clicks.pin,
            "redo": clicks.redo,
            "rename": clicks.rename,
            "retry": self._retry,
            "set": clicks.set,
            "shown": self._views,
            "stop": self._stop,
            "undo": clicks.undo,
            "use": clicks.use,
        }
        self._id = secrets.token_hex(16)
        self.widget = _Widget(self._describe, self._id)
        self._sent = self._state()
        self.widget.on_msg(self._hear)
        self.follow()

    def show(self) -> None:
        """Display the panel; shown twice, it is the same panel in two places."""
        self._is_shown = True
        self._follow()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        publish_display_data({"text/plain": _TEXT, "application/vnd.jupyter.widget-view+json": view})  # type: ignore[no-untyped-call]  # IPython's

    def follow(self) -> None:
        """Follow the sessions, and act on them."""
        if self._follow not in self._sessions.watchers:
            self._sessions.watchers.append(self._follow)
        self._is_loaded = True
        self._follow()

    def rest(self) -> None:
        """Follow no longer, and say so on every page."""
        if self._follow in self._sessions.watchers:
            self._sessions.watchers.remove(self._follow)
        self._is_loaded = False
        self._follow()

    def told(self, session: Session, renderer: Renderer) -> Renderer:
        """Return a renderer that does what *renderer* does; the panel hears what goes on in *session* meanwhile."""
        return Told(renderer, partial(self._tell, session))

    def _tell(self, session: Session, what: str) -> None:
        if what:
            self._doing[session] = one_line(what, 120)
        else:
            self._doing.pop(session, None)
        self._soon()

    def _follow(self) -> None:
        """Something has changed."""
        with self._lock:
            self._changes += 1
        self._soon()

    def _soon(self) -> None:
        """Send what has changed, now or when the last message is long enough ago."""
        with self._lock:
            if self._timer is not None or not self._is_shown:
                return
            wait = self._when + _PAUSE - time.monotonic()
            if wait > 0:
                self._timer = threading.Timer(wait, self._send)
                self._timer.daemon = True
                self._timer.start()
                return
        self._send()

    def _send(self) -> None:
        with self._lock:
            self._timer, self._when = None, time.monotonic()
            if not self._is_shown:
                return
            before, after = self._sent, self._state()
            if patch := changes(before, after):
                self._sent = after
                self.widget.send(patch)

    def _describe(self) -> dict[str, Any]:
        with self._lock:
            return self._state()

    def _state(self) -> dict[str, Any]:
        if self._seen[0] != self._changes:
            self._seen = self._changes, self._overview()
        session = self._sessions.find(self._sessions.current)
        stand = [each.name for each in self._sessions], session, session.state
        if self._noted not in (None, stand):
            self._note = ""
        self._noted = stand
        busy = {each.name: self._doing.get(each, "") for each, count in list(self._sessions.busy.items()) if count > 0}
        shown = self._shown.get(session)
        if shown and shown.turn and shown.aside != (shown.turn not in session):
            shown = self._shown[session] = self._opened(session, shown.turn)
        page: dict[str, Any] | None = None
        if shown is not None:
            number = shown.turn.number if shown.turn else None
            page = {"prompt": plain(shown.prompt), "turn": number, "streams": shown.stop is not None}
        return {
            **self._seen[1],
            "id": self._id,
            "asked": busy,
            "page": page,
            "parts": dict(shown.parts) if shown else {},
            "note": self._note,
            "loaded": self._is_loaded,
        }

    def _hear(self, _: Any, content: dict[str, Any], __: Any) -> None:
        """Do what was clicked, and say in one line what came of it."""
        act = dict(content)
        number, name = act.pop("id", None), act.pop("do", "")
        if not self._is_loaded:
            self.widget.send({"done": number})
            return
        answer: dict[str, Any] = {"done": number}
        try:
            said = self._asked(number, **act) if name == "ask" else self._acts[name](**act)
            if isinstance(said, dict):
                answer |= said
                said = answer.pop("note", None)
        except ChatMagicError as exc:
            said = str(exc)
            answer["refused"] = True
        except Exception as exc:
            self.widget.send({**answer, "refused": True})
            self._say(_bug(exc))
            raise
        self.widget.send(answer)
        if said is not None:
            self._say(said)

    def _say(self, note: str) -> None:
        with self._lock:
            self._note, self._noted = one_line(note), None
        self._follow()

    def _views(self, by: str, value: bool) -> None:
        """There is a first view on the page of a front end, or none any more."""
        with self._lock:
            (self._viewers.add if value else self._viewers.discard)(by)
            if value:
                self._sent = {}  # whoever begins to look may have missed what was sent
            self._is_shown = bool(self._viewers)
        self._soon()

    def _open(self, of: str, n: int) -> None:
        """Show the whole turn #*n*."""
        session = self._sessions[of]
        self._refuse_if_asked(session)
        self._shown[session] = self._opened(session, session.tree[n])
        self._follow()

    def _opened(self, session: Session, turn: Turn) -> _Shown:
        page = turn_page(session.name, turn, aside=turn not in session, look=self._look)
        return _Shown(turn.prompt, turn, turn not in session, {"0": page.html})

    def _close(self, of: str, n: int | None = None) -> None:  # noqa: ARG002 - the turn that is closed
        """Show no turn any more."""
        session = self._sessions.find(of)
        if (shown := self._shown.get(session)) is not None and shown.stop is None:
            del self._shown[session]
            self._follow()

    @property
    def _look(self) -> Look:
        return replace(self._edge.look, mime=("text/html",))

    def _asked(self, number: object, of: str, text: str) -> dict[str, Any]:
        """Ask; if nothing comes of it, say that this click was *number*, and the front end has its text back."""
        failed = partial(self.widget.send, {"done": number, "refused": True})
        self._start(self._sessions.find(of), text, partial(self._edge.ask, prompt=text), failed)
        return {"later": True}

    def _retry(self, of: str) -> None:
        session = self._sessions[of]
        self._start(session, session.last.prompt if session.last else "", self._edge.retry)

    def _start(
        self,
        session: Session,
        prompt: str,
        ask: Callable[..., Turn],
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        """Have it asked in a thread: the kernel stays free, and can stop it."""
        with self._lock:
            if self._sessions.busy[session]:
                raise SessionError(f"{session.name!r} is being asked just now. Wait for the reply, or stop it")
            self._refuse_if_asked(session)
            shown = self._shown[session] = _Shown(prompt, stop=threading.Event())
        self._say("")
        threading.Thread(target=self._answer, args=(session, shown, ask, failed), daemon=True).start()

    def _refuse_if_asked(self, session: Session) -> None:
        if (shown := self._shown.get(session)) is not None and shown.stop is not None:
            raise SessionError(f"{session.name!r} is answering here just now. Wait for the reply, or stop it")

    def _answer(self, session: Session, shown: _Shown, ask: Callable[..., Turn], failed: Callable[[], object]) -> None:
        def stored(_: str, __: str, turn: Turn, ___: Sequence[str]) -> None:
            shown.turn = turn

        view = NotebookView(partial(self._paint, shown), stored, self._look)
        said = ""
        try:
            turn = ask(session, view=view, stop=shown.stop, back="Undo")
            said = f"{session.name!r} has answered: turn #{turn.number}."
        except ChatMagicError as exc:
            said = str(exc)
        except Exception as exc:
            said = _bug(exc)
            raise
        finally:
            shown.stop = None
            if shown.turn is None:
                failed()
                if not any(shown.parts.values()):
                    self._shown.pop(session, None)
            self._say(said)

    def _paint(self, shown: _Shown, data: dict[str, str], _: Any, *, transient: dict[str, str], **__: Any) -> None:
        """Take what a cell would show."""
        with self._lock:
            shown.parts[transient["display_id"]] = data.get("text/html", "")
        self._soon()

    def _stop(self, of: str) -> str | None:
        shown = self._shown.get(self._sessions.find(of))
        if shown is None or shown.stop is None:
            raise SessionError(f"{of!r} is not asked from here: stop the cell or the program that asks")
        shown.stop.set()
        return None


def _bug(exc: Exception) -> str:
    return f"that failed, and it is a bug of chatmagic ({type(exc).__name__}: {exc})"
