"""
What a tool prints, routed to its task, in any backend.

``sys.stdout`` and ``sys.stderr`` are one per process, and several tasks may run in it. While any task runs, both are
replaced by a router, which finds the task that prints in a context variable; all other output goes where it went.
"""

import contextlib
import io
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import IO, Any, Final, TextIO

_KEPT_LIMIT: Final = 8 << 20  # bytes that are kept of what a tool prints; all of it is in the log
_LINE_LIMIT: Final = 8192  # bytes without a line end that are held back

Sink = Callable[[bytes], None]


class Printed:
    """
    Collects what is printed, and passes it on line by line.

    Attributes:
        kept: The first *limit* bytes, by default 8 MiB.
        lost: How many bytes came after that.
    """

    def __init__(self, sink: Sink, limit: int = _KEPT_LIMIT) -> None:
        self.kept = bytearray()
        self.lost = 0
        self._sink, self._limit = sink, limit
        self._line = bytearray()
        self._mutex = threading.Lock()

    def write(self, data: bytes) -> None:
        """Keep *data*, and pass it on once its line is complete."""
        with self._mutex:
            kept = data[: self._limit - len(self.kept)]
            self.kept += kept
            self.lost += len(data) - len(kept)
            self._line += data
            if b"\n" in data or len(self._line) > _LINE_LIMIT:
                self._pass_on()

    def flush(self) -> None:
        """Pass on what has no line end yet."""
        with self._mutex:
            self._pass_on()

    def close(self) -> None:
        """Discard what is written from now on."""
        with self._mutex:
            self._sink = _discard

    def text(self) -> str:
        """Return what is kept; bytes that are not UTF-8 are replaced."""
        text = self.kept.decode("utf-8", "replace")
        return f"{text}\n... {self.lost} more bytes are in the log" if self.lost else text

    def _pass_on(self) -> None:
        if self._line:
            data = bytes(self._line)
            self._line.clear()
            self._sink(data)


def _discard(_: bytes) -> None:
    pass


_Routes = tuple[Printed, Printed]
_routes: ContextVar[_Routes | None] = ContextVar("animaworks_tasks_output", default=None)
_STREAMS: Final = ("stdout", "stderr")
_mutex = threading.Lock()
_users = 0
_for_all_threads: _Routes | None = None
_earlier: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # threads that were there before that task


@contextlib.contextmanager
def printed_to(sink: Sink, *, out: Sink | None = None, all_threads: bool = False) -> Iterator[_Routes]:
    """
    Collect what this context prints to stdout and stderr, and pass it on to *sink*.

    Args:
        sink: Takes the bytes; called from the thread that prints.
        out: Takes those of stdout instead.
        all_threads: Collect what other threads print too: right in a process that runs one task at a time. The output
            of threads that an earlier task has left behind is discarded: it may not be this task's.
    """
    global _for_all_threads, _earlier  # noqa: PLW0603 - as sys.stdout, which they stand in for
    routes = (Printed(out or sink), Printed(sink))
    _count(+1)
    token = _routes.set(routes)
    if all_threads:
        _earlier = weakref.WeakSet(thread for thread in threading.enumerate() if thread.ident != threading.get_ident())
        _for_all_threads = routes
    try:
        yield routes
    finally:
        _routes.reset(token)
        if all_threads:
            _for_all_threads = None
        for printed in routes:
            printed.flush()
            if all_threads:
                printed.close()
        _count(-1)


def _count(change: int) -> None:
    """Replace the streams while any task runs; one that a tool has replaced in turn is left to it."""
    global _users  # noqa: PLW0603 - as sys.stdout
    with _mutex:
        _users += change
        for index, name in enumerate(_STREAMS):
            stream = getattr(sys, name)
            if _users and not isinstance(stream, _Router):
                setattr(sys, name, _Router(stream, index))
            elif not _users and isinstance(stream, _Router):
                setattr(sys, name, stream.original)


_SILENCE: Final = Printed(_discard, limit=0)


class _Router(io.TextIOBase):
    """A text stream that writes to the task that prints, or else to the stream it replaced."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, original: TextIO | Any, index: int) -> None:  # noqa: ANN401 - sys.stdout may be anything
        self.original = original
        self._index = index
        self.buffer: IO[bytes] = _RouterBuffer(self)  # type: ignore[assignment]  # what tools call of it is there

    def route(self) -> Printed | None:
        routes = _routes.get() or _for_all_threads
        if routes is None:
            return None
        if routes is _for_all_threads and _routes.get() is None and threading.current_thread() in _earlier:
            return _SILENCE
        return routes[self._index]

    def write(self, text: str, /) -> int:
        printed = self.route()
        if printed is not None:
            printed.write(text.encode("utf-8", "backslashreplace"))
        elif self.original is not None:  # None: a process without a console
            self.original.write(text)
        return len(text)

    def flush(self) -> None:
        stream = self.route() or self.original
        if stream is not None:
            stream.flush()

    def fileno(self) -> int:
        return super().fileno() if self.original is None else int(self.original.fileno())

    def close(self) -> None:
        """Close nothing: the stream behind belongs to the host."""

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_: object) -> None:
        """Accept what programs set on stdout at their start; it is UTF-8 already."""

    def isatty(self) -> bool:
        return self.route() is None and self.original is not None and bool(self.original.isatty())


class _RouterBuffer(io.RawIOBase):
    def __init__(self, router: _Router) -> None:
        self._router = router

    def close(self) -> None:
        """Close nothing, as the router."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        raw = bytes(data)
        printed = self._router.route()
        if printed is not None:
            printed.write(raw)
        elif self._router.original is not None:
            self._router.original.buffer.write(raw)
        return len(raw)

    def flush(self) -> None:
        self._router.flush()
