"""Messages of any roles, each behind another one -> a session: a tree of turns, and the line to one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from chatmagic.conversation.messages import Status, Turn, Usage
from chatmagic.conversation.session import Session, State, Tree
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.errors import RecordError

__all__ = ["Node", "count_of", "grown", "stood"]

NOTHING_KNOWN = Usage()
PLACE = "imported"  # a session has a name from the beginning; whoever takes it in gives it another one


@dataclass(frozen=True, slots=True)
class Node:
    """One message, behind that with the key *parent*; a *role* that is none of ours only stands between others."""

    key: str
    parent: str | None
    role: str
    text: str = ""
    reasoning: str = ""
    model: str = ""
    started: float = 0.0
    seconds: float = 0.0
    usage: Usage = NOTHING_KNOWN
    status: Status = "complete"
    finish: str | None = "stop"


@dataclass(frozen=True, slots=True)
class _Link:
    """A message and those before it; many branches may share them."""

    node: Node
    before: _Link | None

    def __iter__(self) -> Iterator[Node]:
        link: _Link | None = self
        while link is not None:
            yield link.node
            link = link.before


@dataclass(slots=True, eq=False)
class _Open:
    """What was said behind turn *last*, not yet a turn."""

    last: Turn | None = None
    prompts: _Link | None = None
    replies: _Link | None = None
    system: str = ""
    turn: Turn | None = None


@dataclass
class _Grower:
    """Makes turns, each only once, behind their parents."""

    system: str  # what the session itself has set
    work: int  # so many messages may be joined: branches that share them must not make millions of them
    turns: list[Turn] = field(default_factory=list)
    unanswered: set[str] = field(default_factory=set)

    def after(self, said: _Open, node: Node) -> _Open:
        """Return what *said* is with *node* behind it."""
        match node.role:
            case "user" if said.replies is not None:
                return _Open(self.turn(said), _Link(node, None), None, said.system)
            case "user":
                return _Open(said.last, _Link(node, said.prompts), None, said.system)
            case "assistant":
                return _Open(said.last, said.prompts, _Link(node, said.replies), said.system)
            case "system" if node.text and said.replies is not None:
                return _Open(self.turn(said), None, None, node.text)
            case "system" if node.text:
                return _Open(said.last, said.prompts, None, node.text)
            case _:
                return said

    def turn(self, said: _Open) -> Turn | None:
        """Return what *said* is as a turn; where there is no reply, the turn before it."""
        if said.turn is None and said.replies is not None:
            said.turn = self._turn(said, self._oldest_first(said.prompts), self._oldest_first(said.replies))
        elif said.turn is None and said.prompts is not None:
            self.unanswered.add(said.prompts.node.key)
        return said.turn or said.last

    def _oldest_first(self, link: _Link | None) -> list[Node]:
        nodes = []
        for node in link or ():
            nodes.append(node)
            self.work -= 1
            if self.work < 0:
                raise RecordError("its branches share too many messages")
        return nodes[::-1]

    def _turn(self, said: _Open, prompts: list[Node], replies: list[Node]) -> Turn | None:
        reply = _joined(node.text for node in replies)
        if not reply:
            self.unanswered.update(node.key for node in prompts[-1:])
            return said.last
        newest = replies[-1]
        turn = Turn(
            prompt=_joined(node.text for node in prompts),
            reply=reply,
            reasoning=_joined(node.reasoning for node in replies),
            parent=said.last,
            number=len(self.turns) + 1,
            model=next((node.model for node in reversed(replies) if node.model), ""),
            settings=Settings({"system": said.system}) if said.system and said.system != self.system else NOTHING,
            usage=newest.usage,
            status=newest.status,
            finish=newest.finish,
            started=next((node.started for node in [*prompts, *replies] if node.started), 0.0),
            seconds=newest.seconds,
        )
        self.turns.append(turn)
        return turn


def grown(nodes: Iterable[Node], head: str | None = None) -> tuple[Session, int]:
    """Return a session of *nodes* that stands where *head* is, and how many prompts without a reply were left out.

    Prompts that follow each other are joined, and so are replies. What is behind no beginning (in a circle) is left
    out. Without a *head* the session stands on what came last.

    Raises:
        RecordError: the branches of *nodes* share so much that they would need too much memory.
    """
    by_key = {node.key: node for node in nodes}
    children: defaultdict[str | None, list[Node]] = defaultdict(list)
    for node in by_key.values():
        children[node.parent if node.parent in by_key and node.parent != node.key else None].append(node)
    systems = [node for node in by_key.values() if node.role == "system" and node.text]
    own = systems[0].text if systems and systems[0] in children[None] else ""
    grower = _Grower(own, 1000 + 20 * len(by_key))
    ends = _walk(children, grower, head)
    stands = grower.turn(ends[head]) if head in ends else (grower.turns[-1] if grower.turns else None)
    return stood(grower.turns, stands, Settings({"system": own}) if own else NOTHING), len(grower.unanswered)


def _walk(children: dict[str | None, list[Node]], grower: _Grower, head: str | None) -> dict[str | None, _Open]:
    """Make the turns of all paths; return what was said up to *head*."""
    ends: dict[str | None, _Open] = {}
    beginning = _Open()
    stack = [(node, beginning) for node in reversed(children[None])]
    while stack:
        node, before = stack.pop()
        said = grower.after(before, node)
        if node.key == head:
            ends[head] = said
        if not (behind := children.get(node.key)):
            grower.turn(said)
        stack += [(child, said) for child in reversed(behind or ())]
    return ends


def stood(turns: list[Turn], head: Turn | None, own: Settings = NOTHING, **state: object) -> Session:
    """Return a session with these *turns*, numbered from 1, that stands on *head* and has set *own*."""
    session = Session(PLACE)
    change: Callable[..., State] = replace
    session.restore(Tree.of(turns), change(State(own=own).at(head), **state), [], 0)
    return session


def count_of(number: int, thing: str) -> str:
    """Return ``1 turn``, ``2 turns``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)
