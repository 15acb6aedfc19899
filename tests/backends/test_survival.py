"""A host that exits in order: what becomes of its tasks is its choice. And a task that kills its worker every time."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Outcome, ProcessBackend, State, Task, TaskStore
from animaworks_tasks.executor.seen import ELSEWHERE
from tests.backends.hosts import Host
from tests.processes import PATIENCE, gone, until
from tests.tools_for_tests import GoingDown


def stopping_host(directory: Path) -> Host:
    return Host(directory, backend=ProcessBackend(on_host_exit="stop"))


def begin(host: Host, subcommand: str, *words: object) -> tuple[str, list[int]]:
    """Submit a task that waits; return its id and the processes that run it, once they do."""
    task_id = host.submit(subcommand, *words)
    until(lambda: host.log(task_id))
    return task_id, [int(word) for word in host.log(task_id).split()]


def test_a_host_that_stops_its_tasks_finishes_them_as_interrupted(tmp_path: Path) -> None:
    # given
    host = stopping_host(tmp_path / "mei")
    task_id, processes = begin(host, "hold", tmp_path / "gate")

    # when
    host.executor.stop()

    # then
    task = host.store.get(task_id)
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (task.outcome, task.cause)
    assert "may have partly run" in (task.error or "")
    assert [task_id] == host.ended == [each.task_id for each in host.store.notifications.peek()]
    for process in processes:
        until(lambda process=process: gone(process))  # type: ignore[misc]  # mypy cannot infer a bound lambda


def test_what_may_run_again_waits_for_the_next_host_and_runs_there(tmp_path: Path) -> None:
    # given
    host = stopping_host(tmp_path / "mei")
    task_id, _ = begin(host, "again", tmp_path / "gate")

    # when
    host.executor.stop()

    # then
    assert (State.PENDING, 1) == (host.store.get(task_id).state, host.store.get(task_id).attempt)
    next_host = Host(tmp_path / "mei")
    assert "attempt 2" == next_host.wait(task_id).result
    next_host.executor.stop(drain_timeout=PATIENCE)


def test_a_machine_that_shuts_down_in_order_leaves_finished_tasks(tmp_path: Path) -> None:
    """Then every process is sent SIGTERM, the supervisors too, whatever their host does."""
    # given
    host = Host(tmp_path / "mei")
    task_id, _ = begin(host, "hold", tmp_path / "gate")

    # when
    os.kill(host.store.get(task_id).owner_pid or 0, signal.SIGTERM)

    # then
    assert Cause.INTERRUPTED is host.wait(task_id).cause

    # then what a host that stays runs next is not interrupted as well
    assert "next" == host.wait(host.submit("echo", "next")).result
    host.executor.stop()


@pytest.mark.parametrize("who", ["tool", "tool, then supervisor", "supervisor, then tool"])
@pytest.mark.parametrize("subcommand", ["hold", "again"])
def test_sigterm_to_any_of_its_processes_does_not_cancel_the_task(tmp_path: Path, who: str, subcommand: str) -> None:
    """A machine that goes down, and systemd for a whole unit, send it to the tool's process as well."""
    # given
    host = Host(tmp_path / "mei")
    task_id, (tool, supervisor) = begin(host, subcommand, tmp_path / "gate")

    # when
    for word in who.split(", then "):
        os.kill({"tool": tool, "supervisor": supervisor}[word], signal.SIGTERM)

    # then
    task = host.wait(task_id)
    if subcommand == "hold":
        assert (Outcome.FAILED, Cause.INTERRUPTED) == (task.outcome, task.cause)
        assert 1 == (task.error or "").count("may have partly run")
    else:
        assert (Outcome.COMPLETED, "attempt 2") == (task.outcome, task.result)
    host.executor.stop(drain_timeout=PATIENCE)


