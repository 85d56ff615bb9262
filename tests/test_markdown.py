"""A reply is hostile text: it looks right, and it can do nothing."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pygments.token import STANDARD_TYPES  # type: ignore[import-untyped] # published without types

from chatmagic.markdown import MAX_PARAGRAPH, block_starts, to_html

PLAIN_TAGS = {"blockquote", "bdi", "br", "code", "em", "figure", "hr", "li", "p", "pre", "s", "strong", "sup", "ul"} | {
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "tbody", "td", "th", "thead", "tr")
}
ATTRIBUTES = {
    "a": {"href": r"(?i:https?://|mailto:)\S*", "target": "_blank", "rel": "noopener noreferrer nofollow"},
    "div": {"class": "highlight", "align": "left|center|right"},
    "ol": {"start": r"\d+"},
    "span": {"class": "mathjax_ignore tex2jax_ignore|" + "|".join(filter(None, STANDARD_TYPES.values()))},
}
IMAGE = {"src": r"(?i:https?)://\S+", "alt": "(?s).*", "referrerpolicy": "no-referrer", "loading": "lazy"}
FORMULA = re.compile(r"\\\((?:[^\\]|\\[^()\[\]])*\\\)|\\\[(?:[^\\]|\\[^()\[\]])*\\\]", re.DOTALL)
INERT = '<span class="mathjax_ignore tex2jax_ignore">{}</span>'
D, B = INERT.format("$"), INERT.format("\\")


def tree(html: str) -> Any:
    """What a browser makes of *html*."""
    return html5lib.parseFragment(html, namespaceHTMLElements=False)


def offences(html: str, *, images: bool = False) -> list[str]:
    """Every tag, attribute and value in *html* that we do not write ourselves."""
    attributes, found = ATTRIBUTES | ({"img": IMAGE} if images else {}), []
    for element in tree(html).iter():
        if not isinstance(element.tag, str):
            found.append("comment")
            continue
        allowed = attributes.get(element.tag, {})
        if element.tag not in {*PLAIN_TAGS, *attributes, "DOCUMENT_FRAGMENT"}:
            found.append(element.tag)
        found += [
            f"{element.tag} {name}={value!r}"
            for name, value in element.attrib.items()
            if name not in allowed or not re.fullmatch(allowed[name], value)
        ]
    return found


def mathematics(html: str) -> list[str]:
    """Every text that MathJax would read and in which it could find the start of a formula."""

    def texts(element: Any) -> list[str]:
        inside = element.tag not in ("code", "pre") and "mathjax_ignore" not in element.get("class", "")
        own = [element.text or "", *(text for child in element for text in texts(child))] if inside else []
        return [*own, element.tail or ""]

    return [text for text in texts(tree(html)) if "$" in text or "\\" in text]


def half_formulas(html: str) -> list[str]:
    """Every text in *html* that MathJax could misunderstand."""
    return [text for text in mathematics(html) if not FORMULA.fullmatch(text)]


def text_of(html: str) -> str:
    """What a person reads."""
    return "".join(tree(html).itertext())


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        pytest.param(
            "## A *b* **c** ~~d~~", "<h2>A <em>b</em> <strong>c</strong> <s>d</s></h2>", id="heading, emphasis"
        ),
        pytest.param("a\n=", "<h1>a</h1>", id="underlined heading"),
        pytest.param("- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>", id="nested list"),
        pytest.param("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>', id="list from three"),
        pytest.param("> a\n\n---", "<blockquote><p>a</p></blockquote><hr>", id="quote, rule"),
        pytest.param("a  \nb<br>c", "<p>a<br>b<br>c</p>", id="line breaks"),
        pytest.param("`a < b` &amp; c", "<p><code>a &lt; b</code> &amp; c</p>", id="inline code, entity"),
        pytest.param("中文：**注意** `x`。", "<p>中文：<strong>注意</strong> <code>x</code>。</p>", id="CJK"),
        pytest.param("**注意：**请看", "<p><strong>注意：</strong>请看</p>", id="emphasis that ends beside CJK"),
        pytest.param("这是**“重点”**。", "<p>这是<strong>“重点”</strong>。</p>", id="emphasis of a quotation"),
        pytest.param(
            "**강조(설명)**은 *x*", "<p><strong>강조(설명)</strong>은 <em>x</em></p>", id="emphasis before a particle"
        ),
        pytest.param("中 ** 文 ** 中", "<p>中 ** 文 ** 中</p>", id="stars alone in CJK"),
        pytest.param("ab\n中\n文`x`\n한\n국", "<p>ab中文<code>x</code>한국</p>", id="lines of CJK"),
        pytest.param(
            "- [ ] a\n- [x] *b*\n1. [X] c",
            "<ul><li>☐ a</li><li>☑ <em>b</em></li></ul><ol><li>☑ c</li></ol>",
            id="tasks",
        ),
        pytest.param(
            "- [y] a\n- [x]\n- a [ ] b\n\n[x] c",
            "<ul><li>[y] a</li><li>[x]</li><li>a [ ] b</li></ul><p>[x] c</p>",
            id="no tasks",
        ),
        pytest.param(
            "- [x](https://x.org)",
            '<ul><li><a href="https://x.org" target="_blank" rel="noopener noreferrer nofollow">x</a></li></ul>',
            id="link, no task",
        ),
        pytest.param("שלום `x` עולם", "<p><bdi>שלום <code>x</code> עולם</bdi></p>", id="right to left"),
        pytest.param("- אב\n- c", "<ul><li><bdi>אב</bdi></li><li>c</li></ul>", id="right to left in a list"),
        pytest.param(
            "a \u202eb\u2066c\u200f 👩‍🔬", "<p>a bc\u200f 👩‍🔬</p>", id="what reorders a line goes, a mark stays"
        ),
        pytest.param("a\x00b\ud800c\x1b", "<p>ab\ufffdc</p>", id="control and half a character"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_markdown_becomes_html(markdown: str, html: str) -> None:
    """Ordinary Markdown looks as everywhere."""
    assert re.sub(r"\n", "", to_html(markdown)) == html


def test_lines_of_cjk_are_joined() -> None:
    """No blank comes between two lines of Chinese; words that need one keep it."""
    assert to_html("中\n文\n한\n국\na") == "<p>中文\n한\n국\na</p>\n"


@pytest.mark.parametrize(
    ("markdown", "html"),  # notes in braces
    [
        pytest.param("a[^1]\n\n[^1]: b *c*", "<p>a<sup>[1]</sup></p>{<li><p>b <em>c</em></p></li>}", id="note"),
        pytest.param("a[^x] b[^x]\n\n[^x]: c", "<p>a<sup>[1]</sup> b<sup>[1]</sup></p>{<li><p>c</p></li>}", id="twice"),
        pytest.param(
            "a[^b] c[^a]\n\n[^a]: d\n[^b]: e",
            "<p>a<sup>[1]</sup> c<sup>[2]</sup></p>{<li><p>e</p></li><li><p>d</p></li>}",
            id="in the order of their use",
        ),
        pytest.param(
            "[^1]: a\n\n    - b\n\nc[^1]",
            "<p>c<sup>[1]</sup></p>{<li><p>a</p><ul><li>b</li></ul></li>}",
            id="of two blocks, said before",
        ),
        pytest.param("a^[b `c`]", "<p>a<sup>[1]</sup></p>{<li><p>b <code>c</code></p></li>}", id="within the text"),
        pytest.param("a[^1] [^", "<p>a[^1] [^</p>", id="undefined"),
        pytest.param("`[^1]`\n\n[^1]: b", "<p><code>[^1]</code></p>{<li><p>b</p></li>}", id="that nothing refers to"),
        pytest.param("a[^1]\n\n[^1]: b[^1]", "<p>a<sup>[1]</sup></p>{<li><p>b<sup>[1]</sup></p></li>}", id="to itself"),
        pytest.param(
            "a[^1]\n\n[^1]: b[^2]\n[^2]: c[^1]",
            "<p>a<sup>[1]</sup></p>{<li><p>b<sup>[2]</sup></p></li><li><p>c<sup>[1]</sup></p></li>}",
            id="to each other",
        ),
        pytest.param(
            "a[^1]\n\n[^1]: > [^2]: b\n\n    c\n\nd[^2]",
            "<p>a<sup>[1]</sup></p><p>d[^2]</p>{<li><blockquote><p>[^2]: b</p></blockquote><p>c</p></li>}",
            id="in a note",
        ),
        pytest.param("a^[b ^[c] d]", "<p>a<sup>[1]</sup></p>{<li><p>b ^[c] d</p></li>}", id="in one within the text"),
        pytest.param(
            "> [^1]: a\n\n# b[^1]",
            "<blockquote></blockquote><h1>b<sup>[1]</sup></h1>{<li><p>a</p></li>}",
            id="in a quote",
        ),
    ],
)
def test_notes(markdown: str, html: str) -> None:
    """A note stands at the end of the reply, numbered, and nothing that is said in one is lost."""
    expected = re.sub(r"{(.*)}", r"<hr><ol>\1</ol>", html)

    assert re.sub(r"\n", "", to_html(markdown)) == expected


def test_notes_of_another_text_are_not_known() -> None:
    """Notes belong to one text: a piece of a reply is shown without those of the pieces before it."""
    env: dict[str, Any] = {}
    to_html("a[^1]\n\n[^1]: b", env=env)

    assert to_html("c[^1]", env=env) == "<p>c[^1]</p>\n"
    assert to_html("c[^1]\n\n[^1]: d", env=env) == to_html("c[^1]\n\n[^1]: d")


def test_definitions_go_from_piece_to_piece() -> None:
    """Pieces of a reply that share an environment share its definitions of links, and the first of a name counts."""
    env: dict[str, Any] = {}
    to_html("[a]: https://x.org", env=env)
    html = to_html("[b][A]\n\n[a]: https://y.org", env=env)

    assert [link.attrib["href"] for link in tree(html).iter("a")] == ["https://x.org"]
    assert to_html("[b][a]") == "<p>[b][a]</p>\n"


@pytest.mark.parametrize(
    ("markdown", "lines"),
    [
        pytest.param("a\nb\n\nc", [0, 3], id="paragraphs"),
        pytest.param("\n\n# a\nb\n---\n***", [2, 3, 5], id="headings, rule"),
        pytest.param("- a\n\n- b\n\n  c\n\n1. d", [0, 6], id="lists"),
        pytest.param("```\na\n\n\nb\n```\nc", [0, 6], id="fence"),
        pytest.param("a\n\n```\nb\n\nc", [0, 2], id="open fence"),
        pytest.param("$$\na\n- b\n$$\nc\n\\[\nd\n\\]", [0, 4, 5], id="formulas"),
        pytest.param("|a|\n|-|\n|b|\n\n> c\n\n    d", [0, 4, 6], id="table, quote, indented code"),
        pytest.param("[a]: https://x.org\n\n[^b]: c\n\n    d\n\ne", [6], id="definitions"),
        pytest.param("a\r\n\r\nb\rc\x00\n\nd\x0be\u2028f", [0, 2, 5], id="ends of lines"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_where_blocks_start(markdown: str, lines: list[int]) -> None:
    """The lines are those of the document's own blocks: not of definitions, and not of what is within a block."""
    assert block_starts(markdown) == lines


