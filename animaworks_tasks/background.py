"""
What AnimaWorks' own code expects of its background tasks, over the store: the host's functions as tasks.

    manager = BackgroundTaskManager.from_profiles(anima_dir, "sakura", registry.profiles())
    manager.on_complete = told                               # async
    if manager.is_eligible(name):
        task_id = manager.submit(name, arguments, execute)   # returns at once

Each call is a task like any other: one record, one lock, one outcome, one notification, seen by the same commands. Only
who makes the call is settled from the start: this process, in a thread or in its event loop. So the record never waits
in pending/, where another host might take it; and if this process dies, the lock is free, and the next manager or
executor on the directory ends the task as interrupted, and tells.

Any number of managers and executors may share a directory: a task of another one is recognised as alive by its lock.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import inspect
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Final, Self

import attrs

from animaworks_tasks import _files
from animaworks_tasks._calls import Report
from animaworks_tasks._context import ToolContext
from animaworks_tasks._directory_store import TaskStore
from animaworks_tasks._notifications import one_line
from animaworks_tasks._pending import SIZE_LIMIT
from animaworks_tasks._runner import call_here, give_up, run_owned
from animaworks_tasks._states import Event
from animaworks_tasks._store import Claim, Store, SubmitOptions, never_began, new_task, utc_now
from animaworks_tasks._task import Cause, OnInterrupt, Outcome, State, Task
from animaworks_tasks._tool import FunctionTarget, Tool
from animaworks_tasks.errors import RecordError, TaskCancelled, TaskNotFoundError

logger = logging.getLogger("animaworks_tasks")

IN_PROCESS: Final = "in_process"  # the key of a record that says so

DEFAULT_ELIGIBLE_TOOLS: Final[Mapping[str, int]] = {
    # by the names of their schemas, as a model calls them
    "generate_character_assets": 1800,
    "generate_fullbody": 120,
    "generate_bustup": 120,
    "generate_icon": 120,
    "generate_chibi": 120,
    "generate_3d_model": 600,
    "generate_rigged_model": 600,
    "generate_animations": 600,
    "local_llm": 300,
    "run_command": 60,
    # by tool and subcommand, as a shell submits them
    "image_gen:pipeline": 1800,
    "image_gen:fullbody": 120,
    "image_gen:bustup": 120,
    "image_gen:icon": 120,
    "image_gen:chibi": 120,
    "image_gen:3d": 600,
    "image_gen:rigging": 600,
    "image_gen:animations": 600,
    "local_llm:generate": 300,
    "local_llm:chat": 300,
    "transcribe:audio": 120,
    "machine:run": 600,
    "chatwork:sync": 60,
    "chatwork:download": 60,
}

_UNKNOWN_TIME: Final = 60  # seconds; of a tool whose profile gives no number
_RETENTION: Final = 60  # minutes for which what has ended stays in memory
_KEPT: Final = 200  # how many that have ended stay in memory
_PREVIEW: Final = 200  # characters of a result in a summary
_ARGUMENTS_LIMIT: Final = SIZE_LIMIT // 2  # bytes of the arguments that go into a record
_NO_LIMIT: Final = 10 * 365 * 86400.0  # seconds; what the host calls is the host's to end
_LOOK: Final = 0.25  # seconds between looks at the wish to cancel, and at whether the event loop is still there
_STALE: Final = 48 * 3600.0  # seconds after which a running task that another program left is dead

ToolArguments = dict[str, Any]
Execute = Callable[[str, ToolArguments], object]
ExecuteAsync = Callable[[str, ToolArguments], Awaitable[object]]


class TaskStatus(str, enum.Enum):  # noqa: UP042 - as AnimaWorks has it: a StrEnum prints itself differently
    """How a task stands, in AnimaWorks' words. A cancelled one has failed."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@attrs.define
