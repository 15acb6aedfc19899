"""
What AnimaWorks' own code expects of its background tasks, over the store: the host's functions as tasks.

    manager = BackgroundTaskManager.from_profiles(anima_dir, "sakura", registry.profiles())
    manager.on_complete = on_complete                        # async
    if manager.is_eligible(name):
        task_id = manager.submit(name, arguments, execute)   # returns at once

Each call is a task like any other: one record, one lock, one outcome, one notification, seen by the same commands. Only
this process can make the call, in a thread or in its event loop. So the record is never in pending/, where another host
might claim it. If this process dies, the lock is free, and the next manager or executor on the directory finishes the
task as interrupted, with its notification.

Any number of managers and executors may share a directory: a task of another one is recognised as alive by its lock.
"""

import asyncio
import inspect
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Final, Self

from animaworks_tasks.animaworks import background_task, in_process
from animaworks_tasks.animaworks.background_task import BackgroundTask, Leftovers, TaskStatus, ToolArguments
from animaworks_tasks.animaworks.eligible import DEFAULT_ELIGIBLE_TOOLS, eligible_tools
from animaworks_tasks.animaworks.in_process import InProcessCall, SubmittedId
from animaworks_tasks.errors import RecordError, TaskNotFoundError
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.protocol import Claim, Store
from animaworks_tasks.store.rules import never_began, utc_now
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.task.states import Event
from animaworks_tasks.worker.runner import give_up, run_owned

logger = logging.getLogger("animaworks_tasks")

_RETENTION: Final = 60  # minutes for which what has ended stays in memory
_KEPT: Final = 200  # how many that have ended stay in memory

Loop = asyncio.AbstractEventLoop | None  # in which a call was submitted; None where none ran
Execute = Callable[[str, ToolArguments], object]
ExecuteAsync = Callable[[str, ToolArguments], Awaitable[object]]
OnComplete = Callable[[BackgroundTask], Awaitable[None]]


def _configured(key: str, default: int) -> int:
    """Return *key* of AnimaWorks' section ``background_task``; *default* where this process has not loaded it."""
    # Not imported: where nobody has, `core` may be anybody's, also a directory that lies in the current one.
    module = sys.modules.get("core.config")
    if module is None:
        return default
    try:
        return int(getattr(module.load_config().background_task, key))
    except Exception:  # the host must start, whatever its configuration is
        logger.warning("background_task.%s could not be read: it is %d", key, default, exc_info=True)
        return default


