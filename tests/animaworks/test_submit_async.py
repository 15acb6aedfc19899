"""A manager's submit of an async call, which runs in the loop that submitted it and ends with that."""

from __future__ import annotations

import asyncio
import errno
import json
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import Cause, MemoryTaskStore, State, Store, TaskStore
from animaworks_tasks.background import BackgroundTaskManager, SubmittedId, TaskStatus
from tests.animaworks.calls import ended, say, shown
from tests.processes import PATIENCE, eventually, in_event_loop, until


@in_event_loop
async def test_an_async_call_runs_in_the_loop_that_submitted_it(tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path)
    event = asyncio.Event()

    async def call(name: str, args: dict[str, Any]) -> str:
        await event.wait()  # of this loop
        return f"{name} {args['n']}"

    # when it is awaited as the original's is
    task_id = await manager.submit_async("my_tool", {"n": 1}, call)
    other = manager.submit_async("my_tool", {"n": 2}, call)
    event.set()
    # then
    await eventually(lambda: not manager.active_count())
    assert ("my_tool 1", "my_tool 2") == (shown(manager, task_id).result, shown(manager, other).result)
    assert str is type(task_id)
    assert isinstance(other, SubmittedId)
    assert other == await other == pickle.loads(pickle.dumps(other)) == json.loads(json.dumps(other))


def test_an_async_call_from_a_thread_without_a_loop_has_one_of_its_own(manager: BackgroundTaskManager) -> None:
    async def call(_name: str, _args: dict[str, Any]) -> str:
        await asyncio.sleep(0)
        return "done"

    assert "done" == ended(manager, manager.submit_async("my_tool", {}, call)).result


@in_event_loop
async def test_an_async_call_that_raises_has_failed_also_if_it_cancels_itself(tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path)

    async def call(_name: str, args: dict[str, Any]) -> None:
        raise args["error"]

    # when
    failing = manager.submit_async("my_tool", {"error": TimeoutError("too slow")}, call)
    cancelling = manager.submit_async("my_tool", {"error": asyncio.CancelledError()}, call)
    await eventually(lambda: not manager.active_count())
    # then
    assert "TimeoutError: too slow" == shown(manager, failing).error
    assert "by the end of its event loop, or from within" in str(shown(manager, cancelling).error)


@in_event_loop
async def test_an_async_call_that_exits_leaves_its_loop_alone(tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path)

    async def call(_name: str, _args: dict[str, Any]) -> None:
        sys.exit("no more")

    # when
    task_id = manager.submit_async("my_tool", {}, call)
    await eventually(lambda: not manager.active_count())

    # then
    assert (TaskStatus.FAILED, "no more") == (shown(manager, task_id).status, shown(manager, task_id).error)


@pytest.mark.parametrize("how", ["cancels", "forgets"])
def test_an_async_call_whose_loop_ends_was_interrupted(store: Store, tmp_path: Path, how: str) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path / "mei", store=store)
    began: list[bool] = []

    async def call(_name: str, _args: dict[str, Any]) -> None:
        began.append(True)
        await asyncio.Event().wait()

    async def submit() -> str:
        task_id = manager.submit_async("my_tool", {}, call)
        await eventually(lambda: began)
        return task_id

    # when its loop is torn down as asyncio.run does it, or only closed
    if how == "cancels":
        task_id = asyncio.run(submit())
    else:
        loop = asyncio.new_event_loop()
        task_id = loop.run_until_complete(submit())
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # what asyncio has to say of such a host
        loop.close()
    # then
    [notification] = until(store.notifications.peek)
    assert (task_id, Cause.INTERRUPTED) == (notification.task_id, store.get(task_id).cause)


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_call_that_its_loop_never_came_to_was_interrupted(manager: BackgroundTaskManager, store: Store) -> None:
    # given a loop that is closed when the call waits for its turn there
    loop = asyncio.new_event_loop()
    asked = threading.Event()
    ask = loop.call_soon_threadsafe

    def spy(*args: Any) -> asyncio.Handle:  # noqa: ANN401 - as asyncio
        handle = ask(*args)
        asked.set()
        return handle

    async def submit() -> str:
        task_id = manager.submit_async("my_tool", {}, say)  # type: ignore[arg-type]  # it is never called
        assert asked.wait(PATIENCE)  # which holds the loop up
        loop.stop()
        return task_id

    loop.call_soon_threadsafe = spy  # type: ignore[method-assign,assignment]  # as said
    first = loop.create_task(submit())
    # when
    loop.run_until_complete(first)
    loop._ready.clear()  # type: ignore[attr-defined]  # what a loop forgets that is closed
    loop.close()
    # then
    until(lambda: store.get(first.result()).state is State.DONE)
    assert Cause.INTERRUPTED is store.get(first.result()).cause


def test_a_loop_that_is_closed_before_the_call_could_begin_has_interrupted_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a thread that is slow to begin
    store = MemoryTaskStore()
    manager = BackgroundTaskManager(tmp_path, store=store)
    closed = threading.Event()
    monkeypatch.setattr(store, "secure", lambda _: closed.wait(PATIENCE))

    async def submit() -> str:
        return manager.submit_async("my_tool", {}, say)  # type: ignore[arg-type]  # it is never called

    # when
    task_id = asyncio.run(submit())
    closed.set()
    # then
    until(lambda: store.get(task_id).state is State.DONE)
    assert Cause.INTERRUPTED is store.get(task_id).cause


@in_event_loop
async def test_a_call_whose_record_would_not_survive_a_power_cut_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an event loop, which waits for no disk, this is found out after the submit."""
    # given
    store = TaskStore(tmp_path)
    manager = BackgroundTaskManager(tmp_path, store=store)

    def refuse(_: object) -> None:
        raise OSError(errno.EIO, "the disk said no")

    monkeypatch.setattr(store, "secure", refuse)
    called: list[object] = []

    async def call(*given: object) -> None:
        called.append(given)

    # when
    task_id = manager.submit_async("my_tool", {}, call)
    with pytest.raises(OSError, match="the disk said no"):
        await task_id
    # then
    await eventually(lambda: not manager.active_count())
    assert ([], Cause.REJECTED) == (called, store.get(task_id).cause)
    assert "could not be kept" in str(shown(manager, task_id).error)
