"""What a manager is given to call in these tests, and how its tasks are looked at."""

from __future__ import annotations

import threading
from typing import Any

from animaworks_tasks.background import BackgroundTask, BackgroundTaskManager
from tests.processes import PATIENCE, until


def say(name: str, args: dict[str, Any]) -> str:
    return f"{name} {args}"


def shown(manager: BackgroundTaskManager, task_id: str) -> BackgroundTask:
    task = manager.get_task(task_id)
    assert task is not None
    return task


def ended(manager: BackgroundTaskManager, task_id: str) -> BackgroundTask:
    """Wait for the end of a task."""
    return until(lambda: task if (task := shown(manager, task_id)).status in {"completed", "failed"} else None)


class Gate:
    """A call that goes on when it is let."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def __call__(self, _name: str, _args: dict[str, Any]) -> str:
        self.began.set()
        assert self.may_end.wait(PATIENCE)
        return "through"
