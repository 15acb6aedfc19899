"""What every store promises of its notifications."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from animaworks_tasks import (
    Cause,
    Store,
)
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin
from tests.store.contract.conftest import complete, notified


def test_peeking_changes_nothing(store: Store) -> None:
    ids = sorted(complete(store).id for _ in range(3))
    assert ids == notified(store) == notified(store)


def test_an_acknowledged_notification_is_not_shown_again(store: Store) -> None:
    # given
    first, second = complete(store), complete(store)
    notifications = store.notifications.peek()

    # when
    store.notifications.acknowledge(n for n in notifications if n.task_id == first.id)

    # then
    assert [second.id] == notified(store)
    store.notifications.acknowledge(notifications)  # also those that are no longer there
    assert [] == notified(store)


def test_a_drain_hands_out_everything_and_acknowledges_it_at_its_end(store: Store) -> None:
    ids = sorted(complete(store).id for _ in range(3))
    with store.notifications.drain() as drained:
        assert ids == sorted(n.task_id or "" for n in drained.notifications) == notified(store)
        assert 0 == drained.left
        assert all(n.text in drained.text for n in drained.notifications)
    assert [] == notified(store)


def test_a_drain_that_raises_acknowledges_nothing(store: Store) -> None:
    done = complete(store)
    with pytest.raises(RuntimeError, match="model overloaded"), store.notifications.drain():
        raise RuntimeError("model overloaded")
    with store.notifications.drain() as drained:
        assert [done.id] == [n.task_id for n in drained.notifications]


def test_of_two_drains_at_once_the_second_gets_nothing(store: Store) -> None:
    complete(store)
    with store.notifications.drain() as first, store.notifications.drain() as second:
        assert (1, (), "", 0) == (len(first.notifications), second.notifications, second.text, second.left)
    assert [] == notified(store)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["the same thread", "another thread"])
def test_a_drain_may_acknowledge_some_of_what_it_has_shown_and_then_raise(store: Store, *, elsewhere: bool) -> None:
    # given
    first, second = complete(store), complete(store)
    acknowledge = store.notifications.acknowledge

    # when
    with contextlib.suppress(InterruptedError), store.notifications.drain() as drained:
        some = [n for n in drained.notifications if n.task_id == first.id]
        if elsewhere:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(acknowledge, some).result(10)
        else:
            acknowledge(some)
        assert [second.id] == notified(store)
        raise InterruptedError

    # then
    assert [second.id] == notified(store)


def test_a_drain_may_acknowledge_all_that_it_has_shown(store: Store) -> None:
    complete(store)
    with store.notifications.drain() as drained:
        store.notifications.acknowledge(drained.notifications)
    assert [] == notified(store)


def test_a_second_task_of_a_key_that_ends_during_a_drain_is_not_acknowledged_by_it(
    store: Store, clock: ManualClock
) -> None:
    """Somebody else acknowledged the first one, and it was pruned and submitted again with its key."""
    complete(store, key="mei")
    with store.notifications.drain() as drained:
        store.notifications.acknowledge(drained.notifications)
        clock.advance(1)
        store.prune(finished_before=clock.now)
        again = complete(store, key="mei", result="the second")
    assert [again.id] == notified(store)


def test_what_finishes_during_a_drain_waits_for_the_next(store: Store) -> None:
    complete(store)
    with store.notifications.drain():
        later = complete(store)
    assert [later.id] == notified(store)


def test_a_small_budget_shows_failures_first_and_the_rest_in_a_line_each(store: Store) -> None:
    # given a failure that came after three long successes
    good = {complete(store, result=f"{n} " * 1000).id for n in range(3)}
    bad = store.finish(begin(store), Event.FAIL, cause=Cause.TOOL, error="no paint")
    [text] = [n.text for n in store.notifications.peek() if n.task_id == bad.id]

    # when there is room for the failure and three lines
    budget = len(text) + 3 * 200 + 1
    with store.notifications.drain(budget=budget) as drained:
        pass

    # then
    assert len(drained.text) <= budget
    assert drained.text.startswith(text)
    assert good == {line[2:14] for line in drained.text.removeprefix(text).strip().splitlines()}
    assert (bad.id, 0, []) == (drained.notifications[0].task_id, drained.left, notified(store))


def test_what_does_not_fit_a_budget_is_left_for_the_next_drain(store: Store) -> None:
    # given
    ids = {complete(store, result=f"{n} " * 1000).id for n in range(4)}

    # when there is room for two lines
    with store.notifications.drain(budget=2 * 200) as drained:
        pass

    # then
    shown = {n.task_id or "" for n in drained.notifications}
    assert (2, 2) == (len(shown), drained.left)
    assert shown == {line[2:14] for line in drained.text.splitlines()}
    assert sorted(ids - shown) == notified(store)


def test_a_budget_of_nothing_shows_and_acknowledges_nothing(store: Store) -> None:
    done = complete(store)
    with store.notifications.drain(budget=0) as drained:
        assert ("", (), 1) == (drained.text, drained.notifications, drained.left)
    assert [done.id] == notified(store)
