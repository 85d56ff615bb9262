"""Texts of any length -> the requests that sum them up: split, measured, and kept until there is one answer."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chatmagic.asking import limits_of
from chatmagic.conversation.context import Limits
from chatmagic.conversation.material import Part, Step, parts
from chatmagic.conversation.messages import Message, Usage
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.spending import Purse, dollars
from chatmagic.conversation.tokens import Gauge
from chatmagic.errors import (
    ContextOverflowError,
    LineError,
    SettingError,
)
from chatmagic.events import Client, Facts
from chatmagic.listening import PATIENT, Retry
from chatmagic.plain import one_line

__all__ = ["LEAST", "Answer", "Draft", "Job", "Plan", "Progress", "Result", "count_of", "texts_of"]

_PIECE = 12_000  # tokens that are read at once, so that several requests go out side by side
_MERGED = 32_000  # tokens of answers that are merged at once
_ANSWER = 1_000  # tokens that an answer may have, and at most a quarter of what is sent
_WORDS = 0.6  # for a token
LEAST = 40  # tokens of a text beside what is asked about it
_AT_ONCE = 32
_NAME = 255  # characters of the longest text that may have been meant as the name of a file
_DRAFTS = 8


def texts_of(value: object) -> tuple[str, ...]:
    """Return the texts that *value* is: a text, the file of a path, or an iterable of these.

    Raises:
        LineError: it is something else, there is nothing in it, or a file cannot be read.
    """
    if isinstance(value, str) and _names_a_file(value):
        raise LineError(f"{value!r} is a text of {len(value)} characters, and also a file: Path({value!r}) reads it")
    if isinstance(value, (str, Path)):
        texts: tuple[str, ...] = (_text_of(value),)
    elif isinstance(value, (Mapping, bytes, bytearray)) or hasattr(value, "columns") or not isinstance(value, Iterable):
        raise LineError(
            f"{one_line(repr(value), 60)} ({type(value).__name__}) cannot be summarized: give a text, several of them "
            "in a list, or pathlib.Path('FILE')"
        )
    else:
        texts = tuple(map(_text_of, value))
    if not any(text.strip() for text in texts):
        raise LineError(f"there is nothing to summarize: {one_line(repr(value), 60)} holds no text")
    return texts


def _text_of(value: object) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, Path):
        raise LineError(
            f"{one_line(repr(value), 60)} ({type(value).__name__}) among the texts is none: str(…) makes one of it"
        )
    try:
        text = value.read_text(encoding="utf-8-sig", errors="replace")
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise LineError(f"the file {str(value)!r} cannot be read: {why}") from None
    if "\0" in text:
        raise LineError(f"the file {str(value)!r} holds no text: convert it to one first")
    return text


def _names_a_file(text: str) -> bool:
    try:
        return len(text) < _NAME and "." in text and Path(text).is_file()
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class Result:
    """The answer: its *text*, the *model*, and in how many *pieces* the texts were read.

    *usage* is what the *requests* used together whose answers it is made of. *notices* say what was decided on the way.
    """

    text: str
    model: str
    usage: Usage
    pieces: int
    requests: int
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be asked: how many *pieces* there are, and, of what is not *done* yet, about how much it takes.

    *cost* is in USD; None is unknown. It is *unlimited* if a limit of cost cannot hold because of that. *instant*
    answers are there at once.
    """

    model: str
    pieces: int
    done: int
    requests: int
    tokens: int
    output: int
    cost: float | None
    unlimited: bool = False
    instant: bool = False

    def __str__(self) -> str:
        about = "~" * (self.pieces > 1)
        cost = "price unknown" if self.cost is None else f"~{dollars(self.cost)}" if self.cost else "free"
        kept = f" ({self.done:,} of them done before)" if self.done else ""
        said = (
            f"{self.model} · {count_of(self.pieces, 'piece')}{kept}, {about}{count_of(self.requests, 'request')}"
            f" · ~{self.tokens:,} tokens in, ~{self.output:,} out · {cost}"
        )
        return said + "; max_cost cannot hold without a price: give it in ChatMagic.models" * self.unlimited


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: *done* of all *pieces*, *share* of all work, *what* is done beside reading, and for how long."""

    done: int
    pieces: int
    share: float
    seconds: float
    what: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, and what it used."""

    text: str
    usage: Usage


@dataclass(slots=True)
class Draft:
    """What is kept of a job that did not come to its end: *steps* that read the texts, and *answers* by request.

    The requests *too_long* are not sent again, but in halves.
    """

    steps: tuple[Step, ...]
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    too_long: set[str] = field(default_factory=set)

    @property
    def all_answers(self) -> list[Answer]:
        """The answers; pieces that are alike have one each."""
        return [answer for answers in self.answers.values() for answer in answers]


