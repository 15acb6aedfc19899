"""
Deliberate bugs in the protocol, each switched on for one test and for the children that it forks.

Each is a mistake that one could make in good faith, most of them by leaving a line out or by exchanging two.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from animaworks_tasks import Task, TaskStore
from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, locks
from animaworks_tasks.notifications.inbox import DirectoryNotifications, Notification
from animaworks_tasks.store import enqueue
from animaworks_tasks.store.records import DirectoryRecords
from animaworks_tasks.store.recovery import DirectoryRecovery
from animaworks_tasks.task.states import Event

Patch = pytest.MonkeyPatch


def a_file_is_not_fsynced(patch: Patch) -> None:
    write = files._write
    patch.setattr(files, "_write", lambda path, data, **options: write(path, data, **{**options, "sync": False}))


def a_directory_is_not_fsynced(patch: Patch) -> None:
    patch.setattr(files, "sync_directory", lambda _: None)


def the_directory_of_pending_tasks_is_not_fsynced(patch: Patch) -> None:
    _without_sync_of(patch, "pending")


def the_directory_of_outcomes_is_not_fsynced(patch: Patch) -> None:
    _without_sync_of(patch, "done")


def the_tool_starts_before_its_claim_is_durable(patch: Patch) -> None:
    _without_sync_of(patch, "running")


def a_claim_that_is_not_durable_in_pending_is_not_announced_either(patch: Patch) -> None:
    patch.setattr(DirectoryRecords, "announced", lambda *_: True)


def what_was_announced_counts_for_nothing(patch: Patch) -> None:
    patch.setattr(DirectoryRecords, "may_have_begun", lambda *_: False)


def a_prune_relies_on_what_has_left_pending(patch: Patch) -> None:
    real = DirectoryRecords.sync_directory

    def sync_directory(records: DirectoryRecords, path: str) -> None:
        if path != records.layout.pending:
            real(records, path)

    patch.setattr(DirectoryRecords, "sync_directory", sync_directory)


def an_acknowledged_notice_is_not_fsynced(patch: Patch) -> None:
    _without_sync_of(patch, ".read")


def _without_sync_of(patch: Patch, name: str) -> None:
    real = files.sync_directory

    def sync_directory(path: str) -> None:
        if os.path.basename(path) != name:
            real(path)

    patch.setattr(files, "sync_directory", sync_directory)


def a_key_is_used_again_before_the_prune_is_durable(patch: Patch) -> None:
    place = enqueue.place

    def not_keyed(*args: Any, **options: Any) -> bool:  # noqa: ANN401 - as they are
        return place(*args, **{**options, "keyed": False})

    patch.setattr("animaworks_tasks.store.directory.place", not_keyed)


def a_read_notice_counts_as_gone_where_it_is_not_seen(patch: Patch) -> None:
    def forget_read(records: DirectoryRecords, task: Task) -> None:
        if files.discard(os.path.join(records.layout.read, f"{task.id}.md")):
            records.sync_directory(records.layout.read)

    patch.setattr(DirectoryRecords, "forget_read", forget_read)


def recovery_syncs_once_for_all(patch: Patch) -> None:
    sync_all, done = DirectoryRecords.sync_all, []

    def once(records: DirectoryRecords) -> None:
        if not done:
            done.append(True)
            sync_all(records)

    patch.setattr(DirectoryRecords, "sync_all", once)


def recovery_builds_on_what_is_not_durable(patch: Patch) -> None:
    patch.setattr(DirectoryRecords, "sync_all", lambda _: None)


def a_record_is_renamed_instead_of_linked(patch: Patch) -> None:
    def link(source: str, target: str) -> bool:
        if os.path.lexists(target):
            return False
        os.rename(source, target)
        return True

    patch.setattr(files, "link", link)


def a_record_is_written_where_others_read_it(patch: Patch) -> None:
    def publish(directory: str, name: str, data: bytes, *, sync: bool, **_: object) -> bool:
        with contextlib.suppress(FileExistsError):
            files._write(os.path.join(directory, name), data, sync=sync)
            return True
        return False

    patch.setattr(files, "publish", publish)


def an_outcome_replaces_an_earlier_one(patch: Patch) -> None:
    real = files.publish

    def publish(directory: str, name: str, data: bytes, **options: Any) -> bool:  # noqa: ANN401 - as they are
        if os.path.basename(directory) == "done":
            files.replace(os.path.join(directory, name), data, tmp=options["tmp"])
            return True
        return real(directory, name, data, **options)

    patch.setattr(files, "publish", publish)


def the_agent_is_told_before_the_outcome_is_stored(patch: Patch) -> None:
    settle = DirectoryRecords.settle

    def told_first(records: DirectoryRecords, task: Task) -> Task:
        records.notify(task)
        return settle(records, task)

    patch.setattr(DirectoryRecords, "settle", told_first)


def a_task_stops_running_before_its_outcome_is_stored(patch: Patch) -> None:
    settle = DirectoryRecords.settle

    def forgotten_first(records: DirectoryRecords, task: Task) -> Task:
        records.forget_running(task.id)
        return settle(records, task)

    patch.setattr(DirectoryRecords, "settle", forgotten_first)


def a_task_stops_running_before_it_waits_again(patch: Patch) -> None:
    give_back = DirectoryRecords.give_back

    def forgotten_first(records: DirectoryRecords, task: Task, **options: Any) -> Task:  # noqa: ANN401 - as they are
        records.forget_running(task.id, waits=True)
        return give_back(records, task, **options)

    patch.setattr(DirectoryRecords, "give_back", forgotten_first)


def a_task_is_claimed_without_its_lock(patch: Patch) -> None:
    real, number = locks.hold, itertools.count()
    patch.setattr(locks, "hold", lambda path: real(f"{path}.{next(number)}") if "/locks/0" in path else real(path))


def a_lock_is_not_checked_for_its_name(patch: Patch) -> None:
    """Taken from a file that its last holder has unlinked, it keeps nobody out."""
    fstat = os.fstat

    def linked(descriptor: int) -> os.stat_result:
        mode, inode, device, links, *more = fstat(descriptor)
        return os.stat_result((mode, inode, device, max(1, links), *more))

    patch.setattr(os, "fstat", linked)


def a_lock_is_let_go_before_the_task_has_stopped_running(patch: Patch) -> None:
    forget = DirectoryRecords.forget_running
    finish = TaskStore.finish

    def finish_late(store: TaskStore, claim: Any, event: Event, **changes: Any) -> Task:  # noqa: ANN401 - as they are
        with patch.context() as first:
            first.setattr(DirectoryRecords, "forget_running", lambda *_, **__: None)
            task = finish(store, claim, event, **changes)
        forget(store._records, task.id)
        return task

    patch.setattr(TaskStore, "finish", finish_late)


def an_orphan_is_settled_without_its_lock(patch: Patch) -> None:
    """Whoever recovers takes every running task for an orphan."""
    real = locks.Holding.__enter__

    def enter(holding: locks.Holding) -> locks.Holding:
        real(holding)
        if holding.lock is None:
            holding.lock = locks.hold(f"{holding._path}.{os.urandom(4).hex()}")
        return holding

    patch.setattr(locks.Holding, "__enter__", enter)


def two_may_drain_at_once(patch: Patch) -> None:
    real, number = locks.hold, itertools.count()
    patch.setattr(locks, "hold", lambda path: real(f"{path}.{next(number)}") if "drain" in path else real(path))


def a_drain_deletes_before_it_puts_away(patch: Patch) -> None:
    def put_away(self: DirectoryNotifications, notifications: Iterable[Notification]) -> None:
        for notification in notifications:
            files.discard(os.path.join(self._layout.notifications, notification.name))
            data = notification.text.encode()
            files.publish(self._layout.read, notification.name, data, tmp=self._layout.tmp, sync=self._sync)

    patch.setattr(DirectoryNotifications, "_put_away", put_away)


def a_notice_that_is_half_put_away_is_shown_again(patch: Patch) -> None:
    patch.setattr(DirectoryNotifications, "_acknowledged", lambda *_: False)


def every_pending_record_says_that_its_task_never_began(patch: Patch) -> None:
    def never_started(self: DirectoryRecovery, task_id: str, _: Task) -> Task | None:
        with contextlib.suppress(FileNotFoundError, RecordError):
            return self._records.pending(task_id)
        return None

    patch.setattr(DirectoryRecovery, "_never_started", never_started)


Mutant = Callable[[Patch], None]
