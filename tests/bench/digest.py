"""How long it takes to sum up a book of 500 pages, and how many calls, by a server that takes a second for each.

Run with ``python -m tests.bench.digest``; where langchain-classic and langchain-openai can be imported, the chain for
this of LangChain runs beside ours, with pieces as long as ours. (What is in PYTHONPATH is moved to the end of the path:
it may hold them, and must not replace anything else.)

"read" is the share of its sentences that stood in the requests, word for word.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from chatmagic.conversation.estimate import estimate
from chatmagic.kernel import Kernel
from chatmagic.provider.client import OpenAIClient
from tests.server import Answer, ChatServer, chunk, sse

PAGES, WORDS = 500, 400
SECONDS = 1.0  # that a call takes
ANSWER = "A summary of what was read. " * 25

_SENTENCE = re.compile(r"S\d+x\d+ [^.]*\.")


def book() -> str:
    """Return pages of numbered sentences."""
    chance = random.Random(7)
    words = ["".join(chance.choices("aeioulnrstdmpk", k=chance.randint(2, 9))) for _ in range(4_000)]
    pages = []
    for page in range(PAGES):
        sentences = [f"S{page}x{n} {' '.join(chance.choices(words, k=19))}." for n in range(WORDS // 20)]
        pages.append("\n\n".join(" ".join(sentences[n : n + 5]) for n in range(0, len(sentences), 5)))
    return "\n\n".join(pages)


def answer(body: dict[str, Any]) -> Answer:
    """Return, after a second, always the same, as a stream or as a whole."""
    sent = sum(estimate(message["content"]) + 4 for message in body["messages"])
    usage = {"prompt_tokens": sent, "completion_tokens": estimate(ANSWER), "total_tokens": sent + estimate(ANSWER)}
    if body.get("stream"):
        parts = sse(chunk(ANSWER), chunk(finish="stop"), {"choices": [], "usage": usage}, "[DONE]")
        return Answer([SECONDS, parts])
    choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    whole = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return Answer([SECONDS, sse(whole).removeprefix(b"data: ")], headers={"Content-Type": "application/json"})


def row(name: str, text: str, act: Callable[[], object]) -> None:
    """Print what *act*, which sums up *text* by ``SERVER``, takes."""
    SERVER.bodies.clear()
    start, processor = time.perf_counter(), time.process_time()
    act()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    sent = "\n".join(message["content"] for body in SERVER.bodies for message in body["messages"])
    sentences = set(_SENTENCE.findall(text))
    read = len(sentences & set(_SENTENCE.findall(sent))) / len(sentences)
    print(f"{name:44}{len(SERVER.bodies):7}{estimate(sent):12,}{seconds:9.1f}{processor:9.1f}{read:8.1%}")


def ours(text: str, at_once: int, *, refine: bool = False) -> object:
    """Sum up *text* as ``chatmagic.summarize`` does it."""
    client = OpenAIClient({"bench": {"url": SERVER.url}}, environ={})
    return Kernel(client).summarize(text, model="bench:m", at_once=at_once, refine=refine)


def theirs(text: str, chain: Any, *, side_by_side: bool) -> object:
    """Sum up *text* as the chain of LangChain does it."""
    model = chain.openai.ChatOpenAI(
        model="m",
        base_url=SERVER.url,
        api_key="none",
        # Its own count would fetch a vocabulary.
        custom_get_token_ids=lambda each: list(range(estimate(each))),
    )
    pieces = Kernel().to_summarize(text).plan.pieces
    splitter = chain.splitters.RecursiveCharacterTextSplitter(chunk_size=len(text) // pieces, chunk_overlap=0)
    documents = splitter.create_documents([text])
    summarize = chain.summarize.load_summarize_chain(model, chain_type="map_reduce")
    if side_by_side:
        return asyncio.run(summarize.ainvoke({"input_documents": documents}))
    return summarize.invoke({"input_documents": documents})


def langchain() -> Any:
    """Return what is needed of LangChain, or None where it is not installed."""
    for path in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if path in sys.path:
            sys.path.remove(path)
            sys.path.append(path)
    names = {
        "classic": "langchain_classic",
        "summarize": "langchain_classic.chains.summarize",
        "splitters": "langchain_text_splitters",
        "openai": "langchain_openai",
    }
    try:
        chain = SimpleNamespace(**{name: importlib.import_module(module) for name, module in names.items()})
    except ImportError as exc:
        print(f"{exc.name} is not installed: the rows of LangChain are left out")
        return None
    print(f"langchain-classic {chain.classic.__version__}")
    return chain


def main() -> None:
    """Print a row for each."""
    text = book()
    words = len(text.split())
    print(f"{PAGES} pages, {words:,} words, ~{estimate(text):,} tokens; {SECONDS:.0f} s a call")
    warnings.simplefilter("ignore")
    chain = langchain()
    print(f"{'':44}{'calls':>7}{'tokens in':>12}{'seconds':>9}{'CPU':>9}{'read':>8}")
    for at_once in (1, 4, 16):
        row(f"chatmagic, {at_once} at once", text, lambda at_once=at_once: ours(text, at_once))  # type: ignore[misc]
    row("chatmagic, refine", text, lambda: ours(text, 1, refine=True))
    if chain is not None:
        row("load_summarize_chain(map_reduce), invoke", text, lambda: theirs(text, chain, side_by_side=False))
        row("load_summarize_chain(map_reduce), ainvoke", text, lambda: theirs(text, chain, side_by_side=True))


SERVER = ChatServer()
SERVER.otherwise = answer

if __name__ == "__main__":
    with SERVER:
        main()
