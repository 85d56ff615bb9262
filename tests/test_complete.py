"""Tab completion: what can stand at the cursor, and how IPython and a kernel offer it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from openai.types.chat import completion_create_params

from chatmagic import magics
from chatmagic.commands import VERBS
from chatmagic.complete import PARAMETERS, Expression, Known, Offer, at_cursor
from chatmagic.conversation.settings import checked
from chatmagic.line import Form
from chatmagic.tab import install
from tests.kernel import RealKernel

NAME, LIST = ("[NAME]",), ("[KEY=VALUE …]",)

KNOWN = Known(
    magics.CELL,
    {
        "use": Form("%chat use", "", ("NAME",)),
        "undo": Form("%chat undo", "", ("[N]",)),
        "rename": Form("%chat rename", "", ("OLD", "NEW")),
        "new": Form("%chat new", "", ("NAME",), magics.CELL.options),
        "fork": Form("%chat fork", "", ("NAME",)),
        "set": Form("%chat set", "", LIST),
        "models": Form("%chat models", "", ("[ENDPOINT]",)),
    },
    sessions=["tutor", "tux", "straße"],
    models=["gpt-6-luna", "demo", "ollama:phi"],
    endpoints={"ollama": ["llama3.2", "llava"], "other": [], "demo": ["demo"]},
)

LONG = [option.names[-1] for option in magics.CELL.options]
MODELS = ["gpt-6-luna", "demo", "ollama:phi", "ollama:", "other:"]


def found(marked: str, known: Known = KNOWN) -> Offer | Expression | None:
    """Return what fits at the ``|`` of a cell."""
    before, _, after = marked.rpartition("|")
    return at_cursor(before + after, before.count("\n"), len(before.rpartition("\n")[2]), known)


def offered(marked: str, known: Known = KNOWN) -> list[str]:
    """Return the texts that fit at the ``|`` of a cell, which must be ours."""
    offer = found(marked, known)
    assert isinstance(offer, Offer)
    assert marked.rpartition("|")[0].endswith(offer.fragment)
    return list(offer.texts)


@pytest.mark.parametrize(
    ("marked", "texts"),
    [
        ("%%chat |", ["tutor", "tux", "straße"]),
        ("%%chat tu|", ["tutor", "tux"]),
        ("%%chat tu|\nA prompt", ["tutor", "tux"]),
        ("\n  %%chat\ttu|", ["tutor", "tux"]),
        ("%%chat Tu|", []),
        ("%%chat -m demo tu|", ["tutor", "tux"]),
        ("%%chat --once tu|", ["tutor", "tux"]),
        ("%%chat tutor tu|", []),
        ("%%chat tu|tor", ["tutor", "tux"]),
    ],
)
def test_session_of_a_cell(marked: str, texts: list[str]) -> None:
    """The one bare word of %%chat is the name of a session."""
    assert offered(marked) == texts


def test_letters_in_pieces_are_known_letters() -> None:
    """A name typed with combining accents is completed to the name as it is kept."""
    assert offered("%%chat e\u0301t|", Known(magics.CELL, {}, ["étude"])) == ["étude"]


@pytest.mark.parametrize(
    ("marked", "texts"),
    [
        (
            "%%chat -|",
            [
                "-m",
                "--model",
                "-s",
                "--system",
                "--context",
                "--recall",
                "--learn",
                "--set",
                "--append",
                "--at",
                "--read",
                "--once",
                "--dry-run",
                "--no-stream",
                "--raw",
                "--summary",
                "--help",
            ],
        ),
        ("%%chat --|", [*LONG, "--help"]),
        ("%%chat tutor --s|", ["--system", "--set", "--summary"]),
        ("%%chat tutor --read t|", ["tutor", "tux"]),
        ("%%chat --read tutor --re|", ["--recall", "--read"]),
        ("%%chat -m demo --m|", []),
        ("%%chat --model=demo -m|", []),
        ("%%chat --set seed=1 --se|", ["--set"]),
        ("%%chat --context |", ["budget", "budget:", "summary", "summary:", "last:", "all"]),
        ("%%chat --set summary_model=gp|", ["gpt-6-luna"]),
        ("%%chat --context=la|", ["last:"]),
        ("%%chat --set context=b|", ["budget", "budget:"]),
        ("%%chat --set model=demo --m|", []),
        ("%%chat model --mod|", ["--model"]),
        ("%%chat -s model=x --mod|", ["--model"]),
        ("%%chat --system=model=x --mod|", ["--model"]),
        ('%%chat -s "--once" --o|', ["--once"]),
        ("%%chat --nothing --o|", ["--once"]),
        (
            "%%chat tutor |",
            [
                "-m",
                "--model",
                "-s",
                "--system",
                "--context",
                "--recall",
                "--learn",
                "--set",
                "--append",
                "--at",
                "--read",
                "--once",
                "--dry-run",
                "--no-stream",
                "--raw",
                "--summary",
            ],
        ),
        ("%chat new tutor --mo|", ["--model"]),
        ("%chat use --|", ["--help"]),
        ("%chat use tutor |", []),
    ],
)
def test_options(marked: str, texts: list[str]) -> None:
    """Options are offered for a dash and where no word is left, without those that cannot be given again."""
    assert offered(marked) == texts


@pytest.mark.parametrize(
    ("marked", "texts"),
    [
        ("%%chat -m |", MODELS),
        ("%%chat --model g|", ["gpt-6-luna"]),
        ("%%chat --model=g|", ["gpt-6-luna"]),
        ("%%chat -m=ol|", ["ollama:phi", "ollama:"]),
        ("%%chat -m ollama:|", ["ollama:phi", "ollama:llama3.2", "ollama:llava"]),
        ("%%chat -m ollama:lla|", ["ollama:llama3.2", "ollama:llava"]),
        ("%%chat -m demo:|", ["demo:demo"]),
        ("%%chat -m other:|", []),
        ("%%chat -m nobody:|", []),
        ("%%chat -m -|", []),
        ("%%chat --set model=ol|", ["ollama:phi", "ollama:"]),
        ("%chat set model=|", MODELS),
        ("%chat new a -m g|", ["gpt-6-luna"]),
        ("%chat models o|", ["ollama", "other"]),
    ],
)
def test_models_and_endpoints(marked: str, texts: list[str]) -> None:
    """Where a model is expected, known ones and the names of endpoints are offered; behind a colon, its own."""
    assert offered(marked) == texts


@pytest.mark.parametrize(
    ("marked", "texts"),
    [
        ("%%chat --set te|", ["temperature="]),
        ("%%chat --set=te|", ["temperature="]),
        ("%%chat --set mo|", ["model="]),
        ("%%chat --set temperature=0 --set te|", []),
        ("%%chat --set=temperature=0 --set te|", []),
        ("%%chat -m demo --set mo|", []),
        ("%%chat --set temperature=|", []),
        ("%%chat --set system=|", []),
        (
            "%chat set s|",
            ["system=", "summary_model=", "seed=", "stop=", "service_tier=", "safety_identifier=", "store="],
        ),
        ("%chat set seed=1 to|", ["top_p=", "top_logprobs="]),
        ("%chat set service_tier=flex se|", ["seed="]),
    ],
)
def test_keys_of_settings(marked: str, texts: list[str]) -> None:
    """Keys that are not set yet are offered with their equals sign; their values are the user's."""
    assert offered(marked) == texts


