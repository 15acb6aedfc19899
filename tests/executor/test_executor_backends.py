"""Where an executor runs its tasks: processes, calls on the spot, and pools of somebody else."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from animaworks_tasks import (
    Backend,
    Cause,
    Executor,
    FuturesBackend,
    InlineBackend,
    MemoryTaskStore,
    ProcessBackend,
    Registry,
    State,
    Task,
    TaskStore,
    ThreadBackend,
)
from animaworks_tasks.errors import (
    RegistryError,
)
from animaworks_tasks.task.states import Event
from tests import tools_for_tests
from tests.conftest import begin
from tests.executor.workshop import SELDOM, Workshop, executor_of
from tests.processes import PATIENCE, in_event_loop, until


def test_processes_are_what_an_executor_uses_unless_told_otherwise(memory: MemoryTaskStore) -> None:
    assert isinstance(Executor(memory, Registry())._backend, ProcessBackend)


@in_event_loop
async def test_inline_tasks_run_where_they_are_waited_for_and_nothing_is_started(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    # given
    ended: list[str] = []

    async def on_finish(task: Task) -> None:
        ended.append(task.id)

    before = set(threading.enumerate())
    async with executor_of(memory, workshop, backend=InlineBackend(), on_finish=on_finish) as executor:
        tasks = [await executor.submit("tool", "echo", word) for word in "ab"]
        assert [] == workshop.calls

        # when
        assert "b" == (await executor.wait(tasks[1].id)).result
        await executor.run_until_idle()

    # then
    assert set(threading.enumerate()) <= before
    assert {task.id for task in tasks} == set(ended)
    assert 2 == len(ended)


def test_inline_waiting_ends_in_time_for_a_task_that_another_runs(memory: MemoryTaskStore, workshop: Workshop) -> None:
    claim = begin(memory)
    executor = executor_of(memory, workshop, backend=InlineBackend(), scan_interval=SELDOM).start()
    with pytest.raises(TimeoutError):
        executor.wait_sync(claim.task.id, timeout=0.05)
    with pytest.raises(TimeoutError):
        executor.run_until_idle_sync(timeout=0)
    memory.finish(claim, Event.COMPLETE)
    assert State.DONE is executor.wait_sync(claim.task.id).state
    executor.stop()


def test_ctrl_c_in_an_inline_tool_reaches_the_host_and_the_task_is_finished_next(memory: MemoryTaskStore) -> None:
    # given
    registry = Registry()

    def interrupt() -> None:
        raise KeyboardInterrupt

    registry.add("tool", "run", interrupt)
    executor = Executor(memory, registry, backend=InlineBackend()).start()
    task = executor.submit_sync("tool", "run")

    # when
    with pytest.raises(KeyboardInterrupt):
        executor.run_until_idle_sync()

    # then
    executor.run_until_idle_sync()
    assert Cause.INTERRUPTED is memory.get(task.id).cause
    executor.stop()


@pytest.mark.parametrize("wrap", [FuturesBackend, lambda pool: pool], ids=["wrapped", "as it stands"])
def test_somebody_elses_pool_runs_tasks_too(
    wrap: Callable[[ThreadPoolExecutor], Backend], memory: MemoryTaskStore, workshop: Workshop
) -> None:
    with ThreadPoolExecutor(2) as pool:
        executor = executor_of(memory, workshop, backend=wrap(pool)).start()
        task = executor.submit_sync("tool", "echo", "it")
        assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
        executor.stop()


def test_a_pool_of_processes_runs_tasks_as_it_stands_and_is_shut_down_with_the_executor(files: TaskStore) -> None:
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    executor = Executor(files, tools_for_tests.registry, backend=pool).start()
    task = executor.submit_sync("proc", "echo", "over there")
    assert "over there" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tools_for_tests.die)


@pytest.mark.parametrize("wrap", [FuturesBackend, lambda pool: pool], ids=["wrapped", "as it stands"])
def test_what_cannot_go_to_a_pool_of_processes_is_refused_at_the_start(
    wrap: Callable[[ProcessPoolExecutor], Backend], files: TaskStore
) -> None:
    lambdas = Registry()
    lambdas.add("tool", "run", lambda: None)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(RegistryError, match="'tool run' cannot be found by another process"):
            Executor(files, lambdas, backend=wrap(pool)).start()
        with pytest.raises(TypeError, match="cannot go to another process"):
            Executor(MemoryTaskStore(), Registry(), backend=wrap(pool)).start()


def test_a_pool_that_a_tool_has_broken_is_told_of_once_and_its_tasks_wait_for_another(
    files: TaskStore, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    executor = Executor(files, tools_for_tests.registry, backend=FuturesBackend(pool), scan_interval=0.02).start()
    with pytest.raises(BrokenExecutor):
        pool.submit(tools_for_tests.die).result(PATIENCE)

    # when
    task = executor.submit_sync("proc", "echo", "later")
    scheduler = executor._scheduler
    assert scheduler is not None
    until(lambda: scheduler._calls._broken)
    looks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        recover = files.recover
        patch.setattr(files, "recover", lambda *args: (next(looks), recover(*args))[1])
        until(lambda: next(looks) > 4)
    executor.stop()

    # then
    assert 1 == sum("is broken and takes no more calls" in record.message for record in caplog.records)
    again = Executor(files, tools_for_tests.registry, backend=ThreadBackend()).start()
    assert "later" == again.wait_sync(task.id, timeout=PATIENCE).result
    again.stop()
    pool.shutdown()
