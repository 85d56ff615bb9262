"""A session: a name that points into a tree of turns, and a log of the acts that moved it."""

from __future__ import annotations

import itertools
import os
import threading
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from chatmagic.conversation.messages import NOTHING_USED, Cell, Cut, Message, Summary, Turn, Usage
from chatmagic.conversation.settings import NOTHING, Settings
from chatmagic.conversation.spending import Spent
from chatmagic.errors import SessionError

if TYPE_CHECKING:
    from array import array

__all__ = ["Act", "Session", "State", "Tree", "acts_to", "next_stamp", "parting", "session_name"]

next_stamp = itertools.count().__next__
"""The order of acts, over all sessions."""


def session_name(text: str) -> str:
    """Return *text* in normal form (NFC) if it can name a session.

    Raises:
        SessionError: it does not begin with a letter, holds something other than letters, digits and ``_ . -``, or is
            longer than 64 characters.
    """
    name = unicodedata.normalize("NFC", text)
    if not name[:1].isalpha() or not all(_may_stand_in_name(character) for character in name):
        raise SessionError(f"{text!r} cannot name a session: a letter first, then letters, digits, '_', '.' and '-'")
    if len(name) > 64:
        raise SessionError(f"{text[:20] + '…'!r} cannot name a session: {len(name)} characters, at most 64 are allowed")
    return name


def _may_stand_in_name(character: str) -> bool:
    # Marks (category M) are parts of letters in many scripts.
    return character.isalnum() or character in "_.-" or unicodedata.category(character)[0] == "M"


class Tree:
    """Every turn that was ever stored, by number: turn #N is ``turns[N - 1]``."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.key = os.urandom(16).hex()  # not uuid, whose import costs more than this file
        """What requests with turns of this tree have in common; random, and says nothing about them."""
        self.summaries: dict[tuple[object, ...], Summary] = {}
        """What was written already, by what it was written of: all turns up to a number are the same in any line."""
        self._by_cell: defaultdict[str, list[Turn]] = defaultdict(list)
        self.vectors: dict[tuple[str, int], array[float]] = {}
        """What turns are about, by model and number."""
        self._words: Callable[[str, Sequence[Turn]], Sequence[Turn]] | None = None
        self._growing = threading.Lock()  # forks share a tree

    @classmethod
    def of(cls, turns: Sequence[Turn], key: str = "") -> Tree:
        """Return a tree of *turns* that are numbered from 1 in this order."""
        tree = cls()
        tree.key = key or tree.key
        for turn in turns:
            tree._keep(turn)
        return tree

    def words(self, prompt: str, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Return those of *turns* that share words with *prompt*, the best one first.

        Raises:
            SettingError: Python's SQLite cannot search texts.
        """
        if self._words is None:
            from chatmagic.conversation.recall import Words

            self._words = Words()
        return self._words(prompt, turns)

    def grow(self, turn: Turn) -> Turn:
        """Store *turn* under the next number."""
        with self._growing:
            numbered = replace(turn, number=len(self.turns) + 1)
            self._keep(numbered)
        return numbered

    def _keep(self, turn: Turn) -> None:
        self.turns.append(turn)
        for cell in turn.cells:
            if cell.id is not None:
                self._by_cell[cell.id].append(turn)

    def of_cell(self, cell_id: str) -> Sequence[Turn]:
        """Return every turn that belongs to the cell, in the order of their numbers."""
        return self._by_cell.get(cell_id, ())

    def __getitem__(self, number: int) -> Turn:
        if not 1 <= number <= len(self.turns):
            known = f"#1 to #{len(self.turns)}" if self.turns else "none yet"
            raise SessionError(f"no turn #{number} (known: {known})")
        return self.turns[number - 1]


@dataclass(frozen=True, slots=True)
class State:
    """Where a session stands: its newest turn, its own settings, and what the cells of the line have asked for.

    ``since`` says for each of its own settings how many turns the tree had when it was set: it wins over what those
    turns have asked for. ``pinned`` holds numbers of turns, ``facts`` are sent whatever else is, and ``cut`` is the
    newest one that was made by hand.
    """

    head: Turn | None = None
    own: Settings = NOTHING
    line: Settings = NOTHING
    since: Mapping[str, int] = field(default_factory=dict, hash=False)
    pinned: frozenset[int] = frozenset()
    facts: tuple[str, ...] = ()
    cut: Cut | None = None

    @property
    def in_force(self) -> Settings:
        """What holds for the next turn. What was unset is not there; below it the defaults are."""
        return Settings(self.line.over(self.own).values)

    def at(self, turn: Turn | None) -> State:
        """Return the state of standing on *turn*, or before the first one."""
        if turn is None:
            return replace(self, head=None, line=NOTHING)
        later = [key for key, count in self.since.items() if _number(turn) <= count]
        return replace(self, head=turn, line=turn.settings.without(later))


