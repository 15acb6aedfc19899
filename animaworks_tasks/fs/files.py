"""
The only place that puts bytes on disk: publish a file whole, sync a directory, read with suspicion.

A *published* file is whole or absent under its final name, and an existing name is never replaced. With ``sync`` it
survives a power cut once :func:`publish` has returned. Why link and unlink rather than rename: in the POSIX minimum a
rename across directories can lose the new name and keep the removal.

Next to nothing but :mod:`os` is imported: ``animaworks-tool submit`` needs no more.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from _thread import allocate_lock

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 16
_SYNCED_AT_ONCE = 4  # threads; measured: with all their files written before, more gain nothing
_OPEN_AT_ONCE = 32  # files, by each of these; the first fsync of them does most of the work of all, so fewer cost more
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class UnreadableFileError(OSError):
    """A file that we will not read: no regular file, not our user's, or too large. *strerror* says which."""


def make_directory(path: str) -> list[str]:
    """Make *path* and what is missing above it; return the directories that have a new entry and are to be synced."""
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        return []
    except FileNotFoundError:
        above = os.path.dirname(path)
        made = make_directory(above)
        try:
            os.mkdir(path, DIRECTORY_MODE)  # refused again where there can be none: in /proc, below a link to nothing
        except FileExistsError:
            return made
        return [*made, above]
    return [os.path.dirname(path)]


