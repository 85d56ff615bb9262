"""Sessions to a file, in the form that its ending names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from chatmagic import files
from chatmagic.conversation.session import Session
from chatmagic.errors import RecordError
from chatmagic.exchange import markdown, notebook, own, webpage

__all__ = ["ENDINGS", "save", "text_of"]

ENDINGS = (".md", ".json", ".ipynb", ".html")

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def save(
    sessions: Sequence[Session],
    path: Path,
    footer: webpage.Footer,
    *,
    several: bool = False,
    force: bool = False,
    secrets: Iterable[str] = (),
) -> None:
    """Write *sessions* to *path*: one, or *several* that may share trees; none of *secrets* gets there.

    Raises:
        RecordError: the ending of *path* names no form, there is a file already and *force* is false, or it cannot be
            written; nothing has changed.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise RecordError(f"{path.name!r} must end with one of {', '.join(ENDINGS)}, which says what is written")
    files.write(path, text_of(own.without(sessions, secrets), ending, footer, several=several), force=force)


def text_of(sessions: Sequence[Session], ending: str, footer: webpage.Footer, *, several: bool = False) -> str:
    """Return *sessions* in the form that *ending* names; a half of a character is U+FFFD, but in JSON."""
    match ending:
        case ".json":
            return own.written(own.document(sessions, several=several))
        case ".md":
            text = markdown.written(sessions)
        case ".ipynb":
            text = notebook.written(sessions)
        case _:
            text = webpage.written(sessions, footer)
    return _SURROGATE.sub("\ufffd", text)
