"""
Background tasks for programs that host AI agents: submit a slow tool, go on talking, be told when it is done.

Importing this package imports nothing else: each name is loaded when it is first used, because
``animaworks-tool submit`` must start in the time of a bare interpreter.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would import typing

if TYPE_CHECKING:
    from animaworks_tasks._backends import (
        Backend,
        FuturesBackend,
        InlineBackend,
        ProcessBackend,
        ThreadBackend,
    )
    from animaworks_tasks._context import ToolContext, Workspace
    from animaworks_tasks._directory_store import TaskStore
    from animaworks_tasks._discovery import discover, load_directory
    from animaworks_tasks._executor import Executor
    from animaworks_tasks._memory_store import MemoryTaskStore
    from animaworks_tasks._notice import MarkdownRenderer
    from animaworks_tasks._notifications import Drained, Notification, Notifications
    from animaworks_tasks._registry import Registry
    from animaworks_tasks._runner import run_task
    from animaworks_tasks._states import Event
    from animaworks_tasks._store import Claim, Doorbell, Progress, Recovery, Store, SubmitOptions
    from animaworks_tasks._task import Cause, OnInterrupt, Outcome, State, Task
    from animaworks_tasks.errors import (
        BadArgument,
        MissingCredential,
        TaskCancelled,
        TaskNotFoundError,
        TasksError,
        ToolError,
    )

__version__ = "0.1.0"

_HOME = {
    "Backend": "_backends",
    "BadArgument": "errors",
    "Cause": "_task",
    "Claim": "_store",
    "Doorbell": "_store",
    "Drained": "_notifications",
    "Event": "_states",
    "Executor": "_executor",
    "FuturesBackend": "_backends",
    "InlineBackend": "_backends",
    "MarkdownRenderer": "_notice",
    "MemoryTaskStore": "_memory_store",
    "MissingCredential": "errors",
    "Notification": "_notifications",
    "Notifications": "_notifications",
    "OnInterrupt": "_task",
    "Outcome": "_task",
    "ProcessBackend": "_backends",
    "Progress": "_store",
    "Recovery": "_store",
    "Registry": "_registry",
    "State": "_task",
    "Store": "_store",
    "SubmitOptions": "_store",
    "Task": "_task",
    "TaskCancelled": "errors",
    "TaskNotFoundError": "errors",
    "TaskStore": "_directory_store",
    "TasksError": "errors",
    "ThreadBackend": "_backends",
    "ToolContext": "_context",
    "ToolError": "errors",
    "Workspace": "_context",
    "discover": "_discovery",
    "load_directory": "_discovery",
    "run_task": "_runner",
}

__all__ = [
    "Backend", "BadArgument", "Cause", "Claim", "Doorbell", "Drained", "Event", "Executor", "FuturesBackend",
    "InlineBackend", "MarkdownRenderer", "MemoryTaskStore", "MissingCredential", "Notification", "Notifications",
    "OnInterrupt", "Outcome", "ProcessBackend", "Progress", "Recovery", "Registry", "State", "Store", "SubmitOptions",
    "Task", "TaskCancelled", "TaskNotFoundError", "TaskStore", "TasksError", "ThreadBackend", "ToolContext",
    "ToolError", "Workspace", "__version__", "discover", "load_directory", "run_task",
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
