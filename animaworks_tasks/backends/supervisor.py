"""
The supervisor: owns one task at a time and runs no foreign code.

It receives calls from its host over a socket; the tool runs in a child process. It outlives its host: when the socket
closes, it finishes the running call and exits. It enforces timeouts and cancellation requests itself, so both work when
the host is dead.
"""

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
    """Make the calls that come through the socket *fd* until the host closes it, or until SIGTERM."""
    host = Connection(fd)
    adopt_orphans()
    tools, waiting = ToolProcess(max_tasks), False

    def shut_down(*_: object) -> None:
        tools.interrupted = True
        if waiting:  # or else the running call ends first: its outcome may not be stored yet
            raise SystemExit(0)

    with contextlib.suppress(EOFError, OSError):  # OSError: the host closed it while we answered
        sys.path[:] = pickle.loads(host.recv_bytes())  # noqa: S301 - our host wrote it
        runner.invoke_with(tools.invoke, lambda: tools.interrupted)
        signal.signal(signal.SIGTERM, shut_down)  # from the host, or at the shutdown of the machine
        try:
            while True:
                waiting = True
                if tools.interrupted:  # SIGTERM came before we waited
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
    except Exception as error:  # noqa: BLE001 - the caller gets it
        return False, error


def _dumps(reply: tuple[bool, Any]) -> bytes:
    with contextlib.suppress(Exception):  # an exception may hold anything
        return pickle.dumps(reply)
    return pickle.dumps((False, RuntimeError(f"{type(reply[1]).__name__}: {reply[1]}")))
