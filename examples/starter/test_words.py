"""Its test: no thread, no sleep, no temporary directory, no mock."""

from tools.words import registry

from animaworks_tasks import Cause, Executor, InlineBackend, MemoryTaskStore


def test_a_missing_file_is_the_callers_fault() -> None:
    store = MemoryTaskStore(language="en")
    with Executor(store, registry, backend=InlineBackend()) as executor:
        task = executor.submit_sync("words", "count", "no-such-file.txt")
        executor.run_until_idle_sync()
    done = store.get(task.id)
    assert done.cause is Cause.ARGUMENTS
    assert "is not a file" in (done.error or "")
    assert [task.id] == [notification.task_id for notification in store.notifications.peek()]
