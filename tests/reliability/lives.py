"""
What a process does in these tests, and what another one does after it.

A *life* is led by a process that may die at any of its calls; a *rest* brings everything to its end, as any host does.
Whatever a life is built on was done *before*, by processes that were not disturbed, or that died, and really.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest import mock

import attrs

from animaworks_tasks import Cause, Registry, Task, TaskStore, ToolContext, run_task
from animaworks_tasks.fs import files, locks
from animaworks_tasks.fs.disk import Disk
from animaworks_tasks.store import transitions
from animaworks_tasks.store.rejection import RIPE_AFTER
from animaworks_tasks.store.rules import new_task, utc_now
from animaworks_tasks.task.states import Event, advance
from animaworks_tasks.worker.runner import may_run_again
from tests.conftest import die, own

Say = Callable[..., object]

ONE, TWO, SAFE, FLAKY = "0000000000a1", "0000000000a2", "0000000000b1", "0000000000c1"
KEYED, AGAIN, THIRD = "0000000000d1", "0000000000d2", "0000000000d3"
LATER: Final = datetime(2100, 1, 1, tzinfo=UTC)


def allowed(task_id: str) -> int:
    """Say how often the tool of a task may begin: those of SAFE and FLAKY say that it is safe to run again."""
    return {SAFE: 4, FLAKY: 4}.get(task_id, 1)


def registry(say: Say) -> Registry:
    """Return tools that say when they begin, and speak for a while."""
    tools = Registry()

    def work(context: ToolContext) -> str:
        say("ran", context.task_id, context.attempt)
        print("working")
        context.progress(0.5, "half")
        context.raise_if_cancelled()
        say("left", context.task_id, context.attempt)
        return "worked"

    def fail_at_first(context: ToolContext) -> str:
        say("ran", context.task_id, context.attempt)
        if context.attempt == 1:
            raise ConnectionError("not today")
        return "worked"

    tools.add("tool", "once", work)
    tools.add("tool", "safe", work, on_interrupt="retry")
    tools.add("tool", "flaky", fail_at_first, retries=1, on_interrupt="retry")
    return tools


def submit(store: TaskStore, say: Say, task_id: str = ONE, subcommand: str = "once", key: str | None = None) -> None:
    """Submit under an id that is known beforehand, so that one life is like the other."""
    with mock.patch("animaworks_tasks.store.rules.new_id", return_value=task_id):
        task = store.submit("tool", subcommand, key=key)
    say("submitted", task.id, *([] if key is None else [key]))


def run(store: TaskStore, say: Say, task_id: str = ONE, tools: Registry | None = None) -> None:
    """Run a task as a worker does."""
    task = run_task(store, tools or registry(say), task_id)
    if task is not None and task.outcome is not None:
        say("finished", task.id, task.outcome.value)


def drain(store: TaskStore, say: Say) -> None:
    """Show the agent what waits."""
    with store.notifications.drain() as drained:
        for notification in drained.notifications:
            say("shown", notification.task_id or notification.name)
    for notification in drained.notifications:
        say("acknowledged", notification.task_id or notification.name)


def recover(store: TaskStore, say: Say, tools: Registry | None = None) -> None:
    """Settle what dead processes left, as any host does at its start and on every scan."""
    for task in store.recover(may_run_again(tools or registry(say))).finished:
        assert task.outcome is not None
        say("finished", task.id, task.outcome.value)
    store.sweep()


def rest(store: TaskStore, say: Say) -> None:
    """Bring everything to its end."""
    for name in os.listdir(store.layout.pending):  # a writer of a file has had its time
        ripen(Path(store.layout.pending, name))
    tools = registry(say)
    recover(store, say, tools)
    for _ in range(10):
        for task_id in sorted(store.pending_ids()):
            run(store, say, task_id, tools)
    drain(store, say)


def ripen(path: Path) -> None:
    """Make a file so old, unless it is, that nobody can still be writing it."""
    if files.age(str(path)) < RIPE_AFTER:
        then = time.time() - RIPE_AFTER - 60
        os.utime(path, (then, then), follow_symlinks=False)


@attrs.frozen
class Life:
    """
    Something a process does; see the module.

    Attributes:
        name: As in the id of a test.
        lead: What it does.
        before: What others did before.
        from_nothing: It makes the store as well.
        foreign: A program that knows nothing of us writes to records in place: what is durable of that is its concern.
    """

    name: str
    lead: Callable[[TaskStore, Say], None]
    before: Callable[[TaskStore, Say], None] = lambda _store, _say: None
    from_nothing: bool = False
    foreign: bool = False


def _submitted(store: TaskStore, say: Say) -> None:
    submit(store, say)


def _keyed(store: TaskStore, say: Say) -> None:
    for task_id in (KEYED, AGAIN):
        submit(store, say, task_id, key="key")


def _keyed_once(store: TaskStore, say: Say) -> None:
    submit(store, say, KEYED, key="key")


def _keyed_beside_another(store: TaskStore, say: Say) -> None:
    """Of two submits of a key the first has not made its record durable yet, and the second is acknowledged."""
    with _without_sync("submit.sync"):
        submit(store, lambda *_: None, KEYED, key="key")
    submit(store, say, AGAIN, key="key")


def _without_sync(*steps: str) -> AbstractContextManager[object]:
    """Die, or wait, just before an fsync of a directory: leave out these *steps*."""
    real = Disk.sync

    def sync(disk: Disk, step: str, *directories: str) -> None:
        if step not in steps:
            real(disk, step, *directories)

    return mock.patch.object(Disk, "sync", sync)


def keyed_half_way(store: TaskStore, say: Say) -> None:
    """Die between the two links of a keyed submit."""
    del say
    with mock.patch("animaworks_tasks.store.keys.appear", side_effect=InterruptedError), suppress(InterruptedError):
        submit(store, lambda *_: None, KEYED, key="key")


def _keyed_during_a_finish(store: TaskStore, say: Say) -> None:
    """Submit a key while the task that has it ends, and once more after it."""
    claim = own(store, KEYED)
    say("ran", KEYED, 1)
    real = transitions.notify

    def notify(*arguments: Any) -> None:  # noqa: ANN401 - as they are
        submit(store, say, AGAIN, key="key")
        real(*arguments)

    with mock.patch.object(transitions, "notify", notify):
        store.finish(claim, Event.COMPLETE, result="worked")
    say("finished", KEYED, "completed")
    submit(store, say, THIRD, key="key")


def _keyed_and_read(store: TaskStore, say: Say) -> None:
    submit(store, say, KEYED, key="key")
    say("finished", store.request_cancel(KEYED).id, "cancelled")
    drain(store, say)


def _key_again(store: TaskStore, say: Say) -> None:
    """Prune a task, and use its key again."""
    prune(store, say)
    submit(store, say, AGAIN, key="key")
    run(store, say, AGAIN)
    drain(store, say)


def _key_again_beside_a_prune(store: TaskStore, say: Say) -> None:
    """The same while the prune is between the key and its record, or has died there."""
    real = Disk.unlink

    def unlink(disk: Disk, step: str, path: str) -> bool:
        if step == "prune.unlink":
            submit(store, say, AGAIN, key="key")
        return real(disk, step, path)

    with mock.patch.object(Disk, "unlink", unlink):
        prune(store, say)
    submit(store, say, THIRD, key="key")


def _many(store: TaskStore, say: Say) -> None:
    for task in store.submit_many("tool", 3 * [["once"]]):
        say("submitted", task.id)


def _ended(store: TaskStore, say: Say) -> None:
    submit(store, say)
    run(store, say)


def _read(store: TaskStore, say: Say) -> None:
    _ended(store, say)
    store.workspace(ONE).keep_result(b"x")
    drain(store, say)


def _flaky(store: TaskStore, say: Say) -> None:
    submit(store, say, FLAKY, "flaky")


def _run_twice(store: TaskStore, say: Say) -> None:
    run(store, say, FLAKY)
    run(store, say, FLAKY)


def _finish_in_two_ways(store: TaskStore, say: Say) -> None:
    """What reached the disk stands, whatever the owner thinks of it afterwards."""
    claim = own(store, ONE)
    try:
        task = store.finish(claim, Event.COMPLETE, result="the first")
    except OSError:
        task = store.finish(claim, Event.FAIL, cause=Cause.TOOL, error="the second")
    assert task.outcome is not None
    say("finished", task.id, task.outcome.value)


def _cancel(store: TaskStore, say: Say) -> None:
    task = store.request_cancel(ONE)
    if task.outcome is not None:
        say("finished", task.id, task.outcome.value)


def _cancel_running(store: TaskStore, say: Say) -> None:
    tools = Registry()

    def work(context: ToolContext) -> None:
        say("ran", context.task_id, context.attempt)
        store.request_cancel(context.task_id)
        context.raise_if_cancelled()

    tools.add("tool", "once", work)
    task = run_task(store, tools, ONE)
    if task is not None and task.outcome is not None:
        say("finished", task.id, task.outcome.value)


def _orphaned(store: TaskStore, say: Say) -> None:
    """Two whose tool had begun, one of which may run again, and one whose owner died while claiming it."""
    submit(store, say)
    submit(store, say, SAFE, "safe")
    for task_id in (ONE, SAFE):
        claim = own(store, task_id)
        say("ran", task_id, 1)
        die(claim)
    submit(store, say, TWO)
    os.link(store.layout.pending_record(TWO), store.layout.running_record(TWO))


def _not_durable(store: TaskStore, say: Say) -> None:
    """Die as soon as the outcome is in its place, and before it is durable there."""
    submit(store, say)
    claim = own(store, ONE)
    say("ran", ONE, 1)
    _outcome_in_its_place(store, advance(claim.task, Event.COMPLETE, finished_at=LATER, result="worked"))
    die(claim)


def _outcome_in_its_place(store: TaskStore, done: Task) -> None:
    with mock.patch.object(Disk, "sync"), mock.patch.object(transitions, "notify"):
        transitions.commit(store.place, done)


def _not_notified(store: TaskStore, say: Say) -> None:
    """Die as soon as the notification is in its place, and before it is durable there."""
    submit(store, say)
    claim = own(store, ONE)
    say("ran", ONE, 1)
    with _without_sync("notify.sync"):
        transitions.commit(store.place, advance(claim.task, Event.COMPLETE, finished_at=LATER, result="worked"))
    die(claim)


def _requeued_not_durable(store: TaskStore, say: Say) -> None:
    """Die as soon as a requeued record is in its place, and before it is durable there."""
    _flaky(store, say)
    claim = own(store, FLAKY)
    say("ran", FLAKY, 1)
    with mock.patch.object(Disk, "sync"), mock.patch.object(Disk, "unlink"):
        store.requeue(claim)


def _ended_but_named(store: TaskStore, say: Say) -> None:
    """Leave the names of a task that has ended, whose record is held by what it had started."""
    submit(store, say)
    claim = own(store, ONE)
    say("ran", ONE, 1)
    with mock.patch.object(transitions, "drop"), mock.patch.object(locks.Lock, "release"):
        store.finish(claim, Event.COMPLETE, result="worked")
    say("finished", ONE, "completed")


def _orphan_and_a_plain_write(store: TaskStore, say: Say) -> None:
    """Let a program that knows nothing of us write a record again, whose tool has begun, and its owner die."""
    submit(store, say)
    data = Path(store.layout.pending_record(ONE)).read_bytes()
    claim = own(store, ONE)
    say("ran", ONE, 1)
    files.write(store.layout.pending_record(ONE), data, sync=True)
    die(claim)


def _two_owned(store: TaskStore, say: Say) -> None:
    submit(store, say, SAFE, "safe")
    claim = own(store, SAFE)
    say("ran", SAFE, 1)
    die(claim)
    submit(store, say, FLAKY, "flaky")


def _recover_beside(store: TaskStore, say: Say) -> None:
    """While one orphan is looked at, the owner of the next dies as soon as its outcome is in its place."""
    claim = own(store, FLAKY)
    say("ran", FLAKY, 1)
    done = advance(claim.task, Event.COMPLETE, finished_at=claim.task.submitted_at, result="worked")

    def answer(task: Task) -> bool:
        if task.id == SAFE and claim.lock is not None:
            try:
                with mock.patch.object(Disk, "sync"):
                    transitions.commit(store.place, done)
            finally:
                die(claim)
        return True

    for task in store.recover(answer).finished:
        assert task.outcome is not None
        say("finished", task.id, task.outcome.value)


def _replaced(store: TaskStore, say: Say) -> None:
    """Claim a task whose record a plain writer replaces between its opening and the link, and again while it runs."""
    real, path = Disk.link_held, Path(store.layout.pending_record(ONE))

    def link_held(disk: Disk, step: str, lock: locks.Lock, target: str) -> bool:
        if step == "claim.link":
            write_anew(path)
        linked = real(disk, step, lock, target)
        if step == "claim.link":
            write_anew(path)
        return linked

    with mock.patch.object(Disk, "link_held", link_held):
        run(store, say)
    run(store, say)


def write_anew(path: Path) -> None:
    """Write a record again, as a program does that knows nothing of us: to another file, which takes its name."""
    other = str(path.parent.with_name("tmp") / f"other.{path.name}")
    fd = os.open(other, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, path.read_bytes())
    os.fsync(fd)
    os.close(fd)
    os.rename(other, str(path))


def _written_in_place(store: TaskStore, say: Say) -> None:
    """Claim a task whose record a plain writer rewrites in place meanwhile."""
    real, path = Disk.sync, Path(store.layout.running_record(ONE))

    def sync(disk: Disk, step: str, *directories: str) -> None:
        if step == "claim.sync":
            fd = os.open(str(path), os.O_WRONLY | os.O_APPEND)
            os.write(fd, b" ")
            os.fsync(fd)
            os.close(fd)
        real(disk, step, *directories)

    with mock.patch.object(Disk, "sync", sync):
        run(store, say)
    run(store, say)


def _come_back(store: TaskStore, say: Say) -> None:
    """Let the record of a task that has ended wait once more, as after a power cut."""
    submit(store, say)
    data = Path(store.layout.pending_record(ONE)).read_bytes()
    run(store, say)
    files.write(store.layout.pending_record(ONE), data, sync=True)


def _begin(store: TaskStore, say: Say) -> None:
    """Make a call of the host's own."""
    with mock.patch("animaworks_tasks.store.rules.new_id", return_value=ONE):
        task = new_task("tool", ("once",), {}, anima_dir=store.location, at=utc_now())
    claim = store.begin(task)
    say("submitted", ONE)
    say("ran", ONE, 1)
    store.finish(claim, Event.COMPLETE, result="worked")
    say("finished", ONE, "completed")


