"""
What a dead owner left running: processes that still hold its record's lock, or belong to its tool's session.

A tool process dies with its supervisor. What it had started need not: a forked helper has a copy of the record's
descriptor and keeps the lock, a program is still at work. Before a task is finished or run again for its dead owner,
these are killed. Found through /proc, killed through a pidfd, so that no stranger is hit who got the number meanwhile;
where there is no /proc, nothing is killed, and a task whose lock is held waits until it is free.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import select
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
from attrs import validators

from animaworks_tasks.fs import files
from animaworks_tasks.fs.process import pid

_STARTED: Final = 19  # the field of /proc/PID/stat after its name, "state" being 0: proc(5), starttime
_SESSION: Final = 3
_PATIENCE: Final = 5.0  # seconds for which a process that was killed is waited for: it may hang in the kernel


def _positive(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not int or value <= 0:
        raise TypeError(f"{attribute.name} must be a positive number, not {value!r}")


@attrs.frozen
class Owner:
    """
    Who runs a task, as its view names it.

    Attributes:
        pid: The process that holds the record's lock.
        started: When that process started, in clock ticks since the machine did; with *pid* it names one process.
        boot: The run of the machine and the namespace in which *pid* counts; of an earlier run nothing is left.
        session: The tool process, which leads a session of its own; None where the tool runs in the owner itself.
        session_started: When that one started, in the same ticks.
    """

    pid: int = attrs.field(validator=_positive)
    started: int = attrs.field(validator=_positive)
    boot: str = attrs.field(validator=validators.instance_of(str))
    session: int | None = attrs.field(default=None, validator=validators.optional(_positive))
    session_started: int | None = attrs.field(default=None, validator=validators.optional(_positive))

    @classmethod
    def me(cls, session: int | None = None) -> Owner | None:
        """Return this process as an owner, whose tool process is *session*; None where there is no /proc."""
        started, session_started = _my_start(pid()), None if session is None else _started(session)
        if started is None:
            return None
        return cls(pid(), started, _here(), session if session_started else None, session_started)

    @classmethod
    def of(cls, facts: object) -> Owner | None:
        """Return the owner that a view names; None where it names none, or anybody has written it."""
        try:
            return cls(**facts) if isinstance(facts, dict) else None
        except (TypeError, ValueError):
            return None

    def is_dead(self) -> bool:
        """Return whether this process, which can be seen from here, has surely ended."""
        return self.boot == _here() and _started(os.getpid()) is not None and _started(self.pid) != self.started


def kill_holders(path: str) -> int:
    """
    Kill the processes that hold the lock of the file *path*, which its dead owner had open for writing.

    Who only looks has it open for reading, and who is about to claim it does not have the lock: neither is touched.

    Returns:
        How many were killed.
    """
    with contextlib.suppress(OSError):
        return _kill_all(functools.partial(_holds, os.stat(path)))
    return 0


def kill_session(owner: Owner | None) -> int:
    """
    Kill what is left of the session of a dead owner's tool process, and return how many processes that were.

    A session's number is not given away while one of its processes lives; what has a leader that is not the owner's
    tool process is somebody else's.
    """
    if owner is None or owner.session is None or owner.boot != _here():
        return 0
    if _started(owner.session) not in {None, owner.session_started}:
        return 0

    def belongs(pid: int) -> bool:
        facts = _stat(pid)
        return facts is not None and facts[0] == owner.session and facts[1] >= (owner.session_started or 0)

    return _kill_all(belongs)


def _kill_all(is_meant: Callable[[int], bool]) -> int:
    return sum(_kill(pid, is_meant) for pid in _pids() if is_meant(pid))


def _kill(pid: int, is_meant: Callable[[int], bool]) -> bool:
    """Kill *pid* and wait for its end, if it still is the process that is meant once nobody else can get its number."""
    with contextlib.suppress(AttributeError, OSError), io.FileIO(os.pidfd_open(pid)) as process:  # which closes it
        if is_meant(pid):
            signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)
            # A process that was killed works on, and keeps its locks, until it has ended.
            ended = select.poll()
            ended.register(process, select.POLLIN)
            ended.poll(_PATIENCE * 1000)
            return True
    return False


def _pids() -> Iterator[int]:
    for name in files.names("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == os.geteuid():
                    yield int(name)


def _holds(status: os.stat_result, pid: int) -> bool:
    """Return whether *pid* has the file of that *status* open for writing, by a descriptor that holds its lock."""
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), status) and _is_locked(pid, fd):
                    return True
    return False


def _is_locked(pid: int, fd: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as file:  # proc(5)
        lines = dict.fromkeys(line.rstrip("\n") for line in file)
    flags = next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), 0)
    return flags & os.O_ACCMODE == os.O_RDWR and any(line.startswith("lock:") and "FLOCK" in line for line in lines)


@functools.lru_cache(maxsize=1)
def _my_start(pid: int) -> int | None:
    return _started(pid)


def _started(pid: int) -> int | None:
    facts = _stat(pid)
    return None if facts is None else facts[1]


def _stat(pid: int) -> tuple[int, int] | None:
    """Return session and start of a process; None where it is not there, or has ended and nobody has waited for it."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:  # proc(5)
        fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in {b"Z", b"X"} else (int(fields[_SESSION]), int(fields[_STARTED]))
    return None


@functools.cache
def _here() -> str:
    """Return what names this run of the machine and our namespace of processes: a container has one of its own."""
    with contextlib.suppress(OSError):
        return f"{boot()} {os.readlink('/proc/self/ns/pid')}"  # pid_namespaces(7)
    return boot()


@functools.cache
def boot() -> str:
    """Return what names this run of the machine; empty where nothing does."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # random(4)
        return file.read().strip()
    return ""
