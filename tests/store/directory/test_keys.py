"""``keys/``: which task was submitted first with a key, if any of them died, and however many submit it at once."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event as Signal
from typing import Final

import pytest

from animaworks_tasks import TaskStore
from animaworks_tasks.errors import PartlySubmittedError
from animaworks_tasks.fs import locks
from animaworks_tasks.task.pending import digest
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin
from tests.processes import PATIENCE
from tests.store.directory.conftest import before, full, synced, tree


@pytest.fixture
def entry(root: Path) -> Path:
    """Return where the key of these tests stands in the index."""
    return root / "keys" / digest("mei")


def submit(files: TaskStore) -> str:
    return files.submit("image_gen", "3d", key="mei").id


def test_an_entry_is_another_name_of_the_record_that_was_submitted(files: TaskStore, root: Path, entry: Path) -> None:
    task_id = submit(files)
    assert [entry] == list((root / "keys").iterdir())
    assert entry.samefile(root / f"pending/{task_id}.json")
    assert files.submit("image_gen", "3d").id != task_id
    assert [entry] == list((root / "keys").iterdir()), "a task without a key has no entry"


def test_an_entry_is_durable_before_its_task_can_be_found(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that finds the task pending after a power cut cannot miss its key."""
    # given
    files = TaskStore(tmp_path / "mei", clock=clock)

    # when
    paths = synced(monkeypatch)
    steps = before(monkeypatch, "submit.link", lambda: paths.append("linked"))
    submit(files)

    # then
    assert ["submit.write", "submit.link-key", "submit.sync-keys", "submit.link", "submit.sync"] == steps
    assert [files.layout.keys, "linked", files.layout.pending] == paths


@pytest.mark.parametrize("place", ["pending", "running", "done"])
def test_a_task_that_is_there_is_made_durable_where_it_lies_before_its_id_is_given_again(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Who put it there may not have come to that."""
    # given
    files = TaskStore(tmp_path / "mei", clock=clock)
    task_id = submit(files)
    if place != "pending":
        claim = files.claim(task_id)
        assert claim is not None
        if place == "done":
            files.finish(claim, Event.COMPLETE)

    # when
    paths = synced(monkeypatch)
    assert task_id == submit(files)

    # then
    assert [getattr(files.layout, place)] == paths


@pytest.mark.parametrize("sweeps", [False, True])
def test_an_entry_whose_submitter_died_before_its_task_was_pending_is_dropped(
    files: TaskStore, root: Path, entry: Path, monkeypatch: pytest.MonkeyPatch, *, sweeps: bool
) -> None:
    """Nothing was acknowledged then, and nobody would ever run it."""
    # given
    with monkeypatch.context() as patch:
        before(patch, "submit.link", full)
        with pytest.raises(OSError, match="No space left"):
            submit(files)
    assert (True, set(), []) == (entry.exists(), tree(root), os.listdir(root / "tmp"))

    # when
    if sweeps:
        files.sweep()
        assert not entry.exists()
    task_id = submit(files)

    # then
    assert entry.samefile(root / f"pending/{task_id}.json")
    assert (task_id, {task_id}) == (submit(files), files.pending_ids())


@pytest.mark.parametrize(
    ("step", "queued"), [("submit.write", False), ("submit.link-key", False), ("submit.sync", True)]
)
def test_a_submit_with_a_key_that_the_disk_refuses_is_queued_or_says_that_it_is_not(
    files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch, step: str, *, queued: bool
) -> None:
    # when
    with monkeypatch.context() as patch:
        before(patch, step, full)
        with pytest.raises(OSError, match="No space left") as caught:
            submit(files)

    # then
    assert queued == isinstance(caught.value, PartlySubmittedError)
    if queued:
        assert isinstance(caught.value, PartlySubmittedError)
        assert files.pending_ids() == set(caught.value.submitted) == {submit(files)}
    assert {submit(files)} == files.pending_ids()
    assert [] == os.listdir(root / "tmp")


def test_two_that_submit_a_key_at_the_same_moment_get_the_same_task(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one that comes between the other's draft and its link
    ids: list[str] = []
    with monkeypatch.context() as patch:
        before(patch, "submit.link-key", lambda: ids.append(submit(files)))
        ids.append(submit(files))

    # then
    assert (1, set(ids)) == (len(set(ids)), files.pending_ids())


def test_nobody_drops_an_entry_whose_task_is_just_about_to_be_pending(
    files: TaskStore, entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a sweep that begins between the two links of a submit
    swept = Signal()

    def sweep() -> None:
        files.sweep()
        swept.set()

    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:

            def sweep_meanwhile() -> None:
                sweeping.append(pool.submit(sweep))
                assert locks.hold_directory(files.layout.keys) is None, "it has to wait"

            sweeping: list[object] = []
            before(patch, "submit.link", sweep_meanwhile)
            task_id = submit(files)
        assert swept.wait(PATIENCE)

    # then
    assert (task_id, True) == (submit(files), entry.exists())


@pytest.mark.parametrize("found", [b"", b"{", b"[]", b'{"task_id": 5}', b"\xff", None])
def test_an_entry_that_cannot_be_read_is_dropped(
    files: TaskStore, root: Path, entry: Path, found: bytes | None
) -> None:
    for sweeps in (True, False):
        # given
        entry.write_bytes(found) if found is not None else entry.symlink_to("nowhere")

        # then
        if sweeps:
            files.sweep()
            assert [] == os.listdir(root / "keys")
        else:
            task_id = submit(files)
            assert entry.samefile(root / f"pending/{task_id}.json")


def test_a_directory_in_the_place_of_an_entry_does_not_keep_the_key_from_being_used(
    files: TaskStore, root: Path, entry: Path
) -> None:
    entry.mkdir()
    (entry / "inside").touch()
    assert {submit(files)} == files.pending_ids() == {submit(files)}
    assert [entry.name] == os.listdir(root / "keys")


def test_a_keyed_task_that_moves_on_while_it_is_looked_for_is_found(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for in the order in which it moves on, so it is met."""
    # given a claim that comes between two looks
    task_id = submit(files)
    lexists = os.path.lexists

    def look_too_late(path: str) -> bool:
        if path == files.layout.pending_record(task_id):
            with monkeypatch.context() as patch:
                patch.setattr(os.path, "lexists", lexists)
                assert files.claim(task_id) is not None
        return lexists(path)

    # then
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "lexists", look_too_late)
        assert task_id == submit(files)


