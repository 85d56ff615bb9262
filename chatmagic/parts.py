"""What a kernel needs of the loaded extension, and of the other end of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from chatmagic.events import Client

__all__ = ["Configured", "Provider"]


class Provider(Client, Protocol):
    """The other end of the wire, as far as the verbs need it."""

    listed: dict[str, list[str]]
    """The models of an endpoint, as it listed them last."""

    def models(self, name: str) -> list[str]:
        """Return the models of an endpoint."""

    def look_up(self, model: str) -> None:
        """Learn in the background what the server of a model says about it."""

    def close(self) -> None:
        """Close all connections."""


class Configured(Protocol):
    """The loaded extension, as far as a turn depends on it."""

    shell: Any

    @property
    def model(self) -> str:
        """The model where nobody names one."""

    @property
    def endpoints(self) -> Mapping[str, Mapping[str, str]]:
        """The user's own servers."""

    @property
    def timeout(self) -> float:
        """Seconds that a server may be silent."""

    @property
    def images(self) -> str:
        """What becomes of pictures in a reply: ``link`` or ``show``."""

    @property
    def mime(self) -> list[str]:
        """As what replies are shown beside plain text."""

    @property
    def rerun(self) -> str:
        """What a cell that runs again does with its earlier turns: ``replace`` them, or ``append`` another one."""

    @property
    def context(self) -> str:
        """What of a history is sent where nobody says otherwise."""

    @property
    def budget(self) -> int:
        """Tokens that a request may have."""

    @property
    def recall(self) -> int:
        """How many turns that are not sent come back with a prompt that they fit."""

    @property
    def summary_model(self) -> str:
        """Who writes summaries, if not the model itself."""

    @property
    def facts(self) -> list[str]:
        """What every session is told."""

    @property
    def models(self) -> Mapping[str, Mapping[str, float]]:
        """What the user says about windows and prices."""

    @property
    def max_cost(self) -> float | None:
        """USD that all requests of the kernel may cost together."""

    @property
    def vocabulary(self) -> str:
        """How exactly tokens are counted: ``fetch``, ``disk`` or ``off``."""

    @property
    def journal(self) -> str:
        """Where every turn is written down: a path, the URL of a database, or nothing."""

    @property
    def tries(self) -> int:
        """How often a request is sent at the most."""

    @property
    def longest_wait(self) -> float:
        """Seconds between two tries that a server may ask for."""
