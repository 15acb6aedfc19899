"""
What goes between a supervisor and its tool process: calls one way, pickled; reports the other, each a line of JSON.

The supervisor runs no foreign code, and who reports does. So what comes up is never unpickled: it is read without
waiting, up to a limit, and believed where it is a report. The socket can be written to by whatever a tool has started.
"""

from __future__ import annotations

import json
import socket
from typing import Final

import attrs

from animaworks_tasks.task.model import Cause
from animaworks_tasks.worker.call import Report

_LIMIT: Final = 1 << 20  # bytes of a report; the largest, a result of control characters only, has 400,000
_CHUNK: Final = 1 << 16
_HEADER: Final = 8  # bytes that say how long a call is
_TAKEN_WITHIN: Final = 30.0  # seconds in which a call, 1 MiB at most, must have been taken


class Link:
    """
    The supervisor's end of the socket.

    Attributes:
        fit: Whether the tool process takes another call; if not, it said so with its last report.
    """

    def __init__(self, end: socket.socket) -> None:
        self.fit = True
        self._socket = end
        self._read = bytearray()

    def send(self, message: bytes) -> None:
        """
        Pass *message* on.

        Raises:
            OSError: Nobody takes it.
        """
        self._socket.settimeout(_TAKEN_WITHIN)
        self._socket.sendall(len(message).to_bytes(_HEADER, "big") + message)

    def report(self, timeout: float) -> Report | None:
        """
        Wait up to *timeout* seconds for a report; None if there is none yet.

        Raises:
            EOFError: The other end was closed.
            OSError: It was cut.
            ValueError: What came is no report.
        """
        self._socket.settimeout(max(timeout, 0.001))  # 0 would not wait, and be another error
        try:
            data = self._socket.recv(_CHUNK)
        except TimeoutError:
            return None
        if not data:
            raise EOFError("the tool process closed its end")
        self._read += data
        line, end, rest = self._read.partition(b"\n")
        if rest or len(self._read) > _LIMIT:
            raise ValueError("there was more than a report")
        if not end:
            return None
        self._read.clear()
        report, self.fit = _decode(bytes(line))
        return report

    def quiet(self) -> bool:
        """Say whether the other end is open, and has sent nothing that nobody asked for."""
        self._socket.settimeout(0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close it: the tool process ends when it has nothing else to do."""
        self._socket.close()


def receive(end: socket.socket) -> bytes:
    """Return the next message, in the tool process; raises EOFError where the supervisor has gone."""
    return _exactly(end, int.from_bytes(_exactly(end, _HEADER), "big"))


def _exactly(end: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = end.recv(min(_CHUNK, size - len(data)))
        if not chunk:
            raise EOFError("the supervisor has gone")
        data += chunk
    return bytes(data)


def encode(report: Report, *, fit: bool) -> bytes:
    """Return *report* as it goes to the supervisor, from a process that is *fit* for another call."""
    values = attrs.asdict(report) | {"cause": report.cause and report.cause.value, "fit": fit}
    return json.dumps(values).encode("ascii") + b"\n"


def _decode(line: bytes) -> tuple[Report, bool]:
    try:
        values = json.loads(line)
        cause, fit = values.pop("cause"), values.pop("fit")
        if all(isinstance(value, str | int | None) for value in values.values()):
            return Report(**values, cause=None if cause is None else Cause(cause)), fit is True
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass
    raise ValueError("there was something else than a report")