class BackgroundTaskManager:
    """
    Makes slow calls of the host's functions in the background.

    The original kept its tasks in the event loop and wrote each to a file; after a restart they stayed "running" for
    ever. Here they are tasks of the Anima's store. The host need not write the notification: it is published before
    *on_complete* is called, and does not depend on it.

    Args:
        anima_dir: The Anima's directory; created if it does not exist.
        anima_name: Its name. Defaults to the last component of the directory.
        eligible_tools: The tools to submit, with the seconds that they take. Defaults to
            :data:`DEFAULT_ELIGIBLE_TOOLS`.
        result_memory_retention_minutes: How long a task that has ended is kept in memory; 0 keeps none. On disk it
            stays until :meth:`cleanup_old_tasks`. Defaults to the value of this name in the configuration of AnimaWorks
            (section ``background_task``), if this process has imported ``core.config``, or else to 60.
        max_completed_tasks_in_memory: How many such are kept in memory. Its default is found likewise, or else is 200.
        store: Where the tasks are kept. Defaults to a :class:`TaskStore` in *anima_dir*. Pass the one of your
            :class:`Executor`, so that the notifications of both are in one language.

    Attributes:
        on_complete: Called once with each task of this manager that has ended. It is async, and runs in the event loop
            that submitted the call, if that still runs; else in the last one that submitted a call, or else in one of
            its own. An exception is logged, and has no other effect.

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
        self._recent: dict[str, BackgroundTask] = {}  # those that run, and for a while those that have ended
        minutes, limit = result_memory_retention_minutes, max_completed_tasks_in_memory
        minutes = _configured("result_memory_retention_minutes", _RETENTION) if minutes is None else minutes
        limit = _configured("max_completed_tasks_in_memory", _KEPT) if limit is None else limit
        self._retention, self._limit = 60.0 * max(0, minutes), max(0, limit)
        self._store = TaskStore(anima_dir) if store is None else store
        self._leftovers = Leftovers(self._store.layout if isinstance(self._store, TaskStore) else Layout(anima_dir))
        self._loop = in_process.running_loop()
        in_process.start(self._recover, name="recovery")

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
        Return a manager whose eligible tools are the defaults, those of the profiles, and those of the configuration.

        Which of these names a tool last says its seconds.

        Args:
            anima_dir: As for the class.
            anima_name: As for the class.
            profiles: EXECUTION_PROFILE by tool (:meth:`Registry.profiles` has them). A tool without a number takes 60
                seconds; one that is not a mapping is ignored.
            config_eligible: Seconds by name, ``image_gen:3d`` or ``generate_3d_model``.
            store: As for the class.

        Raises:
            StoreError: As for the class.
        """
        return cls(anima_dir, anima_name, eligible_tools(profiles or {}, config_eligible or {}), store=store)

    def is_eligible(self, tool_name: str) -> bool:
        """Return whether to submit a tool, by either of its names: ``generate_3d_model``, ``image_gen:3d``."""
        return tool_name in self._eligible

    def expected_seconds(self, tool_name: str) -> int | None:
        """Return how long a tool takes; None if it is not eligible. The original has no such method."""
        return self._eligible.get(tool_name)

    # Submitting.

    def submit(self, tool_name: str, tool_args: ToolArguments, execute_fn: Execute) -> str:
        """
        Call ``execute_fn(tool_name, tool_args)`` soon in a thread, with exactly these two; return at once.

        Unlike the original, it needs no event loop, and may be called from any thread. What the function prints goes to
        the task's log, what it returns is kept as text, what it raises is its error. It cannot be killed: after a
        cancellation request (``animaworks-tool cancel``) it is recorded as cancelled when it returns.

        Args:
            tool_name: Any name; it need not be eligible.
            tool_args: The record keeps them as JSON, and of more than 512 KiB only the beginning.
            execute_fn: Sync. A coroutine that it returns is run in an event loop of its own.

        Returns:
            The task's id. The task is running and recorded: if this process dies now, it ends as interrupted. In a
            thread without an event loop, this is also true after a power cut. With one, it is as soon as the function
            is called, so that the event loop does not wait for an fsync.

        Raises:
            ValueError: *tool_name* is empty.
            RecordError: *tool_name* cannot be stored.
            OSError: The record could not be written, or too many files are open: each running task holds one.
        """
        return self._submit(tool_name, tool_args, lambda: execute_fn(tool_name, tool_args), None)

    def submit_async(self, tool_name: str, tool_args: ToolArguments, execute_fn: ExecuteAsync) -> SubmittedId:
        """
        Do as :meth:`submit` with an async function, which runs in the event loop that calls this.

        In a thread without an event loop, it runs in one of its own. A cancellation request cancels its asyncio task.
        If its loop is closed before it ends, it is interrupted.

        Returns:
            The id. Awaiting it, as the original needs, returns it once the record survives a power cut.

        Raises:
            ValueError: As :meth:`submit`; so are the other errors.
        """

        async def call() -> object:
            return await execute_fn(tool_name, tool_args)

        return self._submit(tool_name, tool_args, call, in_process.running_loop())

    def _submit(self, name: str, arguments: ToolArguments, execute: Callable[[], object], loop: Loop) -> SubmittedId:
        self.evict_completed_tasks()
        here = in_process.running_loop()
        self._loop = here or self._loop
        seconds = self._eligible.get(name)
        expected = None if seconds is None else max(0, seconds)
        task = in_process.new(name, arguments, expected, anima=self._anima_name, location=self._store.location)
        claim = self._store.begin(task, durably=here is None)
        shown = self._recent[task.id] = background_task.of(claim.task, arguments, self._store)
        task_id, call = SubmittedId(task.id), InProcessCall(execute, loop)
        in_process.start(lambda: self._run(claim, shown, call, task_id.kept, here), name=task_id)
        return task_id

    # In the thread of a call.

    def _run(self, claim: Claim, shown: BackgroundTask, call: InProcessCall, kept: Future[None], loop: Loop) -> None:
        try:
            background_task.end(shown, self._call(claim, call, kept), self._store)
        except Exception as error:  # most likely an OSError that lasted for minutes
            logger.exception("the outcome of task %s could not be stored; it will end as interrupted", shown.task_id)
            give_up(claim)
            shown.error, shown.completed_at = f"its outcome could not be stored: {error}", time.time()
            shown.status = TaskStatus.FAILED
        self._call_back(shown, loop)
        self.evict_completed_tasks()

    def _call(self, claim: Claim, call: InProcessCall, kept: Future[None]) -> Task:
        try:
            self._store.secure(claim)
        except OSError as error:
            kept.set_exception(error)
            problem = f"it was not called: its record could not be kept: {error}"
            changes = never_began(claim.task) | {"cause": Cause.REJECTED, "error": problem}
            return self._store.finish(claim, Event.FAIL, **changes)
        kept.set_result(None)
        if self._store.workspace(claim.task.id).cancel_requested():
            return self._store.finish(claim, Event.CANCEL, **never_began(claim.task))
        return run_owned(self._store, claim, call.tool(), call.invoke)

    def _call_back(self, task: BackgroundTask, loop: Loop) -> None:
        callback = self.on_complete
        if callback is None:
            return

        async def call() -> None:
            try:
                answer: object = callback(task)
                if inspect.isawaitable(answer):  # or else a sync function, which the original does not know
                    await answer
            except Exception:
                logger.exception("on_complete callback %r failed for task %s", callback, task.task_id)

        for each in (loop, self._loop):
            if each is not None and each.is_running() and in_process.begin(call(), each) is not None:
                return
        asyncio.run(call())

    # Looking.

    def get_task(self, task_id: str) -> BackgroundTask | None:
        """
        Return any task of this Anima; None if there is none, or its record is unreadable.

        Those of this manager come from memory, the others from the disk: also those of earlier processes, of a shell,
        and those that the original left in ``background_tasks/<id>.json``.
        """
        shown = self._recent.get(task_id)
        if shown is not None:
            return shown
        try:
            return self.as_background_task(self._store.get(task_id))
        except TaskNotFoundError:
            return self._leftovers.get(task_id)
        except (RecordError, OSError) as error:
            logger.warning("task %s cannot be read: %s", task_id, error)
            return None

    def as_background_task(self, task: Task) -> BackgroundTask:
        """
        Return *task*, of the same store, as AnimaWorks' own code expects it: a snapshot. New here.

        For ``Executor(on_finish=...)``, which is given each task of the store when it has ended. At that moment
        :meth:`get_task` may still show a call of this manager as running. It may read a file, so call it off the event
        loop.
        """
        return background_task.of(task, in_process.arguments_of(task), self._store)

    def list_tasks(self, status: TaskStatus | None = None) -> list[BackgroundTask]:
        """
        Return all tasks of this Anima, those submitted last first; see :meth:`get_task`.

        It reads every record: if there are thousands, call it off the event loop.

        Args:
            status: Only these; None for all.
        """
        found = {task.id: self.as_background_task(task) for task in self._store.list()}
        left = map(self._leftovers.get, self._leftovers.ids() - found.keys())
        found |= {task.task_id: task for task in left if task is not None} | self._recent
        chosen = [task for task in found.values() if status is None or task.status == status]
        return sorted(chosen, key=lambda task: task.created_at, reverse=True)

    def active_count(self) -> int:
        """Return how many calls of this manager run."""
        return sum(task.status is TaskStatus.RUNNING for task in list(self._recent.values()))

    # Forgetting.

    def evict_completed_tasks(self, *, now: float | None = None) -> int:
        """
        Forget in memory the tasks that ended too long ago or are too many. Every submit does it; the disk is unchanged.

        Args:
            now: Unix seconds. Defaults to the current time.

        Returns:
            How many were forgotten.
        """
        oldest = (time.time() if now is None else now) - self._retention
        ended = [
            task for task in list(self._recent.values()) if task.status in {TaskStatus.COMPLETED, TaskStatus.FAILED}
        ]
        ended.sort(key=lambda task: task.completed_at or 0.0)
        too_many = len(ended) - self._limit
        old = [task for n, task in enumerate(ended) if n < too_many or (task.completed_at or 0.0) <= oldest]
        return sum(self._recent.pop(task.task_id, None) is not None for task in old)

    def cleanup_old_tasks(self, max_age_hours: float = 24) -> int:
        """
        Remove tasks that ended long ago, also on disk: record, log and results.

        Unlike in the original, a task whose notification was not acknowledged stays, and a running task is never
        removed for its age. It reads and writes files: call it off the event loop.

        Args:
            max_age_hours: How long ago, in hours; 0 is all that have ended.

        Returns:
            How many were removed.

        Raises:
            OSError: A file could not be removed; some tasks may be.
        """
        before = utc_now() - timedelta(hours=max_age_hours)
        gone = {*self._store.prune(finished_before=before), *self._remove_leftovers(before.timestamp())}
        for task_id in gone:
            self._recent.pop(task_id, None)
        return len(gone)

    def _remove_leftovers(self, before: float) -> Iterator[str]:
        for task_id in self._leftovers.ids():
            try:
                self._store.get(task_id)
            except TaskNotFoundError:
                if self._leftovers.remove(task_id, before=before):
                    yield task_id
            except RecordError:
                pass  # the view of a task whose record is unreadable

    # Recovering.

    def _recover(self) -> None:
        try:
            # Not those of registered tools: an executor knows which of them may run again.
            self._store.recover(concerns=lambda task: task.is_in_process)
        except Exception:  # the host must start; the next manager or an executor tries again
            logger.exception("the tasks of earlier processes in %s could not be recovered", self._store.location)
