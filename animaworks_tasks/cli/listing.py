"""What a list shows: what runs, what waits, and what was done last."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Final

from animaworks_tasks.cli.basics import put
from animaworks_tasks.cli.stores import is_hosted
from animaworks_tasks.cli.text import Standing, catalogued, table
from animaworks_tasks.errors import RecordError, TaskNotFoundError
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.findings import several
from animaworks_tasks.store.records import ids
from animaworks_tasks.task.model import State, Task

_DONE_SHOWN: Final = 10
_HEADINGS: Final = ("ID", "TOOL", "STATE", "TIME", "")


def chosen(store: TaskStore, options: Namespace) -> Sequence[Standing]:
    """Return how the tasks stand that *options* ask for."""
    tools = catalogued(store)
    return [Standing.of(store, task, tools) for task in _tasks(store, options)]


def print_list(standings: Sequence[Standing]) -> None:
    """Print them in columns; nothing where there are none."""
    if standings:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        put(table([_HEADINGS, *map(_row, standings)], width=width))


def remarks(store: TaskStore, standings: Sequence[Standing], options: Namespace) -> Iterator[str]:
    """Tell what is not in the list, and what keeps it from changing."""
    states = [standing.task.state for standing in standings]
    if not states:
        todo = f" are {options.state}" if options.state else "; `animaworks-tool submit TOOL ...` queues one"
        yield f"no tasks in {store.location}{todo}"
    if options.state is None:
        done = ids(store.layout.done)
        unlisted = done - {standing.task.id for standing in standings}
        is_whole = options.limit is None and (options.all or len(done) <= _DONE_SHOWN)
        unreadable = sum(_is_unreadable(store, task_id) for task_id in unlisted) if is_whole else 0
        more = len(unlisted) - unreadable
        if more > 0 and not options.all:
            yield f"{several(more, 'more is', 'more are')} done; `animaworks-tool list --all` lists them"
        if unreadable:
            yield f"{several(unreadable, 'record', 'records')} in done/ cannot be read; see `animaworks-tool doctor`"
    if State.PENDING in states and not is_hosted(store):
        yield "no host is listening, so what is pending waits: start one, or `animaworks-tool run`"


def _is_unreadable(store: TaskStore, task_id: str) -> bool:
    try:
        store.get(task_id)
    except TaskNotFoundError:  # pruned just now
        return False
    except (RecordError, OSError):
        return True
    return False  # it ended just now


def _tasks(store: TaskStore, options: Namespace) -> Sequence[Task]:
    wanted = options.state
    if wanted in {"completed", "failed", "cancelled"}:
        tasks = [task for task in store.list(State.DONE) if task.outcome and task.outcome.value == wanted]
    elif wanted == "done" or wanted is None:
        shown = None if options.all or wanted else _DONE_SHOWN
        done = store.list(State.DONE, limit=options.limit if shown is None else shown)
        tasks = [*([] if wanted else not_done(store)), *done]
    else:
        tasks = [task for task in not_done(store) if task.state.value == wanted]
    return tasks[: options.limit]


def not_done(store: TaskStore) -> list[Task]:
    """Return what runs, and then what waits, in the order in which it is started."""
    waiting = sorted(store.list(State.PENDING), key=lambda task: (-task.priority, task.submitted_at, task.id))
    return [*store.list(State.RUNNING), *waiting]


def _row(standing: Standing) -> tuple[str, ...]:
    task = standing.task
    return task.id, one_line(task.name, 40), standing.status, standing.time(), standing.note()
