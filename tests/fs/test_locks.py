"""A lock keeps others out for as long as its process lives, and not a moment longer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks.fs import files, locks
from tests.processes import PATIENCE


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a file that is to be locked: nobody makes one for that."""
    (tmp_path / "record").write_bytes(b"data")
    return str(tmp_path / "record")


HOLDER: Final = """
import sys
from animaworks_tasks.fs import locks
lock = locks.hold(sys.argv[1], writing=True)
print("held" if lock else "busy", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: str, script: str = HOLDER) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that takes the lock, if it is to be had, and says so; it is killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def is_free(path: str) -> bool:
    lock = locks.hold(path)
    if lock is not None:
        lock.release()
    return lock is not None


# --- files ---


@pytest.mark.parametrize("writing", [False, True])
def test_a_held_lock_keeps_out_other_holders_in_this_process_and_in_others(path: str, *, writing: bool) -> None:
    lock = locks.hold(path, writing=writing)
    assert lock is not None
    assert (None, None) == (locks.hold(path), locks.hold(path, writing=True))
    with holder(path) as other:
        assert b"busy\n" == said(other)
    lock.release()
    with holder(path) as other:
        assert b"held\n" == said(other)


def test_a_lock_dies_with_its_process(path: str) -> None:
    with holder(path) as other:
        assert b"held\n" == said(other)
        assert not is_free(path)
    assert is_free(path)


def test_a_lock_is_that_of_the_file_and_not_of_its_name(tmp_path: Path, path: str) -> None:
    # given a file with two names
    lock = locks.hold(path)
    assert lock is not None
    os.link(path, tmp_path / "second")

    # then it is locked under both, and another file under its name is not
    assert not is_free(str(tmp_path / "second"))
    (tmp_path / "other").touch()
    os.replace(tmp_path / "other", path)
    assert is_free(path)
    assert [False, True] == [lock.names(name) for name in (path, str(tmp_path / "second"))]
    os.unlink(tmp_path / "second")
    assert not lock.names(str(tmp_path / "second"))
    lock.release()


def test_what_is_locked_is_read_whatever_has_its_name_now(tmp_path: Path, path: str) -> None:
    lock = locks.hold(path)
    assert lock is not None
    (tmp_path / "other").write_bytes(b"other")
    os.replace(tmp_path / "other", path)
    assert b"data" == lock.read(limit=4) == lock.read(limit=4)
    with pytest.raises(files.UnreadableFileError, match="it is larger than 3 bytes"):
        lock.read(limit=3)
    lock.release()


def test_a_lock_is_let_go_once(path: str) -> None:
    lock = locks.hold(path)
    assert lock is not None
    assert lock.is_held
    lock.release()
    other = locks.hold(path)  # which may have got the number of its descriptor
    lock.release()
    assert (False, False) == (lock.is_held, is_free(path))
    assert other is not None
    other.release()


def test_what_is_not_there_is_not_made_to_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locks.hold(str(tmp_path / "record"), writing=True)
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("kind", ["link", "directory", "socket"])
def test_what_is_no_file_is_not_locked_for_writing(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    path = tmp_path / "record"
    if kind == "link":
        path.symlink_to("nowhere")
    elif kind == "directory":
        path.mkdir()
    else:
        monkeypatch.chdir(tmp_path)  # a socket's name is limited to a hundred bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("record")

    # then
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(files.UnreadableFileError):
        locks.hold(str(path), writing=True)
    assert len(descriptors) == len(os.listdir("/proc/self/fd"))


def test_a_copy_of_the_descriptor_that_was_sent_holds_the_lock_too(path: str) -> None:
    """So a tool process keeps the lock of its supervisor until it is gone."""
    # given
    lock = locks.hold(path, writing=True)
    assert lock is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()]) as other:
        # when we leave it, as our death would
        lock.leave()

        # then
        assert not is_free(path)
        other.communicate()
    assert is_free(path)


def test_who_lets_go_does_so_for_all_copies(path: str) -> None:
    lock = locks.hold(path, writing=True)
    assert lock is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()]) as other:
        lock.release()
        assert is_free(path)
        other.communicate()


@contextlib.contextmanager
def forking(script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process whose children live until the end, whatever became of it."""
    inside, outside = os.pipe()
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdin=inside, stdout=subprocess.PIPE) as parent:
        try:
            yield parent
        finally:
            os.close(outside)
            os.close(inside)


