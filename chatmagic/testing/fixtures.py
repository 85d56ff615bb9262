"""What pytest finds wherever chatmagic is installed: fixtures, and tapes for notebooks; nothing is imported ahead."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from chatmagic.kernel import Kernel
    from chatmagic.provider.tape import Tape
    from chatmagic.testing.doubles import FakeClient

__all__ = ["chat_client", "chat_tape"]


@pytest.fixture
def chat_client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """Let no server be asked, and the test begin without any session.

    ``chat_client.answers = ["…"]`` is what models say (without answers they repeat the prompt),
    ``chat_client.requests`` is what they got.
    """
    from chatmagic.testing.doubles import FakeClient

    kernel, client = _fresh(monkeypatch), FakeClient()
    kernel.client = client
    kernel.deck.take_out()
    return client


@pytest.fixture
def chat_tape(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tape]:
    """Let a tape answer: ``tapes/MODULE/TEST.tape`` beside the file of the test, which begins without any session.

    A test in a class has ``CLASS.TEST.tape``. With ``CHATMAGIC_TAPE_MODE=record`` servers answer, and the tape is made
    anew; with ``auto`` they answer what it does not have. An exchange that the test uses no more is a warning.
    """
    from chatmagic.errors import ChatMagicWarning
    from chatmagic.provider.tape import mode_of

    name = _file_name(".".join(request.node.nodeid.split("::")[1:]))
    path = request.path.parent / "tapes" / request.path.stem / f"{name}.tape"
    mode = mode_of(os.environ)
    if mode != "replay":
        path.parent.mkdir(parents=True, exist_ok=True)
    tape = _fresh(monkeypatch).deck.put_in(path, mode)
    yield tape
    if mode == "record":
        tape.prune()
    elif unused := tape.unused:
        labels = ", ".join(each.label for each in unused)
        warnings.warn(f"{name} uses {labels} of its tape no more; record it anew", ChatMagicWarning, stacklevel=1)


def _file_name(text: str) -> str:
    """Return a name that any file system takes, another one for each *text*."""
    name = re.sub(r"[^\w.-]+", "-", text).strip("-")
    plain = re.sub(r"[\[\]]+", "-", text).strip("-")
    return name if name == plain else f"{name}-{sha256(text.encode()).hexdigest()[:6]}"


_given: list[str] = []  # the tape that a notebook has got from here


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a notebook that nbval tests play the tape of its name beside it, unless CHATMAGIC_TAPE names another one."""
    if os.environ.get("CHATMAGIC_TAPE", "") not in ("", *_given):
        return
    tape = item.path.with_suffix(".tape")
    _given.clear()
    os.environ.pop("CHATMAGIC_TAPE", None)
    if type(item).__name__ == "IPyNbCell" and (tape.exists() or os.environ.get("CHATMAGIC_TAPE_MODE")):
        os.environ["CHATMAGIC_TAPE"] = str(tape)
        _given.append(str(tape))


def _fresh(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Let the test begin without sessions; those that are there come back behind it."""
    from chatmagic import magics

    kernel = magics.Kernel()
    monkeypatch.setattr(magics, "kernel", kernel)
    return kernel
