"""
The tool process: a warm interpreter that imports tools and runs one call at a time, watched over by a supervisor.

Seen from the supervisor it is a :class:`ToolProcess`; inside it, :func:`main` runs. Between the two there is a socket,
over which calls go one way and reports, plain text, come back. What the tool prints goes straight to the task's log, at
the level of file descriptors, so that what it starts prints there too, and the log is whole whoever dies.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from types import FrameType
from typing import Final

import attrs

import animaworks_tasks
from animaworks_tasks import _files
from animaworks_tasks._backends._process_tree import end_with_parent, reap, stop_all
from animaworks_tasks._calls import Report, call
from animaworks_tasks._commands import signal_name
from animaworks_tasks._directory_workspace import DirectoryWorkspace
from animaworks_tasks._paths import ANIMA_DIR_VARIABLE, TASK_ID_VARIABLE
from animaworks_tasks._store import Store
from animaworks_tasks._task import Cause, Task
from animaworks_tasks._tool import Tool
from animaworks_tasks.errors import TaskCancelled

_LOOK: Final = 0.25  # seconds between looks at the wish to cancel; twice a second is promised
_LAST_WORDS: Final = 5.0  # seconds that a process whose socket closed may take to exit


@attrs.frozen
class Call:
    """What goes to the tool process."""

    tool: Tool
    task: Task
    workspace: DirectoryWorkspace
    timeout: float


class ToolProcess:
    """
    The supervisor's side: starts the process when it is needed, and ends it, tree and all, when it must be.

    Args:
        max_tasks: A process is replaced after so many calls; None keeps it.
    """

    def __init__(self, max_tasks: int | None) -> None:
        self._max_tasks = max_tasks
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._calls = 0
        self._calling = self._interrupted = False

    def interrupt(self) -> None:
        """End the call in hand soon, as interrupted; without one, exit. For the handler of a signal."""
        if not self._calling:
            raise SystemExit(0)
        self._interrupted = True

    def invoke(self, tool: Tool, task: Task, store: Store, timeout: float) -> Report:
        """Make one call; whatever becomes of the process, a report comes back."""
        workspace = store.workspace(task.id)
        assert isinstance(workspace, DirectoryWorkspace)  # noqa: S101 - only such a store can come to this process
        try:
            process, connection = self._ready()
        except OSError as error:
            return Report(cause=Cause.CRASHED, error=f"no process could be started for the tool: {error}")
        self._calls += 1
        deadline = time.monotonic() + timeout
        self._calling = True
        try:
            connection.send(Call(tool, task, workspace, timeout))
            report = self._watch(process, connection, workspace, deadline, tool.grace_seconds)
        except (EOFError, OSError):
            report = self._crashed(process)
        finally:
            self._calling = False
        if self._calls == self._max_tasks:
            self.close()
        reap(process)
        return report

    def close(self) -> None:
        """End the process and everything that tools left running below it."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            stop_all(self._process, _LAST_WORDS)
        self._process = self._connection = None
        self._calls = 0

    def _ready(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self._process is None or self._connection is None or self._process.poll() is not None:
            self.close()  # one that died while idle
            self._process, self._connection = _start()
        return self._process, self._connection

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        connection: Connection,
        workspace: DirectoryWorkspace,
        deadline: float,
        grace: float,
    ) -> Report:
        while True:
            left = deadline - time.monotonic()
            if connection.poll(max(0.0, min(_LOOK, left))):
                report: Report = connection.recv()
                return report
            if left <= 0 or self._interrupted or workspace.cancel_requested():
                connection.close()  # so that a process that ends its call in order exits then, within the grace
                return self._stopped(process, grace, timed_out=left <= 0)

    def _stopped(self, process: subprocess.Popen[bytes], grace: float, *, timed_out: bool) -> Report:
        left = stop_all(process, grace)
        self.close()
        error = "it was stopped" + (f", but not all of it: processes {left} are still there" if left else "")
        if self._interrupted:
            words = f"its host or the machine was going down, and it may have partly run: {error}"
            return Report(cause=Cause.INTERRUPTED, error=words)
        return Report(cancelled=not timed_out, timed_out=timed_out, error=error)

    def _crashed(self, process: subprocess.Popen[bytes]) -> Report:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS)
        status = process.poll()
        self.close()
        return Report(cause=Cause.CRASHED, error=f"the tool's process {_end(status)} in the middle of the call")


