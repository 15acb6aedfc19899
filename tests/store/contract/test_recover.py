"""What every store makes of tasks whose owners died."""

from __future__ import annotations

import pytest

from animaworks_tasks import (
    Cause,
    OnInterrupt,
    Outcome,
    State,
    Store,
    Task,
)
from animaworks_tasks.task.states import Event
from tests.conftest import begin, die, own
from tests.store.contract.conftest import in_threads, notified


def test_a_task_whose_owner_lives_is_left_alone(store: Store) -> None:
    claim = begin(store)
    found = store.recover(lambda _: True)
    assert ((claim.task.id,), (), ()) == (found.alive, found.finished, found.requeued)
    assert Outcome.COMPLETED is store.finish(claim, Event.COMPLETE).outcome


def test_an_orphan_ends_interrupted_and_the_notification_says_that_it_may_have_partly_run(store: Store) -> None:
    # given
    claim = begin(store)
    die(claim)

    # when
    found = store.recover()

    # then
    [done] = found.finished
    assert ((), ()) == (found.alive, found.requeued)
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (done.outcome, done.cause)
    assert claim.task.started_at == done.started_at
    assert done == store.get(claim.task.id)
    [notification] = store.notifications.peek()
    assert (done.id, True) == (notification.task_id, notification.failed)
    assert "may have partly run" in notification.text
    # and when its owner died, which was perhaps long before, nobody knows
    assert done.duration is None
    assert "Took" not in notification.text


def test_an_orphan_that_is_safe_to_run_again_returns(store: Store) -> None:
    # given
    claim = begin(store, on_interrupt=OnInterrupt.RETRY)
    die(claim)
    asked: list[Task] = []

    # when
    found = store.recover(lambda task: not asked.append(task))  # type: ignore[func-returns-value]

    # then
    assert [claim.task] == asked, "it is asked of the task as it was running"
    [task] = found.requeued
    assert ((), (), task) == (found.alive, found.finished, store.get(claim.task.id))
    assert (State.PENDING, 1, OnInterrupt.RETRY) == (task.state, task.attempt, task.on_interrupt)
    assert [] == notified(store)
    assert 2 == own(store, task.id).task.attempt


def test_an_orphan_that_was_asked_to_stop_ends_cancelled_even_where_it_may_run_again(store: Store) -> None:
    # given
    claim = begin(store)
    store.request_cancel(claim.task.id)
    die(claim)

    # when
    [done] = store.recover(lambda _: True).finished

    # then
    assert (Outcome.CANCELLED, [done.id]) == (done.outcome, notified(store))


@pytest.mark.parametrize("again", [False, True], ids=["finished", "requeued"])
def test_recovering_twice_changes_nothing_more(store: Store, *, again: bool) -> None:
    # given
    die(begin(store))
    store.recover(lambda _: again)
    before = (list(store.list()), store.notifications.peek())

    # when
    found = store.recover(lambda _: again)

    # then
    assert ((), (), ()) == (found.alive, found.finished, found.requeued)
    assert before == (list(store.list()), store.notifications.peek())


def test_many_hosts_that_recover_at_once_settle_each_orphan_once(store: Store) -> None:
    # given
    ids = []
    for _ in range(20):
        claim = begin(store)
        die(claim)
        ids.append(claim.task.id)

    # when
    found = in_threads(4, lambda _: [task.id for task in store.recover().finished])

    # then
    finished = [task_id for some in found if isinstance(some, list) for task_id in some]
    finished += [task.id for task in store.recover().finished]
    assert sorted(ids) == sorted(finished) == notified(store)