def test_an_entry_goes_with_its_task(files: TaskStore, root: Path, clock: ManualClock) -> None:
    # given two that have ended, one of them read
    for key in ("mei", "kaede"):
        files.finish(begin(files, key=key), Event.COMPLETE)
        clock.advance(1)
    [done] = [task for task in files.list() if task.key == "mei"]
    files.notifications.acknowledge(n for n in files.notifications.peek() if n.task_id == done.id)

    # when
    assert [done.id] == files.prune(finished_before=clock.now)

    # then
    assert [digest("kaede")] == os.listdir(root / "keys")
    assert done.id != submit(files)


SUBMITTER: Final = """
import sys
from animaworks_tasks import TaskStore
store = TaskStore(sys.argv[1], durability="process")
print("ready", flush=True)
sys.stdin.readline()
print(*[store.submit("image_gen", "3d", key=f"key {number}").id for number in range(50)])
"""


def test_of_processes_that_submit_the_same_keys_at_once_all_get_the_same_tasks(files: TaskStore) -> None:
    # given
    submitters = [
        subprocess.Popen(
            [sys.executable, "-c", SUBMITTER, files.location], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for submitter in submitters:
        assert submitter.stdout is not None
        assert "ready\n" == submitter.stdout.readline()

    # when, while a host sweeps
    for submitter in submitters:
        assert submitter.stdin is not None
        submitter.stdin.write("go\n")
        submitter.stdin.flush()
    while any(submitter.poll() is None for submitter in submitters):
        files.sweep()
        if len(os.listdir(files.layout.keys)) == 50:
            break
    got = [submitter.communicate()[0].split() for submitter in submitters]

    # then
    assert got[0] == got[1] == got[2]
    assert (50, set(got[0])) == (len(set(got[0])), files.pending_ids())
