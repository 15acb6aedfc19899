"""On one directory are several managers and hosts, which may die: a call has one outcome and one notification."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from animaworks_tasks import Cause, Executor, Outcome, Registry, State, Store, TaskStore, ThreadBackend
from animaworks_tasks.background import BackgroundTask, BackgroundTaskManager, TaskStatus
from animaworks_tasks.cli import main
from animaworks_tasks.errors import StoreError
from animaworks_tasks.store.rules import new_task
from tests.animaworks.calls import ended, say, shown
from tests.conftest import die
from tests.processes import PATIENCE, eventually, in_event_loop, until


@in_event_loop
async def test_managers_and_executors_share_a_directory_and_each_task_is_told_once(tmp_path: Path) -> None:
    # given two managers and an executor with another one's tools, all in this process
    store = TaskStore(tmp_path, language="en", durability="process")
    called: list[str] = []

    async def on_complete(task: BackgroundTask) -> None:
        called.append(task.task_id)

    registry = Registry()
    registry.add("echo", "words", lambda *words: " ".join(words))
    managers = [BackgroundTaskManager(tmp_path, store=TaskStore(tmp_path, durability="process")) for _ in range(2)]
    async with Executor(store, registry, backend=ThreadBackend(), scan_interval=0.01) as executor:
        # when
        task_ids = []
        for n in range(20):
            managers[n % 2].on_complete = on_complete
            task_ids.append(managers[n % 2].submit("image_gen:3d", {"n": n}, say))
            BackgroundTaskManager(tmp_path, store=store)  # looks for orphans
        echoed = await executor.submit("echo", "words", "a")
        await executor.wait(echoed.id)
        await eventually(lambda: len(called) == 20)
    # then
    assert sorted(task_ids) == sorted(called)
    assert {Outcome.COMPLETED} == {task.outcome for task in store.list()}
    assert sorted([*task_ids, echoed.id]) == sorted(str(each.task_id) for each in store.notifications.peek())
    notified = until(lambda: found if len(found := _notified(store)) > 20 else None)
    assert 21 == len(notified)


def _notified(store: TaskStore) -> list[dict[str, Any]]:
    return [event for event in store.events() if event["event"] == "notified"]


HOST = """
import sys, threading
from animaworks_tasks import TaskStore
from animaworks_tasks.background import BackgroundTaskManager

def call(name, args):
    print("called", flush=True)
    threading.Event().wait()

