"""
One call of a host's own function, as a task of its store: how it is made, and what the record says of it.

It is made in a thread of its own, or in the event loop that submitted it. In that case the thread only waits; it
cancels the call after a cancellation request, and finishes the task when the loop is closed.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import reprlib
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Final

import attrs

from animaworks_tasks.errors import TaskCancelled
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.protocol import Claim, Store
from animaworks_tasks.store.rules import SubmitOptions, new_task, utc_now
from animaworks_tasks.task.model import IN_PROCESS, Cause, OnInterrupt, Task
from animaworks_tasks.task.pending import SIZE_LIMIT
from animaworks_tasks.tools.context import ToolContext
from animaworks_tasks.tools.tool import FunctionTarget, Tool
from animaworks_tasks.worker.call import Report, returning_exit
from animaworks_tasks.worker.runner import call_here

NO_LIMIT: Final = 10 * 365 * 86400.0  # seconds; the host itself stops what it calls

_ARGUMENTS_LIMIT: Final = SIZE_LIMIT // 2  # bytes of the arguments that go into a record
_LOOK: Final = 0.25  # seconds between looks for a cancellation request and a closed event loop


def new(name: str, arguments: object, expected_seconds: float | None, *, anima: str, location: str) -> Task:
    """
    Return a new PENDING task for a call that only this process can make.

    Args:
        name: ``tool:subcommand``, or any other name.
        arguments: Kept as the only word of its ``argv``, in JSON.
        expected_seconds: How long it takes; None if it is not known.
        anima: Name of the Anima.
        location: Of the store.

    Raises:
        ValueError: *name* is empty.
    """
    if not name:
        raise ValueError("a task needs the name of a tool")
    tool, _, subcommand = name.partition(":")
    if not tool or not subcommand:  # not of two parts: the name of a tool
        tool, subcommand = name, ""
    options = SubmitOptions(subcommand=subcommand, expected_seconds=expected_seconds, timeout_seconds=NO_LIMIT)
    options |= {"retries": 0, "on_interrupt": OnInterrupt.FAIL}  # no other process can call it again
    argv = (_written(arguments),) if arguments else ()
    task = new_task(tool, argv, options, anima_dir=location, at=utc_now())
    return attrs.evolve(task, extra={IN_PROCESS: True}, anima_name=anima)


def _written(arguments: object) -> str:
    """Return *arguments* as JSON for a record, or the beginning of what they are."""
    try:
        text = json.dumps(arguments, ensure_ascii=False, default=str)
        if len(text.encode("utf-8")) <= _ARGUMENTS_LIMIT:
            return text
    except Exception:  # noqa: BLE001 - a cycle, a lone surrogate, or what a __str__ raises
        text = reprlib.repr(arguments)
    return json.dumps({"arguments": one_line(text, 1000)}, ensure_ascii=False)


def arguments_of(task: Task) -> dict[str, Any]:
    """Return the arguments of *task* as kept in JSON; of a task that is not in-process, those AnimaWorks shows."""
    if not task.is_in_process:
        return {"subcommand": task.subcommand, "raw_args": list(task.argv), "anima_dir": task.anima_dir}
    try:
        arguments = json.loads(task.argv[0]) if task.argv else {}
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": list(task.argv)}


class SubmittedId(str):  # noqa: SLOT000 - a str can have no slots
    """
    The id of a submitted call: a str.

    It can also be awaited, like the original's: this returns the same id, once the record survives a power cut.
    """

    def __init__(self, _: str) -> None:
        self.kept: Future[None] = Future()

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.wrap_future(self.kept)
        return str(self)

    def __reduce__(self) -> tuple[object, ...]:
        return str, (str(self),)


class InProcessCall:
    """One call of the host's function; *loop* runs it, if it is async."""

    def __init__(self, execute: Callable[[], object], loop: asyncio.AbstractEventLoop | None) -> None:
        self._execute, self._loop = execute, loop
        self._lost = False

    def tool(self) -> Tool:
        """Return the call as a tool for the runner."""
        return Tool(name="in-process", subcommand="call", target=FunctionTarget(None, self._work), parameters=())

    def invoke(self, tool: Tool, task: Task, store: Store, claim: Claim, timeout: float) -> Report:
        """Make the call in this thread; see :data:`~animaworks_tasks.worker.runner.Invoker`."""
        report = call_here(tool, task, store, claim, timeout)
        if not self._lost:
            return report
        error = "it was cancelled by the end of its event loop, or from within; it may have partly run"
        return attrs.evolve(report, cause=Cause.INTERRUPTED, error=error, cancelled=False)

    def _work(self, context: ToolContext) -> object:
        if self._loop is None:
            return self._execute()
        running: list[asyncio.Task[object]] = []

        async def main() -> object:
            current = asyncio.current_task()
            assert current is not None  # noqa: S101 - for the type checker: this is a coroutine
            running.append(current)
            return await returning_exit(self._execute())  # type: ignore[arg-type]  # what has a loop is async

        coroutine = main()
        future = begin(coroutine, self._loop)
        if future is None:
            self._lost = True
            return None
        requested = False
        while not future.done() and not self._loop.is_closed():
            concurrent.futures.wait([future], _LOOK)
            if context.cancelled and running and not requested:
                requested = True
                with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                    self._loop.call_soon_threadsafe(running[0].cancel)
        if future.cancelled() and requested:
            raise TaskCancelled("it was asked to stop")
        self._lost = future.cancelled() or not future.done()
        if self._lost and not running:
            coroutine.close()  # its loop was closed before it started
        return None if self._lost else future.result()


def begin(coroutine: Coroutine[Any, Any, object], loop: asyncio.AbstractEventLoop) -> Future[object] | None:
    """Run *coroutine* in *loop*, which belongs to another thread; None if the loop was closed."""
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        return None


def start(function: Callable[[], None], *, name: str) -> None:
    """Run *function* in a daemon thread."""
    threading.Thread(target=function, name=f"animaworks_tasks-{name}", daemon=True).start()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread; None if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
