"""How many tokens a text has, about, without a vocabulary."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

__all__ = ["estimate"]


def estimate(text: str) -> int:
    """Return about how many tokens *text* has in o200k_base: 0 for none, and never more than the bytes of its UTF-8.

    The text is cut as that vocabulary cuts it (words, numbers of three digits, signs, blanks), and each piece is priced
    by its letters, its length and the language around it. The median error is 2 to 5 %, by kind of text.
    """
    if not text:
        return 0
    tokens = sum(_TOKENS.get(kind, 0.0) * amount for kind, amount in _amounts(text).items())
    return max(1, min(round(tokens), _size(text)))


_TOKENS = {
    # A word of Latin letters, and each further letter: "long" are its 5th to 8th, "longer" those behind.
    "word": 1.0,
    "long, half": 0.21,
    "long, little": 0.35,
    "long, far": 0.19,
    "longer": 0.16,
    "longer, little": 0.1,
    # One with accents; they are far beyond Latin-1. Here "long" are the 4th to 7th letter.
    "accented": 0.78,
    "far accented": 1.01,
    "accented long": 0.45,
    "accented longer, little": 0.45,
    "endless": 0.4,
    "combining": 1.54,
    # A word or a beginning in capitals, each further capital, each one inside of a word.
    "CAPITALS": 0.54,
    "CAPITAL": 0.24,
    "CapitalsInside": 0.79,
    # Each character of a hash, a key, base64.
    "jumble": 0.58,
    "JUMBLE": 0.73,
    "number": 0.99,
    "blanks": 0.99,
    # A run of signs, how many more kinds of them it has, and each 16 of them; a sign that leads a word.
    "signs": 1.08,
    "other sign": 0.05,
    "sign": 0.47,
    "far sign": 0.93,
    "lead": 0.98,
    "light lead": 0.15,
    "emoji": 2.5,
    "face": 1.76,
    # Each letter of other scripts, and each run of them; "long" are the letters behind the fourth.
    "arabic": 0.2,
    "arabic run": 0.69,
    "vowel sign": 1.14,
    "armenian": 0.31,
    "cyrillic run": 1.2,
    "cyrillic long": 0.34,
    "cyrillic run, Russian": -0.2,
    "cyrillic long, Russian": -0.16,
    "cyrillic Capital": 0.5,
    "run without a blank": 0.8,
    "devanagari": 0.36,
    "georgian": 0.31,
    "greek": 0.32,
    "greek run": 0.39,
    "han": 0.72,
    "han run": 0.18,
    "traditional": 1.43,
    "kanji": 0.73,
    "kanji run": 0.64,
    "hiragana": 0.58,
    "katakana": 0.64,
    "hangul": 0.66,
    "hangul run": 0.11,
    "hebrew": 0.33,
    "hebrew run": 0.49,
    "indic": 0.3,
    "indic run": 0.53,
    "khmer": 0.61,
    "thai": 0.41,
    "rare": 1.88,
}
"""Tokens for one of each kind (none: free), fitted to o200k_base over sixty languages and formats.

