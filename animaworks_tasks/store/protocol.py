"""
The promise that every store keeps, whether its tasks are files or live in memory.

A task moves pending -> running -> done, by :func:`~animaworks_tasks.task.states.advance` alone. Whoever *claims* a task
owns it until it is finished or released; of two claimants one gets it. What was submitted ends in one outcome and one
notification, whatever died in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypedDict, Unpack

import attrs

from animaworks_tasks.notifications.inbox import Notifications
from animaworks_tasks.task.model import OnInterrupt, State, Task, words_of
from animaworks_tasks.task.pending import first_word, new_id
from animaworks_tasks.task.states import Event, advance
from animaworks_tasks.tools.context import Workspace

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def changed_at(task: Task) -> tuple[datetime, str]:
    """Return when the task came into its state, and its id: the order in which lists are."""
    return (task.finished_at or task.started_at or task.submitted_at, task.id)


def is_due(task: Task, by: datetime | None) -> bool:
    """Say whether the ``not_before`` of *task* has come *by* then; None is any time."""
    return task.not_before is None or by is None or task.not_before <= by


def never_began(task: Task) -> dict[str, Any]:
    """Return the changes that say of a claimed *task* that it was cancelled before its tool was called."""
    error = "it was cancelled before it started"
    return {"attempt": task.attempt - 1, "started_at": None, "owner_pid": None, "error": error}


def may_begin_again(task: Task, *, on_interrupt: OnInterrupt, max_attempts: int) -> bool:
    """
    Say whether a task whose owner died may run again, having not yet taken its owner along too often.

    Args:
        task: As it was when its owner died.
        on_interrupt: What its tool says, where its submitter says nothing.
        max_attempts: Likewise.
    """
    policy = task.on_interrupt or on_interrupt
    limit = task.max_attempts or max(max_attempts, (task.retries or 0) + 1)
    return policy is OnInterrupt.RETRY and task.attempt < limit


def given_back(task: Task, *, pause: float, began: bool, now: datetime) -> Task:
    """Return a RUNNING *task* as :meth:`Store.release` gives it back *now*."""
    changes: dict[str, Any] = {"started_at": None, "owner_pid": None}
    if began:
        changes["not_before"] = now + timedelta(seconds=pause) if pause else None
    else:
        changes["attempt"] = task.attempt - 1
    return advance(task, Event.RETRY, **changes)


@attrs.define(eq=False)
class Claim:
    """
    Proof that we own a task; ends with :meth:`Store.finish` or :meth:`Store.release`, or when this process dies.

    Attributes:
        task: The task, RUNNING.
        lock: What the store holds for it; None once the claim has ended. Its ``release()`` lets go as our death would.
        announced: The task as others see it; None where they do not yet.
    """

    task: Task
    lock: object | None
    announced: Task | None = None


@attrs.frozen
class Recovery:
    """
    What a look at the running tasks found.

    Attributes:
        alive: Ids whose owner lives, ours included.
        settled: Orphans that were ended: DONE, with their notifications.
        returned: Orphans that are PENDING again: they never started, or may run again.
    """

    alive: tuple[str, ...] = ()
    settled: tuple[Task, ...] = ()
    returned: tuple[Task, ...] = ()


@attrs.frozen
class Progress:
    """The last progress report: *fraction* is 0 to 1, or None where the end is not known."""

    fraction: float | None
    message: str
    at: datetime


class SubmitOptions(TypedDict, total=False):
    """
    What a submit may say besides the call.

    Attributes:
        subcommand: The one among *argv*; by default the first word that is no option. Whoever runs the task looks
            again, with the tool's own description.
        priority: Higher runs earlier; 0 by default.
        not_before: Not to be started earlier.
        key: A name for this piece of work: while a task with this key is kept, it is returned instead of a new one.
        retry_of: The id of the task that this one repeats.
        expected_seconds: Overrides the tool's, as do the next four; see :class:`Task`.
        timeout_seconds: Longest run of one attempt.
        retries: How often a failure is run again.
        on_interrupt: What to do if its owner dies, also as ``"fail"`` or ``"retry"``.
        max_attempts: How many runs are begun at most where its owner dies in each.
        cwd: Where paths among *argv* begin, and the directory of a process that calls the tool; by default the
            submitter's.
    """

    subcommand: str
    priority: int
    not_before: datetime | None
    key: str | None
    retry_of: str | None
    expected_seconds: float | None
    timeout_seconds: float | None
    retries: int | None
    on_interrupt: OnInterrupt | str | None
    max_attempts: int | None
    cwd: str | os.PathLike[str] | None


_OPTIONS: Final = SubmitOptions.__annotations__


def new_task(tool: str, argv: Sequence[str], options: SubmitOptions, *, anima_dir: str, at: datetime) -> Task:
    """Return the PENDING task for a call; its id is random, or that of its key."""
    words = words_of(argv)
    for option in options:
        if option not in _OPTIONS:
            raise TypeError(f"submit has no option {option!r}; it takes {', '.join(_OPTIONS)}")
    key = options.get("key")
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key must be text, not {key!r}")
    if key == "":
        raise ValueError("key must not be empty: it would be the same for all that have none")
    given: dict[str, Any] = {"subcommand": first_word(words), "cwd": _cwd(), **options}
    return Task(
        **given,
        id=new_id(key),
        tool=tool,
        argv=words,
        anima_name=os.path.basename(anima_dir),
        anima_dir=anima_dir,
        submitted_at=at,
    )


def _cwd() -> str | None:
    """Return the current directory; None where it is gone, or no record could hold its name."""
    try:
        cwd = os.getcwd()
        cwd.encode("utf-8")
    except (OSError, UnicodeEncodeError):
        return None
    return cwd


def new_tasks(
    tool: str, argvs: Iterable[Sequence[str]], options: SubmitOptions, *, anima_dir: str, at: datetime
) -> Iterator[Task]:
    """Return the PENDING tasks for several calls, with ids of their own, each made when it is asked for."""
    if options.get("key") is not None:
        raise ValueError("a key names one task: submit such tasks one by one")
    return (new_task(tool, argv, options, anima_dir=anima_dir, at=at) for argv in list(argvs))


class Doorbell(Protocol):
    """Wakes an executor that waits for work."""

    def wait(self, timeout: float) -> set[str]:
        """Sleep until someone rings, or *timeout* seconds; return the ids that were rung, perhaps none."""

    def wake(self) -> None:
        """End the current or the next :meth:`wait` of this doorbell; from any thread."""

    def close(self) -> None:
        """Stop listening."""


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
        """Say whether the task waits to be claimed, without reading its record."""

    def runs(self, task_id: str) -> bool:
        """Say whether somebody owns the task, or did when he died; he still does while he tells of its end."""

    def pending(self, task_id: str) -> Task | None:
        """
        Return the task if it waits to be claimed; None where it does not. Costs less than :meth:`get`.

        What is left in its place of a task that has ended is dropped: a second submit of a *key* that came too late, or
        what a power cut brought back.

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
            The claim on it, announced.

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

    def claim(self, task_id: str, *, due_by: datetime | None = None) -> Claim | None:
        """
        Become the owner of a pending task; None if it is not to be had: owned, running, done, gone, or unreadable.

        An unreadable record is ended as FAILED, cause REJECTED, unless it is so young that it may still be written.

        Args:
            task_id: The task.
            due_by: Only if its ``not_before`` has come by then; None in any case.
        """

    def announce(self, claim: Claim) -> None:
        """Tell others what became of the claim since they were told last: its subcommand, say."""

    def finish(self, claim: Claim, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - attributes of the task
        """
        End a claimed task: record the outcome, leave the notification, let go.

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

    def release(self, claim: Claim, *, pause: float = 0.0, began: bool = True) -> Task:
        """
        Put a claimed task back to PENDING; errors as for :meth:`finish`.

        Args:
            claim: From :meth:`claim`; it ends with this.
            pause: Seconds until it may be claimed for its next attempt, by the store's clock as it is now; 0: at once.
            began: Whether its tool was called. If not, the task is as it was before the claim: no attempt was made of
                it, and its ``not_before`` stands.
        """

    def recover(
        self, may_run_again: Callable[[Task], bool] = lambda _: False, *, concerns: Callable[[Task], bool] | None = None
    ) -> Recovery:
        """
        Look at every running task, and settle those whose owner has died.

        Args:
            may_run_again: Asked of an orphan that may have partly run, as RUNNING; True puts it back to PENDING.
            concerns: Asked of every orphan before; False leaves it to others. None: all concern us.
        """

    def request_cancel(self, task_id: str) -> Task:
        """
        Ask for a task to stop: a pending one ends at once, a running one when its owner notices, a done one stays.

        Returns:
            The task after that.

        Raises:
            TaskNotFoundError: The store has no such task.
        """

    def prune(self, *, finished_before: datetime | None = None, keep: int | None = None) -> Sequence[str]:
        """
        Forget done tasks, except those whose notification nobody has acknowledged.

        Args:
            finished_before: Those that finished earlier; None: none because of its age.
            keep: Besides, all but the so many that finished last, what cannot be forgotten included; None: none because
                of their number.

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

    def doorbell(self) -> Doorbell:
        """Return a doorbell that a submit or a finish in this store rings, from any process that shares it."""
