"""
A directory store as its steps see it: where its files lie, and how a record is read. Nothing here changes anything.

A record is one file. It is submitted as ``pending/<id>.json``; who claims it locks that very file and gives it the
second name ``running/<id>.task``; how it ended is another file, ``done/<id>.task``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

import attrs

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, locks
from animaworks_tasks.fs.disk import NO_LINKS, Disk
from animaworks_tasks.fs.journal import Journal
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.inbox import DirectoryNotifications
from animaworks_tasks.notifications.render import Renderer
from animaworks_tasks.store import keys, views
from animaworks_tasks.store.rules import Clock
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import State, Task, is_task_id
from animaworks_tasks.task.pending import SIZE_LIMIT
from animaworks_tasks.task.states import Event, advance

_TICK: Final = 20_000_000  # nanoseconds; the time of a file is no finer than the kernel's tick


@attrs.frozen
class Place:
    """
    Where a store is, and what its steps need.

    Attributes:
        layout: Where its files lie.
        disk: Takes the steps.
        render: Writes the notification of a done task.
        clock: Tells the time in UTC.
        journal: What happened, for people.
        notifications: What finished tasks left.
    """

    layout: Layout
    disk: Disk
    render: Renderer
    clock: Clock
    journal: Journal
    notifications: DirectoryNotifications

    @classmethod
    def at(cls, layout: Layout, *, durable: bool, render: Renderer, clock: Clock) -> Place:
        """Return the place that *layout* describes."""
        disk, journal = Disk(layout.tmp, durable=durable), Journal(layout.events)
        return cls(layout, disk, render, clock, journal, DirectoryNotifications(layout, disk, journal))

    def pending(self, task_id: str) -> Task:
        """
        Return the task that waits.

        Raises:
            FileNotFoundError: None does.
            RecordError: It cannot be read, or says that it belongs elsewhere.
        """
        return decoded(read(self.layout.pending_record(task_id), task_id), task_id, State.PENDING)

    def running(self, task_id: str) -> Task:
        """Return the task that runs, with what its view says of the run; errors as for :meth:`pending`."""
        return running_task(self.layout, decoded(read(self.layout.running_record(task_id), task_id), task_id))

    def done(self, task_id: str) -> Task:
        """Return the task that ended; errors as for :meth:`pending`."""
        return decoded(read(self.layout.done_record(task_id), task_id), task_id, State.DONE)

    def waits(self, task_id: str) -> bool:
        """Return whether something lies under the name of its pending record, readable or not."""
        return os.path.lexists(self.layout.pending_record(task_id))

    def runs(self, task_id: str) -> bool:
        """Return whether the task runs, or did when its owner died, or is being finished."""
        return os.path.lexists(self.layout.running_record(task_id))

    def ended(self, task_id: str) -> bool:
        """Return whether something lies under the name of its done record, readable or not."""
        return os.path.lexists(self.layout.done_record(task_id))

    def directory_of(self, task_id: str) -> str | None:
        """Return the directory a record of the task lies in; looked for in the order in which it moves on."""
        return keys.directory_of(self.layout, task_id)

    def cancelled(self, task_id: str) -> bool:
        """Return whether someone asked for the task to stop."""
        return os.path.lexists(self.layout.cancel(task_id))


def read(path: str, task_id: str) -> bytes:
    """
    Return what the record *path* holds.

    Raises:
        FileNotFoundError: There is none.
        RecordError: It is no file that can be read.
    """
    try:
        return files.read(path, limit=SIZE_LIMIT)
    except files.UnreadableFileError as error:
        raise RecordError(task_id, error.strerror or "it cannot be read") from None


def decoded(data: bytes, task_id: str, state: State = State.PENDING) -> Task:
    """Return the task that *data* records; what lies in running/ is still the record as it was submitted."""
    task = codec.decode(data, task_id)
    if task.state is not state:
        raise RecordError(task_id, f"it says that the task is {task.state.value}, and lies where it is not")
    return task


def running_task(layout: Layout, submitted: Task) -> Task:
    """Return a claimed task as RUNNING: since when and by whom is what its view says, if that is of this attempt."""
    running = advance(submitted, Event.CLAIM, attempt=submitted.attempt + 1)
    with contextlib.suppress(OSError, RecordError):
        seen = views.read(layout, submitted.id)
        if seen.state is State.RUNNING and seen.attempt == running.attempt:
            return attrs.evolve(
                running, started_at=seen.started_at, owner_pid=seen.owner_pid, subcommand=seen.subcommand
            )
    return running


def times(directory: str, ending: str) -> Iterator[tuple[int, str]]:
    """Yield for each record in *directory*, whose name ends in *ending*, its file's time, in ns, and its id."""
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            task_id = entry.name.removesuffix(ending)
            if task_id != entry.name and is_task_id(task_id):
                with contextlib.suppress(FileNotFoundError):  # it moved on
                    yield entry.stat(follow_symlinks=False).st_mtime_ns, task_id


def newest(directory: str, ending: str, limit: int | None) -> list[str]:
    """Return the ids of the *limit* newest, and of those that are as good as equally old as the last of them."""
    found = sorted(times(directory, ending), reverse=True)
    last = found[:limit][-1:]
    return [task_id for at, task_id in found if last and at >= last[0][0] - _TICK]


def unfit(disk: Disk, step: str) -> str | None:
    """Return why no store can be kept on a file system: its locks keep nobody out, or no file can have two names."""
    probe = disk.write(step, "probe", b"")
    try:
        os.link(probe, f"{probe}.link")
        files.discard(f"{probe}.link")
        return locks.lock_trouble(probe)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return "its file system has no hard links"
    finally:
        files.discard(probe)


def ids(directory: str, ending: str) -> set[str]:
    """Return the ids of the records in *directory*, whose names end in *ending*."""
    size = -len(ending)
    found = {name[:size] for name in files.names(directory) if name.endswith(ending)}
    return {task_id for task_id in found if is_task_id(task_id)}
