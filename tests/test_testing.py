"""What testers of tools are given: fixtures, a clock, a context, and assertions that say what was there instead."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from animaworks_tasks import (
    BadArgument,
    Cause,
    Executor,
    MemoryTaskStore,
    Outcome,
    Registry,
    State,
    Store,
    TaskCancelled,
    TaskNotFoundError,
    TaskStore,
    ThreadBackend,
    ToolContext,
    ToolError,
)
from animaworks_tasks.errors import WrongArgumentError
from animaworks_tasks.testing import (
    ManualClock,
    RecordingContext,
    assert_cancelled,
    assert_completed,
    assert_failed,
    assert_notified,
    describe,
    notification_of,
    run_to_end,
)

pytest_plugins = ["pytester"]


def count(words: str, *, context: ToolContext) -> int:
    """Count words, and say how far it is."""
    found = words.split()
    for number, word in enumerate(found, start=1):
        context.raise_if_cancelled()
        context.logger.info("counting %s", word)
        context.progress(number / len(found), word)
    if not found:
        raise BadArgument("there are no words", hint="give at least one")
    return len(found)


@pytest.fixture
def registry() -> Registry:
    """The tools under test: it takes the place of the plugin's, as a user's would."""
    filled = Registry()
    filled.add("words", "count", count)
    return filled


# The fixtures


def test_the_executor_runs_the_tools_of_the_registry_in_this_thread(executor: Executor, task_store: Store) -> None:
    # given
    task = executor.submit_sync("words", "count", "one two")
    # when
    executor.run_until_idle_sync()
    # then
    assert "2" == task_store.get(task.id).result
    assert isinstance(task_store, MemoryTaskStore)


async def submit_and_wait(executor: Executor) -> Outcome | None:
    task = await executor.submit("words", "count", "one two")
    await executor.run_until_idle()
    return (await executor.wait(task.id)).outcome


def test_the_executor_works_in_an_event_loop_too(executor: Executor) -> None:
    import asyncio

    assert Outcome.COMPLETED is asyncio.run(submit_and_wait(executor))


def test_store_and_executor_go_by_the_manual_clock(
    executor: Executor, task_store: Store, manual_clock: ManualClock
) -> None:
    # given a task that is due in a minute
    due = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    task = executor.submit_sync("words", "count", "one", not_before=due)
    # when
    manual_clock.advance(59)
    executor.run_until_idle_sync()
    # then
    assert State.PENDING is task_store.get(task.id).state
    # when
    manual_clock.advance(1)
    executor.run_until_idle_sync()
    # then
    assert due == task_store.get(task.id).started_at


@pytest.mark.parametrize("task_store", ["memory", "files"], indirect=True)
def test_a_store_is_in_memory_or_in_files_and_behaves_the_same(executor: Executor, task_store: Store) -> None:
    done = run_to_end(executor, "words", "count", "a b c")
    assert "- Status: completed" in assert_notified(task_store, done, contains="[words:count] completed: 3")


@pytest.mark.task_store("files", language="ja")
def test_a_marker_asks_for_files_and_for_a_language(executor: Executor, task_store: Store, tmp_path: Path) -> None:
    task = run_to_end(executor, "words", "count", "a")
    assert isinstance(task_store, TaskStore)
    assert (tmp_path / "anima/state/background_tasks/done" / f"{task.id}.task").is_file()
    assert_notified(task_store, task, contains="- ステータス: completed")


@pytest.mark.slow
def test_the_fixtures_are_there_for_whoever_installs_the_package(pytester: pytest.Pytester) -> None:
    """In a directory that knows nothing of us; the registry is empty, and there is no other kind of store."""
    pytester.makepyfile(
        """
        import pytest

        def test_empty(registry, executor, task_store, manual_clock):
            assert [] == registry.tools() == list(task_store.list())

        @pytest.mark.task_store("cloud")
        def test_cloud(task_store): ...
        """
    )
    result = pytester.runpytest_subprocess("--strict-markers", "-p", "no:xdist")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*task_store can be 'memory' or 'files', not 'cloud'*"])


def test_the_plugin_imports_nothing_until_a_fixture_is_asked_for() -> None:
    """It is loaded in every run of pytest where this package is installed."""
    program = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import animaworks_tasks._pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "animaworks_tasks animaworks_tasks._pytest_plugin\n" == done.stdout


# A call, run to its end


def failing_twice() -> Registry:
    attempts: list[int] = []

    def fetch() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ToolError(f"no answer, {len(attempts)}")
        return "the page"

    filled = Registry()
    filled.add("web", "fetch", fetch, retries=2)
    return filled


def test_retries_are_run_without_waiting_for_them(task_store: Store, manual_clock: ManualClock) -> None:
    # given a tool that succeeds when it is run for the third time
    from animaworks_tasks import InlineBackend

    executor = Executor(task_store, failing_twice(), backend=InlineBackend(), clock=manual_clock).start()
    # when
    done = run_to_end(executor, "web", "fetch")
    # then it has, some seconds later by the clock, which moved itself
    assert 3 == done.attempt
    assert "the page" == assert_completed(task_store, done).result
    assert 3 <= (manual_clock.now - done.submitted_at).total_seconds() < 4


def test_a_retry_is_due_by_the_manual_clock(task_store: Store, manual_clock: ManualClock) -> None:
    # given a task that has failed once
    from animaworks_tasks import InlineBackend

    executor = Executor(task_store, failing_twice(), backend=InlineBackend(), clock=manual_clock).start()
    task = executor.submit_sync("web", "fetch")
    executor.run_until_idle_sync()
    assert 1 == task_store.get(task.id).attempt
    # when
    manual_clock.advance(2)
    executor.run_until_idle_sync()
    # then
    assert 2 == task_store.get(task.id).attempt


def test_a_call_is_run_to_its_end_by_any_executor(registry: Registry) -> None:
    store = MemoryTaskStore(language="en")
    executor = Executor(store, registry, backend=ThreadBackend()).start()
    try:
        assert "2" == run_to_end(executor, "words", "count", "a b").result
    finally:
        executor.stop()


def test_what_the_submit_refuses_is_not_run(executor: Executor, task_store: Store) -> None:
    with pytest.raises(WrongArgumentError, match="missing: WORDS"):
        run_to_end(executor, "words", "count")
    assert [] == list(task_store.list())


# A function, called directly


def test_a_context_remembers_every_report_and_what_was_logged() -> None:
    # given
    context = RecordingContext(attempt=2)
    # when
    assert 3 == count("a b c", context=context)
    # then
    assert [(1 / 3, "a"), (2 / 3, "b"), (1.0, "c")] == context.reports
    assert context.log.endswith("INFO counting c\n")
    assert (2, 12 * "0") == (context.attempt, context.task_id)
    assert not context.cancelled


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_context_asks_to_stop_after_so_many_reports(after: int) -> None:
    context = RecordingContext(cancel_after=after)
    with pytest.raises(TaskCancelled):
        count("a b c", context=context)
    assert after == len(context.reports)


def test_a_context_has_a_scratch_directory_that_goes_with_it() -> None:
    context = RecordingContext()
    scratch = context.scratch
    assert scratch.is_dir()
    del context
    assert not scratch.exists()


# Assertions


def test_assertions_return_what_they_found(executor: Executor, task_store: Store) -> None:
    # given three tasks, as they were when they were submitted
    good = executor.submit_sync("words", "count", "a b")
    bad = executor.submit_sync("words", "count", "")
    gone = executor.submit_sync("words", "count", "a")
    task_store.request_cancel(gone.id)
    # when
    executor.run_until_idle_sync()
    # then
    assert State.DONE is assert_completed(task_store, good, contains="2").state
    assert "give at least one" == assert_failed(task_store, bad.id, cause="arguments", contains="at least").hint
    assert bad.id == assert_failed(task_store, bad, contains="no words").id == assert_failed(task_store, bad).id
    assert Outcome.CANCELLED is assert_cancelled(task_store, gone, contains="before it started").outcome
    assert notification_of(task_store, bad.id) == assert_notified(
        task_store, bad, contains="- What to do: give at least one"
    )


def test_a_failed_assertion_shows_what_was_there_instead(executor: Executor, task_store: Store) -> None:
    # given
    task = run_to_end(executor, "words", "count", "")
    # when
    with pytest.raises(AssertionError) as raised:
        assert_completed(task_store, task, contains="3")
    # then
    notification = notification_of(task_store, task)
    assert notification is not None
    assert [
        "expected a task that is completed, with '3' in its result, and there is",
        f"  task {task.id}: words count ''",
        "    state: done",
        "    outcome: failed",
        "    cause: arguments",
        "    error: there are no words",
        "    hint: give at least one",
        "    notification:",
        *textwrap.indent(notification, 8 * " ").splitlines(),
    ] == str(raised.value).splitlines()


def test_a_failed_assertion_shows_the_tail_of_the_log(executor: Executor, task_store: Store) -> None:
    # given a task that has logged 30 lines, and whose notification was read
    task = run_to_end(executor, "words", "count", " ".join(f"word{number}" for number in range(30)))
    task_store.notifications.acknowledge(task_store.notifications.peek())
    # when
    with pytest.raises(AssertionError) as raised:
        assert_failed(task_store, task, cause=Cause.TOOL)
    # then
    text = str(raised.value)
    assert "expected a task that is failed because of tool, and there is" in text
    assert "log (its last 20 lines of 30):" in text
    assert "counting word9\n" not in text
    assert "counting word10\n" in text
    assert "result: 30" in text
    assert "notification: none" in text


def test_a_failed_assertion_tells_of_a_task_that_has_not_ended(executor: Executor, task_store: Store) -> None:
    # given
    due = datetime(2026, 1, 2, tzinfo=UTC)
    task = executor.submit_sync("words", "count", "a", not_before=due)
    executor.run_until_idle_sync()
    # when, then
    with pytest.raises(
        AssertionError, match=r"(?s)expected a notification, and there is.*state: pending, after 0 runs"
    ):
        assert_notified(task_store, task)
    with pytest.raises(AssertionError, match=r"expected a task that is cancelled, and there is"):
        assert_cancelled(task_store, task)
    assert "not before: 2026-01-02 00:00:00+00:00" in describe(task_store, task.id)


def test_a_notification_that_says_something_else_is_shown(executor: Executor, task_store: Store) -> None:
    task = run_to_end(executor, "words", "count", "a")
    with pytest.raises(AssertionError, match=r"(?s)expected a notification with 'two' in it.*- Status: completed"):
        assert_notified(task_store, task, contains="two")


def test_the_wrong_cause_or_the_wrong_words_fail(executor: Executor, task_store: Store) -> None:
    task = run_to_end(executor, "words", "count", "")
    for expected in ({"cause": "tool"}, {"contains": "nonsense"}):
        with pytest.raises(AssertionError, match="outcome: failed"):
            assert_failed(task_store, task, **expected)


def test_a_task_that_is_not_there_is_told_as_such(task_store: Store) -> None:
    with pytest.raises(TaskNotFoundError):
        assert_completed(task_store, 12 * "0")


@pytest.mark.slow
def test_a_failed_assertion_points_at_the_test(pytester: pytest.Pytester) -> None:
    """And not at our own lines."""
    pytester.makepyfile(
        """
        from animaworks_tasks.testing import assert_completed, run_to_end

        def test_it(executor, registry, task_store):
            registry.add("divide", "by", lambda by: 1 / int(by))
            assert_completed(task_store, run_to_end(executor, "divide", "by", "0"))
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:xdist")
    result.stdout.fnmatch_lines([">*assert_completed(task_store, run_to_end*", "E*ZeroDivisionError: division by zero"])
    result.stdout.no_fnmatch_line("*testing.py:*")


def test_a_clock_begins_where_it_is_told_to() -> None:
    then = datetime(2030, 5, 6, tzinfo=UTC)
    clock = ManualClock(then)
    assert then == clock()
    clock.advance(0.5)
    assert then.replace(microsecond=500000) == clock.now


def test_logging_in_a_direct_call_stays_with_the_call() -> None:
    context = RecordingContext()
    assert context.logger.name not in logging.root.manager.loggerDict
