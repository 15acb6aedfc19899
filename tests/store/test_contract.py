"""What every store promises: one suite over tasks in memory and tasks as files."""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import attrs
import pytest

from animaworks_tasks import (
    Cause,
    OnInterrupt,
    Outcome,
    Registry,
    State,
    Store,
    Task,
    TaskNotFoundError,
    TaskStore,
    run_task,
)
from animaworks_tasks.errors import ClaimLostError, InvalidTransitionError, RecordError
from animaworks_tasks.store.protocol import Progress
from animaworks_tasks.task.states import Event
from animaworks_tasks.testing import assert_completed
from tests.conftest import ManualClock, begin, die, own

NOWHERE = "0" * 12


def told(store: Store) -> list[str | None]:
    """Return the ids of the tasks whose notices wait."""
    return sorted(notification.task_id or "" for notification in store.notifications.peek())


def complete(store: Store, *, key: str | None = None, result: str = "ok") -> Task:
    return store.finish(begin(store, key=key), Event.COMPLETE, result=result)


def in_threads(count: int, call: Callable[[int], object]) -> list[object]:
    """Call from *count* threads as nearly at once as can be; return what each got, in order."""
    together = Barrier(count)

    def go(number: int) -> object:
        together.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(go, range(count)))


# --- submit, get, list ---


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


@pytest.mark.parametrize("task_id", [NOWHERE, "", "../../etc", "ABCDEF012345"])
def test_a_task_that_is_not_there_is_not_found_and_the_error_says_where_to_look(store: Store, task_id: str) -> None:
    with pytest.raises(TaskNotFoundError, match="animaworks-tool list --all"):
        store.get(task_id)


def test_a_list_begins_with_what_changed_last_whatever_its_state(store: Store, clock: ManualClock) -> None:
    # given: submitted in this order, and then the first one is finished and the second one begun
    ids = []
    for _ in range(4):
        ids.append(store.submit("image_gen", "3d").id)
        clock.advance(1)
    store.finish(own(store, ids[0]), Event.COMPLETE)
    clock.advance(1)
    own(store, ids[1])

    # then
    assert [ids[1], ids[0], ids[3], ids[2]] == [task.id for task in store.list()]
    assert [ids[3], ids[2]] == [task.id for task in store.list(State.PENDING)]
    assert [ids[1]] == [task.id for task in store.list(State.RUNNING)]
    assert [ids[0]] == [task.id for task in store.list(State.DONE)]


@pytest.mark.parametrize("state", [None, *State])
def test_a_limited_list_is_the_beginning_of_the_whole_one(
    store: Store, clock: ManualClock, state: State | None
) -> None:
    # given tasks that were begun and finished in another order than they were submitted in
    ids = []
    for _ in range(6):
        clock.advance(1)
        ids.append(store.submit("image_gen", "3d").id)
    for task_id in reversed(ids[:4]):
        clock.advance(1)
        claim = own(store, task_id)
        if task_id in ids[:2]:
            store.finish(claim, Event.COMPLETE)

    # then
    whole = list(store.list(state))
    for limit in range(len(whole) + 2):
        assert whole[:limit] == list(store.list(state, limit=limit))


# --- claim ---


def test_a_claimed_task_is_running_its_first_attempt(store: Store, clock: ManualClock) -> None:
    # given
    submitted = store.submit("image_gen", "3d")
    clock.advance(1)

    # when
    claim = own(store, submitted.id)

    # then
    assert (State.RUNNING, 1, clock.now) == (claim.task.state, claim.task.attempt, claim.task.started_at)
    assert claim.task == store.get(submitted.id)
    assert set() == store.pending_ids()


def test_the_second_claimant_gets_nothing(store: Store) -> None:
    claim = begin(store)
    assert store.claim(claim.task.id) is None
    assert claim.task == store.get(claim.task.id)


