"""
2. A call is submitted and run, and the agent is notified.

To submit a call is to leave a task in a store; that returns at once. An executor, which lives in the host, runs what
it finds there. What came of it is in the task, and in a notification: text for the agent's next prompt.

In these tests the store is memory, and the backend runs each call on the spot. Nothing else is different.
"""

from __future__ import annotations

from animaworks_tasks import Executor, InlineBackend, MemoryTaskStore, Outcome, Registry, State


def test_a_submitted_call_waits_is_run_and_leaves_a_notification() -> None:
    # given a tool, and one submitted call of it
    registry, store = Registry(), MemoryTaskStore(language="en")
    registry.add("words", "count", lambda text: len(text.split()))
    executor = Executor(store, registry, backend=InlineBackend()).start()
    task = executor.submit_sync("words", "count", "to be or not to be")
    assert State.PENDING is store.get(task.id).state

    # when the executor has nothing left to do
    executor.run_until_idle_sync()

    # then the same id stands in the task and in the notification
    done = store.get(task.id)
    assert (State.DONE, Outcome.COMPLETED, "6") == (done.state, done.outcome, done.result)
    [notification] = store.notifications.peek()
    assert task.id == notification.task_id
    assert notification.text.startswith("# Background task completed: words:count\n")
    assert f"- Task ID: {task.id}\n" in notification.text
    assert "- Result: [words:count] completed: 6\n" in notification.text
    executor.stop()
