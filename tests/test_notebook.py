"""Random notebooks, run through the real magics and through a plain model of what a notebook means."""

from __future__ import annotations

import copy
import io
import warnings
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from IPython.core.interactiveshell import InteractiveShell

from chatmagic import magics
from chatmagic.conversation.messages import Message
from chatmagic.engine import GO_ON
from chatmagic.errors import ChatMagicError, ChatMagicWarning, RequestError
from chatmagic.events import Delta, Event, Finished, Request, Sending
from chatmagic.kernel import DEFAULT_MODEL
from chatmagic.testing import FakeClient

Options = Mapping[str, Any]
"""Settings by key; an empty text unsets its key."""

NONE: Options = {}

Said = list[tuple[str, str]]
"""Messages: role and content."""

Standing = tuple[list[Any], Said, Options, frozenset[int]]
"""A session: its turns (number, prompt, reply, status), messages, settings in force, numbers of pinned turns."""

Sent = tuple[Said, str, Options]
"""A request: messages, model, parameters."""

End = Literal["stop", "refused", "stopped early", "stopped", "cut"]
"""How a reply ends: as it should; without a word (an error, the user's stop); in the middle (the stop, the stream)."""

STATUS = {"stop": "complete", "stopped": "interrupted", "cut": "cut"}


@dataclass(frozen=True)
class Ask:
    """A %%chat cell."""

    prompt: str
    session: str | None = None
    options: Options = field(default_factory=dict)
    at: int | None = None
    append: bool = False
    once: bool = False

    @property
    def code(self) -> str:
        switches = ["--append"] * self.append + ["--once"] * self.once
        return f"{_line('%%chat', self.session or '', *switches, options=self.options, at=self.at)}\n{self.prompt}"


@dataclass(frozen=True)
class Loop:
    """A cell with Python that asks several prompts in a session."""

    session: str
    prompts: Sequence[str]

    @property
    def code(self) -> str:
        return f"import chatmagic\nfor p in {list(self.prompts)}: chatmagic.session({self.session!r}).ask(p)"


@dataclass(frozen=True)
class Verb:
    """A cell with a line of %chat."""

    name: str
    words: tuple[Any, ...] = ()
    options: Options = field(default_factory=dict)
    at: int | None = None

    @property
    def code(self) -> str:
        if self.name == "set":
            return _line("%chat set", *[f"{key}={value}" for key, value in self.options.items()])
        return _line("%chat", self.name, *map(str, self.words), options=self.options, at=self.at)


@dataclass(frozen=True)
class Wrong:
    """A cell that cannot be done, ever."""

    code: str


Command = Ask | Loop | Verb | Wrong


def _line(*words: str, options: Options = NONE, at: int | None = None) -> str:
    flags = {"model": "-m ", "system": "-s "}
    asked = [f'{flags[key]}"{value}"' if key in flags else f"--set {key}={value}" for key, value in options.items()]
    return " ".join(filter(None, [*words, *asked, "" if at is None else f"--at {at}"]))


class Refused(Exception):  # noqa: N818 - no bug, but what the model says about a cell
    """The cell fails."""


class Value:
    """Something that never changes and is its own copy."""

    def __deepcopy__(self, memo: object) -> Value:
        return self


@dataclass(frozen=True)
class Running:
    """The cell that runs, as far as the front end names it, and this execution of it."""

    cell: str | None
    execution: str


@dataclass(frozen=True, eq=False)
class Entry(Value):
    """A prompt and its reply.

    ``before`` is what it went on from, ``settings`` what the cells up to here have asked for. ``makers`` names the
    cells that it belongs to, each with the execution by which it came to be.
    """

    number: int
    before: tuple[Entry, ...]
    prompt: str
    reply: str
    status: str
    settings: Options
    makers: Mapping[str, str]

    @property
    def messages(self) -> Said:
        return [("user", self.prompt), ("assistant", self.reply)]

    def made_earlier_by(self, running: Running) -> bool:
        return running.cell is not None and self.makers.get(running.cell, running.execution) != running.execution


