"""What starts next: order, time, the number of workers, and a long backlog."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from animaworks_tasks import (
    InlineBackend,
    MemoryTaskStore,
    State,
    Store,
    TaskStore,
    ThreadBackend,
)
from animaworks_tasks.executor.seen import ELSEWHERE, Phase
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, own
from tests.executor.workshop import SELDOM, Workshop, executor_of, looking, seen
from tests.processes import PATIENCE, until


@pytest.mark.parametrize("backend", [InlineBackend, ThreadBackend])
def test_tasks_start_in_order_of_priority_and_then_of_submission(
    backend: Callable[[], Any], store: Store, workshop: Workshop, clock: ManualClock
) -> None:
    # given tasks that were submitted before anybody ran them
    for word, priority in (("c", 0), ("d", 0), ("a", 2), ("e", -1), ("b", 1)):
        store.submit("tool", "echo", word, priority=priority)
        clock.advance(1)

    # when one at a time is run
    executor = executor_of(store, workshop, backend=backend(), max_workers=1).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert list("abcde") == workshop.calls


def test_a_task_is_not_started_before_its_time(store: Store, workshop: Workshop, clock: ManualClock) -> None:
    # given
    executor = executor_of(store, workshop, clock=clock, backend=InlineBackend()).start()
    for word, seconds in (("late", 60), ("soon", 30), ("now", 0)):
        executor.submit_sync("tool", "echo", word, not_before=clock.now + timedelta(seconds=seconds))

    # when, then
    for seconds, called in ((29, ["now"]), (1, ["now", "soon"]), (30, ["now", "soon", "late"])):
        executor.run_until_idle_sync(timeout=PATIENCE)
        clock.advance(seconds)
        executor.run_until_idle_sync(timeout=PATIENCE)
        assert called == workshop.calls
    executor.stop()


def test_a_task_that_becomes_due_is_started_without_being_rung_for(files: TaskStore, workshop: Workshop) -> None:
    # given the time as it is
    store = TaskStore(files.location, durability="process")
    executor = executor_of(store, workshop, scan_interval=SELDOM).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    task = executor.submit_sync(
        "tool", "echo", "it", not_before=store.submit("tool", "echo", "x").submitted_at + timedelta(seconds=0.2)
    )

    # then
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()


def test_no_more_tasks_run_at_once_than_there_are_workers(store: Store, workshop: Workshop) -> None:
    # given
    executor = executor_of(store, workshop, max_workers=2).start()
    for word in "abcde":
        executor.submit_sync("tool", "hold", word)
    until(lambda: len(workshop.calls) == 2)

    # when
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert (2, set("abcde")) == (workshop.most_at_once, set(workshop.calls))


def test_there_is_at_least_one_worker(memory: MemoryTaskStore, workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="max_workers must be at least 1, not 0"):
        executor_of(memory, workshop, max_workers=0)


def test_tasks_of_others_count_against_the_workers(files: TaskStore, workshop: Workshop) -> None:
    # given a task that another host runs
    claim = begin(files)
    executor = executor_of(files, workshop, max_workers=1, scan_interval=0.02).start()
    task = executor.submit_sync("tool", "echo", "it")
    until(lambda: seen(executor, *ELSEWHERE))
    assert [] == workshop.calls

    # when
    files.finish(claim, Event.COMPLETE)

    # then
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()


def test_a_place_in_the_queue_is_given_up_with_the_task(
    files: TaskStore, workshop: Workshop, clock: ManualClock
) -> None:
    # given a task that waits for a worker
    executor = executor_of(files, workshop, max_workers=1, clock=clock).start()
    executor.submit_sync("tool", "hold", "first")
    until(lambda: workshop.calls)
    waiting = executor.submit_sync("tool", "echo", "second")
    until(lambda: waiting.id in seen(executor, Phase.READY))

    # when another host takes it, and puts it back for an hour later
    claim = own(files, waiting.id)
    until(lambda: waiting.id in seen(looking(executor), Phase.OTHERS))
    files.requeue(claim, pause=3600)
    until(lambda: waiting.id in seen(looking(executor), Phase.LATER))
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)

    # then it does not start from the place that it had
    assert (["first"], State.PENDING) == (workshop.calls, files.get(waiting.id).state)
    executor.stop()


@pytest.mark.parametrize("rest", [0.0, 6.0, SELDOM])
def test_a_backlog_is_read_step_by_step_and_all_of_it_is_run(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, rest: float
) -> None:
    """Also where no more is read for as long as anything is ready: then it is read when nothing is."""
    # given
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._AT_ONCE", 3)
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._REST", rest)
    words = [f"word {number}" for number in range(20)]
    files.submit_many("tool", [["echo", word] for word in words])
    later = files.submit("tool", "echo", "later", not_before=utc_now() + timedelta(hours=1))

    # when
    executor = executor_of(files, workshop, scan_interval=SELDOM).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert sorted(words) == sorted(workshop.calls)
    assert {later.id} == files.pending_ids()


def test_the_first_of_a_backlog_runs_before_all_of_it_is_read(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._AT_ONCE", 3)
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._REST", float("inf"))
    files.submit_many("tool", [["hold", str(number)] for number in range(20)])

    # when
    executor = executor_of(files, workshop, max_workers=1, scan_interval=SELDOM).start()
    until(lambda: workshop.calls)

    # then
    assert 17 == len(seen(executor, Phase.UNREAD))
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()
    assert 20 == len(workshop.calls)
