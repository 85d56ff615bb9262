r"""Markdown of a stranger -> Markdown that does no harm even where raw HTML is allowed.

Every block is written anew, so that no renderer can read it otherwise than we did: only code holds a tag, and only
formulas hold a ``$`` or ``\begin`` that could start one for JupyterLab and nbconvert, which look for formulas first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import accumulate
from typing import cast

from markdown_it.common.utils import unescapeAll
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from chatmagic.markdown import MAX_GROWTH, MAX_NESTING, formula, image_label, languages, parse
from chatmagic.plain import plain

__all__ = ["to_markdown"]

_GAP = "\u200b"  # nothing to see, but two signs are no longer one
_GAP_IN_TEXT = "&#8203;"

_SIGN = re.compile(
    r"[\\`$<*~\[\]|{}^]|&(?=[#\w])|(?<!\w)[@#]|(?<![^\W_])_|_(?![^\W_])|/(?=/)|(?<=www)\.", re.IGNORECASE
)
_BLANKS = re.compile(r"[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
_LINE_START = re.compile(r"\A(?:[-+=:%>]|\(?(?:\d{1,9}|[a-z]|[ivxlcdm]{1,9})[.)](?!\S))", re.IGNORECASE)
_FENCE_LIKE = re.compile(r"```|~~~")
# What begins or ends code, a link or a formula, and would be something else. JupyterLab does not see a dollar before
# code, and its parser takes tildes and a backtick for one word.
_NOT_ADJACENT = re.compile(r"[`~$]`|!\[|\$[$\d]")
_URL_SIGN = re.compile(r"[$()*';\[\]]")
_URL = re.compile(r"(?:https?://|mailto:)[\w.~:/?#@!+=&,%-]+", re.IGNORECASE | re.ASCII)

# Some take these for a newline, which would end an item of a list.
_ODD_LINE_END = re.compile(r"[\x0b\x0c\x85\u2028\u2029]")
_MORE_THAN_CODE = re.compile(r"\$(?=\$)|~(?=~)|\\(?=\\[()\[\]]|begin|end|\Z)", re.IGNORECASE)
_TAG_LINK_OR_FENCE = re.compile(r"[<\]`~]")
_PLACEHOLDER = re.compile(r"@(?=@\d+[$\\])")  # half of what JupyterLab puts in the place of a formula

_TEX = re.compile(r"\\[A-Za-z]+|\\.|\^\^|[`$%|]", re.DOTALL)
# What LaTeX reads and writes files with, or makes names of macros from.
_TEX_OF_FILES = re.compile(
    r"\\(?:open|close|read|immediate|special|font|pdf|XeTeX|lua|direct|late|Input|IfFile|use|Use|Require|document|every|scan"
    r"|make|New|Provide|Renew|Expl|expandafter|verb|lst|file|new|shell|graphic).*"
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*(?:\{([A-Za-z]*)(\*?)\})?")
_INNER_ENVIRONMENTS = """
    array subarray split cases dcases rcases aligned alignedat gathered
    matrix smallmatrix pmatrix bmatrix Bmatrix vmatrix Vmatrix
