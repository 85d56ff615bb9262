"""What passes between the two ends of a turn: the request, the events that answer it, and who makes and shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.tokens import Reader

__all__ = [
    "Busy",
    "Client",
    "Delta",
    "Event",
    "Facts",
    "Finished",
    "Place",
    "Queued",
    "Reasoning",
    "Remark",
    "Renderer",
    "Request",
    "Sending",
    "Used",
    "Waiting",
]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: ``model`` is ``[ENDPOINT:]MODEL``, ``parameters`` go into the request as they are.

    Requests with the same ``cache_key`` begin alike: a provider that keeps prefixes finds them faster by it.
    """

    model: str
    messages: Sequence[Message]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = True
    cache_key: str = ""


Place = Literal["within", "here", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model before it is asked: who it is, its context *window* (tokens), and its price.

    The window may be known by the user's *own* word, which wins over what anybody else says or shows.
    *cost* says how many USD a request costs at today's price; None is unknown. *where* it is asked: within this
    process, on this machine, or elsewhere. *instant* answers are there at once.
    """

    reader: Reader
    window: int | None = None
    own: bool = False
    cost: Callable[[Usage], float | None] = lambda _: None
    where: Place = "elsewhere"
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Queued:
    """*session* answers another prompt first: it answers one at a time."""

    session: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Something else is asked first: *what* is done so. An *instant* answer is there at once."""

    what: str
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Sending:
    """The request goes out now. An *instant* reply is there at once, and is painted once, however slow the machine."""

    endpoint: str
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the reply; never half a character."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The next piece of what a model thinks before it replies; not a part of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class Used:
    """What the request used, in the server's count."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Finished:
    """The server says that the reply has ended, and why: ``stop``, ``length``, ``content_filter`` …"""

    reason: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that was decided on the way and that the user must see."""

    text: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The request will be sent again in *seconds*, because of *reason*."""

    reason: str
    seconds: int


Event = Queued | Busy | Sending | Delta | Reasoning | Used | Finished | Remark | Waiting


class Client(Protocol):
    """The other end of the wire."""

    def facts(self, model: str, parameters: Mapping[str, Any]) -> Facts:
        """Return what is known of ``[ENDPOINT:]MODEL``; nothing is sent that anybody waits for.

        Raises:
            EndpointError: there is no such endpoint.
        """

    def stream(self, request: Request) -> Iterator[Event]:
        """Yield what the server says; closing the iterator ends the request.

        Raises:
            ChatMagicError: in the user's words, with no key in it; `RequestError` knows whether a retry may help.
        """

    def embed(self, model: str, texts: Sequence[str]) -> tuple[Sequence[Sequence[float]], int | None]:
        """Return a vector for each of *texts*, and how many tokens they had together; None is unknown.

        Raises:
            ChatMagicError: in the user's words, with no key in it.
        """


class Renderer(Protocol):
    """What a person sees of one turn."""

    def start(self, session: str, model: str) -> None:
        """The request is about to be sent."""

    def show(self, event: Event) -> None:
        """Something came."""

    def finish(self, session: str, turn: Turn, notices: Sequence[str]) -> None:
        """The turn is over, with what the user must know about it."""

    def fail(self, notices: Sequence[str]) -> None:
        """There is no turn: nothing came that could be kept."""
