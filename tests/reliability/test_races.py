"""Two at once, interrupted wherever the other could notice it: every task one outcome, one notice, one run."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import pytest

from animaworks_tasks import TaskStore, run_task
from tests.conftest import die, own
from tests.reliability.counts import FULL, count
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
class Two:
    """Two operations, each on a store of its own, and what was done before."""

    one: Operation
    other: Operation
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


def _flaky(store: TaskStore, say: Say) -> None:
    submit(store, say, FLAKY, "flaky")


def _keyed(store: TaskStore, say: Say) -> None:
    say("submitted", store.submit("tool", "once", key="key").id)


def _run_all(store: TaskStore, say: Say) -> None:
    for task_id in sorted(store.pending_ids()):
        run(store, say, task_id)


def _recover_and_run(store: TaskStore, say: Say) -> None:
    recover(store, say)
    _run_all(store, say)


def _sweep(store: TaskStore, _: Say) -> None:
    store.sweep()


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
    "two claims": Two(run, run, _submitted),
    "claim, recover": Two(run, recover, _submitted),
    "two recovers": Two(recover, recover, _orphaned),
    "two recovers, one more run": Two(_recover_and_run, _recover_and_run, _safe_orphaned),
    "recover, drain": Two(recover, drain, _orphaned),
    "finish, drain": Two(run, drain, _submitted),
    "two drains": Two(drain, drain, _ended),
    "cancel, finish": Two(run, _cancel, _submitted),
    "cancel, retry": Two(_fail, _cancel, _flaky),
    "two cancels": Two(_cancel, _cancel, _submitted),
    "keyed submits": Two(_keyed, _keyed, _nothing),
    "keyed submit, run": Two(_keyed, _run_all, _keyed),
    "prune, drain": Two(_prune, drain, _ended),
    "prune, recover": Two(_prune, recover, _ended),
    "sweep, claim": Two(_sweep, run, _submitted),
    "sweep, recover": Two(_sweep, recover, _orphaned),
}


def race(anima: Path, two: Two) -> Race:
    """Set the stage for one schedule of *two*."""
    shutil.rmtree(anima, ignore_errors=True)
    said: list[str] = []

    def say(*parts: object) -> None:
        said.append(words(*parts))

    def store() -> TaskStore:
        return TaskStore(anima, durability="process")

    two.before(store(), say)
    mine, theirs = store(), store()

    def judge(killed: bool) -> list[str]:  # noqa: FBT001 - as the protocol has it
        rest(store(), say)
        found = problems(anima, said, runs=allowed)
        shown = Counter(line for line in said if line.startswith("shown"))
        return found + [f"TWICE {line}" for line, n in shown.items() if n > 1 and not killed]

    return Race([lambda: two.one(mine, say), lambda: two.other(theirs, say)], judge)


def explored(ground: Path, two: Two, *, preemptions: int, kills: int, limit: int, until_bad: bool = False) -> Found:
    """Explore in a child, which is where the tap stays."""

    def body(_: Say) -> tuple[int, bool, tuple[str, ...]]:
        TaskStore._check_locks = lambda _: None  # type: ignore[method-assign]  # no part of what is raced
        found = explore(
            ground,
            lambda: race(ground / "mei", two),
            preemptions=preemptions,
            kills=kills,
            limit=limit,
            until_bad=until_bad,
        )
        return found.schedules, found.complete, found.bad[:5]

    end = forked(body)
    assert end.error is None, end.error
    return Found(*end.result)


@pytest.mark.parametrize("two", RACES.values(), ids=RACES)
def test_two_at_once_get_nothing_wrong(ground: Path, two: Two) -> None:
    found = explored(ground, two, preemptions=2, kills=0, limit=4000 if FULL else 40)
    count("schedules of two operations, interrupted at most twice", found.schedules)
    assert () == found.bad
    assert found.complete or not FULL


@pytest.mark.parametrize("two", RACES.values(), ids=RACES)
def test_two_at_once_get_nothing_wrong_if_one_is_killed(ground: Path, two: Two) -> None:
    found = explored(ground, two, preemptions=2, kills=1, limit=1200 if FULL else 20)
    count("schedules of two operations, interrupted at most twice, one killed", found.schedules)
    assert () == found.bad
