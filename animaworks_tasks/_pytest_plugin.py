"""
Fixtures for tests of tools, in every pytest run where this package is installed.

What they need is imported inside them, so that a run that uses none costs next to nothing. Each can be replaced by a
fixture of the same name: *registry* by one that returns your tools.
``-p no:animaworks_tasks`` does without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # importing these is what would cost
    from animaworks_tasks.executor.executor import Executor
    from animaworks_tasks.store.protocol import Store
    from animaworks_tasks.testing import ManualClock
    from animaworks_tasks.tools.registry import Registry

_MARKER = "task_store(kind='memory', *, language='en'): what the fixture task_store is; kind 'files' is a TaskStore"


def pytest_configure(config: pytest.Config) -> None:
    """Register our marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that stands still, used by *task_store* and *executor*; ``advance(seconds)`` moves it on."""
    from animaworks_tasks.testing import ManualClock

    return ManualClock()


@pytest.fixture
def task_store(request: pytest.FixtureRequest, manual_clock: ManualClock) -> Store:
    """
    An empty store in memory, with notifications in English.

    ``@pytest.mark.task_store("files", language="ja")`` makes it a TaskStore in *tmp_path*, with Japanese notifications;
    ``@pytest.mark.parametrize("task_store", ["memory", "files"], indirect=True)`` runs a test with both.
    """
    marker = request.node.get_closest_marker("task_store")
    kind, language = _asked_for(*marker.args, **marker.kwargs) if marker else _asked_for()
    kind = getattr(request, "param", kind)
    if kind == "memory":
        from animaworks_tasks.store.memory import MemoryTaskStore

        return MemoryTaskStore(language=language, clock=manual_clock)
    if kind == "files":
        from animaworks_tasks.store.directory import TaskStore

        directory = request.getfixturevalue("tmp_path") / "anima"
        return TaskStore(directory, language=language, durability="process", clock=manual_clock)
    raise pytest.UsageError(f"task_store can be 'memory' or 'files', not {kind!r}")


def _asked_for(kind: str = "memory", *, language: str = "en") -> tuple[str, str]:
    return kind, language


@pytest.fixture
def registry() -> Registry:
    """An empty registry; replace it by a fixture of this name that returns your tools."""
    from animaworks_tasks.tools.registry import Registry

    return Registry()


@pytest.fixture
def executor(task_store: Store, registry: Registry, manual_clock: ManualClock) -> Iterator[Executor]:
    """An executor with an InlineBackend: it runs the tools of *registry* in the thread that waits for them."""
    from animaworks_tasks.backends import InlineBackend
    from animaworks_tasks.executor.executor import Executor

    running = Executor(task_store, registry, backend=InlineBackend(), clock=manual_clock).start()
    yield running
    running.stop()
