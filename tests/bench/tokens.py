"""How far the size of a request, as it is told before sending, is from what a server counts then.

Run with ``python -m tests.bench.tokens``. It fetches packages that hold vocabularies from the package index.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import pydoc_data.topics
import random
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import tiktoken
from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # published without types

from chatmagic.conversation.context import Planner
from chatmagic.conversation.estimate import estimate
from chatmagic.conversation.messages import Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import Settings
from chatmagic.conversation.tokens import Count, Gauge
from chatmagic.engine import run_turn
from chatmagic.errors import RequestError
from chatmagic.events import Delta, Event, Facts, Finished, Request, Sending, Used
from chatmagic.testing import SpyRenderer

TURNS = 40
FROM = 6
CONVERSATIONS = 10
PACKAGES = ("llama-index-core", "mistral-common", "sentencepiece")


def fetch(folder: Path) -> None:
    """Unpack the packages into *folder*."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check", *PACKAGES]
    subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)


def of_openai(folder: Path, name: str) -> Count:
    """Return a vocabulary of tiktoken, read from *folder* and not from the network."""

    def load(url: str, **_: str) -> dict[bytes, int]:
        file = next(folder.glob(f"**/{hashlib.sha1(url.encode()).hexdigest()}"))
        pairs = (line.split() for line in file.read_bytes().splitlines() if line)
        return {base64.b64decode(token): int(rank) for token, rank in pairs}

    define = getattr(openai_public, name)
    encoding = tiktoken.Encoding(**FunctionType(define.__code__, {**vars(openai_public), "load_tiktoken_bpe": load})())
    return lambda text: len(encoding.encode_ordinary(text))


def of_mistral(folder: Path) -> Count:
    """Return the vocabulary of Mistral's newer models."""
    file = max(folder.glob("mistral_common/data/tekken_*.json"))
    read = json.loads(file.read_bytes())
    config = read["config"]
    size = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {base64.b64decode(each["token_bytes"]): each["rank"] for each in read["vocab"][:size]}
    encoding = tiktoken.Encoding("tekken", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})
    return lambda text: len(encoding.encode_ordinary(text))


def of_sentences(folder: Path) -> Count:
    """Return the vocabulary of Mistral's first model: 32,000 pieces, like that of Llama 2."""
    sys.path.append(str(folder))
    model: Any = importlib.import_module("sentencepiece").SentencePieceProcessor()
    model.Load(str(folder / "mistral_common/data/tokenizer.model.v1"))
    return lambda text: len(model.EncodeAsIds(text))


@dataclass
class Server:
    """Counts as its *count* does, with a chat template around every message, and replies with *replies*."""

    count: Count
    replies: Iterator[str]
    first: int
    each: int

    def facts(self, model: str, parameters: Mapping[str, Any]) -> Facts:  # noqa: ARG002 - the Protocol's shape
        return Facts(("bench", model))

    def embed(self, model: str, texts: Sequence[str]) -> tuple[Sequence[Sequence[float]], int | None]:
        raise RequestError(f"{model} embeds nothing, so not {len(texts)} texts either")

    def stream(self, request: Request) -> Iterator[Event]:
        sent = self.first + sum(self.each + self.count(message.content) for message in request.messages)
        reply = next(self.replies)
        yield from (Sending("bench"), Delta(reply), Used(Usage(sent, self.count(reply) + 1)), Finished("stop"))


def paragraphs() -> list[str]:
    """Return pieces of English prose."""
    text = "\n\n".join(pydoc_data.topics.topics.values())
    return [piece for piece in text.split("\n\n") if 40 < len(piece) < 2000]


def functions() -> list[str]:
    """Return pieces of Python."""
    folder = Path(json.__file__).parent.parent
    names = ("argparse.py", "tarfile.py", "inspect.py", "typing.py", "json/decoder.py", "statistics.py", "csv.py")
    text = "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
    return [piece for piece in text.split("\n\n") if 40 < len(piece) < 2000]


def conversation(seed: int) -> tuple[list[str], list[str]]:
    """Return prompts and replies: mostly short questions and long answers, with prose, code and tables in both."""
    chance = random.Random(seed)
    prose, code = paragraphs(), functions()

    def piece(most: int) -> str:
        parts = [chance.choice(prose if chance.random() < 0.65 else code) for _ in range(chance.randint(1, most))]
        if chance.random() < 0.15:
            rows = (",".join(f"{chance.gauss(0, 100):.3f}" for _ in range(6)) for _ in range(20))
            parts.append("a,b,c,d,e,f\n" + "\n".join(rows))
        return "\n\n".join(parts)

    prompts = [
        piece(6) if chance.random() < 0.15 else " ".join(piece(1).split()[: chance.randint(5, 60)])
        for _ in range(TURNS)
    ]
    return prompts, [piece(6) for _ in range(TURNS)]


def errors(count: Count, ours: Count, seed: int, template: tuple[int, int]) -> list[float]:
    """Return the error of each turn's size, as a share of what the server counted."""
    prompts, replies = conversation(seed)
    server = Server(count, iter(replies), *template)
    session, planner = Session("bench"), Planner(Gauge(ours))
    for prompt in prompts:
        run_turn(
            session,
            prompt,
            client=server,
            renderer=SpyRenderer(),
            defaults=Settings({"model": "m", "context": "all", "system": "You are a careful programmer."}),
            planner=planner,
        )
    told = [(turn.sent.tokens if turn.sent else 0, turn.usage.input_tokens or 1) for turn in session.turns]
    return [abs(said - true) / true for said, true in told]


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetch(folder)
        o200k = of_openai(folder, "o200k_base")
        servers = {
            "o200k": (o200k, (3, 4)),
            "cl100k": (of_openai(folder, "cl100k_base"), (3, 4)),
            "tekken": (of_mistral(folder), (1, 2)),
            "sentencepiece 32k": (of_sentences(folder), (23, 9)),
        }
        print(f"error of the size before sending, {CONVERSATIONS} conversations of {TURNS} turns")
        print(f"{'server':18} {'counted by':12} {'turn 1':>8} {'turns 2-5':>10} {f'from {FROM}: mean':>15} {'p95':>7}")
        for server, (count, template) in servers.items():
            for ours, way in ((o200k, "vocabulary"), (estimate, "estimate")):
                runs = [errors(count, ours, seed, template) for seed in range(CONVERSATIONS)]
                first = statistics.mean(run[0] for run in runs)
                early = statistics.mean(each for run in runs for each in run[1 : FROM - 1])
                later = [each for run in runs for each in run[FROM - 1 :]]
                p95 = statistics.quantiles(later, n=20)[-1]
                print(f"{server:18} {way:12} {first:8.1%} {early:10.2%} {statistics.mean(later):15.3%} {p95:7.2%}")


if __name__ == "__main__":
    main()
