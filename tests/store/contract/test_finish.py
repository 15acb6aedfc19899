"""What every store promises of the end of a claim."""

from __future__ import annotations

import pytest

from animaworks_tasks import (
    Cause,
    Outcome,
    State,
    Store,
)
from animaworks_tasks.errors import ClaimLostError, InvalidTransitionError, RecordError
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, die
from tests.store.contract.conftest import notified


@pytest.mark.parametrize(
    ("event", "changes", "outcome"),
    [
        (Event.COMPLETE, {"result": "model.glb"}, Outcome.COMPLETED),
        (Event.COMPLETE, {"result": "begin", "result_file": "results/x/result.txt"}, Outcome.COMPLETED),
        (Event.FAIL, {"cause": Cause.TOOL, "error": "no", "hint": "try later"}, Outcome.FAILED),
        (Event.FAIL, {"cause": Cause.TIMEOUT, "error": "30 s", "result": "so far"}, Outcome.FAILED),
        (Event.CANCEL, {"error": "as asked"}, Outcome.CANCELLED),
    ],
)
def test_an_ended_task_has_its_outcome_and_is_notified_of_once(
    store: Store, clock: ManualClock, event: Event, changes: dict[str, object], outcome: Outcome
) -> None:
    # given
    claim = begin(store)
    clock.advance(2.5)

    # when
    done = store.finish(claim, event, **changes)

    # then
    assert (State.DONE, outcome, clock.now) == (done.state, done.outcome, done.finished_at)
    assert changes == {name: getattr(done, name) for name in changes}
    assert done == store.get(done.id)
    [notification] = store.notifications.peek()
    assert done.id == notification.task_id
    assert (outcome is not Outcome.COMPLETED) == notification.failed
    assert done.id in notification.text


def test_a_claim_ends_once(store: Store) -> None:
    # given
    claim = begin(store)
    done = store.finish(claim, Event.COMPLETE, result="the first")

    # then
    with pytest.raises(ClaimLostError, match=done.id):
        store.finish(claim, Event.FAIL, cause=Cause.TOOL, error="the second")
    with pytest.raises(ClaimLostError):
        store.requeue(claim)
    with pytest.raises(ClaimLostError):
        store.publish_view(claim)
    assert (done, [done.id]) == (store.get(done.id), notified(store))


def test_a_claim_without_its_lock_is_lost_before_anybody_took_the_task(store: Store) -> None:
    claim = begin(store)
    die(claim)
    with pytest.raises(ClaimLostError):
        store.finish(claim, Event.COMPLETE)
    assert (claim.task, []) == (store.get(claim.task.id), notified(store))


def test_a_claim_whose_lock_is_gone_writes_nothing(store: Store) -> None:
    # given an owner that was taken for dead, and its task was finished
    claim = begin(store)
    die(claim)
    [finished] = store.recover().finished

    # then it cannot end the task after all
    with pytest.raises(ClaimLostError):
        store.finish(claim, Event.COMPLETE)
    with pytest.raises(ClaimLostError):
        store.requeue(claim)
    with pytest.raises(ClaimLostError):
        store.publish_view(claim)
    assert (finished, [finished.id]) == (store.get(finished.id), notified(store))


@pytest.mark.parametrize("bad", ["\udcff", "x" * (1 << 20)], ids=["not UTF-8", "larger than 1 MiB"])
def test_a_result_that_cannot_be_stored_leaves_the_claim_to_be_finished_with_less(store: Store, bad: str) -> None:
    # given
    claim = begin(store)

    # when
    with pytest.raises(RecordError):
        store.finish(claim, Event.COMPLETE, result=bad)

    # then
    assert (State.RUNNING, []) == (store.get(claim.task.id).state, notified(store))
    assert store.claim(claim.task.id) is None
    assert (claim.task.id,) == store.recover().alive
    done = store.finish(claim, Event.FAIL, cause=Cause.RESULT, error="too large")
    assert (done, [done.id]) == (store.get(done.id), notified(store))


@pytest.mark.parametrize(
    ("event", "changes"), [(Event.REJECT, {"cause": Cause.REJECTED}), (Event.CLAIM, {}), (Event.FAIL, {})]
)
def test_an_end_that_cannot_be_changes_nothing(store: Store, event: Event, changes: dict[str, object]) -> None:
    """A running task is not rejected or claimed, and a failure without a cause is none."""
    claim = begin(store)
    with pytest.raises((InvalidTransitionError, ValueError)):
        store.finish(claim, event, **changes)
    assert (claim.task, []) == (store.get(claim.task.id), notified(store))
    assert Outcome.COMPLETED is store.finish(claim, Event.COMPLETE).outcome