def test_finding_blocks_is_quick() -> None:
    """To look for blocks does not cost what it costs to paint them."""
    reply = "A paragraph of *plain* prose with `code`, [a link](https://x.org) and $x$.\n\n- a\n- b\n\n" * 200

    def cost(work: Callable[[str], object]) -> float:
        """The least of some runs: garbage may be collected in any of them."""
        took = []
        for _ in range(5):
            start = time.thread_time()
            work(reply)
            took.append(time.thread_time() - start)
        return min(took)

    assert cost(block_starts) < cost(to_html) / 2


@pytest.mark.parametrize(
    ("markdown", "attributes"),
    [
        pytest.param("![a](https://x.org/p.png)", {"src": "https://x.org/p.png", "alt": "a (x.org)"}, id="picture"),
        pytest.param("![](http://x.org:80?a=1&b=2)", {"src": "http://x.org:80?a=1&b=2", "alt": "x.org"}, id="no words"),
        pytest.param(
            "[![a](https://x.org)](https://y.org)", {"src": "https://x.org", "alt": "a (x.org)"}, id="in a link"
        ),
        pytest.param(
            '![" onerror="b](https://x.org/"onerror=)',
            {"src": "https://x.org/%22onerror=", "alt": '" onerror="b (x.org)'},
            id="hostile words",
        ),
    ],
)
def test_pictures_if_wanted(markdown: str, attributes: dict[str, str]) -> None:
    """Who wants pictures gets those of the web, and their server is not told which page shows them."""
    html = to_html(markdown, images=True)
    (image,) = tree(html).iter("img")

    assert image.attrib == {**attributes, "referrerpolicy": "no-referrer", "loading": "lazy"}
    assert offences(html, images=True) == []
    assert offences(to_html(markdown)) == []


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://localhost:8888/logout",
            "http://127.0.0.1/a",
            "http://2130706433/a",
            "http://[::1]/a",
            "https://nas/a",
        ),
        *(
            "https://a@x.org/",
            "http://router.local/reboot",
            "http://a.internal",
            "mailto:a@x.org",
            "http://x.localhost/a",
        ),
    ],
)
def test_pictures_that_are_never_loaded(url: str) -> None:
    """Pictures from this computer or its network, and what is no picture, stay links: to load them may be an act."""
    html = to_html(f"![a]({url})", images=True)

    assert list(tree(html).iter("img")) == []
    assert [link.attrib["href"] for link in tree(html).iter("a")] == [url]


