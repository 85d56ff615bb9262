"""A first chat in a real JupyterLab in a real browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import Lab, chat_notebook, needs_chromium
from tests.server import ChatServer, text_answer

pytestmark = needs_chromium


def test_conversation_with_the_demo(page: Page, lab: Lab, root: Path) -> None:
    """Cells make a conversation that is rendered: Markdown as Markdown, mathematics typeset, the footer below."""
    chat = chat_notebook(
        page, lab, root, "%%chat tutor -m demo\nMy name is Ada", "%%chat\nWhat is my name?", "%%chat\nthe mathematics"
    )
    chat.run_all()

    expect(chat.output(2).locator("strong")).to_have_text("Ada")
    expect(chat.output(3).locator("mjx-container").first).to_be_visible()
    expect(chat.output(2).get_by_text("tutor · demo · 27 tokens in, 14 out")).to_be_visible()
    assert [chat.output(n).count() for n in range(4)] == [0, 1, 1, 1]


def test_reply_grows_while_it_streams(page: Page, lab: Lab, root: Path, server: ChatServer) -> None:
    """The first words can be read long before the last ones have come; at the end there is one whole output."""
    server.answers.append(text_answer([f"word{n} " for n in range(40)], pause=0.1))
    chat = chat_notebook(page, lab, root, f"import os; os.environ['OPENAI_BASE_URL'] = {server.url!r}", "%%chat\nhi")
    chat.run(0)
    chat.run(1)
    chat.run(2, wait=False)

    expect(chat.output(2)).to_contain_text("word3")
    assert "word39" not in chat.output_text(2)
    chat.wait_idle()
    expect(chat.output(2)).to_contain_text("word39")
    assert chat.output(2).count() == 1


def test_stop_button(page: Page, lab: Lab, root: Path, server: ChatServer) -> None:
    """Stopping keeps the words on the screen, and says below them what was kept and how to drop it."""
    server.answers.append(text_answer([f"word{n} " for n in range(300)], pause=0.1))
    chat = chat_notebook(page, lab, root, f"import os; os.environ['OPENAI_BASE_URL'] = {server.url!r}", "%%chat\nhi")
    chat.run(0)
    chat.run(1)
    chat.run(2, wait=False)
    expect(chat.output(2)).to_contain_text("word2")
    chat.interrupt()

    expect(chat.output(2).first).to_contain_text("word2")
    expect(chat.output(2).first).to_contain_text("interrupted")
    expect(chat.output(2).last).to_contain_text("InterruptedTurnError: stopped; what had come (")


def test_error_is_one_red_line(page: Page, lab: Lab, root: Path) -> None:
    """An error is a single line without a traceback."""
    chat = chat_notebook(page, lab, root, "%%chat --frob\nhi")
    chat.run_all()

    assert chat.output_text(1).strip().startswith("LineError: %%chat has no option '--frob'. ")
    assert chat.output(1).count() == 1


def test_reply_cannot_run_anything(page: Page, lab: Lab, root: Path) -> None:
    """HTML in a reply is text on the page, fresh and after a reload."""
    evil = 'hello\n<img src=x onerror="window.evil=1"><script>window.evil=1</script>'
    chat = chat_notebook(page, lab, root, f"%%chat -m demo\n{evil}")
    chat.run_all()
    expect(chat.output(1)).to_contain_text("onerror")
    chat.save()
    page.reload()
    chat.wait_ready()

    expect(chat.output(1)).to_contain_text("onerror")
    assert page.evaluate("window.evil") is None
    assert chat.output(1).locator("img").count() == 0


def test_a_formula_cannot_cover_the_footer(page: Page, lab: Lab, root: Path, server: ChatServer) -> None:
    """What is said about a reply can be read, whatever the reply draws below itself."""
    server.answers.append(text_answer([r"Fine. $\smash{\lower{5em}{\color{red}{\rule{60em}{5em}}}}$"]))
    chat = chat_notebook(page, lab, root, f"import os; os.environ['OPENAI_BASE_URL'] = {server.url!r}", "%%chat\nhi")
    chat.run_all()
    expect(chat.output(2).locator("mjx-container")).to_be_visible()
    footer = chat.output(2).get_by_text("main · gpt-6-luna")
    seen = "at => (box => document.elementFromPoint(box.x + 5, box.y + 5) === at)(at.getBoundingClientRect())"

    assert footer.evaluate(seen)
