"""What it takes to run a task: how soon it begins, how many pass in a second, and what the host's event loop feels."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import select
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import attrs

from benchmarks import _peers
from benchmarks._machine import PATIENCE, fresh, program
from benchmarks._measure import (
    Bench,
    Comparison,
    Contestant,
    Entry,
    Figure,
    Missing,
    Promise,
    Role,
    Target,
    compare,
    entry,
    percentile,
    take_turns,
)
from benchmarks.programs.tools import nothing

if TYPE_CHECKING:
    from animaworks_tasks import TaskStore

WORKERS: Final = 4  # threads, ours and the peers' alike
PROCESSES: Final = 2
_TICK: Final = 0.005  # seconds
_MEDIAN: Final = 0.5
_FSYNC, _NO_FSYNC = True, False

Durability = Literal["full", "process"]
Submit = Callable[[str, str], object]  # with the arguments of the tool `mark`


# From a submit to the tool's first line.


@attrs.frozen(kw_only=True)
class _Way:
    """
    One way from a submit in this process to a tool in another.

    Attributes:
        start: Starts its host, and returns its submit.
        samples: How many submits there are in a round.
        rest: Shortest and longest pause before each, in seconds.
    """

    name: str
    role: Role
    promise: Promise
    start: Callable[[contextlib.ExitStack], Submit]
    samples: int
    rest: tuple[float, float] = (0.01, 0.06)


def measure_latency(bench: Bench) -> Sequence[Comparison]:
    """Submit in this process, and have the tool say in another how long ago that was."""
    ways = _ways(bench)
    pauses = random.Random(0)  # noqa: S311 - so that submits fall anywhere between two looks of those who look
    submits: dict[str, Submit] = {}
    with contextlib.ExitStack() as stack:
        fifo = stack.enter_context(_Marks.at(bench.fresh("latency") / "fifo"))

        def run(contestant: Contestant) -> list[float]:
            way = ways[contestant.name]
            if way.name not in submits:
                submits[way.name] = way.start(stack)
                fifo.latency(submits[way.name])  # the first is for what is loaded when it is first used
            found = []
            for _ in range(way.samples):
                time.sleep(pauses.uniform(*way.rest))
                found.append(fifo.latency(submits[way.name]))
            return found

        contestants = [
            Contestant(name=way.name, role=way.role, promise=way.promise, run=float) for way in ways.values()
        ]
        found = take_turns(bench.rounds, contestants, run=run)

    def shown(what: str, first: str, bound: float, part: float) -> Comparison:
        ordered = sorted(contestants, key=lambda each: (each.role is not Role.OURS, each.name != first))
        entries = []
        for each in ordered:
            rounds = found[each.name]
            if part == _MEDIAN and not isinstance(rounds, Missing):
                entries.append(entry(each, [statistics.median(samples) for samples in rounds]))
            else:
                entries.append(_over_all(each, rounds, part))
        return Comparison(what=what, unit="ms", entries=tuple(entries), target=Target(bound, of="value"))

    return [
        shown("p50, ThreadBackend", "ThreadBackend", 2, _MEDIAN),
        shown("p50, warm ProcessBackend", "ProcessBackend", 6, _MEDIAN),
        shown("p99 of all rounds, ThreadBackend", "ThreadBackend", 20, 0.99),
        shown("p99 of all rounds, warm ProcessBackend", "ProcessBackend", 20, 0.99),
    ]


def _over_all(contestant: Contestant, rounds: list[list[float]] | Missing, part: float) -> Entry:
    """Return the percentile over the samples of all rounds: one round has too few for it."""
    if isinstance(rounds, Missing):
        return entry(contestant, rounds)
    return entry(contestant, [percentile([sample for samples in rounds for sample in samples], part)])


class _Marks:
    """The FIFO at which the tool `mark` says how late it is."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path, self._fd = path, fd

    @classmethod
    @contextlib.contextmanager
    def at(cls, path: Path) -> Iterator[_Marks]:
        os.mkfifo(path)
        fd = os.open(path, os.O_RDWR)
        try:
            yield cls(path, fd)
        finally:
            os.close(fd)

    def latency(self, submit: Submit) -> float:
        """Submit one task and return after how many milliseconds its tool ran."""
        submit(str(self._path), str(time.monotonic_ns()))
        if not select.select([self._fd], [], [], PATIENCE)[0]:
            raise RuntimeError(f"a submitted task did not run within {PATIENCE:.0f} s")
        return int(os.read(self._fd, 100)) / 1e6


