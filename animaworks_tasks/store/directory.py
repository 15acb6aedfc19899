"""
Tasks as files: a directory per state, a JSON record per task.

    <root>/pending/<id>.json    submitted, free to claim
    <root>/running/<id>.task    claimed: the same file under a second name, locked by its owner for as long as it lives
    <root>/done/<id>.task       final, kept until pruned

A record is whole or absent. Of two claimants one gets the record's lock, and only its holder moves it on.
A lock dies with its holders: a running record whose lock is free is an orphan, and may be recovered.

The order of the steps, and why each fsync is there, stands in docs/architecture.md; the steps are in transitions.py.
Needs a file system whose locks work and that has hard links (checked at start).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Unpack

import attrs

from animaworks_tasks.errors import PartlySubmittedError, RecordError, StoreError, TaskNotFoundError
from animaworks_tasks.fs import files, json
from animaworks_tasks.fs.disk import NO_ROOM
from animaworks_tasks.fs.layout import Layout, home
from animaworks_tasks.notifications.render import MarkdownRenderer, Renderer
from animaworks_tasks.store import enqueue, keys, recovery, rejection, rules, transitions, views
from animaworks_tasks.store.leftovers import Owner
from animaworks_tasks.store.place import Place, ids, newest, read, times, unfit
from animaworks_tasks.store.protocol import Claim, Progress, Recovery
from animaworks_tasks.store.rules import Clock, Question, SubmitOptions, never, utc_now
from animaworks_tasks.store.watch import DirectoryWatch
from animaworks_tasks.store.workspace import DirectoryWorkspace, kept_result, progress_from
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import State, Task, is_task_id
from animaworks_tasks.task.pending import RECORD_SIZE, ROOM, SIZE_LIMIT
from animaworks_tasks.task.states import Event
from animaworks_tasks.tools.catalogue import default_language

logger = logging.getLogger("animaworks_tasks")


class TaskStore:
    """
    Tasks in ``<anima_dir>/state/background_tasks``, shared by all processes that name this directory.

    Attributes:
        location: The Anima's directory.
        notifications: What finished tasks left for the heartbeat.

    Args:
        anima_dir: The Anima's directory; made if it is not there. None is a home for the tasks of this user, where
            ``animaworks-tool`` looks as well if it is given no Anima: platformdirs' ``user_state_dir``.
        language: Of the notifications: ``"ja"``, ``"en"``, or ``"ko"``, which has Korean headings and English lines.
            None is Japanese, but in the user's home for tasks that of the locale.
        durability: ``"full"``: what was acknowledged survives a power cut. ``"process"``: only the death of processes;
            nothing is fsynced but the format and its conversion.
        render: Writes the notification of a done task instead: a text of at most 20,000 bytes. Must be picklable for
            processes, and pure. Where it fails, ours in English is left.
        clock: Tells the time in UTC.
        shared: Whether a file system that is not local, such as NFS or sshfs, is taken: you know that a lock on it
            excludes other machines too. Otherwise two of them could run a task at once, so it is refused.

    Raises:
        ValueError: *language* or *durability* is none of these words.
        StoreError: The directory cannot be made or written; another user could change what is in it; or its file system
            is not local, has no working locks or no hard links, or gives what we make to somebody else.
    """

    def __init__(
        self,
        anima_dir: str | os.PathLike[str] | None = None,
        *,
        language: str | None = None,
        durability: Literal["full", "process"] = "full",
        render: Renderer | None = None,
        clock: Clock = utc_now,
        shared: bool = False,
    ) -> None:
        if durability not in {"full", "process"}:
            raise ValueError(f"durability is 'full' or 'process', not {durability!r}")
        language = language or (default_language() if anima_dir is None else "ja")
        self.layout = Layout(home() if anima_dir is None else anima_dir)
        # By its whole path: a supervisor, or this process later on, may be in another directory.
        self._options: Any = {"language": language, "durability": durability, "render": render, "clock": clock}
        self._options["shared"] = shared
        self.place = Place.at(
            self.layout, durable=durability == "full", render=render or MarkdownRenderer(language), clock=clock
        )
        self.location, self.notifications = self.layout.anima, self.place.notifications
        self._swept = False
        try:
            for warning in enqueue.create(self.layout, self.place.disk, shared=shared):
                logger.warning("%s", warning)
            self._probe()
        except StoreError:
            raise
        except OSError as error:
            # What is there can be read all the same, and pruned, which makes room.
            if error.errno not in NO_ROOM or not os.path.lexists(self.layout.format):
                raise StoreError(self.layout.root, error.strerror or str(error)) from error

    def __reduce__(self) -> tuple[object, ...]:
        # A supervisor is sent its store with every task, and need not look at the place each time.
        is_hashable = all(isinstance(option, Hashable) for option in self._options.values())
        return functools.partial(_remembered if is_hashable else TaskStore, **self._options), (self.layout.anima,)

    def __repr__(self) -> str:
        return f"TaskStore({self.layout.anima!r})"

    # Submitting and looking.

    def submit(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        task = rules.new_task(tool, argv, options, anima_dir=self.layout.anima, at=self.place.clock())
        data = codec.check(task, room=2 * ROOM)  # claimed again after a requeue, it is a little larger
        if task.key is None:
            enqueue.submit(self.layout, self.place.disk, self.place.journal, task.id, data)
            return task
        while True:
            task_id = keys.submit(self.layout, self.place.disk, self.place.journal, task.id, task.key, data)
            with contextlib.suppress(TaskNotFoundError):  # pruned just now, and its key with it
                return task if task_id == task.id else self.get(task_id)

    def submit_many(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        tasks = rules.new_tasks(tool, argvs, options, anima_dir=self.layout.anima, at=self.place.clock())
        records = ((task.id, codec.check(task, room=2 * ROOM)) for task in tasks)
        submitted, problem = enqueue.submit_many(self.layout, self.place.disk, self.place.journal, records)
        if problem is not None:
            raise PartlySubmittedError(tuple(submitted), str(problem))
        return tasks

    def get(self, task_id: str) -> Task:
        if is_task_id(task_id):
            # A task moves on while we look: with running and done looked at on both sides of pending, we meet it.
            place = self.place
            for find in (place.done, place.running, place.pending, place.running, place.done):
                with contextlib.suppress(FileNotFoundError):
                    return find(task_id)
        raise TaskNotFoundError(task_id, self.location)

    def waits(self, task_id: str) -> bool:
        return is_task_id(task_id) and self.place.waits(task_id)

    def runs(self, task_id: str) -> bool:
        return is_task_id(task_id) and self.place.runs(task_id)

    def pending(self, task_id: str) -> Task | None:
        if is_task_id(task_id):
            with contextlib.suppress(FileNotFoundError):
                task = self.place.pending(task_id)
                return None if self.place.runs(task_id) or self.place.ended(task_id) else task
        return None

    def list(self, state: State | None = None, *, limit: int | None = None) -> Sequence[Task]:
        found: dict[str, Task] = {}
        place, layout = self.place, self.layout
        for wanted, directory, ending, find in (
            (State.PENDING, layout.pending, ".json", place.pending),
            (State.RUNNING, layout.running, ".task", place.running),
            (State.PENDING, layout.pending, ".json", place.pending),  # what was requeued between the two looks
            (State.DONE, layout.done, ".task", place.done),  # the last word on what moved on
        ):
            if state in {None, wanted}:
                # A running record is as old as its submit, so its file does not tell when it was claimed; they are few.
                for task_id in newest(directory, ending, None if wanted is State.RUNNING else limit):
                    if wanted is State.PENDING and task_id in found:
                        continue
                    with contextlib.suppress(FileNotFoundError, RecordError):
                        found[task_id] = find(task_id)
        return sorted(found.values(), key=rules.changed_at, reverse=True)[:limit]

    def pending_ids(self) -> set[str]:
        return ids(self.layout.pending, ".json")

    # Owning a task.

    def read_record(self, task_id: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return read(self.layout.pending_record(task_id), task_id) if is_task_id(task_id) else None
        return None

    def claim(self, task_id: str, *, due_by: datetime | None = None, record: bytes | None = None) -> Claim | None:
        if not is_task_id(task_id):
            return None
        try:
            return transitions.claim(self.place, task_id, due_by=due_by, record=record)
        except RecordError as error:
            rejection.reject(self.place, f"{task_id}.json", task_id, error.reason)
            return None

    def begin(self, task: Task, *, durably: bool = True) -> Claim:
        claim = transitions.begin(self.place, task, durably=durably)
        self.publish_view(claim)
        return claim

    def secure(self, claim: Claim) -> None:
        if self.place.disk.durable:
            os.fsync(transitions.lock_of(claim).fileno())
            files.sync_directory(self.layout.running)

    def publish_view(self, claim: Claim, *, session: int | None = None) -> None:
        transitions.lock_of(claim)
        views.show(self.layout, self.place.disk, claim.task, Owner.me(session))

    def finish(self, claim: Claim, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - attributes of the task
        return transitions.finish(self.place, claim, event, **changes)

    def requeue(self, claim: Claim, *, pause: float = 0.0, began: bool = True) -> Task:
        return transitions.requeue(self.place, claim, pause=pause, began=began)

    # Recovering, cancelling and forgetting.

    def recover(
        self, may_run_again: Question = never, *, concerns: Question | None = None, only: Iterable[str] | None = None
    ) -> Recovery:
        if not self._swept:
            self.sweep()
            self._swept = True
        return recovery.recover(self.place, may_run_again, concerns, only)

    def sweep(self) -> None:
        """
        Remove what dead processes left lying: keys, requests, drafts; and mend the views after a power cut.

        A journal that has grown large is put aside, as :meth:`recover` does too.
        """
        recovery.sweep(self.place)

    def request_cancel(self, task_id: str) -> Task:
        task = self.get(task_id)
        if task.state is State.DONE:
            return task
        return transitions.cancel(self.place, task_id) or self.get(task_id)

    def prune(
        self, *, finished_before: datetime | None = None, keep: int | None = None, limit: int | None = None
    ) -> Sequence[str]:
        pruned = transitions.prune(self.place, itertools.islice(self._ripe(finished_before, keep, unread=False), limit))
        self.place.journal.rotate()
        return pruned

    def prunable(self, *, finished_before: datetime | None = None, keep: int | None = None) -> Prunable:
        """Return what :meth:`prune` would forget now, and what it would not only because of its notification."""
        forget, unread = (
            tuple(task.id for task in self._ripe(finished_before, keep, unread=unread)) for unread in (False, True)
        )
        return Prunable(forget, unread)

    def _ripe(self, finished_before: datetime | None, keep: int | None, *, unread: bool) -> Iterator[Task]:
        """
        Yield the tasks that may be forgotten, or that may not because of their notification alone, the oldest first.

        The file of a done record has the time at which its task ended, or, if it was copied, a later one: so no record
        need be read that is to stay.
        """
        oldest_first = sorted(times(self.layout.done, ".task"))
        besides = 0 if keep is None else len(oldest_first) - keep
        limit = -1 if finished_before is None else files.file_time(finished_before.timestamp())
        for number, (at, task_id) in enumerate(oldest_first):
            if (number >= besides and at > limit) or self.place.runs(task_id) or self.place.waits(task_id):
                continue
            if self.notifications.waits(task_id) is unread:
                with contextlib.suppress(RecordError, FileNotFoundError):
                    task = self.place.done(task_id)
                    ended = task.finished_at
                    if number < besides or (finished_before and ended and ended < finished_before):
                        yield task

    # What belongs to a task besides its record.

    def events(self, task_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield what was noted in ``events.jsonl`` of one task, or of all, the oldest first."""
        return self.place.journal.read(task_id)

    def workspace(self, task_id: str) -> DirectoryWorkspace:
        return DirectoryWorkspace(self.layout, task_id, self.place.disk)

    def read_log(self, task_id: str) -> bytes:
        try:
            return files.read(self.layout.log(task_id), limit=sys.maxsize)
        except OSError:  # none, or something else in its place
            return b""

    def read_result(self, task_id: str) -> str | None:
        task = self.get(task_id)
        whole = kept_result(self.layout, task)
        return task.result if whole is None else whole.decode("utf-8", "replace")

    def read_progress(self, task_id: str) -> Progress | None:
        return progress_from(self.workspace(task_id).progress_path)

    def publish_catalogue(self, catalogue: Mapping[str, object]) -> None:
        # The language is that of the notifications that other processes leave.
        data = json.dump({**catalogue, "language": self._options["language"]})
        with contextlib.suppress(OSError):
            if files.read(self.layout.catalogue, limit=SIZE_LIMIT) == data:
                return
        self.place.disk.show(self.layout.catalogue, data)

    def problem(self) -> str | None:
        draft = self.place.disk.draft("probe")
        try:
            files.write(draft, bytes(RECORD_SIZE), sync=False)
        except OSError as error:
            return f"{self.layout.root} cannot be written: {error.strerror}"
        finally:
            with contextlib.suppress(OSError):
                files.discard(draft)
        return None

    def watch(self, *, closely: bool = False) -> DirectoryWatch:
        return DirectoryWatch(self.layout, closely=closely)

    def _probe(self) -> None:
        trouble = unfit(self.place.disk, "create.probe")
        if trouble is not None:
            raise StoreError(self.layout.root, f"{trouble}; use a local one")


@attrs.frozen
class Prunable:
    """
    What a prune would do.

    Attributes:
        forget: Ids of the tasks that would be forgotten, the oldest first.
        unread: Ids of those that would be too, had anybody acknowledged their notifications.
    """

    forget: tuple[str, ...]
    unread: tuple[str, ...]


@functools.lru_cache(maxsize=16)
def _remembered(anima_dir: str, **options: Any) -> TaskStore:  # noqa: ANN401 - those of a TaskStore
    return TaskStore(anima_dir, **options)
