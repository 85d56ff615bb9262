"""Random notebooks, played through the real magics and through a plain model of what a notebook means."""

from __future__ import annotations

import copy
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from IPython.core.interactiveshell import InteractiveShell

import chatmagic
from chatmagic import magics
from chatmagic.engine import GO_ON
from chatmagic.errors import ChatMagicError, RequestError
from chatmagic.events import Delta, Event, Finished, Request, Sending
from chatmagic.kernel import DEFAULT_MODEL
from chatmagic.testing import FakeClient

Options = Mapping[str, Any]
"""Settings by key; an empty text unsets its key."""

Said = list[tuple[str, str]]
"""Messages: role and content."""

End = Literal["stop", "refused", "stopped early", "stopped", "cut"]
"""How a reply ends: as it should, without a word (an error, the user's stop), or in the middle."""

HALF = "… (half)"


# What stands in the cells.


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
        at = "" if self.at is None else f"--at {self.at}"
        words = [self.session or "", at, "--append" * self.append, "--once" * self.once, *_words(self.options)]
        return f"%%chat {' '.join(filter(None, words))}\n{self.prompt}"


@dataclass(frozen=True)
class Loop:
    """A Python cell that asks several prompts in a session."""

    session: str
    prompts: Sequence[str]

    @property
    def code(self) -> str:
        return f"import chatmagic\nfor p in {list(self.prompts)}: chatmagic.session({self.session!r}).ask(p)"


@dataclass(frozen=True)
class Verb:
    """A line with %chat."""

    name: str
    words: tuple[Any, ...] = ()
    options: Options = field(default_factory=dict)
    at: int | None = None

    @property
    def code(self) -> str:
        if self.name == "set":
            words = [f"{key}={value}" for key, value in self.options.items()]
        else:
            words = [*map(str, self.words), *_words(self.options)]
        at = [] if self.at is None else [f"--at {self.at}"]
        return " ".join(["%chat", self.name, *words, *at])


@dataclass(frozen=True)
class Wrong:
    """A cell that cannot be done."""

    code: str


Command = Ask | Loop | Verb | Wrong


def _words(options: Options) -> list[str]:
    flags = {"model": "-m ", "system": "-s "}
    return [f'{flags[key]}"{value}"' if key in flags else f"--set {key}={value}" for key, value in options.items()]


# What it means.


class Refused(Exception):  # noqa: N818 - no bug, but what the model says about a cell
    """The cell fails."""


@dataclass(frozen=True)
class Running:
    """The cell that runs, as far as the front end names it, and this execution of it."""

    cell: str | None
    execution: str


class Value:
    """Something that never changes, and is its own copy."""

    def __deepcopy__(self, memo: object) -> Value:
        return self


