"""``animaworks-tool report``: a page that says what ``list`` says, cannot be made to say else, and is whole."""

from __future__ import annotations

import errno
import html
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import attrs
import pytest

from animaworks_tasks import Cause, Outcome, Registry, State, Task, TaskStore
from animaworks_tasks.cli.report.html import Markup, join, tag, text
from animaworks_tasks.cli.report.page import page
from animaworks_tasks.cli.report.timeline import Span, bars, counts
from animaworks_tasks.cli.text import TaskView
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.states import Event
from tests.cli.conftest import Tool
from tests.conftest import ManualClock, begin, own
from tests.terminals import TOOL

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script><img src=x onerror=y>\"'&]]><!--\x1b[2J\u202e\x00"


@pytest.fixture(autouse=True)
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the clock on the wall show UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# What is on the page, and what is a word there.


@attrs.define
class Element:
    """An element as a browser would have it."""

    name: str
    attributes: dict[str, str | None]
    text: str = ""


class Document(HTMLParser):
    """
    Reads a page.

    Attributes:
        elements: All, in the order of their beginnings; their text has that of their children.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(page.decode("utf-8"))
        assert [] == self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))
        if tag != "meta":  # a browser writes it down without a slash
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.pop().name

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, name: str, class_: str | None = None) -> list[Element]:
        return [
            element
            for element in self.elements
            if name == element.name and (class_ is None or class_ in (element.attributes.get("class") or "").split())
        ]

    def by_id(self, name: str) -> Element:
        (found,) = (element for element in self.elements if element.attributes.get("id") == name)
        return found


def view(
    number: int = 1,
    *,
    tool: str = "image_gen",
    began: float = 600,
    took: float | None = 60,
    outcome: Outcome = Outcome.COMPLETED,
    cause: Cause = Cause.TOOL,
    expected: float | None = None,
    text: str = "a cat",
) -> TaskView:
    """Return a task that began so many seconds ago and took so long; None: it runs."""
    at = NOW - timedelta(seconds=began)
    task = Task(id=f"{number:012x}", tool=tool, subcommand="3d", submitted_at=at - timedelta(seconds=5), attempt=1,
                started_at=at, state=State.RUNNING)  # fmt: skip
    if took is not None:
        failed = outcome is Outcome.FAILED
        task = attrs.evolve(
            task, state=State.DONE, finished_at=at + timedelta(seconds=took), outcome=outcome,
            cause=cause if failed else None, error=text if failed else None, result=None if failed else text,
        )  # fmt: skip
    return TaskView(task=task, now=NOW, expected=expected, progress=None)


def waiting(number: int = 1, *, since: float = 30, tool: str = "web") -> TaskView:
    task = Task(id=f"{number:012x}", tool=tool, submitted_at=NOW - timedelta(seconds=since))
    return TaskView(task=task, now=NOW, expected=None, progress=None)


def never_started(number: int = 1) -> TaskView:
    at = NOW - timedelta(seconds=9)
    task = Task(id=f"{number:012x}", tool="web", submitted_at=at, state=State.DONE, finished_at=NOW,
                outcome=Outcome.CANCELLED)  # fmt: skip
    return TaskView(task=task, now=NOW, expected=None, progress=None)


def document(*views: TaskView, remarks: tuple[str, ...] = (), anima: str = "/animas/mei") -> Document:
    return Document(page(anima, NOW, views, remarks))


# Numbers.


def test_counts_are_by_status_and_overdue_is_one_more() -> None:
    found = counts([view(), view(took=None, expected=1), waiting(), view(outcome=Outcome.FAILED)])
    assert {"running": 1, "pending": 1, "completed": 1, "failed": 1, "cancelled": 0, "overdue": 1} == found


def rows(found: Document, section: str) -> list[list[str]]:
    """Return the cells of the table of a *section*, row by row."""
    cells: list[list[str]] = []
    inside = False
    for element in found.elements:
        inside = element.attributes["id"] == section if element.name == "section" else inside
        if inside and element.name == "tr":
            cells.append([])
        elif inside and element.name in {"th", "td"}:
            cells[-1].append(element.text)
    return cells[1:]


def test_durations_are_of_what_completed_by_tool() -> None:
    runs = [view(took=seconds, expected=30) for seconds in (10, 50, 20, 40, 30)]
    others = [view(tool="web", took=3), view(took=99, outcome=Outcome.FAILED), view(took=None), waiting()]
    first, second = rows(document(*runs, *others), "durations")
    assert ["image_gen:3d", "5", "30 s", "50 s", "50 s", "30 s", "2 of 5"] == first
    assert ["web:3d", "1", "3 s", "3 s", "3 s", "-", "-"] == second
    ((_, _, _, most, *_),) = rows(document(*(view(took=seconds) for seconds in range(1, 101))), "durations")
    assert "1 min 30 s" == most


def test_failures_are_by_cause_the_most_frequent_first_with_what_the_last_one_said() -> None:
    def failed(cause: Cause, text: str, tool: str = "web") -> TaskView:
        return view(outcome=Outcome.FAILED, cause=cause, text=text, tool=tool)

    found = document(
        failed(Cause.TIMEOUT, "late"), failed(Cause.TOOL, "last"), failed(Cause.TOOL, "first", "x"), view()
    )
    first, second = rows(found, "failures")
    assert ["tool", "2 ", "web:3d (1), x:3d (1)", "last"] == first[:4]
    assert ["timeout", "1 ", "web:3d (1)", "late"] == second[:4]


# The timeline.


def placed(*views: TaskView) -> list[tuple[int, float, float]]:
    return [(lane, round(begin), round(end)) for _, begin, end, lane in bars(views, Span(views))]


def test_bars_that_would_lie_on_each_other_are_put_in_lanes() -> None:
    one_after_the_other = placed(view(began=100, took=40), view(began=50, took=50))
    assert [(0, 2, 40), (0, 50, 98)] == one_after_the_other
    at_once = placed(*(view(number, began=100 - number, took=50) for number in range(9)))
    assert [0, 1, 2, 3, 4, 5, 5, 5, 5] == [lane for lane, _, _ in at_once]


def test_every_bar_can_be_seen_and_what_goes_on_goes_on_until_now() -> None:
    ((_, begin, end, _),) = bars([view(began=900_000, took=0)], Span([view(began=900_000)]))
    assert end - begin >= 0.199
    assert [(0, 2, 98)] == placed(view(began=100, took=None)) == placed(waiting(since=100))
    assert [(0, 50, 50)] == placed(never_started())


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (0, ["12:00:00"]),
        (20, ["11:59:40", "11:59:45", "11:59:50", "11:59:55", "12:00:00"]),
        (7200, ["10:00", "10:30", "11:00", "11:30", "12:00"]),
        (86400, ["12:00", "18:00", "00:00", "06:00", "12:00"]),
        (3 * 86400, []),
    ],
)
def test_the_axis_has_round_times_and_few(seconds: float, labels: list[str]) -> None:
    found = document(view(began=seconds, took=seconds))
    assert labels == [element.text for element in found.all("text", "time")]


@pytest.mark.parametrize(
    ("days", "labels"),
    [
        (0.1, ["01 Mar"]),
        (3, ["27 Feb", "28 Feb", "01 Mar"]),
        (40, ["26 Jan", "02 Feb", "09 Feb", "16 Feb", "23 Feb", "02 Mar"]),
        (365, ["23 May 2025", "21 Aug 2025", "19 Nov 2025", "17 Feb 2026"]),
    ],
)
def test_the_axis_has_days_where_they_change(days: float, labels: list[str]) -> None:
    found = document(view(began=days * 86400, took=days * 86400))
    assert labels == [element.text for element in found.all("text", "day")]


def test_a_span_of_centuries_has_an_axis_too() -> None:
    assert 4 < len(document(view(began=900 * 365 * 86400, took=1), view(2)).all("text", "day")) < 8


def test_times_on_the_axis_are_those_of_the_clock_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    found = document(view(began=3 * 3600, took=3 * 3600))
    assert ["18:00", "19:00"] == [element.text for element in found.all("text", "time")][:2]
    assert "2026-03-01 21:00:00 (UTC+0900)" == found.all("time")[0].text


def test_a_bar_tells_what_it_is() -> None:
    found = document(*(view(number, began=100, took=50) for number in range(9)), view(100, took=None, expected=1))
    titles = [title.text for title in found.all("title")[1:]]
    assert "000000000000 completed, 50 s, from 2026-03-01 11:58:20" in titles
    assert 10 == len(titles)
    assert "000000000064 overdue, 10 min, from 2026-03-01 11:50:00" in titles
    assert "image_gen:3d: 1 running, 1 overdue, 9 completed" in [
        each.attributes.get("aria-label") for each in found.elements
    ]
    (mark,) = (title.text for title in document(never_started()).all("title")[1:])
    assert "000000000001 cancelled, from 2026-03-01 12:00:00" == mark


def test_a_failure_is_distinct_from_a_success_without_colour_however_thin_it_is() -> None:
    found = document(view(1, took=0), view(2, began=300, took=0, outcome=Outcome.FAILED))
    drawn = [bar.attributes for bar in found.all("rect", "bar") if "%" in (bar.attributes["x"] or "")]
    assert {"bar completed": "12", "bar failed": "16"} == {bar["class"]: bar["height"] for bar in drawn}
    assert "failures are taller" in found.all("figcaption")[0].text


# The page.


def test_a_page_says_what_the_tasks_are() -> None:
    found = document(
        view(1, took=60, expected=30), view(2, took=None, expected=1), waiting(3),
        view(4, outcome=Outcome.FAILED, cause=Cause.CREDENTIALS, text="no key"), never_started(5),
        remarks=("left out: one",),
    )  # fmt: skip
    expected = {"running": 1, "overdue": 1, "pending": 1, "completed": 1, "failed": 1, "cancelled": 1, "all": 5}
    assert expected == {name: int(found.by_id(f"count-{name}").text) for name in expected}
    assert "Tasks of mei" == found.all("h1")[0].text
    assert "left out: one" == found.all("p", "remark")[0].text
    rows = {row.attributes["id"]: row.text for row in found.all("tr") if "id" in row.attributes}
    assert "000000000001image_gen:3d completed2026-03-01 11:49:555 s1 min30 sa cat" == rows["task-000000000001"]
    assert "000000000002image_gen:3d overdue2026-03-01 11:49:555 s10 min1 s" == rows["task-000000000002"]
    assert "000000000003web pending2026-03-01 11:59:3030 s--" == rows["task-000000000003"]
    assert rows["task-000000000004"].endswith("credentials: no key")
    assert "000000000005web cancelled2026-03-01 11:59:519 s--" == rows["task-000000000005"]
    (late,) = found.all("span", "late")
    assert "1 of 1" == late.text
    assert any("only the operator can set what is missing." in cell.text for cell in found.all("td"))


def test_a_page_says_what_was_called() -> None:
    """In the table, and in the timeline where a bar is pointed at; as text, and bounded."""
    prompts = ("a red cat", "<b>a blue cat</b>", "a black cat" + " in the dark" * 300)
    found = document(*(attrs.evolve(view(n), argv=("3d", prompt)) for n, prompt in enumerate(prompts)))
    cells = [cell.text for cell in found.all("td", "text") if " cat" in cell.text and cell.text.startswith("'")]
    assert ["'a red cat'", "'<b>a blue cat</b>'"] == cells[:2]
    assert (3, 200) == (len(cells), len(cells[2]))
    titles = [title.text for title in found.all("title")]
    assert any("000000000000 completed, 'a red cat', 1 min" in title for title in titles)
    assert [] == found.all("b", "x") + [each for each in found.all("b") if "cat" in each.text]


def test_where_there_is_nothing_that_is_said() -> None:
    (empty,) = document().all("p", "empty")
    assert "There are no tasks here. animaworks-tool submit TOOL ... queues one." == empty.text
    assert ["No task has failed."] == [each.text for each in document(view()).all("p", "empty")]
    failed = view(outcome=Outcome.FAILED)
    assert ["No task has completed."] == [each.text for each in document(failed).all("p", "empty")]


def test_a_page_needs_nothing_but_itself_and_allows_nothing_else() -> None:
    data = page("/mei", NOW, [view()], [])
    found = Document(data)
    (policy,) = (each for each in found.all("meta") if "http-equiv" in each.attributes)
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; base-uri 'none'; form-action 'none'",
        policy.attributes["content"] or "",
    )
    names = {each.name for each in found.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "use", "image"}
    attributes = {name for each in found.elements for name in each.attributes}
    assert not {name for name in attributes if name.startswith("on")}
    assert not attributes & {"style", "src", "href", "srcset", "action"}
    assert b"//" not in data.replace(b"</", b"")
    assert data.startswith(b'<!DOCTYPE html>\n<html lang="en">')


def test_a_page_can_be_read_without_eyes_or_colours() -> None:
    found = document(view(1), view(2, outcome=Outcome.FAILED), waiting(3))
    for table in ("durations", "failures", "tasks"):
        assert found.by_id(f"{table}-heading").name == "h2"
    assert all("scope" in each.attributes and each.text for each in found.all("th"))
    assert all(
        each.attributes.get("aria-hidden") == "true" or each.attributes.get("aria-label") for each in found.all("svg")
    )
    assert all(each.attributes.get("tabindex") == "0" for each in found.all("div", "scroll"))
    states = [each.text.strip() for each in found.all("td", "state")]
    assert ["completed", "failed", "pending"] == states


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_marks_stand_out_from_what_is_behind_them(scheme: int) -> None:
    """As WCAG has it: 4.5 to 1 for text, 3 to 1 for marks; in the light as in the dark."""
    style = resources.files("animaworks_tasks.cli.report").joinpath("report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[scheme]))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        dark, light = sorted((luminance(colours[one]), luminance(colours[other])))
        return (light + 0.05) / (dark + 0.05)

    for text_colour in ("text", "muted", "overdue"):
        assert contrast(text_colour, "ground") >= 4.5
    for behind in ("ground", "panel"):
        assert contrast("text", behind) >= 4.5
        for mark in ("completed", "failed", "cancelled", "running", "overdue", "pending"):
            assert contrast(mark, behind) >= 3


def test_nothing_that_anybody_wrote_becomes_part_of_the_page() -> None:
    task = attrs.evolve(view().task, tool=HOSTILE, subcommand=HOSTILE, result=HOSTILE, anima_name=HOSTILE)
    failed = attrs.evolve(task, id="f" * 12, outcome=Outcome.FAILED, cause=Cause.TOOL, error=HOSTILE, result=None)
    views = [attrs.evolve(view(), task=each) for each in (task, failed)]
    data = page(f"/{HOSTILE}", NOW, views, [HOSTILE])
    found = Document(data)
    names = {each.name for each in found.elements}
    assert not names & {"script", "img"}
    assert not {name for each in found.elements for name in each.attributes if name.startswith("on")}
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]|\xe2\x80\xae", data)
    assert "<script>alert(1)</script>" in html.unescape(found.all("p", "remark")[0].text)


def test_only_markup_is_markup() -> None:
    assert "&lt;b&gt; &amp;" == text("<b> &")
    assert "<b>" == text(Markup("<b>"))
    assert ' a<i title="&quot;&lt;">&lt;</i> b ' == join([" a", tag("i", "<", title='"<', class_=None), [" b "]])
    assert '<line x1="1"/>' == tag("line", x1=1)


# The command.


def populated(store: TaskStore) -> None:
    registry = Registry()
    registry.add("image_gen", "3d", len, expected_seconds=600)
    store.publish_catalogue(registry.catalogue())
    for cause in (Cause.TOOL, Cause.TIMEOUT, Cause.TOOL):
        store.finish(begin(store), Event.FAIL, cause=cause, error=f"{cause.value}: <b>no</b> cat")
    for _ in range(3):
        store.finish(begin(store), Event.COMPLETE, result="a cat")
    store.request_cancel(store.submit("web", "fetch").id)
    own(store, store.submit("image_gen", "3d", expected_seconds=0).id)
    store.submit("web", "fetch")


def test_a_report_says_what_list_says_and_where_it_is(store: TaskStore, tool: Tool, tmp_path: Path) -> None:
    populated(store)
    said = tool("report", "--html", "report.html")
    target = tmp_path / "report.html"
    assert (0, f"{target}\n") == (said.status, said.out)
    assert "animaworks-tool: a report of 9 tasks is in this file; open it in a browser\n" == said.err
    assert 0o600 == target.stat().st_mode & 0o777
    assert ["mei", "report.html"] == sorted(os.listdir(tmp_path))

    listed, found = tool("list", "--all", "-j").data, Document(target.read_bytes())
    assert [f"task-{each['task_id']}" for each in listed] == [
        row.attributes["id"] for row in found.all("tr") if "id" in row.attributes
    ]
    for status in ("running", "pending"):
        assert sum(each["state"] == status for each in listed) == int(found.by_id(f"count-{status}").text)
    for outcome in ("completed", "failed", "cancelled"):
        assert sum(each["outcome"] == outcome for each in listed) == int(found.by_id(f"count-{outcome}").text)
    assert sum(each["overdue"] for each in listed) == int(found.by_id("count-overdue").text) == 1
    assert len(listed) == int(found.by_id("count-all").text)


def test_programs_read_where_the_page_is(store: TaskStore, tool: Tool, tmp_path: Path) -> None:
    populated(store)
    data = tool("report", "-j", "--html", "r.html", "--limit", "2").data
    assert {"file": str(tmp_path / "r.html"), "tasks": 4, "remarks": data["remarks"]} == data
    assert ["left out: 5 tasks done before the last 2; a larger --limit shows more"] == data["remarks"]


def test_a_report_goes_to_stdout_if_asked(store: TaskStore, tool: Tool) -> None:
    populated(store)
    said = tool("report", "--html", "-")
    assert (0, "") == (said.status, said.err)
    assert said.out.startswith("<!DOCTYPE html>")
    assert 2 == tool("report", "--html", "-", "-j").status


def test_what_is_left_out_is_said_on_the_page_too(store: TaskStore, tool: Tool, tmp_path: Path) -> None:
    clock = ManualClock()
    past = TaskStore(store.location, durability="process", clock=clock)
    for days in (40, 3, 2, 0):
        clock.now = utc_now() - timedelta(days=days, seconds=1)
        past.finish(begin(past), Event.COMPLETE)
    for _ in range(3):
        store.submit("web", "fetch")

    def remarks(*words: str) -> list[str]:
        said = tool("report", "--html", "r.html", *words)
        found = [line.removeprefix("animaworks-tool: ") for line in said.err.splitlines()[1:]]
        assert found == [each.text for each in Document((tmp_path / "r.html").read_bytes()).all("p", "remark")]
        return found

    assert [] == remarks()
    assert [] == remarks("--since", "100d")
    assert ["left out: 1 task done more than 4 d ago (--since)"] == remarks("--since", "4d")
    assert ["left out: 3 tasks done more than 1 d ago (--since)"] == remarks("--since", "24h", "--limit", "3")
    waiting = "left out: 1 task that wait; a larger --limit shows more"
    assert ["left out: 2 tasks done before the last 2; a larger --limit shows more", waiting] == remarks("--limit", "2")
    (Path(store.layout.done) / "0123456789ab.task").write_text("{")
    assert ["left out: 1 record that cannot be read; `animaworks-tool doctor` says why"] == remarks()


def test_a_page_replaces_the_one_before_as_a_whole(store: TaskStore, tool: Tool, tmp_path: Path) -> None:
    store.submit("web", "fetch")
    (tmp_path / "real.html").write_text("before")
    (tmp_path / "link.html").symlink_to("real.html")
    assert f"{tmp_path / 'real.html'}\n" == tool("report", "--html", "link.html").out
    assert (tmp_path / "link.html").is_symlink()
    assert "Tasks of mei" in (tmp_path / "real.html").read_text()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_page_that_was_there(
    store: TaskStore, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def write(fd: int, data: bytes) -> int:
        if len(data) > 1000:
            return written(fd, data[:1000])
        raise OSError(number, os.strerror(number))

    written = os.write
    store.submit("web", "fetch")
    (tmp_path / "r.html").write_text("before")
    monkeypatch.setattr(os, "write", write)
    said = tool("report", "--html", "r.html")
    monkeypatch.undo()
    assert (1, "") == (said.status, said.out)
    assert (
        f"the report was not written: {os.strerror(number)}: {tmp_path / 'r.html'}; see that the disk has room"
        in said.err
    )
    assert "before" == (tmp_path / "r.html").read_text()
    assert ["mei", "r.html"] == sorted(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("file", "status", "reason"),
    [
        (".", 2, "'.' is a directory: name a file in it, './report.html' say"),
        ("", 2, "--html needs the name of a file; - is stdout"),
        ("/dev/null", 2, "'/dev/null' is no regular file, and would be replaced by one: name another; - is stdout"),
        ("pipe", 2, "'pipe' is no regular file"),
        ("no/such/r.html", 1, "make it first, or name a file elsewhere"),
        ("file/r.html", 1, "there is no directory "),
        ("loop", 2, "'loop' is no regular file"),
        ("x" * 300, 1, "the report was not written: File name too long"),
    ],
)
def test_a_place_where_no_page_can_be_is_refused_with_the_next_step(
    store: TaskStore, tool: Tool, tmp_path: Path, file: str, status: int, reason: str
) -> None:
    store.submit("web", "fetch")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    said = tool("report", "--html", file)
    assert (status, "", 1) == (said.status, said.out, said.err.count("\n"))
    assert reason in said.err
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(os.getuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_refused(store: TaskStore, tmp_path: Path) -> None:
    populated(store)
    (tmp_path / "closed").mkdir(mode=0o500)
    without_rights = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*without_rights, *TOOL, "report", "--html", tmp_path / "closed/r.html"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 1 == done.returncode
    assert f"the report was not written: Permission denied: {tmp_path}/closed/r.html" in done.stderr


def test_a_page_that_nobody_can_be_given_is_an_error(store: TaskStore) -> None:
    store.submit("web", "fetch")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*TOOL, "report", "--html", "-"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert 1 == done.returncode
    assert done.stderr.startswith(b"animaworks-tool: No space left on device")


@pytest.mark.parametrize("age", ["99999999d", "9" * 400 + "d"])
@pytest.mark.usefixtures("anima")
@pytest.mark.parametrize(
    "words", [["report", "--html", "-", "--since"], ["events", "--since"], ["prune", "--older-than"]]
)
def test_an_age_from_before_the_calendar_is_refused(tool: Tool, words: list[str], age: str) -> None:
    said = tool(*words, age)
    assert 2 == said.status
    assert "is too long; at most 36500d" in said.err
