"""
Is the place sound: directories, permissions, what the file system can do, room, and who else is at work there.

Each check yields what it finds and changes nothing but probes in tmp/, which it takes away again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final

import attrs

from animaworks_tasks.fs import files, locks
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.findings import FIX, Finding, Remedy, Severity, several, shown
from animaworks_tasks.task.model import is_task_id

_OTHERS: Final = 0o077
_LITTLE_ROOM: Final = 64 << 20  # bytes; a result of a few dozen megabytes still fits
_FEW_FILES: Final = 1000


def reach(layout: Layout) -> Iterator[Finding]:
    """Find what keeps us from looking at the place at all, or from working there."""
    path, problem = layout.root, None
    try:
        os.lstat(path)
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            problem = "lies on a file system that is mounted for reading only, so no task can be kept or run there"
    except FileNotFoundError:  # the first submit makes it
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            problem = "may not be written by this user, so no task can be kept there"
    except OSError as error:
        problem = f"cannot be looked at: {error.strerror or error}"
    if problem is not None:
        todo = "see that this user may read and write there, or run this as the user who runs the host"
        yield Finding(what=f"{path} {problem}", where=path, severity=Severity.PROBLEM, todo=todo)


def directories(layout: Layout) -> Iterator[Finding]:
    """Find directories that are missing, not ours, open to others, or on another file system than the root."""
    missing = []
    device = _device(layout.root)
    for path in (layout.root, *layout.directories(), layout.notifications, layout.read):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            missing.append(path)
            continue
        yield from _directory(path, status, device)
    if missing:
        yield Finding(
            what=f"{several(len(missing), 'directory is', 'directories are')} missing: {_names(missing)}",
            where=missing[0],
            severity=Severity.PROBLEM,
            todo=f"{FIX} makes what is missing, as any host does when it starts",
            remedy=Remedy.MAKE,
        )


def _directory(path: str, status: os.stat_result, device: int | None) -> Iterator[Finding]:
    problem, todo = None, ""
    if not stat.S_ISDIR(status.st_mode):
        problem, todo = "is not a directory", "move it away"
    elif status.st_uid != os.geteuid():
        problem = f"belongs to another user (uid {status.st_uid})"
        todo = "give it to the user who runs the host (chown), or run this as that user"
    elif status.st_dev != device:
        problem = "lies on another file system than the rest, so nothing can be moved there whole"
        todo = "keep the store and the notifications on one file system"
    if problem is not None:
        yield Finding(what=f"{path} {problem}", where=path, severity=Severity.PROBLEM, todo=todo)
    elif status.st_mode & (_OTHERS | 0o700) != files.DIRECTORY_MODE:
        yield _open(path, [path], status.st_mode, "is", "directory")


def lock_files(layout: Layout) -> Iterator[Finding]:
    """Find what stands in the place of a lock and is no file, so that nobody can hold it."""
    for name in sorted(files.names(layout.locks)):
        path = os.path.join(layout.locks, name)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                yield Finding(
                    what=f"{shown(path)} is no file, so nobody can hold it, and what needs it is not done",
                    where=path,
                    severity=Severity.PROBLEM,
                    todo=f"{FIX} moves it into quarantine/; ask again then, because of tasks nothing was looked at",
                    remedy=Remedy.ASIDE,
                    subjects=(path,),
                    reason="it stood where a lock belongs, and is no file",
                )


def permissions(layout: Layout) -> Iterator[Finding]:
    """Find files that other users may read or write: they would read what tools said, or have us run what they like."""
    for directory in (
        layout.pending, layout.running, layout.done, layout.logs, layout.progress, layout.notifications, layout.read,
    ):  # fmt: skip
        opened, modes = [], 0
        for entry in _entries(directory):
            status = entry.stat(follow_symlinks=False)
            ours = is_task_id(entry.name.split(".", 1)[0]) and status.st_uid == os.geteuid()
            if ours and stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS:
                opened.append(entry.path)
                modes |= status.st_mode
        if opened:
            yield _open(opened[0], opened, modes, "are" if len(opened) > 1 else "is", "file")


def _open(where: str, paths: list[str], mode: int, verb: str, kind: str) -> Finding:
    writable = mode & 0o022
    count = f"{len(paths)} files in {os.path.dirname(where)}" if len(paths) > 1 else where
    words = "open to other users" if mode & _OTHERS else "closed even to us"
    done = "write there, and so have tools run" if writable else "read there what tools said"
    return Finding(
        what=f"{count} {verb} {words}" + (f", who can {done}" if mode & _OTHERS else ""),
        where=where,
        severity=Severity.PROBLEM if writable or not mode & _OTHERS else Severity.NOTICE,
        todo=f"{FIX} makes {'them' if len(paths) > 1 else 'it'} {'0700' if kind == 'directory' else '0600'}",
        remedy=Remedy.CLOSE,
        subjects=tuple(paths),
    )


def file_system(layout: Layout) -> Iterator[Finding]:
    """Find what the file system cannot do: locks, hard links, FIFOs; and whether it is full."""
    trouble = locks.lock_trouble(layout.tmp)
    if trouble is not None:
        todo = "move the Anima to a local file system; until then no host can work here"
        yield Finding(what=trouble, where=layout.root, severity=Severity.PROBLEM, todo=todo)
    yield from _links(layout)
    yield from _doorbell(layout)
    yield from _room(layout)


def _links(layout: Layout) -> Iterator[Finding]:
    probe = os.path.join(layout.tmp, f"probe.{os.getpid()}.{os.urandom(4).hex()}")
    files.touch(probe)
    try:
        os.link(probe, f"{probe}.link", follow_symlinks=False)
    except OSError as error:
        yield Finding(
            what=f"its file system has no hard links ({error.strerror}): a power cut may lose a record that moves on",
            where=layout.root,
            severity=Severity.PROBLEM,
            todo="move the Anima to a file system that has them",
        )
    finally:
        files.discard(f"{probe}.link")
        files.discard(probe)


def _doorbell(layout: Layout) -> Iterator[Finding]:
    slow = "so a host sees a submit only at its next look"
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISFIFO(os.lstat(layout.doorbell).st_mode):
            yield Finding(
                what=f"{layout.doorbell} is no FIFO, {slow}",
                where=layout.doorbell,
                severity=Severity.PROBLEM,
                todo=f"{FIX} moves it into quarantine/; then start the host again, which makes a new one",
                remedy=Remedy.ASIDE,
                subjects=(layout.doorbell,),
                reason="it stood where the doorbell belongs, and is no FIFO",
            )
    probe = os.path.join(layout.tmp, f"probe.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        os.mkfifo(probe, files.FILE_MODE)
    except OSError as error:
        what = f"its file system has no FIFOs ({error.strerror}), {slow}"
        todo = "nothing, if seconds do not matter; or else move the Anima to a local file system"
        yield Finding(what=what, where=layout.root, severity=Severity.NOTICE, todo=todo)
    finally:
        files.discard(probe)


def _room(layout: Layout) -> Iterator[Finding]:
    status = os.statvfs(layout.root)
    room = status.f_bavail * status.f_frsize
    few = status.f_files > 0 and status.f_favail < _FEW_FILES
    if room < _LITTLE_ROOM or few:
        left = f"{status.f_favail} more files" if few else f"{room >> 20} MiB"
        yield Finding(
            what=f"the disk is nearly full: there is room for {left}",
            where=layout.root,
            severity=Severity.PROBLEM,
            todo="free some; `animaworks-tool prune --older-than 7d` forgets old tasks",
        )


@attrs.frozen
class Program:
    """A process, and what it is called; *pids* are all its ids, of the outermost namespace first."""

    pids: tuple[int, ...]
    command: str

    def __str__(self) -> str:
        return f"process {self.pids[0]} ({self.command})"


def hosts(layout: Layout) -> Iterator[Finding]:
    """Find several programs that listen for tasks at once."""
    listening = who_has(layout.doorbell).get(os.path.realpath(layout.doorbell), [])
    if len(listening) > 1:
        yield Finding(
            what=f"{len(listening)} programs listen for tasks at once: {', '.join(map(str, listening))}",
            where=layout.doorbell,
            severity=Severity.NOTICE,
            todo="nothing, if that is meant: no task runs twice; or else end those that are too many",
        )


def who_has(place: str) -> dict[str, list[Program]]:
    """
    Return which processes have the file *place*, or files in the directory *place*, open; by the file's real path.

    Linux tells, of the processes of our own user; elsewhere nothing is found.
    """
    found: dict[str, list[Program]] = {}
    real = os.path.realpath(place)
    for pid in filter(str.isdigit, files.names("/proc")):  # proc(5)
        held = set()
        with contextlib.suppress(OSError):  # another user's, or it has ended
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    held.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        for path in held:
            if path == real or os.path.dirname(path) == real:
                found.setdefault(path, []).append(_program(int(pid)))
    return found


def _program(pid: int) -> Program:
    pids: tuple[int, ...] = (pid,)
    command = "?"
    with contextlib.suppress(OSError, ValueError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = one_line(file.read(1000).replace(b"\0", b" ").decode("utf-8", "replace"), 100) or "?"
        with open(f"/proc/{pid}/status", "rb") as file:
            pids = next((tuple(map(int, line.split()[1:])) for line in file if line.startswith(b"NSpid:")), pids)
    return Program(pids, command)


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                entry.stat(follow_symlinks=False)  # which it remembers
                yield entry


def _device(path: str) -> int | None:
    try:
        return os.lstat(path).st_dev
    except FileNotFoundError:
        return None


def _names(paths: list[str]) -> str:
    return ", ".join(map(os.path.basename, paths))
