"""``animaworks-tool logs`` and ``wait``: watch tasks, from outside, until they are done."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.stores import find, obstacle, open_store
from animaworks_tasks.cli.text import as_json, described, views_of
from animaworks_tasks.fs import files
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.task.model import Outcome, State, Task

POLL_INTERVAL: Final = 0.2  # seconds between two looks; people do not notice less
NOT_DONE: Final = 3  # exit status
_CHUNK: Final = 1 << 16  # bytes


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
    _warn(store, [task for task in tasks.values() if task.state is not State.DONE])
    while True:
        for task_id in list(waiting):
            tasks[task_id] = store.get(task_id)
            if tasks[task_id].state is State.DONE:
                waiting.remove(task_id)
                if not options.json:
                    put(one_line(tasks[task_id].summary(), 400) + "\n")
        if not waiting or time.monotonic() >= deadline:
            break
        time.sleep(POLL_INTERVAL)
    if options.json:
        put(as_json([described(view, store) for view in views_of(store, tasks.values())]))
    for task_id in waiting:
        why = obstacle(store, tasks[task_id]) or f"it goes on (`animaworks-tool show {task_id}` says more)"
        say(f"not done after {options.timeout:g} s: {task_id}: {why}")
    if waiting:
        return NOT_DONE
    return 0 if all(task.outcome is Outcome.COMPLETED for task in tasks.values()) else 1


def _warn(store: TaskStore, tasks: list[Task]) -> None:
    """Write to stderr which of *tasks* may never finish as things are, and why."""
    for task in tasks:
        blocked = obstacle(store, task)
        if blocked is not None:
            say(f"task {task.id} is {task.state.value}: {blocked}; waiting")


def _looks(store: TaskStore, task_id: str) -> Iterator[Task]:
    """Yield the task at each poll, up to and including DONE."""
    while True:
        task = store.get(task_id)
        yield task
        if task.state is State.DONE:
            return
        time.sleep(POLL_INTERVAL)


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
