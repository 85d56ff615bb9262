"""``{{ expression }}`` in a prompt: what is filled, what is left alone, and how it fails."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.template import FILTERS, fill
from chatmagic.errors import TemplateError


class Stubborn:
    def __str__(self) -> str:
        raise RuntimeError("I will not")


NAMES = {"x": 7, "name": "Ada", "d": {"é": [1, None]}, "fence": "a ```` b", "a": 1, "b": 2, "stubborn": Stubborn()}

PIECES = [
    "{{ ",
    "{{\t",
    " }}",
    "{{",
    "}}",
    "{",
    "}",
    " ",
    "\n",
    "$",
    "\\",
    "x",
    "name",
    " | ",
    "repr",
    "missing",
    "'",
    "é",
]
PROMPTS = st.lists(st.sampled_from(PIECES) | st.characters(), max_size=20).map("".join)


def evaluate(expression: str) -> Any:
    return eval(expression, dict(NAMES))


def never(expression: str) -> Any:
    raise AssertionError(f"{expression!r} was evaluated")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        pytest.param("{{ x }}", "7", id="alone"),
        pytest.param("a{{ x }}b", "a7b", id="in a word"),
        pytest.param("{{\tx \t}}", "7", id="any blanks inside"),
        pytest.param("{{ x }} and {{ name }}\n{{ x + 1 }}\n", "7 and Ada\n8\n", id="several"),
        pytest.param("{{ x }}{{ x }}", "77", id="side by side"),
        pytest.param("{{{ x }}}", "{7}", id="in braces"),
        pytest.param('{{ {"k": {1: x}} }}', "{'k': {1: 7}}", id="braces in it"),
        pytest.param('{{ "a }} b" }}', "a }} b", id="the end in a text"),
        pytest.param('{{ "{{ x }}" }}', "{{ x }}", id="the beginning in a text"),
        pytest.param('{{ "\\{{ x }}" }}', "\\{{ x }}", id="a literal in a text"),
        pytest.param("$ {{ x }}", "$ 7", id="a dollar further away"),
        pytest.param("{{ }} {{ x }}", "{{ }} 7", id="behind an empty one"),
        pytest.param("{{x}} {{ x }}", "{{x}} 7", id="behind one without blanks"),
        pytest.param("{{ x\n{{ x }}", "{{ x\n7", id="behind an open one"),
        pytest.param("${{ x }} {{ x }}", "${{ x }} 7", id="behind one after a dollar"),
        pytest.param("\\ {{ x }}", "\\ 7", id="a backslash further away"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*invalid escape")
def test_filled(prompt: str, expected: str) -> None:
    """An expression between braces, with blanks inside and on one line, is replaced by its value."""
    assert fill(prompt, evaluate) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("{{x}}", id="no blanks"),
        pytest.param("{{ x}}", id="no blank before the end"),
        pytest.param("{{x }}", id="no blank after the beginning"),
        pytest.param("{ x }", id="single braces"),
        pytest.param("${{ x }}", id="after a dollar"),
        pytest.param("$${{ x }}", id="after two dollars"),
        pytest.param("{{ x", id="open"),
        pytest.param("{{ x }\n}", id="an end on two lines"),
        pytest.param("{{\nx }}", id="a line break after the beginning"),
        pytest.param("{{ x\n}}", id="a line break before the end"),
        pytest.param("{{ [x,\n x] }}", id="two lines"),
        pytest.param("{{ }}", id="empty"),
        pytest.param("{{   }} }}", id="empty, with another end"),
        pytest.param("{% if x %}", id="a statement"),
        pytest.param("\\{{x}}", id="a backslash, no blanks"),
        pytest.param("\\{{ x", id="a backslash, open"),
        pytest.param("\\{{ }}", id="a backslash, empty"),
        pytest.param("\\${{ x }}", id="a backslash before a dollar"),
        pytest.param("\\n \\\\ C:\\x", id="other backslashes"),
        pytest.param("> 3\n  >>> x\r\n", id="no braces"),
    ],
)
def test_untouched(prompt: str) -> None:
    """Everything else in a prompt stays as it was typed, and is not evaluated."""
    assert fill(prompt, never) == prompt


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("\\{{ x }}", "{{ x }}"),
        ("a\\{{ x }}b", "a{{ x }}b"),
        ("\\\\{{ x }}", "\\{{ x }}"),
        ("$\\{{ x }}", "${{ x }}"),
        ("\\{{ no expression }}", "{{ no expression }}"),
        ("\\{{ x }} \\{{ x }}", "{{ x }} {{ x }}"),
    ],
    ids=["alone", "in a word", "two backslashes", "after a dollar", "no expression", "two"],
)
def test_literal(prompt: str, expected: str) -> None:
    r"""``\{{ x }}`` stands for ``{{ x }}`` itself, and nothing is evaluated."""
    assert fill(prompt, never) == expected


def test_literal_beside_filled() -> None:
    """A literal does not keep its neighbours from being filled."""
    assert fill("{{ x }} \\{{ x }} {{ x }}", evaluate) == "7 {{ x }} 7"


@given(PROMPTS.filter(lambda prompt: "{{ " not in prompt and "{{\t" not in prompt))
def test_prompts_without_braces(prompt: str) -> None:
    """A prompt in which no braces open is sent as it was typed, whatever else it holds."""
    assert fill(prompt, never) == prompt


@given(PROMPTS.filter(lambda text: "{{" not in text and text[-1:] not in ("$", "\\", "{")), PROMPTS, PROMPTS)
def test_values_are_not_filled_again(before: str, value: str, after: str) -> None:
    """A value comes in as it is between the text around it, though it may look like an expression."""
    after = after.replace("{{", "{")

    assert fill(f"{before}{{{{ x }}}}{after}", lambda _: value) == before + value + after


@given(
    st.lists(
        st.sampled_from(["{{ x }}", "{{ no expression }}", "{{ 'a }} b' }}"]) | st.text("ab \n$\\").map("{}.".format)
    )
)
def test_backslash_keeps_any_expression(pieces: list[str]) -> None:
    """With a backslash before each expression the prompt is sent as it was without."""
    escaped = ["\\" + piece if piece.startswith("{{") else piece for piece in pieces]

    assert fill("".join(escaped), never) == "".join(pieces)


@given(PROMPTS)
def test_any_prompt(prompt: str) -> None:
    """Any prompt is filled, or is a TemplateError."""
    try:
        filled = fill(prompt, lambda _: "7")
    except TemplateError:
        assert "|" in prompt  # nothing but an unknown filter fails when every expression has a value
        return

    assert filled == prompt or "{{" in prompt


def test_each_is_evaluated_once() -> None:
    """Expressions are evaluated from left to right, each as often as it stands there."""
    seen: list[str] = []
    fill("{{ b }} \\{{ c }} {{ a | repr }} {{ b }}", seen.append)

    assert seen == ["b", "a", "b"]


def test_many() -> None:
    """A long line with many expressions takes no longer than it has to."""
    start = time.perf_counter()
    filled = fill("{{ x }} " * 5_000, lambda _: 7)

    assert filled == "7 " * 5_000
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        pytest.param("{{ name | repr }}", "'Ada'", id="repr"),
        pytest.param("{{ d | json }}", '{\n  "é": [\n    1,\n    null\n  ]\n}', id="json"),
        pytest.param("{{ {1, 2} | json }}", '"{1, 2}"', id="json of what is none"),
        pytest.param("{{ name | code }}", "```\nAda\n```", id="code"),
        pytest.param("{{ fence | code }}", "`````\na ```` b\n`````", id="code with a fence in it"),
        pytest.param("{{ name|repr }}", "'Ada'", id="no blanks"),
        pytest.param('{{ "a | b" }}', "a | b", id="a bar in a text"),
        pytest.param('{{ "a | b" | repr }}', "'a | b'", id="a bar in a text, then a filter"),
        pytest.param("{{ (a | b) }}", "3", id="Python's bar in parentheses"),
        pytest.param("{{ a | b | repr }}", "3", id="Python's bar, then a filter"),
        pytest.param("{{ a | 2 }}", "3", id="Python's bar before a number"),
        pytest.param("{{ a | b.real }}", "3", id="Python's bar before an attribute"),
    ],
)
def test_filters(prompt: str, expected: str) -> None:
    """A last ``| word`` says how the value becomes text; any other bar is Python's."""
    assert fill(prompt, evaluate) == expected


