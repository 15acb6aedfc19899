"""What a shell would type to enqueue a task with huey."""

from benchmarks.programs.huey_app import nothing

print(nothing().id)
