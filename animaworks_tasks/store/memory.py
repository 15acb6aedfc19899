"""
Tasks in memory: the same promise as :class:`TaskStore`, as long as the process lives. For tests.

Records pass through the same strict check, so what a directory would refuse is refused here too.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import mkdtemp
from typing import Any, Unpack

from animaworks_tasks.errors import ClaimLostError, TaskNotFoundError
from animaworks_tasks.notifications.inbox import MemoryNotifications
from animaworks_tasks.notifications.render import MarkdownRenderer, Renderer, rendered
from animaworks_tasks.store import rules
from animaworks_tasks.store.protocol import Changes, Claim, Progress, Recovery
from animaworks_tasks.store.rules import Clock, Question, SubmitOptions, never, utc_now
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import State, Task
from animaworks_tasks.task.pending import ROOM
from animaworks_tasks.task.states import Event, advance


class MemoryTaskStore:
    """
    A store without files, threads of its own, or anything to clean up.

    Attributes:
        location: Where the tasks are kept, for messages.
        notifications: What finished tasks left for the heartbeat.

    Args:
        language: Of the notifications: ``"ja"``, ``"en"``, or ``"ko"``, which has Korean headings and English lines.
        render: Writes the notification of a done task instead, as for :class:`TaskStore`.
        clock: Tells the time in UTC; pass a manual one to make time stand still.

    Raises:
        ValueError: *language* is none of these words.
    """

    location = "memory"

    def __init__(self, *, language: str = "ja", render: Renderer | None = None, clock: Clock = utc_now) -> None:
        self._render: Renderer = render or MarkdownRenderer(language)
        self._clock = clock
        self._mutex = threading.RLock()
        self._tasks: dict[str, Task] = {}
        self._owned: dict[str, MemoryLock] = {}
        self._cancelled: set[str] = set()
        self._workspaces: dict[str, MemoryWorkspace] = {}
        self._watches: list[MemoryWatch] = []
        self.notifications = MemoryNotifications()

    def __repr__(self) -> str:
        return f"MemoryTaskStore({len(self._tasks)} tasks)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "a MemoryTaskStore cannot go to another process; use a TaskStore, or InlineBackend or ThreadBackend"
        )

    def submit(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        task = rules.new_task(tool, argv, options, anima_dir=self.location, at=self._clock())
        codec.check(task, room=2 * ROOM)
        with self._mutex:
            if task.key is not None:
                for same in self._tasks.values():
                    if same.key == task.key:
                        return same
            return self._keep(task)

    def submit_many(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        tasks = rules.new_tasks(tool, argvs, options, anima_dir=self.location, at=self._clock())
        for task in tasks:
            codec.check(task, room=2 * ROOM)
        with self._mutex:
            return [self._keep(task) for task in tasks]

    def _keep(self, task: Task) -> Task:
        self._tasks[task.id] = task
        for watch in list(self._watches):
            watch.changed(task.id)
        return task

    def _notify_closely(self, task_id: str) -> None:
        for watch in list(self._watches):
            if watch.closely:
                watch.changed(task_id)

    def begin(self, task: Task, *, durably: bool = True) -> Claim:  # noqa: ARG002 - memory survives nothing
        codec.check(task, room=ROOM)
        with self._mutex:
            self._tasks[task.id] = task  # nobody need see it wait
            claim = self.claim(task.id)
        assert claim is not None  # noqa: S101 - for the type checker: nobody else has seen it
        return claim

    def secure(self, claim: Claim) -> None:
        """Nothing is: it is memory."""

    def get(self, task_id: str) -> Task:
        with self._mutex:
            if task_id not in self._tasks:
                raise TaskNotFoundError(task_id, self.location)
            return self._tasks[task_id]

    def waits(self, task_id: str) -> bool:
        return self.pending(task_id) is not None

    def runs(self, task_id: str) -> bool:
        return task_id in self._owned

    def pending(self, task_id: str) -> Task | None:
        task = self._tasks.get(task_id)
        return task if task is not None and task.state is State.PENDING else None

    def list(self, state: State | None = None, *, limit: int | None = None) -> Sequence[Task]:
        with self._mutex:
            found = [task for task in self._tasks.values() if state in {None, task.state}]
        return sorted(found, key=rules.changed_at, reverse=True)[:limit]

    def pending_ids(self) -> set[str]:
        return {task.id for task in self.list(State.PENDING)}

    def read_record(self, task_id: str) -> bytes | None:
        task = self.pending(task_id)
        return None if task is None else codec.encode(task)

    def claim(self, task_id: str, *, due_by: datetime | None = None, record: bytes | None = None) -> Claim | None:
        with self._mutex:
            task = self._tasks.get(task_id)
            if task is None or task.state is not State.PENDING or not rules.is_due(task, due_by):
                return None
            if record is not None and record != codec.encode(task):
                return None
            running = advance(task, Event.CLAIM, attempt=task.attempt + 1, started_at=self._clock(), owner_pid=None)
            self._tasks[task_id] = running
            lock = self._owned[task_id] = MemoryLock()
            self._notify_closely(task_id)
            own = Claim(running, lock)
            if task_id not in self._cancelled:
                return own
            self.finish(own, Event.CANCEL, **rules.never_began(running))
            return None

    def publish_view(self, claim: Claim, *, session: int | None = None) -> None:  # noqa: ARG002 - nobody is elsewhere
        with self._mutex:
            self._lock_of(claim)
            self._tasks[claim.task.id] = claim.task

    def finish(self, claim: Claim, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - attributes of the task
        with self._mutex:
            self._lock_of(claim)
            task = rules.with_shown_call(advance(claim.task, event, finished_at=self._clock(), **changes))
            codec.check(task)
            self._cancelled.discard(task.id)
            self.notifications.publish(task, rendered(self._render, task))
            return self._release(claim, task)

    def requeue(self, claim: Claim, *, pause: float = 0.0, began: bool = True) -> Task:
        with self._mutex:
            self._lock_of(claim)
            return self._release(claim, rules.requeued(claim.task, pause=pause, began=began, now=self._clock()))

    def _release(self, claim: Claim, task: Task) -> Task:
        claim.lock = None
        del self._owned[task.id]
        return self._keep(task)

    def _lock_of(self, claim: Claim) -> None:
        lock = self._owned.get(claim.task.id)
        if lock is None or lock is not claim.lock or not lock.held:
            raise ClaimLostError(claim.task.id)

    def recover(
        self, may_run_again: Question = never, *, concerns: Question | None = None, only: Iterable[str] | None = None
    ) -> Recovery:
        finished: list[Task] = []
        requeued: list[Task] = []
        with self._mutex:
            alive = tuple(sorted(task_id for task_id, lock in self._owned.items() if lock.held))
            orphans = self._owned.keys() - set(alive)
            for task_id in sorted(orphans if only is None else orphans & set(only)):
                task = self._tasks[task_id]
                if concerns is not None and not concerns(task):
                    continue
                is_cancelled = task_id in self._cancelled
                runs_again = not is_cancelled and may_run_again(task)
                self._owned[task_id] = lock = MemoryLock()
                claim = Claim(task, lock)
                if runs_again:
                    requeued.append(self.requeue(claim))
                else:
                    event, changes = rules.orphan_ends(cancelled=is_cancelled)
                    finished.append(self.finish(claim, event, **changes))
        return Recovery(alive, tuple(finished), tuple(requeued))

    def request_cancel(self, task_id: str) -> Task:
        with self._mutex:
            if self.get(task_id).state is not State.DONE:
                self._cancelled.add(task_id)
                self.claim(task_id)  # one that waits ends with this
            return self.get(task_id)

    def prune(
        self, *, finished_before: datetime | None = None, keep: int | None = None, limit: int | None = None
    ) -> Sequence[str]:
        with self._mutex:
            newest_first = self.list(State.DONE)
            newest = {task.id for task in newest_first[:keep]}
            pruned = [
                task.id
                for task in reversed(newest_first)
                if not self.notifications.waits(task.id)
                and (task.id not in newest or (finished_before and rules.changed_at(task)[0] < finished_before))
            ][:limit]
            for task_id in pruned:
                del self._tasks[task_id]
                self._workspaces.pop(task_id, None)
        return pruned

    def workspace(self, task_id: str) -> MemoryWorkspace:
        with self._mutex:
            return self._workspaces.setdefault(
                task_id,
                MemoryWorkspace(lambda: task_id in self._cancelled, self._clock, lambda: self._notify_closely(task_id)),
            )

    def read_log(self, task_id: str) -> bytes:
        return bytes(self.workspace(task_id).log)

    def read_result(self, task_id: str) -> str | None:
        task = self.get(task_id)
        if task.result_file is None:
            return task.result
        return self.workspace(task_id).results[task.result_file].decode("utf-8", "replace")

    def read_progress(self, task_id: str) -> Progress | None:
        return self.workspace(task_id).progress

    def publish_catalogue(self, catalogue: Mapping[str, object]) -> None:
        """Nobody is elsewhere: it is memory."""

    def problem(self) -> None:
        return None

    def watch(self, *, closely: bool = False) -> MemoryWatch:
        watch = MemoryWatch(self._watches.remove, closely=closely)
        self._watches.append(watch)
        return watch


class MemoryLock:
    """What a claim holds; :meth:`release` without a finish is what the death of an owner looks like."""

    def __init__(self) -> None:
        self.held = True

    def release(self) -> None:
        """Let go without having finished: the task is an orphan."""
        self.held = False


class MemoryWorkspace:
    """See :class:`~animaworks_tasks.tools.context.Workspace`; results too large for a record stay in *results*."""

    def __init__(self, cancelled: Callable[[], bool], clock: Clock, on_progress: Callable[[], object] = bool) -> None:
        self.log = bytearray()
        self.progress: Progress | None = None
        self.results: dict[str, bytes] = {}
        self.cancel_requested = cancelled
        self._clock, self._on_progress = clock, on_progress
        self._scratch: Path | None = None

    def write_log(self, data: bytes) -> None:
        self.log += data

    def report_progress(self, fraction: float | None, message: str) -> None:
        self.progress = Progress(fraction, message, self._clock())
        self._on_progress()

    def keep_result(self, data: bytes) -> str:
        self.results["result.txt"] = data
        return "result.txt"

    def scratch(self) -> Path:
        if self._scratch is None:
            self._scratch = Path(mkdtemp(prefix="animaworks_tasks-"))
            # Not a TemporaryDirectory: that warns when nobody closes it, and there is nothing to close here.
            weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        return self._scratch


class MemoryWatch:
    """Sees what changes within the process; see :class:`~animaworks_tasks.store.protocol.Watch`."""

    problem: str | None = None

    def __init__(self, leave: Callable[[MemoryWatch], None], *, closely: bool) -> None:
        self._leave, self.closely = leave, closely
        self._seen: SimpleQueue[str | None] = SimpleQueue()

    def changed(self, task_id: str) -> None:
        """Wake the thread that waits, for *task_id*."""
        self._seen.put(task_id)

    def wait(self, timeout: float) -> Changes:
        seen: set[str | None] = set()
        with contextlib.suppress(Empty):
            seen.add(self._seen.get(timeout=timeout))
            while True:
                seen.add(self._seen.get_nowait())
        return Changes(frozenset(task_id for task_id in seen if task_id))

    def refresh(self) -> None:
        """Nothing is removed and made anew here."""

    def wake(self) -> None:
        self._seen.put(None)

    def close(self) -> None:
        with contextlib.suppress(ValueError):  # it was closed before
            self._leave(self)
