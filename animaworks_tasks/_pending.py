"""
How a task comes into a store: its id, its record, the directories, and the one moment after which it is not lost.

Used by :class:`TaskStore` and by ``animaworks-tool submit`` alike; imports nothing that the latter does not need.
"""

from __future__ import annotations

import os

from animaworks_tasks import _files
from animaworks_tasks._doorbell import ring
from animaworks_tasks._journal import Journal, line
from animaworks_tasks.errors import PartlySubmittedError

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Final

    from animaworks_tasks._paths import Layout

VERSION: Final = 1
SIZE_LIMIT: Final = 1 << 20  # bytes, of a record
ROOM: Final = 1 << 14  # bytes that a task leaves free when it is claimed, so that its end can always be told
SUBMIT_LIMIT: Final = SIZE_LIMIT - 2 * ROOM  # bytes; claimed again after a release, a record is a little larger


def new_id(key: str | None = None) -> str:
    """Return 12 hex digits: at random, or for a *key* always the same."""
    if key is None:
        return os.urandom(6).hex()
    from hashlib import sha256

    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def first_word(argv: Sequence[str]) -> str:
    """Return the first word that is no option: what a subcommand usually is, until its tool is asked."""
    return next((word for word in argv if not word.startswith("-")), "")


def pending_fields(
    *, task_id: str, tool: str, subcommand: str, argv: Iterable[str], anima_name: str, anima_dir: str, at: float
) -> dict[str, object]:
    """Return the eight keys that begin every pending record, in order."""
    return {
        "task_id": task_id,
        "tool_name": tool,
        "subcommand": subcommand,
        "raw_args": list(argv),
        "anima_name": anima_name,
        "anima_dir": anima_dir,
        "submitted_at": at,
        "status": "pending",
    }


def create(layout: Layout, *, sync: bool) -> None:
    """
    Make what is missing of the store's directories, durably.

    The store's own are made durable even where they were there already: whoever made them may have died before that,
    and a directory without anything new costs almost nothing to sync.
    """
    changed = {layout.root: None, os.path.dirname(layout.root): None, layout.notifications: None}
    for directory in (layout.root, *layout.directories(), layout.notifications, layout.read):
        changed.update(dict.fromkeys(_files.make_directory(directory)))
    if sync:
        for directory in changed:
            _files.sync_directory(directory)


def place(layout: Layout, task_id: str, data: bytes, *, sync: bool, check: Callable[[], None] | None = None) -> bool:
    """
    Publish a pending record and wake whoever waits; False where the id is taken, which only a key can cause.

    Args:
        layout: Where.
        task_id: The task.
        data: Its record.
        sync: Whether it is to survive a power cut.
        check: Called while the disk takes the record; if it raises, there is none.

    Raises:
        PartlySubmittedError: It is queued, and may be running by now, but its name could not be made durable.
        OSError: It is not queued.
    """
    lines = []
    queued = False

    def meanwhile() -> None:
        if check is not None:
            check()
        lines.append(line("submitted", task_id))

    def appeared() -> None:
        nonlocal queued
        queued = True
        # Before its name is durable: whoever claims it makes it durable elsewhere first, so it may begin meanwhile.
        ring(layout.doorbell, task_id)
        Journal(layout.events).add(lines[0])

    name = f"{task_id}.json"
    try:
        return _files.publish(
            layout.pending, name, data, tmp=layout.tmp, sync=sync, meanwhile=meanwhile, appeared=appeared
        )
    except OSError as error:
        if not queued:
            raise
        raise PartlySubmittedError((task_id,), f"a power cut may still take it away: {error}") from error


def place_many(layout: Layout, records: Iterable[tuple[str, bytes]], *, sync: bool) -> tuple[list[str], OSError | None]:
    """Do as :func:`place` for records by their random ids; see :func:`._files.publish_many` for what is returned."""
    files = ((f"{task_id}.json", data) for task_id, data in records)
    published, problem = _files.publish_many(layout.pending, files, tmp=layout.tmp, sync=sync)
    placed = [name.removesuffix(".json") for name in published]
    if placed:
        Journal(layout.events).note("submitted", *placed)
        ring(layout.doorbell, *placed)
    return placed, problem
