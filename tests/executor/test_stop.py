"""Starting and stopping, once and again, from several threads, and given up half way."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from animaworks_tasks import (
    Executor,
    MemoryTaskStore,
    ProcessBackend,
    Registry,
    State,
    Store,
    TaskStore,
    ThreadBackend,
)
from animaworks_tasks.errors import (
    ExecutorClosedError,
)
from tests.executor.workshop import Workshop, executor_of
from tests.processes import PATIENCE, eventually, in_event_loop, join, until
from tests.tools_for_tests import registry as tools
from tests.tools_for_tests import wait_for


def test_stopping_waits_for_threads_up_to_its_limit(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    executor = executor_of(memory, workshop, max_workers=1).start()
    task = executor.submit_sync("tool", "hold", "runs")
    until(lambda: workshop.calls)
    waiting = executor.submit_sync("tool", "hold", "waits")

    # when
    stopping = threading.Thread(target=executor.stop)
    stopping.start()
    until(lambda: executor._scheduler is not None and not executor._scheduler._starts)
    workshop.gate.set()
    join(stopping)

    # then what ran has ended, and nothing was begun
    assert (State.DONE, State.PENDING) == (memory.get(task.id).state, memory.get(waiting.id).state)


def test_stopping_at_once_leaves_threads_behind_and_says_so(
    memory: MemoryTaskStore, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    executor = executor_of(memory, workshop).start()
    task = executor.submit_sync("tool", "hold", "runs")
    until(lambda: workshop.calls)

    # when
    executor.stop(drain_timeout=0)

    # then it goes on, and its end disturbs nobody
    assert f"tasks still running when the executor stopped: {task.id}" in caplog.text
    workshop.gate.set()
    until(lambda: memory.get(task.id).state is State.DONE)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_call_that_is_taken_back_at_a_stop_is_in_order(
    memory: MemoryTaskStore, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    # given a pool with fewer threads than the executor has slots
    caplog.set_level(logging.INFO)
    executor = Executor(memory, workshop.registry, backend=ThreadPoolExecutor(1), max_workers=2).start()
    runs = executor.submit_sync("tool", "hold", "runs")
    until(lambda: workshop.calls)
    waits = executor.submit_sync("tool", "hold", "waits")
    until(lambda: executor._scheduler is not None and executor._scheduler.running() == {runs.id, waits.id})

    # when
    executor.stop(drain_timeout=0)

    # then
    said = [(record.levelname, record.message) for record in caplog.records if waits.id in record.message]
    assert ("INFO", f"task {waits.id} is left to the next host or to its own process: this one stops") in said
    assert {"INFO"} == {level for level, message in said if "still running" not in message}
    workshop.gate.set()
    until(lambda: memory.get(runs.id).state is State.DONE)
    assert State.PENDING is memory.get(waits.id).state


@pytest.mark.parametrize("on_host_exit", ["detach", "stop"])
def test_a_host_that_leaves_while_tools_run_in_processes_warns_of_nothing(
    files: TaskStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, on_host_exit: Literal["detach", "stop"]
) -> None:
    # given
    backend = ProcessBackend(on_host_exit=on_host_exit)
    executor = Executor(files, tools, backend=backend, max_workers=2).start()
    task = executor.submit_sync("proc", "hold", str(tmp_path / "end"))
    until(lambda: files.read_log(task.id))

    # when
    executor.stop()
    (tmp_path / "end").touch()
    until(lambda: files.get(task.id).state is State.DONE)

    # then
    assert [] == [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@in_event_loop
async def test_an_executor_that_does_not_run_says_so(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given one that was never started, which can still submit
    executor = executor_of(memory, workshop)
    task = await executor.submit("tool", "echo", "it")
    with pytest.raises(ExecutorClosedError, match="not running"):
        await executor.wait(task.id)

    # and one that was stopped
    async with executor:
        await executor.run_until_idle(timeout=PATIENCE)
    assert "it" == memory.get(task.id).result
    for use in (
        executor.wait(task.id),
        executor.run_until_idle(),
        executor.submit("tool", "echo", "it"),
        executor.cancel(task.id),
    ):
        with pytest.raises(ExecutorClosedError):
            await use
    with pytest.raises(ExecutorClosedError, match="started once"):
        executor.start()


@in_event_loop
async def test_stopping_twice_or_before_the_start_does_nothing(memory: MemoryTaskStore, workshop: Workshop) -> None:
    executor_of(memory, workshop).stop()
    async with executor_of(memory, workshop) as executor:
        await asyncio.to_thread(executor.stop)


def test_starting_and_stopping_at_once_is_no_race(memory: MemoryTaskStore, workshop: Workshop) -> None:
    for _ in range(50):
        executor_of(memory, workshop).start().stop()
    assert [] == memory._watches


def test_starting_and_stopping_for_ever_leaves_no_open_files(files: TaskStore, workshop: Workshop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        executor_of(files, workshop).start().stop()
    assert before >= len(os.listdir("/proc/self/fd"))  # fewer, where earlier tests left some to the collector


def test_a_second_thread_that_stops_an_executor_waits_for_the_first(store: Store, tmp_path: Path) -> None:
    # given a task that keeps the first from leaving
    gate = tmp_path / "gate"
    registry = Registry()
    registry.add("tool", "hold", lambda: wait_for(gate))
    executor = Executor(store, registry, backend=ThreadBackend(), drain_timeout=PATIENCE).start()
    task_id = executor.submit_sync("tool", "hold").id
    until(lambda: store.get(task_id).state is State.RUNNING)
    problems: list[BaseException] = []

    def stop() -> None:
        try:
            executor.stop()
            assert store.get(task_id).state is State.DONE
        except BaseException as problem:
            problems.append(problem)
            raise

    # when
    threads = [threading.Thread(target=stop) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.touch()

    # then
    for thread in threads:
        join(thread)
    assert [] == problems
    executor.stop()


@in_event_loop
async def test_an_executor_whose_start_is_given_up_does_not_stay(store: Store, workshop: Workshop) -> None:
    # given
    executor = executor_of(store, workshop)

    async def use() -> None:
        async with executor:
            raise AssertionError("it was to be given up before")

    # when
    using = asyncio.ensure_future(use())
    await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using

    # then
    await eventually(lambda: executor._scheduler is None or executor._stopping.is_set())
    await eventually(lambda: executor._thread is None or not executor._thread.is_alive())


@in_event_loop
async def test_an_executor_that_works_goes_on_when_it_is_entered_once_more(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        with pytest.raises(ExecutorClosedError, match="started once"):
            await executor.__aenter__()
        task = await executor.submit("tool", "echo", "on")
        assert "on" == (await executor.wait(task.id, timeout=PATIENCE)).result


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_an_interval_without_a_pause_is_refused(store: Store, seconds: float) -> None:
    with pytest.raises(ValueError, match="scan_interval must be more than 0"):
        Executor(store, Registry(), scan_interval=seconds)
