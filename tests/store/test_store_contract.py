"""Both stores keep the contract that the authors of other stores are given; and a store that does not is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import MemoryTaskStore, Store, Task, TaskStore
from animaworks_tasks.testing import StoreContract


class TestMemoryTaskStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryTaskStore()


class TestTaskStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return TaskStore(tmp_path / "mei")


class Forgetful(MemoryTaskStore):
    """A store that notifies of nothing."""

    def finish(self, *arguments: Any, **changes: Any) -> Task:  # noqa: ANN401 - as they are
        task = super().finish(*arguments, **changes)
        self.notifications._waiting.clear()
        return task


def test_a_store_that_breaks_a_promise_does_not_pass() -> None:
    with pytest.raises(AssertionError):
        StoreContract().test_a_finished_task_is_done_and_notified_once(Forgetful())
