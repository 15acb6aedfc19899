"""
``animaworks-tool submit``: queue a call, print a receipt, be gone.

It exits with 0 exactly if the task is queued and will survive a power cut. Nothing is imported here that would be felt:
no argparse, json, re, attrs or typing. The record that is written is the one that :meth:`TaskStore.submit` would write.
"""

from __future__ import annotations

import os
import time

from animaworks_tasks.cli.basics import anima_dir, named, no_anima, not_needed, put, remedy, say
from animaworks_tasks.cli.commands import COMMANDS, take, usage
from animaworks_tasks.errors import PartlySubmittedError, StoreError, TasksError, UsageError
from animaworks_tasks.fs import json
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.fs.journal import Journal
from animaworks_tasks.fs.layout import Layout, home
from animaworks_tasks.store import enqueue
from animaworks_tasks.task import pending
from animaworks_tasks.tools import arguments
from animaworks_tasks.tools.catalogue import known

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

_USAGE: Final = usage("submit")
_SUBMITTED: Final = {
    "ja": "バックグラウンドタスクを投入しました。完了時にinboxに通知されます。",
    "en": "The background task was submitted. A notification comes when it is done. ",
}


def submit(words: Sequence[str]) -> int:
    """
    Queue what *words*, all but ``submit`` itself, ask for.

    Raises:
        UsageError: No host would accept it. Nothing was queued.
        TasksError: It could not be kept, or not durably, as it says.
    """
    for text in words:
        _check_utf8(text)
    given, call = take(words, COMMANDS["submit"].arguments, _USAGE, leading=True)
    if given["help"]:
        from animaworks_tasks.cli.parser import help_of  # here: it loads re

        put(help_of("submit"))
        return 0
    if not call or not call[0]:
        raise UsageError("submit needs the name of a tool; `animaworks-tool tools` lists them", _USAGE)
    if given["key"] == "":
        raise UsageError("--key must not be empty: it would be the same for all that have none", _USAGE)
    if arguments.asks_help({}, call[1:]):  # which needs no Anima
        return _print_help(given, call)
    layout = Layout(anima_dir(given["anima_dir"]) if named(given["anima_dir"]) else _hosted_home())
    tools, language = known(layout)
    tool, argv = arguments.split(tools or {}, call[0], call[1:])
    if arguments.asks_help((tools or {}).get(tool, {}), argv):
        return _print_help(given, call)
    subcommand = pending.first_word(argv) if tools is None else arguments.check(tools, tool, argv)
    queued = _queue(layout, given, tools or {}, (tool, subcommand, argv))
    return print_receipt(*queued, language, quiet=given["quiet"])


def _print_help(given: Mapping[str, Any], call: Sequence[str]) -> int:
    from animaworks_tasks.cli.tools import print_help  # here: it loads all that can be known of tools

    return print_help(given["anima_dir"], call[0], call[1:])


def _queue(
    layout: Layout, given: Mapping[str, Any], tools: Mapping[str, Any], call: tuple[str, str, Sequence[str]]
) -> tuple[str, str, str]:
    """Queue a *call*, tool, subcommand and arguments, as the options *given* say; return id, tool and subcommand."""
    tool, subcommand, argv = call
    task_id = pending.new_id()
    fields = pending.pending_fields(
        task_id=task_id, tool=tool, subcommand=subcommand, argv=argv,
        anima_name=os.path.basename(layout.anima), anima_dir=layout.anima, at=time.time(),
    )  # fmt: skip
    record = {**fields, "version": pending.VERSION, **_ours(given), "cwd": _cwd()}
    kept = _keep(layout, task_id, record, given["key"], shared=given["shared"])
    if kept != task_id:
        task_id = kept
        there = _call_of(layout, task_id, shared=given["shared"]) or (tool, subcommand, argv)
        other = f"{there[0]} {there[1]}".rstrip()[:100]  # printed as repr: anybody may have written the record
        of = "" if (there[0], there[2]) == (tool, argv) else f", of another call ({other!r}),"
        say(f"a task with this key{of} is there already, and nothing was queued: `animaworks-tool show {task_id}`")
        tool, subcommand, _ = there
    elif (spec := tools.get(tool, {}).get(subcommand)) and spec.get("direct") and not spec["long_running"]:
        say(not_needed(arguments.command(tool, subcommand, spec)))
    return task_id, tool, subcommand


