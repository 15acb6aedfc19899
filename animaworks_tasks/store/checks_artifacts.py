"""
What lies around the tasks: views, notices, the catalogue, what is in quarantine, and what dead processes left.

As with the tasks themselves, what seems wrong is looked at again under the task's lock.
"""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, json, locks
from animaworks_tasks.notifications.delivery import Fate, delivery
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.store.checks_place import who_has
from animaworks_tasks.store.findings import FIX, Finding, Remedy, Severity, several, shown
from animaworks_tasks.store.records import DirectoryRecords, ids
from animaworks_tasks.store.recovery import MAY_HAVE_RUN, STALE_DRAFT, UNREAD_OUTCOME
from animaworks_tasks.task.model import is_task_id
from animaworks_tasks.task.pending import SIZE_LIMIT
from animaworks_tasks.tools.catalogue import read_tools

_YOUNG: Final = 60.0  # seconds for which something may still be in the hands of a process that is at work
_LONG_UNREAD: Final = 86400.0  # seconds
_NAMED: Final = 3  # of many files


class TraceChecks:
    """
    Looks at what belongs to the tasks of one store besides their records.

    Args:
        records: Of the store.
    """

    def __init__(self, records: DirectoryRecords) -> None:
        self._records, self._layout = records, records.layout

    def findings(self) -> Iterator[Finding]:
        """Yield everything that is not as it should be."""
        yield from self._views()
        yield from self._unread()
        yield from self._untold()
        yield from self._litter()
        yield from self._leftovers()
        yield from self._quarantined()
        yield from self._catalogue()

    # Views.

    def _views(self) -> Iterator[Finding]:
        views = ids(self._layout.root)
        stale = sorted(task_id for task_id in views | ids(self._layout.done) if self._is_stale(task_id))
        if stale:
            yield Finding(
                what=f"{several(len(stale), 'task is', 'tasks are')} not shown to AnimaWorks as it stands",
                where=self._layout.view(stale[0]),
                severity=Severity.PROBLEM,
                todo=f"{FIX} mends {several(len(stale), 'view', 'views')}",
                remedy=Remedy.MEND,
                subjects=tuple(stale),
            )

    def _is_stale(self, task_id: str) -> bool:
        if self._shows(task_id):
            return False
        with self._records.holding(task_id) as held:  # an owner that lives will come to it
            return held.lock is not None and not self._shows(task_id)

    def _shows(self, task_id: str) -> bool:
        records, view = self._records, self._layout.view(task_id)
        done = records.path(self._layout.done, task_id)
        if records.has(self._layout.done, task_id):
            try:
                return os.path.samefile(view, done) or filecmp.cmp(view, done, shallow=False)
            except FileNotFoundError:
                return not os.path.lexists(done)
        if records.has(self._layout.running, task_id):  # alive, or to be recovered
            return True
        return not self._is_ours(view)

    def _is_ours(self, view: str) -> bool:
        """Say whether a view is one of ours: other programs keep tasks there too, which have no version."""
        try:
            value = json.load(files.read(view, limit=SIZE_LIMIT))
        except FileNotFoundError:
            return False
        except (OSError, ValueError):  # torn by a power cut
            return True
        return isinstance(value, dict) and "version" in value

    # Notices.

    def _unread(self) -> Iterator[Finding]:
        old = []
        for name in sorted(files.names(self._layout.notifications)):
            age = files.age(os.path.join(self._layout.notifications, name))
            if is_task_id(name.removesuffix(".md")) and name.endswith(".md") and age > _LONG_UNREAD:
                old.append((age, name))
        if old:
            age, name = max(old)
            draining = who_has(self._layout.drain_lock).get(os.path.realpath(self._layout.drain_lock), [])
            holds = f"; {draining[0]} holds them, and should end" if draining else ""
            yield Finding(
                what=f"{several(len(old), 'notice waits', 'notices wait')} to be read for more than a day, "
                f"one for {age / 86400:.0f} d{holds}",
                where=os.path.join(self._layout.notifications, name),
                severity=Severity.NOTICE,
                todo="see that the heartbeat drains them; `animaworks-tool notifications --ack` reads them here",
            )

    def _untold(self) -> Iterator[Finding]:
        """Find done tasks whose notice is nowhere, and tell by the journal why."""
        told = {name for place in (self._layout.read, self._layout.notifications) for name in files.names(place)}
        untold = {each for each in ids(self._layout.done) if f"{each}.md" not in told and self._is_readable(each)}
        if not untold:
            return
        events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in self._records.journal.read():
            if event.get("task_id") in untold:
                events[str(event["task_id"])].append(event)
        found: dict[Fate, list[str]] = defaultdict(list)
        for task_id in sorted(untold):
            fate = delivery(events[task_id], waits=False, read=False, ended=True).fate
            if fate is not Fate.MISSING or self._is_untold(task_id):
                found[fate].append(task_id)
        for fate, severity, todo, remedy in _UNTOLD:
            if found[fate]:
                yield Finding(
                    what=f"of {several(len(found[fate]), 'task', 'tasks')} that ended, the notice {fate.value}",
                    where=found[fate][0],
                    severity=severity,
                    todo=todo,
                    remedy=remedy,
                    subjects=tuple(found[fate]),
                )

    def _is_readable(self, task_id: str) -> bool:
        try:
            self._records.done(task_id)
        except (FileNotFoundError, RecordError):  # which is told of elsewhere
            return False
        return True

    def _is_untold(self, task_id: str) -> bool:
        with self._records.holding(task_id) as held:
            if held.lock is None or not self._records.has(self._layout.done, task_id):
                return False
            places = (self._layout.notifications, self._layout.read)
            return not any(os.path.lexists(os.path.join(place, f"{task_id}.md")) for place in places)

    # Litter.

    def _litter(self) -> Iterator[Finding]:
        running = ids(self._layout.running)
        left = [*self._stale_locks(running), *self._stale_marks(running), *self._stale_drafts()]
        if left:
            yield Finding(
                what=f"dead processes left {several(len(left), 'file', 'files')} lying: {_some(left)}",
                where=left[0],
                severity=Severity.NOTICE,
                todo=f"{FIX} sweeps, as any host does when it starts",
                remedy=Remedy.SWEEP,
            )

    def _stale_locks(self, running: set[str]) -> Iterator[str]:
        for name in sorted(files.names(self._layout.locks)):
            path = os.path.join(self._layout.locks, name)
            task_id = name.removesuffix(".lock")
            if not is_task_id(task_id) or task_id in running or files.age(path) <= _YOUNG or locks.is_held(path):
                continue
            if os.path.lexists(path):  # not unlinked just now, by who held it
                yield path

    def _stale_marks(self, running: set[str]) -> Iterator[str]:
        for name in sorted(files.names(self._layout.running)):
            task_id = name.split(".", 1)[0]
            path = os.path.join(self._layout.running, name)
            belongs = not is_task_id(task_id) or task_id in running or self._records.lives(task_id)
            if not belongs and files.age(path) > _YOUNG:
                yield path

    def _stale_drafts(self) -> Iterator[str]:
        paths = (os.path.join(self._layout.tmp, name) for name in sorted(files.names(self._layout.tmp)))
        yield from (path for path in paths if files.age(path) > STALE_DRAFT)

    def _leftovers(self) -> Iterator[Finding]:
        """Find what is left of tasks that are gone: whoever pruned them died before the end."""
        layout = self._layout
        traces = {
            name.split(".", 1)[0]: os.path.join(place, name)
            for place in (layout.logs, layout.progress, layout.results, layout.read)
            for name in files.names(place)
        }
        places = (layout.done, layout.running, layout.pending, layout.running, layout.done)  # it may move on meanwhile
        known = {task_id for place in places for task_id in ids(place)}
        known |= {name.split(".", 1)[0] for name in files.names(layout.quarantine)}
        gone = sorted(filter(is_task_id, traces.keys() - known))
        left = [task_id for task_id in gone if files.age(traces[task_id]) > _YOUNG]
        if left:
            yield Finding(
                what=f"logs, results or read notices of {several(len(left), 'task', 'tasks')} that are gone are left",
                where=traces[left[0]],
                severity=Severity.NOTICE,
                todo=f"{FIX} removes them",
                remedy=Remedy.FORGET,
                subjects=tuple(left),
            )

    def _quarantined(self) -> Iterator[Finding]:
        for name in sorted(files.names(self._layout.quarantine)):
            if name.endswith(".why.txt"):
                continue
            path = os.path.join(self._layout.quarantine, name)
            try:
                why = files.read(f"{path}.why.txt", limit=SIZE_LIMIT).decode("utf-8", "replace")
            except OSError:
                why = "nobody noted why"
            todo = "see whose it is" if ".json" not in name else "submit its call anew, if it is wanted still"
            if why.startswith(UNREAD_OUTCOME):
                todo = "its task has run, so do not repeat it"
            elif why.startswith(MAY_HAVE_RUN):
                todo = "see what it did before you submit its call anew"
            yield Finding(
                what=f"{shown(path)} is in quarantine: {one_line(why, 300)}",
                where=path,
                severity=Severity.NOTICE,
                todo=f"{todo}; then delete the file and the note beside it",
            )

    def _catalogue(self) -> Iterator[Finding]:
        try:
            read_tools(self._layout)
        except FileNotFoundError:  # no host has been here yet
            return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or one_line(str(error), 200)
            yield Finding(
                what=f"the catalogue of tools cannot be used: {reason}; so a submit is checked only when it is run",
                where=self._layout.catalogue,
                severity=Severity.PROBLEM,
                todo="restart the host, which writes a new one; host and animaworks-tool should be of one release",
            )


_UNTOLD: Final[Sequence[tuple[Fate, Severity, str, Remedy | None]]] = (
    (
        Fate.MISSING,
        Severity.PROBLEM,
        f"{FIX} leaves it now",
        Remedy.NOTIFY,
    ),
    (
        Fate.TAKEN,
        Severity.NOTICE,
        "nothing, if AnimaWorks drains them itself; to know who read what, drain with `drain_notifications`",
        None,
    ),
    (Fate.UNKNOWN, Severity.NOTICE, "`animaworks-tool show ID` tells the agent what became of it", None),
)


def _some(paths: Sequence[str]) -> str:
    return ", ".join(map(shown, paths[:_NAMED])) + (" ..." if len(paths) > _NAMED else "")
