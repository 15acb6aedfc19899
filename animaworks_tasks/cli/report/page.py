"""
The page of a report: one HTML document that needs nothing but itself.

No script, nothing from elsewhere: the policy in its head forbids both, and allows the one style sheet by its hash.
"""

import base64
import hashlib
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import resources
from itertools import zip_longest
from typing import Final

from animaworks_tasks.cli.report.html import Content, Markup, tag
from animaworks_tasks.cli.report.timeline import counts, grouped, shown_status, swatch, timeline
from animaworks_tasks.cli.text import TaskView, duration, moment
from animaworks_tasks.notifications.render import CALL, ENGLISH, one_line
from animaworks_tasks.task.model import Cause, Outcome

_STRIPES: Final = Markup(  # what distinguishes a failure from a success without colour; the other rows refer to it
    '<svg class="stripes" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="failed" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="ground" width="5" height="5"/><rect class="stripe" width="1.6" height="5"/></pattern>'
    '<pattern id="overdue" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect class="ground" width="5" height="5"/><rect class="stripe" width="1.6" height="5"/></pattern>'
    "</defs></svg>"
)


def page(anima: str, made_at: datetime, views: Sequence[TaskView], remarks: Sequence[str]) -> bytes:
    """
    Return the page, in UTF-8.

    Args:
        anima: The Anima's directory.
        made_at: When the store was looked at.
        views: The tasks, as ``list`` has them: what runs, what waits, and what is done, the last first.
        remarks: What was left out, and how it is had, a sentence each.
    """
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    name = anima.rstrip("/").rpartition("/")[2]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"Tasks of {name}"),
        tag("style", Markup(style)),
    )
    made = made_at.astimezone()
    at = tag("time", f"{moment(made)} (UTC{made:%z})", datetime=made.isoformat(timespec="seconds"))
    subject = tag("p", "As of ", at, ", in ", tag("code", anima))
    notes = [tag("p", remark, class_="remark") for remark in remarks]
    header = tag("header", tag("h1", f"Tasks of {name}"), subject, notes)
    body = tag("body", _STRIPES, tag("main", header, *_sections(views)))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n".encode()


def _sections(views: Sequence[TaskView]) -> Iterator[Markup]:
    yield tag("ul", *_counts(views), class_="counts", aria_label="How many tasks there are")
    if not views:
        command = tag("code", "animaworks-tool submit TOOL ...")
        yield tag("p", "There are no tasks here. ", command, " queues one.", class_="empty")
        return
    yield _section("timeline", "Timeline", timeline(views))
    yield _section("durations", "Durations against expectation", _durations(views))
    yield _section("failures", "Failures by cause", _failures(views))
    yield _section("tasks", "Tasks", _tasks(views))


def _section(name: str, heading: str, content: Markup) -> Markup:
    return tag("section", tag("h2", heading, id=f"{name}-heading"), content, id=name)


def _counts(views: Sequence[TaskView]) -> Iterator[Markup]:
    """Yield how many tasks there are of each status, with the mark that stands for it on the page."""
    words = {"overdue": "of them overdue", "pending": "waiting to start"}
    for status, number in counts(views).items():
        yield tag("li", swatch(status), tag("b", str(number), id=f"count-{status}"), " ", words.get(status, status))
    yield tag("li", tag("b", str(len(views)), id="count-all"), " in all")


def _table(
    name: str, columns: Mapping[str, str | None], rows: Iterable[Sequence[Content]], ids: Iterable[str] = ()
) -> Markup:
    """
    Return a table in a box of its own that scrolls where the page is too narrow, also by keyboard.

    Args:
        name: Of its section.
        columns: Their headings, with the class of what stands below.
        rows: What stands in each.
        ids: Theirs, where they have any.
    """
    kinds = list(columns.values())[1:]
    body = [
        tag("tr", tag("th", head, scope="row"), map(_cell, cells, kinds), id=row_id)
        for (head, *cells), row_id in zip_longest(rows, ids)
    ]
    headings = tag("thead", tag("tr", [tag("th", heading, scope="col") for heading in columns]))
    table = tag("table", headings, tag("tbody", body))
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_labelledby=f"{name}-heading")


