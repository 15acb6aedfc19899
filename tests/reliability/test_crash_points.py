"""Killed at its every change of the disk, or refused it, a process costs nobody a task; nor does who cleans up after it."""

from __future__ import annotations

import errno
import random
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest

from animaworks_tasks import TaskStore, _runner
from animaworks_tasks.errors import TasksError
from tests.reliability.counts import FULL, count
from tests.reliability.invariants import problems
from tests.reliability.lives import EVERYTHING, LIVES, Life, allowed, rest
from tests.reliability.taps import FAULTS, End, Killer, Saboteur, Tap, copy, forked, shape

EVERY_LIFE = pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)


_SAYS_WHY: Final = re.compile(r"\[Errno \d+\] .*: '/|cannot hold tasks: |may not be read")


@attrs.define
class Stage:
    """Where a life is led again and again, from the same beginning."""

    ground: Path
    life: Life
    before: list[str] = attrs.field(factory=list)
    new: bool = False

    @property
    def anima(self) -> Path:
        return self.ground / "mei"

    def set_up(self) -> None:
        """Do what was done before."""
        self.new = self.life.name in {"submit", EVERYTHING.name}  # it makes the store as well
        if not self.new:
            self.life.before(self.store(), lambda *parts: self.before.append(" ".join(map(str, parts))))
            copy(self.anima, self.ground / "before")

    def store(self) -> TaskStore:
        return TaskStore(self.anima, durability="process")

    def lead(self, tap: Tap, *, until: Callable[[TaskStore, Callable[..., None]], object] | None = None) -> End:
        """Lead the life under *tap* in a child, and then *until*; the result is how many calls there were."""
        shutil.rmtree(self.anima, ignore_errors=True)
        if not self.new:
            copy(self.ground / "before", self.anima)

        def body(say: Callable[..., None]) -> int:
            store = None if self.new else self.store()
            tap.put_on()
            try:
                self.life.lead(store or self.store(), say)
            except (OSError, TasksError) as error:
                say("#said", type(error).__name__, str(error))
                if until is None:
                    raise
            finally:
                calls = tap.calls  # type: ignore[attr-defined]  # those used here count
            if until is not None:
                tap.well = True  # type: ignore[attr-defined]  # a saboteur
                until(self.store(), say)
            return int(calls)

        return forked(body)

    def rest(self) -> list[str]:
        """Bring everything to its end, in this process; return what was said meanwhile."""
        said: list[str] = []
        rest(self.store(), lambda *parts: said.append(" ".join(map(str, parts))))
        return said

    def problems(self, *said: Sequence[str]) -> list[str]:
        return problems(self.anima, [*self.before, *(line for lines in said for line in lines)], runs=allowed)


def recovered_under(tap: Killer, stage: Stage) -> End:
    def body(say: Callable[..., None]) -> int:
        store = stage.store()
        tap.put_on()
        rest(store, say)
        return tap.calls

    return forked(body)


def crash_points(stage: Stage) -> list[str]:
    """Kill at every change of the disk; return the problems found."""
    found = []
    for at in range(1, 1000):
        end = stage.lead(Killer(stage.ground, at))
        assert end.error is None, end.error
        found += [f"killed before change {at}: {problem}" for problem in stage.problems(end.said, stage.rest())]
        if not end.killed:
            break
        count("crash points: killed at a change of the disk, recovered")
    return found


@EVERY_LIFE
def test_killed_at_any_change_of_the_disk_a_life_is_brought_to_its_end(ground: Path, life: Life) -> None:
    stage = Stage(ground, life)
    stage.set_up()
    assert [] == crash_points(stage)


@EVERY_LIFE
def test_killed_again_while_recovering_nothing_is_lost_either(ground: Path, life: Life) -> None:
    # given every state that a kill leaves (quick: one at random)
    stage = Stage(ground, life)
    stage.set_up()
    total = stage.lead(Killer(ground)).result
    points = range(1, total + 1) if FULL else [random.Random(life.name).randint(1, total)]  # noqa: S311 - no secret
    seen, found = set(), []
    for at in points:
        end = stage.lead(Killer(ground, at))
        if shape(stage.anima) in seen:
            continue
        seen.add(shape(stage.anima))
        copy(stage.anima, ground / "killed")

        # when the recovery is killed at every change of its own
        for again in range(1, 1000):
            copy(ground / "killed", stage.anima)
            second = recovered_under(Killer(ground, again), stage)
            assert second.error is None, second.error
            found += [f"{at}, {again}: {p}" for p in stage.problems(end.said, second.said, stage.rest())]
            if not second.killed:
                break
            count("double kills: the recovery killed at a change of its own")

    # then
    assert [] == found


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", FAULTS, ids=errno.errorcode.get)
@EVERY_LIFE
def test_refused_by_the_disk_a_life_loses_nothing_and_goes_on_or_says_why_not(
    ground: Path, monkeypatch: pytest.MonkeyPatch, life: Life, error: int, *, lasting: bool
) -> None:
    # given
    stage = Stage(ground, life)
    stage.set_up()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    if lasting:  # the disk is not waited for
        monkeypatch.setattr(_runner, "_PATIENCE", -1.0)
    total = stage.lead(Saboteur(ground, error, None)).result
    points = range(1, total + 1) if FULL else random.Random(life.name).sample(range(1, total + 1), min(total, 1))  # noqa: S311 - no secret

    # when each call fails, and the same process goes on when the disk is well again
    found = []
    for at in points:
        end = stage.lead(Saboteur(ground, error, at, lasting=lasting), until=rest)
        count(f"refusals: {errno.errorcode[error]} instead of a call")
        if end.error:
            found.append(f"{at}: it did not go on: {end.error}")
        reasons = [line for line in end.everything if line.startswith("#said")]
        found += [f"{at}: it does not say why: {r}" for r in reasons if not _SAYS_WHY.search(r)]
        found += [f"{at}: {problem}" for problem in stage.problems(end.said, stage.rest())]

    # then
    assert [] == found
