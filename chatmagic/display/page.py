"""Turns and tables as the MIME bundles that a notebook shows, from text that may be hostile."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.record import turn_record
from chatmagic.conversation.spending import dollars
from chatmagic.plain import one_line, plain
from chatmagic.version import __version__

__all__ = [
    "LOOK",
    "Look",
    "Page",
    "conversation",
    "ending",
    "footer",
    "lines_page",
    "live",
    "model_page",
    "table",
    "tokens",
    "turn_page",
]

_QUIET = "color:var(--jp-ui-font-color2,#757575);font-size:0.85em;line-height:1.4"
_BAR = ' style="border-left:3px solid var(--jp-border-color1,#bdbdbd);padding-left:0.8em"'
ASIDE = "not in the conversation"
_DIM = ' style="opacity:0.65"'
_NO_TEX = "mathjax_ignore tex2jax_ignore"
_MOST_REASONING = 1500  # characters that are shown of what a model thinks while it thinks
_PROMPT = (
    "overflow-wrap:anywhere;margin:0.8em 0 0.4em;padding:0.4em 0.8em;"
    "border-left:3px solid var(--jp-brand-color1,#2196f3);background:var(--jp-layout-color2,#8882)"
)


@dataclass(frozen=True, slots=True)
class Look:
    """How replies are shown: with pictures of the web or links to them, and as which MIME types beside text."""

    images: bool = False
    mime: tuple[str, ...] = ("text/html", "text/markdown")


LOOK = Look()


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown: as HTML that we made, as defused Markdown, and as plain text; what is empty is left out."""

    html: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    markdown: str = ""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"text/html": self.html, "text/markdown": self.markdown}
        return {**{kind: text for kind, text in data.items() if text}, "text/plain": self.text}, self.metadata

    def __repr__(self) -> str:
        return self.text


def turn_page(session: str, turn: Turn, notices: Sequence[str] = (), *, aside: bool = False, look: Look = LOOK) -> Page:
    """Show a finished turn: the reply, what must be said about it, and the footer; what led to it is folded away.

    A turn that was set *aside* is dimmed, and a line says so.
    """
    mark = [f"{ASIDE} · #{turn.number}: %chat use {session} --at {turn.number} goes there"] if aside else []
    page = model_page(turn.reply, [*notices, footer(session, turn)], look, mark=mark, above=_before(turn, look))
    return replace(page, metadata={"chatmagic": {**_record(session, turn), "in_conversation": not aside}})


def model_page(
    text: str, lines: Sequence[str], look: Look = LOOK, *, mark: Sequence[str] = (), above: str = ""
) -> Page:
    """Show the *text* of a model with *lines* below; *above* is HTML of ours. With a *mark* it is dimmed."""
    html = markdown = ""
    if "text/html" in look.mime:
        html = f"{above}{_boxed(_html(text, look))}"
        html = f'{_quiet(mark)}<div style="opacity:0.65">{html}</div>' if mark else html
        html = f'<div class="chatmagic"{_BAR if mark else ""}>{html}{_quiet(lines)}</div>'
    if "text/markdown" in look.mime:
        markdown = _markdown(mark, text, lines)
    return Page(html, "\n".join([*mark, plain(text).strip("\n"), "", *map(one_line, lines)]), markdown=markdown)


def _before(turn: Turn, look: Look) -> str:
    """Show, folded, the summary that went out with *turn* for the first time, and what the model thought."""
    reasoning = _folded("reasoning", turn.reasoning, _block(turn.reasoning, _QUIET))
    if (summary := turn.new_summary) is None:
        return reasoning
    proposed = _quiet([f"proposed: {fact}" for fact in summary.facts])
    html = f"<div{_BAR}>{_boxed(_html(summary.text, look))}{proposed}</div>"
    return _folded("summary of what is not sent any more", summary.text, html) + reasoning


def live(html: str, lines: Sequence[str], reasoning: str = "", *, text: str = "") -> Page:
    """Show a part of a reply, or of the *reasoning* before it, and *lines* about how it goes on.

    It will not be there for long: beside the HTML there are only these lines, and *text* where there is no HTML.
    """
    body = _boxed(html) or _block(_tail(reasoning), _QUIET)
    page = f'<div class="chatmagic">{body}{_quiet(lines)}</div>'
    return Page("" if text else page, "\n".join([*([plain(text)] * bool(text)), *map(one_line, lines)]))


def lines_page(lines: Sequence[str]) -> Page:
    """Show nothing but quiet lines."""
    return Page(f'<div class="chatmagic">{_quiet(lines)}</div>', "\n".join(map(one_line, lines)))


