"""The one place that puts bytes on disk: whole or absent, read with suspicion, locked as long as a process lives."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks.fs import files
from animaworks_tasks.fs.doorbell import FifoDoorbell, is_heard, ring

ID: Final = "0123456789ab"
each_durability: Final = pytest.mark.parametrize("sync", [False, True], ids=["process", "full"])


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def final(tmp_path: Path) -> Path:
    (tmp_path / "final").mkdir()
    return tmp_path / "final"


def publish(final: Path, data: bytes, tmp: Path, *, sync: bool = False, view: Path | None = None) -> bool:
    return files.publish(str(final), "a", data, tmp=str(tmp), sync=sync, view=view and str(view))


def refuse(patch: pytest.MonkeyPatch, call: str, code: int, *, after: int = 0) -> None:
    """Let ``os.<call>`` fail once it was called *after* times."""
    real: Callable[..., object] = getattr(os, call)
    left = [after]

    def refusing(*args: object, **options: object) -> object:
        if left[0] == 0:
            raise OSError(code, os.strerror(code))
        left[0] -= 1
        return real(*args, **options)

    patch.setattr(os, call, refusing)


# --- publish ---


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


@each_durability
def test_who_is_to_know_that_a_file_has_appeared_is_told_while_its_name_is_being_made_durable(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch, *, sync: bool
) -> None:
    # given
    happened: list[str] = []
    fsync = os.fsync

    def synced(fd: int) -> None:
        happened.append("name" if stat.S_ISDIR(os.fstat(fd).st_mode) else "bytes")
        fsync(fd)

    def appeared() -> None:
        happened.append(f"told of {(final / 'a').read_text()}")

    monkeypatch.setattr(os, "fsync", synced)

    # when
    for data in (b"this", b"that"):
        files.publish(str(final), "a", data, tmp=str(tmp), sync=sync, appeared=appeared)

    # then the bytes were durable before, and of a name that was taken nobody is told
    assert (["bytes", "told of this", "name", "bytes", "name"] if sync else ["told of this"]) == happened


def test_a_name_that_is_a_dangling_link_is_taken(final: Path, tmp: Path) -> None:
    (final / "a").symlink_to(final / "b")
    assert not publish(final, b"data", tmp)
    assert ["a"] == os.listdir(final)


def test_a_view_is_another_name_of_the_same_bytes_whatever_it_named_before(final: Path, tmp: Path) -> None:
    # given a view of something older
    view = final / "view"
    view.write_bytes(b"older")

    # then
    publish(final, b"newer", tmp, view=view)
    assert view.samefile(final / "a")
    assert [] == os.listdir(tmp)


def test_a_view_stays_where_the_name_was_taken(final: Path, tmp: Path) -> None:
    publish(final, b"first", tmp, view=final / "view")
    publish(final, b"second", tmp, view=final / "view")
    assert b"first" == (final / "view").read_bytes()


def test_a_view_that_cannot_be_made_costs_nothing_but_the_view(final: Path, tmp: Path) -> None:
    (final / "view").mkdir()
    assert publish(final, b"data", tmp, view=final / "view")
    assert (b"data", []) == ((final / "a").read_bytes(), os.listdir(tmp))


def test_a_view_is_mended_from_what_it_should_show(final: Path, tmp: Path) -> None:
    # given a view that is missing, one that is older, and one that is right
    publish(final, b"data", tmp)
    (final / "older").write_bytes(b"older")
    os.link(final / "a", final / "right")

    # then
    for view in ("missing", "older", "right"):
        files.show(str(final / "a"), str(final / view), tmp=str(tmp))
        assert (final / view).samefile(final / "a")
    assert [] == os.listdir(tmp)


def test_mending_a_view_of_what_is_gone_is_no_error(final: Path, tmp: Path) -> None:
    files.show(str(final / "gone"), str(final / "view"), tmp=str(tmp))
    assert ([], []) == (os.listdir(final), os.listdir(tmp))


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
            publish(final, b"data", tmp, sync=True, view=final / "view")
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
    """The second fsync is the directory's: whoever tries again finds the name taken, and makes it durable."""
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