def _ways(bench: Bench) -> dict[str, _Way]:
    def ours(backend: str) -> Callable[[contextlib.ExitStack], Submit]:
        def start(stack: contextlib.ExitStack) -> Submit:
            from animaworks_tasks import TaskStore

            directory = bench.fresh(backend)
            store = TaskStore(directory)
            stack.enter_context(program("host", directory, backend, "full"))
            return lambda *arguments: store.submit("bench", "mark", *arguments)

        return start

    def rq(stack: contextlib.ExitStack) -> Submit:
        socket = stack.enter_context(_peers.redis_server(bench.fresh("rq")))
        stack.enter_context(program("rq_host", socket))
        from redis import Redis
        from rq import Queue

        queue = Queue(connection=Redis(unix_socket_path=str(socket)))
        return lambda *arguments: queue.enqueue("benchmarks.programs.tools.mark", *arguments)

    def huey(stack: contextlib.ExitStack) -> Submit:
        _peers.need("huey")
        env = {"BENCH_HUEY": str(bench.fresh("huey") / "huey.db"), "BENCH_HUEY_FSYNC": "1"}
        stack.enter_context(program("huey_host", **env))
        os.environ.update(env)
        from benchmarks.programs.huey_app import mark

        submit: Submit = mark
        return submit

    def animaworks(stack: contextlib.ExitStack) -> Submit:
        directory = bench.fresh("animaworks")
        stack.enter_context(program("animaworks_host", directory))
        ids = iter(range(1 << 40))
        return lambda *arguments: _peers.write_pending(directory, f"{next(ids):012x}", "mark", *arguments)

    many, some, few = bench.size(60, 5), bench.size(10, 2), bench.size(3, 1)
    ways = [
        _Way(name="ThreadBackend", role=Role.OURS, promise=_peers.OURS_FULL, start=ours("thread"), samples=many),
        _Way(name="ProcessBackend", role=Role.OURS, promise=_peers.OURS_FULL, start=ours("process"), samples=many),
        _Way(name="rq", role=Role.PEER, promise=_peers.RQ, start=rq, samples=many),
        _Way(name="huey, fsync", role=Role.PEER, promise=_peers.HUEY_FSYNC, start=huey, samples=some, rest=(0.1, 0.5)),
        _Way(
            name="AnimaWorks, re-enacted",
            role=Role.PEER,
            promise=_peers.ANIMAWORKS,
            start=animaworks,
            samples=few,
            rest=(0, 3),
        ),
    ]
    return {way.name: way for way in ways}


# What the host's event loop feels.


def measure_event_loop(bench: Bench) -> Sequence[Comparison]:
    """Let a ticker tick in an event loop, alone and while tasks pass through a ProcessBackend."""
    tasks, seconds = bench.size(500, 20), bench.size(4, 1)
    contestants = [
        Contestant(name="the loop alone", role=Role.FLOOR, run=float),
        Contestant(
            name=f"while tasks pass through ProcessBackend, {tasks} after {tasks}",
            role=Role.OURS,
            run=float,
        ),
    ]

    def run(contestant: Contestant) -> list[float]:
        if contestant.role is Role.FLOOR:
            return fresh(lateness_alone, seconds)
        return fresh(lateness_beside, bench.fresh("event-loop"), tasks, seconds)

    found = take_turns(bench.rounds, contestants, run=run)

    def entries(part: float) -> tuple[Entry, ...]:
        return tuple(_over_all(each, found[each.name], part) for each in contestants)

    return [
        Comparison(
            what="lateness of a 5 ms ticker, p99.9 of all rounds",
            unit="ms",
            entries=entries(0.999),
            against="the loop alone",
            target=Target(2),
        ),
        Comparison(
            what="the longest stall of all rounds",
            unit="ms",
            entries=entries(1),
            against="the loop alone",
            target=Target(20, of="value"),
        ),
    ]


def lateness_alone(seconds: float) -> list[float]:
    """Return by how many milliseconds each tick was late, of a loop that has nothing else to do."""

    async def run() -> list[float]:
        return await _ticking(asyncio.sleep(seconds))

    return asyncio.run(run())


def lateness_beside(directory: Path, tasks: int, seconds: float) -> list[float]:
    """Return the same while so many tasks are submitted, run, and end, and so on until the time is over."""
    from animaworks_tasks import Executor, ProcessBackend, Registry, TaskStore

    async def run() -> list[float]:
        registry = Registry()
        registry.add("bench", "nothing", nothing)
        async with Executor(
            TaskStore(directory), registry, backend=ProcessBackend(), max_workers=PROCESSES
        ) as executor:

            async def work(tasks: int) -> None:
                for _ in range(tasks):
                    await executor.submit("bench", "nothing")
                await executor.run_until_idle()

            async def work_on() -> None:
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline:
                    await work(tasks)

            await work(4 * PROCESSES)  # to start them
            return await _ticking(work_on())

    return asyncio.run(run())


