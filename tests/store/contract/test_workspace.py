"""What every store promises of what belongs to a task besides its record."""

from __future__ import annotations

from animaworks_tasks import (
    Store,
)
from animaworks_tasks.store.protocol import Progress
from animaworks_tasks.task.states import Event
from tests.conftest import begin


def test_a_log_grows_as_it_is_written(store: Store) -> None:
    claim = begin(store)
    workspace = store.workspace(claim.task.id)
    assert b"" == store.read_log(claim.task.id)
    workspace.write_log(b"one\n")
    store.workspace(claim.task.id).write_log(b"\xff two\n")
    assert b"one\n\xff two\n" == store.read_log(claim.task.id)


def test_the_last_progress_report_counts(store: Store) -> None:
    claim = begin(store)
    workspace = store.workspace(claim.task.id)
    assert store.read_progress(claim.task.id) is None
    workspace.report_progress(0.25, "meshing")
    workspace.report_progress(None, "テクスチャ")
    progress = store.read_progress(claim.task.id)
    assert isinstance(progress, Progress)
    assert (None, "テクスチャ") == (progress.fraction, progress.message)
    workspace.report_progress(1, "done")
    progress = store.read_progress(claim.task.id)
    assert progress is not None
    assert (1.0, "done") == (progress.fraction, progress.message)


def test_a_large_result_is_kept_beside_the_record_the_last_attempt_counting(store: Store) -> None:
    claim = begin(store)
    workspace = store.workspace(claim.task.id)
    first = workspace.keep_result(b"of the first attempt")
    second = workspace.keep_result(b"x" * 2_000_000)
    assert first == second
    done = store.finish(claim, Event.COMPLETE, result="xxx", result_file=second)
    assert second == store.get(done.id).result_file


def test_a_task_has_a_scratch_directory_of_its_own(store: Store) -> None:
    one, other = store.workspace(begin(store).task.id), store.workspace(begin(store).task.id)
    (one.scratch() / "notes").write_text("kept")
    assert "kept" == (one.scratch() / "notes").read_text()
    assert not (other.scratch() / "notes").exists()
