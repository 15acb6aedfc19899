"""
Asking a module's tool for JSON, where its subcommand has the option for that.

Most subcommands of AnimaWorks' modules take ``-j``, and some refuse it. Only the argparse parser that ``cli_main``
makes knows which: so ``-j`` is added when that parser begins to parse, if it is an option there. Nothing is called
twice or guessed from source. A tool that parses its arguments in another way gets them as typed.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final

_OPTION: Final = "-j"

_parse: Final[Any] = argparse.ArgumentParser.parse_known_args  # all ways to parse lead there, subparsers' too
_depth: ContextVar[int | None] = ContextVar("animaworks_tasks_json_option", default=None)  # None: not asked for


@contextlib.contextmanager
def json_asked_for() -> Iterator[None]:
    """Add ``-j`` where the first parser that is used in this context, or those of its subcommands, take it."""
    if argparse.ArgumentParser.parse_known_args is _parse:  # replaced once; outside this context ours adds nothing
        argparse.ArgumentParser.parse_known_args = _parse_known_args  # type: ignore[method-assign]
    token = _depth.set(0)
    try:
        yield
    finally:
        _depth.reset(token)


def _parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - as argparse
    depth = _depth.get()
    if depth is None:
        return _parse(self, args, namespace)
    words = list(sys.argv[1:] if args is None else args)
    if _takes_it(self, words):
        words.insert(0, _OPTION)  # in front, so that an option of the caller's comes later and wins
    _depth.set(depth + 1)
    try:
        return _parse(self, words, namespace)
    finally:
        _depth.set(depth or None)  # nothing is added to what the tool parses after its command line


def _takes_it(parser: argparse.ArgumentParser, words: Sequence[str]) -> bool:
    """Return whether ``-j`` is a flag of *parser* that means JSON, and nothing among *words* excludes it."""
    action = parser._option_string_actions.get(_OPTION)  # noqa: SLF001 - argparse has no public way to ask
    if action is None or action.nargs != 0 or not ("--json" in action.option_strings or action.dest == "json"):
        return False
    groups = [group._group_actions for group in parser._mutually_exclusive_groups]  # noqa: SLF001 - as above
    rivals = [other for group in groups if action in group for other in group if other is not action]
    given = {word.partition("=")[0] for word in words}
    return all(given.isdisjoint(other.option_strings) for other in rivals)
