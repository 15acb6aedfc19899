"""Another local user can neither read what is in a store nor change it, and what he tries disturbs no host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from animaworks_tasks import Executor, InlineBackend, Registry, TaskStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user"),
]

_TRIES = """
import fcntl, os, sys

anima, task_id = sys.argv[1:]
os.setgroups([])
os.setgid(4711)
os.setuid(4711)
root, notified = anima + "/state/background_tasks", anima + "/state/background_notifications"
tries = {
    "read a record": lambda: open(f"{root}/done/{task_id}.task").read(),
    "read a log": lambda: open(f"{root}/logs/{task_id}.log").read(),
    "read a notification": lambda: open(f"{notified}/{task_id}.md").read(),
    "list tasks": lambda: os.listdir(root + "/pending"),
    "plant a task": lambda: open(f"{root}/pending/{'0' * 12}.json", "w"),
    "plant a notification": lambda: open(f"{notified}/{'0' * 12}.md", "w"),
    "ask for a cancellation": lambda: open(f"{root}/running/{task_id}.cancel", "w"),
    "link a record": lambda: os.link(f"{root}/done/{task_id}.task", anima + "/../stolen"),
    "lock a directory": lambda: fcntl.flock(os.open(root + "/keys", os.O_RDONLY), fcntl.LOCK_EX),
    "lock a record": lambda: fcntl.flock(os.open(f"{root}/done/{task_id}.task", os.O_RDONLY), fcntl.LOCK_EX),
    "rename the store": lambda: os.rename(root, root + ".mine"),
    "rename state": lambda: os.rename(anima + "/state", anima + "/mine"),
    "rename the Anima": lambda: os.rename(anima, anima + ".mine"),
    "remove a record": lambda: os.unlink(f"{root}/done/{task_id}.task"),
    "make the store readable": lambda: os.chmod(root, 0o777),
}
for what, act in tries.items():
    try:
        act()
        print(what)
    except PermissionError:
        pass
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory of root's in which everybody may write, with the sticky bit, and to which everybody has the way."""
    directory = Path(tempfile.mkdtemp(prefix="animaworks_tasks-", dir="/tmp"))
    directory.chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


def test_another_user_is_kept_out_of_a_store_also_where_he_may_look_at_the_anima(shared: Path) -> None:
    # given
    anima = shared / "mei"
    for directory in (anima, anima / "state"):
        directory.mkdir(mode=0o755)
    registry = Registry()
    registry.add("words", "count", lambda text: len(text.split()))
    executor = Executor(TaskStore(anima), registry, backend=InlineBackend()).start()
    task = executor.wait_sync(executor.submit_sync("words", "count", "a b").id)

    # when
    command = [sys.executable, "-c", _TRIES, str(anima), task.id]
    tried = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    # then
    assert "" == tried.stdout
    assert "1" == executor.wait_sync(executor.submit_sync("words", "count", "more").id).result
    assert [task.id] == [n.task_id for n in executor.store.notifications.peek()][:1]
    executor.stop()
