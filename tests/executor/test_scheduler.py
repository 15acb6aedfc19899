"""A scheduler, one step at a time: races that a test can hold still."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any

import pytest

from animaworks_tasks import (
    Cause,
    InlineBackend,
    MemoryTaskStore,
    Outcome,
    State,
    Task,
    TaskStore,
    ThreadBackend,
)
from animaworks_tasks.errors import BackendError, RecordError
from animaworks_tasks.executor.seen import Phase
from animaworks_tasks.store.protocol import Claim
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, die, own
from tests.executor.workshop import Workshop, plain_record, scheduler_of
from tests.processes import until


def test_a_thread_whose_call_has_ended_starts_the_next_one(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given a scheduler that nobody steps any more
    ended: list[Task] = []
    backend = ThreadBackend()
    scheduler = scheduler_of(memory, workshop, ended, backend=backend)
    held = memory.submit("tool", "hold", "held", priority=4)
    tasks = [
        memory.submit("tool", "echo", word, priority=priority) for word, priority in (("a", 3), ("b", 2), ("c", 1))
    ]
    scheduler.step(set())

    # when
    workshop.gate.set()

    # then
    until(lambda: len(ended) == 4)
    assert [held.id, *(task.id for task in tasks)] == [task.id for task in ended]
    scheduler.close()
    backend.shutdown()


def test_a_thread_whose_call_ends_after_the_scheduler_was_closed_starts_nothing(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    # given
    ended: list[Task] = []
    backend = ThreadBackend()
    scheduler = scheduler_of(memory, workshop, ended, backend=backend)
    held, left = memory.submit("tool", "hold", "held", priority=1), memory.submit("tool", "echo", "left")
    scheduler.step(set())
    until(lambda: workshop.calls)

    # when
    scheduler.close()
    workshop.gate.set()
    backend.shutdown()

    # then
    assert (State.DONE, State.PENDING) == (memory.get(held.id).state, memory.get(left.id).state)
    assert [] == ended


def test_an_end_that_meets_the_watcher_as_it_goes_to_sleep_is_not_slept_through(
    memory: MemoryTaskStore, workshop: Workshop, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a watcher that looks at the clock before it sleeps, and a call that ends just then
    meet = threading.Event()

    def now() -> datetime:
        if meet.is_set():
            meet.clear()
            ended: Future[Task | None] = Future()
            ended.set_result(None)
            other = threading.Thread(
                target=scheduler._calls._report, args=["0" * 12, ended, 0], kwargs={"unread": False}
            )
            other.start()
            other.join()
        return clock.now

    scheduler = scheduler_of(memory, workshop, [], backend=ThreadBackend(), clock=now)
    memory.submit("tool", "echo", "later", not_before=clock.now + timedelta(minutes=1))
    scheduler.step(set())

    # when
    meet.set()
    monkeypatch.setattr(scheduler._store_watch, "wait", lambda _: pytest.fail("it sleeps"))

    # then
    assert set() == scheduler.wait()
    scheduler.close()


def test_the_end_of_a_task_that_rang_and_was_cancelled_before_it_was_claimed_is_told(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    ended: list[Task] = []
    scheduler = scheduler_of(files, workshop, ended)
    scheduler.step(set())
    task = files.submit("tool", "echo", "it")
    claim = files.claim

    def too_late(task_id: str, due_by: datetime | None = None) -> Claim | None:
        monkeypatch.setattr(files, "claim", claim)
        files.request_cancel(task_id)
        return claim(task_id, due_by=due_by)

    monkeypatch.setattr(files, "claim", too_late)

    # when
    scheduler.step({task.id})
    scheduler.close()

    # then
    assert [Outcome.CANCELLED] == [task.outcome for task in ended]


def test_a_task_that_rings_before_it_is_due_waits_until_it_is(
    memory: MemoryTaskStore, workshop: Workshop, clock: ManualClock
) -> None:
    # given a host that has nothing else to do
    ended: list[Task] = []
    scheduler = scheduler_of(memory, workshop, ended, clock=clock)
    scheduler.step(set())
    task = memory.submit("tool", "echo", "later", not_before=clock.now + timedelta(minutes=1))

    # when
    scheduler.step({task.id})
    assert ([], {task.id}) == (ended, memory.pending_ids())
    clock.advance(60)
    scheduler.step(set())

    # then
    assert ["later"] == [task.result for task in ended]
    scheduler.close()


def test_what_rings_while_others_wait_takes_its_place_among_them(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given tasks that wait for the only slot
    ended: list[Task] = []
    backend = ThreadBackend()
    scheduler = scheduler_of(memory, workshop, ended, backend=backend)
    memory.submit("tool", "hold", "held", priority=9)
    memory.submit("tool", "echo", "first", priority=1)
    scheduler.step(set())

    # when
    scheduler.step({memory.submit("tool", "echo", "last").id})
    scheduler.step({memory.submit("tool", "echo", "urgent", priority=5).id})
    workshop.gate.set()

    # then
    until(lambda: len(ended) == 4)
    assert ["held", "urgent", "first", "last"] == [task.result for task in ended]
    scheduler.close()
    backend.shutdown()


def test_a_task_that_was_pruned_before_anybody_looked_is_forgotten(memory: MemoryTaskStore, workshop: Workshop) -> None:
    scheduler = scheduler_of(memory, workshop, [])
    scheduler.step({"0" * 12})
    assert (Phase.UNKNOWN, []) == (scheduler._seen.phase("0" * 12), workshop.calls)
    scheduler.close()


def test_a_record_that_was_completed_between_two_looks_is_queued(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a record that could not be read when it was looked at, and can be when it is claimed
    ended: list[Task] = []
    scheduler = scheduler_of(files, workshop, ended)
    plain_record(files, "0123456789ab")
    pending = files.pending

    def too_early(_: str) -> Task | None:
        monkeypatch.setattr(files, "pending", pending)
        raise RecordError("0123456789ab", "it is half written")

    monkeypatch.setattr(files, "pending", too_early)

    # when
    scheduler.step(set())
    scheduler.close()

    # then that look was no attempt
    assert [("by hand", 1)] == [(task.result, task.attempt) for task in ended]


def test_an_unreadable_record_that_another_host_took_away_is_left_to_it(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a record that another host claims between our two looks at it
    ended: list[Task] = []
    scheduler = scheduler_of(files, workshop, ended)
    task = files.submit("tool", "echo", "it")
    pending = files.pending

    def claimed_meanwhile(task_id: str) -> Task | None:
        monkeypatch.setattr(files, "pending", pending)
        own(files, task_id)
        raise RecordError(task_id, "it is half gone")

    monkeypatch.setattr(files, "pending", claimed_meanwhile)

    # when
    scheduler.step({task.id})
    scheduler.close()

    # then
    assert ([], State.RUNNING) == (ended, files.get(task.id).state)


def test_a_call_that_comes_back_after_recovery_has_finished_its_task_is_not_reported_again(
    files: TaskStore, workshop: Workshop
) -> None:
    # given a backend whose worker died with its task, and which does not know of that yet
    class Unaware(InlineBackend):
        def submit(self, *call: Any, **_: Any) -> Future[Any]:  # noqa: ANN401 - as they are
            die(own(files, call[3]))
            return lost

    lost: Future[Any] = Future()
    ended: list[Task] = []
    scheduler = scheduler_of(files, workshop, ended, backend=Unaware())
    task = files.submit("tool", "echo", "it")
    scheduler.step(set())

    # when recovery has finished the task
    scheduler._next_look = 0.0
    scheduler.step(set())

    # then its end is reported, and its slot is taken until the backend has given up
    assert [(task.id, Cause.INTERRUPTED)] == [(each.id, each.cause) for each in ended]
    assert {task.id} == scheduler.running()

    # and when it has
    lost.set_exception(BackendError("gone"))
    for _ in range(3):
        scheduler._next_look = 0.0
        scheduler.step(set())
    assert ([task.id], set()) == ([each.id for each in ended], scheduler.running())
    scheduler.close()


def test_a_task_that_another_host_requeued_with_a_pause_between_two_looks_waits_for_it(
    memory: MemoryTaskStore, workshop: Workshop, clock: ManualClock
) -> None:
    # given a task that waits for the only slot
    ended: list[Task] = []
    backend = ThreadBackend()
    scheduler = scheduler_of(memory, workshop, ended, backend=backend, clock=clock)
    memory.submit("tool", "hold", "held", priority=9)
    task = memory.submit("tool", "echo", "failed there")
    scheduler.step(set())

    # when another host has tried it
    memory.requeue(own(memory, task.id), pause=60.0)
    scheduler.step({task.id})
    workshop.gate.set()
    until(lambda: ended)

    # then it waits as long as that host wants it to
    scheduler.step(set())
    assert ([], {task.id}) == ([each for each in ended if each.id == task.id], memory.pending_ids())
    clock.advance(60)
    scheduler.step(set())
    until(lambda: len(ended) == 2)
    scheduler.close()
    backend.shutdown()


@pytest.mark.parametrize("phase", [Phase.READY, Phase.LATER, Phase.OTHERS])
@pytest.mark.parametrize("what", ["ends", "ends and is pruned", "dies", "is tried and requeued"])
def test_what_becomes_of_a_task_elsewhere_is_learnt_from_wherever_it_stands(
    files: TaskStore, workshop: Workshop, clock: ManualClock, phase: Phase, what: str
) -> None:
    # given a scheduler that starts nothing, and a task that waits, or runs elsewhere
    ended: list[Task] = []
    scheduler = scheduler_of(files, workshop, ended, clock=clock)
    scheduler.drain(0)
    due = clock.now + timedelta(hours=1) if phase is Phase.LATER else None
    task = files.submit("tool", "echo", "it", not_before=due)
    claim = own(files, task.id) if phase is Phase.OTHERS else None
    scheduler.step(set())
    assert phase is scheduler._seen.phase(task.id)

    # when its owner does that, and everything is looked at
    claim = claim or own(files, task.id)
    if what == "dies":
        die(claim)
    elif what == "is tried and requeued":
        files.requeue(claim, pause=60.0)
    else:
        files.finish(claim, Event.COMPLETE)
    if what == "ends and is pruned":
        files.notifications.acknowledge(files.notifications.peek())
        assert [task.id] == files.prune(keep=0)
    waits, reported = what == "is tried and requeued", what in {"ends", "dies"}
    for _ in range(2):
        scheduler._next_look = 0.0
        scheduler.step({task.id} if waits else set())  # what is pending as before is not read again unless it changed

    # then its end is reported once, unless nothing is left of it
    assert (Phase.LATER if waits else Phase.UNKNOWN) is scheduler._seen.phase(task.id)
    assert [task.id] * reported == [each.id for each in ended]
    scheduler.close()
