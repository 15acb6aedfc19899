"""
``keys/``: which task was submitted first with a key. An entry is another name of that task's record.

The entry comes before the record is pending, and goes before the done record does. So an entry whose task is nowhere is
that of a submitter, or of a prune, that died: nothing was acknowledged, or nothing is left, and it is dropped.
"""

import os

from animaworks_tasks.fs import files, json, locks
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.fs.journal import Journal, line
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.store.enqueue import appear
from animaworks_tasks.task.pending import SIZE_LIMIT, digest


def submit(layout: Layout, disk: Disk, journal: Journal, task_id: str, key: str, data: bytes) -> str:
    """
    Publish a pending record, unless a task with its key is there; return the id of the one that is.

    Of two submitters, the one whose link to keys/ comes first wins. It is durable before the record is pending: so
    nobody who finds the task pending after a power cut can miss its key.

    Args:
        layout: Where.
        disk: Takes the steps.
        journal: Of the store.
        task_id: The task, whose id is new.
        key: Of the task.
        data: Its record.

    Raises:
        PartlySubmittedError: It is queued, and may be running by now, but its name could not be made durable.
        OSError: It is not queued.
    """
    name = digest(key)
    path = os.path.join(layout.keys, name)
    draft = disk.write("submit.write", f"{task_id}.json", data)
    try:
        while True:
            # Shared, so that nobody who drops keys of tasks that are nowhere comes between the two links.
            with locks.directory(layout.keys, shared=True):
                if disk.link("submit.link-key", draft, path):
                    disk.sync("submit.sync-keys", layout.keys)
                    appear(layout, disk, task_id, draft)
                    break
            there = _acknowledgeable(layout, disk, path)
            if there is not None:
                return there
            drop(layout, disk, name)
    finally:
        files.discard(draft)
    journal.add(line("submitted", task_id))
    return task_id


def _acknowledgeable(layout: Layout, disk: Disk, path: str) -> str | None:
    """Return the id of the task that has the key, its record made durable where it lies; None where it is nowhere."""
    try:
        task_id = owner(layout, path)
    except FileNotFoundError:
        return None
    directory = None if task_id is None else directory_of(layout, task_id)
    if directory is None:
        return None
    disk.sync("taken.sync", directory)  # who put it there may not have come to that
    return task_id


def owner(layout: Layout, path: str) -> str | None:
    """
    Return the id of the task whose record the entry *path* is; None where that is no record.

    One that somebody writes to in place just now, or that was damaged, is known by its other names.
    """
    try:
        value = json.load(files.read(path, limit=SIZE_LIMIT))
    except (files.UnreadableFileError, ValueError):
        return _by_another_name(layout, path)
    task_id = value.get("task_id") if isinstance(value, dict) else None
    return task_id if isinstance(task_id, str) else _by_another_name(layout, path)


def _by_another_name(layout: Layout, path: str) -> str | None:
    status = os.lstat(path)
    for directory in (layout.pending, layout.running, layout.done) if status.st_nlink > 1 else ():
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.inode() == status.st_ino:
                    return entry.name.partition(".")[0]
    return None


def directory_of(layout: Layout, task_id: str) -> str | None:
    """Return the directory a record of the task lies in; looked for in the order in which it moves on."""
    records = (layout.pending_record(task_id), layout.running_record(task_id), layout.done_record(task_id))
    return next((os.path.dirname(path) for path in records if os.path.lexists(path)), None)


def drop(layout: Layout, disk: Disk, name: str, *, only: str | None = None) -> None:
    """Drop an entry: that of the task *only*, or, without, one whose task is nowhere or that cannot be read."""
    path = os.path.join(layout.keys, name)
    with locks.directory(layout.keys):  # so it still is this entry when it goes
        try:
            task_id = owner(layout, path)
        except FileNotFoundError:
            return
        is_nowhere = task_id is None or directory_of(layout, task_id) is None
        if is_nowhere if only is None else task_id == only:
            disk.unlink("key.unlink", path)
