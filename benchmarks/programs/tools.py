"""The two tools that all figures call, ours and the peers' alike."""

from __future__ import annotations

import os
import sys
import time


def nothing() -> None:
    """Return at once."""


def mark(fifo: str, sent: str) -> None:
    """Say how many nanoseconds ago it was *sent*, by a clock that all processes share."""
    now = time.monotonic_ns()
    fd = os.open(fifo, os.O_WRONLY)
    try:
        os.write(fd, b"%d\n" % (now - int(sent)))
    finally:
        os.close(fd)


def serve() -> None:
    """Say that the host is ready, and wait until stdin closes."""
    print("ready", flush=True)
    sys.stdin.read()
