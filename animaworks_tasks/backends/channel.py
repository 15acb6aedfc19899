"""
What goes between a supervisor and its tool process: calls one way, pickled; reports the other, each a line of JSON.

The supervisor runs no foreign code; the tool process does. So the supervisor never unpickles what it receives: it reads
without waiting, up to a limit, and accepts a valid report only. Any process that a tool has started can write to the
socket.
"""

import json
import socket
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Final

import attrs

from animaworks_tasks.task.model import Cause
from animaworks_tasks.worker.call import Report

_LIMIT: Final = 1 << 20  # bytes of a report; the largest, a result of control characters only, has 400,000
_CHUNK: Final = 1 << 16
_HEADER: Final = 8  # bytes that say how long a call is
_SEND_TIMEOUT: Final = 30.0  # seconds; a call has at most 1 MiB


class Channel:
    """
    The supervisor's end of the socket.

    Attributes:
        unfit: Why the tool process cannot run another call, as its last report said; None if it can.
    """

    def __init__(self, end: socket.socket) -> None:
        self.unfit: str | None = None
        self._socket = end
        self._read = bytearray()

    def send(self, message: bytes, descriptors: Sequence[int]) -> None:
        """
        Send *message*, and with it copies of *descriptors* (SCM_RIGHTS, unix(7)).

        Raises:
            OSError: The other end is closed, or did not read it within 30 seconds.
        """
        self._socket.settimeout(_SEND_TIMEOUT)
        header = len(message).to_bytes(_HEADER, "big")
        socket.send_fds(self._socket, [header], list(descriptors))
        self._socket.sendall(message)

    def report(self, timeout: float) -> Report | None:
        """
        Wait up to *timeout* seconds for a report; None if there is none yet.

        Raises:
            EOFError: The other end was closed.
            OSError: The connection failed.
            ValueError: What came is not one report.
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
            raise ValueError("more than one report")
        if not end:
            return None
        self._read.clear()
        report, self.unfit = _decode(bytes(line))
        return report

    def is_quiet(self) -> bool:
        """Return whether the other end is open and has sent nothing."""
        return not wait([self._socket], 0)

    def close(self) -> None:
        """Close the socket; the tool process exits when its call has ended."""
        self._socket.close()


def receive(end: socket.socket) -> tuple[bytes, list[int]]:
    """
    Return the next message and the descriptors that came with it; called in the tool process.

    Raises:
        EOFError: The supervisor closed its end.
    """
    header, descriptors, _, _ = socket.recv_fds(end, _HEADER, 2, socket.MSG_CMSG_CLOEXEC)
    with end.makefile("rb") as stream:
        header += stream.read(_HEADER - len(header))
        size = int.from_bytes(header, "big")
        message = stream.read(size)
    if len(header) < _HEADER or len(message) < size:
        raise EOFError("the supervisor closed its end")
    return message, descriptors


def encode(report: Report, unfit: str | None) -> bytes:
    """Return the line that reports *report*, and why this process cannot run another call; None if it can."""
    values = attrs.asdict(report) | {"cause": report.cause and report.cause.value, "unfit": unfit}
    return json.dumps(values).encode("ascii") + b"\n"


def _decode(line: bytes) -> tuple[Report, str | None]:
    try:
        values = json.loads(line)
        cause, unfit = values.pop("cause"), values.pop("unfit")
        if all(isinstance(value, str | int | None) for value in (unfit, *values.values())):
            return Report(**values, cause=None if cause is None else Cause(cause)), unfit and str(unfit)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass
    raise ValueError("invalid report")
