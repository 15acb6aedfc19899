"""Which records are the newest: the same with what is remembered as without, whatever happened in between."""

from __future__ import annotations

import errno
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from animaworks_tasks import State, TaskStore
from animaworks_tasks.fs import files as disk
from animaworks_tasks.store import newest as newest_module
from animaworks_tasks.store.newest import aged, forget, newest
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin

LONG_AGO = 10**18  # nanoseconds
SECOND = 10**9


class Place:
    """A directory of records, and the file in which their times are remembered."""

    def __init__(self, path: Path) -> None:
        self.records, self.tmp, self.memory = path / "done", path / "tmp", path / "ages"
        self.records.mkdir()
        self.tmp.mkdir()
        self.changes = 0

    def write(self, number: int, at: int) -> None:
        path = self.records / f"{number:012x}.json"
        path.touch()
        os.utime(path, ns=(LONG_AGO + at * SECOND, LONG_AGO + at * SECOND))
        self._changed()

    def remove(self, number: int) -> None:
        (self.records / f"{number:012x}.json").unlink(missing_ok=True)
        self._changed()

    def _changed(self) -> None:
        """Give the directory a time that is long past, and another one after each change."""
        self.changes += 1
        os.utime(self.records, ns=(LONG_AGO + self.changes, LONG_AGO + self.changes))

    def newest(self, limit: int) -> list[int]:
        found = newest(str(self.records), limit, memory=str(self.memory), tmp=str(self.tmp))
        return [int(task_id, 16) for task_id in found]

    def truly_newest(self, limit: int) -> list[int]:
        return [int(task_id, 16) for _, task_id in sorted(aged(str(self.records)), reverse=True)[:limit]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(newest_module, "_WORTH_IT", 3)
    return Place(tmp_path)


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 30), st.integers(0, 10**6)),
        st.tuples(st.just("remove"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("look"), st.integers(1, 8), st.just(0)),
    ),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(changes=CHANGES)
def test_what_is_remembered_never_shows(
    changes: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest_module, "_WORTH_IT", 3)
    place = Place(tmp_path_factory.mktemp("place"))
    times: set[int] = set()
    for what, number, at in changes:
        if what == "write" and at not in times and not (place.records / f"{number:012x}.json").exists():
            forget(str(place.memory))  # as whoever takes a record away does: the name may have had another time
            times.add(at)
            place.write(number, at)
        elif what == "remove":
            place.remove(number)
        elif what == "look":
            assert place.truly_newest(number) == place.newest(number)


def test_an_unchanged_directory_is_not_even_listed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        place.write(number, number)
    assert [5, 4] == place.newest(2)
    monkeypatch.delattr(os, "listdir")
    assert [5, 4, 3] == place.newest(3)


def test_only_what_is_new_is_asked_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    for number in range(6):
        place.write(number, number)
    place.newest(1)
    place.write(7, 100)

    # when
    asked: list[str] = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: (asked.append(path), lstat(path))[1])

    # then
    assert [7, 5] == place.newest(2)
    assert [f"{place.records}/000000000007.json"] == asked


def test_a_directory_that_changed_a_moment_ago_is_listed_again(place: Place) -> None:
    """The next change may have the same time: the kernel's clock ticks."""
    # given
    for number in range(5):
        place.write(number, number)
    now = time.time_ns()
    os.utime(place.records, ns=(now, now))
    assert [4] == place.newest(1)

    # when
    place.write(9, 9)
    os.utime(place.records, ns=(now, now))

    # then
    assert [9] == place.newest(1)


@pytest.mark.parametrize("damage", [b"", b"\0" * 300, b"xx", None])
def test_what_is_torn_is_asked_for_again(place: Place, damage: bytes | None) -> None:
    for number in range(5):
        place.write(number, number)
    place.newest(1)
    whole = place.memory.read_bytes()
    place.memory.write_bytes(whole[:-8] if damage is None else damage)
    assert [4, 3] == place.newest(2)
    assert whole == place.memory.read_bytes()


def test_where_nothing_can_be_remembered_it_is_asked_for_each_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(disk, "replace", full)
    for number in range(5):
        place.write(number, number)
    assert [4, 3] == place.newest(2) == place.newest(2)
    assert not place.memory.exists()


def test_what_is_no_record_is_not_counted(place: Place) -> None:
    place.write(1, 1)
    for name in ("x.json", ".hidden", "000000000002.json.tmp"):
        (place.records / name).touch()
    assert [1] == place.newest(5)
    assert [] == place.newest(0)


def test_as_old_as_the_last_one_is_as_good(place: Place) -> None:
    for number in range(5):
        place.write(number, 7)
    assert {0, 1, 2, 3, 4} == set(place.newest(2)) == set(place.newest(2))


def test_a_key_that_is_used_again_after_a_prune_is_as_new_as_it_is(
    files: TaskStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(newest_module, "_WORTH_IT", 1)

    def done(key: str) -> str:
        clock.advance(60)
        return files.finish(begin(files, key=key), Event.COMPLETE).id

    first, second = done("first"), done("second")
    assert [second, first] == [task.id for task in files.list(State.DONE, limit=2)]
    with files.notifications.drain():
        pass

    # when the older one is pruned, and done again
    assert [first] == files.prune(finished_before=clock.now - timedelta(seconds=30))
    assert first == done("first")

    # then
    assert [first] == [task.id for task in files.list(State.DONE, limit=1)]
