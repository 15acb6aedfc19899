"""The command line of the suite; ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import _plots, _report, growing, resting, running, submitting
from benchmarks._machine import IN_MEMORY, file_system, keep_apart, machine
from benchmarks._measure import Bench, Result

FIGURES: Final = {figure.name: figure for group in (submitting, running, resting, growing) for figure in group.FIGURES}
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for, and return the exit status."""
    sys.dont_write_bytecode = False  # nor in the processes that we start: as it is on a user's machine
    parser = _parser()
    options = parser.parse_args(argv)
    if options.list:
        for figure in FIGURES.values():
            print(f"{figure.name:21} {figure.title.replace('`', '')}")
        return 0
    unknown = [name for name in options.names if name not in FIGURES]
    if unknown:
        parser.error(f"no figure is called {unknown[0]!r}; --list shows them")
    if not options.dir.is_dir():
        parser.error(f"--dir {options.dir} is not a directory; make it, or name another one")
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("\nstopped; what was measured until then is shown above", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError) as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure animaworks_tasks against a floor and its peers; benchmarks/README.md tells more.",
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="a figure; default: all of them")
    add("--list", action="store_true", help="show the figures, and measure nothing")
    add("--quick", action="store_true", help="small sizes, one round: shows that it works, and says nothing of speed")
    add("--dir", type=Path, default=Path(), metavar="DIR", help="work below DIR, on its file system; default: here")
    add("--json", type=Path, metavar="FILE", help="write all numbers to FILE, as JSON")
    add("--write", type=Path, metavar="FILE", help="write a page in Markdown to FILE, with plots beside it")
    add("--from", type=Path, dest="earlier", metavar="FILE", help="take figures that are not named from this --json")
    return parser


def _run(options: argparse.Namespace) -> int:
    earlier, where = _report.load(options.earlier) if options.earlier else ([], {})
    results = {result.name: result for result in earlier}
    names = options.names or ([] if earlier else list(FIGURES))
    failed = []
    if names:
        where = _where(options.dir, where)
    # One place for all, gone at the end: what is deleted in between would slow down what comes after it.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=options.dir, ignore_cleanup_errors=True) as scratch:
        keep_apart(Path(scratch))
        bench = Bench(Path(scratch).resolve(), quick=options.quick)
        for number, name in enumerate(names, start=1):
            print(f"[{number}/{len(names)}] {name}", file=sys.stderr, flush=True)
            try:
                results[name] = FIGURES[name].result(bench)
            except Exception:  # noqa: BLE001 - the others are still worth their time
                traceback.print_exc()
                failed.append(name)
                continue
            print(_report.table(results[name]), flush=True)
            _keep(options, results, where)  # after each, so that a run that is stopped was not for nothing
    if not names:
        _keep(options, results, where)
    if failed:
        print(f"these failed, see above, and run them alone: {' '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _where(directory: Path, earlier: Mapping[str, str]) -> dict[str, str]:
    """Say where it is measured, and return that; refuse to mix it with what was measured elsewhere."""
    where = machine(directory)
    for name in where:
        if earlier and where[name] != earlier.get(name):
            raise ValueError(
                f"--from is of another machine: {name} was {earlier.get(name)}, and is {where[name]}; measure all anew"
            )
        print(f"{name}: {where[name]}")
    if file_system(directory)[0] in IN_MEMORY:
        print("this file system is in memory, where an fsync costs nothing: name one on a disk with --dir")
    print(flush=True)
    return where


def _keep(options: argparse.Namespace, results: Mapping[str, Result], where: Mapping[str, str]) -> None:
    """Write what was measured so far where the *options* want it."""
    ordered = [results[name] for name in FIGURES if name in results]
    if options.json:
        options.json.write_text(_report.dump(ordered, where), encoding="utf-8")
    if options.write:
        directory = options.write.with_suffix("")
        plots = {name: f"{directory.name}/{path.name}" for name, path in _plots.draw(ordered, directory).items()}
        options.write.write_text(_report.page(ordered, where, plots), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