@dataclass(frozen=True)
class Place(Value):
    """Where a session stands: its line, what the cells of the line have asked for, and its own settings.

    ``set_at`` says for each of the own settings how many turns there were when it was set.
    """

    line: tuple[Entry, ...] = ()
    asked: Options = field(default_factory=dict)
    own: Options = field(default_factory=dict)
    set_at: Mapping[str, int] = field(default_factory=dict)
    pinned: frozenset[int] = frozenset()

    def at(self, line: tuple[Entry, ...]) -> Place:
        """Return the place at the end of *line*: what was set since then wins over what its cells had asked for."""
        if not line:
            return replace(self, line=(), asked={})
        later = {key for key, count in self.set_at.items() if line[-1].number <= count}
        return replace(self, line=line, asked=_without(line[-1].settings, later))

    @property
    def in_force(self) -> Options:
        return {key: value for key, value in {**self.own, **self.asked}.items() if value != ""}


@dataclass(eq=False)
class Talk:
    """A session. ``tree`` holds every entry in the order of their numbers; forks share it."""

    name: str
    tree: list[Entry] = field(default_factory=list)
    place: Place = Place()

    def line_to(self, number: int) -> tuple[Entry, ...]:
        """Return the entries up to turn *number*; 0 is the beginning."""
        if number > len(self.tree):
            raise Refused(f"there is no turn {number}")
        return (*self.tree[number - 1].before, self.tree[number - 1]) if number else ()

    def meant(self, number: int, running: Running) -> tuple[Entry, ...]:
        """Return the line that ``--at`` stands for.

        In a cell that asks there again, it is the line to what has taken the place of turn *number*, if something has.
        """
        line = self.line_to(number)
        if not line or line[-1] in self.place.line or not any(entry.before == line for entry in self._of(running.cell)):
            return line
        heir = self.heir(line[-1]) or line[-1]
        return (*heir.before, heir)

    def heir(self, gone: Entry) -> Entry | None:
        """Return what has the place of *gone* on the line now: another entry of one of its cells."""
        heirs = (entry for cell in gone.makers for entry in self._of(cell) if entry in self.place.line)
        return next(heirs, None)

    def takes_a_pin(self, entry: Entry, instead: Entry | None) -> bool:
        """Say whether *entry* is pinned because a pinned one of its cells, or *instead*, is no longer on the line."""
        before = [other for cell in entry.makers for other in self._of(cell)] + ([instead] if instead else [])
        return any(other.number in self.place.pinned and other not in entry.before for other in before)

    def _of(self, cell: str | None) -> list[Entry]:
        return [entry for entry in self.tree if cell in entry.makers]

    def made_by(self, running: Running) -> Entry | None:
        """Return the first entry of the line that the cell made when it ran before."""
        return next((entry for entry in self.place.line if entry.made_earlier_by(running)), None)

    def begin(self, running: Running) -> Place:
        """Return where the cell asks: where it did before, else at the end."""
        earlier = self.made_by(running)
        return self.place.at(earlier.before) if earlier else self.place


@dataclass(frozen=True, eq=False)
class Act:
    """A session that went from one place to another."""

    when: int
    talk: Talk
    before: Place
    after: Place


@dataclass(frozen=True, eq=False)
class Move:
    """A session that got a name (as a fork of *origin*), got another one, or lost it."""

    when: int
    talk: Talk
    before: str | None
    after: str | None
    origin: Talk | None = None


