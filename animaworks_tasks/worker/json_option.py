"""
Asking a module's tool for JSON, where its subcommand has the option for that.

Most subcommands of AnimaWorks' modules take ``-j``, and some refuse it. Which do, is known to the argparse parser that
``cli_main`` makes, and to nobody before: so ``-j`` is added when that parser begins to parse, if it is an option there.
Nothing is called twice or guessed from source, and what parses its arguments in another way gets them as typed.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final

_OPTION: Final = "-j"

_parse: Final[Any] = argparse.ArgumentParser.parse_known_args  # all ways to parse lead there, subparsers' too
_depth: ContextVar[int | None] = ContextVar("animaworks_tasks_json_option", default=None)  # None: not asked for


@contextlib.contextmanager
def json_asked_for() -> Iterator[None]:
    """Add ``-j`` where the first parser that is used in this context, or those of its subcommands, take it."""
    if argparse.ArgumentParser.parse_known_args is _parse:  # from then on ours is there, and does nothing unasked
        argparse.ArgumentParser.parse_known_args = _parse_known_args  # type: ignore[method-assign]
    token = _depth.set(0)
    try:
        yield
    finally:
        _depth.reset(token)


def _parse_known_args(
    self: argparse.ArgumentParser,
    args: Iterable[str] | None = None,
    namespace: Any = None,  # noqa: ANN401 - as argparse
) -> Any:  # noqa: ANN401 - as argparse
    depth = _depth.get()
    if depth is None:
        return _parse(self, args, namespace)
    words = list(sys.argv[1:] if args is None else args)
    if _takes_it(self, words):
        words.insert(0, _OPTION)  # in front: where the caller has said how it wants the output, that comes later
    _depth.set(depth + 1)
    try:
        return _parse(self, words, namespace)
    finally:
        _depth.set(depth or None)  # what the tool parses after its command line is its own affair


def _takes_it(parser: argparse.ArgumentParser, words: Sequence[str]) -> bool:
    """Say whether ``-j`` is a flag of *parser* that means JSON, and nothing among *words* excludes it."""
    action = parser._option_string_actions.get(_OPTION)  # noqa: SLF001 - argparse tells it in no other way
    if action is None or action.nargs != 0 or not ("--json" in action.option_strings or action.dest == "json"):
        return False
    rivals = {
        word
        for group in parser._mutually_exclusive_groups  # noqa: SLF001 - as above
        if action in group._group_actions  # noqa: SLF001 - as above
        for other in group._group_actions  # noqa: SLF001 - as above
        if other is not action
        for word in other.option_strings
    }
    return not any(word.partition("=")[0] in rivals for word in words)
