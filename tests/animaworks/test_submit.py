"""A manager's submit: what is called, what is recorded, and what becomes of both where the disk says no."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import Cause, Executor, Outcome, Registry, State, Store, TaskStore, ThreadBackend
from animaworks_tasks.background import BackgroundTask, BackgroundTaskManager, TaskStatus
from tests.animaworks.calls import Gate, ended, say, shown
from tests.processes import PATIENCE, until


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
    [notification] = store.notifications.peek()
    assert f"- Tool: {name}\n" in notification.text


def test_a_task_without_a_name_is_refused_and_nothing_is_kept(manager: BackgroundTaskManager, store: Store) -> None:
    with pytest.raises(ValueError, match="needs the name"):
        manager.submit("", {}, say)
    assert [] == store.list()


def test_a_task_is_running_from_the_moment_it_was_submitted(
    manager: BackgroundTaskManager, store: Store, gate: Gate
) -> None:
    """It is never pending: another host must not come and reject what it does not know."""
    # when
    task_id = manager.submit("machine_run", {}, gate)
    # then
    running = shown(manager, task_id)
    assert (1, TaskStatus.RUNNING, "[machine_run] running") == (
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
    path = Path(files.layout.done_record(task_id))
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
    """Its work was not done, so the notification does not say that it was."""
    task = ended(manager, manager.submit("my_tool", {}, lambda *_: (n for n in range(3))))
    assert TaskStatus.FAILED is task.status
    assert "it returned an unfinished generator: nobody has gone through it, so its work was not done" == task.error


def test_a_function_may_exit_or_say_what_is_wrong(manager: BackgroundTaskManager) -> None:
    def leave(_name: str, _args: dict[str, Any]) -> str:
        raise SystemExit("no luck")

    assert "no luck" == ended(manager, manager.submit("my_tool", {}, leave)).error


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt()], ids=["exit", "interrupt"])
def test_a_call_that_would_end_its_host_has_failed_and_is_told(
    manager: BackgroundTaskManager, store: Store, error: BaseException
) -> None:
    def call(_name: str, _args: dict[str, Any]) -> None:
        raise error

    task_id = manager.submit("my_tool", {}, call)
    until(lambda: not manager.active_count())
    assert (Outcome.FAILED, Cause.TOOL) == (store.get(task_id).outcome, store.get(task_id).cause)
    assert [task_id] == [each.task_id for each in store.notifications.peek()]


def test_arguments_that_somebody_has_rewritten_are_shown_as_they_are(files: TaskStore) -> None:
    # given a record that says it is a call of some host's, and is not as we write it
    manager = BackgroundTaskManager(files.location, store=files)
    task_id = manager.submit("my_tool", {"a": 1}, say)
    ended(manager, task_id)
    path = Path(files.layout.done_record(task_id))
    record = json.loads(path.read_text())
    record["tool_args"]["raw_args"] = ["{"]
    path.write_text(json.dumps(record))
    # then
    other = BackgroundTaskManager(files.location, store=files)
    assert {"arguments": ["{"]} == shown(other, task_id).tool_args


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


# The disk.


def test_a_submit_that_the_disk_refuses_raises_and_nothing_is_called(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    manager = BackgroundTaskManager(files.location, store=files)
    monkeypatch.setattr(files.place.disk, "tmp", "/nowhere")
    # then
    with pytest.raises(FileNotFoundError):
        manager.submit("my_tool", {}, say)
    assert ([], [], 0) == (list(files.list()), manager.list_tasks(), manager.active_count())


def test_an_outcome_that_cannot_be_stored_is_told_and_the_task_ends_as_interrupted(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that says no for longer than anybody waits
    manager = BackgroundTaskManager(files.location, store=files)
    called: list[BackgroundTask] = []

    async def on_complete(task: BackgroundTask) -> None:
        called.append(task)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the disk said no")

    manager.on_complete = on_complete
    with monkeypatch.context() as patch:
        patch.setattr(files, "finish", refuse)
        patch.setattr("animaworks_tasks.worker.runner._PATIENCE", 0)
        # when
        task_id = manager.submit("my_tool", {}, say)
        until(lambda: called)
    # then
    assert (TaskStatus.FAILED, "its outcome could not be stored: [Errno 5] the disk said no") == (
        called[0].status,
        called[0].error,
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
