"""Events: what happens to tasks, by whom ever, as a stream; and what is logged of it."""

from __future__ import annotations

import asyncio
import errno
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from animaworks_tasks import (
    EventKind,
    Executor,
    InlineBackend,
    MemoryTaskStore,
    ProcessBackend,
    Registry,
    Store,
    Task,
    TaskEvent,
    TaskNotFoundError,
    TaskStore,
    ThreadBackend,
    ToolContext,
)
from animaworks_tasks.errors import ExecutorClosedError
from animaworks_tasks.executor.events import EVENTS_KEPT, EVER, Reader, Stream
from animaworks_tasks.store.memory import MemoryWatch
from tests.conftest import ManualClock, own
from tests.executor.workshop import Workshop, executor_of
from tests.processes import PATIENCE, eventually, in_event_loop

SUBMITTED, STARTED, PROGRESS, ENDED, NOTIFIED = EventKind


def climb(*, context: ToolContext) -> str:
    context.progress(0.5, "half way")
    while not context.cancelled and not (context.scratch / "go").exists():
        context.raise_if_cancelled()
    return "up"


def registry_of() -> Registry:
    registry = Registry()
    registry.add("tool", "climb", climb)
    return registry


async def kinds(events: AsyncIterator[TaskEvent], count: int) -> list[tuple[str, EventKind]]:
    """Return the ids and kinds of the next events."""
    async with asyncio.timeout(PATIENCE):
        return [(event.task_id, event.kind) for event in [await anext(events) for _ in range(count)]]


@pytest.mark.parametrize("backend", [ThreadBackend, ProcessBackend])
@in_event_loop
async def test_the_events_of_a_task_come_in_the_order_of_its_life(tmp_path: Path, backend: type) -> None:
    store = TaskStore(tmp_path / "mei")
    async with Executor(store, registry_of(), backend=backend()) as executor:
        # given a reader of a task from its submit on
        task = await executor.submit("tool", "climb")
        found: list[TaskEvent] = []
        async with asyncio.timeout(PATIENCE):
            async for event in executor.events(task.id):
                found.append(event)
                if event.kind is PROGRESS:
                    (store.workspace(task.id).scratch() / "go").touch()

    # then it ends with the notification, and each event has what belongs to it
    assert [SUBMITTED, STARTED, PROGRESS, ENDED, NOTIFIED] == [event.kind for event in found]
    assert {task.id} == {event.task_id for event in found}
    report = found[2].progress
    assert report is not None
    assert (0.5, "half way") == (report.fraction, report.message)
    assert ("up", found[3].task.finished_at) == (found[3].task.result, found[3].at)
    assert [event.at for event in found] == sorted(event.at for event in found)


@in_event_loop
async def test_a_reader_of_all_gets_what_begins_after_it_came(
    store: Store, workshop: Workshop, clock: ManualClock
) -> None:
    registry = registry_of()
    registry.add("tool", "echo", workshop.echo)
    before = store.submit("tool", "climb", not_before=clock())
    clock.advance(1)
    async with Executor(store, registry, backend=ThreadBackend(), clock=clock) as executor:
        events = executor.events()
        # when
        after = await executor.submit("tool", "echo", "a")
        # then
        found = await kinds(events, 6)
        assert [SUBMITTED, STARTED, ENDED, NOTIFIED] == [kind for task_id, kind in found if task_id == after.id]
        assert [STARTED, PROGRESS] == [kind for task_id, kind in found if task_id == before.id]
        await executor.cancel(before.id)
        assert [(before.id, ENDED), (before.id, NOTIFIED)] == await kinds(events, 2)
        await events.aclose()


@in_event_loop
async def test_what_other_processes_do_is_an_event_too(
    files: TaskStore, workshop: Workshop, clock: ManualClock
) -> None:
    async with executor_of(files, workshop, clock=clock) as executor:
        events = executor.events()
        first = asyncio.create_task(kinds(events, 4))
        program = (
            "import sys; from animaworks_tasks import TaskStore; print(TaskStore(sys.argv[1]).submit(*sys.argv[2:]).id)"
        )
        words = [sys.executable, "-c", program, files.location, "tool", "echo", "it"]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=True)
        task_id = done.stdout.strip()
        assert [(task_id, kind) for kind in (SUBMITTED, STARTED, ENDED, NOTIFIED)] == await first
        await events.aclose()


@in_event_loop
async def test_an_event_of_a_task_that_another_host_runs(
    files: TaskStore, workshop: Workshop, clock: ManualClock
) -> None:
    async with executor_of(files, workshop, clock=clock) as executor:
        # given an owner elsewhere, of which the watch alone tells
        events = executor.events()
        task = files.submit("tool", "hold", "it", not_before=files.place.clock().replace(year=9999))
        assert [(task.id, SUBMITTED)] == await kinds(events, 1)
        own(files, task.id)
        assert [(task.id, STARTED)] == await kinds(events, 1)
        await events.aclose()