def test_what_is_done_or_unknown_or_no_id_cannot_be_claimed(store: Store) -> None:
    done = complete(store)
    assert [None, None, None] == [store.claim(task_id) for task_id in (done.id, NOWHERE, "../x")]
    assert done == store.get(done.id)


def test_a_task_that_is_not_due_is_left_where_it_is_by_whoever_says_which_time_it_is(
    store: Store, clock: ManualClock
) -> None:
    # given
    due = clock.now + timedelta(minutes=1)
    task = store.submit("image_gen", "3d", not_before=due)

    # then
    assert store.claim(task.id, due_by=due - timedelta(seconds=1)) is None
    assert (task, {task.id}) == (store.get(task.id), store.pending_ids())
    claim = store.claim(task.id, due_by=due)
    assert claim is not None
    assert State.RUNNING is claim.task.state


def test_only_a_pending_task_waits(store: Store) -> None:
    pending, running, done = store.submit("image_gen", "3d"), begin(store).task, complete(store)
    ids = [pending.id, running.id, done.id, NOWHERE, "../x"]
    assert [True, False, False, False, False] == [store.waits(task_id) for task_id in ids]
    assert [pending, None, None, None, None] == [store.pending(task_id) for task_id in ids]


def test_an_orphan_cannot_be_claimed_before_it_was_recovered(store: Store) -> None:
    claim = begin(store)
    die(claim)
    assert store.claim(claim.task.id) is None


def test_of_many_threads_that_race_for_many_tasks_each_task_goes_to_one(store: Store) -> None:
    # given
    ids = [store.submit("image_gen", "3d").id for _ in range(30)]

    # when
    claimed = in_threads(4, lambda _: [task_id for task_id in ids if store.claim(task_id) is not None])

    # then
    got = [task_id for some in claimed if isinstance(some, list) for task_id in some]
    assert len(got) == len(set(got)), "a task was claimed twice"
    while store.pending_ids():  # who probes a lock at the wrong moment makes a claim fail, for now
        got += [task_id for task_id in store.pending_ids() if store.claim(task_id) is not None]
    assert sorted(ids) == sorted(got)


def test_an_announcement_tells_others_what_the_owner_found_out(store: Store) -> None:
    # given a task whose subcommand only its tool can tell
    claim = own(store, store.submit("local_llm", "-m", "llama3", "generate", "hello").id)
    assert "llama3" == claim.task.subcommand

    # when
    claim.task = attrs.evolve(claim.task, subcommand="generate")
    store.announce(claim)

    # then
    assert "local_llm:generate" == store.get(claim.task.id).name
    assert "local_llm:generate" == store.finish(claim, Event.COMPLETE).name


# --- finish ---


@pytest.mark.parametrize(
    ("event", "changes", "outcome"),
    [
        (Event.COMPLETE, {"result": "model.glb"}, Outcome.COMPLETED),
        (Event.COMPLETE, {"result": "begin", "result_file": "results/x/result.txt"}, Outcome.COMPLETED),
        (Event.FAIL, {"cause": Cause.TOOL, "error": "no", "hint": "try later"}, Outcome.FAILED),
        (Event.FAIL, {"cause": Cause.TIMEOUT, "error": "30 s", "result": "so far"}, Outcome.FAILED),
        (Event.CANCEL, {"error": "as asked"}, Outcome.CANCELLED),
    ],
)
def test_an_ended_task_has_its_outcome_and_is_told_of_once(
    store: Store, clock: ManualClock, event: Event, changes: dict[str, object], outcome: Outcome
) -> None:
    # given
    claim = begin(store)
    clock.advance(2.5)

    # when
    done = store.finish(claim, event, **changes)

    # then
    assert (State.DONE, outcome, clock.now) == (done.state, done.outcome, done.finished_at)
    assert changes == {name: getattr(done, name) for name in changes}
    assert done == store.get(done.id)
    [notification] = store.notifications.peek()
    assert done.id == notification.task_id
    assert (outcome is not Outcome.COMPLETED) == notification.failed
    assert done.id in notification.text


