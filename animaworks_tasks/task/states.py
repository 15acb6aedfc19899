"""
The life of a task: one table, read by one function. No I/O and no clock.

Everything that the table lacks is refused and changes nothing. The diagram in docs/architecture.md is compared with
it, and the tests walk it.
"""

import enum
from typing import Any, Final

import attrs

from animaworks_tasks.errors import InvalidTransitionError
from animaworks_tasks.task.model import Outcome, State, Task


class Event(enum.StrEnum):
    """What can happen to a task."""

    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    REJECT = "reject"
    RETRY = "retry"


TRANSITIONS: Final[dict[tuple[State, Event], tuple[State, Outcome | None]]] = {
    # from          on                to             outcome
    (State.PENDING, Event.CLAIM):    (State.RUNNING, None),
    (State.PENDING, Event.CANCEL):   (State.DONE,    Outcome.CANCELLED),
    (State.PENDING, Event.REJECT):   (State.DONE,    Outcome.FAILED),
    (State.RUNNING, Event.COMPLETE): (State.DONE,    Outcome.COMPLETED),
    (State.RUNNING, Event.FAIL):     (State.DONE,    Outcome.FAILED),
    (State.RUNNING, Event.CANCEL):   (State.DONE,    Outcome.CANCELLED),
    (State.RUNNING, Event.RETRY):    (State.PENDING, None),  # an attempt is left, or it is safe to run again
}  # fmt: skip


def advance(task: Task, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - attributes of the task
    """
    Return *task* after *event*, with *changes* to its other attributes. Nothing else sets a task's state.

    Raises:
        InvalidTransitionError: The table has no such step.
        ValueError: The changes do not fit the new state: a failure without its cause, say.
    """
    step = TRANSITIONS.get((task.state, event))
    if step is None:
        raise InvalidTransitionError(task.id, task.state.value, event.value)
    state, outcome = step
    return attrs.evolve(task, state=state, outcome=outcome, **changes)
