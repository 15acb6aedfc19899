"""``animaworks-tool list``: once, or with ``--watch`` as it changes, until Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.listing import chosen, print_list, remarks
from animaworks_tasks.cli.live import Screen, Signals, is_terminal, screen
from animaworks_tasks.cli.stores import open_store
from animaworks_tasks.cli.text import Standing, as_json, described
from animaworks_tasks.errors import UsageError
from animaworks_tasks.store.directory import TaskStore


def list_(options: Namespace) -> int:
    """Print the tasks that *options* ask for; with ``--watch`` again and again."""
    store = open_store(options)
    if options.watch:
        return _watch(store, options)
    standings = chosen(store, options)
    if options.json:
        put(as_json([described(standing, store) for standing in standings]))
    else:
        _print(standings, list(remarks(store, standings, options)))
    return 0


def _print(standings: Sequence[Standing], told: Sequence[str]) -> None:
    print_list(standings)
    for remark in told:
        say(remark)


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
            standings = chosen(store, options)
            told = list(remarks(store, standings, options))
            now = ([(standing.task.id, standing.status, standing.note()) for standing in standings], told)
            if picture is not None:
                picture.show(standings, told)
            elif now != before:
                put(f"{'' if before is None else chr(10)}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n")
                _print(standings, told)
                before = now
            signals.rest(began)
    if picture is not None:  # the terminal is as it was; what was seen last stays
        print_list(standings[: shutil.get_terminal_size().lines])
