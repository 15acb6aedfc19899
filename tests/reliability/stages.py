"""The checks themselves: a life is led again and again, disturbed each time elsewhere, and each time judged."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from animaworks_tasks import TaskStore
from animaworks_tasks.errors import TasksError
from tests.reliability.counts import count
from tests.reliability.invariants import problems, words
from tests.reliability.lives import Life, Say, allowed, rest
from tests.reliability.powercuts import Disk, Event, Recorder, State, events_of, make
from tests.reliability.taps import CHANGES, End, Killer, Saboteur, copy, forked, shape

_SAYS_WHY: Final = re.compile(r"\[Errno \d+\] .*: '/|cannot hold tasks: |may not be read")


@attrs.define
class Stage:
    """
    Where a life is led again and again, from the same beginning.

    Attributes:
        ground: A directory of its own.
        life: What is led.
        before: What was said when it was set up.
    """

    ground: Path
    life: Life
    before: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        if not self._new:
            self.life.before(self.store(), self._hear(self.before))
            copy(self.anima, self.ground / "before")

    @property
    def anima(self) -> Path:
        """The Anima's directory."""
        return self.ground / "mei"

    @property
    def _new(self) -> bool:
        return self.life.from_nothing

    def store(self) -> TaskStore:
        """Return the store, made if it is not there."""
        return TaskStore(self.anima, durability="process")

    def lead(self, tap: Killer | Saboteur, *, until: Callable[[TaskStore, Say], object] | None = None) -> End:
        """Lead the life under *tap* in a child, and then *until* without; the result is how many calls there were."""
        shutil.rmtree(self.anima, ignore_errors=True)
        if not self._new:
            copy(self.ground / "before", self.anima)

        def body(say: Say) -> int:
            store = None if self._new else self.store()
            tap.put_on()
            try:
                self.life.lead(store or self.store(), say)
            except (OSError, TasksError) as error:
                say("#said", type(error).__name__, str(error))
                if until is None:
                    raise
            calls = tap.calls
            tap.well = True
            if until is not None:
                until(self.store(), say)
            return calls

        return forked(body)

    def recover(self, tap: Killer) -> End:
        """Bring everything to its end under *tap*, in a child."""

        def body(say: Say) -> int:
            store = self.store()
            tap.put_on()
            rest(store, say)
            return tap.calls

        return forked(body)

    def judge(self, *said: Iterable[str]) -> list[str]:
        """Bring everything to its end, in this process; say what is wrong then."""
        heard = [*self.before, *(line for lines in said for line in lines)]
        rest(self.store(), self._hear(heard))
        return problems(self.anima, heard, runs=allowed)

    @staticmethod
    def _hear(heard: list[str]) -> Say:
        return lambda *parts: heard.append(words(*parts))


def crash_points(ground: Path, life: Life, *, sample: int | None = None) -> Iterator[str]:
    """Kill at every change of the disk (or at a *sample*), recover; yield what is wrong."""
    stage = Stage(ground, life)
    end = stage.lead(Killer(ground))
    assert end.error is None, end.error
    yield from (f"not killed: {problem}" for problem in stage.judge(end.said))
    for at in _some(end.result, sample, life):
        end = stage.lead(Killer(ground, at))
        assert end.killed, end
        count("crash points: killed at a change of the disk, recovered")
        yield from (f"killed before change {at}: {problem}" for problem in stage.judge(end.said))


def double_kills(ground: Path, life: Life, *, sample: int | None = None, second: int | None = None) -> Iterator[str]:
    """Kill at every change of the disk (or at a *sample*), and the recovery at every one of its own (or a *second*)."""
    stage = Stage(ground, life)
    total = stage.lead(Killer(ground)).result
    seen: set[object] = set()
    for at in _some(total, sample, life):
        end = stage.lead(Killer(ground, at))
        copy(stage.anima, ground / "killed")
        for again in _some(stage.recover(Killer(ground)).result, second, life):
            copy(ground / "killed", stage.anima)
            killed = stage.recover(Killer(ground, again))
            assert killed.killed, killed
            count("double kills: the recovery killed at a change of its own")
            left = (shape(stage.anima), end.said, killed.said)
            if left not in seen:  # what comes of the same is the same
                seen.add(left)
                wrong = stage.judge(end.said, killed.said)
                yield from (f"killed before change {at}, and before {again} of the recovery: {p}" for p in wrong)


