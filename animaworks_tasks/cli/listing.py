"""``animaworks-tool list``: once, or with ``--watch`` as it changes, until Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.live import Screen, Signals, is_terminal, screen
from animaworks_tasks.cli.stores import is_hosted, open_store
from animaworks_tasks.cli.text import Standing, as_json, catalogued, described, table
from animaworks_tasks.errors import RecordError, TaskNotFoundError, UsageError
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.findings import several
from animaworks_tasks.store.records import ids
from animaworks_tasks.task.model import State, Task

_DONE_SHOWN: Final = 10


def list_(options: Namespace) -> int:
    """Print the tasks that *options* ask for; with ``--watch`` again and again."""
    store = open_store(options)
    if options.watch:
        return _watch(store, options)
    standings = _chosen(store, options)
    if options.json:
        put(as_json([described(standing, store) for standing in standings]))
    else:
        _print(standings, list(_remarks(store, standings, options)))
    return 0


def _watch(store: TaskStore, options: Namespace) -> int:
    """
    Show what :func:`list_` prints, and show it anew, until a signal ends it; this never returns otherwise.

    Raises:
        UsageError: JSON is asked for.
        KeyboardInterrupt: Ctrl-C. The terminal is in order.
    """
    if options.json:
        raise UsageError("--watch is for people, and -j for programs: leave out one, or call `list -j` now and then")
    picture = screen(whole=True)
    if picture is None and is_terminal():
        say("this shows more, and in place, with rich: pip install 'animaworks_tasks[rich]'")
    with Signals(picture) as signals:
        _look(store, options, signals, picture)
    signals.let_through()
    return 0


def _look(store: TaskStore, options: Namespace, signals: Signals, picture: Screen | None) -> None:
    """Show the list again and again; where it cannot be shown in place, when more than the time has changed in it."""
    standings: Sequence[Standing] = []
    before: object = None
    with picture or contextlib.nullcontext():
        while not signals.taken:
            began = time.monotonic()
            standings = _chosen(store, options)
            told = list(_remarks(store, standings, options))
            now = ([(standing.task.id, standing.status, standing.note()) for standing in standings], told)
            if picture is not None:
                picture.show(standings, told)
            elif now != before:
                put(f"{'' if before is None else chr(10)}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n")
                _print(standings, told)
                before = now
            signals.rest(began)
    if picture is not None:  # the terminal is as it was; what was seen last stays
        _print(standings[: shutil.get_terminal_size().lines], [])


def _chosen(store: TaskStore, options: Namespace) -> Sequence[Standing]:
    """Return how the tasks stand that *options* ask for."""
    tools = catalogued(store)
    return [Standing.of(store, task, tools) for task in _tasks(store, options)]


def _print(standings: Sequence[Standing], told: Sequence[str]) -> None:
    """Print tasks in columns, nothing where there are none, and then remarks."""
    if standings:
        rows = [(on.task.id, one_line(on.task.name, 40), on.status, on.time(), on.note()) for on in standings]
        put(table([("ID", "TOOL", "STATE", "TIME", ""), *rows]))
    for remark in told:
        say(remark)


def _remarks(store: TaskStore, standings: Sequence[Standing], options: Namespace) -> Iterator[str]:
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
