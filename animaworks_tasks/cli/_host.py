"""
``animaworks-tool run``: a host in the foreground, with a line for everything that happens.

The first Ctrl-C starts nothing more and waits for what runs; the second one leaves. SIGTERM, which comes from programs
with little patience, leaves as the executor does by default: in processes tasks go on, threads are given ten seconds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import select
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Final, Self

from animaworks_tasks._backends import ProcessBackend, ThreadBackend
from animaworks_tasks._directory_store import TaskStore
from animaworks_tasks._executor import Executor
from animaworks_tasks._notifications import one_line
from animaworks_tasks._registry import Registry
from animaworks_tasks._task import State, Task
from animaworks_tasks.cli._basics import anima_dir, put, say
from animaworks_tasks.cli._stores import open_store
from animaworks_tasks.cli._text import Standing, catalogued, described, said
from animaworks_tasks.cli._tools import no_tools, registry_of, report_problems
from animaworks_tasks.errors import ExecutorClosedError, TasksError

_LOOK: Final = 0.5  # seconds between two looks at what has started and how far it is
_RETRY_LOOK: Final = 0.2  # seconds between two looks at whether a retry has come to its end
_NO_LIMIT: Final = 10 * 365 * 86400.0  # seconds; what a lock can be waited for is finite


def run_(options: Namespace) -> int:
    """Serve the Anima's tasks until told to stop; with ``--until-idle`` until nothing is left to do."""
    anima = anima_dir(options.anima_dir)
    registry = registry_of(options, anima)
    report_problems(registry)
    if not registry.tools():  # every task that waits would be rejected
        raise TasksError(f"nothing could be run: {no_tools(options)}")
    store = open_store(options, changing=True, language=options.language)
    with _Signals() as signals, _said_plainly():
        return _Host(store, registry, signals, options).serve()


