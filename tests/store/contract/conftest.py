"""What the tests of the contract share: it holds for every store, so nothing here knows of files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from animaworks_tasks import (
    Store,
    Task,
)
from animaworks_tasks.task.states import Event
from tests.conftest import begin

NOWHERE = "0" * 12


def notified(store: Store) -> list[str | None]:
    """Return the ids of the tasks whose notifications wait."""
    return sorted(notification.task_id or "" for notification in store.notifications.peek())


def complete(store: Store, *, key: str | None = None, result: str = "ok") -> Task:
    return store.finish(begin(store, key=key), Event.COMPLETE, result=result)


def in_threads(count: int, call: Callable[[int], object]) -> list[object]:
    """Call from *count* threads as nearly at once as can be; return what each got, in order."""
    together = Barrier(count)

    def go(number: int) -> object:
        together.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(go, range(count)))
