"""
How each kind of tool is called, and the report of the call, as plain data that can go to another process.

A function returns its result; a module's ``cli_main`` and a command print it. Whatever the tool does - raise, call
``sys.exit``, raise what cannot be printed - becomes a :class:`Report`; the call itself never raises, except for a
KeyboardInterrupt in the main thread, which is a person's Ctrl-C.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from animaworks_tasks.errors import BadArgument, MissingCredential, TaskCancelled, ToolError, ToolLoadError, UsageError
from animaworks_tasks.task.model import Cause, Task
from animaworks_tasks.tools.context import ToolContext, Workspace
from animaworks_tasks.tools.secrets import without_secrets
from animaworks_tasks.tools.tool import CommandTarget, Tool
from animaworks_tasks.worker import command
from animaworks_tasks.worker.output import Printed, Sink, printed_to
from animaworks_tasks.worker.result import UnfinishedError, as_text, is_unfinished

RESULT_LIMIT: Final = 1 << 16  # bytes of a result that go into the record; a larger one is kept whole in a file
_TAIL: Final = 3000  # bytes of the end of such a result in the record: as many as a notification shows
_ERROR_LIMIT: Final = 4000  # characters of an error in the record; the whole of it in the log
_UNPRINTABLE: Final = "(which cannot be printed)"
_WENT_WELL: Final = (None, 0)  # exit statuses
_USAGE_EXIT: Final = 2  # argparse's exit status for wrong arguments


@attrs.frozen(kw_only=True)
class Report:
    """
    How one call ended.

    Attributes:
        result: What the tool returned or printed, or the beginning of it.
        result_file: The file with the whole result, if *result* is only the beginning.
        result_size: Bytes of the whole result, likewise.
        result_tail: The end of the result, likewise.
        cause: Why it failed; None if it did not.
        error: What went wrong.
        hint: What can be done about it.
        cancelled: Whether the tool stopped because of a cancellation request.
        timed_out: Whether it ended after its deadline.
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
        deadline: Value of :func:`time.monotonic` at which it times out; the context says so, nothing stops the tool.
        log: Takes what it prints instead of the workspace's log.
        stdout: Takes what it prints to stdout instead of either.
        all_threads: Count the output of other threads as this task's, and set ``sys.argv`` for a module: right where
            one task runs at a time.
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
            members = _members(raised)
            error = members[0] if len(members) == 1 else raised
            if isinstance(error, MemoryError):
                traceback.clear_frames(error.__traceback__)  # frees what filled the memory
            report = _failed(error, err)
            if report.cause is not None and not isinstance(error, _NEEDS_NO_TRACEBACK):
                err.write(_traceback(error).encode("utf-8", "backslashreplace"))
    return attrs.evolve(report, error=_fit(report.error), hint=_fit(report.hint), timed_out=context.timed_out)


def _fit(value: object) -> str | None:
    """Return *value* as plain, bounded text without credentials: a tool may have put anything into an exception."""
    return None if value is None else _clean(value)[:_ERROR_LIMIT]


def _clean(value: object) -> str:
    """Return *value* as text without credentials. Call this before cutting: half a key is not found."""
    return without_secrets(_plain(value), os.environ)


_NEEDS_NO_TRACEBACK: Final = (ToolError, UsageError, SystemExit, command.CommandFailed)  # their message says it all


def _call(
    tool: Tool, task: Task, context: ToolContext, out: Printed, err: Printed, *, as_typed: bool, alone: bool
) -> object:
    if isinstance(tool.target, CommandTarget):
        return command.run(tool, task, context, out, err)
    if tool.parameters is not None:
        positional, named = tool.bind(task.argv, context)
        here = [_in_directory(task.cwd, value) for value in positional]
        value = tool.load()(*here, **{name: _in_directory(task.cwd, value) for name, value in named.items()})
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
        if error.code not in _WENT_WELL:
            raise
        value = None
    if is_unfinished(value):
        return value  # as_text refuses it
    if isinstance(value, int) and value != 0:  # a cli_main that returns its exit status instead of exiting
        raise SystemExit(value)
    sys.stdout.flush()  # a tool may have replaced it by a stream of its own
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


def _in_directory(cwd: str | None, value: Any) -> Any:  # noqa: ANN401 - an argument of a tool
    """Return *value* with its relative paths below *cwd*, where the task was submitted; the host's may be another."""
    if cwd is not None and isinstance(value, Path):
        return Path(cwd, value)
    return type(value)(_in_directory(cwd, each) for each in value) if isinstance(value, list | tuple) else value


