"""What every store promises of a task that is requeued."""

from __future__ import annotations

from datetime import timedelta

import attrs

from animaworks_tasks import (
    State,
    Store,
)
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, die, own
from tests.store.contract.conftest import notified


def test_a_requeued_task_waits_for_its_next_attempt(store: Store, clock: ManualClock) -> None:
    # given
    claim = begin(store)
    clock.advance(-500)  # the clock was set back meanwhile

    # when
    back = store.requeue(claim, pause=30)

    # then
    assert (State.PENDING, 1) == (back.state, back.attempt)
    assert clock.now + timedelta(seconds=30) == back.not_before
    assert (None, None) == (back.started_at, back.owner_pid)
    assert back == store.get(back.id)
    assert ({back.id}, []) == (store.pending_ids(), notified(store))
    assert 2 == own(store, back.id).task.attempt


def test_what_is_requeued_before_its_tool_was_called_waits_as_it_did(store: Store, clock: ManualClock) -> None:
    # given a task that waits for an hour, and one that was tried once and waits for its second attempt
    new = store.submit("image_gen", "3d", not_before=clock.now + timedelta(hours=1))
    tried = store.requeue(begin(store), pause=30)
    for task in (new, tried):
        # when
        back = store.requeue(own(store, task.id), began=False)

        # then nothing but the count differs
        assert attrs.evolve(task, requeued=task.requeued + 1) == back == store.get(task.id)
    assert {new.id, tried.id} == store.pending_ids()
    assert (1, 2) == (own(store, new.id).task.attempt, own(store, tried.id).task.attempt)


def test_a_task_counts_how_often_it_was_requeued_and_how_often_its_tool_was_begun(store: Store) -> None:
    """Only by this count recovery knows a record that waits again from the one that was claimed."""
    task = store.submit("image_gen", "3d")
    for number, began in enumerate((False, True, False, True), start=1):
        task = store.requeue(own(store, task.id), began=began)
        assert (number, number // 2) == (task.requeued, task.attempt)
    claim = own(store, task.id)
    die(claim)
    [task] = store.recover(lambda _: True).requeued
    assert (5, 3) == (task.requeued, task.attempt)


def test_a_requeued_task_ends_like_any_other(store: Store) -> None:
    claim = begin(store)
    store.requeue(claim)
    done = store.finish(own(store, claim.task.id), Event.COMPLETE, result="at last")
    assert (2, "at last", [done.id]) == (done.attempt, done.result, notified(store))
