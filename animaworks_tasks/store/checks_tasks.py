"""
Is every task where it belongs: the names in the three directories, the records, and who runs what is running.

Tasks move on while we look. So what seems wrong about one is looked at again under its lock: who cannot have that lock
finds a task whose owner lives, and says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files
from animaworks_tasks.fs.doorbell import is_heard
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.checks_place import who_has
from animaworks_tasks.store.findings import FIX, Finding, Remedy, Severity, several, shown
from animaworks_tasks.store.records import DirectoryRecords, ids
from animaworks_tasks.store.recovery import RIPE_AFTER, UNREAD_OUTCOME
from animaworks_tasks.task import codec
from animaworks_tasks.task.model import Task, is_task_id
from animaworks_tasks.tools.catalogue import known_tools

_AHEAD: Final = timedelta(minutes=1)  # by which clocks may differ
_STOPPING: Final = 60.0  # seconds that it may take to stop a tool that has run too long


class TaskChecks:
    """
    Looks at the tasks of one store.

    Args:
        records: Of the store.
    """

    def __init__(self, records: DirectoryRecords) -> None:
        self._records, self._layout, self._now = records, records.layout, records.clock()
        self._ahead: dict[str, datetime] = {}
        self._tools = known_tools(self._layout) or {}

    def findings(self) -> Iterator[Finding]:
        """Yield everything that is not as it should be."""
        yield from self._strangers()
        yield from self._pending()
        yield from self._running()
        yield from self._done()
        yield from self._future()

    # Names.

    def _strangers(self) -> Iterator[Finding]:
        layout = self._layout
        places = {
            layout.pending: {".json"},
            layout.running: {".json", ".owner.json", ".cancel"},
            layout.done: {".json"},
        }
        for directory, suffixes in places.items():
            for name in sorted(files.names(directory)):
                stem, dot, rest = name.partition(".")
                if not (is_task_id(stem) and dot + rest in suffixes) and not self._of_another_program(directory, name):
                    yield self._stranger(os.path.join(directory, name))
        for name in sorted(files.names(layout.root)):
            if name.endswith(".json") and not is_task_id(name.removesuffix(".json")):
                path = os.path.join(layout.root, name)
                what = f"{shown(path)} is no task, and AnimaWorks takes every .json there for one"
                yield Finding(what=what, where=path, severity=Severity.NOTICE, todo="move it away")

    def _stranger(self, path: str) -> Finding:
        name = os.path.basename(path)
        if name.endswith(".processing"):
            return Finding(
                what=f"another watcher takes tasks out of pending/: {shown(path)}",
                where=path,
                severity=Severity.PROBLEM,
                todo="turn off AnimaWorks' own watcher for this Anima; then name the file <id>.json, or delete it",
            )
        if os.path.dirname(path) == self._layout.pending and name.endswith(".json") and not name.startswith("."):
            todo = "start a host, which rejects it and tells the agent; or name it 12 lowercase hex digits and .json"
        else:
            todo = "see whose it is; nobody here reads it"
        what = f"{shown(path)} is not the name of a task"
        return Finding(what=what, where=path, severity=Severity.NOTICE, todo=todo)

    def _of_another_program(self, directory: str, name: str) -> bool:
        return directory == self._layout.pending and name.endswith(".json") and self._records.is_foreign(name)

    # Records.

    def _pending(self) -> Iterator[Finding]:
        due = False
        for task_id in sorted(ids(self._layout.pending)):
            path = self._records.path(self._layout.pending, task_id)
            try:
                task = self._records.pending(task_id)
            except (FileNotFoundError, codec.ForeignRecordError):
                continue
            except RecordError as error:
                if files.age(path) > RIPE_AFTER:
                    yield Finding(
                        what=f"pending task {task_id} cannot be read: {error.reason}",
                        where=path,
                        severity=Severity.NOTICE,
                        todo="correct it, or start a host, which keeps it in quarantine/ and tells the agent",
                    )
                continue
            due = due or task.not_before is None or task.not_before <= self._now
            self._look_ahead(task)
            if self._is_left_behind(task_id):
                yield Finding(
                    what=f"task {task_id} is done, and waits in pending/ as well: it will not run again",
                    where=path,
                    severity=Severity.NOTICE,
                    todo=f"{FIX} takes it out of pending/, as any host does when its turn comes",
                    remedy=Remedy.DROP,
                    subjects=(task_id,),
                )
        if due and not is_heard(self._layout.doorbell):
            yield Finding(
                what="tasks wait, and no host is listening",
                where=self._layout.pending,
                severity=Severity.NOTICE,
                todo="start the host, or `animaworks-tool run`",
            )

    def _is_left_behind(self, task_id: str) -> bool:
        if not self._records.has(self._layout.done, task_id):
            return False
        with self._records.holding(task_id) as held:
            try:
                self._records.done(task_id)
            except (FileNotFoundError, RecordError):  # gone, or not to be trusted: recovery decides then
                return False
            return held.lock is not None and self._records.has(self._layout.pending, task_id)

    def _running(self) -> Iterator[Finding]:
        owners: Mapping[str, Any] | None = None
        for task_id in sorted(ids(self._layout.running)):
            path = self._records.path(self._layout.running, task_id)
            with self._records.holding(task_id) as held:
                if held.lock is not None:
                    if self._records.has(self._layout.running, task_id):
                        yield self._orphan(task_id, path)
                    continue
            try:
                task = self._records.running(task_id)
            except FileNotFoundError:  # it ended just now
                continue
            except RecordError as error:
                what = f"running task {task_id} cannot be read: {error.reason}"
                todo = (
                    f"nothing: its owner lives, and knows what it runs; `animaworks-tool wait {task_id}` tells the end"
                )
                yield Finding(what=what, where=path, severity=Severity.NOTICE, todo=todo)
                continue
            self._look_ahead(task)
            yield from self._late(task, path)
            owners = who_has(self._layout.locks) if owners is None else owners
            yield from self._kept(task, owners)

    def _orphan(self, task_id: str, path: str) -> Finding:
        places = (("done", self._layout.done), ("pending", self._layout.pending))
        also = [f"{name}/" for name, place in places if self._records.has(place, task_id)]
        return Finding(
            what=f"task {task_id} is in running/, and whoever ran it has died"
            + (f"; it is in {' and '.join(also)} as well" if also else ""),
            where=path,
            severity=Severity.PROBLEM,
            todo=f"start the host, which settles it as its tool wishes; or {FIX}, which ends what may have partly run",
            remedy=Remedy.RECOVER,
        )

    def _late(self, task: Task, path: str) -> Iterator[Finding]:
        if task.started_at is None:
            return
        spec = self._tools.get(task.tool, {}).get(task.subcommand, {})
        runs = (self._now - task.started_at).total_seconds()
        limit = spec.get("timeout_seconds") if task.timeout_seconds is None else task.timeout_seconds
        expected = spec.get("expected_seconds") if task.expected_seconds is None else task.expected_seconds
        name = f"task {task.id} ({one_line(task.name, 100)})"
        cancel = f"`animaworks-tool cancel {task.id}` stops it"
        if limit is not None and runs > limit + _STOPPING:
            process = f", as process {task.owner_pid}" if task.owner_pid else ""
            yield Finding(
                what=f"{name} runs for {runs:.0f} s and may for {limit:g}{process}",
                where=path,
                severity=Severity.PROBLEM,
                todo=f"{cancel}; a tool that runs in a thread cannot be stopped: then restart the host",
            )
        elif expected is not None and runs > expected:
            yield Finding(
                what=f"{name} is overdue: {runs:.0f} s of {expected:g}",
                where=path,
                severity=Severity.NOTICE,
                todo=f"`animaworks-tool logs -f {task.id}` shows whether it gets on; {cancel}",
            )

    def _kept(self, task: Task, owners: Mapping[str, Any]) -> Iterator[Finding]:
        """Find a lock that outlives its owner: a child of the owner inherited it, and keeps the task from recovery."""
        path = self._layout.lock(task.id)
        holders = owners.get(os.path.join(os.path.realpath(self._layout.locks), f"{task.id}.lock"), [])
        if task.owner_pid is not None and holders and not any(task.owner_pid in each.pids for each in holders):
            yield Finding(
                what=f"task {task.id} was run by process {task.owner_pid}, and its lock is held by {holders[0]}",
                where=path,
                severity=Severity.PROBLEM,
                todo=f"see what process {holders[0].pids[0]} does; once it has ended, the task is settled",
            )

    def _done(self) -> Iterator[Finding]:
        for task_id in sorted(ids(self._layout.done)):
            path = self._records.path(self._layout.done, task_id)
            try:
                self._look_ahead(self._records.done(task_id))
            except FileNotFoundError:  # pruned just now
                continue
            except RecordError as error:
                lives = self._records.lives(task_id)
                yield Finding(
                    what=f"done task {task_id} cannot be read: {error.reason}",
                    where=path,
                    severity=Severity.PROBLEM,
                    todo="start a host: it settles what lives on" if lives else f"{FIX} moves it into quarantine/",
                    remedy=None if lives else Remedy.ASIDE,
                    subjects=(path,),
                    reason=f"{UNREAD_OUTCOME}: {error.reason}",
                )

    # The time.

    def _look_ahead(self, task: Task) -> None:
        latest = max(filter(None, (task.submitted_at, task.started_at, task.finished_at)))
        if latest > self._now + _AHEAD:
            self._ahead[task.id] = latest

    def _future(self) -> Iterator[Finding]:
        if self._ahead:
            task_id = max(self._ahead, key=lambda each: self._ahead[each])
            by = (self._ahead[task_id] - self._now).total_seconds()
            yield Finding(
                what=f"{several(len(self._ahead), 'task comes', 'tasks come')} from the future, one by {by:.0f} s",
                where=task_id,
                severity=Severity.NOTICE,
                todo="see whether this machine's clock is right; order and ages are wrong until then, nothing is lost",
            )
