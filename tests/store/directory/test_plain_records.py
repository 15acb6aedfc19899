"""Records that anybody wrote into pending/ with a plain write: those that run, and those that are rejected."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Final

import attrs
import pytest

from animaworks_tasks import Cause, Outcome, TaskStore
from animaworks_tasks.errors import RecordError
from animaworks_tasks.task.states import Event
from tests.conftest import begin, own
from tests.store.directory.conftest import ID, notified, plain, ripen, tree


def test_a_record_of_eight_keys_written_plainly_runs(files: TaskStore, root: Path) -> None:
    # given
    (root / "pending" / f"{ID}.json").write_text(json.dumps(plain()))

    # then
    assert ({ID}, ["image_gen:3d"]) == (files.pending_ids(), [task.name for task in files.list()])
    claim = own(files, ID)
    assert (("3d", "メイ.png"), 1) == (claim.task.argv, claim.task.attempt)
    files.finish(claim, Event.COMPLETE)
    assert [ID] == notified(files)


def test_keys_that_we_do_not_know_stand_in_the_done_record(files: TaskStore, root: Path) -> None:
    (root / "pending" / f"{ID}.json").write_text(json.dumps(plain(trace={"span": 7}, result="early")))
    done = files.finish(own(files, ID), Event.COMPLETE, result="late")
    assert ("late", {"trace": {"span": 7}}) == (done.result, done.extra)
    assert {"span": 7} == json.loads((root / f"done/{ID}.task").read_bytes())["trace"]


@pytest.mark.parametrize("name", [ID, "cron-2026-01-01", "ABCDEF012345"])
def test_a_task_for_a_language_model_is_left_alone(files: TaskStore, root: Path, name: str) -> None:
    # given
    path = root / "pending" / f"{name}.json"
    path.write_text(json.dumps({"task_id": name, "task_type": "llm", "prompt": "掃除"}))
    ripen(path)

    # then
    assert files.claim(name) is None
    assert ((), ()) == (files.recover().finished, files.recover().requeued)
    assert ({f"pending/{name}.json"}, [], []) == (tree(root), notified(files), list(files.list()))


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

    # then it has ended, with a reason, and brought its notification
    done = files.get(ID)
    assert (Outcome.FAILED, Cause.REJECTED, 0) == (done.outcome, done.cause, done.attempt)
    assert done.error is not None
    if kind != "a name without end":  # whose reason is cut
        assert why in done.error
    assert f"pending/{ID}.json" in done.error
    assert f"quarantine/{ID}.json" in (done.hint or "")
    assert [ID] == notified(files)

    # and the file is kept as it was, beside a note that says why
    kept = root / "quarantine" / f"{ID}.json"
    assert (before.st_ino, before.st_size) == (kept.lstat().st_ino, kept.lstat().st_size)
    note = (root / "quarantine" / f"{ID}.json.why.txt").read_text()
    where, _, reason = done.error.partition(" is not a task record: ")
    assert f"it is not a task record: {where}: {reason}\n" == note
    assert {f"done/{ID}.task", f"quarantine/{ID}.json", f"quarantine/{ID}.json.why.txt"} == tree(root)

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
    assert ({f"pending/{ID}.json"}, [], []) == (tree(root), notified(files), list(files.list()))
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
    assert () == files.recover().finished, "not while it is young"
    ripen(path)

    # when
    [done] = files.recover().finished

    # then
    assert (Outcome.FAILED, Cause.REJECTED) == (done.outcome, done.cause)
    assert "its name is not 12 lowercase hex digits" in (done.error or "")
    assert [done.id] == notified(files)
    assert json.dumps(plain()) == (root / "quarantine" / f"{done.id}.json").read_text()
    assert () == files.recover().finished


@pytest.mark.parametrize("name", [".hidden.json", "notes.txt", f"{ID}.json.tmp", ID])
def test_what_does_not_end_in_json_is_nobodys_business(files: TaskStore, root: Path, name: str) -> None:
    (root / "pending" / name).write_text("x")
    ripen(root / "pending" / name)
    assert ((), (), ()) == attrs.astuple(files.recover())
    assert {f"pending/{name}"} == tree(root)


def test_a_second_bad_file_of_the_same_name_does_not_take_the_place_of_the_first(files: TaskStore, root: Path) -> None:
    for text in ("first", "second"):
        path = root / f"running/{ID}.task"
        path.write_text(text)
        files.recover()
    assert {"first", "second"} == {
        path.read_text() for path in (root / "quarantine").glob("*") if ".why" not in path.name
    }
    assert 2 == len(list((root / "quarantine").glob("*.why.txt")))


def test_a_record_that_may_only_be_read_runs_too(files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    path = root / "pending" / f"{ID}.json"
    path.write_text(json.dumps(plain()))
    path.chmod(0o400)
    real = os.open

    def open_as_others(name: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR and name == str(path):  # root may write everything
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return real(name, flags, *mode)

    monkeypatch.setattr(os, "open", open_as_others)

    # then
    claim = own(files, ID)
    assert (ID,) == files.recover().alive
    assert Outcome.COMPLETED is files.finish(claim, Event.COMPLETE).outcome
