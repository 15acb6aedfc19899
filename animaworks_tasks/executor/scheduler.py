"""
Decides what runs next: a watcher that sleeps until the doorbell rings, looks, and hands work to the backend.

It has no thread and no event loop of its own; the executor calls :meth:`Scheduler.step` from one. A thread of ours
whose call has ended starts the next one itself, without waking that one. The directories are the truth: what stands
here is rebuilt from them, by a look at everything every few seconds and at what rang in between.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from datetime import datetime
from typing import Final

from animaworks_tasks.animaworks.in_process import is_in_process
from animaworks_tasks.backends import Backend, traits_of
from animaworks_tasks.errors import ExecutorClosedError, RecordError, TaskNotFoundError
from animaworks_tasks.store.protocol import Clock, Store
from animaworks_tasks.task.model import State, Task
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.worker.runner import may_run_again, run_task

logger = logging.getLogger("animaworks_tasks")

_AT_ONCE: Final = 100  # records read in one step: with a long backlog, tasks start before all of it is known
_REST: Final = 12.0  # for each second of reading on while tasks are ready, seconds in which nothing is read
_SOON: Final = 0.5  # seconds until the next look after a call was lost; at once would spin where none can be started

_Place = tuple[int, datetime, str]  # where a task stands in the queue: -priority, submitted_at, id


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
        self._goes_on = traits_of(backend).callbacks_may_submit
        self._stepping = threading.RLock()  # held by whoever touches what stands here down to the next lock
        self._slots, self._interval, self._clock, self._on_end = slots, interval, clock, on_end
        self._bell = store.doorbell()
        self._known: dict[str, _Place] = {}  # of each pending id, its one place in the two queues that counts
        self._ready: list[_Place] = []  # a heap
        self._later: list[tuple[datetime, _Place]] = []  # a heap, by not_before
        self._unread: set[str] = set()  # pending, and their records are yet to be looked at
        self._read_on = 0.0  # when the next of them are
        self._ours: set[str] = set()
        self._others: set[str] = set()  # running tasks of other hosts, or of a host that was here before us
        self._slotless: set[str] = set()  # of those, calls inside their hosts, which are none of our workers
        self._stuck: set[str] = set()  # of the others those whose owners died, and which the disk will not have settled
        self._told: set[str] = set()  # whose end was told, though running/ may still show what its owner takes away
        self._ended: queue.SimpleQueue[tuple[str, Future[Task | None], bool]] = queue.SimpleQueue()  # True: unseen
        self._next_look = 0.0
        self._published = -1  # how many tools the catalogue has
        self._mutex = threading.Lock()  # guards what other threads touch: the next three, and the bell's end
        self._watched: dict[str, list[Future[Task]]] = {}
        self._idle_watched: list[Future[None]] = []
        self._closed = self._broken = False
        self._full_house = False
        self._an_end = threading.Condition(self._mutex)

    # From any thread.

    def start_nothing(self) -> None:
        """Leave what is pending to the next executor."""
        with self._stepping:
            self._full_house = True

    def wait_for_an_end(self, timeout: float) -> None:
        """Wait until a task of ours has ended, if one runs, or *timeout* seconds."""
        with self._an_end:
            running = len(self._ours)
            self._an_end.wait_for(lambda: len(self._ours) < running or not self._ours, timeout)

    def watch(self, task_id: str) -> Future[Task]:
        """
        Return a future of *task_id* being DONE.

        Raises:
            TaskNotFoundError: There is no such task.
            ExecutorClosedError: Nobody looks any more.
        """
        future: Future[Task] = Future()
        with self._mutex:
            self._check_open()
            self._watched.setdefault(task_id, []).append(future)
        try:  # only now: had we looked first, it might have ended before we watched
            task = self._store.get(task_id)
        except BaseException:
            self.unwatch(task_id, future)
            raise
        if task.state is State.DONE and not self._store.runs(task_id):  # or else its notice may not be there yet
            self._resolve(task)
        return future

    def unwatch(self, task_id: str, future: Future[Task]) -> None:
        """Forget a watch: whoever waited has given up."""
        with self._mutex:
            futures = self._watched.get(task_id, [])
            if future in futures:
                futures.remove(future)
            if not futures:
                self._watched.pop(task_id, None)

    def watch_idle(self) -> Future[None]:
        """
        Return a future of nothing running and nothing being due, after one more look at everything.

        Raises:
            ExecutorClosedError: Nobody looks any more.
        """
        future: Future[None] = Future()
        with self._mutex:
            self._check_open()
            self._idle_watched = [other for other in self._idle_watched if not other.cancelled()]  # who has given up
            self._idle_watched.append(future)
            self._next_look = 0.0
        self.wake()
        return future

    def wake(self) -> None:
        """Let :meth:`wait` return."""
        with self._mutex:
            if not self._closed:  # or else its file descriptor may be somebody else's by now
                self._bell.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise ExecutorClosedError("the executor was stopped; the task goes on without it, or waits for the next")

    # From the one thread that steps.

    def wait(self, limit: float = math.inf) -> set[str]:
        """Sleep until there may be something to do, or *limit* seconds; return the ids that rang."""
        with self._stepping:
            timeout = min(limit, min(self._next_look, self._next_reading()) - time.monotonic())
            if self._later:
                timeout = min(timeout, (self._later[0][0] - self._clock()).total_seconds())
        if not self._ended.empty():  # whose thread met us in these lines, and relies on us
            return set()
        return self._bell.wait(max(0.0, timeout))

    def step(self, rung: set[str]) -> None:
        """Look at what ended, at what *rung* (and now and then at everything), and start what is due."""
        try:
            with self._stepping:
                self._collect()
                if time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + self._interval
                    self._look_at_everything()
                if not (len(rung) == 1 and self._start_unseen(*rung)):
                    self._look_at_each(rung)
                self._read_some()
                self._start_due()
                self._follow_up()  # a backend that runs a call where it is submitted has ended it already
                self._tell_idle()
        finally:
            self._go_on()

    def _follow_up(self) -> None:
        while not self._ended.empty():
            self._collect()
            self._start_due()

    def _go_on(self) -> None:
        """Follow up what has ended, unless somebody else steps just now: who does so after letting go."""
        while not self._ended.empty() and self._stepping.acquire(blocking=False):
            enough = False
            try:
                if self._closed:
                    return
                self._follow_up()
                enough = bool(self._ready)
            finally:
                self._stepping.release()
                # There may be more to read; or nothing left to do, which is for the stepper to tell; or this was an
                # error, and what else has ended is the stepper's too.
                if not enough:
                    self.wake()

    def _next_reading(self) -> float:
        """Return when more of a long backlog is read: seldom while there is enough to run, to slow that down little."""
        if not self._unread:
            return math.inf
        return self._read_on if self._ready else 0.0

    def _read_some(self) -> None:
        begun = time.monotonic()
        if begun >= self._next_reading():
            self._look_at_each([self._unread.pop() for _ in range(min(_AT_ONCE, len(self._unread)))])
            now = time.monotonic()
            self._read_on = now + _REST * (now - begun)

    def running(self) -> set[str]:
        """Return the ids of the tasks that this scheduler started and that have not ended."""
        return set(self._ours)

    def close(self) -> None:
        """Tell those who still wait that nobody looks any more."""
        with self._stepping, self._mutex:
            if self._closed:
                return
            self._closed = True
            futures: list[Future[Task] | Future[None]] = [f for fs in self._watched.values() for f in fs]
            futures += self._idle_watched
            self._watched.clear()
            self._idle_watched.clear()
            self._bell.close()
        for future in futures:
            with contextlib.suppress(InvalidStateError):
                future.set_exception(ExecutorClosedError("the executor was stopped while this was waited for"))

    def _look_at_everything(self) -> None:
        self._publish_catalogue()
        recovery = self._store.recover(may_run_again(self._registry))
        for task in recovery.settled:
            self._end(task)
        self._look_at_each(self._others - set(recovery.alive))  # while they count as others: their end is to be told
        self._told &= set(recovery.alive) | self._ours
        # What has ended has left them. What has not been settled, by us or anybody, is looked at again.
        known_others, self._others = self._others, (self._others | set(recovery.alive)) - self._ours - self._told
        self._stuck = self._others - set(recovery.alive)
        self._slotless &= self._others
        self._look_at_each(self._others - known_others)
        pending = self._store.pending_ids()
        self._look_at_each(self._known.keys() - pending)  # taken, or ended, by another
        self._unread = pending - self._known.keys() - self._ours
        with self._mutex:
            watched = set(self._watched)
        self._look_at_each(watched - self._ours - self._known.keys() - self._others)

    def _publish_catalogue(self) -> None:
        size = len(self._registry.tools())
        if self._published != size:
            try:
                self._store.publish_catalogue(self._registry.catalogue())
            except (OSError, TypeError, ValueError) as error:  # without one, submitters elsewhere check nothing
                logger.warning("the catalogue of tools could not be published, trying again: %s", error)
            else:
                self._published = size

    def _look_at_each(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            try:
                self._look_at(task_id)
            except OSError as error:  # the other tasks must not wait for one that the disk refuses
                logger.warning("task %s cannot be looked at, trying again: %s", task_id, error)
            except Exception:  # nor for one at which anything else fails, a store of the host's own, say
                logger.exception("task %s cannot be looked at, trying again", task_id)

    def _look_at(self, task_id: str) -> None:
        """Learn where *task_id* is now: queue it, tell its end, or leave it to whoever has it."""
        if task_id in self._ours or task_id in self._told:  # its own end rings as well
            return
        try:
            # Most often it waits, which costs one look instead of three.
            task = self._store.pending(task_id) or self._store.get(task_id)
        except TaskNotFoundError:
            self._forget(task_id)
            return
        except RecordError:
            self._claim_unreadable(task_id)
            return
        if task.state is State.PENDING:
            self._queue(task)
        elif task.state is State.RUNNING or self._store.runs(task_id):  # its owner may not have told of its end yet
            self._known.pop(task_id, None)
            self._others.add(task_id)
            if is_in_process(task):
                self._slotless.add(task_id)
        elif task_id in self._others or task_id in self._known:
            self._end(task)
        else:  # told before, or never ours to tell
            self._resolve(task)

    def _claim_unreadable(self, task_id: str) -> None:
        """Let the store end what cannot be read, if it is old enough; the next look at everything tries again."""
        self._others.add(task_id)  # so that its end is told in any case, if the disk says no on the way
        claim = self._store.claim(task_id)
        if claim is not None:  # it was still being written, and is whole now
            self._queue(self._store.release(claim, began=False))
            return
        try:
            task = self._store.get(task_id)
        except (TaskNotFoundError, RecordError):
            self._others.discard(task_id)
            return
        if task.state is State.DONE and not self._store.runs(task_id):
            self._end(task)

    def _queue(self, task: Task) -> None:
        self._others.discard(task.id)
        self._told.discard(task.id)
        if task.id in self._known:
            return
        place = self._known[task.id] = (-task.priority, task.submitted_at, task.id)
        if task.not_before is not None and task.not_before > self._clock():
            heapq.heappush(self._later, (task.not_before, place))
        else:
            heapq.heappush(self._ready, place)

    def _start_unseen(self, task_id: str) -> bool:
        """
        Start a task that rang, if nothing competes with it for a slot: its record is read once, by who claims it.

        One that is not due yet is not claimed; it is looked at then, as is whatever else cannot be had.
        """
        if self._full_house or self._ready or self._unread or self._taken() >= self._slots:
            return False
        if any(task_id in seen for seen in (self._ours, self._told, self._others, self._known)):
            return False
        if not self._store.waits(task_id):
            return False
        self._start(task_id, due_by=self._clock())
        return True

    def _start_due(self) -> None:
        while self._later and self._later[0][0] <= self._clock():
            heapq.heappush(self._ready, heapq.heappop(self._later)[1])
        while self._ready and not self._full_house and self._taken() < self._slots:
            place = heapq.heappop(self._ready)
            task_id = place[2]
            if self._known.get(task_id) is place:  # or else it left the queue by another way, and may stand there anew
                del self._known[task_id]
                self._start(task_id)

    def _taken(self) -> int:
        """Return how many slots are taken."""
        return len(self._ours) + len(self._others - self._slotless - self._stuck)

    def _start(self, task_id: str, due_by: datetime | None = None) -> None:
        """Hand a task to the backend; *due_by* for one whose record nobody has looked at."""
        self._ours.add(task_id)
        try:
            future: Future[Task | None] = self._backend.submit(run_task, self._store, self._registry, task_id, due_by)
        except BaseException as error:  # any backend, any reason: the task stays pending, and the next look tries again
            self._ours.discard(task_id)
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
        self._ended.put((task_id, future, unseen))
        if self._goes_on:
            self._go_on()
        else:
            self.wake()

    def _collect(self) -> None:
        while True:
            try:
                task_id, future, unseen = self._ended.get_nowait()
            except queue.Empty:
                return
            with self._an_end:
                self._ours.discard(task_id)
                self._an_end.notify_all()
            try:
                task = future.result()
            except BaseException as error:  # noqa: BLE001 - what kills a call must not kill the watcher
                logger.warning("whoever ran task %s is gone; its record decides what becomes of it: %s", task_id, error)
                task, unseen = None, False
            if task is None and unseen:
                self._others.add(task_id)  # we saw it wait, so its end is to be told, whoever had it
                self._look_at_each([task_id])
            elif task is None:  # or another host was faster, or the store will not have it, for now or for good
                self._find_out(task_id)
            elif task.state is State.DONE:
                self._end(task)
            else:
                self._queue(task)

    def _find_out(self, task_id: str) -> None:
        """Tell the end of a task that somebody else has ended; or else leave it to the next look, which is soon."""
        self._others.add(task_id)
        with contextlib.suppress(TaskNotFoundError, RecordError, OSError):
            task = self._store.get(task_id)
            if task.state is State.DONE and not self._store.runs(task_id):
                self._end(task)
                return
        self._next_look = min(self._next_look, time.monotonic() + _SOON)
        self.wake()

    def _end(self, task: Task) -> None:
        self._forget(task.id)
        self._resolve(task)
        if task.id not in self._told:
            self._told.add(task.id)
            self._on_end(task)

    def _forget(self, task_id: str) -> None:
        self._known.pop(task_id, None)
        self._others.discard(task_id)

    def _resolve(self, task: Task) -> None:
        with self._mutex:
            futures = self._watched.pop(task.id, [])
        for future in futures:
            with contextlib.suppress(InvalidStateError):  # whoever waited gave up meanwhile
                future.set_result(task)

    def _tell_idle(self) -> None:
        if self._ours or self._others - self._stuck or self._ready or self._unread:
            return
        with self._mutex:
            if time.monotonic() >= self._next_look:  # asked for since the last look at everything
                return
            idle, self._idle_watched = self._idle_watched, []
        for future in idle:
            with contextlib.suppress(InvalidStateError):
                future.set_result(None)
