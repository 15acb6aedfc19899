"""A plot per figure, as SVG: the same numbers make the same file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks._measure import Comparison, Result, Role
from benchmarks._report import shown, target_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = {Role.OURS: "#2a6f97", Role.FLOOR: "#adb5bd", Role.PEER: "#e9c46a"}
_LOGARITHMIC: Final = 20  # how many times the smallest bar the largest must be


def draw(results: Sequence[Result], directory: Path) -> Mapping[str, Path]:
    """
    Draw each figure that has numbers into *directory*, and return the files by the names of the figures.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and ids do not change from run to run.
    mpl.rcParams.update({"svg.hashsalt": "animaworks_tasks", "svg.fonttype": "none", "font.size": 9})
    directory.mkdir(parents=True, exist_ok=True)
    return {
        result.name: _draw(drawn, directory / f"{result.name}.svg")
        for result in results
        if (drawn := [each for each in result.comparisons if each.ours.samples])
    }


def _draw(comparisons: Sequence[Comparison], path: Path) -> Path:
    from matplotlib import pyplot as plt

    bars = [sum(1 for entry in each.entries if entry.samples) for each in comparisons]
    figure, axes = plt.subplots(
        len(comparisons),
        squeeze=False,
        figsize=(8, sum(bars) * 0.3 + len(bars) * 0.75),
        height_ratios=[count + 0.5 for count in bars],
        layout="constrained",
    )
    for comparison, ax in zip(comparisons, axes[:, 0], strict=True):
        _bars(comparison, ax)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path


def _bars(comparison: Comparison, ax: Axes) -> None:
    entries = [entry for entry in comparison.entries if entry.samples]
    medians = [entry.median or 0.0 for entry in entries]
    spread = [
        [median - min(entry.samples) for median, entry in zip(medians, entries, strict=True)],
        [max(entry.samples) - median for median, entry in zip(medians, entries, strict=True)],
    ]
    ax.barh(range(len(entries)), medians, xerr=spread, color=[_COLOURS[entry.role] for entry in entries], ecolor="#555")
    ax.set_yticks(range(len(entries)), [entry.name for entry in entries])
    ax.invert_yaxis()
    if min(medians) > 0 and max(medians) > _LOGARITHMIC * min(medians):
        ax.set_xscale("log")
    bound = _bound(comparison)
    if bound is not None:
        ax.axvline(bound, color="#c1121f", linewidth=1, linestyle="--")
    for place, (entry, median) in enumerate(zip(entries, medians, strict=True)):
        ax.annotate(
            shown(median, comparison.unit), (max(entry.samples), place), (4, 0), textcoords="offset points", va="center"
        )
    ax.set_title(f"{comparison.what}\ntarget: {target_text(comparison)}".strip(), fontsize=9, loc="left")
    ax.margins(x=0.2)
    ax.spines[["top", "right"]].set_visible(False)


def _bound(comparison: Comparison) -> float | None:
    """Return where the target lies on the axis."""
    target, base = comparison.target, comparison.base
    if target is None:
        return None
    if target.of == "value":
        return target.bound
    if base is None:
        return None
    return base * target.bound if target.of == "ratio" else base + target.bound
