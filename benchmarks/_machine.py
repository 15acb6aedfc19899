"""
Where it is measured, and what Linux tells of a process: the memory that is its own, the processor time it has used.

Also how other programs are started, so that each figure starts them alike.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, TypeVar

from benchmarks._measure import Missing

ROOT: Final = Path(__file__).resolve().parent.parent
PEERS: Final = ("huey", "rq", "redis", "persist-queue", "litequeue", "diskcache")
IN_MEMORY: Final = {"tmpfs", "ramfs", "devtmpfs"}
PATIENCE: Final = 60.0  # seconds after which a program that says nothing is taken for broken
_SPAWN: Final = multiprocessing.get_context("spawn")
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000  # linux/fs.h, as on x86 and ARM

T = TypeVar("T")


def machine(directory: Path) -> dict[str, str]:
    """Return what a reader must know of where it was measured, by name."""
    kind, options = file_system(directory)
    versions = [f"{name} {version}" for name in PEERS if (version := installed(name))]
    return {
        "file system": f"{kind} ({options})",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "animaworks_tasks": installed("animaworks_tasks") or "from its source",
        "peers": ", ".join(versions) or "none installed; pip install -e '.[bench]'",
    }


def file_system(path: Path) -> tuple[str, str]:
    """Return type and options of the file system on which *path* lies."""
    found = ("unknown", "")
    longest = -1
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, point, kind, options = line.split(" ")[:4]
            if path.resolve().is_relative_to(point) and len(point) >= longest:
                longest, found = len(point), (kind, options)
    return found


def keep_apart(directory: Path) -> None:
    """
    Let what is made in *directory* lie far apart on the disk, where the file system knows how (``chattr +T``).

    An ext4 without a journal looks, for every new file, at each one that was deleted nearby in the last minutes: what
    one round has left behind would make the next one up to forty times slower, ours and the peers' alike.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            flags = bytearray(8)
            fcntl.ioctl(fd, _GET_FLAGS, flags)
            set_flags = int.from_bytes(flags, sys.byteorder) | _TOP_DIRECTORY
            fcntl.ioctl(fd, _SET_FLAGS, set_flags.to_bytes(8, sys.byteorder))
    finally:
        os.close(fd)


def installed(package: str) -> str | None:
    """Return the version of *package*, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(**more: str) -> dict[str, str]:
    """Return the environment of children: ours, but with bytecode cached as on a user's machine."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | more


# Whole processes.


def took(argv: Sequence[str], env: Mapping[str, str], times: int) -> float:
    """Return the median time of so many runs of a program, from its start to its end, in milliseconds."""
    nothing = os.open(os.devnull, os.O_RDWR)
    quiet = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, nothing, 1)]
    taken = []
    try:
        for _ in range(times):
            begun = time.perf_counter()
            pid = os.posix_spawn(argv[0], list(argv), env, file_actions=quiet)
            status = os.waitpid(pid, 0)[1]
            taken.append(time.perf_counter() - begun)
            if status:
                raise RuntimeError(f"it ended with status {os.waitstatus_to_exitcode(status)}: {' '.join(argv)}")
    finally:
        os.close(nothing)
    return statistics.median(taken) * 1000


@contextlib.contextmanager
def program(module: str, *arguments: object, **env: str) -> Iterator[subprocess.Popen[str]]:
    """
    Run a program of ours (`benchmarks.programs`) from when it says that it is ready to the end of the block.

    Raises:
        RuntimeError: It ended instead; the message has its last words.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.programs.{module}", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=environment(**env),
            start_new_session=True,  # Ctrl-C is for us, and we end it
        )
        assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        assert process.stdout is not None  # noqa: S101 - likewise
        try:
            if process.stdout.readline() != "ready\n":
                process.wait(PATIENCE)
                errors.seek(0)
                raise RuntimeError(f"{module} did not start: {(errors.read().strip().splitlines() or ['?'])[-1]}")
            yield process
        finally:
            process.stdin.close()  # which is how it is told to end
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def fresh(function: Callable[..., T], /, *arguments: object) -> T:
    """Call *function* in a new interpreter, which knows nothing of earlier rounds, and return what it returns."""
    ours, theirs = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        good, value = ours.recv()
        process.join()
    except EOFError:
        raise RuntimeError(f"{function.__name__} died in its process; run it alone with `python -X dev`") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if not good:
        raise value
    result: T = value
    return result


def _answer(connection: Connection, function: Callable[..., object], arguments: Sequence[object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # our parent has it, and kills us
    try:
        connection.send((True, function(*arguments)))
    except Exception as error:  # noqa: BLE001 - it goes where it is understood
        connection.send((False, error))


# A process, seen from outside.


def private_memory(pid: int) -> float:
    """Return the memory that would be free if the process were not there (its USS), in MiB."""
    return sum(size for name, size in _mapped(pid).items() if name.startswith("Private_"))


def shared_memory(one: int, two: int) -> float:
    """Return the memory that two processes share, one a fork of the other, and nobody else has, in MiB."""
    mapped = [_mapped(pid) for pid in (one, two)]
    return sum(each["Anonymous"] - each["Pss_Anon"] for each in mapped)  # each is told half of what it shares


def _mapped(pid: int) -> dict[str, float]:
    try:
        _, *lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise Missing(f"/proc/{pid}/smaps_rollup cannot be read ({error.strerror}): it needs Linux") from error
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def processor_time(pid: int) -> float:
    """Return the processor time of all threads of a process so far, in seconds."""
    return time.clock_gettime(
        ~pid << 3 | 2
    )  # the clock of another process: clock_getcpuclockid(3), as Linux encodes it


def children(pid: int) -> list[int]:
    """Return the ids of the processes that a process has started and that live."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (thread / "children").read_text(encoding="ascii").split()]
    return found


def wait_until_quiet(pid: int) -> None:
    """Wait until a process has used less than a hundredth of a processor for half a second."""
    deadline = time.monotonic() + 10 * PATIENCE
    while time.monotonic() < deadline:
        before = processor_time(pid)
        time.sleep(0.5)
        if processor_time(pid) - before < 0.005:  # noqa: PLR2004 - as said
            return
    raise RuntimeError(f"process {pid} did not come to rest in {10 * PATIENCE:.0f} s")
