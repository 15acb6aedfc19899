"""A call cannot be killed: it is asked to stop, and is cancelled when it comes back, or before it was made."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import Outcome, State, Store, TaskStore
from animaworks_tasks.background import BackgroundTaskManager, TaskStatus
from tests.animaworks.calls import Gate, ended, shown
from tests.processes import PATIENCE, eventually, in_event_loop


def test_a_call_that_is_asked_to_stop_is_cancelled_when_it_comes_back(
    manager: BackgroundTaskManager, store: Store, gate: Gate
) -> None:
    # given
    task_id = manager.submit("my_tool", {}, gate)
    assert gate.began.wait(PATIENCE)
    # when
    assert State.RUNNING is store.request_cancel(task_id).state
    gate.may_end.set()
    # then
    assert TaskStatus.FAILED is ended(manager, task_id).status
    assert Outcome.CANCELLED is store.get(task_id).outcome


def test_a_call_that_is_asked_to_stop_before_it_was_made_is_not_made(
    manager: BackgroundTaskManager, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(store, "secure", lambda claim: store.request_cancel(claim.task.id))
    called: list[object] = []
    # when
    task = ended(manager, manager.submit("my_tool", {}, lambda *given: called.append(given)))
    # then
    assert ([], "it was cancelled before it started") == (called, task.error)


@in_event_loop
async def test_an_async_call_that_is_asked_to_stop_is_cancelled(tmp_path: Path) -> None:
    # given
    store = TaskStore(tmp_path, durability="process")
    manager = BackgroundTaskManager(tmp_path, store=store)
    began, cleaned_up = asyncio.Event(), []

    async def call(_name: str, _args: dict[str, Any]) -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    task_id = manager.submit_async("my_tool", {}, call)
    await began.wait()
    # when
    store.request_cancel(task_id)
    # then
    await eventually(lambda: not manager.active_count())
    assert ([True], Outcome.CANCELLED) == (cleaned_up, store.get(task_id).outcome)
    assert (TaskStatus.FAILED, "TaskCancelled: it was asked to stop") == (
        shown(manager, task_id).status,
        shown(manager, task_id).error,
    )
