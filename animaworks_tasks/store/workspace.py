"""The files of one running task: its log, its progress, its results."""

import contextlib
import errno
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from animaworks_tasks.fs import files, json
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.store.protocol import Progress
from animaworks_tasks.task.model import Task
from animaworks_tasks.task.pending import SIZE_LIMIT


class DirectoryWorkspace:
    """
    The files of one running task; see :class:`~animaworks_tasks.tools.context.Workspace`.

    Attributes:
        log_path: Where its log is.
        progress_path: Where its last progress report is.
    """

    def __init__(self, layout: Layout, task_id: str, disk: Disk) -> None:
        self._layout, self._task_id, self._disk = layout, task_id, disk
        self.log_path, self.progress_path = layout.log(task_id), f"{layout.progress}/{task_id}.json"

    def write_log(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            files.append(self.log_path, data)

    def report_progress(self, fraction: float | None, message: str) -> None:
        report = {"fraction": fraction, "message": message, "at": time.time()}
        with contextlib.suppress(OSError, ValueError):
            self._disk.show(self.progress_path, json.dump(report))

    def cancel_requested(self) -> bool:
        return os.path.lexists(self._layout.cancel(self._task_id))

    def keep_result(self, data: bytes) -> str:
        directory = self._results()
        name = "result.txt"
        files.discard(os.path.join(directory, name))  # of an earlier attempt
        self._disk.publish("result", directory, name, data)
        return os.path.join("results", self._task_id, name)

    def scratch(self) -> Path:
        return Path(self._results())

    def _results(self) -> str:
        directory = os.path.join(self._layout.results, self._task_id)
        self._disk.sync("result.sync-directory", *files.make_directory(directory))
        if os.path.islink(directory):  # what is written there would land elsewhere, and a prune would not find it
            raise NotADirectoryError(errno.ENOTDIR, "it is a symbolic link", directory)
        return directory


def kept_result(layout: Layout, task: Task) -> bytes | None:
    """
    Return the whole result of *task* where its record says that a file has it; None where it says of none.

    Raises:
        UnreadableFileError: What it names is no file of this task: a record may be written by anyone.
        OSError: It cannot be read.
    """
    if task.result_file is None:
        return None
    path = os.path.normpath(os.path.join(layout.root, task.result_file))
    if "\0" in path or not path.startswith(os.path.join(layout.results, task.id) + os.sep):
        raise files.UnreadableFileError(errno.EINVAL, "it is none of the task's own results", path)
    return files.read(path, limit=sys.maxsize)


def progress_from(path: str) -> Progress | None:
    """Return the report that the progress file *path* holds; None where it holds none."""
    # No JSON, a number beyond all bounds, a time beyond the calendar.
    with contextlib.suppress(ValueError, OverflowError, OSError):
        match json.load(files.read(path, limit=SIZE_LIMIT)):
            case {"fraction": float() | int() | None as fraction, "message": str() as message, "at": float() as at}:
                moment = datetime.fromtimestamp(at, UTC)
                return Progress(None if fraction is None else float(fraction), message, moment)
    return None