class Model:
    """The conversations of a kernel: what every cell sends, and what it leaves behind.

    ``sent`` are the requests so far; ``ends`` says how the reply to the request of that number ends, if not well.
    """

    def __init__(self) -> None:
        self.talks: dict[str, Talk] = {}
        self.current = "main"
        self.homes: dict[str, tuple[Talk, int]] = {}
        self.switched = 0
        self.now = 0
        self.done: list[Act | Move] = []
        self.undone: list[Act | Move] = []
        self.sent: list[Sent] = []
        self.ends: Mapping[int, End] = {}

    def run(self, command: Command, running: Running) -> None:
        """Run a cell.

        Raises:
            Refused: it fails. Unless a part of a reply was kept, nothing has changed.
        """
        self.now += 1
        match command:
            case Ask():
                self._chat(command, running)
            case Loop(name, prompts):
                for prompt in prompts:
                    talk = self._find(name)
                    self._ask(talk, running, prompt, talk.begin(running), typed=False)
            case Verb("retry" | "continue"):
                self._again(running, command.options, go_on=command.name == "continue")
            case Verb(name, words, options, at):
                getattr(self, name)(*words, **options, **({} if at is None else {"at": at}))
            case Wrong(code):
                raise Refused(code)

    def _chat(self, cell: Ask, running: Running) -> None:
        talk = self._find(cell.session or self._home(running))
        if cell.at is not None:
            begin = talk.place.at(talk.meant(cell.at, running))
        else:
            begin = talk.place if cell.append or cell.once else talk.begin(running)
        self._ask(talk, running, cell.prompt, begin, cell.options, once=cell.once)

    def _again(self, running: Running, options: Options, *, go_on: bool) -> None:
        """Ask once more what was asked last, or let the model go on with its reply."""
        talk = self._known(self.current)
        if not talk.place.line:
            raise Refused("there is nothing to repeat")
        entry = talk.place.line[-1]
        begin = replace(talk.place, line=entry.before)
        self._ask(talk, running, entry.prompt, begin, options, instead=entry, go_on=go_on)

    def _ask(
        self,
        talk: Talk,
        running: Running,
        prompt: str,
        begin: Place,
        options: Options = NONE,
        *,
        instead: Entry | None = None,
        go_on: bool = False,
        once: bool = False,
        typed: bool = True,
    ) -> None:
        """Ask the prompt at a place, or for more of the reply of the entry in whose stead it is; keep the answer."""
        after = replace(begin, asked={**begin.asked, **options})
        begun = instead if go_on else None
        end = self._send(after.in_force, [*begin.line, begun] if begun else begin.line, GO_ON if begun else prompt)
        if not once:
            entry = Entry(
                number=len(talk.tree) + 1,
                before=begin.line,
                prompt=prompt,
                reply=(begun.reply if begun else "") + reply(len(self.sent), end),
                status=STATUS[end],
                settings=after.asked,
                makers=_makers(running, instead or talk.made_by(running)),
            )
            if talk.takes_a_pin(entry, instead):
                after = replace(after, pinned=after.pinned | {entry.number})
            talk.tree.append(entry)
            self._act(talk, replace(after, line=(*begin.line, entry)))
            self.talks[talk.name] = talk
            if typed:
                self._come_home(talk, running)
        if end != "stop":
            raise Refused("the reply is not whole")

    def _send(self, in_force: Options, history: Sequence[Entry], prompt: str) -> End:
        model = in_force.get("model", DEFAULT_MODEL)
        request = [*messages(in_force, history), ("user", prompt)]
        self.sent.append((request, model, _without(in_force, ["model", "system"])))
        end = self.ends.get(len(self.sent), "stop")
        if end not in STATUS:
            raise Refused("no text has come")
        return end

    def _home(self, running: Running) -> str:
        """Return where a cell asks that names no session: where it did last, unless somebody switched since."""
        talk, when = self.homes.get(running.cell or "", (None, 0))
        stays = talk is not None and self.talks.get(talk.name) is talk and when > self.switched
        return talk.name if talk is not None and stays else self.current

    def _come_home(self, talk: Talk, running: Running) -> None:
        """The cells below ask here, too; if this one was not moved by a switch, the switch is settled."""
        before, _ = self.homes.get(running.cell or "", (talk, 0))
        if before is talk:
            self.switched = 0
        if running.cell is not None:
            self.homes[running.cell] = talk, self.now
        self.current = talk.name

    def _find(self, name: str) -> Talk:
        """Return the session; a new one is known when something is kept in it."""
        return self.talks.get(name) or Talk(name)

    def _known(self, name: str) -> Talk:
        if name not in self.talks:
            raise Refused(f"there is no session {name}")
        return self.talks[name]

    def use(self, name: str, at: int | None = None) -> None:
        talk = self._known(name)
        line = talk.place.line if at is None else talk.line_to(at)
        if line != talk.place.line:
            self._act(talk, talk.place.at(line))
        self._switch(name)

    def clear(self) -> None:
        talk = self._known(self.current)
        if not talk.place.line:
            raise Refused("it is empty already")
        self._act(talk, talk.place.at(()))

    def set(self, **changes: Any) -> None:
        talk = self._find(self.current)
        own = {key: value for key, value in {**talk.place.own, **changes}.items() if value != ""}
        asked = _without(talk.place.asked, changes)
        if (own, asked) != (talk.place.own, talk.place.asked):
            set_at = {**talk.place.set_at, **dict.fromkeys(changes, len(talk.tree))}
            self._act(talk, replace(talk.place, own=own, asked=asked, set_at=set_at))
            self.talks[talk.name] = talk

    def pin(self, number: int) -> None:
        talk = self._known(self.current)
        entry = talk.line_to(number)[-1]
        heir = entry if entry in talk.place.line else talk.heir(entry)
        if heir is None:
            raise Refused(f"turn {number} is not on the line, and nothing has taken its place")
        self._pin(talk, talk.place.pinned | {heir.number})

    def unpin(self, number: int) -> None:
        talk = self._known(self.current)
        talk.line_to(number)
        self._pin(talk, talk.place.pinned - {number})

    def _pin(self, talk: Talk, pinned: frozenset[int]) -> None:
        if pinned != talk.place.pinned:
            self._act(talk, replace(talk.place, pinned=pinned))

    def new(self, name: str, **options: Any) -> None:
        talk = Talk(name, place=Place(own={key: value for key, value in options.items() if value != ""}))
        self._name(talk, None, name)
        self._switch(name)

    def fork(self, name: str, at: int | None = None) -> None:
        origin = self._known(self.current)
        place = origin.place.at(origin.place.line if at is None else origin.line_to(at))
        self._move(Move(self.now, Talk(name, origin.tree, place), None, name, origin))

    def rename(self, old: str, new: str) -> None:
        self._move(Move(self.now, self._known(old), old, new))

    def delete(self, name: str) -> None:
        self._move(Move(self.now, self._known(name), name, None))

    def _move(self, move: Move) -> None:
        self._repeat(move)
        self.done.append(move)
        self.undone = [step for step in self.undone if isinstance(step, Act) and step.talk is not move.talk]

    def _act(self, talk: Talk, after: Place) -> None:
        self.done.append(Act(self.now, talk, talk.place, after))
        self.undone = [step for step in self.undone if not _is_of(step, talk) and not _deletes(step)]
        talk.place = after

    def _name(self, talk: Talk, old: str | None, new: str | None) -> None:
        if new in self.talks:
            raise Refused(f"there is a session {new}")
        if old is not None:
            del self.talks[old]
        if new is not None:
            self.talks[new], talk.name = talk, new

    def _switch(self, name: str) -> None:
        self.current, self.switched = name, self.now

    def undo(self, count: int = 1) -> None:
        steps = _last(count, self.to_undo)
        with self._all_or_nothing():
            for step in steps:
                self._reverse(step)
                self.done.remove(step)
                self.undone.append(step)

    def redo(self, count: int = 1) -> None:
        steps = _last(count, self.to_redo)
        with self._all_or_nothing():
            for step in steps:
                self._repeat(step)
                self.undone.remove(step)
                self.done.append(step)

    @property
    def to_undo(self) -> list[Act | Move]:
        """What was done in the current session and with its name, and what was deleted."""
        talk = self.talks.get(self.current)
        return [step for step in self.done if step.talk is talk or _deletes(step)]

    @property
    def to_redo(self) -> list[Act | Move]:
        """What was undone of that, and of the forks of the session."""
        talk = self.talks.get(self.current)
        return [step for step in self.undone if _is_of(step, talk) or _deletes(step)]

    def _reverse(self, step: Act | Move) -> None:
        if isinstance(step, Act):
            step.talk.place = step.before
            return
        self._name(step.talk, step.after, step.before)
        if self.current == step.after:
            self.current = (step.origin or step.talk).name

    def _repeat(self, step: Act | Move) -> None:
        if isinstance(step, Act):
            step.talk.place = step.after
            return
        if step.after is None and step.before == self.current:
            raise Refused("it is the current session")
        self._name(step.talk, step.before, step.after)
        if step.origin is not None:
            self._switch(step.talk.name)
        elif step.before == self.current:
            self.current = step.talk.name

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before = copy.deepcopy(self.__dict__, {id(self.sent): self.sent})
        try:
            yield
        except Refused:
            self.__dict__ = before
            raise

    @property
    def standing(self) -> dict[str, Standing]:
        """What would be sent next, and more that is seen, by session."""
        return {name: _standing(talk) for name, talk in self.talks.items()}

    @property
    def most(self) -> int:
        """The highest number of a turn."""
        return max((len(talk.tree) for talk in self.talks.values()), default=1)


