"""Stores in memory, and tools to run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from animaworks_tasks import (
    MemoryTaskStore,
)
from tests.conftest import ManualClock
from tests.executor.workshop import Workshop


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    workshop = Workshop()
    yield workshop
    workshop.gate.set()


@pytest.fixture
def memory(clock: ManualClock) -> MemoryTaskStore:
    return MemoryTaskStore(language="en", clock=clock)
