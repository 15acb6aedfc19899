"""
What an executor does for a host without an event loop: it starts, waits and stops, in threads that may block.

One daemon thread runs the scheduler (see ``scheduler.py``); a few more threads read and write the store.
"""

import logging
import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from animaworks_tasks.backends import Backend, InlineBackend, ProcessBackend, ThreadBackend, traits_of
from animaworks_tasks.errors import ExecutorClosedError, TaskFailedError
from animaworks_tasks.executor.callbacks import Callbacks, OnFinish
from animaworks_tasks.executor.checks import check_guarded, check_may_block, check_portable
from animaworks_tasks.executor.events import Feed, Reader, log
from animaworks_tasks.executor.resources import Resources
from animaworks_tasks.executor.scheduler import Scheduler
from animaworks_tasks.executor.submitting import Submitter
from animaworks_tasks.executor.upkeep import KEEP_DAYS, KEEP_DONE, Upkeep
from animaworks_tasks.executor.waiting import Deadline
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.store.rules import Clock, utc_now
from animaworks_tasks.task.model import Outcome, Task
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.worker.value import result_of

logger = logging.getLogger("animaworks_tasks")

R = TypeVar("R")
T = TypeVar("T")

SCAN_INTERVAL: Final = 3.0  # seconds; for changes that are not watched
_DRAIN_TIMEOUT: Final = 10.0  # seconds
_STOP_TIMEOUT: Final = 60.0  # seconds; the grace of most tools, and the time to kill and finish what ignored SIGTERM
BUSY: Final = "there is still something to run after {} s; it goes on"
CALLBACKS_RUN: Final = "on_finish callbacks still run"
NOT_DONE: Final = "task {} is not done after {} s; it goes on"


