"""What this process knows, and how its parts are put together for a turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from chatmagic.conversation.session import Session
from chatmagic.conversation.sessions import Sessions
from chatmagic.conversation.settings import Settings
from chatmagic.errors import LineError

if TYPE_CHECKING:
    from chatmagic.api import Chat
    from chatmagic.conversation.messages import Cell, Turn
    from chatmagic.display.panel import Panel
    from chatmagic.events import Client, Renderer

    class Provider(Client, Protocol):
        """The other end of the wire, as far as the verbs need it."""

        listed: dict[str, list[str]]
        """The models of an endpoint, as it listed them last."""

        def models(self, name: str) -> list[str]:
            """Return the models of an endpoint."""

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
        def tries(self) -> int:
            """How often a request is sent at the most."""

        @property
        def longest_wait(self) -> float:
            """Seconds between two tries that a server may ask for."""


__all__ = ["DEFAULT_MODEL", "Kernel"]

DEFAULT_MODEL = "gpt-6-luna"


class Kernel:
    """What this process knows: its sessions, its connections, the magics while loaded, and what these replaced."""

    def __init__(self, client: Provider | None = None) -> None:
        self.sessions = Sessions()
        self.client = client
        self.magics: Configured | None = None
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


def _cell(shell: Any) -> Cell:
    """Return which cell is running, as far as the front end says."""
    from chatmagic.conversation.messages import Cell

    message = getattr(shell, "parent_header", None) or {}
    count = str(shell.execution_count) if shell else None
    return Cell(message.get("metadata", {}).get("cellId"), message.get("header", {}).get("msg_id") or count)
