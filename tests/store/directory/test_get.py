"""Looking for tasks among files that others move on meanwhile."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from animaworks_tasks import Executor, InlineBackend, Registry, State, Task, TaskStore
from animaworks_tasks.errors import RecordError
from animaworks_tasks.store.place import Place
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, own
from tests.store.directory.conftest import ID, Remains, notified, tree


def test_files_that_are_as_good_as_equally_old_are_listed_by_what_the_records_say(
    files: TaskStore, root: Path, clock: ManualClock
) -> None:
    """The time of a file is no finer than the kernel's tick, in which many tasks can end."""
    for n in range(8):
        clock.advance(1)
        task = files.finish(begin(files), Event.COMPLETE)
        os.utime(root / f"done/{task.id}.task", ns=(0, 10**18 - n * 10**6))
    for limit in range(9):
        assert list(files.list())[:limit] == list(files.list(limit=limit))


def test_a_task_that_moves_on_while_it_is_looked_for_is_found(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for in done and running, a task is still pending; looked for in pending, it is already running."""
    # given a claim that comes between
    task = files.submit("image_gen", "3d")
    look = Place.pending

    def look_too_late(place: Place, task_id: str) -> Task:
        with monkeypatch.context() as patch:
            patch.setattr(Place, "pending", look)
            own(files, task_id)
        return look(place, task_id)

    monkeypatch.setattr(Place, "pending", look_too_late)

    # then
    assert State.RUNNING is files.get(task.id).state


def test_what_waits_beside_an_outcome_is_no_task_and_a_claim_takes_it_away(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given what a power cut brings back, or somebody copies
    remains.put("pending")
    remains.put("done")
    assert (remains.done, [remains.done], None) == (files.get(ID), list(files.list()), files.pending(ID))

    # then
    assert files.claim(ID) is None
    assert ({f"done/{ID}.task"}, set(), [ID]) == (tree(root), files.pending_ids(), notified(files))


def test_what_waits_beside_an_outcome_does_not_keep_it_from_being_pruned(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given
    remains.put("pending")
    remains.put("done")
    with files.notifications.drain():
        pass
    assert [] == files.prune(keep=0), "it stands against it"

    # when a host looks at what waits
    executor = Executor(files, Registry(), backend=InlineBackend()).start()
    executor.run_until_idle_sync()
    executor.stop()
    with files.notifications.drain():
        pass

    # then
    assert ([ID], set()) == (files.prune(keep=0), tree(root))


def test_an_outcome_that_cannot_be_read_costs_that_one_task(files: TaskStore, root: Path) -> None:
    # given
    (root / f"done/{ID}.task").write_text("{")
    other = files.submit("image_gen", "3d")

    # then
    assert [other] == list(files.list())
    with pytest.raises(RecordError, match=f"{ID} is not a task record: it is not JSON"):
        files.get(ID)
    assert [] == list(files.prune(finished_before=other.submitted_at + timedelta(days=1)))
