"""Which turns fit a prompt best, by the embeddings of a model."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from math import sqrt
from operator import mul

from chatmagic.asking import Ask, Find
from chatmagic.conversation.messages import Turn, Usage
from chatmagic.conversation.spending import Purse, hold, settle
from chatmagic.conversation.tokens import Gauge
from chatmagic.errors import EndpointError, RequestError
from chatmagic.events import Busy, Client, Event, Facts, Remark

__all__ = ["Vectors", "recall"]

Vectors = MutableMapping[tuple[str, int], "array[float]"]
"""What is known of turns, by model and number: vectors of length 1."""

_MOST = 20_000  # characters of a text that are read
_WINDOW = 8_192  # tokens that a model takes if nobody says otherwise
_AT_ONCE = 32  # texts: OpenAI takes 300,000 tokens at once


def recall(
    ask: Ask, by_words: Find, client: Client, gauge: Gauge, purses: Sequence[Purse], known: Vectors
) -> Iterator[Event]:
    """Let turns come back that the embeddings of the session's ``recall_model`` find, or where there are none, words.

    Raises:
        SpendingError: it could cost more than is allowed.
    """
    model = ask.asked.recall_model
    if not model or not ask.asked.recall or not ask.context.left_out:
        return
    yield Busy(f"looking with {model} for what to recall", ask.facts.instant)

    def nearest(prompt: str, turns: Sequence[Turn]) -> list[Turn]:
        new = [turn for turn in turns if (model, turn.number or 0) not in known]
        texts = [prompt, *(f"{turn.prompt}\n{turn.reply}" for turn in new)]
        asked, *read = _embedded(texts, model, client, gauge, purses)
        known.update({(model, turn.number or 0): vector for turn, vector in zip(new, read, strict=True)})
        return sorted(turns, key=lambda turn: -sum(map(mul, asked, known[model, turn.number or 0])))

    before = ask.most_cost() or 0.0
    try:
        ask.recall(nearest)
    except (RequestError, EndpointError) as exc:
        yield Remark(f"turns are recalled by their words, because {model!r} gave no embeddings: {exc}")
        ask.recall(by_words)
    # What was kept for the request was for one without them.
    more = max((ask.most_cost() or 0.0) - before, 0.0)
    settle(purses, hold(purses, more, sure=ask.limits.room is not None), None)


def _embedded(
    texts: Sequence[str], model: str, client: Client, gauge: Gauge, purses: Sequence[Purse]
) -> Iterator[array[float]]:
    facts = client.facts(model, {})
    for start in range(0, len(texts), _AT_ONCE):
        batch = [_begin(text, facts, gauge) for text in texts[start : start + _AT_ONCE]]
        tokens = round(sum(gauge.text(facts.reader, text) for text in batch))
        held = hold(purses, facts.cost(Usage(tokens, 0)), sure=True)
        used, read = None, None
        try:
            vectors, read = client.embed(model, batch)
            used = Usage(read or tokens, 0)
            used = replace(used, cost=facts.cost(used))
        finally:
            settle(purses, held, used, guessed=read is None)
        yield from map(_unit, vectors)


def _begin(text: str, facts: Facts, gauge: Gauge) -> str:
    """Return as much of *text* as the model takes, by a careful guess."""
    text = text[:_MOST]
    most, tokens = 0.8 * (facts.window or _WINDOW), gauge.text(facts.reader, text)
    return (text if tokens <= most else text[: int(len(text) * most / tokens)]) or " "


def _unit(vector: Sequence[float]) -> array[float]:
    length = sqrt(sum(map(mul, vector, vector))) or 1.0
    return array("f", [value / length for value in vector])
