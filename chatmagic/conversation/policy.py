"""The name of a context policy -> what it says."""

from __future__ import annotations

import re

from chatmagic.errors import SettingError
from chatmagic.plain import one_line

__all__ = ["KNOWN", "OURS", "POLICIES", "is_budget", "read_policy", "summarizes"]

POLICIES = ("budget", "budget:", "summary", "summary:", "last:", "all")
"""How the names of our own policies begin."""

OURS = ("budget", "summary", "last", "all")

_BUDGETS = ("budget", "summary")

KNOWN = (
    "it is all, last:4 (turns), budget, budget:50000 (tokens), summary, summary:50000, or the name of a function that "
    "takes the messages and returns those to send"
)


def is_budget(policy: str) -> bool:
    """True for the policies that cut the history where it passes a budget."""
    return policy.partition(":")[0] in _BUDGETS


def summarizes(policy: str) -> bool:
    """True for the policy that sends a summary in place of what it cuts."""
    return policy.partition(":")[0] == "summary"


def read_policy(text: str) -> tuple[str, int | None]:
    """Return the policy that *text* names, and its number; what is none of ours must be somebody's function.

    Raises:
        SettingError: there can be no such policy.
    """
    name, colon, number = text.partition(":")
    if not re.fullmatch(r"[^\W\d]\w*", name):
        raise SettingError(f"context cannot be {one_line(text, 60)!r}: {KNOWN}")
    if (name in _BUDGETS and colon) or name == "last":
        if not re.fullmatch("[0-9]{1,9}", number) or (name in _BUDGETS and int(number) == 0):
            example = "last:4 (turns)" if name == "last" else f"{name}:50000 (tokens)"
            raise SettingError(f"context cannot be {one_line(text, 60)!r}: {name} takes a whole number, say {example}")
        return name, int(number)
    if colon:
        raise SettingError(f"context cannot be {one_line(text, 60)!r}: {KNOWN}")
    return name, None
