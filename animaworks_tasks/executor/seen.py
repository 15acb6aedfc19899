"""
What a scheduler knows of tasks: a table of transitions, one function that reads it, one dict. No I/O, no clock.

What the table lacks is refused and changes nothing: no end is reported twice, and no task is started twice.
"""

import enum
import heapq
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import attrs

from animaworks_tasks.executor.resources import Resources
from animaworks_tasks.store.rules import seconds_until_due
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools.registry import Registry

Place = tuple[int, datetime, str]  # of a task in the queue: -priority, submitted_at, id


class Phase(enum.Enum):
    """What a task is to this scheduler."""

    UNKNOWN = "unknown"  # not in the dict
    UNREAD = "unread"  # pending, and its record was not read yet
    READY = "ready"  # in the queue
    LATER = "later"  # in the queue, and not due yet
    OURS = "ours"  # submitted to the backend
    RETURNING = "returning"  # ended and reported; its call has not returned yet
    OTHERS = "others"  # runs elsewhere, or its end is not known yet
    SLOTLESS = "slotless"  # runs elsewhere, in its host and in no worker
    STUCK = "stuck"  # its owner died, and recovery could not finish it
    ENDED = "ended"  # reported, though running/ may still show it


class Change(enum.Enum):
    """What a scheduler does with a task, or reads of it."""

    LISTED = "listed"  # its id is pending
    READ = "read"  # its record is being looked at
    DUE = "due"  # it is pending, and may start
    NOT_DUE = "not due"  # it is pending, and may not start yet
    STARTED = "started"  # it is submitted to the backend
    REFUSED = "refused"  # the backend did not take it
    RETURNED = "returned"  # its call returned from the backend
    RUNS = "runs"  # it has an owner
    RUNS_INSIDE = "runs inside"  # it has an owner, which calls it in its host
    ORPHANED = "orphaned"  # it has no owner, and recovery did not finish it
    DONE = "done"  # its record says so
    RECOVERED = "recovered"  # our own recovery finished it
    GONE = "gone"  # it is not, or no longer, where it was seen


UNKNOWN, UNREAD, READY, LATER, OURS, RETURNING, OTHERS, SLOTLESS, STUCK, ENDED = Phase
_CHANGES: Final = (
    Change.LISTED, Change.DUE, Change.NOT_DUE, Change.STARTED, Change.RUNS, Change.RUNS_INSIDE, Change.ORPHANED,
    Change.DONE, Change.RECOVERED, Change.GONE,
)  # fmt: skip
_MOVES: Final[dict[Phase, Sequence[Phase | None]]] = {  # to which phase each of these changes moves a task
    # from     listed  due    not due started runs    runs inside orphaned done  recovered gone
    UNKNOWN:  (UNREAD, READY, LATER,  OURS,   OTHERS, SLOTLESS,   None,   None,  ENDED,    None),
    UNREAD:   (None,   READY, LATER,  None,   OTHERS, SLOTLESS,   None,   None,  ENDED,    UNKNOWN),
    READY:    (None,   None,  LATER,  OURS,   OTHERS, SLOTLESS,   None,   ENDED, ENDED,    UNKNOWN),
    LATER:    (None,   READY, LATER,  None,   OTHERS, SLOTLESS,   None,   ENDED, ENDED,    UNKNOWN),
    OTHERS:   (None,   READY, LATER,  None,   None,   SLOTLESS,   STUCK,  ENDED, ENDED,    UNKNOWN),
    SLOTLESS: (None,   READY, LATER,  None,   None,   None,       STUCK,  ENDED, ENDED,    UNKNOWN),
    STUCK:    (None,   READY, LATER,  None,   OTHERS, SLOTLESS,   None,   ENDED, ENDED,    UNKNOWN),
}  # fmt: skip
TRANSITIONS: Final[dict[tuple[Phase, Change], Phase]] = {
    (phase, change): after
    for phase, row in _MOVES.items()
    for change, after in zip(_CHANGES, row, strict=True)
    if after is not None
} | {
    (UNREAD, Change.READ): UNKNOWN,
    (OURS, Change.REFUSED): UNKNOWN,
    (OURS, Change.RETURNED): OTHERS,  # until its record is read
    (OURS, Change.RECOVERED): RETURNING,  # its supervisor died
    (RETURNING, Change.RETURNED): ENDED,
    (ENDED, Change.GONE): UNKNOWN,
}

QUEUED: Final = (READY, LATER)
AT_BACKEND: Final = (OURS, RETURNING)
ELSEWHERE: Final = (OTHERS, SLOTLESS, STUCK)
TAKES_SLOT: Final = (*AT_BACKEND, OTHERS)
BUSY: Final = (UNREAD, READY, *TAKES_SLOT, SLOTLESS)  # a scheduler that has none of them is idle


@attrs.frozen
class Seen:
    """
    What a scheduler knows of one task.

    Attributes:
        phase: What the task is to it.
        place: Where the task stands in the queue. Set exactly when *phase* is READY or LATER.
    """

    phase: Phase
    place: Place | None = attrs.field(default=None)

    @place.validator
    def _only_when_queued(self, _: object, place: Place | None) -> None:
        if (self.phase in QUEUED) != (place is not None):
            raise ValueError(f"a task that is {self.phase.value} cannot have the place {place}")


_SET: Final = 0.05  # seconds; by more than this a clock does not run ahead, it was set, or the machine slept
_UNKNOWN: Final = Seen(Phase.UNKNOWN)


