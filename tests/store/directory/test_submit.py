"""Submitting to a store of files, on a disk that does not take everything."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from animaworks_tasks import TaskStore
from animaworks_tasks.errors import PartlySubmittedError, RecordError
from tests.store.directory.conftest import failing_at


@pytest.fixture(params=["process", "full"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> TaskStore:
    return TaskStore(tmp_path / "mei", durability=request.param)


def test_of_many_that_the_disk_did_not_take_none_is_kept(store: TaskStore) -> None:
    with pytest.MonkeyPatch.context() as patch:
        failing_at(patch, "write", 3)
        with pytest.raises(OSError, match="No space left"):
            store.submit_many("tool", [["echo", str(number)] for number in range(5)])
    assert set() == store.pending_ids()
    assert [] == os.listdir(store.layout.tmp)


def test_of_many_of_which_one_cannot_be_stored_none_is_kept(store: TaskStore) -> None:
    with pytest.raises(RecordError, match="it is larger than"):
        store.submit_many("tool", [["echo", "x" * size] for size in [*range(50), 1 << 20, 1]])
    assert set() == store.pending_ids()
    assert [] == os.listdir(store.layout.tmp)


def test_of_many_that_the_disk_took_half_way_those_that_it_took_are_named(store: TaskStore) -> None:
    with pytest.MonkeyPatch.context() as patch:
        failing_at(patch, "link", 3)
        with pytest.raises(
            PartlySubmittedError, match=r"only the first 2 tasks were submitted.*No space left"
        ) as caught:
            store.submit_many("tool", [["echo", str(number)] for number in range(5)])
    assert set(caught.value.submitted) == store.pending_ids()
    assert [("echo", "0"), ("echo", "1")] == [store.get(task_id).argv for task_id in caught.value.submitted]
    assert [] == os.listdir(store.layout.tmp)


def test_of_many_that_the_disk_took_and_did_not_link_none_is_kept_and_none_is_named(store: TaskStore) -> None:
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
