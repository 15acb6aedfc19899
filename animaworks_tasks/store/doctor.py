"""
Looks whether a store is well, and mends what can be mended without losing anything.

It works on a store that no host would open, and beside hosts that are at work: whatever it mends, it mends as recovery
does, under the task's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

from animaworks_tasks.fs import files
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.notifications.render import MarkdownRenderer
from animaworks_tasks.store import checks_place
from animaworks_tasks.store.checks_artifacts import TraceChecks
from animaworks_tasks.store.checks_tasks import TaskChecks
from animaworks_tasks.store.enqueue import create
from animaworks_tasks.store.findings import Finding, Remedy, Severity
from animaworks_tasks.store.protocol import Clock, may_begin_again, utc_now
from animaworks_tasks.store.records import DirectoryRecords
from animaworks_tasks.store.recovery import DirectoryRecovery
from animaworks_tasks.task.model import OnInterrupt, Task
from animaworks_tasks.tools.tool import MAX_ATTEMPTS

_ROUNDS: Final = 3  # what is mended may show what was hidden: a directory that is made, what is missing in it


class Doctor:
    """
    Examines the store of one Anima.

    Args:
        anima_dir: The Anima's directory, which is there.
        language: Of the notices that are left, ``"ja"`` or ``"en"``.
        clock: Tells the time in UTC.
    """

    def __init__(self, anima_dir: str | os.PathLike[str], *, language: str = "ja", clock: Clock = utc_now) -> None:
        self._layout = Layout(anima_dir)
        self._records = DirectoryRecords(self._layout, sync=True, render=MarkdownRenderer(language), clock=clock)
        self._recovery = DirectoryRecovery(self._records)
        self._remedies: Mapping[Remedy, Callable[[Finding], None]] = {
            Remedy.MAKE: self._make,
            Remedy.CLOSE: self._close,
            Remedy.ASIDE: self._put_aside,
            Remedy.DROP: self._drop,
            Remedy.RECOVER: self._recover,
            Remedy.NOTIFY: self._notify,
            Remedy.MEND: self._mend_views,
            Remedy.FORGET: self._forget,
            Remedy.SWEEP: self._sweep,
        }

    def examine(self) -> list[Finding]:
        """
        Return what is not as it should be; nothing where all is well, or where no task was ever submitted.

        Raises:
            OSError: The directory cannot be looked at.
        """
        found = list(checks_place.reach(self._layout))
        if found or not os.path.lexists(self._layout.root):
            return found
        for look in (checks_place.directories, checks_place.lock_files):
            found += look(self._layout)
            if any(finding.severity is Severity.PROBLEM and finding.remedy is not Remedy.CLOSE for finding in found):
                return found  # what is in them cannot be judged
        found += checks_place.permissions(self._layout)
        found += checks_place.file_system(self._layout)
        found += checks_place.hosts(self._layout)
        found += TaskChecks(self._records).findings()
        found += TraceChecks(self._records).findings()
        return found

    def repair(self) -> list[str]:
        """Mend what is fixable, and return what was done, a line each."""
        done: list[str] = []
        for _ in range(_ROUNDS):
            fixable = [finding for finding in self.examine() if finding.fixable]
            if not fixable:
                break
            done += [self._mend(finding, finding.remedy) for finding in fixable if finding.remedy is not None]
        return list(dict.fromkeys(done))  # what cannot be mended says so once

    def _mend(self, finding: Finding, remedy: Remedy) -> str:
        try:
            self._remedies[remedy](finding)
        except OSError as error:
            return f"not mended: {finding.where}: {error.strerror or error}"
        others = len(finding.subjects) - 1
        return f"{remedy.value}: {finding.where}" + (f" and {others} more" if others > 0 else "")

    def _make(self, _: Finding) -> None:
        create(self._layout, sync=True)

    def _close(self, finding: Finding) -> None:
        for path in finding.subjects:
            os.chmod(path, files.DIRECTORY_MODE if os.path.isdir(path) else files.FILE_MODE)

    def _put_aside(self, finding: Finding) -> None:
        for path in finding.subjects:
            task_id = os.path.basename(path).removesuffix(".json")
            with self._records.holding(task_id) as held:
                if held.lock is not None:
                    self._recovery.quarantine(path, finding.reason)

    def _drop(self, finding: Finding) -> None:
        for task_id in finding.subjects:
            with self._records.holding(task_id) as held:
                if held.lock is not None:
                    self._records.free(task_id)

    def _recover(self, _: Finding) -> None:
        self._recovery.recover(_may_run_again)

    def _notify(self, finding: Finding) -> None:
        for task_id in finding.subjects:
            with self._records.holding(task_id) as held:
                if held.lock is not None and self._records.has(self._layout.done, task_id):
                    self._records.notify(self._records.done(task_id))

    def _mend_views(self, finding: Finding) -> None:
        for task_id in finding.subjects:
            self._recovery.mend_view(task_id)

    def _forget(self, finding: Finding) -> None:
        for task_id in finding.subjects:
            self._records.forget_traces(task_id)

    def _sweep(self, _: Finding) -> None:
        self._recovery.sweep()


def _may_run_again(task: Task) -> bool:
    """Say whether an orphan's submitter said so; what its tool says, only a host knows: we take it to say nothing."""
    return may_begin_again(task, on_interrupt=OnInterrupt.FAIL, max_attempts=MAX_ATTEMPTS)
