"""The vocabulary of tiktoken: from disk, or fetched in the background."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from chatmagic.conversation.tokens import Count

if TYPE_CHECKING:
    import httpx2

__all__ = ["Vocabulary", "folder", "load", "o200k", "prepare"]

_LARGEST = 20_000_000  # bytes; o200k_base has 3.6 million
_CONNECT = 10.0  # seconds, also for each silence of the server
_TOTAL = 60.0  # seconds
_PIECE = 16_000  # characters


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What tiktoken says about one: where it is, how its file is verified, the pattern that cuts text into words."""

    name: str
    url: str
    sha256: str
    pattern: str

    @property
    def file(self) -> str:
        """The name under which tiktoken keeps it."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()


def o200k() -> Vocabulary | None:
    """Return what the installed tiktoken says about o200k_base, None if it does not say it as it used to.

    Nothing is read and nothing is fetched: its definition runs with a loader that only looks at what it is asked for,
    and with no other function, not even an import, within reach.
    """
    asked: list[tuple[str, str]] = []

    def look(url: str, expected_hash: str) -> dict[bytes, int]:
        asked.append((url, expected_hash))
        return {}

    try:
        from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # published without types

        known = {name: value for name, value in vars(openai_public).items() if isinstance(value, str | int)}
        within: dict[str, Any] = {**known, "load_tiktoken_bpe": look, "__builtins__": {}}
        said = FunctionType(openai_public.o200k_base.__code__, within)()
        [(url, sha256)] = asked
        return Vocabulary(str(said["name"]), str(url), str(sha256), str(said["pat_str"]))
    except Exception:
        # Whatever another release of tiktoken does here, it means one thing: it has to be estimated.
        return None


def folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return where tiktoken keeps vocabularies; None: nowhere (the variable is set, and empty)."""
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if name in environ:
            return Path(environ[name]) if environ[name] else None
    return Path(tempfile.gettempdir(), "data-gym-cache")


def load(vocabulary: Vocabulary, environ: Mapping[str, str] = os.environ) -> Count | None:
    """Return what counts by *vocabulary*, None if its file is not on disk. A wrong file is neither used nor deleted.

    This takes some tenths of a second.
    """
    where = folder(environ)
    data = _read(where / vocabulary.file) if where else None
    return _counter(vocabulary, data) if data is not None and _is(vocabulary, data) else None


def prepare(
    ready: Callable[[Count], object],
    *,
    fetch: bool,
    vocabulary: Callable[[], Vocabulary | None] = o200k,
    environ: Mapping[str, str] = os.environ,
    total: float = _TOTAL,
) -> threading.Thread:
    """Call *ready*, in a thread of its own, with what counts by *vocabulary*; never, where that cannot be had.

    It comes from disk, or, if *fetch*, from its URL, within *total* seconds, and is kept where tiktoken looks for it.
    What fails is not tried again, and not reported: a text can always be estimated.
    """

    def work() -> None:
        count = None
        with suppress(Exception):
            count = _get(vocabulary(), environ, total if fetch else None)
        if count:
            ready(count)

    # A daemon: Python does not wait for it when it ends.
    thread = threading.Thread(target=work, name="chatmagic vocabulary", daemon=True)
    thread.start()
    return thread


def _get(vocabulary: Vocabulary | None, environ: Mapping[str, str], seconds: float | None) -> Count | None:
    if vocabulary is None:
        return None
    count = load(vocabulary, environ)
    if count or seconds is None:
        return count
    data = _fetch(vocabulary.url, time.monotonic() + seconds)
    if not _is(vocabulary, data):
        return None
    where = folder(environ)
    if where:
        with suppress(OSError):
            _store(data, where / vocabulary.file)
    return _counter(vocabulary, data)


def _is(vocabulary: Vocabulary, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == vocabulary.sha256


def _read(path: Path) -> bytes | None:
    try:
        # A folder that everybody may write to can hold anything, a pipe that never ends too.
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _store(data: bytes, path: Path) -> None:
    """Write *data*, at once as a whole or not at all; what is there already stays."""
    if os.path.lexists(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4()}.tmp")
    try:
        with part.open("xb") as file:
            file.write(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _counter(vocabulary: Vocabulary, data: bytes) -> Count:
    # Never tiktoken.get_encoding: it downloads without a timeout, and whoever else asks for one waits for it.
    import tiktoken

    lines = (line.split() for line in data.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    encoding = tiktoken.Encoding(vocabulary.name, pat_str=vocabulary.pattern, mergeable_ranks=ranks, special_tokens={})
    ranks.clear()  # it has its own copy; this one would keep another 30 MB
    return lambda text: sum(len(encoding.encode_ordinary(piece)) for piece in _pieces(text))


# Best where a single blank leads a word, which belongs to that word: there nothing is counted that would not be.
_PIECES = re.compile(
    rf".{{1,{_PIECE}}}\Z|.{{1,{_PIECE - 1}}}\S(?= \S)|.{{1,{_PIECE - 1}}}\S(?=\s)|.{{1,{_PIECE}}}", re.DOTALL
)


def _pieces(text: str) -> list[str]:
    # A million blanks in one piece raise an exception that is not even an Exception; an endless word takes for ever.
    return [text] if len(text) <= _PIECE else _PIECES.findall(text)


def _fetch(url: str, deadline: float) -> bytes:
    """Return what is at *url*.

    Raises:
        httpx2.HTTPError: it cannot be had, is too large, or takes too long.
    """
    import httpx2

    as_it_is = {"Accept-Encoding": "identity"}
    with (
        _hang_up(deadline) as trace,
        _client(url) as client,
        client.stream("GET", url, headers=as_it_is, extensions={"trace": trace}) as response,
    ):
        response.raise_for_status()
        data = bytearray()
        for chunk in response.iter_raw():
            data += chunk
            if len(data) > _LARGEST or time.monotonic() > deadline:
                raise httpx2.ReadError(f"{url} is too large or too slow")
        return bytes(data)


def _client(url: str, transport: httpx2.BaseTransport | None = None) -> httpx2.Client:
    import httpx2

    def stay(request: httpx2.Request) -> None:
        if request.url.scheme not in ("https", httpx2.URL(url).scheme):
            raise httpx2.UnsupportedProtocol(f"{url} leads away from https")

    return httpx2.Client(
        timeout=_CONNECT, follow_redirects=True, max_redirects=3, event_hooks={"request": [stay]}, transport=transport
    )


@contextmanager
def _hang_up(deadline: float) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Give what watches a request, and end its connections when the time is up.

    A timeout is one for each read: a server that sends a byte now and then would hold us as long as it likes.
    """
    sockets: list[socket.socket] = []

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError("the time is up")
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            sockets.append(info["return_value"].get_extra_info("socket"))

    def end() -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    finally:
        timer.cancel()
