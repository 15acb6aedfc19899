"""Hosts whose tools run in processes: they leave, they die, they live long; and what cannot go to a process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks import Executor, MemoryTaskStore, Outcome, ProcessBackend, Registry, State, TaskStore
from animaworks_tasks.errors import BackendError, RegistryError
from animaworks_tasks.executor.seen import ELSEWHERE
from tests.backends.hosts import ROOT, Host, open_files, supervisor_of
from tests.executor.workshop import seen
from tests.processes import PATIENCE, gone, until
from tests.tools_for_tests import divide, registry

# The host leaves, or dies.


def test_a_host_that_stops_leaves_running_tasks_to_their_supervisors_and_the_next_host_tells_of_them(
    tmp_path: Path,
) -> None:
    # given a host that stops in the middle
    first = Host(tmp_path)
    task_id = first.submit("hold", tmp_path / "gate")
    supervisor = supervisor_of(first, task_id)
    first.executor.stop()
    assert State.RUNNING is first.store.get(task_id).state

    # when the next host has seen the task, whose slot is taken, and it comes to its end
    second = Host(tmp_path)
    until(lambda: seen(second.executor, *ELSEWHERE))
    waiting = second.submit("echo", "next")
    (tmp_path / "gate").touch()

    # then
    assert str(supervisor) in (second.wait(task_id).result or "")
    assert "next" == second.wait(waiting).result
    second.executor.run_until_idle_sync(timeout=PATIENCE)
    assert [task_id, waiting] == second.ended
    until(lambda: gone(supervisor))
    second.executor.stop(drain_timeout=PATIENCE)


HOST = """
import sys
from animaworks_tasks import Executor, TaskStore
from tests.tools_for_tests import registry
Executor(TaskStore(sys.argv[1], durability="process"), registry, max_workers=1).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A host in a process of its own, on ``tmp_path / "mei"``, that lives until it is killed."""
    command = [sys.executable, "-c", HOST, str(tmp_path / "mei")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        yield process
        process.kill()


def test_an_idle_supervisor_and_its_tool_process_exit_when_their_host_is_killed(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    # given
    store = TaskStore(tmp_path / "mei", durability="process")
    task_id = store.submit("proc", "ids").id
    until(lambda: store.get(task_id).state is State.DONE)
    pids = json.loads(store.get(task_id).result or "")

    # when
    other.kill()

    # then
    for pid in pids:
        until(partial(gone, pid))


def test_a_busy_supervisor_finishes_records_and_tells_when_its_host_is_killed_and_then_exits(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    # given
    store = TaskStore(tmp_path / "mei", durability="process")
    task_id = store.submit("proc", "hold", str(tmp_path / "gate")).id
    until(lambda: store.read_log(task_id))

    # when
    other.kill()
    other.wait()
    (tmp_path / "gate").touch()

    # then
    until(lambda: store.get(task_id).state is State.DONE)
    task = store.get(task_id)
    assert Outcome.COMPLETED is task.outcome
    for pid in json.loads(task.result or ""):
        until(partial(gone, pid))
    assert [task_id] == [each.task_id for each in store.notifications.peek()]


def test_a_thread_that_waits_for_a_supervisor_wakes_up_when_the_host_disconnects(tmp_path: Path) -> None:
    # given
    backend, gate = ProcessBackend(), tmp_path / "gate"
    held = backend.submit(registry.get("proc", "speak").load(), gate)
    until(lambda: backend._busy)

    # when
    backend.shutdown(wait=False)

    # then
    with pytest.raises(BackendError, match="was closed"):
        held.result(PATIENCE)
    gate.touch()


# What cannot go to a process.


def test_tools_of_a_script_run_in_processes_too(tmp_path: Path) -> None:
    # given
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, sys
            from animaworks_tasks import Executor, Registry, TaskStore
            registry = Registry()

            @registry.tool("script", "run")
            def run() -> int:
                return os.getpid()

            if __name__ == "__main__":
                with_executor = Executor(TaskStore(sys.argv[1], durability="process"), registry).start()
                task = with_executor.wait_sync(with_executor.submit_sync("script", "run").id, timeout=30)
                print(task.outcome.value, int(task.result) != os.getpid())
                with_executor.stop()
        """)
    )

    # when
    done = subprocess.run([sys.executable, script, tmp_path / "mei"], capture_output=True, timeout=PATIENCE, check=True)

    # then
    assert (b"completed True\n", b"") == (done.stdout, done.stderr)


def test_a_lambda_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    tools = Registry()
    tools.add("tool", "run", lambda: None)
    executor = Executor(TaskStore(tmp_path, durability="process"), tools)
    with pytest.raises(RegistryError, match="tool 'tool run' cannot be found by another process: it is a lambda"):
        executor.start()


def test_a_store_that_other_processes_cannot_see_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a MemoryTaskStore cannot go to another process"):
        Executor(MemoryTaskStore(), registry).start()
    with pytest.raises(TypeError, match="cannot go to another process"):
        Executor(TaskStore(tmp_path, render=lambda _: "text"), registry).start()


SYNC: Final = """
executor = Executor(TaskStore('mei', language='en'), registry).start()
task = executor.wait_sync(executor.submit_sync('words', 'echo', 'hi').id)
print(task.cause, task.error)
executor.stop()
"""

ASYNC: Final = """
async def main() -> None:
    async with Executor(TaskStore('mei', language='en'), registry) as executor:
        task = await executor.wait((await executor.submit('words', 'echo', 'hi')).id)
        print(task.cause, task.error)
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_script_without_a_guard_gets_an_error_instead_of_starting_itself_again(tmp_path: Path, program: str) -> None:
    """Each tool process loads the script to find the tool, and so would start an executor, and submit, once more."""
    # given
    script = tmp_path / "host.py"
    script.write_text(
        "import asyncio\n"
        "from animaworks_tasks import Executor, Registry, TaskStore\n"
        "registry = Registry()\n"
        "@registry.tool('words', 'echo')\n"
        "def echo(word: str) -> str:\n"
        "    return word\n" + program
    )

    # when
    ran = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=True
    )

    # then
    assert ran.stdout.startswith("rejected ")
    assert 'only under `if __name__ == "__main__":` (host.py, line ' in ran.stdout
    assert 1 == len(list(TaskStore(tmp_path / "mei").list()))


# A host that lives long.


def children() -> set[int]:
    """Return the ids of this process's children, zombies included."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile, and its children are another's
            found.update(map(int, (thread / "children").read_text().split()))
    return found


def test_starting_and_stopping_for_ever_leaves_no_open_files_and_no_zombies() -> None:
    # given
    files, before = open_files(), children()

    # when
    for _ in range(4):
        backend = ProcessBackend()
        assert 2 == backend.submit(divide, 4, by=2).result(PATIENCE)
        backend.shutdown()

    # then
    until(lambda: len(children()) <= len(before))
    until(lambda: open_files() <= files)
