"""Summaries and facts as a person sees them in a real JupyterLab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import Lab, chat_notebook, needs_chromium
from tests.server import Answer, ChatServer, chunk, sse
from tests.test_browser_usage import SETUP, fits

pytestmark = needs_chromium

SUMMARY = """\
## Goal and state
Two **samples**.</summary><img src=x onerror="document.title='harm'"><script>document.title='harm'</script>

## To remember
- Ada's key <b>facts</b>."""


def answer(body: dict[str, Any]) -> Answer:
    order = "Summarize this conversation." in body["messages"][-1]["content"]
    read = sum(len(message["content"]) // 4 + 4 for message in body["messages"])
    usage = {"prompt_tokens": read, "completion_tokens": 30, "total_tokens": read + 30}
    text = SUMMARY if order else "pong"
    return Answer([sse(chunk(text, finish="stop"), {"choices": [], "usage": usage}, "[DONE]")])


@pytest.fixture
def scribe(server: ChatServer) -> ChatServer:
    """A server that writes summaries."""
    server.otherwise = answer
    return server


def test_a_summary_is_folded_into_the_cell(page: Page, lab: Lab, root: Path, scribe: ChatServer) -> None:
    """At a cut the cell says what it does; the summary is folded away, opens with a click, and does no harm."""
    ask = "%%chat{}\n{{{{ 'some words ' * 150 }}}}"
    first = ask.format(" --context summary:1500 --learn")
    chat = chat_notebook(page, lab, root, SETUP.format(url=scribe.url), first, *[ask.format("")] * 4, "%chat facts")
    chat.run_all()
    outputs = [chat.output(number) for number in range(2, 7)]
    summed = next(output for output in outputs if "summarized from here on" in output.inner_text())

    heading = summed.get_by_role("heading", name="Goal and state")
    expect(heading).not_to_be_visible()
    summed.get_by_text("summary of what is not sent any more").click()
    expect(heading).to_be_visible()
    expect(summed.locator("img, script")).to_have_count(0)
    assert "harm" not in page.title()
    expect(summed.get_by_text("summary by gpt-6-luna: ")).to_contain_text("tokens in, 30 out, $0.0")
    expect(summed).to_contain_text("1 fact is proposed, and not kept")
    facts = chat.output(7)
    expect(facts.locator("tbody tr")).to_have_count(1)
    expect(facts).to_contain_text("Ada's key <b>facts</b>.")
    assert fits(facts)


def test_a_summary_can_be_edited(page: Page, lab: Lab, root: Path, scribe: ChatServer) -> None:
    """%chat compact shows what it has written; --edit puts it into a new cell below."""
    chat = chat_notebook(
        page,
        lab,
        root,
        SETUP.format(url=scribe.url),
        "%%chat a\none",
        "%%chat\ntwo",
        "%chat compact",
        "%chat compact --edit",
    )
    chat.run_all()

    shown = chat.output(4)
    expect(shown.get_by_role("heading", name="Goal and state")).to_be_visible()
    expect(shown).to_contain_text("1 turn (#1) summarized: ~")
    expect(shown.locator("img, script")).to_have_count(0)
    page.wait_for_timeout(300)
    new = [
        source
        for source in chat.sources
        if source.startswith("%%chat a --summary\n## Goal and state\nTwo **samples**.")
    ]
    assert len(new) == 1