def _makers(running: Running, replaced: Entry | None) -> Mapping[str, str]:
    """Return the cells of a new entry: the one that runs, and those of the entry whose place it takes."""
    own = {running.cell: running.execution} if running.cell is not None else {}
    return own | {cell: made for cell, made in (replaced.makers if replaced else {}).items() if cell not in own}


def _last(count: int, steps: list[Act | Move]) -> list[Act | Move]:
    """Return the last *count* steps, newest first."""
    if count > len(steps):
        raise Refused("there are not so many")
    return steps[: -count - 1 : -1]


def _is_of(step: Act | Move, talk: Talk | None) -> bool:
    return talk is not None and talk in (step.talk, step.origin if isinstance(step, Move) else None)


def _deletes(step: Act | Move) -> bool:
    return isinstance(step, Move) and step.after is None


def messages(in_force: Options, line: Sequence[Entry]) -> Said:
    said = [message for entry in line for message in entry.messages]
    return [("system", in_force["system"]), *said] if "system" in in_force else said


def _without(options: Options, keys: Collection[str]) -> Options:
    return {key: value for key, value in options.items() if key not in keys}


def reply(number: int, end: End) -> str:
    """Return the reply to the request of that number; no two are the same."""
    return f"r{number}." if end == "stop" else f"r{number} …"


