"""
The manager that AnimaWorks' own code knows.

The first test is a program of one of its runtimes, written from DESIGN section 10 alone, before there was a manager.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from animaworks_tasks import Cause, Executor, MemoryTaskStore, Outcome, Registry, State, Store, TaskStore, ThreadBackend
from animaworks_tasks.background import (
    DEFAULT_ELIGIBLE_TOOLS,
    BackgroundTask,
    BackgroundTaskManager,
    SubmittedId,
    TaskStatus,
)
from animaworks_tasks.cli import main
from animaworks_tasks.errors import StoreError
from animaworks_tasks.store.protocol import new_task
from tests.conftest import die
from tests.processes import PATIENCE, eventually, in_event_loop, until

PROFILES = {
    "image_gen": {
        "3d": {"expected_seconds": 600, "background_eligible": True},
        "icon": {"expected_seconds": 120, "background_eligible": False},
    },
    "my_tool": {"slow": {"background_eligible": True}},  # no number
}


class Runtime:
    """An Anima: asks whether a tool is slow, hands it off if so, goes on, and is told."""

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
    from_thread: list[str] = []
    thread = threading.Thread(
        target=lambda: from_thread.append(anima.manager.submit("my_tool:slow", {"what": "x"}, anima.execute))
    )
    thread.start()
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
    assert {t.task_id for t in everything} == {slow, broken, asynchronous, *from_thread}
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

    # and AnimaWorks' readers find each as one JSON object, and the heartbeat one notice each
    state = tmp_path / "sakura" / "state"
    views = [json.loads(path.read_text("utf-8")) for path in (state / "background_tasks").glob("*.json")]
    assert {view["task_id"] for view in views} == {t.task_id for t in everything}
    notices = sorted((state / "background_notifications").glob("*.md"))
    assert [notice.stem for notice in notices] == sorted(t.task_id for t in everything)


# What follows was written beside the manager.


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryTaskStore(language="en")
    return TaskStore(tmp_path / "mei", language="en", durability="process")


@pytest.fixture
def manager(store: Store, tmp_path: Path) -> BackgroundTaskManager:
    return BackgroundTaskManager(tmp_path / "mei", store=store)


def say(name: str, args: dict[str, Any]) -> str:
    return f"{name} {args}"


def shown(manager: BackgroundTaskManager, task_id: str) -> BackgroundTask:
    task = manager.get_task(task_id)
    assert task is not None
    return task


def ended(manager: BackgroundTaskManager, task_id: str) -> BackgroundTask:
    """Wait for the end of a task."""
    return until(lambda: task if (task := shown(manager, task_id)).status in {"completed", "failed"} else None)


class Gate:
    """A call that goes on when it is let."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def __call__(self, _name: str, _args: dict[str, Any]) -> str:
        self.began.set()
        assert self.may_end.wait(PATIENCE)
        return "through"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.may_end.set()


def test_the_function_is_called_with_exactly_what_was_submitted(manager: BackgroundTaskManager) -> None:
    """Also where JSON has no words for it; the record says what it can."""
    # given
    args = {"path": Path("a"), "raw": b"\xff"}
    seen: list[object] = []
    # when
    task_id = manager.submit("my_tool", args, lambda name, given: seen.extend([name, given]))
    # then
    task = ended(manager, task_id)
    assert seen == ["my_tool", args]
    assert seen[1] is args
    assert task.tool_args is args
    assert (TaskStatus.COMPLETED, None) == (task.status, task.result)


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ({}, {}),
        ({"path": Path("a"), "n": [1, None]}, {"path": "a", "n": [1, None]}),
        ({"text": "猫" * 400_000}, {"arguments": '{"text": "' + "猫" * 989 + "…"}),
        ({"text": "\ud800"}, {"arguments": r"{'text': '\ud800'}"}),
        ({(1, 2): 3}, {"arguments": "{(1, 2): 3}"}),
        (["no", "dict"], {"arguments": ['["no", "dict"]']}),
    ],
)
def test_another_process_is_shown_what_json_keeps_of_the_arguments(
    files: TaskStore, args: dict[str, Any], kept: dict[str, Any]
) -> None:
    # given
    manager = BackgroundTaskManager(files.location, store=files)
    task_id = manager.submit("my_tool", args, lambda _name, _args: None)
    ended(manager, task_id)
    # when
    other = BackgroundTaskManager(files.location, store=TaskStore(files.location))
    # then
    assert kept == shown(other, task_id).tool_args