@in_event_loop
async def test_readers_end_when_the_executor_stops(store: Store, workshop: Workshop, clock: ManualClock) -> None:
    executor = executor_of(store, workshop, clock=clock)
    with pytest.raises(ExecutorClosedError):
        executor.events()
    async with executor:
        reading = [asyncio.create_task(_all(executor.events())) for _ in range(2)]
        task = await executor.submit("tool", "echo", "it")
        await executor.wait(task.id)
        with pytest.raises(TaskNotFoundError):
            await anext(executor.events("0" * 12))
    async with asyncio.timeout(PATIENCE):
        for found in await asyncio.gather(*reading):
            assert [SUBMITTED, STARTED, ENDED, NOTIFIED] == [event.kind for event in found if event.task_id == task.id]


async def _all(events: AsyncIterator[TaskEvent]) -> list[TaskEvent]:
    return [event async for event in events]


@in_event_loop
async def test_each_attempt_is_an_event_and_an_inline_executor_has_events_too(
    memory: MemoryTaskStore, workshop: Workshop, clock: ManualClock
) -> None:
    workshop.registry.add("tool", "retried", workshop.flaky, retries=3)
    async with executor_of(memory, workshop, backend=InlineBackend(), clock=clock) as executor:
        task = await executor.submit("tool", "retried")
        events = executor.events(task.id)
        for _ in range(3):
            await executor.run_until_idle()
            await eventually(lambda: memory.get(task.id).attempt)
            clock.advance(600)
        found = [event.kind async for event in events]
    assert (SUBMITTED, ENDED, NOTIFIED) == (found[0], *found[-2:])
    assert STARTED in found


@in_event_loop
async def test_a_reader_that_is_slow_loses_progress_first_and_then_the_oldest(memory: MemoryTaskStore) -> None:
    # given a stream that is full, with one report in its middle
    stream, task = Stream(), memory.submit("tool", "echo")
    events = [_event(task, ENDED if number != 500 else PROGRESS) for number in range(EVENTS_KEPT)]
    for event in events:
        stream.put(event)

    # when there are two more
    last = [_event(task, NOTIFIED), _event(task, NOTIFIED)]
    for event in (*last, None):
        stream.put(event)

    # then the report is gone, and the first two, for the last and for the end
    found = await _all(stream)
    assert [event for event in events if event.kind is ENDED][2:] + last == found


def _event(task: Task, kind: EventKind) -> TaskEvent:
    return TaskEvent(kind=kind, task_id=task.id, at=task.submitted_at, task=task)


def test_a_reader_gets_each_event_once_however_often_a_task_is_looked_at(memory: MemoryTaskStore) -> None:
    found: list[TaskEvent | None] = []
    reader = Reader(found.append, EVER)
    task = memory.submit("tool", "echo")
    for _ in range(3):
        reader.look(task, EVER, over=False, progress=None)
    done = memory.request_cancel(task.id)
    for over in (False, True, True):
        reader.look(done, EVER, over=over, progress=None)
    assert [SUBMITTED, ENDED, NOTIFIED] == [event and event.kind for event in found]
    assert set() == reader.unfinished()


class Careless(MemoryTaskStore):
    """A store that has no watch at first, as where too many files are open."""

    refusals = 1

    def watch(self, *, closely: bool = False) -> MemoryWatch:
        if closely and self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().watch(closely=closely)


@in_event_loop
async def test_a_watch_that_cannot_be_had_is_had_later(caplog: pytest.LogCaptureFixture) -> None:
    async with Executor(Careless(), registry_of(), backend=ThreadBackend(), scan_interval=0.01) as executor:
        events = executor.events()
        (task_id, kind), *_ = await kinds(_after(events, await executor.submit("tool", "climb")), 1)
        await executor.cancel(task_id)
    assert kind in {SUBMITTED, STARTED}
    assert "the events of tasks cannot be seen, trying again: [Errno 24]" in caplog.text


async def _after(events: AsyncIterator[TaskEvent], _: Task) -> AsyncIterator[TaskEvent]:
    async for event in events:
        yield event


@in_event_loop
async def test_of_a_task_that_was_forgotten_before_its_end_was_seen_no_more_is_awaited(
    memory: MemoryTaskStore, workshop: Workshop
) -> None:
    # given a task of which a reader has heard, and that is gone at the next look
    task = memory.submit("tool", "echo", "word", not_before=EVER.replace(year=9000))
    executor = executor_of(memory, workshop, backend=ThreadBackend())
    async with executor:
        events = executor.events(task.id)
        assert [(task.id, SUBMITTED)] == await kinds(events, 1)
        del memory._tasks[task.id]
        for watch in memory._watches:
            watch.changed(task.id)
        # then
        async with asyncio.timeout(PATIENCE):
            assert [] == [event async for event in events]


def test_start_and_end_are_logged_with_what_a_machine_reads(
    store: Store, workshop: Workshop, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    # given a host that logs at INFO
    caplog.set_level(logging.INFO, "animaworks_tasks")
    with executor_of(store, workshop, clock=clock) as executor:
        task = executor.submit_sync("tool", "echo", "it")
        executor.wait_sync(task.id, timeout=PATIENCE)

    # then
    found = [record for record in caplog.records if getattr(record, "task_id", None) == task.id]
    assert [f"task {task.id} tool:echo started", f"task {task.id} tool:echo completed"] == [
        r.getMessage() for r in found
    ]
    for record in found:
        assert ("tool:echo", 0.0, "INFO") == (vars(record)["tool"], vars(record)["seconds"], record.levelname)
