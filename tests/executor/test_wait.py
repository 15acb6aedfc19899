"""Waiting: for the end of a task, and until nothing is left to do."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from animaworks_tasks import (
    Executor,
    MemoryTaskStore,
    Outcome,
    Registry,
    Store,
    Task,
    TaskNotFoundError,
    ThreadBackend,
)
from animaworks_tasks.errors import (
    ExecutorClosedError,
)
from tests.executor.workshop import Workshop, executor_of
from tests.processes import PATIENCE, eventually, in_event_loop
from tests.tools_for_tests import wait_for


@in_event_loop
async def test_waiting_no_longer_than_said_raises_and_the_task_goes_on(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    async with executor_of(memory, workshop) as executor:
        task = await executor.submit("tool", "hold", "it")
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                await executor.wait(task.id, timeout=timeout)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(executor.wait_sync, task.id, timeout=0)
        workshop.gate.set()
        assert "it" == (await executor.wait(task.id)).result


@in_event_loop
async def test_what_would_block_a_running_event_loop_is_refused_with_what_to_await_instead(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    async with executor_of(memory, workshop) as executor:
        task = await executor.submit("tool", "echo", "it")
        with pytest.raises(RuntimeError, match=r"use `await executor.wait\(...\)`"):
            executor.wait_sync(task.id)
        with pytest.raises(RuntimeError, match=r"use `await executor.run_until_idle\(...\)`"):
            executor.run_until_idle_sync()


@in_event_loop
async def test_giving_up_waiting_does_not_disturb_others_who_wait(memory: MemoryTaskStore, workshop: Workshop) -> None:
    async with executor_of(memory, workshop) as executor:
        # given two who wait for one task
        task = await executor.submit("tool", "hold", "it")
        waits = [asyncio.create_task(executor.wait(task.id)) for _ in range(2)]
        scheduler = executor._scheduler
        assert scheduler is not None
        await eventually(lambda: len(scheduler.waiting._for_tasks.get(task.id, ())) == 2)

        # when one gives up
        waits[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]
        await eventually(lambda: len(scheduler.waiting._for_tasks[task.id]) == 1)

        # then
        workshop.gate.set()
        assert "it" == (await waits[1]).result


@in_event_loop
async def test_giving_up_while_the_wait_begins_leaves_no_watch_behind(
    memory: MemoryTaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with executor_of(memory, workshop) as executor:
        # given a watch that takes long to begin
        task = await executor.submit("tool", "hold", "it")
        scheduler = executor._scheduler
        assert scheduler is not None
        watch, looked, go_on = scheduler.watch, threading.Event(), threading.Event()

        def slowly(task_id: str) -> Future[Task]:
            future = watch(task_id)
            looked.set()
            go_on.wait(PATIENCE)
            return future

        monkeypatch.setattr(scheduler, "watch", slowly)
        waiting = asyncio.create_task(executor.wait(task.id))
        await eventually(looked.is_set)

        # when
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()

        # then
        await eventually(lambda: task.id not in scheduler.waiting.ids())
        workshop.gate.set()


@in_event_loop
async def test_a_task_that_is_not_there_cannot_be_waited_for_or_cancelled(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    async with executor_of(memory, workshop) as executor:
        with pytest.raises(TaskNotFoundError):
            await executor.wait("0" * 12)
        with pytest.raises(TaskNotFoundError):
            await executor.cancel("0" * 12)


def test_a_store_in_which_something_runs_is_not_idle(memory: MemoryTaskStore, workshop: Workshop) -> None:
    executor = executor_of(memory, workshop).start()
    executor.submit_sync("tool", "hold", "it")
    with pytest.raises(TimeoutError):
        executor.run_until_idle_sync(timeout=0.05)
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()


def test_a_callback_that_does_not_return_keeps_all_from_being_idle(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    executor = executor_of(memory, workshop, on_finish=lambda _: workshop.gate.wait(PATIENCE)).start()
    executor.wait_sync(executor.submit_sync("tool", "echo", "it").id, timeout=PATIENCE)

    async def in_loop() -> None:
        await executor.run_until_idle(timeout=0.05)

    # then
    with pytest.raises(TimeoutError, match="callbacks still run"):
        executor.run_until_idle_sync(timeout=0.05)
    with pytest.raises(TimeoutError, match="callbacks still run"):
        asyncio.run(in_loop())
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()


def test_a_wait_for_idleness_that_is_given_up_says_so_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    # given
    gate = tmp_path / "gate"
    registry = Registry()
    registry.add("tool", "hold", lambda: wait_for(gate))
    executor = Executor(store, registry, backend=ThreadBackend()).start()
    task = executor.submit_sync("tool", "hold")

    # when
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"there is still something to run after 0.01 s"):
            executor.run_until_idle_sync(timeout=0.01)

    # then
    assert executor._scheduler is not None
    waiting = executor._scheduler.waiting
    assert 1 >= len(waiting._for_idle + waiting._for_next_idle)
    executor.cancel_sync(task.id)
    gate.touch()
    assert Outcome.CANCELLED is executor.wait_sync(task.id, timeout=PATIENCE).outcome
    executor.stop()


@in_event_loop
async def test_a_wait_ends_with_an_error_when_the_executor_stops(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    executor = executor_of(memory, workshop, drain_timeout=0)
    async with executor:
        task = await executor.submit("tool", "hold", "it")
        waiting = asyncio.create_task(executor.wait(task.id))
        idle = asyncio.create_task(executor.run_until_idle())
        assert executor._scheduler is not None
        waits = executor._scheduler.waiting
        await eventually(lambda: waits.ids() and waits._for_idle + waits._for_next_idle)

    # then
    for each in (waiting, idle):
        with pytest.raises(ExecutorClosedError, match="stopped while this was waited for"):
            await each


def test_nobody_can_begin_to_wait_while_the_executor_closes(memory: MemoryTaskStore, workshop: Workshop) -> None:
    executor = executor_of(memory, workshop).start()
    scheduler = executor._scheduler
    assert scheduler is not None
    executor.stop()
    with pytest.raises(ExecutorClosedError):
        scheduler.watch_idle()
    with pytest.raises(ExecutorClosedError):
        scheduler.watch("0" * 12)
    scheduler.wake()
