"""
A FIFO that wakes an executor at once, and costs nothing while it waits.

Whoever submits or finishes a task writes its id there; who writes nothing is noticed by the next scan. Losing a ring is
never losing a task: the directories are the truth.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from typing import Final

_LINE: Final = 13  # bytes: an id and its line end
_AT_ONCE: Final = 300 * _LINE  # bytes, below PIPE_BUF, so rings never mix
_BUFFER: Final = 1 << 16  # bytes, what a pipe holds


def ring(path: str, *task_ids: str) -> None:
    """Wake whoever waits at the FIFO *path*. Nobody there, no FIFO, or a full one: the scan will see the tasks."""
    fd = _reach(path)
    if fd is None:
        return
    lines = b"".join(task_id.encode("ascii") + b"\n" for task_id in task_ids)
    try:
        for start in range(0, len(lines), _AT_ONCE):
            os.write(fd, lines[start : start + _AT_ONCE])
    except OSError:
        pass  # not contextlib's suppress: submit rings too, and importing contextlib alone would double its time
    finally:
        os.close(fd)


def is_heard(path: str) -> bool:
    """Say whether somebody listens at the FIFO *path* now."""
    fd = _reach(path)
    if fd is not None:
        os.close(fd)
    return fd is not None


def _reach(path: str) -> int | None:
    """Open the FIFO *path* for writing; None if it is none, or nobody reads there (ENXIO)."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


class FifoDoorbell:
    """Listens at the FIFO *path*, made if it is not there; where there can be none, only :meth:`wake` ends a wait."""

    def __init__(self, path: str) -> None:
        import select

        self._awake, self._waker = os.pipe()
        for fd in (self._awake, self._waker):
            os.set_blocking(fd, False)
        self._poll = select.poll()
        self._poll.register(self._awake, select.POLLIN)
        self._fifo = _listen(path)
        if self._fifo is not None:
            self._poll.register(self._fifo, select.POLLIN)
        self._rest = b""

    def wait(self, timeout: float) -> set[str]:
        """Sleep until someone rings, or *timeout* seconds; return the ids that were rung, perhaps none."""
        ready = {fd for fd, _ in self._poll.poll(max(0.0, timeout) * 1000)}
        if self._awake in ready:
            _drain(self._awake)
        if self._fifo is None or self._fifo not in ready:
            return set()
        *lines, self._rest = (self._rest + _drain(self._fifo)).split(b"\n")
        self._rest = self._rest[-_LINE:]
        return {line.decode("ascii", "replace") for line in lines if len(line) == _LINE - 1}

    def wake(self) -> None:
        """End the current or the next :meth:`wait`; from any thread."""
        try:  # noqa: SIM105 - as in ring
            os.write(self._waker, b"!")
        except BlockingIOError:
            pass  # full: it is awake

    def close(self) -> None:
        """Stop listening."""
        for fd in (self._awake, self._waker, self._fifo):
            if fd is not None:
                os.close(fd)


def _listen(path: str) -> int | None:
    try:
        if not os.path.lexists(path):
            os.mkfifo(path, 0o600)
    except FileExistsError:
        pass  # another listener made it just now
    except OSError:
        return None  # a file system without FIFOs: the scan has to do
    try:
        # For reading and writing: a FIFO whose last writer left would be readable for ever.
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _drain(fd: int) -> bytes:
    try:
        return os.read(fd, _BUFFER)
    except BlockingIOError:
        return b""
