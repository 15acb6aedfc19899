"""This process: its id, which is asked of the kernel once; a forked child asks again."""

import os

_this = {"pid": os.getpid()}
os.register_at_fork(after_in_child=lambda: _this.update(pid=os.getpid()))


def pid() -> int:
    """Return the id of this process."""
    return _this["pid"]
