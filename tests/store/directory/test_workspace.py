"""What belongs to a task besides its record, as files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from animaworks_tasks import TaskStore
from tests.conftest import begin
from tests.store.directory.conftest import ID


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
