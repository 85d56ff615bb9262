"""What a person sees: pages, and views that are shown a turn event by event."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.messages import Cell, Sent, Summary, Turn, Usage
from chatmagic.conversation.settings import Settings
from chatmagic.display.page import Look, Page, conversation, footer, live, table, tokens, turn_page
from chatmagic.display.render import NotebookView, TerminalView
from chatmagic.events import Delta, Event, Reasoning, Remark, Sending, Waiting
from chatmagic.markdown import to_html

TURN = Turn("prompt", "**bold** reply", number=3, model="demo", endpoint="demo", usage=Usage(1200, 34, 900))

EVIL = "<img src=x onerror=alert(1)>\"'><script>x</script>\x1b[31m\u202e"


class Screen:
    """Takes the place of IPython's publishing, and keeps what was published, when, and in which thread."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.arrived = threading.Event()

    def __call__(
        self, data: dict[str, str], metadata: dict[str, Any] | None = None, *, transient: dict[str, str], update: bool
    ) -> None:
        self.shown.append(
            {
                "data": data,
                "metadata": metadata,
                "id": transient["display_id"],
                "update": update,
                "at": time.monotonic(),
            }
        )
        self.arrived.set()

    def wait(self) -> dict[str, Any]:
        """Return the next thing that is published."""
        assert self.arrived.wait(5)
        self.arrived.clear()
        return self.shown[-1]


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def view(screen: Screen) -> NotebookView:
    view = NotebookView(screen)
    view.start("tutor", "demo")
    return view


def tags(html: str) -> set[str]:
    """All tags that an HTML5 parser sees."""
    tree = html5lib.parse(html, namespaceHTMLElements=False)
    return {element.tag for element in tree.iter() if isinstance(element.tag, str)}


def test_turn_is_html_and_text_and_metadata() -> None:
    """A finished turn has its reply and footer as HTML and as text, and all that is needed to rebuild it."""
    page = turn_page("tutor", TURN, ["a notice"])
    data, metadata = page._repr_mimebundle_()

    assert sorted(data) == ["text/html", "text/markdown", "text/plain"]
    assert data["text/markdown"].startswith("**bold** reply\n")
    assert "<strong>bold</strong> reply" in data["text/html"]
    assert data["text/plain"] == "**bold** reply\n\na notice\ntutor · demo · 1,200 tokens in (75% cached), 34 out"
    record = metadata["chatmagic"]
    assert (record["session"], record["turn"], record["parent"], record["prompt"]) == ("tutor", 3, None, "prompt")
    assert record["usage"] == {
        "input_tokens": 1200,
        "output_tokens": 34,
        "cached_tokens": 900,
        "cache_write_tokens": None,
        "cost": None,
        "reasoning_tokens": None,
    }


def test_metadata_names_parent_cell_and_settings() -> None:
    """The metadata of a turn leads to its parent and its cell, and holds what the cells had asked for."""
    turn = Turn(
        "p",
        "r",
        parent=TURN,
        number=4,
        cells=(Cell("c-1", "e-1"),),
        settings=Settings({"seed": 1}, frozenset({"top_p"})),
    )
    record = turn_page("tutor", turn).metadata["chatmagic"]

    assert (record["parent"], record["cells"], record["in_conversation"]) == (3, ["c-1"], True)
    assert record["settings"] == {"values": {"seed": 1}, "unset": ["top_p"]}


@pytest.mark.parametrize(
    ("usage", "text"),
    [
        (Usage(), "tokens unknown"),
        (Usage(5, None), "tokens unknown"),
        (Usage(5, 0), "5 tokens in, 0 out"),
        (Usage(1000, 20, 0), "1,000 tokens in (0% cached), 20 out"),
        (Usage(0, 20, 0), "0 tokens in, 20 out"),
    ],
    ids=["unknown", "half known", "zero out", "nothing cached", "zero in"],
)
def test_tokens(usage: Usage, text: str) -> None:
    """Unknown is shown as unknown, and zero as zero."""
    assert tokens(Turn("a", "A", usage=usage)) == text


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"finish": "length"}, "ended by length"),
        ({"status": "interrupted", "finish": None}, "interrupted"),
        ({"status": "cut", "finish": None}, "cut"),
        ({"number": None}, "not stored"),
    ],
    ids=["length", "interrupted", "cut", "once"],
)
def test_footer_says_how_it_ended(changes: dict[str, Any], end: str) -> None:
    """An ending other than stop stands in the footer."""
    fields: dict[str, Any] = {"number": 1, "model": "m", **changes}

    assert footer("s", Turn("p", "r", **fields)).endswith(f" · {end}")


