"""The futures of those who wait: for a task to be done, or for nothing to be left to do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from typing import TypeVar

from animaworks_tasks.errors import ExecutorClosedError
from animaworks_tasks.task.model import Task

T = TypeVar("T")


class Waiting:
    """Keeps a future for each who waits, until it is resolved, given up, or everything closes; from any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._for_tasks: dict[str, list[Future[Task]]] = {}
        self._for_idle: list[Future[None]] = []  # before the last look at everything
        self._for_next_idle: list[Future[None]] = []  # since then
        self._closed = False

    def add(self, task_id: str) -> Future[Task]:
        """
        Return a future of *task_id* being DONE.

        Raises:
            ExecutorClosedError: Nobody looks any more.
        """
        future: Future[Task] = Future()
        with self._mutex:
            self._check_open()
            self._for_tasks.setdefault(task_id, []).append(future)
        return future

    def remove(self, task_id: str, future: Future[Task]) -> None:
        """Forget a future: whoever waited has given up."""
        with self._mutex:
            futures = self._for_tasks.get(task_id, [])
            if future in futures:
                futures.remove(future)
            if not futures:
                self._for_tasks.pop(task_id, None)

    def ids(self) -> set[str]:
        """Return the ids of the tasks that somebody waits for."""
        with self._mutex:
            return set(self._for_tasks)

    def resolve(self, task: Task) -> None:
        """Give a DONE *task* to all who wait for it."""
        with self._mutex:
            futures = self._for_tasks.pop(task.id, [])
        _resolve(futures, task)

    def add_idle(self) -> Future[None]:
        """
        Return a future of nothing being left to do, as found by a look at everything that begins from now on.

        Raises:
            ExecutorClosedError: Nobody looks any more.
        """
        future: Future[None] = Future()
        with self._mutex:
            self._check_open()
            self._for_idle = _not_given_up(self._for_idle)
            self._for_next_idle = [*_not_given_up(self._for_next_idle), future]
        return future

    def begin_look(self) -> None:
        """Note that a look at everything begins: what it finds answers all who wait by now."""
        with self._mutex:
            self._for_idle += self._for_next_idle
            self._for_next_idle = []

    def resolve_idle(self) -> None:
        """Tell those who waited before the last look at everything that nothing is left to do."""
        with self._mutex:
            futures, self._for_idle = self._for_idle, []
        _resolve(futures, None)

    def close(self) -> None:
        """Tell all who still wait that nobody looks any more."""
        with self._mutex:
            self._closed = True
            futures: list[Future[Task] | Future[None]] = [f for fs in self._for_tasks.values() for f in fs]
            futures += [*self._for_idle, *self._for_next_idle]
            self._for_tasks.clear()
            self._for_idle, self._for_next_idle = [], []
        for future in futures:
            with contextlib.suppress(InvalidStateError):
                future.set_exception(ExecutorClosedError("the executor was stopped while this was waited for"))

    def _check_open(self) -> None:
        if self._closed:
            raise ExecutorClosedError("the executor was stopped; the task goes on without it, or waits for the next")


def _not_given_up(futures: Iterable[Future[None]]) -> list[Future[None]]:
    return [future for future in futures if not future.cancelled()]


def _resolve(futures: Iterable[Future[T]], result: T) -> None:
    for future in futures:
        with contextlib.suppress(InvalidStateError):  # whoever waited gave up meanwhile
            future.set_result(result)


class Deadline:
    """A timeout in seconds that several waits share; None is no limit."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds that are left, at least 0; None for no limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())
