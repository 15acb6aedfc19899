"""Checks of how an executor is used: of what would fail later in another process, or hold up an event loop."""

import asyncio
import pickle

from animaworks_tasks.errors import RegistryError
from animaworks_tasks.store.protocol import Store
from animaworks_tasks.tools.reference import is_loading
from animaworks_tasks.tools.registry import Registry
from animaworks_tasks.tools.tool import NOT_PORTABLE


def check_guarded() -> None:
    """
    Refuse to start an executor in a module while its tools are loaded.

    Raises:
        RuntimeError: Each process that runs its tools would start another executor.
    """
    if is_loading():
        raise RuntimeError(
            "an executor was started by a module while the tools in it are loaded, as each process that runs them "
            'does; let the module start it only under `if __name__ == "__main__":`'
        )


def check_portable(store: Store, registry: Registry) -> None:
    """
    Refuse a store or a registry that cannot go to another process.

    Raises:
        RegistryError: Another process could not find a tool.
        TypeError: The store or the registry cannot be pickled.
    """
    for tool in registry.tools():
        if not tool.portable:
            raise RegistryError(f"tool {tool.command!r} cannot be found by another process: {NOT_PORTABLE}")
    try:
        pickle.dumps((store, registry))
    except (pickle.PicklingError, AttributeError) as error:
        raise TypeError(f"{store!r} cannot go to another process: {error}") from error


def check_may_block(instead: str) -> None:
    """
    Refuse to block a thread in which an event loop runs; *instead* is what can be awaited.

    Raises:
        RuntimeError: One does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"this would block the event loop that runs in this thread: use `await executor.{instead}`")