@dataclass(frozen=True, eq=False)
class Entry(Value):
    """A prompt and its reply; ``settings`` are those of the line behind it.

    ``before`` is what it went on from. ``makers`` names the cells that it belongs to, each with the execution by which
    it came to be.
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
    """Where a session stands: its line, what the line's cells have asked for, and its own settings.

    ``set_at`` says for each own setting how many turns there were when it was set.
    """

    line: tuple[Entry, ...] = ()
    asked: Options = field(default_factory=dict)
    own: Options = field(default_factory=dict)
    set_at: Mapping[str, int] = field(default_factory=dict)
    pinned: frozenset[int] = frozenset()

    def behind(self, line: tuple[Entry, ...]) -> Place:
        """Go back (or aside) to the end of *line*: what was set since then wins over what was asked for there."""
        if not line:
            return replace(self, line=(), asked={})
        late = {key for key, count in self.set_at.items() if line[-1].number <= count}
        return replace(self, line=line, asked=_without(line[-1].settings, late))

    @property
    def in_force(self) -> Options:
        return {key: value for key, value in {**self.own, **self.asked}.items() if value != ""}


@dataclass(frozen=True)
class Act(Value):
    """A step of one session."""

    when: int
    before: Place
    after: Place


@dataclass(eq=False)
class Talk:
    """A session. Forks share the ``tree``: every entry in the order of its number."""

    name: str
    tree: list[Entry] = field(default_factory=list)
    place: Place = Place()
    done: list[Act] = field(default_factory=list)
    undone: list[Act] = field(default_factory=list)

    def act(self, when: int, after: Place) -> None:
        self.done.append(Act(when, self.place, after))
        self.undone.clear()
        self.place = after

    def line_to(self, number: int) -> tuple[Entry, ...]:
        """Return the path to turn *number*; 0 is the beginning."""
        if number > len(self.tree):
            raise Refused(f"no turn {number}")
        return (*self.tree[number - 1].before, self.tree[number - 1]) if number else ()

    def first_of(self, running: Running) -> int | None:
        """Return where on the line the first entry of the cell by an earlier execution is."""
        return next((i for i, entry in enumerate(self.place.line) if entry.made_earlier_by(running)), None)

    @property
    def messages(self) -> Said:
        return _messages(self.place.in_force, self.place.line)


@dataclass(frozen=True, eq=False)
class Move:
    """A name that came to a session (fork), left it (delete) or changed, while *origin* was the current session."""

    when: int
    talk: Talk
    old: str | None
    new: str | None
    origin: Talk | None


class Model:
    """A kernel's conversations.

    ``ends`` says how the replies to the next requests end; ``sent`` are the requests so far: messages, model and
    parameters.
    """

    def __init__(self) -> None:
        self.talks: dict[str, Talk] = {}
        self.current = "main"
        self.homes: dict[str, tuple[Talk, int]] = {}
        self.switched = 0
        self.moves: list[Move] = []
        self.taken_back: list[Move] = []
        self.now = 0
        self.sent: list[tuple[Said, str, Options]] = []
        self.ends: dict[int, End] = {}

    def play(self, command: Command, running: Running) -> None:
        """Run a cell.

        Raises:
            Refused: it fails. If it got no text, nothing has changed.
        """
        self.now += 1
        match command:
            case Ask(prompt, session, options, at, append, once):
                talk = self.find(session or self.home(running))
                if at is not None:
                    begin = talk.place.behind(talk.line_to(at))
                else:
                    place = None if append else talk.first_of(running)
                    begin = talk.place if place is None else talk.place.behind(talk.place.line[:place])
                self._ask(talk, running, prompt, begin, options, once=once)
            case Loop(session, prompts):
                for prompt in prompts:
                    self.now += 1
                    talk = self.find(session)
                    place = talk.first_of(running)
                    begin = talk.place if place is None else talk.place.behind(talk.place.line[:place])
                    self._ask(talk, running, prompt, begin, typed=False)
            case Verb("retry", options=options):
                self._again(running, options)
            case Verb("continue"):
                self._again(running, {}, go_on=True)
            case Verb("undo" | "redo" as name, words):
                self._several(self._undo if name == "undo" else self._redo, *words)
            case Verb(name, words, options, at):
                getattr(self, name)(*words, **({"at": at} if at is not None else {}), **options)
            case Wrong():
                raise Refused("wrong")

    def find(self, name: str) -> Talk:
        """Return the session; one that is new is known when something is kept in it."""
        return self.talks.get(name) or Talk(name)

    def known(self, name: str) -> Talk:
        if name not in self.talks:
            raise Refused(f"no session {name}")
        return self.talks[name]

    def free(self, name: str) -> None:
        if name in self.talks:
            raise Refused(f"there is a session {name}")

    # Asking

    def home(self, running: Running) -> str:
        """Return where a cell asks that names no session."""
        talk, when = self.homes.get(running.cell or "", (None, 0))
        if talk is not None and when > self.switched and self.talks.get(talk.name) is talk:
            return talk.name
        return self.current

    def _again(self, running: Running, options: Options, *, go_on: bool = False) -> None:
        talk = self.known(self.current)
        line = talk.place.line
        if not line:
            raise Refused("nothing to repeat")
        target = talk.first_of(running)
        if target is None:
            target = len(line) - 1
        begin = replace(talk.place.behind(line[: target + 1]), line=line[:target])
        self._ask(talk, running, line[target].prompt, begin, options, more=line[target] if go_on else None)

    def _ask(
        self,
        talk: Talk,
        running: Running,
        prompt: str,
        begin: Place,
        options: Options = {},  # noqa: B006 - only read
        *,
        once: bool = False,
        typed: bool = True,
        more: Entry | None = None,
    ) -> None:
        """Send the line of *begin* and *prompt*, or *more* of an entry's reply, and keep what comes."""
        place = replace(begin, asked={**begin.asked, **options})
        force = {"model": DEFAULT_MODEL, **place.in_force}
        history = [*begin.line, more] if more else begin.line
        asked = [*_messages(force, history), ("user", GO_ON if more else prompt)]
        self.sent.append((asked, force["model"], _without(force, {"model", "system"})))
        end = self.ends.get(len(self.sent), "stop")
        if end in ("refused", "stopped early"):
            raise Refused("no text came")
        if not once:
            number = len(talk.tree) + 1
            text = (more.reply if more else "") + reply_to(len(self.sent)) + HALF * (end != "stop")
            status = {"stop": "complete", "stopped": "interrupted", "cut": "cut"}[end]
            makers = self._makers(talk, running, begin)
            entry = Entry(number, begin.line, prompt, text, status, place.asked, makers)
            talk.tree.append(entry)
            talk.act(self.now, replace(place, line=(*begin.line, entry)))
            self.talks[talk.name] = talk
            if typed:
                self._come_home(talk, running)
        if end != "stop":
            raise Refused("the reply is not whole")

    def _makers(self, talk: Talk, running: Running, begin: Place) -> Mapping[str, str]:
        """Return the cells of a new entry: the running one, and the others of the entry whose place it takes."""
        size, line = len(begin.line), talk.place.line
        replaced = line[size] if line[:size] == begin.line and len(line) > size else None
        inherited = replaced.makers if replaced else {}
        return {**inherited, running.cell: running.execution} if running.cell else inherited

    def _come_home(self, talk: Talk, running: Running) -> None:
        before, _ = self.homes.get(running.cell or "", (talk, 0))
        if before is talk:
            self.switched = 0
        if running.cell:
            self.homes[running.cell] = talk, self.now
        self.current = talk.name

    # The verbs of one session

    def use(self, name: str, at: int | None = None) -> None:
        talk = self.known(name)
        line = talk.place.line if at is None else talk.line_to(at)
        if line != talk.place.line:
            talk.act(self.now, talk.place.behind(line))
        self._switch(name)

    def clear(self) -> None:
        talk = self.known(self.current)
        if not talk.place.line:
            raise Refused("empty already")
        talk.act(self.now, talk.place.behind(()))

    def set(self, **changes: Any) -> None:
        talk = self.find(self.current)
        own = {key: value for key, value in {**talk.place.own, **changes}.items() if value != ""}
        asked = _without(talk.place.asked, changes)
        if (own, asked) != (talk.place.own, talk.place.asked):
            set_at = {**talk.place.set_at, **dict.fromkeys(changes, len(talk.tree))}
            talk.act(self.now, replace(talk.place, own=own, asked=asked, set_at=set_at))
            self.talks[talk.name] = talk

    def pin(self, number: int) -> None:
        talk = self.known(self.current)
        if number not in [entry.number for entry in talk.place.line]:
            raise Refused(f"no turn {number} on the line")
        self._pin(talk, talk.place.pinned | {number})

    def unpin(self, number: int) -> None:
        talk = self.known(self.current)
        talk.line_to(number)
        self._pin(talk, talk.place.pinned - {number})

    def _pin(self, talk: Talk, pinned: frozenset[int]) -> None:
        if pinned != talk.place.pinned:
            talk.act(self.now, replace(talk.place, pinned=pinned))

    # The verbs for names

    def new(self, name: str, **options: Any) -> None:
        self.free(name)
        own = {key: value for key, value in options.items() if value != ""}
        self.talks[name] = Talk(name, place=Place(own=own))
        self._switch(name)

    def fork(self, name: str, at: int | None = None) -> None:
        origin = self.known(self.current)
        self.free(name)
        line = origin.place.line if at is None else origin.line_to(at)
        talk = Talk(name, tree=origin.tree, place=origin.place.behind(line))
        self._move(Move(self.now, talk, None, name, origin))

    def rename(self, old: str, new: str) -> None:
        talk = self.known(old)
        self.free(new)
        self._move(Move(self.now, talk, old, new, None))

    def delete(self, name: str) -> None:
        self._move(Move(self.now, self.known(name), name, None, None))

    def _move(self, move: Move) -> None:
        self._repeat(move)
        self.taken_back.clear()

    def _repeat(self, move: Move) -> None:
        if move.new is None and move.old == self.current:
            raise Refused("it is the current session")
        self._name(move.talk, move.old, move.new)
        self.moves.append(move)
        if move.new is None:
            return
        if move.old is None:
            self._switch(move.new)
        elif move.old == self.current:
            self.current = move.new

    def _take_back(self, move: Move) -> None:
        self._name(move.talk, move.new, move.old)
        self.moves.remove(move)
        self.taken_back.append(move)
        if self.current == move.new:
            self.current = move.origin.name if move.origin else str(move.old)

    def _name(self, talk: Talk, old: str | None, new: str | None) -> None:
        if new is not None:
            self.free(new)
            talk.name = new
            self.talks[new] = talk
        if old is not None:
            del self.talks[old]

    def _switch(self, name: str) -> None:
        self.current, self.switched = name, self.now

    # Undo and redo: the acts of the current session, the moves of its name, and what was deleted

    def _several(self, step: Any, count: int = 1) -> None:
        before = copy.deepcopy(self.__dict__)
        try:
            for _ in range(count):
                step()
        except Refused:
            self.__dict__ = before
            raise

    def _undo(self) -> None:
        talk = self.talks.get(self.current) or Talk(self.current)
        moves = [move for move in self.moves if move.talk is talk or move.new is None]
        if moves and (not talk.done or moves[-1].when > talk.done[-1].when):
            self._take_back(moves[-1])
        elif talk.done:
            act = talk.done.pop()
            talk.undone.append(act)
            talk.place = act.before
        else:
            raise Refused("nothing to undo")

    def _redo(self) -> None:
        talk = self.talks.get(self.current) or Talk(self.current)
        moves = [move for move in self.taken_back if move.talk is talk or move.new is None or move.origin is talk]
        newest = talk.done[-1].when if talk.done else 0
        if moves and moves[-1].when > newest and (not talk.undone or moves[-1].when < talk.undone[-1].when):
            self._repeat(moves[-1])
            self.taken_back.remove(moves[-1])
        elif talk.undone:
            act = talk.undone.pop()
            talk.done.append(act)
            talk.place = act.after
        else:
            raise Refused("nothing to redo")


