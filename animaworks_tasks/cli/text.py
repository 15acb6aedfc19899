"""How things are put for people and for programs: times, tables, and a task as JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final

import attrs

from animaworks_tasks.cli.stores import is_orphan
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.protocol import Progress, utc_now
from animaworks_tasks.task.model import Outcome, State, Task
from animaworks_tasks.tools.catalogue import known_tools

_UNITS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_DESCRIBED: Final = (
    "tool", "subcommand", "argv", "state", "outcome", "cause", "error", "hint", "result", "result_file", "result_size",
    "result_tail", "submitted_at", "not_before", "started_at", "finished_at", "attempt", "retries", "timeout_seconds",
    "priority", "key", "retry_of", "cwd", "owner_pid",
)  # fmt: skip
_EXACT_BELOW: Final = 10  # seconds; shorter times are told to a tenth


@attrs.frozen(kw_only=True)
class Standing:
    """
    How a task stands: its record, and what is known besides.

    Attributes:
        task: The record.
        now: When we looked.
        expected: Seconds that it was expected to take; None where nothing was promised.
        progress: Its last report, while it runs.
        orphaned: Whether it is RUNNING and its owner has died.
    """

    task: Task
    now: datetime
    expected: float | None
    progress: Progress | None
    orphaned: bool = False

    @classmethod
    def of(cls, store: TaskStore, task: Task, tools: Mapping[str, Any]) -> Standing:
        """Look at *task* now; *tools* is the catalogue's mapping."""
        spec = tools.get(task.tool, {}).get(task.subcommand, {})
        expected = spec.get("expected_seconds") if task.expected_seconds is None else task.expected_seconds
        progress = store.read_progress(task.id) if task.state is State.RUNNING else None
        return cls(task=task, now=utc_now(), expected=expected, progress=progress, orphaned=is_orphan(store, task))

    @property
    def seconds(self) -> float:
        """How long it has waited, runs, or ran."""
        if self.task.duration is not None:
            return self.task.duration.total_seconds()
        began = self.task.started_at if self.task.state is State.RUNNING else self.task.submitted_at
        return max(0.0, (self.now - began).total_seconds()) if began and self.task.state is not State.DONE else 0.0

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows how long it ran: it began, and its owner died."""
        task = self.task
        return self.orphaned or (task.state is State.DONE and task.started_at is not None and task.duration is None)

    @property
    def overdue(self) -> bool:
        """Whether it runs for longer than expected."""
        runs = self.task.state is State.RUNNING and not self.orphaned
        return runs and self.expected is not None and self.seconds > self.expected

    @property
    def status(self) -> str:
        """Its outcome, or else its state."""
        return self.task.outcome.value if self.task.outcome else self.task.state.value

    def time(self) -> str:
        """Say how long, and how long ago; nothing of an orphan, of which nobody knows how long it ran."""
        if self.orphaned:
            return ""
        if self.task.finished_at is not None:
            ago = f"{duration((self.now - self.task.finished_at).total_seconds())} ago"
            return ago if self.task.duration is None else f"{duration(self.seconds)}, {ago}"
        if self.task.state is State.RUNNING and self.expected is not None:
            return f"{duration(self.seconds)} of {duration(self.expected)}"
        return duration(self.seconds)

    def note(self) -> str:
        """Say the one thing that matters most now, in one line."""
        task = self.task
        if task.state is State.DONE:
            told = (task.result if task.outcome is Outcome.COMPLETED else task.error) or ""
            cause = f"{task.cause.value}: " if task.cause else ""
            return cause + one_line(told.strip(), 200)
        if self.orphaned:
            return "its owner has died; a host will settle it"
        if task.state is State.RUNNING:
            return "; ".join(filter(None, ["overdue" if self.overdue else "", said(self.progress)]))
        if task.not_before is not None and task.not_before > self.now:
            again = f"attempt {task.attempt + 1} " if task.attempt else ""
            return f"{again}not before {moment(task.not_before)}"
        return ""


def said(progress: Progress | None) -> str:
    """Put a progress report in one line; empty where there is none."""
    if progress is None:
        return ""
    percent = "" if progress.fraction is None else f"{progress.fraction:.0%} "
    return (percent + one_line(progress.message, 200)).strip()


def duration(seconds: float) -> str:
    """Write *seconds* in the largest unit that fits, and the one below: ``0.4 s``, ``12 s``, ``3 min 4 s``."""
    seconds = max(0.0, seconds)
    if seconds < _EXACT_BELOW:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in _UNITS:
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def moment(at: datetime) -> str:
    """Write a point in time as the clock on this wall shows it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Set *rows* in columns; on a terminal, the last one is cut so that no line is wider than it."""
    width = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    padded = ([cell + " " * (room - columns(cell)) for cell, room in zip(row, widths, strict=True)] for row in rows)
    return "".join(_cut("  ".join(cells).rstrip(), width) + "\n" for cells in padded)


def columns(text: str) -> int:
    """Return how many columns of a terminal *text* takes."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _cut(line: str, width: int | None) -> str:
    if width is None or columns(line) <= width:
        return line
    while line and columns(line) > width - 1:
        line = line[:-1]
    return line + "…"


def as_json(value: object) -> str:
    """Return *value* as JSON, indented, and a line end."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def described(standing: Standing, store: TaskStore) -> dict[str, Any]:
    """Return everything that is known of a task, for JSON; times in ISO 8601, paths absolute."""
    task, progress = standing.task, standing.progress
    return {
        "task_id": task.id,
        **{name: _plain(getattr(task, name)) for name in _DESCRIBED},
        "argv": list(task.argv),
        "result_file": task.result_file and os.path.join(store.layout.root, task.result_file),
        "log": os.path.join(store.layout.logs, f"{task.id}.log") if task.attempt else None,
        "seconds": None if standing.is_unknown else round(standing.seconds, 3),
        "expected_seconds": standing.expected,
        "overdue": standing.overdue,
        "orphaned": standing.orphaned,
        "progress": progress and {name: _plain(getattr(progress, name)) for name in ("fraction", "message", "at")},
    }


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value.value if isinstance(value, Enum) else value


def catalogued(store: TaskStore) -> Mapping[str, Any]:
    """Return the tools of the catalogue by name and subcommand; nothing where no host has left one."""
    return known_tools(store.layout) or {}