def test_a_claim_ends_once(store: Store) -> None:
    # given
    claim = begin(store)
    done = store.finish(claim, Event.COMPLETE, result="the first")

    # then
    with pytest.raises(ClaimLostError, match=done.id):
        store.finish(claim, Event.FAIL, cause=Cause.TOOL, error="the second")
    with pytest.raises(ClaimLostError):
        store.release(claim)
    with pytest.raises(ClaimLostError):
        store.announce(claim)
    assert (done, [done.id]) == (store.get(done.id), told(store))


def test_a_claim_without_its_lock_is_lost_before_anybody_took_the_task(store: Store) -> None:
    claim = begin(store)
    die(claim)
    with pytest.raises(ClaimLostError):
        store.finish(claim, Event.COMPLETE)
    assert (claim.task, []) == (store.get(claim.task.id), told(store))


def test_a_claim_whose_lock_is_gone_writes_nothing(store: Store) -> None:
    # given an owner that was taken for dead, and its task was settled
    claim = begin(store)
    die(claim)
    [settled] = store.recover().settled

    # then it cannot end the task after all
    with pytest.raises(ClaimLostError):
        store.finish(claim, Event.COMPLETE)
    with pytest.raises(ClaimLostError):
        store.release(claim)
    with pytest.raises(ClaimLostError):
        store.announce(claim)
    assert (settled, [settled.id]) == (store.get(settled.id), told(store))


@pytest.mark.parametrize("bad", ["\udcff", "x" * (1 << 20)], ids=["not UTF-8", "larger than 1 MiB"])
def test_a_result_that_cannot_be_stored_leaves_the_claim_to_be_finished_with_less(store: Store, bad: str) -> None:
    # given
    claim = begin(store)

    # when
    with pytest.raises(RecordError):
        store.finish(claim, Event.COMPLETE, result=bad)

    # then
    assert (State.RUNNING, []) == (store.get(claim.task.id).state, told(store))
    assert store.claim(claim.task.id) is None
    assert (claim.task.id,) == store.recover().alive
    done = store.finish(claim, Event.FAIL, cause=Cause.RESULT, error="too large")
    assert (done, [done.id]) == (store.get(done.id), told(store))


@pytest.mark.parametrize(
    ("event", "changes"), [(Event.REJECT, {"cause": Cause.REJECTED}), (Event.CLAIM, {}), (Event.FAIL, {})]
)
def test_an_end_that_cannot_be_changes_nothing(store: Store, event: Event, changes: dict[str, object]) -> None:
    """A running task is not rejected or claimed, and a failure without a cause is none."""
    claim = begin(store)
    with pytest.raises((InvalidTransitionError, ValueError)):
        store.finish(claim, event, **changes)
    assert (claim.task, []) == (store.get(claim.task.id), told(store))
    assert Outcome.COMPLETED is store.finish(claim, Event.COMPLETE).outcome


# --- release ---


def test_a_released_task_waits_for_its_next_attempt(store: Store, clock: ManualClock) -> None:
    # given
    claim = begin(store)
    clock.advance(-500)  # the clock was set back meanwhile

    # when
    released = store.release(claim, pause=30)

    # then
    assert (State.PENDING, 1) == (released.state, released.attempt)
    assert clock.now + timedelta(seconds=30) == released.not_before
    assert (None, None) == (released.started_at, released.owner_pid)
    assert released == store.get(released.id)
    assert ({released.id}, []) == (store.pending_ids(), told(store))
    assert 2 == own(store, released.id).task.attempt


def test_what_is_given_back_before_its_tool_was_called_is_as_it_was(store: Store, clock: ManualClock) -> None:
    # given a task that waits for an hour, and one that was tried once and waits for its second attempt
    new = store.submit("image_gen", "3d", not_before=clock.now + timedelta(hours=1))
    tried = store.release(begin(store), pause=30)
    for task in (new, tried):
        # when
        released = store.release(own(store, task.id), began=False)

        # then
        assert task == released == store.get(task.id)
    assert {new.id, tried.id} == store.pending_ids()
    assert (1, 2) == (own(store, new.id).task.attempt, own(store, tried.id).task.attempt)


