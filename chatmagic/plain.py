"""Text of strangers, made fit for a terminal, a log line or an error."""

from __future__ import annotations

import re

__all__ = ["one_line", "plain"]

# Control characters (but tab and newline), marks that reorder a line, and halves of characters.
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def plain(text: str) -> str:
    """Return *text* without control and bidi characters; tabs and newlines stay, lone surrogates become U+FFFD."""
    return _SURROGATE.sub("\ufffd", _HARMFUL.sub("", text))


def one_line(text: str, limit: int = 300) -> str:
    """Return *text* as one plain line of at most *limit* characters."""
    begin = text[: 20 * limit]  # enough, and quick where the text is long
    words = (plain(word) for word in begin.split())  # split first: a carriage return ends a word, too
    line = " ".join(word for word in words if word)
    return line if len(line) <= limit and len(begin) == len(text) else line[: limit - 1] + "…"