def _standing(talk: Talk) -> Standing:
    turns = [(entry.number, entry.prompt, entry.reply, entry.status) for entry in talk.place.line]
    return turns, messages(talk.place.in_force, talk.place.line), talk.place.in_force, talk.place.pinned


class Far(FakeClient):
    """A server with a `reply` to every request; ``ends`` says how the one of that number ends, if not well."""

    ends: Mapping[int, End] = {}

    def stream(self, request: Request) -> Iterator[Event]:
        self.requests.append(request)
        end = self.ends.get(len(self.requests), "stop")
        yield Sending("fake", instant=True)
        if end == "refused":
            raise RequestError("no")
        if end == "stopped early":
            raise KeyboardInterrupt
        yield Delta(self.reply(request, end))
        if end == "stopped":
            raise KeyboardInterrupt
        if end == "stop":
            yield Finished("stop")

    def reply(self, request: Request, end: End) -> str:  # noqa: ARG002 - the other one looks at it
        return reply(len(self.requests), end)

    @property
    def received(self) -> list[Sent]:
        return [(_said(request.messages), request.model, request.parameters) for request in self.requests]


class Echo(Far):
    """A server whose reply depends on the request and on nothing else."""

    def reply(self, request: Request, end: End) -> str:
        return f"{zlib.crc32(repr((request.messages, request.model, request.parameters)).encode()):x} {end}"


