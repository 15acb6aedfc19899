"""
Tasks as files: a directory per state, a JSON record per task.

    <root>/pending/<id>.json    submitted, free to claim
    <root>/running/<id>.json    claimed; its owner holds <root>/locks/<id>.lock for as long as it lives
    <root>/done/<id>.json       final, kept until pruned

A record is whole or absent. Of two claimants one gets the lock, and only the holder of the lock moves a record on.
A lock dies with its process: a running record whose lock is free is an orphan, and may be recovered.

The order of the steps, and why each fsync is there, stands in ARCHITECTURE.md. Needs a file system whose locks work
(checked at start).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from filelock import FileLock

from animaworks_tasks import _files, _records, _wire
from animaworks_tasks._doorbell import FifoDoorbell, ring
from animaworks_tasks._notifications import DirectoryNotifications, MarkdownRenderer, Renderer
from animaworks_tasks._paths import Layout
from animaworks_tasks._pending import ROOM, SIZE_LIMIT, create, first_word, new_id, place
from animaworks_tasks._states import Event, advance
from animaworks_tasks._store import Claim, Clock, Progress, Recovery, changed_at, utc_now
from animaworks_tasks._task import Cause, OnInterrupt, State, Task, is_task_id
from animaworks_tasks.errors import ClaimLostError, RecordError, StoreError, TaskNotFoundError

RIPE_AFTER: Final = 5.0  # seconds; an unreadable file younger than this may still be being written by a plain writer
_TICK: Final = 20_000_000  # nanoseconds; the time of a file is no finer than the kernel's tick
_STALE_DRAFT: Final = 3600.0  # seconds after which a file in tmp/ belongs to nobody


class TaskStore:
    """
    Tasks in ``<anima_dir>/state/background_tasks``, shared by all processes that name this directory.

    Args:
        anima_dir: The Anima's directory; made if it is not there.
        language: Of the notifications, ``"ja"`` or ``"en"``.
        durability: ``"full"``: what was acknowledged survives a power cut. ``"process"``: only the death of processes;
            nothing is fsynced.
        render: Writes the notification of a done task instead; must be picklable for processes, and pure.
        clock: Tells the time in UTC.

    Raises:
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
        self._sync = durability == "full"
        self._render: Renderer = render or MarkdownRenderer(language)
        self._clock = clock
        self._arguments = (anima_dir, language, durability, render, clock)
        self.notifications = DirectoryNotifications(self.layout, sync=self._sync)
        try:
            create(self.layout, sync=self._sync)
            self._check_locks()
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(self.layout.root, error.strerror or str(error)) from error

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, self._arguments

    def __repr__(self) -> str:
        return f"TaskStore({self.layout.anima!r})"

    @property
    def location(self) -> str:
        """The Anima's directory."""
        return self.layout.anima

    # Submitting and looking.

    def submit(  # noqa: D102 - the promise of Store
        self,
        tool: str,
        *argv: str,
        subcommand: str | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
        key: str | None = None,
        retry_of: str | None = None,
        expected_seconds: float | None = None,
        timeout_seconds: float | None = None,
        retries: int | None = None,
        on_interrupt: OnInterrupt | None = None,
        cwd: str | None = None,
    ) -> Task:
        task = Task(
            id=new_id(key),
            tool=tool,
            subcommand=first_word(argv) if subcommand is None else subcommand,
            argv=argv,
            anima_name=os.path.basename(self.layout.anima),
            anima_dir=self.layout.anima,
            submitted_at=self._clock(),
            priority=priority,
            not_before=not_before,
            key=key,
            retry_of=retry_of,
            expected_seconds=expected_seconds,
            timeout_seconds=timeout_seconds,
            retries=retries,
            on_interrupt=on_interrupt,
            cwd=cwd,
        )
        if key is not None:
            with contextlib.suppress(TaskNotFoundError):
                return self.get(task.id)
        data = _records.check(task, room=2 * ROOM)  # claimed again after a release, it is a little larger
        if not place(self.layout, task.id, data, sync=self._sync):
            return self.get(task.id)  # another submit of the same key came first
        return task

    def get(self, task_id: str) -> Task:  # noqa: D102 - as above
        if is_task_id(task_id):
            # A task moves on while we look: with running and done looked at on both sides of pending, we meet it.
            for find in (self._done, self._running, self._pending, self._running, self._done):
                with contextlib.suppress(FileNotFoundError):
                    return find(task_id)
        raise TaskNotFoundError(task_id, self.location)

    def list(self, state: State | None = None, *, limit: int | None = None) -> Sequence[Task]:  # noqa: D102 - as above
        found: dict[str, Task] = {}
        for wanted, directory, find in (
            (State.PENDING, self.layout.pending, self._pending),
            (State.RUNNING, self.layout.running, self._running),
            (State.DONE, self.layout.done, self._done),  # the last word, where a record moved on between two looks
        ):
            if state in {None, wanted}:
                # A running record is as old as its submit, so its file does not tell when it was claimed; they are few.
                for task_id in _newest(directory, None if wanted is State.RUNNING else limit):
                    with contextlib.suppress(FileNotFoundError, RecordError, _files.UnreadableFileError):
                        found[task_id] = find(task_id)
        return sorted(found.values(), key=changed_at, reverse=True)[:limit]

    def pending_ids(self) -> set[str]:  # noqa: D102 - as above
        return set(_ids(self.layout.pending))

    def _pending(self, task_id: str) -> Task:
        return self._read(self.layout.pending, task_id)

    def _running(self, task_id: str) -> Task:
        with contextlib.suppress(FileNotFoundError, RecordError, _files.UnreadableFileError):
            # The owner's file is for people and may be half gone after a power cut; the record beside it is not.
            return _records.decode(self._bytes(self.layout.running, f"{task_id}.owner.json"), task_id)
        task = self._read(self.layout.running, task_id)
        return advance(task, Event.CLAIM, attempt=task.attempt + 1)

    def _done(self, task_id: str) -> Task:
        return self._read(self.layout.done, task_id)

    def _read(self, directory: str, task_id: str) -> Task:
        try:
            data = self._bytes(directory, f"{task_id}.json")
        except _files.UnreadableFileError as error:
            raise RecordError(task_id, error.strerror or "it cannot be read") from None
        return _records.decode(data, task_id)

    @staticmethod
    def _bytes(directory: str, name: str) -> bytes:
        return _files.read(os.path.join(directory, name), limit=SIZE_LIMIT)

    # Owning a task.

    def claim(self, task_id: str) -> Claim | None:  # noqa: D102 - as above
        if not is_task_id(task_id):
            return None
        with self._holding(task_id) as held:
            if held.lock is None or not self._free(task_id):
                return None
            try:
                task = self._read(self.layout.pending, task_id)
                _records.check(task, room=ROOM)  # a plain writer may have left less room than we need
            except FileNotFoundError:
                return None
            except _records.ForeignRecordError:
                return None
            except RecordError as error:
                self._reject(f"{task_id}.json", task_id, error.reason)
                return None
            if not self._move_to_running(f"{task_id}.json", task_id):
                return None
            running = advance(
                task, Event.CLAIM, attempt=task.attempt + 1, started_at=self._clock(), owner_pid=os.getpid()
            )
            return Claim(running, held.keep())

    def _free(self, task_id: str) -> bool:
        """Say whether a pending record is to be run; called with the lock held."""
        if self._has(self.layout.done, task_id):  # what is left of a task that has ended: a second submit of its key
            self._sync_directory(self.layout.done)
            _files.discard(self._path(self.layout.pending, task_id))
            return False
        return not self._has(self.layout.running, task_id)  # an orphan: recovery comes first

    def _move_to_running(self, name: str, task_id: str) -> bool:
        """Link, make it durable, unlink, make that durable: killed between any two, the record is somewhere."""
        pending = os.path.join(self.layout.pending, name)
        try:
            _files.link(pending, self._path(self.layout.running, task_id))
        except FileNotFoundError:
            return False  # its submitter took it back
        self._sync_directory(self.layout.running)
        _files.discard(pending)
        self._sync_directory(self.layout.pending)
        return True

    def announce(self, claim: Claim) -> None:  # noqa: D102 - as above
        self._lock_of(claim)
        name = f"{claim.task.id}.owner.json"
        _files.discard(os.path.join(self.layout.running, name))  # of an attempt whose owner died
        # For people, so not fsynced: after a power cut the record beside it and the free lock say all that counts.
        _files.publish(
            self.layout.running,
            name,
            _records.check(claim.task),
            tmp=self.layout.tmp,
            sync=False,
            view=self.layout.view(claim.task.id),
        )

    def finish(self, claim: Claim, event: Event, **changes: Any) -> Task:  # noqa: D102 - as above
        lock = self._lock_of(claim)
        task = self._settle(advance(claim.task, event, finished_at=self._clock(), **changes))
        self._forget_running(task.id)
        self._let_go(claim, lock)
        return task

    def release(self, claim: Claim, *, not_before: datetime | None = None) -> Task:  # noqa: D102 - as above
        lock = self._lock_of(claim)
        task = self._return(claim.task, not_before)
        self._let_go(claim, lock)
        return task

    def _lock_of(self, claim: Claim) -> FileLock:
        if not isinstance(claim.lock, FileLock) or not claim.lock.is_locked:
            raise ClaimLostError(claim.task.id)
        return claim.lock

    def _let_go(self, claim: Claim, lock: FileLock) -> None:
        claim.lock = None
        _files.drop(lock)
        ring(self.layout.doorbell, claim.task.id)

    def _settle(self, task: Task) -> Task:
        """Publish the outcome, which is the commit, and leave the notice; returns what is on disk."""
        published = _files.publish(
            self.layout.done,
            f"{task.id}.json",
            _records.check(task),
            tmp=self.layout.tmp,
            sync=self._sync,
            view=self.layout.view(task.id),
        )
        if not published:  # an earlier try came this far: what it wrote stands
            task = self._done(task.id)
            self._mend_view(task.id)
        self.notifications.publish(task, self._render(task))
        return task

    def _return(self, task: Task, not_before: datetime | None) -> Task:
        """Put a running record back to pending, for the next attempt."""
        back = advance(task, Event.RETRY, not_before=not_before, started_at=None, owner_pid=None)
        data = _records.check(back)
        while not _files.publish(
            self.layout.pending, f"{task.id}.json", data, tmp=self.layout.tmp, sync=self._sync
        ):  # a second submit of the same key, which knows nothing of the attempts made
            _files.discard(self._path(self.layout.pending, task.id))
        self._hide(task.id)
        self._forget_running(task.id, waits=True)
        return back

    def _mend_view(self, task_id: str) -> None:
        """Let the view show how the task ended: whoever published that may have died before."""
        _files.show(self._path(self.layout.done, task_id), self.layout.view(task_id), tmp=self.layout.tmp)

    def _hide(self, task_id: str) -> None:
        """Take the view of a task away that waits again: others find it in pending/, and it would say running."""
        with contextlib.suppress(OSError):
            _files.discard(self.layout.view(task_id))

    def _forget_running(self, task_id: str, *, waits: bool = False) -> None:
        """Remove what says that a task runs. One that *waits* again keeps the wish that it stop, if there is one."""
        if not waits:
            _files.discard(os.path.join(self.layout.running, f"{task_id}.cancel"))
        # The record last: as long as it is there, recovery looks at the task.
        for name in (f"{task_id}.owner.json", f"{task_id}.json"):
            _files.discard(os.path.join(self.layout.running, name))

    # What cannot be read.

    def _reject(self, name: str, task_id: str, reason: str) -> Task | None:
        """End what stands unreadable in pending/ as rejected; None while it may still be being written."""
        path = os.path.join(self.layout.pending, name)
        try:
            age = time.time() - os.lstat(path).st_mtime
        except FileNotFoundError:
            return None
        if 0 <= age < RIPE_AFTER or not self._move_to_running(name, task_id):
            return None
        return self._settle_unreadable(task_id, reason, name)

    def _settle_unreadable(self, task_id: str, reason: str, name: str) -> Task:
        kept = f"quarantine/{task_id}.json"
        name = name.encode("utf-8", "backslashreplace").decode()  # whoever made it may not write UTF-8
        submitted = Task(
            id=task_id,
            tool="unknown",
            anima_name=os.path.basename(self.layout.anima),
            anima_dir=self.layout.anima,
            submitted_at=self._clock(),
        )
        task = self._settle(
            advance(
                submitted,
                Event.REJECT,
                finished_at=self._clock(),
                cause=Cause.REJECTED,
                error=f"pending/{name} is not a task record: {reason}",
                hint=f"the file is kept as state/background_tasks/{kept}; correct it and submit it again",
            )
        )
        self._quarantine(self._path(self.layout.running, task_id), reason)
        self._forget_running(task_id)
        ring(self.layout.doorbell, task_id)
        return task

    def _quarantine(self, path: str, reason: str) -> None:
        """Move a bad file out of the way, with a note beside it that says why."""
        name = os.path.basename(path)
        target = os.path.join(self.layout.quarantine, name)
        if os.path.lexists(target):
            target = f"{target}.{time.time_ns()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, target)
            self._sync_directory(self.layout.quarantine)
            self._sync_directory(os.path.dirname(path))
        note = f"{reason}\n".encode("utf-8", "replace")
        _files.publish(
            self.layout.quarantine, os.path.basename(target) + ".why.txt", note, tmp=self.layout.tmp, sync=self._sync
        )

    # Recovery.

    def recover(self, may_run_again: Callable[[Task], bool] = lambda _: False) -> Recovery:  # noqa: D102 - as above
        alive: list[str] = []
        settled: list[Task] = []
        returned: list[Task] = []
        settled += self._reject_misnamed()
        synced = False
        for task_id in sorted(_ids(self.layout.running)):
            with self._holding(task_id) as held:
                if held.lock is None:
                    alive.append(task_id)
                elif self._has(self.layout.running, task_id):
                    if not synced:  # what a dead process left need not be durable, and we are about to build on it
                        self._sync_all()
                        synced = True
                    task = self._recover_one(task_id, may_run_again)
                    (settled if task.state is State.DONE else returned).append(task)
        return Recovery(tuple(alive), tuple(settled), tuple(returned))

    def _recover_one(self, task_id: str, may_run_again: Callable[[Task], bool]) -> Task:
        try:
            submitted = self._read(self.layout.running, task_id)
        except RecordError as error:
            return self._settle_unreadable(task_id, error.reason, f"{task_id}.json")
        if self._has(self.layout.done, task_id):
            with contextlib.suppress(RecordError):
                done = self._done(task_id)
                self.notifications.publish(done, self._render(done))
                self._mend_view(task_id)
                self._forget_running(task_id)
                return done
            self._quarantine(self._path(self.layout.done, task_id), "the outcome could not be read")
        waiting = self._never_started(task_id, submitted)
        if waiting is not None:
            self._hide(task_id)
            self._forget_running(task_id, waits=True)
            self._sync_directory(self.layout.running)
            return waiting
        running = self._running(task_id)
        if may_run_again(running) and not self._cancelled(task_id):
            return self._return(running, None)
        event, changes = self._verdict(task_id)
        task = self._settle(advance(running, event, finished_at=self._clock(), **changes))
        self._forget_running(task_id)
        return task

    def _verdict(self, task_id: str) -> tuple[Event, dict[str, object]]:
        error = "its process died while it was running; it may have partly run"
        if self._cancelled(task_id):
            return Event.CANCEL, {"error": error}
        return Event.FAIL, {"cause": Cause.INTERRUPTED, "error": error}

    def _never_started(self, task_id: str, running: Task) -> Task | None:
        """
        Return the pending record of an orphan whose owner died before the tool began, or after it was given back.

        Not every pending record says so: a second submit of the same key, while the first ran, leaves one too. It
        differs from the one that was claimed, and has no attempt more.
        """
        try:
            pending = self._pending(task_id)
        except (FileNotFoundError, RecordError):
            return None
        return pending if pending == running or pending.attempt > running.attempt else None

    def _reject_misnamed(self) -> Sequence[Task]:
        """End files in pending/ whose name is no id: under an id made from the file itself, the same at every look."""
        rejected = []
        for name in _files.names(self.layout.pending):
            if name.endswith(".json") and not name.startswith(".") and not is_task_id(name.removesuffix(".json")):
                path = os.path.join(self.layout.pending, name)
                try:
                    status = os.lstat(path)
                except FileNotFoundError:
                    continue
                task_id = new_id(f"{name}/{status.st_ino}/{status.st_mtime_ns}")
                with self._holding(task_id) as held:
                    if held.lock is not None and not self._foreign(name) and self._free(task_id):
                        task = self._reject(name, task_id, "its name is not 12 lowercase hex digits and .json")
                        rejected += [task] if task else []
        return rejected

    def _foreign(self, name: str) -> bool:
        try:
            _records.decode(self._bytes(self.layout.pending, name), name)
        except _records.ForeignRecordError:
            return True
        except (OSError, RecordError):
            pass
        return False

    def sweep(self) -> None:
        """Remove what dead processes left lying: lock files, drafts, and marks of tasks that no longer run."""
        running = set(_ids(self.layout.running))
        for name in _files.names(self.layout.locks):
            task_id = name.removesuffix(".lock")
            if is_task_id(task_id) and task_id not in running:
                with self._holding(task_id):
                    pass  # letting go unlinks it
        for name in _files.names(self.layout.running):
            task_id = name.split(".", 1)[0]
            if is_task_id(task_id) and name != f"{task_id}.json" and task_id not in running:
                with self._holding(task_id) as held:
                    if held.lock is not None and not self._lives(task_id):
                        _files.discard(os.path.join(self.layout.running, name))
        for name in _files.names(self.layout.tmp):
            path = os.path.join(self.layout.tmp, name)
            with contextlib.suppress(OSError):
                if time.time() - os.lstat(path).st_mtime > _STALE_DRAFT:
                    os.unlink(path)

    # Cancelling and forgetting.

    def request_cancel(self, task_id: str) -> Task:  # noqa: D102 - as above
        task = self.get(task_id)
        if task.state is State.DONE:
            return task
        claim = self.claim(task_id)
        mark = os.path.join(self.layout.running, f"{task_id}.cancel")
        if claim is None:
            # Somebody owns it, or is about to. The mark tells whoever that is: it outlives a release, and is looked at
            # before the tool starts and while it runs.
            _files.touch(mark)
            task = self.get(task_id)
            if task.state is State.PENDING:  # given back under our hands, most likely
                claim = self.claim(task_id)
        if claim is not None:
            return self.finish(claim, Event.CANCEL, error="it was cancelled before it started")
        if task.state is State.DONE:  # it ended under our hands
            _files.discard(mark)
        return task

    def _cancelled(self, task_id: str) -> bool:
        return os.path.lexists(os.path.join(self.layout.running, f"{task_id}.cancel"))

    def prune(self, *, finished_before: datetime) -> Sequence[str]:  # noqa: D102 - as above
        # What stands against pruning must be durable before the done record goes.
        self._sync_directory(self.layout.running)
        self._sync_directory(self.layout.notifications)
        pruned = [task_id for task_id in _ids(self.layout.done) if self._prune_one(task_id, finished_before)]
        if pruned:
            self._sync_directory(self.layout.done)
        for task_id in pruned:
            self._remove_traces(task_id)
        return pruned

    def _prune_one(self, task_id: str, finished_before: datetime) -> bool:
        with self._holding(task_id) as held:
            if held.lock is None or self.notifications.waits(task_id):
                return False
            if self._has(self.layout.running, task_id) or self._has(self.layout.pending, task_id):
                return False
            try:
                task = self._done(task_id)
            except (RecordError, FileNotFoundError):
                return False
            if task.finished_at is None or task.finished_at >= finished_before:
                return False
            return _files.discard(self._path(self.layout.done, task_id))

    def _remove_traces(self, task_id: str) -> None:
        import shutil

        shutil.rmtree(os.path.join(self.layout.results, task_id), ignore_errors=True)
        for path in (
            os.path.join(self.layout.logs, f"{task_id}.log"),
            os.path.join(self.layout.progress, f"{task_id}.json"),
            os.path.join(self.layout.read, f"{task_id}.md"),
            self.layout.view(task_id),
        ):
            _files.discard(path)

    # What belongs to a task besides its record.

    def workspace(self, task_id: str) -> DirectoryWorkspace:  # noqa: D102 - as above
        return DirectoryWorkspace(self.layout, task_id, sync=self._sync)

    def read_log(self, task_id: str) -> bytes:  # noqa: D102 - as above
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self.layout.logs, f"{task_id}.log"), "rb") as f:
            return f.read()
        return b""

    def read_progress(self, task_id: str) -> Progress | None:  # noqa: D102 - as above
        try:
            value = _wire.load(self._bytes(self.layout.progress, f"{task_id}.json"))
        except (OSError, ValueError):
            return None
        return _progress(value)

    def publish_catalogue(self, catalogue: Mapping[str, object]) -> None:  # noqa: D102 - as above
        data = _wire.dump(catalogue)
        with contextlib.suppress(OSError):
            if _files.read(self.layout.catalogue, limit=SIZE_LIMIT) == data:
                return
        _files.replace(self.layout.catalogue, data, tmp=self.layout.tmp)

    def catalogue(self) -> Mapping[str, object] | None:  # noqa: D102 - as above
        try:
            value = _wire.load(_files.read(self.layout.catalogue, limit=SIZE_LIMIT))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def doorbell(self) -> FifoDoorbell:  # noqa: D102 - as above
        return FifoDoorbell(self.layout.doorbell)

    # Small things.

    def _path(self, directory: str, task_id: str) -> str:
        return os.path.join(directory, f"{task_id}.json")

    def _lives(self, task_id: str) -> bool:
        return self._has(self.layout.running, task_id) or self._has(self.layout.pending, task_id)

    def _has(self, directory: str, task_id: str) -> bool:
        return os.path.lexists(self._path(directory, task_id))

    def _sync_directory(self, directory: str) -> None:
        if self._sync:
            _files.sync_directory(directory)

    def _sync_all(self) -> None:
        layout = self.layout
        for directory in (layout.pending, layout.running, layout.done, layout.notifications, layout.read):
            self._sync_directory(directory)

    def _holding(self, task_id: str) -> _Holding:
        return _Holding(self.layout.lock(task_id))

    def _check_locks(self) -> None:
        """Refuse a file system on which a lock keeps nobody out, or which has none."""
        path = os.path.join(self.layout.tmp, f"probe.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            with _Holding(path) as first, _Holding(path) as second:
                if first.lock is None or second.lock is not None:
                    raise StoreError(self.layout.root, "locks do not work on its file system; use a local one")
        except OSError as error:
            if error.errno not in {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}:
                raise
            reason = f"its file system has no locks ({error.strerror}); use a local one"
            raise StoreError(self.layout.root, reason) from error


class _Holding:
    """Takes a lock for the length of a ``with`` block; *lock* is None where another has it. Letting go unlinks it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.lock: FileLock | None = None
        self._kept = False

    def __enter__(self) -> _Holding:
        self.lock = _files.hold(self._path)
        return self

    def keep(self) -> FileLock | None:
        """Go on holding it after the block."""
        self._kept = True
        return self.lock

    def __exit__(self, *_: object) -> None:
        if self.lock is not None and not self._kept:
            _files.drop(self.lock)


class DirectoryWorkspace:
    """The files of one running task; see :class:`~animaworks_tasks._context.Workspace`."""

    def __init__(self, layout: Layout, task_id: str, *, sync: bool) -> None:
        self._layout, self._task_id, self._sync = layout, task_id, sync
        self.log_path = os.path.join(layout.logs, f"{task_id}.log")
        self.progress_path = os.path.join(layout.progress, f"{task_id}.json")

    def write_log(self, data: bytes) -> None:  # noqa: D102 - the promise of Workspace
        with contextlib.suppress(OSError):
            _files.append_line(self.log_path, data)

    def report_progress(self, fraction: float | None, message: str) -> None:  # noqa: D102 - as above
        report = {"fraction": fraction, "message": message, "at": time.time()}
        with contextlib.suppress(OSError, ValueError):
            _files.replace(self.progress_path, _wire.dump(report), tmp=self._layout.tmp)

    def cancel_requested(self) -> bool:  # noqa: D102 - as above
        return os.path.lexists(os.path.join(self._layout.running, f"{self._task_id}.cancel"))

    def keep_result(self, data: bytes) -> str:  # noqa: D102 - as above
        directory = self._results()
        name = "result.txt"
        _files.discard(os.path.join(directory, name))  # of an earlier attempt
        _files.publish(directory, name, data, tmp=self._layout.tmp, sync=self._sync)
        return os.path.join("results", self._task_id, name)

    def scratch(self) -> Path:  # noqa: D102 - as above
        return Path(self._results())

    def _results(self) -> str:
        directory = os.path.join(self._layout.results, self._task_id)
        _files.make_directory(directory, sync=self._sync)
        return directory


def _ids(directory: str) -> set[str]:
    stems = (name.removesuffix(".json") for name in _files.names(directory) if name.endswith(".json"))
    return {stem for stem in stems if is_task_id(stem)}


def _newest(directory: str, limit: int | None) -> Sequence[str]:
    """Return at least the *limit* ids whose files changed last; the time of the file is close enough to choose by."""
    if limit is None:
        return sorted(_ids(directory))
    aged = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and is_task_id(entry.name.removesuffix(".json")):
                with contextlib.suppress(FileNotFoundError):
                    aged.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name.removesuffix(".json")))
    newest = sorted(aged, reverse=True)[:limit]
    return [task_id for at, task_id in aged if newest and at >= newest[-1][0] - _TICK]


def _progress(value: object) -> Progress | None:
    if not isinstance(value, dict):
        return None
    fraction, message, at = value.get("fraction"), value.get("message"), value.get("at")
    if not isinstance(message, str) or not isinstance(at, float) or not isinstance(fraction, float | int | None):
        return None
    try:
        return Progress(None if fraction is None else float(fraction), message, datetime.fromtimestamp(at, UTC))
    except (ValueError, OverflowError, OSError):  # a number beyond all bounds, or a time beyond the calendar
        return None


def _rebuild(
    anima_dir: str, language: str, durability: Literal["full", "process"], render: Renderer | None, clock: Clock
) -> TaskStore:
    return TaskStore(anima_dir, language=language, durability=durability, render=render, clock=clock)
