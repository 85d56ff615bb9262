"""What the turns of a session cost and what broke the cache: the sums, the rows, the picture."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from datetime import datetime
from typing import Any

import html5lib
import pytest

from chatmagic.conversation.caching import KEPT_FROM, broken_by
from chatmagic.conversation.messages import Sent, Status, Turn, Usage
from chatmagic.conversation.session import Session
from chatmagic.conversation.settings import NOTHING
from chatmagic.conversation.spending import Purse, Spent, dollars
from chatmagic.display.bill import bill
from chatmagic.display.page import Page
from chatmagic.errors import SpendingError

# What broke the cache

SENT = Sent("budget", "Be kind.", 0, (), 2000)


def before(**how: Any) -> Turn:
    """A turn after which the provider may have kept 2,000 tokens."""
    known = {"number": 1, "endpoint": "here", "model": "m", "sent": SENT, "size": 2000, "seconds": 10.0}
    return Turn("a", "A", **{**known, **how})


def after(parent: Turn | None, cached: int | None = 0, **how: Any) -> Turn:
    """The next turn, which begins as the last one ends."""
    usage = Usage(2100, 50, cached)
    known = {"number": 2, "endpoint": "here", "model": "m", "sent": SENT, "usage": usage, "started": 20.0}
    return Turn("b", "B", parent=parent, **{**known, **how})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "for no known reason"),
        ({"model": "n"}, "another model"),
        ({"endpoint": "there"}, "another model"),
        ({"sent": replace(SENT, system="Be brief.")}, "system prompt changed"),
        ({"sent": replace(SENT, system=None)}, "system prompt changed"),
        ({"sent": replace(SENT, start=5)}, "history cut"),
        ({"sent": replace(SENT, pinned=(1,))}, "pins changed"),
        ({"sent": replace(SENT, start=5, pinned=(1,))}, "history cut"),
        ({"sent": None}, "chosen by a function"),
        ({"started": 10.0 + 301.0}, "idle for 5 min"),
        ({"started": 10.0 + 7200.0}, "idle for 120 min"),
        ({"model": "n", "started": 1000.0}, "another model, idle for 16 min"),
        (
            {"sent": replace(SENT, system=None, start=2), "model": "n"},
            "another model, system prompt changed, history cut",
        ),
        ({"sent": replace(SENT, policy="all", tokens=9)}, "for no known reason"),
    ],
    ids=[
        *["nothing", "model", "endpoint", "system", "no system", "cut", "pins", "pins of a cut", "function", "idle"],
        *["long idle", "two", "three", "what breaks nothing"],
    ],
)
def test_broken_by(changes: dict[str, Any], reason: str) -> None:
    """Each change that a cache does not survive is named, the most likely one first."""
    assert re.split("[,;] ", broken_by(after(before(), **changes))) == reason.split(", ")


@pytest.mark.parametrize(
    ("size", "cached", "silent"),
    [
        (KEPT_FROM - 1, 0, True),
        (KEPT_FROM, 0, False),
        (2000, 999, False),
        (2000, 1000, True),
        (2000, 2000, True),
        (None, 0, True),
        (2000, None, True),
    ],
    ids=["short", "long enough", "less than half", "half", "all", "unknown size", "unknown count"],
)
def test_when_a_cache_is_broken(size: int | None, cached: int | None, silent: bool) -> None:
    """It is broken if less than half of what could have been kept was read; what nobody knows is not said."""
    turn = after(before(size=size), cached, model="n")

    assert broken_by(turn) == ("" if silent else "another model")


def test_the_first_turn_breaks_nothing() -> None:
    """There was nothing to keep before the first turn."""
    assert broken_by(after(None, model="n")) == ""


def test_a_reply_is_no_idling() -> None:
    """The time that the last reply took is not counted."""
    assert broken_by(after(before(seconds=1000.0), started=1020.0)) == "for no known reason"


# Amounts


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (1.2e-7, "$0.00000012"),
        (0.000012, "$0.000012"),
        (0.00009, "$0.00009"),
        (0.0001, "$0.0001"),
        (0.0042, "$0.0042"),
        (0.01, "$0.01"),
        (0.055, "$0.0550"),
        (0.5, "$0.50"),
        (0.99999, "$1.00"),
        (1, "$1.00"),
        (12.3, "$12.30"),
        (1234567.891, "$1,234,567.89"),
    ],
)
def test_dollars(amount: float, text: str) -> None:
    """An amount has the digits that say something: cents, or what a small one has."""
    assert dollars(amount) == text


@pytest.mark.parametrize("amount", [5e-8, 2e-8, 1e-9])
def test_next_to_nothing_is_not_nothing(amount: float) -> None:
    """However small a cost is, a digit of it is shown."""
    assert re.fullmatch(r"\$0\.0*[1-9]\d*", dollars(amount))


def paid(cost: float | None, tokens: int = 0) -> Usage:
    return Usage(tokens, tokens, cost=cost)


def test_spent_adds_up() -> None:
    """What is known is added up; what is not is counted."""
    spent = Spent()
    for used in (Usage(1000, 20, cost=0.25), Usage(5, 5), Usage(1, None, cost=0.0), Usage(), Usage(1, 1, cost=0.5)):
        spent.add(used)

    assert (spent.requests, spent.input_tokens, spent.output_tokens) == (5, 1007, 26)
    assert (spent.cost, spent.unpriced, spent.guessed) == (0.75, 2, False)
    assert spent.amount == "$0.75"
    assert re.fullmatch(r"5 requests, 1,007 tokens in, 26 out, \$0\.75 .*\b2\b.*price.*", str(spent))


def test_one_request() -> None:
    """One request is not called requests, and nothing is said of unknown prices where there is none."""
    spent = Spent()
    spent.add(paid(0.5, 7))

    assert str(spent) == "1 request, 7 tokens in, 7 out, $0.50"


def test_a_guess_marks_the_sum() -> None:
    """A sum with a guess in it carries a mark ever after; an amount of nothing is none."""
    spent = Spent()
    spent.add(paid(0.0, 7), guessed=True)
    assert (spent.amount, str(spent)) == ("$0.00", "1 request, ~7 tokens in, ~7 out, $0.00")

    spent.add(paid(0.25), guessed=True)
    spent.add(paid(1.0))
    assert (spent.amount, str(spent)) == ("~$1.25", "3 requests, ~7 tokens in, ~7 out, ~$1.25")


def test_spent_in_many_threads() -> None:
    """Nothing is lost when many sessions pay at once."""
    spent = Spent()

    def pay() -> None:
        for _ in range(500):
            spent.add(paid(0.5, 1))

    threads = [threading.Thread(target=pay) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (spent.cost, spent.requests, spent.input_tokens) == (2000.0, 4000, 4000)


@pytest.mark.parametrize(
    ("most", "cost", "passes"),
    [
        (1.0, 0.5, True),
        (1.0, 0.5001, False),
        (0.5, 0.0, True),
        (0.0, 0.0, True),
        (0.0, 1e-9, False),
        (0.4, None, True),
        (None, 100.0, True),
    ],
    ids=["just", "beyond", "free", "free at nothing", "little at nothing", "unknown", "no limit"],
)
def test_purse(most: float | None, cost: float | None, passes: bool) -> None:
    """A request may not pass the limit; what is free, or has no known price, is never held up."""
    spent = Spent()
    spent.add(paid(0.5 if most else 0.0))
    purse = Purse(spent, "this kernel", most, "%chat pay")
    if passes:
        purse.hold(cost, sure=True)
        return
    with pytest.raises(
        SpendingError, match=r"^this kernel has spent \$.* nothing was sent\. %chat pay raises the limit"
    ):
        purse.hold(cost, sure=False)


# The page


def conversation(*turns: Turn, name: str = "main") -> Session:
    """A session with *turns* as its line, which has paid for them."""
    session = Session(name)
    for turn in turns:
        session.add(replace(turn, parent=session.last))
        session.spent.add(turn.usage)
    return session


def turn(
    sent_in: int | None = None,
    came: int | None = None,
    cached: int | None = None,
    *,
    cost: float | None = None,
    **how: Any,
) -> Turn:
    """A turn with counts of tokens and a cost."""
    known = {"model": "m", "endpoint": "here", "settings": NOTHING}
    return Turn("p", "r", usage=Usage(sent_in, came, cached, cost=cost), **{**known, **how})


def guessed(sent: int, size: int | None, **how: Any) -> Turn:
    """A turn of which the server said nothing, and which was measured before and after."""
    return turn(sent=Sent("budget", tokens=sent), size=size, **how)


def parsed(page: Page) -> Any:
    return html5lib.parseFragment(page.html, namespaceHTMLElements=False)


def rows(page: Page) -> list[list[str]]:
    """The cells of the table, without its header."""
    return [["".join(cell.itertext()) for cell in row] for row in parsed(page).find(".//tbody")]


def bars(page: Page) -> list[list[float]]:
    """The heights of the pieces of each bar, in pixels."""
    picture = parsed(page).find("./div[@role='img']")
    if picture is None:
        return []
    styles = [[piece.attrib["style"] for piece in bar] for bar in picture]
    return [[float(re.findall(r"height:([\d.]+)px", style)[0]) for style in bar] for bar in styles]


def shown(*turns: Turn) -> Page:
    session = conversation(*turns)
    return bill(session, session.spent)


def test_a_row_for_each_turn_and_their_sum() -> None:
    """Each turn has its number, model, counts, share of the cache, cost, time; the last row has the sums."""
    clocks = [datetime.fromtimestamp(started).strftime("%H:%M") for started in (3600.0, 3660.0)]
    page = shown(
        turn(1000, 200, 0, cost=0.5, started=3600.0, seconds=2.54),
        turn(3000, 300, 1500, cost=0.25, model="n", started=3660.0, seconds=11.0),
    )

    assert rows(page) == [
        ["#1", "m", "1,000", "0%", "200", "$0.5000", f"{clocks[0]}, 2.5 s", ""],
        ["#2", "n", "3,000", "50%", "300", "$0.2500", f"{clocks[1]}, 11.0 s", ""],
        ["all 2 turns", "", "4,000", "38%", "500", "$0.7500", "", ""],
    ]
    text = [line.split()[:3] for line in page.text.splitlines()[:4]]
    assert text == [["turn", "model", "in"], ["#1", "m", "1,000"], ["#2", "n", "3,000"], ["all", "2", "turns"]]


@pytest.mark.parametrize(
    ("shown_turn", "cells"),
    [
        (turn(10, 5, 0, cost=0.0), ["10", "0%", "5", "free"]),
        (turn(10, 5, cost=None), ["10", "unknown", "5", "unknown"]),
        (turn(0, 5, 0, cost=0.1), ["0", "unknown", "5", "$0.1000"]),
        (turn(), ["unknown", "unknown", "unknown", "unknown"]),
        (guessed(1234, 2000), ["~1,234", "unknown", "~766", "unknown"]),
        (guessed(1234, 1230), ["~1,234", "unknown", "~0", "unknown"]),
        (guessed(1234, None), ["~1,234", "unknown", "unknown", "unknown"]),
    ],
    ids=["free", "no price", "nothing sent", "nothing known", "guessed", "joined replies", "no size"],
)
def test_what_is_not_known(shown_turn: Turn, cells: list[str]) -> None:
    """An estimate carries a mark, what is free is called so, and what nobody knows is unknown, never nothing."""
    assert rows(shown(shown_turn))[0][2:6] == cells


def test_an_answer_is_measured_from_what_was_reported() -> None:
    """Where only the prompt was counted by the server, the estimate of the reply is what the line has beyond it."""
    half = turn(1000, None, sent=Sent("budget", tokens=1300), size=1040)

    assert rows(shown(half))[0][2:5] == ["1,000", "unknown", "~40"]


@pytest.mark.parametrize(
    ("turns", "cells"),
    [
        ([turn(10, 5, 5, cost=0.1), turn()], ["≥ 10", "unknown", "≥ 5", "≥ $0.1000"]),
        ([turn(10, 5, 5, cost=0.1), turn(10, None, 0, cost=None)], ["20", "25%", "≥ 5", "≥ $0.1000"]),
        ([turn(10, 5, 5, cost=0.0), turn(10, 5, 5)], ["20", "50%", "10", "unknown"]),
        ([turn(), turn()], ["unknown", "unknown", "unknown", "unknown"]),
        ([turn(10, 5, 5, cost=0.0), turn(10, 5, cost=0.0)], ["20", "unknown", "10", "free"]),
        ([turn(10, 5, 5, cost=0.0), turn(10, 5, 5, cost=0.25)], ["20", "50%", "10", "$0.2500"]),
    ],
    ids=["one unknown", "one half known", "no price beside a free one", "nothing known", "free", "partly free"],
)
def test_sums_of_what_is_partly_known(turns: list[Turn], cells: list[str]) -> None:
    """A sum that lacks a part says what it is at least; a share is not known before all of it is."""
    assert rows(shown(*turns))[-1][2:6] == cells


@pytest.mark.parametrize(
    ("status", "finish", "note"),
    [
        ("complete", "stop", ""),
        ("complete", "length", "ended by length"),
        ("interrupted", None, "interrupted"),
        ("cut", None, "cut"),
    ],
)
def test_how_a_turn_ended(status: Status, finish: str | None, note: str) -> None:
    """The last column says how a turn ended, if that was not as it should be."""
    assert rows(shown(turn(1, 1, status=status, finish=finish)))[0][7] == note


def test_a_broken_cache_is_noted() -> None:
    """A turn that was billed anew says why; its ending is named before."""
    page = shown(
        turn(2000, 50, 0, sent=Sent("budget", tokens=2000), size=2050),
        turn(2100, 50, 0, sent=Sent("budget", tokens=2100), model="n", finish="length"),
    )

    first, second, total = (row[7] for row in rows(page))
    assert (first, total) == ("", "")
    assert re.fullmatch("ended by length.*cache: another model", second)


@pytest.mark.parametrize(
    ("first", "second", "note"),
    [
        (Sent("budget"), Sent("budget", start=3), "history cut, begins with #3"),
        (Sent("budget", start=3), Sent("budget:99", start=5), "history cut, begins with #5"),
        (Sent("budget", start=3), Sent("budget", start=3), ""),
        (Sent("last:1", start=1), Sent("last:1", start=2), ""),
        (None, Sent("budget", start=3), "history cut, begins with #3"),
        (Sent("budget", start=3), None, ""),
    ],
    ids=["cut", "cut again", "as before", "chosen", "after a function", "function"],
)
def test_a_cut_is_noted(first: Sent | None, second: Sent | None, note: str) -> None:
    """The turn at which the history was cut says where it begins from then on; what was asked for is no cut."""
    page = shown(turn(1, 1, sent=first, size=2), turn(1, 1, sent=second, size=4))

    assert rows(page)[1][7] == note


def test_a_cut_that_broke_the_cache_is_noted_once() -> None:
    """A cut is not said twice where it is also the reason of the bill."""
    page = shown(
        turn(2000, 50, 0, sent=Sent("budget"), size=2050), turn(1100, 50, 0, sent=Sent("budget", start=2), size=1150)
    )

    note = rows(page)[1][7]
    assert note.endswith("cache: history cut")
    assert note.count("cut") == 1


@pytest.mark.parametrize(("count", "left"), [(39, 0), (40, 0), (41, 1), (2100, 2060)])
def test_a_long_conversation(count: int, left: int) -> None:
    """Of many turns the newest 40 are listed and drawn; the others are one line, and in the sums."""
    page = shown(*[turn(10, 1, 5, cost=0.5)] * count)
    listed = rows(page)
    noun = "1 turn" if left == 1 else f"{left:,} turns"
    gone = [[f"#1 to #{left}" if left > 1 else "#1", *[""] * 6, f"{noun} before"]] if left else []

    assert listed[:-1][: len(gone)] == gone
    assert [row[0] for row in listed[len(gone) : -1]] == [f"#{number}" for number in range(left + 1, count + 1)]
    assert listed[-1][:6] == [f"all {count:,} turns", "", f"{10 * count:,}", "50%", f"{count:,}", f"${count / 2:,.2f}"]
    assert len(bars(page)) == min(count, 40)


def test_a_long_line_that_begins_later() -> None:
    """Turns that were set aside are not counted among those before."""
    session = conversation(*[turn(10, 1)] * 2)
    session.clear()
    for _ in range(45):
        session.add(turn(10, 1, parent=session.last))

    assert rows(bill(session, session.spent))[0] == ["#3 to #7", *[""] * 6, "5 turns before"]


def test_what_was_paid_beside_the_line() -> None:
    """The note below has the requests, tokens and cost of all that the session and the kernel have ever asked."""
    session, kernel = conversation(turn(10, 5, cost=1.0), name="tutor"), Spent()
    session.spent.add(paid(0.5), guessed=True)
    session.spent.add(paid(None))
    for cost in (5.0, None, None):
        kernel.add(paid(cost, 1000))
    page = bill(session, kernel)

    for text in (page.text, "".join(parsed(page).itertext())):
        note = text.partition("'tutor'")[2]
        assert note.index(str(session.spent)) < note.index("this kernel") < note.index(str(kernel))
    assert str(session.spent).startswith("3 requests, ~10 tokens in, ~5 out, ~$1.50")


# The picture


def test_bars_are_as_high_as_the_counts() -> None:
    """A bar is as high as the tokens of its turn: the largest has the whole height, each piece its part of it."""
    page = shown(turn(60, 12, 36), turn(18, 6, 0), turn(36, 0, 36), turn(9, 9))

    assert bars(page) == [[36.0, 24.0, 12.0], [18.0, 6.0], [36.0], [9.0, 9.0]]


def test_bars_say_their_counts() -> None:
    """Below the pointer a bar says turn, counts and cost."""
    page = shown(turn(6000, 12, 3600, cost=0.5), turn(1, 1, cost=0.0))
    picture = parsed(page).find("./div[@role='img']")

    assert [bar.attrib["title"] for bar in picture] == [
        "#1: 3,600 cached, 2,400 fresh, 12 out, $0.50",
        "#2: 0 cached, 1 fresh, 1 out",
    ]


def test_a_turn_without_counts_has_its_place() -> None:
    """A bar that nobody knows the height of is empty, so that the others stay where they belong."""
    assert bars(shown(turn(10, 2), turn(), turn(3, 3))) == [[60.0, 12.0], [], [18.0, 18.0]]


def test_no_picture_without_counts() -> None:
    """Where no turn has counts there is no picture, and no legend of one."""
    page = shown(turn(), guessed(100, 120))

    assert bars(page) == []
    assert "■" not in page.html


def test_counts_that_contradict_each_other() -> None:
    """A server that reports more cached than sent gets no bar below the ground."""
    assert bars(shown(turn(10, 0, 20))) == [[72.0]]


# Strangers' words

EVIL = (
    "<img src=x onerror=alert(1)></td></table><script>x</script>\"'&lt; \\(\\href{x}{y}\\) $$z$$ "
    "\x1b[31m\x9b2J\u202e\u2066"
)


def test_hostile_names_stay_text() -> None:
    """A model, an endpoint, an ending or a policy with markup in its name is text; no control character is left."""
    page = shown(
        turn(2000, 5, 0, model=EVIL, endpoint=EVIL, finish=EVIL, sent=Sent(EVIL), size=2000),
        turn(2000, 5, 0, model=EVIL + "2", endpoint=EVIL, sent=Sent("budget" + EVIL, start=1), finish=EVIL),
    )
    tree = parsed(page)
    plain = {"table", "thead", "tbody", "tr", "th", "td", "div", "span", "small"}

    assert {element.tag for element in tree.iter() if isinstance(element.tag, str)} - {"DOCUMENT_FRAGMENT"} == plain
    assert {name for element in tree.iter() for name in element.attrib} == {
        *["style", "class", "role", "aria-label", "title"]
    }
    assert rows(page)[0][1] == "<img src=x onerror=…"
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.html + page.text)


def test_nothing_in_the_bill_is_mathematics() -> None:
    """Every text that may come from somebody else stands within an element in which nothing is typeset."""
    page = shown(turn(10, 5, 0, model="\\(x\\)"))

    def typeset(element: Any) -> str:
        if "mathjax_ignore" in element.attrib.get("class", "").split():
            return ""
        return (element.text or "") + "".join(typeset(child) + (child.tail or "") for child in element)

    assert "\\(x\\)" in "".join(parsed(page).itertext())
    assert "■ cached" in typeset(parsed(page))
    assert not re.search(r"[\\$]|main", typeset(parsed(page)))
