"""
What a scheduler knows of tasks: a table of transitions, one function that reads it, one dict. No I/O, no clock.

What the table lacks is refused and changes nothing: no end is reported twice, and no task is started twice.
"""

from __future__ import annotations

import enum
import heapq
from datetime import datetime
from typing import Final

import attrs

from animaworks_tasks.task.model import Task

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


TRANSITIONS: Final[dict[tuple[Phase, Change], Phase]] = {
    # from             on                  to
    (Phase.UNKNOWN,   Change.LISTED):      Phase.UNREAD,
    (Phase.UNKNOWN,   Change.DUE):         Phase.READY,
    (Phase.UNKNOWN,   Change.NOT_DUE):     Phase.LATER,
    (Phase.UNKNOWN,   Change.STARTED):     Phase.OURS,  # without reading its record: it was the only one
    (Phase.UNKNOWN,   Change.RUNS):        Phase.OTHERS,
    (Phase.UNKNOWN,   Change.RUNS_INSIDE): Phase.SLOTLESS,
    (Phase.UNKNOWN,   Change.RECOVERED):   Phase.ENDED,

    (Phase.UNREAD,    Change.READ):        Phase.UNKNOWN,
    (Phase.UNREAD,    Change.DUE):         Phase.READY,
    (Phase.UNREAD,    Change.NOT_DUE):     Phase.LATER,
    (Phase.UNREAD,    Change.RUNS):        Phase.OTHERS,
    (Phase.UNREAD,    Change.RUNS_INSIDE): Phase.SLOTLESS,
    (Phase.UNREAD,    Change.RECOVERED):   Phase.ENDED,
    (Phase.UNREAD,    Change.GONE):        Phase.UNKNOWN,

    (Phase.READY,     Change.NOT_DUE):     Phase.LATER,  # another host requeued it with a pause
    (Phase.READY,     Change.STARTED):     Phase.OURS,
    (Phase.READY,     Change.RUNS):        Phase.OTHERS,
    (Phase.READY,     Change.RUNS_INSIDE): Phase.SLOTLESS,
    (Phase.READY,     Change.DONE):        Phase.ENDED,
    (Phase.READY,     Change.RECOVERED):   Phase.ENDED,
    (Phase.READY,     Change.GONE):        Phase.UNKNOWN,

    (Phase.LATER,     Change.DUE):         Phase.READY,
    (Phase.LATER,     Change.NOT_DUE):     Phase.LATER,  # likewise
    (Phase.LATER,     Change.RUNS):        Phase.OTHERS,
    (Phase.LATER,     Change.RUNS_INSIDE): Phase.SLOTLESS,
    (Phase.LATER,     Change.DONE):        Phase.ENDED,
    (Phase.LATER,     Change.RECOVERED):   Phase.ENDED,
    (Phase.LATER,     Change.GONE):        Phase.UNKNOWN,

    (Phase.OURS,      Change.REFUSED):     Phase.UNKNOWN,
    (Phase.OURS,      Change.RETURNED):    Phase.OTHERS,  # until its record is read
    (Phase.OURS,      Change.RECOVERED):   Phase.RETURNING,  # its supervisor died

    (Phase.RETURNING, Change.RETURNED):    Phase.ENDED,

    (Phase.OTHERS,    Change.DUE):         Phase.READY,
    (Phase.OTHERS,    Change.NOT_DUE):     Phase.LATER,
    (Phase.OTHERS,    Change.RUNS_INSIDE): Phase.SLOTLESS,
    (Phase.OTHERS,    Change.ORPHANED):    Phase.STUCK,
    (Phase.OTHERS,    Change.DONE):        Phase.ENDED,
    (Phase.OTHERS,    Change.RECOVERED):   Phase.ENDED,
    (Phase.OTHERS,    Change.GONE):        Phase.UNKNOWN,

    (Phase.SLOTLESS,  Change.DUE):         Phase.READY,
    (Phase.SLOTLESS,  Change.NOT_DUE):     Phase.LATER,
    (Phase.SLOTLESS,  Change.ORPHANED):    Phase.STUCK,
    (Phase.SLOTLESS,  Change.DONE):        Phase.ENDED,
    (Phase.SLOTLESS,  Change.RECOVERED):   Phase.ENDED,
    (Phase.SLOTLESS,  Change.GONE):        Phase.UNKNOWN,

    (Phase.STUCK,     Change.DUE):         Phase.READY,
    (Phase.STUCK,     Change.NOT_DUE):     Phase.LATER,
    (Phase.STUCK,     Change.RUNS):        Phase.OTHERS,
    (Phase.STUCK,     Change.RUNS_INSIDE): Phase.SLOTLESS,
    (Phase.STUCK,     Change.DONE):        Phase.ENDED,
    (Phase.STUCK,     Change.RECOVERED):   Phase.ENDED,
    (Phase.STUCK,     Change.GONE):        Phase.UNKNOWN,

    (Phase.ENDED,     Change.GONE):        Phase.UNKNOWN,
}  # fmt: skip

QUEUED: Final = (Phase.READY, Phase.LATER)
AT_BACKEND: Final = (Phase.OURS, Phase.RETURNING)
ELSEWHERE: Final = (Phase.OTHERS, Phase.SLOTLESS, Phase.STUCK)
TAKES_SLOT: Final = (*AT_BACKEND, Phase.OTHERS)
BUSY: Final = (Phase.UNREAD, Phase.READY, *TAKES_SLOT, Phase.SLOTLESS)  # a scheduler that has none of them is idle


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


_UNKNOWN: Final = Seen(Phase.UNKNOWN)


class SeenTasks:
    """
    All tasks that a scheduler knows. For one thread at a time, except :meth:`count`.

    The dict is the truth. Derived from it are the ids of each phase and the queue: two heaps, in which an entry that is
    no longer its task's place is skipped.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._ids: dict[Phase, set[str]] = {phase: set() for phase in Phase}
        self._ready: list[Place] = []
        self._later: list[tuple[datetime, Place]] = []  # by not_before

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

    def queue(self, task: Task, now: datetime) -> None:
        """Queue a pending task; one that is ready keeps its place."""
        place = (-task.priority, task.submitted_at, task.id)
        if task.not_before is None or task.not_before <= now:
            if self.move(task.id, Change.DUE, place):
                heapq.heappush(self._ready, place)
        elif self.move(task.id, Change.NOT_DUE, place):
            heapq.heappush(self._later, (task.not_before, place))

    def next_due(self) -> datetime | None:
        """Return when the next entry of the later heap is due; None if there is none."""
        return self._later[0][0] if self._later else None

    def make_ready(self, now: datetime) -> None:
        """Move what is due by *now* to the ready tasks."""
        while self._later and self._later[0][0] <= now:
            place = heapq.heappop(self._later)[1]
            if self._is_current(place) and self.move(place[2], Change.DUE, place):
                heapq.heappush(self._ready, place)

    def start_next(self) -> str | None:
        """Take the first ready task out of the queue, for the caller to submit; None if there is none."""
        while self._ready:
            place = heapq.heappop(self._ready)
            if self._is_current(place) and self.move(place[2], Change.STARTED):
                return place[2]
        return None

    def _is_current(self, place: Place) -> bool:
        return self._seen.get(place[2], _UNKNOWN).place is place
