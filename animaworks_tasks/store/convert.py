"""
A store of the format before this one becomes one of this: nothing of it may be at work, and nothing of it is lost.

The format before had a lock file beside each record, ids that were made from keys, and ``.json`` at the end of every
name. ``format`` is written last, after an fsync of all directories: killed before that, the next one does the rest.
"""

import contextlib
import io
import os
import stat

from animaworks_tasks.errors import StoreError
from animaworks_tasks.fs import files, json, locks
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.fs.layout import FORMAT, Layout
from animaworks_tasks.task.pending import SIZE_LIMIT, digest


def convert(layout: Layout, disk: Disk) -> None:
    """
    Convert the store at *layout*, and write its format.

    Raises:
        StoreError: A task runs there, or a host of the earlier release is at work. Nothing was changed.
        OSError: The disk said no; a further try does the rest.
    """
    with locks.directory(layout.root):
        if os.path.lexists(layout.format):  # another one came first
            return
        _refuse_if_at_work(layout)
        for directory in (*layout.directories(), layout.notifications, layout.read):
            files.make_directory(directory)
        earlier = sorted(name for name in files.names(layout.done) if name.endswith(".json"))
        for name in earlier:
            _name_anew(layout, disk, name)
        disk.sync("convert.sync-done", layout.done)
        for name in earlier:
            disk.unlink("convert.unlink", os.path.join(layout.done, name))
        for directory in (layout.pending, layout.done):
            for name in sorted(files.names(directory)):
                _index(layout, disk, os.path.join(directory, name))
        for name in files.names(layout.running):
            files.clear(os.path.join(layout.running, name))  # requests, and what owners said of themselves
        disk.sync("convert.sync", layout.pending, layout.running, layout.done, layout.keys)
        disk.sync("convert.sync-notifications", layout.notifications, layout.read)
        for name in ("ages", "doorbell", "locks"):  # the last is what a store of that format is known by
            with contextlib.suppress(OSError):
                files.clear(os.path.join(layout.root, name))
        disk.publish("create", layout.root, "format", FORMAT)


def _refuse_if_at_work(layout: Layout) -> None:
    # Without its record, what an owner said of itself is a leftover.
    running = [name for name in files.names(layout.running) if name.endswith((".json", ".task"))]
    if any(not name.endswith(".owner.json") for name in running):
        reason = "tasks run in it, or their hosts died: `animaworks-tool run --until-idle` of that release ends them"
    elif _is_heard(os.path.join(layout.root, "doorbell")):
        reason = "a host of that release is at work in it: stop that first"
    else:
        return
    raise StoreError(layout.root, f"it was made by an earlier release, and cannot be converted while {reason}")


def _is_heard(fifo: str) -> bool:
    """Return whether somebody has the FIFO open for reading, as hosts of the earlier release have."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError), io.FileIO(os.open(fifo, flags), "w") as file:  # ENXIO: nobody
        return stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
    return False


def _name_anew(layout: Layout, disk: Disk, name: str) -> None:
    """Give a done record its new name; and its view, until now another name of it, a file of its own."""
    source = os.path.join(layout.done, name)
    disk.link("convert.link", source, os.path.join(layout.done, f"{name.removesuffix('.json')}.task"))
    with contextlib.suppress(OSError):
        view = os.path.join(layout.root, name)
        if os.path.samestat(os.lstat(view), os.lstat(source)):
            disk.show(view, files.read(source, limit=SIZE_LIMIT))


def _index(layout: Layout, disk: Disk, path: str) -> None:
    """Enter the task of a record under its key; one that waits comes before one that ended, which had it earlier."""
    with contextlib.suppress(OSError, ValueError):
        match json.load(files.read(path, limit=SIZE_LIMIT)):
            case {"key": str() as key} if key:
                disk.link("convert.link-key", path, os.path.join(layout.keys, digest(key)))
