"""
For tests of tools: a clock that stands still, a context that records, and assertions that describe the task.

    def test_a_word_is_counted(executor: Executor, task_store: Store) -> None:
        done = run_to_end(executor, "words", "count", "letter.txt")
        assert_completed(task_store, done, contains="12")

Nothing here needs pytest. For pytest there are the fixtures *task_store*, *registry*, *executor* and *manual_clock*
(``_pytest_plugin.py``): no thread, no sleep, no directory. The author of another store inherits :class:`StoreContract`.
"""

import math
import shlex
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Final, Unpack

from animaworks_tasks.executor.executor import Executor
from animaworks_tasks.store.contract import StoreContract
from animaworks_tasks.store.memory import MemoryWorkspace
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.store.rules import SubmitOptions, utc_now
from animaworks_tasks.task.model import Cause, Outcome, State, Task
from animaworks_tasks.tools.context import ToolContext

__all__ = [
    "ManualClock", "RecordingContext", "StoreContract", "assert_cancelled", "assert_completed", "assert_failed",
    "assert_notified", "describe", "notification_of", "run_to_end",
]  # fmt: skip

_BEGINNING: Final = datetime(2026, 1, 1, tzinfo=UTC)
_LOG_TAIL: Final = 20  # lines of a log that a failed assertion shows


class ManualClock:
    """
    A clock that stands still until it is moved on. Give the same one to the store and the executor.

    Attributes:
        now: The time that it shows, in UTC.
    """

    def __init__(self, now: datetime = _BEGINNING) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return *now*."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock on by *seconds*."""
        self.now += timedelta(seconds=seconds)


class RecordingContext(ToolContext):
    """
    A context for calling a tool's function directly, outside of any task.

    Args:
        cancel_after: Cancel the tool after so many reports of progress; None never, 0 from the start.
        attempt: Which run this is.

    Attributes:
        reports: All reports of progress as (fraction, message), in order.
    """

    def __init__(self, *, cancel_after: int | None = None, attempt: int = 1) -> None:
        self.reports: list[tuple[float | None, str]] = []
        self._memory = _Reports(self.reports, math.inf if cancel_after is None else cancel_after)
        task = Task(id=12 * "0", tool="tool", submitted_at=utc_now(), state=State.RUNNING, attempt=attempt)
        super().__init__(task, self._memory)

    def progress(self, fraction: float | None, message: str = "") -> None:
        """Do as :meth:`ToolContext.progress`, and record it."""
        self._reported = -math.inf  # so that no report is skipped
        super().progress(fraction, message)

    @property
    def log(self) -> str:
        """What the tool has logged so far."""
        return self._memory.log.decode()


class _Reports(MemoryWorkspace):
    def __init__(self, reports: list[tuple[float | None, str]], enough: float) -> None:
        super().__init__(lambda: len(reports) >= enough, utc_now)
        self._reports = reports

    def report_progress(self, fraction: float | None, message: str) -> None:
        self._reports.append((fraction, message))


