"""What only tasks as files have: a layout that others read, files that others wrote, and death after any step."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import pickle
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import pytest

from animaworks_tasks import Cause, Outcome, State, Task, TaskNotFoundError, TaskStore
from animaworks_tasks.errors import PartlySubmittedError, RecordError, StoreError
from animaworks_tasks.fs import files as fs_files
from animaworks_tasks.fs import locks as file_locks
from animaworks_tasks.notifications.render import MarkdownRenderer
from animaworks_tasks.store import directory as store_module
from animaworks_tasks.store.records import DirectoryRecords
from animaworks_tasks.store.recovery import RIPE_AFTER
from animaworks_tasks.task import codec
from animaworks_tasks.task.states import Event, advance
from tests.conftest import ManualClock, begin, die, own

ID: Final = "0123456789ab"


@pytest.fixture
def root(files: TaskStore) -> Path:
    return Path(files.layout.root)


def plain(**changes: object) -> dict[str, object]:
    """Return what anyone may write into pending/: the eight keys of AnimaWorks."""
    return {
        "task_id": ID,
        "tool_name": "image_gen",
        "subcommand": "3d",
        "raw_args": ["3d", "メイ.png"],
        "anima_name": "mei",
        "anima_dir": "/somewhere/else",
        "submitted_at": 1767225600.25,
        "status": "pending",
        **changes,
    }


def ripen(path: Path) -> None:
    """Make a file so old that nobody can still be writing it."""
    then = time.time() - RIPE_AFTER - 1
    os.utime(path, (then, then), follow_symlinks=False)


def notices(files: TaskStore) -> list[str | None]:
    return [notification.task_id for notification in files.notifications.peek()]


def tree(root: Path) -> set[str]:
    """Return the files below *root* that are there for a task; locks, doorbell and drafts come and go."""
    places = ("pending", "running", "done", "quarantine")
    return {f"{place}/{name}" for place in places for name in os.listdir(root / place)}


# --- layout ---


def test_a_store_is_directories_for_our_eyes_only(tmp_path: Path, root: Path) -> None:
    assert {"pending", "running", "done", "locks", "logs", "progress", "results", "quarantine", "tmp"} == set(
        os.listdir(root)
    )
    for directory, _, _ in os.walk(tmp_path / "mei"):
        assert 0o700 == stat.S_IMODE(os.stat(directory).st_mode), directory


def test_every_file_is_for_our_eyes_only_whatever_the_umask(files: TaskStore, root: Path) -> None:
    # given
    old = os.umask(0)
    try:
        # when something of every kind is left
        bell = files.doorbell()
        files.submit("image_gen", "3d")
        claim = begin(files)
        done = files.finish(begin(files), Event.COMPLETE, result="x")
        files.request_cancel(claim.task.id)
        workspace = files.workspace(claim.task.id)
        workspace.write_log(b"x")
        workspace.report_progress(None, "x")
        workspace.keep_result(b"x")
        files.publish_catalogue({})
        files.notifications.acknowledge(files.notifications.peek())
        bell.close()
    finally:
        os.umask(old)

    # then
    found = {path: path.lstat() for path in root.parent.rglob("*")}
    assert {0o600} == {stat.S_IMODE(s.st_mode) for s in found.values() if not stat.S_ISDIR(s.st_mode)}
    assert {0o700} == {stat.S_IMODE(s.st_mode) for s in found.values() if stat.S_ISDIR(s.st_mode)}
    assert root / f"results/{claim.task.id}/result.txt" in found
    assert root.parent / f"background_notifications/.read/{done.id}.md" in found


def test_a_record_lies_in_the_directory_of_its_state(files: TaskStore, root: Path) -> None:
    task = files.submit("image_gen", "3d")
    assert {f"pending/{task.id}.json"} == tree(root)
    claim = files.claim(task.id)
    assert claim is not None
    assert {f"running/{task.id}.json", f"running/{task.id}.owner.json"} == tree(root)
    files.request_cancel(task.id)
    assert f"running/{task.id}.cancel" in tree(root)
    assert [f"{task.id}.lock"] == os.listdir(root / "locks")
    files.finish(claim, Event.COMPLETE)
    assert {f"done/{task.id}.json"} == tree(root)
    assert ([], []) == (os.listdir(root / "locks"), os.listdir(root / "tmp"))


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


def test_a_claim_that_cannot_be_announced_is_durable_in_both_places_and_shown_later(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a disk that is full, but for a moment
    files = TaskStore(tmp_path / "mei", clock=clock)
    task = files.submit("image_gen", "3d")
    synced: list[str] = []
    fsync = os.fsync

    def sync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.MonkeyPatch.context() as disk:
        failing_at(disk, "write", 1)
        claim = files.claim(task.id)

    # then
    assert claim is not None
    assert ["running", "pending"] == synced
    assert f"task {task.id} runs, but others cannot see by whom" in caplog.text
    assert {f"running/{task.id}.json"} == tree(Path(files.layout.root))
    files.announce(claim)
    assert claim.task == files.get(task.id)
    assert f"running/{task.id}.owner.json" in tree(Path(files.layout.root))


def test_what_is_announced_again_takes_the_place_of_what_was(files: TaskStore, root: Path) -> None:
    # given
    claim = own(files, files.submit("image_gen", "3d").id)
    owner, view = root / f"running/{claim.task.id}.owner.json", root / f"{claim.task.id}.json"
    before = owner.stat().st_ino
    files.announce(claim)
    assert before == owner.stat().st_ino, "nothing is new"

    # when
    claim.task = attrs.evolve(claim.task, subcommand="pipeline")
    files.announce(claim)

    # then
    assert claim.task == files.get(claim.task.id)
    assert owner.samefile(view)
    assert [] == os.listdir(root / "tmp")


def test_a_release_is_durable_before_the_claim_is_forgotten(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    files = TaskStore(tmp_path / "mei", clock=clock)
    claim = begin(files)
    done: list[str] = []
    unlink = os.unlink
    monkeypatch.setattr(os, "fsync", lambda fd: done.append(Path(f"/proc/self/fd/{fd}").readlink().name[:7]))
    monkeypatch.setattr(os, "unlink", lambda path: done.append(os.path.basename(path)) or unlink(path))  # type: ignore[func-returns-value]

    # when
    task = files.release(claim)

    # then
    assert [task.id[:7], "pending"] == [step for step in done if len(step) == 7]
    assert done.index("pending") < done.index(f"{task.id}.json")


def test_files_that_are_as_good_as_equally_old_are_listed_by_what_the_records_say(
    files: TaskStore, root: Path, clock: ManualClock
) -> None:
    """The time of a file is no finer than the kernel's tick, in which many tasks can end."""
    for n in range(8):
        clock.advance(1)
        task = files.finish(begin(files), Event.COMPLETE)
        os.utime(root / f"done/{task.id}.json", ns=(0, 10**18 - n * 10**6))
    for limit in range(9):
        assert list(files.list())[:limit] == list(files.list(limit=limit))


