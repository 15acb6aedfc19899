"""This process: its id, which is asked of the kernel once; a forked child asks again."""

import os

_this = {"pid": os.getpid()}
os.register_at_fork(after_in_child=lambda: _this.update(pid=os.getpid()))


def file_size_limit(process: int) -> int | None:
    """Return how many bytes a file may have that *process* writes (RLIMIT_FSIZE); None if any, or nobody knows."""
    try:
        with open(f"/proc/{process}/limits", encoding="ascii") as limits:  # proc(5)
            line = next((line for line in limits if line.startswith("Max file size ")), "")
        return int(line.split()[3])
    except (OSError, ValueError, IndexError):  # ValueError: it is "unlimited"
        return None


def pid() -> int:
    """Return the id of this process."""
    return _this["pid"]
