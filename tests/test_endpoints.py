"""Names for base URLs and keys, and what a model name means."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatmagic.errors import EndpointError
from chatmagic.provider.endpoints import BUILT_IN, Endpoint, checked, key_of, target

OWN = {
    "lab": {"url": "https://lab.example/v1", "key_env": "LAB_KEY", "model": "lab-large"},
    "plain": {"url": "http://127.0.0.1:8000/v1"},
}


@pytest.mark.parametrize(
    ("model", "endpoint", "name"),
    [
        ("gpt-6-luna", "openai", "gpt-6-luna"),
        ("openai:gpt-6-luna", "openai", "gpt-6-luna"),
        ("ollama:llama3.2", "ollama", "llama3.2"),
        ("ollama:llama3.2:3b", "ollama", "llama3.2:3b"),
        ("openai:llama:7b", "openai", "llama:7b"),
        ("openai:http://x", "openai", "http://x"),
        ("ft:gpt-6-luna:org:name:id", "openai", "ft:gpt-6-luna:org:name:id"),
        ("demo", "demo", "demo"),
        ("demo:", "demo", "demo"),
        ("demo:other", "demo", "other"),
        ("llamacpp", "llamacpp", "default"),
        ("llamacpp:qwen", "llamacpp", "qwen"),
        ("lab", "lab", "lab-large"),
        ("lab:small", "lab", "small"),
        ("plain:a/b:c", "plain", "a/b:c"),
        ("demonstration", "openai", "demonstration"),
        ("ollamas", "openai", "ollamas"),
    ],
)
def test_a_model_name_leads_somewhere(model: str, endpoint: str, name: str) -> None:
    """A prefix is an endpoint if its name is known; everything else is a model of OpenAI."""
    found = target(model, OWN, {})

    assert (found.endpoint.name, found.model) == (endpoint, name)


@pytest.mark.parametrize("model", ["llama3.2:3b", "qwen2.5-coder:7b", "meta-llama/Llama-3:free"])
def test_a_colon_may_be_part_of_a_name(model: str) -> None:
    """On a server that OPENAI_BASE_URL names, a model's name may hold a colon."""
    assert target(model, OWN, {"OPENAI_BASE_URL": "http://localhost:4000/v1"}).model == model


@pytest.mark.parametrize("model", ["mine:qwen3", "llama3.2:3b", "nope:", ":foo"])
def test_nothing_goes_to_openai_by_mistake(model: str) -> None:
    """OpenAI itself has no model with such a prefix: it was meant for a server that is not set, and is not sent."""
    with pytest.raises(EndpointError, match=f"no endpoint '{model.partition(':')[0]}' .known: openai, ollama"):
        target(model, OWN, {})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("olama:llama3.2", "ollama:llama3.2"),
        ("Ollama:llama3.2", "ollama:llama3.2"),
        (" ollama:llama3.2", "ollama:llama3.2"),
        ("ollama2:x", "ollama:x"),
        ("llama:7b", "openai:llama:7b"),
        ("llama3:8b", "openai:llama3:8b"),
        ("openia:gpt-6-luna", "openai:gpt-6-luna"),
        ("llama-cpp:x", "llamacpp:x"),
        ("labs:x", "lab:x"),
        ("dmeo:x", "demo:x"),
        ("http://localhost:11434/v1", "ChatMagic.endpoints"),
        ("HTTPS://api.example", "ChatMagic.endpoints"),
        ("ollama", "-m ollama:MODEL"),
        ("ollama:", "-m ollama:MODEL"),
        ("openai", "-m openai:MODEL"),
        ("plain:", "-m plain:MODEL"),
        ("", "-m MODEL"),
        (" ", "-m MODEL"),
    ],
)
def test_a_slip_leads_nowhere(model: str, message: str) -> None:
    """What is nearly an endpoint's name is an error that says what to write: no prompt leaves by a slip."""
    with pytest.raises(EndpointError) as caught:
        target(model, OWN, {})

    assert message in str(caught.value)


@given(st.text(max_size=30))
def test_any_model_name_leads_somewhere_or_is_an_error_of_ours(model: str) -> None:
    """No text for a model name breaks anything."""
    try:
        found = target(model, OWN, {})
    except EndpointError:
        return
    assert found.model in model
    assert found.model.strip()


def test_a_local_prompt_goes_to_its_own_endpoint_only() -> None:
    """With a known prefix the environment's base URL changes nothing."""
    found = target("ollama:x", {}, {"OPENAI_BASE_URL": "https://elsewhere.example/v1"})

    assert found.endpoint.url == BUILT_IN["ollama"]["url"]


