"""
All ways in which operations on one store can get between each other, up to a number of interruptions and kills.

Operations run in threads, one at a time; before every call that matters to another one, it is decided who goes on.
It tries every schedule with at most so many *preemptions* (switches away from one that could go on) and kills: who is
killed does nothing more, and its descriptors, and so its locks, are closed. (``flock`` belongs to the descriptor, so
threads that opened a lock file each for themselves keep each other out like processes.)
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from animaworks_tasks.fs import files
from tests.reliability.taps import CHANGES, PATIENCE, Call, Tap

_POINTS: Final = {"open", "link", "unlink", "rename", "scandir", "listdir", "stat", "lstat", "flock"}
_NOBODYS: Final = ("/tmp/", "/events.jsonl", "/boot", "/logs/", "/progress/")  # noqa: S108 - ours


class Killed(BaseException):
    """What a process that is killed does next: nothing."""


@attrs.frozen
class Step:
    """
    One decision: *thread* goes on, or is killed.

    Attributes:
        thread: Which.
        kill: It is killed instead.
        ready: Who could have gone on.
        before: Who went last; -1 for nobody yet.
        pending: What *thread* was about to do; None at its start.
        changed: Whether what it did last changed the disk, or a lock.
    """

    thread: int
    kill: bool
    ready: tuple[int, ...]
    before: int
    pending: Call | None
    changed: bool

    @property
    def preempts(self) -> bool:
        return self.before in self.ready and self.thread != self.before


Plan = tuple[tuple[int, bool], ...]


class Turns(Tap):
    """Lets threads take turns as a plan says; after that, each goes on as long as it can."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._me = threading.local()
        self._to_close: list[int] = []
        self.touched: dict[int, dict[str, bool]] = {}  # by thread: what it has to do with, and whether it changes that

    def put_on(self) -> None:
        super().put_on()
        files._shared = lambda _: files._Sync()  # the threads stand for processes: none waits for the fsync of another

    def play(self, operations: Sequence[Callable[[], object]], plan: Plan) -> tuple[list[Step], list[str]]:
        """Run *operations* as *plan* says; return the decisions, and what was raised."""
        self._plan = plan
        self._steps: list[Step] = []
        self._go = [threading.Lock() for _ in operations]
        self._done = [False for _ in operations]
        self._dead = [False for _ in operations]
        self._pending: list[Call | None] = [None for _ in operations]
        self._changed = [False for _ in operations]
        self._blocked: set[int] = set()  # wait for a lock
        self._over = threading.Lock()
        raised: list[str] = []
        for lock in (self._over, *self._go):
            lock.acquire()
        threads = [
            threading.Thread(target=self._perform, args=(me, operation, raised), daemon=True)
            for me, operation in enumerate(operations)
        ]
        for thread in threads:
            thread.start()
        self._go[self._decide(-1)].release()
        if not self._over.acquire(timeout=PATIENCE / 2):
            raise TimeoutError(f"it hangs after {_told(self._steps)}")
        for thread in threads:
            thread.join()
        return self._steps, raised

    def _decide(self, last: int) -> int:
        """Decide who goes on; called by the one that has gone *last*."""
        ready = tuple(me for me, done in enumerate(self._done) if not done and me not in self._blocked)
        at = len(self._steps)
        me, kill = self._plan[at] if at < len(self._plan) else (last if last in ready else ready[0], False)
        self._steps.append(Step(me, kill, ready, last, self._pending[me], self._changed[me]))
        self._dead[me] = kill
        return me

    def bury(self) -> None:
        """Close what the dead have left; called once nothing refers to their locks any more."""
        gc.collect()  # what is left of a lock would close a descriptor that is another's by then
        for descriptor in self._to_close:
            with contextlib.suppress(OSError):  # what was collected has closed its own
                os.close(descriptor)
        self._to_close.clear()

    def _perform(self, me: int, operation: Callable[[], object], raised: list[str]) -> None:
        self._me.number, self._me.open = me, set()
        self._go[me].acquire()
        try:
            if not self._dead[me]:
                operation()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the test judges
            raised.append(f"RAISED {type(error).__name__}: {error}")
        if self._dead[me]:
            # Something takes the place of each descriptor, until nobody can close it again by mistake.
            for descriptor in self._me.open:
                os.dup2(_nothing(), descriptor)
                self._to_close.append(descriptor)
        self._done[me] = True
        self._blocked.clear()
        if all(self._done):
            self._over.release()
        else:
            self._go[self._decide(me)].release()

    def before(self, call: Call) -> None:
        me = getattr(self._me, "number", None)
        if me is None:
            return
        if self._dead[me]:
            raise Killed
        if call.name not in _POINTS or not any(touches(call)):
            return
        for path, changes in touches(call):
            known = self.touched.setdefault(me, {})
            known[path] = known.get(path, False) or changes
        self._pending[me] = call
        self._let_others(me)
        if call.name == "flock" and not call.args[1] & (fcntl.LOCK_NB | fcntl.LOCK_UN):
            while not _try(*call.args):  # it would wait: others go on until one has released a lock
                self._blocked.add(me)
                self._let_others(me)

    def _let_others(self, me: int) -> None:
        """Decide who goes on; return when it is this one's turn again."""
        chosen = self._decide(me)
        if chosen != me:
            self._go[chosen].release()
            self._go[me].acquire()
        if self._dead[me]:
            raise Killed

    def after(self, call: Call, result: Any) -> None:  # noqa: ANN401 - of any call
        me = getattr(self._me, "number", None)
        if me is None:
            return
        if call.name in _POINTS:
            self._changed[me] = call.name in CHANGES or call.name == "flock"
        if call.name in {"close", "flock"}:
            self._blocked.clear()
        if call.name == "open":
            self._me.open.add(result)
        elif call.name == "close":
            self._me.open.discard(call.args[0])