class _Host:
    """An executor, and what is told of it."""

    def __init__(self, store: TaskStore, registry: Registry, signals: _Signals, options: Namespace) -> None:
        self._store, self._registry, self._signals, self._options = store, registry, signals, options
        self._ended: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._running: dict[str, Task] = {}
        self._progress: dict[str, str] = {}
        self._idle = threading.Event()
        self._detaches = options.backend == "process"
        self._executor = Executor(
            store,
            registry,
            backend=ProcessBackend() if self._detaches else ThreadBackend(),
            max_workers=options.max_workers,
            on_finish=self._on_finish,
        )

    def serve(self) -> int:
        """Run tasks until a signal, or until idle, and then stop in the manner that was asked for."""
        self._executor.start()
        stopping = None
        try:
            self._announce()
            if self._options.until_idle:
                threading.Thread(target=self._wait_for_idle, daemon=True).start()
            self._tell_until(lambda: bool(self._signals.taken) or self._idle.is_set())
        finally:  # also where nobody reads any more what we tell
            patient = self._signals.taken[:1] == [signal.SIGINT]
            stopping = threading.Thread(target=self._stop, args=(_NO_LIMIT if patient else None,), daemon=True)
            stopping.start()
        self._say_what_is_waited_for()
        self._tell_until(lambda: not stopping.is_alive() or len(self._signals.taken) > 1)
        self._say_what_is_left()
        return 0

    # In other threads.

    def _on_finish(self, task: Task) -> None:
        self._ended.put(task)
        self._signals.wake()

    def _wait_for_idle(self) -> None:
        """Wait until nothing is to be done; a retry that waits for its time is, what its submitter delayed is not."""
        try:
            while not self._is_idle():
                time.sleep(_RETRY_LOOK)
        except ExecutorClosedError:
            pass  # a signal came first
        finally:
            self._idle.set()
            self._signals.wake()

    def _is_idle(self) -> bool:
        try:
            self._executor.run_until_idle_sync()
            return not any(task.attempt for task in self._store.list(State.PENDING))
        except OSError:  # as in _look
            return False

    def _stop(self, patience: float | None) -> None:
        self._executor.stop(drain_timeout=patience)
        self._signals.wake()

    # What is told.

    def _tell_until(self, enough: Callable[[], bool]) -> None:
        while True:
            is_enough = enough()  # asked first, so that what happened before is told
            self._tell()
            if is_enough:
                return
            self._signals.wait(_LOOK)

    def _tell(self) -> None:
        ended = []
        while not self._ended.empty():
            ended.append(self._ended.get())
        before, self._running = self._running, self._look()
        for task in reversed(self._running.values()):  # the list has the last one first
            if task.id not in before:
                again = f", attempt {task.attempt}" if task.attempt > 1 else ""
                self._line("started", task, f"{task.id} {task.name} started{again}")
            self._tell_progress(task)
        for task in ended:
            self._progress.pop(task.id, None)
            self._line("ended", task, task.summary())

    def _look(self) -> dict[str, Task]:
        try:
            return {task.id: task for task in self._store.list(State.RUNNING)}
        except OSError:  # too many open files, say: the executor goes on, and so do we
            return self._running

    def _tell_progress(self, task: Task) -> None:
        if not (self._options.json or sys.stdout.isatty()):
            return
        news = said(self._store.read_progress(task.id))
        if news and news != self._progress.get(task.id):
            self._progress[task.id] = news
            self._line("progress", task, f"{task.id} {task.name} {news}")

    def _announce(self) -> None:
        tools = self._registry.tools()
        keys = [f"{'⚠ ' if tool.long_running else ''}{tool.command}" for tool in tools]
        waiting = len(self._store.pending_ids())
        if self._options.json:
            self._event("serving", anima_dir=self._store.location, tools=[tool.key for tool in tools], pending=waiting)
            return
        backlog = f", {waiting} waiting" if waiting else ""
        put(f"serving {self._store.location}: {len(tools)} tools{backlog}\n  {', '.join(keys)}\n")
        say("Ctrl-C waits for what runs and leaves; a second one does not wait")

    def _say_what_is_waited_for(self) -> None:
        is_patient = self._signals.taken[:1] == [signal.SIGINT] or not self._detaches
        if self._running and is_patient:
            leaves = "leaves it running" if self._detaches else "interrupts it"
            say(f"starting nothing more, and waiting for {_names(self._running.values())}; Ctrl-C again {leaves}")

    def _say_what_is_left(self) -> None:
        running, pending = self._store.list(State.RUNNING), self._store.list(State.PENDING)
        if running:
            fate = "goes on and ends by itself" if self._detaches else "is interrupted; the next host settles it"
            say(f"left: {_names(running)}, which {fate}")
        if pending:
            say(f"left: {len(pending)} pending; the next host runs them")

    def _line(self, event: str, task: Task, text: str) -> None:
        if self._options.json:
            standing = Standing.of(self._store, task, catalogued(self._store))
            self._event(event, task=described(standing, self._store))
        else:
            put(f"{time.strftime('%H:%M:%S')} {one_line(text, 400)}\n")

    @staticmethod
    def _event(event: str, **facts: Any) -> None:  # noqa: ANN401 - whatever JSON can say
        put(json.dumps({"event": event, "at": time.time(), **facts}, ensure_ascii=False) + "\n")


def _names(tasks: Iterable[Task]) -> str:
    return ", ".join(f"{task.id} {one_line(task.name, 60)}" for task in tasks)


class _Signals:
    """
    Takes SIGINT and SIGTERM, and lets a wait end at once.

    A handler runs between any two steps of the main thread, so it takes no lock: it adds to a list, writes to a pipe.

    Attributes:
        taken: The signals that came, in order.
    """

    def __init__(self) -> None:
        self.taken: list[int] = []
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.taken.append(number)
        self.wake()

    def wake(self) -> None:
        """End the current or the next :meth:`wait`; from any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake
            os.write(self._writer, b"!")

    def wait(self, timeout: float) -> None:
        """Sleep until a signal comes, or someone wakes us, or *timeout* seconds."""
        if select.select([self._reader], [], [], timeout)[0]:
            os.read(self._reader, 1 << 12)


class _Plain(logging.Handler):
    """Says warnings and errors as a command line does: in a line, and without a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        say(one_line(record.getMessage() + (f": {error}" if error else ""), 500))


@contextlib.contextmanager
def _said_plainly() -> Iterator[None]:
    logger, handler = logging.getLogger("animaworks_tasks"), _Plain(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
