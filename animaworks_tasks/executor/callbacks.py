"""Calls back with each task that ended: in a thread, or in the host's event loop."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any

from animaworks_tasks.backends import Backend
from animaworks_tasks.task.model import Task

logger = logging.getLogger("animaworks_tasks")

OnFinish = Callable[[Task], Awaitable[object] | object]


class Callbacks:
    """
    Calls each of *callbacks* with each task that ended. An exception is logged, and has no other effect.

    Args:
        callbacks: Sync, or returning what can be awaited.
        threads: Where they are called.

    Attributes:
        loop: Runs the awaitables that they return; if None, or not running, a loop of its own in a thread does.
        last: The future of the callback that returned last; changes whenever one returns.
    """

    def __init__(self, callbacks: Iterable[OnFinish] | OnFinish, threads: Backend) -> None:
        self._callbacks: list[OnFinish] = [callbacks] if callable(callbacks) else list(callbacks)
        self._threads = threads
        self._running: set[Future[None]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.last: Future[None] | None = None

    def call(self, task: Task) -> None:
        """Call all of them soon with *task*; return at once, unless *threads* is an InlineBackend."""
        for callback in self._callbacks:
            over: Future[None] = Future()
            self._running.add(over)
            over.add_done_callback(self._running.discard)
            self._when_called(self._threads.submit(callback, task), callback, task.id, over)

    def running(self) -> list[Future[None]]:
        """Return the futures of the callbacks that have not returned."""
        return list(self._running)

    def _when_called(self, future: Future[Any], callback: OnFinish, task_id: str, over: Future[None]) -> None:
        future.add_done_callback(lambda done: self._called(done, callback, task_id, over))

    def _called(self, future: Future[Any], callback: OnFinish, task_id: str, over: Future[None]) -> None:
        try:
            answer = future.result()
            if inspect.isawaitable(answer):  # of an async function, a partial of one, a lambda
                self._when_called(self._begin(answer), callback, task_id, over)
                return
        except BaseException:  # a callback may raise anything
            logger.exception("on_finish callback %r failed for task %s", callback, task_id)
        self.last = over
        over.set_result(None)

    def _begin(self, awaitable: Awaitable[object]) -> Future[Any]:
        coroutine = _awaited(awaitable)
        if self.loop is not None and self.loop.is_running():
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return self._threads.submit(asyncio.run, coroutine)


async def _awaited(awaitable: Awaitable[object]) -> object:
    return await awaitable
