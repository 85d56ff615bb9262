"""A text that grows: what is finished stays as it is, and what is not looks like what it will become."""

from __future__ import annotations

import re
from typing import Any

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.growing import Growing, mended
from chatmagic.markdown import to_html

BLOCKS = [
    "A paragraph with **bold**, *emphasis*, `code` and [a link](https://example.org).",
    "# A heading\nand a paragraph right behind it",
    "- one\n- two\n  - three\n\n  a paragraph of two",
    "1. one\n2. two\n\n3. three",
    "```python\ndef f():\n\n    return 1\n```",
    "~~~~\n```\nnot the end\n```\n\n~~~~",
    "> a quote\n> - with a list\n>\n> and more",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |",
    "    indented code\n\n    goes on",
    "$$\nx = \\frac{1}{2}\n- y\n$$",
    "\\[ a + b \\]",
    "\\begin{align}\na &= b \\\\\nc &= d\n\\end{align}",
    "It costs $5 and $6, and $x^2$ is no price.",
    "---",
    "A title\n=======",
    "* * *",
    "* star\n* list",
    "2 * 3 * 4 and snake_case_name and ~~gone~~",
    "3",
    "<b>no HTML</b> &amp; an entity",
    "```\nnever closed",
    "  an indented\nparagraph\n- and a list without a blank line",
]
DOCUMENTS = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=7).flatmap(
    lambda blocks: st.lists(
        st.sampled_from(["\n\n", "\n", "\n\n\n", "\r\n\r\n", "\n \n"]), min_size=len(blocks), max_size=len(blocks)
    ).map(lambda gaps: "".join(block + gap for block, gap in zip(blocks, gaps, strict=True)))
)


def pieces(text: str, sizes: list[int]) -> list[str]:
    """Cut *text* into pieces of these sizes, again and again."""
    cut, number = [], 0
    while text:
        size = sizes[number % len(sizes)]
        cut.append(text[:size])
        text, number = text[size:], number + 1
    return cut


def shown(text: str) -> str:
    """What a person reads; code is left out."""
    tree: Any = html5lib.parseFragment(to_html(text), namespaceHTMLElements=False)
    for parent in list(tree.iter()):
        for child in list(parent):
            if child.tag in ("code", "figure"):
                parent.remove(child)
    return "".join(tree.itertext())


@settings(max_examples=300)
@given(DOCUMENTS, st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_parts_make_the_whole(text: str, sizes: list[int]) -> None:
    """However a text is split, its parts look one below the other as the text does, and nothing gets lost."""
    growing = Growing()
    parts = [growing.take(piece) for piece in pieces(text, sizes)]
    parts.append(growing.open)

    assert "".join(parts) == text.replace("\r\n", "\n")
    assert "".join(map(to_html, parts)) == to_html(text)


@given(
    st.text(st.sampled_from("ab1 \n\r\t`*_~#>-+|[]()$\\<&:=.!"), max_size=60),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_any_text(text: str, sizes: list[int]) -> None:
    """Nonsense gets lost nowhere, and is shown as far as it is held back or closed, and no further."""
    growing = Growing()
    parts = []
    for piece in pieces(text, sizes):
        parts.append(growing.take(piece))
        start = mended(growing.open).rstrip("*_~` \n")
        assert growing.open.startswith(start[: len(growing.open)]) or start in growing.open
    whole = "".join(parts) + growing.open + growing._half

    assert whole.replace("\r\n", "\n").replace("\r", "\n") == text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block != BLOCKS[-1]], ids=range(len(BLOCKS) - 1))
def test_nothing_broken_is_shown(block: str) -> None:
    """While a block comes character by character, no sign of Markdown is seen that is gone when it is whole."""
    signs = re.compile(r"\*\*|~~|`|\]\(|\$\$|\\[\[(]|\\begin|\|-|^\s*[-*+=#|]+\s*$", re.MULTILINE)
    final = set(signs.findall(shown(block)))
    for end in range(1, len(block) + 1):
        seen = shown(mended(block[:end]))
        assert set(signs.findall(re.sub(r"\\\(.*?\\\)|\\\[.*?\\\]", "", seen, flags=re.DOTALL))) <= final, block[:end]


@pytest.mark.parametrize(
    ("half", "whole"),
    [
        ("**bo", "**bo**"),
        ("a **b *c", "a **b *c***"),
        ("**", ""),
        ("a *", "a"),
        ("2 * 3", "2 * 3"),
        ("snake_case_na", "snake_case_na"),
        ("~~del", "~~del~~"),
        ("`cod", "`cod`"),
        ("``co`d", "``co`d``"),
        ("see [te", "see"),
        ("see [text](http://x", "see"),
        ("see [text](http://x) and", "see [text](http://x) and"),
        ("[x] is an index, [1, 2] a list", "[x] is an index, [1, 2] a list"),
        ("an image ![alt", "an image"),
        ("| a | b |", ""),
        ("| a | b |\n|--", ""),
        ("text\n\n| a | b |\n|--", "text\n"),
        ("| a | b |\n|---|---|\n| 1", "| a | b |\n|---|---|\n| 1"),
        ("| no table\nat all", ""),
        ("| no table\nat all\nreally", "| no table\nat all\nreally"),
        ("- a\n- ", "- a"),
        ("1. a\n2", "1. a"),
        ("para\n--", "para"),
        ("# ", ""),
        ("```py", ""),
        ("```py\nx = [1", "```py\nx = [1"),
        ("```py\nx\n``", "```py\nx"),
        ("```py\nx\n```\n**b", "```py\nx\n```\n**b**"),
        ("- ```py\n  x = **1", "- ```py\n  x = **1"),
        ("costs $5 and more", "costs $5 and more"),
        ("so $a+b", "so"),
        ("so $a+b$ and", "so $a+b$ and"),
        ("so $$a\n+b", "so"),
        (r"so \( a", "so"),
        ("a <br", "a"),
        ("a &am", "a"),
        ("a \\", "a"),
        ("two words " * 40 + "[never closed " + "x " * 200, "two words " * 40 + "[never closed " + "x " * 199 + "x"),
    ],
)
def test_mended(half: str, whole: str) -> None:
    """What is open is closed for the eye, and what cannot be shown yet waits."""
    assert mended(half) == whole
