"""A tool has a process that is used again: what it finds there, what it may do to it, and how it is replaced."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Executor, Outcome, ProcessBackend, State, TaskStore
from animaworks_tasks.backends import tool_process
from animaworks_tasks.store.protocol import Claim
from tests.backends.hosts import ROOT, Host, in_an_hour, open_files, supervisor_of
from tests.processes import PATIENCE, gone, state, until
from tests.tools_for_tests import registry


def test_a_process_is_used_again_and_is_not_the_hosts(host: Host) -> None:
    first = host.result("ids")
    assert first == host.result("ids")
    assert os.getpid() not in first


def test_a_process_is_replaced_after_so_many_tasks_and_its_supervisor_is_not(tmp_path: Path) -> None:
    # given
    host = Host(tmp_path, backend=ProcessBackend(max_tasks_per_worker=2))

    # when
    tools, supervisors = zip(*(host.result("ids") for _ in range(4)), strict=True)
    host.executor.stop(drain_timeout=PATIENCE)

    # then
    assert tools[0] == tools[1] != tools[2] == tools[3]
    assert 1 == len(set(supervisors))
    assert gone(tools[0])


def test_a_process_that_died_is_not_counted_as_the_next_one(tmp_path: Path) -> None:
    host = Host(tmp_path, backend=ProcessBackend(max_tasks_per_worker=2))
    host.run("leave", 3)
    first, second = host.result("ids"), host.result("ids")
    host.executor.stop(drain_timeout=PATIENCE)
    assert first == second


def test_a_process_that_died_idle_is_replaced_and_its_supervisor_is_not(host: Host) -> None:
    # given
    tool, supervisor = host.result("ids")
    os.kill(tool, signal.SIGKILL)
    until(lambda: gone(tool))

    # then
    another, same = host.result("ids")
    assert (tool != another, supervisor) == (True, same)


def test_a_process_has_nothing_of_its_supervisors_but_what_an_interpreter_begins_with(host: Host) -> None:
    """Above all no connection to the host: it would outlive the supervisor. Of locks it has that of its own task."""
    host.run("leave", 3)
    process = host.result("inspect")
    assert ["/dev/null", "log", "log", "record", "socket"] == sorted(process["files"])
    assert process["leads its session"]
    assert {"SIGINT": "default_int_handler", "SIGTERM": "_on_sigterm"} == process["handlers"]
    assert [] == process["blocked"]
    assert "call_here" == process["invoker"]
    assert ["-c"] == process["argv"]
    assert 0 < process["collected"]


def test_a_supervisor_has_one_thread_and_so_may_fork(host: Host, tmp_path: Path) -> None:
    # given
    task_id = host.submit("hold", tmp_path / "gate")
    supervisor = supervisor_of(host, task_id)

    # then
    assert [str(supervisor)] == os.listdir(f"/proc/{supervisor}/task")
    (tmp_path / "gate").touch()
    host.wait(task_id)


def test_two_processes_of_a_supervisor_draw_different_random_numbers(tmp_path: Path) -> None:
    host = Host(tmp_path, backend=ProcessBackend(max_tasks_per_worker=1))
    first, second = host.result("draw"), host.result("draw")
    assert first != second
    host.executor.stop(drain_timeout=PATIENCE)


def test_what_a_tool_has_left_to_do_at_exit_is_done_when_its_process_ends_in_order(tmp_path: Path) -> None:
    # given
    host = Host(tmp_path / "mei")
    scratch = Path(host.result("postpone", tmp_path / "done"))
    assert scratch.is_dir()

    # when
    host.executor.stop(drain_timeout=PATIENCE)

    # then
    until((tmp_path / "done").exists)
    until(lambda: not scratch.exists())


def test_a_tool_may_run_tasks_itself(host: Host, tmp_path: Path) -> None:
    inner, outer = host.result("run_inside", tmp_path / "inner")
    assert inner == outer


def test_what_a_tool_prints_is_in_the_log_at_once_whatever_prints_it(host: Host, tmp_path: Path) -> None:
    # given a tool that has printed in every way there is, and still runs
    task_id = host.submit("speak", tmp_path / "gate")
    said = {"from python", "from a subprocess", "from a descriptor", "from a thread"}

    # then
    until(lambda: said == set(host.log(task_id).splitlines()))
    assert State.RUNNING is host.store.get(task_id).state
    (tmp_path / "gate").touch()
    assert Outcome.COMPLETED is host.wait(task_id).outcome


def test_a_tool_has_the_hosts_environment_and_learns_its_task_and_where_its_record_lies(host: Host) -> None:
    task = host.run("look")
    seen = json.loads(task.result or "")
    assert ("kept", task.id) == (seen["KEPT_FOR_TESTS"], seen["ANIMAWORKS_TASK_ID"])
    assert host.store.location == seen["ANIMAWORKS_ANIMA_DIR"]


def test_a_tool_begins_where_it_was_submitted(host: Host, tmp_path: Path) -> None:
    assert str(tmp_path) == json.loads(host.run("look", cwd=str(tmp_path)).result or "")["cwd"]
    assert os.getcwd() == json.loads(host.run("look", cwd="/no/such/place").result or "")["cwd"]


def test_what_a_tool_changes_of_its_process_is_put_back_for_the_next_one(host: Host) -> None:
    # given
    before = host.result("look")
    process = host.result("ids")

    # when
    host.run("litter")

    # then
    after = host.result("look")
    assert process == host.result("ids")
    assert before | {"ANIMAWORKS_TASK_ID": None} == after | {"ANIMAWORKS_TASK_ID": None}


def test_a_tool_that_forks_and_returns_twice_is_reported_once(host: Host) -> None:
    task = host.run("fork")
    assert "the parent" == task.result
    assert "still here" == host.run("echo", "still here").result


def test_a_tool_runs_although_its_log_cannot_be_written(host: Host) -> None:
    # given something else where the log belongs
    task = host.store.submit("proc", "echo", "unheard", not_before=in_an_hour() + timedelta(hours=1))
    Path(host.store.layout.logs, f"{task.id}.log").mkdir()

    # when it runs, by a registry and a backend of its own
    executor = Executor(host.store, registry, clock=lambda: in_an_hour() + timedelta(hours=2)).start()
    assert "unheard" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()


def test_what_died_below_a_supervisor_does_not_stay_a_zombie(host: Host) -> None:
    orphan = host.result("orphan")
    until(lambda: gone(orphan))
    host.run("echo")
    assert "" == state(orphan)


def test_what_dies_below_a_tool_is_taken_away_while_the_tool_still_runs(host: Host, tmp_path: Path) -> None:
    """Or else one that starts and leaves many processes would fill the machine with zombies."""
    task_id = host.submit("litter_processes", tmp_path / "gate")
    until(lambda: "left" in host.log(task_id))
    orphans = [int(word) for word in host.log(task_id).split() if word.isdigit()]
    until(lambda: not any(state(orphan) for orphan in orphans))
    assert State.RUNNING is host.store.get(task_id).state
    (tmp_path / "gate").touch()
    assert Outcome.COMPLETED is host.wait(task_id).outcome


# Tools that take their process along.


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (("leave", 3), "ended with exit status 3"),
        (("kill", signal.SIGKILL.value), "was killed by SIGKILL (out of memory?)"),
        (("kill", signal.SIGRTMIN.value + 3), "was killed by signal 37"),
        (("segfault",), "was killed by SIGSEGV"),
        (("close",), "ended with exit status 0"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_tool_that_ends_its_process_has_crashed_and_the_next_one_runs(
    host: Host, call: tuple[object, ...], what: str
) -> None:
    # when
    task = host.run(str(call[0]), *call[1:])

    # then
    assert (Outcome.FAILED, Cause.CRASHED) == (task.outcome, task.cause)
    assert f"the tool's process {what} in the middle of the call" == task.error
    assert "fine" == host.run("echo", "fine").result


def test_a_tool_may_close_its_stdout_and_stderr(host: Host) -> None:
    # when
    closed = host.run("close", 1, 2)

    # then
    assert "closed" == closed.result
    task = host.run("fail", "/no/such/directory/tries")
    assert "FileNotFoundError" in host.log(task.id)


def test_a_crash_is_retried_as_often_as_its_submitter_says(host: Host) -> None:
    task = host.run("leave", 3, retries=1)
    assert (Cause.CRASHED, 2) == (task.cause, task.attempt)


def test_a_failing_tool_is_run_again_until_it_succeeds(host: Host, tmp_path: Path) -> None:
    task_id = host.submit("fail", tmp_path / "tries", retries=2)
    assert "third time lucky" == host.wait(task_id).result
    assert 3 == host.store.get(task_id).attempt
    assert 1 == host.reported(task_id)


# Processes that cannot be started, and forks.


def test_a_tool_for_which_no_process_can_be_started_has_crashed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # given
    store = TaskStore(tmp_path, durability="process")
    task = store.submit("proc", "echo")

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    gc.collect()  # as a fork does: what other tests have left open is closed by then
    files = open_files()

    # when
    report = tool_process.ToolProcess(None).invoke(registry.get("proc", "echo"), task, store, Claim(task, None), 60.0)

    # then
    assert Cause.CRASHED is report.cause
    assert report.error is not None
    assert report.error.startswith("no process could be started for the tool: [Errno 11]")
    until(lambda: open_files() <= files)  # the host of the other tests looks at its store now and then


FORKS = """
import os, sys, time
from animaworks_tasks.backends import fork as fork_module
from animaworks_tasks.backends.fork import fork
from animaworks_tasks.backends.process_tree import Child

def fail():
    raise ValueError("nobody catches this")

for main in (lambda: None, lambda: sys.exit(0), fail, lambda: os._exit(3)):
    print(fork(main, keep=0).wait(30), flush=True)
print(fork(lambda: time.sleep(600), keep=0).wait(0), Child(os.getpid()).wait(0), flush=True)
fork_module._leave = sys.exit  # as the handler of a signal may, at any time
print(fork(lambda: None, keep=0).wait(30))
"""


def test_a_fork_never_comes_back_and_says_how_it_ended() -> None:
    # when, until the one that would go on has ended with its parent
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
    )

    # then; of what is no child of ours no status is to be had
    assert ["0", "0", "1", "3", "None 0", "1"] == done.stdout.decode().splitlines()
    assert 1 == done.stderr.count(b"ValueError: nobody catches this")
