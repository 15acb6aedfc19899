"""Looking at the store: what others wrote there, and what cannot be read or looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from animaworks_tasks import (
    Cause,
    MemoryTaskStore,
    Store,
    Task,
    TaskStore,
)
from animaworks_tasks.tools.catalogue import known_tools
from tests.executor.workshop import SELDOM, Workshop, executor_of, plain_record
from tests.processes import PATIENCE, until


def test_a_record_written_by_hand_is_found_by_the_next_look(files: TaskStore, workshop: Workshop) -> None:
    executor = executor_of(files, workshop, scan_interval=0.02).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    plain_record(files, "0123456789ab")
    until(lambda: workshop.calls)
    assert "by hand" == executor.wait_sync("0123456789ab", timeout=PATIENCE).result
    executor.stop()


def test_a_submit_elsewhere_rings_and_is_run_at_once(store: Store, workshop: Workshop) -> None:
    # given a host that would look in an hour
    executor = executor_of(store, workshop, scan_interval=SELDOM).start()
    executor.run_until_idle_sync(timeout=PATIENCE)

    # when
    task = store.submit("tool", "echo", "rung for")

    # then
    assert "rung for" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()


def test_a_record_that_cannot_be_read_ends_rejected_and_the_queue_goes_on(files: TaskStore, workshop: Workshop) -> None:
    # given one that is old enough not to be half written
    path = plain_record(files, "0123456789ab", "{")
    os.utime(path, (0, 0))
    ended: list[Task] = []

    # when
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    task = executor.submit_sync("tool", "echo", "it")
    executor.wait_sync(task.id, timeout=PATIENCE)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert Cause.REJECTED is files.get("0123456789ab").cause
    assert sorted(["0123456789ab", task.id]) == sorted(each.id for each in ended)


def test_a_record_that_is_still_being_written_is_given_time(files: TaskStore, workshop: Workshop) -> None:
    # given
    path = plain_record(files, "0123456789ab", '{"task_id": ')
    executor = executor_of(files, workshop, scan_interval=0.02).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    assert path.exists()

    # when
    plain_record(files, "0123456789ab")

    # then
    until(lambda: workshop.calls)
    assert "by hand" == executor.wait_sync("0123456789ab", timeout=PATIENCE).result
    executor.stop()


@pytest.mark.parametrize(
    ("error", "said"), [(OSError(5, "Input/output error"), ": [Errno 5]"), (ZeroDivisionError("odd"), "\nTraceback")]
)
def test_a_task_that_cannot_be_looked_at_does_not_stop_the_queue(
    files: TaskStore,
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    said: str,
) -> None:
    # given
    pending = files.pending

    def broken(task_id: str) -> Task | None:
        if task_id == "0123456789ab":
            raise error
        return pending(task_id)

    monkeypatch.setattr(files, "pending", broken)
    plain_record(files, "0123456789ab")
    executor = executor_of(files, workshop, scan_interval=0.02).start()

    # when
    tasks = [executor.submit_sync("tool", "echo", word) for word in "ab"]

    # then
    for task in tasks:
        executor.wait_sync(task.id, timeout=PATIENCE)
    executor.stop()
    assert f"task 0123456789ab cannot be looked at, trying again{said}" in caplog.text


def test_a_catalogue_that_cannot_be_written_does_not_stop_the_queue(
    files: TaskStore, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    # given something else where the catalogue belongs
    Path(files.layout.catalogue).mkdir()
    executor = executor_of(files, workshop, scan_interval=0.02).start()
    task = executor.submit_sync("tool", "echo", "it")
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    assert "the catalogue of tools could not be published" in caplog.text

    # when it is mended
    Path(files.layout.catalogue).rmdir()

    # then
    until(lambda: known_tools(files.layout))
    executor.stop()


def test_a_look_that_fails_is_logged_and_the_next_one_works(
    memory: MemoryTaskStore,
    workshop: Workshop,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._PAUSE_AFTER_ERROR", 0.01)

    def broken() -> set[str]:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(memory, "pending_ids", broken)
        executor = executor_of(memory, workshop, scan_interval=0.01).start()
        until(lambda: "a look at memory failed" in caplog.text)

    # then
    task = executor.submit_sync("tool", "echo", "it")
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()
