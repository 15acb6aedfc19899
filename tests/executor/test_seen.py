"""What a scheduler knows of a task is the table and nothing else; and what it starts next."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import product

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from animaworks_tasks import Task
from animaworks_tasks.executor.seen import BUSY, QUEUED, TAKES_SLOT, TRANSITIONS, Change, Phase, Seen, SeenTasks

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
STEADY = 1000.0  # seconds of another clock
SPAN = (LATER - NOW).total_seconds()
ID = "0123456789ab"
PLACE = (0, NOW, ID)


def place_in(phase: Phase | None) -> tuple[int, datetime, str] | None:
    return PLACE if phase in QUEUED else None


def ways() -> dict[Phase, list[Change]]:
    """Return for each phase that can be reached a way to it through the table."""
    found: dict[Phase, list[Change]] = {Phase.UNKNOWN: []}
    for _ in Phase:
        for (source, change), target in TRANSITIONS.items():
            if source in found:
                found.setdefault(target, [*found[source], change])
    return found


def tasks_in(phase: Phase) -> SeenTasks:
    """Return what a scheduler knows that knows of one task, in *phase*."""
    seen = SeenTasks()
    for change in ways()[phase]:
        assert seen.move(ID, change, place_in(TRANSITIONS[seen.phase(ID), change]))
    assert phase is seen.phase(ID)
    return seen


def known(seen: SeenTasks) -> dict[Phase, set[str]]:
    return {phase: seen.ids(phase) for phase in Phase}


def a_task(task_id: str = ID, *, priority: int = 0, not_before: datetime | None = None) -> Task:
    return Task(id=task_id, tool="tool", submitted_at=NOW, priority=priority, not_before=not_before)


# --- the table ---


@pytest.mark.parametrize(("phase", "change"), [*product(Phase, Change)], ids=lambda word: word.value)
def test_what_the_table_has_is_done_and_what_it_lacks_is_refused(phase: Phase, change: Change) -> None:
    # given
    seen = tasks_in(phase)
    before = known(seen)

    # when
    target = TRANSITIONS.get((phase, change))
    moved = seen.move(ID, change, place_in(target))

    # then
    if target is None:
        assert (False, phase, before) == (moved, seen.phase(ID), known(seen))
    else:
        assert (True, target) == (moved, seen.phase(ID))
        assert {target: {ID}} == {each: ids for each, ids in known(seen).items() if ids} or target is Phase.UNKNOWN
        assert (target is not Phase.UNKNOWN) == seen.count(*Phase)


def test_each_phase_can_be_reached_and_left_for_good() -> None:
    leaving = {Phase.UNKNOWN}
    for _ in Phase:
        leaving |= {source for (source, _), target in TRANSITIONS.items() if target in leaving}
    assert set(Phase) == set(ways()) == leaving
    assert set(Change) == {change for _, change in TRANSITIONS}


def test_an_end_is_reported_once_until_the_task_is_forgotten() -> None:
    """An end is reported where DONE or RECOVERED is not refused: neither can follow the other."""
    ends = {Change.DONE, Change.RECOVERED}
    reported = {target for (_, change), target in TRANSITIONS.items() if change in ends}
    assert {Phase.ENDED, Phase.RETURNING} == reported
    assert not {(phase, change) for phase, change in TRANSITIONS if phase in reported and change in ends}
    assert {Phase.ENDED, Phase.UNKNOWN} == {target for (phase, _), target in TRANSITIONS.items() if phase in reported}


def test_only_what_is_ready_or_unknown_is_started_and_only_what_was_started_comes_back() -> None:
    assert {Phase.READY, Phase.UNKNOWN} == {phase for phase, change in TRANSITIONS if change is Change.STARTED}
    assert {Phase.OURS} == {target for (_, change), target in TRANSITIONS.items() if change is Change.STARTED}
    back = {phase for phase, change in TRANSITIONS if change in {Change.RETURNED, Change.REFUSED}}
    assert {Phase.OURS, Phase.RETURNING} == back


def test_what_takes_a_slot_keeps_a_scheduler_busy_and_what_waits_for_its_time_or_the_disk_does_not() -> None:
    assert set(TAKES_SLOT) < set(BUSY)
    assert {Phase.UNKNOWN, Phase.LATER, Phase.STUCK, Phase.ENDED} == set(Phase) - set(BUSY)


@pytest.mark.parametrize("phase", Phase)
def test_a_task_has_a_place_exactly_when_it_stands_in_the_queue(phase: Phase) -> None:
    wrong = None if phase in QUEUED else PLACE
    assert place_in(phase) == Seen(phase, place_in(phase)).place
    with pytest.raises(ValueError, match=f"a task that is {phase.value} cannot have the place"):
        Seen(phase, wrong)


def test_a_move_without_the_place_that_it_needs_changes_nothing() -> None:
    seen = SeenTasks()
    with pytest.raises(ValueError, match="place None"):
        seen.move(ID, Change.DUE)
    assert (Phase.UNKNOWN, 0) == (seen.phase(ID), seen.count(*Phase))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Change))))
def test_a_task_is_counted_in_its_phase_and_in_no_other(moves: list[tuple[str, Change]]) -> None:
    seen = SeenTasks()
    for name, change in moves:
        target = TRANSITIONS.get((seen.phase(name), change))
        assert (target is not None) == seen.move(name, change, place_in(target))
        phases = {each: seen.phase(each) for each in "abc" if seen.phase(each) is not Phase.UNKNOWN}
        for phase in Phase:
            expected = {each for each in phases if phases[each] is phase}
            assert (expected, len(expected)) == (seen.ids(phase), seen.count(phase))


# --- pending tasks, and the queue ---


def started(seen: SeenTasks) -> list[str]:
    return [*iter(seen.start_next, None)]


def test_the_first_by_priority_and_submission_is_started_first_and_each_once() -> None:
    # given
    seen = SeenTasks()
    for task_id, priority in (("c", 0), ("a", 2), ("b", 1)):
        task = a_task(ID[:-1] + task_id, priority=priority)
        seen.queue(attrs.evolve(task, submitted_at=NOW), NOW, STEADY)
        seen.queue(task, NOW, STEADY)  # seen once more

    # then
    assert [ID[:-1] + letter for letter in "abc"] == started(seen)
    assert 3 == seen.count(Phase.OURS)


def test_a_task_that_left_the_queue_and_came_back_is_started_once_and_from_its_new_place() -> None:
    # given one that was first, was taken by another host, and came back as the last
    seen = SeenTasks()
    other = a_task("f" * 12, priority=5)
    seen.queue(a_task(priority=9), NOW, STEADY)
    seen.queue(other, NOW, STEADY)
    seen.move(ID, Change.RUNS)
    seen.queue(a_task(priority=1), NOW, STEADY)

    # then
    assert [other.id, ID] == started(seen)


@pytest.mark.parametrize("change", [Change.RUNS, Change.DONE, Change.GONE])
def test_a_task_that_left_the_queue_is_not_started(change: Change) -> None:
    seen = SeenTasks()
    seen.queue(a_task(), NOW, STEADY)
    seen.queue(a_task("f" * 12, not_before=LATER), NOW, STEADY)
    assert all(seen.move(task_id, change) for task_id in seen.ids(*QUEUED))
    seen.make_ready(LATER, STEADY + SPAN)
    assert [] == started(seen)


def test_a_task_is_ready_when_it_is_due() -> None:
    # given
    seen = SeenTasks()
    assert math.inf == seen.next_due()
    seen.queue(a_task(not_before=LATER), NOW, STEADY)
    assert STEADY + SPAN == seen.next_due()

    # when, then
    seen.make_ready(LATER - timedelta(seconds=1), STEADY + SPAN - 1)
    assert ([], {ID}) == (started(seen), seen.ids(Phase.LATER))
    seen.make_ready(LATER, STEADY + SPAN)
    assert [ID] == started(seen)


@pytest.mark.parametrize("first", [None, LATER])
def test_a_task_that_was_requeued_with_a_pause_waits_for_it_from_wherever_it_stood(first: datetime | None) -> None:
    # given
    seen = SeenTasks()
    seen.queue(a_task(not_before=first), NOW, STEADY)

    # when
    seen.queue(a_task(not_before=LATER + timedelta(hours=1)), NOW, STEADY)

    # then
    seen.make_ready(LATER, STEADY + SPAN)
    assert [] == started(seen)
    seen.make_ready(LATER + timedelta(hours=1), STEADY + SPAN + 3600)
    assert [ID] == started(seen)


@pytest.mark.parametrize("back", [timedelta(seconds=1), timedelta(hours=3)])
def test_a_clock_that_is_set_back_makes_no_wait_longer(back: timedelta) -> None:
    """Neither of what was queued before it, nor of what is queued after it, as by a host that is started again."""
    seen, again = SeenTasks(), SeenTasks()
    task = attrs.evolve(a_task(not_before=NOW + timedelta(seconds=2)), pause_seconds=2.0)
    seen.queue(task, NOW, STEADY)
    seen.make_ready(NOW, STEADY)
    again.queue(task, NOW - back, STEADY)
    for waiting in (seen, again):
        waiting.make_ready(NOW - back + timedelta(seconds=1.9), STEADY + 1.9)
        assert [] == started(waiting)
        waiting.make_ready(NOW - back + timedelta(seconds=2), STEADY + 2.0)
        assert [ID] == started(waiting)


def test_what_its_submitter_delayed_waits_no_longer_than_it_asked_for_either() -> None:
    seen = SeenTasks()
    task = a_task(not_before=NOW + timedelta(minutes=1))
    seen.queue(task, NOW - timedelta(hours=3), STEADY)
    assert STEADY + 60 == seen.next_due()


def test_a_clock_that_is_set_forward_or_a_machine_that_slept_makes_a_task_due_at_its_time() -> None:
    seen, hour = SeenTasks(), timedelta(hours=1)
    seen.queue(a_task(not_before=NOW + 2 * hour), NOW, STEADY)
    seen.make_ready(NOW, STEADY)
    seen.make_ready(NOW - hour, STEADY + 1)  # set back, and forward again: it waits as long as it should
    seen.make_ready(NOW + timedelta(seconds=2), STEADY + 2)
    assert ([], STEADY + 7200) == (started(seen), seen.next_due())
    seen.make_ready(NOW + hour, STEADY + 3)
    assert ([], STEADY + 3603) == (started(seen), seen.next_due())
    seen.make_ready(NOW + 2 * hour, STEADY + 4)
    assert [ID] == started(seen)


def test_a_task_is_due_at_its_time_to_the_microsecond() -> None:
    """Where the steady clock is the other one, as in tests, what is left of the pause is a sum of rounded floats."""
    for number in range(500):
        seen, pause, now = SeenTasks(), 1.0 + number / 3_000, NOW + timedelta(microseconds=7_919_113 * number)
        due = now + timedelta(seconds=pause)
        seen.queue(attrs.evolve(a_task(not_before=due), submitted_at=now, pause_seconds=pause), now, now.timestamp())
        seen.make_ready(due, due.timestamp())
        assert [ID] == started(seen), number


def test_what_is_listed_is_read_a_few_at_a_time() -> None:
    # given
    seen = SeenTasks()
    ids = {f"{number:012x}" for number in range(10)}
    assert set() == seen.list_pending(ids)

    # when
    first, rest = seen.take_unread(4), seen.take_unread(100)

    # then
    assert (4, 6, ids) == (len(first), len(rest), first | rest)
    assert (set(), 0) == (seen.take_unread(1), seen.count(*Phase))


def test_what_is_no_longer_listed_is_forgotten_unread_and_looked_at_if_it_stood_in_the_queue() -> None:
    # given one unread, one in the queue, one that runs
    seen = SeenTasks()
    unread, queued, running, new = (letter * 12 for letter in "abcd")
    seen.list_pending({unread, running})
    seen.queue(a_task(queued), NOW, STEADY)
    seen.move(running, Change.RUNS)

    # when
    left = seen.list_pending({new})

    # then
    assert ({queued}, {new}) == (left, seen.ids(Phase.UNREAD))
    assert (Phase.UNKNOWN, Phase.READY, Phase.OTHERS) == tuple(map(seen.phase, (unread, queued, running)))
