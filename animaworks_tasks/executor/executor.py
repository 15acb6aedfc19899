"""
The executor: lives in the host, runs what is submitted, and never holds the host up.

The watching is done by one daemon thread (see ``scheduler.py``), every look at the store by a few more; the host's
event loop only ever awaits their futures. So a host with a loop and a host without one are served by the same code.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

from animaworks_tasks.backends import Backend, InlineBackend, ProcessBackend, ThreadBackend, traits_of
from animaworks_tasks.errors import BackendError, ExecutorClosedError
from animaworks_tasks.executor.callbacks import Callbacks, OnFinish
from animaworks_tasks.executor.checks import check_guarded, check_portable
from animaworks_tasks.executor.scheduler import Scheduler
from animaworks_tasks.executor.waiting import Deadline
from animaworks_tasks.notifications.inbox import Drained
from animaworks_tasks.store.protocol import Clock, Store, SubmitOptions, utc_now
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools.registry import Registry

logger = logging.getLogger("animaworks_tasks")

T = TypeVar("T")

SCAN_INTERVAL: Final = 3.0  # seconds; for writers that wake nobody up, AnimaWorks' own among them
_DRAIN_TIMEOUT: Final = 10.0  # seconds
_STOP_TIMEOUT: Final = 60.0  # seconds; the grace of most tools, and the time to kill and settle what ignored it
_BUSY: Final = "there is still something to run after {} s; it goes on"


class Executor:
    """
    Runs the tasks of one store.

    Use it as ``async with Executor(store, registry) as executor: ...``, or from a host without an event loop with
    :meth:`start` and :meth:`stop`. Any number of executors, in any number of processes, may share a store.

    Args:
        store: Where the tasks are.
        registry: What they may call.
        backend: Where calls run, any futures executor, say; None is a :class:`ProcessBackend`. It is shut down with the
            executor.
        max_workers: How many tasks of the store run at once, those of its other hosts included, but for calls of
            ``animaworks_tasks.background``; None is the number of processors, at most 4.
        on_finish: Called once with each task that this executor ran, or saw waiting or running, when it has ended; sync
            (in a thread) or async (what can be awaited is, in the host's event loop), in no particular order. What they
            raise is logged, and nothing more.
        scan_interval: Seconds between two looks at everything, for tasks whose writer woke nobody up, and for those for
            which another executor of the same store was woken: a writer wakes one of them.
        drain_timeout: Seconds for which leaving waits for tasks that run. None is 0 for a ProcessBackend, whose tasks
            go on and end by themselves, and 10 for the others, whose tasks end as interrupted if the process does.
        clock: Tells the time in UTC.

    Raises:
        ValueError: *max_workers* is less than 1, or *scan_interval* not more than 0.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        backend: Backend | None = None,
        max_workers: int | None = None,
        on_finish: Iterable[OnFinish] | OnFinish = (),
        scan_interval: float = SCAN_INTERVAL,
        drain_timeout: float | None = None,
        clock: Clock = utc_now,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        if not scan_interval > 0:
            raise ValueError(f"scan_interval must be more than 0 seconds, not {scan_interval}")
        self.store, self.registry, self.clock = store, registry, clock
        self._backend: Backend = ProcessBackend() if backend is None else backend
        self._slots = max_workers or min(4, os.cpu_count() or 1)
        self._interval = scan_interval
        self._traits = traits_of(self._backend)
        usual = 0.0 if self._traits.outlives_host else _DRAIN_TIMEOUT
        self._drain_timeout = usual if drain_timeout is None else drain_timeout
        self._threads: Backend = InlineBackend() if self._traits.runs_inline else ThreadBackend()
        self._callbacks = Callbacks(on_finish, self._threads)
        self._scheduler: Scheduler | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._leaving = threading.RLock()  # held by whoever stops us; another one waits for that

    # A host without an event loop.

    def start(self) -> Self:
        """
        Begin to run tasks; returns at once.

        Raises:
            RegistryError: A tool cannot go to a process: it is a lambda, say. The message says what to do.
            TypeError: The store cannot go to a process: it is in memory, say.
            ExecutorClosedError: It was started before.
            RuntimeError: A module starts it while its tools are being loaded: each process that runs them would.
        """
        check_guarded()
        if self._scheduler is not None:
            raise ExecutorClosedError("an executor is started once; make another one")
        if self._traits.needs_pickling:
            check_portable(self.store, self.registry)
        self._scheduler = Scheduler(
            self.store,
            self.registry,
            self._backend,
            slots=self._slots,
            interval=self._interval,
            clock=self.clock,
            on_end=self._callbacks.call,
        )
        if not self._traits.runs_inline:
            name = "animaworks_tasks-executor"
            self._thread = threading.Thread(target=self._scheduler.run, args=[self._stopping], name=name, daemon=True)
            self._thread.start()
        return self

    def stop(self, *, drain_timeout: float | None = None) -> None:
        """
        Start nothing more, wait for what runs as long as *drain_timeout* says (None: as long as the executor's), go.

        What still runs then goes on in a ProcessBackend, and is settled as interrupted elsewhere once the process ends.
        Stopping what was not started, or was stopped, does nothing; what another thread is stopping, waits for that.
        """
        with self._leaving:
            if self._scheduler is None or self._stopping.is_set():
                return
            self._leave(self._scheduler, drain_timeout)
        # One of them may be stopping us as well, and waits for what stands above.
        wait_for_futures(self._callbacks.running(), timeout=_DRAIN_TIMEOUT)
        self._threads.shutdown(wait=False)

    def _leave(self, scheduler: Scheduler, drain_timeout: float | None) -> None:
        scheduler.drain(self._drain_timeout if drain_timeout is None else drain_timeout)
        if self._traits.interrupt is not None:
            self._traits.interrupt()
            scheduler.drain(_STOP_TIMEOUT)
        self._stopping.set()
        scheduler.wake()
        if self._thread is not None:
            self._thread.join()
        left = scheduler.running()
        if left and not self._traits.outlives_host:
            logger.warning("tasks still running when the executor stopped: %s", ", ".join(sorted(left)))
        self._backend.shutdown(wait=False, cancel_futures=True)
        scheduler.close()

    def submit_sync(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        """Do as :meth:`submit`, from a thread that may block."""
        found = self.registry.resolve(tool, argv)
        self.registry.check_permission(found)
        options["subcommand"] = found.subcommand
        return self.store.submit(tool, *argv, **options)

    def submit_many_sync(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        """Do as :meth:`submit_many`, from a thread that may block."""
        calls = list(argvs)
        found = {tool_.subcommand: tool_ for tool_ in (self.registry.resolve(tool, argv) for argv in calls)}
        for tool_ in found.values():
            self.registry.check_permission(tool_)
        if len(found) > 1:
            raise ValueError(f"submit_many takes calls of one subcommand, not of {', '.join(found)}")
        options["subcommand"] = "".join(found)
        return self.store.submit_many(tool, calls, **options)

    def wait_sync(self, task_id: str, *, timeout: float | None = None) -> Task:
        """Do as :meth:`wait`, from a thread that may block."""
        scheduler = self._running_scheduler()
        future = scheduler.watch(task_id)
        try:
            return self._result(future, timeout)
        except TimeoutError:
            raise _not_done(task_id, timeout) from None
        finally:
            scheduler.unwatch(task_id, future)

    def cancel_sync(self, task_id: str) -> Task:
        """Do as :meth:`cancel`, from a thread that may block."""
        return self.store.request_cancel(task_id)

    def run_until_idle_sync(self, *, timeout: float | None = None) -> None:
        """Do as :meth:`run_until_idle`, from a thread that may block."""
        deadline = Deadline(timeout)
        while True:
            last = self._callbacks.last
            idle = self._running_scheduler().watch_idle()
            try:
                self._result(idle, deadline.left())
            except TimeoutError:
                idle.cancel()
                raise TimeoutError(_BUSY.format(timeout)) from None
            if wait_for_futures(self._callbacks.running(), deadline.left()).not_done:
                raise TimeoutError("on_finish callbacks still run")
            if last is self._callbacks.last:  # or else it may have submitted more
                return

    # A host with an event loop.

    async def __aenter__(self) -> Self:
        check_guarded()  # here, in the thread that would be loading the tools
        self._callbacks.loop = asyncio.get_running_loop()
        starting = self._in_thread(self.start)
        try:
            await asyncio.wrap_future(starting)
        except asyncio.CancelledError:  # it may be starting all the same, and nobody would stop it
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

    async def submit(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        """
        Keep a call to be made; once this has returned, it is not lost.

        Args:
            tool: The tool's name.
            *argv: Everything after the tool's name, the subcommand included.
            **options: As for :meth:`Store.submit`: ``priority``, ``not_before``, ``key``, ``timeout_seconds`` ...; the
                subcommand is the registry's to find.

        Raises:
            UnknownToolError: There is no such tool or subcommand; the message names the nearest. Nothing is queued.
            WrongArgumentError: The tool would not take these arguments. Nothing is queued.
            NotPermittedError: The subcommand is gated, and :attr:`Registry.permits` does not give the permission.
            TypeError: A word of *argv* is no text, or an option is unknown or not of its type. Nothing is queued.
            ValueError: An option cannot be what was given, or, as a RecordError, the call cannot be stored: see
                :meth:`Store.submit`. Nothing is queued.
            PartlySubmittedError: It is queued and will run, but the disk did not make its name durable.
            OSError: The disk said no. Nothing was kept.
            ExecutorClosedError: The executor was stopped.
        """
        return await self._off_loop(lambda: self.submit_sync(tool, *argv, **options))

    async def submit_many(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        """
        Keep many calls of one subcommand, in a fraction of the time that :meth:`submit` takes for each.

        Args:
            tool: The tool's name.
            argvs: For each call what follows the tool's name, the subcommand included.
            **options: Of all of them, as for :meth:`submit`; no ``key``.

        Returns:
            The tasks, in the order of *argvs*.

        Raises:
            UsageError: As for :meth:`submit`, of any of the calls. Nothing is queued.
            TypeError: As for :meth:`submit`.
            ValueError: As for :meth:`submit`; they are not of one subcommand, or there is a *key*. Nothing is queued.
            PartlySubmittedError: The disk said no half way: its ``submitted`` are kept and will run, the others not.
            OSError: The disk said no. Nothing is queued.
        """
        return await self._off_loop(lambda: self.submit_many_sync(tool, argvs, **options))

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
        if self._traits.runs_inline:
            return self.wait_sync(task_id, timeout=timeout)
        scheduler = self._running_scheduler()
        begun = self._in_thread(lambda: scheduler.watch(task_id))
        try:
            future = await asyncio.wrap_future(begun)
            if timeout == 0 and future.done():
                return future.result()
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except TimeoutError:
            raise _not_done(task_id, timeout) from None
        finally:  # also of a watch that begins only after whoever waited has given up
            begun.add_done_callback(lambda done: _stop_watching(scheduler, task_id, done))

    async def cancel(self, task_id: str) -> Task:
        """
        Ask for a task to stop: a pending one ends at once, a running one when it is stopped, a done one stays as it is.

        Returns:
            The task as it is then; :meth:`wait` for its end.

        Raises:
            TaskNotFoundError: The store has no such task.
        """
        return await self._off_loop(lambda: self.cancel_sync(task_id))

    async def run_until_idle(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as wait
        """
        Wait until nothing runs in the store and nothing is due; callbacks included.

        Raises:
            TimeoutError: It took longer than *timeout* seconds. Everything goes on.
        """
        deadline = Deadline(timeout)
        while True:
            last = self._callbacks.last
            idle = self._running_scheduler().watch_idle()
            if self._traits.runs_inline:
                self._result(idle, deadline.left())
            else:
                try:
                    await asyncio.wait_for(asyncio.wrap_future(idle), deadline.left())
                except TimeoutError:
                    raise TimeoutError(_BUSY.format(timeout)) from None
            callbacks = [asyncio.wrap_future(future) for future in self._callbacks.running()]
            if callbacks and (await asyncio.wait(callbacks, timeout=deadline.left()))[1]:
                raise TimeoutError("on_finish callbacks still run")
            if last is self._callbacks.last:  # or else it may have submitted more
                return

    @contextlib.asynccontextmanager
    async def drain_notifications(self, budget: int | None = None) -> AsyncIterator[Drained]:
        """Do as :meth:`Notifications.drain`, without a file being touched on the event loop."""
        drain = self.store.notifications.drain(budget)
        drained = await self._off_loop(drain.__enter__)
        try:
            yield drained
        except BaseException as error:
            await self._off_loop(functools.partial(drain.__exit__, type(error), error, error.__traceback__))
            raise
        await self._off_loop(lambda: drain.__exit__(None, None, None))

    async def _off_loop(self, function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._in_thread(function))

    def _in_thread(self, function: Callable[[], T]) -> Future[T]:
        try:
            return self._threads.submit(function)
        except BackendError:
            raise ExecutorClosedError("the executor was stopped; its store can still be used") from None

    def _result(self, future: Future[T], timeout: float | None) -> T:
        """Wait for *future*; where the executor has no thread of its own, tasks run in this one meanwhile."""
        if not self._traits.runs_inline:
            return future.result(timeout)
        scheduler, deadline = self._running_scheduler(), Deadline(timeout)
        scheduler.step(set())
        while not future.done() and (left := deadline.left()) != 0:
            scheduler.step(scheduler.wait(math.inf if left is None else left))
        return future.result(0)

    def _running_scheduler(self) -> Scheduler:
        if self._scheduler is None or self._stopping.is_set():
            raise ExecutorClosedError(
                "the executor is not running: use it as `async with Executor(...)`, or start() it"
            )
        return self._scheduler


def _not_done(task_id: str, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"task {task_id} is not done after {timeout} s; it goes on")


def _stop_watching(scheduler: Scheduler, task_id: str, begun: Future[Future[Task]]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        scheduler.unwatch(task_id, begun.result())
