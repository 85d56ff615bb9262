"""What a conversation asks for (model, system prompt, request parameters), in layers that lie over each other."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chatmagic.conversation.policy import read_policy
from chatmagic.errors import SettingError
from chatmagic.plain import one_line

__all__ = ["FILLED_IN", "NOTHING", "OURS", "TEXTS", "Settings", "checked"]

FILLED_IN = ("messages", "stream", "stream_options", "n")
"""What a request holds, and nobody may set."""

OURS = ("model", "system", "context", "recall", "recall_model", "summary_model", "learn", "max_cost")
"""The settings that have a meaning of ours, and are no parameters of a request."""

TEXTS = ("model", "system", "context", "recall_model", "summary_model")
"""Those of them whose values are text, whatever that looks like."""

_RESERVED = ("tools",)


@dataclass(frozen=True, slots=True)
class Settings:
    """One layer: *values* by key, and the keys that it *unset*s although a layer below has them.

    The keys ``model``, ``system``, ``context``, ``recall``, ``recall_model``, ``summary_model``, ``learn`` and
    ``max_cost`` have our meaning, any other key is a parameter of the request. Values are JSON.
    """

    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
    unset: frozenset[str] = frozenset()

    def over(self, below: Settings) -> Settings:
        """Lay this layer over *below*: its keys win, those that it unsets are gone."""
        if not self:
            return below
        kept = {key: value for key, value in below.values.items() if key not in self.unset}
        return Settings({**kept, **self.values}, self.unset | (below.unset - self.values.keys()))

    def beyond(self, below: Settings) -> Settings:
        """Return the layer that, laid over *below*, says what this one does."""
        values = {k: v for k, v in self.values.items() if k not in below.values or below.values[k] != v}
        return Settings(values, frozenset(below.values.keys() - self.values.keys()) | (self.unset - below.unset))

    def without(self, keys: Iterable[str]) -> Settings:
        """Forget what this layer says about *keys*."""
        gone = set(keys)
        return Settings({k: v for k, v in self.values.items() if k not in gone}, self.unset - gone)

    def __bool__(self) -> bool:
        return bool(self.values or self.unset)

    @property
    def keys(self) -> frozenset[str]:
        """Every key that this layer says something about."""
        return self.unset | self.values.keys()

    @property
    def model(self) -> str | None:
        """The model as ``[ENDPOINT:]MODEL``."""
        return self.values.get("model")

    @property
    def system(self) -> str | None:
        """The system prompt."""
        return self.values.get("system")

    @property
    def context(self) -> str | None:
        """The name of the context policy."""
        return self.values.get("context")

    @property
    def recall(self) -> int:
        """How many of the turns that are not sent come back with a prompt that they fit."""
        return self.values.get("recall") or 0

    @property
    def recall_model(self) -> str | None:
        """The model whose embeddings find them; without one they are found by their words."""
        return self.values.get("recall_model")

    @property
    def summary_model(self) -> str | None:
        """Who writes summaries, if not the model itself."""
        return self.values.get("summary_model")

    @property
    def learn(self) -> bool:
        """Whether a summary comes with facts that are worth keeping."""
        return bool(self.values.get("learn"))

    @property
    def max_cost(self) -> float | None:
        """How much (USD) all requests of the session may cost together."""
        return self.values.get("max_cost")

    @property
    def parameters(self) -> dict[str, Any]:
        """What goes into the request beside model and messages."""
        return {key: value for key, value in self.values.items() if key not in OURS}


NOTHING = Settings()


def checked(values: Mapping[str, Any]) -> Settings:
    """Turn ``{key: value}`` into a layer; an empty text unsets its key.

    Raises:
        SettingError: a key that chatmagic itself fills, a value that is no JSON, one of our keys with a value that
            it cannot have.
    """
    for key, value in values.items():
        if key in FILLED_IN:
            raise SettingError(f"{key!r} cannot be set: chatmagic fills it in itself")
        if key not in OURS and (slip := _slip(key)):
            raise SettingError(f"no setting {key!r}. {slip}")
        if key in _RESERVED:
            raise SettingError(
                f"{key!r} cannot be set: the word is kept for chatmagic and this version has no use for it"
            )
        if key in TEXTS and not isinstance(value, str):
            raise SettingError(f"{key} must be text, not {value!r}")
        if key == "context" and value:
            read_policy(value)
        if key == "recall" and value != "" and not (type(value) is int and 0 <= value <= 100):
            raise SettingError(f"recall must be a number of turns from 0 to 100, not {one_line(repr(value), 60)}")
        if key == "learn" and value not in ("", True, False):
            raise SettingError(f"learn must be true or false, not {one_line(repr(value), 60)}")
        if key == "max_cost" and value != "" and not _is_amount(value):
            raise SettingError(f"max_cost must be an amount of USD from 0 up, not {one_line(repr(value), 60)}")
    return Settings(
        {key: _copied(key, value) for key, value in values.items() if value != ""},
        frozenset(key for key, value in values.items() if value == ""),
    )


def _slip(key: str) -> str:
    """Say what *key* must mean, if it is so near to a word of ours that nobody can want it sent to a server."""
    if key in ("budget", "max_budget", "token_budget"):
        return "Did you mean context=budget:50000 (tokens)?"
    near = [each for each in OURS[2:] if difflib.SequenceMatcher(None, key, each).ratio() > 0.86]
    return f"Did you mean {near[0]}?" if near else ""


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _copied(key: str, value: object) -> object:
    """Return *value* as the request will hold it, whatever becomes of the original."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise SettingError(f"{key!r} cannot be set to {one_line(repr(value), 60)}: a request holds JSON only") from None