async def _ticking(work: Awaitable[None]) -> list[float]:
    late = []
    over = asyncio.ensure_future(work)
    while not over.done():
        due = time.perf_counter() + _TICK
        await asyncio.sleep(_TICK)
        late.append((time.perf_counter() - due) * 1000)
    await over
    return late


# No-op tasks, end to end.


def ours_rate(directory: Path, tasks: int, durability: Durability, at_once: bool) -> float:  # noqa: FBT001 - two ways
    """Return how many tasks ThreadBackend does in a second: submitted, run, recorded, told."""
    from animaworks_tasks import Executor, Registry, TaskStore, ThreadBackend

    registry = Registry()
    registry.add("bench", "nothing", nothing)
    store = TaskStore(directory, durability=durability)
    executor = Executor(store, registry, backend=ThreadBackend(), max_workers=WORKERS)
    begun = time.perf_counter()
    _submit(store, tasks, at_once=at_once)
    executor.start()
    executor.run_until_idle_sync()
    rate = tasks / (time.perf_counter() - begun)
    executor.stop()
    return rate


def _submit(store: TaskStore, tasks: int, *, at_once: bool) -> None:
    if at_once:
        store.submit_many("bench", [["nothing"]] * tasks)
        return
    for _ in range(tasks):
        store.submit("bench", "nothing")


def _ours(bench: Bench, tasks: int, durability: Durability, promise: Promise) -> list[Contestant]:
    def run(at_once: bool) -> float:  # noqa: FBT001 - two ways
        return fresh(ours_rate, bench.fresh("ours"), tasks, durability, at_once)

    return [
        Contestant(
            name=name,
            role=Role.OURS,
            run=functools.partial(run, at_once),
            promise=promise,
        )
        for name, at_once in ((f'durability="{durability}"', False), ("the same, by submit_many", True))
    ]


def _peer(
    bench: Bench, name: str, promise: Promise, package: str, rate: Callable[..., float], *arguments: object
) -> Contestant:
    def run() -> float:
        if package:
            _peers.need(package)
        return fresh(rate, bench.fresh("peer"), *arguments)

    return Contestant(name=name, role=Role.PEER, run=run, promise=promise)


def measure_throughput_process(bench: Bench) -> Sequence[Comparison]:
    """Without fsync: what dies is a process, never the power."""
    tasks = bench.size(1000, 40)
    return [
        compare(
            bench,
            [
                *_ours(bench, tasks, "process", _peers.OURS_PROCESS),
                _peer(bench, "huey", _peers.HUEY, "huey", _peers.huey_rate, tasks, WORKERS, _NO_FSYNC),
                _peer(bench, "litequeue", _peers.LITEQUEUE, "litequeue", _peers.litequeue_rate, tasks, WORKERS),
                _peer(bench, "diskcache", _peers.DISKCACHE, "diskcache", _peers.diskcache_rate, tasks, WORKERS),
                _peer(bench, "AnimaWorks, re-enacted", _peers.ANIMAWORKS, "", _peers.animaworks_rate, tasks),
            ],
            what=f"{tasks:,} tasks, {WORKERS} threads",
            unit="tasks/s",
            against="huey",
            target=Target(1.5, "least"),
        )
    ]


def measure_throughput_full(bench: Bench) -> Sequence[Comparison]:
    """With fsync."""
    tasks = bench.size(500, 20)
    return [
        compare(
            bench,
            [
                *_ours(bench, tasks, "full", _peers.OURS_FULL),
                _peer(bench, "huey, fsync", _peers.HUEY_FSYNC, "huey", _peers.huey_rate, tasks, WORKERS, _FSYNC),
                _peer(
                    bench,
                    "persist-queue",
                    _peers.PERSIST_QUEUE,
                    "persist-queue",
                    _peers.persist_queue_rate,
                    tasks,
                    WORKERS,
                ),
            ],
            what=f"{tasks:,} tasks, {WORKERS} threads",
            unit="tasks/s",
            against="huey, fsync",
            target=Target(1, "least"),
        )
    ]


def measure_throughput_processes(bench: Bench) -> Sequence[Comparison]:
    """In warm processes."""
    tasks = bench.size(500, 20)
    return [
        compare(
            bench,
            [
                Contestant(
                    name="ProcessPoolExecutor",
                    role=Role.FLOOR,
                    run=lambda: fresh(pool_rate, 10 * tasks),
                    promise=_peers.POOL,
                ),
                Contestant(
                    name="ProcessBackend",
                    role=Role.OURS,
                    run=lambda: fresh(processes_rate, bench.fresh("processes"), tasks),
                    promise=_peers.OURS_PROCESS,
                ),
            ],
            what=f"{tasks:,} tasks, {PROCESSES} processes; ten times as many for the pool",
            unit="tasks/s",
            against="ProcessPoolExecutor",
            target=Target(0.3, "least"),
        )
    ]


