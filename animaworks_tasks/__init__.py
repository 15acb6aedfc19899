"""
Background tasks for programs that host AI agents: submit a slow tool, go on talking, be notified when it is done.

Importing this package imports nothing else: each name is loaded when it is first used, because
``animaworks-tool submit`` must start in the time of a bare interpreter.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from animaworks_tasks.backends import Backend, FuturesBackend, InlineBackend, ProcessBackend, ThreadBackend, Traits
    from animaworks_tasks.errors import (
        BadArgument,
        MissingCredential,
        TaskCancelled,
        TaskFailedError,
        TaskNotFoundError,
        TasksError,
        ToolError,
    )
    from animaworks_tasks.executor.events import EventKind, TaskEvent
    from animaworks_tasks.executor.executor import Executor
    from animaworks_tasks.notifications.inbox import Drained, Notification, Notifications
    from animaworks_tasks.notifications.render import MarkdownRenderer
    from animaworks_tasks.store.directory import TaskStore
    from animaworks_tasks.store.memory import MemoryTaskStore
    from animaworks_tasks.store.protocol import Changes, Claim, Progress, Recovery, Store, Watch
    from animaworks_tasks.store.rules import SubmitOptions
    from animaworks_tasks.task.model import Cause, OnInterrupt, Outcome, State, Task
    from animaworks_tasks.task.states import Event
    from animaworks_tasks.tools.context import ToolContext, Workspace
    from animaworks_tasks.tools.discovery import discover, load_directory
    from animaworks_tasks.tools.registry import Registry
    from animaworks_tasks.worker.runner import run_task

__version__ = "0.1.0"

_ROOMS = {  # the names of each module, by which it is found
    "backends": ("Backend", "FuturesBackend", "InlineBackend", "ProcessBackend", "ThreadBackend", "Traits"),
    "errors": (
        "BadArgument",
        "MissingCredential",
        "TaskCancelled",
        "TaskFailedError",
        "TaskNotFoundError",
        "TasksError",
        "ToolError",
    ),
    "executor.events": ("EventKind", "TaskEvent"),
    "executor.executor": ("Executor",),
    "notifications.inbox": ("Drained", "Notification", "Notifications"),
    "notifications.render": ("MarkdownRenderer",),
    "store.directory": ("TaskStore",),
    "store.memory": ("MemoryTaskStore",),
    "store.protocol": ("Changes", "Claim", "Progress", "Recovery", "Store", "Watch"),
    "store.rules": ("SubmitOptions",),
    "task.model": ("Cause", "OnInterrupt", "Outcome", "State", "Task"),
    "task.states": ("Event",),
    "tools.context": ("ToolContext", "Workspace"),
    "tools.discovery": ("discover", "load_directory"),
    "tools.registry": ("Registry",),
    "worker.runner": ("run_task",),
}

__all__ = [
    "Backend", "BadArgument", "Cause", "Changes", "Claim", "Drained", "Event", "EventKind", "Executor",
    "FuturesBackend", "InlineBackend", "MarkdownRenderer", "MemoryTaskStore", "MissingCredential", "Notification",
    "Notifications", "OnInterrupt", "Outcome", "ProcessBackend", "Progress", "Recovery", "Registry", "State",
    "Store", "SubmitOptions", "Task", "TaskCancelled", "TaskEvent", "TaskFailedError", "TaskNotFoundError",
    "TaskStore", "TasksError", "ThreadBackend", "ToolContext", "ToolError", "Traits", "Watch", "Workspace",
    "__version__", "discover", "load_directory", "run_task",
]  # fmt: skip


def __getattr__(name: str) -> object:
    home = next((module for module, names in _ROOMS.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
