"""
The supervisor: owns one task at a time, and runs no foreign code.

It takes calls from its host over a socket and makes them; the tool runs in a child process. It outlives its host: with
the socket closed it ends the call in hand, and exits. Timeouts and the wish to cancel are its business, so they work
with the host dead.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from animaworks_tasks.backends.process_tree import adopt_orphans
from animaworks_tasks.backends.tool_process import ToolProcess
from animaworks_tasks.worker import runner


def main(fd: int, max_tasks: int | None) -> None:
    """Serve the host at the other end of the socket *fd* until it goes, or until we are to go: SIGTERM."""
    host = Connection(fd)
    adopt_orphans()
    tools, waiting = ToolProcess(max_tasks), False

    def go_down(*_: object) -> None:
        tools.interrupted = True
        if waiting:  # or else for the call in hand to end: what it returns may be nowhere but here
            raise SystemExit(0)

    with contextlib.suppress(EOFError, OSError):  # OSError: it went while we answered
        sys.path[:] = pickle.loads(host.recv_bytes())  # noqa: S301 - our host wrote it
        runner.invoke_with(tools.invoke, lambda: tools.interrupted)
        signal.signal(signal.SIGTERM, go_down)  # the host, or the machine, goes down in order
        try:
            while True:
                waiting = True
                if tools.interrupted:  # before we waited
                    break
                call = host.recv_bytes()
                waiting = False
                host.send_bytes(_dumps(_make(call)))
        finally:
            waiting = False
            host.close()  # first, so that no further call is sent to us
            tools.close()


def _make(call: bytes) -> tuple[bool, Any]:
    try:
        function, positional, named = pickle.loads(call)  # noqa: S301 - as above
        return True, function(*positional, **named)
    except Exception as error:  # noqa: BLE001 - it belongs to whoever made the call
        return False, error


def _dumps(reply: tuple[bool, Any]) -> bytes:
    try:
        return pickle.dumps(reply)
    except Exception:  # noqa: BLE001 - an exception may hold anything
        return pickle.dumps((False, RuntimeError(f"{type(reply[1]).__name__}: {reply[1]}")))
