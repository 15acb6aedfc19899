"""``animaworks-tool``: what a person sees of tasks and can do with them; every message says what to do next."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

import animaworks_tasks
from animaworks_tasks import Cause, OnInterrupt, Registry, State, Task, TaskStore, discover
from animaworks_tasks.cli import follow, main
from animaworks_tasks.cli import text as cli_text
from animaworks_tasks.store.protocol import Progress, utc_now
from animaworks_tasks.task.pending import new_id
from animaworks_tasks.task.states import Event
from tests.conftest import begin, die, own

PROGRAM = [sys.executable, "-c", "import sys; from animaworks_tasks.cli import main; sys.exit(main())"]


@attrs.frozen
class Said:
    """What one command line came to."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


Tool = Callable[..., Said]


@pytest.fixture
def anima(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Anima's directory, empty, named by the environment; and nobody else's tools."""
    (tmp_path / "mei").mkdir()
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody cuts the power in these tests
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what is held back and cannot be written is the harder case
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "mei"


@pytest.fixture
def store(anima: Path) -> TaskStore:
    return TaskStore(anima, durability="process", language="en")


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Tool:
    """Run a command line in this process."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        status = main(words)
        return Said(status, *capsys.readouterr())

    return run


@pytest.fixture
def hosted(store: TaskStore) -> Iterator[None]:
    """Let somebody listen at the doorbell."""
    bell = store.doorbell()
    yield
    bell.close()


def complete(store: TaskStore, *, result: str | None = "a cat", tool: str = "image_gen") -> Task:
    return store.finish(begin(store, tool=tool), Event.COMPLETE, result=result)


def fail(store: TaskStore, cause: Cause = Cause.TOOL) -> Task:
    return store.finish(begin(store), Event.FAIL, cause=cause, error="no cat\nat all", hint="feed it")


def described(registry: Registry) -> None:
    @registry.tool("image_gen", "3d", expected_seconds=600)
    def model(image: Path, *, size: int = 3) -> None:
        """Make a model."""

    @registry.tool("words", "count")
    def count(text: str) -> int:
        """Count words."""
        return len(text.split())


# What every command has in common.


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        ([], 2, "name a command or a tool"),
        (["-j"], 2, "name a command or a tool"),
        (["--anima-dir"], 2, "--anima-dir needs a value"),
        (["--anima-dir", __file__, "list"], 1, f"{__file__} is no directory: correct --anima-dir or ANIMAWORKS_ANIMA_"),
        (["lst"], 2, "'lst' is neither a command nor a tool: did you mean list?"),
        (["sub"], 2, "'sub' is neither a command nor a tool: did you mean submit?"),
        (["qqqq"], 2, "'qqqq' is neither a command nor a tool; `animaworks-tool tools` lists the tools"),
        (["--wat", "qqqq"], 2, "there is no option --wat here"),
        (["list", "--wat"], 2, "unrecognized arguments: --wat"),
        (["list", "--limit", "0"], 2, "argument --limit: must be at least 1, not 0"),
        (["list", "--limit", "x"], 2, "argument --limit: must be a whole number, not 'x'"),
        (["list", "--state", "asleep"], 2, "argument --state: invalid choice: 'asleep'"),
        (["show"], 2, "the following arguments are required: ID"),
        (["show", "abc"], 2, "'abc' is too short for a task's id: at least its first 4 digits are needed"),
        (["show", "abcd"], 1, "no task 'abcd' in "),
        (["show", "0123456789ab"], 1, "no task '0123456789ab' in "),
        (["logs", "../../../etc/passwd"], 1, "no task '../../../etc/passwd' in "),
        (["wait"], 2, "the following arguments are required: ID"),
        (
            ["wait", "0123456789ab", "--timeout", "-1"],
            2,
            "argument --timeout: must be from 0 to 315360000 seconds, not -1",
        ),
        (
            ["wait", "0123456789ab", "--timeout", "nan"],
            2,
            "argument --timeout: must be from 0 to 315360000 seconds, not nan",
        ),
        (
            ["wait", "0123456789ab", "--timeout", "inf"],
            2,
            "argument --timeout: must be from 0 to 315360000 seconds, not inf",
        ),
        (["cancel", "0123456789ab"], 1, "no task '0123456789ab' in "),
        (["retry", "0123456789ab"], 1, "no task '0123456789ab' in "),
        (["guide", "--language", "fr"], 2, "argument --language: invalid choice: 'fr'"),
        (["run", "--max-workers", "0"], 2, "argument --max-workers: must be at least 1, not 0"),
        (["run", "--backend", "cloud"], 2, "argument --backend: invalid choice: 'cloud'"),
        (["run"], 1, "nothing could be run: there are no tools in "),
        (["tools", "--tools", "nowhere"], 1, "there is no directory nowhere: correct --tools"),
        (["tools", "--registry", "no_such_module"], 1, "tool 'no_such_module' does not load: there is no module"),
        (["tools", "--registry", "json"], 1, "json is no tool: it has neither EXECUTION_PROFILE and cli_main, nor a"),
    ],
)
@pytest.mark.usefixtures("anima")
def test_a_wrong_command_line_is_refused_with_its_reason(
    tool: Tool, words: list[str], status: int, reason: str
) -> None:
    said = tool(*words)
    assert (status, "") == (said.status, said.out)
    assert said.err.startswith(f"animaworks-tool: {reason}")
    lines = said.err.splitlines()
    assert (1, 2)[status == 2] >= len(lines)
    assert status == 1 or len(lines) == 1 or lines[1].startswith("usage: animaworks-tool ")


