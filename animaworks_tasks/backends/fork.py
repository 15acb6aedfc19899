"""
Forks this process: the copy starts in milliseconds and shares the memory that neither process writes to.

Only a supervisor is forked: it has one thread and runs no foreign code, so the copy lacks no thread that holds a lock.
Before foreign code runs in it, the copy closes what it must not keep open: the locks of tasks and the connection to the
host.
"""

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

    The copy leads a session of its own, is killed when this process ends, and has only the standard descriptors and
    *keep* open. Its signal handlers are those that this process was started with.

    Raises:
        OSError: There can be no further process.
    """
    # A garbage collection in either process would write to the shared memory, and so copy it. What was frozen for an
    # earlier copy may be garbage by now.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    here = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # our handlers must not run in the copy
    try:
        pid = os.fork()  # the copy closes the locks that we hold, see fs/locks.py
        if pid == 0:
            try:
                _live(main, here, keep, mask)
            finally:
                os._exit(1)  # a signal handler raised during the exit
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Child(pid)


def _live(main: Callable[[], None], parent: int, keep: int, mask: set[int]) -> NoReturn:
    """Run the copy to its end: it must not return to the parent's frames."""
    status = 1
    try:
        os.setsid()
        _close_all_but(keep)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        end_with_parent()
        try:
            if os.getppid() == parent:  # else it died before that, and another process may own its task now
                main()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the exit must not be interrupted
        status = 0
    except SystemExit:
        status = 0
    except BaseException:  # noqa: BLE001 - there is no caller
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(status)


def _close_all_but(keep: int) -> None:
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > _STDERR and fd != keep:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(fd)


def _leave(status: int) -> NoReturn:
    """
    Exit as an interpreter does: call the :mod:`atexit` functions and flush the standard streams.

    If a non-daemon thread is left, which an interpreter would wait for without limit, exit at once instead.
    """
    try:
        if all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()):
            atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does after a fork
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # closed, or a tool's own
                    stream.flush()
    finally:
        os._exit(status)
