"""Whatever a power cut may legally leave, at any moment of a life: what was acknowledged is there, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.counts import FULL
from tests.reliability.lives import LIVES, Life
from tests.reliability.stages import power_cuts, power_cuts_after_kill

OURS = [life for life in LIVES if not life.foreign]
EVERY_LIFE = pytest.mark.parametrize("life", OURS, ids=lambda life: life.name)


@EVERY_LIFE
def test_a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged(ground: Path, life: Life) -> None:
    assert [] == [*power_cuts(ground, life, moments=100 if FULL else 2, limit=8 if FULL else 3)]


@pytest.mark.parametrize("life", OURS if FULL else OURS[2::4], ids=lambda life: life.name)
def test_a_power_cut_after_a_kill_and_a_recovery_loses_nothing_either(ground: Path, life: Life) -> None:
    """What recovery builds on need not be durable: the process that left it died before that."""
    some = {"moments": 4, "limit": 4, "sample": 10} if FULL else {"moments": 2, "limit": 2, "sample": 1}
    assert [] == [*power_cuts_after_kill(ground, life, **some)]
