"""
A host of ours: ``host.py DIRECTORY BACKEND DURABILITY``, with an event loop as an Anima's runtime has one.

BACKEND is ``thread``, ``process``, or ``blocked``: a ThreadBackend whose only slot is taken for good.
"""

from __future__ import annotations

import asyncio
import sys
import threading

from animaworks_tasks import Executor, ProcessBackend, Registry, TaskStore, ThreadBackend
from benchmarks.programs.tools import mark, nothing, serve

registry = Registry()
registry.add("bench", "nothing", nothing)
registry.add("bench", "mark", mark)


@registry.tool("bench", "block")
def block() -> None:
    """Take a slot for good."""
    threading.Event().wait()


async def main(directory: str, backend: str, durability: str) -> None:
    store = TaskStore(directory, durability=durability)  # type: ignore[arg-type]  # it is one of the two, or refused
    async with Executor(
        store,
        registry,
        backend=ProcessBackend() if backend == "process" else ThreadBackend(),
        max_workers=1 if backend == "blocked" else 2,
        drain_timeout=0,
    ) as executor:
        if backend == "blocked":
            await executor.submit("bench", "block", priority=1)
        else:  # so that what is loaded when it is first used is loaded, and a tool process is warm
            tasks = [await executor.submit("bench", "nothing") for _ in range(4)]
            for task in tasks:
                await executor.wait(task.id)
        await asyncio.to_thread(serve)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
