"""The name of a context policy -> what it says."""

from __future__ import annotations

import re

from chatmagic.errors import SettingError
from chatmagic.plain import one_line

__all__ = ["POLICIES", "read_policy"]

POLICIES = ("budget", "budget:", "last:", "all")
"""How the names of our own policies begin."""


def read_policy(text: str) -> tuple[str, int | None]:
    """Return the policy that *text* names, and its number; what is none of ours must be somebody's function.

    Raises:
        SettingError: there can be no such policy.
    """
    match = re.fullmatch(r"(all|budget|last(?=:)|[^\W\d]\w*)(?::(\d{1,9}))?", text)
    name, count = (match[1], int(match[2]) if match[2] else None) if match else ("", None)
    if not name or (count is not None and name not in ("last", "budget")) or (name == "budget" and count == 0):
        raise SettingError(
            f"context cannot be {one_line(text, 60)!r}: all, last:4 (turns), budget, budget:50000 (tokens), "
            "or the name of a function that takes the messages and returns those to send"
        )
    return name, count
