"""What a watch of a directory store sees of other processes, and that others see by it that a host is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks import Outcome, TaskStore
from animaworks_tasks.fs import locks
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.store.protocol import Changes
from animaworks_tasks.store.watch import DirectoryWatch, is_hosted
from animaworks_tasks.task.states import Event
from tests.conftest import begin, own
from tests.processes import PATIENCE, until
from tests.store.directory.conftest import ID, plain


@pytest.fixture
def watch(files: TaskStore) -> Iterator[DirectoryWatch]:
    watch = files.watch()
    yield watch
    watch.close()


OTHER: Final = """
import os, sys
from animaworks_tasks import TaskStore
from animaworks_tasks.task.states import Event
from tests.conftest import own

def written_slowly(path):
    whole = sys.argv[3].encode()
    with open(path, "wb", buffering=0) as file:
        file.write(whole[:20])
        print("half", flush=True)
        sys.stdin.readline()
        file.write(whole[20:])

def finished_slowly(task_id):
    claim = own(store, task_id)
    print("claimed", flush=True)
    sys.stdin.readline()
    store.finish(claim, Event.COMPLETE, result="elsewhere")

store = TaskStore(sys.argv[1], durability="process")
print("ready", flush=True)
sys.stdin.readline()
{
    "submit": lambda: print(store.submit("image_gen", "3d").id, flush=True),
    "cancel": lambda: store.request_cancel(sys.argv[3]),
    "own": lambda: (own(store, sys.argv[3]), print("claimed", flush=True), sys.stdin.readline()),
    "finish": lambda: finished_slowly(sys.argv[3]),
    "write": lambda: written_slowly(store.layout.pending_record("0123456789ab")),
}[sys.argv[2]]()
"""


class Other:
    """Another process, which does one thing to the store on request."""

    def __init__(self, files: TaskStore, *what: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, files.location, *what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "ready" == self.said()

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.communicate()
        assert 0 == self.process.returncode


def sees(watch: DirectoryWatch, task_id: str, condition: Callable[[], object] = lambda: True) -> bool:
    """Wait until the watch sees *task_id*, and something is true then; every wait ends because something was seen."""
    for _ in range(1000):
        seen = watch.wait(PATIENCE)
        if not seen.ids:
            return False
        if task_id in seen.ids and condition():
            return True
    return False


def quiet(watch: DirectoryWatch) -> None:
    while watch.wait(0).ids:
        pass


def test_a_submit_of_another_process_is_seen(files: TaskStore, watch: DirectoryWatch) -> None:
    other = Other(files, "submit")
    other.go()
    task_id = other.said()
    assert sees(watch, task_id)
    assert files.pending(task_id) is not None
    other.end()


def test_a_plain_write_is_seen_when_it_is_whole(files: TaskStore, watch: DirectoryWatch) -> None:
    # given somebody who writes slowly
    other = Other(files, "write", json.dumps(plain()))
    other.go()
    assert "half" == other.said()
    quiet(watch)

    # when
    other.go()

    # then
    assert sees(watch, ID, lambda: own(files, ID))
    other.end()


@pytest.mark.parametrize("how", ["in place", "renamed over it"])
def test_a_record_that_is_changed_while_it_waits_is_seen(root: Path, watch: DirectoryWatch, how: str) -> None:
    path = root / f"pending/{ID}.json"
    path.write_text(json.dumps(plain()))
    quiet(watch)
    other = path if how == "in place" else root / "tmp/other"
    other.write_text(json.dumps(plain(raw_args=["corrected"])))
    other.replace(path)
    assert sees(watch, ID)


def test_the_end_of_a_task_in_another_process_is_seen(files: TaskStore, watch: DirectoryWatch) -> None:
    # given
    task = files.submit("image_gen", "3d")
    other = Other(files, "finish", task.id)
    other.go()
    assert "claimed" == other.said()
    quiet(watch)

    # when
    other.go()

    # then, and that its owner has released it
    assert sees(watch, task.id, lambda: files.get(task.id).outcome is Outcome.COMPLETED and not files.runs(task.id))
    other.end()


def test_a_cancellation_request_of_another_process_is_seen(files: TaskStore, watch: DirectoryWatch) -> None:
    # given
    claim = begin(files)
    other = Other(files, "cancel", claim.task.id)
    quiet(watch)

    # when
    other.go()

    # then
    assert sees(watch, claim.task.id, files.workspace(claim.task.id).cancel_requested)
    other.end()


def test_the_death_of_an_owner_is_seen_and_its_task_recovered(files: TaskStore, watch: DirectoryWatch) -> None:
    # given
    task = files.submit("image_gen", "3d")
    other = Other(files, "own", task.id)
    other.go()
    assert "claimed" == other.said()
    assert (task.id,) == files.recover().alive
    quiet(watch)

    # when
    other.process.kill()

    # then the kernel may report it a moment before it frees the lock
    assert sees(watch, task.id)
    until(lambda: files.recover().finished)
    assert Outcome.FAILED is files.get(task.id).outcome
    other.process.communicate()


def test_who_looks_and_does_not_claim_wakes_nobody(files: TaskStore, watch: DirectoryWatch) -> None:
    # given a task that is not due, one that runs, and one that has ended
    task = files.submit("image_gen", "3d", not_before=files.place.clock())
    claim, done = begin(files), files.finish(begin(files), Event.COMPLETE)
    assert task.not_before is not None
    quiet(watch)

    # when
    for task_id in (task.id, claim.task.id, done.id):
        files.get(task_id)
        files.pending(task_id)
        assert files.claim(task_id, due_by=task.not_before.replace(year=2000)) is None
    files.list()
    files.recover()
    files.submit("image_gen", "3d", key="mei")
    quiet(watch)
    files.submit("image_gen", "3d", key="mei")

    # then
    assert Changes() == watch.wait(0)


def test_what_is_no_task_is_not_reported(files: TaskStore, root: Path, watch: DirectoryWatch) -> None:
    for name in ("pending/notes.json", "pending/.hidden", "done/x.task"):
        (root / name).touch()
    assert frozenset() == watch.wait(PATIENCE).ids
    assert files.submit("image_gen", "3d").id in watch.wait(PATIENCE).ids


def test_a_directory_that_is_removed_and_made_anew_is_watched_again(
    files: TaskStore, root: Path, watch: DirectoryWatch
) -> None:
    # given
    for name in ("pending", "running"):
        shutil.rmtree(root / name)
    assert watch.wait(PATIENCE).incomplete
    for _ in range(2):
        watch.refresh()
        assert "does not exist" in (watch.problem or "")
        assert not is_hosted(files.layout)

    # when
    TaskStore(files.location, durability="process")
    watch.refresh()

    # then
    assert watch.problem is None
    assert is_hosted(files.layout)
    quiet(watch)
    assert sees(watch, files.submit("image_gen", "3d").id)


# --- whether a host is there ---


def test_a_store_is_hosted_while_a_watch_is_open(files: TaskStore) -> None:
    assert not is_hosted(files.layout)
    first, second = files.watch(), files.watch()
    assert is_hosted(files.layout)
    first.close()
    assert is_hosted(files.layout)
    second.close()
    assert not is_hosted(files.layout)
    second.close()


HOST: Final = """
import sys
from animaworks_tasks import TaskStore
watch = TaskStore(sys.argv[1], durability="process").watch()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_store_is_not_hosted_any_more_when_its_host_was_killed(files: TaskStore) -> None:
    host = subprocess.Popen([sys.executable, "-c", HOST, files.location], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with host:
        assert host.stdout is not None
        assert b"ready\n" == host.stdout.readline()
        assert is_hosted(files.layout)
        host.kill()
    assert not is_hosted(files.layout)


def test_a_place_without_a_store_is_not_hosted_and_none_is_made(tmp_path: Path) -> None:
    assert not is_hosted(Layout(tmp_path / "mei"))
    assert [] == os.listdir(tmp_path)


def test_a_host_that_starts_as_somebody_asks_is_there_from_its_next_look_on(files: TaskStore) -> None:
    # given somebody who asks, and has the lock for a moment
    asking = locks.hold_directory(files.layout.running)
    assert asking is not None
    watch = files.watch()
    asking.release()

    # when
    watch.refresh()

    # then
    assert is_hosted(files.layout)
    watch.close()


def test_two_that_ask_at_once_do_not_take_each_other_for_a_host(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one that asks while another one has the lock for that
    hold = locks.hold_directory
    others: list[Future[bool]] = []

    def hold_for_long(path: str, *, shared: bool = False) -> locks.Lock | None:
        lock = hold(path, shared=shared)
        monkeypatch.undo()
        others.append(pool.submit(is_hosted, files.layout))
        wait(others, timeout=0.2)  # it waits for us; if it does not, it is done within this
        return lock

    # then
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(locks, "hold_directory", hold_for_long)
        assert not is_hosted(files.layout)
        assert not others[0].result(PATIENCE)


def test_a_watch_that_is_closed_is_no_host_though_it_is_refreshed(files: TaskStore) -> None:
    watch = files.watch()
    watch.close()
    watch.refresh()
    assert not is_hosted(files.layout)
