"""
A copy of this process that becomes one of its own: it starts in milliseconds, and shares what neither of us writes to.

Only a supervisor is forked: it has one thread and runs no foreign code, so nothing in it is half done, and no thread is
missing from the copy that would have let go of something. What the copy must not keep alive - the locks of tasks, the
connection to the host - it closes before anything foreign runs in it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final, NoReturn

from animaworks_tasks.backends.process_tree import Child, end_with_parent

_STDERR: Final = 2


def fork(main: Callable[[], None], *, keep: int) -> Child:
    """
    Start a copy of this process, which calls *main* and exits.

    It is a session of its own, ends with this process, and has the standard descriptors and *keep* open, no other. Its
    signals are those of a new interpreter, but for what this one was started with.

    Raises:
        OSError: There can be no further process.
    """
    # A collection, here or there, would write to all that is shared, and so copy it. What an earlier copy had frozen
    # may be garbage by now.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    here = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # our handlers are not for the copy
    try:
        pid = os.fork()  # the copy closes the locks that we hold, see files.py
        if pid == 0:
            try:
                _live(main, here, keep, mask)
            finally:
                os._exit(1)  # the handler of a signal raised even as it was leaving
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Child(pid)


def _live(main: Callable[[], None], parent: int, keep: int, mask: set[int]) -> NoReturn:
    """Be the copy, to its end: what is further up the stack is the parent's."""
    status = 1
    try:
        os.setsid()
        _close_all_but(keep)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        end_with_parent()
        try:
            if os.getppid() == parent:  # else it died before we had asked to be told, and its task may be another's now
                main()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it would cut short what is left to do, and we are ending
        status = 0
    except SystemExit:
        status = 0
    except BaseException:  # noqa: BLE001 - there is nobody to pass it to
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(status)


def _close_all_but(keep: int) -> None:
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > _STDERR and fd != keep:
            with contextlib.suppress(OSError):  # the one by which they were listed
                os.close(fd)


def _leave(status: int) -> NoReturn:
    """
    Exit as an interpreter does, as far as a tool can rely on it.

    What it gave to :mod:`atexit` is called; with it what the libraries did that were loaded before, such as logging's
    and multiprocessing's, which are the tool's as well. A thread that it left behind would keep the interpreter for
    ever: then nothing is called, and nobody waited for.
    """
    try:
        if not any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does after a fork
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # closed, or a tool's own
                    stream.flush()
    finally:
        os._exit(status)
