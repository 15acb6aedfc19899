"""Killed at its every change of the disk, or refused it, a process costs nobody a task; nor does who cleans up."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from animaworks_tasks.worker import runner
from tests.reliability.counts import FULL
from tests.reliability.lives import LIVES, Life
from tests.reliability.stages import crash_points, double_kills, refusals
from tests.reliability.taps import FAULTS

EVERY_LIFE = pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)


@EVERY_LIFE
def test_killed_at_any_change_of_the_disk_a_life_is_brought_to_its_end(ground: Path, life: Life) -> None:
    assert [] == [*crash_points(ground, life, sample=None if FULL else 3)]


@pytest.mark.parametrize("life", LIVES if FULL else LIVES[2::3], ids=lambda life: life.name)
def test_killed_again_while_recovering_nothing_is_lost_either(ground: Path, life: Life) -> None:
    assert [] == [*double_kills(ground, life, sample=4 if FULL else 1, second=None if FULL else 2)]


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", FAULTS, ids=errno.errorcode.get)
@EVERY_LIFE
def test_refused_by_the_disk_a_life_loses_nothing_and_goes_on_or_says_why_not(
    ground: Path, monkeypatch: pytest.MonkeyPatch, life: Life, error: int, *, lasting: bool
) -> None:
    if lasting and error != errno.ENOSPC:
        pytest.skip("only a full disk stays as it is")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    if lasting:  # the disk is not waited for
        monkeypatch.setattr(runner, "_PATIENCE", -1.0)
    if not FULL and (LIVES.index(life) + [*FAULTS].index(error)) % 4 != lasting:
        pytest.skip("another fault is tried with this life, unless RELIABILITY=full")
    assert [] == [*refusals(ground, life, error, lasting=lasting, sample=None if FULL else 1)]
