"""What speaks against a directory, as far as no other user and no mount is needed; the rest is in tests/filesystems."""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from animaworks_tasks.fs import trust
from animaworks_tasks.fs.trust import doubts


def said(path: Path, *, shared: bool = False) -> list[str]:
    return [doubt.what for doubt in doubts(str(path), shared=shared)]


def mounted_as(kind: str, where: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the kernel say that *where* is on a file system of this *kind*, in the words of proc_pid_mountinfo(5)."""
    device = where.stat().st_dev
    mine = f"36 35 {os.major(device)}:{os.minor(device)} / {where} rw,noatime master:1 - {kind} /dev/sd rw\n"
    lines = f"22 27 0:99 / /proc rw - proc proc rw\n{mine}37 35 0:98 / /mnt rw - tmpfs none rw\n"
    (where / "mountinfo").write_text(lines)
    patch.setattr(trust, "_MOUNTS", str(where / "mountinfo"))


REMOTE = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "pvfs2",
    "vboxsf",
    "virtiofs",
    "ceph",
    "fuse",
    "fuseblk",
    "fuse.sshfs",
    "fuseblk.exfat",
    "fuse.glusterfs",
]


@pytest.mark.parametrize("kind", REMOTE)
def test_a_file_system_that_is_not_local_needs_a_word_of_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounted_as(kind, tmp_path, monkeypatch)
    (what,) = said(tmp_path / "not" / "there" / "yet")
    assert f"its file system is {kind}, whose locks may not keep other machines out: " in what
    assert [] == said(tmp_path, shared=True)


@pytest.mark.parametrize("kind", ["vfat", "exfat", "msdos"])
def test_one_without_links_and_modes_is_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounted_as(kind, tmp_path, monkeypatch)
    assert [f"its file system is {kind}, which has no hard links and no modes"] == said(tmp_path, shared=True)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fusectl"])
def test_a_local_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounted_as(kind, tmp_path, monkeypatch)
    assert [] == said(tmp_path)


def test_where_the_kernel_does_not_say_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_MOUNTS", str(tmp_path / "none"))
    assert [] == said(tmp_path)


def test_links_are_followed_step_by_step(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real").chmod(0o777)
    (tmp_path / "relative").symlink_to("real/../real/./deep")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    what = f"anybody may write to {tmp_path / 'real'}, and so can replace the whole store"
    assert what in said(tmp_path / "absolute" / "mei")


def test_a_link_in_the_store_is_followed_and_no_store_sticks(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "mei" / "state").mkdir(parents=True)
    inside = tmp_path / "mei" / "state" / "pending"
    inside.symlink_to(tmp_path / "open")
    for mode in (0o777, 0o1777):
        (tmp_path / "open").chmod(mode)
        what = [f"anybody may write to {tmp_path / 'open'}, and so can replace the whole store"]
        assert what == [doubt.what for doubt in doubts(str(tmp_path / "mei"), [str(inside)])]
        assert what == said(inside)
    assert [] == said(tmp_path / "open" / "mei")  # which will be ours in a sticky directory


def test_a_part_of_the_store_on_another_file_system_is_refused(tmp_path: Path) -> None:
    memory = "/dev/shm"  # noqa: S108 - nothing secret goes there
    if not os.path.isdir(memory) or tmp_path.stat().st_dev == os.stat(memory).st_dev:
        pytest.skip("there is no other file system here")
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        (tmp_path / "pending").symlink_to(elsewhere)
        inside = str(tmp_path / "pending")
        (doubt,) = doubts(str(tmp_path), [inside])
        assert (True, f"{inside} lies on another file system than {tmp_path}") == (doubt.refuses, doubt.what)


def test_a_link_that_leads_nowhere_is_said_by_the_kernel_s_own_word(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links") as error:
        said(tmp_path / "loop" / "mei")
    assert errno.ELOOP == error.value.errno


@pytest.mark.parametrize(("mapped", "trusted"), [("0 1000 1\n", True), ("0 0 4294967295\n", False), ("", True)])
def test_a_user_without_a_number_here_is_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: str, *, trusted: bool
) -> None:
    """In a user namespace that does not map root, all that is root's seems to be nobody's."""
    (tmp_path / "uid_map").write_text(mapped)
    monkeypatch.setattr(trust, "_USERS", str(tmp_path / "uid_map"))
    assert trusted is trust._is_trusted(65534)


def test_an_access_list_behind_a_group_of_our_own_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_is_private", lambda _: True)
    entries = (
        (0x01, 7, -1),
        (0x02, 7, 12345),
        (0x04, 7, -1),
        (0x10, 7, -1),
        (0x20, 0, -1),
    )  # acl(5): a user of its own
    try:
        data = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        os.setxattr(tmp_path, "system.posix_acl_access", data)
    except OSError:
        pytest.skip("no access lists here")
    assert [f"its group may write to {tmp_path}, and so can replace the whole store"] == said(tmp_path)


def test_a_group_of_our_own_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    tmp_path.chmod(0o770)
    name = pwd.getpwuid(os.geteuid()).pw_name
    for group, warned in (
        (SimpleNamespace(gr_name=name, gr_mem=[]), False),
        (SimpleNamespace(gr_name=name, gr_mem=[name, "eve"]), True),
        (SimpleNamespace(gr_name="staff", gr_mem=[]), True),
    ):
        monkeypatch.setattr(grp, "getgrgid", lambda _, group=group: group)
        assert warned is bool(said(tmp_path))
        assert not any(doubt.refuses for doubt in doubts(str(tmp_path)))