def sync_directory(path: str) -> None:
    """
    Make every entry of the directory *path* durable, additions and removals alike.

    Threads that want this at once share one fsync: the first that begins after they asked is as good as their own.
    """
    shared = _syncs.get(path) or _syncs.setdefault(path, _Sync())
    needed = shared.begun + 1
    with shared.lock:
        if shared.ended >= needed:
            return
        shared.begun = number = shared.begun + 1
        fd = os.open(path, _DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        shared.ended = number


def sync(path: str) -> None:
    """Make durable what the file *path* holds; its name is its directory's."""
    fd = os.open(path, _READ)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Sync:
    """Counts the fsyncs of a directory: how many have begun, and the last one that went well."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.begun = self.ended = 0


_syncs: dict[str, _Sync] = {}
os.register_at_fork(after_in_child=_syncs.clear)  # another thread may have been in the middle of one


def publish(  # noqa: PLR0913 - what there is to say of a file
    directory: str,
    name: str,
    data: bytes,
    *,
    tmp: str,
    sync: bool,
    view: str | None = None,
    at: float | None = None,
    meanwhile: Callable[[], None] | None = None,
    appeared: Callable[[], None] | None = None,
) -> bool:
    """
    Make *data* appear whole as *directory*/*name*; an existing name is never replaced.

    Args:
        directory: Where it appears, on the same file system as *tmp*.
        name: Its final name.
        data: All of it.
        tmp: A directory for files being written.
        sync: Survive a power cut once this has returned.
        view: A path that becomes, or stays, another name of the same bytes; needs no fsync. None for none.
        at: Unix seconds that the file has as its time; None for now.
        meanwhile: Called while the disk takes the bytes, before they are waited for; if it raises, nothing appears.
        appeared: Called once it stands there whole, before its name is durable: who is told of it then can begin.

    Returns:
        Whether it was published now; False: the name was taken, and what has it is durable now (with *sync*).

    Raises:
        OSError: It was not published: no space, no permission. Nothing is left under the final name, unless it was
            the directory that could not be synced: then the name may stand, and a further try makes it durable.
    """
    draft = _draft(tmp, name)
    shown = False
    try:
        _write(draft, data, sync=sync, at=at, meanwhile=meanwhile)
        published = link(draft, f"{directory}/{name}")
        if appeared is not None and published:
            appeared()
        if sync:
            sync_directory(directory)  # also where the name was taken: the earlier link need not be durable yet
        if view is not None and published:
            shown = _rename(draft, view)
    finally:
        if not shown:
            discard(draft)
    return published


def publish_many(
    directory: str, files: Iterable[tuple[str, bytes]], *, tmp: str, sync: bool
) -> tuple[list[str], OSError | None]:
    """
    Publish several new files together: their fsyncs overlap, and the directory is synced once for all.

    Args:
        directory: Where they appear, on the same file system as *tmp*.
        files: Their names and what they hold; made while the first are being written, so it may take its time.
        tmp: A directory for files being written.
        sync: Survive a power cut once this has returned.

    Returns:
        The names that were free and have their files now, and what the disk said where it did not take all of them;
        those that are named are whole all the same, though perhaps not durable then.

    Raises:
        OSError: Nothing was published, as with whatever *files* itself raises.
    """
    drafts: dict[str, str] = {}
    published: list[str] = []

    def drafted() -> Iterator[tuple[str, bytes]]:
        for name, data in files:
            drafts[name] = _draft(tmp, name)
            yield drafts[name], data

    try:
        _write_all(drafted(), sync=sync)
        try:
            for name, draft in drafts.items():
                if link(draft, f"{directory}/{name}"):
                    published.append(name)
        finally:
            if sync:
                sync_directory(directory)
    except OSError as error:
        if not published:
            raise
        return published, error
    finally:
        for draft in drafts.values():
            discard(draft)
    return published, None


def _write_all(files: Iterator[tuple[str, bytes]], *, sync: bool) -> None:
    if not sync:
        for path, data in files:
            _write(path, data, sync=False)
        return
    from concurrent.futures import ThreadPoolExecutor
    from itertools import islice

    mutex = allocate_lock()
    failed = False

    def write_some() -> None:
        nonlocal failed
        while not failed:
            with mutex:
                some = list(islice(files, _OPEN_AT_ONCE))
            if not some:
                return
            try:
                _write_some(some)
            except BaseException:
                failed = True  # the others need not write what will not be published
                raise

    # One after the other, each would wait for the disk; together they wait for it a few times.
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        for done in [pool.submit(write_some) for _ in range(_SYNCED_AT_ONCE)]:
            done.result()


def _write_some(files: list[tuple[str, bytes]]) -> None:
    fds = []
    try:
        for path, data in files:
            fds.append(os.open(path, _CREATE, FILE_MODE))
            _write_to(fds[-1], data)
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


def link(source: str, target: str) -> bool:
    """Give *source* the further name *target*; False where that name is taken. Renames where links are refused."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):  # the caller holds the task's lock, so nobody comes between
            return False
        os.rename(source, target)
    return True


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


def replace(path: str, data: bytes, *, tmp: str) -> None:
    """Make *data* the content of *path* at once, for what may be lost in a power cut: progress, the catalogue."""
    draft = _draft(tmp, os.path.basename(path))
    try:
        _write(draft, data, sync=False)
        os.rename(draft, path)
    finally:
        discard(draft)


def show(source: str, view: str, *, tmp: str) -> None:
    """Make *view* another name of *source*, whatever it named before; a courtesy, as in :func:`publish`."""
    draft = _draft(tmp, os.path.basename(view))
    try:
        os.link(source, draft, follow_symlinks=False)
    except OSError:
        return
    _rename(draft, view)
    discard(draft)  # it was refused; or else a rename between two names of one file does nothing


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
    """Add *lines* to *path* in one write, so that those of several processes do not mix; never waits for a reader."""
    fd = os.open(path, _APPEND, FILE_MODE)
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
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM}:
            raise UnreadableFileError(error.errno, _UNREADABLE.get(error.errno, "it may not be read"), path) from None
        raise
    try:
        status = os.fstat(fd)
        problem = _suspicion(status, status.st_size if newest else limit)
        if problem:
            raise UnreadableFileError(errno.EINVAL, problem, path)
        if newest:
            os.lseek(fd, max(0, status.st_size - limit), os.SEEK_SET)
        data = bytearray()
        while len(data) <= limit and (more := os.read(fd, _CHUNK)):
            data += more
            if len(more) < _CHUNK:  # of a regular file it is the end
                break
    finally:
        os.close(fd)
    if len(data) > limit:  # it grew while we read
        if not newest:
            raise UnreadableFileError(errno.EFBIG, f"it is larger than {limit} bytes", path)
        del data[:-limit]
    return bytes(data)


_NOT_REGULAR = "it is not a regular file"
_UNREADABLE = {errno.ELOOP: "it is a symbolic link", errno.ENXIO: "it is a socket or a device that does not answer"}


def _suspicion(status: os.stat_result, limit: int) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return _NOT_REGULAR
    if status.st_uid != os.geteuid():
        return f"it belongs to another user (uid {status.st_uid})"
    if status.st_size > limit:
        return f"it is larger than {limit} bytes"
    return None


def names(directory: str) -> list[str]:
    """Return the names in *directory*; none where it is not there."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries]
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


def _write(
    path: str, data: bytes, *, sync: bool, at: float | None = None, meanwhile: Callable[[], None] | None = None
) -> None:
    fd = os.open(path, _CREATE, FILE_MODE)
    try:
        _write_to(fd, data)
        if at is not None:
            os.utime(fd, ns=(file_time(at), file_time(at)))
        if meanwhile is not None:
            if sync:
                _begin_to_write_back(fd)
            meanwhile()
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _write_to(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _draft(tmp: str, name: str) -> str:
    """Return a path in *tmp* that nobody else has."""
    return f"{tmp}/{name}.{os.getpid()}.{os.urandom(4).hex()}"


def _rename(draft: str, view: str) -> bool:
    """Give *view* the bytes of *draft*. A view is a courtesy: that it cannot be made costs nobody a task."""
    try:
        os.rename(draft, view)
    except OSError:
        return False
    return True
