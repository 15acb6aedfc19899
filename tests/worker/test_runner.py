"""One task from claim to outcome: what becomes of failures, refusals and retries, and of a disk that is full."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from animaworks_tasks import Cause, MemoryTaskStore, OnInterrupt, Outcome, Registry, State, Task, TaskStore, run_task
from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.store.protocol import Claim
from animaworks_tasks.task.states import Event
from animaworks_tasks.testing import ManualClock
from animaworks_tasks.worker.runner import backoff, may_run_again
from tests.processes import join


def registry_of(function: Callable[..., object], *, retries: int = 0, on_interrupt: str = "fail") -> Registry:
    registry = Registry()
    registry.add("tool", "run", function, retries=retries, on_interrupt=on_interrupt)
    return registry


def fail() -> None:
    raise ConnectionError("not today")


class FullDisk:
    """Stands before a step of a store, and lets it through once the disk has refused it so often."""

    def __init__(self, step: Callable[..., Task], refusals: int, error: OSError | RecordError) -> None:
        self._step, self._refusals, self._error = step, refusals, error

    def __call__(self, claim: Claim, *args: object, **changes: object) -> Task:
        self._refusals -= 1
        if self._refusals >= 0:
            raise self._error
        return self._step(claim, *args, **changes)


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the runner pause without time going by; returns its pauses."""
    slept: list[float] = []
    monkeypatch.setattr("animaworks_tasks.worker.runner.time.sleep", slept.append)
    return slept


# --- refusals ---


def test_a_credential_among_arguments_that_are_refused_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAT_API_KEY", "meow-123456")
    memory = MemoryTaskStore()
    task = run_task(memory, registry_of(fail), memory.submit("tool", "run", "meow-123456").id)
    assert task is not None
    assert (Cause.ARGUMENTS, True, False) == (task.cause, "[CAT_API_KEY]" in str(task.error), "meow" in str(task.error))


def test_a_task_that_is_not_to_be_had_is_left_alone() -> None:
    store = MemoryTaskStore()
    task = store.submit("tool", "run")
    claim = store.claim(task.id)
    assert run_task(store, registry_of(fail), task.id) is None
    assert run_task(store, registry_of(fail), "0" * 12) is None
    assert claim is not None
    assert State.RUNNING is store.get(task.id).state


def test_an_unknown_tool_is_rejected_and_the_nearest_named() -> None:
    store = MemoryTaskStore()
    task = run_task(store, registry_of(fail), store.submit("tol", "run").id)
    assert task is not None
    assert (Outcome.FAILED, Cause.REJECTED) == (task.outcome, task.cause)
    assert task.error is not None
    assert "did you mean tool?" in task.error
    assert [task.id] == [notification.task_id for notification in store.notifications.peek()]


def test_wrong_arguments_fail_as_such_with_the_usage() -> None:
    store = MemoryTaskStore()
    task = run_task(store, registry_of(fail), store.submit("tool", "run", "--loud").id)
    assert task is not None
    assert (Outcome.FAILED, Cause.ARGUMENTS) == (task.outcome, task.cause)
    assert task.error is not None
    assert "usage: tool run" in task.error


def test_a_record_that_asks_for_help_runs_no_command(tmp_path: Path) -> None:
    """Anybody may have written it, and a program that does not know the word does something with it."""
    # given
    registry, store = Registry(), MemoryTaskStore()
    registry.add_command("files", "make", ["touch"])
    # when
    task = run_task(store, registry, store.submit("files", "make", str(tmp_path / "made"), "--help").id)
    # then
    assert task is not None
    assert (Outcome.FAILED, Cause.ARGUMENTS) == (task.outcome, task.cause)
    assert "`animaworks-tool files make --help` prints what this takes" in str(task.error)
    assert [] == list(tmp_path.iterdir())


# --- retries ---


def test_a_failure_with_attempts_left_waits_for_the_next_one_and_the_log_says_so() -> None:
    # given
    store = MemoryTaskStore()
    task_id = store.submit("tool", "run").id
    before = datetime.now(UTC)

    # when
    task = run_task(store, registry_of(fail, retries=1), task_id)

    # then
    assert task is not None
    assert (State.PENDING, 1) == (task.state, task.attempt)
    assert task.not_before is not None
    assert timedelta(seconds=1) <= task.not_before - before
    log = store.read_log(task_id).decode()
    assert "attempt 1 failed: ConnectionError: not today; the next one is in 1." in log
    assert not store.notifications.peek()


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_a_clock_that_is_set_while_a_tool_runs_does_not_change_the_pause_before_its_next_attempt(jump: int) -> None:
    # given
    clock = ManualClock()
    store = MemoryTaskStore(clock=clock)

    def set_the_clock_and_fail() -> None:
        clock.advance(jump)
        raise ConnectionError("not today")

    # when
    task = run_task(store, registry_of(set_the_clock_and_fail, retries=1), store.submit("tool", "run").id)

    # then
    assert task is not None
    assert task.not_before is not None
    assert timedelta(seconds=1) <= task.not_before - clock.now <= timedelta(seconds=1.25)


