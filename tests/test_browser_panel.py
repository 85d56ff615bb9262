"""The panel in a real JupyterLab: clicked, typed into and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import Lab, Notebook, chat_notebook, needs_chromium

pytestmark = needs_chromium

Open = Callable[..., tuple[Notebook, Locator]]


@pytest.fixture
def panel_and(page: Page, lab: Lab, root: Path) -> Open:
    """Open a notebook with a panel in cell 1 and the other cells below, none of them run."""

    def open_panel(*cells: str) -> tuple[Notebook, Locator]:
        chat = chat_notebook(page, lab, root, "%chat panel", *cells)
        chat.run(0)
        chat.run(1)
        panel = chat.output(1).locator(".chatmagic-panel")
        expect(panel).to_be_visible()
        return chat, panel

    return open_panel


def button(panel: Locator, name: str) -> Locator:
    return panel.get_by_role("button", name=name, exact=True)


def chosen(panel: Locator) -> Locator:
    """The option of the switcher that is selected."""
    return panel.get_by_role("combobox", name="Session").locator("option:checked")


def test_follows_chat_cells(panel_and: Open) -> None:
    """The panel begins with a hint, and shows model and usage of each turn as it comes."""
    chat, panel = panel_and("%%chat tutor -m demo\nMy name is Ada", "%%chat\n30 words")
    expect(panel).to_contain_text("%%chat NAME")
    for name in ("Clear", "Undo", "Redo"):
        expect(button(panel, name)).to_be_disabled()

    chat.run(2)
    expect(chosen(panel)).to_have_text("tutor · 1 turn")
    expect(panel.locator("tr", has_text="last turn").locator("td")).to_have_text(["4", "unknown", "19"])
    chat.run(3)
    expect(chosen(panel)).to_have_text("tutor · 2 turns")
    expect(panel.locator("tr", has_text="all 2 turns").locator("td")).to_have_text(["29", "unknown", "49"])
    expect(panel).to_contain_text("Model demo")


def test_clear_undo_redo(panel_and: Open) -> None:
    """Clear empties the conversation for the next cell, Undo brings it back, and each says so."""
    chat, panel = panel_and("%%chat tutor -m demo\nMy name is Ada", "%%chat tutor -m demo\nwhat is my name?")
    chat.run(2)
    button(panel, "Clear").click()
    expect(panel.get_by_role("status")).to_contain_text("'tutor' is empty now: 1 turn set aside")
    expect(button(panel, "Clear")).to_be_disabled()
    button(panel, "Undo").click()
    expect(chosen(panel)).to_have_text("tutor · 1 turn")
    chat.run(3)

    expect(chat.output(3)).to_contain_text("Your name is Ada")
    button(panel, "Undo").click()
    expect(chosen(panel)).to_have_text("tutor · 1 turn")
    button(panel, "Redo").click()
    expect(chosen(panel)).to_have_text("tutor · 2 turns")


def test_new_and_switch(panel_and: Open) -> None:
    """The next cell goes where the panel was switched to, with the mouse or with the keyboard alone."""
    chat, panel = panel_and(*["%%chat -m demo\nhow many messages?"] * 3, "%chat sessions")
    field = panel.get_by_role("textbox", name="Name of a new session")
    field.fill("clicked")
    button(panel, "New").click()
    expect(chosen(panel)).to_have_text("clicked · 0 turns")
    expect(field).to_have_value("")
    chat.run(2)
    expect(chosen(panel)).to_have_text("clicked · 1 turn")

    field.focus()
    field.press_sequentially("typed")
    field.press("Enter")
    expect(chosen(panel)).to_have_text("typed · 0 turns")
    chat.run(3)
    expect(chosen(panel)).to_have_text("typed · 1 turn")

    panel.get_by_role("combobox", name="Session").select_option("clicked · 1 turn")
    expect(panel.get_by_role("status")).to_contain_text("'clicked'")
    chat.run(4)
    expect(chosen(panel)).to_have_text("clicked · 2 turns")

    field.fill("no good")
    button(panel, "New").click()
    expect(panel.get_by_role("status")).to_contain_text("'no good' cannot name a session")
    chat.run(5)
    assert [row.split("\t")[:2] for row in chat.output(5).locator("tr").all_inner_texts()[1:]] == [
        ["clicked *", "2"],
        ["typed", "1"],
    ]


def test_while_a_cell_streams(panel_and: Open) -> None:
    """A running cell has a sign in the panel, a thread's session appears, and a click waits for the cell's end."""
    thread = (
        "import chatmagic, threading\n"
        "def work(): chatmagic.session('thread').ask('hi', model='demo')\n"
        "threading.Timer(0.5, work).start()"
    )
    chat, panel = panel_and(thread, "%%chat tutor -m demo --set pace=10\n25 words")
    chat.run(2)
    chat.run(3, wait=False)

    expect(panel).to_contain_text("tutor is being asked")
    expect(panel.locator("option", has_text="thread · 1 turn")).to_have_count(1)
    panel.get_by_role("combobox", name="Session").select_option("thread · 1 turn")
    chat.wait_idle()
    expect(panel).not_to_contain_text("being asked")
    expect(chosen(panel)).to_have_text("thread · 1 turn")
    expect(panel.locator("option")).to_have_text(["thread · 1 turn", "tutor · 1 turn"])
    expect(panel.get_by_role("status")).to_contain_text("'thread'")


def test_reload_and_second_view(panel_and: Open, page: Page) -> None:
    """After a reload of the page, and in a second cell, it is the same panel and still works."""
    chat, panel = panel_and("%%chat tutor -m demo\nhi", "%chat")
    chat.run(2)
    expect(chosen(panel)).to_have_text("tutor · 1 turn")
    chat.save()
    page.reload()
    chat.wait_ready()
    expect(chosen(panel)).to_have_text("tutor · 1 turn")
    expect(panel).to_contain_text("all 1 turn")

    chat.run(3)
    button(chat.output(3), "Clear").click()
    expect(chosen(panel)).to_have_text("tutor · 0 turns")
    expect(panel.get_by_role("status")).to_contain_text("set aside")


def test_hostile_model(panel_and: Open, page: Page) -> None:
    """A model's name runs nothing and is no mathematics."""
    evil = 'demo:<img src=x onerror="window.evil=1">$x^2$'
    chat, panel = panel_and(f"import chatmagic\n%config ChatMagic.model = {evil!r}", "%chat new tutor")
    chat.run(2)
    chat.run(3)

    expect(panel).to_contain_text(evil)
    assert panel.locator("img, mjx-container").count() == 0
    assert page.evaluate("window.evil") is None


def test_narrow(panel_and: Open, page: Page) -> None:
    """In 400 pixels nothing is cut off."""
    chat, panel = panel_and("%%chat a-rather-long-name-of-a-session-to-choose -m demo\nhi")
    chat.run(2)
    page.set_viewport_size({"width": 768, "height": 900})

    expect(chosen(panel)).to_contain_text("1 turn")
    sizes = panel.evaluate("e => [e.clientWidth, e.scrollWidth, e.clientHeight, e.scrollHeight]")
    assert 300 < sizes[0] < 420
    assert (sizes[0], sizes[2]) == (sizes[1], sizes[3])
