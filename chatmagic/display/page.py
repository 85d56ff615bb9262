"""Turns and tables as the MIME bundles that a notebook shows, from text that may be hostile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from chatmagic.conversation.messages import Turn, Usage
from chatmagic.plain import one_line, plain
from chatmagic.version import __version__

__all__ = ["Page", "conversation", "footer", "lines_page", "live", "table", "tokens", "turn_page"]

_QUIET = "color:var(--jp-ui-font-color2,#757575);font-size:0.85em;line-height:1.4"
_PROMPT = (
    "white-space:pre-wrap;overflow-wrap:anywhere;margin:0.8em 0 0.4em;padding:0.4em 0.8em;"
    "border-left:3px solid var(--jp-brand-color1,#2196f3);background:var(--jp-layout-color2,#8882)"
)


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown, as HTML that we made and as plain text."""

    html: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        return {"text/html": self.html, "text/plain": self.text}, self.metadata

    def __repr__(self) -> str:
        return self.text


def turn_page(session: str, turn: Turn, notices: Sequence[str] = ()) -> Page:
    """Show a finished turn: the reply, what must be said about it, and the footer."""
    lines = [*notices, footer(session, turn)]
    return Page(
        f'<div class="chatmagic">{_markdown(turn.reply)}{_quiet(lines)}</div>',
        "\n".join([plain(turn.reply).strip("\n"), "", *map(one_line, lines)]),
        {"chatmagic": _record(session, turn)},
    )


def live(reply: str, line: str) -> Page:
    """Show what has come of a *reply* so far, and a *line* about how it goes on."""
    return Page(
        f'<div class="chatmagic">{_markdown(reply) if reply else ""}{_quiet([line])}</div>', plain(reply) or line
    )


def lines_page(lines: Sequence[str]) -> Page:
    """Show nothing but quiet lines."""
    return Page(f'<div class="chatmagic">{_quiet(lines)}</div>', "\n".join(map(one_line, lines)))


def conversation(session: str, system: str | None, turns: Sequence[Turn]) -> Page:
    """Show *turns* one below the other, each with its number, prompt, reply and footer."""
    html, text = [], []
    if system:
        html.append(f'<div style="{_QUIET};white-space:pre-wrap">system: {escape(plain(system))}</div>')
        text += [f"system: {plain(system)}", ""]
    for turn in turns:
        line = f"#{turn.number} · {footer(session, turn)}"
        html.append(f'<div style="{_PROMPT}">{escape(plain(turn.prompt))}</div>{_markdown(turn.reply)}{_quiet([line])}')
        text += [f"#{turn.number} {plain(turn.prompt)}", "", plain(turn.reply).strip("\n"), "", one_line(line), ""]
    return Page(f'<div class="chatmagic">{"".join(html)}</div>', "\n".join(text).rstrip("\n"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Page:
    """Show *rows*; the first column is aligned to the left, the others, being numbers, to the right."""
    grid = [[one_line(cell, limit=80) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    text = [
        "  ".join(_aligned(cell, width, n) for n, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in grid
    ]
    head, *body = [
        "".join(_cell(cell, tag, n) for n, cell in enumerate(row))
        for row, tag in zip(grid, ["th"] + ["td"] * len(rows), strict=True)
    ]
    html = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table>"
    return Page(
        f'<div class="chatmagic">{html}{_quiet([note]) if note else ""}</div>',
        "\n".join([*(line.rstrip() for line in text), *[one_line(note)] * bool(note)]),
    )


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _cell(cell: str, tag: str, column: int) -> str:
    return f'<{tag} style="text-align:{"right" if column else "left"}">{escape(cell)}</{tag}>'


def footer(session: str, turn: Turn) -> str:
    """Say in one line which session and model it was, what it used, and how it ended if not well."""
    parts = [session, turn.model, tokens(turn.usage)]
    if turn.status != "complete":
        parts.append(turn.status)
    elif turn.finish != "stop":
        parts.append(f"ended by {turn.finish}")
    if turn.number is None:
        parts.append("not stored")
    return " · ".join(parts)


def tokens(usage: Usage) -> str:
    """Say what *usage* was; unknown stays unknown."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return "tokens unknown"
    cached = ""
    if usage.cached_tokens is not None and usage.input_tokens:
        cached = f" ({usage.cached_tokens / usage.input_tokens:.0%} cached)"
    return f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,} out"


def _markdown(text: str) -> str:
    # Imported when first used: it costs more than the rest of the package together.
    from chatmagic.markdown import to_html

    return to_html(text)


def _quiet(lines: Sequence[str]) -> str:
    return "".join(f'<div style="{_QUIET}">{escape(one_line(line))}</div>' for line in lines)


def _record(session: str, turn: Turn) -> dict[str, Any]:
    """Return what a saved notebook must hold to rebuild the session."""
    return {
        "version": __version__,
        "session": session,
        "turn": turn.number,
        "parent": turn.parent.number if turn.parent else None,
        "cell": turn.cell.id,
        "prompt": turn.prompt,
        "reply": turn.reply,
        "model": turn.model,
        "endpoint": turn.endpoint,
        "settings": {"values": dict(turn.settings.values), "unset": sorted(turn.settings.unset)},
        "usage": asdict(turn.usage),
        "status": turn.status,
        "finish": turn.finish,
        "started": turn.started,
        "seconds": round(turn.seconds, 3),
    }
