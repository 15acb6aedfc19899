"""
What AnimaWorks' own code expects of its background tasks, over the store: the host's functions as tasks.

    manager = BackgroundTaskManager.from_profiles(anima_dir, "sakura", registry.profiles())
    manager.on_complete = told                               # async
    if manager.is_eligible(name):
        task_id = manager.submit(name, arguments, execute)   # returns at once

Each call is a task like any other: one record, one lock, one outcome, one notification, seen by the same commands. Only
who makes the call is settled from the start: this process, in a thread or in its event loop. So the record never waits
in pending/, where another host might take it; and if this process dies, the lock is free, and the next manager or
executor on the directory ends the task as interrupted, and tells.

Any number of managers and executors may share a directory: a task of another one is recognised as alive by its lock.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Final, Self

import attrs

from animaworks_tasks.animaworks.background_task import (
    BackgroundTask,
    Leftovers,
    TaskStatus,
    ToolArguments,
    as_background_task,
    end,
)
from animaworks_tasks.animaworks.eligible import DEFAULT_ELIGIBLE_TOOLS, eligible_tools
from animaworks_tasks.animaworks.in_process import (
    InProcessCall,
    SubmittedId,
    arguments_of,
    begin,
    in_process_task,
    is_in_process,
    running_loop,
    start,
)
from animaworks_tasks.animaworks.recent import RecentTasks
from animaworks_tasks.errors import RecordError, TaskNotFoundError
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.protocol import Claim, Store, never_began, utc_now
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.task.states import Event
from animaworks_tasks.worker.runner import give_up, run_owned

logger = logging.getLogger("animaworks_tasks")

_RETENTION: Final = 60  # minutes for which what has ended stays in memory
_KEPT: Final = 200  # how many that have ended stay in memory

Execute = Callable[[str, ToolArguments], object]
ExecuteAsync = Callable[[str, ToolArguments], Awaitable[object]]
OnComplete = Callable[[BackgroundTask], Awaitable[None]]


class BackgroundTaskManager:
    """
    Makes slow calls of the host's functions in the background.

    The original kept its tasks in the event loop and wrote them to a file each; a restart left them "running" for ever,
    and nobody was told. Here they are tasks of the Anima's store. The host need not write the notification: it is
    there before *on_complete* is called, and does not depend on it.

    Args:
        anima_dir: The Anima's directory; made if it is not there.
        anima_name: Its name; empty takes the last component of the directory.
        eligible_tools: Which tools are to be submitted, and how many seconds they take; None or empty takes
            :data:`DEFAULT_ELIGIBLE_TOOLS`.
        result_memory_retention_minutes: How long a task that has ended is kept in memory; None is 60. On disk it stays
            until :meth:`cleanup_old_tasks`.
        max_completed_tasks_in_memory: How many such are kept in memory; None is 200.
        store: Where the tasks go; None is a :class:`TaskStore` in *anima_dir*. Give it the one of your
            :class:`Executor`, so that the notices of both are in one language.

    Attributes:
        on_complete: Called with each task of this manager that has ended, once, however it ended. It is async, and runs
            in the event loop that submitted the call, if that still runs; else in the last that submitted anything, or
            else in one of its own. What it raises is logged, and nothing more.

    Raises:
        StoreError: The directory cannot hold a store.
    """

    def __init__(
        self,
        anima_dir: str | os.PathLike[str],
        anima_name: str = "",
        eligible_tools: Mapping[str, int] | None = None,
        result_memory_retention_minutes: int | None = None,
        max_completed_tasks_in_memory: int | None = None,
        *,
        store: Store | None = None,
    ) -> None:
        self.on_complete: OnComplete | None = None
        self._anima_name = anima_name or os.path.basename(os.path.abspath(anima_dir))
        self._eligible = dict(eligible_tools or DEFAULT_ELIGIBLE_TOOLS)
        self._recent = RecentTasks(
            retention=60.0 * max(0, _or(result_memory_retention_minutes, _RETENTION)),
            limit=max(0, _or(max_completed_tasks_in_memory, _KEPT)),
        )
        self._store = TaskStore(anima_dir) if store is None else store
        self._leftovers = Leftovers(self._store.layout) if isinstance(self._store, TaskStore) else None
        self._loop = running_loop()
        start(self._recover, name="recovery")

    @classmethod
    def from_profiles(
        cls,
        anima_dir: str | os.PathLike[str],
        anima_name: str = "",
        profiles: Mapping[str, Mapping[str, Mapping[str, object]]] | None = None,
        config_eligible: Mapping[str, int] | None = None,
        *,
        store: Store | None = None,
    ) -> Self:
        """
        Return a manager that knows which tools take long.

        The built-in defaults are overridden by the profiles, and those by the configuration. As in the original, except
        that a profile may also say of a built-in one that it does not take long.

        Args:
            anima_dir: As for the class.
            anima_name: As for the class.
            profiles: EXECUTION_PROFILE by tool (:meth:`Registry.profiles` has them). A tool without a number takes 60
                seconds; one that is no mapping is passed over.
            config_eligible: Seconds by name, ``image_gen:3d`` or ``generate_3d_model``.
            store: As for the class.

        Raises:
            StoreError: As for the class.
        """
        return cls(anima_dir, anima_name, eligible_tools(profiles or {}, config_eligible or {}), store=store)

    def is_eligible(self, tool_name: str) -> bool:
        """Say whether a tool is to be submitted, by either of its names: ``generate_3d_model``, ``image_gen:3d``."""
        return tool_name in self._eligible

    def expected_seconds(self, tool_name: str) -> int | None:
        """Return how long a tool takes; None if it is not to be submitted. The original has no such question."""
        return self._eligible.get(tool_name)

    # Submitting.

    def submit(self, tool_name: str, tool_args: ToolArguments, execute_fn: Execute) -> str:
        """
        Call ``execute_fn(tool_name, tool_args)`` in a thread, soon, with exactly these two; return at once.

        The original needs a running event loop; this one does not care, and may be called from any thread. What the
        function prints goes to the task's log, what it returns is kept as text, what it raises is its error. It cannot
        be killed: asked to stop (``animaworks-tool cancel``), it is recorded as cancelled when it comes back.

        Args:
            tool_name: Any name; it need not be eligible.
            tool_args: The record keeps what JSON can say of them, and of more than 512 KiB only the beginning.
            execute_fn: Sync. A coroutine that it returns is run to its end, in an event loop of its own.

        Returns:
            The task's id. The task is running, and recorded: if this process dies now, it ends as interrupted. Called
            from a thread without an event loop, it returns when that holds for a power cut too; an event loop is not
            held up for the disk, so there it holds as soon as the function is called.

        Raises:
            ValueError: *tool_name* is empty.
            RecordError: *tool_name* is no text that can be stored.
            OSError: The disk said no, or there are too many open files: each task that runs holds one.
        """
        return self._submit(tool_name, tool_args, lambda: execute_fn(tool_name, tool_args), None)

    def submit_async(self, tool_name: str, tool_args: ToolArguments, execute_fn: ExecuteAsync) -> SubmittedId:
        """
        Do as :meth:`submit` with a function that is async: it runs in the event loop from which this is called.

        Called from a thread without an event loop, it runs in one of its own. Asked to stop, it is cancelled as asyncio
        does it; if its loop is closed before it ends, it was interrupted.

        Returns:
            The id; awaited (the original is a coroutine), the same, once the record would survive a power cut.

        Raises:
            ValueError: As :meth:`submit`, and so are the others.
        """

        async def call() -> object:
            return await execute_fn(tool_name, tool_args)

        return self._submit(tool_name, tool_args, call, running_loop())

    def _submit(
        self, name: str, arguments: ToolArguments, execute: Callable[[], object], loop: asyncio.AbstractEventLoop | None
    ) -> SubmittedId:
        self.evict_completed_tasks()
        here = running_loop()
        self._loop = here or self._loop
        claim = self._store.begin(self._new(name, arguments), durably=here is None)
        shown = as_background_task(claim.task, arguments, self._store)
        self._recent.add(shown)
        task_id = SubmittedId(shown.task_id)
        task_id.kept = Future()
        start(lambda: self._run(claim, shown, InProcessCall(execute, loop), task_id.kept, here), name=shown.task_id)
        return task_id

    def _new(self, name: str, arguments: ToolArguments) -> Task:
        if not name:
            raise ValueError("a task needs the name of a tool")
        seconds = self._eligible.get(name)
        task = in_process_task(
            name,
            arguments,
            expected_seconds=None if seconds is None else max(0, seconds),
            location=self._store.location,
        )
        return attrs.evolve(task, anima_name=self._anima_name)

    # In the thread of a call.

    def _run(
        self,
        claim: Claim,
        shown: BackgroundTask,
        call: InProcessCall,
        kept: Future[None],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        try:
            done = self._call(claim, call, kept)
        except Exception as error:  # a disk that says no, most likely, and has done so for minutes
            logger.exception("the outcome of task %s could not be stored; it will end as interrupted", shown.task_id)
            give_up(claim)
            shown.error, shown.completed_at = f"its outcome could not be stored: {error}", time.time()
            shown.status = TaskStatus.FAILED
        else:
            end(shown, done, self._store)
        self._tell(shown, loop)
        self.evict_completed_tasks()

    def _call(self, claim: Claim, call: InProcessCall, kept: Future[None]) -> Task:
        try:
            self._store.secure(claim)
        except OSError as error:
            kept.set_exception(error)
            told = f"it was not called: its record could not be kept: {error}"
            return self._store.finish(claim, Event.FAIL, **(never_began(claim.task) | _failure(told)))
        kept.set_result(None)
        if self._store.workspace(claim.task.id).cancel_requested():
            return self._store.finish(claim, Event.CANCEL, **never_began(claim.task))
        return run_owned(self._store, claim, call.tool(), call.invoke)

    def _tell(self, task: BackgroundTask, loop: asyncio.AbstractEventLoop | None) -> None:
        callback = self.on_complete
        if callback is None:
            return

        async def tell() -> None:
            try:
                answer: object = callback(task)
                if inspect.isawaitable(answer):  # a plain function is none of the original's, and harmless
                    await answer
            except Exception:
                logger.exception("on_complete callback %r failed for task %s", callback, task.task_id)

        for each in (loop, self._loop):
            if each is not None and each.is_running() and begin(tell(), each) is not None:
                return
        asyncio.run(tell())

    # Looking.

    def get_task(self, task_id: str) -> BackgroundTask | None:
        """
        Return a task of this Anima, whoever submitted it; None if there is none, or its record cannot be read.

        This manager's own come from memory, the others from the disk: also those of earlier processes, of a shell, and
        what the original left in ``background_tasks/<id>.json``.
        """
        shown = self._recent.get(task_id)
        if shown is not None:
            return shown
        try:
            return self._shown(self._store.get(task_id))
        except TaskNotFoundError:
            return None if self._leftovers is None else self._leftovers.get(task_id)
        except (RecordError, OSError) as error:
            logger.warning("task %s cannot be read: %s", task_id, error)
            return None

    def list_tasks(self, status: TaskStatus | None = None) -> list[BackgroundTask]:
        """
        Return all tasks of this Anima, the newest first by when they were submitted; see :meth:`get_task`.

        It reads every record: where thousands are kept, call it off the event loop.

        Args:
            status: Only these; None for all.
        """
        found = {task.id: self._shown(task) for task in self._store.list()}
        if self._leftovers is not None:
            for task_id in self._leftovers.ids() - found.keys():
                left = self._leftovers.get(task_id)
                found |= {} if left is None else {task_id: left}
        found |= self._recent.all()
        chosen = [task for task in found.values() if status is None or task.status == status]
        return sorted(chosen, key=lambda task: task.created_at, reverse=True)

    def active_count(self) -> int:
        """Return how many calls of this manager run."""
        return sum(task.status is TaskStatus.RUNNING for task in self._recent.all().values())

    # Forgetting.

    def evict_completed_tasks(self, *, now: float | None = None) -> int:
        """
        Forget in memory what has ended, if it is too old or too many; nothing on disk changes. Every submit does it.

        Args:
            now: Unix seconds; None is the clock's.

        Returns:
            How many were forgotten.
        """
        return self._recent.evict(time.time() if now is None else now)

    def cleanup_old_tasks(self, max_age_hours: float = 24) -> int:
        """
        Forget, on disk too, tasks that ended long ago: record, log and results.

        Unlike the original's, a task stays whose notification nobody has read; and one that runs is never taken for a
        corpse by its age: whether its process lives is known. It waits for the disk: call it off the event loop.

        Args:
            max_age_hours: How long ago, in hours; 0 takes all that have ended.

        Returns:
            How many were forgotten.

        Raises:
            OSError: The disk said no; some may have been forgotten.
        """
        before = utc_now() - timedelta(hours=max_age_hours)
        gone = {*self._store.prune(finished_before=before), *self._remove_leftovers(before.timestamp())}
        self._recent.forget(gone)
        return len(gone)

    def _remove_leftovers(self, before: float) -> Iterator[str]:
        for task_id in set() if self._leftovers is None else self._leftovers.ids():
            try:
                self._store.get(task_id)
            except TaskNotFoundError:
                if self._leftovers is not None and self._leftovers.remove(task_id, before=before):
                    yield task_id
            except RecordError:
                pass  # it is the view of a task of ours, whose record can at present not be read

    # What lies on the disk.

    def _recover(self) -> None:
        try:
            # Those of registered tools are their executor's: it knows which of them may run again.
            self._store.recover(concerns=is_in_process)
        except Exception:  # nothing may keep a host from starting; the next manager, or an executor, tries again
            logger.exception("what an earlier process left in %s could not be looked at", self._store.location)

    def _shown(self, task: Task) -> BackgroundTask:
        return as_background_task(task, arguments_of(task), self._store)


def _failure(error: str) -> dict[str, Any]:
    return {"cause": Cause.REJECTED, "error": error}


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
