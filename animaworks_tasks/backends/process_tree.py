"""
Every process that a tool has started, and how to end them all.

On Linux the supervisor is a *child subreaper* (prctl(2)): whatever a tool starts stays below it in the tree, also what
leaves its process group, its session or its parent, so /proc shows all of it, and a supervisor without children has
nothing below it. Elsewhere only the tool process is known: what it started is not found, and ends with it only where it
has to be killed, as far as that has stayed in its process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Final

import attrs

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER: Final = 36
_REAPED_AT_ONCE: Final = 1000  # a tool may leave orphans faster than they can be taken away
_LOOK: Final = 0.02  # seconds between looks at what is left
_LOOK_FOR_ONE: Final = 0.001  # and at one process that is about to end
_KILLING: Final = 5.0  # seconds in which the kernel must have taken what was killed; longer is a process stuck in it
_ON_LINUX: Final = sys.platform == "linux"


@attrs.frozen
class Stopped:
    """
    What became of a process tree.

    Attributes:
        ended: How many processes were seen in it and have ended.
        left: The ids of those that could not be ended within five seconds; nearly always none.
    """

    ended: int
    left: tuple[int, ...] = ()

    def __str__(self) -> str:
        words = f"{self.ended} process{'' if self.ended == 1 else 'es'} ended"
        return f"{words}, but not {', '.join(map(str, self.left))}" if self.left else words


@attrs.frozen
class _Process:
    """One process. Its id may be given to another later; the id with the time of its start, in ticks, is its own."""

    pid: int
    started: int


class Child:
    """
    A child of this process, seen from here. Nobody else takes leave of it.

    Attributes:
        pid: Its id, and no other's until *returncode* is known.
        returncode: Its exit status, or the number of the signal that killed it, negative; None until it is known.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None where it has not."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # we were started deaf to SIGCHLD, and the kernel keeps no status then
                self.returncode = 0
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int | None:
        """Return how it ended as soon as it has; None if it has not within *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_FOR_ONE)
        return self.returncode


def adopt_orphans() -> None:
    """Become the parent of all that is orphaned below this process, where the kernel can."""
    if _ON_LINUX:  # pragma: no branch - CI is Linux
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Get SIGTERM when the thread that started this process ends, where the kernel can."""
    if _ON_LINUX:  # pragma: no branch - as above
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def reap(child: Child) -> None:
    """Take leave of adopted processes that have died, which else would stay as zombies; *child* is left alone."""
    if not _ON_LINUX:  # pragma: no cover - CI is Linux; elsewhere none is adopted, and there may be no waitid
        return
    with contextlib.suppress(ChildProcessError):  # none is left at all
        for _ in range(_REAPED_AT_ONCE):
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None or dead.si_pid == child.pid:
                return
            os.waitpid(dead.si_pid, 0)


def stop_all(child: Child, grace: float) -> Stopped:
    """End *child* and all below this process: SIGTERM, up to *grace* seconds, then SIGKILL until none is left."""
    seen: set[_Process] = set()

    def left() -> list[_Process]:
        found = _alive(child)
        seen.update(found)
        return found

    def over() -> bool:
        # The kernel has the last word: between two looks at /proc, one process may hand over to the next unseen.
        return not left() and not _has_children()

    for process in left():
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while not over() and time.monotonic() < deadline:
        time.sleep(_LOOK)
    deadline = time.monotonic() + _KILLING
    while not over() and time.monotonic() < deadline:
        known = len(seen)
        for process in left():
            _kill(process)
        if len(seen) == known:  # else some were born meanwhile, and at once there may be more
            time.sleep(_LOOK)
    stuck = left()
    return Stopped(len(seen) - len(stuck), tuple(process.pid for process in stuck))


def _kill(process: _Process) -> None:
    """End *process* and all of its process group; a group is ended in one step."""
    if not _ON_LINUX:  # pragma: no cover - CI is Linux; the only one known is ours, and leads a group of its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        _signal(process, signal.SIGKILL)  # if it has only just begun, it does not lead one yet
        return
    _signal(process, signal.SIGSTOP)  # from here on it neither starts another nor leaves its group
    with contextlib.suppress(OSError):
        state, _, group, session, *_ = _stat(process.pid)
        if state in b"Tt" and _started(process.pid) == process.started and int(session) != os.getsid(0):
            os.killpg(int(group), signal.SIGKILL)  # as long as a process in it is stopped, its number is no other's
    _signal(process, signal.SIGKILL)


def _signal(process: _Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        _send(process, number)


def _send(process: _Process, number: signal.Signals) -> None:
    """Signal *process*, and never another one that was given its id since we looked."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # a kernel, or a Python, without: the gap is microseconds then
        os.kill(process.pid, number)
        return
    try:
        if _started(process.pid) == process.started:  # looked up once we have hold of it
            signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def _alive(child: Child) -> list[_Process]:
    """Return who lives below us, having reaped who died; *child* is reaped by its own object."""
    child.poll()
    if not _ON_LINUX:  # pragma: no cover - CI is Linux
        return [] if child.returncode is not None else [_Process(child.pid, 0)]
    found = []
    for process in _below(os.getpid()):
        if process.pid != child.pid:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(process.pid, os.WNOHANG)[0]:
                    continue
        elif child.returncode is not None:
            continue
        found.append(process)
    return found


def _has_children() -> bool:
    if not _ON_LINUX:  # pragma: no cover - CI is Linux
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _below(root: int) -> list[_Process]:
    """Return all descendants of *root*."""
    children = _children_of if os.path.exists("/proc/thread-self/children") else _table_of_processes().get
    found: list[_Process] = []
    level = [root]
    while level:
        level = [child for parent in level for child in children(parent) or ()]
        for pid in level:
            started = _started(pid)
            if started is not None:
                found.append(_Process(pid, started))
    return found


def _children_of(pid: int) -> list[int]:
    """Ask the kernel; one that is born or dies meanwhile may be missed, as with any look (proc_tid_children(5))."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def _table_of_processes() -> dict[int, list[int]]:
    """Return the children of every process of the machine: for a kernel that does not keep such lists."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    return children


def _started(pid: int) -> int | None:
    try:
        return int(_stat(pid)[19])
    except OSError:
        return None


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/<pid>/stat from the third on, as in proc_pid_stat(5): state, ppid, ... starttime."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name of the program may hold spaces and brackets; the last bracket ends it.
        return file.read().rpartition(b")")[2].split()
