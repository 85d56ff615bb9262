"""The verbs of ``%chat``, one file a family."""

from __future__ import annotations

from chatmagic.commands import context, digest, exchange, history, journal, memory, models, sessions, settings, tape
from chatmagic.commands.verb import Answer, Desk, Verb
from chatmagic.errors import LineError
from chatmagic.line import Form, columns, nearest

__all__ = ["VERBS", "overview", "run"]

VERBS: dict[str, Verb] = {
    **sessions.VERBS,
    **history.VERBS,
    **context.VERBS,
    **memory.VERBS,
    **settings.VERBS,
    **models.VERBS,
    **digest.VERBS,
    **journal.VERBS,
    **exchange.VERBS,
    **tape.VERBS,
}


def run(line: str, desk: Desk, cell: Form) -> Answer:
    """Carry out the verb that *line* begins with; *cell* is the form of ``%%chat``, for the help.

    Raises:
        ChatMagicError: there is no such verb, its line cannot be read, or it cannot be done; nothing has changed.
    """
    name, _, rest = line.strip().partition(" ")
    if name == "--help":
        return overview(cell)
    verb = VERBS.get(name or "panel")
    if verb is None:
        raise LineError(_unknown(name, rest, desk))
    values = verb.form.read(rest)
    return verb.form.help if values["help"] else verb.run(desk, values)


def _unknown(name: str, rest: str, desk: Desk) -> str:
    if name in desk.sessions and not rest.strip():
        return f"{name!r} is a session, not a verb. Did you mean %chat use {name}?"
    if len(rest.split()) > 1 or name.endswith("?"):
        return "%chat takes a verb, not a prompt. A prompt goes into a cell: %%chat on its first line, the prompt below"
    if name.startswith("-"):
        return f"%chat has no option {name!r}. See %chat --help"
    return f"no verb {name!r}{nearest(name, [*VERBS, '--help'], '%chat ')} Known: {', '.join(VERBS)}"


def overview(cell: Form) -> str:
    """Return the help for all of ``%%chat`` and ``%chat``."""
    verbs = columns((verb.form.usage, verb.form.summary) for verb in VERBS.values())
    return "\n".join([cell.help, "", "Verbs (each with --help):", "", verbs])
