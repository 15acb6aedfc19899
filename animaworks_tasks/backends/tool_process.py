"""
The tool process: a warm interpreter that imports tools and runs one call at a time, watched over by a supervisor.

Seen from the supervisor it is a :class:`ToolProcess`; inside it, a fork of the supervisor (see ``fork.py``),
:func:`main` runs. Between the two there is a socket (see ``channel.py``). What the tool prints goes straight to the
task's log, at the level of file descriptors, so that what it starts prints there too, and the log is whole whoever
dies.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys
import time
from types import FrameType
from typing import Final

import attrs

from animaworks_tasks.backends.channel import Link, encode, receive
from animaworks_tasks.backends.fork import fork
from animaworks_tasks.backends.process_state import Home, print_to
from animaworks_tasks.backends.process_tree import Child, reap, stop_all
from animaworks_tasks.errors import TaskCancelled
from animaworks_tasks.fs.layout import ANIMA_DIR_VARIABLE, TASK_ID_VARIABLE
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.store.workspace import DirectoryWorkspace
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.tools.tool import Tool
from animaworks_tasks.worker import runner
from animaworks_tasks.worker.call import Report, call
from animaworks_tasks.worker.command import signal_name

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

    Attributes:
        interrupted: We are going down: the call in hand is to end soon, and no other begins.
    """

    def __init__(self, max_tasks: int | None) -> None:
        self._max_tasks = max_tasks
        self._process: Child | None = None
        self._link: Link | None = None
        self._calls = 0
        self.interrupted = False

    def invoke(self, tool: Tool, task: Task, store: Store, timeout: float) -> Report:
        """
        Make one call; whatever becomes of the process, a report comes back.

        Raises:
            NotBegunError: We are going down.
        """
        if self.interrupted:
            raise runner.NotBegunError
        workspace = store.workspace(task.id)
        assert isinstance(workspace, DirectoryWorkspace)  # noqa: S101 - only such a store can come to this process
        try:
            process, link = self._ready()
        except OSError as error:
            return Report(cause=Cause.CRASHED, error=f"no process could be started for the tool: {error}")
        self._calls += 1
        deadline = time.monotonic() + timeout
        try:
            link.send(pickle.dumps(Call(tool, task, workspace, timeout)))
            report = self._watch(process, link, workspace, deadline, tool.grace_seconds)
        except (EOFError, OSError):
            report = self._crashed(process)
        except ValueError as error:
            self.close()
            report = Report(cause=Cause.CRASHED, error=f"the tool's process was ended: {error} on its connection")
        if self._calls == self._max_tasks:
            self.close()
        reap(process)
        return self._in_its_light(report)

    def _in_its_light(self, report: Report) -> Report:
        """Return what a *report* means if we go down: then the tool and its programs may be sent SIGTERM as well."""
        if not self.interrupted or report.cause in {None, Cause.INTERRUPTED}:
            return report
        return _interrupted(report)

    def close(self) -> None:
        """End the process and everything that tools left running below it."""
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            stop_all(self._process, _LAST_WORDS)
        self._process = self._link = None
        self._calls = 0

    def _ready(self) -> tuple[Child, Link]:
        process, link = self._process, self._link
        if process is None or link is None or process.poll() is not None or not (link.fit and link.quiet()):
            self.close()  # one that died while idle, was left talking, or could not be put back
            process, link = self._process, self._link = _start()
        return process, link

    def _watch(
        self,
        process: Child,
        link: Link,
        workspace: DirectoryWorkspace,
        deadline: float,
        grace: float,
    ) -> Report:
        while True:
            left = deadline - time.monotonic()
            died = process.poll() is not None
            report = link.report(min(_LOOK, left))
            if report is not None:
                return report
            reap(process)  # a tool that leaves many orphans must not fill the table of processes with their zombies
            if died:  # and its socket is still open: in a process that it started
                raise EOFError("the tool process has ended")
            if left <= 0 or self.interrupted or workspace.cancel_requested():
                link.close()  # so that a process that ends its call in order exits then, within the grace
                return self._stopped(process, grace, timed_out=left <= 0)

    def _stopped(self, process: Child, grace: float, *, timed_out: bool) -> Report:
        report = Report(error=f"it was stopped: {stop_all(process, grace)}", timed_out=timed_out)
        self.close()
        if self.interrupted and not timed_out:
            return _interrupted(report)
        return attrs.evolve(report, cancelled=not timed_out)

    def _crashed(self, process: Child) -> Report:
        status = process.wait(_LAST_WORDS)
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


def _start() -> tuple[Child, Link]:
    ours, theirs = socket.socketpair()
    link = Link(ours)
    with theirs, contextlib.ExitStack() as undo:
        undo.callback(link.close)
        process = fork(lambda: main(theirs), keep=theirs.fileno())
        undo.pop_all()
    return process, link


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


def main(supervisor: socket.socket) -> None:
    """Serve the supervisor at the other end of the socket until it goes."""
    runner.invoke_with(runner.call_here)  # a tool that runs tasks of its own is no supervisor
    sys.path_importer_cache.clear()  # what is missing from it may have been made since the supervisor looked
    stop, home = _Stop(), Home()
    with contextlib.suppress(EOFError, OSError):
        _serve(supervisor, stop, home)


def _serve(supervisor: socket.socket, stop: _Stop, home: Home) -> None:
    fit = True
    while fit:
        asked: Call = pickle.loads(receive(supervisor))  # noqa: S301 - our supervisor wrote it
        report = _make(asked, stop)
        if os.getpid() != home.pid:  # the tool forked, and its child came back from the call as well
            os._exit(0)
        fit = home.restore()  # first: an alarm that the tool has set must not cost its report
        supervisor.sendall(encode(report, fit=fit))


def _make(asked: Call, stop: _Stop) -> Report:
    os.environ[ANIMA_DIR_VARIABLE] = asked.task.anima_dir
    os.environ[TASK_ID_VARIABLE] = asked.task.id
    if asked.task.cwd is not None:
        with contextlib.suppress(OSError, ValueError):  # gone since, or no path: the host's will have to do
            os.chdir(asked.task.cwd)
    print_to(asked.workspace.log_path)
    deadline = time.monotonic() + asked.timeout
    stop.calling, stop.asked = True, False
    try:
        report = call(
            asked.tool,
            asked.task,
            asked.workspace,
            deadline=deadline,
            log=_write,
            all_threads=True,
        )
    except TaskCancelled as error:  # while the report was being made
        report = Report(cancelled=True, error=str(error))
    except KeyboardInterrupt:  # the tool's own: there is no keyboard here
        report = Report(cause=Cause.TOOL, error="KeyboardInterrupt")
    finally:
        stop.calling = False
    # When our supervisor asks, it listens no more. So it was somebody else: a machine that goes down asks everybody.
    return _interrupted(report) if stop.asked and report.cancelled else report


def _write(data: bytes) -> None:
    with contextlib.suppress(OSError):  # a full disk, or a tool that closed its stderr: the call goes on
        view = memoryview(data)
        while view:
            view = view[os.write(2, view) :]
