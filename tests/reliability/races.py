"""What is raced against what, and how a race is judged."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from animaworks_tasks import Registry, TaskStore, ToolContext, run_task
from animaworks_tasks.fs import files
from animaworks_tasks.store.enqueue import place
from animaworks_tasks.store.protocol import new_task, utc_now
from animaworks_tasks.task import codec
from animaworks_tasks.task.states import Event, advance
from tests.conftest import die, own
from tests.reliability.invariants import problems, words
from tests.reliability.lives import (
    FLAKY,
    LATER,
    ONE,
    SAFE,
    Say,
    allowed,
    drain,
    recover,
    registry,
    rest,
    run,
    submit,
)
from tests.reliability.schedules import Found, Race, explore
from tests.reliability.taps import forked

Operation = Callable[[TaskStore, Say], object]


@attrs.frozen
class Several:
    """
    Operations that run at once, each on a store of its own.

    Attributes:
        operations: They.
        before: What was done before.
    """

    operations: Sequence[Operation]
    before: Operation


def _submitted(store: TaskStore, say: Say) -> None:
    submit(store, say)


def _nothing(_store: TaskStore, _say: Say) -> None:
    pass


def _orphaned(store: TaskStore, say: Say, task_id: str = ONE, subcommand: str = "once") -> None:
    submit(store, say, task_id, subcommand)
    claim = own(store, task_id)
    say("ran", task_id, 1)
    die(claim)


def _safe_orphaned(store: TaskStore, say: Say) -> None:
    _orphaned(store, say, SAFE, "safe")


def _ended(store: TaskStore, say: Say) -> None:
    submit(store, say)
    run(store, say)


def _told(store: TaskStore, say: Say) -> None:
    """Die between the notice and the end of a finish."""
    submit(store, say)
    claim = own(store, ONE)
    say("ran", ONE, 1)
    store._records.settle(advance(claim.task, Event.COMPLETE, finished_at=claim.task.submitted_at, result="worked"))
    die(claim)


def _flaky(store: TaskStore, say: Say) -> None:
    submit(store, say, FLAKY, "flaky")


def _littered(store: TaskStore, say: Say) -> None:
    """Leave the lock file of a process that died before it could claim the task."""
    submit(store, say)
    files.touch(store.layout.lock(ONE))


def _keyed(store: TaskStore, say: Say) -> None:
    say("submitted", store.submit("tool", "once", key="key").id)


def _keyed_orphaned(store: TaskStore, say: Say) -> None:
    """One that was submitted twice, between which it began to run; then its owner died."""
    _keyed(store, say)
    [task_id] = store.pending_ids()
    die(own(store, task_id))
    say("ran", task_id, 1)


def _keyed_late(store: TaskStore, say: Say) -> None:
    """Submit under a key that was looked up before the task began."""
    task = new_task("tool", ("once",), {"key": "key"}, anima_dir=store.location, at=utc_now())
    place(store.layout, task.id, codec.encode(task), sync=False)
    say("submitted", task.id)


def _run_all(store: TaskStore, say: Say) -> None:
    for task_id in sorted(store.pending_ids()):
        run(store, say, task_id)


def _recover_and_run(store: TaskStore, say: Say) -> None:
    recover(store, say)
    _run_all(store, say)


def _sweep(store: TaskStore, _: Say) -> None:
    store.sweep()


def _let_go(store: TaskStore, _: Say) -> None:
    """Take a lock that is left over, and let go of it: all that a sweep does with one."""
    with store._records.holding(ONE):
        pass


def _run_watched(store: TaskStore, say: Say) -> None:
    """Run a task whose tool runs just while another host looks for orphans, not for the first time."""
    other = TaskStore(store.location, durability="process")
    other._recovery._swept = True
    tools = Registry()

    def work(context: ToolContext) -> None:
        say("ran", context.task_id, context.attempt)
        recover(other, say)
        say("left", context.task_id, context.attempt)

    tools.add("tool", "once", work)
    run(store, say, ONE, tools)


def _cancel(store: TaskStore, say: Say) -> None:
    [task] = store.list()
    task = store.request_cancel(task.id)
    if task.outcome is not None:
        say("finished", task.id, task.outcome.value)


def _prune(store: TaskStore, say: Say) -> None:
    say("pruning")
    store.prune(finished_before=LATER)


def _fail(store: TaskStore, say: Say) -> None:
    run_task(store, registry(say), FLAKY)


RACES: Final = {
    "two claims": Several((run, run), _submitted),
    "claim, recover": Several((run, recover), _submitted),
    "stale lock, claim and recover": Several((_let_go, _run_watched), _littered),
    "two recovers": Several((recover, recover), _orphaned),
    "two recovers, one more run": Several((_recover_and_run, _recover_and_run), _safe_orphaned),
    "recover, drain": Several((recover, drain), _orphaned),
    "recover what was told, drain": Several((recover, drain), _told),
    "finish, drain": Several((run, drain), _submitted),
    "two drains": Several((drain, drain), _ended),
    "cancel, finish": Several((run, _cancel), _submitted),
    "cancel, retry": Several((_fail, _cancel), _flaky),
    "two cancels": Several((_cancel, _cancel), _submitted),
    "keyed submits": Several((_keyed, _keyed), _nothing),
    "keyed submit, run": Several((_keyed, _run_all), _keyed),
    "keyed submits, orphan": Several((_keyed_late, recover), _keyed_orphaned),
    "prune, drain": Several((_prune, drain), _ended),
    "prune, recover": Several((_prune, recover), _ended),
    "sweep, claim": Several((_sweep, run), _littered),
    "sweep, recover": Several((_sweep, recover), _orphaned),
}


def race(anima: Path, several: Several, alive: Say) -> Race:
    """Set the stage for one schedule of *several*."""
    shutil.rmtree(anima, ignore_errors=True)
    alive("#race")
    said: list[str] = []

    def say(*parts: object) -> None:
        said.append(words(*parts))

    def store() -> TaskStore:
        return TaskStore(anima, durability="process")

    several.before(store(), say)
    stores = [store() for _ in several.operations]

    def judge(killed: bool) -> list[str]:  # noqa: FBT001 - as the protocol has it
        rest(store(), say)
        found = problems(anima, said, runs=allowed)
        shown = Counter(line for line in said if line.startswith("shown"))
        return found + [f"TWICE {line}" for line, n in shown.items() if n > 1 and not killed]

    return Race(
        [lambda o=o, s=s: o(s, say) for o, s in zip(several.operations, stores, strict=True)],
        judge,
    )


def explored(
    ground: Path,
    several: Several,
    *,
    preemptions: int,
    kills: int,
    limit: int,
    until_bad: bool = False,
) -> Found:
    """Explore in a child, which is where the tap stays."""

    def body(say: Say) -> tuple[int, bool, tuple[str, ...]]:
        TaskStore._check_locks = lambda _: None  # type: ignore[method-assign]  # no part of what is raced
        found = explore(
            ground,
            lambda: race(ground / "mei", several, say),
            preemptions=preemptions,
            kills=kills,
            limit=limit,
            until_bad=until_bad,
        )
        return found.schedules, found.complete, found.bad[:5]

    end = forked(body)
    assert end.error is None, end.error
    return Found(*end.result)
