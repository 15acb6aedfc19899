"""What a host weighs while nothing happens: its processor time, its memory, and that of its workers."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks._machine import (
    children,
    fresh,
    private_memory,
    processor_time,
    program,
    shared_memory,
    wait_until_quiet,
)
from benchmarks._measure import Bench, Comparison, Contestant, Entry, Figure, Role, Target, compare, progress, together
from benchmarks.programs.tools import nothing

_SETTLE: Final = 2.0  # seconds after its start in which a host is not yet at rest


def measure_idle(bench: Bench) -> Sequence[Comparison]:
    """Let hosts wait, and see what processor time that takes them."""
    seconds = bench.size(30, 4)
    kinds = {
        "ThreadBackend": ("host", "thread"),
        "ProcessBackend, its idle workers included": ("host", "process"),
        "a bare asyncio process": ("bare", "asyncio"),
    }
    used: dict[str, list[float]] = {name: [] for name in kinds}
    with contextlib.ExitStack() as stack:
        hosts: list[tuple[str, int]] = []
        for _ in range(bench.rounds):
            for name, (module, kind) in kinds.items():
                arguments = (bench.fresh("idle"), kind, "full") if module == "host" else (kind,)
                hosts.append((name, stack.enter_context(program(module, *arguments)).pid))
        time.sleep(_SETTLE)
        progress(f"{len(hosts)} hosts wait for {seconds} s")
        before = [_all_of(pid, processor_time) for _, pid in hosts]
        time.sleep(seconds)
        for (name, pid), begun in zip(hosts, before, strict=True):
            used[name].append((_all_of(pid, processor_time) - begun) * 1000 / seconds)
    entries = [
        Entry(
            name=name,
            role=Role.FLOOR if module == "bare" else Role.OURS,
            samples=tuple(used[name]),
        )
        for name, (module, _) in kinds.items()
    ]
    what = f"over {seconds} s, side by side"
    return [Comparison(what=what, unit="ms CPU/s", entries=tuple(entries), target=Target(0.2, of="value"))]


def _all_of(pid: int, measure: Callable[[int], float]) -> float:
    """Return what *measure* says of a process and of all that it has started."""
    return measure(pid) + sum(_all_of(child, measure) for child in children(pid))


# Memory.


def measure_host(bench: Bench) -> Sequence[Comparison]:
    """Weigh a host: at rest, after many tasks, beside many pending ones."""
    return [_at_rest(bench), _after_many(bench), _per_pending(bench)]


def _at_rest(bench: Bench) -> Comparison:
    def weigh(module: str, *arguments: object) -> float:
        with program(module, *arguments) as process:
            time.sleep(_SETTLE / 4)
            return private_memory(process.pid)

    contestants = [
        Contestant(name="a bare asyncio process", role=Role.FLOOR, run=lambda: weigh("bare", "asyncio")),
        Contestant(name="a host", role=Role.OURS, run=lambda: weigh("host", bench.fresh("weigh"), "thread", "full")),
    ]
    return compare(
        bench,
        contestants,
        what="private memory, at rest, after its first tasks; the floor has imported our dependencies",
        unit="MiB",
        against="a bare asyncio process",
        target=Target(10, of="more"),
    )


def _after_many(bench: Bench) -> Comparison:
    first, more = bench.size(1000, 50), bench.size(5000, 100)
    names = (f"after {first:,} tasks", f"after {more:,} more")

    def measure() -> dict[str, float]:
        return dict(zip(names, fresh(weight_after, bench.fresh("growth"), (first, more)), strict=True))

    share = together(measure)
    return compare(
        bench,
        [
            Contestant(name=name, role=role, run=share(name))
            for name, role in zip(names, (Role.FLOOR, Role.OURS), strict=True)
        ],
        what="private memory of one host, growing with done tasks",
        unit="MiB",
        against=names[0],
        target=Target(1.05),
    )


def weight_after(directory: Path, batches: Sequence[int]) -> list[float]:
    """Return the private memory of this process, a host, after each batch of tasks has been done."""
    import os

    from animaworks_tasks import Executor, Registry, TaskStore, ThreadBackend

    registry = Registry()
    registry.add("bench", "nothing", nothing)
    store = TaskStore(directory, durability="process")
    executor = Executor(store, registry, backend=ThreadBackend(), max_workers=2).start()
    found = []
    for tasks in batches:
        for number in range(tasks):
            store.submit("bench", "nothing")
            if number % 50 == 0:  # as they come in life: not a backlog, which is another question
                executor.run_until_idle_sync()
        executor.run_until_idle_sync()
        found.append(private_memory(os.getpid()))
    executor.stop()
    return found


def _per_pending(bench: Bench) -> Comparison:
    from benchmarks.growing import fill_pending

    tasks = bench.size(100_000, 2000)
    full = bench.fresh("pending")
    fresh(fill_pending, full, tasks)

    def weigh(directory: Path) -> float:
        with program("host", directory, "blocked", "process") as process:
            wait_until_quiet(process.pid)
            return private_memory(process.pid)

    def per_task() -> float:
        return (weigh(full) - weigh(bench.fresh("nothing-pending"))) * 1024 / tasks

    return compare(
        bench,
        [Contestant(name="a host", role=Role.OURS, run=per_task)],
        what=f"private memory per pending task, of {tasks:,}",
        unit="KiB",
        target=Target(1, of="value"),
    )


def measure_worker(bench: Bench) -> Sequence[Comparison]:
    """Weigh a supervisor with its idle tool process."""

    def bare() -> float:
        with program("bare", "python") as one, program("bare", "python") as two:
            return private_memory(one.pid) + private_memory(two.pid)

    names = ("a supervisor with an idle tool process", "the same, and what the two share")

    def measure() -> dict[str, float]:
        with program("host", bench.fresh("worker"), "process", "full") as process:
            pairs = [(supervisor, *children(supervisor)) for supervisor in children(process.pid)]
            own = statistics.fmean(sum(map(private_memory, pair)) for pair in pairs)
            return dict(zip(names, (own, own + statistics.fmean(shared_memory(*pair) for pair in pairs)), strict=True))

    share = together(measure)
    return [
        compare(
            bench,
            [
                Contestant(name="two bare interpreters", role=Role.FLOOR, run=bare),
                *(Contestant(name=name, role=Role.OURS, run=share(name)) for name in names),
            ],
            what="private memory",
            unit="MiB",
            against="two bare interpreters",
            target=Target(2),
        )
    ]


FIGURES: Final = (
    Figure(
        name="idle-host",
        title="A host that waits",
        measure=measure_idle,
        note="Processor time of all its threads; the hosts of all rounds wait at the same time.",
    ),
    Figure(
        name="memory-host",
        title="The memory of a host",
        measure=measure_host,
        note="Private memory is what would be free if the process were not there (USS).",
    ),
    Figure(
        name="memory-worker",
        title="The memory of a worker",
        measure=measure_worker,
        note="The mean of two workers, side by side, as the two interpreters are. A tool process is a fork of its "
        "supervisor: what neither has written to since is there once, and private to none of them (USS). The second "
        "row counts it too, once. In the way: attrs alone, with the inspect and typing that it imports, doubles an "
        "interpreter.",
    ),
)