@pytest.mark.parametrize("at", [1, 2], ids=["claims its task", "stores the outcome"])
def test_sigterm_while_a_supervisor_does_what_is_not_the_tools_costs_its_task_nothing(tmp_path: Path, at: int) -> None:
    # given a store that looks at the clock twice in the course of a task
    sent = tmp_path / "sent"
    store = TaskStore(tmp_path / "mei", language="en", clock=GoingDown(os.getpid(), at, sent))
    host = Host(tmp_path / "mei", store=store)

    # when
    task = host.wait(host.submit("echo", "whole"))

    # then
    assert sent.exists()
    assert (Outcome.COMPLETED, "whole", 1) == (task.outcome, task.result, task.attempt)
    assert 1 == host.reported(task.id)
    host.executor.stop(drain_timeout=PATIENCE)


def test_a_host_that_stops_its_tasks_also_stops_one_that_it_has_just_begun(tmp_path: Path) -> None:
    """However far it had come, it is not left running, and what had not begun waits."""
    # given
    host = stopping_host(tmp_path / "mei")
    backend, scheduler = host.executor._backend, host.executor._scheduler
    assert isinstance(backend, ProcessBackend)
    assert scheduler is not None
    task_id = host.submit("hold", tmp_path / "gate")
    until(scheduler.running)

    # when
    host.executor.stop()

    # then
    assert host.store.get(task_id).state is not State.RUNNING
    assert not backend._busy


def test_an_idle_supervisor_that_is_sent_sigterm_exits(tmp_path: Path) -> None:
    host = Host(tmp_path / "mei")
    _, supervisor = host.result("ids")
    os.kill(supervisor, signal.SIGTERM)
    until(lambda: gone(supervisor))
    host.executor.stop()


@pytest.mark.parametrize("options", [{}, {"max_attempts": 2}], ids=["by its tool", "by its submitter"])
def test_a_task_that_kills_its_worker_every_time_is_given_up(tmp_path: Path, options: dict[str, int]) -> None:
    # given
    host = Host(tmp_path / "mei")
    limit = options.get("max_attempts", 3)
    task_id = host.submit("doom", **options)

    # then
    task = host.wait(task_id)
    assert (Outcome.FAILED, Cause.INTERRUPTED, limit) == (task.outcome, task.cause, task.attempt)
    assert limit == len(host.log(task_id).split())
    assert 1 == host.reported(task_id)
    host.executor.stop()


def test_the_next_host_counts_and_can_cancel_what_its_predecessor_left(tmp_path: Path) -> None:
    # given a host that left a running task behind, and the next one, which has one slot
    first = Host(tmp_path / "mei")
    task_id, processes = begin(first, "hold", tmp_path / "gate")
    first.executor.stop()
    second = Host(tmp_path / "mei")
    waiting = second.submit("echo", "next")
    scheduler = second.executor._scheduler
    assert scheduler is not None
    until(lambda: scheduler._seen.ids(*ELSEWHERE))

    # then its slot is taken until the task is cancelled
    assert State.RUNNING is second.store.get(task_id).state
    assert State.PENDING is second.store.get(waiting).state
    second.store.request_cancel(task_id)
    assert Outcome.CANCELLED is second.wait(task_id).outcome
    assert "next" == second.wait(waiting).result
    assert all(map(gone, processes[:1]))
    assert 1 == second.reported(task_id)
    second.executor.stop(drain_timeout=PATIENCE)


def test_a_timeout_is_kept_although_the_host_has_gone(tmp_path: Path) -> None:
    # given
    first = Host(tmp_path / "mei")
    task_id = first.submit("hold", tmp_path / "gate", timeout_seconds=0.5)
    until(lambda: first.log(task_id))
    first.executor.stop()

    # then
    done = until(ended(first, task_id))
    assert (Outcome.FAILED, Cause.TIMEOUT) == (done.outcome, done.cause)
    assert [task_id] == [each.task_id for each in until(first.store.notifications.peek)]


def ended(host: Host, task_id: str) -> Callable[[], Task | None]:
    def look() -> Task | None:
        task = host.store.get(task_id)
        return task if task.state is State.DONE else None

    return look


def test_another_value_of_on_host_exit_is_refused() -> None:
    with pytest.raises(ValueError, match="'detach' or 'stop'"):
        ProcessBackend(on_host_exit="later")  # type: ignore[arg-type]  # what a caller without mypy may write
