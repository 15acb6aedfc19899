"""
``animaworks-tool run``: a host in the foreground, with a line for everything that happens.

On a terminal, what runs is shown below these lines, with how far it is, if rich is installed.

The first Ctrl-C starts nothing more and waits for what runs; the second one leaves. SIGTERM, which comes from programs
with little patience, leaves as the executor does by default: in processes tasks go on, threads are given ten seconds.
"""

import contextlib
import json
import logging
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, Final

from animaworks_tasks.backends import ProcessBackend, ThreadBackend
from animaworks_tasks.cli.basics import anima_dir, in_json, named, put, say
from animaworks_tasks.cli.live import Lines, Screen, Signals, screen
from animaworks_tasks.cli.stores import is_orphan
from animaworks_tasks.cli.text import described, said, views_of
from animaworks_tasks.cli.tools import no_tools, registry_of, report_problems
from animaworks_tasks.errors import ExecutorClosedError, TasksError
from animaworks_tasks.executor.executor import Executor
from animaworks_tasks.fs import files
from animaworks_tasks.fs.layout import Layout, home
from animaworks_tasks.notifications.render import one_line, several
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.task.model import State, Task
from animaworks_tasks.tools import arguments
from animaworks_tasks.tools.catalogue import default_language
from animaworks_tasks.tools.registry import Registry

_RETRY_LOOK: Final = 0.2  # seconds between two looks at whether a retry has come to its end
_READ_AT_MOST: Final = 100  # records, to see whether they are tasks
_NO_LIMIT: Final = 10 * 365 * 86400.0  # seconds; a wait for a lock has to be finite


def run_(options: SimpleNamespace) -> int:
    """Serve the Anima's tasks until a signal comes; with ``--until-idle`` until nothing is left to do."""
    anima = anima_dir(options.anima_dir) if named(options.anima_dir) else home()
    registry = registry_of(options, anima)
    report_problems(registry)
    if not registry.tools():  # every task that waits would be rejected
        if named(options.anima_dir) or files.names(Layout(anima).pending):
            raise TasksError(f"nothing could be run: {no_tools(options)}")
        say(no_tools(options))
    if options.permit:
        registry.permits = frozenset(options.permit).__contains__
    language = options.language or default_language()
    store = TaskStore(anima, language=language, shared=options.shared)
    lines = Lines() if options.json else screen(whole=False)
    with Signals(lines) as signals:
        _Host(store, registry, signals, lines, options).serve()
    return 0