def _said(sent: Sequence[Message]) -> Said:
    return [(message.role, message.content) for message in sent]


class Screen:
    """Where cells run: the shell with a fresh kernel of ours, until it is closed."""

    def __init__(self, shell: InteractiveShell, far: Far) -> None:
        self._shell: Any = shell
        self._before = magics.kernel
        self._executions = 0
        magics.kernel = magics.Kernel(far)
        magics.kernel.magics = shell.magics_manager.registry["ChatMagic"]

    def close(self) -> None:
        magics.kernel = self._before

    def running(self, cell: str | None) -> Running:
        """Return the next execution of the cell."""
        self._executions += 1
        return Running(cell, f"execution {self._executions}")

    def run(self, code: str, running: Running) -> ChatMagicError | None:
        """Run a cell as a notebook does; return the error, which must be one of ours."""
        self._shell.parent_header = {
            "header": {"msg_id": running.execution},
            "metadata": {} if running.cell is None else {"cellId": running.cell},
            "content": {"code": code},
        }
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", ChatMagicWarning)  # what .ask() has set aside
            result = self._shell.run_cell(code, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        assert error is None or isinstance(error, ChatMagicError), repr(error)
        return error

    @property
    def current(self) -> str:
        return magics.kernel.sessions.current

    @property
    def standing(self) -> dict[str, Standing]:
        """What would be sent next, and more that is seen, by session."""
        return {
            session.name: (
                [(turn.number, turn.prompt, turn.reply, turn.status) for turn in session.turns],
                _said(session.messages),
                session.settings.values,
                session.state.pinned,
            )
            for session in magics.kernel.sessions
        }


PLACES = st.integers(0, 7)
WORDS = st.sampled_from(["one", "two", "three", "four", "five"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["small", "big"]),
        "system": st.sampled_from(["brief", "kind", ""]),
        "temperature": st.sampled_from([0, 0.5, ""]),
    },
)

# Names and numbers as they are when the cell is written; when it runs, they may be others.
KNOWN = st.runner().flatmap(lambda self: st.sampled_from(sorted(self.model.talks) or ["a"]))
FREE = st.runner().flatmap(lambda self: st.sampled_from(sorted({*"abcdef"} - {*self.model.talks}) or ["a"]))
NUMBERS = st.runner().flatmap(lambda self: st.integers(0, self.model.most))

ASKED = st.none() | st.sampled_from("abc")
PLAIN = st.builds(Ask, WORDS, ASKED, st.just(NONE) | OPTIONS)
ASKS = st.one_of(
    *[PLAIN] * 3,
    st.builds(Ask, WORDS, ASKED, OPTIONS, at=NUMBERS),
    st.builds(Ask, WORDS, ASKED, OPTIONS, append=st.just(True)),
    st.builds(Ask, WORDS, ASKED, OPTIONS, once=st.just(True)),
)
LOOPS = st.builds(Loop, st.sampled_from("abc"), st.lists(WORDS, min_size=1, max_size=3))
AGAIN = st.sampled_from([Verb("retry"), Verb("retry", options={"model": "other"}), Verb("continue")])
ACTS = st.one_of(
    st.builds(Verb, st.just("use"), st.tuples(KNOWN), at=st.none() | NUMBERS),
    st.builds(Verb, st.just("set"), options=OPTIONS.filter(bool)),
    st.just(Verb("clear")),
    st.builds(Verb, st.sampled_from(["pin", "unpin"]), st.tuples(NUMBERS.map(lambda number: number or 1))),
)
MOVES = st.one_of(
    st.builds(Verb, st.just("fork"), st.tuples(FREE), at=st.none() | NUMBERS),
    st.builds(Verb, st.just("rename"), st.tuples(KNOWN, FREE)),
    st.builds(Verb, st.just("delete"), st.tuples(KNOWN)),
    st.builds(Verb, st.just("new"), st.tuples(FREE), OPTIONS),
)
COUNTS = st.just(()) | st.tuples(st.integers(2, 3))
UNDOS = st.builds(Verb, st.just("undo"), COUNTS)
REDOS = st.builds(Verb, st.just("redo"), COUNTS)
COMMANDS = st.one_of(*[ASKS] * 3, LOOPS, AGAIN, ACTS, MOVES, UNDOS, REDOS)
WRONG = st.sampled_from(
    [
        "%%chat a --at 999\nhi",
        "%%chat a --at 0 --append\nhi",
        "%%chat a b\nhi",
        "%%chat a\n ",
        "%%chat a\n{{ missing }}",
        "%chat use nobody",
        "%chat use a --at 999",
        "%chat fork z --at 999",
        "%chat delete nobody",
        "%chat pin 999",
        "%chat set messages=1",
        "%chat tutor",
    ]
).map(Wrong) | st.one_of(
    st.builds(Verb, st.sampled_from(["fork", "new"]), st.tuples(KNOWN)),
    st.builds(Verb, st.just("rename"), st.tuples(KNOWN, KNOWN)),
    st.builds(Verb, st.sampled_from(["undo", "redo"]), st.just((9_999,))),
)
TROUBLE = st.tuples(st.integers(1, 3), st.sampled_from(["refused", "stopped early", "stopped", "cut"]))
"""Which request of a cell does not end well, and how it does."""