manager = BackgroundTaskManager(sys.argv[1], store=TaskStore(sys.argv[1], language="en"))
sys.stdout.write(manager.submit("generate_3d_model", {"what": "cat"}, call) + "\\n")
sys.stdout.flush()
threading.Event().wait()
"""


def test_a_call_ends_as_interrupted_when_its_host_dies_and_is_told_once(tmp_path: Path) -> None:
    # given a host that dies in the middle of a call
    with subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path)], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        task_id = host.stdout.readline().strip()
        store = TaskStore(tmp_path, language="en")
        until(lambda: store.read_log(task_id))
        beside = BackgroundTaskManager(tmp_path, store=store)  # while it lives, nobody takes it for dead
        assert TaskStatus.RUNNING is shown(beside, task_id).status
        host.send_signal(signal.SIGKILL)
    # when
    managers = [BackgroundTaskManager(tmp_path, store=TaskStore(tmp_path, language="en")) for _ in range(3)]
    # then
    until(lambda: store.get(task_id).state is State.DONE)
    task = shown(managers[0], task_id)
    assert (TaskStatus.FAILED, {"what": "cat"}, "generate_3d_model") == (task.status, task.tool_args, task.tool_name)
    assert "its process died while it was running" in str(task.error)
    [notification] = until(store.notifications.peek)
    assert "- Cause: interrupted" in notification.text
    noted = until(lambda: [each for each in store.events(task_id) if each["event"] == "notified"])
    assert 1 == len(noted)


def test_a_manager_leaves_orphans_of_tools_to_their_executor(files: TaskStore) -> None:
    """Only that knows which of them may run again."""
    # given an orphan of each kind, and one that cannot be read
    claim = files.claim(files.submit("image_gen", "3d").id)
    task = attrs.evolve(
        new_task("x", (), {}, anima_dir=files.location, at=datetime.now(UTC)), extra={"in_process": True}
    )
    ours = files.begin(task)
    assert claim is not None
    die(claim)
    die(ours)
    Path(files.layout.running, "bad000000000.json").write_text("{")
    # when
    BackgroundTaskManager(files.location, store=files)
    # then
    until(lambda: files.get(ours.task.id).state is State.DONE)
    assert (Cause.INTERRUPTED, State.RUNNING) == (files.get(ours.task.id).cause, files.get(claim.task.id).state)
    assert Path(files.layout.running, "bad000000000.json").exists()


def test_a_host_starts_also_where_orphans_cannot_be_looked_at(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    def refuse(**_: object) -> None:
        raise OSError(errno.EIO, "the disk said no")

    monkeypatch.setattr(store, "recover", refuse)
    # when
    manager = BackgroundTaskManager(tmp_path / "mei", store=store)
    # then
    until(lambda: "could not be recovered" in caplog.text)
    assert TaskStatus.COMPLETED is ended(manager, manager.submit("my_tool", {}, say)).status


def test_a_call_inside_a_host_is_not_submitted_once_more_by_a_shell(
    files: TaskStore, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    manager = BackgroundTaskManager(files.location, store=files)
    task_id = manager.submit("my_tool", {}, say)
    ended(manager, task_id)
    # when
    assert 1 == main(["retry", "--anima-dir", files.location, task_id])
    # then
    assert "which alone can make it again" in capsys.readouterr().err
    assert 1 == len(files.list())


# What the stores promise of such tasks.


def test_a_task_that_begins_as_ours_is_never_anybody_elses(store: Store) -> None:
    # given
    task = new_task("my_tool", (), {}, anima_dir=store.location, at=datetime.now(UTC))
    # when
    claim = store.begin(task)
    # then
    assert (set(), None) == (store.pending_ids(), store.claim(task.id))
    assert (task.id,) == store.recover().alive
    assert State.RUNNING is store.get(task.id).state
    # and when we die
    die(claim)
    assert () == store.recover(concerns=lambda task: task.tool != "my_tool").finished
    [finished] = store.recover().finished
    assert Cause.INTERRUPTED is finished.cause


@pytest.mark.parametrize("where", ["pending", "running", "done"])
def test_an_id_that_is_taken_is_not_begun_anew(files: TaskStore, where: str) -> None:
    # given
    task = new_task("my_tool", (), {}, anima_dir=files.location, at=datetime.now(UTC))
    path = Path(getattr(files.layout, where), f"{task.id}.{'json' if where == 'pending' else 'task'}")
    path.write_text("whatever")
    # then
    with pytest.raises(StoreError, match="already"):
        files.begin(task)
    assert "whatever" == path.read_text()
    assert [] == os.listdir(files.layout.tmp)


DEATHS = """
import json, os, signal, sys
from datetime import UTC, datetime
from animaworks_tasks import TaskStore
from animaworks_tasks.store.rules import new_task
from animaworks_tasks.task.states import Event

EVENTS = {"open", "os.link", "os.rename", "os.remove", "fcntl.flock"}


def live(store, last):
    "Begin and end a call, and die before step number *last*."
    step = 0

    def hook(event, _):
        nonlocal step
        step += event in EVENTS
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    claim = store.begin(new_task("my_tool", (), {}, anima_dir=store.location, at=datetime.now(UTC)), durably=False)
    store.secure(claim)
    store.finish(claim, Event.COMPLETE)
    os._exit(0)


for last in range(1, 1000):
    directory = os.path.join(sys.argv[1], str(last))
    store = TaskStore(directory)
    child = os.fork()
    if child == 0:
        live(store, last)
    killed = os.waitpid(child, 0)[1] != 0
    again = TaskStore(directory)
    again.recover()
    tasks = [task.cause.value if task.cause else task.outcome.value for task in again.list()]
    notified = sorted(each.task_id for each in again.notifications.peek())
    left = [*os.listdir(again.layout.running), *os.listdir(again.layout.pending)]
    print(json.dumps([tasks, len(notified), left]))
    if not killed:
        break
"""


def test_killed_at_any_step_a_call_of_ours_is_unknown_or_has_one_outcome_and_one_notification(tmp_path: Path) -> None:
    # when a process dies before each of the steps by which its call comes into the store, and ends there
    done = subprocess.run(
        [sys.executable, "-c", DEATHS, str(tmp_path)],
        # A file of coverage for each of the dead would take longer than all their lives.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    # then
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) > 15
    assert [] == [each for each in found if each[1] != len(each[0]) or each[2]]
    seen = [each[0] for each in found]
    order = [[], ["interrupted"], ["completed"]]
    assert order == [outcome for outcome in order if outcome in seen]
    assert seen == sorted(seen, key=order.index)
