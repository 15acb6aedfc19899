"""
The records of a directory store: where each lies, and the steps by which one moves on.

Each step is ordered so that a process killed between any two lines leaves something that recovery understands; the
table stands in docs/architecture.md. Except for looking, the caller holds the task's lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, locks
from animaworks_tasks.fs.journal import Journal, line
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.inbox import DirectoryNotifications
from animaworks_tasks.notifications.render import Renderer, rendered
from animaworks_tasks.store.protocol import Clock, given_back
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import State, Task, is_task_id
from animaworks_tasks.task.pending import ROOM, SIZE_LIMIT
from animaworks_tasks.task.states import Event, advance

logger = logging.getLogger("animaworks_tasks")


class DirectoryRecords:
    """
    What a store and its recovery do to records.

    Args:
        layout: Where they lie.
        sync: Whether they are to survive a power cut.
        render: Writes the notice of a done task.
        clock: Tells the time in UTC.
    """

    def __init__(self, layout: Layout, *, sync: bool, render: Renderer, clock: Clock) -> None:
        self.layout, self.sync, self.clock = layout, sync, clock
        self.journal = Journal(layout.events)
        self.notifications = DirectoryNotifications(layout, sync=sync, journal=self.journal)
        self._render = render
        self._misnamed: list[str] | None = None  # found when pending/ was last listed, and not yet taken

    def pending_ids(self) -> set[str]:
        """Return the ids of what waits in pending/."""
        names = [name for name in files.names(self.layout.pending) if name.endswith(".json")]
        found = {name[:-5] for name in names if is_task_id(name[:-5])}
        others = [] if len(found) == len(names) else [name for name in names if name[:-5] not in found]
        self._misnamed = [name for name in others if not name.startswith(".")]
        return found

    def take_misnamed(self) -> list[str]:
        """Return the names in pending/ that no task can have; of a long backlog, which takes time to list, the last."""
        if self._misnamed is None:
            self.pending_ids()
        taken, self._misnamed = self._misnamed or [], None
        return taken

    def pending(self, task_id: str) -> Task:
        """Return the task that waits in pending/; errors as for :meth:`read`."""
        return self.read(self.layout.pending, task_id)

    def is_foreign(self, name: str) -> bool:
        """Say whether the file *name* in pending/ is a task of another program, which is left alone."""
        try:
            codec.decode(read_bytes(self.layout.pending, name), name)
        except codec.ForeignRecordError:
            return True
        except (OSError, RecordError):
            pass
        return False

    def to_be_claimed(self, task_id: str) -> Task:
        """Return the task that waits in pending/, if there is room to say how it ends; errors as for :meth:`read`."""
        return self.read(self.layout.pending, task_id, claiming=True)

    def running(self, task_id: str) -> Task:
        """Return the task in running/, as its owner announced it; errors as for :meth:`read`."""
        with contextlib.suppress(FileNotFoundError, RecordError, files.UnreadableFileError):
            # The owner's file is for people and may be half gone after a power cut; the record beside it is not.
            task = codec.decode(files.read(self.layout.owner(task_id), limit=SIZE_LIMIT), task_id)
            if task.state is State.RUNNING:
                return task
        task = self.read(self.layout.running, task_id)
        return advance(task, Event.CLAIM, attempt=task.attempt + 1)

    def done(self, task_id: str) -> Task:
        """Return the task that ended; errors as for :meth:`read`."""
        return self.read(self.layout.done, task_id)

    def read(self, directory: str, task_id: str, *, claiming: bool = False) -> Task:
        """
        Return the task whose record lies in *directory*.

        Args:
            directory: Where to look.
            task_id: Its name there.
            claiming: Refuse one that leaves no room to say how it ends: a plain writer knows nothing of that.

        Raises:
            FileNotFoundError: None does.
            RecordError: It cannot be read, or says that it belongs elsewhere.
        """
        try:
            data = read_bytes(directory, f"{task_id}.json")
        except files.UnreadableFileError as error:
            raise RecordError(task_id, error.strerror or "it cannot be read") from None
        task = codec.decode(data, task_id)
        # What lies in running/ is still the record as it was submitted.
        expected = State.DONE if directory == self.layout.done else State.PENDING
        if task.state is not expected:
            raise RecordError(task_id, f"it says that the task is {task.state.value}, and lies where it is not")
        if claiming and not codec.leaves_room(data):
            codec.check(task, room=ROOM)
        return task

    def has(self, directory: str, task_id: str) -> bool:
        """Say whether something lies under the name of the record in *directory*, readable or not."""
        return os.path.lexists(f"{directory}/{task_id}.json")

    def runs(self, task_id: str) -> bool:
        """Say whether the task runs, or did when its owner died."""
        return self.has(self.layout.running, task_id)

    def lives(self, task_id: str) -> bool:
        """Say whether the task waits or runs."""
        return self.runs(task_id) or self.has(self.layout.pending, task_id)

    def cancelled(self, task_id: str) -> bool:
        """Say whether someone asked for the task to stop."""
        return os.path.lexists(self.layout.cancel(task_id))

    def path(self, directory: str, task_id: str) -> str:
        """Return the path of the record in *directory*."""
        return f"{directory}/{task_id}.json"

    def free(self, task_id: str) -> bool:
        """Say whether a pending record is to be run; called with the lock held."""
        if self.has(self.layout.done, task_id):  # a second submit of its key; or its own, back after a power cut
            self.sync_directory(self.layout.done)
            try:
                self.done(task_id)
            except RecordError:  # so nobody knows whether it ran: recovery decides that, by the policy for orphans
                self.move_to_running(f"{task_id}.json", task_id)
            else:
                files.discard(self.path(self.layout.pending, task_id))
                files.clear(self.layout.cancel(task_id))
            return False
        return not self.has(self.layout.running, task_id)  # an orphan: recovery comes first

    def move_to_running(self, name: str, task_id: str) -> bool:
        """Link, make it durable, unlink, make that durable: killed between any two, the record is somewhere."""
        if not self.link_to_running(name, task_id):
            return False
        self.leave_pending(name, durably=True)
        return True

    def link_to_running(self, name: str, task_id: str) -> bool:
        """Begin to move a record; False where its submitter took it back. :meth:`leave_pending` comes next."""
        try:
            files.link(f"{self.layout.pending}/{name}", self.path(self.layout.running, task_id))
        except FileNotFoundError:
            return False
        return True

    def leave_pending(self, name: str, *, durably: bool) -> None:
        """
        End the move of a record.

        That it has left need not be durable where its task was announced in between, under a name that becomes durable
        together with that of the record: who finds all three after a power cut knows that the tool may have begun.
        """
        self.sync_directory(self.layout.running)
        files.discard(f"{self.layout.pending}/{name}")
        if durably:
            self.sync_directory(self.layout.pending)

    def announced(self, task: Task) -> bool:
        """Announce a task that was claimed, and say whether that could be done: a full disk must not keep it."""
        try:
            self.announce(task)
        except OSError as error:
            logger.warning("task %s runs, but others cannot see by whom: %s", task.id, error)
            return False
        return True

    def announce(self, task: Task) -> None:
        """
        Say what runs, since when and by whom; errors as for :func:`.fs.files.publish`.

        What it says is for people, so it is not fsynced. That it is there says that the tool may have begun.
        """
        owner, view = self.layout.owner(task.id), self.layout.view(task.id)
        data = codec.encode(task)  # unchecked: it was read a moment ago, and its reader can do without
        name = os.path.basename(owner)
        if not files.publish(self.layout.running, name, data, tmp=self.layout.tmp, sync=False, view=view):
            files.replace(owner, data, tmp=self.layout.tmp)  # at no moment is there none
            files.show(owner, view, tmp=self.layout.tmp)

    def withdraw(self, task_id: str) -> None:
        """Take back what was announced of a task that still waits, because its claim is broken off."""
        with contextlib.suppress(OSError):
            if self.has(self.layout.pending, task_id):
                files.clear(self.layout.owner(task_id))

    def may_have_begun(self, task_id: str) -> bool:
        """Say whether a running task was announced, which it was before its tool began."""
        return os.path.lexists(self.layout.owner(task_id))

    def begin(self, task_id: str, data: bytes, *, sync: bool) -> bool:
        """Publish the record of a task that begins as ours in running/; False where it is known already."""
        if self.has(self.layout.done, task_id) or self.has(self.layout.pending, task_id):
            return False
        if not files.publish(self.layout.running, f"{task_id}.json", data, tmp=self.layout.tmp, sync=sync):
            return False
        self.journal.note("submitted", task_id)
        return True

    def sync_running(self, task_id: str) -> None:
        """Make durable what :meth:`begin` published without."""
        if self.sync:
            files.sync(self.path(self.layout.running, task_id))
            files.sync_directory(self.layout.running)

    def settle(self, task: Task) -> Task:
        """Publish the outcome, which is the commit, and leave the notice; returns what is on disk."""
        data = codec.written(task)
        published = files.publish(
            self.layout.done,
            f"{task.id}.json",
            data,
            tmp=self.layout.tmp,
            sync=self.sync,
            view=self.layout.view(task.id),
            at=None if task.finished_at is None else task.finished_at.timestamp(),  # so that a prune need not read it
            meanwhile=lambda: codec.read_back(data, task.id),
        )
        lines = b""
        if not published:  # an earlier try came this far: what it wrote stands
            task = self.done(task.id)
            self.mend_view(task.id)
        elif task.outcome is not None:
            cause = task.cause and task.cause.value
            lines = line("ended", task.id, outcome=task.outcome.value, cause=cause)
        self._notify(task, lines)
        return task

    def notify(self, task: Task) -> None:
        """Leave the notice of a done task, unless it was left before."""
        self._notify(task, b"")

    def _notify(self, task: Task, lines: bytes) -> None:
        """Do as :meth:`notify`, and add *lines* to the journal, of what happened before; whatever the disk says."""
        try:
            if self.notifications.publish(task, rendered(self._render, task)):
                lines += line("notified", task.id)
        finally:
            if lines:
                self.journal.add(lines)

    def give_back(self, task: Task, *, pause: float = 0.0, began: bool = True) -> Task:
        """Put a running record back to pending, as :meth:`Store.release` says."""
        back = given_back(task, pause=pause, began=began, now=self.clock())
        data = codec.check(back)
        while not files.publish(
            self.layout.pending, f"{task.id}.json", data, tmp=self.layout.tmp, sync=self.sync
        ):  # a second submit of the same key, which knows nothing of the attempts made
            files.discard(self.path(self.layout.pending, task.id))
        self.hide(task.id)
        self.forget_running(task.id, waits=True)
        if not began:  # what a power cut brought back would say that it did: nothing else tells the two records apart
            self.sync_directory(self.layout.running)
        self.journal.note("returned", task.id, attempts=back.attempt)
        return back

    def forget_running(self, task_id: str, *, waits: bool = False) -> None:
        """Remove what says that a task runs. One that *waits* again keeps the wish that it stop, if there is one."""
        if not waits:
            files.clear(self.layout.cancel(task_id))
        # The record last: as long as it is there, recovery looks at the task.
        for path in (self.layout.owner(task_id), self.path(self.layout.running, task_id)):
            files.clear(path)

    def mend_view(self, task_id: str) -> None:
        """Let the view show how the task ended: whoever published that may have died before."""
        files.show(self.path(self.layout.done, task_id), self.layout.view(task_id), tmp=self.layout.tmp)

    def hide(self, task_id: str) -> None:
        """Take the view of a task away that waits again: others find it in pending/, and it would say running."""
        with contextlib.suppress(OSError):
            files.discard(self.layout.view(task_id))

    def forget_read(self, task: Task) -> None:
        """
        Forget the notice of an earlier task with the same key; called with the lock held, and before the tool starts.

        Whoever pruned that task may have died before it came to this, and it would pass for a notice of this one.
        """
        if task.key is not None:
            files.discard(os.path.join(self.layout.read, f"{task.id}.md"))
            self.sync_directory(self.layout.read)  # also where it is gone: a prune does not wait for that

    def forget_traces(self, task_id: str) -> None:
        """Remove what belonged to a task whose record is gone, unless there is a new one with its key."""
        with self.holding(task_id) as held:
            if held.lock is not None and not self.lives(task_id) and not self.has(self.layout.done, task_id):
                self._remove_traces(task_id)

    def _remove_traces(self, task_id: str) -> None:
        shutil.rmtree(os.path.join(self.layout.results, task_id), ignore_errors=True)
        for path in (
            os.path.join(self.layout.logs, f"{task_id}.log"),
            os.path.join(self.layout.progress, f"{task_id}.json"),
            os.path.join(self.layout.read, f"{task_id}.md"),
            self.layout.view(task_id),
        ):
            files.clear(path)

    def sync_directory(self, directory: str) -> None:
        """Make the entries of *directory* durable, where this store is to survive power cuts."""
        if self.sync:
            files.sync_directory(directory)

    def sync_all(self) -> None:
        """Make durable whatever a dead process left, before something is built on it."""
        layout = self.layout
        for directory in (layout.pending, layout.running, layout.done, layout.notifications, layout.read):
            self.sync_directory(directory)

    def holding(self, task_id: str, *, patience: float = 0.0) -> locks.Holding:
        """Return a ``with`` block that holds the lock of *task_id*, if it is free, or is within *patience* seconds."""
        return locks.Holding(self.layout.lock(task_id), patience)


def read_bytes(directory: str, name: str) -> bytes:
    """Return what a file of ours holds, if it is no larger than a record may be; errors as for `files.read`."""
    return files.read(f"{directory}/{name}", limit=SIZE_LIMIT)


def ids(directory: str) -> set[str]:
    """Return the ids of the records in *directory*."""
    return {name[:-5] for name in files.names(directory) if name.endswith(".json") and is_task_id(name[:-5])}
