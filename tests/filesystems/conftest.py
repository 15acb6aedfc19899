"""Real file systems in images, mounted by root and unmounted after the test; skipped where that cannot be done."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

Mount = Callable[..., Path]

_HOST = """
import errno
import sys
from animaworks_tasks import Executor, Registry, TaskStore, ThreadBackend
from animaworks_tasks.errors import PartlySubmittedError

registry = Registry()


@registry.tool("words", "count", on_interrupt="retry")
def count(text: str) -> int:
    return len(text.split())


def say(*words):
    sys.stdout.write(" ".join(words) + "\\n")
    sys.stdout.flush()


def ended(task):
    say("finished", task.id, task.outcome.value)


store = TaskStore(sys.argv[1], durability=sys.argv[3])
with_host = Executor(store, registry, backend=ThreadBackend(), max_workers=4, on_finish=ended).start()
for number in range(int(sys.argv[2])):
    try:
        say("submitted", with_host.submit_sync("words", "count", "a b").id)
    except PartlySubmittedError as error:
        say("submitted", *error.submitted)
    except OSError as error:
        if error.errno != errno.ENOSPC:  # nothing is queued then
            raise
with_host.run_until_idle_sync(timeout=60)
with_host.stop()
"""

_SHUTDOWN = 0x8004587D  # XFS_IOC_GOINGDOWN and EXT4_IOC_SHUTDOWN, <linux/ext4.h>: _IOR('X', 125, __u32)
_WITHOUT_LOG = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def needs(*programs: str) -> None:
    """Skip the test where one of *programs* is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def host(anima: Path, tasks: int, durability: str = "full") -> subprocess.Popen[str]:
    """Start a host that submits so many tasks, and says in lines, as invariants.py has them, what becomes of them."""
    command = [sys.executable, "-c", _HOST, str(anima), str(tasks), durability]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.fixture
def mounted() -> Iterator[ExitStack]:
    """Unmounts what a test has mounted, the last first."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    with ExitStack() as stack:
        yield stack


class Image:
    """A file system in a file, which is mounted, unmounted, and cut off from its power."""

    def __init__(self, file: Path, where: Path) -> None:
        self.file, self.where = file, where

    def mount(self) -> None:
        run("mount", "-o", "loop", str(self.file), str(self.where))

    def unmount(self) -> None:
        run("umount", str(self.where))

    def cut(self) -> None:
        """Lose what is not durable, as a power cut does: nothing is written any more, not even the journal."""
        fd = os.open(self.where, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG))
        finally:
            os.close(fd)


@pytest.fixture
def images(tmp_path: Path, mounted: ExitStack) -> Callable[..., Image]:
    """Returns a function that makes a file system of a type and a size in MiB, and mounts it."""

    def make(kind: str = "ext4", size: int = 32, *options: str) -> Image:
        needs(f"mkfs.{kind}")
        if kind not in Path("/proc/filesystems").read_text().split():
            pytest.skip(f"the kernel has no {kind}")
        made = Image(tmp_path / f"{kind}.img", tmp_path / "disk")
        with made.file.open("wb") as opened:
            opened.truncate(size << 20)
        made.where.mkdir()
        run(f"mkfs.{kind}", *options, str(made.file))
        made.mount()
        mounted.callback(run, "umount", "-l", str(made.where))
        return made

    return make


@pytest.fixture
def image(images: Callable[..., Image]) -> Mount:
    """Returns a function that does as that of :func:`images`, and returns where it is mounted."""
    return lambda *args: images(*args).where


@pytest.fixture
def sshfs(tmp_path: Path, mounted: ExitStack) -> Mount:
    """Returns a function that mounts a directory by sshfs, whose server is a child of it and needs no network."""
    server = "/usr/lib/openssh/sftp-server"

    def mount(source: Path, name: str, *options: str) -> Path:
        needs("sshfs", "fusermount3", server)
        command, where = tmp_path / "ssh", tmp_path / name
        command.write_text(f"#!/bin/sh\nexec {server}\n")
        command.chmod(0o700)
        where.mkdir()
        run("sshfs", "-o", f"ssh_command={command}", *options, f"here:{source}", str(where))
        mounted.callback(run, "fusermount3", "-u", "-z", str(where))
        return where

    return mount


@pytest.fixture
def bindfs(tmp_path: Path, mounted: ExitStack) -> Mount:
    """Returns a function that mounts a directory once more, by bindfs with *options*."""

    def mount(source: Path, name: str, *options: str) -> Path:
        needs("bindfs", "fusermount3")
        where = tmp_path / name
        where.mkdir()
        run("bindfs", *options, str(source), str(where))
        mounted.callback(run, "fusermount3", "-u", "-z", str(where))
        return where

    return mount
