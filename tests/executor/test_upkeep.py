"""An executor prunes as it goes: what is old or too much, and never what nobody has read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from animaworks_tasks import Executor, InlineBackend, Registry, Store
from animaworks_tasks.testing import ManualClock
from tests.executor.workshop import Workshop, executor_of


def ended(store: Store, *, read: bool = True) -> str:
    """Return the id of a task that has ended, and whose notification was *read*."""
    task_id = store.request_cancel(store.submit("tool", "echo", "it").id).id
    if read:
        store.notifications.acknowledge(store.notifications.peek())
    return task_id


def look(store: Store, clock: ManualClock, **options: int | None) -> set[str]:
    """Let an executor come and go; return the ids of the tasks that are left."""
    executor = Executor(store, Registry(), backend=InlineBackend(), clock=clock, **options).start()
    executor.run_until_idle_sync()
    executor.stop()
    return {task.id for task in store.list()}


def test_what_was_done_a_month_ago_is_forgotten_unless_nobody_has_read_it(store: Store, clock: ManualClock) -> None:
    # given
    ended(store)
    unread = ended(store, read=False)
    clock.advance(timedelta(days=31).total_seconds())
    recent = ended(store, read=False)
    # then
    assert {unread, recent} == look(store, clock)


def test_of_many_the_newest_are_kept(store: Store, clock: ManualClock) -> None:
    ids = []
    for _ in range(5):
        clock.advance(1)
        ids.append(ended(store))
    assert set(ids[-2:]) == look(store, clock, keep_done=2)


def test_a_long_history_is_forgotten_little_by_little(store: Store, clock: ManualClock) -> None:
    # given more than is pruned at one look
    for _ in range(60):
        ended(store, read=False)
    store.notifications.acknowledge(store.notifications.peek())
    # then
    assert 10 == len(look(store, clock, keep_done=0))
    assert set() == look(store, clock, keep_done=0)


def test_who_wants_to_keep_everything_can(store: Store, clock: ManualClock) -> None:
    task_id = ended(store)
    clock.advance(timedelta(days=1000).total_seconds())
    assert {task_id} == look(store, clock, keep_done=None, keep_days=None)


@pytest.mark.parametrize("options", [{"keep_done": -1}, {"keep_days": -1}])
def test_a_negative_limit_is_refused(store: Store, workshop: Workshop, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        executor_of(store, workshop, **options)
