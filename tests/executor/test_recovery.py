"""Retries, lost calls and dead owners: every end is found, and reported once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from animaworks_tasks import (
    Cause,
    InlineBackend,
    MemoryTaskStore,
    Registry,
    State,
    Store,
    Task,
    TaskStore,
    ThreadBackend,
    run_task,
)
from animaworks_tasks.errors import (
    BackendError,
)
from animaworks_tasks.executor.seen import ELSEWHERE
from animaworks_tasks.store import recovery
from tests.conftest import ManualClock, begin, die, own
from tests.executor.workshop import SELDOM, Workshop, committed, executor_of, seen
from tests.processes import PATIENCE, until


def test_a_failing_task_is_run_again_after_its_pause(files: TaskStore, workshop: Workshop) -> None:
    # given a clock that the test moves on
    store, clock = TaskStore(files.location, durability="process"), ManualClock()
    executor = executor_of(store, workshop, clock=clock, backend=InlineBackend()).start()
    task = executor.submit_sync("tool", "flaky")

    # when
    for _ in range(3):
        executor.run_until_idle_sync(timeout=PATIENCE)
        due = store.get(task.id).not_before
        clock.now = due or clock.now

    # then
    assert "3" == store.get(task.id).result
    executor.stop()


def test_tasks_whose_host_died_are_finished_at_the_start_and_reported_once(store: Store, workshop: Workshop) -> None:
    # given two tasks whose owner has died, one of which is safe to run again
    claims = [begin(store, tool="image_gen"), own(store, store.submit("tool", "again").id)]
    for claim in claims:
        die(claim)
    ended: list[Task] = []

    # when
    executor = executor_of(store, workshop, on_finish=ended.append).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    results = {task.id: (task.cause, task.result) for task in ended}
    assert {claims[0].task.id: (Cause.INTERRUPTED, None), claims[1].task.id: (None, "2")} == results
    assert 2 == len(ended)


class Fragile(ThreadBackend):
    """Loses its first calls: it runs them up to the claim, and then the one who ran them is dead."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store, self.lost = store, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as ThreadBackend
        if self.lost:
            return super().submit(fn, *args, **kwargs)
        self.lost += 1
        return super().submit(self._die, *args)

    def _die(self, _store: Store, _registry: Registry, task_id: str, *_: object) -> None:
        die(own(self._store, task_id))
        raise RuntimeError("this host is dead")


def test_a_task_whose_process_died_is_finished_soon_and_reported_once(
    memory: MemoryTaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a backend that loses a call, and a host that would look at everything in an hour
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._SOON", 0.01)
    ended: list[Task] = []
    options = {"backend": Fragile(memory), "scan_interval": SELDOM, "on_finish": ended.append}
    executor = executor_of(memory, workshop, **options).start()

    # when
    task = executor.submit_sync("tool", "echo", "it")
    done = executor.wait_sync(task.id, timeout=PATIENCE)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert Cause.INTERRUPTED is done.cause
    assert [done] == ended


def test_a_backend_that_takes_no_calls_leaves_tasks_pending_until_it_does(
    memory: MemoryTaskStore, workshop: Workshop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    backend = ThreadBackend()
    refusals: list[object] = []

    def refuse(*call: object) -> None:
        refusals.append(call)
        raise RuntimeError("come back later")

    with monkeypatch.context() as busy:
        busy.setattr(backend, "submit", refuse)
        executor = executor_of(memory, workshop, backend=backend, scan_interval=0.01).start()
        task = executor.submit_sync("tool", "echo", "it")
        until(lambda: len(refusals) > 1)
        assert State.PENDING is memory.get(task.id).state

    # then
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()
    assert "could not be handed to" in caplog.text


@pytest.mark.parametrize("by", ["us", "another host"])
def test_an_end_that_could_not_be_stored_is_reported_once_when_it_is(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    # given a task of another host, and a disk that refuses to finish it
    claim = begin(files)
    ended: list[Task] = []
    reported: list[list[str | None]] = []

    def on_finish(task: Task) -> None:
        reported.append([each.task_id for each in files.notifications.peek()])
        ended.append(task)

    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=on_finish).start()
    scheduler = executor._scheduler
    assert scheduler is not None
    until(lambda: seen(executor, *ELSEWHERE))
    refusals: list[object] = []

    def refuse(*arguments: object) -> None:
        refusals.append(arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "recover_one", refuse)
        until(lambda: refusals)  # a look that began before the patch is over
        done = committed(files, claim)
        seen_before = len(refusals)
        until(lambda: len(refusals) > seen_before + 3)

        # then it takes no slot, and keeps nobody from being idle
        executor.run_until_idle_sync(timeout=PATIENCE)
        assert [] == ended
        if by == "another host":
            TaskStore(files.location, language="en").recover()

    # and when there is room
    until(lambda: ended)
    for _ in range(3):
        scheduler._next_look = 0.0
        executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()
    assert ([done], [[done.id]]) == (ended, reported)


def test_the_end_of_a_lost_call_is_reported_when_its_notification_is_there(
    files: TaskStore, workshop: Workshop
) -> None:
    # given a backend whose workers die between the commit and the notification
    class Dying(ThreadBackend):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 - as they are
            def die_late() -> None:
                committed(files, own(files, args[2]))
                raise BackendError("gone")

            return super().submit(die_late) if fn is run_task else super().submit(fn, *args, **kwargs)

    reported: list[list[str | None]] = []
    on_finish = lambda _: reported.append([each.task_id for each in files.notifications.peek()])  # noqa: E731 - of this test
    executor = executor_of(files, workshop, backend=Dying(), scan_interval=0.02, on_finish=on_finish).start()

    # when
    task = executor.submit_sync("tool", "echo", "words")
    executor.wait_sync(task.id, timeout=PATIENCE)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert [[task.id]] == reported
