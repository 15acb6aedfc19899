"""
A program that leads a life on a store, for tests that kill real programs; never imported by a test run.

    python -m tests.reliability.worker ANIMA_DIR LIFE RUNS

What it says goes to stdout, a line in one write. Its tools note each run in the file RUNS as well, as a tool with an
effect on the world would.
"""

from __future__ import annotations

import os
import sys

from animaworks_tasks import TaskStore
from tests.reliability.invariants import words
from tests.reliability.lives import EVERYTHING, LIVES


def main(anima: str, what: str, runs: str) -> None:
    def say(*parts: object) -> None:
        line = (words(*parts) + "\n").encode()
        if parts[0] == "ran":
            note = os.open(runs, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(note, line)
            os.close(note)
        os.write(1, line)

    life = {life.name: life for life in (*LIVES, EVERYTHING)}[what]
    store = TaskStore(anima)
    life.before(store, say)
    say("begin")
    life.lead(store, say)


if __name__ == "__main__":
    main(*sys.argv[1:])
