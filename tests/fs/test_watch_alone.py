"""A watch without the kernel's help says why, and goes on when that is over; a forked child has its own."""

import errno
import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from animaworks_tasks.fs import watch
from animaworks_tasks.fs.watch import Changes, Watch
from tests.fs.watching import (
    EVERYTHING,
    NOTHING,
    PATIENCE,
    Waiting,
    descriptors,
    instances,
    made,
    said,
    seen,
    start,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")


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
