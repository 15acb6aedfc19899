"""What a process that died left of a task, state by state, and what recovery makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from animaworks_tasks import Cause, Outcome, State, Task, TaskStore
from animaworks_tasks.task import codec
from animaworks_tasks.task.states import Event, advance
from tests.conftest import ManualClock, begin, die, own
from tests.store.directory.conftest import ID, Remains, before, full, notified, plain, ripen, tree


@pytest.mark.parametrize("both", [True, False], ids=["with both names", "with its name in running/ alone"])
@pytest.mark.parametrize("again", [False, True], ids=["finished", "requeued"])
def test_killed_in_the_moment_of_the_claim_the_tool_may_have_begun(
    files: TaskStore, root: Path, remains: Remains, *, both: bool, again: bool
) -> None:
    """That the record has its name in running/ says so, and so its policy decides."""
    # given
    remains.put("pending")
    os.link(root / f"pending/{ID}.json", root / f"running/{ID}.task")
    if not both:
        (root / f"pending/{ID}.json").unlink()
    assert (State.RUNNING, 1) == (files.get(ID).state, files.get(ID).attempt)
    assert files.claim(ID) is None

    # when
    found = files.recover(lambda _: again)

    # then
    if again:
        assert [(1, 1)] == [(task.attempt, task.requeued) for task in found.requeued]
        assert ({f"pending/{ID}.json"}, []) == (tree(root), notified(files))
        assert 2 == own(files, ID).task.attempt
    else:
        assert [(Cause.INTERRUPTED, 1)] == [(task.cause, task.attempt) for task in found.finished]
        assert ({f"done/{ID}.task"}, [ID]) == (tree(root), notified(files))
        assert ((), ()) == (files.recover().finished, files.recover().requeued)


@pytest.mark.parametrize("again", [False, True], ids=["finished", "requeued"])
def test_a_copy_in_pending_of_what_runs_is_no_proof_that_it_never_began(
    files: TaskStore, root: Path, remains: Remains, *, again: bool
) -> None:
    # given a file of its own that says the same, or whatever a plain writer likes, but no higher number
    remains.put("running", remains.pending)
    remains.put("pending", attrs.evolve(remains.pending, argv=("other",), attempt=7))

    # when
    found = files.recover(lambda _: again)

    # then the orphan is what counts
    [task] = found.requeued if again else found.finished
    assert (("3d",), 1) == (task.argv, task.attempt)
    assert {f"pending/{ID}.json" if again else f"done/{ID}.task"} == tree(root)
    assert task == files.get(ID)


def test_a_task_whose_outcome_cannot_be_read_has_begun_whatever_else_there_is(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given
    remains.put("pending")
    remains.put("running", remains.pending)
    (root / f"done/{ID}.task").write_text("{")

    # when
    [done] = files.recover().finished

    # then
    assert (Cause.INTERRUPTED, {f"done/{ID}.task"}) == (done.cause, {name for name in tree(root) if ID in name[:18]})


def test_what_a_power_cut_brought_back_of_a_task_that_has_ended_is_taken_away_again(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given
    remains.put("done")
    remains.put("pending")
    (root / f"running/{ID}.cancel").touch()

    # when
    files.recover()
    assert files.claim(ID) is None

    # then
    assert {f"done/{ID}.task"} == tree(root)


def test_killed_before_it_said_who_it_is_an_owner_leaves_an_orphan_like_any_other(
    files: TaskStore, remains: Remains
) -> None:
    remains.put("running", remains.pending)
    [done] = files.recover().finished
    assert (Cause.INTERRUPTED, 1, None) == (done.cause, done.attempt, done.started_at)
    assert [ID] == notified(files)


@pytest.mark.parametrize("half", [b"", b'{"task_id": "01', b"[]"])
def test_a_view_that_is_half_gone_does_not_matter(files: TaskStore, root: Path, remains: Remains, half: bytes) -> None:
    remains.put("running", remains.pending)
    (root / f"{ID}.json").write_bytes(half)
    assert State.RUNNING is files.get(ID).state
    assert [ID] == [task.id for task in files.recover().finished]
    assert {f"done/{ID}.task"} == tree(root)


def test_a_view_of_an_earlier_attempt_tells_nothing_of_this_one(
    files: TaskStore, remains: Remains, clock: ManualClock
) -> None:
    remains.view()
    remains.put("running", attrs.evolve(remains.pending, attempt=1, requeued=1))
    assert (2, None, None) == (files.get(ID).attempt, files.get(ID).started_at, files.get(ID).owner_pid)
    remains.put("running", remains.pending)
    assert (1, clock.now, 1) == (files.get(ID).attempt, files.get(ID).started_at, files.get(ID).owner_pid)


@pytest.mark.parametrize("notification", ["not yet", "waiting", "read"])
def test_killed_after_the_outcome_it_stands_is_notified_of_once_and_the_view_is_mended(
    files: TaskStore, root: Path, remains: Remains, notification: str
) -> None:
    # given the done record beside the running one, its notification somewhere on its way, and a view that says running
    remains.put("running", remains.pending)
    (root / "running" / f"{ID}.cancel").touch()
    remains.put("done")
    remains.view()
    directory = Path(files.layout.read if notification == "read" else files.layout.notifications)
    if notification != "not yet":
        (directory / f"{ID}.md").write_text("left before")
    assert remains.done == files.get(ID)

    # when
    found = files.recover(lambda _: True)

    # then
    assert ((remains.done,), ()) == (found.finished, found.requeued)
    assert ({f"done/{ID}.task"}, remains.done) == (tree(root), files.get(ID))
    assert ([] if notification == "read" else [ID]) == notified(files)
    assert (root / f"{ID}.json").read_bytes() == (root / f"done/{ID}.task").read_bytes()


def test_killed_while_requeueing_a_task_it_waits_for_its_next_attempt(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given the record of the next attempt beside that of the last
    back = advance(remains.running, Event.RETRY, started_at=None, owner_pid=None, requeued=1)
    remains.put("pending", back)
    remains.put("running", remains.pending)

    # when
    found = files.recover()

    # then
    assert (back,) == found.requeued
    assert ({f"pending/{ID}.json"}, []) == (tree(root), notified(files))
    assert 2 == own(files, ID).task.attempt


def test_a_running_record_that_cannot_be_read_may_have_run(files: TaskStore, root: Path) -> None:
    # given one that nobody has rejected, so that somebody claimed it when it could be read
    (root / f"running/{ID}.task").write_text("{")

    # when
    [done] = files.recover(lambda _: True).finished

    # then
    assert (Cause.INTERRUPTED, [ID], "unknown") == (done.cause, notified(files), done.tool)
    assert (done.hint or "").startswith("it may have run: see what it did before you submit its call anew; ")
    assert {f"done/{ID}.task", f"quarantine/{ID}.json", f"quarantine/{ID}.json.why.txt"} == tree(root)


def test_a_bad_record_whose_rejecter_died_half_way_never_ran(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one that has its name in running/, and beside it in quarantine/ why
    (root / f"pending/{ID}.json").write_text("{")
    ripen(root / f"pending/{ID}.json")
    with monkeypatch.context() as patch:
        before(patch, "reject.unlink", full)
        with pytest.raises(OSError, match="No space left"):
            files.claim(ID)
    assert {f"pending/{ID}.json", f"running/{ID}.task", f"quarantine/{ID}.json.why.txt"} == tree(root)

    # when
    [done] = files.recover(lambda _: True).finished

    # then
    assert (Cause.REJECTED, 0, [ID]) == (done.cause, done.attempt, notified(files))
    assert f"submit its call anew; the file is kept as {root}/quarantine/{ID}.json" == done.hint
    assert {f"done/{ID}.task", f"quarantine/{ID}.json", f"quarantine/{ID}.json.why.txt"} == tree(root)


def test_a_record_that_was_rejected_too_early_and_corrected_may_have_run_all_the_same(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an explanation says of the file that was there before is not held against this one."""
    # given a bad file that is corrected just as it is being rejected
    path = root / f"pending/{ID}.json"
    path.write_text("{")
    ripen(path)

    def corrected() -> None:
        (root / "new").write_text(json.dumps(plain()))
        (root / "new").replace(path)

    with monkeypatch.context() as patch:
        before(patch, "reject.link", corrected)
        assert files.claim(ID) is None

    # when it is claimed, and its owner dies and leaves a record that cannot be read
    die(own(files, ID))
    (root / f"running/{ID}.task").write_text("{")

    # then
    [done] = files.recover().finished
    assert Cause.INTERRUPTED is done.cause


