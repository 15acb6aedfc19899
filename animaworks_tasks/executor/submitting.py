"""Submitting: calls are checked by the registry and kept by the store, with an event loop or without."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from animaworks_tasks.backends import Backend
from animaworks_tasks.errors import BackendError, ExecutorClosedError
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.store.rules import SubmitOptions
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools.context import ToolContext
from animaworks_tasks.tools.registry import Registry

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Arguments = tuple[Any, ...] | Mapping[str, Any]


class Submitter:
    """
    Submits calls to a store.

    Args:
        store: Keeps them.
        registry: Knows the tools, and what is permitted.
        threads: Where this is done for a host with an event loop.
        options: Of all calls.
    """

    def __init__(
        self, store: Store, registry: Registry, threads: Backend, options: SubmitOptions | None = None
    ) -> None:
        self.store, self.registry, self._threads = store, registry, threads
        self._options: SubmitOptions = options or {}

    def options(self, **options: Unpack[SubmitOptions]) -> "Submitter":
        """
        Return what submits to the same store with these options; they are not looked at before it does.

        A call of a function takes the function's own arguments and no others, so its options stand before it:
        ``await executor.options(priority=5).submit(render, "s")``.
        """
        return Submitter(self.store, self.registry, self._threads, {**self._options, **options})

    @overload
    async def submit(self, tool: str, /, *argv: str, **options: Unpack[SubmitOptions]) -> Task: ...
    @overload
    async def submit(
        self, tool: Callable[Concatenate[ToolContext, P], Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[R]: ...
    @overload
    async def submit(
        self, tool: Callable[Concatenate[ToolContext, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Task[R]: ...
    @overload
    async def submit(self, tool: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> Task[R]: ...
    @overload
    async def submit(self, tool: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Task[R]: ...
    async def submit(self, tool: Any, /, *args: Any, **kwargs: Any) -> Task[Any]:
        """
        Submit a call; once this has returned, the task is not lost.

        A function that is a tool of the registry is called with its own arguments, and a type checker knows them:
        ``await executor.submit(render, "s", frames=3)``; :meth:`Executor.result` gives what it returns. It is not given
        a ToolContext: a type checker knows this of one that is the function's first parameter, or has a default.

        Args:
            tool: The tool's name; or its function.
            *args: Of a name, everything after it, the subcommand included, as text; of a function, its arguments.
            **kwargs: Of a name, as for :meth:`Store.submit`: ``priority``, ``not_before``, ``key``, ``timeout_seconds``
                ...; the registry finds the subcommand. Of a function, its arguments: its options are those of
                :meth:`options`.

        Raises:
            UnknownToolError: There is no such tool or subcommand, or the function is none. Nothing is queued.
            WrongArgumentError: The tool would not take these arguments. Nothing is queued.
            NotPermittedError: :attr:`Registry.permits` or ``veto`` refuses it; the message says why. Nothing is queued.
            TypeError: A word is not a str, the function does not take these arguments, no words can say one of them, or
                an option is unknown or not of its type. Nothing is queued.
            ValueError: An option is out of its range, or, as a RecordError, the call cannot be stored: see
                :meth:`Store.submit`. Nothing is queued.
            PartlySubmittedError: It is queued and will run, but the disk did not make its name durable.
            OSError: The record could not be written. Nothing is queued.
            ExecutorClosedError: The executor was stopped.
        """
        return await self._off_loop(lambda: self.submit_sync(tool, *args, **kwargs))

    @overload
    async def submit_many(
        self, tool: str, /, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]: ...
    @overload
    async def submit_many(
        self, tool: Callable[..., Awaitable[R]], /, argvs: Iterable[Arguments]
    ) -> Sequence[Task[R]]: ...
    @overload
    async def submit_many(self, tool: Callable[..., R], /, argvs: Iterable[Arguments]) -> Sequence[Task[R]]: ...
    async def submit_many(
        self, tool: Any, /, argvs: Iterable[Any], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task[Any]]:
        """
        Submit many calls of one subcommand, much faster than :meth:`submit` one by one.

        Args:
            tool: The tool's name; or its function.
            argvs: For each call of a name what follows it, the subcommand included. For each of a function a tuple of
                its arguments, or a mapping of them by name; they are checked here, not by a type checker.
            **options: Of all of them, as for :meth:`submit`; no ``key``. For a function, those of :meth:`options`.

        Returns:
            The tasks, in the order of *argvs*.

        Raises:
            UsageError: As for :meth:`submit`, of any of the calls. Nothing is queued.
            TypeError: As for :meth:`submit`.
            ValueError: As for :meth:`submit`; they are not of one subcommand, or there is a *key*. Nothing is queued.
            PartlySubmittedError: An OSError came half way: its ``submitted`` are queued and will run, the others not.
            OSError: The records could not be written. Nothing is queued.
        """
        return await self._off_loop(lambda: self.submit_many_sync(tool, argvs, **options))

    def submit_sync(self, tool: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task:  # noqa: ANN401 - of the call
        """Do as :meth:`submit`, from a thread that may block."""
        options: dict[str, Any] = {**self._options}
        if isinstance(tool, str):
            options |= kwargs
        else:
            known = self.registry.find(tool)
            tool, args = known.name, known.words(args, kwargs)
        found = self.registry.resolve(tool, args)
        self.registry.check_permission(found)
        self.registry.check_veto(found, args)
        options["subcommand"] = found.subcommand
        return self.store.submit(tool, *args, **options)

    def submit_many_sync(
        self, tool: str | Callable[..., Any], /, argvs: Iterable[Any], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        """Do as :meth:`submit_many`, from a thread that may block."""
        calls = list(argvs)
        if not isinstance(tool, str):
            known = self.registry.find(tool)
            tool, calls = known.name, [known.words(*_arguments(each)) for each in calls]
        found = {each.subcommand: each for each in (self.registry.resolve(tool, argv) for argv in calls)}
        if len(found) > 1:
            raise ValueError(f"submit_many takes calls of one subcommand, not of {', '.join(found)}")
        for each in found.values():
            self.registry.check_permission(each)
            self.registry.check_veto(each, *calls)
        merged: SubmitOptions = {**self._options, **options, "subcommand": "".join(found)}
        return self.store.submit_many(tool, calls, **merged)

    def _in_thread(self, function: Callable[[], T]) -> Future[T]:
        try:
            return self._threads.submit(function)
        except BackendError:
            raise ExecutorClosedError("the executor was stopped; its store can still be used") from None

    async def _off_loop(self, function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._in_thread(function))


def _arguments(call: object) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of one of many calls, by position and by name."""
    if isinstance(call, tuple):
        return call, {}
    if isinstance(call, Mapping):
        return (), call
    raise TypeError(f"a call of a function is a tuple of its arguments, or a mapping by name, not {call!r}")
