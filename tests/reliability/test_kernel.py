"""The same as the kernel sees it: real programs under strace, killed or refused at the system call; nothing escapes."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from animaworks_tasks import TaskStore
from tests.reliability.counts import FULL, count
from tests.reliability.invariants import problems, words
from tests.reliability.lives import EVERYTHING, LIVES, Life, allowed, rest
from tests.reliability.powercuts import TRACED, Disk, Event, events_in
from tests.reliability.stages import lived, survived

ROOT: Final = Path(__file__).resolve().parents[2]
LIFE: Final = {life.name: life for life in LIVES}
RUN: Final = "claim, run, finish, notify"


def _strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return 0 == subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode


pytestmark = pytest.mark.skipif(not _strace_works(), reason="needs strace, and to be allowed to trace")

CHANGES: Final = "openat,write,link,linkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync"


def traced(ground: Path, life: str, options: Iterable[str], trace: Path) -> subprocess.CompletedProcess[str]:
    """Let a real program lead a life under strace."""
    # Neither coverage nor bytecode: a program that writes files of its own is not the same each time.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    fast = [] if "inject" in " ".join(options) else ["--seccomp-bpf"]  # with which no signal is injected
    command = ["strace", "-f", *fast, "-qq", "-e", "signal=none", "-y", "-s", "1000000", "-o", str(trace)]
    program = [sys.executable, "-m", "tests.reliability.worker", str(ground / "mei"), life, str(trace.parent / "RUNS")]
    return subprocess.run(
        [*command, *options, *program],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _inject(call: str, number: int, what: str) -> list[str]:
    return ["-e", f"trace={call}", "-e", f"inject={call}:{what}:when={number}"]


def points(ground: Path, life: Life, trace: Path) -> list[tuple[str, int]]:
    """Return the calls that change the disk below *ground*, each with its number among the program's calls of it."""
    shutil.rmtree(ground / "mei", ignore_errors=True)
    done = traced(ground, life.name, ["-e", f"trace={CHANGES}"], trace)
    assert 0 == done.returncode, done.stderr
    found: list[tuple[str, int]] = []
    counted: Counter[str] = Counter()
    begun = life.from_nothing
    for line in trace.read_text().splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)", line)
        if match is None:
            continue
        name, rest_of_it = match.groups()
        counted[name] += 1
        begun = begun or '"begin' in rest_of_it
        looks = name == "openat" and "O_CREAT" not in rest_of_it
        if begun and str(ground / "mei") in rest_of_it and not looks:
            found.append((name, counted[name]))
    return found


def judged(ground: Path, said: list[str]) -> list[str]:
    heard = list(said)
    rest(TaskStore(ground / "mei", durability="process"), lambda *parts: heard.append(words(*parts)))
    return problems(ground / "mei", heard, runs=allowed)


@pytest.mark.parametrize("life", [LIFE[RUN], *([EVERYTHING] if FULL else [])], ids=lambda life: life.name)
def test_killed_at_a_system_call_a_real_program_loses_nothing(ground: Path, tmp_path: Path, life: Life) -> None:
    trace = tmp_path / "trace"
    every = points(ground, life, trace)
    found = []
    for name, number in _some(every, 1, 20):
        shutil.rmtree(ground / "mei", ignore_errors=True)
        runs = tmp_path / "RUNS"
        runs.unlink(missing_ok=True)
        done = traced(ground, life.name, _inject(name, number, "signal=KILL"), trace)
        assert done.returncode in {-9, 137}, (name, number, done)
        count("kills at a system call of a real program")

        # The tool itself has counted how often it ran.
        said = done.stdout.splitlines()
        ran = runs.read_text().splitlines() if runs.exists() else []
        assert [line for line in said if line.startswith("ran")] in (ran, ran[:-1])
        found += [f"{name} {number}: {p}" for p in judged(ground, [*said, *(line for line in ran if line not in said)])]
    assert [] == found


@pytest.mark.skipif(not FULL, reason="RELIABILITY=full: the same is tried without the kernel")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EMFILE", "EACCES"])
def test_refused_a_system_call_a_real_program_loses_nothing(ground: Path, tmp_path: Path, error: str) -> None:
    trace = tmp_path / "trace"
    life = LIFE[RUN]
    fitting = [p for p in points(ground, life, trace) if error != "EMFILE" or p[0] == "openat"]
    found = []
    for name, number in _some(fitting, 6, 6):
        shutil.rmtree(ground / "mei", ignore_errors=True)
        done = traced(ground, life.name, _inject(name, number, f"error={error}"), trace)
        count(f"refusals: {error} from a system call of a real program")
        if done.returncode != 0 and "Errno" not in done.stderr:
            found.append(f"{name} {number}: it does not say why: {done.stderr[-200:]}")
        found += [f"{name} {number}: {p}" for p in judged(ground, done.stdout.splitlines())]
    assert [] == found


def _some(every: list[tuple[str, int]], few: int, many: int) -> list[tuple[str, int]]:
    return random.Random(1).sample(every, min(len(every), many if FULL else few))  # noqa: S311 - no secret


def test_a_power_cut_at_any_moment_of_a_real_program_loses_nothing(ground: Path, tmp_path: Path) -> None:
    # given one life, once recorded by a tap and once by strace
    ours, _ = lived(ground, EVERYTHING)
    shutil.rmtree(ground / "mei")
    trace = tmp_path / "trace"
    done = traced(ground, EVERYTHING.name, ["-e", f"trace={TRACED}"], trace)
    assert 0 == done.returncode, done.stderr
    theirs = events_in(trace, ground)

    # then both are the same (sorted: what is kept in a set is not in the same order each time)
    assert sorted(_plain(ours)) == sorted(_plain(theirs))

    # and whatever the power cut leaves is in order
    disk = Disk(ground)
    disk.replay(theirs)
    found = []
    for wrong in survived(ground, disk.cuts(0, moments=100 if FULL else 4, limit=8 if FULL else 3)):
        count("power cuts of a real program: states left, started again")
        found += wrong
    assert [] == found


def _plain(events: list[Event]) -> list[str]:
    """Return what events have in common from one run to the next."""
    found = []
    for event in events:
        if event[0] in {"say", "open", "write", "fsync", "link", "rename", "unlink", "mkdir", "rmdir"}:
            rest_of_it = [part for part in event[1:] if not isinstance(part, bytes)]
            text = re.sub(r"\d+/\d+", "", words(event[0], *rest_of_it))
            found.append(re.sub(r"\.[0-9a-f]{12}\.\d+\.\d+|probe\S*", "", text))
    return found
