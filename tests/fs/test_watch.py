"""A watch reports what changes in its directories, by any program, or that it may have missed something."""

import errno
import math
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from animaworks_tasks.fs import watch
from animaworks_tasks.fs.watch import Changes, Watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")

PATIENCE: Final = 30.0  # seconds after which something will not come any more
NOTHING: Final = Changes(frozenset(), incomplete=False)
EVERYTHING: Final = Changes(frozenset(), incomplete=True)


@pytest.fixture
def pending(tmp_path: Path) -> Path:
    return made(tmp_path / "pending")


@pytest.fixture
def running(tmp_path: Path) -> Path:
    return made(tmp_path / "running")


@pytest.fixture
def make() -> Iterator[Callable[..., Watch]]:
    """Make watches, which are closed when the test ends."""
    watches: list[Watch] = []

    def make_watch(*directories: Path) -> Watch:
        watches.append(Watch([str(directory) for directory in directories]))
        return watches[-1]

    yield make_watch
    for each in watches:
        each.close()


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def seen(directory: Path, *names: str) -> Changes:
    return Changes(frozenset((str(directory), name) for name in names), incomplete=False)


def until_seen(waiter: Watch, directory: Path, name: str) -> frozenset[tuple[str, str]]:
    """Wait until *name* has changed, and return all that changed meanwhile."""
    names: set[tuple[str, str]] = set()
    deadline = time.monotonic() + PATIENCE
    while (str(directory), name) not in names:
        assert time.monotonic() < deadline, f"{name} was not reported, only {names}"
        names |= waiter.wait(PATIENCE).names
    return frozenset(names)


def flush(waiter: Watch, directory: Path) -> frozenset[tuple[str, str]]:
    """Return all that changed until now, seen before a mark that is made now."""
    mark = f"mark-{time.monotonic_ns()}"
    (directory / mark).mkdir()
    return until_seen(waiter, directory, mark) - {(str(directory), mark)}


class Waiting(threading.Thread):
    """A thread that waits once and without limit; *changes* is what its wait returned."""

    def __init__(self, waiter: Watch) -> None:
        super().__init__(daemon=True)
        self.waiter = waiter
        self.changes: Changes | None = None
        self.start()
        deadline = time.monotonic() + PATIENCE
        while not self.sleeps():
            assert time.monotonic() < deadline, "it does not begin to sleep"
            time.sleep(0.001)

    def run(self) -> None:
        self.changes = self.waiter.wait(math.inf)

    def sleeps(self) -> bool:
        """Return whether this thread sleeps or has ended, as in proc_pid_stat(5)."""
        try:
            return "S" == Path(f"/proc/self/task/{self.native_id}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True

    def result(self) -> Changes | None:
        self.join(PATIENCE)
        return self.changes


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


def start(program: str, *arguments: str | Path | int, pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=pass_fds,
    )


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(PATIENCE)


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


def descriptors() -> set[int]:
    """Return the open descriptors of this process."""
    with os.scandir("/proc/self/fd") as listing:
        listed = {int(entry.name) for entry in listing}
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}  # not the one that was listing


def is_inotify(fd: int) -> bool:
    return "anon_inode:inotify" == os.readlink(f"/proc/self/fd/{fd}")


def instances() -> int:
    """Return how many inotify instances this process has."""
    return sum(map(is_inotify, descriptors()))


def watched_by_kernel() -> int:
    """Return how many directories the kernel watches for this process."""
    infos = [Path(f"/proc/self/fdinfo/{fd}").read_text() for fd in descriptors() if is_inotify(fd)]
    return sum(info.count("inotify wd:") for info in infos)


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
    assert waiter.problem is None
    assert EVERYTHING == waiter.wait(PATIENCE)
    (pending / "task.json").touch()
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


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
    assert EVERYTHING == waiter.wait(PATIENCE)
    (pending / "task.json").touch()
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


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


# When the kernel does not watch


def test_a_directory_that_does_not_exist_is_a_problem_until_it_is_made_and_the_others_are_watched(
    tmp_path: Path, running: Path, make: Callable[..., Watch]
) -> None:
    # given
    waiter = make(tmp_path / "pending", running)
    assert f"cannot watch {tmp_path / 'pending'}: it does not exist; it is watched once it is made" == waiter.problem
    (running / "task").touch()
    assert seen(running, "task") == waiter.wait(PATIENCE)

    # when
    made(tmp_path / "pending")
    waiter.refresh()

    # then
    assert waiter.problem is None
    assert EVERYTHING == waiter.wait(PATIENCE)


def test_a_file_in_place_of_a_directory_is_a_problem(tmp_path: Path, make: Callable[..., Watch]) -> None:
    (tmp_path / "pending").touch()
    assert f"cannot watch {tmp_path / 'pending'}: Not a directory" == make(tmp_path / "pending").problem


