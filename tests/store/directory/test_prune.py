"""Pruning files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from animaworks_tasks import Task, TaskStore
from animaworks_tasks.fs import files as fs_files
from animaworks_tasks.store.place import Place
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin
from tests.store.directory.conftest import ID, Remains, before, full, notified, synced, tree


def test_a_prune_takes_all_that_belonged_to_the_task_and_nothing_of_others(
    files: TaskStore, root: Path, clock: ManualClock
) -> None:
    # given
    done = files.finish(begin(files), Event.COMPLETE)
    workspace = files.workspace(done.id)
    workspace.write_log(b"x")
    workspace.report_progress(1, "x")
    workspace.keep_result(b"x")
    read = Path(files.layout.read)
    files.notifications.acknowledge(files.notifications.peek())
    (read / "rate-limit.md").write_text("x")
    (read.parent / "heartbeat.md").write_text("x")
    clock.advance(1)

    # when
    assert [done.id] == files.prune(finished_before=clock.now)

    # then
    assert [] == [path for path in root.parent.rglob("*") if done.id in path.name]
    assert (["rate-limit.md"], True) == (os.listdir(read), (read.parent / "heartbeat.md").exists())


@pytest.mark.parametrize("place", ["running", "pending"])
def test_a_done_task_with_a_record_elsewhere_is_not_pruned(
    files: TaskStore, clock: ManualClock, remains: Remains, place: str
) -> None:
    """Without the done record, what is left of it would run again."""
    remains.put("done")
    remains.put(place, remains.pending)
    clock.advance(1)
    assert [] == files.prune(finished_before=clock.now)
    assert remains.done == files.get(ID)


@pytest.mark.parametrize("place", ["running", "pending", "notifications"])
def test_what_comes_to_stand_against_a_prune_as_it_syncs_is_heeded(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """What stood against it must have gone durably, or a power cut would bring it back for a task that is no more."""
    # given
    done = files.finish(begin(files), Event.COMPLETE)
    files.notifications.acknowledge(files.notifications.peek())
    paths = {
        "running": files.layout.running_record(done.id),
        "pending": files.layout.pending_record(done.id),
        "notifications": files.layout.notification(done.id),
    }

    # when
    with monkeypatch.context() as patch:
        before(patch, "prune.sync", lambda: fs_files.touch(paths[place]))
        assert [] == files.prune(keep=0)

    # then
    assert done == files.get(done.id)
    os.unlink(paths[place])
    assert ([done.id], set()) == (files.prune(keep=0), tree(root))


def test_a_prune_makes_durable_that_nothing_stands_against_it_and_then_drops_key_and_record(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    files = TaskStore(tmp_path / "mei", clock=clock)
    for key in ("first", "second"):
        files.finish(begin(files, key=key), Event.COMPLETE)
    files.notifications.acknowledge(files.notifications.peek())

    # when
    layout = files.layout
    paths = synced(monkeypatch)
    steps = before(monkeypatch, "nothing", full)
    assert 2 == len(files.prune(keep=0))

    # then each directory is synced once, however many there are
    assert [layout.pending, layout.running, layout.notifications, layout.keys, layout.done] == paths
    assert steps == [
        "prune.sync", "key.unlink", "key.unlink", "prune.sync-keys", "prune.unlink", "prune.unlink", "prune.sync-done",
    ]  # fmt: skip
    assert [] == os.listdir(layout.keys)


def test_a_prune_leaves_alone_what_belongs_to_the_next_task_with_the_key(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    first = files.finish(begin(files, key="daily"), Event.COMPLETE, result="first")
    with files.notifications.drain():
        pass

    # when the next one is submitted, and has ended, before the prune comes to the record of the first
    def next_one() -> None:
        claim = begin(files, key="daily")
        kept = files.workspace(claim.task.id).keep_result(b"second")
        files.finish(claim, Event.COMPLETE, result="second", result_file=kept)

    with monkeypatch.context() as patch:
        before(patch, "prune.sync-keys", next_one)
        assert [first.id] == files.prune(keep=0)

    # then
    [task] = files.list()
    assert ("second", "second", [task.id]) == (task.result, files.read_result(task.id), notified(files))
    assert os.path.exists(files.layout.view(task.id))
    assert task.id == files.submit("image_gen", "3d", key="daily").id


def test_a_key_that_names_another_task_by_now_is_not_dropped_with_this_one(files: TaskStore, root: Path) -> None:
    # given an outcome whose key was dropped and submitted again, as where a prune died in between
    first = files.finish(begin(files, key="daily"), Event.COMPLETE)
    with files.notifications.drain():
        pass
    [entry] = (root / "keys").iterdir()
    entry.unlink()
    second = files.submit("image_gen", "3d", key="daily")

    # then
    assert [first.id] == files.prune(keep=0)
    assert second == files.submit("image_gen", "3d", key="daily")


def test_a_prune_reads_no_record_that_is_to_stay(
    files: TaskStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a done record has the time at which the task ended, whatever the machine's clock says."""
    # given
    done = []
    for _ in range(4):
        done.append(files.finish(begin(files), Event.COMPLETE))
        clock.advance(60)
    files.notifications.acknowledge(files.notifications.peek())
    read = []
    look = Place.done

    def noted(place: Place, task_id: str) -> Task:
        read.append(task_id)
        return look(place, task_id)

    monkeypatch.setattr(Place, "done", noted)

    # then
    assert done[1].finished_at is not None
    assert [done[0].id] == files.prune(finished_before=done[1].finished_at)
    assert [done[1].id] == files.prune(keep=2)
    assert {done[0].id, done[1].id} == set(read)


def test_what_a_prune_would_forget_can_be_asked_first(files: TaskStore, clock: ManualClock) -> None:
    read, unread = files.finish(begin(files), Event.COMPLETE), files.finish(begin(files), Event.COMPLETE)
    files.notifications.acknowledge(
        notification for notification in files.notifications.peek() if notification.task_id == read.id
    )
    clock.advance(1)
    files.finish(begin(files), Event.COMPLETE)
    for found in (files.prunable(finished_before=clock.now), files.prunable(keep=1)):
        assert ((read.id,), (unread.id,)) == (found.forget, found.unread)
    assert 3 == len(files.list())


def test_a_record_that_was_copied_is_pruned_by_what_it_says(files: TaskStore, root: Path, clock: ManualClock) -> None:
    """Its file may be younger than its end, and then it stays; or older, and then its end counts."""
    done = files.finish(begin(files), Event.COMPLETE)
    files.notifications.acknowledge(files.notifications.peek())
    os.utime(root / f"done/{done.id}.task", (0, 0))
    assert [] == files.prune(finished_before=clock.now)
    os.utime(root / f"done/{done.id}.task")
    clock.advance(1)
    assert [] == files.prune(finished_before=clock.now)
