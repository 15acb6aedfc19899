"""What an executor does for its store besides running tasks: publish the catalogue, prune, see that there is room."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import attrs

from animaworks_tasks.store.protocol import Store
from animaworks_tasks.store.rules import Clock
from animaworks_tasks.tools.registry import Registry

logger = logging.getLogger("animaworks_tasks")

KEEP_DONE: Final = 10_000  # tasks
KEEP_DAYS: Final = 30.0
_PAUSE: Final = 600.0  # seconds from one pruning to the next
_AT_ONCE: Final = 50  # tasks; more would keep the tasks that are due waiting


@attrs.define
class Upkeep:
    """
    Looks after a store, a little at each look at everything.

    Attributes:
        store: The store.
        registry: Its tools are in the catalogue.
        clock: Tells the time in UTC.
        keep_done: How many done tasks are kept; None sets no limit.
        keep_days: For how many days a done task is kept; None sets no limit.
        limits: What the executor lets use a resource at once, for who asks what a task waits for.
    """

    store: Store
    registry: Registry
    clock: Clock
    keep_done: int | None = KEEP_DONE
    keep_days: float | None = KEEP_DAYS
    limits: Mapping[str, int] = attrs.field(factory=dict)
    _published: int = -1  # number of tools in the published catalogue
    _next_pruning: float = 0.0
    _refusal: str | None = ""  # why the store keeps nothing now; empty: not asked yet

    def look(self, *, waits: bool = False) -> bool:
        """
        Do what is due; what the disk refuses is logged, and tried again later. Where it is full, pruning makes room.

        Args:
            waits: Whether a task waits to start: then the store is asked whether it could keep an outcome.

        Returns:
            Whether a task may start.
        """
        if waits or self._refusal is not None:  # an idle host does not write at every look
            self._ask_for_room()
        if self._refusal is None:
            self._publish_catalogue()
        if time.monotonic() >= self._next_pruning:
            self._next_pruning = time.monotonic() + _PAUSE
            before = None if self.keep_days is None else self.clock() - timedelta(days=self.keep_days)
            try:
                if len(self.store.prune(finished_before=before, keep=self.keep_done, limit=_AT_ONCE)) == _AT_ONCE:
                    self._next_pruning = 0.0  # there may be more
            except OSError as error:
                logger.warning("done tasks could not be pruned, trying again later: %s", error)
        return self._refusal is None

    def _ask_for_room(self) -> None:
        before, self._refusal = self._refusal or None, self.store.problem()
        if self._refusal is not None and self._refusal != before:
            logger.warning("%s; no task is started until it can; what was submitted waits", self._refusal)
        elif self._refusal != before:
            logger.warning("tasks are started again")

    def _publish_catalogue(self) -> None:
        size = len(self.registry.tools())
        if size != self._published:
            try:
                self.store.publish_catalogue({**self.registry.catalogue(), "limits": dict(self.limits)})
                self._published = size
            except (OSError, TypeError, ValueError) as error:  # without it, submitters in other processes check nothing
                logger.warning("the catalogue of tools could not be published, trying again: %s", error)
