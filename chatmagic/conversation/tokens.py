"""How long is it: counting, calibrated by what servers report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import add, mul

from chatmagic.conversation.messages import Message, Turn

__all__ = ["Count", "Gauge", "Reader"]

Count = Callable[[str], int]
"""A text -> how many tokens it has in somebody's vocabulary, or about."""

Reader = tuple[str, str]
"""Who reads a request: endpoint and model, by name."""

_MEMO = 100_000  # texts

_Length = tuple[float, ...]
"""What of a text may become tokens: the tokens that we count, and where vocabularies differ most (`_length`)."""

# Tokens for: a request, a message, each token that we count, a digit, a further blank, a line, a byte beyond ASCII.
_START = (3.0, 4.0, 1.0, 0.0, 0.0, 0.0, 0.0)
# How far from that a reader may be; a digit is a third of a token for some, and one for others.
_DOUBT = (15.0, 2.0, 0.2, 0.4, 0.2, 0.3, 0.2)
_DRIFT = 1e-5  # a conversation may go on to texts of another kind
_SPREAD = 0.05  # texts of one kind differ that much

_DIGITS = str.maketrans("", "", "0123456789")
_BLANKS = re.compile(r"(?<=[ \t])[ \t]+")


class Gauge:
    """Says how many tokens a request will have for its reader, and learns from every report.

    *count* may be of any vocabulary: how the reader's tokens go with it is learnt for each reader by itself. `use`
    changes it when a better one is there.
    """

    def __init__(self, count: Count) -> None:
        self.windows: dict[Reader, int] = {}
        """How many tokens a reader can take, where it has shown that it is less than one would think."""
        self.most_read: dict[Reader, int] = {}
        """The longest request that a reader has reported."""
        self.use(count)

    def use(self, count: Count) -> None:
        """Count by *count* from now on, and learn anew how the tokens of each reader go with it."""
        self._length: Callable[[str], _Length] = lru_cache(_MEMO)(lambda text: _length(count, text))
        self._scales: dict[Reader, _Scale] = {}

    def knows(self, reader: Reader) -> bool:
        """True if *reader* has ever reported what something was for it."""
        return reader in self._scales

    def request(self, reader: Reader, messages: Iterable[Message]) -> float:
        """Return about how many tokens a request with *messages* has."""
        return self._tokens(reader, [message.content for message in messages], 1)

    def message(self, reader: Reader, message: Message) -> float:
        """Return about how many tokens *message* adds to a request."""
        return self._tokens(reader, [message.content])

    def turns(self, reader: Reader, turns: Iterable[Turn]) -> list[float]:
        """Return about how many tokens each of *turns* adds to a request."""
        length, scale = self._length, self._scale(reader)
        return [scale.tokens(0, 2, tuple(map(add, length(turn.prompt), length(turn.reply)))) for turn in turns]

    def prompt(self, reader: Reader, text: str) -> float:
        """Return about how many tokens *text* adds, as the newest prompt, to what was said before."""
        return self._tokens(reader, [text, ""])

    def text(self, reader: Reader, text: str) -> float:
        """Return about how many tokens *text* has by itself."""
        return self._scale(reader).tokens(0, 0, self._length(text))

    def learn_request(self, reader: Reader, messages: Iterable[Message], tokens: float) -> None:
        """Take it in that a request with *messages* has so many *tokens*."""
        self.learn(reader, [message.content for message in messages], tokens, requests=1, messages=1)

    def learn_prompt(self, reader: Reader, text: str, tokens: float) -> None:
        """Take it in that *text*, as the newest prompt, has added *tokens* to what was said before."""
        self.learn(reader, [text, ""], tokens, messages=1)

    def learn(
        self, reader: Reader, texts: Iterable[str], tokens: float, *, requests: int = 0, messages: int = 0
    ) -> None:
        """Take it in that *texts* have so many *tokens*: each in so many *messages*, all in so many *requests*."""
        lengths = [self._length(text) for text in texts]
        scale = self._scales.setdefault(reader, _Scale())
        scale.learn(requests, messages * len(lengths), _sum(lengths), tokens)

    def _tokens(self, reader: Reader, texts: Iterable[str], requests: int = 0) -> float:
        lengths = [self._length(text) for text in texts]
        return self._scale(reader).tokens(requests, len(lengths), _sum(lengths))

    def _scale(self, reader: Reader) -> _Scale:
        return self._scales.get(reader) or _Scale()


def _length(count: Count, text: str) -> _Length:
    digits = len(text) - len(text.translate(_DIGITS))
    blanks = sum(map(len, _BLANKS.findall(text)))
    return count(text), digits, blanks, text.count("\n"), len(text.encode("utf-8", "replace")) - len(text)


def _sum(lengths: Iterable[_Length]) -> _Length:
    return tuple(map(sum, zip(*lengths, strict=True))) or (0.0,) * 5


class _Scale:
    """What a reader's tokens are made of: seven constants, in the order of `_START`.

    A Kalman filter for constants, https://en.wikipedia.org/wiki/Kalman_filter: it starts with what most readers do, and
    believes each report as much as it can tell about each of them.
    """

    def __init__(self) -> None:
        self._known = list(_START)
        self._doubt = [[sd * sd * (row == n) for n, sd in enumerate(_DOUBT)] for row in range(len(_DOUBT))]

    def tokens(self, requests: int, messages: int, length: _Length) -> float:
        return max(1.0, _dot(self._known, (requests, messages, *length)))

    def learn(self, requests: int, messages: int, length: _Length, tokens: float) -> None:
        seen = (requests, messages, *length)
        self._doubt[2][2] += _DRIFT
        cross = [_dot(row, seen) for row in self._doubt]
        spread = _dot(seen, cross) + 2.0 + (_SPREAD * length[0]) ** 2
        missed = tokens - _dot(self._known, seen)
        self._known = [known + c / spread * missed for known, c in zip(self._known, cross, strict=True)]
        self._doubt = [
            [doubt - a * b / spread for doubt, b in zip(row, cross, strict=True)]
            for row, a in zip(self._doubt, cross, strict=True)
        ]


def _dot(a: Iterable[float], b: Iterable[float]) -> float:
    return float(sum(map(mul, a, b)))
