"""Finishing on a disk that may refuse."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Outcome, State, TaskStore
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, own
from tests.store.directory.conftest import notified, synced, tree


def test_a_task_takes_eight_fsyncs_each_in_its_place(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    files = TaskStore(tmp_path / "mei", clock=clock)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name[:7]))

    # when, then
    task = files.submit("image_gen", "3d")
    assert [task.id[:7], "pending"] == synced
    claim = own(files, task.id)
    assert ["running"] == synced[2:]
    files.finish(claim, Event.COMPLETE)
    assert [task.id[:7], "done", task.id[:7], "backgro"] == synced[3:]
    files.notifications.acknowledge(files.notifications.peek())
    assert [".read"] == synced[7:]


def test_a_full_disk_at_the_finish_leaves_a_claim_to_be_finished_later(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    claim = begin(files)

    # when
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            files.finish(claim, Event.COMPLETE)

    # then
    assert (State.RUNNING, (claim.task.id,), []) == (
        files.get(claim.task.id).state,
        files.recover().alive,
        notified(files),
    )
    files.finish(claim, Event.COMPLETE)
    assert ({f"done/{claim.task.id}.task"}, [claim.task.id]) == (tree(root), notified(files))


def test_an_outcome_that_reached_the_disk_stands_when_its_notification_did_not(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that was full between the two
    claim = begin(files)
    with monkeypatch.context() as patch:
        patch.setattr(files.notifications, "publish", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            files.finish(claim, Event.COMPLETE, result="the first")

    # when
    done = files.finish(claim, Event.FAIL, cause=Cause.TOOL, error="the second")

    # then
    assert (Outcome.COMPLETED, "the first", [done.id]) == (done.outcome, done.result, notified(files))


def test_a_notification_whose_name_the_disk_refused_to_make_durable_is_made_so_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    store = TaskStore(tmp_path / "mei")
    claim = own(store, store.submit("tool", "echo").id)
    paths = synced(monkeypatch, refused=store.layout.notifications)
    with pytest.raises(OSError, match="Input/output"):
        store.finish(claim, Event.COMPLETE)
    assert store.layout.notifications not in paths

    # when
    store.finish(claim, Event.COMPLETE)

    # then
    assert store.layout.notifications in paths