def _bad(store: TaskStore, _: Say) -> None:
    for name in (f"{ONE}.json", "what is this.json"):
        path = Path(store.layout.pending, name)
        files.append(str(path), b'{"task_id": ')
        ripen(path)


def _reject(store: TaskStore, say: Say) -> None:
    store.claim(ONE)
    recover(store, say)


def prune(store: TaskStore, say: Say) -> None:
    say("pruning")
    for task_id in store.prune(finished_before=LATER):
        say("pruned", task_id)


def _to_the_end(store: TaskStore, say: Say) -> None:
    """All of a life in one process, so that nothing of it is durable but by what it does itself."""
    run(store, say)
    drain(store, say)
    prune(store, say)


def _everything(store: TaskStore, say: Say) -> None:
    """One of most things, in one process from its start."""
    submit(store, say)
    run(store, say)
    _keyed(store, say)
    submit(store, say, TWO)
    store.request_cancel(TWO)
    drain(store, say)
    submit(store, say, SAFE, "safe")
    die(own(store, SAFE))
    recover(store, say)
    for task_id in sorted(store.pending_ids()):
        run(store, say, task_id)
    drain(store, say)


EVERYTHING: Final = Life("everything", _everything, from_nothing=True)

LIVES: Final[Sequence[Life]] = (
    Life("submit", _submitted, from_nothing=True),
    Life("keyed submit", _keyed),
    Life("keyed submit beside another", _keyed_beside_another),
    Life("keyed submit after one that died", _keyed, keyed_half_way),
    Life("keyed submit during a finish", _keyed_during_a_finish, _keyed_once),
    Life("submit many", _many),
    Life("claim, run, finish, notify", run, _submitted),
    Life("claim what is replaced", _replaced, _submitted),
    Life("claim what is written to", _written_in_place, _submitted, foreign=True),
    Life("claim what has ended", run, _come_back),
    Life("begin, finish", _begin),
    Life("fail, retry, finish", _run_twice, _flaky),
    Life("finish, refused, finish", _finish_in_two_ways, _submitted),
    Life("drain", drain, _ended),
    Life("cancel, pending", _cancel, _submitted),
    Life("cancel, running", _cancel_running, _submitted),
    Life("recover", recover, _orphaned),
    Life("recover what is not durable", recover, _not_durable),
    Life("recover what is not durably notified", recover, _not_notified),
    Life("recover what is not durably requeued", recover, _requeued_not_durable),
    Life("recover what has ended and is held", recover, _ended_but_named),
    Life("recover beside a plain write", recover, _orphan_and_a_plain_write),
    Life("recover beside an owner that dies", _recover_beside, _two_owned),
    Life("quarantine", _reject, _bad),
    Life("prune", prune, _read),
    Life("prune what nobody has read", prune, _ended),
    Life("claim to prune", _to_the_end, _submitted),
    Life("prune, its key again", _key_again, _keyed_and_read),
    Life("its key again beside a prune", _key_again_beside_a_prune, _keyed_and_read),
)
