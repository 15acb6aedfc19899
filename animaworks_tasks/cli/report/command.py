"""``animaworks-tool report``: what the store has come to, as one page to look at or to hand on."""

import os
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Final

from animaworks_tasks.cli.basics import put, remedy, say
from animaworks_tasks.cli.listing import waiting
from animaworks_tasks.cli.report.page import page
from animaworks_tasks.cli.stores import open_store
from animaworks_tasks.cli.text import TaskView, as_json, duration, views_of
from animaworks_tasks.errors import TasksError, UsageError
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.notifications.render import several
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.place import ids
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.model import State

_LIMIT: Final = 1000  # done tasks, and waiting ones; a browser shows so many at once


def report_(options: SimpleNamespace) -> int:
    """
    Write the page and say where it is.

    Raises:
        UsageError: It would stand in the place of something that is no file.
        TasksError: It could not be written; what stood there before is as it was.
    """
    store = open_store(options)
    if options.html == "-":
        if options.json:
            raise UsageError("-j says where the page is, and with --html - that is stdout: leave out one")
        put(_report(store, options)[-1])
        return 0
    target = _target(options.html)
    views, remarks, data = _report(store, options)
    _write(target, data)
    if options.json:
        put(as_json({"file": target, "tasks": len(views), "remarks": remarks}))
        return 0
    put(f"{target}\n")
    say(f"a report of {several(len(views), 'task', 'tasks')} is in this file; open it in a browser")
    for remark in remarks:
        say(remark)
    return 0


def _report(store: TaskStore, options: SimpleNamespace) -> tuple[Sequence[TaskView], Sequence[str], bytes]:
    """Return the tasks, what is said of those that were left out, and the page."""
    limit, now = options.limit or _LIMIT, utc_now()
    kept = len(ids(store.layout.done, ".task"))
    latest = store.list(State.DONE, limit=limit)
    since = None if options.since is None else now - timedelta(seconds=options.since)
    done = [task for task in latest if since is None or (task.finished_at is not None and task.finished_at >= since)]
    pending = waiting(store)
    older, beyond = len(latest) - len(done), max(0, kept - limit)
    if older and options.since is not None:  # so all that is not older is here
        gone = (older + beyond, "task", f"done more than {duration(options.since)} ago (--since)")
    else:
        gone = (beyond, "task", f"done before the last {limit}; a larger --limit shows more")
    left_out = [
        gone,
        (len(pending) - limit, "task", "that wait; a larger --limit shows more"),
        (min(kept, limit) - len(latest), "record", "that cannot be read; `animaworks-tool doctor` says why"),
    ]
    remarks = [f"left out: {several(number, one, f'{one}s')} {why}" for number, one, why in left_out if number > 0]
    views = views_of(store, (*store.list(State.RUNNING), *pending[:limit], *done))
    return views, remarks, page(store.location, now, views, remarks)


def _target(given: str) -> str:
    """
    Return the absolute path of the file that *given* is, or will be.

    Raises:
        UsageError: Something else is there, and would be replaced, be it /dev/null.
        TasksError: There is no place for it.
    """
    if not given:
        raise UsageError("--html needs the name of a file; - is stdout")
    if os.path.isdir(given):
        raise UsageError(f"{given!r} is a directory: name a file in it, {os.path.join(given, 'report.html')!r} say")
    if os.path.lexists(given) and not os.path.isfile(given):
        raise UsageError(f"{given!r} is no regular file, and would be replaced by one: name another; - is stdout")
    target = os.path.realpath(given)  # so that a link stays one
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise TasksError(f"there is no directory {directory}: make it first, or name a file elsewhere")
    return target


def _write(target: str, data: bytes) -> None:
    """Publish the page: whole, at once; only its owner may read it, as everything of an Anima's."""
    try:
        Disk(os.path.dirname(target), durable=False).show(target, data)
    except OSError as error:
        raise TasksError(
            f"the report was not written: {error.strerror or error}: {target}; {remedy(error)}, or name a file "
            "elsewhere; what was there before is as it was"
        ) from error
