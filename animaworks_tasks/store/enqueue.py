"""
How a task comes into a store: its directories, their format, and the one moment after which the task is not lost.

Used by :class:`TaskStore` and by ``animaworks-tool submit`` alike; imports nothing that the latter does not need.
"""

from __future__ import annotations

import os

from animaworks_tasks.errors import PartlySubmittedError, StoreError
from animaworks_tasks.fs import files, trust
from animaworks_tasks.fs.disk import NO_LINKS, Disk
from animaworks_tasks.fs.journal import Journal, line
from animaworks_tasks.fs.layout import FORMAT, Layout

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EARLIER = "locks"  # a directory that stores of the format before have, and this one has not


def create(layout: Layout, disk: Disk, *, shared: bool = False) -> list[str]:
    """
    Make what is missing of the store's directories, durably; a store of the format before becomes one of this.

    Up to the Anima's own they are made durable even where they were there already: who made them may have died
    before that, and a directory without anything new costs almost nothing to sync.

    Args:
        layout: Where.
        disk: Takes the steps.
        shared: Whether a file system that is not local is taken: its user knows that its locks exclude other machines.

    Returns:
        Warnings: what its user should know, and may leave as it is.

    Raises:
        StoreError: Others could change what is in it; its file system is none for a store; its format is none that this
            release reads, or it is at work in the format before. Nothing was changed.
        OSError: The disk said no.
    """
    was_there = os.path.lexists(layout.root)
    warnings = _doubts(layout, shared=shared)  # before anything is made: a link of somebody else's may lead anywhere
    try:
        found = files.read(layout.format, limit=100)
    except FileNotFoundError:
        found = None
    lasting = Disk(layout.tmp, durable=True)  # in any case: later processes rely on what the first one made
    if found is None and os.path.lexists(os.path.join(layout.root, _EARLIER)):
        from animaworks_tasks.store.convert import convert

        convert(layout, lasting)
        found = FORMAT
    if found not in {None, FORMAT}:
        says = repr(found.decode("utf-8", "replace").strip() if found else "")
        raise StoreError(layout.root, f"its format is {says}, which this release cannot read: use the one that made it")
    changed = {layout.root: None, os.path.dirname(layout.root): None, layout.notifications: None, layout.anima: None}
    above = os.path.dirname(layout.anima)
    if os.access(above, os.R_OK):  # or else it is somebody else's, and so is what is in it
        changed[above] = None
    made = [above for directory in directories(layout) for above in files.make_directory(directory)]
    changed.update(dict.fromkeys(made))
    if found is None:
        try:
            lasting.publish("create", layout.root, "format", FORMAT)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            raise StoreError(layout.root, "its file system has no hard links; use a local one") from None
    disk.sync("create.sync-all", *changed)
    # Somebody else may have put it there since we looked.
    return warnings if was_there and not made else _doubts(layout, shared=shared)


def _doubts(layout: Layout, *, shared: bool) -> list[str]:
    found = list(doubts(layout, shared=shared))
    for doubt in found:
        if doubt.refuses:
            raise StoreError(layout.root, f"{doubt.what}; {doubt.todo}")
    return [f"{doubt.what}; {doubt.todo}" for doubt in found]


def doubts(layout: Layout, *, shared: bool = False) -> Iterator[trust.Doubt]:
    """Yield what speaks against keeping a store where *layout* says."""
    return trust.doubts(layout.root, directories(layout), shared=shared)


def directories(layout: Layout) -> list[str]:
    """Return all directories of a store, in the order in which they are made."""
    return [layout.root, *layout.directories(), layout.notifications, layout.read]


def submit(layout: Layout, disk: Disk, journal: Journal, task_id: str, data: bytes) -> None:
    """
    Publish a pending record: once this has returned, it is not lost.

    Args:
        layout: Where.
        disk: Takes the steps.
        journal: Of the store.
        task_id: The task, whose id is new.
        data: Its record.

    Raises:
        PartlySubmittedError: It is queued, and may be running by now, but its name could not be made durable.
        OSError: It is not queued.
    """
    draft = disk.write("submit.write", f"{task_id}.json", data)
    try:
        appear(layout, disk, task_id, draft)
    finally:
        files.discard(draft)
    journal.add(line("submitted", task_id))


def appear(layout: Layout, disk: Disk, task_id: str, draft: str) -> None:
    """Link a draft to pending/, where hosts see it at once, and make its name durable; errors as for :func:`submit`."""
    disk.link("submit.link", draft, layout.pending_record(task_id))
    try:
        disk.sync("submit.sync", layout.pending)
    except OSError as error:
        raise PartlySubmittedError((task_id,), f"a power cut may still take it away: {error}") from error


def submit_many(
    layout: Layout, disk: Disk, journal: Journal, records: Iterable[tuple[str, bytes]]
) -> tuple[list[str], OSError | None]:
    """Do as :func:`submit` for records by their ids; see :meth:`Disk.publish_many` for what is returned."""
    contents = ((f"{task_id}.json", data) for task_id, data in records)
    published, problem = disk.publish_many("submit", layout.pending, contents)
    submitted = [name.removesuffix(".json") for name in published]
    if submitted:
        journal.note("submitted", *submitted)
    return submitted, problem
