"""What dead processes left lying."""

from __future__ import annotations

import json
import os
from pathlib import Path

from animaworks_tasks import Outcome, TaskStore
from tests.conftest import begin, die
from tests.store.directory.conftest import ID, plain, tree


def test_a_sweep_takes_away_what_belongs_to_nobody_and_nothing_else(files: TaskStore, root: Path) -> None:
    # given
    alive = begin(files, key="alive")
    files.request_cancel(alive.task.id)
    waiting = files.submit("image_gen", "3d", key="waiting")
    kept = set(os.listdir(root / "keys"))
    for name in (
        f"running/{ID}.cancel",
        "running/notes.cancel",
        "tmp/old",
        "tmp/young",
        f"quarantine/{ID}.json.why.txt",
    ):
        (root / name).touch()
    (root / "keys/nobody").write_text(json.dumps(plain()))
    os.utime(root / "tmp/old", (0, 0))

    # when
    files.sweep()

    # then
    assert kept == set(os.listdir(root / "keys"))
    assert ["young"] == os.listdir(root / "tmp")
    assert {
        f"running/{alive.task.id}.task",
        f"running/{alive.task.id}.cancel",
        f"pending/{waiting.id}.json",
    } == tree(root)


def test_a_sweep_leaves_the_explanation_of_what_is_there_or_on_its_way(files: TaskStore, root: Path) -> None:
    # given that of a file in quarantine, and that of a running one
    (root / f"quarantine/{ID}.json").touch()
    (root / f"quarantine/{ID}.json.why.txt").touch()
    claim = begin(files)
    (root / f"quarantine/{claim.task.id}.json.why.txt").touch()

    # when
    files.sweep()

    # then
    assert 3 == len(os.listdir(root / "quarantine"))


def test_a_store_is_swept_at_its_first_look_for_orphans(files: TaskStore, root: Path) -> None:
    for expected in ([], [f"{ID}.cancel"]):
        (root / f"running/{ID}.cancel").touch()
        files.recover()
        assert expected == os.listdir(root / "running"), "once for each store: it takes time"


def test_a_sweep_leaves_the_request_for_an_orphan_to_recovery(files: TaskStore) -> None:
    claim = begin(files)
    files.request_cancel(claim.task.id)
    die(claim)
    files.sweep()
    [done] = files.recover().finished
    assert Outcome.CANCELLED is done.outcome
