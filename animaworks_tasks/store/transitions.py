"""
The steps of a directory store: each row of the table in docs/architecture.md is a function that reads like its row.

Whoever is killed between any two steps leaves what recovery understands. A step has a name, which is that of its row
and of what it does there: ``claim.link``, ``finish.sync``.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from animaworks_tasks.errors import ClaimLostError, RecordError, StoreError
from animaworks_tasks.fs import files, locks
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.fs.journal import line
from animaworks_tasks.fs.process import pid
from animaworks_tasks.notifications.render import rendered
from animaworks_tasks.store import keys, views
from animaworks_tasks.store.place import Place, decoded
from animaworks_tasks.store.protocol import Claim
from animaworks_tasks.store.rules import is_due, never_began, requeued, utc_now, with_shown_call
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import Task
from animaworks_tasks.task.pending import ROOM, SIZE_LIMIT, digest
from animaworks_tasks.task.states import Event, advance


def claim(
    place: Place, task_id: str, *, due_by: datetime | None = None, cancelling: bool = False, record: bytes | None = None
) -> Claim | None:
    """
    Become the owner of a pending task, as :meth:`Store.claim` says: where this returns a claim, the tool may begin.

    Lock the record, give it its second name, make that durable, take the first one away. That the second name is there
    says that the tool may have begun.

    Args:
        place: Where it is.
        task_id: The task.
        due_by: Only if its ``not_before`` has come by then; None in any case.
        cancelling: Own it in spite of a request that it be cancelled.
        record: Only if its record is this one, byte for byte; None in any case.

    Raises:
        RecordError: What waits there cannot be read: it may still be being written, or is to be rejected.
    """
    try:
        # Read-only: the close of what was open for writing is an event, which would wake every executor for nothing.
        if due_by is not None and not is_due(place.pending(task_id), due_by):
            return None
        lock = locks.hold(place.layout.pending_record(task_id), writing=True)
        if lock is None:
            return None
        with contextlib.ExitStack() as unclaimed:
            unclaimed.callback(lock.release)
            task = _claim_locked(place, task_id, lock, record)
            if task is None:
                return None
            unclaimed.pop_all()
    except (FileNotFoundError, codec.ForeignRecordError):
        return None
    except files.UnreadableFileError as error:
        raise RecordError(task_id, error.strerror or "it cannot be read") from None
    own = Claim(_started(place, task), lock)
    place.journal.note("claimed", task_id, tool=own.task.name, attempt=own.task.attempt)
    if not cancelling and place.cancelled(task_id):
        _end_cancelled(place, own)
        return None
    return own


def _claim_locked(place: Place, task_id: str, lock: locks.Lock, record: bytes | None) -> Task | None:
    """Return the task whose record is locked, its two names exchanged; None where it is not to be had."""
    pending, running = place.layout.pending_record(task_id), place.layout.running_record(task_id)
    data = lock.read(limit=SIZE_LIMIT)
    task = decoded(data, task_id)
    if not codec.leaves_room(data):  # to say how it ends: a plain writer knows nothing of that
        codec.check(task, room=ROOM)
    if not lock.names(pending):  # requeued, or finished, since it was opened
        return None
    if record is not None and record != data:  # a plain writer has changed it; a later change is found below
        return None
    # The locked file itself: by its name it could be another one by now, which nobody holds.
    if not place.disk.link_held("claim.link", lock, running):  # an owner has it, or an orphan is to be recovered first
        return None
    try:
        if place.ended(task_id):
            _finish_again(place, task_id)
            return None
        if lock.names(pending) or not os.path.lexists(pending):  # or else a plain writer has put another file there
            place.disk.sync("claim.sync", place.layout.running)
            place.disk.unlink("claim.unlink", pending)
            if lock.still_holds(data):  # or else a plain writer has written to it in place
                return task
    except BaseException:  # the disk said no, or we are to end
        with contextlib.suppress(OSError):
            _undo(place, lock, task_id)
        raise
    _undo(place, lock, task_id)
    return None


def _undo(place: Place, lock: locks.Lock, task_id: str) -> None:
    """Let a task wait as if we had not come; another file that took its place stays there."""
    place.disk.link_held("claim.relink", lock, place.layout.pending_record(task_id))
    place.disk.sync("claim.sync-undo", place.layout.pending)  # or else a power cut could take both names
    place.disk.unlink("claim.undo", place.layout.running_record(task_id))


def _finish_again(place: Place, task_id: str) -> None:
    """Deal with a pending record of a task that has ended: back after a power cut, or written by somebody."""
    try:
        task = place.done(task_id)
    except RecordError:  # so nobody knows whether it ran: it has a name in running/ now, and recovery decides
        place.disk.sync("claim.sync", place.layout.running)
        place.disk.unlink("claim.unlink", place.layout.pending_record(task_id))
        return
    place.disk.sync("claim.sync-done", place.layout.done)
    notify(place, task)
    drop(place, task_id)


def _started(place: Place, task: Task) -> Task:
    return advance(task, Event.CLAIM, attempt=task.attempt + 1, started_at=place.clock(), owner_pid=pid())


def begin(place: Place, task: Task, *, durably: bool) -> Claim:
    """Publish the record of a call that nobody but us can make in running/, locked, and never in pending/."""
    data = codec.check(task, room=ROOM)
    disk = place.disk if durably else Disk(place.disk.tmp, durable=False)
    draft = disk.write("begin.write", f"{task.id}.task", data)
    try:
        lock = locks.hold(draft, writing=True)
        assert lock is not None  # noqa: S101 - for the type checker: nobody else knows the draft
        try:
            _begin_locked(place, disk, draft, task.id)
        except BaseException:
            lock.release()
            raise
    finally:
        files.discard(draft)
    place.journal.note("submitted", task.id)
    return Claim(_started(place, task), lock)


def _begin_locked(place: Place, disk: Disk, draft: str, task_id: str) -> None:
    known = place.directory_of(task_id) is not None
    if known or not disk.link("begin.link", draft, place.layout.running_record(task_id)):
        raise StoreError(place.layout.root, f"there is a task {task_id} already")
    disk.sync("begin.sync", place.layout.running)


def lock_of(claim: Claim) -> locks.Lock:
    """Return what a claim that lasts holds; raises ClaimLostError where it has ended."""
    if not isinstance(claim.lock, locks.Lock) or not claim.lock.is_held:
        raise ClaimLostError(claim.task.id)
    return claim.lock


def finish(place: Place, own: Claim, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - attributes of the task
    """Publish the outcome, which is the commit; notify; drop the names by which the task waits and runs; release."""
    lock = lock_of(own)
    task = commit(place, advance(own.task, event, finished_at=place.clock(), **changes))
    drop(place, task.id)
    own.lock = None
    lock.release()
    return task


def commit(place: Place, task: Task) -> Task:
    """Publish the outcome of a task and notify of it; return what is on disk: what an earlier try wrote stands."""
    task = with_shown_call(task)
    data = codec.check(task)
    # The file's time, so that a prune need not read it; by the real clock it has that anyway.
    at = None if task.finished_at is None or place.clock is utc_now else task.finished_at.timestamp()
    published = place.disk.publish("finish", place.layout.done, f"{task.id}.task", data, at=at)
    if not published:
        task = place.done(task.id)
    ended = line("ended", task.id, outcome=task.outcome and task.outcome.value, cause=task.cause and task.cause.value)
    notify(place, task, ended if published else b"")
    return task


def notify(place: Place, task: Task, lines: bytes = b"") -> None:
    """
    Leave the notification of a task whose outcome is durable, unless it was left before; and let its view show it.

    Args:
        place: Where it is.
        task: As its done record has it: the notification says nothing that is not there.
        lines: For the journal, of what happened before; written whatever the disk says.
    """
    try:
        if place.notifications.publish(task, rendered(place.render, task)):
            lines += line("notified", task.id)
    finally:
        if lines:
            place.journal.add(lines)
    views.show(place.layout, place.disk, task)


def drop(place: Place, task_id: str) -> None:
    """Take away what says that a task waits, is to be cancelled, or runs; its notification is durable."""
    place.disk.unlink("finish.unlink-pending", place.layout.pending_record(task_id))  # if it came back
    place.disk.unlink("finish.unlink-cancel", place.layout.cancel(task_id))
    place.disk.unlink("finish.unlink", place.layout.running_record(task_id))  # last: by this, recovery finds the rest


def requeue(place: Place, own: Claim, *, pause: float = 0.0, began: bool = True) -> Task:
    """Put a claimed task back to pending, as :meth:`Store.requeue` says, and release it."""
    lock = lock_of(own)
    task = requeue_record(place, requeued(own.task, pause=pause, began=began, now=place.clock()))
    own.lock = None
    lock.release()
    return task


def requeue_record(place: Place, task: Task) -> Task:
    """
    Publish a task that waits again over whatever lies in pending/ under its name; drop running/.

    Its record says that it was requeued once more: so recovery knows it from the one that was claimed.
    """
    data = codec.check(task)
    keyed = contextlib.nullcontext() if task.key is None else locks.directory(place.layout.keys, shared=True)
    with keyed:  # or else somebody finds the task nowhere for a moment, and drops its key
        draft = place.disk.write("requeue.write", f"{task.id}.json", data)
        try:
            place.disk.rename("requeue.rename", draft, place.layout.pending_record(task.id))
        finally:
            files.discard(draft)  # where it could not be renamed
        place.disk.sync("requeue.sync", place.layout.pending)
        views.hide(place.layout, task.id)
        place.disk.unlink("requeue.unlink", place.layout.running_record(task.id))
    place.journal.note("requeued", task.id, attempts=task.attempt)
    return task


def cancel(place: Place, task_id: str) -> Task | None:
    """
    Ask for a task that is not done to stop; return it where it ended with this, and None where its owner is asked.

    The request first: the owner finds it, a process that is about to claim, and recovery if we die. It stays when the
    task is requeued.
    """
    files.touch(place.layout.cancel(task_id))
    place.journal.note("cancel requested", task_id)
    own = claim(place, task_id, cancelling=True) or claim(place, task_id, cancelling=True)  # requeued meanwhile
    if own is not None:
        return _end_cancelled(place, own)
    if place.directory_of(task_id) in {None, place.layout.done}:  # it ended meanwhile
        place.disk.unlink("cancel.unlink", place.layout.cancel(task_id))
    return None


def _end_cancelled(place: Place, own: Claim) -> Task:
    """Finish a claim that nobody else has; release it also where the disk refuses: then recovery ends it."""
    lock = lock_of(own)
    try:
        return finish(place, own, Event.CANCEL, **never_began(own.task))
    finally:
        lock.release()


def prune(place: Place, done: Iterable[Task]) -> list[str]:
    """
    Forget tasks that ended; return the ids of those that were forgotten.

    What stands against it - a notification that waits, a name in pending/ or running/ - must have gone durably before
    the done record goes. The key goes before the record as well: its id never comes back, but the key may.
    """
    layout, disk = place.layout, place.disk
    chosen = list(done)
    if not chosen:
        return []
    disk.sync("prune.sync", layout.pending, layout.running, layout.notifications)
    # What came meanwhile is heeded: nothing but its done record, and what belongs to it, may be left of a task.
    obstacles = (place.notifications.waits, place.runs, place.waits)
    chosen = [task for task in chosen if not any(is_there(task.id) for is_there in obstacles)]
    for task in chosen:
        if task.key is not None:
            keys.drop(layout, disk, digest(task.key), only=task.id)
    if any(task.key is not None for task in chosen):
        disk.sync("prune.sync-keys", layout.keys)
    pruned = [task.id for task in chosen if disk.unlink("prune.unlink", layout.done_record(task.id))]
    disk.sync("prune.sync-done", layout.done)
    for task_id in pruned:
        remove_artifacts(place, task_id)
        place.journal.note("pruned", task_id)
    return pruned


def remove_artifacts(place: Place, task_id: str) -> None:
    """Remove what belonged to a task whose records are gone: results, log, progress, request, view, notification."""
    layout = place.layout
    shutil.rmtree(os.path.join(layout.results, task_id), ignore_errors=True)
    for path in (
        layout.log(task_id),
        os.path.join(layout.progress, f"{task_id}.json"),
        layout.cancel(task_id),
        layout.view(task_id),
        layout.read_notification(task_id),
    ):
        files.clear(path)
