"""
The tool process: a warm interpreter that imports tools and runs one call at a time, watched over by a supervisor.

The supervisor uses :class:`ToolProcess`. The process itself is a fork of the supervisor (see ``fork.py``) and runs
:func:`main`. A socket connects the two (see ``channel.py``). stdout and stderr are the task's log itself, at the level
of file descriptors: the output of subprocesses goes there too, and nothing is lost when a process dies.
"""

import contextlib
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

import attrs

from animaworks_tasks.backends.channel import Channel, encode, receive
from animaworks_tasks.backends.fork import fork
from animaworks_tasks.backends.process_state import ProcessState, print_to
from animaworks_tasks.backends.process_tree import Child, reap, stop_all
from animaworks_tasks.errors import TaskCancelled
from animaworks_tasks.fs import files
from animaworks_tasks.fs.layout import ANIMA_DIR_VARIABLE, TASK_ID_VARIABLE
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.protocol import Claim, Store
from animaworks_tasks.store.workspace import DirectoryWorkspace
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.tools.tool import Tool
from animaworks_tasks.worker import runner
from animaworks_tasks.worker.call import Report, call
from animaworks_tasks.worker.command import signal_name

_LOOK: Final = 0.25  # seconds between looks for a cancellation request; at most 0.5 s are promised
_EXIT_TIMEOUT: Final = 5.0  # seconds for a process whose socket is closed to exit


