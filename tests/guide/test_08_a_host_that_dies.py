"""
8. A host dies, and the next one recovers its tasks.

A task is a file, and its runner holds a lock on that file. The kernel frees the lock when its holder dies, however
it dies: so the next host knows at once. By default the task has failed then, and its notification says that it may have
partly run; ``on_interrupt="retry"`` says that it is safe to run again. This file is also the host that dies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from animaworks_tasks import Cause, Executor, InlineBackend, Outcome, Registry, TaskStore, ThreadBackend, ToolContext

registry = Registry()


@registry.tool("novel", "write")
def write(*, context: ToolContext) -> str:
    """Write a novel; the first attempt never ends."""
    if context.attempt == 1:
        os.write(1, b"it runs\n")  # what it prints would go to the task's log
        threading.Event().wait()
    return "written"


def test_a_task_of_a_dead_host_has_failed_or_runs_again(tmp_path: Path) -> None:
    # given a host that is killed while it runs two tasks
    store = TaskStore(tmp_path)
    once, safe = store.submit("novel", "write"), store.submit("novel", "write", on_interrupt="retry")
    with subprocess.Popen([sys.executable, __file__, tmp_path], stdout=subprocess.PIPE) as host:
        begun = [host.stdout.readline() for _ in (once, safe)] if host.stdout else []
        host.kill()  # SIGKILL
    assert [b"it runs\n"] * 2 == begun

    # when the next host has nothing left to do
    Executor(store, registry, backend=InlineBackend()).start().run_until_idle_sync()

    # then
    once, safe = store.get(once.id), store.get(safe.id)
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (once.outcome, once.cause)
    assert (Outcome.COMPLETED, "written", 2) == (safe.outcome, safe.result, safe.attempt)
    assert {once.id, safe.id} == {notification.task_id for notification in store.notifications.peek()}


if __name__ == "__main__":
    Executor(TaskStore(sys.argv[1]), registry, backend=ThreadBackend(), max_workers=2).start()
    threading.Event().wait()
