"""``animaworks-tool show``, ``events``, ``logs`` and ``wait``: all that is known of a task, now or until it is done."""

import math
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.stores import find, obstacle, open_store
from animaworks_tasks.cli.text import TaskView, as_json, described, duration, moment, said, views_of
from animaworks_tasks.errors import TaskNotFoundError, TasksError
from animaworks_tasks.fs import files
from animaworks_tasks.notifications.delivery import Delivery, Fate, delivery_status, noted_at
from animaworks_tasks.notifications.render import ENGLISH, next_command, one_line, preview, said_by_tool
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.store.workspace import kept_result
from animaworks_tasks.task.model import Cause, Outcome, State, Task, is_task_id

_POLL_INTERVAL: Final = 0.2  # seconds between two looks; a shorter time is none to a person
_CHUNK: Final = 1 << 16  # bytes
_COMMON: Final = ("at", "event", "task_id", "pid")


def show_(options: SimpleNamespace) -> int:
    """Print one task; with ``--result`` its result and nothing else."""
    store = open_store(options)
    task = find(store, options.id)
    if options.result:
        put(_whole_result(store, task))
        return 0
    [view] = views_of(store, [task])
    next_step = _next_step(store, task)
    if options.json:
        put(as_json({**described(view, store), "next": next_step}))
        return 0
    lines = [f"{label + ':':<13} {text}" for label, text in [*_facts(view, store), ("next", next_step)] if text]
    if text := preview(task):
        lines += ["", text]
    put("\n".join(lines) + "\n")
    return 0


def _facts(view: TaskView, store: TaskStore) -> Iterator[tuple[str, str]]:
    task = view.task
    yield "task", f"{task.id} {one_line(task.name, 100)}"
    how = view.note() if view.orphaned else view.time()
    yield "state", f"{view.status}, {how}" + (" (overdue)" if view.overdue else "")
    yield "progress", said(view.progress)
    yield "call", one_line(shlex.join(["animaworks-tool", "submit", task.tool, *view.argv]), 2000)
    yield "in", one_line(task.cwd or "", 500)
    yield "options", ", ".join(_options(task))
    yield "submitted", moment(task.submitted_at)
    yield "not before", moment(task.not_before) if task.not_before else ""
    yield "started", moment(task.started_at) + f", attempt {task.attempt}" if task.started_at else ""
    yield "finished", moment(task.finished_at) if task.finished_at else ""
    yield "cause", f"{task.cause.value}: {ENGLISH.advice[task.cause]}" if task.cause else ""
    yield "error", "" if said_by_tool(task) else one_line(task.error or "", 2000)
    yield "hint", one_line(task.hint or "", 500)
    yield "process", str(task.owner_pid or "") if task.state is State.RUNNING else ""
    yield "log", store.layout.log(task.id) if task.attempt else ""
    yield "result", os.path.join(store.layout.root, one_line(task.result_file, 500)) if task.result_file else ""
    if task.state is State.DONE:
        yield "notification", _in_words(_delivery_of(store, task.id, list(store.events(task.id))))


def _options(task: Task) -> Iterator[str]:
    given = {
        "priority": task.priority or None,
        "key": task.key and repr(one_line(task.key, 100)),
        "timeout": task.timeout_seconds and duration(task.timeout_seconds),
        "retries": task.retries,
        "a retry of": task.retry_of and one_line(task.retry_of, 20),
    }
    return (f"{name} {value}" for name, value in given.items() if value is not None)


def _next_step(store: TaskStore, task: Task) -> str:
    """Return the next step."""
    if task.outcome is Outcome.COMPLETED:
        return f"`animaworks-tool show --result {task.id}` prints the whole result" if task.result else "nothing"
    if task.cause in {Cause.ARGUMENTS, Cause.REJECTED}:
        return "correct the call, and submit it again"
    if task.state is State.DONE:
        log = f"`animaworks-tool logs {task.id}`, then " if task.attempt else ""
        again = next_command(task)
        return f"{log}`{again}` submits it once more" if again else f"{log}ask its host, which alone can call it again"
    if blocked := obstacle(store, task):
        return blocked
    if task.state is State.PENDING:
        return f"nothing: it is started when its turn comes; `animaworks-tool cancel {task.id}` takes it back"
    return f"`animaworks-tool logs -f {task.id}` follows it, `animaworks-tool cancel {task.id}` stops it"


