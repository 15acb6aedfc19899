"""``animaworks-tool events``: what happened, and whether a notice was delivered, when, and to whom."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.stores import find, open_store
from animaworks_tasks.cli.text import as_json, moment
from animaworks_tasks.errors import TaskNotFoundError
from animaworks_tasks.notifications.delivery import Delivery, Fate, delivery, noted_at
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.protocol import utc_now
from animaworks_tasks.task.model import is_task_id

_COMMON = ("at", "event", "task_id", "pid")


def events_(options: Namespace) -> int:
    """Print the journal; of one task, its notice's fate as well."""
    store = open_store(options)
    task_id = None if options.task is None else _whose(store, options.task)
    events = list(store.events(task_id))
    notice = None if task_id is None else notice_of(store, task_id, events)
    if options.since is not None:
        since = utc_now() - options.since
        events = [event for event in events if (at := noted_at(event)) is not None and at >= since]
    if options.json:
        told = notice and {
            "state": notice.fate.name.lower(),
            "at": notice.at and notice.at.isoformat(),
            "by": notice.by,
            "pid": notice.pid,
        }
        put(as_json({"events": events, "notice": told}))
        return 0
    put("".join(f"{_line(event)}\n" for event in events))
    if notice is not None:
        put((notice.fate.value if notice.fate is Fate.NOT_YET else f"its notice {in_words(notice)}") + "\n")
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


def notice_of(store: TaskStore, task_id: str, events: Sequence[Mapping[str, Any]]) -> Delivery:
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


def in_words(notice: Delivery) -> str:
    """Answer of the notice of a task that has ended: was it delivered, when, to whom?"""
    if notice.fate is Fate.DELIVERED:
        when = f" at {moment(notice.at)}" if notice.at else "; the journal does not say when"
        program = f" to {one_line(notice.by, 100)}" if notice.by else ""
        return f"{notice.fate.value}{program}{f' (process {notice.pid})' if notice.pid else ''}{when}"
    since = f" since {moment(notice.at)}" if notice.at and notice.fate is Fate.WAITING else ""
    left = f"; it was left at {moment(notice.at)}" if notice.at and notice.fate is Fate.TAKEN else ""
    todo = "; see `animaworks-tool doctor`" if notice.fate in {Fate.MISSING, Fate.UNKNOWN} else ""
    return f"{notice.fate.value}{since}{left}{todo}"