@pytest.mark.parametrize(
    "marked",
    [
        "%%chat -s |",
        "%%chat -s tu|",
        '%%chat -s "tu|',
        '%%chat -s "You are -|',
        "%%chat -s 'tu |",
        "%%chat --system='tu|",
        '%%chat --set system="You are |',
        '%%chat -s "tu"|',
        '%%chat "tu|',
        "%chat undo t|",
    ],
)
def test_nothing_for_free_text(marked: str) -> None:
    """A system prompt, a quoted value and a number are not completed."""
    assert offered(marked) == []


@pytest.mark.parametrize(
    "marked",
    [
        "%%chat\nim|",
        "%%chat\n|",
        "%%chat\n%chat |",
        "%%chat\nsee {{ df }} im|",
        "%%chat\nsee {{ {'a': {1: 2 }} }} im|",
        "%%chat\nsee {{ }} im|",
        "%%chat\nsee {{im|",
        "%%chat\nsee \\{{ im|",
        "%%chat\nsee ${{ im|",
        "%%chat\nsee {{ a\nim|",
        "%%chat --raw\nsee {{ im|",
    ],
)
def test_nothing_in_the_prompt(marked: str) -> None:
    """The prompt is text: nothing is offered there, and nobody else is asked."""
    assert found(marked) == Offer()


@pytest.mark.parametrize(
    ("marked", "source"),
    [
        ("%%chat\nsee {{ df.de|", "df.de"),
        ("%%chat\ndon't {{ a }} {{ b[|", "b["),
        ("%%chat\n{{ |", ""),
        ("%%chat\n{{ x | js| }}", "x | js"),
    ],
)
def test_an_expression_of_the_prompt_is_python(marked: str, source: str) -> None:
    """Within {{ }} Python is completed, from the beginning of the expression."""
    assert found(marked) == Expression(source)


