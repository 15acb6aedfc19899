"""Where nothing can be written, what is there can be looked at and pruned; a host waits for room, and says so."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from animaworks_tasks import Executor, InlineBackend, Registry, State, Task, TaskStore, ThreadBackend
from tests.filesystems.conftest import Mount, host, run
from tests.processes import PATIENCE, until
from tests.reliability.invariants import problems

pytestmark = pytest.mark.slow

registry = Registry()


@registry.tool("words", "count")
def count(text: str) -> int:
    return len(text.split())


def tool(anima: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "animaworks_tasks", "--anima-dir", str(anima), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def finished(store: TaskStore, text: str) -> Task:
    executor = Executor(store, registry, backend=InlineBackend()).start()
    try:
        return executor.wait_sync(executor.submit_sync("words", "count", text).id)
    finally:
        executor.stop()


def no_room(disk: Path) -> Callable[[], None]:
    """Fill *disk* to its last byte."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while filler.write(bytes(size)):
                    pass
            os.fsync(filler.fileno())
    return (disk / "filler").unlink


def no_inodes(disk: Path) -> Callable[[], None]:
    """Make files until *disk* has no inode left."""
    (disk / "many").mkdir()
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (disk / "many" / str(number)).touch()

    def undo() -> None:
        for path in (disk / "many").iterdir():
            path.unlink()

    return undo


def read_only(disk: Path) -> Callable[[], None]:
    gc.collect()  # a journal that is open for appending would keep it writable
    run("mount", "-o", "remount,ro", str(disk))
    return lambda: run("mount", "-o", "remount,rw", str(disk))


@pytest.fixture(params=[no_room, no_inodes, read_only])
def fill(request: pytest.FixtureRequest) -> Callable[[Path], Callable[[], None]]:
    return request.param


@pytest.fixture
def disk(image: Mount) -> Path:
    return image("ext4", 8, "-N", "300")


@pytest.fixture
def store(disk: Path) -> TaskStore:
    return TaskStore(disk / "mei", language="en")


def test_what_is_there_can_be_looked_at(
    store: TaskStore, disk: Path, tmp_path: Path, fill: Callable[[Path], Callable[[], None]]
) -> None:
    # given
    done, waits = finished(store, "one two"), store.submit("words", "count", "three")
    store.place.journal._close()  # or else nobody could make the disk read-only
    undo = fill(disk)

    # then
    anima = Path(store.location)
    for words, shown in (
        (["list"], waits.id),
        (["show", done.id], "completed"),
        (["notifications"], done.id),
        (["events"], "notified"),
        (["report", "--html", str(tmp_path / "report.html")], ""),
    ):
        result = tool(anima, *words)
        assert (0, True) == (result.returncode, shown in result.stdout), (words, result)
    doctor = tool(anima, "doctor")
    assert 1 == doctor.returncode
    assert "cannot be written" in doctor.stdout or "nearly full" in doctor.stdout
    receipt = tool(anima, "submit", "words", "count", "four")
    assert (1, "") == (receipt.returncode, receipt.stdout)
    assert "nothing was queued" in receipt.stderr

    # and nothing was changed by it
    undo()
    assert [waits.id] == [task.id for task in store.list(State.PENDING)]
    assert [] == os.listdir(store.layout.tmp)


@pytest.mark.parametrize("fill", [no_room, no_inodes])
def test_acknowledging_and_pruning_make_room(
    store: TaskStore, disk: Path, fill: Callable[[Path], Callable[[], None]]
) -> None:
    done = finished(store, "one two")
    fill(disk)
    anima = Path(store.location)
    assert 0 == tool(anima, "notifications", "--ack").returncode
    pruned = tool(anima, "prune", "--older-than", "0s")
    assert (0, True) == (pruned.returncode, done.id in pruned.stdout), pruned
    assert [] == store.list()
    assert 0 == tool(anima, "submit", "words", "count", "four").returncode, "there is room for this one"


def test_a_host_says_that_it_takes_no_task_and_takes_it_when_there_is_room(
    store: TaskStore,
    disk: Path,
    caplog: pytest.LogCaptureFixture,
    fill: Callable[[Path], Callable[[], None]],
) -> None:
    # given
    waits = store.submit("words", "count", "three")
    store.place.journal._close()  # or else nobody could make the disk read-only
    undo = fill(disk)

    # when
    executor = Executor(TaskStore(disk / "mei"), registry, backend=ThreadBackend(), scan_interval=0.05).start()
    try:
        until(lambda: any("cannot be written" in message for message in caplog.messages))
        looks = TaskStore.problem
        count, patch = itertools.count(), pytest.MonkeyPatch()
        patch.setattr(TaskStore, "problem", lambda store: (next(count), looks(store))[1])
        until(lambda: next(count) > 3)
        patch.undo()

        # then
        assert State.PENDING is store.get(waits.id).state
        assert 1 == len(caplog.messages), "it is said once"
        undo()
        assert "1" == executor.wait_sync(waits.id, timeout=30).result
    finally:
        executor.stop()
    said = [f"{store.layout.root} cannot be written: ", "tasks are started again"]
    assert [True, True] == [message.startswith(each) for message, each in zip(caplog.messages, said, strict=True)]


def test_a_disk_that_fills_again_and_again_in_every_phase_loses_nothing(disk: Path) -> None:
    # given a host that submits and ends tasks, while its disk is full for half of the time
    said: list[str] = []
    with host(disk / "mei", 150) as working:
        reading = threading.Thread(target=lambda: said.extend(line.strip() for line in working.stdout or ()))
        reading.start()
        full = 0
        while working.poll() is None:
            before = len(said)
            undo = no_room(disk)
            full += 1
            time.sleep(0.05)  # for so long it is full, whatever the host does meanwhile
            undo()
            until(lambda before=before: len(said) > before or working.poll() is not None)
        reading.join(PATIENCE)

    # then
    assert (0, True) == (working.returncode, full > 1)
    assert {"submitted", "finished"} == {line.split()[0] for line in said}
    assert [] == problems(disk / "mei", said)
