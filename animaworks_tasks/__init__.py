"""
Background tasks for programs that host AI agents: submit a slow tool, go on talking, be told when it is done.

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
        TaskNotFoundError,
        TasksError,
        ToolError,
    )
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

_HOME = {
    "Backend": "backends",
    "BadArgument": "errors",
    "Cause": "task.model",
    "Changes": "store.protocol",
    "Claim": "store.protocol",
    "Drained": "notifications.inbox",
    "Event": "task.states",
    "Executor": "executor.executor",
    "FuturesBackend": "backends",
    "InlineBackend": "backends",
    "MarkdownRenderer": "notifications.render",
    "MemoryTaskStore": "store.memory",
    "MissingCredential": "errors",
    "Notification": "notifications.inbox",
    "Notifications": "notifications.inbox",
    "OnInterrupt": "task.model",
    "Outcome": "task.model",
    "ProcessBackend": "backends",
    "Progress": "store.protocol",
    "Recovery": "store.protocol",
    "Registry": "tools.registry",
    "State": "task.model",
    "Store": "store.protocol",
    "SubmitOptions": "store.rules",
    "Task": "task.model",
    "TaskCancelled": "errors",
    "TaskNotFoundError": "errors",
    "TaskStore": "store.directory",
    "TasksError": "errors",
    "ThreadBackend": "backends",
    "ToolContext": "tools.context",
    "ToolError": "errors",
    "Traits": "backends",
    "Watch": "store.protocol",
    "Workspace": "tools.context",
    "discover": "tools.discovery",
    "load_directory": "tools.discovery",
    "run_task": "worker.runner",
}

__all__ = [
    "Backend", "BadArgument", "Cause", "Changes", "Claim", "Drained", "Event", "Executor", "FuturesBackend",
    "InlineBackend", "MarkdownRenderer", "MemoryTaskStore", "MissingCredential", "Notification", "Notifications",
    "OnInterrupt", "Outcome", "ProcessBackend", "Progress", "Recovery", "Registry", "State", "Store", "SubmitOptions",
    "Task", "TaskCancelled", "TaskNotFoundError", "TaskStore", "TasksError", "ThreadBackend", "ToolContext",
    "ToolError", "Traits", "Watch", "Workspace", "__version__", "discover", "load_directory", "run_task",
]  # fmt: skip


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
