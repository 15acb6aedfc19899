"""What a shell would type to enqueue a task with rq: ``rq_enqueue.py SOCKET``."""

import sys

from redis import Redis
from rq import Queue

print(Queue(connection=Redis(unix_socket_path=sys.argv[1])).enqueue("benchmarks.programs.tools.nothing").id)
