"""
What dead processes left: orphans are finished or run again, unreadable files rejected, leftovers swept.

Any number of hosts may do this at any time. A running record whose lock is held has a living owner; with a free one it
is an orphan, and belongs to the host that takes the lock.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Final

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, locks
from animaworks_tasks.store import keys, leftovers, views
from animaworks_tasks.store.place import Place, decoded, ids, read, running_task
from animaworks_tasks.store.protocol import Recovery
from animaworks_tasks.store.rejection import NOTE, end_unreadable, outcome, reject
from animaworks_tasks.store.rules import Question, orphan_ends, requeued
from animaworks_tasks.store.transitions import commit, drop, notify, remove_artifacts, requeue_record
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import State, Task, is_task_id
from animaworks_tasks.task.pending import SIZE_LIMIT, digest
from animaworks_tasks.task.states import advance

logger = logging.getLogger("animaworks_tasks")

STALE_DRAFT: Final = 3600.0  # seconds after which a file in tmp/ belongs to nobody


def recover(
    place: Place, may_run_again: Question, concerns: Question | None = None, only: Iterable[str] | None = None
) -> Recovery:
    """Look at every running task, or *only* at some, as :meth:`Store.recover` says."""
    alive: list[str] = []
    finished: list[Task] = []
    requeued: list[Task] = []
    if only is None:
        place.journal.rotate()  # at every look: a host may go on for months, and nobody prune
    for task_id in sorted(ids(place.layout.running, ".task") if only is None else only):
        with going_on(f"task {task_id} cannot be looked at"):
            found = recover_one(place, task_id, may_run_again, concerns)
            if isinstance(found, Task):
                (finished if found.state is State.DONE else requeued).append(found)
            elif found:
                alive.append(task_id)
    if only is None:
        finished += _reject_misnamed(place)  # after the others, of which one may have come half way
    return Recovery(tuple(alive), tuple(finished), tuple(requeued))


def recover_one(place: Place, task_id: str, may_run_again: Question, concerns: Question | None = None) -> Task | bool:
    """
    Finish, or requeue, a running task whose owner died; return it as it is then.

    True: its owner lives, or somebody recovers it just now. False: it does not run any more, or concerns others.
    """
    try:
        lock = _lock(place, task_id)
    except FileNotFoundError:
        return False
    except files.UnreadableFileError as error:  # a link, a directory: it cannot be locked, nor be anybody's
        return concerns is None and end_unreadable(place, task_id, error.strerror or "it cannot be read")
    if lock is None:
        complete(place, task_id)
        return True
    try:
        if not lock.names(place.layout.running_record(task_id)):
            return False
        return _recover_locked(place, task_id, lock, may_run_again, concerns)
    finally:
        lock.release()


def _lock(place: Place, task_id: str) -> locks.Lock | None:
    """Lock a running record, opened read-only; where only what a dead owner started holds it, after killing that."""
    path = place.layout.running_record(task_id)
    lock = locks.hold(path)
    if lock is None:
        owner = views.owner_of(place.layout, task_id)
        if owner is not None and owner.is_dead() and leftovers.kill_holders(path):
            logger.warning("task %s: its owner died, and what it had started was killed", task_id)
            lock = locks.hold(path)
    return lock


def complete(place: Place, task_id: str) -> None:
    """Take away what else is left of a task whose outcome is recorded, if it is: then any process may do so."""
    with contextlib.suppress(FileNotFoundError, RecordError):  # its owner, or recovery, deals with what is unreadable
        task = place.done(task_id)
        place.disk.sync("recover.sync-done", place.layout.done)
        notify(place, task)
        drop(place, task_id)


def _recover_locked(
    place: Place, task_id: str, lock: locks.Lock, may_run_again: Question, concerns: Question | None
) -> Task | bool:
    running, reason = None, ""
    try:
        running = running_task(place.layout, decoded(lock.read(limit=SIZE_LIMIT), task_id))
    except (RecordError, files.UnreadableFileError) as error:
        reason = error.reason if isinstance(error, RecordError) else str(error.strerror)
    if concerns is not None and (running is None or not concerns(running)):
        return False
    leftovers.kill_session(views.owner_of(place.layout, task_id))
    # What a dead process left need not be durable, and we are about to build on it. Once for each: an owner may have
    # died, and left something, while we dealt with the one before.
    _sync_all(place)
    try:
        if running is not None:
            return _decide(place, running, may_run_again)
    except RecordError as error:  # it could be read, but cannot be written again: too large, say
        reason = error.reason
    return end_unreadable(place, task_id, reason)


def _decide(place: Place, running: Task, may_run_again: Question) -> Task:
    """Finish, or requeue, an orphan: what it has come to stands in done/ and pending/."""
    task_id = running.id
    if (task := outcome(place, task_id)) is not None:
        notify(place, task)
        drop(place, task_id)
        return task
    if (waiting := _requeued(place, running)) is not None:
        views.hide(place.layout, task_id)
        place.disk.unlink("requeue.unlink", place.layout.running_record(task_id))
        return waiting
    # It has its name in running/, so its tool may have begun.
    if not place.cancelled(task_id) and may_run_again(running):
        return requeue_record(place, requeued(running, now=place.clock()))
    event, changes = orphan_ends(cancelled=place.cancelled(task_id))
    task = commit(place, advance(running, event, finished_at=place.clock(), **changes))
    drop(place, task_id)
    return task


def _requeued(place: Place, running: Task) -> Task | None:
    """Return the pending record of a task whose owner died after it had requeued it: one with a higher number."""
    with contextlib.suppress(FileNotFoundError, RecordError):
        waiting = place.pending(running.id)
        return waiting if waiting.requeued > running.requeued else None
    return None


def _sync_all(place: Place) -> None:
    layout = place.layout
    for name in ("keys", "pending", "running", "done", "notifications", "read"):
        place.disk.sync(f"recover.sync-{name}", getattr(layout, name))


def _reject_misnamed(place: Place) -> list[Task]:
    """End files in pending/ whose name is no id: under an id made from the file itself, the same at every look."""
    rejected = []
    for name in files.names(place.layout.pending):
        if not name.endswith(".json") or name.startswith(".") or is_task_id(name[:-5]):
            continue
        with going_on(f"pending/{name!r} cannot be rejected"), contextlib.suppress(FileNotFoundError):
            path = os.path.join(place.layout.pending, name)
            status = os.lstat(path)
            try:
                codec.decode(read(path, name), name)
            except codec.ForeignRecordError:  # of another program, and left alone
                continue
            except RecordError:
                pass
            task_id = digest(f"{name}/{status.st_ino}/{status.st_mtime_ns}")[:12]
            task = reject(place, name, task_id, "its name is not 12 lowercase hex digits and .json")
            rejected += [task] if task else []
    return rejected


def sweep(place: Place) -> None:
    """
    Remove what dead processes left lying: keys and requests of tasks that are nowhere, notes of nothing, drafts.

    And mend the views after a power cut. A journal that has grown large is put aside.
    """
    for name in files.names(place.layout.keys):
        with going_on(f"keys/{name} cannot be swept"):
            keys.drop(place.layout, place.disk, name)
    for name in files.names(place.layout.running):
        if name.endswith(".cancel"):
            task_id = name.removesuffix(".cancel")
            with going_on(f"running/{name} cannot be swept"):
                if not is_task_id(task_id) or not (place.runs(task_id) or place.waits(task_id)):
                    files.clear(os.path.join(place.layout.running, name))
    _sweep_notes(place)
    _sweep_artifacts(place)
    for name in files.names(place.layout.tmp):
        with contextlib.suppress(OSError):
            if files.age(os.path.join(place.layout.tmp, name)) > STALE_DRAFT:
                os.unlink(os.path.join(place.layout.tmp, name))
    place.journal.rotate()
    _mend_views(place)


def _sweep_notes(place: Place) -> None:
    """Remove explanations of files that are not there: corrected while they were being rejected, or lost."""
    for name in files.names(place.layout.quarantine):
        path = os.path.join(place.layout.quarantine, name)
        if name.endswith(NOTE) and not os.path.lexists(path.removesuffix(NOTE)):
            with going_on(f"quarantine/{name} cannot be swept"), locks.directory(place.layout.quarantine):
                if not (place.runs(name.split(".", 1)[0]) or os.path.lexists(path.removesuffix(NOTE))):
                    files.discard(path)


def _sweep_artifacts(place: Place) -> None:
    """Remove what belonged to tasks that were pruned by a process that died before it came to that."""
    layout = place.layout
    # First what there is of tasks, then the tasks, in the order in which they move on: so none of them is missed.
    places = (layout.logs, layout.progress, layout.results, layout.read)
    found = {name.partition(".")[0] for directory in places for name in files.names(directory)}
    known = ids(layout.pending, ".json") | ids(layout.running, ".task") | ids(layout.done, ".task")
    for task_id in filter(is_task_id, found - known):
        with going_on(f"what is left of task {task_id} cannot be swept"):
            remove_artifacts(place, task_id)


def _mend_views(place: Place) -> None:
    """
    Let each view show its record again, once after each start of the machine.

    A view is not fsynced: after a power cut it may be old, empty or torn. Looking at all of them takes time, so the
    store remembers for which boot it has done so.
    """
    boot = (leftovers.boot() or str(time.time_ns())).encode("ascii")
    with contextlib.suppress(OSError):
        if files.read(place.layout.boot, limit=100) == boot:
            return
    for task_id in ids(place.layout.root, ".json"):
        with going_on(f"the view of task {task_id} cannot be mended"):
            # One that neither waits, runs nor has ended here is of a pruned task, or another program's.
            if place.runs(task_id):
                continue  # its owner, or recovery, sees to that
            if place.ended(task_id):
                with contextlib.suppress(RecordError):
                    views.show(place.layout, place.disk, place.done(task_id))
            elif place.waits(task_id) or views.was_ours(place.layout, task_id):  # others look in pending/ themselves
                views.hide(place.layout, task_id)
    with going_on("all views will be looked at again"):
        place.disk.show(place.layout.boot, boot)


@contextlib.contextmanager
def going_on(what: str) -> Iterator[None]:
    """Let one thing that the disk refuses, or that fails in any other way, not keep us from the others."""
    try:
        yield
    except OSError as error:
        logger.warning("%s: %s", what, error)
    except Exception:  # what a host gave us may raise anything, a registry's answer or a clock
        logger.exception("%s", what)
