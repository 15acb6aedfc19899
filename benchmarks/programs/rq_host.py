"""An rq worker as it is by default, which forks for every task: ``rq_host.py SOCKET``."""

import os
import sys
import threading

from redis import Redis
from rq import Worker


def leave() -> None:
    """End with stdin: a worker that waits for redis cannot be asked."""
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=leave, daemon=True).start()
print("ready", flush=True)
Worker(["default"], connection=Redis(unix_socket_path=sys.argv[1])).work(logging_level="ERROR")
