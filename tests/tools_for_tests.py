"""Tools for tests, at the top of a module, where any process can load them; what they do to their process is real."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import attrs

from animaworks_tasks import Registry, TaskStore, ToolContext, run_task
from animaworks_tasks.worker import runner

registry = Registry()


def wait_for(path: Path) -> None:
    """Wait until *path* is there, which is how a test holds a tool and lets it go."""
    while not path.exists():
        time.sleep(0.005)


# --- for backends, which know nothing of tools ---


def divide(a: int, *, by: int) -> float:
    return a / by


def wait_and_return(path: Path, value: str) -> str:
    wait_for(path)
    return value


def make_unpicklable() -> object:
    return threading.Lock()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@attrs.frozen
class GoingDown:
    """A clock that sends its process SIGTERM at the look number *at*, unless it is that of *host*; once."""

    host: int
    at: int
    sent: Path

    def __call__(self) -> datetime:
        if os.getpid() != self.host and next(_looks) == self.at and not self.sent.exists():
            self.sent.touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return datetime.now(UTC)


_looks = itertools.count(1)


# --- well behaved ---


@registry.tool("proc", "echo")
def echo(*words: str) -> str:
    return " ".join(words)


@registry.tool("proc", "ids")
def ids() -> list[int]:
    """Return the ids of this process and of its supervisor."""
    return [os.getpid(), os.getppid()]


@registry.tool("proc", "hold")
def hold(gate: Path, *, context: ToolContext) -> list[int]:
    """Say who runs, in the log, and wait for the gate."""
    print(os.getpid(), os.getppid(), flush=True)
    while not gate.exists():
        context.raise_if_cancelled()
        time.sleep(0.005)
    return [os.getpid(), os.getppid()]


@registry.tool("proc", "speak")
def speak(gate: Path) -> None:
    """Print in every way there is, and wait for the gate."""
    print("from python", flush=True)
    subprocess.run(["/bin/echo", "from a subprocess"], check=True)
    os.write(2, b"from a descriptor\n")
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()
    wait_for(gate)


@registry.tool("proc", "fail")
def fail(tries: Path) -> str:
    """Fail twice, and then succeed."""
    with tries.open("a") as file:
        file.write("x")
    if len(tries.read_text()) < 3:
        raise ConnectionError("not yet")
    return "third time lucky"


@registry.tool("proc", "inspect")
def inspect(*, context: ToolContext) -> dict[str, object]:
    """Say what this process has from the one that it was forked from."""
    files = {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(int(fd))}
    record = f"{context.task_id}.json (deleted)"  # as the kernel names it since it lies in running/ only
    kinds = {f"{context.task_id}.log": "log", record: "record"}
    ring: list[object] = []
    ring.append(ring)
    del ring
    return {
        "files": [kinds.get(os.path.basename(file), file.partition(":[")[0]) for _, file in sorted(files.items())],
        "leads its session": os.getpid() == os.getsid(0) == os.getpgid(0),
        "handlers": {name: signal.getsignal(number).__name__ for name, number in _HANDLED.items()},  # type: ignore[union-attr]  # a function
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "invoker": runner._invoke.__name__,  # type: ignore[attr-defined]  # a function
        "argv": sys.argv,
        "collected": gc.collect() if gc.isenabled() else 0,
    }


_HANDLED = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@registry.tool("proc", "draw")
def draw() -> float:
    return random.random()  # noqa: S311 - no secret


@registry.tool("proc", "postpone")
def postpone(done: Path) -> str:
    """Leave something to do when this process ends, and a directory that goes with it."""
    atexit.register(done.touch)
    _left.append(tempfile.TemporaryDirectory())
    return json.dumps(_left[0].name)


_left: list[tempfile.TemporaryDirectory[str]] = []


@registry.tool("proc", "run_inside")
def run_inside(directory: Path) -> list[int]:
    """Be the host of a task; return the process that ran it, and this one."""
    store = TaskStore(directory, durability="process")
    task = run_task(store, registry, store.submit("proc", "ids").id)
    assert task is not None
    return [json.loads(task.result or "")[0], os.getpid()]


# --- badly behaved ---


@registry.tool("proc", "leave")
def leave(status: int) -> None:
    os._exit(status)


@registry.tool("proc", "kill")
def kill(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


@registry.tool("proc", "segfault")
def segfault() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


@registry.tool("proc", "close")
def close(*descriptors: int) -> str:
    """Close these descriptors, or all of them, and go on as if nothing were."""
    for fd in descriptors or range(256):
        with contextlib.suppress(OSError):
            os.close(fd)
    print("who hears this?", flush=True)
    return "closed"


@registry.tool("proc", "litter")
def litter() -> None:
    os.chdir("/")
    os.umask(0o123)
    os.environ["LITTER"] = "left"
    os.environ.pop("KEPT_FOR_TESTS", None)


@registry.tool("proc", "look")
def look() -> dict[str, str | None]:
    umask = os.umask(0)
    os.umask(umask)
    names = ("LITTER", "KEPT_FOR_TESTS", "ANIMAWORKS_ANIMA_DIR", "ANIMAWORKS_TASK_ID")
    return {"cwd": os.getcwd(), "umask": oct(umask), **{name: os.environ.get(name) for name in names}}


@registry.tool("proc", "fork")
def fork() -> str:
    child = os.fork()
    if child == 0:
        return "the child"
    os.waitpid(child, 0)
    return "the parent"


@registry.tool("proc", "orphan")
def orphan() -> int:
    """Leave a process that has died, and whose parent has."""
    parent = subprocess.run(["/bin/sh", "-c", "sleep 0 & echo $!"], check=True, capture_output=True)
    return int(parent.stdout)


@registry.tool("proc", "daemon", grace_seconds=0.2)
def daemon(pid_file: Path) -> None:
    """Start a daemon as daemons do, which ignores SIGTERM too, and wait."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            draft = pid_file.with_suffix(".draft")
            draft.write_text(str(os.getpid()))
            draft.rename(pid_file)
            while True:
                signal.pause()
        os._exit(0)
    wait_for(pid_file)
    while True:
        signal.pause()


