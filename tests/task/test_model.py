"""A task as data: its words, and how JSON has it."""

from __future__ import annotations

import json

from animaworks_tasks import Cause, Event, MemoryTaskStore, OnInterrupt, Outcome, State
from tests.conftest import ManualClock, own


def test_the_words_of_states_and_outcomes_are_their_text() -> None:
    words = (State.DONE, Outcome.FAILED, Cause.TOOL, OnInterrupt.RETRY, Event.CLAIM)
    assert "done failed tool retry claim" == " ".join(words)
    assert ["done", "tool"] == [f"{State.DONE}", str(Cause.TOOL)]


def test_a_task_as_a_dictionary_is_fit_for_json_and_is_complete(clock: ManualClock) -> None:
    # given a task that failed
    store = MemoryTaskStore(clock=clock)
    task = store.submit("image_gen", "3d", "it", priority=2, on_interrupt="retry")
    done = store.finish(own(store, task.id), Event.FAIL, cause=Cause.TOOL, error="no such file")

    # when
    found = json.loads(json.dumps(done.to_dict()))

    # then
    assert "task_id" == next(iter(found))
    assert (done.id, "image_gen", ["3d", "it"], 2) == tuple(found[n] for n in ("task_id", "tool", "argv", "priority"))
    words = ("on_interrupt", "state", "outcome", "cause")
    assert ("retry", "done", "failed", "tool") == tuple(found[name] for name in words)
    assert clock().isoformat() == found["finished_at"]
    assert "extra" not in found
