"""
Finds every process that a tool has started, and ends them all.

On Linux the supervisor is a *child subreaper* (prctl(2)): every process that a tool starts stays a descendant of it,
also one that leaves its process group, its session or its parent. So /proc shows all of them, and a supervisor without
children has no descendants. Elsewhere only the tool process is known: its descendants are killed only if it has to be
killed, and only those in its process group.
"""

import contextlib
import os
import signal
import sys
import time
from typing import Final

import attrs

from animaworks_tasks.notifications.render import several

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER: Final = 36
_REAPED_AT_ONCE: Final = 1000  # a tool may leave orphans faster than they are reaped
_LOOK: Final = 0.02  # seconds between looks at what is left
_LOOK_FOR_ONE: Final = 0.001  # likewise, at one process that is about to end
_KILLING: Final = 5.0  # seconds for a killed process to end; one that takes longer is stuck in the kernel
_ON_LINUX: Final = sys.platform == "linux"


@attrs.frozen
class _Process:
    """A process: its id, which may be reused, and the time of its start in ticks, which makes it unique."""

    pid: int
    started: int


class Child:
    """
    A child of this process; only this object reaps it.

    Attributes:
        pid: Its id, which is not reused before *returncode* is known.
        returncode: Its exit status, or minus the number of the signal that killed it; None until it is known.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return *returncode*; None while it runs."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # SIGCHLD is ignored since our start, and so the kernel keeps no status
                self.returncode = 0
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int | None:
        """Return *returncode* as soon as it has ended; None if it has not within *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_FOR_ONE)
        return self.returncode


def adopt_orphans() -> None:
    """Become the parent of every orphaned descendant of this process, where the kernel can."""
    if _ON_LINUX:  # pragma: no branch - CI is Linux
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Have this process killed when the thread that started it ends, where the kernel can."""
    if _ON_LINUX:  # pragma: no branch - as above
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def reap(child: Child) -> None:
    """Reap adopted processes that have died, which else would stay as zombies; but not *child*."""
    if not _ON_LINUX:  # pragma: no cover - CI is Linux; elsewhere none is adopted, and there may be no waitid
        return
    with contextlib.suppress(ChildProcessError):  # there are no children
        for _ in range(_REAPED_AT_ONCE):
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None or dead.si_pid == child.pid:
                return
            os.waitpid(dead.si_pid, 0)


def stop_all(child: Child, grace: float) -> str:
    """
    End *child* and all descendants: SIGTERM, up to *grace* seconds, then SIGKILL until none is left.

    Returns:
        How many were seen and have ended, and the ids of those that have not within five seconds more; nearly always
        none.
    """
    seen: set[_Process] = set()

    def left() -> list[_Process]:
        found = _alive(child)
        seen.update(found)
        return found

    def over() -> bool:
        # The kernel decides: a process that forks and exits between two looks at /proc is not seen there.
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
        if len(seen) == known:  # else some were started meanwhile, and more may follow at once
            time.sleep(_LOOK)
    stuck = [str(process.pid) for process in left()]
    ended = f"{several(len(seen) - len(stuck), 'process', 'processes')} ended"
    return f"{ended}, but not {', '.join(stuck)}" if stuck else ended


def _kill(process: _Process) -> None:
    """End *process* and all of its process group; a group is ended in one step."""
    if not _ON_LINUX:  # pragma: no cover - CI is Linux; the only one known is ours, and leads a group of its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        _signal(process, signal.SIGKILL)  # one that has only just started does not lead it yet
        return
    _signal(process, signal.SIGSTOP)  # from here on it can neither fork nor leave its group
    with contextlib.suppress(OSError):
        state, _, group, session, *_ = _stat(process.pid)
        if state in b"Tt" and _started(process.pid) == process.started and int(session) != os.getsid(0):
            os.killpg(int(group), signal.SIGKILL)  # its id is not reused while a stopped process is in it
    _signal(process, signal.SIGKILL)


def _signal(process: _Process, number: signal.Signals) -> None:
    """Signal *process*, but never another one that has got its id since; one that has ended is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        except (AttributeError, OSError):  # not in this kernel or Python: it has microseconds to end in
            os.kill(process.pid, number)
            return
        try:
            if _started(process.pid) == process.started:  # after the open, which keeps the process apart from its id
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def _alive(child: Child) -> list[_Process]:
    """Return the descendants that live, and reap the children that died; *child* is reaped by its own object."""
    is_alive = child.poll() is None
    if not _ON_LINUX:  # pragma: no cover - CI is Linux
        return [_Process(child.pid, 0)] if is_alive else []
    reap(child)
    return [process for process in _below(os.getpid()) if is_alive or process.pid != child.pid]


def _has_children() -> bool:
    with contextlib.suppress(ChildProcessError):
        if _ON_LINUX:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return True
    return False


def _below(root: int) -> list[_Process]:
    """Return all descendants of *root*."""
    children = _children_of if os.path.exists("/proc/thread-self/children") else _table_of_processes().get
    found, level = list[int](), [root]
    while level:
        level = [child for parent in level for child in children(parent) or ()]
        found += level
    return [_Process(pid, started) for pid in found if (started := _started(pid)) is not None]


def _children_of(pid: int) -> list[int]:
    """Return the children of *pid*; those that start or end meanwhile may be missing (proc_tid_children(5))."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def _table_of_processes() -> dict[int, list[int]]:
    """Return the children of every process of the machine, for a kernel without lists of them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    return children


def _started(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(_stat(pid)[19])
    return None


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/<pid>/stat from the third on, as in proc_pid_stat(5): state, ppid, ... starttime."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name of the program may hold spaces and brackets; the last bracket ends it.
        return file.read().rpartition(b")")[2].split()
