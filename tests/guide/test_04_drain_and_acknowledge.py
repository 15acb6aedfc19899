"""
4. Notifications are drained, and shown again until they are acknowledged.

In every heartbeat the host drains: it puts what waits into the agent's prompt. They are acknowledged when the ``with``
block ends normally. A block that raises acknowledges nothing, and the next heartbeat shows them again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from animaworks_tasks import Executor, InlineBackend, Registry, TaskStore
from animaworks_tasks.testing import run_to_end


def heartbeat(store: TaskStore, ask_model: Callable[[str], object]) -> None:
    with store.notifications.drain(budget=4000) as drained:  # at most so many characters of the prompt
        ask_model(drained.text)


def unreachable(_prompt: str) -> None:
    raise ConnectionError("the model is out of reach")


def test_a_notification_is_shown_again_until_a_heartbeat_has_ended_well(tmp_path: Path) -> None:
    # given a task that has ended, in a store of files
    store, registry, prompts = TaskStore(tmp_path), Registry(), list[str]()
    registry.add("tea", "brew", lambda: "ready")
    executor = Executor(store, registry, backend=InlineBackend()).start()
    task = run_to_end(executor, "tea", "brew")
    executor.stop()

    # when one heartbeat fails, and two go well, after a restart say
    with pytest.raises(ConnectionError):
        heartbeat(store, unreachable)
    for _ in range(2):
        heartbeat(TaskStore(tmp_path), prompts.append)

    # then the first of these two has shown it, and the second has nothing to show
    assert [True, False] == [task.id in prompt for prompt in prompts]
    assert "" == prompts[1]
