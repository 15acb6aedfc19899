"""
Processes that are watched at every call of :mod:`os` that they make on a store: killed there, failed there, recorded.

A test forks a child and puts a *tap* on the functions of :mod:`os` (and ``flock``) in it; nobody else notices. Each
call that touches the directory under test goes through the tap before and after it is made. That nothing escapes the
tap is shown with strace, in test_kernel.py.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import fcntl
import functools
import gc
import os
import re
import select
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from tests.reliability.invariants import words

TAPPED: Final = (
    "open", "close", "pread", "write", "fsync", "link", "unlink", "rename", "mkdir", "rmdir",
    "scandir", "listdir", "stat", "lstat",
)  # fmt: skip
CHANGES: Final = {"open", "write", "link", "unlink", "rename", "mkdir", "rmdir"}  # open: if it creates

_DESCRIPTORS: Final = "/proc/self/fd/"

PATIENCE: Final = 60.0  # seconds; a child that says nothing for longer hangs

_write = os.write  # the pipe to the parent is not under test


@attrs.frozen
class Call:
    """One call: the name of the function, the absolute path or the descriptor it is about, and all arguments."""

    name: str
    path: str
    args: tuple[Any, ...]
    changes: bool


class Tap:
    """Watches what happens below *root*; made for one child, where it stays. Subclasses say what comes of it."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self.paths: dict[int, str] = {}  # by descriptor

    def before(self, call: Call) -> None:
        """Come before a call; whatever this raises, the caller sees."""

    def after(self, call: Call, result: Any) -> None:  # noqa: ANN401 - of any call
        """Come after a call that went well."""

    def put_on(self) -> None:
        """Watch from now on."""
        for name in TAPPED:
            setattr(os, name, self._tapped(name, getattr(os, name)))
        fcntl.flock = self._tapped("flock", fcntl.flock)

    def _tapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def tapped(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - of any call
            path = self._path(args, options.get("dir_fd"))
            if path is None:
                return real(*args, **options)
            call = Call(name, path, args, name in CHANGES and (name != "open" or bool(args[1] & os.O_CREAT)))
            self.before(call)
            result = real(*args, **options)
            if name == "open":
                self.paths[result] = path
            self.after(call, result)
            if name == "close":
                self.paths.pop(args[0], None)
            return result

        return tapped

    def _path(self, args: Sequence[Any], directory: int | None) -> str | None:
        """Return what a call is about, if it lies below the root."""
        first = args[0] if args else "."
        if isinstance(first, int):
            return self.paths.get(first)
        path = os.fsdecode(first)
        if path.startswith(_DESCRIPTORS):
            return self.paths.get(int(path.removeprefix(_DESCRIPTORS)))
        if directory is not None and not path.startswith("/"):
            path = os.path.join(self.paths.get(directory, "/"), path)
        return path if path.startswith(self._root) else None


class Killer(Tap):
    """Counts the calls that change the disk, and kills the process just before number *at*."""

    def __init__(self, root: Path, at: int | None = None) -> None:
        super().__init__(root)
        self.at, self.calls = at, 0
        self.well = False

    def before(self, call: Call) -> None:
        if call.changes and not self.well:
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


_LOOKS: Final = {"open", "scandir", "listdir"}
FAULTS: Final[dict[int, set[str]]] = {
    errno.ENOSPC: CHANGES - {"unlink", "rmdir"} | {"fsync"},
    errno.EIO: CHANGES | _LOOKS | {"fsync", "pread"},
    errno.EMFILE: _LOOKS,
    errno.EACCES: CHANGES - {"write"} | {"scandir", "listdir"},
}


class Saboteur(Tap):
    """Lets call number *at* of those that can fail with *error* fail, and with *lasting* all such calls after it."""

    def __init__(self, root: Path, error: int, at: int | None, *, lasting: bool = False) -> None:
        super().__init__(root)
        self.error, self.at, self.lasting, self.calls = error, at, lasting, 0
        self.well = False

    def before(self, call: Call) -> None:
        if self.well or call.name not in FAULTS[self.error]:
            return
        # A file that may not be read is a bad file, which is kept aside and explained; that has tests of its own.
        if self.error in {errno.ENOSPC, errno.EACCES} and call.name == "open" and not call.changes:
            return
        self.calls += 1
        if self.at is not None and (self.calls == self.at or (self.lasting and self.calls > self.at)):
            raise OSError(self.error, os.strerror(self.error), call.path)


@attrs.frozen
class End:
    """
    How a child ended.

    Attributes:
        said: What it said, without what follows.
        result: What it returned; None if it was killed.
        error: What it raised.
        everything: Every line, notes of a :class:`Recorder` among them, in order.
    """

    said: tuple[str, ...]
    result: Any
    error: str | None
    everything: tuple[str, ...]

    @property
    def killed(self) -> bool:
        """It did not come to its end."""
        return self.result is None and self.error is None


def forked(body: Callable[[Callable[..., None]], object]) -> End:
    """
    Call *body* in a child, with a function by which it says what it does; wait for its end.

    The child always ends by SIGKILL: no handler of this test run has anything to do there.
    """
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that other tests left: none is needed there
        pid = os.fork()
    if pid == 0:
        try:
            _in_child(body, theirs)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(theirs)
    try:
        lines = tuple(_all_of(ours).decode().splitlines())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ours)
    notes = {line.split(" ", 1)[0]: line.partition(" ")[2] for line in lines if line.startswith(("#result", "#error"))}
    return End(
        tuple(line for line in lines if not line.startswith("#")),
        ast.literal_eval(notes["#result"]) if "#result" in notes else None,
        notes.get("#error"),
        lines,
    )


