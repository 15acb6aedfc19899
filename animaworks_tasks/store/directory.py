"""
Tasks as files: a directory per state, a JSON record per task.

    <root>/pending/<id>.json    submitted, free to claim
    <root>/running/<id>.json    claimed; its owner holds <root>/locks/<id>.lock for as long as it lives
    <root>/done/<id>.json       final, kept until pruned

A record is whole or absent. Of two claimants one gets the lock, and only the holder of the lock moves a record on.
A lock dies with its process: a running record whose lock is free is an orphan, and may be recovered.

The order of the steps, and why each fsync is there, stands in docs/architecture.md. Needs a file system whose locks
work (checked at start).
"""

from __future__ import annotations

import contextlib
import enum
import functools
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, Unpack

import attrs

from animaworks_tasks.errors import ClaimLostError, PartlySubmittedError, RecordError, StoreError, TaskNotFoundError
from animaworks_tasks.fs import files, json, locks
from animaworks_tasks.fs.doorbell import FifoDoorbell, ring
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.inbox import DirectoryNotifications
from animaworks_tasks.notifications.render import MarkdownRenderer, Renderer
from animaworks_tasks.store.enqueue import create, place, place_many
from animaworks_tasks.store.newest import aged, forget, newest
from animaworks_tasks.store.protocol import (
    Claim,
    Clock,
    Progress,
    Recovery,
    SubmitOptions,
    changed_at,
    is_due,
    never_began,
    new_task,
    new_tasks,
    utc_now,
)
from animaworks_tasks.store.records import DirectoryRecords, ids, read_bytes
from animaworks_tasks.store.recovery import DirectoryRecovery
from animaworks_tasks.store.workspace import DirectoryWorkspace, kept_result, progress_from
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import State, Task, is_task_id
from animaworks_tasks.task.pending import ROOM, SIZE_LIMIT
from animaworks_tasks.task.states import Event, advance

_PATIENCE: Final = 1.0  # seconds; a sweep may try the lock of a task that begins, and holds it for some microseconds


