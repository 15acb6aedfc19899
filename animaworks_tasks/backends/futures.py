"""Calls in somebody else's pool: any :class:`concurrent.futures.Executor`, a Dask cluster's included."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from animaworks_tasks.backends.protocol import Traits, traits_of

P = ParamSpec("P")
T = TypeVar("T")


class FuturesBackend:
    """
    Runs each call in *executor*, which stays its owner's: it is not shut down with us.

    Where the pool is of processes or machines, the store must be a :class:`TaskStore` on a directory that they all see,
    and the tools importable there. Cancelling and timeouts are told to the tool, as with :class:`ThreadBackend`. A pool
    that breaks, as one of processes does when a tool takes its process along, takes no more calls: tasks stay pending
    until there is an executor with a new one.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @property
    def traits(self) -> Traits:
        """Those of the pool."""
        return traits_of(self._executor)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the call soon; never block."""
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Leave the pool as it is."""
