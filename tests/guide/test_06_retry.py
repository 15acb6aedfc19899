"""
6. A failure is run again, after a pause.

``retries`` says how often; each pause is about twice as long as the one before. A test does not sleep through them: it
gives store and executor one clock that stands still, and moves it on.
"""

from __future__ import annotations

from datetime import timedelta

from animaworks_tasks import Executor, InlineBackend, MemoryTaskStore, Outcome, Registry, State, ToolContext, ToolError
from animaworks_tasks.testing import ManualClock


def fetch(*, context: ToolContext) -> str:
    if context.attempt < 3:
        raise ToolError("no answer")
    return "the page"


def test_a_task_that_failed_is_pending_until_its_pause_is_over() -> None:
    # given a tool that succeeds when it is run for the third time
    clock, registry = ManualClock(), Registry()
    registry.add("web", "fetch", fetch, retries=2)
    store = MemoryTaskStore(clock=clock)
    executor = Executor(store, registry, backend=InlineBackend(), clock=clock).start()
    task_id = executor.submit_sync("web", "fetch").id

    # when it has failed twice
    pauses = []
    for _ in range(2):
        executor.run_until_idle_sync()  # idle: what is not due yet is nothing to do
        failed = store.get(task_id)
        assert State.PENDING is failed.state
        assert failed.not_before is not None
        pauses.append(failed.not_before - clock.now)
        clock.advance(pauses[-1].total_seconds())
    assert [] == store.notifications.peek()  # not before the task has ended

    # then
    executor.run_until_idle_sync()
    done = store.get(task_id)
    assert (Outcome.COMPLETED, 3, "the page") == (done.outcome, done.attempt, done.result)
    assert timedelta() < pauses[0] < pauses[1]
    assert [task_id] == [notification.task_id for notification in store.notifications.peek()]
    executor.stop()
