"""What tests with real processes and threads share: they wait for conditions, and a duration only bounds a failure."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 30.0  # seconds after which a condition will not come true any more


def until(condition: Callable[[], T]) -> T:
    """Wait until *condition* returns something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)
    return found


async def eventually(condition: Callable[[], object]) -> None:
    """Do as :func:`until`, and let the event loop go on."""
    deadline = time.monotonic() + PATIENCE
    while not condition():  # what is waited for happens in other threads
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.001)


def join(thread: threading.Thread) -> None:
    """Wait until *thread* has ended."""
    thread.join(PATIENCE)
    assert not thread.is_alive()


def gone(pid: int) -> bool:
    """Return whether a process has ended; a zombie has, and nobody has reaped it yet."""
    return state(pid) in {"", "Z"}


def state(pid: int) -> str:
    """Return the letter of a process's state, as in proc_pid_stat(5); empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def in_event_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        asyncio.run(main())

    return run
