"""A Markdown text that grows: what of it is finished, and how the rest can be shown before it is."""

from __future__ import annotations

import re

from chatmagic.markdown import block_starts

__all__ = ["Growing", "mended"]

MOST_HELD = 300  # characters that wait at the most for the end of a link or formula

_FENCE = re.compile(r"[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)*(`{3,}|~{3,})([^`\n]*)$")
# A last line that may become anything: a list, a heading, a rule, a fence, the underline of a heading, a quote.
_MARKER = re.compile(r"[ \t>]*(?:[-*+_=~`#:|]+[ \t]*|\d{1,9}[.)]?[ \t]*|[-*+][ \t]+\[.?\]?|(?:`{3,}|~{3,}).*)$")
_DELIMITERS = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$")
# What stands at the very end and may become something else with the next character.
_HALF = re.compile(r"(?:<[A-Za-z/!][^>\s]{0,20}|&#?\w{0,20}|\\|!)$")
_CLOSERS = {r"\(": r"\)", r"\[": r"\]", "$$": "$$", "$": "$"}
_SIGN = re.compile(r"\\[()\[\]]|\\.|`+|\$\$?|\*+|_+|~~|!?\[|\]", re.DOTALL)


class Growing:
    """Takes a text piece by piece, and gives it back in finished parts and an open one.

    A part is finished when nothing that may follow can change how it looks, but for the definition of a link. Parts
    end where a block of the document does, so that they can be made HTML one by one.
    """

    def __init__(self) -> None:
        self.open = ""
        """What may change still."""
        self._half = ""

    def take(self, text: str) -> str:
        """Take the next piece and return what is finished by it, if anything."""
        text = self._half + text
        self._half = "\r" if text.endswith("\r") else ""  # a newline may follow, and the two are one
        self.open += text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        end = _finished(self.open) if "\n" in text else 0
        done, self.open = self.open[:end], self.open[end:]
        return done


def _finished(text: str) -> int:
    """Return how many characters from the start nothing can change any more.

    Where a block begins after a blank line, all before is closed. Only whole lines count: a digit may become another
    item of the list above.
    """
    lines = text[: text.rfind("\n") + 1].split("\n")
    for start in reversed(block_starts("\n".join(lines))):
        if start > 0 and not lines[start - 1].strip():
            return sum(len(line) + 1 for line in lines[:start])
    return 0


def mended(text: str) -> str:
    """Return an unfinished *text* so that it looks like what it will become.

    Half a link, table, formula or list marker is held back; code and emphasis that are open are closed.
    """
    *whole, last = text.split("\n")
    if fence := _open_fence(whole):
        return text if set(last.strip()) - {fence[0]} else "\n".join(whole)
    if _MARKER.fullmatch(last):
        whole, last = whole[:-1], "".join(whole[-1:])
    start = next((number for number in range(len(whole), 0, -1) if not whole[number - 1].strip()), 0)
    before, paragraph = whole[:start], [*whole[start:], last]
    if paragraph[0].lstrip().startswith("|"):
        if len(paragraph) < 3:
            return "\n".join(before)
        if _DELIMITERS.match(paragraph[1]):
            return text
    return "\n".join([*before, _closed("\n".join(paragraph))])


def _open_fence(lines: list[str]) -> str:
    """Return the fence that is open after *lines*, or nothing."""
    fence = ""
    for line in lines:
        if match := _FENCE.match(line):
            if not fence:
                fence = match[1]
            elif match[1][0] == fence[0] and len(match[1]) >= len(fence) and not match[2].strip():
                fence = ""
    return fence


def _closed(text: str) -> str:
    """Close what is open at the end of a paragraph, or leave it out where it cannot be."""
    text = _HALF.sub("", text)
    marks: list[str] = []
    link, position = -1, 0
    while match := _SIGN.search(text, position):
        sign, start, position = match[0], match.start(), match.end()
        if sign in _CLOSERS or sign[0] == "`":
            end = _end_of(sign, text, position)
            if end is None and sign[0] == "`":
                return _ended(text[:start], marks) if position == len(text) else _ended(text, [*marks, sign])
            if end is None:
                return _ended(_held(text, start), marks, cut=True)
            position = end
        elif sign in ("[", "!["):
            link = start
        elif sign == "]" and link >= 0:
            if re.fullmatch(r"\([^)]*|\[[^\]]*|", text[position:]):
                break
            link = -1
        elif sign[0] in "*_~":
            used = _mark(marks, sign, text[:start][-1:], text[position:][:1])
            if position == len(text) and not used:
                text = text[:start]
    return _ended(text, marks) if link < 0 else _ended(_held(text, link), marks, cut=True)


def _end_of(sign: str, text: str, position: int) -> int | None:
    """Return where what *sign* opens ends, from *position* on; a dollar may be money, and then it opens nothing."""
    if sign == "$" and not text[position : position + 1].strip("0123456789 \n"):
        return position if position < len(text) else None
    pattern = rf"(?<!`){sign}(?!`)" if sign[0] == "`" else re.escape(_CLOSERS[sign])
    match = re.compile(pattern).search(text, position)
    return match and match.end()


def _mark(marks: list[str], sign: str, before: str, after: str) -> bool:
    """Open or close emphasis, as the characters around say; return False where *sign* does neither."""
    rest = sign
    closes = bool(before.strip()) and not (sign[0] == "_" and after.isalnum())
    while rest and closes and marks and marks[-1][0] == rest[0]:
        count = min(len(rest), len(marks[-1]))
        inner, rest = marks.pop()[count:], rest[count:]
        marks += [inner] * bool(inner)
    if rest and after.strip() and not (sign[0] == "_" and before.isalnum()):
        marks.append(rest)
        rest = ""
    return rest != sign


def _held(text: str, start: int) -> str:
    return text[:start] if len(text) - start <= MOST_HELD else text


def _ended(text: str, marks: list[str], *, cut: bool = False) -> str:
    """Write the ends of all *marks*; behind a *cut*, one that holds nothing is left out."""
    text = text.rstrip()
    for mark in reversed(marks):
        text = text[: -len(mark)].rstrip() if cut and text.endswith(mark) else text + mark
    return text