def _in_child(body: Callable[[Callable[..., None]], object], pipe: int) -> None:
    sys.settrace(None)  # coverage has seen these lines elsewhere
    threading.settrace(None)  # type: ignore[arg-type]  # that is how it is taken off
    gc.disable()  # it would touch, and so copy, all that it shares with its parent
    try:
        result = body(lambda *parts: _write(pipe, (words(*parts) + "\n").encode()))
        _write(pipe, f"#result {result!r}\n".encode())
    except BaseException as error:  # noqa: BLE001 - the parent judges
        _write(pipe, f"#error {type(error).__name__}: {error}\n".encode())


def _all_of(pipe: int) -> bytes:
    data, deadline = b"", time.monotonic() + PATIENCE
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"a child hangs after {data.decode()[-300:]!r}"
        more = os.read(pipe, 1 << 16)
        if not more:
            return data
        data += more
        deadline = time.monotonic() + PATIENCE


def copy(source: Path, target: Path) -> None:
    """Make *target* what *source* is: two names of one file stay that, and times stay."""
    shutil.rmtree(target, ignore_errors=True)
    seen: dict[int, str] = {}
    for directory, names, files in os.walk(source):
        there = os.path.join(target, os.path.relpath(directory, source))
        os.makedirs(there, exist_ok=True)
        del names
        for name in files:
            path, new = os.path.join(directory, name), os.path.join(there, name)
            inode = os.stat(path).st_ino
            if inode in seen:
                os.link(seen[inode], new)
            else:
                shutil.copy2(path, new)
                seen[inode] = new


_DRAFT: Final = re.compile(r"\.[0-9a-f]{12}\.\d+$|\.\d{19}")


def shape(root: Path) -> tuple[tuple[str, int, int], ...]:
    """Return the names below *root* with sizes and links: what one run has in common with the next."""
    return tuple(sorted(_files(root)))


def _files(root: Path) -> Iterator[tuple[str, int, int]]:
    for directory, _, files in os.walk(root):
        for name in files:
            status = os.lstat(os.path.join(directory, name))
            yield os.path.join(os.path.relpath(directory, root), _DRAFT.sub("", name)), status.st_size, status.st_nlink
