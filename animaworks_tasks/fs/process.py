"""This process: its id, which is asked of the kernel once; a forked child asks again."""

import os


class _Process:
    def __init__(self) -> None:
        self.learn()

    def learn(self) -> None:
        self.pid = os.getpid()


_this = _Process()
os.register_at_fork(after_in_child=_this.learn)


def pid() -> int:
    """Return the id of this process."""
    return _this.pid