class _Host:
    """An executor, and what is printed of its tasks."""

    def __init__(
        self, store: TaskStore, registry: Registry, signals: Signals, lines: Lines, options: SimpleNamespace
    ) -> None:
        self._store, self._registry, self._signals, self._options = store, registry, signals, options
        self._lines, self._say = lines, lines.say
        self._waiting, self._is_leaving = 0, False
        self._orphaned: frozenset[tuple[str, int]] = frozenset()
        self._ended: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._running: dict[str, Task] = {}
        self._progress: dict[str, str] = {}
        self._idle = threading.Event()
        self._detaches = options.backend == "process"
        backend = ProcessBackend() if self._detaches else ThreadBackend()
        workers = options.max_workers
        self._executor = Executor(store, registry, backend=backend, max_workers=workers, on_finish=self._on_finish)

    def serve(self) -> None:
        """Run tasks until a signal comes, or until idle; then stop as the signal demands."""
        with _said_plainly(self._say):
            self._count_waiting()  # before any of them is claimed
            # Likewise: while it is being recovered, an orphan looks like a running task.
            orphans = (task for task in self._look().values() if is_orphan(self._store, task))
            self._orphaned = frozenset((task.id, task.attempt) for task in orphans)
            self._executor.start()
            with self._lines:
                self._serve()
            self._say_what_is_left()

    def _serve(self) -> None:
        try:
            self._say_what_is_served()
            if self._options.until_idle:
                threading.Thread(target=self._wait_for_idle, daemon=True).start()
            self._print_until(lambda: bool(self._signals.taken) or self._idle.is_set())
        finally:  # also where nobody reads our output any more
            self._is_leaving = True
            patient = self._signals.taken[:1] == [signal.SIGINT]
            stopping = threading.Thread(target=self._stop, args=(_NO_LIMIT if patient else None,), daemon=True)
            stopping.start()
        if self._running and (patient or not self._detaches):
            again = "leaves it running" if self._detaches else "interrupts it"
            names = _names(self._running.values())
            self._say(f"starting nothing more, and waiting for {names}; Ctrl-C again {again}")
        self._print_until(lambda: not stopping.is_alive() or len(self._signals.taken) > 1)

    # In other threads.

    def _on_finish(self, task: Task) -> None:
        self._ended.put(task)
        self._signals.wake()

    def _wait_for_idle(self) -> None:
        """Wait until no task is due or running. A retry is waited for, a task with a later ``not_before`` is not."""
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

    # What is printed.

    def _print_until(self, enough: Callable[[], bool]) -> None:
        while True:
            is_enough = enough()  # asked first, so that what happened before is printed
            began = time.monotonic()
            self._print_changes()
            if isinstance(self._lines, Screen):
                self._count_waiting()
                views = views_of(self._store, reversed(self._running.values()))
                leaving = "; starting nothing more" if self._is_leaving else ""
                self._lines.show(views, [f"{len(views)} running, {self._waiting} waiting{leaving}"])
            if is_enough:
                return
            self._signals.rest(began)

    def _print_changes(self) -> None:
        ended = [self._ended.get() for _ in range(self._ended.qsize())]
        before, self._running = self._running, self._look()
        for task in reversed(self._running.values()):  # the list has the last one first
            if task.id not in before:
                again = f", attempt {task.attempt}" if task.attempt > 1 else ""
                self._tell("started", f"started{again}", task)
            self._print_progress(task)
        for task in ended:
            self._progress.pop(task.id, None)
            self._tell("ended", task.summary().removeprefix(f"{task.id} {task.name} "), task)

    def _count_waiting(self) -> None:
        """Count the tasks that wait; if there are more than 100 records, the records."""
        with contextlib.suppress(OSError):  # as in _look
            self._waiting = len(self._store.pending_ids())
            if self._waiting <= _READ_AT_MOST:
                self._waiting = len(self._store.list(State.PENDING))

    def _look(self) -> dict[str, Task]:
        try:
            running = self._store.list(State.RUNNING)
            return {task.id: task for task in running if (task.id, task.attempt) not in self._orphaned}
        except OSError:  # too many open files, say: the executor goes on, and so do we
            return self._running

    def _print_progress(self, task: Task) -> None:
        if isinstance(self._lines, Screen) or not (self._options.json or sys.stdout.isatty()):
            return
        news = said(self._store.read_progress(task.id))
        if news and news != self._progress.get(task.id):
            self._progress[task.id] = news
            self._tell("progress", news, task)

    def _say_what_is_served(self) -> None:
        where, waiting = self._store.location, self._waiting
        backlog = f", {waiting} waiting" if waiting else ""
        tools = [*arguments.commands(self._registry.catalogue()["tools"])]
        names = ", ".join(f"{'⚠ ' if spec['long_running'] else ''}{command}" for command, _, spec in tools)
        text = f"serving {one_line(where, 400)}: {several(len(tools), 'tool', 'tools')}{backlog}\n  {names}"
        keys = [f"{command.partition(' ')[0]}:{subcommand}" for command, subcommand, _ in tools]
        self._tell("serving", text, anima_dir=where, tools=keys, pending=waiting)
        if not self._options.json:
            self._say("Ctrl-C waits for what runs and leaves; a second one does not wait")

    def _say_what_is_left(self) -> None:
        running, pending = self._store.list(State.RUNNING), self._store.list(State.PENDING)
        if running:
            detached, ended = "left running, until its tool ends", "interrupted, and left for the next host to finish"
            say(f"{detached if self._detaches else ended}: {_names(running)}")
        if pending:
            say(f"left pending, for the next host to run: {several(len(pending), 'task', 'tasks')}")

    def _tell(self, event: str, text: str, task: Task | None = None, **facts: Any) -> None:  # noqa: ANN401 - JSON
        """Print what happened, to which task: as *text* for people, or with these *facts* for programs."""
        if task is not None:
            [view] = views_of(self._store, [task])
            text = f"{time.strftime('%H:%M:%S')} {task.id} {view.name} {one_line(text, 300)}"
            facts["task"] = described(view, self._store)
        if not self._options.json:
            self._lines.put(text)
            return
        put(in_json(json.dumps({"event": event, "at": time.time(), **facts}, ensure_ascii=False)) + "\n")


def _names(tasks: Iterable[Task]) -> str:
    return ", ".join(f"{task.id} {one_line(task.name, 60)}" for task in tasks)


@contextlib.contextmanager
def _said_plainly(write: Callable[[str], None]) -> Iterator[None]:
    """Write each warning and error of the library in one line, without a traceback."""

    class Plain(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            write(one_line(record.getMessage() + (f": {error}" if error else ""), 500))

    logger, handler = logging.getLogger("animaworks_tasks"), Plain(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