def test_a_released_task_ends_like_any_other(store: Store) -> None:
    claim = begin(store)
    store.release(claim)
    done = store.finish(own(store, claim.task.id), Event.COMPLETE, result="at last")
    assert (2, "at last", [done.id]) == (done.attempt, done.result, told(store))


# --- recover ---


def test_a_task_whose_owner_lives_is_left_alone(store: Store) -> None:
    claim = begin(store)
    found = store.recover(lambda _: True)
    assert ((claim.task.id,), (), ()) == (found.alive, found.settled, found.returned)
    assert Outcome.COMPLETED is store.finish(claim, Event.COMPLETE).outcome


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [(3, TypeError, "key must be text, not 3"), ("", ValueError, "key must not be empty")],
    ids=repr,
)
def test_a_key_that_is_none_is_refused(store: Store, key: Any, error: type[Exception], words: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=words):
        store.submit("tool", "echo", key=key)
    assert [] == list(store.list())


def test_relative_paths_begin_where_a_task_was_submitted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = [store.submit("tool", "echo"), *store.submit_many("tool", [["echo"]])]
    assert 2 * [str(tmp_path)] == [store.get(task.id).cwd for task in tasks]
    assert "/there" == store.get(store.submit("tool", "echo", cwd="/there").id).cwd


def test_a_result_is_read_as_a_whole_also_where_its_record_has_only_the_beginning(store: Store) -> None:
    # given
    registry = Registry()
    registry.add("tool", "echo", lambda size: int(size) * "ü")
    texts = {size: store.submit("tool", "echo", str(size)).id for size in (0, 10, 200_000)}
    failed = store.submit("tool", "unknown").id
    for task_id in (*texts.values(), failed):
        run_task(store, registry, task_id)

    # then
    assert {size: size * "ü" for size in texts} == {size: store.read_result(task_id) for size, task_id in texts.items()}
    assert store.get(texts[200_000]).result != store.read_result(texts[200_000])
    assert store.read_result(failed) is None
    assert "ü" == assert_completed(store, texts[200_000], contains=200_000 * "ü").result_tail[-1:]  # type: ignore[index]
    with pytest.raises(TaskNotFoundError):
        store.read_result("0" * 12)


def test_a_task_has_an_owner_until_its_end_was_told(store: Store) -> None:
    task_id = store.submit("image_gen", "3d").id
    assert not store.runs(task_id)
    claim = own(store, task_id)
    assert store.runs(task_id)
    die(claim)
    assert store.runs(task_id)
    store.recover()
    assert not store.runs(task_id)
    assert not store.runs("no id")


def test_an_orphan_ends_interrupted_and_the_notice_says_that_it_may_have_partly_run(store: Store) -> None:
    # given
    claim = begin(store)
    die(claim)

    # when
    found = store.recover()

    # then
    [done] = found.settled
    assert ((), ()) == (found.alive, found.returned)
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (done.outcome, done.cause)
    assert claim.task.started_at == done.started_at
    assert done == store.get(claim.task.id)
    [notification] = store.notifications.peek()
    assert (done.id, True) == (notification.task_id, notification.failed)
    assert "may have partly run" in notification.text
    # and when its owner died, which was perhaps long before, nobody knows
    assert done.duration is None
    assert "Took" not in notification.text


def test_an_orphan_that_is_safe_to_run_again_returns(store: Store) -> None:
    # given
    claim = begin(store, on_interrupt=OnInterrupt.RETRY)
    die(claim)
    asked: list[Task] = []

    # when
    found = store.recover(lambda task: not asked.append(task))  # type: ignore[func-returns-value]

    # then
    assert [claim.task] == asked, "it is asked of the task as it was running"
    [task] = found.returned
    assert ((), (), task) == (found.alive, found.settled, store.get(claim.task.id))
    assert (State.PENDING, 1, OnInterrupt.RETRY) == (task.state, task.attempt, task.on_interrupt)
    assert [] == told(store)
    assert 2 == own(store, task.id).task.attempt


