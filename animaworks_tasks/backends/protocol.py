"""What an executor asks of a backend: two methods, and, where it is not like any futures executor, its traits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, Protocol, TypeVar

import attrs

P = ParamSpec("P")
T = TypeVar("T")


class Backend(Protocol):
    """
    Runs one call and promises its result; knows nothing of tasks, stores or notifications.

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
    What a backend says of itself, in its attribute ``traits``; the defaults are those of a plain futures executor.

    Attributes:
        outlives_host: What runs goes on, and ends in order, if the host exits. An executor that stops does not wait for
            it unless it is told to.
        needs_pickling: Calls leave this process, so store and registry must be picklable, and each tool importable. An
            executor refuses at its start what is not.
        runs_inline: ``submit`` makes the call and returns its future done. An executor starts no thread of its own
            then: tasks run in the threads that wait for them.
        callbacks_may_submit: A future calls back in a thread that has nothing else to do: it may read and write files
            there, and hand the next call to ``submit``. An executor then starts the next task from there, sooner.
        interrupt: Called when an executor stops and something still runs: has all of it stopped, and returns at once;
            the futures tell when. None: what runs is left alone.
    """

    outlives_host: bool = False
    needs_pickling: bool = False
    runs_inline: bool = False
    callbacks_may_submit: bool = False
    interrupt: Callable[[], None] | None = None


def traits_of(backend: object) -> Traits:
    """Return the traits of a backend: those that it says itself, else those of the futures executor that it is."""
    said = getattr(backend, "traits", None)
    if isinstance(said, Traits):
        return said
    module = sys.modules.get("concurrent.futures.process")  # whoever has a pool of processes has imported it
    return Traits(needs_pickling=module is not None and isinstance(backend, module.ProcessPoolExecutor))
