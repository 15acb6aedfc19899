"""Files are read with suspicion, and written for our eyes only."""

from __future__ import annotations

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from animaworks_tasks.fs import files
from tests.fs.conftest import refuse
from tests.processes import PATIENCE

# --- directories, appending, discarding ---


def test_directories_are_made_with_all_above_them_for_us_alone(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_directory(str(tmp_path / "a/b/c"))
        assert [0o700] * 3 == [stat.S_IMODE((tmp_path / d).stat().st_mode) for d in ("a", "a/b", "a/b/c")]


def test_making_directories_tells_which_ones_are_to_be_synced(tmp_path: Path) -> None:
    assert [str(tmp_path), str(tmp_path / "a")] == files.make_directory(str(tmp_path / "a/b"))
    assert [] == files.make_directory(str(tmp_path / "a/b"))


def test_lines_are_appended_and_a_link_is_not_followed(final: Path) -> None:
    for line in (b"one\n", b"two\n"):
        files.append(str(final / "log"), line)
    assert b"one\ntwo\n" == (final / "log").read_bytes()
    assert 0o600 == stat.S_IMODE((final / "log").stat().st_mode)
    (final / "link").symlink_to(final / "log")
    with pytest.raises(OSError, match="symbolic links"):
        files.append(str(final / "link"), b"three\n")


def test_what_is_not_there_can_be_discarded_and_listed(final: Path) -> None:
    files.touch(str(final / "a"))
    files.touch(str(final / "a"))
    assert [True, False] == [files.discard(str(final / "a")) for _ in range(2)]
    assert [] == list(files.names(str(final / "gone")))


# --- read ---


def test_a_regular_file_of_ours_is_read_whole(final: Path) -> None:
    (final / "a").write_bytes(bytes(200_000))
    assert bytes(200_000) == files.read(str(final / "a"), limit=200_000)


@pytest.mark.parametrize(("limit", "found"), [(4, b"3456"), (6, b"123456"), (7, b"123456")])
def test_of_a_file_that_is_too_large_the_end_is_read_where_that_will_do(final: Path, limit: int, found: bytes) -> None:
    (final / "a").write_bytes(b"123456")
    assert found == files.read(str(final / "a"), limit=limit, newest=True)


def test_a_missing_file_is_missing(final: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(str(final / "a"), limit=1)


def odd(final: Path, kind: str) -> None:
    path = final / "a"
    if kind == "link":
        (final / "b").write_bytes(b"data")
        path.symlink_to("b")
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, which never ends
    else:
        path.write_bytes(b"12345")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("link", "it is a symbolic link"),
        ("FIFO", "it is not a regular file"),
        ("directory", "it is not a regular file"),
        ("device", "it is not a regular file"),
        ("large", "it is larger than 4 bytes"),
    ],
)
def test_what_is_no_file_of_ours_is_not_read_and_nobody_waits_for_it(final: Path, kind: str, why: str) -> None:
    try:
        odd(final, kind)
    except PermissionError:
        pytest.skip("only root can make a device")
    with pytest.raises(files.UnreadableFileError, match=why):
        files.read(str(final / "a"), limit=4)


def test_a_file_of_somebody_else_is_not_read(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (final / "a").write_bytes(b"1234")
    owner = os.geteuid()
    monkeypatch.setattr(files, "_uid", owner + 1)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)  # that it is ours is what changes
    monkeypatch.setattr(files, "_uid", owner + 1)  # which was asked for at the import
    with pytest.raises(files.UnreadableFileError, match=f"it belongs to another user \\(uid {owner}\\)"):
        files.read(str(final / "a"), limit=4)


def test_a_file_that_may_not_be_opened_is_unreadable(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (final / "a").write_bytes(b"1234")
    refuse(monkeypatch, "open", errno.EACCES)  # root may open everything
    with pytest.raises(files.UnreadableFileError, match="it may not be read"):
        files.read(str(final / "a"), limit=4)


def test_a_file_that_grows_while_it_is_read_is_too_large(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = final / "a"
    path.write_bytes(b"1234")
    real = os.fstat

    def fstat_and_grow(fd: int) -> os.stat_result:
        status = real(fd)
        path.write_bytes(b"12345")
        return status

    monkeypatch.setattr(os, "fstat", fstat_and_grow)
    with pytest.raises(files.UnreadableFileError, match="it is larger than 4 bytes"):
        files.read(str(path), limit=4)


def test_of_a_file_that_grows_while_its_end_is_read_no_more_is_read_than_was_asked_for(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = final / "a"
    path.write_bytes(b"1234")
    real = os.pread

    def read_and_grow(fd: int, size: int, at: int) -> bytes:
        path.write_bytes(b"123456")
        return real(fd, size, at)

    monkeypatch.setattr(os, "pread", read_and_grow)
    assert b"3456" == files.read(str(path), limit=4, newest=True)


def test_what_is_open_can_be_read_from_its_beginning_as_often_as_one_likes(final: Path) -> None:
    (final / "a").write_bytes(b"1234")
    fd = files.open_file(str(final / "a"), writing=True)
    for limit in (4, 5):
        assert b"1234" == files.read_descriptor(fd, "a", limit=limit)
    os.close(fd)
    assert b"1234" == (final / "a").read_bytes()


# --- fsyncs of a directory ---


def test_who_asks_for_an_fsync_while_one_is_under_way_gets_another_one(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one may have begun before what he wants to be durable; but all who ask meanwhile share theirs."""
    # given
    begun, go_on = threading.Event(), threading.Event()
    fsyncs: list[int] = []

    def fsync(fd: int) -> None:
        fsyncs.append(fd)
        begun.set()
        assert go_on.wait(PATIENCE)

    # when
    monkeypatch.setattr(os, "fsync", fsync)
    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(files.sync_directory, str(final))]
        assert begun.wait(PATIENCE)
        asking += [pool.submit(files.sync_directory, str(final)) for _ in range(4)]
        go_on.set()
        for each in asking:
            each.result(PATIENCE)

    # then
    assert 2 <= len(fsyncs) <= 5
    before = len(fsyncs)
    files.sync_directory(str(final))
    assert before + 1 == len(fsyncs), "and who comes later has one of his own"


def test_an_fsync_does_not_wait_for_ever_for_a_thread_that_wants_it_too(
    final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0.01)
    hangs = files.AboutToSync(str(final))
    hangs.__enter__()
    files.sync_directory(str(final))
    assert not files._shared(str(final)).coming, "and the next one does not wait at all"
    hangs.__exit__()


def test_an_fsync_that_failed_is_not_taken_for_one(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, "fsync", errno.EIO)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                files.sync_directory(str(final))
    files.sync_directory(str(final))
