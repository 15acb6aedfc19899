"""Calls at a backend: the scheduler starts them, and takes them back from whichever thread ended them."""

import logging
import queue
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from datetime import datetime

import attrs

from animaworks_tasks.backends import Backend
from animaworks_tasks.executor.resources import Resources
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.worker.runner import ResourceTakenError, run_task, vet

logger = logging.getLogger("animaworks_tasks")


@attrs.frozen
class Returned:
    """
    A call that has returned from the backend.

    Attributes:
        task_id: The task.
        task: As the call left it; None where it was not claimed, or the call was lost.
        unread: Whether it was not claimed, and its record is looked at next: nobody had read it, or it has to wait.
        error: Why the call was lost; None where it was not.
    """

    task_id: str
    task: Task | None = None
    unread: bool = False
    error: BaseException | None = None


class Calls:
    """
    The calls of one scheduler.

    Args:
        store: Where the tasks are.
        registry: What they may call.
        backend: Where calls run.
        on_return: Called each time that a call has returned, in the thread that ended it.
        resources: What the tasks need.
    """

    def __init__(
        self, store: Store, registry: Registry, backend: Backend, on_return: Callable[[], None], resources: Resources
    ) -> None:
        self._resources = resources
        self._store, self._registry, self._backend, self._on_return = store, registry, backend, on_return
        self._returns: queue.SimpleQueue[Returned] = queue.SimpleQueue()
        self._broken = False  # the backend has raised BrokenExecutor

    def start(self, task_id: str, due_by: datetime | None = None) -> bool:
        """
        Submit a task to the backend, and return whether that took it; if not, it stays pending, and the log says why.

        Args:
            task_id: The task.
            due_by: For one whose record was not read: as for :meth:`Store.claim`.

        Raises:
            BaseException: A backend that runs calls inline was interrupted: Ctrl-C.
        """
        call = self._store, self._registry, task_id
        since, machine = self._resources.times_freed(), self._resources.machine or None
        try:
            future: Future[Task | None] = self._backend.submit(run_task, *call, due_by, vet(*call), machine)
        except BrokenExecutor:
            if not self._broken:  # logged once
                logger.exception("%r is broken and takes no more calls; tasks stay pending", self._backend)
            self._broken = True
            return False
        except Exception:
            logger.exception("task %s could not be handed to %r; it stays pending", task_id, self._backend)
            return False
        future.add_done_callback(lambda done: self._report(task_id, done, since, unread=due_by is not None))
        return True

    def _report(self, task_id: str, future: Future[Task | None], since: int, *, unread: bool) -> None:
        try:
            task = future.result()
            self._returns.put(Returned(task_id, task, unread=unread and task is None))
        except ResourceTakenError as taken:
            self._resources.was_taken(taken.resource, since)
            self._returns.put(Returned(task_id, unread=True))
        except BaseException as error:  # noqa: BLE001 - the scheduler must hear of it, whatever it is
            self._returns.put(Returned(task_id, error=error))
        self._on_return()

    def have_returned(self) -> bool:
        """Return whether there is one to be taken."""
        return not self._returns.empty()

    def take(self) -> Returned:
        """Return the next that has returned; for one thread at a time, after :meth:`have_returned` has said yes."""
        return self._returns.get()
