"""The verbs that say what is kept when not everything is sent: summaries and facts."""

from __future__ import annotations

from typing import Any

from chatmagic.commands.verb import Answer, Desk, Verb, count_of
from chatmagic.conversation.context import spans
from chatmagic.conversation.memory import checked_fact
from chatmagic.conversation.session import Session
from chatmagic.display.memory import facts_page, summary_page
from chatmagic.errors import LineError, SessionError
from chatmagic.line import Form, Option, turn_number
from chatmagic.plain import one_line

__all__ = ["VERBS"]

MOST_FACTS = 50


def _compact(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.session(values["name"])
    if values["show"] and values["edit"]:
        raise LineError("--show and --edit exclude each other: the one shows the summary, the other lets you change it")
    if not values["show"] and not values["edit"]:
        before = desk.edge.preview(session).context.tokens
        turns = desk.edge.compact(session)
        after = desk.edge.preview(session).context.tokens
        what = f"{count_of(len(turns), 'turn')} ({spans(turns, ())}) summarized: ~{before:,} tokens became ~{after:,}"
        return summary_page(session, desk.edge.look, [f"{what}. %chat undo takes it back."])
    summary = session.summary
    if summary is None:
        raise SessionError(f"{session.name!r} has no summary: %chat compact {session.name} has one written")
    if values["show"]:
        return summary_page(session, desk.edge.look)
    desk.next_cell(f"%%chat {session.name} --summary\n{summary.text}")
    return "The summary is in the next cell. Nothing has changed until it runs."


def _remember(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions.find(desk.sessions.current)
    text = values["text"] or ""
    if values["proposed"]:
        texts = _chosen(_proposed(desk, session), text)
    elif text:
        texts = [text]
    else:
        raise LineError("%chat remember needs TEXT: %chat remember [--everywhere] TEXT")
    known = _known(desk, session)
    new = [fact for fact in dict.fromkeys(map(checked_fact, texts)) if fact not in known]
    if not new:
        return "That is known already; nothing has changed."
    if len(known) + len(new) > MOST_FACTS:
        raise SessionError(
            f"{len(known)} facts are sent already, of at most {MOST_FACTS}. See %chat forget-fact --help"
        )
    for fact in new:
        if values["everywhere"]:
            desk.sessions.facts.append(fact)
        else:
            session.remember(fact)
    number = _known(desk, session).index(new[-1]) + 1
    one = len(new) == 1
    what = "It is" if one else f"{len(new)} facts are"
    if values["everywhere"]:
        back = f"{number} takes it back" if one else "N takes one back"
        return f"{what} sent in every session of this kernel from here on. %chat forget-fact {back}."
    back = "undo takes it" if one else f"undo {len(new)} takes them"
    return f"{what} sent with every prompt in {session.name!r} from here on. %chat {back} back."


def _chosen(proposed: list[str], text: str) -> list[str]:
    """Return those of the *proposed* facts whose numbers *text* names, or all."""
    if not proposed:
        raise SessionError("no facts are proposed: summaries propose some with --learn")
    numbers = [turn_number(each) for each in text.replace(",", " ").split()] or range(1, len(proposed) + 1)
    for number in numbers:
        if number > len(proposed):
            raise SessionError(f"no proposed fact {number} (known: 1 to {len(proposed)}). See %chat facts")
    return [proposed[number - 1] for number in numbers]


def _facts(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.session(values["name"]) if values["name"] else desk.sessions.find(desk.sessions.current)
    everywhere = desk.edge.facts
    where = ["every session" if fact in everywhere else f"session {session.name!r}" for fact in _known(desk, session)]
    facts = _known(desk, session)
    sizes = [round(desk.edge.tokens(session, fact)) for fact in facts]
    return facts_page(facts, where, sizes, _proposed(desk, session))


def _forget(desk: Desk, values: dict[str, Any]) -> Answer:
    session = desk.sessions.find(desk.sessions.current)
    known, number = _known(desk, session), turn_number(values["n"])
    if number > len(known):
        there = f"known: 1 to {len(known)}" if known else "none yet"
        raise SessionError(f"no fact {number} ({there}). See %chat facts")
    fact = known[number - 1]
    shown = one_line(fact, 60)
    everywhere = fact in desk.sessions.facts
    if fact in desk.edge.facts and not everywhere:
        raise SessionError(f"{shown!r} comes from the configuration. Change it there: %config ChatMagic.facts = […]")
    session.forget_fact(fact)
    if everywhere:
        desk.sessions.facts.remove(fact)
        return f"Not sent any more in any session: {shown!r}. %chat remember --everywhere TEXT takes it back."
    return f"Not sent any more: {shown!r}. %chat undo takes it back."


def _known(desk: Desk, session: Session) -> list[str]:
    """Return the facts in the order in which they are sent."""
    return list(dict.fromkeys([*desk.edge.facts, *session.state.facts]))


def _proposed(desk: Desk, session: Session) -> list[str]:
    known = _known(desk, session)
    return [fact for fact in (session.summary.facts if session.summary else ()) if fact not in known]


VERBS = {
    "compact": Verb(
        Form(
            "%chat compact",
            "Have all turns of a session (by default the current one) but the newest summarized; what is sent begins "
            "with the summary from here on.",
            ("[NAME]",),
            (
                Option(("--show",), "show the summary that is sent; ask for none"),
                Option(("--edit",), "put it into the next cell, to change it"),
            ),
        ),
        _compact,
    ),
    "remember": Verb(
        Form(
            "%chat remember",
            "Send TEXT with every prompt of the current session, in its system message.",
            ("[TEXT]",),
            (
                Option(("--everywhere",), "in every session of this kernel"),
                Option(("--proposed",), "instead of TEXT what a summary has proposed: all, or the numbers that follow"),
            ),
            raw=True,
        ),
        _remember,
    ),
    "facts": Verb(
        Form(
            "%chat facts",
            "List the facts that a session (by default the current one) sends with every prompt, and those proposed.",
            ("[NAME]",),
        ),
        _facts,
    ),
    "forget-fact": Verb(Form("%chat forget-fact", "Take back fact number N of %chat facts.", ("N",)), _forget),
}