"""
_DISPLAY_ENVIRONMENTS = {"align": "aligned", "alignat": "alignedat", "eqnarray": "aligned", "equation": "aligned"}
_DISPLAY_ENVIRONMENTS |= {"flalign": "aligned", "gather": "gathered", "multline": "gathered"}
# Within dollars LaTeX takes only the inner ones.
_INNER = {name: name for name in _INNER_ENVIRONMENTS.split()} | _DISPLAY_ENVIRONMENTS
_TAG = re.compile(r"\\tag\*?\s*\{([^{}]*)\}")
_ROW_SPACE = re.compile(r"\\\\\*?\s*\[\s*-?[\d.]+\s*[a-z]{2}\s*\]")
_ROW_END = re.compile(r"(\\\\)(?=[\[\](){}])|\\.", re.DOTALL)
_TEX_TAG_OR_LINK = re.compile(r"<(?!\s)|/(?=/)|\](?=[(\[:])")


def to_markdown(text: str) -> str:
    """Return the same Markdown, made harmless for renderers that allow HTML, and simple enough for all of them.

    It holds no HTML but ``<br>`` in a table, no pictures, and links to nothing but the web. Code is the same to the
    letter, except in a quote, and where ``$$`` or ``~~`` in a line could mean more: there an invisible U+200B keeps
    the signs apart. Code in a line that holds a backtick becomes words.
    """
    tokens = parse(text)
    simple = (
        tokens is not None and max(map(_depth, [tokens, *(token.children or () for token in tokens)])) < MAX_NESTING
    )
    written = _blocks(SyntaxTreeNode(tokens or ()).children) if simple else ""
    if not simple or len(written) > MAX_GROWTH * (len(text) + 100):
        written = _fence(plain(text))
    return f"{written}\n" if written else ""


def _depth(tokens: Sequence[Token]) -> int:
    return max(accumulate(token.nesting for token in tokens), default=0)


def _blocks(nodes: Iterable[SyntaxTreeNode], *, quoted: bool = False) -> str:
    """Write *nodes* with a blank line between them, which ends every formula that JupyterLab may see in code."""
    written, after_words = "", False
    for node in nodes:
        block = _block(node, quoted)
        if written and block:
            written += "\n" if after_words and node.type.endswith("_list") and _is_tight(block) else "\n\n"
        written += block
        after_words = node.type == "paragraph" and node.hidden
    return written


def _block(node: SyntaxTreeNode, quoted: bool) -> str:
    match node.type:
        case "paragraph":
            return _paragraph(_words(node))
        case "heading":
            return f"{'#' * int(node.tag[1])} {_words(node, in_line=True)}"
        case "fence" | "code_block":
            return _fence(node.content, "".join(unescapeAll(node.info).lower().split()[:1]), quoted=quoted)
        case "bullet_list" | "ordered_list":
            return _list(node, int(node.attrs.get("start", 1)), quoted)
        case "blockquote":
            lines = _blocks(node.children, quoted=True).split("\n")
            return "\n".join(f"> {line}" if line else ">" for line in lines)
        case "table":
            return _table([row for part in node.children for row in part.children])
        case "footnote_block":
            return f"___\n\n{_list(node, 1, quoted)}"
        case "hr":
            return "___"
        case _:
            return ""


def _paragraph(words: str) -> str:
    lines = (line.strip() for line in words.rstrip("\\ \n").split("\n"))  # a break at the end is shown as it stands
    return "\n".join(_started(line) for line in lines if line)


def _started(line: str) -> str:
    """Keep a line of words from becoming a list, a heading, a fence or what else the start of a line may mean."""
    if _FENCE_LIKE.match(line):
        return f"{_GAP_IN_TEXT}{line}"
    return _LINE_START.sub(lambda start: re.sub(r"[^\w\s]", _entity, start[0]), line)


def _list(node: SyntaxTreeNode, start: int, quoted: bool) -> str:
    items = []
    for number, item in enumerate(node.children, start):
        marker = f"{item.markup} " if node.type == "bullet_list" else f"{min(number, 999_999_999)}{item.markup or '.'} "
        body = _blocks(item.children, quoted=quoted) or _GAP_IN_TEXT
        items.append(marker + re.sub(r"\n(?!\n)", "\n" + " " * len(marker), body))
    return ("\n" if all(map(_is_tight, items)) else "\n\n").join(items)


def _is_tight(block: str) -> bool:
    return "\n\n" not in block and "```" not in block


def _table(rows: Sequence[SyntaxTreeNode]) -> str:
    lines = [[_words(cell, in_line=True) or " " for cell in row.children] for row in rows]
    rules = {"text-align:left": ":--", "text-align:center": ":-:", "text-align:right": "--:"}
    lines.insert(1, [rules.get(str(cell.attrs.get("style")), "---") for cell in rows[0].children])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _fence(code: str, language: str = "", *, quoted: bool = False) -> str:
    code = _exact(code)
    if quoted:  # no line of a quote is blank, so JupyterLab can take the end of the code for part of a formula
        code = _TAG_LINK_OR_FENCE.sub(rf"\g<0>{_GAP}", code)
    marks = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return "\n".join([marks + language * (language in languages()), code.removesuffix("\n"), marks])


def _exact(code: str) -> str:
    return _PLACEHOLDER.sub(rf"\g<0>{_GAP}", _ODD_LINE_END.sub(" ", code))


def _words(node: SyntaxTreeNode, *, in_line: bool = False) -> str:
    """Write what is within *node*; *in_line* where no line may end and a bar would end a cell."""
    return reduce(_joined, (_piece(child, in_line) for child in node.children), "")


def _joined(left: str, right: str) -> str:
    return f"{left}{_GAP_IN_TEXT if _NOT_ADJACENT.fullmatch(left[-1:] + right[:1]) else ''}{right}"


def _piece(node: SyntaxTreeNode, in_line: bool) -> str:
    match node.type:
        case "text":
            return _escaped(node.content)
        case "code_inline":
            return _span(node.content, in_line)
        case "math":
            return _formula(cast(Token, node.token), in_line)
        case "image":
            label = _escaped(image_label(cast(Token, node.token)))
            return label if node.meta["linked"] else _link(label, str(node.attrs["src"]))
        case "link":
            return _link(_words(node, in_line=in_line), str(node.attrs["href"]))
        case "em" | "strong" | "s":
            return _joined(node.markup, _words(node, in_line=in_line)) + node.markup
        case "softbreak":
            return " " if in_line else "\n"
        case "hardbreak":
            return "<br>" if in_line else "\\\n"
        case "footnote_ref":
            return _escaped(f"[{node.meta['id'] + 1}]")
        case _:
            return _words(node, in_line=in_line)


def _escaped(text: str) -> str:
    return _SIGN.sub(_entity, _BLANKS.sub(" ", text))


def _entity(sign: re.Match[str]) -> str:
    return f"&#{ord(sign[0])};"


def _link(words: str, url: str) -> str:
    url = _URL_SIGN.sub(lambda sign: f"%{ord(sign[0]):02X}", url)
    if not _URL.fullmatch(url):
        return words
    # Should a renderer not see the link, it must not see a bare address, either, that goes on into the code after it.
    address = f"]({url.replace('&', '&amp;').replace('//', '&#47;/')})"
    plain_words = words.strip() and not re.search(r"[\[\]]", words)
    return f"[{words}{address}" if plain_words else f"{words} [{_escaped(url)}{address}".lstrip()


def _span(code: str, in_line: bool) -> str:
    if "`" in code:
        return _escaped(code)  # JupyterLab's parser can let emphasis or a link end within it
    code = _MORE_THAN_CODE.sub(rf"\g<0>{_GAP}", _exact(code.replace("\n", " ")))
    pad = " " * bool(code[:1] == code[-1:] == " " and code.strip())
    if in_line:
        code = code.replace("|", r"\|")
    return f"`{pad}{code}{pad}`"


def _formula(token: Token, in_line: bool) -> str:
    """Write a formula so that it is harmless even where it is taken for text: it starts no tag and no link."""
    tex, inline = formula(token)
    signs = set(_TEX.findall(tex))
    if (
        not tex
        or signs & {"`", "$", "%", "^^"}
        or any(map(_TEX_OF_FILES.match, signs))
        or not _INNER.keys() >= {name for _, name, _ in _ENVIRONMENT.findall(tex)}
    ):
        return _span(token.content, in_line)
    tex = _ENVIRONMENT.sub(_inner_environment, _TAG.sub(r"\\qquad\\text{(\1)}", " ".join(tex.split())))
    tex = _ROW_END.sub(lambda end: end[0] + " " * bool(end[1]), _ROW_SPACE.sub(r"\\\\ ", tex))
    tex = _TEX_TAG_OR_LINK.sub(r"\g<0> ", tex)
    if in_line:
        tex = _TEX.sub(lambda sign: {"|": r"\vert ", r"\|": r"\Vert "}.get(sign[0], sign[0]), tex)
    if tex[-1] in "\\$":
        tex += " {}"
    return f"${tex}$" if inline and r"\begin" not in tex else f"$${tex}$$"


def _inner_environment(command: re.Match[str]) -> str:
    which, name, star = command.groups()
    return rf"\{which}{{{_INNER[name]}{star if _INNER[name] == name else ''}}}"
