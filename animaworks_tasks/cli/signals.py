"""Ctrl-C, SIGTERM and Ctrl-Z, for commands that go on until they are told to stop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any, Self


class Signals:
    """
    Takes SIGINT and SIGTERM, and lets a wait end at once.

    A handler runs between any two steps of the main thread, so it takes no lock: it adds to a list, writes to a pipe.

    Args:
        pausing: Take SIGTSTP too: a terminal that shows a changing picture is to be put in order before we stop.

    Attributes:
        taken: The signals that came, in order; SIGTSTP is not among them.
        pause_asked: Whether SIGTSTP came; :meth:`pause` is to be called.
    """

    def __init__(self, *, pausing: bool = False) -> None:
        self.taken: list[int] = []
        self.pause_asked = False
        self._numbers = (signal.SIGINT, signal.SIGTERM, *([signal.SIGTSTP] if pausing else []))
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in self._numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self.pause_asked = True
        else:
            self.taken.append(number)
        self.wake()

    def wake(self) -> None:
        """End the current or the next :meth:`wait`; from any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake
            os.write(self._writer, b"!")

    def wait(self, timeout: float) -> None:
        """Sleep until a signal comes, or someone wakes us, or *timeout* seconds."""
        if select.select([self._reader], [], [], timeout)[0]:
            os.read(self._reader, 1 << 12)

    def pause(self) -> None:
        """Stop, as Ctrl-Z asks for; this returns when the shell lets us go on."""
        self.pause_asked = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._take)

    def let_through(self) -> None:
        """Do after the ``with`` block what the first signal would have done at once, had nobody taken it."""
        for number in self.taken[:1]:
            signal.raise_signal(number)