class ToolProcess:
    """
    The supervisor's side: starts the process when it is needed, and ends it with all its descendants.

    Args:
        max_tasks: A process is replaced after so many calls; None is no limit.

    Attributes:
        interrupted: The supervisor is shutting down: the running call is stopped, and no other is started.
    """

    def __init__(self, max_tasks: int | None) -> None:
        self._max_tasks = max_tasks
        self._process: Child | None = None
        self._channel: Channel | None = None
        self._calls = 0
        self.interrupted = False

    def invoke(self, tool: Tool, task: Task, store: Store, claim: Claim, timeout: float) -> Report:
        """
        Make one call and return its report, also when the process dies.

        The tool process gets copies of the descriptors of the locked record and slot: if the supervisor dies, both stay
        locked until the tool process has ended too.

        Raises:
            NotBegunError: The supervisor is shutting down. The tool was not called.
        """
        workspace = store.workspace(task.id)
        assert isinstance(workspace, DirectoryWorkspace)  # noqa: S101 - only such a store can come to this process
        try:
            process, channel = self._ready()
        except OSError as error:
            return Report(cause=Cause.CRASHED, error=f"no process could be started for the tool: {error}")
        self._calls += 1
        deadline = time.monotonic() + timeout
        try:
            # First: if we die, recovery learns there whom the tool has started.
            store.publish_view(claim, session=process.pid)
            channel.send(pickle.dumps((tool, task, workspace, deadline)), claim.descriptors())
            report = self._watch(process, channel, workspace, deadline, tool.grace_seconds)
            if channel.unfit:
                line = f"the next call gets another process, because in this one {one_line(channel.unfit, 200)}\n"
                workspace.write_log(line.encode("utf-8", "backslashreplace"))
        except (EOFError, OSError):
            report = self._crashed(process)
        except ValueError as error:
            self.close()
            report = Report(cause=Cause.CRASHED, error=f"the tool's process was ended: {error} on its connection")
        if self._calls == self._max_tasks:
            self.close()
        reap(process)
        if self.interrupted and report.cause is not Cause.INTERRUPTED and (report.cause or report.cancelled):
            return _interrupted(report)  # not a failure: the tool may have got SIGTERM too
        return report

    def close(self) -> None:
        """End the process and all its descendants."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            stop_all(self._process, _EXIT_TIMEOUT)
        self._process = self._channel = None
        self._calls = 0

    def _ready(self) -> tuple[Child, Channel]:
        if self.interrupted:
            raise runner.NotBegunError
        process, channel = self._process, self._channel
        if not process or not channel or process.poll() is not None or channel.unfit or not channel.is_quiet():
            self.close()  # it died while idle, a tool's descendant writes to its socket, or its state was not restored
            process, channel = self._process, self._channel = _start()
        return process, channel

    def _watch(
        self, process: Child, channel: Channel, workspace: DirectoryWorkspace, deadline: float, grace: float
    ) -> Report:
        while True:
            left = deadline - time.monotonic()
            died = process.poll() is not None
            report = channel.report(min(_LOOK, left))
            if report is not None:
                return report
            reap(process)  # the zombies of a tool's orphans must not fill the process table
            if died:  # a descendant of it still has the socket open
                raise EOFError("the tool process has ended")
            if left <= 0 or self.interrupted or workspace.cancel_requested():
                channel.close()  # so that the process exits once its call has ended, within the grace
                error = f"it was stopped: {stop_all(process, grace)}"
                self.close()
                return Report(error=error, timed_out=left <= 0, cancelled=left > 0)

    def _crashed(self, process: Child) -> Report:
        status = process.wait(_EXIT_TIMEOUT)
        self.close()
        return Report(cause=Cause.CRASHED, error=f"the tool's process {_end(status)} in the middle of the call")


def _interrupted(report: Report) -> Report:
    error = f"SIGTERM ended it, as when its host or the machine goes down, and it may have partly run: {report.error}"
    return attrs.evolve(report, cause=Cause.INTERRUPTED, error=error, cancelled=False)


def _end(status: int | None) -> str:
    if status is None:
        return "cut its connection"
    if status >= 0:
        return f"ended with exit status {status}"
    hint = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"was killed by {signal_name(-status)}{hint}"


def _start() -> tuple[Child, Channel]:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            return fork(lambda: main(theirs), keep=theirs.fileno()), Channel(ours)
        except OSError:
            ours.close()
            raise


# From here on: inside the tool process.


class _Stop:
    """
    Raises an exception inside the tool at SIGTERM, so that its `finally` blocks run; between calls, exits.

    Attributes:
        calling: A call is being made.
        received: SIGTERM has come during this call; a second one does not interrupt the `finally` blocks.
    """

    def __init__(self) -> None:
        self.calling = self.received = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        if not self.calling:
            raise SystemExit(0)
        if not self.received:
            self.received = True
            raise TaskCancelled("it was asked to stop")


def main(supervisor: socket.socket) -> None:
    """Run the calls that come through the socket until the supervisor closes it."""
    runner.invoke_with(runner.call_here)  # for a tool that runs tasks itself
    sys.path_importer_cache.clear()  # a directory that the supervisor did not find may exist by now
    stop, initial = _Stop(), ProcessState()
    with contextlib.suppress(EOFError, OSError):
        _serve(supervisor, stop, initial)


def _serve(supervisor: socket.socket, stop: _Stop, initial: ProcessState) -> None:
    unfit = None
    while unfit is None:
        message, held = receive(supervisor)
        with _holding(held):
            report = _make(stop, *pickle.loads(message))  # noqa: S301 - our supervisor wrote it
        if os.getpid() != initial.pid:  # the tool forked, and its child returned from the call as well
            os._exit(0)
        unfit = initial.restore()  # first: an alarm that the tool has set must not lose its report
        supervisor.sendall(encode(report, unfit))


@contextlib.contextmanager
def _holding(descriptors: Sequence[int]) -> Iterator[None]:
    """Close *descriptors*, copies of locked files, after the call, unless the tool put another file there."""
    held = [(descriptor, os.fstat(descriptor)) for descriptor in descriptors]
    try:
        yield
    finally:
        for descriptor, status in held:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), status):
                    os.close(descriptor)


def _make(stop: _Stop, tool: Tool, task: Task, workspace: DirectoryWorkspace, deadline: float) -> Report:
    os.environ[ANIMA_DIR_VARIABLE] = task.anima_dir
    os.environ[TASK_ID_VARIABLE] = task.id
    if task.cwd is not None:
        with contextlib.suppress(OSError, ValueError):  # it was removed, or is no path: the tool runs in the host's
            os.chdir(task.cwd)
    print_to(workspace.log_path)
    stop.calling, stop.received = True, False
    try:
        report = call(tool, task, workspace, deadline=deadline, log=_write, all_threads=True)
    except TaskCancelled as error:  # SIGTERM came after the tool had returned
        report = Report(cancelled=True, error=str(error))
    except KeyboardInterrupt:  # raised by the tool: this process has no terminal
        report = Report(cause=Cause.TOOL, error="KeyboardInterrupt")
    finally:
        stop.calling = False
    # A supervisor that sends SIGTERM reads no report. So it came from elsewhere: a machine's shutdown sends it to all.
    return _interrupted(report) if stop.received and report.cancelled else report


def _write(data: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a tool that closed its stderr: the call goes on
        files.write_all(2, data)
