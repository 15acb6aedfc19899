"""The changes to directories that a protocol is made of: a file is published whole, and never replaces another."""

from __future__ import annotations

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks.fs import files
from animaworks_tasks.fs.disk import Disk
from tests.fs.conftest import refuse
from tests.processes import PATIENCE

each_durability: Final = pytest.mark.parametrize("sync", [False, True], ids=["process", "full"])


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def publish(final: Path, data: bytes, tmp: Path, *, sync: bool = False) -> bool:
    return Disk(str(tmp), durable=sync).publish("submit", str(final), "a", data)


@each_durability
@pytest.mark.parametrize("data", [b"", b"{}\n", bytes(3_000_000)], ids=["empty", "small", "large"])
def test_what_is_published_is_there_whole_for_our_eyes_only_and_no_draft_is_left(
    final: Path, tmp: Path, data: bytes, *, sync: bool
) -> None:
    assert publish(final, data, tmp, sync=sync)
    assert data == (final / "a").read_bytes()
    assert 0o600 == stat.S_IMODE((final / "a").stat().st_mode)
    assert [] == os.listdir(tmp)


@each_durability
def test_a_name_that_is_taken_is_never_replaced(final: Path, tmp: Path, *, sync: bool) -> None:
    publish(final, b"first", tmp, sync=sync)
    assert not publish(final, b"second", tmp, sync=sync)
    assert (b"first", []) == ((final / "a").read_bytes(), os.listdir(tmp))


def test_a_name_that_is_a_dangling_link_is_taken(final: Path, tmp: Path) -> None:
    (final / "a").symlink_to(final / "b")
    assert not publish(final, b"data", tmp)
    assert ["a"] == os.listdir(final)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("write", errno.ENOSPC),
        ("write", errno.EIO),
        ("fsync", errno.EIO),
        ("fsync", errno.ENOSPC),
        ("link", errno.ENOSPC),
        ("link", errno.EIO),
        ("open", errno.EMFILE),
    ],
)
def test_what_the_disk_refuses_leaves_nothing_anywhere(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, call, code)
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            publish(final, b"data", tmp, sync=True)
    assert code == caught.value.errno
    assert ([], []) == (os.listdir(final), os.listdir(tmp))
    assert publish(final, b"data", tmp, sync=True), "and is taken once the disk is well again"