def _messages(force: Options, line: Sequence[Entry]) -> Said:
    said = [message for entry in line for message in entry.messages]
    return [("system", force["system"]), *said] if "system" in force else said


def _without(options: Options, keys: Any) -> Options:
    return {key: value for key, value in options.items() if key not in keys}


def reply_to(number: int) -> str:
    """Return the reply to a kernel's request *number*; no two are the same."""
    return f"r{number}"


# The two side by side.


class Far(FakeClient):
    """A server whose reply to request number n is `reply_to` (n), and ends as ``ends`` says."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[int, End] = {}

    def stream(self, request: Request) -> Iterator[Event]:
        self.requests.append(request)
        number = len(self.requests)
        end = self.ends.get(number, "stop")
        yield Sending("fake", instant=True)
        if end == "refused":
            raise RequestError("no")
        if end == "stopped early":
            raise KeyboardInterrupt
        yield Delta(self.reply(request) + HALF * (end != "stop"))
        if end == "stopped":
            raise KeyboardInterrupt
        if end == "stop":
            yield Finished("stop")

    def reply(self, _: Request) -> str:
        return reply_to(len(self.requests))

    @property
    def received(self) -> list[tuple[Said, str, Options]]:
        return [(_said(request.messages), request.model, dict(request.parameters)) for request in self.requests]


def _said(messages: Sequence[Any]) -> Said:
    return [(message.role, message.content) for message in messages]


class Kernel:
    """A fresh kernel of ours behind the magics of *shell*, with a scripted server."""

    def __init__(self, shell: InteractiveShell, far: Far) -> None:
        self.shell: Any = shell
        self.far = far
        self.executions = 0
        self._before = magics.kernel
        magics.kernel = magics.Kernel(far)
        magics.kernel.magics = shell.magics_manager.registry["ChatMagic"]

    def close(self) -> None:
        """Put the kernel back that was there before."""
        magics.kernel = self._before

    def next(self, cell: str | None) -> Running:
        self.executions += 1
        return Running(cell, f"execution {self.executions}")

    def run(self, code: str, running: Running) -> BaseException | None:
        """Run a cell as a notebook does; return the error."""
        self.shell.parent_header = {
            "header": {"msg_id": running.execution},
            "metadata": {} if running.cell is None else {"cellId": running.cell},
            "content": {"code": code},
        }
        with redirect_stdout(io.StringIO()):
            result = self.shell.run_cell(code, store_history=True)
        assert result.error_before_exec is None
        error: BaseException | None = result.error_in_exec
        return error

    @property
    def standing(self) -> dict[str, Any]:
        """What is seen and sent next in every session."""
        return {
            chat.name: (
                [(turn.number, turn.prompt, turn.reply, turn.status) for turn in chat.turns],
                _said(chat.messages),
                chat.settings,
            )
            for chat in chatmagic.sessions
        }


@contextmanager
def kernel_of(shell: InteractiveShell, far: Far) -> Iterator[Kernel]:
    kernel = Kernel(shell, far)
    try:
        yield kernel
    finally:
        kernel.close()


WORDS = st.sampled_from(["one", "two", "three", "four", "five"])
ASKED = st.sampled_from(["a", "b", "c"])
NAMES = st.sampled_from(["a", "b", "c", "d", "e", "main"])
NUMBERS = st.integers(0, 9)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["small", "big"]),
        "system": st.sampled_from(["brief", "kind", ""]),
        "temperature": st.sampled_from([0, 0.5, ""]),
    },
)
SOME_OPTIONS = OPTIONS | st.just({})
PLAIN_ASKS = st.builds(Ask, WORDS, st.none() | ASKED, SOME_OPTIONS)
ASKS = st.one_of(
    PLAIN_ASKS,
    PLAIN_ASKS,
    PLAIN_ASKS,
    st.builds(Ask, WORDS, st.none() | ASKED, SOME_OPTIONS, at=NUMBERS),
    st.builds(Ask, WORDS, st.none() | ASKED, SOME_OPTIONS, append=st.just(True)),
    st.builds(Ask, WORDS, st.none() | ASKED, SOME_OPTIONS, once=st.just(True)),
)
LOOPS = st.builds(Loop, ASKED, st.lists(WORDS, min_size=1, max_size=3))
TURNS = st.builds(Verb, st.just("retry"), options=st.fixed_dictionaries({}, optional={"model": st.just("big")})) | (
    st.just(Verb("continue"))
)
STEPS = st.one_of(
    st.builds(Verb, st.just("use"), st.tuples(NAMES), at=st.none() | NUMBERS),
    st.builds(Verb, st.just("set"), options=OPTIONS.filter(bool)),
    st.just(Verb("clear")),
    st.builds(Verb, st.sampled_from(["pin", "unpin"]), st.tuples(st.integers(1, 9))),
)
MOVES = st.one_of(
    st.builds(Verb, st.just("fork"), st.tuples(NAMES), at=st.none() | NUMBERS),
    st.builds(Verb, st.just("rename"), st.tuples(NAMES, NAMES)),
    st.builds(Verb, st.just("delete"), st.tuples(NAMES)),
    st.builds(Verb, st.just("new"), st.tuples(NAMES), SOME_OPTIONS),
)
UNDOS = st.builds(Verb, st.sampled_from(["undo", "redo"]), st.just(()) | st.tuples(st.integers(2, 3)))
WRONG = st.builds(
    Wrong,
    st.sampled_from(
        [
            "%%chat a --at 999\nhi",
            "%%chat a --at 0 --append\nhi",
            "%%chat a b\nhi",
            "%%chat a\n ",
            "%%chat a\n{{ missing }}",
            "%chat use nobody",
            "%chat use a --at 999",
            "%chat fork z --at 999",
            "%chat pin 999",
            "%chat undo 999",
            "%chat redo 999",
            "%chat set messages=1",
            "%chat tutor",
        ]
    ),
)
COMMANDS = st.one_of(ASKS, ASKS, LOOPS, TURNS, STEPS, MOVES, UNDOS)
ENDS = st.dictionaries(
    st.integers(1, 3), st.sampled_from(["refused", "stopped early", "stopped", "cut"]), min_size=1, max_size=1
)
"""How the first, second or third request of a cell ends that something happens to."""


class Notebook(RuleBasedStateMachine):
    """A person works in a notebook; what the magics do is what the model says."""

    def __init__(self, shell: InteractiveShell, count: Counter[str]) -> None:
        super().__init__()
        self.kernel = Kernel(shell, Far())
        self.model = Model()
        self.count = count
        self.cells: list[tuple[str, Command]] = []
        self.made = 0

    def teardown(self) -> None:
        self.kernel.close()

    def run(self, command: Command, cell: str | None, ends: Mapping[int, End] | None = None) -> bool:
        """Run a cell here and there; return whether it was done."""
        running = self.kernel.next(cell)
        sent = len(self.model.sent)
        self.model.ends = self.kernel.far.ends = {sent + nth: end for nth, end in (ends or {}).items()}
        refused = None
        try:
            self.model.play(command, running)
        except Refused as exc:
            refused = exc
        error = self.kernel.run(command.code, running)

        assert self.kernel.far.received[sent:] == self.model.sent[sent:]
        assert (error is None) == (refused is None), (error, refused)
        assert error is None or isinstance(error, ChatMagicError), error
        self.count[type(command).__name__] += 1
        self.count["failed"] += error is not None
        return error is None

    def new_id(self) -> str:
        self.made += 1
        return f"cell {self.made}"

    def index(self, place: int) -> int:
        assume(self.cells)
        return place % len(self.cells)

    @rule(place=st.integers(0, 7), command=COMMANDS)
    @precondition(lambda self: len(self.cells) < 8)
    def insert(self, place: int, command: Command) -> None:
        self.cells.insert(place, (self.new_id(), command))

    @rule(command=ASKS | LOOPS | TURNS)
    @precondition(lambda self: len(self.cells) < 8)
    def write_and_run(self, command: Command) -> None:
        self.cells.append((self.new_id(), command))
        self.run(command, self.cells[-1][0])

    @rule(place=st.integers(0, 7), command=COMMANDS)
    @precondition(lambda self: self.cells)
    def edit(self, place: int, command: Command) -> None:
        place = self.index(place)
        self.cells[place] = self.cells[place][0], command

    @rule(place=st.integers(0, 7))
    @precondition(lambda self: self.cells)
    def remove(self, place: int) -> None:
        del self.cells[self.index(place)]

    @rule(place=st.integers(0, 7), to=st.integers(0, 7))
    @precondition(lambda self: self.cells)
    def move(self, place: int, to: int) -> None:
        self.cells.insert(to, self.cells.pop(self.index(place)))

    @rule(place=st.integers(0, 7), to=st.integers(0, 7))
    @precondition(lambda self: self.cells and len(self.cells) < 8)
    def copy_cell(self, place: int, to: int) -> None:
        self.cells.insert(to, (self.new_id(), self.cells[self.index(place)][1]))

    @rule(place=st.integers(0, 7))
    @precondition(lambda self: self.cells)
    def run_one(self, place: int) -> None:
        cell, command = self.cells[self.index(place)]
        self.run(command, cell)

    @rule(place=st.integers(0, 7), ends=ENDS)
    @precondition(lambda self: self.cells)
    def run_with_trouble(self, place: int, ends: dict[int, End]) -> None:
        cell, command = self.cells[self.index(place)]
        self.run(command, cell, ends)

    @rule()
    @precondition(lambda self: self.cells)
    def run_all(self) -> None:
        all(self.run(command, cell) for cell, command in self.cells)

    @rule(command=COMMANDS)
    def run_without_a_cell(self, command: Command) -> None:
        self.run(command, None)

    @rule(command=STEPS | MOVES)
    def command(self, command: Command) -> None:
        self.run(command, None)

    @rule(command=UNDOS)
    def undo_or_redo(self, command: Command) -> None:
        self.run(command, None)

    @rule(command=WRONG)
    def go_wrong(self, command: Command) -> None:
        assert not self.run(command, None)

    @invariant()
    def what_would_be_sent_is_what_the_model_says(self) -> None:
        self.count["rules"] += 1
        expected = {
            name: (
                [(entry.number, entry.prompt, entry.reply, entry.status) for entry in talk.place.line],
                talk.messages,
                talk.place.in_force,
            )
            for name, talk in self.model.talks.items()
        }
        assert self.kernel.standing == expected
        assert magics.kernel.sessions.current == self.model.current
        assert {chat.name: chat._session.state.pinned for chat in chatmagic.sessions} == {
            name: talk.place.pinned for name, talk in self.model.talks.items()
        }


def test_a_notebook_does_what_the_model_says(shell: InteractiveShell) -> None:
    """After any steps in a notebook every session says and sends what the rules say."""
    count: Counter[str] = Counter()
    run_state_machine_as_test(
        partial(Notebook, shell, count),
        settings=settings(
            max_examples=250, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    print(count)
    assert count["rules"] >= 10_000, count
