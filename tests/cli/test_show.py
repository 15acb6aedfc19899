"""``animaworks-tool show``: everything about one task, its whole result, and what to do next."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import attrs
import pytest

from animaworks_tasks import Cause, Outcome, Task, TaskStore
from animaworks_tasks.cli import main
from animaworks_tasks.fs.process import file_size_limit
from animaworks_tasks.store.rules import new_task, utc_now
from animaworks_tasks.task.model import IN_PROCESS
from animaworks_tasks.task.states import Event
from tests.cli.conftest import Said, Tool, complete, fail
from tests.conftest import begin, die, own
from tests.processes import until


@pytest.mark.usefixtures("hosted")
def test_show_tells_everything_and_what_to_do_next(store: TaskStore, tool: Tool) -> None:
    options: dict[str, Any] = {"priority": 3, "key": "k", "timeout_seconds": 90, "retries": 2, "retry_of": "0" * 12}
    task = store.submit("web", "fetch", "a b", cwd="/tmp", not_before=utc_now(), **options)  # noqa: S108 - a name
    shown = tool("show", task.id).out
    assert f"task:         {task.id} web:fetch\n" in shown
    assert "call:         animaworks-tool submit web fetch 'a b'\n" in shown
    assert "in:           /tmp\n" in shown
    assert "options:      priority 3, key 'k', timeout 1 min 30 s, retries 2, a retry of 000000000000\n" in shown
    assert "next:         nothing: it is started when its turn comes" in shown

    claim = own(store, task.id)
    store.workspace(task.id).report_progress(None, "on my way")
    shown = tool("show", task.id).out
    assert "progress:     on my way\n" in shown
    assert f"process:      {os.getpid()}\n" in shown
    assert f"next:         `animaworks-tool logs -f {task.id}` follows it" in shown

    store.finish(claim, Event.FAIL, cause=Cause.TOOL, error="no web", hint="plug it in")
    shown = tool("show", task.id).out
    assert "cause:        tool: read the log" in shown
    assert "hint:         plug it in\n" in shown
    assert f"log:          {store.layout.logs}/{task.id}.log\n" in shown
    assert re.search(r"^notification: waits to be read since [-\d: ]+$", shown, re.MULTILINE)
    assert f"next:         `animaworks-tool logs {task.id}`, then `animaworks-tool retry {task.id}`" in shown
    assert shown.endswith("\n\n```text\nno web\n```\n")
    store.notifications.acknowledge(store.notifications.peek())
    assert f" (process {os.getpid()}) at 2" in tool("show", task.id).out.partition(": was delivered to ")[2]


def test_a_credential_among_the_arguments_is_not_shown(
    store: TaskStore, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one that only the host knows, once it has published the view; the record keeps it, to call the tool."""
    monkeypatch.setenv("CAT_API_KEY", "meow-123456")
    monkeypatch.setenv("HOST_TOKEN", "purr-abcdef")
    task = store.submit("web", "fetch", "--key=meow-123456", "purr-abcdef")
    store.publish_view(own(store, task.id))
    monkeypatch.delenv("HOST_TOKEN")
    for command in (f"show {task.id}", f"-j show {task.id}", "-j list", f"-j wait --timeout 0 {task.id}"):
        said = tool(*command.split()).out
        assert ("meow" not in said, "purr" not in said) == (True, True), said
        assert "--key=[CAT_API_KEY]" in said
        assert "[HOST_TOKEN]" in said
    assert ("fetch", "--key=meow-123456", "purr-abcdef") == store.get(task.id).argv


def test_show_says_what_is_known_of_the_notification(store: TaskStore, tool: Tool) -> None:
    """Another program may have taken it, or a full disk refused it: nobody can say then that it was read."""
    task = complete(store)
    os.unlink(Path(store.layout.notifications) / f"{task.id}.md")
    assert "notification: was taken by another program, which does not say when" in tool("show", task.id).out

    events = Path(store.layout.events)
    events.write_text("".join(line for line in events.read_text().splitlines(keepends=True) if "notified" not in line))
    assert "notification: was never left; see `animaworks-tool doctor`\n" in tool("show", task.id).out

    events.unlink()
    assert "notification: is not there, and the journal says nothing of it; see" in tool("show", task.id).out