def refusals(ground: Path, life: Life, error: int, *, lasting: bool, sample: int | None = None) -> Iterator[str]:
    """Let every call (or a *sample*) fail with *error*; the process is to go on, or to say why not."""
    stage = Stage(ground, life)
    total = stage.lead(Saboteur(ground, error, None)).result
    for at in _some(total, sample, life):
        end = stage.lead(Saboteur(ground, error, at, lasting=lasting), until=rest)
        count(f"refusals: {errno.errorcode[error]} instead of a call")
        if end.error:
            yield f"call {at} refused: it did not go on: {end.error}"
        reasons = [line for line in end.everything if line.startswith("#said") and not _SAYS_WHY.search(line)]
        yield from (f"call {at} refused: it does not say why: {reason}" for reason in reasons)
        yield from (f"call {at} refused: {problem}" for problem in stage.judge(end.said))


def _some(total: int, sample: int | None, life: Life) -> Sequence[int]:
    every = range(1, total + 1)
    return every if sample is None else random.Random(life.name).sample(every, min(sample, total))  # noqa: S311 - no secret


def power_cuts(ground: Path, life: Life, *, moments: int, limit: int) -> Iterator[str]:
    """Cut the power at every moment of a life, with so many *moments* and states at each as :meth:`Disk.cuts` says."""
    disk = Disk(ground)
    events, start = lived(ground, life)
    disk.replay(events)
    for wrong in survived(ground, disk.cuts(start, moments=moments, limit=limit)):
        count("power cuts: states left, started again")
        yield from wrong


def power_cuts_after_kill(
    ground: Path, life: Life, *, moments: int, limit: int, sample: int | None = None
) -> Iterator[str]:
    """Kill at every change of the disk (or at a *sample*), recover, and cut the power meanwhile or after it."""
    events, start = lived(ground, life)
    changes = sum(event[0] in CHANGES for event in events[start:])
    for at in _some(changes, sample, life):
        shutil.rmtree(ground / "mei")
        disk = Disk(ground)
        disk.replay(lived(ground, life, kill_at=at)[0])
        killed = disk.length
        disk.replay(rested(ground))
        for wrong in survived(ground, disk.cuts(killed, moments=moments, limit=limit)):
            count("power cuts after a kill and a recovery: states left, started again")
            yield from (f"killed before change {at}: {problem}" for problem in wrong)


def lived(ground: Path, life: Life, *, kill_at: int | None = None) -> tuple[list[Event], int]:
    """Lead a life from its very beginning in a child; return what it did, and the number of the event it starts at."""

    def body(say: Say) -> int:
        recorder = Recorder(ground, say)
        recorder.put_on()
        store = TaskStore(ground / "mei")
        life.before(store, say)
        say("begin")
        recorder.kill_at = None if kill_at is None else recorder.calls + kill_at
        life.lead(store, say)
        return 0

    end = forked(body)
    assert end.error is None, end.error
    events = events_of(end.everything)
    return events, events.index(("say", "begin"))


def rested(ground: Path) -> list[Event]:
    """Bring everything to its end in another child; return what it did."""

    def body(say: Say) -> int:
        Recorder(ground, say).put_on()
        rest(TaskStore(ground / "mei"), say)
        return 0

    end = forked(body)
    assert end.error is None, end.error
    return events_of(end.everything)


def survived(ground: Path, cuts: Iterable[tuple[State, list[str]]]) -> Iterator[list[str]]:
    """Start again after each of *cuts*; yield the problems of each, with the last that was said before it."""
    anima = ground / "cut" / "mei"
    for state, said in cuts:
        make(state, anima.parent)
        heard = list(said)
        store = TaskStore(anima, durability="process")
        if os.path.lexists(store.layout.boot):
            os.unlink(store.layout.boot)  # the machine has started anew
        rest(store, lambda *parts: heard.append(words(*parts)))  # noqa: B023 - called at once
        yield [f"{problem} (after {said[-1:]})" for problem in problems(anima, heard, runs=allowed)]
