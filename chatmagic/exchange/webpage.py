"""Sessions as a page for a browser, which needs nothing else, loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from importlib import import_module

from chatmagic.conversation.messages import Turn
from chatmagic.conversation.session import Session
from chatmagic.plain import one_line, plain

__all__ = ["Footer", "written"]

Footer = Callable[[str, Turn], str]
"""Says in a line of text what a turn of a session used."""

# Nothing may be loaded, run, sent or framed, whatever a reply has managed to get in.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """
:root { color-scheme: light dark; --quiet: #666; --line: #ccc; --back: #f3f6fa; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; --line: #555; --back: #23272e; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; }
body { overflow-wrap: anywhere; }
.text { white-space: pre-wrap; }
.prompt { margin: 1.6em 0 .6em; padding: .5em .9em; border-left: 3px solid #2196f3; background: var(--back); }
.quiet, details > summary { color: var(--quiet); font-size: .85em; }
.reply { overflow-x: auto; overflow-y: hidden; contain: paint; }
pre { overflow-x: auto; padding: .6em; background: var(--back); } figure { margin: 0; }
table { border-collapse: collapse; } td, th { border: 1px solid var(--line); padding: .2em .6em; }
blockquote { border-left: 3px solid var(--line); margin-left: 0; padding-left: 1em; }
"""


def written(sessions: Sequence[Session], footer: Footer) -> str:
    """Return a page with *sessions*, one below the other; below each turn stands what *footer* says about it."""
    title = escape(", ".join(session.name for session in sessions[:5]))
    body = "\n".join(_session(session, footer) for session in sessions)
    return f"""<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{_STYLE}{_colours()}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _colours() -> str:
    formatter = import_module("pygments.formatters.html").HtmlFormatter
    light, dark = (formatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _session(session: Session, footer: Footer) -> str:
    parts = [f"<h1>{escape(session.name)}</h1>"]
    if system := session.settings.system:
        parts.append(_text("quiet", f"system: {system}"))
    parts += [_turn(session.name, turn, footer) for turn in session.turns]
    return f"<section>{''.join(parts)}</section>"


def _turn(name: str, turn: Turn, footer: Footer) -> str:
    from chatmagic.markdown import to_html

    thoughts = f"<details><summary>reasoning</summary>{_text('quiet', turn.reasoning)}</details>"
    return (
        f"<article>{_text('prompt', turn.prompt)}{thoughts if turn.reasoning else ''}"
        f'<div class="reply">{to_html(turn.reply)}</div>'
        f"{_text('quiet', one_line(f'#{turn.number} · {footer(name, turn)}'))}</article>\n"
    )


def _text(kind: str, text: str) -> str:
    return f'<div class="text {kind}">{escape(plain(text))}</div>'
