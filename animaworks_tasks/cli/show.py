"""``animaworks-tool show`` and ``events``: everything about one task, what happened to it, and what to do next."""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.stores import find, obstacle, open_store
from animaworks_tasks.cli.text import Standing, as_json, catalogued, described, duration, moment, said
from animaworks_tasks.errors import TaskNotFoundError, TasksError
from animaworks_tasks.notifications.delivery import Delivery, Fate, delivery, noted_at
from animaworks_tasks.notifications.render import ENGLISH, one_line, preview, said_by_tool
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.protocol import utc_now
from animaworks_tasks.store.workspace import kept_result
from animaworks_tasks.task.model import Cause, Outcome, State, Task, is_task_id

_COMMON: Final = ("at", "event", "task_id", "pid")


def show_(options: Namespace) -> int:
    """Print one task; with ``--result`` its result and nothing else."""
    store = open_store(options)
    task = find(store, options.id)
    if options.result:
        put(_whole_result(store, task))
        return 0
    standing = Standing.of(store, task, catalogued(store))
    next_step = _next_step(store, task)
    if options.json:
        put(as_json({**described(standing, store), "next": next_step}))
        return 0
    lines = [f"{label + ':':<11} {text}" for label, text in [*_facts(standing, store), ("next", next_step)] if text]
    told = preview(task)
    if told:
        lines += ["", told]
    put("\n".join(lines) + "\n")
    return 0


def _facts(standing: Standing, store: TaskStore) -> Iterator[tuple[str, str]]:
    task = standing.task
    yield "task", f"{task.id} {one_line(task.name, 100)}"
    how = standing.note() if standing.orphaned else standing.time()
    yield "state", f"{standing.status}, {how}" + (" (overdue)" if standing.overdue else "")
    yield "progress", said(standing.progress)
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
    yield "log", os.path.join(store.layout.logs, f"{task.id}.log") if task.attempt else ""
    yield "result", os.path.join(store.layout.root, one_line(task.result_file, 500)) if task.result_file else ""
    if task.state is State.DONE:
        yield "notice", _in_words(_notice_of(store, task.id, list(store.events(task.id))))


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
    """Say what can be done now."""
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
            raise TasksError(f"task {task.id} has no result; `animaworks-tool show {task.id}` tells why")
        return b""
    data = task.result.encode("utf-8")
    return data if data.endswith(b"\n") or not data else data + b"\n"


def events_(options: Namespace) -> int:
    """Print the journal; of one task, its notice's fate as well."""
    store = open_store(options)
    task_id = None if options.task is None else _whose(store, options.task)
    events = list(store.events(task_id))
    notice = None if task_id is None else _notice_of(store, task_id, events)
    if options.since is not None:
        since = utc_now() - options.since
        events = [event for event in events if (at := noted_at(event)) is not None and at >= since]
    if options.json:
        when = notice.at.isoformat() if notice and notice.at else None
        told = notice and {"state": notice.fate.name.lower(), "at": when, "by": notice.by, "pid": notice.pid}
        put(as_json({"events": events, "notice": told}))
        return 0
    put("".join(f"{_line(event)}\n" for event in events))
    if notice is not None:
        put((notice.fate.value if notice.fate is Fate.NOT_YET else f"its notice {_in_words(notice)}") + "\n")
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


def _notice_of(store: TaskStore, task_id: str, events: Sequence[Mapping[str, Any]]) -> Delivery:
    """Say what became of the notice of a task; *events* are its lines in the journal."""
    places = (os.path.join(store.layout.read, f"{task_id}.md"), os.path.join(store.layout.done, f"{task_id}.json"))
    read, ended = map(os.path.lexists, places)
    return delivery(events, waits=store.notifications.waits(task_id), read=read, ended=ended)


def _line(event: Mapping[str, Any]) -> str:
    at = noted_at(event)
    facts = [f"{key}={one_line(str(value), 200)}" for key, value in event.items() if key not in _COMMON and value]
    if "pid" in event:
        facts.append(f"(process {one_line(str(event['pid']), 20)})")
    when = "?" if at is None else moment(at)
    what = one_line(str(event.get("event")), 40)
    return f"{when:<19}  {one_line(str(event.get('task_id', '-')), 20):<12}  {what:<16}  {' '.join(facts)}".rstrip()


def _in_words(notice: Delivery) -> str:
    """Answer of the notice of a task that has ended: was it delivered, when, to whom?"""
    if notice.fate is Fate.DELIVERED:
        when = f" at {moment(notice.at)}" if notice.at else "; the journal does not say when"
        program = f" to {one_line(notice.by, 100)}" if notice.by else ""
        return f"{notice.fate.value}{program}{f' (process {notice.pid})' if notice.pid else ''}{when}"
    since = f" since {moment(notice.at)}" if notice.at and notice.fate is Fate.WAITING else ""
    left = f"; it was left at {moment(notice.at)}" if notice.at and notice.fate is Fate.TAKEN else ""
    todo = "; see `animaworks-tool doctor`" if notice.fate in {Fate.MISSING, Fate.UNKNOWN} else ""
    return f"{notice.fate.value}{since}{left}{todo}"
