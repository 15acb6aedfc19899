"""The life of a task is the table and nothing else; and what a task says of itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import attrs
import pytest

from animaworks_tasks import Cause, Outcome, State, Task
from animaworks_tasks.errors import InvalidTransitionError
from animaworks_tasks.task.model import is_task_id
from animaworks_tasks.task.states import TRANSITIONS, Event, advance

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OUTCOMES = {State.PENDING: None, State.RUNNING: None, State.DONE: Outcome.COMPLETED}
CAUSES = {Event.FAIL: {"cause": Cause.TOOL}, Event.REJECT: {"cause": Cause.REJECTED}}


def a_task(state: State) -> Task:
    return Task(id="0123456789ab", tool="image_gen", submitted_at=NOW, state=state, outcome=OUTCOMES[state])


@pytest.mark.parametrize(("state", "event"), [*product(State, Event)], ids=lambda word: word.value)
def test_what_the_table_has_is_done_and_what_it_lacks_is_refused(state: State, event: Event) -> None:
    # given
    task = a_task(state)
    before = attrs.asdict(task)

    # when, then
    if (state, event) in TRANSITIONS:
        after = advance(task, event, **CAUSES.get(event, {}))
        assert TRANSITIONS[state, event] == (after.state, after.outcome)
    else:
        with pytest.raises(InvalidTransitionError) as caught:
            advance(task, event, **CAUSES.get(event, {}))
        assert f"task {task.id} is {state.value}: it cannot {event.value}" == str(caught.value)
    assert before == attrs.asdict(task)


def test_nothing_leads_out_of_done_and_everything_leads_to_it() -> None:
    # when
    reached = {State.PENDING}
    for _ in State:
        reached |= {target for (source, _), (target, _) in TRANSITIONS.items() if source in reached}

    # then
    assert set(State) == reached
    assert State.DONE not in {source for source, _ in TRANSITIONS}
    assert {None, *Outcome} == {outcome for _, outcome in TRANSITIONS.values()}


def test_an_outcome_goes_with_done_and_with_nothing_else() -> None:
    for target, outcome in TRANSITIONS.values():
        assert (target is State.DONE) == (outcome is not None)


def test_changes_are_made_along_with_the_step() -> None:
    running = advance(a_task(State.PENDING), Event.CLAIM, attempt=1, started_at=NOW)
    assert (State.RUNNING, 1, NOW) == (running.state, running.attempt, running.started_at)


@pytest.mark.parametrize(("event", "changes"), [(Event.FAIL, {}), (Event.COMPLETE, {"cause": Cause.TOOL})])
def test_a_failure_has_a_cause_and_nothing_else_has_one(event: Event, changes: dict[str, Cause]) -> None:
    with pytest.raises(ValueError, match="cannot have cause"):
        advance(a_task(State.RUNNING), event, **changes)


# --- a task ---


def a_done_task(**changes: object) -> Task:
    task = advance(a_task(State.PENDING), Event.CLAIM, subcommand="3d", started_at=NOW)
    return advance(task, Event.COMPLETE, **{"finished_at": NOW + timedelta(seconds=4.06), **changes})


@pytest.mark.parametrize(
    ("task", "summary"),
    [
        (a_task(State.PENDING), "0123456789ab image_gen pending"),
        (advance(a_task(State.PENDING), Event.CLAIM, subcommand="3d"), "0123456789ab image_gen:3d running"),
        (a_done_task(), "0123456789ab image_gen:3d completed in 4.1 s"),
        (a_done_task(result="\n model.glb \nmore"), "0123456789ab image_gen:3d completed in 4.1 s: model.glb more"),
        (a_done_task(result='{\n  "a": 1\n}'), '0123456789ab image_gen:3d completed in 4.1 s: { "a": 1 }'),
        (
            advance(a_task(State.PENDING), Event.REJECT, cause=Cause.REJECTED, error="no such tool"),
            "0123456789ab image_gen failed: no such tool",
        ),
    ],
)
def test_a_task_can_be_told_in_one_line(task: Task, summary: str) -> None:
    assert summary == task.summary()


def test_a_summary_is_bounded() -> None:
    assert len(a_done_task(result="x" * 100_000).summary()) < 300


def test_a_clock_that_was_set_back_makes_no_negative_run() -> None:
    assert timedelta() == a_done_task(finished_at=NOW - timedelta(hours=1)).duration


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"id": "0123"}, "id"),
        ({"id": "0123456789AB"}, "id"),
        ({"tool": ""}, "tool"),
        ({"submitted_at": NOW.replace(tzinfo=None)}, "submitted_at needs a timezone"),
        ({"not_before": NOW.replace(tzinfo=None)}, "not_before needs a timezone"),
        ({"timeout_seconds": -1.0}, "timeout_seconds must be a finite number of seconds, not -1.0"),
        ({"expected_seconds": float("nan")}, "expected_seconds must be a finite number of seconds, not nan"),
        ({"retries": -1}, "retries"),
        ({"attempt": -1}, "attempt"),
        ({"outcome": Outcome.COMPLETED}, "a pending task cannot have outcome"),
        ({"state": State.DONE}, "a done task cannot have outcome None"),
    ],
)
def test_a_task_that_cannot_be_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        attrs.evolve(a_task(State.PENDING), **changes)


@pytest.mark.parametrize("text", ["0123456789ab", "f" * 12])
def test_twelve_lowercase_hex_digits_are_a_task_id(text: str) -> None:
    assert is_task_id(text)


@pytest.mark.parametrize("text", ["", "0" * 11, "0" * 13, "0123456789AB", "0123456789a\n", "\uff10" * 12, "../" * 4])
def test_nothing_else_is_a_task_id(text: str) -> None:
    assert not is_task_id(text)
