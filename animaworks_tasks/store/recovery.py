"""
What dead processes left: orphans are settled, unreadable files quarantined and explained, litter is swept.

Any number of hosts may do this at any time: whatever is touched is touched under the task's lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, json
from animaworks_tasks.fs.doorbell import ring
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.newest import forget
from animaworks_tasks.store.protocol import Recovery
from animaworks_tasks.store.records import DirectoryRecords, ids
from animaworks_tasks.task.model import OWNER_DIED, Cause, State, Task, is_task_id
from animaworks_tasks.task.pending import SIZE_LIMIT, new_id
from animaworks_tasks.task.states import Event, advance

logger = logging.getLogger("animaworks_tasks")

RIPE_AFTER: Final = 5.0  # seconds; an unreadable file younger than this may still be being written by a plain writer
UNREAD_OUTCOME: Final = "the outcome could not be read"  # how the note on a done record in quarantine/ begins
MAY_HAVE_RUN: Final = "its task may have run"  # how that on a running one begins
_KEPT: Final = "the file is kept as state/background_tasks/quarantine/{}.json"
STALE_DRAFT: Final = 3600.0  # seconds after which a file in tmp/ belongs to nobody


class DirectoryRecovery:
    """Puts right what *records* hold."""

    def __init__(self, records: DirectoryRecords) -> None:
        self._records = records
        self._layout = records.layout
        self._swept = False

    def recover(
        self, may_run_again: Callable[[Task], bool], concerns: Callable[[Task], bool] | None = None
    ) -> Recovery:
        """Do as :meth:`Store.recover`; the first time, sweep as well."""
        if not self._swept:
            self.sweep()
            self._swept = True
        self._records.journal.rotate()  # at every look: a host may go on for months, and nobody prune
        alive: list[str] = []
        settled: list[Task] = list(self._reject_misnamed())
        returned: list[Task] = []
        for task_id in sorted(ids(self._layout.running)):
            with _going_on(f"task {task_id} cannot be looked at"), self._records.holding(task_id) as held:
                if held.lock is None:
                    alive.append(task_id)
                elif self._records.has(self._layout.running, task_id) and self._concerns(task_id, concerns):
                    # What a dead process left need not be durable, and we are about to build on it. Once for each: an
                    # owner may have died, and left something, while we dealt with the one before.
                    self._records.sync_all()
                    task = self._recover_patiently(task_id, may_run_again)
                    if task is not None:
                        (settled if task.state is State.DONE else returned).append(task)
        return Recovery(tuple(alive), tuple(settled), tuple(returned))

    def _concerns(self, task_id: str, concerns: Callable[[Task], bool] | None) -> bool:
        if concerns is None:
            return True
        try:
            return concerns(self._records.running(task_id))
        except RecordError:  # whoever runs tools deals with it
            return False

    def _recover_patiently(self, task_id: str, may_run_again: Callable[[Task], bool]) -> Task | None:
        """Settle one orphan; None where the disk says no: the next look tries again, and the others go on."""
        try:
            return self._recover_one(task_id, may_run_again)
        except OSError as error:
            logger.warning("task %s, whose owner died, cannot be settled yet, trying again: %s", task_id, error)
            return None
        except RecordError as error:  # it could be read, but not be written again: too large, say
            place = f"running/{task_id}.json"
            if self._records.may_have_begun(task_id):
                return self._settle_unreadable_run(task_id, error.reason, place, known=False)
            return self._settle_unreadable(task_id, error.reason, place)

    def _recover_one(self, task_id: str, may_run_again: Callable[[Task], bool]) -> Task:
        try:
            submitted = self._records.read(self._layout.running, task_id)
        except RecordError as error:
            place = f"running/{task_id}.json"
            if self._quarantine_outcome(task_id) or self._records.may_have_begun(task_id):
                return self._settle_unreadable_run(task_id, error.reason, place)
            return self._settle_unreadable(task_id, error.reason, place)
        if self._records.has(self._layout.done, task_id):
            with contextlib.suppress(RecordError):  # dealt with below
                done = self._records.done(task_id)
                self._records.notify(done)
                self._records.mend_view(task_id)
                self._drop_claimed(task_id, submitted)
                self._records.forget_running(task_id)
                return done
        ended = self._quarantine_outcome(task_id)  # who knows how: so it has begun
        waiting = None if ended else self._never_started(task_id, submitted)
        if waiting is not None:
            self._records.hide(task_id)
            self._records.forget_running(task_id, waits=True)
            self._records.sync_directory(self._layout.running)
            return waiting
        running = self._records.running(task_id)
        if may_run_again(running) and not self._records.cancelled(task_id):
            return self._records.give_back(running)
        event, changes = self._verdict(task_id)
        task = self._records.settle(advance(running, event, finished_at=self._records.clock(), **changes))
        self._drop_claimed(task_id, submitted)
        self._records.forget_running(task_id)
        return task

    def _verdict(self, task_id: str) -> tuple[Event, dict[str, object]]:
        if self._records.cancelled(task_id):
            return Event.CANCEL, {"error": OWNER_DIED}
        return Event.FAIL, {"cause": Cause.INTERRUPTED, "error": OWNER_DIED}

    def _never_started(self, task_id: str, running: Task) -> Task | None:
        """
        Return the pending record of an orphan whose owner died before the tool began, or after it was given back.

        Not every pending record says so. One that is the same was claimed: its tool did not begin only where nobody had
        announced that. And a second submit of the same key, while the first ran, leaves one that differs, and has no
        attempt more.
        """
        pending = self._pending_or_none(task_id)
        if pending is None or pending.attempt > running.attempt:
            return pending
        return pending if pending == running and not self._records.may_have_begun(task_id) else None

    def _drop_claimed(self, task_id: str, submitted: Task) -> None:
        """Drop the pending record of a task that has ended, where a power cut kept it or brought it back."""
        if self._pending_or_none(task_id) == submitted:
            files.discard(self._records.path(self._layout.pending, task_id))

    def _pending_or_none(self, task_id: str) -> Task | None:
        try:
            return self._records.pending(task_id)
        except (FileNotFoundError, RecordError):
            return None

    def _reject_misnamed(self) -> Sequence[Task]:
        """End files in pending/ whose name is no id: under an id made from the file itself, the same at every look."""
        rejected = []
        for name in self._records.take_misnamed():
            try:
                status = os.lstat(os.path.join(self._layout.pending, name))
            except FileNotFoundError:
                continue
            task_id = new_id(f"{name}/{status.st_ino}/{status.st_mtime_ns}")
            with _going_on(f"pending/{name!r} cannot be rejected"), self._records.holding(task_id) as held:
                if held.lock is not None and not self._records.is_foreign(name) and self._records.free(task_id):
                    task = self.reject(name, task_id, "its name is not 12 lowercase hex digits and .json")
                    rejected += [task] if task else []
        return rejected

    def reject(self, name: str, task_id: str, reason: str) -> Task | None:
        """End what stands unreadable in pending/ as rejected; None while it may still be being written."""
        path = os.path.join(self._layout.pending, name)
        try:
            age = time.time() - os.lstat(path).st_mtime
        except FileNotFoundError:
            return None
        if 0 <= age < RIPE_AFTER or not self._records.move_to_running(name, task_id):
            return None
        name = one_line(name.encode("utf-8", "backslashreplace").decode(), 300)  # whoever made it chose it
        return self._settle_unreadable(task_id, reason, f"pending/{name}")

    def _settle_unreadable(self, task_id: str, reason: str, place: str) -> Task:
        """End what can be read neither here nor elsewhere, and never ran."""
        rejected = advance(
            self._unknown(task_id),
            Event.REJECT,
            finished_at=self._records.clock(),
            cause=Cause.REJECTED,
            error=f"{place} is not a task record: {reason}",
            # Corrected and moved back it would not run: the task of its id has ended, with this.
            hint=f"submit its call anew; {_KEPT.format(task_id)}",
        )
        return self._settle_and_put_aside(rejected, reason)

    def _settle_unreadable_run(self, task_id: str, reason: str, place: str, *, known: bool = True) -> Task:
        """End what was announced, so that it may have run; if it is *known*, the announcement tells what it was."""
        running = advance(self._unknown(task_id), Event.CLAIM, attempt=1)
        if known:
            with contextlib.suppress(RecordError):
                running = self._records.running(task_id)
        event, changes = self._verdict(task_id)
        ended = advance(
            running,
            event,
            finished_at=self._records.clock(),
            **{**changes, "error": f"{changes['error']}, and {place} cannot be read any more: {reason}"},
            hint=f"it may have run: see what it did before you submit its call anew; {_KEPT.format(task_id)}",
        )
        return self._settle_and_put_aside(ended, f"{MAY_HAVE_RUN}: {reason}")

    def _unknown(self, task_id: str) -> Task:
        return Task(
            id=task_id,
            tool="unknown",
            anima_name=os.path.basename(self._layout.anima),
            anima_dir=self._layout.anima,
            submitted_at=self._records.clock(),
        )

    def _settle_and_put_aside(self, task: Task, reason: str) -> Task:
        task_id = task.id
        self._quarantine_outcome(task_id)
        task = self._records.settle(task)
        self.quarantine(self._records.path(self._layout.running, task_id), reason)
        self._records.forget_running(task_id)
        ring(self._layout.doorbell, task_id)
        return task

    def _quarantine_outcome(self, task_id: str) -> bool:
        """Make room for an outcome where one lies that cannot be read; say whether one did."""
        try:
            self._records.done(task_id)
        except FileNotFoundError:
            pass
        except RecordError:
            forget(self._layout.ages)
            self.quarantine(self._records.path(self._layout.done, task_id), UNREAD_OUTCOME)
            return True
        return False

    def quarantine(self, path: str, reason: str) -> None:
        """Move a bad file out of the way, with a note beside it that says why."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        target = os.path.join(self._layout.quarantine, os.path.basename(path))
        if os.path.lexists(target) and not os.path.samestat(status, os.lstat(target)):  # another one of this name
            target = f"{target}.{status.st_mtime_ns}"
        note = f"{reason}\n".encode("utf-8", "replace")
        name = os.path.basename(target) + ".why.txt"
        # The note first: killed in between, whoever comes next finds the file where it was and goes on from there.
        files.publish(self._layout.quarantine, name, note, tmp=self._layout.tmp, sync=self._records.sync)
        files.link(path, target)
        self._records.sync_directory(self._layout.quarantine)
        files.discard(path)
        self._records.sync_directory(os.path.dirname(path))

    def sweep(self) -> None:
        """
        Remove what dead processes left lying: lock files, drafts, marks; and mend the views after a power cut.

        A journal that has grown large is put aside.
        """
        running = ids(self._layout.running)
        for name in files.names(self._layout.locks):
            task_id = name.removesuffix(".lock")
            if is_task_id(task_id) and task_id not in running:
                with _going_on(f"locks/{name} cannot be swept"), self._records.holding(task_id):
                    pass  # letting go unlinks it
        for name in files.names(self._layout.running):
            task_id = name.split(".", 1)[0]
            if is_task_id(task_id) and name != f"{task_id}.json" and task_id not in running:
                with _going_on(f"running/{name} cannot be swept"), self._records.holding(task_id) as held:
                    # The wish that it stop is kept as long as a task waits; who owned it, no longer than it ran.
                    needed = self._records.lives if name.endswith(".cancel") else self._records.runs
                    if held.lock is not None and not needed(task_id):
                        files.clear(os.path.join(self._layout.running, name))
        for name in files.names(self._layout.tmp):
            path = os.path.join(self._layout.tmp, name)
            with contextlib.suppress(OSError):
                if time.time() - os.lstat(path).st_mtime > STALE_DRAFT:
                    os.unlink(path)
        self._records.journal.rotate()
        self._mend_views()

    def mend_view(self, task_id: str) -> None:
        """Let the view of a task show how it stands, unless it runs: then its owner sees to that."""
        with self._records.holding(task_id) as held:
            if held.lock is None:
                return
            if self._records.has(self._layout.done, task_id):
                self._records.mend_view(task_id)
            else:  # pending, where others look for themselves; an orphan, soon to be settled; or pruned
                self._records.hide(task_id)

    def _mend_views(self) -> None:
        """
        Let each view show its record again, once after each start of the machine.

        A view is not fsynced: after a power cut it may be old, empty or torn. Looking at all of them takes time, so the
        store remembers for which boot it has done so.
        """
        boot = _boot()
        with contextlib.suppress(OSError):
            if files.read(self._layout.boot, limit=100) == boot:
                return
        for task_id in ids(self._layout.root):
            with _going_on(f"the view of task {task_id} cannot be mended"):
                # One that neither waits, runs nor has ended here is of a pruned task, or another program's.
                known = self._records.lives(task_id) or self._records.has(self._layout.done, task_id)
                if known or _was_ours(self._layout.view(task_id)):
                    self.mend_view(task_id)
        with _going_on("all views will be looked at again"):
            files.replace(self._layout.boot, boot, tmp=self._layout.tmp)


def _was_ours(view: str) -> bool:
    """Say whether *view* is a record of ours, or is torn, as a power cut may leave what is not fsynced."""
    try:
        value = json.load(files.read(view, limit=SIZE_LIMIT))
    except ValueError:
        return True
    return not isinstance(value, dict) or "version" in value


@contextlib.contextmanager
def _going_on(what: str) -> Iterator[None]:
    """Let one thing that the disk refuses, or that fails in any other way, not keep us from the others."""
    try:
        yield
    except OSError as error:
        logger.warning("%s: %s", what, error)
    except Exception:  # what a host gave us may raise anything, a registry's answer or a clock
        logger.exception("%s", what)


def _boot() -> bytes:
    """Return what names this run of the machine; where nothing does, the time, so that every look is the first."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:  # random(4)
            return file.read()
    except OSError:
        return str(time.time_ns()).encode("ascii")
