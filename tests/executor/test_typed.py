"""Calls of a tool's own function: its arguments, its result, and a failure that is raised."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from animaworks_tasks import (
    Cause,
    Executor,
    MemoryTaskStore,
    Outcome,
    ProcessBackend,
    Registry,
    Store,
    TaskStore,
    ThreadBackend,
    ToolContext,
    ToolError,
)
from animaworks_tasks.errors import ResultTypeError, TaskFailedError, UnknownToolError
from tests.executor.workshop import Workshop, executor_of
from tests.processes import PATIENCE, in_event_loop


@attrs.frozen
class Picture:
    path: Path
    frames: list[int]
    title: str | None = None


def render(context: ToolContext, name: str, *, frames: int = 1, title: str | None = None) -> Picture:
    return Picture(Path(context.task_id, name), list(range(frames)), title)


async def double(number: int) -> int:
    if number < 0:
        raise ToolError("too small", hint="take another one")
    return 2 * number


def large() -> list[str]:
    return ["word"] * 50_000


def wrong() -> int:
    return "text"  # type: ignore[return-value]  # what its annotation does not say


def registry_of() -> Registry:
    registry = Registry()
    for function in (render, double, large, wrong):
        registry.add("studio", function.__name__, function)
    return registry


def executor_on(store: Store, **options: Any) -> Executor:  # noqa: ANN401 - those of Executor
    return Executor(store, registry_of(), **{"backend": ThreadBackend(), **options})


@in_event_loop
async def test_a_function_is_submitted_with_its_own_arguments_and_its_result_comes_back(store: Store) -> None:
    async with executor_on(store) as executor:
        # when
        task = await executor.submit(render, "-s", frames=3, title="--")
        picture = await executor.result(task, timeout=PATIENCE)

        # then, and in the record it is a call like any other
        assert Picture(Path(task.id, "-s"), [0, 1, 2], "--") == picture
        assert ("render", "--frames=3", "--title=--", "--", "-s") == store.get(task.id).argv
        assert picture == await executor.result(task.id)
        assert 10 == await executor.result(await executor.submit(double, 5))
        assert ["word"] * 50_000 == await executor.result(await executor.submit(large))


@in_event_loop
async def test_a_result_comes_back_from_another_process(tmp_path: Path) -> None:
    async with executor_on(TaskStore(tmp_path / "mei"), backend=ProcessBackend()) as executor:
        assert 14 == await executor.result(await executor.submit(double, 7), timeout=PATIENCE)


@in_event_loop
async def test_a_failed_task_raises_with_its_cause_and_hint_where_its_result_is_wanted(store: Store) -> None:
    async with executor_on(store) as executor:
        task = await executor.submit(double, -1)
        with pytest.raises(TaskFailedError, match=r"double failed \(tool\): too small; take another one") as found:
            await executor.result(task)
    error = pickle.loads(pickle.dumps(found.value))
    assert (task.id, Cause.TOOL, "too small", "take another one") == (
        error.task.id, error.cause, error.error, error.hint,
    )  # fmt: skip
    assert isinstance(error, RuntimeError)


@in_event_loop
async def test_a_cancelled_task_raises_with_its_outcome(memory: MemoryTaskStore, workshop: Workshop) -> None:
    async with executor_of(memory, workshop) as executor:
        task = await executor.submit("tool", "hold", "it")
        await executor.cancel(task.id)
        with pytest.raises(TaskFailedError, match="tool:hold cancelled") as found:
            await executor.result(task)
    assert (Outcome.CANCELLED, None) == (found.value.outcome, found.value.cause)


@in_event_loop
async def test_a_result_of_another_type_is_refused_and_says_where_its_text_is(store: Store) -> None:
    async with executor_on(store) as executor:
        task = await executor.submit(wrong)
        with pytest.raises(ResultTypeError, match=f"back as int: 'text' is no int; .*show {task.id}") as found:
            await executor.result(task)
        assert "text" == store.read_result(task.id)
    assert str(found.value) == str(pickle.loads(pickle.dumps(found.value)))


@in_event_loop
async def test_nothing_is_queued_of_a_function_that_is_no_tool_or_takes_other_arguments(store: Store) -> None:
    arguments: Mapping[str, Any] = {"frame": 3}
    something: Any = object()
    async with executor_on(store) as executor:
        with pytest.raises(UnknownToolError, match="registry_of is no tool of this registry"):
            await executor.submit(registry_of)
        with pytest.raises(TypeError, match=r"studio render: .*unexpected keyword argument 'frame'"):
            await executor.submit(render, "s", **arguments)
        with pytest.raises(TypeError, match="no command line can say that name is <object"):
            await executor.submit(render, something)
        with pytest.raises(TypeError, match="a tuple of its arguments, or a mapping by name, not 's'"):
            await executor.submit_many(render, ["s"])  # type: ignore[arg-type]  # as it should be
    assert [] == list(store.list())


@in_event_loop
async def test_options_stand_before_the_call_of_a_function(store: Store) -> None:
    async with executor_on(store) as executor:
        urgent = executor.options(priority=5)
        task = await urgent.submit(double, 1)
        named = await urgent.options(key="it").submit("studio", "double", "2", priority=7)
        assert (5, 7, "it") == (task.priority, named.priority, named.key)
        assert named.id == (await executor.options(key="it").submit(double, 2)).id


@in_event_loop
async def test_many_calls_of_a_function_are_submitted_and_waited_for_together(store: Store) -> None:
    async with executor_on(store) as executor:
        tasks = await executor.submit_many(double, [(1,), {"number": 2}, (3,)])
        done = await executor.wait_many(tasks, timeout=PATIENCE)
        assert [task.id for task in tasks] == [task.id for task in done]
        assert [2, 4, 6] == [await executor.result(task) for task in tasks]
        assert done == await executor.wait_many([task.id for task in tasks], timeout=0)


def test_a_host_without_an_event_loop_calls_functions_too(store: Store) -> None:
    with executor_on(store) as executor:
        tasks = executor.submit_many_sync(double, [(1,), (2,)])
        assert [2, 4] == [executor.result_sync(task, timeout=PATIENCE) for task in tasks]
        with pytest.raises(TaskFailedError):
            executor.result_sync(executor.submit_sync(double, -1))


@in_event_loop
async def test_waiting_for_many_gives_up_at_its_timeout_and_on_a_task_that_is_not_there(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    async with executor_of(memory, workshop) as executor:
        quick, slow = await executor.submit("tool", "echo", "a"), await executor.submit("tool", "hold", "b")
        await executor.wait(quick.id)
        with pytest.raises(TimeoutError, match=f"task {slow.id} is not done"):
            await executor.wait_many([quick, slow], timeout=0.01)
        with pytest.raises(LookupError):
            await executor.wait_many([slow.id, "0" * 12])
        assert executor._scheduler is not None
        assert set() == executor._scheduler.waiting.ids()
        workshop.gate.set()
