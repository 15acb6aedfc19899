"""Which records of a directory are the newest, by the times of their files; one stat of each, and none is read."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from typing import Final

from animaworks_tasks.task.model import is_task_id

_TICK: Final = 20_000_000  # nanoseconds; the time of a file is no finer than the kernel's tick


def times(directory: str, ending: str) -> Iterator[tuple[int, str]]:
    """Yield for each record in *directory*, whose name ends in *ending*, its file's time, in ns, and its id."""
    with os.scandir(directory) as entries:
        for entry in entries:
            task_id = entry.name.removesuffix(ending)
            if task_id != entry.name and is_task_id(task_id):
                try:
                    yield entry.stat(follow_symlinks=False).st_mtime_ns, task_id
                except FileNotFoundError:
                    continue  # it moved on


def newest(directory: str, ending: str, limit: int) -> list[str]:
    """Return the ids of the *limit* newest, and of those that are as good as equally old as the last of them."""
    found = list(times(directory, ending))
    chosen = heapq.nlargest(limit, found)
    least = chosen[-1][0] - _TICK if chosen else 0
    return [task_id for at, task_id in found if chosen and at >= least]
