"""Tools in processes that outlive their host: what they may do to themselves, and who notices."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from animaworks_tasks import Cause, Executor, MemoryTaskStore, Outcome, ProcessBackend, Registry, State, Task, TaskStore
from animaworks_tasks.backends import processes, tool_process
from animaworks_tasks.backends.channel import Link
from animaworks_tasks.backends.process_tree import Child, Stopped
from animaworks_tasks.errors import BackendError, RegistryError
from animaworks_tasks.executor.seen import ELSEWHERE
from tests.executor.workshop import seen
from tests.processes import PATIENCE, gone, state, until
from tests.tools_for_tests import die, divide, registry

ROOT = Path(__file__).parents[2]


class Host:
    """A running executor, and what a test asks of it."""

    def __init__(self, anima_dir: Path, *, store: TaskStore | None = None, **options: Any) -> None:  # noqa: ANN401 - those of Executor
        self.store = store or TaskStore(anima_dir, language="en", durability="process")
        self.ended: list[str] = []
        merged: dict[str, Any] = {"backend": ProcessBackend(), "max_workers": 1, "scan_interval": 0.05} | options
        tell = lambda task: self.ended.append(task.id)  # noqa: E731 - bound to this host
        self.executor = Executor(self.store, registry, on_finish=tell, **merged).start()

    def run(self, subcommand: str, *words: object, tool: str = "proc", **options: Any) -> Task:  # noqa: ANN401 - as above
        """Run a tool to its end."""
        return self.wait(self.submit(subcommand, *words, tool=tool, **options))

    def submit(self, subcommand: str, *words: object, tool: str = "proc", **options: Any) -> str:  # noqa: ANN401 - as above
        return self.executor.submit_sync(tool, subcommand, *map(str, words), **options).id

    def wait(self, task_id: str) -> Task:
        return self.executor.wait_sync(task_id, timeout=PATIENCE)

    def result(self, subcommand: str, *words: object) -> Any:  # noqa: ANN401 - JSON is anything
        """Run a tool that succeeds; return what it returned."""
        task = self.run(subcommand, *words)
        assert Outcome.COMPLETED is task.outcome, task.error
        return json.loads(task.result or "null")

    def told(self, task_id: str) -> int:
        """Return how often the end of a task was told, once there is nothing left to tell."""
        self.executor.run_until_idle_sync(timeout=PATIENCE)
        return self.ended.count(task_id)

    def log(self, task_id: str) -> str:
        return self.store.read_log(task_id).decode()


def in_an_hour() -> datetime:
    """Tell the time at which every pause before a retry is over."""
    return datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One host with one worker for most tests here: starting a process takes longer than any of them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEPT_FOR_TESTS", "kept")
        host = Host(tmp_path_factory.mktemp("mei"), clock=in_an_hour)
        yield host
        host.executor.stop(drain_timeout=PATIENCE)


# --- a warm process ---


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
    """Above all no lock and no connection to the host: they would outlive the supervisor."""
    host.run("leave", 3)
    process = host.result("inspect")
    assert ["/dev/null", "log", "log", "socket"] == process["files"]
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


# --- tools that take their process along ---


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
    assert 1 == host.told(task_id)


# --- stopping ---


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


def test_what_cannot_be_stopped_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # given a supervisor's view of a process that is stuck in the kernel, as far as anybody can tell
    store = TaskStore(tmp_path, durability="process")
    claim = store.claim(store.submit("proc", "hold", str(tmp_path / "gate")).id)
    assert claim is not None

    def stop_half(child: Child, _grace: float) -> Stopped:
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            child.wait(PATIENCE)
        return Stopped(1, (4711,))

    def sleeper() -> tuple[Child, Link]:
        return Child(os.posix_spawnp("sleep", ["sleep", "600"], os.environ)), Link(ours)

    ours, theirs = socket.socketpair()
    monkeypatch.setattr(tool_process, "_start", sleeper)  # this process has threads, and is not forked
    monkeypatch.setattr(tool_process, "stop_all", stop_half)
    monkeypatch.setattr(tool_process, "reap", lambda _: None)  # what is below this process is not the tool's
    tools = tool_process.ToolProcess(None)

    # when
    with theirs:
        report = tools.invoke(registry.get("proc", "hold"), claim.task, store, 0.0)

    # then
    assert report.timed_out
    assert "it was stopped: 1 process ended, but not 4711" == report.error


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
    report = tool_process.ToolProcess(None).invoke(registry.get("proc", "echo"), task, store, 60.0)

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


# --- the supervisor dies ---


@pytest.fixture(scope="module")
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host like the other, whose supervisors are killed."""
    host = Host(tmp_path_factory.mktemp("doomed"))
    yield host
    host.executor.stop(drain_timeout=PATIENCE)


