"""A directory for what is published, watches, and a kernel that refuses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from animaworks_tasks.fs.watch import Watch
from tests.fs.watching import made


@pytest.fixture
def final(tmp_path: Path) -> Path:
    (tmp_path / "final").mkdir()
    return tmp_path / "final"


def refuse(patch: pytest.MonkeyPatch, call: str, code: int, *, after: int = 0) -> None:
    """Let ``os.<call>`` fail once it was called *after* times."""
    real: Callable[..., object] = getattr(os, call)
    left = [after]

    def refusing(*args: object, **options: object) -> object:
        if left[0] == 0:
            raise OSError(code, os.strerror(code))
        left[0] -= 1
        return real(*args, **options)

    patch.setattr(os, call, refusing)


@pytest.fixture
def pending(tmp_path: Path) -> Path:
    return made(tmp_path / "pending")


@pytest.fixture
def running(tmp_path: Path) -> Path:
    return made(tmp_path / "running")


@pytest.fixture
def make() -> Iterator[Callable[..., Watch]]:
    """Make watches, which are closed when the test ends."""
    watches: list[Watch] = []

    def make_watch(*directories: Path) -> Watch:
        watches.append(Watch([str(directory) for directory in directories]))
        return watches[-1]

    yield make_watch
    for each in watches:
        each.close()
