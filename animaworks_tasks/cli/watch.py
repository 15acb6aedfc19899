"""``animaworks-tool list``: once, or with ``--watch`` as it changes, until Ctrl-C."""

from __future__ import annotations

import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from animaworks_tasks.cli.basics import put, say
from animaworks_tasks.cli.listing import chosen, print_list, remarks
from animaworks_tasks.cli.signals import Signals
from animaworks_tasks.cli.stores import open_store
from animaworks_tasks.cli.terminal import Screen, is_terminal, screen
from animaworks_tasks.cli.text import Standing, as_json, described
from animaworks_tasks.errors import UsageError
from animaworks_tasks.store.directory import TaskStore

_LOOK: Final = 0.5  # seconds between two looks
_LOOKING_SHARE: Final = 4.0  # a look that took long, because tasks are very many, is followed by a rest so much longer


def list_(options: Namespace) -> int:
    """Print the tasks that *options* ask for; with ``--watch`` again and again."""
    store = open_store(options)
    if options.watch:
        return watch(store, options)
    standings = chosen(store, options)
    if options.json:
        put(as_json([described(standing, store) for standing in standings]))
        return 0
    print_list(standings)
    for remark in remarks(store, standings, options):
        say(remark)
    return 0


def watch(store: TaskStore, options: Namespace) -> int:
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
    with Signals(pausing=picture is not None) as signals:
        if picture is None:
            _print_changes(store, options, signals)
        else:
            _show(store, options, signals, picture)
    signals.let_through()
    return 0


def _show(store: TaskStore, options: Namespace, signals: Signals, picture: Screen) -> None:
    standings: Sequence[Standing] = []
    with picture:
        while not signals.taken:
            began = time.monotonic()
            standings = chosen(store, options)
            picture.show(standings, list(remarks(store, standings, options)))
            _rest(signals, began)
            if signals.pause_asked:
                picture.beside(signals.pause)
    print_list(standings[: shutil.get_terminal_size().lines])  # the terminal is as it was; what was seen last stays


def _print_changes(store: TaskStore, options: Namespace, signals: Signals) -> None:
    """Print the list whenever something but the time has changed in it."""
    before = None
    while not signals.taken:
        began = time.monotonic()
        standings = chosen(store, options)
        told = list(remarks(store, standings, options))
        now = ([(standing.task.id, standing.status, standing.note()) for standing in standings], told)
        if now != before:
            put(f"{'' if before is None else chr(10)}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n")
            print_list(standings)
            for remark in told:
                say(remark)
            before = now
        _rest(signals, began)


def _rest(signals: Signals, began: float) -> None:
    signals.wait(max(_LOOK, _LOOKING_SHARE * (time.monotonic() - began)))
