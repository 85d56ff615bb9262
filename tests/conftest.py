"""What every test gets: no key, no network beyond loopback, a fresh kernel of ours."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from chatmagic import magics
from chatmagic.conversation.settings import Settings
from chatmagic.engine import run_turn
from chatmagic.testing import FakeClient, SpyRenderer
from tests.browser import CHROMIUM_ARGS, Lab, find_chromium, jupyterlab
from tests.server import ChatServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


# A shell script that starts the tests in the background lets them, and all that they start, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What notebooks and shells of the tests write down is gone with them.
_home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
os.environ["IPYTHONDIR"] = _home.name


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away every key and every variable that would change where a request goes."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "CHATMAGIC_", "AZURE_OPENAI_")) or name.endswith(
            ("_API_KEY", "_proxy", "_PROXY")
        ):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sockets reach this machine and nothing else."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1")):
            raise AssertionError(f"a test tried to reach {address!r}")
        connect(self, address)

    def local(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in (None, "", "localhost", "::1", "0.0.0.0") and not str(name).startswith("127."):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", local)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> magics.Kernel:
    """A kernel of ours without any session."""
    fresh = magics.Kernel()
    monkeypatch.setattr(magics, "kernel", fresh)
    return fresh


@pytest.fixture
def shell(kernel: magics.Kernel, tmp_path: Any) -> Iterator[InteractiveShell]:  # noqa: ARG001 - magics are loaded into it
    """A real IPython shell with chatmagic loaded."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.ChatMagic.journal = ""
    shell: Any = InteractiveShell(config=config, ipython_dir=str(tmp_path))  # type: ignore[no-untyped-call]  # IPython's
    instance: Any = InteractiveShell
    instance._instance = shell  # what get_ipython() in a cell finds
    shell.extension_manager.load_extension("chatmagic")
    yield shell
    shell.extension_manager.unload_extension("chatmagic")
    instance._instance = None
    # Else every shell lives as long as the tests, and collects garbage for a while when they end.
    atexit.unregister(shell.atexit_operations)


@pytest.fixture
def client() -> FakeClient:
    """The other end of the wire, which repeats every prompt."""
    return FakeClient()


@pytest.fixture
def view() -> SpyRenderer:
    """A screen that remembers."""
    return SpyRenderer()


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A scripted chat server on loopback."""
    with ChatServer() as running:
        yield running


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose notebooks the JupyterLab serves."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="session")
def lab(root: Path) -> Iterator[Lab]:
    """A running JupyterLab."""
    with jupyterlab(root, {"OPENAI_API_KEY": "sk-browser"}) as lab:
        yield lab


@pytest.fixture(scope="module")  # its event loop runs in this thread as long as it lives
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = find_chromium()
    assert chromium is not None, "CI must have a Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_ARGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page."""
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    yield page
    page.close()


DEFAULTS = Settings({"model": "fake"})


@pytest.fixture
def ask(client: FakeClient, view: SpyRenderer) -> Callable[..., Any]:
    """Run one turn with the fake client and the spy."""
    from chatmagic.conversation.session import Session

    only = Session("main")

    def ask(prompt: str, session: Session = only, **how: Any) -> Any:
        return run_turn(session, prompt, **{"client": client, "renderer": view, "defaults": DEFAULTS, **how})

    return ask
