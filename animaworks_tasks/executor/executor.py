"""
The executor: lives in the host, runs the tasks of a store, and never blocks the host's event loop.

One daemon thread runs the scheduler (see ``scheduler.py``); a few more threads read and write the store. The host's
event loop only awaits their futures. So the same code serves a host with an event loop and one without.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from concurrent.futures import Future
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from animaworks_tasks.errors import ExecutorClosedError
from animaworks_tasks.executor.blocking import (
    BUSY,
    CALLBACKS_RUN,
    NOT_DONE,
    BlockingExecutor,
    Watched,
    stop_watching,
    watch_many,
)
from animaworks_tasks.executor.checks import check_guarded
from animaworks_tasks.executor.events import EVER, Reader, Stream, TaskEvent
from animaworks_tasks.executor.scheduler import Scheduler
from animaworks_tasks.executor.waiting import Deadline
from animaworks_tasks.notifications.inbox import Drained
from animaworks_tasks.store.protocol import Progress
from animaworks_tasks.task.model import State, Task

R = TypeVar("R")
T = TypeVar("T")


class Executor(BlockingExecutor):
    """
    Runs the tasks of one store.

    Use it as ``async with Executor(store, registry) as executor: ...``; a host without an event loop says ``with``, or
    calls :meth:`start` and :meth:`stop`. Any number of executors, in any number of processes, may share a store.

    Args:
        store: Where the tasks are.
        registry: What they may call.
        backend: Where calls run; any futures executor is one. Defaults to a :class:`ProcessBackend`. It is shut down
            with the executor.
        max_workers: How many tasks of the store run at once, including those of its other hosts, without calls of
            ``animaworks_tasks.background``. Defaults to the number of processors, at most 4.
        limits: How many tasks of the store may use a resource at once, ``{"gpu": 1}``; others have no limit here.
        on_finish: Called once with each task that this executor ran, or saw pending or running, after its end; sync (in
            a thread) or async (in the host's event loop), in no particular order. An exception is logged, and has no
            other effect.
        scan_interval: Seconds between two full looks at the store, for changes that are not watched.
        drain_timeout: Seconds for which a stop waits for running tasks. Defaults to 0 for a ProcessBackend, whose tasks
            go on and finish by themselves, and to 10 for others, whose tasks are interrupted when the process ends.
        keep_done: How many done tasks the store keeps: older ones are pruned, but never what nobody has read. None sets
            no limit.
        keep_days: For how many days it keeps a done task, likewise. Whichever limit comes first counts.
        clock: Returns the time in UTC.

    Raises:
        ValueError: *max_workers* or one of *limits* is less than 1, *scan_interval* is not more than 0, or a number to
            keep is negative.
    """

    async def __aenter__(self) -> Self:
        check_guarded()  # here, in the thread that would be loading the tools
        self._callbacks.loop = asyncio.get_running_loop()
        starting = self._in_thread(self.start)
        try:
            await asyncio.wrap_future(starting)
        except asyncio.CancelledError:  # the thread may start it all the same
            starting.add_done_callback(self._give_up)
            raise
        return self

    def _give_up(self, started: Future[Self]) -> None:
        if not started.cancelled() and started.exception() is None:
            self.stop(drain_timeout=0)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(ExecutorClosedError):  # it was stopped before
            await self._off_loop(self.stop)

    async def wait(  # the timeout is of the waiting: asyncio.timeout() around it could not look once
        self,
        task_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as said
    ) -> Task:
        """
        Wait until *task_id* is DONE and return it, however it ended.

        A tool that failed does not raise here: look at :attr:`Task.outcome`.

        Args:
            task_id: As returned by :meth:`submit`, of this host or of any other process.
            timeout: Seconds to wait. None waits for ever, 0 looks once.

        Raises:
            TaskNotFoundError: The store has no such task; it may have been pruned.
            TimeoutError: It is not DONE yet. It goes on running.
            ExecutorClosedError: The executor was stopped. The task goes on, or waits for the next one.
        """
        return (await self.wait_many([task_id], timeout=timeout))[0]

    async def wait_many(
        self,
        tasks: Iterable[Task[R] | str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as wait
    ) -> Sequence[Task[R]]:
        """
        Wait until all of *tasks*, or tasks with these ids, are DONE; return them in this order, however they ended.

        Raises:
            TaskNotFoundError: As :meth:`wait`, of any of them.
            TimeoutError: After *timeout* seconds one is not DONE yet. All go on.
            ExecutorClosedError: As :meth:`wait`.
        """
        scheduler, deadline, given = self._running_scheduler(), Deadline(timeout), list(tasks)
        watching = self._in_thread(lambda: watch_many(scheduler, given))
        try:
            done = []
            for task_id, future in await asyncio.wrap_future(watching):
                looks = deadline.left() == 0 and future.done()
                problem = NOT_DONE.format(task_id, timeout)
                done.append(future.result() if looks else await self._awaited(future, deadline.left(), problem))
            return done
        finally:  # after a cancellation the thread may return its futures later
            watching.add_done_callback(lambda done: _stop_watching(scheduler, done))

    @overload
    async def result(self, task: Task[R], *, timeout: float | None = ...) -> R: ...  # noqa: ASYNC109 - as wait
    @overload
    async def result(self, task: str, *, timeout: float | None = ...) -> Any: ...  # noqa: ANN401, ASYNC109 - as below
    async def result(
        self,
        task: Task[Any] | str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as wait
    ) -> Any:
        """
        Wait for a task, and return what its function returned, as its annotation says.

        These come back as they were, alone and in each other: text, numbers, bools, None, Literal, enums, Path,
        datetime, dataclasses, attrs classes, NamedTuple, TypedDict, lists, tuples, sets, dicts, and unions whose
        members are written differently. Of a function without an annotation, and of a tool that prints, it is the text.

        Args:
            task: From :meth:`submit`; or its id, of which a type checker knows nothing.
            timeout: Seconds to wait, as for :meth:`wait`.

        Raises:
            TaskFailedError: The task failed or was cancelled; it says why, and what can be done.
            ResultTypeError: It returned something else than its annotation says, or what cannot come back; the text is
                kept, and the message says where.
            TaskNotFoundError, TimeoutError, ExecutorClosedError: As :meth:`wait`.
        """
        done = (await self.wait_many([task], timeout=timeout))[0]
        return await self._off_loop(lambda: self._value(done))

    async def get(self, task_id: str) -> Task:
        """
        Return the task as it is now.

        Raises:
            TaskNotFoundError: The store has no such task; it may have been pruned.
            RecordError: It has, and the record cannot be read.
        """
        return await self._off_loop(lambda: self.store.get(task_id))

    async def list(self, state: State | None = None, *, limit: int | None = None) -> Sequence[Task]:
        """
        Return tasks of the store, the last changed first.

        Args:
            state: Only these; None for all.
            limit: At most so many; None for all.
        """
        return await self._off_loop(lambda: self.store.list(state, limit=limit))

    async def progress(self, task_id: str) -> Progress | None:
        """Return the last progress report of a task; None where there is none."""
        return await self._off_loop(lambda: self.store.read_progress(task_id))

    def events(self, task_id: str | None = None) -> AsyncGenerator[TaskEvent]:
        """
        Return what happens to the tasks of the store from now on, whichever process does it, for ``async for``.

        It ends when the executor stops. "Now" is what the executor's clock says, which must be the store's. A reader
        that is 1000 events behind loses reports of progress first, then the oldest events; what happens to more than
        100 tasks before its first step may be lost too.

        Args:
            task_id: Only what happens to this task, from its submit on; ends with its NOTIFIED. None for all tasks.

        Raises:
            TaskNotFoundError: In the first step: the store has no such task.
            ExecutorClosedError: The executor is not running.
        """
        self._running_scheduler()
        return self._events(task_id, self.clock() if task_id is None else EVER)

    async def _events(self, task_id: str | None, since: datetime) -> AsyncGenerator[TaskEvent]:
        if task_id is not None:
            await self.get(task_id)
        stream = Stream()
        reader = Reader(stream.put, since, task_id)
        self._feed.add(reader)
        try:
            async for event in stream:
                yield event
        finally:
            self._feed.remove(reader)

    async def cancel(self, task_id: str) -> Task:
        """
        Request the cancellation of a task: a pending one ends at once, a running one is stopped, a done one unchanged.

        Returns:
            The task as it is after the request; :meth:`wait` for its end.

        Raises:
            TaskNotFoundError: The store has no such task.
        """
        return await self._off_loop(lambda: self.cancel_sync(task_id))

    async def run_until_idle(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as wait
        """
        Wait until no task of the store runs or is due and no callback runs.

        Raises:
            TimeoutError: It took longer than *timeout* seconds. Everything goes on.
        """
        deadline = Deadline(timeout)
        while True:
            last = self._callbacks.last
            await self._awaited(self._running_scheduler().watch_idle(), deadline.left(), BUSY.format(timeout))
            callbacks = [asyncio.wrap_future(future) for future in self._callbacks.running()]
            if callbacks and (await asyncio.wait(callbacks, timeout=deadline.left()))[1]:
                raise TimeoutError(CALLBACKS_RUN)
            if last is self._callbacks.last:  # or else a callback may have submitted more
                return

    @contextlib.asynccontextmanager
    async def drain_notifications(self, budget: int | None = None) -> AsyncIterator[Drained]:
        """Do as :meth:`Notifications.drain`, with all file operations off the event loop."""
        drain = self.store.notifications.drain(budget)
        async with contextlib.AsyncExitStack() as stack:
            drained = await self._off_loop(drain.__enter__)
            stack.push_async_exit(lambda *error: self._off_loop(lambda: drain.__exit__(*error)))
            yield drained

    async def _awaited(self, future: Future[T], timeout: float | None, problem: str) -> T:  # noqa: ASYNC109 - as wait
        """Do as :meth:`_result`, without blocking the event loop."""
        if self._traits.runs_inline:
            return self._result(future, timeout, problem)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except TimeoutError:
            raise TimeoutError(problem) from None


def _stop_watching(scheduler: Scheduler, begun: Future[Watched]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        stop_watching(scheduler, begun.result())
