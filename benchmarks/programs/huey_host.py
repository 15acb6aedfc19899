"""Huey's consumer, two threads, all else as it is by default."""

from benchmarks.programs.huey_app import huey
from benchmarks.programs.tools import serve

consumer = huey.create_consumer(workers=2)
consumer.start()
serve()
consumer.stop(graceful=True)
