"""A lock keeps others out for as long as its process lives, and not a moment longer."""

import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks.fs import locks


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


HOLDER: Final = """
import sys
from animaworks_tasks.fs import locks
lock = locks.hold(sys.argv[1])
print("held" if lock else "busy", flush=True)
sys.stdin.read()
if len(sys.argv) > 2:
    locks.drop(lock)
"""


def holder(path: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a process that takes the lock, if it is to be had, and says so; it keeps it until its stdin is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_held_lock_keeps_out_other_holders_in_this_process_and_in_others(place: Path) -> None:
    path = place / "lock"
    lock = locks.hold(str(path))
    assert lock is not None
    assert locks.hold(str(path)) is None
    with holder(path) as other:
        assert b"busy\n" == said(other)
        other.kill()
    locks.drop(lock)
    assert not path.exists()


def test_whether_a_lock_is_held_can_be_asked_without_making_or_taking_it(place: Path) -> None:
    path = place / "lock"
    assert not locks.is_held(str(path))
    assert not path.exists()
    with holder(path) as other:
        assert b"held\n" == said(other)
        assert locks.is_held(str(path))
        other.kill()
    assert not locks.is_held(str(path))
    assert path.exists()
    with holder(path) as other:
        assert b"held\n" == said(other), "who asked has let go"
        other.kill()


def test_a_lock_dies_with_its_process(place: Path) -> None:
    path = place / "lock"
    with holder(path) as other:
        assert b"held\n" == said(other)
        assert locks.hold(str(path)) is None
        other.kill()
    lock = locks.hold(str(path))
    assert lock is not None
    locks.drop(lock)


def test_a_dropped_lock_can_be_taken_anew_though_its_file_is_gone(place: Path) -> None:
    path = place / "lock"
    with holder(path, "drop") as other:
        assert b"held\n" == said(other)
        other.communicate()
    assert not path.exists()
    lock = locks.hold(str(path))
    assert lock is not None
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    locks.drop(lock)


FORKER: Final = """
import os, sys
from animaworks_tasks.fs import locks
lock = locks.hold(sys.argv[1])
if os.fork() == 0:
    print("forked", flush=True)
sys.stdin.read()
"""


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent_alive(place: Path) -> None:
    # given a holder that forked
    parent = subprocess.Popen(
        [sys.executable, "-c", FORKER, str(place / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert b"forked\n" == said(parent)
        assert locks.hold(str(place / "lock")) is None

        # when it is killed, and its child lives on
        parent.kill()
        parent.wait()

        # then
        lock = locks.hold(str(place / "lock"))
        assert lock is not None
        locks.drop(lock)
