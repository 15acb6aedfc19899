"""What the kernel reports to an executor: with looks an hour apart, it sees at once what anybody does to its store."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from animaworks_tasks import Executor, Task, TaskStore
from animaworks_tasks.executor.seen import ELSEWHERE
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.store.protocol import Changes
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.store.watch import DirectoryWatch
from animaworks_tasks.task.states import Event
from tests.conftest import own
from tests.executor.workshop import SELDOM, Workshop, executor_of, plain_record, seen
from tests.processes import PATIENCE, until

Two = tuple[Executor, Executor, list[str], list[str]]


@pytest.fixture
def two(files: TaskStore, workshop: Workshop) -> Iterator[Two]:
    """Two hosts of one store, as in two processes, and the ids of the tasks whose end each has reported."""
    ended: tuple[list[str], list[str]] = ([], [])
    stores = files, TaskStore(files.location, language="en", durability="process")
    executors = [
        executor_of(
            store, workshop, scan_interval=SELDOM, on_finish=lambda task, reported=reported: reported.append(task.id)
        ).start()
        for store, reported in zip(stores, ended, strict=True)
    ]
    for executor in executors:
        executor.run_until_idle_sync(timeout=PATIENCE)  # their first looks are over
    yield executors[0], executors[1], *ended
    for executor in executors:
        executor.stop()


def test_a_submit_by_one_of_two_executors_is_run_and_its_end_is_seen_by_both(two: Two, workshop: Workshop) -> None:
    one, other, _, _ = two
    for executor in (one, other):
        task = executor.submit_sync("tool", "echo", "words")
        assert ["words", "words"] == [each.wait_sync(task.id, timeout=PATIENCE).result for each in (one, other)]
    assert ["words", "words"] == workshop.calls


def test_what_a_shell_submits_is_run_at_once(two: Two, files: TaskStore) -> None:
    command = [sys.executable, "-m", "animaworks_tasks", "submit", "tool", "echo", "typed"]
    environment = {**os.environ, "ANIMAWORKS_ANIMA_DIR": files.location}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    [task_id] = [task.id for task in files.list()]
    assert ["typed", "typed"] == [each.wait_sync(task_id, timeout=PATIENCE).result for each in two[:2]]


def test_a_plain_write_is_run_at_once(two: Two, files: TaskStore) -> None:
    plain_record(files, "0123456789ab")
    assert ["by hand", "by hand"] == [each.wait_sync("0123456789ab", timeout=PATIENCE).result for each in two[:2]]


def test_a_record_that_is_still_being_written_is_run_once_it_is_closed(two: Two, files: TaskStore) -> None:
    # given
    path = plain_record(files, "0123456789ab", text="")
    whole = plain_record(files, "ba9876543210").read_text().replace("ba9876543210", "0123456789ab")
    # when
    with path.open("w") as file:
        file.write(whole[:50])
        file.flush()
        file.write(whole[50:])
    # then
    assert "by hand" == two[0].wait_sync("0123456789ab", timeout=PATIENCE).result


def test_an_end_that_another_process_records_is_seen_by_all(two: Two, files: TaskStore) -> None:
    # given a claim of a task that no executor starts
    claim = own(files, files.submit("image_gen", "3d", not_before=utc_now() + timedelta(hours=1)).id)
    until(lambda: all(seen(executor, *ELSEWHERE) for executor in two[:2]))
    # when
    done = files.finish(claim, Event.COMPLETE, result="made there")
    # then
    until(lambda: [done.id] == two[2] == two[3])


DIES = """
import os, signal, sys
from animaworks_tasks import TaskStore
claim = TaskStore(sys.argv[1], durability="process").claim(sys.argv[2])
sys.stdout.write("owned")
sys.stdout.flush()
signal.pause()
"""


def test_an_owner_that_dies_is_recovered_by_any_executor(files: TaskStore, workshop: Workshop) -> None:
    # given a process that owns a task, and a host that has seen that
    task = files.submit("tool", "again")
    owner = subprocess.Popen([sys.executable, "-c", DIES, files.location, task.id], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert b"owned" == owner.stdout.read(5)
    executor = executor_of(files, workshop, scan_interval=SELDOM).start()
    until(lambda: seen(executor, *ELSEWHERE))
    # when
    owner.kill()
    # then
    assert "2" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()
    owner.wait()
    owner.stdout.close()


def test_a_directory_that_is_made_again_is_watched_again(files: TaskStore, workshop: Workshop) -> None:
    # given a host, of whose store somebody takes a directory away and makes it anew
    executor = executor_of(files, workshop, scan_interval=0.02).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    shutil.rmtree(files.layout.pending)
    os.mkdir(files.layout.pending)
    # then
    ended: list[Task] = [
        executor.wait_sync(files.submit("tool", "echo", word).id, timeout=PATIENCE) for word in ("one", "two")
    ]
    assert ["one", "two"] == [task.result for task in ended]
    executor.stop()


def test_where_the_kernel_cannot_watch_it_is_said_once_and_looks_go_on(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    wait = DirectoryWatch.wait
    monkeypatch.setattr(DirectoryWatch, "problem", "the kernel's watches are used up")
    monkeypatch.setattr(DirectoryWatch, "wait", lambda watch, timeout: (wait(watch, timeout), Changes())[1])
    # when
    with caplog.at_level(logging.WARNING):
        executor = executor_of(files, workshop, scan_interval=0.02).start()
        for word in ("one", "two"):
            executor.wait_sync(files.submit("tool", "echo", word).id, timeout=PATIENCE)
        executor.stop()
    # then
    assert ["the kernel's watches are used up: changes are seen every 0.02 s only"] == caplog.messages


def test_a_claim_that_the_disk_refuses_is_tried_again_at_the_next_look_and_wakes_nobody(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened for the claim is closed again, and that is an event: to follow it would be to spin."""
    # given
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._SOON", 0.1)
    tries: list[float] = []

    def full(_disk: Disk, step: str, *_: object) -> bool:
        if step == "claim.link":
            tries.append(time.monotonic())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    executor = executor_of(files, workshop, scan_interval=SELDOM).start()
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "link_held", full)
        # when
        task = files.submit("tool", "echo", "at last")
        until(lambda: len(tries) >= 3)
    # then
    assert "at last" == executor.wait_sync(task.id, timeout=PATIENCE).result
    assert min(later - earlier for earlier, later in itertools.pairwise(tries)) >= 0.1
    executor.stop()


def test_a_look_wakes_nobody(files: TaskStore) -> None:
    """An open for writing is an event at its close: what is not to be claimed now is looked at without."""
    # given a task that is not due, one that runs, and one that cannot be read
    later = files.submit("tool", "echo", "later", not_before=utc_now() + timedelta(hours=1))
    claim = own(files, files.submit("image_gen", "3d").id)
    plain_record(files, "0123456789ab", text="{")
    watch = files.watch()
    # when
    assert 2 == len(files.list())
    assert later == files.pending(later.id)
    assert (claim.task.id,) == files.recover().alive
    assert [None, None] == [files.claim(each, due_by=utc_now()) for each in (later.id, "0123456789ab")]
    # then
    assert Changes() == watch.wait(0)
    watch.close()
