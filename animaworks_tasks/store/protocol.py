"""
The promise that every store keeps, whether its tasks are files or live in memory.

A task moves pending -> running -> done, by :func:`~animaworks_tasks.task.states.advance` alone. Whoever *claims* a task
owns it until it is finished or requeued; of two claimants one gets it. What was submitted ends in one outcome and one
notification, whatever died in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, Unpack

import attrs

from animaworks_tasks.fs.locks import Lock
from animaworks_tasks.notifications.inbox import Notifications
from animaworks_tasks.store.rules import Question, SubmitOptions, never
from animaworks_tasks.task.model import State, Task
from animaworks_tasks.task.states import Event
from animaworks_tasks.tools.context import Workspace


class Held(Protocol):
    """What an owner holds of its task."""

    def release(self) -> None:
        """Let go as the owner's death would: without a finish the task is an orphan."""


@attrs.define(eq=False)
class Claim:
    """
    Proof that we own a task; ends with :meth:`Store.finish` or :meth:`Store.requeue`, or when this process dies.

    Attributes:
        task: The task, RUNNING.
        lock: What the store holds for it; None once the claim has ended.
        slot: What is held of the resource that it needs; None where there is nothing.
    """

    task: Task
    lock: Held | None
    slot: Lock | None = None

    def fileno(self) -> int | None:
        """Return the descriptor of the locked record, whose copies hold the lock too; None where there is none."""
        number = getattr(self.lock, "fileno", None)
        return None if number is None else int(number())

    def descriptors(self) -> list[int]:
        """Return the descriptors of the locked record and of the slot, which go to the process that runs the tool."""
        numbers = (self.fileno(), None if self.slot is None else self.slot.fileno())
        return [number for number in numbers if number is not None]


@attrs.frozen
class Recovery:
    """
    What a look at the running tasks found.

    Attributes:
        alive: Ids whose owner lives, ours included.
        finished: Orphans that were finished: DONE, with their notifications.
        requeued: Orphans that are PENDING again: they never started, or may run again.
    """

    alive: tuple[str, ...] = ()
    finished: tuple[Task, ...] = ()
    requeued: tuple[Task, ...] = ()


@attrs.frozen
class Progress:
    """The last progress report: *fraction* is 0 to 1, or None where the end is not known."""

    fraction: float | None
    message: str
    at: datetime


@attrs.frozen
class Changes:
    """
    What a watch saw.

    Attributes:
        ids: Tasks that were submitted or requeued, whose outcome was recorded, or whose owner released it or died.
        incomplete: Something was missed: look at everything.
    """

    ids: frozenset[str] = frozenset()
    incomplete: bool = False


class Watch(Protocol):
    """Wakes an executor that waits for work; as long as it is open, submitters see that a host is there."""

    @property
    def problem(self) -> str | None:
        """Why nothing is seen, so that only regular looks find what changed; None where all is well."""

    def wait(self, timeout: float) -> Changes:
        """Sleep until something changed, :meth:`wake` was called, or *timeout* seconds; return what changed."""

    def refresh(self) -> None:
        """Watch again what was removed and made anew; called before each look at everything."""

    def wake(self) -> None:
        """End the current or the next :meth:`wait`; from any thread."""

    def close(self) -> None:
        """Stop watching."""