def test_arguments_that_cannot_even_be_named_are_no_reason_to_fail(manager: BackgroundTaskManager) -> None:
    class Nameless:
        def __repr__(self) -> str:
            raise KeyError

    circle: dict[str, Any] = {"x": Nameless()}
    circle["again"] = circle
    assert TaskStatus.COMPLETED is ended(manager, manager.submit("my_tool", circle, lambda _name, _args: None)).status


@pytest.mark.parametrize("name", ["image_gen:3d", "generate_3d_model", "a:b:c", ":", "a:", "猫", "two words"])
def test_any_name_is_a_tool(manager: BackgroundTaskManager, store: Store, name: str) -> None:
    # when
    task = ended(manager, manager.submit(name, {"a": 1}, say))
    # then
    assert (name, f"{name} {{'a': 1}}") == (task.tool_name, task.result)
    assert name == store.get(task.task_id).name
    [notice] = store.notifications.peek()
    assert f"- Tool: {name}\n" in notice.text


def test_a_task_without_a_name_is_refused_and_nothing_is_kept(manager: BackgroundTaskManager, store: Store) -> None:
    with pytest.raises(ValueError, match="needs the name"):
        manager.submit("", {}, say)
    assert [] == store.list()


def test_a_task_is_running_from_the_moment_it_was_submitted(
    manager: BackgroundTaskManager, store: Store, gate: Gate
) -> None:
    """It is never pending: another host must not come and reject what it does not know."""
    # when
    task_id = manager.submit("image_gen:3d", {}, gate)
    # then
    running = shown(manager, task_id)
    assert (1, TaskStatus.RUNNING, "[image_gen:3d] running") == (
        manager.active_count(), running.status, running.summary(),
    )  # fmt: skip
    assert (set(), State.RUNNING) == (store.pending_ids(), store.get(task_id).state)
    assert 600 == store.get(task_id).expected_seconds
    # and the object changes as the call does
    gate.may_end.set()
    until(lambda: running.status is TaskStatus.COMPLETED)
    assert ("through", 0) == (running.result, manager.active_count())


def test_what_is_printed_is_in_the_log_and_a_large_result_is_kept_whole(files: TaskStore) -> None:
    # given
    manager = BackgroundTaskManager(files.location, store=files)

    def call(_name: str, _args: dict[str, Any]) -> str:
        print("half way")
        return "猫" * 100_000

    # when
    task_id = manager.submit("my_tool", {}, call)
    # then
    assert "猫" * 100_000 == ended(manager, task_id).result
    assert b"half way\n" == files.read_log(task_id)
    other = BackgroundTaskManager(files.location, store=files)
    assert "猫" * 100_000 == shown(other, task_id).result
    # and where the file is gone, or a record names somebody else's, its beginning
    done = files.get(task_id)
    beginning = done.result
    Path(files.layout.root, str(done.result_file)).unlink()
    assert beginning == shown(other, task_id).result
    path = Path(files.layout.done, f"{task_id}.json")
    record = path.read_text()
    for forged in ("../../../secret", files.workspace("0" * 12).keep_result(b"a secret"), f"results/{task_id}/\\u0000"):
        path.write_text(record.replace(str(done.result_file), forged))
        assert beginning == shown(other, task_id).result


def test_a_result_is_text_and_a_coroutine_that_is_returned_is_run(manager: BackgroundTaskManager) -> None:
    # given a function that is async, and submitted as if it were not
    async def call(_name: str, _args: dict[str, Any]) -> dict[str, int]:
        return {"n": 1}

    # then
    assert '{\n  "n": 1\n}' == ended(manager, manager.submit("my_tool", {}, call)).result


def test_a_function_that_only_promises_has_failed(manager: BackgroundTaskManager) -> None:
    """Its work was not done, so the agent is not told that it was."""
    task = ended(manager, manager.submit("my_tool", {}, lambda *_: (n for n in range(3))))
    assert TaskStatus.FAILED is task.status
    assert "it returned an unfinished generator: nobody has gone through it, so its work was not done" == task.error


