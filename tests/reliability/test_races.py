"""Several at once, interrupted wherever that matters to another: every task one outcome, one notification, one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.counts import FULL, count
from tests.reliability.races import RACES, Several, explored


@pytest.mark.parametrize("several", RACES.values(), ids=RACES)
def test_several_at_once_get_nothing_wrong(ground: Path, several: Several) -> None:
    found = explored(ground, several, preemptions=2, kills=0, limit=500 if FULL else 6)
    count("schedules of several operations at once, interrupted at most twice", found.schedules)
    assert () == found.bad
    count("of which these scenarios were explored completely", found.complete)


@pytest.mark.parametrize("several", RACES.values(), ids=RACES)
def test_several_at_once_get_nothing_wrong_if_one_is_killed(ground: Path, several: Several) -> None:
    found = explored(ground, several, preemptions=2, kills=1, limit=150 if FULL else 3)
    count("schedules of several operations at once, interrupted at most twice, one killed", found.schedules)
    assert () == found.bad
