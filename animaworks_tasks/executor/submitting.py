"""Submitting: calls are checked by the registry and kept by the store, with an event loop or without."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TypeVar, Unpack

from animaworks_tasks.backends import Backend
from animaworks_tasks.errors import BackendError, ExecutorClosedError
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.store.rules import SubmitOptions
from animaworks_tasks.task.model import Task
from animaworks_tasks.tools.registry import Registry

T = TypeVar("T")


class Submitter:
    """
    Submits calls to a store.

    Args:
        store: Keeps them.
        registry: Knows the tools, and what is permitted.
        threads: Where this is done for a host with an event loop.
    """

    def __init__(self, store: Store, registry: Registry, threads: Backend) -> None:
        self.store, self.registry, self._threads = store, registry, threads

    async def submit(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        """
        Submit a call; once this has returned, the task is not lost.

        Args:
            tool: The tool's name.
            *argv: Everything after the tool's name, the subcommand included.
            **options: As for :meth:`Store.submit`: ``priority``, ``not_before``, ``key``, ``timeout_seconds`` ...; the
                registry finds the subcommand.

        Raises:
            UnknownToolError: There is no such tool or subcommand; the message names the nearest. Nothing is queued.
            WrongArgumentError: The tool would not take these arguments. Nothing is queued.
            NotPermittedError: :attr:`Registry.permits` or ``veto`` refuses it; the message says why. Nothing is queued.
            TypeError: A word of *argv* is not a str, or an option is unknown or not of its type. Nothing is queued.
            ValueError: An option is out of its range, or, as a RecordError, the call cannot be stored: see
                :meth:`Store.submit`. Nothing is queued.
            PartlySubmittedError: It is queued and will run, but the disk did not make its name durable.
            OSError: The record could not be written. Nothing is queued.
            ExecutorClosedError: The executor was stopped.
        """
        return await self._off_loop(lambda: self.submit_sync(tool, *argv, **options))

    async def submit_many(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        """
        Submit many calls of one subcommand, much faster than :meth:`submit` one by one.

        Args:
            tool: The tool's name.
            argvs: For each call what follows the tool's name, the subcommand included.
            **options: Of all of them, as for :meth:`submit`; no ``key``.

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

    def submit_sync(self, tool: str, *argv: str, **options: Unpack[SubmitOptions]) -> Task:
        """Do as :meth:`submit`, from a thread that may block."""
        found = self.registry.resolve(tool, argv)
        self.registry.check_permission(found)
        self.registry.check_veto(found, argv)
        options["subcommand"] = found.subcommand
        return self.store.submit(tool, *argv, **options)

    def submit_many_sync(
        self, tool: str, argvs: Iterable[Sequence[str]], **options: Unpack[SubmitOptions]
    ) -> Sequence[Task]:
        """Do as :meth:`submit_many`, from a thread that may block."""
        calls = list(argvs)
        found = {tool_.subcommand: tool_ for tool_ in (self.registry.resolve(tool, argv) for argv in calls)}
        if len(found) > 1:
            raise ValueError(f"submit_many takes calls of one subcommand, not of {', '.join(found)}")
        for tool_ in found.values():
            self.registry.check_permission(tool_)
            self.registry.check_veto(tool_, *calls)
        options["subcommand"] = "".join(found)
        return self.store.submit_many(tool, calls, **options)

    def _in_thread(self, function: Callable[[], T]) -> Future[T]:
        try:
            return self._threads.submit(function)
        except BackendError:
            raise ExecutorClosedError("the executor was stopped; its store can still be used") from None

    async def _off_loop(self, function: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._in_thread(function))
