"""
The changes that a protocol makes to directories, each under the name of its step.

A name is the row of the table in docs/architecture.md and what is done there: ``claim.link``, ``finish.sync``. So the
code reads like the table, and a test can kill a process at a step, leave the step out, or turn two round.

*Publishing* makes a file appear whole under its final name, and never replaces one: write a draft, fsync it, link it,
fsync the directory. Why link and unlink rather than rename: in the POSIX minimum a rename across directories can lose
the new name and keep the removal.

Imports nothing that ``animaworks-tool submit`` does not need.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import count

from animaworks_tasks.errors import StoreError
from animaworks_tasks.fs import files
from animaworks_tasks.fs.process import pid

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from animaworks_tasks.fs.locks import Lock

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # how file systems say that they have none
_NOBODYS = os.urandom(6).hex()  # in the names of our drafts; a forked child has another process id
_numbers = count(1)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}  # where there may be room again
_SYNCED_AT_ONCE = 4  # threads; measured: with all their files written before, more gain nothing
_OPEN_AT_ONCE = 32  # files, by each of these; the first fsync of them does most of the work of all, so fewer cost more


class Disk:
    """
    Changes directories of one file system.

    Args:
        tmp: Where drafts are written; what lies there is never read.
        durable: Whether what is changed survives a power cut; without, nothing is fsynced.
    """

    def __init__(self, tmp: str, *, durable: bool) -> None:
        self.tmp, self.durable = tmp, durable
        self._is_ours: bool | None = None  # what we make there; None before the first draft

    def write(self, _step: str, name: str, data: bytes, *, at: float | None = None) -> str:
        """
        Write a draft and make its bytes durable; return its path. Who calls links it, and unlinks the draft.

        Args:
            _step: Its name. Every step has one, also where only a test asks for it.
            name: What the draft's name begins with.
            data: All of it.
            at: Unix seconds that the file has as its time; None for now.

        Raises:
            StoreError: What we make there is not ours, so we could not read what we keep, or others could.
            OSError: The disk said no.
        """
        path = self.draft(name)
        try:
            files.write(path, data, sync=self.durable, at=at)
            if not self._is_ours:
                self._check(path)
        except BaseException:
            files.discard(path)
            raise
        return path

    def _check(self, path: str) -> None:
        """Check that a draft is ours alone: a mount, or a server, may give what we make to somebody else."""
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        self._is_ours = status.st_uid == os.geteuid() and mode == files.FILE_MODE
        if not self._is_ours:
            made = f"what we make there belongs to user {status.st_uid} with mode {mode:04o}, not to us with mode 0600"
            raise StoreError(os.path.dirname(self.tmp), f"{made}: its file system or mount does that; use another")

    def link(self, _step: str, source: str, target: str) -> bool:
        """Give *source* the further name *target*; False where that name is taken."""
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            return False
        return True

    def link_held(self, _step: str, lock: Lock, target: str) -> bool:
        """Give the file that *lock* holds the further name *target*; False where that name is taken."""
        try:
            lock.link(target)
        except FileExistsError:
            return False
        return True

    def rename(self, _step: str, source: str, target: str) -> None:
        """Move *source* over whatever *target* names."""
        os.rename(source, target)

    def unlink(self, _step: str, path: str) -> bool:
        """Take the name *path* away, whatever stands there, a directory too; False where nothing did."""
        return files.clear(path)

    def sync(self, _step: str, *directories: str) -> None:
        """Make every entry of *directories* durable, additions and removals alike."""
        if self.durable:
            for directory in directories:
                files.sync_directory(directory)

    def publish(self, row: str, directory: str, name: str, data: bytes, *, at: float | None = None) -> bool:
        """
        Make *data* appear whole as *directory*/*name*: the steps ``<row>.write``, ``<row>.link`` and ``<row>.sync``.

        Args:
            row: Of the table.
            directory: Where it appears.
            name: Its final name; what has it already stays.
            data: All of it.
            at: As for :meth:`write`.

        Returns:
            Whether it was published now; False: the name was taken, and what has it is durable now.

        Raises:
            OSError: It was not published. Nothing is left under the final name, unless it was the directory that could
                not be synced: then the name may stand, and a further try makes it durable.
        """
        with files.AboutToSync(directory):
            draft = self.write(f"{row}.write", name, data, at=at)
            try:
                published = self.link(f"{row}.link", draft, f"{directory}/{name}")
            finally:
                files.discard(draft)
        self.sync(f"{row}.sync", directory)  # also where it was taken: the earlier link need not be durable yet
        return published

    def publish_many(
        self, row: str, directory: str, contents: Iterable[tuple[str, bytes]]
    ) -> tuple[list[str], OSError | None]:
        """
        Publish several new files together: their fsyncs overlap, and the directory is synced once for all.

        Args:
            row: Of the table, as for :meth:`publish`.
            directory: Where they appear.
            contents: Their names and what they hold; made while the first are being written, so it may take its time.

        Returns:
            The names that were free and have their files now, and what the disk said where it did not take all of them;
            those that are named are whole all the same, though perhaps not durable then.

        Raises:
            OSError: Nothing was published, as with whatever *contents* itself raises.
        """
        drafts: dict[str, str] = {}
        published: list[str] = []

        def drafted() -> Iterator[tuple[str, bytes]]:
            for name, data in contents:
                drafts[name] = self.draft(name)
                yield drafts[name], data

        try:
            _write_all(drafted(), sync=self.durable)
            try:
                for name, draft in drafts.items():
                    if self.link(f"{row}.link", draft, f"{directory}/{name}"):
                        published.append(name)
            finally:
                self.sync(f"{row}.sync", directory)
        except OSError as error:
            if not published:
                raise
            return published, error
        finally:
            for draft in drafts.values():
                files.discard(draft)
        return published, None

    def draft(self, name: str) -> str:
        """Return a path for a draft, which nobody else has."""
        return f"{self.tmp}/{name}.{_NOBODYS}.{pid()}.{next(_numbers)}"

    def show(self, path: str, data: bytes) -> None:
        """Make *data* the content of *path* at once, for what a power cut may take: views, progress, the catalogue."""
        draft = self.draft(os.path.basename(path))
        try:
            files.write(draft, data, sync=False)
            os.rename(draft, path)
        except BaseException:
            files.discard(draft)
            raise


def _write_all(contents: Iterator[tuple[str, bytes]], *, sync: bool) -> None:
    if not sync:
        for path, data in contents:
            files.write(path, data, sync=False)
        return
    from concurrent.futures import ThreadPoolExecutor
    from itertools import islice

    batches = iter(lambda: list(islice(contents, _OPEN_AT_ONCE)), [])
    # One after the other, each would wait for the disk; together they wait for it a few times.
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as pool:
        list(pool.map(files.write_together, batches))