def test_a_store_for_processes_syncs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail(f"fsync({fd})"))
    files = TaskStore(tmp_path / "mei", durability="process")
    files.finish(begin(files), Event.COMPLETE)
    die(begin(files))
    files.recover()
    with files.notifications.drain():
        pass
    files.prune(finished_before=files.list()[0].submitted_at + timedelta(days=1))


def test_a_durability_that_nobody_promised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'full' or 'process', not 'sometimes'"):
        TaskStore(tmp_path, durability="sometimes")  # type: ignore[arg-type]


def test_all_stores_on_a_directory_see_the_same_tasks(files: TaskStore) -> None:
    other = TaskStore(files.location, durability="process")
    task = files.submit("image_gen", "3d")
    claim = own(other, task.id)
    assert (None, (task.id,)) == (files.claim(task.id), files.recover().alive)
    assert claim.task == files.get(task.id)
    assert (os.getpid(), "mei", files.location) == (claim.task.owner_pid, task.anima_name, task.anima_dir)


def test_a_store_goes_to_another_process_as_its_directory(files: TaskStore, tmp_path: Path) -> None:
    store = pickle.loads(pickle.dumps(TaskStore(tmp_path / "mei", language="en", durability="process")))
    task = store.submit("image_gen", "3d")
    assert files.get(task.id).tool == "image_gen"
    store.finish(own(store, task.id), Event.COMPLETE)
    assert files.notifications.peek()[0].text.startswith("# Background task completed: image_gen:3d\n")
    assert (repr(files), files.location) == (repr(store), store.location)


# --- the view of others ---


def test_the_view_shows_a_task_from_the_claim_on_as_animaworks_expects_it(files: TaskStore, root: Path) -> None:
    # given
    task = files.submit("image_gen", "3d", "メイ.png")
    view = root / f"{task.id}.json"
    assert not view.exists()

    # when, then
    claim = own(files, task.id)
    assert view.samefile(root / f"running/{task.id}.owner.json")
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
    assert view.samefile(root / f"done/{task.id}.json")
    assert done.finished_at is not None
    shown = json.loads(view.read_bytes())
    assert ("failed", "cancelled", done.finished_at.timestamp(), None, "as asked") == (
        shown["status"],
        shown["outcome"],
        shown["completed_at"],
        shown["result"],
        shown["error"],
    )


def test_a_task_that_waits_again_has_no_view_that_says_running(files: TaskStore, root: Path) -> None:
    # given
    released, returned = begin(files), begin(files)
    die(returned)

    # when
    files.release(released)
    files.recover(lambda _: True)

    # then
    assert [] == list(root.glob("*.json"))
    own(files, released.task.id)
    assert [f"{released.task.id}.json"] == [path.name for path in root.glob("*.json")]


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


# --- records of others ---


def test_a_record_of_eight_keys_written_plainly_runs(files: TaskStore, root: Path) -> None:
    # given
    (root / "pending" / f"{ID}.json").write_text(json.dumps(plain()))

    # then
    assert ({ID}, ["image_gen:3d"]) == (files.pending_ids(), [task.name for task in files.list()])
    claim = own(files, ID)
    assert (("3d", "メイ.png"), 1) == (claim.task.argv, claim.task.attempt)
    files.finish(claim, Event.COMPLETE)
    assert [ID] == notices(files)


def test_keys_that_we_do_not_know_stand_in_the_done_record(files: TaskStore, root: Path) -> None:
    (root / "pending" / f"{ID}.json").write_text(json.dumps(plain(trace={"span": 7}, result="early")))
    done = files.finish(own(files, ID), Event.COMPLETE, result="late")
    assert ("late", {"trace": {"span": 7}}) == (done.result, done.extra)
    assert {"span": 7} == json.loads((root / f"done/{ID}.json").read_bytes())["trace"]


@pytest.mark.parametrize("name", [ID, "cron-2026-01-01", "ABCDEF012345"])
def test_a_task_for_a_language_model_is_left_alone(files: TaskStore, root: Path, name: str) -> None:
    # given
    path = root / "pending" / f"{name}.json"
    path.write_text(json.dumps({"task_id": name, "task_type": "llm", "prompt": "掃除"}))
    ripen(path)

    # then
    assert files.claim(name) is None
    assert ((), ()) == (files.recover().settled, files.recover().returned)
    assert ({f"pending/{name}.json"}, [], []) == (tree(root), notices(files), list(files.list()))


def leave(path: Path, kind: str) -> None:
    """Leave something that is no record of ours where one is looked for."""
    if kind == "link":
        (path.parent.parent / "target").write_text(json.dumps(plain()))
        path.symlink_to(path.parent.parent / "target")
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
        (path / "inside").write_text("kept")
    else:
        whole = json.dumps(plain(), ensure_ascii=False).encode()
        content: dict[str, bytes] = {
            "empty": b"",
            "truncated": whole[:-20],
            "a list": b"[" + whole + b"]",
            "another id": json.dumps(plain(task_id="f" * 12)).encode(),
            "larger than a record": whole + b" " * (1 << 20),
            "larger once we write it": json.dumps(plain(raw_args=[""] * 200_000), separators=(",", ":")).encode(),
            "a name without end": json.dumps(plain(task_id="\x85" * 400_000), ensure_ascii=False).encode(),
        }
        path.write_bytes(content[kind])


BAD: Final = {
    "empty": "it is empty",
    "truncated": "it is not JSON",
    "a list": "it is JSON, but not an object",
    "another id": "it names another task: task_id is 'ffffffffffff'",
    "larger than a record": "it is larger than 1048576 bytes",
    "larger once we write it": "it is larger than 1032192 bytes",
    "a name without end": "not 12 lowercase hex digits",
    "link": "it is a symbolic link",
    "FIFO": "it is not a regular file",
    "directory": "it is not a regular file",
}


