"""
The timeline of a report: per tool a row, per task a bar from its start to its end.

Horizontal places are percents, so that a row is as wide as the page and its text is never scaled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs

from animaworks_tasks.cli.report.data import Report, counts
from animaworks_tasks.cli.report.html import Markup, tag
from animaworks_tasks.cli.text import TaskView, duration, moment
from animaworks_tasks.notifications.render import one_line
from animaworks_tasks.task.model import State

_LANES: Final = 6  # bars above each other in one row; the style sheet has a height for each number
_ROWS: Final = 40  # tools
_LANE: Final = 16  # pixels
_GAP: Final = 0.2  # percent between two bars in one lane
_THINNEST: Final = 0.2  # percent; what takes less is drawn as wide
_MARGIN: Final = 0.02  # of the span, free at both ends
_TICKS: Final = 6  # at most; their labels fit a telephone
_SECONDS_BELOW: Final = timedelta(minutes=4)  # spans whose times are shown to the second
_YEARS_FROM: Final = timedelta(days=300)
_STEPS: Final = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
    3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000, 7776000, 31536000,
)  # fmt: skip # seconds


@attrs.frozen
class Bar:
    """
    What is drawn of a task.

    Attributes:
        view: The task.
        begin: Where its bar begins, in percent.
        end: Where it ends.
        lane: How many bars are above it.
    """

    view: TaskView
    begin: float
    end: float
    lane: int


@attrs.frozen
class Span:
    """
    From when to when the timeline goes.

    Attributes:
        begin: Its left end, a little before *first*.
        end: Its right end, a little after *last*.
        first: When the first bar begins.
        last: When the last bar ends.
    """

    begin: datetime
    end: datetime
    first: datetime
    last: datetime

    @classmethod
    def of(cls, report: Report) -> Span:
        """Return the span of all tasks of *report*, of which there is one at least, with a margin."""
        ends = [stretch(view) for view in report.views]
        first, last = min(begin for begin, _ in ends), max(end for _, end in ends)
        margin = max((last - first) * _MARGIN, timedelta(seconds=0.5))
        return cls(first - margin, last + margin, first, last)

    def place(self, at: datetime) -> float:
        """Return where *at* is, in percent."""
        return (at - self.begin) / (self.end - self.begin) * 100

    def ticks(self) -> Iterator[datetime]:
        """Yield round times, in local time."""
        seconds = (self.end - self.begin).total_seconds()
        step = next((step for step in _STEPS if seconds / step <= _TICKS), seconds / _TICKS)
        begin = self.begin.astimezone().replace(tzinfo=None)
        midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
        number = int((begin - midnight).total_seconds() // step) + 1
        while (at := (midnight + timedelta(seconds=number * step)).astimezone()) < self.end:
            yield at
            number += 1


def stretch(view: TaskView) -> tuple[datetime, datetime]:
    """Return the start and end of the run of *view*'s task, or of its wait; twice the end if it never started."""
    task = view.task
    if task.state is State.DONE:
        end = task.finished_at or task.submitted_at
        return min(task.started_at or end, end), end
    begin = (task.started_at if task.state is State.RUNNING else None) or task.submitted_at
    return begin, max(begin, view.now)


def bars(views: Sequence[TaskView], span: Span) -> list[Bar]:
    """Put the bars of one row into lanes; where there are too many at once, the last lane has all of them."""
    free = [0.0] * _LANES  # from which percent on each lane is free
    found = []
    for view in sorted(views, key=stretch):
        begin, end = map(span.place, stretch(view))
        end = max(end, begin + _THINNEST)
        lane = next((lane for lane in range(_LANES) if free[lane] <= begin), _LANES - 1)
        free[lane] = max(free[lane], end + _GAP)
        found.append(Bar(view, begin, end, lane))
    return found


def timeline(report: Report) -> Markup:
    """Return the rows, the axis, and what the marks mean."""
    span = Span.of(report)
    rows: defaultdict[str, list[TaskView]] = defaultdict(list)
    for view in report.views:
        rows[view.task.name].append(view)
    ordered = sorted(rows.items(), key=lambda row: (-len(row[1]), row[0]))
    shown = sorted(ordered[:_ROWS], key=lambda row: min(map(stretch, row[1])))
    ticks = list(span.ticks())
    hidden = ordered[_ROWS:]
    more = f"{len(hidden)} more tools, with {sum(len(row) for _, row in hidden)} tasks, are in the table of tasks only."
    drawn = [_row(name, row, span, ticks) for name, row in shown]
    caption = (
        f"From {moment(span.first)} to {moment(span.last)}. A bar is the last attempt of a task; failures are taller; "
        f"what never started is a mark at its end. {more if hidden else ''}"
    )
    content = (_legend(), tag("div", _axis(span, ticks), drawn, class_="timeline"), tag("figcaption", caption))
    return tag("figure", *content)


