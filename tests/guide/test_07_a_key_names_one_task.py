"""
7. With a key, the same submit twice is one task.

An agent that is not sure whether it has submitted something submits it again, with the same key, and gets the task that
there is, also when that has ended. Without a key each submit is a task of its own.
"""

from __future__ import annotations

from animaworks_tasks import Executor, InlineBackend, MemoryTaskStore, Registry


def test_a_second_submit_with_the_same_key_returns_the_first_task() -> None:
    # given a tool that remembers its calls
    sent: list[str] = []
    registry, store = Registry(), MemoryTaskStore()
    registry.add("letter", "send", sent.append)
    executor = Executor(store, registry, backend=InlineBackend()).start()

    # when it is submitted before and after it was run
    first = executor.submit_sync("letter", "send", "to Ada", key="invitation-ada")
    second = executor.submit_sync("letter", "send", "to Ada", key="invitation-ada")
    executor.run_until_idle_sync()
    third = executor.submit_sync("letter", "send", "to Ada", key="invitation-ada")
    executor.run_until_idle_sync()

    # then it was sent once, and another key is another task
    assert first.id == second.id == third.id
    assert ["to Ada"] == sent
    assert first.id != executor.submit_sync("letter", "send", "to Ada", key="reminder-ada").id
    executor.stop()
