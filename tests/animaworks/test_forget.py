"""What leaves the memory and what leaves the disk, and what others have left there."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from animaworks_tasks import Store, TaskStore
from animaworks_tasks.background import BackgroundTaskManager, TaskStatus
from tests.animaworks.calls import ended, say, shown
from tests.processes import until


def test_what_has_ended_leaves_the_memory_by_age_and_by_number_and_stays_on_disk(tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path, "mei", None, 10, 2)
    first, second, third = (ended(manager, manager.submit("my_tool", {"n": n}, say)) for n in range(3))
    until(lambda: shown(manager, first.task_id) is not first)  # the third one's thread evicts when it has called back
    # then
    assert shown(manager, third.task_id) is third
    assert shown(manager, first.task_id) == first
    assert 0 == manager.evict_completed_tasks(now=time.time() + 599)
    assert 2 == manager.evict_completed_tasks(now=time.time() + 601)
    assert shown(manager, second.task_id) == second
    assert 3 == len(manager.list_tasks())


@pytest.mark.parametrize("where", ["their configuration", "the call"])
def test_how_much_stays_in_memory_is_said_by_the_configuration_of_animaworks_and_by_the_call_first(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the host their module is loaded; it is asked where it stands in sys.modules, and never imported."""
    # given their module, with 10 minutes and 2 tasks, or a call that overrides what it says
    minutes, number = (10, 2) if where == "their configuration" else (0, 0)
    given = {} if where == "their configuration" else {"minutes": 10, "number": 2}
    keys = SimpleNamespace(result_memory_retention_minutes=minutes, max_completed_tasks_in_memory=number)
    module = SimpleNamespace(load_config=lambda: SimpleNamespace(background_task=keys))
    monkeypatch.setitem(sys.modules, "core.config", module)
    # when
    manager = BackgroundTaskManager(tmp_path, "mei", None, given.get("minutes"), given.get("number"))
    first, second, third = (ended(manager, manager.submit("my_tool", {"n": n}, say)) for n in range(3))
    # then two of three are the same objects, for ten minutes
    until(lambda: shown(manager, first.task_id) is not first)
    assert [second, third] == [each for each in (second, third) if shown(manager, each.task_id) is each]
    assert 0 == manager.evict_completed_tasks(now=time.time() + 599)
    assert 2 == manager.evict_completed_tasks(now=time.time() + 601)


def test_a_configuration_that_cannot_be_read_leaves_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Any module may be called so."""
    # given
    monkeypatch.setitem(sys.modules, "core.config", SimpleNamespace())
    # when
    manager = BackgroundTaskManager(tmp_path)
    task = ended(manager, manager.submit("my_tool", {}, say))
    # then
    assert "background_task.result_memory_retention_minutes could not be read: it is 60" in caplog.messages
    assert 0 == manager.evict_completed_tasks(now=time.time() + 3599)
    assert 1 == manager.evict_completed_tasks(now=time.time() + 3601)
    assert "completed" == shown(manager, task.task_id).status


def test_old_tasks_are_forgotten_except_those_that_were_not_acknowledged(store: Store, tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path / "mei", store=store)
    read, unread = (ended(manager, manager.submit("my_tool", {"n": n}, say)) for n in range(2))
    inbox = store.notifications
    inbox.acknowledge([each for each in inbox.peek() if each.task_id == read.task_id])
    # when
    assert 0 == manager.cleanup_old_tasks()
    until(lambda: manager.cleanup_old_tasks(max_age_hours=0) == 1)
    # then
    assert [unread.task_id] == [task.task_id for task in manager.list_tasks()]
    assert manager.get_task(read.task_id) is None


def test_what_the_original_left_is_shown_and_forgotten_in_time(
    files: TaskStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Files of its own, where we have our views: read where nothing of ours has the id, and removed as it did it."""
    # given
    now = time.time()

    def left(task_id: str, **changes: object) -> None:
        values = {
            "task_id": task_id,
            "anima_name": "mei",
            "tool_name": "local_llm",
            "tool_args": {"q": "hi"},
            "status": "completed",
            "created_at": now - 90,
            "completed_at": now - 80,
            "result": "hello",
            "error": None,
        }
        Path(files.layout.root, f"{task_id}.json").write_text(json.dumps(values | changes))

    left("new_task_001")
    left("old_task_001", completed_at=now - 48 * 3600)
    left("dead", status="running", created_at=now - 49 * 3600, completed_at=None)
    left("alive", status="running", completed_at=None)
    left("strange", status="odd")
    Path(files.layout.root, "torn.json").write_text("{")
    Path(files.layout.root, "list.json").write_text("[]")
    manager = BackgroundTaskManager(files.location, store=files)
    ours = manager.submit("my_tool", {}, say)
    ended(manager, ours)
    # then
    assert {"new_task_001", "old_task_001", "dead", "alive", ours} == {t.task_id for t in manager.list_tasks()}
    assert ("hello", {"q": "hi"}) == (shown(manager, "new_task_001").result, shown(manager, "new_task_001").tool_args)
    assert "background_tasks/torn.json cannot be read" in caplog.text
    assert manager.get_task("../done/" + ours) is None
    # when
    assert 2 == manager.cleanup_old_tasks()
    # then
    assert {"new_task_001", "alive", ours} == {task.task_id for task in manager.list_tasks()}


def test_the_record_of_a_shell_is_a_task_too_and_one_that_cannot_be_read_is_none(
    files: TaskStore, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    manager = BackgroundTaskManager(files.location, store=files)
    pending, running = (files.submit("image_gen", "3d", "-i", f"{n}.png") for n in range(2))
    claim = files.claim(running.id)
    Path(files.layout.pending, "bad000000000.json").write_text("{")
    # then
    task = shown(manager, pending.id)
    assert ("image_gen:3d", TaskStatus.PENDING, None) == (task.tool_name, task.status, task.completed_at)
    assert {"subcommand": "3d", "raw_args": ["3d", "-i", "0.png"], "anima_dir": files.location} == task.tool_args
    assert TaskStatus.RUNNING is shown(manager, running.id).status
    assert {pending.id, running.id} == {task.task_id for task in manager.list_tasks()}
    assert manager.get_task("bad000000000") is None
    assert "task bad000000000 cannot be read" in caplog.text
    # and such a one is not removed as if the original had left it
    Path(files.layout.root, "bad000000000.json").write_text('{"status": "completed"}')
    assert 0 == manager.cleanup_old_tasks(0)
    assert claim is not None