def test_a_disk_that_takes_a_part_is_given_the_rest(final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    publish(final, b"0123456789", tmp)
    assert b"0123456789" == (final / "a").read_bytes()


def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.write, [5]

    def write(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        left[0] -= 1
        return real(fd, bytes(data)[:1])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="full"):
            publish(final, b"0123456789", tmp)
    assert ([], []) == (os.listdir(final), os.listdir(tmp))


def test_a_directory_that_cannot_be_synced_is_an_error_though_the_name_may_stand(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second fsync is the directory's: a second try finds the name taken, and makes it durable."""
    with monkeypatch.context() as patch:
        refuse(patch, "fsync", errno.EIO, after=1)
        with pytest.raises(OSError, match="Input/output"):
            publish(final, b"data", tmp, sync=True)
    assert [] == os.listdir(tmp)
    assert not publish(final, b"data", tmp, sync=True)


def synced(patch: pytest.MonkeyPatch) -> list[str]:
    """Note the path of everything that is fsynced."""
    paths: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    patch.setattr(os, "fsync", fsync)
    return paths


def test_a_durable_publish_syncs_the_draft_and_then_the_directory_also_where_the_name_was_taken(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = synced(monkeypatch)
    for _ in range(2):
        publish(final, b"data", tmp, sync=True)
        draft, directory = paths[-2:]
        assert (str(tmp), str(final)) == (os.path.dirname(draft), directory)
    assert 4 == len(paths)


def test_threads_that_publish_together_share_the_fsync_of_the_directory(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    paths = synced(monkeypatch)
    together = threading.Barrier(4)

    class Together(Disk):
        def link(self, step: str, source: str, target: str) -> bool:
            together.wait(PATIENCE)
            return super().link(step, source, target)

    disk = Together(str(tmp), durable=True)

    def publish_together(name: str) -> bool:
        return disk.publish("finish", str(final), name, b"data")

    # when
    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(publish_together, "abcd"))

    # then
    assert ([True] * 4, ["a", "b", "c", "d"]) == (published, sorted(os.listdir(final)))
    assert (4, 1) == (len(paths) - paths.count(str(final)), paths.count(str(final)))


def test_nobody_waits_for_a_publish_that_the_disk_refused(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, "write", errno.ENOSPC)
        with pytest.raises(OSError, match="No space"):
            publish(final, b"data", tmp, sync=True)
    assert publish(final, b"data", tmp, sync=True)


def test_a_publish_for_processes_syncs_nothing(final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = synced(monkeypatch)
    publish(final, b"data", tmp)
    assert [] == paths


def test_a_file_has_the_time_that_it_is_given(final: Path, tmp: Path) -> None:
    Disk(str(tmp), durable=False).publish("finish", str(final), "a", b"data", at=1767225600.25)
    assert files.file_time(1767225600.25) == (final / "a").stat().st_mtime_ns


# --- many ---


@each_durability
def test_many_are_published_whole_and_what_has_a_name_already_stays(final: Path, tmp: Path, *, sync: bool) -> None:
    # given
    (final / "7").write_bytes(b"first")

    # when
    contents = [(str(number), bytes(number)) for number in range(100)]
    published, problem = Disk(str(tmp), durable=sync).publish_many("submit", str(final), iter(contents))

    # then
    assert ({name for name, _ in contents if name != "7"}, None) == (set(published), problem)
    assert {**dict(contents), "7": b"first"} == {path.name: path.read_bytes() for path in final.iterdir()}
    assert [] == os.listdir(tmp)


def test_many_share_the_fsync_of_their_directory(final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = synced(monkeypatch)
    Disk(str(tmp), durable=True).publish_many("submit", str(final), ((str(number), b"x") for number in range(9)))
    assert (9, [str(final)]) == (len(paths[:-1]), paths[-1:])
    assert {str(tmp)} == {os.path.dirname(path) for path in paths[:-1]}


# --- linking, unlinking, showing ---


def test_a_link_is_not_followed_and_a_name_that_is_taken_stays(final: Path, tmp: Path) -> None:
    disk = Disk(str(tmp), durable=False)
    (final / "a").write_bytes(b"data")
    (final / "link").symlink_to("a")
    assert disk.link("claim.link", str(final / "link"), str(final / "b"))
    assert (final / "b").is_symlink()
    assert not disk.link("claim.link", str(final / "a"), str(final / "b"))
    with pytest.raises(FileNotFoundError):
        disk.link("claim.link", str(final / "nowhere"), str(final / "c"))


def test_a_name_is_taken_away_whatever_stands_there(final: Path, tmp: Path) -> None:
    disk = Disk(str(tmp), durable=False)
    (final / "file").touch()
    (final / "directory").mkdir()
    (final / "directory" / "inside").touch()
    (final / "link").symlink_to(tmp)
    for name in ("file", "directory", "link"):
        assert [True, False] == [disk.unlink("finish.unlink", str(final / name)) for _ in range(2)]
    assert ([], True) == (os.listdir(final), tmp.exists())


@pytest.mark.parametrize(("durable", "expected"), [(True, 2), (False, 0)])
def test_directories_are_synced_where_power_cuts_count(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool, expected: int
) -> None:
    paths = synced(monkeypatch)
    Disk(str(tmp), durable=durable).sync("claim.sync", str(final), str(tmp))
    assert [str(final), str(tmp)][:expected] == paths


def test_what_is_shown_is_the_new_content_or_the_old_and_is_not_fsynced(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    disk, path = Disk(str(tmp), durable=True), final / "a"
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail(f"fsync({fd})"))
    disk.show(str(path), b"old")

    # when
    with monkeypatch.context() as patch:
        refuse(patch, "write", errno.ENOSPC)
        with pytest.raises(OSError, match="No space"):
            disk.show(str(path), b"new")

    # then
    assert (b"old", []) == (path.read_bytes(), os.listdir(tmp))
    disk.show(str(path), b"new")
    assert (b"new", []) == (path.read_bytes(), os.listdir(tmp))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_what_is_shown_takes_the_place_of_a_link_and_not_of_what_it_leads_to(final: Path, tmp: Path) -> None:
    (final / "victim").write_bytes(b"as it was")
    (final / "a").symlink_to("victim")
    Disk(str(tmp), durable=False).show(str(final / "a"), b"new")
    assert (b"as it was", b"new") == ((final / "victim").read_bytes(), (final / "a").read_bytes())
    assert not (final / "a").is_symlink()
