"""A host whose tools run in processes, and what a test asks of it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from animaworks_tasks import Executor, Outcome, ProcessBackend, Task, TaskStore
from tests.processes import PATIENCE, until
from tests.tools_for_tests import registry

ROOT = Path(__file__).parents[2]


class Host:
    """A running executor, and what a test asks of it."""

    def __init__(self, anima_dir: Path, *, store: TaskStore | None = None, **options: Any) -> None:  # noqa: ANN401 - those of Executor
        self.store = store or TaskStore(anima_dir, language="en", durability="process")
        self.ended: list[str] = []
        merged: dict[str, Any] = {"backend": ProcessBackend(), "max_workers": 1, "scan_interval": 0.05} | options
        on_finish = lambda task: self.ended.append(task.id)  # noqa: E731 - bound to this host
        self.executor = Executor(self.store, registry, on_finish=on_finish, **merged).start()

    def run(self, subcommand: str, *words: object, tool: str = "proc", **options: Any) -> Task:  # noqa: ANN401 - as above
        """Run a tool to its end."""
        return self.wait(self.submit(subcommand, *words, tool=tool, **options))

    def submit(self, subcommand: str, *words: object, tool: str = "proc", **options: Any) -> str:  # noqa: ANN401 - as above
        return self.executor.submit_sync(tool, subcommand, *map(str, words), **options).id

    def wait(self, task_id: str) -> Task:
        return self.executor.wait_sync(task_id, timeout=PATIENCE)

    def result(self, subcommand: str, *words: object) -> Any:  # noqa: ANN401 - JSON is anything
        """Run a tool that succeeds; return what it returned."""
        task = self.run(subcommand, *words)
        assert Outcome.COMPLETED is task.outcome, task.error
        return json.loads(task.result or "null")

    def reported(self, task_id: str) -> int:
        """Return how often the end of a task was reported, once all ends are."""
        self.executor.run_until_idle_sync(timeout=PATIENCE)
        return self.ended.count(task_id)

    def log(self, task_id: str) -> str:
        return self.store.read_log(task_id).decode()


def in_an_hour() -> datetime:
    """Tell the time at which every pause before a retry is over."""
    return datetime.now(UTC) + timedelta(hours=1)


def supervisor_of(host: Host, task_id: str) -> int:
    """Return the process that holds a task's lock, once its tool is running."""
    until(lambda: host.log(task_id))
    return host.store.get(task_id).owner_pid or 0


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
