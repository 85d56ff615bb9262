"""A job of summarizing: asked about its pieces, several at once, and merged until one answer is left."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

from chatmagic.asking import paid
from chatmagic.conversation.context import Context, Limits
from chatmagic.conversation.learning import learn, overflowed
from chatmagic.conversation.material import Part, Step, groups
from chatmagic.conversation.memory import without_thoughts
from chatmagic.conversation.messages import NOTHING_USED, Usage
from chatmagic.conversation.spending import dollars, hold
from chatmagic.digest import LEAST, Answer, Job, Progress, Result, count_of
from chatmagic.errors import ChatMagicError, ContextOverflowError, InterruptedTurnError, RequestError, SpendingError
from chatmagic.events import Event, Request, Sending, Waiting
from chatmagic.listening import ENDINGS, Reply, persistently

__all__ = ["run"]

_HALVINGS = 5  # of a piece, for a server that finds it too long
_ROUNDS = 20
_SHRUNK = 0.9  # of the answers before a round of merging, if it gets anywhere
_TICK = 1.0  # seconds between two looks at the clock


def run(job: Job, show: Callable[[Progress], None] = lambda _: None) -> Result:
    """Ask, and return the answer; *show* is told how far it is.

    Raises:
        SpendingError: it could cost more than is allowed.
        InterruptedTurnError: the user stopped it. What is done is kept.
        ChatMagicError: a piece has no answer. What is done is kept.
    """
    return _Run(job, show).result()


@dataclass(slots=True, eq=False)
class _Place:
    """Where the answer to *step* goes, which is a half of a half … of what a server found too long, *halved* times."""

    step: Step
    halved: int = 0
    answer: str = ""


@dataclass(slots=True, eq=False)
class _Call:
    """A request that is under way, with about so many *tokens*; *held* is what it may cost (USD)."""

    place: _Place
    request: Request
    tokens: int
    held: float
    reply: Reply = field(default_factory=Reply)
    waits: str = ""
    error: Exception | None = None


class _TooLongError(Exception):
    """A request has to be halved by whoever asked for it."""


class _Run:
    """One run of a job. Everything but listening is done by the thread that asked."""

    def __init__(self, job: Job, show: Callable[[Progress], None]) -> None:
        self.job, self.draft = job, job.draft
        self._show = show
        self._before = {key: [*answers] for key, answers in self.draft.answers.items()}  # that nobody has asked for yet
        self._line: list[_Place] = []  # the pieces
        self._calls: list[_Call] = []
        self._came: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._over = threading.Event()  # nobody wants anything any more
        self._failed = threading.Event()  # nobody waits for another try
        self._held = 0.0
        self._narrow: Limits | None = None  # what a server has said, until an answer shows that it is true
        self._notices: list[str] = []
        self._answered = self._planned = 0
        self._merging = ""
        self._clock = time.monotonic()

    def result(self) -> Result:
        """Return the answer."""
        plan = self.job.plan
        self._planned = plan.requests
        self._held = hold(self.job.purses, plan.cost, sure=False)
        self._line = [_Place(step) for step in self.draft.steps]
        text = ""
        try:
            text = self._refined() if self.job.refine else self._merged(self._answers(self._line))
        except KeyboardInterrupt:
            raise InterruptedTurnError(f"stopped; {self._kept('go on') or 'nothing was done yet'}") from None
        finally:
            self._end(done=bool(text))
        answers = self.draft.all_answers
        usage = sum((answer.usage for answer in answers), NOTHING_USED)
        return Result(text, self.job.model, usage, len(self._line), len(answers), tuple(dict.fromkeys(self._notices)))

    def _end(self, *, done: bool) -> None:
        """Wait for nothing, pay for what is under way, and keep what came if it was not all."""
        self._over.set()
        for call in self._calls:
            self._pay(call)
        for purse in self.job.purses:
            purse.spent.release(self._held)
        if done or not self.draft.answers:
            self.job.forget()
        else:
            self.job.keep()

    def _refined(self) -> str:
        """Let piece after piece improve the answer."""
        text, number = "", 0
        while number < len(self._line):
            place = self._line[number]
            place.step = replace(place.step, so_far=text)
            try:
                [text] = self._answers([place], whole=True)
            except _TooLongError:
                self._halve(self._line, place)
            else:
                number += 1
        return text

    def _merged(self, texts: list[str]) -> str:
        """Merge answers in as many rounds as it takes."""
        for _ in range(_ROUNDS):
            if len(texts) == 1:
                return texts[0]
            count, size = len(texts), sum(map(self.job.text_size, texts))
            texts = self._round(texts)
            if len(texts) >= count and sum(map(self.job.text_size, texts)) > _SHRUNK * size:
                break
        self._merging = ""
        raise self._failure(
            RequestError,
            f"the answers to the pieces are too long to be merged in what {self.job.model!r} takes "
            f"({self.job.limits.most:,} tokens), and do not get shorter: ask a model with a larger window (-m)",
        )

    def _round(self, texts: list[str]) -> list[str]:
        room = self.job.merge_room()
        line = []
        for group in groups(texts, max(room, LEAST), self.job.text_size):
            # A short answer that is alone waits for the next round.
            alone = len(group) == 1 and self.job.text_size(group[0]) <= room / 2
            line.append(_Place(self.job.step("answers", map(Part, group)), answer=group[0] if alone else ""))
        self._merging = f"merging {count_of(len(texts), 'answer')}"
        return self._answers(line)

    def _answers(self, line: list[_Place], *, whole: bool = False) -> list[str]:
        """Ask for the answers that *line* lacks, several at once, and return all; *whole* steps are not halved here.

        When one fails no more are asked for, but those that are under way may end: they are paid for.
        """
        waiting = deque(place for place in line if not place.answer)
        failure: Exception | None = None
        while (waiting and failure is None) or self._calls:
            try:
                while waiting and failure is None and len(self._calls) < self.job.at_once:
                    place = waiting.popleft()
                    if not self._begun(place):
                        waiting.extendleft(reversed(self._halve([] if whole else line, place)))
                self._tell()
                if self._calls and not self._finished(call := self._next()):
                    waiting.extendleft(reversed(self._halve([] if whole else line, call.place)))
            except (ChatMagicError, _TooLongError) as exc:
                failure = failure or exc
                self._failed.set()
        if failure is not None:
            raise failure
        self._tell()
        return [place.answer for place in line]

    def _begun(self, place: _Place) -> bool:
        """Ask what *place* wants to know, if that is not known; False: it is too long."""
        job, step = self.job, place.step
        key = job.key(step)
        if known := self._before.get(key):
            place.answer = known.pop().text
            return True
        tokens = round(job.size(step.messages))
        if key in self.draft.too_long or tokens > self._most:
            return False
        cost = job.cost(tokens, min(job.answer, tokens)) or 0.0
        if cost > self._held:
            try:
                self._held += hold(job.purses, cost - self._held, sure=False)
            except SpendingError:
                raised = " or ".join(purse.raised_by for purse in job.purses)
                why = f"it may cost ~{dollars(cost)}, more than is left; {raised} raises the limit"
                raise self._failure(SpendingError, why, place) from None
        self._held -= cost
        call = _Call(place, Request(job.model, step.messages), tokens, cost)
        self._calls.append(call)
        # Not of a pool: the end of the process would wait for its threads.
        threading.Thread(target=self._listen, args=(call,), daemon=True).start()
        return True

    @property
    def _most(self) -> int:
        """How many tokens a request may have."""
        limits = self.job.limits
        # What is thought of the pieces changes while they are read; their answers need less than a turn may.
        most = limits.budget if limits.window is None else min(limits.budget, limits.window - self.job.answer)
        return min(most, self._narrow.most) if self._narrow else most

    def _listen(self, call: _Call) -> None:
        try:
            with closing(_generator(persistently(call.request, call.reply, self.job.client, self.job.retry))) as events:
                for event in events:
                    if self._over.is_set() or (self._failed.is_set() and isinstance(event, Waiting)):
                        break
                    call.reply.take(event)
                    if isinstance(event, (Sending, Waiting)):
                        call.waits = f"{event.reason}; again in {event.seconds} s" if isinstance(event, Waiting) else ""
        except Exception as exc:
            call.reply.refused = not call.reply.text.strip()
            call.error = exc
        finally:
            self._came.put(call)

    def _next(self) -> _Call:
        """Return the next request that is over."""
        while True:
            try:
                call = self._came.get(timeout=_TICK)
            except queue.Empty:
                self._tell()
            else:
                self._calls.remove(call)
                return call

    def _finished(self, call: _Call) -> bool:
        """Take in what came; False: the request was too long."""
        used, reply, place = self._pay(call), call.reply, call.place
        self._answered += 1
        self._notices += reply.notices
        if isinstance(call.error, ContextOverflowError) and not reply.text.strip():
            context = Context(call.request.messages, call.tokens)
            self._narrow = overflowed(self.job.gauge, context, self.job.limits, call.error) or self._narrow
            return self._refused(call)
        if isinstance(call.error, ChatMagicError):
            raise self._failure(type(call.error), str(call.error), place)
        if call.error is not None:
            raise call.error
        text = without_thoughts(reply.text)
        if reply.finish != "stop":
            ended = "the stream ended early" if reply.finish is None else f"the reply ended with {reply.finish!r}"
            raise self._failure(RequestError, ENDINGS.get(str(reply.finish), ended), place)
        if not text:
            raise self._failure(RequestError, "the model gave no text", place)
        if (read := self._learn(call)) is not None:
            self._notices.append(
                f"{reply.endpoint} has read {read:,} tokens where ~{call.tokens:,} were sent: it seems to drop the "
                "beginning, so it is asked again about shorter pieces; ChatMagic.models tells its window"
            )
            return self._refused(call)
        place.answer = text
        self.draft.answers.setdefault(self.job.key(place.step), []).append(Answer(text, used))
        return True

    def _refused(self, call: _Call) -> bool:
        self.draft.too_long.add(self.job.key(call.place.step))
        call.place.halved += 1
        return False

    def _learn(self, call: _Call) -> int | None:
        """Learn how the server counts; return how much it has read if that is not all."""
        job, reply = self.job, call.reply
        if self._narrow is not None and self._narrow.window is not None:
            job.gauge.windows[job.facts.reader] = self._narrow.window
        return learn(
            job.gauge,
            Context(call.request.messages, call.tokens),
            job.limits,
            reply.text,
            reply.usage,
            thought=bool(reply.reasoning),
            reads_all=job.facts.where == "within",
        ).read

    def _halve(self, line: list[_Place], place: _Place) -> list[_Place]:
        """Put two places for the halves of *place* into *line*, and return them."""
        if place not in line:
            raise _TooLongError
        halves = place.step.halved()
        if halves is None or place.halved > _HALVINGS:
            takes = f"in what {self.job.model!r} takes ({self._most:,} tokens)"
            raise self._failure(ContextOverflowError, f"not even a small part of it has room {takes}", place)
        number = line.index(place)
        line[number : number + 1] = found = [_Place(half, place.halved) for half in halves]
        self._planned += 1
        return found

    def _pay(self, call: _Call) -> Usage:
        job = self.job
        return paid(call.reply.came, call.tokens, job.facts, job.gauge, job.purses, call.held)

    @property
    def _done(self) -> int:
        return sum(bool(place.answer) for place in self._line)

    def _failure(self, kind: type[ChatMagicError], why: str, place: _Place | None = None) -> ChatMagicError:
        """Return the error that names the piece, and says what is kept."""
        where = f"{self._merging}: " * bool(self._merging)
        if place in self._line and len(self._line) > 1:
            where = f"piece {self._line.index(place) + 1:,} of {len(self._line):,}: "
        return kind("; ".join(filter(None, [f"{where}{why}", self._kept("ask for the rest")])))

    def _kept(self, to: str) -> str:
        if not self._done:
            return ""
        return f"{self._done:,} of {count_of(len(self._line), 'piece')} are done and kept; run it again to {to}"

    def _tell(self) -> None:
        waits = next((call.waits for call in self._calls if call.waits), "")
        all_of_it = max(self._planned, self._answered + len(self._calls), 1)
        seconds = time.monotonic() - self._clock
        what = waits or self._merging
        self._show(Progress(self._done, len(self._line), self._answered / all_of_it, seconds, what))


def _generator(events: Iterator[Event]) -> Generator[Event, None, None]:
    # A generator can be closed, which ends the request.
    yield from events