def supervisor_of(host: Host, task_id: str) -> int:
    """Return the process that holds a task's lock, once its tool is running."""
    until(lambda: host.log(task_id))
    return host.store.get(task_id).owner_pid or 0


def test_a_supervisor_that_is_killed_frees_its_lock_and_its_task_is_settled_and_told_once(
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
    assert 1 == doomed.told(task_id)
    assert 1 == [notice.task_id for notice in doomed.store.notifications.peek()].count(task_id)


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
    assert 1 == doomed.told(task_id)


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
    assert 1 == host.told(task_id)
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
    with pytest.raises(BackendError, match="the task's record tells more"):
        backend.submit(die).result(PATIENCE)
    assert 2 == backend.submit(divide, 4, by=2).result(PATIENCE)
    backend.shutdown()


def test_a_supervisor_that_cannot_even_begin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # given an interpreter that ends at once
    monkeypatch.setattr(processes, "get_executable", lambda: "/bin/false")
    backend = ProcessBackend()

    # then, whether it ends before or after it was sent its call
    with pytest.raises(BackendError, match=r"nothing ran|has gone"):
        backend.submit(divide, 4, by=2).result(PATIENCE)
    backend.shutdown()


def test_a_supervisor_that_has_gone_before_it_took_its_call_has_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(processes._Supervisor, "begin", lambda *_: False)
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
    starts = []

    def no_python() -> str:
        starts.append(1)
        return "/no/such/python"

    with monkeypatch.context() as broken:
        broken.setattr(processes, "get_executable", no_python)
        host = Host(tmp_path, scan_interval=3600)
        task_id = host.submit("echo", "at last")
        until(lambda: len(starts) == 2)  # and not a thousand by the time it is mended

    # then
    assert "at last" == host.wait(task_id).result
    assert 2 == len(starts)
    host.executor.stop(drain_timeout=PATIENCE)


# --- the host leaves, or dies ---


def test_a_host_that_stops_leaves_running_tasks_to_their_supervisors_and_the_next_host_tells_of_them(
    tmp_path: Path,
) -> None:
    # given a host that stops in the middle
    first = Host(tmp_path)
    task_id = first.submit("hold", tmp_path / "gate")
    supervisor = supervisor_of(first, task_id)
    first.executor.stop()
    assert State.RUNNING is first.store.get(task_id).state

    # when the next host has seen the task, whose slot is taken, and it comes to its end
    second = Host(tmp_path)
    until(lambda: seen(second.executor, *ELSEWHERE))
    waiting = second.submit("echo", "next")
    (tmp_path / "gate").touch()

    # then
    assert str(supervisor) in (second.wait(task_id).result or "")
    assert "next" == second.wait(waiting).result
    second.executor.run_until_idle_sync(timeout=PATIENCE)
    assert [task_id, waiting] == second.ended
    until(lambda: gone(supervisor))
    second.executor.stop(drain_timeout=PATIENCE)


HOST = """
import sys
from animaworks_tasks import Executor, TaskStore
from tests.tools_for_tests import registry
Executor(TaskStore(sys.argv[1], durability="process"), registry, max_workers=1).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A host in a process of its own, on ``tmp_path / "mei"``, that lives until it is killed."""
    command = [sys.executable, "-c", HOST, str(tmp_path / "mei")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        yield process
        process.kill()


def test_an_idle_supervisor_and_its_tool_process_exit_when_their_host_is_killed(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    # given
    store = TaskStore(tmp_path / "mei", durability="process")
    task_id = store.submit("proc", "ids").id
    until(lambda: store.get(task_id).state is State.DONE)
    pids = json.loads(store.get(task_id).result or "")

    # when
    other.kill()

    # then
    for pid in pids:
        until(partial(gone, pid))


def test_a_busy_supervisor_finishes_records_and_tells_when_its_host_is_killed_and_then_exits(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    # given
    store = TaskStore(tmp_path / "mei", durability="process")
    task_id = store.submit("proc", "hold", str(tmp_path / "gate")).id
    until(lambda: store.read_log(task_id))

    # when
    other.kill()
    other.wait()
    (tmp_path / "gate").touch()

    # then
    until(lambda: store.get(task_id).state is State.DONE)
    task = store.get(task_id)
    assert Outcome.COMPLETED is task.outcome
    for pid in json.loads(task.result or ""):
        until(partial(gone, pid))
    assert [task_id] == [notice.task_id for notice in store.notifications.peek()]


# --- what cannot go to a process ---


def test_tools_of_a_script_run_in_processes_too(tmp_path: Path) -> None:
    # given
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, sys
            from animaworks_tasks import Executor, Registry, TaskStore
            registry = Registry()

            @registry.tool("script", "run")
            def run() -> int:
                return os.getpid()

            if __name__ == "__main__":
                with_executor = Executor(TaskStore(sys.argv[1], durability="process"), registry).start()
                task = with_executor.wait_sync(with_executor.submit_sync("script", "run").id, timeout=30)
                print(task.outcome.value, int(task.result) != os.getpid())
                with_executor.stop()
        """)
    )

    # when
    done = subprocess.run([sys.executable, script, tmp_path / "mei"], capture_output=True, timeout=PATIENCE, check=True)

    # then
    assert (b"completed True\n", b"") == (done.stdout, done.stderr)


def test_a_lambda_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    tools = Registry()
    tools.add("tool", "run", lambda: None)
    executor = Executor(TaskStore(tmp_path, durability="process"), tools)
    with pytest.raises(RegistryError, match="tool 'tool run' cannot be found by another process: it is a lambda"):
        executor.start()


def test_a_store_that_other_processes_cannot_see_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a MemoryTaskStore cannot go to another process"):
        Executor(MemoryTaskStore(), registry).start()
    with pytest.raises(TypeError, match="cannot go to another process"):
        Executor(TaskStore(tmp_path, render=lambda _: "text"), registry).start()


# --- a host that lives long ---


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    """Return the ids of this process's children, zombies included."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile, and its children are another's
            found.update(map(int, (thread / "children").read_text().split()))
    return found


def test_starting_and_stopping_for_ever_leaves_no_open_files_and_no_zombies() -> None:
    # given
    files, before = open_files(), children()

    # when
    for _ in range(4):
        backend = ProcessBackend()
        assert 2 == backend.submit(divide, 4, by=2).result(PATIENCE)
        backend.shutdown()

    # then
    until(lambda: len(children()) <= len(before))
    until(lambda: open_files() <= files)


SYNC: Final = """
executor = Executor(TaskStore('mei', language='en'), registry).start()
task = executor.wait_sync(executor.submit_sync('words', 'echo', 'hi').id)
print(task.cause, task.error)
executor.stop()
"""
ASYNC: Final = """
async def main() -> None:
    async with Executor(TaskStore('mei', language='en'), registry) as executor:
        task = await executor.wait((await executor.submit('words', 'echo', 'hi')).id)
        print(task.cause, task.error)
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_script_without_a_guard_is_told_so_instead_of_running_itself_for_ever(tmp_path: Path, program: str) -> None:
    """Each tool process loads the script to find the tool, and so would start an executor, and submit, once more."""
    # given
    script = tmp_path / "host.py"
    script.write_text(
        "import asyncio\n"
        "from animaworks_tasks import Executor, Registry, TaskStore\n"
        "registry = Registry()\n"
        "@registry.tool('words', 'echo')\n"
        "def echo(word: str) -> str:\n"
        "    return word\n" + program
    )

    # when
    ran = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=True
    )

    # then
    assert "Cause.REJECTED" in ran.stdout
    assert 'only under `if __name__ == "__main__":` (host.py, line ' in ran.stdout
    assert 1 == len(list(TaskStore(tmp_path / "mei").list()))


def test_whoever_waits_for_a_supervisor_is_woken_when_the_host_leaves_it(tmp_path: Path) -> None:
    # given
    backend, gate = ProcessBackend(), tmp_path / "gate"
    held = backend.submit(registry.get("proc", "speak").load(), gate)
    until(lambda: any(call.supervisor for call in backend._calls))

    # when
    backend.shutdown(wait=False)

    # then
    with pytest.raises(BackendError, match="we left it"):
        held.result(PATIENCE)
    gate.touch()
