"""Output for people and for programs: times, tables, and a task as text or JSON."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs

from animaworks_tasks.cli.basics import in_json
from animaworks_tasks.cli.stores import is_orphan
from animaworks_tasks.errors import LimitsError, RecordError
from animaworks_tasks.fs import slots
from animaworks_tasks.notifications.render import WORDS, ends, one_line
from animaworks_tasks.store import views
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.protocol import Progress
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.model import Outcome, State, Task, plain
from animaworks_tasks.tools.catalogue import known_limits, known_tools
from animaworks_tasks.tools.secrets import words_without_secrets

_UNITS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_CALL: Final = 40  # characters of the arguments of a call
_EXACT_BELOW: Final = 10  # seconds; shorter times are shown to a tenth


@attrs.frozen(kw_only=True)
class TaskView:
    """
    A task as it is shown: its record, and what is known besides.

    Attributes:
        task: The record.
        now: When we looked.
        expected: Seconds that it was expected to take; None where nothing was promised.
        progress: Its last report, while it runs.
        orphaned: Whether it is RUNNING and its owner has died.
        argv: Its arguments without the credentials that are known here, or were where it ran.
        waits_for: The resource that it needs and others use, while it is PENDING; None where there is none.
    """

    task: Task
    now: datetime
    expected: float | None
    progress: Progress | None
    orphaned: bool = False
    argv: Sequence[str] = ()
    waits_for: str | None = None

    @classmethod
    def of(cls, store: TaskStore, task: Task, tools: Mapping[str, Any]) -> TaskView:
        """Return the view of *task* now; *tools* is the catalogue's mapping."""
        spec = tools.get(task.tool, {}).get(task.subcommand, {})
        expected = spec.get("expected_seconds") if task.expected_seconds is None else task.expected_seconds
        progress = store.read_progress(task.id) if task.state is State.RUNNING else None
        orphaned, argv = is_orphan(store, task), _shown_argv(task, store)
        return cls(task=task, now=utc_now(), expected=expected, progress=progress, orphaned=orphaned, argv=argv)

    @property
    def seconds(self) -> float:
        """How long it has waited, has been running, or ran, in seconds."""
        if self.task.duration is not None:
            return self.task.duration.total_seconds()
        began = self.task.started_at if self.task.state is State.RUNNING else self.task.submitted_at
        return max(0.0, (self.now - began).total_seconds()) if began and self.task.state is not State.DONE else 0.0

    @property
    def is_unknown(self) -> bool:
        """Whether its duration is unknown: it began, and its owner died."""
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

    @property
    def name(self) -> str:
        """What was called, in one line: the name of the tool, and its arguments; the subcommand stands in the name."""
        return f"{one_line(self.task.name, 60)} {self.arguments()}".rstrip()

    def arguments(self, room: int = _CALL) -> str:
        """Return the arguments in one line, of at most *room* characters; the subcommand stands in the name."""
        return ends(one_line(shlex.join(self.argv[self.argv[:1] == (self.task.subcommand,) :]), WORDS), room)

    def time(self) -> str:
        """Return how long it took and how long ago it ended; empty for an orphan, whose time is unknown."""
        if self.orphaned:
            return ""
        if self.task.finished_at is not None:
            ago = f"{duration((self.now - self.task.finished_at).total_seconds())} ago"
            return ago if self.task.duration is None else f"{duration(self.seconds)}, {ago}"
        if self.task.state is State.RUNNING and self.expected is not None:
            return f"{duration(self.seconds)} of {duration(self.expected)}"
        return duration(self.seconds)

    def line(self, room: int = _CALL) -> str:
        """Return what tells it from others: whether it is overdue, its arguments (*room* characters), its note."""
        # A semicolon among the arguments is in quotes.
        return "; ".join(filter(None, ["overdue" if self.overdue else "", self.arguments(room), self.note()]))

    def note(self) -> str:
        """Return what matters most now, in one line."""
        task = self.task
        if task.state is State.DONE:
            text = (task.result if task.outcome is Outcome.COMPLETED else task.error) or ""
            cause = f"{task.cause.value}: " if task.cause else ""
            return cause + one_line(text.strip(), 200)
        if self.orphaned:
            return "its owner has died; a host will finish it"
        if task.state is State.RUNNING:
            return said(self.progress)
        if task.not_before is not None and task.not_before > self.now:
            again = f"attempt {task.attempt + 1} " if task.attempt else ""
            return f"{again}not before {moment(task.not_before)}"
        return f"waits for {self.waits_for}" if self.waits_for else ""


