"""
Views: ``<root>/<id>.json``, how a task stands, for people and for AnimaWorks' own readers.

A view is a file of its own, redacted, replaced by a rename and not fsynced. Nothing is decided by it: it may be old,
torn or somebody else's. But what recovery may have to kill of a dead owner's, it learns here.
"""

import contextlib

import attrs

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, json
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.store.leftovers import Owner
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import Task
from animaworks_tasks.task.pending import SIZE_LIMIT
from animaworks_tasks.tools.secrets import words_without_secrets

OWNER = "owner"  # the key of a view that says who runs the task


def show(layout: Layout, disk: Disk, task: Task, owner: Owner | None = None) -> None:
    """Publish how *task* stands, and who runs it; a courtesy: where the disk says no, there is none, and no old one."""
    facts = {} if owner is None else {OWNER: attrs.asdict(owner)}
    try:
        view = attrs.evolve(task, argv=words_without_secrets(task.argv), extra={**task.extra, **facts})
        disk.show(layout.view(task.id), codec.encode(view))
    except (OSError, ValueError):
        hide(layout, task.id)


def hide(layout: Layout, task_id: str) -> None:
    """Take the view of a task away that waits again: others find it in pending/, and it would say running."""
    with contextlib.suppress(OSError):
        files.discard(layout.view(task_id))


def read(layout: Layout, task_id: str) -> Task:
    """
    Return how the view shows the task.

    Raises:
        OSError: There is none, or none that can be read.
        RecordError: It is none of ours.
    """
    return codec.decode(files.read(layout.view(task_id), limit=SIZE_LIMIT), task_id)


def owner_of(layout: Layout, task_id: str) -> Owner | None:
    """Return who runs, or ran, the task; None where no view says so."""
    with contextlib.suppress(OSError, RecordError):
        return Owner.of(read(layout, task_id).extra.get(OWNER))
    return None


def was_ours(layout: Layout, task_id: str) -> bool:
    """Return whether the view is one of ours, or is torn, as a power cut may leave what is not fsynced."""
    try:
        value = json.load(files.read(layout.view(task_id), limit=SIZE_LIMIT))
    except ValueError:
        return True
    return not isinstance(value, dict) or "version" in value
