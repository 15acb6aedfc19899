"""``animaworks-tool logs`` and ``wait``: watch tasks, from outside, until they are done."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.stores import find, obstacle, open_store
from animaworks_tasks.cli.text import Standing, as_json, catalogued, described
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.task.model import Outcome, State, Task

POLL_INTERVAL: Final = 0.2  # seconds between two looks; people do not notice less
NOT_DONE: Final = 3  # exit status
_CHUNK: Final = 1 << 16  # bytes


def logs_(options: Namespace) -> int:
    """Print what the tool wrote so far; with ``--follow`` until the task is done."""
    store = open_store(options)
    task = find(store, options.id)
    if options.json:
        if options.follow:
            task = next(task for task in _looks(store, task.id) if task.state is State.DONE)
        log = store.read_log(task.id).decode("utf-8", "replace")
        put(as_json({"task_id": task.id, "state": task.state.value, "log": log}))
        return 0
    if not (_follow(store, task) if options.follow else _copy(store.workspace(task.id).log_path, 0)):
        yet = "" if task.state is State.DONE or options.follow else " yet"
        say(f"task {task.id} is {task.state.value}, and its tool has written nothing{yet}")
    return 0


def wait_(options: Namespace) -> int:
    """Wait until all tasks are done and say how each ended."""
    store = open_store(options)
    tasks = {task.id: task for task in (find(store, text) for text in options.ids)}
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    waiting = list(tasks)
    _warn(store, [task for task in tasks.values() if task.state is not State.DONE])
    while True:
        for task_id in list(waiting):
            tasks[task_id] = store.get(task_id)
            if tasks[task_id].state is State.DONE:
                waiting.remove(task_id)
                if not options.json:
                    put(one_line(tasks[task_id].summary(), 400) + "\n")
        if not waiting or (deadline is not None and time.monotonic() >= deadline):
            break
        time.sleep(POLL_INTERVAL)
    if options.json:
        tools = catalogued(store)
        put(as_json([described(Standing.of(store, task, tools), store) for task in tasks.values()]))
    if waiting:
        _say_what_is_left(store, [tasks[task_id] for task_id in waiting], options.timeout)
        return NOT_DONE
    return 0 if all(task.outcome is Outcome.COMPLETED for task in tasks.values()) else 1


def _say_what_is_left(store: TaskStore, tasks: list[Task], timeout: float) -> None:
    """Say what is not done, and whether it will be without anybody's help."""
    stuck = {task.id: blocked for task in tasks if (blocked := obstacle(store, task)) is not None}
    going = [task.id for task in tasks if task.id not in stuck]
    if going:
        goes = "it goes" if len(going) == 1 else "they go"
        say(f"not done after {timeout:g} s: {', '.join(going)}; {goes} on (`animaworks-tool show ID` tells more)")
    for blocked in dict.fromkeys(stuck.values()):
        ids = ", ".join(task_id for task_id, by in stuck.items() if by == blocked)
        say(f"not done after {timeout:g} s: {ids}: {blocked}")


def _warn(store: TaskStore, tasks: list[Task]) -> None:
    """Say so if what is waited for may never come."""
    for task in tasks:
        blocked = obstacle(store, task)
        if blocked is not None:
            say(f"task {task.id} is {task.state.value}: {blocked}; waiting")


def _looks(store: TaskStore, task_id: str) -> Iterator[Task]:
    """Yield the task as it is now, now and again, up to and including DONE."""
    while True:
        task = store.get(task_id)
        yield task
        if task.state is State.DONE:
            return
        time.sleep(POLL_INTERVAL)


def _follow(store: TaskStore, task: Task) -> int:
    _warn(store, [task])
    written = 0
    for look in _looks(store, task.id):  # it is looked at first: what a done task wrote is all there
        written = _copy(store.workspace(task.id).log_path, written)
        task = look
    say(f"task {one_line(task.summary(), 400)}")
    return written


def _copy(path: str, offset: int) -> int:
    """Print what *path* holds from *offset* on, and return where it ends now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return offset
    try:
        while data := os.pread(fd, _CHUNK, offset):
            put(data)
            offset += len(data)
    finally:
        os.close(fd)
    return offset
