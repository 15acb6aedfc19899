"""Calls in threads of this process: for tools that are light and wait for others most of the time."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, ParamSpec, TypeVar

from animaworks_tasks.backends.protocol import Traits
from animaworks_tasks.errors import BackendError

P = ParamSpec("P")
T = TypeVar("T")

_Work = tuple[Future[Any], Callable[[], Any]]
_numbers = itertools.count(1)
_STOP: Final = None


class ThreadBackend:
    """
    Runs each call in a thread of its own, reused when it is free.

    A thread cannot be killed: cancelling and timeouts are told to the tool, which stops when it looks
    (:meth:`ToolContext.raise_if_cancelled`); one that never looks is recorded as cancelled or timed out when it comes
    back. The threads are daemons: they end with the process, and the tasks in them are settled as interrupted.

    What a future's callback submits is for the thread that calls it back: it must not wait there for it.
    """

    traits: Final = Traits(callbacks_may_submit=True)

    # Not concurrent.futures.ThreadPoolExecutor: a process cannot exit before each of its threads has come back, and a
    # host that is told to stop would hang for as long as its slowest tool.

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Start the call soon; never block.

        Raises:
            BackendError: It was shut down.
            RuntimeError: There can be no further thread. Nothing was taken.
        """
        future: Future[T] = Future()
        with self._mutex:
            if self._closed:
                raise BackendError("this backend was shut down")
            if self._idle:
                self._idle -= 1
            else:  # before there is work for it: where there can be no further thread, nothing was taken
                name = f"animaworks_tasks-{next(_numbers)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._work.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Take no more calls; *wait* for those that run, *cancel_futures* that did not start."""
        with self._mutex:
            self._closed = True
            threads = list(self._threads)
        if cancel_futures:
            for future, _ in self._not_started():
                future.cancel()
        for _ in threads:
            self._work.put(_STOP)
        if wait:
            for thread in threads:
                thread.join()

    def _not_started(self) -> list[_Work]:
        taken: list[_Work] = []
        while True:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                return taken
            if work is not None:
                taken.append(work)

    def _serve(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                return
            self._run(*work)
            del work  # a thread that waits must not keep its last call's arguments alive

    def _run(self, future: Future[Any], call: Callable[[], Any]) -> None:
        result, problem = None, None
        running = future.set_running_or_notify_cancel()
        if running:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
                problem = error
        with self._mutex:  # before its callbacks: what they submit is for this thread
            self._idle += 1
        try:
            if problem is not None:
                future.set_exception(problem)
            elif running:
                future.set_result(result)
        except BaseException:  # of a callback; this thread ends with it
            with self._mutex:
                self._idle -= 1
            raise
