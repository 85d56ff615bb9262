"""What a tape costs: CPU of a turn that is recorded, replayed, or neither, and bytes on the tape.

Run with ``python -m tests.bench.tape``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from chatmagic.conversation.messages import Message
from chatmagic.events import Request
from chatmagic.provider.client import OpenAIClient
from chatmagic.provider.taping import Deck
from tests.server import ChatServer, text_answer

TURNS = (10, 100, 400)
REPLY = "A reply of about a hundred words, as they are. " * 10
PROMPT = (
    "Question {}, of about twenty words, as long as what people usually type into a cell, or a bit longer than that."
)


def cpu_of_turns(client: OpenAIClient) -> list[float]:
    """Ask as many questions as the longest conversation has, and return the CPU of each in ms."""
    spent, messages = [], list[Message]()
    for number in range(max(TURNS)):
        messages.append(Message("user", PROMPT.format(number)))
        before = time.process_time()
        for _ in client.stream(Request("m", messages, {})):
            pass
        spent.append((time.process_time() - before) * 1000)
        messages.append(Message("assistant", REPLY))
    return spent


def main() -> None:
    """Print CPU (but for a replay with that of the server, which runs in this process) and sizes."""
    with ChatServer() as server, tempfile.TemporaryDirectory() as folder:
        server.otherwise = lambda _: text_answer(REPLY)
        tape = Path(folder, "bench.tape")
        environ = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-bench"}
        for name in ("no tape", "record", "replay"):
            client = OpenAIClient(environ=environ)
            if name != "no tape":
                client.deck = Deck(environ)
                client.deck.put_in(tape, "record" if name == "record" else "replay")
            spent = cpu_of_turns(client)
            for length in TURNS:
                last = statistics.median(spent[max(0, length - 10) : length])
                print(f"{name:8} {length:5} turns: {last:6.1f} ms CPU a turn")
        size = tape.stat().st_size
        said = len(PROMPT) + len(REPLY)
        print(
            f"a tape of {max(TURNS)} turns: {size:,} bytes, {size / max(TURNS):.0f} a turn, of {said} characters each"
        )


if __name__ == "__main__":
    main()
