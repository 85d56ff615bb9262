"""The handle that ``chatmagic.session()`` returns: a conversation, from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from chatmagic.conversation.context import Context, ContextPolicy
from chatmagic.conversation.memory import checked_fact
from chatmagic.conversation.messages import Message, Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import NOTHING, Settings, checked
from chatmagic.display.bill import bill
from chatmagic.display.context import Preview
from chatmagic.display.page import Look, Page, conversation, footer
from chatmagic.display.tree import history
from chatmagic.errors import LineError, SessionError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Asker", "Chat", "Chats"]


class Asker(Protocol):
    """Who runs turns; *how* may hold ``options``, ``once``, ``display`` …"""

    @property
    def look(self) -> Look:
        """How replies are shown."""

    def policy_of(self, function: Callable[..., Any]) -> str:
        """Return a name by which a *function* that chooses what is sent is found again."""

    def preview(self, session: Session, prompt: str = "") -> Preview:
        """Return what the next request holds."""

    @property
    def secrets(self) -> list[str]:
        """The keys of all endpoints, which must reach no file."""

    @property
    def facts(self) -> list[str]:
        """What every conversation is told."""

    def compact(self, session: Session, *, display: bool = True) -> Sequence[Turn]:
        """Have all turns but the newest summarized."""

    def ask(self, session: Session, prompt: str, **how: Any) -> Turn:
        """Ask *prompt*."""

    def retry(self, session: Session, **how: Any) -> Turn:
        """Ask once more."""

    def go_on(self, session: Session, **how: Any) -> Turn:
        """Let the model go on with a reply."""


class Chats:
    """The conversations of this kernel: iterate, ``len``, ``name in …``, ``…[name]``."""

    def __init__(self, sessions: Sessions, asker: Asker) -> None:
        self._sessions = sessions
        self._asker = asker

    def __iter__(self) -> Iterator[Chat]:
        return (Chat(session.name, self._sessions, self._asker) for session in self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, name: object) -> bool:
        return name in self._sessions

    def __getitem__(self, name: str) -> Chat:
        return Chat(self._sessions[name].name, self._sessions, self._asker)

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"


class Chat:
    """A conversation of this kernel by its name. It begins to exist when something is asked in it.

    The verbs of ``%chat`` are methods here and act on this conversation, whichever is the current one.
    """

    def __init__(self, name: str, sessions: Sessions, asker: Asker) -> None:
        self._held = sessions.find(name)
        self._sessions = sessions
        self._asker = asker

    @property
    def _session(self) -> Session:
        held = self._held
        if held.name not in self._sessions or self._sessions[held.name] is not held:
            # It was deleted, or there was none yet and somebody else has started one.
            held = self._held = self._sessions.find(held.name)
        return held

    @property
    def name(self) -> str:
        """The session's name."""
        return self._session.name

    @property
    def turns(self) -> list[Turn]:
        """The turns of the conversation, oldest first."""
        return self._session.turns

    @property
    def messages(self) -> list[Message]:
        """The history: the system prompt, then prompts and replies in turn."""
        return self._session.messages

    @property
    def last(self) -> Turn | None:
        """The newest turn."""
        return self._session.last

    @property
    def usage(self) -> Usage:
        """What the turns of the conversation used together, as the server counted; None is unknown."""
        return self._session.usage

    @property
    def settings(self) -> dict[str, Any]:
        """What the conversation asks for: model, system prompt, request parameters."""
        return dict(self._session.settings.values)

    def ask(
        self,
        text: str,
        *,
        model: str | None = None,
        system: str | None = None,
        context: str | ContextPolicy | None = None,
        read: Sequence[str | Chat] = (),
        at: int | None = None,
        append: bool = False,
        once: bool = False,
        display: bool = False,
        **parameters: Any,
    ) -> Turn:
        """Ask *text* and return the turn; its ``reply`` is the text of the answer.

        *model*, *system*, *context* (what of the history is sent: the name of a policy, or a function that takes all
        messages and returns those to send) and any other request *parameters* hold from here on, as the options of
        ``%%chat`` do (``recall=3``, ``learn=True`` among them). This prompt sees what was said in the conversations
        *read*. The turn begins behind turn *at* (0: at the beginning). By default it is at the end; only in a
        notebook cell that runs again, it is where the cell's earlier turns began, unless *append* is true. With *once*
        the turn is not stored; with *display* it is shown while it streams.

        Raises:
            ChatMagicError: there is no reply; the conversation is as it was.
        """
        if not isinstance(text, str):
            raise LineError(f"a prompt is text, not {type(text).__name__}")
        options = _options(model=model, system=system, context=self._named(context), **parameters)
        names = [self._sessions[each.name if isinstance(each, Chat) else each].name for each in read]
        how: dict[str, Any] = {"at": at, "append": append, "once": once, "display": display}
        return self._asker.ask(self._session, text, options=options, read=names, **how)

    def _named(self, context: str | ContextPolicy | None) -> str | None:
        """Return the name of a policy; a function is found again by its own."""
        if not callable(context):
            return context
        return self._asker.policy_of(context)

    def context(self, text: str = "") -> Context:
        """Return what the next request would hold, with *text* as its prompt.

        Raises:
            ContextOverflowError: what has to be sent is longer than it may be.
        """
        return self._asker.preview(self._session, text).context

    def retry(self, *, model: str | None = None, display: bool = False) -> Turn:
        """Ask the newest prompt once more; the new turn takes its place, and the other one stays in `history`.

        Raises:
            ChatMagicError: there is no reply; the conversation is as it was.
        """
        return self._asker.retry(self._session, options=_options(model=model), display=display)

    def continue_(self, *, display: bool = False) -> Turn:
        """Let the model go on with its newest reply; one turn with the joined reply takes its place.

        Raises:
            ChatMagicError: there is no reply; the conversation is as it was.
        """
        return self._asker.go_on(self._session, display=display)

    def edit(self, number: int, text: str, *, display: bool = False) -> Turn:
        """Ask *text* in place of the prompt of turn #*number*, with the settings that this one had.

        Raises:
            ChatMagicError: there is no such turn, or no reply; the conversation is as it was.
        """
        session = self._session
        turn = session.edited = session.tree[number]
        at = turn.parent.number if turn.parent else 0
        return self._asker.ask(session, text, at=at, options=session.asked_in(turn), display=display)

    def undo(self, count: int = 1) -> list[str]:
        """Reverse the last *count* acts, newest first; return what they were.

        Raises:
            SessionError: there are not so many; nothing has changed.
        """
        return self._sessions.undo(count, self.name)

    def redo(self, count: int = 1) -> list[str]:
        """Repeat the last *count* acts that were undone; return what they were.

        Raises:
            SessionError: there are not so many; nothing has changed.
        """
        return self._sessions.redo(count, self.name)

    def clear(self) -> int:
        """Set all turns aside, until the act is undone; return how many."""
        with self._sessions.idle(self.name) as session:
            return session.clear()

    def use(self, at: int | None = None) -> Chat:
        """Make this the current conversation; with *at* let it go on behind that turn (0: at the beginning)."""
        if at is not None:
            with self._sessions.idle(self.name) as session:
                session.go(at)
        self._sessions.use(self.name)
        return self

    def fork(self, name: str, at: int | None = None) -> Chat:
        """Return a conversation *name* that shares the turns so far (those up to turn *at*) and goes on by itself."""
        fork = self._sessions.fork(name, at, origin=self.name, switch=False)
        return Chat(fork.name, self._sessions, self._asker)

    def rename(self, name: str) -> None:
        """Call the conversation *name* from now on."""
        self._sessions.rename(self.name, name)

    def delete(self) -> None:
        """Forget the conversation, until the act is undone (`%chat undo`, or `undo` of another conversation)."""
        self._sessions.delete(self.name)

    def set(self, **settings: Any) -> None:
        """Change the conversation's own settings: ``model``, ``system``, any request parameter; None unsets."""
        session = self._session
        if "context" in settings:
            settings["context"] = self._named(settings["context"])
        with self._sessions.idle(session.name) if session.name in self._sessions else nullcontext():
            session.set(checked({key: "" if value is None else value for key, value in settings.items()}))

    def pin(self, number: int) -> None:
        """Send turn #*number* even when not everything can be."""
        with self._sessions.idle(self.name) as session:
            session.pin(number)

    def unpin(self, number: int) -> None:
        """Take back that turn #*number* is pinned."""
        with self._sessions.idle(self.name) as session:
            session.unpin(number)

    @property
    def summary(self) -> str | None:
        """What is sent in place of turns that are not sent any more."""
        return self._session.summary.text if self._session.summary else None

    def compact(self) -> str:
        """Have all turns but the newest summarized, send the summary from here on, and return it.

        Raises:
            ChatMagicError: it could not be written; nothing has changed.
        """
        self._asker.compact(self._session, display=False)
        return self.summary or ""

    @property
    def facts(self) -> list[str]:
        """What is sent with every prompt: first what every conversation is told."""
        return list(dict.fromkeys([*self._asker.facts, *self._session.state.facts]))

    def remember(self, fact: str) -> None:
        """Send *fact* with every prompt of this conversation."""
        self._session.remember(checked_fact(fact))

    def forget_fact(self, fact: str) -> None:
        """Take back that *fact* is sent.

        Raises:
            SessionError: this conversation has no such fact.
        """
        if not self._session.forget_fact(fact):
            raise SessionError(f"{fact!r} is no fact of {self.name!r} (known: {len(self._session.state.facts)})")

    def history(self) -> Page:
        """Return the tree, a row a turn: what is in the conversation, and what was set aside."""
        return history(self._session, self._sessions)

    def bill(self) -> Page:
        """Return what the turns used and cost, and what broke the cache, as a page."""
        return bill(self._session, self._sessions.spent)

    def show(self, number: int | None = None) -> Page:
        """Return the whole conversation, or turn #*number*, as a page."""
        session = self._session
        if number is None:
            return conversation(session.name, session.settings.system, session.turns, look=self._asker.look)
        turn = session.tree[number]
        return conversation(session.name, None, [turn], aside=turn not in session, look=self._asker.look)

    def to_markdown(self) -> str:
        """Return the conversation as Markdown, which `%chat import` can read again; no key of an endpoint is in it."""
        from chatmagic.exchange.own import without
        from chatmagic.exchange.writing import text_of

        return text_of(without([self._session], self._asker.secrets), ".md", footer)

    def export(self, path: str | Path, *, force: bool = False) -> None:
        """Write the conversation to a file, which ends with ``.md``, ``.json``, ``.ipynb`` or ``.html``.

        Raises:
            RecordError: there is such a file already and *force* is false, or it cannot be written.
        """
        from pathlib import Path

        from chatmagic.exchange.writing import save

        save([self._session], Path(path), footer, force=force, secrets=self._asker.secrets)

    def __repr__(self) -> str:
        count = len(self.turns)
        return f"<chat session {self.name!r}: {count} turn{'' if count == 1 else 's'}>"


def _options(**values: Any) -> Settings:
    given = {
        key: value for key, value in values.items() if value is not None or key not in ("model", "system", "context")
    }
    return checked(given) if given else NOTHING
