"""``animaworks-tool list``: once, or with ``--watch`` as it changes, until Ctrl-C."""

import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.live import Lines, Screen, Signals, is_terminal, screen
from animaworks_tasks.cli.stores import open_store
from animaworks_tasks.cli.text import TaskView, as_json, described, moment, table, views_of
from animaworks_tasks.errors import RecordError, TasksError, UsageError
from animaworks_tasks.notifications.render import one_line, several
from animaworks_tasks.store.check import held_up
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.place import ids
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.store.watch import is_hosted
from animaworks_tasks.task.model import State, Task

_DONE_SHOWN: Final = 10


def list_(options: SimpleNamespace) -> int:
    """Print the tasks that *options* ask for; with ``--watch`` again and again."""
    store = open_store(options)
    if options.watch:
        return _watch(store, options)
    views = views_of(store, _tasks(store, options))
    if options.json:
        put(as_json([described(view, store) for view in views]))
    else:
        _print(views, list(_remarks(store, views, options)))
    return 0


def _watch(store: TaskStore, options: SimpleNamespace) -> int:
    """
    Show what :func:`list_` prints, again and again, until a signal comes.

    Raises:
        UsageError: JSON is asked for.
        KeyboardInterrupt: Ctrl-C. The terminal is in order.
    """
    if options.json:
        raise UsageError("--watch is for people, and -j for programs: leave out one, or call `list -j` now and then")
    picture = screen(whole=True)
    if not isinstance(picture, Screen) and is_terminal():
        say("this shows more, and in place, with rich: pip install 'animaworks_tasks[rich]'")
    with Signals(picture) as signals:
        _look(store, options, signals, picture)
    signal.raise_signal(signals.taken[0])  # now it has its usual effect
    return 0


def _look(store: TaskStore, options: SimpleNamespace, signals: Signals, picture: Lines) -> None:
    """Show the list until a signal comes: in place, or else as lines each time that it has changed."""
    views: Sequence[TaskView] = []
    before: object = None
    with picture:
        while not signals.taken:
            began = time.monotonic()
            views = views_of(store, _tasks(store, options))
            remarks = list(_remarks(store, views, options))
            picture.show(views, remarks)
            now = ([(view.task.id, view.status, view.line()) for view in views], remarks)
            if now != before and not isinstance(picture, Screen):
                put(f"{'' if before is None else chr(10)}{moment(utc_now())}\n")
                _print(views, remarks)
                before = now
            signals.rest(began)
    if isinstance(picture, Screen):  # the terminal is restored; the last list stays on it
        _print(views[: shutil.get_terminal_size().lines], [])


def _print(views: Sequence[TaskView], remarks: Sequence[str]) -> None:
    """Print tasks in columns, nothing where there are none, and then remarks."""
    if views:
        rows = [(view.task.id, one_line(view.task.name, 40), view.status, view.time(), view.line()) for view in views]
        put(table([("ID", "TOOL", "STATE", "TIME", ""), *rows]))
    for remark in remarks:
        say(remark)


def _remarks(store: TaskStore, views: Sequence[TaskView], options: SimpleNamespace) -> Iterator[str]:
    """Yield what is not in the list, and what keeps it from changing."""
    states = [view.task.state for view in views]
    if not states:
        todo = f" are {options.state}" if options.state else "; `animaworks-tool submit TOOL ...` queues one"
        yield f"no tasks in {store.location}{todo}"
    if options.state is None:
        done = ids(store.layout.done, ".task")
        unlisted = done - {view.task.id for view in views}
        is_whole = options.limit is None and (options.all or len(done) <= _DONE_SHOWN)
        unreadable = sum(_is_unreadable(store, task_id) for task_id in unlisted) if is_whole else 0
        more = len(unlisted) - unreadable
        if more > 0 and not options.all:
            yield f"{several(more, 'more is', 'more are')} done; `animaworks-tool list --all` lists them"
        if unreadable:
            yield f"{several(unreadable, 'record', 'records')} in done/ cannot be read; see `animaworks-tool doctor`"
    held = [(view.task.id, held_up(store.layout, view.task)) for view in views if view.task.state is State.RUNNING]
    yield from (f"task {task_id}: {reason}" for task_id, reason in held if reason is not None)
    if State.PENDING in states and not is_hosted(store.layout):
        yield "no host is listening, so what is pending waits: start one, or `animaworks-tool run`"


def _is_unreadable(store: TaskStore, task_id: str) -> bool:
    try:
        store.get(task_id)
    except TasksError as error:
        return isinstance(error, RecordError)  # else it was pruned just now
    return False  # it ended just now


def _tasks(store: TaskStore, options: SimpleNamespace) -> Sequence[Task]:
    wanted = options.state
    if wanted is None:
        done = store.list(State.DONE, limit=options.limit if options.all else _DONE_SHOWN)
        return [*store.list(State.RUNNING), *waiting(store), *done][: options.limit]
    if wanted == "pending":
        return waiting(store)[: options.limit]
    tasks = store.list(State.RUNNING if wanted == "running" else State.DONE)
    chosen = [task for task in tasks if wanted in {task.state.value, task.outcome and task.outcome.value}]
    return chosen[: options.limit]


def waiting(store: TaskStore) -> list[Task]:
    """Return what waits, in the order in which it is started."""
    return sorted(store.list(State.PENDING), key=lambda task: (-task.priority, task.submitted_at, task.id))