PAGES: dict[str, Callable[[str], Page]] = {
    "reasoning": lambda text: turn_page("s", Turn("p", "r", reasoning=text)),
    "thinking": lambda text: live("", [text], text),
    "reply": lambda text: turn_page("s", Turn("p", text, model="m")),
    "model": lambda text: turn_page("s", Turn("p", "r", model=text)),
    "session": lambda text: turn_page(text, TURN),
    "notice": lambda text: turn_page("s", TURN, [text]),
    "ending": lambda text: turn_page("s", Turn("p", "r", finish=text)),
    "live": lambda text: live(to_html(text), [text]),
    "live without HTML": lambda text: live("", [text], text=text),
    "prompt": lambda text: conversation("s", text, [Turn(text, "r", number=1)]),
    "table": lambda text: table([text, text], [[text, text]], note=text),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_hostile_text_is_harmless(page: Callable[[str], Page]) -> None:
    """Wherever hostile text stands, it makes no element of its own and brings no control character to a terminal."""
    shown = page(EVIL)

    assert not tags(shown.html) & {"img", "script"}
    assert not set("\x1b\u202e") & set(shown.text)


@given(st.text())
def test_any_reply_makes_a_page(text: str) -> None:
    """Whatever a model says can be shown and sent to a front end."""
    page = turn_page("s", Turn("p", text))

    assert page.html.encode()
    assert page.text.encode()


def test_a_new_summary_is_folded_away() -> None:
    """The summary that is sent for the first time is folded into the turn; the next turn does not repeat it."""
    sent = Sent("summary", summary=Summary("We *met* <b>Ada</b>.", 3))
    first = Turn("p", "r", number=4, model="m", sent=sent)
    later = Turn("p", "r", number=5, model="m", sent=sent, parent=first)

    html = turn_page("s", first).html
    assert (
        html.index("<details><summary") < html.index("We <em>met</em>") < html.index("</details>") < html.index("r</p>")
    )
    assert "<b>" not in html
    assert "We " not in turn_page("s", later).html


def test_reasoning_is_folded_away() -> None:
    """What a model thought is there to be opened, exact, and is counted in the footer if the server counted it."""
    turn = Turn("p", "r", reasoning="I *think*\n  $so$", number=1, model="m", usage=Usage(5, 9, None, 7))
    page = turn_page("s", turn)

    assert "<details><summary" in page.html
    assert "reasoning (3 words)" in page.html
    assert "I *think*\n  $so$" in page.html
    assert page.text == "r\n\ns · m · 5 tokens in, 9 out (7 reasoning)"


def test_only_the_end_of_long_thoughts_is_painted() -> None:
    """While a model thinks, what is painted again and again does not grow for ever."""
    assert len(live("", ["line"], "word " * 10_000).html) < 3000


def test_table_is_aligned() -> None:
    """In text the columns of a table stand below each other, numbers to the right."""
    assert table(
        ["name", "count"], [["a", "1"], ["long name", "1,000"]], numbers={1}, note="done"
    ).text.splitlines() == [
        "name       count",
        "a              1",
        "long name  1,000",
        "done",
    ]


def play(view: NotebookView | TerminalView, *events: Event) -> None:
    for event in events:
        view.show(event)


def test_instant_reply_is_painted_once(view: NotebookView, screen: Screen) -> None:
    """An instant reply is one display_data, with the whole turn, and no update."""
    play(view, Sending("demo", instant=True), Delta("**bold**"), Delta(" reply"))
    time.sleep(0.5)
    view.finish("tutor", TURN, [])

    assert [shown["update"] for shown in screen.shown] == [False]
    assert screen.shown[0]["data"]["text/html"] == turn_page("tutor", TURN).html


def test_first_words_are_painted_at_once(view: NotebookView, screen: Screen) -> None:
    """The first delta is on the screen before anything else comes."""
    play(view, Sending("far"))
    time.sleep(0.2)  # the painter's thread has begun
    play(view, Delta("first words"))

    assert "first words" in screen.wait()["data"]["text/html"]
    view.finish("tutor", TURN, [])


def test_paints_are_few_and_end_in_one_output(view: NotebookView, screen: Screen) -> None:
    """A reply that streams is painted at most ten times a second, always into the same output, and whole at the end."""
    started = time.monotonic()
    play(view, Sending("far"))
    for number in range(100):
        play(view, Delta(f"word{number} "))
        time.sleep(0.01)
    view.finish("tutor", TURN, [])
    seconds = time.monotonic() - started

    assert 3 <= len(screen.shown) <= seconds * 10 + 3
    assert len({shown["id"] for shown in screen.shown}) == 1
    assert [shown["update"] for shown in screen.shown] == [False] + [True] * (len(screen.shown) - 1)
    assert screen.shown[-1]["data"]["text/html"] == turn_page("tutor", TURN).html


def test_silent_server_leaves_a_clock(view: NotebookView, screen: Screen) -> None:
    """While nothing comes, the cell says whom it waits for, and whether the model is thinking."""
    play(view, Sending("far"))
    assert "tutor · demo · waiting" in screen.wait()["data"]["text/html"]
    play(view, Reasoning("hm"))
    assert "tutor · demo · thinking" in screen.wait()["data"]["text/html"]
    view.finish("tutor", TURN, [])


def test_thoughts_run_until_the_reply_comes(view: NotebookView, screen: Screen) -> None:
    """Reasoning is on the screen while it runs, and gives way to the reply."""
    play(view, Sending("far"), Reasoning("let me see"))
    assert "let me see" in screen.wait()["data"]["text/html"]
    play(view, Delta("here it is"))
    time.sleep(0.3)
    view.finish("tutor", TURN, [])

    live_page = screen.shown[-2]["data"]["text/html"]
    assert "here it is" in live_page
    assert "let me see" not in live_page


def test_remark_is_shown_at_once(view: NotebookView, screen: Screen) -> None:
    """What was decided on the way can be read while the reply is awaited."""
    play(view, Sending("far"), Remark("3 turns now go elsewhere"))

    assert "3 turns now go elsewhere" in screen.wait()["data"]["text/html"]
    view.fail([])


def test_countdown_is_shown(view: NotebookView, screen: Screen) -> None:
    """Before a retry the reason and the seconds left are on the screen."""
    play(view, Sending("far"), Waiting("busy (try 2 of 4)", 3))

    assert "busy (try 2 of 4); again in 3 s" in screen.wait()["data"]["text/html"]
    view.fail([])


def test_failure_leaves_nothing_behind(view: NotebookView, screen: Screen) -> None:
    """When there is no turn, what was painted while waiting goes away."""
    play(view, Sending("far"))
    screen.wait()
    view.fail([])

    assert screen.shown[-1]["data"] == {}
    assert screen.shown[-1]["update"]


def test_failure_keeps_its_notices(view: NotebookView, screen: Screen) -> None:
    """What was decided on the way to a failure stays on the screen."""
    play(view, Sending("far"))
    view.fail(["sent again"])

    assert "sent again" in screen.shown[-1]["data"]["text/html"]


def test_failure_before_anything_shows_nothing(view: NotebookView, screen: Screen) -> None:
    """A request that is refused at once leaves no output beside the error."""
    view.fail([])

    assert screen.shown == []


def test_no_thread_is_left(view: NotebookView) -> None:
    """When the turn is over, so is its painter."""
    before = threading.active_count()
    play(view, Sending("far"), Delta("x"))
    assert threading.active_count() == before + 1
    view.finish("tutor", TURN, [])

    assert threading.active_count() == before


def test_terminal_streams_text() -> None:
    """In a terminal the words are written as they come, then a blank line, the notices and the footer."""
    written: list[str] = []
    view = TerminalView(written.append)
    view.start("tutor", "demo")
    play(view, Sending("far"), Delta("**bold**"), Delta(" reply"))
    assert written == ["**bold**", " reply"]
    view.finish("tutor", TURN, ["a notice"])

    assert "".join(written) == "**bold** reply\n\na notice\n" + footer("tutor", TURN) + "\n"


@given(st.lists(st.text(alphabet=st.sampled_from("a\x1b[]2J\x07\x9b\r\n\u202e\x00"))))
def test_terminal_gets_no_control_sequences(deltas: list[str]) -> None:
    """Whatever a model says, and however it is cut, nothing that steers a terminal is written."""
    written: list[str] = []
    view = TerminalView(written.append)
    for delta in deltas:
        view.show(Delta(delta))
    view.finish("\x1b[2Js", Turn("p", "r", model="\x1b[2J"), ["\x1b]0;x\x07"])

    assert not set("\x1b\x07\x9b\r\u202e\x00") & set("".join(written))


def test_terminal_says_remarks_at_once_and_not_again() -> None:
    """A remark is a line of its own before the reply, and does not come back below it."""
    written: list[str] = []
    view = TerminalView(written.append)
    play(view, Remark("2 turns go elsewhere"), Reasoning("hm"), Reasoning("hm"), Delta("reply"))
    view.finish("tutor", TURN, ["2 turns go elsewhere"])

    assert "".join(written) == f"2 turns go elsewhere\nthinking …\nreply\n\n{footer('tutor', TURN)}\n"


def test_terminal_says_a_wait_once() -> None:
    """A countdown is one line in a terminal."""
    written: list[str] = []
    view = TerminalView(written.append)
    play(view, Waiting("busy", 3), Waiting("busy", 2), Waiting("busy", 1))

    assert written == ["busy; again in 3 s\n"]


@pytest.mark.parametrize(
    ("mime", "kinds"),
    [
        (("text/html", "text/markdown"), ["text/html", "text/markdown", "text/plain"]),
        (("text/html",), ["text/html", "text/plain"]),
        (("text/markdown",), ["text/markdown", "text/plain"]),
        ((), ["text/plain"]),
    ],
)
def test_what_a_reply_is_shown_as(mime: tuple[str, ...], kinds: list[str]) -> None:
    """A turn has the MIME types that are wanted, and always text."""
    data, _ = turn_page("tutor", TURN, look=Look(mime=mime))._repr_mimebundle_()
    assert sorted(data) == kinds


def test_markdown_is_defused() -> None:
    """In the Markdown, too, what a model or a server writes makes no HTML, wherever it stands."""
    turn = Turn(EVIL, f"{EVIL}\n\n```x{EVIL}\n```", number=1, model=EVIL)
    markdown = turn_page("tutor", turn, [EVIL]).markdown
    assert not re.search(r"<\w", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL))
    assert "bold" in turn_page("tutor", TURN).markdown


def test_pictures_are_links_unless_they_are_wanted() -> None:
    """A picture of the web is loaded only where somebody has asked for that."""
    turn = Turn("p", "![a cat](https://example.org/cat.png)", number=1)
    assert "<img" not in turn_page("tutor", turn).html
    assert 'href="https://example.org/cat.png"' in turn_page("tutor", turn).html
    for page in (turn_page("t", turn, look=Look(images=True)), conversation("t", None, [turn], look=Look(images=True))):
        assert re.search(r'<img[^>]* src="https://example.org/cat.png"', page.html)


def test_growing_reply_without_html(screen: Screen) -> None:
    """Where no HTML is wanted, a growing reply is text."""
    view = NotebookView(screen, look=Look(mime=()))
    view.start("tutor", "m")
    view.show(Sending("there"))
    view.show(Delta("some **words**"))
    while "words" not in screen.wait()["data"]["text/plain"]:
        pass
    assert list(screen.shown[-1]["data"]) == ["text/plain"]
    view.finish("tutor", TURN, [])
