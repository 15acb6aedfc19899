"""
What changes in some directories, as the kernel reports it, for a thread that waits.

Reported are names that were created (a hard link too), moved in, or closed after writing. A close is reported when the
last copy of the descriptor is closed, in whatever process, under the directory and name by which the file was opened,
also after that name is gone: so the death of a process that has a record open for writing is seen.
The kernel reports a close just before it frees the file's lock, so a lock that is still held then is worth a second
look soon after.

All watches of a process share one inotify instance, because a user has 128 of them by default. No thread belongs to
it: each waiter polls the instance and a pipe of its own, and the first to wake up hands every change to all that it
concerns. A forked child shares nothing with its parent.

Needs Linux. Elsewhere, or when the kernel refuses, :attr:`Watch.problem` says why, and a wait only sleeps.
"""

import contextlib
import errno
import os
import select
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

# <linux/inotify.h>. Without IN_EXCL_UNLINK: a claimed record loses the name that it was opened by before it is closed.
_CREATE, _MOVED_TO, _CLOSE_WRITE, _ONLYDIR = 0x100, 0x80, 0x8, 0x01000000
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _IGNORED, _Q_OVERFLOW = 0x400, 0x800, 0x2000, 0x8000, 0x4000
_ASKED_FOR: Final = _CREATE | _MOVED_TO | _CLOSE_WRITE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_ENDED: Final = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED
_HEADER: Final = struct.Struct("iIII")  # watch descriptor, mask, cookie, length of the name with its padding

_MOST_NAMES: Final = 10_000  # kept while nobody waits; a look at everything is cheaper than more
_AT_ONCE: Final = 1 << 16  # bytes of events that are read in one call
_LONGEST_POLL: Final = 3600.0  # seconds; poll takes milliseconds as a C int

_REASONS: Final = {
    errno.EMFILE: "this user's inotify instances or this process's open files are used up;"
    " raise fs.inotify.max_user_instances or the limit of open files (ulimit -n)",
    errno.ENOSPC: "this user's inotify watches are used up; raise fs.inotify.max_user_watches",
    errno.ENOSYS: "this system has no inotify; changes are seen at the regular looks only",
    errno.ENOENT: "it does not exist; it is watched once it is made",
}


class Changes(NamedTuple):
    """
    What changed since the wait before.

    Attributes:
        names: Directory (spelled as it was given) and file name of each change. The name may be gone by now.
        incomplete: Whether changes may be missing in *names*: refresh the watch and look at everything.
    """

    names: frozenset[tuple[str, str]]
    incomplete: bool


class Watch:
    """
    Watches directories for one waiting thread; that the kernel cannot watch is a *problem* and never an error.

    A regular look is needed all the same: nothing is reported of what other machines do on a network file system,
    nor of a directory between its removal and the next :meth:`refresh`.

    Args:
        directories: Paths; one that does not exist is watched from the first refresh after it was made.

    Attributes:
        problem: As of the last refresh, why one is not watched and what an administrator may do. None: all are watched.

    Raises:
        OSError: The process has no descriptors left for the pipe that :meth:`wake` needs.
    """

    problem: str | None

    def __init__(self, directories: Sequence[str]) -> None:
        self._watched: dict[str, int | None] = dict.fromkeys(directories)  # directory to watch descriptor
        self._names: set[tuple[str, str]] = set()
        self._incomplete = self._waits = self._is_set = self._written = self._closed = False
        self._fd, self._writer = os.pipe()  # can be read while there is something
        os.set_blocking(self._fd, False)
        with _inotify.mutex:
            _inotify.watches.add(self)
            self._watch_all()

    def wait(self, timeout: float) -> Changes:
        """
        Sleep until something changed or another thread calls :meth:`wake`; return what changed, perhaps nothing.

        Args:
            timeout: Longest sleep in seconds. 0 looks once, infinity sets no limit.

        Raises:
            ValueError: The watch was closed before, or was made before this process was forked.
        """
        deadline = time.monotonic() + timeout
        with _inotify.mutex:
            self._waits = not self._closed
        if not self._waits:
            raise ValueError("this watch is closed (in a forked child: make a new one)")
        try:
            while True:
                rest = max(0.0, deadline - time.monotonic())
                if not self._is_set:
                    self._sleep(min(rest, _LONGEST_POLL))
                with _inotify.mutex:
                    _inotify.distribute(self)
                    if self._is_set or not rest:
                        return self._take()
        finally:
            with _inotify.mutex:
                self._waits = False
                if self._closed:
                    self.end()

    def refresh(self) -> None:
        """
        Watch again what was removed and made again under its path, and what could not be watched before.

        If that changes anything, the next wait returns at once and says incomplete. Before a look at everything, so
        that a change in between is seen twice, and not never. One system call per directory; none after :meth:`close`.
        """
        with _inotify.mutex:
            if not self._closed and self._watch_all():
                self.miss()

    def wake(self) -> None:
        """End the current or the next wait. Any thread may call it, also after :meth:`close`."""
        with _inotify.mutex:
            if not self._written and not self._closed:
                self._is_set = self._written = True
                os.write(self._writer, b"!")

    def close(self) -> None:
        """Watch no more, and end a wait that is going on. A second call does nothing."""
        with _inotify.mutex:
            if not self._closed:
                _inotify.forget(self)
                self.wake()
                self.end()

    # From here on: under the mutex.

    def add(self, directory: str, name: str, *, awake: bool) -> None:
        """Keep a change; too many become one *incomplete*. Who is *awake*, and looks next, is not woken."""
        self._names.add((directory, name))
        if len(self._names) > _MOST_NAMES:
            self.miss()
        if awake:
            self._is_set = True
        else:
            self.wake()

    def miss(self) -> None:
        """Keep that changes may be missing, which makes the names needless."""
        self._names.clear()
        self._incomplete = True
        self.wake()

    def end(self, *, forked: bool = False) -> None:
        """Take nothing more. The descriptors are closed by the thread that waits, if this process has one."""
        self._closed = True
        if forked or not self._waits:
            os.close(self._fd)
            os.close(self._writer)

    def _take(self) -> Changes:
        """Return what there is, and forget it."""
        changes = Changes(frozenset(self._names), self._incomplete)
        self._names.clear()
        self._incomplete = self._is_set = False
        if self._written and not self._closed:
            self._written = False  # first: the next wait sees a signal handler that calls wake() just now
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 512)
        return changes

    def _sleep(self, timeout: float) -> None:
        # Another waiter may read our event before this poll begins: it writes to our pipe, and the poll ends at once.
        poll = select.poll()
        for fd in (self._fd, _inotify.fd):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        poll.poll(timeout * 1000)

    def _watch_all(self) -> bool:
        """Watch what is at each path now; return whether one is another directory than before."""
        before, problems = dict(self._watched), []
        for directory, old in before.items():
            try:
                self._watched[directory] = _inotify.add(self, directory)
            except OSError as error:
                self._watched[directory] = None
                problems.append(f"cannot watch {directory}: {_REASONS.get(error.errno or 0, error.strerror)}")
            if old is not None and old != self._watched[directory]:
                _inotify.remove(self, directory, old)
        self.problem = problems[0] if problems else None
        return before != self._watched


