"""
What a task is: frozen data, and the words for where it is and how it ended.

A task is one submitted call of a tool. Its *state* says where its record lies; its *outcome*, set exactly when the
state is DONE, says how it ended, and the *cause* of a failure says whose turn it is to act. Impossible combinations are
refused.
"""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Generic

import attrs
from typing_extensions import TypeVar  # typing's has a default only from Python 3.13 on

R_co = TypeVar("R_co", covariant=True, default=Any)

ID_DIGITS: Final = 12
_SUMMARIZED: Final = 2000  # characters of a result, from which its line is made
IN_PROCESS: Final = "in_process"  # key in the record of a call of the host's own function
RAN_TOO_LONG: Final = "it ran longer than"  # what the error of a timeout begins with; then its seconds
OWNER_DIED: Final = "its process died while it was running; it may have partly run"  # what recovery says of a task


class State(enum.StrEnum):
    """
    Where a task's record lies.

    Attributes:
        PENDING: Submitted, free to be claimed.
        RUNNING: Claimed; its owner holds its lock.
        DONE: Ended; see :class:`Outcome`.
    """

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"


class Outcome(enum.StrEnum):
    """
    How a DONE task ended.

    Attributes:
        COMPLETED: The tool did what it was asked to.
        FAILED: It did not; see :class:`Cause`.
        CANCELLED: Someone asked for it to stop, and it did.
    """

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cause(enum.StrEnum):
    """
    Why a FAILED task failed, and so who can do something about it.

    Attributes:
        ARGUMENTS: The caller: it was called wrongly.
        CREDENTIALS: The operator: a key is not set.
        TOOL: The tool said no, or raised.
        TIMEOUT: It ran longer than it may, or gave up waiting: it raised a TimeoutError.
        INTERRUPTED: Whoever ran it died; it may have partly run.
        CRASHED: The tool's own process died: a signal, out of memory, ``os._exit``.
        REJECTED: It never ran: unknown tool, not permitted, record unreadable.
        RESULT: It ran, and what it returned could not be stored.
    """

    ARGUMENTS = "arguments"
    CREDENTIALS = "credentials"
    TOOL = "tool"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    CRASHED = "crashed"
    REJECTED = "rejected"
    RESULT = "result"


class OnInterrupt(enum.StrEnum):
    """
    What becomes of a task whose owner died while the tool may have been running.

    Attributes:
        FAIL: It ends FAILED, cause INTERRUPTED, and the notification says that it may have partly run.
        RETRY: It is safe to run again: back to PENDING.
    """

    FAIL = "fail"
    RETRY = "retry"


def is_task_id(text: str) -> bool:
    """Return whether *text* is 12 lowercase hex digits, which is what a task id is and all that it is."""
    return len(text) == ID_DIGITS and not text.strip("0123456789abcdef")


def _checked(
    kind: type | tuple[type, ...], what: str, fits: Callable[[Any], bool] = lambda _: True, rule: str = ""
) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return a validator: a value is of this *kind*, called *what*, and *fits*; or None where that is the default."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value is None and attribute.default is None:
            return
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{attribute.name} must be {what}, not {value!r}")
        if not fits(value):
            raise ValueError(f"{attribute.name} {rule}, not {value!r}")

    return check


