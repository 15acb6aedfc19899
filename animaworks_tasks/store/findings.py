"""What the doctor finds: one thing that is not as it should be, what to do about it, and what mends it."""

from __future__ import annotations

import enum
import os

import attrs

from animaworks_tasks.notifications.render import one_line


class Severity(enum.Enum):
    """Whether something has to be done."""

    PROBLEM = "problem"  # a promise is not kept, or will not be, until somebody acts
    NOTICE = "notice"  # worth knowing; nothing is lost if nobody acts


class Remedy(enum.Enum):
    """How a finding is mended, and what is said once that is done."""

    MAKE = "made the directories that were missing"
    CLOSE = "closed to other users"
    ASIDE = "moved into quarantine/, with the reason beside it"
    DROP = "took back what waited to run a second time"
    RECOVER = "settled with a notice, or put back for another attempt"
    NOTIFY = "left the notice that was missing"
    MEND = "mended the view"
    FORGET = "removed what was left of tasks that are gone"
    SWEEP = "swept"


@attrs.frozen(kw_only=True)
class Finding:
    """
    One thing that is not as it should be.

    Attributes:
        what: What is wrong, in one sentence.
        where: The path or the id that it is about, or the first of them.
        severity: Whether something has to be done.
        todo: The next step, for a person.
        remedy: What mends it without losing anything; None where somebody has to decide.
        subjects: What the remedy is applied to: paths, or ids of tasks.
        reason: For a remedy that keeps one.
    """

    what: str
    where: str
    severity: Severity
    todo: str
    remedy: Remedy | None = None
    subjects: tuple[str, ...] = ()
    reason: str = ""

    @property
    def fixable(self) -> bool:
        """Whether :meth:`Doctor.repair` mends it."""
        return self.remedy is not None


FIX = "`animaworks-tool doctor --fix`"


def several(count: int, one: str, many: str) -> str:
    """Return *count* and the noun for so many."""
    return f"{count} {one if count == 1 else many}"


def shown(path: str) -> str:
    """Return the end of *path* as it may stand in a line: its directory, and its name, which anyone may have chosen."""
    directory, name = os.path.split(path)
    return one_line(f"{os.path.basename(directory)}/{os.fsencode(name).decode('utf-8', 'backslashreplace')}", 200)
