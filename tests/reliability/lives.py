"""
What a process does in these tests, and what another one does after it.

A *life* is led by a process that may die at any of its calls; a *rest* brings everything to its end, as any host does.
Whatever a life is built on was done *before*, by processes that were not disturbed, or that died, and really.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from unittest import mock

import attrs

from animaworks_tasks import Cause, Registry, State, Task, TaskStore, ToolContext, run_task
from animaworks_tasks.fs import files
from animaworks_tasks.store.records import DirectoryRecords
from animaworks_tasks.store.recovery import RIPE_AFTER
from animaworks_tasks.task import codec
from animaworks_tasks.task.pending import new_id
from animaworks_tasks.task.states import Event, advance
from animaworks_tasks.worker.runner import may_run_again
from tests.conftest import die, own

Say = Callable[..., object]

ONE, TWO, SAFE, FLAKY = "0000000000a1", "0000000000a2", "0000000000b1", "0000000000c1"
KEYED: Final = new_id("key")
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


def submit(store: TaskStore, say: Say, task_id: str = ONE, subcommand: str = "once") -> None:
    """Submit under an id that is known beforehand, so that one life is like the other."""
    with mock.patch("animaworks_tasks.store.protocol.new_id", return_value=task_id):
        task = store.submit("tool", subcommand)
    say("submitted", task.id)


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
    for task in store.recover(may_run_again(tools or registry(say))).settled:
        assert task.outcome is not None
        say("finished", task.id, task.outcome.value)
    store.sweep()


def rest(store: TaskStore, say: Say) -> None:
    """Bring everything to its end."""
    for name in os.listdir(store.layout.pending):  # whoever was writing a file has had his time
        ripen(Path(store.layout.pending, name))
    tools = registry(say)
    recover(store, say, tools)
    for _ in range(10):
        for task_id in sorted(store.pending_ids()):
            run(store, say, task_id, tools)
    drain(store, say)


def ripen(path: Path) -> None:
    """Make a file so old that nobody can still be writing it."""
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
    """

    name: str
    lead: Callable[[TaskStore, Say], None]
    before: Callable[[TaskStore, Say], None] = lambda _store, _say: None
    from_nothing: bool = False


def _submitted(store: TaskStore, say: Say) -> None:
    submit(store, say)


def _keyed(store: TaskStore, say: Say) -> None:
    for _ in range(2):
        say("submitted", store.submit("tool", "once", key="key").id)


def _keyed_beside_another(store: TaskStore, say: Say) -> None:
    """Of two submits of a key the first has not made its record durable yet, and the second is acknowledged."""
    with mock.patch.object(files, "sync_directory"):
        store.submit("tool", "once", key="key")
    say("submitted", store.submit("tool", "once", key="key").id)


def _keyed_and_read(store: TaskStore, say: Say) -> None:
    say("submitted", store.submit("tool", "once", key="key").id)
    say("finished", store.request_cancel(KEYED).id, "cancelled")
    drain(store, say)


def _key_again(store: TaskStore, say: Say) -> None:
    """Prune a task, and use its key again."""
    _prune(store, say)
    _submit_again(store, say)
    run(store, say, KEYED)
    drain(store, say)


def _key_again_beside_a_prune(store: TaskStore, say: Say) -> None:
    """The same while the prune is between the unlinking in done/ and its fsync, or has died there."""
    sync = files.sync_directory
    with (
        mock.patch.object(files, "sync_directory", lambda path: None if path == store.layout.done else sync(path)),
        mock.patch.object(DirectoryRecords, "forget_traces"),
    ):
        _prune(store, say)
    _submit_again(store, say)


def _submit_again(store: TaskStore, say: Say) -> None:
    say("submitting", KEYED, time.time())
    if store.submit("tool", "once", key="key").state is not State.DONE:  # or else there was nothing to prune
        say("submitted", KEYED)


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
    os.link(os.path.join(store.layout.pending, f"{TWO}.json"), os.path.join(store.layout.running, f"{TWO}.json"))


def _not_durable(store: TaskStore, say: Say) -> None:
    """Die as soon as the outcome is in its place, and before it is durable there."""
    submit(store, say)
    claim = own(store, ONE)
    say("ran", ONE, 1)
    done = advance(claim.task, Event.COMPLETE, finished_at=claim.task.submitted_at, result="worked")
    with mock.patch.object(files, "sync_directory"):
        files.publish(store.layout.done, f"{ONE}.json", codec.encode(done), tmp=store.layout.tmp, sync=True)
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
                with mock.patch.object(files, "sync_directory"):
                    store._records.settle(done)
            finally:
                die(claim)
        return True

    for task in store.recover(answer).settled:
        assert task.outcome is not None
        say("finished", task.id, task.outcome.value)


def _bad(store: TaskStore, _: Say) -> None:
    for name in (f"{ONE}.json", "what is this.json"):
        path = Path(store.layout.pending, name)
        files.append(str(path), b'{"task_id": ')
        ripen(path)


def _reject(store: TaskStore, say: Say) -> None:
    store.claim(ONE)
    recover(store, say)


def _prune(store: TaskStore, say: Say) -> None:
    say("pruning")
    store.prune(finished_before=LATER)


def _to_the_end(store: TaskStore, say: Say) -> None:
    """All of a life in one process, so that nothing of it is durable but by what it does itself."""
    run(store, say)
    drain(store, say)
    _prune(store, say)


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
    Life("submit many", _many),
    Life("claim, run, finish, notify", run, _submitted),
    Life("fail, retry, finish", _run_twice, _flaky),
    Life("finish, refused, finish", _finish_in_two_ways, _submitted),
    Life("drain", drain, _ended),
    Life("cancel, pending", _cancel, _submitted),
    Life("cancel, running", _cancel_running, _submitted),
    Life("recover", recover, _orphaned),
    Life("recover what is not durable", recover, _not_durable),
    Life("recover beside an owner that dies", _recover_beside, _two_owned),
    Life("quarantine", _reject, _bad),
    Life("prune", _prune, _read),
    Life("claim to prune", _to_the_end, _submitted),
    Life("prune, its key again", _key_again, _keyed_and_read),
    Life("its key again beside a prune", _key_again_beside_a_prune, _keyed_and_read),
)
