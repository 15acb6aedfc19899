"""What a check finds: one thing that is not as it should be, and what to do about it."""

import os
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Final, Literal

import attrs

from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.place import Place

Mend = Callable[[Place], str]

_NAMED: Final = 3  # of many


@attrs.frozen
class Finding:
    """
    One thing that is not as it should be.

    Attributes:
        severity: A problem: a promise is not kept, or will not be, until somebody acts. Of a warning nothing is lost.
        where: The path, or the id of the task, that it is about, or the first of them.
        what: What is wrong, and why that matters.
        todo: The next step, for a person.
        mend: Mends it without losing anything, and returns what was done; None where a person has to decide.
    """

    severity: Literal["problem", "warning"]
    where: str
    what: str
    todo: str
    mend: Mend | None = attrs.field(default=None, eq=False, repr=False)


problem: Final = partial(Finding, "problem")
warning: Final = partial(Finding, "warning")


def about(
    kind: Callable[..., Finding], subjects: Collection[str], what: str, todo: str, mend: Mend | None = None
) -> Iterator[Finding]:
    """Yield one finding about all of these paths or ids, which it names; nothing where there are none."""
    if subjects:
        yield kind(next(iter(subjects)), f"{what}: {some(subjects)}", todo, mend)


def some(paths: Collection[str]) -> str:
    """Return the first three of these paths or ids, and how many there are of more."""
    named = ", ".join(map(shown, list(paths)[:_NAMED]))
    return named if len(paths) <= _NAMED else f"{named} ... ({len(paths)} in all)"


def shown(path: str) -> str:
    """Return the end of *path* as it may stand in a line: its directory, and its name, which anyone may have chosen."""
    end = os.path.join(os.path.basename(os.path.dirname(path)), os.path.basename(path))
    return one_line(os.fsencode(end).decode("utf-8", "backslashreplace"), 200)
