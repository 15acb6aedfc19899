"""
What a running tool is given: its workspace and its context.

A :class:`Workspace` is the part of a store that belongs to one running task: its log, its progress, its cancellation
request, its large results and scratch files. A :class:`ToolContext` offers these to a tool's author.
"""

import functools
import logging
import os
import time
from pathlib import Path
from typing import Final, Protocol

import attrs

from animaworks_tasks.errors import TaskCancelled
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools.secrets import without_secrets

_PROGRESS_INTERVAL: Final = 0.1  # seconds; a tool may report per token, people look a few times a second


class Workspace(Protocol):
    """What one running task reads and writes besides its record. Works from any thread; is pickled with its store."""

    def write_log(self, data: bytes) -> None:
        """Append *data* to the task's log, visible at once. Never raises: a full disk must not fail the tool."""

    def report_progress(self, fraction: float | None, message: str) -> None:
        """Replace the last progress report. Never raises, for the same reason."""

    def cancel_requested(self) -> bool:
        """Return whether there is a cancellation request for the task."""

    def keep_result(self, data: bytes) -> str:
        """Keep a result that is too large for the record; return its path relative to the store."""

    def scratch(self) -> Path:
        """Return a directory for the task alone, made on first use; files left in it are kept with the task."""


class ToolContext:
    """
    What a tool asks for by annotating a parameter with this class.

    Attributes:
        task_id: The id in the receipt, the log and the notification.
        attempt: 1 for the first run, 2 for the first retry.
    """

    def __init__(self, task: Task, workspace: Workspace, *, deadline: float | None = None) -> None:
        """
        Build the context of one run.

        Args:
            task: The task being run.
            workspace: Where its store keeps its log, progress and files.
            deadline: Value of :func:`time.monotonic` at which it times out; None for no limit.
        """
        self.task_id = task.id
        self.attempt = task.attempt
        self._name = task.name
        self._workspace = workspace
        self._deadline = deadline
        self._reported = -_PROGRESS_INTERVAL

    @functools.cached_property
    def logger(self) -> logging.Logger:
        """Lines logged here stand in the task's log (``animaworks-tool logs``)."""
        # getLogger would keep one logger for each tool, with the handlers of all its tasks.
        logger = logging.Logger(f"animaworks_tasks.{self._name}", logging.DEBUG)  # noqa: LOG001 - see above
        handler = logging.StreamHandler(_Log(self._workspace))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        return logger

    def progress(self, fraction: float | None, message: str = "") -> None:
        """
        Report how far the work is.

        Args:
            fraction: 0 to 1, clipped; None where the end is not known.
            message: One line for people. Reports closer than 0.1 s together may be skipped, the last one (1) never.
        """
        now = time.monotonic()
        if fraction is not None:
            fraction = min(max(fraction, 0.0), 1.0) if fraction == fraction else None  # noqa: PLR0124 - NaN
        if now - self._reported >= _PROGRESS_INTERVAL or fraction == 1:
            self._reported = now
            self._workspace.report_progress(fraction, without_secrets(str(message), os.environ))

    @property
    def cancelled(self) -> bool:
        """Whether the tool should stop: there is a cancellation request, or it has timed out."""
        return self.timed_out or self._workspace.cancel_requested()

    @property
    def timed_out(self) -> bool:
        """Whether its deadline has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def raise_if_cancelled(self) -> None:
        """
        Raise if the tool should stop.

        Raises:
            TaskCancelled: It should. Do not catch it: the task is recorded as cancelled, or as timed out.
        """
        if self.cancelled:
            raise TaskCancelled(f"task {self.task_id} was asked to stop")

    @property
    def scratch(self) -> Path:
        """A directory for this task alone, made on first use; files left in it are kept with the task."""
        return self._workspace.scratch()


@attrs.frozen
class _Log:
    """The task's log as a stream."""

    workspace: Workspace

    def write(self, text: str) -> None:
        self.workspace.write_log(text.encode("utf-8", "backslashreplace"))
