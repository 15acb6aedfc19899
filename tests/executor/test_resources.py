"""Resources: what only so many tasks may use at once, in one executor and over all hosts of a user."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from animaworks_tasks import Executor, Outcome, ProcessBackend, Registry, Store, TaskStore, ThreadBackend
from animaworks_tasks.errors import LimitsError, RegistryError
from animaworks_tasks.executor.resources import Resources
from animaworks_tasks.fs import files as file_system
from animaworks_tasks.fs import layout, slots
from tests.conftest import ManualClock
from tests.executor.workshop import SELDOM, Workshop, executor_of
from tests.processes import PATIENCE, until


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of this machine's limits, which nobody has set."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = Path(layout.limits_file())
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def gpu(workshop: Workshop) -> Workshop:
    """Return a workshop one of whose tools needs a GPU."""
    workshop.registry.add("gpu", "hold", workshop.hold, resource="gpu")
    return workshop


def test_no_more_tasks_use_a_resource_at_once_than_the_executor_allows(
    store: Store, gpu: Workshop, clock: ManualClock
) -> None:
    # given more tasks of a resource than may use it, and a task behind them that needs none
    for word in "abc":
        store.submit("gpu", "hold", word)
        clock.advance(1)
    store.submit("tool", "echo", "free")

    # when
    executor = executor_of(store, gpu, limits={"gpu": 1}, max_workers=4, scan_interval=SELDOM).start()
    until(lambda: len(gpu.calls) > 1)

    # then what needs none was not held up, and the others go on one by one, in order
    assert ["a", "free"] == sorted(gpu.calls)
    gpu.gate.set()
    executor.run_until_idle_sync(timeout=PATIENCE)
    executor.stop()
    assert list("abc") == [word for word in gpu.calls if word != "free"]
    assert 1 == gpu.most_at_once


def test_a_resource_without_a_limit_is_free(store: Store, gpu: Workshop) -> None:
    # given
    for word in "ab":
        store.submit("gpu", "hold", word)

    # when another resource is limited
    executor = executor_of(store, gpu, limits={"scanner": 1}).start()

    # then both run at once
    until(lambda: gpu.most_at_once == 2)
    gpu.gate.set()
    executor.stop()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_lets_nothing_run_is_refused(store: Store, workshop: Workshop, limit: int) -> None:
    with pytest.raises(ValueError, match="limits must be at least 1"):
        executor_of(store, workshop, limits={"gpu": limit})


def test_a_resource_has_a_name() -> None:
    with pytest.raises(RegistryError, match="is no name"):
        Registry().add("gpu", "hold", print, resource="../gpu")


def test_two_stores_share_the_limit_of_the_machine(machine: Path, gpu: Workshop, tmp_path: Path) -> None:
    # given two stores, hosts that look seldom, and a limit over all hosts
    machine.write_text("[limits]\ngpu = 1\n")
    stores = [TaskStore(tmp_path / name) for name in ("one", "two")]
    tasks = [(store, store.submit("gpu", "hold", f"{number}").id) for number in range(4) for store in stores]

    # when both have begun, and the tool in the slot returns
    executors = [executor_of(store, gpu, scan_interval=SELDOM).start() for store in stores]
    until(lambda: gpu.calls)
    gpu.gate.set()
    for executor in executors:
        executor.run_until_idle_sync(timeout=PATIENCE)
        executor.stop()

    # then all have run, one at a time
    assert {Outcome.COMPLETED} == {store.get(task_id).outcome for store, task_id in tasks}
    assert 1 == gpu.most_at_once


def test_a_slot_that_becomes_free_in_another_process_is_taken_at_once(
    machine: Path, files: TaskStore, gpu: Workshop
) -> None:
    # given a slot that another process has taken, and a host that looks seldom
    machine.write_text("[limits]\ngpu = 1\n")
    file_system.make_directory(layout.slots())
    takes = "from animaworks_tasks.fs import slots; slot = slots.take('gpu', 1); print('taken', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", takes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert "taken\n" == other.stdout.readline()
    task = files.submit("gpu", "hold", "a")
    gpu.gate.set()
    executor = executor_of(files, gpu, scan_interval=SELDOM).start()
    until(lambda: executor._resources.full({}))
    assert files.pending(task.id) is not None

    # when
    with other:
        other.kill()

    # then
    assert Outcome.COMPLETED is executor.wait_sync(task.id, timeout=PATIENCE).outcome
    executor.stop()


def open_files() -> list[str]:
    """Return what this process has open."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the list itself
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return links


def test_the_process_of_a_tool_holds_its_slot_so_that_it_is_taken_until_that_is_gone(
    machine: Path, files: TaskStore
) -> None:
    # given
    machine.write_text("[limits]\ngpu = 1\n")
    registry = Registry()
    registry.add("gpu", "open", open_files, resource="gpu")
    registry.add("tool", "open", open_files)
    # when
    with Executor(files, registry, backend=ProcessBackend()) as executor:
        held, free = (
            executor.result_sync(executor.submit_sync(name, "open"), timeout=PATIENCE) for name in ("gpu", "tool")
        )
    # then
    slot = f"{layout.slots()}/gpu.0"
    assert (True, False) == (slot in held, slot in free)


@pytest.mark.usefixtures("machine")
def test_who_only_asks_makes_no_file_and_is_no_reason_to_fail() -> None:
    assert not slots.is_taken("gpu", 1)
    file_system.make_directory(layout.slots())
    assert not slots.is_taken("gpu", 1)
    assert [] == os.listdir(layout.slots())
    Path(layout.slots()).rmdir()
    Path(layout.slots()).write_text("a file where a directory belongs")
    assert not slots.is_taken("gpu", 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[limits]\ngpu = 0\n", "the limit of gpu must be a number of at least 1, not 0"),
        ("[limits]\ngpu = true\n", "the limit of gpu must be a number of at least 1, not True"),
        ("gpu = 1\n", r"one table, \[limits\]"),
        ("[limits]\ngpu =\n", "line 2"),
    ],
)
def test_limits_of_the_machine_that_cannot_be_used_are_refused_at_the_start(
    machine: Path, files: TaskStore, gpu: Workshop, text: str, says: str
) -> None:
    machine.write_text(text)
    with pytest.raises(LimitsError, match=says):
        executor_of(files, gpu, backend=ThreadBackend()).start()


def test_a_slot_that_became_free_during_a_call_is_tried_again() -> None:
    # given a call that began before a slot became free
    resources = Resources(Registry())
    resources.was_taken("gpu", resources.times_freed() - 1)

    # then nothing waits for it; for one that began after it something does
    assert set() == resources.full({})
    resources.was_taken("gpu", resources.times_freed())
    assert {"gpu"} == resources.full({})