@registry.tool("proc", "stubborn", grace_seconds=0.1)
def stubborn(begun: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begun.touch()
    while True:
        time.sleep(0.01)


@registry.tool("proc", "alone", on_interrupt="retry", max_attempts=99)
def alone(place: Path, left: str, *, context: ToolContext) -> str:
    """Ignore SIGTERM, leave something running, and note it where two runs overlap; the holder of *lock* still works."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)  # noqa: FBT003 - as os has it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (place / "twice").touch()
    if left == "a forked child" and os.fork() == 0:
        while True:
            signal.pause()
    if left == "a program":
        subprocess.Popen(["sleep", "600"], close_fds=False)
    (place / f"began-{context.attempt}").touch()
    wait_for(place / f"may-end-{context.attempt}")
    return f"attempt {context.attempt}"


# The same as a program of its own, in a shell: of what an attempt is, it finds the first that has no file yet.
_ALONE = """
trap '' TERM
for place; do :; done
exec 9>>"$place/lock"
flock -n 9 || touch "$place/twice"
number=1
while [ -e "$place/began-$number" ]; do number=$((number + 1)); done
touch "$place/began-$number"
while [ ! -e "$place/may-end-$number" ]; do sleep 0.01; done
echo "attempt $number"
"""
registry.add_command("program", "alone", ["sh", "-c", _ALONE, "sh"], on_interrupt="retry", max_attempts=99)


@registry.tool("proc", "tidy", grace_seconds=20)
def tidy(begun: Path, tidied: Path) -> None:
    """Clean up after itself, which takes a while in which it is asked to stop again."""
    try:
        begun.touch()
        while True:
            time.sleep(0.01)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        tidied.touch()


@registry.tool("proc", "again", on_interrupt="retry")
def again(gate: Path, *, context: ToolContext) -> str:
    print(os.getpid(), os.getppid(), flush=True)
    if context.attempt == 1:
        wait_for(gate)
    return f"attempt {context.attempt}"


@registry.tool("proc", "litter_processes")
def litter_processes(gate: Path) -> None:
    """Start processes that outlive their parents, and die; wait for the gate."""
    for _ in range(5):
        subprocess.run(["/bin/sh", "-c", "sleep 0 & echo $!"], check=True)
    print("left", flush=True)
    wait_for(gate)


@registry.tool("proc", "doom", on_interrupt="retry")
def doom() -> None:
    """Take the supervisor along, as running out of memory does."""
    print("here", flush=True)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


registry.add_command("command", "sleep", [sys.executable, "-c", "import time; time.sleep(600)"])