def at_least(limit: int) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return the validator of a whole number that is not below *limit*."""
    return _checked(int, "a whole number", lambda count: count >= limit, f"must be at least {limit}")


_task_id: Final = _checked(str, "text", is_task_id, f"must be {ID_DIGITS} lowercase hex digits")
_aware: Final = _checked(datetime, "a datetime", lambda moment: moment.tzinfo is not None, "needs a timezone")
seconds: Final = _checked(
    (int, float),
    "a number of seconds",
    lambda seconds: math.isfinite(seconds) and seconds >= 0,
    "must be a finite number of seconds",
)
_whole: Final = _checked(int, "a whole number")
_text: Final = _checked(str, "text")


def policy(value: OnInterrupt | str | None) -> OnInterrupt | None:
    """Return the policy that *value* is or names, or refuse it with the words that there are."""
    try:
        return None if value is None else OnInterrupt(value)
    except ValueError:
        words = " or ".join(repr(each.value) for each in OnInterrupt)
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"on_interrupt must be {words}, not {value!r}") from None


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


def words_of(argv: Iterable[str]) -> tuple[str, ...]:
    """
    Return the words of a call.

    Raises:
        TypeError: One of them is no text.
    """
    words = tuple(argv)
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"the words of a call are text, and {word!r} is {type(word).__name__}: convert it to str")
    return words


@attrs.frozen(kw_only=True)
class Task(Generic[R_co]):
    """
    One submitted call of a tool, exactly as it is stored.

    ``Task[X]`` is known to return an X, which :meth:`Executor.result` gives; that is for type checkers alone.

    Attributes:
        id: 12 lowercase hex digits, unique within a store; also the stem of its file.
        tool: Name in the registry, without a subcommand.
        subcommand: The tool's subcommand; empty where it is not known.
        argv: Everything after the tool's name, the subcommand included.
        anima_name: Last component of the Anima's directory.
        anima_dir: The Anima's directory as the submitter named it; never trusted as a path.
        submitted_at: When it was submitted, in UTC.
        priority: Higher runs earlier; equal priorities run in the order of submission.
        not_before: It is not started earlier than this; None is at once.
        key: The same key means the same task; None is a task of its own.
        retry_of: The id of the task that this one repeats at someone's request.
        expected_seconds: A promise to the agent, past which the task is overdue; None takes the tool's.
        timeout_seconds: Longest run of one attempt; None takes the tool's.
        retries: How often a failure is run again; None takes the tool's.
        on_interrupt: What to do if its owner dies; None takes the tool's.
        max_attempts: How many runs are begun at most where its owner dies in each; None takes the tool's.
        attempt: Runs begun so far: 0 while it never ran, 1 during and after the first run.
        requeued: How often it was put back to pending, also where no run of it had begun.
        pause_seconds: How long before *not_before* it was requeued; None where its submitter said when to start.
        state: Where its record lies.
        started_at: When the last attempt began; None before the first.
        owner_pid: The process that runs or ran it, for people; None before the first attempt. The lock is the truth.
        finished_at: When it was DONE; None before.
        outcome: How it ended. Set exactly when *state* is DONE, and never changed after.
        cause: Why it failed. Set exactly when *outcome* is FAILED.
        error: What went wrong, as the tool or we said it; None where nothing did.
        hint: What can be done about it; None where nothing is known.
        result: What the tool returned or printed, or the beginning of it; None where there is none.
        result_file: Path, relative to the store, of the whole result where it is too large for the record.
        result_size: Bytes of the whole result where *result* is only its beginning; None where older releases ran it.
        result_tail: The end of the whole result, likewise.
        call: The call as it is shown, in one line, where it was found to hold a credential; None where *argv* may be
            shown as it is, or has not been looked at: that is done when it ends.
        cwd: The directory from which it was submitted, where paths among *argv* begin; None where it has no name.
        extra: Keys of the record that this version does not know, kept as they came.
    """

    id: str = attrs.field(validator=_task_id)
    tool: str = attrs.field(validator=attrs.validators.min_len(1))
    subcommand: str = attrs.field(default="", validator=_text)
    argv: tuple[str, ...] = attrs.field(default=(), converter=words_of)
    anima_name: str = ""
    anima_dir: str = ""
    submitted_at: datetime = attrs.field(validator=_aware)
    priority: int = attrs.field(default=0, validator=_whole)
    not_before: datetime | None = attrs.field(default=None, validator=_aware)
    key: str | None = attrs.field(default=None, validator=_text)
    retry_of: str | None = attrs.field(default=None, validator=_text)
    expected_seconds: float | None = attrs.field(default=None, validator=seconds)
    timeout_seconds: float | None = attrs.field(default=None, validator=seconds)
    retries: int | None = attrs.field(default=None, validator=at_least(0))
    on_interrupt: OnInterrupt | None = attrs.field(default=None, converter=policy)
    max_attempts: int | None = attrs.field(default=None, validator=at_least(1))
    attempt: int = attrs.field(default=0, validator=at_least(0))
    requeued: int = attrs.field(default=0, validator=at_least(0))
    pause_seconds: float | None = attrs.field(default=None, validator=seconds)
    state: State = State.PENDING
    started_at: datetime | None = attrs.field(default=None, validator=_aware)
    owner_pid: int | None = None
    finished_at: datetime | None = attrs.field(default=None, validator=_aware)
    outcome: Outcome | None = attrs.field(default=None)
    cause: Cause | None = attrs.field(default=None, converter=attrs.converters.optional(Cause))
    error: str | None = None
    hint: str | None = None
    result: str | None = None
    result_file: str | None = None
    result_size: int | None = None
    result_tail: str | None = None
    call: str | None = None
    cwd: str | None = attrs.field(default=None, converter=_path, validator=_checked(str, "a path as text"))
    extra: Mapping[str, object] = attrs.field(factory=dict, hash=False)

    @outcome.validator
    def _only_when_done(self, _: object, outcome: Outcome | None) -> None:
        if (self.state is State.DONE) != (outcome is not None):
            raise ValueError(f"a {self.state.value} task cannot have outcome {outcome}")

    @cause.validator
    def _only_when_failed(self, _: object, cause: Cause | None) -> None:
        if (self.outcome is Outcome.FAILED) != (cause is not None):
            raise ValueError(f"a task with outcome {self.outcome} cannot have cause {cause}")

    @property
    def name(self) -> str:
        """``tool:subcommand``, the name by which agents and AnimaWorks know it."""
        return f"{self.tool}:{self.subcommand}" if self.subcommand else self.tool

    @property
    def duration(self) -> timedelta | None:
        """
        How long the last attempt ran; None where it never started or has not ended.

        None too where its owner died: that was found later, perhaps by a host that had been down for days.
        """
        if self.started_at is None or self.finished_at is None or (self.error or "").startswith(OWNER_DIED):
            return None
        return max(self.finished_at - self.started_at, timedelta())  # a clock that was set back is not a negative run

    @property
    def is_in_process(self) -> bool:
        """Whether only the process that submitted it could run it: it called a function of its host."""
        return self.extra.get(IN_PROCESS) is True

    def to_dict(self) -> dict[str, object]:
        """
        Return the task as JSON has it: times in ISO 8601, enums as their values; ``call`` and ``extra`` are left out.

        The arguments, the result and the error are as they were stored: what a shell or a notification shows is
        searched for credentials besides.
        """
        return {"task_id": self.id, **plain(self, but={"id", "extra", "call"}), "argv": list(self.argv)}

    def summary(self) -> str:
        """Return one line about what became of it, for people."""
        status = self.outcome.value if self.outcome else self.state.value
        took = "" if self.duration is None else f" in {self.duration.total_seconds():.1f} s"
        text = (self.result if self.outcome is Outcome.COMPLETED else self.error) or ""
        line = " ".join(text.strip()[:_SUMMARIZED].split())  # of data in JSON the first line alone would be a bracket
        return f"{self.id} {self.name} {status}{took}" + (f": {line[:200]}" if line else "")


def plain(data: attrs.AttrsInstance, but: Container[str] = ()) -> dict[str, object]:
    """Return the attributes of *data* as JSON has them, *but* some."""

    def shown(value: object) -> object:
        return (
            value.isoformat() if isinstance(value, datetime) else value.value if isinstance(value, enum.Enum) else value
        )

    return {name: shown(value) for name, value in attrs.asdict(data, recurse=False).items() if name not in but}
