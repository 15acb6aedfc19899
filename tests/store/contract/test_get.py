"""What every store tells of its tasks."""

from __future__ import annotations

import pytest

from animaworks_tasks import (
    Registry,
    State,
    Store,
    TaskNotFoundError,
    run_task,
)
from animaworks_tasks.task.states import Event
from animaworks_tasks.testing import assert_completed
from tests.conftest import ManualClock, begin, die, own
from tests.store.contract.conftest import NOWHERE, complete


@pytest.mark.parametrize("task_id", [NOWHERE, "", "../../etc", "ABCDEF012345"])
def test_a_task_that_is_not_there_is_not_found_and_the_error_says_where_to_look(store: Store, task_id: str) -> None:
    with pytest.raises(TaskNotFoundError, match="animaworks-tool list --all"):
        store.get(task_id)


def test_a_list_begins_with_what_changed_last_whatever_its_state(store: Store, clock: ManualClock) -> None:
    # given: submitted in this order, and then the first one is finished and the second one begun
    ids = []
    for _ in range(4):
        ids.append(store.submit("image_gen", "3d").id)
        clock.advance(1)
    store.finish(own(store, ids[0]), Event.COMPLETE)
    clock.advance(1)
    own(store, ids[1])

    # then
    assert [ids[1], ids[0], ids[3], ids[2]] == [task.id for task in store.list()]
    assert [ids[3], ids[2]] == [task.id for task in store.list(State.PENDING)]
    assert [ids[1]] == [task.id for task in store.list(State.RUNNING)]
    assert [ids[0]] == [task.id for task in store.list(State.DONE)]


@pytest.mark.parametrize("state", [None, *State])
def test_a_limited_list_is_the_beginning_of_the_whole_one(
    store: Store, clock: ManualClock, state: State | None
) -> None:
    # given tasks that were begun and finished in another order than they were submitted in
    ids = []
    for _ in range(6):
        clock.advance(1)
        ids.append(store.submit("image_gen", "3d").id)
    for task_id in reversed(ids[:4]):
        clock.advance(1)
        claim = own(store, task_id)
        if task_id in ids[:2]:
            store.finish(claim, Event.COMPLETE)

    # then
    whole = list(store.list(state))
    for limit in range(len(whole) + 2):
        assert whole[:limit] == list(store.list(state, limit=limit))


def test_only_a_pending_task_waits(store: Store) -> None:
    pending, running, done = store.submit("image_gen", "3d"), begin(store).task, complete(store)
    ids = [pending.id, running.id, done.id, NOWHERE, "../x"]
    assert [True, False, False, False, False] == [store.waits(task_id) for task_id in ids]
    assert [pending, None, None, None, None] == [store.pending(task_id) for task_id in ids]


def test_a_task_has_an_owner_until_its_end_was_told(store: Store) -> None:
    task_id = store.submit("image_gen", "3d").id
    assert not store.runs(task_id)
    claim = own(store, task_id)
    assert store.runs(task_id)
    die(claim)
    assert store.runs(task_id)
    store.recover()
    assert not store.runs(task_id)
    assert not store.runs("no id")


def test_a_result_is_read_as_a_whole_also_where_its_record_has_only_the_beginning(store: Store) -> None:
    # given
    registry = Registry()
    registry.add("tool", "echo", lambda size: int(size) * "ü")
    texts = {size: store.submit("tool", "echo", str(size)).id for size in (0, 10, 200_000)}
    failed = store.submit("tool", "unknown").id
    for task_id in (*texts.values(), failed):
        run_task(store, registry, task_id)

    # then
    assert {size: size * "ü" for size in texts} == {size: store.read_result(task_id) for size, task_id in texts.items()}
    assert store.get(texts[200_000]).result != store.read_result(texts[200_000])
    assert store.read_result(failed) is None
    assert "ü" == assert_completed(store, texts[200_000], contains=200_000 * "ü").result_tail[-1:]  # type: ignore[index]
    with pytest.raises(TaskNotFoundError):
        store.read_result("0" * 12)
