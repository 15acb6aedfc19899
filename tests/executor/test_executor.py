"""What a host does with an executor: submit, wait, cancel, be told, start and stop; with and without an event loop."""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import (
    Backend,
    Cause,
    Executor,
    FuturesBackend,
    InlineBackend,
    MemoryTaskStore,
    Outcome,
    ProcessBackend,
    Registry,
    State,
    Store,
    Task,
    TaskNotFoundError,
    TaskStore,
    ThreadBackend,
    ToolContext,
    run_task,
)
from animaworks_tasks.errors import (
    BackendError,
    ExecutorClosedError,
    RecordError,
    RegistryError,
    UnknownToolError,
    WrongArgumentError,
)
from animaworks_tasks.executor.scheduler import Scheduler
from animaworks_tasks.fs.doorbell import ring
from animaworks_tasks.store.protocol import Claim, utc_now
from animaworks_tasks.task.states import Event, advance
from animaworks_tasks.tools.catalogue import known_tools
from tests import tools_for_tests
from tests.conftest import ManualClock, begin, die, own
from tests.processes import PATIENCE, eventually, in_event_loop, join, until
from tests.tools_for_tests import wait_for

SELDOM = 3600.0  # seconds between looks at everything, where a test wants none


class Workshop:
    """Tools that a test holds, lets go, and counts."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.most_at_once = 0
        self._at_once = 0
        self._mutex = threading.Lock()
        self.registry.add("tool", "echo", self.echo)
        self.registry.add("tool", "hold", self.hold)
        self.registry.add("tool", "again", self.again, on_interrupt="retry")
        self.registry.add("tool", "flaky", self.flaky, retries=3)

    def echo(self, word: str) -> str:
        self.calls.append(word)
        return word

    def hold(self, word: str, *, context: ToolContext) -> str:
        with self._mutex:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        self.calls.append(word)
        while not self.gate.wait(0.005):
            context.raise_if_cancelled()
        with self._mutex:
            self._at_once -= 1
        return word

    def again(self, *, context: ToolContext) -> int:
        return context.attempt

    def flaky(self, *, context: ToolContext) -> int:
        if context.attempt < 3:
            raise ConnectionError("not yet")
        return context.attempt


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    workshop = Workshop()
    yield workshop
    workshop.gate.set()


@pytest.fixture
def memory(clock: ManualClock) -> MemoryTaskStore:
    return MemoryTaskStore(language="en", clock=clock)


def executor_of(store: Store, workshop: Workshop, **options: Any) -> Executor:  # noqa: ANN401 - those of Executor
    merged: dict[str, Any] = {"backend": ThreadBackend(), "max_workers": 2} | options
    return Executor(store, workshop.registry, **merged)


# --- submit, wait, cancel ---


@in_event_loop
async def test_a_submitted_task_runs_and_whoever_waits_gets_its_end(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        task = await executor.submit("tool", "echo", "hello")
        assert (State.PENDING, "echo") == (task.state, task.subcommand)
        done = await executor.wait(task.id, timeout=PATIENCE)
        assert (Outcome.COMPLETED, "hello") == (done.outcome, done.result)
        assert done == await executor.wait(task.id, timeout=0)


@in_event_loop
async def test_a_call_that_no_tool_takes_is_refused_and_nothing_is_queued(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    async with executor_of(memory, workshop) as executor:
        with pytest.raises(UnknownToolError, match="did you mean tool"):
            await executor.submit("tol", "echo", "hello")
        with pytest.raises(WrongArgumentError, match="usage: tool echo"):
            await executor.submit("tool", "echo")
    assert [] == list(memory.list())


@in_event_loop
async def test_waiting_no_longer_than_said_raises_and_the_task_goes_on(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    async with executor_of(memory, workshop) as executor:
        task = await executor.submit("tool", "hold", "it")
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                await executor.wait(task.id, timeout=timeout)
        with pytest.raises(TimeoutError):
            executor.wait_sync(task.id, timeout=0)
        workshop.gate.set()
        assert "it" == (await executor.wait(task.id)).result


@in_event_loop
async def test_giving_up_waiting_does_not_disturb_others_who_wait(memory: MemoryTaskStore, workshop: Workshop) -> None:
    async with executor_of(memory, workshop) as executor:
        # given two who wait for one task
        task = await executor.submit("tool", "hold", "it")
        waits = [asyncio.create_task(executor.wait(task.id)) for _ in range(2)]
        scheduler = executor._scheduler
        assert scheduler is not None
        await eventually(lambda: len(scheduler._watched.get(task.id, ())) == 2)

        # when one gives up
        waits[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]
        await eventually(lambda: len(scheduler._watched[task.id]) == 1)

        # then
        workshop.gate.set()
        assert "it" == (await waits[1]).result


@in_event_loop
async def test_giving_up_while_the_wait_begins_leaves_no_watch_behind(
    memory: MemoryTaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with executor_of(memory, workshop) as executor:
        # given a watch that takes long to begin
        task = await executor.submit("tool", "hold", "it")
        scheduler = executor._scheduler
        assert scheduler is not None
        watch, looked, go_on = scheduler.watch, threading.Event(), threading.Event()

        def slowly(task_id: str) -> Future[Task]:
            future = watch(task_id)
            looked.set()
            go_on.wait(PATIENCE)
            return future

        monkeypatch.setattr(scheduler, "watch", slowly)
        waiting = asyncio.create_task(executor.wait(task.id))
        await eventually(looked.is_set)

        # when
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()

        # then
        await eventually(lambda: task.id not in scheduler._watched)
        workshop.gate.set()


@in_event_loop
async def test_a_task_that_is_not_there_cannot_be_waited_for_or_cancelled(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    async with executor_of(memory, workshop) as executor:
        with pytest.raises(TaskNotFoundError):
            await executor.wait("0" * 12)
        with pytest.raises(TaskNotFoundError):
            await executor.cancel("0" * 12)


@in_event_loop
async def test_a_running_task_is_cancelled_when_its_tool_looks(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        task = await executor.submit("tool", "hold", "it")
        await eventually(lambda: workshop.calls)
        assert State.RUNNING is (await executor.cancel(task.id)).state
        assert Outcome.CANCELLED is (await executor.wait(task.id, timeout=PATIENCE)).outcome


@in_event_loop
async def test_a_pending_task_is_cancelled_at_once_and_told(
    store: Store, workshop: Workshop, clock: ManualClock
) -> None:
    # given a task that is not due yet
    ended: list[Task] = []
    async with executor_of(store, workshop, on_finish=ended.append, clock=clock) as executor:
        task = await executor.submit("tool", "echo", "it", not_before=clock.now + timedelta(days=1))
        await executor.run_until_idle(timeout=PATIENCE)

        # when
        cancelled = await executor.cancel(task.id)
        await executor.run_until_idle(timeout=PATIENCE)

    # then
    assert (Outcome.CANCELLED, []) == (cancelled.outcome, workshop.calls)
    assert [cancelled] == ended


# --- order and number ---


@pytest.mark.parametrize("backend", [InlineBackend, ThreadBackend])
def test_tasks_start_in_order_of_priority_and_then_of_submission(
    backend: Callable[[], Any], store: Store, workshop: Workshop, clock: ManualClock
) -> None:
    # given tasks that were submitted before anybody ran them
    for word, priority in (("c", 0), ("d", 0), ("a", 2), ("e", -1), ("b", 1)):
        store.submit("tool", "echo", word, priority=priority)
        clock.advance(1)

    # when one at a time is run
    executor = executor_of(store, workshop, backend=backend(), max_workers=1).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert list("abcde") == workshop.calls


def test_a_task_is_not_started_before_its_time(store: Store, workshop: Workshop, clock: ManualClock) -> None:
    # given
    executor = executor_of(store, workshop, clock=clock, backend=InlineBackend()).start()
    for word, seconds in (("late", 60), ("soon", 30), ("now", 0)):
        executor.submit_sync("tool", "echo", word, not_before=clock.now + timedelta(seconds=seconds))

    # when, then
    for seconds, called in ((29, ["now"]), (1, ["now", "soon"]), (30, ["now", "soon", "late"])):
        executor.run_until_idle_sync(timeout=PATIENCE)
        clock.advance(seconds)
        executor.run_until_idle_sync(timeout=PATIENCE)
        assert called == workshop.calls
    executor.stop()


def test_a_task_that_becomes_due_is_started_without_being_rung_for(files: TaskStore, workshop: Workshop) -> None:
    # given the time as it is
    store = TaskStore(files.location, durability="process")
    executor = executor_of(store, workshop, scan_interval=SELDOM).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    task = executor.submit_sync(
        "tool", "echo", "it", not_before=store.submit("tool", "echo", "x").submitted_at + timedelta(seconds=0.2)
    )

    # then
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()


def test_no_more_tasks_run_at_once_than_there_are_workers(store: Store, workshop: Workshop) -> None:
    # given
    executor = executor_of(store, workshop, max_workers=2).start()
    for word in "abcde":
        executor.submit_sync("tool", "hold", word)
    until(lambda: len(workshop.calls) == 2)

    # when
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert (2, set("abcde")) == (workshop.most_at_once, set(workshop.calls))


def test_there_is_at_least_one_worker(memory: MemoryTaskStore, workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="max_workers must be at least 1, not 0"):
        executor_of(memory, workshop, max_workers=0)


def test_tasks_of_others_count_against_the_workers(files: TaskStore, workshop: Workshop) -> None:
    # given a task that another host runs
    claim = begin(files)
    executor = executor_of(files, workshop, max_workers=1, scan_interval=0.02).start()
    task = executor.submit_sync("tool", "echo", "it")
    until(lambda: executor._scheduler is not None and executor._scheduler._others)
    assert [] == workshop.calls

    # when
    files.finish(claim, Event.COMPLETE)

    # then
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()


def test_a_place_in_the_queue_is_given_up_with_the_task(
    files: TaskStore, workshop: Workshop, clock: ManualClock
) -> None:
    # given a task that waits for a worker
    executor = executor_of(files, workshop, max_workers=1, clock=clock).start()
    executor.submit_sync("tool", "hold", "first")
    until(lambda: workshop.calls)
    waiting = executor.submit_sync("tool", "echo", "second")
    until(lambda: executor._scheduler is not None and waiting.id in executor._scheduler._known)

    # when another host takes it, and puts it back for an hour later
    claim = own(files, waiting.id)
    until(lambda: executor._scheduler is not None and waiting.id not in _looked(executor)._known)
    files.release(claim, pause=3600)
    until(lambda: waiting.id in _looked(executor)._known)
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)

    # then it does not start from the place that it had
    assert (["first"], State.PENDING) == (workshop.calls, files.get(waiting.id).state)
    executor.stop()


def _looked(executor: Executor) -> Any:  # noqa: ANN401 - a part that a test looks into
    """Return the scheduler of *executor*, made to look at everything soon."""
    assert executor._scheduler is not None
    executor._scheduler._next_look = 0.0
    executor._scheduler.wake()
    return executor._scheduler


# --- being told ---


@in_event_loop
async def test_each_end_is_told_once_to_every_callback_and_what_they_raise_is_only_logged(
    store: Store, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    # given callbacks of every kind
    told: dict[str, list[str]] = {}
    loops: list[object] = []

    def tell(who: str, task: Task) -> None:
        told.setdefault(who, []).append(task.id)

    async def tell_in_loop(who: str, task: Task) -> None:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        tell(who, task)

    def broken(_: Task) -> None:
        raise RuntimeError("broken callback")

    async def broken_in_loop(_: Task) -> None:
        raise RuntimeError("broken in the loop")

    class Telling:
        def __init__(self, task: Task) -> None:
            self.task = task

        def __await__(self) -> Generator[Any, None, None]:
            return tell_in_loop("awaitable", self.task).__await__()

    callbacks = [
        broken,
        broken_in_loop,
        functools.partial(tell, "sync"),
        functools.partial(tell_in_loop, "async"),
        lambda task: tell_in_loop("lambda", task),
        Telling,
    ]

    # when
    async with executor_of(store, workshop, on_finish=callbacks) as executor:
        ids = [(await executor.submit("tool", "echo", word)).id for word in "abc"]
        await executor.run_until_idle(timeout=PATIENCE)

    # then
    assert {who: sorted(ids) for who in ("sync", "async", "lambda", "awaitable")} == {
        who: sorted(each) for who, each in told.items()
    }
    assert {asyncio.get_running_loop()} == set(loops)
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert sorted(3 * ["broken callback"] + 3 * ["broken in the loop"]) == sorted(errors)


def test_an_async_callback_is_called_also_where_there_is_no_loop(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    told: list[str] = []

    async def tell(task: Task) -> None:
        await asyncio.sleep(0)
        told.append(task.id)

    # when
    executor = executor_of(memory, workshop, on_finish=tell).start()
    task = executor.submit_sync("tool", "echo", "it")
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert [task.id] == told


@pytest.mark.parametrize("backend", [InlineBackend, ThreadBackend])
@pytest.mark.parametrize("with_loop", [True, False])
def test_what_a_callback_submits_is_run_too_before_all_is_idle(
    backend: Callable[[], Any],
    with_loop: bool,  # noqa: FBT001 - a parameter
    memory: MemoryTaskStore,
    workshop: Workshop,
) -> None:
    # given a callback that submits a successor, twice
    def follow(task: Task) -> None:
        if len(task.argv[1]) < 3:
            executor.submit_sync("tool", "echo", task.argv[1] + "'")

    executor = executor_of(memory, workshop, backend=backend(), on_finish=follow)

    # when
    async def main() -> None:
        async with executor:
            await executor.submit("tool", "echo", "a")
            await executor.run_until_idle(timeout=PATIENCE)

    if with_loop:
        asyncio.run(main())
    else:
        executor.start()
        executor.submit_sync("tool", "echo", "a")
        executor.run_until_idle_sync(timeout=PATIENCE)
        executor.stop()

    # then
    assert ["a", "a'", "a''"] == workshop.calls


def test_a_callback_that_does_not_return_keeps_all_from_being_idle(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    executor = executor_of(memory, workshop, on_finish=lambda _: workshop.gate.wait(PATIENCE)).start()
    executor.wait_sync(executor.submit_sync("tool", "echo", "it").id, timeout=PATIENCE)

    async def in_loop() -> None:
        await executor.run_until_idle(timeout=0.05)

    # then
    with pytest.raises(TimeoutError, match="callbacks still run"):
        executor.run_until_idle_sync(timeout=0.05)
    with pytest.raises(TimeoutError, match="callbacks still run"):
        asyncio.run(in_loop())
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()


def test_a_store_in_which_something_runs_is_not_idle(memory: MemoryTaskStore, workshop: Workshop) -> None:
    executor = executor_of(memory, workshop).start()
    executor.submit_sync("tool", "hold", "it")
    with pytest.raises(TimeoutError):
        executor.run_until_idle_sync(timeout=0.05)
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()


# --- retries and the dead ---


def test_a_failing_task_is_run_again_after_its_pause(files: TaskStore, workshop: Workshop) -> None:
    # given a clock that the test moves on
    store, clock = TaskStore(files.location, durability="process"), ManualClock()
    executor = executor_of(store, workshop, clock=clock, backend=InlineBackend()).start()
    task = executor.submit_sync("tool", "flaky")

    # when
    for _ in range(3):
        executor.run_until_idle_sync(timeout=PATIENCE)
        due = store.get(task.id).not_before
        clock.now = due or clock.now

    # then
    assert "3" == store.get(task.id).result
    executor.stop()


def test_tasks_whose_host_died_are_settled_at_the_start_and_told_once(store: Store, workshop: Workshop) -> None:
    # given two tasks whose owner has died, one of which is safe to run again
    claims = [begin(store, tool="image_gen"), own(store, store.submit("tool", "again").id)]
    for claim in claims:
        die(claim)
    ended: list[Task] = []

    # when
    executor = executor_of(store, workshop, on_finish=ended.append).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    results = {task.id: (task.cause, task.result) for task in ended}
    assert {claims[0].task.id: (Cause.INTERRUPTED, None), claims[1].task.id: (None, "2")} == results
    assert 2 == len(ended)


class Fragile(ThreadBackend):
    """Loses its first calls: it runs them up to the claim, and then the one who ran them is dead."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store, self.lost = store, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as ThreadBackend
        if self.lost:
            return super().submit(fn, *args, **kwargs)
        self.lost += 1
        return super().submit(self._die, *args)

    def _die(self, _store: Store, _registry: Registry, task_id: str, _due_by: object) -> None:
        die(own(self._store, task_id))
        raise RuntimeError("this host is dead")


