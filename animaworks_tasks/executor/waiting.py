"""What waits: futures of a task being done, or of nothing being left to do; tasks to look at again; a deadline."""

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, TypeVar

from animaworks_tasks.errors import ExecutorClosedError
from animaworks_tasks.task.model import Task

T = TypeVar("T")

# Seconds; the kernel frees a lock within 0.025 ms of reporting its last close (measured).
_PAUSES: Final = (0.005, 0.06)


class Waiting:
    """Keeps futures until they are resolved, removed, or everything closes; for any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._for_tasks: dict[str, list[Future[Task]]] = {}
        self._for_idle: list[Future[None]] = []  # added before the last full look
        self._for_next_idle: list[Future[None]] = []  # added since then
        self._closed = False

    def add(self, task_id: str) -> Future[Task]:
        """
        Return a future of *task_id* being DONE.

        Raises:
            ExecutorClosedError: This was closed.
        """
        future: Future[Task] = Future()
        with self._mutex:
            self._check_open()
            self._for_tasks.setdefault(task_id, []).append(future)
        return future

    def remove(self, task_id: str, future: Future[Task]) -> None:
        """Forget a future, if it was not resolved."""
        with self._mutex:
            left = [each for each in self._for_tasks.pop(task_id, []) if each is not future]
            if left:
                self._for_tasks[task_id] = left

    def ids(self) -> set[str]:
        """Return the ids of the tasks for which there are futures."""
        with self._mutex:
            return set(self._for_tasks)

    def resolve(self, task: Task) -> None:
        """Resolve the futures of a DONE *task*."""
        with self._mutex:
            futures = self._for_tasks.pop(task.id, [])
        _resolve(futures, task)

    def add_idle(self) -> Future[None]:
        """
        Return a future of nothing being left to do, as found by a full look that begins from now on.

        Raises:
            ExecutorClosedError: This was closed.
        """
        future: Future[None] = Future()
        with self._mutex:
            self._check_open()
            self._for_next_idle.append(future)
        return future

    def begin_look(self) -> None:
        """Note that a full look begins: what it finds is for all futures added until now."""
        with self._mutex:
            self._for_idle = [f for f in (*self._for_idle, *self._for_next_idle) if not f.cancelled()]
            self._for_next_idle.clear()

    def resolve_idle(self) -> None:
        """Resolve the futures that were added before the last full look: nothing is left to do."""
        with self._mutex:
            futures, self._for_idle = self._for_idle, []
        _resolve(futures, None)

    def close(self) -> None:
        """Raise ExecutorClosedError in all futures, and in later calls."""
        with self._mutex:
            self._closed = True
            futures: list[Future[Any]] = [*itertools.chain(*self._for_tasks.values())]
            futures += self._for_idle + self._for_next_idle
        for future in futures:
            with contextlib.suppress(InvalidStateError):
                future.set_exception(ExecutorClosedError("the executor was stopped while this was waited for"))

    def _check_open(self) -> None:
        if self._closed:
            raise ExecutorClosedError("the executor was stopped; the task goes on without it, or waits for the next")


def _resolve(futures: Iterable[Future[T]], result: T) -> None:
    for future in futures:
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            future.set_result(result)


class Deadline:
    """A timeout in seconds that several waits share; None is no limit."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds that are left, at least 0; None for no limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


class Again:
    """Ids of tasks, each due twice soon after it was added, since the event of a change may come just before it."""

    def __init__(self) -> None:
        self._due: list[tuple[float, str]] = []

    @property
    def next_at(self) -> float:
        """When the next is due, as the time that :meth:`add` was given; infinity if none is."""
        return min((at for at, _ in self._due), default=math.inf)

    def add(self, task_ids: Iterable[str], now: float) -> None:
        """Add ids, due soon after *now* in seconds of any clock; those that are here stay as they are."""
        known = {task_id for _, task_id in self._due}
        self._due += [(now + pause, task_id) for task_id in set(task_ids) - known for pause in _PAUSES]

    def take(self, now: float) -> set[str]:
        """Return the ids that are due *now*, each once, and drop these times."""
        due = {task_id for at, task_id in self._due if at <= now}
        self._due = [(at, task_id) for at, task_id in self._due if at > now]
        return due
