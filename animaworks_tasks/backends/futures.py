"""Calls in somebody else's pool: any :class:`concurrent.futures.Executor`, a Dask cluster's included."""

from collections.abc import Callable
from concurrent.futures import Executor, Future

from animaworks_tasks.backends.protocol import P, T, traits_of


class FuturesBackend:
    """
    Runs each call in *executor*, which the caller owns: it is not shut down with this backend.

    Where the pool is of processes or machines, the store must be a :class:`TaskStore` on a directory that they all see,
    and the tools importable there. Cancellation and timeouts are cooperative, as with :class:`ThreadBackend`. A pool
    that breaks, as one of processes does when a tool ends its process, takes no more calls: tasks stay pending until an
    executor with a new pool is started.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor, self.traits = executor, traits_of(executor)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the call soon; never block."""
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Leave the pool as it is."""