@pytest.mark.parametrize(
    ("rule", "align"), [("---", "left"), (":--", "left"), (":-:", "center"), ("--:", "right")], ids=lambda value: value
)
def test_table_alignment(rule: str, align: str) -> None:
    """A column is aligned as its rule says, by an element in the cell that JupyterLab's style sheet leaves alone."""
    html = to_html(f"|a|\n|{rule}|\n|b|\n")

    assert f'<th><div align="{align}">a</div></th>' in html
    assert f'<td><div align="{align}">b</div></td>' in html


@pytest.mark.parametrize(
    ("markdown", "href", "words"),
    [
        pytest.param("[a *b*](https://x.org/y?a=1&b=2)", "https://x.org/y?a=1&b=2", "a b", id="link"),
        pytest.param('[a](HTTP://x.org "title")', "HTTP://x.org", "a", id="title"),
        pytest.param("[a][1]\n\n[1]: http://x.org", "http://x.org", "a", id="reference"),
        pytest.param("<https://x.org>", "https://x.org", "https://x.org", id="autolink"),
        pytest.param("<a@x.org>", "mailto:a@x.org", "a@x.org", id="address"),
        pytest.param("https://x.org/a_b_c", "https://x.org/a_b_c", "https://x.org/a_b_c", id="bare"),
        pytest.param(
            "http://x.org/?a=$b&c=$d", "http://x.org/?a=$b&c=$d", "http://x.org/?a=$b&c=$d", id="with dollars"
        ),
        pytest.param("![a plot](https://x.org/p.png)", "https://x.org/p.png", "a plot (x.org)", id="image"),
        pytest.param("![](https://x.org/p.png)", "https://x.org/p.png", "x.org", id="image without words"),
        pytest.param("[![a](https://i.org/b.svg)](https://x.org)", "https://x.org", "a (i.org)", id="image in a link"),
    ],
)
def test_link(markdown: str, href: str, words: str) -> None:
    """A link opens in a new tab that knows nothing of the notebook; a picture is a link that names its host."""
    (link,) = tree(to_html(markdown)).iter("a")

    assert link.attrib == {"href": href, "target": "_blank", "rel": "noopener noreferrer nofollow"}
    assert "".join(link.itertext()) == words


