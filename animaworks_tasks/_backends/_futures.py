"""Calls in somebody else's pool: any :class:`concurrent.futures.Executor`, a Dask cluster's included."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class FuturesBackend:
    """
    Runs each call in *executor*, which stays its owner's: it is not shut down with us.

    Where the pool is of processes or machines, the store must be a :class:`TaskStore` on a directory that they all see,
    and the tools importable there. Cancelling and timeouts are told to the tool, as with :class:`ThreadBackend`.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the call soon; never block."""
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Leave the pool as it is."""
