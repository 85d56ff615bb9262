"""One turn, start to finish: what is asked of whom, what comes back, what is stored."""

from __future__ import annotations

import math
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from chatmagic.asking import Ask, Came
from chatmagic.conversation.context import BUDGET, History, Planner
from chatmagic.conversation.estimate import estimate
from chatmagic.conversation.messages import Cell, Status, Turn, Usage
from chatmagic.conversation.session import Session, State, parting
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.conversation.spending import Purse
from chatmagic.conversation.tokens import Gauge
from chatmagic.errors import (
    ChatMagicError,
    ChatMagicWarning,
    ContextOverflowError,
    CutReplyError,
    InterruptedTurnError,
    RequestError,
    SettingError,
)
from chatmagic.events import (
    Client,
    Delta,
    Event,
    Finished,
    Reasoning,
    Remark,
    Renderer,
    Request,
    Sending,
    Used,
    Waiting,
)

__all__ = ["Retry", "TurnHook", "run_turn"]


TurnHook = Callable[[Session, Turn], None]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is sent at the most, and the longest wait (seconds) that a server may ask for."""

    tries: int = 4
    longest: float = 60.0
    sleep: Callable[[float], None] = time.sleep


NOWHERE = Cell()
PATIENT = Retry()
GO_ON = "Your last message broke off. Go on exactly where it ended: repeat nothing of it, and add no introduction."


def run_turn(
    session: Session,
    prompt: str,
    *,
    client: Client,
    renderer: Renderer,
    options: Settings = NOTHING,
    defaults: Settings = NOTHING,
    once: bool = False,
    stream: bool = True,
    cell: Cell = NOWHERE,
    start: State | None = None,
    instead: Turn | None = None,
    go_on: bool = False,
    undo: str | None = "%chat undo",
    planner: Planner | None = None,
    budget: int = BUDGET,
    purse: Purse | None = None,
    retry: Retry = PATIENT,
    on_turn: Sequence[TurnHook] = (),
    notices: Sequence[str] = (),
) -> Turn:
    """Ask *prompt* in *session*, show the reply, and store both as a turn (with *once*: only show them).

    *options* describe the conversation from here on, *defaults* lie below the session's own settings. The turn begins
    at *start*: by default where the earlier turns of *cell* began, else at the end of the line. Nothing moves before
    there is text to keep. Then the turn takes the place of *instead*; with *go_on* it is that turn, its reply and
    what the model adds to it joined. *undo* is what takes it back (None: this need not be said). *notices* are shown
    with the reply, after them whatever has to be said about it. *planner* decides what of the history is sent, within
    *budget* (tokens), and learns from what comes back; the cost goes into *purse* and into the session's own.

    Raises:
        ContextOverflowError: the prompt is too long; nothing was sent, or the server refused it.
        SpendingError: the turn could cost more than is allowed; nothing was sent.
        ChatMagicError: there is no reply; the session is as it was.
        InterruptedTurnError: the user stopped it. Text that had come is stored.
        CutReplyError: the stream ended early. Text that had come is stored.
    """
    begin = start or (session.state if once else session.begin(cell))
    line = options.over(begin.line)
    asked = replace(begin, line=line).in_force.over(defaults)
    if asked.model is None:
        raise SettingError("no model: name one with %%chat -m MODEL or %config ChatMagic.model = 'MODEL'")
    pinned = begin.pinned | ({instead.number or 0} if instead and go_on else set())
    history = History(session.upto(instead if go_on else begin.head), asked.system, GO_ON if go_on else prompt, pinned)
    ask = Ask(planner or Planner(Gauge(estimate)), client.facts(asked.model, asked.parameters), history, asked, budget)
    raised = f"max_cost=AMOUNT in {session.name!r} (%chat set, --set)"
    purses = [Purse(session.spent, f"session {session.name!r}", asked.max_cost, raised), *([purse] if purse else [])]
    ask.hold(purses)
    request = Request(asked.model, ask.context.messages, asked.parameters, stream, session.tree.key)
    reply = _Reply(list(notices), instead.reply if instead and go_on else "")
    try:
        _listen(request, ask, reply, client, renderer, retry, session.name)
    except BaseException:
        with _undisturbed():
            ask.pay(reply.came, purses)
            renderer.fail([*reply.notices[len(notices) :], *_what_stays(session, cell)])
        raise
    cells = _heritage(cell, instead or session.made_by(cell))
    with _undisturbed():
        reply.usage = ask.pay(reply.came, purses)
        size, dropped = ask.learn(reply.came)
        reply.notices += dropped
        turn = reply.turn(
            prompt,
            parent=begin.head,
            model=asked.model,
            settings=line,
            cells=cells,
            sent=ask.context.sent,
            size=size,
        )
        if not once:
            reply.notices += _what_goes(session, turn, instead, undo)
            turn = session.add(turn, instead)
            _tell(on_turn, session, turn)
        renderer.finish(session.name, turn, reply.notices)
    if reply.bug is not None:
        raise reply.bug
    _raise_unless_complete(session, turn, reply, undo)
    return turn


def _heritage(cell: Cell, replaced: Turn | None) -> tuple[Cell, ...]:
    """Return the cells that a turn of *cell* belongs to: its own, and those of the turn whose place it takes."""
    cells = replaced.cells if replaced else ()
    return (cell, *(each for each in cells if each.id not in (cell.id, None)))


def _ids(turn: Turn) -> set[str | None]:
    return {cell.id for cell in turn.cells}


def _what_stays(session: Session, cell: Cell) -> list[str]:
    """Say, where the reply to a cell that runs again failed, that the one it had got is kept."""
    earlier = session.made_by(cell)
    if earlier is None:
        return []
    return [
        f"turn #{earlier.number} of this cell stays in the conversation: %chat show {session.name} {earlier.number}"
    ]


def _what_goes(session: Session, turn: Turn, instead: Turn | None, undo: str | None) -> list[str]:
    """Say which turns *turn* sets aside when it is stored; those that its own cell made before are simply replaced."""
    left, came = parting(session.last, turn.parent)
    own = turn.cells[0].id
    others = [each for each in left if each is not instead and (own is None or own not in _ids(each))]
    said = [f"in place of #{instead.number}"] if instead else []
    if others:
        later = "" if came else "later "
        said.append(f"{len(others)} {later}turn{'' if len(others) == 1 else 's'} set aside")
    if not said or undo is None or session.last is None:
        return []
    there = f", or later %chat use {session.name} --at {session.last.number}," if undo.startswith("%") else ""
    them = "it" if len(others) + bool(instead) == 1 else "them"
    return [f"{', '.join(said)}; {undo}{there} brings {them} back"]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off the user's stop to the end of the block: what has come must not get lost on its last few steps."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


class _Reply:
    """What has come so far."""

    def __init__(self, notices: list[str], begun: str) -> None:
        self.notices = notices
        self.begun = begun
        """What an earlier request brought; all else is of this one."""
        self.endpoint = ""
        self.usage = Usage()
        self.status: Status = "complete"
        self.finish: str | None = None
        self.trouble = ""
        self.bug: Exception | None = None
        self.refused = False
        """True if a server has said that it does not answer, or there was none."""
        self._parts: list[str] = []
        self._thoughts: list[str] = []
        self._started, self._clock = time.time(), time.perf_counter()

    @property
    def text(self) -> str:
        return "".join(self._parts)

    @property
    def reasoning(self) -> str:
        return "".join(self._thoughts)

    def take(self, event: Event) -> None:
        match event:
            case Delta(text):
                self._parts.append(text)
            case Reasoning(text):
                self._thoughts.append(text)
            case Used(usage):
                # Some report in parts.
                parts = {name: value for name, value in asdict(usage).items() if value is not None}
                self.usage = replace(self.usage, **parts)
            case Finished(reason):
                self.finish = reason
            case Sending(endpoint):
                self.endpoint = endpoint
                # Nothing of a try that failed belongs to the next one.
                self.usage, self.finish, self.refused = Usage(), None, False
                self._parts.clear()
                self._thoughts.clear()
            case Remark(text):
                self.notices.append(text)

    @property
    def came(self) -> Came:
        """What came, as far as it is measured and paid."""
        return Came(self.text, self.reasoning, self.usage, bool(self.endpoint) and not self.refused, bool(self.begun))

    def end(self, status: Status, trouble: str) -> None:
        self.status = status
        self.trouble = trouble

    def turn(self, prompt: str, **belongs: Any) -> Turn:
        """Return the turn that this reply makes with its prompt and what *belongs* to it."""
        return Turn(
            prompt=prompt,
            reply=self.begun + self.text,
            reasoning=self.reasoning,
            endpoint=self.endpoint,
            usage=self.usage,
            status=self.status,
            finish=self.finish,
            started=self._started,
            seconds=time.perf_counter() - self._clock,
            **belongs,
        )

    def nothing(self) -> RequestError:
        """Return the error for a reply that has no text."""
        thought = f" after {len(self.reasoning):,} characters of reasoning" if self.reasoning else ""
        if self.finish is None:
            return RequestError(f"the stream of {self.endpoint} ended{thought} without any text; nothing was stored")
        advice = _ENDINGS.get(self.finish, f"it ended with {self.finish!r}")
        return RequestError(f"the model gave no text{thought}: {advice}; nothing was stored")


_ENDINGS = {
    "stop": "it just stopped",
    "length": "the reply reached the limit of its length (max_completion_tokens, or the model's context window)",
    "content_filter": "the provider's content filter stopped the reply",
    "refusal": "the model refused to answer",
    "tool_calls": "it asked for tools, and none were offered",
}


def _listen(
    request: Request,
    ask: Ask,
    reply: _Reply,
    client: Client,
    renderer: Renderer,
    retry: Retry,
    name: str,
) -> None:
    """Gather the reply until it ends, however it ends; raise if there is no text to keep."""
    try:
        renderer.start(name, request.model)
        before = [reply.begun] * bool(reply.begun)
        for event in _told_of_moves(name, ask, _fitted(request, ask, reply, client, retry)):
            if isinstance(event, Delta) and before:
                renderer.show(Delta(before.pop()))
            reply.take(event)
            renderer.show(event)
    except KeyboardInterrupt:
        if not reply.text.strip():
            raise InterruptedTurnError("stopped before the first word; nothing was stored") from None
        reply.end("interrupted", "stopped")
    except Exception as exc:
        if not reply.text.strip():
            reply.refused = True
            raise
        if not isinstance(exc, ChatMagicError):
            reply.bug = exc  # it comes through, but not at the price of what was said
        if reply.finish is None:
            reply.end("cut", str(exc))
    if not reply.text.strip():
        raise reply.nothing()
    if reply.status == "complete" and reply.finish is None:
        reply.end("cut", "the stream ended without a finish reason")
    elif reply.finish not in (None, "stop"):
        ending = _ENDINGS.get(str(reply.finish), f"the reply ended with {reply.finish!r}")
        reply.notices.append(ending)


def _fitted(request: Request, ask: Ask, reply: _Reply, client: Client, retry: Retry) -> Iterator[Event]:
    """Yield what answers *request* or, if the server finds it too long, a shorter one that is sent once."""
    yield from map(Remark, ask.remarks())
    try:
        yield from _persistently(request, reply, client, retry)
    except ContextOverflowError as exc:
        said = "" if reply.text.strip() else ask.shorter(exc)
        if not said:
            raise
    else:
        return
    yield Remark(said)
    yield from _persistently(replace(request, messages=ask.context.messages), reply, client, retry)


def _told_of_moves(name: str, ask: Ask, events: Iterator[Event]) -> Iterator[Event]:
    """Say it, before anything is sent, when the history goes to another endpoint than so far."""
    before = ask.history.turns[-1].endpoint if ask.history.turns else None
    for event in events:
        yield event
        if isinstance(event, Sending) and before not in (None, event.endpoint):
            count, what = len(ask.context.turns), "turn"
            if ask.context.sent is None:  # somebody's function has made its own messages
                count, what = len(ask.context.messages) - 1, "message"
            along = f"{count} {what}{'' if count == 1 else 's'} of history"
            yield Remark(f"{name!r} moves from {before} to {event.endpoint}, with {along}")
            before = None


def _persistently(request: Request, reply: _Reply, client: Client, retry: Retry) -> Iterator[Event]:
    """Yield the events of the first try that works; a try that has brought text is the last one."""
    attempt = 1
    while True:
        try:
            yield from client.stream(request)
        except RequestError as exc:
            reply.refused = not reply.text.strip()
            wait = 2.0 ** (attempt - 1) * random.uniform(0.75, 1.25) if exc.retry_after is None else exc.retry_after  # noqa: S311 - no secret
            if reply.text.strip() or not exc.retryable or attempt >= retry.tries or wait > retry.longest:
                if attempt > 1:
                    reply.notices.append(f"gave up after {attempt} tries")
                raise
            attempt += 1
            yield from _countdown(f"{exc} (try {attempt} of {retry.tries})", wait, retry.sleep)
            yield Remark(f"sent again (try {attempt} of {retry.tries}) because: {exc}")
        else:
            return


def _countdown(reason: str, seconds: float, sleep: Callable[[float], None]) -> Iterator[Waiting]:
    while seconds > 0:
        yield Waiting(reason, math.ceil(seconds))
        sleep(min(seconds, 1.0))
        seconds -= 1.0


def _tell(hooks: Sequence[TurnHook], session: Session, turn: Turn) -> None:
    for hook in hooks:
        try:
            hook(session, turn)
        except Exception as exc:
            warnings.warn(f"a hook failed with {type(exc).__name__}: {exc}; the turn is kept", ChatMagicWarning, 2)


def _raise_unless_complete(session: Session, turn: Turn, reply: _Reply, undo: str | None) -> None:
    if turn.status == "complete":
        return
    drop = f" ({undo} drops it)" if undo else ""
    kept = f"is kept as turn #{turn.number} of {session.name!r}{drop}" if turn.number else "is not stored"
    message = f"{reply.trouble}; what had come ({len(reply.text):,} characters) {kept}"
    raise (InterruptedTurnError if turn.status == "interrupted" else CutReplyError)(message)
