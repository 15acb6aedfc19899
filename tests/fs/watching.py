"""What tests of a watch share: what it has seen, threads that wait at it, programs, and descriptors."""

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks.fs.watch import Changes, Watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")

PATIENCE: Final = 30.0  # seconds after which something will not come any more
NOTHING: Final = Changes(frozenset(), incomplete=False)
EVERYTHING: Final = Changes(frozenset(), incomplete=True)


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def seen(directory: Path, *names: str) -> Changes:
    return Changes(frozenset((str(directory), name) for name in names), incomplete=False)


def until_seen(waiter: Watch, directory: Path, name: str) -> frozenset[tuple[str, str]]:
    """Wait until *name* has changed, and return all that changed meanwhile."""
    names: set[tuple[str, str]] = set()
    deadline = time.monotonic() + PATIENCE
    while (str(directory), name) not in names:
        assert time.monotonic() < deadline, f"{name} was not reported, only {names}"
        names |= waiter.wait(PATIENCE).names
    return frozenset(names)


def assert_watched_anew(waiter: Watch, directory: Path) -> None:
    """Check that *directory*, another one than before, is watched: all may have changed, and then one file does."""
    assert waiter.problem is None
    assert EVERYTHING == waiter.wait(PATIENCE)
    (directory / "task.json").touch()
    assert seen(directory, "task.json") == waiter.wait(PATIENCE)


def flush(waiter: Watch, directory: Path) -> frozenset[tuple[str, str]]:
    """Return all that changed until now, seen before a mark that is made now."""
    mark = f"mark-{time.monotonic_ns()}"
    (directory / mark).mkdir()
    return until_seen(waiter, directory, mark) - {(str(directory), mark)}


class Waiting(threading.Thread):
    """A thread that waits once and without limit; *changes* is what its wait returned."""

    def __init__(self, waiter: Watch) -> None:
        super().__init__(daemon=True)
        self.waiter = waiter
        self.changes: Changes | None = None
        self.start()
        deadline = time.monotonic() + PATIENCE
        while not self.sleeps():
            assert time.monotonic() < deadline, "it does not begin to sleep"
            time.sleep(0.001)

    def run(self) -> None:
        self.changes = self.waiter.wait(math.inf)

    def sleeps(self) -> bool:
        """Return whether this thread sleeps or has ended, as in proc_pid_stat(5)."""
        try:
            return "S" == Path(f"/proc/self/task/{self.native_id}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True

    def result(self) -> Changes | None:
        self.join(PATIENCE)
        return self.changes


def start(program: str, *arguments: str | Path | int, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=pass_fds,
    )


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(PATIENCE)


def descriptors() -> set[int]:
    """Return the open descriptors of this process."""
    with os.scandir("/proc/self/fd") as listing:
        listed = {int(entry.name) for entry in listing}
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}  # not the one that was listing


def is_inotify(fd: int) -> bool:
    return "anon_inode:inotify" == os.readlink(f"/proc/self/fd/{fd}")


def instances() -> int:
    """Return how many inotify instances this process has."""
    return sum(map(is_inotify, descriptors()))


def watched_by_kernel() -> int:
    """Return how many directories the kernel watches for this process."""
    infos = [Path(f"/proc/self/fdinfo/{fd}").read_text() for fd in descriptors() if is_inotify(fd)]
    return sum(info.count("inotify wd:") for info in infos)
