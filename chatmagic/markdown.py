"""Markdown of a stranger -> HTML that can do no harm."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from html import escape
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline, emphasis
from markdown_it.token import Token
from markdown_it.utils import EnvType
from mdit_py_plugins.dollarmath.index import math_inline_dollar
from mdit_py_plugins.footnote.index import footnote_def, footnote_inline, footnote_plugin, footnote_ref
from pygments.lexers import get_all_lexers, get_lexer_by_name  # type: ignore[import-untyped] # published without types
from pygments.token import STANDARD_TYPES  # type: ignore[import-untyped] # published without types

__all__ = ["block_starts", "formula", "image_label", "languages", "parse", "to_html"]

# Bounds for texts that mean nothing. No reply that makes sense comes near them.
MAX_NESTING = 50  # levels of blocks; markdown-it drops what is deeper, so such a text is shown as it stands
MAX_PARAGRAPH = 5_000  # characters; reading links and brackets takes quadratic time, so a longer one is plain text
MAX_FORMULA = 100  # lines; else every opening without an end would search the whole text
MAX_GROWTH = 100  # times the length of the text; a table of 2 kB can have 2 MB of empty cells
MAX_CODE = 20_000  # characters; longer code has no colours, because a single step of Pygments can take quadratic time
LEXING_SECONDS = 0.3  # of the processor per 10 kB, which need a fifth of it; rows of blanks can take minutes
LONGEST_STEP = 0.1  # seconds that count of a step: the garbage collector of a large kernel may run within one

_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Control characters, and what shows code in another order than it runs: https://trojansource.codes
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# What may be a note; the plugin would look for its end up to the end of the paragraph, from every bracket.
_NOTE = re.compile(r"\[\^[^\s\]]{1,99}\]|\^\[(?:[^\[\]\\]|\\.|\[[^\[\]]*\])+\]", re.DOTALL)
_TASK = re.compile(r"\[([ xX])\](?=\s)")
# Scripts without blanks between words, and Korean, whose particles follow a word without one.
_CJK = re.compile(
    r"[\u2e80-\u2fdf\u3000-\u312f\u3190-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff9f\U00020000-\U0003ffff]"
)
_HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff]")
_CJK_MARK = re.compile(
    r"[\u2018-\u201f\u3001-\u3003\u3008-\u3011\u3014-\u301b\uff01-\uff0f\uff1a-\uff1f\uff3b\uff3d\uff5b-\uff65]"
)
# Without slashes, http:x is a path on the server of the page.
_LINK = re.compile(r"https?://|mailto:", re.IGNORECASE)
# A picture's address must not reach into this computer or its network: to load it is to do what it says.
_REMOTE = re.compile(
    r"https?://[\w.-]+\.(?!local|internal|intranet|lan\b|home\b|corp\b)(?:[a-z]{2,}|xn--[\w-]+)(?::\d+)?(?:[/?#]|$)",
    re.IGNORECASE | re.ASCII,
)

# What MathJax could take for the start of a formula. It never reads on across elements, so an element defuses it.
_TEX_SIGN = re.compile(r"[$\\]+")
_INERT = '<span class="mathjax_ignore tex2jax_ignore">{}</span>'

_ENVIRONMENT = r"\\begin\{(?:equation|align|alignat|flalign|gather|multline|eqnarray)\*?\}"
_OPENER = re.compile(rf"\\\(|\\\[|{_ENVIRONMENT}")
_BLOCK_OPENER = re.compile(rf"\$\$|\\\[|{_ENVIRONMENT}")
_CLOSER = {r"\(": r"\)", r"\[": r"\]", "$$": "$$"}
# Two prices in a sentence, or a dollar before and one within a code span.
_PROSE = re.compile(r"\$(?:\d[^\\^_={}]*\s[^\W\d_]{2,}|[^`]*`)")
_LABEL = re.compile(r"\\label\s*\{[^{}]*\}")
# Macros that outlive their formula, that make links, ids, classes, styles or tooltips, or that change MathJax.
_ACTING_MACRO = re.compile(
    r"\\(?:[gex]?def|global|(?:future)?let|(?:re)?new(?:command|environment|tagform)|providecommand|usetagform"
    r"|Declare\w+|Newextarrow|definecolor|require|setOptions|mathtoolsset|href|url|includegraphics|html\w*|class|cssId"
    r"|(?:eq)?ref|style|data|bbox|mmlToken|unicode|toggle|mathtip|texttip|csname|catcode|input|include|write)(?![A-Za-z])"
)

# Lexers that were tried with much nonsense. Of the others some take minutes, and any may be a plugin.
_LANGUAGES = """
    ada awk bash batch bibtex c clojure cmake cobol common-lisp console coq cpp csharp css cuda cypher cython d dart
    delphi diff docker elixir elm erlang fortran fsharp gdscript glsl go graphql groovy haskell hlsl html http ini
    java javascript jinja json jsx julia kotlin lean llvm lua make markdown mathematica matlab mysql nasm nginx nim
    nixos objective-c ocaml octave perl php plpgsql postgresql powershell prolog protobuf puppet pycon pytb python
    racket rconsole rst ruby rust sas sass scala scheme scss sed sml solidity sparql splus sql sqlite3 stan stata
    swift systemverilog tcl terraform tex toml tsx turtle typescript verilog vhdl vim vue xml yaml zig
