"""The callback: in which loop it is called, and what becomes of the task where it fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from animaworks_tasks import Executor, Registry, Store, Task, TaskStore, ThreadBackend
from animaworks_tasks.background import BackgroundTask, BackgroundTaskManager, TaskStatus
from tests.animaworks.calls import Gate, say, shown
from tests.processes import eventually, in_event_loop, until


def test_without_an_event_loop_the_callback_has_one_of_its_own(manager: BackgroundTaskManager) -> None:
    # given
    called: list[tuple[str, bool]] = []

    async def on_complete(task: BackgroundTask) -> None:
        await asyncio.sleep(0)
        called.append((task.task_id, asyncio.get_running_loop().is_running()))

    manager.on_complete = on_complete
    # when
    task_id = manager.submit("my_tool", {}, say)
    # then
    assert [(task_id, True)] == until(lambda: called)


@in_event_loop
async def test_the_callback_runs_in_the_loop_that_submitted(tmp_path: Path) -> None:
    """And for what a thread submitted, in the last one that was seen."""
    # given a manager that was made without a loop
    manager = await asyncio.to_thread(BackgroundTaskManager, tmp_path)
    loops: list[object] = []

    async def on_complete(_: BackgroundTask) -> None:
        loops.append(asyncio.get_running_loop())

    manager.on_complete = on_complete
    # when
    manager.submit("my_tool", {}, say)
    await asyncio.to_thread(manager.submit, "my_tool", {}, say)
    # then
    await eventually(lambda: len(loops) == 2)
    assert [asyncio.get_running_loop()] * 2 == loops


def test_where_the_loop_that_submitted_is_gone_the_callback_is_called_all_the_same(
    manager: BackgroundTaskManager, gate: Gate
) -> None:
    # given
    called: list[str] = []

    def on_complete(task: BackgroundTask) -> None:  # a plain function, which the original would call too
        called.append(task.task_id)

    manager.on_complete = on_complete  # type: ignore[assignment]  # as said

    async def submit() -> str:
        return manager.submit("my_tool", {}, gate)

    task_id = asyncio.run(submit())
    # when
    gate.may_end.set()
    # then
    assert [task_id] == until(lambda: called)


def test_a_callback_that_raises_is_logged_and_changes_nothing(
    manager: BackgroundTaskManager, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    async def on_complete(_: BackgroundTask) -> None:
        raise KeyError("whatever")

    manager.on_complete = on_complete
    # when
    task_id = manager.submit("my_tool", {}, say)
    # then
    until(lambda: "on_complete callback" in caplog.text)
    assert f"failed for task {task_id}" in caplog.text
    assert [task_id] == [each.task_id for each in store.notifications.peek()]
    assert TaskStatus.COMPLETED is shown(manager, task_id).status


@in_event_loop
async def test_one_callback_of_the_executor_serves_for_shells_and_for_the_managers_calls(tmp_path: Path) -> None:
    """What AnimaWorks does at an end - web socket, a message to a human - needs its own kind of task, with its end."""
    # given a host with an executor and a manager on one directory
    store, registry = TaskStore(tmp_path / "mei", language="en"), Registry()
    registry.add("archive", "make", lambda: "logs.zip")
    manager = BackgroundTaskManager(tmp_path / "mei", store=store)
    finished: list[str] = []

    async def on_finish(task: Task) -> None:
        finished.append((await asyncio.to_thread(manager.as_background_task, task)).summary())

    # when a shell submits, and the host does
    async with Executor(store, registry, backend=ThreadBackend(), on_finish=on_finish) as executor:
        store.submit("archive", "make")
        manager.submit("generate_icon", {"what": "a cat"}, say)
        await eventually(lambda: len(finished) == 2)
        await executor.run_until_idle()
    # then each is reported once, as it ended
    icon = "[generate_icon] completed: generate_icon {'what': 'a cat'}"
    assert sorted(["[archive:make] completed: logs.zip", icon]) == sorted(finished)
