"""What can stand at the cursor of a chat line."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chatmagic.conversation.policy import POLICIES
from chatmagic.conversation.settings import OURS
from chatmagic.conversation.template import unclosed
from chatmagic.line import HELP, Form, Option

__all__ = ["PARAMETERS", "Expression", "Known", "Offer", "at_cursor"]

PARAMETERS = (
    "temperature",
    "top_p",
    "max_completion_tokens",
    "max_tokens",
    "reasoning_effort",
    "verbosity",
    "seed",
    "stop",
    "response_format",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
    "store",
    "metadata",
)
"""Common parameters of a request; any other can be set as well."""


@dataclass(frozen=True, slots=True)
class Known:
    """What may be named on a line.

    *models* are whole (``[ENDPOINT:]MODEL``); *endpoints* has the models of each by its name, without the prefix.
    """

    cell: Form
    verbs: Mapping[str, Form]
    sessions: Sequence[str] = ()
    models: Sequence[str] = ()
    endpoints: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """Each of *texts*, all of one *kind*, may replace *fragment*, which ends at the cursor; no texts: nothing may."""

    fragment: str = ""
    texts: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Expression:
    """The Python of a ``{{ }}`` in a prompt, up to the cursor."""

    source: str


_CELL = re.compile(r"\s*%%chat(?=\s|$)")
_COMMAND = re.compile(r"\s*%chat\s+(?P<verb>\S*)(?P<rest>.*)", re.DOTALL)

# The words of `line.split`, of which the last may be unfinished: an open quote holds everything up to the cursor.
_WORD = re.compile(
    r"""(?P<head>(?:-{0,2}[^\W\d][\w.-]*=){0,2})(?P<quote>["'])(?P<text>.*?)(?:(?P=quote)(?=\s|$)|$)|\S+""",
    re.DOTALL,
)

# These take the NAME of a session that does not exist yet.
_STARTING = ("new", "fork")


def at_cursor(text: str, line: int, column: int, known: Known) -> Offer | Expression | None:
    """Return what fits at the cursor (*line* and *column* from 0) of a cell; None is for what is not ours."""
    before = _before(text, line, column)
    if head := _CELL.match(text):
        if len(before) <= head.end():
            return None
        options, newline, _ = before[head.end() :].partition("\n")
        return _in_prompt(before, options, known) if newline else _on_line(options, known.cell, known)
    if command := _COMMAND.match(before.rpartition("\n")[2]):
        return _on_command(command["verb"], command["rest"], known)
    return None


def _before(text: str, line: int, column: int) -> str:
    # Without the text of the whole cell, IPython counts columns from its start, beyond the end of line 0.
    start = sum(len(each) + 1 for each in text.split("\n")[:line])
    return text[: start + column]


def _in_prompt(before: str, options: str, known: Known) -> Offer | Expression:
    if "raw" in _read(_WORD.finditer(options), known.cell).given:
        return Offer()
    source = unclosed(before.rpartition("\n")[2])
    return Offer() if source is None else Expression(source.lstrip())


def _on_command(verb: str, rest: str, known: Known) -> Offer:
    if not rest:
        return _offer(verb, [*known.verbs, *HELP.names] if verb.startswith("-") else known.verbs, "verb")
    if verb not in known.verbs:
        return Offer()
    return _on_line(rest, known.verbs[verb], known, starting=verb in _STARTING)


@dataclass(frozen=True, slots=True)
class _Read:
    """What the finished words say: how many are bare, which options and settings are given, which wants its value."""

    bare: int
    given: frozenset[str]
    wanting: Option | None


def _on_line(typed: str, form: Form, known: Known, *, starting: bool = False) -> Offer:
    words = list(_WORD.finditer(typed))
    last = words.pop() if words and words[-1].end() == len(typed) else None
    if last and last["quote"]:
        return Offer()
    fragment = last[0] if last else ""
    read = _read(words, form)
    if read.wanting:
        return _of_kind(read.wanting.value, fragment, read, known)
    if fragment.startswith("-"):
        return _on_option(fragment, form, read, known)
    kind = _word(form, read.bare)
    if kind is None and not fragment:
        return _offer("", _names(form.options, read), "option")
    if kind in ("NAME", "OLD"):
        kind = None if starting else "SESSION"
    return _of_kind(kind, fragment, read, known)


def _read(words: Iterable[re.Match[str]], form: Form) -> _Read:
    bare, given = 0, set()
    wanting: Option | None = None
    for word in words:
        name, equals, value = word[0].partition("=")
        if wanting or (word["quote"] and not word["head"]) or not name.startswith("-") or word[0] == "-":
            if equals and (wanting is None or wanting.value == "KEY=VALUE"):
                given.add(name)
            bare += not wanting
            wanting = None
        elif option := next((each for each in form.options if name in each.names), None):
            given.add(option.key)
            if option.value == "KEY=VALUE":
                given.add(value.partition("=")[0])
            wanting = option if option.value and not equals else None
    return _Read(bare, frozenset(given), wanting)


def _on_option(fragment: str, form: Form, read: _Read, known: Known) -> Offer:
    name, equals, value = fragment.partition("=")
    if not equals:
        return _offer(fragment, _names((*form.options, HELP), read), "option")
    kinds = [option.value for option in form.options if name in option.names]
    return _of_kind(kinds[0], value, read, known) if kinds else Offer()


def _names(options: Iterable[Option], read: _Read) -> list[str]:
    free = [option for option in options if option.repeated or option.key not in read.given]
    return [name for option in free for name in option.names]


def _word(form: Form, place: int) -> str | None:
    """Return what the bare word number *place* stands for; the last one may be repeated."""
    repeated = form.words[-1:] if form.words and form.words[-1].endswith("…]") else ()
    word = next(iter(form.words[place : place + 1] or repeated), None)
    return word and word.strip("[]").removesuffix(" …")


def _of_kind(kind: str | None, fragment: str, read: _Read, known: Known) -> Offer:
    if kind == "KEY=VALUE":
        key, equals, value = fragment.partition("=")
        if equals:
            kinds = {"model": "MODEL", "recall_model": "MODEL", "summary_model": "MODEL", "context": "POLICY"}
            return _of_kind(kinds[key], value, read, known) if key in kinds else Offer()
        keys = [key for key in (*OURS, *PARAMETERS) if key not in read.given]
        return _offer(fragment, [f"{key}=" for key in keys], "setting")
    if kind == "POLICY":
        return _offer(fragment, POLICIES, "policy")
    if kind == "MODEL":
        return _offer(fragment, _models(fragment, known), "model")
    if kind == "SESSION":
        return _offer(fragment, known.sessions, "session")
    if kind == "ENDPOINT":
        return _offer(fragment, known.endpoints, "endpoint")
    return Offer()


def _models(fragment: str, known: Known) -> list[str]:
    """Return whole models and the way to those of each endpoint; behind the colon, these."""
    name, colon, _ = fragment.partition(":")
    if colon:
        return [*known.models, *(f"{name}:{model}" for model in known.endpoints.get(name, ()))]
    return [*known.models, *(f"{name}:" for name in known.endpoints if name not in known.models)]


def _offer(fragment: str, texts: Iterable[str], kind: str) -> Offer:
    # A server may list anything as its models: what cannot be a word of a line must not get into one.
    start = unicodedata.normalize("NFC", fragment)
    fitting = [text for text in texts if text.startswith(start) and text.isprintable() and not set(text) & set(" \"'")]
    return Offer(fragment, tuple(dict.fromkeys(fitting)), kind)