"""
_TAGS = set(re.findall(r"\w+", "a bdi blockquote br code div em figure h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong"))
_TAGS |= {"sup", "table", "tbody", "td", "th", "thead", "tr", "ul"}

_dollars = math_inline_dollar(allow_space=False, allow_digits=False, allow_double=True)


def to_html(text: str, *, images: bool = False, env: dict[str, Any] | None = None) -> str:
    """Return Markdown as HTML that runs, loads and names nothing in the page, and links to nothing but the web.

    Formulas are left to MathJax, colours to the page's style sheet for Pygments. Pictures of the web are links, unless
    *images* are wanted: then whoever serves one learns who looks, when, and what the model wrote into its address.
    Pieces of one text that share an *env* share its definitions of links, too. Threads may share the function.
    """
    text, known = (
        _cleaned(text),
        {"images": images, "references": {} if env is None else env.setdefault("references", {})},
    )
    return _cleaner(images).clean(_render(text, known))


def parse(text: str) -> list[Token] | None:
    """Return Markdown as tokens that hold no HTML, with its formulas, or None if it nests too deep."""
    return _tokens(_cleaned(text), {})


def block_starts(text: str) -> list[int]:
    """Return the lines, counted from 0, where the blocks at the top of *text* begin; a definition counts for none."""
    blocks = (token for token in _block_parser().parse(_cleaned(text)) if token.level == 0 and token.map)
    return [token.map[0] for token in blocks if token.map and token.type != "footnote_reference_open"]


def _cleaned(text: str) -> str:
    return _SURROGATE.sub("\ufffd", _UNSEEN.sub("", text))


def _tokens(text: str, env: EnvType) -> list[Token] | None:
    tokens = _parser().parse(text, env)
    return None if any(token.level >= MAX_NESTING - 1 for token in tokens) else tokens


def _render(text: str, env: EnvType) -> str:
    md, as_it_stands = _parser(), f"<pre>{escape(text)}</pre>"
    env["lexing"] = LEXING_SECONDS * (1 + len(text) / 10_000)
    tokens = _tokens(text, env)
    if tokens is None:
        return as_it_stands
    html: str = md.renderer.render(tokens, md.options, env)
    return html if len(html) <= MAX_GROWTH * (len(text) + 100) else as_it_stands


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802 - markdown-it's name
        return _LINK.match(url) is not None


@functools.cache
def _parser() -> MarkdownIt:
    md = _grammar()
    for name, write in _WRITERS.items():
        md.add_render_rule(name, _render_rule(write))
    for name, rule in {"fence": _code, "code_block": _code, "image": _image, "softbreak": _soft_break}.items():
        md.add_render_rule(name, rule)
    md.render("x")  # compiles its rules, which two threads must not do at once
    return md


@functools.cache
def _block_parser() -> MarkdownIt:
    md = _grammar()
    md.core.ruler.enableOnly(["normalize", "block"])
    md.parse("x")
    return md


def _grammar() -> MarkdownIt:
    md = _Markdown("commonmark", {"html": False, "linkify": True, "maxNesting": MAX_NESTING})
    md.enable(["table", "strikethrough", "linkify"]).use(footnote_plugin)
    md.block.ruler.at("footnote_def", _not_within_itself(footnote_def), {"alt": ["paragraph", "reference"]})
    for name, rule in {"footnote_ref": footnote_ref, "footnote_inline": _not_within_itself(footnote_inline)}.items():
        md.inline.ruler.at(name, _where_a_note_may_be(rule))
    linkify: Any = md.linkify
    linkify.set({"fuzzy_link": False, "fuzzy_email": False}).add("ftp:", None).add("//", None)
    md.core.ruler.before("inline", "long_paragraphs", _leave_long_paragraphs)
    md.core.ruler.before("inline", "tasks", _tick_tasks)
    md.core.ruler.before("footnote_tail", "unused_notes", _list_unused_notes)
    md.core.ruler.after("footnote_tail", "linked_images", _mark_linked_images)
    md.core.ruler.after("linkify", "bare_links", _end_bare_links)
    md.core.ruler.push("right_to_left", _isolate_right_to_left)
    md.block.ruler.before("fence", "math", _math_block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    md.inline.ruler.before("escape", "math", _math_inline)
    md.inline.ruler.at("emphasis", _emphasis)
    md.inline.ruler.at("html_inline", _line_break)
    return md


@functools.cache
def _cleaner(images: bool) -> nh3.Cleaner:
    pictures: dict[str, set[str]] = {"img": {"alt", "src"}} if images else {}
    return nh3.Cleaner(
        tags={*_TAGS, *pictures},
        attributes={"*": set(), "a": {"href"}, "ol": {"start"}, **pictures},  # without "*", title and lang would pass
        tag_attribute_values={"div": {"align": {"left", "center", "right"}}},
        allowed_classes={
            "div": {"highlight"},
            "span": {"mathjax_ignore", "tex2jax_ignore", *filter(None, STANDARD_TYPES.values())},
        },
        set_tag_attribute_values={
            "a": {"target": "_blank"},
            "img": {"loading": "lazy", "referrerpolicy": "no-referrer"},
        },
        link_rel="noopener noreferrer nofollow",
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
    )


def _not_within_itself(rule: Callable[..., bool]) -> Callable[..., bool]:
    """Keep a note out of a note of its kind: the plugin would lose the text around it, or go down without end."""

    def outermost(state: Any, *where: Any) -> bool:
        if where[-1]:  # only asks whether there is one
            return rule(state, *where)
        if rule in state.env:
            return False
        state.env[rule] = True
        try:
            return rule(state, *where)
        finally:
            del state.env[rule]

    return outermost


def _where_a_note_may_be(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    return lambda state, silent: _NOTE.match(state.src, state.pos) is not None and rule(state, silent)


def _tick_tasks(state: StateCore) -> None:
    for item, _, block in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if item.type == "list_item_open" and block.type == "inline" and (match := _TASK.match(block.content)):
            block.content = ("☐" if match[1] == " " else "☑") + block.content[match.end() :]


def _list_unused_notes(state: StateCore) -> None:
    """Keep what is said in notes that nothing refers to, which the plugin would drop."""
    notes = state.env.get("footnotes", {"refs": {}})
    for label in [label for label, number in notes["refs"].items() if number < 0]:
        notes["list"][len(notes["list"])] = {"label": label[1:], "count": 0}


def _leave_long_paragraphs(state: StateCore) -> None:
    for token in state.tokens:
        if token.type == "inline" and len(token.content) > MAX_PARAGRAPH:
            token.type = "text"


def _mark_linked_images(state: StateCore) -> None:
    for block in state.tokens:
        linked = False
        for token in block.children or ():
            if token.type in ("link_open", "link_close"):
                linked = token.nesting == 1
            elif token.type == "image":
                token.meta["linked"] = linked


def _end_bare_links(state: StateCore) -> None:
    """End a bare address at the first Chinese or Japanese mark, because no blank follows it in such a sentence."""
    for block in state.tokens:
        children = block.children or []
        for number in range(len(children) - 1, -1, -1):
            link = children[number]
            if link.markup != "linkify" or link.nesting != 1:
                continue
            words = children[number + 1]
            if match := _CJK_MARK.search(words.content):
                children.insert(number + 3, Token("text", "", 0, content=words.content[match.start() :]))
                words.content = words.content[: match.start()]
                link.attrs["href"] = state.md.normalizeLink(words.content)


def _isolate_right_to_left(state: StateCore) -> None:
    for block in state.tokens:
        if block.children and _RIGHT_TO_LEFT.search(block.content):
            block.children = [Token("bdi_open", "bdi", 1), *block.children, Token("bdi_close", "bdi", -1)]


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Read emphasis right beside Chinese, Japanese and Korean words, too: https://github.com/commonmark/cmark/issues/208."""
    start, count = state.pos, len(state.delimiters)
    if not emphasis.tokenize(state, silent):
        return False
    before, after = state.src[max(start - 1, 0) : start], state.src[state.pos : state.pos + 1]
    for delimiter in state.delimiters[count:]:
        if state.src[start] == "*":
            delimiter.open |= _is_east_asian(before) and not after.isspace()
            delimiter.close |= _is_east_asian(after) and not before.isspace()
    return True


