"""What every store promises of a submit, with and without a key."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import (
    OnInterrupt,
    State,
    Store,
)
from animaworks_tasks.errors import RecordError
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, own
from tests.store.contract.conftest import complete, in_threads, notified


def test_many_are_submitted_as_each_would_be(store: Store, clock: ManualClock) -> None:
    tasks = store.submit_many("image_gen", [["3d", f"{number}.png"] for number in range(30)], priority=3)
    assert [("3d", f"{number}.png") for number in range(30)] == [task.argv for task in tasks]
    assert {(3, "3d", State.PENDING, clock.now)} == {(t.priority, t.subcommand, t.state, t.submitted_at) for t in tasks}
    assert {task.id for task in tasks} == store.pending_ids()
    assert [store.get(task.id) for task in tasks] == list(tasks)
    assert [] == list(store.submit_many("image_gen", []))


def test_many_are_refused_together(store: Store) -> None:
    with pytest.raises(RecordError, match="larger than"):
        store.submit_many("image_gen", [["3d"], ["3d", "x" * (1 << 20)]])
    with pytest.raises(ValueError, match="a key names one task"):
        store.submit_many("image_gen", [["3d"]], key="k")
    assert set() == store.pending_ids()


def test_a_submitted_task_is_pending_and_is_what_was_asked_for(store: Store, clock: ManualClock) -> None:
    # when
    task = store.submit(
        "image_gen",
        "--seed",
        "3d",
        "日本",
        subcommand="3d",
        priority=5,
        not_before=clock.now + timedelta(hours=1),
        key="model of mei",
        retry_of="0123456789ab",
        expected_seconds=600,
        timeout_seconds=1800,
        retries=2,
        on_interrupt=OnInterrupt.RETRY,
    )

    # then
    assert State.PENDING is task.state
    assert task == store.get(task.id)
    assert ("image_gen:3d", ("--seed", "3d", "日本"), 5) == (task.name, task.argv, task.priority)
    assert (clock.now, clock.now + timedelta(hours=1)) == (task.submitted_at, task.not_before)
    assert ("model of mei", "0123456789ab") == (task.key, task.retry_of)
    assert (600, 1800, 2, OnInterrupt.RETRY) == (
        task.expected_seconds,
        task.timeout_seconds,
        task.retries,
        task.on_interrupt,
    )
    assert {task.id} == store.pending_ids()


@pytest.mark.parametrize(
    ("argv", "subcommand"), [(("3d", "a.png"), "3d"), (("-j", "3d"), "3d"), (("-j",), ""), ((), "")]
)
def test_the_first_word_that_is_no_option_is_taken_for_the_subcommand(
    store: Store, argv: tuple[str, ...], subcommand: str
) -> None:
    assert subcommand == store.submit("image_gen", *argv).subcommand


def test_options_are_taken_as_people_write_them(store: Store, tmp_path: Path) -> None:
    task = store.submit("image_gen", "3d", on_interrupt="retry", cwd=tmp_path)
    assert (OnInterrupt.RETRY, str(tmp_path)) == (task.on_interrupt, task.cwd)
    assert task == store.get(task.id)


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"on_interrupt": "rerun"}, ValueError, "on_interrupt must be 'fail' or 'retry', not 'rerun'"),
        ({"retries": -1}, ValueError, "retries must be at least 0, not -1"),
        ({"max_attempts": 0}, ValueError, "max_attempts must be at least 1, not 0"),
        ({"timeout_seconds": math.inf}, ValueError, "timeout_seconds must be a finite number of seconds, not inf"),
        ({"not_before": datetime(2026, 1, 1)}, ValueError, "not_before needs a timezone"),  # noqa: DTZ001 - the point
        ({"priority": 1.5}, TypeError, "priority must be a whole number, not 1.5"),
        ({"priority": "high"}, TypeError, "priority must be a whole number, not 'high'"),
        ({"priority": True}, TypeError, "priority must be a whole number, not True"),
        ({"retries": "1"}, TypeError, "retries must be a whole number, not '1'"),
        ({"retry_of": 5}, TypeError, "retry_of must be text, not 5"),
        ({"cwd": b"/x"}, TypeError, "cwd must be a path as text, not b'/x'"),
        ({"expected_seconds": True}, TypeError, "expected_seconds must be a number of seconds, not True"),
        ({"on_interrupt": 3}, TypeError, "on_interrupt must be 'fail' or 'retry', not 3"),
        ({"prio": 1}, TypeError, "submit has no option 'prio'; it takes subcommand, priority, not_before"),
        ({"state": State.DONE}, TypeError, "submit has no option 'state'"),
        ({"not_before": "tomorrow"}, TypeError, "not_before must be a datetime, not 'tomorrow'"),
        ({"timeout_seconds": "5"}, TypeError, "timeout_seconds must be a number of seconds, not '5'"),
        ({"cwd": 5}, TypeError, "cwd must be a path as text, not 5"),
        ({"pirority": 5}, TypeError, "'pirority'"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused_by_name_and_nothing_is_kept(
    store: Store, options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=re.escape(reason)):
        store.submit("image_gen", "3d", **options)
    with pytest.raises(error, match=re.escape(reason)):
        store.submit_many("image_gen", [["3d"]], **options)
    assert set() == store.pending_ids()


def test_a_word_that_is_no_text_is_refused_by_name(store: Store) -> None:
    words: list[Any] = ["3d", 5]
    reason = "the words of a call are text, and 5 is int: convert it to str"
    for argv in (words, words[::-1]):
        with pytest.raises(TypeError, match=reason):
            store.submit("image_gen", *argv)
        with pytest.raises(TypeError, match=reason):
            store.submit_many("image_gen", [argv])
    assert set() == store.pending_ids()


@pytest.mark.parametrize("bad", ["\udcff", "x" * (1 << 20)], ids=["not UTF-8", "larger than 1 MiB"])
def test_a_call_that_cannot_be_stored_is_refused_and_nothing_is_kept(store: Store, bad: str) -> None:
    with pytest.raises(RecordError):
        store.submit("image_gen", bad)
    assert ([], set()) == (list(store.list()), store.pending_ids())


def test_relative_paths_begin_where_a_task_was_submitted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = [store.submit("tool", "echo"), *store.submit_many("tool", [["echo"]])]
    assert 2 * [str(tmp_path)] == [store.get(task.id).cwd for task in tasks]
    assert "/there" == store.get(store.submit("tool", "echo", cwd="/there").id).cwd


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [(3, TypeError, "key must be text, not 3"), ("", ValueError, "key must not be empty")],
    ids=repr,
)
def test_a_key_that_is_none_is_refused(store: Store, key: Any, error: type[Exception], words: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=words):
        store.submit("tool", "echo", key=key)
    assert [] == list(store.list())


def test_the_same_key_is_the_same_task_wherever_it_stands(store: Store) -> None:
    # given
    first = store.submit("image_gen", "3d", key="mei")
    assert first == store.submit("image_gen", "other", key="mei")

    # when, then
    claim = own(store, first.id)
    assert claim.task == store.submit("image_gen", "3d", key="mei")
    done = store.finish(claim, Event.COMPLETE)
    assert done == store.submit("image_gen", "3d", key="mei")
    assert ([done], set()) == (list(store.list()), store.pending_ids())


def test_other_keys_and_no_key_are_other_tasks(store: Store) -> None:
    ids = {store.submit("image_gen", "3d", key=key).id for key in ("a", "b", None, None)}
    assert 4 == len(ids)
    assert ids == store.pending_ids()


def test_a_key_submitted_from_many_threads_at_once_is_one_task(store: Store) -> None:
    found = in_threads(8, lambda _: store.submit("image_gen", "3d", key="mei").id)
    assert 1 == len(set(found))
    assert set(found) == store.pending_ids()


def test_a_key_is_free_again_once_its_task_was_pruned(store: Store, clock: ManualClock) -> None:
    # given
    done = complete(store, key="mei")
    store.notifications.acknowledge(store.notifications.peek())
    clock.advance(1)
    assert [done.id] == list(store.prune(finished_before=clock.now))

    # when
    again = complete(store, key="mei", result="the second")

    # then it is another task, under an id of its own, and the agent is notified of it
    assert done.id != again.id
    assert (again, again.id) == (store.get(again.id), store.submit("image_gen", "3d", key="mei").id)
    assert [again.id] == notified(store)


def test_an_id_is_random_also_where_a_key_names_the_task(store: Store, clock: ManualClock) -> None:
    """Nothing that belongs to an id can ever belong to another task."""
    ids = set()
    for _ in range(3):
        ids.add(complete(store, key="mei").id)
        store.notifications.acknowledge(store.notifications.peek())
        clock.advance(1)
        store.prune(finished_before=clock.now)
    assert 3 == len(ids)
