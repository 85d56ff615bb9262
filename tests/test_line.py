"""The line of a magic: how it is split, what it may hold, and what a person is told when it does not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatmagic.conversation.settings import Settings
from chatmagic.errors import LineError, SettingError
from chatmagic.line import SETTINGS, Form, Option, Word, assignments, nearest, settings, split, written

CELL = Form(
    "%%chat",
    "Ask the text of the cell.",
    ("[SESSION]",),
    (
        *SETTINGS,
        Option(("-o", "--out"), "keep the reply as NAME", "NAME"),
        Option(("--image",), "send a picture", "FILE", repeated=True),
        Option(("--once",), "keep nothing"),
        Option(("--no-stream",), "ask for one piece"),
    ),
    more="Settings hold for the rest.",
    surplus="the prompt goes on the next line, found {word!r}",
)
USE = Form("%chat use", "Switch.", ("NAME",))
RENAME = Form("%chat rename", "Rename.", ("OLD", "NEW"))
SHOW = Form("%chat show", "Show.", ("[NAME]", "[N]"))
SET = Form("%chat set", "Set.", ("[KEY=VALUE …]",))

LINES = st.text(st.sampled_from("ab-= \t\n'\"\\{}[]é“") | st.characters(), max_size=40)
BLANKS_AND_QUOTES = str.maketrans("", "", "'\"")


def texts(line: str) -> list[str]:
    return [word.text for word in split(line)]


def given_in(line: str) -> dict[str, Any]:
    """What CELL reads from *line*, without all that was not given."""
    return {key: value for key, value in CELL.read(line).items() if value not in (None, False, [])}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("", [], id="empty"),
        pytest.param(" \t a\t b \n", ["a", "b"], id="blanks of any kind"),
        pytest.param('-s "You are brief."', ["-s", "You are brief."], id="double quotes"),
        pytest.param("-s 'You are brief.'", ["-s", "You are brief."], id="single quotes"),
        pytest.param('-s "" a', ["-s", "", "a"], id="empty quotes"),
        pytest.param('"  a  "', ["  a  "], id="blanks in quotes"),
        pytest.param('--system="a b" c', ["--system=a b", "c"], id="after = of an option"),
        pytest.param("system='a b' c", ["system=a b", "c"], id="after = of a setting"),
        pytest.param('--set=system="a b" c', ["--set=system=a b", "c"], id="after the second ="),
        pytest.param('système="a b"', ["système=a b"], id="after = of a word with accents"),
        pytest.param("don't say it's", ["don't", "say", "it's"], id="apostrophes in words"),
        pytest.param("'tis so", ["'tis", "so"], id="lone apostrophe at the start"),
        pytest.param("system='tis so", ["system='tis", "so"], id="lone apostrophe after ="),
        pytest.param("the dogs' bones", ["the", "dogs'", "bones"], id="apostrophe at the end"),
        pytest.param("-s 'You're kind' a", ["-s", "You're kind", "a"], id="apostrophe in single quotes"),
        pytest.param('-s "You\'re kind"', ["-s", "You're kind"], id="apostrophe in double quotes"),
        pytest.param('stop=["a","b"]', ['stop=["a","b"]'], id="JSON without blanks"),
        pytest.param("""'f={"a": "b"}'""", ['f={"a": "b"}'], id="JSON in quotes"),
        pytest.param("""f='{"a": "b"}'""", ['f={"a": "b"}'], id="JSON in quotes after ="),
        pytest.param(r"C:\new\table", [r"C:\new\table"], id="backslashes"),
        pytest.param(r'"C:\my files\" a', ["C:\\my files\\", "a"], id="a backslash escapes no quote"),
        pytest.param('5" a"b c"', ['5"', 'a"b', 'c"'], id="double quotes inside words do not group"),
        pytest.param('"a"b c"', ['a"b c'], id="quotes close before a blank only"),
        pytest.param("“a b”", ["“a", "b”"], id="typographic quotes are text"),
    ],
)
def test_split(line: str, expected: list[str]) -> None:
    """Quotes group at the start of a word or after its =, and everything else in a line is text."""
    assert texts(line) == expected


def test_quoted_words_are_told_apart() -> None:
    """Split says which words stood in quotes, so that they are never taken for options."""
    assert split("\"--once\" --once -m='a b'") == [Word("--once", quoted=True), Word("--once"), Word("-m=a b")]


@pytest.mark.parametrize(
    ("line", "begin"),
    [
        ('-s "You are', "You"),
        ('"', ""),
        ('system="a b', "a"),
        ('--set=system="a b', "a"),
        ('-s "You"re', 'You"re'),
        ('f={"type": "json_object"}', 'json_object"}'),
        ('"' + "a" * 50, "a" * 20),
    ],
    ids=[
        "at the start",
        "alone",
        "after =",
        "after the second =",
        "no blank after its end",
        "JSON with blanks",
        "long",
    ],
)
def test_open_quote(line: str, begin: str) -> None:
    """A double quote that is never closed is an error that shows where it was opened."""
    with pytest.raises(LineError) as caught:
        split(line)

    told = f"the quote before {begin!r} is never closed (a blank must follow its end). A value with blanks is quoted as"
    assert str(caught.value).startswith(told)


@given(LINES)
def test_split_drops_blanks_and_quotes_only(line: str) -> None:
    """Every character of any line that can be split comes through, in its order, but for blanks and quotes."""
    try:
        words = texts(line)
    except LineError:
        assert '"' in line
        return

    assert _bare("".join(words)) == _bare(line)


def _bare(text: str) -> str:
    return "".join(text.translate(BLANKS_AND_QUOTES).split())


@given(LINES.map(lambda line: line.translate(BLANKS_AND_QUOTES)))
def test_split_without_quotes(line: str) -> None:
    """A line without quotes is split at its blanks."""
    assert split(line) == [Word(text) for text in line.split()]


@given(st.text(st.sampled_from("ab= \"'\\") | st.characters()), st.sampled_from("'\""))
def test_quotes_give_back_what_is_in_them(text: str, quote: str) -> None:
    """Any text in which no quote stands before a blank comes through quotes unchanged."""
    pieces = text.split(quote)
    text = pieces[0] + "".join(piece if piece[:1].isspace() else quote + piece for piece in pieces[1:])

    assert split(f"a {quote}{text}{quote} b") == [Word("a"), Word(text, quoted=True), Word("b")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("", {}, id="nothing"),
        pytest.param("tutor", {"session": "tutor"}, id="a word"),
        pytest.param("tutor -m gpt", {"session": "tutor", "model": "gpt"}, id="an option behind the word"),
        pytest.param("-m gpt tutor", {"session": "tutor", "model": "gpt"}, id="an option before the word"),
        pytest.param("--model gpt", {"model": "gpt"}, id="the long name"),
        pytest.param("--model=gpt", {"model": "gpt"}, id="a value behind ="),
        pytest.param("-m=gpt", {"model": "gpt"}, id="a value behind = of the short name"),
        pytest.param("--model=a=b", {"model": "a=b"}, id="a value with ="),
        pytest.param("--model=", {"model": ""}, id="an empty value"),
        pytest.param('-s ""', {"system": ""}, id="an empty value in quotes"),
        pytest.param('--system="-m gpt"', {"system": "-m gpt"}, id="an option in the value"),
        pytest.param('-s "--model"', {"system": "--model"}, id="an option in quotes is a value"),
        pytest.param("-s -", {"system": "-"}, id="a dash is a value"),
        pytest.param("--set -1", {"set": ["-1"]}, id="a negative number is a value"),
        pytest.param("--once", {"once": True}, id="a switch"),
        pytest.param("--once tutor", {"once": True, "session": "tutor"}, id="a switch takes no word"),
        pytest.param("--once --once", {"once": True}, id="a switch twice"),
        pytest.param("--no-stream", {"no-stream": True}, id="a switch with a dash in its name"),
        pytest.param("--set a=1 --set b=2", {"set": ["a=1", "b=2"]}, id="a repeated option"),
        pytest.param("--set=a=1 --image=x --image y", {"set": ["a=1"], "image": ["x", "y"]}, id="two repeated options"),
        pytest.param('"--once"', {"session": "--once"}, id="a switch in quotes is a word"),
        pytest.param("-", {"session": "-"}, id="a dash is a word"),
    ],
)
def test_read(line: str, expected: dict[str, Any]) -> None:
    """Words and options are read by their names, wherever they stand."""
    assert given_in(line) == expected


def test_what_is_not_given() -> None:
    """Without being given a switch is False, a repeated option an empty list, and anything else None."""
    assert CELL.read("") == {
        "session": None,
        "model": None,
        "system": None,
        "context": None,
        "recall": None,
        "learn": False,
        "set": [],
        "out": None,
        "image": [],
        "once": False,
        "no-stream": False,
        "help": False,
    }


@given(st.permutations([("tutor",), ("-m", "gpt"), ("--system=a",), ("--set", "a=1"), ("--once",), ("--image", "x")]))
def test_order(groups: list[tuple[str, ...]]) -> None:
    """The order of words and options does not matter."""
    line = " ".join(word for group in groups for word in group)

    assert given_in(line) == {
        "session": "tutor",
        "model": "gpt",
        "system": "a",
        "set": ["a=1"],
        "once": True,
        "image": ["x"],
    }


@pytest.mark.parametrize(
    ("form", "line", "expected"),
    [
        (USE, "tutor", {"name": "tutor"}),
        (RENAME, "a b", {"old": "a", "new": "b"}),
        (SHOW, "", {"name": None, "n": None}),
        (SHOW, "a", {"name": "a", "n": None}),
        (SHOW, "a 3", {"name": "a", "n": "3"}),
        (SET, "", {"key=value": []}),
        (SET, 'a=1 system="x y"', {"key=value": ["a=1", "system=x y"]}),
    ],
    ids=[
        "one",
        "two",
        "no optional one",
        "the first optional one",
        "both optional ones",
        "no repeated one",
        "repeated",
    ],
)
def test_words(form: Form, line: str, expected: dict[str, Any]) -> None:
    """Words are named by the form in their order; optional ones may be missing, and the last may be repeated."""
    assert form.read(line) == {"help": False, **expected}


@pytest.mark.parametrize(
    ("form", "line", "told"),
    [
        pytest.param(
            CELL, "a b", "%%chat [SESSION] [options]: the prompt goes on the next line, found 'b'", id="prompt"
        ),
        pytest.param(CELL, "What is it?", "the prompt goes on the next line, found 'is'", id="a prompt of three words"),
        pytest.param(USE, "a b", "%chat use NAME: 'b' is one word too many", id="a word too many"),
        pytest.param(USE, "", "%chat use needs NAME: %chat use NAME", id="a word is missing"),
        pytest.param(RENAME, "a", "%chat rename needs NEW: %chat rename OLD NEW", id="the second word is missing"),
        pytest.param(CELL, "--modle x", "%%chat has no option '--modle'. Did you mean --model?", id="near"),
        pytest.param(CELL, "--modle=x", "no option '--modle'. Did you mean --model?", id="near, with a value"),
        pytest.param(USE, "--zzzz", "%chat use has no option '--zzzz'. See %chat use --help", id="near to nothing"),
        pytest.param(CELL, "--top_k 1", "is set with --set top_k=VALUE. See %chat --help", id="a request parameter"),
        pytest.param(CELL, "--mod x", "no option '--mod'", id="no abbreviations"),
        pytest.param(CELL, "-mgpt", "no option '-mgpt'. See %chat --help", id="no value glued to a short name"),
        pytest.param(CELL, "-1", "no option '-1'. See %chat --help", id="a number is no option"),
        pytest.param(CELL, "-- a", "no option '--'. See %chat --help", id="two dashes"),
        pytest.param(CELL, "--top-p 1", "is set with --set top_p=VALUE. See", id="a request parameter with a dash"),
        pytest.param(USE, "-m x", "%chat use has no option '-m'. See %chat use --help", id="an option of another form"),
        pytest.param(CELL, "-m", "-m needs a value: %%chat -m MODEL", id="a value is missing at the end"),
        pytest.param(CELL, "-m --once", "-m needs a value", id="a value is missing before a switch"),
        pytest.param(CELL, "-m --system=a", "-m needs a value", id="a value is missing before an option with ="),
        pytest.param(
            CELL,
            "-m --sytem a",
            "-m needs a value, found '--sytem': %%chat -m MODEL (quotes make it a value)",
            id="a value is missing before a slip",
        ),
        pytest.param(CELL, "-m -x", "-m needs a value", id="a value is missing before an unknown letter"),
        pytest.param(CELL, "--set", "--set needs a value: %%chat --set KEY=VALUE", id="a repeated one without value"),
        pytest.param(CELL, "-m a --model b", "--model is given twice: 'a' and 'b'", id="twice"),
        pytest.param(CELL, "-m= -m b", "-m is given twice: '' and 'b'", id="twice, at first empty"),
        pytest.param(CELL, "--once=yes", "--once takes no value, found 'yes'", id="a switch with a value"),
        pytest.param(CELL, "--once=", "--once takes no value, found ''", id="a switch with an empty value"),
        pytest.param(CELL, '-s "a', "never closed", id="an open quote"),
    ],
)
def test_misfits(form: Form, line: str, told: str) -> None:
    """A line that does not fit is an error that says what is wrong with it and what would fit."""
    with pytest.raises(LineError) as caught:
        form.read(line)

    assert told in str(caught.value)


@given(LINES)
def test_read_any_line(line: str) -> None:
    """Any line is read as the form describes, or is a LineError."""
    try:
        values = CELL.read(line)
    except LineError:
        return

    assert values.keys() >= {"model", "system", "set", "help"}
    assert all(isinstance(values[key], bool) for key in ("once", "no-stream", "help"))


@pytest.mark.parametrize("line", ["--help", "tutor --help", "a b c --help", "--help -m gpt"])
def test_help_comes_first(line: str) -> None:
    """Whoever asks for help gets it, though words are missing or too many."""
    assert CELL.read(line)["help"] is True
    assert RENAME.read("--help")["help"] is True


def test_help() -> None:
    """The help shows the form, what it does, and each option with its names, value and meaning."""
    assert CELL.help.splitlines() == [
        "%%chat [SESSION] [options]",
        "",
        "Ask the text of the cell.",
        "",
        "Settings hold for the rest.",
        "",
        "  -m, --model MODEL  who answers: MODEL, or ENDPOINT:MODEL (ollama:llama3.2)",
        "  -s, --system TEXT  the system prompt",
        "  --context POLICY   what of the history is sent: budget, budget:N (tokens), summary, last:K",
        "                     (turns), all, or a function of yours",
        "  --recall K         send the K turns along that fit the prompt best, of those that are not",
        "                     sent any more",
        "  --learn            let summaries propose facts that are worth remembering",
        "  --set KEY=VALUE    any request parameter (temperature=0); KEY= takes it back; repeatable",
        "  -o, --out NAME     keep the reply as NAME",
        "  --image FILE       send a picture",
        "  --once             keep nothing",
        "  --no-stream        ask for one piece",
        "  --help             show this help; nothing is sent",
    ]


def test_help_without_options() -> None:
    """A form without options of its own names none, and has help all the same."""
    assert USE.help == "%chat use NAME\n\nSwitch.\n\n  --help  show this help; nothing is sent"


@pytest.mark.parametrize(
    ("name", "told"),
    [("--sytem", ". Did you mean --system?"), ("--system", ". Did you mean --system?"), ("xyz", ".")],
    ids=["slip", "the same", "nothing near"],
)
def test_nearest(name: str, told: str) -> None:
    """The known name that is nearest is proposed, and none if all are far."""
    assert nearest(name, ["--set", "--system"]) == told


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", Settings()),
        ("-m gpt", Settings({"model": "gpt"})),
        ('-s "Be brief."', Settings({"system": "Be brief."})),
        ("-m 4 -s true", Settings({"model": "4", "system": "true"})),
        ("--recall 3 --learn", Settings({"recall": 3, "learn": True})),
        ("--set temperature=0 --set user=me", Settings({"temperature": 0, "user": "me"})),
        ("--set model=4 --set system=true", Settings({"model": "4", "system": "true"})),
        ('-s "" --set temperature=', Settings(unset=frozenset({"system", "temperature"}))),
    ],
    ids=["nothing", "model", "system", "these two are text", "ours", "parameters", "these two are text, set", "unset"],
)
def test_settings(line: str, expected: Settings) -> None:
    """The options that describe the conversation become one layer of settings."""
    assert settings(CELL.read(line)) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=0", 0),
        ("a=0.5", 0.5),
        ("a=true", True),
        ("a=null", None),
        ('a=["x", "y"]', ["x", "y"]),
        ('a={"type": "json_object"}', {"type": "json_object"}),
        ('a="0"', "0"),
        ("a=medium", "medium"),
        ("a=b=c", "b=c"),
        ("a=True", "True"),
        ("a= b ", " b "),
        ("a=NaN", "NaN"),
        ("a=-Infinity", "-Infinity"),
        ("a=1e999", "1e999"),
        ("a=[1e999]", "[1e999]"),
        ("a=" + "[" * 100_000, "[" * 100_000),
        ("a=" + "1" * 5_000, "1" * 5_000),
    ],
    ids=[
        *[
            "int",
            "float",
            "true",
            "null",
            "list",
            "object",
            "text in quotes",
            "text",
            "text with =",
            "Python is no JSON",
        ],
        *["blanks", "NaN", "infinity", "beyond a float", "beyond a float, in a list", "too deep", "too long"],
    ],
)
def test_value(text: str, value: object) -> None:
    """A value is JSON if it can be read as such and sent as such, and the text itself if not."""
    assert assignments([text]) == Settings({"a": value})


@pytest.mark.parametrize("text", ["a=", 'a=""'], ids=["nothing", "an empty JSON text"])
def test_unset(text: str) -> None:
    """KEY= takes a setting back."""
    assert assignments([text]) == Settings(unset=frozenset({"a"}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON.filter(lambda value: value != ""))
def test_any_json_is_read(value: object) -> None:
    """Any JSON value can be set."""
    found = assignments([f"key={json.dumps(value)}"]).values["key"]

    assert json.dumps(found) == json.dumps(value)


@pytest.mark.parametrize(
    "text", ["a", "=1", "1a=1", "top-p=1", "a b=1", ""], ids=["no =", "no key", "digit", "dash", "blank", "empty"]
)
def test_no_assignment(text: str) -> None:
    """What is not KEY=VALUE is an error that shows how a value with blanks is written."""
    with pytest.raises(LineError) as caught:
        assignments([text])

    told = f"{text!r} is not KEY=VALUE: temperature=0, or with blanks in it system='Be brief.'"
    assert str(caught.value) == told


@pytest.mark.parametrize("line", ["-m a --set model=b", "--set model=b -m a"], ids=["option before", "option behind"])
def test_set_twice(line: str) -> None:
    """A key that is given twice in one line is an error that names both values, whichever way it is given."""
    with pytest.raises(LineError, match="'model' is set twice: to 'a' and to 'b'"):
        settings(CELL.read(line))


def test_unset_and_set() -> None:
    """A key is not both taken back and set in one line."""
    with pytest.raises(LineError, match="'a' is set twice: to '' and to 1"):
        assignments(["a=", "a=1"])


def test_keys_of_our_own() -> None:
    """What chatmagic fills in itself cannot be set by a line."""
    with pytest.raises(SettingError, match="'messages' cannot be set"):
        settings(CELL.read("--set messages=[]"))


TEXTS = st.text(st.sampled_from("ab \"'={}[]:,-#%1\\é\n"), max_size=8)
VALUES: st.SearchStrategy[Any] = st.one_of(
    TEXTS, st.integers(-9, 9), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(),
    st.lists(TEXTS, max_size=2), st.dictionaries(TEXTS, TEXTS, max_size=2),
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["model", "system"]), TEXTS.filter(bool)),
    st.dictionaries(st.sampled_from(["seed", "stop"]), VALUES.filter(lambda value: value != "")),
    st.frozensets(st.sampled_from(["model", "top_p"])),
)
def test_what_is_written_reads_as_it_was_meant(
    said: dict[str, Any], more: dict[str, Any], unset: frozenset[str]
) -> None:
    """Options that we write read back as the settings they stand for, without the keys that are named as impossible."""
    values = {**said, **more}
    wanted = Settings(values, unset - values.keys())
    text, impossible = written(wanted)

    assert settings(Form("%%chat", "", (), SETTINGS).read(text)) == wanted.without(impossible)
    assert "\n" not in text
    plain = {key for key, value in values.items() if not set(json.dumps(value)) & set("\"'\\{[")}
    assert not plain & set(impossible)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Settings({"model": "ollama:phi"}), "-m ollama:phi"),
        (Settings({"system": "You're brief."}), '-s "You\'re brief."'),
        (Settings({"system": 'Say "hi" twice'}), "-s 'Say \"hi\" twice'"),
        (Settings({"stop": ["a", "b c"]}), """--set stop='["a", "b c"]'"""),
        (Settings({"seed": "1"}), """--set seed='"1"'"""),
        (Settings(unset=frozenset({"model"})), "--set model="),
    ],
)
def test_written(wanted: Settings, text: str) -> None:
    """Options are written the way a person would."""
    assert written(wanted) == (text, [])


@pytest.mark.parametrize(
    ("line", "text", "model"),
    [
        ("It's -m 4 \"quoted", "It's -m 4 \"quoted", None),
        ("  two  blanks ", "two  blanks", None),
        ("-m ollama:x  a --model b", "a --model b", "ollama:x"),
        ('--model="a b" -5 degrees', "-5 degrees", "a b"),
        ("'--model' is text", "'--model' is text", None),
    ],
)
def test_raw(line: str, text: str, model: str | None) -> None:
    """The word of a raw form is the rest of the line as it was typed; options stand before it."""
    form = Form("%chat note", "", ("TEXT",), (Option(("-m", "--model"), "", "MODEL"),), raw=True)

    values = form.read(line)

    assert (values["text"], values["model"]) == (text, model)


@pytest.mark.parametrize(
    ("line", "error"), [("", "needs TEXT"), ("--modle x y", "Did you mean --model"), ("-m", "value")]
)
def test_raw_that_cannot_be_read(line: str, error: str) -> None:
    """A raw form needs its text, and knows its options."""
    with pytest.raises(LineError, match=error):
        Form("%chat note", "", ("TEXT",), (Option(("-m", "--model"), "", "MODEL"),), raw=True).read(line)
