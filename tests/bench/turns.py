"""What a turn costs in a real kernel, beside the ten lines that people write themselves: CPU, and TCP connections.

Run with ``python -m tests.bench.turns``.
"""

from __future__ import annotations

import statistics

from tests.bench.far import Far, far_server
from tests.kernel import RealKernel

HISTORY = (10, 100, 400)
WINDOW = 15

PLAIN = """
from openai import OpenAI
client = OpenAI()
messages = []
def ask(prompt, **how):
    messages.append({"role": "user", "content": prompt})
    text = ""
    for chunk in client.chat.completions.create(
        model="m", messages=messages, stream=True, stream_options={"include_usage": True}, **how
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            print(chunk.choices[0].delta.content, end="")
            text += chunk.choices[0].delta.content
    messages.append({"role": "assistant", "content": text})
"""

OURS = (
    "%%chat bench\nA question of about twenty words, as long as what people usually type into a cell, or a bit longer."
)
THEIRS = "ask('A question of about twenty words, as long as what people usually type into a cell, or a bit longer.')"
EMPTY = "pass"


def cpu_of(kernel: RealKernel, code: str, count: int) -> float:
    """Run *code* in *count* cells and return the median CPU of one, in milliseconds."""
    spent = []
    for _ in range(count):
        before = float(kernel.evaluate("__import__('time').process_time()"))
        assert kernel.run(code).status == "ok"
        spent.append(float(kernel.evaluate("__import__('time').process_time()")) - before)
    return statistics.median(spent) * 1000


def per_turn(kernel: RealKernel, code: str, name: str) -> None:
    """Print the CPU of a turn at several lengths of the history."""
    done = 0
    for length in HISTORY:
        while done < length - WINDOW // 2:
            kernel.run(code)
            done += 1
        print(f"{name:10} {length:4} turns of history: {cpu_of(kernel, code, WINDOW):6.1f} ms CPU a turn")
        done += WINDOW


def per_token(kernel: RealKernel, code: str, name: str) -> None:
    """Print the CPU of 1,000 streamed tokens."""
    print(f"{name:10} 1,000 tokens: {cpu_of(kernel, code, 5):6.0f} ms CPU")


def connections(far: Far, kernel: RealKernel, code: str, name: str) -> None:
    """Print how many TCP connections 20 turns take."""
    before = far.connections
    for _ in range(20):
        kernel.run(code)
    print(f"{name:10} 20 turns: {far.connections - before} new TCP connections")


def main() -> None:
    """Print everything."""
    with far_server() as far:
        env = {"OPENAI_BASE_URL": far.url, "OPENAI_API_KEY": "sk-bench", "CHATMAGIC_MODEL": "m"}
        with RealKernel(env) as ours, RealKernel(env) as theirs:
            ours.run("%load_ext chatmagic")
            theirs.run(PLAIN)
            print(f"{'(empty)':10} a cell that does nothing: {cpu_of(ours, EMPTY, WINDOW):6.1f} ms CPU")
            before = far.connections
            per_turn(ours, OURS, "chatmagic")
            print(
                f"{'chatmagic':10} {HISTORY[-1] + WINDOW // 2} turns so far: {far.connections - before} TCP connections"
            )
            per_turn(theirs, THEIRS, "plain loop")
            connections(far, ours, OURS, "chatmagic")
            connections(far, theirs, THEIRS, "plain loop")
            ours.run("%chat clear")
            theirs.run("messages.clear()")
            per_token(ours, "%%chat bench --once --set max_completion_tokens=1000\nhi", "chatmagic")
            per_token(theirs, "ask('hi', max_completion_tokens=1000)", "plain loop")


if __name__ == "__main__":
    main()
