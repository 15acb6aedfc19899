"""
Decides what runs next: sleeps until the store changes, looks, and hands work to the backend.

It has no thread and no event loop of its own; the executor calls :meth:`Scheduler.run` in one. A thread of ours
whose call has ended starts the next one itself, without waking that one. The directories are the truth: what is kept
here (``seen.py``) is rebuilt from them, by a look at everything every few seconds and at what changed in between.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Future
from datetime import datetime
from typing import Final

from animaworks_tasks.animaworks.in_process import is_in_process
from animaworks_tasks.backends import Backend, traits_of
from animaworks_tasks.errors import RecordError, TaskNotFoundError
from animaworks_tasks.executor.seen import AT_BACKEND, BUSY, ELSEWHERE, TAKES_SLOT, Change, Phase, SeenTasks
from animaworks_tasks.executor.waiting import Waiting
from animaworks_tasks.store.protocol import Clock, Store
from animaworks_tasks.task.model import State, Task
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.worker.runner import may_run_again, run_task

logger = logging.getLogger("animaworks_tasks")

_AT_ONCE: Final = 100  # records read in one step: with a long backlog, tasks start before all of it is known
_REST: Final = 12.0  # for each second of reading on while tasks are ready, seconds in which nothing is read
_PAUSE_AFTER_ERROR: Final = 1.0  # seconds
_SOON: Final = 0.5  # seconds until the next look after a call was lost; at once would spin where none can be started


class Scheduler:
    """
    Claims pending tasks in order, as many at once as there are slots, and learns of every end.

    Args:
        store: Where the tasks are.
        registry: What they may call.
        backend: Where calls run.
        slots: How many tasks run at once, those of other hosts in this store included.
        interval: Seconds between two looks at everything.
        clock: Tells the time in UTC, for ``not_before``.
        on_end: Called with each task that ended, once, in the thread of :meth:`step`, or of the call.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        backend: Backend,
        *,
        slots: int,
        interval: float,
        clock: Clock,
        on_end: Callable[[Task], None],
    ) -> None:
        self._store, self._registry, self._backend = store, registry, backend
        self._slots, self._interval, self._clock, self._on_end = slots, interval, clock, on_end
        self._follows_up_at_once = traits_of(backend).callbacks_may_submit
        self._waiting = Waiting()
        self._stepping = threading.RLock()  # held by whoever touches what stands here down to the next lock
        self._seen = SeenTasks()
        self._next_look = 0.0
        self._read_on = 0.0  # when more unread records are read
        self._starts = True  # whether anything is started
        self._broken = False  # whether the backend said so
        self._published = -1  # how many tools the catalogue has
        self._returns: queue.SimpleQueue[tuple[str, Future[Task | None], bool]] = queue.SimpleQueue()  # True: unseen
        self._returned = threading.Condition()  # notified when a call has come back
        self._waking = threading.Lock()  # guards the next two
        self._store_watch = store.doorbell()
        self._closed = False

    # From any thread.

    def running(self) -> set[str]:
        """Return the ids of the tasks whose calls have not come back from the backend."""
        with self._stepping:
            return self._seen.ids(*AT_BACKEND)

    def drain(self, timeout: float) -> None:
        """Start nothing more, and wait until no call is left in the backend, or *timeout* seconds."""
        with self._stepping:
            self._starts = False
        with self._returned:
            self._returned.wait_for(lambda: not self._seen.count(*AT_BACKEND), timeout)

    def watch(self, task_id: str) -> Future[Task]:
        """
        Return a future of *task_id* being DONE.

        Raises:
            TaskNotFoundError: There is no such task.
            ExecutorClosedError: Nobody looks any more.
        """
        future = self._waiting.add(task_id)
        try:  # only now: had we looked first, it might have ended before we watched
            task = self._store.get(task_id)
        except BaseException:
            self.unwatch(task_id, future)
            raise
        if self._is_over(task):
            self._waiting.resolve(task)
        return future

    def unwatch(self, task_id: str, future: Future[Task]) -> None:
        """Forget a watch: whoever waited has given up."""
        self._waiting.remove(task_id, future)

    def watch_idle(self) -> Future[None]:
        """
        Return a future of nothing running and nothing being due, after one more look at everything.

        Raises:
            ExecutorClosedError: Nobody looks any more.
        """
        future = self._waiting.add_idle()
        self._next_look = 0.0
        self.wake()
        return future

    def wake(self) -> None:
        """Let :meth:`wait` return."""
        with self._waking:
            if not self._closed:  # or else its file descriptor may be somebody else's by now
                self._store_watch.wake()

    def close(self) -> None:
        """Tell those who still wait that nobody looks any more."""
        with self._stepping, self._waking:
            if self._closed:
                return
            self._closed = True
            self._store_watch.close()
        self._waiting.close()

    # From the one thread that steps.

    def run(self, stopping: threading.Event) -> None:
        """Step until *stopping* is set; whoever sets it wakes us."""
        while not stopping.is_set():
            try:
                self.step(self.wait())
            except Exception:  # a disk that says no, most likely: the watcher is the last that may die of it
                what = "a look at %s failed; the next one is in %.0f s"
                logger.exception(what, self._store.location, _PAUSE_AFTER_ERROR)
                stopping.wait(_PAUSE_AFTER_ERROR)

    def wait(self, limit: float = math.inf) -> set[str]:
        """Sleep until there may be something to do, or *limit* seconds; return the ids of tasks that changed."""
        with self._stepping:
            timeout = min(limit, min(self._next_look, self._next_reading()) - time.monotonic())
            due = self._seen.next_due()
            if due is not None:
                timeout = min(timeout, (due - self._clock()).total_seconds())
        if not self._returns.empty():  # whose thread met us in these lines, and relies on us
            return set()
        return self._store_watch.wait(max(0.0, timeout))

    def step(self, changed: set[str]) -> None:
        """Look at what ended, at what *changed* (and now and then at everything), and start what is due."""
        try:
            with self._stepping:
                self._collect()
                if time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + self._interval
                    self._look_at_everything()
                if not (len(changed) == 1 and self._start_unseen(*changed)):
                    self._look_at_each(changed)
                self._read_some()
                self._start_due()
                self._follow_up()  # a backend that runs a call where it is submitted has ended it already
                if not self._seen.count(*BUSY):
                    self._waiting.resolve_idle()
        finally:
            self._follow_up_unless_stepping()

    def _follow_up(self) -> None:
        while not self._returns.empty():
            self._collect()
            self._start_due()

    def _follow_up_unless_stepping(self) -> None:
        """Follow up what has ended, unless somebody else steps just now: who does so after letting go."""
        while not self._returns.empty() and self._stepping.acquire(blocking=False):
            enough = False
            try:
                if self._closed:
                    return
                self._follow_up()
                enough = bool(self._seen.count(Phase.READY))
            finally:
                self._stepping.release()
                # There may be more to read; or nothing left to do, which is for the stepper to tell; or this was an
                # error, and what else has ended is the stepper's too.
                if not enough:
                    self.wake()

    # Looking: all that is learnt from the store, but for the results of our own calls.

    def _look_at_everything(self) -> None:
        self._waiting.begin_look()
        self._publish_catalogue()
        self._recover()
        no_longer_pending = self._seen.list_pending(self._store.pending_ids())
        self._look_at_each(no_longer_pending)
        waited_for = self._waiting.ids()
        self._look_at_each([each for each in waited_for if self._seen.phase(each) in {Phase.UNKNOWN, Phase.UNREAD}])

    def _publish_catalogue(self) -> None:
        size = len(self._registry.tools())
        if self._published != size:
            try:
                self._store.publish_catalogue(self._registry.catalogue())
            except (OSError, TypeError, ValueError) as error:  # without one, submitters elsewhere check nothing
                logger.warning("the catalogue of tools could not be published, trying again: %s", error)
            else:
                self._published = size

    def _recover(self) -> None:
        """Finish what dead owners left, and learn who else runs what."""
        recovery = self._store.recover(may_run_again(self._registry))
        alive = set(recovery.alive)
        for task in recovery.settled:
            self._end(task, Change.RECOVERED)
        self._look_at_each(self._seen.ids(*ELSEWHERE) - alive)
        for task_id in self._seen.ids(*ELSEWHERE) - alive:  # not finished, by us or anybody: looked at again next time
            self._seen.move(task_id, Change.ORPHANED)
        for task_id in self._seen.ids(Phase.ENDED) - alive:
            self._seen.move(task_id, Change.GONE)
        self._look_at_each([task_id for task_id in alive if self._seen.move(task_id, Change.RUNS)])

    def _next_reading(self) -> float:
        """Return when more of a long backlog is read: seldom while there is enough to run, to slow that down little."""
        if not self._seen.count(Phase.UNREAD):
            return math.inf
        return self._read_on if self._seen.count(Phase.READY) else 0.0

    def _read_some(self) -> None:
        begun = time.monotonic()
        if begun >= self._next_reading():
            self._look_at_each(self._seen.take_unread(_AT_ONCE))
            now = time.monotonic()
            self._read_on = now + _REST * (now - begun)

    def _look_at_each(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            try:
                self._look_at(task_id)
            except OSError as error:  # the other tasks must not wait for one that the disk refuses
                logger.warning("task %s cannot be looked at, trying again: %s", task_id, error)
            except Exception:  # nor for one at which anything else fails, a store of the host's own, say
                logger.exception("task %s cannot be looked at, trying again", task_id)

    def _look_at(self, task_id: str) -> None:
        """Learn where *task_id* is now: queue it, report its end, or leave it to its owner."""
        if self._seen.phase(task_id) in {*AT_BACKEND, Phase.ENDED}:  # its own end is a change as well
            return
        try:
            # Most often it waits, which costs one look instead of three.
            task = self._store.pending(task_id) or self._store.get(task_id)
        except TaskNotFoundError:
            self._seen.move(task_id, Change.GONE)
        except RecordError:
            self._reject_unreadable(task_id)
        else:
            self._learn(task)

    def _learn(self, task: Task) -> None:
        if task.state is State.PENDING:
            self._seen.queue(task, self._clock())
        elif self._is_over(task):
            self._end(task, Change.DONE)
        else:
            self._seen.move(task.id, Change.RUNS_INSIDE if is_in_process(task) else Change.RUNS)

    def _is_over(self, task: Task) -> bool:
        """Return whether *task* is DONE and its owner is through: before that its notification may not be there yet."""
        return task.state is State.DONE and not self._store.runs(task.id)

    def _reject_unreadable(self, task_id: str) -> None:
        """Let the store end what cannot be read, if it is old enough; the next look at everything tries again."""
        self._seen.move(task_id, Change.RUNS)  # so that its end is reported in any case, if the disk fails on the way
        claim = self._store.claim(task_id)
        if claim is not None:  # it was still being written, and is whole now
            self._learn(self._store.release(claim, began=False))
            return
        try:
            task = self._store.get(task_id)
        except (TaskNotFoundError, RecordError):
            self._seen.move(task_id, Change.GONE)
        else:
            self._learn(task)

    # Starting, and what comes back.

    def _start_unseen(self, task_id: str) -> bool:
        """
        Start a task that changed, if nothing competes with it for a slot: only who claims it reads its record.

        One that is not due yet is not claimed; it is looked at then, as is whatever else cannot be had.
        """
        if not self._has_free_slot() or self._seen.count(Phase.READY, Phase.UNREAD):
            return False
        if self._seen.phase(task_id) is not Phase.UNKNOWN or not self._store.waits(task_id):
            return False
        self._seen.move(task_id, Change.STARTED)
        self._start(task_id, due_by=self._clock())
        return True

    def _start_due(self) -> None:
        self._seen.make_ready(self._clock())
        while self._has_free_slot() and (task_id := self._seen.start_next()) is not None:
            self._start(task_id)

    def _has_free_slot(self) -> bool:
        return self._starts and self._seen.count(*TAKES_SLOT) < self._slots

    def _start(self, task_id: str, due_by: datetime | None = None) -> None:
        """Hand a task to the backend; *due_by* for one whose record nobody has looked at."""
        try:
            future: Future[Task | None] = self._backend.submit(run_task, self._store, self._registry, task_id, due_by)
        except BaseException as error:  # any backend, any reason: the task stays pending, and the next look tries again
            self._seen.move(task_id, Change.REFUSED)
            if not isinstance(error, Exception):  # Ctrl-C in an inline tool
                raise
            if not isinstance(error, BrokenExecutor):
                logger.exception("task %s could not be handed to %r; it stays pending", task_id, self._backend)
            elif not self._broken:  # once: it will not get better
                what = "%r is broken and takes no more calls; tasks stay pending until an executor has a new one"
                logger.exception(what, self._backend)
                self._broken = True
            return
        future.add_done_callback(lambda done: self._report(task_id, done, unseen=due_by is not None))

    def _report(self, task_id: str, future: Future[Task | None], *, unseen: bool) -> None:
        self._returns.put((task_id, future, unseen))
        if self._follows_up_at_once:
            self._follow_up_unless_stepping()
        else:
            self.wake()

    def _collect(self) -> None:
        while True:
            try:
                task_id, future, unseen = self._returns.get_nowait()
            except queue.Empty:
                return
            with self._returned:
                self._seen.move(task_id, Change.RETURNED)
                self._returned.notify_all()
            try:
                task = future.result()
            except BaseException as error:  # noqa: BLE001 - what kills a call must not kill the watcher
                logger.warning("whoever ran task %s is gone; its record decides what becomes of it: %s", task_id, error)
                task, unseen = None, False
            if task is None and unseen:
                self._look_at_each([task_id])
            elif task is None:  # or another host was faster, or the store will not have it, for now or for good
                self._find_out(task_id)
            elif task.state is State.DONE:
                self._end(task, Change.DONE)
            else:
                self._seen.queue(task, self._clock())

    def _find_out(self, task_id: str) -> None:
        """Report the end of a task that somebody else has ended; or else leave it to the next look, which is soon."""
        with contextlib.suppress(TaskNotFoundError, RecordError, OSError):
            task = self._store.get(task_id)
            if self._is_over(task):
                self._end(task, Change.DONE)
                return
        self._next_look = min(self._next_look, time.monotonic() + _SOON)
        self.wake()

    def _end(self, task: Task, change: Change) -> None:
        self._waiting.resolve(task)
        if self._seen.move(task.id, change):  # or else its end was reported before, or is not ours to report
            self._on_end(task)
