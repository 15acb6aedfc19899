"""What an executor sees of a directory store: the kernel's events in pending/, running/ and done/, as ids of tasks."""

import contextlib

from animaworks_tasks.fs import locks
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.fs.watch import Watch
from animaworks_tasks.store.protocol import Changes
from animaworks_tasks.task.model import is_task_id


class DirectoryWatch:
    """
    A watch of the store at *layout*; see :class:`~animaworks_tasks.store.protocol.Watch`.

    In pending/ the kernel reports a submit; a plain write, once it is closed; and, under the name by which its owner
    had opened the record, that the owner released it or died. In done/ it reports an outcome. Who watches *closely*
    sees progress too.
    """

    def __init__(self, layout: Layout, *, closely: bool = False) -> None:
        self._layout = layout
        progress = (layout.progress,) if closely else ()
        self._watch = Watch((layout.pending, layout.running, layout.done, *progress))
        self._presence: locks.Lock | None = None
        self._is_open = True
        self._be_present()

    @property
    def problem(self) -> str | None:
        """Why nothing is seen; None where all is well."""
        return self._watch.problem

    def wait(self, timeout: float) -> Changes:
        seen = self._watch.wait(timeout)
        ids = {name.partition(".")[0] for _, name in seen.names}
        return Changes(frozenset(filter(is_task_id, ids)), seen.incomplete)

    def refresh(self) -> None:
        self._watch.refresh()
        # Removed and made again; or somebody was just asking when we came.
        if self._is_open and (self._presence is None or not self._presence.names(self._layout.running)):
            self._leave()
            self._be_present()

    def wake(self) -> None:
        self._watch.wake()

    def close(self) -> None:
        self._is_open = False
        self._watch.close()
        self._leave()

    def _be_present(self) -> None:
        """Hold a shared lock of running/, by which others see that a host is here; see :func:`is_hosted`."""
        with contextlib.suppress(OSError):
            self._presence = locks.hold_directory(self._layout.running, shared=True)

    def _leave(self) -> None:
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.release()


def is_hosted(layout: Layout) -> bool:
    """Return whether an executor watches the store at *layout* now."""
    # One after the other, or else two that ask at once would take each other for a host.
    with contextlib.suppress(OSError), locks.directory(layout.tmp):
        lock = locks.hold_directory(layout.running)
        if lock is not None:
            lock.release()
        return lock is None
    return False