@pytest.mark.parametrize("view", ["whole", "torn"])
def test_a_task_that_ran_and_whose_record_cannot_be_read_is_not_said_to_have_never_run(
    files: TaskStore, root: Path, view: str
) -> None:
    # given
    claim = begin(files)
    die(claim)
    (root / f"running/{claim.task.id}.task").write_bytes(b"")
    if view == "torn":
        (root / f"{claim.task.id}.json").write_bytes(b"{")

    # when
    [task] = files.recover(lambda _: True).finished

    # then
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (task.outcome, task.cause)
    assert task.tool == ("image_gen" if view == "whole" else "unknown")
    assert "may have partly run, and its record cannot be read any more: it is empty" in (task.error or "")
    assert (task.hint or "").startswith("it may have run: see what it did before you submit its call anew; ")
    assert (root / "quarantine" / f"{task.id}.json").exists()
    assert [task.id] == notified(files)
    assert [] == os.listdir(root / "running")


def test_an_outcome_that_cannot_be_read_is_kept_aside_and_the_orphan_is_interrupted(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    remains.put("running", remains.pending)
    (root / f"done/{ID}.task").write_text("{")
    [done] = files.recover().finished
    assert (Cause.INTERRUPTED, done, [ID]) == (done.cause, files.get(ID), notified(files))
    assert "{" == (root / f"quarantine/{ID}.task").read_text()


def test_an_orphan_whose_recovery_fails_in_any_way_costs_that_one_task(
    files: TaskStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # given two orphans, and a question of the host's that fails at the first one
    first, second = sorted(files.submit("image_gen", "3d").id for _ in range(2))
    for task_id in (first, second):
        die(own(files, task_id))

    def odd(task: Task) -> bool:
        if task.id == first:
            raise ZeroDivisionError("odd")
        return True

    # then
    assert [second] == [task.id for task in files.recover(odd).requeued]
    assert f"task {first} cannot be looked at\nTraceback" in caplog.text
    assert {f"pending/{second}.json"} == {name for name in tree(root) if second in name}
    assert [first] == [task.id for task in files.recover().finished]


def test_a_record_that_is_locked_and_has_ended_is_dealt_with_by_whoever_sees_it(
    files: TaskStore, root: Path, clock: ManualClock
) -> None:
    """Its owner may hang in what comes after the outcome, and what a tool left behind may hold the lock."""
    # given
    claim = begin(files)
    done = advance(claim.task, Event.COMPLETE, finished_at=clock.now, result="x")
    (root / f"done/{done.id}.task").write_bytes(codec.encode(done))

    # when
    found = files.recover()

    # then
    assert ((done.id,), (), [done.id]) == (found.alive, found.finished, notified(files))
    assert {f"done/{done.id}.task"} == tree(root)
    assert done == files.finish(claim, Event.FAIL, cause=Cause.TOOL), "the outcome that is on disk stands"
    assert [done.id] == notified(files)


def test_an_orphan_that_is_no_concern_of_ours_is_left_to_others(files: TaskStore, root: Path) -> None:
    # given an orphan that can be read, one that cannot, and a link
    claim, torn = begin(files), begin(files)
    for each in (claim, torn):
        die(each)
    (root / f"running/{torn.task.id}.task").write_text("{")
    (root / f"running/{ID}.task").symlink_to("nowhere")
    before = tree(root)

    # then
    asked: list[str] = []
    assert ((), (), ()) == attrs.astuple(files.recover(concerns=lambda task: bool(asked.append(task.id))))
    assert ([claim.task.id], before) == (asked, tree(root))
    assert 3 == len(files.recover().finished)


OWNER = """
import sys
from animaworks_tasks import TaskStore
store = TaskStore(sys.argv[1], durability="process")
claim = store.claim(sys.argv[2])
if sys.argv[3] == "shown":
    store.publish_view(claim)
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("view", ["shown", "not shown"])
def test_a_killed_process_leaves_an_orphan_at_once(files: TaskStore, view: str) -> None:
    # given a process that owns a task, whether or not it came to say so
    task = files.submit("image_gen", "3d")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, files.location, task.id, view], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert b"mine\n" == owner.stdout.readline()
        assert (task.id,) == files.recover().alive
        assert State.RUNNING is files.get(task.id).state
        assert (owner.pid if view == "shown" else None) == files.get(task.id).owner_pid

        # when
        owner.kill()

    # then
    [done] = files.recover().finished
    assert (Outcome.FAILED, Cause.INTERRUPTED, 1) == (done.outcome, done.cause, done.attempt)
    assert (done, [done.id]) == (files.get(task.id), notified(files))
