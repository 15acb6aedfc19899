"""
What a tool may change of its process, put back for the next one.

``sys.path``, loaded modules and whatever these keep stay: a warm process is there for that.
"""

from __future__ import annotations

import contextlib
import locale
import os
import resource
import signal
import sys
from _signal import getsignal  # type: ignore[import-not-found]  # signal's own makes an enum of each of 64, every time
from typing import Final

from animaworks_tasks.fs import files

_LIMITS: Final = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Home:
    """
    The state of this process before the first call.

    Attributes:
        pid: Its id; a forked child has another.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._cwd = os.getcwd()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._environment = dict(os.environb)  # bytes need not be decoded to be compared
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._handlers = {int(number): getsignal(number) for number in signal.valid_signals()}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._recursion = sys.getrecursionlimit()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._limits = {limit: resource.getrlimit(limit) for limit in _LIMITS}

    def restore(self) -> bool:
        """
        Put it back; and let what is still printed, by threads that were left behind, go nowhere.

        Returns:
            Whether all of it could be; if not, this process is no place for another tool.
        """
        try:
            self._restore_limits()  # first: they may be what keeps the rest from working
            self._restore_signals()
            self._restore_streams()
            sys.setrecursionlimit(self._recursion)
            locale.setlocale(locale.LC_ALL, self._locale)
            self._restore_environment()
        except (OSError, ValueError, MemoryError, RuntimeError, KeyError, locale.Error):
            return False
        os.umask(self._umask)
        with contextlib.suppress(OSError):
            os.chdir(self._cwd)
        return True

    def _restore_environment(self) -> None:
        found = dict(os.environb)
        for name in found.keys() - self._environment.keys():
            del os.environb[name]
        for name, value in self._environment.items():
            if found.get(name) != value:
                os.environb[name] = value

    def _restore_limits(self) -> None:
        for limit, values in self._limits.items():
            if resource.getrlimit(limit) != values:
                resource.setrlimit(limit, values)

    def _restore_signals(self) -> None:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        for number, handler in self._handlers.items():
            if handler is not None and getsignal(number) is not handler:  # None: none of Python's, not ours
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _restore_streams(self) -> None:
        print_to(os.devnull)
        if not _is_open(0):
            os.dup2(1, 0)  # for reading it is as empty as for writing: better that than a tool's next file
        sys.stdin, sys.stdout, sys.stderr = self._streams
        if any(stream is not None and stream.closed for stream in self._streams):
            raise ValueError("a standard stream was closed for good")


def print_to(path: str) -> None:
    """Let the descriptors 1 and 2 be the file *path*, for this process and all that it starts."""
    try:
        fd = files.open_append(path)
    except OSError:  # no room, or none of our own: better no log than no call
        fd = os.open(os.devnull, os.O_RDWR)
    for standard in (1, 2):
        os.dup2(fd, standard)
    if fd not in {1, 2}:
        os.close(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