@dataclass(frozen=True, slots=True)
class Act:
    """Something that moved a session, in a word or two, where it stood before and after, and when it was done last."""

    what: str
    before: State
    after: State
    stamp: int = field(default_factory=next_stamp, compare=False)


class Session:
    """A named conversation of this kernel. ``on_change`` is called after every act, undo and redo."""

    def __init__(self, name: str, own: Settings = NOTHING) -> None:
        self.name = session_name(name)
        self.on_change: Callable[[], None] = lambda: None
        self.lock = threading.RLock()
        """Held while a prompt is answered: a session answers one at a time."""
        self.spent = Spent()
        """What its requests have cost, those of turns that were set aside and never stored among them."""
        self.temporary = False
        """Whether nothing of it may be written to a disk."""
        self.edited: Turn | None = None
        """The turn whose prompt was put into a cell to be asked differently."""
        self.tree = Tree()
        self.state = State(own=Settings(own.values))
        self._moving = threading.Lock()
        self._line: list[Turn] = []
        self.acted = -1
        """When something new was done last, and not undone or redone."""
        self._log: list[Act] = []
        self._done = 0  # acts of the log that are in force; those behind it were undone

    @property
    def turns(self) -> list[Turn]:
        """The line: the turns from the root to the head, oldest first."""
        return list(self._line)

    @property
    def last(self) -> Turn | None:
        """The newest turn of the line."""
        return self.state.head

    def __contains__(self, turn: Turn) -> bool:
        place = self._place(turn)
        return place < len(self._line) and self._line[place] is turn

    def upto(self, turn: Turn | None) -> list[Turn]:
        """Return the turns from the root to *turn*, oldest first."""
        if turn is not None and turn in self:
            return self._line[: self._place(turn) + 1]
        return parting(None, turn)[1]

    def made_by(self, cell: Cell) -> Turn | None:
        """Return the first turn of the line that belongs to *cell* by an earlier execution."""
        return next((turn for turn in self.tree.of_cell(cell.id or "") if turn in self and _earlier(turn, cell)), None)

    def meant(self, number: int, cell: Cell) -> Turn | None:
        """Return the turn that ``--at`` *number* (0: none) stands for in *cell*.

        That is turn #*number* when the cell asks behind it for the first time. When it does so again, and the cell
        of that turn has run again as well, it is the turn that this one has on the line now.

        Raises:
            SessionError: there is no such turn.
        """
        turn = self.turn(number)
        if turn is None or turn in self or all(each.parent is not turn for each in self.tree.of_cell(cell.id or "")):
            return turn
        try:
            return self.standing_for(number)
        except SessionError:
            return turn

    def begin(self, cell: Cell) -> State:
        """Return where a turn of *cell* begins: where its earlier turns on the line began, else where the line ends."""
        earlier = self.made_by(cell)
        return self.state if earlier is None else self.state.at(earlier.parent)

    def asked_in(self, turn: Turn) -> Settings:
        """Return what the cell of *turn* asked for itself, as far as nothing was set since."""
        return self.state.at(turn).line.beyond(self.state.at(turn.parent).line)

    def again(self, turn: Turn) -> State:
        """Return where *turn* is asked once more: behind its parent, with what its own cell has asked for."""
        return replace(self.state.at(turn), head=turn.parent)

    @property
    def settings(self) -> Settings:
        """What is in force for the next turn: the line's settings over the session's own."""
        return self.state.in_force

    @property
    def messages(self) -> list[Message]:
        """The history: the system prompt and all messages of the line."""
        system = self.settings.system
        said = [message for turn in self._line for message in turn.messages]
        return [Message("system", system), *said] if system else said

    @property
    def usage(self) -> Usage:
        """What the turns of the line used together; a count that is unknown for one turn is unknown for all."""
        return reduce(add, (turn.usage for turn in self._line), NOTHING_USED)

    def add(self, turn: Turn, instead: Turn | None = None) -> Turn:
        """Store *turn* behind its parent and stand on it; what came behind its parent so far is set aside.

        It is pinned if the turn is whose place it takes: *instead*, or what its cell has made before.
        """
        stored = self.tree.grow(turn)
        if self.edited is not None and self.edited.parent is turn.parent:
            self.edited = None
        heir = {_number(stored)} if self._takes_a_pin(stored, instead) else set()
        self._act(
            f"turn #{stored.number}",
            lambda state: replace(state, head=stored, line=stored.settings, pinned=state.pinned | heir),
        )
        return stored

    def _takes_a_pin(self, turn: Turn, instead: Turn | None) -> bool:
        if not self.state.pinned:
            return False
        before = [each for cell in turn.cells for each in self.tree.of_cell(cell.id or "") if each is not turn]
        pinned = [each for each in (instead, *before) if each and each.number in self.state.pinned]
        if not pinned:
            return False
        stays = set(map(_number, self.upto(turn.parent)))
        return any(_number(each) not in stays for each in pinned)

    def standing_for(self, number: int) -> Turn:
        """Return turn #*number* or, if it is not on the line, the one that has taken its place there.

        Raises:
            SessionError: there is no such turn on the line.
        """
        turn = self.tree[number]
        if turn in self:
            return turn
        heirs = (each for made in turn.cells for each in self.tree.of_cell(made.id or "") if each in self)
        if (heir := next(heirs, None)) is None:
            there = f"%chat use {self.name} --at {number}"
            raise SessionError(f"turn #{number} is not in the conversation {self.name!r} now. Go there first: {there}")
        return heir

    def clear(self) -> int:
        """Stand before the first turn, with the session's own settings; return how many turns were set aside."""
        count = len(self._line)
        if not count and not self.state.line:
            raise SessionError(f"session {self.name!r} is already empty")
        self._act("clear", lambda state: state.at(None))
        return count

    def go(self, number: int) -> bool:
        """Stand on turn #*number* (0: before the first one); False: the session stands there already.

        Raises:
            SessionError: there is no such turn.
        """
        turn = self.turn(number)
        if turn is self.state.head:
            return False
        self._act(f"use --at {number}", lambda state: state.at(turn))
        return True

    def turn(self, number: int) -> Turn | None:
        """Return turn #*number*; 0 stands for the place before the first one."""
        return self.tree[number] if number else None

    def forked(self, name: str, turn: Turn | None) -> Session:
        """Return a session *name* that stands on *turn* and shares the tree."""
        session = Session(name)
        session.temporary = self.temporary
        session.tree, session._line = self.tree, self.upto(turn)
        session.state = self.state if turn is self.state.head else self.state.at(turn)
        return session

    def set(self, changes: Settings) -> bool:
        """Change the session's own settings, also where cells of the line had asked for something; False: no change."""

        def changed(state: State) -> State:
            own, line = Settings(changes.over(state.own).values), state.line.without(changes.keys)
            if (own, line) == (state.own, state.line):
                return state
            since = {**state.since, **dict.fromkeys(changes.keys, len(self.tree.turns))}
            return replace(state, own=own, line=line, since=since)

        return self._act("set " + " ".join(sorted(changes.keys)), changed)

    def pin(self, number: int) -> bool:
        """Say that turn #*number* is sent whatever else is left out; False: it is pinned already.

        Raises:
            SessionError: there is no such turn on the line.
        """
        number = _number(self.standing_for(number))
        return self._act(f"pin {number}", lambda state: replace(state, pinned=state.pinned | {number}))

    def unpin(self, number: int) -> bool:
        """Take back that turn #*number* is pinned; False: it is not.

        Raises:
            SessionError: there is no such turn.
        """
        known = _number(self.tree[number])
        return self._act(f"unpin {number}", lambda state: replace(state, pinned=state.pinned - {known}))

    @property
    def summary(self) -> Summary | None:
        """The summary that stands for turns of the line which are not sent any more."""
        if (cut := self.state.cut) is not None and cut.holds(self._line):
            return cut.summary
        return self.last.sent.summary if self.last and self.last.sent else None

    def compact(self, summary: Summary) -> bool:
        """From here on send *summary* in place of the turns that it is of; False: it is sent already."""
        if self.summary == summary:
            return False
        return self._act("compact", lambda state: replace(state, cut=Cut(len(self.tree.turns), summary)))

    def own_summary(self, text: str) -> Summary:
        """Return *text* as a summary: in place of the one that is sent, or of all turns but the newest.

        Raises:
            SessionError: there are no turns that it could stand for.
        """
        line, before = self._line, self.summary
        if before is None and len(line) < 2:
            raise SessionError(f"session {self.name!r} has no turns that a summary could stand for: it needs two")
        return Summary(text, before.through if before else _number(line[-2]), before.facts if before else ())

    def remember(self, fact: str) -> bool:
        """Send *fact* with every prompt; False: it is known already."""
        return self._act(
            "remember",
            lambda state: state if fact in state.facts else replace(state, facts=(*state.facts, fact)),
        )

    def forget_fact(self, fact: str) -> bool:
        """Take back that *fact* is sent; False: it is not."""
        kept = tuple(each for each in self.state.facts if each != fact)
        return self._act("forget-fact", lambda state: replace(state, facts=kept))

    @property
    def done(self) -> list[Act]:
        """The acts that can be undone, oldest first."""
        return self._log[: self._done]

    @property
    def undone(self) -> list[Act]:
        """The acts that can be redone, oldest first."""
        return self._log[self._done :]

    def undo(self, count: int = 1) -> list[Act]:
        """Reverse the last *count* acts, newest first."""
        if not 1 <= count <= self._done:
            raise SessionError(f"cannot undo {count} in session {self.name!r}: {acts_to('undo', self._done)}")
        with self._moving:
            acts = self._log[self._done - count : self._done][::-1]
            self._done -= count
            # What was undone last is redone first, among acts of other kinds, too.
            self._log[self._done : self._done + count] = [replace(act, stamp=next_stamp()) for act in acts][::-1]
            self._stand(acts[-1].before)
        self.on_change()
        return acts

    def redo(self, count: int = 1) -> list[Act]:
        """Repeat the last *count* acts that were undone, oldest first."""
        left = len(self._log) - self._done
        if not 1 <= count <= left:
            raise SessionError(f"cannot redo {count} in session {self.name!r}: {acts_to('redo', left)}")
        with self._moving:
            acts = [replace(act, stamp=next_stamp()) for act in self._log[self._done : self._done + count]]
            self._log[self._done : self._done + count] = acts
            self._done += count
            self._stand(acts[-1].after)
        self.on_change()
        return acts

    def snapshot(self) -> tuple[State, list[Act], int]:
        """Return where it stands, its log of acts, and how many of them are in force: all of one moment."""
        with self._moving:
            return self.state, list(self._log), self._done

    def restore(self, tree: Tree, state: State, log: Sequence[Act], done: int) -> None:
        """Become what another session was: of *log*, *done* acts are in force."""
        self.tree, self._line = tree, []
        self._log, self._done = list(log), done
        self.state = State()
        self._stand(state)

    def forget_undone(self) -> None:
        """Let nothing be redone: something else has been done since."""
        with self._moving:
            del self._log[self._done :]

    def standing(self) -> Callable[[], None]:
        """Return what brings the session back to where it stands now, whatever is undone and redone until then."""
        log, done, state = list(self._log), self._done, self.state

        def back() -> None:
            with self._moving:
                self._log, self._done = log, done
                self._stand(state)

        return back

    def _act(self, what: str, change: Callable[[State], State]) -> bool:
        """Do what *change* says and keep it in the log; False: it changes nothing."""
        with self._moving:
            after = change(self.state)
            if after == self.state:
                return False
            del self._log[self._done :]
            self._log.append(Act(what, self.state, after))
            self._done += 1
            self.acted = self._log[-1].stamp
            self._stand(after)
        self.on_change()
        return True

    def _stand(self, state: State) -> None:
        left, came = parting(self.state.head, state.head)
        if left:
            self._line = self._line[: -len(left)]  # others may be reading the old one just now
        self._line += came
        self.state = state

    def _place(self, turn: Turn) -> int:
        """Return where *turn* stands on the line, from 0, if it does: numbers grow along a line."""
        return bisect_left(self._line, _number(turn), key=_number)


def _number(turn: Turn) -> int:
    return turn.number or 0


def _earlier(turn: Turn, cell: Cell) -> bool:
    return any(each.id == cell.id and each.execution != cell.execution for each in turn.cells)


def parting(old: Turn | None, new: Turn | None) -> tuple[list[Turn], list[Turn]]:
    """Return the turns that only the line to *old* has, and those that only the line to *new* has, oldest first."""
    left, came = [], []
    while old is not new:
        if old is not None and (new is None or _number(old) > _number(new)):
            left.append(old)
            old = old.parent
        elif new is not None:
            came.append(new)
            new = new.parent
    return left[::-1], came[::-1]


def acts_to(verb: str, count: int) -> str:
    """Say how many acts there are to undo or redo."""
    acts = {0: "there is nothing", 1: "there is 1 act"}.get(count, f"there are {count} acts")
    return f"{acts} to {verb}"