def test_own_endpoints_win() -> None:
    """A user may move a built-in endpoint to another address."""
    found = target("ollama:x", {"ollama": {"url": "http://gpu.lan:11434/v1"}}, {})

    assert found.endpoint.url == "http://gpu.lan:11434/v1"


@pytest.mark.parametrize(
    ("environ", "own", "url"),
    [
        pytest.param({}, {}, "https://api.openai.com/v1", id="nothing set"),
        pytest.param({"OPENAI_BASE_URL": "http://localhost:1/v1"}, {}, "http://localhost:1/v1", id="set"),
        pytest.param(
            {"OPENAI_BASE_URL": " http://localhost:1/v1\n"}, {}, "http://localhost:1/v1", id="set with blanks"
        ),
        pytest.param({"OPENAI_BASE_URL": ""}, {}, "https://api.openai.com/v1", id="empty"),
        pytest.param(
            {"OPENAI_BASE_URL": "http://localhost:1/v1"},
            {"openai": {"url": "https://mine.example/v1"}},
            "https://mine.example/v1",
            id="an own endpoint of that name",
        ),
    ],
)
def test_openai_follows_the_environment(environ: dict[str, str], own: dict[str, dict[str, str]], url: str) -> None:
    """OPENAI_BASE_URL moves the built-in endpoint openai, and no other."""
    assert target("gpt-6-luna", own, environ).endpoint.url == url


# Endpoints of the user


def test_sound_endpoints_are_taken_as_they_are() -> None:
    """What can be used is returned as a copy."""
    given = {**OWN, "name-1.x_y": {"url": "http://[::1]:8000"}, "ollama": {"url": "HTTP://Host/v1/"}}

    result = checked(given)

    assert result == given
    assert all(result[name] is not given[name] for name in given)


SECRET = "sk-Very5ecret.0123456789"
URL = "https://ok.example/v1"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"url": URL, "key": SECRET}, id="a field named key"),
        pytest.param({"url": URL, "api_key": SECRET}, id="a field named api_key"),
        pytest.param({"url": URL, SECRET: "key"}, id="a field that is the key"),
        pytest.param({"url": URL, "key_env": SECRET}, id="the key as its variable"),
        pytest.param({"url": URL, "key_env": "gsk_aB3dE5gH7jK9mN1pQ3sT5vW7"}, id="a key that could name a variable"),
        pytest.param({"url": URL, "key_env": "AIzaSyA1b2C3d4E5f6G7h8I9j0"}, id="another one"),
        pytest.param({"url": URL, "key_env": f"MY_KEY={SECRET}"}, id="an assignment"),
        pytest.param({"url": URL, "key_env": f"NAME\n{SECRET}"}, id="two lines"),
        pytest.param({"url": URL, "key_env": [SECRET]}, id="a list"),
        pytest.param({"url": URL, "key_env": ""}, id="an empty variable"),
        pytest.param({"url": URL, "model": {"x": SECRET}}, id="a model that is no text"),
        pytest.param({"url": SECRET}, id="the key as the URL"),
        pytest.param({"url": f"https://user:{SECRET}@ok.example/v1"}, id="a password in the URL"),
        pytest.param({"url": f"https://{SECRET}@ok.example/v1"}, id="a user in the URL"),
        pytest.param({"url": f"https://ok.example/v1?key={SECRET}"}, id="a query"),
        pytest.param({"url": f"https://ok.example/v1#{SECRET}"}, id="a fragment"),
        pytest.param({"url": f"https://ok.example/ {SECRET}"}, id="a blank in the URL"),
        pytest.param({"url": f"https://ok.example/\n{SECRET}"}, id="a line break in the URL"),
        pytest.param({"url": f"https://ok.example:{SECRET}/"}, id="a port that is none"),
        pytest.param({"url": "https://ok.example:99999/"}, id="a port that is too high"),
        pytest.param({"url": f"ftp://ok.example/{SECRET}"}, id="another scheme"),
        pytest.param({"url": f"file:///{SECRET}"}, id="a file"),
        pytest.param({"url": f"//ok.example/{SECRET}"}, id="no scheme"),
        pytest.param({"url": "https://"}, id="no host"),
        pytest.param({"url": f"https:///{SECRET}"}, id="only a path"),
        pytest.param({"url": f"http://[::1/{SECRET}"}, id="half an address"),
        pytest.param({"url": None, "key_env": SECRET}, id="no URL"),
        pytest.param({"key_env": SECRET}, id="URL forgotten"),
        pytest.param(SECRET, id="a text"),
        pytest.param(None, id="nothing"),
    ],
)
def test_a_wrong_endpoint_is_refused_without_its_value(fields: Any) -> None:
    """A key in the wrong place, or a URL that cannot be one, is an error that names the endpoint and shows no value."""
    with pytest.raises(EndpointError, match="mine") as caught:
        checked({"mine": fields})

    message = str(caught.value)
    assert "ecret" not in message
    assert not [word for word in re.findall(r"[\w.-]{20,}", str(fields)) if word in message]
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "my_key", "_K2", "KEY_FOR_THE_LAB_SERVER_2025", "my_long_name_of_a_key"]
)
def test_names_of_variables_are_taken(name: str) -> None:
    """No usual name of a variable is mistaken for a key."""
    assert checked({"mine": {"url": URL, "key_env": name}})["mine"]["key_env"] == name


