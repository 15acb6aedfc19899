"""Reading tasks through an executor, and an executor without an event loop as a context manager."""

from __future__ import annotations

import pytest

from animaworks_tasks import MemoryTaskStore, Outcome, Registry, State, Store, TaskNotFoundError, ToolContext
from animaworks_tasks.errors import ExecutorClosedError
from tests.executor.workshop import Workshop, executor_of
from tests.processes import PATIENCE, in_event_loop


@in_event_loop
async def test_an_executor_reads_tasks_of_its_store_without_blocking_the_loop(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        # given one task that ended, and one that runs
        ended = await executor.submit("tool", "echo", "first")
        await executor.wait(ended.id)
        runs = await executor.submit("tool", "hold", "second")

        # then
        assert "first" == (await executor.get(ended.id)).result
        assert {ended.id, runs.id} == {task.id for task in await executor.list()}
        assert [ended.id] == [task.id for task in await executor.list(State.DONE, limit=5)]
        assert await executor.progress(runs.id) is None
        with pytest.raises(TaskNotFoundError):
            await executor.get("0" * 12)
        workshop.gate.set()


@in_event_loop
async def test_the_last_progress_report_of_a_task_can_be_read(memory: MemoryTaskStore, workshop: Workshop) -> None:
    registry = Registry()

    @registry.tool("count", "up")
    def up(context: ToolContext) -> None:
        context.progress(1, "all of it")

    workshop.registry.add_registry(registry)
    async with executor_of(memory, workshop) as executor:
        task = await executor.submit("count", "up")
        await executor.wait(task.id)
        progress = await executor.progress(task.id)
        assert progress is not None
        assert (1, "all of it") == (progress.fraction, progress.message)


def test_a_host_without_an_event_loop_enters_and_leaves_an_executor(store: Store, workshop: Workshop) -> None:
    with executor_of(store, workshop) as executor:
        task = executor.submit_sync("tool", "echo", "it")
        assert Outcome.COMPLETED is executor.wait_sync(task.id, timeout=PATIENCE).outcome
    with pytest.raises(ExecutorClosedError):
        executor.wait_sync(task.id)
