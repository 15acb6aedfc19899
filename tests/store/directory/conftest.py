"""Where the files of a store lie in these tests, and what a process that died may have left of one task."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from animaworks_tasks import Task, TaskStore
from animaworks_tasks.fs import files as fs_files
from animaworks_tasks.fs import locks as file_locks
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.store.rejection import RIPE_AFTER
from animaworks_tasks.task import codec
from animaworks_tasks.task.states import Event, advance
from tests.conftest import ManualClock

ID: Final = "0123456789ab"


@pytest.fixture
def root(files: TaskStore) -> Path:
    return Path(files.layout.root)


def plain(**changes: object) -> dict[str, object]:
    """Return what anyone may write into pending/: the eight keys of AnimaWorks."""
    return {
        "task_id": ID,
        "tool_name": "image_gen",
        "subcommand": "3d",
        "raw_args": ["3d", "メイ.png"],
        "anima_name": "mei",
        "anima_dir": "/somewhere/else",
        "submitted_at": 1767225600.25,
        "status": "pending",
        **changes,
    }


def ripen(path: Path) -> None:
    """Make a file so old that nobody can still be writing it."""
    then = time.time() - RIPE_AFTER - 1
    os.utime(path, (then, then), follow_symlinks=False)


def notified(files: TaskStore) -> list[str | None]:
    return [notification.task_id for notification in files.notifications.peek()]


def tree(root: Path) -> set[str]:
    """Return the files below *root* that are there for a task; drafts come and go."""
    places = ("pending", "running", "done", "quarantine")
    return {f"{place}/{name}" for place in places for name in os.listdir(root / place)}


@attrs.frozen
class Remains:
    """Puts the records of one task where a process that died may have left them."""

    root: Path
    pending: Task
    running: Task
    done: Task

    def put(self, place: str, task: Task | None = None) -> None:
        ending = "json" if place == "pending" else "task"
        data = codec.encode(task or getattr(self, place))
        (self.root / place / f"{self.pending.id}.{ending}").write_bytes(data)

    def view(self) -> None:
        """Let the view say that the task runs."""
        (self.root / f"{self.pending.id}.json").write_bytes(codec.encode(self.running))


@pytest.fixture
def remains(root: Path, clock: ManualClock) -> Remains:
    pending = Task(id=ID, tool="image_gen", subcommand="3d", argv=("3d",), submitted_at=clock.now)
    running = advance(pending, Event.CLAIM, attempt=1, started_at=clock.now, owner_pid=1)
    done = advance(running, Event.COMPLETE, finished_at=clock.now, result="model.glb")
    return Remains(root, pending, running, done)


def before(patch: pytest.MonkeyPatch, step: str, act: Callable[[], object]) -> list[str]:
    """Call *act* just before the first time that *step* is taken; return the list in which all steps will stand."""
    steps: list[str] = []

    def tapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def take(disk: Disk, name: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as Disk has it
            steps.append(name)
            if steps.count(step) == 1 and name == step:
                act()
            return real(disk, name, *args, **options)

        return take

    for method in ("write", "link", "link_held", "rename", "unlink", "sync"):
        patch.setattr(Disk, method, tapped(getattr(Disk, method)))
    return steps


def failing_at(patch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let the call *number* (from 1) of an os function, and all later ones, find the disk full."""
    real, calls = getattr(os, name), itertools.count(1)

    def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as os has it
        if next(calls) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **options)

    patch.setattr(os, name, call)


def synced(patch: pytest.MonkeyPatch, *, refused: str = "") -> list[str]:
    """Return the list in which each directory stands that is synced from now on; *refused* is not, at first."""
    paths: list[str] = []
    sync, calls = fs_files.sync_directory, itertools.count()

    def sync_directory(path: str) -> None:
        if path == refused and next(calls) == 0:
            raise OSError(errno.EIO, "Input/output error", path)
        sync(path)
        paths.append(path)

    patch.setattr(fs_files, "sync_directory", sync_directory)
    return paths


def full() -> None:
    """Find the disk full."""
    raise OSError(errno.ENOSPC, "No space left on device")


class Killed(BaseException):
    """What a process that is killed does next: nothing."""


def kill_after(steps: int, life: Callable[[], object]) -> bool:
    """
    Lead *life* until it has changed the disk *steps* times; return whether it was killed.

    From then on nothing that it tries reaches the disk, its tidying up included, and its locks are released.
    """
    left = steps
    locks: list[file_locks.Lock] = []
    take = file_locks.hold

    def hold(path: str, *, writing: bool = False) -> file_locks.Lock | None:
        lock = take(path, writing=writing)
        locks.extend([lock] if lock else [])
        return lock

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - any call of os
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*args, **options)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_locks, "hold", hold)
        for name in ("link", "unlink", "rename", "write", "mkdir"):
            patch.setattr(os, name, mortal(getattr(os, name)))
        try:
            life()
        except Killed:
            killed = True
        else:
            killed = False
    for lock in locks:
        lock.release()
    return killed