_flock = fcntl.flock  # as it is without a tap


def _try(descriptor: int, operation: int) -> bool:
    """Take a lock now, or return that it cannot be had."""
    try:
        _flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _nothing() -> int:
    global _null  # noqa: PLW0603 - one for all
    if _null is None:
        _null = os.open(os.devnull, os.O_RDONLY)
    return _null


_null: int | None = None


def touches(call: Call) -> Iterator[tuple[str, bool]]:
    """Yield each path that a call has to do with and another may, and whether it changes what others find there."""
    changes = call.changes or call.name == "flock"
    for path in [call.path, *(arg for arg in call.args[1:2] if call.name in {"link", "rename"})]:
        if not any(part in path for part in _NOBODYS):
            yield path, changes
            if changes:
                yield os.path.dirname(path), True


@attrs.frozen
class Race:
    """
    What a scenario starts, and who judges what came of it.

    Attributes:
        operations: Run at once.
        judge: Says what is wrong afterwards, given whether one of them was killed.
    """

    operations: Sequence[Callable[[], object]]
    judge: Callable[[bool], list[str]]


@attrs.frozen
class Found:
    """
    What an exploration found.

    Attributes:
        schedules: How many were tried.
        complete: Whether those were all.
        bad: The problems of the bad ones, each with its schedule.
    """

    schedules: int
    complete: bool
    bad: tuple[str, ...]


def explore(
    root: Path,
    scenario: Callable[[], Race],
    *,
    preemptions: int,
    kills: int = 0,
    limit: int,
    until_bad: bool = False,
) -> Found:
    """
    Try schedules of *scenario* in this process, which is to be a child made for it.

    A thread is interrupted only before a call that matters to another one: about a path which that one changes, or
    which it looks at and this call changes. Killed it is only after it has changed something.
    """
    turns = Turns(root)
    turns.put_on()
    sys.unraisablehook = _hook  # the lock of who was killed cannot release itself any more
    choose = random.Random(1)  # noqa: S311 - no secret
    plans: list[Plan] = [()]
    known = set(plans)
    tried, bad = 0, []
    while plans and tried < limit:
        at = choose.randrange(len(plans))
        plans[at], plans[-1] = plans[-1], plans[at]
        plan = plans.pop()
        race = scenario()
        steps, raised = turns.play(race.operations, plan)
        killed = any(step.kill for step in steps)
        wrong = [*raised, *race.judge(killed)]
        del race
        if killed:
            turns.bury()
        tried += 1
        if wrong:
            bad.append(f"{wrong}: {_told(steps)}")
            if until_bad:
                break
        for further in _alternatives(steps, len(plan), turns.touched, preemptions, kills):
            if further not in known:
                known.add(further)
                plans.append(further)
    return Found(tried, not plans, tuple(bad))


def _hook(what: sys.UnraisableHookArgs) -> None:
    if not isinstance(what.exc_value, Killed):
        sys.__unraisablehook__(what)


def _alternatives(
    steps: Sequence[Step], done: int, touched: dict[int, dict[str, bool]], preemptions: int, kills: int
) -> Iterator[Plan]:
    taken: Plan = tuple((step.thread, step.kill) for step in steps)
    for at, step in enumerate(steps):
        used = sum(s.preempts for s in steps[:at])
        if at >= done:
            for other in step.ready:
                preempts = step.before in step.ready and other != step.before
                if other != step.thread and used + preempts <= preemptions and _conflict(step.pending, touched, other):
                    yield (*taken[:at], (other, False))
            if sum(s.kill for s in steps[:at]) < kills and step.changed:
                yield (*taken[:at], (step.thread, True))


def _conflict(call: Call | None, touched: dict[int, dict[str, bool]], other: int) -> bool:
    if call is None:
        return True
    theirs = touched.get(other, {})
    return any(path in theirs and (changes or theirs[path]) for path, changes in touches(call))


def _place(call: Call) -> str:
    path = call.args[1] if call.name in {"link", "rename"} else call.path
    return "/".join(path.split("/")[-2:])


def _told(steps: Sequence[Step]) -> str:
    """Tell a schedule in its switches."""
    parts = []
    for step in steps:
        what = "start" if step.pending is None else f"{step.pending.name} {_place(step.pending)}"
        if step.kill or step.preempts or step.pending is None:
            parts.append(f"{'KILL ' if step.kill else ''}{step.thread} before {what}")
    with contextlib.suppress(IndexError):
        parts.append(f"end of {steps[-1].thread}")
    return "; ".join(parts)