@pytest.mark.parametrize(
    ("text", "href", "rest"),
    [
        ("详见https://x.org/a。谢谢", "https://x.org/a", "。谢谢"),
        ("（https://x.org/a_b）", "https://x.org/a_b", "）"),
        ("https://x.org/路径，好", "https://x.org/%E8%B7%AF%E5%BE%84", "，好"),
    ],
)
def test_a_bare_address_ends_at_a_cjk_mark(text: str, href: str, rest: str) -> None:
    """The Chinese sentence goes on after an address without a blank, and not one sign of it is lost."""
    (link,) = tree(to_html(text)).iter("a")

    assert link.attrib["href"] == href
    assert link.tail == rest
    assert text_of(to_html(text)) == f"{text}\n"


@pytest.mark.parametrize("text", ["x.org", "www.x.org", "//x.org", "ftp://x.org", "a@x.org", "file.py", "10.0.0.1"])
def test_words_are_no_links(text: str) -> None:
    """A name with a dot is no link unless it begins with http, https or mailto."""
    assert to_html(text) == f"<p>{text}</p>\n"


@pytest.mark.parametrize(
    ("markdown", "formula"),
    [
        pytest.param("so $x_1 < y$ holds", r"\(x_1 &lt; y\)", id="dollars"),
        pytest.param("the $n$th", r"\(n\)", id="dollars before a letter"),
        pytest.param(r"so \(x\) holds", r"\(x\)", id="round brackets"),
        pytest.param(r"so $$x$$ and", r"\[x\]", id="double dollars in a sentence"),
        pytest.param("$$\nx\n- y\n$$", "\\[x\n- y\\]", id="double dollars on lines of their own"),
        pytest.param("so\n\\[\nx\n= y\n\\]\nholds", "\\[x\n= y\\]", id="square brackets right after text"),
        pytest.param("\\[x\\].", r"\[x\]", id="square brackets and a full stop"),
        pytest.param("> > $$\n> > x\n> > # y\n> > $$", "\\[x\n# y\\]", id="in a quote"),
        pytest.param("- a\n\n  \\[\n  x\n  \\]", r"\[x\]", id="in a list"),
        pytest.param("|a|\n|-|\n|$x$|", r"\(x\)", id="in a table"),
        pytest.param(r"\[a \\[2pt] b\]", r"\[a \\[2pt] b\]", id="space between rows"),
        pytest.param(r"$$\label{e}x$$", r"\[x\]", id="label"),
        pytest.param(
            "\\begin{align*}\na &= b \\\\\nc\n\\end{align*}",
            "\\[\\begin{align*}\na &amp;= b \\\\\nc\n\\end{align*}\\]",
            id="environment",
        ),
    ],
)
def test_formula(markdown: str, formula: str) -> None:
    """A formula reaches MathJax whole, in the delimiters it knows, and with HTML escaped."""
    assert f"<span>{formula}</span>" in to_html(markdown)


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        pytest.param("costs $5 and $6", f"costs {D}5 and {D}6", id="two prices"),
        pytest.param("$5–$10 or 20–30$", f"{D}5–{D}10 or 20–30{D}", id="ranges"),
        pytest.param("($10 per head in A$)", f"({D}10 per head in A{D})", id="price and currency"),
        pytest.param("$5 `a$`", f"{D}5 <code>a$</code>", id="price and code"),
        pytest.param(r"\$x\$", f"{D}x{D}", id="escaped dollars"),
        pytest.param(r"`$x$ \(y\)`", r"<code>$x$ \(y\)</code>", id="code"),
        pytest.param(r"C:\temp \\(x", f"C:{B}temp {B}(x", id="backslashes"),
        pytest.param(r"\ref{a} \eqref{b}", f"{B}ref{{a}} {B}eqref{{b}}", id="references"),
        pytest.param(r"\begin{x} a \end{x}", f"{B}begin{{x}} a {B}end{{x}}", id="unknown environment"),
        pytest.param(r"\begin{align} a", f"{B}begin{{align}} a", id="open environment"),
        pytest.param(r"$a } b$", "<code>$a } b$</code>", id="braces that do not match"),
        pytest.param(r"$a \) b$", r"<code>$a \) b$</code>", id="formula that would end early"),
        pytest.param(r"$$ $$", "<code>$$ $$</code>", id="empty formula"),
    ],
)
def test_what_is_no_formula(markdown: str, html: str) -> None:
    """Prices, code and stray TeX are shown as written, and MathJax finds nothing to typeset in them."""
    assert to_html(markdown) == f"<p>{html}</p>\n"
    assert mathematics(to_html(markdown)) == []


