"""``%%chat`` and ``%chat``: the composition root, where the parts meet."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from traitlets import Dict, Float, Int, TraitError, Unicode, validate
from traitlets.config import Config

from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.errors import ChatMagicError, ChatMagicWarning, LineError
from chatmagic.line import SETTINGS, Form, Option, settings

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from chatmagic.api import Chat
    from chatmagic.complete import Known
    from chatmagic.conversation.messages import Cell, Turn
    from chatmagic.display.panel import Panel
    from chatmagic.events import Client, Renderer

    class Provider(Client, Protocol):
        """The other end of the wire, as far as the verbs need it."""

        def models(self, name: str) -> list[str]:
            """Return the models of an endpoint."""

        def close(self) -> None:
            """Close all connections."""


__all__ = ["CELL", "ChatMagic", "Kernel", "kernel", "load", "unload"]

DEFAULT_MODEL = "gpt-6-luna"

CELL = Form(
    "%%chat",
    "Ask the text of the cell in a conversation (by default the current one), with all that was said in it before.",
    ("[SESSION]",),
    (
        *SETTINGS,
        Option(("--once",), "send the history, show the reply, but keep neither prompt nor reply"),
        Option(("--no-stream",), "ask for the reply in one piece"),
        Option(("--raw",), "fill in no {{ expression }}"),
    ),
    more=(
        "An unknown SESSION is started. -m, -s and --set hold for the rest of the conversation, the other options for "
        "this cell. {{ expression }} in the prompt, with blanks inside the braces, is replaced by its value."
    ),
    surplus="the prompt goes on the next line, found {word!r}",
)


class Kernel:
    """What this process knows: its sessions, its connections, the magics while loaded, and what these replaced."""

    def __init__(self, client: Provider | None = None) -> None:
        self.sessions = Sessions()
        self.client = client
        self.magics: ChatMagic | None = None
        self.replaced: dict[str, Any] = {}
        self.panel: Panel | None = None
        self.uncomplete: Callable[[], None] = lambda: None

    @property
    def defaults(self) -> Settings:
        """The settings that lie below those of every session."""
        configured = self.magics.model if self.magics else ""
        return Settings({"model": configured or os.environ.get("CHATMAGIC_MODEL", "").strip() or DEFAULT_MODEL})

    def chat(self, name: str | None = None) -> Chat:
        """Return the handle of a session, by default of the current one."""
        from chatmagic.api import Chat

        return Chat(name or self.sessions.current, self.sessions, self._ask_from_python)

    def _ask_from_python(self, session: Session, prompt: str, *, display: bool, **how: Any) -> Turn:
        from chatmagic.display.render import SilentView

        return self.ask(session, prompt, renderer=self.renderer() if display else SilentView(), **how)

    def ask(self, session: Session, prompt: str, *, renderer: Renderer, current: bool = False, **how: Any) -> Turn:
        """Run one turn. A session that gets its first one is known from then on, and *current* if that is wanted."""
        from chatmagic.engine import Retry, run_turn

        if not prompt.strip():
            raise LineError("the prompt is empty: write it below the line with %%chat")

        def keep(session: Session, _: Turn) -> None:
            self.sessions.keep(session)
            if current:
                self.sessions.use(session.name)

        traits = self.magics
        with session.lock, self.sessions.asking(session):
            return run_turn(
                session,
                prompt,
                client=self.connected(),
                renderer=renderer,
                defaults=self.defaults,
                cell=_cell(traits.shell if traits else None),
                retry=Retry(traits.tries, traits.longest_wait) if traits else Retry(),
                on_turn=[keep],
                **how,
            )

    def renderer(self) -> Renderer:
        """Return a view for where this kernel shows things."""
        from chatmagic.display.render import NotebookView, TerminalView

        return NotebookView() if self.in_notebook else TerminalView()

    @property
    def in_notebook(self) -> bool:
        """True where there is a front end that shows HTML and widgets."""
        from chatmagic.display.render import shows_updates

        return self.magics is not None and hasattr(self.magics.shell, "kernel") and shows_updates()

    def show_panel(self) -> bool:
        """Show the panel, another view of the same one each time; return False where none can be shown."""
        if not self.in_notebook:
            return False
        from chatmagic.display.panel import Panel

        self.panel = self.panel or Panel(self.sessions, lambda: self.defaults)
        self.panel.show()
        return True

    def models(self, endpoint: str) -> list[str]:
        """Return the models that *endpoint* lists."""
        return self.connected().models(endpoint)

    def connected(self) -> Provider:
        """Return the other end of the wire, as it is configured now."""
        from chatmagic.provider.client import OpenAIClient

        if self.client is None:
            self.client = OpenAIClient()
        if isinstance(self.client, OpenAIClient) and self.magics:
            self.client.endpoints = self.magics.endpoints
            self.client.timeout = self.magics.timeout
        return self.client


kernel = Kernel()


@magics_class
class ChatMagic(Magics):
    """Named chat conversations in notebook cells."""

    shell: InteractiveShell

    model = Unicode(
        "", help="The model where nobody names one ([ENDPOINT:]MODEL); empty: CHATMAGIC_MODEL, then " + DEFAULT_MODEL
    ).tag(config=True)
    endpoints = Dict(help="Servers by name: {'NAME': {'url': 'https://…/v1', 'key_env': 'NAME_OF_A_VARIABLE'}}").tag(
        config=True
    )
    timeout = Float(600.0, min=0.1, help="Seconds that a server may be silent.").tag(config=True)
    tries = Int(4, min=1, max=10, help="How often a request is sent at the most.").tag(config=True)
    longest_wait = Float(
        60.0, min=0.0, help="The longest wait (seconds) between two tries that a server may ask for."
    ).tag(config=True)

    @validate("endpoints")
    def _usable(self, proposal: dict[str, Any]) -> dict[str, dict[str, str]]:
        from chatmagic.provider.endpoints import checked

        try:
            return checked(proposal["value"])
        except ChatMagicError as exc:
            raise TraitError(str(exc)) from None  # traitlets takes back what it has set for no other error

    @no_var_expand
    @cell_magic("chat")  # type: ignore[arg-type]  # IPython types its decorators for functions without self
    def ask(self, line: str, cell: str) -> None:
        """Ask the text of the cell in a conversation."""
        values = CELL.read(line)
        if values["help"]:
            self._show(_overview())
            return
        options = settings(values)
        prompt = _raw(self.shell, line, cell)
        if not values["raw"]:
            prompt = self._filled(prompt)
        name = values["session"] or kernel.sessions.current
        session = kernel.sessions.find(name)
        kernel.ask(
            session,
            prompt,
            renderer=kernel.renderer(),
            current=True,
            options=options,
            once=bool(values["once"]),
            stream=not values["no-stream"],
            notices=[] if values["once"] else _about(session),
        )

    @no_var_expand
    @line_magic("chat")  # type: ignore[arg-type]  # as above
    def command(self, line: str) -> None:
        """Choose, look at and change conversations."""
        from chatmagic.commands import run
        from chatmagic.commands.verb import Desk

        self._show(run(line, Desk(kernel.sessions, kernel.defaults, kernel.models, kernel.show_panel), CELL))

    def _filled(self, prompt: str) -> str:
        from chatmagic.conversation.template import fill

        return fill(prompt, lambda expression: eval(expression, self.shell.user_ns))  # noqa: S307 - the user's own code

    def _show(self, answer: Any) -> None:
        from chatmagic.display.render import show

        show(answer)


def _overview() -> str:
    from chatmagic.commands import overview

    return overview(CELL)


# IPython asks for it at %%chat? and %chat?
ChatMagic.ask.__dict__["getdoc"] = ChatMagic.command.__dict__["getdoc"] = _overview


def _about(session: Session) -> list[str]:
    """Say what is worth knowing about a name that was just typed."""
    from chatmagic.commands import VERBS

    if session.name in kernel.sessions or session.name == kernel.sessions.current:
        return []
    near = kernel.sessions.near(session.name)
    notes = [f"new session {session.name!r}" + (f" (there is also {near!r})" if near else "")]
    if session.name in VERBS:
        notes.append(f"{session.name!r} is also a verb: switch to this session with %chat use {session.name}")
    return notes


def _raw(shell: InteractiveShell, line: str, cell: str) -> str:
    """Return the text of the cell as it was typed.

    IPython's cleaning takes prompts (``>>>``) and indentation away before a magic sees its cell.
    """
    message = getattr(shell, "parent_header", None) or {}
    typed = message.get("content", {}).get("code") or _last_input(shell)
    given = f"get_ipython().run_cell_magic('chat', {line!r}, {cell!r})\n"
    head = re.match(r"\s*%%chat.*\n", typed)
    if head and shell.transform_cell(typed) == given:  # type: ignore[no-untyped-call]  # IPython's, untyped
        cell = typed[head.end() :]
    return cell.removesuffix("\n")


def _last_input(shell: InteractiveShell) -> str:
    history = shell.history_manager
    return history.input_hist_raw[-1] if history and history.input_hist_raw else ""


def _cell(shell: InteractiveShell | None) -> Cell:
    """Return which cell is running, as far as the front end says."""
    from chatmagic.conversation.messages import Cell

    message = getattr(shell, "parent_header", None) or {}
    count = str(shell.execution_count) if shell else None
    return Cell(message.get("metadata", {}).get("cellId"), message.get("header", {}).get("msg_id") or count)


def load(shell: InteractiveShell) -> None:
    """Register the magics; what they replace comes back with `unload`."""
    from chatmagic.tab import install

    unload(shell)
    for kind, magics in shell.magics_manager.magics.items():
        if "chat" in magics:
            kernel.replaced[kind] = magics["chat"]
    if owners := sorted({_owner(magic) for magic in kernel.replaced.values()}):
        taken = f"%%chat belonged to {' and '.join(owners)}; it is chatmagic's now. %unload_ext chatmagic gives it back"
        warnings.warn(taken, ChatMagicWarning, stacklevel=2)
    kernel.magics = _configured(shell)
    shell.register_magics(kernel.magics)
    kernel.uncomplete = install(shell, _known)


def _known() -> Known:
    """Return what may be named on a line just now."""
    from chatmagic.commands import VERBS
    from chatmagic.complete import Known
    from chatmagic.provider.endpoints import BUILT_IN

    own = kernel.magics.endpoints if kernel.magics else {}
    listed: dict[str, list[str]] = getattr(kernel.client, "listed", {})
    endpoints = {**BUILT_IN, **own}
    models = [
        kernel.defaults.model,
        *(session.settings.model for session in kernel.sessions),
        *(name for name, fields in endpoints.items() if "model" in fields),
        *listed.get("openai", ()),
    ]
    return Known(
        CELL,
        {name: verb.form for name, verb in VERBS.items()},
        [session.name for session in kernel.sessions],
        [model for model in dict.fromkeys(models) if model],
        {name: listed.get(name, ()) for name in endpoints},
    )


def _configured(shell: InteractiveShell) -> ChatMagic:
    try:
        return ChatMagic(shell)
    except TraitError as exc:
        warnings.warn(f"the configuration of ChatMagic is not used: {exc}", ChatMagicWarning, stacklevel=2)
        return ChatMagic(shell, config=Config())


def unload(shell: InteractiveShell) -> None:
    """Take the magics, their settings and the connections back; the sessions stay."""
    if kernel.magics is None:
        return
    for kind, magics in shell.magics_manager.magics.items():
        magics.pop("chat", None)
        if kind in kernel.replaced:
            magics["chat"] = kernel.replaced.pop(kind)
    shell.magics_manager.registry.pop("ChatMagic", None)
    configurables: list[Any] = shell.configurables
    if kernel.magics in configurables:
        configurables.remove(kernel.magics)
    kernel.uncomplete()
    kernel.magics = None
    if kernel.panel is not None:
        kernel.panel.close()
        kernel.panel = None
    if kernel.client is not None:
        kernel.client.close()


def _owner(magic: Any) -> str:
    return str(getattr(getattr(magic, "__self__", magic), "__module__", "another extension"))