def _end(status: int | None) -> str:
    if status is None:
        return "cut its connection"
    if status >= 0:
        return f"ended with exit status {status}"
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"was killed by {signal_name(-status)}{hint}"


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    home = os.path.dirname(os.path.dirname(os.path.abspath(animaworks_tasks.__file__)))
    program = (
        f"import sys; sys.path.insert(0, {home!r});"
        f"from animaworks_tasks._backends._tool_process import main; main({theirs.fileno()})"
    )
    with theirs:
        connection = Connection(ours.detach())
        process = subprocess.Popen(  # noqa: S603 - our own program
            [os.fsdecode(get_executable() or sys.executable), "-P", "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    connection.send_bytes(pickle.dumps(list(sys.path)))
    return process, connection


# From here on: inside the tool process.


class _Stop:
    """
    Turns SIGTERM into an exception inside the tool, so that its `finally` blocks run; between calls, into an exit.

    Attributes:
        calling: A call is being made.
        asked: It was asked to stop; a second SIGTERM does not disturb the `finally` blocks.
    """

    def __init__(self) -> None:
        self.calling = self.asked = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        if not self.calling:
            raise SystemExit(0)
        if not self.asked:
            self.asked = True
            raise TaskCancelled("it was asked to stop")


def main(fd: int) -> None:
    """Serve the supervisor at the other end of the socket *fd* until it goes."""
    supervisor = Connection(fd)
    end_with_parent()  # busy, we would not see that it has gone, and the task may be run again elsewhere
    stop, home = _Stop(), _Home()
    with contextlib.suppress(EOFError, OSError):
        sys.path[:] = pickle.loads(supervisor.recv_bytes())  # noqa: S301 - our supervisor wrote it
        while True:
            asked: Call = supervisor.recv()
            report = _make(asked, stop)
            if os.getpid() != home.pid:  # the tool forked, and its child came back from the call as well
                os._exit(0)
            supervisor.send(report)  # first: should we be beyond restoring, the report is safe
            home.restore()


def _make(asked: Call, stop: _Stop) -> Report:
    os.environ[ANIMA_DIR_VARIABLE] = asked.task.anima_dir
    os.environ[TASK_ID_VARIABLE] = asked.task.id
    if asked.task.cwd is not None:
        with contextlib.suppress(OSError):  # gone since: the host's will have to do
            os.chdir(asked.task.cwd)
    _print_to(asked.workspace.log_path)
    deadline = time.monotonic() + asked.timeout
    stop.calling, stop.asked = True, False
    try:
        return call(
            asked.tool,
            asked.task,
            asked.workspace,
            deadline=deadline,
            log=_write,
            all_threads=True,
        )
    except (TaskCancelled, KeyboardInterrupt) as error:  # while the report was being made
        return Report(cancelled=True, error=str(error))
    finally:
        stop.calling = False


def _write(data: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a tool that closed its stderr: the call goes on
        view = memoryview(data)
        while view:
            view = view[os.write(2, view) :]


def _print_to(path: str) -> None:
    """Let the descriptors 1 and 2 be the file *path*, for this process and all that it starts."""
    try:
        fd = _files.open_append(path)
    except OSError:  # no room, or none of our own: better no log than no call
        fd = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(fd, standard)
    if fd not in {1, 2}:
        os.close(fd)


class _Home:
    """What a tool may change of its process, put back for the next one."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._cwd = os.getcwd()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._environment = dict(os.environ)

    def restore(self) -> None:
        """Put it back; and let what is still printed, by threads that were left behind, go nowhere."""
        _print_to(os.devnull)
        os.umask(self._umask)
        with contextlib.suppress(OSError):
            os.chdir(self._cwd)
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
