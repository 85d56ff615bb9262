"""Markdown that other programs render, raw HTML and all: it says the same, and it can do nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from chatmagic.defused import to_markdown
from chatmagic.markdown import to_html
from tests.test_markdown import FRAGMENTS, GROWING, HOSTILE, REORDERING, REPEATED, text_of, tree

TAGS = {
    "a",
    "blockquote",
    "br",
    "code",
    "del",
    "div",
    "em",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "s",
    "span",
    "strong",
    "ul",
} | {*("DOCUMENT_FRAGMENT", "h1", "h2", "h3", "h4", "h5", "h6", "table", "tbody", "td", "th", "thead", "tr")}
ATTRIBUTES = {
    "href": r"(?i:https?://|mailto:)\S*",
    "start": r"\d+",
    "style": "text-align: ?(left|center|right)",
    "class": r"language-[\w+#-]+|highlight|\w{0,3}",
    "id": r"(?s).*",
}
COMMONMARK = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def harm(html: str) -> list[str]:
    """Every tag, attribute and address in *html* that no renderer makes of harmless Markdown."""
    found = []
    for element in tree(html).iter():
        if not isinstance(element.tag, str) or element.tag not in TAGS:
            found.append(str(element.tag))
            continue
        found += [
            f"{element.tag} {name}={value!r}"
            for name, value in element.attrib.items()
            if not re.fullmatch(ATTRIBUTES.get(name, "(?!)"), value) or (name == "id" and element.tag[0] != "h")
        ]
    return found


def as_html(markdown: str) -> Iterator[str]:
    """What renderers make of *markdown* that allow HTML: a plain one, JupyterLab and nbconvert."""
    yield COMMONMARK.render(markdown)
    text, formulas = without_formulas(markdown)
    yield re.sub(
        r"@@(\d+)@@", lambda match: [*formulas, match[0]][min(int(match[1]), len(formulas))], COMMONMARK.render(text)
    )
    yield MarkdownWithMath(renderer=IPythonRenderer(escape=False, exclude_anchor_links=True)).render(markdown)


def without_formulas(text: str) -> tuple[str, list[str]]:
    """Take the formulas out as JupyterLab does before it parses Markdown.

    From removeMath in https://github.com/jupyterlab/jupyterlab/blob/main/packages/rendermime/src/latex.ts
    """
    if coded := "`" in text or "~~~" in text:
        text = text.replace("~", "~T")
        for code in (
            r"^(?P<fence>`{3,}|(~T){3,})[^`\n]*\n([\s\S]*?)^(?P=fence)`*$",
            r"(^|[^\\])(`+)([^\n]*?[^`\n])\2(?!`)",
        ):
            text = re.sub(code, lambda match: match[0].replace("$", "~D"), text, flags=re.MULTILINE)
    pieces = re.split(r"(?i)(\$\$?|\\(?:begin|end)\{[a-z]*\*?\}|\\[{}$]|[{}]|(?:\n\s*)+|@@\d+@@|\\\\[()[\]])", text)
    formulas: list[str] = []
    start = end = None
    closer, braces = "", 0

    def take(first: int, last: int) -> None:
        source = "".join(pieces[first : last + 1]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        pieces[first : last + 1] = [f"@@{len(formulas)}@@", *[""] * (last - first)]
        formulas.append(uncoded(source))

    def uncoded(text: str) -> str:
        return re.sub("~([TD])", lambda match: "~" if match[1] == "T" else "$", text) if coded else text

    number = 1
    while number < len(pieces):
        piece = pieces[number]
        if piece[:1] == "@":
            pieces[number] = f"@@{len(formulas)}@@"
            formulas.append(piece)
        elif start is not None and piece == closer:
            if braces:
                end = number
            else:
                take(start, number)
                start = end = None
        elif start is not None and re.search(r"\n.*\n", piece):
            if end is not None:
                take(start, end)
                number = end
            start, end, braces = None, None, 0
        elif start is not None:
            braces = max(0, braces + {"{": 1, "}": -1}.get(piece, 0))
        elif piece in ("$", "$$", r"\\(", r"\\[") or piece[1:6] == "begin":
            start, braces = number, 0
            closer = {r"\\(": r"\\)", r"\\[": r"\\]"}.get(piece) or piece.replace("begin", "end", 1)
        number += 2
    if start is not None and end is not None:
        take(start, end)
    return uncoded("".join(pieces)), formulas


@pytest.mark.parametrize(
    "markdown",
    [
        pytest.param("# a *b* **c** ~~d~~", id="heading, emphasis"),
        pytest.param("a\nb  \nc\\\nd", id="lines"),
        pytest.param("- a\n  - b\n    1. c\n- d", id="nested tight list"),
        pytest.param("3. a\n\n   b\n\n4. c\n\n   > d", id="loose list from three"),
        pytest.param("- a\n\n* b\n\n1) c\n\n1. d", id="one list after another"),
        pytest.param("- [ ] a\n- [x] b", id="tasks"),
        pytest.param("-\n- a\n  -\n  - b", id="empty items"),
        pytest.param("> a\n> > b\n>\n> - c\n\n***\n\n> d", id="quotes, rule"),
        pytest.param("|a|b|c|\n|:-|:-:|-:|\n|`x\\|y`|*d*<br>e|f \\| g|\n||", id="table"),
        pytest.param("```python\ndef f(a):\n\n\treturn a < 1  \n```\n\n    x = `1`\n", id="code"),
        pytest.param("````\n```\n$a$ \\\\(b\\\\) <c>\n```\n````", id="code with a fence and dollars"),
        pytest.param('1. a:\n   ```bash\n   echo $HOME > "$1" <b>\n\n   ls\n   ```\n2. b', id="code in a list"),
        pytest.param("` ` `c <d>` `  e ` `$e` `\\begin`", id="inline code"),
        pytest.param("[a *b*](https://x.org/y?a=1&b=2_3) <https://x.org> https://x.org/a_b_c <a@x.org>", id="links"),
        pytest.param("[a `b` $c$][1]\n\n[1]: http://x.org", id="reference"),
        pytest.param("so $x_1 < y$ and \\(z\\), $$a$$\n\n\\[\nb\n\\]\n\n- $|c|$", id="formulas"),
        pytest.param(
            "costs $5 and $6, a_b, 2*3, R&D, a > b, #1, C#, a@b.c, {x}, C:\\temp, 50 % \\*a\\* \\`", id="signs"
        ),
        pytest.param(
            "\\- a\n\\+ b\n1\\. c\n\\> d\n\\# e\n\n\\---\n\na\n\\===\n\n(2) a\n\n&#45; b", id="starts of lines"
        ),
        pytest.param("&lt;b&gt; &amp;lt; &copy; &#92;( &#8364;", id="entities"),
        pytest.param("**注意：**请看`x`。\n中文", id="CJK"),
        pytest.param("שלום `x` 👩‍🔬", id="right to left, emoji"),
        pytest.param("<b>a</b> <br> <!-- c -->", id="HTML"),
        pytest.param("", id="nothing"),
    ],
)
def test_it_says_the_same(markdown: str) -> None:
    """What is harmless comes out as it was: written anew, it is rendered to the same page."""
    page = to_html(markdown)

    assert without_gaps(to_html(to_markdown(markdown))) == without_gaps(page)
    assert [line for line in to_markdown(markdown).split("\n") if line.endswith(" ") and "return" not in line] == []


def without_gaps(html: str) -> str:
    """*html* without what cannot be seen, and with all lists loose or tight alike."""
    return re.sub(r"\u200b|\s+(?=<)|(?<=>)\s+|</?p>", "", html)


@pytest.mark.parametrize(
    ("markdown", "written"),
    [
        pytest.param("a <b> & $5", "a &#60;b> & &#36;5\n", id="text"),
        pytest.param("![a](https://x.org/b.png)", "[a (x.org)](https:&#47;/x.org/b.png)\n", id="image"),
        pytest.param("![a](b.png)", "!&#91;a&#93;(b.png)\n", id="image of the page's own server"),
        pytest.param("\\![a](https://x.org)", "!&#8203;[a](https:&#47;/x.org)\n", id="no image"),
        pytest.param(
            "[a](https://x.org/$b(c)'d*e;f)", "[a](https:&#47;/x.org/%24b%28c%29%27d%2Ae%3Bf)\n", id="address"
        ),
        pytest.param(
            "[`a[0]`](https://x.org)", "`a[0]` [https:&#47;/x.org](https:&#47;/x.org)\n", id="brackets in a link"
        ),
        pytest.param(
            "[<https://x.org>](https://y.org)`b`",
            "[https:&#47;/x.org](https:&#47;/x.org) [https:&#47;/y.org](https:&#47;/y.org)`b`\n",
            id="link in a link",
        ),
        pytest.param("[](https://x.org)", "[https:&#47;/x.org](https:&#47;/x.org)\n", id="link without words"),
        pytest.param("~~`a`~~ ~~b~~`c`", "~~&#8203;`a`~~ ~~b~~&#8203;`c`\n", id="tildes beside code"),
        pytest.param("```mermaid\na\n```", "```\na\n```\n", id="diagram"),
        pytest.param('```py"><b>\na\n```', "```\na\n```\n", id="hostile language"),
        pytest.param("```C++ x=y\na\n```", "```c++\na\n```\n", id="language"),
        pytest.param("> ```\n> [a](b) <c>\n> ```", "> ```\n> [a]\u200b(b) <\u200bc>\n> ```\n", id="code in a quote"),
        pytest.param("~~a~~ `b~~`", "~~a~~ `b~\u200b~`\n", id="struck words that could end in code"),
        pytest.param("`` a`b*<c> ``", "a&#96;b&#42;&#60;c>\n", id="code with a backtick"),
        pytest.param("`a\\`", "`a\\\u200b`\n", id="backslash before a backtick"),
        pytest.param("$a$`$b`", "$a$&#8203;`$b`\n", id="dollar beside code"),
        pytest.param(r"`$$ \\( \begin{a}`", "`$\u200b$ \\\u200b\\( \\\u200bbegin{a}`\n", id="half formulas in code"),
        pytest.param(r"$\def\a{b}$", "`$\\def\\a{b}$`\n", id="acting macro"),
        pytest.param(r"$\openin5=x$", "`$\\openin5=x$`\n", id="macro that reads a file"),
        pytest.param(r"$\begin{input}a\end{input}$", "`$\\\u200bbegin{input}a\\\u200bend{input}$`\n", id="environment"),
        pytest.param(
            "$a % b$ $^^5c$ \\(\\text{`}\\)",
            "`$a % b$` `$^^5c$` &#92;(&#92;text&#123;&#96;&#125;&#92;)\n",
            id="signs that LaTeX acts on",
        ),
        pytest.param("$a<b>[c](d)$", "$a< b>[c] (d)$\n", id="tag and link in a formula"),
        pytest.param(r"$a\\[2pt] \\(b\\{c}\\$", r"$a\\  \\ (b\\ {c}\\ {}$" + "\n", id="ends of rows"),
        pytest.param(
            "\\begin{align*}\na &= b \\tag{1}\n\\end{align*}",
            "$$\\begin{aligned} a &= b \\qquad\\text{(1)} \\end{aligned}$$\n",
            id="display environment",
        ),
        pytest.param(
            "$\\begin{pmatrix}a\\end{pmatrix}$", "$$\\begin{pmatrix}a\\end{pmatrix}$$\n", id="environment in a line"
        ),
        pytest.param("|$\\|a\\|$|\n|-|", "| $\\vert a\\vert $ |\n| --- |\n", id="formula in a table"),
        pytest.param("# $\\|a|$", "# $\\Vert a\\vert $\n", id="formula in a heading"),
        pytest.param("`@@1$x$` @@1@@", "`@\u200b@1$x$` &#64;&#64;1@&#64;\n", id="place of a formula"),
        pytest.param("$a$$b$ $c$&#53;", "$a$&#8203;$b$ $c$&#8203;5\n", id="formulas side by side"),
        pytest.param("a[^1] b^[c]\n\n[^1]: d", "a&#91;1&#93; b&#91;2&#93;\n\n___\n\n1. d\n2. c\n", id="notes"),
        pytest.param("a\x00b\x1b[31m\u202ec\ud800", "ab&#91;31mc\ufffd\n", id="controls"),
        pytest.param("> " * 500 + "a", "```\n" + "> " * 500 + "a\n```\n", id="too deep"),
        pytest.param("*a " * 500 + "b*" * 500, "```\n" + "*a " * 500 + "b*" * 500 + "\n```\n", id="too deep in a line"),
    ],
)
def test_what_is_written_otherwise(markdown: str, written: str) -> None:
    """What could do harm, or would not be understood everywhere, is written so that it does not and is."""
    assert to_markdown(markdown) == written


def test_a_wide_table_is_not_blown_up() -> None:
    """A table that would be a hundred times as long as its text is shown as it stands."""
    assert len(to_markdown("|a" * 2000 + "|\n" + "|-" * 2000 + "|\n" + "|a\n" * 2000)) < 110 * 14_000


@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=REORDERING)
        | st.sampled_from("\n\t \"'`{}[]()<>&$\\#~"),
        max_size=80,
    )
)
@settings(max_examples=150, deadline=None)
def test_code_is_exact(code: str) -> None:
    """Whatever is in a fence is there to the letter, at the top and in a list."""
    code = re.sub(r"[\u0085\u2028\u2029]", " ", code)
    for markdown in (
        f"{'~' * 100}\n{code}\n{'~' * 100}",
        re.sub(r"\n(?!\n)", "\n  ", f"- {'~' * 100}\n{code}\n{'~' * 100}"),
    ):
        (pre,) = tree(COMMONMARK.render(to_markdown(markdown))).iter("pre")

        assert "".join(pre.itertext()).removeprefix("\n") == f"{code}\n".removeprefix("\n")


BREAKOUTS = {
    "dollar and code": "$ ` \n$ <img src=x onerror=alert(1)> `",
    "dollar in code": "`a $` b `$ <img src=x onerror=alert(1)>`",
    "dollars in code, then a fence": "`$$`\n\n```\n$$\n<img src=x onerror=alert(1)>\n```",
    "brackets in code": "`` \\\\( ` `` a `\\\\) <img src=x onerror=alert(1)>`",
    "environment in code": "`\\begin{align}` $$\\begin{align}a\\end{align}$$ ` <img src=x onerror=alert(1)>`",
    "row space, then a fence": "$a\\\\[b$\n\n```\n\\\\]\n<img src=x onerror=alert(1)>\n```",
    "fence in a tight list": "- $a\n  ```\n  $ <img src=x onerror=alert(1)>\n  ```\n- `$`",
    "fence in a quote": "> ```\n> $\n> ```\n> $a$ b\n> ```\n> <img src=x onerror=alert(1)> [a](javascript:b)\n> ```",
    "fence in a fence in a quote": '> ````\n> $\n> ````\n> $a$\n> ````\n> ```x" onclick=alert(1)\n> <b>\n> ````',
    "link in a formula": "$[a](javascript:alert(1))$ $![a](https://x.org)$ $[a]:javascript:alert(1)$",
    "backtick in a formula": "$a ` b$ c ` <img src=x onerror=alert(1)> `",
    "formula of two lines in code": "$$ ` \n$$ `$`\n<img src=x onerror=alert(1)> `",
    "mermaid": "```mermaid\n</pre><img src=x onerror=alert(1)>\n```",
    "placeholder": "`@@0@@` @@1@@ $<img src=x onerror=alert(1)>$ `@@2@@`",
    "raw attribute": "`<img src=x onerror=alert(1)>`{=html}\n\n```{=html}\n<img src=x onerror=alert(1)>\n```",
    "link in a link": "[<https://x.org>](https://x.org)`<img/src=x/onerror=alert(1)>`",
    "strike that ends in code": "~~a~~ ~~b `c~~ [a](javascript:alert(1))` ~~",
    "emphasis that ends in code": "*a `` ` b*<img src=x onerror=alert(1)> `` c*",
    "link that ends in code": "[` `` `](https://x.org)`a` `](https://x.org)``<img/src=x/onerror=alert(1)>`",
    "dollar beside code": "$a$`$ <img src=x onerror=alert(1)>` [$b$ <c>](https://x.org)`<img/src=x/onerror=a>`",
    "backslash before a backtick": "`a\\` *b `c*<img/src=x/onerror=alert(1)>`*",
    "strikes and code": "~~~~`$`~~~~ `<img src=x onerror=alert(1)>` ~~`a`",
}


@pytest.mark.parametrize("markdown", [*HOSTILE.values(), *BREAKOUTS.values()], ids=[*HOSTILE, *BREAKOUTS])
def test_hostile_text_is_harmless(markdown: str) -> None:
    """Hostile text stays harmless where raw HTML is allowed, whether formulas are taken out first or not."""
    for html in as_html(to_markdown(markdown)):
        assert harm(html) == []


def test_the_judges_can_say_no() -> None:
    """Each renderer of the tests is one in which a hostile text does run, and JupyterLab's trap is one."""
    assert all(harm(html) for html in as_html("<img src=x onerror=alert(1)> [a](javascript:b)"))
    assert [bool(harm(html)) for html in as_html(BREAKOUTS["dollar and code"])][:2] == [False, True]


