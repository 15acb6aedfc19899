"""``animaworks-tool show`` and ``events``: everything about one task, what happened to it, and what to do next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.stores import find, obstacle, open_store
from animaworks_tasks.cli.text import TaskView, as_json, described, duration, moment, said, views_of
from animaworks_tasks.errors import TaskNotFoundError, TasksError
from animaworks_tasks.notifications.delivery import Delivery, Fate, delivery_status, noted_at
from animaworks_tasks.notifications.render import ENGLISH, one_line, preview, said_by_tool
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.store.workspace import kept_result
from animaworks_tasks.task.model import Cause, Outcome, State, Task, is_task_id

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
    text = preview(task)
    if text:
        lines += ["", text]
    put("\n".join(lines) + "\n")
    return 0


def _facts(view: TaskView, store: TaskStore) -> Iterator[tuple[str, str]]:
    task = view.task
    yield "task", f"{task.id} {one_line(task.name, 100)}"
    how = view.note() if view.orphaned else view.time()
    yield "state", f"{view.status}, {how}" + (" (overdue)" if view.overdue else "")
    yield "progress", said(view.progress)
    yield "call", one_line(shlex.join(["animaworks-tool", "submit", task.tool, *task.argv]), 2000)
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
    if task.state is State.DONE:
        if task.outcome is Outcome.COMPLETED:
            return f"`animaworks-tool show --result {task.id}` prints the whole result" if task.result else "nothing"
        if task.cause in {Cause.ARGUMENTS, Cause.REJECTED}:
            return "correct the call, and submit it again"
        log = f"`animaworks-tool logs {task.id}`, then " if task.attempt else ""
        return f"{log}`animaworks-tool retry {task.id}` submits it once more"
    blocked = obstacle(store, task)
    if blocked is not None:
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
    if task.result is None:
        if task.state is not State.DONE:
            raise TasksError(f"task {task.id} is {task.state.value}: `animaworks-tool wait {task.id}`, then ask again")
        if task.outcome is not Outcome.COMPLETED:
            raise TasksError(f"task {task.id} has no result; `animaworks-tool show {task.id}` says why")
        return b""
    data = task.result.encode("utf-8")
    return data if data.endswith(b"\n") or not data else data + b"\n"


def events_(options: SimpleNamespace) -> int:
    """Print the journal; of one task, the delivery of its notification as well."""
    store = open_store(options)
    task_id = None if options.task is None else _whose(store, options.task)
    events = list(store.events(task_id))
    delivery = None if task_id is None else _delivery_of(store, task_id, events)
    if options.since is not None:
        since = utc_now() - options.since
        events = [event for event in events if (at := noted_at(event)) is not None and at >= since]
    if options.json:
        when = delivery.at.isoformat() if delivery and delivery.at else None
        status = delivery and {"state": delivery.fate.name.lower(), "at": when, "by": delivery.by, "pid": delivery.pid}
        put(as_json({"events": events, "notification": status}))
        return 0
    put("".join(f"{_line(event)}\n" for event in events))
    if delivery is not None:
        put(
            (delivery.fate.value if delivery.fate is Fate.NOT_YET else f"its notification {_in_words(delivery)}") + "\n"
        )
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
    """Return whether the notification of a task that has ended was delivered, when and to which program, in words."""
    if delivery.fate is Fate.DELIVERED:
        when = f" at {moment(delivery.at)}" if delivery.at else "; the journal does not say when"
        program = f" to {one_line(delivery.by, 100)}" if delivery.by else ""
        return f"{delivery.fate.value}{program}{f' (process {delivery.pid})' if delivery.pid else ''}{when}"
    since = f" since {moment(delivery.at)}" if delivery.at and delivery.fate is Fate.WAITING else ""
    left = f"; it was left at {moment(delivery.at)}" if delivery.at and delivery.fate is Fate.TAKEN else ""
    todo = "; see `animaworks-tool doctor`" if delivery.fate in {Fate.MISSING, Fate.UNKNOWN} else ""
    return f"{delivery.fate.value}{since}{left}{todo}"
