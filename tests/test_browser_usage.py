"""What was used, and what will be sent, as a person sees it in a real JupyterLab."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import Lab, chat_notebook, needs_chromium
from tests.server import Answer, ChatServer, chunk, sse

pytestmark = needs_chromium

# Tokens in, of them cached, and out.
COUNTS = [(2000, 0, 300), (2400, 2304, 150), (3000, 0, 600), (4000, 3584, 0), (4400, 1024, 50)]
WORDS = [1950, 380, 580, 980, 380]  # of each prompt: about what these counts may stand for

SETUP = """\
import os
os.environ['OPENAI_BASE_URL'] = {url!r}
%config ChatMagic.models = {{'openai': {{'window': 32768, 'input': 10.0, 'cached': 1.0, 'output': 50.0}}}}"""


def counted(sent: int, cached: int, came: int) -> Answer:
    """A reply with a report of what it used."""
    usage = {
        "prompt_tokens": sent,
        "completion_tokens": came,
        "total_tokens": sent + came,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return Answer([sse(chunk("pong", finish="stop"), {"choices": [], "usage": usage}, "[DONE]")])


def fits(output: Locator) -> bool:
    """True if nothing in *output* is wider than it is, or reaches beyond its right edge."""
    return bool(
        output.evaluate(
            """output => {
                const edge = output.getBoundingClientRect().right + 1;
                return [output, ...output.querySelectorAll("*")].every(each =>
                    each.scrollWidth <= Math.max(each.clientWidth, each.offsetWidth) + 1
                    && each.getBoundingClientRect().right <= edge);
            }"""
        )
    )


def heights(output: Locator) -> list[list[float]]:
    """How high the pieces of each bar of the picture are on the screen."""
    found: list[list[float]] = output.get_by_role("img", name="tokens of each turn").evaluate(
        """picture => [...picture.children].map(
            bar => [...bar.children].map(piece => piece.getBoundingClientRect().width > 3
                ? piece.getBoundingClientRect().height : 0))"""
    )
    return found


def rows(output: Locator) -> list[list[str]]:
    """The cells of the table's body, as they are read."""
    return [row.locator("td").all_inner_texts() for row in output.locator("tbody tr").all()]


def test_usage_can_be_read(page: Page, lab: Lab, root: Path, server: ChatServer) -> None:
    """%chat usage shows bars as high as the counts and a table that fits, also after the notebook was saved."""
    server.answers += [counted(*counts) for counts in COUNTS]
    lines = ["", "", "", " -m a-model-with-quite-a-long-name-2027-01-31", " -s 'Be brief.'"]
    prompts = [f"%%chat{line}\n{{{{ 'word ' * {count} }}}}" for line, count in zip(lines, WORDS, strict=True)]
    chat = chat_notebook(page, lab, root, SETUP.format(url=server.url), *prompts, "%chat usage")
    chat.run_all()
    output = chat.output(7)

    def check() -> None:
        expect(output).to_have_count(1)
        expect(output.locator("tbody tr")).to_have_count(6)
        whole, table = 72 / 4450, rows(output)
        drawn = [[cached * whole, (sent - cached) * whole, came * whole] for sent, cached, came in COUNTS]
        assert [len(bar) for bar in heights(output)] == [sum(height > 0 for height in bar) for bar in drawn]
        assert [height for bar in heights(output) for height in bar] == pytest.approx(
            [each for bar in drawn for each in bar if each], abs=0.5
        )
        assert [row[0] for row in table] == ["#1", "#2", "#3", "#4", "#5", "all 5 turns"]
        assert [row[2:5] for row in table[:2]] == [["2,000", "0%", "300"], ["2,400", "96%", "150"]]
        assert [row[5] for row in table] == ["$0.0350", "$0.0108", "$0.0600", "$0.0077", "$0.0373", "$0.1508"]
        assert table[2][7].endswith("cache: for no known reason")
        assert table[4][7].endswith("cache: system prompt changed")
        expect(output).to_contain_text("5 requests, 15,800 tokens in, 1,100 out, $0.1508")
        assert fits(output)

    check()
    chat.save()
    page.reload()
    chat.wait_ready()
    check()


def test_context_can_be_read(page: Page, lab: Lab, root: Path, server: ChatServer) -> None:
    """%chat context shows role, beginning and size of every message, however long it is, in a table that fits."""
    server.answers += [counted(20, 0, 1), counted(2000, 0, 1)]
    chat = chat_notebook(
        page,
        lab,
        root,
        SETUP.format(url=server.url),
        "%%chat -s 'Be kind.' --context last:1\n<b>first</b>",
        f"%%chat\n{'Donaudampfschifffahrt' * 300}",
        "%chat context",
    )
    chat.run_all()
    output = chat.output(4)
    expect(output.locator("tbody tr")).to_have_count(4)
    table = rows(output)

    assert [row[:2] for row in table] == [["", "system"], ["#1", "not sent"], ["#2", "user"], ["#2", "assistant"]]
    assert [row[2] for row in table] == [
        "Be kind.",
        "<b>first</b>",
        ("Donaudampfschifffahrt" * 3)[:59] + "…",
        "pong",
    ]
    sizes = [int(row[3].removeprefix("~").replace(",", "")) for row in table]
    assert sizes[2] > 500 > 50 > max(sizes[0], sizes[1], sizes[3]) > 0
    expect(output.get_by_text("tokens before the next prompt")).to_contain_text("32,768")
    expect(output.get_by_text("1 turn not sent")).to_be_visible()
    assert fits(output)
