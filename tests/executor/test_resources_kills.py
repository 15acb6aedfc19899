"""Resources of the machine, while hosts and supervisors are killed: never more at once than allowed, and all end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from animaworks_tasks import Outcome, State, TaskStore
from animaworks_tasks.fs import layout

HOST = Path(__file__).with_name("resource_host.py")
ALLOWED = {"gpu": 1, "scanner": 2}
TASKS, HOSTS, KILLS = 60, 3, 12


@pytest.fixture
def hosts() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Return a list of host processes; those in it at the end are killed."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for host in running:
        host.kill()
        host.wait()


@pytest.mark.slow
def test_no_more_use_a_resource_than_the_machine_allows_while_hosts_and_supervisors_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: list[subprocess.Popen[bytes]]
) -> None:
    # given three hosts with a store each, two resources, and sixty tasks
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = Path(layout.limits_file())
    path.parent.mkdir(parents=True)
    path.write_text("[limits]\n" + "".join(f"{name} = {limit}\n" for name, limit in ALLOWED.items()))
    journal = tmp_path / "journal"
    journal.mkdir()
    stores = [TaskStore(tmp_path / f"anima {number}") for number in range(HOSTS)]
    for number in range(TASKS):
        stores[number % HOSTS].submit(list(ALLOWED)[number // HOSTS % 2], "use", str(journal))
    hosts += [_host(store, journal) for store in stores]

    # when hosts and supervisors are killed until all tasks have ended
    chance, kills, deadline = random.Random(12), 0, time.monotonic() + 240  # noqa: S311 - no secret
    while any(store.list(State.PENDING) or store.list(State.RUNNING) for store in stores):
        assert time.monotonic() < deadline, "not all have ended"
        if kills < KILLS:
            kills += 1
            number = chance.randrange(HOSTS)
            supervisors = _children(hosts[number].pid)
            if supervisors and kills % 2:
                os.kill(chance.choice(supervisors), signal.SIGKILL)
            else:
                hosts[number].kill()
                hosts[number].wait()
                hosts[number] = _host(stores[number], journal)
        time.sleep(0.2)

    # then
    assert {Outcome.COMPLETED} == {task.outcome for store in stores for task in store.list(State.DONE)}
    uses = [line.split() for line in (journal / "seen").read_text().splitlines()]
    assert TASKS <= len(uses)
    for resource, allowed in ALLOWED.items():
        assert allowed == max(int(most) for name, most in uses if name == resource)


def _host(store: TaskStore, journal: Path) -> subprocess.Popen[bytes]:
    host = subprocess.Popen([sys.executable, HOST, store.location, journal], stdout=subprocess.PIPE)
    assert host.stdout is not None
    with host.stdout:
        host.stdout.readline()  # it has begun
    return host


def _children(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words]
