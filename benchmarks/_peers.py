"""
The peers: what each promises, and how each is made to do the work that ours does.

Everything of a peer is imported where it is used, in the process that is measured: one that is not installed has a line
that says so. What they promise was read in their sources, at the lower bounds that pyproject.toml gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks._machine import PATIENCE, environment, installed
from benchmarks._measure import Missing, Promise

OURS_FULL: Final = Promise(
    fsync="before it is acknowledged", crash="nothing", power="nothing", running="yes: told, or run again"
)
OURS_PROCESS: Final = Promise(
    fsync="never", crash="nothing", power="the last seconds", running="yes: told, or run again"
)
BY_HAND: Final = Promise(
    fsync="before it is acknowledged", crash="nothing", power="nothing", running="does not run any"
)
HUEY: Final = Promise(fsync="never", crash="what was running", power="the last seconds", running="no: forgotten")
HUEY_FSYNC: Final = Promise(
    fsync="before it is acknowledged", crash="what was running", power="what was running", running="no: forgotten"
)
RQ: Final = Promise(
    fsync="once a second", crash="nothing", power="the last second", running="yes: failed, once it is overdue"
)
PERSIST_QUEUE: Final = Promise(
    fsync="before it is acknowledged",
    crash="nothing",
    power="nothing",
    running="yes: run again; no outcome is kept",
)
LITEQUEUE: Final = Promise(
    fsync="now and then", crash="nothing", power="the last seconds", running="stays locked; no outcome is kept"
)
DISKCACHE: Final = Promise(
    fsync="now and then", crash="what was running", power="the last seconds", running="no: forgotten"
)
ANIMAWORKS: Final = Promise(
    fsync="never", crash="what was running, half a file", power="the last seconds", running="no: it stays as running"
)
POOL: Final = Promise(fsync="never", crash="everything", power="everything", running="no: forgotten")

REDIS_SETTINGS: Final = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")


def need(*packages: str) -> None:
    """Raise Missing unless all *packages* are installed."""
    for package in packages:
        if installed(package) is None:
            raise Missing(f"not installed: {package}; pip install -e '.[bench]'")


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[Path]:
    """
    Run a redis of our own for the length of the block, and give the socket on which alone it listens.

    Raises:
        Missing: There is none.
    """
    need("redis", "rq")
    server = shutil.which("redis-server")
    if server is None:
        raise Missing("not installed: redis-server; apt-get install redis-server")
    socket = directory / "redis.sock"
    process = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(socket), "--dir", str(directory), *REDIS_SETTINGS],
        stdout=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"redis-server did not start; is the path of its socket too long? {socket}")
            time.sleep(0.01)
        yield socket
    finally:
        process.terminate()
        process.wait()


class Countdown:
    """Tells when so many calls were made, from any thread."""

    def __init__(self, calls: int) -> None:
        self._left, self._mutex, self._over = calls, threading.Lock(), threading.Event()

    def __call__(self) -> None:
        with self._mutex:
            self._left -= 1
            if not self._left:
                self._over.set()

    def wait(self) -> None:
        """Wait for the last one."""
        if not self._over.wait(5 * PATIENCE):
            raise RuntimeError(f"{self._left} tasks did not run in {5 * PATIENCE:.0f} s")


# No-op tasks end to end: each submits so many, has threads run them, and returns how many it did in a second.


def huey_rate(directory: Path, tasks: int, workers: int, fsync: bool) -> float:  # noqa: FBT001 - as huey has it
    """Tasks per second of huey's consumer, over SQLite."""
    from huey import SqliteHuey

    done = Countdown(tasks)
    huey = SqliteHuey(filename=str(directory / "huey.db"), fsync=fsync)

    @huey.task()
    def nothing() -> None:
        done()

    consumer = huey.create_consumer(workers=workers, periodic=False)
    begun = time.perf_counter()
    for _ in range(tasks):
        nothing()
    consumer.start()
    done.wait()
    rate = tasks / (time.perf_counter() - begun)
    consumer.stop()
    return rate


def persist_queue_rate(directory: Path, tasks: int, workers: int) -> float:
    """Tasks per second through a SQLiteAckQueue."""
    from persistqueue import SQLiteAckQueue

    queue = SQLiteAckQueue(str(directory), multithreading=True)

    def run() -> None:
        item = queue.get()
        queue.ack(item)

    return _by_hand(tasks, workers, lambda: queue.put({"tool": "nothing"}), lambda: run)


def litequeue_rate(directory: Path, tasks: int, workers: int) -> float:
    """Tasks per second through a LiteQueue; a connection per thread, as SQLite wants it."""
    from litequeue import LiteQueue

    path = str(directory / "lite.db")
    queue = LiteQueue(path, timeout=PATIENCE)

    def connect() -> Callable[[], None]:
        mine = LiteQueue(path, timeout=PATIENCE)
        return lambda: mine.done(mine.pop().message_id)

    return _by_hand(tasks, workers, lambda: queue.put("nothing"), connect)


def diskcache_rate(directory: Path, tasks: int, workers: int) -> float:
    """Tasks per second through a diskcache Deque."""
    from diskcache import Deque

    deque = Deque(directory=str(directory))

    def run() -> None:
        deque.popleft()

    return _by_hand(tasks, workers, lambda: deque.append("nothing"), lambda: run)


def _by_hand(tasks: int, workers: int, put: Callable[[], object], connect: Callable[[], Callable[[], None]]) -> float:
    """Run what has no workers of its own: *put* every task, then let each thread *connect* and run its share."""

    def work(share: int) -> None:
        run = connect()
        for _ in range(share):
            run()
            done()

    done = Countdown(tasks)
    threads = [
        threading.Thread(target=work, args=[tasks // workers + (number < tasks % workers)], daemon=True)
        for number in range(workers)
    ]
    begun = time.perf_counter()
    for _ in range(tasks):
        put()
    for thread in threads:
        thread.start()
    done.wait()
    return tasks / (time.perf_counter() - begun)


def animaworks_rate(directory: Path, tasks: int) -> float:
    """Tasks per second of AnimaWorks' own watcher: all of them wait for its next look, which is 3 s away at most."""
    from benchmarks.programs.animaworks_host import INTERVAL, watch

    async def run() -> float:
        watcher = asyncio.create_task(watch(directory, stop_after=tasks))
        await asyncio.sleep(INTERVAL / 2)  # a submit comes at any time: half an interval before a look, on average
        begun = time.perf_counter()
        for number in range(tasks):
            write_pending(directory, f"{number:012x}", "nothing")
        await watcher
        return tasks / (time.perf_counter() - begun)

    return asyncio.run(run())


def write_pending(anima: Path, task_id: str, *argv: str) -> None:
    """Leave the record of a task as AnimaWorks' submit does: a plain write."""
    record = {
        "task_id": task_id,
        "tool_name": "bench",
        "subcommand": argv[0],
        "raw_args": argv,
        "anima_name": anima.name,
        "anima_dir": str(anima),
        "submitted_at": time.time(),
        "status": "pending",
    }
    path = anima / "state" / "background_tasks" / "pending" / f"{task_id}.json"
    path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
