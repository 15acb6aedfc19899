"""What every store promises of a call that nobody but its host can make."""

from __future__ import annotations

import pytest

from animaworks_tasks import Cause, OnInterrupt, Outcome, State, Store, Task
from animaworks_tasks.errors import RecordError
from animaworks_tasks.task.pending import new_id
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, die
from tests.store.contract.conftest import notified


@pytest.fixture
def task(clock: ManualClock) -> Task:
    return Task(id=new_id(), tool="host", subcommand="call", argv=("call",), submitted_at=clock.now)


@pytest.mark.parametrize("durably", [True, False])
def test_what_is_begun_is_ours_from_the_start(store: Store, task: Task, *, durably: bool) -> None:
    # when
    claim = store.begin(task, durably=durably)

    # then
    assert (State.RUNNING, 1, task.argv) == (claim.task.state, claim.task.attempt, claim.task.argv)
    assert (claim.task, True) == (store.get(task.id), store.runs(task.id))
    assert (set(), None, False) == (store.pending_ids(), store.claim(task.id), store.waits(task.id))
    assert (task.id,) == store.recover().alive
    store.secure(claim)
    done = store.finish(claim, Event.COMPLETE, result="x")
    assert (done, [done.id]) == (store.get(task.id), notified(store))


def test_what_was_begun_ends_as_its_policy_says_when_its_host_dies(store: Store, task: Task) -> None:
    die(store.begin(task))
    [done] = store.recover(lambda task: task.on_interrupt is OnInterrupt.RETRY).finished
    assert (Outcome.FAILED, Cause.INTERRUPTED, [task.id]) == (done.outcome, done.cause, notified(store))


def test_what_cannot_be_stored_is_not_begun(store: Store, clock: ManualClock) -> None:
    huge = Task(id=new_id(), tool="host", argv=("x" * (1 << 20),), submitted_at=clock.now)
    with pytest.raises(RecordError, match="larger than"):
        store.begin(huge)
    assert ([], ()) == (list(store.list()), store.recover().alive)
