"""Killed after any change to the disk: what another process makes of what is there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Outcome, State, TaskStore
from animaworks_tasks.notifications.render import MarkdownRenderer
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, die, own
from tests.store.directory.conftest import kill_after, notified, ripen, tree


def in_one_go(files: TaskStore, task_id: str) -> None:
    files.finish(own(files, task_id), Event.COMPLETE)
    files.notifications.acknowledge(files.notifications.peek())


def after_a_retry(files: TaskStore, task_id: str) -> None:
    files.requeue(own(files, task_id))
    in_one_go(files, task_id)


def after_a_claim_for_nothing(files: TaskStore, task_id: str) -> None:
    files.requeue(own(files, task_id), began=False)
    in_one_go(files, task_id)


def cancelled(files: TaskStore, task_id: str) -> None:
    files.request_cancel(task_id)
    with files.notifications.drain():
        pass


def cancelled_while_running(files: TaskStore, task_id: str) -> None:
    claim = own(files, task_id)
    files.request_cancel(task_id)
    files.finish(claim, Event.CANCEL)


def recovered(files: TaskStore, task_id: str) -> None:
    die(own(files, task_id))
    files.recover(lambda _: True)
    die(own(files, task_id))
    files.recover()
    files.sweep()


def unreadable(files: TaskStore, task_id: str) -> None:
    path = Path(files.layout.pending, f"{task_id}.json")
    os.truncate(path, 50)
    ripen(path)
    files.claim(task_id)


@pytest.mark.parametrize(
    "life",
    [
        in_one_go,
        after_a_retry,
        after_a_claim_for_nothing,
        cancelled,
        cancelled_while_running,
        recovered,
        unreadable,
    ],
)
def test_killed_after_any_step_a_task_still_ends_once_and_is_notified_of_once(
    tmp_path: Path, life: Callable[[TaskStore, str], None]
) -> None:
    for steps in range(200):
        # given a submitted task, and a process that does so many steps and is killed
        files = TaskStore(tmp_path / str(steps), durability="process")
        task_id = files.submit("image_gen", "3d").id
        killed = kill_after(steps, lambda: life(files, task_id))  # noqa: B023 - called at once

        # when another one takes over
        seen = {task.id: task for task in files.list(State.DONE)}
        files.recover()
        while files.pending_ids():
            for pending in files.pending_ids():
                claim = files.claim(pending)
                if claim is not None:
                    files.finish(claim, Event.COMPLETE)
        files.sweep()

        # then
        [done] = files.list()
        assert State.DONE is done.state
        assert done == seen.get(task_id, done), "an outcome that was seen has changed"
        with files.notifications.drain():  # what one of them had put away half, the next drain puts away
            pass
        assert [".read"] == os.listdir(files.layout.notifications)
        [notification] = Path(files.layout.read).iterdir()
        assert (task_id, MarkdownRenderer()(done)) == (notification.stem, notification.read_text())
        assert {f"done/{task_id}.task"} == {name for name in tree(Path(files.layout.root)) if "quarantine" not in name}
        assert Path(files.layout.view(task_id)).read_bytes() == Path(files.layout.done_record(task_id)).read_bytes()
        if not killed:
            break
    assert 5 < steps < 199


@pytest.mark.parametrize("steps", range(12))
def test_killed_while_it_submits_a_task_is_there_or_is_not(files: TaskStore, steps: int) -> None:
    killed = kill_after(steps, lambda: files.submit("image_gen", "3d"))
    tasks = list(files.list())
    assert len(tasks) == (steps >= 2), "the draft is written, and then it is linked"
    assert killed == (steps < 4), "the draft is taken away, and the journal has a line more"


@pytest.mark.parametrize("view", ["whole", "torn"])
def test_killed_while_it_settles_a_task_that_may_have_run_and_cannot_be_read_it_is_notified_of_once(
    files: TaskStore, root: Path, view: str
) -> None:
    for steps in itertools.count():
        # given
        claim = begin(files)
        task_id = claim.task.id
        die(claim)
        (root / f"running/{task_id}.task").write_bytes(b"")
        if view == "torn":
            (root / f"{task_id}.json").write_bytes(b"{")

        # when
        killed = kill_after(steps, files.recover)
        TaskStore(files.location, language="en", durability="process").recover()

        # then
        task = files.get(task_id)
        assert (Outcome.FAILED, Cause.INTERRUPTED) == (task.outcome, task.cause)
        assert 1 == notified(files).count(task_id)
        kept = [name for name in os.listdir(root / "quarantine") if name.startswith(task_id)]
        assert [f"{task_id}.json", f"{task_id}.json.why.txt"] == sorted(kept)
        assert [] == [name for name in os.listdir(root / "running") if name.startswith(task_id)]
        if not killed:
            assert steps > 8
            break


@pytest.mark.parametrize("steps", range(12))
def test_killed_while_it_prunes_a_task_is_there_or_is_not(files: TaskStore, clock: ManualClock, steps: int) -> None:
    # given
    done = files.finish(begin(files), Event.COMPLETE)
    files.workspace(done.id).write_log(b"x")
    files.notifications.acknowledge(files.notifications.peek())
    clock.advance(1)

    # when
    kill_after(steps, lambda: files.prune(finished_before=clock.now))

    # then
    assert list(files.list()) in ([done], [])
    assert ((), (), []) == (files.recover().finished, files.recover().requeued, notified(files))


def test_killed_while_it_submits_with_a_key_the_next_submit_of_the_key_is_the_only_task(
    files: TaskStore, root: Path
) -> None:
    for steps in itertools.count():
        # given
        key = f"key {steps}"
        killed = kill_after(steps, lambda: files.submit("image_gen", "3d", key=key))  # noqa: B023 - called at once
        before = files.pending_ids()

        # when
        task = files.submit("image_gen", "3d", key=key)

        # then
        assert before | {task.id} == files.pending_ids()
        assert task.id == files.submit("image_gen", "3d", key=key).id
        assert len(os.listdir(root / "keys")) == len(files.pending_ids()) == steps + 1
        if not killed:
            assert steps == 5, "a draft, its key, its name in pending/; the draft is taken away; a line in the journal"
            break


@pytest.mark.parametrize("steps", range(12))
def test_killed_while_it_prunes_a_task_with_a_key_the_key_is_free_or_names_it(files: TaskStore, steps: int) -> None:
    # given
    done = files.finish(begin(files, key="mei"), Event.COMPLETE)
    files.notifications.acknowledge(files.notifications.peek())

    # when
    kill_after(steps, lambda: files.prune(keep=0))
    again = files.submit("image_gen", "3d", key="mei")

    # then a key that went before its task may name another one, and never one that is nowhere
    assert again == files.get(again.id)
    assert (again.id == done.id) == (steps == 0)
    assert {done.id, again.id} >= {task.id for task in files.list()}
    assert again.id == files.submit("image_gen", "3d", key="mei").id