class _Inotify:
    """The inotify instance of this process, and whom each watch descriptor concerns. To be used under the mutex."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()  # re-entrant, since a signal handler may call wake()
        self.fd: int | None = None
        self.watches: set[Watch] = set()
        self._concerned: dict[int, set[tuple[Watch, str]]] = {}

    def add(self, watch: Watch, directory: str) -> int:
        """Watch *directory*; return its watch descriptor, which is one per directory, by whatever path."""
        if self.fd is None:
            self.fd = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        wd = _call("inotify_add_watch", self.fd, os.fsencode(directory), _ASKED_FOR)
        self._concerned.setdefault(wd, set()).add((watch, directory))
        return wd

    def remove(self, watch: Watch, directory: str, wd: int) -> None:
        """Watch *directory* no more for *watch*; others may."""
        concerned = self._concerned.get(wd, set())
        concerned.discard((watch, directory))
        if not concerned:
            self._end(wd)

    def forget(self, watch: Watch) -> None:
        """Watch nothing more for *watch*; the last one closes the instance."""
        self.watches.discard(watch)
        for wd, concerned in list(self._concerned.items()):
            for directory in [directory for other, directory in concerned if other is watch]:
                self.remove(watch, directory, wd)
        if not self.watches and self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def distribute(self, mine: Watch) -> None:
        """Read the events that there are, and give each to the watches that it concerns; *mine* is looked at next."""
        for wd, mask, name in self._read():
            if mask & _Q_OVERFLOW:
                for watch in self.watches:
                    watch.miss()
            elif mask & _ENDED:
                for watch, _ in self._end(wd):
                    watch.miss()
            else:
                for watch, directory in self._concerned.get(wd, ()):
                    watch.add(directory, name, awake=watch is mine)

    def start_again_in_child(self) -> None:
        """Close the copies of the parent's descriptors, so that no event and no wake-up is taken from it."""
        for watch in self.watches:
            watch.end(forked=True)
        if self.fd is not None:
            os.close(self.fd)
        _Inotify.__init__(self)

    def _end(self, wd: int) -> set[tuple[Watch, str]]:
        """Watch *wd* no more, and return whom it concerned."""
        if self.fd is not None:
            with contextlib.suppress(OSError):  # a removed directory has ended by itself, one that was moved has not
                _call("inotify_rm_watch", self.fd, wd)
        return self._concerned.pop(wd, set())

    def _read(self) -> Iterator[tuple[int, int, str]]:
        """Yield watch descriptor, mask and name of the events that there are now."""
        if self.fd is None:
            return
        more = True
        while more:
            try:
                events, start = os.read(self.fd, _AT_ONCE), 0
            except BlockingIOError:
                return
            while start < len(events):
                wd, mask, _, length = _HEADER.unpack_from(events, start)
                start += _HEADER.size + length
                yield wd, mask, os.fsdecode(events[start - length : start].rstrip(b"\0"))
            more = len(events) > _AT_ONCE // 2  # or else that was all, most likely; a wait would return at once


def _call(function: str, *arguments: int | bytes) -> int:
    """Call a function of the C library and return its result, or raise the OSError that it reports."""
    try:
        import ctypes

        result: int = getattr(_libc(), function)(*arguments)
    except (ImportError, AttributeError) as error:
        raise OSError(errno.ENOSYS, f"the C library has no {function}") from error
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _libc() -> Any:  # noqa: ANN401 - ctypes is loaded only where something is watched
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


_inotify: Final = _Inotify()

# A fork waits for the mutex, so that a child never begins in the middle of a change. Looked up each time: the child
# has another mutex than its parent.
os.register_at_fork(
    before=lambda: _inotify.mutex.acquire(),  # noqa: PLW0108 - see above
    after_in_parent=lambda: _inotify.mutex.release(),  # noqa: PLW0108 - see above
    after_in_child=_inotify.start_again_in_child,
)