FORKER: Final = """
import os, sys
from animaworks_tasks.fs import locks
lock = locks.hold(sys.argv[1])
if os.fork() == 0:
    print("forked", lock.is_held, flush=True)
sys.stdin.read()
"""


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent_alive(path: str) -> None:
    # given a holder that forked
    with forking(FORKER, path) as parent:
        assert b"forked False\n" == said(parent)
        assert not is_free(path)

        # when it is killed, and its child lives on
        parent.kill()
        parent.wait()

        # then
        assert is_free(path)


# --- directories ---


def test_a_directory_is_one_holders_or_is_shared_by_those_who_want_no_more(tmp_path: Path) -> None:
    place = str(tmp_path)
    first, second = (locks.hold_directory(place, shared=True) for _ in range(2))
    assert first is not None
    assert second is not None
    assert locks.hold_directory(place) is None
    first.release()
    assert locks.hold_directory(place) is None
    second.release()
    alone = locks.hold_directory(place)
    assert alone is not None
    assert locks.hold_directory(place, shared=True) is None
    alone.release()


def test_who_wants_a_directory_that_is_held_waits(tmp_path: Path) -> None:
    # given
    came = threading.Event()

    def come() -> None:
        with locks.directory(str(tmp_path)):
            came.set()

    # when
    with ThreadPoolExecutor(1) as pool:
        with locks.directory(str(tmp_path), shared=True):
            coming = pool.submit(come)
            assert not came.is_set()
        coming.result(PATIENCE)

    # then
    assert came.is_set()


def test_a_directory_that_is_not_there_is_not_made_to_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locks.directory(str(tmp_path / "keys")):
        pass
    with pytest.raises(FileNotFoundError):
        locks.hold_directory(str(tmp_path / "keys"))


@pytest.mark.parametrize("killed", [False, True], ids=["released", "killed"])
def test_a_child_that_was_forked_meanwhile_does_not_keep_a_directory(tmp_path: Path, *, killed: bool) -> None:
    """A fork of the host between two lines of a thread of ours would keep everybody from submitting for ever."""
    # given
    script = """
import os, sys
from animaworks_tasks.fs import locks
with locks.directory(sys.argv[1]):
    if os.fork() == 0:
        os.write(1, b"forked\\n")
        sys.stdin.read()
        os._exit(0)
    if len(sys.argv) > 2:
        sys.stdin.read()
os.write(1, b"released\\n")
sys.stdin.read()
"""
    with forking(script, *([str(tmp_path), "killed"] if killed else [str(tmp_path)])) as parent:
        # when
        found = {said(parent) for _ in range(1 if killed else 2)}
        if killed:
            parent.kill()
            parent.wait()

        # then, while the child lives
        assert found == ({b"forked\n"} if killed else {b"forked\n", b"released\n"})
        lock = locks.hold_directory(str(tmp_path))
        assert lock is not None
        lock.release()


# --- whether there are locks ---


def test_where_locks_work_there_is_no_trouble(path: str) -> None:
    assert locks.lock_trouble(path) is None
    assert is_free(path)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_that_says_that_it_has_no_locks_has_none(
    path: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def flock(_: int, __: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    descriptors = os.listdir("/proc/self/fd")
    assert "its file system has no locks" in (locks.lock_trouble(path) or "")
    assert len(descriptors) == len(os.listdir("/proc/self/fd"))


def test_locks_that_keep_nobody_out_are_none(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert "locks do not work on its file system" == locks.lock_trouble(path)


def test_a_disk_that_fails_is_not_taken_for_one_without_locks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(_: int, __: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"):
        locks.lock_trouble(path)