What stands behind a comma is the language, or how well the vocabulary knows it: it counts by its share of the text.
"""

_SCRIPTS = (
    (0x0000, "latin"),
    (0x0250, "rare"),
    (0x0300, "latin"),
    (0x0370, "greek"),
    (0x0400, "cyrillic"),
    (0x0530, "armenian"),
    (0x0590, "vowel sign"),
    (0x05D0, "hebrew"),
    (0x0600, "arabic"),
    (0x064B, "vowel sign"),
    (0x0660, "arabic"),
    (0x06D6, "vowel sign"),
    (0x06EE, "arabic"),
    (0x0700, "rare"),
    (0x0900, "devanagari"),
    (0x0980, "indic"),
    (0x0D80, "khmer"),
    (0x0E00, "thai"),
    (0x0E80, "rare"),
    (0x1000, "khmer"),
    (0x10A0, "georgian"),
    (0x1100, "rare"),
    (0x1780, "khmer"),
    (0x1800, "rare"),
    (0x1E00, "latin"),
    (0x1F00, "greek"),
    (0x2000, "sign"),
    (0x2C00, "rare"),
    (0x3000, "sign"),
    (0x3040, "hiragana"),
    (0x30A0, "katakana"),
    (0x3100, "han"),
    (0xA000, "rare"),
    (0xAC00, "hangul"),
    (0xD7B0, "rare"),
    (0xF900, "han"),
    (0xFB00, "arabic"),
    (0xFE00, "joiner"),
    (0xFE10, "sign"),
    (0xFE70, "arabic"),
    (0xFF00, "sign"),
    (0xFF66, "katakana"),
    (0xFFE0, "sign"),
    (0x10000, "rare"),
    (0x1F000, "emoji"),
    (0x1F600, "face"),
    (0x1F650, "emoji"),
    (0x1FB00, "rare"),
)
"""The first code point of each stretch of Unicode, and as what its characters count."""

_STARTS = [start for start, _ in _SCRIPTS]

_KNOWN = {
    "best": "the of and to in is that for it with as be are by this or you not an if from can will was have has at "
    "which",
    "well": "que el en los las por con para del un les et des du est pour dans do em não uma os au ce sur pas vous y "
    "más",
    "half": "der die das und den von zu mit ist ein eine für dem auf nicht oder wird werden van het een dat op te zijn "
    "voor niet ve bir bu için veya ile olarak di che il per non sono della delle gli nel è",
    "little": "w na i z się nie jest lub je v se že pro s az és egy hogy vagy nem yang dan untuk dengan ini ja on că "
    "și în kwa ya wa ir kad tai och att det som av är för på inte eller og til ikke",
}
"""Words that tell a language of Latin letters, by how well the vocabulary knows its long words."""

_LANGUAGE = {word: known for known, words in _KNOWN.items() for word in words.split()}

_TRADITIONAL = frozenset(
    "這個們來時說國會對為與於從後過還沒裡學開關點樣電話請數據應該無進選擇檔設網資訊權將種當實發動則處機體長見間問題義"
)
_RUSSIAN = frozenset("абвгдежзийклмнопрстуфхцчшщъыьэюяё")


def _amounts(text: str) -> Mapping[str, float]:
    """Return how much *text* has of each kind that has a price."""
    amounts: defaultdict[str, float] = defaultdict(float)
    for piece, count in Counter(_pattern().findall(text)).items():
        for kind, amount in _kinds(piece):
            amounts[kind] += count * amount
    _see_language(amounts)
    return amounts


def _see_language(amounts: defaultdict[str, float]) -> None:
    """Add what the language of the whole text makes dearer or cheaper."""
    words = amounts["word"] + amounts["accented"] + amounts["far accented"]
    told = {known: amounts.pop(f"told {known}", 0.0) for known in _KNOWN}
    shares = {known: said / (2 + sum(told.values())) for known, said in told.items()}
    shares["far"] = min(1.0, 3 * amounts["far accented"] / words) if words else 0.0
    runs = amounts["cyrillic run"]
    shares["Russian"] = max(0.0, 1 - 6 * amounts["not Russian"] / runs) if runs else 0.0
    for kind in _TOKENS:
        base, _, language = kind.partition(", ")
        if language:
            amounts[kind] = amounts[base] * shares[language]
    if amounts["hiragana"] + amounts["katakana"] > amounts["han"] / 10:
        amounts["kanji"], amounts["kanji run"] = amounts.pop("han", 0.0), amounts.pop("han run", 0.0)
        amounts.pop("traditional", 0.0)


@cache
def _pattern() -> re.Pattern[str]:
    others: defaultdict[str, str] = defaultdict(str)
    for (start, script), end in zip(_SCRIPTS, [*_STARTS[1:], 0x110000], strict=True):
        others[script] += f"{chr(start)}-{chr(end - 1)}"
    small = "a-zªºß-öø-ÿ\u0100-\u024f\u0300-\u036f\u1e00-\u1eff"
    runs = "|".join(f" ?[{ranges}]+" for script, ranges in others.items() if script not in _NOT_LETTERS)
    return re.compile(
        r"(?=(?:[A-Za-z]{0,12}+[0-9]{1,12}+){2,3}+[A-Za-z])[A-Za-z0-9]{16,}"  # a hash, a key, base64
        r"|[0-9]{1,3}"
        rf"|(?:[^\w\r\n]|_)?(?:[A-ZÀ-ÖØ-Þ]*[{small}]+|[A-ZÀ-ÖØ-Þ]+)(?:'(?:s|t|re|ve|m|ll|d)\b)?"
        rf"|{runs}"
        r"| ?(?:[^\s\w]|_)+[\r\n/]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+|.",
        re.DOTALL,
    )


_SPACED = frozenset({"cyrillic", "devanagari", "greek", "hebrew"})
_NOT_LETTERS = frozenset({"latin", "sign", "joiner", "emoji", "face"})


def _script(char: str) -> str:
    return _SCRIPTS[bisect_right(_STARTS, ord(char)) - 1][1]


def _kinds(piece: str) -> Iterator[tuple[str, float]]:
    """Yield what *piece* counts as, and how much of it."""
    bare = piece.strip()
    if not bare:
        yield "blanks", 1 + len(piece) // 16 * 0.125
        return
    last = bare[-1]
    if last in "0123456789" or (_script(last) == "latin" and (last.isalpha() or "\u0300" <= last <= "\u036f")):
        yield from _jumble(piece) if len(piece) >= 16 and not piece.isalpha() and piece.isalnum() else _word(piece)
    elif _script(last) in _NOT_LETTERS:
        yield from _signs(bare)
    else:
        yield from _run(bare, _script(last))
        if piece[0] != " " and _script(last) in _SPACED:
            yield "run without a blank", 1


def _jumble(piece: str) -> Iterator[tuple[str, float]]:
    yield ("jumble" if piece.islower() else "JUMBLE"), len(piece)


def _word(piece: str) -> Iterator[tuple[str, float]]:
    if piece[-1].isdigit():
        yield "number", 1
        return
    if not piece[0].isalpha():
        lead, piece = piece[0], piece[1:]
        if lead != " ":
            yield ("light lead" if lead in "._(-/\\" or len(piece) == 1 else "lead"), 1
    if piece in _LANGUAGE or (piece := piece[:1].lower() + piece[1:]) in _LANGUAGE:
        yield f"told {_LANGUAGE[piece]}", 1
    size = len(piece)
    if not piece.isascii():
        yield ("far accented" if max(piece) > "\xff" else "accented"), 1
        yield "accented long", min(max(size - 3, 0), 4)
        yield "accented longer", max(size - 7, 0)
        yield "endless", max(size - 24, 0)
        yield "combining", sum("\u0300" <= char <= "\u036f" for char in piece)
    elif size > 1 and piece[1:].isupper():
        yield "CAPITALS", 1
        yield "CAPITAL", size - 1
    else:
        yield "word", 1
        yield "long", min(max(size - 4, 0), 4)
        yield "longer", max(size - 8, 0)
        if not piece[1:].islower() and size > 1:
            yield "CapitalsInside", sum(map(str.isupper, piece[1:]))


def _run(bare: str, script: str) -> Iterator[tuple[str, float]]:
    yield script, len(bare)
    yield f"{script} run", 1
    if script == "han":
        yield "traditional", sum(char in _TRADITIONAL for char in bare)
    if script == "cyrillic":
        yield "not Russian", not _RUSSIAN.issuperset(bare.lower())
        yield "cyrillic long", max(len(bare) - 4, 0)
        yield "cyrillic Capital", bare[0].isupper()


def _signs(bare: str) -> Iterator[tuple[str, float]]:
    if bare.isascii() or (len(bare) > 4 and len(set(bare)) == 1 and _script(bare[0]) == "sign"):
        yield "signs", 1
        yield "other sign", len(set(bare)) - 1
        yield "sign", len(bare) // 16
        return
    for char, count in Counter(bare).items():
        script = _script(char)
        yield "sign" if char.isascii() else script if script in ("emoji", "face", "joiner") else "far sign", count


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
