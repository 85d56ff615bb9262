"""The vocabulary of tiktoken, from disk and over the wire."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.tokens import Count
from chatmagic.provider import vocabulary as room
from chatmagic.provider.vocabulary import Vocabulary, folder, load, o200k, prepare

TOKENS = [*(bytes([n]) for n in range(256)), b"he", b"ll", b"hell", b"hello", b" w", b"or", b" wor", b"ld", b" world"]
FILE = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(TOKENS))


def tiny(url: str = "http://127.0.0.1:1/tiny.tiktoken", data: bytes = FILE) -> Vocabulary:
    """A vocabulary of the bytes and a few words."""
    return Vocabulary("tiny", url, hashlib.sha256(data).hexdigest(), r" ?\w+|\s+| ?[^\s\w]+")


Write = Callable[[bytes], object]
Answer = Callable[[str, Write], object]


class Web:
    """A server whose answers are written byte by byte by *answer*; keeps the paths that were asked for."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                with suppress(OSError):  # the other end has hung up
                    answer(self.path, self.wfile.write)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/tiny.tiktoken"


@contextmanager
def serving(answer: Answer) -> Iterator[Web]:
    """Serve while the block runs."""
    web = Web(answer)
    threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield web
    finally:
        web.server.shutdown()
        web.server.socket.close()


def ok(body: bytes = FILE, length: int | None = None) -> Answer:
    """Answer *body*."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) if length is None else length)
    return lambda _, write: write(head + body)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment with a folder for vocabularies, which is not there yet."""
    return {"TIKTOKEN_CACHE_DIR": str(tmp_path / "new" / "cache")}


def prepared(
    vocabulary: Vocabulary | None, environ: dict[str, str], *, fetch: bool = True, total: float = 20
) -> Count | None:
    """Return what was ready in the end, with nothing said about what went wrong."""
    counts: list[Count] = []
    said: list[object] = []
    hook, threading.excepthook = threading.excepthook, said.append
    try:
        thread = prepare(counts.append, fetch=fetch, vocabulary=lambda: vocabulary, environ=environ, total=total)
        thread.join(30)
    finally:
        threading.excepthook = hook
    assert thread.daemon
    assert not thread.is_alive()
    assert not said
    assert len(counts) <= 1
    return counts[0] if counts else None


def files(environ: dict[str, str]) -> dict[str, bytes]:
    """What the folder holds."""
    where = Path(environ["TIKTOKEN_CACHE_DIR"])
    return {path.name: path.read_bytes() for path in where.iterdir()} if where.is_dir() else {}


def put(environ: dict[str, str], data: bytes, name: str) -> None:
    """Put a file into the folder."""
    where = Path(environ["TIKTOKEN_CACHE_DIR"])
    where.mkdir(parents=True)
    (where / name).write_bytes(data)


def test_tiktoken_says_where_its_vocabulary_is() -> None:
    """Address, hash and pattern are tiktoken's own, so a release that moves the file is followed."""
    said = o200k()

    assert said is not None
    assert said.name == "o200k_base"
    assert said.sha256 == "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    assert said.file == "fb374d419588a4632f3f557e76b4b70aebbca790"
    assert r"\p{N}{1,3}" in said.pattern


def _imports() -> dict[str, Any]:
    import urllib.request

    return {"name": urllib.request.__name__}


def _loads_twice() -> dict[str, Any]:
    load_tiktoken_bpe("https://a.example", expected_hash="0")  # type: ignore[name-defined]  # noqa: F821 - the loader's name there
    load_tiktoken_bpe("https://b.example", expected_hash="0")  # type: ignore[name-defined]  # noqa: F821
    return {"name": "two", "pat_str": "."}


def _loads_otherwise() -> dict[str, Any]:
    read_file("https://a.example")  # type: ignore[name-defined]  # noqa: F821 - it is within tiktoken's reach
    return {"name": "other", "pat_str": "."}


