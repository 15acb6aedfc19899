"""Many processes and tasks, and workers killed at random: every task one outcome, one notification, one run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from animaworks_tasks import Outcome, Registry, TaskStore, ToolContext, run_task
from animaworks_tasks.task.model import OnInterrupt
from animaworks_tasks.worker.runner import may_run_again
from tests.reliability.counts import FULL, count
from tests.reliability.invariants import problems

TASKS, WORKERS, LONGEST = (5_000, 8, 120.0) if FULL else (300, 4, 30.0)


def _registry(runs: str) -> Registry:
    """Return a tool that notes each of its runs in a file, as one with an effect on the world would."""
    tools = Registry()

    def work(context: ToolContext) -> str:
        note = os.open(runs, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(note, f"ran {context.task_id} {context.attempt}\n".encode())
        os.close(note)
        return "worked"

    tools.add("tool", "once", work)
    return tools


def _work(anima: Path, seed: int) -> None:
    """Run what waits, until nothing does; each worker begins elsewhere."""
    store, tools = TaskStore(anima, durability="process"), _registry(str(anima.parent / "RUNS"))
    choose = random.Random(seed)  # noqa: S311 - no secret
    while ids := sorted(store.pending_ids()):
        for task_id in choose.sample(ids, min(40, len(ids))):
            run_task(store, tools, task_id)


def _host(anima: Path, stop: Path) -> None:
    """Recover and drain, over and over, until nothing is left."""
    store, tools = TaskStore(anima, durability="process"), _registry(str(anima.parent / "RUNS"))
    while True:
        last = stop.exists()
        store.recover(may_run_again(tools))
        with store.notifications.drain() as drained:
            lines = "".join(f"shown {n.task_id}\n" for n in drained.notifications)
            note = os.open(anima.parent / "SHOWN", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(note, lines.encode())
            os.close(note)
        if last and not store.pending_ids() and not os.listdir(store.layout.running):
            return
        time.sleep(0.02)


def _process(body: Callable[[], None]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that other tests left
        pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(None)
            body()
            os.write(1, b"")
        except BaseException as error:  # noqa: BLE001 - the parent sees the signal
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)  # no handler of this test run has anything to do here
    return pid


def test_many_workers_that_are_killed_at_random_run_every_task_to_one_end(ground: Path) -> None:
    # given tasks, half of which may be run again
    anima = ground / "mei"
    store = TaskStore(anima, durability="process")
    choose = random.Random(1)  # noqa: S311 - no secret
    ids = [
        store.submit("tool", "once", on_interrupt=OnInterrupt.RETRY if number % 2 else OnInterrupt.FAIL).id
        for number in range(TASKS)
    ]
    again = set(ids[1::2])

    # when workers run them, of which one is killed every few milliseconds, and two hosts clean up
    stop, deadline, kills = ground / "stop", time.monotonic() + LONGEST, 0
    hosts = [_process(lambda: _host(anima, stop)) for _ in range(2)]
    workers = {_process(lambda n=n: _work(anima, n)) for n in range(WORKERS)}  # type: ignore[misc]
    try:
        while os.listdir(store.layout.pending) or os.listdir(store.layout.running):
            assert time.monotonic() < deadline, "it does not come to its end"
            time.sleep(choose.uniform(0.005, 0.04))
            victim = choose.choice(sorted(workers))
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            kills += 1
            workers.remove(victim)
            workers.add(_process(lambda n=kills: _work(anima, 1000 + n)))  # type: ignore[misc]
        stop.touch()
        ended = [os.waitpid(host, 0)[1] for host in hosts]
        hosts.clear()
    finally:
        for pid in (*workers, *hosts):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    # then
    store.recover()
    with store.notifications.drain():
        pass
    ran = (ground / "RUNS").read_text().splitlines()
    shown = Counter((ground / "SHOWN").read_text().splitlines())
    said = [*(f"submitted {task_id}" for task_id in ids), *ran]
    assert [signal.SIGKILL, signal.SIGKILL] == [os.WTERMSIG(status) for status in ended]
    assert [] == problems(anima, said, runs=lambda task_id: 4 if task_id in again else 1)
    assert sorted(ids) == sorted(task.id for task in store.list())
    assert {1} == set(shown.values()), "a notification was shown twice"
    assert sorted(ids) == sorted(line.split()[1] for line in shown)
    count("tasks under stress", len(ids))
    count("workers killed under stress", kills)
    completed = sum(task.outcome is Outcome.COMPLETED for task in store.list())
    count("runs cut short under stress", len(ran) - completed)