class SeenTasks:
    """
    All tasks that a scheduler knows. For one thread at a time, except :meth:`count`.

    The dict is the truth. Derived from it are the ids of each phase and the queue: two heaps, in which an entry that is
    no longer its task's place is skipped. Ready tasks have a heap for each resource.

    Args:
        resources: Say what a task needs, and what is taken; by default tasks need none.
    """

    def __init__(self, resources: Resources | None = None) -> None:
        self._resources = resources or Resources(Registry())
        self._needs: dict[str, str] = {}  # the resource of each task that needs one
        self._seen: dict[str, Seen] = {}
        self._ids: dict[Phase, set[str]] = {phase: set() for phase in Phase}
        self._ready: dict[str | None, list[Place]] = {}
        self._later: list[tuple[float, datetime, Place]] = []  # when due by *steady*, or earlier by not_before
        self._ahead = math.inf  # seconds by which the clock was ahead of *steady*

    def move(self, task_id: str, change: Change, place: Place | None = None) -> bool:
        """
        Apply *change* to a task, and return whether the table has it.

        Args:
            task_id: The task.
            change: What the table lacks for its phase is refused: False, and nothing is changed.
            place: Its place in the queue; None if it is not queued then.

        Raises:
            ValueError: *place* and the new phase do not fit. Nothing is changed.
        """
        return self._move({task_id}, self.phase(task_id), change, place)

    def _move(self, task_ids: set[str], before: Phase, change: Change, place: Place | None = None) -> bool:
        """Do as :meth:`move` with all of *task_ids*, which are in phase *before*. Nothing else reads the table."""
        after = TRANSITIONS.get((before, change))
        if after is None:
            return False
        if after is Phase.UNKNOWN:
            for task_id in task_ids:
                del self._seen[task_id]
                self._needs.pop(task_id, None)
        else:
            self._seen.update(dict.fromkeys(task_ids, Seen(after, place)))
            self._ids[after] |= task_ids
        if after is not before:
            self._ids[before] -= task_ids
        return True

    def phase(self, task_id: str) -> Phase:
        """Return what a task is to this scheduler."""
        return self._seen.get(task_id, _UNKNOWN).phase

    def ids(self, *phases: Phase) -> set[str]:
        """Return the ids of the tasks in *phases*; of UNKNOWN, none."""
        return set[str]().union(*(self._ids[phase] for phase in phases))

    def count(self, *phases: Phase) -> int:
        """Return how many tasks are in *phases*, in constant time; from any thread."""
        return sum(len(self._ids[phase]) for phase in phases)

    # Pending tasks: a set of ids, of which the records of a few at a time are read and queued.

    def list_pending(self, pending: set[str]) -> set[str]:
        """Take the ids of all pending tasks; return those in the queue that are no longer among them."""
        self._move(self._ids[Phase.UNREAD] - pending, Phase.UNREAD, Change.GONE)
        self._move(pending - self._seen.keys(), Phase.UNKNOWN, Change.LISTED)
        return self.ids(*QUEUED) - pending

    def take_unread(self, limit: int) -> set[str]:
        """Return at most *limit* ids of unread records, which the caller reads now."""
        unread = self._ids[Phase.UNREAD]  # popped: faster than iterating over a set that had more
        taken = {unread.pop() for _ in range(min(limit, len(unread)))}
        self._move(taken, Phase.UNREAD, Change.READ)
        return taken

    def queue(self, task: Task, now: datetime, steady: float) -> None:
        """
        Queue a pending task; one that is ready keeps its place.

        Args:
            task: The task.
            now: What the clock says.
            steady: The same moment in seconds of a clock that is never set, such as the monotonic one.
        """
        self._learn(task)
        place = (-task.priority, task.submitted_at, task.id)
        left = seconds_until_due(task, now)
        if task.not_before is None or not left:
            if self.move(task.id, Change.DUE, place):
                self._push(place)
        elif self.move(task.id, Change.NOT_DUE, place):
            heapq.heappush(self._later, (steady + left, task.not_before, place))

    def find_running(self, task: Task) -> None:
        """Leave a running task to its owner; it uses what it needs."""
        self._learn(task)
        self.move(task.id, Change.RUNS_INSIDE if task.is_in_process else Change.RUNS)

    def _learn(self, task: Task) -> None:
        if resource := self._resources.of(task):
            self._needs[task.id] = resource

    def next_due(self) -> float:
        """Return when the next entry of the later heap is due, by *steady*; infinity if there is none."""
        return self._later[0][0] if self._later else math.inf

    def make_ready(self, now: datetime, steady: float) -> None:
        """Move what is due by *now* or *steady* to the ready tasks; arguments as for :meth:`queue`."""
        ahead = now.timestamp() - steady
        if ahead > self._ahead + _SET:
            self._later = [
                (min(due, steady + (not_before - now).total_seconds()), not_before, place)
                for due, not_before, place in self._later
            ]
            heapq.heapify(self._later)
        self._ahead = ahead if ahead > self._ahead + _SET else min(ahead, self._ahead)
        while self._later and (self._later[0][0] <= steady or self._later[0][1] <= now):  # the sum was rounded
            place = heapq.heappop(self._later)[2]
            if self._is_current(place) and self.move(place[2], Change.DUE, place):
                self._push(place)

    def start_next(self) -> str | None:
        """Take the first ready task whose resource is free out of the queue, for the caller to submit; or else None."""
        used = Counter(self._needs[task_id] for task_id in self.ids(*TAKES_SLOT) & self._needs.keys())
        full = self._resources.full(used)
        while heaps := [heap for resource, heap in self._ready.items() if heap and resource not in full]:
            place = heapq.heappop(min(heaps))
            if self._is_current(place) and self.move(place[2], Change.STARTED):
                return place[2]
        return None

    def _push(self, place: Place) -> None:
        heapq.heappush(self._ready.setdefault(self._needs.get(place[2]), []), place)

    def _is_current(self, place: Place) -> bool:
        return self._seen.get(place[2], _UNKNOWN).place is place