def test_an_orphan_that_was_asked_to_stop_ends_cancelled_even_where_it_may_run_again(store: Store) -> None:
    # given
    claim = begin(store)
    store.request_cancel(claim.task.id)
    die(claim)

    # when
    [done] = store.recover(lambda _: True).settled

    # then
    assert (Outcome.CANCELLED, [done.id]) == (done.outcome, told(store))


def test_the_wish_that_a_task_stop_outlives_its_attempt(store: Store) -> None:
    """Or else a task that fails and is tried again just when it is cancelled would run on."""
    claim = begin(store)
    store.request_cancel(claim.task.id)
    store.release(claim)
    own(store, claim.task.id)
    assert store.workspace(claim.task.id).cancel_requested()


@pytest.mark.parametrize("again", [False, True], ids=["settled", "returned"])
def test_recovering_twice_changes_nothing_more(store: Store, *, again: bool) -> None:
    # given
    die(begin(store))
    store.recover(lambda _: again)
    before = (list(store.list()), store.notifications.peek())

    # when
    found = store.recover(lambda _: again)

    # then
    assert ((), (), ()) == (found.alive, found.settled, found.returned)
    assert before == (list(store.list()), store.notifications.peek())


def test_many_hosts_that_recover_at_once_settle_each_orphan_once(store: Store) -> None:
    # given
    ids = []
    for _ in range(20):
        claim = begin(store)
        die(claim)
        ids.append(claim.task.id)

    # when
    found = in_threads(4, lambda _: [task.id for task in store.recover().settled])

    # then
    settled = [task_id for some in found if isinstance(some, list) for task_id in some]
    settled += [task.id for task in store.recover().settled]
    assert sorted(ids) == sorted(settled) == told(store)


# --- cancel ---


def test_a_pending_task_is_cancelled_at_once(store: Store) -> None:
    task = store.submit("image_gen", "3d")
    done = store.request_cancel(task.id)
    assert (State.DONE, Outcome.CANCELLED) == (done.state, done.outcome)
    assert (done, [done.id], set()) == (store.get(task.id), told(store), store.pending_ids())


def test_a_running_task_is_asked_to_stop_and_its_owner_decides(store: Store) -> None:
    # given
    claim = begin(store)
    workspace = store.workspace(claim.task.id)
    assert not workspace.cancel_requested()

    # when
    task = store.request_cancel(claim.task.id)

    # then
    assert State.RUNNING is task.state
    assert workspace.cancel_requested()
    assert (claim.task, []) == (store.get(claim.task.id), told(store))
    assert "too late" == store.finish(claim, Event.COMPLETE, result="too late").result
    assert not workspace.cancel_requested()


def test_a_done_task_stays_as_it_ended(store: Store) -> None:
    done = complete(store)
    assert done == store.request_cancel(done.id) == store.get(done.id)
    assert [done.id] == told(store)


def test_a_task_that_is_not_there_cannot_be_cancelled(store: Store) -> None:
    with pytest.raises(TaskNotFoundError):
        store.request_cancel(NOWHERE)


# --- key ---


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

    # then it is told of like the first one
    assert (done.id, "the second") == (again.id, again.result)
    assert [done.id] == told(store)


# --- notifications ---


def test_peeking_changes_nothing(store: Store) -> None:
    ids = sorted(complete(store).id for _ in range(3))
    assert ids == told(store) == told(store)


def test_an_acknowledged_notice_is_not_shown_again(store: Store) -> None:
    # given
    first, second = complete(store), complete(store)
    notices = store.notifications.peek()

    # when
    store.notifications.acknowledge(n for n in notices if n.task_id == first.id)

    # then
    assert [second.id] == told(store)
    store.notifications.acknowledge(notices)  # also those that are no longer there
    assert [] == told(store)


