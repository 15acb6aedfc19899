"""
AnimaWorks' own ``animaworks-tool``, where its distribution is installed beside ours: it gets what ours does not know.

It is found by the metadata of installed distributions, and takes the place of this process in a fresh interpreter, so
nothing that was loaded here is in its way. Nothing is installed in the current directory: neither metadata nor a
package ``core`` that lies there counts, whatever PYTHONPATH and ``python -m`` say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Final, NoReturn

_NAME: Final = "animaworks-tool"
_SCRIPTS: Final = "console_scripts"


def find() -> str | None:
    """Return what another distribution's ``animaworks-tool`` calls, ``module:function``; None where there is none."""
    for distribution in metadata.distributions(path=_installed()):
        for entry in distribution.entry_points.select(group=_SCRIPTS, name=_NAME):
            if entry.module.partition(".")[0] != "animaworks_tasks":
                return f"{entry.module}:{entry.attr}"
    return None


def has_tool(theirs: str, name: str) -> bool:
    """Return whether the tool *name* stands beside the function *theirs*, as the core's do; nothing is imported."""
    place = theirs.partition(":")[0].replace(".", os.sep)
    return any(os.path.isfile(os.path.join(each, place, f"{name}.py")) for each in _installed())


def hand_over(theirs: str, words: Sequence[str]) -> NoReturn:
    """Let *theirs*, as :func:`find` returned it, carry out the command line *words* in the place of this process."""
    program = "from animaworks_tasks.cli.beside import start; start()"
    os.execv(sys.executable, [sys.executable, "-P", "-c", program, theirs, *words])  # noqa: S606 - there is no shell


def start() -> NoReturn:
    """Call the function that the first argument names as its console script would, with the arguments after it."""
    sys.path[:] = _installed()
    theirs, sys.argv[:] = sys.argv[1], [_NAME, *sys.argv[2:]]
    sys.exit(metadata.EntryPoint(_NAME, theirs, _SCRIPTS).load()())


def _installed() -> list[str]:
    """Return sys.path without the current directory, unless it stands where installing a distribution put it: last."""
    library = os.path.dirname(os.__file__)
    first = sys.path.index(library) if library in sys.path else len(sys.path)
    return [each for each in sys.path[:first] if not _is_current(each)] + sys.path[first:]


def _is_current(directory: str) -> bool:
    try:
        return os.path.samefile(directory or ".", ".")
    except OSError:  # where we may not search the current directory, say
        return os.path.abspath(directory) == os.path.abspath(".")
