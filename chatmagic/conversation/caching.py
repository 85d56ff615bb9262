"""Why a provider has not read from its cache what it had read before."""

from __future__ import annotations

from chatmagic.conversation.messages import Turn

__all__ = ["KEPT_FROM", "broken_by"]

KEPT_FROM = 1_024
"""Tokens from which on providers keep a prefix (https://platform.openai.com/docs/guides/prompt-caching)."""

_KEPT_FOR = 300.0  # seconds for which a prefix is surely kept


def broken_by(turn: Turn) -> str:
    """Say why most of what was sent before *turn* was billed anew, or nothing if it was not, or nobody knows."""
    before, cached = turn.parent, turn.usage.cached_tokens
    if before is None or (before.size or 0) < KEPT_FROM or cached is None:
        return ""
    return "" if cached * 2 >= (before.size or 0) else ", ".join(_changes(before, turn)) or "for no known reason"


def _changes(before: Turn, turn: Turn) -> list[str]:
    old, new = before.sent, turn.sent
    idle = turn.started - before.started - before.seconds
    changes = {
        "another model": (before.endpoint, before.model) != (turn.endpoint, turn.model),
        "system prompt changed": old and new and old.system != new.system,
        "facts changed": old and new and old.facts != new.facts,
        "history cut": old and new and old.start != new.start,
        "summary changed": old and new and old.start == new.start and turn.new_summary is not None,
        "pins changed": old and new and old.start == new.start and old.pinned != new.pinned,
        "chosen by a function": old is None or new is None,
        f"idle for {idle / 60:.0f} min": idle > _KEPT_FOR,
    }
    return [change for change, happened in changes.items() if happened]
