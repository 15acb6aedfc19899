"""
What a figure is and how it is measured: contestants take turns, round by round, and the median of the rounds counts.

Nothing here judges a time by itself: *ours* is set against a floor or a peer that was measured in the same run, on the
same machine, in between. A peer that is missing, or that fails, has no number, and its line says why.
"""

from __future__ import annotations

import enum
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import attrs

ROUNDS: Final = 5


class Missing(Exception):  # noqa: N818 - what is said of a contestant, not an error of ours
    """A contestant cannot take part; the message says why, and what to do about it."""


class Role(enum.Enum):
    """On which side of a comparison a contestant stands."""

    OURS = "ours"
    FLOOR = "floor"
    PEER = "peer"


@attrs.frozen(kw_only=True)
class Promise:
    """
    What becomes of a task once its submit has returned; no comparison of times without it.

    Attributes:
        fsync: Whether, and when, it is fsynced.
        crash: What is lost when a process dies.
        power: What is lost when the power fails.
        running: Whether a task is remembered that was running when its process died.
    """

    fsync: str
    crash: str
    power: str
    running: str


@attrs.frozen(kw_only=True)
class Contestant:
    """
    One that takes part in a comparison.

    Attributes:
        run: Measures one round, in the unit of the comparison. Raises Missing where it cannot.
        promise: None for a floor, which keeps no tasks.
    """

    name: str
    role: Role
    run: Callable[[], float]
    promise: Promise | None = None


@attrs.frozen(kw_only=True)
class Entry:
    """
    What was measured of one contestant.

    Attributes:
        samples: One number per round; empty where it is missing.
        missing: Why there are no samples.
    """

    name: str
    role: Role
    samples: tuple[float, ...] = ()
    promise: Promise | None = None
    missing: str | None = None

    @property
    def median(self) -> float | None:
        """The middle of the rounds; None where there were none."""
        return statistics.median(self.samples) if self.samples else None


@attrs.frozen
class Target:
    """
    What is to be reached.

    Attributes:
        bound: The number.
        at: On which side of *bound* is good.
        of: Which number of ours: ``"ratio"``: divided by what it is compared with; ``"more"``: what it is more than
            that; ``"value"``: as it is.
    """

    bound: float
    at: Literal["most", "least"] = "most"
    of: Literal["ratio", "more", "value"] = "ratio"

    def met_by(self, value: float) -> bool:
        """Say whether *value* is on the good side, or on the line."""
        return value <= self.bound if self.at == "most" else value >= self.bound