@pytest.mark.parametrize(
    "macro",
    [
        *(r"\def\alpha{b}", r"\gdef\a{b}", r"\let\alpha=\beta", r"\newcommand{\alpha}{b}", r"\renewcommand{\alpha}{b}"),
        *(r"\newenvironment{align}{a}{b}", r"\DeclareMathOperator{\sin}{cos}", r"\Newextarrow{\a}{5,5}{0x21}"),
        *(r"\DeclarePairedDelimiters{\abs}{a}{b}", r"\definecolor{red}{rgb}{0,0,1}", r"\newtagform{a}{b}{c}"),
        *(r"\href{https://x.org}{a}", r"\url{https://x.org}", r"\require{physics}", r"\setOptions{tags=all}"),
        *(
            r"\style{position:fixed}{a}",
            r"\class{jp-Button}{a}",
            r"\cssId{main}{a}",
            r"\data{a=b}{c}",
            r"\htmlId{a}{b}",
        ),
        *(r"\bbox[position:fixed]{a}", r"\mmlToken{mi}[href='https://x.org']{a}", r"\unicode[serif]{65}"),
        *(
            r"\toggle{a}{b}\endtoggle",
            r"\texttip{a}{b}",
            r"\mathtoolsset{a=b}",
            r"\includegraphics{https://x.org/a.png}",
        ),
    ],
    ids=lambda macro: re.findall(r"\w+", macro)[0],
)
def test_acting_macros(macro: str) -> None:
    """A formula with a macro that acts outside of it is shown as source, however it is delimited."""
    for left, right in [
        ("$", "$"),
        ("$$", "$$"),
        (r"\(", r"\)"),
        ("\\[\n", "\n\\]"),
        (r"\begin{align}", r"\end{align}"),
    ]:
        html = to_html(f"{left}x {macro} y{right}")

        assert text_of(html).strip() == f"{left}x {macro} y{right}"
        assert mathematics(html) == []


@pytest.mark.parametrize("tex", [r"\defeq", r"\classical", r"\displaystyle x", r"a\newline b", r"\letter", r"\Data"])
def test_macros_that_only_begin_alike(tex: str) -> None:
    """A harmless macro is typeset, even if its name begins like that of an acting one."""
    assert to_html(f"${tex}$") == f"<p><span>\\({tex}\\)</span></p>\n"


@pytest.mark.parametrize(
    ("info", "html"),
    [
        pytest.param("python", '<span class="k">def</span> <span class="nf">f</span>', id="known"),
        pytest.param('Python title="x"', '<span class="k">def</span> <span class="nf">f</span>', id="with attributes"),
        pytest.param("nonsense", "def f", id="unknown"),
        pytest.param("", "def f", id="none"),
    ],
)
def test_code_is_coloured(info: str, html: str) -> None:
    """Code has Pygments' classes when the first word after the fence is a language that it knows."""
    expected = f'<figure><div class="highlight"><pre><span></span><code>{html}\n</code></pre></div></figure>\n'

    assert to_html(f"```{info}\ndef f\n```") == expected


def test_indented_code() -> None:
    """Code by indentation looks like a fence without a language."""
    assert to_html("    a < $b$\n") == to_html("```\na < $b$\n```")


REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@given(
    code=st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=REORDERING)
        | st.sampled_from("\n\t \"'`{}[]()<>&$\\#/*=:"),
        max_size=80,
    ),
    language=st.sampled_from(
        ["", "x", "python", "pycon", "c", "js", "json", "html", "yaml", "console", "tex", "md", "diff"]
    ),
)
@settings(max_examples=150, deadline=None)
def test_code_is_exact(code: str, language: str) -> None:
    """Whatever is in a fence is shown to the letter, blank lines and tabs included."""
    (pre,) = tree(to_html(f"{'~' * 100}{language}\n{code}\n{'~' * 100}")).iter("pre")

    assert "".join(pre.itertext()) == f"{code}\n"


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "image, inline": "a <img src='x' onerror='alert(1)'> b",
    "svg": "<svg onload=alert(1)><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "details": "<details open ontoggle=alert(1)>x</details>",
    "iframe": "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "meta": '<meta http-equiv="refresh" content="0;url=https://x.org">',
    "style": "<style>@import 'https://x.org/leak.css';</style>",
    "stylesheet": "<link rel=stylesheet href=https://x.org/leak.css>",
    "form": "<form action=https://x.org><input name=a><button>x</button></form>",
    "overlay": '<div style="position:fixed;inset:0" class="jp-Button">x</div>',
    "command linker": '<a data-commandlinker-command="apputils:reset" data-commandlinker-args="{}">x</a>',
    "command linker, button": '<button data-commandlinker-command="kernelmenu:restart">x</button>',
    "id": '<h1 id="main">x</h1><a name="main">x</a>',
    "base": "<base href=https://x.org/>",
    "media": "<video src=https://x.org/a autoplay></video><audio src=https://x.org/a>",
    "object": "<object data=https://x.org/a></object><embed src=https://x.org/a>",
    "math": "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "template": "<template><img src=x onerror=alert(1)></template><noscript><img src=x></noscript>",
    "textarea": "<textarea></textarea><img src=x onerror=alert(1)>",
    "comment": "<!-- a --><img src=x onerror=alert(1)><!-->--!>",
    "processing instruction": "<?php echo 1 ?><![CDATA[<img src=x>]]><!DOCTYPE html>",
    "javascript": "[x](javascript:alert(1))",
    "javascript, letters": "[x](JaVaScRiPt:alert(1)) [x](&#106;avascript:alert(1)) [x](java&#10;script:alert(1))",
    "javascript, blanks": "[x](<  javascript:alert(1)>) [x](<\x01javascript:alert(1)>) [x](java\\\nscript:alert(1))",
    "javascript, reference": "[x]\n\n[x]: javascript:alert(1)",
    "javascript, autolink": "<javascript:alert(1)> <javascript://x.org/%0aalert(1)>",
    "javascript, image": "![x](javascript:alert(1)) [![x](javascript:alert(1))](javascript:alert(1))",
    "vbscript": "[x](vbscript:msgbox(1)) [x](livescript:alert(1))",
    "data": "[x](data:text/html;base64,PHNjcmlwdD4=) ![x](data:image/svg+xml,<svg/onload=alert(1)>)",
    "file": "[x](file:///etc/passwd) [x](blob:https://x.org/1) [x](about:blank) [x](jar:https://x.org)",
    "page's own server": "[x](/lab?reset) [x](../api/kernels) [x](?a=b) [x](#main) [x](//x.org) [x](http:/lab?reset)",
    "page's own server, backslashes": r"[x](\\x.org) [x](http:\\lab) [x](/\x.org) <http:lab>",
    "link title": '[x](https://x.org "a\\" onclick=\\"alert(1)") [x](https://x.org \'"><img src=x onerror=alert(1)>\')',
    "link address": '[x](https://x.org/"onclick="alert(1)) [x](<https://x.org/"><img src=x onerror=alert(1)>>)',
    "autolink": '<https://x.org/"onclick="alert(1)> <https://x.org/\'><img>',
    "bare address": 'https://x.org/"onclick="alert(1) https://x.org/<img src=x onerror=alert(1)> http://x.org/&quot;onclick=',
    "mail": '<a@x.org"onclick=alert(1)> mailto:a@x.org?body=<img src=x onerror=alert(1)>',
    "remote image": "![x](https://x.org/leak.png?secret) ![x][y]\n\n[y]: https://x.org/leak.png",
    "image words": '![" onerror="alert(1)](https://x.org) ![<img src=x onerror=alert(1)>](https://x.org/"><script>)',
    "image host": "![x](https://[) ![x](https://<img src=x>@x.org/) ![x](https://x.org\\@y.org)",
    "fence": '```x"><img src=x onerror=alert(1)>\na\n```',
    "fence, tildes": "~~~ '\"><script>alert(1)</script>\n</code></pre><script>alert(1)</script>\n~~~",
    "fence, class": "```jp-Button&#32;lm-Widget\na\n```\n```{.jp-Button #main onclick=alert(1)}\na\n```",
    "fence, open": "```html\n</pre><img src=x onerror=alert(1)>",
    "fence, mermaid": '```mermaid\ngraph TD; A["<img src=x onerror=alert(1)>"]; click A "javascript:alert(1)"\n```',
    "code": "`</code><img src=x onerror=alert(1)>` ``` `<script>` ```",
    "dollar and code": "$ ` \n$ <img src=x onerror=alert(1)> `",
    "dollars and code": "$$ ` \n$$ <img src=x onerror=alert(1)> `",
    "brackets and code": "\\\\( ` \n\\\\) <img src=x onerror=alert(1)> `",
    "environment and code": "\\begin{a} ` \n\\end{a} <img src=x onerror=alert(1)> `",
    "code and dollar": "`a$` <img src=x onerror=alert(1)> `$b`",
    "formula": "$<img src=x onerror=alert(1)>$ $$</span><script>alert(1)</script>$$ \\(<b>\\)",
    "formula that ends early": "$a \\) <img src=x onerror=alert(1)> \\( b$ \\[a\\) \\] $\\text{\\)<img>}$",
    "formula that does not end": "\\(a{\\) \\(b\\\\\\) $a\\\\\\$ \\[ { \\] $ \\begin{align} \\] x \\end{align}",
    "formula across elements": "\\(a <br> b\\) $a *b* c$ \\begin{align} `x` \\end{align} \\(`\\)`",
    "formula label": '$$x$$ ("><img src=x onerror=alert(1)>)\n\n$$\nx\n$$ (main)',
    "half formulas": "$*$*$ \\(**\\)** \\ref{x} \\$ \\\\$ $$$ \\\\\\( \\\\\\\\[",
    "entities": "&lt;img src=x onerror=alert(1)&gt; &#60;script&#62; &#36;x&#36; &#92;(x&#92;) &#0; &#xD800; &bsol;[y",
    "escapes": r"\<img src=x onerror=alert(1)\> \`<script>\` \[x\](javascript:alert(1))",
    "table": "|<img src=x onerror=alert(1)>|`<b>`|\n|:-|-:|\n|[x](javascript:alert(1))|$<i>$|\n|\\|</table><script>|",
    "list": "999999999. <b>\n- [ ] <input>\n- [x] </li></ul><script>alert(1)</script>",
    "heading": "# <a id=main onclick=alert(1)>x</a> {#main onclick=alert(1)}\n\n<b>\n===",
    "note": 'a[^<img>] [^"onclick=a]\n\n[^<img>]: <img src=x onerror=alert(1)>\n[^"onclick=a]: [x](javascript:a)',
    "note within the text": "a^[<img src=x onerror=alert(1)> ![x](https://x.org) $x] ^[`]` $]",
    "notes in notes": "[^a]: [^b]: [^a] ^[^[[^b]]]\n\n    [^b]: > [^a]: x\n\n[^b]: [^b] ^[[^a] ^[<b>]]\n- [^a]: x",
    "task": "- [ ] <input type=checkbox onclick=alert(1)>\n- [x] [x](javascript:alert(1))",
    "line break": "<br onclick=alert(1)> <br/onclick=alert(1)> <br / > <BR>",
    "controls": "<\x00script>alert(1)</script> <im\x00g src=x> \x1b[31m \ud83d <scr\ud800ipt> \u202e<b>\u202c",
    "unfinished": '<img src="x" onerror="alert(1)" <a href="javascript:alert(1)',
}