def swatch(status: str) -> Markup:
    """Return the mark that stands for *status*."""
    mark = tag("rect", class_=f"bar {status}", x=1, y=1, width=12, height=10, rx=2)
    return tag("svg", mark, class_="swatch", width=14, height=12, aria_hidden="true")


def shown_status(view: TaskView) -> str:
    """Return the status, or that it is overdue."""
    return "overdue" if view.overdue else view.status


def _legend() -> Markup:
    words = {"overdue": "running, overdue", "pending": "waiting to start"}
    marks = ("completed", "failed", "cancelled", "running", "overdue", "pending")
    return tag("ul", [tag("li", swatch(mark), " ", words.get(mark, mark)) for mark in marks], class_="legend")


def _axis(span: Span, ticks: Sequence[datetime]) -> Markup:
    length = span.end - span.begin
    time = "%H:%M:%S" if length < _SECONDS_BELOW else "%H:%M"
    day = "%d %b %Y" if length > _YEARS_FROM else "%d %b"
    are_days = len(ticks) > 1 and ticks[1] - ticks[0] >= timedelta(hours=23)  # a day in spring has no more
    labels = []
    before = None
    for at in ticks:
        x = f"{span.place(at):.2f}%"
        if not are_days:
            labels.append(tag("text", f"{at:{time}}", x=x, y=14, class_="time"))
        if at.date() != before:
            labels.append(tag("text", f"{at:{day}}", x=x, y=29, class_="day"))
            before = at.date()
    axis = tag("svg", labels, width="100%", height=34, aria_hidden="true")
    return tag("div", tag("div", class_="label"), axis, class_="row axis")


def _row(name: str, views: Sequence[TaskView], span: Span, ticks: Sequence[datetime]) -> Markup:
    placed = bars(views, span)
    lanes = max(bar.lane for bar in placed) + 1
    number = f"{len(views)} task{'s' if len(views) > 1 else ''}"
    states = ", ".join(f"{count} {status}" for status, count in counts(views).items() if count)
    height = lanes * _LANE + 8
    grid = [tag("line", x1=x, x2=x, y1=0, y2=height, class_="grid") for x in (f"{span.place(at):.2f}%" for at in ticks)]
    label = tag("div", tag("span", one_line(name, 60), class_="name"), " ", tag("small", number), class_="label")
    drawn = tag("svg", grid, marks(placed), width="100%", height=height, role="img", aria_label=f"{name}: {states}")
    return tag("div", label, drawn, class_="row")


def marks(placed: Sequence[Bar]) -> Iterator[Markup]:
    """Yield the bars. Those of one place and look are drawn once, with their number in the title."""
    same: defaultdict[tuple[int, str, str, str], list[TaskView]] = defaultdict(list)
    digits = 2 if len(placed) <= 500 else 1  # noqa: PLR2004 - enough to distinguish bars on any screen
    for bar in placed:
        place = (f"{bar.begin:.{digits}f}", f"{bar.end - bar.begin:.{digits}f}")
        same[(bar.lane, shown_status(bar.view), *place)].append(bar.view)
    for (lane, status, x, width), views in same.items():
        more = f", and {len(views) - 1} more like it" if len(views) > 1 else ""
        inset = 0 if status == "failed" else 2  # taller: even the thinnest is distinct without colour
        yield tag(
            "rect", tag("title", _title(views[0]) + more),
            x=f"{x}%", width=f"{width}%", y=4 + lane * _LANE + inset, height=_LANE - 2 * inset, rx=2,
            class_=f"bar {status}",
        )  # fmt: skip


def _title(view: TaskView) -> str:
    begin, _ = stretch(view)
    took = "" if view.task.state is State.DONE and view.task.duration is None else duration(view.seconds)
    return ", ".join(filter(None, [f"{view.task.id} {shown_status(view)}", took, f"from {moment(begin)}"]))
