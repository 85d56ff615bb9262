"""``%%chat`` and ``%chat``: the composition root, where the parts meet."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from traitlets import Bool, Dict, Enum, Float, Int, List, TraitError, Unicode, default, validate
from traitlets.config import Config

from chatmagic.conversation.policy import read_policy
from chatmagic.conversation.session import Session
from chatmagic.errors import ChatMagicError, ChatMagicWarning, LineError
from chatmagic.journal import without_password
from chatmagic.kernel import DEFAULT_MODEL, Kernel
from chatmagic.line import SETTINGS, Form, Option, settings, turn_number

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from chatmagic.complete import Known


__all__ = ["CELL", "ChatMagic", "Kernel", "kernel", "load", "unload"]

CELL = Form(
    "%%chat",
    "Ask the text of the cell in a conversation (by default the current one), with all that was said in it before.",
    ("[SESSION]",),
    (
        *SETTINGS,
        Option(("--append",), "go on at the end, though this cell has asked before"),
        Option(("--at",), "go on behind turn N (0: at the beginning)", "N"),
        Option(
            ("--read",), "let the prompt see what was said in another session; repeatable", "SESSION", repeated=True
        ),
        Option(("--once",), "send the history, show the reply, but keep neither prompt nor reply"),
        Option(("--dry-run",), "show what would be sent, and its size; send nothing"),
        Option(("--no-stream",), "ask for the reply in one piece"),
        Option(("--raw",), "fill in no {{ expression }}"),
        Option(("--summary",), "the cell is no prompt: send its text in place of what is summarized (%chat compact)"),
    ),
    more=(
        "An unknown SESSION is started. A cell that runs again goes back to where it asked before; what came after is "
        "set aside, and %chat undo brings it back. -m, -s, --context, --recall, --learn and --set hold for the rest of "
        "the conversation, the others for this cell. {{ expression }} in the prompt, with blanks inside the braces, is "
        "replaced by its value."
    ),
    surplus="the prompt goes on the next line, found {word!r}",
)


kernel = Kernel()

_T = TypeVar("_T")


def _validated(check: Callable[[Any], _T], value: Any) -> _T:
    try:
        return check(value)
    except ChatMagicError as exc:
        raise TraitError(str(exc)) from None  # traitlets takes back what it has set for no other error


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
    images = Enum(
        ("link", "show"),
        "link",
        help="Pictures of the web in a reply: links to them, or shown, which tells their server that you look.",
    ).tag(config=True)
    mime = List(
        Enum(("text/html", "text/markdown")),
        ["text/html", "text/markdown"],
        help="As what replies are shown, beside plain text.",
    ).tag(config=True)
    rerun = Enum(
        ("replace", "append"),
        "replace",
        help="What a cell that runs again does: replace what it said in the conversation, or append to the end.",
    ).tag(config=True)
    context = Unicode(
        "budget",
        help="What of a history is sent: budget, budget:N (tokens), summary, last:K (turns), all, or a function of "
        "yours.",
    ).tag(config=True)
    recall = Int(
        0, min=0, max=100, help="How many of the turns that are not sent come back with a prompt that they fit."
    ).tag(config=True)
    summary_model = Unicode("", help="Who writes summaries ([ENDPOINT:]MODEL), if not the model itself.").tag(
        config=True
    )
    facts = List(Unicode(), help="What the models are told in every session.").tag(config=True)
    budget = Int(
        200_000, min=1, help="Tokens that a request may have: what would pass it cuts the history to half, once."
    ).tag(config=True)
    models = Dict(
        help="Windows (tokens) and prices (USD per million tokens) that you know better: {'ENDPOINT:MODEL': "
        "{'window': 32768, 'input': 0.5, 'cached': 0.05, 'output': 1.5}}"
    ).tag(config=True)
    max_cost = Float(None, allow_none=True, min=0.0, help="USD that all requests of this kernel may cost.").tag(
        config=True
    )
    vocabulary = Enum(
        ("fetch", "disk", "off"),
        "fetch",
        help="How tokens are counted ahead: by tiktoken's vocabulary, fetched in the background if need be (never for "
        "servers on this machine), by the one on disk, or by an estimate only.",
    ).tag(config=True)
    journal = Unicode(
        help="Where every turn is written down: a path, or a URL (postgresql+psycopg://user@host/database); empty: "
        "nowhere."
    ).tag(config=True)
    autoresume = Bool(
        False, help="Bring back, when chatmagic is loaded, the sessions that the last kernel of this notebook had."
    ).tag(config=True)
    timeout = Float(600.0, min=0.1, help="Seconds that a server may be silent.").tag(config=True)
    tries = Int(4, min=1, max=10, help="How often a request is sent at the most.").tag(config=True)
    longest_wait = Float(
        60.0, min=0.0, help="The longest wait (seconds) between two tries that a server may ask for."
    ).tag(config=True)

    @default("journal")
    def _beside_the_history(self) -> str:
        profile = getattr(self.shell, "profile_dir", None)
        return os.path.join(profile.location, "chatmagic.sqlite") if profile else ""

    @validate("journal")
    def _without_a_password(self, proposal: dict[str, Any]) -> str:
        return _validated(without_password, proposal["value"])

    @validate("endpoints")
    def _usable(self, proposal: dict[str, Any]) -> dict[str, dict[str, str]]:
        from chatmagic.provider.endpoints import checked

        return _validated(checked, proposal["value"])

    @validate("models")
    def _priced(self, proposal: dict[str, Any]) -> dict[str, dict[str, float]]:
        from chatmagic.provider.models import checked

        return _validated(checked, proposal["value"])

    @validate("facts")
    def _short(self, proposal: dict[str, Any]) -> list[str]:
        from chatmagic.conversation.memory import checked_fact

        return [_validated(checked_fact, fact) for fact in proposal["value"]]

    @validate("max_cost")
    def _an_amount(self, proposal: dict[str, Any]) -> float | None:
        if proposal["value"] is not None and not isfinite(proposal["value"]):
            raise TraitError(f"max_cost is an amount of USD, or None, not {proposal['value']!r}")
        return proposal["value"]  # type: ignore[no-any-return]  # a trait's value is Any

    @validate("context")
    def _read(self, proposal: dict[str, Any]) -> str:
        _validated(read_policy, proposal["value"])
        return str(proposal["value"])

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
        if values["summary"]:
            self._show(_summarized(values, prompt))
            return
        if not values["raw"]:
            prompt = self._filled(prompt)
        at = None if values["at"] is None else turn_number(values["at"], least=0)
        session = kernel.sessions.find(values["session"] or kernel.sessions.home(kernel.cell))
        how: dict[str, Any] = {
            "at": at,
            "append": values["append"],
            "options": options,
            "read": [kernel.sessions[name].name for name in values["read"]],
        }
        if values["dry-run"]:
            self._show(kernel.dry_run(session, prompt, **how).page())
            return
        kernel.ask(
            session,
            prompt,
            **how,
            typed=True,
            once=bool(values["once"]),
            stream=not values["no-stream"],
            notices=[] if values["once"] else [*_about(session), *_left(session)],
        )

    @no_var_expand
    @line_magic("chat")  # type: ignore[arg-type]  # as above
    def command(self, line: str) -> None:
        """Choose, look at and change conversations."""
        from chatmagic.commands import run
        from chatmagic.commands.verb import Desk

        self._show(run(line, Desk(kernel.sessions, kernel.defaults, kernel, self.shell.set_next_input), CELL))

    def _filled(self, prompt: str) -> str:
        from chatmagic.conversation.template import fill

        return fill(prompt, lambda expression: eval(expression, self.shell.user_ns))  # noqa: S307 - the user's own code

    def _show(self, answer: Any) -> None:
        from chatmagic.display.render import show

        show(answer)


def _summarized(values: dict[str, Any], text: str) -> str:
    """Take *text* as the summary of a session. No ``{{ expression }}`` of it is filled: a model may have written it."""
    others = [key for key, value in values.items() if value and key not in ("summary", "session")]
    if others:
        raise LineError(f"--summary sends nothing, so it goes with no other option, found --{others[0]}")
    if not text.strip():
        raise LineError("the summary is empty: write it below the line with %%chat, or take it back with %chat undo")
    session = kernel.sessions[values["session"] or kernel.sessions.current]
    summary = kernel.summarize_as(session, text)
    if summary is None:
        return f"That is the summary of {session.name!r} already; nothing has changed."
    stands = f"This stands for the turns of {session.name!r} up to #{summary.through} from here on"
    return f"{stands}. %chat undo takes it back."


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


def _left(session: Session) -> list[str]:
    """Say that this cell, which asked in another session before, has left a turn there."""
    left = kernel.sessions.left_in(kernel.cell, session)
    return [f"turn #{left[1].number} of this cell stays in {left[0].name!r}"] if left else []


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
    # What an earlier kernel had would be in every request of a notebook that is recorded or tested.
    if kernel.magics.autoresume and not len(kernel.sessions) and not os.environ.get("CHATMAGIC_TAPE"):
        _resume(kernel.magics)
    if kernel.panel is not None:
        kernel.panel.follow()
    if kernel.marks is not None:
        kernel.marks.open()


def _resume(magics: ChatMagic) -> None:
    from chatmagic.commands import run
    from chatmagic.commands.verb import Desk

    try:
        said = run("resume --all", Desk(kernel.sessions, kernel.defaults, kernel, magics.shell.set_next_input), CELL)
        if len(kernel.sessions):
            magics._show(said)
    except ChatMagicError as exc:
        warnings.warn(f"no session was brought back: {exc}", ChatMagicWarning, stacklevel=3)


def _known() -> Known:
    """Return what may be named on a line just now."""
    from chatmagic.commands import VERBS
    from chatmagic.complete import Known
    from chatmagic.provider.endpoints import BUILT_IN

    own = kernel.magics.endpoints if kernel.magics else {}
    listed = kernel.client.listed if kernel.client else {}
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
    if kernel.journal is not None:
        kernel.journal.close()
    if kernel.panel is not None:
        kernel.panel.rest()
    if kernel.marks is not None:
        kernel.marks.close()
    if kernel.client is not None:
        kernel.client.close()


def _owner(magic: Any) -> str:
    return str(getattr(getattr(magic, "__self__", magic), "__module__", "another extension"))
