"""
Every error a user of this package can meet, and what a tool raises to say what went wrong.

* TasksError                      catch this to catch everything below
  + TaskNotFoundError             also a LookupError
  + RecordError                   also a ValueError: a record we cannot read
  + InvalidTransitionError        also a ValueError: a task cannot do that from where it is
  + UsageError                    also a ValueError: a call that no tool would accept; nothing was queued
    - UnknownToolError            also a LookupError
    - WrongArgumentError
    - NotPermittedError           a permission is not given, or the host refuses the call
  + RegistryError                 also a ValueError: a tool that cannot be registered
  + LimitsError                   also a ValueError: this machine's limits of resources cannot be used
  + ToolLoadError                 also an ImportError: a registered tool whose code does not load
  + StoreError                    also an OSError: a directory that cannot hold a store
  + PartlySubmittedError          also an OSError: of many tasks submitted at once, some are kept and some are not
  + TaskFailedError               also a RuntimeError: a task whose result was wanted has none
  + ResultTypeError               also a TypeError: a result that is not what its tool says that it returns
  + ClaimLostError                the lock of a claim is no longer ours
  + BackendError                  also a RuntimeError: a backend that cannot run a call, or lost it
  + ExecutorClosedError           also a RuntimeError: the executor was stopped

* ToolError                       a tool raises this (or anything else) to fail
  + MissingCredential             a key or a login is not set
  + BadArgument                   an argument that only the tool could find wrong

* TaskCancelled                   a BaseException: raised inside a tool to cancel it

A tool's own exception is never wrapped: its type, message and traceback go into the task's record.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from typing import Any


class TasksError(Exception):
    """The base class of all errors of this package."""


class TaskNotFoundError(TasksError, LookupError):
    """No task with this id is in the store."""

    def __init__(self, task_id: str, store: str) -> None:
        super().__init__(task_id, store)  # these args rebuild it on the far side of a process pool
        self.task_id, self.store = task_id, store

    def __str__(self) -> str:
        return f"no task {self.task_id!r} in {self.store}; `animaworks-tool list --all` shows what is left"


class RecordError(TasksError, ValueError):
    """The bytes are not a record; *reason* says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} is not a task record: {self.reason}"


class InvalidTransitionError(TasksError, ValueError):
    """The table of states has no such transition; the task is unchanged."""

    def __init__(self, task_id: str, state: str, event: str) -> None:
        super().__init__(task_id, state, event)
        self.task_id, self.state, self.event = task_id, state, event

    def __str__(self) -> str:
        return f"task {self.task_id} is {self.state}: it cannot {self.event}"


class UsageError(TasksError, ValueError):
    """
    A call that no tool would accept. Nothing was queued.

    Attributes:
        problem: What is wrong, in one sentence.
        usage: The usage line of the tool; empty if none is known.
    """

    def __init__(self, problem: str, usage: str = "") -> None:
        super().__init__(problem, usage)
        self.problem, self.usage = problem, usage

    def __str__(self) -> str:
        return f"{self.problem}\nusage: {self.usage}" if self.usage else self.problem


class UnknownToolError(UsageError, LookupError):
    """No such tool or subcommand is registered; the message names the nearest ones."""


class WrongArgumentError(UsageError):
    """The tool exists, and an argument for it is missing, unknown, or of the wrong type."""


class NotPermittedError(UsageError):
    """
    A call that the host does not permit.

    Attributes:
        command: The tool and its subcommand.
        permission: The subcommand is gated, and this permission is not given; None: the host's veto refuses the call.
        reason: What the veto says; None where it is the permission.
    """

    # Not a PermissionError: that is an OSError, and callers that retry an OSError would retry this too.

    def __init__(self, command: str, permission: str | None, reason: str | None = None) -> None:
        problem = f"{command} needs the permission {permission}, which this Anima does not have: ask the operator"
        if permission is None:
            problem = f"the host of this Anima refuses this call of {command}: {reason}"
        super().__init__(problem)
        self.args = self.command, self.permission, self.reason = command, permission, reason  # rebuild it, as above


class RegistryError(TasksError, ValueError):
    """A tool that cannot be registered: its name is taken, or its signature fits no command line."""


