"""A supervisor dies: its lock is free, its tool is gone, and its task is finished or run again elsewhere."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Outcome, ProcessBackend
from animaworks_tasks.backends import processes
from animaworks_tasks.errors import BackendError
from tests.backends.hosts import Host, supervisor_of
from tests.processes import PATIENCE, gone, until
from tests.tools_for_tests import die, divide


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host like the other, whose supervisors are killed."""
    host = Host(tmp_path_factory.mktemp("doomed"))
    yield host
    host.executor.stop(drain_timeout=PATIENCE)


def test_a_supervisor_that_is_killed_frees_its_lock_and_its_task_is_finished_and_reported_once(
    doomed: Host, tmp_path: Path
) -> None:
    # given
    task_id = doomed.submit("hold", tmp_path / "gate")
    supervisor = supervisor_of(doomed, task_id)
    tool = int(doomed.log(task_id).split()[0])

    # when
    os.kill(supervisor, signal.SIGKILL)

    # then
    task = doomed.wait(task_id)
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (task.outcome, task.cause)
    until(lambda: gone(tool))  # it might be run again elsewhere
    assert "fine" == doomed.run("echo", "fine").result
    assert 1 == doomed.reported(task_id)
    assert 1 == [each.task_id for each in doomed.store.notifications.peek()].count(task_id)


def test_a_task_that_is_safe_to_run_again_runs_again_when_its_supervisor_is_killed(
    doomed: Host, tmp_path: Path
) -> None:
    # given
    task_id = doomed.submit("again", tmp_path / "gate")
    supervisor = supervisor_of(doomed, task_id)

    # when
    os.kill(supervisor, signal.SIGKILL)

    # then
    assert "attempt 2" == doomed.wait(task_id).result
    assert 1 == doomed.reported(task_id)


FORK_HOOK = """
import os, signal, socket, time

def called(fd):
    try:
        with socket.socket(fileno=os.dup(fd)) as end:
            return bool(end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False

def forked():
    try:
        os.rename({armed!r}, {pid!r})  # the first one only
    except OSError:
        return
    with open({pid!r}, "w") as file:
        file.write(str(os.getpid()))
    parent = os.getppid()
    while not any(map(called, range(3, 32))):
        time.sleep(0.001)
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        time.sleep(0.001)

os.register_at_fork(after_in_child=forked)
"""


def test_a_supervisor_that_dies_as_it_has_forked_frees_its_lock_and_its_call_runs_once_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the worst moment: its child has the lock still open, the call to come, and has not yet asked to die too."""
    # given a supervisor that does so
    armed, pid = tmp_path / "armed", tmp_path / "pid"
    (tmp_path / "sitecustomize.py").write_text(FORK_HOOK.format(armed=str(armed), pid=str(pid)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    armed.touch()
    host = Host(tmp_path / "mei")

    # when
    task_id = host.submit("again", tmp_path / "gate")

    # then
    assert "attempt 2" == host.wait(task_id).result
    assert 1 == len(host.log(task_id).splitlines())
    until(lambda: gone(int(pid.read_text())))
    assert 1 == host.reported(task_id)
    host.executor.stop(drain_timeout=PATIENCE)


def test_a_supervisor_that_dies_idle_is_replaced(doomed: Host) -> None:
    # given
    _, supervisor = doomed.result("ids")
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: gone(supervisor))

    # then
    assert supervisor != doomed.result("ids")[1]


def test_a_call_whose_supervisor_dies_under_it_is_lost_and_says_so() -> None:
    backend = ProcessBackend()
    with pytest.raises(BackendError, match="see the task's record"):
        backend.submit(die).result(PATIENCE)
    assert 2 == backend.submit(divide, 4, by=2).result(PATIENCE)
    backend.shutdown()


def test_a_supervisor_that_cannot_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    # given an interpreter that ends at once
    monkeypatch.setattr(processes, "get_executable", lambda: "/bin/false")
    backend = ProcessBackend()

    # then, whether it ends before or after it was sent its call
    with pytest.raises(BackendError, match=r"nothing ran|was closed"):
        backend.submit(divide, 4, by=2).result(PATIENCE)
    backend.shutdown()


def test_a_supervisor_that_ended_before_it_received_its_call_has_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(processes._Supervisor, "send", lambda *_: False)
    backend = ProcessBackend()

    # then
    with pytest.raises(BackendError, match="nothing ran"):
        backend.submit(divide, 4, by=2).result(PATIENCE)
    backend.shutdown()


def test_where_no_supervisor_can_be_started_tasks_wait_and_the_watcher_does_not_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._SOON", 0.1)
    starts: list[float] = []

    def no_python() -> str:
        starts.append(time.monotonic())
        return "/no/such/python"

    with monkeypatch.context() as broken:
        broken.setattr(processes, "get_executable", no_python)
        host = Host(tmp_path, scan_interval=3600)
        task_id = host.submit("echo", "at last")
        until(lambda: len(starts) >= 3)

    # then
    assert "at last" == host.wait(task_id).result
    assert min(later - earlier for earlier, later in itertools.pairwise(starts)) >= 0.1
    host.executor.stop(drain_timeout=PATIENCE)


@pytest.mark.parametrize("left", ["nothing", "a forked child", "a program", "a command"])
@pytest.mark.parametrize("tries", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_tool_never_runs_twice_at_once_however_often_its_supervisor_is_killed(
    tmp_path: Path, tries: int, left: str
) -> None:
    """It ignores SIGTERM, may be run again, and what it leaves running would still be at work beside its next run."""
    # given
    host = Host(tmp_path / "mei", scan_interval=3600.0)
    words = ["alone", tmp_path] if left == "a command" else ["alone", tmp_path, left]
    task_id = host.submit(*words, tool="program" if left == "a command" else "proc")

    # when
    for attempt in range(1, tries + 1):
        until((tmp_path / f"began-{attempt}").exists)
        until(lambda: host.store.get(task_id).owner_pid)
        os.kill(host.store.get(task_id).owner_pid or 0, signal.SIGKILL)
    until((tmp_path / f"began-{tries + 1}").exists)
    (tmp_path / f"may-end-{tries + 1}").touch()

    # then
    assert f"attempt {tries + 1}" == (host.wait(task_id).result or "").strip()
    assert not (tmp_path / "twice").exists()
    assert 1 == host.reported(task_id)
    host.executor.stop(drain_timeout=PATIENCE)
