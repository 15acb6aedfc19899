"""
Resources: what only so many tasks may use at once, in this executor and over all hosts of the user on this machine.

The executor's own limits are counted. The machine's are slots, each locked by the process that runs the task
(``fs/slots.py``): known here is only that all were taken, until the kernel reports that one became free.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Final

from animaworks_tasks.fs import files, layout, slots
from animaworks_tasks.fs.watch import Watch
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools.registry import Registry

_AGAIN: Final = (0.0, 0.01, 0.05)  # seconds; the kernel reports a close a moment before the lock is free


class Resources:
    """
    What the tasks of one executor need, and what is taken of it.

    Args:
        registry: Says what each tool needs.
        limits: How many tasks of this executor's store may use a resource at once; what is missing has no limit.

    Attributes:
        machine: The same over all hosts of the user on this machine.
    """

    def __init__(self, registry: Registry, limits: Mapping[str, int] | None = None) -> None:
        self._registry, self._limits = registry, dict(limits or {})
        self.machine: dict[str, int] = {}
        self._taken: set[str] = set()
        self._times_freed = 0
        self._mutex = threading.Lock()  # guards the two above
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def are_needed(self) -> bool:
        """Return whether any tool needs one."""
        return self._registry.has_resources()

    def of(self, task: Task) -> str | None:
        """Return what *task* needs; None for nothing."""
        return self._registry.resource(task.tool, task.argv) if self.are_needed() else None

    def full(self, used: Mapping[str, int]) -> set[str]:
        """Return the resources of which no further task may be started, while *used* tasks of each run."""
        with self._mutex:
            return self._taken | {each for each, limit in self._limits.items() if used.get(each, 0) >= limit}

    def times_freed(self) -> int:
        """Return how often slots may have become free; for :meth:`was_taken`."""
        return self._times_freed

    def was_taken(self, resource: str, since: int) -> None:
        """Start nothing more that needs *resource* until a slot becomes free, unless one did *since* the call began."""
        with self._mutex:
            if since == self._times_freed:
                self._taken.add(resource)

    def start(self, interval: float, wake: Callable[[], None]) -> None:
        """
        Call *wake* each time that a slot of this machine may have become free, until :meth:`stop`.

        Raises:
            LimitsError: The machine's limits cannot be used.
        """
        self.machine = slots.machine_limits() if self.are_needed() else {}
        if self.machine:
            files.make_directory(layout.slots())
            self._watch = Watch([layout.slots()])
            name = "animaworks_tasks-resources"
            self._thread = threading.Thread(
                target=self._run, args=(self._watch, interval, wake), name=name, daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Wake up nobody any more."""
        self._stopping.set()
        if self._watch is not None and self._thread is not None:
            self._watch.wake()
            self._thread.join()
            self._watch.close()

    def _run(self, watch: Watch, interval: float, wake: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            watch.wait(interval)
            watch.refresh()
            for pause in _AGAIN:
                self._stopping.wait(pause)
                with self._mutex:
                    self._times_freed += 1
                    waited = bool(self._taken)
                    self._taken.clear()
                if waited:
                    wake()
