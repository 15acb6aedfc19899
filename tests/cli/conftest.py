"""An Anima, and a command line in this process: what the tests of commands share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from animaworks_tasks import Cause, Registry, Task, TaskStore
from animaworks_tasks.cli import main
from animaworks_tasks.task.states import Event
from tests.conftest import begin

PROGRAM = [sys.executable, "-c", "import sys; from animaworks_tasks.cli import main; sys.exit(main())"]


@attrs.frozen
class Said:
    """What one command line came to."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


Tool = Callable[..., Said]


@pytest.fixture
def anima(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Anima's directory, empty, named by the environment; and nobody else's tools."""
    (tmp_path / "mei").mkdir()
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody cuts the power in these tests
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what is held back and cannot be written is the harder case
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "mei"


@pytest.fixture
def store(anima: Path) -> TaskStore:
    return TaskStore(anima, durability="process", language="en")


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    """Run a command line in this process."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        status = main(words)
        return Said(status, *capsys.readouterr())

    return run


@pytest.fixture
def hosted(store: TaskStore) -> Iterator[None]:
    """Let a host be there, or what the store can see of one."""
    watch = store.watch()
    yield
    watch.close()


def complete(store: TaskStore, *, result: str | None = "a cat", tool: str = "image_gen") -> Task:
    return store.finish(begin(store, tool=tool), Event.COMPLETE, result=result)


def fail(store: TaskStore, cause: Cause = Cause.TOOL) -> Task:
    return store.finish(begin(store), Event.FAIL, cause=cause, error="no cat\nat all", hint="feed it")


def described(registry: Registry) -> None:
    @registry.tool("image_gen", "3d", expected_seconds=600)
    def model(image: Path, *, size: int = 3) -> None:
        """Make a model."""

    @registry.tool("words", "count")
    def count(text: str) -> int:
        """Count words."""
        return len(text.split())
