"""
How a task comes into a store: the directories, and the one moment after which it is not lost.

Used by :class:`TaskStore` and by ``animaworks-tool submit`` alike; imports nothing that the latter does not need.
"""

from __future__ import annotations

import os

from animaworks_tasks.errors import PartlySubmittedError
from animaworks_tasks.fs import files as fs_files
from animaworks_tasks.fs.doorbell import ring
from animaworks_tasks.fs.journal import Journal, line

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from animaworks_tasks.fs.layout import Layout


def create(layout: Layout, *, sync: bool) -> None:
    """
    Make what is missing of the store's directories, durably.

    Up to the Anima's own they are made durable even where they were there already: whoever made them may have died
    before that, and a directory without anything new costs almost nothing to sync.
    """
    changed = {layout.root: None, os.path.dirname(layout.root): None, layout.notifications: None, layout.anima: None}
    above = os.path.dirname(layout.anima)
    if os.access(above, os.R_OK):  # or else it is somebody else's, and so is what is in it
        changed[above] = None
    for directory in (layout.root, *layout.directories(), layout.notifications, layout.read):
        changed.update(dict.fromkeys(fs_files.make_directory(directory)))
    if sync:
        for directory in changed:
            fs_files.sync_directory(directory)


def place(
    layout: Layout,
    task_id: str,
    data: bytes,
    *,
    sync: bool,
    keyed: bool = False,
    check: Callable[[], None] | None = None,
) -> bool:
    """
    Publish a pending record and wake whoever waits; False where the id is taken, which only a key can cause.

    Args:
        layout: Where.
        task_id: The task.
        data: Its record.
        sync: Whether it is to survive a power cut.
        keyed: Whether its id is that of a key, which an earlier task may have had that was pruned.
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
    if sync and keyed:  # or else the power cut brings the earlier one's outcome back, and this would pass for its rest
        fs_files.sync_directory(layout.done)
    try:
        return fs_files.publish(
            layout.pending, name, data, tmp=layout.tmp, sync=sync, meanwhile=meanwhile, appeared=appeared
        )
    except OSError as error:
        if not queued:
            raise
        raise PartlySubmittedError((task_id,), f"a power cut may still take it away: {error}") from error


def place_many(layout: Layout, records: Iterable[tuple[str, bytes]], *, sync: bool) -> tuple[list[str], OSError | None]:
    """Do as :func:`place` for records by their random ids; see :func:`.fs.files.publish_many` for what is returned."""
    files = ((f"{task_id}.json", data) for task_id, data in records)
    published, problem = fs_files.publish_many(layout.pending, files, tmp=layout.tmp, sync=sync)
    placed = [name.removesuffix(".json") for name in published]
    if placed:
        Journal(layout.events).note("submitted", *placed)
        ring(layout.doorbell, *placed)
    return placed, problem
