"""``{{ expression }}`` in a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from chatmagic.errors import TemplateError
from chatmagic.plain import one_line

__all__ = ["FILTERS", "fill", "unclosed"]

_OPENING = re.compile(r"(?P<literal>\\)?(?<!\$)\{\{(?=[ \t])")
_CLOSING = re.compile(r"[ \t]+\}\}")
_FILTER = re.compile(r"^(?P<expression>.*\S)\s*\|\s*(?P<name>[A-Za-z_]\w*)$")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _code(value: object) -> str:
    text = str(value)
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


FILTERS: dict[str, Callable[[object], str]] = {"repr": repr, "json": _json, "code": _code}
"""``{{ expression | name }}``: what turns the value into text instead of ``str``."""


def fill(prompt: str, evaluate: Callable[[str], object]) -> str:
    r"""Return *prompt* with every ``{{ expression }}`` replaced by its value.

    The braces need blanks inside and must stand on one line; after ``$`` they are text, and ``\{{ x }}`` stands for
    ``{{ x }}`` itself. What a value brings in is not filled again.

    Raises:
        TemplateError: an expression cannot be read or fails; nothing is filled then.
    """
    filled = []
    position = 0
    while opening := _OPENING.search(prompt, position):
        filled.append(prompt[position : opening.start()])
        position = opening.end()
        end = prompt.find("\n", position)
        found = _expression(prompt[position : end if end >= 0 else None])
        if found is None:
            filled.append(opening[0])
        elif opening["literal"]:
            filled.append("{{")
        else:
            expression, length = found
            filled.append(_value(expression, evaluate))
            position += length
    return "".join([*filled, prompt[position:]])


def unclosed(line: str) -> str | None:
    """Return what stands behind the braces that *line* opens for an expression and does not close."""
    position = 0
    while opening := _OPENING.search(line, position):
        position = opening.end()
        if opening["literal"]:
            continue
        if not _CLOSING.search(line, position):
            return line[position:]
        found = _expression(line[position:])
        position += found[1] if found else 0
    return None


def _expression(rest: str) -> tuple[str, int] | None:
    """Return the expression that *rest* of a line begins with, and where it ends, behind its closing braces.

    An expression may hold closing braces itself, so the first end is taken up to which it can be read as Python. An
    empty one is none.
    """
    first = None
    for closing in _CLOSING.finditer(rest) if "}}" in rest else ():
        found = rest[: closing.start()].strip(), closing.end()
        if not found[0]:
            return None
        if _is_python(_split(found[0])[0]):
            return found
        first = first or found
    return first


def _is_python(source: str) -> bool:
    try:
        compile(source, "<prompt>", "eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply for the compiler
        return False
    return True


def _split(expression: str) -> tuple[str, str | None]:
    """Split the filter off; ``(a | b)`` in parentheses is Python's own."""
    match = _FILTER.match(expression)
    if match and _is_python(match["expression"]):
        return match["expression"], match["name"]
    return expression, None


def _value(expression: str, evaluate: Callable[[str], object]) -> str:
    source, name = _split(expression)
    shown = one_line(expression, limit=200)
    if name is not None and name not in FILTERS:
        known = ", ".join(FILTERS)
        raise TemplateError(f"{{{{ {shown} }}}}: no filter {name!r} (known: {known}). Python's own | goes into ( )")
    try:
        value = evaluate(source)
        return FILTERS[name](value) if name else str(value)
    except Exception as exc:
        failure = one_line(f"{type(exc).__name__}: {exc}", limit=200)
        raise TemplateError(
            f"{{{{ {shown} }}}} failed with {failure}. For the text itself write \\{{{{ or use %%chat --raw"
        ) from None
