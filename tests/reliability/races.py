"""What is raced against what, and how a race is judged."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from animaworks_tasks import Cause, Registry, TaskStore, ToolContext, run_task
from animaworks_tasks.store import transitions
from animaworks_tasks.task.states import Event, advance
from tests.conftest import die, own
from tests.reliability.invariants import problems, words
from tests.reliability.lives import (
    AGAIN,
    FLAKY,
    KEYED,
    LATER,
    ONE,
    SAFE,
    THIRD,
    Say,
    allowed,
    drain,
    keyed_half_way,
    prune,
    recover,
    registry,
    rest,
    run,
    submit,
    write_anew,
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


def _notified(store: TaskStore, say: Say) -> None:
    """Die between the notification and the end of a finish."""
    submit(store, say)
    claim = own(store, ONE)
    say("ran", ONE, 1)
    transitions.commit(store.place, advance(claim.task, Event.COMPLETE, finished_at=LATER, result="worked"))
    die(claim)


def _flaky(store: TaskStore, say: Say) -> None:
    submit(store, say, FLAKY, "flaky")


def _keyed(task_id: str) -> Operation:
    return lambda store, say: submit(store, say, task_id, key="key")


def _keyed_and_read(store: TaskStore, say: Say) -> None:
    submit(store, say, KEYED, key="key")
    run(store, say, KEYED)
    drain(store, say)


def _keyed_flaky(store: TaskStore, say: Say) -> None:
    submit(store, say, FLAKY, "flaky", key="key")


def _run_all(store: TaskStore, say: Say) -> None:
    for task_id in sorted(store.pending_ids()):
        run(store, say, task_id)


def _recover_and_run(store: TaskStore, say: Say) -> None:
    recover(store, say)
    _run_all(store, say)


def _sweep(store: TaskStore, _: Say) -> None:
    store.sweep()


def _write_anew(store: TaskStore, _: Say) -> None:
    """Write the record again, as a program that knows nothing of us, if it still waits."""
    with contextlib.suppress(FileNotFoundError):
        write_anew(Path(store.layout.pending_record(ONE)))


def _run_watched(store: TaskStore, say: Say) -> None:
    """Run a task whose tool runs just while another host looks for orphans, not for the first time."""
    other = TaskStore(store.location, durability="process")
    other._swept = True
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


def _fail(store: TaskStore, say: Say) -> None:
    run_task(store, registry(say), FLAKY)


RACES: Final = {
    "two claims": Several((run, run), _submitted),
    "claim, recover": Several((run, recover), _submitted),
    "claim, while another looks": Several((run, _run_watched), _submitted),
    "claim, a plain write": Several((run, _write_anew), _submitted),
    "two claims, a plain write": Several((run, run, _write_anew), _submitted),
    "claim, while another looks, a plain write": Several((_run_watched, _write_anew), _submitted),
    "two recovers": Several((recover, recover), _orphaned),
    "two recovers, one more run": Several((_recover_and_run, _recover_and_run), _safe_orphaned),
    "recover, drain": Several((recover, drain), _orphaned),
    "recover what was notified, drain": Several((recover, drain), _notified),
    "finish, drain": Several((run, drain), _submitted),
    "two drains": Several((drain, drain), _ended),
    "cancel, finish": Several((run, _cancel), _submitted),
    "cancel, retry": Several((_fail, _cancel), _flaky),
    "two cancels": Several((_cancel, _cancel), _submitted),
    "retry, run": Several((_fail, _run_all), _flaky),
    "keyed submits": Several((_keyed(KEYED), _keyed(AGAIN)), _nothing),
    "three keyed submits": Several((_keyed(KEYED), _keyed(AGAIN), _keyed(THIRD)), _nothing),
    "keyed submits after one that died": Several((_keyed(AGAIN), _keyed(THIRD)), keyed_half_way),
    "keyed submit, sweep": Several((_keyed(AGAIN), _sweep), keyed_half_way),
    "keyed submit, run": Several((_keyed(AGAIN), _run_all), _keyed(KEYED)),
    "keyed submit, retry": Several((_keyed(AGAIN), _fail), _keyed_flaky),
    "keyed submit, retry, sweep": Several((_keyed(AGAIN), _fail, _sweep), _keyed_flaky),
    "keyed submit, prune": Several((_keyed(AGAIN), prune), _keyed_and_read),
    "two prunes": Several((prune, prune), _keyed_and_read),
    "prune, drain": Several((prune, drain), _ended),
    "prune, recover": Several((prune, recover), _ended),
    "sweep, claim": Several((_sweep, run), _submitted),
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
    orphans = bool(os.listdir(store().layout.running))
    stores = [store() for _ in several.operations]

    def judge(killed: bool) -> list[str]:  # noqa: FBT001 - as the protocol has it
        rest(store(), say)
        found = problems(anima, said, runs=allowed)
        if not killed and not orphans:
            found += [
                f"INTERRUPTED {task.id}, and nobody died" for task in store().list() if task.cause is Cause.INTERRUPTED
            ]
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
        TaskStore._probe = lambda _: None  # type: ignore[method-assign]  # no part of what is raced
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