def _finished(coroutine: Coroutine[Any, Any, object], context: ToolContext) -> object:
    """Run an async tool to its end; on a cancellation request or timeout it is cancelled as asyncio cancels tasks."""
    import asyncio  # only for async tools
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    async def main() -> object:
        running = asyncio.ensure_future(returning_exit(coroutine))
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
        return asyncio.run(main())
    with ThreadPoolExecutor(1) as pool:  # an event loop runs in this thread already, and waits for us
        return pool.submit(copy_context().run, asyncio.run, main()).result()


async def returning_exit(coroutine: Coroutine[Any, Any, object]) -> object:
    """Await *coroutine*; a SystemExit is returned, to be raised later: here it would end the event loop."""
    try:
        return await coroutine
    except SystemExit as leaving:
        return leaving


def _completed(value: object, workspace: Workspace) -> Report:
    if isinstance(value, SystemExit):
        raise value
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
        return attrs.evolve(excerpt, result_file=workspace.keep_result(data))
    except OSError as error:
        problem = f"its result of {len(data)} bytes was not stored: {error}"
        return attrs.evolve(excerpt, cause=Cause.RESULT, error=problem)


_CAUSES: Final[Sequence[tuple[type[BaseException], Cause]]] = (
    (MissingCredential, Cause.CREDENTIALS),
    (BadArgument, Cause.ARGUMENTS),
    (UsageError, Cause.ARGUMENTS),
    (ToolLoadError, Cause.REJECTED),
    (TimeoutError, Cause.TIMEOUT),  # raised by the tool itself: what it waited for did not come
)


def _failed(error: BaseException, err: Printed) -> Report:
    if isinstance(error, BaseExceptionGroup):
        return _failed_together(error, err)
    if isinstance(error, TaskCancelled):
        return Report(cancelled=True, error=_say(error))
    if isinstance(error, command.CommandFailed):
        return Report(cause=error.cause, error=_clean(error.text)[-_ERROR_LIMIT:], hint=error.hint)
    if isinstance(error, SystemExit):
        if error.code in _WENT_WELL:
            return Report()
        cause = Cause.ARGUMENTS if error.code == _USAGE_EXIT else Cause.TOOL
        said = _clean(error.code if isinstance(error.code, str) else err.text().strip())[-_ERROR_LIMIT:]
        return Report(cause=cause, error=said or f"it ended with exit status {error.code} and said nothing")
    cause = next((cause for kind, cause in _CAUSES if isinstance(error, kind)), Cause.TOOL)
    hint = error.hint if isinstance(error, ToolError) else None
    own = isinstance(error, ToolError | UsageError | ToolLoadError)
    return Report(cause=cause, error=_say(error, with_type=not own), hint=hint)


# Of several errors that were raised together, the first of these kinds gives the cause and the hint.
_DECIDES: Final = (TaskCancelled, MissingCredential, BadArgument, ToolError)


def _members(error: BaseException) -> list[BaseException]:
    """Return the errors in a group, and in groups in it, in their order; an error that is no group alone."""
    if isinstance(error, BaseExceptionGroup):
        return [member for each in error.exceptions for member in _members(each)]
    return [error]


def _failed_together(group: BaseExceptionGroup[BaseException], err: Printed) -> Report:
    """Return the report of several errors: it names all of them, first the one that gives its cause and hint."""
    members = _members(group)
    first = next((each for kind in _DECIDES for each in members if isinstance(each, kind)), members[0])
    reports = [_failed(each, err) for each in (first, *members)]
    decisive = next((report for report in reports if report.cancelled or report.cause), reports[0])  # not a sys.exit(0)
    errors = dict.fromkeys(report.error for report in reports if report.error)
    return attrs.evolve(decisive, error="; ".join(errors))


def _say(error: BaseException, *, with_type: bool = True) -> str:
    kind = type(error).__name__
    text = _plain(error)
    if text is _UNPRINTABLE:
        return f"{kind} {text}"
    return (f"{kind}: {text}" if text else kind) if with_type else text or kind


def _plain(value: object) -> str:
    """Return ``str(value)`` as UTF-8 can hold it, whatever that is and does."""
    with contextlib.suppress(Exception, SystemExit, TaskCancelled):  # a __str__ may raise anything
        return str.encode(str(value), "utf-8", "backslashreplace").decode("utf-8")
    return _UNPRINTABLE


def _traceback(error: BaseException) -> str:
    with contextlib.suppress(Exception, SystemExit, TaskCancelled):  # as _plain
        return "".join(traceback.format_exception(error))
    return f"{type(error).__name__} (whose traceback cannot be printed)\n"