def test_unknown_filter() -> None:
    """A filter that does not exist is an error that names those that do, and the way to Python's own bar."""
    with pytest.raises(TemplateError) as caught:
        fill("{{ a | b }}", never)

    assert str(caught.value).startswith("{{ a | b }}: no filter 'b' (known: repr, json, code)")
    assert "Python's own | goes into ( )" in str(caught.value)


@given(st.text("`a\n"))
def test_code_fence(text: str) -> None:
    """The fence of code is longer than any run of backticks in it."""
    fence, *inside, last = FILTERS["code"](text).split("\n")

    assert set(fence) == {"`"}
    assert last == fence
    assert len(fence) >= 3
    assert fence not in text
    assert "\n".join(inside) == text


@pytest.mark.parametrize(
    ("expression", "failure"),
    [
        pytest.param("missing", "NameError: name 'missing' is not defined", id="no such name"),
        pytest.param("1 / 0", "ZeroDivisionError: division by zero", id="it raises"),
        pytest.param("no expression", "SyntaxError", id="no expression"),
        pytest.param("x = 1", "SyntaxError", id="a statement"),
        pytest.param("x || repr", "SyntaxError", id="two bars"),
        pytest.param("stubborn", "RuntimeError: I will not", id="no text"),
        pytest.param("{(): 1} | json", "TypeError", id="no JSON"),
        pytest.param("\x00", "null bytes", id="a null"),
        pytest.param("\ud800", "UnicodeEncodeError", id="half a character"),
        pytest.param("[" * 500 + "]" * 500, "too many nested parentheses", id="too deep"),
        pytest.param("-" * 100_000 + "x", "Error", id="much too deep"),
    ],
)
def test_failures(expression: str, failure: str) -> None:
    """An expression that fails, however long, is an error that says why and names both ways out."""
    with pytest.raises(TemplateError) as caught:
        fill(f"Explain {{{{ {expression} }}}}!", evaluate)

    assert failure in str(caught.value)
    assert str(caught.value).startswith("{{ " + expression[:1].replace("\ud800", "\ufffd").replace("\x00", ""))
    assert str(caught.value).endswith("For the text itself write \\{{ or use %%chat --raw")


def test_failures_hide_no_cause() -> None:
    """The error stands alone: what the expression raised is told in words, not as its context."""
    with pytest.raises(TemplateError) as caught:
        fill("{{ missing }}", evaluate)

    assert caught.value.__suppress_context__


def test_long_unknown_filter() -> None:
    """However long the expression is, the error still names the known filters."""
    with pytest.raises(TemplateError, match=r"known: repr, json, code"):
        fill("{{ " + "x + " * 1_000 + "x | b }}", never)


def test_first_end_that_can_be_read() -> None:
    """When no end makes an expression, the first one is the one that is told."""
    with pytest.raises(TemplateError, match=r"^\{\{ no expression \}\} failed"):
        fill("{{ no expression }} and {{ nor this }}", evaluate)


def test_interrupt() -> None:
    """An expression that takes too long can be interrupted."""

    def interrupted(_: str) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill("{{ x }}", interrupted)
