"""
What happens to the tasks of a store, whichever process does it, as a stream of events; logging is one of its readers.

A thread looks at each task that a watch of the store has seen change, and derives from its record what happened: so an
event may come a moment late, and what was between two looks comes at once. Nothing is decided by an event.
"""

import asyncio
import collections
import contextlib
import enum
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import attrs

from animaworks_tasks.errors import RecordError, TaskNotFoundError
from animaworks_tasks.store.protocol import Changes, Progress, Store, Watch
from animaworks_tasks.store.rules import Clock
from animaworks_tasks.task.model import State, Task

logger = logging.getLogger("animaworks_tasks")

EVENTS_KEPT: Final = 1000  # events that a slow reader may be behind
_RECENT: Final = 100  # tasks that a new reader's first look goes back
_SOON: Final = 0.5  # seconds; for a notification that is being published while nothing is seen of it
_ENDED_KEPT: Final = 10_000  # tasks of which a reader remembers that all was said
EVER: Final = datetime.min.replace(tzinfo=UTC)


class EventKind(enum.StrEnum):
    """
    What happened to a task.

    Attributes:
        SUBMITTED: It waits to be claimed.
        STARTED: An attempt began.
        PROGRESS: Its tool reported how far it is. Of several reports in a row the last may stand for all.
        ENDED: Its outcome is recorded.
        NOTIFIED: Its notification is published; nothing more happens to it.
    """

    SUBMITTED = "submitted"
    STARTED = "started"
    PROGRESS = "progress"
    ENDED = "ended"
    NOTIFIED = "notified"


@attrs.frozen(kw_only=True)
class TaskEvent:
    """
    One thing that happened.

    Attributes:
        kind: What.
        task_id: To which task.
        at: When, in UTC; of NOTIFIED when the task ended.
        task: The task, as it was when this was seen.
        progress: The report; None but for PROGRESS.
    """

    kind: EventKind
    task_id: str
    at: datetime
    task: Task
    progress: Progress | None = None


class Reader:
    """
    Is given each event once, in the order of a task's life.

    Args:
        put: Called with each event, and with None when no more will come, in the thread of the feed.
        since: What happened earlier is not said.
        task_id: Only events of this task, and none after its NOTIFIED; None for all.
    """

    def __init__(self, put: Callable[[TaskEvent | None], None], since: datetime, task_id: str | None = None) -> None:
        self.put, self.task_id, self._since = put, task_id, since
        self._said: dict[str, dict[EventKind, object]] = {}
        self._over: collections.OrderedDict[str, datetime] = collections.OrderedDict()

    def unfinished(self) -> set[str]:
        """Return the ids of the tasks of which more is to come, as far as they are known."""
        return {*self._said, *([] if self.task_id is None else [self.task_id])}

    def look(self, task: Task, now: datetime, *, over: bool, progress: Progress | None) -> None:
        """Say what is new of *task*; whether all is *over* with it, and its last report if it runs."""
        if self.task_id not in {None, task.id} or task.id in self._over:
            return
        said = self._said.setdefault(task.id, {})
        for kind, at, mark in _happened(task, now, progress, over=over):
            if at >= self._since and said.get(kind) != mark:
                said[kind] = mark
                report = progress if kind is EventKind.PROGRESS else None
                self.put(TaskEvent(kind=kind, task_id=task.id, at=at, task=task, progress=report))
        if over:
            del self._said[task.id]
            self._over[task.id] = task.finished_at or self._since
            if len(self._over) > _ENDED_KEPT:
                self._since = max(self._since, self._over.popitem(last=False)[1])
            if self.task_id is not None:
                self.put(None)

    def forget(self, task_id: str) -> None:
        """Expect no more of a task that is not there, or was pruned before all of it was seen."""
        self._said.pop(task_id, None)
        if self.task_id == task_id:
            self.put(None)


def _happened(
    task: Task, now: datetime, progress: Progress | None, *, over: bool
) -> Iterator[tuple[EventKind, datetime, object]]:
    """Yield what happened to *task* so far, when, and what tells it from another of its kind."""
    yield EventKind.SUBMITTED, task.submitted_at, True
    if task.started_at is not None or task.state is State.RUNNING:
        # Its view may not say yet since when it runs.
        yield EventKind.STARTED, task.started_at or now, task.attempt
    if progress is not None:
        yield EventKind.PROGRESS, progress.at, progress.at
    if task.finished_at is not None:
        yield EventKind.ENDED, task.finished_at, True
        if over:
            yield EventKind.NOTIFIED, task.finished_at, True


