"""``animaworks-tool cancel``, ``retry`` and ``notifications``: they change existing tasks and notifications."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.stores import find, notification_language, obstacle, open_store
from animaworks_tasks.cli.submit import nothing_queued, print_receipt
from animaworks_tasks.cli.text import as_json, described, views_of
from animaworks_tasks.errors import PartlySubmittedError, TasksError
from animaworks_tasks.notifications.inbox import Drained, within
from animaworks_tasks.notifications.render import several
from animaworks_tasks.task.model import Outcome, State
from animaworks_tasks.tools import arguments
from animaworks_tasks.tools.catalogue import known_tools

# What a retry has in common with its task. No key: that would lead back to the task that is done.
_KEPT: Final = (
    "priority", "expected_seconds", "timeout_seconds", "retries", "on_interrupt", "max_attempts", "cwd"
)  # fmt: skip


def cancel_(options: SimpleNamespace) -> int:
    """Request the cancellation of a task; return 1 if it had ended otherwise."""
    store = open_store(options, changing=True, language=notification_language(options))
    had_ended = find(store, options.id).state is State.DONE
    task = store.request_cancel(find(store, options.id).id)
    if options.json:
        put(as_json(described(views_of(store, [task])[0], store)))
    elif task.state is State.RUNNING:
        put(f"cancellation of task {task.id} requested; `animaworks-tool wait {task.id}` returns when it ends\n")
    elif task.outcome is Outcome.CANCELLED:
        put(f"task {task.id} {'was cancelled before' if had_ended else 'is cancelled'}\n")
    else:
        say(f"task {task.id} had ended already: {task.outcome and task.outcome.value}; nothing was changed")
    blocked = obstacle(store, task)
    if blocked is not None:
        say(f"task {task.id}: {blocked}")
    return 0 if task.outcome in {None, Outcome.CANCELLED} else 1


def retry_(options: SimpleNamespace) -> int:
    """Submit a done task once more and print the receipt."""
    from animaworks_tasks.animaworks.in_process import is_in_process  # here: it loads asyncio

    store = open_store(options, changing=True)
    task = find(store, options.id)
    if task.state is not State.DONE:
        raise TasksError(
            f"task {task.id} is {task.state.value}, and only what is done is submitted once more: "
            f"`animaworks-tool wait {task.id}` or `animaworks-tool cancel {task.id}` first"
        )
    if is_in_process(task):
        raise TasksError(
            f"task {task.id} was a call inside of its host, which alone can make it again: ask for it there"
        )
    tools = known_tools(store.layout)
    subcommand = arguments.check(tools, task.tool, task.argv) if tools else task.subcommand
    same: Any = {name: getattr(task, name) for name in _KEPT}
    try:
        again = store.submit(task.tool, *task.argv, subcommand=subcommand, retry_of=task.id, **same)
    except PartlySubmittedError:
        raise
    except OSError as error:
        raise TasksError(nothing_queued(error)) from error
    return print_receipt(again.id, again.tool, again.subcommand)


def notifications_(options: SimpleNamespace) -> int:
    """Print unread notifications; with ``--ack`` acknowledge exactly those that were printed."""
    notifications = open_store(options, changing=options.ack).notifications
    looking = contextlib.nullcontext(within(notifications.peek(), None))
    with notifications.drain() if options.ack else looking as drained:
        _print(drained, as_data=options.json)  # what raises here acknowledges nothing
    if not options.ack and drained.notifications:
        number = len(drained.notifications)
        waiting, them = several(number, "waits", "wait"), "it" if number == 1 else "them"
        say(f"{waiting} to be read; `animaworks-tool notifications --ack` acknowledges {them}")
    return 0


def _print(drained: Drained, *, as_data: bool) -> None:
    if as_data:
        keys = ("name", "task_id", "failed", "text")
        put(as_json([{name: getattr(each, name) for name in keys} for each in drained.notifications]))
    elif drained.notifications:
        put(drained.text)
    else:
        say("nothing waits to be read")