@pytest.mark.parametrize("definition", [_imports, _loads_twice, _loads_otherwise, None])
def test_another_tiktoken_is_not_understood(definition: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition that does something else runs nothing, and means that there is no vocabulary."""
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # published without types

    monkeypatch.setattr(openai_public, "read_file", lambda _: pytest.fail("it was read"), raising=False)
    monkeypatch.setattr(openai_public, "o200k_base", definition)

    assert o200k() is None


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        pytest.param({"TIKTOKEN_CACHE_DIR": "/a", "DATA_GYM_CACHE_DIR": "/b"}, Path("/a"), id="tiktoken's"),
        pytest.param({"DATA_GYM_CACHE_DIR": "/b"}, Path("/b"), id="the older one"),
        pytest.param({"TIKTOKEN_CACHE_DIR": "", "DATA_GYM_CACHE_DIR": "/b"}, None, id="nowhere"),
    ],
)
def test_folder(variables: dict[str, str], where: Path | None) -> None:
    """It is the folder where tiktoken looks."""
    assert folder(variables) == where


def test_folder_by_default() -> None:
    """Without a variable it is where tiktoken puts it."""
    found = folder({})

    assert found is not None
    assert found.name == "data-gym-cache"


def test_from_disk(environ: dict[str, str]) -> None:
    """A file on disk counts, and nothing is asked of anybody."""
    put(environ, FILE, tiny().file)
    count = load(tiny(), environ)

    assert count is not None
    assert count("hello world") == 2
    assert prepared(tiny(), environ) is not None


def test_nothing_on_disk(environ: dict[str, str]) -> None:
    """No file, no count; a folder in its place is none either."""
    assert load(tiny(), environ) is None
    (Path(environ["TIKTOKEN_CACHE_DIR"]) / tiny().file).mkdir(parents=True)

    assert load(tiny(), environ) is None
    assert load(tiny(), {"TIKTOKEN_CACHE_DIR": ""}) is None


def test_wrong_file_on_disk(environ: dict[str, str]) -> None:
    """A file that is not what it should be is not used, and stays, since it is not ours; the fetched one counts."""
    with serving(ok()) as web:
        wrong = tiny(web.url)
        put(environ, FILE + b"x", wrong.file)

        assert load(wrong, environ) is None
        assert prepared(wrong, environ, fetch=False) is None
        assert prepared(wrong, environ) is not None
    assert files(environ) == {wrong.file: FILE + b"x"}


def test_fetched_and_kept(environ: dict[str, str]) -> None:
    """What was fetched once is on disk for the next kernel, and for tiktoken, and nothing else is."""
    with serving(ok()) as web:
        count = prepared(tiny(web.url), environ)
        again = prepared(tiny(web.url), environ)

    assert count is not None
    assert again is not None
    assert count("hello world") == again("hello world") == 2
    assert web.asked == ["/tiny.tiktoken"]
    assert files(environ) == {tiny(web.url).file: FILE}


def test_not_fetched_unless_asked(environ: dict[str, str]) -> None:
    """Switched off, nothing is sent."""
    with serving(ok()) as web:
        assert prepared(tiny(web.url), environ, fetch=False) is None
    assert not web.asked


@pytest.mark.parametrize("where", ["", "/proc/nowhere", __file__])
def test_counted_without_a_place_to_keep_it(where: str) -> None:
    """It counts where nothing is to be kept or can be written, too."""
    with serving(ok()) as web:
        assert prepared(tiny(web.url), {"TIKTOKEN_CACHE_DIR": where}) is not None


def test_full_disk_leaves_no_part(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that could not be finished is taken away."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with serving(ok()) as web:
        assert prepared(tiny(web.url), environ) is not None
    assert files(environ) == {}


def _redirect(path: str, write: Write) -> None:
    if path == "/there":
        ok()(path, write)
    else:
        write(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_redirect_is_followed(environ: dict[str, str]) -> None:
    """A file that has moved is found."""
    with serving(_redirect) as web:
        assert prepared(tiny(web.url), environ) is not None


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ok(FILE + b"x"), id="another file"),
        pytest.param(ok(b"<html>Please log in</html>"), id="a page"),
        pytest.param(ok(b""), id="nothing"),
        pytest.param(ok(FILE[:100], length=len(FILE)), id="cut"),
        pytest.param(lambda _, write: write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), id="not found"),
        pytest.param(
            lambda _, write: write(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(FILE) + FILE),
            id="the file as an error",
        ),
        pytest.param(
            lambda _, write: write(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), id="a circle"
        ),
        pytest.param(
            lambda _, write: write(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
            id="away from the web",
        ),
        pytest.param(lambda _, write: write(b"\x00\x01\x02"), id="junk"),
        pytest.param(lambda *_: None, id="silence, and hangs up"),
    ],
)
def test_bad_answer(answer: Answer, environ: dict[str, str]) -> None:
    """Whatever else is answered is neither used nor kept, and nobody hears of it."""
    with serving(answer) as web:
        assert prepared(tiny(web.url), environ) is None
    assert files(environ) == {}


def test_away_from_https() -> None:
    """A file that was promised over https is not taken from an open line."""
    import httpx2

    away = httpx2.Response(302, headers={"Location": "http://127.0.0.1:1/"})

    def open_line(request: httpx2.Request) -> httpx2.Response:
        return away if request.url.scheme == "https" else pytest.fail("it was followed")

    with (
        pytest.raises(httpx2.UnsupportedProtocol),
        room._client("https://x.example/", httpx2.MockTransport(open_line)) as web,
    ):
        web.get("https://x.example/")


def test_too_much(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never stops sending is left at the limit."""
    sent = 0

    def endless(_: str, write: Write) -> None:
        nonlocal sent
        write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 100_000_000:
            write(bytes(100_000))
            sent += 100_000

    monkeypatch.setattr(room, "_LARGEST", 1_000_000)
    with serving(endless) as web:
        assert prepared(tiny(web.url), environ) is None
    assert sent < 50_000_000  # what the sockets hold is not read


def _silent(*_: object) -> None:
    time.sleep(20)


def _stalling(_: str, write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + FILE[:100])
    time.sleep(20)


def _dripping(_: str, write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        write(b"x")
        time.sleep(0.02)


def _dripping_headers(_: str, write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\n")
    while True:
        write(b"X: 1\r\n")
        time.sleep(0.02)


@pytest.mark.parametrize("answer", [_silent, _stalling, _dripping, _dripping_headers])
def test_slow_server(answer: Answer, environ: dict[str, str]) -> None:
    """No server holds the thread longer than the time it has in all."""
    started = time.monotonic()
    with serving(answer) as web:
        assert prepared(tiny(web.url), environ, total=0.5) is None
    assert time.monotonic() - started < 8
    assert files(environ) == {}


def test_nobody_there(environ: dict[str, str]) -> None:
    """Without a network nothing happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    assert prepared(tiny(f"http://127.0.0.1:{port}/"), environ) is None
    assert prepared(tiny("no address"), environ) is None
    assert prepared(None, environ) is None


def test_python_ends_without_it(environ: dict[str, str]) -> None:
    """A kernel that is shut down does not wait for a download, nor for what it would have said."""
    with serving(_silent) as web:
        code = (
            "from chatmagic.provider.vocabulary import *\n"
            f"prepare(print, fetch=True, vocabulary=lambda: {tiny(web.url)!r}, environ={environ!r})\n"
            "import time; time.sleep(1)"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert web.asked


def test_file_that_cannot_be_read(environ: dict[str, str]) -> None:
    """A vocabulary that is what its hash says, but none, is as good as none."""
    broken = tiny(data=b"not a vocabulary\n")
    put(environ, b"not a vocabulary\n", broken.file)

    assert prepared(broken, environ, fetch=False) is None
    assert prepared(replace(tiny(), pattern="("), environ, fetch=False) is None


@pytest.fixture(scope="module")
def count() -> Count:
    """Counts by the tiny vocabulary."""
    return room._counter(tiny(), FILE)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param("hello world", 2, id="words"),
        pytest.param("<|endoftext|>", 13, id="a special token is text"),
        pytest.param("\ud800", 3, id="half a character"),
        pytest.param(" " * 1_000_000, 1_000_000, id="blanks"),
        pytest.param("\n" * 1_000_000, 1_000_000, id="lines"),
        pytest.param("hello" * 200_000, 200_000, id="an endless word"),
        pytest.param("hello" + " world" * 100_000, 100_001, id="words without end"),
        pytest.param("hello\n" * 100_000, 200_000, id="lines without end"),
        pytest.param("\U0001f600" * 200_000, 800_000, id="emoji"),
    ],
)
def test_count(text: str, tokens: int, count: Count) -> None:
    """Every text is counted, however hostile, to the token."""
    assert count(text) == pytest.approx(tokens, abs=len(text) / 4_000)
    assert len(text) > 20_000 or count(text) == tokens


@given(st.text(st.characters(codec=None) | st.sampled_from(" \n.a"), max_size=200), st.integers(1, 40))
def test_pieces_hold_the_text(text: str, times: int) -> None:
    """A long text is cut without a gap, into pieces that tiktoken can stand, and a short one is not."""
    long = text * (1 + times * 17_000 // (len(text) + 1))
    pieces = room._pieces(long)

    assert "".join(pieces) == long
    assert all(len(piece) <= 16_000 for piece in pieces)
    assert len(long) > 16_000 or len(pieces) == 1


def test_cut_between_words() -> None:
    """A cut stands where words end, so that none is counted as two."""
    pieces = room._pieces("hello world, " * 5_000)

    assert all(piece.endswith(("hello", "world,", " ")) for piece in pieces)
    assert all(piece.startswith((" ", "hello")) for piece in pieces)


def test_import_is_cheap() -> None:
    """Neither tiktoken nor the transport is there before it is needed."""
    code = "import sys, chatmagic.provider.vocabulary; print({'tiktoken', 'httpx2'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
