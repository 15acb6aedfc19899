"""Several hosts on one store: each task runs once, and its end is reported by each host that saw it."""

from __future__ import annotations

import itertools
import threading

import pytest

from animaworks_tasks import (
    Task,
    TaskStore,
)
from animaworks_tasks.executor.seen import ELSEWHERE
from animaworks_tasks.fs.doorbell import ring
from animaworks_tasks.store.protocol import utc_now
from animaworks_tasks.task.states import Event, advance
from tests.conftest import begin, die
from tests.executor.workshop import Workshop, executor_of, seen
from tests.processes import PATIENCE, join, until


def test_of_two_executors_on_one_store_each_task_runs_once_and_both_are_told_by_waiting(
    files: TaskStore, workshop: Workshop
) -> None:
    # given
    ended: list[str] = []
    tell = lambda task: ended.append(task.id)  # noqa: E731 - one for both
    executors = [
        executor_of(files, workshop, max_workers=16, scan_interval=0.02, on_finish=tell).start() for _ in range(2)
    ]

    # when
    words = [f"word {number}" for number in range(20)]
    ids = [executors[0].submit_sync("tool", "echo", word).id for word in words]

    # then
    for executor in executors:
        assert words == [executor.wait_sync(task_id, timeout=PATIENCE).result for task_id in ids]
        executor.run_until_idle_sync(timeout=PATIENCE)
    for executor in executors:
        executor.stop()
    assert sorted(words) == sorted(workshop.calls)
    assert set(ids) <= set(ended)
    assert all(ended.count(task_id) <= 2 for task_id in ids)  # at most once by each


def test_the_end_of_a_task_that_another_host_runs_is_learnt_and_told_once(files: TaskStore, workshop: Workshop) -> None:
    # given a task that another host runs, and somebody who waits for it here
    claim = begin(files)
    ended: list[Task] = []
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    waiting: list[Task] = []
    thread = threading.Thread(target=lambda: waiting.append(executor.wait_sync(claim.task.id, timeout=PATIENCE)))
    thread.start()
    until(lambda: seen(executor, *ELSEWHERE))

    # when
    done = files.finish(claim, Event.COMPLETE, result="made there")

    # then
    join(thread)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()
    assert ([done], [done]) == (waiting, ended)


@pytest.mark.parametrize("dies", [False, True], ids=["tidies up late", "dies before it tidies up"])
def test_an_end_is_told_once_and_only_when_its_owner_is_through(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, *, dies: bool
) -> None:
    # given an owner that has written the outcome, and has not yet taken its running entry away
    claim = begin(files)
    ended: list[Task] = []
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    until(lambda: seen(executor, *ELSEWHERE))
    done = files._records.settle(advance(claim.task, Event.COMPLETE, finished_at=utc_now()))

    # when it rings, is looked at, and looked at again
    ring(files.layout.doorbell, done.id)
    looks = itertools.count()
    recover = files.recover
    monkeypatch.setattr(files, "recover", lambda *args: (next(looks), recover(*args))[1])
    until(lambda: next(looks) > 4)

    # then it is not told yet
    assert [] == ended
    with pytest.raises(TimeoutError, match=f"task {done.id} is not done after 0.01 s; it goes on"):
        executor.wait_sync(done.id, timeout=0.01)

    # when
    if not dies:
        files._records.forget_running(done.id)
    die(claim)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert [done] == ended


def test_the_end_of_a_task_of_another_host_is_told_also_if_nobody_rings(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    claim = begin(files)
    ended: list[Task] = []
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    until(lambda: seen(executor, *ELSEWHERE))

    # when
    monkeypatch.setattr("animaworks_tasks.store.directory.ring", lambda *_: None)
    done = files.finish(claim, Event.COMPLETE)

    # then
    until(lambda: ended)
    executor.stop()
    assert [done] == ended
