"""
Locks that die with their holders: a held lock is proof of life, a free one of death.

A task's record is its own lock: the file itself is locked, not one beside it, so no lock file is ever made. The lock
belongs to the open file: a copy of its descriptor in another process, which was sent there, holds it as well; a forked
child closes its copy at once. Locks of directories are short; nobody is sent their descriptors.

The lock of a file is taken by filelock, on a descriptor of ours. That of a directory is flock's own: filelock has no
shared one. Both are flock(2), and released alike.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from animaworks_tasks.fs import files

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Lock:
    """
    A file that this process has open and locked, until it releases it or dies.

    Attributes:
        is_held: Whether it is held still, by this process.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.is_held, self._fd, self._path = True, fd, path
        self._status = os.fstat(fd)  # of which only what names the file stays true
        _held.add(self)

    def fileno(self) -> int:
        """Return the descriptor it is held by; a copy of it, in whatever process, holds the lock too."""
        return self._fd

    def names(self, path: str) -> bool:
        """Return whether *path* is a name of the locked file."""
        return is_named(path, self._status)

    def link(self, path: str) -> None:
        """
        Give the locked file the further name *path*: this very file, whatever has its other name by now.

        Raises:
            FileExistsError: Something has that name.
            FileNotFoundError: The file has lost all its names.
        """
        try:  # linkat(2), by way of /proc; a directory's descriptor is of no account beside an absolute path
            os.link(f"/proc/self/fd/{self._fd}", path, src_dir_fd=self._fd, follow_symlinks=True)
        except FileNotFoundError:
            if os.path.exists(f"/proc/self/fd/{self._fd}"):
                raise
            os.link(self._path, path, follow_symlinks=False)  # there is no /proc, and a plain writer may come between
            if not self.names(path):
                os.unlink(path)
                raise

    def read(self, *, limit: int) -> bytes:
        """Return what the locked file holds; as :func:`.files.read`."""
        return files.read_descriptor(self._fd, self._path, limit=limit, status=self._status)

    def still_holds(self, data: bytes) -> bool:
        """Return whether the locked file holds *data* and nothing else."""
        return os.pread(self._fd, len(data) + 1, 0) == data

    def release(self) -> None:
        """Let go, if that was not done before, also for those who have copies."""
        if self.is_held:
            self.is_held = False
            try:
                fcntl.flock(self._fd, fcntl.LOCK_UN)  # closing it would not do, if we are forked just now
            finally:
                self.leave()

    def leave(self) -> None:
        """Close it, and leave the lock to who else has it open: the parent of this process."""
        self.is_held = False
        _held.discard(self)
        os.close(self._fd)


def is_named(path: str, status: os.stat_result) -> bool:
    """Return whether *path* is a name of the file of that *status*."""
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False


_held: set[Lock] = set()
_forks: list[None] = []  # one for each time that this process was forked


def hold(path: str, *, writing: bool = False) -> Lock | None:
    """
    Lock the file *path* without waiting; None where another holds it.

    Args:
        path: The file; it has to be there.
        writing: Open it for writing: the close of the last copy is then an event for those who watch its directory.

    Raises:
        FileNotFoundError: It is not there.
        UnreadableFileError: It is no file that can be locked: a link, a directory, one that may not be opened.
        OSError: The file system has no locks.
    """
    from filelock import lock_descriptor

    while True:
        forks = len(_forks)
        lock = Lock(files.open_file(path, writing=writing), path)
        try:
            # Forked in between, a child has it open that knows nothing of it, and would keep it alive.
            if forks == len(_forks):
                if lock_descriptor(lock.fileno(), blocking=False):
                    return lock
                lock.leave()
                return None
        except BaseException:
            lock.leave()
            raise
        lock.release()


def _forked() -> None:
    for lock in list(_held):
        lock.leave()


os.register_at_fork(before=lambda: _forks.append(None), after_in_child=_forked)


@contextlib.contextmanager
def directory(path: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of the directory *path* itself, and wait for it: who has it takes milliseconds."""
    lock = _flock(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        lock.release()  # nothing is left to do in a child that was forked meanwhile


def hold_directory(path: str, *, shared: bool = False) -> Lock | None:
    """Lock the directory *path* itself without waiting; None where another holds it."""
    with contextlib.suppress(BlockingIOError):
        return _flock(path, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    return None


def _flock(path: str, operation: int) -> Lock:
    lock = Lock(os.open(path, _DIRECTORY), path)
    try:
        fcntl.flock(lock.fileno(), operation)
    except BaseException:
        lock.leave()
        raise
    return lock


def lock_trouble(path: str) -> str | None:
    """Return why locks of the file *path*, which nobody else has, are not to be relied on; None where they are."""
    try:
        first, second = hold(path), hold(path)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}:
            raise
        return f"its file system has no locks ({error.strerror})"
    for lock in (first, second):
        if lock is not None:
            lock.release()
    return "locks do not work on its file system" if first is None or second is not None else None
