"""A real kernel in a process of its own, driven as a notebook drives it."""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

__all__ = ["Ran", "RealKernel"]


@dataclass
class Ran:
    """What came of a cell: ``messages`` are its iopub messages, each with the time of its arrival in ``arrived``."""

    status: str = ""
    error: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The contents of the messages of some kinds."""
        return [message["content"] for message in self.messages if message["msg_type"] in kinds]

    @property
    def stdout(self) -> str:
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def displays(self) -> list[dict[str, Any]]:
        """What is on the screen in the end: an update replaces what it updates."""
        shown: dict[object, dict[str, Any]] = {}
        for number, content in enumerate(self.of("display_data", "update_display_data")):
            shown[content.get("transient", {}).get("display_id", number)] = content
        return list(shown.values())

    @property
    def text(self) -> str:
        """The text/plain of the displays."""
        return "\n".join(display["data"].get("text/plain", "") for display in self.displays)


class RealKernel:
    """An IPython kernel of this interpreter; *env* is added to its environment (None takes a variable away)."""

    def __init__(self, env: Mapping[str, str | None] | None = None) -> None:
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        own = {"PYTHONPATH": os.pathsep.join(sys.path), "IPYTHONDIR": self._home.name}
        merged = {**os.environ, **own, **(env or {})}
        self._env = {name: value for name, value in merged.items() if value is not None}
        self._manager = KernelManager()
        command = [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
            "--HistoryManager.enabled=False",
        ]
        self._manager._kernel_spec = KernelSpec(argv=command, display_name="test", language="python")

    def __enter__(self) -> RealKernel:
        self._manager.start_kernel(env=self._env)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._home.cleanup()

    def run(
        self,
        code: str,
        *,
        cell_id: str | None = None,
        timeout: float = 60.0,
        on_message: Callable[[dict[str, Any]], None] | None = None,
    ) -> Ran:
        """Run a cell and wait until the kernel is idle again; *on_message* sees every message when it comes."""
        session, ran = self._client.session, Ran()
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        request = session.msg("execute_request", content, metadata={"cellId": cell_id} if cell_id else {})
        self._client.shell_channel.send(request)
        end = time.monotonic() + timeout
        while True:
            message = self._next(end)
            if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            message["arrived"] = time.time()
            ran.messages.append(message)
            if on_message:
                on_message(message)
            if message["msg_type"] == "error":
                ran.error = f"{message['content']['ename']}: {message['content']['evalue']}"
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        reply = self._client.get_shell_msg(timeout=timeout)
        ran.status = reply["content"]["status"]
        return ran

    def evaluate(self, expression: str) -> str:
        """Return what printing *expression* prints."""
        return self.run(f"print({expression})").stdout.rstrip("\n")

    def complete(self, code: str, cursor: int | None = None, timeout: float = 60.0) -> list[str]:
        """Return what Tab offers at *cursor* (by default the end) of a cell, each as the text before the cursor."""
        cursor = len(code) if cursor is None else cursor
        request = self._client.complete(code, cursor)
        while (reply := self._client.get_shell_msg(timeout=timeout))["parent_header"].get("msg_id") != request:
            pass
        found = reply["content"]
        assert found["cursor_end"] == cursor
        return [code[: found["cursor_start"]] + match for match in found["matches"]]

    def interrupt(self) -> None:
        """Stop what is running, as the stop button does."""
        self._manager.interrupt_kernel()

    def _next(self, end: float) -> dict[str, Any]:
        try:
            message: dict[str, Any] = self._client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            raise TimeoutError("the cell did not end in time") from None
        return message