def run_to_end(executor: Executor, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
    """
    Submit a call, run it with all its retries, and return the task when it is DONE, however it ended.

    A :class:`ManualClock` of the executor is moved on to each retry; with another clock, this waits for them.

    Args:
        executor: Running.
        tool: The tool's name.
        *argv: Everything after the tool's name, the subcommand included.
        **options: As for :meth:`Executor.submit`.

    Raises:
        UsageError: The submit was refused: an unknown tool, a wrong argument.
    """
    task = executor.submit_sync(tool, *argv, **options)
    while isinstance(executor.clock, ManualClock):
        executor.run_until_idle_sync()
        task = executor.store.get(task.id)
        if task.not_before is None or task.state is not State.PENDING:
            break
        executor.clock.now = max(executor.clock.now, task.not_before)
    return executor.wait_sync(task.id)


def notification_of(store: Store, task: Task | str) -> str | None:
    """Return the text of the notification of a task (or its id); None if there is none, or it was acknowledged."""
    task_id = task if isinstance(task, str) else task.id
    return next((each.text for each in store.notifications.peek() if each.task_id == task_id), None)


def describe(store: Store, task: Task | str) -> str:
    """
    Describe a task (or its id) for people: how it ended and why, the end of its log, its notification.

    Raises:
        TaskNotFoundError: The store has no such task.
    """
    found = _now(store, task)
    log = store.read_log(found.id).decode("utf-8", "replace").splitlines()
    last = f"log (its last {_LOG_TAIL} lines of {len(log)})" if len(log) > _LOG_TAIL else "log"
    facts = {
        "state": f"{found.state.value}, after {found.attempt} runs" if found.attempt != 1 else found.state.value,
        "not before": found.not_before,
        "outcome": found.outcome and found.outcome.value,
        "cause": found.cause and found.cause.value,
        "error": found.error,
        "hint": found.hint,
        "result": found.result,
        last: "\n".join(log[-_LOG_TAIL:]),
        "notification": notification_of(store, found) or "none: the task has not ended, or it was acknowledged",
    }
    lines = [f"task {found.id}: {shlex.join((found.tool, *found.argv))}"]
    lines += [_fact(name, str(fact).strip()) for name, fact in facts.items() if fact]
    return textwrap.indent("\n".join(lines), "  ")


def assert_completed(store: Store, task: Task | str, *, contains: str = "") -> Task:
    """
    Assert that a task has completed, with *contains* in its result.

    Args:
        store: Where it is.
        task: The task, as it was at any time, or its id.
        contains: A text.

    Returns:
        The task as it is now.

    Raises:
        AssertionError: It has not; the message describes the task.
        TaskNotFoundError: The store has no such task.
    """
    __tracebackhide__ = True
    return _assert_ended(store, task, Outcome.COMPLETED, None, contains)


def assert_failed(store: Store, task: Task | str, *, cause: Cause | str | None = None, contains: str = "") -> Task:
    """
    Assert that a task has failed, for this *cause* if one is given, with *contains* in its error or its hint.

    All else is as with :func:`assert_completed`.
    """
    __tracebackhide__ = True
    return _assert_ended(store, task, Outcome.FAILED, None if cause is None else Cause(cause), contains)


def assert_cancelled(store: Store, task: Task | str, *, contains: str = "") -> Task:
    """Assert that a task was cancelled; all else is as with :func:`assert_failed`."""
    __tracebackhide__ = True
    return _assert_ended(store, task, Outcome.CANCELLED, None, contains)


def assert_notified(store: Store, task: Task | str, *, contains: str = "") -> str:
    """
    Assert that a task has a notification that was not acknowledged, with *contains* in it.

    Returns:
        The text of the notification.

    Raises:
        AssertionError: There is none, or none with *contains*; the message describes the task.
        TaskNotFoundError: The store has no such task.
    """
    __tracebackhide__ = True
    found, notification = _now(store, task), notification_of(store, task)
    if notification is None or contains not in notification:
        expected = "a notification" + (f" with {contains!r} in it" if contains else "")
        raise AssertionError(f"expected {expected}, and there is\n{describe(store, found)}")
    return notification


def _assert_ended(store: Store, task: Task | str, outcome: Outcome, cause: Cause | None, contains: str) -> Task:
    __tracebackhide__ = True
    found = _now(store, task)
    if outcome is Outcome.COMPLETED:
        places, texts = ["result"], [store.read_result(found.id)]
    else:
        places, texts = ["error", "hint"], [found.error, found.hint]
    said = any(contains in (text or "") for text in texts)
    if found.outcome is not outcome or cause not in {None, found.cause} or not said:
        expected = outcome.value + (f" because of {cause.value}" if cause else "")
        expected += f", with {contains!r} in its {' or '.join(places)}" if contains else ""
        raise AssertionError(f"expected a task that is {expected}, and there is\n{describe(store, found)}")
    return found


def _now(store: Store, task: Task | str) -> Task:
    return store.get(task if isinstance(task, str) else task.id)


def _fact(name: str, text: str) -> str:
    return f"  {name}:\n{textwrap.indent(text, '      ')}" if "\n" in text else f"  {name}: {text}"
