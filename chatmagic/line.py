"""A magic line -> a value, by a description of what the line may hold."""

from __future__ import annotations

import difflib
import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.settings import FILLED_IN, TEXTS, Settings, checked
from chatmagic.errors import ChatMagicError, LineError

__all__ = [
    "SETTINGS",
    "Form",
    "Option",
    "Word",
    "assignments",
    "columns",
    "edited",
    "nearest",
    "settings",
    "split",
    "turn_number",
    "written",
]


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of a line; *quoted* ones are never options."""

    text: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """``-m``, ``--model MODEL``. Without *value* it is a switch; a *repeated* one gathers its values."""

    names: tuple[str, ...]
    help: str
    value: str | None = None
    repeated: bool = False

    @property
    def key(self) -> str:
        """The long name without its dashes."""
        return self.names[-1].lstrip("-")

    @property
    def absent(self) -> Any:
        """What stands for the option where it was not given."""
        if self.repeated:
            return []
        return False if self.value is None else None

    @property
    def usage(self) -> str:
        """All names and the value, as the help shows them."""
        return ", ".join(self.names) + (f" {self.value}" if self.value else "")


# A number below zero and a dash alone look like options, and are none.
_OPTION = re.compile(r"-{1,2}[^\W\d]")

HELP = Option(("--help",), "show this help; nothing is sent")


@dataclass(frozen=True, slots=True)
class Form:
    """What a line may hold after *magic*: words (``NAME``, ``[N]``, ``[KEY=VALUE …]``) and options.

    The only word of a *raw* one is all of the line behind its options, as it was typed.
    """

    magic: str
    summary: str
    words: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    more: str = ""
    surplus: str = "{word!r} is one word too many (a name with blanks stands in quotes)"
    raw: bool = False

    def read(self, line: str) -> dict[str, Any]:
        """Return the values by the name of their word or option (in small letters, without brackets).

        A word that may be repeated and a repeated option are lists, a switch is True or False, anything else is text
        or, where it was not given, None.

        Raises:
            LineError: the line does not fit the description.
        """
        values: dict[str, Any] = {option.key: option.absent for option in self._all_options}
        line, text = self._parted(line) if self.raw else (line, "")
        bare = [text] if text else []
        words = iter(split(line))
        for word in words:
            if word.quoted or not word.text.startswith("-") or word.text == "-":
                bare.append(word.text)
            else:
                self._take(word.text, words, values)
        if not values["help"]:
            values |= self._fitted(bare)
        return values

    def _parted(self, line: str) -> tuple[str, str]:
        """Return the options that *line* begins with, and the rest of it."""
        end, value_follows = 0, False
        for match in _WORD.finditer(line):
            word = match[0]
            if not value_follows and ((match["quote"] and not match["head"]) or not _OPTION.match(word)):
                return line[:end], line[match.start() :].rstrip()
            option = None if value_follows else self._option(word.partition("=")[0])
            value_follows = option is not None and option.value is not None and "=" not in word
            end = match.end()
        return line, ""

    def _take(self, text: str, words: Iterable[Word], values: dict[str, Any]) -> None:
        name, equals, inline = text.partition("=")
        option = self._option(name)
        if option.value is None:
            if equals:
                raise LineError(f"{name} takes no value, found {inline!r}")
            values[option.key] = True
            return
        value = inline if equals else self._value(option, name, words)
        if option.repeated:
            values[option.key].append(value)
        elif values[option.key] is not None:
            raise LineError(f"{name} is given twice: {values[option.key]!r} and {value!r}")
        else:
            values[option.key] = value

    def _value(self, option: Option, name: str, words: Iterable[Word]) -> str:
        word = next(iter(words), None)
        usage = f"{self.magic} {name} {option.value}"
        if word is None:
            raise LineError(f"{name} needs a value: {usage}")
        if not word.quoted and _OPTION.match(word.text):
            raise LineError(f"{name} needs a value, found {word.text!r}: {usage} (quotes make it a value)")
        if not word.quoted and word.text.startswith("'"):
            raise LineError(f"the quote before {word.text[1:21]!r} is never closed (a blank must follow its end)")
        return word.text

    def _option(self, name: str) -> Option:
        for option in self._all_options:
            if name in option.names:
                return option
        known = [each for option in self._all_options for each in option.names]
        advice = nearest(name, known)
        key = name.removeprefix("--").replace("-", "_")
        settable = "--set" in known and name.startswith("--") and key.isidentifier() and key not in FILLED_IN
        if advice == "." and settable:
            advice = f". A request parameter is set with --set {key}=VALUE."
        raise LineError(f"{self.magic} has no option {name!r}{advice} See {self.help_line}")

    def _fitted(self, bare: Sequence[str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        rest = list(bare)
        for word in self.words:
            key = word.strip("[]").removesuffix(" …").lower()
            if word.endswith("…]"):
                values[key], rest = rest, []
            elif rest:
                values[key] = rest.pop(0)
            elif word.startswith("["):
                values[key] = None
            else:
                raise LineError(f"{self.magic} needs {word}: {self.usage}")
        if rest:
            raise LineError(f"{self.usage}: {self.surplus.format(word=rest[0])}")
        return values

    @property
    def _all_options(self) -> tuple[Option, ...]:
        return (*self.options, HELP)

    @property
    def usage(self) -> str:
        """The form in one line."""
        return " ".join([self.magic, *self.words, *["[options]"] * bool(self.options)])

    @property
    def help_line(self) -> str:
        """What a user types to see the help."""
        return f"{self.magic.replace('%%', '%')} --help"

    @property
    def help(self) -> str:
        """The form with all its options, as text."""
        options = columns((option.usage, option.help) for option in self._all_options)
        more = [wrapped(self.more), ""] if self.more else []
        return "\n".join([self.usage, "", wrapped(self.summary), "", *more, options])


SETTINGS = (
    Option(("-m", "--model"), "who answers: MODEL, or ENDPOINT:MODEL (ollama:llama3.2)", "MODEL"),
    Option(("-s", "--system"), "the system prompt", "TEXT"),
    Option(
        ("--context",),
        "what of the history is sent: budget, budget:N (tokens), summary, last:K (turns), all, or a function of yours",
        "POLICY",
    ),
    Option(("--recall",), "send the K turns along that fit the prompt best, of those that are not sent any more", "K"),
    Option(("--learn",), "let summaries propose facts that are worth remembering"),
    Option(
        ("--set",), "any request parameter (temperature=0); KEY= takes it back; repeatable", "KEY=VALUE", repeated=True
    ),
)
"""Options that describe the conversation."""


def settings(values: Mapping[str, Any]) -> Settings:
    """Return what the options of ``SETTINGS`` ask for.

    Raises:
        LineError: a key is given twice, or a ``--set`` has no ``key=value``.
        SettingError: a key or value that cannot be set.
    """
    pairs = [(key, values[key]) for key in ("model", "system", "context") if values[key] is not None]
    if values["recall"] is not None:
        pairs.append(_assignment(f"recall={values['recall']}"))
    if values["learn"]:
        pairs.append(("learn", True))
    return assignments(values["set"], pairs)


def assignments(texts: Iterable[str], pairs: Iterable[tuple[str, Any]] = ()) -> Settings:
    """Return the settings that *texts* of the form ``key=value`` ask for, beside the *pairs* known already."""
    found: dict[str, Any] = {}
    for key, value in [*pairs, *map(_assignment, texts)]:
        if key in found:
            raise LineError(f"{key!r} is set twice: to {found[key]!r} and to {value!r}")
        found[key] = value
    return checked(found)


def written(wanted: Settings) -> tuple[str, list[str]]:
    """Return *wanted* as options of a line, and the keys that no line can hold (a text with both kinds of quotes …)."""
    options, impossible = [], []
    for key in sorted(wanted.keys):
        layer = Settings({key: wanted.values[key]}) if key in wanted.values else Settings(unset=frozenset({key}))
        option = next((each for each in _ways(key, wanted.values.get(key, "")) if _reads_as(each, layer)), None)
        if option is None:
            impossible.append(key)
        else:
            options.append(option)
    return " ".join(options), impossible


def edited(session: str, turn: Turn, wanted: Settings) -> tuple[str, str]:
    """Return the text of a cell that asks the prompt of *turn* in its place, and what must be said about it.

    *wanted* is what the cell of the turn asked for.
    """
    options, lost = written(wanted)
    at = f"--at {turn.parent.number if turn.parent else 0}"
    raw = "--raw" if "{{" in turn.prompt else ""
    # A newline at the end of a prompt needs another one: as the last line of a cell, it is none of the prompt.
    end = "\n" * turn.prompt.endswith("\n")
    cell = " ".join(filter(None, ["%%chat", session, at, options, raw])) + f"\n{turn.prompt}{end}"
    return cell, f" Not on its line, because no line can hold it: {', '.join(lost)}." if lost else ""


def _ways(key: str, value: Any) -> Iterable[str]:
    """Yield the forms that a setting may have on a line, the best one first."""
    short = {"model": "-m ", "system": "-s "}.get(key, "") if value else ""
    texts = [value] if isinstance(value, str) else []
    for text in [*texts, json.dumps(value, ensure_ascii=False)]:
        quotes = sorted("\"'", key=text.count)
        # Without quotes around it, one within could find its end in a later word.
        for quote in quotes if set(text) & set(quotes) else ["", *quotes]:
            yield f"{short or f'--set {key}='}{quote}{text}{quote}"
            yield f"--set {quote}{key}={text}{quote}"


def _reads_as(option: str, wanted: Settings) -> bool:
    try:
        return not set(option) & set("\n\r") and settings(Form("", "", (), SETTINGS).read(option)) == wanted
    except ChatMagicError:
        return False


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise LineError(f"{text!r} is not KEY=VALUE: temperature=0, or with blanks in it system='Be brief.'")
    if key in TEXTS:
        return key, value
    try:
        return key, json.loads(value, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        if value.startswith(('{"', '["')):
            whole = f'{key}={{"a": 1}}'
            raise LineError(f"{text!r} is no whole JSON. A value with blanks is quoted as a whole: '{whole}'") from None
        return key, value


def turn_number(text: str, least: int = 1) -> int:
    """Read ``3`` or ``#3``.

    Raises:
        LineError: *text* is no number, or less than *least*.
    """
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdecimal() and least <= int(digits[:10]) < 10**9):
        raise LineError(f"{text!r} is not a number from {least} up")
    return int(digits)


def _finite(number: str) -> float:
    # Python reads NaN and what is beyond a float, but no request can hold it.
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value


# A quote groups at the start of a word or after its "=", and closes where a blank or the end follows.
_WORD = re.compile(
    r"""(?P<head>(?:-{0,2}[^\W\d][\w.-]*=){0,2})(?P<quote>["'])(?P<text>.*?)(?P=quote)(?=\s|$)|(?P<bare>\S+)""",
    re.DOTALL,
)


def split(line: str) -> list[Word]:
    r"""Split a magic line into words.

    Quotes group at the start of a word or after its ``=``; there are no escapes, and an apostrophe that opens nothing
    is text, so that JSON, ``C:\paths`` and "You're" come through as they are.

    Raises:
        LineError: a double quote is opened and never closed.
    """
    words = []
    for match in _WORD.finditer(line):
        if match["bare"] is None:
            words.append(Word(match["head"] + match["text"], quoted=not match["head"]))
        elif re.match(r"""(?:-{0,2}[^\W\d][\w.-]*=){0,2}\"""", match["bare"]):
            begin = match["bare"].partition('"')[2][:20]
            raise LineError(
                f"the quote before {begin!r} is never closed (a blank must follow its end). "
                "A value with blanks is quoted as a whole: 'KEY={\"a\": 1}'"
            )
        else:
            words.append(Word(match["bare"]))
    return words


def wrapped(text: str, before: str = "", after: str = "") -> str:
    """Break *text* into lines that fit an output cell; *before* stands before the first, *after* before the others."""
    return textwrap.fill(text, 92, initial_indent=before, subsequent_indent=after, break_on_hyphens=False)


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """Set rows of a name and what it is about below each other."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 4
    return "\n".join(wrapped(text, f"  {name}".ljust(width), " " * width) for name, text in rows)


def nearest(name: str, known: Iterable[str], before: str = "") -> str:
    """Return ``. Did you mean …?`` for the known name that *name* is a slip of, with *before*; else a full stop."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f". Did you mean {before}{matches[0]}?" if matches else "."