def test_show_says_what_keeps_a_task_from_moving(store: TaskStore, tool: Tool) -> None:
    claim = begin(store)
    assert "follows it" in tool("show", claim.task.id).out
    die(claim)
    assert "the process that ran it has died, and no host is listening" in tool("show", claim.task.id).out
    assert "the process that ran it has died" in tool("show", "-j", claim.task.id).data["next"]
    assert "nothing starts it" in tool("show", store.submit("web", "fetch").id).out


def test_what_next_depends_on_how_it_ended(store: TaskStore, tool: Tool) -> None:
    def next_of(task: Task) -> str:
        return str(tool("show", "-j", task.id).data["next"])

    done = complete(store)
    assert f"`animaworks-tool show --result {done.id}` prints the whole result" == next_of(done)
    assert "nothing" == next_of(complete(store, result=None))
    assert "correct the call, and submit it again" == next_of(fail(store, Cause.ARGUMENTS))
    error = "it ran longer than 900 s"
    late = store.finish(begin(store), Event.FAIL, cause=Cause.TIMEOUT, error=error)
    again = "`animaworks-tool submit --timeout 30m image_gen 3d` submits it once more"
    assert f"`animaworks-tool logs {late.id}`, then {again}" == next_of(late)
    inside = attrs.evolve(new_task("x", (), {}, anima_dir=store.location, at=utc_now()), extra={IN_PROCESS: True})
    lost = store.finish(store.begin(inside), Event.FAIL, cause=Cause.INTERRUPTED, error="its process died")
    assert f"`animaworks-tool logs {lost.id}`, then ask its host, which alone can call it again" == next_of(lost)
    cancelled = store.request_cancel(store.submit("web", "fetch").id)
    assert f"`animaworks-tool retry {cancelled.id}` submits it once more" == next_of(cancelled)


def test_the_whole_result_is_printed_and_nothing_else(store: TaskStore, tool: Tool) -> None:
    assert "a cat\n" == tool("show", "--result", complete(store).id).out
    assert "a cat\n" == tool("show", "--result", complete(store, result="a cat\n").id).out
    assert "" == tool("show", "--result", complete(store, result="").id).out
    assert Said(0, "", "") == tool("show", "--result", complete(store, result=None).id)
    claim = begin(store)
    kept = store.workspace(claim.task.id).keep_result(b"x" * 100_000)
    task = store.finish(claim, Event.COMPLETE, result="x", result_file=kept)
    assert "x" * 100_000 == tool("show", "--result", task.id).out
    assert f"result:       {store.layout.root}/{kept}\n" in tool("show", task.id).out


def test_a_result_that_is_none_is_refused_with_the_reason(store: TaskStore, tool: Tool) -> None:
    task = store.submit("web", "fetch")
    assert f"is pending: `animaworks-tool wait {task.id}`, then ask again" in tool("show", "--result", task.id).err
    assert "has no result; `animaworks-tool show" in tool("show", "--result", fail(store).id).err


def test_a_record_cannot_have_another_file_printed_than_one_of_its_tasks(store: TaskStore, tool: Tool) -> None:
    """Neither one from elsewhere, nor the result of another task."""
    # given a task whose result is not for everyone
    others = store.workspace(begin(store).task.id).keep_result(b"a secret")

    # then
    def said(path: str) -> Said:
        return tool("show", "--result", store.finish(begin(store), Event.COMPLETE, result="x", result_file=path).id)

    for path in ("../../../secret", "results", os.path.join(store.layout.root, others), others):
        assert (1, "") == (said(path).status, said(path).out)
        assert "the whole result cannot be read: it is none of the task's own results: /" in said(path).err


@pytest.mark.parametrize(
    ("name", "reason"), [("a\0b", "it is none of the task's own results"), ("gone\x1b[2J", "No such file or directory")]
)
def test_a_missing_result_is_reported_in_one_line(store: TaskStore, tool: Tool, name: str, reason: str) -> None:
    claim = begin(store)
    path = f"results/{claim.task.id}/{name}"
    said = tool("show", "--result", store.finish(claim, Event.COMPLETE, result="x", result_file=path).id)
    assert (1, "") == (said.status, said.out)
    assert f"the whole result cannot be read: {reason}: /" in said.err
    assert said.err.rstrip("\n").isprintable()


