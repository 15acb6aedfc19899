"""What an executor asks of a backend."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Backend(Protocol):
    """
    Runs one call and promises its result; knows nothing of tasks, stores or notifications.

    The shape is that of :class:`concurrent.futures.Executor`: any futures executor is a backend as it stands.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the call soon; never block."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Take no more calls. A thread cannot be killed: *wait* blocks until its call returns."""
