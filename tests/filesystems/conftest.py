"""Real file systems in images, mounted by root and unmounted after the test; skipped where that cannot be done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

Mount = Callable[..., Path]


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def needs(*programs: str) -> None:
    """Skip the test where one of *programs* is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def mounted() -> Iterator[ExitStack]:
    """Unmounts what a test has mounted, the last first."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def image(tmp_path: Path, mounted: ExitStack) -> Mount:
    """Returns a function that makes a file system of a type and a size in an image, and mounts it."""

    def mount(kind: str = "ext4", size: int = 32, *options: str, name: str = "disk") -> Path:
        needs(f"mkfs.{kind}")
        file, where = tmp_path / f"{name}.img", tmp_path / name
        with file.open("wb") as opened:
            opened.truncate(size << 20)
        where.mkdir()
        run(f"mkfs.{kind}", *options, str(file))
        if kind not in Path("/proc/filesystems").read_text().split():
            pytest.skip(f"the kernel has no {kind}")
        run("mount", "-o", "loop", str(file), str(where))
        mounted.callback(run, "umount", "-l", str(where))
        return where

    return mount


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