@attrs.frozen(kw_only=True)
class Comparison:
    """
    One table: ours, the floor and the peers, in one unit.

    Attributes:
        what: What was measured, in a few words; empty where the figure's title says it.
        unit: Of every sample.
        entries: In the order in which they are shown; the first of ours is the one that the target is about.
        against: The name of the entry with which the others are compared; None for no ratios.
        target: None where it is only for information.
    """

    what: str = ""
    unit: str
    entries: tuple[Entry, ...]
    against: str | None = None
    target: Target | None = None

    @property
    def ours(self) -> Entry:
        """The entry that the target is about."""
        return next(entry for entry in self.entries if entry.role is Role.OURS)

    @property
    def base(self) -> float | None:
        """The median of what the others are compared with; None where there is none."""
        return next((entry.median for entry in self.entries if entry.name == self.against), None)

    def ratio(self, entry: Entry) -> float | None:
        """Return how many times the median of *against* the median of *entry* is; None where one is missing."""
        return None if not self.base or entry.median is None else entry.median / self.base

    @property
    def reached(self) -> float | None:
        """What the target's bound is to be held against; None where it could not be measured."""
        if self.target is None or self.ours.median is None:
            return None
        if self.target.of == "ratio":
            return self.ratio(self.ours)
        if self.target.of == "more":
            return None if self.base is None else self.ours.median - self.base
        return self.ours.median

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing to tell by."""
        return None if self.target is None or self.reached is None else self.target.met_by(self.reached)


@attrs.frozen(kw_only=True)
class Result:
    """
    All of one figure, as it was measured.

    Attributes:
        at: When, in UTC.
        load: The load average of the last minute, before and after.
        note: What a reader must know besides; empty for nothing.
    """

    name: str
    title: str
    comparisons: tuple[Comparison, ...]
    at: datetime
    load: tuple[float, float]
    quick: bool = False
    note: str = ""


@attrs.frozen
class Bench:
    """
    What every figure is given: where to work, and how hard.

    Attributes:
        directory: On the file system that is measured.
        quick: Small sizes and one round: it shows that the suite works, not how fast we are.
    """

    directory: Path
    quick: bool = False
    _made: list[int] = attrs.field(factory=list, init=False, repr=False)

    @property
    def rounds(self) -> int:
        """How often the contestants take turns."""
        return self.size(ROUNDS, 1)

    def size(self, full: int, quick: int) -> int:
        """Return *full*, or in a quick run *quick*."""
        return quick if self.quick else full

    def fresh(self, name: str) -> Path:
        """Return a new empty directory."""
        self._made.append(len(self._made))
        directory = self.directory / f"{len(self._made):03d}-{name}"
        directory.mkdir()
        return directory


@attrs.frozen(kw_only=True)
class Figure:
    """
    One row of what is to be reached.

    Attributes:
        name: As it is typed.
        title: A sentence that says what is measured.
        measure: Does it, and returns one comparison or several.
        note: See :class:`Result`.
    """

    name: str
    title: str
    measure: Callable[[Bench], Sequence[Comparison]]
    note: str = ""

    def result(self, bench: Bench) -> Result:
        """Measure it now."""
        at, before = datetime.now(UTC), os.getloadavg()[0]
        comparisons = tuple(self.measure(bench))
        return Result(
            name=self.name,
            title=self.title,
            comparisons=comparisons,
            at=at,
            load=(before, os.getloadavg()[0]),
            quick=bench.quick,
            note=self.note,
        )


def take_turns(
    rounds: int, contestants: Iterable[Contestant], *, run: Callable[[Contestant], Any] = lambda each: each.run()
) -> dict[str, list[Any] | Missing]:
    """
    Let every contestant run once per round, in the same order: A B A B; return what each returned, by name.

    Who raises Missing takes no further part, nor does a peer that raises anything: only floors and ours must work.
    """
    found: dict[str, list[Any] | Missing] = {}
    for number in range(rounds):
        for each in contestants:
            so_far = found.setdefault(each.name, [])
            if isinstance(so_far, Missing):
                continue
            progress(f"round {number + 1} of {rounds}: {each.name}")
            try:
                so_far.append(run(each))
            except Missing as missing:
                found[each.name] = missing
            except Exception as error:
                if each.role is not Role.PEER:
                    raise
                found[each.name] = Missing(f"failed: {type(error).__name__}: {error}")
    return found


def entry(contestant: Contestant, found: list[float] | Missing) -> Entry:
    """Return what was found of *contestant*."""
    missing = isinstance(found, Missing)
    return Entry(
        name=contestant.name,
        role=contestant.role,
        promise=contestant.promise,
        samples=() if isinstance(found, Missing) else tuple(found),
        missing=str(found) if missing else None,
    )


def compare(
    bench: Bench,
    contestants: Sequence[Contestant],
    *,
    unit: str,
    what: str = "",
    against: str | None = None,
    target: Target | None = None,
) -> Comparison:
    """Measure *contestants* in turns."""
    found = take_turns(bench.rounds, contestants)
    entries = tuple(entry(each, found[each.name]) for each in contestants)
    return Comparison(what=what, unit=unit, entries=entries, against=against, target=target)


def together(measure: Callable[[], Mapping[str, float]]) -> Callable[[str], Callable[[], float]]:
    """
    Return what gives each contestant, by name, its share of what *measure* measures of all of them at once.

    It measures anew when a share is asked for that was taken: once per round.
    """
    shares: dict[str, float] = {}

    def take(name: str) -> float:
        if name not in shares:
            shares.clear()
            shares.update(measure())
        if name not in shares:
            raise Missing("not installed; pip install -e '.[bench]'")
        return shares.pop(name)

    return lambda name: lambda: take(name)


def in_turns(times: int, calls: Mapping[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Call each of *calls* in turn, so many *times*, and return the median of what each took, in seconds."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(times):
        for name, call in calls.items():
            begun = clock()
            call()
            took[name].append(clock() - begun)
    return {name: statistics.median(each) for name, each in took.items()}


def percentile(samples: Sequence[float], part: float) -> float:
    """Return the smallest sample that at least the *part* (0 to 1) of all samples do not exceed."""
    return sorted(samples)[max(0, math.ceil(part * len(samples)) - 1)]


def progress(text: str) -> None:
    """Tell whoever waits what is being done, on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)
