"""Claiming a record that is its own lock."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import attrs
import pytest

from animaworks_tasks import Cause, Outcome, State, TaskNotFoundError, TaskStore
from animaworks_tasks.fs import files as fs_files
from animaworks_tasks.store.protocol import Claim
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, own
from tests.store.directory.conftest import ID, before, failing_at, full, notified, plain, ripen, synced, tree


def test_a_claim_is_durable_before_the_task_has_left_pending(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    files = TaskStore(tmp_path / "mei", clock=clock)
    task = files.submit("image_gen", "3d")

    # when
    paths = synced(monkeypatch)
    steps = before(monkeypatch, "claim.unlink", lambda: paths.append("unlinked"))
    assert files.claim(task.id) is not None

    # then
    assert ["claim.link", "claim.sync", "claim.unlink"] == steps
    assert [files.layout.running, "unlinked"] == paths


def test_a_claim_whose_view_cannot_be_published_lasts_and_is_shown_later(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that is full, but for a moment
    task = files.submit("image_gen", "3d")
    with monkeypatch.context() as disk:
        failing_at(disk, "write", 1)
        claim = own(files, task.id)

    # then
    assert [] == [*root.glob("*.json"), *os.listdir(root / "tmp")]
    assert (State.RUNNING, None) == (files.get(task.id).state, files.get(task.id).owner_pid)
    files.publish_view(claim)
    assert claim.task == files.get(task.id)


@pytest.mark.parametrize("end", [OSError(errno.EIO, "Input/output error"), SystemExit(0)])
@pytest.mark.parametrize("step", ["claim.sync", "claim.unlink"])
def test_a_claim_that_is_broken_off_is_undone_so_the_task_waits_as_if_nobody_had_come(
    tmp_path: Path, clock: ManualClock, end: BaseException, step: str
) -> None:
    # given a disk that refuses, or a process that gets SIGTERM, before the tool can begin
    files = TaskStore(tmp_path / "mei", clock=clock)
    task = files.submit("image_gen", "3d")

    def broken() -> None:
        raise end

    with pytest.MonkeyPatch.context() as patch:
        before(patch, step, broken)
        with pytest.raises(type(end)):
            files.claim(task.id)

    # then
    assert ({f"pending/{task.id}.json"}, task) == (tree(Path(files.layout.root)), files.get(task.id))
    assert ((), (), ()) == attrs.astuple(files.recover())
    assert 1 == own(files, task.id).task.attempt


@pytest.mark.parametrize("ends", ["at the claim", "at the request"])
def test_a_task_that_cannot_be_ended_as_cancelled_is_let_go_and_ended_later(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """A claim that nobody has got must not last as long as the process, with nobody to finish it."""
    # given a disk that does not take the outcome
    task = files.submit("image_gen", "3d")
    if ends == "at the claim":
        fs_files.touch(files.layout.cancel(task.id))
    with monkeypatch.context() as patch:
        before(patch, "finish.write", full)
        with pytest.raises(OSError, match="No space left"):
            files.claim(task.id) if ends == "at the claim" else files.request_cancel(task.id)

    # when
    [done] = files.recover().finished

    # then
    assert (Outcome.CANCELLED, done, [done.id]) == (done.outcome, files.get(task.id), notified(files))


# --- a plain writer, who knows nothing of locks ---


def written_plainly(root: Path, **changes: object) -> None:
    """Replace the record in pending/ as anybody may: with another file, renamed over it."""
    (root / "new").write_text(json.dumps(plain(**changes)))
    os.replace(root / "new", root / f"pending/{ID}.json")


@pytest.mark.parametrize("step", ["claim.link", "claim.undo"])
def test_a_record_that_is_replaced_as_it_is_claimed_waits_as_it_is_now(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What was locked is then not what has the name any more, and nobody holds that."""
    # given
    written_plainly(root)

    # when
    with monkeypatch.context() as patch:
        before(patch, "claim.link", lambda: written_plainly(root, raw_args=["3d", "corrected.png"]))
        if step == "claim.undo":
            before(patch, step, lambda: written_plainly(root, raw_args=["3d", "corrected.png"]))
        assert files.claim(ID) is None

    # then
    assert {f"pending/{ID}.json"} == tree(root)
    claim = own(files, ID)
    assert ("3d", "corrected.png") == claim.task.argv
    assert ("3d", "corrected.png") == files.finish(claim, Event.COMPLETE).argv


