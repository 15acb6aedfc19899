"""Submitting: one call or many, with and without an event loop, which is never blocked."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import (
    MemoryTaskStore,
    Outcome,
    State,
    Store,
    Task,
    TaskStore,
)
from animaworks_tasks.errors import (
    UnknownToolError,
    WrongArgumentError,
)
from tests.executor.workshop import Workshop, executor_of
from tests.processes import PATIENCE, in_event_loop


@in_event_loop
async def test_a_submitted_task_runs_and_a_wait_returns_it_done(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        task = await executor.submit("tool", "echo", "hello")
        assert (State.PENDING, "echo") == (task.state, task.subcommand)
        done = await executor.wait(task.id, timeout=PATIENCE)
        assert (Outcome.COMPLETED, "hello") == (done.outcome, done.result)
        assert done == await executor.wait(task.id, timeout=0)


@in_event_loop
async def test_a_call_that_no_tool_takes_is_refused_and_nothing_is_queued(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    async with executor_of(memory, workshop) as executor:
        with pytest.raises(UnknownToolError, match="did you mean tool"):
            await executor.submit("tol", "echo", "hello")
        with pytest.raises(WrongArgumentError, match="usage: tool echo"):
            await executor.submit("tool", "echo")
    assert [] == list(memory.list())


def test_many_are_submitted_checked_and_run(store: Store, workshop: Workshop) -> None:
    words = [f"word {number}" for number in range(20)]
    executor = executor_of(store, workshop).start()
    tasks = executor.submit_many_sync("tool", [["echo", word] for word in words])
    assert words == [executor.wait_sync(task.id, timeout=PATIENCE).result for task in tasks]
    with pytest.raises(WrongArgumentError):
        executor.submit_many_sync("tool", [["echo", "it"], ["echo"]])
    with pytest.raises(ValueError, match="of one subcommand, not of echo, hold"):
        executor.submit_many_sync("tool", [["echo", "it"], ["hold", "it"]])
    executor.stop()
    assert sorted(words) == sorted(workshop.calls)


@in_event_loop
async def test_many_are_submitted_from_an_event_loop(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        first, second = await executor.submit_many("tool", [["echo", "a"], ["echo", "b"]])
        assert ("a", "b") == ((await executor.wait(first.id)).result, (await executor.wait(second.id)).result)


FILE_OPERATIONS = ("open", "fsync", "link", "unlink", "rename", "mkdir", "scandir", "lstat", "stat", "read", "listdir")


@in_event_loop
async def test_no_file_is_touched_in_the_thread_of_the_event_loop(
    tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given every file operation noted with its thread
    store = TaskStore(tmp_path / "mei")
    threads: dict[str, set[int]] = {name: set() for name in FILE_OPERATIONS}

    def noting(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as os has them
            threads[name].add(threading.get_ident())
            return operation(*args, **kwargs)

        return noted

    executor = executor_of(store, workshop)
    with monkeypatch.context() as patched:
        for name in FILE_OPERATIONS:
            patched.setattr(os, name, noting(name, getattr(os, name)))

        # when
        async with executor:
            task = await executor.submit("tool", "echo", "it")
            await executor.wait(task.id)
            await executor.wait(task.id, timeout=0)
            await executor.cancel((await executor.submit("tool", "hold", "it")).id)
            await executor.run_until_idle()
            async with executor.drain_notifications() as drained:
                assert 2 == len(drained.notifications)

    # then they happened, and elsewhere
    assert {"open", "fsync", "link", "unlink", "lstat"} <= {name for name in threads if threads[name]}
    assert threading.get_ident() not in set().union(*threads.values())


@in_event_loop
async def test_the_loop_goes_on_while_a_disk_is_slow(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that takes until the loop has turned a hundred times more
    turned = threading.Event()
    submit = files.submit

    def slow(*argv: Any, **options: Any) -> Task:  # noqa: ANN401 - as submit
        assert turned.wait(PATIENCE)
        return submit(*argv, **options)

    monkeypatch.setattr(files, "submit", slow)
    async with executor_of(files, workshop) as executor:
        submitting = asyncio.create_task(executor.submit("tool", "echo", "it"))
        for _ in range(100):
            await asyncio.sleep(0)
        turned.set()
        assert State.PENDING is (await submitting).state
