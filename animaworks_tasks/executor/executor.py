"""
The executor: lives in the host, runs the tasks of a store, and never blocks the host's event loop.

One daemon thread runs the scheduler (see ``scheduler.py``); a few more threads read and write the store. The host's
event loop only awaits their futures. So the same code serves a host with an event loop and one without.
"""

import asyncio
import contextlib
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
from animaworks_tasks.executor.upkeep import KEEP_DAYS, KEEP_DONE, Upkeep
from animaworks_tasks.executor.waiting import Deadline
from animaworks_tasks.notifications.inbox import Drained
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.store.rules import Clock, SubmitOptions, utc_now
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools.registry import Registry

logger = logging.getLogger("animaworks_tasks")

T = TypeVar("T")

SCAN_INTERVAL: Final = 3.0  # seconds; for changes that are not watched
_DRAIN_TIMEOUT: Final = 10.0  # seconds
_STOP_TIMEOUT: Final = 60.0  # seconds; the grace of most tools, and the time to kill and finish what ignored SIGTERM
_BUSY: Final = "there is still something to run after {} s; it goes on"
_CALLBACKS_RUN: Final = "on_finish callbacks still run"
_NOT_DONE: Final = "task {} is not done after {} s; it goes on"


class Executor:
    """
    Runs the tasks of one store.

    Use it as ``async with Executor(store, registry) as executor: ...``, or from a host without an event loop with
    :meth:`start` and :meth:`stop`. Any number of executors, in any number of processes, may share a store.

    Args:
        store: Where the tasks are.
        registry: What they may call.
        backend: Where calls run; any futures executor is one. Defaults to a :class:`ProcessBackend`. It is shut down
            with the executor.
        max_workers: How many tasks of the store run at once, including those of its other hosts, without calls of
            ``animaworks_tasks.background``. Defaults to the number of processors, at most 4.
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
        ValueError: *max_workers* is less than 1, *scan_interval* is not more than 0, or a number to keep is negative.
    """

    def __init__(  # noqa: PLR0913 - the settings of a host, all but two by name
        self,
        store: Store,
        registry: Registry,
        *,
        backend: Backend | None = None,
        max_workers: int | None = None,
        on_finish: Iterable[OnFinish] | OnFinish = (),
        scan_interval: float = SCAN_INTERVAL,
        drain_timeout: float | None = None,
        keep_done: int | None = KEEP_DONE,
        keep_days: float | None = KEEP_DAYS,
        clock: Clock = utc_now,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        if not scan_interval > 0:
            raise ValueError(f"scan_interval must be more than 0 seconds, not {scan_interval}")
        if min(keep_done or 0, keep_days or 0) < 0:
            raise ValueError(f"keep_done and keep_days must be at least 0, not {keep_done} and {keep_days}")
        self.store, self.registry, self.clock = store, registry, clock
        self._upkeep = Upkeep(store, registry, clock, keep_done, keep_days)
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
        self._leaving = threading.RLock()  # held during a stop; another thread that stops us waits for it

    # A host without an event loop.

    def start(self) -> Self:
        """
        Start running tasks; return at once.

        Raises:
            RegistryError: A tool cannot go to a process: it is a lambda, say. The message says what to do.
            TypeError: The store cannot go to a process: it is in memory, say.
            ExecutorClosedError: It was started before.
            RuntimeError: A module starts it while its tools are loaded, so each process that runs them would too.
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
            upkeep=self._upkeep.look,
        )
        if not self._traits.runs_inline:
            name = "animaworks_tasks-executor"
            self._thread = threading.Thread(target=self._scheduler.run, args=[self._stopping], name=name, daemon=True)
            self._thread.start()
        return self

    def stop(self, *, drain_timeout: float | None = None) -> None:
        """
        Start nothing more, wait up to *drain_timeout* seconds (None: the executor's) for running tasks, and stop.

        What still runs then goes on in a ProcessBackend; other tasks are finished as interrupted once the process has
        ended. Stopping an executor that was not started, or was stopped, does nothing; while another thread stops it,
        this one waits.
        """
        with self._leaving:
            if self._scheduler is None or self._stopping.is_set():
                return
            self._leave(self._scheduler, drain_timeout)
        # After the lock is free: a callback may be stopping us too, and waits for the lock.
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
        self._backend.shutdown(wait=False, cancel_futures=True)
        left = scheduler.running()  # without those that were taken back just now
        if left and not self._traits.outlives_host:
            logger.warning("tasks still running when the executor stopped: %s", ", ".join(sorted(left)))
        scheduler.close()

    def submit_sync(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        """Do as :meth:`submit`, from a thread that may block."""
        found = self.registry.resolve(tool, argv)
        self.registry.check_permission(found)
        self.registry.check_veto(found, argv)
        options["subcommand"] = found.subcommand
        return self.store.submit(tool, *argv, **options)

    def submit_many_sync(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        """Do as :meth:`submit_many`, from a thread that may block."""
        calls = list(argvs)
        found = {tool_.subcommand: tool_ for tool_ in (self.registry.resolve(tool, argv) for argv in calls)}
        if len(found) > 1:
            raise ValueError(f"submit_many takes calls of one subcommand, not of {', '.join(found)}")
        for tool_ in found.values():
            self.registry.check_permission(tool_)
            self.registry.check_veto(tool_, *calls)
        options["subcommand"] = "".join(found)
        return self.store.submit_many(tool, calls, **options)

    def wait_sync(self, task_id: str, *, timeout: float | None = None) -> Task:
        """Do as :meth:`wait`, from a thread that may block."""
        scheduler = self._running_scheduler()
        future = scheduler.watch(task_id)
        try:
            return self._result(future, timeout, _NOT_DONE.format(task_id, timeout))
        finally:
            scheduler.waiting.remove(task_id, future)

    def cancel_sync(self, task_id: str) -> Task:
        """Do as :meth:`cancel`, from a thread that may block."""
        return self.store.request_cancel(task_id)

    def run_until_idle_sync(self, *, timeout: float | None = None) -> None:
        """Do as :meth:`run_until_idle`, from a thread that may block."""
        deadline = Deadline(timeout)
        while True:
            last = self._callbacks.last
            self._result(self._running_scheduler().watch_idle(), deadline.left(), _BUSY.format(timeout))
            if wait_for_futures(self._callbacks.running(), deadline.left()).not_done:
                raise TimeoutError(_CALLBACKS_RUN)
            if last is self._callbacks.last:  # or else a callback may have submitted more
                return

    # A host with an event loop.

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

    async def submit(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        """
        Submit a call; once this has returned, the task is not lost.

        Args:
            tool: The tool's name.
            *argv: Everything after the tool's name, the subcommand included.
            **options: As for :meth:`Store.submit`: ``priority``, ``not_before``, ``key``, ``timeout_seconds`` ...; the
                registry finds the subcommand.

        Raises:
            UnknownToolError: There is no such tool or subcommand; the message names the nearest. Nothing is queued.
            WrongArgumentError: The tool would not take these arguments. Nothing is queued.
            NotPermittedError: :attr:`Registry.permits` or ``veto`` refuses it; the message says why. Nothing is queued.
            TypeError: A word of *argv* is not a str, or an option is unknown or not of its type. Nothing is queued.
            ValueError: An option is out of its range, or, as a RecordError, the call cannot be stored: see
                :meth:`Store.submit`. Nothing is queued.
            PartlySubmittedError: It is queued and will run, but the disk did not make its name durable.
            OSError: The record could not be written. Nothing is queued.
            ExecutorClosedError: The executor was stopped.
        """
        return await self._off_loop(lambda: self.submit_sync(tool, *argv, **options))

    async def submit_many(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        """
        Submit many calls of one subcommand, much faster than :meth:`submit` one by one.

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
            PartlySubmittedError: An OSError came half way: its ``submitted`` are queued and will run, the others not.
            OSError: The records could not be written. Nothing is queued.
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
        scheduler = self._running_scheduler()
        watching = self._in_thread(lambda: scheduler.watch(task_id))
        try:
            future = await asyncio.wrap_future(watching)
            if timeout == 0 and future.done():
                return future.result()
            return await self._awaited(future, timeout, _NOT_DONE.format(task_id, timeout))
        finally:  # after a cancellation the thread may return its future later
            watching.add_done_callback(lambda done: _stop_watching(scheduler, task_id, done))

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
            await self._awaited(self._running_scheduler().watch_idle(), deadline.left(), _BUSY.format(timeout))
            callbacks = [asyncio.wrap_future(future) for future in self._callbacks.running()]
            if callbacks and (await asyncio.wait(callbacks, timeout=deadline.left()))[1]:
                raise TimeoutError(_CALLBACKS_RUN)
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

    async def _off_loop(self, function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._in_thread(function))

    def _in_thread(self, function: Callable[[], T]) -> Future[T]:
        try:
            return self._threads.submit(function)
        except BackendError:
            raise ExecutorClosedError("the executor was stopped; its store can still be used") from None

    async def _awaited(self, future: Future[T], timeout: float | None, problem: str) -> T:  # noqa: ASYNC109 - as wait
        """Do as :meth:`_result`, without blocking the event loop."""
        if self._traits.runs_inline:
            return self._result(future, timeout, problem)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except TimeoutError:
            raise TimeoutError(problem) from None

    def _result(self, future: Future[T], timeout: float | None, problem: str) -> T:
        """Wait for *future*, and run the tasks of an inline backend meanwhile; say *problem* at the *timeout*."""
        if self._traits.runs_inline:
            scheduler, deadline = self._running_scheduler(), Deadline(timeout)
            scheduler.step(set())
            while not future.done() and (timeout := deadline.left()) != 0:
                scheduler.step(scheduler.wait(math.inf if timeout is None else timeout))
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise TimeoutError(problem) from None

    def _running_scheduler(self) -> Scheduler:
        if self._scheduler is None or self._stopping.is_set():
            raise ExecutorClosedError(
                "the executor is not running: use it as `async with Executor(...)`, or start() it"
            )
        return self._scheduler


def _stop_watching(scheduler: Scheduler, task_id: str, begun: Future[Future[Task]]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        scheduler.waiting.remove(task_id, begun.result())