@pytest.mark.parametrize(("kind", "why"), BAD.items(), ids=BAD.keys())
def test_what_is_no_record_costs_that_one_file_is_kept_and_explained(
    files: TaskStore, root: Path, kind: str, why: str
) -> None:
    # given
    bad = root / "pending" / f"{ID}.json"
    leave(bad, kind)
    ripen(bad)
    before = bad.lstat()

    # when
    assert files.claim(ID) is None

    # then it has ended, with a reason, and was told of
    done = files.get(ID)
    assert (Outcome.FAILED, Cause.REJECTED, 0) == (done.outcome, done.cause, done.attempt)
    assert done.error is not None
    if kind != "a name without end":  # whose reason is cut
        assert why in done.error
    assert f"pending/{ID}.json" in done.error
    assert f"quarantine/{ID}.json" in (done.hint or "")
    assert [ID] == notices(files)

    # and the file is kept as it was, beside a note that says why
    kept = root / "quarantine" / f"{ID}.json"
    assert (before.st_ino, before.st_size) == (kept.lstat().st_ino, kept.lstat().st_size)
    assert (root / "quarantine" / f"{ID}.json.why.txt").read_text().removesuffix("\n") in done.error
    assert {f"done/{ID}.json", f"quarantine/{ID}.json", f"quarantine/{ID}.json.why.txt"} == tree(root)

    # and nothing more comes of it, and the queue goes on
    assert ((), (), ()) == attrs.astuple(files.recover())
    assert Outcome.COMPLETED is files.finish(begin(files), Event.COMPLETE).outcome


def test_a_bad_file_that_is_young_may_still_be_being_written(files: TaskStore, root: Path) -> None:
    # given one that its writer has just begun
    path = root / "pending" / f"{ID}.json"
    whole = json.dumps(plain())
    path.write_text(whole[:20])

    # then it is left in peace, and runs once it is whole
    assert files.claim(ID) is None
    assert ({f"pending/{ID}.json"}, [], []) == (tree(root), notices(files), list(files.list()))
    with pytest.raises(RecordError, match="not JSON"):
        files.get(ID)
    path.write_text(whole)
    assert ID == own(files, ID).task.id


@pytest.mark.parametrize(
    "name", [b"notes.json", b"ABCDEF012345.json", b"\xff\xfe.json", "メイ.json".encode(), b"a.json.json"]
)
def test_a_file_whose_name_is_no_id_is_rejected_once_and_kept(files: TaskStore, root: Path, name: bytes) -> None:
    # given
    path = root / "pending" / os.fsdecode(name)
    path.write_text(json.dumps(plain()))
    assert () == files.recover().settled, "not while it is young"
    ripen(path)

    # when
    [done] = files.recover().settled

    # then
    assert (Outcome.FAILED, Cause.REJECTED) == (done.outcome, done.cause)
    assert "its name is not 12 lowercase hex digits" in (done.error or "")
    assert [done.id] == notices(files)
    assert json.dumps(plain()) == (root / "quarantine" / f"{done.id}.json").read_text()
    assert () == files.recover().settled


@pytest.mark.parametrize("name", [".hidden.json", "notes.txt", f"{ID}.json.tmp", ID])
def test_what_does_not_end_in_json_is_nobodys_business(files: TaskStore, root: Path, name: str) -> None:
    (root / "pending" / name).write_text("x")
    ripen(root / "pending" / name)
    assert ((), (), ()) == attrs.astuple(files.recover())
    assert {f"pending/{name}"} == tree(root)


def test_a_second_bad_file_of_the_same_name_does_not_take_the_place_of_the_first(files: TaskStore, root: Path) -> None:
    for text in ("first", "second"):
        path = root / "running" / f"{ID}.json"
        path.write_text(text)
        files.recover()
    assert {"first", "second"} == {
        path.read_text() for path in (root / "quarantine").glob("*") if ".why" not in path.name
    }
    assert 2 == len(list((root / "quarantine").glob("*.why.txt")))


# --- places that cannot hold a store ---


def test_a_file_cannot_hold_a_store(tmp_path: Path) -> None:
    (tmp_path / "mei").write_text("a file")
    with pytest.raises(StoreError, match="cannot hold tasks: Not a directory") as caught:
        TaskStore(tmp_path / "mei")
    assert str(tmp_path / "mei" / "state" / "background_tasks") == caught.value.directory
    assert isinstance(caught.value, OSError)


def test_a_directory_that_may_not_be_written_cannot_hold_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(path: str, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", mkdir)  # root may write everywhere
    with pytest.raises(StoreError, match="cannot hold tasks: Permission denied"):
        TaskStore(tmp_path / "mei")


@pytest.mark.parametrize(
    ("flock", "why"),
    [
        (lambda *_: None, "locks do not work"),
        (lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, "x")), "no locks"),
    ],
    ids=["that keep nobody out", "none"],
)
def test_a_file_system_without_working_locks_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Callable[..., None], why: str
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match=f"{why}.*use a local one"):
        TaskStore(tmp_path / "mei")


def test_a_file_system_without_hard_links_serves_too(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)

    # then a whole life goes well
    task = files.submit("image_gen", "3d", key="mei")
    assert task == files.submit("image_gen", "3d", key="mei")
    files.release(own(files, task.id))
    done = files.finish(own(files, task.id), Event.COMPLETE)
    assert ({f"done/{task.id}.json"}, [task.id]) == (tree(root), notices(files))
    with files.notifications.drain() as drained:
        assert [task.id] == [n.task_id for n in drained.notifications]
    assert ([], done) == (notices(files), files.get(task.id))
    die(begin(files))
    assert 1 == len(files.recover().settled)


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
        notices(files),
    )
    files.finish(claim, Event.COMPLETE)
    assert ({f"done/{claim.task.id}.json"}, [claim.task.id]) == (tree(root), notices(files))


