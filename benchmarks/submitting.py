"""What a submit costs: the whole command, the call, a thousand at once; and what an import costs."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import _peers
from benchmarks._machine import ROOT, environment, fresh, took
from benchmarks._measure import (
    Bench,
    Comparison,
    Contestant,
    Figure,
    Role,
    Target,
    compare,
    in_turns,
    progress,
    together,
)

_AT_ONCE, _ONE_BY_ONE = True, False
_CALL: Final = ("image_gen", "3d", "in.png", "--quality", "high")


def measure_command(bench: Bench) -> Sequence[Comparison]:
    """Run `animaworks-tool submit` as an agent does."""
    python, tool, script = _installation(bench)
    anima = bench.fresh("anima")
    env = environment(ANIMAWORKS_ANIMA_DIR=str(anima))
    times = bench.size(20, 3)
    programs = Path(__file__).parent / "programs"

    def running(*argv: str | Path, **more: str) -> float:
        words = [str(word) for word in argv]
        took(words, env | more, 1)  # once for the bytecode
        return took(words, env | more, times)

    by_hand = bench.fresh("by-hand")
    for name in ("tmp", "pending"):
        (by_hand / name).mkdir()
    huey = {"BENCH_HUEY": str(bench.fresh("huey") / "huey.db"), "BENCH_HUEY_FSYNC": "1", "PYTHONPATH": str(ROOT)}

    def run_huey() -> float:
        _peers.need("huey")
        return running(sys.executable, programs / "huey_enqueue.py", **huey)

    def run_rq() -> float:
        with _peers.redis_server(bench.fresh("rq")) as socket:
            return running(sys.executable, programs / "rq_enqueue.py", socket, PYTHONPATH=str(ROOT))

    return [
        compare(
            bench,
            [
                Contestant(name="python -c pass", role=Role.FLOOR, run=lambda: running(python, "-c", "pass")),
                Contestant(
                    name="animaworks-tool submit",
                    role=Role.OURS,
                    run=lambda: running(tool, "submit", *_CALL),
                    promise=_peers.OURS_FULL,
                ),
                Contestant(
                    name="a durable submit by hand",
                    role=Role.PEER,
                    run=lambda: running(python, programs / "durable_submit.py", by_hand),
                    promise=_peers.BY_HAND,
                ),
                Contestant(
                    name="AnimaWorks, re-enacted",
                    role=Role.PEER,
                    run=lambda: running(python, programs / "animaworks_submit.py", *_CALL),
                    promise=_peers.ANIMAWORKS,
                ),
                Contestant(name="huey", role=Role.PEER, run=run_huey, promise=_peers.HUEY_FSYNC),
                Contestant(name="rq", role=Role.PEER, run=run_rq, promise=_peers.RQ),
            ],
            what=script,
            unit="ms",
            against="python -c pass",
            target=Target(1.3),
        )
    ]


def _installation(bench: Bench) -> tuple[Path, Path, str]:
    """Return an interpreter, the command beside it, and which start script that is: installed as the README says."""
    if bench.quick:  # an installation takes longer than all the rest
        home = Path(sys.prefix)
    else:
        home = bench.fresh("venv")
        progress("installing, as the README says, in a new environment")
        installing: tuple[list[str | Path], ...] = (
            [sys.executable, "-m", "venv", home],
            [home / "bin" / "pip", "install", "--quiet", "-e", ROOT],
        )
        for argv in installing:
            done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"installing in a new environment failed:\n{done.stderr.strip()}")
    tool = home / "bin" / "animaworks-tool"
    if not tool.exists():
        raise RuntimeError(f"{tool} is not there: run the suite with the Python of an environment it is installed in")
    imports_re = "import re\n" in tool.read_text(encoding="utf-8")
    script = "its start script imports re, as pip before 25 writes it" if imports_re else "its start script is lean"
    return home / "bin" / "python", tool, script


# In-process.


def measure_submit(bench: Bench) -> Sequence[Comparison]:
    """Submit durably from a process that runs already."""
    times = bench.size(300, 30)
    share = together(lambda: fresh(submit_in_turns, bench.fresh("submit"), times))
    return [
        compare(
            bench,
            [
                Contestant(name=name, role=role, run=share(name), promise=promise)
                for name, role, promise in (
                    ("the raw calls", Role.FLOOR, None),
                    ("store.submit", Role.OURS, _peers.OURS_FULL),
                    ("huey, fsync", Role.PEER, _peers.HUEY_FSYNC),
                    ("persist-queue", Role.PEER, _peers.PERSIST_QUEUE),
                )
            ],
            unit="µs",
            against="the raw calls",
            target=Target(1.25),
        )
    ]


def submit_in_turns(directory: Path, times: int) -> dict[str, float]:
    """Return the median microseconds of a submit by each, one of each in turns."""
    from animaworks_tasks import TaskStore

    store = TaskStore(directory / "anima")
    task = store.submit(*_CALL)
    record = next((directory / "anima" / "state" / "background_tasks" / "pending").glob(f"{task.id}.json")).read_bytes()
    calls = {"the raw calls": _raw_submit(directory, record), "store.submit": lambda: store.submit(*_CALL)}
    try:
        from huey import SqliteHuey
        from persistqueue import SQLiteAckQueue
    except ImportError:
        pass
    else:
        huey_task = SqliteHuey(filename=str(directory / "huey.db"), fsync=True).task()(_takes_anything)
        queue = SQLiteAckQueue(str(directory / "queue"))
        calls |= {"huey, fsync": lambda: huey_task(*_CALL), "persist-queue": lambda: queue.put(_CALL)}
    return {name: seconds * 1e6 for name, seconds in in_turns(times, calls, time.perf_counter).items()}


def _takes_anything(*_: str) -> None:
    pass


def _raw_submit(directory: Path, record: bytes) -> Any:  # noqa: ANN401 - a call without arguments
    """Return the least that makes *record* durable under a name of its own, with both directories open already."""
    for name in ("tmp", "pending"):
        (directory / name).mkdir()
    tmp, pending = (os.open(directory / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("tmp", "pending"))
    number = iter(range(1 << 40))

    def submit() -> None:
        name = f"{next(number):012x}.json"
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=tmp)
        os.write(fd, record)
        os.fsync(fd)
        os.close(fd)
        os.link(name, name, src_dir_fd=tmp, dst_dir_fd=pending)
        os.fsync(pending)
        os.unlink(name, dir_fd=tmp)

    return submit


def measure_submit_many(bench: Bench) -> Sequence[Comparison]:
    """Submit a thousand tasks at once."""
    tasks = bench.size(1000, 50)
    return [
        compare(
            bench,
            [
                Contestant(
                    name="single submits",
                    role=Role.FLOOR,
                    run=lambda: fresh(submit_rate, bench.fresh("single"), tasks, _ONE_BY_ONE),
                    promise=_peers.OURS_FULL,
                ),
                Contestant(
                    name="store.submit_many",
                    role=Role.OURS,
                    run=lambda: fresh(submit_rate, bench.fresh("many"), tasks, _AT_ONCE),
                    promise=_peers.OURS_FULL,
                ),
            ],
            what=f"{tasks:,} tasks",
            unit="tasks/s",
            against="single submits",
            target=Target(5, "least"),
        )
    ]


def submit_rate(directory: Path, tasks: int, at_once: bool) -> float:  # noqa: FBT001 - one of two ways
    """Return how many tasks are submitted in a second, one by one or at once."""
    from animaworks_tasks import TaskStore

    store = TaskStore(directory)
    tool, *argv = _CALL
    begun = time.perf_counter()
    if at_once:
        store.submit_many(tool, [argv] * tasks)
    else:
        for _ in range(tasks):
            store.submit(tool, *argv)
    return tasks / (time.perf_counter() - begun)


# Imports.


def measure_import(bench: Bench) -> Sequence[Comparison]:
    """Import the package, in a process of its own."""
    times = bench.size(20, 3)

    def importing(statement: str) -> float:
        argv = [sys.executable, "-c"]
        took([*argv, statement], environment(), 1)
        return took([*argv, statement], environment(), times) - took([*argv, "pass"], environment(), times)

    contestants = [
        Contestant(name=statement, role=role, run=functools.partial(importing, statement))
        for role, statement in (
            (Role.FLOOR, "import attrs, filelock"),
            (Role.OURS, "import animaworks_tasks"),
            (Role.OURS, "from animaworks_tasks import Executor, Registry, TaskStore"),
        )
    ]
    left = [Contestant(name="import animaworks_tasks", role=Role.OURS, run=lambda: float(fresh(left_by_import)))]
    return [
        compare(bench, contestants, what="its time", unit="ms", against="import attrs, filelock", target=Target(1.3)),
        compare(bench, left, what="threads and open files that it leaves", unit="", target=Target(0, of="value")),
    ]


def left_by_import() -> int:
    """Return how many threads and open files there are more after the import than before."""

    def count() -> int:
        return threading.active_count() + len(os.listdir("/proc/self/fd"))

    before = count()
    import animaworks_tasks  # noqa: F401 - the import is what is measured

    return count() - before


FIGURES: Final = (
    Figure(
        name="submit-command",
        title="`animaworks-tool submit`, the whole process",
        measure=measure_command,
        note="Every process is started alike and its output thrown away. The peers are enqueued from a script of three "
        "lines, in the environment that runs the suite.",
    ),
    Figure(name="submit", title="A durable submit in-process", measure=measure_submit),
    Figure(
        name="submit-many",
        title="`submit_many`, durable",
        measure=measure_submit_many,
        note="In the way, where an fsync is cheap: each task is still a file that is created, written, synced, linked "
        "and unlinked, which keeps both processors busy (`getrusage`: more than 100 µs of their time for each). Where "
        "it is dear, that is hidden: 9.6x with `--dir` on an ext4 with a journal, on a loop device beside this one.",
    ),
    Figure(
        name="import",
        title="Importing the package",
        measure=measure_import,
        note="A whole process less `python -c pass`. Names are loaded when they are first used: the third line is what "
        "a host pays.",
    ),
)
