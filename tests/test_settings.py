"""Settings: layers that lie over each other."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.settings import NOTHING, Settings, checked
from chatmagic.errors import SettingError

KEYS = ["model", "system", "temperature", "stop"]
SAID: st.SearchStrategy[dict[str, Any]] = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["", "a", "b", "c"]))
LAYERS = SAID.map(checked)
"""Layers over few keys, so that they meet."""


def unset(*keys: str) -> Settings:
    return Settings(unset=frozenset(keys))


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [
        (Settings({"a": 1}), Settings({"b": 2}), Settings({"a": 1, "b": 2})),
        (Settings({"a": 1}), Settings({"a": 2}), Settings({"a": 1})),
        (Settings({"a": None}), Settings({"a": 2}), Settings({"a": None})),
        (unset("a"), Settings({"a": 2, "b": 2}), Settings({"b": 2}, frozenset({"a"}))),
        (unset("a"), unset("b"), unset("a", "b")),
        (Settings({"a": 1}), unset("a", "b"), Settings({"a": 1}, frozenset({"b"}))),
    ],
    ids=["beside", "wins", "null wins", "unsets", "unsets besides", "sets again"],
)
def test_over(above: Settings, below: Settings, expected: Settings) -> None:
    """The upper layer wins, what it unsets is gone, and everything else of both stays."""
    assert above.over(below) == expected


@given(LAYERS, LAYERS, LAYERS)
def test_over_is_associative(a: Settings, b: Settings, c: Settings) -> None:
    """It does not matter which of three layers are put together first."""
    assert a.over(b).over(c) == a.over(b.over(c))


@given(LAYERS)
def test_nothing_changes_nothing(layer: Settings) -> None:
    """The empty layer makes no difference, above or below."""
    assert NOTHING.over(layer) == layer.over(NOTHING) == layer


@given(LAYERS)
def test_twice_is_once(layer: Settings) -> None:
    """A layer over itself is the layer."""
    assert layer.over(layer) == layer


@given(st.lists(SAID, max_size=5))
def test_top_layer_that_speaks_decides(layers: list[dict[str, Any]]) -> None:
    """For each key the topmost layer that says something about it decides."""
    result = NOTHING
    for said in layers:
        result = result.over(checked(said))

    for key in KEYS:
        first = next((said[key] for said in layers if key in said), None)
        assert result.values.get(key) == (first or None)
        assert (key in result.unset) == (first == "")


def test_layers_are_left_alone() -> None:
    """Layers that are put together stay as they were."""
    above, below = Settings({"a": 1}, frozenset({"b"})), Settings({"b": 2})
    above.over(below).without(["a"])

    assert above == Settings({"a": 1}, frozenset({"b"}))
    assert below == Settings({"b": 2})


def test_without() -> None:
    """A layer without a key says nothing about it, neither a value nor that it is unset."""
    layer = Settings({"a": 1, "b": 2}, frozenset({"c", "d"}))

    assert layer.without(["a", "c", "e"]) == Settings({"b": 2}, frozenset({"d"}))


@given(LAYERS, LAYERS, st.sets(st.sampled_from(KEYS)))
def test_without_lets_the_layer_below_speak(above: Settings, below: Settings, keys: set[str]) -> None:
    """About a key that a layer forgets the one below decides, about any other key it decides as before."""
    result, before = above.without(keys).over(below), above.over(below)

    for key in KEYS:
        decides = below if key in keys else before
        assert result.values.get(key) == decides.values.get(key)
        assert (key in result.unset) == (key in decides.unset)


def test_without_a_generator() -> None:
    """The keys to forget may come one by one."""
    assert Settings({"a": 1}, frozenset({"b"})).without(key for key in "ab") == NOTHING


@pytest.mark.parametrize(
    ("layer", "speaks"),
    [(NOTHING, False), (Settings({"a": None}), True), (unset("a"), True)],
    ids=["nothing", "null", "unset"],
)
def test_empty_layers(layer: Settings, speaks: bool) -> None:
    """A layer is true if it sets or unsets anything."""
    assert bool(layer) is speaks


def test_keys() -> None:
    """The keys of a layer are those that it sets and those that it unsets."""
    assert Settings({"a": 1}, frozenset({"b"})).keys == {"a", "b"}


def test_parameters() -> None:
    """All but model and system prompt goes into the request as it is."""
    layer = Settings({"model": "m", "system": "s", "temperature": 0, "stop": None})

    assert (layer.model, layer.system) == ("m", "s")
    assert layer.parameters == {"temperature": 0, "stop": None}


def test_without_model_and_system() -> None:
    """A layer that says nothing about model and system prompt has none."""
    assert (NOTHING.model, NOTHING.system, NOTHING.parameters) == (None, None, {})


def test_checked() -> None:
    """Values are taken as they are, zero, null and False too; an empty text unsets its key."""
    values = {"model": "m", "temperature": 0, "stop": None, "logprobs": False, "tags": [], "system": "", "user": ""}

    assert checked(values) == Settings(
        {"model": "m", "temperature": 0, "stop": None, "logprobs": False, "tags": []}, frozenset({"system", "user"})
    )


@pytest.mark.parametrize("key", ["messages", "stream", "stream_options", "n"])
def test_ours(key: str) -> None:
    """What chatmagic fills in itself cannot be set, nor unset."""
    for value in ("x", ""):
        with pytest.raises(SettingError, match=f"^'{key}' cannot be set: chatmagic fills it in itself$"):
            checked({"model": "m", key: value})


@pytest.mark.parametrize("key", ["tools"])
def test_reserved(key: str) -> None:
    """The words that chatmagic keeps for itself are refused, not sent to the server as parameters."""
    with pytest.raises(SettingError, match=f"^'{key}' cannot be set: the word is kept for chatmagic"):
        checked({key: "x"})


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("max_costs", "Did you mean max_cost?"),
        ("maxcost", "Did you mean max_cost?"),
        ("contxt", "Did you mean context?"),
        ("budget", "Did you mean context=budget:50000"),
    ],
)
def test_slip(key: str, told: str) -> None:
    """What is all but a word of ours is not sent to a server that knows nothing of it."""
    with pytest.raises(SettingError, match=f"^no setting {key!r}. {told}"):
        checked({key: "1"})


@pytest.mark.parametrize("key", ["content", "max_tokens", "mode", "cost", "max_completion_tokens"])
def test_no_slip(key: str) -> None:
    """What a server may know is a parameter."""
    assert checked({key: 1}).parameters == {key: 1}


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("last", "last takes a whole number, say last:4"),
        ("last:two", "last takes a whole number, say last:4"),
        ("last:-1", "last takes a whole number"),
        ("budget:0", "budget takes a whole number, say budget:50000"),
        ("budget:1e4", "budget takes a whole number"),
        ("budget:", "budget takes a whole number"),
        ("all:3", "it is all, last:4"),
        ("mine:3", "it is all, last:4"),
        ("a b", "it is all, last:4"),
        ("<lambda>", "it is all, last:4"),
    ],
)
def test_policy_that_cannot_be(policy: str, told: str) -> None:
    """A policy that cannot be is refused with what it lacks."""
    with pytest.raises(SettingError, match=re.escape(f"context cannot be {policy!r}: {told}")):
        checked({"context": policy})


@pytest.mark.parametrize("policy", ["all", "last:0", "last:12", "budget", "budget:8000", "mine", "méthode_2"])
def test_policy(policy: str) -> None:
    """A policy of ours, or the name of a function, is a setting."""
    assert checked({"context": policy}).context == policy


@pytest.mark.parametrize("amount", [-1, "two", True, None, [1], "$2"])
def test_amount_that_cannot_be(amount: object) -> None:
    """A limit of cost is an amount."""
    with pytest.raises(SettingError, match="max_cost must be an amount of USD from 0 up"):
        checked({"max_cost": amount})


@pytest.mark.parametrize("key", ["model", "system", "context"])
@pytest.mark.parametrize("value", [4, None, True, ["m"]], ids=["number", "null", "bool", "list"])
def test_not_text(key: str, value: object) -> None:
    """A model or system prompt that is no text is an error that shows what it is."""
    with pytest.raises(SettingError) as caught:
        checked({key: value})

    assert str(caught.value) == f"{key} must be text, not {value!r}"


@given(LAYERS, LAYERS)
def test_beyond(above: Settings, below: Settings) -> None:
    """What a layer says beyond another one, laid over that one, is what the layer says."""
    whole = above.over(below)

    assert whole.beyond(below).over(below) == whole
    assert not whole.beyond(whole)
