"""Stores to test on, a clock that stands still, and what an owner does in a test: begin a task, and die."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

from animaworks_tasks import MemoryTaskStore, OnInterrupt, Store, TaskStore
from animaworks_tasks.fs import locks
from animaworks_tasks.store.memory import MemoryLock
from animaworks_tasks.store.protocol import Claim
from animaworks_tasks.testing import ManualClock

hypothesis.settings.register_profile("fast", max_examples=30, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=600, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# A shell starts what it puts in the background deaf to Ctrl-C, and all that we start would be deaf too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test looks into the home of the user who runs them.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="animaworks-home-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

# Hundreds of interpreters are started, each of which would compile all of the package where a container forbids to keep
# what was compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Take half as many processes again as there are cores: a third of the time of a test it waits for others."""
    return -(-len(os.sched_getaffinity(0)) * 3 // 2)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "process", "full"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Store:
    """Every store there is: in memory, and as files with and without fsync."""
    if request.param == "memory":
        return MemoryTaskStore(language="en", clock=clock)
    return TaskStore(tmp_path / "mei", language="en", durability=request.param, clock=clock)


@pytest.fixture
def files(tmp_path: Path, clock: ManualClock) -> TaskStore:
    """A store of files, for what only files have."""
    return TaskStore(tmp_path / "mei", language="en", durability="process", clock=clock)


def own(store: Store, task_id: str) -> Claim:
    """Claim a pending task and publish its view, as a runner does before it starts the tool."""
    claim = store.claim(task_id)
    assert claim is not None
    store.publish_view(claim)
    return claim


def begin(
    store: Store, *, tool: str = "image_gen", key: str | None = None, on_interrupt: OnInterrupt | None = None
) -> Claim:
    """Submit a call and own it."""
    return own(store, store.submit(tool, "3d", key=key, on_interrupt=on_interrupt).id)


def die(claim: Claim) -> None:
    """Let go of the lock and nothing else, which is what the kernel does when an owner dies."""
    assert isinstance(claim.lock, locks.Lock | MemoryLock)
    claim.lock.release()
