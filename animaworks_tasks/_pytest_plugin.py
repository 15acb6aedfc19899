"""
The fixtures for tests of tools; they are there in every pytest run where this package is installed.

So until one of them is asked for they cost next to nothing: what they need is imported inside them. Any of them can be
replaced by a fixture of the same name; *registry* is meant to be, by one that returns your tools.
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
    """Announce our marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that stands still, that of *task_store* and *executor*; ``advance(seconds)`` moves it on."""
    from animaworks_tasks.testing import ManualClock

    return ManualClock()


@pytest.fixture
def task_store(request: pytest.FixtureRequest, manual_clock: ManualClock) -> Store:
    """
    An empty store in memory, whose notices are in English.

    ``@pytest.mark.task_store("files", language="ja")`` makes it one of files, in *tmp_path*, and its notices Japanese;
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
    """A registry for a test to fill; a fixture of yours with this name, which returns your tools, takes its place."""
    from animaworks_tasks.tools.registry import Registry

    return Registry()


@pytest.fixture
def executor(task_store: Store, registry: Registry, manual_clock: ManualClock) -> Iterator[Executor]:
    """An executor that runs the tools of *registry* where it is told to: in this thread, at once."""
    from animaworks_tasks.backends import InlineBackend
    from animaworks_tasks.executor.executor import Executor

    running = Executor(task_store, registry, backend=InlineBackend(), clock=manual_clock).start()
    yield running
    running.stop()
