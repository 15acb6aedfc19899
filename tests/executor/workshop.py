"""What the tests of executors share: tools that a test holds and counts, and executors of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import (
    Backend,
    Executor,
    InlineBackend,
    Registry,
    Store,
    Task,
    TaskStore,
    ThreadBackend,
    ToolContext,
)
from animaworks_tasks.executor.scheduler import Scheduler
from animaworks_tasks.executor.seen import Phase
from animaworks_tasks.store import transitions
from animaworks_tasks.store.protocol import Claim
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.states import Event, advance
from tests.conftest import die

SELDOM = 3600.0  # seconds between looks at everything, where a test wants none


class Workshop:
    """Tools that a test holds, releases, and counts."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.most_at_once = 0
        self._at_once = 0
        self._mutex = threading.Lock()
        self.registry.add("tool", "echo", self.echo)
        self.registry.add("tool", "hold", self.hold)
        self.registry.add("tool", "again", self.again, on_interrupt="retry")
        self.registry.add("tool", "flaky", self.flaky, retries=3)

    def echo(self, word: str) -> str:
        self.calls.append(word)
        return word

    def hold(self, word: str, *, context: ToolContext) -> str:
        with self._mutex:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        self.calls.append(word)
        while not self.gate.wait(0.005):
            context.raise_if_cancelled()
        with self._mutex:
            self._at_once -= 1
        return word

    def again(self, *, context: ToolContext) -> int:
        return context.attempt

    def flaky(self, *, context: ToolContext) -> int:
        if context.attempt < 3:
            raise ConnectionError("not yet")
        return context.attempt


def executor_of(store: Store, workshop: Workshop, **options: Any) -> Executor:  # noqa: ANN401 - those of Executor
    merged: dict[str, Any] = {"backend": ThreadBackend(), "max_workers": 2} | options
    return Executor(store, workshop.registry, **merged)


def scheduler_of(
    store: Store,
    workshop: Workshop,
    ended: list[Task],
    *,
    backend: Backend | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> Scheduler:
    """Return a scheduler with one slot and nobody to step it but the test; by default it runs calls on the spot."""
    options: dict[str, Any] = {"slots": 1, "interval": SELDOM, "clock": clock, "on_end": ended.append}
    return Scheduler(store, workshop.registry, backend or InlineBackend(), **options)


def seen(executor: Executor, *phases: Phase) -> set[str]:
    """Return the ids of the tasks that are in *phases* for the scheduler of *executor*."""
    assert executor._scheduler is not None
    return executor._scheduler._seen.ids(*phases)


def looking(executor: Executor) -> Executor:
    """Return *executor*, made to look at everything soon."""
    assert executor._scheduler is not None
    executor._scheduler._next_look = 0.0
    executor._scheduler.wake()
    return executor


def plain_record(store: TaskStore, task_id: str, text: str | None = None) -> Path:
    """Write a pending record as anyone may: eight keys, one write."""
    record = {
        "task_id": task_id,
        "tool_name": "tool",
        "subcommand": "echo",
        "raw_args": ["echo", "by hand"],
        "anima_name": "mei",
        "anima_dir": "/somewhere",
        "submitted_at": time.time(),
        "status": "pending",
    }
    path = Path(store.layout.pending, f"{task_id}.json")
    path.write_text(json.dumps(record) if text is None else text)
    return path


def recorded(files: TaskStore, claim: Claim) -> Task:
    """Record the outcome of *claim*, and do nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transitions, "notify", lambda *_: None)
        return transitions.commit(files.place, advance(claim.task, Event.COMPLETE, finished_at=utc_now()))


def committed(files: TaskStore, claim: Claim) -> Task:
    """Let the owner of *claim* die as soon as the outcome is in its place."""
    done = recorded(files, claim)
    die(claim)
    return done