def test_a_function_may_exit_or_say_what_is_wrong(manager: BackgroundTaskManager) -> None:
    def leave(_name: str, _args: dict[str, Any]) -> str:
        raise SystemExit("no luck")

    assert "no luck" == ended(manager, manager.submit("my_tool", {}, leave)).error


# Being told.


def test_without_an_event_loop_the_callback_has_one_of_its_own(manager: BackgroundTaskManager) -> None:
    # given
    told: list[tuple[str, bool]] = []

    async def on_complete(task: BackgroundTask) -> None:
        await asyncio.sleep(0)
        told.append((task.task_id, asyncio.get_running_loop().is_running()))

    manager.on_complete = on_complete
    # when
    task_id = manager.submit("my_tool", {}, say)
    # then
    assert [(task_id, True)] == until(lambda: told)


@in_event_loop
async def test_the_callback_runs_in_the_loop_that_submitted(tmp_path: Path) -> None:
    """And for what a thread submitted, in the last one that was seen."""
    # given a manager that was made without a loop
    manager = await asyncio.to_thread(BackgroundTaskManager, tmp_path)
    loops: list[object] = []

    async def on_complete(_: BackgroundTask) -> None:
        loops.append(asyncio.get_running_loop())

    manager.on_complete = on_complete
    # when
    manager.submit("my_tool", {}, say)
    await asyncio.to_thread(manager.submit, "my_tool", {}, say)
    # then
    await eventually(lambda: len(loops) == 2)
    assert [asyncio.get_running_loop()] * 2 == loops


def test_where_the_loop_that_submitted_is_gone_the_callback_is_called_all_the_same(
    manager: BackgroundTaskManager, gate: Gate
) -> None:
    # given
    told: list[str] = []

    def on_complete(task: BackgroundTask) -> None:  # a plain function, which the original would call too
        told.append(task.task_id)

    manager.on_complete = on_complete  # type: ignore[assignment]  # as said

    async def submit() -> str:
        return manager.submit("my_tool", {}, gate)

    task_id = asyncio.run(submit())
    # when
    gate.may_end.set()
    # then
    assert [task_id] == until(lambda: told)