class BackgroundTask:
    """
    A task, in AnimaWorks' words.

    That of a manager's own call changes as the call does: *status* is the last to. Any other is as it was when it was
    asked for.

    Attributes:
        task_id: 12 lowercase hex digits; the same in the record, the notification and the command line.
        anima_name: The Anima.
        tool_name: As it was submitted, with or without a subcommand.
        tool_args: As they were submitted. Of another process's call, what JSON keeps of them; of what a shell
            submitted, ``subcommand``, ``raw_args`` and ``anima_dir``.
        status: How it stands.
        created_at: When it was submitted, in Unix seconds.
        completed_at: When it ended, in Unix seconds; None before.
        result: What it returned, as text; None before, and where it returned nothing or failed.
        error: What went wrong, ``ValueError: no such thing``; None where nothing did.
    """

    task_id: str
    anima_name: str
    tool_name: str
    tool_args: ToolArguments
    status: TaskStatus = TaskStatus.PENDING
    created_at: float = attrs.field(factory=time.time)
    completed_at: float | None = None
    result: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, fit for JSON if the arguments are."""
        return attrs.asdict(self, recurse=False) | {"status": self.status.value}

    def summary(self) -> str:
        """Say it in one line: ``[tool] completed:`` and the beginning of the result; or ``failed:`` and the error."""
        if self.status is TaskStatus.COMPLETED:
            return f"[{self.tool_name}] completed: {(self.result or '')[:_PREVIEW]}"
        if self.status is TaskStatus.FAILED:
            return f"[{self.tool_name}] failed: {self.error}"
        return f"[{self.tool_name}] {self.status.value}"


OnComplete = Callable[[BackgroundTask], Awaitable[None]]


class SubmittedId(str):  # noqa: SLOT000 - a str can have no slots
    """
    The id of an async call that was submitted: a text like any other.

    It can also be awaited, as the original's is: then it is the same id, once the record would survive a power cut.
    """

    kept: Future[None]

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.wrap_future(self.kept)
        return str(self)

    def __reduce__(self) -> tuple[object, ...]:
        return str, (str(self),)


class BackgroundTaskManager:
    """
    Makes slow calls of the host's functions in the background.

    The original kept its tasks in the event loop and wrote them to a file each; a restart left them "running" for ever,
    and nobody was told. Here they are tasks of the Anima's store. The host need not write the notification: it is
    there before *on_complete* is called, and does not depend on it.

    Args:
        anima_dir: The Anima's directory; made if it is not there.
        anima_name: Its name; empty takes the last component of the directory.
        eligible_tools: Which tools are to be submitted, and how many seconds they take; None or empty takes
            :data:`DEFAULT_ELIGIBLE_TOOLS`.
        result_memory_retention_minutes: How long a task that has ended is kept in memory; None is 60. On disk it stays
            until :meth:`cleanup_old_tasks`.
        max_completed_tasks_in_memory: How many such are kept in memory; None is 200.
        store: Where the tasks go; None is a :class:`TaskStore` in *anima_dir*. Give it the one of your
            :class:`Executor`, so that the notices of both are in one language.

    Attributes:
        on_complete: Called with each task of this manager that has ended, once, however it ended. It is async, and runs
            in the event loop that submitted the call, if that still runs; else in the last that submitted anything, or
            else in one of its own. What it raises is logged, and nothing more.

    Raises:
        StoreError: The directory cannot hold a store.
    """

    def __init__(
        self,
        anima_dir: str | os.PathLike[str],
        anima_name: str = "",
        eligible_tools: Mapping[str, int] | None = None,
        result_memory_retention_minutes: int | None = None,
        max_completed_tasks_in_memory: int | None = None,
        *,
        store: Store | None = None,
    ) -> None:
        self.on_complete: OnComplete | None = None
        self._anima_name = anima_name or os.path.basename(os.path.abspath(anima_dir))
        self._eligible = dict(eligible_tools or DEFAULT_ELIGIBLE_TOOLS)
        self._retention = 60.0 * max(0, _or(result_memory_retention_minutes, _RETENTION))
        self._kept = max(0, _or(max_completed_tasks_in_memory, _KEPT))
        self._store = TaskStore(anima_dir) if store is None else store
        self._tasks: dict[str, BackgroundTask] = {}  # what this manager was given
        self._mutex = threading.Lock()  # guards that dict: submits and ends come from any thread
        self._loop = _running_loop()
        _start(self._recover, name="recovery")

    @classmethod
    def from_profiles(
        cls,
        anima_dir: str | os.PathLike[str],
        anima_name: str = "",
        profiles: Mapping[str, Mapping[str, Mapping[str, object]]] | None = None,
        config_eligible: Mapping[str, int] | None = None,
        *,
        store: Store | None = None,
    ) -> Self:
        """
        Return a manager that knows which tools take long.

        The built-in defaults are overridden by the profiles, and those by the configuration. As in the original, except
        that a profile may also say of a built-in one that it does not take long.

        Args:
            anima_dir: As for the class.
            anima_name: As for the class.
            profiles: EXECUTION_PROFILE by tool (:meth:`Registry.profiles` has them). A tool without a number takes 60
                seconds; one that is no mapping is passed over.
            config_eligible: Seconds by name, ``image_gen:3d`` or ``generate_3d_model``.
            store: As for the class.

        Raises:
            StoreError: As for the class.
        """
        eligible = dict(DEFAULT_ELIGIBLE_TOOLS)
        for key, facts in _facts(profiles or {}):
            seconds = facts.get("expected_seconds")
            eligible.pop(key, None)
            if facts.get("background_eligible"):
                eligible[key] = int(seconds) if isinstance(seconds, int | float) else _UNKNOWN_TIME
        eligible.update(config_eligible or {})
        return cls(anima_dir, anima_name, eligible, store=store)

    def is_eligible(self, tool_name: str) -> bool:
        """Say whether a tool is to be submitted, by either of its names: ``generate_3d_model``, ``image_gen:3d``."""
        return tool_name in self._eligible

    def expected_seconds(self, tool_name: str) -> int | None:
        """Return how long a tool takes; None if it is not to be submitted. The original has no such question."""
        return self._eligible.get(tool_name)

    # Submitting.

    def submit(self, tool_name: str, tool_args: ToolArguments, execute_fn: Execute) -> str:
        """
        Call ``execute_fn(tool_name, tool_args)`` in a thread, soon, with exactly these two; return at once.

        The original needs a running event loop; this one does not care, and may be called from any thread. What the
        function prints goes to the task's log, what it returns is kept as text, what it raises is its error. It cannot
        be killed: asked to stop (``animaworks-tool cancel``), it is recorded as cancelled when it comes back.

        Args:
            tool_name: Any name; it need not be eligible.
            tool_args: The record keeps what JSON can say of them, and of more than 512 KiB only the beginning.
            execute_fn: Sync. A coroutine that it returns is run to its end, in an event loop of its own.

        Returns:
            The task's id. The task is running, and recorded: if this process dies now, it ends as interrupted. Called
            from a thread without an event loop, it returns when that holds for a power cut too; an event loop is not
            held up for the disk, so there it holds as soon as the function is called.

        Raises:
            ValueError: *tool_name* is empty.
            RecordError: *tool_name* is no text that can be stored.
            OSError: The disk said no, or there are too many open files: each task that runs holds one.
        """
        return self._submit(tool_name, tool_args, lambda: execute_fn(tool_name, tool_args), None)

    def submit_async(self, tool_name: str, tool_args: ToolArguments, execute_fn: ExecuteAsync) -> SubmittedId:
        """
        Do as :meth:`submit` with a function that is async: it runs in the event loop from which this is called.

        Called from a thread without an event loop, it runs in one of its own. Asked to stop, it is cancelled as asyncio
        does it; if its loop is closed before it ends, it was interrupted.

        Returns:
            The id; awaited (the original is a coroutine), the same, once the record would survive a power cut.

        Raises:
            ValueError: As :meth:`submit`, and so are the others.
        """

        async def call() -> object:
            return await execute_fn(tool_name, tool_args)

        return self._submit(tool_name, tool_args, call, _running_loop())

    def _submit(
        self, name: str, arguments: ToolArguments, execute: Callable[[], object], loop: asyncio.AbstractEventLoop | None
    ) -> SubmittedId:
        self.evict_completed_tasks()
        here = _running_loop()
        self._loop = here or self._loop
        claim = self._store.begin(self._new(name, arguments), durably=here is None)
        shown = BackgroundTask(
            task_id=claim.task.id,
            anima_name=self._anima_name,
            tool_name=name,
            tool_args=arguments,
            status=TaskStatus.RUNNING,
            created_at=claim.task.submitted_at.timestamp(),
        )
        with self._mutex:
            self._tasks[shown.task_id] = shown
        task_id = SubmittedId(shown.task_id)
        task_id.kept = Future()
        _start(lambda: self._run(claim, shown, _Call(execute, loop), task_id.kept, here), name=shown.task_id)
        return task_id

    def _new(self, name: str, arguments: ToolArguments) -> Task:
        if not name:
            raise ValueError("a task needs the name of a tool")
        tool, _, subcommand = name.partition(":")
        if not tool or not subcommand:  # no two parts, but a name of its own
            tool, subcommand = name, ""
        seconds = self._eligible.get(name)
        options = SubmitOptions(
            subcommand=subcommand,
            expected_seconds=None if seconds is None else max(0, seconds),
            timeout_seconds=_NO_LIMIT,
            retries=0,
            on_interrupt=OnInterrupt.FAIL,  # nobody else could call it again, whatever the tool of this name says
        )
        argv = (_written(arguments),) if arguments else ()
        task = new_task(tool, argv, options, anima_dir=self._store.location, at=utc_now())
        return attrs.evolve(task, anima_name=self._anima_name, extra={IN_PROCESS: True})

    # In the thread of a call.

    def _run(
        self,
        claim: Claim,
        shown: BackgroundTask,
        call: _Call,
        kept: Future[None],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        try:
            done = self._call(claim, call, kept)
        except Exception as error:  # a disk that says no, most likely, and has done so for minutes
            logger.exception("the outcome of task %s could not be stored; it will end as interrupted", shown.task_id)
            give_up(claim)
            shown.error, shown.completed_at = f"its outcome could not be stored: {error}", time.time()
            shown.status = TaskStatus.FAILED
        else:
            self._show(shown, done)
        self._tell(shown, loop)
        self.evict_completed_tasks()

    def _call(self, claim: Claim, call: _Call, kept: Future[None]) -> Task:
        try:
            self._store.secure(claim)
        except OSError as error:
            kept.set_exception(error)
            told = f"it was not called: its record could not be kept: {error}"
            return self._store.finish(claim, Event.FAIL, **(never_began(claim.task) | _failure(told)))
        kept.set_result(None)
        if self._store.workspace(claim.task.id).cancel_requested():
            return self._store.finish(claim, Event.CANCEL, **never_began(claim.task))
        return run_owned(self._store, claim, call.tool(), call.invoke)

    def _tell(self, task: BackgroundTask, loop: asyncio.AbstractEventLoop | None) -> None:
        callback = self.on_complete
        if callback is None:
            return

        async def tell() -> None:
            try:
                answer: object = callback(task)
                if inspect.isawaitable(answer):  # a plain function is none of the original's, and harmless
                    await answer
            except Exception:
                logger.exception("on_complete callback %r failed for task %s", callback, task.task_id)

        for each in (loop, self._loop):
            if each is not None and each.is_running() and _begin(tell(), each) is not None:
                return
        asyncio.run(tell())

    # Looking.

    def get_task(self, task_id: str) -> BackgroundTask | None:
        """
        Return a task of this Anima, whoever submitted it; None if there is none, or its record cannot be read.

        This manager's own come from memory, the others from the disk: also those of earlier processes, of a shell, and
        what the original left in ``background_tasks/<id>.json``.
        """
        with self._mutex:
            shown = self._tasks.get(task_id)
        if shown is not None:
            return shown
        try:
            return self._shown(self._store.get(task_id))
        except TaskNotFoundError:
            return self._earlier(task_id)
        except (RecordError, OSError) as error:
            logger.warning("task %s cannot be read: %s", task_id, error)
            return None

    def list_tasks(self, status: TaskStatus | None = None) -> list[BackgroundTask]:
        """
        Return all tasks of this Anima, the newest first by when they were submitted; see :meth:`get_task`.

        It reads every record: where thousands are kept, call it off the event loop.

        Args:
            status: Only these; None for all.
        """
        found = {task.id: self._shown(task) for task in self._store.list()}
        for task_id in self._earlier_ids() - found.keys():
            earlier = self._earlier(task_id)
            if earlier is not None:
                found[task_id] = earlier
        with self._mutex:
            found.update(self._tasks)
        chosen = [task for task in found.values() if status is None or task.status == status]
        return sorted(chosen, key=lambda task: task.created_at, reverse=True)

    def active_count(self) -> int:
        """Return how many calls of this manager run."""
        with self._mutex:
            return sum(task.status is TaskStatus.RUNNING for task in self._tasks.values())

    # Forgetting.

    def evict_completed_tasks(self, *, now: float | None = None) -> int:
        """
        Forget in memory what has ended, if it is too old or too many; nothing on disk changes. Every submit does it.

        Args:
            now: Unix seconds; None is the clock's.

        Returns:
            How many were forgotten.
        """
        limit = (time.time() if now is None else now) - self._retention
        with self._mutex:
            ended = sorted(
                (task for task in self._tasks.values() if task.status in {TaskStatus.COMPLETED, TaskStatus.FAILED}),
                key=lambda task: task.completed_at or 0.0,
            )
            too_many = max(0, len(ended) - self._kept)
            old = [task for n, task in enumerate(ended) if n < too_many or (task.completed_at or 0.0) <= limit]
            for task in old:
                del self._tasks[task.task_id]
        return len(old)

    def cleanup_old_tasks(self, max_age_hours: float = 24) -> int:
        """
        Forget, on disk too, tasks that ended long ago: record, log and results.

        Unlike the original's, a task stays whose notification nobody has read; and one that runs is never taken for a
        corpse by its age: whether its process lives is known. It waits for the disk: call it off the event loop.

        Args:
            max_age_hours: How long ago, in hours; 0 takes all that have ended.

        Returns:
            How many were forgotten.

        Raises:
            OSError: The disk said no; some may have been forgotten.
        """
        before = utc_now() - timedelta(hours=max_age_hours)
        gone = {*self._store.prune(finished_before=before), *self._remove_earlier(before.timestamp())}
        with self._mutex:
            for task_id in gone:
                self._tasks.pop(task_id, None)
        return len(gone)

    # What lies on the disk.

    def _recover(self) -> None:
        try:
            # Those of registered tools are their executor's: it knows which of them may run again.
            self._store.recover(concerns=lambda task: task.extra.get(IN_PROCESS) is True)
        except Exception:  # nothing may keep a host from starting; the next manager, or an executor, tries again
            logger.exception("what an earlier process left in %s could not be looked at", self._store.location)

    def _shown(self, task: Task) -> BackgroundTask:
        shown = BackgroundTask(
            task_id=task.id,
            anima_name=task.anima_name,
            tool_name=task.name,
            tool_args=_arguments_of(task),
            status=TaskStatus.PENDING if task.state is State.PENDING else TaskStatus.RUNNING,
            created_at=task.submitted_at.timestamp(),
        )
        if task.state is State.DONE:
            self._show(shown, task)
        return shown

    def _show(self, shown: BackgroundTask, done: Task) -> None:
        shown.result, shown.error = self._whole_result(done), done.error
        shown.completed_at = None if done.finished_at is None else done.finished_at.timestamp()
        shown.status = TaskStatus.COMPLETED if done.outcome is Outcome.COMPLETED else TaskStatus.FAILED

    def _whole_result(self, task: Task) -> str | None:
        if task.result_file is None or not isinstance(self._store, TaskStore):
            return task.result
        layout = self._store.layout
        path = os.path.normpath(os.path.join(layout.root, task.result_file))
        if not path.startswith(os.path.join(layout.results, task.id) + os.sep):  # a record may be anybody's
            return task.result
        try:
            return _files.read(path, limit=sys.maxsize).decode("utf-8", "replace")
        except OSError:
            return task.result

    # What the original left: files of its own, where we have our views. Nobody else will ever settle or remove them.

    def _earlier_ids(self) -> set[str]:
        if not isinstance(self._store, TaskStore):
            return set()
        names = _files.names(self._store.layout.root)
        return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}

    def _earlier(self, task_id: str) -> BackgroundTask | None:
        if not isinstance(self._store, TaskStore) or os.path.basename(task_id) != task_id:
            return None
        try:
            values = json.loads(_files.read(self._store.layout.view(task_id), limit=SIZE_LIMIT))
            return BackgroundTask(
                task_id=values["task_id"],
                anima_name=values["anima_name"],
                tool_name=values["tool_name"],
                tool_args=values.get("tool_args", {}),
                status=TaskStatus(values["status"]),
                created_at=float(values.get("created_at") or 0.0),
                completed_at=None if values.get("completed_at") is None else float(values["completed_at"]),
                result=values.get("result"),
                error=values.get("error"),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            logger.warning("background_tasks/%s.json cannot be read: %s", task_id, error)
            return None

    def _remove_earlier(self, before: float) -> Iterator[str]:
        for task_id in self._earlier_ids():
            task = None if self._is_ours(task_id) else self._earlier(task_id)
            if task is None:
                continue
            ended = task.completed_at is not None and task.completed_at < before
            if ended or (task.completed_at is None and task.created_at < time.time() - _STALE):
                assert isinstance(self._store, TaskStore)  # noqa: S101 - for the type checker: it had ids
                if _files.discard(self._store.layout.view(task_id)):
                    yield task_id

    def _is_ours(self, task_id: str) -> bool:
        try:
            self._store.get(task_id)
        except TaskNotFoundError:
            return False
        except RecordError:
            pass
        return True


class _Call:
    """One call of the host's, and whether its event loop went away under it."""

    def __init__(self, execute: Callable[[], object], loop: asyncio.AbstractEventLoop | None) -> None:
        self._execute, self._loop = execute, loop
        self._lost = False

    def tool(self) -> Tool:
        """Return what the runner needs to make the call."""
        return Tool(name="in-process", subcommand="call", target=FunctionTarget(None, self._work), parameters=())

    def invoke(self, tool: Tool, task: Task, store: Store, timeout: float) -> Report:
        """Make it, in this thread."""
        report = call_here(tool, task, store, timeout)
        if not self._lost:
            return report
        error = "its event loop ended while it was running; it may have partly run"
        return attrs.evolve(report, cause=Cause.INTERRUPTED, error=error, cancelled=False)

    def _work(self, context: ToolContext) -> object:
        if self._loop is None:
            return self._execute()
        running: list[asyncio.Task[object]] = []

        async def main() -> object:
            current = asyncio.current_task()
            assert current is not None  # noqa: S101 - for the type checker: this is a coroutine
            running.append(current)
            return await self._execute()  # type: ignore[misc]  # what has a loop is async

        future = _begin(main(), self._loop)
        asked = False
        while future is not None and not future.done() and not self._loop.is_closed():
            concurrent.futures.wait([future], _LOOK)
            if context.cancelled and running and not asked:
                asked = True
                with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                    self._loop.call_soon_threadsafe(running[0].cancel)
        if future is not None and future.cancelled() and asked:
            raise TaskCancelled("it was asked to stop")
        self._lost = future is None or not future.done() or future.cancelled()
        return None if future is None or self._lost else future.result()


