"""Managers on every store that can hold their tasks, and a call that waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from animaworks_tasks import MemoryTaskStore, Store, TaskStore
from animaworks_tasks.background import BackgroundTaskManager
from tests.animaworks.calls import Gate


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryTaskStore(language="en")
    return TaskStore(tmp_path / "mei", language="en", durability="process")


@pytest.fixture
def manager(store: Store, tmp_path: Path) -> BackgroundTaskManager:
    return BackgroundTaskManager(tmp_path / "mei", store=store)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.may_end.set()
