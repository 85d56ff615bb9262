"""Sessions that come back after a kernel has ended, as a person sees it in a real JupyterLab."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import Lab, chat_notebook, needs_chromium

pytestmark = needs_chromium


def test_back_after_a_restart(page: Page, lab: Lab, root: Path) -> None:
    """After a restart the notebook's own sessions are listed first, and one goes on where it had been."""
    with_name = "%%chat tutor -m demo\nMy name is Ada"
    other = chat_notebook(page, lab, root, "%%chat elsewhere -m demo\nhi")
    other.run_all()
    chat = chat_notebook(page, lab, root, with_name, "%%chat\n6 words", "%chat undo")
    chat.run_all()
    chat.restart(
        "%load_ext chatmagic",
        "%chat resume",
        "%chat resume tutor",
        "%%chat\nwhat is my name?",
        "%chat resume nobody",
    )
    for number in range(4):
        chat.run(number)

    rows = chat.output(1).locator("tbody tr")
    expect(rows.first).to_contain_text(chat.path)
    expect(rows.first).to_contain_text("My name is Ada")
    expect(chat.output(1)).to_contain_text("elsewhere")
    expect(chat.output(2)).to_contain_text("'tutor' is back: 1 turn, asked just now")
    expect(chat.output(2)).to_contain_text("Variables of that kernel are gone.")
    expect(chat.output(3)).to_contain_text("Your name is Ada")
    chat.run(4)
    expect(chat.output(4)).to_contain_text("no session 'nobody' of an earlier kernel is in the journal")
