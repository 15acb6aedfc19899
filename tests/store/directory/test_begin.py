"""A call that nobody but its host can make: its record appears in running/, locked, and never in pending/."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from animaworks_tasks import Cause, Task, TaskStore
from animaworks_tasks.errors import StoreError
from animaworks_tasks.fs import locks
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, die
from tests.store.directory.conftest import ID, Remains, before, full, notified, tree


@pytest.fixture
def task(clock: ManualClock) -> Task:
    return Task(id=ID, tool="host", subcommand="call", argv=("call",), submitted_at=clock.now)


def test_the_record_is_locked_before_it_has_a_name_in_running(
    files: TaskStore, root: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given somebody who looks just before
    def look() -> None:
        [draft] = (root / "tmp").glob(f"{ID}.task.*")
        assert locks.hold(str(draft)) is None

    # when
    steps = before(monkeypatch, "begin.link", look)
    claim = files.begin(task)

    # then
    assert ["begin.write", "begin.link", "begin.sync"] == steps
    assert ({f"running/{ID}.task"}, []) == (tree(root), os.listdir(root / "tmp"))
    assert claim.fileno() is not None
    assert claim.task.owner_pid == files.get(ID).owner_pid == os.getpid()


@pytest.mark.parametrize("durably", [True, False])
def test_only_what_is_begun_durably_waits_for_the_disk(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch, *, durably: bool
) -> None:
    # given
    files = TaskStore(tmp_path / "mei")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))

    # when
    claim = files.begin(task, durably=durably)

    # then
    if durably:
        assert (2, files.layout.running) == (len(synced), synced[-1])
    else:
        assert [] == synced
        files.secure(claim)
        assert (2, files.layout.running) == (len(synced), synced[-1])


@pytest.mark.parametrize("place", ["pending", "running", "done"])
def test_an_id_that_is_known_is_not_begun_again(files: TaskStore, root: Path, remains: Remains, place: str) -> None:
    # given
    remains.put(place, remains.done if place == "done" else remains.pending)
    there = tree(root)

    # then
    with pytest.raises(StoreError, match=f"there is a task {ID} already"):
        files.begin(remains.pending)
    assert (there, []) == (tree(root), os.listdir(root / "tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(files.place), "directory_of", lambda *_: None)
        if place == "running":
            with pytest.raises(StoreError, match="already"):
                files.begin(remains.pending)
    assert ((), ()) == (files.recover(concerns=lambda _: False).alive, files.recover(concerns=lambda _: False).finished)


@pytest.mark.parametrize("step", ["begin.write", "begin.link", "begin.sync"])
def test_what_the_disk_refuses_is_not_begun_or_ends_as_interrupted(
    files: TaskStore, root: Path, task: Task, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    # when
    with monkeypatch.context() as patch:
        before(patch, step, full)
        with pytest.raises(OSError, match="No space left"):
            files.begin(task)
    assert [] == os.listdir(root / "tmp")

    # then
    found = files.recover()
    assert () == found.alive
    if step == "begin.sync":
        assert ([Cause.INTERRUPTED], [ID]) == ([done.cause for done in found.finished], notified(files))
    else:
        assert ((), set()) == (found.finished, tree(root))


def test_what_was_begun_and_requeued_is_a_task_like_any_other(files: TaskStore, root: Path, task: Task) -> None:
    back = files.requeue(files.begin(task), began=False)
    assert attrs.evolve(task, requeued=1) == back
    assert {f"pending/{ID}.json"} == tree(root)
    claim = files.claim(ID)
    assert claim is not None
    die(claim)
    files.recover(lambda _: True)
    claim = files.claim(ID)
    assert claim is not None
    assert 2 == files.finish(claim, Event.COMPLETE).attempt
