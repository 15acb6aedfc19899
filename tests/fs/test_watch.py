"""A watch reports what changes in its directories, by any program, or that it may have missed something."""

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks.fs import watch
from animaworks_tasks.fs.watch import Watch
from tests.fs.watching import (
    EVERYTHING,
    NOTHING,
    PATIENCE,
    Waiting,
    assert_watched_anew,
    descriptors,
    flush,
    instances,
    is_inotify,
    kill,
    made,
    said,
    seen,
    start,
    until_seen,
    watched_by_kernel,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")


# What is reported


def test_a_new_file_is_reported_with_the_directory_as_it_was_given(pending: Path, make: Callable[..., Watch]) -> None:
    waiter = make(pending)
    (pending / "3f9c1a7be204.json").touch()
    assert seen(pending, "3f9c1a7be204.json") == waiter.wait(PATIENCE)


def test_a_hard_link_and_a_file_that_is_moved_in_are_reported(
    tmp_path: Path, pending: Path, make: Callable[..., Watch]
) -> None:
    # given two files elsewhere
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    waiter = make(pending)

    # when
    (pending / "linked").hardlink_to(tmp_path / "one")
    (tmp_path / "two").rename(pending / "moved")

    # then
    assert seen(pending, "linked", "moved") == waiter.wait(PATIENCE)


def test_a_file_that_was_written_is_reported_when_it_is_closed_and_not_before(
    pending: Path, make: Callable[..., Watch]
) -> None:
    waiter = make(pending)
    with (pending / "task.json").open("w") as file:
        until_seen(waiter, pending, "task.json")
        file.write("{}")
        file.flush()
        assert frozenset() == flush(waiter, pending)
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


def test_reading_and_removing_a_file_are_not_reported(pending: Path, make: Callable[..., Watch]) -> None:
    (pending / "task.json").touch()
    waiter = make(pending)
    (pending / "task.json").read_bytes()
    (pending / "task.json").unlink()
    assert NOTHING == waiter.wait(0)


def test_a_name_that_is_no_utf_8_comes_back_as_the_os_functions_take_it(
    pending: Path, make: Callable[..., Watch]
) -> None:
    waiter = make(pending)
    name = os.fsdecode(b"caf\xe9 \xe6\x97\xa5" + b"x" * 247)  # 255 bytes, the longest name there is
    (pending / name).touch()
    assert seen(pending, name) == waiter.wait(PATIENCE)


def test_a_wait_for_nothing_returns_when_its_time_is_over(pending: Path, make: Callable[..., Watch]) -> None:
    waiter = make(pending)
    assert NOTHING == waiter.wait(0)
    assert NOTHING == waiter.wait(-1)
    before = time.monotonic()
    assert NOTHING == waiter.wait(0.05)
    assert time.monotonic() - before >= 0.05


def test_what_was_returned_once_is_not_returned_again(pending: Path, make: Callable[..., Watch]) -> None:
    waiter = make(pending)
    (pending / "task.json").touch()
    waiter.wait(PATIENCE)
    assert NOTHING == waiter.wait(0)


# The death of an owner

OWNER: Final = """
import os, socket, sys
name, linked, *connection = sys.argv[1:]
record = os.open(name, os.O_RDWR)
os.link(name, linked)
os.unlink(name)
if connection:  # send a copy of the descriptor along, as a supervisor does with a call
    socket.send_fds(socket.socket(fileno=int(connection[0])), [b"!"], [record])
print("claimed", flush=True)
sys.stdin.read()
"""

TOOL: Final = """
import socket, sys
_, [record], *_ = socket.recv_fds(socket.socket(fileno=int(sys.argv[1])), 1, 1)
print("received", flush=True)
sys.stdin.read()
"""


def test_the_death_of_an_owner_is_reported_under_the_name_by_which_it_opened_the_record(
    pending: Path, running: Path, make: Callable[..., Watch]
) -> None:
    # given a process that claimed a record, whose pending name is gone since
    (pending / "task.json").write_text("{}")
    waiter = make(pending, running)
    with start(OWNER, pending / "task.json", running / "task") as owner:
        assert b"claimed\n" == said(owner)
        assert not (pending / "task.json").exists()
        assert {(str(running), "task")} == flush(waiter, pending)

        # when
        kill(owner)

    # then
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


def test_the_death_of_an_owner_is_reported_only_when_the_last_copy_of_its_descriptor_is_closed(
    pending: Path, running: Path, make: Callable[..., Watch]
) -> None:
    # given an owner that sent a copy of the record's descriptor to another process
    (pending / "task.json").write_text("{}")
    waiter = make(pending, running)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        tool = start(TOOL, theirs.fileno(), pass_fds=[theirs.fileno()])
        owner = start(OWNER, pending / "task.json", running / "task", ours.fileno(), pass_fds=[ours.fileno()])
    with tool, owner:
        assert (b"claimed\n", b"received\n") == (said(owner), said(tool))
        assert {(str(running), "task")} == flush(waiter, pending)

        # when the owner dies, nothing is reported; when the other one dies too, it is
        kill(owner)
        assert frozenset() == flush(waiter, pending)
        kill(tool)
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


# Several watches in one process


def test_all_watches_share_one_instance_and_the_last_one_closes_it(pending: Path, running: Path) -> None:
    assert 0 == instances()
    with closing(Watch([str(pending)])), closing(Watch([str(pending), str(running)])):
        assert 1 == instances()
    assert 0 == instances()


def test_every_watch_of_a_directory_gets_every_change(pending: Path, make: Callable[..., Watch]) -> None:
    first, second = make(pending), make(pending)
    (pending / "task.json").touch()
    assert seen(pending, "task.json") == first.wait(PATIENCE) == second.wait(PATIENCE)


def test_each_watch_gets_the_changes_of_its_own_directories_only(
    pending: Path, running: Path, make: Callable[..., Watch]
) -> None:
    first, second = make(pending), make(running)
    (pending / "one").touch()
    (running / "two").touch()
    assert seen(pending, "one") == first.wait(PATIENCE)
    assert seen(running, "two") == second.wait(PATIENCE)


def test_a_directory_that_is_given_by_two_paths_is_reported_by_both(
    tmp_path: Path, pending: Path, make: Callable[..., Watch]
) -> None:
    (tmp_path / "alias").symlink_to(pending)
    waiter = make(pending, tmp_path / "alias")
    (pending / "task.json").touch()
    expected = {(str(pending), "task.json"), (str(tmp_path / "alias"), "task.json")}
    assert expected == waiter.wait(PATIENCE).names


def test_closing_one_watch_does_not_end_another_of_the_same_directory(
    pending: Path, make: Callable[..., Watch]
) -> None:
    first, second = make(pending), make(pending)
    first.close()
    (pending / "task.json").touch()
    assert seen(pending, "task.json") == second.wait(PATIENCE)


def test_the_kernel_watches_no_directory_that_nobody_watches_any_more(
    tmp_path: Path, pending: Path, running: Path, make: Callable[..., Watch]
) -> None:
    # given
    first, second = make(pending), make(pending, running)
    assert 2 == watched_by_kernel()

    # when one of two watches is closed
    second.close()
    assert 1 == watched_by_kernel()

    # and when the directory of the other is moved away
    pending.rename(tmp_path / "away")
    first.wait(PATIENCE)
    assert 0 == watched_by_kernel()


def test_a_waiter_sleeps_on_while_only_others_are_concerned(
    pending: Path, running: Path, make: Callable[..., Watch]
) -> None:
    # given two threads that wait, for a directory each
    first, second = Waiting(make(pending)), Waiting(make(running))

    # when
    (pending / "one").touch()

    # then
    assert seen(pending, "one") == first.result()
    assert second.is_alive()
    (running / "two").touch()
    assert seen(running, "two") == second.result()


def test_a_waiter_that_sleeps_wakes_up_for_what_another_thread_has_read(
    pending: Path, running: Path, make: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a thread that sees nothing of the shared instance (reaching inside: else it would mostly be the first)
    class BlindPoll:
        def __init__(self) -> None:
            self._seeing = real_poll()
            self.poll = self._seeing.poll

        def register(self, fd: int, events: int) -> None:
            if not is_inotify(fd):
                self._seeing.register(fd, events)

    real_poll = select.poll
    monkeypatch.setattr(select, "poll", BlindPoll)
    blind, other = Waiting(make(pending)), make(running)

    # when the other one reads the event
    (pending / "task.json").touch()
    assert NOTHING == other.wait(0)

    # then
    assert seen(pending, "task.json") == blind.result()


def test_no_change_is_lost_between_threads_that_wait_all_the_time(pending: Path, make: Callable[..., Watch]) -> None:
    # given four threads, each with a watch of the same directory
    expected = {(str(pending), str(number)) for number in range(500)}
    found: list[set[tuple[str, str]]] = [set() for _ in range(4)]

    def collect(waiter: Watch, names: set[tuple[str, str]]) -> None:
        deadline = time.monotonic() + PATIENCE
        while names != expected and time.monotonic() < deadline:
            names |= waiter.wait(PATIENCE).names

    threads = [threading.Thread(target=collect, args=(make(pending), names), daemon=True) for names in found]
    for thread in threads:
        thread.start()

    # when
    for _, name in sorted(expected):
        os.mkdir(pending / name)

    # then
    for thread in threads:
        thread.join(PATIENCE + 10)
    assert [expected] * 4 == found


# Wake up and close


def test_wake_ends_the_wait_of_another_thread(pending: Path, make: Callable[..., Watch]) -> None:
    waiter = make(pending)
    waiting = Waiting(waiter)
    waiter.wake()
    assert NOTHING == waiting.result()


def test_wake_ends_the_next_wait_and_no_other(pending: Path, make: Callable[..., Watch]) -> None:
    # given a watch that was woken up several times
    waiter, before = make(pending), time.monotonic()
    for _ in range(3):
        waiter.wake()

    # then one wait is over at once
    assert NOTHING == waiter.wait(PATIENCE)
    assert time.monotonic() - before < PATIENCE

    # and the next one is not
    waiting = Waiting(waiter)
    assert waiting.is_alive()
    waiter.wake()
    waiting.result()


def test_a_closed_watch_can_be_closed_refreshed_and_woken_up_and_refuses_to_wait(pending: Path) -> None:
    waiter = Watch([str(pending)])
    waiter.close()
    waiter.close()
    waiter.refresh()
    waiter.wake()
    assert 0 == instances()
    with pytest.raises(ValueError, match="closed"):
        waiter.wait(0)


def test_close_ends_the_wait_of_another_thread_and_leaves_no_descriptor(pending: Path) -> None:
    before = descriptors()
    waiter = Watch([str(pending)])
    waiting = Waiting(waiter)
    waiter.close()
    assert NOTHING == waiting.result()
    assert before == descriptors()


# What may have been missed


@pytest.fixture
def full_queue(pending: Path) -> Callable[[], None]:
    """Return what makes more changes than the kernel keeps."""

    def fill() -> None:
        path = pending / "name"
        for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 1):
            other = path.with_name(f"name-{number % 2}")  # names that alternate, since equal events in a row become one
            path.rename(other)
            path = other

    (pending / "name").touch()
    return fill


def test_when_the_queue_of_the_kernel_overflows_every_watch_is_incomplete(
    pending: Path, running: Path, make: Callable[..., Watch], full_queue: Callable[[], None]
) -> None:
    # given
    first, second = make(pending), make(running)

    # when
    full_queue()

    # then
    assert first.wait(PATIENCE).incomplete
    assert EVERYTHING == second.wait(PATIENCE)

    # and both go on
    (pending / "task.json").touch()
    assert seen(pending, "task.json") == first.wait(PATIENCE)
    assert NOTHING == second.wait(0)


def test_a_watch_that_nobody_waits_at_keeps_a_bounded_number_of_names(
    pending: Path, running: Path, make: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a bound of three (reaching inside: the real one takes ten thousand files)
    monkeypatch.setattr(watch, "_MOST_NAMES", 3)
    idle, busy = make(pending), make(running)

    # when another watch has read four changes of it
    for number in range(4):
        (pending / str(number)).mkdir()
    busy.wait(0)

    # then
    assert EVERYTHING == idle.wait(PATIENCE)
    (pending / "task.json").touch()
    assert seen(pending, "task.json") == idle.wait(PATIENCE)


def test_a_directory_that_was_removed_and_made_again_is_watched_again_after_a_refresh(
    pending: Path, running: Path, make: Callable[..., Watch]
) -> None:
    # given a directory that is removed
    waiter = make(pending, running)
    pending.rmdir()
    assert EVERYTHING == waiter.wait(PATIENCE)
    waiter.refresh()
    assert str(pending) in str(waiter.problem)
    assert EVERYTHING == waiter.wait(PATIENCE)

    # when it is made again
    pending.mkdir()
    waiter.refresh()

    # then
    assert_watched_anew(waiter, pending)


def test_the_late_end_of_a_removed_directory_is_not_taken_for_that_of_its_successor(
    pending: Path, make: Callable[..., Watch]
) -> None:
    # given a directory that was removed and made again before anybody waited
    waiter = make(pending)
    pending.rmdir()
    pending.mkdir()

    # when it is watched again before its end was read
    waiter.refresh()

    # then
    assert_watched_anew(waiter, pending)


def test_a_removed_directory_whose_end_is_not_reported_because_it_is_open_is_found_by_a_refresh(
    pending: Path, make: Callable[..., Watch]
) -> None:
    # given a directory that somebody has open
    waiter = make(pending)
    descriptor = os.open(pending, os.O_RDONLY | os.O_DIRECTORY)
    try:
        pending.rmdir()
        pending.mkdir()

        # when
        waiter.refresh()

        # then
        assert EVERYTHING == waiter.wait(PATIENCE)
        (pending / "task.json").touch()
        assert seen(pending, "task.json") == waiter.wait(PATIENCE)
    finally:
        os.close(descriptor)
    assert NOTHING == waiter.wait(0)


def test_a_directory_that_was_moved_away_is_watched_no_more_and_its_successor_is(
    tmp_path: Path, pending: Path, make: Callable[..., Watch]
) -> None:
    # given
    waiter = make(pending)
    pending.rename(tmp_path / "away")
    assert EVERYTHING == waiter.wait(PATIENCE)

    # when
    pending.mkdir()
    waiter.refresh()
    assert EVERYTHING == waiter.wait(PATIENCE)
    (tmp_path / "away" / "other.json").touch()
    (pending / "task.json").touch()

    # then
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


def test_a_directory_whose_parent_was_moved_is_found_again_by_a_refresh(
    tmp_path: Path, make: Callable[..., Watch]
) -> None:
    # given a store that is moved, which the kernel does not report to who watches a directory inside
    store = made(tmp_path / "store")
    waiter = make(made(store / "pending"))
    store.rename(tmp_path / "away")
    made(store)
    pending = made(store / "pending")
    assert NOTHING == waiter.wait(0)

    # when
    waiter.refresh()

    # then
    assert EVERYTHING == waiter.wait(PATIENCE)
    (tmp_path / "away" / "pending" / "other.json").touch()
    (pending / "task.json").touch()
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


def test_a_refresh_that_changes_nothing_reports_nothing_and_loses_nothing(
    pending: Path, make: Callable[..., Watch]
) -> None:
    waiter = make(pending)
    waiter.refresh()
    assert NOTHING == waiter.wait(0)
    (pending / "task.json").touch()
    waiter.refresh()
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)
