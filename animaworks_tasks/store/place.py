"""
A directory store as its steps see it: where its files lie, and how a record is read. Nothing here changes anything.

A record is one file. It is submitted as ``pending/<id>.json``; who claims it locks that very file and gives it the
second name ``running/<id>.task``; how it ended is another file, ``done/<id>.task``.
"""

from __future__ import annotations

import contextlib
import os

import attrs

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files
from animaworks_tasks.fs.disk import Disk
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


def ids(directory: str, ending: str) -> set[str]:
    """Return the ids of the records in *directory*, whose names end in *ending*."""
    size = -len(ending)
    found = {name[:size] for name in files.names(directory) if name.endswith(ending)}
    return {task_id for task_id in found if is_task_id(task_id)}
