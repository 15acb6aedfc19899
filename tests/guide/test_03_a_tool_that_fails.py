"""
3. A tool that fails: its task says why, and nothing raises in the host.

The *cause* says whose turn it is to act, the *hint* what to do; the agent reads both. To give a hint, a tool raises a
ToolError, such as BadArgument. Anything else that it raises is kept too: type, message, and traceback in the log.
"""

from __future__ import annotations

from animaworks_tasks import BadArgument, Cause, Executor, InlineBackend, MemoryTaskStore, Outcome, Registry

registry = Registry()


@registry.tool("shares", "each")
def each(total: int, people: int) -> float:
    """Divide a total among people."""
    if people < 0:
        raise BadArgument(f"{people} people cannot be", hint="count them again")
    return total / people


def test_a_failed_task_has_a_cause_and_a_hint_and_the_next_one_runs() -> None:
    # given a call that the tool refuses, one in which it breaks, and a good one
    store = MemoryTaskStore(language="en")
    executor = Executor(store, registry, backend=InlineBackend()).start()
    refused = executor.submit_sync("shares", "each", "12", "--", "-3")
    broken = executor.submit_sync("shares", "each", "12", "0")
    good = executor.submit_sync("shares", "each", "12", "3")

    # when
    executor.run_until_idle_sync()  # raises nothing: a tool's error is a task's business
    refused, broken, good = (store.get(task.id) for task in (refused, broken, good))

    # then
    assert (Outcome.FAILED, Cause.ARGUMENTS) == (refused.outcome, refused.cause)
    assert ("-3 people cannot be", "count them again") == (refused.error, refused.hint)
    assert (Cause.TOOL, "ZeroDivisionError: division by zero") == (broken.cause, broken.error)
    assert b"Traceback" in store.read_log(broken.id)
    assert (Outcome.COMPLETED, "4.0") == (good.outcome, good.result)
    [text] = [notification.text for notification in store.notifications.peek() if notification.task_id == refused.id]
    assert "- What to do: count them again\n" in text
    executor.stop()
