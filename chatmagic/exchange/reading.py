"""A file -> the conversations in it, by what it holds and not by what it is called."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from chatmagic import files
from chatmagic.errors import RecordError
from chatmagic.exchange import chatgpt, llmlogs, markdown, messages, notebook, own
from chatmagic.exchange.conversation import Conversation, text_of
from chatmagic.exchange.stream import LARGEST, elements, loaded
from chatmagic.plain import one_line

__all__ = ["conversations"]

KNOWN = (
    "Known are files of %chat export, JSON and JSONL with messages, the conversations.json of ChatGPT or its zip file, "
    "and the logs.db of llm"
)
_BLANK = b" \t\r\n"


def conversations(path: Path) -> Iterator[Conversation]:
    """Yield the conversations in the file at *path*, one at a time; nothing else of the file is kept.

    Raises:
        RecordError: it cannot be read, or not any further.
    """
    with _named(path), files.opened(path) as file:
        begin = file.read(16)
        file.seek(-len(begin), 1)
        if begin.startswith(b"SQLite format 3\0"):
            yield from llmlogs.conversations(path)
        elif begin.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield from _zipped(file)
        elif begin.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in begin:
            raise RecordError("it is not in UTF-8. Save it as UTF-8 first")
        else:
            yield from _text(file, path.stem)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except RecordError as exc:
        name = repr(one_line(path.name, 80))
        raise RecordError(str(exc) if repr(str(path))[1:-1] in str(exc) else f"{name}: {exc}") from None


def _zipped(file: BinaryIO) -> Iterator[Conversation]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted(
                (each for each in archive.infolist() if chatgpt.FILES.fullmatch(each.filename)),
                key=lambda each: each.filename,
            )
            if not members:
                raise RecordError("there is no conversations.json in the zip file")
            for member in members:
                with archive.open(member) as stream:
                    yield from _listed(stream.read, "chat")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise RecordError(f"the zip file cannot be read: {exc or type(exc).__name__}") from None


def _text(file: BinaryIO, title: str) -> Iterator[Conversation]:
    begin = file.tell()
    head = file.read(4096).lstrip(_BLANK)[:1]
    file.seek(begin)
    if not head:
        raise RecordError("there is nothing in it")
    if head not in (b"{", b"["):
        yield from markdown.conversations(_decoded(_whole(file)))
    elif _has_lines(file, begin):
        yield from _lines(file, title)
    elif head == b"[":
        yield from _listed(file.read, title)
    else:
        yield from _document(loaded(_whole(file)), title)


def _whole(file: BinaryIO) -> bytes:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise RecordError(f"it is longer than {LARGEST >> 20} MB, and only lists and lines can be")
    return data


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise RecordError("it is not in UTF-8. Save it as UTF-8 first") from None


def _has_lines(file: BinaryIO, begin: int) -> bool:
    """Say whether each line is a document, judged by where the first one ends; return to the beginning."""
    last = follows = b""
    while not follows and (chunk := file.read(1 << 20)):
        before, newline, behind = (last + chunk).lstrip(_BLANK).partition(b"\n")
        last = before.rstrip(_BLANK)[-1:] or last
        if newline:
            follows = (behind or file.read(4096)).lstrip(_BLANK)[:1]
            break
    file.seek(begin)
    return (last, follows) in ((b"}", b"{"), (b"]", b"["))


def _lines(file: BinaryIO, title: str) -> Iterator[Conversation]:
    number = 0
    while line := file.readline(LARGEST + 1):
        number += 1
        if len(line) > LARGEST:
            raise RecordError(f"line {number:,} is longer than {LARGEST >> 20} MB")
        if line.strip():
            yield from _guarded(_parsed(line), title, f"line {number:,}")


def _listed(read: Callable[[int], bytes], title: str) -> Iterator[Conversation]:
    said: list[Any] = []
    number = 0
    for number, element in enumerate(elements(read), 1):
        if (number == 1 or said) and isinstance(element, dict) and "role" in element:
            said.append(element)
        else:
            yield from _guarded(element, title, f"conversation {number:,}")
        del element  # before the next one is read
    if said:
        yield messages.conversation(said, title)
    elif not number:
        raise RecordError(f"there is no conversation in its list. {KNOWN}")


def _guarded(found: object, title: str, what: str) -> Iterator[Conversation]:
    """Yield what is *found*; if it cannot be read, yield that, because what comes behind it can be."""
    try:
        if isinstance(found, RecordError):
            raise found
        yield from list(_document(found, title))
    except RecordError as exc:
        yield Conversation(f"({what})", problem=str(exc))


def _parsed(line: bytes) -> Any:
    try:
        return loaded(line)
    except RecordError as exc:
        return exc


def _document(found: object, title: str) -> Iterator[Conversation]:
    if isinstance(found, list):
        yield messages.conversation(found, title)
    elif not isinstance(found, dict):
        raise RecordError(f"{one_line(repr(found)[:200], 40)} is no conversation. {KNOWN}")
    elif "chatmagic" in found:
        yield from own.conversations(found)
    elif "cells" in found and "nbformat" in found:
        yield from notebook.conversations(found)
    elif "mapping" in found:
        yield chatgpt.conversation(found)
    elif isinstance(found.get("messages"), list):
        yield messages.conversation(found["messages"], text_of(found.get("title")) or title)
    else:
        raise RecordError(f"it holds no conversation that is known. {KNOWN}")
