"""What every store promises of a claim."""

from __future__ import annotations

from datetime import timedelta

import attrs

from animaworks_tasks import (
    State,
    Store,
)
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, die, own
from tests.store.contract.conftest import NOWHERE, complete, in_threads


def test_a_claimed_task_is_running_its_first_attempt(store: Store, clock: ManualClock) -> None:
    # given
    submitted = store.submit("image_gen", "3d")
    clock.advance(1)

    # when
    claim = own(store, submitted.id)

    # then
    assert (State.RUNNING, 1, clock.now) == (claim.task.state, claim.task.attempt, claim.task.started_at)
    assert claim.task == store.get(submitted.id)
    assert set() == store.pending_ids()


def test_the_second_claimant_gets_nothing(store: Store) -> None:
    claim = begin(store)
    assert store.claim(claim.task.id) is None
    assert claim.task == store.get(claim.task.id)


def test_what_is_done_or_unknown_or_no_id_cannot_be_claimed(store: Store) -> None:
    done = complete(store)
    assert [None, None, None] == [store.claim(task_id) for task_id in (done.id, NOWHERE, "../x")]
    assert done == store.get(done.id)


def test_a_task_that_is_not_due_is_left_where_it_is_by_whoever_says_which_time_it_is(
    store: Store, clock: ManualClock
) -> None:
    # given
    due = clock.now + timedelta(minutes=1)
    task = store.submit("image_gen", "3d", not_before=due)

    # then
    assert store.claim(task.id, due_by=due - timedelta(seconds=1)) is None
    assert (task, {task.id}) == (store.get(task.id), store.pending_ids())
    claim = store.claim(task.id, due_by=due)
    assert claim is not None
    assert State.RUNNING is claim.task.state


def test_a_task_is_claimed_only_by_the_record_that_was_read_if_one_is_named(store: Store) -> None:
    # given
    task = store.submit("image_gen", "3d", "cat.png")
    record = store.read_record(task.id)
    assert record is not None

    # then
    assert [None, None] == [store.claim(task.id, record=other) for other in (b"", record + b" ")]
    assert (task, {task.id}) == (store.get(task.id), store.pending_ids())
    assert store.claim(task.id, record=record) is not None
    assert [None, None, None] == [store.read_record(task_id) for task_id in (task.id, NOWHERE, "../x")]


def test_the_record_of_a_requeued_task_is_another_one(store: Store) -> None:
    # given
    claim = begin(store)
    task_id = claim.task.id
    store.requeue(claim, began=False)
    first = store.read_record(task_id)

    # when
    store.requeue(own(store, task_id))

    # then
    assert store.claim(task_id, record=first) is None
    assert store.claim(task_id, record=store.read_record(task_id)) is not None


def test_an_orphan_cannot_be_claimed_before_it_was_recovered(store: Store) -> None:
    claim = begin(store)
    die(claim)
    assert store.claim(claim.task.id) is None


def test_of_many_threads_that_race_for_many_tasks_each_task_goes_to_one(store: Store) -> None:
    # given
    ids = [store.submit("image_gen", "3d").id for _ in range(30)]

    # when
    claimed = in_threads(4, lambda _: [task_id for task_id in ids if store.claim(task_id) is not None])

    # then
    got = [task_id for some in claimed if isinstance(some, list) for task_id in some]
    assert len(got) == len(set(got)), "a task was claimed twice"
    while store.pending_ids():  # who probes a lock at the wrong moment makes a claim fail, for now
        got += [task_id for task_id in store.pending_ids() if store.claim(task_id) is not None]
    assert sorted(ids) == sorted(got)


def test_a_view_shows_others_what_the_owner_found_out(store: Store) -> None:
    # given a task whose subcommand only its tool can tell
    claim = own(store, store.submit("local_llm", "-m", "llama3", "generate", "hello").id)
    assert "llama3" == claim.task.subcommand

    # when
    claim.task = attrs.evolve(claim.task, subcommand="generate")
    store.publish_view(claim)

    # then
    assert "local_llm:generate" == store.get(claim.task.id).name
    assert "local_llm:generate" == store.finish(claim, Event.COMPLETE).name
