"""The least that a durable submit can be: no checks, no options, no directory made; ``durable_submit.py DIRECTORY``."""

import os
import sys

directory = sys.argv[1]
name = os.urandom(6).hex() + ".json"
draft, target = os.path.join(directory, "tmp", name), os.path.join(directory, "pending", name)
record = (
    b'{"task_id": "' + name[:12].encode() + b'", "tool_name": "image_gen", "subcommand": "3d", "raw_args": ["3d"]}\n'
)
fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
os.write(fd, record)
os.fsync(fd)
os.close(fd)
os.link(draft, target)
fd = os.open(os.path.dirname(target), os.O_RDONLY)
os.fsync(fd)
os.close(fd)
os.unlink(draft)
os.write(1, record)
