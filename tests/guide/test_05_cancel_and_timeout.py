"""
5. A task can be cancelled, and its time can run out.

A pending task is cancelled at once. A running tool is asked to stop: it takes a ToolContext and looks, now and then. A
thread cannot be killed, so in a ThreadBackend a tool that never looks runs to its end; the ProcessBackend kills it.
"""

from __future__ import annotations

import threading

import pytest

from animaworks_tasks import Cause, Executor, MemoryTaskStore, Outcome, Registry, State, ThreadBackend, ToolContext


@pytest.fixture
def began() -> threading.Event:
    return threading.Event()


@pytest.fixture
def registry(began: threading.Event) -> Registry:
    def watch(*, context: ToolContext) -> None:
        began.set()
        while True:
            context.raise_if_cancelled()
            threading.Event().wait(0.005)

    registry = Registry()
    registry.add("sky", "watch", watch)
    return registry


def test_a_running_task_and_a_pending_one_are_cancelled(registry: Registry, began: threading.Event) -> None:
    # given one that runs, and one that waits for it
    executor = Executor(MemoryTaskStore(), registry, backend=ThreadBackend(), max_workers=1).start()
    running, pending = executor.submit_sync("sky", "watch"), executor.submit_sync("sky", "watch")
    assert began.wait(30)
    # when
    assert State.DONE is executor.cancel_sync(pending.id).state  # at once
    executor.cancel_sync(running.id)
    # then
    assert [Outcome.CANCELLED] * 2 == [executor.wait_sync(task.id, timeout=30).outcome for task in (pending, running)]
    executor.stop()


def test_a_task_that_runs_longer_than_its_timeout_has_failed(registry: Registry) -> None:
    executor = Executor(MemoryTaskStore(), registry, backend=ThreadBackend()).start()
    task = executor.submit_sync("sky", "watch", timeout_seconds=0.05)
    assert Cause.TIMEOUT is executor.wait_sync(task.id, timeout=30).cause
    executor.stop()