def test_a_publish_for_processes_syncs_nothing(final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = synced(monkeypatch)
    publish(final, b"data", tmp)
    assert [] == paths


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV])
def test_where_links_are_refused_a_rename_publishes_and_still_replaces_nothing(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse(monkeypatch, "link", code)
    assert publish(final, b"first", tmp)
    assert not publish(final, b"second", tmp)
    assert (b"first", []) == ((final / "a").read_bytes(), os.listdir(tmp))


# --- directories, replacing, appending ---


def test_directories_are_made_with_all_above_them_for_us_alone(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_directory(str(tmp_path / "a/b/c"))
        assert [0o700] * 3 == [stat.S_IMODE((tmp_path / d).stat().st_mode) for d in ("a", "a/b", "a/b/c")]


def test_making_directories_tells_which_ones_are_to_be_synced(tmp_path: Path) -> None:
    assert [str(tmp_path), str(tmp_path / "a")] == files.make_directory(str(tmp_path / "a/b"))
    assert [] == files.make_directory(str(tmp_path / "a/b"))


def test_a_replaced_file_has_the_new_content_or_the_old(
    final: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = final / "a"
    files.replace(str(path), b"old", tmp=str(tmp))
    with monkeypatch.context() as patch:
        refuse(patch, "write", errno.ENOSPC)
        with pytest.raises(OSError, match="No space"):
            files.replace(str(path), b"new", tmp=str(tmp))
    assert (b"old", []) == (path.read_bytes(), os.listdir(tmp))
    files.replace(str(path), b"new", tmp=str(tmp))
    assert (b"new", []) == (path.read_bytes(), os.listdir(tmp))


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
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)  # that it is ours is what changes
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
    real = os.lseek

    def seek_and_grow(fd: int, position: int, whence: int) -> int:
        path.write_bytes(b"123456")
        return real(fd, position, whence)

    monkeypatch.setattr(os, "lseek", seek_and_grow)
    assert b"3456" == files.read(str(path), limit=4, newest=True)


# --- doorbell ---


@pytest.fixture
def bell(final: Path) -> FifoDoorbell:
    return FifoDoorbell(str(final / "doorbell"))


def test_ids_that_were_rung_between_two_waits_are_all_heard(final: Path, bell: FifoDoorbell) -> None:
    for task_id in (ID, "f" * 12, ID):
        ring(str(final / "doorbell"), task_id)
    assert {ID, "f" * 12} == bell.wait(10)
    assert set() == bell.wait(0)
    bell.close()


def test_a_ring_and_a_wake_at_once_lose_nothing(final: Path, bell: FifoDoorbell) -> None:
    bell.wake()
    ring(str(final / "doorbell"), ID)
    assert {ID} == bell.wait(10)
    bell.close()


def test_a_full_doorbell_makes_nobody_wait(final: Path, bell: FifoDoorbell) -> None:
    """A pipe holds 64 KiB: what does not fit is left to the scan, and who has reason to wake is awake."""
    for _ in range(6_000):
        ring(str(final / "doorbell"), ID)
    for _ in range(70_000):
        bell.wake()
    assert {ID} == bell.wait(10)
    bell.close()


def test_noise_in_the_fifo_is_passed_over(final: Path, bell: FifoDoorbell) -> None:
    with open(final / "doorbell", "wb", buffering=0) as noise:
        noise.write(b"short\n" + b"x" * 100 + b"\n" + b"\xff" * 12 + b"\n" + b"half of a line")
    assert bell.wait(10) <= {"\ufffd" * 12}
    ring(str(final / "doorbell"), ID)
    bell.wait(10)  # this one ends the half line
    ring(str(final / "doorbell"), ID)
    assert {ID} == bell.wait(10)
    bell.close()


def test_ringing_where_nobody_listens_is_no_error(final: Path) -> None:
    ring(str(final / "nowhere"), ID)
    os.mkfifo(final / "unheard")
    ring(str(final / "unheard"), ID)


def test_a_file_in_the_place_of_the_fifo_is_not_written_to(final: Path) -> None:
    path = final / "doorbell"
    path.write_bytes(b"mine")
    bell = FifoDoorbell(str(path))
    ring(str(path), ID)
    bell.wake()
    assert (set(), b"mine") == (bell.wait(10), path.read_bytes())
    bell.close()


def test_where_there_can_be_no_fifo_a_wake_still_ends_a_wait(final: Path) -> None:
    bell = FifoDoorbell(str(final / "no" / "such" / "directory"))
    bell.wake()
    assert set() == bell.wait(10)
    bell.close()


def test_a_doorbell_is_heard_while_somebody_listens(final: Path) -> None:
    path = str(final / "doorbell")
    assert not is_heard(path)
    bell = FifoDoorbell(path)
    assert is_heard(path)
    bell.close()
    assert not is_heard(path)


def test_two_hosts_that_make_the_fifo_at_once_both_listen(final: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given one that looked before the other had made it
    first = FifoDoorbell(str(final / "doorbell"))
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    second = FifoDoorbell(str(final / "doorbell"))

    # then one of them hears each ring
    ring(str(final / "doorbell"), ID)
    assert {ID} == second.wait(10)
    ring(str(final / "doorbell"), ID)
    assert {ID} == first.wait(10)
    first.close()
    second.close()
