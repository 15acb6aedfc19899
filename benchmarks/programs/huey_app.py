"""A huey application: its queue in the file that BENCH_HUEY names, fsynced if BENCH_HUEY_FSYNC is 1."""

from __future__ import annotations

import os

from huey import SqliteHuey

from benchmarks.programs import tools

huey = SqliteHuey(filename=os.environ["BENCH_HUEY"], fsync=os.environ["BENCH_HUEY_FSYNC"] == "1")


@huey.task()
def mark(fifo: str, sent: str) -> None:
    tools.mark(fifo, sent)


@huey.task()
def nothing() -> None:
    tools.nothing()
