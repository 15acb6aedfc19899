"""``animaworks-tool list``: what runs, what waits, what was done last, and what is not in the list."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks import Registry, TaskStore
from animaworks_tasks.cli import main
from animaworks_tasks.cli import text as cli_text
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.states import Event
from tests.cli.conftest import Tool, complete, described, fail
from tests.conftest import begin, die, own


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
    watch = store.watch()
    assert "" == tool("list").err
    watch.close()


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


PROMPTS: Final = ("a red cat", "a blue cat; asleep", "a\nblack\x1b[2J cat" + " in the dark" * 30)
SHOWN: Final = ("'a red cat'", "'a blue cat; asleep'", "'a black [2J cat in…he dark in the dark'")


@pytest.mark.usefixtures("hosted")
def test_tasks_of_one_tool_are_distinguished_by_their_arguments(store: TaskStore, tool: Tool) -> None:
    """Whether they wait, run or are done; the subcommand stands in the name."""
    # given
    tasks = [store.submit("image_gen", "fullbody", prompt) for prompt in PROMPTS]
    # when, then
    pending = tool("list").out.splitlines()[1:]
    assert list(SHOWN) == [re.sub(r".* pending +\S+ s +", "", line) for line in pending]
    claims = [own(store, task.id) for task in tasks]
    running = tool("list").out.splitlines()[1:]
    assert {*SHOWN} == {re.sub(r".* running +\S+ s +", "", line) for line in running}
    for claim in claims:
        store.finish(claim, Event.COMPLETE, result="image.png")
    done = tool("list").out.splitlines()[1:]
    assert {f"{shown}; image.png" for shown in SHOWN} == {re.sub(r".* ago +", "", line) for line in done}


@pytest.mark.usefixtures("hosted")
def test_on_a_terminal_of_80_columns_a_row_stays_a_row_and_shows_what_was_called(
    store: TaskStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    for prompt in PROMPTS:
        claim = own(store, store.submit("image_gen", "fullbody", prompt).id)
        store.finish(claim, Event.COMPLETE, result="x" * 300)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    # when
    assert 0 == main(["list"])
    # then
    _, *lines = capsys.readouterr().out.splitlines()
    assert [80, 80, 80] == [*map(cli_text.columns, lines)]
    assert all(shown[:11] in line for shown, line in zip(reversed(SHOWN), lines, strict=True))


@pytest.mark.usefixtures("hosted")
def test_a_credential_among_the_arguments_is_in_no_list(
    store: TaskStore, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAT_API_KEY", "meow-123456")
    complete(store)
    store.submit("image_gen", "3d", "--key=meow-123456")
    said = tool("list").out
    assert "--key=[CAT_API_KEY]" in said
    assert "meow" not in said


@pytest.mark.usefixtures("hosted")
def test_a_task_whose_owner_died_is_not_listed_as_one_that_runs(store: TaskStore, tool: Tool) -> None:
    # given
    owned, orphan = begin(store), begin(store)
    die(orphan)
    # when, then
    rows = {line.split()[0]: line for line in tool("list").out.splitlines()}
    assert re.search(r"running  +its owner has died; a host will finish it$", rows[orphan.task.id])
    assert re.search(r"running  \d", rows[owned.task.id])
    assert "state:        running, its owner has died" in tool("show", orphan.task.id).out
    assert {owned.task.id: False, orphan.task.id: True} == {
        each["task_id"]: each["orphaned"] for each in tool("list", "-j").data
    }


@pytest.mark.usefixtures("hosted")
def test_a_done_record_that_cannot_be_read_is_none_that_more_would_list(store: TaskStore, tool: Tool) -> None:
    # given
    done, broken = complete(store), complete(store)
    Path(store.layout.done, f"{broken.id}.task").write_text("{")
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


def test_one_is_not_in_the_plural(store: TaskStore, tool: Tool) -> None:
    for _ in range(11):
        complete(store)
    assert "1 more is done; `animaworks-tool list --all` lists them" in tool("list").err
    store.notifications.acknowledge(store.notifications.peek()[1:])
    assert "1 waits to be read; `animaworks-tool notifications --ack` acknowledges it" in tool("notifications").err


@pytest.mark.usefixtures("hosted")
def test_a_list_says_for_which_resource_a_task_waits(store: TaskStore, tool: Tool) -> None:
    # given a running task that uses a resource, one that waits for it, and one that waits for nothing
    registry = Registry()
    described(registry)
    for name in ("render", "other"):
        registry.add(name, "run", len, resource="gpu" if name == "render" else "scanner")
    store.publish_catalogue({**registry.catalogue(), "limits": {"gpu": 2}})
    own(store, store.submit("render", "run").id)
    waits = store.submit("render", "run")
    assert "waits for" not in tool("list").out  # one of two is free
    own(store, waits.id)
    waiting, free = store.submit("render", "run"), store.submit("other", "run")

    # when, then
    lines = {line.split()[0]: line for line in tool("list").out.splitlines()}
    assert lines[waiting.id].endswith("waits for gpu")
    assert "waits for" not in lines[free.id]
    views = {each["task_id"]: each["waits_for"] for each in tool("list", "-j").data}
    assert ("gpu", None) == (views[waiting.id], views[free.id])
