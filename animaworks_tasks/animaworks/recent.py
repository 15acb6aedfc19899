"""The tasks that one manager was given: those that run, and for a while those that have ended. For any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from animaworks_tasks.animaworks.background_task import BackgroundTask, TaskStatus


class RecentTasks:
    """
    Tasks by their ids, all of which run or have ended.

    Args:
        retention: Seconds for which one that has ended is kept, at least 0.
        limit: How many that have ended are kept; at least 0.
    """

    def __init__(self, *, retention: float, limit: int) -> None:
        self._retention, self._limit = retention, limit
        self._tasks: dict[str, BackgroundTask] = {}
        self._mutex = threading.Lock()

    def add(self, task: BackgroundTask) -> None:
        """Keep *task*."""
        with self._mutex:
            self._tasks[task.task_id] = task

    def get(self, task_id: str) -> BackgroundTask | None:
        """Return a task; None if it is not kept."""
        with self._mutex:
            return self._tasks.get(task_id)

    def all(self) -> dict[str, BackgroundTask]:
        """Return all that are kept."""
        with self._mutex:
            return dict(self._tasks)

    def forget(self, task_ids: Iterable[str]) -> None:
        """Forget these; those that are not kept are passed over."""
        with self._mutex:
            for task_id in task_ids:
                self._tasks.pop(task_id, None)

    def evict(self, now: float) -> int:
        """Forget what has ended and is too old at *now*, in Unix seconds, or too many; return how many those were."""
        with self._mutex:
            ended = sorted(
                (task for task in self._tasks.values() if task.status is not TaskStatus.RUNNING),
                key=lambda task: task.completed_at or 0.0,
            )
            too_many = max(0, len(ended) - self._limit)
            oldest = now - self._retention
            old = [task for n, task in enumerate(ended) if n < too_many or (task.completed_at or 0.0) <= oldest]
            for task in old:
                del self._tasks[task.task_id]
        return len(old)