def _is_east_asian(character: str) -> bool:
    return bool(_CJK.match(character) or _HANGUL.match(character))


def _line_break(state: StateInline, silent: bool) -> bool:
    """Read ``<br>``, the one tag that models cannot do without: a cell of a table has no other way to break a line."""
    if not (match := _LINE_BREAK.match(state.src, state.pos)):
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos = match.end()
    return True


def _math_inline(state: StateInline, silent: bool) -> bool:
    src, start = state.src, state.pos
    if match := _OPENER.match(src, start):
        opener = match[0]
        end = src.find(_closer(opener), match.end(), state.posMax)
        if end < 0:
            return False
        state.pos = end + len(_closer(opener))
    elif _dollars(state, True):
        opener = "$$" if src.startswith("$$", start) else "$"
    else:
        return False
    source = src[start : state.pos]
    if opener == "$" and _PROSE.match(source):
        state.pos = start
        return False
    if not silent:
        token = state.push("math", "", 0)
        token.content, token.markup = source, opener
    return True


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Keep the lines of a formula together, which Markdown would take for lists, headings or the end of a paragraph."""
    if state.is_code_block(start) or not (match := _BLOCK_OPENER.match(_line(state, start))):
        return False
    lines: list[str] = []
    for number in range(start, min(end, start + MAX_FORMULA)):
        line = _line(state, number)
        if not line or state.sCount[number] < state.blkIndent:
            return False
        lines.append(line)
        if line.rstrip(" .,;").endswith(_closer(match[0])) and (number > start or len(line) > 3):
            break
    else:
        return False
    if not silent:
        state.line = start + len(lines)
        state.push("paragraph_open", "p", 1).map = [start, state.line]
        token = state.push("inline", "", 0)
        token.content, token.children = "\n".join(lines), []
        state.push("paragraph_close", "p", -1)
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].rstrip()


def _closer(opener: str) -> str:
    return _CLOSER.get(opener) or opener.replace("begin", "end", 1)


def _render_rule(write: Callable[[Token], str]) -> Callable[..., str]:
    return lambda _renderer, tokens, index, _options, _env: write(tokens[index])


def _text(token: Token) -> str:
    return _TEX_SIGN.sub(lambda match: _INERT.format(match[0]), escape(token.content))


def _math(token: Token) -> str:
    tex, inline = formula(token)
    if not tex:
        return f"<code>{escape(token.content)}</code>"
    left, right = (r"\(", r"\)") if inline else (r"\[", r"\]")
    return f"<span>{left}{escape(tex)}{right}</span>"


def formula(token: Token) -> tuple[str, bool]:
    """Return the TeX of a formula, nothing if it must not be typeset, and whether it stands within a line."""
    source, opener = token.content, token.markup
    tex = source if opener.startswith(r"\begin") else source[len(opener) : -len(opener)]
    tex = _LABEL.sub("", tex).strip()  # a label that is painted twice is an error
    return tex if _typesets(tex) else "", opener in ("$", r"\(")


def _typesets(tex: str) -> bool:
    """Tell whether MathJax will find the end of the formula where we did, and nothing will happen outside of it."""
    depth = 0
    for sign in re.findall(r"\\.?|[{}]", tex, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0 or sign in ("\\", r"\(", r"\)", r"\[", r"\]"):
            return False
    return bool(tex) and depth == 0 and not _ACTING_MACRO.search(tex)


def _image(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, env: EnvType) -> str:
    """Write a link instead: whoever serves the picture would learn from its address what the conversation holds."""
    token = tokens[index]
    label, url = image_label(token), str(token.attrs["src"])
    if env["images"] and _REMOTE.match(url):
        return f'<img src="{escape(url)}" alt="{escape(label)}">'
    words = _text(Token("text", "", 0, content=label))
    return words if token.meta["linked"] else f'<a href="{escape(url)}">{words}</a>'


def image_label(token: Token) -> str:
    """Return the words that stand for an image, and the host that serves it."""
    words, url = "".join(child.content for child in token.children or ()), str(token.attrs["src"])
    try:
        host = urlsplit(url).hostname or url
    except ValueError:
        host = url
    return f"{words} ({host})" if words else host


def _soft_break(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: EnvType) -> str:
    """End a line, but not between Chinese or Japanese words, where a browser would show a blank."""
    around = [token.content for token in (*tokens[index - 1 : index], *tokens[index + 1 : index + 2])]
    seamless = len(around) == 2 and _CJK.match(around[0][-1:]) and _CJK.match(around[1][:1])
    return "" if seamless else "\n"


def _note_reference(token: Token) -> str:
    return f"<sup>[{token.meta['id'] + 1}]</sup>"


def _cell_open(token: Token) -> str:
    # In JupyterLab, whose style sheet wins over an attribute, the cells of HTML tables are aligned to the right.
    align = str(token.attrs.get("style", "text-align:left")).partition(":")[2]
    return f'<{token.tag}><div align="{align}">'


def _cell_close(token: Token) -> str:
    return f"</div></{token.tag}>\n"


def _code(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, env: EnvType) -> str:
    language = unescapeAll(tokens[index].info).lower().split()[:1]
    code = _coloured(tokens[index].content, "".join(language), env)
    # The empty span saves a first line that is empty: HTML would drop it.
    # In JupyterLab only the figure keeps its distance from the text around.
    return f'<figure><div class="highlight"><pre><span></span><code>{code}</code></pre></div></figure>\n'


def _coloured(code: str, language: str, env: EnvType) -> str:
    pieces: list[tuple[str, str]] = []
    if language in languages() and len(code) <= MAX_CODE:
        # Whoever wrote the text chooses the lexer: a bug in one of them must not cost the reply.
        with suppress(Exception):
            pieces = list(_lex(code, language, env))
    if "".join(text for _, text in pieces) != code:
        return escape(code)
    spans = ((name, escape("".join(text for _, text in group))) for name, group in groupby(pieces, itemgetter(0)))
    return "".join(f'<span class="{name}">{html}</span>' if name else html for name, html in spans)


@functools.cache
def languages() -> frozenset[str]:
    """Return every name of every language that is coloured."""
    chosen = set(_LANGUAGES.split())
    names = (names for _, names, *_ in get_all_lexers(plugins=False))
    return frozenset(alias for aliases in names if chosen.intersection(aliases) for alias in aliases)


def _lex(code: str, language: str, env: EnvType) -> Iterator[tuple[str, str]]:
    """Yield all of *code* in pieces, each after its CSS class. Raises TimeoutError when the text takes too long."""
    # get_tokens would strip empty lines and change tabs.
    steps, before = get_lexer_by_name(language).get_tokens_unprocessed(code), time.thread_time()
    while env["lexing"] > 0:
        step = next(steps, None)
        env["lexing"] -= min((now := time.thread_time()) - before, LONGEST_STEP)
        if step is None:
            return
        yield _css_class(step[1]), step[2]
        before = now
    raise TimeoutError


@functools.cache
def _css_class(kind: Any) -> str:
    while kind not in STANDARD_TYPES:
        kind = kind.parent
    name: str = STANDARD_TYPES[kind]
    # Names and blanks have no colour, and code that Pygments cannot read is no error of the reader's.
    return "" if name in ("n", "w", "err") else name


_WRITERS: dict[str, Callable[[Token], str]] = {
    "text": _text,
    "math": _math,
    "footnote_ref": _note_reference,
    "footnote_block_open": lambda _: "<hr>\n<ol>\n",
    "footnote_block_close": lambda _: "</ol>\n",
    "footnote_open": lambda _: "<li>",
    "footnote_anchor": lambda _: "",
    "footnote_close": lambda _: "</li>\n",
    "th_open": _cell_open,
    "td_open": _cell_open,
    "th_close": _cell_close,
    "td_close": _cell_close,
}
