"""Draining notifications from an event loop."""

from __future__ import annotations

import asyncio

import pytest

from animaworks_tasks import (
    Store,
)
from tests.executor.workshop import Workshop, executor_of
from tests.processes import in_event_loop


@in_event_loop
async def test_what_is_drained_is_acknowledged_when_the_block_ends_and_not_when_it_raises(
    store: Store, workshop: Workshop
) -> None:
    async with executor_of(store, workshop) as executor:
        task = await executor.submit("tool", "echo", "it")
        await executor.wait(task.id)

        async def read_and_raise(error: BaseException) -> None:
            async with executor.drain_notifications() as drained:
                assert [task.id] == [each.task_id for each in drained.notifications]
                raise error

        # given a host that dies of what it reads
        for error in (RuntimeError("unreadable"), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                await read_and_raise(error)

        # then it is shown again, and once only
        async with executor.drain_notifications(budget=10_000) as drained:
            assert task.id in drained.text
        async with executor.drain_notifications() as drained:
            assert () == drained.notifications