class Notebook(RuleBasedStateMachine):
    """Somebody works in a notebook."""

    def __init__(self, shell: InteractiveShell, count: Counter[str]) -> None:
        super().__init__()
        self.far = Far()
        self.screen = Screen(shell, self.far)
        self.model = Model()
        self.cells: list[tuple[str, Command]] = []
        self.ids = (f"cell {number}" for number in range(1, 1000))
        self.count = count

    def teardown(self) -> None:
        self.screen.close()

    def run(self, command: Command, cell: str | None, trouble: tuple[int, End] = (1, "stop")) -> bool:
        """Run a cell in the notebook and in the model; return whether it went well."""
        running, sent = self.screen.running(cell), len(self.model.sent)
        self.model.ends = self.far.ends = {sent + trouble[0]: trouble[1]}
        refused = None
        try:
            self.model.run(command, running)
        except Refused as exc:
            refused = exc
        error = self.screen.run(command.code, running)

        assert self.far.received[sent:] == self.model.sent[sent:]
        assert (error is None) == (refused is None), (error, refused)
        return error is None

    @initialize(commands=st.lists(PLAIN, min_size=1, max_size=4))
    def begin(self, commands: list[Command]) -> None:
        self.cells = [(next(self.ids), command) for command in commands]
        self.run_all()

    @rule(place=PLACES, command=COMMANDS)
    @precondition(lambda self: len(self.cells) < 8)
    def insert(self, place: int, command: Command) -> None:
        self.cells.insert(place, (next(self.ids), command))

    @rule(command=COMMANDS)
    @precondition(lambda self: len(self.cells) < 8)
    def write_and_run(self, command: Command) -> None:
        self.cells.append((next(self.ids), command))
        self.run(command, self.cells[-1][0])

    @rule(place=PLACES, command=COMMANDS)
    @precondition(lambda self: self.cells)
    def edit_and_run(self, place: int, command: Command) -> None:
        cell, _ = self.cells[place % len(self.cells)]
        self.cells[place % len(self.cells)] = cell, command
        self.run(command, cell)

    @rule(place=PLACES)
    @precondition(lambda self: self.cells)
    def remove(self, place: int) -> None:
        del self.cells[place % len(self.cells)]

    @rule(place=PLACES, to=PLACES)
    @precondition(lambda self: self.cells)
    def move_one(self, place: int, to: int) -> None:
        self.cells.insert(to, self.cells.pop(place % len(self.cells)))

    @rule(place=PLACES, to=PLACES)
    @precondition(lambda self: 0 < len(self.cells) < 8)
    def copy_one(self, place: int, to: int) -> None:
        self.cells.insert(to, (next(self.ids), self.cells[place % len(self.cells)][1]))

    @rule(place=PLACES)
    @precondition(lambda self: self.cells)
    def run_one(self, place: int) -> None:
        cell, command = self.cells[place % len(self.cells)]
        self.run(command, cell)

    @rule(place=PLACES, trouble=TROUBLE)
    @precondition(lambda self: self.cells)
    def run_one_with_trouble(self, place: int, trouble: tuple[int, End]) -> None:
        cell, command = self.cells[place % len(self.cells)]
        self.run(command, cell, trouble)

    @rule()
    @precondition(lambda self: self.cells)
    def run_all(self) -> None:
        all(self.run(command, cell) for cell, command in self.cells)

    @rule(command=COMMANDS)
    def run_without_an_id(self, command: Command) -> None:
        self.run(command, None)

    @rule(command=UNDOS)
    @precondition(lambda self: self.model.to_undo)
    def undo(self, command: Command) -> None:
        self.run(command, None)

    @rule(command=REDOS)
    @precondition(lambda self: self.model.to_redo)
    def redo(self, command: Command) -> None:
        self.run(command, None)

    @rule(command=WRONG)
    def go_wrong(self, command: Command) -> None:
        assert not self.run(command, None)

    @invariant()
    def all_stands_as_the_model_says(self) -> None:
        assert self.screen.standing == self.model.standing
        assert self.screen.current == self.model.current
        self.count["rules"] += 1