@pytest.mark.parametrize("command", ["list", "run", "notifications", "cancel"])
def test_an_anima_that_is_not_there_is_not_made(tmp_path: Path, tool: Tool, command: str) -> None:
    words = ["0123456789ab"] if command == "cancel" else []
    said = tool("--anima-dir", str(tmp_path / "nobody"), command, *words)
    assert 1 == said.status
    assert f"there is no directory {tmp_path / 'nobody'}: correct --anima-dir or ANIMAWORKS_ANIMA_DIR" in said.err
    assert [] == list(tmp_path.iterdir())


def test_no_anima_is_an_error_that_says_what_to_set(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANIMAWORKS_ANIMA_DIR", raising=False)
    said = tool("list")
    assert 1 == said.status
    assert said.err.startswith("animaworks-tool: no Anima is named: set ANIMAWORKS_ANIMA_DIR")


def test_an_anima_that_cannot_be_written_is_one_line(anima: Path, tool: Tool) -> None:
    (anima / "state").write_text("a file where a directory belongs")
    said = tool("list")
    assert (1, 1) == (said.status, said.err.count("\n"))
    wanted = f"{anima}/state/background_tasks cannot hold tasks: Not a directory; move away what stands in its place"
    assert wanted in said.err


@pytest.mark.parametrize(
    "command", ["run", "list", "show", "logs", "wait", "cancel", "retry", "notifications", "tools", "guide"]
)
def test_every_command_has_help(tool: Tool, command: str) -> None:
    said = tool(command, "--help")
    assert 0 == said.status
    assert said.out.startswith(f"usage: animaworks-tool {command}")
    assert "exit status: 0 " in said.out
    assert said.out == tool("-h", command).out


def test_the_overview_names_every_command_and_exit_status(tool: Tool) -> None:
    said = tool("--help")
    assert {
        "submit",
        "run",
        "list",
        "show",
        "logs",
        "wait",
        "cancel",
        "retry",
        "notifications",
        "tools",
        "guide",
    } <= set(re.findall(r"^  (\w+)", said.out, re.MULTILINE))
    assert ["0", "1", "2", "3", "130", "141"] == re.findall(r"^  (\d+) ", said.out, re.MULTILINE)
    assert said.out == tool("-j", "-h").out


def test_the_version_is_the_packages(tool: Tool) -> None:
    assert f"animaworks-tool {animaworks_tasks.__version__}\n" == tool("--version").out


# Ids.


def test_the_beginning_of_an_id_is_enough(store: TaskStore, tool: Tool) -> None:
    tasks = {"pending": store.submit("web", "fetch"), "running": begin(store).task, "done": complete(store)}
    for state, task in tasks.items():
        shown = tool("show", task.id[:8], "-j").data
        assert (task.id, state) == (shown["task_id"], shown["state"])
        assert task.id == tool("show", "-j", task.id.upper()).data["task_id"]


def test_the_beginning_of_two_ids_is_not(store: TaskStore, tool: Tool) -> None:
    ids = sorted(store.submit("web", "fetch", key=key).id for key in _alike())
    said = tool("show", ids[0][:4])
    assert 2 == said.status
    assert f"{ids[0][:4]!r} is the beginning of 2 ids: {', '.join(ids)}; write more of it" in said.err


def _alike() -> tuple[str, str]:
    """Return two keys whose ids begin with the same four digits."""
    seen: dict[str, str] = {}
    for key in map(str, itertools.count()):
        earlier = seen.setdefault(new_id(key)[:4], key)
        if earlier != key:
            return earlier, key
    raise AssertionError


# list


@pytest.mark.usefixtures("hosted")
def test_a_list_shows_what_runs_what_waits_and_what_is_done(store: TaskStore, tool: Tool) -> None:
    registry = Registry()
    described(registry)
    store.publish_catalogue(registry.catalogue())
    late = store.submit("web", "fetch", not_before=utc_now() + timedelta(hours=1))
    first = store.submit("web", "日本語", priority=5)
    running = begin(store).task
    store.workspace(running.id).report_progress(0.4, "half\x1b[2J way")
    done, failed = complete(store, result="a cat\nand a dog"), fail(store)
    said = tool("list")

    ids = [line.split()[0] for line in said.out.splitlines()]
    assert ["ID", running.id, first.id, late.id, failed.id, done.id] == ids
    heading, *lines = said.out.splitlines()
    assert ["ID", "TOOL", "STATE", "TIME"] == heading.split()
    assert re.search(r"image_gen:3d +running +0(\.\d)? s of 10 min +40% half \[2J way$", lines[0])
    assert re.search(r"web:日本語 +pending +0(\.\d)? s$", lines[1])
    assert re.search(r"pending .* not before \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", lines[2])
    assert re.search(r"failed .* ago +tool: no cat at all$", lines[3])
    assert re.search(r"completed .* ago +a cat and a dog$", lines[4])
    assert (0, "") == (said.status, said.err)


@pytest.mark.usefixtures("hosted")
def test_a_list_keeps_to_what_was_asked_for(store: TaskStore, tool: Tool) -> None:
    pending, running = store.submit("web", "fetch"), begin(store).task
    done = [complete(store).id for _ in range(11)]
    failed = fail(store)
    cancelled = store.request_cancel(store.submit("web", "fetch").id)

    def ids(*words: str) -> list[str]:
        return [task["task_id"] for task in tool("list", "-j", *words).data]

    assert [running.id, pending.id, cancelled.id, failed.id] == ids("--limit", "4")
    assert 12 == len(ids())
    assert 15 == len(ids("--all"))
    assert [pending.id] == ids("--state", "pending")
    assert [running.id] == ids("--state", "running")
    assert 13 == len(ids("--state", "done"))
    assert [failed.id] == ids("--state", "failed")
    assert [cancelled.id] == ids("--state", "cancelled")
    assert list(reversed(done))[:2] == ids("--state", "completed", "--limit", "2")
    assert "3 more are done; `animaworks-tool list --all` lists them" in tool("list").err


def test_a_list_says_if_nobody_starts_what_waits(store: TaskStore, tool: Tool) -> None:
    assert "animaworks-tool: no tasks in" in tool("list").err
    assert "are failed" in tool("list", "--state", "failed").err
    store.submit("web", "fetch")
    assert "no host is listening, so what is pending waits: start one, or `animaworks-tool run`" in tool("list").err
    bell = store.doorbell()
    assert "" == tool("list").err
    bell.close()


def test_a_task_that_takes_longer_than_promised_is_overdue(store: TaskStore, tool: Tool) -> None:
    task = own(store, store.submit("web", "fetch", expected_seconds=0).id).task
    assert "overdue" in tool("list").out
    assert "(overdue)" in tool("show", task.id).out
    assert tool("show", "-j", task.id).data["overdue"]


def test_on_a_terminal_no_line_is_wider_than_it(
    store: TaskStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(store, result="猫" * 200)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    assert 0 == main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert 69 <= max(map(cli_text.columns, lines)) <= 70
    assert lines[1].endswith("猫…")


# show


@pytest.mark.usefixtures("hosted")
def test_show_tells_everything_and_what_to_do_next(store: TaskStore, tool: Tool) -> None:
    options: dict[str, Any] = {"priority": 3, "key": "k", "timeout_seconds": 90, "retries": 2, "retry_of": "0" * 12}
    task = store.submit("web", "fetch", "a b", cwd="/tmp", not_before=utc_now(), **options)  # noqa: S108 - a name
    shown = tool("show", task.id).out
    assert f"task:       {task.id} web:fetch\n" in shown
    assert "call:       animaworks-tool submit web fetch 'a b'\n" in shown
    assert "in:         /tmp\n" in shown
    assert "options:    priority 3, key 'k', timeout 1 min 30 s, retries 2, a retry of 000000000000\n" in shown
    assert "next:       nothing: it is started when its turn comes" in shown

    claim = own(store, task.id)
    store.workspace(task.id).report_progress(None, "on my way")
    shown = tool("show", task.id).out
    assert "progress:   on my way\n" in shown
    assert f"process:    {os.getpid()}\n" in shown
    assert f"next:       `animaworks-tool logs -f {task.id}` follows it" in shown

    store.finish(claim, Event.FAIL, cause=Cause.TOOL, error="no web", hint="plug it in")
    shown = tool("show", task.id).out
    assert "cause:      tool: the tool failed." in shown
    assert "hint:       plug it in\n" in shown
    assert f"log:        {store.layout.logs}/{task.id}.log\n" in shown
    assert re.search(r"^notice:     waits to be read since [-\d: ]+$", shown, re.MULTILINE)
    assert f"next:       `animaworks-tool logs {task.id}`, then `animaworks-tool retry {task.id}`" in shown
    assert shown.endswith("\n\n```text\nno web\n```\n")
    store.notifications.acknowledge(store.notifications.peek())
    assert f" (process {os.getpid()}) at 2" in tool("show", task.id).out.partition("notice:     was delivered to ")[2]


def test_show_says_of_a_notice_what_is_known_of_it(store: TaskStore, tool: Tool) -> None:
    """Another program may have taken it, or a full disk refused it: nobody can say then that it was read."""
    task = complete(store)
    os.unlink(Path(store.layout.notifications) / f"{task.id}.md")
    assert "notice:     was taken by another program, which does not say when" in tool("show", task.id).out

    events = Path(store.layout.events)
    events.write_text("".join(line for line in events.read_text().splitlines(keepends=True) if "notified" not in line))
    assert "notice:     was never left; see `animaworks-tool doctor`\n" in tool("show", task.id).out

    events.unlink()
    assert "notice:     is not there, and the journal says nothing of it; see" in tool("show", task.id).out


def test_show_says_what_keeps_a_task_from_moving(store: TaskStore, tool: Tool) -> None:
    claim = begin(store)
    assert "follows it" in tool("show", claim.task.id).out
    die(claim)
    assert "the process that ran it has died, and no host is listening" in tool("show", claim.task.id).out
    os.unlink(store.layout.lock(claim.task.id))
    assert "the process that ran it has died" in tool("show", "-j", claim.task.id).data["next"]
    assert "nothing starts it" in tool("show", store.submit("web", "fetch").id).out


def test_what_next_depends_on_how_it_ended(store: TaskStore, tool: Tool) -> None:
    def next_of(task: Task) -> str:
        return str(tool("show", "-j", task.id).data["next"])

    done = complete(store)
    assert f"`animaworks-tool show --result {done.id}` prints the whole result" == next_of(done)
    assert "nothing" == next_of(complete(store, result=None))
    assert "correct the call, and submit it again" == next_of(fail(store, Cause.ARGUMENTS))
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
    assert f"result:     {store.layout.root}/{kept}\n" in tool("show", task.id).out


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
    ("name", "reason"), [("a\0b", "no file can have this name"), ("gone\x1b[2J", "No such file or directory")]
)
def test_a_result_that_is_not_there_is_told_of_in_one_line(
    store: TaskStore, tool: Tool, name: str, reason: str
) -> None:
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
    monkeypatch.setattr(follow.time, "sleep", lambda _: next(steps))
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
    monkeypatch.setattr(follow.time, "sleep", lambda _: next(steps)())
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
    assert f"not done after 0 s: {owned.task.id}; it goes on" in said.err
    assert f"not done after 0 s: {task.id}: no host is listening, so nothing starts it: start one" in said.err
    assert f"not done after 0 s: {orphan.task.id}: the process that ran it has died, and no host" in said.err
    assert State.PENDING is store.get(task.id).state
    assert "pending" == tool("wait", "--timeout=0", "-j", task.id).data[0]["state"]
    # and when a host is
    bell = store.doorbell()
    assert (
        f"not done after 0 s: {task.id}, {owned.task.id}; they go on"
        in tool("wait", "--timeout", "0", task.id, owned.task.id).err
    )
    bell.close()


@pytest.mark.usefixtures("hosted")
def test_a_task_whose_owner_died_is_not_listed_as_one_that_runs(store: TaskStore, tool: Tool) -> None:
    # given
    owned, orphan = begin(store), begin(store)
    die(orphan)
    # when, then
    rows = {line.split()[0]: line for line in tool("list").out.splitlines()}
    assert re.search(r"running  +its owner has died; a host will settle it$", rows[orphan.task.id])
    assert re.search(r"running  \d", rows[owned.task.id])
    assert "state:      running, its owner has died" in tool("show", orphan.task.id).out
    assert {owned.task.id: False, orphan.task.id: True} == {
        each["task_id"]: each["orphaned"] for each in tool("list", "-j").data
    }


# cancel and retry


def test_cancel_tells_what_it_came_to(store: TaskStore, tool: Tool) -> None:
    pending, running, done = store.submit("web", "fetch"), begin(store).task, complete(store)
    assert Said(0, f"task {pending.id} is cancelled\n", "") == tool("cancel", pending.id)
    assert Said(0, f"task {pending.id} was cancelled before\n", "") == tool("cancel", pending.id)
    said = tool("cancel", running.id)
    assert (0, f"task {running.id} was asked to stop; `animaworks-tool wait {running.id}` tells when it has\n") == (
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
    assert [heading, heading] == [notice.text.partition(":")[0] for notice in store.notifications.peek()]


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


# tools and guide


@pytest.fixture
def tools(anima: Path) -> Path:
    """The Anima's own tools: one that loads, and one that does not."""
    (anima / "tools").mkdir()
    (anima / "tools/words.py").write_text(
        "from animaworks_tasks import Registry\n"
        "registry = Registry()\n"
        "@registry.tool('words', 'count', expected_seconds=90)\n"
        "def count(text: str) -> int:\n"
        "    '''Count words.'''\n"
        "    return len(text.split())\n"
    )
    (anima / "tools/bad.py").write_text("def (\n")
    return anima / "tools"


@pytest.mark.usefixtures("tools")
def test_tools_lists_what_is_found_and_what_is_not_loaded(tool: Tool) -> None:
    said = tool("tools")
    assert (0, "⚠  words count TEXT  1 min 30 s  Count words.\n") == (said.status, said.out)
    assert re.search(r"^animaworks-tool: did not load: .*/bad\.py: .*SyntaxError", said.err)
    data = tool("tools", "-j").data
    assert ("files", 90) == (data["source"], data["tools"]["words"]["count"]["expected_seconds"])
    assert data["problems"][0]["where"].endswith("bad.py")


def test_tools_are_those_of_the_host_where_there_is_one(store: TaskStore, tools: Path, tool: Tool) -> None:
    registry = Registry()
    described(registry)
    store.publish_catalogue(registry.catalogue())
    data = tool("tools", "-j").data
    assert ("catalogue", ["image_gen", "words"], []) == (data["source"], list(data["tools"]), data["problems"])
    assert "- ⚠ `image_gen 3d IMAGE` (10 min)" in tool("guide", "--language=en").out
    assert "files" == tool("tools", "-j", "--tools", str(tools)).data["source"]


@pytest.mark.usefixtures("tools")
def test_the_guide_is_japanese_unless_asked_otherwise(tool: Tool) -> None:
    assert tool("guide").out.startswith("# ツールの使い方\n")
    assert tool("guide", "--language", "en").out.startswith("# How to use tools\n")
    assert "animaworks-tool submit words count TEXT" in tool("guide", "-j").data["guide"]


def test_who_types_what_the_guide_says_has_it_done(store: TaskStore, tools: Path, tool: Tool) -> None:
    """A tool that only the host has is to be submitted; one that is found here too may be called."""
    # given a host that has a quick tool in its own code, and what lies in the Anima's directory
    (tools / "words.py").write_text((tools / "words.py").read_text().replace("expected_seconds=90", ""))
    registry = Registry()
    registry.add("odd", "quick", lambda: None)
    registry.add_registry(discover(store.location))
    store.publish_catalogue(registry.catalogue())
    # when
    guide = tool("guide", "--language=en").out
    # then
    submitted, direct = guide.split("## Tools to submit")[1].split("## Tools to call directly")
    assert "- `odd quick`" in submitted
    assert "- `words count TEXT`" in direct
    assert (0, 0) == (tool("submit", "odd", "quick").status, tool("words", "count", "a").status)


def test_tools_need_no_anima(tmp_path: Path, tools: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANIMAWORKS_ANIMA_DIR")
    said = tool("tools")
    assert f"there are no tools in {tmp_path}/data/common_tools: put one there, install a package of them" in said.err
    assert "words count TEXT" in tool("tools", "--tools", str(tools)).out
    (tmp_path / "data").mkdir()
    tools.rename(tmp_path / "data/common_tools")
    assert "words count TEXT" in tool("tools").out


def test_a_registry_in_the_current_directory_is_found(
    tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch, tools: Path
) -> None:
    (tools / "words.py").rename(tmp_path / "my_words_for_a_test.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert "words count TEXT" in tool("tools", "--registry", "my_words_for_a_test:registry").out


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


# A disk without room.


def test_what_a_full_disk_holds_up_is_said_of_a_running_task(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = begin(store)
    monkeypatch.setattr(os, "statvfs", lambda _: types.SimpleNamespace(f_bavail=1, f_frsize=4096))
    for line, status in ((f"show {claim.task.id}", 0), (f"wait --timeout 0.01 {claim.task.id}", 3)):
        assert status == main(line.split())
        said = capsys.readouterr()
        assert "the disk is full; if its tool has ended, its outcome is kept in memory" in said.out + said.err


@pytest.mark.usefixtures("hosted")
def test_show_fences_only_what_the_tool_said(store: TaskStore, tool: Tool) -> None:
    # given one task that never ran, and one whose tool spoke
    cancelled = store.request_cancel(store.submit("words", "count").id)
    failed = store.finish(begin(store, tool="words"), Event.FAIL, cause=Cause.TOOL, error="no words")
    # when, then
    assert "error:      it was cancelled before it started\n" in tool("show", cancelled.id).out
    assert "```" not in tool("show", cancelled.id).out
    assert "```text\nno words\n```\n" in tool("show", failed.id).out
    assert "error:" not in tool("show", failed.id).out


@pytest.mark.usefixtures("hosted")
def test_a_done_record_that_cannot_be_read_is_none_that_more_would_list(store: TaskStore, tool: Tool) -> None:
    # given
    done, broken = complete(store), complete(store)
    Path(store.layout.done, f"{broken.id}.json").write_text("{")
    # when, then
    for words in (["list"], ["list", "--all"]):
        said = tool(*words)
        assert done.id in said.out
        assert "animaworks-tool: 1 record in done/ cannot be read; see `animaworks-tool doctor`\n" == said.err
    # and of more than are shown, the others are counted
    for _ in range(10):
        complete(store)
    assert "more are done" in tool("list").err


@pytest.mark.usefixtures("hosted")
def test_data_stands_in_the_list_in_one_line(store: TaskStore, tool: Tool) -> None:
    store.finish(begin(store), Event.COMPLETE, result='{\n  "cats": [\n    1\n  ]\n}')
    assert tool("list").out.endswith('ago  { "cats": [ 1 ] }\n')


@pytest.mark.usefixtures("hosted")
def test_nobody_says_how_long_a_task_ran_whose_owner_died(store: TaskStore, tool: Tool) -> None:
    # given
    orphan = begin(store)
    die(orphan)
    assert tool("show", "-j", orphan.task.id).data["seconds"] is None
    # when
    store.recover()
    # then
    assert re.search(r"failed +\S+ s ago  interrupted: ", tool("list").out)
    assert tool("show", "-j", orphan.task.id).data["seconds"] is None


def test_what_is_one_is_not_told_as_many(store: TaskStore, tool: Tool) -> None:
    for _ in range(11):
        complete(store)
    assert "1 more is done; `animaworks-tool list --all` lists them" in tool("list").err
    store.notifications.acknowledge(store.notifications.peek()[1:])
    assert "1 waits to be read; `animaworks-tool notifications --ack` acknowledges it" in tool("notifications").err


# Readers that leave, people that lose patience.


def test_a_reader_that_has_left_is_not_complained_about(store: TaskStore) -> None:
    complete(store)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as output:
        done = subprocess.run([*PROGRAM, "list", "-j"], stdout=output, stderr=subprocess.PIPE, check=False)
    assert (141, b"") == (done.returncode, done.stderr)


def test_ctrl_c_ends_a_wait_without_a_word(store: TaskStore) -> None:
    task = store.submit("web", "fetch")
    with subprocess.Popen([*PROGRAM, "wait", task.id], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "no host is listening" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "" == process.stderr.read()
    assert 130 == process.returncode


def test_a_progress_report_is_put_in_a_line() -> None:
    assert "" == cli_text.said(None)
    assert "40%" == cli_text.said(Progress(0.4, "", utc_now()))
    assert "40% a b" == cli_text.said(Progress(0.4, "a\nb", utc_now()))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"), (0.04, "0 s"), (0.44, "0.4 s"), (9.9, "9.9 s"), (12.3, "12 s"), (59.6, "1 min"),
        (184, "3 min 4 s"), (3600, "1 h"), (7500, "2 h 5 min"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_times_are_told_as_people_tell_them(seconds: float, words: str) -> None:
    assert words == cli_text.duration(seconds)


def test_letters_are_as_wide_as_a_terminal_shows_them() -> None:
    assert [1, 4, 1] == [cli_text.columns(text) for text in ("a", "日本", "e\u0301")]
