"""
The page of a report: one HTML document that needs nothing but itself.

No script, nothing from elsewhere: the policy in its head forbids both, and allows the one style sheet by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Final

from animaworks_tasks.cli.report.data import STATUSES, Durations, Failures, Report, counts, durations, failures
from animaworks_tasks.cli.report.html import Markup, tag
from animaworks_tasks.cli.report.timeline import shown_status, swatch, timeline
from animaworks_tasks.cli.text import Standing, duration, moment
from animaworks_tasks.notifications.render import ENGLISH, one_line

_STRIP: Final = 160  # pixels, how wide the runs of a tool are drawn
_ROOM: Final = 1.05  # of the longest run, how long the drawing goes
_STRIPES: Final = Markup(  # what tells a failure from a success without colour; the other rows refer to it
    '<svg class="stripes" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="failed" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="ground" width="5" height="5"/><rect class="stripe" width="1.6" height="5"/></pattern>'
    '<pattern id="overdue" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect class="ground" width="5" height="5"/><rect class="stripe" width="1.6" height="5"/></pattern>'
    "</defs></svg>"
)


def page(report: Report) -> bytes:
    """Return the page, in UTF-8."""
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    name = report.anima.rstrip("/").rpartition("/")[2]
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
    body = tag("body", _STRIPES, tag("main", *_sections(report, name)))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n".encode()


def _sections(report: Report, name: str) -> Iterator[Markup]:
    made = report.made_at.astimezone()
    at = tag("time", f"{moment(made)} (UTC{made:%z})", datetime=made.isoformat(timespec="seconds"))
    subject = tag("p", "As of ", at, ", in ", tag("code", report.anima))
    remarks = [tag("p", remark, class_="remark") for remark in report.remarks]
    yield tag("header", tag("h1", f"Tasks of {name}"), subject, remarks)
    yield tag("ul", *_counts(report.standings), class_="counts", aria_label="How many tasks there are")
    if not report.standings:
        command = tag("code", "animaworks-tool submit TOOL ...")
        yield tag("p", "There are no tasks here. ", command, " queues one.", class_="empty")
        return
    yield _section("timeline", "Timeline", timeline(report))
    yield _section("durations", "Durations against expectation", _durations(durations(report.standings)))
    yield _section("failures", "Failures by cause", _failures(failures(report.standings)))
    yield _section("tasks", "Tasks", _tasks(report.standings))


def _section(name: str, heading: str, content: Markup) -> Markup:
    return tag("section", tag("h2", heading, id=f"{name}-heading"), content, id=name)


def _counts(standings: Sequence[Standing]) -> Iterator[Markup]:
    found = counts(standings)
    for status in STATUSES:
        number = tag("b", str(found[status]), id=f"count-{status}")
        late = [", ", tag("b", str(found["overdue"]), id="count-overdue"), " overdue"] if status == "running" else []
        yield tag("li", swatch(status), number, " ", status, late)
    yield tag("li", tag("b", str(len(standings)), id="count-all"), " in all")


def _table(name: str, headings: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """Return a table in a box of its own that scrolls where the page is too narrow, also by keyboard."""
    head = tag("thead", tag("tr", [tag("th", heading, scope="col") for heading in headings]))
    return tag(
        "div", tag("table", head, tag("tbody", rows)),
        class_="scroll", tabindex=0, role="region", aria_labelledby=f"{name}-heading",
    )  # fmt: skip


def _durations(found: Sequence[Durations]) -> Markup:
    if not found:
        return tag("p", "No task has completed.", class_="empty")
    headings = ("Tool", "Completed", "Median", "9 of 10 within", "Longest", "Expected", "Took longer", "Runs")
    note = (
        "Only of what completed. Each row is drawn from 0 to its longest time: "
        "a stroke is a run, the tall one the median, the dashed line the expectation."
    )
    return tag("div", tag("p", note), _table("durations", headings, [_durations_row(each) for each in found]))


def _durations_row(those: Durations) -> Markup:
    number = len(those.seconds)
    late = f"{those.over} of {number}" if those.expected is not None else "-"
    times = [those.median, those.most, those.seconds[-1]]
    return tag(
        "tr",
        tag("th", one_line(those.tool, 60), scope="row"),
        tag("td", str(number), class_="num"),
        [tag("td", duration(seconds), class_="num") for seconds in times],
        tag("td", "-" if those.expected is None else duration(those.expected), class_="num"),
        tag("td", late, class_="num late" if those.over else "num"),
        tag("td", _strip(those)),
    )


def _strip(those: Durations) -> Markup:
    longest = max(those.seconds[-1], those.expected or 0.0) * _ROOM or 1.0

    def stroke(seconds: float, kind: str, top: int, bottom: int) -> Markup:
        x = f"{seconds / longest * _STRIP:.1f}"
        return tag("line", x1=x, x2=x, y1=top, y2=bottom, class_=kind)

    runs = dict.fromkeys(stroke(seconds, "run", 6, 16) for seconds in those.seconds)  # those in one place once
    base = tag("line", x1=0, x2=_STRIP, y1=16, y2=16, class_="grid")
    expected = [] if those.expected is None else [stroke(those.expected, "expected", 0, 22)]
    content = (base, runs, stroke(those.median, "median", 2, 20), expected)
    return tag("svg", *content, width=_STRIP, height=22, class_="strip", aria_hidden="true")


def _failures(found: Sequence[Failures]) -> Markup:
    if not found:
        return tag("p", "No task has failed.", class_="empty")
    most = max(each.count for each in found)
    headings = ("Cause", "Failures", "Tools", "The last one said", "What to do")
    return _table("failures", headings, [_failures_row(each, most) for each in found])


def _failures_row(those: Failures, most: int) -> Markup:
    bar = tag("rect", x=0, y=2, width=round(those.count / most * 100, 1), height=12, rx=2, class_="bar failed")
    tools = ", ".join(f"{one_line(tool, 60)} ({count})" for tool, count in those.tools.items())
    return tag(
        "tr",
        tag("th", those.cause.value, scope="row"),
        tag("td", tag("b", str(those.count)), " ", tag("svg", bar, width=102, height=16, aria_hidden="true")),
        tag("td", one_line(tools, 300), class_="text"),
        tag("td", one_line(those.error, 200), class_="text"),
        tag("td", ENGLISH.advice[those.cause], class_="text"),
    )


def _tasks(standings: Sequence[Standing]) -> Markup:
    headings = ("Task", "Tool", "State", "Submitted", "Waited", "Ran", "Expected", "Note")
    return _table("tasks", headings, [_task_row(standing) for standing in standings])


def _task_row(standing: Standing) -> Markup:
    task = standing.task
    status = shown_status(standing)
    began = task.started_at or task.finished_at or standing.now
    ran = "-" if task.started_at is None or standing.is_unknown else duration(standing.seconds)
    return tag(
        "tr",
        tag("th", tag("code", task.id), scope="row"),
        tag("td", one_line(task.name, 60)),
        tag("td", swatch(status), " ", status, class_="state"),
        tag("td", moment(task.submitted_at), class_="when"),
        tag("td", duration((began - task.submitted_at).total_seconds()), class_="num"),
        tag("td", ran, class_="num"),
        tag("td", "-" if standing.expected is None else duration(standing.expected), class_="num"),
        tag("td", standing.note().removeprefix("overdue; ").removeprefix("overdue"), class_="text"),
        id=f"task-{task.id}",
    )