class Job:
    """Texts that are to be summarized by *model*: split and measured; `digesting.run` asks.

    *prompt* says what the answer is for. With *refine* every piece improves the answer so far; otherwise *at_once*
    requests go out side by side, and their answers are merged. *drafts* keep what is done until the whole is.

    Raises:
        LineError: *at_once* is no number from 1 to 32.
        EndpointError: the model names no endpoint.
        ContextOverflowError: the model takes too little.
    """

    def __init__(
        self,
        texts: Sequence[str],
        model: str,
        *,
        client: Client,
        gauge: Gauge,
        budget: int,
        prompt: str = "",
        refine: bool = False,
        at_once: int = 4,
        purses: Sequence[Purse] = (),
        retry: Retry = PATIENT,
        drafts: MutableMapping[str, Draft] | None = None,
    ) -> None:
        if not (isinstance(model, str) and model.strip()):
            raise SettingError(f"no model: name one with -m MODEL, not {model!r}")
        if type(at_once) is not int or not 1 <= at_once <= _AT_ONCE:
            raise LineError(f"at_once (--at-once) is a number from 1 to {_AT_ONCE}, not {at_once!r}")
        if not isinstance(prompt, str):
            raise LineError(f"prompt (--for) is a text, not {one_line(repr(prompt), 60)}")
        self.model, self.prompt, self.refine, self.at_once = model, prompt, refine, at_once
        self.client, self.gauge, self.budget, self.purses = client, gauge, budget, purses
        self.retry = retry
        self.facts: Facts = client.facts(model, {})
        self._drafts = {} if drafts is None else drafts
        self.answer = min(_ANSWER, self.limits.most // 4)
        """Tokens that an answer may have."""
        self._name = _hash([model, prompt, refine, list(texts)])
        self.draft = self._drafts.get(self._name) or Draft(tuple(self._steps(texts)))

    @property
    def limits(self) -> Limits:
        """How long a request may be, as far as it is known by now."""
        return limits_of(self.facts, Settings(), self.budget, self.gauge)

    def step(self, what: str, read: Iterable[Part] = (), so_far: str = "") -> Step:
        """Return the request that asks about what is *read*."""
        words = max(int(self.answer * _WORDS / 50) * 50, 30)
        return Step(tuple(read), what, words, self.prompt, so_far)

    def _steps(self, texts: Sequence[str]) -> Iterable[Step]:
        around = self.size(self.step("piece", so_far="…" * self.refine).messages)
        room = min(_PIECE, self.limits.most - around - (1.5 * self.answer if self.refine else 0))
        if room < LEAST:
            raise ContextOverflowError(
                f"{self.model!r} takes {self.limits.most:,} tokens, and ~{round(around):,} are needed to ask about a "
                "text at all: ask a model with a larger window (-m); nothing was sent",
                window=self.limits.window,
            )
        found = list(parts(texts, room, self.text_size))
        what = "texts" if len(found) == 1 else "piece"
        return (self.step(what, each) for each in found)

    def size(self, messages: Sequence[Message]) -> float:
        """Return about how many tokens a request has."""
        return self.gauge.request(self.facts.reader, messages)

    def text_size(self, text: str) -> float:
        """Return about how many tokens *text* has."""
        return self.gauge.text(self.facts.reader, text)

    def merge_room(self) -> float:
        """Return how many tokens of answers can be merged at once."""
        return min(_MERGED, self.limits.most - self.size(self.step("answers").messages))

    @property
    def plan(self) -> Plan:
        """What it takes, about: what is done already does not count."""
        steps = self.draft.steps
        if self.refine:
            # What improves an answer is known when that answer is.
            done = min(len(self.draft.all_answers), len(steps))
            sizes = [self.size(step.messages) + self.answer * (step is not steps[0]) for step in steps[done:]]
        else:
            known = Counter({key: len(answers) for key, answers in self.draft.answers.items()})
            missing = Counter(map(self.key, steps)) - known
            done = len(steps) - missing.total()
            size_of = {self.key(step): self.size(step.messages) for step in steps}
            sizes = [size_of[key] for key in missing.elements()] + self._sizes_of_merging()
        outputs = [min(self.answer, size) for size in sizes]
        costs = [self.cost(size, output) for size, output in zip(sizes, outputs, strict=True)]
        priced = [cost for cost in costs if cost is not None]
        cost = sum(priced) if len(priced) == len(costs) else None
        return Plan(
            self.model,
            len(steps),
            done,
            len(sizes),
            round(sum(sizes)),
            round(sum(outputs)),
            cost,
            cost is None and any(purse.most is not None for purse in self.purses),
            self.facts.where == "within" or self.facts.instant,
        )

    def _sizes_of_merging(self) -> list[float]:
        count, sizes = len(self.draft.steps), []
        around = self.size(self.step("answers").messages)
        most = max(int(self.merge_room() // max(self.answer, 1)), 2)
        while count > 1:
            requests = -(-count // most)
            sizes += [around + self.answer * count / requests] * requests
            count = requests
        return sizes

    def cost(self, tokens: float, output: float) -> float | None:
        """Return what a request costs (USD) with so many *tokens*, of which nothing is in a cache."""
        return self.facts.cost(Usage(round(tokens), round(output), 0))

    def key(self, step: Step) -> str:
        """Return what names the request of *step*: a hash of the model and the messages."""
        return _hash([self.model, [[each.role, each.content] for each in step.messages]])

    def keep(self) -> None:
        """Keep what is done until the next time."""
        self.forget()
        while len(self._drafts) >= _DRAFTS:
            del self._drafts[next(iter(self._drafts))]
        self._drafts[self._name] = self.draft

    def forget(self) -> None:
        """All is done."""
        self._drafts.pop(self._name, None)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def count_of(number: int, thing: str) -> str:
    """Return ``1 piece``, ``2 pieces``."""
    return f"{number:,} {thing}" + "s" * (number != 1)