@pytest.mark.parametrize(
    ("marked", "texts"),
    [
        ("%chat |", list(KNOWN.verbs)),
        ("%chat u|", ["use", "undo"]),
        ("%chat -|", ["--help"]),
        ("import os\n  %chat u|\nprint()", ["use", "undo"]),
        ("%chat use tu|", ["tutor", "tux"]),
        ("%chat rename tu|", ["tutor", "tux"]),
        ("%chat rename tutor tu|", []),
        ("%chat new tu|", []),
        ("%chat fork tu|", []),
        ("%chat tutor |", []),
        ("%chat tell me |", []),
    ],
)
def test_verbs_and_their_words(marked: str, texts: list[str]) -> None:
    """%chat takes a verb, anywhere in a cell, and then what that verb takes; names of sessions where one must exist."""
    assert offered(marked) == texts


@pytest.mark.parametrize(
    "marked",
    [
        "|",
        "im|",
        "%%cha|",
        "%%chat|",
        "|%%chat tutor",
        "|\n%%chat tutor",
        "%%chatter |",
        "%chat|",
        "%chatter |",
        "x = 1 %chat |",
        "import os\n%%chat |",
        "%chat use tutor\nim|",
        "%%time\nim|",
    ],
)
def test_everything_else_is_left_to_ipython(marked: str) -> None:
    """Where no line of ours is, and while the magic's own name is typed, IPython goes on as usual."""
    assert found(marked) is None


@pytest.mark.parametrize("name", ["a b", "a\n%%bash", "a\x1b[2J", 'a"', "a'b"])
def test_a_listed_name_that_is_no_word_is_not_offered(name: str) -> None:
    """What a server lists as a model can put nothing into a cell but a word."""
    known = Known(magics.CELL, {}, models=[name], endpoints={"far": [name, "fine"]})

    assert offered("%%chat -m |", known) == ["far:"]
    assert offered("%%chat -m far:|", known) == ["far:fine"]


def test_parameters_are_parameters() -> None:
    """Every key that is offered is one of a chat request, and can be set."""
    real = completion_create_params.CompletionCreateParamsBase.__annotations__

    assert set(PARAMETERS) <= set(real)
    assert checked(dict.fromkeys(PARAMETERS, 1)).keys == set(PARAMETERS)


PIECES = st.sampled_from(
    ["%%chat", "%chat", " ", "\n", "tutor", "-m", "--set", "=", '"', "'", "{{ ", " }}", "\\", "ollama:", "use", "é"]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join), st.data())
def test_any_cursor_in_any_text(text: str, data: st.DataObject) -> None:
    """Nothing fails, and what would be replaced always ends at the cursor."""
    before = text[: data.draw(st.integers(0, len(text)))]
    offer = at_cursor(text, before.count("\n"), len(before.rpartition("\n")[2]), KNOWN)

    if isinstance(offer, Offer):
        assert before.endswith(offer.fragment)
    if isinstance(offer, Expression):
        assert before.endswith(offer.source)


@given(st.text(), st.integers(0, 50), st.integers(0, 50))
def test_a_cursor_beyond_the_text(text: str, line: int, column: int) -> None:
    """A cursor that is not in the text is no failure."""
    at_cursor("%%chat " + text, line, column, KNOWN)


def tab(shell: InteractiveShell, code: str) -> list[str]:
    """Return what the text before the cursor may become, as front ends get it."""
    completer: Any = shell.Completer
    with provisionalcompleter():
        return [code[: each.start] + each.text for each in completer.completions(code, len(code))]


def test_tab_in_a_shell_offers_ours_only(shell: InteractiveShell, kernel: magics.Kernel) -> None:
    """A session that was made a moment ago is offered, and nothing of IPython's is mixed in."""
    before = tab(shell, "%%chat ")
    kernel.sessions.new("fresh")

    assert (before, tab(shell, "%%chat ")) == ([], ["%%chat fresh"])


def test_tab_in_the_prompt_is_silent(shell: InteractiveShell) -> None:
    """In the prompt neither Python names nor files nor magics are offered."""
    assert [tab(shell, f"%%chat\n{text}") for text in ("", "im", "x ", "%ti", "./", "\\alpha")] == [[]] * 6


def test_tab_in_an_expression_knows_the_users_variables(shell: InteractiveShell) -> None:
    """An apostrophe or # before {{ does not keep Python from being completed."""
    shell.user_ns["penguins"] = {"bill": 1}

    assert tab(shell, "%%chat\nDon't say {{ pengu") == ["%%chat\nDon't say {{ penguins"]
    assert tab(shell, "%%chat\n# Data\n# {{ penguins.fromk") == ["%%chat\n# Data\n# {{ penguins.fromkeys"]


