"""What this process knows, and how its parts are put together for a turn."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from chatmagic.conversation.messages import Cell, Turn
from chatmagic.conversation.policy import OURS, is_budget
from chatmagic.conversation.session import Session, State
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import InterruptedTurnError, LineError, SessionError, SettingError

if TYPE_CHECKING:
    from chatmagic.api import Chat, Chats
    from chatmagic.asking import Ask
    from chatmagic.conversation.context import Planner
    from chatmagic.conversation.memory import Beside
    from chatmagic.conversation.messages import Message, Summary
    from chatmagic.conversation.spending import Purse
    from chatmagic.digest import Draft, Job
    from chatmagic.display.context import Preview
    from chatmagic.display.digest import Digest
    from chatmagic.display.marks import Marks
    from chatmagic.display.page import Look
    from chatmagic.display.panel import Panel
    from chatmagic.events import Client, Renderer
    from chatmagic.journal.writing import Journal
    from chatmagic.listening import Retry
    from chatmagic.parts import Configured, Provider
    from chatmagic.provider.tape import Tape
    from chatmagic.provider.taping import Deck

__all__ = ["DEFAULT_MODEL", "Kernel"]

DEFAULT_MODEL = "gpt-6-luna"


class Kernel:
    """What this process knows: its sessions, its connections, the magics while loaded, and what these replaced."""

    def __init__(self, client: Provider | None = None) -> None:
        self.sessions = Sessions()
        self.client = client
        self.magics: Configured | None = None
        self.replaced: dict[str, Any] = {}
        self.panel: Panel | None = None
        self.marks: Marks | None = None
        self.journal: Journal | None = None
        self.uncomplete: Callable[[], None] = lambda: None
        self.policies: dict[str, Callable[..., Any]] = {}
        """Functions that choose what is sent, which came from Python."""
        self.drafts: dict[str, Draft] = {}
        """What is done of summaries that did not come to their end."""
        self._deck: Deck | None = None
        self._planner: Planner | None = None
        self._counts = ""  # the vocabulary that has been asked for

    @property
    def defaults(self) -> Settings:
        """The settings that lie below those of every session."""
        configured = self.magics.model if self.magics else ""
        model = configured or os.environ.get("CHATMAGIC_MODEL", "").strip() or DEFAULT_MODEL
        traits = self.magics
        values: dict[str, Any] = {"model": model, "context": traits.context if traits else "budget"}
        if traits and traits.recall:
            values["recall"] = traits.recall
        if traits and traits.summary_model:
            values["summary_model"] = traits.summary_model
        return Settings(values)

    @property
    def facts(self) -> list[str]:
        """What every session is told: by the configuration, and by `remember`."""
        configured = self.magics.facts if self.magics else []
        return list(dict.fromkeys([*filter(str.strip, configured), *self.sessions.facts]))

    def chat(self, name: str | None = None) -> Chat:
        """Return the handle of a session, by default of the current one."""
        from chatmagic.api import Chat

        return Chat(name or self.sessions.current, self.sessions, self)

    def chats(self) -> Chats:
        """Return the handles of all sessions."""
        from chatmagic.api import Chats

        return Chats(self.sessions, self)

    @property
    def cell(self) -> Cell:
        """The cell that is running, as far as the front end says; none in a thread that may run beside any cell."""
        shell = self.magics.shell if self.magics else None
        message = _request(shell)
        count = str(shell.execution_count) if shell else None
        return Cell(message.get("metadata", {}).get("cellId"), message.get("header", {}).get("msg_id") or count)

    def dry_run(
        self,
        session: Session,
        prompt: str,
        *,
        at: int | None = None,
        append: bool = False,
        options: Settings = NOTHING,
        read: Sequence[str] = (),
    ) -> Preview:
        """Return what would be sent if *prompt* were asked; nothing is."""
        _check_readable(session, read)
        start = self._plan(session, prompt, at, append, self.cell)["start"] or session.begin(self.cell)
        return self.preview(session, prompt, options=options, start=start, read=read)

    def ask(self, session: Session, prompt: str, *, at: int | None = None, append: bool = False, **how: Any) -> Turn:
        """Ask *prompt* in *session*: where the cell's earlier turns began, behind turn *at*, or at the end.

        What *how* may hold: see `_run` and ``engine.run_turn``.
        """
        return self._run(session, partial(self._plan, session, prompt, at, append), **how)

    def _plan(self, session: Session, prompt: str, at: int | None, append: bool, cell: Cell) -> dict[str, Any]:
        """Return where *prompt* is asked in *cell*, and what it takes the place of."""
        if not prompt.strip():
            raise LineError("the prompt is empty: write it below the line with %%chat")
        if at is not None and append:
            raise LineError("--at and --append exclude each other: the one goes back, the other to the end")
        if at is not None:
            return {"prompt": prompt, **self._behind(session, at, cell)}
        return {"prompt": prompt, "start": session.state if append or self._appends else None}

    def _behind(self, session: Session, at: int, cell: Cell) -> dict[str, Any]:
        turn, edited = session.meant(at, cell), session.edited
        replaces = edited is not None and edited.parent is turn and edited in session
        return {"start": session.state.at(turn), "instead": edited if replaces else None}

    def retry(self, session: Session, **how: Any) -> Turn:
        """Ask the newest prompt once more; the new turn takes its place."""

        def plan(_: Cell) -> dict[str, Any]:
            turn = _newest(session, "retry")
            beside = [each for each in self._beside_of(session, turn) if each.session]
            return {"prompt": turn.prompt, "start": session.again(turn), "instead": turn, "beside": beside}

        return self._run(session, plan, **how)

    def go_on(self, session: Session, **how: Any) -> Turn:
        """Let the model go on with its newest reply; one turn with the joined reply takes its place."""

        def plan(_: Cell) -> dict[str, Any]:
            turn = _newest(session, "continue")
            how = {"prompt": turn.prompt, "start": session.again(turn), "instead": turn, "go_on": True}
            return {**how, "beside": self._beside_of(session, turn)}

        return self._run(session, plan, **how)

    @property
    def _appends(self) -> bool:
        return self.magics is not None and self.magics.rerun == "append"

    def _run(
        self,
        session: Session,
        plan: Callable[[Cell], dict[str, Any]],
        *,
        typed: bool = False,
        display: bool = True,
        view: Renderer | None = None,
        stop: threading.Event | None = None,
        back: str = "",
        read: Sequence[str] = (),
        **how: Any,
    ) -> Turn:
        """Run one turn as *plan* says when the session is free, with the sessions *read* in view; *display* it.

        *typed* in a magic, the session is the current one from then on. From another thread *stop* ends it; *view*
        shows it elsewhere, and *back* is what takes it back there.
        """
        from chatmagic.engine import run_turn

        cell = self.cell
        renderer = self._told(session, view or self.renderer(display))
        client, retry = self._stoppable(stop)
        if self.marks is not None:
            self.marks.forget(cell)

        def follow(session: Session, _: Turn) -> None:
            self.sessions.asked_by(cell, session)

        _check_readable(session, read)
        with _alone(session, renderer), self.sessions.asking(session):
            planned = {"beside": self._beside(read), **plan(cell)}
            renderer = self._taken(session, renderer, planned, cell, how)
            back = back or ("%chat undo" if typed else f"chatmagic.session({session.name!r}).undo()")
            asked_for = not display and planned["start"] is not None
            turn = run_turn(
                session,
                **planned,
                client=client,
                renderer=renderer,
                planner=self.planner,
                budget=self._budget,
                purse=self._purse,
                facts=self.facts,
                defaults=self.defaults,
                cell=cell,
                undo=None if asked_for else back,
                retry=retry,
                on_turn=[follow] if typed else [],
                **how,
            )
        self._prepare(turn.model)
        return turn

    def _told(self, session: Session, renderer: Renderer) -> Renderer:
        return self.panel.told(session, renderer) if self.panel else renderer

    def _stoppable(self, stop: threading.Event | None) -> tuple[Client, Retry]:
        """Return what asks, and how often; *stop* ends it."""
        client, retry = self.connected(), self._retry
        if stop is None:
            return client, retry
        from chatmagic.stopping import Stoppable, pause_until

        return Stoppable(client, stop), replace(retry, sleep=pause_until(stop))

    def _taken(
        self, session: Session, renderer: Renderer, planned: dict[str, Any], cell: Cell, how: dict[str, Any]
    ) -> Renderer:
        """Have the journal take down what comes, and let the turn say what is wrong with the journal."""
        tape = self._tape
        if self.journal is None and tape is not None and tape.mode == "replay":
            return renderer  # all of it is on the tape, and tests should leave nothing behind
        journal = self.journaled
        if journal is None:
            return renderer
        if journal.trouble and tape is None:  # it has nothing to do with what is recorded
            how["notices"], journal.trouble = [*how.get("notices", ()), journal.trouble], ""
        if session.temporary or how.get("once"):
            return renderer
        begin = planned["start"] or session.begin(cell)
        line = how.get("options", NOTHING).over(begin.line)
        return journal.taking(renderer, session, planned["prompt"], replace(begin, line=line))

    @property
    def journaled(self) -> Journal | None:
        """The journal, as it is configured now; it begins with the first turn."""
        if self.magics is None:
            return None
        place = self.magics.journal
        if self.journal is not None and self.journal.text != place:
            self.unjournal()
        if self.journal is not None:
            self.journal.open()
        if place and self.journal is None:
            from chatmagic.journal import plainly_wrong
            from chatmagic.journal.writing import Journal

            self.journal = Journal(place, self.sessions, self.notebook, secrets=lambda: self.secrets)
            if wrong := plainly_wrong(place):
                self.journal.give_up(wrong)
            atexit.register(self.journal.close)
        return self.journal

    def unjournal(self) -> None:
        """Write what there is, and nothing from now on."""
        if self.journal is not None:
            atexit.unregister(self.journal.close)
            self.journal.close()
            self.journal = None

    @property
    def notebook(self) -> str:
        """The file whose cells run here, as far as the front end says."""
        return os.environ.get("JPY_SESSION_NAME") or str(self._names.get("__vsc_ipynb_file__") or "")

    @property
    def planner(self) -> Planner:
        """What decides what is sent; it goes on learning as long as the kernel lives."""
        from chatmagic.conversation.context import Planner
        from chatmagic.conversation.estimate import estimate
        from chatmagic.conversation.tokens import Gauge

        if self._planner is None:
            self._planner = Planner(Gauge(estimate), self._policy)
        return self._planner

    def _policy(self, name: str) -> object:
        return self.policies.get(name) or self._names.get(name)

    @property
    def _names(self) -> Mapping[str, Any]:
        """What the notebook has defined."""
        return self.magics.shell.user_ns if self.magics else {}

    def policy_of(self, function: Callable[..., Any]) -> str:
        """Return a name by which a *function* that chooses what is sent is found again.

        A function of the notebook is found by its own: when it is defined anew, the new one is meant.
        """
        name = getattr(function, "__name__", "")
        if name.isidentifier() and self._names.get(name) is function and name not in OURS:
            return str(name)
        known = (each for each, other in self.policies.items() if other is function)
        stem = name if name.isidentifier() else "function"
        free = (f"{stem}_{number}" for number in itertools.count(1))
        key = next(known, None) or next(each for each in free if each not in self.policies and each not in self._names)
        self.policies[key] = function
        return key

    def preview(
        self,
        session: Session,
        prompt: str = "",
        *,
        options: Settings = NOTHING,
        start: State | None = None,
        read: Sequence[str] = (),
    ) -> Preview:
        """Return what the next request of *session* holds, if it begins at *start* (by default where the line ends).

        Raises:
            ContextOverflowError: what has to be sent is longer than it may be.
        """
        from chatmagic.display.context import Preview

        ask = self._prepared(session, start or session.state, prompt, options, read)
        return Preview(
            session.name,
            ask.policy,
            ask.history,
            ask.limits,
            ask.context,
            self.planner.gauge,
            ask.facts.cost,
            (ask.asked.recall_model or "") if ask.asked.recall else "",
        )

    def _prepared(
        self, session: Session, begin: State, prompt: str = "", options: Settings = NOTHING, read: Sequence[str] = ()
    ) -> Ask:
        from chatmagic.asking import prepared

        return prepared(
            session,
            begin,
            prompt,
            client=self.connected(),
            planner=self.planner,
            budget=self._budget,
            asked=replace(begin, line=options.over(begin.line)).in_force.over(self.defaults),
            facts=self.facts,
            beside=self._beside(read),
        )

    def _beside_of(self, session: Session, turn: Turn) -> list[Beside]:
        """Return what went out beside the prompt of *turn*, as far as it is there."""
        from chatmagic.conversation.memory import recalled

        if turn.sent is None:
            return []
        back = [recalled([session.tree[number] for number in turn.sent.recalled])] if turn.sent.recalled else []
        return [*self._beside([name for name in turn.sent.read if name in self.sessions]), *back]

    def _beside(self, names: Sequence[str]) -> list[Beside]:
        """Return what the sessions *names* would send now, to be read with a prompt of another one."""
        from chatmagic.conversation.memory import beside

        def said(session: Session) -> Sequence[Message]:
            ask = self._prepared(session, session.state)
            return replace(ask.history, facts=()).messages(ask.context.turns, ask.summary)[:-1]

        return [beside(session.name, said(session)) for session in map(self.sessions.__getitem__, dict.fromkeys(names))]

    def compact(self, session: Session, *, display: bool = True) -> Sequence[Turn]:
        """Have all turns but the newest summarized, and send the summary from here on; return those new in it."""
        from chatmagic.compacting import Compactor, compact

        renderer = self._told(session, self.renderer(display))
        with _alone(session, renderer), self.sessions.asking(session):
            ask = self._prepared(session, session.state)
            _compactable(session, ask.policy)
            purses = [ask.purse(session), self._purse]
            tree, client = session.tree, self.connected()
            compactor = Compactor(
                client, self.planner.gauge, self._budget, self._retry, purses, tree.summaries, tree.key
            )
            return compact(session, ask, compactor, renderer)

    def summarize_as(self, session: Session, text: str) -> Summary | None:
        """Send *text* as the summary from here on; where there was none, it stands for all turns but the newest.

        Returns None if it is sent already.
        """
        from chatmagic.asking import limits_of

        asked = session.settings.over(self.defaults)
        _compactable(session, asked.context or "budget")
        facts = self.connected().facts(asked.model or "", asked.parameters)
        most = limits_of(facts, asked, self._budget, self.planner.gauge).most // 2
        if (tokens := self.tokens(session, text)) > most:
            raise LineError(f"the summary has ~{round(tokens):,} tokens, and may have {most:,}, half of what is sent")
        with self.sessions.idle(session.name):
            summary = session.own_summary(text)
            return summary if session.compact(summary) else None

    def tokens(self, session: Session, text: str) -> float:
        """Return about how many tokens *text* has for the model of *session*."""
        asked = session.settings.over(self.defaults)
        return self.planner.gauge.text(self.connected().facts(asked.model or "", asked.parameters).reader, text)

    def to_summarize(
        self, text: object, *, model: str | None = None, prompt: str = "", refine: bool = False, at_once: int = 4
    ) -> Job:
        """Return what summarizing *text* takes: split and measured, but nothing is sent."""
        from chatmagic.digest import Job, texts_of

        of_session = self.sessions.find(self.sessions.current).settings.over(self.defaults).model
        return Job(
            texts_of(text),
            of_session or "" if model is None else model,
            client=self.connected(),
            gauge=self.planner.gauge,
            budget=self._budget,
            prompt=prompt,
            refine=refine,
            at_once=at_once,
            purses=[self._purse],
            retry=self._retry,
            drafts=self.drafts,
        )

    def summarize(self, text: object, *, display: bool = False, **how: Any) -> Digest:
        """Sum up *text*, in no session, and *display* it. What *how* may hold: see `to_summarize`."""
        from chatmagic.display.digest import NotebookProgress, TerminalProgress, watched

        job = self.to_summarize(text, **how)
        view = (NotebookProgress(look=self.look) if self.in_notebook else TerminalProgress()) if display else None
        digest = watched(job, view, self.look)
        self._prepare(job.model)
        return digest

    @property
    def secrets(self) -> list[str]:
        """The keys of all endpoints, which must reach no file."""
        from chatmagic.provider.endpoints import keys

        return keys(self.magics.endpoints if self.magics else {}, os.environ)

    @property
    def deck(self) -> Deck:
        """Where a tape may run."""
        from chatmagic.provider.secrets import of_environment
        from chatmagic.provider.taping import Deck

        self._deck = self._deck or Deck(os.environ, lambda: [*self.secrets, *of_environment(os.environ)])
        return self._deck

    @property
    def _deck_in_use(self) -> Deck | None:
        named = os.environ.get("CHATMAGIC_TAPE") or os.environ.get("CHATMAGIC_TAPE_MODE")
        return self.deck if self._deck or named else None

    @property
    def _tape(self) -> Tape | None:
        deck = self._deck_in_use
        return deck.tape if deck else None

    @property
    def names(self) -> dict[str, Any]:
        """What the notebook has defined."""
        names: dict[str, Any] = self.magics.shell.user_ns if self.magics else {}
        return names

    @property
    def _retry(self) -> Retry:
        from chatmagic.listening import Retry

        told = self._tape is None  # what only a recording shows would be missing when the tape plays
        return Retry(self.magics.tries, self.magics.longest_wait, told=told) if self.magics else Retry(told=told)

    @property
    def _budget(self) -> int:
        from chatmagic.conversation.context import BUDGET

        return self.magics.budget if self.magics else BUDGET

    @property
    def _purse(self) -> Purse:
        from chatmagic.conversation.spending import Purse

        most = self.magics.max_cost if self.magics else None
        return Purse(self.sessions.spent, "this kernel", most, "%config ChatMagic.max_cost = AMOUNT")

    def _prepare(self, model: str) -> None:
        """Learn what the next turns may need; nobody waits for it."""
        where = self.connected().facts(model, {}).where
        if where == "within":
            return
        self.connected().look_up(model)
        wanted = self.magics.vocabulary if self.magics else "disk"
        if self._tape is not None:
            wanted = "off"  # what is cut, and when, must be the same on every machine
        # Whoever asks only servers on this machine has not asked for anything from elsewhere.
        if wanted == "fetch" and where == "here":
            wanted = "disk"
        if wanted in ("off", self._counts) or self._counts == "fetch":
            return
        self._counts = wanted
        from chatmagic.provider.vocabulary import prepare

        prepare(self.planner.gauge.use, fetch=wanted == "fetch")

    def renderer(self, display: bool = True) -> Renderer:
        """Return a view for where this kernel shows things, or one that shows nothing."""
        from chatmagic.display.render import NotebookView, SilentView, TerminalView

        if not display:
            return SilentView()
        if not self.in_notebook:
            return TerminalView()
        from chatmagic.display.marks import Marks

        if self._tape is not None:
            # A mark is put on the output of another cell, which nbval compares when that cell has run.
            return NotebookView(look=self.look)
        self.marks = self.marks or Marks(self.sessions, look=lambda: self.look)
        return NotebookView(shown=self.marks.shown, look=self.look)

    @property
    def look(self) -> Look:
        """How replies are shown."""
        from chatmagic.display.page import LOOK, Look

        traits = self.magics
        return Look(traits.images == "show", tuple(traits.mime)) if traits else LOOK

    @property
    def in_notebook(self) -> bool:
        """True where there is a front end that shows HTML and widgets."""
        from chatmagic.display.render import shows_updates

        return self.magics is not None and hasattr(self.magics.shell, "kernel") and shows_updates()

    def show_panel(self) -> bool:
        """Show the panel, another view of the same one each time; return False where none can be shown."""
        if not self.in_notebook:
            return False
        from chatmagic.display.panel import Panel

        self.panel = self.panel or Panel(self.sessions, self)
        self.panel.show()
        return True

    def models(self, endpoint: str) -> list[str]:
        """Return the models that *endpoint* lists."""
        return self.connected().models(endpoint)

    def connected(self) -> Provider:
        """Return the other end of the wire, as it is configured now."""
        from chatmagic.provider.client import OpenAIClient

        if self.client is None:
            self.client = OpenAIClient()
        if isinstance(self.client, OpenAIClient) and self.magics:
            self.client.endpoints = self.magics.endpoints
            self.client.timeout = self.magics.timeout
            self.client.own = self.magics.models
        if isinstance(self.client, OpenAIClient):
            self.client.deck = self._deck_in_use
        return self.client


def _check_readable(session: Session, names: Sequence[str]) -> None:
    if session.name in names:
        raise LineError(f"{session.name!r} is the session that asks: what was said in it is sent anyway")


def _compactable(session: Session, policy: str) -> None:
    if not is_budget(policy):
        raise SettingError(
            f"{session.name!r} has --context {policy}, which sends no summary. "
            "Choose one that does with %chat set context=summary"
        )


def _newest(session: Session, verb: str) -> Turn:
    if session.last is None:
        start = f"Ask something first: %%chat {session.name}"
        raise SessionError(f"session {session.name!r} has no turn to {verb}. {start}")
    return session.last


def _request(shell: Any) -> Mapping[str, Any]:
    """Return the message that the running cell came with."""
    of_context = getattr(shell, "_parent_header", None)
    if isinstance(of_context, ContextVar):
        # shell.parent_header would be the message of whatever cell runs meanwhile.
        return of_context.get(None) or {}
    known = threading.current_thread() is threading.main_thread()
    return getattr(shell, "parent_header", None) or {} if known else {}


@contextmanager
def _alone(session: Session, renderer: Renderer) -> Iterator[None]:
    """Wait until *session* answers nobody else, and let nobody else ask meanwhile."""
    if not session.lock.acquire(blocking=False):
        from chatmagic.events import Queued

        renderer.show(Queued(session.name))
        try:
            session.lock.acquire()
        except KeyboardInterrupt:
            renderer.fail([])
            raise InterruptedTurnError("stopped while it waited for another reply; nothing was sent") from None
    try:
        yield
    finally:
        session.lock.release()
