"""Tools that are plain commands, with real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from animaworks_tasks import Cause, MemoryTaskStore, Outcome, Registry, Task, TaskStore, run_task
from animaworks_tasks.store.protocol import Progress
from tests.processes import gone, join, until


class Run:
    """One command, registered and submitted, with what came of it."""

    def __init__(self, *command: str, argv: tuple[str, ...] = (), cwd: Path | None = None, grace: float = 20) -> None:
        self.registry, self.store = Registry(), MemoryTaskStore()
        self.registry.add_command("command", "run", command, grace_seconds=grace)
        self.id = self.store.submit("command", "run", *argv, cwd=None if cwd is None else str(cwd)).id

    def here(self) -> Task:
        """Run it in this thread."""
        run_task(self.store, self.registry, self.id)
        return self.store.get(self.id)

    def begin(self) -> threading.Thread:
        """Run it in another thread."""
        thread = threading.Thread(target=self.here)
        thread.start()
        return thread

    @property
    def log(self) -> bytes:
        return self.store.read_log(self.id)


def shell(script: str, *, argv: tuple[str, ...] = (), cwd: Path | None = None, grace: float = 20) -> Run:
    """Return the run of a script, by a shell that is the command here; we use none."""
    return Run("/bin/sh", "-c", script, "sh", argv=argv, cwd=cwd, grace=grace)


def test_what_a_command_prints_is_the_result_and_both_streams_are_in_the_log() -> None:
    run = shell('echo "got $1"; echo aside >&2', argv=("it; rm -rf /",))
    assert (Outcome.COMPLETED, "got it; rm -rf /\n") == ((task := run.here()).outcome, task.result)
    assert {b"got it; rm -rf /", b"aside"} == set(run.log.splitlines())


def test_a_command_that_fails_is_reported_by_its_status_and_what_it_said_on_stderr() -> None:
    run = shell("echo result; echo 'no such host' >&2; exit 7")
    task = run.here()
    assert (Cause.TOOL, "exit status 7: no such host") == (task.cause, task.error)
    assert {b"result", b"no such host"} == set(run.log.splitlines())  # and no traceback of ours


def test_a_command_that_fails_silently_is_reported_by_its_status() -> None:
    assert "exit status 1" == shell("exit 1").here().error


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGTERM.value, "it was killed by SIGTERM: ouch"),
        (signal.SIGKILL.value, "it was killed by SIGKILL: ouch"),
        (signal.SIGRTMIN.value + 3, "it was killed by signal 37: ouch"),
    ],
)
def test_a_command_that_is_killed_has_crashed(number: int, words: str) -> None:
    task = shell(f"echo ouch >&2; kill -{number} $$").here()
    assert (Cause.CRASHED, words) == (task.cause, task.error)


def test_a_program_that_is_not_there_is_rejected_with_what_to_do() -> None:
    task = Run("/no/such/program").here()
    assert (Cause.REJECTED, "install /no/such/program, or correct its path") == (task.cause, task.hint)
    assert task.error is not None
    assert task.error.startswith("/no/such/program could not be started: [Errno 2]")


def test_a_command_begins_where_it_was_submitted(tmp_path: Path) -> None:
    assert f"{tmp_path}\n" == shell("pwd", cwd=tmp_path).here().result


def test_a_command_begins_where_the_host_is_if_its_own_place_is_gone(tmp_path: Path) -> None:
    assert f"{Path.cwd()}\n" == shell("pwd", cwd=tmp_path / "gone").here().result


def test_a_command_inherits_the_environment_and_learns_its_task_and_where_its_record_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a host with a variable of its own, and another idea of the Anima's directory
    monkeypatch.setenv("OF_THE_HOST", "kept")
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", "/somewhere/else")
    registry, store = Registry(), TaskStore(tmp_path / "mei", durability="process")
    script = 'echo "$OF_THE_HOST $ANIMAWORKS_TASK_ID $ANIMAWORKS_ANIMA_DIR"'
    registry.add_command("command", "run", ["/bin/sh", "-c", script])

    # when
    task = run_task(store, registry, store.submit("command", "run").id)

    # then
    assert task is not None
    assert f"kept {task.id} {tmp_path / 'mei'}\n" == task.result


def test_bytes_that_are_not_utf_8_are_replaced_in_the_result_and_kept_in_the_log() -> None:
    run = shell(r"printf '\223\372\n'")
    assert ("��\n", b"\x93\xfa\n") == (run.here().result, run.log)


def test_a_command_reports_progress_by_adding_lines_to_a_file(tmp_path: Path) -> None:
    # given a command that reports, and waits until it may go on
    gates = [tmp_path / "0", tmp_path / "1"]
    run = shell(
        'wait_for() { while [ ! -e "$1" ]; do sleep 0.01; done; }\n'
        'printf "0.1 begun\\n0.4 half way th" >> "$ANIMAWORKS_TASK_PROGRESS_FILE"; wait_for "$1"\n'
        'printf "ere\\n" >> "$ANIMAWORKS_TASK_PROGRESS_FILE"; wait_for "$2"\n'
        'echo "nearly there" >> "$ANIMAWORKS_TASK_PROGRESS_FILE"; sleep 600',
        argv=tuple(map(str, gates)),
    )
    thread = run.begin()

    def progress() -> tuple[float | None, str] | None:
        last: Progress | None = run.store.read_progress(run.id)
        return None if last is None else (last.fraction, last.message)

    # then a line counts once it is whole, and needs no number
    until(lambda: progress() == (0.1, "begun"))
    gates[0].touch()
    until(lambda: progress() == (0.4, "half way there"))
    gates[1].touch()
    until(lambda: progress() == (None, "nearly there"))
    run.store.request_cancel(run.id)
    join(thread)


def test_a_command_that_is_cancelled_is_stopped_with_what_it_started() -> None:
    # given a command with a child
    run = shell("sleep 600 & echo $$ $!; wait")
    thread = run.begin()
    pids = [int(pid) for pid in until(lambda: run.log).split()]

    # when
    run.store.request_cancel(run.id)
    join(thread)

    # then
    assert Outcome.CANCELLED is run.store.get(run.id).outcome
    for pid in pids:
        until(partial(gone, pid))


def test_a_command_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    # given
    run = shell("trap '' TERM; echo begun; while :; do sleep 0.01; done", grace=0.05)
    thread = run.begin()
    until(lambda: run.log)

    # when
    run.store.request_cancel(run.id)
    join(thread)

    # then
    assert Outcome.CANCELLED is run.store.get(run.id).outcome


def test_a_command_with_a_cancellation_request_may_tidy_up(tmp_path: Path) -> None:
    # given
    script = """trap 'touch "$0"; exit 0' TERM; echo begun; while :; do sleep 0.01; done"""
    run = Run("/bin/sh", "-c", script, str(tmp_path / "tidied"))
    thread = run.begin()
    until(lambda: run.log)

    # when
    run.store.request_cancel(run.id)
    join(thread)

    # then
    assert Outcome.CANCELLED is run.store.get(run.id).outcome
    assert (tmp_path / "tidied").exists()


@pytest.mark.parametrize("left", ["sleep 600", "yes"], ids=["silent", "that prints for ever"])
def test_a_command_has_ended_when_it_has_whatever_it_left_running(left: str) -> None:
    # given a command that leaves a process behind, which keeps its stdout and stderr
    run = shell(f"{left} & echo $! >&2; echo done")

    # when
    task = run.here()

    # then
    pid = int(until(lambda: next((line for line in run.log.splitlines() if line.isdigit()), b"")))
    try:
        assert Outcome.COMPLETED is task.outcome
        assert task.result is not None
        # In the log, not in the result: that has the beginning alone, where much was printed before.
        assert b"done\n" in run.log
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_command_that_closes_its_streams_is_still_waited_for(tmp_path: Path) -> None:
    # given
    program = (
        "import os, sys, time\n"
        "os.close(1); os.close(2)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "sys.exit(5)"
    )
    run = Run(sys.executable, "-c", program, argv=(str(tmp_path / "gate"),))
    thread = run.begin()

    # when
    (tmp_path / "gate").touch()
    join(thread)

    # then
    assert "exit status 5" == run.store.get(run.id).error