def _whole_result(store: TaskStore, task: Task) -> bytes:
    """
    Return all that the tool returned or printed.

    Raises:
        TasksError: It has no result (yet).
    """
    try:
        whole = kept_result(store.layout, task)
    except OSError as error:
        where = one_line(str(error.filename or task.result_file), 500)
        raise TasksError(
            f"the whole result cannot be read: {error.strerror or error}: {where}; "
            f"`animaworks-tool show {task.id}` prints what the record has of it, and `retry` makes it anew"
        ) from error
    if whole is not None:
        return whole
    if task.result_size is not None:
        raise TasksError(
            f"the whole result, of {task.result_size} bytes, was not stored; `animaworks-tool show {task.id}` prints "
            "its beginning and its end, and `retry` makes it anew"
        )
    if task.state is not State.DONE:
        raise TasksError(f"task {task.id} is {task.state.value}: `animaworks-tool wait {task.id}`, then ask again")
    if task.result is None and task.outcome is not Outcome.COMPLETED:
        raise TasksError(f"task {task.id} has no result; `animaworks-tool show {task.id}` says why")
    text = task.result or ""
    return (text if text.endswith("\n") or not text else f"{text}\n").encode()


def events_(options: SimpleNamespace) -> int:
    """Print the journal; of one task, the delivery of its notification as well."""
    store = open_store(options)
    task_id = None if options.task is None else _whose(store, options.task)
    events = list(store.events(task_id))
    delivery = None if task_id is None else _delivery_of(store, task_id, events)
    if options.since is not None:
        since = utc_now() - timedelta(seconds=options.since)
        events = [event for event in events if (at := noted_at(event)) is not None and at >= since]
    if options.json:
        when = delivery.at.isoformat() if delivery and delivery.at else None
        status = delivery and {"state": delivery.fate.name.lower(), "at": when, "by": delivery.by, "pid": delivery.pid}
        put(as_json({"events": events, "notification": status}))
        return 0
    put("".join(f"{_line(event)}\n" for event in events))
    if delivery is not None:
        put(f"{'' if delivery.fate is Fate.NOT_YET else 'its notification '}{_in_words(delivery)}\n")
    elif not events:
        say(f"nothing was noted in {store.location}" + (" since then" if options.since else ""))
    return 0


def _whose(store: TaskStore, text: str) -> str:
    """
    Return the id that *text* is, or is the beginning of; also of a task that was pruned, as long as the journal has it.

    Raises:
        UsageError: It is the beginning of several ids, or too short.
        TaskNotFoundError: There was no such task.
    """
    try:
        return find(store, text).id
    except TaskNotFoundError:
        noted = {str(event.get("task_id")) for event in store.events()}
        found = [task_id for task_id in noted if task_id.startswith(text.lower()) and is_task_id(task_id)]
        if len(found) != 1:
            raise
        return found[0]


def _delivery_of(store: TaskStore, task_id: str, events: Sequence[Mapping[str, Any]]) -> Delivery:
    """Return the delivery status of the notification of a task; *events* are its lines in the journal."""
    places = (store.layout.read_notification(task_id), store.layout.done_record(task_id))
    read, ended = map(os.path.lexists, places)
    return delivery_status(events, waits=store.notifications.waits(task_id), read=read, ended=ended)


def _line(event: Mapping[str, Any]) -> str:
    at = noted_at(event)
    facts = [f"{key}={one_line(str(value), 200)}" for key, value in event.items() if key not in _COMMON and value]
    if "pid" in event:
        facts.append(f"(process {one_line(str(event['pid']), 20)})")
    when = "?" if at is None else moment(at)
    what = one_line(str(event.get("event")), 40)
    return f"{when:<19}  {one_line(str(event.get('task_id', '-')), 20):<12}  {what:<16}  {' '.join(facts)}".rstrip()