def _hosted_home() -> str:
    """
    Return the user's home for tasks while a host serves it, for a submit that names no Anima, and say so.

    Raises:
        TasksError: None does. An Anima that lost its variable must not get a receipt that it never hears of again.
    """
    from animaworks_tasks.store.watch import is_hosted  # here: who names a directory does without

    if not is_hosted(Layout(home())):
        raise no_anima()
    say(f"no Anima is named, so the host of {home()} gets this task")
    return home()


def _call_of(layout: Layout, task_id: str, *, shared: bool) -> tuple[str, str, list[str]] | None:
    """Return tool, subcommand and arguments of a task that is there; None where its record cannot be read."""
    from animaworks_tasks.store.directory import TaskStore  # here: few submits meet a task that has their key

    try:
        task = TaskStore(layout.anima, durability="process", shared=shared).get(task_id)
    except (TasksError, OSError):
        return None
    return task.tool, task.subcommand, list(task.argv)


def print_receipt(task_id: str, tool: str, subcommand: str, language: str, *, quiet: bool = False) -> int:
    """
    Print what the submitter gets, or the id alone if *quiet*.

    Returns:
        0, because the task is queued, whether anybody reads it or not.
    """
    receipt = {
        "task_id": task_id,
        "status": "submitted",
        "tool": tool,
        "subcommand": subcommand,
        "message": f"{_SUBMITTED.get(language, _SUBMITTED['en'])}(task_id: {task_id})",
    }
    try:
        put(f"{task_id}\n" if quiet else json.dump(receipt))
    except OSError as error:
        say(f"task {task_id} is queued, do not submit it again; its receipt was not printed: {error.strerror}")
    return 0


def _ours(given: Mapping[str, Any]) -> dict[str, object]:
    """Return the keys of the record that options ask for, in the order in which every record has them."""
    values: dict[str, object] = {
        "priority": given["priority"] or None,
        "not_before": None if given["delay"] is None else time.time() + given["delay"],
        "key": given["key"],
        "timeout_seconds": given["timeout"],
        "retries": given["retries"],
    }
    return {key: value for key, value in values.items() if value is not None}


def _check_utf8(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise UsageError(f"an argument is not UTF-8, and cannot be stored: {shown}", _USAGE) from None


def _cwd() -> str:
    """Return the current directory, where paths among the arguments begin."""
    try:
        cwd = os.getcwd()
        cwd.encode("utf-8")
    except (FileNotFoundError, UnicodeEncodeError) as error:
        problem = "is gone" if isinstance(error, FileNotFoundError) else "has a name that is not UTF-8"
        raise TasksError(f"nothing was queued: the current directory {problem}; cd to another one first") from None
    return cwd


def _keep(layout: Layout, task_id: str, record: Mapping[str, object], key: str | None, *, shared: bool) -> str:
    """Store the record durably; return the id of its task, or of the one that has its *key* already."""
    data = json.dump(record)
    if len(data) > pending.SUBMIT_LIMIT:
        raise TasksError(
            f"nothing was queued: the arguments make a record of {len(data)} bytes, and {pending.SUBMIT_LIMIT} is the "
            "limit; put them into a file, and submit its name"
        )
    try:
        disk, journal = Disk(layout.tmp, durable=True), Journal(layout.events)
        enqueue.create(layout, disk, shared=shared)
        if key is None:
            enqueue.submit(layout, disk, journal, task_id, data)
            return task_id
        from animaworks_tasks.store import keys  # few submits have a key

        return keys.submit(layout, disk, journal, task_id, key, data)
    except PartlySubmittedError as error:
        raise TasksError(
            f"task {task_id} is queued and will run, do not submit it again; but {error.reason}; "
            f"`animaworks-tool show {task_id}` says what has become of it"
        ) from error
    except StoreError as error:  # its message has the next step
        raise TasksError(f"nothing was queued: {error}") from error
    except OSError as error:
        raise TasksError(nothing_queued(error)) from error


def nothing_queued(error: OSError) -> str:
    """Return a message: that no task was queued, why, and what to do."""
    where = f" ({error.filename})" if error.filename else ""
    return f"nothing was queued: {error.strerror or error}{where}; {remedy(error)}, then submit again"
