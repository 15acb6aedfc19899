"""A host whose tools record how many of them use a resource at once, for a test that kills it; ``... STORE``."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from animaworks_tasks import Executor, Registry, TaskStore

registry = Registry()


def use(resource: str, journal: str) -> None:
    """Hold one of the lines of a resource for a moment; a held line is a lock that dies with this process."""
    import fcntl

    for number in range(8):  # more than are allowed
        with Path(journal, f"{resource}.{number}").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            with Path(journal, "seen").open("a") as seen:
                seen.write(f"{resource} {number + 1}\n")
            time.sleep(0.03)  # what it is used for
            return


@registry.tool("gpu", "use", resource="gpu", on_interrupt="retry", max_attempts=100)
def gpu(journal: str) -> None:
    """Use a GPU."""
    use("gpu", journal)


@registry.tool("scanner", "use", resource="scanner", on_interrupt="retry", max_attempts=100)
def scanner(journal: str) -> None:
    """Use a scanner."""
    use("scanner", journal)


if __name__ == "__main__":
    with Executor(TaskStore(sys.argv[1]), registry, max_workers=4):
        print(os.getpid(), flush=True)
        threading.Event().wait()
