"""Files, with care: what is written is there as a whole or not at all, and what is read is a plain file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from chatmagic.errors import RecordError

__all__ = ["alone", "check_writable", "named", "opened", "stamp", "write"]


def named(text: str) -> Path:
    """Return what somebody calls *text*, which may begin with ``~``."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nobody
        return Path(text)


def write(path: Path, text: str, *, force: bool = False) -> None:
    """Write *text* to *path* in UTF-8, as a whole or not at all; *force* lets it take the place of a file.

    Raises:
        RecordError: there is a file already, or it cannot be written; nothing has changed.
    """
    try:
        path = Path(os.path.realpath(path))
        mode = _mode(path, force)
        temporary = path.with_name(f".{path.name[:60]}.{os.urandom(6).hex()}.tmp")
        try:
            _fill(temporary, text.encode(), mode)
            _place(temporary, path, force)
        finally:
            with suppress(OSError):
                temporary.unlink()
        _settle(path.parent)
    except OSError as exc:
        raise RecordError(f"{str(path)!r} cannot be written: {exc.strerror or exc}") from None
    except ValueError as exc:  # a zero in its name
        raise RecordError(f"{str(path)!r} cannot be written: {exc}") from None


def _mode(path: Path, force: bool) -> int | None:
    """Return the mode that the file has already; None: there is none."""
    try:
        known = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(known.st_mode):
        raise RecordError(f"{str(path)!r} is no file; the name of one is needed")
    if not force:
        raise _there_is_one(path)
    return stat.S_IMODE(known.st_mode)


def _there_is_one(path: Path) -> RecordError:
    return RecordError(f"there is a file {str(path)!r} already. Take another name, or --force to write over it")


def _fill(path: Path, data: bytes, mode: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with open(descriptor, "wb") as file:
        if mode is not None:
            with suppress(OSError):
                path.chmod(mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _place(temporary: Path, path: Path, force: bool) -> None:
    if not force:
        try:
            os.link(temporary, path)  # unlike a replacement, it fails when somebody was quicker
        except FileExistsError:
            raise _there_is_one(path) from None
        except OSError:  # not every file system has links
            if path.exists():
                raise _there_is_one(path) from None
        else:
            return
    os.replace(temporary, path)


def _settle(folder: Path) -> None:
    """Let the name of a new file be on the disk, too, where a folder can be asked for that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(path: Path) -> None:
    """Find out whether `write` can put a file there, or in place of one.

    Raises:
        RecordError: it cannot.
    """
    try:
        path = Path(os.path.realpath(path))
        _mode(path, force=True)
        if not path.parent.is_dir():
            raise RecordError(f"{str(path)!r} cannot be written: there is no folder {str(path.parent)!r}")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise RecordError(f"{str(path)!r} cannot be written: its folder is read-only")
    except OSError as exc:
        raise RecordError(f"{str(path)!r} cannot be written: {exc.strerror or exc}") from None
    except ValueError as exc:
        raise RecordError(f"{str(path)!r} cannot be written: {exc}") from None


def stamp(path: Path) -> object:
    """Return what changes when the file does; None: there is none."""
    try:
        known = path.stat()
    except (OSError, ValueError):
        return None
    return known.st_ino, known.st_size, known.st_mtime_ns


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let no other process write to *path* meanwhile, as far as it asks here first.

    Where folders cannot be locked (Windows), who writes last wins; the file is whole all the same.

    Raises:
        RecordError: there is no such folder.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        descriptor = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY)
    except OSError as exc:
        raise RecordError(f"{str(path)!r} cannot be written: {exc.strerror or exc}") from None
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open the file at *path* to be read, from behind a byte order mark.

    Raises:
        RecordError: it cannot be read, or is no file, but a folder or something that may never end.
    """
    try:
        with open(_descriptor(path), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RecordError(f"{str(path)!r} is no file")
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            yield file
    except OSError as exc:
        raise RecordError(f"{str(path)!r} cannot be read: {exc.strerror or exc}") from None


def _descriptor(path: Path) -> int:
    # A pipe without a writer would be waited for.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags)
    except ValueError as exc:
        raise RecordError(f"{str(path)!r} cannot be read: {exc}") from None
