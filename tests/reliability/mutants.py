"""
Deliberate bugs in the protocol, each switched on for one test and for the children that it forks.

Each is a mistake that one could make in good faith. Most leave a step out, or turn two round, and name it as the
protocol does: ``claim.sync``. The others leave out a question.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import pytest

from animaworks_tasks import Task
from animaworks_tasks.errors import RecordError
from animaworks_tasks.fs import files, locks, watch
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.notifications.inbox import DirectoryNotifications, Notification
from animaworks_tasks.store import keys, leftovers, recovery, rules, transitions
from animaworks_tasks.store.place import Place

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]

_TAKEN = {
    "write": None,
    "link": True,
    "rename": None,
    "unlink": True,
    "sync": None,
}  # what a step that is left out returns


def without(*steps: str) -> Mutant:
    """Leave *steps* out; of one that writes, the fsync."""

    def mutant(patch: Patch) -> None:
        for verb, taken in _TAKEN.items():
            patch.setattr(Disk, verb, _left_out(getattr(Disk, verb), taken, steps))

    return mutant


def _left_out(real: Callable[..., Any], taken: object, steps: tuple[str, ...]) -> Callable[..., Any]:
    def verb(disk: Disk, step: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as they are
        if step not in steps:
            return real(disk, step, *arguments, **options)
        if not step.endswith(".write"):
            return taken
        return real(Disk(disk.tmp, durable=False), step, *arguments, **options)

    return verb


def later(step: str, after: str) -> Mutant:
    """Take *step* only *after* another one; until then it seems to have been taken."""

    def mutant(patch: Patch) -> None:
        waiting: list[Callable[[], object]] = []
        for verb, taken in _TAKEN.items():
            patch.setattr(Disk, verb, _held_back(getattr(Disk, verb), taken, step, after, waiting))

    return mutant


def _held_back(
    real: Callable[..., Any], taken: object, held: str, after: str, waiting: list[Callable[[], object]]
) -> Callable[..., Any]:
    def verb(disk: Disk, step: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as they are
        if step == held:
            waiting.append(lambda: real(disk, step, *arguments, **options))
            return taken
        result = real(disk, step, *arguments, **options)
        while step == after and waiting:
            waiting.pop(0)()
        return result

    return verb


def earlier(step: str, before: str, path: Callable[[Place, Task], str]) -> Mutant:
    """Unlink what *step* unlinks already *before* the function of transitions.py of that name."""

    def mutant(patch: Patch) -> None:
        real = getattr(transitions, before)

        def hasty(place: Place, task: Task, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as they are
            place.disk.unlink(step, path(place, task))
            return real(place, task, *arguments, **options)

        patch.setattr(transitions, before, hasty)
        for module in (recovery,):
            if hasattr(module, before):
                patch.setattr(module, before, hasty)

    return mutant


def _running(place: Place, task: Task) -> str:
    return place.layout.running_record(task.id)


running_dropped_before_the_outcome_is_stored = earlier("finish.unlink", "commit", _running)
running_dropped_before_it_waits_again = earlier("requeue.unlink", "requeue_record", _running)


def running_dropped_before_the_notification_is_durable(patch: Patch) -> None:
    real = Disk.sync

    def sync(disk: Disk, step: str, *directories: str) -> None:
        if step == "notify.sync":
            layout = os.path.join(os.path.dirname(disk.tmp), "running")
            for name in files.names(layout):
                os.unlink(os.path.join(layout, name))
        real(disk, step, *directories)

    patch.setattr(Disk, "sync", sync)


def notified_before_the_outcome_is_stored(patch: Patch) -> None:
    real = transitions.commit

    def commit(place: Place, task: Task) -> Task:
        transitions.notify(place, task)
        return real(place, task)

    patch.setattr(transitions, "commit", commit)


def written_where_others_read_it(patch: Patch) -> None:
    def publish(disk: Disk, row: str, directory: str, name: str, data: bytes, **options: Any) -> bool:  # noqa: ANN401
        del row, options
        with contextlib.suppress(FileExistsError):
            files.write(f"{directory}/{name}", data, sync=disk.durable)
            return True
        return False

    patch.setattr(Disk, "publish", publish)


def renamed_instead_of_linked(patch: Patch) -> None:
    def link(disk: Disk, step: str, source: str, target: str) -> bool:
        del disk, step
        if os.path.lexists(target):
            return False
        os.rename(source, target)
        return True

    patch.setattr(Disk, "link", link)
    patch.setattr(Disk, "link_held", lambda disk, step, lock, target: link(disk, step, lock._path, target))


def an_outcome_replaces_an_earlier_one(patch: Patch) -> None:
    real = Disk.publish

    def publish(disk: Disk, row: str, directory: str, name: str, data: bytes, **options: Any) -> bool:  # noqa: ANN401
        if row == "finish":
            disk.show(os.path.join(directory, name), data)
            return True
        return real(disk, row, directory, name, data, **options)

    patch.setattr(Disk, "publish", publish)


# Locks.


def linked_before_locked(patch: Patch) -> None:
    """The claim gives the record its second name first, and takes the lock then."""
    real = locks.hold

    def hold(path: str, *, writing: bool = False) -> locks.Lock | None:
        if writing and "/pending/" in path:
            with contextlib.suppress(FileExistsError):
                os.link(path, path.replace("/pending/", "/running/").replace(".json", ".task"), follow_symlinks=False)
        return real(path, writing=writing)

    patch.setattr(locks, "hold", hold)
    patch.setattr(Disk, "link_held", lambda *_: True)


def claimed_without_a_lock(patch: Patch) -> None:
    real = locks.hold
    patch.setattr(
        locks, "hold", lambda path, *, writing=False: locks.Lock(files.open_file(path), path) if writing else real(path)
    )


def recovered_without_a_lock(patch: Patch) -> None:
    real = locks.hold

    def hold(path: str, *, writing: bool = False) -> locks.Lock | None:
        return real(path, writing=writing) or (None if writing else locks.Lock(files.open_file(path), path))

    patch.setattr(locks, "hold", hold)


def another_file_is_linked_than_locked(patch: Patch) -> None:
    """The claim links what has the name now, whatever it has locked, and goes on."""
    patch.setattr(locks.Lock, "link", lambda lock, path: os.link(lock._path, path, follow_symlinks=False))
    patch.setattr(locks.Lock, "names", lambda *_: True)


def what_was_written_to_meanwhile_is_not_read_again(patch: Patch) -> None:
    patch.setattr(locks.Lock, "still_holds", lambda *_: True)


def a_claim_does_not_look_for_an_outcome(patch: Patch) -> None:
    patch.setattr(Place, "ended", lambda *_: False)


def two_may_drain_at_once(patch: Patch) -> None:
    real = locks.hold_directory
    patch.setattr(locks, "hold_directory", lambda path, *, shared=True: real(path, shared=True))  # noqa: ARG005 - as it is


def _unlocked(patch: Patch, which: Callable[[bool], bool]) -> None:
    real = locks.directory

    @contextlib.contextmanager
    def directory(path: str, *, shared: bool = False) -> Iterator[None]:
        if path.endswith("/keys") and which(shared):
            yield
        else:
            with real(path, shared=shared):
                yield

    patch.setattr(locks, "directory", directory)


def keys_are_entered_without_their_lock(patch: Patch) -> None:
    _unlocked(patch, lambda shared: shared)


def keys_are_dropped_without_their_lock(patch: Patch) -> None:
    _unlocked(patch, lambda shared: not shared)


def a_key_is_dropped_without_a_look_for_its_task(patch: Patch) -> None:
    real = keys.directory_of
    looks: list[str] = []

    def directory_of(layout: Any, task_id: str) -> str | None:  # noqa: ANN401 - as it is
        looks.append(task_id)
        return real(layout, task_id)

    def drop(layout: Any, disk: Disk, name: str, *, only: str | None = None) -> None:  # noqa: ANN401 - as it is
        del only
        with locks.directory(layout.keys):
            disk.unlink("key.unlink", os.path.join(layout.keys, name))

    patch.setattr(keys, "directory_of", directory_of)
    patch.setattr(keys, "drop", drop)


# Requeue and recovery.


def a_requeued_record_has_no_higher_number(patch: Patch) -> None:
    real = rules.requeued

    def requeued(task: Task, **options: Any) -> Task:  # noqa: ANN401 - as they are
        return attrs.evolve(real(task, **options), requeued=task.requeued)

    for module in (transitions, recovery):
        patch.setattr(module, "requeued", requeued)


def every_pending_record_says_that_its_task_never_began(patch: Patch) -> None:
    def requeued(place: Place, submitted: Task) -> Task | None:
        with contextlib.suppress(FileNotFoundError, RecordError):
            return place.pending(submitted.id)
        return None

    patch.setattr(recovery, "_requeued", requeued)


def recovery_syncs_once_for_all(patch: Patch) -> None:
    real, done = recovery._sync_all, []

    def once(place: Place) -> None:
        if not done:
            done.append(True)
            real(place)

    patch.setattr(recovery, "_sync_all", once)


def what_is_left_of_a_session_lives_on(patch: Patch) -> None:
    patch.setattr(leftovers, "kill_session", lambda _: 0)


def what_is_decided_and_held_is_left_alone(patch: Patch) -> None:
    patch.setattr(recovery, "complete", lambda *_: None)


def a_request_outlives_its_task(patch: Patch) -> None:
    without("finish.unlink-cancel", "cancel.unlink")(patch)
    real = files.clear
    patch.setattr(files, "clear", lambda path: not path.endswith(".cancel") and real(path))


def keys_are_not_swept(patch: Patch) -> None:
    real = recovery.sweep

    def sweep(place: Place) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(keys, "drop", lambda *_, **__: None)
            real(place)

    patch.setattr(recovery, "sweep", sweep)


# Notifications.


def a_drain_unlinks_before_it_links(patch: Patch) -> None:
    def move_to_read(self: DirectoryNotifications, notifications: Iterable[Notification]) -> None:
        for notification in notifications:
            self._disk.unlink("acknowledge.unlink", os.path.join(self._layout.notifications, notification.name))
            self._disk.publish("acknowledge", self._layout.read, notification.name, notification.text.encode())

    patch.setattr(DirectoryNotifications, "_move_to_read", move_to_read)


def a_notification_that_is_half_acknowledged_is_shown_again(patch: Patch) -> None:
    patch.setattr(DirectoryNotifications, "_acknowledged", lambda *_: False)


def a_waiting_notification_does_not_stand_against_a_prune(patch: Patch) -> None:
    patch.setattr(DirectoryNotifications, "waits", lambda *_: False)


# The watch.


def a_probe_opens_for_writing(patch: Patch) -> None:
    real = locks.hold
    patch.setattr(locks, "hold", lambda path, **_: real(path, writing=True))


def a_task_that_is_not_due_is_opened_for_writing(patch: Patch) -> None:
    real = transitions.claim

    def claim(place: Place, task_id: str, **options: Any) -> object:  # noqa: ANN401 - as they are
        os.close(os.open(place.layout.pending_record(task_id), os.O_RDWR))
        return real(place, task_id, **options)

    patch.setattr(transitions, "claim", claim)


def a_watch_that_overflowed_is_ignored(patch: Patch) -> None:
    real = watch._Inotify._read

    def read(self: watch._Inotify) -> Iterator[tuple[int, int, str]]:
        return (event for event in real(self) if not event[1] & watch._Q_OVERFLOW)

    patch.setattr(watch._Inotify, "_read", read)
