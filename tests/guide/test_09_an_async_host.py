"""
9. A host with an event loop.

The executor starts and stops with ``async with``, and what may take time is awaited. The loop is never held up: neither
by the store's files nor by a tool, whether that is async or blocks a thread.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from animaworks_tasks import Executor, Outcome, Registry, TaskStore, ThreadBackend


def test_a_host_goes_on_while_a_tool_blocks(tmp_path: Path) -> None:
    # given a tool that blocks its thread until the host, which must be free to do so, opens the door
    door = threading.Event()
    registry = Registry()

    @registry.tool("door", "wait")
    def wait_at_the_door() -> str:
        return "inside" if door.wait(30) else "nobody came"

    @registry.tool("door", "listen")
    async def listen() -> str:
        await asyncio.sleep(0)
        return "silence"

    async def host() -> None:
        async with Executor(TaskStore(tmp_path), registry, backend=ThreadBackend()) as executor:
            # when
            blocking = await executor.submit("door", "wait")
            asynchronous = await executor.submit("door", "listen")
            heard = await executor.wait(asynchronous.id)
            door.set()
            done = await executor.wait(blocking.id, timeout=30)

            # then
            assert ("silence", "inside") == (heard.result, done.result)
            assert Outcome.COMPLETED is done.outcome
            async with executor.drain_notifications() as drained:
                assert {done.id, heard.id} == {notification.task_id for notification in drained.notifications}

    asyncio.run(host())
