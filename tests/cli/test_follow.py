"""``animaworks-tool logs`` and ``wait``: what a tool printed, and how tasks ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from animaworks_tasks import State, Task, TaskStore
from animaworks_tasks.cli import main, show
from animaworks_tasks.task.states import Event
from tests.cli.conftest import Tool, complete, fail
from tests.conftest import begin, die, own

# logs


def test_a_log_is_printed_as_the_tool_wrote_it(store: TaskStore, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    claim = begin(store)
    store.workspace(claim.task.id).write_log(b"\xff\x00 " + b"x" * 100_000)
    assert 0 == main(["logs", claim.task.id])
    assert b"\xff\x00 " + b"x" * 100_000 == capsysbinary.readouterr().out


def test_a_log_that_is_empty_is_explained(store: TaskStore, tool: Tool) -> None:
    task = store.submit("web", "fetch")
    assert f"task {task.id} is pending, and its tool has written nothing yet\n" in tool("logs", task.id).err
    store.request_cancel(task.id)
    assert f"task {task.id} is done, and its tool has written nothing\n" in tool("logs", task.id).err
    assert {"task_id": task.id, "state": "done", "log": ""} == tool("logs", "-j", task.id).data


@pytest.mark.parametrize("options", [["-f"], ["-f", "-j"]])
def test_a_log_is_followed_from_pending_to_done(
    store: TaskStore, tool: Tool, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """Each look of the follower finds the task one step further."""
    task = store.submit("web", "fetch")
    steps = _steps(store, task)
    monkeypatch.setattr(show.time, "sleep", lambda _: next(steps))
    said = tool("logs", *options, task.id)
    assert 0 == said.status
    assert "one\ntwo\nthree\n" == (said.data["log"] if "-j" in options else said.out)
    assert "-j" in options or f"task {task.id} web:fetch completed in" in said.err


def _steps(store: TaskStore, task: Task) -> Iterator[None]:
    claim = own(store, task.id)
    log = store.workspace(task.id)
    yield log.write_log(b"one\n")
    yield log.write_log(b"two\n")
    log.write_log(b"three\n")
    store.finish(claim, Event.COMPLETE)
    yield


# wait


@pytest.mark.usefixtures("hosted")
def test_wait_ends_when_all_are_done_and_tells_how(
    store: TaskStore, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, first, second = complete(store), begin(store), begin(store)
    steps = iter(
        [
            lambda: store.finish(second, Event.COMPLETE, result="2"),
            lambda: store.finish(first, Event.COMPLETE, result="1"),
        ]
    )
    monkeypatch.setattr(show.time, "sleep", lambda _: next(steps)())
    said = tool("wait", first.task.id, done.id[:6], second.task.id)
    assert (0, "") == (said.status, said.err)
    assert [done.id, second.task.id, first.task.id] == [line.split()[0] for line in said.out.splitlines()]


def test_wait_fails_if_one_of_them_did(store: TaskStore, tool: Tool) -> None:
    done, failed = complete(store), fail(store)
    cancelled = store.request_cancel(store.submit("web", "fetch").id)
    assert 0 == tool("wait", done.id, done.id).status
    assert 1 == tool("wait", done.id, failed.id).status
    assert 1 == tool("wait", done.id, "--timeout", "5", cancelled.id).status
    said = tool("wait", "-j", failed.id)
    assert (1, "failed") == (said.status, said.data[0]["outcome"])


def test_wait_gives_up_after_its_timeout_and_the_task_goes_on_if_there_is_a_host(store: TaskStore, tool: Tool) -> None:
    # given one that waits, one that runs, and one whose owner died
    task, owned, orphan = store.submit("web", "fetch"), begin(store), begin(store)
    die(orphan)
    # when nobody is there
    said = tool("wait", "--timeout", "0", task.id, owned.task.id, orphan.task.id)
    # then
    assert 3 == said.status
    assert "is pending: no host is listening, so nothing starts it" in said.err
    assert f"not done after 0 s: {owned.task.id}: it goes on" in said.err
    assert f"not done after 0 s: {task.id}: no host is listening, so nothing starts it: start one" in said.err
    assert f"not done after 0 s: {orphan.task.id}: the process that ran it has died, and no host" in said.err
    assert State.PENDING is store.get(task.id).state
    assert "pending" == tool("wait", "--timeout=0", "-j", task.id).data[0]["state"]
    # and when a host is
    watch = store.watch()
    said = tool("wait", "--timeout", "0", task.id, owned.task.id)
    assert [f"not done after 0 s: {each}: it goes on" in said.err for each in (task.id, owned.task.id)] == [True, True]
    watch.close()
