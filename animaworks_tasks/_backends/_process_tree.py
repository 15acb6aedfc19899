"""
Every process that a tool has started, and how to end them all.

On Linux the supervisor is a *child subreaper* (prctl(2)): whatever a tool starts stays below it in the tree, also what
leaves its process group, its session or its parent, so /proc shows all of it. Elsewhere only the tool's own session is
known, and daemons that left it are not found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER: Final = 36
_LOOK: Final = 0.02  # seconds between looks at what is left
_KILLING: Final = 5.0  # seconds in which the kernel must have taken what was killed; longer is a process stuck in it
_ON_LINUX: Final = sys.platform == "linux"


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


def reap(child: subprocess.Popen[bytes]) -> None:
    """Take leave of adopted processes that have died, which else would stay as zombies; *child* is left alone."""
    with contextlib.suppress(ChildProcessError):  # none is left at all
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and dead.si_pid != child.pid:
            os.waitpid(dead.si_pid, 0)


def stop_all(child: subprocess.Popen[bytes], grace: float) -> tuple[int, ...]:
    """
    End *child* and everything below this process: SIGTERM, up to *grace* seconds, then SIGKILL until nothing is left.

    Returns:
        The ids of processes that could not be ended within five seconds more; nearly always none.
    """
    _signal(_alive(child), signal.SIGTERM)
    _wait(lambda: not _alive(child), grace)
    deadline = time.monotonic() + _KILLING
    while (left := _alive(child)) and time.monotonic() < deadline:
        _signal(left, signal.SIGSTOP)  # first, so that none of them starts another while we go through the list
        _signal(_alive(child), signal.SIGKILL)
        _wait(lambda: not _alive(child), 10 * _LOOK)
    return tuple(left)


def _wait(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(_LOOK)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _alive(child: subprocess.Popen[bytes]) -> list[int]:
    """Return who lives below us, having reaped who died; *child* is reaped by its own object."""
    child.poll()
    if not _ON_LINUX:  # pragma: no cover - CI is Linux
        return [] if child.returncode is not None else [child.pid]
    found = []
    for pid in _below(os.getpid()):
        if pid != child.pid:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    continue
        elif child.returncode is not None:
            continue
        found.append(pid)
    return found


def _below(root: int) -> list[int]:
    """Return the ids of all descendants of *root*, from /proc/<pid>/stat: proc_pid_stat(5)."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name of the program may hold spaces and brackets; the last bracket ends it. Then: state, ppid.
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    level = [root]
    while level:
        level = [pid for parent in level for pid in children.get(parent, ())]
        found += level
    return found
