"""
Tools that are plain commands: run one, pass on what it prints, stop it.

No shell. Its stdout is the result; both streams go to the log as they come. It reports progress by adding lines
(``0.4 half way there``) to the file named in ``ANIMAWORKS_TASK_PROGRESS_FILE``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Final

from animaworks_tasks.errors import TaskCancelled
from animaworks_tasks.fs.layout import ANIMA_DIR_VARIABLE, PROGRESS_FILE_VARIABLE, TASK_ID_VARIABLE
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.tools.context import ToolContext
from animaworks_tasks.tools.tool import Tool
from animaworks_tasks.worker.output import Printed

_LOOK: Final = 0.2  # seconds between looks at the cancellation request, the progress file, and the process
_CHUNK: Final = 1 << 16  # bytes; as much as a pipe holds, so that one read empties it


class CommandFailed(Exception):  # noqa: N818 - an outcome on its way to the report, caught there
    """A command that did not end well."""

    def __init__(self, cause: Cause, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.cause, self.text, self.hint = cause, text, hint


def run(tool: Tool, task: Task, context: ToolContext, out: Printed, err: Printed) -> str:
    """
    Run the command of *tool* with the arguments of *task* and return what it printed.

    Raises:
        CommandFailed: It could not be started, or ended with another status than 0.
        TaskCancelled: There was a cancellation request or a timeout, and it has stopped.
    """
    argv = tool.command_line(task.argv)
    with tempfile.TemporaryDirectory(prefix="animaworks_tasks-") as directory:
        progress = Path(directory, "progress")
        progress.touch()
        variables = {ANIMA_DIR_VARIABLE: task.anima_dir, TASK_ID_VARIABLE: task.id}
        try:
            process = subprocess.Popen(  # noqa: S603 - the program is the registry's, and there is no shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **variables, PROGRESS_FILE_VARIABLE: str(progress)},
                cwd=task.cwd if task.cwd and os.path.isdir(task.cwd) else None,
                # A group of its own, so that what it starts can be stopped with it; in the session of the tool process,
                # so that recovery finds it if its supervisor dies.
                process_group=0,
            )
        except (OSError, ValueError) as error:
            problem = f"{argv[0]} could not be started: {error}"
            raise CommandFailed(Cause.REJECTED, problem, f"install {argv[0]}, or correct its path") from error
        with process:
            try:
                _follow(process, out, err, _Reports(progress, context))
            finally:
                _stop(process, tool.grace_seconds)
    if process.returncode == 0:
        return out.text()
    status, said = process.returncode, err.text().strip()
    end = f"it was killed by {signal_name(-status)}" if status < 0 else f"exit status {status}"
    raise CommandFailed(Cause.CRASHED if status < 0 else Cause.TOOL, f"{end}: {said}" if said else end)


def _follow(process: subprocess.Popen[bytes], out: Printed, err: Printed, reports: _Reports) -> None:
    """Pass on what it prints until it ends; do not wait for children that it leaves behind with its pipes open."""
    with selectors.DefaultSelector() as selector:
        for stream, printed in ((process.stdout, out), (process.stderr, err)):
            assert stream is not None  # noqa: S101 - for the type checker: both are pipes
            selector.register(stream, selectors.EVENT_READ, printed)
        next_look = 0.0
        while process.poll() is None:
            for key, _ in selector.select(_LOOK):  # sleeps where the command has closed both pipes
                _pass_on(selector, key)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK
                reports.look()
                reports.context.raise_if_cancelled()
        for key, _ in selector.select(0):  # once, not to the end: a child left behind may go on printing for ever
            _pass_on(selector, key)
        reports.look()


def _pass_on(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    stream: IO[bytes] = key.fileobj  # type: ignore[assignment]  # as registered
    data = os.read(stream.fileno(), _CHUNK)
    if data:
        key.data.write(data)
    else:
        selector.unregister(stream)


class _Reports:
    """Reads the progress file as it grows."""

    def __init__(self, path: Path, context: ToolContext) -> None:
        self.context, self._path = context, path
        self._read = 0

    def look(self) -> None:
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(self._read)
            lines = file.read(_CHUNK).rpartition(b"\n")[0]
            if lines:
                self._read += len(lines) + 1
                line = lines.splitlines()[-1].decode("utf-8", "replace").strip()
                number, _, message = line.partition(" ")
                try:
                    self.context.progress(float(number), message)
                except ValueError:
                    self.context.progress(None, line)


def _stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """End the command and its process group, if it still runs: SIGTERM, the grace, SIGKILL."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while process.poll() is None and (left := deadline - time.monotonic()) > 0:
        # TaskCancelled: the same request reaches us a second time, as a signal, and must not cost the grace.
        with contextlib.suppress(subprocess.TimeoutExpired, TaskCancelled):
            process.wait(left)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def signal_name(number: int) -> str:
    """Return the name of a signal."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"  # most of the real-time signals have no name
