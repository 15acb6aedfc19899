"""
A lock on a file, which dies with its process: a held lock is proof of life, a free one of death.

The lock is filelock's, on a descriptor of ours: filelock's own class takes ten times as long to do the same. A forked
child does not keep it alive. Whoever lets go unlinks the file while still holding it, so no file is left, and who had
waited on the old file finds it without a name.
"""

from __future__ import annotations

import errno
import os
import time

from animaworks_tasks.fs.files import FILE_MODE, discard

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Lock:
    """
    A lock file that this process holds, until it lets go or dies.

    Attributes:
        path: The lock file.
        is_held: Whether it is held still, by this process.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path, self.is_held, self._fd = path, True, fd
        _held.add(self)

    def fileno(self) -> int:
        """Return the descriptor it is held by."""
        return self._fd

    def release(self) -> None:
        """Let go, if that was not done before; the file stays."""
        if self.is_held:
            from filelock import unlock_descriptor

            self.is_held = False
            try:
                unlock_descriptor(self._fd)  # closing it would not do, if we are forked just now
            finally:
                self.leave()

    def leave(self) -> None:
        """Close it, and leave the lock to who else has it open: the parent of this process."""
        self.is_held = False
        _held.discard(self)
        os.close(self._fd)


_held: set[Lock] = set()
_forks: list[None] = []  # one for each time that this process was forked


def hold(path: str) -> Lock | None:
    """
    Take the lock file *path*, made if it is not there, without waiting; None where another holds it.

    Raises:
        OSError: There is no lock to be had: a link or a directory is in its place, or the file system has none.
    """
    from filelock import lock_descriptor

    while True:
        forks = len(_forks)
        lock = Lock(path, os.open(path, _OPEN, FILE_MODE))
        try:
            # Forked in between, a child has it open that knows nothing of it, and would keep it alive.
            if forks == len(_forks):
                if not lock_descriptor(lock.fileno(), blocking=False):
                    lock.leave()
                    return None
                if os.fstat(lock.fileno()).st_nlink:
                    return lock
                # Its last holder had just unlinked it, so it keeps nobody out.
        except BaseException:
            lock.leave()
            raise
        lock.release()


def _forked() -> None:
    for lock in list(_held):
        lock.leave()


os.register_at_fork(before=lambda: _forks.append(None), after_in_child=_forked)


def is_held(path: str) -> bool:
    """Say whether a process holds the lock file *path*; what is not there nobody does. Errors as for :func:`hold`."""
    if not os.path.lexists(path):
        return False
    lock = hold(path)
    if lock is not None:
        lock.release()
    return lock is None


def drop(lock: Lock) -> None:
    """Unlink the lock file while it is still held, then let go: who waits on the old file finds it without a name."""
    try:
        discard(lock.path)
    except OSError:
        pass  # a sweep takes it away; what the lock was held for is done, and must not be taken for undone
    finally:
        lock.release()


class Holding:
    """Takes a lock for the length of a ``with`` block; *lock* is None where another has it. Letting go unlinks it."""

    def __init__(self, path: str, patience: float = 0.0) -> None:
        self._path, self._patience = path, patience
        self.lock: Lock | None = None
        self._kept = False

    def __enter__(self) -> Holding:  # noqa: PYI034 - Self would have to be imported
        deadline = time.monotonic() + self._patience
        self.lock = hold(self._path)
        while self.lock is None and time.monotonic() < deadline:
            time.sleep(0.001)
            self.lock = hold(self._path)
        return self

    def keep(self) -> Lock | None:
        """Go on holding it after the block."""
        self._kept = True
        return self.lock

    def __exit__(self, *_: object) -> None:
        if self.lock is not None and not self._kept:
            drop(self.lock)


def lock_trouble(directory: str) -> str | None:
    """Say why locks are not to be relied on in *directory*: they keep nobody out, or there are none."""
    path = os.path.join(directory, f"probe.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with Holding(path) as first, Holding(path) as second:
            if first.lock is None or second.lock is not None:
                return "locks do not work on its file system"
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}:
            raise
        return f"its file system has no locks ({error.strerror})"
    return None
