"""
Restores what a tool may have changed of its process, for the next tool, and checks what that needs besides.

``sys.path`` and loaded modules with their data stay: this is what a warm process is for.
"""

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
_NEEDED: Final = ("builtins", "io", "os", "posix", "signal", "time")  # modules; what can be called in them has to stay
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class ProcessState:
    """
    A snapshot of the state of this process, taken before the first call.

    Attributes:
        pid: Id of the process; a forked child has another.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._cwd = os.getcwd()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._environment = dict(os.environb)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._handlers = {int(number): getsignal(number) for number in signal.valid_signals()}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._recursion = sys.getrecursionlimit()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._limits = {limit: resource.getrlimit(limit) for limit in _LIMITS}
        self._modules = dict(sys.modules)
        self._needed = {
            name: {key: value for key, value in vars(sys.modules[name]).items() if callable(value)} for name in _NEEDED
        }
        self._namespaces = {name: vars(sys.modules[name]) for name in _NEEDED}

    def restore(self) -> str | None:
        """
        Restore the state. What the tool's remaining threads still print is discarded.

        Returns:
            Why no other tool must run in this process: what was not restored, or what is missing; None if one may.
        """
        damage = self._repair()  # first: what follows needs the builtins too
        try:
            for limit, values in self._limits.items():  # first: the rest may fail because of them
                if resource.getrlimit(limit) != values:
                    resource.setrlimit(limit, values)
            self._restore_signals()
            self._restore_streams()
            sys.setrecursionlimit(self._recursion)
            locale.setlocale(locale.LC_ALL, self._locale)
            os.environb.clear()
            os.environb.update(self._environment)
        except (OSError, ValueError, MemoryError, RuntimeError, KeyError, locale.Error) as error:
            return f"its state was not restored: {error}"
        os.umask(self._umask)
        with contextlib.suppress(OSError):
            os.chdir(self._cwd)
        return damage

    def _repair(self) -> str | None:
        """Put back what can be called, so that the report gets out; return what of it, or what module, was changed."""
        damage = None
        for name, known in self._needed.items():
            now = self._namespaces[name]
            if not known.items() <= now.items():
                changed = [key for key, value in known.items() if now.get(key) is not value]
                now.update(known)
                damage = damage or f"{name}.{changed[0]} was changed"
        if not self._modules.items() <= sys.modules.items():
            damage = damage or "loaded modules were removed from sys.modules, or replaced"
        return damage

    def _restore_signals(self) -> None:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        for number, handler in self._handlers.items():
            if handler is not None and getsignal(number) is not handler:  # None: set by C code, not by Python
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _restore_streams(self) -> None:
        print_to(os.devnull)
        try:
            os.fstat(0)
        except OSError:
            os.dup2(1, 0)  # /dev/null; or else the next file that a tool opens would be its stdin
        sys.stdin, sys.stdout, sys.stderr = self._streams
        if any(stream is not None and stream.closed for stream in self._streams):
            raise ValueError("a standard stream was closed for good")


def print_to(path: str) -> None:
    """Redirect the descriptors 1 and 2 to the file *path*, for this process and all that it starts."""
    try:
        fd = files.open_append(path)
    except OSError:  # the disk is full, say: the call is made without a log
        fd = os.open(os.devnull, os.O_RDWR)
    for standard in (1, 2):
        os.dup2(fd, standard)
    if fd not in {1, 2}:
        os.close(fd)