class LimitsError(TasksError, ValueError):
    """This machine's limits of resources cannot be used; no task was started."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; nothing was started: correct it, or remove it, and start again"


class ToolLoadError(TasksError, ImportError):
    """A registered tool whose code does not load; other tools are not affected."""

    def __init__(self, tool: str, reason: str) -> None:
        super().__init__(tool, reason)
        self.tool, self.reason = tool, reason

    def __str__(self) -> str:
        return f"tool {self.tool!r} does not load: {self.reason}"


class StoreError(TasksError, OSError):
    """A directory that cannot hold a store; nothing was written to it."""

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(directory, reason)
        self.directory, self.reason = directory, reason

    def __str__(self) -> str:
        return f"{self.directory} cannot hold tasks: {self.reason}"


class PartlySubmittedError(TasksError, OSError):
    """
    An OSError came in the middle of a submit. The tasks in *submitted* will run: do not submit them again.

    Of a ``submit_many`` they are the first of its tasks. Of a ``submit`` it is the task itself, whose record could not
    be made durable: it is lost only if the power fails before it runs.
    """

    def __init__(self, submitted: tuple[str, ...], reason: str) -> None:
        super().__init__(submitted, reason)
        self.submitted, self.reason = submitted, reason

    def __str__(self) -> str:
        first, *others = self.submitted
        what = f"the first {len(self.submitted)} tasks were" if others else f"task {first} was"
        return f"only {what} submitted, and will run: {self.reason}"


class TaskFailedError(TasksError, RuntimeError):
    """
    A task whose result was wanted failed, or was cancelled.

    Attributes:
        task: The :class:`Task`, DONE.
        outcome: How it ended: failed or cancelled.
        cause: Why it failed; None where it was cancelled.
        error: What went wrong.
        hint: What can be done about it; None where nothing is known.
    """

    def __init__(self, task: Any) -> None:  # noqa: ANN401 - a Task, of which this module knows nothing
        super().__init__(task)
        self.task, self.outcome, self.cause = task, task.outcome, task.cause
        self.error, self.hint = task.error, task.hint

    def __str__(self) -> str:
        why = f"{self.outcome} ({self.cause})" if self.cause else self.outcome
        text = f"task {self.task.id} {self.task.name} {why}: {self.error}"
        return f"{text}; {self.hint}" if self.hint else text


class ResultTypeError(TasksError, TypeError):
    """
    The result of a task is not of the type that its tool is annotated to return. It is kept, as text.

    Attributes:
        task_id: The task.
        kind: The annotation.
        reason: What does not fit.
    """

    def __init__(self, task_id: str, kind: str, reason: str) -> None:
        super().__init__(task_id, kind, reason)
        self.task_id, self.kind, self.reason = task_id, kind, reason

    def __str__(self) -> str:
        text = f"the result of task {self.task_id} does not come back as {self.kind}: {self.reason}"
        return f"{text}; `animaworks-tool show {self.task_id}` or store.read_result({self.task_id!r}) has its text"


class ClaimLostError(TasksError):
    """The claim has already ended; nothing was written."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"the claim on task {self.task_id} has ended: the task was finished, requeued or lost"


class BackendError(TasksError, RuntimeError):
    """A backend could not run a call, or its process died. The task's record says how the task ended."""


class ExecutorClosedError(TasksError, RuntimeError):
    """The executor was stopped, or never started. Tasks of the store wait for the next one."""


class ToolError(Exception):
    """
    Raised by a tool to fail.

    Attributes:
        hint: What the agent can do about it, in one sentence; None if there is nothing.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class MissingCredential(ToolError):  # noqa: N818 - reads well in a tool: raise MissingCredential
    """A key, token or login that the tool needs is not set."""


class BadArgument(ToolError):  # noqa: N818 - as above
    """An argument that the command line accepts and the tool cannot use: a file that is not audio, say."""


class TaskCancelled(BaseException):  # a signal, not an error: `except Exception` in a tool must not catch it
    """Raised inside a tool by :meth:`ToolContext.raise_if_cancelled`; do not catch it."""
