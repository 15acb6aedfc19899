"""
What cannot be read as a record: it ends its task, is kept in quarantine/, and is explained beside it.

The explanation comes first. A process that finds the file half way learns from it that it was rejected and never ran. A
running record that cannot be read and has no explanation may have run.
"""

import contextlib
import os
import time
from typing import Any, Final

import attrs

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, locks
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store import views
from animaworks_tasks.store.place import Place
from animaworks_tasks.store.rules import orphan_ends
from animaworks_tasks.store.transitions import commit, drop, notify
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.task.states import Event, advance

RIPE_AFTER: Final = 5.0  # seconds; an unreadable file younger than this may still be being written by a plain writer
NOTE: Final = ".why.txt"  # the ending of an explanation's name
REJECTED: Final = "it is not a task record"  # how that of a file that never ran begins
UNREAD_OUTCOME: Final = "the outcome could not be read"  # and that of a done record
MAY_HAVE_RUN: Final = "its task may have run"  # and that of a running one


def reject(place: Place, name: str, task_id: str, reason: str) -> Task | None:
    """
    End what stands unreadable in pending/ as rejected; None while it may still be being written.

    Args:
        place: Where it is.
        name: Of the file, as its writer chose it.
        task_id: Of the task that ends.
        reason: Why it cannot be read.
    """
    path, running = f"{place.layout.pending}/{name}", place.layout.running_record(task_id)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if 0 <= time.time() - status.st_mtime < RIPE_AFTER:
        return None
    shown = one_line(name.encode("utf-8", "backslashreplace").decode(), 300)
    with locks.directory(place.layout.quarantine, shared=True):  # so that nobody takes the note for one about nothing
        _explain(place, f"{task_id}.json", f"{REJECTED}: pending/{shown}: {reason}")
        if not _take(place, "reject.link", path, running):
            return None
    if not locks.is_named(running, status):  # replaced meanwhile: it is looked at again
        place.disk.unlink("reject.unexplain", os.path.join(place.layout.quarantine, f"{task_id}.json{NOTE}"))
        place.disk.unlink("reject.undo", running)
        return None
    place.disk.sync("reject.sync", place.layout.running)
    place.disk.unlink("reject.unlink", path)
    return end_unreadable(place, task_id)


def _take(place: Place, step: str, path: str, target: str) -> bool:
    """
    Give a bad file the name *target* too; a directory, which has one name only, instead.

    False where that name is taken, or the file has gone.
    """
    with contextlib.suppress(FileNotFoundError):
        if not _is_directory(path):
            return place.disk.link(step, path, target)
        if not os.path.lexists(target):
            place.disk.rename(step, path, target)
            return True
    return False


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def end_unreadable(place: Place, task_id: str, reason: str = "") -> Task:
    """
    End the task of a running record that cannot be read, for *reason*, and put the file aside.

    One that was rejected never ran. Of any other nobody knows, and its view tells what it was.
    """
    task = outcome(place, task_id)
    if task is None:
        task = commit(place, _verdict(place, task_id, reason))
    else:
        notify(place, task)
    why = _note(place, f"{task_id}.json").strip() or f"{MAY_HAVE_RUN}: {reason}"
    quarantine(place, place.layout.running_record(task_id), f"{task_id}.json", why)
    drop(place, task_id)
    return task


def _verdict(place: Place, task_id: str, reason: str) -> Task:
    note = _note(place, f"{task_id}.json")
    kept = f"the file is kept as {place.layout.quarantine}/{task_id}.json"
    name, directory = os.path.basename(place.layout.anima), place.layout.anima
    task = Task(id=task_id, tool="unknown", anima_name=name, anima_dir=directory, submitted_at=place.clock())
    if note.startswith(REJECTED):
        where, _, why = note.removeprefix(f"{REJECTED}: ").strip().partition(": ")
        error, hint = f"{where} is not a task record: {why}", f"submit its call anew; {kept}"
        changes: dict[str, Any] = {"cause": Cause.REJECTED, "error": error, "hint": hint}
        return advance(task, Event.REJECT, finished_at=place.clock(), **changes)
    event, changes = orphan_ends(cancelled=place.cancelled(task_id))
    error = f"{changes['error']}, and its record cannot be read any more: {reason}"
    hint = f"it may have run: see what it did before you submit its call anew; {kept}"
    task = advance(task, Event.CLAIM, attempt=1)
    with contextlib.suppress(OSError, RecordError):
        seen = views.read(place.layout, task_id)
        task = attrs.evolve(task, tool=seen.tool, subcommand=seen.subcommand, argv=seen.argv)
    return advance(task, event, finished_at=place.clock(), **{**changes, "error": error, "hint": hint})


def outcome(place: Place, task_id: str) -> Task | None:
    """Return the task that has ended; None where it has not. An outcome that cannot be read is put aside."""
    try:
        return place.done(task_id)
    except FileNotFoundError:
        return None
    except RecordError:
        quarantine(place, place.layout.done_record(task_id), f"{task_id}.task", UNREAD_OUTCOME)
        return None


def quarantine(place: Place, path: str, name: str, reason: str) -> None:
    """Move a bad file out of the way as *name*, with an explanation beside it."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    target = os.path.join(place.layout.quarantine, name)
    if os.path.lexists(target) and not locks.is_named(target, status):  # another one of this name
        name = f"{name}.{status.st_mtime_ns}"
        target = os.path.join(place.layout.quarantine, name)
    # First: killed in between, the next process finds the file where it was and goes on from there.
    _explain(place, name, reason)
    _take(place, "quarantine.link", path, target)
    place.disk.sync("quarantine.sync", place.layout.quarantine)
    if not _is_directory(path):
        place.disk.unlink("quarantine.unlink", path)
    place.disk.sync("quarantine.sync-from", os.path.dirname(path))


def _explain(place: Place, name: str, reason: str) -> None:
    note = f"{reason}\n".encode("utf-8", "replace")
    place.disk.publish("explain", place.layout.quarantine, name + NOTE, note)


def _note(place: Place, name: str) -> str:
    with contextlib.suppress(FileNotFoundError, files.UnreadableFileError):
        return files.read(os.path.join(place.layout.quarantine, name + NOTE), limit=1 << 16).decode("utf-8", "replace")
    return ""