def test_a_failure_without_attempts_left_is_one() -> None:
    # given
    store = MemoryTaskStore()
    task_id = store.submit("tool", "run").id
    registry = registry_of(fail, retries=2)

    # when
    attempts = [run_task(store, registry, task_id) for _ in range(3)]

    # then
    assert [State.PENDING, State.PENDING, State.DONE] == [task and task.state for task in attempts]
    assert attempts[-1] is not None
    assert (Outcome.FAILED, 3) == (attempts[-1].outcome, attempts[-1].attempt)
    assert [task_id] == [notification.task_id for notification in store.notifications.peek()]


def test_what_a_submitter_says_of_retries_goes_before_what_the_tool_says() -> None:
    store = MemoryTaskStore()
    task = run_task(store, registry_of(fail, retries=5), store.submit("tool", "run", retries=0).id)
    assert task is not None
    assert Outcome.FAILED is task.outcome


def test_what_would_fail_the_same_way_again_is_not_retried() -> None:
    store = MemoryTaskStore()
    task = run_task(store, registry_of(lambda word: word, retries=5), store.submit("tool", "run").id)
    assert task is not None
    assert Cause.ARGUMENTS is task.cause


def test_the_pause_before_a_retry_doubles_up_to_ten_minutes() -> None:
    pauses = [backoff(attempt) for attempt in (1, 2, 3, 10, 11, 1000)]
    for pause, least in zip(pauses, (1, 2, 4, 512, 600, 600), strict=True):
        assert least <= pause <= 1.25 * least


# --- recording the outcome ---


@pytest.mark.parametrize("retries", [0, 1], ids=["an outcome", "a retry"])
def test_what_a_full_disk_refuses_is_offered_again_until_it_is_stored(
    retries: int, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    store = MemoryTaskStore()
    for step in ("finish", "requeue"):
        monkeypatch.setattr(store, step, FullDisk(getattr(store, step), 7, NO_SPACE))

    # when
    task = run_task(store, registry_of(fail, retries=retries), store.submit("tool", "run").id)

    # then
    assert task is not None
    assert task == store.get(task.id)
    assert (State.PENDING if retries else State.DONE) is task.state
    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0] == pauses


@pytest.mark.parametrize("daemon", [True, False])
def test_a_disk_that_stays_full_costs_no_outcome_in_a_thread_that_nobody_waits_for(
    monkeypatch: pytest.MonkeyPatch, *, daemon: bool
) -> None:
    # given
    store = MemoryTaskStore()
    task_id = store.submit("tool", "run").id
    monkeypatch.setattr("animaworks_tasks.worker.runner._PATIENCE", 0.05)  # seconds; less than the first pause
    monkeypatch.setattr(store, "finish", FullDisk(store.finish, 2, NO_SPACE))
    problems: list[BaseException] = []

    def run() -> None:
        try:
            run_task(store, registry_of(lambda: "done"), task_id)
        except OSError as error:
            problems.append(error)

    # when
    thread = threading.Thread(target=run, daemon=daemon)
    thread.start()
    join(thread)

    # then
    assert ([] if daemon else [NO_SPACE]) == problems
    assert ("done" if daemon else None) == store.get(task_id).result


def test_after_a_full_disk_another_trouble_is_given_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a disk that is full for an hour, and then refuses once for another reason
    store = MemoryTaskStore()
    now = [0.0]
    monkeypatch.setattr("animaworks_tasks.worker.runner.time.monotonic", lambda: now[0])
    monkeypatch.setattr("animaworks_tasks.worker.runner.time.sleep", lambda _: now.__setitem__(0, now[0] + 60.0))
    monkeypatch.setattr("animaworks_tasks.worker.runner._is_leaving", lambda: False)
    once = FullDisk(store.finish, 1, OSError(errno.EIO, "Input/output error"))
    monkeypatch.setattr(store, "finish", FullDisk(once, 60, NO_SPACE))

    # then
    task = run_task(store, registry_of(lambda: "done"), store.submit("tool", "run").id)
    assert task is not None
    assert "done" == task.result


def test_who_is_to_go_does_not_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryTaskStore()
    now = [0.0]
    monkeypatch.setattr("animaworks_tasks.worker.runner.time.monotonic", lambda: now[0])
    monkeypatch.setattr("animaworks_tasks.worker.runner.time.sleep", lambda pause: now.__setitem__(0, now[0] + pause))
    monkeypatch.setattr("animaworks_tasks.worker.runner._is_leaving", lambda: True)
    monkeypatch.setattr(store, "finish", FullDisk(store.finish, 100, NO_SPACE))
    with pytest.raises(OSError, match="No space left"):
        run_task(store, registry_of(lambda: "done"), store.submit("tool", "run").id)
    assert now[0] < 20


