"""The views that others read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest

from animaworks_tasks import Cause, State, TaskStore
from animaworks_tasks.store.leftovers import Owner
from animaworks_tasks.task.states import Event
from tests.conftest import begin, die, own
from tests.store.directory.conftest import ID, ripen


def test_the_view_shows_a_task_from_the_claim_on_as_animaworks_expects_it(files: TaskStore, root: Path) -> None:
    # given
    task = files.submit("image_gen", "3d", "メイ.png")
    view = root / f"{task.id}.json"
    assert not view.exists()

    # when, then
    claim = own(files, task.id)
    shown = json.loads(view.read_bytes())
    assert (task.id, "mei", "image_gen:3d", "running", None) == (
        shown["task_id"],
        shown["anima_name"],
        shown["tool_name"],
        shown["status"],
        shown["completed_at"],
    )
    assert {"subcommand": "3d", "raw_args": ["3d", "メイ.png"], "anima_dir": files.location} == shown["tool_args"]
    done = files.finish(claim, Event.CANCEL, error="as asked")
    assert view.read_bytes() == (root / f"done/{task.id}.task").read_bytes()
    assert done.finished_at is not None
    shown = json.loads(view.read_bytes())
    assert ("failed", "cancelled", done.finished_at.timestamp(), None, "as asked") == (
        shown["status"],
        shown["outcome"],
        shown["completed_at"],
        shown["result"],
        shown["error"],
    )


def test_a_view_that_is_published_again_takes_the_place_of_what_was(files: TaskStore, root: Path) -> None:
    # given
    claim = own(files, files.submit("image_gen", "3d").id)

    # when
    claim.task = attrs.evolve(claim.task, subcommand="pipeline")
    files.publish_view(claim)

    # then
    assert claim.task == files.get(claim.task.id)
    assert "image_gen:pipeline" == json.loads((root / f"{claim.task.id}.json").read_bytes())["tool_name"]
    assert [] == os.listdir(root / "tmp")


def test_a_view_is_a_file_of_its_own_so_who_writes_to_it_changes_no_record(files: TaskStore, root: Path) -> None:
    # given
    claim = begin(files)
    view = root / f"{claim.task.id}.json"
    for finish in (False, True):
        if finish:
            files.finish(claim, Event.COMPLETE, result="as it was")
        assert 1 == view.stat().st_nlink

        # when another program writes what it thinks
        view.write_text(json.dumps({"task_id": claim.task.id, "status": "failed", "error": "gone astray"}))

        # then
        assert (State.DONE if finish else State.RUNNING) is files.get(claim.task.id).state
    assert "as it was" == files.get(claim.task.id).result


def test_a_view_tells_no_secrets_and_the_record_keeps_them(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setenv("PAINT_API_KEY", "kJ8s-not-for-everybody")
    claim = own(files, files.submit("image_gen", "3d", "kJ8s-not-for-everybody", "--key=kJ8s-not-for-everybody").id)
    view = root / f"{claim.task.id}.json"

    # then
    assert b"kJ8s" not in view.read_bytes()
    assert ("3d", "kJ8s-not-for-everybody", "--key=kJ8s-not-for-everybody") == claim.task.argv
    done = files.finish(claim, Event.COMPLETE)
    assert b"kJ8s" not in view.read_bytes()
    assert claim.task.argv == done.argv == files.get(done.id).argv


def test_a_view_says_whose_process_runs_the_task(files: TaskStore, root: Path) -> None:
    """Recovery learns here what it may have to kill."""
    # given
    claim = begin(files)

    # when its tool process is known
    files.publish_view(claim, session=os.getpid())

    # then
    owner = json.loads((root / f"{claim.task.id}.json").read_bytes())["owner"]
    assert (os.getpid(), os.getpid()) == (owner["pid"], owner["session"])
    assert Owner.me(os.getpid()) == Owner.of(owner)
    done = files.finish(claim, Event.COMPLETE)
    assert "owner" not in json.loads((root / f"{done.id}.json").read_bytes())


@pytest.mark.parametrize("place", ["a directory", "a link"])
def test_a_view_that_cannot_be_published_costs_nothing_but_the_view(files: TaskStore, root: Path, place: str) -> None:
    task = files.submit("image_gen", "3d")
    view = root / f"{task.id}.json"
    if place == "a directory":
        view.mkdir()
    else:
        (root / "victim").write_text("as it was")
        view.symlink_to("victim")
    done = files.finish(own(files, task.id), Event.COMPLETE)
    assert done == files.get(task.id)
    assert view.is_dir() or (not view.is_symlink() and "as it was" == (root / "victim").read_text())
    assert [] == os.listdir(root / "tmp")


def test_a_task_that_waits_again_has_no_view_that_says_running(files: TaskStore, root: Path) -> None:
    # given
    requeued, returned = begin(files), begin(files)
    die(returned)

    # when
    files.requeue(requeued)
    files.recover(lambda _: True)

    # then
    assert [] == list(root.glob("*.json"))
    own(files, requeued.task.id)
    assert [f"{requeued.task.id}.json"] == [path.name for path in root.glob("*.json")]


def test_whatever_ends_in_json_beside_the_directories_is_one_task(files: TaskStore, root: Path) -> None:
    # given a store with something of everything
    files.publish_catalogue({"tools": {}})
    files.submit("image_gen", "3d")
    begin(files)
    files.finish(begin(files), Event.FAIL, cause=Cause.TOOL, error="no")
    (root / "pending" / f"{ID}.json").touch()
    ripen(root / "pending" / f"{ID}.json")
    files.claim(ID)

    # then
    shown = {path.stem: json.loads(path.read_bytes()) for path in root.glob("*.json")}
    assert 3 == len(shown)
    assert shown.keys() == {task["task_id"] for task in shown.values()}
    assert {"running", "failed"} == {task["status"] for task in shown.values()}


def test_after_a_power_cut_the_views_of_our_tasks_are_mended_and_those_of_others_left_alone(
    files: TaskStore, root: Path
) -> None:
    # given a view that is torn, one that says that a pending task runs, one of a pruned task, and one that another
    # program made
    done = files.finish(begin(files), Event.COMPLETE)
    waiting = files.submit("image_gen", "3d")
    ids = (done.id, waiting.id, "e" * 12, "f" * 12)
    torn, old, pruned, foreign = (Path(files.layout.view(task_id)) for task_id in ids)
    pruned.write_bytes((root / f"done/{done.id}.task").read_bytes())
    torn.unlink()
    torn.write_bytes(b'{"task')
    old.write_text('{"status": "running"}')
    foreign.write_text('{"status": "running", "task_id": "' + "f" * 12 + '"}')

    # when the machine has been started anew
    Path(files.layout.boot).unlink(missing_ok=True)
    TaskStore(files.layout.anima, durability="process").recover()

    # then
    assert torn.read_bytes() == (root / f"done/{done.id}.task").read_bytes()
    assert not old.exists()
    assert not pruned.exists()
    assert foreign.exists()
