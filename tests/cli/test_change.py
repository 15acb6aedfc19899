"""``animaworks-tool cancel``, ``retry`` and ``notifications``: what changes something that is there."""

from __future__ import annotations

import re
import shlex
import subprocess

import attrs
import pytest

from animaworks_tasks import Cause, OnInterrupt, Registry, TaskStore
from animaworks_tasks.task.states import Event
from tests.cli.conftest import PROGRAM, Said, Tool, complete, described, fail
from tests.conftest import begin, die, own

# cancel and retry


def test_cancel_tells_what_it_came_to(store: TaskStore, tool: Tool) -> None:
    pending, running, done = store.submit("web", "fetch"), begin(store).task, complete(store)
    assert Said(0, f"task {pending.id} is cancelled\n", "") == tool("cancel", pending.id)
    assert Said(0, f"task {pending.id} was cancelled before\n", "") == tool("cancel", pending.id)
    said = tool("cancel", running.id)
    assert (
        0,
        f"cancellation of task {running.id} requested; `animaworks-tool wait {running.id}` returns when it ends\n",
    ) == (
        said.status,
        said.out,
    )
    assert store.workspace(running.id).cancel_requested()
    said = tool("cancel", done.id)
    assert (1, "") == (said.status, said.out)
    assert f"task {done.id} had ended already: completed; nothing was changed" in said.err
    assert "cancelled" == tool("cancel", "-j", pending.id).data["outcome"]


def test_cancel_says_if_nobody_is_there_to_stop_it(store: TaskStore, tool: Tool) -> None:
    claim = begin(store)
    die(claim)
    assert "the process that ran it has died, and no host is listening" in tool("cancel", claim.task.id).err


@pytest.mark.parametrize(
    ("language", "heading"), [("en", "# Background task failed"), ("ja", "# バックグラウンドタスク失敗")]
)
def test_a_notice_that_a_command_leaves_is_in_the_language_of_the_host(
    store: TaskStore, tool: Tool, language: str, heading: str
) -> None:
    # given an Anima whose host has been there
    TaskStore(store.location, durability="process", language=language).publish_catalogue(Registry().catalogue())
    orphan = begin(store)
    die(orphan)
    # when
    tool("cancel", store.submit("web", "fetch").id)
    tool("doctor", "--fix")
    # then
    assert [heading, heading] == [notification.text.partition(":")[0] for notification in store.notifications.peek()]


def test_the_notice_of_a_cancelled_task_is_in_the_language_asked_for(store: TaskStore, tool: Tool) -> None:
    tool("cancel", "--language", "en", store.submit("web", "fetch").id)
    tool("cancel", store.submit("web", "fetch").id)
    first, second = store.notifications.peek()
    assert {"# Background task failed: web:fetch", "# バックグラウンドタスク失敗: web:fetch"} == {
        first.text.splitlines()[0],
        second.text.splitlines()[0],
    }


def test_retry_submits_the_same_call_as_a_new_task(store: TaskStore, tool: Tool) -> None:
    task = store.submit(
        *("web", "fetch", "a b"), priority=2, key="once", timeout_seconds=9, retries=1, expected_seconds=5, cwd="/",
        on_interrupt=OnInterrupt.RETRY, max_attempts=7,
    )  # fmt: skip
    store.finish(own(store, task.id), Event.FAIL, cause=Cause.TOOL, error="no")
    receipt = tool("retry", task.id).data
    again = store.get(receipt["task_id"])
    assert again.id != task.id
    assert attrs.evolve(task, id=again.id, key=None, retry_of=task.id, submitted_at=again.submitted_at) == again
    assert ("submitted", "web", "fetch") == (receipt["status"], receipt["tool"], receipt["subcommand"])


@pytest.mark.parametrize("cause", [Cause.TOOL, Cause.CRASHED, Cause.ARGUMENTS, Cause.TIMEOUT])
def test_the_next_command_of_a_notification_runs_as_it_stands(store: TaskStore, tool: Tool, cause: Cause) -> None:
    # given what failed, and its notification
    registry = Registry()
    described(registry)
    store.publish_catalogue(registry.catalogue())
    task = store.submit("image_gen", "3d", "a cat's.png", "--size=2")
    store.finish(own(store, task.id), Event.FAIL, cause=cause, error="it went wrong")
    [text] = (each.text for each in store.notifications.peek())
    # when
    program, *words = shlex.split(re.findall(r"^- Next: (.*)$", text, re.MULTILINE)[0])
    said = tool(*words)
    # then the call is there once more, or what it could have been
    assert ("animaworks-tool", 0) == (program, said.status)
    if cause is Cause.ARGUMENTS:
        assert "image_gen 3d IMAGE [--size INT]" in said.out
    else:
        assert task.argv == store.get(said.data["task_id"]).argv


def test_retry_refuses_what_is_not_done_and_what_no_tool_takes(store: TaskStore, tool: Tool) -> None:
    task = store.submit("web", "fetch")
    said = tool("retry", task.id)
    assert 1 == said.status
    assert f"task {task.id} is pending, and only what is done is submitted once more: `animaworks-tool wait" in said.err

    store.request_cancel(task.id)
    registry = Registry()
    described(registry)
    store.publish_catalogue(registry.catalogue())
    said = tool("retry", task.id)
    assert 2 == said.status
    assert "there is no tool 'web'" in said.err
    assert [task.id] == [each.id for each in store.list()]


# notifications


def test_notifications_are_shown_until_they_are_acknowledged(store: TaskStore, tool: Tool) -> None:
    done, failed = complete(store), fail(store)
    shown = tool("notifications")
    assert shown.out.index(failed.id) < shown.out.index(done.id)
    assert "2 wait to be read; `animaworks-tool notifications --ack` acknowledges them" in shown.err
    assert [failed.id, done.id] == [each["task_id"] for each in tool("notifications", "-j").data]
    assert Said(0, shown.out, "") == tool("notifications", "--ack")
    said = tool("notifications")
    assert ("", "animaworks-tool: nothing waits to be read\n") == (said.out, said.err)
    assert [] == tool("notifications", "-j", "--ack").data


def test_what_could_not_be_printed_is_not_acknowledged(store: TaskStore) -> None:
    task = complete(store)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, "notifications", "--ack"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert 1 == done.returncode
    assert done.stderr.startswith(b"animaworks-tool: No space left on device")
    assert b"Traceback" not in done.stderr
    assert [task.id] == [each.task_id for each in store.notifications.peek()]
