"""Callbacks: each end is reported once, to every one of them, and what they raise is only logged."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest

from animaworks_tasks import (
    Executor,
    InlineBackend,
    MemoryTaskStore,
    Registry,
    Store,
    Task,
    ThreadBackend,
)
from tests.executor.workshop import Workshop, executor_of
from tests.processes import PATIENCE, in_event_loop


@in_event_loop
async def test_each_end_is_told_once_to_every_callback_and_what_they_raise_is_only_logged(
    store: Store, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    # given callbacks of every kind
    called: dict[str, list[str]] = {}
    loops: list[object] = []

    def note(who: str, task: Task) -> None:
        called.setdefault(who, []).append(task.id)

    async def tell_in_loop(who: str, task: Task) -> None:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        note(who, task)

    def broken(_: Task) -> None:
        raise RuntimeError("broken callback")

    async def broken_in_loop(_: Task) -> None:
        raise RuntimeError("broken in the loop")

    class Telling:
        def __init__(self, task: Task) -> None:
            self.task = task

        def __await__(self) -> Generator[Any, None, None]:
            return tell_in_loop("awaitable", self.task).__await__()

    callbacks = [
        broken,
        broken_in_loop,
        functools.partial(note, "sync"),
        functools.partial(tell_in_loop, "async"),
        lambda task: tell_in_loop("lambda", task),
        Telling,
    ]

    # when
    async with executor_of(store, workshop, on_finish=callbacks) as executor:
        ids = [(await executor.submit("tool", "echo", word)).id for word in "abc"]
        await executor.run_until_idle(timeout=PATIENCE)

    # then
    assert {who: sorted(ids) for who in ("sync", "async", "lambda", "awaitable")} == {
        who: sorted(each) for who, each in called.items()
    }
    assert {asyncio.get_running_loop()} == set(loops)
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert sorted(3 * ["broken callback"] + 3 * ["broken in the loop"]) == sorted(errors)


def test_an_async_callback_is_called_also_where_there_is_no_loop(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    called: list[str] = []

    async def note(task: Task) -> None:
        await asyncio.sleep(0)
        called.append(task.id)

    # when
    executor = executor_of(memory, workshop, on_finish=note).start()
    task = executor.submit_sync("tool", "echo", "it")
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert [task.id] == called


@pytest.mark.parametrize("backend", [InlineBackend, ThreadBackend])
@pytest.mark.parametrize("with_loop", [True, False])
def test_what_a_callback_submits_is_run_too_before_all_is_idle(
    backend: Callable[[], Any],
    with_loop: bool,  # noqa: FBT001 - a parameter
    memory: MemoryTaskStore,
    workshop: Workshop,
) -> None:
    # given a callback that submits a successor, twice
    def follow(task: Task) -> None:
        if len(task.argv[1]) < 3:
            executor.submit_sync("tool", "echo", task.argv[1] + "'")

    executor = executor_of(memory, workshop, backend=backend(), on_finish=follow)

    # when
    async def main() -> None:
        async with executor:
            await executor.submit("tool", "echo", "a")
            await executor.run_until_idle(timeout=PATIENCE)

    if with_loop:
        asyncio.run(main())
    else:
        executor.start()
        executor.submit_sync("tool", "echo", "a")
        executor.run_until_idle_sync(timeout=PATIENCE)
        executor.stop()

    # then
    assert ["a", "a'", "a''"] == workshop.calls


def test_a_callback_may_stop_the_executor_while_its_host_does(store: Store) -> None:
    # given
    registry = Registry()
    registry.add("tool", "echo", lambda: "done")
    stopping, began = threading.Event(), threading.Event()
    stopped: list[str] = []

    def on_finish(_: Task) -> None:
        began.set()
        assert stopping.wait(PATIENCE)
        executor.stop()
        stopped.append("callback")

    executor = Executor(store, registry, backend=ThreadBackend(), on_finish=on_finish).start()
    leave = executor._leave

    def leaving(*args: Any) -> None:  # noqa: ANN401 - as they are
        stopping.set()
        leave(*args)

    executor._leave = leaving  # type: ignore[method-assign]
    executor.submit_sync("tool", "echo")
    assert began.wait(PATIENCE)

    # when
    executor.stop()

    # then the host has waited for the callback, which has waited for what the host did before that
    assert ["callback"] == stopped
