"""
The suite can fail: each deliberate bug in the protocol is caught by the check that is there for it.

Without the bugs the same checks, at as many points and more, are the tests of the other modules, in full.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks import TaskStore
from animaworks_tasks.fs import locks
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.states import Event
from tests.conftest import own
from tests.reliability import mutants as bugs
from tests.reliability.counts import count
from tests.reliability.lives import LATER, LIVES
from tests.reliability.mutants import later, without
from tests.reliability.races import RACES, explored
from tests.reliability.stages import crash_points, power_cuts, refusals

pytestmark = pytest.mark.slow  # they fail with the checks, which the tests of the other modules make every time

Check = Callable[[Path], Iterator[str]]

LIFE: Final = {life.name: life for life in LIVES}
RUN: Final = "claim, run, finish, notify"
RETRY: Final = "fail, retry, finish"


def killed(name: str) -> Check:
    return lambda ground: crash_points(ground, LIFE[name])


def cut(name: str) -> Check:
    return lambda ground: power_cuts(ground, LIFE[name], moments=1000, limit=16)


def refused(name: str) -> Check:
    return lambda ground: refusals(ground, LIFE[name], errno.EACCES, lasting=False)


def raced(name: str, kills: int = 0) -> Check:
    def check(ground: Path) -> Iterator[str]:
        found = explored(ground, RACES[name], preemptions=2, kills=kills, limit=1000, until_bad=True)
        yield from found.bad

    return check


def written_to(ground: Path) -> Iterator[str]:
    """Rewrite a record in place as it is claimed: nobody may run what it said before."""
    store = TaskStore(ground / "mei", durability="process")
    task = store.submit("tool", "once", "before")
    path, sync = Path(store.layout.pending_record(task.id)), Disk.sync

    def written(disk: Disk, step: str, *directories: str) -> None:
        if step == "claim.sync":
            path.write_bytes(path.read_bytes().replace(b"before", b"latest"))
        sync(disk, step, *directories)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Disk, "sync", written)
        claim = store.claim(task.id)
    if claim is not None:
        yield f"claimed as {claim.task.argv}"


def pruned_unread(ground: Path) -> Iterator[str]:
    """Prune beside a notification that nobody has read."""
    store = TaskStore(ground / "mei", durability="process")
    store.request_cancel(store.submit("tool").id)
    yield from store.prune(finished_before=LATER)


def requeued_half_way(ground: Path) -> Iterator[str]:
    """Die between the two names of a requeue: what waits is the next attempt, and not an orphan."""
    store = TaskStore(ground / "mei", durability="process")
    claim = own(store, store.submit("tool").id)
    with pytest.MonkeyPatch.context() as patch:
        without("requeue.unlink")(patch)
        store.requeue(claim)
    yield from (f"{task.id} was finished, and waited" for task in store.recover().finished)


def ended_and_held(ground: Path) -> Iterator[str]:
    """Let a process hold the record of a task that has ended, and that still has its name in running/."""
    store = TaskStore(ground / "mei", durability="process")
    claim = own(store, store.submit("tool").id)
    lock = claim.lock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks.Lock, "release", lambda _: None)
        without("finish.unlink")(patch)
        store.finish(claim, Event.COMPLETE)
    store.recover()
    yield from (f"running/{name} is left" for name in os.listdir(store.layout.running))
    assert lock is not None
    lock.release()


def left_behind(ground: Path) -> Iterator[str]:
    """Let an owner die whose tool lives on: nothing of it may when the task waits again."""
    store = TaskStore(ground / "mei", durability="process")
    task = store.submit("tool")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True) as tool:
        owner = os.fork()
        if owner == 0:
            store.publish_view(own(store, task.id), session=tool.pid)
            os._exit(0)
        os.waitpid(owner, 0)
        store.recover(lambda _: True)
        if tool.poll() is None:
            yield "the tool lives"


def looked_at(ground: Path) -> Iterator[str]:
    """Look at a task that runs, and at one that is not due: nobody is woken."""
    store = TaskStore(ground / "mei", durability="process")
    later = store.submit("tool", not_before=utc_now() + timedelta(hours=1))
    own(store, store.submit("tool").id)
    watch = store.watch()
    store.recover()
    store.claim(later.id, due_by=utc_now())
    yield from watch.wait(0).ids
    watch.close()


def overflowed(ground: Path) -> Iterator[str]:
    """Change more than the kernel keeps events of: who watches has to know that there was more."""
    store = TaskStore(ground / "mei", durability="process")
    watch = store.watch()
    path = Path(store.layout.pending, "name")
    path.touch()
    for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 1):
        path = path.rename(path.with_name(f"name-{number % 2}"))
    if not watch.wait(0).incomplete:
        yield "nobody knows of it"
    watch.close()


BY_HAND: Final = (written_to, pruned_unread, requeued_half_way, ended_and_held, left_behind, looked_at, overflowed)

# A bug by the step that it leaves out, or turns round, and by the question that it does not ask; and what catches it.
CAUGHT: Final[dict[str, tuple[bugs.Mutant, Check]]] = {
    "submit.write left out": (without("submit.write"), cut("submit")),
    "submit.sync left out": (without("submit.sync"), cut("submit")),
    "submit.sync-keys left out": (without("submit.sync-keys"), cut("keyed submit")),
    "submit.link-key after submit.link": (later("submit.link-key", "submit.link"), raced("keyed submits")),
    "taken.sync left out": (without("taken.sync"), cut("keyed submit beside another")),
    "claim.sync left out": (without("claim.sync"), cut(RUN)),
    "claim.link before the lock": (bugs.linked_before_locked, raced("claim, recover")),
    "finish.write left out": (without("finish.write"), cut(RUN)),
    "finish.sync left out": (without("finish.sync"), cut(RUN)),
    "finish.sync after finish.unlink": (later("finish.sync", "finish.unlink"), cut(RUN)),
    "finish.unlink before finish.write": (bugs.running_dropped_before_the_outcome_is_stored, killed(RUN)),
    "finish.unlink before notify.sync": (bugs.running_dropped_before_the_notification_is_durable, cut(RUN)),
    "finish.unlink-cancel left out": (bugs.a_request_outlives_its_task, killed("cancel, running")),
    "finish.unlink left out": (without("finish.unlink"), killed(RUN)),
    "notify.write left out": (without("notify.write"), cut(RUN)),
    "notify.sync left out": (without("notify.sync"), cut(RUN)),
    "notify before finish": (bugs.notified_before_the_outcome_is_stored, killed(RUN)),
    "requeue.write left out": (without("requeue.write"), cut(RETRY)),
    "requeue.sync left out": (without("requeue.sync"), cut(RETRY)),
    "requeue.unlink before requeue.write": (bugs.running_dropped_before_it_waits_again, killed(RETRY)),
    "requeue without a higher number": (bugs.a_requeued_record_has_no_higher_number, requeued_half_way),
    "acknowledge.sync left out": (without("acknowledge.sync"), cut("drain")),
    "acknowledge.unlink before acknowledge.link": (bugs.a_drain_unlinks_before_it_links, killed("drain")),
    "recover.sync-done left out": (without("recover.sync-done"), cut("recover what is not durable")),
    "recover.sync-pending left out": (without("recover.sync-pending"), cut("recover what is not durably requeued")),
    "recover.sync once for all": (bugs.recovery_syncs_once_for_all, cut("recover beside an owner that dies")),
    "reject.sync left out": (without("reject.sync", "quarantine.sync"), cut("quarantine")),
    "explain.sync left out": (without("explain.sync"), cut("quarantine")),
    "prune.sync left out": (without("prune.sync"), cut("claim to prune")),
    "prune.sync-done left out": (without("prune.sync-done"), cut("prune")),
    "key.unlink after prune.unlink": (later("key.unlink", "prune.sync-done"), killed("prune, its key again")),
    "begin.write left out": (without("begin.write"), cut("begin, finish")),
    "begin.sync left out": (without("begin.sync"), cut("begin, finish")),
    "a file is renamed instead of linked": (bugs.renamed_instead_of_linked, cut(RUN)),
    "a record is written where others read it": (bugs.written_where_others_read_it, killed(RUN)),
    "an outcome replaces an earlier one": (bugs.an_outcome_replaces_an_earlier_one, refused("finish, refused, finish")),
    "claimed without a lock": (bugs.claimed_without_a_lock, raced("claim, while another looks")),
    "recovered without a lock": (bugs.recovered_without_a_lock, raced("claim, while another looks")),
    "another file is linked than locked": (
        bugs.another_file_is_linked_than_locked,
        raced("claim, while another looks, a plain write"),
    ),
    "what was written to is not read again": (
        bugs.what_was_written_to_meanwhile_is_not_read_again,
        written_to,
    ),
    "an outcome is not looked for": (bugs.a_claim_does_not_look_for_an_outcome, killed("claim what has ended")),
    "two may drain at once": (bugs.two_may_drain_at_once, raced("two drains")),
    "what is half acknowledged is shown again": (
        bugs.a_notification_that_is_half_acknowledged_is_shown_again,
        cut("drain"),
    ),
    "keys are entered without their lock": (bugs.keys_are_entered_without_their_lock, raced("keyed submit, sweep")),
    "keys are dropped without their lock": (
        bugs.keys_are_dropped_without_their_lock,
        raced("keyed submits after one that died"),
    ),
    "a key is dropped without a look": (
        bugs.a_key_is_dropped_without_a_look_for_its_task,
        raced("keyed submit, sweep"),
    ),
    "keys are not swept": (bugs.keys_are_not_swept, killed("keyed submit")),
    "pending says that it never began": (
        bugs.every_pending_record_says_that_its_task_never_began,
        killed("recover beside a plain write"),
    ),
    "what has ended and is held is left": (
        bugs.what_is_decided_and_held_is_left_alone,
        ended_and_held,
    ),
    "a prune forgets what nobody has read": (
        bugs.a_waiting_notification_does_not_stand_against_a_prune,
        pruned_unread,
    ),
    "what is left of a session lives on": (bugs.what_is_left_of_a_session_lives_on, left_behind),
    "a probe opens for writing": (bugs.a_probe_opens_for_writing, looked_at),
    "what is not due is opened for writing": (bugs.a_task_that_is_not_due_is_opened_for_writing, looked_at),
    "a watch that overflowed is ignored": (bugs.a_watch_that_overflowed_is_ignored, overflowed),
}


@pytest.mark.parametrize(("mutant", "check"), CAUGHT.values(), ids=CAUGHT)
def test_a_deliberate_bug_is_caught(
    ground: Path, monkeypatch: pytest.MonkeyPatch, mutant: bugs.Mutant, check: Check
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    mutant(monkeypatch)
    assert next(check(ground), None) is not None
    count("deliberate bugs, each caught")


@pytest.mark.parametrize("check", BY_HAND)
def test_a_check_made_by_hand_finds_nothing_where_there_is_no_bug(ground: Path, check: Check) -> None:
    assert [] == list(check(ground))
