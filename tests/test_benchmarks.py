"""The arithmetic of the benchmark suite, and that it runs; never how long anything takes."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import _report
from benchmarks._measure import (
    Comparison,
    Contestant,
    Entry,
    Missing,
    Promise,
    Result,
    Role,
    Target,
    percentile,
    take_turns,
    together,
)

ROOT = Path(__file__).resolve().parent.parent
PROMISE = Promise(fsync="never", crash="nothing", power="all", running="no")


def comparison(*, ours: tuple[float, ...] = (30.0, 10.0, 20.0), target: Target | None = None) -> Comparison:
    return Comparison(
        what="a call",
        unit="ms",
        entries=(
            Entry(name="raw", role=Role.FLOOR, samples=(8.0, 12.0, 10.0)),
            Entry(name="us", role=Role.OURS, samples=ours, promise=PROMISE),
            Entry(name="them", role=Role.PEER, missing="not installed: them"),
        ),
        against="raw",
        target=target,
    )


def result(*comparisons: Comparison, quick: bool = False) -> Result:
    return Result(
        name="call",
        title="A call",
        comparisons=comparisons,
        at=datetime(2026, 1, 2, tzinfo=UTC),
        load=(0.5, 1.0),
        quick=quick,
    )


@pytest.mark.parametrize(
    ("target", "reached", "met"),
    [
        (Target(2), 2.0, True),
        (Target(1.9), 2.0, False),
        (Target(2.1, "least"), 2.0, False),
        (Target(2, "least"), 2.0, True),
        (Target(10, of="more"), 10.0, True),
        (Target(9, of="more"), 10.0, False),
        (Target(20, of="value"), 20.0, True),
        (Target(19, of="value"), 20.0, False),
    ],
)
def test_a_target_is_held_against_the_median_of_ours(*, target: Target, reached: float, met: bool) -> None:
    found = comparison(target=target)
    assert (reached, met) == (found.reached, found.met)


def test_what_could_not_be_measured_is_neither_met_nor_missed() -> None:
    assert comparison(ours=(), target=Target(2)).met is None
    assert comparison(target=None).met is None


def test_a_percentile_is_one_of_the_samples() -> None:
    samples = [float(number) for number in range(1000, 0, -1)]
    assert [1.0, 500.0, 990.0, 999.0, 1000.0] == [percentile(samples, part) for part in (0, 0.5, 0.99, 0.999, 1)]
    assert percentile([7.0], 0.99) == 7.0


def test_contestants_take_turns_and_one_that_is_missing_sits_out() -> None:
    # given two that work, a peer that is missing and one that fails
    order = []

    def run(name: str) -> float:
        order.append(name)
        if name == "missing":
            raise Missing("not installed")
        if name == "failing":
            raise OSError("no socket")
        return float(len(order))

    roles = {"floor": Role.FLOOR, "missing": Role.PEER, "ours": Role.OURS, "failing": Role.PEER}
    contestants = [Contestant(name=name, role=role, run=lambda name=name: run(name)) for name, role in roles.items()]

    # when
    found = take_turns(3, contestants)

    # then
    assert ["floor", "missing", "ours", "failing", "floor", "ours", "floor", "ours"] == order
    assert [1.0, 5.0, 7.0] == found["floor"]
    assert "not installed" == str(found["missing"])
    assert "failed: OSError: no socket" == str(found["failing"])


def test_a_failure_of_ours_is_a_failure_of_the_suite() -> None:
    def fail() -> float:
        raise OSError("ours")

    with pytest.raises(OSError, match="ours"):
        take_turns(1, [Contestant(name="ours", role=Role.OURS, run=fail)])


def test_what_is_measured_together_is_measured_once_per_round() -> None:
    measured = iter([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}])
    share = together(lambda: next(measured))
    assert [1.0, 2.0, 3.0, 4.0] == [share(name)() for name in ("a", "b", "a", "b")]


def test_a_table_has_medians_ratios_the_verdict_and_what_each_promises() -> None:
    text = _report.table(result(comparison(target=Target(1.5))))
    assert [
        "call: A call",
        "",
        "  a call:",
        "                median   low  high  ratio",
        "  floor  raw   10.0 ms  8.00  12.0  1.00x",
        "  ours   us    20.0 ms  10.0  30.0  2.00x",
        "  peer   them  not installed: them",
        "  target at most 1.50x   2.00x: NOT MET",
    ] == text.splitlines()[:8]
    assert "nothing" in text.splitlines()[-1]


def test_a_quick_run_is_not_judged() -> None:
    assert "not judged" in _report.table(result(comparison(target=Target(1.5)), quick=True))


def test_three_digits_count() -> None:
    numbers = (0.01234, 0.5, 1.234, 12.34, 123.4, 12345.6, 0, -0.25)
    assert ["0.0123", "0.500", "1.23", "12.3", "123", "12,346", "0", "-0.250"] == [_report.shown(n) for n in numbers]


def test_what_is_written_as_json_is_read_again(tmp_path: Path) -> None:
    # given
    path = tmp_path / "run.json"
    results = [result(comparison(target=Target(10, of="more")), comparison(ours=(), target=None))]

    # when
    path.write_text(_report.dump(results, {"kernel": "Linux"}))

    # then
    assert (results, {"kernel": "Linux"}) == _report.load(path)
    first = json.loads(path.read_text())["figures"][0]["comparisons"][0]
    assert (True, 20.0, 2.0) == (first["met"], first["entries"][1]["median"], first["entries"][1]["ratio"])


def test_something_else_in_the_place_of_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match="measure anew"):
        _report.load(tmp_path / "run.json")


def test_the_page_names_each_target_and_whether_it_is_met() -> None:
    text = _report.page([result(comparison(target=Target(1.5)))], {"kernel": "Linux"}, {"call": "plots/call.svg"})
    assert "| [call](#call) | A call: a call | at most 1.50x | 2.00x: **not met** |" in text
    assert "![A call](plots/call.svg)" in text
    assert "| us | never | nothing | all | no |" in text


def test_the_suite_runs_from_the_command_line_and_leaves_nothing(tmp_path: Path) -> None:
    # when the cheapest figure is measured
    argv = [sys.executable, "-m", "benchmarks", "--quick", "submit", "--dir", tmp_path / "d", "--json", tmp_path / "j"]
    (tmp_path / "d").mkdir()
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    # then
    assert (0, "") == (done.returncode, done.stderr if done.returncode else "")
    assert "file system: " in done.stdout
    assert "store.submit" in done.stdout
    assert [] == list((tmp_path / "d").iterdir())
    entries = json.loads((tmp_path / "j").read_text())["figures"][0]["comparisons"][0]["entries"]
    assert all(entry["samples"] or entry["missing"] for entry in entries)


def test_an_unknown_figure_is_refused_with_what_to_do() -> None:
    argv = [sys.executable, "-m", "benchmarks", "no-such"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (2, "") == (done.returncode, done.stdout)
    assert "no figure is called 'no-such'; --list shows them" in done.stderr
