"""What every store promises of a prune."""

from __future__ import annotations

import pytest

from animaworks_tasks import (
    Store,
    Task,
    TaskNotFoundError,
)
from tests.conftest import ManualClock, begin
from tests.store.contract.conftest import complete, notified


def test_a_prune_forgets_what_is_old_done_and_acknowledged_and_nothing_else(store: Store, clock: ManualClock) -> None:
    # given one of each: acknowledged, unacknowledged, pending, running, and one that ended later
    acknowledged = complete(store)
    store.workspace(acknowledged.id).write_log(b"a trace")
    store.workspace(acknowledged.id).report_progress(0.5, "half")
    store.workspace(acknowledged.id).keep_result(b"large")
    store.notifications.acknowledge(store.notifications.peek())
    unacknowledged = complete(store)
    pending = store.submit("image_gen", "3d")
    running = begin(store)
    clock.advance(60)
    later = complete(store)
    store.notifications.acknowledge(n for n in store.notifications.peek() if n.task_id == later.id)

    # when
    pruned = store.prune(finished_before=clock.now)

    # then
    assert [acknowledged.id] == list(pruned)
    left = {unacknowledged.id, pending.id, running.task.id, later.id}
    assert left == {task.id for task in store.list()}
    assert [unacknowledged.id] == notified(store)
    assert (b"", None) == (store.read_log(acknowledged.id), store.read_progress(acknowledged.id))
    with pytest.raises(TaskNotFoundError):
        store.get(acknowledged.id)
    assert [] == list(store.prune(finished_before=clock.now))


def read_at_intervals(store: Store, clock: ManualClock, count: int) -> list[Task]:
    """Return *count* tasks that ended a minute apart, the oldest first, whose notifications are acknowledged."""
    done = []
    for _ in range(count):
        done.append(complete(store))
        clock.advance(60)
    store.notifications.acknowledge(store.notifications.peek())
    return done


@pytest.mark.parametrize(("keep", "left"), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)])
def test_a_prune_keeps_the_newest_of_those_that_ended(store: Store, clock: ManualClock, keep: int, left: int) -> None:
    done = read_at_intervals(store, clock, 4)
    pruned = store.prune(keep=keep)
    assert {task.id for task in done[: 4 - left]} == set(pruned)
    assert list(reversed(done[4 - left :])) == list(store.list())


def test_a_prune_by_number_keeps_what_nobody_has_read_or_what_has_not_ended(store: Store, clock: ManualClock) -> None:
    """What is unread is one of those that ended: it takes the place of nothing that is kept, and nothing takes its."""
    # given
    unread = complete(store)
    clock.advance(60)
    read = complete(store)
    store.notifications.acknowledge(
        notification for notification in store.notifications.peek() if notification.task_id == read.id
    )
    pending, running = store.submit("image_gen", "3d"), begin(store)

    # then
    assert [] == list(store.prune(keep=1))
    assert [read.id] == list(store.prune(keep=0))
    assert {unread.id, pending.id, running.task.id} == {task.id for task in store.list()}
    assert [unread.id] == notified(store)


def test_a_prune_by_age_and_number_forgets_what_either_would(store: Store, clock: ManualClock) -> None:
    done = read_at_intervals(store, clock, 4)
    assert done[2].finished_at is not None
    assert {done[0].id} == set(store.prune(keep=3, finished_before=done[0].finished_at))
    assert {done[1].id} == set(store.prune(keep=3, finished_before=done[2].finished_at))
    assert [] == list(store.prune())
    assert [done[3], done[2]] == list(store.list())
