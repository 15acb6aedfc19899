"""What becomes slower as a store grows: a task beside a backlog, a list and a start beside a history."""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks._machine import environment, fresh, took
from benchmarks._measure import Bench, Comparison, Contestant, Figure, Role, Target, compare, progress, together
from benchmarks.programs.tools import nothing

_NEWEST: Final = 20
_BATCH: Final = 1000  # tasks, submitted at once


# A backlog.


def measure_backlog(bench: Bench) -> Sequence[Comparison]:
    """Run tasks beside a backlog that stays as long as it is: each that ends is replaced."""
    many, few, seconds = bench.size(100_000, 2000), bench.size(1000, 200), bench.size(9, 1)
    found = {tasks: _Backlog(bench, tasks, seconds) for tasks in (few, many)}
    cost, start = (
        [
            Contestant(
                name=f"{tasks:,} pending",
                role=role,
                run=backlog.share(name),
            )
            for role, (tasks, backlog) in zip((Role.FLOOR, Role.OURS), found.items(), strict=True)
        ]
        for name in ("cost", "start")
    )
    against = f"{few:,} pending"
    return [
        compare(bench, cost, what="one task, submitted, run and told", unit="µs", against=against, target=Target(1.3)),
        compare(
            bench,
            start,
            what="a host's start until the first task has ended, for information",
            unit="ms",
            against=against,
        ),
    ]


class _Backlog:
    """A store with so many pending tasks, and what is measured in it, both numbers in one run."""

    def __init__(self, bench: Bench, tasks: int, seconds: float) -> None:
        directory = bench.fresh("backlog")
        fresh(fill_pending, directory, tasks)
        self.share = together(lambda: fresh(work_beside, directory, seconds))


def fill_pending(directory: Path, tasks: int) -> None:
    """Let so many no-op tasks be pending in a new store."""
    from animaworks_tasks import TaskStore

    progress(f"submitting {tasks:,} tasks")
    store = TaskStore(directory, durability="process")
    for begin in range(0, tasks, _BATCH):
        store.submit_many("bench", [["nothing"]] * min(_BATCH, tasks - begin))
    os.sync()  # or else it is written back while we measure


def work_beside(directory: Path, seconds: float) -> dict[str, float]:
    """Return what one task takes in a host of this store (µs), and how long it took to start (ms)."""
    from animaworks_tasks import Executor, Registry, Task, TaskStore, ThreadBackend

    registry = Registry()
    registry.add("bench", "nothing", nothing)
    store = TaskStore(directory, durability="process")
    ended: list[float] = []
    first = threading.Event()

    def replace(_: Task) -> None:
        store.submit("bench", "nothing")
        ended.append(time.perf_counter())
        first.set()

    begun = time.perf_counter()
    executor = Executor(store, registry, backend=ThreadBackend(), max_workers=2, on_finish=replace).start()
    first.wait()
    time.sleep(seconds)
    executor.stop()
    done = [at for at in ended if at <= ended[0] + seconds]
    return {"cost": seconds * 1e6 / len(done), "start": (ended[0] - begun) * 1000}


# A history.


