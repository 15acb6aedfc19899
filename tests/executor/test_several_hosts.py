"""Several hosts on one store: each task runs once, and its end is reported by each host that saw it."""

from __future__ import annotations

import threading

import pytest

from animaworks_tasks import (
    Task,
    TaskStore,
)
from animaworks_tasks.executor.seen import ELSEWHERE
from animaworks_tasks.store import transitions
from animaworks_tasks.store.protocol import Changes
from animaworks_tasks.store.watch import DirectoryWatch
from animaworks_tasks.task.states import Event
from tests.conftest import begin, die
from tests.executor.workshop import Workshop, executor_of, recorded, seen
from tests.processes import PATIENCE, join, until


def test_of_two_executors_on_one_store_each_task_runs_once_and_waiting_works_on_both(
    files: TaskStore, workshop: Workshop
) -> None:
    # given
    ended: list[str] = []
    on_finish = lambda task: ended.append(task.id)  # noqa: E731 - one for both
    executors = [
        executor_of(files, workshop, max_workers=16, scan_interval=0.02, on_finish=on_finish).start() for _ in range(2)
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
def test_an_end_is_reported_once_when_its_notification_is_there_whatever_becomes_of_its_owner(
    files: TaskStore, workshop: Workshop, *, dies: bool
) -> None:
    # given an owner that has written the outcome, and neither notified nor taken its running entry away
    claim = begin(files)
    ended: list[tuple[Task, list[str | None]]] = []
    notified = lambda: [notification.task_id for notification in files.notifications.peek()]  # noqa: E731 - as on_finish
    on_finish = lambda task: ended.append((task, notified()))  # noqa: E731 - of this test
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=on_finish).start()
    until(lambda: seen(executor, *ELSEWHERE))
    done = recorded(files, claim)

    # when this host sees to that, or the owner dies
    if dies:
        die(claim)
    until(lambda: ended)
    executor.run_until_idle_sync(timeout=PATIENCE)
    if not dies:
        transitions.drop(files.place, done.id)
        die(claim)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert [(done, [done.id])] == ended


def test_the_end_of_a_task_of_another_host_is_reported_also_if_the_kernel_says_nothing(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    claim = begin(files)
    ended: list[Task] = []
    wait = DirectoryWatch.wait
    monkeypatch.setattr(DirectoryWatch, "wait", lambda watch, timeout: (wait(watch, timeout), Changes())[1])
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    until(lambda: seen(executor, *ELSEWHERE))

    # when
    done = files.finish(claim, Event.COMPLETE)

    # then
    until(lambda: ended)
    executor.stop()
    assert [done] == ended
