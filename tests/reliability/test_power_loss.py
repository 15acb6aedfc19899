"""Whatever a power cut may legally leave, at any moment of a life: what was acknowledged is there, once."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks import TaskStore
from tests.reliability.counts import FULL, count
from tests.reliability.invariants import problems, words
from tests.reliability.lives import EVERYTHING, LIVES, Life, Say, allowed, rest
from tests.reliability.powercuts import TRACED, Disk, Event, Recorder, State, events_in, events_of, make
from tests.reliability.taps import CHANGES, forked

ROOT: Final = Path(__file__).resolve().parents[2]


def lived(ground: Path, life: Life, *, kill_at: int | None = None) -> tuple[list[Event], int]:
    """Lead a life from its very beginning in a child; return what it did, and the number of the event it starts at."""

    def body(say: Say) -> int:
        recorder = Recorder(ground, say)
        recorder.put_on()
        store = TaskStore(ground / "mei")
        life.before(store, say)
        say("#call", ("say", "pause"))
        recorder.kill_at = None if kill_at is None else recorder.calls + kill_at
        life.lead(store, say)
        return recorder.calls

    end = forked(body)
    assert end.error is None, end.error
    events = events_of(end.everything)
    start = next((at for at, event in enumerate(events) if event == ("say", "pause")), len(events))
    return events, start


def rested(ground: Path) -> list[Event]:
    """Bring everything to its end in another child; return what it did."""

    def body(say: Say) -> int:
        Recorder(ground, say).put_on()
        rest(TaskStore(ground / "mei"), say)
        return 0

    end = forked(body)
    assert end.error is None, end.error
    return events_of(end.everything)


def survived(ground: Path, cuts: Iterable[tuple[State, list[str]]]) -> tuple[int, list[str]]:
    """Start again after each of *cuts*; return how many there were, and the problems."""
    found, tried = [], 0
    anima = ground / "cut" / "mei"
    for state, said in cuts:
        make(state, anima.parent)
        tried += 1
        heard = list(said)
        store = TaskStore(anima, durability="process")
        if os.path.lexists(store.layout.boot):
            os.unlink(store.layout.boot)  # the machine has started anew
        rest(store, lambda *parts: heard.append(words(*parts)))  # noqa: B023 - called at once
        found += [f"{problem} after {said[-2:]}" for problem in problems(anima, heard, runs=allowed)]
    return tried, found


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged(ground: Path, life: Life) -> None:
    disk = Disk(ground)
    events, start = lived(ground, life)
    disk.replay(events)
    tried, found = survived(ground, disk.cuts(start, moments=1000 if FULL else 6, limit=16 if FULL else 4))
    count("power cuts: states left, started again", tried)
    assert [] == found


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_power_cut_after_a_kill_and_a_recovery_loses_nothing_either(ground: Path, life: Life) -> None:
    """What recovery builds on need not be durable: whoever left it died before that."""
    # given a life that is killed at every change of the disk (quick: at one), and a recovery that comes to its end
    events, start = lived(ground, life)
    changes = sum(event[0] in CHANGES for event in events[start:])
    total, found = 0, []
    for at in range(1, changes + 1) if FULL else [random.Random(life.name).randint(1, changes)]:  # noqa: S311 - no secret
        shutil.rmtree(ground / "mei")
        disk = Disk(ground)
        disk.replay(lived(ground, life, kill_at=at)[0])
        killed = disk.length
        disk.replay(rested(ground))

        # when the power is cut during the recovery or after it
        tried, wrong = survived(ground, disk.cuts(killed, moments=12 if FULL else 4, limit=4))
        total += tried
        found += [f"killed before change {at}: {problem}" for problem in wrong]

    # then
    count("power cuts after a kill and a recovery: states left, started again", total)
    assert [] == found
