"""What is left out -> a summary: asked of a model, in pieces where it does not fit, merged with the last one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from chatmagic.asking import Ask, limits_of, paid
from chatmagic.conversation.context import Limits, room_for_summary, spans
from chatmagic.conversation.memory import instruction, pieces, split_proposals, system_message
from chatmagic.conversation.messages import NOTHING_USED, Message, Summary, Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.spending import Purse, dollars, hold
from chatmagic.conversation.tokens import Gauge, Reader
from chatmagic.errors import (
    ChatMagicError,
    ContextOverflowError,
    InterruptedTurnError,
    RequestError,
    SessionError,
    SpendingError,
    TapeError,
)
from chatmagic.events import Busy, Client, Event, Facts, Remark, Renderer, Request, Sending, Waiting
from chatmagic.listening import ENDINGS, Reply, Retry, persistently

__all__ = ["Compactor", "compact"]

_HALVINGS = 5  # of the pieces, for a server that finds them too long
_OF_A_REPLY = (
    "max_completion_tokens",
    "max_tokens",
    "response_format",
    "stop",
    "logprobs",
    "top_logprobs",
    "tool_choice",
)
_WORDS = 0.6  # for a token
_PROPOSED = 10  # facts that wait for an answer

_Writing = Generator[Event, None, Summary]
"""What is shown while a summary is written, and the summary."""


@dataclass(frozen=True, slots=True)
class Compactor:
    """Has summaries written, and pays for them. *known* holds those that were written already."""

    client: Client
    gauge: Gauge
    budget: int
    retry: Retry
    purses: Sequence[Purse]
    known: dict[tuple[object, ...], Summary]
    key: str = ""

    def fit(self, ask: Ask) -> Iterator[Event]:
        """Send a summary in place of what *ask* has cut, if it wants one; where there can be none, that is said.

        Raises:
            InterruptedTurnError: the user stopped it.
            SpendingError: it could cost more than is allowed.
            TapeError: a tape should have answered, and cannot.
        """
        turns = ask.to_summarize
        if not turns:
            yield from self._late(ask)
            return
        summary = self.known.get(_key(ask, turns))
        sent = summary is not None and ask.summarized(summary)
        try:
            if summary is None or (not sent and self._is_too_long(summary, ask)):
                summary = yield from self.summarize(ask, turns)
                sent = ask.summarized(summary)
            if not sent:
                if self._is_too_long(summary, ask):
                    raise RequestError("it was longer than it may be")
                raise RequestError("there is no room for it beside the prompt; it is sent as soon as there is")
        except (SpendingError, InterruptedTurnError, TapeError):
            raise
        except ChatMagicError as exc:
            ask.not_summarized(str(exc))
            return
        if ask.asked.learn and summary.facts:
            proposed = "1 fact is" if len(summary.facts) == 1 else f"{len(summary.facts)} facts are"
            yield Remark(
                f"{proposed} proposed, and not kept: %chat facts lists them, %chat remember --proposed keeps them"
            )

    def _is_too_long(self, summary: Summary, ask: Ask) -> bool:
        return self.gauge.text(ask.limits.reader, summary.text) > room_for_summary(ask.limits)

    def _late(self, ask: Ask) -> Iterator[Event]:
        """Send a summary for which there was no room when it was written."""
        unread = ask.unsummarized
        if unread and (summary := self.known.get(_key(ask, unread))) and ask.summarized(summary):
            yield Remark(f"the summary of {_which(unread)} is sent from here on")

    def summarize(self, ask: Ask, turns: Sequence[Turn]) -> _Writing:
        """Return a summary of *turns*, which are not sent any more, and of what was summarized before."""
        summary = yield from self._written(ask, turns, turns[-1].number or 0)
        self.known[_key(ask, turns)] = summary
        yield Remark(_account(summary))
        return summary

    def _written(self, ask: Ask, turns: Sequence[Turn], through: int) -> _Writing:
        """Return a summary that a model writes now: in one request like the last one if it fits, else in pieces."""
        other = ask.asked.summary_model
        model = other or ask.asked.model or ""
        parameters = {key: value for key, value in ask.asked.parameters.items() if key not in _OF_A_REPLY}
        facts = self.client.facts(model, {} if other else parameters)
        writer = _Writer(
            self, model, {} if other else parameters, facts, limits_of(facts, Settings(), self.budget, self.gauge)
        )
        if not other:
            writer.limits = ask.limits
        writer.learn = ask.asked.learn
        writer.proposed = ask.summary.facts if ask.summary else ()
        order = instruction(_words(min(writer.room, room_for_summary(ask.limits))), learn=ask.asked.learn)
        # Everything before the order is as it was sent last time, so that the provider has it in its cache.
        whole = [*ask.before(turns), Message("user", order)]
        if len(whole) > 1 and self.gauge.request(facts.reader, whole) <= writer.limits.most:
            try:
                return (yield from writer.write(whole, through, _which(turns)))
            except ContextOverflowError:
                pass  # it is longer than everybody thought
        return (yield from self._in_pieces(writer, ask, turns, through, order))

    def _in_pieces(self, writer: _Writer, ask: Ask, turns: Sequence[Turn], through: int, order: str) -> _Writing:
        most = float(writer.limits.most)
        summary: Summary | None

        def always() -> list[Message]:
            system = system_message(ask.history.system, ask.history.facts, summary)
            return [Message("system", system)] if system else []

        def room() -> float:
            return most - self.gauge.request(writer.reader, [*always(), Message("user", order)])

        for _ in range(_HALVINGS):
            summary = ask.summary
            try:
                for piece in pieces(turns, room, lambda message: self.gauge.message(writer.reader, message)):
                    summary = yield from writer.write([*always(), *_with(order, piece)], through, _which(turns))
            except ContextOverflowError as exc:
                overflow = exc
                most /= 2
            else:
                assert summary is not None  # noqa: S101 - there are turns, so there are pieces
                return summary
        raise overflow


def compact(session: Session, ask: Ask, compactor: Compactor, renderer: Renderer) -> Sequence[Turn]:
    """Send from here on a summary in place of all turns but the newest one; return the turns that it is new for.

    Raises:
        SessionError: there is nothing that it could be written of.
        ChatMagicError: it could not be written; nothing has changed.
    """
    newest = session.last
    turns = ask.unread((newest.number or 0) - 1) if newest else []
    if newest is None or not turns:
        why = "all but its newest turn is summarized" if session.summary else "it needs two turns, and has fewer"
        raise SessionError(f"there is nothing to summarize in {session.name!r}: {why}")
    renderer.start(session.name, ask.asked.model or "")
    try:
        # Closed, so that it pays even if it is stopped between two events.
        with closing(compactor.summarize(ask, turns)) as writing:
            while True:
                renderer.show(next(writing))
    except StopIteration as end:
        session.compact(end.value)
    except KeyboardInterrupt:
        raise InterruptedTurnError("stopped while the history was summarized; nothing has changed") from None
    finally:
        renderer.fail([])
    return turns


@dataclass(slots=True)
class _Writer:
    """Who writes a summary: *model*, of which *facts* are known, asked with *parameters* for no more than *limits*."""

    compactor: Compactor
    model: str
    parameters: dict[str, object]
    facts: Facts
    limits: Limits
    usage: Usage = NOTHING_USED
    requests: int = 0
    learn: bool = False
    proposed: tuple[str, ...] = ()

    @property
    def reader(self) -> Reader:
        return self.facts.reader

    @property
    def room(self) -> int:
        """How many tokens of a summary it can write and read again."""
        return room_for_summary(self.limits)

    def write(self, messages: list[Message], through: int, which: str) -> _Writing:
        """Ask for one summary and return it."""
        tokens = round(self.compactor.gauge.request(self.reader, messages))
        cost = self.facts.cost(Usage(tokens, self.room, 0))
        held = hold(self.compactor.purses, cost, sure=False)
        reply = Reply()
        request = Request(self.model, messages, self.parameters, cache_key=self.compactor.key)
        try:
            for event in persistently(request, reply, self.compactor.client, self.compactor.retry):
                reply.take(event)
                if isinstance(event, Sending):
                    yield Busy(f"summarizing {which} with {self.model}", event.instant)
                elif isinstance(event, (Waiting, Remark)):
                    yield event
        except KeyboardInterrupt:
            raise InterruptedTurnError("stopped while the history was summarized; nothing else was sent") from None
        except Exception:
            reply.refused = not reply.text.strip()
            raise
        finally:
            used = paid(reply.came, tokens, self.facts, self.compactor.gauge, self.compactor.purses, held)
            self.usage, self.requests = self.usage + used, self.requests + 1
        if reply.finish is None:
            raise RequestError("the stream ended early")
        if reply.finish != "stop":
            raise RequestError(ENDINGS.get(str(reply.finish), f"it ended with {reply.finish!r}"))
        text, facts = split_proposals(reply.text, learn=self.learn)
        if not text:
            raise RequestError("it was empty")
        self.proposed = tuple(dict.fromkeys([*self.proposed, *facts]))[-_PROPOSED:]
        return Summary(text, through, self.proposed, self.model, self.usage, self.requests)


def _key(ask: Ask, turns: Sequence[Turn]) -> tuple[object, ...]:
    """Return what names the summary that *ask* wants of *turns*."""
    before, asked = ask.summary, ask.asked
    return turns[-1].number, before and before.text, asked.summary_model or asked.model, asked.learn


def _with(order: str, piece: Sequence[Message]) -> list[Message]:
    """Return *piece* with the *order* behind it: roles take turns."""
    *before, last = piece
    if last.role == "user":
        return [*before, replace(last, content=f"{last.content}\n\n---\n\n{order}")]
    return [*piece, Message("user", order)]


def _words(tokens: int) -> int:
    return max(int(tokens * _WORDS / 50) * 50, 50)


def _which(turns: Sequence[Turn]) -> str:
    noun = "turn" if len(turns) == 1 else f"{len(turns)} turns:"
    return f"{noun} {spans(turns, ())}"


def _account(summary: Summary) -> str:
    """Say what a summary has cost."""
    used = summary.usage
    requests = f" in {summary.requests} requests" if summary.requests > 1 else ""
    went = "unknown" if used.input_tokens is None else f"{used.input_tokens:,}"
    cached = (
        f" ({used.cached_tokens / used.input_tokens:.0%} cached)" if used.cached_tokens and used.input_tokens else ""
    )
    out = "unknown" if used.output_tokens is None else f"{used.output_tokens:,}"
    cost = f", {dollars(used.cost)}" if used.cost else ""
    return f"summary by {summary.model}{requests}: {went} tokens in{cached}, {out} out{cost}"
