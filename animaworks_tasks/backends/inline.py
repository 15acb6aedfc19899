"""Calls in the thread that submits them. For tests."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from animaworks_tasks.backends.protocol import P, T, Traits


class InlineBackend:
    """
    Runs each call where it is submitted.

    An :class:`Executor` with this backend starts nothing of its own either: tasks run inside
    :meth:`Executor.run_until_idle` and :meth:`Executor.wait`, in the order in which they would be started.
    """

    traits: Final = Traits(runs_inline=True)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Make the call and return its future, done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future gets it
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Nothing runs, so there is nothing to do."""
