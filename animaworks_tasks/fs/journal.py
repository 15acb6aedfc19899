"""
``events.jsonl``: one line per thing that happened, for people and audits. Nothing is ever decided by it.

It answers "was this notification delivered, when, to whom". A line is ``{"at": <Unix seconds>, "event": ...,
"task_id": ..., "pid": ...}`` and further facts. Lines may be lost in a power cut or with a full disk; a task never is.
"""

from __future__ import annotations

import os
import time

from animaworks_tasks.fs import files, json
from animaworks_tasks.fs.process import pid

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

_ROTATED_AT: Final = 16 << 20  # bytes; the one before is kept, so the last 16 MiB are always there
_READ_LIMIT: Final = 4 * _ROTATED_AT  # bytes, of either file; of one that nobody put aside for so long, the newest


class Journal:
    """The journal in the file *path*, shared by all processes of a store."""

    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, event: str, *task_ids: str, **facts: object) -> None:
        """Add a line for each task. Never raises: a full disk must not stop what is noted."""
        if len(task_ids) == 1:
            self.add(line(event, task_ids[0], **facts))
        elif template := line(event, "", **facts):  # they differ in their ids alone
            head, _, tail = template.partition(b'""')
            self.add(b"".join([b'%b"%b"%b' % (head, task_id.encode("ascii"), tail) for task_id in task_ids]))

    def add(self, lines: bytes) -> None:
        """Add *lines*, made with :func:`line`, in one write; as :meth:`note`."""
        try:
            files.append(self._path, lines)
        except OSError:
            return

    def rotate(self) -> None:
        """Begin a new file if this one has grown large; the one before stays as ``events.jsonl.1``."""
        try:
            if not self._is_large():
                return
            from animaworks_tasks.fs.locks import hold  # a submit, which takes no locks, imports this file

            lock = hold(self._path)  # of two that come at once, the second would put aside what the first began
            if lock is not None:
                try:
                    if self._is_large():
                        os.rename(self._path, f"{self._path}.1")
                finally:
                    lock.release()
        except OSError:
            return

    def _is_large(self) -> bool:
        return os.stat(self._path).st_size > _ROTATED_AT

    def read(self, task_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the lines, of one task or of all, the oldest first; what is no line of ours is passed over."""
        mention = (task_id or "").encode("utf-8", "replace")  # most lines have none, and need not be read to say so
        for path in (f"{self._path}.1", self._path):
            try:
                data = files.read(path, limit=_READ_LIMIT, newest=True)
            except OSError:
                continue
            for each in data.splitlines():
                found = _read(each) if mention in each else None
                if found is not None and task_id in {None, found.get("task_id")}:
                    yield found


def line(event: str, task_id: str, **facts: object) -> bytes:
    """Return the line that says that *event* happens to a task now; empty where *facts* are no JSON."""
    at = time.time()
    try:
        return json.dump_line({"at": at, "event": event, "task_id": task_id, "pid": pid(), **facts})
    except ValueError:
        return b""


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.load(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