def _in_words(delivery: Delivery) -> str:
    """Return whether the notification of a task was delivered, when and to which program, in words."""
    at = moment(delivery.at) if delivery.at else ""
    by = f" to {one_line(delivery.by, 100)}" if delivery.by else ""
    process = f" (process {delivery.pid})" if delivery.pid else ""
    more = {
        Fate.DELIVERED: by + process + (f" at {at}" if at else "; the journal does not say when"),
        Fate.WAITING: at and f" since {at}",
        Fate.TAKEN: at and f"; it was left at {at}",
        Fate.MISSING: "; see `animaworks-tool doctor`",
        Fate.UNKNOWN: "; see `animaworks-tool doctor`",
    }
    return delivery.fate.value + more.get(delivery.fate, "")


def logs_(options: SimpleNamespace) -> int:
    """Print what the tool wrote so far; with ``--follow`` until the task is done."""
    store = open_store(options)
    task = find(store, options.id)
    if options.json:
        if options.follow:
            *_, task = _looks(store, task.id)
        log = store.read_log(task.id).decode("utf-8", "replace")
        put(as_json({"task_id": task.id, "state": task.state.value, "log": log}))
        return 0
    if not (_follow(store, task) if options.follow else _copy(store.layout.log(task.id), 0)):
        yet = "" if task.state is State.DONE or options.follow else " yet"
        say(f"task {task.id} is {task.state.value}, and its tool has written nothing{yet}")
    return 0


def wait_(options: SimpleNamespace) -> int:
    """Wait until all tasks are done and say how each ended."""
    store = open_store(options)
    tasks = {task.id: task for task in (find(store, text) for text in options.ids)}
    deadline = time.monotonic() + (math.inf if options.timeout is None else options.timeout)
    waiting = list(tasks)
    _warn(store, tasks.values())
    while True:
        for task_id in list(waiting):
            tasks[task_id] = store.get(task_id)
            if tasks[task_id].state is State.DONE:
                waiting.remove(task_id)
                if not options.json:
                    put(one_line(tasks[task_id].summary(), 400) + "\n")
        if not waiting or time.monotonic() >= deadline:
            break
        time.sleep(_POLL_INTERVAL)
    if options.json:
        put(as_json([described(view, store) for view in views_of(store, tasks.values())]))
    for task_id in waiting:
        why = obstacle(store, tasks[task_id]) or f"it goes on (`animaworks-tool show {task_id}` says more)"
        say(f"not done after {duration(options.timeout)}: {task_id}: {why}")
    if waiting:
        return 3
    return 0 if all(task.outcome is Outcome.COMPLETED for task in tasks.values()) else 1


def _warn(store: TaskStore, tasks: Iterable[Task]) -> None:
    """Write to stderr which of *tasks* may never finish as things are, and why."""
    for task in tasks:
        if blocked := obstacle(store, task):
            say(f"task {task.id} is {task.state.value}: {blocked}; waiting")


def _looks(store: TaskStore, task_id: str) -> Iterator[Task]:
    """Yield the task at each poll, up to and including DONE."""
    while True:
        task = store.get(task_id)
        yield task
        if task.state is State.DONE:
            return
        time.sleep(_POLL_INTERVAL)


def _follow(store: TaskStore, task: Task) -> int:
    _warn(store, [task])
    written = 0
    for look in _looks(store, task.id):  # read before the log: a done task has written all of it
        written = _copy(store.layout.log(task.id), written)
        task = look
    say(f"task {one_line(task.summary(), 400)}")
    return written


def _copy(path: str, offset: int) -> int:
    """Print what *path* holds from *offset* on, and return where it ends now."""
    try:
        fd = files.open_file(path)
    except FileNotFoundError:
        return offset
    with open(fd, "rb", buffering=0) as log:
        log.seek(offset)
        while data := log.read(_CHUNK):
            put(data)
        return log.tell()
