"""What must reach no file and no error: keys, and what looks like one."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote

__all__ = ["HIDDEN", "of_environment", "spellings", "without"]

HIDDEN = "[key]"
"""What stands in place of a key."""

# Long, and with digits, so that "sk-learn" and "key-value" stay what they are: what is kept here is shown again.
_LOOKS_LIKE_A_KEY = re.compile(
    r"""
      (?<![\w-]) (?:sk|pk|rk|gsk|xai|hf|nvapi|glpat|github_pat|gh[opsu]|xox[abprs]) [-_] (?=[\w-]*\d) [\w-]{16,}
    | (?<=Bearer\ ) (?=[^\s"']*\d) [\w.~+/-]{16,} =*
    | \bAIza[\w-]{30,} | \bA[KS]IA[0-9A-Z]{16}\b
    | \beyJ[\w-]{10,1000}\.[\w-]{10,}\.[\w-]{5,}
    | (?<=://) [^\s/@:]+ : [^\s/@]+ (?=@)
    | (?<=[?&]key=) [^&\s"'<>]+
    | (?<=[?&]token=) [^&\s"'<>]+
    | (?<=[?&]api[-_]key=) [^&\s"'<>]+
    | (?<=[?&]access_token=) [^&\s"'<>]+
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.{0,10000}?-----END[ ][A-Z ]*PRIVATE[ ]KEY-----
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_IS_CALLED_A_KEY = re.compile(
    r"""(\b(?:api[-_ ]?key|secret|password|token)["']?\s{0,3}[:=]\s{0,3}["']?)(?=[^\s"'&<>]*\d)[^\s"'&<>]{16,}""",
    re.IGNORECASE,
)
_NAMES_A_SECRET = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)


def without(text: str, keys: Iterable[str]) -> str:
    """Return *text* without any of *keys*, however it is spelled, and without anything that looks like one."""
    for key in keys:
        if len(key) >= 8:
            text = re.sub(spellings(key), HIDDEN, text)
    return _IS_CALLED_A_KEY.sub(rf"\1{HIDDEN}", _LOOKS_LIKE_A_KEY.sub(HIDDEN, text))


def of_environment(environ: Mapping[str, str]) -> list[str]:
    """Return the values of variables that hold secrets by their names, and are no words."""
    values = (value.strip() for name, value in environ.items() if _NAMES_A_SECRET.search(name))
    return [value for value in values if len(value) >= 16 and re.search(r"\d", value) and re.search(r"[A-Za-z]", value)]


@lru_cache(maxsize=64)
def spellings(key: str) -> str:
    """Return a pattern for *key* as it is, and as JSON, Python, HTML and a URL spell it."""
    forms = {key, json.dumps(key)[1:-1], str.__repr__(key)[1:-1], html.escape(key), quote(key, safe="")}
    pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    # Servers on one's own machine get keys like "x", and "context" must stay readable.
    return pattern if len(key) >= 8 else rf"(?<!\w)(?:{pattern})(?!\w)"
