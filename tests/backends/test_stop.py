"""A tool is stopped with all that it has started, by a cancellation or when its time is up."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Outcome, TaskStore
from animaworks_tasks.backends import tool_process
from animaworks_tasks.backends.channel import Channel
from animaworks_tasks.backends.process_tree import Child
from tests.backends.hosts import Host
from tests.processes import PATIENCE, gone, until
from tests.tools_for_tests import registry


def stop_by(how: str, host: Host, task_id: str) -> None:
    if how == "cancel":
        host.store.request_cancel(task_id)


STOPPED = {"cancel": (Outcome.CANCELLED, None), "timeout": (Outcome.FAILED, Cause.TIMEOUT)}


@pytest.mark.parametrize("how", STOPPED)
def test_a_daemon_that_a_tool_started_is_stopped_with_it(host: Host, tmp_path: Path, how: str) -> None:
    # given a daemon, in a session of its own, with a parent that has gone, and deaf to SIGTERM
    host.run("echo", "warm")  # so that its time is its own
    pid_file = tmp_path / "pid"
    task_id = host.submit("daemon", pid_file, timeout_seconds=0.5 if how == "timeout" else None)
    pid = int(until(lambda: pid_file.exists() and pid_file.read_text()))

    # when
    stop_by(how, host, task_id)

    # then
    task = host.wait(task_id)
    assert STOPPED[how] == (task.outcome, task.cause)
    assert gone(pid)


@pytest.mark.parametrize("how", STOPPED)
def test_a_tool_that_ignores_sigterm_is_killed_after_its_grace(host: Host, tmp_path: Path, how: str) -> None:
    # given
    host.run("echo", "warm")  # so that its time is its own
    task_id = host.submit("stubborn", tmp_path / "begun", timeout_seconds=0.5 if how == "timeout" else None)
    until((tmp_path / "begun").exists)

    # when
    stop_by(how, host, task_id)

    # then
    task = host.wait(task_id)
    assert STOPPED[how] == (task.outcome, task.cause)
    assert ("it ran longer than 0.5 s: " if how == "timeout" else "") + "it was stopped: 1 process ended" == task.error
    assert "fine" == host.run("echo", "fine").result


def test_a_tool_that_is_stopped_may_tidy_up_undisturbed(host: Host, tmp_path: Path) -> None:
    # given
    begun, tidied = tmp_path / "begun", tmp_path / "tidied"
    task_id = host.submit("tidy", begun, tidied)
    until(begun.exists)

    # when
    host.store.request_cancel(task_id)

    # then
    assert Outcome.CANCELLED is host.wait(task_id).outcome
    assert tidied.exists()


def test_a_command_is_stopped_with_its_tool_process(host: Host) -> None:
    task_id = host.submit("sleep", tool="command", timeout_seconds=0.3)
    assert Cause.TIMEOUT is host.wait(task_id).cause


def test_what_cannot_be_stopped_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # given a supervisor's view of a process that is stuck in the kernel, as far as it can see
    store = TaskStore(tmp_path, durability="process")
    claim = store.claim(store.submit("proc", "hold", str(tmp_path / "gate")).id)
    assert claim is not None

    def stop_half(child: Child, _grace: float) -> str:
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            child.wait(PATIENCE)
        return "1 process ended, but not 4711"

    def sleeper() -> tuple[Child, Channel]:
        return Child(os.posix_spawnp("sleep", ["sleep", "600"], os.environ)), Channel(ours)

    ours, theirs = socket.socketpair()
    monkeypatch.setattr(tool_process, "_start", sleeper)  # this process has threads, and is not forked
    monkeypatch.setattr(tool_process, "stop_all", stop_half)
    monkeypatch.setattr(tool_process, "reap", lambda _: None)  # what is below this process is not the tool's
    tools = tool_process.ToolProcess(None)

    # when
    with theirs:
        report = tools.invoke(registry.get("proc", "hold"), claim.task, store, claim, 0.0)

    # then
    assert report.timed_out
    assert "it was stopped: 1 process ended, but not 4711" == report.error