def test_a_notebook_does_what_the_model_says(shell: InteractiveShell) -> None:
    """After any steps in a notebook, every session has said and will send what the rules say."""
    count: Counter[str] = Counter()
    run_state_machine_as_test(
        partial(Notebook, shell, count),  # type: ignore[arg-type]  # any callable that makes a machine will do
        settings=settings(
            max_examples=600,
            stateful_step_count=50,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )

    assert count["rules"] >= 10_000


@st.composite
def notebooks(draw: st.DrawFn, *, back: bool = False) -> list[Command]:
    """Return %%chat cells, with %chat use of names that exist there in between, but not at the end.

    With *back* some of them go back to a turn that exists there.
    """
    cells: list[Command] = []
    known: list[str] = []
    turns: Counter[str] = Counter()
    for asked, switched, at in draw(
        st.lists(st.tuples(PLAIN, st.booleans(), st.integers(0, 7)), min_size=1, max_size=8)
    ):
        if known and switched:
            known.append(draw(st.sampled_from(known)))
            cells.append(Verb("use", (known[-1],)))
        known.append(asked.session or (known or ["main"])[-1])
        cells.append(replace(asked, at=at) if back and at <= turns[known[-1]] else asked)
        turns[known[-1]] += 1
    return cells


def played_twice(shell: InteractiveShell, cells: list[Command]) -> Iterator[tuple[list[Sent], dict[str, Any], str]]:
    """Run all cells, and run them again; give what was sent, what the sessions hold then, and the current one."""
    far = Echo()
    with closing(Screen(shell, far)) as screen:
        for _ in range(2):
            far.requests.clear()
            errors = [screen.run(cell.code, screen.running(f"cell {n}")) for n, cell in enumerate(cells)]
            assert not any(errors)
            left = {name: (said, in_force) for name, (_, said, in_force, _) in screen.standing.items()}
            yield far.received, left, screen.current


@given(cells=notebooks())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_run_all_twice_is_run_all_once(shell: InteractiveShell, cells: list[Command]) -> None:
    """The second Run All sends the same requests as the first one, and leaves the same behind."""
    once, twice = played_twice(shell, cells)

    assert once == twice


@given(cells=notebooks(back=True))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_run_all_twice_with_branches_leaves_the_same(shell: InteractiveShell, cells: list[Command]) -> None:
    """Where cells go back with --at, the second Run All leaves what the first one has left."""
    (_, *once), (_, *twice) = played_twice(shell, cells)

    assert once == twice
