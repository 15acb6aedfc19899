"""Requeueing: the record that waits again, and the one that ran."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from animaworks_tasks import TaskStore
from tests.conftest import ManualClock, begin, own
from tests.store.directory.conftest import before, full, plain, synced, tree


def test_a_requeue_is_durable_before_the_task_has_left_running(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    files = TaskStore(tmp_path / "mei", clock=clock)
    claim = begin(files)

    # when
    paths = synced(monkeypatch)
    steps = before(monkeypatch, "requeue.unlink", lambda: paths.append("unlinked"))
    files.requeue(claim)

    # then
    assert ["requeue.write", "requeue.rename", "requeue.sync", "requeue.unlink"] == steps
    assert [files.layout.pending, "unlinked"] == paths


@pytest.mark.parametrize("began", [True, False])
def test_a_running_record_that_a_power_cut_brings_back_is_known_as_older_than_the_requeued_one(
    files: TaskStore, root: Path, *, began: bool
) -> None:
    """It has to be, also where what waits says of no attempt more."""
    # given
    task = files.submit("image_gen", "3d")
    submitted = (root / f"pending/{task.id}.json").read_bytes()
    back = files.requeue(own(files, task.id), began=began)
    (root / f"running/{task.id}.task").write_bytes(submitted)

    # when
    found = files.recover(lambda _: pytest.fail("it is known to wait"))

    # then
    assert ((back,), ()) == (found.requeued, found.finished)
    assert {f"pending/{task.id}.json"} == tree(root)


def test_what_was_written_plainly_while_the_task_ran_makes_way_for_the_next_attempt(
    files: TaskStore, root: Path
) -> None:
    # given
    claim = begin(files)
    (root / f"pending/{claim.task.id}.json").write_text(json.dumps(plain(task_id=claim.task.id, raw_args=["other"])))

    # when
    files.requeue(claim)

    # then
    assert (("3d",), 2) == (files.get(claim.task.id).argv, own(files, claim.task.id).task.attempt)


def test_a_requeue_that_the_disk_refuses_leaves_the_claim_to_be_tried_again(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    claim = begin(files)

    # when
    for step in ("requeue.write", "requeue.rename", "requeue.sync"):
        with monkeypatch.context() as patch:
            before(patch, step, full)
            with pytest.raises(OSError, match="No space left"):
                files.requeue(claim)
        assert (claim.task.id,) == files.recover().alive

    # then
    task = files.requeue(claim)
    assert ({f"pending/{task.id}.json"}, [], 1) == (tree(root), os.listdir(root / "tmp"), task.requeued)


def test_the_key_of_a_task_stays_with_it_while_it_is_requeued(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody finds it nowhere in between: its name in pending/ comes first."""
    # given
    claim = begin(files, key="mei")

    # when
    with monkeypatch.context() as patch:
        before(patch, "requeue.unlink", lambda: ids.append(files.submit("image_gen", "3d", key="mei").id))
        ids: list[str] = []
        files.requeue(claim)

    # then
    assert [claim.task.id, claim.task.id] == [*ids, files.submit("image_gen", "3d", key="mei").id]