def test_a_callback_that_raises_is_logged_and_changes_nothing(
    manager: BackgroundTaskManager, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    async def on_complete(_: BackgroundTask) -> None:
        raise KeyError("whatever")

    manager.on_complete = on_complete
    # when
    task_id = manager.submit("my_tool", {}, say)
    # then
    until(lambda: "on_complete callback" in caplog.text)
    assert f"failed for task {task_id}" in caplog.text
    assert [task_id] == [notice.task_id for notice in store.notifications.peek()]
    assert TaskStatus.COMPLETED is shown(manager, task_id).status


# Async calls.


@in_event_loop
async def test_an_async_call_runs_in_the_loop_that_submitted_it(tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path)
    event = asyncio.Event()

    async def call(name: str, args: dict[str, Any]) -> str:
        await event.wait()  # of this loop
        return f"{name} {args['n']}"

    # when it is awaited as the original's is
    task_id = await manager.submit_async("my_tool", {"n": 1}, call)
    other = manager.submit_async("my_tool", {"n": 2}, call)
    event.set()
    # then
    await eventually(lambda: not manager.active_count())
    assert ("my_tool 1", "my_tool 2") == (shown(manager, task_id).result, shown(manager, other).result)
    assert str is type(task_id)
    assert isinstance(other, SubmittedId)
    assert other == await other == pickle.loads(pickle.dumps(other)) == json.loads(json.dumps(other))


def test_an_async_call_from_a_thread_without_a_loop_has_one_of_its_own(manager: BackgroundTaskManager) -> None:
    async def call(_name: str, _args: dict[str, Any]) -> str:
        await asyncio.sleep(0)
        return "done"

    assert "done" == ended(manager, manager.submit_async("my_tool", {}, call)).result


@in_event_loop
async def test_an_async_call_that_is_asked_to_stop_is_cancelled(tmp_path: Path) -> None:
    # given
    store = TaskStore(tmp_path, durability="process")
    manager = BackgroundTaskManager(tmp_path, store=store)
    began, cleaned_up = asyncio.Event(), []

    async def call(_name: str, _args: dict[str, Any]) -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    task_id = manager.submit_async("my_tool", {}, call)
    await began.wait()
    # when
    store.request_cancel(task_id)
    # then
    await eventually(lambda: not manager.active_count())
    assert ([True], Outcome.CANCELLED) == (cleaned_up, store.get(task_id).outcome)
    assert (TaskStatus.FAILED, "TaskCancelled: it was asked to stop") == (
        shown(manager, task_id).status,
        shown(manager, task_id).error,
    )


@in_event_loop
async def test_an_async_call_that_raises_has_failed_also_if_it_cancels_itself(tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path)

    async def call(_name: str, args: dict[str, Any]) -> None:
        raise args["error"]

    # when
    failing = manager.submit_async("my_tool", {"error": TimeoutError("too slow")}, call)
    cancelling = manager.submit_async("my_tool", {"error": asyncio.CancelledError()}, call)
    await eventually(lambda: not manager.active_count())
    # then
    assert "TimeoutError: too slow" == shown(manager, failing).error
    assert "by the end of its event loop, or from within" in str(shown(manager, cancelling).error)


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_a_call_that_would_end_its_host_has_failed_and_is_told(
    manager: BackgroundTaskManager, store: Store, error: BaseException
) -> None:
    def call(_name: str, _args: dict[str, Any]) -> None:
        raise error

    task_id = manager.submit("my_tool", {}, call)
    until(lambda: not manager.active_count())
    assert (Outcome.FAILED, Cause.TOOL) == (store.get(task_id).outcome, store.get(task_id).cause)
    assert [task_id] == [notice.task_id for notice in store.notifications.peek()]


@in_event_loop
async def test_an_async_call_that_exits_leaves_its_loop_alone(tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path)

    async def call(_name: str, _args: dict[str, Any]) -> None:
        sys.exit("no more")

    # when
    task_id = manager.submit_async("my_tool", {}, call)
    await eventually(lambda: not manager.active_count())

    # then
    assert (TaskStatus.FAILED, "no more") == (shown(manager, task_id).status, shown(manager, task_id).error)


@pytest.mark.parametrize("how", ["cancels", "forgets"])
def test_an_async_call_whose_loop_ends_was_interrupted(store: Store, tmp_path: Path, how: str) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path / "mei", store=store)
    began: list[bool] = []

    async def call(_name: str, _args: dict[str, Any]) -> None:
        began.append(True)
        await asyncio.Event().wait()

    async def submit() -> str:
        task_id = manager.submit_async("my_tool", {}, call)
        await eventually(lambda: began)
        return task_id

    # when its loop is torn down as asyncio.run does it, or only closed
    if how == "cancels":
        task_id = asyncio.run(submit())
    else:
        loop = asyncio.new_event_loop()
        task_id = loop.run_until_complete(submit())
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # what asyncio has to say of such a host
        loop.close()
    # then
    [notice] = until(store.notifications.peek)
    assert (task_id, Cause.INTERRUPTED) == (notice.task_id, store.get(task_id).cause)


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_call_that_its_loop_never_came_to_was_interrupted(manager: BackgroundTaskManager, store: Store) -> None:
    # given a loop that is closed when the call waits for its turn there
    loop = asyncio.new_event_loop()
    asked = threading.Event()
    ask = loop.call_soon_threadsafe

    def spy(*args: Any) -> asyncio.Handle:  # noqa: ANN401 - as asyncio
        handle = ask(*args)
        asked.set()
        return handle

    async def submit() -> str:
        task_id = manager.submit_async("my_tool", {}, say)  # type: ignore[arg-type]  # it is never called
        assert asked.wait(PATIENCE)  # which holds the loop up
        loop.stop()
        return task_id

    loop.call_soon_threadsafe = spy  # type: ignore[method-assign,assignment]  # as said
    first = loop.create_task(submit())
    # when
    loop.run_until_complete(first)
    loop._ready.clear()  # type: ignore[attr-defined]  # what a loop forgets that is closed
    loop.close()
    # then
    until(lambda: store.get(first.result()).state is State.DONE)
    assert Cause.INTERRUPTED is store.get(first.result()).cause