def test_a_system_without_inotify_is_a_problem_and_a_wait_only_sleeps(
    pending: Path, make: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a C library as macOS has it
    monkeypatch.setattr(watch, "_libc", SimpleNamespace)
    waiter = make(pending)
    assert "this system has no inotify" in str(waiter.problem)

    # then
    (pending / "task.json").touch()
    assert NOTHING == waiter.wait(0.01)
    waiting = Waiting(waiter)
    waiter.wake()
    assert NOTHING == waiting.result()


def test_watches_that_are_used_up_are_a_problem_until_there_are_some(
    pending: Path, make: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given the error of a user that has no watch left; a test below has it from the kernel, where that is possible
    def refuse(function: str, *arguments: int | bytes) -> int:
        if function == "inotify_add_watch":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(function, *arguments)

    call = watch._call
    monkeypatch.setattr(watch, "_call", refuse)
    waiter = make(pending)
    assert "raise fs.inotify.max_user_watches" in str(waiter.problem)
    assert NOTHING == waiter.wait(0)

    # when
    monkeypatch.undo()
    waiter.refresh()

    # then
    assert waiter.problem is None
    assert EVERYTHING == waiter.wait(PATIENCE)


NO_DESCRIPTOR_LEFT: Final = """
import os, resource, sys
from animaworks_tasks.fs import watch
if sys.argv[2] == "loaded":  # else the kernel refuses the import of ctypes already
    watch._libc()
free = os.dup(0)
os.close(free)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, hard))  # two are left, for the pipe
waiter = watch.Watch(sys.argv[1:2])
print(waiter.problem)
print(waiter.wait(0))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
waiter.refresh()
print(waiter.problem)
print(waiter.wait(30))
"""


@pytest.mark.parametrize("library", ["loaded", "not loaded"])
def test_without_a_descriptor_for_the_instance_there_is_a_problem_until_there_is_one(
    pending: Path, library: str
) -> None:
    with start(NO_DESCRIPTOR_LEFT, pending, library) as process:
        problem, nothing, no_problem, everything = process.communicate()[0].decode().splitlines()
    assert "or the limit of open files (ulimit -n)" in problem
    assert [str(NOTHING), "None", str(EVERYTHING)] == [nothing, no_problem, everything]


def limits_can_be_lowered() -> bool:
    """Return whether a process may have a user namespace, and with it inotify limits, of its own."""
    trial = "echo 0 > /proc/sys/user/max_inotify_watches"
    if shutil.which("unshare") is None:
        return False
    return 0 == subprocess.run([*IN_NAMESPACE, trial], check=False, capture_output=True).returncode


IN_NAMESPACE: Final = ["unshare", "--user", "--map-root-user", "sh", "-c"]
IN_NEED: Final = """
import sys
from pathlib import Path
from animaworks_tasks.fs.watch import Watch
limit = Path("/proc/sys/user") / sys.argv[1]
usual = limit.read_text()
limit.write_text("0")
waiter = Watch([sys.argv[2]])
print(waiter.problem)
print(waiter.wait(0))
limit.write_text(usual)
waiter.refresh()
print(waiter.problem)
print(waiter.wait(30))
"""


@pytest.mark.parametrize(
    ("limit", "advice"),
    [
        ("max_inotify_instances", "raise fs.inotify.max_user_instances"),
        ("max_inotify_watches", "raise fs.inotify.max_user_watches"),
    ],
)
def test_a_user_whose_limit_is_reached_has_a_problem_until_it_is_raised(pending: Path, limit: str, advice: str) -> None:
    if not limits_can_be_lowered():
        pytest.skip("needs user namespaces")
    command = [*IN_NAMESPACE, 'exec "$0" "$@"', sys.executable, "-c", IN_NEED, limit, str(pending)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    problem, *others = printed.splitlines()
    assert advice in problem
    assert [str(NOTHING), "None", str(EVERYTHING)] == others


# Forked children, and programs that are started


# Warned of since Python 3.12. That such a fork goes well is what these tests are about; the child runs our code only.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def in_child(do: Callable[[], object]) -> object:
    """Return what *do* returns in a forked child, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(do()).encode())
        except BaseException as error:  # noqa: BLE001 - the parent shows it
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return text


@forks
def test_a_forked_child_takes_neither_events_nor_wake_ups_from_its_parent(
    pending: Path, make: Callable[..., Watch]
) -> None:
    # given an event and a wake-up that the parent has not read yet
    waiter = make(pending)
    (pending / "task.json").touch()

    # when
    def use() -> int:
        with pytest.raises(ValueError, match="forked"):
            waiter.wait(0)
        waiter.wake()
        waiter.refresh()
        waiter.close()
        return instances()

    assert "0" == in_child(use)

    # then (reaching inside: a wake-up from the child would only be felt as a wait that does not sleep)
    assert not select.select([waiter._fd], [], [], 0)[0]
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


@forks
def test_a_forked_child_can_watch_by_itself(pending: Path, make: Callable[..., Watch]) -> None:
    waiter = make(pending)

    def use() -> Changes:
        with closing(Watch([str(pending)])) as own:
            (pending / "task.json").touch()
            return own.wait(PATIENCE)

    assert str(seen(pending, "task.json")) == in_child(use)
    assert seen(pending, "task.json") == waiter.wait(PATIENCE)


@forks
def test_a_process_that_forks_while_its_threads_watch_has_children_that_can_watch(pending: Path) -> None:
    # given a thread that makes and closes watches all the time
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            with closing(Watch([str(pending)])) as each:
                each.wake()
                each.wait(0)

    thread = threading.Thread(target=churn, daemon=True)
    thread.start()

    # when
    def use() -> Changes:
        with closing(Watch([str(pending)])) as own:
            return own.wait(0)

    results = {in_child(use) for _ in range(30)}
    over.set()
    thread.join(PATIENCE)

    # then
    assert {str(NOTHING)} == results


def test_a_program_that_is_started_inherits_no_descriptor(pending: Path, make: Callable[..., Watch]) -> None:
    before = descriptors()
    make(pending)
    ours = descriptors() - before
    assert 3 == len(ours)  # the instance, and a pipe
    assert not [fd for fd in ours if os.get_inheritable(fd)]


IMPORTED: Final = "import sys, animaworks_tasks.fs.watch; print('ctypes' in sys.modules)"


def test_ctypes_is_not_imported_before_something_is_watched() -> None:
    with start(IMPORTED) as process:
        assert b"False\n" == said(process)
