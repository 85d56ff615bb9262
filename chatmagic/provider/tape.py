"""Record and replay: exchanges with servers in a file, found again by what was asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from chatmagic import files
from chatmagic.errors import RecordError, SettingError, TapeError
from chatmagic.provider import secrets
from chatmagic.provider.answers import MODELS, Answer, Question, question
from chatmagic.provider.misses import difference
from chatmagic.provider.tapetext import Entry, damaged, parted, read, with_one_more, written
from chatmagic.provider.tapetree import Index, history, identity

__all__ = ["Exchange", "Mode", "Tape", "mode_of"]

Mode = Literal["record", "replay", "auto"]

_MODES: tuple[Mode, ...] = ("record", "replay", "auto")

_NEVER = object()
_LARGEST = 256 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """A *question* and its *answer*. It *took* so many seconds to the first byte, and from there to the last."""

    label: str
    question: Question
    answer: Answer
    took: tuple[float, float] = (0.0, 0.0)


class Tape:
    """The exchanges in a file. *mode* says where answers come from: servers (and are kept), the tape, or both.

    With *pace* they come as slowly as they did. What *keys* returns, and what looks like a key, is never kept. It may
    be used by several threads, and the file by several kernels.

    Raises:
        TapeError: there is no file to replay, it is damaged, or cannot be written.
    """

    def __init__(
        self, path: Path, mode: Mode, *, pace: bool = False, keys: Callable[[], Collection[str]] = tuple
    ) -> None:
        self.path = path
        self.mode = mode
        self.pace = pace
        self.trouble = ""
        """Why the last exchange could not be kept, if it could not."""
        self._keys = keys
        self._lock = threading.RLock()
        self._entries: list[Entry] = []
        self._index = Index((), self.name)
        self._text = ""
        self._read: object = _NEVER
        self._used: Counter[str] = Counter()
        self._own: set[str] = set()
        if mode != "replay":
            self._check_writable()
        self._refresh()
        self._before = {entry.label for entry in self._entries}

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.path.name

    @property
    def exchanges(self) -> list[Exchange]:
        """All exchanges."""
        with self._lock:
            self._refresh()
            return [self._exchange(entry) for entry in self._entries]

    @property
    def unused(self) -> list[Exchange]:
        """The exchanges that nobody has asked for since it began to run; lists of models are asked for in passing."""
        return [each for each in self.exchanges if not self._used[each.label] and each.question.path != MODELS]

    def used(self, label: str) -> int:
        """Return how often an exchange was played or recorded."""
        return self._used[label]

    def hiding(self, shown: Iterable[str] = ()) -> Callable[[str], str]:
        """Return what takes keys out of a text: those that are known, and those *shown* by a request."""
        return partial(_without, keys=(*self._keys(), *shown))

    def plays(self, path: str, body: Mapping[str, Any]) -> bool:
        """Return whether a request with *body* is answered by the tape, and not by a server.

        Raises:
            TapeError: it would have to be, and has no answer.
        """
        if self.mode == "record":
            return False
        asked = question(path, body, self.hiding())
        with self._lock:
            self._refresh()
            if self._index.found(asked):
                return True
            if self.mode == "auto":
                return False
            raise self._miss(asked)

    def play(self, asked: Question) -> Exchange:
        """Return the exchange that answers; where several do, each has its turn.

        Raises:
            TapeError: there is none.
        """
        with self._lock:
            self._refresh()
            found = self._index.found(asked)
            if not found:
                raise self._miss(asked)
            entry = min(found, key=lambda each: self._used[each.label])
            self._used[entry.label] += 1
            return self._exchange(entry)

    def keep(self, asked: Question, answer: Answer, took: tuple[float, float]) -> None:
        """Write an exchange down: in place of an earlier recording of the same, or behind the others."""
        with self._lock:
            self.trouble = ""
            try:
                with files.alone(self.path):
                    self._refresh()
                    self._write(self._place(asked, answer, took))
            except (RecordError, TapeError) as exc:
                self._read = _NEVER
                self.trouble = str(exc)

    def prune(self) -> int:
        """Delete the unused exchanges from the file; return how many these were.

        Raises:
            TapeError: it cannot be written.
        """
        with self._lock:
            try:
                with files.alone(self.path):
                    self._refresh()
                    gone = len(self._entries)
                    unused = self.unused
                    self._keep_only([each for each in self.exchanges if each not in unused])
                    self._write(written(self._entries))
            except RecordError as exc:
                self._read = _NEVER  # they are there still
                raise TapeError(str(exc)) from None
            return gone - len(self._entries)

    def _keep_only(self, exchanges: Sequence[Exchange]) -> None:
        self._entries, self._index = [], Index((), self.name)
        for each in exchanges:
            self._entries.append(self._index.entry(each.label, each.question, each.answer, each.took))
            self._index.take(self._entries[-1])

    def _exchange(self, entry: Entry) -> Exchange:
        return Exchange(entry.label, self._index.asked(entry), entry.answer, entry.took)

    def _place(self, asked: Question, answer: Answer, took: tuple[float, float]) -> str:
        """Take an exchange in; return the text of the tape with it."""
        old = next((each for each in self._index.found(asked) if each.label in self._before - self._own), None)
        if old is not None and self.mode == "record":
            # The same answer should be no difference in git.
            entry = replace(old, answer=answer, took=old.took if answer == old.answer else took)
            self._entries = list(self._with(entry, old))
            self._index = Index(self._entries, self.name)
            text = written(self._entries)
        else:
            entry = self._index.entry(self._label(asked), asked, answer, took)
            self._index.take(entry)
            self._entries.append(entry)
            text = with_one_more(self._text, entry)
        self._own.add(entry.label)
        self._used[entry.label] += 1
        return text

    def _with(self, new: Entry, old: Entry) -> Iterator[Entry]:
        """Yield all entries, with *new* in place of *old*: what goes on from its answer goes on from the new one."""
        begin = len(parted(self._index.asked(old).items)[1])
        before, after = len(list(history(old))), len(list(history(new)))
        behind = {old.label}
        for each in self._entries:
            if each is old:
                yield new
            elif each.after not in behind or (each.count is not None and each.count <= begin):
                yield each
            elif each.count is None or each.count >= begin + before:
                behind.add(each.label)
                yield replace(each, count=None if each.count is None else each.count - before + after)
            else:  # from the middle of the old answer, of which nothing is left
                system, items = parted(self._index.asked(each).items)
                yield replace(each, system=system, items=items, after="", count=None, bare=False)

    def _label(self, asked: Question) -> str:
        label = sha256(identity(asked).encode()).hexdigest()[:8]
        taken = {entry.label for entry in self._entries}
        numbers = (f"{label}-{number}" for number in range(2, len(taken) + 3))
        return label if label not in taken else next(each for each in numbers if each not in taken)

    def _write(self, text: str) -> None:
        files.write(self.path, text, force=True)
        self._text, self._read = text, files.stamp(self.path)

    def _refresh(self) -> None:
        """Read the file if it is not what it was: people edit it, and other kernels record."""
        stamp = files.stamp(self.path)
        if stamp is None and self.mode == "replay":
            way = "%chat record FILE makes one, or CHATMAGIC_TAPE_MODE=record"
            raise TapeError(f"there is no tape {str(self.path)!r}. {way}")
        if stamp == self._read:
            return
        text = written(()) if stamp is None else self._in_file()
        text = text if text.strip() else written(())  # somebody has made room for one
        entries = read(text, self.name)
        self._index = Index(entries, self.name)
        self._text, self._entries, self._read = text, entries, stamp

    def _in_file(self) -> str:
        try:
            with files.opened(self.path) as file:
                data = file.read(_LARGEST + 1)
        except RecordError as exc:
            raise TapeError(str(exc)) from None
        if len(data) > _LARGEST:
            raise TapeError(f"the tape {self.name!r} is longer than {_LARGEST >> 20} MB")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as exc:
            line = data[: exc.start].count(b"\n") + 1
            raise damaged(self.name, line, "this is not UTF-8") from None

    def _check_writable(self) -> None:
        """Find out before anything is paid for."""
        try:
            files.check_writable(self.path)
        except RecordError as exc:
            raise TapeError(str(exc)) from None

    def _miss(self, asked: Question) -> TapeError:
        alike = [entry for entry in self._entries if entry.path == asked.path]
        known = [(each.label, partial(self._index.asked, each), list(history(each))) for each in alike]
        return TapeError(
            f"the tape {self.name!r} has no answer to this, and nothing was sent. {difference(asked, known)} "
            "To record it: %chat replay FILE --auto, or CHATMAGIC_TAPE_MODE=auto"
        )


def mode_of(environ: Mapping[str, str]) -> Mode:
    """Return what ``CHATMAGIC_TAPE_MODE`` says; if it is not set, ``replay``.

    Raises:
        SettingError: there is no such mode.
    """
    named = environ.get("CHATMAGIC_TAPE_MODE", "").strip() or "replay"
    for mode in _MODES:
        if mode == named:
            return mode
    raise SettingError(f"CHATMAGIC_TAPE_MODE is {named!r}; it can be {', '.join(_MODES)}")


@lru_cache(maxsize=4096)
def _without(text: str, keys: tuple[str, ...]) -> str:
    return secrets.without(text, keys)
