"""Conversations on disk: every turn when it ends, a growing reply while it grows, and all of them back."""

from __future__ import annotations

import os
import re
from pathlib import Path

from chatmagic.errors import RecordError

__all__ = ["plainly_wrong", "without_password"]


def without_password(place: str) -> str:
    """Return *place* if there is no password in it: `%config` prints what it holds.

    Raises:
        RecordError: there is one.
    """
    if re.match(r"[\w+]+://[^/@:]*:[^@]*@", place) or re.search(r"://.*[?&]\w*pass\w*=", place):
        raise RecordError(
            "no password in the URL of the journal, because %config prints it: it belongs into the variable "
            "PGPASSWORD, or into ~/.pgpass"
        )
    return place


def plainly_wrong(place: str) -> str:
    """Say what keeps the file *place* from being a journal, as far as a look shows; nothing where it can."""
    if "://" in place:
        return ""
    path = Path(place).expanduser()
    try:
        if path.is_dir():
            return f"the journal cannot be at {place!r}: it is a folder; chat goes on in memory"
        if not path.exists():
            parent = next(each for each in path.parents if each.exists())
            usable = parent.is_dir() and os.access(parent, os.W_OK)
            return "" if usable else f"the journal cannot be made in {str(parent)!r}; chat goes on in memory"
        with path.open("rb") as file:
            begin = file.read(16)
        if begin and not begin.startswith(b"SQLite format 3\0"):
            return f"the journal cannot be at {place!r}: the file holds something else; chat goes on in memory"
    except OSError as exc:
        return f"the journal at {place!r} cannot be used ({exc.strerror}); chat goes on in memory"
    return ""
