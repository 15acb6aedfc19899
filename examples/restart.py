"""
A host restart costs nothing: kill the host in the middle of a transcription, and the transcript arrives all the same.

    $ python examples/restart.py
    host 4711 runs
    submitted e36fce450c90; the tool says: 1.4 of 6.1 s
    host 4711 was killed; the task is running all the same
    the task ended without a host: e36fce450c90 transcribe:audio completed in 2.1 s: hello this is a message from the machine the message is waiting for you
    host 4722 runs, and its first heartbeat reads:
    - Task ID: e36fce450c90
    - Tool: transcribe:audio
    - Status: completed
    - Result: [transcribe:audio] completed: hello this is a message from the machine the message is waiting for you
"""  # noqa: E501 - as it is printed

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from animaworks_tasks import Executor, Registry, State, Task, TaskStore, load_directory

HERE = Path(__file__).resolve().parent
T = TypeVar("T")


async def host(anima_dir: str) -> None:
    """What is killed: a host that runs tasks, and prints what each heartbeat drains."""
    registry = Registry()
    load_directory(registry, HERE / "tools")
    async with Executor(TaskStore(anima_dir, language="en"), registry) as executor:
        print("ready", flush=True)
        while True:
            async with executor.drain_notifications() as drained:
                for line in drained.text.splitlines()[2:6]:
                    print(line, flush=True)
            if drained.notifications:
                return
            await asyncio.sleep(0.2)


def main() -> None:
    with tempfile.TemporaryDirectory() as anima_dir:
        store = TaskStore(anima_dir, language="en")
        first = start_host(anima_dir)
        print(f"host {first.pid} runs")

        task = store.submit("transcribe", "audio", str(HERE / "hello.wav"))
        print(f"submitted {task.id}; the tool says: {until(lambda: progress(store, task.id))}")

        first.kill()
        first.wait()
        print(f"host {first.pid} was killed; the task is {store.get(task.id).state.value} all the same")

        done = until(lambda: finished(store, task.id))
        print(f"the task ended without a host: {done.summary()}")

        second = start_host(anima_dir)
        print(f"host {second.pid} runs, and its first heartbeat reads:")
        print(second.communicate()[0], end="")


def start_host(anima_dir: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, __file__, anima_dir], stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
    assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    process.stdout.readline()  # "ready"
    return process


def progress(store: TaskStore, task_id: str) -> str | None:
    report = store.read_progress(task_id)
    return report.message if report is not None and report.fraction else None


def finished(store: TaskStore, task_id: str) -> Task | None:
    task = store.get(task_id)
    return task if task.state is State.DONE else None


def until(look: Callable[[], T | None]) -> T:
    """Look until there is something to see."""
    while (seen := look()) is None:
        time.sleep(0.02)
    return seen


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(host(sys.argv[1]))
    else:
        main()