def _cell(content: Content, kind: str | None) -> Markup:
    return tag("td", content, class_=kind)


def _durations(views: Sequence[TaskView]) -> Markup:
    """Return how long the completed runs of each tool took; a failure took as long as it did."""
    runs = [view for view in views if view.task.outcome is Outcome.COMPLETED and view.task.duration is not None]
    if not runs:
        return tag("p", "No task has completed.", class_="empty")
    numbers = ("Completed", "Median", "9 of 10 within", "Longest", "Expected", "Took longer")
    columns = {"Tool": None, **dict.fromkeys(numbers, "num")}
    rows = (_durations_row(tool, those) for tool, those in sorted(grouped(runs, lambda run: run.task.name).items()))
    return tag("div", tag("p", "Only of what completed."), _table("durations", columns, rows))


def _durations_row(tool: str, runs: Sequence[TaskView]) -> Sequence[Content]:
    seconds = sorted(run.seconds for run in runs)
    number = len(seconds)
    times = map(duration, (statistics.median(seconds), seconds[-(-number * 9 // 10) - 1], seconds[-1]))
    expected = Counter(run.expected for run in runs).most_common(1)[0][0]  # of most of them
    over = sum(run.expected is not None and run.seconds > run.expected for run in runs)
    late = tag("span", f"{over} of {number}", class_="late" if over else None)
    promise = ("-", "-") if expected is None else (duration(expected), late)
    return one_line(tool, 60), str(number), *times, *promise


def _failures(views: Sequence[TaskView]) -> Markup:
    """Return the failures by cause, the most frequent first."""
    failures = [(cause, those) for cause, those in grouped(views, lambda view: view.task.cause).items() if cause]
    if not failures:
        return tag("p", "No task has failed.", class_="empty")
    most = max(len(those) for _, those in failures)
    columns = {"Cause": None, "Failures": None, "Tools": "text", "The last one said": "text", "What to do": "text"}
    ordered = sorted(failures, key=lambda failure: -len(failure[1]))
    return _table("failures", columns, (_failures_row(cause, those, most) for cause, those in ordered))


def _failures_row(cause: Cause, those: Sequence[TaskView], most: int) -> Sequence[Content]:
    width = round(len(those) / most * 100, 1)
    bar = tag("rect", x=0, y=2, width=width, height=12, rx=2, class_="bar failed")
    count = (tag("b", str(len(those))), " ", tag("svg", bar, width=102, height=16, aria_hidden="true"))
    tools = Counter(each.task.name for each in those).most_common()
    named = ", ".join(f"{one_line(tool, 60)} ({number})" for tool, number in tools)
    return cause.value, count, one_line(named, 300), one_line(those[0].task.error or "", 200), ENGLISH.advice[cause]


def _tasks(views: Sequence[TaskView]) -> Markup:
    headings = ("Task", "Tool", "Arguments", "State", "Submitted", "Waited", "Ran", "Expected", "Note")
    columns = dict(zip(headings, (None, None, "text", "state", "when", "num", "num", "num", "text"), strict=True))
    return _table("tasks", columns, map(_task_row, views), (f"task-{each.task.id}" for each in views))


def _task_row(view: TaskView) -> Sequence[Content]:
    task = view.task
    status = shown_status(view)
    began = task.started_at or task.finished_at or view.now
    ran = "-" if task.started_at is None or view.is_unknown else duration(view.seconds)
    expected = "-" if view.expected is None else duration(view.expected)
    waited = duration((began - task.submitted_at).total_seconds())
    what = tag("code", task.id), one_line(task.name, 60), view.arguments(CALL), (swatch(status), " ", status)
    return *what, moment(task.submitted_at), waited, ran, expected, view.note()