@pytest.mark.parametrize("name", ["demo", "", "1st", "a b", "a:b", "http://x", "-x", 5, None])
def test_a_wrong_name_is_refused(name: Any) -> None:
    """An endpoint's name must be one that can stand before a colon in -m, and demo is ours."""
    with pytest.raises(EndpointError, match="endpoint"):
        checked({name: {"url": URL}})


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text() | st.integers(), st.dictionaries(st.text() | st.just("url"), st.text() | st.none())))
def test_any_endpoints_are_taken_or_refused(endpoints: Any) -> None:
    """Whatever stands in the setting, it is an error of ours or can be used."""
    try:
        checked(endpoints)
    except EndpointError:
        return
    assert all(target(f"{name}:m", endpoints, {}).model == "m" for name in endpoints)


def test_a_bad_base_url_of_the_environment_is_refused() -> None:
    """OPENAI_BASE_URL is looked at like any URL, and not repeated either."""
    with pytest.raises(EndpointError, match="OPENAI_BASE_URL") as caught:
        target("gpt-6-luna", {}, {"OPENAI_BASE_URL": f"https://user:{SECRET}@ok.example"})

    assert SECRET not in str(caught.value)


# Keys


def endpoint(url: str = URL, key_env: str | None = "MINE") -> Endpoint:
    return Endpoint("mine", url, key_env)


@pytest.mark.parametrize(
    ("where", "environ", "key"),
    [
        pytest.param(endpoint(), {"MINE": SECRET}, SECRET, id="set"),
        pytest.param(endpoint(), {"MINE": f" {SECRET}\n"}, SECRET, id="set with blanks around it"),
        pytest.param(endpoint(key_env=None), {"MINE": SECRET, "OPENAI_API_KEY": SECRET}, None, id="none needed"),
        pytest.param(endpoint("http://localhost:1/v1"), {}, None, id="loopback without"),
        pytest.param(endpoint("http://127.0.0.1:1/v1"), {"MINE": " "}, None, id="loopback, blank"),
        pytest.param(endpoint("http://localhost:1/v1"), {"MINE": SECRET}, SECRET, id="loopback with"),
    ],
)
def test_a_key_comes_from_its_variable(where: Endpoint, environ: dict[str, str], key: str | None) -> None:
    """The key is what the endpoint's own variable holds; a server on this machine needs none."""
    assert key_of(where, environ) == key


@pytest.mark.parametrize("environ", [{}, {"MINE": ""}, {"MINE": " \n"}, {"OPENAI_API_KEY": SECRET}])
def test_a_missing_key_names_the_ways_out(environ: dict[str, str]) -> None:
    """Without a key the error names its variable, how to set it, and what works without one."""
    with pytest.raises(EndpointError) as caught:
        key_of(endpoint(), environ)

    assert all(word in str(caught.value) for word in ("MINE", "getpass", "ollama", "demo"))


@pytest.mark.parametrize("mark", ["\n", " ", "\t", "\x00", "\x7f", "é", "\u2028", "\u200b", "😀"])
def test_a_key_that_cannot_be_one_is_not_shown(mark: str) -> None:
    """A key with a character that no header takes is refused by the name of its variable."""
    with pytest.raises(EndpointError, match="MINE") as caught:
        key_of(endpoint(), {"MINE": f"{SECRET}{mark}{SECRET}"})

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:11434/v1", True),
        ("http://LOCALHOST/v1", True),
        ("http://lab.localhost/v1", True),
        ("https://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://127.evil.example/v1", False),
        ("http://localhost.evil.example/v1", False),
        ("http://192.168.1.5/v1", False),
        ("https://api.openai.com/v1", False),
        ("http://demo.invalid/v1", False),
    ],
)
def test_local_is_this_machine_only(url: str, local: bool) -> None:
    """Only addresses of this machine count as local."""
    assert Endpoint("x", url).is_local is local


def test_the_built_in_endpoints_can_be_used() -> None:
    """What is built in passes the check of what a user sets, but for the name that is ours."""
    assert checked({name: fields for name, fields in BUILT_IN.items() if name != "demo"})
