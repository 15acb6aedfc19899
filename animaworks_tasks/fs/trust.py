"""
Whether the way to a store can be trusted: what its file system is, and who else could change what lies there.

Imports next to nothing: ``animaworks-tool submit`` asks each time. Nothing here changes anything.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

_MOUNTS: Final = "/proc/self/mountinfo"
_USERS: Final = "/proc/self/uid_map"
_ROOT: Final = 0
_MOST_LINKS: Final = 40  # on one way, as the kernel has it
_BARE: Final = {"exfat", "msdos", "vfat"}
_REMOTE: Final = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
}  # fmt: skip


class Doubt:
    """
    A reason not to trust a directory.

    Attributes:
        where: The directory, or the link to one.
        what: What is wrong with it, and why that matters.
        todo: The next step, for a person.
        refuses: Whether no store is kept below it; else it is a warning.
        mode: What mode it should have; None where another one does not help.
    """

    def __init__(self, where: str, what: str, todo: str, *, refuses: bool = True, mode: int | None = None) -> None:
        self.where, self.what, self.todo, self.refuses, self.mode = where, what, todo, refuses, mode


def doubts(path: str, inside: Iterable[str] = (), *, shared: bool = False) -> Iterator[Doubt]:
    """
    Yield what speaks against a store at *path*: as far as that is there; the rest is ours once we have made it.

    Root and ourselves are trusted. Where others may write, a sticky directory will do, as /tmp is, if the next one on
    the way is ours; but not in the store itself.

    Args:
        path: Absolute.
        inside: Directories that belong to the store besides.
        shared: Whether its user says that the locks of its file system keep out the processes of other machines too.
    """
    device = 0
    for step, status, is_end in _way(path):
        device = status.st_dev
        yield from _doubt(step, status, sticks=not is_end)
    for end in inside:
        try:
            status, is_end = os.lstat(end), True
        except FileNotFoundError:
            continue
        way = _way(end) if stat.S_ISLNK(status.st_mode) else ((end, status, True),)
        for step, status, is_end in way:
            yield from _doubt(step, status, sticks=not is_end)
        if is_end and status.st_dev != device:
            yield Doubt(end, f"{end} lies on another file system than {path}", "keep the whole store on one")
    kind = file_system(device)
    if kind in _BARE:
        yield Doubt(path, f"its file system is {kind}, which has no hard links and no modes", "use one such as ext4")
    elif kind is not None and not shared and (kind in _REMOTE or kind.startswith(("fuse.", "fuseblk."))):
        what = f"its file system is {kind}, whose locks may not keep other machines out: a task could run twice at once"
        todo = "use a local one; or, if you know that its locks do, TaskStore(..., shared=True) or --shared"
        yield Doubt(path, what, todo)


def _way(path: str) -> Iterator[tuple[str, os.stat_result, bool]]:
    """
    Yield what lies on the way to *path*, up to the first that is missing: each with whether it is what *path* leads to.

    Links are on the way, and so is what they lead to.
    """
    here, names, links = "/", path.split("/")[::-1], 0
    yield here, os.lstat(here), False
    while names:
        name = names.pop()
        if name == "..":
            here = os.path.dirname(here)
        elif name not in {"", "."}:
            step = os.path.join(here, name)
            try:
                status = os.lstat(step)
            except FileNotFoundError:
                return
            is_link = stat.S_ISLNK(status.st_mode)
            yield step, status, not (is_link or any(names))
            if not is_link:
                here = step
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), step)
            target = os.readlink(step)
            here = "/" if target.startswith("/") else here
            names += target.split("/")[::-1]


def _doubt(step: str, status: os.stat_result, *, sticks: bool) -> Iterator[Doubt]:
    if not _is_trusted(status.st_uid):
        what = f"{step} belongs to another user (uid {status.st_uid}), who can replace the whole store"
        yield Doubt(step, what, "move the Anima to a directory of yours")
    elif stat.S_ISDIR(status.st_mode) and not (sticks and status.st_mode & stat.S_ISVTX):
        mode = stat.S_IMODE(status.st_mode)
        # With an access list, the group's bits are what anybody in it may have at most.
        group = mode & stat.S_IWGRP and (_has_list(step) or not _is_private(status.st_gid))
        anybody = mode & stat.S_IWOTH
        if anybody or group:
            who = "anybody" if anybody else "its group"
            what, todo = f"{who} may write to {step}, and so can replace the whole store", f"`chmod go-w {step}`"
            yield Doubt(step, what, todo, refuses=bool(anybody), mode=mode & ~0o022)


def _is_trusted(uid: int) -> bool:
    if uid in {_ROOT, os.geteuid()}:
        return True
    try:  # one that has no number in this user namespace, as root has none in some: the system's
        with open(_USERS, encoding="ascii") as lines:
            ranges = [[int(number) for number in line.split()] for line in lines]
    except (OSError, ValueError):
        return False
    return not any(first <= uid < first + count for first, _, count in ranges)


def _has_list(path: str) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(path)  # acl(5)
    except OSError:
        return False


def _is_private(gid: int) -> bool:
    """Return whether a group is that of our user alone, as many systems make one for each."""
    import grp
    import pwd

    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and not set(group.gr_mem) - {name}


def file_system(device: int) -> str | None:
    """Return the type of the file system with this ``st_dev``; None where the kernel does not say, as for btrfs."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    try:
        with open(_MOUNTS, "rb") as lines:
            line = next((line for line in lines if line.split(b" ", 3)[2] == number), b"")
    except OSError:
        return None
    return line.partition(b" - ")[2].split(b" ")[0].decode("ascii", "replace") or None