class Store(Protocol):
    """Keeps tasks, their logs and their notifications. Safe to use from any thread."""

    @property
    def location(self) -> str:
        """Where the tasks are kept, for messages."""

    @property
    def notifications(self) -> Notifications:
        """What finished tasks left for the heartbeat."""

    def submit(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        """
        Keep a call to be made; once this has returned, it is not lost.

        Args:
            tool: The tool's name.
            *argv: Everything after the tool's name, the subcommand included.
            **options: See :class:`SubmitOptions`.

        Returns:
            The task: PENDING, unless *key* named an earlier one.

        Raises:
            TypeError: A word of *argv* is no text, or an option is unknown or not of its type. Nothing was kept.
            ValueError: An option cannot be what was given: a negative number, an infinite time, a moment without its
                timezone, a word that is no policy. Nothing was kept.
            RecordError: It cannot be stored as it is: larger than 1 MiB, or text that is not UTF-8. Nothing was kept.
            PartlySubmittedError: It is queued and will run, but the disk did not make its name durable.
            OSError: The disk said no. Nothing was kept.
        """

    def submit_many(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        """
        Keep many calls of one tool, in a fraction of the time that :meth:`submit` takes for each.

        Args:
            tool: The tool's name.
            argvs: For each call what follows the tool's name, as in :meth:`submit`.
            **options: Of all of them; no *key*, which names one task.

        Returns:
            The tasks, in the order of *argvs*: PENDING.

        Raises:
            TypeError, ValueError: As :meth:`submit`; or there is a *key*. Nothing was kept.
            RecordError: One of them cannot be stored as it is. Nothing was kept.
            PartlySubmittedError: The disk said no half way: its ``submitted`` are kept and will run, the others not.
            OSError: The disk said no. Nothing was kept.
        """

    def get(self, task_id: str) -> Task:
        """
        Return the task as it is now.

        Raises:
            TaskNotFoundError: The store has no such task; it may have been pruned.
            RecordError: It has, and the record cannot be read.
        """

    def waits(self, task_id: str) -> bool:
        """Return whether the task seems to wait to be claimed, by a look that costs next to nothing."""

    def runs(self, task_id: str) -> bool:
        """Return whether the task has an owner, living or dead; it still has one while its end is being notified."""

    def pending(self, task_id: str) -> Task | None:
        """
        Return the task if it waits to be claimed; None where it does not. Costs less than :meth:`get`.

        Raises:
            RecordError: As :meth:`get`.
        """

    def list(self, state: State | None = None, *, limit: int | None = None) -> Sequence[Task]:
        """
        Return tasks, the last changed first (submitted, claimed or finished, by their state).

        Args:
            state: Only these; None for all.
            limit: At most so many; None for all.
        """

    def begin(self, task: Task, *, durably: bool = True) -> Claim:
        """
        Keep a call that nobody but us can make, and own it from the start: at no moment could another claim it.

        Args:
            task: PENDING and new, its id random. If we die, recovery does what it says of interrupts.
            durably: False costs no fsync: the record survives our death, and a power cut only after :meth:`secure`.

        Returns:
            The claim on it.

        Raises:
            RecordError: It cannot be stored as it is, as with :meth:`submit`. Nothing was kept.
            OSError: The disk said no. Nothing was kept, or recovery ends it as interrupted.
        """

    def secure(self, claim: Claim) -> None:
        """
        Let what was begun without *durably* survive a power cut too.

        Raises:
            OSError: The disk said no. The claim lasts.
        """

    def pending_ids(self) -> set[str]:
        """Return the ids of all pending tasks, without reading their records."""

    def read_record(self, task_id: str) -> bytes | None:
        """
        Return the record of a task that waits to be claimed, as its submitter wrote it; None where none does.

        Raises:
            RecordError: It is no file that can be read.
        """

    def claim(self, task_id: str, *, due_by: datetime | None = None, record: bytes | None = None) -> Claim | None:
        """
        Become the owner of a pending task; None if it is not to be had: owned, running, done, gone, or unreadable.

        An unreadable record is ended as FAILED, cause REJECTED, unless it is so young that it may still be written. One
        whose cancellation was requested in an earlier attempt is ended as CANCELLED.

        Args:
            task_id: The task.
            due_by: Only if its ``not_before`` has come by then; None in any case.
            record: Only if its record is this one, byte for byte, from :meth:`read_record`; None in any case.
        """

    def publish_view(self, claim: Claim, *, session: int | None = None) -> None:
        """
        Let others see what runs, since when and by whom. A courtesy: where the disk refuses it, nothing is lost.

        Args:
            claim: From :meth:`claim`.
            session: The process id of the tool process, which leads its own session; None where the tool runs here.

        Raises:
            ClaimLostError: The claim had ended.
        """

    def finish(self, claim: Claim, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - attributes of the task
        """
        End a claimed task: record the outcome, leave the notification, release the record.

        Args:
            claim: From :meth:`claim`; it ends with this.
            event: COMPLETE, FAIL or CANCEL.
            **changes: Attributes of the task: ``result``, ``result_file``, ``cause``, ``error``, ``hint`` ...

        Returns:
            The task as it is stored.

        Raises:
            ClaimLostError: The claim had ended.
            RecordError: The outcome cannot be stored as it is; the claim lasts, finish it with less.
            OSError: The disk said no; the claim lasts, try again.
        """

    def requeue(self, claim: Claim, *, pause: float = 0.0, began: bool = True) -> Task:
        """
        Put a claimed task back to PENDING; errors as for :meth:`finish`.

        Args:
            claim: From :meth:`claim`; it ends with this.
            pause: Seconds until it may be claimed for its next attempt, by the store's clock as it is now; 0: at once.
            began: Whether its tool was called. If not, the task is as it was before the claim: no attempt was made of
                it, and its ``not_before`` stands.
        """

    def recover(
        self, may_run_again: Question = never, *, concerns: Question | None = None, only: Iterable[str] | None = None
    ) -> Recovery:
        """
        Look at every running task; finish or requeue those whose owner has died.

        Args:
            may_run_again: Asked of an orphan that may have partly run, as RUNNING; True puts it back to PENDING.
            concerns: Asked of every orphan before; False leaves it to others. None: all concern us.
            only: Ids; None: look at every running task.
        """

    def request_cancel(self, task_id: str) -> Task:
        """
        Request that a task be cancelled: a pending one ends at once, a running one when its owner sees the request.

        Returns:
            The task after that.

        Raises:
            TaskNotFoundError: The store has no such task.
        """

    def prune(
        self, *, finished_before: datetime | None = None, keep: int | None = None, limit: int | None = None
    ) -> Sequence[str]:
        """
        Forget done tasks, except those whose notification nobody has acknowledged.

        Args:
            finished_before: Those that finished earlier; None: none because of its age.
            keep: Besides, all but the so many that finished last, what cannot be forgotten included; None: none because
                of their number.
            limit: At most so many at once, the oldest first; None: all.

        Returns:
            The ids of what was forgotten.
        """

    def workspace(self, task_id: str) -> Workspace:
        """Return what the tool of *task_id* works with while it runs."""

    def read_log(self, task_id: str) -> bytes:
        """Return what the tool has written so far; empty where it wrote nothing."""

    def read_result(self, task_id: str) -> str | None:
        """
        Return all that the tool returned or printed; None for nothing. Of much :attr:`Task.result` is the beginning.

        Raises:
            TaskNotFoundError: The store has no such task.
            RecordError: It has, and the record cannot be read.
            OSError: The file of a large result cannot be read.
        """

    def read_progress(self, task_id: str) -> Progress | None:
        """Return the last progress report; None where there is none."""

    def publish_catalogue(self, catalogue: Mapping[str, object]) -> None:
        """Tell submitters elsewhere what tools there are (see :meth:`Registry.catalogue`)."""

    def problem(self) -> str | None:
        """Return why no task can be kept or ended now, as when the disk is full; None where one can."""

    def watch(self, *, closely: bool = False) -> Watch:
        """Return a watch of this store, which sees what any process does to it; *closely*, also claims and progress."""