def test_a_loop_that_is_closed_before_the_call_could_begin_has_interrupted_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a thread that is slow to begin
    store = MemoryTaskStore()
    manager = BackgroundTaskManager(tmp_path, store=store)
    closed = threading.Event()
    monkeypatch.setattr(store, "secure", lambda _: closed.wait(PATIENCE))

    async def submit() -> str:
        return manager.submit_async("my_tool", {}, say)  # type: ignore[arg-type]  # it is never called

    # when
    task_id = asyncio.run(submit())
    closed.set()
    # then
    until(lambda: store.get(task_id).state is State.DONE)
    assert Cause.INTERRUPTED is store.get(task_id).cause


# Cancelling, and the disk.


def test_a_call_that_is_asked_to_stop_is_cancelled_when_it_comes_back(
    manager: BackgroundTaskManager, store: Store, gate: Gate
) -> None:
    # given
    task_id = manager.submit("my_tool", {}, gate)
    assert gate.began.wait(PATIENCE)
    # when
    assert State.RUNNING is store.request_cancel(task_id).state
    gate.may_end.set()
    # then
    assert TaskStatus.FAILED is ended(manager, task_id).status
    assert Outcome.CANCELLED is store.get(task_id).outcome


def test_a_call_that_is_asked_to_stop_before_it_was_made_is_not_made(
    manager: BackgroundTaskManager, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(store, "secure", lambda claim: store.request_cancel(claim.task.id))
    called: list[object] = []
    # when
    task = ended(manager, manager.submit("my_tool", {}, lambda *given: called.append(given)))
    # then
    assert ([], "it was cancelled before it started") == (called, task.error)


@in_event_loop
async def test_a_call_whose_record_would_not_survive_a_power_cut_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an event loop, which waits for no disk, this is found out after the submit."""
    # given
    store = TaskStore(tmp_path)
    manager = BackgroundTaskManager(tmp_path, store=store)

    def refuse(_: object) -> None:
        raise OSError(errno.EIO, "the disk said no")

    monkeypatch.setattr(store, "secure", refuse)
    called: list[object] = []

    async def call(*given: object) -> None:
        called.append(given)

    # when
    task_id = manager.submit_async("my_tool", {}, call)
    with pytest.raises(OSError, match="the disk said no"):
        await task_id
    # then
    await eventually(lambda: not manager.active_count())
    assert ([], Cause.REJECTED) == (called, store.get(task_id).cause)
    assert "could not be kept" in str(shown(manager, task_id).error)


def test_a_submit_that_the_disk_refuses_raises_and_nothing_is_called(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    manager = BackgroundTaskManager(files.location, store=files)
    monkeypatch.setattr(files.layout, "tmp", "/nowhere")
    # then
    with pytest.raises(FileNotFoundError):
        manager.submit("my_tool", {}, say)
    assert ([], [], 0) == (list(files.list()), manager.list_tasks(), manager.active_count())


def test_an_outcome_that_cannot_be_stored_is_told_and_the_task_ends_as_interrupted(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that says no for longer than anybody waits
    manager = BackgroundTaskManager(files.location, store=files)
    told: list[BackgroundTask] = []

    async def on_complete(task: BackgroundTask) -> None:
        told.append(task)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the disk said no")

    manager.on_complete = on_complete
    with monkeypatch.context() as patch:
        patch.setattr(files, "finish", refuse)
        patch.setattr("animaworks_tasks.worker.runner._PATIENCE", 0)
        # when
        task_id = manager.submit("my_tool", {}, say)
        until(lambda: told)
    # then
    assert (TaskStatus.FAILED, "its outcome could not be stored: [Errno 5] the disk said no") == (
        told[0].status,
        told[0].error,
    )
    BackgroundTaskManager(files.location, store=files)
    until(lambda: files.get(task_id).state is State.DONE)
    assert Cause.INTERRUPTED is files.get(task_id).cause


def test_from_an_event_loop_nothing_is_fsynced_and_from_a_thread_all_of_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path, store=TaskStore(tmp_path))
    fsync, here = os.fsync, threading.current_thread()
    threads: list[threading.Thread] = []

    def spy(fd: int) -> None:
        threads.append(threading.current_thread())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", spy)

    async def submit() -> str:
        return manager.submit("my_tool", {}, gate)

    # when
    asyncio.run(submit())
    # then before the function is called, file and directory are durable, thanks to another thread
    assert gate.began.wait(PATIENCE)
    assert (2, False) == (len(threads), here in threads)
    # and
    manager.submit("my_tool", {}, gate)
    assert 2 == threads.count(here)
    gate.may_end.set()
    until(lambda: not manager.active_count())


# Who is eligible.


def test_both_names_of_a_tool_are_eligible(tmp_path: Path) -> None:
    manager = BackgroundTaskManager(tmp_path)
    assert manager.is_eligible("generate_3d_model")
    assert manager.is_eligible("image_gen:3d")
    assert not manager.is_eligible("web_search")
    assert (600, None) == (manager.expected_seconds("image_gen:3d"), manager.expected_seconds("web_search"))


def test_the_tools_that_the_constructor_is_given_replace_the_defaults(tmp_path: Path) -> None:
    manager = BackgroundTaskManager(tmp_path, "mei", {"my_tool": 10})
    assert (True, False) == (manager.is_eligible("my_tool"), manager.is_eligible("generate_3d_model"))


def test_the_configuration_overrides_the_profiles_and_those_the_defaults(tmp_path: Path) -> None:
    # given
    profiles: dict[str, Any] = {
        "image_gen": {
            "3d": {"expected_seconds": 700.5, "background_eligible": True},
            "icon": {"expected_seconds": 9, "background_eligible": False},
        },
        "mine": {"a": {"background_eligible": True}, "b": {"expected_seconds": 5, "background_eligible": True}, "c": 1},
        "broken": None,
    }
    # when
    manager = BackgroundTaskManager.from_profiles(tmp_path, "mei", profiles, {"mine:b": 50, "image_gen:icon": 8})
    # then
    keys = ["image_gen:3d", "image_gen:icon", "mine:a", "mine:b", "mine:c", "image_gen:chibi", "generate_3d_model"]
    assert [700, 8, 60, 50, None, 120, 600] == [manager.expected_seconds(key) for key in keys]
    assert not BackgroundTaskManager.from_profiles(tmp_path, profiles=profiles).is_eligible("image_gen:icon")


def test_a_registry_has_the_profiles(tmp_path: Path) -> None:
    # given
    registry = Registry()
    registry.add_command("video", "cut", ["ffmpeg"], expected_seconds=40)
    registry.add_command("video", "probe", ["ffprobe"])
    # when
    manager = BackgroundTaskManager.from_profiles(tmp_path, profiles=registry.profiles())
    # then
    assert (40, False) == (manager.expected_seconds("video:cut"), manager.is_eligible("video:probe"))


# Memory, and forgetting.


def test_what_has_ended_leaves_the_memory_by_age_and_by_number_and_stays_on_disk(tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path, "mei", None, 10, 2)
    first, second, third = (ended(manager, manager.submit("my_tool", {"n": n}, say)) for n in range(3))
    until(lambda: len(manager._tasks) == 2)  # the thread of the third looks when it has told of its end
    # then
    assert shown(manager, third.task_id) is third
    again = shown(manager, first.task_id)
    assert again is not first
    assert again == first
    assert 0 == manager.evict_completed_tasks(now=time.time() + 599)
    assert 2 == manager.evict_completed_tasks(now=time.time() + 601)
    assert shown(manager, second.task_id) == second
    assert 3 == len(manager.list_tasks())


def test_old_tasks_are_forgotten_except_those_whose_notice_nobody_has_read(store: Store, tmp_path: Path) -> None:
    # given
    manager = BackgroundTaskManager(tmp_path / "mei", store=store)
    read, unread = (ended(manager, manager.submit("my_tool", {"n": n}, say)) for n in range(2))
    notices = store.notifications
    notices.acknowledge([notice for notice in notices.peek() if notice.task_id == read.task_id])
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


# Several managers, other hosts, and death.


@in_event_loop
async def test_managers_and_executors_share_a_directory_and_each_task_is_told_once(tmp_path: Path) -> None:
    # given two managers and an executor with another one's tools, all in this process
    store = TaskStore(tmp_path, language="en", durability="process")
    told: list[str] = []

    async def on_complete(task: BackgroundTask) -> None:
        told.append(task.task_id)

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
        await eventually(lambda: len(told) == 20)
    # then
    assert sorted(task_ids) == sorted(told)
    assert {Outcome.COMPLETED} == {task.outcome for task in store.list()}
    assert sorted([*task_ids, echoed.id]) == sorted(str(notice.task_id) for notice in store.notifications.peek())
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
    [notice] = until(store.notifications.peek)
    assert "- Cause: interrupted" in notice.text
    noted = until(lambda: [each for each in store.events(task_id) if each["event"] == "notified"])
    assert 1 == len(noted)


def test_arguments_that_somebody_has_rewritten_are_shown_as_they_are(files: TaskStore) -> None:
    # given a record that says it is a call of some host's, and is not as we write it
    manager = BackgroundTaskManager(files.location, store=files)
    task_id = manager.submit("my_tool", {"a": 1}, say)
    ended(manager, task_id)
    path = Path(files.layout.done, f"{task_id}.json")
    record = json.loads(path.read_text())
    record["tool_args"]["raw_args"] = ["{"]
    path.write_text(json.dumps(record))
    # then
    other = BackgroundTaskManager(files.location, store=files)
    assert {"arguments": ["{"]} == shown(other, task_id).tool_args


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
    until(lambda: "could not be looked at" in caplog.text)
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
    assert () == store.recover(concerns=lambda task: task.tool != "my_tool").settled
    [settled] = store.recover().settled
    assert Cause.INTERRUPTED is settled.cause


@pytest.mark.parametrize("where", ["pending", "running", "done"])
def test_an_id_that_is_taken_is_not_begun_anew(files: TaskStore, where: str) -> None:
    # given
    task = new_task("my_tool", (), {}, anima_dir=files.location, at=datetime.now(UTC))
    path = Path(getattr(files.layout, where), f"{task.id}.json")
    path.write_text("whatever")
    # then
    with pytest.raises(StoreError, match="already"):
        files.begin(task)
    assert "whatever" == path.read_text()
    assert [] == os.listdir(files.layout.locks)


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


def test_every_default_is_a_number_of_seconds() -> None:
    assert all(seconds >= 60 for seconds in DEFAULT_ELIGIBLE_TOOLS.values())


def test_calls_inside_the_host_take_no_slot_of_its_executor(files: TaskStore, gate: Gate) -> None:
    """They never did: a model's slow call must not keep waiting what its shell has submitted."""
    # given
    manager = BackgroundTaskManager(files.location, store=files)
    registry = Registry()
    registry.add("echo", "words", lambda *words: " ".join(words))
    manager.submit("my_tool", {}, gate)
    executor = Executor(files, registry, backend=ThreadBackend(), max_workers=1, scan_interval=0.01).start()
    manager.submit("my_tool", {}, gate)
    # then
    try:
        for _ in range(2):
            task = executor.submit_sync("echo", "words", "a")
            assert Outcome.COMPLETED is executor.wait_sync(task.id, timeout=PATIENCE).outcome
        # and the host is not idle before they have ended
        with pytest.raises(TimeoutError):
            executor.run_until_idle_sync(timeout=0.05)
        gate.may_end.set()
        executor.run_until_idle_sync(timeout=PATIENCE)
    finally:
        executor.stop()


DEATHS = """
import json, os, signal, sys
from datetime import UTC, datetime
from animaworks_tasks import TaskStore
from animaworks_tasks.store.protocol import new_task
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
    notices = sorted(notice.task_id for notice in again.notifications.peek())
    left = [*os.listdir(again.layout.running), *os.listdir(again.layout.locks), *os.listdir(again.layout.pending)]
    print(json.dumps([tasks, len(notices), left]))
    if not killed:
        break
"""


def test_killed_at_any_step_a_call_of_ours_is_unknown_or_has_one_outcome_and_one_notice(tmp_path: Path) -> None:
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
