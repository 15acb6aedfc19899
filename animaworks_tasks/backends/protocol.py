"""The backend protocol: the two methods of a futures executor, and optional traits."""

import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, Protocol, TypeVar

import attrs

P = ParamSpec("P")
T = TypeVar("T")


class Backend(Protocol):
    """
    Runs calls and returns futures; knows nothing of tasks, stores or notifications.

    The shape is that of :class:`concurrent.futures.Executor`: any futures executor is a backend as it stands. One that
    differs from those has an attribute ``traits`` that says how: see :class:`Traits`.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the call soon; never block."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as futures
        """Take no more calls. A thread cannot be killed: *wait* blocks until its call returns."""


@attrs.frozen(kw_only=True)
class Traits:
    """
    How a backend differs from a plain futures executor, which has the default values; its attribute ``traits``.

    Attributes:
        outlives_host: Running calls go on, and finish their tasks, when the host exits. By default an executor that
            stops does not wait for them.
        needs_pickling: Calls leave this process, so store and registry must be picklable, and each tool importable. An
            executor refuses at its start what is not.
        runs_inline: ``submit`` makes the call and returns a future that is done. The executor then starts no thread of
            its own: tasks run in the threads that wait for them.
        callbacks_may_submit: A callback of a future may read and write files and call ``submit``. The executor then
            starts the next task there, which is faster.
        interrupt: Called when an executor stops: stops all running calls and returns at once; each future is done when
            its call has ended. None: running calls are not stopped.
    """

    outlives_host: bool = False
    needs_pickling: bool = False
    runs_inline: bool = False
    callbacks_may_submit: bool = False
    interrupt: Callable[[], None] | None = None


def traits_of(backend: object) -> Traits:
    """Return the attribute ``traits`` of a backend, or else the traits of a futures executor of its class."""
    own = getattr(backend, "traits", None)
    if isinstance(own, Traits):
        return own
    module = sys.modules.get("concurrent.futures.process")  # a pool of processes exists only where this is imported
    return Traits(needs_pickling=module is not None and isinstance(backend, module.ProcessPoolExecutor))
