"""Cancellation requests, which are files in running/."""

from __future__ import annotations

from pathlib import Path

import pytest

from animaworks_tasks import Outcome, TaskStore
from animaworks_tasks.fs import files as fs_files
from animaworks_tasks.task.states import Event
from tests.conftest import begin
from tests.store.directory.conftest import before, full, notified, tree


def test_a_request_that_came_too_late_does_not_cancel_the_next_task_of_the_key(files: TaskStore, root: Path) -> None:
    # given a request, left by who died before he saw that the task had ended
    task = files.finish(begin(files, key="daily"), Event.COMPLETE)
    fs_files.touch(files.layout.cancel(task.id))
    with files.notifications.drain():
        pass

    # when
    files.prune(keep=0)

    # then
    again = files.submit("tool", "echo", key="daily")
    assert not files.workspace(again.id).cancel_requested()
    assert {f"pending/{again.id}.json"} == tree(root)


def test_a_request_that_was_made_before_its_maker_died_is_carried_out_at_the_next_claim(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a request for a task that waits, by a process that dies before it claims it
    task = files.submit("image_gen", "3d")
    with monkeypatch.context() as patch:
        before(patch, "claim.link", full)
        with pytest.raises(OSError, match="No space left"):
            files.request_cancel(task.id)
    files.sweep()
    assert {f"pending/{task.id}.json", f"running/{task.id}.cancel"} == tree(root)

    # when
    assert files.claim(task.id) is None

    # then
    done = files.get(task.id)
    assert (Outcome.CANCELLED, 0, None) == (done.outcome, done.attempt, done.started_at)
    assert ({f"done/{task.id}.task"}, [task.id]) == (tree(root), notified(files))


@pytest.mark.parametrize("moved", ["finished", "requeued"])
def test_a_request_that_comes_as_the_task_moves_on_is_right_either_way(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    # given a task whose owner is done with it just as the request is made
    claim = begin(files)
    touch = fs_files.touch

    def touch_too_late(path: str) -> None:
        if moved == "finished":
            files.finish(claim, Event.COMPLETE)
        else:
            files.requeue(claim)
        touch(path)

    # when
    monkeypatch.setattr(fs_files, "touch", touch_too_late)
    task = files.request_cancel(claim.task.id)

    # then
    expected = Outcome.COMPLETED if moved == "finished" else Outcome.CANCELLED
    assert (expected, {f"done/{task.id}.task"}) == (task.outcome, tree(root))
