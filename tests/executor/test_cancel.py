"""Cancelling: a pending task ends at once, a running one when its tool looks."""

from __future__ import annotations

from datetime import timedelta

from animaworks_tasks import (
    Outcome,
    State,
    Store,
    Task,
)
from tests.conftest import ManualClock
from tests.executor.workshop import Workshop, executor_of
from tests.processes import PATIENCE, eventually, in_event_loop


@in_event_loop
async def test_a_running_task_is_cancelled_when_its_tool_looks(store: Store, workshop: Workshop) -> None:
    async with executor_of(store, workshop) as executor:
        task = await executor.submit("tool", "hold", "it")
        await eventually(lambda: workshop.calls)
        assert (await executor.cancel(task.id)).state in {State.RUNNING, State.DONE}  # its tool may be quick
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