def test_a_drain_hands_out_everything_and_acknowledges_it_at_its_end(store: Store) -> None:
    ids = sorted(complete(store).id for _ in range(3))
    with store.notifications.drain() as drained:
        assert ids == sorted(n.task_id or "" for n in drained.notifications) == told(store)
        assert 0 == drained.left
        assert all(n.text in drained.text for n in drained.notifications)
    assert [] == told(store)


def test_a_drain_that_raises_acknowledges_nothing(store: Store) -> None:
    done = complete(store)
    with pytest.raises(RuntimeError, match="model overloaded"), store.notifications.drain():
        raise RuntimeError("model overloaded")
    with store.notifications.drain() as drained:
        assert [done.id] == [n.task_id for n in drained.notifications]


def test_of_two_drains_at_once_the_second_gets_nothing(store: Store) -> None:
    complete(store)
    with store.notifications.drain() as first, store.notifications.drain() as second:
        assert (1, (), "", 0) == (len(first.notifications), second.notifications, second.text, second.left)
    assert [] == told(store)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["the same thread", "another thread"])
def test_a_drain_may_acknowledge_some_of_what_it_has_shown_and_then_raise(store: Store, *, elsewhere: bool) -> None:
    # given
    first, second = complete(store), complete(store)
    acknowledge = store.notifications.acknowledge

    # when
    with contextlib.suppress(InterruptedError), store.notifications.drain() as drained:
        some = [n for n in drained.notifications if n.task_id == first.id]
        if elsewhere:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(acknowledge, some).result(10)
        else:
            acknowledge(some)
        assert [second.id] == told(store)
        raise InterruptedError

    # then
    assert [second.id] == told(store)


def test_a_drain_may_acknowledge_all_that_it_has_shown(store: Store) -> None:
    complete(store)
    with store.notifications.drain() as drained:
        store.notifications.acknowledge(drained.notifications)
    assert [] == told(store)


def test_a_notice_that_came_anew_during_a_drain_is_not_acknowledged_by_it(store: Store, clock: ManualClock) -> None:
    """Somebody else acknowledged the first one, and its task was pruned and submitted again with its key."""
    complete(store, key="mei")
    with store.notifications.drain() as drained:
        store.notifications.acknowledge(drained.notifications)
        clock.advance(1)
        store.prune(finished_before=clock.now)
        again = complete(store, key="mei", result="the second")
    assert [again.id] == told(store)


def test_what_finishes_during_a_drain_waits_for_the_next(store: Store) -> None:
    complete(store)
    with store.notifications.drain():
        later = complete(store)
    assert [later.id] == told(store)


def test_a_small_budget_shows_failures_first_and_the_rest_in_a_line_each(store: Store) -> None:
    # given a failure that came after three long successes
    good = {complete(store, result=f"{n} " * 1000).id for n in range(3)}
    bad = store.finish(begin(store), Event.FAIL, cause=Cause.TOOL, error="no paint")
    [text] = [n.text for n in store.notifications.peek() if n.task_id == bad.id]

    # when there is room for the failure and three lines
    budget = len(text) + 3 * 200 + 1
    with store.notifications.drain(budget=budget) as drained:
        pass

    # then
    assert len(drained.text) <= budget
    assert drained.text.startswith(text)
    assert good == {line[2:14] for line in drained.text.removeprefix(text).strip().splitlines()}
    assert (bad.id, 0, []) == (drained.notifications[0].task_id, drained.left, told(store))


def test_what_does_not_fit_a_budget_is_left_for_the_next_drain(store: Store) -> None:
    # given
    ids = {complete(store, result=f"{n} " * 1000).id for n in range(4)}

    # when there is room for two lines
    with store.notifications.drain(budget=2 * 200) as drained:
        pass

    # then
    shown = {n.task_id or "" for n in drained.notifications}
    assert (2, 2) == (len(shown), drained.left)
    assert shown == {line[2:14] for line in drained.text.splitlines()}
    assert sorted(ids - shown) == told(store)