def test_a_task_whose_process_died_is_settled_soon_and_told_once(
    memory: MemoryTaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a backend that loses a call, and a host that would look at everything in an hour
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._SOON", 0.01)
    ended: list[Task] = []
    options = {"backend": Fragile(memory), "scan_interval": SELDOM, "on_finish": ended.append}
    executor = executor_of(memory, workshop, **options).start()

    # when
    task = executor.submit_sync("tool", "echo", "it")
    done = executor.wait_sync(task.id, timeout=PATIENCE)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert Cause.INTERRUPTED is done.cause
    assert [done] == ended


def test_a_backend_that_takes_no_calls_leaves_tasks_pending_until_it_does(
    memory: MemoryTaskStore, workshop: Workshop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    backend = ThreadBackend()
    refusals: list[object] = []

    def refuse(*call: object) -> None:
        refusals.append(call)
        raise RuntimeError("come back later")

    with monkeypatch.context() as busy:
        busy.setattr(backend, "submit", refuse)
        executor = executor_of(memory, workshop, backend=backend, scan_interval=0.01).start()
        task = executor.submit_sync("tool", "echo", "it")
        until(lambda: len(refusals) > 1)
        assert State.PENDING is memory.get(task.id).state

    # then
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()
    assert "could not be handed to" in caplog.text


# --- many at once ---


def test_many_are_submitted_checked_and_run(store: Store, workshop: Workshop) -> None:
    words = [f"word {number}" for number in range(20)]
    executor = executor_of(store, workshop).start()
    tasks = executor.submit_many_sync("tool", [["echo", word] for word in words])
    assert words == [executor.wait_sync(task.id, timeout=PATIENCE).result for task in tasks]
    with pytest.raises(WrongArgumentError):
        executor.submit_many_sync("tool", [["echo", "it"], ["echo"]])
    with pytest.raises(ValueError, match="of one subcommand, not of echo, hold"):
        executor.submit_many_sync("tool", [["echo", "it"], ["hold", "it"]])
    executor.stop()
    assert sorted(words) == sorted(workshop.calls)


@in_event_loop
async def test_many_are_submitted_from_an_event_loop(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        first, second = await executor.submit_many("tool", [["echo", "a"], ["echo", "b"]])
        assert ("a", "b") == ((await executor.wait(first.id)).result, (await executor.wait(second.id)).result)


# --- a long backlog ---


@pytest.mark.parametrize("rest", [0.0, 6.0, SELDOM])
def test_a_backlog_is_read_step_by_step_and_all_of_it_is_run(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, rest: float
) -> None:
    """Also where no more is read for as long as anything is ready: then it is read when nothing is."""
    # given
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._AT_ONCE", 3)
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._REST", rest)
    words = [f"word {number}" for number in range(20)]
    files.submit_many("tool", [["echo", word] for word in words])
    later = files.submit("tool", "echo", "later", not_before=utc_now() + timedelta(hours=1))

    # when
    executor = executor_of(files, workshop, scan_interval=SELDOM).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert sorted(words) == sorted(workshop.calls)
    assert {later.id} == files.pending_ids()


def test_the_first_of_a_backlog_runs_before_all_of_it_is_read(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._AT_ONCE", 3)
    monkeypatch.setattr("animaworks_tasks.executor.scheduler._REST", float("inf"))
    files.submit_many("tool", [["hold", str(number)] for number in range(20)])

    # when
    executor = executor_of(files, workshop, max_workers=1, scan_interval=SELDOM).start()
    scheduler = executor._scheduler
    assert scheduler is not None
    until(lambda: workshop.calls)

    # then
    assert 17 == len(scheduler._unread)
    workshop.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()
    assert 20 == len(workshop.calls)


# --- several hosts ---


def test_of_two_executors_on_one_store_each_task_runs_once_and_both_are_told_by_waiting(
    files: TaskStore, workshop: Workshop
) -> None:
    # given
    ended: list[str] = []
    tell = lambda task: ended.append(task.id)  # noqa: E731 - one for both
    executors = [
        executor_of(files, workshop, max_workers=16, scan_interval=0.02, on_finish=tell).start() for _ in range(2)
    ]

    # when
    words = [f"word {number}" for number in range(20)]
    ids = [executors[0].submit_sync("tool", "echo", word).id for word in words]

    # then
    for executor in executors:
        assert words == [executor.wait_sync(task_id, timeout=PATIENCE).result for task_id in ids]
        executor.run_until_idle_sync(timeout=PATIENCE)
    for executor in executors:
        executor.stop()
    assert sorted(words) == sorted(workshop.calls)
    assert set(ids) <= set(ended)
    assert all(ended.count(task_id) <= 2 for task_id in ids)  # at most once by each


def test_the_end_of_a_task_that_another_host_runs_is_learnt_and_told_once(files: TaskStore, workshop: Workshop) -> None:
    # given a task that another host runs, and somebody who waits for it here
    claim = begin(files)
    ended: list[Task] = []
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    waiting: list[Task] = []
    thread = threading.Thread(target=lambda: waiting.append(executor.wait_sync(claim.task.id, timeout=PATIENCE)))
    thread.start()
    until(lambda: executor._scheduler is not None and executor._scheduler._others)

    # when
    done = files.finish(claim, Event.COMPLETE, result="made there")

    # then
    join(thread)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()
    assert ([done], [done]) == (waiting, ended)


@pytest.mark.parametrize("dies", [False, True], ids=["tidies up late", "dies before it tidies up"])
def test_an_end_is_told_once_and_only_when_its_owner_is_through(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, *, dies: bool
) -> None:
    # given an owner that has written the outcome, and has not yet taken its running entry away
    claim = begin(files)
    ended: list[Task] = []
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    scheduler = executor._scheduler
    assert scheduler is not None
    until(lambda: scheduler._others)
    done = files._records.settle(advance(claim.task, Event.COMPLETE, finished_at=utc_now()))

    # when it rings, is looked at, and looked at again
    ring(files.layout.doorbell, done.id)
    looks = itertools.count()
    recover = files.recover
    monkeypatch.setattr(files, "recover", lambda *args: (next(looks), recover(*args))[1])
    until(lambda: next(looks) > 4)

    # then it is not told yet
    assert [] == ended
    with pytest.raises(TimeoutError, match=f"task {done.id} is not done after 0.01 s; it goes on"):
        executor.wait_sync(done.id, timeout=0.01)

    # when
    if not dies:
        files._records.forget_running(done.id)
    die(claim)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert [done] == ended


def test_the_end_of_a_task_of_another_host_is_told_also_if_nobody_rings(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    claim = begin(files)
    ended: list[Task] = []
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    until(lambda: executor._scheduler is not None and executor._scheduler._others)

    # when
    monkeypatch.setattr("animaworks_tasks.store.directory.ring", lambda *_: None)
    done = files.finish(claim, Event.COMPLETE)

    # then
    until(lambda: ended)
    executor.stop()
    assert [done] == ended


# --- what others write ---


def plain_record(store: TaskStore, task_id: str, text: str | None = None) -> Path:
    """Write a pending record as anyone may: eight keys, one write, no bell."""
    record = {
        "task_id": task_id,
        "tool_name": "tool",
        "subcommand": "echo",
        "raw_args": ["echo", "by hand"],
        "anima_name": "mei",
        "anima_dir": "/somewhere",
        "submitted_at": time.time(),
        "status": "pending",
    }
    path = Path(store.layout.pending, f"{task_id}.json")
    path.write_text(json.dumps(record) if text is None else text)
    return path


def test_a_record_written_by_hand_is_found_by_the_next_look(files: TaskStore, workshop: Workshop) -> None:
    executor = executor_of(files, workshop, scan_interval=0.02).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    plain_record(files, "0123456789ab")
    until(lambda: workshop.calls)
    assert "by hand" == executor.wait_sync("0123456789ab", timeout=PATIENCE).result
    executor.stop()


def test_a_submit_elsewhere_rings_and_is_run_at_once(store: Store, workshop: Workshop) -> None:
    # given a host that would look in an hour
    executor = executor_of(store, workshop, scan_interval=SELDOM).start()
    executor.run_until_idle_sync(timeout=PATIENCE)

    # when
    task = store.submit("tool", "echo", "rung for")

    # then
    assert "rung for" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()


def test_a_record_that_cannot_be_read_ends_rejected_and_the_queue_goes_on(files: TaskStore, workshop: Workshop) -> None:
    # given one that is old enough not to be half written
    path = plain_record(files, "0123456789ab", "{")
    os.utime(path, (0, 0))
    ended: list[Task] = []

    # when
    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=ended.append).start()
    task = executor.submit_sync("tool", "echo", "it")
    executor.wait_sync(task.id, timeout=PATIENCE)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert Cause.REJECTED is files.get("0123456789ab").cause
    assert sorted(["0123456789ab", task.id]) == sorted(each.id for each in ended)


def test_a_record_that_is_still_being_written_is_given_time(files: TaskStore, workshop: Workshop) -> None:
    # given
    path = plain_record(files, "0123456789ab", '{"task_id": ')
    executor = executor_of(files, workshop, scan_interval=0.02).start()
    executor.run_until_idle_sync(timeout=PATIENCE)
    assert path.exists()

    # when
    plain_record(files, "0123456789ab")

    # then
    until(lambda: workshop.calls)
    assert "by hand" == executor.wait_sync("0123456789ab", timeout=PATIENCE).result
    executor.stop()


@pytest.mark.parametrize(
    ("error", "said"), [(OSError(5, "Input/output error"), ": [Errno 5]"), (ZeroDivisionError("odd"), "\nTraceback")]
)
def test_a_task_that_cannot_be_looked_at_does_not_stop_the_queue(
    files: TaskStore,
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    said: str,
) -> None:
    # given
    pending = files.pending

    def broken(task_id: str) -> Task | None:
        if task_id == "0123456789ab":
            raise error
        return pending(task_id)

    monkeypatch.setattr(files, "pending", broken)
    plain_record(files, "0123456789ab")
    executor = executor_of(files, workshop, scan_interval=0.02).start()

    # when
    tasks = [executor.submit_sync("tool", "echo", word) for word in "ab"]

    # then
    for task in tasks:
        executor.wait_sync(task.id, timeout=PATIENCE)
    executor.stop()
    assert f"task 0123456789ab cannot be looked at, trying again{said}" in caplog.text


def test_a_catalogue_that_cannot_be_written_does_not_stop_the_queue(
    files: TaskStore, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    # given something else where the catalogue belongs
    Path(files.layout.catalogue).mkdir()
    executor = executor_of(files, workshop, scan_interval=0.02).start()
    task = executor.submit_sync("tool", "echo", "it")
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    assert "the catalogue of tools could not be published" in caplog.text

    # when it is mended
    Path(files.layout.catalogue).rmdir()

    # then
    until(lambda: known_tools(files.layout))
    executor.stop()


def test_a_look_that_fails_is_logged_and_the_next_one_works(
    memory: MemoryTaskStore,
    workshop: Workshop,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    monkeypatch.setattr("animaworks_tasks.executor.executor._PAUSE_AFTER_ERROR", 0.01)

    def broken() -> set[str]:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(memory, "pending_ids", broken)
        executor = executor_of(memory, workshop, scan_interval=0.01).start()
        until(lambda: "a look at memory failed" in caplog.text)

    # then
    task = executor.submit_sync("tool", "echo", "it")
    assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
    executor.stop()


# --- starting and stopping ---


def test_stopping_waits_for_threads_up_to_its_limit(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    executor = executor_of(memory, workshop, max_workers=1).start()
    task = executor.submit_sync("tool", "hold", "runs")
    until(lambda: workshop.calls)
    waiting = executor.submit_sync("tool", "hold", "waits")

    # when
    stopping = threading.Thread(target=executor.stop)
    stopping.start()
    until(lambda: executor._scheduler is not None and executor._scheduler._full_house)
    workshop.gate.set()
    join(stopping)

    # then what ran has ended, and nothing was begun
    assert (State.DONE, State.PENDING) == (memory.get(task.id).state, memory.get(waiting.id).state)


def test_stopping_at_once_leaves_threads_behind_and_says_so(
    memory: MemoryTaskStore, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    executor = executor_of(memory, workshop).start()
    task = executor.submit_sync("tool", "hold", "runs")
    until(lambda: workshop.calls)

    # when
    executor.stop(drain_timeout=0)

    # then it goes on, and its end disturbs nobody
    assert f"tasks still running when the executor stopped: {task.id}" in caplog.text
    workshop.gate.set()
    until(lambda: memory.get(task.id).state is State.DONE)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@in_event_loop
async def test_whoever_waits_when_the_executor_stops_is_told_so(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given
    executor = executor_of(memory, workshop, drain_timeout=0)
    async with executor:
        task = await executor.submit("tool", "hold", "it")
        waiting = asyncio.create_task(executor.wait(task.id))
        idle = asyncio.create_task(executor.run_until_idle())
        scheduler = executor._scheduler
        await eventually(lambda: scheduler and scheduler._watched and scheduler._idle_watched)

    # then
    for each in (waiting, idle):
        with pytest.raises(ExecutorClosedError, match="stopped while this was waited for"):
            await each


@in_event_loop
async def test_an_executor_that_does_not_run_says_so(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given one that was never started, which can still submit
    executor = executor_of(memory, workshop)
    task = await executor.submit("tool", "echo", "it")
    with pytest.raises(ExecutorClosedError, match="not running"):
        await executor.wait(task.id)

    # and one that was stopped
    async with executor:
        await executor.run_until_idle(timeout=PATIENCE)
    assert "it" == memory.get(task.id).result
    for use in (
        executor.wait(task.id),
        executor.run_until_idle(),
        executor.submit("tool", "echo", "it"),
        executor.cancel(task.id),
    ):
        with pytest.raises(ExecutorClosedError):
            await use
    with pytest.raises(ExecutorClosedError, match="started once"):
        executor.start()


def test_nobody_can_begin_to_wait_while_the_executor_closes(memory: MemoryTaskStore, workshop: Workshop) -> None:
    executor = executor_of(memory, workshop).start()
    scheduler = executor._scheduler
    assert scheduler is not None
    executor.stop()
    with pytest.raises(ExecutorClosedError):
        scheduler.watch_idle()
    with pytest.raises(ExecutorClosedError):
        scheduler.watch("0" * 12)
    scheduler.wake()


@in_event_loop
async def test_stopping_twice_or_before_the_start_does_nothing(memory: MemoryTaskStore, workshop: Workshop) -> None:
    executor_of(memory, workshop).stop()
    async with executor_of(memory, workshop) as executor:
        await asyncio.to_thread(executor.stop)


def test_starting_and_stopping_at_once_is_no_race(memory: MemoryTaskStore, workshop: Workshop) -> None:
    for _ in range(50):
        executor_of(memory, workshop).start().stop()
    assert [] == memory._bells


def test_somebody_elses_pool_runs_tasks_too(memory: MemoryTaskStore, workshop: Workshop) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        executor = executor_of(memory, workshop, backend=FuturesBackend(pool)).start()
        task = executor.submit_sync("tool", "echo", "it")
        assert "it" == executor.wait_sync(task.id, timeout=PATIENCE).result
        executor.stop()


# --- inline ---


@in_event_loop
async def test_inline_tasks_run_where_they_are_waited_for_and_nothing_is_started(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    # given
    ended: list[str] = []

    async def tell(task: Task) -> None:
        ended.append(task.id)

    before = threading.active_count()
    async with executor_of(memory, workshop, backend=InlineBackend(), on_finish=tell) as executor:
        tasks = [await executor.submit("tool", "echo", word) for word in "ab"]
        assert [] == workshop.calls

        # when
        assert "b" == (await executor.wait(tasks[1].id)).result
        await executor.run_until_idle()

    # then
    assert before == threading.active_count()
    assert {task.id for task in tasks} == set(ended)
    assert 2 == len(ended)


def test_inline_waiting_ends_in_time_for_a_task_that_another_runs(memory: MemoryTaskStore, workshop: Workshop) -> None:
    claim = begin(memory)
    executor = executor_of(memory, workshop, backend=InlineBackend(), scan_interval=SELDOM).start()
    with pytest.raises(TimeoutError):
        executor.wait_sync(claim.task.id, timeout=0.05)
    with pytest.raises(TimeoutError):
        executor.run_until_idle_sync(timeout=0)
    memory.finish(claim, Event.COMPLETE)
    assert State.DONE is executor.wait_sync(claim.task.id).state
    executor.stop()


def test_ctrl_c_in_an_inline_tool_reaches_the_host_and_the_task_is_settled_next(memory: MemoryTaskStore) -> None:
    # given
    registry = Registry()

    def interrupt() -> None:
        raise KeyboardInterrupt

    registry.add("tool", "run", interrupt)
    executor = Executor(memory, registry, backend=InlineBackend()).start()
    task = executor.submit_sync("tool", "run")

    # when
    with pytest.raises(KeyboardInterrupt):
        executor.run_until_idle_sync()

    # then
    executor.run_until_idle_sync()
    assert Cause.INTERRUPTED is memory.get(task.id).cause
    executor.stop()


# --- notifications ---


@in_event_loop
async def test_what_is_drained_is_acknowledged_when_the_block_ends_and_not_when_it_raises(
    store: Store, workshop: Workshop
) -> None:
    async with executor_of(store, workshop) as executor:
        task = await executor.submit("tool", "echo", "it")
        await executor.wait(task.id)

        async def read_and_raise(error: BaseException) -> None:
            async with executor.drain_notifications() as drained:
                assert [task.id] == [notice.task_id for notice in drained.notifications]
                raise error

        # given a host that dies of what it reads
        for error in (RuntimeError("unreadable"), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                await read_and_raise(error)

        # then it is shown again, and once only
        async with executor.drain_notifications(budget=10_000) as drained:
            assert task.id in drained.text
        async with executor.drain_notifications() as drained:
            assert () == drained.notifications


# --- the event loop is never blocked ---

FILE_OPERATIONS = ("open", "fsync", "link", "unlink", "rename", "mkdir", "scandir", "lstat", "stat", "read", "listdir")


@in_event_loop
async def test_no_file_is_touched_in_the_thread_of_the_event_loop(
    tmp_path: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given every file operation noted with its thread
    store = TaskStore(tmp_path / "mei")
    threads: dict[str, set[int]] = {name: set() for name in FILE_OPERATIONS}

    def noting(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as os has them
            threads[name].add(threading.get_ident())
            return operation(*args, **kwargs)

        return noted

    executor = executor_of(store, workshop)
    with monkeypatch.context() as patched:
        for name in FILE_OPERATIONS:
            patched.setattr(os, name, noting(name, getattr(os, name)))

        # when
        async with executor:
            task = await executor.submit("tool", "echo", "it")
            await executor.wait(task.id)
            await executor.wait(task.id, timeout=0)
            await executor.cancel((await executor.submit("tool", "hold", "it")).id)
            await executor.run_until_idle()
            async with executor.drain_notifications() as drained:
                assert 2 == len(drained.notifications)

    # then they happened, and elsewhere
    assert {"open", "fsync", "link", "unlink", "lstat"} <= {name for name in threads if threads[name]}
    assert threading.get_ident() not in set().union(*threads.values())


@in_event_loop
async def test_the_loop_goes_on_while_a_disk_is_slow(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that takes until the loop has turned a hundred times more
    turned = threading.Event()
    submit = files.submit

    def slow(*argv: Any, **options: Any) -> Task:  # noqa: ANN401 - as submit
        assert turned.wait(PATIENCE)
        return submit(*argv, **options)

    monkeypatch.setattr(files, "submit", slow)
    async with executor_of(files, workshop) as executor:
        submitting = asyncio.create_task(executor.submit("tool", "echo", "it"))
        for _ in range(100):
            await asyncio.sleep(0)
        turned.set()
        assert State.PENDING is (await submitting).state


def test_starting_and_stopping_for_ever_leaves_no_open_files(files: TaskStore, workshop: Workshop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        executor_of(files, workshop).start().stop()
    assert before >= len(os.listdir("/proc/self/fd"))  # fewer, where earlier tests left some to the collector


def test_processes_are_what_an_executor_uses_unless_told_otherwise(memory: MemoryTaskStore) -> None:
    assert isinstance(Executor(memory, Registry())._backend, ProcessBackend)


# --- races, one step at a time ---


def scheduler_of(
    store: Store,
    workshop: Workshop,
    ended: list[Task],
    *,
    backend: Backend | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> Scheduler:
    """Return a scheduler with one slot and nobody to step it but the test; by default it runs calls on the spot."""
    options: dict[str, Any] = {"slots": 1, "interval": SELDOM, "clock": clock, "on_end": ended.append}
    return Scheduler(store, workshop.registry, backend or InlineBackend(), **options)


def test_a_thread_whose_call_has_ended_starts_the_next_one(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given a scheduler that nobody steps any more
    ended: list[Task] = []
    backend = ThreadBackend()
    scheduler = scheduler_of(memory, workshop, ended, backend=backend)
    held = memory.submit("tool", "hold", "held", priority=4)
    tasks = [
        memory.submit("tool", "echo", word, priority=priority) for word, priority in (("a", 3), ("b", 2), ("c", 1))
    ]
    scheduler.step(set())

    # when
    workshop.gate.set()

    # then
    until(lambda: len(ended) == 4)
    assert [held.id, *(task.id for task in tasks)] == [task.id for task in ended]
    scheduler.close()
    backend.shutdown()


def test_a_thread_whose_call_ends_after_the_scheduler_was_closed_starts_nothing(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    # given
    ended: list[Task] = []
    backend = ThreadBackend()
    scheduler = scheduler_of(memory, workshop, ended, backend=backend)
    held, left = memory.submit("tool", "hold", "held", priority=1), memory.submit("tool", "echo", "left")
    scheduler.step(set())
    until(lambda: workshop.calls)

    # when
    scheduler.close()
    workshop.gate.set()
    backend.shutdown()

    # then
    assert (State.DONE, State.PENDING) == (memory.get(held.id).state, memory.get(left.id).state)
    assert [] == ended


def test_an_end_that_meets_the_watcher_as_it_goes_to_sleep_is_not_slept_through(
    memory: MemoryTaskStore, workshop: Workshop, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a watcher that looks at the clock before it sleeps, and a call that ends just then
    meet = threading.Event()

    def now() -> datetime:
        if meet.is_set():
            meet.clear()
            ended: Future[Task | None] = Future()
            ended.set_result(None)
            other = threading.Thread(target=scheduler._report, args=["0" * 12, ended], kwargs={"unseen": False})
            other.start()
            other.join()
        return clock.now

    scheduler = scheduler_of(memory, workshop, [], backend=ThreadBackend(), clock=now)
    memory.submit("tool", "echo", "later", not_before=clock.now + timedelta(minutes=1))
    scheduler.step(set())

    # when
    meet.set()
    monkeypatch.setattr(scheduler._bell, "wait", lambda _: pytest.fail("it sleeps"))

    # then
    assert set() == scheduler.wait()
    scheduler.close()


def test_the_end_of_a_task_that_rang_and_was_cancelled_before_it_was_claimed_is_told(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    ended: list[Task] = []
    scheduler = scheduler_of(files, workshop, ended)
    scheduler.step(set())
    task = files.submit("tool", "echo", "it")
    claim = files.claim

    def too_late(task_id: str, due_by: datetime | None = None) -> Claim | None:
        monkeypatch.setattr(files, "claim", claim)
        files.request_cancel(task_id)
        return claim(task_id, due_by=due_by)

    monkeypatch.setattr(files, "claim", too_late)

    # when
    scheduler.step({task.id})
    scheduler.close()

    # then
    assert [Outcome.CANCELLED] == [task.outcome for task in ended]


def test_a_task_that_rings_before_it_is_due_waits_until_it_is(
    memory: MemoryTaskStore, workshop: Workshop, clock: ManualClock
) -> None:
    # given a host that has nothing else to do
    ended: list[Task] = []
    scheduler = scheduler_of(memory, workshop, ended, clock=clock)
    scheduler.step(set())
    task = memory.submit("tool", "echo", "later", not_before=clock.now + timedelta(minutes=1))

    # when
    scheduler.step({task.id})
    assert ([], {task.id}) == (ended, memory.pending_ids())
    clock.advance(60)
    scheduler.step(set())

    # then
    assert ["later"] == [task.result for task in ended]
    scheduler.close()


def test_what_rings_while_others_wait_takes_its_place_among_them(memory: MemoryTaskStore, workshop: Workshop) -> None:
    # given tasks that wait for the only slot
    ended: list[Task] = []
    backend = ThreadBackend()
    scheduler = scheduler_of(memory, workshop, ended, backend=backend)
    memory.submit("tool", "hold", "held", priority=9)
    memory.submit("tool", "echo", "first", priority=1)
    scheduler.step(set())

    # when
    scheduler.step({memory.submit("tool", "echo", "last").id})
    scheduler.step({memory.submit("tool", "echo", "urgent", priority=5).id})
    workshop.gate.set()

    # then
    until(lambda: len(ended) == 4)
    assert ["held", "urgent", "first", "last"] == [task.result for task in ended]
    scheduler.close()
    backend.shutdown()


def test_a_task_that_was_pruned_before_anybody_looked_is_forgotten(memory: MemoryTaskStore, workshop: Workshop) -> None:
    scheduler = scheduler_of(memory, workshop, [])
    scheduler.step({"0" * 12})
    assert (set(), []) == (scheduler._others, workshop.calls)
    scheduler.close()


def test_a_record_that_was_completed_between_two_looks_is_queued(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a record that could not be read when it was looked at, and can be when it is claimed
    ended: list[Task] = []
    scheduler = scheduler_of(files, workshop, ended)
    plain_record(files, "0123456789ab")
    pending = files.pending

    def too_early(_: str) -> Task | None:
        monkeypatch.setattr(files, "pending", pending)
        raise RecordError("0123456789ab", "it is half written")

    monkeypatch.setattr(files, "pending", too_early)

    # when
    scheduler.step(set())
    scheduler.close()

    # then that look was no attempt
    assert [("by hand", 1)] == [(task.result, task.attempt) for task in ended]


def test_an_unreadable_record_that_another_host_took_away_is_left_to_it(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a record that another host claims between our two looks at it
    ended: list[Task] = []
    scheduler = scheduler_of(files, workshop, ended)
    task = files.submit("tool", "echo", "it")
    pending = files.pending

    def claimed_meanwhile(task_id: str) -> Task | None:
        monkeypatch.setattr(files, "pending", pending)
        own(files, task_id)
        raise RecordError(task_id, "it is half gone")

    monkeypatch.setattr(files, "pending", claimed_meanwhile)

    # when
    scheduler.step({task.id})
    scheduler.close()

    # then
    assert ([], State.RUNNING) == (ended, files.get(task.id).state)


# --- an owner that dies between the commit and the notice, on a disk that refuses ---


def committed(files: TaskStore, claim: Claim) -> Task:
    """Let the owner of *claim* die as soon as the outcome is in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files._records.notifications, "publish", lambda *_: False)
        done = files._records.settle(advance(claim.task, Event.COMPLETE, finished_at=utc_now()))
    die(claim)
    return done


@pytest.mark.parametrize("by", ["us", "another host"])
def test_an_end_that_the_disk_would_not_have_settled_is_told_once_when_it_is(
    files: TaskStore, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    # given a task of another host, and a disk that refuses to have it settled
    claim = begin(files)
    ended: list[Task] = []
    told: list[list[str | None]] = []

    def on_finish(task: Task) -> None:
        told.append([notice.task_id for notice in files.notifications.peek()])
        ended.append(task)

    executor = executor_of(files, workshop, scan_interval=0.02, on_finish=on_finish).start()
    scheduler = executor._scheduler
    assert scheduler is not None
    until(lambda: scheduler._others)
    looks = itertools.count()

    def refuse(*_: object) -> None:
        next(looks)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files._recovery, "_recover_one", refuse)
        done = committed(files, claim)
        until(lambda: next(looks) > 6)

        # then it takes no slot, and keeps nobody from being idle
        executor.run_until_idle_sync(timeout=PATIENCE)
        assert [] == ended
        if by == "another host":
            TaskStore(files.location, language="en").recover()

    # and when there is room
    until(lambda: ended)
    for _ in range(3):
        scheduler._next_look = 0.0
        executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()
    assert ([done], [[done.id]]) == (ended, told)


def test_what_a_lost_call_has_ended_is_told_when_its_notice_is_there(files: TaskStore, workshop: Workshop) -> None:
    # given a backend whose workers die between the commit and the notice
    class Dying(ThreadBackend):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 - as they are
            def die_late() -> None:
                committed(files, own(files, args[2]))
                raise BackendError("gone")

            return super().submit(die_late) if fn is run_task else super().submit(fn, *args, **kwargs)

    told: list[list[str | None]] = []
    tell = lambda _: told.append([notice.task_id for notice in files.notifications.peek()])  # noqa: E731 - of this test
    executor = executor_of(files, workshop, backend=Dying(), scan_interval=0.02, on_finish=tell).start()

    # when
    task = executor.submit_sync("tool", "echo", "words")
    executor.wait_sync(task.id, timeout=PATIENCE)
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()

    # then
    assert [[task.id]] == told


# --- coming and going ---


def test_whoever_stops_an_executor_while_another_thread_does_waits_for_that(store: Store, tmp_path: Path) -> None:
    # given a task that keeps the first from leaving
    gate = tmp_path / "gate"
    registry = Registry()
    registry.add("tool", "hold", lambda: wait_for(gate))
    executor = Executor(store, registry, backend=ThreadBackend(), drain_timeout=PATIENCE).start()
    task_id = executor.submit_sync("tool", "hold").id
    until(lambda: store.get(task_id).state is State.RUNNING)
    problems: list[BaseException] = []

    def stop() -> None:
        try:
            executor.stop()
            assert store.get(task_id).state is State.DONE
        except BaseException as problem:
            problems.append(problem)
            raise

    # when
    threads = [threading.Thread(target=stop) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.touch()

    # then
    for thread in threads:
        join(thread)
    assert [] == problems
    executor.stop()


@in_event_loop
async def test_an_executor_whose_start_is_given_up_does_not_stay(store: Store, workshop: Workshop) -> None:
    # given
    executor = executor_of(store, workshop)

    async def use() -> None:
        async with executor:
            raise AssertionError("it was to be given up before")

    # when
    using = asyncio.ensure_future(use())
    await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using

    # then
    await eventually(lambda: executor._scheduler is None or executor._stopping.is_set())
    await eventually(lambda: executor._thread is None or not executor._thread.is_alive())


@in_event_loop
async def test_an_executor_that_works_goes_on_when_it_is_entered_once_more(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        with pytest.raises(ExecutorClosedError, match="started once"):
            await executor.__aenter__()
        task = await executor.submit("tool", "echo", "on")
        assert "on" == (await executor.wait(task.id, timeout=PATIENCE)).result


def test_a_callback_may_stop_the_executor_while_its_host_does(store: Store) -> None:
    # given
    registry = Registry()
    registry.add("tool", "echo", lambda: "done")
    stopping, began = threading.Event(), threading.Event()
    stopped: list[str] = []

    def on_finish(_: Task) -> None:
        began.set()
        assert stopping.wait(PATIENCE)
        executor.stop()
        stopped.append("callback")

    executor = Executor(store, registry, backend=ThreadBackend(), on_finish=on_finish).start()
    leave = executor._leave

    def leaving(*args: Any) -> None:  # noqa: ANN401 - as they are
        stopping.set()
        leave(*args)

    executor._leave = leaving  # type: ignore[method-assign]
    executor.submit_sync("tool", "echo")
    assert began.wait(PATIENCE)

    # when
    executor.stop()

    # then the host has waited for the callback, which has waited for what the host did before that
    assert ["callback"] == stopped


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_an_interval_without_a_pause_is_refused(store: Store, seconds: float) -> None:
    with pytest.raises(ValueError, match="scan_interval must be more than 0"):
        Executor(store, Registry(), scan_interval=seconds)


def test_a_wait_for_idleness_that_is_given_up_says_so_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    # given
    gate = tmp_path / "gate"
    registry = Registry()
    registry.add("tool", "hold", lambda: wait_for(gate))
    executor = Executor(store, registry, backend=ThreadBackend()).start()
    task = executor.submit_sync("tool", "hold")

    # when
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"there is still something to run after 0.01 s"):
            executor.run_until_idle_sync(timeout=0.01)

    # then
    assert executor._scheduler is not None
    assert 1 >= len(executor._scheduler._idle_watched)
    executor.cancel_sync(task.id)
    gate.touch()
    assert Outcome.CANCELLED is executor.wait_sync(task.id, timeout=PATIENCE).outcome
    executor.stop()


# --- somebody else's pool ---


def test_what_cannot_go_to_a_pool_of_processes_is_refused_at_the_start(files: TaskStore) -> None:
    lambdas = Registry()
    lambdas.add("tool", "run", lambda: None)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(RegistryError, match="'tool run' cannot be found by another process"):
            Executor(files, lambdas, backend=FuturesBackend(pool)).start()
        with pytest.raises(TypeError, match="cannot go to another process"):
            Executor(MemoryTaskStore(), Registry(), backend=FuturesBackend(pool)).start()


def test_a_pool_that_a_tool_has_broken_is_told_of_once_and_its_tasks_wait_for_another(
    files: TaskStore, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    executor = Executor(files, tools_for_tests.registry, backend=FuturesBackend(pool), scan_interval=0.02).start()
    with pytest.raises(BrokenExecutor):
        pool.submit(tools_for_tests.die).result(PATIENCE)

    # when
    task = executor.submit_sync("proc", "echo", "later")
    scheduler = executor._scheduler
    assert scheduler is not None
    until(lambda: scheduler._broken)
    looks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        recover = files.recover
        patch.setattr(files, "recover", lambda *args: (next(looks), recover(*args))[1])
        until(lambda: next(looks) > 4)
    executor.stop()

    # then
    assert 1 == sum("is broken and takes no more calls" in record.message for record in caplog.records)
    again = Executor(files, tools_for_tests.registry, backend=ThreadBackend()).start()
    assert "later" == again.wait_sync(task.id, timeout=PATIENCE).result
    again.stop()
    pool.shutdown()