def measure_history(bench: Bench) -> Sequence[Comparison]:
    """Look at the newest of many done tasks, and start a host beside them."""
    tasks = bench.size(100_000, 1000)
    full, none = bench.fresh("history"), bench.fresh("no-history")
    fresh(fill_done, full, tasks)
    fresh(fill_done, none, 0)
    times = bench.size(5, 1)

    def listing(directory: Path, program: str, *arguments: str) -> float:
        argv = [sys.executable, "-c", program, *arguments]
        return took(argv, environment(ANIMAWORKS_ANIMA_DIR=str(directory)), times)

    command = "import sys; from animaworks_tasks.cli import main; sys.exit(main())"
    call = (
        "import os; from animaworks_tasks import State, TaskStore;"
        f"TaskStore(os.environ['ANIMAWORKS_ANIMA_DIR']).list(State.DONE, limit={_NEWEST})"
    )
    words = ("list", "--state", "done", "--limit", str(_NEWEST))

    def beside(what: str, *way: str) -> Comparison:
        contestants = [
            Contestant(name="beside 1 done", role=Role.FLOOR, run=lambda: listing(none, *way)),
            Contestant(name=f"of {tasks:,} done", role=Role.OURS, run=lambda: listing(full, *way)),
        ]
        return compare(
            bench, contestants, what=what, unit="ms", against="beside 1 done", target=Target(150, of="value")
        )

    def starting(directory: Path) -> float:
        return statistics.median(fresh(start_time, directory) for _ in range(times))

    starts = [
        Contestant(
            name=f"beside {count:,} done",
            role=role,
            run=functools.partial(starting, directory),
        )
        for role, count, directory in ((Role.FLOOR, 1, none), (Role.OURS, tasks, full))
    ]
    return [
        beside(f"animaworks-tool {' '.join(words)}, the whole process", command, *words),
        beside(f"TaskStore.list(State.DONE, limit={_NEWEST}), the whole process", call),
        compare(
            bench,
            starts,
            what="a host's start, until a task that waits for it is called",
            unit="ms",
            against="beside 1 done",
            target=Target(1.2),
        ),
    ]


def fill_done(directory: Path, tasks: int) -> None:
    """Let so many tasks be done and read: one is really run, and whatever it leaves is copied under other ids."""
    from animaworks_tasks import Executor, InlineBackend, Registry, TaskStore

    registry = Registry()
    registry.add("bench", "nothing", nothing)
    store = TaskStore(directory, durability="process")
    executor = Executor(store, registry, backend=InlineBackend()).start()
    model = executor.submit_sync("bench", "nothing").id
    executor.run_until_idle_sync()
    with store.notifications.drain():
        pass
    executor.stop()
    progress(f"copying a done task {tasks:,} times")
    paths = [path for path in directory.rglob(f"*{model}*") if path.is_file()]
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    begun = time.time() - tasks
    for number in range(tasks):
        _copy(texts, model, f"{number:012x}", begun + number)
    os.sync()  # as in fill_pending


def _copy(texts: dict[Path, str], model: str, task_id: str, at: float) -> None:
    """Write what the task *model* left as if *task_id* had left it; names of one file stay names of one file."""
    written: dict[int, Path] = {}
    for path, original in texts.items():
        target = path.with_name(path.name.replace(model, task_id))
        same = written.get(path.stat().st_ino)
        if same is not None:
            os.link(same, target)
            continue
        text = original.replace(model, task_id)
        if path.suffix in {".json", ".task"}:  # the view, and the record
            record = json.loads(text) | {"completed_at": at}
            text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
        target.write_text(text, encoding="utf-8")
        os.utime(target, (at, at))
        written[path.stat().st_ino] = target


def start_time(directory: Path) -> float:
    """Return after how many milliseconds a host that starts here calls the tool of the one task that waits for it."""
    from animaworks_tasks import Executor, Registry, TaskStore, ThreadBackend

    called = threading.Event()
    at: list[float] = []

    def note() -> None:
        at.append(time.perf_counter())
        called.set()

    registry = Registry()
    registry.add("bench", "note", note)
    TaskStore(directory).submit("bench", "note")
    begun = time.perf_counter()
    executor = Executor(TaskStore(directory), registry, backend=ThreadBackend(), max_workers=2).start()
    called.wait()
    executor.run_until_idle_sync()
    executor.stop()
    return (at[0] - begun) * 1000


FIGURES: Final = (
    Figure(
        name="backlog",
        title="What one task costs beside a backlog",
        measure=measure_backlog,
        note='ThreadBackend, 2 slots, `durability="process"`; long enough for three looks at everything. '
        "While a long backlog is being read, which is here all the time, a thirteenth of it goes into reading; and "
        "each look, every 3 s, lists the names of all.",
    ),
    Figure(
        name="history",
        title="What a history costs",
        measure=measure_history,
        note="The notices of the done tasks have been read; whatever a real one leaves on disk is there of each. The "
        "directories are in the page cache.",
    ),
)