class Feed:
    """
    Gives the events of a store to readers, in a thread that runs from the first reader on until it is closed.

    Args:
        store: The store.
        interval: Seconds between looks at everything, where changes are not seen.
        clock: Tells the time in UTC.
    """

    def __init__(self, store: Store, interval: float, clock: Clock) -> None:
        self._store, self._interval, self._clock = store, interval, clock
        self._mutex = threading.Lock()  # guards the attributes from here on
        self._readers: list[Reader] = []
        self._new: list[Reader] = []  # who were not given a first look yet
        self._thread: threading.Thread | None = None
        self._watch: Watch | None = None
        self._closed = threading.Event()

    def add(self, reader: Reader) -> None:
        """Give events to *reader* from now on, of recent tasks also those before; return at once."""
        with self._mutex:
            if self._closed.is_set():
                reader.put(None)
                return
            self._new.append(reader)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="animaworks_tasks-events", daemon=True)
                self._thread.start()
        self._wake()

    def remove(self, reader: Reader) -> None:
        """Give nothing more to *reader*."""
        with self._mutex:
            self._readers = [each for each in self._readers if each is not reader]
            self._new = [each for each in self._new if each is not reader]

    def close(self) -> None:
        """Give the readers what has happened until now, and then None."""
        with self._mutex:
            self._closed.set()
            thread = self._thread
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _wake(self) -> None:
        watch = self._watch
        if watch is not None:
            watch.wake()

    def _run(self) -> None:
        again: set[str] = set()
        is_last = False
        try:
            watch = self._watch = self._opened()
            while watch is not None and not is_last:
                is_last = self._closed.is_set()
                changes = Changes()
                if not is_last and not self._new:
                    changes = watch.wait(_SOON if again else self._interval)
                again = self._look(Changes(changes.ids | watch.wait(0).ids | again, changes.incomplete), watch)
        finally:
            with self._mutex:
                self._closed.set()
                if self._watch is not None:
                    self._watch.close()
                for reader in (*self._readers, *self._new):
                    reader.put(None)

    def _opened(self) -> Watch | None:
        """Return a watch, once one can be had; None where we are closed before."""
        while True:
            try:
                return self._store.watch(closely=True)
            except OSError as error:
                logger.warning("the events of tasks cannot be seen, trying again: %s", error)
            if self._closed.wait(self._interval):
                return None

    def _look(self, changes: Changes, watch: Watch) -> set[str]:
        """Look at the tasks that changed; return those that have ended, and whose notification is not seen yet."""
        watch.refresh()
        with self._mutex:
            new, self._new = self._new, []
            self._readers += new
        ids = set(changes.ids)
        if new or changes.incomplete or watch.problem:
            with contextlib.suppress(OSError):
                ids |= {task.id for task in self._store.list(limit=_RECENT)}
            ids = ids.union(*(reader.unfinished() for reader in self._readers))
        return {task_id for task_id in ids if self._look_at(task_id)}

    def _look_at(self, task_id: str) -> bool:
        try:
            task = self._store.get(task_id)
            over = task.state is State.DONE and not self._store.runs(task_id)
            progress = self._store.read_progress(task_id) if task.state is State.RUNNING else None
        except TaskNotFoundError:
            for reader in self._readers:
                reader.forget(task_id)
            return False
        except (RecordError, OSError):
            return False
        for reader in self._readers:
            reader.look(task, self._clock(), over=over, progress=progress)
        return task.state is State.DONE and not over


class Stream:
    """The events of one reader as an async iterator of the running event loop; see :data:`EVENTS_KEPT`."""

    def __init__(self) -> None:
        self._loop, self._ready = asyncio.get_running_loop(), asyncio.Event()
        self._mutex = threading.Lock()
        self._events: collections.deque[TaskEvent | None] = collections.deque()

    def put(self, event: TaskEvent | None) -> None:
        """Keep *event*; from any thread. Where there is no room, drop a report of progress, or else the oldest."""
        with self._mutex:
            if len(self._events) >= EVENTS_KEPT:
                reports = (each for each in self._events if each and each.kind is EventKind.PROGRESS)
                self._events.remove(next(reports, self._events[0]))
            self._events.append(event)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ready.set)

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> TaskEvent:
        while not self._events:
            self._ready.clear()
            await self._ready.wait()
        with self._mutex:
            event = self._events.popleft()
        if event is None:
            raise StopAsyncIteration
        return event


def log(event: TaskEvent | None) -> None:
    """Log the start and the end of a task, with its id, its tool, and the seconds that it waited, or ran."""
    if event is None or event.kind not in {EventKind.STARTED, EventKind.ENDED}:
        return
    task, took, word = event.task, event.task.duration, str(event.task.outcome)
    if event.kind is EventKind.STARTED:
        took, word = event.at - task.submitted_at, "started"
    extra = {"task_id": task.id, "tool": task.name, "seconds": None if took is None else took.total_seconds()}
    logger.info("task %s %s %s", task.id, task.name, word, extra=extra)
