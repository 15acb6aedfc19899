"""What every store promises of its watch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from animaworks_tasks import State, Store
from animaworks_tasks.store.protocol import Watch
from animaworks_tasks.task.states import Event
from tests.conftest import own
from tests.processes import PATIENCE


@pytest.fixture
def watch(store: Store) -> Iterator[Watch]:
    watch = store.watch()
    yield watch
    watch.close()


def seen(watch: Watch, ids: set[str]) -> bool:
    """Wait until the watch has seen all *ids*; more may be seen, and one may be seen twice."""
    found: set[str] = set()
    deadline = monotonic() + PATIENCE
    while not ids <= found and monotonic() < deadline:
        found |= watch.wait(PATIENCE).ids
    return ids <= found


def quiet(watch: Watch) -> None:
    """Take what was seen up to now."""
    while watch.wait(0).ids:
        pass


def test_a_submit_a_requeue_and_a_finish_are_seen_with_the_id(store: Store, watch: Watch) -> None:
    task = store.submit("image_gen", "3d")
    assert seen(watch, {task.id})
    claim = own(store, task.id)
    quiet(watch)
    store.requeue(claim)
    assert seen(watch, {task.id})
    claim = own(store, task.id)
    quiet(watch)
    store.finish(claim, Event.COMPLETE)
    assert seen(watch, {task.id})


def test_many_that_are_submitted_at_once_are_all_seen(store: Store, watch: Watch) -> None:
    assert seen(watch, {task.id for task in store.submit_many("image_gen", [["3d"]] * 50)})


def test_who_waits_already_is_woken_up(store: Store, watch: Watch) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(watch.wait, PATIENCE)
        first = store.submit("image_gen", "3d").id
        assert first in waiting.result(PATIENCE).ids
    assert seen(watch, {store.submit("image_gen", "3d").id})


def test_what_was_seen_is_returned_once(store: Store, watch: Watch) -> None:
    task = store.submit("image_gen", "3d")
    assert seen(watch, {task.id})
    quiet(watch)
    assert (frozenset(), False) == (watch.wait(0).ids, watch.wait(0).incomplete)


def test_a_watch_can_be_woken_from_another_thread_without_an_id(watch: Watch) -> None:
    watch.wake()
    assert frozenset() == watch.wait(PATIENCE).ids, "a wake before the wait counts"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(watch.wait, PATIENCE)
        watch.wake()
        assert frozenset() == waiting.result(PATIENCE).ids


def test_all_watches_of_a_store_see_the_same(store: Store, watch: Watch) -> None:
    other = store.watch()
    task = store.submit("image_gen", "3d")
    assert seen(watch, {task.id})
    assert seen(other, {task.id})
    other.close()
    assert seen(watch, {store.submit("image_gen", "3d").id})


def test_a_refresh_of_what_is_still_there_loses_nothing(store: Store, watch: Watch) -> None:
    task = store.submit("image_gen", "3d")
    watch.refresh()
    assert seen(watch, {task.id})
    assert watch.problem is None


def test_a_closed_watch_disturbs_nobody(store: Store) -> None:
    watch = store.watch()
    watch.close()
    watch.wake()
    assert State.PENDING is store.submit("image_gen", "3d").state