def processes_rate(directory: Path, tasks: int) -> float:
    """Return how many tasks a warm ProcessBackend does in a second."""
    from animaworks_tasks import Executor, ProcessBackend, Registry, TaskStore

    registry = Registry()
    registry.add("bench", "nothing", nothing)
    store = TaskStore(directory, durability="process")
    executor = Executor(store, registry, backend=ProcessBackend(), max_workers=PROCESSES).start()
    _submit(store, 4 * PROCESSES, at_once=False)
    executor.run_until_idle_sync()
    begun = time.perf_counter()
    _submit(store, tasks, at_once=False)
    executor.run_until_idle_sync()
    rate = tasks / (time.perf_counter() - begun)
    executor.stop()
    return rate


def pool_rate(tasks: int) -> float:
    """Return how many calls a warm ProcessPoolExecutor does in a second."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        wait([pool.submit(nothing) for _ in range(4 * PROCESSES)])
        begun = time.perf_counter()
        wait([pool.submit(nothing) for _ in range(tasks)])
        return tasks / (time.perf_counter() - begun)


_END_TO_END: Final = (
    "Submitted one by one, then run; the time is from the first submit to the last end. Ours has then recorded and "
    "told each outcome; huey keeps no outcome of a task that returns nothing, and the queues have no workers and no "
    "outcomes: their tasks are taken and ticked off by threads of the suite."
)

# Counted with `strace -f -c`, without futex: 400 tasks less 100, submitted one by one and then run.
_CALLS: Final = "108 system calls and five new files"

FIGURES: Final = (
    Figure(
        name="latency",
        title="From a submit in one process to the tool's first line in another",
        measure=measure_latency,
        note="Counted from before the submit, so that its fsyncs are a part of it. All hosts are as they are by "
        "default. Before each submit they rest for 10 to 60 ms; huey, which looks less often the longer it rests, for "
        "0.1 to 0.5 s; AnimaWorks for up to its 3 s. Of ours, three fsyncs stand between the submit and the tool's "
        "first line: two make the submit durable, the second of them while the host wakes up, and one makes the claim "
        "so; rq and huey wait for none or one. In the way are these three: the same program on the same machine had a "
        "median of 1.8 ms in an hour in which the raw calls of a submit took 0.43 ms, and of 2.1 to 2.5 ms when its "
        "disk was slower, up to 0.57 ms.",
    ),
    Figure(
        name="event-loop",
        title="The host's event loop while tasks pass",
        measure=measure_event_loop,
        note="The processes are warm, and the loop itself submits, as fast as it can. Each round is a process of its "
        "own. In the way: two supervisors, two tool processes and the host's threads keep both processors busy, and "
        "a thread that wakes up waits for one of them, and then for Python's own lock: half of the ticks are 0.5 ms "
        "late, and the worst 4 ms, a slice of the kernel's scheduler. A lower priority of the supervisors changes "
        "nothing. The ratio is as good as the floor is bad: where the loop alone was 0.6 ms late, it was 4.3x.",
    ),
    Figure(
        name="throughput-process",
        title='No-op tasks end to end, ThreadBackend, `durability="process"`',
        measure=measure_throughput_process,
        note=f"{_END_TO_END} In the way: a task of ours takes {_CALLS} (`strace -c`), for its record, outcome, "
        "view and notification are files of their own, which any process finds after a crash; huey's are rows on a "
        "page. "
        "The kernel has half of the processor's time (`perf`), and Python the other half: a record is written, read "
        "and checked at every step.",
    ),
    Figure(
        name="throughput-full",
        title='No-op tasks end to end, ThreadBackend, `durability="full"`',
        measure=measure_throughput_full,
        note=f"{_END_TO_END} In the way: seven fsyncs for each task until its notice is there, two of them in its "
        "submit. A loop that submits one by one waits for each of the two, which alone takes nearly as long as all "
        "that huey does; `submit_many` shares them. The five others overlap in four threads, which keep both "
        "processors busy with that: two thirds of their time is the kernel's (`perf`). Three of them are of "
        "directories, and are shared only where threads meet.",
    ),
    Figure(
        name="throughput-processes",
        title='No-op tasks, warm ProcessBackend, `durability="process"`',
        measure=measure_throughput_processes,
        note="The host runs, and its processes are warm, when the first is submitted. In the way: beside a pool's two "
        "messages through a pipe, a task passes from the host to its supervisor and on to the tool process, and the "
        f"supervisor makes the {_CALLS} that keep it.",
    ),
)
