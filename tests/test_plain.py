"""Text of strangers, made fit for a terminal; and errors, which are made of it."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic import errors
from chatmagic.errors import ChatMagicError, ChatMagicWarning, RequestError, SessionError
from chatmagic.plain import one_line, plain

WILD = st.text(st.characters(codec=None) | st.sampled_from("\t\n\r\x1b\x7f\x9b\u2028\u202e\u2066\ud800 é"))
REORDERING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\tb\nc", "a\tb\nc", id="tab and newline stay"),
        pytest.param("\x1b[31mred\x1b[0m", "[31mred[0m", id="colours"),
        pytest.param("\x1b]0;title\x07", "]0;title", id="window title"),
        pytest.param("\x9b2J\x90\x9c", "2J", id="eight-bit controls"),
        pytest.param("a\r\x08\x0b\x0c\x00\x7f\x85b", "ab", id="carriage return, backspace, null, delete"),
        pytest.param("a\u202eb\u202c\u2066c\u2069\u200f\u061c", "abc", id="reordering"),
        pytest.param("a\ud800b\udfff", "a\ufffdb\ufffd", id="halves of characters"),
        pytest.param("日本 🙂 שלום é\u0301 \u200d\xa0", "日本 🙂 שלום é\u0301 \u200d\xa0", id="all scripts"),
        pytest.param("", "", id="empty"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    """Control and bidi characters go, halves of characters are marked, and all other text stays as it is."""
    assert plain(text) == expected


@given(WILD)
def test_plain_is_harmless(text: str) -> None:
    """No text can send a control sequence, reorder a line or fail to be written, once it is plain."""
    made = plain(text)

    assert {letter for letter in made if unicodedata.category(letter) == "Cc"} <= {"\t", "\n"}
    assert not REORDERING & {unicodedata.bidirectional(letter) for letter in made}
    assert made.encode("utf-8").decode("utf-8") == made


@given(WILD)
def test_plain_twice(text: str) -> None:
    """Plain text is plain."""
    assert plain(plain(text)) == plain(text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"]) | st.sampled_from("\t\n")))
def test_plain_keeps_what_can_be_read(text: str) -> None:
    """Text without control and format characters is not touched."""
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ("  a \n\n\t b\r\nc ", "a b c"),
        ("50%\r100%\x0bdone\x85end", "50% 100% done end"),
        ("a\u2028b\u2029c", "a b c"),
        ("a \x00 b", "a b"),
        ("\x1b[1mfat\x1b[0m", "[1mfat[0m"),
        ("", ""),
    ],
    ids=[
        "one word",
        "blanks and lines",
        "other ends of a line",
        "separators",
        "nothing between blanks",
        "fat",
        "empty",
    ],
)
def test_one_line(text: str, expected: str) -> None:
    """Lines become one plain line, with one blank where a line ended."""
    assert one_line(text) == expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [(9, "a" * 9), (10, "a" * 10), (11, "a" * 9 + "…")],
    ids=["shorter", "just", "longer"],
)
def test_one_line_limit(length: int, expected: str) -> None:
    """A line that is longer than the limit is cut, and says so."""
    assert one_line("a" * length, limit=10) == expected


def test_one_line_is_short() -> None:
    """Without a limit of its own a line is cut at 300 characters."""
    assert len(one_line("a" * 1_000)) == 300


@given(WILD, st.integers(1, 20))
def test_one_line_of_any_text(text: str, limit: int) -> None:
    """Any text becomes a single harmless line within the limit."""
    line = one_line(text, limit)

    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert plain(line) == line


@pytest.mark.parametrize("name", errors.__all__)
def test_error_messages(name: str) -> None:
    """Whatever an error is told, it says in one plain line of at most a thousand characters."""
    error = getattr(errors, name)
    if error is ChatMagicWarning:
        return

    assert str(error("a\nb\x1b[31m \u202ec")) == "a b[31m c"
    assert len(str(error("a" * 2_000))) == 1_000


def test_error_tree() -> None:
    """The tree in the module's docstring shows every error under the one that it is a kind of."""
    assert errors.__doc__
    branches: list[str] = []
    shown = {}
    for indent, name in re.findall(r"^([│├└─ ]*)(\w+Error)\b", errors.__doc__, re.MULTILINE):
        depth = len(indent) // 4
        shown[name] = branches[depth - 1] if depth else "Exception"
        branches[depth:] = [name]

    defined = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert {error.__name__ for error in defined} == set(errors.__all__)
    assert shown == {error.__name__: error.__mro__[1].__name__ for error in defined if error is not ChatMagicWarning}


def test_error_in_ipython() -> None:
    """IPython shows the error's name and its line, and no frames of ours."""
    assert SessionError("no session 'x'")._render_traceback_() == ["\x1b[31mSessionError\x1b[39m: no session 'x'"]


def test_request_error() -> None:
    """A failed request tells its status and whether and when it may work later; by default it will not."""
    error = RequestError("busy", status=429, retryable=True, retry_after=2.5)
    silent = RequestError("bad")

    assert (str(error), error.status, error.retryable, error.retry_after) == ("busy", 429, True, 2.5)
    assert (silent.status, silent.retryable, silent.retry_after) == (None, False, None)


def test_our_errors_can_be_caught() -> None:
    """Our errors are exceptions that `except ChatMagicError` catches, and our warning is none of them."""
    assert all(issubclass(getattr(errors, name), ChatMagicError) for name in errors.__all__ if name.endswith("Error"))
    assert issubclass(ChatMagicWarning, UserWarning)
    assert not issubclass(ChatMagicWarning, ChatMagicError)
