"""What the next request of a session holds, as a table and as JSON."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from chatmagic.conversation.context import Context, History, Limits, spans
from chatmagic.conversation.messages import Message, Summary, Turn, Usage
from chatmagic.conversation.policy import is_budget, summarizes
from chatmagic.conversation.spending import dollars
from chatmagic.conversation.tokens import Gauge
from chatmagic.display.page import Page, table
from chatmagic.plain import one_line, plain

__all__ = ["Preview"]

_ROWS = 60  # messages that are shown: those in the middle of a long history are counted


@dataclass(frozen=True, slots=True)
class Preview:
    """The next request of *session*: what *policy* makes of its *history* within *limits*, and what that would cost."""

    session: str
    policy: str
    history: History
    limits: Limits
    context: Context
    gauge: Gauge
    cost: Callable[[Usage], float | None]
    embeddings: str = ""
    """Whose embeddings will say what is recalled."""

    def page(self) -> Page:
        """Return a row a message, and a dim one for each turn that is left out, in its place."""
        rows = list(self._rows())
        if len(rows) > _ROWS:
            cut = len(rows) - _ROWS
            middle = (["", "", f"… {cut:,} more rows: --json has them all", ""], True)
            rows[_ROWS // 2 : _ROWS // 2 + cut] = [middle]
        dim = {number for number, (_, left_out) in enumerate(rows) if left_out}
        texts = [row for row, _ in rows]
        return table(
            ["turn", "role", "text", "tokens"], texts, numbers={3}, whole={0, 1, 3}, dim=dim, note=self._note()
        )

    def _rows(self) -> Iterator[tuple[list[str], bool]]:
        """Yield each row, and whether it is one of what is left out."""
        gone = deque(zip(self.context.left_out, self._gone(), strict=True))
        for message, turn, tokens in self._messages():
            last = message.role == "user" and turn is None
            while gone and (last or (turn and (gone[0][0].number or 0) < (turn.number or 0))):
                yield _left_out(*gone.popleft()), True
            pinned = turn is not None and turn.number in self.history.pinned
            number = f"#{turn.number}{' (pinned)' if pinned else ''}" if turn else ""
            yield [number, message.role, one_line(self._text(message), 60), f"~{tokens:,}"], False
        for turn, size in gone:
            yield _left_out(turn, size), True

    def json(self) -> str:
        """Return it as JSON: ``messages`` are exactly what is sent."""
        endpoint, model = self.limits.reader
        summary = self._summary
        value = {
            "session": self.session,
            "endpoint": endpoint,
            "model": model,
            "policy": self.policy,
            "tokens": self.context.tokens,
            "reported_tokens": self.context.base,
            "budget": self.limits.budget,
            "window": self.limits.window,
            "cost": self._cost(0),
            "messages": [
                {"role": message.role, "content": message.content, "turn": turn and turn.number, "tokens": tokens}
                for message, turn, tokens in self._messages()
            ],
            "left_out": [
                {"turn": turn.number, "tokens": round(tokens)}
                for turn, tokens in zip(self.context.left_out, self._gone(), strict=True)
            ],
            "why": self.context.why if self.context.left_out else None,
            "facts": list(self.history.facts),
            "summary": {"text": summary.text, "through": summary.through} if summary else None,
            "recalled": [turn.number for each in self.history.beside for turn in each.turns],
            "read": [each.session for each in self.history.beside if each.session],
        }
        # What a terminal would obey, or a page reorder, is written as JSON can write it, and so kept.
        written = json.dumps(value, ensure_ascii=False, indent=2)
        return re.sub(
            r"[^ -~\n]", lambda each: each[0] if plain(each[0]) == each[0] else json.dumps(each[0])[1:-1], written
        )

    def _text(self, message: Message) -> str:
        """Return what is shown of *message*: of the newest one the prompt, not what stands beside it."""
        return self.history.prompt if message.content == self.history.newest else message.content

    @property
    def _summary(self) -> Summary | None:
        return self.context.sent.summary if self.context.sent else None

    def _also(self) -> str:
        """Say what the system message and the newest one hold beside their own texts."""
        reader, gauge, summary = self.limits.reader, self.gauge, self._summary
        parts = []
        if count := len(self.history.facts):
            size = sum(gauge.text(reader, fact) for fact in self.history.facts)
            parts.append(f"{count} fact{'' if count == 1 else 's'} (~{round(size):,})")
        if summary:
            size = gauge.text(reader, summary.text)
            parts.append(f"a summary of the turns up to #{summary.through} (~{round(size):,})")
        for each in self.history.beside:
            what = (
                f"session {each.session!r}"
                if each.session
                else f"recalled: {spans(each.turns, self._others(each.turns))}"
            )
            parts.append(f"with the prompt {what} (~{round(gauge.text(reader, str(each))):,})")
        said = f"also sent: {', '.join(parts)}" if parts else ""
        if self.embeddings and self.history.prompt and self.context.left_out:
            return "\n".join(filter(None, [said, f"what {self.embeddings} finds is recalled when the prompt is sent"]))
        return said

    def _others(self, turns: Sequence[Turn]) -> list[Turn]:
        return [turn for turn in self.history.turns if turn not in turns]

    def _messages(self) -> Iterator[tuple[Message, Turn | None, int]]:
        """Yield what is sent, whose turn it is of, and about how many tokens it has."""
        whose = {id(message): turn for turn in self.history.turns for message in turn.messages}
        # Without a prompt the request ends where that would stand.
        messages = self.context.messages if self.history.prompt else self.context.messages[:-1]
        for message in messages:
            yield message, whose.get(id(message)), round(self.gauge.message(self.limits.reader, message))

    def _gone(self) -> list[float]:
        return self.gauge.turns(self.limits.reader, self.context.left_out)

    def _cost(self, cached: int) -> float | None:
        """Return what it costs (USD) without the new prompt and its reply, if so much is read from the cache."""
        return self.cost(Usage(self.context.tokens, 0, cached))

    def _note(self) -> str:
        endpoint, model = self.limits.reader
        window = self.limits.window
        full = f"{self.context.tokens / window:.0%} of its window of {window:,}" if window else ""
        cut = (
            f"{'summarized' if summarizes(self.policy) else 'cut'} to half when it passes {self.limits.most:,}"
            if is_budget(self.policy)
            else self.policy
        )
        before = "" if self.history.prompt else " before the next prompt"
        said = f"~{self.context.tokens:,} tokens{before}, for {model} at {endpoint}"
        line = " · ".join(filter(None, [said, full, self.price, cut]))
        gone = len(self.context.left_out)
        why = f"{gone:,} turn{'' if gone == 1 else 's'} not sent: {self.context.why}" if gone else ""
        if self.context.cut and summarizes(self.policy):
            why += f"; {spans(self.context.cut, self.context.turns)} will be summarized when the prompt is sent"
        return "\n".join(filter(None, [self._also(), why, line]))

    @property
    def price(self) -> str:
        """What the next request costs without its prompt and reply; nothing where that is unknown, or free."""
        fresh, kept = self._cost(0), self._cost(self.context.base or 0)
        if not fresh or kept is None:
            return ""
        return f"~{dollars(fresh)}" + (f", ~{dollars(kept)} from the provider's cache" if kept < fresh else "")


def _left_out(turn: Turn, tokens: float) -> list[str]:
    return [f"#{turn.number}", "not sent", one_line(turn.prompt, 60), f"~{round(tokens):,}"]
