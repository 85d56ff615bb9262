"""A real llama.cpp server on loopback, with a tiny model of random weights.

Use it with any OpenAI client; the key and the model's name in a request do not matter:

    with llama_server(context=4096) as base_url:
        client = OpenAI(base_url=base_url, api_key="unused")
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import gguf
import numpy as np
from gguf import TokenType

MODEL = "tiny"
REPLY_TOKENS = 64  # The length of a reply when the request names none: a model of noise never stops by itself.
STARTUP_SECONDS = 30.0

TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROSE = """
    a all an and any are as at be because but by café can case chance data each error even every few for from good has
    have how if in is it large like mean model more most naïve no not number of on one only or other out question same
    sample small so some test than that the then there they this to two under value very was what when which with you β
"""
WORDS = PROSE.split()

WIDTH, FEED_FORWARD, HEADS, LAYERS = 64, 128, 2, 2
TRAINED_CONTEXT = 32_768


def write_model(path: Path) -> None:
    """Write a llama model (half a megabyte, the same every time) that answers anything with words from ``WORDS``.

    Those words with a blank before them are one token each, every other byte of a text is one too.
    """
    tokens, types = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    _add_architecture(writer)
    _add_tokenizer(writer, tokens, types)
    for name, tensor in _tensors(len(tokens)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> tuple[list[str], list[TokenType]]:
    # Words are "user defined" because those are matched as they stand: no merges are needed, and a reply that is
    # sent back becomes the very tokens that were generated, so that all of it is found in the server's cache.
    vocabulary = [
        ("<unk>", TokenType.UNKNOWN),
        ("<|im_start|>", TokenType.CONTROL),
        ("<|im_end|>", TokenType.CONTROL),
        *((f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)),
        ("\N{LOWER ONE EIGHTH BLOCK}", TokenType.NORMAL),  # a blank, in the spelling of SentencePiece
        *((f" {word}", TokenType.USER_DEFINED) for word in WORDS),
    ]
    return [token for token, _ in vocabulary], [kind for _, kind in vocabulary]


def _add_architecture(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(TRAINED_CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str], types: list[TokenType]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)


def _tensors(vocabulary: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed=7)

    def noise(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale / columns**0.5)

    output = noise(vocabulary, WIDTH)
    # Logits of zero for control and byte tokens: the best of many random words is always above.
    output[: -len(WORDS)] = 0
    ones = np.ones(WIDTH, dtype=np.float32)
    tensors = {"token_embd": noise(vocabulary, WIDTH, 8.0), "output": output, "output_norm": ones}
    for layer in range(LAYERS):
        block = {
            "attn_norm": ones,
            # Strong attention, so that a reply depends on the whole conversation.
            **{f"attn_{name}": noise(WIDTH, WIDTH, 3.0) for name in ("q", "k", "v", "output")},
            "ffn_norm": ones,
            "ffn_gate": noise(FEED_FORWARD, WIDTH),
            "ffn_up": noise(FEED_FORWARD, WIDTH),
            "ffn_down": noise(WIDTH, FEED_FORWARD),
        }
        tensors |= {f"blk.{layer}.{name}": tensor for name, tensor in block.items()}
    return {f"{name}.weight": tensor for name, tensor in tensors.items()}


@contextmanager
def llama_server(context: int = 4096, slots: int = 1, words: int = 0) -> Iterator[str]:
    """Run llama.cpp's own server for the length of the block; yields its base URL, ``http://127.0.0.1:PORT/v1``.

    *context* is the window of each of the *slots* in tokens, a multiple of 256 (llama.cpp rounds up). Replies are
    greedy unless a request says otherwise; with *words* each has so many and a full stop, and ends by itself. After a
    streamed reply the server closes the connection, without saying so in a header. Raises ``RuntimeError`` with the
    server's output when it does not start.
    """
    with TemporaryDirectory(prefix="llamacpp-") as directory:
        model, log = Path(directory, f"{MODEL}.gguf"), Path(directory, "server.log")
        write_model(model)
        command = [sys.executable, __file__, str(model), str(context), str(slots), str(words)]
        # The server ends when its input does, so it cannot outlive a test run that is killed.
        with (
            log.open("wb") as output,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT) as process,
        ):
            try:
                yield f"{_wait_until_healthy(process, log)}/v1"
            finally:
                process.kill()


def _wait_until_healthy(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + STARTUP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        ready = re.search(r"ready (http\S+)\n", log.read_text(errors="replace"))
        if ready and _is_healthy(ready[1]):
            return ready[1]
        time.sleep(0.01)
    state = "is not ready" if process.returncode is None else f"ended with status {process.returncode}"
    output = log.read_text(errors="replace")
    raise RuntimeError(f"llama.cpp's server {state} (at most {STARTUP_SECONDS:g} s are waited). It said:\n{output}")


def _is_healthy(url: str) -> bool:
    # Not urllib: that would ask a proxy from the environment.
    connection = HTTPConnection(urlsplit(url).netloc, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _serve(model: str, context: int, slots: int, words: int) -> None:
    # Imported in the subprocess only: a crash of native code must not take the tests with it.
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL}
    params.n_ctx = context * slots
    params.n_parallel = slots
    params.n_predict = REPLY_TOKENS
    params.sampling.temp = 0.0
    if words:
        one = " | ".join(f'" {word}"' for word in WORDS)
        grammar = f'root ::= word{{{words}}} "."\nword ::= {one}'
        params.sampling.grammar = xllamacpp.CommonGrammar(
            xllamacpp.common_grammar_type.COMMON_GRAMMAR_TYPE_USER, grammar
        )
    # Flash attention rounds a cached prompt unlike a fresh one: one reply of 40 tokens in fifty came out different.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # Threads of llama.cpp wait for each other in busy loops, which took fifty times as long on a busy machine.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    server = xllamacpp.Server(params)
    sys.stdout.write(f"ready {server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    _serve(sys.argv[1], *map(int, sys.argv[2:]))