def conversation(
    session: str, system: str | None, turns: Sequence[Turn], *, aside: bool = False, look: Look = LOOK
) -> Page:
    """Show *turns* one below the other, each with its number, prompt, reply and footer."""
    html, text = [], []
    if aside:
        html.append(_quiet([ASIDE]))
        text += [ASIDE, ""]
    if system:
        html.append(_block(f"system: {system}", _QUIET))
        text += [f"system: {plain(system)}", ""]
    for turn in turns:
        line = f"#{turn.number} · {footer(session, turn)}"
        reply = _before(turn, look) + _boxed(_html(turn.reply, look))
        html.append(_block(turn.prompt, _PROMPT) + reply + _quiet([line]))
        text += [f"#{turn.number} {plain(turn.prompt)}", "", plain(turn.reply).strip("\n"), "", one_line(line), ""]
    return Page(f'<div class="chatmagic">{"".join(html)}</div>', "\n".join(text).rstrip("\n"))


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Container[int] = (),
    whole: Container[int] = (),
    dim: Container[int] = (),
    note: str = "",
) -> Page:
    """Show *rows*, and a *note* below, which may have several lines.

    The columns that hold *numbers* (counted from 0) are aligned to the right, the *whole* ones are not broken into
    lines, and the rows *dim* are less visible.
    """
    notes = note.split("\n") if note else []
    grid = [[one_line(cell, limit=80) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    text = [
        "  ".join(_aligned(cell, width, n in numbers) for n, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in grid
    ]
    head, *body = [
        "".join(_cell(cell, tag, n in numbers, n in whole) for n, cell in enumerate(row))
        for row, tag in zip(grid, ["th"] + ["td"] * len(rows), strict=True)
    ]
    rows_html = "".join(f"<tr{_DIM if n in dim else ''}>{row}</tr>" for n, row in enumerate(body))
    html = f'<table class="{_NO_TEX}"><thead><tr>{head}</tr></thead><tbody>{rows_html}</tbody></table>'
    return Page(
        f'<div class="chatmagic">{html}{_quiet(notes)}</div>',
        "\n".join([*(line.rstrip() for line in text), *map(one_line, notes)]),
    )


def _aligned(cell: str, width: int, number: bool) -> str:
    return cell.rjust(width) if number else cell.ljust(width)


def _cell(cell: str, tag: str, number: bool, whole: bool) -> str:
    style = f"text-align:{'right' if number else 'left'}{';white-space:nowrap' if whole else ''}"
    return f'<{tag} style="{style}">{escape(cell)}</{tag}>'


def footer(session: str, turn: Turn) -> str:
    """Say in one line which session and model it was, what it used, and how it ended if not well."""
    stored = "" if turn.number else "not stored"
    cost = dollars(turn.usage.cost) if turn.usage.cost else ""
    return " · ".join(filter(None, [session, turn.model, tokens(turn), cost, ending(turn), stored]))


def ending(turn: Turn) -> str:
    """Say how *turn* ended, if that was not as it should be."""
    if turn.status != "complete":
        return turn.status
    return "" if turn.finish == "stop" else f"ended by {turn.finish}"


def tokens(turn: Turn) -> str:
    """Say what *turn* used, or about how much where the server did not say so; unknown stays unknown."""
    usage, sent = turn.usage, turn.sent
    if usage.input_tokens is None or usage.output_tokens is None:
        if sent is None or turn.size is None:
            return "tokens unknown"
        went = f"~{sent.tokens:,}" if usage.input_tokens is None else f"{usage.input_tokens:,}"
        return f"{went} tokens in, ~{max(turn.size - (usage.input_tokens or sent.tokens), 0):,} out"
    cached = ""
    if usage.cached_tokens is not None and usage.input_tokens:
        cached = f" ({usage.cached_tokens / usage.input_tokens:.0%} cached)"
    reasoning = f" ({usage.reasoning_tokens:,} reasoning)" if usage.reasoning_tokens else ""
    noun = "token" if usage.input_tokens == 1 else "tokens"
    return f"{usage.input_tokens:,} {noun} in{cached}, {usage.output_tokens:,} out{reasoning}"


def _boxed(html: str) -> str:
    """Keep a reply within its box: a formula could be drawn over what is said about the reply."""
    return f'<div style="overflow-x:auto;overflow-y:hidden">{html}</div>' if html else ""


def _html(text: str, look: Look) -> str:
    # Imported when first used: it costs more than the rest of the package together.
    from chatmagic.markdown import to_html

    return to_html(text, images=look.images)


def _markdown(mark: Sequence[str], reply: str, lines: Sequence[str]) -> str:
    from chatmagic.defused import to_markdown

    return "\n".join(to_markdown(part) for part in [*mark, reply, *map(one_line, lines)])


def _quiet(lines: Sequence[str]) -> str:
    return "".join(_block(one_line(line), _QUIET) for line in lines)


def _block(text: str, style: str) -> str:
    """Return *text* as it stands; nothing in it is mathematics."""
    return f'<div class="{_NO_TEX}" style="{style};white-space:pre-wrap">{escape(plain(text))}</div>' if text else ""


def _folded(what: str, text: str, html: str) -> str:
    if not text:
        return ""
    summary = f'<summary style="{_QUIET};cursor:pointer">{what} ({len(text.split()):,} words)</summary>'
    return f"<details>{summary}{html}</details>"


def _tail(text: str) -> str:
    """Return the end of a *text* that is painted again and again."""
    return text if len(text) <= _MOST_REASONING else "… " + text[-_MOST_REASONING:]


def _record(session: str, turn: Turn) -> dict[str, Any]:
    """Return what a saved notebook must hold to rebuild the session; executions have other ids each time."""
    cells = [cell.id for cell in turn.cells]
    return {"version": __version__, "session": session, **turn_record(turn), "cells": cells}
