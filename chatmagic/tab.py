"""The Tab key in IPython: completes chat lines, and nothing in a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

from IPython.core.completer import SimpleCompletion, context_matcher, provisionalcompleter, rectify_completions

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

    from chatmagic.complete import Known

__all__ = ["install"]


class _Nothing(Sequence[SimpleCompletion]):
    """No completion at all, and none from anyone else either.

    IPython asks the other matchers, in spite of ``suppress``, where the length is 0: ``has_any_completions`` in
    https://github.com/ipython/ipython/blob/main/IPython/core/completer.py
    """

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> SimpleCompletion: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SimpleCompletion]: ...
    def __getitem__(self, index: int | slice) -> Any:
        raise IndexError(index)


def install(shell: InteractiveShell, known: Callable[[], Known]) -> Callable[[], None]:
    """Complete chat lines in *shell*, with what is *known* at that moment; call what is returned to end it."""
    completer: Any = shell.Completer

    # First of all, so that nobody is asked in vain and nobody's matches are mixed in.
    @context_matcher(priority=1000, identifier="chatmagic")  # type: ignore[untyped-decorator]  # IPython's
    def match(context: CompletionContext) -> SimpleMatcherResult:
        if "%chat" not in context.full_text:
            return {"completions": []}
        # Imported at the first Tab, so that %load_ext stays quick.
        from chatmagic.complete import Expression, at_cursor

        found = at_cursor(context.full_text, context.cursor_line, context.cursor_position, known())
        if found is None:
            return {"completions": []}
        if isinstance(found, Expression):
            return _python(completer, found.source)
        return _result(found.fragment, [SimpleCompletion(text, type=found.kind) for text in found.texts])

    completer.custom_matchers.append(match)

    def uninstall() -> None:
        if match in completer.custom_matchers:
            completer.custom_matchers.remove(match)

    return uninstall


def _python(completer: Any, source: str) -> SimpleMatcherResult:
    # Asked about the whole line, IPython takes the apostrophe of "don't {{ df" for an open string, and # for a comment.
    with provisionalcompleter():
        found = list(rectify_completions(source, completer.completions(source, len(source))))
    fragment = source[found[0].start :] if found else ""
    return _result(fragment, [SimpleCompletion(each.text, type=each.type) for each in found])


def _result(fragment: str, completions: list[SimpleCompletion]) -> SimpleMatcherResult:
    return {
        "completions": completions or _Nothing(),
        "matched_fragment": fragment,
        "suppress": True,
        "ordered": True,
    }