@given(st.lists(FRAGMENTS | st.sampled_from([*BREAKOUTS.values()]) | st.text(max_size=3), max_size=14).map("".join))
@settings(max_examples=200, deadline=None)
def test_any_text_is_harmless(markdown: str) -> None:
    """However hostile fragments are joined, no renderer finds a tag, a picture or a script in what is written."""
    written = to_markdown(markdown)

    assert [found for html in as_html(written) for found in harm(html)] == []
    assert "~~`" not in re.sub(r"(?s)(`+).*?\1", "`", written)


@pytest.mark.parametrize(
    "markdown",
    [*((sign * 5_000)[:4_990] for sign in REPEATED), *GROWING.values(), "> " * 45 + "a\n" * 2000],
    ids=[*map(repr, REPEATED), *GROWING, "quote"],
)
def test_nonsense_costs_no_more_than_sense(markdown: str) -> None:
    """Text that nests, repeats or never ends takes a second or so, and stays in proportion."""
    start = time.process_time()
    written = to_markdown(markdown)

    assert time.process_time() - start < 5  # a slow and busy machine
    assert len(written) < 110 * (len(markdown) + 100)


def test_the_whole_text_is_there() -> None:
    """Not a word of a long reply is lost."""
    reply = "\n\n".join(
        ["# One", "- two\n- three `four`", "> five *six*", "|seven|\n|-|\n|eight|", "```\nnine\n```", "ten[^a]"]
    )

    assert re.findall(r"\w+", text_of(COMMONMARK.render(to_markdown(f"{reply}\n\n[^a]: eleven")))) == [
        *("One", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "1", "eleven")
    ]
