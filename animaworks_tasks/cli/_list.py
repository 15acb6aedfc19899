"""``animaworks-tool list``: what runs, what waits, and what was done last."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from animaworks_tasks import _files
from animaworks_tasks._directory_store import TaskStore
from animaworks_tasks._notifications import one_line
from animaworks_tasks._task import State, Task
from animaworks_tasks.cli._basics import put, say
from animaworks_tasks.cli._stores import is_hosted, open_store
from animaworks_tasks.cli._text import Standing, as_json, catalogued, described, table

_DONE_SHOWN: Final = 10
_HEADINGS: Final = ("ID", "TOOL", "STATE", "TIME", "")


def list_(options: Namespace) -> int:
    """Print the tasks that *options* ask for."""
    store = open_store(options)
    tasks = _chosen(store, options)
    tools = catalogued(store)
    standings = [Standing.of(store, task, tools) for task in tasks]
    if options.json:
        put(as_json([described(standing, store) for standing in standings]))
        return 0
    if standings:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        put(table([_HEADINGS, *map(_row, standings)], width=width))
    _remark(store, tasks, options)
    return 0


def _chosen(store: TaskStore, options: Namespace) -> Sequence[Task]:
    wanted = options.state
    if wanted in {"completed", "failed", "cancelled"}:
        tasks = [task for task in store.list(State.DONE) if task.outcome and task.outcome.value == wanted]
    elif wanted == "done" or wanted is None:
        shown = None if options.all or wanted else _DONE_SHOWN
        done = store.list(State.DONE, limit=options.limit if shown is None else shown)
        tasks = [*([] if wanted else _not_done(store)), *done]
    else:
        tasks = [task for task in _not_done(store) if task.state.value == wanted]
    return tasks[: options.limit]


def _not_done(store: TaskStore) -> list[Task]:
    """Return what runs, and then what waits, in the order in which it is started."""
    waiting = sorted(store.list(State.PENDING), key=lambda task: (-task.priority, task.submitted_at, task.id))
    return [*store.list(State.RUNNING), *waiting]


def _row(standing: Standing) -> tuple[str, ...]:
    task = standing.task
    return task.id, one_line(task.name, 40), standing.status, standing.time(), standing.note()


def _remark(store: TaskStore, tasks: Sequence[Task], options: Namespace) -> None:
    """Tell what is not in the list, and what keeps it from changing."""
    if not tasks:
        say(f"no tasks in {store.location}" + (f" are {options.state}" if options.state else ""))
    done = sum(task.state is State.DONE for task in tasks)
    kept = sum(name.endswith(".json") for name in _files.names(store.layout.done))
    if not options.all and options.state is None and kept > done:
        say(f"{kept - done} more are done; `animaworks-tool list --all` lists them")
    if any(task.state is State.PENDING for task in tasks) and not is_hosted(store):
        say("no host is listening, so what is pending waits: start one, or `animaworks-tool run`")
