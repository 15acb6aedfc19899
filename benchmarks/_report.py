"""What was measured, for people on a terminal, as JSON, and as a page in Markdown."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks._measure import Comparison, Entry, Promise, Result, Role, Target

_PROMISES: Final = ("fsync", "lost with a process", "lost with the power", "remembers what was running")


def shown(value: float, unit: str = "") -> str:
    """Return *value* with three digits that count, or all before the point, and its unit."""
    digits = 0 if not value else max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return f"{text} {unit}" if unit else text


def target_text(comparison: Comparison) -> str:
    """Return what is to be reached, as a reader has it."""
    target = comparison.target
    if target is None:
        return "for information"
    bound = shown_ratio(target.bound) if target.of == "ratio" else shown(target.bound, comparison.unit)
    more = f" more than {comparison.against}" if target.of == "more" else ""
    return f"at {target.at} {bound}{more}"


def verdict(comparison: Comparison, *, quick: bool) -> str:
    """Return what was reached, and whether that is enough; a quick run is not judged."""
    reached, target = comparison.reached, comparison.target
    if target is None:
        return ""
    if reached is None:
        return comparison.ours.missing or f"{comparison.against} is missing"
    text = shown_ratio(reached) if target.of == "ratio" else shown(reached, comparison.unit)
    if quick:
        return f"{text} (quick: not judged)"
    return f"{text}: {'met' if comparison.met else 'NOT MET'}"


def shown_ratio(ratio: float) -> str:
    """Return a ratio as it is spoken of."""
    return f"{ratio:.2f}x" if ratio < 9.995 else f"{ratio:,.0f}x"  # noqa: PLR2004 - three digits


def table(result: Result) -> str:
    """Return one figure for a terminal."""
    lines = [f"{result.name}: {_plain(result.title)}"]
    for comparison in result.comparisons:
        rows: list[tuple[str, ...]] = [("", "", "median", "low", "high", "ratio" if comparison.against else "")]
        rows += [_row(comparison, entry) for entry in comparison.entries]
        lines += ["", *([f"  {comparison.what}:"] if comparison.what else []), *_aligned(rows)]
        lines.append(f"  target {target_text(comparison)}   {verdict(comparison, quick=result.quick)}".rstrip())
    promised = _promised(result.comparisons)
    if promised:
        rows = [("", "what each promises", *_PROMISES)]
        rows += [("", name, *attrs.astuple(promise)) for name, promise in promised.items()]
        lines += ["", *_aligned(rows, numbers=False)]
    if result.note:
        lines += ["", textwrap.fill(result.note, 116, initial_indent="  ", subsequent_indent="  ")]
    return "\n".join(lines) + "\n"


def _row(comparison: Comparison, entry: Entry) -> tuple[str, ...]:
    if entry.median is None:
        return (entry.role.value, entry.name, entry.missing or "", "", "", "")
    ratio = comparison.ratio(entry)
    return (
        entry.role.value,
        entry.name,
        shown(entry.median, comparison.unit),
        shown(min(entry.samples)),
        shown(max(entry.samples)),
        "" if ratio is None else shown_ratio(ratio),
    )


def _aligned(rows: Sequence[Sequence[str]], *, numbers: bool = True) -> list[str]:
    """Return *rows* in columns; numbers to the right, and a reason that there is none over all their columns."""
    whole = [row for row in rows if not numbers or row[3]]
    widths = [max((len(row[column]) for row in whole), default=0) for column in range(len(rows[0]))]
    widths[1] = max(len(row[1]) for row in rows)
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if numbers and column > 1 and row[3] else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _promised(comparisons: Iterable[Comparison]) -> dict[str, Promise]:
    """Return each promise once, by the names of all that keep it."""
    names: dict[Promise, list[str]] = {}
    for comparison in comparisons:
        for entry in comparison.entries:
            if entry.promise is not None and entry.name not in names.setdefault(entry.promise, []):
                names[entry.promise].append(entry.name)
    return {"; ".join(each): promise for promise, each in names.items()}


def _plain(text: str) -> str:
    return text.replace("`", "")


# Markdown.


def page(results: Sequence[Result], machine: Mapping[str, str], plots: Mapping[str, str]) -> str:
    """
    Return the page for the documentation.

    Args:
        results: In the order in which they are shown.
        machine: See `_machine.machine`.
        plots: The path of each figure's plot, as the page names it, by the name of the figure.
    """
    lines = [
        "# Performance",
        "",
        "Made by `python -m benchmarks --write docs/performance.md`; how, and how to do it yourself, is in",
        "[benchmarks/README.md](../benchmarks/README.md). Every ratio is between medians of one run, in which all took",
        "turns; beside each stand the lowest and the highest round. No test asserts a time.",
        "",
        *_md_table(("measured on", ""), [(name, value) for name, value in machine.items()]),
        "",
        "## What is to be reached, and what is",
        "",
        *_md_table(("figure", "what", "target", "measured"), _overview(results)),
    ]
    for result in results:
        lines += ["", *_md_figure(result, plots.get(result.name))]
    return "\n".join(lines) + "\n"


def _overview(results: Sequence[Result]) -> list[Sequence[str]]:
    return [
        (
            f"[{result.name}](#{result.name})",
            f"{result.title}: {comparison.what}" if comparison.what else result.title,
            target_text(comparison),
            verdict(comparison, quick=result.quick).replace("NOT MET", "**not met**"),
        )
        for result in results
        for comparison in result.comparisons
        if comparison.target is not None
    ]


def _md_figure(result: Result, plot: str | None) -> list[str]:
    lines = [f"## {result.name}", "", f"{result.title}. {result.note}".strip(), ""]
    if plot is not None:
        lines += [f"![{_plain(result.title)}]({plot})", ""]
    for comparison in result.comparisons:
        rows = [
            (cells[0], cells[1], cells[2], f"{cells[3]} - {cells[4]}" if cells[3] else "", cells[5])
            for cells in (_row(comparison, entry) for entry in comparison.entries)
        ]
        lines += [*_md_table(("", comparison.what, "median", "rounds", "ratio"), rows), ""]
        lines += [f"Target: {target_text(comparison)}. {verdict(comparison, quick=result.quick)}".strip(), ""]
    promised = _promised(result.comparisons)
    if promised:
        rows = [(name, *attrs.astuple(promise)) for name, promise in promised.items()]
        lines += [*_md_table(("what each promises", *_PROMISES), rows), ""]
    load = " to ".join(f"{value:.1f}" for value in result.load)
    lines.append(f"Measured {result.at:%Y-%m-%d %H:%M} UTC; load average {load}.")
    return lines


def _md_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


# JSON.


def dump(results: Iterable[Result], machine: Mapping[str, str]) -> str:
    """Return everything as JSON: what :func:`load` reads, with medians and ratios for whoever does not."""
    return json.dumps({"machine": dict(machine), "figures": [_as_json(result) for result in results]}, indent=1)


def _as_json(result: Result) -> dict[str, Any]:
    plain: dict[str, Any] = attrs.asdict(result, value_serializer=_plain_value)
    for comparison, shape in zip(result.comparisons, plain["comparisons"], strict=True):
        shape["met"] = comparison.met
        for entry, each in zip(comparison.entries, shape["entries"], strict=True):
            each |= {"median": entry.median, "ratio": comparison.ratio(entry)}
    return plain


def _plain_value(_: object, __: object, value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Role) else value


def load(path: Path) -> tuple[list[Result], dict[str, str]]:
    """
    Return the results in *path*, and the machine they are from.

    Raises:
        ValueError: It is not what :func:`dump` writes.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return [_result(each) for each in data["figures"]], data["machine"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} was not written by --json of this version ({error!r}); measure anew") from error


def _result(data: Mapping[str, Any]) -> Result:
    return Result(
        name=data["name"],
        title=data["title"],
        comparisons=tuple(_comparison(each) for each in data["comparisons"]),
        at=datetime.fromisoformat(data["at"]),
        load=tuple(data["load"]),
        quick=data["quick"],
        note=data["note"],
    )


def _comparison(data: Mapping[str, Any]) -> Comparison:
    return Comparison(
        what=data["what"],
        unit=data["unit"],
        entries=tuple(_entry(each) for each in data["entries"]),
        against=data["against"],
        target=data["target"] and Target(**data["target"]),
    )


def _entry(data: Mapping[str, Any]) -> Entry:
    return Entry(
        name=data["name"],
        role=Role(data["role"]),
        samples=tuple(data["samples"]),
        promise=data["promise"] and Promise(**data["promise"]),
        missing=data["missing"],
    )