def test_a_budget_of_nothing_shows_and_acknowledges_nothing(store: Store) -> None:
    done = complete(store)
    with store.notifications.drain(budget=0) as drained:
        assert ("", (), 1) == (drained.text, drained.notifications, drained.left)
    assert [done.id] == told(store)


# --- prune ---


def test_a_prune_forgets_what_is_old_done_and_acknowledged_and_nothing_else(store: Store, clock: ManualClock) -> None:
    # given one of each: acknowledged, unacknowledged, pending, running, and one that ended later
    acknowledged = complete(store)
    store.workspace(acknowledged.id).write_log(b"a trace")
    store.workspace(acknowledged.id).report_progress(0.5, "half")
    store.workspace(acknowledged.id).keep_result(b"large")
    store.notifications.acknowledge(store.notifications.peek())
    unacknowledged = complete(store)
    pending = store.submit("image_gen", "3d")
    running = begin(store)
    clock.advance(60)
    later = complete(store)
    store.notifications.acknowledge(n for n in store.notifications.peek() if n.task_id == later.id)

    # when
    pruned = store.prune(finished_before=clock.now)

    # then
    assert [acknowledged.id] == list(pruned)
    left = {unacknowledged.id, pending.id, running.task.id, later.id}
    assert left == {task.id for task in store.list()}
    assert [unacknowledged.id] == told(store)
    assert (b"", None) == (store.read_log(acknowledged.id), store.read_progress(acknowledged.id))
    with pytest.raises(TaskNotFoundError):
        store.get(acknowledged.id)
    assert [] == list(store.prune(finished_before=clock.now))


def read_at_intervals(store: Store, clock: ManualClock, count: int) -> list[Task]:
    """Return *count* tasks that ended a minute apart, the oldest first, whose notices are acknowledged."""
    done = []
    for _ in range(count):
        done.append(complete(store))
        clock.advance(60)
    store.notifications.acknowledge(store.notifications.peek())
    return done


@pytest.mark.parametrize(("keep", "left"), [(0, 0), (1, 1), (3, 3), (4, 4), (9, 4)])
def test_a_prune_keeps_the_newest_of_those_that_ended(store: Store, clock: ManualClock, keep: int, left: int) -> None:
    done = read_at_intervals(store, clock, 4)
    pruned = store.prune(keep=keep)
    assert {task.id for task in done[: 4 - left]} == set(pruned)
    assert list(reversed(done[4 - left :])) == list(store.list())


def test_a_prune_by_number_keeps_what_nobody_has_read_or_what_has_not_ended(store: Store, clock: ManualClock) -> None:
    """What is unread is one of those that ended: it takes the place of nothing that is kept, and nothing takes its."""
    # given
    unread = complete(store)
    clock.advance(60)
    read = complete(store)
    store.notifications.acknowledge(notice for notice in store.notifications.peek() if notice.task_id == read.id)
    pending, running = store.submit("image_gen", "3d"), begin(store)

    # then
    assert [] == list(store.prune(keep=1))
    assert [read.id] == list(store.prune(keep=0))
    assert {unread.id, pending.id, running.task.id} == {task.id for task in store.list()}
    assert [unread.id] == told(store)


def test_a_prune_by_age_and_number_forgets_what_either_would(store: Store, clock: ManualClock) -> None:
    done = read_at_intervals(store, clock, 4)
    assert done[2].finished_at is not None
    assert {done[0].id} == set(store.prune(keep=3, finished_before=done[0].finished_at))
    assert {done[1].id} == set(store.prune(keep=3, finished_before=done[2].finished_at))
    assert [] == list(store.prune())
    assert [done[3], done[2]] == list(store.list())


# --- workspace ---


def test_a_log_grows_as_it_is_written(store: Store) -> None:
    claim = begin(store)
    workspace = store.workspace(claim.task.id)
    assert b"" == store.read_log(claim.task.id)
    workspace.write_log(b"one\n")
    store.workspace(claim.task.id).write_log(b"\xff two\n")
    assert b"one\n\xff two\n" == store.read_log(claim.task.id)