def test_json_tells_the_same_of_a_task_everywhere(store: TaskStore, tool: Tool) -> None:
    claim = begin(store)
    store.workspace(claim.task.id).report_progress(0.5, "half way")
    shown, (listed,) = tool("show", "-j", claim.task.id).data, tool("list", "-j").data
    del shown["next"]
    assert {**shown, "seconds": 0} == {**listed, "seconds": 0}
    assert {"fraction": 0.5, "message": "half way"} == {key: shown["progress"][key] for key in ("fraction", "message")}
    assert ("running", None, 1, ["3d"]) == (shown["state"], shown["outcome"], shown["attempt"], shown["argv"])


def test_a_large_result_that_was_not_stored_is_not_printed_as_if_it_were_whole(store: TaskStore, tool: Tool) -> None:
    claim = begin(store)
    given = {
        "cause": Cause.RESULT,
        "error": "it was not stored",
        "result": "head",
        "result_size": 99,
        "result_tail": "tail",
    }
    done = store.finish(claim, Event.FAIL, **given)
    said = tool("show", "--result", done.id)
    assert (1, "") == (said.status, said.out)
    assert "the whole result, of 99 bytes, was not stored" in said.err
    assert "tail" == tool("show", "-j", done.id).data["result_tail"]


def test_what_a_full_disk_holds_up_is_said_of_a_running_task(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = begin(store)
    monkeypatch.setattr(os, "statvfs", lambda _: types.SimpleNamespace(f_bavail=1, f_frsize=4096))
    for line, status in ((f"show {claim.task.id}", 0), (f"wait --timeout 0.01 {claim.task.id}", 3)):
        assert status == main(line.split())
        said = capsys.readouterr()
        assert "the disk is full; if its tool has ended, its outcome is kept in memory" in said.out + said.err


LIMITED = """
import resource, sys
from animaworks_tasks import Executor, Registry, TaskStore, ThreadBackend
registry = Registry()
registry.add("tool", "limit", lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), -1)))
store = TaskStore(sys.argv[1])
task = store.submit("tool", "limit", sys.argv[2])
Executor(store, registry, backend=ThreadBackend()).start()
print(task.id, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("limit", [0, 100])
def test_what_a_limit_of_file_sizes_holds_up_is_said_of_a_running_task(
    store: TaskStore, tool: Tool, limit: int
) -> None:
    command = [sys.executable, "-c", LIMITED, store.location, str(limit)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as host:
        try:
            assert host.stdout is not None
            task_id = host.stdout.readline().decode().strip()
            until(lambda: file_size_limit(host.pid) == limit)
            why = f"its process may not write a file of more than {limit} bytes; if its tool has ended, its outcome is"
            todo = f"`prlimit --pid {host.pid} --fsize=unlimited` lets it be stored"
            for words in ("show " + task_id, "list", "doctor"):
                said = tool(*words.split())
                assert (True, True) == (why in said.out + said.err, todo in said.out + said.err), (words, said)
            resource.prlimit(host.pid, resource.RLIMIT_FSIZE, (-1, -1))
            assert Outcome.COMPLETED is until(lambda: store.get(task_id).outcome)
        finally:
            host.kill()


@pytest.mark.usefixtures("hosted")
def test_show_fences_only_what_the_tool_said(store: TaskStore, tool: Tool) -> None:
    # given one task that never ran, and one whose tool spoke
    cancelled = store.request_cancel(store.submit("words", "count").id)
    failed = store.finish(begin(store, tool="words"), Event.FAIL, cause=Cause.TOOL, error="no words")
    # when, then
    assert "error:        it was cancelled before it started\n" in tool("show", cancelled.id).out
    assert "```" not in tool("show", cancelled.id).out
    assert "```text\nno words\n```\n" in tool("show", failed.id).out
    assert "error:" not in tool("show", failed.id).out
