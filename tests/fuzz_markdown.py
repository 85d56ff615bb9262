"""Coverage-guided search for a text that becomes harmful: ``python -m tests.fuzz_markdown [options of libFuzzer]``.

It needs atheris, which runs on Linux and macOS. A text that it finds is a test to be: put it into ``HOSTILE``.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Search until libFuzzer's options say that it is enough; end with an error at the first harmful text."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["chatmagic", "markdown_it", "mdit_py_plugins"]):
        from chatmagic.defused import to_markdown
        from chatmagic.markdown import to_html
    from tests.test_defused import as_html, harm
    from tests.test_markdown import HOSTILE, SIGNS, half_formulas, offences

    def check(data: bytes) -> None:
        cut, text = sum(data[:2]), data[2:].decode("utf-8", "surrogateescape")
        env: dict[str, Any] = {}
        images = bool(cut % 2)
        pages = [to_html(text, images=images), *(to_html(part, env=env) for part in (text[:cut], text[cut:]))]
        found = [offences(html, images=images) + half_formulas(html) for html in pages]
        found += [harm(html) for html in as_html(to_markdown(text))]
        if any(found):
            raise AssertionError(f"{text!r} cut at {cut}: {found}")

    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder) / "words.dict"
        words.write_text("".join(f'"{_quoted(sign)}"\n' for sign in SIGNS))
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for number, text in enumerate(HOSTILE.values()):
            (seeds / str(number)).write_bytes(b"ab" + text.encode(errors="surrogatepass"))
        atheris.Setup([*sys.argv, f"-dict={words}", f"-artifact_prefix={tempfile.gettempdir()}/", str(seeds)], check)
        atheris.Fuzz()


def _quoted(sign: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in sign.encode(errors="surrogatepass"))


if __name__ == "__main__":
    main()
