"""One turn, start to finish: what is asked of whom, what comes back, what is stored."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from chatmagic.asking import Ask, prepared
from chatmagic.compacting import Compactor
from chatmagic.conversation.context import BUDGET, Planner
from chatmagic.conversation.estimate import estimate
from chatmagic.conversation.memory import Beside
from chatmagic.conversation.messages import Cell, Turn
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
)
from chatmagic.events import Client, Delta, Event, Remark, Renderer, Request, Sending
from chatmagic.listening import ENDINGS, PATIENT, Reply, Retry, persistently
from chatmagic.recalling import recall

__all__ = ["Retry", "TurnHook", "run_turn"]

TurnHook = Callable[[Session, Turn], None]


NOWHERE = Cell()
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
    facts: Sequence[str] = (),
    beside: Sequence[Beside] = (),
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
    *budget* (tokens), and learns from what comes back; the cost goes into *purse* and into the session's own. *facts*
    hold in every session; what stands *beside* the prompt goes with it this time.

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
    planner = planner or Planner(Gauge(estimate))
    ask = prepared(
        session,
        begin,
        GO_ON if go_on else prompt,
        client=client,
        planner=planner,
        budget=budget,
        asked=asked,
        facts=facts,
        beside=beside,
        rest_of=instead if go_on else None,
    )
    purses = [ask.purse(session), *([purse] if purse else [])]
    ask.hold(purses)
    compactor = Compactor(client, planner.gauge, budget, retry, purses, session.tree.summaries, session.tree.key)
    request = Request(asked.model or "", ask.context.messages, asked.parameters, stream, session.tree.key)
    reply = Reply(list(notices), instead.reply if instead and go_on else "")
    try:
        _listen(request, ask, reply, compactor, renderer, session)
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
            model=request.model,
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


def _listen(
    request: Request,
    ask: Ask,
    reply: Reply,
    compactor: Compactor,
    renderer: Renderer,
    session: Session,
) -> None:
    """Gather the reply until it ends, however it ends; raise if there is no text to keep."""
    try:
        renderer.start(session.name, request.model)
        before = [reply.begun] * bool(reply.begun)
        for event in _told_of_moves(session.name, ask, _fitted(request, ask, reply, compactor, session)):
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
        ending = ENDINGS.get(str(reply.finish), f"the reply ended with {reply.finish!r}")
        reply.notices.append(ending)


def _fitted(request: Request, ask: Ask, reply: Reply, compactor: Compactor, session: Session) -> Iterator[Event]:
    """Yield what answers *request* or, if the server finds it too long, a shorter one that is sent once."""
    client, tree = compactor.client, session.tree
    if reply.begun == "":
        yield from recall(ask, tree.words, client, compactor.gauge, compactor.purses, tree.vectors)
    yield from compactor.fit(ask)
    yield from map(Remark, ask.remarks())
    try:
        yield from persistently(replace(request, messages=ask.context.messages), reply, client, compactor.retry)
    except ContextOverflowError as exc:
        if reply.text.strip() or not ask.shorter(exc):
            raise
    else:
        return
    yield from compactor.fit(ask)
    yield Remark(ask.about_being_shorter())
    yield from persistently(replace(request, messages=ask.context.messages), reply, client, compactor.retry)


def _told_of_moves(name: str, ask: Ask, events: Iterator[Event]) -> Iterator[Event]:
    """Say it, before anything is sent, when the history goes to another endpoint than so far."""
    before = ask.history.turns[-1].endpoint if ask.history.turns else None
    for event in events:
        yield event
        if isinstance(event, Sending) and before not in (None, "", event.endpoint):
            count, what = len(ask.context.turns), "turn"
            if ask.context.sent is None:  # somebody's function has made its own messages
                count, what = len(ask.context.messages) - 1, "message"
            along = f"{count} {what}{'' if count == 1 else 's'} of history"
            yield Remark(f"{name!r} moves from {before} to {event.endpoint}, with {along}")
            before = None


def _tell(hooks: Sequence[TurnHook], session: Session, turn: Turn) -> None:
    for hook in hooks:
        try:
            hook(session, turn)
        except Exception as exc:
            warnings.warn(f"a hook failed with {type(exc).__name__}: {exc}; the turn is kept", ChatMagicWarning, 2)


def _raise_unless_complete(session: Session, turn: Turn, reply: Reply, undo: str | None) -> None:
    if turn.status == "complete":
        return
    drop = f" ({undo} drops it)" if undo else ""
    kept = f"is kept as turn #{turn.number} of {session.name!r}{drop}" if turn.number else "is not stored"
    message = f"{reply.trouble}; what had come ({len(reply.text):,} characters) {kept}"
    raise (InterruptedTurnError if turn.status == "interrupted" else CutReplyError)(message)
