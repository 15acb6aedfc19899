"""
``animaworks-tool``: what people type, and the agent in its shell.

Nothing is imported here that ``submit`` does not need: it has to start in the time of a bare interpreter. Every other
command brings along what it needs, once it is known which one is meant.
"""

from __future__ import annotations

import os
import sys

import animaworks_tasks
from animaworks_tasks.cli.basics import abandon_unwritable, put, remedy, say
from animaworks_tasks.cli.commands import COMMANDS, ENTRANCE, USAGE, take
from animaworks_tasks.errors import RecordError, RegistryError, StoreError, TasksError, ToolLoadError, UsageError

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

_REMEDIES: Final = {  # the next step after errors that do not say so themselves
    RecordError: "`animaworks-tool doctor` says what can be done",
    ToolLoadError: "correct the tool, or what names it",
    RegistryError: "correct the tool, or leave it out",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, without the program's name, and return the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    called: Sequence[str] = []
    try:
        given, called = take(words, ENTRANCE, USAGE, leading=True)
        status = _dispatch(words[: len(words) - len(called)], given, called)
    except KeyboardInterrupt:
        status = 130  # 128 + SIGINT, as shells have it
    except BrokenPipeError:
        status = 141  # 128 + SIGPIPE: the reader of our output has left
    except UsageError as error:
        say(str(error))
        status = 2
    except (TasksError, OSError) as error:
        say(_in_one_line(error))
        status = 1
    abandon_unwritable()
    if argv is None and called[:1] == ["submit"]:
        os._exit(status)  # all is flushed, and an interpreter that ends in order takes 1.6 ms more (measured), of 16
    return status


def is_command(words: Sequence[str]) -> bool:
    """Return whether a command line names a command of ours; AnimaWorks' own ``animaworks-tool`` asks this."""
    try:
        called = take(words, ENTRANCE, USAGE, leading=True)[1]
    except UsageError:
        return False
    return bool(called) and (called[0] in COMMANDS or called[0] == "__complete")


def _dispatch(options: Sequence[str], given: Mapping[str, Any], called: Sequence[str]) -> int:
    """Run the command. The *options* before its name, which have *given* that, go before those after it."""
    name, rest = (called[0], called[1:]) if called else ("", [])
    if name == "submit":
        from animaworks_tasks.cli.submit import submit

        return submit([*options, *rest])
    if name == "__complete":  # what a shell asks on Tab; see complete.py
        from animaworks_tasks.cli.complete import complete

        return complete(rest)
    if name in COMMANDS:
        from animaworks_tasks.cli.parser import execute

        return execute(name, [*options, *rest])
    if given["version"]:
        put(f"animaworks-tool {animaworks_tasks.__version__}\n")
    elif called:
        from animaworks_tasks.cli.direct import call

        return call(given, name, rest)
    elif given["help"]:
        from animaworks_tasks.cli.parser import overview

        put(overview())
    else:
        raise UsageError("name a command or a tool; `animaworks-tool --help` lists them", USAGE)
    return 0


def _in_one_line(error: TasksError | OSError) -> str:
    """Return what happened and, where the error itself does not say it, what to do next."""
    if isinstance(error, StoreError):
        step = f"; {remedy(error.__cause__)}" if isinstance(error.__cause__, OSError) else ""
        return f"{error}{step}, or name another Anima with --anima-dir"
    if isinstance(error, TasksError):
        step = next((f"; {step}" for kind, step in _REMEDIES.items() if isinstance(error, kind)), "")
        return " ".join(str(error).split()) + step
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}; {remedy(error)}"
