"""
The timeline of a report: per tool a row, per task a bar from its start to its end.

Horizontal places are percents, so that a row is as wide as the page and its text is never scaled.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final, TypeVar

from animaworks_tasks.cli.report.html import Markup, tag
from animaworks_tasks.cli.text import TaskView, duration, moment
from animaworks_tasks.notifications.render import one_line, several
from animaworks_tasks.task.model import State

K = TypeVar("K")

STATUSES: Final = ("running", "overdue", "pending", "completed", "failed", "cancelled")
_LANES: Final = 6  # bars above each other in one row
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


class Span:
    """
    From when to when the timeline of *views*, of which there is one at least, goes.

    Attributes:
        first: When the first bar begins.
        last: When the last bar ends.
        begin: Its left end, a little before *first*.
        end: Its right end, a little after *last*.
    """

    def __init__(self, views: Sequence[TaskView]) -> None:
        ends = [stretch(view) for view in views]
        self.first, self.last = min(begin for begin, _ in ends), max(end for _, end in ends)
        margin = max((self.last - self.first) * _MARGIN, timedelta(seconds=0.5))
        self.begin, self.end = self.first - margin, self.last + margin

    def place(self, at: datetime) -> float:
        """Return where *at* is, in percent."""
        return (at - self.begin) / (self.end - self.begin) * 100

    def x(self, at: datetime) -> str:
        """Return where *at* is, for an attribute."""
        return f"{self.place(at):.2f}%"

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


def grouped(views: Iterable[TaskView], key: Callable[[TaskView], K]) -> dict[K, list[TaskView]]:
    """Return the views that have the same *key*, by it."""
    groups: defaultdict[K, list[TaskView]] = defaultdict(list)
    for view in views:
        groups[key(view)].append(view)
    return groups


def counts(views: Sequence[TaskView]) -> dict[str, int]:
    """Return how many tasks there are of each status; those that are overdue run."""
    found = Counter([*(view.status for view in views), *("overdue" for view in views if view.overdue)])
    return {status: found[status] for status in STATUSES}


def bars(views: Sequence[TaskView], span: Span) -> list[tuple[TaskView, float, float, int]]:
    """
    Return each task of one row, where its bar begins and ends, in percent, and its lane.

    Where there are too many at once, the last lane has all of them.
    """
    free = [0.0] * _LANES  # from which percent on each lane is free
    placed = []
    for view in sorted(views, key=stretch):
        begin, end = map(span.place, stretch(view))
        end = max(end, begin + _THINNEST)
        lane = next((lane for lane in range(_LANES) if free[lane] <= begin), _LANES - 1)
        free[lane] = max(free[lane], end + _GAP)
        placed.append((view, begin, end, lane))
    return placed


def timeline(views: Sequence[TaskView]) -> Markup:
    """Return the rows, in the order in which they begin, and the axis."""
    span = Span(views)
    rows = sorted(grouped(views, lambda view: view.task.name).items(), key=lambda row: min(map(stretch, row[1])))
    ticks = list(span.ticks())
    drawn = [_row(name, row, span, ticks) for name, row in rows]
    caption = (
        f"From {moment(span.first)} to {moment(span.last)}. A bar is the last attempt of a task; failures are taller; "
        "what never started is a mark at its end."
    )
    body = tag("div", _axis(span, ticks), drawn, class_="timeline")
    return tag("figure", body, tag("figcaption", caption))


def swatch(status: str) -> Markup:
    """Return the mark that stands for *status*."""
    mark = tag("rect", class_=f"bar {status}", x=1, y=1, width=12, height=10, rx=2)
    return tag("svg", mark, class_="swatch", width=14, height=12, aria_hidden="true")


def shown_status(view: TaskView) -> str:
    """Return the status, or that it is overdue."""
    return "overdue" if view.overdue else view.status


def _axis(span: Span, ticks: Sequence[datetime]) -> Markup:
    length = span.end - span.begin
    time = "%H:%M:%S" if length < _SECONDS_BELOW else "%H:%M"
    day = "%d %b %Y" if length > _YEARS_FROM else "%d %b"
    are_days = len(ticks) > 1 and ticks[1] - ticks[0] >= timedelta(hours=23)  # a day in spring has no more
    times = [tag("text", f"{at:{time}}", x=span.x(at), y=14, class_="time") for at in ticks if not are_days]
    firsts = [next(same_day) for _, same_day in groupby(ticks, key=datetime.date)]
    days = [tag("text", f"{at:{day}}", x=span.x(at), y=29, class_="day") for at in firsts]
    axis = tag("svg", times, days, width="100%", height=34, aria_hidden="true")
    return tag("div", tag("div", class_="label"), axis, class_="row axis")


def _row(name: str, views: Sequence[TaskView], span: Span, ticks: Sequence[datetime]) -> Markup:
    placed = bars(views, span)
    states = ", ".join(f"{count} {status}" for status, count in counts(views).items() if count)
    height = (max(lane for *_, lane in placed) + 1) * _LANE + 8
    grid = [tag("line", x1=span.x(at), x2=span.x(at), y1=0, y2=height, class_="grid") for at in ticks]
    number = tag("small", several(len(views), "task", "tasks"))
    label = tag("div", tag("span", one_line(name, 60), class_="name"), " ", number, class_="label")
    marks = [_mark(*bar) for bar in placed]
    drawn = tag("svg", grid, marks, width="100%", height=height, role="img", aria_label=f"{name}: {states}")
    return tag("div", label, drawn, class_="row")


def _mark(view: TaskView, begin: float, end: float, lane: int) -> Markup:
    status = shown_status(view)
    took = "" if view.task.state is State.DONE and view.task.duration is None else duration(view.seconds)
    facts = (f"{view.task.id} {status}", view.arguments(), took, f"from {moment(stretch(view)[0])}")
    title = ", ".join(filter(None, facts))
    inset = 0 if status == "failed" else 2  # taller: even the thinnest is distinct without colour
    return tag(
        "rect", tag("title", title), x=f"{begin:.2f}%", width=f"{end - begin:.2f}%",
        y=4 + lane * _LANE + inset, height=_LANE - 2 * inset, rx=2, class_=f"bar {status}",
    )  # fmt: skip
