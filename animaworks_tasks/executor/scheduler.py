"""
Decides what runs next: sleeps until the store changes, looks, and hands work to the backend.

It has no thread and no event loop of its own: the executor calls :meth:`Scheduler.run` in a thread. A backend's thread
whose call has ended starts the next one itself. The directories are the truth: what is kept here (``seen.py``) is
rebuilt from them, by a full look every few seconds and a look at each task that changed in between.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import datetime
from typing import Final

from animaworks_tasks.backends import Backend, traits_of
from animaworks_tasks.errors import RecordError, TaskNotFoundError
from animaworks_tasks.executor.calls import Calls
from animaworks_tasks.executor.resources import Resources
from animaworks_tasks.executor.seen import AT_BACKEND, BUSY, ELSEWHERE, TAKES_SLOT, Change, Phase, SeenTasks
from animaworks_tasks.executor.waiting import Again, Waiting
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.store.rules import Clock, utc_now
from animaworks_tasks.task.model import State, Task
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.worker.runner import may_run_again

logger = logging.getLogger("animaworks_tasks")

_AT_ONCE: Final = 100  # records read in one step: with a long backlog, tasks start before all records are read
_REST: Final = 12.0  # seconds without reading for each second of reading, while tasks are ready
_PAUSE_AFTER_ERROR: Final = 1.0  # seconds
_SOON: Final = 0.5  # seconds until the next look after a call was lost; at once would spin if none can be started
_NO_NEWS: Final = {*AT_BACKEND, Phase.ENDED}  # what changes of such tasks is our own doing


class Scheduler:
    """
    Starts pending tasks in order, as many at once as there are slots, and reports the end of every task.

    Args:
        store: Where the tasks are.
        registry: What they may call.
        backend: Where calls run.
        slots: How many tasks run at once, those of other hosts in this store included.
        interval: Seconds between two looks at everything.
        clock: Tells the time in UTC, for ``not_before``.
        on_end: Called with each task that ended, once, in the thread of :meth:`step`, or of the call.
        upkeep: Called at each look at everything, with whether a task *waits* to start; returns whether one may.
        resources: What the tasks need; by default without limits.
    """

    def __init__(  # noqa: PLR0913 - the settings of a host, all but three by name
        self,
        store: Store,
        registry: Registry,
        backend: Backend,
        *,
        slots: int,
        interval: float,
        clock: Clock,
        on_end: Callable[[Task], None],
        upkeep: Callable[..., bool] = lambda **_: True,
        resources: Resources | None = None,
    ) -> None:
        self._store, self._registry = store, registry
        self._upkeep, self._resources = upkeep, resources or Resources(registry)
        self._calls = Calls(store, registry, backend, self._on_return, self._resources)
        self._slots, self._interval, self._clock, self._on_end = slots, interval, clock, on_end
        self._follows_up_at_once = traits_of(backend).callbacks_may_submit
        self.waiting = Waiting()  # the futures that watch() and watch_idle() return
        self._stepping = threading.RLock()  # guards the attributes from here to the next lock
        self._seen = SeenTasks(self._resources)
        self._again = Again()
        self._next_look = 0.0
        self._read_on = 0.0  # when more unread records are read, by the monotonic clock as is _next_look
        self._starts = True  # False: start nothing more
        self._returned = threading.Condition()  # notified when a call has come back
        self._waking = threading.Lock()  # guards the next two
        self._store_watch = store.watch()
        self._problem: str | None = None  # of the watch, as last logged
        self._is_writable = False  # as of the last look at everything; else nothing is started
        self._closed = self._woken = False
        self._lost: set[str] = set()  # no news until the next look: a claim that the disk refuses is itself a change

    # From any thread.

    def running(self) -> set[str]:
        """Return the ids of the tasks whose calls have not come back from the backend."""
        with self._stepping:
            self._collect()
            return self._seen.ids(*AT_BACKEND)

    def drain(self, timeout: float) -> None:
        """Start nothing more, and wait up to *timeout* seconds until no call is left in the backend."""
        with self._stepping:
            self._starts = False
        with self._returned:
            self._returned.wait_for(lambda: not self._seen.count(*AT_BACKEND), timeout)

    def watch(self, task_id: str) -> Future[Task]:
        """
        Return a future of *task_id* being DONE.

        Raises:
            TaskNotFoundError: There is no such task.
            ExecutorClosedError: The scheduler was closed.
        """
        future = self.waiting.add(task_id)
        try:  # after the line above, or a task that ends in between would be missed
            task = self._store.get(task_id)
        except BaseException:
            self.waiting.remove(task_id, future)
            raise
        if self._is_over(task):
            self.waiting.resolve(task)
        return future

    def watch_idle(self) -> Future[None]:
        """
        Return a future that is done when no task runs or is due, as found by a full look from now on.

        Raises:
            ExecutorClosedError: The scheduler was closed.
        """
        future = self.waiting.add_idle()
        self._next_look = 0.0
        self.wake()
        return future

    def wake(self) -> None:
        """Let :meth:`wait` return."""
        with self._waking:
            if not self._closed:  # or else its file descriptor may be another file by now
                self._woken = True
                self._store_watch.wake()

    def close(self) -> None:
        """Raise ExecutorClosedError in all futures that are not done."""
        with self._stepping, self._waking:
            if self._closed:
                return
            self._closed = True
            self._store_watch.close()
        self.waiting.close()

    # From the one thread that steps.

    def run(self, stopping: threading.Event) -> None:
        """Step until *stopping* is set; the caller then calls :meth:`wake`."""
        while not stopping.is_set():
            try:
                self.step(self.wait())
            except Exception:  # most likely an OSError; this thread must go on
                logger.exception("a look at %s failed, trying again", self._store.location)
                stopping.wait(_PAUSE_AFTER_ERROR)

    def wait(self, limit: float = math.inf) -> set[str]:
        """Sleep until there may be something to do, at most *limit* seconds; return the ids of tasks that changed."""
        with self._stepping:
            now, due = time.monotonic(), self._seen.next_due() - self._now()[1]
            deadline = min(now + min(limit, due), self._next_look, self._next_reading(), self._again.next_at)
        while not self._calls.have_returned():  # else one ended while we held the lock, and its thread relies on us
            seen = self._store_watch.wait(max(0.0, deadline - time.monotonic()))
            if seen.incomplete:
                self._next_look = 0.0
            changed = {i for i in seen.ids if self._seen.phase(i) not in _NO_NEWS and i not in self._lost}
            if changed or seen.incomplete or not seen.ids or self._woken:
                self._woken = False
                return changed
        return set()

    def step(self, changed: set[str]) -> None:
        """Look at the calls that ended and the tasks that *changed*, at times at all tasks, and start what is due."""
        try:
            with self._stepping:
                self._collect()
                if time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + self._interval
                    self._look_at_everything()
                if not (len(changed) == 1 and self._start_unseen(*changed)):
                    self._look_at_each(changed)
                    self._look_elsewhere(changed)
                self._look_elsewhere(self._again.take(time.monotonic()), again=False)
                self._read_some()
                self._start_due()
                self._follow_up()  # a backend that runs calls inline has ended them already
                if not self._seen.count(*BUSY):
                    self.waiting.resolve_idle()
        finally:
            self._follow_up_unless_stepping()

    def _follow_up(self) -> None:
        while self._calls.have_returned():
            self._collect()
            self._start_due()

    def _follow_up_unless_stepping(self) -> None:
        """Follow up the calls that ended, unless another thread steps now: it does this after it frees the lock."""
        while self._calls.have_returned() and self._stepping.acquire(blocking=False):
            enough = False
            try:
                if self._closed:
                    return
                self._follow_up()
                enough = bool(self._seen.count(Phase.READY))
            finally:
                self._stepping.release()
                # The stepping thread reads more, or finds nothing left to do; after an error it follows up other calls.
                if not enough:
                    self.wake()

    # Looking at the store.

    def _look_at_everything(self) -> None:
        self.waiting.begin_look()
        self._lost.clear()
        self._store_watch.refresh()  # before the look, so that later changes are seen
        before, self._problem = self._problem, self._store_watch.problem
        if self._problem not in {None, before}:
            logger.warning("%s: changes are seen every %g s only", self._problem, self._interval)
        self._is_writable = self._upkeep(waits=self._seen.count(Phase.READY, Phase.UNREAD) > 0)
        if not self._is_writable:  # what is found could neither be recovered nor started
            return
        alive = self._recover()
        for task_id in self._seen.ids(*ELSEWHERE) - alive:  # recovery did not finish it: looked at again next time
            self._seen.move(task_id, Change.ORPHANED)
        for task_id in self._seen.ids(Phase.ENDED) - alive:
            self._seen.move(task_id, Change.GONE)
        self._look_at_each([task_id for task_id in alive if self._seen.move(task_id, Change.RUNS)])
        self._look_at_each(self._seen.list_pending(self._store.pending_ids()))
        self._look_at_each([i for i in self.waiting.ids() if self._seen.phase(i) in {Phase.UNKNOWN, Phase.UNREAD}])

    def _now(self) -> tuple[datetime, float]:
        """Return what the clock says, and seconds by which nobody can set it back; a clock of a test is such itself."""
        now = self._clock()
        return now, time.monotonic() if self._clock is utc_now else now.timestamp()

    def _look_elsewhere(self, task_ids: Iterable[str], *, again: bool = True) -> None:
        """
        Look at those of *task_ids* that run elsewhere, and recover them if their owner died.

        The kernel reports an owner's end a moment before the lock is free, so the look is repeated soon, if *again*.
        """
        running = {task_id for task_id in task_ids if self._seen.phase(task_id) in ELSEWHERE}
        if running:
            alive = self._recover(running)
            if again:
                self._again.add(alive, time.monotonic())

    def _recover(self, only: set[str] | None = None) -> set[str]:
        """Recover the orphans among *only*, None for all; return the ids of tasks whose owner lives."""
        recovery = self._store.recover(may_run_again(self._registry), only=only)
        for task in recovery.finished:
            self._end(task, Change.RECOVERED)
        alive = set(recovery.alive)
        self._look_at_each((self._seen.ids(*ELSEWHERE) if only is None else only) - alive)
        return alive

    def _next_reading(self) -> float:
        """Return when more records of a backlog are read: less often while tasks are ready, not to slow them down."""
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
            except OSError as error:  # the other tasks must not wait for this one
                logger.warning("task %s cannot be looked at, trying again: %s", task_id, error)
            except Exception:  # of a store of the host's own, say
                logger.exception("task %s cannot be looked at, trying again", task_id)

    def _look_at(self, task_id: str) -> None:
        """Look up where *task_id* is now: queue it, report its end, or leave it to its owner."""
        if self._seen.phase(task_id) in {*AT_BACKEND, Phase.ENDED}:  # our own finish is a change too
            return
        try:
            # Most are pending, and the first call is the cheaper one.
            task = self._store.pending(task_id) or self._store.get(task_id)
        except TaskNotFoundError:
            self._seen.move(task_id, Change.GONE)
        except RecordError:
            self._reject_unreadable(task_id)
        else:
            if task.state is State.DONE and self._store.waits(task_id):  # as after a power cut
                self._store.claim(task_id)  # this drops the pending name
            self._learn(task)

    def _learn(self, task: Task) -> None:
        if task.state is State.PENDING:
            self._seen.queue(task, *self._now())
        elif self._is_over(task):
            self._end(task, Change.DONE)
        else:
            self._seen.find_running(task)

    def _is_over(self, task: Task) -> bool:
        """Return whether *task* is DONE and has no owner: before that its notification may not be published yet."""
        return task.state is State.DONE and not self._store.runs(task.id)

    def _reject_unreadable(self, task_id: str) -> None:
        """Have the store quarantine an unreadable record, if it is old enough; the next full look tries again."""
        self._seen.move(task_id, Change.RUNS)  # so that its end is reported even after an OSError here
        claim = self._store.claim(task_id, due_by=self._clock())  # opens it for writing only if it is old enough
        try:  # a claim: it was being written, and is whole now
            self._learn(self._store.get(task_id) if claim is None else self._store.requeue(claim, began=False))
        except (TaskNotFoundError, RecordError):
            self._seen.move(task_id, Change.GONE)

    # Starting, and the results.

    def _start_unseen(self, task_id: str) -> bool:
        """
        Start a task that changed, if nothing competes with it for a slot: only who claims it reads its record.

        One that is not due yet is not claimed; it is looked at then, as is whatever else cannot be had. For a
        veto, or a resource, it has to be read.
        """
        if self._registry.veto or self._resources.are_needed() or not self._has_free_slot():
            return False
        if self._seen.count(Phase.READY, Phase.UNREAD) or self._seen.phase(task_id) is not Phase.UNKNOWN:
            return False
        if waits := self._store.waits(task_id):
            self._seen.move(task_id, Change.STARTED)
            self._start(task_id, due_by=self._clock())
        return waits

    def _start_due(self) -> None:
        self._seen.make_ready(*self._now())
        while self._has_free_slot() and (task_id := self._seen.start_next()) is not None:
            self._start(task_id)

    def _has_free_slot(self) -> bool:
        return self._starts and self._is_writable and self._seen.count(*TAKES_SLOT) < self._slots

    def _start(self, task_id: str, due_by: datetime | None = None) -> None:
        taken = False
        try:
            taken = self._calls.start(task_id, due_by)
        finally:
            if not taken:  # the task stays pending, and the next look tries again
                self._seen.move(task_id, Change.REFUSED)

    def _on_return(self) -> None:
        if self._follows_up_at_once:
            self._follow_up_unless_stepping()
        else:
            self.wake()

    def _collect(self) -> None:
        while self._calls.have_returned():
            call = self._calls.take()
            if call.error is not None:  # before it counts as returned: the event of its own claim may come just now
                self._lost.add(call.task_id)
            with self._returned:
                self._seen.move(call.task_id, Change.RETURNED)
                self._returned.notify_all()
            if call.error is not None and self._starts:
                lost = "the call of task %s was lost; its record is looked at next: %s"
                logger.warning(lost, call.task_id, call.error)
            elif call.error is not None:  # in order: a call that had not begun is cancelled, or its process goes on
                logger.info("task %s is left to the next host or to its own process: this one stops", call.task_id)
            if call.unread:
                self._look_at_each([call.task_id])
            elif call.task is None:  # lost, claimed by another host, or not to be had
                self._find_out(call.task_id)
            elif call.task.state is State.DONE:
                self._end(call.task, Change.DONE)
            else:
                self._seen.queue(call.task, *self._now())

    def _find_out(self, task_id: str) -> None:
        """Report the end of a task if another process has finished it; or else look again soon."""
        with contextlib.suppress(TaskNotFoundError, RecordError, OSError):
            task = self._store.get(task_id)
            if self._is_over(task):
                self._end(task, Change.DONE)
                return
            if task.state is State.RUNNING:  # its owner may have died
                self._lost.discard(task_id)
                self._look_elsewhere([task_id])
        self._next_look = min(self._next_look, time.monotonic() + _SOON)
        self.wake()

    def _end(self, task: Task, change: Change) -> None:
        self.waiting.resolve(task)
        if self._seen.move(task.id, change):  # or else its end was reported before
            self._on_end(task)
