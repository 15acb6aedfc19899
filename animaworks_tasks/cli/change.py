"""``animaworks-tool cancel``, ``retry``, ``notifications``, ``doctor`` and ``prune``: what changes a store."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final

from animaworks_tasks.cli.basics import anima_dir, put, say
from animaworks_tasks.cli.stores import find, notification_language, obstacle, open_store
from animaworks_tasks.cli.submit import nothing_queued, print_receipt
from animaworks_tasks.cli.text import as_json, described, views_of
from animaworks_tasks.errors import PartlySubmittedError, TasksError
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.inbox import within
from animaworks_tasks.notifications.render import MarkdownRenderer, several
from animaworks_tasks.store.check import check, fix
from animaworks_tasks.store.finding import Finding
from animaworks_tasks.store.place import Place
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.model import Outcome, State
from animaworks_tasks.tools import arguments
from animaworks_tasks.tools.catalogue import known

# What a retry has in common with its task. No key: that would lead back to the task that is done.
_KEPT: Final = ("priority", "expected_seconds", "timeout_seconds", "retries", "on_interrupt", "max_attempts", "cwd")

_OLD: Final = 30 * 86400  # seconds
_NAMED: Final = 20  # tasks


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
    if blocked := obstacle(store, task):
        say(f"task {task.id}: {blocked}")
    return 0 if task.outcome in {None, Outcome.CANCELLED} else 1


def retry_(options: SimpleNamespace) -> int:
    """Submit a done task once more and print the receipt."""
    store = open_store(options, changing=True)
    task = find(store, options.id)
    if task.state is not State.DONE:
        raise TasksError(
            f"task {task.id} is {task.state.value}, and only what is done is submitted once more: "
            f"`animaworks-tool wait {task.id}` or `animaworks-tool cancel {task.id}` first"
        )
    if task.is_in_process:
        raise TasksError(
            f"task {task.id} was a call inside of its host, which alone can make it again: ask for it there"
        )
    tools, language = known(store.layout)
    subcommand = arguments.check(tools, task.tool, task.argv) if tools else task.subcommand
    same: Any = {name: getattr(task, name) for name in _KEPT}
    try:
        again = store.submit(task.tool, *task.argv, subcommand=subcommand, retry_of=task.id, **same)
    except PartlySubmittedError:
        raise
    except OSError as error:
        raise TasksError(nothing_queued(error)) from error
    return print_receipt(again.id, again.tool, again.subcommand, language)


def notifications_(options: SimpleNamespace) -> int:
    """Print unread notifications; with ``--ack`` acknowledge exactly those that were printed."""
    notifications = open_store(options, changing=options.ack).notifications
    looking = contextlib.nullcontext(within(notifications.peek(), None))
    with notifications.drain() if options.ack else looking as drained:
        # What raises here acknowledges nothing.
        if options.json:
            keys = ("name", "task_id", "failed", "text")
            put(as_json([{name: getattr(each, name) for name in keys} for each in drained.notifications]))
        elif drained.notifications:
            put(drained.text)
        else:
            say("nothing waits to be read")
    if not options.ack and drained.notifications:
        number = len(drained.notifications)
        waiting, them = several(number, "waits", "wait"), "it" if number == 1 else "them"
        say(f"{waiting} to be read; `animaworks-tool notifications --ack` acknowledges {them}")
    return 0


def doctor_(options: SimpleNamespace) -> int:
    """Print what is wrong with the store, with ``--fix`` after mending it; return 1 if problems are left."""
    # No TaskStore, which would make what is missing, and refuses what it cannot use.
    render = MarkdownRenderer(notification_language(options))
    place = Place.at(Layout(anima_dir(options.anima_dir)), durable=True, render=render, clock=utc_now)
    done = fix(place, shared=options.shared) if options.fix else []
    findings = check(place, shared=options.shared)
    if options.json:
        put(as_json({"done": done, "findings": [_described(finding) for finding in findings]}))
    else:
        put("".join(f"{line}\n" for line in [*(f"fixed    {line}" for line in done), *_lines(findings)]))
        if not findings:
            say("the store is well")
    return 1 if any(finding.severity == "problem" for finding in findings) else 0


def prune_(options: SimpleNamespace) -> int:
    """Prune old tasks; print which, and which are kept because their notification is unread."""
    store = open_store(options, changing=True)
    age = _OLD if options.older_than is None and options.keep is None else options.older_than
    before = None if age is None else utc_now() - timedelta(seconds=age)
    prunable = store.prunable(finished_before=before, keep=options.keep)
    forgotten = prunable.forget if options.dry_run else store.prune(finished_before=before, keep=options.keep)
    unread = prunable.unread
    if options.json:
        put(as_json({"dry_run": options.dry_run, "forgotten": list(forgotten), "unread": unread}))
        return 0
    put("".join(f"{task_id}\n" for task_id in forgotten))
    verb = "would be" if options.dry_run else "was" if len(forgotten) == 1 else "were"
    say(f"{several(len(forgotten), 'task', 'tasks')} of {store.location} {verb} forgotten")
    if unread:
        named = ", ".join(unread[:_NAMED]) + (" ..." if len(unread) > _NAMED else "")
        say(f"kept, because nobody has read the notification: {named}; see `animaworks-tool notifications --ack`")
    return 0


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield two lines for each finding, problems first: what is wrong, and the next step."""
    for finding in sorted(findings, key=lambda each: each.severity != "problem"):
        mark = "" if finding.mend is None else " (fix)"
        yield f"{finding.severity:<8} {finding.what}{mark}"
        yield f"{'':<8} {finding.todo}"


def _described(finding: Finding) -> dict[str, object]:
    facts = {name: getattr(finding, name) for name in ("severity", "what", "where", "todo")}
    return {**facts, "fixable": finding.mend is not None}