@pytest.mark.parametrize("markdown", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_harmless(markdown: str) -> None:
    """Hostile text becomes nothing but tags, attributes and addresses that we write, and formulas that only show."""
    html = to_html(markdown)

    assert offences(html) == []
    assert half_formulas(html) == []


@pytest.mark.parametrize("markdown", ["<b>a</b>", "<!-- a -->", "<script>a</script>", "[a](javascript:b)", "![a](/b)"])
def test_nothing_is_hidden(markdown: str) -> None:
    """What is not rendered is shown as it was written."""
    assert text_of(to_html(markdown)) == f"{markdown}\n"


SIGNS = [
    *("\n", "\n\n", " ", "  \n", "\t", "    ", "\\", "\\\\", "`", "``", "```", "~~~", "$", "$$", "|", "|-|\n"),
    *("> ", "- ", "1. ", "# ", "*", "**", "_", "~~", "[", "]", "](", ")", "(", "![", "<", ">", "<!--", "-->"),
    *("&", "&#36;", "&#92;", "\\(", "\\)", "\\[", "\\]", "{", "}", "\\begin{align}", "\\end{align}", "\\label{"),
    *("\\def", "\\href{", "%", "<br>", "https://x.org", "http://[", "javascript:", "mailto:a@b.c", "[a]: "),
    *('"', "'", "=", "onclick=", "a", "5", "א", "中", "\x00", "\ud800", "\u202e", "\r", "\x0c", "\u2028"),
    *("```python\n", "```html\n", "~~~x\n", "</span>", "</pre>", "title="),
    *("[^1]", "[^1]: ", "^[", "[ ] ", "- [x] ", "。", "한", "![a](https://x.org/b)"),
]
FRAGMENTS = st.sampled_from([*HOSTILE.values(), *SIGNS])


@given(st.lists(FRAGMENTS | st.text(max_size=3), max_size=14).map("".join))
@settings(max_examples=400, deadline=None)
def test_any_text_is_harmless(markdown: str) -> None:
    """However hostile fragments are joined, a browser sees only what we write, and MathJax only whole formulas."""
    html = to_html(markdown)

    assert offences(html) == []
    assert half_formulas(html) == []
    assert offences(to_html(markdown, images=True), images=True) == []


@given(st.lists(FRAGMENTS | st.text(max_size=3), max_size=14).map("".join))
@settings(max_examples=150, deadline=None)
def test_pieces_are_harmless(markdown: str) -> None:
    """Painted block by block, a text stays harmless, and every line of it is in one of the pieces."""
    lines = re.split("\r\n|\n|\r", re.sub("\x00", "", markdown))
    cuts = [0, *block_starts(markdown), len(lines)]
    env: dict[str, Any] = {}

    assert cuts == sorted(cuts)
    for start, end in pairwise(cuts):
        html = to_html("\n".join(lines[start:end]), env=env)
        assert offences(html) == []
        assert half_formulas(html) == []


REPEATED = [
    *(">", "[", "![", "*", "_a", "`", "~~", "$", "$a ", "\\(", "\\[\n", "$$ a\n", "\\", "<", "|", "&", "> \n", "- "),
    *("1. ", "[a](", "[[a](b)](", "http://[", "http://a ", "<a@b", "\\begin{align}\n", "- a\n", "```\n", "[a]: b\n"),
    *(
        "[^",
        "^[",
        "[^a]",
        "[^a]: ",
        "^[a] ",
        "^[[^a]",
        "[^a]: [^a]\n",
        "    [^a]: a\n\n",
        "**中",
        "https://x.org。",
        "- [ ] ",
    ),
]
GROWING = {
    "notes": "".join(f"a[^{n}]\n\n" for n in range(3_000))
    + "".join(f"[^{n}]: b[^{2_999 - n}]\n" for n in range(3_000)),
    "notes within notes": "\n\n".join("    " * depth + f"[^{depth}]: a[^{depth + 1}]" for depth in range(100)),
    "notes within the text": "^[" * 1_200 + "]" * 1_200,
    "list": "\n".join("  " * depth + "- a" for depth in range(300)),
    "table": "|a" * 255 + "|\n" + "|-" * 255 + "|\n" + "|a\n" * 100,
    "c": "```c\n" + "\n" * 5_000,
    "csharp": "```csharp\n" + "a\n" * 2_500,
}


@pytest.mark.parametrize(
    "markdown",
    [*(f"[^a]: b\n\n{(sign * MAX_PARAGRAPH)[:MAX_PARAGRAPH]}\n\n" * 2 for sign in REPEATED), *GROWING.values()],
    ids=[*map(repr, REPEATED), *GROWING],
)
def test_nonsense_costs_no_more_than_sense(markdown: str) -> None:
    """Text that nests, repeats or never ends takes a second or so, and stays harmless and in proportion."""
    start = time.process_time()
    html = to_html(markdown)

    assert time.process_time() - start < 5  # a slow and busy machine
    assert len(html) < 110 * (len(markdown) + 100)
    assert offences(html) == []


def test_what_nests_too_deep_is_shown_as_it_stands() -> None:
    """Not a word is lost when a text nests deeper than the parser goes."""
    markdown = "> " * 500 + "the end"

    assert to_html(markdown) == f"<pre>{markdown.replace('>', '&gt;')}</pre>"


def test_a_giant_paragraph_is_plain_text() -> None:
    """A paragraph longer than any that a person reads is shown without its markup."""
    words = "a *b* $c " * MAX_PARAGRAPH

    assert text_of(to_html(words)).strip() == words.strip()
    assert "<em>" not in to_html(words)


def test_a_failing_lexer_costs_only_the_colours() -> None:
    """Code is shown even if it makes Pygments raise an exception."""
    assert "function (" in text_of(to_html("```delphi\n" + "function (" * 20 + "\n```"))


@pytest.mark.parametrize(("slow_steps", "coloured"), [(1, True), (10, False)])
def test_a_pause_within_a_step_costs_no_colours(
    monkeypatch: pytest.MonkeyPatch, slow_steps: int, coloured: bool
) -> None:
    """A collection of garbage may take seconds, and is no fault of the code; code whose every step is slow is."""
    times = (float(60 * min(reading, slow_steps)) for reading in itertools.count())
    monkeypatch.setattr("chatmagic.markdown.time.thread_time", lambda: next(times))

    assert ("<span class=" in to_html("```python\nfor i in range(10): print(i)\n```")) is coloured


def test_threads_may_share_it() -> None:
    """Threads that render at the same time get what one of them would get alone."""
    markdown = "\n\n".join(HOSTILE.values())
    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(to_html, [markdown] * 32))

    assert results == {to_html(markdown)}


def test_a_search_for_harm_finds_none() -> None:
    """A fuzzer that is led by the branches of the parser finds nothing in a few seconds."""
    pytest.importorskip("atheris", reason="the fuzzer has no wheel for this system")
    search = [sys.executable, "-m", "tests.fuzz_markdown", "-max_total_time=5", "-verbosity=0"]
    done = subprocess.run(
        search, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
