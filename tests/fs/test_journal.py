"""What happened can be asked later: ``events.jsonl``."""

import glob
from collections.abc import Callable
from pathlib import Path

import pytest

from animaworks_tasks import TaskStore
from animaworks_tasks.fs import locks
from animaworks_tasks.task.model import Cause
from animaworks_tasks.task.states import Event
from tests.conftest import begin


@pytest.fixture
def files(tmp_path: Path) -> TaskStore:
    return TaskStore(tmp_path, durability="process")


def noted(store: TaskStore, task_id: str) -> list[str]:
    return [line["event"] for line in store.events(task_id)]


def test_the_life_of_a_task_can_be_read_from_submit_to_the_acknowledgement(files: TaskStore) -> None:
    # given two tasks, one of which is tried twice and fails
    task = files.submit("image_gen", "3d")
    other = files.submit("image_gen", "3d")
    claim = files.claim(task.id)
    assert claim is not None
    files.requeue(claim)
    claim = files.claim(task.id)
    assert claim is not None
    files.request_cancel(task.id)
    files.finish(claim, Event.FAIL, cause=Cause.TOOL)
    with files.notifications.drain():
        pass

    # then
    life = ["submitted", "claimed", "requeued", "claimed", "cancel requested", "ended", "notified", "acknowledged"]
    assert life == noted(files, task.id)
    assert ["submitted"] == noted(files, other.id)
    lines = list(files.events(task.id))
    assert sorted(line["at"] for line in lines) == [line["at"] for line in lines]
    assert ("failed", "tool") == (lines[5]["outcome"], lines[5]["cause"])
    assert lines[-1]["by"], "to whom it was delivered"


def test_a_line_that_is_torn_or_not_ours_is_passed_over(files: TaskStore) -> None:
    task = files.submit("image_gen", "3d")
    with open(files.layout.events, "ab") as file:
        file.write(b'{"at": 1, "eve\n[1]\n\xff\n\n')
    files.request_cancel(task.id)
    assert ["submitted", "cancel requested", "claimed", "ended", "notified"] == noted(files, task.id)
    assert 5 == len(list(files.events()))


def test_a_journal_that_cannot_be_written_stops_nothing(files: TaskStore) -> None:
    Path(files.layout.events).mkdir()
    claim = begin(files)
    assert files.finish(claim, Event.COMPLETE) == files.get(claim.task.id)
    assert [] == list(files.events())


def test_a_large_journal_is_put_aside_and_still_read(files: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("animaworks_tasks.fs.journal._ROTATED_AT", 10)
    first = files.finish(begin(files), Event.COMPLETE)
    assert first.finished_at is not None
    files.prune(finished_before=first.finished_at)
    second = files.submit("image_gen", "3d")
    assert "ended" in noted(files, first.id)
    assert ["submitted"] == noted(files, second.id)
    assert Path(files.layout.events + ".1").exists()


@pytest.mark.parametrize("look", [TaskStore.sweep, TaskStore.recover])
def test_a_large_journal_is_put_aside_also_where_nobody_prunes(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch, look: Callable[[TaskStore], object]
) -> None:
    """A host that goes on for months looks for orphans all the time."""
    # given a host that has looked before
    look(files)
    task = files.submit("image_gen", "3d")
    monkeypatch.setattr("animaworks_tasks.fs.journal._ROTATED_AT", 10)

    # when
    look(files)

    # then
    assert [f"{files.layout.events}.1"] == glob.glob(f"{files.layout.events}*")
    assert ["submitted"] == noted(files, task.id)


def test_of_two_that_put_a_large_journal_aside_at_once_one_does(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second would replace the 16 MiB that were put aside with what was noted since."""
    files.submit("image_gen", "3d")
    monkeypatch.setattr("animaworks_tasks.fs.journal._ROTATED_AT", 10)

    # when another is about to do it
    lock = locks.hold(files.layout.events)
    assert lock is not None
    files.sweep()

    # then
    assert not Path(files.layout.events + ".1").exists()
    lock.release()


def test_of_a_journal_that_nobody_has_put_aside_the_newest_lines_are_read(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submit needs no host, so it may have grown beyond all bounds: then the oldest lines go, and not all."""
    # given
    tasks = [files.submit("image_gen", "3d") for _ in range(9)]
    lines = Path(files.layout.events).read_bytes().splitlines(keepends=True)

    # when no more is read than the last three, and half of the one before
    monkeypatch.setattr("animaworks_tasks.fs.journal._READ_LIMIT", sum(map(len, lines[-3:])) + len(lines[-4]) // 2)

    # then
    assert [task.id for task in tasks[-3:]] == [line["task_id"] for line in files.events()]
