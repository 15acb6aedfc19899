"""The store that a command looks at, the task that the beginning of an id means, and why a task does not go on."""

from types import SimpleNamespace
from typing import Final, Literal

from animaworks_tasks.cli.basics import anima_dir
from animaworks_tasks.errors import TaskNotFoundError, UsageError
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.store import check
from animaworks_tasks.store.directory import TaskStore
from animaworks_tasks.store.place import ids
from animaworks_tasks.store.watch import is_hosted
from animaworks_tasks.task.model import State, Task, is_task_id
from animaworks_tasks.tools.catalogue import known

_SHORTEST: Final = 4  # digits of an id


def open_store(options: SimpleNamespace, *, changing: bool = False, language: str = "ja") -> TaskStore:
    """
    Open the store of the Anima that *options* or the environment name.

    Args:
        options: As parsed.
        changing: Whether something will be changed that must survive a power cut; who only looks waits for no disk.
        language: Of the notifications.

    Raises:
        TasksError: None is named, it is not there, or it cannot hold tasks. No Anima is made.
    """
    durability: Literal["full", "process"] = "full" if changing else "process"
    return TaskStore(anima_dir(options.anima_dir), language=language, durability=durability, shared=options.shared)


def notification_language(options: SimpleNamespace) -> str:
    """Return the language of a notification that a command leaves: what was asked for, or else the host's."""
    return options.language or known(Layout(anima_dir(options.anima_dir)))[1]


def find(store: TaskStore, text: str) -> Task:
    """
    Return the task whose id is, or begins with, *text*.

    Raises:
        UsageError: It is the beginning of several ids, or too short.
        TaskNotFoundError: There is none.
        RecordError: It is there, and cannot be read.
    """
    beginning = text.lower()
    if is_task_id(beginning):
        return store.get(beginning)
    if len(beginning) < _SHORTEST:
        raise UsageError(f"{text!r} is too short for a task's id: at least its first {_SHORTEST} digits are needed")
    known = store.pending_ids() | ids(store.layout.running, ".task") | ids(store.layout.done, ".task")
    found = sorted(task_id for task_id in known if task_id.startswith(beginning))
    if not found:
        raise TaskNotFoundError(text, store.location)
    if len(found) > 1:
        raise UsageError(f"{text!r} is the beginning of {len(found)} ids: {', '.join(found[:5])}; write more of it")
    return store.get(found[0])


def is_orphan(store: TaskStore, task: Task) -> bool:
    """Return whether *task* is RUNNING and its owner has died, so that nobody runs it."""
    return task.state is State.RUNNING and check.is_orphan(store.place, task.id)


def obstacle(store: TaskStore, task: Task) -> str | None:
    """Return why *task* will not go on as things are, and what to do; None where nothing is in its way."""
    if task.state is State.RUNNING and (reason := check.held_up(store.layout, task)) is not None:
        return reason
    if task.state is State.DONE or is_hosted(store.layout):
        return None
    if task.state is State.PENDING:
        return "no host is listening, so nothing starts it: start one, or `animaworks-tool run`"
    if is_orphan(store, task):
        return "the process that ran it has died, and no host is listening to finish it: `animaworks-tool run` does"
    return None