def said(progress: Progress | None) -> str:
    """Return a progress report as one line; empty for None."""
    if progress is None:
        return ""
    percent = "" if progress.fraction is None else f"{progress.fraction:.0%} "
    return (percent + one_line(progress.message, 200)).strip()


def duration(seconds: float) -> str:
    """Return *seconds* in the largest unit that fits, and the one below: ``0.4 s``, ``12 s``, ``3 min 4 s``."""
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
    """Return a point in time as text, in local time, to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return *rows* as aligned columns; on a terminal, the last column is cut so that no line is too wide."""
    width = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else sys.maxsize
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    padded = ([cell + " " * (room - columns(cell)) for cell, room in zip(row, widths, strict=True)] for row in rows)
    return "".join(_cut("  ".join(cells).rstrip(), width) + "\n" for cells in padded)


def columns(text: str) -> int:
    """Return how many columns of a terminal *text* takes."""
    shown = (character for character in text if not unicodedata.combining(character))
    return sum(2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1 for character in shown)


def _cut(line: str, width: int) -> str:
    if columns(line) <= width:
        return line
    while line and columns(line) > width - 1:
        line = line[:-1]
    return line + "…"


def views_of(store: TaskStore, tasks: Iterable[Task]) -> list[TaskView]:
    """Return the views of *tasks* now; the catalogue says how long each was expected to take."""
    tools = known_tools(store.layout) or {}
    views = [TaskView.of(store, task, tools) for task in tasks]
    needs = {f"{tool}:{each}": spec.get("resource") for tool, specs in tools.items() for each, spec in specs.items()}
    if not any(needs.values()) or all(view.task.state is not State.PENDING for view in views):
        return views
    taken = _taken(store, needs)
    return [
        attrs.evolve(view, waits_for=taken.get(needs.get(view.task.name))) if view.task.state is State.PENDING else view
        for view in views
    ]


def _taken(store: TaskStore, needs: Mapping[str, str | None]) -> dict[str | None, str]:
    """Return the resources of which *store*, or this machine, has no more now, by their names."""
    used = Counter(needs.get(task.name) for task in store.list(State.RUNNING))
    taken = [each for each, limit in known_limits(store.layout).items() if used[each] >= limit]
    with contextlib.suppress(LimitsError, OSError):  # a host says so at its start
        taken += [each for each, limit in slots.machine_limits().items() if slots.is_taken(each, limit)]
    return {each: each for each in taken}


def as_json(value: object) -> str:
    """Return *value* as JSON, indented, and a line end; nothing in it controls a terminal."""
    return in_json(json.dumps(value, ensure_ascii=False, indent=2)) + "\n"


def described(view: TaskView, store: TaskStore) -> dict[str, Any]:
    """Return everything that is known of a task, for JSON; times in ISO 8601, paths absolute."""
    task, progress = view.task, view.progress
    return {
        **task.to_dict(),
        "argv": list(view.argv),
        "result_file": task.result_file and os.path.join(store.layout.root, task.result_file),
        "log": store.layout.log(task.id) if task.attempt else None,
        "seconds": None if view.is_unknown else round(view.seconds, 3),
        "expected_seconds": view.expected,
        "overdue": view.overdue,
        "orphaned": view.orphaned,
        "waits_for": view.waits_for,
        "progress": progress and plain(progress),
    }


def _shown_argv(task: Task, store: TaskStore) -> tuple[str, ...]:
    argv = task.argv
    with contextlib.suppress(OSError, RecordError):
        seen = views.read(store.layout, task.id)
        argv = seen.argv if len(seen.argv) == len(argv) else argv
    return words_without_secrets(argv)
