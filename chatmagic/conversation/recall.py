"""Which turns fit a prompt best, by the words that they share."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from itertools import pairwise
from unicodedata import category, normalize

from chatmagic.conversation.messages import Turn
from chatmagic.errors import SettingError

__all__ = ["Words"]

_MOST = 300  # different words of a prompt that are looked for
# These are written without blanks: every two of them that stand together count as a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]+"
)
_IDEOGRAPHS = "\u3400"  # from here on one of them may be a word, too


class Words:
    """Finds turns by Okapi BM25, as SQLite's full-text index computes it: https://www.sqlite.org/fts5.html.

    A turn is read once, when it is among those that are searched for the first time. Threads may share it.
    """

    def __init__(self) -> None:
        import sqlite3

        self._lock = threading.Lock()
        self._index = sqlite3.connect(":memory:", check_same_thread=False)
        self._read: set[int] = set()
        try:
            tokenizer = "porter unicode61 remove_diacritics 2"
            self._index.execute(f"CREATE VIRTUAL TABLE turns USING fts5(text, content='', tokenize='{tokenizer}')")
        except sqlite3.OperationalError as exc:
            raise SettingError(
                f"recall does not work here, because Python's SQLite cannot search texts ({exc}). "
                "recall_model=MODEL finds turns by embeddings"
            ) from None

    def __call__(self, prompt: str, turns: Sequence[Turn]) -> list[Turn]:
        """Return those of *turns* (stored ones) that share words with *prompt*, the best one first."""
        by_number = {turn.number or 0: turn for turn in turns}
        words = list(dict.fromkeys(re.findall(r"\w+", _spaced(prompt))))[:_MOST]
        if not words:
            return []
        with self._lock:
            new = [(n, _spaced(f"{turn.prompt}\n{turn.reply}")) for n, turn in by_number.items() if n not in self._read]
            self._index.executemany("INSERT INTO turns(rowid, text) VALUES (?, ?)", new)
            self._read.update(n for n, _ in new)
            query = " OR ".join(f'"{word}"' for word in words)
            found = self._index.execute("SELECT rowid FROM turns WHERE turns MATCH ? ORDER BY rank, rowid", (query,))
            return [by_number[number] for (number,) in found if number in by_number]


def _spaced(text: str) -> str:
    """Return *text* with blanks between its words, spelled in one of the ways in which it could be."""
    text = text.encode("utf-8", "replace").decode().replace("\0", " ")
    if text.isascii():
        return text
    text = normalize("NFKC", text).casefold()
    # Vowel points are left out as often as not; what joins or hyphenates is not seen.
    text = "".join(each for each in text if category(each) not in ("Mn", "Mc", "Me", "Cf"))
    return _UNSPACED.sub(lambda run: f" {' '.join(_words_in(run[0]))} ", text)


def _words_in(run: str) -> list[str]:
    return [*(each for each in run if each >= _IDEOGRAPHS or len(run) == 1), *map("".join, pairwise(run))]
