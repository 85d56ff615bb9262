"""What is kept when not everything is sent, on the screen: the summary, and the facts."""

from __future__ import annotations

from collections.abc import Sequence

from chatmagic.conversation.session import Session
from chatmagic.display.page import Look, Page, lines_page, model_page, table

__all__ = ["facts_page", "summary_page"]


def summary_page(session: Session, look: Look, notes: Sequence[str] = ()) -> Page:
    """Show the summary that *session* sends, with *notes* below."""
    summary = session.summary
    if summary is None:
        return lines_page([f"{session.name!r} has no summary.", *notes])
    by = f"by {summary.model}" if summary.model else "as you wrote it"
    return model_page(
        summary.text, [f"{session.name} · summary of the turns up to #{summary.through}, {by}", *notes], look
    )


def facts_page(facts: Sequence[str], where: Sequence[str], sizes: Sequence[int], proposed: Sequence[str]) -> Page:
    """Show *facts* with numbers, *where* they are sent and their *sizes* (tokens, about), and those *proposed*."""
    if not facts and not proposed:
        return lines_page(["There are no facts. %chat remember TEXT keeps one."])
    rows = [
        [str(number), fact, place, f"~{size:,}"]
        for number, (fact, place, size) in enumerate(zip(facts, where, sizes, strict=True), 1)
    ]
    rows += [[f"proposed {number}", fact, "not sent", ""] for number, fact in enumerate(proposed, 1)]
    notes = [f"~{sum(sizes):,} tokens are sent with every prompt. %chat forget-fact N takes one back."] if facts else []
    if proposed:
        notes.append("What is proposed was written by a model. %chat remember --proposed [N …] keeps it.")
    dim = set(range(len(facts), len(rows)))
    return table(["", "fact", "sent in", "tokens"], rows, numbers={3}, whole={0, 2, 3}, dim=dim, note="\n".join(notes))