def test_an_outcome_that_reached_the_disk_stands_when_its_notice_did_not(
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
    assert (Outcome.COMPLETED, "the first", [done.id]) == (done.outcome, done.result, notices(files))


# --- what a crash leaves, state by state ---


@attrs.frozen
class Remains:
    """Puts the records of one task where a process that died may have left them."""

    root: Path
    pending: Task
    running: Task
    done: Task

    def put(self, place: str, task: Task | None = None) -> None:
        task = task or getattr(self, place)
        (self.root / place / f"{self.pending.id}.json").write_bytes(codec.encode(task))


@pytest.fixture
def remains(root: Path, clock: ManualClock) -> Remains:
    pending = Task(id=ID, tool="image_gen", subcommand="3d", argv=("3d",), submitted_at=clock.now)
    running = advance(pending, Event.CLAIM, attempt=1, started_at=clock.now, owner_pid=1)
    done = advance(running, Event.COMPLETE, finished_at=clock.now, result="model.glb")
    return Remains(root, pending, running, done)


def test_killed_between_link_and_unlink_of_a_claim_the_task_never_started(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given
    remains.put("pending")
    remains.put("running", remains.pending)
    (root / f"{ID}.json").write_bytes(codec.encode(remains.running))
    assert State.RUNNING is files.get(ID).state
    assert files.claim(ID) is None

    # when
    found = files.recover(lambda _: pytest.fail("a task that never ran needs no permission"))

    # then
    assert (remains.pending,) == found.returned
    assert ({f"pending/{ID}.json"}, []) == (tree(root), notices(files))
    assert not (root / f"{ID}.json").exists()
    assert 1 == own(files, ID).task.attempt


@pytest.mark.parametrize("again", [False, True])
def test_what_was_announced_may_have_begun_though_its_pending_record_is_back_after_a_power_cut(
    files: TaskStore, root: Path, remains: Remains, *, again: bool
) -> None:
    # given all three names, of which only the first need be durable to be gone
    remains.put("pending")
    remains.put("running", remains.pending)
    (root / "running" / f"{ID}.owner.json").write_bytes(codec.encode(remains.running))

    # when
    found = files.recover(lambda _: again)

    # then its policy decides, once
    if again:
        assert [1] == [task.attempt for task in found.returned]
        assert {f"pending/{ID}.json"} == tree(root)
    else:
        assert [Cause.INTERRUPTED] == [task.cause for task in found.settled]
        assert ({f"done/{ID}.json"}, [ID]) == (tree(root), notices(files))
    assert ((), ()) == (files.recover().settled, files.recover().returned)


@pytest.mark.parametrize("end", [OSError(errno.EIO, "Input/output error"), SystemExit(0)])
def test_a_claim_that_is_broken_off_takes_its_announcement_back_so_the_task_waits_again(
    tmp_path: Path, clock: ManualClock, end: BaseException
) -> None:
    # given a disk that refuses, or a process that is told to end, before the tool can begin
    files = TaskStore(tmp_path / "mei", clock=clock)
    task = files.submit("image_gen", "3d")

    def broken(_: str) -> None:
        raise end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs_files, "sync_directory", broken)
        with pytest.raises(type(end)):
            files.claim(task.id)

    # then
    found = files.recover(lambda _: pytest.fail("a task that never ran needs no permission"))
    assert ((task,), ()) == (found.returned, found.settled)
    assert {f"pending/{task.id}.json"} == tree(Path(files.layout.root))
    assert 1 == own(files, task.id).task.attempt


def test_a_claim_that_was_given_back_before_the_tool_began_is_not_brought_back_by_a_power_cut(
    tmp_path: Path, clock: ManualClock
) -> None:
    """The pending record is as it was, so only what is in running/ could say that the tool began."""
    # given
    files = TaskStore(tmp_path / "mei", clock=clock)
    claim = own(files, files.submit("image_gen", "3d").id)
    synced: list[tuple[str, list[str]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs_files, "sync_directory", lambda path: synced.append((path, os.listdir(path))))
        # when
        files.release(claim, began=False)
    # then
    assert (files.layout.running, []) == synced[-1]


def test_a_second_submit_of_a_key_whose_outcome_is_pruned_as_we_look_waits_as_it_was_submitted(
    files: TaskStore, root: Path, remains: Remains, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an outcome that goes between two looks
    remains.put("done")
    remains.put("pending")
    free = DirectoryRecords.free

    def pruned_meanwhile(records: DirectoryRecords, task_id: str) -> bool:
        (root / "done" / f"{ID}.json").unlink()
        return free(records, task_id)

    monkeypatch.setattr(DirectoryRecords, "free", pruned_meanwhile)

    # then
    assert remains.pending == files.pending(ID)
    assert {f"pending/{ID}.json"} == tree(root)


def test_a_pending_record_beside_an_outcome_does_not_wait_and_is_dropped(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    for running in (False, True):
        # given
        remains.put("done")
        remains.put("pending")
        if running:
            remains.put("running", remains.pending)
            files.recover()
        assert not files.waits(ID)

        # then
        assert files.pending(ID) is None
        assert {f"done/{ID}.json"} == tree(root)


def test_a_task_whose_outcome_cannot_be_read_has_begun_whatever_else_there_is(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given
    remains.put("pending")
    remains.put("running", remains.pending)
    (root / "done" / f"{ID}.json").write_text("{")

    # when
    [done] = files.recover().settled

    # then
    assert (Cause.INTERRUPTED, {f"done/{ID}.json"}) == (done.cause, {name for name in tree(root) if ID in name[:18]})


def test_what_a_power_cut_brought_back_of_a_task_that_has_ended_is_taken_away_again(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given
    remains.put("done")
    remains.put("pending")
    for name in (f"{ID}.owner.json", f"{ID}.cancel"):
        (root / "running" / name).touch()

    # when
    files.recover()
    assert files.claim(ID) is None

    # then
    assert {f"done/{ID}.json"} == tree(root)


def test_killed_before_it_said_who_it_is_an_owner_leaves_an_orphan_like_any_other(
    files: TaskStore, remains: Remains
) -> None:
    remains.put("running", remains.pending)
    [done] = files.recover().settled
    assert (Cause.INTERRUPTED, 1, None) == (done.cause, done.attempt, done.started_at)
    assert [ID] == notices(files)


@pytest.mark.parametrize("half", [b"", b'{"task_id": "01', b"[]"])
def test_an_owners_file_that_is_half_gone_does_not_matter(
    files: TaskStore, root: Path, remains: Remains, half: bytes
) -> None:
    remains.put("running", remains.pending)
    (root / "running" / f"{ID}.owner.json").write_bytes(half)
    assert State.RUNNING is files.get(ID).state
    assert [ID] == [task.id for task in files.recover().settled]
    assert {f"done/{ID}.json"} == tree(root)


@pytest.mark.parametrize("told", ["not yet", "waiting", "read"])
def test_killed_after_the_outcome_it_stands_is_told_of_once_and_the_view_is_mended(
    files: TaskStore, root: Path, remains: Remains, told: str
) -> None:
    # given the done record beside the running one, its notice somewhere on its way, and a view that says running
    remains.put("running", remains.pending)
    (root / "running" / f"{ID}.cancel").touch()
    remains.put("done")
    (root / f"{ID}.json").write_bytes(codec.encode(remains.running))
    directory = Path(files.layout.read if told == "read" else files.layout.notifications)
    if told != "not yet":
        (directory / f"{ID}.md").write_text("told before")
    assert remains.done == files.get(ID)

    # when
    found = files.recover(lambda _: True)

    # then
    assert ((remains.done,), ()) == (found.settled, found.returned)
    assert ({f"done/{ID}.json"}, remains.done) == (tree(root), files.get(ID))
    assert ([] if told == "read" else [ID]) == notices(files)
    assert (root / f"{ID}.json").samefile(root / f"done/{ID}.json")


def test_a_pending_record_beside_a_done_one_is_a_leftover(files: TaskStore, root: Path, remains: Remains) -> None:
    # given a second submit of a key that was published when the first had ended
    remains.put("pending")
    remains.put("done")
    assert (remains.done, [remains.done]) == (files.get(ID), list(files.list()))

    # then
    assert files.claim(ID) is None
    assert ({f"done/{ID}.json"}, set()) == (tree(root), files.pending_ids())


def test_killed_while_giving_a_task_back_it_waits_for_its_next_attempt(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    # given the record of the next attempt beside that of the last
    back = advance(remains.running, Event.RETRY, started_at=None, owner_pid=None)
    remains.put("pending", back)
    remains.put("running", remains.pending)

    # when
    found = files.recover()

    # then
    assert (back,) == found.returned
    assert ({f"pending/{ID}.json"}, []) == (tree(root), notices(files))
    assert 2 == own(files, ID).task.attempt


@pytest.mark.parametrize("again", [False, True], ids=["settled", "returned"])
def test_a_second_submit_of_a_key_beside_an_orphan_is_no_proof_that_it_never_started(
    files: TaskStore, root: Path, remains: Remains, *, again: bool
) -> None:
    # given
    second = attrs.evolve(remains.pending, submitted_at=remains.pending.submitted_at + timedelta(seconds=1))
    remains.put("running", remains.pending)
    remains.put("pending", second)

    # when
    found = files.recover(lambda _: again)

    # then the orphan is what counts
    if again:
        [task] = found.returned
        assert (1, remains.pending.submitted_at) == (task.attempt, task.submitted_at)
        assert ({f"pending/{ID}.json"}, task, []) == (tree(root), files.get(ID), notices(files))
    else:
        [task] = found.settled
        assert (Cause.INTERRUPTED, [ID]) == (task.cause, notices(files))
        assert files.claim(ID) is None
        assert {f"done/{ID}.json"} == tree(root)


def test_a_claimed_record_that_cannot_be_read_is_rejected(files: TaskStore, root: Path) -> None:
    (root / "running" / f"{ID}.json").write_text("{")
    [done] = files.recover().settled
    assert (Cause.REJECTED, [ID]) == (done.cause, notices(files))
    assert f"submit its call anew; the file is kept as state/background_tasks/quarantine/{ID}.json" == done.hint
    assert {f"done/{ID}.json", f"quarantine/{ID}.json", f"quarantine/{ID}.json.why.txt"} == tree(root)


@pytest.mark.parametrize("owner", ["whole", "torn"])
def test_a_task_that_ran_and_whose_record_cannot_be_read_is_not_said_to_have_never_run(
    files: TaskStore, root: Path, owner: str
) -> None:
    # given
    claim = begin(files)
    die(claim)
    (root / "running" / f"{claim.task.id}.json").write_bytes(b"")
    if owner == "torn":
        (root / "running" / f"{claim.task.id}.owner.json").write_bytes(b"{")

    # when
    [task] = files.recover(lambda _: True).settled

    # then
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (task.outcome, task.cause)
    assert task.tool == ("image_gen" if owner == "whole" else "unknown")
    assert f"may have partly run, and running/{task.id}.json cannot be read any more: it is empty" in (task.error or "")
    assert (task.hint or "").startswith("it may have run: see what it did before you submit its call anew; ")
    assert (root / "quarantine" / f"{task.id}.json").exists()
    assert [task.id] == notices(files)
    assert [] == os.listdir(root / "running")


def test_of_a_claimed_record_that_cannot_be_read_it_is_told_that_it_may_have_run(files: TaskStore, root: Path) -> None:
    for name in (f"{ID}.json", f"{ID}.owner.json"):
        (root / "running" / name).write_text("{")
    [done] = files.recover().settled
    assert (done.hint or "").startswith("it may have run: see what it did before you submit its call anew; ")


def test_an_outcome_that_cannot_be_read_is_kept_aside_and_the_orphan_is_interrupted(
    files: TaskStore, root: Path, remains: Remains
) -> None:
    remains.put("running", remains.pending)
    (root / "done" / f"{ID}.json").write_text("{")
    [done] = files.recover().settled
    assert (Cause.INTERRUPTED, done, [ID]) == (done.cause, files.get(ID), notices(files))
    assert "{" == (root / "quarantine" / f"{ID}.json").read_text()


def test_an_outcome_that_cannot_be_read_costs_that_one_task(files: TaskStore, root: Path) -> None:
    # given
    (root / "done" / f"{ID}.json").write_text("{")
    other = files.submit("image_gen", "3d")

    # then
    assert [other] == list(files.list())
    with pytest.raises(RecordError, match=f"{ID} is not a task record: it is not JSON"):
        files.get(ID)
    assert [] == list(files.prune(finished_before=other.submitted_at + timedelta(days=1)))


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
    assert [second] == [task.id for task in files.recover(odd).returned]
    assert f"task {first} cannot be looked at\nTraceback" in caplog.text
    assert {f"pending/{second}.json"} == {name for name in tree(root) if second in name}
    assert [first] == [task.id for task in files.recover().settled]


# --- killed after any step ---


class Killed(BaseException):
    """What a process that is killed does next: nothing."""


def failing_at(patch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let the call *number* (from 1) of an os function, and all later ones, find the disk full."""
    real, calls = getattr(os, name), itertools.count(1)

    def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as os has it
        if next(calls) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **options)

    patch.setattr(os, name, call)


@pytest.mark.parametrize("durability", ["process", "full"])
def test_of_many_that_the_disk_did_not_take_none_is_kept(
    tmp_path: Path, durability: Literal["process", "full"]
) -> None:
    store = TaskStore(tmp_path / "mei", durability=durability)
    with pytest.MonkeyPatch.context() as patch:
        failing_at(patch, "write", 3)
        with pytest.raises(OSError, match="No space left"):
            store.submit_many("tool", [["echo", str(number)] for number in range(5)])
    assert set() == store.pending_ids()
    assert [] == os.listdir(store.layout.tmp)


@pytest.mark.parametrize("durability", ["process", "full"])
def test_of_many_of_which_one_cannot_be_stored_none_is_kept(
    tmp_path: Path, durability: Literal["process", "full"]
) -> None:
    store = TaskStore(tmp_path / "mei", durability=durability)
    with pytest.raises(RecordError, match="it is larger than"):
        store.submit_many("tool", [["echo", "x" * size] for size in [*range(50), 1 << 20, 1]])
    assert set() == store.pending_ids()
    assert [] == os.listdir(store.layout.tmp)


@pytest.mark.parametrize("durability", ["process", "full"])
def test_of_many_that_the_disk_took_half_way_those_that_it_took_are_named(
    tmp_path: Path, durability: Literal["process", "full"]
) -> None:
    store = TaskStore(tmp_path / "mei", durability=durability)
    with pytest.MonkeyPatch.context() as patch:
        failing_at(patch, "link", 3)
        with pytest.raises(
            PartlySubmittedError, match=r"only the first 2 tasks were submitted.*No space left"
        ) as caught:
            store.submit_many("tool", [["echo", str(number)] for number in range(5)])
    assert set(caught.value.submitted) == store.pending_ids()
    assert [("echo", "0"), ("echo", "1")] == [store.get(task_id).argv for task_id in caught.value.submitted]
    assert [] == os.listdir(store.layout.tmp)


@pytest.mark.parametrize("durability", ["process", "full"])
def test_of_many_that_the_disk_took_and_did_not_link_none_is_kept_and_none_is_named(
    tmp_path: Path, durability: Literal["process", "full"]
) -> None:
    store = TaskStore(tmp_path / "mei", durability=durability)
    with pytest.MonkeyPatch.context() as patch:
        failing_at(patch, "link", 1)
        with pytest.raises(OSError, match="No space left") as caught:
            store.submit_many("tool", [["echo", "0"], ["echo", "1"]])
    assert not isinstance(caught.value, PartlySubmittedError)
    assert (set(), []) == (store.pending_ids(), os.listdir(store.layout.tmp))


def test_of_many_whose_directory_was_not_synced_all_are_named(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "mei", durability="full")
    with pytest.MonkeyPatch.context() as patch:
        failing_at(patch, "fsync", 4)
        with pytest.raises(PartlySubmittedError) as caught:
            store.submit_many("tool", [["echo", str(number)] for number in range(3)])
    assert set(caught.value.submitted) == store.pending_ids()
    assert caught.value.submitted == pickle.loads(pickle.dumps(caught.value)).submitted


def test_a_submit_whose_name_was_not_made_durable_says_that_it_is_queued(tmp_path: Path) -> None:
    """It has rung by then, so it may be running: to say that nothing was kept would have it submitted twice."""
    store = TaskStore(tmp_path / "mei", durability="full")
    with pytest.MonkeyPatch.context() as patch:
        failing_at(patch, "fsync", 2)
        with pytest.raises(PartlySubmittedError, match=r"only task \w+ was submitted, and will run: a power cut may"):
            store.submit("tool", "echo")
        [task_id] = store.pending_ids()
        failing_at(patch, "fsync", 1)
        with pytest.raises(OSError, match="No space left") as caught:
            store.submit("tool", "echo")
    assert not isinstance(caught.value, PartlySubmittedError)
    assert {task_id} == store.pending_ids()
    assert [] == os.listdir(store.layout.tmp)


def test_a_store_that_was_named_by_a_relative_path_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given two directories, and a store in the first
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    store = TaskStore("mei", durability="process")
    sent = pickle.dumps(store)

    # when
    monkeypatch.chdir(tmp_path / "second")

    # then
    assert store.location == pickle.loads(sent).location == pickle.loads(pickle.dumps(store)).location
    assert [] == os.listdir()


def synced(patch: pytest.MonkeyPatch, *, refused: str = "") -> list[str]:
    """Return the list in which each directory stands that is synced from now on; *refused* is not, at first."""
    paths: list[str] = []
    sync, calls = fs_files.sync_directory, itertools.count()

    def sync_directory(path: str) -> None:
        if path == refused and next(calls) == 0:
            raise OSError(errno.EIO, "Input/output error", path)
        sync(path)
        paths.append(path)

    patch.setattr(fs_files, "sync_directory", sync_directory)
    return paths


def test_where_no_directory_can_be_made_there_is_no_store() -> None:
    with pytest.raises(StoreError, match="/proc/mei/state/background_tasks"):
        TaskStore("/proc/mei")


def test_a_language_that_we_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^language must be one of 'ja', 'en', not 'fr'$"):
        TaskStore(tmp_path / "mei", language="fr")


def test_directories_that_a_killed_process_made_become_durable_up_to_the_animas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mei" / "state").mkdir(parents=True)
    paths = synced(monkeypatch)
    store = TaskStore(tmp_path / "mei")
    assert {str(tmp_path), store.layout.anima, os.path.dirname(store.layout.root), store.layout.root} <= set(paths)


def test_a_notice_whose_name_the_disk_refused_to_make_durable_is_made_so_at_the_next_try(
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


def test_a_prune_leaves_a_task_whose_notice_was_acknowledged_meanwhile_to_the_next_one(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That its notice has gone is made durable before its record goes, or a power cut would show it again."""
    # given
    task = files.finish(own(files, files.submit("tool", "echo").id), Event.COMPLETE)

    def acknowledge(path: str) -> None:
        forget(path)
        with files.notifications.drain():
            pass

    # when
    forget = store_module.forget
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "forget", acknowledge)
        other = files.finish(own(files, files.submit("tool", "echo").id), Event.COMPLETE)
        files.notifications.acknowledge([n for n in files.notifications.peek() if n.task_id == other.id])
        assert [other.id] == files.prune(keep=0)

    # then
    assert [task] == files.list()
    assert [task.id] == files.prune(keep=0)


def test_a_wish_to_cancel_that_came_too_late_does_not_cancel_the_next_task_of_the_key(files: TaskStore) -> None:
    # given a mark, left by who died before he saw that the task had ended
    task = files.finish(own(files, files.submit("tool", "echo", key="daily").id), Event.COMPLETE)
    fs_files.touch(files.layout.cancel(task.id))
    with files.notifications.drain():
        pass

    # when
    files.prune(keep=0)

    # then
    again = files.submit("tool", "echo", key="daily")
    assert not files.workspace(again.id).cancel_requested()


def kill_after(steps: int, life: Callable[[], object]) -> bool:
    """
    Lead *life* until it has changed the disk *steps* times; say whether it was killed.

    From then on nothing that it tries reaches the disk, its tidying up included, and its locks are let go.
    """
    left = steps
    locks: list[file_locks.Lock] = []
    take = file_locks.hold

    def hold(path: str) -> file_locks.Lock | None:
        lock = take(path)
        locks.extend([lock] if lock else [])
        return lock

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - any call of os
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*args, **options)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_locks, "hold", hold)
        for name in ("link", "unlink", "rename", "write", "mkdir"):
            patch.setattr(os, name, mortal(getattr(os, name)))
        try:
            life()
        except Killed:
            killed = True
        else:
            killed = False
    for lock in locks:
        lock.release()
    return killed


def in_one_go(files: TaskStore, task_id: str) -> None:
    files.finish(own(files, task_id), Event.COMPLETE)
    files.notifications.acknowledge(files.notifications.peek())


def after_a_retry(files: TaskStore, task_id: str) -> None:
    files.release(own(files, task_id))
    in_one_go(files, task_id)


def after_a_claim_for_nothing(files: TaskStore, task_id: str) -> None:
    files.release(own(files, task_id), began=False)
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
def test_killed_after_any_step_a_task_still_ends_once_and_is_told_of_once(
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
        [notice] = Path(files.layout.read).iterdir()
        assert (task_id, MarkdownRenderer()(done)) == (notice.stem, notice.read_text())
        assert {f"done/{task_id}.json"} == {name for name in tree(Path(files.layout.root)) if "quarantine" not in name}
        assert Path(files.layout.view(task_id)).samefile(Path(files.layout.done, f"{task_id}.json"))
        assert set(os.listdir(files.layout.locks)) <= {"drain.lock"}
        if not killed:
            break
    assert 5 < steps < 199


@pytest.mark.parametrize("steps", range(12))
def test_killed_while_it_submits_a_task_is_there_or_is_not(files: TaskStore, steps: int) -> None:
    killed = kill_after(steps, lambda: files.submit("image_gen", "3d"))
    tasks = list(files.list())
    assert len(tasks) == (steps >= 2), "the draft is written, and then it is linked"
    assert killed == (steps < 4), "the draft is taken away, and the journal has a line more"


@pytest.mark.parametrize("owner", ["whole", "torn"])
def test_killed_while_it_settles_a_task_that_may_have_run_and_cannot_be_read_it_is_told_of_once(
    files: TaskStore, root: Path, owner: str
) -> None:
    for steps in itertools.count():
        # given
        claim = begin(files)
        task_id = claim.task.id
        die(claim)
        (root / "running" / f"{task_id}.json").write_bytes(b"")
        if owner == "torn":
            (root / "running" / f"{task_id}.owner.json").write_bytes(b"{")

        # when
        killed = kill_after(steps, files.recover)
        TaskStore(files.location, language="en", durability="process").recover()

        # then
        task = files.get(task_id)
        assert (Outcome.FAILED, Cause.INTERRUPTED) == (task.outcome, task.cause)
        assert 1 == notices(files).count(task_id)
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
    assert ((), (), []) == (files.recover().settled, files.recover().returned, notices(files))


# --- what dead processes left lying ---


def test_a_sweep_takes_away_what_belongs_to_nobody_and_nothing_else(files: TaskStore, root: Path) -> None:
    # given
    alive = begin(files)
    files.request_cancel(alive.task.id)
    waiting = files.submit("image_gen", "3d")
    for name in (f"locks/{ID}.lock", f"running/{ID}.cancel", f"running/{ID}.owner.json", "tmp/old", "tmp/young"):
        (root / name).touch()
    os.utime(root / "tmp/old", (0, 0))

    # when
    files.sweep()

    # then
    assert [f"{alive.task.id}.lock"] == os.listdir(root / "locks")
    assert ["young"] == os.listdir(root / "tmp")
    assert {
        f"running/{alive.task.id}.json",
        f"running/{alive.task.id}.owner.json",
        f"running/{alive.task.id}.cancel",
        f"pending/{waiting.id}.json",
    } == tree(root)


def test_a_sweep_leaves_the_marks_of_an_orphan_to_recovery(files: TaskStore) -> None:
    claim = begin(files)
    files.request_cancel(claim.task.id)
    die(claim)
    files.sweep()
    [done] = files.recover().settled
    assert Outcome.CANCELLED is done.outcome


def test_a_start_leaves_no_lock_behind(files: TaskStore, root: Path) -> None:
    TaskStore(files.location, durability="process")
    assert ([], []) == (os.listdir(root / "locks"), os.listdir(root / "tmp"))


# --- pruning ---


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


def test_a_prune_leaves_alone_what_belongs_to_the_next_task_with_the_key(files: TaskStore, clock: ManualClock) -> None:
    # given
    files.finish(own(files, files.submit("tool", "echo", key="daily").id), Event.COMPLETE, result="first")
    with files.notifications.drain():
        pass

    # when the next one is submitted, and has ended, before the prune comes to what belonged to the first
    def next_one(task_id: str) -> None:
        claim = own(files, files.submit("tool", "echo", key="daily").id)
        kept = files.workspace(task_id).keep_result(b"second")
        files.finish(claim, Event.COMPLETE, result="second", result_file=kept)
        forget(task_id)

    forget = files._records.forget_traces
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files._records, "forget_traces", next_one)
        files.prune(finished_before=clock.now + timedelta(days=1))

    # then
    [task] = files.list()
    assert ("second", True) == (task.result, os.path.exists(os.path.join(files.layout.root, task.result_file or "")))
    assert os.path.exists(files.layout.view(task.id))


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
    look = DirectoryRecords.done

    def noted(records: DirectoryRecords, task_id: str) -> Task:
        read.append(task_id)
        return look(records, task_id)

    monkeypatch.setattr(DirectoryRecords, "done", noted)

    # then
    assert done[1].finished_at is not None
    assert [done[0].id] == files.prune(finished_before=done[1].finished_at)
    assert [done[1].id] == files.prune(keep=2)
    assert {done[0].id, done[1].id} == set(read)


def test_what_a_prune_would_forget_can_be_asked_first(files: TaskStore, clock: ManualClock) -> None:
    read, unread = files.finish(begin(files), Event.COMPLETE), files.finish(begin(files), Event.COMPLETE)
    files.notifications.acknowledge(notice for notice in files.notifications.peek() if notice.task_id == read.id)
    clock.advance(1)
    files.finish(begin(files), Event.COMPLETE)
    for found in (files.prunable(finished_before=clock.now), files.prunable(keep=1)):
        assert ((read.id,), (unread.id,)) == (found.forget, found.unread)
    assert 3 == len(files.list())


def test_a_record_that_was_copied_is_pruned_by_what_it_says(files: TaskStore, root: Path, clock: ManualClock) -> None:
    """Its file may be younger than its end, and then it stays; or older, and then its end counts."""
    done = files.finish(begin(files), Event.COMPLETE)
    files.notifications.acknowledge(files.notifications.peek())
    os.utime(root / "done" / f"{done.id}.json", (0, 0))
    assert [] == files.prune(finished_before=clock.now)
    os.utime(root / "done" / f"{done.id}.json")
    clock.advance(1)
    assert [] == files.prune(finished_before=clock.now)


def test_a_task_is_told_of_though_a_prune_was_killed_before_it_forgot_the_notice_of_another_with_its_key(
    files: TaskStore, root: Path
) -> None:
    # given what such a prune leaves
    first = files.finish(begin(files, key="daily"), Event.COMPLETE)
    files.notifications.acknowledge(files.notifications.peek())
    (root / "done" / f"{first.id}.json").unlink()

    # when
    second = files.finish(begin(files, key="daily"), Event.COMPLETE)

    # then
    assert first.id == second.id
    assert [second.id] == notices(files)


# --- what belongs to a task besides its record ---


def test_a_large_result_is_where_the_record_says(files: TaskStore, root: Path) -> None:
    claim = begin(files)
    path = files.workspace(claim.task.id).keep_result(b"x" * 2_000_000)
    assert b"x" * 2_000_000 == (root / path).read_bytes()
    assert f"results/{claim.task.id}/result.txt" == path


def test_a_full_disk_does_not_fail_a_tool_that_logs_or_reports(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = files.workspace(begin(files).task.id)
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    workspace.write_log(b"x")
    workspace.report_progress(0.5, "x")
    workspace.report_progress(float("nan"), "x")


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"fraction": 1, "message": 5, "at": 1.5}',
        b'{"fraction": "1", "message": "x", "at": 1.5}',
        b'{"fraction": 1, "message": "x", "at": "now"}',
        b'{"fraction": 1, "message": "x", "at": 1e300}',
        b'{"fraction": 1, "message": "x", "at": 1e999}',
        b"[" * 100_000,
    ],
)
def test_a_progress_file_that_a_tool_has_spoilt_is_no_progress(files: TaskStore, root: Path, found: bytes) -> None:
    (root / "progress" / f"{ID}.json").write_bytes(found)
    assert files.read_progress(ID) is None


def test_a_catalogue_that_has_not_changed_is_not_written_again(files: TaskStore, root: Path) -> None:
    files.publish_catalogue({"tools": {}})
    before = (root / "catalogue").stat()
    files.publish_catalogue({"tools": {}})
    assert before.st_ino == (root / "catalogue").stat().st_ino
    files.publish_catalogue({"tools": {"a": {}}})
    assert before.st_ino != (root / "catalogue").stat().st_ino


# --- two hosts ---

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
            store.announce(claim)
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
    assert sorted(ids) == sorted(task_id or "" for task_id in notices(files))
    assert {0} == {racer.returncode for racer in racers.values()}


def test_a_task_that_moves_on_while_it_is_looked_for_is_found(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for in done and running, a task is still pending; looked for in pending, it is already running."""
    # given a claim that comes between
    task = files.submit("image_gen", "3d")
    look = DirectoryRecords.pending

    def look_too_late(records: DirectoryRecords, task_id: str) -> Task:
        with monkeypatch.context() as patch:
            patch.setattr(DirectoryRecords, "pending", look)
            own(files, task_id)
        return look(records, task_id)

    monkeypatch.setattr(DirectoryRecords, "pending", look_too_late)

    # then
    assert State.RUNNING is files.get(task.id).state


@pytest.mark.parametrize("moved", ["finished", "released"])
def test_a_wish_to_cancel_that_comes_as_the_task_moves_on_is_right_either_way(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    # given a task whose owner is done with it just as the mark is made
    claim = begin(files)
    touch = fs_files.touch

    def touch_too_late(path: str) -> None:
        if moved == "finished":
            files.finish(claim, Event.COMPLETE)
        else:
            files.release(claim)
        touch(path)

    # when
    monkeypatch.setattr(fs_files, "touch", touch_too_late)
    task = files.request_cancel(claim.task.id)

    # then
    expected = Outcome.COMPLETED if moved == "finished" else Outcome.CANCELLED
    assert (expected, {f"done/{task.id}.json"}) == (task.outcome, tree(root))


def test_a_pending_record_that_its_submitter_took_back_is_gone(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one that vanishes between the look and the claim
    task = files.submit("image_gen", "3d")
    link = os.link

    def link_too_late(source: str, target: str, **options: bool) -> None:
        os.unlink(source)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", link_too_late)

    # then
    assert files.claim(task.id) is None
    with pytest.raises(TaskNotFoundError):
        files.get(task.id)


def test_after_a_power_cut_the_views_of_our_tasks_are_mended_and_those_of_others_left_alone(
    files: TaskStore, root: Path
) -> None:
    # given a view that is torn, one that says that a pending task runs, one of a pruned task, and one that another
    # program made
    done = files.finish(begin(files), Event.COMPLETE)
    waiting = files.submit("image_gen", "3d")
    ids = (done.id, waiting.id, "e" * 12, "f" * 12)
    torn, old, pruned, foreign = (Path(files.layout.view(task_id)) for task_id in ids)
    pruned.write_bytes((root / "done" / f"{done.id}.json").read_bytes())
    torn.unlink()
    torn.write_bytes(b'{"task')
    old.write_text('{"status": "running"}')
    foreign.write_text('{"status": "running", "task_id": "' + "f" * 12 + '"}')

    # when the machine has been started anew
    Path(files.layout.boot).unlink(missing_ok=True)
    TaskStore(files.layout.anima, durability="process").recover()

    # then
    assert torn.samefile(root / "done" / f"{done.id}.json")
    assert not old.exists()
    assert not pruned.exists()
    assert foreign.exists()
