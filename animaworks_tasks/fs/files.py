"""
Files: write one durably, sync a directory, read with suspicion. How they appear in a store: ``disk.py``.

Next to nothing but :mod:`os` is imported: ``animaworks-tool submit`` needs no more.
"""

import errno
import os
import stat
import time
from _thread import LockType, allocate_lock

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_uid = os.geteuid()  # of most files, so that it need not be asked for
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 16
_PATIENCE = 1.0  # seconds for which an fsync of a directory waits for another thread that wants it too


class UnreadableFileError(OSError):
    """A file that we will not read: no regular file, not our user's, or too large. *strerror* says which."""


def make_directory(path: str) -> list[str]:
    """Make *path* and what is missing above it; return the directories that have a new entry and are to be synced."""
    above = os.path.dirname(path)
    made = [] if os.path.isdir(above) else make_directory(above)
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        return made
    return [*made, above]


def sync_directory(path: str) -> None:
    """
    Make every entry of the directory *path* durable, additions and removals alike.

    Threads that want this at once share one fsync: the first that begins after they asked is as good as their own. It
    begins when those have come that are :class:`AboutToSync`.
    """
    shared = _shared(path)
    needed = shared.begun + 1
    with shared.lock:
        if shared.ended >= needed:
            return
        for other in tuple(shared.coming):
            if other.acquire(timeout=_PATIENCE):
                other.release()
            shared.coming.discard(other)  # its thread may hang, or may have been interrupted as it entered
        shared.begun = number = shared.begun + 1
        fd = os.open(path, _DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        shared.ended = number


class AboutToSync:
    """
    Says while it is entered that this thread will :func:`sync_directory` *path* as soon as it leaves.

    So threads that finish together wait for one fsync together, instead of each for the one of the thread before it.
    """

    def __init__(self, path: str) -> None:
        self._coming, self._lock = _shared(path).coming, allocate_lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._coming.add(self._lock)

    def __exit__(self, *_: object) -> None:
        self._coming.discard(self._lock)
        self._lock.release()


class _Sync:
    """The fsyncs of a directory: how many began, the last that went well; a lock of each thread that wants one soon."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.begun = self.ended = 0
        self.coming: set[LockType] = set()


def _shared(path: str) -> _Sync:
    return _syncs.get(path) or _syncs.setdefault(path, _Sync())


_syncs: dict[str, _Sync] = {}
os.register_at_fork(after_in_child=_syncs.clear)  # another thread may have been in the middle of one


def write_together(contents: list[tuple[str, bytes]]) -> None:
    """Write several new files, durably, and wait for the disk once they are all under way."""
    fds = []
    try:
        for path, data in contents:
            fds.append(os.open(path, _CREATE, FILE_MODE))
            write_all(fds[-1], data)
        for fd in fds:
            _begin_to_write_back(fd)
        for fd in fds:
            os.fsync(fd)
    finally:
        for fd in fds:
            os.close(fd)


def _begin_to_write_back(fd: int) -> None:
    """Let the disk begin with what an fsync will wait for, where the kernel can be told (Linux, posix_fadvise(2))."""
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except (AttributeError, OSError):
        return


def discard(path: str) -> bool:
    """Unlink *path*; False where it was not there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def clear(path: str) -> bool:
    """Unlink *path*, or, where a directory stands in the place of a file of ours, remove that; False for neither."""
    try:
        return discard(path)
    except (IsADirectoryError, PermissionError):  # EPERM: what POSIX says where Linux says EISDIR
        if not os.path.isdir(path) or os.path.islink(path):
            raise
    import shutil

    shutil.rmtree(path)
    return True


def open_append(path: str) -> int:
    """
    Open *path* for appending, made if it is not there; the caller closes the descriptor.

    Raises:
        UnreadableFileError: It is no regular file: nobody may be reading the FIFO, and who writes to it would wait.
    """
    fd = os.open(path, _APPEND, FILE_MODE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnreadableFileError(errno.EINVAL, _NOT_REGULAR, path)
    os.set_blocking(fd, True)  # for the tools that inherit it
    return fd


def append(path: str, lines: bytes) -> None:
    """Add *lines* to *path* in one write, so that those of several processes do not mix; as :func:`open_append`."""
    fd = open_append(path)
    try:
        os.write(fd, lines)
    finally:
        os.close(fd)


def touch(path: str) -> None:
    """Make an empty file; what exists there stays, whatever it is."""
    try:
        os.close(os.open(path, _CREATE, FILE_MODE))
    except FileExistsError:
        return


def read(path: str, *, limit: int, newest: bool = False) -> bytes:
    """
    Return what the regular file *path* of our own user holds.

    Args:
        path: The file.
        limit: At most so many bytes.
        newest: Whether of a larger file the end is returned; else it is refused.

    Raises:
        FileNotFoundError: There is none.
        UnreadableFileError: A link, a FIFO, a device, a directory, somebody else's, or more than *limit* bytes.
    """
    fd = open_file(path)
    try:
        return read_descriptor(fd, path, limit=limit, newest=newest)
    finally:
        os.close(fd)


def open_file(path: str, *, writing: bool = False) -> int:
    """
    Open *path* with suspicion, also for *writing* where it may be written; the caller closes the descriptor.

    Errors as for :func:`read`.

    What is open may still be no file of ours: reading says so.
    """
    try:
        return os.open(path, (_READ & ~os.O_ACCMODE) | os.O_RDWR if writing else _READ)
    except OSError as error:
        if writing and isinstance(error, PermissionError):  # its writer may have let nobody change it
            return open_file(path)
        if error.errno in _UNREADABLE:
            raise UnreadableFileError(error.errno, _UNREADABLE[error.errno], path) from None
        raise


def read_descriptor(
    fd: int, path: str, *, limit: int, newest: bool = False, status: os.stat_result | None = None
) -> bytes:
    """Return what the file that is open as *fd* holds; as :func:`read`. *status* is that of *fd*, where it is known."""
    status = status or os.fstat(fd)
    problem = _suspicion(status, status.st_size if newest else limit)
    if problem:
        raise UnreadableFileError(errno.EINVAL, problem, path)
    start = max(0, status.st_size - limit) if newest else 0
    data = bytearray()
    while len(data) <= limit and (more := os.pread(fd, _CHUNK, start + len(data))):
        data += more
        if len(more) < _CHUNK:  # of a regular file it is the end
            break
    if len(data) > limit:  # it grew while we read
        if not newest:
            raise UnreadableFileError(errno.EFBIG, f"it is larger than {limit} bytes", path)
        del data[:-limit]
    return bytes(data)


_NOT_REGULAR = "it is not a regular file"
_UNREADABLE = {
    errno.ELOOP: "it is a symbolic link",
    errno.ENXIO: "it is a socket or a device that does not answer",
    errno.EISDIR: _NOT_REGULAR,
    errno.EACCES: "it may not be read",
    errno.EPERM: "it may not be read",
}


def _suspicion(status: os.stat_result, limit: int) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return _NOT_REGULAR
    if status.st_uid != _uid and status.st_uid != os.geteuid():
        return f"it belongs to another user (uid {status.st_uid})"
    if status.st_size > limit:
        return f"it is larger than {limit} bytes"
    return None


def names(directory: str) -> list[str]:
    """Return the names in *directory*; none where it is not there."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def age(path: str) -> float:
    """Return how many seconds ago *path* was written; less than 0 where it is not there."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except FileNotFoundError:
        return -1.0


def file_time(at: float) -> int:
    """Return Unix seconds as the nanoseconds that a file has as its time."""
    return round(at * 1e9)


def write(path: str, data: bytes, *, sync: bool, at: float | None = None) -> None:
    """
    Write the new file *path*.

    Args:
        path: What exists there is refused.
        data: All of it.
        sync: Make its bytes durable; its name is its directory's.
        at: Unix seconds that the file has as its time; None for now.
    """
    fd = os.open(path, _CREATE, FILE_MODE)
    try:
        write_all(fd, data)
        if at is not None:
            os.utime(fd, ns=(file_time(at), file_time(at)))
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of *data* to *fd*: a disk that is nearly full may take a part of it at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
