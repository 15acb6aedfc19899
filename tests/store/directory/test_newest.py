"""Which records are the newest, by the times of their files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animaworks_tasks.store.place import newest, times

LONG_AGO = 10**18  # nanoseconds
SECOND = 10**9


def write(directory: Path, number: int, at: int) -> None:
    path = directory / f"{number:012x}.task"
    path.touch()
    os.utime(path, ns=(LONG_AGO + at, LONG_AGO + at))


def ids(directory: Path, limit: int) -> set[int]:
    return {int(task_id, 16) for task_id in newest(str(directory), ".task", limit)}


@given(ages=st.lists(st.integers(0, 10**6), unique=True, max_size=30), limit=st.integers(0, 40))
def test_the_newest_are_those_that_changed_last(
    tmp_path_factory: pytest.TempPathFactory, ages: list[int], limit: int
) -> None:
    directory = tmp_path_factory.mktemp("done")
    for number, age in enumerate(ages):
        write(directory, number, -age * SECOND)
    assert set(sorted(range(len(ages)), key=ages.__getitem__)[:limit]) == ids(directory, limit)


def test_what_is_no_record_takes_nobodys_place(tmp_path: Path) -> None:
    write(tmp_path, 1, 1)
    for name in ("notes.task", ".hidden", "000000000002.task.tmp", "000000000003.json", ".task", "000000000004"):
        (tmp_path / name).touch()
    assert {1} == ids(tmp_path, 1) == ids(tmp_path, 5)
    assert [(LONG_AGO + 1, f"{1:012x}")] == list(times(str(tmp_path), ".task"))


def test_what_is_as_good_as_equally_old_as_the_last_one_is_returned_too(tmp_path: Path) -> None:
    """The time of a file is no finer than the kernel's tick, in which many tasks can end."""
    for number in range(5):
        write(tmp_path, number, -number * 10**6)
    write(tmp_path, 9, -SECOND)
    assert {0, 1, 2, 3, 4} == ids(tmp_path, 2)
    assert {0, 1, 2, 3, 4, 9} == ids(tmp_path, 6)


def test_a_record_that_moves_on_as_it_is_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    write(tmp_path, 1, 1)
    write(tmp_path, 2, 2)
    found = times(str(tmp_path), ".task")
    scandir = os.scandir

    def scan_too_late(path: str) -> object:
        entries = list(scandir(path))
        (tmp_path / f"{1:012x}.task").unlink()
        return contextlib.nullcontext(entries)

    monkeypatch.setattr(os, "scandir", scan_too_late)

    # then
    assert {f"{2:012x}"} == {task_id for _, task_id in found}
