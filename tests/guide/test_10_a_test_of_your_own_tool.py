"""
10. A test of your own tool.

The fixtures *task_store*, *registry*, *executor* and *manual_clock* are there in every pytest run where this package is
installed. *registry* is meant to be replaced by yours, as here. The assertions show what there was instead.
"""

from __future__ import annotations

import pytest

from animaworks_tasks import BadArgument, Executor, Registry, Store, ToolContext
from animaworks_tasks.testing import ManualClock, RecordingContext, assert_completed, assert_failed, run_to_end


def knit(rows: int, *, context: ToolContext) -> str:
    """Knit a scarf."""
    if rows < 1:
        raise BadArgument("a scarf has rows", hint="ask for at least one")
    for row in range(rows):
        context.raise_if_cancelled()
        context.progress((row + 1) / rows, f"row {row + 1}")
    return f"a scarf of {rows} rows"


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add("scarf", "knit", knit, retries=1)
    return registry


def test_a_scarf_is_knitted_and_one_without_rows_is_refused(
    executor: Executor, task_store: Store, manual_clock: ManualClock
) -> None:
    # when
    good, bad = run_to_end(executor, "scarf", "knit", "3"), run_to_end(executor, "scarf", "knit", "0")

    # then
    assert manual_clock.now == assert_completed(task_store, good, contains="3 rows").finished_at
    assert_failed(task_store, bad, cause="arguments", contains="at least one")


def test_it_says_how_far_it_is() -> None:
    context = RecordingContext()
    assert "a scarf of 2 rows" == knit(2, context=context)  # a direct call, without a store and an executor
    assert [(0.5, "row 1"), (1.0, "row 2")] == context.reports
