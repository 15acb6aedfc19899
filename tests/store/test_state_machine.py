"""
The same random life, led in memory and in files: both stores say the same at every step.

Both make the same ids. An owner's death is its lock being released.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from unittest import mock

import attrs
import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from animaworks_tasks import (
    Cause,
    MemoryTaskStore,
    Notification,
    OnInterrupt,
    State,
    Store,
    Task,
    TaskNotFoundError,
    TaskStore,
)
from animaworks_tasks.errors import ClaimLostError, RecordError
from animaworks_tasks.store.protocol import Claim
from animaworks_tasks.task.states import Event
from tests.conftest import die, own

KEYS: Final = ("a", "b", "c")
keys = st.none() | st.sampled_from(KEYS)
picks = st.integers(0, 7)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ends = st.one_of(
    st.fixed_dictionaries({"event": st.just(Event.COMPLETE), "result": texts}),
    st.fixed_dictionaries({"event": st.just(Event.FAIL), "cause": st.sampled_from(Cause), "error": texts}),
    st.fixed_dictionaries({"event": st.just(Event.CANCEL)}),
)


def seen(task: Task) -> Task:
    """Return what the two stores must agree on: all but where the task is kept, and by which process."""
    return attrs.evolve(task, anima_name="", anima_dir="", owner_pid=None)


class TwoStores(RuleBasedStateMachine):
    """Does everything twice, and remembers what must never change."""

    @initialize()
    def begin(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.directory = tempfile.TemporaryDirectory(prefix="animaworks_tasks-")
        self.memory = MemoryTaskStore(language="en", clock=lambda: self.now)
        self.files = TaskStore(self.directory.name, language="en", durability="process", clock=lambda: self.now)
        self.ids: list[str] = []  # all that there ever were: an id is never used again
        self.claims: dict[str, tuple[Claim, Claim]] = {}
        self.lost: list[tuple[Claim, Claim]] = []
        self.kept: set[str] = set()
        self.keys: dict[str, str] = {}
        self.ended: dict[str, Task] = {}
        self.acknowledged: set[str] = set()

    def teardown(self) -> None:
        for _, claim in self.claims.values():
            die(claim)
        self.directory.cleanup()

    def both(self, act: Callable[[Store], Task]) -> Task | None:
        """Do it in both stores; return the task that both return, or None where both do not know it."""
        found = []
        for store in (self.memory, self.files):
            try:
                found.append(seen(act(store)))
            except TaskNotFoundError:
                found.append(None)
        assert found[0] == found[1]
        return found[0]

    def some(self, pick: int) -> str:
        """Return one of the last ids, or one that no task has."""
        return self.ids[-1 - pick] if pick < len(self.ids) else f"{pick:012x}"

    def picked(self, pick: int) -> str:
        return sorted(self.claims)[pick % len(self.claims)]

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(
        key=keys,
        argv=st.lists(texts, max_size=2),
        priority=st.integers(-1, 1),
        delay=st.none() | st.integers(0, 10),
        retries=st.none() | st.integers(0, 2),
        on_interrupt=st.none() | st.sampled_from(OnInterrupt),
    )
    def submit(
        self,
        key: str | None,
        argv: list[str],
        priority: int,
        delay: int | None,
        retries: int | None,
        on_interrupt: OnInterrupt | None,
    ) -> None:
        not_before = None if delay is None else self.now + timedelta(seconds=delay)
        new = f"{len(self.ids) + 0xA00:012x}"
        with mock.patch("animaworks_tasks.store.rules.new_id", return_value=new):
            task = self.both(
                lambda store: store.submit(
                    "image_gen",
                    *argv,
                    key=key,
                    priority=priority,
                    not_before=not_before,
                    retries=retries,
                    on_interrupt=on_interrupt,
                )
            )
        assert task is not None
        if task.id == new:
            self.ids.append(new)
        assert task.id == self.keys.setdefault(key or new, task.id), "a key names one task as long as that is kept"
        self.kept.add(task.id)

    @rule(pick=picks)
    def claim(self, pick: int) -> None:
        task_id = self.some(pick)
        asked = any(store.workspace(task_id).cancel_requested() for store in (self.memory, self.files))
        if task_id in self.files.pending_ids() and not asked:
            self.claims[task_id] = (own(self.memory, task_id), own(self.files, task_id))
            assert seen(self.claims[task_id][0].task) == seen(self.claims[task_id][1].task)
        else:
            assert self.memory.claim(task_id) is None
            assert self.files.claim(task_id) is None

    @precondition(lambda self: self.claims)
    @rule(pick=picks, end=ends)
    def finish(self, pick: int, end: dict[str, object]) -> None:
        in_memory, in_files = self.lost_one(pick)
        changes = {name: value for name, value in end.items() if name != "event"}
        done = self.memory.finish(in_memory, end["event"], **changes)  # type: ignore[arg-type]
        assert seen(done) == seen(self.files.finish(in_files, end["event"], **changes))  # type: ignore[arg-type]

    @precondition(lambda self: self.claims)
    @rule(pick=picks)
    def finish_with_what_cannot_be_stored(self, pick: int) -> None:
        for store, claim in zip((self.memory, self.files), self.claims[self.picked(pick)], strict=True):
            with pytest.raises(RecordError):
                store.finish(claim, Event.COMPLETE, result="\udcff")

    @precondition(lambda self: self.claims)
    @rule(pick=picks, pause=st.integers(0, 10), began=st.booleans())
    def requeue(self, pick: int, pause: int, *, began: bool) -> None:
        in_memory, in_files = self.lost_one(pick)
        back = self.memory.requeue(in_memory, pause=pause, began=began)
        assert seen(back) == seen(self.files.requeue(in_files, pause=pause, began=began))

    @precondition(lambda self: self.claims)
    @rule(pick=picks)
    def owner_dies(self, pick: int) -> None:
        for claim in self.lost_one(pick):
            die(claim)

    def lost_one(self, pick: int) -> tuple[Claim, Claim]:
        claims = self.claims.pop(self.picked(pick))
        self.lost.append(claims)
        return claims

    @precondition(lambda self: self.lost)
    @rule()
    def finish_what_was_lost(self) -> None:
        for store, claim in zip((self.memory, self.files), self.lost[-1], strict=True):
            with pytest.raises(ClaimLostError):
                store.finish(claim, Event.COMPLETE)

    @rule(picks=st.sets(picks))
    def recover(self, picks: set[int]) -> None:
        again = {self.some(pick) for pick in picks}
        found = []
        for store in (self.memory, self.files):
            recovery = store.recover(lambda task: task.id in again)
            found.append(
                (recovery.alive, [seen(task) for task in recovery.finished], [seen(task) for task in recovery.requeued])
            )
        assert found[0] == found[1]
        assert sorted(self.claims) == list(found[0][0])
        assert {task.id for task in found[0][2]} <= again

    @rule(pick=picks)
    def request_cancel(self, pick: int) -> None:
        task_id = self.some(pick)
        task = self.both(lambda store: store.request_cancel(task_id))
        assert (task is not None) == (task_id in self.kept)
        asked = [store.workspace(task_id).cancel_requested() for store in (self.memory, self.files)]
        assert [task is not None and task.state is State.RUNNING] * 2 == asked

    @rule(picks=st.sets(picks))
    def acknowledge(self, picks: set[int]) -> None:
        chosen = {self.some(pick) for pick in picks}
        for store in (self.memory, self.files):
            store.notifications.acknowledge([n for n in store.notifications.peek() if n.task_id in chosen])
        self.acknowledged |= chosen & self.ended.keys()

    @rule(budget=st.none() | st.integers(0, 3000), fails=st.booleans())
    def drain(self, budget: int | None, *, fails: bool) -> None:
        for age, notification in enumerate(self.memory.notifications.peek()):
            path = Path(self.files.layout.notifications) / notification.name
            os.utime(path, ns=(age, age))  # those that came within a tick of the kernel would have no order
        found = []
        for store in (self.memory, self.files):
            with contextlib.suppress(RuntimeError), store.notifications.drain(budget) as drained:
                found.append(drained)
                if fails:
                    raise RuntimeError("the model is overloaded")
        assert found[0] == found[1]
        if not fails:
            self.acknowledged |= {notification.task_id or "" for notification in found[0].notifications}

    @rule(age=st.integers(0, 10))
    def prune(self, age: int) -> None:
        found = [
            set(store.prune(finished_before=self.now - timedelta(seconds=age))) for store in (self.memory, self.files)
        ]
        assert found[0] == found[1] <= self.acknowledged
        self.keys = {key: task_id for key, task_id in self.keys.items() if task_id not in found[0]}
        for task_id in found[0]:
            self.kept.remove(task_id)
            self.acknowledged.remove(task_id)
            del self.ended[task_id]

    @rule(pick=picks)
    def get(self, pick: int) -> None:
        task_id = self.some(pick)
        task = self.both(lambda store: store.get(task_id))
        assert (task is not None) == (task_id in self.kept)

    @invariant()
    def both_list_the_same_and_every_task_is_somewhere(self) -> None:
        for state in (None, *State):
            assert [seen(task) for task in self.memory.list(state)] == [seen(task) for task in self.files.list(state)]
        assert self.kept == {task.id for task in self.files.list()}
        assert self.memory.pending_ids() == self.files.pending_ids()
        assert self.claims.keys() <= {task.id for task in self.files.list(State.RUNNING)}

    @invariant()
    def an_outcome_never_changes_and_leaves_one_notification(self) -> None:
        for task in self.files.list(State.DONE):
            assert task == self.ended.setdefault(task.id, task)
        waiting = self.in_order(self.files.notifications.peek())
        assert waiting == self.in_order(self.memory.notifications.peek())
        assert sorted(self.ended.keys() - self.acknowledged) == [notification.task_id for notification in waiting]

    def in_order(self, notifications: list[Notification]) -> list[Notification]:
        return sorted(notifications, key=lambda notification: notification.name)


TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = hypothesis.settings(
    stateful_step_count=40, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
