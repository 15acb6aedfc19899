"""The promise of every store as a pytest class: the author of another store inherits from it."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from animaworks_tasks.errors import ClaimLostError, TaskNotFoundError
from animaworks_tasks.store.protocol import Claim, Store
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.model import Cause, Outcome, State, Task
from animaworks_tasks.task.states import Event


class StoreContract:
    """
    Tests of what :class:`Store` promises.

    A subclass has a fixture *store* that returns a new, empty store::

        class TestMyStore(StoreContract):
            @pytest.fixture
            def store(self) -> Store:
                return MyStore()

    A claim whose ``lock`` is released without a finish is what the death of an owner looks like: a store that has
    another way to tell needs a lock whose ``release()`` does the same.
    """

    def test_what_was_submitted_is_pending_as_it_was_called(self, store: Store) -> None:
        task = store.submit("image_gen", "3d", "メイ.png", priority=2)
        assert (State.PENDING, "image_gen", ("3d", "メイ.png"), 2) == (task.state, task.tool, task.argv, task.priority)
        assert task == store.get(task.id) == store.pending(task.id)
        assert {task.id} == store.pending_ids()

    def test_many_are_submitted_in_their_order(self, store: Store) -> None:
        tasks = store.submit_many("image_gen", [["3d", str(number)] for number in range(5)])
        assert ["0", "1", "2", "3", "4"] == [task.argv[1] for task in tasks]
        assert {task.id for task in tasks} == store.pending_ids()

    def test_a_key_names_one_task_as_long_as_it_is_kept(self, store: Store) -> None:
        # given
        first = store.submit("image_gen", "3d", key="mei")
        # then, whatever becomes of it
        assert first.id == store.submit("image_gen", "3d", key="mei").id
        finished(store, first.id)
        assert first.id == store.submit("image_gen", "3d", key="mei").id
        # and once it is forgotten, the key names another one
        store.notifications.acknowledge(store.notifications.peek())
        assert [first.id] == list(store.prune(keep=0))
        assert first.id != store.submit("image_gen", "3d", key="mei").id

    def test_an_unknown_id_is_said_to_be_unknown(self, store: Store) -> None:
        assert raised(TaskNotFoundError, lambda: store.get("0" * 12))
        assert raised(TaskNotFoundError, lambda: store.request_cancel("0" * 12))
        assert store.claim("0" * 12) is None

    def test_of_two_claimants_one_gets_the_task(self, store: Store) -> None:
        task = store.submit("image_gen", "3d")
        with ThreadPoolExecutor(8) as threads:
            claims = [claim for claim in threads.map(lambda _: store.claim(task.id), range(8)) if claim is not None]
        assert 1 == len(claims)
        assert State.RUNNING is store.get(task.id).state
        store.finish(claims[0], Event.COMPLETE)

    def test_a_task_that_is_not_due_is_not_claimed(self, store: Store) -> None:
        now = utc_now()
        task = store.submit("image_gen", "3d", not_before=now + timedelta(hours=1))
        assert store.claim(task.id, due_by=now) is None
        assert store.claim(task.id, due_by=now + timedelta(hours=2)) is not None

    def test_a_task_is_claimed_only_by_the_record_that_was_read_if_one_is_named(self, store: Store) -> None:
        task = store.submit("image_gen", "3d")
        record = store.read_record(task.id)
        assert record
        assert store.claim(task.id, record=record + b" ") is None
        assert store.claim(task.id, record=record) is not None
        assert store.read_record(task.id) is None

    def test_a_finished_task_is_done_and_notified_once(self, store: Store) -> None:
        done = finished(store, store.submit("image_gen", "3d").id)
        assert (State.DONE, Outcome.COMPLETED, "made") == (done.state, done.outcome, done.result)
        assert done == store.get(done.id)
        assert [done.id] == [notification.task_id for notification in store.notifications.peek()]

    def test_a_claim_ends_once(self, store: Store) -> None:
        claim = claimed(store, store.submit("image_gen", "3d").id)
        store.finish(claim, Event.COMPLETE)
        assert raised(ClaimLostError, lambda: store.finish(claim, Event.FAIL, cause=Cause.TOOL))
        assert raised(ClaimLostError, lambda: store.requeue(claim))
        assert Outcome.COMPLETED is store.get(claim.task.id).outcome

    def test_a_requeued_task_waits_for_its_next_attempt(self, store: Store) -> None:
        waiting = store.requeue(claimed(store, store.submit("image_gen", "3d").id), pause=60)
        assert (State.PENDING, 1) == (waiting.state, waiting.attempt)
        assert waiting.not_before is not None
        assert waiting == store.get(waiting.id)

    def test_what_never_began_is_requeued_as_it_was(self, store: Store) -> None:
        task = store.submit("image_gen", "3d")
        waiting = store.requeue(claimed(store, task.id), began=False)
        assert (0, None) == (waiting.attempt, waiting.not_before)
        assert 1 == claimed(store, task.id).task.attempt

    def test_a_task_whose_owner_lives_is_left_to_it(self, store: Store) -> None:
        claim = claimed(store, store.submit("image_gen", "3d").id)
        recovery = store.recover()
        assert ((claim.task.id,), (), ()) == (recovery.alive, recovery.finished, recovery.requeued)

    def test_a_task_whose_owner_died_ends_as_interrupted_and_is_notified_once(self, store: Store) -> None:
        # given
        claim = claimed(store, store.submit("image_gen", "3d").id)
        die(claim)
        # when
        [done] = store.recover().finished
        # then
        assert (Outcome.FAILED, Cause.INTERRUPTED) == (done.outcome, done.cause)
        assert () == store.recover().finished
        assert [done.id] == [notification.task_id for notification in store.notifications.peek()]

    def test_a_task_whose_owner_died_is_requeued_where_it_may_run_again(self, store: Store) -> None:
        die(claimed(store, store.submit("image_gen", "3d").id))
        [waiting] = store.recover(lambda _: True).requeued
        assert (State.PENDING, 1) == (waiting.state, waiting.attempt)
        assert 2 == claimed(store, waiting.id).task.attempt

    def test_a_pending_task_is_cancelled_at_once(self, store: Store) -> None:
        done = store.request_cancel(store.submit("image_gen", "3d").id)
        assert (Outcome.CANCELLED, 0) == (done.outcome, done.attempt)
        assert store.claim(done.id) is None

    def test_the_owner_of_a_running_task_sees_the_cancellation_request(self, store: Store) -> None:
        claim = claimed(store, store.submit("image_gen", "3d").id)
        assert not store.workspace(claim.task.id).cancel_requested()
        assert State.RUNNING is store.request_cancel(claim.task.id).state
        assert store.workspace(claim.task.id).cancel_requested()

    def test_a_cancellation_request_outlives_the_attempt(self, store: Store) -> None:
        claim = claimed(store, store.submit("image_gen", "3d").id)
        store.request_cancel(claim.task.id)
        store.requeue(claim)
        assert store.claim(claim.task.id) is None
        assert Outcome.CANCELLED is store.get(claim.task.id).outcome

    def test_a_cancellation_request_that_is_made_again_ends_a_requeued_task(self, store: Store) -> None:
        claim = claimed(store, store.submit("image_gen", "3d").id)
        store.request_cancel(claim.task.id)
        store.requeue(claim, began=False)
        assert Outcome.CANCELLED is store.request_cancel(claim.task.id).outcome

    def test_what_was_drained_is_shown_again_until_it_is_acknowledged(self, store: Store) -> None:
        # given
        done = finished(store, store.submit("image_gen", "3d").id)
        # when
        with contextlib.suppress(InterruptedError), store.notifications.drain() as drained:
            assert done.id in drained.text
            raise InterruptedError
        # then
        with store.notifications.drain() as drained:
            assert [done.id] == [notification.task_id for notification in drained.notifications]
        assert [] == store.notifications.peek()

    def test_what_nobody_has_read_is_not_forgotten(self, store: Store) -> None:
        done = finished(store, store.submit("image_gen", "3d").id)
        assert [] == list(store.prune(keep=0))
        store.notifications.acknowledge(store.notifications.peek())
        assert [done.id] == list(store.prune(keep=0))
        assert raised(TaskNotFoundError, lambda: store.get(done.id))

    def test_a_list_has_the_last_changed_first(self, store: Store) -> None:
        first, second = (store.submit("image_gen", "3d").id for _ in range(2))
        finished(store, first)
        assert {first, second} == {task.id for task in store.list()}
        assert [first] == [task.id for task in store.list(State.DONE)]
        assert [second] == [task.id for task in store.list(State.PENDING, limit=5)]
        assert 1 == len(store.list(limit=1))

    def test_a_watch_sees_submits_and_ends(self, store: Store) -> None:
        watch = store.watch()
        task = store.submit("image_gen", "3d")
        assert task.id in watch.wait(10).ids
        claim = claimed(store, task.id)
        watch.wait(0)
        store.finish(claim, Event.COMPLETE)
        assert task.id in watch.wait(10).ids
        watch.wake()
        watch.wait(3600)  # returns at once
        watch.close()


def claimed(store: Store, task_id: str) -> Claim:
    """Claim a pending task."""
    claim = store.claim(task_id)
    assert claim is not None
    return claim


def finished(store: Store, task_id: str) -> Task:
    """Claim a pending task and finish it."""
    return store.finish(claimed(store, task_id), Event.COMPLETE, result="made")


def die(claim: Claim) -> None:
    """Do what an owner's death does."""
    assert claim.lock is not None
    claim.lock.release()


def raised(error: type[BaseException], function: Callable[[], object]) -> bool:
    """Return whether *function* raises *error*; needs no pytest."""
    try:
        function()
    except error:
        return True
    return False