def test_tab_elsewhere_is_ipythons(shell: InteractiveShell) -> None:
    """Python and other magics are completed as without chatmagic."""
    texts = ["impor", "%%cha", "%%time\nimpor", "%chat use x\nimpor"]
    with_us = [tab(shell, text) for text in texts]
    magics.kernel.uncomplete()

    assert all(with_us)
    assert with_us == [tab(shell, text) for text in texts]


def test_the_older_call_of_ipython(shell: InteractiveShell, kernel: magics.Kernel) -> None:
    """`shell.complete`, which has one line or a whole cell with a cursor counted from its start, offers the same."""
    kernel.sessions.new("fresh")
    complete: Any = shell.complete

    assert complete("", "%%chat fr", 9) == ("fr", ["fresh"])
    assert complete("", "import os\n%chat use fr", 22) == ("fr", ["fresh"])
    assert complete("", "%%chat\nim", 9)[1] == []


def test_tab_names_what_is_known(shell: InteractiveShell, kernel: magics.Kernel) -> None:
    """Models of sessions and defaults, the user's endpoints, and every verb are known."""
    kernel.sessions.new("fresh", checked({"model": "ollama:phi"}))
    assert kernel.magics is not None
    loaded: Any = kernel.magics
    loaded.endpoints = {"mine": {"url": "http://localhost:1/v1"}}
    models = tab(shell, "%%chat -m ")

    assert {f"%%chat -m {name}" for name in ("gpt-6-luna", "ollama:phi", "ollama:", "mine:", "demo")} <= set(models)
    assert tab(shell, "%chat ") == [f"%chat {verb}" for verb in VERBS]


def test_models_that_a_server_listed_are_known(shell: InteractiveShell, kernel: magics.Kernel) -> None:
    """After %chat models, Tab knows what it showed."""

    class Listing:
        listed = {"ollama": ["phi", "llava"]}  # noqa: RUF012 - a double

        def close(self) -> None: ...

    double: Any = Listing()
    kernel.client = double

    assert tab(shell, "%%chat -m ollama:") == ["%%chat -m ollama:phi", "%%chat -m ollama:llava"]


def test_unload_takes_completion_back(shell: InteractiveShell) -> None:
    """After %unload_ext, and after a reload and one more, the completer has no matcher of ours."""
    completer: Any = shell.Completer
    assert len(completer.custom_matchers) == 1
    shell.run_line_magic("reload_ext", "chatmagic")
    assert len(completer.custom_matchers) == 1
    shell.run_line_magic("unload_ext", "chatmagic")

    assert completer.custom_matchers == []
    assert tab(shell, "%chat us") == []


def test_uninstall_leaves_other_matchers(shell: InteractiveShell) -> None:
    """Only our own matcher is taken away, also when it is taken away twice."""
    completer: Any = shell.Completer
    others = list(completer.custom_matchers)
    uninstall = install(shell, lambda: KNOWN)
    uninstall()
    uninstall()

    assert completer.custom_matchers == others


@pytest.fixture(scope="module")
def notebook() -> Iterator[RealKernel]:
    """A kernel with chatmagic and a session."""
    with RealKernel() as kernel:
        kernel.run("%load_ext chatmagic\nimport os")
        kernel.run("%chat new tutor -m demo")
        yield kernel


@pytest.mark.parametrize(
    ("code", "whole"),
    [
        ("%%chat tu", ["%%chat tutor"]),
        ("%%chat tutor --mo", ["%%chat tutor --model"]),
        ("import os\n%chat use ", ["import os\n%chat use tutor"]),
        ("%%chat\nimpor", []),
        ("%%chat\nDon't {{ os.pathc", ["%%chat\nDon't {{ os.pathconf", "%%chat\nDon't {{ os.pathconf_names"]),
        ("%%chat\n𝒳é {{ os.pathconf_", ["%%chat\n𝒳é {{ os.pathconf_names"]),
        ("impor", ["import"]),
    ],
)
def test_complete_request(notebook: RealKernel, code: str, whole: list[str]) -> None:
    """A front end gets from the kernel what can stand at the cursor."""
    assert notebook.complete(code) == whole


def test_completion_leaves_the_kernel_silent(notebook: RealKernel) -> None:
    """Tab prints nothing and warns of nothing."""
    notebook.complete("%%chat\nDon't {{ os.")
    ran = notebook.run("import json, sys; print(json.dumps('chatmagic.complete' in sys.modules))")

    assert [m["msg_type"] for m in ran.messages] == ["status", "execute_input", "stream", "status"]
    assert json.loads(ran.stdout) is True