def test_the_last_progress_report_counts(store: Store) -> None:
    claim = begin(store)
    workspace = store.workspace(claim.task.id)
    assert store.read_progress(claim.task.id) is None
    workspace.report_progress(0.25, "meshing")
    workspace.report_progress(None, "テクスチャ")
    progress = store.read_progress(claim.task.id)
    assert isinstance(progress, Progress)
    assert (None, "テクスチャ") == (progress.fraction, progress.message)
    workspace.report_progress(1, "done")
    progress = store.read_progress(claim.task.id)
    assert progress is not None
    assert (1.0, "done") == (progress.fraction, progress.message)


def test_a_large_result_is_kept_beside_the_record_the_last_attempt_counting(store: Store) -> None:
    claim = begin(store)
    workspace = store.workspace(claim.task.id)
    first = workspace.keep_result(b"of the first attempt")
    second = workspace.keep_result(b"x" * 2_000_000)
    assert first == second
    done = store.finish(claim, Event.COMPLETE, result="xxx", result_file=second)
    assert second == store.get(done.id).result_file


def test_a_task_has_a_scratch_directory_of_its_own(store: Store) -> None:
    one, other = store.workspace(begin(store).task.id), store.workspace(begin(store).task.id)
    (one.scratch() / "notes").write_text("kept")
    assert "kept" == (one.scratch() / "notes").read_text()
    assert not (other.scratch() / "notes").exists()


# --- doorbell ---


def test_a_submit_a_release_and_a_finish_ring_with_the_id(store: Store) -> None:
    # given
    bell = store.doorbell()

    # then
    task = store.submit("image_gen", "3d")
    assert {task.id} == bell.wait(10)
    store.release(own(store, task.id))
    assert {task.id} == bell.wait(10)
    store.finish(own(store, task.id), Event.COMPLETE)
    assert {task.id} == bell.wait(10)
    bell.close()


def test_a_ring_wakes_who_waits_already(store: Store) -> None:
    bell = store.doorbell()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bell.wait, 60)
        ids = {store.submit("image_gen", "3d").id, store.submit("image_gen", "3d").id}
        rung = waiting.result(10)
        while rung != ids:  # the second one may ring when the first one has been heard
            rung |= bell.wait(10)
    bell.close()


def test_a_doorbell_can_be_woken_from_another_thread_without_an_id(store: Store) -> None:
    bell = store.doorbell()
    bell.wake()
    assert set() == bell.wait(60), "a wake before the wait counts"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bell.wait, 60)
        bell.wake()
        assert set() == waiting.result(10)
    assert set() == bell.wait(0), "once"
    bell.close()


def test_a_closed_doorbell_is_no_longer_rung(store: Store) -> None:
    store.doorbell().close()
    assert State.PENDING is store.submit("image_gen", "3d").state


# --- owners that really die ---

OWNER = """
import sys
from animaworks_tasks import TaskStore
store = TaskStore(sys.argv[1], durability="process")
claim = store.claim(sys.argv[2])
if sys.argv[3] == "announced":
    store.announce(claim)
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("said", ["announced", "silent"])
def test_a_killed_process_leaves_an_orphan_at_once(files: TaskStore, said: str) -> None:
    # given a process that owns a task, whether or not it came to say so
    task = files.submit("image_gen", "3d")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, files.location, task.id, said], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert b"mine\n" == owner.stdout.readline()
        assert (task.id,) == files.recover().alive
        assert State.RUNNING is files.get(task.id).state
        assert {None, owner.pid} >= {files.get(task.id).owner_pid}

        # when
        owner.kill()

    # then
    [done] = files.recover().settled
    assert (Outcome.FAILED, Cause.INTERRUPTED, 1) == (done.outcome, done.cause, done.attempt)
    assert (done, [done.id]) == (files.get(task.id), told(files))
