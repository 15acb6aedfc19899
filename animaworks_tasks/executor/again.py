"""Tasks to look at again soon, because the event of a change may come a moment before the change."""

import math
from collections.abc import Iterable
from typing import Final

# Seconds; the kernel frees a lock within 0.025 ms of reporting its last close (measured).
_PAUSES: Final = (0.005, 0.06)


class Again:
    """Ids of tasks, each due twice soon after it was added."""

    def __init__(self) -> None:
        self._due: list[tuple[float, str]] = []

    @property
    def next_at(self) -> float:
        """When the next is due, as the time that :meth:`add` was given; infinity if none is."""
        return min((at for at, _ in self._due), default=math.inf)

    def add(self, task_ids: Iterable[str], now: float) -> None:
        """Add ids, due soon after *now* in seconds of any clock; those that are here stay as they are."""
        known = {task_id for _, task_id in self._due}
        self._due += [(now + pause, task_id) for task_id in set(task_ids) - known for pause in _PAUSES]

    def take(self, now: float) -> set[str]:
        """Return the ids that are due *now*, each once, and drop these times."""
        due = {task_id for at, task_id in self._due if at <= now}
        self._due = [(at, task_id) for at, task_id in self._due if at > now]
        return due
