"""Calls in threads of this process: for light tools that mostly wait for input and output."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from animaworks_tasks.backends.protocol import P, T, Traits
from animaworks_tasks.errors import BackendError

_Work = tuple[Future[Any], Callable[[], Any]]


class ThreadBackend:
    """
    Runs each call in a thread of its own, reused when it is free.

    A thread cannot be killed: cancellation and timeouts are cooperative (:meth:`ToolContext.raise_if_cancelled`). One
    that does not check is recorded as cancelled or timed out when it returns. The threads are daemons: they end with
    the process, and their tasks are finished as interrupted.
    """

    traits: Final = Traits(callbacks_may_submit=True)

    # Not concurrent.futures.ThreadPoolExecutor: a process waits for its threads before it exits, so a host that is
    # stopped would hang as long as its slowest tool.

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
            RuntimeError: No thread could be started. The call was not accepted.
        """
        future: Future[T] = Future()
        with self._mutex:
            if self._closed:
                raise BackendError("this backend was shut down")
            if self._idle:
                self._idle -= 1
            else:  # before the call is queued: if no thread can be started, it is not accepted
                name = f"animaworks_tasks-{len(self._threads) + 1}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._work.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Accept no more calls; *wait* for those that run."""
        del cancel_futures  # each call has a thread at once, so there are none to cancel
        with self._mutex:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._work.put(None)
        if wait:
            for thread in threads:
                thread.join()

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            _make(*work)
            del work  # a waiting thread must not keep the arguments of its last call alive
            with self._mutex:
                self._idle += 1


def _make(future: Future[Any], call: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the future gets it
            future.set_exception(error)
        else:
            future.set_result(result)