@pytest.mark.parametrize("bad", ["garbage", "link"])
def test_a_record_that_is_replaced_as_it_is_claimed_by_what_is_none_waits_and_is_rejected(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    # given
    written_plainly(root)

    def spoil() -> None:
        path = root / f"pending/{ID}.json"
        path.unlink()
        path.write_text("{") if bad == "garbage" else path.symlink_to("nowhere")

    # when
    with monkeypatch.context() as patch:
        before(patch, "claim.link", spoil)
        assert files.claim(ID) is None

    # then
    assert {f"pending/{ID}.json"} == tree(root)
    ripen(root / f"pending/{ID}.json")
    assert files.claim(ID) is None
    assert (Cause.REJECTED, [ID]) == (files.get(ID).cause, notified(files))
    assert ((), (), ()) == attrs.astuple(files.recover())


def test_a_record_that_is_replaced_as_it_is_claimed_and_held_by_another_is_the_others(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    written_plainly(root)
    others: list[Claim] = []

    def replaced_and_claimed() -> None:
        written_plainly(root, raw_args=["3d", "corrected.png"])
        others.append(own(files, ID))

    # when
    before(monkeypatch, "claim.link", replaced_and_claimed)
    assert files.claim(ID) is None

    # then
    [other] = others
    assert ({f"running/{ID}.task"}, (ID,)) == (tree(root), files.recover().alive)
    assert ("3d", "corrected.png") == files.finish(other, Event.COMPLETE).argv


def test_a_record_that_is_written_in_place_as_it_is_claimed_waits_again(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes it need not have come to its end."""
    # given
    written_plainly(root)
    whole = json.dumps(plain(raw_args=["3d", "corrected.png"]))

    # when
    with monkeypatch.context() as patch:
        before(patch, "claim.unlink", lambda: (root / f"pending/{ID}.json").write_text(whole[:50]))
        assert files.claim(ID) is None

    # then
    assert {f"pending/{ID}.json"} == tree(root)
    (root / f"pending/{ID}.json").write_text(whole)
    assert ("3d", "corrected.png") == own(files, ID).task.argv


def test_a_record_that_grows_too_large_in_place_as_it_is_claimed_waits_again_and_is_rejected(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    written_plainly(root)

    # when
    with monkeypatch.context() as patch:
        before(patch, "claim.unlink", lambda: os.truncate(root / f"pending/{ID}.json", 1 << 21))
        assert files.claim(ID) is None
    ripen(root / f"pending/{ID}.json")
    assert files.claim(ID) is None

    # then
    assert Cause.REJECTED is files.get(ID).cause
    assert "larger than 1048576 bytes" in (files.get(ID).error or "")


def test_a_record_that_was_requeued_since_it_was_opened_is_not_claimed_by_its_old_lock(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given somebody who claims and requeues it between our open and our lock
    task = files.submit("image_gen", "3d")
    open_file = fs_files.open_file

    def open_too_early(path: str, *, writing: bool = False) -> int:
        fd = open_file(path, writing=writing)
        with monkeypatch.context() as patch:
            patch.setattr(fs_files, "open_file", open_file)
            files.requeue(own(files, task.id))
        return fd

    # when
    with monkeypatch.context() as patch:
        patch.setattr(fs_files, "open_file", open_too_early)
        assert files.claim(task.id) is None

    # then
    assert {f"pending/{task.id}.json"} == tree(root)
    assert 2 == own(files, task.id).task.attempt


# --- two processes ---


RACER: Final = """
import sys
from animaworks_tasks import TaskStore
from animaworks_tasks.task.states import Event
store = TaskStore(sys.argv[1], durability="process")
print("ready", flush=True)
sys.stdin.readline()
while ids := store.pending_ids():
    for task_id in sorted(ids):
        claim = store.claim(task_id)
        if claim is not None:
            store.publish_view(claim)
            store.finish(claim, Event.COMPLETE, result=sys.argv[2])
            print(task_id, flush=True)
"""


def test_of_two_processes_that_race_for_a_hundred_tasks_each_task_goes_to_one(files: TaskStore) -> None:
    # given two processes at the start
    ids = {files.submit("image_gen", "3d").id for _ in range(100)}
    racers = {
        name: subprocess.Popen(
            [sys.executable, "-c", RACER, files.location, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("red", "blue")
    }
    for racer in racers.values():
        assert racer.stdout is not None
        assert "ready\n" == racer.stdout.readline()

    # when
    for racer in racers.values():
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ran = {name: racer.communicate()[0].split() for name, racer in racers.items()}

    # then
    assert sorted(ids) == sorted(ran["red"] + ran["blue"])
    assert {task_id: name for name, some in ran.items() for task_id in some} == {
        task.id: task.result for task in files.list(State.DONE)
    }
    assert sorted(ids) == sorted(task_id or "" for task_id in notified(files))
    assert {0} == {racer.returncode for racer in racers.values()}


def test_a_pending_record_that_its_submitter_took_back_is_gone(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one that vanishes between the look and the claim
    task = files.submit("image_gen", "3d")
    before(monkeypatch, "claim.link", lambda: os.unlink(files.layout.pending_record(task.id)))

    # then
    assert files.claim(task.id) is None
    with pytest.raises(TaskNotFoundError):
        files.get(task.id)
