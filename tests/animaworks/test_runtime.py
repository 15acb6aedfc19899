"""A program of one of AnimaWorks' runtimes, written from what it expects before there was a manager; and its tasks."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from animaworks_tasks.background import BackgroundTask, BackgroundTaskManager, TaskStatus
from tests.processes import eventually, in_event_loop

PROFILES = {
    "image_gen": {
        "3d": {"expected_seconds": 600, "background_eligible": True},
        "icon": {"expected_seconds": 120, "background_eligible": False},
    },
    "my_tool": {"slow": {"background_eligible": True}},  # no number
}


class Runtime:
    """An Anima: asks whether a tool is slow, submits it if so, goes on, and is notified."""

    def __init__(self, anima_dir: Path) -> None:
        self.inbox: list[str] = []
        self.manager = BackgroundTaskManager.from_profiles(anima_dir, "sakura", PROFILES, {"my_tool:slow": 90})
        self.manager.on_complete = self.on_complete

    async def on_complete(self, task: BackgroundTask) -> None:
        self.inbox.append(task.summary())

    def call(self, name: str, args: dict[str, Any]) -> str:
        if self.manager.is_eligible(name):
            return json.dumps({"status": "background", "task_id": self.manager.submit(name, args, self.execute)})
        return self.execute(name, args)

    def execute(self, name: str, args: dict[str, Any]) -> str:
        if args.get("fail"):
            raise RuntimeError(args["fail"])
        return f"{name} made {args['what']}"


@in_event_loop
async def test_a_runtime_written_for_animaworks_own_class(tmp_path: Path) -> None:
    # given
    anima = Runtime(tmp_path / "sakura")
    assert anima.call("web_search", {"what": "hits"}) == "web_search made hits"

    # when it hands off from its loop, and from a thread
    slow = json.loads(anima.call("image_gen:3d", {"what": "猫"}))["task_id"]
    broken = json.loads(anima.call("generate_3d_model", {"fail": "no credits"}))["task_id"]

    async def later(name: str, args: dict[str, Any]) -> str:
        await asyncio.sleep(0)
        return f"{name} {args['n']}"

    asynchronous = anima.manager.submit_async("my_tool:slow", {"n": 7}, later)
    from_thread = await asyncio.to_thread(anima.manager.submit, "my_tool:slow", {"what": "x"}, anima.execute)
    await eventually(lambda: not anima.manager.active_count() and len(anima.inbox) == 4)

    # then each task says what became of it
    task = anima.manager.get_task(slow)
    assert task is not None
    assert (task.task_id, task.tool_name, task.tool_args) == (slow, "image_gen:3d", {"what": "猫"})
    assert (task.status, task.result, task.error) == (TaskStatus.COMPLETED, "image_gen:3d made 猫", None)
    assert task.completed_at is not None
    assert task.completed_at >= task.created_at > 1.6e9
    assert task.to_dict()["status"] == "completed"
    assert task.summary() == "[image_gen:3d] completed: image_gen:3d made 猫"
    failed = anima.manager.get_task(broken)
    assert failed is not None
    assert (failed.status, failed.result, failed.error) == (TaskStatus.FAILED, None, "RuntimeError: no credits")
    assert failed.summary() == "[generate_3d_model] failed: RuntimeError: no credits"
    assert getattr(anima.manager.get_task(asynchronous), "result", None) == "my_tool:slow 7"
    assert anima.manager.get_task("000000000000") is None

    # and they are listed
    everything = anima.manager.list_tasks()
    assert [t.created_at for t in everything] == sorted((t.created_at for t in everything), reverse=True)
    assert {t.task_id for t in everything} == {slow, broken, asynchronous, from_thread}
    assert [t.task_id for t in anima.manager.list_tasks(TaskStatus.FAILED)] == [broken]
    assert anima.manager.list_tasks(status=TaskStatus.RUNNING) == []

    # and another manager on the directory, after a restart say, knows what the first one did
    again = BackgroundTaskManager.from_profiles(tmp_path / "sakura", "sakura", {}, {})
    shown = again.get_task(slow)
    assert shown is not None
    assert shown.to_dict() == task.to_dict()
    anima.manager.evict_completed_tasks()
    assert getattr(anima.manager.get_task(slow), "result", None) == "image_gen:3d made 猫"
    anima.manager.cleanup_old_tasks(max_age_hours=24)
    assert anima.manager.get_task(slow) is not None

    # and AnimaWorks' readers find each as one JSON object, and the heartbeat one notification each
    state = tmp_path / "sakura" / "state"
    views = [json.loads(path.read_text("utf-8")) for path in (state / "background_tasks").glob("*.json")]
    assert {view["task_id"] for view in views} == {t.task_id for t in everything}
    notifications = sorted((state / "background_notifications").glob("*.md"))
    assert [each.stem for each in notifications] == sorted(t.task_id for t in everything)


# AnimaWorks' class has these too.


def test_a_task_is_made_from_its_fields_alone() -> None:
    before = time.time()
    task = BackgroundTask("abc123", "sakura", "local_llm", {"prompt": "x"})
    assert (TaskStatus.PENDING, None, None, None) == (task.status, task.completed_at, task.result, task.error)
    assert before <= task.created_at <= time.time()
    assert "[local_llm] pending" == task.summary()
    assert {
        "task_id": "abc123", "anima_name": "sakura", "tool_name": "local_llm", "tool_args": {"prompt": "x"},
        "status": "pending", "created_at": task.created_at, "completed_at": None, "result": None, "error": None,
    } == task.to_dict()  # fmt: skip


def test_a_summary_shows_two_hundred_characters_of_the_result() -> None:
    task = BackgroundTask("abc123", "sakura", "local_llm", {}, TaskStatus.COMPLETED, result="x" * 500)
    assert f"[local_llm] completed: {'x' * 200}" == task.summary()