class BlockingExecutor(Submitter):
    """The half of an :class:`Executor` that needs no event loop; its arguments are explained there."""

    def __init__(  # noqa: PLR0913 - the settings of a host, all but two by name
        self,
        store: Store,
        registry: Registry,
        *,
        backend: Backend | None = None,
        max_workers: int | None = None,
        limits: Mapping[str, int] | None = None,
        on_finish: Iterable[OnFinish] | OnFinish = (),
        scan_interval: float = SCAN_INTERVAL,
        drain_timeout: float | None = None,
        keep_done: int | None = KEEP_DONE,
        keep_days: float | None = KEEP_DAYS,
        clock: Clock = utc_now,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        if min((limits or {}).values(), default=1) < 1:
            raise ValueError(f"limits must be at least 1, not {dict(limits or {})}: without a limit leave one out")
        if not scan_interval > 0:
            raise ValueError(f"scan_interval must be more than 0 seconds, not {scan_interval}")
        if min(keep_done or 0, keep_days or 0) < 0:
            raise ValueError(f"keep_done and keep_days must be at least 0, not {keep_done} and {keep_days}")
        self.clock = clock
        self._upkeep = Upkeep(store, registry, clock, keep_done, keep_days, limits or {})
        self._backend: Backend = ProcessBackend() if backend is None else backend
        self._slots = max_workers or min(4, os.cpu_count() or 1)
        self._interval = scan_interval
        self._traits = traits_of(self._backend)
        usual = 0.0 if self._traits.outlives_host else _DRAIN_TIMEOUT
        self._drain_timeout = usual if drain_timeout is None else drain_timeout
        super().__init__(store, registry, InlineBackend() if self._traits.runs_inline else ThreadBackend())
        self._feed = Feed(store, scan_interval, clock)
        self._callbacks = Callbacks(on_finish, self._threads)
        self._resources = Resources(registry, limits)
        self._scheduler: Scheduler | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._leaving = threading.RLock()  # held during a stop; another thread that stops us waits for it

    def start(self) -> Self:
        """
        Start running tasks; return at once.

        Raises:
            RegistryError: A tool cannot go to a process: it is a lambda, say. The message says what to do.
            TypeError: The store cannot go to a process: it is in memory, say.
            LimitsError: This machine's limits.toml cannot be used; the message says why.
            ExecutorClosedError: It was started before.
            RuntimeError: A module starts it while its tools are loaded, so each process that runs them would too.
        """
        check_guarded()
        if self._scheduler is not None:
            raise ExecutorClosedError("an executor is started once; make another one")
        if self._traits.needs_pickling:
            check_portable(self.store, self.registry)
        self._resources.start(self._interval, lambda: self._scheduler.wake() if self._scheduler else None)
        self._scheduler = Scheduler(
            self.store,
            self.registry,
            self._backend,
            slots=self._slots,
            interval=self._interval,
            clock=self.clock,
            on_end=self._callbacks.call,
            upkeep=self._upkeep.look,
            resources=self._resources,
        )
        if logger.isEnabledFor(logging.INFO):
            self._feed.add(Reader(log, self.clock()))
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
        self._resources.stop()
        self._backend.shutdown(wait=False, cancel_futures=True)
        left = scheduler.running()  # without those that were taken back just now
        if left and not self._traits.outlives_host:
            logger.warning("tasks still running when the executor stopped: %s", ", ".join(sorted(left)))
        scheduler.close()
        self._feed.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait_sync(self, task_id: str, *, timeout: float | None = None) -> Task:
        """
        Do as :meth:`Executor.wait`, from a thread that may block.

        Raises:
            RuntimeError: An event loop runs in this thread, and nothing else of it would go on meanwhile.
        """
        done: Sequence[Task] = self.wait_many_sync([task_id], timeout=timeout)
        return done[0]

    def wait_many_sync(self, tasks: Iterable[Task[R] | str], *, timeout: float | None = None) -> Sequence[Task[R]]:
        """Do as :meth:`Executor.wait_many`, from a thread that may block; a RuntimeError as from :meth:`wait_sync`."""
        check_may_block("wait(...)")
        scheduler, deadline = self._running_scheduler(), Deadline(timeout)
        futures = watch_many(scheduler, tasks)
        try:
            return [
                self._result(future, deadline.left(), NOT_DONE.format(task_id, timeout)) for task_id, future in futures
            ]
        finally:
            stop_watching(scheduler, futures)

    def result_sync(self, task: Task[R], *, timeout: float | None = None) -> R:
        """Do as :meth:`Executor.result`, from a thread that may block; a RuntimeError as from :meth:`wait_sync`."""
        return self._value(self.wait_many_sync([task], timeout=timeout)[0])

    def _value(self, task: Task[R]) -> R:
        if task.outcome is not Outcome.COMPLETED:
            raise TaskFailedError(task)
        value: R = result_of(self.store, self.registry, task)
        return value

    def cancel_sync(self, task_id: str) -> Task:
        """Do as :meth:`cancel`, from a thread that may block."""
        return self.store.request_cancel(task_id)

    def run_until_idle_sync(self, *, timeout: float | None = None) -> None:
        """
        Do as :meth:`Executor.run_until_idle`, from a thread that may block.

        Raises:
            RuntimeError: As from :meth:`wait_sync`.
        """
        check_may_block("run_until_idle(...)")
        deadline = Deadline(timeout)
        while True:
            last = self._callbacks.last
            self._result(self._running_scheduler().watch_idle(), deadline.left(), BUSY.format(timeout))
            if wait_for_futures(self._callbacks.running(), deadline.left()).not_done:
                raise TimeoutError(CALLBACKS_RUN)
            if last is self._callbacks.last:  # or else a callback may have submitted more
                return

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


Watched = Sequence[tuple[str, Future[Task]]]


def watch_many(scheduler: Scheduler, tasks: Iterable[Task[Any] | str]) -> Watched:
    """Return the ids of *tasks*, or these ids, each with what :meth:`Scheduler.watch` returns, or raises, for it."""
    watched: list[tuple[str, Future[Task]]] = []
    try:
        for each in tasks:
            task_id = each if isinstance(each, str) else each.id
            watched.append((task_id, scheduler.watch(task_id)))
    except BaseException:
        stop_watching(scheduler, watched)
        raise
    return watched


def stop_watching(scheduler: Scheduler, watched: Watched) -> None:
    """Forget what :func:`watch_many` has returned, where it is not done."""
    for task_id, future in watched:
        scheduler.waiting.remove(task_id, future)