def _begin(coroutine: Coroutine[Any, Any, object], loop: asyncio.AbstractEventLoop) -> Future[object] | None:
    """Let *loop*, of another thread, run *coroutine*; None if it was closed."""
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        return None


def _start(function: Callable[[], None], *, name: str) -> None:
    """Run *function* in a thread of its own, which does not keep the process from exiting."""
    threading.Thread(target=function, name=f"animaworks_tasks-{name}", daemon=True).start()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _facts(profiles: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    for tool, subcommands in profiles.items():
        for subcommand, facts in subcommands.items() if isinstance(subcommands, Mapping) else ():
            if isinstance(facts, Mapping):
                yield f"{tool}:{subcommand}", facts


def _written(arguments: object) -> str:
    """Return what a record keeps of *arguments*: JSON."""
    try:
        text = json.dumps(arguments, ensure_ascii=False, default=str)
        if len(text.encode("utf-8")) <= _ARGUMENTS_LIMIT:
            return text
    except Exception:  # noqa: BLE001 - a circle, half of a character, or whatever a __str__ raises
        text = _told(arguments)
    return json.dumps({"arguments": one_line(text, 1000)}, ensure_ascii=False)


def _told(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - anybody's __repr__
        return f"{type(value).__name__} ({type(error).__name__})"


def _arguments_of(task: Task) -> ToolArguments:
    if task.extra.get(IN_PROCESS) is not True:
        return {"subcommand": task.subcommand, "raw_args": list(task.argv), "anima_dir": task.anima_dir}
    try:
        arguments = json.loads(task.argv[0]) if task.argv else {}
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": list(task.argv)}


def _failure(error: str) -> dict[str, Any]:
    return {"cause": Cause.REJECTED, "error": error}


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
