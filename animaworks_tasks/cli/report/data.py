"""The figures of a report: numbers made from tasks, and nothing else; no I/O, no HTML."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs

from animaworks_tasks.cli.text import TaskView
from animaworks_tasks.task.model import Cause, Outcome

STATUSES: Final = ("running", "pending", "completed", "failed", "cancelled")


@attrs.frozen(kw_only=True)
class Report:
    """
    What goes on the page.

    Attributes:
        anima: The Anima's directory.
        made_at: When the store was looked at.
        views: The tasks, as ``list`` has them: what runs, what waits, and what is done, the last first.
        remarks: What was left out, and how it is had, a sentence each.
    """

    anima: str
    made_at: datetime
    views: Sequence[TaskView]
    remarks: Sequence[str]


@attrs.frozen(kw_only=True)
class Durations:
    """
    How long the completed runs of one tool took.

    Attributes:
        tool: ``tool:subcommand``.
        seconds: Of each run, the shortest first; at least one.
        expected: What was expected of most of them; None where nothing was.
        over: How many took longer than was expected of each.
    """

    tool: str
    seconds: Sequence[float]
    expected: float | None
    over: int

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def most(self) -> float:
        """The time within which nine of ten completed, in seconds."""
        return self.seconds[-(-len(self.seconds) * 9 // 10) - 1]


@attrs.frozen(kw_only=True)
class Failures:
    """
    The failures of one cause.

    Attributes:
        cause: Theirs.
        tools: How many of each tool, the most first.
        error: What the last one said.
    """

    cause: Cause
    tools: Mapping[str, int]
    error: str

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.tools.values())


def counts(views: Sequence[TaskView]) -> dict[str, int]:
    """Return how many tasks there are of each status, and how many are overdue."""
    found = Counter(view.status for view in views)
    return {**{status: found[status] for status in STATUSES}, "overdue": sum(each.overdue for each in views)}


def durations(views: Sequence[TaskView]) -> list[Durations]:
    """Return the durations of each tool that completed anything, by name; a failure took as long as it did."""
    runs: defaultdict[str, list[TaskView]] = defaultdict(list)
    for view in views:
        if view.task.outcome is Outcome.COMPLETED and view.task.duration is not None:
            runs[view.task.name].append(view)
    return [
        Durations(
            tool=tool,
            seconds=sorted(run.seconds for run in those),
            expected=Counter(run.expected for run in those).most_common(1)[0][0],
            over=sum(run.expected is not None and run.seconds > run.expected for run in those),
        )
        for tool, those in sorted(runs.items())
    ]


def failures(views: Sequence[TaskView]) -> list[Failures]:
    """Return the failures by cause, the most frequent first."""
    found: defaultdict[Cause, list[TaskView]] = defaultdict(list)
    for view in views:
        if view.task.cause is not None:
            found[view.task.cause].append(view)
    return [
        Failures(
            cause=cause,
            tools=dict(Counter(each.task.name for each in those).most_common()),
            error=those[0].task.error or "",
        )
        for cause, those in sorted(found.items(), key=lambda item: (-len(item[1]), item[0].value))
    ]