class TaskStore:
    """
    Tasks in ``<anima_dir>/state/background_tasks``, shared by all processes that name this directory.

    Args:
        anima_dir: The Anima's directory; made if it is not there.
        language: Of the notifications, ``"ja"`` or ``"en"``.
        durability: ``"full"``: what was acknowledged survives a power cut. ``"process"``: only the death of processes;
            nothing is fsynced.
        render: Writes the notification of a done task instead: a text of at most 20,000 bytes. Must be picklable for
            processes, and pure. Where it fails, ours in English is left.
        clock: Tells the time in UTC.

    Raises:
        ValueError: *language* or *durability* is none of these words.
        StoreError: The directory cannot be made or written, or its file system has no working locks.
    """

    def __init__(
        self,
        anima_dir: str | os.PathLike[str],
        *,
        language: str = "ja",
        durability: Literal["full", "process"] = "full",
        render: Renderer | None = None,
        clock: Clock = utc_now,
    ) -> None:
        if durability not in {"full", "process"}:
            raise ValueError(f"durability is 'full' or 'process', not {durability!r}")
        self.layout = Layout(anima_dir)
        # By its whole path: a supervisor, or this process later on, may be in another directory.
        self._language = language
        self._arguments = (self.layout.anima, language, durability, render, clock)
        self._records = DirectoryRecords(
            self.layout, sync=durability == "full", render=render or MarkdownRenderer(language), clock=clock
        )
        self._recovery = DirectoryRecovery(self._records)
        try:
            create(self.layout, sync=self._records.sync)
            self._check_locks()
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(self.layout.root, error.strerror or str(error)) from error

    def __reduce__(self) -> tuple[object, ...]:
        # A supervisor is sent its store with every task, and need not look at the place each time.
        rebuild = _remembered if all(isinstance(argument, Hashable) for argument in self._arguments) else _rebuild
        return rebuild, self._arguments

    def __repr__(self) -> str:
        return f"TaskStore({self.layout.anima!r})"

    @property
    def notifications(self) -> DirectoryNotifications:
        """What finished tasks left for the heartbeat."""
        return self._records.notifications

    @property
    def location(self) -> str:
        """The Anima's directory."""
        return self.layout.anima

    # Submitting and looking.

    def submit(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        task = new_task(tool, argv, options, anima_dir=self.layout.anima, at=self._records.clock())
        if task.key is not None:
            with contextlib.suppress(TaskNotFoundError):
                return self._acknowledged(task.id)
        data = codec.written(task, room=2 * ROOM)  # claimed again after a release, it is a little larger
        check = functools.partial(codec.read_back, data, task.id)
        keyed = task.key is not None
        if not place(self.layout, task.id, data, sync=self._records.sync, keyed=keyed, check=check):
            return self.get(task.id)  # another submit of the same key came first
        return task

    def _acknowledged(self, task_id: str) -> Task:
        """Return a task that somebody else has submitted, or is about to: what we acknowledge must be durable."""
        task = self.get(task_id)
        where = {State.PENDING: self.layout.pending, State.RUNNING: self.layout.running, State.DONE: self.layout.done}
        self._records.sync_directory(where[task.state])  # one that has moved on since was made durable before it did
        return task

    def submit_many(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        coming = new_tasks(tool, argvs, options, anima_dir=self.layout.anima, at=self._records.clock())
        tasks: list[Task] = []

        def records() -> Iterator[tuple[str, bytes]]:
            for task in coming:
                # What a reader would say of the first it says of all, but for their words.
                whole = not tasks or not all(type(word) is str for word in task.argv)
                tasks.append(task)
                data = (codec.check if whole else codec.written)(task, room=2 * ROOM)
                yield task.id, data

        placed, problem = place_many(self.layout, records(), sync=self._records.sync)
        if problem is not None:
            raise PartlySubmittedError(tuple(placed), str(problem))
        return tasks

    def get(self, task_id: str) -> Task:
        if is_task_id(task_id):
            # A task moves on while we look: with running and done looked at on both sides of pending, we meet it.
            records = self._records
            for find in (records.done, records.running, records.pending, records.running, records.done):
                with contextlib.suppress(FileNotFoundError):
                    return find(task_id)
        raise TaskNotFoundError(task_id, self.location)

    def waits(self, task_id: str) -> bool:
        records, layout = self._records, self.layout
        return is_task_id(task_id) and records.has(layout.pending, task_id) and not self._moved_on(task_id)

    def runs(self, task_id: str) -> bool:
        return is_task_id(task_id) and self._records.runs(task_id)

    def pending(self, task_id: str) -> Task | None:
        if not is_task_id(task_id):
            return None
        try:
            task = self._records.pending(task_id)
        except FileNotFoundError:
            return None
        if not self._moved_on(task_id):
            return task
        with self._records.holding(task_id) as held, contextlib.suppress(FileNotFoundError):
            if held.lock is not None and self._records.free(task_id):  # or else dropped, if the task has ended
                return self._records.pending(task_id)  # its outcome was pruned just now: it is a new task
        return None

    def _moved_on(self, task_id: str) -> bool:
        return self._records.runs(task_id) or self._records.has(self.layout.done, task_id)

    def list(self, state: State | None = None, *, limit: int | None = None) -> Sequence[Task]:
        found: dict[str, Task] = {}
        for wanted, directory, find in (
            (State.PENDING, self.layout.pending, self._records.pending),
            (State.RUNNING, self.layout.running, self._records.running),
            (State.PENDING, self.layout.pending, self._records.pending),  # what was given back between the two looks
            (State.DONE, self.layout.done, self._records.done),  # the last word on what moved on
        ):
            if state in {None, wanted}:
                # A running record is as old as its submit, so its file does not tell when it was claimed; they are few.
                for task_id in self._chosen(directory, None if wanted is State.RUNNING else limit):
                    if wanted is State.PENDING and task_id in found:
                        continue
                    with contextlib.suppress(FileNotFoundError, RecordError, files.UnreadableFileError):
                        found[task_id] = find(task_id)
        return sorted(found.values(), key=changed_at, reverse=True)[:limit]

    def _chosen(self, directory: str, limit: int | None) -> Iterable[str]:
        if limit is None:
            return sorted(ids(directory))
        memory = self.layout.ages if directory == self.layout.done else None
        return newest(directory, limit, memory=memory, tmp=self.layout.tmp)

    def pending_ids(self) -> set[str]:
        return self._records.pending_ids()

    # Owning a task.

    def claim(self, task_id: str, *, due_by: datetime | None = None) -> Claim | None:
        if not is_task_id(task_id):
            return None
        with self._records.holding(task_id) as held:
            if held.lock is None or not self._records.free(task_id):
                return None
            try:
                task = self._records.to_be_claimed(task_id)
                self._records.forget_read(task)
            except (FileNotFoundError, codec.ForeignRecordError):
                return None
            except RecordError as error:
                self._recovery.reject(f"{task_id}.json", task_id, error.reason)
                return None
            running = advance(
                task, Event.CLAIM, attempt=task.attempt + 1, started_at=self._records.clock(), owner_pid=os.getpid()
            )
            name = f"{task_id}.json"
            if not is_due(task, due_by) or not self._records.link_to_running(name, task_id):
                return None
            try:
                announced = self._records.announced(running)
                self._records.leave_pending(name, durably=not announced)
            except BaseException:  # the disk said no, or we are to end: as long as it waits too, it has not begun
                self._records.withdraw(task_id)
                raise
            self._records.journal.note("claimed", task_id, tool=running.name, attempt=running.attempt)
            return Claim(running, held.keep(), announced=running if announced else None)

    def begin(self, task: Task, *, durably: bool = True) -> Claim:
        data = codec.check(task, room=ROOM)
        # The lock before the record, which never lies in pending/: at no moment is it anybody else's.
        with self._records.holding(task.id, patience=_PATIENCE) as held:
            if held.lock is None or not self._records.begin(task.id, data, sync=durably and self._records.sync):
                raise StoreError(self.layout.root, f"there is a task {task.id} already")
            running = advance(
                task, Event.CLAIM, attempt=task.attempt + 1, started_at=self._records.clock(), owner_pid=os.getpid()
            )
            claim = Claim(running, held.keep())
        self.announce(claim)
        return claim

    def secure(self, claim: Claim) -> None:
        self._records.sync_running(claim.task.id)

    def announce(self, claim: Claim) -> None:
        self._lock_of(claim)
        if claim.announced is not claim.task:
            self._records.announce(claim.task)
            claim.announced = claim.task

    def finish(self, claim: Claim, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - attributes of the task
        lock = self._lock_of(claim)
        task = self._records.settle(advance(claim.task, event, finished_at=self._records.clock(), **changes))
        self._records.forget_running(task.id)
        self._let_go(claim, lock)
        return task

    def release(self, claim: Claim, *, pause: float = 0.0, began: bool = True) -> Task:
        lock = self._lock_of(claim)
        task = self._records.give_back(claim.task, pause=pause, began=began)
        self._let_go(claim, lock)
        return task

    def _lock_of(self, claim: Claim) -> locks.Lock:
        if not isinstance(claim.lock, locks.Lock) or not claim.lock.is_held:
            raise ClaimLostError(claim.task.id)
        return claim.lock

    def _let_go(self, claim: Claim, lock: locks.Lock) -> None:
        claim.lock = None
        locks.drop(lock)
        ring(self.layout.doorbell, claim.task.id)

    # Recovering, cancelling and forgetting.

    def recover(
        self, may_run_again: Callable[[Task], bool] = lambda _: False, *, concerns: Callable[[Task], bool] | None = None
    ) -> Recovery:
        return self._recovery.recover(may_run_again, concerns)

    def sweep(self) -> None:
        """
        Remove what dead processes left lying: lock files, drafts, marks; and mend the views after a power cut.

        A journal that has grown large is put aside, as :meth:`recover` does too.
        """
        self._recovery.sweep()

    def request_cancel(self, task_id: str) -> Task:
        task = self.get(task_id)
        if task.state is State.DONE:
            return task
        # The mark first: it tells whoever owns the task, or is about to, and recovery if we die. It outlives a release.
        mark = self.layout.cancel(task_id)
        files.touch(mark)
        self._records.journal.note("cancel requested", task_id)
        claim = self.claim(task_id)
        if claim is None:
            task = self.get(task_id)
            if task.state is State.PENDING:  # given back under our hands, most likely
                claim = self.claim(task_id)
        if claim is not None:
            return self.finish(claim, Event.CANCEL, **never_began(claim.task))
        if task.state is State.DONE:  # it ended under our hands
            files.discard(mark)
        return task

    def prune(self, *, finished_before: datetime | None = None, keep: int | None = None) -> Sequence[str]:
        ripe = [
            (task_id, before)
            for task_id, before in self._ripe(finished_before, keep)
            if not self._still_needed(task_id)
        ]
        if ripe:
            # What stood against pruning has gone, and must have gone durably before the done record does; what came
            # since then is looked for once more.
            for directory in (self.layout.pending, self.layout.running, self.layout.notifications):
                self._records.sync_directory(directory)
            forget(self.layout.ages)
        pruned = [task_id for task_id, before in ripe if self._prune_one(task_id, before)]
        if pruned:
            forget(self.layout.ages)  # again: somebody may have asked in between
            self._records.sync_directory(self.layout.done)
        for task_id in pruned:
            self._records.forget_traces(task_id)
            self._records.journal.note("pruned", task_id)
        self._records.journal.rotate()
        return pruned

    def prunable(self, *, finished_before: datetime | None = None, keep: int | None = None) -> Prunable:
        """Say what :meth:`prune` would forget now, and what only because nobody has read its notice it would not."""
        found: dict[_Verdict, list[str]] = {verdict: [] for verdict in _Verdict}
        for task_id, before in self._ripe(finished_before, keep):
            found[self._verdict(task_id, before)].append(task_id)
        return Prunable(tuple(found[_Verdict.FORGET]), tuple(found[_Verdict.UNREAD]))

    def _ripe(self, finished_before: datetime | None, keep: int | None) -> Sequence[tuple[str, datetime | None]]:
        """
        Return what may be pruned by the times of the files, and before which moment the record must say that it ended.

        The file of a done record has the time at which its task ended, or, if it was copied, a later one: so no record
        need be read that is to stay. None: whatever it says, it is not among the newest.
        """
        oldest_first = sorted(aged(self.layout.done))
        besides = 0 if keep is None else max(0, len(oldest_first) - keep)
        limit = -1 if finished_before is None else files.file_time(finished_before.timestamp())
        return [
            (task_id, None if place < besides else finished_before)
            for place, (at, task_id) in enumerate(oldest_first)
            if place < besides or at <= limit
        ]

    def _prune_one(self, task_id: str, finished_before: datetime | None) -> bool:
        with self._records.holding(task_id) as held:
            if held.lock is None or self._verdict(task_id, finished_before) is not _Verdict.FORGET:
                return False
            files.clear(self.layout.cancel(task_id))  # of one who asked too late, and died; not for the key's next task
            self._records.hide(task_id)  # now: killed afterwards, nobody would look for it
            return files.discard(self._records.path(self.layout.done, task_id))

    def _still_needed(self, task_id: str) -> bool:
        return self.notifications.waits(task_id) or self._records.lives(task_id)

    def _verdict(self, task_id: str, finished_before: datetime | None) -> _Verdict:
        if self._records.lives(task_id):
            return _Verdict.KEEP
        try:
            finished_at = self._records.done(task_id).finished_at
        except (RecordError, FileNotFoundError):
            return _Verdict.KEEP
        if finished_before is not None and (finished_at is None or finished_at >= finished_before):
            return _Verdict.KEEP
        return _Verdict.UNREAD if self.notifications.waits(task_id) else _Verdict.FORGET

    # What belongs to a task besides its record.

    def events(self, task_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield what was noted in ``events.jsonl`` of one task, or of all, the oldest first."""
        return self._records.journal.read(task_id)

    def workspace(self, task_id: str) -> DirectoryWorkspace:
        return DirectoryWorkspace(self.layout, task_id, sync=self._records.sync)

    def read_log(self, task_id: str) -> bytes:
        try:
            return files.read(os.path.join(self.layout.logs, f"{task_id}.log"), limit=sys.maxsize)
        except OSError:  # none, or something else in its place
            return b""

    def read_result(self, task_id: str) -> str | None:
        task = self.get(task_id)
        whole = kept_result(self.layout, task)
        return task.result if whole is None else whole.decode("utf-8", "replace")

    def read_progress(self, task_id: str) -> Progress | None:
        try:
            value = json.load(read_bytes(self.layout.progress, f"{task_id}.json"))
        except (OSError, ValueError):
            return None
        return progress_from(value)

    def publish_catalogue(self, catalogue: Mapping[str, object]) -> None:
        data = json.dump({**catalogue, "language": self._language})  # in which notices are left from elsewhere too
        with contextlib.suppress(OSError):
            if files.read(self.layout.catalogue, limit=SIZE_LIMIT) == data:
                return
        files.replace(self.layout.catalogue, data, tmp=self.layout.tmp)

    def doorbell(self) -> FifoDoorbell:
        return FifoDoorbell(self.layout.doorbell)

    def _check_locks(self) -> None:
        """Refuse a file system on which a lock keeps nobody out, or which has none."""
        trouble = locks.lock_trouble(self.layout.tmp)
        if trouble is not None:
            raise StoreError(self.layout.root, f"{trouble}; use a local one")


@attrs.frozen
class Prunable:
    """
    What a prune would do.

    Attributes:
        forget: Ids of the tasks that would be forgotten, the oldest first.
        unread: Ids of those that would be too, had anybody acknowledged their notices.
    """

    forget: tuple[str, ...]
    unread: tuple[str, ...]


class _Verdict(enum.Enum):
    """What a prune does with a done task."""

    FORGET = enum.auto()
    UNREAD = enum.auto()  # kept, because its notice waits
    KEEP = enum.auto()


def _rebuild(
    anima_dir: str, language: str, durability: Literal["full", "process"], render: Renderer | None, clock: Clock
) -> TaskStore:
    return TaskStore(anima_dir, language=language, durability=durability, render=render, clock=clock)


@functools.lru_cache(maxsize=16)
def _remembered(*arguments: Any) -> TaskStore:  # noqa: ANN401 - those of _rebuild
    return _rebuild(*arguments)