def test_a_disk_that_stays_broken_leaves_the_task_to_recovery(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    store = MemoryTaskStore()
    task_id = store.submit("tool", "run").id
    hours = itertools.count(0, 3600)
    monkeypatch.setattr("animaworks_tasks.worker.runner.time.monotonic", lambda: float(next(hours)))

    # when
    with monkeypatch.context() as full:
        full.setattr(store, "finish", FullDisk(store.finish, 100, OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            run_task(store, registry_of(lambda: "done"), task_id)
    assert [] == pauses

    # then
    assert [(task_id, Cause.INTERRUPTED)] == [(task.id, task.cause) for task in store.recover().finished]


def test_an_outcome_that_cannot_be_stored_as_it_is_fails_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryTaskStore()
    refusal = RecordError("0" * 12, "it is larger than 1 MiB")
    monkeypatch.setattr(store, "finish", FullDisk(store.finish, 1, refusal))
    task = run_task(store, registry_of(lambda: "done"), store.submit("tool", "run").id)
    assert task is not None
    assert (Cause.RESULT, "its outcome could not be stored: it is larger than 1 MiB") == (task.cause, task.error)


def test_a_task_runs_although_its_view_cannot_be_written(files: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Disk, "show", FullDisk(files.get, 1000, NO_SPACE))
    task = run_task(files, registry_of(lambda: "done"), files.submit("tool", "run").id)
    assert task is not None
    assert "done" == task.result


def test_a_task_that_ignores_its_cancellation_request_is_cancelled_when_it_returns() -> None:
    # given
    store = MemoryTaskStore()
    task_id = store.submit("tool", "run").id

    def tool() -> str:
        store.request_cancel(task_id)
        return "done all the same"

    # when
    task = run_task(store, registry_of(tool), task_id)

    # then
    assert task is not None
    assert (Outcome.CANCELLED, "done all the same") == (task.outcome, task.result)


def test_a_task_with_a_cancellation_request_does_not_start(files: TaskStore) -> None:
    # given a request by a process that died before it could claim the task itself
    started: list[str] = []
    task = files.submit("tool", "run")
    Path(files.layout.cancel(task.id)).touch()

    # when
    claimed = run_task(files, registry_of(lambda: started.append("it")), task.id)

    # then
    assert (None, Outcome.CANCELLED, []) == (claimed, files.get(task.id).outcome, started)


# --- who dies in between ---


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_in_the_middle_of_a_call_leaves_an_orphan_that_recovery_finishes() -> None:
    # given
    store = MemoryTaskStore()
    task_id = store.submit("tool", "run").id

    # when
    with pytest.raises(KeyboardInterrupt):
        run_task(store, registry_of(interrupt), task_id)

    # then
    assert State.RUNNING is store.get(task_id).state
    assert [(task_id, Cause.INTERRUPTED)] == [(task.id, task.cause) for task in store.recover().finished]


@pytest.mark.parametrize(
    ("tools", "tasks", "retries", "runs"),
    [
        ("fail", None, None, 1),
        ("retry", None, None, 3),
        ("retry", OnInterrupt.FAIL, None, 1),
        ("fail", OnInterrupt.RETRY, None, 3),
        ("retry", None, 6, 7),
    ],
)
def test_an_orphan_runs_again_as_its_policy_says_and_not_for_ever(
    tools: str, tasks: OnInterrupt | None, retries: int | None, runs: int
) -> None:
    # given
    store, registry = MemoryTaskStore(), registry_of(interrupt, on_interrupt=tools)
    task_id = store.submit("tool", "run", on_interrupt=tasks, retries=retries).id

    # when
    while store.get(task_id).state is State.PENDING:
        with pytest.raises(KeyboardInterrupt):
            run_task(store, registry, task_id)
        store.recover(may_run_again(registry))

    # then
    task = store.get(task_id)
    assert (Cause.INTERRUPTED, runs) == (task.cause, task.attempt)


def test_an_orphan_whose_tool_is_unknown_does_not_run_again() -> None:
    store = MemoryTaskStore()
    claim = store.claim(store.submit("tool", "run", on_interrupt=OnInterrupt.RETRY).id)
    assert claim is not None
    assert not may_run_again(Registry())(claim.task)
    store.finish(claim, Event.COMPLETE)


def test_the_time_limit_of_a_submit_goes_before_that_of_the_tool() -> None:
    # given
    store, registry = MemoryTaskStore(), Registry()
    registry.add("tool", "run", lambda: "run", timeout_seconds=0)

    # when
    short = run_task(store, registry, store.submit("tool", "run").id)
    long = run_task(store, registry, store.submit("tool", "run", timeout_seconds=600).id)

    # then
    assert short is not None
    assert long is not None
    assert (Cause.TIMEOUT, Outcome.COMPLETED) == (short.cause, long.outcome)
