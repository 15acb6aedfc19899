"""
A task as AnimaWorks' own code expects it, and the files in which its own class kept such tasks.

Those files lie where our views do, ``background_tasks/<id>.json``. What AnimaWorks left there before it used this store
is shown unchanged, and removed by the rules of AnimaWorks, because nothing else finishes or removes it.
"""

import contextlib
import enum
import json
import logging
import os
import time
from typing import Any, Final

import attrs

from animaworks_tasks.errors import TasksError
from animaworks_tasks.fs import files
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.task.model import Outcome, State, Task
from animaworks_tasks.task.pending import SIZE_LIMIT

logger = logging.getLogger("animaworks_tasks")

_PREVIEW: Final = 200  # characters of a result in a summary
_STALE: Final = 48 * 3600.0  # seconds after which a running one counts as dead: its process cannot be looked up

ToolArguments = dict[str, Any]


class TaskStatus(str, enum.Enum):  # noqa: UP042 - as in AnimaWorks: str() of a StrEnum differs
    """The states that AnimaWorks knows. A cancelled task is FAILED."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@attrs.define
class BackgroundTask:
    """
    A task as AnimaWorks' own code expects it.

    That of a manager's own call changes with the call, *status* last. Any other is a snapshot.

    Attributes:
        task_id: 12 lowercase hex digits; the same in the record, the notification and the command line.
        anima_name: Name of the Anima.
        tool_name: As it was submitted, with or without a subcommand.
        tool_args: As they were submitted; of another process's call, what JSON keeps of them; of a shell's submit,
            ``subcommand``, ``raw_args`` and ``anima_dir``.
        status: Its state.
        created_at: When it was submitted, in Unix seconds.
        completed_at: When it ended, in Unix seconds; None before.
        result: What it returned, as text; None before its end, and if it returned nothing or failed.
        error: What went wrong, ``ValueError: no such thing``; None if nothing did.
    """

    task_id: str
    anima_name: str
    tool_name: str
    tool_args: ToolArguments
    status: TaskStatus = attrs.field(default=TaskStatus.PENDING, converter=TaskStatus)
    created_at: float = attrs.field(factory=time.time, converter=float)
    completed_at: float | None = attrs.field(default=None, converter=attrs.converters.optional(float))
    result: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the task as plain data, fit for JSON if *tool_args* is."""
        return attrs.asdict(self, recurse=False) | {"status": self.status.value}

    def summary(self) -> str:
        """Return one line: ``[tool] completed:`` and the beginning of the result, or ``failed:`` and the error."""
        if self.status is TaskStatus.COMPLETED:
            return f"[{self.tool_name}] completed: {(self.result or '')[:_PREVIEW]}"
        if self.status is TaskStatus.FAILED:
            return f"[{self.tool_name}] failed: {self.error}"
        return f"[{self.tool_name}] {self.status.value}"


def of(task: Task, arguments: ToolArguments, store: Store) -> BackgroundTask:
    """Return *task* of *store*, called with *arguments*, as a BackgroundTask."""
    shown = BackgroundTask(
        task_id=task.id,
        anima_name=task.anima_name,
        tool_name=task.name,
        tool_args=arguments,
        status=TaskStatus.PENDING if task.state is State.PENDING else TaskStatus.RUNNING,
        created_at=task.submitted_at.timestamp(),
    )
    if task.state is State.DONE:
        end(shown, task, store)
    return shown


def end(shown: BackgroundTask, done: Task, store: Store) -> None:
    """Copy the end of *done* to *shown*. Its status changes last: a thread that sees the end sees all of it."""
    shown.result, shown.error = _whole_result(done, store), done.error
    shown.completed_at = None if done.finished_at is None else done.finished_at.timestamp()
    shown.status = TaskStatus.COMPLETED if done.outcome is Outcome.COMPLETED else TaskStatus.FAILED


def _whole_result(task: Task, store: Store) -> str | None:
    if task.result_file is not None:
        with contextlib.suppress(OSError, TasksError):  # it was removed: return the beginning
            return store.read_result(task.id)
    return task.result


class Leftovers:
    """
    The files that AnimaWorks' own class left in one store.

    Args:
        layout: Of the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def ids(self) -> set[str]:
        """Return the ids of all files, including our own views."""
        names = files.names(self._layout.root)
        return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}

    def get(self, task_id: str) -> BackgroundTask | None:
        """Return the task in the file of *task_id*; None if there is none, or it is unreadable."""
        if os.path.basename(task_id) != task_id:
            return None
        try:
            values = json.loads(files.read(self._layout.view(task_id), limit=SIZE_LIMIT))
            facts: dict[str, Any] = {"tool_args": {}, "status": None, "created_at": 0.0}
            facts |= {name: values[name] for name in attrs.fields_dict(BackgroundTask) if values.get(name) is not None}
            return BackgroundTask(**facts)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            logger.warning("background_tasks/%s.json cannot be read: %s", task_id, error)
            return None

    def remove(self, task_id: str, *, before: float) -> bool:
        """Remove a task that ended before *before*, in Unix seconds, or is dead; return whether it did."""
        task = self.get(task_id)
        if task is None:
            return False
        old = task.created_at < time.time() - _STALE if task.completed_at is None else task.completed_at < before
        return old and files.discard(self._layout.view(task_id))
