"""What every store does alike, without I/O: new tasks, when one is due, how it is requeued, the order of lists."""

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

import attrs

from animaworks_tasks.notifications.render import CALL, WORDS, ends, inert
from animaworks_tasks.task.model import OWNER_DIED, Cause, OnInterrupt, Task, words_of
from animaworks_tasks.task.pending import first_word, new_id
from animaworks_tasks.task.states import Event, advance
from animaworks_tasks.tools.secrets import words_without_secrets

Clock = Callable[[], datetime]
Question = Callable[[Task], bool]


def never(_: Task) -> bool:
    """Answer that no task may run again."""
    return False


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def changed_at(task: Task) -> tuple[datetime, str]:
    """Return when the task came into its state, and its id: the order in which lists are."""
    return (task.finished_at or task.started_at or task.submitted_at, task.id)


def is_due(task: Task, by: datetime | None) -> bool:
    """Return whether the ``not_before`` of *task* has come *by* then; None is any time."""
    return task.not_before is None or by is None or task.not_before <= by


def seconds_until_due(task: Task, now: datetime) -> float:
    """Return how long *task* is still to wait; never longer than its own pause: the clock may have been set back."""
    if task.not_before is None:
        return 0.0
    pause = (task.not_before - task.submitted_at).total_seconds() if task.pause_seconds is None else task.pause_seconds
    return max(0.0, min(pause, (task.not_before - now).total_seconds()))


def never_began(task: Task) -> dict[str, Any]:
    """Return the changes that say of a claimed *task* that it was cancelled before its tool was called."""
    error = "it was cancelled before it started"
    return {"attempt": task.attempt - 1, "started_at": None, "owner_pid": None, "error": error}


def may_begin_again(task: Task, *, on_interrupt: OnInterrupt, max_attempts: int) -> bool:
    """
    Return whether a task whose owner died may run again: its policy allows it, and not too many owners have died of it.

    Args:
        task: As it was when its owner died.
        on_interrupt: What its tool says, where its submitter says nothing.
        max_attempts: Likewise.
    """
    policy = task.on_interrupt or on_interrupt
    limit = task.max_attempts or max(max_attempts, (task.retries or 0) + 1)
    return policy is OnInterrupt.RETRY and task.attempt < limit


def orphan_ends(*, cancelled: bool) -> tuple[Event, dict[str, Any]]:
    """Return how a task ends whose owner died and that may not run again; whether it was to be cancelled."""
    if cancelled:
        return Event.CANCEL, {"error": OWNER_DIED}
    return Event.FAIL, {"cause": Cause.INTERRUPTED, "error": OWNER_DIED}


def requeued(task: Task, *, pause: float = 0.0, began: bool = True, now: datetime) -> Task:
    """Return a RUNNING *task* as :meth:`Store.requeue` puts it back *now*."""
    changes: dict[str, Any] = {"started_at": None, "owner_pid": None, "requeued": task.requeued + 1}
    if began:
        changes["not_before"] = now + timedelta(seconds=pause) if pause else None
        changes["pause_seconds"] = pause or None
    else:
        changes["attempt"] = task.attempt - 1
    return advance(task, Event.RETRY, **changes)


def with_shown_call(task: Task) -> Task:
    """Return *task*, which has ended, with its call as it is shown: its notification is made of the record alone."""
    words = words_without_secrets(task.argv)
    call = None if words == task.argv else ends(inert(shlex.join([task.tool, *words]), WORDS), CALL)
    return attrs.evolve(task, call=call)  # also in place of what a plain writer said


class SubmitOptions(TypedDict, total=False):
    """
    What a submit may say besides the call.

    Attributes:
        subcommand: The one among *argv*; by default the first word that is no option. Whoever runs the task looks
            again, with the tool's own description.
        priority: Higher runs earlier; 0 by default.
        not_before: Not to be started earlier.
        key: A name for this piece of work: while the task that was submitted first with it is kept, that is returned
            instead of a new one.
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
    """Return the PENDING task for a call; its id is random."""
    words = words_of(argv)
    for option in options:
        if option not in _OPTIONS:
            raise TypeError(f"submit has no option {option!r}; it takes {', '.join(_OPTIONS)}")
    if options.get("key") == "":
        raise ValueError("key must not be empty: it would be the same for all that have none")
    given: dict[str, Any] = {"subcommand": first_word(words), "cwd": _cwd(), **options}
    return Task(
        **given,
        id=new_id(),
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
) -> list[Task]:
    """Return the PENDING tasks for several calls, with ids of their own."""
    if options.get("key") is not None:
        raise ValueError("a key names one task: submit such tasks one by one")
    return [new_task(tool, argv, options, anima_dir=anima_dir, at=at) for argv in argvs]
