"""What every store promises of a cancellation request."""

from __future__ import annotations

import pytest

from animaworks_tasks import (
    Outcome,
    State,
    Store,
    TaskNotFoundError,
)
from animaworks_tasks.task.states import Event
from tests.conftest import begin
from tests.store.contract.conftest import NOWHERE, complete, notified


def test_a_pending_task_is_cancelled_at_once(store: Store) -> None:
    task = store.submit("image_gen", "3d")
    done = store.request_cancel(task.id)
    assert (State.DONE, Outcome.CANCELLED) == (done.state, done.outcome)
    assert (done, [done.id], set()) == (store.get(task.id), notified(store), store.pending_ids())


def test_a_running_task_is_asked_to_stop_and_its_owner_decides(store: Store) -> None:
    # given
    claim = begin(store)
    workspace = store.workspace(claim.task.id)
    assert not workspace.cancel_requested()

    # when
    task = store.request_cancel(claim.task.id)

    # then
    assert State.RUNNING is task.state
    assert workspace.cancel_requested()
    assert (claim.task, []) == (store.get(claim.task.id), notified(store))
    assert "too late" == store.finish(claim, Event.COMPLETE, result="too late").result
    assert not workspace.cancel_requested()


def test_a_cancellation_request_outlives_the_attempt(store: Store) -> None:
    """Or else a task that fails and is tried again just when it is cancelled would run on."""
    # given
    claim = begin(store)
    store.request_cancel(claim.task.id)
    store.requeue(claim)

    # then the next one that claims it does not get it, and it has ended as after its only attempt
    assert store.claim(claim.task.id) is None
    done = store.get(claim.task.id)
    assert (Outcome.CANCELLED, 1, [done.id]) == (done.outcome, done.attempt, notified(store))
    assert not store.workspace(done.id).cancel_requested()


def test_a_done_task_stays_as_it_ended(store: Store) -> None:
    done = complete(store)
    assert done == store.request_cancel(done.id) == store.get(done.id)
    assert [done.id] == notified(store)


def test_a_task_that_is_not_there_cannot_be_cancelled(store: Store) -> None:
    with pytest.raises(TaskNotFoundError):
        store.request_cancel(NOWHERE)
