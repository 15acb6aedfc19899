"""
The suite can fail: each deliberate bug in the protocol is caught by the check that is there for it.

Without the bugs the same checks, at as many points and more, are the tests of the other modules, in full.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.reliability import mutants as bugs
from tests.reliability.counts import count
from tests.reliability.lives import LIVES
from tests.reliability.races import RACES, explored
from tests.reliability.stages import crash_points, power_cuts, refusals

Check = Callable[[Path], Iterator[str]]

LIFE: Final = {life.name: life for life in LIVES}
RUN: Final = "claim, run, finish, notify"


def killed(name: str) -> Check:
    return lambda ground: crash_points(ground, LIFE[name])


def cut(name: str) -> Check:
    return lambda ground: power_cuts(ground, LIFE[name], moments=1000, limit=16)


def refused(name: str) -> Check:
    return lambda ground: refusals(ground, LIFE[name], errno.EACCES, lasting=False)


def raced(name: str, kills: int = 0) -> Check:
    def check(ground: Path) -> Iterator[str]:
        found = explored(ground, RACES[name], preemptions=2, kills=kills, limit=1000, until_bad=True)
        yield from found.bad

    return check


CAUGHT: Final[dict[bugs.Mutant, Check]] = {
    bugs.a_file_is_not_fsynced: cut("submit"),
    bugs.a_directory_is_not_fsynced: cut("submit"),
    bugs.the_directory_of_pending_tasks_is_not_fsynced: cut("keyed submit"),
    bugs.the_directory_of_outcomes_is_not_fsynced: cut(RUN),
    bugs.the_tool_starts_before_its_claim_is_durable: cut(RUN),
    bugs.a_claim_that_is_not_durable_in_pending_is_not_announced_either: cut(RUN),
    bugs.what_was_announced_counts_for_nothing: cut(RUN),
    bugs.a_prune_relies_on_what_has_left_pending: cut("claim to prune"),
    bugs.an_acknowledged_notice_is_not_fsynced: cut("drain"),
    bugs.a_key_is_used_again_before_the_prune_is_durable: cut("its key again beside a prune"),
    bugs.a_read_notice_counts_as_gone_where_it_is_not_seen: cut("prune, its key again"),
    bugs.recovery_syncs_once_for_all: cut("recover beside an owner that dies"),
    bugs.recovery_builds_on_what_is_not_durable: cut("recover what is not durable"),
    bugs.a_record_is_renamed_instead_of_linked: cut(RUN),
    bugs.a_record_is_written_where_others_read_it: killed(RUN),
    bugs.an_outcome_replaces_an_earlier_one: refused("finish, refused, finish"),
    bugs.the_agent_is_told_before_the_outcome_is_stored: killed(RUN),
    bugs.a_task_stops_running_before_its_outcome_is_stored: killed(RUN),
    bugs.a_task_stops_running_before_it_waits_again: killed("fail, retry, finish"),
    bugs.a_task_is_claimed_without_its_lock: raced("two claims"),
    bugs.a_lock_is_not_checked_for_its_name: raced("stale lock, claim and recover"),
    bugs.an_orphan_is_settled_without_its_lock: raced("claim, recover"),
    bugs.two_may_drain_at_once: raced("two drains"),
    bugs.a_drain_deletes_before_it_puts_away: killed("drain"),
    bugs.a_notice_that_is_half_put_away_is_shown_again: cut("drain"),
    bugs.every_pending_record_says_that_its_task_never_began: raced("keyed submits, orphan"),
}


@pytest.mark.parametrize(("mutant", "check"), CAUGHT.items(), ids=[mutant.__name__ for mutant in CAUGHT])
def test_a_deliberate_bug_is_caught(
    ground: Path, monkeypatch: pytest.MonkeyPatch, mutant: bugs.Mutant, check: Check
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    mutant(monkeypatch)
    assert next(check(ground), None) is not None, "nobody noticed"
    count("deliberate bugs, each caught")
