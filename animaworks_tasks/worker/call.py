"""
How each kind of tool is called, and what came of it, in plain words that can go to another process.

A function returns its result; a module's ``cli_main`` and a command print it. Whatever happens in there - an exception,
``sys.exit``, an exception that cannot even be printed - becomes a :class:`Report`; the call itself never raises, except
for the KeyboardInterrupt of a person at the keyboard, which comes to the main thread alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from animaworks_tasks.errors import (
    BadArgument,
    MissingCredential,
    TaskCancelled,
    ToolError,
    ToolLoadError,
    UsageError,
)
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.tools.context import ToolContext, Workspace
from animaworks_tasks.tools.secrets import without_secrets
from animaworks_tasks.tools.tool import CommandTarget, FunctionTarget, Tool
from animaworks_tasks.worker import command
from animaworks_tasks.worker.output import Printed, Sink, printed_to
from animaworks_tasks.worker.result import UnfinishedError, as_text, is_unfinished

RESULT_LIMIT: Final = 1 << 16  # bytes of a result that stand in the record; the whole of a larger one in a file
_TAIL: Final = 3000  # bytes of the end of such a result, which stand in the record too: as many as a notice shows
_ERROR_LIMIT: Final = 4000  # characters of an error in the record; the whole of it in the log
_UNPRINTABLE: Final = "(which cannot be printed)"
_USAGE_EXIT: Final = 2  # with which argparse leaves a program that was called wrongly


@attrs.frozen(kw_only=True)
class Report:
    """
    What came of one call.

    Attributes:
        result: What it returned or printed, or the beginning of it.
        result_file: Where all of it stands, if *result* is only the beginning.
        result_size: Bytes of all of it, likewise.
        result_tail: The end of it, likewise.
        cause: Why it failed; None if it did not.
        error: What went wrong.
        hint: What can be done about it.
        cancelled: It stopped because it was asked to.
        timed_out: It stopped, or came back, after its time was up.
    """

    result: str | None = None
    result_file: str | None = None
    result_size: int | None = None
    result_tail: str | None = None
    cause: Cause | None = None
    error: str | None = None
    hint: str | None = None
    cancelled: bool = False
    timed_out: bool = False


def call(
    tool: Tool,
    task: Task,
    workspace: Workspace,
    *,
    deadline: float | None = None,
    log: Sink | None = None,
    stdout: Sink | None = None,
    all_threads: bool = False,
    as_typed: bool = False,
) -> Report:
    """
    Call *tool* here and now, and report.

    Args:
        tool: What to call.
        task: The arguments, and who asks.
        workspace: Where log, progress and large results go.
        deadline: :func:`time.monotonic` at which its time is up; it is only told, not stopped.
        log: Takes what it prints instead of the workspace's log.
        stdout: Takes what it prints to stdout instead of either.
        all_threads: Take what other threads print for this task's, and give a module a ``sys.argv`` of its own: right
            where one task runs at a time.
        as_typed: Give a module the arguments as they are; by default it is asked for JSON where it takes ``-j``.
    """
    context = ToolContext(task, workspace, deadline=deadline)
    with printed_to(log or workspace.write_log, out=stdout, all_threads=all_threads) as (out, err):
        try:
            value = _call(tool, task, context, out, err, as_typed=as_typed, alone=all_threads)
            report = _completed(value, workspace)
        except BaseException as raised:
            if isinstance(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            error = _alone(raised)
            if isinstance(error, MemoryError):
                traceback.clear_frames(error.__traceback__)  # what it had filled the memory with
            report = _failed(error, err)
            if report.cause is not None and not isinstance(error, _SPEAKS_FOR_ITSELF):
                err.write(_traceback(error).encode("utf-8", "backslashreplace"))
    return _fit_to_be_told(report, timed_out=context.timed_out)


def _fit_to_be_told(report: Report, *, timed_out: bool) -> Report:
    """Return *report* in plain, bounded text without credentials: a tool may have put anything into an exception."""

    def fit(value: object) -> str | None:
        return None if value is None else _clean(value)[:_ERROR_LIMIT]

    return attrs.evolve(report, error=fit(report.error), hint=fit(report.hint), timed_out=timed_out)


def _clean(value: object) -> str:
    """Return *value* as text without credentials. What is to be cut is cleaned first: half a key is not found."""
    return without_secrets(_plain(value), os.environ)


# Whoever raises one of these has said what is wrong; a traceback would tell nothing more.
_SPEAKS_FOR_ITSELF: Final = (ToolError, UsageError, SystemExit, command.CommandFailed)


def _call(
    tool: Tool, task: Task, context: ToolContext, out: Printed, err: Printed, *, as_typed: bool, alone: bool
) -> object:
    if isinstance(tool.target, CommandTarget):
        return command.run(tool, task, context, out, err)
    if isinstance(tool.target, FunctionTarget):
        positional, named = tool.bind(task.argv, context)
        from_there = _Beginning(task.cwd)
        function = tool.load()
        value = function(*map(from_there, positional), **{name: from_there(arg) for name, arg in named.items()})
        return _finished(value, context) if isinstance(value, Coroutine) else value
    from animaworks_tasks.worker.json_option import json_asked_for  # here, because it needs argparse

    main = tool.load()
    try:
        with (
            contextlib.nullcontext() if as_typed else json_asked_for(),
            _as_program(tool, task) if alone else contextlib.nullcontext(),
        ):
            value = main(list(task.argv))
    except SystemExit as error:
        if not _went_well(error):
            raise
        value = None
    if is_unfinished(value):
        return value  # which is refused where it is to be written down
    if isinstance(value, int) and value != 0:  # a cli_main that returns its exit status instead of exiting
        raise SystemExit(value)
    sys.stdout.flush()  # a tool may have put a stream of its own there, as a program may that ends after this
    return out.text()


@contextlib.contextmanager
def _as_program(tool: Tool, task: Task) -> Iterator[None]:
    """Let ``sys.argv`` be what it would be if the module were a program: argparse shows it in its usage."""
    before = sys.argv
    sys.argv = [tool.name, *task.argv]
    try:
        yield
    finally:
        sys.argv = before


def _went_well(error: SystemExit) -> bool:
    return error.code is None or error.code == 0


class _Beginning:
    """Makes relative paths begin where the task was submitted, not where the host happens to be."""

    def __init__(self, cwd: str | None) -> None:
        self._cwd = cwd

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - an argument of a tool
        if self._cwd is not None and isinstance(value, Path):
            return Path(self._cwd, value)
        return type(value)(map(self, value)) if isinstance(value, list | tuple) else value


def _finished(coroutine: Coroutine[Any, Any, object], context: ToolContext) -> object:
    """Run an async tool to its end; asked to stop, it is cancelled as asyncio does it."""
    import asyncio  # only for async tools

    async def tool() -> object:
        try:
            return await coroutine
        except SystemExit as leaving:  # let through, it would tear the loop down and be reported twice
            return leaving

    async def main() -> object:
        running = asyncio.ensure_future(tool())
        stopping = False
        while not running.done():
            await asyncio.wait({running}, timeout=0.2)
            if context.cancelled and not stopping:
                stopping = running.cancel()
        if stopping and running.cancelled():
            raise TaskCancelled(f"task {context.task_id} was asked to stop")
        return running.result()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        value = asyncio.run(main())
    else:  # inline, inside somebody's event loop: that one is busy with us
        value = _in_a_thread(lambda: asyncio.run(main()))
    if isinstance(value, SystemExit):
        raise value
    return value


def _in_a_thread(function: Callable[[], object]) -> object:
    from concurrent.futures import Future
    from contextvars import copy_context

    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised again where it belongs
            future.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return future.result()


def _completed(value: object, workspace: Workspace) -> Report:
    try:
        text = as_text(value)
    except UnfinishedError as error:
        return Report(cause=Cause.RESULT, error=str(error), hint=error.hint)
    except Exception as error:  # noqa: BLE001 - a __str__ may raise anything
        return Report(cause=Cause.RESULT, error=f"its result cannot be written down: {_say(error)}")
    if text is None:
        return Report()
    data = _clean(text).encode("utf-8")
    if len(data) <= RESULT_LIMIT:
        return Report(result=data.decode("utf-8"))
    head, tail = data[: RESULT_LIMIT // 2 - _TAIL].decode("utf-8", "ignore"), data[-_TAIL:].decode("utf-8", "ignore")
    excerpt = Report(result=head, result_size=len(data), result_tail=tail)
    try:
        kept = workspace.keep_result(data)
    except OSError as error:
        return attrs.evolve(
            excerpt, cause=Cause.RESULT, error=f"its result of {len(data)} bytes was not stored: {error}"
        )
    return attrs.evolve(excerpt, result_file=kept)


_CAUSES: Final[Sequence[tuple[type[BaseException], Cause]]] = (
    (MissingCredential, Cause.CREDENTIALS),
    (BadArgument, Cause.ARGUMENTS),
    (UsageError, Cause.ARGUMENTS),
    (ToolLoadError, Cause.REJECTED),
    (TimeoutError, Cause.TIMEOUT),  # of its own making: what it waited for did not come
)


def _failed(error: BaseException, err: Printed) -> Report:
    if isinstance(error, BaseExceptionGroup):
        return _failed_together(error, err)
    if isinstance(error, TaskCancelled):
        return Report(cancelled=True, error=_say(error))
    if isinstance(error, command.CommandFailed):
        return Report(cause=error.cause, error=_clean(error.text)[-_ERROR_LIMIT:], hint=error.hint)
    if isinstance(error, SystemExit):
        if _went_well(error):
            return Report()
        cause = Cause.ARGUMENTS if error.code == _USAGE_EXIT else Cause.TOOL
        return Report(cause=cause, error=_exit_words(error.code, err))
    cause = next((cause for kind, cause in _CAUSES if isinstance(error, kind)), Cause.TOOL)
    hint = error.hint if isinstance(error, ToolError) else None
    own = isinstance(error, ToolError | UsageError | ToolLoadError)
    return Report(cause=cause, error=_say(error, with_type=not own), hint=hint)


# Of several errors that were raised together, the first of these that is there decides what is to be done.
_DECIDES: Final = (TaskCancelled, MissingCredential, BadArgument, ToolError)


def _alone(error: BaseException) -> BaseException:
    """Return what a group of one holds, such as an ``asyncio.TaskGroup`` makes; anything else as it is."""
    members = _members(error)
    return members[0] if len(members) == 1 else error


def _members(error: BaseException) -> list[BaseException]:
    """Return what was raised, in the order in which the groups, and groups in groups, have it."""
    found, left = [], [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseExceptionGroup):
            left += reversed(each.exceptions)
        else:
            found.append(each)
    return found


def _failed_together(group: BaseExceptionGroup[BaseException], err: Printed) -> Report:
    """Report of several errors: all are named, first the one whose cause and hint these are."""
    members = _members(group)
    first = next((each for kind in _DECIDES for each in members if isinstance(each, kind)), members[0])
    reports = [_failed(each, err) for each in (first, *members)]
    told = next((report for report in reports if report.cancelled or report.cause), reports[0])  # but for sys.exit(0)
    said = dict.fromkeys(report.error for report in reports if report.error)
    return attrs.evolve(told, error="; ".join(said))


def _exit_words(code: object, err: Printed) -> str:
    """Say what a tool said that left with sys.exit: its last words on stderr, or the text it exited with."""
    if isinstance(code, str):
        return _clean(code)[-_ERROR_LIMIT:]
    said = _clean(err.text().strip())[-_ERROR_LIMIT:]
    return said or f"it ended with exit status {code} and said nothing"


def _say(error: BaseException, *, with_type: bool = True) -> str:
    kind = type(error).__name__
    text = _plain(error)
    if text is _UNPRINTABLE:
        return f"{kind} {text}"
    return (f"{kind}: {text}" if text else kind) if with_type else text or kind


def _plain(value: object) -> str:
    """Return ``str(value)`` as UTF-8 can hold it, whatever that is and does."""
    try:
        return str.encode(str(value), "utf-8", "backslashreplace").decode("utf-8")
    except (Exception, SystemExit, TaskCancelled):  # noqa: BLE001 - a __str__ may raise anything
        return _UNPRINTABLE


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except (Exception, SystemExit, TaskCancelled):  # noqa: BLE001 - as _plain
        return f"{type(error).__name__} (whose traceback cannot be printed)\n"
