"""``animaworks-tool doctor``, ``prune`` and ``events``: what a person reads about a store, and changes in it."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest

from animaworks_tasks import Task, TaskStore
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.states import Event
from tests.cli.conftest import Tool
from tests.conftest import begin, die

WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def complete(store: TaskStore, *, days_ago: float = 0, read: bool = True) -> Task:
    """Return a task that ended so long ago."""
    then = utc_now() - timedelta(days=days_ago)
    past = TaskStore(store.location, durability="process", language="en", clock=lambda: then)
    task = past.finish(begin(past), Event.COMPLETE, result="a cat")
    if read:
        store.notifications.acknowledge(n for n in store.notifications.peek() if n.task_id == task.id)
    return task


# --- doctor ---


@pytest.mark.usefixtures("anima")
def test_a_doctor_has_nothing_to_say_of_a_store_that_is_well(tool: Tool) -> None:
    said = tool("doctor")
    assert (0, "", "animaworks-tool: the store is well\n") == (said.status, said.out, said.err)
    assert {"done": [], "findings": []} == tool("doctor", "-j").data


def test_a_doctor_puts_problems_first_and_names_the_next_step(tool: Tool, store: TaskStore) -> None:
    # given a warning, and a problem that can be mended
    (Path(store.layout.quarantine) / "a.json").touch(0o600)
    claim = begin(store)
    die(claim)

    # when
    said = tool("doctor")

    # then
    assert 1 == said.status
    problem, _, warning, _ = lines = said.out.splitlines()
    assert f"problem  task {claim.task.id} is in running/, and its owner died, so it does not end (fix)" == problem
    assert "warning  kept, because it could not be read: quarantine/a.json" == warning
    assert all(line.startswith(" " * 9) for line in lines[1::2])
    assert "`animaworks-tool doctor --fix`" in lines[1]


def test_a_doctor_that_is_asked_to_says_what_was_fixed_and_what_is_left(tool: Tool, store: TaskStore) -> None:
    # given
    claim = begin(store)
    die(claim)
    (Path(store.layout.pending) / "0123456789ab.json.processing").touch(0o600)

    # when
    said = tool("doctor", "--fix", "--language", "en")

    # then a problem is left that nobody but a person can solve
    assert 1 == said.status
    assert said.out.startswith(f"fixed    recovered task {claim.task.id}: it is in done/ now\n")
    assert "\nproblem  another watcher takes tasks out of pending/" in said.out
    [notification] = store.notifications.peek()
    assert notification.text.startswith("# Background task failed")

    # and when that is solved
    os.unlink(Path(store.layout.pending) / "0123456789ab.json.processing")
    assert 0 == tool("doctor").status


def test_a_doctor_tells_programs_all_it_found(tool: Tool, store: TaskStore) -> None:
    (Path(store.layout.tmp)).rmdir()
    [finding] = tool("doctor", "--json").data["findings"]
    assert {"severity", "what", "where", "fixable", "todo"} == finding.keys()
    assert ("problem", store.layout.tmp, True) == (finding["severity"], finding["where"], finding["fixable"])
    said = tool("doctor", "--fix", "-j")
    assert (0, []) == (said.status, said.data["findings"])
    assert [f"made all that belongs to {store.layout.root}"] == said.data["done"]


# --- prune ---


def test_a_prune_forgets_what_is_older_than_thirty_days_and_says_so(tool: Tool, store: TaskStore) -> None:
    old, young = complete(store, days_ago=31), complete(store, days_ago=29)
    unread = complete(store, days_ago=40, read=False)
    said = tool("prune")
    assert (0, f"{old.id}\n") == (said.status, said.out)
    assert f"1 task of {store.location} was forgotten\n" in said.err
    assert (
        f"kept, because nobody has read the notification: {unread.id}; see `animaworks-tool notifications --ack`"
        in said.err
    )
    assert {young.id, unread.id} == {task.id for task in store.list()}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--older-than", "2d"], [0, 1]),
        (["--older-than", "36h"], [0, 1]),
        (["--older-than", "90min"], [0]),
        (["--older-than", "1d12h"], [0, 1]),
        (["--older-than", "0"], []),
        (["--keep", "3"], [0, 1, 2]),
        (["--keep", "3", "--older-than", "2.5d"], [0, 1, 2]),
        (["--keep", "1", "--older-than", "30d"], [0]),
    ],
)
def test_a_prune_goes_by_age_and_number(tool: Tool, store: TaskStore, words: list[str], left: list[int]) -> None:
    tasks = [complete(store, days_ago=days) for days in (0.01, 1, 2.1, 40)]
    assert 0 == tool("prune", *words).status
    assert [tasks[place].id for place in left] == [task.id for task in store.list()]


def test_a_dry_run_forgets_nothing_and_says_the_same(tool: Tool, store: TaskStore) -> None:
    tasks = [complete(store, days_ago=days) for days in (33, 32, 31)]
    unread = complete(store, days_ago=31, read=False)
    said = tool("prune", "--dry-run")
    assert f"3 tasks of {store.location} would be forgotten\n" in said.err
    assert [task.id for task in tasks] == said.out.split()
    expected = {"forgotten": [task.id for task in tasks], "unread": [unread.id]}
    assert {"dry_run": True, **expected} == tool("prune", "--dry-run", "-j").data
    assert 4 == len(store.list())
    assert {"dry_run": False, **expected} == tool("prune", "-j").data
    assert [unread] == list(store.list())


def test_of_many_that_nobody_has_read_only_some_are_named(tool: Tool, store: TaskStore) -> None:
    for _ in range(21):
        complete(store, read=False)
    said = tool("prune", "--keep", "0")
    assert f"0 tasks of {store.location} were forgotten" in said.err
    assert " ...; see `animaworks-tool notifications --ack`" in said.err


@pytest.mark.usefixtures("anima")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--older-than", "30 moons"], "'30 moons' is no length of time: write it as 90 (seconds), 5m, 1h30m, 2d"),
        (["--older-than", "a month"], "'a month' is no length of time"),
        (["--older-than", f"{'9' * 20}d"], "d is too long"),
        (["--keep", "-1"], "must be at least 0, not -1"),
    ],
)
def test_a_prune_refuses_what_is_no_age_or_number(tool: Tool, words: list[str], reason: str) -> None:
    said = tool("prune", *words)
    assert (2, "") == (said.status, said.out)
    assert reason in said.err


# --- events ---


def test_the_events_of_a_task_end_with_what_became_of_its_notice(tool: Tool, store: TaskStore) -> None:
    """Not yet, waiting, delivered to whom and when; by the beginning of its id, and after it was pruned."""
    # given
    claim = begin(store)
    assert (
        "the task has not ended, so there is no notification yet"
        == tool("events", "--task", claim.task.id).out.splitlines()[-1]
    )

    # when it has ended
    task = store.finish(claim, Event.COMPLETE)
    lines = tool("events", "--task", task.id[:6]).out.splitlines()
    assert ["submitted", "claimed", "ended", "notified"] == [re.split(r"  +", line)[2] for line in lines[:-1]]
    assert re.fullmatch(rf"its notification waits to be read since {WHEN}", lines[-1])
    assert f"tool=image_gen:3d attempt=1 (process {os.getpid()})" in lines[1]

    # and is read
    assert 0 == tool("notifications", "--ack").status
    last = tool("events", "--task", task.id).out.splitlines()[-1]
    assert re.fullmatch(rf"its notification was delivered to .+ \(process {os.getpid()}\) at {WHEN}", last)
    notification = tool("events", "--task", task.id, "-j").data["notification"]
    assert ("delivered", os.getpid()) == (notification["state"], notification["pid"])

    # and is forgotten
    assert [task.id] == store.prune(keep=0)
    assert last == tool("events", "--task", task.id[:6]).out.splitlines()[-1]


def test_a_notice_that_the_journal_does_not_tell_of_was_delivered_all_the_same(tool: Tool, store: TaskStore) -> None:
    task = complete(store)
    os.unlink(store.layout.events)
    assert "its notification was delivered; the journal does not say when\n" == tool("events", "--task", task.id).out


def test_a_notice_that_another_program_took_is_said_to_be_taken(tool: Tool, store: TaskStore) -> None:
    task = complete(store, read=False)
    os.unlink(Path(store.layout.notifications) / f"{task.id}.md")
    last = tool("events", "--task", task.id).out.splitlines()[-1]
    assert re.fullmatch(rf"its notification was taken by another program, .+; it was left at {WHEN}", last)


def test_a_notice_of_which_nobody_knows_is_a_case_for_the_doctor(tool: Tool, store: TaskStore) -> None:
    task = complete(store, read=False)
    os.unlink(Path(store.layout.notifications) / f"{task.id}.md")
    os.unlink(store.layout.events)
    said = tool("events", "--task", task.id)
    assert (
        said.out == "its notification is not there, and the journal says nothing of it; see `animaworks-tool doctor`\n"
    )


def test_all_events_are_printed_or_only_the_latest(tool: Tool, store: TaskStore) -> None:
    # given a line from long ago, one without a time, and one from beyond the calendar, each of a strange form
    first = store.submit("image_gen", "3d")
    lines = [
        {"at": 1.0, "event": "claimed", "task_id": first.id},
        {"event": "x\ny"},
        {"at": 1e300, "event": "z", "pid": [1]},
    ]
    with open(store.layout.events, "a", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in lines)

    # then
    said = tool("events")
    assert 4 == len(said.out.splitlines())
    assert [["?", "-", "x", "y"], ["?", "-", "z", "(process", "[1])"]] == [
        line.split() for line in said.out.splitlines()[2:]
    ]
    recent = tool("events", "--since", "1h", "-j").data
    assert ([first.id], None) == ([event["task_id"] for event in recent["events"]], recent["notification"])
    assert "" == tool("events", "--since", "0s").out


def test_where_nothing_was_noted_that_is_said(tool: Tool, store: TaskStore) -> None:
    said = tool("events")
    assert (0, "", f"animaworks-tool: nothing was noted in {store.location}\n") == (said.status, said.out, said.err)
    assert "nothing was noted in" in tool("events", "--since", "1h").err


@pytest.mark.usefixtures("store")
def test_a_task_that_never_was_has_no_events(tool: Tool) -> None:
    said = tool("events", "--task", "0123456789ab")
    assert (1, "") == (said.status, said.out)
    assert "no task '0123456789ab' in " in said.err
