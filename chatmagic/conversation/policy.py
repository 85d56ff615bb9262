"""The name of a context policy -> what it says."""

from __future__ import annotations

import re

from chatmagic.errors import SettingError
from chatmagic.plain import one_line

__all__ = ["KNOWN", "OURS", "POLICIES", "is_budget", "read_policy"]

POLICIES = ("budget", "budget:", "last:", "all")
"""How the names of our own policies begin."""

OURS = ("budget", "last", "all")

KNOWN = (
    "it is all, last:4 (turns), budget, budget:50000 (tokens), or the name of a function that takes the messages and "
    "returns those to send"
)


def is_budget(policy: str) -> bool:
    """True for the policy that cuts the history where it passes a budget."""
    return policy == "budget" or policy.startswith("budget:")


def read_policy(text: str) -> tuple[str, int | None]:
    """Return the policy that *text* names, and its number; what is none of ours must be somebody's function.

    Raises:
        SettingError: there can be no such policy.
    """
    name, colon, number = text.partition(":")
    if not re.fullmatch(r"[^\W\d]\w*", name):
        raise SettingError(f"context cannot be {one_line(text, 60)!r}: {KNOWN}")
    if name in ("budget", "last") and (colon or name == "last"):
        if not re.fullmatch("[0-9]{1,9}", number) or (name == "budget" and int(number) == 0):
            example = "last:4 (turns)" if name == "last" else "budget:50000 (tokens)"
            raise SettingError(f"context cannot be {one_line(text, 60)!r}: {name} takes a whole number, say {example}")
        return name, int(number)
    if colon:
        raise SettingError(f"context cannot be {one_line(text, 60)!r}: {KNOWN}")
    return name, None
